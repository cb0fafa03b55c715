//! A machine: a disk that outlives its processes, a clock that runs a little wrong, and the process
//! that is on it now.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::client::{Client, Slot};
use super::early::EarlyLog;
use super::game::Ledger;
use super::ledger::WAITING_MAX;
use super::net::SimPeer;
use super::world::Watcher;
use crate::config::{Compaction, Limits, Timing};
use crate::events::FeedLimits;
use crate::fabric::Port;
use crate::game::Blueprint;
use crate::ids::{ClientId, GameId, Incarnation, NodeId, PeerId};
use crate::log::durable::disk::Disk;
use crate::log::durable::sim_disk::SimDisk;
use crate::log::durable::{Driver, DurableOptions};
use crate::log::{DurableLog, LogStore};
use crate::session::{
    AdmissionTiming, AppChannel, Clock, CoreOptions, GameSession, Hooks, HostError, HostOptions,
    Identity, JoinError, JoinOptions, Presence, ReturnPolicy, ServerCore, SessionConfig, enter,
    game_node_with, host, resume, ride, serve,
};
use crate::state::command::Kind;

/// Seats of a hosted game, and places to watch it from.
pub(super) const SEATS: u32 = 3;
pub(super) const GALLERY: u32 = 1;
/// A member that is silent for this long loses its place.
pub(super) const EVICT_AFTER_MS: u64 = 500;
pub(super) const ADMIT_WITHIN_MS: u64 = 1200;

/// A clock that runs a little fast or slow, and at times is set ahead.
#[derive(Clone)]
pub(super) struct Skewed {
    begun: Instant,
    permille: u32,
    ahead_ms: Arc<AtomicU64>,
}

impl Skewed {
    pub(super) fn new(permille: u32) -> Self {
        Self {
            begun: Instant::now(),
            permille,
            ahead_ms: Arc::default(),
        }
    }

    pub(super) fn set_ahead(&self, ms: u64) {
        self.ahead_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for Skewed {
    fn now(&self) -> Duration {
        let ahead = Duration::from_millis(self.ahead_ms.load(Ordering::Relaxed));
        self.begun.elapsed() * self.permille / 1000 + ahead
    }
}

/// How a machine's process comes into the game, unless its disk holds one already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// By the roster.
    Roster,
    /// By hosting; whoever finds that somebody hosts joins.
    Host,
    /// By asking for a place.
    Join(Kind),
    /// As one of the servers that vote.
    Serve,
    /// By asking the servers for a seat.
    Ride,
}

impl Wish {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Join(kind) => kind,
            Self::Serve => Kind::Witness,
            _ => Kind::Player,
        }
    }

    /// How a later life of the peer comes in.
    pub(super) fn again(self) -> Self {
        match self {
            Self::Roster | Self::Serve | Self::Ride => self,
            Self::Host | Self::Join(_) => Self::Join(self.kind()),
        }
    }
}

/// Why a process is not in the game.
#[derive(Debug)]
pub(super) enum Refused {
    /// Somebody hosts.
    Hosted,
    /// No place is free, or nobody answered: to be tried again.
    Later,
    /// It must not happen.
    Never(String),
}

impl From<HostError> for Refused {
    fn from(error: HostError) -> Self {
        match error {
            HostError::DuplicateHost { .. } => Self::Hosted,
            other => Self::Never(other.to_string()),
        }
    }
}

impl From<JoinError> for Refused {
    fn from(error: JoinError) -> Self {
        match error {
            // Answers of who led no longer are not believed: a time-out under another name.
            JoinError::RosterFull
            | JoinError::SpectatorsClosed
            | JoinError::Timeout(_)
            | JoinError::NotCaughtUp(_)
            | JoinError::NotVouchedFor { .. } => Self::Later,
            other => Self::Never(other.to_string()),
        }
    }
}

fn never(error: impl std::fmt::Display) -> Refused {
    Refused::Never(error.to_string())
}

/// All that a process begins with.
pub(super) struct Entry {
    pub disk: Arc<dyn Disk>,
    pub peer: Arc<SimPeer>,
    pub game: GameId,
    pub name: &'static str,
    pub wish: Wish,
    pub incarnation: u64,
    pub roster: BTreeSet<PeerId>,
    /// The servers that vote, if servers do.
    pub servers: BTreeSet<PeerId>,
    pub clock: Skewed,
    pub nonce: u64,
    pub automatic: bool,
    pub early_log: bool,
    /// Of a game that is hosted.
    pub seats: u32,
    pub witness: bool,
    pub evict_after: Option<Duration>,
    pub return_at: ReturnPolicy,
    pub hooks: Hooks,
}

