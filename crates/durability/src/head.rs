//! The head: which checkpoint of a room counts, and whose turn it is to write.
//!
//! Invariants
//! - the epoch never goes down, across owners and restarts;
//! - each claim takes a fence above any before it; only the holder of the head's fence moves it;
//! - what the head names was written before it.
//!
//! No I/O here. A head makes its successor ([`Head::claimed`], [`Head::advanced`], …), and
//! [`judge`] says what a head that was found in place of one's own means.

use cabinet_wire::ArtifactDigest;

use crate::codec::{Reader, TEXT_BYTES_MAX, Writer};
use crate::ids::{Epoch, Fence, OwnerId, RoomId};
use crate::names::ObjectName;
use crate::seal::{Kind, Place};

/// Members a parked room's header lists at most; as many as a room can have.
pub const ROSTER_MAX: usize = 65_535;
/// Bytes of a head at most, before compression: a full roster of long names.
pub const HEAD_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a header at most: what a head leaves it.
const HEADER_BYTES_MAX: u64 = HEAD_BYTES_MAX - FIXED_BYTES_MAX;
/// Bytes of a head's other fields at most.
const FIXED_BYTES_MAX: u64 = 256;

/// How a room is, as its head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Standing {
    /// Some process has it, or had when it died.
    Live = 0,
    /// It is parked, and waits to be resumed.
    Parked = 1,
    /// It was parked too long. Its state is gone, or going.
    Expired = 2,
    /// It is over. Its state is gone, or going.
    Ended = 3,
    /// Its state is damaged, or of a game that is gone; kept for whoever looks into it.
    Aside = 4,
}

impl Standing {
    /// A stable name: `live`, `parked`, `expired`, `ended` or `aside`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Parked => "parked",
            Self::Expired => "expired",
            Self::Ended => "ended",
            Self::Aside => "aside",
        }
    }

    fn of(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Live),
            1 => Some(Self::Parked),
            2 => Some(Self::Expired),
            3 => Some(Self::Ended),
            4 => Some(Self::Aside),
            _ => None,
        }
    }
}

/// Which object is a checkpoint: where it is, and the digest that makes it that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectRef {
    /// Its name.
    pub name: ObjectName,
    /// SHA-256 of the sealed object.
    pub digest: [u8; 32],
    /// Bytes of the sealed object.
    pub bytes: u64,
    /// The artifact the room runs.
    pub artifact: ArtifactDigest,
}

/// One player of a parked room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The account; empty for a guest without one.
    pub account: String,
    /// The name others see.
    pub handle: String,
}

/// What is shown of a parked room without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The game.
    pub slug: String,
    /// When it was parked, Unix nanoseconds.
    pub at: i64,
    /// Who was in it last: those who may resume it.
    pub roster: Vec<Member>,
}

impl Header {
    /// Whether this account was in the room. An empty account is nobody's.
    #[must_use]
    pub fn has(&self, account: &str) -> bool {
        !account.is_empty() && self.roster.iter().any(|member| member.account == account)
    }
}

/// A room's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The room.
    pub room: RoomId,
    /// How it is.
    pub standing: Standing,
    /// Whose turn it is.
    pub fence: Fence,
    /// Who took it.
    pub owner: OwnerId,
    /// The epoch the owner went on from: everything it writes is above.
    pub base: Epoch,
    /// The newest checkpoint.
    pub object: Option<ObjectRef>,
    /// What is shown of it while it is parked.
    pub header: Option<Header>,
    /// When this head was written, Unix milliseconds.
    pub at_ms: u64,
    /// Tells one attempt to write a head from another.
    pub nonce: [u8; 16],
}

/// A head or header did not fit, or did not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// More members than [`ROSTER_MAX`].
    #[error("{0} members, more than the {ROSTER_MAX} a header lists")]
    Roster(usize),
    /// A slug, account or handle is longer than 4,096 bytes.
    #[error("a text of {0} bytes, more than the {TEXT_BYTES_MAX} a header holds")]
    Text(usize),
    /// All texts together are longer than a head may be.
    #[error("{bytes} bytes, more than the {HEADER_BYTES_MAX} a header has")]
    Bytes {
        /// How many there are.
        bytes: u64,
    },
    /// The bytes are no head.
    #[error("the head does not read: {0}")]
    Malformed(&'static str),
}

