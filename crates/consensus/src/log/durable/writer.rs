//! Writes what was queued, in order, and tells who waits.
//!
//! Invariants
//! - appends that wait together share one write and one sync;
//! - a batch lies in one segment, and a segment is synced before the next one is made;
//! - after the first failure nothing is written or synced any more: everybody is told.

use std::collections::VecDeque;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::super::{AppendDone, LogError, Position, Record, StoredSnapshot};
use super::Shared;
use super::disk::{DiskFile, DiskLock};
use super::files::{Files, failed};
use super::format::{self, Cell, HEADER_BYTES, Header};

/// Record bytes after which a batch takes no further append.
const BATCH_BYTES: usize = 8 << 20;

pub(super) type Reply = oneshot::Sender<Result<(), LogError>>;

/// What a writer is asked to do.
pub(super) enum Job {
    Append(Vec<Record>, AppendDone),
    /// Entries from `next` on go; `last` is the one before.
    Truncate {
        next: u64,
        last: Option<Position>,
        reply: Reply,
    },
    Purge(Position, Reply),
    Vote(Bytes, Reply),
    Snapshot(StoredSnapshot, Reply),
    Identity(Bytes, Reply),
    Close(Reply),
}

/// A segment on the disk.
pub(super) struct Kept {
    pub first: u64,
    /// Where each of its records begins.
    pub offsets: Vec<u64>,
    /// Where the last one ends. All before that is synced.
    pub end: u64,
}

impl Kept {
    fn next(&self) -> u64 {
        self.first + self.offsets.len() as u64
    }
}

pub(super) struct Writer {
    files: Files,
    /// Held, never used.
    lock: Box<dyn DiskLock>,
    pub shared: Arc<Shared>,
    /// Oldest first.
    kept: Vec<Kept>,
    /// The last of them, once it was written to.
    open: Option<Box<dyn DiskFile>>,
    /// The last entry that was written, or what was purged.
    last: Option<Position>,
}

impl Writer {
    pub fn new(
        files: Files,
        lock: Box<dyn DiskLock>,
        shared: Arc<Shared>,
        kept: Vec<Kept>,
        last: Option<Position>,
    ) -> Self {
        Self {
            files,
            lock,
            shared,
            kept,
            open: None,
            last,
        }
    }

