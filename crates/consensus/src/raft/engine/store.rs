//! A [`LogStore`] as openraft wants one.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::ObserverRef;
use super::inbound::Terms;
use super::types::{Entry, Id, Types, Vote, entry, id, position, record, vote_bytes, vote_from};
use crate::log::{LogError, LogStore, Position, Record};
use crate::watch;

/// Most bytes of entries one request for replication carries; at least one entry goes.
const BATCH_BYTES_MAX: usize = 1 << 20;

#[derive(Clone)]
pub struct Store {
    pub log: Arc<dyn LogStore>,
    pub observer: ObserverRef,
    pub kept: Kept,
    pub terms: Terms,
}

/// How far what this node holds is on stable storage.
///
/// openraft answers an empty request for an entry that is still being written, and asks for a purge
/// while the snapshot that stands for the entries is still being saved. Both were found by the
/// simulator (seeds 375 and 223), and both are waited for here.
#[derive(Clone)]
pub struct Kept(watch::Sender<KeptState>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct KeptState {
    /// Entries before this index are on stable storage.
    entries: u64,
    /// Entries before this index are in the stored snapshot.
    snapshot: u64,
    /// How often the log was truncated, and the lowest index that was cut since: an append that
    /// was under way then may be reported later, and its tail is gone.
    truncations: u64,
    cut: u64,
    failed: bool,
}

impl Kept {
    /// Of a log that has just been opened.
    pub fn new(entries: u64, snapshot: u64) -> Self {
        Self(
            watch::channel(KeptState {
                entries,
                snapshot,
                truncations: 0,
                cut: u64::MAX,
                failed: false,
            })
            .0,
        )
    }

    /// The snapshot through `index` is stored.
    pub fn snapshot(&self, index: u64) {
        self.0.modify(|kept| {
            kept.snapshot = kept.snapshot.max(index + 1);
            kept.entries = kept.entries.max(index + 1);
            true
        });
    }

    /// A write failed: nobody waits any more.
    pub fn fail(&self) {
        self.0.modify(|kept| {
            kept.failed = true;
            true
        });
    }

    fn truncations(&self) -> u64 {
        self.0.borrow().truncations
    }

    /// Entries before `next` were written, by an append begun after so many truncations.
    fn written(&self, next: u64, truncations: u64) {
        self.0.modify(|kept| {
            let next = if truncations == kept.truncations {
                next
            } else {
                next.min(kept.cut)
            };
            let changed = next > kept.entries;
            kept.entries = kept.entries.max(next);
            changed
        });
    }

    /// Entries from `next` on are cut.
    fn truncated(&self, next: u64) {
        self.0.modify(|kept| {
            kept.truncations += 1;
            kept.cut = kept.cut.min(next);
            kept.entries = kept.entries.min(next);
            true
        });
    }

    /// Waits until the very entry `at` is on stable storage: another one may stand at its index
    /// until the log is truncated. `false` when it will not be, or is not `within` that time: it
    /// may have been cut before it was written, and nothing says so then.
    pub async fn wait_for_entry(
        &self,
        log: &Arc<dyn LogStore>,
        at: Position,
        within: Duration,
    ) -> bool {
        let stands = || match log.read(at.index, at.index + 1) {
            Ok(records) => records.first().is_some_and(|record| record.at == at),
            Err(_) => log.state().is_ok_and(|state| at.index < state.first),
        };
        let mut kept = self.0.subscribe();
        let met = kept.wait_for(|kept| {
            kept.failed || kept.snapshot > at.index || (kept.entries > at.index && stands())
        });
        let met = tokio::time::timeout(within, met).await;
        met.is_ok_and(|met| met.is_ok_and(|kept| !kept.failed))
    }

    async fn wait_for_snapshot(&self, index: u64) -> bool {
        let mut kept = self.0.subscribe();
        let met = kept.wait_for(|kept| kept.failed || kept.snapshot > index);
        met.await.is_ok_and(|kept| !kept.failed)
    }
}

pub fn io_error(error: LogError) -> io::Error {
    io::Error::other(error)
}

fn malformed<E>(_: E) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a stored entry is not one")
}

