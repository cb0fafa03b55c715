//! An estimate of what compiling a module takes, so that a compile bomb never reaches the optimiser.
//!
//! Nothing cancels Cranelift inside a function, and it is far from linear. The estimate is a sum of
//! terms, one per way we found to hold it up; each was measured alone on one core (wasmer 7.4.2,
//! canonical NaNs; the first two are also in docs/ARCHITECTURE.md). `L` is the locals a function touches
//! and its highest operand stack together.
//!
//! | term, µs | tier | measured |
//! |---|---|---|
//! | bytes / 2 | both | real guests, 600 KB: 0.12 s |
//! | source bytes² / 14,000 | speed | 695 KB of straight-line arithmetic: 34.6 s, quick 0.26 s |
//! | L × blocks / 3 | both | 3,000 locals × 3,000 ifs: 2.5 s and 480 MB |
//! | L² / 12 | both | 15,000 operands at once: 4.3 s; 4,000 locals in one loop: 1.5 s |
//! | blocks² / 800 | both | 60,000 `br_if`: 4.4 s quick |
//! | blocks² / 600 more | speed | the same: 8.5 s; 40,000 loops in a row: 42 s |
//! | Σ loops depth² / 300 | speed | 1,900 loops in one another (13 KB): 5.2 s, quick 0.09 s |
//! | Σ labels branches² × locals / 250 | both | 5,000 `br_if` to one label, 300 locals set between (49 KB): 21 s |
//! | the same / 60 more | speed | 2,500 and 100: 8–12 s, quick 2–3 s |
//! | phis² / 1,700 | both | 500 loops in one another that set 500 locals (8 KB): 32 s |
//!
//! `phis` sums over all loops the locals touched inside: what the loop's head must merge.
//!
//! Honest code is estimated too dear rather than too cheap. For the five reference artifacts the
//! total is 65, 38, 139, 117 and 138 ms; measured on the same machine: 60, 40, 120, 100 and 110.

use super::limits::ModuleLimits;

/// Estimated compile time in microseconds on one core of the machine the numbers above are from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cost {
    /// The costliest function at the optimising tier.
    pub worst_function: u64,
    /// All functions at the optimising tier.
    pub total: u64,
    /// The costliest function at the quick tier.
    pub worst_function_quick: u64,
    /// All functions at the quick tier.
    pub total_quick: u64,
}

/// How a module may be compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CostTier {
    /// With Cranelift's optimiser.
    Speed,
    /// Without it.
    Quick,
    /// Not at all.
    Refuse,
}

impl Cost {
    /// The best tier `limits` admit this module to.
    pub fn tier(&self, limits: &ModuleLimits) -> CostTier {
        if self.worst_function <= limits.cost_speed_max && self.total <= limits.cost_speed_total_max
        {
            CostTier::Speed
        } else if self.worst_function_quick <= limits.cost_quick_max
            && self.total_quick <= limits.cost_quick_total_max
        {
            CostTier::Quick
        } else {
            CostTier::Refuse
        }
    }

    /// Adds one function.
    pub(super) fn add(&mut self, function: &FunctionSize) {
        let speed = function.speed();
        let quick = function.quick();
        self.worst_function = self.worst_function.max(speed);
        self.total = self.total.saturating_add(speed);
        self.worst_function_quick = self.worst_function_quick.max(quick);
        self.total_quick = self.total_quick.saturating_add(quick);
    }
}

/// The measures of one function that the estimate uses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FunctionSize {
    /// Bytes of the body as the guest has it.
    pub source_bytes: u64,
    /// Bytes of the body after the rewrite, and one for each value that calls and branches move
    /// beyond what their bytes show.
    pub bytes: u64,
    /// Locals and parameters the code can have touched, and the highest operand stack.
    pub live: u64,
    /// Upper estimate of the basic blocks after the rewrite.
    pub blocks: u64,
    /// Sum over all loops of the square of how many loops they are in, themselves included.
    pub loop_depth_squares: u64,
    /// Sum over all labels of the square of the branches to it, times the locals read after it.
    pub merges: u64,
    /// Sum over all loops of the locals touched inside.
    pub phis: u64,
}

impl FunctionSize {
    fn speed(&self) -> u64 {
        [
            square(self.source_bytes) / 14_000,
            square(self.blocks) / 600,
            self.loop_depth_squares / 300,
            self.merges / 60,
        ]
        .into_iter()
        .fold(self.quick(), u64::saturating_add)
    }

    fn quick(&self) -> u64 {
        [
            self.live.saturating_mul(self.blocks) / 3,
            square(self.live) / 12,
            square(self.blocks) / 800,
            square(self.phis) / 1_700,
            self.merges / 250,
        ]
        .into_iter()
        .fold(self.bytes / 2, u64::saturating_add)
    }
}

fn square(value: u64) -> u64 {
    value.saturating_mul(value)
}
