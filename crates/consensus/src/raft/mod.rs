//! Raft, as the rest of the crate sees it: our types, our trait, and messages between nodes.
//!
//! Only `engine` names openraft.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::NodeId;

/// Who is a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// Who votes; while the configuration is joint, in either half.
    pub voters: BTreeSet<NodeId>,
    /// The halves of a joint configuration, old before new; empty when it is not joint.
    pub joint: Vec<BTreeSet<NodeId>>,
    /// Who gets the log without a vote.
    pub learners: BTreeSet<NodeId>,
}

impl Membership {
    /// Whether a change of voters is under way.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        self.joint.len() > 1
    }

    /// Whether `node` gets the log.
    #[must_use]
    pub fn contains(&self, node: &NodeId) -> bool {
        self.voters.contains(node) || self.learners.contains(node)
    }

    /// Whether `alive` is a majority of every half.
    #[must_use]
    pub fn has_quorum(&self, alive: impl Fn(&NodeId) -> bool) -> bool {
        let majority = |half: &BTreeSet<NodeId>| {
            half.iter().filter(|node| alive(node)).count() > half.len() / 2
        };
        if self.is_joint() {
            self.joint.iter().all(majority)
        } else {
            majority(&self.voters)
        }
    }
}

/// What a leader knows about another member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last entry known to be in its log; `None` when nothing is known.
    pub matched: Option<u64>,
    /// How long ago it last answered; `None` when it never did.
    pub acked: Option<Duration>,
}

/// What a leader knows about the others.
pub type ProgressMap = BTreeMap<NodeId, Progress>;

mod engine;
pub(crate) mod rpc;
mod trace;
pub(crate) mod wire;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::log::{LogError, Record};
use crate::state::Applied;
use crate::watch::Watch;

#[cfg(feature = "testkit")]
pub(crate) use engine::Observer;
pub use engine::simulated;
pub(crate) use engine::{Engine, Nobody, ObserverRef, Parts, SharedReplica, StartError, lock};
pub(crate) use trace::Tracer;
pub use trace::{TRACE_MAX, TraceEvent, Traced};

/// What a node is at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Writes the log, and a majority has answered within the upper election timeout, or has just
    /// voted for it.
    Leader,
    /// Leads as far as it knows, and no majority has answered for longer than that: it decides
    /// nothing, and the others may follow another. [`Waiting`](crate::session::Waiting) says who
    /// does not answer.
    StaleLeader,
    /// Votes and follows.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote.
    Learner,
}

impl Role {
    /// Whether the node leads as far as it knows, confirmed or not.
    #[must_use]
    pub fn leads(self) -> bool {
        matches!(self, Self::Leader | Self::StaleLeader)
    }
}

/// A snapshot that is larger than its receiver takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SnapshotTooLarge {
    /// Bytes it has.
    pub bytes: u64,
    /// Bytes the receiver takes: its `Limits::snapshot_bytes_max`.
    pub max: u64,
}

/// What Raft reports of itself. Changes when the role, the leader, the term, the membership or the
/// refused snapshots do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftStatus {
    /// What this node is.
    pub role: Role,
    /// The term it is in.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// Who is a member, by the latest entry in the log, committed or not.
    pub membership: Arc<Membership>,
    /// The entry that says so.
    pub membership_index: u64,
    /// Whether that entry is committed.
    pub membership_committed: bool,
    /// Snapshots that are larger than their receiver takes, by the node at the other end: members
    /// that refuse this leader's, or the leader whose snapshot is refused here. Such a member falls
    /// behind until it is restarted with a higher limit; it is asked again now and then.
    pub snapshots_refused: Arc<BTreeMap<NodeId, SnapshotTooLarge>>,
    /// Why Raft stopped, if it did.
    pub stopped: Option<String>,
}

/// Numbers that change with every entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RaftNumbers {
    /// The last entry in the log.
    pub last: Option<u64>,
    /// The last entry known to be committed.
    pub committed: Option<u64>,
    /// The last entry applied.
    pub applied: Option<u64>,
    /// The last entry the latest snapshot contains.
    pub snapshot: Option<u64>,
    /// The last entry forgotten.
    pub purged: Option<u64>,
    /// What this node, when it leads, knows about the others.
    pub progress: ProgressMap,
    /// When it leads: how long ago a majority last answered.
    pub quorum_acked: Option<Duration>,
    /// Bytes of the last snapshot that was not written because it is larger than
    /// [`Limits::snapshot_bytes_max`](crate::config::Limits::snapshot_bytes_max): the log is kept
    /// instead. `None` when none was, or a later one fits.
    pub snapshot_too_large: Option<u64>,
}