/// Who writes a head, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hand {
    pub(crate) owner: OwnerId,
    pub(crate) nonce: [u8; 16],
    pub(crate) at_ms: u64,
}

impl Head {
    /// The first head of a new room.
    pub(crate) fn first(room: RoomId, hand: Hand) -> Self {
        Self {
            room,
            standing: Standing::Live,
            fence: Fence::NONE.above(1),
            owner: hand.owner,
            base: Epoch::NONE,
            object: None,
            header: None,
            at_ms: hand.at_ms,
            nonce: hand.nonce,
        }
    }

    /// The newest epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.object.map_or(Epoch::NONE, |object| object.name.epoch)
    }

    /// Where its record belongs.
    pub(crate) fn place(&self) -> Place {
        Place {
            kind: Kind::Head,
            room: self.room,
            epoch: self.epoch(),
            fence: self.fence,
            artifact: self
                .object
                .map_or(ArtifactDigest([0; 32]), |object| object.artifact),
        }
    }

    /// The head once `hand` has taken the room, live, from wherever it is.
    pub(crate) fn claimed(&self, hand: Hand) -> Self {
        Self {
            standing: Standing::Live,
            fence: self.fence.above(1),
            owner: hand.owner,
            base: self.epoch(),
            header: None,
            at_ms: hand.at_ms,
            nonce: hand.nonce,
            ..self.clone()
        }
    }

    /// The head once it names a newer checkpoint. Writing a room makes it live: an attempt to park it
    /// that was given up may have landed.
    pub(crate) fn advanced(&self, object: ObjectRef, hand: Hand) -> Self {
        Self {
            standing: Standing::Live,
            header: None,
            object: Some(object),
            at_ms: hand.at_ms,
            nonce: hand.nonce,
            ..self.clone()
        }
    }

    /// The head once the room is parked with that checkpoint.
    pub(crate) fn parked(&self, object: ObjectRef, header: Header, hand: Hand) -> Self {
        Self {
            standing: Standing::Parked,
            header: Some(header),
            ..self.advanced(object, hand)
        }
    }

    /// The head once the room is over in that way. Takes the fence too, so that whoever had it
    /// stops.
    pub(crate) fn closed(&self, standing: Standing, hand: Hand) -> Self {
        Self {
            standing,
            // Who was in it is needed to take its index entries away.
            header: self.header.clone(),
            ..self.claimed(hand)
        }
    }

    /// The bytes of the record's body.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, HeadError> {
        let mut out = Writer::default();
        out.u8(self.standing as u8);
        out.bytes(&self.owner.0);
        out.bytes(&self.nonce);
        out.u64(self.at_ms);
        out.u64(self.base.0);
        encode_ref(&mut out, self.object.as_ref());
        out.u8(u8::from(self.header.is_some()));
        if let Some(header) = &self.header {
            header.encode(&mut out)?;
        }
        Ok(out.0)
    }

    /// Reads the body of a head's record, which was verified at `place`.
    pub(crate) fn decode(place: &Place, body: &[u8]) -> Result<Self, HeadError> {
        let mut fields = Reader(body);
        let head = Self::read(place, &mut fields).ok_or(HeadError::Malformed("fields"))?;
        fields.end().ok_or(HeadError::Malformed("length"))?;
        let agrees = head.place() == *place
            && head.base <= head.epoch()
            && head.fence > Fence::NONE
            && head
                .object
                .is_none_or(|object| object.name.fence <= head.fence)
            && (head.standing != Standing::Parked
                || (head.header.is_some() && head.object.is_some()));
        agrees.then_some(head).ok_or(HeadError::Malformed("sense"))
    }

    fn read(place: &Place, fields: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            room: place.room,
            fence: place.fence,
            standing: Standing::of(fields.u8()?)?,
            owner: OwnerId(fields.array()?),
            nonce: fields.array()?,
            at_ms: fields.u64()?,
            base: Epoch(fields.u64()?),
            object: decode_ref(fields)?,
            header: match fields.bool()? {
                true => Some(Header::read(fields)?),
                false => None,
            },
        })
    }
}

