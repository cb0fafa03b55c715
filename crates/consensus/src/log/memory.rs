//! A log that dies with its process: for games that may, and for tests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};

use super::{
    AppendDone, IDENTITY_BYTES_MAX, LogError, LogState, LogStats, LogStore, Position,
    RECORD_BYTES_MAX, Record, StoredSnapshot,
};

#[derive(Default)]
struct State {
    identity: Option<Bytes>,
    vote: Option<Bytes>,
    purged: Option<Position>,
    records: VecDeque<Record>,
    /// Where a log that was never purged begins.
    begins: u64,
    snapshot: Option<StoredSnapshot>,
    stats: LogStats,
    closed: bool,
}

impl State {
    /// The index of the first record, were there one.
    fn first(&self) -> u64 {
        self.purged.map_or(self.begins, |at| at.index + 1)
    }

    fn next(&self) -> u64 {
        self.first() + self.records.len() as u64
    }

    fn alive(&self) -> Result<(), LogError> {
        if self.closed {
            Err(LogError::Closed)
        } else {
            Ok(())
        }
    }
}

/// A [`LogStore`] in memory. Clones share it, so that a test can restart a node on it.
#[derive(Clone, Default)]
pub struct MemoryLog(Arc<Mutex<State>>);

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets a node be started on the same log after it was closed.
    pub fn reopen(&self) {
        self.lock().closed = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state at once and answers with a future that is ready.
    fn now(
        &self,
        change: impl FnOnce(&mut State) -> Result<(), LogError>,
    ) -> BoxFuture<'static, Result<(), LogError>> {
        let mut state = self.lock();
        let result = state.alive().and_then(|()| change(&mut state));
        future::ready(result).boxed()
    }
}

impl LogStore for MemoryLog {
    fn state(&self) -> Result<LogState, LogError> {
        let state = self.lock();
        state.alive()?;
        Ok(LogState {
            identity: state.identity.clone(),
            vote: state.vote.clone(),
            first: state.first(),
            purged: state.purged,
            last: state
                .records
                .back()
                .map(|record| record.at)
                .or(state.purged),
        })
    }

    fn read(&self, from: u64, to: u64) -> Result<Vec<Record>, LogError> {
        let state = self.lock();
        state.alive()?;
        if from >= to {
            return Ok(Vec::new());
        }
        if from < state.first() {
            return Err(LogError::Missing(from));
        }
        if to > state.next() {
            return Err(LogError::Missing(state.next().max(from)));
        }
        // In range of a VecDeque's length by the two checks above.
        let start = (from - state.first()) as usize;
        let count = (to - from) as usize;
        Ok(state.records.range(start..start + count).cloned().collect())
    }

    fn append(&self, records: Vec<Record>, done: AppendDone) -> Result<(), LogError> {
        {
            let mut state = self.lock();
            state.alive()?;
            let mut expected = state.next();
            if state.records.is_empty()
                && state.purged.is_none()
                && let Some(first) = records.first()
            {
                // A log that is new may begin anywhere: its first records say where.
                expected = first.at.index;
                state.begins = expected;
            }
            for record in &records {
                if record.at.index != expected {
                    return Err(LogError::Gap {
                        expected,
                        got: record.at.index,
                    });
                }
                if record.body.len() > RECORD_BYTES_MAX {
                    return Err(LogError::TooLarge {
                        what: "a record",
                        len: record.body.len(),
                        max: RECORD_BYTES_MAX,
                    });
                }
                expected += 1;
            }
            state.stats.batches += 1;
            state.stats.records += records.len() as u64;
            state.stats.bytes += records.iter().map(|r| r.body.len() as u64).sum::<u64>();
            state.records.extend(records);
        }
        done(Ok(()));
        Ok(())
    }

    fn truncate_after(&self, last: Option<u64>) -> BoxFuture<'static, Result<(), LogError>> {
        self.now(|state| {
            let keep = last
                .map_or(0, |last| last + 1)
                .saturating_sub(state.first());
            state.records.truncate(keep as usize);
            Ok(())
        })
    }

    fn purge(&self, through: Position) -> BoxFuture<'static, Result<(), LogError>> {
        self.now(|state| {
            while state
                .records
                .front()
                .is_some_and(|record| record.at.index <= through.index)
            {
                state.records.pop_front();
            }
            if state.purged.is_none_or(|at| at.index < through.index) {
                state.purged = Some(through);
            }
            Ok(())
        })
    }

    fn save_identity(&self, identity: Bytes) -> BoxFuture<'static, Result<(), LogError>> {
        self.now(|state| {
            if identity.len() > IDENTITY_BYTES_MAX {
                return Err(LogError::TooLarge {
                    what: "a note of whose log it is",
                    len: identity.len(),
                    max: IDENTITY_BYTES_MAX,
                });
            }
            state.identity = Some(identity);
            Ok(())
        })
    }

    fn save_vote(&self, vote: Bytes) -> BoxFuture<'static, Result<(), LogError>> {
        self.now(|state| {
            state.vote = Some(vote);
            Ok(())
        })
    }

    fn save_snapshot(&self, snapshot: StoredSnapshot) -> BoxFuture<'static, Result<(), LogError>> {
        self.now(|state| {
            if snapshot.is_news(state.snapshot.as_ref()) {
                state.snapshot = Some(snapshot);
            }
            Ok(())
        })
    }

    fn load_snapshot(&self) -> BoxFuture<'static, Result<Option<StoredSnapshot>, LogError>> {
        let state = self.lock();
        let result = state.alive().map(|()| state.snapshot.clone());
        future::ready(result).boxed()
    }

    fn stats(&self) -> LogStats {
        self.lock().stats
    }

    fn close(&self) -> BoxFuture<'static, Result<(), LogError>> {
        self.lock().closed = true;
        future::ready(Ok(())).boxed()
    }
}
