//! The CPU time of one thread, readable from another.
//!
//! A call's wall time says how long it was waited for; its thread's CPU time says how much of that
//! it could compute. The difference is what the machine gave to others.

use std::time::Duration;

/// The CPU clock of a thread. Reading it costs a system call of a third of a microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadClock {
    #[cfg(target_os = "linux")]
    id: Option<libc::clockid_t>,
}

#[cfg(target_os = "linux")]
impl ThreadClock {
    /// The clock of the calling thread.
    pub(crate) fn current() -> Self {
        thread_local! {
            static CLOCK: ThreadClock = ThreadClock::find();
        }
        CLOCK.try_with(|clock| *clock).unwrap_or(Self { id: None })
    }

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
    /// There is no such clock here.
    pub(crate) fn current() -> Self {
        Self {}
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
    fn a_thread_that_works_gains_cpu_time_and_one_that_waits_gains_less() {
        let clock = ThreadClock::current();
        let before = clock.read().unwrap();
        let mut spins = 0_u64;
        while clock.read().unwrap() < before + Duration::from_millis(2) {
            spins = std::hint::black_box(spins + 1);
        }
        assert!(spins > 0);
        let (sender, receiver) = std::sync::mpsc::channel();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let waiter = std::thread::spawn(move || {
            sender.send(ThreadClock::current()).unwrap();
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
