//! Master keys, and what is derived from them.
//!
//! Invariants
//! - the bytes of a key are in no `Debug`, error or log;
//! - our copies are wiped when they are dropped. What ring expands from them is not, see SECURITY.md.

use std::fmt;

use ring::{hkdf, hmac};
use zeroize::Zeroizing;

use crate::ids::RoomId;

/// The most keys a ring holds: each costs a listing when players' rooms are looked for.
pub const KEYS_MAX: usize = 16;
/// Hex digits of a pseudonym: 128 bits.
const PSEUDONYM_BYTES: usize = 16;

/// A key from which the keys of rooms and records are derived, and its id. Ids are yours: any
/// number but 0, and never the same for two keys.
pub struct MasterKey {
    id: u32,
    bytes: Zeroizing<[u8; 32]>,
}

/// The key new records are sealed under, and older ones that are still read.
pub struct Keyring {
    current: MasterKey,
    older: Vec<MasterKey>,
}

/// Keys were not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The id 0 means "not sealed".
    #[error("key id 0 is taken: give each key another number")]
    ZeroId,
    /// Two keys of a ring have the same id.
    #[error("two keys have the id {0}")]
    SameId(u32),
    /// More than [`KEYS_MAX`].
    #[error(
        "more than {KEYS_MAX} keys: drop the oldest, once no parked room is sealed under it any more"
    )]
    TooMany,
    /// Every byte is the same: not drawn at random.
    #[error("the key is not random: draw 32 bytes, for example with `openssl rand -hex 32`")]
    NotRandom,
    /// Not 64 hex digits.
    #[error("a master key is 64 hex digits")]
    NotHex,
}

impl MasterKey {
    /// A key of 32 random bytes.
    ///
    /// # Errors
    /// [`KeyError::ZeroId`], [`KeyError::NotRandom`].
    pub fn new(id: u32, bytes: [u8; 32]) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(bytes);
        if id == 0 {
            return Err(KeyError::ZeroId);
        }
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return Err(KeyError::NotRandom);
        }
        Ok(Self { id, bytes })
    }

    /// A key as 64 hex digits, as secret stores hand them out. Space around them is ignored.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_hex(id: u32, digits: &str) -> Result<Self, KeyError> {
        let digits = digits.trim().as_bytes();
        if digits.len() != 64 {
            return Err(KeyError::NotHex);
        }
        let mut bytes = Zeroizing::new([0; 32]);
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let nibble = |digit: u8| char::from(digit).to_digit(16).ok_or(KeyError::NotHex);
            // Two digits fit a byte.
            *byte = ((nibble(pair[0])? << 4) | nibble(pair[1])?) as u8;
        }
        Self::new(id, *bytes)
    }

    /// The key's id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Stands in where nothing is sealed: keyless pseudonyms still must be valid keys.
    pub(super) fn unsealed() -> Self {
        Self {
            id: 0,
            bytes: Zeroizing::new([0; 32]),
        }
    }

    /// The key of one record: HKDF-SHA256 of the room's key, which is HKDF-SHA256 of the master key,
    /// with the record's salt.
    pub(super) fn object_key(&self, room: RoomId, salt: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let room_key = derive(b"", &self.bytes, &[b"cabinet room 1", room.as_bytes()]);
        derive(salt, &room_key, &[b"cabinet record 1"])
    }

    pub(super) fn pseudonym(&self, domain: &str, text: &str) -> String {
        let key = derive(b"", &self.bytes, &[b"cabinet names 1"]);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*key);
        let mut context = hmac::Context::with_key(&key);
        // The length keeps the two apart.
        context.update(&(domain.len() as u64).to_le_bytes());
        context.update(domain.as_bytes());
        context.update(text.as_bytes());
        let tag = context.sign();
        tag.as_ref()[..PSEUDONYM_BYTES]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

struct Bytes32;

impl hkdf::KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

