//! What a node serves the others at a time.
//!
//! An answer may be long in coming: a proposal waits for a majority, and what Raft is sent for the
//! disk, while whoever sent it gave up and sent it again.
//!
//! Invariants
//! - no peer has more of Raft's requests under way than its share, in number and in bytes, whatever it
//!   sends, and neither have all of them; proposals and reads are bounded in number, and each keeps
//!   at most twice its own bytes;
//! - proposals and reads never take the room of Raft's own requests, on which they wait;
//! - a proposal that a fabric brings twice is served once: the second answer would speak of the second
//!   serving alone, and "this node does not lead" then says nothing of what the first put in the log.
//!   What an earlier process served is not remembered: for as long as a call of then may be waited for,
//!   a node that resumed says of what it does not take that it does not know.

use std::collections::{BTreeMap, HashSet, VecDeque};

use crate::fabric::PEERS_MAX;
use crate::ids::{NodeId, PeerId};
use crate::raft::wire::Body;

/// Proposals of one node that are told from repeated ones: as many as it has under way at most, and
/// those before them.
const REMEMBERED_MAX: usize = 4096;

/// Most proposals and reads of others under way at a time. Of one peer its `pending_max` are.
pub(super) const SERVING_MAX: usize = 4096;

/// Most of Raft's own requests under way for one peer. A leader has one of each kind on its way, and
/// with a slow disk those that it gave up: one of two kinds for every heartbeat in four upper
/// election timeouts.
pub(super) const RAFT_OF_PEER_MAX: usize = 256;
/// Their frames, in bytes: what comes again and again while a disk is slow is large, and a
/// heartbeat finds room beside it.
pub(super) const RAFT_BYTES_OF_PEER_MAX: usize = 32 << 20;
/// Most of Raft's own requests under way for all peers.
pub(super) const RAFT_MAX: usize = 4096;
/// Their frames, in bytes.
pub(super) const RAFT_BYTES_MAX: usize = 256 << 20;

/// One request under way, to be given back.
#[derive(Debug)]
#[must_use]
pub(super) struct Served {
    from: PeerId,
    bytes: usize,
    is_ours: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Room {
    requests: usize,
    bytes: usize,
}

impl Room {
    fn with(self, bytes: usize, max: Self) -> Option<Self> {
        let requests = self.requests + 1;
        let bytes = self.bytes.saturating_add(bytes);
        (requests <= max.requests && bytes <= max.bytes).then_some(Self { requests, bytes })
    }
}

/// The proposals of one node that were served last, by their numbers.
#[derive(Debug, Default)]
struct Recent {
    numbers: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Recent {
    fn is_new(&mut self, number: u64) -> bool {
        if !self.numbers.insert(number) {
            return false;
        }
        self.order.push_back(number);
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.numbers.remove(&oldest);
        }
        true
    }
}

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Serving {
    recent: BTreeMap<NodeId, Recent>,
    ours: usize,
    raft: Room,
    raft_of: BTreeMap<PeerId, Room>,
}

/// Whether this asks the node, and not its Raft.
pub(super) fn is_ours(body: &Body) -> bool {
    matches!(body, Body::Submit(_) | Body::Submits(_) | Body::Read(_))
}

impl Serving {
    /// Takes on a request of `from` that came in a frame of so many bytes, if there is room.
    pub(super) fn take(&mut self, from: &PeerId, body: &Body, bytes: usize) -> Option<Served> {
        let is_ours = is_ours(body);
        if is_ours {
            if self.ours >= SERVING_MAX {
                return None;
            }
            self.ours += 1;
        } else {
            let of = self.raft_of.get(from).copied().unwrap_or_default();
            let all = self.raft.with(
                bytes,
                Room {
                    requests: RAFT_MAX,
                    bytes: RAFT_BYTES_MAX,
                },
            )?;
            let of = of.with(
                bytes,
                Room {
                    requests: RAFT_OF_PEER_MAX,
                    bytes: RAFT_BYTES_OF_PEER_MAX,
                },
            )?;
            self.raft = all;
            self.raft_of.insert(from.clone(), of);
        }
        Some(Served {
            from: from.clone(),
            bytes,
            is_ours,
        })
    }

    /// Whether a request of `from` with this number was not served yet, as far as is remembered. One
    /// of Raft's own, or a read, may be served again: what is answered is true of it then too.
    pub(super) fn is_new(&mut self, from: &NodeId, number: u64, body: &Body) -> bool {
        if !matches!(body, Body::Submit(_)) {
            return true;
        }
        if self.recent.len() >= PEERS_MAX && !self.recent.contains_key(from) {
            self.recent.pop_first();
        }
        self.recent.entry(from.clone()).or_default().is_new(number)
    }

