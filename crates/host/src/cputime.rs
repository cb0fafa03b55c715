//! The CPU time of one thread, readable from another.
//!
//! A call's wall time says how long it was waited for; its thread's CPU time says how much of that
//! it could compute. The difference is what the machine gave to others.

#[cfg(target_os = "linux")]
use std::cell::Cell;
use std::time::{Duration, Instant};

/// How old a reading may be that passes for one of now: it costs more than a short call does.
#[cfg(target_os = "linux")]
const RECENT: Duration = Duration::from_micros(100);

/// The CPU clock of a thread. Reading it costs a system call of a third of a microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadClock {
    #[cfg(target_os = "linux")]
    id: Option<libc::clockid_t>,
}

#[cfg(target_os = "linux")]
impl ThreadClock {
    /// The clock of the calling thread, and what it showed at `now` or, at most 100 µs, before.
    pub(crate) fn current(now: Instant) -> (Self, Option<Duration>) {
        thread_local! {
            static CLOCK: ThreadClock = ThreadClock::find();
            static LAST: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
        }
        let clock = CLOCK.try_with(|clock| *clock).unwrap_or(Self::UNKNOWN);
        let last = LAST.try_with(Cell::get).unwrap_or_default();
        if let Some((at, cpu)) = last
            && now.saturating_duration_since(at) <= RECENT
        {
            return (clock, Some(cpu));
        }
        let cpu = clock.read();
        let _ = LAST.try_with(|last| last.set(cpu.map(|cpu| (now, cpu))));
        (clock, cpu)
    }

    /// One that shows nothing.
    pub(crate) const UNKNOWN: Self = Self { id: None };

    fn find() -> Self {
        let mut id = 0;
        // SAFETY: the calling thread is alive, and `id` is writable.
        let failed = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut id) };
        Self {
            id: (failed == 0).then_some(id),
        }
    }

    /// CPU time of the thread so far; `None` when it is gone or the system does not tell.
    pub(crate) fn read(self) -> Option<Duration> {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `time` is writable. The id names a thread by number: when that thread is gone the
        // call fails, or answers for another thread of this process, and touches nothing.
        let failed = unsafe { libc::clock_gettime(self.id?, &raw mut time) };
        if failed != 0 {
            return None;
        }
        Some(Duration::new(
            u64::try_from(time.tv_sec).ok()?,
            u32::try_from(time.tv_nsec).ok()?,
        ))
    }
}

#[cfg(not(target_os = "linux"))]
impl ThreadClock {
    /// One that shows nothing.
    #[cfg(test)]
    pub(crate) const UNKNOWN: Self = Self {};

    /// There is no such clock here.
    pub(crate) fn current(_now: Instant) -> (Self, Option<Duration>) {
        (Self {}, None)
    }

    /// Not known.
    pub(crate) fn read(self) -> Option<Duration> {
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_recent_reading_is_given_again_and_an_old_one_is_not() {
        let now = Instant::now();
        let (clock, first) = ThreadClock::current(now);
        let first = first.unwrap();
        while clock.read().unwrap() == first {}
        let reading = |after| ThreadClock::current(now + after).1.unwrap();
        assert_eq!(reading(RECENT), first);
        assert!(reading(RECENT + Duration::from_nanos(1)) > first);
    }

    #[test]
    fn a_thread_that_works_gains_cpu_time_and_one_that_waits_gains_less() {
        let clock = ThreadClock::current(Instant::now()).0;
        let before = clock.read().unwrap();
        let mut spins = 0_u64;
        while clock.read().unwrap() < before + Duration::from_millis(2) {
            spins = std::hint::black_box(spins + 1);
        }
        assert!(spins > 0);
        let (sender, receiver) = std::sync::mpsc::channel();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let waiter = std::thread::spawn(move || {
            sender.send(ThreadClock::current(Instant::now()).0).unwrap();
            let _ = wait.recv();
        });
        let waiting = receiver.recv().unwrap();
        let idle = waiting.read().unwrap();
        let from = clock.read().unwrap();
        while clock.read().unwrap() < from + Duration::from_millis(5) {}
        assert!(waiting.read().unwrap() - idle < Duration::from_millis(5));
        drop(go);
        waiter.join().unwrap();
    }
}
