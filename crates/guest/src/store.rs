//! Errors of the key-value store and of configuration.
//!
//! The ABI has no error channel for either: a store that is down answers like one that is empty.
//! What can be told apart is told apart before the host is asked.

use core::fmt;

/// Why the store was not asked, or its answer is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvError {
    /// The key has no bytes; the host ignores such a key.
    EmptyKey,
    /// The value has no bytes; the host could not tell it from an absent one. Delete instead.
    EmptyValue,
    /// The player has left the room.
    NotInRoom,
    /// The player is a guest without an account; the host may let all of them share one record.
    NoAccount,
    /// The stored value is not a base-10 integer, or one was needed for `Sum` or `Max`.
    NotANumber,
}

impl fmt::Display for KvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KvError::EmptyKey => "the key is empty",
            KvError::EmptyValue => "the value is empty, which reads as absent; delete the key",
            KvError::NotInRoom => "the player is not in the room",
            KvError::NoAccount => "the player has no account to store under",
            KvError::NotANumber => "the value is not a base-10 integer",
        })
    }
}

impl core::error::Error for KvError {}

/// A configuration key was read in a way its declaration does not allow: a mistake in the game.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// `META` declares no such key.
    Undeclared,
    /// `META` declares the key with another type.
    WrongType,
    /// Neither the configured value nor the declared default is of the type.
    BadDefault,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConfigError::Undeclared => "the configuration key is not declared in META",
            ConfigError::WrongType => "the configuration key is declared with another type",
            ConfigError::BadDefault => "the declared default is not of the declared type",
        })
    }
}

impl core::error::Error for ConfigError {}

/// A base-10 ASCII integer, whitespace around it tolerated, as the host's merges read it.
pub(crate) fn parse_i64(value: &[u8]) -> Option<i64> {
    core::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// A number written in as few bytes as it needs, on the stack.
pub(crate) struct Decimal {
    bytes: [u8; 20],
    start: usize,
}

impl Decimal {
    pub fn new(value: i64) -> Decimal {
        let mut decimal = Decimal {
            bytes: [0; 20],
            start: 20,
        };
        let mut rest = value.unsigned_abs();
        loop {
            decimal.push(b'0' + (rest % 10) as u8);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            decimal.push(b'-');
        }
        decimal
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn push(&mut self, byte: u8) {
        self.start -= 1;
        self.bytes[self.start] = byte;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_reads_as_the_number_it_was_made_of() {
        for value in [0, 7, -1, 1_000, i64::MAX, i64::MIN] {
            assert_eq!(Decimal::new(value).as_bytes(), value.to_string().as_bytes());
            assert_eq!(parse_i64(Decimal::new(value).as_bytes()), Some(value));
        }
    }

    #[test]
    fn whitespace_around_a_number_is_tolerated_and_nothing_else() {
        assert_eq!(parse_i64(b" 12\n"), Some(12));
        assert_eq!(
            (parse_i64(b"1 2"), parse_i64(b""), parse_i64(b"\xff")),
            (None, None, None)
        );
    }
}