impl Entry {
    /// Comes into the game, however long it takes.
    pub(super) async fn come(self) -> Result<GameSession<Ledger>, Refused> {
        let options = DurableOptions {
            segment_bytes: 4096,
            ..DurableOptions::default()
        };
        let log = DurableLog::open(self.disk.clone(), options, Driver::Task)
            .await
            .map_err(never)?;
        let log: Arc<dyn LogStore> = if self.early_log {
            Arc::new(EarlyLog(log))
        } else {
            Arc::new(log)
        };
        let came = self.open(log.clone()).await;
        if came.is_err() {
            // What failed has closed it, or never began to use it.
            let _ = log.close().await;
        }
        came
    }

    async fn open(self, log: Arc<dyn LogStore>) -> Result<GameSession<Ledger>, Refused> {
        let begun = log.state().map_err(never)?.has_begun();
        let incarnation = Incarnation(self.incarnation);
        let config = SessionConfig {
            timing: Timing::fast(),
            limits: Limits {
                log_kept_after_snapshot: 8,
                snapshot_chunk_bytes: 512,
                channel_frames_max: WAITING_MAX,
                ..Limits::default()
            },
            compaction: Some(Compaction {
                entries: 40,
                bytes: 1 << 20,
                age: Duration::from_secs(60),
            }),
            identity: if self.automatic {
                Identity::Automatic
            } else {
                Identity::Durable(ClientId::new(self.name).map_err(never)?)
            },
            log,
            hash_every: 16,
            events: FeedLimits {
                events_max: 24,
                bytes_max: 1 << 20,
            },
            admission: AdmissionTiming {
                alive_within: Duration::from_millis(150),
                evict_after: self.evict_after,
                admit_within: Duration::from_millis(ADMIT_WITHIN_MS),
            },
            ..SessionConfig::new(Arc::new(self.clock), self.nonce)
        };
        let config = match self.wish {
            // Of a roster nobody is ever put out.
            Wish::Roster => SessionConfig {
                admission: AdmissionTiming::default(),
                ..config
            },
            _ => config,
        };
        let port = Port::open(self.peer, self.game).map_err(never)?;
        let blueprint = Blueprint::with_snapshots(Ledger::default);
        let joining = JoinOptions {
            within: Duration::from_secs(3),
            ..JoinOptions::new(incarnation)
        };
        match self.wish {
            Wish::Roster => game_node_with(port, blueprint, self.roster, config, self.hooks)
                .await
                .map_err(never),
            Wish::Serve => {
                let options = CoreOptions {
                    core: ServerCore::new(self.servers).map_err(never)?,
                    seats: self.seats,
                    spectators_max: GALLERY,
                };
                serve(port, blueprint, options, config, self.hooks)
                    .await
                    .map_err(never)
            }
            _ if begun => resume(port, blueprint, config, self.hooks)
                .await
                .map_err(never),
            Wish::Host => {
                let options = HostOptions {
                    spectators_max: GALLERY,
                    claim_wait: Duration::from_millis(300),
                    return_at: self.return_at,
                    witness: self.witness,
                    ..HostOptions::new(self.seats, incarnation)
                };
                Ok(host(port, blueprint, options, config, self.hooks).await?)
            }
            Wish::Ride => {
                let core = ServerCore::new(self.servers).map_err(never)?;
                Ok(ride(port, blueprint, core, joining, config, self.hooks).await?)
            }
            Wish::Join(kind) => {
                Ok(enter(port, blueprint, kind, joining, config, self.hooks).await?)
            }
        }
    }
}

/// A process in the game.
pub(super) struct Running {
    pub session: Arc<GameSession<Ledger>>,
    pub peer: Arc<SimPeer>,
    pub watcher: Arc<Watcher>,
    pub clock: Skewed,
    /// The channel that everybody reads, and the one that nobody does.
    pub talk: AppChannel,
    pub noise: AppChannel,
    /// When it came in.
    pub since_ms: u64,
    /// Whom it saw last, and who was away.
    pub presence: Presence,
    pub missed: BTreeSet<NodeId>,
}

/// A process on its way into the game, or out of it.
pub(super) struct Passing<T> {
    pub task: JoinHandle<T>,
    pub peer: Arc<SimPeer>,
    pub watcher: Arc<Watcher>,
    pub clock: Skewed,
}

pub(super) struct Machine {
    pub disk: SimDisk,
    /// Processes so far.
    pub lives: u64,
    /// Lives of the peer, each with a log of its own.
    pub incarnation: u64,
    pub wish: Wish,
    pub slot: Slot,
    pub client: Client,
    pub running: Option<Running>,
    pub entering: Option<Passing<Result<GameSession<Ledger>, Refused>>>,
    pub leaving: Option<(Passing<bool>, u64)>,
    pub back_at: Option<u64>,
    /// Whether its peer left and does not come back.
    pub for_good: bool,
    pub permille: u32,
    pub tasks: JoinSet<()>,
}
