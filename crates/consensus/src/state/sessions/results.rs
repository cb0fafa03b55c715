//! What became of a client's latest serials: a ring, since they come nearly in order and leave so.
//!
//! Invariants
//! - the first and the last slot are never empty, so equal results are equal rings;
//! - every serial before `lean` has an answer without bytes, or none.

use std::collections::VecDeque;

use super::{Answer, SERIAL_MAX, SESSION_BYTES_MAX, WINDOW};

/// Answers by serial, all of them within [`WINDOW`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Results {
    /// The serial of the first slot.
    first: u64,
    slots: VecDeque<Option<Answer>>,
    len: usize,
    /// Bytes of the answers.
    bytes: usize,
    /// Where withholding goes on.
    lean: u64,
}

impl PartialEq for Results {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl Eq for Results {}

impl Results {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn place(&self, serial: u64) -> Option<usize> {
        usize::try_from(serial.checked_sub(self.first)?).ok()
    }

    pub(crate) fn get(&self, serial: u64) -> Option<&Answer> {
        self.slots.get(self.place(serial)?)?.as_ref()
    }

    /// Every answer with its serial, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Answer)> {
        let slots = (self.first..).zip(&self.slots);
        slots.filter_map(|(serial, slot)| Some((serial, slot.as_ref()?)))
    }

    /// Adds an answer, or replaces one. `false`, and nothing changed, when it is not within
    /// [`WINDOW`] of every other.
    pub(crate) fn insert(&mut self, serial: u64, answer: Answer) -> bool {
        if self.slots.is_empty() {
            self.first = serial;
        }
        let next = self.first + self.slots.len() as u64;
        let (low, high) = (self.first.min(serial), next.max(serial.saturating_add(1)));
        if serial > SERIAL_MAX || high - low > WINDOW {
            return false;
        }
        for _ in serial..self.first {
            self.slots.push_front(None);
        }
        for _ in next..high {
            self.slots.push_back(None);
        }
        self.first = low;
        self.lean = self.lean.min(serial);
        // Within the ring, which reaches from `low` to `high`.
        let slot = &mut self.slots[(serial - low) as usize];
        self.bytes += answer.kept.result.bytes();
        match slot.replace(answer) {
            Some(old) => self.bytes -= old.kept.result.bytes(),
            None => self.len += 1,
        }
        true
    }

    /// Forgets the answers to serials before this one.
    pub(crate) fn forget_before(&mut self, serial: u64) {
        while let Some(first) = self.slots.front()
            && (self.first < serial || first.is_none())
        {
            if let Some(Some(old)) = self.slots.pop_front() {
                self.len -= 1;
                self.bytes -= old.kept.result.bytes();
            }
            self.first += 1;
        }
    }

    /// Withholds the oldest answers until the rest is within [`SESSION_BYTES_MAX`].
    pub(crate) fn withhold(&mut self) {
        let mut place = self.place(self.lean.max(self.first)).unwrap_or(0);
        while self.bytes > SESSION_BYTES_MAX
            && let Some(slot) = self.slots.get_mut(place)
        {
            if let Some(answer) = slot {
                self.bytes -= answer.kept.result.bytes();
                answer.kept.result = answer.kept.result.withheld();
            }
            place += 1;
            self.lean = self.first + place as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::{Kept, KeptResult};
    use super::*;

    fn answer(bytes: usize) -> Answer {
        Answer {
            generation: 1,
            kept: Kept {
                index: 1,
                term: 1,
                turn: 1,
                result: KeptResult::Accepted(vec![0; bytes].into()),
            },
        }
    }

    #[test]
    fn the_window_is_taken_whole_and_one_serial_past_either_end_is_not() {
        let mut results = Results::default();
        assert!(results.insert(10, answer(0)));
        assert!(results.insert(10 + WINDOW - 1, answer(0)));
        assert!(!results.insert(10 + WINDOW, answer(0)));
        assert!(!results.insert(9, answer(0)));
        assert!(!results.insert(u64::MAX, answer(0)));
        assert_eq!((results.len(), results.slots.len() as u64), (2, WINDOW));
        results.forget_before(11);
        assert_eq!((results.len(), results.slots.len()), (1, 1));
        assert!(results.insert(10 + WINDOW, answer(0)));
        results.forget_before(u64::MAX);
        assert_eq!(results, Results::default());
    }

    proptest! {
        /// What a sorted map did before: the bytes of a state's hash and of a snapshot hang on it.
        #[test]
        fn it_is_a_sorted_map(
            deeds in proptest::collection::vec((1u64..5000, 0usize..300), 1..3000),
        ) {
            let mut results = Results::default();
            let mut map: BTreeMap<u64, Answer> = BTreeMap::new();
            let mut highest = 0;
            for (n, (serial, bytes)) in deeds.into_iter().enumerate() {
                // Mostly in order.
                let serial = if n % 7 == 0 { serial } else { highest + 1 };
                if serial + WINDOW <= highest || map.contains_key(&serial) {
                    continue;
                }
                highest = highest.max(serial);
                results.forget_before((highest + 1).saturating_sub(WINDOW));
                map.retain(|of, _| of + WINDOW > highest);
                prop_assert!(results.insert(serial, answer(bytes)));
                map.insert(serial, answer(bytes));
                let mut total: usize = map.values().map(|a| a.kept.result.bytes()).sum();
                for old in map.values_mut() {
                    if total <= SESSION_BYTES_MAX {
                        break;
                    }
                    total -= old.kept.result.bytes();
                    old.kept.result = old.kept.result.withheld();
                }
                results.withhold();
                prop_assert_eq!(results.bytes(), total);
                prop_assert_eq!(results.len(), map.len());
                prop_assert_eq!(results.get(serial), map.get(&serial));
                prop_assert_eq!(results.get(highest + 1), None);
            }
            prop_assert!(results.iter().eq(map.iter().map(|(serial, answer)| (*serial, answer))));
        }
    }
}
