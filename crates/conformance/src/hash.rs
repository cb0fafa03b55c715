//! SHA-256 and hexadecimal text.

use ring::digest::{Context, SHA256, digest};

/// SHA-256 of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    into_array(digest(&SHA256, bytes))
}

/// A SHA-256 that is fed in pieces.
pub(crate) struct Running(Context);

impl Running {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything fed so far.
    pub(crate) fn finish(&self) -> [u8; 32] {
        into_array(self.0.clone().finish())
    }
}

fn into_array(digest: ring::digest::Digest) -> [u8; 32] {
    let mut bytes = [0; 32];
    // SHA-256 has 32 bytes, so the lengths agree.
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles
        .map(|nibble| char::from(DIGITS[usize::from(nibble)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_hash_like_the_whole() {
        let mut running = Running::new();
        running.update(b"ab");
        running.update(b"c");
        assert_eq!(running.finish(), sha256(b"abc"));
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(&sha256(b"abc")), known);
    }
}
