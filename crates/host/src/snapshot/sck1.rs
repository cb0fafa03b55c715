//! The reference host's room snapshot: `SCK1`, format 4.
//!
//! It carries less than a [`Snapshot`](super::Snapshot): no globals, no tables, no frame
//! baselines, no characters, not whether a seed was set. What to make of that is the room's
//! business; here are the bytes.
//!
//! One zstd frame around this payload, little-endian; a `str` is a u16 byte length and bytes:
//!
//! ```text
//! offset size
//!  0     4    magic 0x53434B31, "1KCS" in the file
//!  4     4    format, 4
//!  8     4    ABI major, 2
//! 12    32    SHA-256 of the guest
//! 44     8    i64 room clock, Unix ns
//! 52     8    i64 seed
//! 60     8    i64 entropy consumed, bytes
//! 68     1    ended, true only if 1
//! 69     1    dead, likewise
//! 70     1    input context
//! 71     …    str mode, "quick", "private" or "solo"
//!  …     4    capacity
//!  …     4    fewest players
//!  …     4    last frame epoch given out
//!  …     4    post counter
//!  …     2    members, each: str handle, str account, str conn, str "guest" or "member"
//!  …     4    bytes of memory
//!  …     …    the memory; what follows it is ignored
//! ```

use std::ops::Range;

use cabinet_wire::{ABI_MAJOR, ArtifactDigest};
use zstd::stream::read::Decoder as ZstdReader;

use super::reader::{Inflater, Reader, declared_size, deflate};

/// First four bytes of the payload, as a number.
pub const MAGIC: u32 = 0x5343_4B31;
/// The one format there is.
pub const FORMAT: u32 = 4;

/// A decoded `SCK1` snapshot. Texts are bytes: nothing promises that they are UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sck1 {
    /// The guest it belongs to.
    pub artifact: ArtifactDigest,
    /// Room clock, Unix ns.
    pub now: i64,
    /// The seed in effect, whether set or drawn.
    pub seed: i64,
    /// Entropy bytes drawn. The reference reads a negative one as none.
    pub entropy_consumed: i64,
    /// The guest ended the room.
    pub ended: bool,
    /// A fault ended the room.
    pub dead: bool,
    /// Last input context.
    pub input_context: u8,
    /// `quick`, `private` or `solo`; the reference takes anything else as `quick`.
    pub mode: Vec<u8>,
    /// Most players, 0 for no limit.
    pub capacity: u32,
    /// Fewest players.
    pub min_players: u32,
    /// The last frame epoch given out.
    pub epoch_seq: u32,
    /// Posts so far.
    pub post_seq: u32,
    /// Roster of the last callback.
    pub roster: Vec<Sck1Member>,
    /// The guest's memory from address 0.
    pub memory: Sck1Memory,
}

/// A member of an `SCK1` roster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sck1Member {
    /// Shown name.
    pub handle: Vec<u8>,
    /// Account id.
    pub account: Vec<u8>,
    /// Connection id.
    pub conn: Vec<u8>,
    /// `guest` or `member`.
    pub kind: Vec<u8>,
}

/// The memory of an `SCK1` snapshot: of a decoded one, the part of the payload it was read from.
#[derive(Clone)]
pub struct Sck1Memory {
    payload: Vec<u8>,
    part: Range<usize>,
}

impl Sck1Memory {
    /// The memory's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.payload[self.part.clone()]
    }
}

impl From<Vec<u8>> for Sck1Memory {
    fn from(payload: Vec<u8>) -> Self {
        let part = 0..payload.len();
        Self { payload, part }
    }
}

impl PartialEq for Sck1Memory {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Sck1Memory {}

impl std::fmt::Debug for Sck1Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sck1Memory({} bytes)", self.part.len())
    }
}

impl Sck1 {
    /// Reads a snapshot of the reference host. The payload may have at most `max_bytes`; no more
    /// is ever allocated.
    ///
    /// # Errors
    /// The [`Sck1Error`] for what the reference refuses too, and [`Sck1Error::TooLarge`].
    pub fn decode(blob: &[u8], max_bytes: usize) -> Result<Self, Sck1Error> {
        Sck1Decoder::new().decode(blob, max_bytes)
    }

    /// The snapshot as the reference host reads it, compressed at a zstd level.
    ///
    /// # Errors
    /// See [`Self::payload`].
    pub fn encode(&self, level: i32) -> Result<Vec<u8>, Sck1Error> {
        let mut blob = Vec::new();
        deflate(&mut blob, &self.payload()?, level).map_err(Sck1Error::Compress)?;
        Ok(blob)
    }

