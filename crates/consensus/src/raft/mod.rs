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
