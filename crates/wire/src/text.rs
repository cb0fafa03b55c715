//! A wire string: bytes that are UTF-8 by convention and by nothing else.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt;

/// A borrowed wire `str`: UTF-8 by convention, never validated by any decoder.
///
/// Compare and store it as bytes; show it with [`Text::to_str_lossy`] or `Display`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<'a>(pub &'a [u8]);

impl<'a> Text<'a> {
    /// The text of a Rust string.
    #[must_use]
    pub const fn new(text: &'a str) -> Self {
        Self(text.as_bytes())
    }

    /// The bytes as they are on the wire, without the length in front.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether there are no bytes.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The text, with every invalid sequence replaced by U+FFFD. Allocates only when there is one.
    #[must_use]
    pub fn to_str_lossy(self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.0)
    }

    /// How many code points there are, where each byte that is not part of valid UTF-8 counts as one.
    ///
    /// This is the measure of [`crate::CONTROL_LABEL_CHARS_MAX`].
    #[must_use]
    pub fn char_count(self) -> usize {
        self.0
            .utf8_chunks()
            .map(|chunk| chunk.valid().chars().count() + chunk.invalid().len())
            .sum()
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self::new(text)
    }
}

impl<'a> From<&'a [u8]> for Text<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_str("\u{FFFD}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::Text;
    use alloc::format;

    #[test]
    fn invalid_bytes_are_shown_replaced_and_debugged_escaped() {
        let text = Text(b"a\xffb");
        assert_eq!(text.to_str_lossy(), "a\u{FFFD}b");
        assert_eq!(format!("{text}"), "a\u{FFFD}b");
        assert_eq!(format!("{text:?}"), "\"a\\xffb\"");
    }

    #[test]
    fn each_invalid_byte_counts_as_one_code_point() {
        assert_eq!(Text::new("").char_count(), 0);
        assert_eq!(Text::new("é\u{301}x").char_count(), 3);
        assert_eq!(Text(b"\xff\xff\xff").char_count(), 3);
        // A sequence cut short: three bytes that together promise one code point.
        assert_eq!(Text(b"\xf0\x9f\x99").char_count(), 3);
        // A UTF-8 encoded surrogate is three invalid bytes.
        assert_eq!(Text(b"\xed\xa0\x80").char_count(), 3);
    }
}
