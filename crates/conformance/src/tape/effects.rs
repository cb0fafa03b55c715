//! What a tape holds of a time: frames, posts, log records and calls, as they are compared and printed.

use std::collections::BTreeMap;

use cabinet_host::{Frame, LogSource, frame_bytes};
use cabinet_wire::LogLevel;

use crate::hash::sha256;

/// Inputs up to this many bytes are kept whole by a detailed tape.
pub(crate) const INPUT_KEPT_BYTES: usize = 512;
/// What is kept of longer ones, bytes: a delta container's header and its first run's.
const INPUT_HEAD_BYTES: usize = 13;

/// Who a frame went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum To {
    Everyone,
    /// A seat of the script.
    Seat(u16),
    /// A roster index whose player sits in no seat of the script.
    Index(usize),
}

/// A frame that was delivered.
pub(crate) struct Sent {
    pub to: To,
    pub grid: Grid,
}

/// A delivered grid, or its hash when too many were delivered to keep.
pub(crate) enum Grid {
    Kept(Frame),
    Hashed([u8; 32]),
}

impl Grid {
    /// The hash in place of the grid.
    pub(super) fn hashed(frame: &Frame) -> Self {
        Self::Hashed(sha256(frame_bytes(frame).as_slice()))
    }
}

impl Sent {
    /// Hash of the 46,080-byte grid.
    pub(crate) fn sha256(&self) -> [u8; 32] {
        match &self.grid {
            Grid::Kept(frame) => sha256(frame_bytes(frame).as_slice()),
            Grid::Hashed(hash) => *hash,
        }
    }
}

/// A log record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    pub level: LogLevel,
    pub source: LogSource,
    pub message: Vec<u8>,
}

/// Bytes that crossed the boundary, shortened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    pub len: usize,
    pub sha256: [u8; 32],
    /// All of it up to [`INPUT_KEPT_BYTES`], else its head.
    pub shown: Vec<u8>,
}

impl Blob {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let kept = if bytes.len() <= INPUT_KEPT_BYTES {
            bytes.len()
        } else {
            INPUT_HEAD_BYTES
        };
        Self {
            len: bytes.len(),
            sha256: sha256(bytes),
            shown: bytes[..kept].to_vec(),
        }
    }
}

/// A game function the guest called.
pub(crate) struct HostEntry {
    pub name: String,
    pub args: Vec<i64>,
    pub inputs: Vec<Blob>,
    pub ret: Option<i64>,
    pub output: Option<Blob>,
}

/// A WASI function the guest called.
pub(crate) struct WasiEntry {
    pub name: String,
    pub args: Vec<i64>,
    pub errno: i32,
    pub data: Vec<u8>,
}

/// The calls of one callback, written down.
#[derive(Default)]
pub(crate) struct Detail {
    pub payload: Vec<u8>,
    pub host: Vec<HostEntry>,
    pub wasi: Vec<WasiEntry>,
    /// Calls past [`CALLS_KEPT`](super::CALLS_KEPT).
    pub omitted: u64,
}

/// Everything since the tape was last taken.
#[derive(Default)]
pub(crate) struct Effects {
    pub frames: Vec<Sent>,
    /// The newest frame for everyone, and the newer ones for single recipients.
    pub newest: BTreeMap<To, Frame>,
    /// Leaderboard posts made, and a hash over all of them.
    pub posts: u64,
    pub posts_sha256: [u8; 32],
    /// Writes to and deletions from the stores, and a hash over all of them, values included.
    pub writes: u64,
    pub writes_sha256: [u8; 32],
    pub logs: Vec<Logged>,
    /// How often each game function was called.
    pub host_calls: BTreeMap<String, u64>,
    /// Wall time of the first [`CALLS_KEPT`](super::CALLS_KEPT) of them, nanoseconds.
    pub host_call_times: Vec<(&'static str, u64)>,
    /// Hash over every call's name, arguments, result, inputs and output; of long ones the first
    /// [`HASHED_BYTES_MAX`](super::HASHED_BYTES_MAX) bytes and the length.
    pub calls_sha256: [u8; 32],
    /// Filled by a detailed tape.
    pub detail: Detail,
}