    /// The uncompressed payload: the same bytes the reference writes for this state.
    ///
    /// # Errors
    /// [`Sck1Error::Limit`] where the reference would cut a text or wrap a count.
    pub fn payload(&self) -> Result<Vec<u8>, Sck1Error> {
        let memory = self.memory.bytes();
        let mut out = Vec::with_capacity(memory.len() + 128 + self.roster.len() * 64);
        for number in [MAGIC, FORMAT, ABI_MAJOR] {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.artifact.0);
        for number in [self.now, self.seed, self.entropy_consumed] {
            out.extend(number.to_le_bytes());
        }
        out.extend([
            u8::from(self.ended),
            u8::from(self.dead),
            self.input_context,
        ]);
        put_text(&mut out, &self.mode)?;
        for number in [
            self.capacity,
            self.min_players,
            self.epoch_seq,
            self.post_seq,
        ] {
            out.extend(number.to_le_bytes());
        }
        let limit = |what| Sck1Error::Limit { what };
        let count = u16::try_from(self.roster.len()).map_err(|_| limit("members"))?;
        out.extend(count.to_le_bytes());
        for member in &self.roster {
            for text in [&member.handle, &member.account, &member.conn, &member.kind] {
                put_text(&mut out, text)?;
            }
        }
        let length = u32::try_from(memory.len()).map_err(|_| limit("bytes of memory"))?;
        out.extend(length.to_le_bytes());
        out.extend_from_slice(memory);
        Ok(out)
    }

    /// Checks that the snapshot is of this guest.
    ///
    /// # Errors
    /// [`Sck1Error::ArtifactMismatch`] when it is of another one.
    pub fn check_artifact(&self, game: ArtifactDigest) -> Result<(), Sck1Error> {
        if self.artifact == game {
            return Ok(());
        }
        Err(Sck1Error::ArtifactMismatch {
            blob: self.artifact,
            game,
        })
    }
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) -> Result<(), Sck1Error> {
    let length = u16::try_from(text.len()).map_err(|_| Sck1Error::Limit {
        what: "bytes of text",
    })?;
    out.extend(length.to_le_bytes());
    out.extend_from_slice(text);
    Ok(())
}

/// Reads `SCK1` snapshots, one after the other, without taking new memory for each.
pub struct Sck1Decoder {
    inflater: Inflater,
}

impl Default for Sck1Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Sck1Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sck1Decoder").finish_non_exhaustive()
    }
}

impl Sck1Decoder {
    /// A decoder that has no buffer yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            inflater: Inflater::new(),
        }
    }

    /// Reads a snapshot; see [`Sck1::decode`].
    ///
    /// # Errors
    /// As [`Sck1::decode`].
    pub fn decode(&mut self, blob: &[u8], max_bytes: usize) -> Result<Sck1, Sck1Error> {
        read_payload(self.inflate(blob, max_bytes)?)
    }

    /// Takes a snapshot that is no longer needed, so that the next one is read into its memory.
    pub fn recycle(&mut self, snapshot: Sck1) {
        self.inflater.recycle(snapshot.memory.payload);
    }

    fn inflate(&mut self, blob: &[u8], max_bytes: usize) -> Result<Vec<u8>, Sck1Error> {
        if blob.is_empty() {
            // To the reference nothing decompresses to nothing, which has no magic number.
            return Ok(Vec::new());
        }
        let max = max_bytes as u64;
        if let Some(length) = declared_size(blob) {
            if length > max {
                return Err(Sck1Error::TooLarge { max });
            }
            let content = self.inflater.inflate(blob, length as usize);
            return content.map_err(|_| Sck1Error::Decompress);
        }
        // No size, or not one frame: what the reference never writes but reads.
        let mut payload = Vec::new();
        let mut reader = ZstdReader::with_buffer(blob).map_err(|_| Sck1Error::Decompress)?;
        // The window is memory too; 8 MiB is the reference's, however short the content.
        reader
            .window_log_max(max.max(1).ilog2().saturating_add(1).clamp(23, 27))
            .map_err(|_| Sck1Error::Decompress)?;
        std::io::Read::read_to_end(
            &mut std::io::Read::take(reader, max.saturating_add(1)),
            &mut payload,
        )
        .map_err(|_| Sck1Error::Decompress)?;
        if payload.len() as u64 > max {
            return Err(Sck1Error::TooLarge { max });
        }
        Ok(payload)
    }
}

