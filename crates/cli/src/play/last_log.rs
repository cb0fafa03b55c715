//! What a guest logged: the last of it in memory, told with the fault when it crashes, since a panic's
//! words are there; all of it in a file, when one is wanted.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cabinet_rooms::services::{LogOrigin, LogSink};

use super::log_file::LogFile;

/// Lines that are kept.
pub const LINES_MAX: usize = 20;
/// Characters of a line that are kept.
pub const LINE_CHARS_MAX: usize = 400;

/// Keeps the last lines of a room's log.
#[derive(Debug, Default)]
pub struct LastLog {
    lines: Mutex<VecDeque<String>>,
    file: Option<LogFile>,
}

impl LastLog {
    /// One that also passes everything on to a file.
    #[must_use]
    pub fn with_file(file: Option<LogFile>) -> Self {
        Self {
            file,
            ..Self::default()
        }
    }

    /// The file, if there is one.
    #[must_use]
    pub fn file(&self) -> Option<&LogFile> {
        self.file.as_ref()
    }

    /// The lines, oldest first, with control characters as escapes.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    fn add(&self, message: &[u8]) {
        // A record is at most 4 KiB.
        let text = String::from_utf8_lossy(message);
        let mut lines = self.lock();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let mut kept = String::new();
            push_escaped(line.chars().take(LINE_CHARS_MAX), &mut kept);
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(kept);
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogSink for LastLog {
    fn record(&self, from: &LogOrigin<'_>, message: &[u8]) {
        self.add(message);
        if let Some(file) = &self.file {
            file.record(from.level, from.source, message);
        }
    }
}

/// Adds characters, those that control a terminal as escapes.
pub(super) fn push_escaped(line: impl Iterator<Item = char>, out: &mut String) {
    for c in line {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_control_nothing() {
        let log = LastLog::default();
        log.add(b"one\n\ntwo\x1b[2J\r\n\xff");
        assert_eq!(log.lines(), ["one", "two\\u{1b}[2J", "\u{fffd}"]);
        for number in 0..LINES_MAX - 1 {
            log.add(format!("line {number}").as_bytes());
        }
        assert_eq!(log.lines().len(), LINES_MAX);
        assert_eq!(log.lines()[0], "\u{fffd}");
        log.add(b"last");
        assert_eq!(
            (log.lines().len(), log.lines()[0].as_str()),
            (LINES_MAX, "line 0")
        );
        for chars in [LINE_CHARS_MAX, LINE_CHARS_MAX + 1] {
            log.add("x".repeat(chars).as_bytes());
            assert_eq!(log.lines()[LINES_MAX - 1].len(), LINE_CHARS_MAX);
        }
    }
}
