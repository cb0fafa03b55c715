//! Which key is for what. Everything of ours lies under `v1/`.
//!
//! ```text
//! v1/heads/<room>                                       head: the one truth about a room
//! v1/rooms/<room>/e-<epoch>-<fence>-<unix ms>-<digest>  checkpoint, created once
//! v1/rooms/<room>/c-<fence>                             claim
//! v1/live/<room>.<fence>                                index: rooms that some process has
//! v1/parked/<room>.<epoch>                              index: rooms that are parked
//! v1/players/<pseudonym>/<room>.<epoch>                 index: a player's parked rooms
//! v1/residents/<pseudonym>                              which room is a game's resident one
//! v1/aside/<room>                                       rooms set aside, and why
//! v1/adopted/<room>                                     rooms the reference host had; for good
//! v1/probe/<random>                                     a store being tried out
//! ```
//!
//! An index may name a room that is not there any more: what its head says counts. Each entry belongs
//! to one claim or one parking, so that a late delete of an old one takes no new one away.

use std::fmt::Write as _;

use crate::ids::{Epoch, Fence, RoomId};
use crate::store::Key;

/// Hex digits of a checkpoint's digest in its name: 128 bits.
const DIGEST_DIGITS: usize = 32;

pub(crate) fn head(room: RoomId) -> Key {
    Key::known(format!("v1/heads/{room}"))
}

pub(crate) fn of_room(room: RoomId) -> String {
    format!("v1/rooms/{room}/")
}

pub(crate) fn claim(room: RoomId, fence: Fence) -> Key {
    Key::known(format!("v1/rooms/{room}/c-{:020}", fence.0))
}

pub(crate) const LIVE: &str = "v1/live/";
pub(crate) const PARKED: &str = "v1/parked/";
pub(crate) const PLAYERS: &str = "v1/players/";
pub(crate) const ROOMS: &str = "v1/rooms/";
const ASIDE: &str = "v1/aside/";

pub(crate) fn live(room: RoomId, fence: Fence) -> Key {
    Key::known(format!("{LIVE}{room}.{:020}", fence.0))
}

/// What the index entries of one live room begin with.
pub(crate) fn live_of(room: RoomId) -> String {
    format!("{LIVE}{room}.")
}

pub(crate) fn parked(room: RoomId, epoch: Epoch) -> Key {
    Key::known(format!("{PARKED}{room}.{:020}", epoch.0))
}

/// What the index entries of one parked room begin with.
pub(crate) fn parked_of(room: RoomId) -> String {
    format!("{PARKED}{room}.")
}

pub(crate) fn aside(room: RoomId) -> Key {
    Key::known(format!("{ASIDE}{room}"))
}

pub(crate) fn players_of(pseudonym: &str) -> String {
    format!("{PLAYERS}{pseudonym}/")
}

pub(crate) fn player(pseudonym: &str, room: RoomId, epoch: Epoch) -> Key {
    Key::known(format!("{PLAYERS}{pseudonym}/{room}.{:020}", epoch.0))
}

/// A room that was taken over from the reference host.
pub(crate) fn adopted(room: RoomId) -> Key {
    Key::known(format!("v1/adopted/{room}"))
}

/// Where a store is tried out.
pub(crate) fn probes() -> Key {
    Key::known("v1/probe".into())
}

pub(crate) const RESIDENTS: &str = "v1/residents/";

pub(crate) fn resident(pseudonym: &str) -> Key {
    Key::known(format!("{RESIDENTS}{pseudonym}"))
}

/// A line of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) key: Key,
    pub(crate) room: RoomId,
    /// The fence or epoch it belongs to.
    pub(crate) number: u64,
}

impl IndexEntry {
    /// Reads an entry's last segment; `None` for somebody else's.
    pub(crate) fn parse(key: &Key) -> Option<Self> {
        let (room, number) = key.as_str().rsplit('/').next()?.split_once('.')?;
        Some(Self {
            room: room.parse().ok()?,
            number: digits(number, 20)?,
            key: key.clone(),
        })
    }
}

/// A number of so many digits, leading zeros included.
fn digits(text: &str, count: usize) -> Option<u64> {
    let ok = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    ok.then(|| text.parse().ok()).flatten()
}

/// The name of a checkpoint: its place, when it was taken, and the beginning of its digest, so that
/// no two attempts share a name unless they are the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectName {
    /// The fence it was written under.
    pub fence: Fence,
    /// The epoch.
    pub epoch: Epoch,
    /// When it was taken, Unix milliseconds; never negative.
    pub at_ms: u64,
    /// The first 16 bytes of the SHA-256 of the sealed object.
    pub digest: [u8; 16],
}

