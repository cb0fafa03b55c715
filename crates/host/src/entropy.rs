//! The byte stream a guest's `random_get` reads: the one Go's `math/rand` gives for a seed.
//!
//! Any seeded stream would satisfy the ABI. This one is kept because guest memory depends on the
//! bytes (TinyGo draws 32 of them while it initialises) and because rooms stored by the reference
//! host continue from a position in it.
//!
//! The generator is an additive lagged Fibonacci sequence over 64-bit words,
//! `s[n + 607] = s[n] + s[n + 334]`, whose first 607 words come from the seed. Each word gives
//! seven bytes, low byte first; the eighth is not used.
//!
//! A position costs at most a few milliseconds to reach, however far it is: a long way is jumped
//! by polynomial exponentiation instead of walked. So a stored position is not a way to keep a
//! host busy, and no room becomes too old to be restored.

use crate::entropy_table::SEED_WORDS;

/// Words of generator state.
const WORDS: usize = 607;
/// Distance from a word to the second one it is added to: 607 − 273.
const LAG: usize = 334;
/// Bytes taken from one generator word.
const BYTES_PER_WORD: u64 = 7;
/// Words up to which walking (about 1 ns each) is cheaper than jumping (about 5 ms).
const WALK_MAX_WORDS: u64 = 4_000_000;

/// A seeded entropy stream and the position in it.
#[derive(Clone)]
pub struct Entropy {
    seed: i64,
    /// The newest 607 words; `ring[next]` is the oldest and the next to be replaced.
    ring: [u64; WORDS],
    next: usize,
    /// What is left of the word being handed out, low byte first.
    word: u64,
    word_bytes_left: u8,
    consumed: u64,
}

impl Entropy {
    /// The stream of `seed`, at byte 0.
    #[must_use]
    pub fn new(seed: i64) -> Self {
        let seeded = seeded_words(seed, [40, 20]);
        let ring = std::array::from_fn(|k| {
            let i = ring_index(k as u64);
            seeded[i] ^ SEED_WORDS[i]
        });
        Self {
            seed,
            ring,
            next: 0,
            word: 0,
            word_bytes_left: 0,
            consumed: 0,
        }
    }

    /// Fills `out` with the next bytes. How a stretch is split into calls does not change it.
    pub fn fill(&mut self, out: &mut [u8]) {
        for byte in out.iter_mut() {
            if self.word_bytes_left == 0 {
                self.word = self.next_word();
                self.word_bytes_left = BYTES_PER_WORD as u8;
            }
            *byte = self.word as u8;
            self.word >>= 8;
            self.word_bytes_left -= 1;
        }
        self.consumed = self.consumed.wrapping_add(out.len() as u64);
    }

    /// Bytes handed out since byte 0 of the stream.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Moves to byte `position` of the stream, forwards or back, in a few milliseconds at most.
    pub fn skip_to(&mut self, position: u64) {
        if position < self.consumed {
            *self = Self::new(self.seed);
        }
        let words_drawn = self.consumed.div_ceil(BYTES_PER_WORD);
        let words_wanted = position / BYTES_PER_WORD;
        if words_wanted >= words_drawn {
            self.skip_words(words_wanted - words_drawn);
            self.word_bytes_left = 0;
            self.consumed = words_wanted * BYTES_PER_WORD;
        }
        // Less than one word away now.
        let mut rest = [0; BYTES_PER_WORD as usize];
        self.fill(&mut rest[..(position - self.consumed) as usize]);
    }

    fn next_word(&mut self) -> u64 {
        let other = (self.next + LAG) % WORDS;
        let word = self.ring[self.next].wrapping_add(self.ring[other]);
        self.ring[self.next] = word;
        self.next = (self.next + 1) % WORDS;
        word
    }

    fn skip_words(&mut self, count: u64) {
        if count <= WALK_MAX_WORDS {
            for _ in 0..count {
                self.next_word();
            }
        } else {
            let oldest_first = std::array::from_fn(|k| self.ring[(self.next + k) % WORDS]);
            self.ring = jump(&oldest_first, count);
            self.next = 0;
        }
    }
}

/// The ring index the reference keeps word `k` of the sequence at; its seed words are numbered so.
fn ring_index(k: u64) -> usize {
    const N: u64 = WORDS as u64;
    ((333 + N - k % N) % N) as usize
}

