//! The keys that were decided of late, so that one proposed again is not shown on top of itself.
//!
//! Invariants
//! - at most [`DECIDED_MAX`] keys are remembered, those noted last.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::ActionKey;

/// Keys remembered.
const DECIDED_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Decided {
    indices: BTreeMap<ActionKey, u64>,
    order: VecDeque<ActionKey>,
}

impl Decided {
    /// Remembers which entry decided a key; the first one counts.
    pub(super) fn note(&mut self, key: &ActionKey, index: u64) {
        if self.indices.contains_key(key) {
            return;
        }
        self.indices.insert(key.clone(), index);
        self.order.push_back(key.clone());
        if self.order.len() > DECIDED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.indices.remove(&oldest);
        }
    }

    pub(super) fn index_of(&self, key: &ActionKey) -> Option<u64> {
        self.indices.get(key).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClientId;

    #[test]
    fn the_most_keys_are_remembered_and_one_more_forgets_the_oldest() {
        let key = |serial| ActionKey {
            client: ClientId::new("c").unwrap(),
            serial,
        };
        let mut decided = Decided::default();
        let max = DECIDED_MAX as u64;
        for serial in 1..=max {
            decided.note(&key(serial), serial + 5);
            decided.note(&key(serial), serial + 9);
        }
        assert_eq!(decided.index_of(&key(1)), Some(6));
        decided.note(&key(max + 1), max + 6);
        assert_eq!(decided.index_of(&key(1)), None);
        assert_eq!(decided.index_of(&key(2)), Some(7));
        assert_eq!(decided.order.len(), DECIDED_MAX);
        assert_eq!(decided.indices.len(), DECIDED_MAX);
    }
}