/// Past the year 9999, and 13 digits.
const AT_MS_MAX: u64 = 9_999_999_999_999;

impl ObjectName {
    pub(crate) fn new(epoch: Epoch, fence: Fence, at_ms: u64, digest: &[u8; 32]) -> Self {
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        Self {
            fence,
            epoch,
            at_ms: at_ms.min(AT_MS_MAX),
            digest: first,
        }
    }

    pub(crate) fn key(&self, room: RoomId) -> Key {
        let mut name = format!(
            "v1/rooms/{room}/e-{:020}-{:020}-{:013}-",
            self.epoch.0, self.fence.0, self.at_ms
        );
        for byte in self.digest {
            // Writing to a string does not fail.
            let _ = write!(name, "{byte:02x}");
        }
        Key::known(name)
    }
}

/// What a key under a room's prefix names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomObject {
    /// A checkpoint.
    Checkpoint(ObjectName),
    /// A claim.
    Claim(Fence),
}

impl RoomObject {
    /// Reads the last segment of a key under a room's prefix; `None` for anything else's.
    #[must_use]
    pub fn parse(segment: &str) -> Option<Self> {
        if let Some(fence) = segment.strip_prefix("c-") {
            return Some(Self::Claim(Fence(digits(fence, 20)?)));
        }
        let mut parts = segment.strip_prefix("e-")?.split('-');
        let mut next = || parts.next();
        let epoch = Epoch(digits(next()?, 20)?);
        let fence = Fence(digits(next()?, 20)?);
        let at_ms = digits(next()?, 13)?;
        let hex = next()?.as_bytes();
        if next().is_some() || hex.len() != DIGEST_DIGITS {
            return None;
        }
        let mut digest = [0; 16];
        for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
            let nibble = |digit: u8| match digit {
                b'0'..=b'9' => Some(digit - b'0'),
                b'a'..=b'f' => Some(digit - b'a' + 10),
                _ => None,
            };
            *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        }
        Some(Self::Checkpoint(ObjectName {
            fence,
            epoch,
            at_ms,
            digest,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RoomIds;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_checkpoints_name_reads_back(
            epoch in any::<u64>(), fence in any::<u64>(), at_ms in any::<u64>(),
            digest in any::<[u8; 32]>(),
        ) {
            let name = ObjectName::new(Epoch(epoch), Fence(fence), at_ms, &digest);
            let room = RoomIds::default().next(1, [3; 8]);
            let key = name.key(room);
            prop_assert!(Key::new(key.as_str()).is_ok());
            let segment = key.as_str().rsplit('/').next().expect("a segment");
            prop_assert_eq!(RoomObject::parse(segment), Some(RoomObject::Checkpoint(name)));
        }

        #[test]
        fn no_other_text_is_a_name(text in "\\PC{0,100}") {
            if let Some(read) = RoomObject::parse(&text) {
                let room = RoomIds::default().next(1, [3; 8]);
                let key = match read {
                    RoomObject::Checkpoint(name) => name.key(room),
                    RoomObject::Claim(fence) => claim(room, fence),
                };
                prop_assert!(key.as_str().ends_with(&text));
            }
        }
    }

    #[test]
    fn what_is_not_spelled_as_we_spell_it_is_not_ours() {
        let zeros = "0".repeat(20);
        let digest = "a".repeat(32);
        let good = format!("e-{zeros}-{zeros}-0000000000000-{digest}");
        assert!(RoomObject::parse(&good).is_some());
        for bad in [
            good.to_uppercase(),
            good.replacen('0', "+", 1),
            good.replacen('0', "", 1),
            format!("{good}-"),
            format!("{good}a"),
            good.replace('a', "A"),
            "c-1".into(),
            format!("c-{}", "9".repeat(20)),
            "latest".into(),
            String::new(),
        ] {
            assert_eq!(RoomObject::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn names_sort_by_epoch_then_fence() {
        let room = RoomIds::default().next(1, [3; 8]);
        let name =
            |epoch, fence| ObjectName::new(Epoch(epoch), Fence(fence), 5, &[1; 32]).key(room);
        assert!(name(9, 4) < name(10, 1));
        assert!(name(10, 1) < name(10, 2));
        assert!(name(10, u64::MAX) < name(u64::MAX, 0));
    }
}
