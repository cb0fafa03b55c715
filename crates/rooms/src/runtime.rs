//! The runtime: opens rooms, finds them, shuts them down.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cabinet_host::{Fault, Mode, Observer, Player, Sck1, Snapshot};

use cabinet_wire::Lifecycle;

use crate::actor::{Actor, Origin};
use crate::blame::Evidence;
use crate::captures::{CapturePool, Captured};
use crate::cell::RoomCell;
use crate::clock::{Clock, Entropy, ManualClock, SystemClock, SystemEntropy};
use crate::guest_services::GuestServices;
use crate::pool::{Pool, PoolOptions};
use crate::posts::Posts;
use crate::quarantine::Quarantine;
use crate::recorder::{NoRecorder, Recorder};
use crate::registry::Listed;
use crate::reply::Reply;
use crate::room::{RoomHandle, RoomShared};
use crate::sched::Lane;
use crate::services::{Post, ServiceSet};
use cabinet_durability::{RoomId, RoomIds};

/// Runs rooms on threads of its own. Cheap to clone; rooms run until they end or
/// [`Runtime::shutdown`].
#[derive(Clone)]
pub struct Runtime {
    env: Arc<Env>,
    pool: Arc<Pool<RoomCell>>,
    /// Stops the threads with the last clone.
    _guard: Arc<StopOnDrop>,
}

/// What all rooms of a runtime share.
pub(crate) struct Env {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) recorder: Arc<dyn Recorder>,
    pub(crate) quarantine: Option<Arc<Quarantine>>,
    pub(crate) witness: Option<Witness>,
    pub(crate) cores: u32,
    pub(crate) grace: Duration,
    pub(crate) park_within: Duration,
    pub(crate) captures: Arc<CapturePool>,
    entropy: Arc<dyn Entropy>,
    store_timeout: Duration,
    rooms_max: usize,
    posts: Arc<Posts>,
    rooms: Mutex<HashMap<RoomId, RoomHandle>>,
    ids: Mutex<RoomIds>,
    opened: AtomicU64,
    closing: Arc<AtomicBool>,
}

/// Replaces what is known of a deadline kill before it is judged: for tests, and for machines that
/// know better than the system tells.
pub type Witness = Arc<dyn Fn(&Fault, Evidence) -> Evidence + Send + Sync>;

struct StopOnDrop(Arc<Pool<RoomCell>>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// How a runtime works. [`RuntimeOptions::default`] is right for most; change what differs.
#[derive(Clone)]
#[non_exhaustive]
pub struct RuntimeOptions {
    /// Threads that run rooms; default one per core.
    pub threads: usize,
    /// Threads that run rooms whose callbacks take long (over 4 ms), so that they share these and
    /// leave the others alone; default one less than cores, at least one.
    pub heavy_threads: usize,
    /// Rooms that may wait for stores at once. The guest of one more is told "unavailable" at once,
    /// though its store was asked and may still do what it was asked for. Default 64.
    pub waiting_max: usize,
    /// Rooms at once. Each takes 8 GiB of address space; about 16,000 fit. Default 12,000.
    pub rooms_max: usize,
    /// The longest wait for one answer of a store; the callback's own I/O ceiling applies too.
    /// Default 2 s.
    pub store_timeout: Duration,
    /// How long an empty room waits for somebody before it ends or is parked. Default 60 s.
    pub grace: Duration,
    /// How long parking a room may take before it counts as failed. Default 30 s.
    pub park_within: Duration,
    /// Memory kept warm for captures while none is under way, bytes. Default 64 MiB.
    pub capture_bytes_max: usize,
    /// Where events go.
    pub recorder: Arc<dyn Recorder>,
    /// Where faults are counted.
    pub quarantine: Option<Arc<Quarantine>>,
    /// Second thoughts on why a deadline passed.
    pub witness: Option<Witness>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids and seeds.
    pub entropy: Arc<dyn Entropy>,
}

/// Callbacks that may run on without a role, for each thread that has one: those of rooms not yet
/// known to be heavy. More of them would leave the others too little of the cores.
const EXCESS_PER_THREAD: usize = 4;
/// The grace of an empty room.
const GRACE: Duration = Duration::from_secs(60);

impl Default for RuntimeOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            threads: cores,
            heavy_threads: (cores - 1).max(1),
            waiting_max: 64,
            rooms_max: 12_000,
            store_timeout: Duration::from_secs(2),
            grace: GRACE,
            park_within: Duration::from_secs(30),
            capture_bytes_max: 64 << 20,
            recorder: Arc::new(NoRecorder),
            quarantine: None,
            witness: None,
            clock: Arc::new(SystemClock::new()),
            entropy: Arc::new(SystemEntropy),
        }
    }
}

