//! What other nodes answer, judged before openraft acts on it.
//!
//! openraft believes what it is answered: of an entry that was never sent it stops, and with it the
//! leader; of one that was acknowledged before, a debug build panics. Any member may answer, with a
//! vote or without.
//!
//! Invariants
//! - who has taken a part of what it was sent has taken it up to an entry that it was sent;
//! - who lacks the entry before those it was sent never acknowledged it, nor a later one, in the
//!   same term: it would have lost its log;
//! - a vote that stands against a request is of a later term than the request;
//! - whatever else is answered is counted, and the node that answers it counts as unreachable.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};

use super::types::{Id, Types, Vote};
use crate::game::Malformed;
use crate::ids::NodeId;
use crate::raft::Membership;

/// How often a receiver of a snapshot may ask for a part that it was sent already.
pub(super) const SENT_AGAIN_MAX: u32 = 16;

/// The last entry that each node is known to have, in one term of this node's.
#[derive(Default)]
struct Known {
    term: u64,
    nodes: BTreeMap<NodeId, u64>,
}

#[derive(Default)]
struct Shared {
    known: Mutex<Known>,
    refused: AtomicU64,
}

/// What was answered.
#[derive(Clone, Default)]
pub(super) struct Answered(Arc<Shared>);

impl Answered {
    fn known(&self) -> MutexGuard<'_, Known> {
        let known = self.0.known.lock();
        known.unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers that could not be true.
    pub(super) fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// An answer could not be true.
    pub(super) fn refuse(&self) -> Malformed {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        Malformed
    }

    /// `node` has the entries up to this one, in the log of the leader of `term`.
    pub(super) fn has(&self, node: &NodeId, term: u64, last: Option<&Id>) {
        let Some(last) = last else { return };
        let mut known = self.known();
        if known.term > term {
            return;
        }
        if known.term < term {
            *known = Known {
                term,
                nodes: BTreeMap::new(),
            };
        }
        let has = known.nodes.entry(node.clone()).or_default();
        *has = last.index.max(*has);
    }

    fn acknowledged(&self, node: &NodeId, term: u64) -> Option<u64> {
        let known = self.known();
        (known.term == term).then(|| known.nodes.get(node).copied())?
    }

    /// Forgets who is no member: it may come in again with a log that begins anew, and openraft has
    /// forgotten it too.
    pub(super) fn keep_to(&self, members: &Membership) {
        self.known().nodes.retain(|node, _| members.contains(node));
    }

    /// What `from` answers to entries it was sent, if it can be true.
    pub(super) fn to_append(
        &self,
        from: &NodeId,
        asked: &AppendEntriesRequest<Types>,
        answer: AppendEntriesResponse<Types>,
    ) -> Result<AppendEntriesResponse<Types>, Malformed> {
        let term = asked.vote.leader_id.term;
        let previous = asked.prev_log_id.as_ref();
        let stands = match &answer {
            AppendEntriesResponse::Success => true,
            AppendEntriesResponse::PartialSuccess(through) => {
                let through = through.as_ref();
                through == previous || asked.entries.iter().any(|e| Some(&e.log_id) == through)
            }
            AppendEntriesResponse::Conflict => previous.is_some_and(|previous| {
                let has = self.acknowledged(from, term);
                has.is_none_or(|has| has < previous.index)
            }),
            AppendEntriesResponse::HigherVote(vote) => vote.leader_id.term > term,
        };
        if !stands {
            return Err(self.refuse());
        }
        let last = asked.entries.last().map(|entry| &entry.log_id);
        match &answer {
            AppendEntriesResponse::Success => self.has(from, term, last.or(previous)),
            AppendEntriesResponse::PartialSuccess(through) => {
                self.has(from, term, through.as_ref());
            }
            _ => {}
        }
        Ok(answer)
    }

