//! What stands in a directory when it is opened, and whether that can be believed.
//!
//! Cut, because a crash leaves it: a torn tail of the last segment; a segment without records; files
//! that were being replaced; segments that were purged already. Everything else that is not as it
//! was written is refused.
//!
//! A torn tail is bytes that are no record, and that no later record says were synced. The batch
//! that was written last cannot say so of itself. Damage to it, though it may have been
//! acknowledged, looks like the crash that would have torn it; so does a file cut where a record
//! ends, and a file of the store that was removed. Those are for backups and Raft's other voters.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::super::{IDENTITY_BYTES_MAX, LogError, LogStats, Position};
use super::disk::{Disk, DiskLock};
use super::entries::Entries;
use super::files::{Files, TEMPORARY, failed};
use super::format::{self, Cell, SNAPSHOT_HEAD_BYTES};
use super::writer::{Kept, Writer};
use super::{DurableOptions, MEMBERSHIP_BYTES_MAX, Memory, Shared, VOTE_BYTES_MAX, within};

/// Opens what is there.
pub(super) async fn recover(
    disk: Arc<dyn Disk>,
    options: DurableOptions,
) -> Result<Writer, LogError> {
    let name = disk.name();
    let lock: Box<dyn DiskLock> = disk
        .lock()
        .await
        .map_err(|error| failed("locking", &name, &error))?
        .ok_or(LogError::InUse { path: name.clone() })?;
    let mut files = Files { disk, syncs: 0 };
    let names = files
        .disk
        .list()
        .await
        .map_err(|error| failed("listing", &name, &error))?;

    let mut firsts = Vec::new();
    for name in &names {
        if let Some(first) = format::segment_first(name)? {
            firsts.push(first);
        } else if let Some(whole) = name.strip_suffix(TEMPORARY)
            && (Cell::ALL.iter().any(|cell| cell.file() == whole)
                || format::segment_first(whole)?.is_some())
        {
            files.remove(name).await?;
        }
    }

    let vote = read_cell(&files, &names, Cell::Vote, VOTE_BYTES_MAX).await?;
    let identity = read_cell(&files, &names, Cell::Node, IDENTITY_BYTES_MAX).await?;
    let purged = read_cell(&files, &names, Cell::Purged, 16).await?;
    let snapshot_max = options
        .snapshot_bytes_max
        .saturating_add(SNAPSHOT_HEAD_BYTES + MEMBERSHIP_BYTES_MAX);
    let snapshot = read_cell(&files, &names, Cell::Snapshot, snapshot_max).await?;
    let snapshot = snapshot.as_ref().map(format::decode_snapshot).transpose()?;
    if let Some(snapshot) = &snapshot {
        let (len, max) = (snapshot.state.len(), options.snapshot_bytes_max);
        within("the snapshot", len, max)?;
    }
    let purged = purged.as_ref().map(format::decode_position).transpose()?;
    let (kept, records) = read_log(&mut files, firsts, purged).await?;

    // What is read here may be in the cache of a process that was killed, not on the disk.
    if let Some(last) = kept.last() {
        let name = format::segment_name(last.first);
        let mut file = files.open(&name).await?;
        files.sync(&name, &mut *file).await?;
    }
    files.sync_directory().await?;

    let entries = Entries::new(purged, records);
    let last = entries.last();
    let memory = Memory {
        entries,
        vote,
        snapshot,
        identity,
        stats: LogStats {
            syncs: files.syncs,
            ..LogStats::default()
        },
        closed: false,
        poisoned: false,
    };
    let shared = Arc::new(Shared::new(memory, options));
    Ok(Writer::new(files, lock, shared, kept, last))
}

