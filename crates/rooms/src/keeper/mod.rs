//! Rooms that outlive their process: where `host`'s rooms meet `durability`'s vault.
//!
//! A [`Keeper`] watches over the rooms it opened, resumed or reclaimed. It takes each in the store,
//! checkpoints it on its cadence, parks it when it hibernates, and forgets it when it is over. A
//! room pauses for a copy of its memory and no more: compressing, sealing and writing happen on
//! the executor's threads, a bounded number at a time.
//!
//! A keeper needs a tokio runtime with time, whose handle it is given.
//!
//! It sweeps nothing and warms nothing by itself. A store may be many processes', and a sweep
//! ([`Vault::sweep`]) is one's for all of them: run it once a day, or parked rooms never expire.
//! Memory for captures can be made before the first room needs it ([`Runtime::warm_captures`]).
//!
//! What a room that another process has taken does: its next checkpoint fails as fenced, and the
//! room is dropped here ([`EndReason::Moved`](crate::EndReason::Moved)).

mod drain;
mod kept;
mod reclaim;
mod reference;
mod residents;
mod resume;
mod state;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cabinet_durability::cadence::{CadenceRules, Pace, TokioPace};
use cabinet_durability::{Lease, Retention, RoomId, Vault, VaultError};
use cabinet_host::ServiceError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use drain::{DrainReport, Drained};
pub use reclaim::{Reclaimed, ReclaimedRoom};
pub use reference::{ReferenceState, ReferenceStateError, state_of_reference};
pub use residents::{Resident, ResidentRoom};
pub use resume::{PlayersRooms, ResumeError};
pub(crate) use state::encode as encode_state;
pub use state::{RoomState, StateError};

use crate::captures::Captured;
use crate::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use crate::registry::{GameSlug, Listed};
use crate::reply::Reply;
use crate::room::{CheckpointError, RoomHandle};
use crate::runtime::{OpenError, Parking, RoomSpec, Runtime};
use kept::Kept;

/// Keeps rooms in a vault. Cheap to clone; dropping the last clone stops checkpointing, and leaves
/// the rooms as they are.
#[derive(Clone)]
pub struct Keeper {
    inner: Arc<Inner>,
}

/// How a keeper works. [`KeeperOptions::new`] has the defaults.
#[derive(Clone)]
#[non_exhaustive]
pub struct KeeperOptions {
    /// Where rooms are kept.
    pub vault: Vault,
    /// Runs the keeper's tasks; with time enabled.
    pub executor: tokio::runtime::Handle,
    /// How often rooms are checkpointed where their game has no rules of its own.
    pub cadence: CadenceRules,
    /// Rules of games, by slug.
    pub cadence_of: HashMap<GameSlug, CadenceRules>,
    /// Which old checkpoints are kept.
    pub retention: Retention,
    /// Checkpoints after which old ones are deleted, at the cost of two requests. Default 16.
    pub prune_every: u32,
    /// Captures that may be compressed, sealed and written at once; each holds a room's memory
    /// twice. Default 8.
    pub in_flight_max: usize,
    /// Time, for what is stored; give the runtime's.
    pub clock: Arc<dyn Clock>,
    /// How tasks sleep.
    pub pace: Arc<dyn Pace>,
    /// Randomness for the cadence's jitter.
    pub entropy: Arc<dyn Entropy>,
}

impl KeeperOptions {
    /// The defaults, on this vault and executor.
    #[must_use]
    pub fn new(vault: Vault, executor: tokio::runtime::Handle) -> Self {
        Self {
            vault,
            pace: {
                let _within = executor.enter();
                Arc::new(TokioPace::new())
            },
            executor,
            cadence: CadenceRules::default(),
            cadence_of: HashMap::new(),
            retention: Retention::default(),
            prune_every: 16,
            in_flight_max: 8,
            clock: Arc::new(SystemClock::new()),
            entropy: Arc::new(SystemEntropy),
        }
    }
}

/// What a keeper has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct KeeperStats {
    /// Rooms it watches over.
    pub rooms: usize,
    /// Of them, those that are not taken in the store yet: it is down, or slow.
    pub unclaimed: usize,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Bytes of them, as stored.
    pub checkpoint_bytes: u64,
    /// Attempts that failed, and are made again.
    pub failed: u64,
    /// Rooms parked.
    pub parked: u64,
    /// Rooms that another process took.
    pub fenced: u64,
}