    /// What `from` answers once it was sent a snapshot through `last` whole, if it can be true.
    pub(super) fn to_snapshot(
        &self,
        from: &NodeId,
        leader: &Vote,
        last: &Id,
        answer: Vote,
    ) -> Result<Vote, Malformed> {
        let term = leader.leader_id.term;
        if answer.leader_id.term < term {
            return Err(self.refuse());
        }
        if answer.leader_id.term == term {
            self.has(from, term, Some(last));
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;

    use super::super::types::{Entry, id};
    use super::*;
    use crate::ids::{Incarnation, PeerId};
    use crate::log::Position;

    fn node(name: &str) -> NodeId {
        NodeId::new(PeerId::new(name).unwrap(), Incarnation(0))
    }

    fn at(index: u64, term: u64) -> Id {
        id(Position { index, term })
    }

    /// Entries of term 4 from after `previous` up to `last`, by the leader of term 5.
    fn asked(previous: Option<u64>, last: u64) -> AppendEntriesRequest<Types> {
        let first = previous.map_or(0, |previous| previous + 1);
        let entry = |index| Entry {
            log_id: at(index, 4),
            payload: EntryPayload::Blank,
        };
        AppendEntriesRequest {
            vote: Vote::new_committed(5, node("ann")),
            prev_log_id: previous.map(|index| at(index, 4)),
            entries: (first..=last).map(entry).collect(),
            leader_commit: None,
        }
    }

    #[test]
    fn an_answer_is_taken_only_if_it_can_be_true_and_else_counted() {
        use AppendEntriesResponse::{Conflict, HigherVote, PartialSuccess, Success};
        let through = |index, term| PartialSuccess(Some(at(index, term)));
        let vote = |term| HigherVote(Vote::new(term, node("bob")));
        let (some, first, none) = (asked(Some(9), 12), asked(None, 2), asked(Some(9), 9));
        // What was acknowledged before, what was sent, what is answered, and whether it stands.
        let table = [
            (None, &some, Success, true),
            (None, &some, through(9, 4), true),
            (None, &some, through(11, 4), true),
            (None, &some, through(12, 4), true),
            (None, &some, PartialSuccess(None), false),
            (None, &some, through(8, 4), false),
            (None, &some, through(13, 4), false),
            (None, &some, through(u64::MAX, u64::MAX), false),
            (None, &some, through(11, 3), false),
            (None, &some, through(9, 5), false),
            (None, &none, PartialSuccess(None), false),
            (None, &none, through(9, 4), true),
            (None, &none, through(10, 4), false),
            (None, &first, PartialSuccess(None), true),
            (None, &first, through(0, 4), true),
            (None, &first, through(3, 4), false),
            (None, &some, Conflict, true),
            (Some(8), &some, Conflict, true),
            (Some(9), &some, Conflict, false),
            (Some(20), &some, Conflict, false),
            (Some(9), &none, Conflict, false),
            (None, &first, Conflict, false),
            (None, &some, vote(4), false),
            (None, &some, vote(5), false),
            (None, &some, vote(6), true),
        ];
        for (acknowledged, asked, answer, stands) in table {
            let answered = Answered::default();
            if let Some(index) = acknowledged {
                answered.has(&node("bob"), 5, Some(&at(index, 4)));
            }
            let what = format!("{acknowledged:?} {:?} {answer:?}", asked.prev_log_id);
            let taken = answered.to_append(&node("bob"), asked, answer);
            assert_eq!(taken.is_ok(), stands, "{what}");
            assert_eq!(answered.refused(), u64::from(!stands), "{what}");
        }
    }

    #[test]
    fn what_was_acknowledged_counts_for_its_node_and_its_term() {
        use AppendEntriesResponse::{Conflict, PartialSuccess, Success};
        let answered = Answered::default();
        let taken =
            |name, asked: &_, answer| answered.to_append(&node(name), asked, answer).is_ok();
        assert!(taken("bob", &asked(Some(9), 12), Success));
        assert!(!taken("bob", &asked(Some(12), 13), Conflict));
        assert!(taken("bob", &asked(Some(13), 14), Conflict));
        // An answer of before that comes late takes nothing back.
        answered.has(&node("bob"), 5, Some(&at(3, 4)));
        assert!(!taken("bob", &asked(Some(12), 13), Conflict));
        assert!(taken("cyd", &asked(Some(12), 13), Conflict));
        assert!(taken(
            "cyd",
            &asked(Some(9), 12),
            PartialSuccess(Some(at(10, 4)))
        ));
        assert!(!taken("cyd", &asked(Some(10), 12), Conflict));
        assert!(taken("cyd", &asked(Some(11), 12), Conflict));
        // A snapshot is acknowledged as entries are.
        let leader = Vote::new_committed(5, node("ann"));
        let installed = |vote| answered.to_snapshot(&node("dan"), &leader, &at(20, 4), vote);
        assert!(installed(Vote::new_committed(4, node("ann"))).is_err());
        assert!(installed(Vote::new(6, node("dan"))).is_ok());
        assert!(
            taken("dan", &asked(Some(20), 21), Conflict),
            "it was not taken"
        );
        assert!(installed(leader.clone()).is_ok());
        assert!(!taken("dan", &asked(Some(20), 21), Conflict));
        // Of a later term nothing is known yet, and of the one before nothing is noted any more.
        let later = AppendEntriesRequest {
            vote: Vote::new_committed(6, node("ann")),
            ..asked(Some(9), 12)
        };
        assert!(taken("bob", &later, Conflict), "none has answered in it");
        answered.has(&node("cyd"), 6, Some(&at(3, 4)));
        assert!(taken("bob", &later, Conflict));
        answered.has(&node("bob"), 5, Some(&at(12, 4)));
        assert!(taken("bob", &later, Conflict));
    }

    #[test]
    fn who_is_no_member_any_more_is_forgotten_and_may_begin_anew() {
        use AppendEntriesResponse::{Conflict, Success};
        let answered = Answered::default();
        let (bob, cyd) = (node("bob"), node("cyd"));
        for name in [&bob, &cyd] {
            let taken = answered.to_append(name, &asked(Some(200), 201), Success);
            assert!(taken.is_ok());
        }
        answered.keep_to(&Membership {
            learners: [cyd.clone()].into(),
            ..Membership::default()
        });
        let lacks = |name| {
            answered
                .to_append(name, &asked(Some(8), 9), Conflict)
                .is_ok()
        };
        assert!(
            lacks(&bob),
            "it was taken out, and lost nothing it is held to"
        );
        assert!(!lacks(&cyd));
        assert_eq!(answered.known().nodes.len(), 1);
    }
}
