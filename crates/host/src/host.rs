//! The host: what all games of a process share, and how a game is loaded.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cabinet_wire::ROSTER_CAP;

use crate::cache::{Cache, CacheError};
use crate::compile::{CompileError, CompileIn, Tier};
use crate::game::{self, Game};
use crate::memory::Pool;
use crate::rewrite::{ModuleLimits, Refusal};
use crate::watchdog::Watchdog;

/// Loads games. Cheap to clone; clones share everything.
///
/// ```
/// use cabinet_host::{Host, HostOptions};
///
/// let host = Host::new(HostOptions::default())?;
/// # Ok::<(), cabinet_host::HostError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Host {
    pub(crate) shared: Arc<HostShared>,
}

/// What every game and room of a host holds on to.
pub(crate) struct HostShared {
    pub(crate) options: HostOptions,
    pub(crate) cache: Option<Cache>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) watchdog: Watchdog,
    /// The kernel's wasm half, compiled; every game loads it into its own engine.
    pub(crate) kernel_artifact: Vec<u8>,
}

impl std::fmt::Debug for HostShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostShared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// How a host works. [`HostOptions::default`] is right for most; change what differs:
///
/// ```
/// use cabinet_host::{Host, HostOptions};
///
/// let mut options = HostOptions::default();
/// options.idle_memories = 16;
/// let host = Host::new(options)?;
/// # Ok::<(), cabinet_host::HostError>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HostOptions {
    /// Keep compiled games on disk. `None`: compile at every load.
    pub cache: Option<CacheOptions>,
    /// Where guests are compiled.
    pub compile: CompileIn,
    /// What a module may contain. Its `memory_pages_max` is replaced at each load by
    /// [`GameOptions::memory_pages_max`].
    pub limits: ModuleLimits,
    /// How many memories of finished rooms wait, zeroed, for the next room. Each keeps up to
    /// 4 MiB resident. Default 64.
    pub idle_memories: usize,
    /// Wall time for each guest call made while loading. Default 5 s.
    pub probe_deadline: Duration,
}

/// A directory of compiled games.
#[derive(Clone)]
pub struct CacheOptions {
    /// The directory; made when absent.
    pub dir: PathBuf,
    /// Secret key that authenticates entries: loading one executes it, so whoever knows the key
    /// and can write the directory owns the process.
    pub key: [u8; 32],
}

impl std::fmt::Debug for CacheOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheOptions")
            .field("dir", &self.dir)
            .field("key", &"(secret)")
            .finish()
    }
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            cache: None,
            compile: CompileIn::ThisProcess,
            limits: ModuleLimits::default(),
            idle_memories: 64,
            probe_deadline: Duration::from_secs(5),
        }
    }
}

