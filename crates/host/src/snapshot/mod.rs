//! A room's complete state, and the bytes it is kept as.
//!
//! A [`Snapshot`] is everything a room is made of between two callbacks: the pages of memory that
//! are not zero, every global and table, frame baselines, and the host's own counters. A room
//! restored from it goes on exactly as the one it was taken from.
//!
//! # Format `CABS`, version 1
//!
//! Integers are little-endian. Equal states have equal payloads, and no other payload decodes to
//! them: what a snapshot hashes to says what it holds, at one version of zstd and one level.
//!
//! ```text
//! offset size
//!  0     4    magic "CABS"
//!  4     4    version, 1
//!  8     8    length of the payload, bytes
//! 16     …    one zstd frame with content size and checksum, holding the payload
//! ```
//!
//! The payload. A `str` is a u16 byte length and UTF-8; an `option` is a byte 0, or 1 and the
//! value; a `list` is a u32 count and the elements; a `bool` is a byte 0 or 1.
//!
//! ```text
//! 32 bytes     artifact: SHA-256 of the guest as its author shipped it
//! u32          ABI major
//! 32 bytes     rules: SHA-256 of the rewritten guest and, as a u32, the cap on memory pages
//! bool × 8     NaNs canonical, seed set, runtime initialised, closed, ended, dead, settled,
//!              full roster due
//! u8           input context
//! i64          room clock, Unix ns
//! i64          seed
//! u64          entropy consumed, bytes
//! u32 × 3      post counter, roster epoch, epoch of the last full roster
//! u8           mode: 0 quick, 1 private, 2 solo
//! u32 × 2      capacity, fewest players
//! bool         resident
//! option u64   deadline override, ns
//! option u64   heartbeat override, ns
//! u32 × 2      kernel memory: pages the allocator added, pages in all
//! u64          fuel used so far
//! option       member section last sent: u32 length and the bytes
//! list         live members, each: str account, str handle, str conn, u8 kind (0 guest,
//!              1 member), str glyph, u8 × 3 ink, u8 × 3 background, u8 ASCII fallback
//! list         roster of the last callback, likewise
//! option       result: u8 mode, u32 round, list of standings, each: a player as above,
//!              i64 metric, u16 rank, u8 status (0 finished, 1 dnf, 2 flagged, 255 unknown)
//! u32 × 2      frame epochs: last given out, that of unlisted slots
//! list         frame rows of 1,920 bytes that the baselines below are made of, each different
//!              from all others, in rising order of their bytes
//! slot         broadcast slot: u32 epoch, u8 baseline (0 never, 1 lost, 2 present), and if
//!              present 24 × u16 row numbers
//! list         index slots, in rising order: u16 roster index, then as the broadcast slot
//! list         globals: u8 type (its byte in the wasm binary format), then 4, 8 or 16 bytes;
//!              a funcref is a u32, 0 for null or 1 + function index
//! list         tables, each a list of elements, each a u32 like a funcref
//! u32          memory, wasm pages of 65,536 bytes
//! list         pages of 4 KiB that are not all zero, in rising order: u32 page, u32 number of
//!              its content
//! …            the contents, 4,096 bytes each, to the end: each different from all others, in
//!              rising order of their bytes
//! ```
//!
//! Rows and pages are stored once each because guests keep many alike: a grid per seat, most of
//! them blank. A room of the reference's `fixture.wasm` has 243 pages in use of which 26 differ;
//! storing those alone cut its decoding from 257 to 53 µs.

mod decode;
mod encode;
mod image;
pub mod limits;
mod reader;
pub mod sck1;

use cabinet_wire::{ArtifactDigest, Mode};

use crate::player::Player;
use crate::services::RoomResult;
use crate::slots::SlotsState;

pub use decode::Decoder;
pub use image::MemoryImage;

/// First bytes of an encoded snapshot.
pub const MAGIC: [u8; 4] = *b"CABS";
/// The format this crate writes, and the only one it reads.
pub const VERSION: u32 = 1;
/// Bytes in front of the compressed payload.
const HEADER_BYTES: usize = 16;
/// Status of a standing whose code the ABI does not know.
const STATUS_UNKNOWN: u8 = 255;

/// A room's complete state between two callbacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The guest, as its author shipped it.
    pub(crate) artifact: ArtifactDigest,
    pub(crate) abi_major: u32,
    /// What the room runs under: the rewritten guest and the memory cap, digested.
    pub(crate) rules: [u8; 32],
    pub(crate) canonical_nans: bool,
    pub(crate) seed_set: bool,
    /// The guest's runtime initialiser has run.
    pub(crate) initialised: bool,
    pub(crate) closed: bool,
    pub(crate) ended: bool,
    pub(crate) dead: bool,
    pub(crate) settled: bool,
    /// The next context carries the full roster whatever the epochs say.
    pub(crate) force_full: bool,
    pub(crate) input_context: u8,
    /// Room clock, Unix ns.
    pub(crate) now: i64,
    pub(crate) seed: i64,
    pub(crate) entropy_consumed: u64,
    pub(crate) post_seq: u32,
    pub(crate) roster_epoch: u32,
    pub(crate) last_full_epoch: u32,
    pub(crate) config: ConfigState,
    /// Pages of the kernel memory that its allocator added, on which addresses depend.
    pub(crate) kernel_grown_pages: u32,
    pub(crate) kernel_memory_pages: u32,
    pub(crate) fuel_used: u64,
    /// The encoded members of the last context, by which a change of roster is noticed; `None`
    /// before the first.
    pub(crate) member_section: Option<Vec<u8>>,
    pub(crate) members: Vec<Player>,
    /// Roster of the last callback, the one who left included.
    pub(crate) last_roster: Vec<Player>,
    pub(crate) result: Option<RoomResult>,
    pub(crate) slots: SlotsState,
    pub(crate) globals: Vec<GlobalValue>,
    /// Function indices, `None` for null.
    pub(crate) tables: Vec<Vec<Option<u32>>>,
    pub(crate) memory: MemoryImage,
}

