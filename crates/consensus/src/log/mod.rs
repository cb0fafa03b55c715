//! Where a node keeps what Raft must not forget: its log, its vote, its latest snapshot.
//!
//! A [`LogStore`] knows records of opaque bytes; what they mean is `raft`'s business. There are two:
//! [`MemoryLog`], which dies with its process, and [`durable::DurableLog`].
//!
//! Contract, for every implementation
//! - [`LogStore::append`] makes the records readable before it returns and calls `done` once they
//!   are on stable storage; calls of `done` come in the order of the appends;
//! - [`LogStore::save_identity`], [`LogStore::save_vote`], [`LogStore::truncate_after`] and
//!   [`LogStore::save_snapshot`] resolve once what they did is on stable storage;
//! - a write that failed poisons the store: every later write answers [`LogError::Poisoned`], since
//!   what the disk holds is not known any more;
//! - indices are contiguous: an append starts right after the last record, or, on an empty log,
//!   right after what was purged.

pub mod durable;
mod memory;

use std::fmt;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::hidden::Hidden;

pub use durable::DurableLog;
pub use memory::MemoryLog;

/// Largest record body, in bytes. Larger than the largest command with what wraps it.
pub const RECORD_BYTES_MAX: usize = 2 << 20;

/// Largest note of whose log it is, in bytes.
pub const IDENTITY_BYTES_MAX: usize = 64 << 10;

/// What a record's body is. The number is what stands in a log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// Nothing: a new leader's first entry.
    Blank = 0,
    /// A command for the replicated state.
    Command = 1,
    /// Who is a member from here on.
    Membership = 2,
}

impl RecordKind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Blank),
            1 => Some(Self::Command),
            2 => Some(Self::Membership),
            _ => None,
        }
    }
}

/// A place in the log: index and term of the entry there. Indices start at 0 here; what a game
/// sees starts at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Which entry.
    pub index: u64,
    /// The term its leader wrote it in.
    pub term: u64,
}

/// One entry of the log.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub at: Position,
    /// What its body is.
    pub kind: RecordKind,
    /// At most [`RECORD_BYTES_MAX`] bytes.
    pub body: Bytes,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("at", &self.at)
            .field("kind", &self.kind)
            .field("body", &Hidden(self.body.len()))
            .finish()
    }
}

/// A state that stands for every entry through a position.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// The last entry the state contains.
    pub through: Position,
    /// Who was a member then, as `raft` encodes it.
    pub membership: Bytes,
    /// The state.
    pub state: Bytes,
}

impl fmt::Debug for StoredSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSnapshot")
            .field("through", &self.through)
            .field("membership", &Hidden(self.membership.len()))
            .field("state", &Hidden(self.state.len()))
            .finish()
    }
}

impl StoredSnapshot {
    /// Whether it stands for as many entries as what is `stored`.
    fn is_news(&self, stored: Option<&Self>) -> bool {
        stored.is_none_or(|stored| stored.through.index <= self.through.index)
    }
}

/// What a store holds when it is opened.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct LogState {
    /// Whose log this is, as `session` encodes it.
    pub identity: Option<Bytes>,
    /// The vote, as `raft` encodes it.
    pub vote: Option<Bytes>,
    /// Where the log begins: the index of its first record, or of the one that would be.
    pub first: u64,
    /// The last entry that was purged.
    pub purged: Option<Position>,
    /// The last entry: of the log, or what was purged if the log is empty.
    pub last: Option<Position>,
}

impl fmt::Debug for LogState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogState")
            .field(
                "identity",
                &self.identity.as_ref().map(|held| Hidden(held.len())),
            )
            .field("vote", &self.vote.as_ref().map(|held| Hidden(held.len())))
            .field("first", &self.first)
            .field("purged", &self.purged)
            .field("last", &self.last)
            .finish()
    }
}

impl LogState {
    /// Whether Raft has written something that it must not forget.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.vote.is_some() || self.last.is_some()
    }
}

