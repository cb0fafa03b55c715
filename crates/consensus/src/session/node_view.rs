//! What a player, an operator or a test may see of its node, and the few things they may ask of it.
//!
//! Invariants
//! - what is told of times is told by the clock of the runtime the node runs on, whoever asks and
//!   wherever: a test outside its virtual time is told the same as one inside.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::NodeId;
use crate::node::{DroppedFrames, Node, ReadError};
use crate::raft::{
    Consensus, Membership, RaftNumbers, RaftStatus, Role, SnapshotTooLarge, Traced, TransferError,
};
use crate::state::seats::NoPlace;
use crate::watch::Watch;

/// Why a game does not go on just now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Waiting {
    /// Nothing is waited for.
    No,
    /// No leader is known, or the one that is fell silent: an election is under way, or no majority
    /// is reachable.
    ForLeader,
    /// This node leads and hears from too few voters.
    ForVoters {
        /// Voters that answer, this one among them.
        reachable: usize,
        /// Voters there are.
        of: usize,
        /// Who does not answer.
        missing: Vec<NodeId>,
    },
    /// A change of voters is under way, which needs a majority of the voters before it and of those
    /// after it, and they do not answer whoever leads. It can neither be finished nor undone while so
    /// many are silent: bring back one of them with its log. A node that follows says so of a change
    /// that has been in its log for longer than a node may be silent, and is not known to be
    /// committed, while it hears the leader; only the leader knows who is missing.
    ForChange {
        /// Who voted before.
        before: BTreeSet<NodeId>,
        /// Who is to vote after it.
        after: BTreeSet<NodeId>,
        /// Who of both does not answer; empty where this node does not lead.
        missing: Vec<NodeId>,
    },
    /// This node has no place in the game any more, and whoever leads gives it none: see
    /// [`GameSession::refused`](crate::session::GameSession::refused).
    ForPlace(NoPlace),
    /// This node follows, and the game's state, which it lacks, is larger than it takes: it gets no
    /// further until it is restarted with a higher `Limits::snapshot_bytes_max`.
    ForSnapshot {
        /// Whose snapshot was refused.
        from: NodeId,
        /// How large it is, and how large it may be.
        too_large: SnapshotTooLarge,
    },
    /// This node leads, and has asked a voter to take over: it decides nothing until that one, or
    /// another, leads.
    ForHandover {
        /// Who was asked.
        to: NodeId,
    },
    /// This node leads, and nothing of its own term is committed yet.
    ForFirstCommit,
    /// The node has stopped.
    Stopped(String),
}

/// What a node is at one moment, and why its game waits if it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// What it is.
    pub role: Role,
    /// In which term.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// What it waits for.
    pub waiting: Waiting,
}

/// A node, to look at.
#[derive(Clone)]
pub struct NodeView {
    node: Arc<Node>,
}

impl fmt::Debug for NodeView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.id())
    }
}

