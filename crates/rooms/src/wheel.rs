//! The timer wheel: when each room wants to run next.
//!
//! One ring of slots, a millisecond each. A timer further away than the ring is long stays in its
//! slot and is passed over until its turn comes round, so that setting one costs the same however
//! far away it is. Timers fire at the first millisecond at or after their time, never before.

use std::time::Duration;

/// Slots of the ring, and so milliseconds: the longest heartbeat is 1,000.
const SLOTS: usize = 1_024;
const WORDS: usize = SLOTS / 64;

/// Timers that carry a `T`.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    slots: Vec<Vec<Entry<T>>>,
    /// A bit for each slot that holds anything.
    occupied: [u64; WORDS],
    /// Every timer of this tick and earlier has fired.
    passed: u64,
    len: usize,
}

#[derive(Debug)]
struct Entry<T> {
    tick: u64,
    item: T,
}

impl<T> Wheel<T> {
    pub(crate) fn new() -> Self {
        Self {
            slots: std::iter::repeat_with(Vec::new).take(SLOTS).collect(),
            occupied: [0; WORDS],
            passed: 0,
            len: 0,
        }
    }

    /// Sets a timer. One whose time has passed fires at the next [`Wheel::advance`] that moves on.
    pub(crate) fn insert(&mut self, at: Duration, item: T) {
        let tick = ceil_tick(at).max(self.passed + 1);
        let slot = slot_of(tick);
        self.slots[slot].push(Entry { tick, item });
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.len += 1;
    }

    /// Fires every timer due at `now`, those of earlier milliseconds first.
    pub(crate) fn advance(&mut self, now: Duration, mut fire: impl FnMut(T)) {
        let target = floor_tick(now);
        if target <= self.passed {
            return;
        }
        if self.len == 0 {
            self.passed = target;
            return;
        }
        // Once round visits every slot; a longer jump need not go round again.
        let last = target.min(self.passed + SLOTS as u64);
        for tick in self.passed + 1..=last {
            let slot = slot_of(tick);
            if self.occupied[slot / 64] & (1 << (slot % 64)) == 0 {
                continue;
            }
            let entries = &mut self.slots[slot];
            let due = entries.extract_if(.., |entry| entry.tick <= target);
            for entry in due {
                self.len -= 1;
                fire(entry.item);
            }
            if entries.is_empty() {
                self.occupied[slot / 64] &= !(1 << (slot % 64));
            }
        }
        self.passed = target;
    }

    /// When the wheel should next be advanced: no timer fires before, though at the time given
    /// possibly none does either. `None` without timers.
    pub(crate) fn next(&self) -> Option<Duration> {
        if self.len == 0 {
            return None;
        }
        let first = self.passed + 1;
        let ahead = (0..SLOTS as u64).find(|ahead| {
            let slot = slot_of(first + ahead);
            self.occupied[slot / 64] & (1 << (slot % 64)) != 0
        })?;
        Some(Duration::from_millis(first + ahead))
    }
}

fn slot_of(tick: u64) -> usize {
    // Below SLOTS, so it fits.
    (tick % SLOTS as u64) as usize
}

fn floor_tick(at: Duration) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX / 2)
}

fn ceil_tick(at: Duration) -> u64 {
    floor_tick(at) + u64::from(!at.subsec_nanos().is_multiple_of(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn fired<T>(wheel: &mut Wheel<T>, now: Duration) -> Vec<T> {
        let mut items = Vec::new();
        wheel.advance(now, |item| items.push(item));
        items
    }

    #[test]
    fn a_timer_fires_once_at_its_time_and_not_before() {
        let mut wheel = Wheel::new();
        wheel.insert(Duration::from_micros(10_001), 'a');
        wheel.insert(ms(10), 'b');
        assert_eq!(wheel.next(), Some(ms(10)));
        assert!(fired(&mut wheel, Duration::from_micros(9_999)).is_empty());
        assert_eq!(fired(&mut wheel, ms(10)), ['b']);
        assert_eq!(wheel.next(), Some(ms(11)));
        assert_eq!(fired(&mut wheel, ms(11)), ['a']);
        assert!(fired(&mut wheel, ms(5_000)).is_empty());
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_timer_further_away_than_the_ring_waits_for_its_turn() {
        let mut wheel = Wheel::new();
        wheel.insert(ms(60_000), 'g');
        for second in 1..60 {
            assert!(fired(&mut wheel, ms(second * 1_000)).is_empty());
        }
        assert_eq!(fired(&mut wheel, ms(60_000)), ['g']);
    }

    #[test]
    fn a_long_jump_fires_all_that_was_due() {
        let mut wheel = Wheel::new();
        for at in [3, 1_023, 1_024, 1_025, 9_000] {
            wheel.insert(ms(at), at);
        }
        let mut all = fired(&mut wheel, ms(10_000));
        all.sort_unstable();
        assert_eq!(all, [3, 1_023, 1_024, 1_025, 9_000]);
    }

    proptest! {
        #[test]
        fn a_wheel_fires_what_a_sorted_list_would(
            steps in prop::collection::vec((0u64..3_000, prop::collection::vec(0u64..5_000_000, 0..6)), 1..40),
        ) {
            let mut wheel = Wheel::new();
            let mut model: Vec<(u64, usize)> = Vec::new();
            let (mut now, mut count) = (0u64, 0);
            for (forward, timers) in steps {
                for micros in timers {
                    let at = Duration::from_millis(now) + Duration::from_micros(micros);
                    wheel.insert(at, count);
                    model.push((ceil_tick(at).max(now + 1), count));
                    count += 1;
                }
                if let Some(next) = wheel.next() {
                    let earliest = model.iter().map(|(at, _)| *at).min().unwrap_or(u64::MAX);
                    prop_assert!(next <= ms(earliest));
                } else {
                    prop_assert!(model.is_empty());
                }
                now += forward;
                let mut got = fired(&mut wheel, ms(now));
                let mut want: Vec<usize> =
                    model.iter().filter(|(at, _)| *at <= now).map(|(_, item)| *item).collect();
                model.retain(|(at, _)| *at > now);
                got.sort_unstable();
                want.sort_unstable();
                prop_assert_eq!(got, want);
            }
        }
    }
}
