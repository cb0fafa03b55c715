//! The bytes of a node's files, as `docs/FORMATS.md` has them under "The log of a node".
//!
//! No I/O here: frames, headers and small files to bytes and back.
//!
//! Invariants
//! - a checksum covers everything but itself, and for a record also where it stands, so that bytes
//!   that were moved, or that a client put into a command, are no record;
//! - a record says how much of its file was synced when it was written: whatever is broken before
//!   that point was whole once.

use bytes::Bytes;
use crc32fast::Hasher;

use super::super::{LogError, Position, RECORD_BYTES_MAX, Record, RecordKind, StoredSnapshot};

/// The version of every file here.
pub(super) const VERSION: u32 = 1;
/// Bytes of a segment's header.
pub(super) const HEADER_BYTES: usize = 29;
/// Bytes of a record before its body.
pub(super) const FRAME_BYTES: usize = 33;
/// Bytes of a small file before its content.
pub(super) const CELL_BYTES: usize = 20;

const SEGMENT_MAGIC: [u8; 4] = *b"CABL";
const CELL_MAGIC: [u8; 4] = *b"CABN";

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}

fn corrupt(file: &str, offset: usize, what: impl Into<String>) -> LogError {
    LogError::Corrupt {
        file: file.to_owned(),
        offset: offset as u64,
        what: what.into(),
    }
}

/// What a segment begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The index of its first record.
    pub first: u64,
    /// The term of the entry before that, if there was one.
    pub term_before: Option<u64>,
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.push(u8::from(self.term_before.is_some()));
        out.extend_from_slice(&self.term_before.unwrap_or(0).to_le_bytes());
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn decode(file: &str, bytes: &[u8]) -> Result<Self, LogError> {
        if bytes.len() < HEADER_BYTES {
            return Err(corrupt(file, bytes.len(), "the header is cut"));
        }
        if bytes[..4] != SEGMENT_MAGIC {
            return Err(corrupt(file, 0, "this is no log segment"));
        }
        if crc32fast::hash(&bytes[..25]) != u32_at(bytes, 25) {
            return Err(corrupt(file, 25, "the header's checksum is wrong"));
        }
        known_version(file, u32_at(bytes, 4))?;
        let term_before = match bytes[16] {
            0 => None,
            1 => Some(u64_at(bytes, 17)),
            other => return Err(corrupt(file, 16, format!("{other} is neither 0 nor 1"))),
        };
        Ok(Self {
            first: u64_at(bytes, 8),
            term_before,
        })
    }
}

/// Checked after the checksum, so that another version is one that somebody wrote.
fn known_version(file: &str, version: u32) -> Result<(), LogError> {
    if version == VERSION {
        return Ok(());
    }
    Err(LogError::Version {
        file: file.to_owned(),
        version,
        known: VERSION,
    })
}

/// The name of the segment whose first record is `first`. Names sort as indices do.
pub(super) fn segment_name(first: u64) -> String {
    format!("log-{first:020}.seg")
}

/// The first index a file's name says; `None` for a file that is no segment.
pub(super) fn segment_first(name: &str) -> Result<Option<u64>, LogError> {
    let Some(number) = name
        .strip_prefix("log-")
        .and_then(|rest| rest.strip_suffix(".seg"))
    else {
        return Ok(None);
    };
    match number.parse() {
        Ok(first) if segment_name(first) == name => Ok(Some(first)),
        _ => Err(corrupt(name, 0, "no segment of ours is named so")),
    }
}

fn frame_crc(first: u64, offset: u64, head: &[u8], body: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&first.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(&head[..4]);
    hasher.update(&head[8..]);
    hasher.update(body);
    hasher.finalize()
}

/// Writes a record that will stand at `offset` of the segment `first`, of which `synced` bytes are
/// on stable storage already.
pub(super) fn put_record(out: &mut Vec<u8>, first: u64, offset: u64, synced: u64, record: &Record) {
    debug_assert!(record.body.len() <= RECORD_BYTES_MAX);
    let mut head = [0; FRAME_BYTES];
    // The length fits: an append refuses more than RECORD_BYTES_MAX.
    head[..4].copy_from_slice(&(record.body.len() as u32).to_le_bytes());
    head[8..16].copy_from_slice(&record.at.index.to_le_bytes());
    head[16..24].copy_from_slice(&record.at.term.to_le_bytes());
    head[24..32].copy_from_slice(&synced.to_le_bytes());
    head[32] = record.kind as u8;
    let crc = frame_crc(first, offset, &head, &record.body);
    head[4..8].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(&record.body);
}

/// A frame whose checksum is right.
pub(super) struct Frame {
    pub record: Record,
    pub synced: u64,
}

