//! How much is under way at a leader, for each peer and for all.
//!
//! Invariants
//! - no peer has more than its share under way, whatever the others leave free;
//! - what was taken is given back however the work ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::PeerId;

/// What is under way.
pub(super) struct Load {
    total_max: usize,
    peer_max: usize,
    total: AtomicUsize,
    peers: Mutex<BTreeMap<PeerId, usize>>,
}

/// One thing under way, until dropped.
pub(super) struct Carried<'a> {
    load: &'a Load,
    /// Whose it is; `None` for this node's own.
    peer: Option<PeerId>,
}

impl Load {
    pub(super) fn new(total_max: usize, peer_max: usize) -> Self {
        Self {
            total_max,
            peer_max,
            total: AtomicUsize::new(0),
            peers: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, usize>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one more thing on for `peer`, if there is room.
    pub(super) fn take(&self, peer: &PeerId) -> Option<Carried<'_>> {
        let mut carried = self.take_own()?;
        let mut peers = self.lock();
        let of = peers.entry(peer.clone()).or_default();
        if *of >= self.peer_max {
            return None;
        }
        *of += 1;
        carried.peer = Some(peer.clone());
        Some(carried)
    }

    /// Takes one more thing on for this node itself, if there is room. Its client counts its own.
    pub(super) fn take_own(&self) -> Option<Carried<'_>> {
        let room = |total: usize| (total < self.total_max).then_some(total + 1);
        let taken = self
            .total
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room);
        // Made only when taken: dropping one gives back.
        taken.ok().map(|_| Carried {
            load: self,
            peer: None,
        })
    }
}

impl Drop for Carried<'_> {
    fn drop(&mut self) {
        self.load.total.fetch_sub(1, Ordering::Relaxed);
        let Some(peer) = &self.peer else { return };
        let mut peers = self.load.lock();
        if let Some(of) = peers.get_mut(peer) {
            *of -= 1;
            if *of == 0 {
                peers.remove(peer);
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
        assert!(load.lock().is_empty());
    }
}