async fn read_cell(
    files: &Files,
    names: &BTreeSet<String>,
    cell: Cell,
    content_max: usize,
) -> Result<Option<Bytes>, LogError> {
    if !names.contains(cell.file()) {
        return Ok(None);
    }
    let max = content_max.saturating_add(format::CELL_BYTES);
    let bytes = files
        .disk
        .read(cell.file(), (max as u64).saturating_add(1))
        .await
        .map_err(|error| failed("reading", cell.file(), &error))?;
    if cell == Cell::Snapshot && bytes.len() > max {
        // At least this long: no more of it was read. The others have no limit that may differ, and
        // fail their check.
        let max = content_max - SNAPSHOT_HEAD_BYTES - MEMBERSHIP_BYTES_MAX;
        return Err(LogError::TooLarge {
            what: "the snapshot",
            len: max.saturating_add(1),
            max,
        });
    }
    cell.decode(&Bytes::from(bytes)).map(Some)
}

/// Reads the segments that hold what was not purged, and removes the others.
async fn read_log(
    files: &mut Files,
    firsts: Vec<u64>,
    purged: Option<Position>,
) -> Result<(Vec<Kept>, VecDeque<super::super::Record>), LogError> {
    let next = purged.map_or(0, |at| at.index.saturating_add(1));
    // Segments before this one end before the first entry that is not purged.
    let start = firsts.iter().rposition(|&first| first <= next).unwrap_or(0);
    for &first in &firsts[..start] {
        files.remove(&format::segment_name(first)).await?;
    }

    let mut kept: Vec<Kept> = Vec::new();
    let mut records = VecDeque::new();
    let mut before = purged;
    for (place, &first) in firsts.iter().enumerate().skip(start) {
        let name = format::segment_name(first);
        let bytes = files
            .disk
            .read(&name, u64::MAX)
            .await
            .map_err(|error| failed("reading", &name, &error))?;
        let bytes = Bytes::from(bytes);
        let last = place + 1 == firsts.len();
        let segment = format::read_segment(&name, &bytes, last)?;
        let corrupt = |offset, what| LogError::Corrupt {
            file: name.clone(),
            offset,
            what,
        };
        if segment.header.first != first {
            return Err(corrupt(
                8,
                format!("it begins at entry {}", segment.header.first),
            ));
        }
        // The first one may begin before what was purged, and then what came before it is gone.
        if place > start || first >= next {
            follows(before, first, segment.header.term_before).map_err(|what| corrupt(8, what))?;
        }
        if segment.end < bytes.len() {
            tracing::warn!(
                file = name,
                at = segment.end,
                bytes = bytes.len() - segment.end,
                "cutting a torn tail off the log"
            );
            let mut file = files.open(&name).await?;
            file.cut(segment.end as u64)
                .await
                .map_err(|error| failed("cutting", &name, &error))?;
            files.sync(&name, &mut *file).await?;
        }
        let end = segment.records.last().map(|record| record.at);
        if end.is_none_or(|end| end.index.saturating_add(1) < next) && last {
            // Nothing in it, or nothing but what was purged and then some: no append goes on here.
            files.remove(&name).await?;
            break;
        }
        for (record, &offset) in segment.records.iter().zip(&segment.offsets) {
            let at = record.at;
            if purged.is_some_and(|purged| purged.index == at.index && purged.term != at.term) {
                return Err(corrupt(
                    offset + 16,
                    format!("entry {} was purged with another term", at.index),
                ));
            }
        }
        before = end.or(before);
        kept.push(Kept {
            first,
            offsets: segment.offsets,
            end: segment.end as u64,
        });
        records.extend(segment.records.into_iter().filter(|r| r.at.index >= next));
    }
    Ok((kept, records))
}

/// Whether a segment that begins at `first` goes on where the log was.
fn follows(before: Option<Position>, first: u64, term_before: Option<u64>) -> Result<(), String> {
    let Some(before) = before else {
        // A log may begin anywhere, but then its first segment says that nothing was before.
        return match term_before {
            None => Ok(()),
            Some(_) => Err(format!("the entries before {first} are missing")),
        };
    };
    if first != before.index.saturating_add(1) {
        return Err(format!(
            "entry {} is missing",
            before.index.saturating_add(1)
        ));
    }
    if term_before != Some(before.term) {
        return Err(format!("the entry before {first} was of another term"));
    }
    Ok(())
}
