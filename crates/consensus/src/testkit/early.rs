//! A planted bug: a log that says records are on stable storage before they are.

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::log::{
    AppendDone, DurableLog, LogError, LogState, LogStats, LogStore, Position, Record,
    StoredSnapshot,
};

pub(super) struct EarlyLog(pub(super) DurableLog);

impl LogStore for EarlyLog {
    fn state(&self) -> Result<LogState, LogError> {
        self.0.state()
    }

    fn read(&self, from: u64, to: u64) -> Result<Vec<Record>, LogError> {
        self.0.read(from, to)
    }

    fn append(&self, records: Vec<Record>, done: AppendDone) -> Result<(), LogError> {
        self.0.append(records, Box::new(|_| ()))?;
        done(Ok(()));
        Ok(())
    }

    fn truncate_after(&self, last: Option<u64>) -> BoxFuture<'static, Result<(), LogError>> {
        self.0.truncate_after(last)
    }

    fn purge(&self, through: Position) -> BoxFuture<'static, Result<(), LogError>> {
        self.0.purge(through)
    }

    fn save_identity(&self, identity: Bytes) -> BoxFuture<'static, Result<(), LogError>> {
        self.0.save_identity(identity)
    }

    fn save_vote(&self, vote: Bytes) -> BoxFuture<'static, Result<(), LogError>> {
        self.0.save_vote(vote)
    }

    fn save_snapshot(&self, snapshot: StoredSnapshot) -> BoxFuture<'static, Result<(), LogError>> {
        self.0.save_snapshot(snapshot)
    }

    fn load_snapshot(&self) -> BoxFuture<'static, Result<Option<StoredSnapshot>, LogError>> {
        self.0.load_snapshot()
    }

    fn stats(&self) -> LogStats {
        self.0.stats()
    }

    fn close(&self) -> BoxFuture<'static, Result<(), LogError>> {
        self.0.close()
    }
}
