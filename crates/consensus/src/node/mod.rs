//! A node of a running game: it answers the others, proposes for its own client, and, when it
//! leads, does what only a leader may.
//!
//! Invariants
//! - a proposal is sent again under its first key until it is decided or its deadline passes, so it
//!   takes effect at most once whichever leaders it met;
//! - a frame of another session, of another life of its sender, or from a node that is no member is
//!   dropped and counted;
//! - what this node starts ends with it: every task is in one set.

mod answer;
mod founding;
mod gather;
mod house;
mod load;
mod members;
mod patience;
mod propose;
mod reader;
mod reads;
mod rounds;
mod serve;
mod serving;
mod submit;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::{EnterGuard, Handle};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::{Compaction, Limits, Timing};
use crate::events::Feed;
use crate::fabric::{Inbound, Receiver};
use crate::game::RulesFactory;
use crate::ids::{ClientId, NodeId, SessionId};
use crate::log::LogStore;
use crate::raft::rpc::Rpc;
use crate::raft::{Consensus, Engine, RaftNumbers, RaftStatus, ReadIndexError};
use crate::raft::{SharedReplica, lock};
use crate::state::Planted;
use crate::state::command::{Configure, NodeMsg};
use crate::state::seats::NoPlace;
use crate::state::sessions::AUTOMATIC;
use crate::watch::Watch;

pub use propose::ProposeError;
pub(crate) use reader::{Next, RawEvents};
pub use reads::ReadError;

use founding::SecretInLog;
use gather::Gather;
use house::keep_house;
use load::Load;
use members::Company;
use patience::sweep;
use propose::ClientState;
pub(crate) use propose::Reserved;
use rounds::Rounds;
use serve::serve;
use submit::{Undecided, carry};

/// Monotonic time, passed in so that a simulator decides what it is.
pub trait Clock: Send + Sync + 'static {
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
}

/// tokio's clock: real time, or virtual time where tokio is paused.
#[derive(Debug)]
pub struct TokioClock(Instant);

impl Default for TokioClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Frames this node did not serve.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DroppedFrames {
    /// Bytes that are no frame, or hold more of something than is ever sent; and answers that cannot
    /// be true, as of an entry that was never sent.
    pub malformed: u64,
    /// Of another session.
    pub other_session: u64,
    /// For another life of this peer.
    pub other_life: u64,
    /// From a node that is no member, may not ask this, or speaks for another.
    pub not_member: u64,
    /// Answers nobody waited for.
    pub unasked: u64,
    /// Proposals that a fabric brought again: each is served once.
    pub repeated: u64,
    /// Proposals, reads, announcements and Raft's own requests of others past what is served at a
    /// time.
    pub overload: u64,
    /// Votes on state hashes that do not count.
    pub votes: u64,
}

#[derive(Default)]
struct Drops {
    malformed: AtomicU64,
    other_session: AtomicU64,
    other_life: AtomicU64,
    not_member: AtomicU64,
    unasked: AtomicU64,
    repeated: AtomicU64,
    overload: AtomicU64,
    votes: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// How the node's own client is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Identity {
    /// A client of this life of the node: what was under way when it dies is nobody's.
    #[default]
    Automatic,
    /// A client that outlives its process: serials go on where the game says they stand, and
    /// `propose_with_id` with a serial of before finds out what became of it.
    Durable(ClientId),
}

/// What a node is opened with.
pub(crate) struct NodeParts {
    pub rules: RulesFactory,
    pub session: SessionId,
    pub identity: Identity,
    pub timing: Timing,
    pub limits: Limits,
    pub compaction: Option<Compaction>,
    pub configure: Configure,
    pub clock: Arc<dyn Clock>,
    /// Tells this process from its earlier selves. Others see it.
    pub nonce: u64,
    /// Members this node was told of before its log names any.
    pub trusted: BTreeSet<NodeId>,
    /// Why this node has no place, by the word of anybody who was let in.
    pub refused: Watch<Option<NoPlace>>,
    /// The same by the word of those it believes.
    pub put_out: Watch<Option<NoPlace>>,
    pub log: Arc<dyn LogStore>,
    pub engine: Arc<Engine>,
    pub feed: Feed,
    pub rpc: Rpc,
    pub incoming: Receiver<Inbound>,
}

