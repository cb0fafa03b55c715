//! The durable log: an append-only log in segments, with the vote, the snapshot and the node's name
//! beside it.
//!
//! Records that were not purged are also in memory, so that reading never waits for the disk; the
//! disk is for the next process. One writer does what was queued, in order, on a thread of its own
//! or, in a simulation, as a task: [`Driver`].
//!
//! Invariants
//! - what was acknowledged is found again after a crash at any point, and nothing that was not
//!   appended;
//! - one sync for all appends that wait together;
//! - a sync that failed is never tried again: the store is poisoned, and the node must be restarted;
//! - what was stored and has changed is refused at the next opening, except in the batch that was
//!   written last, which cannot be told from one that a crash tore (`recover`).
//!
//! Whoever purges has a snapshot that goes at least as far: the store does not compare them.
//!
//! ```
//! # use std::sync::Arc;
//! # use bytes::Bytes;
//! # use cabinet_consensus::log::{DurableLog, LogStore, durable::{Driver, DurableOptions, FileDisk}};
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path();
//! let disk = Arc::new(FileDisk::new(path));
//! let log = DurableLog::open(disk.clone(), DurableOptions::default(), Driver::Thread).await?;
//! log.save_vote(Bytes::from_static(b"term 1, for ann")).await?;
//! log.close().await?;
//!
//! let log = DurableLog::open(disk, DurableOptions::default(), Driver::Thread).await?;
//! assert_eq!(log.state()?.vote.as_deref(), Some(&b"term 1, for ann"[..]));
//! # log.close().await?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

pub mod disk;
mod entries;
mod files;
mod format;
mod recover;
#[doc(hidden)]
pub mod sim_disk;
mod writer;

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use tokio::sync::{mpsc, oneshot};

use super::{
    AppendDone, IDENTITY_BYTES_MAX, LogError, LogState, LogStats, LogStore, Position, Record,
    StoredSnapshot,
};
use entries::Entries;
use writer::{Job, Reply};

pub use disk::{Disk, FileDisk};

/// Largest vote, in bytes.
pub const VOTE_BYTES_MAX: usize = 4 << 10;

/// Largest list of members in a snapshot, in bytes: more than all that can be members take.
pub const MEMBERSHIP_BYTES_MAX: usize = 256 << 10;

/// Smallest segment, in bytes: below it nearly every batch would begin a new file.
pub const SEGMENT_BYTES_MIN: u64 = 128;

/// Largest segment, in bytes: each is read whole when the log is opened.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Largest snapshot a log can be told to take, in bytes.
pub const SNAPSHOT_BYTES_MAX: usize = 1 << 30;

/// What a durable log may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurableOptions {
    /// A segment that has this many bytes is followed by a new one: [`SEGMENT_BYTES_MIN`] to
    /// [`SEGMENT_BYTES_MAX`].
    pub segment_bytes: u64,
    /// Largest state in a snapshot, in bytes: 1 to [`SNAPSHOT_BYTES_MAX`]. At least
    /// `Limits::snapshot_bytes_max`: a session does not open on a log that takes less than its node.
    pub snapshot_bytes_max: usize,
}

impl Default for DurableOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            snapshot_bytes_max: 64 << 20,
        }
    }
}

impl DurableOptions {
    fn validate(&self) -> Result<(), LogError> {
        let fits = |what, value, min, max| {
            if value < min || value > max {
                return Err(LogError::OutOfRange {
                    what,
                    value,
                    min,
                    max,
                });
            }
            Ok(())
        };
        let (min, max) = (SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        fits("segment_bytes", self.segment_bytes, min, max)?;
        let (value, max) = (self.snapshot_bytes_max as u64, SNAPSHOT_BYTES_MAX as u64);
        fits("snapshot_bytes_max", value, 1, max)
    }
}

/// Where the writer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// On a thread of its own: for disks that block.
    Thread,
    /// As a task of the runtime that opens the log: for disks that do not block, as in a
    /// simulation.
    Task,
}

/// Everything the log knows without its disk.
struct Memory {
    entries: Entries,
    vote: Option<Bytes>,
    snapshot: Option<StoredSnapshot>,
    identity: Option<Bytes>,
    stats: LogStats,
    closed: bool,
    poisoned: bool,
}

