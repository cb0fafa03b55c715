//! What waits of many senders for one reader, so that one that sends much takes nobody else's place.
//!
//! Invariants
//! - of one sender the order is kept; of several the reader gets one each in turn;
//! - room is made by whoever holds the most of what is short, items or bytes, with what arrives: a
//!   sender that holds less than an even share of the limit loses nothing to another;
//! - who has nothing waiting is not remembered.
//!
//! A push looks at all who have something waiting only when it finds no room; otherwise it and a pop
//! find one sender among them.

use std::collections::{BTreeMap, VecDeque};

use super::queue::Pushed;
use crate::ids::PeerId;

/// What waits of one sender.
struct Line<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
}

pub(super) struct Shares<T> {
    lines: BTreeMap<PeerId, Line<T>>,
    /// Who has something waiting, each once: the first is next.
    turns: VecDeque<PeerId>,
    len: usize,
    bytes: usize,
}

/// What is short.
#[derive(Clone, Copy)]
enum Short {
    Items,
    Bytes,
}

impl<T> Shares<T> {
    pub(super) fn new() -> Self {
        Self {
            lines: BTreeMap::new(),
            turns: VecDeque::new(),
            len: 0,
            bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds an item of `by` that weighs `bytes`, where so many items, and bytes of them, fit in all.
    pub(super) fn push(
        &mut self,
        by: &PeerId,
        item: T,
        bytes: usize,
        items_max: usize,
        bytes_max: usize,
    ) -> Pushed {
        let mut dropped = 0;
        loop {
            let short = if self.len >= items_max {
                Short::Items
            } else if self.bytes.saturating_add(bytes) > bytes_max {
                Short::Bytes
            } else {
                break;
            };
            dropped += 1;
            let gone = match self.most(by, bytes, short) {
                Some(most) => self.pop_of(&most),
                None => self.pop_of(by),
            };
            // With nothing of its own to give up it is what arrives that goes.
            if gone.is_none() {
                return Pushed::new(false, dropped);
            }
        }
        self.len += 1;
        self.bytes += bytes;
        if let Some(line) = self.lines.get_mut(by) {
            line.bytes += bytes;
            line.items.push_back((item, bytes));
        } else {
            self.turns.push_back(by.clone());
            let items = VecDeque::from([(item, bytes)]);
            self.lines.insert(by.clone(), Line { items, bytes });
        }
        Pushed::new(true, dropped)
    }

    /// The next item.
    pub(super) fn pop(&mut self) -> Option<T> {
        let next = self.turns.pop_front()?;
        let item = self.take_of(&next)?;
        if self.lines.contains_key(&next) {
            self.turns.push_back(next);
        }
        Some(item)
    }

    /// Who holds more of what is short than `by` would with what it brings; `None` when nobody does.
    fn most(&self, by: &PeerId, bytes: usize, short: Short) -> Option<PeerId> {
        let holds = |line: &Line<T>| match short {
            Short::Items => line.items.len(),
            Short::Bytes => line.bytes,
        };
        let brings = match short {
            Short::Items => 1,
            Short::Bytes => bytes,
        };
        let own = self.lines.get(by).map_or(0, holds).saturating_add(brings);
        let others = self.lines.iter().filter(|(peer, _)| *peer != by);
        let (most, line) = others.max_by_key(|(_, line)| holds(line))?;
        (holds(line) > own).then(|| most.clone())
    }

    /// Gives up what has waited longest of one sender, if anything has.
    fn pop_of(&mut self, by: &PeerId) -> Option<T> {
        let item = self.take_of(by)?;
        if !self.lines.contains_key(by) {
            self.turns.retain(|peer| peer != by);
        }
        Some(item)
    }

    /// Takes what has waited longest of one sender, and leaves the turns as they are.
    fn take_of(&mut self, by: &PeerId) -> Option<T> {
        let line = self.lines.get_mut(by)?;
        let (item, bytes) = line.items.pop_front()?;
        line.bytes -= bytes;
        if line.items.is_empty() {
            self.lines.remove(by);
        }
        self.len -= 1;
        self.bytes -= bytes;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 1000;

    fn peer(name: &str) -> PeerId {
        PeerId::new(name).unwrap()
    }

    fn push(shares: &mut Shares<u32>, by: &str, n: u32) -> Pushed {
        shares.push(&peer(by), n, 1, 10, BYTES_MAX)
    }

    fn kept() -> Pushed {
        Pushed {
            taken: true,
            dropped: 0,
        }
    }

    fn in_place_of_one() -> Pushed {
        Pushed {
            taken: true,
            dropped: 1,
        }
    }

    fn all(shares: &mut Shares<u32>) -> Vec<u32> {
        std::iter::from_fn(|| shares.pop()).collect()
    }

    #[test]
    fn a_flood_takes_nobodys_place_and_the_reader_gets_one_of_each_in_turn() {
        let mut shares = Shares::new();
        assert_eq!(push(&mut shares, "bob", 100), kept());
        for n in 0..9 {
            assert_eq!(push(&mut shares, "eve", n), kept());
        }
        for n in 9..1000 {
            assert_eq!(push(&mut shares, "eve", n), in_place_of_one());
        }
        // Who comes when it is full has place too.
        assert_eq!(push(&mut shares, "cyd", 200), in_place_of_one());
        assert_eq!(push(&mut shares, "cyd", 201), in_place_of_one());
        assert_eq!(shares.len(), 10);
        let eves = 993..1000;
        let got = all(&mut shares);
        assert_eq!(got[..5], [100, 993, 200, 994, 201]);
        assert_eq!(got[5..], Vec::from_iter(eves.skip(2)));
        assert!(shares.lines.is_empty() && shares.turns.is_empty());
        assert_eq!((shares.len, shares.bytes), (0, 0));
    }

    #[test]
    fn an_even_share_is_kept_and_one_past_it_is_not() {
        let mut shares = Shares::new();
        for n in 0..10 {
            push(&mut shares, "eve", n);
        }
        for n in 100..105 {
            assert_eq!(push(&mut shares, "bob", n), in_place_of_one());
        }
        // Both have half: the next is made room for by who brings it.
        for n in 10..100 {
            assert_eq!(push(&mut shares, "eve", n), in_place_of_one());
        }
        assert_eq!(push(&mut shares, "bob", 105), in_place_of_one());
        let got = all(&mut shares);
        let of = |range: std::ops::Range<u32>| got.iter().filter(|n| range.contains(n)).count();
        assert_eq!((of(0..100), of(101..106)), (5, 5));
    }

    #[test]
    fn who_would_hold_as_much_as_the_most_makes_room_itself() {
        let mut shares = Shares::new();
        let mut push = |by: &str, n: u32| shares.push(&peer(by), n, 1, 3, BYTES_MAX);
        for (by, n) in [("bob", 1), ("bob", 2), ("eve", 3)] {
            assert_eq!(push(by, n), kept());
        }
        assert_eq!(push("eve", 4), in_place_of_one());
        assert_eq!(all(&mut shares), [1, 4, 2]);
    }

    #[test]
    fn what_was_read_counts_against_nobody() {
        let mut shares = Shares::new();
        let push = |shares: &mut Shares<u32>, by: &str, n, bytes| {
            shares.push(&peer(by), n, bytes, 10, BYTES_MAX)
        };
        assert_eq!(push(&mut shares, "bob", 1, 600), kept());
        assert_eq!(push(&mut shares, "bob", 2, 100), kept());
        assert_eq!(shares.pop(), Some(1));
        assert_eq!(push(&mut shares, "eve", 3, 550), kept());
        // Bob has 100 left, and 500 with this: she has the most.
        assert_eq!(push(&mut shares, "bob", 4, 400), in_place_of_one());
        assert_eq!(all(&mut shares), [2, 4]);
    }

    #[test]
    fn bytes_are_shared_as_items_are() {
        let mut shares = Shares::new();
        let mut push = |by: &str, n: u32, bytes| shares.push(&peer(by), n, bytes, 10, BYTES_MAX);
        assert_eq!(push("eve", 1, 600), kept());
        assert_eq!(push("bob", 2, 400), kept());
        assert_eq!(push("cyd", 3, 10), in_place_of_one());
        assert_eq!(push("eve", 4, 500), kept());
        // It is the largest of all, and has nothing else to give up.
        let too_much = Pushed {
            taken: false,
            dropped: 1,
        };
        assert_eq!(push("dan", 5, 501), too_much);
        assert_eq!(push("dan", 6, 91), in_place_of_one());
        assert_eq!(all(&mut shares), [2, 3, 6]);
        let whole = shares.push(&peer("eve"), 7, BYTES_MAX, 10, BYTES_MAX);
        assert_eq!(whole, kept());
        let again = shares.push(&peer("eve"), 8, BYTES_MAX, 10, BYTES_MAX);
        assert_eq!(again, in_place_of_one());
    }
}
