//! How long a dialler waits before it tries again: exponential, with full jitter.
//!
//! Invariants
//! - no wait is longer than the policy's cap;
//! - a connection that lived long enough forgets the failures before it;
//! - who was refused for what it is, or found somebody else, waits at least half the cap.
//!
//! No clock and no randomness here: both are arguments.

use std::time::Duration;

/// How a dialler spaces its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// The longest first wait; it doubles with every failure.
    pub base: Duration,
    /// The longest wait of all.
    pub cap: Duration,
    /// A connection that lived this long makes the next wait a first one again.
    pub reset_after: Duration,
    /// How much longer the peer with the higher id waits before it dials, so that the other, whose
    /// connection would win, comes first.
    pub yield_for: Duration,
}

impl Default for BackoffPolicy {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(100),
            cap: Duration::from_secs(10),
            reset_after: Duration::from_secs(10),
            yield_for: Duration::from_millis(250),
        }
    }
}

/// The failures of one dialler.
pub(super) struct Backoff {
    policy: BackoffPolicy,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(policy: BackoffPolicy) -> Self {
        Self {
            policy,
            failures: 0,
        }
    }

    /// Nobody answered, or not in time: how long to wait.
    pub(super) fn after_failure(&mut self, entropy: u64) -> Duration {
        let ceiling = self
            .policy
            .base
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .min(self.policy.cap);
        self.failures = self.failures.saturating_add(1);
        fraction(ceiling, entropy)
    }

    /// Somebody else answered, or we are not wanted: soon again is no use.
    pub(super) fn after_refusal(&mut self, entropy: u64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let half = self.policy.cap / 2;
        half + fraction(half, entropy)
    }

    /// A connection that had lived for `lived` ended.
    pub(super) fn after_loss(&mut self, lived: Duration, entropy: u64) -> Duration {
        if lived >= self.policy.reset_after {
            self.failures = 0;
        }
        self.after_failure(entropy)
    }
}

/// Between nothing and `ceiling`, as `entropy` is between 0 and its largest.
fn fraction(ceiling: Duration, entropy: u64) -> Duration {
    let nanos = ceiling.as_nanos().min(u128::from(u64::MAX));
    let part = (nanos * u128::from(entropy)) / u128::from(u64::MAX);
    // A part of at most u64::MAX nanoseconds fits.
    Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> BackoffPolicy {
        BackoffPolicy {
            base: Duration::from_millis(100),
            cap: Duration::from_secs(1),
            reset_after: Duration::from_secs(5),
            yield_for: Duration::ZERO,
        }
    }

    #[test]
    fn waits_double_up_to_the_cap_and_start_anew_after_a_long_life() {
        let mut backoff = Backoff::new(policy());
        let waits: Vec<_> = (0..6)
            .map(|_| backoff.after_failure(u64::MAX).as_millis())
            .collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        let short = backoff.after_loss(Duration::from_millis(4_999), u64::MAX);
        assert_eq!(short.as_millis(), 1000);
        let long = backoff.after_loss(Duration::from_secs(5), u64::MAX);
        assert_eq!(long.as_millis(), 100);
    }

    #[test]
    fn jitter_is_full_and_a_refusal_waits_half_the_cap_at_least() {
        let mut backoff = Backoff::new(policy());
        assert_eq!(backoff.after_failure(0), Duration::ZERO);
        assert_eq!(backoff.after_failure(u64::MAX / 2).as_millis(), 99);
        assert_eq!(backoff.after_refusal(0).as_millis(), 500);
        assert_eq!(backoff.after_refusal(u64::MAX).as_millis(), 1000);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_the_cap(
            base_ms in 0_u64..=u64::MAX,
            cap_ms in 0_u64..100_000,
            steps in prop::collection::vec((0_u8..3, any::<u64>()), 0..80),
        ) {
            let policy = BackoffPolicy {
                base: Duration::from_millis(base_ms),
                cap: Duration::from_millis(cap_ms),
                ..policy()
            };
            let mut backoff = Backoff::new(policy);
            for (step, entropy) in steps {
                let wait = match step {
                    0 => backoff.after_failure(entropy),
                    1 => backoff.after_refusal(entropy),
                    _ => backoff.after_loss(Duration::ZERO, entropy),
                };
                prop_assert!(wait <= policy.cap);
            }
        }
    }
}