/// The frame at `offset`, if one is whole there.
fn frame_at(bytes: &Bytes, first: u64, offset: usize) -> Option<Frame> {
    let head = bytes.get(offset..offset + FRAME_BYTES)?;
    let len = u32_at(head, 0) as usize;
    if len > RECORD_BYTES_MAX {
        return None;
    }
    let start = offset + FRAME_BYTES;
    let body = bytes.get(start..start + len)?;
    let kind = RecordKind::from_number(head[32])?;
    if frame_crc(first, offset as u64, head, body) != u32_at(head, 4) {
        return None;
    }
    Some(Frame {
        record: Record {
            at: Position {
                index: u64_at(head, 8),
                term: u64_at(head, 16),
            },
            kind,
            body: bytes.slice(start..start + len),
        },
        synced: u64_at(head, 24),
    })
}

/// A segment that was read.
pub(super) struct Segment {
    pub header: Header,
    pub records: Vec<Record>,
    /// Where each record begins.
    pub offsets: Vec<u64>,
    /// Where the last whole record ends.
    pub end: usize,
}

/// Reads a segment. Only the last one of a log may end in a torn tail: bytes that are no record,
/// and that no later record proves to have been synced.
pub(super) fn read_segment(file: &str, bytes: &Bytes, last: bool) -> Result<Segment, LogError> {
    let header = Header::decode(file, bytes)?;
    let mut records: Vec<Record> = Vec::new();
    let mut offsets = Vec::new();
    let mut end = HEADER_BYTES;
    let mut term = header.term_before.unwrap_or(0);
    while end < bytes.len() {
        let expected = header.first.checked_add(records.len() as u64);
        let Some(frame) = frame_at(bytes, header.first, end) else {
            if !last {
                return Err(corrupt(file, end, "no whole record, and the log goes on"));
            }
            if let Some(later) = proof_of_sync(bytes, header.first, end) {
                return Err(corrupt(
                    file,
                    end,
                    format!("no whole record, and the one at byte {later} came after its sync"),
                ));
            }
            break;
        };
        let at = frame.record.at;
        if Some(at.index) != expected {
            return Err(corrupt(
                file,
                end + 8,
                format!("entry {} is out of place", at.index),
            ));
        }
        if at.term < term {
            return Err(corrupt(
                file,
                end + 16,
                format!("term {} after {term}", at.term),
            ));
        }
        if frame.synced < HEADER_BYTES as u64 || frame.synced > end as u64 {
            return Err(corrupt(file, end + 24, "more was synced than there was"));
        }
        term = at.term;
        offsets.push(end as u64);
        end += FRAME_BYTES + frame.record.body.len();
        records.push(frame.record);
    }
    Ok(Segment {
        header,
        records,
        offsets,
        end,
    })
}

/// Where after `bad` a whole record stands that was written once the byte at `bad` was synced.
fn proof_of_sync(bytes: &Bytes, first: u64, bad: usize) -> Option<usize> {
    let places = bad + 1..(bytes.len() + 1).saturating_sub(FRAME_BYTES);
    places.into_iter().find(|&offset| {
        // The cheap test first: a checksum at every byte would take a length squared.
        let synced = u64_at(bytes, offset + 24);
        bytes[offset + 32] <= RecordKind::Membership as u8
            && synced > bad as u64
            && synced <= offset as u64
            && frame_at(bytes, first, offset).is_some()
    })
}

/// The small files: each is written anew under another name and renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell {
    Vote = 1,
    Purged = 2,
    Snapshot = 3,
    Node = 4,
}

impl Cell {
    pub const ALL: [Self; 4] = [Self::Vote, Self::Purged, Self::Snapshot, Self::Node];

    pub fn file(self) -> &'static str {
        match self {
            Self::Vote => "vote",
            Self::Purged => "purged",
            Self::Snapshot => "snapshot",
            Self::Node => "node",
        }
    }

    pub fn encode(self, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(CELL_BYTES + content.len());
        out.extend_from_slice(&CELL_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(self as u32).to_le_bytes());
        // No content reaches 4 GiB: each has a limit far below.
        out.extend_from_slice(&(content.len() as u32).to_le_bytes());
        let mut hasher = Hasher::new();
        hasher.update(&out);
        hasher.update(content);
        out.extend_from_slice(&hasher.finalize().to_le_bytes());
        out.extend_from_slice(content);
        out
    }

    pub fn decode(self, bytes: &Bytes) -> Result<Bytes, LogError> {
        let file = self.file();
        if bytes.len() < CELL_BYTES {
            return Err(corrupt(file, bytes.len(), "the file is cut"));
        }
        if bytes[..4] != CELL_MAGIC {
            return Err(corrupt(file, 0, "this is no file of a node"));
        }
        let mut hasher = Hasher::new();
        hasher.update(&bytes[..16]);
        hasher.update(&bytes[CELL_BYTES..]);
        if hasher.finalize() != u32_at(bytes, 16) {
            return Err(corrupt(file, 16, "the checksum is wrong"));
        }
        known_version(file, u32_at(bytes, 4))?;
        if u32_at(bytes, 8) != self as u32 {
            return Err(corrupt(file, 8, "this is another file of a node"));
        }
        if u32_at(bytes, 12) as usize != bytes.len() - CELL_BYTES {
            return Err(corrupt(file, 12, "the length is wrong"));
        }
        Ok(bytes.slice(CELL_BYTES..))
    }
}