/// The 607 words a seed gives before they are mixed with [`SEED_WORDS`]: three steps of a 31-bit
/// Lehmer generator each, the first two shifted left by `shifts`.
fn seeded_words(seed: i64, shifts: [u32; 2]) -> [u64; WORDS] {
    const MODULUS: i64 = (1 << 31) - 1;
    let mut x = match seed.rem_euclid(MODULUS) {
        0 => 89_482_311,
        reduced => reduced as u64,
    };
    // 48271·x stays below 2^47: no overflow.
    let mut step = || {
        x = x * 48_271 % MODULUS as u64;
        x
    };
    for _ in 0..20 {
        step();
    }
    std::array::from_fn(|_| {
        let high = step() << shifts[0];
        let middle = step() << shifts[1];
        high ^ middle ^ step()
    })
}

/// The state `count` words later: `x^count` modulo the characteristic polynomial
/// `x^607 − x^334 − 1` over the integers mod 2^64 says how each later word is a sum of the
/// present ones.
fn jump(state: &[u64; WORDS], count: u64) -> [u64; WORDS] {
    let mut power = [0u64; WORDS];
    power[0] = 1;
    for bit in (0..u64::BITS - count.leading_zeros()).rev() {
        power = square(&power);
        if count >> bit & 1 == 1 {
            power = times_x(&power);
        }
    }

    let mut words = [0u64; 2 * WORDS];
    words[..WORDS].copy_from_slice(state);
    for n in WORDS..2 * WORDS {
        words[n] = words[n - WORDS].wrapping_add(words[n - WORDS + LAG]);
    }
    std::array::from_fn(|k| {
        power
            .iter()
            .zip(&words[k..])
            .fold(0u64, |sum, (p, w)| sum.wrapping_add(p.wrapping_mul(*w)))
    })
}

fn square(a: &[u64; WORDS]) -> [u64; WORDS] {
    let mut product = [0u64; 2 * WORDS];
    for (i, &ai) in a.iter().enumerate() {
        for (p, &aj) in product[i..].iter_mut().zip(a) {
            *p = p.wrapping_add(ai.wrapping_mul(aj));
        }
    }
    for k in (WORDS..2 * WORDS).rev() {
        let carry = product[k];
        product[k - WORDS] = product[k - WORDS].wrapping_add(carry);
        product[k - WORDS + LAG] = product[k - WORDS + LAG].wrapping_add(carry);
    }
    std::array::from_fn(|k| product[k])
}

