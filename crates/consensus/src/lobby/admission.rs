//! Admission: what whoever leads does so that the membership becomes what the seats say.
//!
//! A reconciler, not a procedure: every [`Admission::step`] looks at the whole [`View`] and says
//! the next few steps. It remembers only what it heard and when it first saw what it waits for, so
//! a new leader starts from the replicated table with an empty one.
//!
//! Invariants
//! - at most one change of membership and one proposal per step, each about one node: there is no
//!   absolute voter set, so spectators survive every change of voters;
//! - a node becomes a learner only if it announced itself lately, and a voter only after it
//!   acknowledged the entries it lacked when it became a learner;
//! - no change of voters leaves those that answer without a majority, before it or after it; who
//!   answered only before the seats and members became what they are does not count: a voter that
//!   was lost since would be needed for ever;
//! - a leader that is no member any more changes nothing;
//! - the last voter is never removed, nor the leader while another could lead;
//! - one answer per announcement heard.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::wire::{Announce, Verdict};
use crate::ids::{NodeId, PeerId, SessionId};
use crate::raft::{Membership, Progress, ProgressMap};
use crate::state::command::Kind;
use crate::state::seats::SeatTable;

/// How often a node that wants in announces itself until it is answered.
pub(crate) const REANNOUNCE_EVERY: Duration = Duration::from_millis(500);
/// How long an announcement counts.
pub(crate) const ANNOUNCEMENT_LASTS: Duration = Duration::from_millis(1500);
/// Most peers whose announcements are kept; those of others are dropped until one expires.
pub(crate) const ANNOUNCED_MAX: usize = 512;
/// How many entries a learner may lack of those there were when it became one.
const CATCH_UP_SLACK: u64 = 8;

/// An announcement that is not heard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NotHeard {
    /// It is another peer's.
    #[error("{from} announced {node}: drop it and count it against {from}")]
    NotItsOwn { from: PeerId, node: NodeId },
    /// As many peers have announced themselves as are kept.
    #[error("{max} peers have announced themselves: it must come again later")]
    TooMany { max: usize },
}

/// How patient admission is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionTiming {
    /// A member that answered within this time counts as alive. More than a few heartbeats.
    pub alive_within: Duration,
    /// A member that did not answer for this long loses its place; with `None`, never.
    pub evict_after: Option<Duration>,
    /// How long a node that has a place may do nothing for it: not announce itself, or not get
    /// nearer to the end of the log. Then it loses the place and must announce itself again. Must
    /// be longer than a snapshot takes to send.
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
    /// Tell who announced itself what became of it.
    Answer {
        to: PeerId,
        node: NodeId,
        verdict: Verdict,
    },
}

/// A view, and which members are alive by it.
struct Seen<'a> {
    view: &'a View<'a>,
    live: BTreeSet<NodeId>,
    /// Of these, who answered what was sent since the seats and members are what they are.
    fresh: BTreeSet<NodeId>,
}

/// The seats and members when last seen.
#[derive(Debug)]
struct Standing {
    seats: SeatTable,
    membership_index: u64,
    /// Since when they are so.
    since: Duration,
}

#[derive(Debug)]
struct Heard {
    announce: Announce,
    /// When the first of its announcements was heard: who came first is seated first.
    first: Duration,
    last: Duration,
    answered: bool,
}

/// A node with a place that is not yet what its place makes it.
#[derive(Debug)]
struct Candidate {
    /// Since when nothing it does itself excuses it.
    since: Duration,
    /// The entry it must have, set when it is first seen as a learner.
    target: Option<u64>,
    /// What it had acknowledged when last seen: a learner that gets nearer is not given up, or a
    /// long log would keep it out for ever.
    matched: Option<u64>,
}

/// The reconciler.
#[derive(Debug)]
pub(crate) struct Admission {
    session: SessionId,
    heard: BTreeMap<PeerId, Heard>,
    /// Earlier lives that announced themselves after a later one.
    outlived: BTreeMap<PeerId, NodeId>,
    candidates: BTreeMap<NodeId, Candidate>,
    /// Since when each member was seen to be one under this leadership: one that never answered has
    /// the time to come in from then.
    member_since: BTreeMap<NodeId, Duration>,
    /// Who had a place when last seen.
    placed: BTreeSet<NodeId>,
    standing: Option<Standing>,
    /// A bug for the simulator to find: see [`crate::state::Planted::promote_at_once`].
    pub(crate) promotes_at_once: bool,
}

impl Admission {
    /// Admission to `session`.
    pub(crate) fn new(session: SessionId) -> Self {
        Self {
            session,
            heard: BTreeMap::new(),
            outlived: BTreeMap::new(),
            candidates: BTreeMap::new(),
            member_since: BTreeMap::new(),
            placed: BTreeSet::new(),
            standing: None,
            promotes_at_once: false,
        }
    }

