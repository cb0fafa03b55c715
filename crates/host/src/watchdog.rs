//! The wall-clock kill: one thread that writes the `limit` cell of calls past their deadline.
//!
//! Guest code compares its fuel with `limit` at every function entry and loop head and traps when
//! fuel is lower, so a `limit` of `i64::MAX` stops it within one straight stretch of code.
//!
//! Invariants
//! - a cell is written only between its [`Watchdog::arm`] and [`Watchdog::disarm`]: both ends and
//!   the write happen under one lock, so the thread never touches a store that is gone;
//! - an idle process costs nothing: with no call under way the thread sleeps until the next `arm`.
//!
//! A process that is stopped (Ctrl-Z, `SIGSTOP`) and continued finds all its deadlines passed. No guest
//! is judged by that: the thread knows when it wanted to look, and when it comes much later than
//! that, what was not seen counts only as far as the call's thread got CPU time in it.
//!
//! Stolen CPU (time the hypervisor gave to others) is sampled when a call is seen a second time and
//! again when it is killed, the CPU time of the thread that runs the call when it is first seen and
//! again then, so that ordinary calls never cause a read of `/proc/stat` and few of them one of
//! another thread's clock.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cputime::ThreadClock;
use crate::memory::RawGlobal;
use crate::steal::read_steal_jiffies;

/// How often the thread looks while calls are under way; the most a kill is late by, beside the
/// system's own scheduling.
const TICK: Duration = Duration::from_millis(2);
/// How much later than it wanted to the thread looks when the process was stopped. A machine that is so
/// busy that a thread which sleeps is not woken for as long counts as that.
const LATE: Duration = Duration::from_millis(50);
/// Ticks without any call under way after which the thread stops looking.
const QUIET_TICKS: u32 = 50;

/// Kills calls that outlive their deadline.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A call under watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(usize);

/// What happened to a call while it was watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Watched {
    /// The deadline passed and the call was told to stop.
    pub(crate) fired: bool,
    /// CPU stolen from this machine while the call ran, when it was killed and the system tells.
    pub(crate) stolen: Option<Duration>,
    /// CPU time the call's thread got at most while it ran, likewise.
    pub(crate) cpu: Option<Duration>,
    /// Part of the call's wall time in which this process did not run.
    pub(crate) stood_still: Duration,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Option<Call>>,
    free: Vec<usize>,
    under_way: usize,
    asleep: bool,
    stopping: bool,
    /// When the thread is to look next; `None` while it sleeps.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Call {
    limit: RawGlobal,
    /// `None` while the call waits for the host.
    deadline: Option<Instant>,
    /// The clock of the thread that runs the call, which waits for it to end.
    thread: ThreadClock,
    /// Since when the call runs without waiting for the host, and how long it ran before that.
    since: Instant,
    ran: Duration,
    steal_at_second_sight: Option<u64>,
    cpu_at_first_sight: Option<CpuSample>,
    seen: bool,
    /// It was tried to read the count: where the system has none, once is enough.
    sampled: bool,
    watched: Watched,
}

/// CPU time of a call's thread, some way into the call.
#[derive(Debug, Clone, Copy)]
struct CpuSample {
    cpu: Duration,
    /// Wall time the call had run: at most so much CPU time came before.
    before: Duration,
}

impl Call {
    fn new(limit: RawGlobal, deadline: Instant) -> Self {
        Self {
            limit,
            deadline: Some(deadline),
            thread: ThreadClock::current(),
            since: Instant::now(),
            ran: Duration::ZERO,
            steal_at_second_sight: None,
            cpu_at_first_sight: None,
            seen: false,
            sampled: false,
            watched: Watched::default(),
        }
    }

    /// The call waits for the host.
    fn stop_clock(&mut self, now: Instant) {
        self.deadline = None;
        self.ran += now.saturating_duration_since(self.since);
    }

    /// Leaves out of the count what went by unseen before `now`, except for what the call computed in
    /// it: the look that was `due` comes so late that the process must have been stopped.
    fn forgive(&mut self, now: Instant, due: Option<Instant>) {
        let Some(deadline) = self.deadline else {
            return;
        };
        // Of a call that was never seen all may have gone by like that.
        let from = match due {
            Some(due) => due.max(self.since),
            None if self.seen => return,
            None => self.since,
        };
        let unseen = now.saturating_duration_since(from);
        if unseen <= LATE {
            return;
        }
        // Before the look that was due the call computed for as long as it ran at most, so what is
        // more than that it computed since.
        let computed = self.cpu_at_first_sight.and_then(|first| {
            let seen_at = self.since + first.before.saturating_sub(self.ran);
            let cpu = self.thread.read()?.saturating_sub(first.cpu);
            Some(cpu.saturating_sub(from.saturating_duration_since(seen_at)))
        });
        let stood_still = unseen.saturating_sub(computed.unwrap_or_default());
        self.watched.stood_still += stood_still;
        self.deadline = Some(deadline + stood_still);
    }

