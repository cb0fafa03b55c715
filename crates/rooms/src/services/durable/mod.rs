//! Stores on disk: values, configuration and results in one [redb] file.
//!
//! What is promised
//! - A write is answered `Ok` after the transaction that holds it was committed and synced. Such a
//!   write survives the death of the process and of the machine, as far as the disk keeps what it
//!   said it synced. A write that is not answered, or answered with an error, may be there or not,
//!   whole.
//! - Writes happen in the order they were asked. Writers wait for the disk together: what queued up
//!   while one transaction was synced goes into the next.
//! - Past a bounded queue a request is answered `Unavailable` at once. Nothing asked is left without
//!   an answer. Posts may take half of the writes' queue, so that a flood of them keeps no guest from
//!   its values.
//! - After the file system failed, or redb found the file damaged, the store refuses everything:
//!   nobody can tell any more what is on the disk. [`DurableStore::stats`] says so and why. When the
//!   cause is gone (the disk has room again), [`DurableStore::reopen`] puts what the disk holds in
//!   place of what failed, for every clone; rooms go on.
//!
//! Threads: one writes, one scans (boards, integer values, results), [`DurableOptions::readers`] get
//! values and configuration. Nothing touches the file on the thread that asks, so a disk that hangs
//! stops no room but those that wait for it. A read sees every write answered before it was asked and
//! does not wait for a commit that is under way. The file is not mapped, so a failing disk is an
//! error and not a signal.
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
mod look;
mod open;
mod reads;
mod scans;
#[cfg(test)]
mod tests;
mod waiting;
mod writes;

use std::collections::BTreeMap;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::{self, JoinHandle};

use redb::Database;

pub use self::look::look_config;
use self::open::Files;
use self::reads::Read;
use self::scans::Scan;
use self::waiting::{Load, Waiting};
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
    /// Writes that may wait, 4,096; past it they are answered `Unavailable`. At most half of them
    /// may be posts.
    pub queue_max: usize,
    /// Bytes of keys and values that may wait, 64 MiB; posts may take half. One write is always
    /// taken.
    pub queue_bytes_max: usize,
    /// Writes that go into one transaction, 512.
    pub batch_max: usize,
    /// Bytes of keys and values that go into one transaction, 8 MiB, but for the last write.
    pub batch_bytes_max: usize,
    /// Scans that may wait, 256.
    pub scans_max: usize,
    /// Threads that get values and configuration, 4.
    pub readers: usize,
    /// Such reads that may wait, 4,096; past it they are answered `Unavailable`.
    pub reads_max: usize,
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
            readers: 4,
            reads_max: 4_096,
            cache_bytes: 64 << 20,
        }
    }
}

/// Values, configuration and results on disk; see the [module](self). Clones share the store.
///
/// Dropping the last clone waits until what is queued is answered and the file is closed: as long as
/// the disk takes. Rooms hold clones, and the last one may go with a room, on a thread that runs
/// others: keep one where waiting is fine and [`DurableStore::close`] it, or drop it last.
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
    /// Transactions committed since [`DurableStore::open`].
    pub commits: u64,
    /// Writes in them.
    pub writes: u64,
    /// Why the store refuses everything, if it does; see [`DurableStore::reopen`].
    pub failed: Option<String>,
}

struct Inner {
    /// `None` once the store is closed.
    queues: RwLock<Option<Queues>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    shared: Arc<Shared>,
    queue_max: Load,
}

struct Queues {
    writes: SyncSender<Write>,
    scans: SyncSender<Scan>,
    reads: SyncSender<Read>,
}

/// What the threads and the handles share. Only the store's own threads, and whoever reopens, lock
/// `files`: it stays locked as long as the disk takes. The others are locked for a moment.
struct Shared {
    files: RwLock<Files>,
    waiting: Mutex<Waiting>,
    commits: AtomicU64,
    writes: AtomicU64,
    /// Why the store refuses everything. Changes only under a lock of `files`, so that what happened
    /// to one database is never said of the next.
    failed: Mutex<Option<String>>,
}

