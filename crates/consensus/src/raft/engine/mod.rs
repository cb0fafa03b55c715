//! openraft behind our trait. Nothing outside this folder names it.
//!
//! What it does by default that we do not want, and how that is met here
//! - pre-vote is off, and a network that lacks it grants: it is on, and ours asks;
//! - a leader that restarts takes its term up again, and may have lost unsynced entries of it: that
//!   is off, it stands for election like any other;
//! - a leader cut off stays one, and goes on speaking: ours is [`Role::StaleLeader`] once no majority
//!   has answered within the upper election timeout, says next to nothing from then on (`quorum`),
//!   and callers put their own deadline on a submit;
//! - `add_learner(blocking)` does not wait for a peer that never existed: admission looks at what
//!   the learner acknowledged instead;
//! - a leader that hands over refuses everything from then on, and nothing but another leader ends
//!   that: it hands over to another voter alone, which answers, has nearly all of the log and keeps
//!   its vote; if that one dies all the same, the others are free to elect, as no heartbeat comes;
//! - a change of members whose future is dropped leaves a joint configuration: changes run in a
//!   task of their own, to their end or the engine's.

mod answer;
mod answered;
mod arrivals;
mod follow;
mod handover;
mod inbound;
mod machine;
mod network;
mod quorum;
mod refusals;
mod runtime;
mod store;
#[cfg(test)]
mod suite;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use openraft::errors::{
    ChangeMembershipError, ClientWriteError, InitializeError, LinearizableReadError, RaftError,
};
use openraft::{ChangeMembers, EmptyNode, ReadPolicy, SnapshotPolicy};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::rpc::Caller;
use super::wire::{Body, ENTRIES_MAX};
use super::{
    Change, ChangeError, Consensus, RaftNumbers, RaftStatus, ReadIndexError, SubmitError, Traced,
    TransferError,
};
use crate::config::{Limits, TIME_MAX, Timing};
use crate::events::Feed;
use crate::game::Malformed;
use crate::ids::{NodeId, SessionId};
use crate::log::{LogError, LogStore, Position, RECORD_BYTES_MAX, Record};
use crate::state::sessions::Rejection;
use crate::state::{Applied, Replica};
use crate::watch::{self, Watch};

use answered::Answered;
use arrivals::Arrivals;
use follow::{Follow, Led, Told, numbers_of, still_so};
use handover::Handing;
use inbound::Terms;
pub(crate) use machine::{Shared as SharedReplica, lock};
use quorum::Hush;
use refusals::Refusals;
pub use runtime::seeded as simulated;
use types::{Opaque, Types};

/// Looks on: for the simulator's invariants. Every method does nothing by default.
pub(crate) trait Observer: Send + Sync + 'static {
    fn appended(&self, _: &[Record]) {}
    fn truncated(&self, _last: Option<u64>) {}
    fn voted(&self, _term: u64) {}
    fn applied(&self, _: Position, _: &SharedReplica) {}
    fn installed(&self, _: Position) {}
    fn founded(&self, _: SessionId) {}
    /// The node did not come in, and gives its place back.
    fn gives_up(&self) {}
}

pub(crate) type ObserverRef = Arc<dyn Observer>;

/// Nobody looks on.
pub(crate) struct Nobody;

impl Observer for Nobody {}

/// What an [`Engine`] is made of.
pub(crate) struct Parts {
    pub me: NodeId,
    pub replica: Replica,
    pub feed: Feed,
    pub log: Arc<dyn LogStore>,
    pub caller: Arc<dyn Caller>,
    pub timing: Timing,
    pub limits: Limits,
    pub observer: ObserverRef,
}

/// How long each part of a close may take: a disk may never answer.
const CLOSE_STEP_WITHIN: Duration = Duration::from_secs(5);

/// An engine that did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The log's snapshot holds no state of this game.
    #[error("the log's snapshot holds no state of this game")]
    Unreadable,
    /// What the log, the configuration or openraft said.
    #[error("{0}")]
    Other(String),
}

impl From<String> for StartError {
    fn from(why: String) -> Self {
        Self::Other(why)
    }
}

type Raft = openraft::Raft<Types, machine::Machine>;

