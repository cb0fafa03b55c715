//! Names and numbers that place a record: which room, which point in its life, whose turn it is.

use std::fmt;
use std::str::FromStr;

use uuid::{Builder, Uuid, Variant, Version};

/// Names a room for its whole life, through every restore: a UUID of version 7, so that ids sort
/// by the time they were made. Written in lower case with hyphens.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomId(Uuid);

/// A point in a room's life: the number of a checkpoint. Rises by one with each, across owners and
/// restarts, and never goes back. The first is 1; 0 is "none yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Before the first checkpoint.
    pub const NONE: Self = Self(0);

    /// The epoch after this one. The last one has none: a room that checkpoints a thousand times a
    /// second reaches it in half a billion years.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whose turn it is to write a room: each claim takes a higher fence than any before it, and the
/// writes of a lower one fail. The first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Fence(pub u64);

impl Fence {
    /// Before the first claim.
    pub const NONE: Self = Self(0);

    /// The fence `steps` above this one.
    #[must_use]
    pub fn above(self, steps: u64) -> Self {
        Self(self.0.saturating_add(steps))
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a process that owns rooms, for reports and for deciding whose rooms to reclaim. Two that
/// share a name are still told apart by their fences.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerId(pub [u8; 16]);

impl OwnerId {
    /// An owner of that name: the first 16 bytes of its SHA-256.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&digest.as_ref()[..16]);
        Self(id)
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is not a room id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a room id: want a version 7 UUID in lower case with hyphens, as in 0190b5a4-3c1e-7abc-8def-0123456789ab"
)]
pub struct NotARoomId;

impl RoomId {
    /// The id with these 16 bytes.
    ///
    /// # Errors
    /// [`NotARoomId`] when they are no version 7 UUID.
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, NotARoomId> {
        let id = Uuid::from_bytes(bytes);
        let ours =
            id.get_version() == Some(Version::SortRand) && id.get_variant() == Variant::RFC4122;
        ours.then_some(Self(id)).ok_or(NotARoomId)
    }

    /// The id's 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RoomId {
    type Err = NotARoomId;

    /// Only the form [`RoomId`] is written in: ids are keys, and a key has one spelling.
    fn from_str(text: &str) -> Result<Self, NotARoomId> {
        let id = Uuid::try_parse(text).map_err(|_| NotARoomId)?;
        let canonical = id.get_version() == Some(Version::SortRand)
            && id.get_variant() == Variant::RFC4122
            && id.to_string() == text;
        canonical.then_some(Self(id)).ok_or(NotARoomId)
    }
}

/// Makes ids that sort in the order they were made, even within a millisecond and when the clock
/// steps back.
#[derive(Debug, Default)]
pub struct RoomIds {
    last_millis: u64,
    counter: u16,
}

/// The counter's bits in an id.
const COUNTER_MAX: u16 = 0x0FFF;

impl RoomIds {
    /// The next id. `unix_millis` is the time, `random` eight bytes nobody can guess.
    pub fn next(&mut self, unix_millis: u64, random: [u8; 8]) -> RoomId {
        if unix_millis > self.last_millis {
            self.last_millis = unix_millis;
            self.counter = 0;
        } else if self.counter == COUNTER_MAX {
            self.last_millis += 1;
            self.counter = 0;
        } else {
            self.counter += 1;
        }
        let mut tail = [0; 10];
        tail[..2].copy_from_slice(&self.counter.to_be_bytes());
        tail[2..].copy_from_slice(&random);
        RoomId(Builder::from_unix_timestamp_millis(self.last_millis, &tail).into_uuid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const NOW: u64 = 1_700_000_000_000;

    #[test]
    fn twenty_thousand_ids_are_unique_and_sort_as_they_were_made() {
        let mut ids = RoomIds::default();
        let made: Vec<RoomId> = (0..20_000).map(|_| ids.next(NOW, [9; 8])).collect();
        assert!(made.is_sorted());
        let texts: Vec<String> = made.iter().map(RoomId::to_string).collect();
        assert!(texts.is_sorted());
        assert_eq!(made.iter().collect::<HashSet<_>>().len(), 20_000);
    }

    #[test]
    fn a_clock_that_steps_back_does_not_reorder_ids() {
        let mut ids = RoomIds::default();
        let first = ids.next(NOW, [0xFF; 8]);
        assert!(first < ids.next(NOW - 5_000, [0; 8]));
    }

    #[test]
    fn an_id_reads_back_and_has_one_spelling() {
        let id = RoomIds::default().next(NOW, [1, 2, 3, 4, 5, 6, 7, 8]);
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        for other in [
            text.to_uppercase(),
            text.replace('-', ""),
            format!("{{{text}}}"),
            format!("urn:uuid:{text}"),
            format!(" {text}"),
            text.replacen("-7", "-4", 1),
            String::new(),
            "../etc/passwd".into(),
        ] {
            assert_eq!(other.parse::<RoomId>(), Err(NotARoomId), "{other}");
        }
    }
}