    /// Leadership is lost: what was seen under it says nothing about the next.
    pub(crate) fn reset(&mut self) {
        *self = Self {
            promotes_at_once: self.promotes_at_once,
            ..Self::new(self.session)
        };
    }

    /// A node announced itself. `from` is its verified peer.
    ///
    /// # Errors
    ///
    /// [`NotHeard`] when it was dropped.
    pub(crate) fn heard_announce(
        &mut self,
        from: &PeerId,
        announce: Announce,
        now: Duration,
    ) -> Result<(), NotHeard> {
        if announce.node.peer != *from {
            let (from, node) = (from.clone(), announce.node);
            return Err(NotHeard::NotItsOwn { from, node });
        }
        let full = self.heard.len() >= ANNOUNCED_MAX;
        match self.heard.get_mut(from) {
            Some(known) if known.announce.node.incarnation > announce.node.incarnation => {
                self.outlived.insert(from.clone(), announce.node);
            }
            Some(known) => {
                if known.announce.node != announce.node {
                    known.first = now;
                }
                known.announce = announce;
                known.last = now;
                known.answered = false;
            }
            None if full => return Err(NotHeard::TooMany { max: ANNOUNCED_MAX }),
            None => {
                let heard = Heard {
                    announce,
                    first: now,
                    last: now,
                    answered: false,
                };
                self.heard.insert(from.clone(), heard);
            }
        }
        Ok(())
    }

    /// What to do now. To be called again whenever something in the view changed, and now and then.
    pub(crate) fn step(&mut self, view: &View<'_>) -> Vec<Step> {
        self.member_since
            .retain(|node, _| view.membership.contains(node));
        let members = view.membership.voters.iter();
        for node in members.chain(&view.membership.learners) {
            self.member_since.entry(node.clone()).or_insert(view.now);
        }
        self.heard.retain(|peer, heard| {
            view.connected.contains(peer) && view.now < heard.last + ANNOUNCEMENT_LASTS
        });
        // Who lost its place asks anew: what it said while it had one must not seat who left.
        let placed = &view.seats.voters() | &view.seats.learners();
        for node in self.placed.difference(&placed) {
            let said = self.heard.get(&node.peer);
            if said.is_some_and(|heard| heard.announce.node == *node) {
                self.heard.remove(&node.peer);
            }
        }
        self.placed = placed;
        let stood = view.now.saturating_sub(self.stands_since(view));
        let live = self.live(view);
        let is_fresh = |node: &&NodeId| {
            let acked = view.progress.get(*node).and_then(|known| known.acked);
            *node == view.me || acked.is_some_and(|ago| ago <= stood)
        };
        let fresh = live.iter().filter(is_fresh).cloned().collect();
        let seen = Seen { view, live, fresh };
        let mut steps = self.answers(&seen);
        if !view.open {
            return steps;
        }
        self.watch_candidates(&seen);
        if !view.proposal_in_flight {
            steps.extend(self.proposal(&seen));
        }
        if view.membership_committed && !view.change_in_flight {
            steps.extend(self.change(&seen));
        }
        steps
    }

    /// Answers everybody whose case is settled; who gets no place must announce itself again.
    fn answers(&mut self, seen: &Seen<'_>) -> Vec<Step> {
        let mut steps: Vec<Step> = std::mem::take(&mut self.outlived)
            .into_iter()
            .map(|(to, node)| Step::Answer {
                to,
                node,
                verdict: Verdict::Superseded,
            })
            .collect();
        let session = self.session;
        self.heard.retain(|peer, heard| {
            if heard.answered {
                return true;
            }
            let Some(verdict) = verdict(seen, session, &heard.announce) else {
                return true;
            };
            heard.answered = true;
            steps.push(Step::Answer {
                to: peer.clone(),
                node: heard.announce.node.clone(),
                verdict,
            });
            verdict == Verdict::Welcome
        });
        steps
    }

    /// The members that are alive as far as anything known says: they can be reached, answered
    /// lately, and no later life of theirs was heard of. Its announcement outruns the silence of
    /// the life before it.
    fn live(&self, view: &View<'_>) -> BTreeSet<NodeId> {
        let outlived = |node: &NodeId| {
            let heard = self.heard.get(&node.peer);
            let seated = view.seats.place_of(&node.peer);
            heard.is_some_and(|heard| heard.announce.node > *node)
                || seated.is_some_and(|(_, life)| life > node.incarnation)
        };
        let answers = |node: &NodeId| {
            let acked = view.progress.get(node).and_then(|known| known.acked);
            acked.is_some_and(|ago| ago <= view.timing.alive_within)
                && view.connected.contains(&node.peer)
                && !outlived(node)
        };
        let members = view.membership.voters.iter();
        members
            .chain(&view.membership.learners)
            .filter(|node| *node == view.me || answers(node))
            .cloned()
            .collect()
    }

