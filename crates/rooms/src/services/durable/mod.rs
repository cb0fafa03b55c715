//! Stores on disk: values, configuration and results in one [redb] file.
//!
//! What is promised
//! - A write is answered `Ok` after the transaction that holds it was committed and synced. Such a
//!   write survives the death of the process and of the machine, as far as the disk keeps what it
//!   said it synced. A write that is not answered, or answered with an error, may be there or not,
//!   whole.
//! - Writes happen in the order they were asked. Writers wait for the disk together: what queued up
//!   while one transaction was synced goes into the next.
//! - Past a bounded queue a write is answered `Unavailable` at once. Nothing asked is left without
//!   an answer.
//! - After the file system failed, or redb found the file damaged, the store refuses everything:
//!   nobody can tell any more what is on the disk. Open it anew.
//!
//! Threads: one writes, one scans (boards, integer values, results). [`KvStore::get`] and
//! [`ConfigStore::get`] are answered inside the call, from redb's own page cache or with a few
//! `pread`s of 4 KiB pages; the file is not mapped, so a failing disk is an error and not a signal.
//! They see every write answered before and do not wait for a commit that is under way.
//!
//! Growth: values are replaced in place. Posts are never removed: one byte string of 32 stays of each
//! so that its replay is known, and one record so that it counts. 200,000 posts of four players with
//! account ids of 36 bytes made a file of 82 MB, 0.4 KB each. A board over a window reads only that
//! window; the board of all time reads every post of its game (0.23 s for those 200,000).
//!
//! The file format is described in `format.rs`.
//!
//! [redb]: https://docs.rs/redb

mod format;
mod open;
mod scans;
#[cfg(test)]
mod tests;
mod writes;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use redb::ReadableDatabase;

use self::format::{CONFIG, KV};
use self::open::Files;
use self::scans::Scan;
use self::writes::{Answer, Op, Write};
use super::limits::{self, LimitError};
use super::{
    ConfigStore, KvAddress, KvStore, Leaderboard, MergeRule, Post, Posted, Recorded, ServiceError,
    ServiceSet, StoreAdmin,
};
use crate::board::{BoardSource, BoardSpec, Score};
use crate::reply::Reply;

pub use self::format::FORMAT_VERSION;
pub use self::open::OpenError;

/// What a [`DurableStore`] may use. Start from the default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DurableOptions {
    /// Writes that may wait, 4,096; past it they are answered `Unavailable`.
    pub queue_max: usize,
    /// Bytes of keys and values that may wait, 64 MiB. One write is always taken.
    pub queue_bytes_max: usize,
    /// Writes that go into one transaction, 512.
    pub batch_max: usize,
    /// Bytes of keys and values that go into one transaction, 8 MiB, but for the last write.
    pub batch_bytes_max: usize,
    /// Scans that may wait, 256.
    pub scans_max: usize,
    /// Memory redb may keep pages in, 64 MiB.
    pub cache_bytes: usize,
}

impl Default for DurableOptions {
    fn default() -> Self {
        Self {
            queue_max: 4_096,
            queue_bytes_max: 64 << 20,
            batch_max: 512,
            batch_bytes_max: 8 << 20,
            scans_max: 256,
            cache_bytes: 64 << 20,
        }
    }
}

/// Values, configuration and results on disk; see the [module](self). Clones share the store; the
/// last one dropped waits until what is queued is answered, then closes the file.
///
/// ```no_run
/// use cabinet_rooms::services::durable::{DurableOptions, DurableStore};
///
/// let store = DurableStore::open("/var/lib/cabinet/store", &DurableOptions::default())?;
/// let services = store.services(); // for rooms
/// println!("{:?}", store.stats());
/// # Ok::<(), cabinet_rooms::services::durable::OpenError>(())
/// ```
#[derive(Clone)]
pub struct DurableStore {
    inner: Arc<Inner>,
}

/// How a [`DurableStore`] is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurableStats {
    /// Transactions committed since it was opened.
    pub commits: u64,
    /// Writes in them.
    pub writes: u64,
    /// Why the store refuses everything, if it does.
    pub failed: Option<String>,
}

struct Inner {
    /// `None` only while the store is being dropped.
    writes: Option<SyncSender<Write>>,
    scans: Option<SyncSender<Scan>>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
    queue_bytes_max: usize,
}

/// What the threads and the handles share.
struct Shared {
    files: Files,
    queued_bytes: AtomicUsize,
    commits: AtomicU64,
    writes: AtomicU64,
    /// Why the store refuses everything.
    failed: OnceLock<String>,
}

