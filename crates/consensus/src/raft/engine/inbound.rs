//! What another node may ask of Raft, decided before openraft sees it.
//!
//! Invariants
//! - a node speaks in its own name: the vote in its request names it;
//! - no message carries the term further than [`TERM_JUMP_MAX`] past this node's: terms never run
//!   out, whatever one voter says;
//! - entries follow the one before them and each other, in index and in term, none is of a later
//!   term than its leader's, and none is larger than a log takes: the log would refuse it, and
//!   openraft would stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ids::NodeId;
use crate::log::RECORD_BYTES_MAX;
use crate::raft::wire::{Append, At, Body, VoteMsg};

/// How far a message may be ahead of this node's term.
pub const TERM_JUMP_MAX: u64 = 10_000;

/// The last term a node that has seen none takes from another: it may come to an old game.
const FIRST_TERM_MAX: u64 = 1 << 60;

/// The last entry there can be.
const INDEX_MAX: u64 = 1 << 60;

/// The latest term this node has voted in, and which terms it hears of it believes.
#[derive(Clone)]
pub struct Terms(Arc<AtomicU64>);

impl Terms {
    pub fn new(term: u64) -> Self {
        Self(Arc::new(AtomicU64::new(term)))
    }

    /// This node votes in `term`.
    pub fn reach(&self, term: u64) {
        self.0.fetch_max(term, Ordering::Relaxed);
    }

    /// Whether another node may be in `term`.
    pub fn believe(&self, term: u64) -> bool {
        let max = match self.0.load(Ordering::Relaxed) {
            0 => FIRST_TERM_MAX,
            ours => ours.saturating_add(TERM_JUMP_MAX),
        };
        term <= max
    }

    /// Whether `from` may ask this.
    pub fn admit(&self, from: &NodeId, ask: &Body) -> bool {
        match ask {
            Body::Append(append) => {
                self.speaks(from, append.vote.as_ref(), true) && follows(append)
            }
            Body::Vote(ask) => {
                let at = ask.vote.as_ref().map_or(0, |vote| vote.term);
                self.speaks(from, ask.vote.as_ref(), false) && is_within(ask.last, at)
            }
            Body::Chunk(chunk) => {
                let at = chunk.vote.as_ref().map_or(0, |vote| vote.term);
                self.speaks(from, chunk.vote.as_ref(), true) && is_within(chunk.through, at)
            }
            Body::Transfer(ask) => self.speaks(from, ask.from.as_ref(), true),
            _ => false,
        }
    }

    /// Whether the vote is of `from`: that of a leader, or of who asks to be one.
    fn speaks(&self, from: &NodeId, vote: Option<&VoteMsg>, leads: bool) -> bool {
        vote.is_some_and(|vote| {
            let named = vote.node.as_ref().and_then(|node| node.node());
            named.as_ref() == Some(from) && vote.committed == leads && self.believe(vote.term)
        })
    }
}

/// Whether an entry can stand in the log of a leader of `term`.
fn is_within(at: Option<At>, term: u64) -> bool {
    at.is_none_or(|at| at.term <= term && at.index <= INDEX_MAX)
}

