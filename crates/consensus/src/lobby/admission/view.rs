//! What admission goes by, what it says, and how patient it is.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::{NodeId, PeerId};
use crate::lobby::wire::Verdict;
use crate::raft::{Membership, ProgressMap};
use crate::state::command::Kind;
use crate::state::seats::SeatTable;

/// How patient admission is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionTiming {
    /// A member that answered within this time counts as alive. Three heartbeats at least.
    pub alive_within: Duration,
    /// A member that did not answer for this long loses its place; with `None`, never. Above
    /// `alive_within`.
    pub evict_after: Option<Duration>,
    /// How long a node that has a place may do nothing for it: not announce itself, or not get
    /// nearer to the end of the log. Then it loses the place and must announce itself again. Must
    /// be longer than a snapshot takes to send. A joiner that gives up, because its time is over or
    /// somebody it believed told it so, says so and frees its place at once; this time is for one
    /// that dies, or whose word is lost.
    pub admit_within: Duration,
}

impl Default for AdmissionTiming {
    fn default() -> Self {
        Self {
            alive_within: Duration::from_secs(1),
            evict_after: None,
            admit_within: Duration::from_secs(10),
        }
    }
}

/// What the leader sees.
#[derive(Debug)]
pub(crate) struct View<'a> {
    /// The time since the node started.
    pub now: Duration,
    /// The leader.
    pub me: &'a NodeId,
    /// Who has a place, by the applied log.
    pub seats: &'a SeatTable,
    /// Whether the session is configured. Nothing is changed before.
    pub open: bool,
    /// The membership in effect.
    pub membership: &'a Membership,
    /// Whether the entry with it is committed.
    pub membership_committed: bool,
    /// The index of that entry.
    pub membership_index: u64,
    /// The last entry in the leader's log.
    pub last_log: u64,
    /// What the leader knows of the others.
    pub progress: &'a ProgressMap,
    /// Who can be reached.
    pub connected: &'a BTreeSet<PeerId>,
    /// Whether a change of membership has not been answered yet.
    pub change_in_flight: bool,
    /// Whether a seat or a vacating has not been applied yet.
    pub proposal_in_flight: bool,
    /// How patient to be.
    pub timing: &'a AdmissionTiming,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Propose that `node` gets a place.
    Seat { node: NodeId, kind: Kind },
    /// Propose that `node` loses its place.
    Vacate { node: NodeId, left: bool },
    /// Let the node have the log.
    AddLearner(NodeId),
    /// Let the learner vote: an additive change.
    Promote(NodeId),
    /// Remove the node, a voter or a learner, and nobody else.
    Remove(NodeId),
    /// Finish the change of voters a leader before this one began.
    FinishJoint,
    /// Let this voter lead instead: this node has no place any more.
    HandOver(NodeId),
    /// Tell who announced itself what became of it.
    Answer {
        to: PeerId,
        node: NodeId,
        verdict: Verdict,
    },
}

/// A view, and which members are alive by it.
pub(super) struct Seen<'a> {
    pub view: &'a View<'a>,
    pub live: BTreeSet<NodeId>,
    /// Of these, who answered what was sent since the seats and members are what they are.
    pub fresh: BTreeSet<NodeId>,
    /// See [`Admission`](super::Admission).
    pub promotes_at_once: bool,
}