impl DurableStore {
    /// Opens the store kept in a directory, which is made when there is none. The directory is the
    /// store's own.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed then, and no thread is left.
    pub fn open(directory: impl AsRef<Path>, options: &DurableOptions) -> Result<Self, OpenError> {
        let files = open::open(directory.as_ref(), options.cache_bytes)?;
        Self::start(files, options).map_err(|source| OpenError::Io {
            path: directory.as_ref().to_owned(),
            source,
        })
    }

    fn start(files: Files, options: &DurableOptions) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            files,
            queued_bytes: AtomicUsize::new(0),
            commits: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            failed: OnceLock::new(),
        });
        let (writes, write_queue) = sync_channel(options.queue_max.max(1));
        let (scans, scan_queue) = sync_channel(options.scans_max.max(1));
        let mut inner = Inner {
            writes: Some(writes),
            scans: Some(scans),
            threads: Vec::new(),
            shared: Arc::clone(&shared),
            queue_bytes_max: options.queue_bytes_max,
        };
        let batch = writes::BatchLimits {
            writes_max: options.batch_max.max(1),
            bytes_max: options.batch_bytes_max,
        };
        let writer = {
            let shared = Arc::clone(&shared);
            move || writes::run(&shared, &write_queue, batch)
        };
        let scanner = move || scans::run(&shared, &scan_queue);
        // On an error `inner` is dropped, which ends and joins what was started.
        inner.threads.push(spawn("cabinet-store-write", writer)?);
        inner.threads.push(spawn("cabinet-store-scan", scanner)?);
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Every service this store can be, for a room.
    #[must_use]
    pub fn services(&self) -> ServiceSet {
        ServiceSet {
            kv: Some(Arc::new(self.clone())),
            config: Some(Arc::new(self.clone())),
            leaderboard: Some(Arc::new(self.clone())),
            ..ServiceSet::default()
        }
    }

    /// How the store is doing.
    #[must_use]
    pub fn stats(&self) -> DurableStats {
        let shared = &self.inner.shared;
        DurableStats {
            commits: shared.commits.load(Ordering::Relaxed),
            writes: shared.writes.load(Ordering::Relaxed),
            failed: shared.failed.get().cloned(),
        }
    }

    /// Queues a write, or says at once that it cannot be.
    fn write(&self, check: Result<(), LimitError>, op: impl FnOnce() -> Op, answer: Answer) {
        if let Err(error) = check {
            return answer.send(Err(error.into()));
        }
        let inner = &*self.inner;
        if let Err(error) = inner.shared.usable() {
            return answer.send(Err(error));
        }
        let op = op();
        let bytes = op.bytes();
        let before = inner
            .shared
            .queued_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        let refused = if before > 0 && before.saturating_add(bytes) > inner.queue_bytes_max {
            Some((Write { op, answer }, "too many bytes wait to be written"))
        } else {
            try_send(inner.writes.as_ref(), Write { op, answer })
        };
        if let Some((write, why)) = refused {
            inner
                .shared
                .queued_bytes
                .fetch_sub(bytes, Ordering::Relaxed);
            write.answer.send(Err(unavailable(why)));
        }
    }

    fn scan(&self, scan: Scan) {
        if let Some((scan, why)) = try_send(self.inner.scans.as_ref(), scan) {
            scan.refuse(unavailable(why));
        }
    }

    /// A value of one of the two tables that are read inside the call.
    fn value(
        &self,
        table: format::Table,
        key: &[u8],
    ) -> Result<Option<redb::AccessGuard<'static, &'static [u8]>>, ServiceError> {
        self.inner.shared.usable()?;
        let read = || -> Result<_, redb::Error> {
            let transaction = self.inner.shared.files.database.begin_read()?;
            Ok(transaction.open_table(table)?.get(key)?)
        };
        read().map_err(|error| failed_read(&error))
    }
}

/// Hands the message back, with the reason, when it cannot be queued.
fn try_send<T>(queue: Option<&SyncSender<T>>, message: T) -> Option<(T, &'static str)> {
    let Some(queue) = queue else {
        return Some((message, "the store is closing"));
    };
    match queue.try_send(message) {
        Ok(()) => None,
        Err(TrySendError::Full(message)) => Some((message, "too many requests wait")),
        Err(TrySendError::Disconnected(message)) => Some((message, "the store's thread ended")),
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.into()).spawn(run)
}

fn unavailable(why: &str) -> ServiceError {
    ServiceError::Unavailable(why.into())
}

fn failed_read(error: &redb::Error) -> ServiceError {
    ServiceError::Unavailable(format!("reading failed: {error}"))
}

impl Shared {
    /// From now on the store refuses everything.
    fn fail(&self, why: String) {
        tracing::error!(why, "the durable store failed; it has to be opened anew");
        // The first reason stays.
        let _ = self.failed.set(why);
    }