/// A host could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The compile cache's directory is not usable.
    #[error("cannot open the compile cache")]
    Cache(#[source] CacheError),
    /// The system refused a thread.
    #[error("cannot start the watchdog thread")]
    Thread(#[source] std::io::Error),
    /// Our own kernel module did not compile.
    #[error("cannot build the kernel module: {0}")]
    Kernel(String),
}

/// An artifact was not accepted as a game.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The module is not one this host runs; the reason names what to change.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The option `memory_pages_max` is 0, or more than a 32-bit memory can have.
    #[error("the option memory_pages_max is {0}: it must be 1 to 65536")]
    MemoryPages(u32),
    /// The module would take too long to compile.
    #[error(
        "the module is too expensive to compile: estimated cost {cost}, limit {limit}; split its largest function"
    )]
    TooExpensive {
        /// The estimate.
        cost: u64,
        /// The limit.
        limit: u64,
    },
    /// The compiler failed.
    #[error("cannot compile the module")]
    Compile(#[source] CompileError),
    /// The module could not be instantiated.
    #[error("cannot instantiate the module: {0}")]
    Instantiate(String),
    /// A call made while loading failed.
    #[error("{export} failed: {fault}")]
    Probe {
        /// `shellcade_abi`, `meta` or the start section.
        export: &'static str,
        /// How.
        fault: crate::fault::Fault,
    },
    /// `shellcade_abi` answered with fewer than four bytes.
    #[error("shellcade_abi returned {0} bytes, want 4")]
    AbiOutput(usize),
    /// The guest speaks another major version of the ABI.
    #[error("unsupported ABI major v{found}: this host speaks v{expected}", expected = cabinet_wire::ABI_MAJOR)]
    AbiMajor {
        /// What the guest said.
        found: u32,
    },
    /// The guest was built for a newer revision of the ABI than this host knows.
    #[error(
        "the game declares wire revision {declared}, this host knows {known}: update the host first, or allow newer revisions"
    )]
    NewerRevision {
        /// The guest's revision.
        declared: u16,
        /// The host's.
        known: u16,
    },
    /// The game's self-description is larger than any game needs.
    #[error("meta returned {bytes} bytes, at most {max} are read")]
    MetaOutput {
        /// What the guest returned.
        bytes: usize,
        /// What is admitted.
        max: usize,
    },
    /// The game's self-description is not acceptable.
    #[error("the game's meta is not acceptable")]
    Meta(#[source] cabinet_wire::meta::MetaError),
}

impl LoadError {
    /// A stable name of the error, as `docs/ABI.md` lists them: a [`Refusal`]'s own class, a
    /// probe's fault class, or `too-expensive`, `compile`, `instantiation`, `abi-output`,
    /// `abi-major`, `newer-revision`, `meta`.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.class(),
            Self::MemoryPages(_) => "options",
            Self::TooExpensive { .. } => "too-expensive",
            Self::Compile(_) => "compile",
            Self::Instantiate(_) => "instantiation",
            Self::Probe { fault, .. } => fault.class(),
            Self::AbiOutput(_) => "abi-output",
            Self::AbiMajor { .. } => "abi-major",
            Self::NewerRevision { .. } => "newer-revision",
            Self::MetaOutput { .. } | Self::Meta(_) => "meta",
        }
    }
}

/// Something odd about a game that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadWarning {
    /// A newer wire revision than this host's was allowed.
    NewerRevision {
        /// The guest's revision.
        declared: u16,
        /// The host's.
        known: u16,
    },
    /// The declared player counts make no sense.
    Players {
        /// Declared minimum.
        min: u16,
        /// Declared maximum.
        max: u16,
    },
    /// More players are declared than there are frame slots: those past the last see nothing of
    /// their own.
    MorePlayersThanSlots {
        /// Declared maximum.
        max: u16,
    },
    /// A resident game that needs more than one player can never run empty.
    ResidentNeedsPlayers {
        /// Declared minimum.
        min: u16,
    },
    /// A leaderboard enumeration outside the ABI.
    LeaderboardCode,
    /// A lifecycle code outside the ABI, read as resumable.
    Lifecycle(u8),
    /// Context features this host does not know and does not send.
    UnknownFeatures(u32),
    /// The module was compiled without optimisation because of its cost estimate.
    QuickTier {
        /// The estimate.
        cost: u64,
    },
    /// A cache entry failed authentication and was compiled anew.
    CacheTampered,
}

impl std::fmt::Display for LoadWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NewerRevision { declared, known } => write!(
                f,
                "the game declares wire revision {declared}, this host knows {known}"
            ),
            Self::Players { min, max } => {
                write!(f, "the game declares {min} to {max} players")
            }
            Self::MorePlayersThanSlots { max } => write!(
                f,
                "the game declares up to {max} players, but only {ROSTER_CAP} can be sent frames of their own"
            ),
            Self::ResidentNeedsPlayers { min } => write!(
                f,
                "the game is resident but declares a minimum of {min} players"
            ),
            Self::LeaderboardCode => f.write_str(
                "the leaderboard has a direction, aggregation or format outside the ABI",
            ),
            Self::Lifecycle(code) => {
                write!(f, "lifecycle {code} is unknown and reads as resumable")
            }
            Self::UnknownFeatures(bits) => {
                write!(f, "context features {bits:#x} are unknown and not sent")
            }
            Self::QuickTier { cost } => write!(
                f,
                "compiled without optimisation: estimated compile cost {cost}"
            ),
            Self::CacheTampered => {
                f.write_str("a compile cache entry failed authentication and was compiled anew")
            }
        }
    }
}