pub(crate) struct Node {
    pub(crate) rpc: Rpc,
    pub(crate) engine: Arc<Engine>,
    pub(crate) replica: SharedReplica,
    pub(crate) feed: Feed,
    log: Arc<dyn LogStore>,
    rules: RulesFactory,
    client: ClientId,
    state: Mutex<ClientState>,
    limits: Limits,
    timing: Timing,
    clock: Arc<dyn Clock>,
    /// The game's clock when it was last seen to move, and ours then.
    game_ahead_ms: AtomicU64,
    begun: Duration,
    /// When it did by the clock that calls are timed by.
    started: Instant,
    load: Load,
    gather: Gather,
    /// Something was sent at once, and more may wait since.
    gathered: Notify,
    reads: Rounds<Result<u64, ReadIndexError>>,
    drops: Drops,
    configure: Configure,
    compaction: Option<Compaction>,
    nonce: u64,
    /// When a leader was last heard.
    heard: Mutex<Duration>,
    /// Nodes that are believed to be members although the log names them nowhere.
    trusted: Mutex<BTreeSet<NodeId>>,
    /// Why this node has no place, by the word of anybody who was let in.
    refused: Watch<Option<NoPlace>>,
    /// The same by the word of those it believes: a voter of its log, or who was vouched for. Its own
    /// client is refused for that alone.
    put_out: Watch<Option<NoPlace>>,
    /// The peers of both, as they were found last.
    company: Mutex<Company>,
    /// Nodes that showed that they were let in once, and nothing else says are members. They count
    /// only while no leader is heard.
    proved: Mutex<BTreeSet<NodeId>>,
    /// What Raft asked, answered for a proof alone.
    by_proof: AtomicU64,
    planted: Planted,
    /// What the log's first settings hold, as far as it was looked for in the log itself.
    secret_in_log: Mutex<SecretInLog>,
    tasks: Mutex<Option<JoinSet<()>>>,
    /// What the node runs on: who drops a session may be elsewhere.
    runtime: Handle,
    closed: AtomicBool,
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    pub(crate) fn start(parts: NodeParts) -> Arc<Self> {
        let me = parts.rpc.me().clone();
        parts.rpc.set_session(parts.session);
        let client = match parts.identity {
            Identity::Durable(client) => client,
            // A peer id has at most half the bytes of a client id, an incarnation 20 digits.
            Identity::Automatic => ClientId::new(format!("{AUTOMATIC}{me}"))
                .unwrap_or_else(|_| unreachable!("a node's name fits a client's")),
        };
        let planted = lock(parts.engine.replica()).planted;
        let node = Arc::new(Self {
            replica: parts.engine.replica().clone(),
            engine: parts.engine,
            rpc: parts.rpc,
            feed: parts.feed,
            log: parts.log,
            rules: parts.rules,
            client,
            state: Mutex::default(),
            load: Load::new(parts.limits.pending_total_max, parts.limits.pending_max),
            gather: Gather::default(),
            gathered: Notify::new(),
            reads: Rounds::new(),
            limits: parts.limits,
            timing: parts.timing,
            game_ahead_ms: AtomicU64::new(0),
            begun: parts.clock.now(),
            started: Instant::now(),
            heard: Mutex::new(parts.clock.now()),
            clock: parts.clock,
            drops: Drops::default(),
            configure: parts.configure,
            compaction: parts.compaction,
            nonce: parts.nonce,
            trusted: Mutex::new(parts.trusted),
            refused: parts.refused,
            put_out: parts.put_out,
            company: Mutex::default(),
            proved: Mutex::default(),
            by_proof: AtomicU64::new(0),
            planted,
            secret_in_log: Mutex::default(),
            tasks: Mutex::new(None),
            runtime: Handle::current(),
            closed: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(node.clone(), parts.incoming));
        tasks.spawn(carry(node.clone()));
        tasks.spawn(keep_house(node.clone()));
        tasks.spawn(sweep(node.clone(), parts.timing.heartbeat()));
        *guard(&node.tasks) = Some(tasks);
        node
    }

    pub(crate) fn me(&self) -> &NodeId {
        self.rpc.me()
    }

    /// Whether this node votes by the session's settings.
    pub(crate) fn is_in_core(&self) -> bool {
        // A server knows them before they are in its log.
        let first = self.configure.core.iter();
        lock(&self.replica).seats.core.contains(self.me())
            || first
                .filter_map(NodeMsg::node)
                .any(|node| node == *self.me())
    }

    pub(crate) fn timing(&self) -> &Timing {
        &self.timing
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn client(&self) -> &ClientId {
        &self.client
    }

    pub(crate) fn status(&self) -> Watch<RaftStatus> {
        self.engine.status()
    }

    pub(crate) fn numbers(&self) -> RaftNumbers {
        self.engine.numbers()
    }

    /// Has the calling thread see the time of the runtime this node runs on, until what it answers
    /// is dropped: elsewhere tokio tells the machine's, also where the runtime's is virtual.
    pub(crate) fn on_its_time(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Why this node has no place in the game, once somebody it believes said so.
    pub(crate) fn no_place(&self) -> Option<NoPlace> {
        *self.put_out.borrow()
    }

    /// Why this node has no place in the game, by whoever said so; `None` while all is well.
    pub(crate) fn refused(&self) -> Watch<Option<NoPlace>> {
        self.refused.clone()
    }

    pub(crate) fn dropped(&self) -> DroppedFrames {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DroppedFrames {
            malformed: read(&self.drops.malformed) + self.engine.false_answers(),
            other_session: read(&self.drops.other_session),
            other_life: read(&self.drops.other_life),
            not_member: read(&self.drops.not_member),
            unasked: read(&self.drops.unasked),
            repeated: read(&self.drops.repeated),
            overload: read(&self.drops.overload),
            votes: read(&self.drops.votes) + lock(&self.replica).votes.refused,
        }
    }

    /// Stops every task and Raft. Waits for both.
    pub(crate) async fn close(&self) {
        let tasks = guard(&self.tasks).take();
        self.engine.close().await;
        if let Some(mut tasks) = tasks {
            tasks.shutdown().await;
        }
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Stops everything without waiting for it: for who drops a session instead of closing it, or
    /// while it is being closed.
    pub(crate) fn abandon(&self) {
        // Dropping the set aborts its tasks, which hold this node.
        drop(guard(&self.tasks).take());
        if self.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        let engine = self.engine.clone();
        self.runtime.spawn(async move { engine.close().await });
    }

    /// The game's clock now, as this node would stamp it.
    fn stamp(&self) -> u64 {
        let seen = self.engine.game_clock_ms();
        let now = self.clock.now().saturating_sub(self.begun).as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        // Only a clock that is ahead of ours moves it: an entry is applied later than it was
        // stamped, and going by that would slow the game's clock with every entry.
        let needed = seen.saturating_sub(now);
        let mut ahead = self.game_ahead_ms.load(Ordering::Relaxed);
        if needed > ahead {
            ahead = self
                .game_ahead_ms
                .fetch_max(needed, Ordering::Relaxed)
                .max(needed);
        }
        now.saturating_add(ahead).max(seen)
    }

    /// Counts frames of the lobby and the app lane whose sender is not known here, or may not say
    /// that.
    pub(crate) fn count_not_member(&self, frames: u64) {
        self.drops.not_member.fetch_add(frames, Ordering::Relaxed);
    }

    pub(crate) fn count_overload(&self) {
        count(&self.drops.overload);
    }

    pub(crate) fn count_malformed(&self, frames: u64) {
        self.drops.malformed.fetch_add(frames, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