impl fmt::Debug for RuntimeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeOptions")
            .field("threads", &self.threads)
            .field("heavy_threads", &self.heavy_threads)
            .field("waiting_max", &self.waiting_max)
            .field("rooms_max", &self.rooms_max)
            .field("store_timeout", &self.store_timeout)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}

/// What one room is opened with. [`RoomSpec::default`] is a quick room for as many as the listing
/// says, with no services.
///
/// A resumed room keeps mode, capacity, fewest players and seed of its snapshot, and its cadence
/// unless the operator has set one; what is said of them here does not matter then.
#[derive(Clone)]
#[non_exhaustive]
pub struct RoomSpec {
    /// Quick, private or solo.
    pub mode: Mode,
    /// Most members, in place of the listing's; 0 for no limit.
    pub capacity: Option<u32>,
    /// Fewest members, in place of the game's. Told to the guest.
    pub min_players: Option<u32>,
    /// The seed; without it one is drawn.
    pub seed: Option<i64>,
    /// The room's id; without it one is made. Give the old one to resume a room.
    pub id: Option<RoomId>,
    /// Wake cadence where neither the operator nor the game names one.
    pub heartbeat: Option<Duration>,
    /// The grace of the empty room, in place of the runtime's.
    pub grace: Option<Duration>,
    /// What the guest may ask of the world.
    pub services: ServiceSet,
    /// Where the room is parked when it hibernates. Without it, it does not.
    pub parking: Option<Arc<dyn Parking>>,
    /// Makes what watches every call between the room and its guest, from the first: for traces and
    /// recordings. Without it nothing watches, which is cheaper.
    pub observer: Option<MakeObserver>,
    /// Leaderboard posts to send first: those that were not recorded when a resumed room was
    /// captured ([`Captured::posts`]).
    pub posts: Vec<Post>,
    /// Everybody who was ever in a room that is resumed ([`Captured::joined`]): each gets a line in
    /// its result.
    pub joined: Vec<Player>,
    /// Who was in it last ([`Captured::roster`]): whose room it stays until somebody joins.
    pub roster: Vec<Player>,
    /// The lifecycle of the room that is resumed, where no configuration says otherwise.
    pub(crate) lifecycle: Option<Lifecycle>,
    pub(crate) drawn_seed: i64,
}

impl Default for RoomSpec {
    fn default() -> Self {
        Self {
            mode: Mode::Quick,
            capacity: None,
            min_players: None,
            seed: None,
            id: None,
            heartbeat: None,
            grace: None,
            services: ServiceSet::default(),
            parking: None,
            observer: None,
            posts: Vec::new(),
            joined: Vec::new(),
            roster: Vec::new(),
            lifecycle: None,
            drawn_seed: 0,
        }
    }
}

impl fmt::Debug for RoomSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomSpec")
            .field("mode", &self.mode)
            .field("capacity", &self.capacity)
            .field("seed", &self.seed)
            .field("id", &self.id)
            .field("services", &self.services)
            .field("parks", &self.parking.is_some())
            .field("observed", &self.observer.is_some())
            .finish_non_exhaustive()
    }
}

/// Makes a room's observer, on the thread that instantiates the guest. It is dropped with the room.
pub type MakeObserver = Arc<dyn Fn() -> Box<dyn Observer> + Send + Sync>;

/// Where rooms are parked.
pub trait Parking: Send + Sync {
    /// Keeps a room. The answer says that it can be had back; until then nobody is let in, and
    /// with an error the room goes on, to be parked again later. Must not block.
    ///
    /// An attempt that was given up ([`RuntimeOptions::park_within`]) may still arrive after a later
    /// one: of two records of a room the one with the later [`Captured::at`] counts.
    fn park(&self, parked: Captured, reply: Reply<()>);
}

/// What a room is resumed from.
#[derive(Debug)]
pub enum Resume {
    /// A snapshot of ours: the room goes on bit for bit.
    Snapshot(Box<Snapshot>),
    /// A blob of the reference host.
    Sck1(Box<Sck1>),
}

/// A room was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// As many rooms as the runtime takes are open.
    #[error("{0} rooms are open, as many as this runtime takes: raise `RuntimeOptions::rooms_max`")]
    TooManyRooms(usize),
    /// A room with this id is open.
    #[error("room {0} is open already")]
    AlreadyOpen(RoomId),
    /// The runtime is shutting down.
    #[error("the runtime is shutting down")]
    ShuttingDown,
    /// The source of randomness failed.
    #[error("the source of randomness failed")]
    NoRandomness,
}

/// What a runtime is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuntimeStats {
    /// Open rooms.
    pub rooms: usize,
    /// Threads, the timer's included.
    pub threads: usize,
    /// Rooms that wait for stores.
    pub waiting: usize,
    /// Leaderboard posts that are not recorded yet.
    pub posts_waiting: usize,
    /// Memory kept warm for captures, bytes.
    pub capture_bytes: usize,
}