/// What to do with a game built for a newer revision of the ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NewerRevision {
    /// Refuse it.
    #[default]
    Refuse,
    /// Load it and warn.
    Warn,
}

/// How one game is run. [`GameOptions::default`] is the ABI's defaults; change what differs:
///
/// ```
/// use std::time::Duration;
///
/// let mut options = cabinet_host::GameOptions::default();
/// options.deadline = Duration::from_millis(250);
/// options.fuel = Some(200_000_000);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GameOptions {
    /// Wake cadence when neither the game nor the room says otherwise. Default 50 ms.
    pub heartbeat: Duration,
    /// Wall-clock deadline of a callback. Default 100 ms.
    ///
    /// It is looked at about every 2 ms, so a shorter one seldom strikes. It counts the time the
    /// thread waits for a core too: call no more rooms at once than there are cores, or innocent
    /// guests die of their neighbours.
    pub deadline: Duration,
    /// Cap of the guest's memory, and separately of its kernel's, in pages of 64 KiB, 1 to 65,536.
    /// Default 512 (32 MiB).
    pub memory_pages_max: u32,
    /// Deterministic work budget of a callback, in operators; `None` (the default) for none.
    pub fuel: Option<u64>,
    /// How hard to compile.
    pub tier: Tier,
    /// What to do with a newer wire revision.
    pub newer_revision: NewerRevision,
    /// Make every NaN canonical, so that float code computes the same bits everywhere. Default
    /// true; costs float-heavy code, not integer code.
    pub canonical_nans: bool,
    /// Wall time a callback may spend waiting for stores. Default 2 s.
    pub io_ceiling: Duration,
}

impl Default for GameOptions {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            deadline: Duration::from_millis(100),
            memory_pages_max: 512,
            fuel: None,
            tier: Tier::Auto,
            newer_revision: NewerRevision::Refuse,
            canonical_nans: true,
            io_ceiling: Duration::from_secs(2),
        }
    }
}

impl Host {
    /// Makes a host: opens the cache, compiles the kernel, starts the watchdog thread.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn new(options: HostOptions) -> Result<Self, HostError> {
        let cache = options
            .cache
            .as_ref()
            .map(|cache| Cache::open(&cache.dir, &cache.key))
            .transpose()
            .map_err(HostError::Cache)?;
        let kernel_wasm = wat::parse_str(crate::kernel::WAT)
            .map_err(|error| HostError::Kernel(error.to_string()))?;
        let kernel_artifact = game::compile_kernel(&kernel_wasm)
            .map_err(|error| HostError::Kernel(error.to_string()))?;
        Ok(Self {
            shared: Arc::new(HostShared {
                pool: Arc::new(Pool::new(options.idle_memories)),
                watchdog: Watchdog::start().map_err(HostError::Thread)?,
                options,
                cache,
                kernel_artifact,
            }),
        })
    }

    /// Checks, compiles and probes an artifact.
    ///
    /// Takes as long as compiling does, on the calling thread; with a cache, a second load takes
    /// milliseconds. The guest's `shellcade_abi` and `meta` run, under
    /// [`HostOptions::probe_deadline`] each.
    ///
    /// # Errors
    /// [`LoadError`] names what was refused.
    pub fn load(&self, wasm: &[u8], options: &GameOptions) -> Result<Game, LoadError> {
        game::load(&self.shared, wasm, options)
    }
}
