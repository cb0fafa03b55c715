//! What may be done by what is seen: who gets a place, who caught up, and which changes of voters
//! leave a majority that answers.

use std::collections::BTreeSet;

use super::Candidate;
use super::view::Seen;
use crate::ids::{NodeId, SessionId};
use crate::lobby::wire::{Announce, Verdict};
use crate::raft::Progress;

/// How many entries a learner may lack of those there were when it became one.
pub(super) const CATCH_UP_SLACK: u64 = 8;

/// What an announcement is answered with, or `None` while its case is open.
pub(super) fn verdict(seen: &Seen<'_>, session: SessionId, announce: &Announce) -> Option<Verdict> {
    if announce.session.is_some_and(|meant| meant != session) {
        return Some(Verdict::WrongSession);
    }
    if !seen.view.open {
        return Some(Verdict::NotOpen);
    }
    // It would wait for a vote in vain, and hold a seat meanwhile.
    if announce.needs_vote && !seen.view.seats.core.is_empty() {
        return Some(Verdict::CoreVotes);
    }
    let node = &announce.node;
    if announce.begins && had_log(seen, node) {
        return Some(Verdict::LogLost);
    }
    let in_it = seen.view.membership_committed && seen.view.membership.contains(node);
    if holds_place(seen, node) {
        return in_it.then_some(Verdict::Welcome);
    }
    seen.view
        .seats
        .clone()
        .take(node, announce.kind)
        .err()
        .map(Verdict::from)
}

/// Whether this very life of the peer was given the log and acknowledged a part of it: nobody is a
/// voter before, and none but a planted bug makes one. If it says that it begins, its log is gone, and
/// with it the votes it gave. Who announced itself and came in does not ask any more, so an
/// announcement that is late is answered to nobody who minds.
///
/// Of a life that was put out nothing is kept, and nothing is needed: once the change is committed
/// that took it out, what it voted and acknowledged counts for nobody. It comes in as a learner, takes
/// over the leader's term with the first entries, and votes only when it has the log. Until that
/// commit it is a voter here.
fn had_log(seen: &Seen<'_>, node: &NodeId) -> bool {
    let voted = seen.view.membership.voters.contains(node) && !seen.promotes_at_once;
    voted || progress(seen, node).matched.is_some()
}

/// Whether this very life of the peer has a place, or votes by the session's settings.
pub(super) fn holds_place(seen: &Seen<'_>, node: &NodeId) -> bool {
    has_seat(seen, node) || seen.view.seats.core.contains(node)
}

/// Whether this very life of the peer has a place that can be taken from it.
pub(super) fn has_seat(seen: &Seen<'_>, node: &NodeId) -> bool {
    seen.view
        .seats
        .place_of(&node.peer)
        .is_some_and(|(_, life)| life == node.incarnation)
}

pub(super) fn progress(seen: &Seen<'_>, node: &NodeId) -> Progress {
    seen.view.progress.get(node).copied().unwrap_or_default()
}

pub(super) fn alive(seen: &Seen<'_>, node: &NodeId) -> bool {
    seen.live.contains(node)
}

/// Whether the learner answers, and has acknowledged both the entry that made it one and what there
/// was in the log then.
pub(super) fn caught_up(seen: &Seen<'_>, node: &NodeId, candidate: &Candidate) -> bool {
    let wanted = candidate
        .target
        .map(|target| target.max(seen.view.membership_index));
    alive(seen, node)
        && matches!((progress(seen, node).matched, wanted), (Some(has), Some(wanted)) if has >= wanted)
}

pub(super) fn could_lead(seen: &Seen<'_>, node: &NodeId) -> bool {
    let matched = progress(seen, node).matched;
    alive(seen, node)
        && matched.is_some_and(|has| has >= seen.view.last_log.saturating_sub(CATCH_UP_SLACK))
}

pub(super) fn majority_of(voters: &BTreeSet<NodeId>, counted: &BTreeSet<NodeId>) -> bool {
    voters.intersection(counted).count() > voters.len() / 2
}

/// Whether the voters without `node` have a majority among those `counted`, and those with it too.
pub(super) fn may_remove(seen: &Seen<'_>, node: &NodeId, counted: &BTreeSet<NodeId>) -> bool {
    let mut remaining = seen.view.membership.voters.clone();
    remaining.remove(node);
    !remaining.is_empty()
        && !seen.view.membership.is_joint()
        && majority_of(&remaining, counted)
        && seen
            .view
            .membership
            .has_quorum(|node| counted.contains(node))
}

/// Whether the voters with `node` have a majority that answers, `node` among it, and those without
/// it too.
pub(super) fn may_promote(seen: &Seen<'_>, node: &NodeId) -> bool {
    let mut voters = seen.view.membership.voters.clone();
    voters.insert(node.clone());
    seen.fresh.contains(node)
        && majority_of(&voters, &seen.fresh)
        && seen
            .view
            .membership
            .has_quorum(|node| seen.fresh.contains(node))
}
