//! Sealed records: bytes nobody can read, change or move who has the bucket but not the key.
//!
//! [`Sealer::seal`] writes a record; [`Unverified::parse`] reads its header, [`Unverified::verify`]
//! proves it, and only what is [`Verified`] can be decompressed. The types keep that order: verify,
//! then bound, then decode.
//!
//! A record says in the clear what it is and where it belongs ([`Place`]); all of that is
//! authenticated with the body. The body is compressed, then encrypted under a key of its own,
//! derived from the master key, the room and a random salt: a retried epoch never repeats a nonce.
//! The layout is in `docs/FORMATS.md`.

mod keys;
mod record;

pub use keys::{KEYS_MAX, KeyError, Keyring, MasterKey};
pub(crate) use record::claimed_key;
pub use record::{
    HEADER_BYTES, Kind, MAGIC, Place, RECORD_VERSION, TAG_BYTES, Unverified, Verified, Wanted,
};

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::aead;
use zeroize::Zeroizing;

use crate::entropy::{Entropy, NoRandomness};
use crate::ids::RoomId;

/// The zstd level of record bodies. Level 3 gains nothing on images of games (docs/ARCHITECTURE.md).
pub const ZSTD_LEVEL: i32 = 1;

/// How records are protected.
#[derive(Debug)]
#[non_exhaustive]
pub enum Sealing {
    /// Under the keys of this ring.
    Keys(Keyring),
    /// Not at all: a checksum finds damage, nothing finds malice. Works on a [`MemoryStore`] and on
    /// a directory opened with [`DirStore::unsealed_for_development`], nowhere else.
    ///
    /// [`MemoryStore`]: crate::store::MemoryStore
    /// [`DirStore::unsealed_for_development`]: crate::store::DirStore::unsealed_for_development
    UnsealedForDevelopment,
}

/// Seals records and opens them.
pub struct Sealer {
    sealing: Sealing,
    entropy: Arc<dyn Entropy>,
    compressors: Spares<zstd::bulk::Compressor<'static>>,
    decompressors: Spares<zstd::bulk::Decompressor<'static>>,
    memory: Spares<Vec<u8>>,
}

/// Things that are costly to make, a few of which are kept for the next time.
struct Spares<T>(Mutex<Vec<T>>);

/// How many of each are kept.
const SPARES_MAX: usize = 4;

impl<T> Spares<T> {
    fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn take(&self) -> Option<T> {
        self.lock().pop()
    }

    fn give(&self, spare: T) {
        let mut spares = self.lock();
        if spares.len() < SPARES_MAX {
            spares.push(spare);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A record was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// There is no salt.
    #[error("cannot draw a salt")]
    Entropy(#[from] NoRandomness),
    /// zstd failed.
    #[error("cannot compress the record")]
    Compress(#[source] std::io::Error),
    /// The cipher refused so long a body; past 64 GiB.
    #[error("the body is longer than the cipher takes")]
    Cipher,
}

/// A record was not accepted. No byte of it was decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It is something else.
    #[error("not a record of ours")]
    NotARecord,
    /// A newer version of the format.
    #[error("a record of version {found}; this is version {RECORD_VERSION}: update Cabinet")]
    Version {
        /// The version it says.
        found: u16,
    },
    /// Changed, cut or extended; or sealed under another key of the same id.
    #[error("the record's seal does not hold")]
    Broken,
    /// It carries no seal, and one is required.
    #[error("the record is not sealed: only an offline import reads those")]
    NotSealed,
    /// It is sealed, and there are no keys.
    #[error("the record is sealed, and this process has no keys")]
    NoKeys,
    /// Sealed under a key that is not in the ring.
    #[error("the record is sealed under key {0}, which is not in the ring: add it as an older key")]
    UnknownKey(u32),
    /// Authentic, and from elsewhere: somebody moved it.
    #[error("the record belongs elsewhere: its {0} is another")]
    Misplaced(&'static str),
    /// It would come to more bytes than allowed.
    #[error("the record holds {bytes} bytes, more than the {max} allowed")]
    TooLarge {
        /// What it says.
        bytes: u64,
        /// What was allowed.
        max: u64,
    },
    /// Authentic, and not what a writer of ours writes.
    #[error("the record is sealed, and does not read: {0}")]
    Damaged(&'static str),
}

impl Sealer {
    /// A sealer with these keys. `entropy` gives the salts.
    #[must_use]
    pub fn new(sealing: Sealing, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            sealing,
            entropy,
            compressors: Spares::new(),
            decompressors: Spares::new(),
            memory: Spares::new(),
        }
    }

    /// Gives memory for what is decoded next, which saves page faults. A few pieces are kept.
    pub fn lend_memory(&self, memory: Vec<u8>) {
        if memory.capacity() > 0 {
            self.memory.give(memory);
        }
    }

    /// Whether records are sealed under a key.
    #[must_use]
    pub fn is_keyed(&self) -> bool {
        matches!(self.sealing, Sealing::Keys(_))
    }

    /// The id of the key new records are sealed under; 0 without one.
    #[must_use]
    pub fn current_key(&self) -> u32 {
        match &self.sealing {
            Sealing::Keys(ring) => ring.current().id(),
            Sealing::UnsealedForDevelopment => 0,
        }
    }

    /// Draws `N` bytes nobody can guess.
    ///
    /// # Errors
    /// When the source of randomness failed.
    pub fn draw<const N: usize>(&self) -> Result<[u8; N], NoRandomness> {
        let mut bytes = [0; N];
        self.entropy.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Names of a secret text (an account, a slug) that say nothing about it, one for each key: the
    /// current one first. Equal texts have equal names under one key.
    #[must_use]
    pub fn pseudonyms(&self, domain: &str, text: &str) -> Vec<String> {
        match &self.sealing {
            Sealing::Keys(ring) => ring.keys().map(|key| key.pseudonym(domain, text)).collect(),
            Sealing::UnsealedForDevelopment => {
                vec![MasterKey::unsealed().pseudonym(domain, text)]
            }
        }
    }

    /// The key of one record.
    fn object_key(
        master: &MasterKey,
        room: RoomId,
        salt: &[u8; 32],
    ) -> Result<aead::LessSafeKey, ring::error::Unspecified> {
        let bytes: Zeroizing<[u8; 32]> = master.object_key(room, salt);
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, bytes.as_ref())?;
        Ok(aead::LessSafeKey::new(key))
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("sealing", &self.sealing)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