fn read_payload(payload: Vec<u8>) -> Result<Sck1, Sck1Error> {
    let mut bytes = Reader::new(&payload);
    if bytes.u32() != Some(MAGIC) {
        return Err(Sck1Error::BadMagic);
    }
    // The reference reads a missing format as 0.
    let format = bytes.u32().unwrap_or(0);
    if format != FORMAT {
        return Err(Sck1Error::Format { found: format });
    }
    let abi = bytes.u32().ok_or(Sck1Error::TruncatedHash)?;
    let artifact = ArtifactDigest(bytes.array().ok_or(Sck1Error::TruncatedHash)?);
    let fields = read_fields(&mut bytes, artifact).ok_or(Sck1Error::Short)?;
    let length = bytes.u32().ok_or(Sck1Error::Short)?;
    let start = payload.len() - bytes.left();
    if bytes.bytes(length as usize).is_none() {
        return Err(Sck1Error::TruncatedMemory { want: length });
    }
    if abi != ABI_MAJOR {
        return Err(Sck1Error::AbiMajor { found: abi });
    }
    let memory = Sck1Memory {
        part: start..start + length as usize,
        payload,
    };
    Ok(Sck1 { memory, ..fields })
}

/// The fields between the artifact and the memory, in whose place an empty one stands.
fn read_fields(bytes: &mut Reader<'_>, artifact: ArtifactDigest) -> Option<Sck1> {
    Some(Sck1 {
        artifact,
        now: bytes.i64()?,
        seed: bytes.i64()?,
        entropy_consumed: bytes.i64()?,
        ended: bytes.u8()? == 1,
        dead: bytes.u8()? == 1,
        input_context: bytes.u8()?,
        mode: bytes.text()?.to_vec(),
        capacity: bytes.u32()?,
        min_players: bytes.u32()?,
        epoch_seq: bytes.u32()?,
        post_seq: bytes.u32()?,
        roster: {
            let count = bytes.u16()?;
            let mut roster = Vec::new();
            for _ in 0..count {
                roster.push(Sck1Member {
                    handle: bytes.text()?.to_vec(),
                    account: bytes.text()?.to_vec(),
                    conn: bytes.text()?.to_vec(),
                    kind: bytes.text()?.to_vec(),
                });
            }
            roster
        },
        memory: Vec::new().into(),
    })
}

/// Why a blob is no `SCK1` snapshot of use, or a state cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Sck1Error {
    /// No zstd frame, or a damaged one.
    #[error("not compressed as a snapshot is, or damaged")]
    Decompress,
    /// It is, uncompressed, larger than the caller allows.
    #[error("snapshot larger than the {max} bytes allowed")]
    TooLarge {
        /// Bytes allowed.
        max: u64,
    },
    /// The payload does not start with the magic number.
    #[error("bad magic number")]
    BadMagic,
    /// A format other than 4; the reference does not convert older ones either.
    #[error("snapshot format {found}, only {FORMAT} is read")]
    Format {
        /// The format found.
        found: u32,
    },
    /// It ends within the artifact hash.
    #[error("cut short in the artifact hash")]
    TruncatedHash,
    /// It ends within the fields.
    #[error("cut short in the fields")]
    Short,
    /// It ends within the memory.
    #[error("cut short in the memory of {want} bytes")]
    TruncatedMemory {
        /// Bytes of memory announced.
        want: u32,
    },
    /// The guest speaks another ABI.
    #[error("snapshot of a guest of ABI {found}, this host speaks {ABI_MAJOR}")]
    AbiMajor {
        /// The ABI major found.
        found: u32,
    },
    /// It belongs to another guest, or another version of this one.
    #[error("snapshot of artifact {blob}, the game is {game}")]
    ArtifactMismatch {
        /// The snapshot's artifact.
        blob: ArtifactDigest,
        /// The game's.
        game: ArtifactDigest,
    },
    /// The state does not fit the format.
    #[error("too many {what} for the format")]
    Limit {
        /// What there is too much of.
        what: &'static str,
    },
    /// The compressor failed, which it does only without memory.
    #[error("cannot compress the snapshot: {0}")]
    Compress(&'static str),
}

#[cfg(test)]
#[path = "sck1_tests.rs"]
mod tests;
