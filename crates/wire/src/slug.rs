//! A game's name: 1 to 32 bytes of `[a-z0-9-]`, validated once and carried as proof.

use core::fmt;
use core::str::FromStr;

use crate::SLUG_BYTES_MAX;

/// A valid bare game name.
///
/// Owned and `Copy`. The `<author>/` namespace is the platform's and never part of it.
///
/// ```
/// use cabinet_wire::Slug;
/// assert_eq!("tic-tac-toe".parse::<Slug>().unwrap().as_str(), "tic-tac-toe");
/// assert!("ada/chess".parse::<Slug>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slug {
    // Zero padded, so that comparing the arrays compares the names.
    bytes: [u8; SLUG_BYTES_MAX],
    len: u8,
}

impl Slug {
    /// Validates `bytes` as a slug.
    ///
    /// # Errors
    ///
    /// [`SlugError`] names the first rule broken.
    pub fn new(bytes: &[u8]) -> Result<Self, SlugError> {
        if bytes.is_empty() {
            return Err(SlugError::Empty);
        }
        if bytes.len() > SLUG_BYTES_MAX {
            return Err(SlugError::TooLong { bytes: bytes.len() });
        }
        let allowed = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if let Some(at) = bytes.iter().position(|b| !allowed(b)) {
            return Err(SlugError::Byte {
                at,
                byte: bytes[at],
            });
        }
        let mut slug = Self {
            bytes: [0; SLUG_BYTES_MAX],
            len: bytes.len() as u8,
        };
        slug.bytes[..bytes.len()].copy_from_slice(bytes);
        Ok(slug)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Infallible: `new` admits ASCII only.
        core::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl TryFrom<&[u8]> for Slug {
    type Error = SlugError;
    fn try_from(bytes: &[u8]) -> Result<Self, SlugError> {
        Self::new(bytes)
    }
}

impl FromStr for Slug {
    type Err = SlugError;
    fn from_str(text: &str) -> Result<Self, SlugError> {
        Self::new(text.as_bytes())
    }
}

impl AsRef<str> for Slug {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slug({})", self.as_str())
    }
}

/// Why bytes are not a [`Slug`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlugError {
    /// There are none.
    Empty,
    /// More than [`SLUG_BYTES_MAX`].
    TooLong {
        /// How many there are.
        bytes: usize,
    },
    /// A byte outside `[a-z0-9-]`.
    Byte {
        /// Its offset.
        at: usize,
        /// Its value.
        byte: u8,
    },
}

impl fmt::Display for SlugError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("slug is empty"),
            Self::TooLong { bytes } => {
                write!(f, "slug has {bytes} bytes, at most {SLUG_BYTES_MAX} fit")
            }
            Self::Byte { at, byte } => write!(
                f,
                "slug has byte '{}' at {at}, only a-z, 0-9 and '-' may be used",
                byte.escape_ascii()
            ),
        }
    }
}

impl core::error::Error for SlugError {}

#[cfg(test)]
mod tests {
    use super::{Slug, SlugError};

    #[test]
    fn thirty_two_bytes_are_a_slug_and_thirty_three_are_not() {
        assert!(Slug::new(&[b'a'; 32]).is_ok());
        assert_eq!(
            Slug::new(&[b'a'; 33]),
            Err(SlugError::TooLong { bytes: 33 })
        );
        assert_eq!(Slug::new(b""), Err(SlugError::Empty));
    }

    #[test]
    fn only_lower_case_digits_and_hyphen_are_admitted() {
        for byte in 0..=u8::MAX {
            let ok = byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            assert_eq!(Slug::new(&[b'a', byte]).is_ok(), ok, "byte {byte:#04x}");
        }
        assert_eq!(
            Slug::new(b"abc\n"),
            Err(SlugError::Byte { at: 3, byte: b'\n' })
        );
    }

    #[test]
    fn slugs_sort_as_their_names_do() {
        let of = |name: &str| name.parse::<Slug>().unwrap();
        assert!(of("a") < of("a-"));
        assert!(of("a-") < of("aa"));
        assert!(of("ab") < of("b"));
    }
}