impl NodeView {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    /// The node's name.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        self.node.me()
    }

    /// Role, leader, term and members, and when they change.
    #[must_use]
    pub fn status(&self) -> Watch<RaftStatus> {
        self.node.status()
    }

    /// Role, leader and term, and why the game waits, when a node counts as gone after `silent`.
    #[must_use]
    pub fn state(&self, silent: Duration) -> NodeState {
        let status = self.node.status().get();
        NodeState {
            role: status.role,
            term: status.term,
            leader: status.leader.clone(),
            waiting: self.waits_for(status, silent),
        }
    }

    /// Who leads, as far as this node knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.node.status().borrow().leader.clone()
    }

    /// Indices and what a leader knows of the others, as Raft counts them: from 0.
    #[must_use]
    pub fn numbers(&self) -> RaftNumbers {
        let _on_its_time = self.node.on_its_time();
        self.node.numbers()
    }

    /// The members, by the latest entry in the log.
    #[must_use]
    pub fn membership(&self) -> Arc<Membership> {
        self.node.status().borrow().membership.clone()
    }

    /// Who votes; while a change of voters is under way, in either half.
    #[must_use]
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.membership().voters.clone()
    }

    /// Who gets the log without a vote.
    #[must_use]
    pub fn learners(&self) -> BTreeSet<NodeId> {
        self.membership().learners.clone()
    }

    /// The last entry known here to be committed, from 1; 0 when none.
    #[must_use]
    pub fn commit_index(&self) -> u64 {
        self.node.numbers().committed.map_or(0, |index| index + 1)
    }

    /// The first entry, from 1, of the term this node leads in, once an entry of that term is
    /// committed. `None` while it is not, and where it does not lead: a leader does not know which
    /// entries of earlier terms are committed before one of its own is.
    #[must_use]
    pub fn committed_from(&self) -> Option<u64> {
        self.node.engine.committed_from().map(|index| index + 1)
    }

    /// The last entry this node has applied, from 1; 0 when none.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.node.feed.applied()
    }

    /// Frames this node did not serve.
    #[must_use]
    pub fn dropped_frames(&self) -> DroppedFrames {
        self.node.dropped()
    }

    /// Writes `entry` with openraft's own call, of no client and no turn: what the bench holds a
    /// turn against. The state takes no notice of bytes that are no command.
    ///
    /// # Errors
    ///
    /// [`SubmitError`](crate::raft::SubmitError), as it comes.
    #[doc(hidden)]
    #[cfg(feature = "testkit")]
    pub async fn client_write(&self, entry: bytes::Bytes) -> Result<(), crate::raft::SubmitError> {
        self.node.engine.client_write(entry).await
    }

    /// Why the game does not go on, when a node counts as gone after `silent`.
    #[must_use]
    pub fn waiting(&self, silent: Duration) -> Waiting {
        self.waits_for(self.node.status().get(), silent)
    }

    fn waits_for(&self, status: RaftStatus, silent: Duration) -> Waiting {
        let _on_its_time = self.node.on_its_time();
        if let Some(why) = status.stopped {
            return Waiting::Stopped(why);
        }
        if let Some(why) = self.node.refused().get() {
            return Waiting::ForPlace(why);
        }
        if status.leader.as_ref() != Some(self.id()) {
            return self.follower_waits_for(&status, silent);
        }
        // Before anything else: it sends no heartbeats, so nobody answers any.
        if let Some(to) = self.node.engine.handing_to() {
            return Waiting::ForHandover { to };
        }
        let numbers = self.node.numbers();
        let alive = |voter: &NodeId| {
            voter == self.id()
                || numbers
                    .progress
                    .get(voter)
                    .and_then(|progress| progress.acked)
                    .is_some_and(|ago| ago <= silent)
        };
        if !status.membership.has_quorum(alive) {
            let voters = &status.membership.voters;
            let missing: Vec<_> = voters.iter().filter(|v| !alive(v)).cloned().collect();
            if let [before, .., after] = &status.membership.joint[..] {
                return Waiting::ForChange {
                    before: before.clone(),
                    after: after.clone(),
                    missing,
                };
            }
            return Waiting::ForVoters {
                reachable: voters.len() - missing.len(),
                of: voters.len(),
                missing,
            };
        }
        match self.committed_from() {
            Some(_) => Waiting::No,
            None => Waiting::ForFirstCommit,
        }
    }

    fn follower_waits_for(&self, status: &RaftStatus, silent: Duration) -> Waiting {
        let Some(leader) = &status.leader else {
            return Waiting::ForLeader;
        };
        // Raft goes on naming a leader that fell silent.
        let silence = self.node.leader_silent_for();
        let is_heard = silence <= silent;
        if let Some(too_large) = status.snapshots_refused.get(leader)
            && is_heard
        {
            return Waiting::ForSnapshot {
                from: leader.clone(),
                too_large: *too_large,
            };
        }
        let leads_still = is_heard || silence <= self.node.engine.leader_silent_at_most();
        let pending = self.node.engine.change_pending();
        if let [before, .., after] = &status.membership.joint[..]
            && pending.is_some_and(|pending| pending > silent)
            && leads_still
        {
            return Waiting::ForChange {
                before: before.clone(),
                after: after.clone(),
                missing: Vec::new(),
            };
        }
        if is_heard {
            Waiting::No
        } else {
            Waiting::ForLeader
        }
    }

    /// Waits until this node has applied every turn acknowledged before the call, on whichever
    /// node; answers an index it has applied.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when no majority confirms a leader in time.
    pub async fn read_barrier(&self, within: Duration) -> Result<u64, ReadError> {
        self.node.read_barrier(within).await
    }

    /// Hands leadership to another voter, and waits for it to lead; [`TIME_MAX`](crate::config::TIME_MAX)
    /// at most. One that does not answer yet, or lacks much of the log, is waited for as long.
    ///
    /// From when it is asked until somebody else leads, this node decides nothing and says
    /// [`Waiting::ForHandover`]. If the voter dies at that moment, another is elected: the others
    /// hear from no leader any more, and this node gives its vote like any other.
    ///
    /// # Errors
    ///
    /// [`TransferError`]; only with [`TransferError::NotTaken`] has this node given up its
    /// leadership.
    pub async fn transfer(&self, to: &NodeId, within: Duration) -> Result<(), TransferError> {
        self.node.transfer(to, within).await
    }

    /// What this node did, from entry `from` of its trace on, which is from 1. The latest
    /// [`TRACE_MAX`](crate::raft::TRACE_MAX) are kept: a first number above `from` says that some
    /// are gone.
    #[must_use]
    pub fn trace(&self, from: u64) -> Vec<Traced> {
        self.node.engine.trace(from)
    }

    /// The number of the trace's last entry, and when it grows.
    #[must_use]
    pub fn traced(&self) -> Watch<u64> {
        self.node.engine.traced()
    }
}
