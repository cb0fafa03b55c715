//! The SHA-256 of an artifact, as a type of its own.

use core::fmt;
use core::str::FromStr;

/// The SHA-256 of a game's `.wasm` bytes, as its author shipped them.
///
/// Shown and parsed as 64 lower-case hex digits. This crate does not hash; whoever loads the bytes
/// does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArtifactDigest(pub [u8; 32]);

impl ArtifactDigest {
    /// The digest's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ArtifactDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ArtifactDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArtifactDigest({self})")
    }
}

impl FromStr for ArtifactDigest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(DigestError);
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            let nibble = |digit: u8| (digit as char).to_digit(16).ok_or(DigestError);
            *byte = ((nibble(pair[0])? << 4) | nibble(pair[1])?) as u8;
        }
        Ok(Self(digest))
    }
}

/// Text that is not 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestError;

impl fmt::Display for DigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an artifact digest is 64 hex digits")
    }
}

impl core::error::Error for DigestError {}

#[cfg(test)]
mod tests {
    use super::{ArtifactDigest, DigestError};
    use alloc::string::ToString;

    #[test]
    fn a_digest_reads_back_from_its_own_text() {
        let digest = ArtifactDigest(core::array::from_fn(|i| (i * 9) as u8));
        assert_eq!(digest.to_string().len(), 64);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        let text = digest.to_string();
        assert_eq!(text[1..].parse::<ArtifactDigest>(), Err(DigestError));
        assert_eq!(
            text.replace('0', "g").parse::<ArtifactDigest>(),
            Err(DigestError)
        );
    }
}