pub(crate) struct Engine {
    me: NodeId,
    raft: Raft,
    replica: SharedReplica,
    game_clock_ms: Arc<AtomicU64>,
    leads: Arc<AtomicBool>,
    log: Arc<dyn LogStore>,
    /// Entries in the snapshot it started from.
    started_after: u64,
    /// Whether an earlier process left the log.
    has_resumed: bool,
    status: watch::Sender<RaftStatus>,
    arrivals: Arc<Mutex<Arrivals>>,
    refusals: Refusals,
    answered: Answered,
    /// When the engine started: halves of snapshots go by the time since.
    began: tokio::time::Instant,
    too_large: machine::TooLarge,
    kept: store::Kept,
    /// How long what was asked for may take to be stored: whoever asked has given up by then.
    patience: Duration,
    terms: Terms,
    /// The term whose leader hands over, and to whom, when it said so last.
    handing: Handing,
    /// How long a vote may be ahead of the leader's word that it is wanted.
    heartbeat: Duration,
    /// A voter that answered within this time is there.
    lease: Duration,
    /// Held while a node is taken out: leadership that is handed to it meanwhile would be nobody's.
    removing: Arc<tokio::sync::Mutex<()>>,
    silent_at_most: Duration,
    /// Every task of ours. Dropped with the engine, they are aborted.
    tasks: Mutex<JoinSet<()>>,
    told: Told,
}