impl Memory {
    fn alive(&self) -> Result<(), LogError> {
        if self.closed {
            Err(LogError::Closed)
        } else if self.poisoned {
            Err(LogError::Poisoned)
        } else {
            Ok(())
        }
    }
}

struct Shared {
    memory: Mutex<Memory>,
    options: DurableOptions,
}

impl Shared {
    fn new(memory: Memory, options: DurableOptions) -> Self {
        Self {
            memory: Mutex::new(memory),
            options,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Runner {
    Thread(thread::JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

/// A [`LogStore`] on a [`Disk`]. Dropped without [`LogStore::close`], its writer does what is queued
/// and ends by itself, some time later.
pub struct DurableLog {
    shared: Arc<Shared>,
    jobs: mpsc::UnboundedSender<Job>,
    runner: Mutex<Option<Runner>>,
}

impl DurableLog {
    /// Opens the log in a directory, or makes one there.
    ///
    /// # Errors
    ///
    /// [`LogError::OutOfRange`] when an option cannot be; [`LogError::InUse`] when somebody has it
    /// open; [`LogError::Corrupt`] and [`LogError::Version`] when it is not what this program wrote; [`LogError::TooLarge`] when the
    /// snapshot there is larger than the options allow; [`LogError::Io`].
    pub async fn open(
        disk: Arc<dyn Disk>,
        options: DurableOptions,
        driver: Driver,
    ) -> Result<Self, LogError> {
        options.validate()?;
        let (jobs, queue) = mpsc::unbounded_channel();
        let (opened, opening) = oneshot::channel();
        let work = async move {
            match recover::recover(disk, options).await {
                Ok(writer) => {
                    if opened.send(Ok(writer.shared.clone())).is_ok() {
                        writer.run(queue).await;
                    }
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                }
            }
        };
        let runner = match driver {
            Driver::Thread => thread::Builder::new()
                .name("cabinet-log".to_owned())
                .spawn(|| block_on(work))
                .map(Runner::Thread)
                .map_err(|error| files::failed("starting", "the log's thread", &error))?,
            Driver::Task => Runner::Task(tokio::spawn(work)),
        };
        match opening.await {
            Ok(Ok(shared)) => Ok(Self {
                shared,
                jobs,
                runner: Mutex::new(Some(runner)),
            }),
            Ok(Err(error)) => {
                join(runner).await;
                Err(error)
            }
            // The writer is gone without an answer: its runtime is shutting down.
            Err(_) => Err(LogError::Closed),
        }
    }

    /// Changes memory and queues a job in one step, so that both have the same order.
    fn ask<T>(
        &self,
        change: impl FnOnce(&mut Memory) -> Result<T, LogError>,
        job: impl FnOnce(T, Reply) -> Job,
    ) -> BoxFuture<'static, Result<(), LogError>> {
        let (reply, answer) = oneshot::channel();
        let mut memory = self.shared.lock();
        let asked = memory
            .alive()
            .and_then(|()| change(&mut memory))
            .and_then(|what| self.send(job(what, reply)));
        drop(memory);
        match asked {
            Ok(()) => async { answer.await.unwrap_or(Err(LogError::Poisoned)) }.boxed(),
            Err(error) => future::ready(Err(error)).boxed(),
        }
    }

    fn send(&self, job: Job) -> Result<(), LogError> {
        // A writer that is gone without being closed died of a panic in somebody's `done`.
        self.jobs.send(job).map_err(|_| LogError::Poisoned)
    }
}

impl LogStore for DurableLog {
    fn state(&self) -> Result<LogState, LogError> {
        let memory = self.shared.lock();
        memory.alive()?;
        Ok(LogState {
            identity: memory.identity.clone(),
            vote: memory.vote.clone(),
            first: memory.entries.first(),
            purged: memory.entries.purged(),
            last: memory.entries.last(),
        })
    }

    fn read(&self, from: u64, to: u64) -> Result<Vec<Record>, LogError> {
        let memory = self.shared.lock();
        if memory.closed {
            return Err(LogError::Closed);
        }
        memory.entries.read(from, to)
    }

    fn append(&self, records: Vec<Record>, done: AppendDone) -> Result<(), LogError> {
        let mut memory = self.shared.lock();
        memory.alive()?;
        memory.entries.admit(&records)?;
        memory.entries.append(&records);
        memory.stats.records += records.len() as u64;
        memory.stats.bytes += records.iter().map(|r| r.body.len() as u64).sum::<u64>();
        let sent = self.send(Job::Append(records, done));
        memory.poisoned |= sent.is_err();
        sent
    }

    fn truncate_after(&self, last: Option<u64>) -> BoxFuture<'static, Result<(), LogError>> {
        self.ask(
            |memory| {
                let next = memory.entries.truncate_after(last);
                Ok((next, memory.entries.last()))
            },
            |(next, last), reply| Job::Truncate { next, last, reply },
        )
    }

    fn purge(&self, through: Position) -> BoxFuture<'static, Result<(), LogError>> {
        let news = {
            let mut memory = self.shared.lock();
            memory
                .alive()
                .and_then(|()| memory.entries.purge(through))
                .and_then(|news| {
                    let (reply, answer) = oneshot::channel();
                    if news {
                        self.send(Job::Purge(through, reply))?;
                    }
                    Ok(news.then_some(answer))
                })
        };
        match news {
            Ok(Some(answer)) => async { answer.await.unwrap_or(Err(LogError::Poisoned)) }.boxed(),
            Ok(None) => future::ready(Ok(())).boxed(),
            Err(error) => future::ready(Err(error)).boxed(),
        }
    }

    fn save_identity(&self, identity: Bytes) -> BoxFuture<'static, Result<(), LogError>> {
        let what = "a note of whose log it is";
        self.ask(
            |_| within(what, identity.len(), IDENTITY_BYTES_MAX).map(|()| identity),
            Job::Identity,
        )
    }

    fn save_vote(&self, vote: Bytes) -> BoxFuture<'static, Result<(), LogError>> {
        self.ask(
            |_| within("a vote", vote.len(), VOTE_BYTES_MAX).map(|()| vote),
            Job::Vote,
        )
    }