/// A room's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConfigState {
    pub(crate) mode: Mode,
    pub(crate) capacity: u32,
    pub(crate) min_players: u32,
    pub(crate) resident: bool,
    pub(crate) deadline_ns: Option<u64>,
    pub(crate) heartbeat_ns: Option<u64>,
}

/// The value of a global. Floats are their bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GlobalValue {
    I32(u32),
    I64(u64),
    F32(u32),
    F64(u64),
    V128(u128),
    /// A function index, `None` for null.
    FuncRef(Option<u32>),
}

impl Snapshot {
    /// The guest the state belongs to.
    #[must_use]
    pub fn artifact(&self) -> ArtifactDigest {
        self.artifact
    }

    /// The room clock, Unix nanoseconds.
    #[must_use]
    pub fn clock_unix_nanos(&self) -> i64 {
        self.now
    }

    /// The guest's linear memory.
    #[must_use]
    pub fn memory(&self) -> &MemoryImage {
        &self.memory
    }

    /// The guest's globals, in the order of their indices: each one's type, and its bits. A
    /// function reference is 0 for null, else 1 and the index of the function.
    pub fn globals(&self) -> impl ExactSizeIterator<Item = (&'static str, u128)> {
        self.globals.iter().map(|global| match *global {
            GlobalValue::I32(bits) => ("i32", bits.into()),
            GlobalValue::I64(bits) => ("i64", bits.into()),
            GlobalValue::F32(bits) => ("f32", bits.into()),
            GlobalValue::F64(bits) => ("f64", bits.into()),
            GlobalValue::V128(bits) => ("v128", bits),
            GlobalValue::FuncRef(function) => {
                ("funcref", function.map_or(0, |index| u128::from(index) + 1))
            }
        })
    }

    /// The guest's tables of functions: the index of each one's function, `None` for null.
    #[must_use]
    pub fn tables(&self) -> &[Vec<Option<u32>>] {
        &self.tables
    }

    /// The snapshot as bytes (format `CABS`, version 1), compressed at a zstd level; 1 is a good
    /// one.
    ///
    /// # Errors
    /// [`SnapshotError::Limit`] when the state holds more of something than a snapshot may.
    pub fn encode(&self, level: i32) -> Result<Vec<u8>, SnapshotError> {
        encode::encode(self, level)
    }

    /// The payload alone, neither compressed nor framed: for who compresses and authenticates it
    /// themselves.
    ///
    /// # Errors
    /// As for [`Self::encode`].
    pub fn payload(&self) -> Result<Vec<u8>, SnapshotError> {
        let mut out = Vec::new();
        self.payload_into(&mut out)?;
        Ok(out)
    }

    /// As [`Self::payload`], appended to `out`.
    ///
    /// # Errors
    /// As for [`Self::encode`]; what was appended until then stays.
    pub fn payload_into(&self, out: &mut Vec<u8>) -> Result<(), SnapshotError> {
        encode::payload(self, out)
    }

    /// Reads what [`Self::payload`] wrote, of which `bytes` from `start` is nothing but that. Pages
    /// stay where they are in `bytes`.
    ///
    /// # Errors
    /// Any [`SnapshotError`] when it is not exactly that.
    pub fn from_payload(bytes: Vec<u8>, start: usize) -> Result<Self, SnapshotError> {
        decode::read_payload(bytes, start)
    }

    /// The memory this snapshot was captured into, for the next capture
    /// ([`Room::snapshot_into`](crate::Room::snapshot_into)).
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.memory.into_buffer()
    }

    /// Bytes of memory the snapshot itself takes for pages that are not zero.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.memory.pages().len() * image::PAGE_BYTES
    }

    /// Reads a snapshot. Nothing is allocated before its length is known to be at most
    /// `max_bytes`, uncompressed. For many, keep a [`Decoder`].
    ///
    /// # Errors
    /// Any [`SnapshotError`] when the payload is not exactly what [`Self::encode`] writes.
    pub fn decode(bytes: &[u8], max_bytes: usize) -> Result<Self, SnapshotError> {
        Decoder::new().decode(bytes, max_bytes)
    }
}

/// Why bytes are no snapshot, or a state cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The bytes do not start like a snapshot.
    #[error("not a snapshot")]
    NotASnapshot,
    /// A format this version does not know.
    #[error("snapshot format {found}, this version reads {VERSION}")]
    Version {
        /// The format found.
        found: u32,
    },
    /// It is, uncompressed, larger than the caller allows.
    #[error("snapshot of {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// Bytes of the payload.
        bytes: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// There is more of something than a snapshot may hold.
    #[error("{found} {what}, a snapshot holds at most {max}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        found: u64,
        /// How much there may be.
        max: u64,
    },
    /// The bytes are cut, changed, or were never written by [`Snapshot::encode`].
    #[error("damaged snapshot: {0}")]
    Damaged(&'static str),
    /// The compressor failed, which it does only without memory.
    #[error("cannot compress the snapshot: {0}")]
    Compress(&'static str),
}

#[cfg(test)]
mod proptests;
#[cfg(test)]
mod tests;