fn stopped(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Engine {
    /// Starts Raft on what the log holds.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub(crate) async fn start(parts: Parts) -> Result<Arc<Self>, StartError> {
        let timing = parts.timing;
        let config = openraft::Config {
            cluster_name: "cabinet".to_owned(),
            election_timeout_min: timing.election_min_ms,
            election_timeout_max: timing.election_max_ms,
            heartbeat_interval: timing.heartbeat_ms,
            // A heartbeat says nothing a fresh answer has not said.
            heartbeat_min_interval: Some(timing.heartbeat_ms / 2),
            install_snapshot_timeout: timing.election_max_ms * 20,
            max_payload_entries: 4096,
            replication_lag_threshold: u64::MAX / 2,
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: parts.limits.log_kept_after_snapshot,
            purge_batch_size: 1,
            enable_pre_vote: Some(true),
            // A leader that comes back may have lost entries it had sent and not synced: taking its
            // term up again, it would write others in their place.
            enable_leader_restore: Some(false),
            quorum_loss_probe_interval: Some(quorum::probe_ms(&timing)),
            backoff: format!(
                "{}ms ..{}ms",
                timing.heartbeat_ms.max(1),
                timing.election_max_ms.max(2)
            ),
            ..Default::default()
        };
        let config = Arc::new(config.validate().map_err(stopped)?);
        let replica: SharedReplica = Arc::new(Mutex::new(parts.replica));
        let held = parts.log.state().map_err(stopped)?;
        let snapshot = parts.log.load_snapshot().await.map_err(stopped)?;
        let holds = snapshot.as_ref().map(|snapshot| snapshot.through.index);
        if let Some(purged) = held.purged
            && holds.is_none_or(|holds| holds < purged.index)
        {
            // openraft would panic.
            let gone = format!(
                "the log's entries through {} are gone and no snapshot holds them: take this node out \
                 and let it join anew",
                purged.index
            );
            return Err(gone.into());
        }
        let vote = held.vote.as_ref().map(types::vote_from).transpose();
        let vote = vote.map_err(|_| "the log's vote is not one".to_owned())?;
        let terms = Terms::new(vote.map_or(0, |vote| vote.leader_id.term));
        let started_after = holds.map_or(0, |last| last + 1);
        let kept = store::Kept::new(held.last.map_or(0, |at| at.index + 1), started_after);
        let too_large = machine::TooLarge::new(parts.limits.snapshot_bytes_max);
        let game_clock_ms = Arc::new(AtomicU64::new(0));
        let machine = machine::Machine {
            replica: replica.clone(),
            game_clock_ms: game_clock_ms.clone(),
            feed: parts.feed,
            log: parts.log.clone(),
            observer: parts.observer.clone(),
            kept: kept.clone(),
            too_large: too_large.clone(),
            applied: None,
            members: types::Stored::default(),
        };
        let machine = machine
            .opened(snapshot)
            .map_err(|_| StartError::Unreadable)?;
        let chunk_timeout = timing.election_max() * 4;
        let refusals = Refusals::new();
        let answered = Answered::default();
        let bytes_max = parts.limits.snapshot_bytes_max as u64;
        let arrivals = Arrivals::new(bytes_max, chunk_timeout * 4);
        let arrivals = Arc::new(Mutex::new(arrivals));
        let began = tokio::time::Instant::now();
        let hush = Hush::default();
        let network = network::Network {
            me: parts.me.clone(),
            caller: parts.caller,
            chunk_bytes: parts.limits.snapshot_chunk_bytes,
            chunk_timeout,
            refusals: refusals.clone(),
            terms: terms.clone(),
            answered: answered.clone(),
            hush: hush.clone(),
        };
        let store = store::Store {
            log: parts.log.clone(),
            observer: parts.observer,
            kept: kept.clone(),
            terms: terms.clone(),
        };
        let raft = Raft::new(parts.me.clone(), config, network, store, machine)
            .await
            .map_err(stopped)?;
        let lease = match lock(&replica).planted.leads_alone {
            true => TIME_MAX,
            false => timing.election_max(),
        };
        let mut led = Led::default();
        let (status, _) = watch::channel(led.status_of(&raft, &refusals, lease));
        let told = Told::new(parts.log.clone(), too_large.clone());
        let handing: Handing = watch::channel(None).0;
        let leads = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let follow = Follow {
            raft: raft.clone(),
            status: status.clone(),
            leads: leads.clone(),
            refusals: refusals.clone(),
            answered: answered.clone(),
            arrivals: arrivals.clone(),
            began,
            again: timing.heartbeat(),
            lease,
            led,
            hush,
            handing: handing.clone(),
            told: told.clone(),
        };
        tasks.spawn(follow.run());
        let engine = Self {
            me: parts.me,
            raft,
            replica,
            game_clock_ms,
            leads,
            log: parts.log,
            started_after,
            has_resumed: held.has_begun(),
            status,
            arrivals,
            refusals,
            answered,
            began,
            too_large,
            kept,
            patience: chunk_timeout,
            terms,
            handing,
            heartbeat: timing.heartbeat(),
            lease: timing.election_max(),
            removing: Arc::default(),
            silent_at_most: quorum::silent_at_most(&timing),
            tasks: Mutex::new(tasks),
            told,
        };
        Ok(Arc::new(engine))
    }

    /// The game's clock as of the last applied entry, without waiting for one being applied.
    pub(crate) fn game_clock_ms(&self) -> u64 {
        self.game_clock_ms.load(Ordering::Acquire)
    }

    /// How many entries the snapshot stands for that the node started from.
    pub(crate) fn started_after(&self) -> u64 {
        self.started_after
    }

    /// Whether it went on with a log that an earlier process left.
    pub(crate) fn has_resumed(&self) -> bool {
        self.has_resumed
    }

    /// Whether this node led when it last looked: for who would ask very often.
    pub(crate) fn leads(&self) -> bool {
        self.leads.load(Ordering::Acquire)
    }

    /// The first entry of this node's own term, from 0, if it leads and one of it is committed.
    pub(crate) fn committed_from(&self) -> Option<u64> {
        self.told.committed_from(&self.raft)
    }

    /// Answers of other nodes that could not be true.
    pub(crate) fn false_answers(&self) -> u64 {
        self.answered.refused()
    }

    /// How long the members have been in this node's log without being known to be committed; `None`
    /// when they are.
    pub(crate) fn change_pending(&self) -> Option<Duration> {
        self.told.change_pending(self.began.elapsed())
    }

    /// The longest a leader that still leads says nothing to who can hear it: without a majority it
    /// speaks by turns.
    pub(crate) fn leader_silent_at_most(&self) -> Duration {
        self.silent_at_most
    }

    /// What the node did from an entry of its trace on.
    pub(crate) fn trace(&self, from: u64) -> Vec<Traced> {
        self.told.tracer().since(from)
    }

    /// The number of the last entry of the trace.
    pub(crate) fn traced(&self) -> Watch<u64> {
        self.told.traced.subscribe()
    }

    /// The state, to look at.
    pub(crate) fn replica(&self) -> &SharedReplica {
        &self.replica
    }

    /// openraft's own write, with nothing of ours around it: what the bench holds a turn against.
    #[cfg(feature = "testkit")]
    pub(crate) async fn client_write(&self, entry: Bytes) -> Result<(), SubmitError> {
        let written = self.raft.client_write(Opaque(entry)).await;
        written.map(drop).map_err(write_error)
    }

    /// What only a planted bug does: names everybody who is to vote, and forgets who only watches.
    fn replace_all(
        &self,
        members: &super::Membership,
        newcomer: NodeId,
    ) -> BoxFuture<'static, Result<(), ChangeError>> {
        let raft = self.raft.clone();
        let mut voters = members.voters.clone();
        voters.insert(newcomer);
        let nodes = voters.iter().map(|node| (node.clone(), EmptyNode::new()));
        let nodes = ChangeMembers::ReplaceAllNodes(nodes.collect());
        let voters = ChangeMembers::ReplaceAllVoters(voters);
        async move {
            for change in [voters, nodes] {
                let changed = raft.change_membership(change, false).await;
                changed.map_err(change_error)?;
            }
            Ok(())
        }
        .boxed()
    }
}

