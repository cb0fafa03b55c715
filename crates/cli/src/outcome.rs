//! How a command ends: an exit code, and one line when it could not do its work.

use std::fmt;
use std::io::{self, Write as _};
use std::sync::OnceLock;

use cabinet_conformance::draws;

/// What a command found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be. Exit code 0.
    Good,
    /// Looked at, and not as it should be: a failed verdict, a difference. Exit code 1.
    Bad,
    /// Some of it could not be looked at. Exit code 2.
    Unusable,
}

impl Outcome {
    /// The exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Bad => 1,
            Self::Unusable => 2,
        }
    }
}

/// Why a command could not do its work: one line that says what to do about it.
///
/// Always one line, whatever went into it: control characters are written as escapes, so text from
/// a guest, a file or a peer cannot draw over a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(String);

impl Problem {
    /// A problem with this text.
    #[must_use]
    pub fn new(text: impl AsRef<str>) -> Self {
        let mut line = String::with_capacity(text.as_ref().len());
        for c in text.as_ref().chars() {
            if draws(c) {
                line.extend(c.escape_default());
            } else {
                line.push(c);
            }
        }
        Self(line)
    }

    /// A problem with what `subject` names, and every cause of `error` in order.
    #[must_use]
    pub fn about(subject: impl fmt::Display, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(format!(
            "{subject}: {}",
            cabinet_conformance::error_line(error)
        ))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Writes `text` to stdout. A reader that went away, such as `head`, has read enough: no problem.
///
/// # Errors
/// A [`Problem`] when it cannot be written.
pub fn say(text: impl fmt::Display) -> Result<(), Problem> {
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Problem::about("cannot write to stdout", &error))
        }
        _ => Ok(()),
    }
}

/// JSON on one line, safe on a terminal: what would draw there is written as `\uXXXX`, which means
/// the same to whoever parses it.
#[must_use]
pub fn json(value: &serde_json::Value) -> String {
    json_escaped(&value.to_string())
}

/// The same for JSON that is text already. Such characters stand in strings only.
#[must_use]
pub fn json_escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Line ends of indented JSON are its own.
        if draws(c) && c != '\n' {
            // All of them are in the first plane. Writing to a string does not fail.
            let _ = fmt::Write::write_fmt(&mut out, format_args!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// What stdout answered that was no broken pipe: the first such line.
static LOST: OnceLock<Problem> = OnceLock::new();

/// A line for stdout, in the middle of a command: what cannot be written is kept for [`lost()`], so
/// that the command ends as it would have.
pub fn line(text: fmt::Arguments<'_>) {
    if let Err(problem) = say(format_args!("{text}\n")) {
        // One is enough to say.
        let _ = LOST.set(problem);
    }
}

/// Why not all that [`line()`] was given was written.
#[must_use]
pub fn lost() -> Option<&'static Problem> {
    LOST.get()
}

/// Writes a line to stderr, as far as that is possible: nobody is left to tell when it is not.
pub fn remark(line: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_whatever_it_says() {
        let problem = Problem::new("a\nb\x1b[2J\u{9b}c");
        assert_eq!(problem.to_string(), "a\\nb\\u{1b}[2J\\u{9b}c");
    }

    #[test]
    fn json_draws_nothing_and_means_the_same() {
        let value = serde_json::json!({ "a": "x\u{9b}2J\u{202e}\u{7f}\u{2066}\u{200f}é日" });
        let text = json(&value);
        assert_eq!(text, r#"{"a":"x\u009b2J\u202e\u007f\u2066\u200fé日"}"#);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
        let indented = serde_json::to_string_pretty(&value).unwrap();
        assert_eq!(json_escaped(&indented).lines().count(), 3);
    }

    #[test]
    fn exit_codes_are_the_documented_ones() {
        assert_eq!(
            [Outcome::Good, Outcome::Bad, Outcome::Unusable].map(Outcome::code),
            [0, 1, 2]
        );
    }
}