    /// Works until it is told to close, or nobody is left to tell it.
    pub async fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        let mut queue = VecDeque::new();
        loop {
            if queue.is_empty() {
                match jobs.recv().await {
                    Some(job) => queue.push_back(job),
                    None => return,
                }
            }
            while let Ok(job) = jobs.try_recv() {
                queue.push_back(job);
            }
            match queue.pop_front() {
                Some(Job::Append(records, done)) => {
                    let batch = Batch::gather(records, done, &mut queue);
                    self.append(batch).await;
                }
                Some(Job::Close(reply)) => {
                    let result = self.alive();
                    // The lock is free before anybody hears that the log is closed.
                    drop((self.open.take(), self.lock));
                    let _ = reply.send(result);
                    return;
                }
                Some(job) => self.perform(job).await,
                None => {}
            }
        }
    }

    fn alive(&self) -> Result<(), LogError> {
        if self.shared.lock().poisoned {
            Err(LogError::Poisoned)
        } else {
            Ok(())
        }
    }

    /// Notes what was done, and that nothing more will be if it failed.
    fn note(&mut self, result: &Result<(), LogError>) {
        let mut memory = self.shared.lock();
        memory.stats.syncs = self.files.syncs;
        if let Err(error) = result
            && !memory.poisoned
        {
            tracing::error!(%error, "the log is poisoned");
            memory.poisoned = true;
        }
    }

    async fn append(&mut self, batch: Batch) {
        let mut result = self.alive();
        if result.is_ok() {
            result = self.write(&batch.records).await;
            self.note(&result);
        }
        for done in batch.waiting {
            done(result.clone());
        }
    }

    async fn write(&mut self, records: &[Record]) -> Result<(), LogError> {
        let Some(at) = records.first().map(|record| record.at) else {
            return Ok(());
        };
        let bytes_max = self.shared.options.segment_bytes;
        let goes_on = self
            .kept
            .last()
            .is_some_and(|kept| kept.next() == at.index && kept.end < bytes_max);
        if !goes_on {
            self.begin_segment(at.index).await?;
        }
        // One was there, or was just begun.
        let Some(kept) = self.kept.last_mut() else {
            return Err(LogError::Poisoned);
        };
        let name = format::segment_name(kept.first);
        let mut file = match self.open.take() {
            Some(file) => file,
            None => self.files.open(&name).await?,
        };
        let synced = kept.end;
        let mut bytes = Vec::new();
        let mut offsets = Vec::new();
        for record in records {
            let offset = synced + bytes.len() as u64;
            offsets.push(offset);
            format::put_record(&mut bytes, kept.first, offset, synced, record);
            self.last = Some(record.at);
        }
        self.files.append(&name, &mut *file, &bytes).await?;
        self.shared.lock().stats.batches += 1;
        self.files.sync(&name, &mut *file).await?;
        kept.offsets.extend(offsets);
        kept.end += bytes.len() as u64;
        self.open = Some(file);
        Ok(())
    }

    async fn begin_segment(&mut self, first: u64) -> Result<(), LogError> {
        let header = Header {
            first,
            term_before: self.last.map(|at| at.term),
        };
        let name = format::segment_name(first);
        self.open = Some(self.files.replace(&name, &header.encode()).await?);
        self.kept.push(Kept {
            first,
            offsets: Vec::new(),
            end: HEADER_BYTES as u64,
        });
        Ok(())
    }

    async fn perform(&mut self, job: Job) {
        let mut result = self.alive();
        let poisoned = result.is_err();
        let reply = match job {
            Job::Truncate { reply, .. }
            | Job::Purge(_, reply)
            | Job::Vote(_, reply)
            | Job::Snapshot(_, reply)
            | Job::Identity(_, reply)
                if poisoned =>
            {
                reply
            }
            Job::Truncate { next, last, reply } => {
                result = self.truncate(next, last).await;
                reply
            }
            Job::Purge(through, reply) => {
                result = self.purge(through).await;
                reply
            }
            Job::Vote(vote, reply) => {
                result = self.vote(vote).await;
                reply
            }
            Job::Snapshot(snapshot, reply) => {
                result = self.snapshot(snapshot).await;
                reply
            }
            Job::Identity(identity, reply) => {
                result = self.identity(identity).await;
                reply
            }
            // Handled where they are taken from the queue.
            Job::Append(..) | Job::Close(_) => return,
        };
        self.note(&result);
        // Who asked may have stopped waiting.
        let _ = reply.send(result);
    }

    /// Removes from the end, one durable step after the other: what a crash leaves is the log up to
    /// some entry that was not to be removed, or not yet.
    async fn truncate(&mut self, next: u64, last: Option<Position>) -> Result<(), LogError> {
        while let Some(kept) = self.kept.pop_if(|kept| kept.first >= next) {
            self.open = None;
            self.files.remove(&format::segment_name(kept.first)).await?;
            self.files.sync_directory().await?;
        }
        self.last = last;
        let Some(kept) = self.kept.last_mut().filter(|kept| kept.next() > next) else {
            return Ok(());
        };
        let name = format::segment_name(kept.first);
        let mut file = match self.open.take() {
            Some(file) => file,
            None => self.files.open(&name).await?,
        };
        // In range: the segment begins before `next` and ends after it.
        let keep = (next - kept.first) as usize;
        let end = kept.offsets[keep];
        file.cut(end)
            .await
            .map_err(|error| failed("cutting", &name, &error))?;
        self.files.sync(&name, &mut *file).await?;
        kept.offsets.truncate(keep);
        kept.end = end;
        self.open = Some(file);
        Ok(())
    }

    async fn purge(&mut self, through: Position) -> Result<(), LogError> {
        self.files
            .replace_cell(Cell::Purged, &format::encode_position(through))
            .await?;
        if self.last.is_none_or(|last| last.index < through.index) {
            self.last = Some(through);
        }
        let next = through.index.saturating_add(1);
        // The last segment stays if the next entry goes on there.
        let gone = self
            .kept
            .iter()
            .enumerate()
            .take_while(|(place, kept)| {
                kept.next() < next || (kept.next() == next && place + 1 < self.kept.len())
            })
            .count();
        for kept in self.kept.drain(..gone) {
            self.files.remove(&format::segment_name(kept.first)).await?;
        }
        if self.kept.is_empty() {
            self.open = None;
        }
        if gone > 0 {
            self.files.sync_directory().await?;
        }
        Ok(())
    }

    async fn vote(&mut self, vote: Bytes) -> Result<(), LogError> {
        self.files.replace_cell(Cell::Vote, &vote).await?;
        self.shared.lock().vote = Some(vote);
        Ok(())
    }

    async fn snapshot(&mut self, snapshot: StoredSnapshot) -> Result<(), LogError> {
        if !snapshot.is_news(self.shared.lock().snapshot.as_ref()) {
            return Ok(());
        }
        let content = format::encode_snapshot(&snapshot);
        self.files.replace_cell(Cell::Snapshot, &content).await?;
        self.shared.lock().snapshot = Some(snapshot);
        Ok(())
    }

    async fn identity(&mut self, identity: Bytes) -> Result<(), LogError> {
        self.files.replace_cell(Cell::Node, &identity).await?;
        self.shared.lock().identity = Some(identity);
        Ok(())
    }
}

/// Appends that share a write and a sync.
struct Batch {
    records: Vec<Record>,
    /// In the order of the appends.
    waiting: Vec<AppendDone>,
}

impl Batch {
    /// Takes the appends that wait right behind the first one.
    fn gather(records: Vec<Record>, done: AppendDone, queue: &mut VecDeque<Job>) -> Self {
        let size = |records: &[Record]| records.iter().map(|r| r.body.len()).sum::<usize>();
        let mut bytes = size(&records);
        let mut batch = Self {
            records,
            waiting: vec![done],
        };
        while bytes < BATCH_BYTES {
            match queue.pop_front() {
                Some(Job::Append(records, done)) => {
                    bytes += size(&records);
                    batch.records.extend(records);
                    batch.waiting.push(done);
                }
                Some(other) => {
                    queue.push_front(other);
                    break;
                }
                None => break,
            }
        }
        batch
    }
}