impl Header {
    /// Whether it fits a head.
    ///
    /// # Errors
    /// [`HeadError::Roster`], [`HeadError::Text`], [`HeadError::Bytes`].
    pub fn check(&self) -> Result<(), HeadError> {
        if self.roster.len() > ROSTER_MAX {
            return Err(HeadError::Roster(self.roster.len()));
        }
        let texts = self
            .roster
            .iter()
            .flat_map(|member| [&member.account, &member.handle]);
        // The time and the count of members.
        let mut bytes = 8 + 4;
        for length in texts.chain([&self.slug]).map(String::len) {
            if length > TEXT_BYTES_MAX {
                return Err(HeadError::Text(length));
            }
            bytes += 2 + length as u64;
        }
        // A head that nobody may read would be a room that is lost.
        if bytes > HEADER_BYTES_MAX {
            return Err(HeadError::Bytes { bytes });
        }
        Ok(())
    }

    fn encode(&self, out: &mut Writer) -> Result<(), HeadError> {
        self.check()?;
        out.text(&self.slug);
        out.i64(self.at);
        // No more than `ROSTER_MAX`.
        out.u32(self.roster.len() as u32);
        for member in &self.roster {
            out.text(&member.account);
            out.text(&member.handle);
        }
        Ok(())
    }

    fn read(fields: &mut Reader<'_>) -> Option<Self> {
        let slug = fields.text()?.to_owned();
        let at = fields.i64()?;
        let count = fields.u32()? as usize;
        if count > ROSTER_MAX {
            return None;
        }
        let mut roster = Vec::new();
        for _ in 0..count {
            roster.push(Member {
                account: fields.text()?.to_owned(),
                handle: fields.text()?.to_owned(),
            });
        }
        Some(Self { slug, at, roster })
    }
}

fn encode_ref(out: &mut Writer, object: Option<&ObjectRef>) {
    out.u8(u8::from(object.is_some()));
    if let Some(object) = object {
        out.u64(object.name.epoch.0);
        out.u64(object.name.fence.0);
        out.u64(object.name.at_ms);
        out.bytes(&object.digest);
        out.u64(object.bytes);
        out.bytes(object.artifact.as_bytes());
    }
}

#[allow(clippy::option_option)] // cut short, or absent
fn decode_ref(fields: &mut Reader<'_>) -> Option<Option<ObjectRef>> {
    if !fields.bool()? {
        return Some(None);
    }
    let (epoch, fence, at_ms) = (Epoch(fields.u64()?), Fence(fields.u64()?), fields.u64()?);
    let digest = fields.array()?;
    let name = ObjectName::new(epoch, fence, at_ms, &digest);
    if epoch == Epoch::NONE || name.at_ms != at_ms {
        return None;
    }
    Some(Some(ObjectRef {
        name,
        digest,
        bytes: fields.u64()?,
        artifact: ArtifactDigest(fields.array()?),
    }))
}

/// A claim: who took a room, and from which checkpoint they went on. It lies beside the checkpoints,
/// so that a head that was lost can be rebuilt without handing the room back to an older owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) owner: OwnerId,
    pub(crate) base: Option<ObjectRef>,
}

impl Claim {
    pub(crate) fn of(head: &Head) -> Self {
        Self {
            owner: head.owner,
            base: head.object,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.bytes(&self.owner.0);
        encode_ref(&mut out, self.base.as_ref());
        out.0
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let mut fields = Reader(body);
        let claim = Self {
            owner: OwnerId(fields.array()?),
            base: decode_ref(&mut fields)?,
        };
        fields.end()?;
        Some(claim)
    }
}

/// What a head means to somebody whose own write did not go through, or may not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The turn is still theirs: base the next attempt on what was found. It may be their own
    /// earlier attempt.
    Ours,
    /// Somebody else has the room.
    Fenced { by: Fence },
    /// The head is older than what they wrote: somebody put it back.
    RolledBack,
}

/// What the head that was found means to the holder of `fence`, who last saw `epoch`.
pub(crate) fn judge(owner: OwnerId, fence: Fence, epoch: Epoch, found: &Head) -> Verdict {
    if found.fence > fence || (found.fence == fence && found.owner != owner) {
        Verdict::Fenced { by: found.fence }
    } else if found.fence < fence || found.epoch() < epoch {
        Verdict::RolledBack
    } else {
        Verdict::Ours
    }
}

#[cfg(test)]
mod tests;
