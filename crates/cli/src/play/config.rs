//! Flags of `play` that have a syntax of their own.

use std::path::Path;
use std::time::Duration;

use cabinet_conformance::error_line;
use cabinet_conformance::files::{self, FileError};
use cabinet_rooms::services::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

use crate::outcome::Problem;
use crate::recording::format::CONFIG_MAX;

/// Bytes of all configured values together.
pub const CONFIG_BYTES_MAX: usize = 8 << 20;
/// The longest heartbeat.
const HEARTBEAT_MAX: Duration = Duration::from_secs(60);

/// `KEY=VALUE` or `KEY=@FILE`, read.
///
/// # Errors
/// What is wrong with which of them, in one line.
pub fn config(flags: &[String]) -> Result<Vec<(String, Vec<u8>)>, Problem> {
    if flags.len() > CONFIG_MAX {
        let given = flags.len();
        return Err(Problem::new(format!(
            "--config is given {given} times, at most {CONFIG_MAX} values are taken"
        )));
    }
    let mut out: Vec<(String, Vec<u8>)> = Vec::new();
    for flag in flags {
        let (key, value) = one(flag)?;
        if out.iter().any(|(before, _)| *before == key) {
            return Err(Problem::new(format!("--config {key}: given twice")));
        }
        out.push((key, value));
    }
    let bytes: usize = out.iter().map(|(_, value)| value.len()).sum();
    if bytes > CONFIG_BYTES_MAX {
        return Err(Problem::new(format!(
            "--config: {bytes} bytes in all, at most {CONFIG_BYTES_MAX} are taken"
        )));
    }
    Ok(out)
}

fn one(flag: &str) -> Result<(String, Vec<u8>), Problem> {
    let Some((key, value)) = flag.split_once('=') else {
        return Err(Problem::new(format!(
            "--config {flag}: want KEY=VALUE, or KEY=@FILE for a file's content"
        )));
    };
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Problem::new(format!(
            "--config: a key has 1 to {KEY_BYTES_MAX} bytes, this one {}",
            key.len()
        )));
    }
    let too_large = || {
        Problem::new(format!(
            "--config {key}: the value has more than {VALUE_BYTES_MAX} bytes"
        ))
    };
    let value = match value.strip_prefix('@') {
        Some(path) => {
            let bytes = files::read_up_to(Path::new(path), VALUE_BYTES_MAX);
            bytes.map_err(|error| match error {
                FileError::TooLarge { .. } => too_large(),
                error => Problem::new(format!(
                    "--config {key}: cannot read {}",
                    error_line(&error)
                )),
            })?
        }
        None => value.as_bytes().to_vec(),
    };
    if value.len() > VALUE_BYTES_MAX {
        return Err(too_large());
    }
    Ok((key.to_owned(), value))
}

/// A duration as people write one: `50ms`, `1.5s`, `2m`.
///
/// # Errors
/// What would be one.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err("want a duration such as 50ms or 1.5s".into()),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "want a duration such as 50ms or 1.5s".to_owned())?;
    let duration = Duration::try_from_secs_f64(number * scale)
        .map_err(|_| "the duration is out of range".to_owned())?;
    if duration < Duration::from_millis(1) || duration > HEARTBEAT_MAX {
        return Err("want a duration from 1ms to 1m".into());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flags(flags: &[&str]) -> Result<Vec<(String, Vec<u8>)>, String> {
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        config(&flags).map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_value_is_given_or_read_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value");
        std::fs::write(&path, "from a file\n").unwrap();
        let from_file = format!("b=@{}", path.display());
        assert_eq!(
            flags(&["a=x=y", &from_file, "c="]),
            Ok(vec![
                ("a".into(), b"x=y".to_vec()),
                ("b".into(), b"from a file\n".to_vec()),
                ("c".into(), Vec::new()),
            ])
        );
    }

    #[test]
    fn what_is_no_pair_is_one_line_that_says_so() {
        for (flag, says) in [
            ("a", "want KEY=VALUE"),
            ("=x", "a key has 1 to"),
            ("a=@/does/not/exist", "cannot read /does/not/exist"),
            ("a=@", "cannot read"),
        ] {
            let problem = flags(&[flag]).unwrap_err();
            assert!(problem.contains(says), "{problem}");
            assert_eq!(problem.lines().count(), 1);
        }
        assert!(flags(&["a=1", "a=2"]).unwrap_err().contains("given twice"));
    }

    #[test]
    fn keys_values_and_their_number_have_limits() {
        let key = |bytes| flags(&[&format!("{}=1", "k".repeat(bytes))]);
        assert!(key(KEY_BYTES_MAX).is_ok() && key(KEY_BYTES_MAX + 1).is_err());
        let value = |bytes| flags(&[&format!("k={}", "v".repeat(bytes))]);
        assert!(value(VALUE_BYTES_MAX).is_ok() && value(VALUE_BYTES_MAX + 1).is_err());
        let many = |count: usize| {
            config(&(0..count).map(|n| format!("k{n}=")).collect::<Vec<_>>()).is_ok()
        };
        assert!(many(CONFIG_MAX) && !many(CONFIG_MAX + 1));
        let total = |last: usize| {
            let mut all: Vec<_> = (0..7)
                .map(|n| format!("k{n}={}", "v".repeat(1 << 20)))
                .collect();
            all.push(format!("a={}", "v".repeat((1 << 20) - 1)));
            all.push(format!("b={}", "v".repeat(last)));
            config(&all).is_ok()
        };
        assert!(total(1) && !total(2));
    }

    #[test]
    fn durations_are_written_as_people_do() {
        assert_eq!(duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("1ms"), Ok(Duration::from_millis(1)));
        for bad in [
            "",
            "50",
            "ms",
            "-1s",
            "1h",
            "1.2.3s",
            "61s",
            "999us",
            "0s",
            "1e9s",
            "99999999999999999999999999m",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_flag_makes_the_reader_panic(text in "[-a-z=@./0-9µ]{0,30}") {
            let _ = duration(&text);
            let _ = one(&text.replace('@', ""));
        }
    }
}