impl Store {
    /// The part of `range` that is in the log.
    fn clamp(&self, range: impl RangeBounds<u64>) -> Result<(u64, u64), io::Error> {
        let state = self.log.state().map_err(io_error)?;
        let first = state.first;
        let end = state.last.map_or(0, |at| at.index + 1);
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(from) => from + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(to) => to.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        Ok((from.max(first), to.min(end)))
    }
}

fn entries(records: Vec<Record>) -> Result<Vec<Entry>, io::Error> {
    records
        .into_iter()
        .map(|record| entry(record).map_err(malformed))
        .collect()
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (from, to) = self.clamp(range)?;
        if from >= to {
            return Ok(Vec::new());
        }
        entries(self.log.read(from, to).map_err(io_error)?)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let mut records = self.log.read(start, end).map_err(io_error)?;
        let mut bytes = 0;
        let fits = records
            .iter()
            .take_while(|record| {
                bytes += record.body.len();
                bytes <= BATCH_BYTES_MAX
            })
            .count();
        records.truncate(fits.max(1));
        entries(records)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let vote = self.log.state().map_err(io_error)?.vote;
        vote.map(|bytes| vote_from(&bytes).map_err(malformed))
            .transpose()
    }
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let state = self.log.state().map_err(io_error)?;
        Ok(LogState {
            last_purged_log_id: state.purged.map(id),
            last_log_id: state.last.map(id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.terms.reach(vote.leader_id.term);
        self.log
            .save_vote(vote_bytes(vote))
            .await
            .map_err(io_error)?;
        self.observer.voted(vote.leader_id.term);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records: Vec<_> = entries.into_iter().map(|entry| record(&entry)).collect();
        self.observer.appended(&records);
        let next = records.last().map(|record| record.at.index + 1);
        let kept = self.kept.clone();
        let truncations = kept.truncations();
        let appended = self.log.append(
            records,
            Box::new(move |done| {
                match (&done, next) {
                    (Ok(()), Some(next)) => kept.written(next, truncations),
                    (Ok(()), None) => {}
                    (Err(_), _) => kept.fail(),
                }
                callback.io_completed(done.map_err(io_error));
            }),
        );
        appended.map_err(|error| {
            self.kept.fail();
            io_error(error)
        })
    }

    async fn truncate_after(&mut self, last: Option<Id>) -> Result<(), io::Error> {
        let last = last.map(|id| id.index);
        self.observer.truncated(last);
        self.kept.truncated(last.map_or(0, |last| last + 1));
        self.log.truncate_after(last).await.map_err(io_error)
    }

    async fn purge(&mut self, through: Id) -> Result<(), io::Error> {
        if !self.kept.wait_for_snapshot(through.index).await {
            return Err(io::Error::other("the snapshot could not be stored"));
        }
        self.log.purge(position(&through)).await.map_err(io_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{MemoryLog, RecordKind};

    #[tokio::test(start_paused = true)]
    async fn an_entry_that_was_cut_before_it_was_written_is_not_waited_for_for_ever() {
        let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new());
        let kept = Kept::new(0, 0);
        let within = Duration::from_secs(1);
        let [cut, stands] = [1, 2].map(|term| Position { index: 0, term });
        let record = Record {
            at: stands,
            kind: RecordKind::Blank,
            body: bytes::Bytes::new(),
        };
        log.append(vec![record], Box::new(|_| {})).unwrap();
        kept.written(1, 0);
        assert!(kept.wait_for_entry(&log, stands, within).await);
        assert!(!kept.wait_for_entry(&log, cut, within).await);
        // One that is written meanwhile is waited for.
        let later = Position { index: 1, term: 2 };
        let waiting = kept.wait_for_entry(&log, later, within);
        let writing = async {
            tokio::time::sleep(within / 2).await;
            let record = Record {
                at: later,
                kind: RecordKind::Blank,
                body: bytes::Bytes::new(),
            };
            log.append(vec![record], Box::new(|_| {})).unwrap();
            kept.written(2, 0);
        };
        let (met, ()) = tokio::join!(waiting, writing);
        assert!(met);
    }
}