impl Runtime {
    /// A runtime with its threads.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn new(options: RuntimeOptions) -> std::io::Result<Self> {
        let pool_options = PoolOptions {
            light: options.threads.max(1),
            heavy: options.heavy_threads.max(1),
            waiting_max: options.waiting_max,
            excess_max: options.threads.max(1) * EXCESS_PER_THREAD,
        };
        let pool = Pool::start(pool_options, Arc::clone(&options.clock))?;
        Ok(Self::around(pool, options))
    }

    /// A runtime without threads, on a clock that stands still: [`Runtime::run_until`] runs its
    /// rooms on the calling thread. With the same seed and the same calls, the same happens. For
    /// tests and simulations; `options.clock` is replaced.
    #[must_use]
    pub fn by_hand(mut options: RuntimeOptions, clock: &ManualClock) -> Self {
        options.clock = Arc::new(clock.clone());
        let pool = Pool::by_hand(Arc::clone(&options.clock));
        Self::around(pool, options)
    }

    fn around(pool: Arc<Pool<RoomCell>>, options: RuntimeOptions) -> Self {
        let posts = Posts::new(Arc::clone(&options.recorder), Arc::clone(&options.clock));
        let cell = RoomCell::Posts(Arc::clone(&posts), Arc::clone(&options.clock));
        let key = pool.insert(Arc::new(cell), Lane::Light);
        posts.wake_with(&pool, key);
        let env = Env {
            clock: options.clock,
            recorder: options.recorder,
            quarantine: options.quarantine,
            witness: options.witness,
            // Those stolen time is summed over, not those this process may use.
            cores: cabinet_host::machine_cpus().unwrap_or(0),
            grace: if options.grace.is_zero() {
                GRACE
            } else {
                options.grace
            },
            park_within: options.park_within,
            captures: Arc::new(CapturePool::new(options.capture_bytes_max)),
            entropy: options.entropy,
            store_timeout: options.store_timeout,
            rooms_max: options.rooms_max,
            posts,
            rooms: Mutex::default(),
            ids: Mutex::default(),
            opened: AtomicU64::new(0),
            closing: Arc::new(AtomicBool::new(false)),
        };
        Self {
            env: Arc::new(env),
            _guard: Arc::new(StopOnDrop(Arc::clone(&pool))),
            pool,
        }
    }

    /// Opens a room of a listed game. Returns at once; the guest is started on the runtime's
    /// threads ([`RoomHandle::started`]).
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, listed: &Arc<Listed>, spec: RoomSpec) -> Result<RoomHandle, OpenError> {
        self.begin(listed, spec, Origin::New)
    }

    /// Goes on with a room that was captured. Returns at once; whether it worked,
    /// [`RoomHandle::started`] tells. Its members have left; players who come back join. One that
    /// nobody joins is abandoned like any other.
    ///
    /// # Errors
    /// [`OpenError`]; what it was to go on from is dropped, so keep the stored bytes until it
    /// has started.
    pub fn resume(
        &self,
        listed: &Arc<Listed>,
        from: Resume,
        spec: RoomSpec,
    ) -> Result<RoomHandle, OpenError> {
        let origin = match from {
            Resume::Snapshot(snapshot) => Origin::Snapshot(snapshot),
            Resume::Sck1(blob) => Origin::Sck1(blob),
        };
        self.begin(listed, spec, origin)
    }

    fn begin(
        &self,
        listed: &Arc<Listed>,
        mut spec: RoomSpec,
        origin: Origin,
    ) -> Result<RoomHandle, OpenError> {
        let env = &self.env;
        let draw = || env.entropy.draw().ok_or(OpenError::NoRandomness);
        spec.drawn_seed = i64::from_le_bytes(draw()?);
        let id = match spec.id {
            Some(id) => id,
            None => {
                let millis = u64::try_from(env.clock.unix_nanos() / 1_000_000).unwrap_or(0);
                let random = draw()?;
                let mut ids = env.ids.lock().unwrap_or_else(PoisonError::into_inner);
                ids.next(millis, random)
            }
        };
        let shared = RoomShared::new(
            id,
            Arc::clone(listed),
            Arc::clone(&self.pool),
            Arc::clone(&env.posts),
        );
        let handle = RoomHandle {
            shared: Arc::clone(&shared),
        };
        {
            let mut rooms = env.lock();
            if env.closing.load(Ordering::Acquire) {
                return Err(OpenError::ShuttingDown);
            }
            if rooms.contains_key(&id) {
                return Err(OpenError::AlreadyOpen(id));
            }
            if rooms.len() >= env.rooms_max {
                return Err(OpenError::TooManyRooms(env.rooms_max));
            }
            rooms.insert(id, handle.clone());
        }
        let services = GuestServices {
            set: spec.services.clone(),
            slug: listed.slug().as_str().into(),
            room: id,
            label: listed.label().clone(),
            recorder: Arc::clone(&env.recorder),
            clock: Arc::clone(&env.clock),
            screens: Arc::clone(&shared.screens),
            posts: Arc::clone(&env.posts),
            pool: Arc::clone(&self.pool),
            timeout: env.store_timeout,
            counted: false,
            turn_wait: Duration::ZERO,
        };
        // Golden-ratio steps spread any number of rooms evenly over the period.
        let ordinal = env.opened.fetch_add(1, Ordering::Relaxed);
        let phase = ordinal.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let env = Arc::clone(env);
        if let Some(board) = &spec.services.leaderboard {
            for post in std::mem::take(&mut spec.posts) {
                env.posts.post(board, post, listed.label());
            }
        }
        let lane = listed.weight().lane();
        let actor = Actor::new(env, Arc::clone(&shared), spec, origin, services, phase);
        let key = self
            .pool
            .insert(Arc::new(RoomCell::Room(Mutex::new(actor))), lane);
        // Set once, here.
        let _ = shared.key.set(key);
        self.pool.poke(key);
        Ok(handle)
    }

    /// The open room with this id.
    #[must_use]
    pub fn find(&self, id: RoomId) -> Option<RoomHandle> {
        self.env.lock().get(&id).cloned()
    }

    /// The open rooms, in the order of their ids.
    #[must_use]
    pub fn rooms(&self) -> Vec<RoomHandle> {
        let mut rooms: Vec<_> = self.env.lock().values().cloned().collect();
        rooms.sort_by_key(RoomHandle::id);
        rooms
    }

    /// What the runtime is doing.
    #[must_use]
    pub fn stats(&self) -> RuntimeStats {
        let census = self.pool.census();
        RuntimeStats {
            rooms: self.env.lock().len(),
            threads: census.threads,
            waiting: census.waiting,
            posts_waiting: self.env.posts.waiting(),
            capture_bytes: self.env.captures.idle_bytes(),
        }
    }

    /// Makes memory for `count` captures of `bytes` each before the first room needs it, within
    /// [`RuntimeOptions::capture_bytes_max`]. Nothing calls it but you: without it the first captures
    /// of a process pause their rooms for longer than a copy takes.
    pub fn warm_captures(&self, count: usize, bytes: usize) {
        self.env.captures.warm(count, bytes);
    }

    /// Takes back the memory of a capture that is not needed any more, for the next one.
    pub fn recycle(&self, snapshot: Snapshot) {
        self.env.captures.give(snapshot.into_buffer());
    }

    /// Set once the runtime is shutting down.
    pub(crate) fn closing(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.env.closing)
    }

    pub(crate) fn captures(&self) -> &Arc<CapturePool> {
        &self.env.captures
    }

    /// Runs every room that has something to do up to the time `until` of the clock the runtime
    /// was made with, in order. Only for a runtime [by hand](Runtime::by_hand).
    pub fn run_until(&self, clock: &ManualClock, until: Duration) {
        loop {
            while self.pool.turn() {}
            match self.pool.next() {
                Some(next) if next <= until => clock.advance_to(next),
                _ => break,
            }
        }
        clock.advance_to(until);
        while self.pool.turn() {}
    }

    /// Opens nothing any more, closes every room, waits for them to end and for their leaderboard
    /// posts to be recorded or given up; then ends the threads. Hibernate first what is to be kept.
    ///
    /// A guest takes at most its deadline and its stores' ceiling; a leaderboard that is down is
    /// asked for about a minute, one that does not answer for four. Dropping the future leaves the runtime closing. On a runtime by
    /// hand the rooms must be run meanwhile.
    pub async fn shutdown(&self) {
        let rooms = {
            let rooms = self.env.lock();
            self.env.closing.store(true, Ordering::Release);
            rooms.values().cloned().collect::<Vec<_>>()
        };
        for room in &rooms {
            room.close();
        }
        for room in &rooms {
            room.ended().await;
        }
        self.env.posts.drained().await;
        self.pool.stop();
    }

    /// Blocks until the threads have ended, after [`Runtime::shutdown`]; `false`: after so long
    /// some still wait for a store. Never call it on an executor's thread.
    #[must_use]
    pub fn join_threads(&self, within: Duration) -> bool {
        self.pool.join(within)
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Runtime").field(&self.stats()).finish()
    }
}

impl Env {
    /// The room is over.
    pub(crate) fn forget(&self, id: RoomId) {
        let gone = self.lock().remove(&id);
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RoomId, RoomHandle>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