    fn usable(&self) -> Result<(), ServiceError> {
        self.failed.get().map_or(Ok(()), |why| {
            Err(ServiceError::Unavailable(format!(
                "the store failed earlier: {why}"
            )))
        })
    }
}

impl Drop for Inner {
    /// Ends the threads after they answered what is queued. A thread that drops the store itself, in
    /// a reply, is not waited for: it ends right after.
    fn drop(&mut self) {
        self.writes = None;
        self.scans = None;
        for thread in self.threads.drain(..) {
            if thread.thread().id() != thread::current().id() {
                // The threads catch panics; one that got through has answered by unwinding.
                let _ = thread.join();
            }
        }
    }
}

impl std::fmt::Debug for DurableStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DurableStore")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl KvStore for DurableStore {
    fn get(&self, at: KvAddress<'_>, reply: Reply<Option<Vec<u8>>>) {
        let find = || {
            limits::check_address(at)?;
            let Some(record) = self.value(KV, &format::kv_key(at))? else {
                return Ok(None);
            };
            let (_, value) = format::read_value(record.value())
                .ok_or_else(|| unavailable("the value's record is damaged"))?;
            Ok(Some(value.to_vec()))
        };
        reply.send(find());
    }

    fn set(&self, at: KvAddress<'_>, value: &[u8], rule: Option<MergeRule>, reply: Reply<()>) {
        let check = limits::check_address(at).and_then(|()| limits::check_value(value));
        let op = || Op::Set {
            key: format::kv_key(at),
            value: value.to_vec(),
            rule,
        };
        self.write(check, op, Answer::Done(reply));
    }

    fn delete(&self, at: KvAddress<'_>, reply: Reply<()>) {
        let op = || Op::Delete {
            key: format::kv_key(at),
        };
        self.write(limits::check_address(at), op, Answer::Done(reply));
    }
}

impl ConfigStore for DurableStore {
    fn get(&self, slug: &str, key: &[u8], reply: Reply<Option<Vec<u8>>>) {
        let find = || {
            limits::check_slug(slug)?;
            limits::check_key(key)?;
            let value = self.value(CONFIG, &format::config_key(slug, key))?;
            Ok(value.map(|value| value.value().to_vec()))
        };
        reply.send(find());
    }
}

impl Leaderboard for DurableStore {
    fn post(&self, post: &Post, reply: Reply<Posted>) {
        let op = || Op::post(post);
        self.write(limits::check_post(post), op, Answer::Posted(reply));
    }
}

impl StoreAdmin for DurableStore {
    fn set_config(&self, slug: &str, key: &[u8], value: Option<&[u8]>, reply: Reply<()>) {
        let check = limits::check_slug(slug)
            .and_then(|()| limits::check_key(key))
            .and_then(|()| limits::check_value(value.unwrap_or_default()));
        let op = || Op::Config {
            key: format::config_key(slug, key),
            value: value.map(<[u8]>::to_vec),
        };
        self.write(check, op, Answer::Done(reply));
    }

    fn merge(&self, slug: &str, winner: &str, loser: &str, reply: Reply<()>) {
        let check = limits::check_slug(slug)
            .and_then(|()| limits::check_account(winner))
            .and_then(|()| limits::check_account(loser));
        if check.is_ok() && super::rules::merges_nothing(winner, loser) {
            return reply.send(Ok(()));
        }
        let op = || Op::Merge {
            winner: format::account_prefix(slug, winner),
            loser: format::account_prefix(slug, loser),
        };
        self.write(check, op, Answer::Done(reply));
    }

    fn int_values(&self, slug: &str, key: &[u8], reply: Reply<BTreeMap<String, i64>>) {
        if let Err(error) = limits::check_slug(slug).and_then(|()| limits::check_key(key)) {
            return reply.send(Err(error.into()));
        }
        self.scan(Scan::Integers {
            slug: slug.into(),
            key: key.into(),
            reply,
        });
    }

    fn results(&self, slug: &str, since: Option<i64>, limit: usize, reply: Reply<Vec<Recorded>>) {
        if let Err(error) = limits::check_slug(slug) {
            return reply.send(Err(error.into()));
        }
        self.scan(Scan::Results {
            slug: slug.into(),
            since,
            limit,
            reply,
        });
    }
}

impl BoardSource for DurableStore {
    fn scores(&self, slug: &str, since: Option<i64>, spec: &BoardSpec, reply: Reply<Vec<Score>>) {
        if let Err(error) = limits::check_slug(slug) {
            return reply.send(Err(error.into()));
        }
        self.scan(Scan::Scores {
            slug: slug.into(),
            since,
            spec: spec.clone(),
            reply,
        });
    }
}