pub(super) fn encode_position(at: Position) -> Vec<u8> {
    let mut out = at.index.to_le_bytes().to_vec();
    out.extend_from_slice(&at.term.to_le_bytes());
    out
}

pub(super) fn decode_position(content: &Bytes) -> Result<Position, LogError> {
    if content.len() != 16 {
        return Err(corrupt(Cell::Purged.file(), CELL_BYTES, "not 16 bytes"));
    }
    Ok(Position {
        index: u64_at(content, 0),
        term: u64_at(content, 8),
    })
}

/// Bytes of a snapshot's content before its membership and state.
pub(super) const SNAPSHOT_HEAD_BYTES: usize = 20;

pub(super) fn encode_snapshot(snapshot: &StoredSnapshot) -> Vec<u8> {
    let mut out = encode_position(snapshot.through);
    out.reserve(4 + snapshot.membership.len() + snapshot.state.len());
    // The length fits: a snapshot has a limit that does.
    out.extend_from_slice(&(snapshot.membership.len() as u32).to_le_bytes());
    out.extend_from_slice(&snapshot.membership);
    out.extend_from_slice(&snapshot.state);
    out
}

pub(super) fn decode_snapshot(content: &Bytes) -> Result<StoredSnapshot, LogError> {
    let file = Cell::Snapshot.file();
    if content.len() < SNAPSHOT_HEAD_BYTES {
        return Err(corrupt(file, CELL_BYTES, "the content is cut"));
    }
    let state = SNAPSHOT_HEAD_BYTES + u32_at(content, 16) as usize;
    if state > content.len() {
        return Err(corrupt(file, CELL_BYTES + 16, "the membership is cut"));
    }
    Ok(StoredSnapshot {
        through: Position {
            index: u64_at(content, 0),
            term: u64_at(content, 8),
        },
        membership: content.slice(SNAPSHOT_HEAD_BYTES..state),
        state: content.slice(state..),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(index: u64, body: impl Into<Bytes>) -> Record {
        Record {
            at: Position { index, term: 1 },
            kind: RecordKind::Command,
            body: body.into(),
        }
    }

    /// A segment of batches, and where each record begins.
    fn segment(batches: &[&[Record]]) -> (Vec<u8>, Vec<usize>) {
        let header = Header {
            first: 0,
            term_before: None,
        };
        let mut out = header.encode();
        let mut starts = Vec::new();
        for batch in batches {
            let synced = out.len() as u64;
            for record in *batch {
                starts.push(out.len());
                let offset = out.len() as u64;
                put_record(&mut out, 0, offset, synced, record);
            }
        }
        (out, starts)
    }

    fn read(bytes: Vec<u8>) -> Result<Segment, LogError> {
        read_segment("seg", &Bytes::from(bytes), true)
    }

    #[test]
    fn a_broken_record_is_a_torn_tail_until_a_later_batch_says_it_was_synced() {
        let [a, b, c] = [0, 1, 2].map(|index| record(index, vec![7; 50]));
        let (mut bytes, starts) = segment(&[std::slice::from_ref(&a), &[b.clone(), c.clone()]]);
        bytes[starts[1] + 40] ^= 1;
        let segment_read = read(bytes).unwrap();
        assert_eq!(segment_read.records, std::slice::from_ref(&a));
        assert_eq!(segment_read.end, starts[1]);

        let (mut bytes, starts) = segment(&[&[a], &[b], &[c]]);
        bytes[starts[1] + 40] ^= 1;
        let refused = read(bytes).err().unwrap();
        assert!(
            matches!(refused, LogError::Corrupt { offset, .. } if offset == starts[1] as u64),
            "{refused}"
        );
    }

    #[test]
    fn a_record_inside_a_command_is_no_record() {
        // A client that puts a stored record into a command, to make a torn tail look synced.
        let (inner, starts) = segment(&[&[record(0, vec![1; 9])], &[record(1, vec![2; 9])]]);
        let mut planted = vec![0; 40];
        planted.extend_from_slice(&inner[starts[1]..]);
        let (mut bytes, starts) = segment(&[&[record(0, planted)]]);
        bytes[starts[0] + 5] ^= 1;
        assert_eq!(read(bytes).unwrap().end, HEADER_BYTES);
    }

    #[test]
    fn random_bytes_after_a_header_are_cut_or_refused_and_never_a_record() {
        let (header, _) = segment(&[]);
        let mut dice = 1_u64;
        for len in 0..400 {
            let mut bytes = header.clone();
            for _ in 0..len {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                bytes.push((dice >> 60) as u8);
            }
            assert!(read(bytes).is_ok_and(|segment| segment.records.is_empty()));
        }
    }
}
