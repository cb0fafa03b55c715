//! How much is under way at a leader, for each peer and for all.
//!
//! Invariants
//! - no peer has more than its share under way, whatever the others leave free;
//! - what was taken is given back however the work ends.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::PeerId;

/// What is under way.
pub(super) struct Load {
    total_max: usize,
    peer_max: usize,
    peers: Mutex<(usize, BTreeMap<PeerId, usize>)>,
}

/// One thing under way, until dropped.
pub(super) struct Carried<'a> {
    load: &'a Load,
    peer: PeerId,
}

impl Load {
    pub(super) fn new(total_max: usize, peer_max: usize) -> Self {
        Self {
            total_max,
            peer_max,
            peers: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, (usize, BTreeMap<PeerId, usize>)> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one more thing on for `peer`, if there is room.
    pub(super) fn take(&self, peer: &PeerId) -> Option<Carried<'_>> {
        let mut peers = self.lock();
        let (total, of) = &mut *peers;
        if *total >= self.total_max || of.get(peer).is_some_and(|n| *n >= self.peer_max) {
            return None;
        }
        *total += 1;
        *of.entry(peer.clone()).or_default() += 1;
        let peer = peer.clone();
        Some(Carried { load: self, peer })
    }
}

impl Drop for Carried<'_> {
    fn drop(&mut self) {
        let mut peers = self.load.lock();
        let (total, of) = &mut *peers;
        *total -= 1;
        if let Some(n) = of.get_mut(&self.peer) {
            *n -= 1;
            if *n == 0 {
                of.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_and_all_have_their_limit_and_one_past_it_is_refused_until_something_ends() {
        let load = Load::new(3, 2);
        let [ann, bob] = ["ann", "bob"].map(|name| PeerId::new(name).unwrap());
        let first = load.take(&ann);
        let second = load.take(&ann);
        assert!(first.is_some() && second.is_some());
        assert!(load.take(&ann).is_none(), "a third of one peer");
        let third = load.take(&bob);
        assert!(third.is_some());
        assert!(load.take(&bob).is_none(), "a fourth of all");
        drop(first);
        assert!(load.take(&bob).is_some());
        drop((second, third));
        assert!(load.lock().1.is_empty());
    }
}
