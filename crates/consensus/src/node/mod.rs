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
mod house;
mod load;
mod patience;
mod propose;
mod reader;
mod rounds;
mod serve;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::{Compaction, Limits, Timing};
use crate::events::Feed;
use crate::fabric::{Inbound, Receiver};
use crate::game::RulesFactory;
use crate::ids::{ClientId, NodeId, PeerId, SessionId};
use crate::log::LogStore;
use crate::raft::rpc::{Caller, Rpc};
use crate::raft::wire::{Body, ReadAsked, Submit};
use crate::raft::{Consensus, Engine, RaftNumbers, RaftStatus, ReadIndexError, SubmitError};
use crate::raft::{SharedReplica, lock};
use crate::state::Applied;
use crate::state::command::plain::Draft;
use crate::state::command::{Body as Do, Configure};
use crate::state::sessions::AUTOMATIC;
use crate::watch::Watch;

pub use propose::ProposeError;
pub(crate) use reader::{Next, RawEvents};

use answer::submitted_from;
use house::keep_house;
use load::Load;
use patience::sweep;
use propose::ClientState;
pub(crate) use propose::Reserved;
use rounds::Rounds;
use serve::serve;

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

/// A read that cannot be promised to be the latest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No majority confirmed the leader in time.
    #[error("no majority confirmed a leader in time")]
    NoQuorum,
    /// The node has stopped.
    #[error("the session is closed")]
    Closed,
}