fn follows(append: &Append) -> bool {
    let term = append.vote.as_ref().map_or(0, |vote| vote.term);
    if !is_within(append.previous, term) || !is_within(append.commit, term) {
        return false;
    }
    let mut next = append.previous.map_or(0, |at| at.index + 1);
    let mut least = append.previous.map_or(0, |at| at.term);
    append.entries.iter().all(|entry| {
        let fits = entry.body.len() <= RECORD_BYTES_MAX;
        let stands = entry.at.is_some_and(|at| {
            let stands = at.index == next && at.term >= least && is_within(Some(at), term);
            next += 1;
            least = at.term;
            stands
        });
        fits && stands
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::{Incarnation, PeerId};
    use crate::raft::wire::{Chunk, EntryMsg, Transfer, VoteAsked};

    fn node(name: &str) -> NodeId {
        NodeId::new(PeerId::new(name).unwrap(), Incarnation(0))
    }

    fn vote(name: &str, term: u64, committed: bool) -> Option<VoteMsg> {
        Some(VoteMsg {
            term,
            node: Some((&node(name)).into()),
            committed,
        })
    }

    fn asks(name: &str, term: u64) -> [Body; 4] {
        [
            Body::Append(Append {
                vote: vote(name, term, true),
                ..Append::default()
            }),
            Body::Vote(VoteAsked {
                vote: vote(name, term, false),
                transfer: true,
                ..VoteAsked::default()
            }),
            Body::Chunk(Chunk {
                vote: vote(name, term, true),
                ..Chunk::default()
            }),
            Body::Transfer(Transfer {
                from: vote(name, term, true),
                ..Transfer::default()
            }),
        ]
    }

    #[test]
    fn a_node_speaks_in_its_own_name_and_no_other() {
        let terms = Terms::new(7);
        let later_life = NodeId::new(node("ann").peer, Incarnation(1));
        for ask in asks("ann", 7) {
            assert!(terms.admit(&node("ann"), &ask), "{ask:?}");
            assert!(!terms.admit(&node("bob"), &ask), "{ask:?}");
            assert!(!terms.admit(&later_life, &ask), "{ask:?}");
        }
        let leads_already = Body::Vote(VoteAsked {
            vote: vote("ann", 8, true),
            ..VoteAsked::default()
        });
        assert!(!terms.admit(&node("ann"), &leads_already));
        let nobody = Body::Append(Append::default());
        assert!(!terms.admit(&node("ann"), &nobody));
    }

    #[test]
    fn a_term_is_taken_at_the_furthest_and_refused_one_past_it() {
        let ann = node("ann");
        for (ours, most) in [
            (7, 7 + TERM_JUMP_MAX),
            (0, FIRST_TERM_MAX),
            (u64::MAX - 3, u64::MAX),
        ] {
            let terms = Terms::new(0);
            terms.reach(ours);
            terms.reach(ours.saturating_sub(1));
            for ask in asks("ann", most) {
                assert!(terms.admit(&ann, &ask), "{ours}: {ask:?}");
            }
            for ask in most
                .checked_add(1)
                .iter()
                .flat_map(|term| asks("ann", *term))
            {
                assert!(!terms.admit(&ann, &ask), "{ours}: {ask:?}");
            }
        }
    }

    #[test]
    fn entries_follow_each_other_in_terms_their_leader_may_have_written_and_fit_a_log() {
        let terms = Terms::new(7);
        let entries = |ats: &[(u64, u64)], len: usize| {
            let entry = |(index, term): &(u64, u64)| EntryMsg {
                at: Some(At {
                    index: *index,
                    term: *term,
                }),
                kind: 1,
                body: Bytes::from(vec![0; len]),
            };
            Body::Append(Append {
                vote: vote("ann", 7, true),
                previous: Some(At { index: 3, term: 4 }),
                entries: ats.iter().map(entry).collect(),
                commit: Some(At { index: 9, term: 7 }),
            })
        };
        let admit = |body| terms.admit(&node("ann"), &body);
        assert!(admit(entries(&[], 0)));
        assert!(admit(entries(&[(4, 4), (5, 7)], RECORD_BYTES_MAX)));
        assert!(!admit(entries(&[(4, 4)], RECORD_BYTES_MAX + 1)));
        for wrong in [
            &[(5, 4)][..],
            &[(3, 4)],
            &[(4, 4), (6, 4)],
            &[(4, 3)],
            &[(4, 6), (5, 5)],
            &[(4, 8)],
        ] {
            assert!(!admit(entries(wrong, 1)), "{wrong:?}");
        }
        let no_place = EntryMsg {
            kind: 1,
            ..EntryMsg::default()
        };
        assert!(!admit(Body::Append(Append {
            vote: vote("ann", 7, true),
            entries: vec![no_place],
            ..Append::default()
        })));
        for at in [
            At { index: 1, term: 8 },
            At {
                index: INDEX_MAX + 1,
                term: 7,
            },
        ] {
            let vote_now = vote("ann", 7, true);
            assert!(!admit(Body::Append(Append {
                vote: vote_now.clone(),
                commit: Some(at),
                ..Append::default()
            })));
            assert!(!admit(Body::Chunk(Chunk {
                vote: vote_now,
                through: Some(at),
                ..Chunk::default()
            })));
            assert!(!admit(Body::Vote(VoteAsked {
                vote: vote("ann", 7, false),
                last: Some(at),
                ..VoteAsked::default()
            })));
        }
    }
}
