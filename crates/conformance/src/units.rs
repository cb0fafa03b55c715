//! Durations, sizes and counts as people read them.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// A duration in the largest unit that keeps it at least 1, with up to three decimals.
pub(crate) struct Time(pub Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let (size, unit) = match nanos {
            0 => return f.pad("0s"),
            1..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "us"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => (1_000_000_000, "s"),
        };
        let mut text = format!("{}.{:03}", nanos / size, nanos % size * 1_000 / size);
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
        text.push_str(unit);
        f.pad(&text)
    }
}

/// A size in the largest binary unit that keeps it at least 1, with one decimal unless it is whole.
pub(crate) struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, unit) = match self.0 {
            0..1_024 => return f.pad(&format!("{} B", self.0)),
            1_024..1_048_576 => (1_024, "KiB"),
            1_048_576..1_073_741_824 => (1_048_576, "MiB"),
            _ => (1_073_741_824, "GiB"),
        };
        let tenths = self.0 % size * 10 / size;
        match tenths {
            0 => f.pad(&format!("{} {unit}", self.0 / size)),
            _ => f.pad(&format!("{}.{tenths} {unit}", self.0 / size)),
        }
    }
}

/// `part` of `whole` in percent, rounded up so that a limit reached never reads as spare.
pub(crate) fn percent(part: u128, whole: u128) -> u128 {
    if whole == 0 {
        100
    } else {
        (part * 100).div_ceil(whole)
    }
}

/// A duration as whole nanoseconds.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// `1 frame`, `2 frames`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Characters that a report keeps of a text from a guest.
const TEXT_CHARS_MAX: usize = 200;

/// Text from a guest as a report keeps it: long text cut, nothing escaped. Who shows it on a line of
/// its own makes it [`escaped`].
pub(crate) fn cut(text: &str) -> String {
    shortened(text, TEXT_CHARS_MAX)
}

/// Whether a terminal does something else with a character than show it where it stands: controls of
/// both kinds, and breaks of line and marks of direction, which are no controls to Unicode.
///
/// ```
/// use cabinet_conformance::draws;
///
/// assert!(draws('\u{1b}') && draws('\u{9b}') && draws('\u{202e}') && draws('\u{200f}'));
/// assert!(!draws('é') && !draws('日'));
/// ```
#[must_use]
pub fn draws(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text from a guest made fit for one line of a report: what [`draws`] escaped, and the word that a failed verdict has for itself written small.
pub(crate) fn escaped(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars() {
        if draws(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line.replace("FAIL", "fail")
}

/// Text from a guest, [`cut`] and then [`escaped`].
pub(crate) fn one_line(text: &str) -> String {
    escaped(&cut(text))
}

/// An error and its causes on one line that is fit for a terminal, whoever chose the words: a guest's
/// own error text may be among them. Control characters and marks of direction are escaped, long text
/// is cut, and the word that a failed verdict has for itself is written small.
#[must_use]
pub fn error_line(error: &dyn Error) -> String {
    const MAX_CHARS: usize = 1_000;
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors end with the text of their source.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    escaped(&shortened(&line, MAX_CHARS))
}

fn shortened(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_in_their_largest_unit() {
        for (nanos, text) in [
            (0, "0s"),
            (999, "999ns"),
            (1_500, "1.5us"),
            (100_000_000, "100ms"),
            (6_634_000, "6.634ms"),
            (6_634_999, "6.634ms"),
            (90_000_000_000, "90s"),
        ] {
            assert_eq!(Time(Duration::from_nanos(nanos)).to_string(), text);
        }
    }

    #[test]
    fn sizes_read_in_their_largest_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (65_536, "64 KiB"),
            (1_966_080, "1.8 MiB"),
            (33_554_432, "32 MiB"),
            (1_610_612_736, "1.5 GiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_percentage_never_hides_a_used_limit() {
        assert_eq!(percent(1, 1_000), 1);
        assert_eq!(percent(100, 100), 100);
        assert_eq!(percent(101, 100), 101);
        assert_eq!(percent(0, 0), 100);
    }

    #[test]
    fn guest_text_cannot_break_a_line() {
        assert_eq!(one_line("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(one_line("a\u{202e}b\u{2028}c"), "a\\u{202e}b\\u{2028}c");
        assert_eq!(one_line("FAIL"), "fail");
        assert_eq!(one_line(&"x".repeat(300)).chars().count(), 201);
    }

    #[test]
    fn a_report_keeps_guest_text_as_it_is_up_to_a_length() {
        assert_eq!(cut("a\nFAIL\u{1b}"), "a\nFAIL\u{1b}");
        assert_eq!(cut(&"é".repeat(200)), "é".repeat(200));
        assert_eq!(cut(&"é".repeat(201)), "é".repeat(200) + "…");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the outer\nerror")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("the inner one: {0}")]
    struct Inner(#[source] std::io::Error);

    #[test]
    fn an_error_is_told_with_its_causes_once_each_on_one_line() {
        let cause = std::io::Error::other("FAIL\u{1b}[2J");
        assert_eq!(
            error_line(&Outer(Inner(cause))),
            "the outer\\nerror: the inner one: fail\\u{1b}[2J"
        );
        let long = std::io::Error::other("x".repeat(2_000));
        assert_eq!(error_line(&long).chars().count(), 1_001);
    }
}