/// Frames this node did not serve.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DroppedFrames {
    /// Bytes that are no frame, or hold more of something than is ever sent.
    pub malformed: u64,
    /// Of another session.
    pub other_session: u64,
    /// For another life of this peer.
    pub other_life: u64,
    /// From a node that is no member, may not ask this, or speaks for another.
    pub not_member: u64,
    /// Answers nobody waited for.
    pub unasked: u64,
    /// Proposals, reads and announcements of others past what is served at a time.
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
    pub nonce: u64,
    /// Members this node was told of before its log names any.
    pub trusted: BTreeSet<NodeId>,
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
    load: Load,
    reads: Rounds<Result<u64, ReadIndexError>>,
    drops: Drops,
    configure: Configure,
    compaction: Option<Compaction>,
    nonce: u64,
    /// When a leader was last heard.
    heard: Mutex<Duration>,
    trusted: Mutex<BTreeSet<NodeId>>,
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
            reads: Rounds::new(),
            limits: parts.limits,
            timing: parts.timing,
            game_ahead_ms: AtomicU64::new(0),
            begun: parts.clock.now(),
            heard: Mutex::new(parts.clock.now()),
            clock: parts.clock,
            drops: Drops::default(),
            configure: parts.configure,
            compaction: parts.compaction,
            nonce: parts.nonce,
            trusted: Mutex::new(parts.trusted),
            tasks: Mutex::new(None),
            runtime: Handle::current(),
            closed: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(node.clone(), parts.incoming));
        tasks.spawn(keep_house(node.clone()));
        tasks.spawn(sweep(node.clone(), parts.timing.heartbeat()));
        *guard(&node.tasks) = Some(tasks);
        node
    }

    pub(crate) fn me(&self) -> &NodeId {
        self.rpc.me()
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

    pub(crate) fn dropped(&self) -> DroppedFrames {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DroppedFrames {
            malformed: read(&self.drops.malformed),
            other_session: read(&self.drops.other_session),
            other_life: read(&self.drops.other_life),
            not_member: read(&self.drops.not_member),
            unasked: read(&self.drops.unasked),
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

    /// Decides a command here, where this node leads.
    fn submit_here(
        &self,
        body: Do,
    ) -> impl Future<Output = Result<Applied, SubmitError>> + Send + '_ {
        self.stamp_and_submit(&Draft::Other(body))
    }

    fn stamp_and_submit(
        &self,
        draft: &Draft<'_>,
    ) -> impl Future<Output = Result<Applied, SubmitError>> + Send + use<'_> {
        self.engine.submit(draft.stamped(self.stamp()))
    }

    /// Decides a command of this node's own client here, within what is under way for all.
    async fn submit_own(&self, draft: &Draft<'_>) -> Result<Applied, SubmitError> {
        let Some(_carried) = self.load.take_own() else {
            return Err(SubmitError::Busy);
        };
        self.stamp_and_submit(draft).await
    }

    /// [`Node::submit_here`] for a member, within what is under way for it and for all.
    async fn submit_for(&self, from: &NodeId, draft: &Draft<'_>) -> Result<Applied, SubmitError> {
        let Some(_carried) = self.load.take(&from.peer) else {
            return Err(SubmitError::Busy);
        };
        self.stamp_and_submit(draft).await
    }

    /// Has a command decided by whoever leads, sending it again until `deadline`. Commands that
    /// go through here may be applied twice without harm.
    async fn submit(&self, body: Do, deadline: Instant) -> Result<Applied, Undecided> {
        let draft = Draft::Other(body);
        self.submit_noting(draft, None, deadline, &mut false).await
    }

    /// [`Node::submit`], noting in `maybe` whether an attempt before the answer may be in a log.
    /// `serial` is one of this node's under way.
    async fn submit_noting(
        &self,
        draft: Draft<'_>,
        serial: Option<u64>,
        deadline: Instant,
        maybe: &mut bool,
    ) -> Result<Applied, Undecided> {
        let mut hint: Option<NodeId> = None;
        let mut hops = 0u32;
        let mut busy = false;
        // The usual case at a leader, without what a thousand proposals would contend for.
        let now = Instant::now();
        if self.engine.leads() && now < deadline {
            let attempt = self.submit_own(&draft);
            match self.until(now, deadline, serial, attempt).await {
                Some(Ok(applied)) => return Ok(applied),
                Some(Err(SubmitError::NotLeader { leader })) => hint = leader,
                Some(Err(SubmitError::Busy)) => busy = true,
                Some(Err(SubmitError::Unknown)) => *maybe = true,
                Some(Err(SubmitError::Stopped(_))) => return Err(Undecided::stopped(*maybe)),
                None => {
                    return Err(Undecided::Late {
                        maybe: true,
                        leader: Some(self.me().clone()),
                    });
                }
            }
        }
        let mut status = self.engine.status();
        loop {
            let (believed, stopped) = {
                let now = status.borrow_and_update();
                (now.leader.clone(), now.stopped.is_some())
            };
            if stopped {
                return Err(Undecided::stopped(*maybe));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(if busy && !*maybe {
                    Undecided::Busy
                } else {
                    Undecided::Late {
                        maybe: *maybe,
                        leader: believed,
                    }
                });
            }
            let leader = hint.take().or(believed);
            let result = match &leader {
                Some(leader) if leader == self.me() => {
                    let attempt = self.submit_own(&draft);
                    match tokio::time::timeout(left, attempt).await {
                        Ok(result) => result,
                        Err(_) => {
                            return Err(Undecided::Late {
                                maybe: true,
                                leader: Some(leader.clone()),
                            });
                        }
                    }
                }
                Some(leader) => {
                    let hop = left.min(self.timing.election_max() * 2);
                    let forward = self.forward(leader, draft.stamped(0), hop);
                    Box::pin(forward).await
                }
                None => Err(SubmitError::NotLeader { leader: None }),
            };
            match result {
                Ok(applied) => return Ok(applied),
                Err(SubmitError::NotLeader { leader }) => {
                    busy = false;
                    hint = leader;
                }
                Err(SubmitError::Busy) => busy = true,
                Err(SubmitError::Unknown) => *maybe = true,
                Err(SubmitError::Stopped(_)) => return Err(Undecided::stopped(*maybe)),
            }
            hops += 1;
            // A hint is followed at once, but not for ever: two nodes may name each other.
            // Otherwise whoever leads next is waited for.
            if hint.is_none() || hint == leader || hops.is_multiple_of(3) {
                hint = None;
                let pause = self.timing.heartbeat().min(left);
                let _ = tokio::time::timeout(pause, status.changed()).await;
            }
        }
    }

    async fn forward(
        &self,
        leader: &NodeId,
        command: Bytes,
        hop: Duration,
    ) -> Result<Applied, SubmitError> {
        let asked = self.rpc.call(leader, Body::Submit(Submit { command }), hop);
        match asked.await {
            Ok(Body::Submitted(answer)) => submitted_from(answer),
            Ok(_) => Err(SubmitError::Unknown),
            Err(crate::raft::rpc::CallError::NotSent) => {
                Err(SubmitError::NotLeader { leader: None })
            }
            Err(_) => Err(SubmitError::Unknown),
        }
    }

    /// The entry a read must wait for, where this node leads.
    async fn read_index(&self) -> Result<u64, ReadIndexError> {
        let engine = self.engine.clone();
        let ask = async move { engine.read_index().await };
        self.reads.join(ask).await
    }

    /// Waits until this node has applied every turn that was acknowledged before the call.
    pub(crate) async fn read_barrier(&self, within: Duration) -> Result<u64, ReadError> {
        let deadline = Instant::now() + within;
        let mut status = self.engine.status();
        if lock(&self.replica).planted.local_reads {
            return Ok(self.feed.applied());
        }
        loop {
            let now = status.borrow_and_update().clone();
            if now.stopped.is_some() {
                return Err(ReadError::Closed);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ReadError::NoQuorum);
            }
            let index = match &now.leader {
                Some(leader) if leader == self.me() => {
                    match tokio::time::timeout(left, self.read_index()).await {
                        Ok(Ok(index)) => Some(index),
                        Ok(Err(ReadIndexError::Stopped(_))) => return Err(ReadError::Closed),
                        _ => None,
                    }
                }
                Some(leader) => {
                    let hop = left.min(self.timing.election_max() * 2);
                    match self.rpc.call(leader, Body::Read(ReadAsked {}), hop).await {
                        Ok(Body::ReadAt(at)) => at.index,
                        _ => None,
                    }
                }
                None => None,
            };
            if let Some(index) = index {
                let left = deadline.saturating_duration_since(Instant::now());
                let mut progress = self.feed.progress();
                let applied = progress.wait_for(|applied| *applied > index);
                return match tokio::time::timeout(left, applied).await {
                    Ok(Ok(_)) => Ok(index + 1),
                    _ => Err(ReadError::NoQuorum),
                };
            }
            let pause = self.timing.heartbeat().min(left);
            let _ = tokio::time::timeout(pause, status.changed()).await;
        }
    }

    /// Hands leadership to `to`, and waits until it leads.
    pub(crate) async fn transfer(&self, to: &NodeId, within: Duration) -> bool {
        let mut status = self.engine.status();
        if self.engine.transfer(to).await.is_err() {
            return false;
        }
        let led = status.wait_for(|status| status.leader.as_ref() == Some(to));
        matches!(tokio::time::timeout(within, led).await, Ok(Ok(_)))
    }

    /// How long ago a leader was heard. Raft itself goes on naming a leader that fell silent, since
    /// its pre-vote changes nothing.
    pub(crate) fn leader_silent_for(&self) -> Duration {
        self.clock.now().saturating_sub(*guard(&self.heard))
    }

    /// Whether this peer may say who is a member and who leads: a node of it votes by our own log, or
    /// is trusted.
    pub(crate) fn believes(&self, peer: &PeerId) -> bool {
        let membership = self.engine.status().borrow().membership.clone();
        let is_theirs = |node: &NodeId| node.peer == *peer;
        membership.voters.iter().any(is_theirs) || guard(&self.trusted).iter().any(is_theirs)
    }

    /// Takes frames of these nodes too, which somebody who is believed says are the members. Only
    /// while no leader is heard: otherwise there is nobody else to be told of.
    pub(crate) fn trust(&self, members: Vec<NodeId>) {
        if self.leader_silent_for() >= self.timing.election_max() * 3 {
            *guard(&self.trusted) = members.into_iter().collect();
        }
    }

    /// Whether a node of this peer is a member, by our own log or by who welcomed this node.
    pub(crate) fn knows(&self, peer: &PeerId) -> bool {
        let membership = self.engine.status().borrow().membership.clone();
        let mut members = membership.voters.iter().chain(&membership.learners);
        let is_theirs = |node: &NodeId| node.peer == *peer;
        members.any(is_theirs) || guard(&self.trusted).iter().any(is_theirs)
    }

    /// The peers that are members, this one among them: by our own log, or, before it names any, by
    /// who welcomed this node.
    pub(crate) fn members(&self) -> BTreeSet<PeerId> {
        let membership = self.engine.status().borrow().membership.clone();
        let peer = |node: &NodeId| node.peer.clone();
        if membership.voters.is_empty() {
            return guard(&self.trusted).iter().map(peer).collect();
        }
        let members = membership.voters.iter().chain(&membership.learners);
        members.map(peer).collect()
    }

    /// Counts frames of the lobby and the app lane whose sender is not known here, or may not say
    /// that.
    pub(crate) fn count_not_member(&self, frames: u64) {
        self.drops.not_member.fetch_add(frames, Ordering::Relaxed);
    }

    pub(crate) fn count_overload(&self) {
        count(&self.drops.overload);
    }

    pub(crate) fn count_malformed(&self) {
        count(&self.drops.malformed);
    }

    /// [`Node::submit`] for commands that may be applied twice without harm.
    pub(crate) async fn submit_idempotent(&self, body: Do, deadline: Instant) -> Option<Applied> {
        self.submit(body, deadline).await.ok()
    }
}

/// A command nobody decided in time.
enum Undecided {
    Late {
        /// Whether it may be in a log.
        maybe: bool,
        leader: Option<NodeId>,
    },
    /// The leader had too much under way: it is in no log.
    Busy,
    Closed,
}

impl Undecided {
    /// The node has stopped; `maybe` says whether an attempt before may be in a log.
    fn stopped(maybe: bool) -> Self {
        if maybe {
            Self::Late {
                maybe,
                leader: None,
            }
        } else {
            Self::Closed
        }
    }
}

#[cfg(test)]
mod tests;
