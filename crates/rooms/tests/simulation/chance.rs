//! Chance from a seed, and the log of what came of it.

/// A sequence that repeats for its seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A sequence of its own for somebody who draws at times of his own.
    pub fn fork(&mut self) -> Self {
        Self(self.draw())
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.draw() % n as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// An index into the weights, as often as they say.
    pub fn weighted(&mut self, weights: impl Iterator<Item = usize> + Clone) -> usize {
        let mut left = self.below(weights.clone().sum());
        for (index, weight) in weights.enumerate() {
            if left < weight {
                return index;
            }
            left -= weight;
        }
        unreachable!("the draw is below the sum of the weights")
    }

    pub fn letter(&mut self, letters: &str) -> char {
        let count = letters.chars().count();
        letters.chars().nth(self.below(count)).unwrap()
    }
}

/// What happened, as one number and, in short runs, as text.
#[derive(Debug)]
pub struct Log {
    pub digest: u64,
    pub lines: Option<Vec<String>>,
}

impl Log {
    pub fn new(keep_lines: bool) -> Self {
        Self {
            digest: fnv(0xCBF2_9CE4_8422_2325, b""),
            lines: keep_lines.then(Vec::new),
        }
    }

    pub fn line(&mut self, line: String) {
        self.digest = fnv(self.digest, line.as_bytes());
        if let Some(lines) = &mut self.lines {
            lines.push(line);
        }
    }
}

/// FNV-1a, a step for each byte and one for the end.
pub fn fnv(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().chain(&[0xFF]).fold(state, |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    })
}
