//! Time and randomness, passed in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use cabinet_durability::{SeededEntropy, SystemEntropy};

/// Where a runtime's time comes from.
pub trait Clock: Send + Sync {
    /// Time since some fixed moment; never goes back. What rooms are scheduled by.
    fn now(&self) -> Duration;

    /// The time of day in Unix nanoseconds: what guests are told.
    fn unix_nanos(&self) -> i64;
}

/// The system's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose [`Clock::now`] starts at zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn unix_nanos(&self) -> i64 {
        // A machine set to before 1970 tells its guests 1970.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }
}

/// A clock that stands until it is set. Clones are the same clock.
#[derive(Debug, Clone)]
pub struct ManualClock {
    nanos: Arc<AtomicU64>,
    unix_base: i64,
}

impl ManualClock {
    /// A clock at zero, which is `unix_base` in Unix nanoseconds.
    #[must_use]
    pub fn new(unix_base: i64) -> Self {
        Self {
            nanos: Arc::default(),
            unix_base,
        }
    }

    /// Moves the clock forward to `now`; a time that has passed changes nothing.
    pub fn advance_to(&self, now: Duration) {
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_max(nanos, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    fn unix_nanos(&self) -> i64 {
        let nanos = i64::try_from(self.nanos.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        self.unix_base.saturating_add(nanos)
    }
}

/// Where a runtime's randomness comes from: room ids and the seeds of rooms that were given none.
pub trait Entropy: Send + Sync {
    /// Eight bytes nobody can guess; `None` when the source failed.
    fn draw(&self) -> Option<[u8; 8]>;
}

impl Entropy for SystemEntropy {
    fn draw(&self) -> Option<[u8; 8]> {
        eight(self)
    }
}

impl Entropy for SeededEntropy {
    fn draw(&self) -> Option<[u8; 8]> {
        eight(self)
    }
}

fn eight(source: &impl cabinet_durability::Entropy) -> Option<[u8; 8]> {
    let mut bytes = [0; 8];
    source.fill(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_until_it_is_set_and_never_goes_back() {
        let clock = ManualClock::new(1_000);
        let same = clock.clone();
        clock.advance_to(Duration::from_nanos(50));
        same.advance_to(Duration::from_nanos(20));
        assert_eq!(clock.now(), Duration::from_nanos(50));
        assert_eq!(same.unix_nanos(), 1_050);
    }

    #[test]
    fn a_seeded_source_repeats_and_a_system_one_does_not() {
        let draw = |seed| {
            let entropy = SeededEntropy::new(seed);
            [entropy.draw(), entropy.draw()]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(SystemEntropy.draw(), SystemEntropy.draw());
    }
}