/// A command that was not decided here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// This node does not lead; the command is not in the log.
    #[error("this node does not lead")]
    NotLeader {
        /// Who may.
        leader: Option<NodeId>,
    },
    /// The leader has as many commands under way as it may; this one is not in the log.
    #[error("the leader has too much under way")]
    Busy,
    /// The command was in the log of a leader that lost its place: it may still take effect.
    #[error("leadership was lost before the entry was decided")]
    Unknown,
    /// Raft has stopped.
    #[error("raft has stopped: {0}")]
    Stopped(String),
}

/// A change of members, one node at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Gives a node the log.
    AddLearner(NodeId),
    /// Gives a learner a vote.
    Promote(NodeId),
    /// Takes a node out, whatever it is.
    Remove(NodeId),
    /// Ends a joint configuration somebody left behind.
    FinishJoint,
}

/// A change of members that did not happen now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// Another change is under way: try again when it is done.
    #[error("another change of members is under way")]
    InProgress,
    /// This node does not lead, or lost its place meanwhile.
    #[error("this node does not lead")]
    NotLeader,
    /// The change makes no sense for the present members.
    #[error("the change does not fit the present members: {0}")]
    Refused(String),
    /// Raft has stopped.
    #[error("raft has stopped: {0}")]
    Stopped(String),
}

/// Leadership that was not handed over to the node that was named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// This node does not lead: ask the one that does.
    #[error("this node does not lead")]
    NotLeader {
        /// Who may.
        leader: Option<NodeId>,
    },
    /// Only another voter can lead, one that is not about to lose its vote. Nothing was handed over.
    #[error("{to} is no other voter")]
    NotAnotherVoter {
        /// Who was named.
        to: NodeId,
    },
    /// The voter did not answer within the upper election timeout, or lacks more entries than one
    /// message brings. Nothing was handed over.
    #[error("{to} does not answer, or lacks too much of the log")]
    NotReady {
        /// Who was named.
        to: NodeId,
    },
    /// A voter is just being taken out: try again when that is done. Nothing was handed over.
    #[error("a voter is just being taken out")]
    Changing,
    /// The voter was asked, and did not take over in time. This node has given up its leadership:
    /// whichever voter a majority elects leads next, within some election timeouts.
    #[error("{to} did not take over in time")]
    NotTaken {
        /// Who was named.
        to: NodeId,
    },
    /// Raft has stopped.
    #[error("raft has stopped: {0}")]
    Stopped(String),
}

/// A read that cannot be promised to see every acknowledged turn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadIndexError {
    /// This node does not lead.
    #[error("this node does not lead")]
    NotLeader {
        /// Who may.
        leader: Option<NodeId>,
    },
    /// No majority answered.
    #[error("no majority answered")]
    NoQuorum,
    /// Raft has stopped.
    #[error("raft has stopped: {0}")]
    Stopped(String),
}

/// Agreement on a log, behind a seam: openraft stands behind it in production.
pub(crate) trait Consensus: Send + Sync + 'static {
    fn status(&self) -> Watch<RaftStatus>;
    fn numbers(&self) -> RaftNumbers;
    /// Starts a new log with these voters. Harmless on a log that has begun.
    fn initialize(&self, voters: BTreeSet<NodeId>) -> BoxFuture<'_, Result<(), ChangeError>>;
    fn submit(
        &self,
        command: Bytes,
    ) -> impl Future<Output = Result<Applied, SubmitError>> + Send + use<'_, Self>;
    /// The index a linearizable read must wait to be applied.
    fn read_index(&self) -> BoxFuture<'_, Result<u64, ReadIndexError>>;
    fn change(&self, change: Change) -> BoxFuture<'static, Result<(), ChangeError>>;
    /// Asks another voter to take over, if it looks as if it could. Whether it did shows in the
    /// status; this node decides nothing from here on until somebody else leads.
    fn transfer(&self, to: &NodeId) -> BoxFuture<'_, Result<(), TransferError>>;
    /// Whom this node, which leads, has asked to take over.
    fn handing_to(&self) -> Option<NodeId>;
    /// Writes a snapshot and forgets the log it stands for.
    fn compact(&self) -> BoxFuture<'_, Result<(), SubmitError>>;
    fn read(&self, from: u64, to: u64) -> Result<Vec<Record>, LogError>;
    /// Answers a message of another node.
    fn handle(&self, from: &NodeId, request: wire::Body) -> BoxFuture<'_, Option<wire::Body>>;
    fn close(&self) -> BoxFuture<'_, ()>;
}