    /// Since when the seats and members are what they are.
    fn stands_since(&mut self, view: &View<'_>) -> Duration {
        let (seats, membership_index) = (view.seats, view.membership_index);
        let same =
            |known: &&Standing| known.membership_index == membership_index && known.seats == *seats;
        if let Some(known) = self.standing.as_ref().filter(same) {
            return known.since;
        }
        self.standing = Some(Standing {
            seats: seats.clone(),
            membership_index,
            since: view.now,
        });
        view.now
    }

    /// Notes who is expected to do something, and since when it has not.
    fn watch_candidates(&mut self, seen: &Seen<'_>) {
        let voters = seen.view.seats.voters();
        let pending: BTreeSet<NodeId> = voters
            .difference(&seen.view.membership.voters)
            .cloned()
            .chain(
                seen.view
                    .seats
                    .learners()
                    .into_iter()
                    .filter(|node| !seen.view.membership.contains(node)),
            )
            .collect();
        self.candidates.retain(|node, _| pending.contains(node));
        for node in pending {
            let learns = seen.view.membership.learners.contains(&node);
            let announced = self.is_announced(&node);
            let candidate = self.candidates.entry(node.clone()).or_insert(Candidate {
                since: seen.view.now,
                target: None,
                matched: None,
            });
            let matched = progress(seen, &node).matched;
            let nearer = matched > candidate.matched;
            candidate.matched = matched;
            if !learns {
                candidate.target = None;
                if announced {
                    candidate.since = seen.view.now;
                }
            } else if candidate.target.is_none() {
                candidate.target = Some(seen.view.last_log.saturating_sub(CATCH_UP_SLACK));
                candidate.since = seen.view.now;
            } else if nearer || caught_up(seen, &node, candidate) {
                candidate.since = seen.view.now;
            }
        }
    }

    fn is_announced(&self, node: &NodeId) -> bool {
        self.heard
            .get(&node.peer)
            .is_some_and(|heard| heard.announce.node == *node)
    }

    /// Takes a place from who does not use it, else gives one to who has waited longest.
    fn proposal(&mut self, seen: &Seen<'_>) -> Option<Step> {
        if let Some(node) = self.failed_candidate(seen).or_else(|| self.silent(seen)) {
            if self.is_announced(&node) {
                self.heard.remove(&node.peer);
            }
            self.candidates.remove(&node);
            return Some(Step::Vacate { node, left: false });
        }
        let (_, announce) = self
            .heard
            .values()
            .filter(|heard| !holds_place(seen, &heard.announce.node))
            .filter(|heard| verdict(seen, self.session, &heard.announce).is_none())
            .map(|heard| (heard.first, &heard.announce))
            .min_by_key(|(first, announce)| (*first, &announce.node))?;
        Some(Step::Seat {
            node: announce.node.clone(),
            kind: announce.kind,
        })
    }

    /// A node that did not announce itself, or catch up, in the time it has.
    fn failed_candidate(&self, seen: &Seen<'_>) -> Option<NodeId> {
        self.candidates
            .iter()
            .find(|(node, candidate)| {
                *node != seen.view.me
                    && has_seat(seen, node)
                    && seen.view.now >= candidate.since + seen.view.timing.admit_within
            })
            .map(|(node, _)| node.clone())
    }

    /// A member that has not answered for too long and can be removed.
    fn silent(&self, seen: &Seen<'_>) -> Option<NodeId> {
        let evict_after = seen.view.timing.evict_after?;
        // Who never answered is still coming in: it may be asking the others whom to believe.
        let never = evict_after.max(seen.view.timing.admit_within);
        let is_silent = |node: &NodeId| match seen.view.progress.get(node).and_then(|p| p.acked) {
            Some(ago) => ago >= evict_after,
            None => {
                let since = self.member_since.get(node).copied();
                since.is_some_and(|since| seen.view.now.saturating_sub(since) >= never)
            }
        };
        let members = seen.view.membership.voters.iter();
        members
            .chain(&seen.view.membership.learners)
            .find(|node| {
                *node != seen.view.me
                    && has_seat(seen, node)
                    && !self.candidates.contains_key(*node)
                    && is_silent(node)
                    && (!seen.view.membership.voters.contains(*node)
                        || may_remove(seen, node, &seen.live))
            })
            .cloned()
    }