    /// The call goes on. What was stolen or computed while it waited is not its own: it is sampled
    /// anew.
    fn start_clock(&mut self, now: Instant, deadline: Instant) {
        self.deadline = Some(deadline + self.watched.stood_still);
        self.since = now;
        self.seen = false;
        self.sampled = false;
        self.steal_at_second_sight = None;
        self.cpu_at_first_sight = None;
    }
}

impl Watchdog {
    pub(crate) fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            wake: Condvar::new(),
        });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("cabinet-watchdog".into())
            .spawn(move || for_thread.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Puts a call under watch. `limit` is written when `deadline` passes.
    ///
    /// # Safety
    /// The store of `limit` must stay alive until [`Watchdog::disarm`] returns for the ticket.
    pub(crate) unsafe fn arm(&self, limit: RawGlobal, deadline: Instant) -> Ticket {
        let mut state = self.shared.lock();
        let call = Call::new(limit, deadline);
        let at = match state.free.pop() {
            Some(at) => {
                state.calls[at] = Some(call);
                at
            }
            None => {
                state.calls.push(Some(call));
                state.calls.len() - 1
            }
        };
        state.under_way += 1;
        if std::mem::take(&mut state.asleep) {
            self.shared.wake.notify_one();
        }
        Ticket(at)
    }

    /// Stops the clock of a call that waits for the host. `true`: too late, it was killed.
    pub(crate) fn pause(&self, ticket: Ticket) -> bool {
        let mut state = self.shared.lock();
        match state.calls.get_mut(ticket.0).and_then(Option::as_mut) {
            Some(call) if call.watched.fired => true,
            Some(call) => {
                call.stop_clock(Instant::now());
                false
            }
            None => false,
        }
    }

    /// Starts the clock again, towards a new deadline.
    pub(crate) fn resume(&self, ticket: Ticket, deadline: Instant) {
        let mut state = self.shared.lock();
        if let Some(call) = state.calls.get_mut(ticket.0).and_then(Option::as_mut) {
            call.start_clock(Instant::now(), deadline);
        }
    }

    /// Ends the watch of a call that was over at `now`, and tells what happened.
    pub(crate) fn disarm(&self, ticket: Ticket, now: Instant) -> Watched {
        let mut state = self.shared.lock();
        let due = state.due;
        let Some(mut call) = state.calls.get_mut(ticket.0).and_then(Option::take) else {
            debug_assert!(false, "a ticket is disarmed once");
            return Watched::default();
        };
        state.free.push(ticket.0);
        state.under_way -= 1;
        if due.is_some() && !call.watched.fired {
            call.forgive(now, due);
        }
        call.watched
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.stopping = true;
            state.asleep = false;
        }
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut quiet_ticks = 0;
        let mut state = self.lock();
        while !state.stopping {
            if state.under_way == 0 {
                quiet_ticks += 1;
            } else {
                quiet_ticks = 0;
            }
            if quiet_ticks > QUIET_TICKS {
                state.asleep = true;
                state.due = None;
                while state.asleep && !state.stopping {
                    state = self
                        .wake
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                quiet_ticks = 0;
                continue;
            }
            // Reading takes a while, so not under the lock that every call takes.
            let now = Instant::now();
            let steal = if state.wants_steal(now) {
                drop(state);
                let steal = read_steal_jiffies();
                state = self.lock();
                steal
            } else {
                None
            };
            let pause = state.look(now, steal);
            state.due = Some(Instant::now() + pause);
            state = self
                .wake
                .wait_timeout(state, pause)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl State {
    /// Whether some call has outlived a tick unsampled, or is about to be killed.
    fn wants_steal(&self, now: Instant) -> bool {
        self.calls.iter().flatten().any(|call| {
            let due = call.deadline.is_some_and(|deadline| deadline <= now);
            let waits = call.deadline.is_none();
            !call.watched.fired && (due || (call.seen && !call.sampled && !waits))
        })
    }

    /// Kills what is late at `now`; returns how long until the next look. `steal` is the count now,
    /// if it was read.
    fn look(&mut self, now: Instant, steal: Option<u64>) -> Duration {
        let mut pause = TICK;
        let due = self.due;
        for call in self.calls.iter_mut().flatten() {
            if !call.watched.fired {
                call.forgive(now, due);
            }
            if call.seen && !call.sampled && call.deadline.is_some() {
                call.sampled = true;
                call.steal_at_second_sight = steal;
            }
            if !call.seen && call.deadline.is_some() {
                call.cpu_at_first_sight = call.thread.read().map(|cpu| CpuSample {
                    cpu,
                    before: call.ran + now.saturating_duration_since(call.since),
                });
            }
            call.seen = true;
            if call.watched.fired {
                // Written again each tick: the call may have restarted its own limit cell between
                // runtime start-up and the export.
                call.limit.set_i64(i64::MAX);
            } else if call.deadline.is_some_and(|deadline| deadline <= now) {
                call.limit.set_i64(i64::MAX);
                call.watched.fired = true;
                call.watched.stolen = match (call.steal_at_second_sight, steal) {
                    (Some(before), Some(after)) => Some(jiffies(after.saturating_sub(before))),
                    _ => None,
                };
                call.watched.cpu = match (call.cpu_at_first_sight, call.thread.read()) {
                    (Some(then), Some(now)) => Some(then.before + now.saturating_sub(then.cpu)),
                    _ => None,
                };
            } else if let Some(deadline) = call.deadline {
                pause = pause.min(deadline - now);
            }
        }
        pause
    }
}

/// Linux counts stolen time in hundredths of a second.
fn jiffies(count: u64) -> Duration {
    Duration::from_millis(count.saturating_mul(10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr::NonNull;
    use wasmer_vm::VMGlobalDefinition;

    fn cell() -> (Box<VMGlobalDefinition>, RawGlobal) {
        let mut definition = Box::new(VMGlobalDefinition::new());
        // SAFETY: the box is kept alive by the test for as long as the cell is used.
        let raw = unsafe { RawGlobal::new(NonNull::from(definition.as_mut())) };
        raw.set_i64(0);
        (definition, raw)
    }

    #[test]
    fn a_late_call_is_stopped_and_an_early_one_is_not() {
        let (_late_owner, late) = cell();
        let (_early_owner, early) = cell();
        let now = Instant::now();
        let mut state = State::default();
        for (limit, deadline) in [(late, now), (early, now + Duration::from_millis(1))] {
            state.calls.push(Some(Call::new(limit, deadline)));
        }
        let pause = state.look(now, Some(3));
        assert_eq!(late.get_i64(), i64::MAX);
        assert_eq!(early.get_i64(), 0);
        assert_eq!(pause, Duration::from_millis(1));
    }

    #[test]
    fn stolen_time_is_the_difference_between_second_sight_and_kill() {
        let (_owner, limit) = cell();
        let now = Instant::now();
        let mut state = State::default();
        state
            .calls
            .push(Some(Call::new(limit, now + Duration::from_millis(3))));
        // An ordinary call is over before its second tick and never sampled.
        assert!(!state.wants_steal(now));
        state.look(now, None);
        assert!(state.wants_steal(now));
        state.look(now, Some(100));
        assert!(!state.wants_steal(now));
        state.look(now + Duration::from_millis(3), Some(104));
        let watched = state.calls[0].as_ref().unwrap().watched;
        assert_eq!(watched.stolen, Some(Duration::from_millis(40)));
    }

    #[test]
    fn what_was_stolen_while_a_call_waited_for_the_host_is_not_counted() {
        let (_owner, limit) = cell();
        let now = Instant::now();
        let ms = |n| now + Duration::from_millis(n);
        let mut state = State::default();
        let mut call = Call::new(limit, ms(100));
        call.since = now;
        state.calls.push(Some(call));
        state.look(ms(0), None);
        state.look(ms(2), Some(100));
        state.calls[0].as_mut().unwrap().stop_clock(ms(10));
        state.look(ms(500), Some(150));
        // Two seconds later, with another 90 ms to run.
        let call = state.calls[0].as_mut().unwrap();
        call.start_clock(ms(2_010), ms(2_100));
        state.look(ms(2_011), None);
        assert!(state.wants_steal(ms(2_013)));
        state.look(ms(2_013), Some(200));
        state.look(ms(2_100), Some(203));
        let call = state.calls[0].as_ref().unwrap();
        assert_eq!(call.watched.stolen, Some(Duration::from_millis(30)));
        // It had run for 11 ms when it was seen again, and for no longer than that before.
        let before = call.cpu_at_first_sight.map(|sample| sample.before);
        if let Some(before) = before {
            assert_eq!(before, Duration::from_millis(11));
        }
    }

    /// A call that began at `now`, with `deadline` milliseconds, seen at its beginning.
    fn seen_call(now: Instant, deadline: u64) -> (Box<VMGlobalDefinition>, RawGlobal, State) {
        let (owner, limit) = cell();
        let mut state = State::default();
        let mut call = Call::new(limit, now + Duration::from_millis(deadline));
        call.since = now;
        state.calls.push(Some(call));
        state.look(now, None);
        (owner, limit, state)
    }

    #[test]
    fn a_process_that_was_stopped_is_no_call_that_was_late() {
        let now = Instant::now();
        let ms = |n| now + Duration::from_millis(n);
        let (_owner, limit, mut state) = seen_call(now, 100);
        state.due = Some(ms(2));
        // Ten minutes later. The test itself computed next to nothing since.
        state.look(ms(600_000), None);
        assert_eq!(limit.get_i64(), 0);
        let stood_still = state.calls[0].as_ref().unwrap().watched.stood_still;
        assert!(stood_still > Duration::from_secs(590), "{stood_still:?}");
        // Time that is seen counts as ever: what was left of the deadline is.
        state.due = Some(ms(600_002));
        state.look(ms(600_010), None);
        assert_eq!(limit.get_i64(), 0);
        for tick in 0..1_000 {
            state.due = Some(ms(600_010 + 2 * tick));
            state.look(ms(600_012 + 2 * tick), None);
        }
        assert_eq!(limit.get_i64(), i64::MAX);
    }

    #[test]
    fn a_look_that_is_a_little_late_forgives_nothing() {
        let now = Instant::now();
        let ms = |n| now + Duration::from_millis(n);
        for (late, fired) in [(LATE, true), (LATE + Duration::from_millis(1), false)] {
            let (_owner, limit, mut state) = seen_call(now, 10);
            state.due = Some(ms(9));
            state.look(ms(9) + late, None);
            assert_eq!(limit.get_i64() == i64::MAX, fired, "{late:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_call_computes_unseen_counts() {
        let now = Instant::now();
        let ms = |n| now + Duration::from_millis(n);
        let (_owner, limit, mut state) = seen_call(now, 100);
        state.due = Some(ms(2));
        let clock = state.calls[0].as_ref().unwrap().thread;
        let first = clock.read().unwrap();
        // Two milliseconds of it were seen, the rest was not.
        while clock.read().unwrap() < first + Duration::from_millis(102) {}
        state.look(ms(102), None);
        let watched = state.calls[0].as_ref().unwrap().watched;
        assert_eq!(watched.stood_still, Duration::ZERO);
        assert_eq!(limit.get_i64(), i64::MAX);
    }

    #[test]
    fn a_call_that_was_never_seen_begins_when_the_process_goes_on() {
        let (_owner, limit) = cell();
        let now = Instant::now();
        let ms = |n| now + Duration::from_millis(n);
        let mut state = State::default();
        let mut call = Call::new(limit, ms(100));
        call.since = now;
        state.calls.push(Some(call));
        state.look(ms(5_000), None);
        assert_eq!(limit.get_i64(), 0);
        // A store's answer starts the clock towards what was left before the stop.
        let call = state.calls[0].as_mut().unwrap();
        call.stop_clock(ms(5_001));
        call.start_clock(ms(5_002), ms(101));
        assert_eq!(call.deadline, Some(ms(5_101)));
        state.due = Some(ms(5_100));
        state.look(ms(5_101), None);
        assert_eq!(limit.get_i64(), i64::MAX);
    }

    #[test]
    fn the_thread_stops_a_call_and_forgets_a_finished_one() {
        let watchdog = Watchdog::start().unwrap();
        let (_owner, limit) = cell();
        // SAFETY: the cell outlives both watches.
        let ticket = unsafe { watchdog.arm(limit, Instant::now()) };
        while limit.get_i64() != i64::MAX {
            std::thread::yield_now();
        }
        while !watchdog.shared.lock().calls[ticket.0]
            .as_ref()
            .is_some_and(|call| call.watched.fired)
        {
            std::thread::yield_now();
        }
        assert!(watchdog.disarm(ticket, Instant::now()).fired);
        // SAFETY: as above.
        let ticket = unsafe { watchdog.arm(limit, Instant::now() + Duration::from_secs(3600)) };
        assert!(!watchdog.disarm(ticket, Instant::now()).fired);
        assert_eq!(watchdog.shared.lock().under_way, 0);
    }
}
