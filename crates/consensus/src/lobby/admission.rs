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
//! - no step leaves the voters that answer without a majority, before it or after it;
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

/// How patient admission is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionTiming {
    /// A member that answered within this time counts as alive. More than a few heartbeats.
    pub alive_within: Duration,
    /// A member that did not answer for this long loses its place; with `None`, never.
    pub evict_after: Option<Duration>,
    /// How long a node that has a place may take for each step: to announce itself, and to catch
    /// up. Then it loses the place and must announce itself again.
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
}

/// The reconciler.
#[derive(Debug)]
pub(crate) struct Admission {
    session: SessionId,
    heard: BTreeMap<PeerId, Heard>,
    /// Earlier lives that announced themselves after a later one.
    outlived: BTreeMap<PeerId, NodeId>,
    candidates: BTreeMap<NodeId, Candidate>,
    /// When this leadership began.
    began: Option<Duration>,
}

impl Admission {
    /// Admission to `session`.
    pub(crate) fn new(session: SessionId) -> Self {
        Self {
            session,
            heard: BTreeMap::new(),
            outlived: BTreeMap::new(),
            candidates: BTreeMap::new(),
            began: None,
        }
    }

    /// Leadership is lost: what was seen under it says nothing about the next.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.session);
    }

    /// A node announced itself. `from` is its verified peer.
    pub(crate) fn heard_announce(&mut self, from: &PeerId, announce: Announce, now: Duration) {
        if announce.node.peer != *from {
            return;
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
            None if full => {}
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
    }

    /// What to do now. To be called again whenever something in the view changed, and now and then.
    pub(crate) fn step(&mut self, view: &View<'_>) -> Vec<Step> {
        self.began.get_or_insert(view.now);
        self.heard.retain(|peer, heard| {
            view.connected.contains(peer) && view.now < heard.last + ANNOUNCEMENT_LASTS
        });
        let mut steps = self.answers(view);
        if !view.open {
            return steps;
        }
        self.watch_candidates(view);
        if !view.proposal_in_flight {
            steps.extend(self.proposal(view));
        }
        if view.membership_committed && !view.change_in_flight {
            steps.extend(self.change(view));
        }
        steps
    }

    /// Answers everybody whose case is settled; who gets no place must announce itself again.
    fn answers(&mut self, view: &View<'_>) -> Vec<Step> {
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
            let Some(verdict) = verdict(view, session, &heard.announce) else {
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

    /// Notes who is expected to do something, and since when it has not.
    fn watch_candidates(&mut self, view: &View<'_>) {
        let voters = view.seats.voters();
        let pending: BTreeSet<NodeId> = voters
            .difference(&view.membership.voters)
            .cloned()
            .chain(
                view.seats
                    .learners()
                    .into_iter()
                    .filter(|node| !view.membership.contains(node)),
            )
            .collect();
        self.candidates.retain(|node, _| pending.contains(node));
        for node in pending {
            let learns = view.membership.learners.contains(&node);
            let announced = self.is_announced(&node);
            let candidate = self.candidates.entry(node.clone()).or_insert(Candidate {
                since: view.now,
                target: None,
            });
            if !learns {
                candidate.target = None;
                if announced {
                    candidate.since = view.now;
                }
            } else if candidate.target.is_none() {
                candidate.target = Some(view.last_log.saturating_sub(CATCH_UP_SLACK));
                candidate.since = view.now;
            } else if caught_up(view, &node, candidate) {
                candidate.since = view.now;
            }
        }
    }

    fn is_announced(&self, node: &NodeId) -> bool {
        self.heard
            .get(&node.peer)
            .is_some_and(|heard| heard.announce.node == *node)
    }

    /// Takes a place from who does not use it, else gives one to who has waited longest.
    fn proposal(&mut self, view: &View<'_>) -> Option<Step> {
        if let Some(node) = self.failed_candidate(view).or_else(|| self.silent(view)) {
            if self.is_announced(&node) {
                self.heard.remove(&node.peer);
            }
            self.candidates.remove(&node);
            return Some(Step::Vacate { node, left: false });
        }
        let (_, announce) = self
            .heard
            .values()
            .filter(|heard| !holds_place(view, &heard.announce.node))
            .filter(|heard| verdict(view, self.session, &heard.announce).is_none())
            .map(|heard| (heard.first, &heard.announce))
            .min_by_key(|(first, announce)| (*first, &announce.node))?;
        Some(Step::Seat {
            node: announce.node.clone(),
            kind: announce.kind,
        })
    }

    /// A node that did not announce itself, or catch up, in the time it has.
    fn failed_candidate(&self, view: &View<'_>) -> Option<NodeId> {
        self.candidates
            .iter()
            .find(|(node, candidate)| {
                *node != view.me
                    && has_seat(view, node)
                    && view.now >= candidate.since + view.timing.admit_within
            })
            .map(|(node, _)| node.clone())
    }

    /// A member that has not answered for too long and can be removed.
    fn silent(&self, view: &View<'_>) -> Option<NodeId> {
        let evict_after = view.timing.evict_after?;
        let ruled = view.now.saturating_sub(self.began?);
        let members = view.membership.voters.iter();
        members
            .chain(&view.membership.learners)
            .find(|node| {
                let acked = view.progress.get(*node).and_then(|p| p.acked);
                *node != view.me
                    && has_seat(view, node)
                    && !self.candidates.contains_key(*node)
                    && acked.unwrap_or(ruled) >= evict_after
                    && (!view.membership.voters.contains(*node) || may_remove(view, node))
            })
            .cloned()
    }

    /// The next change of membership.
    fn change(&self, view: &View<'_>) -> Option<Step> {
        if view.membership.is_joint() {
            return Some(Step::FinishJoint);
        }
        let voters = view.seats.voters();
        let learners = view.seats.learners();
        let wanted = |node: &NodeId| voters.contains(node) || learners.contains(node);

        if let Some(node) = view.membership.learners.iter().find(|node| !wanted(node)) {
            return Some(Step::Remove(node.clone()));
        }
        // The dead first: removing them costs the quorum nothing.
        let surplus = view
            .membership
            .voters
            .iter()
            .filter(|node| *node != view.me && !voters.contains(node) && may_remove(view, node))
            .min_by_key(|node| alive(view, node));
        if let Some(node) = surplus {
            return Some(Step::Remove(node.clone()));
        }
        let ready = self.candidates.iter().find(|(node, candidate)| {
            view.membership.learners.contains(*node)
                && voters.contains(*node)
                && caught_up(view, node, candidate)
                && may_promote(view, node)
        });
        if let Some((node, _)) = ready {
            return Some(Step::Promote(node.clone()));
        }
        let newcomer = voters
            .iter()
            .chain(&learners)
            .find(|node| !view.membership.contains(node) && self.is_announced(node));
        if let Some(node) = newcomer {
            return Some(Step::AddLearner(node.clone()));
        }
        let me_last = view.membership.voters.contains(view.me)
            && !voters.contains(view.me)
            && may_remove(view, view.me)
            && !view
                .membership
                .voters
                .iter()
                .any(|node| node != view.me && voters.contains(node) && could_lead(view, node));
        me_last.then(|| Step::Remove(view.me.clone()))
    }
}

/// What an announcement is answered with, or `None` while its case is open.
fn verdict(view: &View<'_>, session: SessionId, announce: &Announce) -> Option<Verdict> {
    if announce.session.is_some_and(|meant| meant != session) {
        return Some(Verdict::WrongSession);
    }
    if !view.open {
        return Some(Verdict::NotOpen);
    }
    let node = &announce.node;
    let in_it = view.membership_committed && view.membership.contains(node);
    if holds_place(view, node) {
        return in_it.then_some(Verdict::Welcome);
    }
    view.seats
        .clone()
        .take(node, announce.kind)
        .err()
        .map(Verdict::from)
}

/// Whether this very life of the peer has a place, or votes by the session's settings.
fn holds_place(view: &View<'_>, node: &NodeId) -> bool {
    has_seat(view, node) || view.seats.core.contains(node)
}

/// Whether this very life of the peer has a place that can be taken from it.
fn has_seat(view: &View<'_>, node: &NodeId) -> bool {
    view.seats
        .place_of(&node.peer)
        .is_some_and(|(_, life)| life == node.incarnation)
}

fn progress(view: &View<'_>, node: &NodeId) -> Progress {
    view.progress.get(node).copied().unwrap_or_default()
}

fn alive(view: &View<'_>, node: &NodeId) -> bool {
    let acked = progress(view, node).acked;
    node == view.me || acked.is_some_and(|ago| ago <= view.timing.alive_within)
}

/// Whether the learner answers, and has acknowledged both the entry that made it one and what there
/// was in the log then.
fn caught_up(view: &View<'_>, node: &NodeId, candidate: &Candidate) -> bool {
    let wanted = candidate
        .target
        .map(|target| target.max(view.membership_index));
    alive(view, node)
        && matches!((progress(view, node).matched, wanted), (Some(has), Some(wanted)) if has >= wanted)
}

fn could_lead(view: &View<'_>, node: &NodeId) -> bool {
    let matched = progress(view, node).matched;
    alive(view, node)
        && matched.is_some_and(|has| has >= view.last_log.saturating_sub(CATCH_UP_SLACK))
}

fn majority_alive(view: &View<'_>, voters: &BTreeSet<NodeId>) -> bool {
    voters.iter().filter(|node| alive(view, node)).count() > voters.len() / 2
}

/// Whether the voters without `node` have a majority that answers, and those with it too.
fn may_remove(view: &View<'_>, node: &NodeId) -> bool {
    let mut remaining = view.membership.voters.clone();
    remaining.remove(node);
    !remaining.is_empty()
        && !view.membership.is_joint()
        && majority_alive(view, &remaining)
        && view.membership.has_quorum(|node| alive(view, node))
}

/// Whether the voters with `node` have a majority that answers, and those without it too.
fn may_promote(view: &View<'_>, node: &NodeId) -> bool {
    let mut voters = view.membership.voters.clone();
    voters.insert(node.clone());
    majority_alive(view, &voters) && view.membership.has_quorum(|node| alive(view, node))
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
