//! CPU time the hypervisor gave to other machines, as `/proc/stat` counts it.
//!
//! A deadline kill during which this count advanced may be the platform's fault and is reported
//! so. The count is of the whole machine and moves in steps of about 10 ms: a hint, not proof.

use std::io::Read;

/// Enough for the total line, which is the first: ten numbers of at most twenty digits.
const HEAD_BYTES: usize = 512;

/// The steal count now, in jiffies over all CPUs since boot; `None` where the system does not tell.
/// Allocates nothing.
#[must_use]
pub fn read_steal_jiffies() -> Option<u64> {
    let mut head = [0; HEAD_BYTES];
    let mut file = std::fs::File::open("/proc/stat").ok()?;
    let read = file.read(&mut head).ok()?;
    parse_steal_jiffies(std::str::from_utf8(head.get(..read)?).ok()?)
}

/// CPUs that the stolen time of `/proc/stat` is summed over, those this process may not use included; `None` where
/// the system does not tell. What stolen time is to be divided among.
#[must_use]
pub fn machine_cpus() -> Option<u32> {
    count_cpus(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// The lines `cpu0`, `cpu1`, …
fn count_cpus(stat: &str) -> Option<u32> {
    let lines = stat.lines().filter(|line| {
        let digits = line
            .strip_prefix("cpu")
            .and_then(|rest| rest.split(' ').next());
        digits.is_some_and(|digits| digits.parse::<u32>().is_ok())
    });
    u32::try_from(lines.count()).ok().filter(|count| *count > 0)
}

/// The ninth field of the first line that starts with `cpu `: the others (`cpu0`, …) are per CPU.
fn parse_steal_jiffies(stat: &str) -> Option<u64> {
    stat.lines()
        .find(|line| line.starts_with("cpu "))?
        .split_whitespace()
        .nth(8)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ninth_field_of_the_total_line_is_the_steal_count() {
        let cases = [
            (
                "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1 1 1 1 1 1 99 1 1\n",
                Some(8),
            ),
            ("cpu 1 2 3 4 5 6 7 0", Some(0)),
            (
                "intr 5\ncpu\t1 2 3 4 5 6 7 8\ncpu  0 0 0 0 0 0 0 12\n",
                Some(12),
            ),
            ("cpu  0 0 0 0 0 0 0 18446744073709551615 0", Some(u64::MAX)),
        ];
        for (text, steal) in cases {
            assert_eq!(parse_steal_jiffies(text), steal, "{text:?}");
        }
    }

    #[test]
    fn cpus_are_counted_by_their_lines() {
        let stat = "cpu  1 2 3\ncpu0 1 2\ncpu1 3 4\ncpu11 1\nintr 5 cpu7\ncpux 1\ncpus 2\n";
        assert_eq!(count_cpus(stat), Some(3));
        assert_eq!(count_cpus("cpu  1 2 3\n"), None);
        assert_eq!(count_cpus(""), None);
    }

    #[test]
    fn anything_else_is_not_available() {
        let cases = [
            "",
            "cpu",
            "cpu ",
            "cpu  1 2 3 4 5 6 7",
            "cpu0 1 2 3 4 5 6 7 8",
            "cpu  1 2 3 4 5 6 7 -8",
            "cpu  1 2 3 4 5 6 7 8.5",
            "cpu  1 2 3 4 5 6 7 x",
            "cpu  1 2 3 4 5 6 7 18446744073709551616",
            " cpu  1 2 3 4 5 6 7 8",
        ];
        for text in cases {
            assert_eq!(parse_steal_jiffies(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_count_never_goes_down_on_this_machine() {
        if let Some(before) = read_steal_jiffies() {
            assert!(read_steal_jiffies() >= Some(before));
        }
    }
}