    /// It was served.
    pub(super) fn give_back(&mut self, served: Served) {
        if served.is_ours {
            self.ours -= 1;
            return;
        }
        self.raft.requests -= 1;
        self.raft.bytes -= served.bytes;
        if let Some(of) = self.raft_of.get_mut(&served.from) {
            of.requests -= 1;
            of.bytes -= served.bytes;
            if of.requests == 0 {
                self.raft_of.remove(&served.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Incarnation;
    use crate::raft::wire::{Append, ReadAsked, Submit};

    fn peer(n: usize) -> PeerId {
        PeerId::new(format!("p{n}")).unwrap()
    }

    fn append() -> Body {
        Body::Append(Append::default())
    }

    fn read() -> Body {
        Body::Read(ReadAsked {})
    }

    #[test]
    fn a_proposal_is_served_once_for_as_long_as_it_is_remembered_and_what_may_be_repeated_again() {
        let mut serving = Serving::default();
        let submit = Body::Submit(Submit::default());
        let node = |n| NodeId::new(peer(n), Incarnation(0));
        let (ann, bob) = (node(1), node(2));
        assert!(serving.is_new(&ann, 0, &submit) && !serving.is_new(&ann, 0, &submit));
        assert!(serving.is_new(&bob, 0, &submit), "its own numbers");
        let later = NodeId::new(peer(1), Incarnation(1));
        assert!(serving.is_new(&later, 0, &submit), "and its later life's");
        for _ in 0..2 {
            assert!(serving.is_new(&ann, 0, &append()) && serving.is_new(&ann, 0, &read()));
        }
        for number in 1..REMEMBERED_MAX as u64 {
            assert!(serving.is_new(&ann, number, &submit));
        }
        assert!(
            !serving.is_new(&ann, 0, &submit),
            "the last that is remembered"
        );
        assert!(serving.is_new(&ann, REMEMBERED_MAX as u64, &submit));
        assert!(serving.is_new(&ann, 0, &submit), "one past it");
        for n in 0..PEERS_MAX + 5 {
            serving.is_new(&node(n), 7, &submit);
        }
        assert_eq!(serving.recent.len(), PEERS_MAX);
        // Who is remembered drives nobody out.
        let first = serving.recent.keys().next().cloned();
        assert!(serving.is_new(&node(PEERS_MAX + 4), 8, &submit));
        assert_eq!(serving.recent.keys().next().cloned(), first);
    }

    #[test]
    fn as_many_proposals_and_reads_are_served_as_may_be_and_one_more_is_not() {
        let mut serving = Serving::default();
        let mut served: Vec<_> = (0..SERVING_MAX)
            .map(|n| serving.take(&peer(n % 7), &read(), 10).unwrap())
            .collect();
        assert!(serving.take(&peer(8), &read(), 10).is_none());
        let beside = serving.take(&peer(8), &append(), 10);
        assert!(beside.is_some(), "Raft's own have their own room");
        serving.give_back(served.pop().unwrap());
        assert!(serving.take(&peer(8), &read(), 10).is_some());
    }

    #[test]
    fn as_many_of_rafts_requests_are_served_for_a_peer_and_for_all_as_may_be_and_one_more_is_not() {
        let mut serving = Serving::default();
        let mut served = Vec::new();
        for n in 0..RAFT_MAX / RAFT_OF_PEER_MAX {
            for _ in 0..RAFT_OF_PEER_MAX {
                served.push(serving.take(&peer(n), &append(), 1).unwrap());
            }
            let past = serving.take(&peer(n), &append(), 1);
            assert!(past.is_none(), "one more of {n}");
        }
        assert_eq!(served.len(), RAFT_MAX);
        let other = peer(100);
        assert!(serving.take(&other, &append(), 1).is_none(), "of all");
        assert!(serving.take(&other, &read(), 1).is_some());
        serving.give_back(served.pop().unwrap());
        let one = serving.take(&other, &append(), 1);
        assert!(one.is_some());
        served.extend(one);
        for one in served {
            serving.give_back(one);
        }
        assert!(serving.raft_of.is_empty() && serving.raft == Room::default());
    }

    #[test]
    fn the_frames_of_a_peer_and_of_all_have_so_many_bytes_and_not_one_more() {
        let mut serving = Serving::default();
        let whole = RAFT_BYTES_OF_PEER_MAX;
        let most = serving.take(&peer(0), &append(), whole - 1).unwrap();
        assert!(serving.take(&peer(0), &append(), 2).is_none(), "one more");
        let last = serving.take(&peer(0), &append(), 1).unwrap();
        assert!(serving.take(&peer(0), &append(), 1).is_none());
        assert!(serving.take(&peer(1), &append(), whole + 1).is_none());
        serving.give_back(most);
        serving.give_back(last);
        let peers = RAFT_BYTES_MAX / whole;
        let held: Vec<_> = (0..peers)
            .map(|n| serving.take(&peer(n), &append(), whole).unwrap())
            .collect();
        assert!(serving.take(&peer(peers), &append(), 1).is_none(), "of all");
        held.into_iter().for_each(|one| serving.give_back(one));
        assert!(serving.take(&peer(peers), &append(), 1).is_some());
    }
}
