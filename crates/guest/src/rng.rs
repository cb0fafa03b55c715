//! The room's random numbers: SplitMix64 from the room's seed.
//!
//! Same seed and same callbacks give the same numbers, so a replayed room replays its dice. Not
//! for secrets: whoever knows the seed knows the deck.

use core::ops::RangeInclusive;

/// A seeded generator. The room's own is [`Room::rng`](crate::Room::rng).
///
/// ```
/// use cabinet_guest::Rng;
/// let mut deck: Vec<u8> = (0..52).collect();
/// Rng::seeded(42).shuffle(&mut deck);
/// let mut again: Vec<u8> = (0..52).collect();
/// Rng::seeded(42).shuffle(&mut again);
/// assert_eq!(deck, again);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// The generator whose sequence `seed` names.
    pub const fn seeded(seed: u64) -> Rng {
        Rng { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`, without modulo bias; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        // Draws at or above the largest multiple of `bound` are thrown away: fewer than half.
        let rejected = (u64::MAX % bound + 1) % bound;
        loop {
            let draw = self.next_u64();
            if draw <= u64::MAX - rejected {
                return draw % bound;
            }
        }
    }

    /// Uniform in `range`, both ends included; the start when the range is empty.
    pub fn range(&mut self, range: RangeInclusive<i64>) -> i64 {
        let (start, end) = range.into_inner();
        if end <= start {
            return start;
        }
        let span = end.wrapping_sub(start).cast_unsigned();
        let offset = match span.checked_add(1) {
            Some(bound) => self.below(bound),
            None => self.next_u64(),
        };
        start.wrapping_add(offset.cast_signed())
    }

    /// Uniform in `0..len`, or `None` when `len` is 0.
    pub fn index(&mut self, len: usize) -> Option<usize> {
        // The draw is below `len`, which was a `usize`.
        (len > 0).then(|| self.below(len as u64) as usize)
    }

    /// True `numerator` times out of `denominator`; never for a denominator of 0.
    pub fn chance(&mut self, numerator: u32, denominator: u32) -> bool {
        denominator > 0 && self.below(u64::from(denominator)) < u64::from(numerator)
    }

    /// One of `items`, or `None` when there are none.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        self.index(items.len()).map(|index| &items[index])
    }

    /// Every order of `items` equally likely (Fisher and Yates, from the back).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }

    /// A second generator with a sequence of its own, for a part of the game whose number of draws
    /// must not disturb the rest.
    pub fn split(&mut self) -> Rng {
        Rng::seeded(self.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_splitmix64() {
        // The first outputs of the published SplitMix64 for these seeds.
        let mut zero = Rng::seeded(0);
        assert_eq!(
            [zero.next_u64(), zero.next_u64(), zero.next_u64()],
            [
                0xE220_A839_7B1D_CDAF,
                0x6E78_9E6A_A1B9_65F4,
                0x06C4_5D18_8009_454F
            ]
        );
        let mut rng = Rng::seeded(1_234_567);
        assert_eq!(
            [rng.next_u64(), rng.next_u64(), rng.next_u64()],
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn below_stays_below_even_at_the_edges() {
        let mut rng = Rng::seeded(7);
        for bound in [1, 2, 3, 6, u64::MAX - 1, u64::MAX] {
            assert!((0..100).all(|_| rng.below(bound) < bound));
        }
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn a_range_reaches_both_ends_and_the_whole_of_i64() {
        let mut rng = Rng::seeded(1);
        let drawn: Vec<i64> = (0..200).map(|_| rng.range(-1..=1)).collect();
        assert!([-1, 0, 1].iter().all(|value| drawn.contains(value)));
        assert!(drawn.iter().all(|value| (-1..=1).contains(value)));
        rng.range(i64::MIN..=i64::MAX);
        #[expect(clippy::reversed_empty_ranges, reason = "the behaviour under test")]
        let empty = rng.range(5..=4);
        assert_eq!(empty, 5);
    }

    #[test]
    fn chance_never_and_always() {
        let mut rng = Rng::seeded(3);
        assert!((0..50).all(|_| !rng.chance(0, 6) && rng.chance(6, 6) && !rng.chance(1, 0)));
    }

    #[test]
    fn a_shuffle_is_a_permutation_and_nothing_chosen_from_nothing() {
        let mut rng = Rng::seeded(9);
        let mut items: Vec<u32> = (0..20).collect();
        rng.shuffle(&mut items);
        assert_ne!(items, (0..20).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..20).collect::<Vec<_>>());
        assert_eq!(rng.choose::<u8>(&[]), None);
        assert_eq!(rng.choose(&[4]), Some(&4));
    }
}