pub(crate) struct Inner {
    pub(crate) options: KeeperOptions,
    pub(crate) in_flight: Arc<Semaphore>,
    /// Captures that wait to be parked, each of a room's memory.
    parking: Arc<Semaphore>,
    /// Rooms on their way into [`Self::rooms`].
    transit: Mutex<HashSet<RoomId>>,
    rooms: Mutex<HashMap<RoomId, Arc<Kept>>>,
    pub(crate) counts: Counts,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) checkpoints: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) parked: AtomicU64,
    pub(crate) fenced: AtomicU64,
}

/// A room was not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// It is over, or was never this keeper's.
    #[error("the room is not kept here")]
    NotKept,
    /// It is not taken in the store yet; the keeper tries again.
    #[error("the room is not taken in the store yet")]
    NotTaken,
    /// It is being parked.
    #[error("the room is being parked")]
    Parking,
    /// It could not be captured.
    #[error("the room cannot be captured")]
    Capture(#[source] CheckpointError),
    /// So many rooms are being parked that this one has to wait; it is tried again.
    #[error("{0} rooms are being parked already")]
    Crowded(usize),
    /// An earlier attempt, of which nobody knew, was written under the same epoch: capture again.
    #[error("an earlier attempt has the epoch")]
    Overtaken,
    /// It does not fit its bytes.
    #[error("the room cannot be encoded")]
    State(#[from] StateError),
    /// The vault did not take it.
    #[error("the vault did not take the room")]
    Vault(#[from] VaultError),
    /// The executor is shutting down.
    #[error("the executor did not run the work")]
    Executor(#[source] tokio::task::JoinError),
}

impl Keeper {
    /// A keeper of no rooms.
    #[must_use]
    pub fn new(options: KeeperOptions) -> Self {
        let in_flight = Arc::new(Semaphore::new(options.in_flight_max.max(1)));
        let parking = Arc::new(Semaphore::new(parking_max(options.in_flight_max)));
        Self {
            inner: Arc::new(Inner {
                options,
                in_flight,
                parking,
                transit: Mutex::default(),
                rooms: Mutex::default(),
                counts: Counts::default(),
            }),
        }
    }

    /// Opens a room and keeps it from now on. Returns at once, whether or not the store answers: the
    /// room plays, and is taken in the store as soon as that is there
    /// ([`KeeperStats::unclaimed`]).
    ///
    /// The keeper parks the room and names its id, so `parking` and `id` of `spec` do not matter.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        &self,
        runtime: &Runtime,
        listed: &Arc<Listed>,
        mut spec: RoomSpec,
    ) -> Result<RoomHandle, OpenError> {
        spec.id = None;
        spec.parking = Some(self.parking());
        let room = runtime.open(listed, spec)?;
        self.watch(runtime, room.clone(), None);
        Ok(room)
    }

    /// The vault.
    #[must_use]
    pub fn vault(&self) -> &Vault {
        &self.inner.options.vault
    }

    /// What it has done.
    #[must_use]
    pub fn stats(&self) -> KeeperStats {
        let (rooms, unclaimed) = {
            let rooms = self.inner.lock();
            let unclaimed = rooms.values().filter(|kept| kept.lease().is_none());
            (rooms.len(), unclaimed.count())
        };
        let counts = &self.inner.counts;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        KeeperStats {
            rooms,
            unclaimed,
            checkpoints: of(&counts.checkpoints),
            checkpoint_bytes: of(&counts.bytes),
            failed: of(&counts.failed),
            parked: of(&counts.parked),
            fenced: of(&counts.fenced),
        }
    }

    /// Checkpoints a room now, whatever its cadence says.
    ///
    /// # Errors
    /// [`KeepError`].
    pub async fn checkpoint(&self, room: RoomId) -> Result<(), KeepError> {
        let kept = self.inner.kept(room).ok_or(KeepError::NotKept)?;
        kept.checkpoint_now().await
    }

    /// Where rooms of this keeper are parked.
    fn parking(&self) -> Arc<dyn Parking> {
        Arc::new(KeeperParking(Arc::downgrade(&self.inner)))
    }

    /// Keeps a room that is open; `lease` when it was taken in the store already.
    fn watch(&self, runtime: &Runtime, room: RoomHandle, lease: Option<Lease>) -> Arc<Kept> {
        let rules = self
            .inner
            .options
            .cadence_of
            .get(room.slug())
            .copied()
            .unwrap_or(self.inner.options.cadence);
        let kept = Kept::new(&self.inner, runtime, room, rules, lease);
        self.inner.lock().insert(kept.room(), Arc::clone(&kept));
        kept.start();
        kept
    }
}

/// Rooms that may be captured to be parked at once, for so many in flight.
fn parking_max(in_flight_max: usize) -> usize {
    (in_flight_max * 4).max(32)
}

/// A room that is between the store and [`Inner::rooms`].
pub(crate) struct Transit {
    inner: Arc<Inner>,
    room: RoomId,
}

impl Drop for Transit {
    fn drop(&mut self) {
        let mut transit = self.inner.transit.lock();
        transit
            .as_deref_mut()
            .unwrap_or_else(|poisoned| poisoned.get_mut())
            .remove(&self.room);
    }
}

impl Inner {
    fn parking_max(&self) -> usize {
        parking_max(self.options.in_flight_max)
    }

    fn parking_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.parking).try_acquire_owned().ok()
    }

    /// Says that a room is on its way; `None` when it is already, or plays here. One that was parked
    /// a moment ago may not be forgotten yet, and is not in the way.
    pub(crate) fn transit(self: &Arc<Self>, room: RoomId) -> Option<Transit> {
        let plays = self
            .kept(room)
            .is_some_and(|kept| !kept.handle().status().phase.is_over());
        let mut transit = self.transit.lock().unwrap_or_else(PoisonError::into_inner);
        if plays || !transit.insert(room) {
            return None;
        }
        Some(Transit {
            inner: Arc::clone(self),
            room,
        })
    }

    pub(crate) fn kept(&self, room: RoomId) -> Option<Arc<Kept>> {
        self.lock().get(&room).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Kept>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by_key(|kept| kept.room());
        all
    }

    /// Forgets this room, and not one that was resumed under its id since.
    pub(crate) fn forget(&self, kept: &Kept) {
        let gone = {
            let mut rooms = self.lock();
            let same = rooms
                .get(&kept.room())
                .is_some_and(|there| std::ptr::eq(&**there, kept));
            if same {
                rooms.remove(&kept.room())
            } else {
                None
            }
        };
        drop(gone);
    }

    /// Unix milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.options.clock.unix_nanos() / 1_000_000).unwrap_or(0)
    }

    /// For jitter only: what cannot be drawn is the middle.
    pub(crate) fn draw(&self) -> u64 {
        let drawn = self.options.entropy.draw();
        drawn.map_or(u64::MAX / 2, u64::from_le_bytes)
    }

    pub(crate) async fn sleep(&self, wait: Duration) {
        let pace = &self.options.pace;
        pace.sleep_until(pace.now() + wait).await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RoomId, Arc<Kept>>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Parks rooms through their keeper.
struct KeeperParking(Weak<Inner>);

impl Parking for KeeperParking {
    fn park(&self, captured: Captured, reply: Reply<()>) {
        let Some(inner) = self.0.upgrade() else {
            return reply.send(Err(ServiceError::Unavailable("the keeper is gone".into())));
        };
        match inner.kept(captured.room) {
            Some(kept) => {
                let Some(place) = inner.parking_place() else {
                    let error = KeepError::Crowded(inner.parking_max());
                    return reply.send(Err(ServiceError::Unavailable(error_line(&error))));
                };
                inner.options.executor.spawn(async move {
                    let parked = kept.park(captured).await;
                    drop(place);
                    let done = parked.is_ok();
                    reply.send(
                        parked.map_err(|error| ServiceError::Unavailable(error_line(&error))),
                    );
                    if done {
                        // If it had given up waiting it plays on, and is in the store as one that
                        // does not: whoever was in it resumes it.
                        kept.handle().evict();
                    }
                });
            }
            None => reply.send(Err(ServiceError::Unavailable(
                "the room is not kept".into(),
            ))),
        }
    }
}

/// An error with its causes, on one line.
fn error_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keeper").field(&self.stats()).finish()
    }
}

impl fmt::Debug for KeeperOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeeperOptions")
            .field("vault", &self.vault)
            .field("cadence", &self.cadence)
            .field("retention", &self.retention)
            .field("in_flight_max", &self.in_flight_max)
            .finish_non_exhaustive()
    }
}