    fn save_snapshot(&self, snapshot: StoredSnapshot) -> BoxFuture<'static, Result<(), LogError>> {
        let max = self.shared.options.snapshot_bytes_max;
        self.ask(
            |_| {
                within(
                    "a list of members",
                    snapshot.membership.len(),
                    MEMBERSHIP_BYTES_MAX,
                )?;
                within("a snapshot", snapshot.state.len(), max)?;
                Ok(snapshot)
            },
            Job::Snapshot,
        )
    }

    fn snapshot_bytes_max(&self) -> Option<usize> {
        Some(self.shared.options.snapshot_bytes_max)
    }

    fn load_snapshot(&self) -> BoxFuture<'static, Result<Option<StoredSnapshot>, LogError>> {
        let memory = self.shared.lock();
        let result = if memory.closed {
            Err(LogError::Closed)
        } else {
            Ok(memory.snapshot.clone())
        };
        future::ready(result).boxed()
    }

    fn stats(&self) -> LogStats {
        self.shared.lock().stats
    }

    fn close(&self) -> BoxFuture<'static, Result<(), LogError>> {
        let (reply, answer) = oneshot::channel();
        {
            let mut memory = self.shared.lock();
            if memory.closed {
                return future::ready(Ok(())).boxed();
            }
            memory.closed = true;
            // A writer that is gone has nothing left to write.
            let _ = self.send(Job::Close(reply));
        }
        let runner = self
            .runner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        async move {
            let result = answer.await.unwrap_or(Err(LogError::Poisoned));
            if let Some(runner) = runner {
                join(runner).await;
            }
            result
        }
        .boxed()
    }
}

fn within(what: &'static str, len: usize, max: usize) -> Result<(), LogError> {
    if len > max {
        return Err(LogError::TooLarge { what, len, max });
    }
    Ok(())
}

/// Waits for a writer that has said its last word, or died.
async fn join(runner: Runner) {
    // A panic of a callback was reported where it happened; what it left undone is poisoned.
    match runner {
        Runner::Thread(thread) => drop(thread.join()),
        Runner::Task(task) => drop(task.await),
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread, which sleeps while there is nothing to do.
fn block_on(work: impl Future<Output = ()>) {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut work = pin!(work);
    while work.as_mut().poll(&mut context).is_pending() {
        thread::park();
    }
}
