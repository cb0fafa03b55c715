//! Randomness, passed in: salts and nonces nobody can guess.

use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Where salts and nonces come from.
pub trait Entropy: Send + Sync {
    /// Fills `bytes` with what nobody can guess.
    ///
    /// # Errors
    /// When the source failed; the bytes are not to be used.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomness>;
}

/// The source of randomness failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the source of randomness failed")]
pub struct NoRandomness;

/// The system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        use ring::rand::SecureRandom as _;
        ring::rand::SystemRandom::new()
            .fill(bytes)
            .map_err(|_| NoRandomness)
    }
}

/// A sequence everybody can guess (splitmix64), for tests that must repeat. Records sealed with it
/// are as good as not sealed.
pub struct SeededEntropy {
    state: Mutex<u64>,
}

impl SeededEntropy {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: Mutex::new(seed),
        }
    }
}

impl fmt::Debug for SeededEntropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeededEntropy(..)")
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in bytes.chunks_mut(8) {
            *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = *state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed ^= mixed >> 31;
            chunk.copy_from_slice(&mixed.to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(entropy: &dyn Entropy) -> [u8; 19] {
        let mut bytes = [0; 19];
        entropy.fill(&mut bytes).expect("it does not fail");
        bytes
    }

    #[test]
    fn a_seeded_source_repeats_and_the_systems_does_not() {
        assert_eq!(drawn(&SeededEntropy::new(1)), drawn(&SeededEntropy::new(1)));
        assert_ne!(drawn(&SeededEntropy::new(1)), drawn(&SeededEntropy::new(2)));
        assert_ne!(drawn(&SystemEntropy), drawn(&SystemEntropy));
    }
}