fn derive(salt: &[u8], secret: &[u8; 32], info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    let filled = hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(info, Bytes32)
        .and_then(|okm| okm.fill(out.as_mut()));
    // ring refuses only lengths over 255 times the hash, and an output of another length than was
    // asked for; both are 32 here.
    debug_assert!(filled.is_ok());
    out
}

impl Keyring {
    /// A ring that seals under `current`.
    #[must_use]
    pub fn new(current: MasterKey) -> Self {
        Self {
            current,
            older: Vec::new(),
        }
    }

    /// Records sealed under `key` are still opened: how a key is rotated.
    ///
    /// # Errors
    /// [`KeyError::SameId`], [`KeyError::TooMany`].
    pub fn with_older(mut self, key: MasterKey) -> Result<Self, KeyError> {
        if self.keys().any(|known| known.id == key.id) {
            return Err(KeyError::SameId(key.id));
        }
        if self.older.len() + 1 >= KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        self.older.push(key);
        Ok(self)
    }

    /// The key new records are sealed under.
    #[must_use]
    pub fn current(&self) -> &MasterKey {
        &self.current
    }

    pub(super) fn find(&self, id: u32) -> Option<&MasterKey> {
        self.keys().find(|key| key.id == id)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &MasterKey> {
        std::iter::once(&self.current).chain(&self.older)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RoomIds;

    fn key(id: u32) -> MasterKey {
        let mut bytes = [170; 32];
        bytes[0] = id as u8;
        MasterKey::new(id, bytes).expect("a good key")
    }

    #[test]
    fn a_key_that_cannot_be_a_secret_is_refused() {
        assert_eq!(MasterKey::new(1, [0; 32]).err(), Some(KeyError::NotRandom));
        assert_eq!(MasterKey::new(1, [9; 32]).err(), Some(KeyError::NotRandom));
        assert_eq!(
            key_error(MasterKey::new(0, *key(1).bytes)),
            KeyError::ZeroId
        );
        for text in ["", "abc", &"g".repeat(64), &"a".repeat(63)] {
            assert_eq!(MasterKey::from_hex(1, text).err(), Some(KeyError::NotHex));
        }
        let text = format!(" {}\n", "0123456789abcdef".repeat(4));
        assert!(MasterKey::from_hex(1, &text).is_ok());
    }

    fn key_error(made: Result<MasterKey, KeyError>) -> KeyError {
        made.expect_err("it was refused")
    }

    #[test]
    fn a_ring_takes_sixteen_keys_with_ids_of_their_own() {
        let mut ring = Keyring::new(key(1));
        assert_eq!(
            Keyring::new(key(1)).with_older(key(1)).err(),
            Some(KeyError::SameId(1))
        );
        for id in 2..=KEYS_MAX as u32 {
            ring = ring.with_older(key(id)).expect("there is room");
        }
        assert_eq!(ring.keys().count(), KEYS_MAX);
        assert_eq!(ring.with_older(key(99)).err(), Some(KeyError::TooMany));
    }

    #[test]
    fn no_key_is_printed() {
        let ring = Keyring::new(key(3)).with_older(key(4)).expect("two keys");
        assert_eq!(format!("{ring:?}"), "[MasterKey(3), MasterKey(4)]");
    }

    #[test]
    fn keys_differ_by_master_key_room_and_salt_and_names_by_domain() {
        let mut ids = RoomIds::default();
        let (a, b) = (ids.next(1, [0; 8]), ids.next(1, [0; 8]));
        let of = |id, room, salt| *key(id).object_key(room, &[salt; 32]);
        assert_eq!(of(1, a, 0), of(1, a, 0));
        let all = [of(1, a, 0), of(2, a, 0), of(1, b, 0), of(1, a, 1)];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one));
        }
        let name = key(1).pseudonym("account", "ada");
        assert_eq!(name.len(), 2 * PSEUDONYM_BYTES);
        assert_ne!(name, key(1).pseudonym("slug", "ada"));
        assert_ne!(name, key(2).pseudonym("account", "ada"));
        assert_ne!(key(1).pseudonym("ab", "c"), key(1).pseudonym("a", "bc"));
    }
}