    /// The next change of membership.
    fn change(&self, seen: &Seen<'_>) -> Option<Step> {
        if !seen.view.membership.contains(seen.view.me) {
            return None;
        }
        if seen.view.membership.is_joint() {
            return Some(Step::FinishJoint);
        }
        let voters = seen.view.seats.voters();
        let learners = seen.view.seats.learners();
        let wanted = |node: &NodeId| voters.contains(node) || learners.contains(node);

        if let Some(node) = seen
            .view
            .membership
            .learners
            .iter()
            .find(|node| !wanted(node))
        {
            return Some(Step::Remove(node.clone()));
        }
        // The dead first: removing them costs the quorum nothing.
        let surplus = seen
            .view
            .membership
            .voters
            .iter()
            .filter(|node| {
                *node != seen.view.me
                    && !voters.contains(node)
                    && may_remove(seen, node, &seen.fresh)
            })
            .min_by_key(|node| alive(seen, node));
        if let Some(node) = surplus {
            return Some(Step::Remove(node.clone()));
        }
        let ready = self.candidates.iter().find(|(node, candidate)| {
            seen.view.membership.learners.contains(*node)
                && voters.contains(*node)
                && (self.promotes_at_once
                    || caught_up(seen, node, candidate) && may_promote(seen, node))
        });
        if let Some((node, _)) = ready {
            return Some(Step::Promote(node.clone()));
        }
        let newcomer = voters
            .iter()
            .chain(&learners)
            .find(|node| !seen.view.membership.contains(node) && self.is_announced(node));
        if let Some(node) = newcomer {
            return Some(Step::AddLearner(node.clone()));
        }
        let me_last = seen.view.membership.voters.contains(seen.view.me)
            && !voters.contains(seen.view.me)
            && may_remove(seen, seen.view.me, &seen.fresh)
            && !seen.view.membership.voters.iter().any(|node| {
                node != seen.view.me && voters.contains(node) && could_lead(seen, node)
            });
        me_last.then(|| Step::Remove(seen.view.me.clone()))
    }
}

/// What an announcement is answered with, or `None` while its case is open.
fn verdict(seen: &Seen<'_>, session: SessionId, announce: &Announce) -> Option<Verdict> {
    if announce.session.is_some_and(|meant| meant != session) {
        return Some(Verdict::WrongSession);
    }
    if !seen.view.open {
        return Some(Verdict::NotOpen);
    }
    let node = &announce.node;
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

/// Whether this very life of the peer has a place, or votes by the session's settings.
fn holds_place(seen: &Seen<'_>, node: &NodeId) -> bool {
    has_seat(seen, node) || seen.view.seats.core.contains(node)
}

/// Whether this very life of the peer has a place that can be taken from it.
fn has_seat(seen: &Seen<'_>, node: &NodeId) -> bool {
    seen.view
        .seats
        .place_of(&node.peer)
        .is_some_and(|(_, life)| life == node.incarnation)
}

fn progress(seen: &Seen<'_>, node: &NodeId) -> Progress {
    seen.view.progress.get(node).copied().unwrap_or_default()
}

fn alive(seen: &Seen<'_>, node: &NodeId) -> bool {
    seen.live.contains(node)
}

/// Whether the learner answers, and has acknowledged both the entry that made it one and what there
/// was in the log then.
fn caught_up(seen: &Seen<'_>, node: &NodeId, candidate: &Candidate) -> bool {
    let wanted = candidate
        .target
        .map(|target| target.max(seen.view.membership_index));
    alive(seen, node)
        && matches!((progress(seen, node).matched, wanted), (Some(has), Some(wanted)) if has >= wanted)
}

fn could_lead(seen: &Seen<'_>, node: &NodeId) -> bool {
    let matched = progress(seen, node).matched;
    alive(seen, node)
        && matched.is_some_and(|has| has >= seen.view.last_log.saturating_sub(CATCH_UP_SLACK))
}

fn majority_of(voters: &BTreeSet<NodeId>, counted: &BTreeSet<NodeId>) -> bool {
    voters.intersection(counted).count() > voters.len() / 2
}

/// Whether the voters without `node` have a majority among those `counted`, and those with it too.
fn may_remove(seen: &Seen<'_>, node: &NodeId, counted: &BTreeSet<NodeId>) -> bool {
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
fn may_promote(seen: &Seen<'_>, node: &NodeId) -> bool {
    let mut voters = seen.view.membership.voters.clone();
    voters.insert(node.clone());
    seen.fresh.contains(node)
        && majority_of(&voters, &seen.fresh)
        && seen
            .view
            .membership
            .has_quorum(|node| seen.fresh.contains(node))
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