fn times_x(a: &[u64; WORDS]) -> [u64; WORDS] {
    let carry = a[WORDS - 1];
    let mut shifted = [0u64; WORDS];
    shifted[1..].copy_from_slice(&a[..WORDS - 1]);
    shifted[0] = carry;
    shifted[LAG] = shifted[LAG].wrapping_add(carry);
    shifted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ring::digest::{SHA256, digest};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn first(seed: i64, count: usize) -> Vec<u8> {
        let mut out = vec![0; count];
        Entropy::new(seed).fill(&mut out);
        out
    }

    #[test]
    fn the_stream_of_a_seed_is_the_published_one() {
        let published = [
            (
                0,
                "0194fdc2fa2ffcc041d3ff12045b73c86e4ff95ff662a5eee82abdf44a2d0b75",
            ),
            (
                1,
                "52fdfc072182654f163f5f0f9a621d729566c74d10037c4d7bbb0407d1e2c649",
            ),
            (
                7,
                "f3ff4d451e429e182215aaee06a2d64b6d1aadc9e5031e4b99bf11ae0a796ebc",
            ),
            (
                -7,
                "0b005245e1415ee6dd2aaa10075228b4521a52c815fbe1549940124ef48671bc",
            ),
            (
                42,
                "538c7f96b164bf1b97bb9f4bb472e89f5b1484f25209c9d9343e92ba09dd9d52",
            ),
            (
                12345,
                "1ae969564b34a33ecd1af05fe6923d6de71870997d38ef60155c325957214c42",
            ),
            (
                -1,
                "ac020308df8195afe9405ff099a2e18d8a66384cf0fb83527b4405f72d1dd949",
            ),
            (
                1_700_000_000_000_000_000,
                "9ce99975c154646e0b5a5a078a5157de8840a2c5c85130329844f337a92adcdf",
            ),
        ];
        for (seed, bytes) in published {
            assert_eq!(hex(&first(seed, 32)), bytes, "seed {seed}");
        }
        assert_eq!(
            hex(digest(&SHA256, &first(42, 10_000)).as_ref()),
            "524aa59aef67c66f451bc95693ff7d512480c300150933d0ba9ad4b49a820dab"
        );
    }

    #[test]
    fn the_words_of_a_seed_are_the_published_ones() {
        let mask = u64::MAX >> 1;
        let words = |seed| {
            let mut entropy = Entropy::new(seed);
            [(); 3].map(|()| entropy.next_word() & mask)
        };
        assert_eq!(
            words(1),
            [
                5_577_006_791_947_779_410,
                8_674_665_223_082_153_551,
                6_129_484_611_666_145_821
            ]
        );
        assert_eq!(
            words(42),
            [
                3_440_579_354_231_278_675,
                608_747_136_543_856_411,
                5_571_782_338_101_878_760
            ]
        );
    }

    #[test]
    fn the_seed_words_are_the_recurrence_run_for_7_800_000_000_000_steps() {
        const STEPS: u64 = 7_800_000_000_000;
        let start = seeded_words(1, [20, 10]);
        let end = jump(&std::array::from_fn(|k| start[ring_index(k as u64)]), STEPS);
        let mut derived = [0u64; WORDS];
        for (k, &word) in end.iter().enumerate() {
            derived[ring_index(STEPS + k as u64)] = word;
        }
        assert_eq!(derived, SEED_WORDS);
        assert_eq!(SEED_WORDS[0] as i64, -4_181_792_142_133_755_926);

        let bytes: Vec<u8> = SEED_WORDS.iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!(
            hex(digest(&SHA256, &bytes).as_ref()),
            "1928503b93a563e491119a5889baba73d1605b90b63634c14a408805797a7c7b"
        );
    }

    #[test]
    fn jumping_arrives_where_walking_does() {
        for distance in [1, 606, 607, 608, 1_000_003] {
            let mut walked = Entropy::new(-9);
            let start = walked.ring;
            walked.skip_words(distance);
            let ring = std::array::from_fn(|k| walked.ring[(walked.next + k) % WORDS]);
            assert_eq!(jump(&start, distance), ring, "{distance} words");
        }
    }

    #[test]
    fn one_byte_past_the_walking_limit_continues_the_same_stream() {
        let limit = WALK_MAX_WORDS * BYTES_PER_WORD;
        let mut near = Entropy::new(5);
        near.skip_to(limit);
        let mut expected = [0; 64];
        near.fill(&mut expected);

        let mut far = Entropy::new(5);
        far.skip_to(limit + BYTES_PER_WORD + 1);
        let mut got = [0; 56];
        far.fill(&mut got);
        assert_eq!(got, expected[8..]);
    }

    #[test]
    fn the_furthest_position_can_be_reached_and_left_again() {
        let mut entropy = Entropy::new(3);
        entropy.skip_to(u64::MAX);
        assert_eq!(entropy.consumed(), u64::MAX);
        entropy.skip_to(0);
        let mut bytes = [0; 20];
        entropy.fill(&mut bytes);
        assert_eq!(bytes[..], first(3, 20));
    }

    proptest! {
        #[test]
        fn any_split_into_reads_and_skips_gives_the_same_stream(
            seed: i64,
            pieces in prop::collection::vec((0usize..40, any::<bool>()), 0..20),
        ) {
            let total = pieces.iter().map(|p| p.0).sum();
            let whole = first(seed, total);
            let mut entropy = Entropy::new(seed);
            let mut at = 0;
            for (len, skip) in pieces {
                if skip {
                    entropy.skip_to((at + len) as u64);
                } else {
                    let mut bytes = vec![0; len];
                    entropy.fill(&mut bytes);
                    prop_assert_eq!(&bytes, &whole[at..at + len]);
                }
                at += len;
                prop_assert_eq!(entropy.consumed(), at as u64);
            }
        }

        #[test]
        fn going_back_gives_the_bytes_that_were_there(seed: i64, from in 0u64..500, to in 0u64..500) {
            let mut entropy = Entropy::new(seed);
            entropy.skip_to(from);
            entropy.skip_to(to);
            let mut bytes = [0; 9];
            entropy.fill(&mut bytes);
            prop_assert_eq!(&bytes[..], &first(seed, to as usize + 9)[to as usize..]);
        }
    }
}
