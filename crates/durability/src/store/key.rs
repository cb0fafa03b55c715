//! Names of objects.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest key, bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// Names an object: segments of lower-case letters, digits, `.`, `_` and `-`, with `/` between
/// them. No segment is empty or begins with a dot, so a key is a safe relative path everywhere.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

/// A text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It is longer than [`KEY_BYTES_MAX`].
    #[error("a key of {0} bytes, more than {KEY_BYTES_MAX}")]
    TooLong(usize),
    /// A segment is empty or begins with a dot.
    #[error("a key with a segment that is empty or begins with a dot: {0:?}")]
    Segment(String),
    /// A character is not allowed.
    #[error(
        "a key with the character {0:?}: want lower-case letters, digits, `.`, `_`, `-` and `/`"
    )]
    Character(char),
}

impl Key {
    /// A key of that name.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn new(name: impl Into<Arc<str>>) -> Result<Self, KeyError> {
        let name = name.into();
        if name.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLong(name.len()));
        }
        let allowed = |c: char| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-' | '/')
        };
        if let Some(other) = name.chars().find(|c| !allowed(*c)) {
            return Err(KeyError::Character(other));
        }
        if let Some(segment) = name
            .split('/')
            .find(|segment| segment.is_empty() || segment.starts_with('.'))
        {
            return Err(KeyError::Segment(segment.into()));
        }
        Ok(Self(name))
    }

    /// A key that this crate put together from parts that are all allowed.
    pub(crate) fn known(name: String) -> Self {
        debug_assert!(Self::new(name.as_str()).is_ok(), "{name}");
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Keys sort as their names do.
impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Self, KeyError> {
        Self::new(name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_safe_relative_path() {
        for good in ["a", "a/b", "snapshots/0190b5a4-3c1e/latest", "a.b/c_d", "0"] {
            assert_eq!(good.parse::<Key>().expect(good).as_str(), good);
        }
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.tmp", "A", "a b", "a\\b", "a\0",
            "ä", "a+b",
        ] {
            assert!(bad.parse::<Key>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_longest_key_is_one_and_a_longer_is_not() {
        assert!(Key::new("k".repeat(KEY_BYTES_MAX)).is_ok());
        assert_eq!(
            Key::new("k".repeat(KEY_BYTES_MAX + 1)),
            Err(KeyError::TooLong(KEY_BYTES_MAX + 1))
        );
    }
}
