//! Proposals on their way to the leader, gathered.
//!
//! The first goes at once. Those that come while it is being sent wait until whoever could add to
//! them has had its turn, and travel together; so no time is waited for, and one alone is never
//! delayed.
//!
//! Invariants
//! - what goes to one node goes in the order it came;
//! - a frame has at most [`TOGETHER_MAX`] proposals and, with more than one, at most
//!   [`TOGETHER_BYTES_MAX`] bytes of them.
//!
//! No task here: [`Gather::offer`] is told what is to be sent and says whether to send it now, and
//! [`Gather::take`] says what to send next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::NodeId;
use crate::raft::wire::{Numbered, TOGETHER_BYTES_MAX, TOGETHER_MAX};

/// What waits, by whom it is for. Whoever something is being sent to has an entry.
#[derive(Default)]
pub(super) struct Gather(Mutex<BTreeMap<NodeId, VecDeque<Numbered>>>);

impl Gather {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, VecDeque<Numbered>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it back if it is to be sent at once; then [`Gather::take`] must be called soon.
    pub(super) fn offer(&self, to: &NodeId, ask: Numbered) -> Option<Numbered> {
        let mut waiting = self.lock();
        if let Some(queue) = waiting.get_mut(to) {
            queue.push_back(ask);
            return None;
        }
        waiting.insert(to.clone(), VecDeque::new());
        Some(ask)
    }

    /// A frame for each node that something waits for. Whoever nothing waits for is sent to at once
    /// again.
    pub(super) fn take(&self) -> Vec<(NodeId, Vec<Numbered>)> {
        let mut waiting = self.lock();
        waiting.retain(|_, queue| !queue.is_empty());
        let frames = waiting.iter_mut();
        frames
            .map(|(to, queue)| (to.clone(), together(queue, |ask| ask.command.len())))
            .collect()
    }
}

/// As many from the front as one frame takes; one at least.
pub(super) fn together<T>(queue: &mut VecDeque<T>, bytes_of: impl Fn(&T) -> usize) -> Vec<T> {
    let mut bytes = 0usize;
    let fits = queue.iter().take(TOGETHER_MAX).take_while(|one| {
        bytes = bytes.saturating_add(bytes_of(one));
        bytes <= TOGETHER_BYTES_MAX
    });
    let count = fits.count().max(1).min(queue.len());
    queue.drain(..count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Incarnation, PeerId};

    fn node(name: &str) -> NodeId {
        NodeId::new(PeerId::new(name).unwrap(), Incarnation(0))
    }

    fn ask(id: u64, len: usize) -> Numbered {
        Numbered {
            id,
            command: vec![7; len].into(),
        }
    }

    fn ids(asks: &[Numbered]) -> Vec<u64> {
        asks.iter().map(|ask| ask.id).collect()
    }

    #[test]
    fn the_first_goes_at_once_and_those_that_come_meanwhile_go_together() {
        let gather = Gather::default();
        let ann = node("ann");
        assert_eq!(gather.offer(&ann, ask(1, 9)).map(|ask| ask.id), Some(1));
        assert!(gather.offer(&ann, ask(2, 9)).is_none());
        assert!(gather.offer(&ann, ask(3, 9)).is_none());
        // Another is asked on its own.
        assert!(gather.offer(&node("bob"), ask(4, 9)).is_some());
        let frames = gather.take();
        assert_eq!(frames.len(), 1);
        assert_eq!((&frames[0].0, ids(&frames[0].1)), (&ann, vec![2, 3]));
        // Still being sent to.
        assert!(gather.offer(&ann, ask(5, 9)).is_none());
        assert_eq!(ids(&gather.take()[0].1), [5]);
        assert!(gather.take().is_empty());
        assert!(gather.offer(&ann, ask(6, 9)).is_some(), "idle again");
    }

    #[test]
    fn a_frame_takes_so_many_and_so_many_bytes_and_one_past_it_is_left() {
        let mut queue: VecDeque<_> = (0..=TOGETHER_MAX as u64).map(|id| ask(id, 1)).collect();
        assert_eq!(
            together(&mut queue, |ask| ask.command.len()).len(),
            TOGETHER_MAX
        );
        assert_eq!(queue.len(), 1);
        for (last, left) in [(0, 0), (1, 1)] {
            let mut queue: VecDeque<_> =
                [ask(1, TOGETHER_BYTES_MAX - 10), ask(2, 10 + last)].into();
            together(&mut queue, |ask| ask.command.len());
            assert_eq!(queue.len(), left, "{last}");
        }
        let mut large: VecDeque<_> = [ask(1, TOGETHER_BYTES_MAX + 1), ask(2, 1)].into();
        assert_eq!(ids(&together(&mut large, |ask| ask.command.len())), [1]);
        assert_eq!(ids(&together(&mut large, |ask| ask.command.len())), [2]);
        assert!(together(&mut large, |ask| ask.command.len()).is_empty());
    }
}