/// Every thread of the store holds it; the last one to end closes the files.
struct Keeper(Arc<Shared>);

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
            files: RwLock::new(files),
            waiting: Mutex::default(),
            commits: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            failed: Mutex::default(),
        });
        let queue_max = Load {
            writes: options.queue_max.max(1),
            bytes: options.queue_bytes_max,
        };
        // `waiting` keeps this one from ever being full.
        let (writes, write_queue) = sync_channel(queue_max.writes);
        let (scans, scan_queue) = sync_channel(options.scans_max.max(1));
        let (reads, read_queue) = sync_channel(options.reads_max.max(1));
        // On an error it is dropped, which ends and joins what was started.
        let inner = Inner {
            queues: RwLock::new(Some(Queues {
                writes,
                scans,
                reads,
            })),
            threads: Mutex::default(),
            shared: Arc::clone(&shared),
            queue_max,
        };
        let batch = writes::BatchLimits {
            writes_max: options.batch_max.max(1),
            bytes_max: options.batch_bytes_max,
        };
        let keeper = Arc::new(Keeper(shared));
        let start = |name: &str, run: Box<dyn FnOnce(&Shared) + Send>| {
            let keeper = Arc::clone(&keeper);
            let thread = thread::Builder::new().name(name.into());
            let thread = thread.spawn(move || run(&keeper.0))?;
            locked(&inner.threads).push(thread);
            std::io::Result::Ok(())
        };
        start(
            "cabinet-store-write",
            Box::new(move |shared| writes::run(shared, &write_queue, batch)),
        )?;
        start(
            "cabinet-store-scan",
            Box::new(move |shared| scans::run(shared, &scan_queue)),
        )?;
        let read_queue = Arc::new(Mutex::new(read_queue));
        for _ in 0..options.readers.max(1) {
            let queue = Arc::clone(&read_queue);
            start(
                "cabinet-store-read",
                Box::new(move |shared| reads::run(shared, &queue)),
            )?;
        }
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Opens the file anew when the store failed, for every clone: what was answered `Ok` is there.
    /// Does nothing when the store did not fail.
    ///
    /// Blocks until what is under way has come back from the disk, and then for as long as opening
    /// takes. Never call it on a thread that runs rooms, nor in a reply.
    ///
    /// # Errors
    /// [`OpenError`], [`OpenError::Closed`] included; the store goes on refusing everything and may
    /// be reopened later.
    pub fn reopen(&self) -> Result<(), OpenError> {
        let shared = &self.inner.shared;
        {
            let mut files = shared.files.write().unwrap_or_else(PoisonError::into_inner);
            if files.opener.is_none() {
                return Err(OpenError::Closed);
            }
            if locked(&shared.failed).is_none() {
                return Ok(());
            }
            files.reopen()?;
            *locked(&shared.failed) = None;
        }
        tracing::info!("the durable store was reopened");
        Ok(())
    }

    /// Closes the store, for every clone: answers what is queued, ends the threads, closes the file
    /// and gives the directory back. Blocks until then, as long as the disk takes; whoever drops the
    /// last clone later waits for nothing. Every request from now on is answered `Unavailable`.
    ///
    /// Another call meanwhile, or one in a reply, does not wait.
    pub fn close(&self) {
        self.inner.close();
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
            failed: locked(&shared.failed).clone(),
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
        let weight = op.weight();
        let write = Write { op, answer };
        // Before it is queued: the writer takes its place away as soon as it is.
        let entered = locked(&inner.shared.waiting).enters(weight, inner.queue_max);
        let refused = match entered {
            Err(why) => Some((write, why)),
            Ok(()) => {
                let refused = inner.queue(|queues| &queues.writes, write);
                if refused.is_some() {
                    locked(&inner.shared.waiting).leaves(weight);
                }
                refused
            }
        };
        if let Some((write, why)) = refused {
            write.answer.send(Err(unavailable(why)));
        }
    }

    fn scan(&self, scan: Scan) {
        if let Err(error) = self.inner.shared.usable() {
            return scan.refuse(error);
        }
        if let Some((scan, why)) = self.inner.queue(|queues| &queues.scans, scan) {
            scan.refuse(unavailable(why));
        }
    }

    fn read(
        &self,
        check: Result<(), LimitError>,
        kind: reads::Kind,
        key: impl FnOnce() -> Vec<u8>,
        reply: Reply<Option<Vec<u8>>>,
    ) {
        if let Err(error) = check {
            return reply.send(Err(error.into()));
        }
        if let Err(error) = self.inner.shared.usable() {
            return reply.send(Err(error));
        }
        let key = key();
        let read = Read { kind, key, reply };
        if let Some((read, why)) = self.inner.queue(|queues| &queues.reads, read) {
            read.reply.send(Err(unavailable(why)));
        }
    }
}

