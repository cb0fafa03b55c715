//! The wall-clock kill: one thread that writes the `limit` cell of calls past their deadline.
//!
//! Guest code compares its fuel with `limit` at every function entry and loop head and traps when
//! fuel is lower, so a `limit` of `i64::MAX` stops it within one straight stretch of code.
//!
//! Invariants
//! - a cell is written only between its [`Watchdog::arm`] and [`Watchdog::disarm`]: both ends and
//!   the write happen under one lock, so the thread never touches a store that is gone;
//! - an idle process costs nothing: with no call under way the thread sleeps until the next `arm`;
//! - a call's own CPU time always counts against its deadline, however late the thread looks.
//!
//! A process that is stopped (Ctrl-Z, `SIGSTOP`) and continued finds all its deadlines passed. No guest
//! is judged by that: of a time in which nobody looked for longer than [`GAP_MAX`] only that counts in
//! which the call's thread had the CPU. Where the system does not tell that (all but Linux), nothing
//! of the first such time of a call counts, and all of the others: a guest that computed gains no more
//! by it than what was left of its deadline.
//!
//! Stolen CPU (time the hypervisor gave to others) is sampled when a call is seen a second time and
//! again when it is killed, so that ordinary calls never cause a read of `/proc/stat`.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cputime::ThreadClock;
use crate::memory::RawGlobal;
use crate::steal::read_steal_jiffies;

/// How often the thread looks while calls are under way; the most a kill is late by, beside the
/// system's own scheduling.
const TICK: Duration = Duration::from_millis(2);
/// The longest time between two looks that counts whole: after a longer one the process was stopped. A
/// machine that is so busy that a thread which sleeps is not woken for as long counts as that.
const GAP_MAX: Duration = Duration::from_millis(50);
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

/// Whose time it is that a call waits for a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Nobody's: the deadline does not run down.
    Free,
    /// The call's own.
    Charged,
}

/// What happened to a call while it was watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Watched {
    /// The deadline passed and the call was told to stop.
    pub(crate) fired: bool,
    /// CPU stolen from this machine while the call ran, when it was killed and the system tells.
    pub(crate) stolen: Option<Duration>,
    /// CPU time the call's thread got at most while its deadline ran down, likewise.
    pub(crate) cpu: Option<Duration>,
    /// How long the call took, without the time in which the process stood still.
    pub(crate) wall: Duration,
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
}

#[derive(Debug)]
struct Call {
    limit: RawGlobal,
    began: Instant,
    /// What it has not used up of its deadline.
    left: Duration,
    /// It waits for the host, and its deadline does not run down.
    waits: bool,
    /// Until when its time is counted.
    counted: Instant,
    /// The clock of the thread that runs the call, which waits for it to end, and what that showed
    /// at `counted` or a little before. Not kept up while the call waits.
    thread: ThreadClock,
    cpu_counted: Option<Duration>,
    /// CPU time it got at most while its deadline ran down.
    cpu: Duration,
    /// A gap was forgiven without knowing what the call computed in it.
    forgiven_blindly: bool,
    /// Time in which the process did not run, and so much of it as came before the store call
    /// under way.
    stood_still: Duration,
    stood_still_before: Duration,
    steal_at_second_sight: Option<u64>,
    seen: bool,
    /// It was tried to read the count: where the system has none, once is enough.
    sampled: bool,
    watched: Watched,
}

impl Call {
    fn new(limit: RawGlobal, began: Instant, deadline: Duration) -> Self {
        let (thread, cpu) = ThreadClock::current(began);
        Self {
            limit,
            began,
            left: deadline,
            waits: false,
            counted: began,
            thread,
            cpu_counted: cpu,
            cpu: Duration::ZERO,
            forgiven_blindly: false,
            stood_still: Duration::ZERO,
            stood_still_before: Duration::ZERO,
            steal_at_second_sight: None,
            seen: false,
            sampled: false,
            watched: Watched::default(),
        }
    }

    /// Counts the time until `now`, when the thread looks.
    fn count(&mut self, now: Instant) {
        let computed = self.computed();
        self.count_computed(now, computed);
    }

    /// As [`Call::count`], when the call's deadline stops running down. Its thread's clock, which takes
    /// longer to read than all the rest, is asked only if it must be.
    fn count_last(&mut self, now: Instant) {
        let computed = if self.is_late(now) {
            self.computed()
        } else {
            None
        };
        self.count_computed(now, computed);
    }