fn write_error(error: RaftError<Types, ClientWriteError<Types>>) -> SubmitError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => SubmitError::NotLeader {
            leader: forward.leader_id,
        },
        RaftError::APIError(_) => SubmitError::Unknown,
        RaftError::Fatal(fatal) => SubmitError::Stopped(stopped(fatal)),
    }
}

fn change_error(error: RaftError<Types, ClientWriteError<Types>>) -> ChangeError {
    match error {
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
        )) => ChangeError::InProgress,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(other)) => {
            ChangeError::Refused(stopped(other))
        }
        RaftError::APIError(_) => ChangeError::NotLeader,
        RaftError::Fatal(fatal) => ChangeError::Stopped(stopped(fatal)),
    }
}

impl Engine {
    /// The status as it is, for who only looks: nobody is subscribed for it.
    pub(crate) fn present(&self) -> &watch::Sender<RaftStatus> {
        &self.status
    }
}

impl Consensus for Engine {
    fn status(&self) -> Watch<RaftStatus> {
        self.status.subscribe()
    }

    fn numbers(&self) -> RaftNumbers {
        numbers_of(&self.raft, &self.too_large)
    }

    fn initialize(&self, voters: BTreeSet<NodeId>) -> BoxFuture<'_, Result<(), ChangeError>> {
        async move {
            let members: BTreeMap<_, _> = voters
                .into_iter()
                .map(|node| (node, EmptyNode::new()))
                .collect();
            match self.raft.initialize(members).await {
                // A log that has begun has its members already.
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
                Err(RaftError::APIError(other)) => Err(ChangeError::Refused(stopped(other))),
                Err(RaftError::Fatal(fatal)) => Err(ChangeError::Stopped(stopped(fatal))),
            }
        }
        .boxed()
    }

    async fn submit(&self, command: Bytes) -> Result<Applied, SubmitError> {
        // The log would refuse it, and openraft would stop.
        if command.len() > RECORD_BYTES_MAX {
            let max = RECORD_BYTES_MAX as u64;
            return Ok(Applied::Rejected(Rejection::TooLarge { max }));
        }
        let (responder, decided) = types::Responder::complete_only();
        // On the heap until it is sent: who waits for a thousand verdicts waits with little memory.
        let sent = Box::pin(self.raft.client_write_ff(Opaque(command), Some(responder)));
        let sent = sent.await;
        sent.map_err(|fatal| SubmitError::Stopped(stopped(fatal)))?;
        match decided.await {
            Ok(written) => written
                .map(|done| done.data)
                .map_err(|error| write_error(RaftError::APIError(error))),
            // Raft dropped it, and so has stopped. It may have written it before.
            Err(_) => Err(SubmitError::Unknown),
        }
    }

    fn read_index(&self) -> BoxFuture<'_, Result<u64, ReadIndexError>> {
        async move {
            match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
                Ok((read, _)) => Ok(read.index()),
                Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                    Err(ReadIndexError::NotLeader {
                        leader: forward.leader_id,
                    })
                }
                Err(RaftError::APIError(_)) => Err(ReadIndexError::NoQuorum),
                Err(RaftError::Fatal(fatal)) => Err(ReadIndexError::Stopped(stopped(fatal))),
            }
        }
        .boxed()
    }

    fn change(&self, change: Change) -> BoxFuture<'static, Result<(), ChangeError>> {
        let raft = self.raft.clone();
        let (members, index) = {
            let status = self.status.borrow();
            (status.membership.clone(), status.membership_index)
        };
        let is_voter = |node: &NodeId| members.voters.contains(node);
        let absolute = lock(&self.replica).planted.absolute_voters;
        let removing = matches!(change, Change::Remove(_)).then(|| self.removing.clone());
        let (change, retain) = match change {
            Change::Promote(node) if absolute => return self.replace_all(&members, node),
            Change::AddLearner(node) => (
                ChangeMembers::AddNodes([(node, EmptyNode::new())].into()),
                true,
            ),
            Change::Promote(node) => (ChangeMembers::AddVoterIds([node].into()), true),
            Change::Remove(node) if is_voter(&node) => {
                (ChangeMembers::RemoveVoters([node].into()), false)
            }
            Change::Remove(node) => (ChangeMembers::RemoveNodes([node].into()), true),
            Change::FinishJoint => (ChangeMembers::AddVoterIds(BTreeSet::new()), true),
        };
        // A task of its own: dropped between its two halves, a change would leave them joint.
        let (done, changed) = oneshot::channel();
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let _removing = match &removing {
                Some(removing) => Some(removing.lock().await),
                None => None,
            };
            let changed = match still_so(&raft, index) {
                Ok(()) => {
                    let changed = raft.change_membership(change, retain).await;
                    changed.map(|_| ()).map_err(change_error)
                }
                Err(error) => Err(error),
            };
            // Who asked may have stopped waiting.
            let _ = done.send(changed);
        });
        drop(tasks);
        async move {
            changed
                .await
                .unwrap_or_else(|_| Err(ChangeError::Stopped("the change was cancelled".into())))
        }
        .boxed()
    }

    fn transfer(&self, to: &NodeId) -> BoxFuture<'_, Result<(), TransferError>> {
        self.hand_over(to.clone()).boxed()
    }

    fn handing_to(&self) -> Option<NodeId> {
        self.hands_over_to()
    }

    fn compact(&self) -> BoxFuture<'_, Result<(), SubmitError>> {
        async move {
            let asked = self.raft.trigger().snapshot().await;
            asked.map_err(|fatal| SubmitError::Stopped(stopped(fatal)))
        }
        .boxed()
    }

    fn read(&self, from: u64, to: u64) -> Result<Vec<Record>, LogError> {
        self.log.read(from, to)
    }

    fn handle(&self, from: &NodeId, request: Body) -> BoxFuture<'_, Option<Body>> {
        let from = from.clone();
        async move {
            let answer = match request {
                Body::Append(append) => self.on_append(&from, append).await,
                Body::Vote(ask) => self.on_vote(&from, ask).await,
                Body::Chunk(chunk) => self.on_chunk(&from, chunk).await,
                Body::Transfer(ask) => self.on_transfer(&from, ask).await,
                _ => Err(Malformed),
            };
            answer.ok()
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            // Only a panic of openraft's own task makes this fail, and then it is gone as well.
            let ended = tokio::time::timeout(CLOSE_STEP_WITHIN, self.raft.shutdown()).await;
            if ended.is_err() {
                tracing::error!("raft does not stop: its disk may not answer");
            }
            let mut tasks =
                std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
            tasks.shutdown().await;
            self.status.modify(|status| {
                let first = status.stopped.is_none();
                status
                    .stopped
                    .get_or_insert_with(|| "it was shut down".to_owned());
                first
            });
            if tokio::time::timeout(CLOSE_STEP_WITHIN, self.log.close())
                .await
                .is_err()
            {
                tracing::error!("the log does not close: its disk may not answer");
            }
        }
        .boxed()
    }
}