impl Inner {
    /// Hands the message back, with the reason, when it cannot be queued.
    fn queue<T>(
        &self,
        of: impl FnOnce(&Queues) -> &SyncSender<T>,
        message: T,
    ) -> Option<(T, &'static str)> {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        let Some(queues) = &*queues else {
            return Some((message, CLOSED));
        };
        match of(queues).try_send(message) {
            Ok(()) => None,
            Err(TrySendError::Full(message)) => Some((message, "too many requests wait")),
            Err(TrySendError::Disconnected(message)) => Some((message, "the store's thread ended")),
        }
    }

    /// Ends the threads after they answered what is queued. A thread that closes the store itself, in
    /// a reply, is not waited for: it ends right after.
    fn close(&self) {
        let queues = self
            .queues
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(queues);
        let threads = mem::take(&mut *locked(&self.threads));
        for thread in threads {
            if thread.thread().id() != thread::current().id() {
                // The threads catch panics; one that got through has answered by unwinding.
                let _ = thread.join();
            }
        }
    }
}

const CLOSED: &str = "the store is closed";

fn unavailable(why: &str) -> ServiceError {
    ServiceError::Unavailable(why.into())
}

/// Nothing is left half done under these locks, so a panic of another thread means nothing.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why work on the database ended early.
enum Broken {
    /// The disk or redb failed.
    Storage(redb::Error),
    /// A record is not what `format` says. Others may be whole.
    Record,
}

impl<E: Into<redb::Error>> From<E> for Broken {
    fn from(error: E) -> Self {
        Self::Storage(error.into())
    }
}

impl Shared {
    /// Works with the database on a thread of the store. Where the disk or redb fails, or panics,
    /// which redb does over damage and which may have come between two halves of a change to its
    /// memory, the store refuses everything from then on.
    fn work<T>(
        &self,
        what: &str,
        work: impl FnOnce(&Database) -> Result<T, Broken>,
    ) -> Result<T, ServiceError> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        self.usable()?;
        let database = files.database.as_ref().ok_or_else(|| unavailable(CLOSED))?;
        let why = match panic::catch_unwind(AssertUnwindSafe(|| work(database))) {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(Broken::Record)) => return Err(unavailable("a record is damaged")),
            Ok(Err(Broken::Storage(error))) => format!("{what} failed: {error}"),
            Err(_) => format!("{what} panicked"),
        };
        // The first reason stays.
        locked(&self.failed).get_or_insert_with(|| why.clone());
        drop(files);
        tracing::error!(why, "the durable store failed; it has to be reopened");
        Err(ServiceError::Unavailable(format!(
            "{why}; the store has to be reopened"
        )))
    }

    fn usable(&self) -> Result<(), ServiceError> {
        locked(&self.failed).as_ref().map_or(Ok(()), |why| {
            Err(ServiceError::Unavailable(format!(
                "the store failed earlier: {why}; reopen it"
            )))
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let files = &self.0.files;
        let mut files = files.write().unwrap_or_else(PoisonError::into_inner);
        files.close();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
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
        let key = || format::kv_key(at);
        self.read(limits::check_address(at), reads::Kind::Values, key, reply);
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
        let check = limits::check_slug(slug).and_then(|()| limits::check_key(key));
        let at = || format::config_key(slug, key);
        self.read(check, reads::Kind::Config, at, reply);
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
