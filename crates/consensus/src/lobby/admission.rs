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
//! - the last voter is never removed, nor the leader while another could lead: a leader without a
//!   place hands over to one that has one;
//! - one answer per announcement heard;
//! - nothing is heard but under leadership: what was said before may have been taken back since;
//! - who gave up loses the place it was given at once, unless it takes part after all.

mod guard;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::wire::{Announce, Verdict};
use crate::ids::{NodeId, PeerId, SessionId};
use crate::state::seats::SeatTable;

pub use view::AdmissionTiming;
pub(crate) use view::{Step, View};

use guard::{
    CATCH_UP_SLACK, alive, caught_up, could_lead, has_seat, holds_place, may_promote, may_remove,
    progress, verdict,
};
use view::Seen;

/// How often a node that wants in announces itself until it is answered.
pub(crate) const REANNOUNCE_EVERY: Duration = Duration::from_millis(500);
/// How long an announcement counts.
pub(crate) const ANNOUNCEMENT_LASTS: Duration = Duration::from_millis(1500);
/// Most peers whose announcements are kept; those of others are dropped until one expires.
pub(crate) const ANNOUNCED_MAX: usize = 512;

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
    /// Who announced itself, and then said that it does not want in any more; and when.
    gave_up: BTreeMap<PeerId, (NodeId, Duration)>,
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
            gave_up: BTreeMap::new(),
            candidates: BTreeMap::new(),
            member_since: BTreeMap::new(),
            placed: BTreeSet::new(),
            standing: None,
            promotes_at_once: false,
        }
    }

    /// Leadership is lost, or won: what was seen before says nothing about what comes.
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
        self.gave_up.remove(from);
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

    /// A node that announced itself does not want in any more. It may have been given a place
    /// meanwhile, or be about to get one.
    ///
    /// # Errors
    ///
    /// [`NotHeard`] when it was dropped.
    pub(crate) fn heard_give_up(
        &mut self,
        from: &PeerId,
        node: NodeId,
        now: Duration,
    ) -> Result<(), NotHeard> {
        if node.peer != *from {
            let from = from.clone();
            return Err(NotHeard::NotItsOwn { from, node });
        }
        if self.is_announced(&node) {
            self.heard.remove(from);
        }
        if self.gave_up.len() >= ANNOUNCED_MAX && !self.gave_up.contains_key(from) {
            return Err(NotHeard::TooMany { max: ANNOUNCED_MAX });
        }
        self.gave_up.insert(from.clone(), (node, now));
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
            view.connected.contains(peer)
                && view.now < heard.last.saturating_add(ANNOUNCEMENT_LASTS)
        });
        let admit_within = view.timing.admit_within;
        self.gave_up
            .retain(|_, (_, at)| view.now < at.saturating_add(admit_within));
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
        let seen = Seen {
            view,
            live,
            fresh,
            promotes_at_once: self.promotes_at_once,
        };
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
        let one_is_coming_free = self.who_gave_up(seen).is_some();
        self.heard.retain(|peer, heard| {
            if heard.answered {
                return true;
            }
            let Some(verdict) = verdict(seen, session, &heard.announce) else {
                return true;
            };
            let full = matches!(
                verdict,
                Verdict::RosterFull | Verdict::GalleryFull | Verdict::NoWitness
            );
            if full && one_is_coming_free {
                return true;
            }
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
        let lost = self
            .who_gave_up(seen)
            .or_else(|| self.failed_candidate(seen))
            .or_else(|| self.silent(seen));
        if let Some(node) = lost {
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

    /// A node that gave up and has a place all the same. Not one that votes or answers: what it said
    /// is older than that.
    fn who_gave_up(&self, seen: &Seen<'_>) -> Option<NodeId> {
        let mut nodes = self.gave_up.values().map(|(node, _)| node);
        let found = nodes.find(|node| {
            has_seat(seen, node)
                && !seen.view.membership.voters.contains(*node)
                && !alive(seen, node)
        });
        found.cloned()
    }

    /// A node that did not announce itself, or catch up, in the time it has.
    fn failed_candidate(&self, seen: &Seen<'_>) -> Option<NodeId> {
        self.candidates
            .iter()
            .find(|(node, candidate)| {
                *node != seen.view.me
                    && has_seat(seen, node)
                    && seen.view.now
                        >= candidate
                            .since
                            .saturating_add(seen.view.timing.admit_within)
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
        self.without_me(seen, &voters)
    }

    /// What to do when this node leads and has no place: it was put out while it was away, and elected
    /// before its vote was taken from it; or it leaves.
    fn without_me(&self, seen: &Seen<'_>, placed: &BTreeSet<NodeId>) -> Option<Step> {
        let (me, members) = (seen.view.me, &seen.view.membership.voters);
        if placed.contains(me) || !members.contains(me) {
            return None;
        }
        let heirs = members.intersection(placed);
        let heir = heirs
            .filter(|node| could_lead(seen, node))
            .max_by_key(|node| progress(seen, node).matched);
        match heir {
            Some(heir) => Some(Step::HandOver(heir.clone())),
            None => may_remove(seen, me, &seen.fresh).then(|| Step::Remove(me.clone())),
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
