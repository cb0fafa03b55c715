//! How much a guest may write to the log.
//!
//! Two limits: a message is cut after 4,096 bytes, and a room may write 32,768 bytes per window of
//! one second, `log` calls, stdout and stderr, and what the host says of the guest together. These
//! are the reference's numbers; it counts bytes only, so that empty messages flood it. Here every
//! message counts as 64 bytes at least: at most 512 records a second. A window
//! starts at the first message after the one before has passed. What does not fit is dropped, but
//! counted, and the first drop of a window asks for one warning.
//!
//! The time is real time, passed in: the budget protects the host's log, not the guest.

use std::borrow::Cow;
use std::time::Duration;

use cabinet_wire::{LOG_BYTES_PER_SECOND, LOG_WRITE_BYTES_MAX};

/// Appended to a message that was cut; comes on top of its 4,096 bytes.
const TRUNCATED_MARK: &str = "…[truncated]";
/// What a record costs however short it is.
const RECORD_BYTES_MIN: usize = 64;
/// How long a budget lasts.
const WINDOW: Duration = Duration::from_secs(1);

/// The log budget of one room.
#[derive(Debug, Clone, Default)]
pub struct LogCap {
    window_start: Option<Duration>,
    bytes: usize,
    warned: bool,
}

/// What to do with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogVerdict<'a> {
    /// Write this.
    Pass(Cow<'a, [u8]>),
    /// Drop it, and write one warning that output is being limited.
    DropFirst,
    /// Drop it.
    Drop,
}

impl LogCap {
    /// A full budget.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts and charges a message that arrives at `now`, counted from any fixed moment.
    pub fn admit<'a>(&mut self, now: Duration, message: &'a [u8]) -> LogVerdict<'a> {
        let passed = self
            .window_start
            .is_none_or(|start| now.saturating_sub(start) >= WINDOW);
        if passed {
            *self = Self {
                window_start: Some(now),
                bytes: 0,
                warned: false,
            };
        }
        let message = truncate(message);
        self.bytes = self
            .bytes
            .saturating_add(message.len().max(RECORD_BYTES_MIN));
        if self.bytes <= LOG_BYTES_PER_SECOND {
            LogVerdict::Pass(message)
        } else if self.warned {
            LogVerdict::Drop
        } else {
            self.warned = true;
            LogVerdict::DropFirst
        }
    }
}

/// The message as it is written: cut after 4,096 bytes, if need be inside a character, with
/// [`TRUNCATED_MARK`] behind the cut.
fn truncate(message: &[u8]) -> Cow<'_, [u8]> {
    match message.get(..LOG_WRITE_BYTES_MAX) {
        Some(kept) if message.len() > LOG_WRITE_BYTES_MAX => {
            Cow::Owned([kept, TRUNCATED_MARK.as_bytes()].concat())
        }
        _ => Cow::Borrowed(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LogVerdict::{Drop, DropFirst};

    const ALMOST: Duration = Duration::from_nanos(999_999_999);

    fn passes(verdict: &LogVerdict<'_>) -> bool {
        matches!(verdict, LogVerdict::Pass(_))
    }

    /// Uses the window's budget up to `left` bytes.
    fn spend_all_but(cap: &mut LogCap, now: Duration, left: usize) {
        for _ in 0..7 {
            assert!(passes(&cap.admit(now, &[0; 4096])));
        }
        assert!(passes(&cap.admit(now, &vec![0; 4096 - left])));
    }

    #[test]
    fn a_message_of_4096_bytes_is_kept_and_one_of_4097_is_cut() {
        assert_eq!(truncate(b""), b"".as_slice());
        assert_eq!(truncate(&[b'x'; 4096]), [b'x'; 4096].as_slice());
        let cut = truncate(&[b'x'; 4097]);
        assert_eq!(cut.len(), 4110);
        assert_eq!(cut[..4096], [b'x'; 4096]);
        assert_eq!(&cut[4096..], "…[truncated]".as_bytes());
    }

    #[test]
    fn a_cut_may_split_a_character() {
        let even = "é".repeat(2049);
        let odd = format!("x{even}");
        assert!(std::str::from_utf8(&truncate(even.as_bytes())).is_ok());
        assert!(std::str::from_utf8(&truncate(odd.as_bytes())).is_err());
    }

    #[test]
    fn seven_cut_messages_pass_per_window_and_the_eighth_warns_once() {
        let mut cap = LogCap::new();
        for window in 0..3 {
            let now = WINDOW * window;
            for _ in 0..7 {
                assert!(passes(&cap.admit(now, &[b'x'; 5000])));
            }
            assert_eq!(cap.admit(now, &[b'x'; 5000]), DropFirst);
            assert_eq!(cap.admit(now, b"x"), Drop);
        }
    }

    #[test]
    fn exactly_32768_bytes_pass_and_one_more_does_not() {
        let mut cap = LogCap::new();
        spend_all_but(&mut cap, Duration::ZERO, 65);
        assert!(passes(&cap.admit(Duration::ZERO, &[b'x'; 65])));
        assert_eq!(cap.admit(Duration::ZERO, b"x"), DropFirst);

        let mut cap = LogCap::new();
        spend_all_but(&mut cap, Duration::ZERO, 65);
        assert_eq!(cap.admit(Duration::ZERO, &[b'x'; 66]), DropFirst);
    }

    #[test]
    fn five_hundred_and_twelve_empty_messages_pass_and_the_next_does_not() {
        let mut cap = LogCap::new();
        for _ in 0..512 {
            assert!(passes(&cap.admit(Duration::ZERO, b"")));
        }
        assert_eq!(cap.admit(Duration::ZERO, b""), DropFirst);
        assert!(passes(&cap.admit(WINDOW, b"")));
    }

    #[test]
    fn refused_bytes_are_counted_so_a_message_that_would_fit_is_refused_after_them() {
        let mut cap = LogCap::new();
        spend_all_but(&mut cap, Duration::ZERO, 1);
        assert_eq!(cap.admit(Duration::ZERO, b"xx"), DropFirst);
        assert_eq!(cap.admit(Duration::ZERO, b"x"), Drop);
        assert_eq!(cap.admit(Duration::ZERO, b""), Drop);
    }

    #[test]
    fn a_window_ends_one_second_after_its_first_message_and_not_before() {
        let start = Duration::from_millis(300);
        let mut cap = LogCap::new();
        spend_all_but(&mut cap, start, 0);
        assert_eq!(cap.admit(start + ALMOST, b"x"), DropFirst);
        // The next window starts with its first message, not at a multiple of the first.
        let next = start + WINDOW + WINDOW / 2;
        spend_all_but(&mut cap, next, 0);
        assert_eq!(cap.admit(next + ALMOST, b"x"), DropFirst);
        assert!(passes(&cap.admit(next + WINDOW, b"x")));
    }

    #[test]
    fn a_time_before_the_window_does_not_refill_the_budget() {
        let mut cap = LogCap::new();
        spend_all_but(&mut cap, WINDOW * 10, 0);
        assert_eq!(cap.admit(Duration::ZERO, b"x"), DropFirst);
    }
}
