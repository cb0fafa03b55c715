//! Votes on hashes of the state: how a node learns that it is not like the others.
//!
//! After every entry whose index is a multiple of the interval each node notes the hash of its
//! state, and each voter votes on the last one it noted. An entry that is itself a vote is no such
//! point, so that voting calls for no votes.
//!
//! Invariants
//! - which votes count follows from the log alone: the same ones on every node;
//! - a voter has one vote at a point, its first; a point is one that the voter can know, and one of
//!   the last [`POINTS_MAX`]: what is kept is bounded whatever is voted.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::NodeId;

/// Points that may be voted on: so many of the last.
pub const POINTS_MAX: u64 = 8;

/// Why a vote does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoVote {
    /// It names no node, or no hash.
    #[error("the vote names no node or no hash")]
    Malformed,
    /// The node does not vote.
    #[error("the node does not vote")]
    NotVoter,
    /// States are not compared after this entry.
    #[error("states are not compared after this entry")]
    NoPoint,
    /// The entry does not come before the vote.
    #[error("the vote is on an entry that does not come before it")]
    Ahead,
    /// The entry is too far back.
    #[error("the vote is on none of the last {POINTS_MAX} points")]
    Gone,
    /// The node has voted on this point.
    #[error("the node has voted on this point")]
    Twice,
}

/// One vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vote {
    pub at: u64,
    pub node: NodeId,
    pub hash: [u8; 32],
}

/// What was voted at the last points, and what this node found there itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Votes {
    pub(super) cast: BTreeMap<u64, BTreeMap<NodeId, [u8; 32]>>,
    /// Not part of the state: a node that skipped entries has none.
    own: BTreeMap<u64, [u8; 32]>,
    /// Votes that did not count. Not part of the state.
    pub(crate) refused: u64,
}

/// Whether states are compared after the entry `index`.
pub(super) fn is_point(index: u64, every: u64) -> bool {
    every != 0 && index != 0 && index.is_multiple_of(every)
}

fn is_gone(at: u64, now: u64, every: u64) -> bool {
    at.saturating_add(every.saturating_mul(POINTS_MAX)) < now
}

impl Votes {
    /// Notes this node's own hash at a point.
    pub(super) fn note(&mut self, at: u64, hash: [u8; 32]) {
        self.own.insert(at, hash);
        while self.own.len() as u64 > POINTS_MAX {
            self.own.pop_first();
        }
    }

    /// This node's latest hash, if it is still to vote on it. `applied` entries are applied.
    pub(super) fn to_cast(&self, me: &NodeId, applied: u64, every: u64) -> Option<(u64, [u8; 32])> {
        let (at, hash) = self.own.last_key_value()?;
        let voted = self.cast.get(at).is_some_and(|v| v.contains_key(me));
        (!voted && !is_gone(*at, applied + 1, every)).then_some((*at, *hash))
    }

    /// Whether a vote that stands in entry `index` counts.
    pub(super) fn check(
        &self,
        vote: &Vote,
        index: u64,
        every: u64,
        voters: &BTreeSet<NodeId>,
    ) -> Result<(), NoVote> {
        if !voters.contains(&vote.node) {
            return Err(NoVote::NotVoter);
        }
        if !is_point(vote.at, every) {
            return Err(NoVote::NoPoint);
        }
        if vote.at >= index {
            return Err(NoVote::Ahead);
        }
        if is_gone(vote.at, index, every) {
            return Err(NoVote::Gone);
        }
        let cast = self.cast.get(&vote.at);
        if cast.is_some_and(|cast| cast.contains_key(&vote.node)) {
            return Err(NoVote::Twice);
        }
        Ok(())
    }

    /// Counts a vote that [`Votes::check`] let through. Answers this node's own hash when most
    /// voters have this other one.
    pub(super) fn count(
        &mut self,
        vote: Vote,
        index: u64,
        every: u64,
        voters: &BTreeSet<NodeId>,
    ) -> Option<[u8; 32]> {
        self.cast.retain(|at, _| !is_gone(*at, index, every));
        let cast = self.cast.entry(vote.at).or_default();
        cast.insert(vote.node, vote.hash);
        let agreeing = cast
            .iter()
            .filter(|(node, hash)| **hash == vote.hash && voters.contains(*node))
            .count();
        let mine = self.own.get(&vote.at).copied()?;
        (agreeing > voters.len() / 2 && mine != vote.hash).then_some(mine)
    }
}