    /// Nobody looked for so long that the process must have been stopped.
    fn is_late(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.counted) > GAP_MAX
    }

    fn count_computed(&mut self, now: Instant, computed: Option<Duration>) {
        let gap = now.saturating_duration_since(self.counted);
        self.counted = self.counted.max(now);
        let counts = if gap <= GAP_MAX {
            gap
        } else if self.waits {
            Duration::ZERO
        } else {
            // What was stolen meanwhile is not its own either.
            self.forget_steal();
            match computed {
                Some(computed) => computed.min(gap),
                None if self.forgiven_blindly => gap,
                None => {
                    self.forgiven_blindly = true;
                    Duration::ZERO
                }
            }
        };
        self.stood_still += gap - counts;
        if !self.waits {
            self.left = self.left.saturating_sub(counts);
            self.cpu += computed.unwrap_or(counts).min(counts);
        }
    }

    /// CPU time of its thread since it was asked last.
    fn computed(&mut self) -> Option<Duration> {
        if self.waits {
            return None;
        }
        let before = std::mem::replace(&mut self.cpu_counted, self.thread.read())?;
        Some(self.cpu_counted?.saturating_sub(before))
    }

    /// A store call begins at `now`.
    fn enter_store(&mut self, now: Instant, waiting: Waiting) {
        if waiting == Waiting::Free {
            self.count_last(now);
            self.waits = true;
        }
        self.stood_still_before = self.stood_still;
    }

    /// The store call is over. What was stolen or computed while the call waited is not its own.
    fn leave_store(&mut self, now: Instant) -> Duration {
        if self.waits {
            self.count_last(now);
            self.waits = false;
            (_, self.cpu_counted) = ThreadClock::current(now);
            self.forget_steal();
        } else if self.is_late(now) {
            self.count(now);
        }
        self.stood_still - self.stood_still_before
    }

    fn forget_steal(&mut self) {
        self.seen = false;
        self.sampled = false;
        self.steal_at_second_sight = None;
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

    /// Puts a call that began at `began` under watch. `limit` is written when `deadline` has passed.
    ///
    /// # Safety
    /// The store of `limit` must stay alive until [`Watchdog::disarm`] returns for the ticket.
    pub(crate) unsafe fn arm(
        &self,
        limit: RawGlobal,
        began: Instant,
        deadline: Duration,
    ) -> Ticket {
        let call = Call::new(limit, began, deadline);
        let mut state = self.shared.lock();
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

    /// The call begins to wait for a store. `true`: too late, it was killed.
    pub(crate) fn enter_store(&self, ticket: Ticket, waiting: Waiting) -> bool {
        let mut state = self.shared.lock();
        match state.calls.get_mut(ticket.0).and_then(Option::as_mut) {
            Some(call) if call.watched.fired => true,
            Some(call) => {
                call.enter_store(Instant::now(), waiting);
                false
            }
            None => false,
        }
    }

    /// The store answered: the call goes on. How long the process stood still meanwhile.
    pub(crate) fn leave_store(&self, ticket: Ticket) -> Duration {
        let mut state = self.shared.lock();
        match state.calls.get_mut(ticket.0).and_then(Option::as_mut) {
            Some(call) => call.leave_store(Instant::now()),
            None => Duration::ZERO,
        }
    }

    /// Ends the watch of a call, and tells what happened.
    pub(crate) fn disarm(&self, ticket: Ticket) -> Watched {
        let mut state = self.shared.lock();
        let Some(mut call) = state.calls.get_mut(ticket.0).and_then(Option::take) else {
            debug_assert!(false, "a ticket is disarmed once");
            return Watched::default();
        };
        state.free.push(ticket.0);
        state.under_way -= 1;
        let now = Instant::now();
        call.count_last(now);
        let wall = now.saturating_duration_since(call.began);
        Watched {
            wall: wall.saturating_sub(call.stood_still),
            ..call.watched
        }
    }
}

#[cfg(test)]
impl Watchdog {
    /// Keeps the thread from looking while `meanwhile` runs, as if the process were stopped.
    pub(crate) fn hold(&self, meanwhile: impl FnOnce()) {
        let _state = self.shared.lock();
        meanwhile();
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
            let steal = if state.wants_steal(Instant::now()) {
                drop(state);
                let steal = read_steal_jiffies();
                state = self.lock();
                steal
            } else {
                None
            };
            let pause = state.look(Instant::now(), steal);
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
            let late = call.left <= now.saturating_duration_since(call.counted);
            !call.watched.fired && !call.waits && (late || (call.seen && !call.sampled))
        })
    }

    /// Kills what is late at `now`; returns how long until the next look. `steal` is the count now,
    /// if it was read.
    fn look(&mut self, now: Instant, steal: Option<u64>) -> Duration {
        let mut pause = TICK;
        for call in self.calls.iter_mut().flatten() {
            call.count(now);
            if call.waits {
                continue;
            }
            if call.seen && !call.sampled {
                call.sampled = true;
                call.steal_at_second_sight = steal;
            }
            call.seen = true;
            if call.watched.fired {
                // Written again each tick: the call may have restarted its own limit cell between
                // runtime start-up and the export.
                call.limit.set_i64(i64::MAX);
            } else if call.left.is_zero() {
                call.limit.set_i64(i64::MAX);
                call.watched.fired = true;
                call.watched.stolen = match (call.steal_at_second_sight, steal) {
                    (Some(before), Some(after)) => Some(jiffies(after.saturating_sub(before))),
                    _ => None,
                };
                call.watched.cpu = call.cpu_counted.map(|_| call.cpu);
            } else {
                pause = pause.min(call.left);
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
impl Watchdog {
    /// Watches a call that runs nothing, for tests of what happens around a call.
    pub(crate) fn arm_nothing(&self, deadline: Duration) -> Ticket {
        let definition = Box::leak(Box::new(wasmer_vm::VMGlobalDefinition::new()));
        // SAFETY: it is never freed, and nobody else has it.
        let limit = unsafe { RawGlobal::new(std::ptr::NonNull::from(definition)) };
        limit.set_i64(0);
        // SAFETY: as above.
        unsafe { self.arm(limit, Instant::now(), deadline) }
    }
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

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// A call that began at `began`, and was not seen yet.
    fn armed(began: Instant, deadline: Duration) -> (Box<VMGlobalDefinition>, RawGlobal, State) {
        let (owner, limit) = cell();
        let mut state = State::default();
        state.calls.push(Some(Call::new(limit, began, deadline)));
        (owner, limit, state)
    }

    fn call(state: &mut State) -> &mut Call {
        state.calls[0].as_mut().unwrap()
    }

    /// Computes for so long on the thread whose clock it is.
    #[cfg(target_os = "linux")]
    fn compute(clock: ThreadClock, time: Duration) {
        let end = clock.read().unwrap() + time;
        while clock.read().unwrap() < end {}
    }

    #[test]
    fn a_late_call_is_stopped_and_an_early_one_is_not() {
        let (_late_owner, late) = cell();
        let (_early_owner, early) = cell();
        let now = Instant::now();
        let mut state = State::default();
        for (limit, deadline) in [(late, Duration::ZERO), (early, ms(1))] {
            state.calls.push(Some(Call::new(limit, now, deadline)));
        }
        let pause = state.look(now, Some(3));
        assert_eq!(late.get_i64(), i64::MAX);
        assert_eq!(early.get_i64(), 0);
        assert_eq!(pause, ms(1));
    }

    #[test]
    fn stolen_time_is_the_difference_between_second_sight_and_kill() {
        let now = Instant::now();
        let (_owner, _, mut state) = armed(now, ms(3));
        // An ordinary call is over before its second tick and never sampled.
        assert!(!state.wants_steal(now));
        state.look(now, None);
        assert!(state.wants_steal(now));
        state.look(now, Some(100));
        assert!(!state.wants_steal(now));
        assert!(state.wants_steal(now + ms(3)));
        state.look(now + ms(3), Some(104));
        assert_eq!(call(&mut state).watched.stolen, Some(ms(40)));
    }

    #[test]
    fn what_was_stolen_while_a_call_waited_for_the_host_is_not_counted() {
        let now = Instant::now();
        let (_owner, limit, mut state) = armed(now, ms(40));
        state.look(now, None);
        state.look(now + ms(2), Some(100));
        call(&mut state).enter_store(now + ms(10), Waiting::Free);
        for tick in 0..100 {
            state.look(now + ms(10 + 20 * tick), Some(150));
        }
        // Two seconds later, with another 30 ms to run.
        assert_eq!(
            call(&mut state).leave_store(now + ms(2_010)),
            Duration::ZERO
        );
        state.look(now + ms(2_011), None);
        assert!(state.wants_steal(now + ms(2_013)));
        state.look(now + ms(2_013), Some(200));
        state.look(now + ms(2_039), None);
        assert_eq!(limit.get_i64(), 0);
        state.look(now + ms(2_040), Some(203));
        assert_eq!(limit.get_i64(), i64::MAX);
        let watched = call(&mut state).watched;
        assert_eq!(watched.stolen, Some(ms(30)));
        // It had no more than 40 ms, its own reckoned.
        assert!(watched.cpu.is_none_or(|cpu| cpu <= ms(40)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn after_a_stop_a_call_has_what_was_left_of_its_deadline_to_a_tick() {
        // Seen before, and stopped before it was ever seen.
        for seen in [true, false] {
            let now = Instant::now();
            let (_owner, limit, mut state) = armed(now, ms(100));
            if seen {
                state.look(now, None);
            }
            // Ten minutes later. The test itself computed next to nothing since.
            let back = now + ms(600_000);
            state.look(back, None);
            let left = call(&mut state).left;
            assert!(left > ms(95), "{left:?}");
            assert_eq!(call(&mut state).stood_still, ms(600_000) - (ms(100) - left));
            // Time that is seen counts as ever.
            let mut ticks = 0;
            while limit.get_i64() == 0 {
                ticks += 1;
                state.look(back + TICK * ticks, None);
            }
            let (ran, tick) = (TICK * ticks, TICK);
            assert!(ran >= left && ran < left + tick, "{ran:?} of {left:?}");
        }
    }

    #[test]
    fn a_gap_that_is_no_longer_than_usual_counts_whole() {
        let now = Instant::now();
        for (gap, fired) in [(GAP_MAX, true), (GAP_MAX + ms(1), false)] {
            let (_owner, limit, mut state) = armed(now, GAP_MAX);
            state.look(now, None);
            state.look(now + gap, None);
            assert_eq!(limit.get_i64() == i64::MAX, fired, "{gap:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_call_computes_unseen_counts_whatever_came_before() {
        for seen in [true, false] {
            let now = Instant::now();
            let (_owner, limit, mut state) = armed(now, ms(60));
            if seen {
                state.look(now, None);
                // It was stopped for long, which is no loan.
                state.look(now + ms(10_000), None);
                assert_eq!(limit.get_i64(), 0);
            }
            let thread = call(&mut state).thread;
            let before = call(&mut state).stood_still;
            compute(thread, ms(60));
            let from = call(&mut state).counted;
            state.look(from + ms(60), None);
            assert_eq!(call(&mut state).stood_still, before, "seen: {seen}");
            assert_eq!(limit.get_i64(), i64::MAX);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_call_that_has_half_a_cpu_is_stopped_by_what_it_computes_however_late_the_looks() {
        let now = Instant::now();
        let (_owner, limit, mut state) = armed(now, ms(50));
        let thread = call(&mut state).thread;
        for late in 1..=3 {
            assert_eq!(limit.get_i64(), 0, "before look {late}");
            compute(thread, ms(20));
            state.look(now + ms(60 * late), None);
        }
        assert_eq!(limit.get_i64(), i64::MAX);
        // It had the CPU for all of its deadline: nobody starved it.
        assert_eq!(
            call(&mut state).watched.cpu.map(|cpu| cpu >= ms(50)),
            Some(true)
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_call_computes_unseen_after_a_store_call_counts_and_what_the_store_did_does_not() {
        let now = Instant::now();
        let (_owner, limit, mut state) = armed(now, ms(60));
        let thread = call(&mut state).thread;
        call(&mut state).enter_store(now, Waiting::Free);
        compute(thread, ms(60));
        call(&mut state).leave_store(now + ms(5));
        state.look(now + ms(5_000), None);
        let left = call(&mut state).left;
        assert!(left > ms(55), "{left:?}");
        assert!(!call(&mut state).forgiven_blindly);
        call(&mut state).enter_store(now + ms(5_000), Waiting::Free);
        call(&mut state).leave_store(now + ms(5_000));
        compute(thread, ms(60));
        state.look(now + ms(5_060), None);
        assert_eq!(limit.get_i64(), i64::MAX);
    }

    #[test]
    fn a_stop_is_no_loss_whether_a_look_a_store_call_or_the_end_comes_next() {
        let now = Instant::now();
        let back = now + ms(5_000);
        // In the guest, before a store call.
        let (_owner, limit, mut state) = armed(now, ms(100));
        state.look(now, None);
        call(&mut state).enter_store(back, Waiting::Free);
        assert_eq!(call(&mut state).leave_store(back), Duration::ZERO);
        state.look(back, None);
        assert_eq!(limit.get_i64(), 0);
        // In a store call, which was waited for a millisecond after 10 ms.
        let (_owner, limit, mut state) = armed(now, ms(100));
        state.look(now, None);
        call(&mut state).enter_store(now + ms(10), Waiting::Free);
        assert_eq!(call(&mut state).leave_store(back), ms(4_990));
        state.look(back + ms(1), None);
        assert_eq!(call(&mut state).left, ms(89));
        assert_eq!(limit.get_i64(), 0);
        // In one that counts.
        let (_owner, limit, mut state) = armed(now, ms(100));
        call(&mut state).enter_store(now + ms(10), Waiting::Charged);
        assert!(call(&mut state).leave_store(back) > ms(4_900));
        state.look(back, None);
        assert_eq!(limit.get_i64(), 0);
    }

    #[test]
    fn waiting_that_is_seen_counts_for_the_store_and_not_for_the_call() {
        let now = Instant::now();
        let (_owner, _, mut state) = armed(now, ms(100));
        call(&mut state).enter_store(now, Waiting::Free);
        for tick in 1..=50 {
            state.look(now + GAP_MAX * tick, None);
        }
        let stood_still = call(&mut state).leave_store(now + GAP_MAX * 51);
        assert_eq!(stood_still, Duration::ZERO);
        assert_eq!(call(&mut state).left, ms(100));
    }

    #[test]
    fn what_is_stolen_while_a_process_is_stopped_is_no_evidence() {
        let now = Instant::now();
        let (_owner, limit, mut state) = armed(now, ms(60));
        state.look(now, None);
        state.look(now + ms(2), Some(100));
        let back = now + ms(9_000);
        state.look(back, None);
        assert!(state.wants_steal(back + ms(2)));
        state.look(back + ms(2), Some(700));
        state.look(back + ms(40), None);
        state.look(back + ms(60), Some(703));
        assert_eq!(limit.get_i64(), i64::MAX);
        let watched = call(&mut state).watched;
        assert_eq!(watched.stolen, Some(ms(30)));
        assert!(watched.cpu.is_none_or(|cpu| cpu <= ms(62)), "{watched:?}");
    }

    #[test]
    fn without_a_thread_clock_one_gap_of_a_call_is_forgiven_and_no_other() {
        let now = Instant::now();
        let (_owner, limit, mut state) = armed(now, ms(100));
        call(&mut state).thread = ThreadClock::UNKNOWN;
        call(&mut state).cpu_counted = None;
        state.look(now + ms(5_000), None);
        assert_eq!(call(&mut state).left, ms(100));
        state.look(now + ms(5_099), None);
        assert_eq!(limit.get_i64(), 0);
        assert_eq!(call(&mut state).left, ms(1));
        state.look(now + ms(5_100), None);
        assert_eq!(limit.get_i64(), i64::MAX);
        assert_eq!(call(&mut state).watched.cpu, None);
    }

    #[test]
    fn the_thread_stops_a_call_and_forgets_a_finished_one() {
        let watchdog = Watchdog::start().unwrap();
        let (_owner, limit) = cell();
        // SAFETY: the cell outlives both watches.
        let ticket = unsafe { watchdog.arm(limit, Instant::now(), Duration::ZERO) };
        while limit.get_i64() != i64::MAX {
            std::thread::yield_now();
        }
        while !watchdog.shared.lock().calls[ticket.0]
            .as_ref()
            .is_some_and(|call| call.watched.fired)
        {
            std::thread::yield_now();
        }
        assert!(watchdog.disarm(ticket).fired);
        // SAFETY: as above.
        let ticket = unsafe { watchdog.arm(limit, Instant::now(), Duration::MAX) };
        assert!(!watchdog.disarm(ticket).fired);
        assert_eq!(watchdog.shared.lock().under_way, 0);
    }
}
