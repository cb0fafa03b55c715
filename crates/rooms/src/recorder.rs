//! What happens in rooms, for metrics.
//!
//! One trait, every event a method that does nothing by default. Events come on room threads, the
//! frequent ones tens of thousands of times a second: an implementation must not block, lock or
//! allocate. Labels are bounded: a game's slug (through [`GameLabel`], whose index is small and
//! stable, so handles can be kept in a table), an [`Export`], a [`StoreOp`]; never a room, an
//! account or a handle.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cabinet_host::CallReport;

/// A game as metrics know it. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct GameLabel {
    slug: Arc<str>,
    index: u16,
}

/// Games that have a label of their own; those that come later share [`GameLabel::other`].
pub const GAME_LABELS_MAX: usize = 1_024;

impl GameLabel {
    pub(crate) fn new(slug: Arc<str>, index: u16) -> Self {
        Self { slug, index }
    }

    /// The label of the games past [`GAME_LABELS_MAX`]; its slug is `_other`, which no game has.
    #[must_use]
    pub fn other() -> Self {
        Self::new("_other".into(), GAME_LABELS_MAX as u16)
    }

    /// The game's slug.
    #[must_use]
    pub fn slug(&self) -> &str {
        &self.slug
    }

    /// 0 to [`GAME_LABELS_MAX`], the same for one slug as long as its registry lives. Give a recorder
    /// the games of one registry: those of another have the same indexes.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index.into()
    }
}

impl fmt::Debug for GameLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.slug, self.index)
    }
}

/// A callback of the ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Export {
    /// `start`
    Start,
    /// `join`
    Join,
    /// `leave`
    Leave,
    /// `input`
    Input,
    /// `wake`
    Wake,
    /// `close`
    Close,
}

impl Export {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 6] = [
        Self::Start,
        Self::Join,
        Self::Leave,
        Self::Input,
        Self::Wake,
        Self::Close,
    ];

    /// The export's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Input => "input",
            Self::Wake => "wake",
            Self::Close => "close",
        }
    }
}

/// A request to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreOp {
    /// A value read.
    KvGet,
    /// A value written.
    KvSet,
    /// A value forgotten.
    KvDelete,
    /// A configuration value read.
    ConfigGet,
    /// A result posted.
    Post,
    /// A player's account looked up.
    Account,
}

impl StoreOp {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 6] = [
        Self::KvGet,
        Self::KvSet,
        Self::KvDelete,
        Self::ConfigGet,
        Self::Post,
        Self::Account,
    ];

    /// A stable name: `kv_get`, `kv_set`, `kv_delete`, `config_get`, `post`, `account`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::KvGet => "kv_get",
            Self::KvSet => "kv_set",
            Self::KvDelete => "kv_delete",
            Self::ConfigGet => "config_get",
            Self::Post => "post",
            Self::Account => "account",
        }
    }
}

/// What happens in rooms. Every method does nothing by default.
#[allow(unused_variables)]
pub trait Recorder: Send + Sync {
    /// A callback reached the guest and took `took` of wall time, whether it succeeded or not.
    fn callback(&self, game: &GameLabel, export: Export, took: Duration) {}

    /// What that callback did and cost: fuel, host calls, bytes. Right after
    /// [`Recorder::callback`].
    fn work(&self, game: &GameLabel, export: Export, report: &CallReport) {}

    /// A callback was killed by its deadline, the guest's doing or not.
    fn callback_deadline(&self, game: &GameLabel, export: Export) {}

    /// CPU time was stolen from the machine while a callback ran that its deadline killed.
    fn stolen(&self, game: &GameLabel, export: Export, stolen: Duration) {}

    /// A deadline kill was excused: the guest had not had half of its window.
    fn excused(&self, game: &GameLabel, export: Export) {}

    /// A callback was ended because stores took longer than its I/O ceiling.
    fn host_io_deadline(&self, game: &GameLabel, export: Export) {}

    /// The host failed a room: a panic of a service, no memory for an instance.
    fn host_fault(&self, game: &GameLabel) {}

    /// The guest killed its room.
    fn fault(&self, game: &GameLabel) {}

    /// Container bytes of the frames a callback delivered; a broadcast counts once.
    fn frame_bytes_out(&self, game: &GameLabel, bytes: u64) {}

    /// Input of this many payload bytes (10 for one key), before the guest is called.
    fn input_bytes_in(&self, game: &GameLabel, bytes: u64) {}

    /// A store failed, was too slow, or was not asked because too many rooms wait already.
    fn store_error(&self, game: &GameLabel, op: StoreOp) {}

    /// A store panicked; also told as [`Recorder::store_error`].
    fn store_panicked(&self, game: &GameLabel, op: StoreOp) {}

    /// The linear memory of this game's rooms changed by so many bytes. Sums to 0 when the last
    /// room is gone.
    fn linear_memory(&self, game: &GameLabel, delta: i64) {}

    /// Rooms with an instance, by how many they changed: 1 or −1.
    fn rooms(&self, game: &GameLabel, delta: i64) {}

    /// A wake began this much after it was due.
    fn wake_late(&self, game: &GameLabel, late: Duration) {}

    /// So many wakes were left out because the room was more than a period late.
    fn wakes_skipped(&self, game: &GameLabel, count: u64) {}

    /// A room left through its end: `game`, `abandoned`, `closed`, `fault`, `host`, `hibernated`.
    fn room_ended(&self, game: &GameLabel, reason: &'static str) {}

    /// A game was taken out of the registry after too many faults.
    fn quarantined(&self, game: &GameLabel) {}
}

/// Records nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRecorder;

impl Recorder for NoRecorder {}

/// Upper bounds, in seconds, of the buckets a histogram of callback times, lateness or store waits
/// should have: from 10 µs to the longest deadline there is, three to a decade.
pub const SECONDS_BUCKETS: [f64; 17] = [
    0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05,
    0.1, 0.2, 0.5, 1.0, 2.0,
];