/// A store that could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// An I/O call failed. The store is poisoned from here on.
    #[error("{doing} failed ({kind:?}): restart the node once the disk is well")]
    Io {
        /// What was being done, on what.
        doing: String,
        /// What kind of failure.
        kind: std::io::ErrorKind,
    },
    /// An earlier write failed, so nothing can be promised about the disk.
    #[error("an earlier write to this log failed: restart the node")]
    Poisoned,
    /// The stored bytes are not what was written.
    #[error("{file} is corrupt at byte {offset}: {what}; take this node out and let it join anew")]
    Corrupt {
        /// Which file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The store is in use by another process.
    #[error("{path} is in use by another process")]
    InUse {
        /// The directory.
        path: String,
    },
    /// The files were written by a version this one does not read.
    #[error("{file} has format version {version}, this program reads {known}")]
    Version {
        /// Which file.
        file: String,
        /// The version there.
        version: u32,
        /// The version known here.
        known: u32,
    },
    /// An append that does not continue the log.
    #[error("entry {got} does not follow the log: entry {expected} does")]
    Gap {
        /// The index that would have followed.
        expected: u64,
        /// The index given.
        got: u64,
    },
    /// An entry whose term contradicts the log: lower than that of the entry before it, or not the
    /// term of the entry that is purged.
    #[error("entry {index} of term {got} contradicts the log, which is at term {known} there")]
    Term {
        /// The entry.
        index: u64,
        /// The term in the log.
        known: u64,
        /// The term given.
        got: u64,
    },
    /// A record, vote or snapshot larger than the store takes.
    #[error("{what} of {len} bytes is larger than {max}")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// An option that cannot be. Nothing was opened.
    #[error("{what} must be between {min} and {max}, not {value}")]
    OutOfRange {
        /// Which option.
        what: &'static str,
        /// The value given.
        value: u64,
        /// The least there can be.
        min: u64,
        /// The most there can be.
        max: u64,
    },
    /// Entries that were asked for are not in the log: they were purged, or never written.
    #[error("entry {0} is not in the log")]
    Missing(u64),
    /// The store was closed. A session closes the log it was given when it ends, also when it did not
    /// open: what goes on with that log opens it anew.
    #[error(
        "the log is closed: a session closes its log when it ends, so open it anew for the next one"
    )]
    Closed,
}

/// Called once appended records are on stable storage, or certainly are not.
pub type AppendDone = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// How much a store did since it was opened, for benches and operators.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Records appended.
    pub records: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Batches written: several appends may share one.
    pub batches: u64,
    /// Calls that forced bytes onto stable storage.
    pub syncs: u64,
}

/// Keeps a log, a vote and a snapshot. See the module's contract.
pub trait LogStore: Send + Sync + 'static {
    /// What the store holds now.
    ///
    /// # Errors
    ///
    /// [`LogError`] when the store is poisoned or closed.
    fn state(&self) -> Result<LogState, LogError>;

    /// The records with indices in `from..to`, all of them.
    ///
    /// # Errors
    ///
    /// [`LogError::Missing`] when one is not in the log.
    fn read(&self, from: u64, to: u64) -> Result<Vec<Record>, LogError>;

    /// Adds records; `done` is called once they are on stable storage.
    ///
    /// # Errors
    ///
    /// [`LogError`] when nothing was added; `done` is then dropped without being called.
    fn append(&self, records: Vec<Record>, done: AppendDone) -> Result<(), LogError>;

    /// Removes the entries after `last`; all of them when `None`.
    fn truncate_after(&self, last: Option<u64>) -> BoxFuture<'static, Result<(), LogError>>;

    /// Forgets the entries through `through`.
    fn purge(&self, through: Position) -> BoxFuture<'static, Result<(), LogError>>;

    /// Replaces the note of whose log this is: at most [`IDENTITY_BYTES_MAX`] bytes. A node writes
    /// it before anything else.
    fn save_identity(&self, identity: Bytes) -> BoxFuture<'static, Result<(), LogError>>;

    /// Replaces the vote.
    fn save_vote(&self, vote: Bytes) -> BoxFuture<'static, Result<(), LogError>>;

    /// Replaces the snapshot, unless that stands for more entries than this one: openraft may still be
    /// saving one it built when another, from the leader, has taken its place and the entries are
    /// gone. Such an older one is answered as if it had been stored.
    fn save_snapshot(&self, snapshot: StoredSnapshot) -> BoxFuture<'static, Result<(), LogError>>;

    /// The latest snapshot.
    fn load_snapshot(&self) -> BoxFuture<'static, Result<Option<StoredSnapshot>, LogError>>;

    /// The largest state in a snapshot that [`Self::save_snapshot`] takes, in bytes; any when `None`.
    /// A session checks it against what its node takes before it opens.
    fn snapshot_bytes_max(&self) -> Option<usize> {
        None
    }

    /// How much the store did.
    fn stats(&self) -> LogStats;

    /// Writes what is pending and releases files and threads. Later calls answer
    /// [`LogError::Closed`].
    fn close(&self) -> BoxFuture<'static, Result<(), LogError>>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hidden::tests::{SECRET, hides_it};

    #[test]
    fn what_a_log_holds_is_shown_by_its_place_and_its_length() {
        let held = Bytes::from_static(SECRET);
        let at = Position { index: 77, term: 3 };
        let record = Record {
            at,
            kind: RecordKind::Command,
            body: held.clone(),
        };
        let snapshot = StoredSnapshot {
            through: at,
            membership: held.clone(),
            state: held.clone(),
        };
        let state = LogState {
            identity: Some(held.clone()),
            vote: Some(held),
            last: Some(at),
            ..LogState::default()
        };
        hides_it(&record);
        hides_it(&snapshot);
        hides_it(&state);
        for shown in [
            format!("{record:?}"),
            format!("{snapshot:?}"),
            format!("{state:?}"),
        ] {
            assert!(
                shown.contains("77") && shown.contains("32 bytes"),
                "{shown}"
            );
        }
    }
}
