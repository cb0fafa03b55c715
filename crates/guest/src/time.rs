//! Room time and timers that fire on wake.
//!
//! The host samples the room's clock once per callback; it stands still inside one. Nothing runs
//! between callbacks: a timer is looked at when the game looks, which is in `wake`.

use core::ops::{Add, Sub};
use core::time::Duration;

/// A point of room time, in nanoseconds since the Unix epoch.
///
/// Arithmetic saturates: a clock that steps back gives zero durations, never a panic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(i64);

impl Instant {
    /// The point `nanos` nanoseconds after the Unix epoch.
    pub const fn from_unix_nanos(nanos: i64) -> Instant {
        Instant(nanos)
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn unix_nanos(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// Time from `earlier` until `self`, zero when `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        let nanos = i128::from(self.0) - i128::from(earlier.0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }

    /// Time from `self` until `later`, zero when it has passed.
    pub fn until(self, later: Instant) -> Duration {
        later.since(self)
    }

    /// Seconds from `self` until `later` as a countdown shows them: rounded up, 0 when it has passed.
    pub fn countdown(self, later: Instant) -> u64 {
        let left = self.until(later);
        left.as_secs() + u64::from(left.subsec_nanos() > 0)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        let nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        Instant(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, duration: Duration) -> Instant {
        let nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        Instant(self.0.saturating_sub(nanos))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

/// A repeating timer with a period of zero would never stop firing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroPeriod;

impl core::fmt::Display for ZeroPeriod {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("a repeating timer needs a period above zero")
    }
}

impl core::error::Error for ZeroPeriod {}

/// Timers named by a key of the game's own, at most one per key.
///
/// ```
/// use cabinet_guest::{Instant, Timers};
/// use std::time::Duration;
///
/// #[derive(Clone, Copy, PartialEq, Debug)]
/// enum Alarm { Fall, RoundOver }
///
/// # fn main() -> Result<(), cabinet_guest::ZeroPeriod> {
/// let mut timers = Timers::new();
/// let now = Instant::from_unix_nanos(0);
/// timers.every(Alarm::Fall, now, Duration::from_millis(400))?;
/// timers.once(Alarm::RoundOver, now + Duration::from_secs(1));
///
/// let wake = now + Duration::from_millis(1_050);
/// let mut fired = Vec::new();
/// while let Some(alarm) = timers.due(wake) {
///     fired.push(alarm);
/// }
/// assert_eq!(fired, [Alarm::Fall, Alarm::RoundOver]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Timers<K> {
    entries: Vec<Timer<K>>,
}

#[derive(Clone, Debug)]
struct Timer<K> {
    key: K,
    at: Instant,
    /// `None` for a timer that fires once; never zero.
    period: Option<Duration>,
}

impl<K: Copy + PartialEq> Timers<K> {
    /// No timers.
    pub const fn new() -> Timers<K> {
        Timers {
            entries: Vec::new(),
        }
    }

    /// Fires once, at `at` or the first look after it. Replaces the key's timer.
    pub fn once(&mut self, key: K, at: Instant) {
        self.set(Timer {
            key,
            at,
            period: None,
        });
    }

    /// Fires every `period`, first at `now + period`. Replaces the key's timer.
    ///
    /// A look that comes late fires the timer once and skips the periods missed; the phase stays.
    ///
    /// # Errors
    ///
    /// [`ZeroPeriod`]; the key's timer is left as it was.
    pub fn every(&mut self, key: K, now: Instant, period: Duration) -> Result<(), ZeroPeriod> {
        if period.is_zero() {
            return Err(ZeroPeriod);
        }
        self.set(Timer {
            key,
            at: now + period,
            period: Some(period),
        });
        Ok(())
    }

    /// Drops the key's timer; whether there was one.
    pub fn cancel(&mut self, key: K) -> bool {
        let before = self.entries.len();
        self.entries.retain(|timer| timer.key != key);
        self.entries.len() != before
    }

    /// When the key's timer fires next.
    pub fn deadline(&self, key: K) -> Option<Instant> {
        self.entries
            .iter()
            .find(|timer| timer.key == key)
            .map(|timer| timer.at)
    }

    /// Time left before the key's timer fires; zero when it is due.
    pub fn remaining(&self, key: K, now: Instant) -> Option<Duration> {
        self.deadline(key).map(|at| now.until(at))
    }

    /// The earliest timer that is due at `now`, which it settles: one-shots go, repeating ones move
    /// past `now` or, where time ends before that, go too. Timers due at the same instant fire in the order they were first set. Call until
    /// `None`.
    pub fn due(&mut self, now: Instant) -> Option<K> {
        let mut earliest: Option<usize> = None;
        for (index, timer) in self.entries.iter().enumerate() {
            let sooner = earliest.is_none_or(|found| timer.at < self.entries[found].at);
            if timer.at <= now && sooner {
                earliest = Some(index);
            }
        }
        let index = earliest?;
        let timer = &mut self.entries[index];
        let key = timer.key;
        let next = timer
            .period
            .and_then(|period| next_in_phase(timer.at, period, now));
        match next {
            Some(next) => timer.at = next,
            None => {
                self.entries.remove(index);
            }
        }
        Some(key)
    }

    fn set(&mut self, timer: Timer<K>) {
        match self.entries.iter_mut().find(|entry| entry.key == timer.key) {
            Some(entry) => *entry = timer,
            None => self.entries.push(timer),
        }
    }
}

impl<K: Copy + PartialEq> Default for Timers<K> {
    fn default() -> Timers<K> {
        Timers::new()
    }
}

/// The first of `at`, `at + period`, `at + 2 period`, … that lies after `now`; `None` when `now` is
/// the last instant there is.
///
/// At the far end of time, where that instant cannot be told, the last one.
fn next_in_phase(at: Instant, period: Duration, now: Instant) -> Option<Instant> {
    let period = whole_nanos(period).max(1);
    let missed = whole_nanos(now.since(at)) / period;
    let next = i128::from(at.0) + (i128::from(missed) + 1) * i128::from(period);
    let next = Instant(i64::try_from(next).unwrap_or(i64::MAX));
    (next > now).then_some(next)
}

fn whole_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Instant {
        Instant::from_unix_nanos(ms * 1_000_000)
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_one_shot_fires_at_its_instant_and_never_again() {
        let mut timers = Timers::new();
        timers.once(1, at(100));
        assert_eq!(timers.due(at(99)), None);
        assert_eq!(timers.due(at(100)), Some(1));
        assert_eq!(timers.due(at(100)), None);
    }

    #[test]
    fn a_late_look_fires_a_repeating_timer_once_and_keeps_its_phase() {
        let mut timers = Timers::new();
        timers.every(1, at(0), ms(100)).unwrap();
        assert_eq!(timers.due(at(350)), Some(1));
        assert_eq!(timers.due(at(350)), None);
        assert_eq!(timers.deadline(1), Some(at(400)));
    }

    #[test]
    fn a_period_of_zero_is_refused_and_leaves_the_old_timer() {
        let mut timers = Timers::new();
        timers.once(1, at(5));
        assert_eq!(timers.every(1, at(0), Duration::ZERO), Err(ZeroPeriod));
        assert_eq!(timers.deadline(1), Some(at(5)));
    }

    #[test]
    fn due_timers_fire_earliest_first_then_in_the_order_set() {
        let mut timers = Timers::new();
        for (key, when) in [('c', 30), ('a', 10), ('b', 10)] {
            timers.once(key, at(when));
        }
        let order: Vec<char> = core::iter::from_fn(|| timers.due(at(50))).collect();
        assert_eq!(order, ['a', 'b', 'c']);
    }

    #[test]
    fn a_cancelled_timer_does_not_fire() {
        let mut timers = Timers::new();
        timers.once(1, at(10));
        assert!(timers.cancel(1));
        assert!(!timers.cancel(1));
        assert_eq!(timers.due(at(20)), None);
    }

    #[test]
    fn a_repeating_timer_fires_at_the_end_of_time_once_and_is_gone() {
        let mut timers = Timers::new();
        timers.every(1, Instant(i64::MAX - 1), ms(100)).unwrap();
        assert_eq!(timers.deadline(1), Some(Instant(i64::MAX)));
        assert_eq!(timers.due(Instant(i64::MAX)), Some(1));
        assert_eq!(timers.due(Instant(i64::MAX)), None);
        assert_eq!(timers.deadline(1), None);
    }

    #[test]
    fn a_repeating_timer_keeps_its_phase_from_one_end_of_time_to_the_other() {
        let mut timers = Timers::new();
        timers
            .every(1, Instant(i64::MIN), Duration::from_nanos(1))
            .unwrap();
        assert_eq!(timers.due(Instant(i64::MAX - 1)), Some(1));
        assert_eq!(timers.deadline(1), Some(Instant(i64::MAX)));
        assert_eq!(timers.due(Instant(i64::MAX)), Some(1));
        assert_eq!(timers.due(Instant(i64::MAX)), None);
    }

    #[test]
    fn a_clock_that_steps_back_gives_zero_durations() {
        assert_eq!(at(5).since(at(9)), Duration::ZERO);
        assert_eq!(at(9) - at(5), ms(4));
        assert_eq!(at(5).until(at(9)), ms(4));
        assert_eq!(
            [0, 1, 1_000, 1_001].map(|left| at(0).countdown(at(left))),
            [0, 1, 1, 2]
        );
        assert_eq!(
            Instant(i64::MAX).since(Instant(i64::MIN)),
            Duration::from_nanos(u64::MAX)
        );
    }
}
