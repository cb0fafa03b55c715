//! Durations and quoted text in the notation the reference kit reads and writes them in.

use std::fmt::Write as _;
use std::time::Duration;

/// Reads `1h2m3.5s`: a sign, then numbers with units. `None` for anything else, and for what is
/// not above zero or more than an `i64` of nanoseconds holds.
pub(super) fn positive_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let whole = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, after) = rest.split_at(whole);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.bytes().take_while(u8::is_ascii_digit).count()),
            None => ("", after),
        };
        if digits.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit());
        let (unit, after) = after.split_at(unit_end.unwrap_or(after.len()));
        let size: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let digits = if digits.is_empty() { "0" } else { digits };
        let number: u64 = digits.parse().ok()?;
        total = total.checked_add(number.checked_mul(size)?)?;
        total = total.checked_add(part(fraction, size))?;
        rest = after;
    }
    let fits = total > 0 && i64::try_from(total).is_ok();
    fits.then(|| Duration::from_nanos(total))
}

/// What the digits behind a point are of a unit of `size` nanoseconds, cut to whole ones. Reckoned
/// in floating point like the reference's, which rounds where there are many digits; those that an
/// `i64` has no room for are left out.
fn part(digits: &str, size: u64) -> u64 {
    let (mut number, mut scale) = (0_u64, 1.0_f64);
    for digit in digits.bytes() {
        let longer = number
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'));
        if longer > i64::MAX as u64 {
            break;
        }
        (number, scale) = (longer, scale * 10.0);
    }
    (number as f64 * (size as f64 / scale)) as u64
}

/// Writes a duration as `1h0m0s`, `1.5s`, `50ms`.
pub(super) fn duration(time: Duration) -> String {
    let nanos = time.as_nanos();
    let decimal = |size: u128, unit: &str| {
        let mut text = format!(
            "{}.{:09}",
            nanos / size,
            nanos % size * (1_000_000_000 / size)
        );
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
        text + unit
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => decimal(1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(1_000_000, "ms"),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let rest = nanos % 60_000_000_000;
            let mut seconds = format!("{}.{:09}", rest / 1_000_000_000, rest % 1_000_000_000);
            seconds.truncate(seconds.trim_end_matches('0').trim_end_matches('.').len());
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// Text in double quotes, with what cannot be printed as escapes.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            c if printable(c) => quoted.push(c),
            c => {
                // Writing to a string does not fail.
                let _ = match u32::from(c) {
                    code @ ..0x80 => write!(quoted, "\\x{code:02x}"),
                    code @ ..0x1_0000 => write!(quoted, "\\u{code:04x}"),
                    code => write!(quoted, "\\U{code:08x}"),
                };
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Whether a character shows: a combining mark does, behind a letter.
fn printable(c: char) -> bool {
    let behind_a_letter = String::from_iter(['a', c]);
    // A quote shows too; it is only Rust that would escape it.
    c == '\'' || behind_a_letter.escape_debug().count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("50ms", Some(50_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("1h2m3s", Some(3_723_000_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("0.0499999999999999999999s", Some(50_000_000)),
            ("0.05000000000000000000000001s", Some(50_000_000)),
            ("0.3333333333s", Some(333_333_333)),
            ("+2s", Some(2_000_000_000)),
            ("7us", Some(7_000)),
            ("7µs", Some(7_000)),
            ("7μs", Some(7_000)),
            ("3ns", Some(3)),
            ("9223372036854775807ns", Some(i64::MAX as u64)),
            ("9223372036854775808ns", None),
            ("99999999999h", None),
            ("0", None),
            ("0s", None),
            ("-5ms", None),
            ("5", None),
            ("ms", None),
            (".s", None),
            ("1 s", None),
            ("1d", None),
            ("nope", None),
            ("", None),
        ] {
            assert_eq!(
                positive_duration(text),
                nanos.map(Duration::from_nanos),
                "{text:?}"
            );
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (75_000_000, "75ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_661_000_000_001, "1h1m1.000000001s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn text_is_quoted_as_go_quotes_it() {
        assert_eq!(
            quote("a\"\\\n\u{1b}\u{7f}\u{a0}e\u{301}個'\u{1f600}\u{e0001}"),
            "\"a\\\"\\\\\\n\\x1b\\x7f\\u00a0e\u{301}個'\u{1f600}\\U000e0001\""
        );
    }
}
