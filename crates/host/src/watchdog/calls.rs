//! The calls under watch: how much of a call's time counts against its deadline, and when the call is
//! told to stop. Plain code; the thread beside it says what time it is and how much CPU was stolen.
//!
//! A process that is stopped (Ctrl-Z, `SIGSTOP`) and continued finds all its deadlines passed. No guest
//! is judged by that: of a time in which nobody looked for longer than [`GAP_MAX`] only that counts in
//! which the call's thread had the CPU. Where the system does not tell that (all but Linux), nothing
//! of the first such time of a call counts, and all of the others: a guest that computed gains no more
//! by it than what was left of its deadline.
//!
//! Stolen CPU (time the hypervisor gave to others) is sampled when a call is seen a second time and
//! again when it is killed, so that ordinary calls never cause a read of `/proc/stat`.

use std::time::{Duration, Instant};

use crate::cputime::ThreadClock;
use crate::memory::RawGlobal;

/// How often the thread looks while calls are under way; the most a kill is late by, beside the
/// system's own scheduling.
const TICK: Duration = Duration::from_millis(2);
/// The longest time between two looks that counts whole: after a longer one the process was stopped. A
/// machine that is so busy that a thread which sleeps is not woken for as long counts as that.
const GAP_MAX: Duration = Duration::from_millis(50);

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

/// The calls under way.
#[derive(Debug, Default)]
pub(super) struct Calls {
    slots: Vec<Option<Call>>,
    free: Vec<usize>,
    under_way: usize,
}

#[derive(Debug)]
pub(super) struct Call {
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
    pub(super) fn new(limit: RawGlobal, began: Instant, deadline: Duration) -> Self {
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
    pub(super) fn enter_store(&mut self, now: Instant, waiting: Waiting) {
        if waiting == Waiting::Free {
            self.count_last(now);
            self.waits = true;
        }
        self.stood_still_before = self.stood_still;
    }

    /// The store call is over. What was stolen or computed while the call waited is not its own.
    pub(super) fn leave_store(&mut self, now: Instant) -> Duration {
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

    pub(super) fn is_stopped(&self) -> bool {
        self.watched.fired
    }

    /// The call is over at `now`.
    pub(super) fn end(mut self, now: Instant) -> Watched {
        self.count_last(now);
        let wall = now.saturating_duration_since(self.began);
        Watched {
            wall: wall.saturating_sub(self.stood_still),
            ..self.watched
        }
    }
}

impl Calls {
    pub(super) fn add(&mut self, call: Call) -> Ticket {
        self.under_way += 1;
        let Some(at) = self.free.pop() else {
            self.slots.push(Some(call));
            return Ticket(self.slots.len() - 1);
        };
        self.slots[at] = Some(call);
        Ticket(at)
    }

    pub(super) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Call> {
        self.slots.get_mut(ticket.0)?.as_mut()
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Call> {
        let call = self.slots.get_mut(ticket.0)?.take()?;
        self.free.push(ticket.0);
        self.under_way -= 1;
        Some(call)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way == 0
    }

    /// Whether some call has outlived a tick unsampled, or is about to be killed.
    pub(super) fn wants_steal(&self, now: Instant) -> bool {
        self.slots.iter().flatten().any(|call| {
            let late = call.left <= now.saturating_duration_since(call.counted);
            !call.watched.fired && !call.waits && (late || (call.seen && !call.sampled))
        })
    }

    /// Kills what is late at `now`; returns how long until the next look. `steal` is the count now,
    /// if it was read.
    pub(super) fn look(&mut self, now: Instant, steal: Option<u64>) -> Duration {
        let mut pause = TICK;
        for call in self.slots.iter_mut().flatten() {
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
mod tests {
    use super::*;
    use crate::watchdog::nobodys_cell;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// A call that began at `began`, and was not seen yet.
    fn armed(began: Instant, deadline: Duration) -> (RawGlobal, Calls) {
        let limit = nobodys_cell();
        let mut calls = Calls::default();
        calls.add(Call::new(limit, began, deadline));
        (limit, calls)
    }

    fn call(calls: &mut Calls) -> &mut Call {
        calls.get_mut(Ticket(0)).unwrap()
    }

    /// Computes for so long on the thread whose clock it is.
    #[cfg(target_os = "linux")]
    fn compute(clock: ThreadClock, time: Duration) {
        let end = clock.read().unwrap() + time;
        while clock.read().unwrap() < end {}
    }

    #[test]
    fn a_late_call_is_stopped_and_an_early_one_is_not() {
        let (late, early) = (nobodys_cell(), nobodys_cell());
        let now = Instant::now();
        let mut calls = Calls::default();
        for (limit, deadline) in [(late, Duration::ZERO), (early, ms(1))] {
            calls.add(Call::new(limit, now, deadline));
        }
        let pause = calls.look(now, Some(3));
        assert_eq!(late.get_i64(), i64::MAX);
        assert_eq!(early.get_i64(), 0);
        assert_eq!(pause, ms(1));
    }

    #[test]
    fn stolen_time_is_the_difference_between_second_sight_and_kill() {
        let now = Instant::now();
        let (_, mut calls) = armed(now, ms(3));
        // An ordinary call is over before its second tick and never sampled.
        assert!(!calls.wants_steal(now));
        calls.look(now, None);
        assert!(calls.wants_steal(now));
        calls.look(now, Some(100));
        assert!(!calls.wants_steal(now));
        assert!(calls.wants_steal(now + ms(3)));
        calls.look(now + ms(3), Some(104));
        assert_eq!(call(&mut calls).watched.stolen, Some(ms(40)));
    }

    #[test]
    fn what_was_stolen_while_a_call_waited_for_the_host_is_not_counted() {
        let now = Instant::now();
        let (limit, mut calls) = armed(now, ms(40));
        calls.look(now, None);
        calls.look(now + ms(2), Some(100));
        call(&mut calls).enter_store(now + ms(10), Waiting::Free);
        for tick in 0..100 {
            calls.look(now + ms(10 + 20 * tick), Some(150));
        }
        // Two seconds later, with another 30 ms to run.
        assert_eq!(
            call(&mut calls).leave_store(now + ms(2_010)),
            Duration::ZERO
        );
        calls.look(now + ms(2_011), None);
        assert!(calls.wants_steal(now + ms(2_013)));
        calls.look(now + ms(2_013), Some(200));
        calls.look(now + ms(2_039), None);
        assert_eq!(limit.get_i64(), 0);
        calls.look(now + ms(2_040), Some(203));
        assert_eq!(limit.get_i64(), i64::MAX);
        let watched = call(&mut calls).watched;
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
            let (limit, mut calls) = armed(now, ms(100));
            if seen {
                calls.look(now, None);
            }
            // Ten minutes later. The test itself computed next to nothing since.
            let back = now + ms(600_000);
            calls.look(back, None);
            let left = call(&mut calls).left;
            assert!(left > ms(95), "{left:?}");
            assert_eq!(call(&mut calls).stood_still, ms(600_000) - (ms(100) - left));
            // Time that is seen counts as ever.
            let mut ticks = 0;
            while limit.get_i64() == 0 {
                ticks += 1;
                calls.look(back + TICK * ticks, None);
            }
            let (ran, tick) = (TICK * ticks, TICK);
            assert!(ran >= left && ran < left + tick, "{ran:?} of {left:?}");
        }
    }

    #[test]
    fn a_gap_that_is_no_longer_than_usual_counts_whole() {
        let now = Instant::now();
        for (gap, fired) in [(GAP_MAX, true), (GAP_MAX + ms(1), false)] {
            let (limit, mut calls) = armed(now, GAP_MAX);
            calls.look(now, None);
            calls.look(now + gap, None);
            assert_eq!(limit.get_i64() == i64::MAX, fired, "{gap:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_call_computes_unseen_counts_whatever_came_before() {
        for seen in [true, false] {
            let now = Instant::now();
            let (limit, mut calls) = armed(now, ms(60));
            if seen {
                calls.look(now, None);
                // It was stopped for long, which is no loan.
                calls.look(now + ms(10_000), None);
                assert_eq!(limit.get_i64(), 0);
            }
            let thread = call(&mut calls).thread;
            let before = call(&mut calls).stood_still;
            compute(thread, ms(60));
            let from = call(&mut calls).counted;
            calls.look(from + ms(60), None);
            assert_eq!(call(&mut calls).stood_still, before, "seen: {seen}");
            assert_eq!(limit.get_i64(), i64::MAX);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_call_that_has_half_a_cpu_is_stopped_by_what_it_computes_however_late_the_looks() {
        let now = Instant::now();
        let (limit, mut calls) = armed(now, ms(50));
        let thread = call(&mut calls).thread;
        for late in 1..=3 {
            assert_eq!(limit.get_i64(), 0, "before look {late}");
            compute(thread, ms(20));
            calls.look(now + ms(60 * late), None);
        }
        assert_eq!(limit.get_i64(), i64::MAX);
        // It had the CPU for all of its deadline: nobody starved it.
        assert_eq!(
            call(&mut calls).watched.cpu.map(|cpu| cpu >= ms(50)),
            Some(true)
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_call_computes_unseen_after_a_store_call_counts_and_what_the_store_did_does_not() {
        let now = Instant::now();
        let (limit, mut calls) = armed(now, ms(60));
        let thread = call(&mut calls).thread;
        call(&mut calls).enter_store(now, Waiting::Free);
        compute(thread, ms(60));
        call(&mut calls).leave_store(now + ms(5));
        calls.look(now + ms(5_000), None);
        let left = call(&mut calls).left;
        assert!(left > ms(55), "{left:?}");
        assert!(!call(&mut calls).forgiven_blindly);
        call(&mut calls).enter_store(now + ms(5_000), Waiting::Free);
        call(&mut calls).leave_store(now + ms(5_000));
        compute(thread, ms(60));
        calls.look(now + ms(5_060), None);
        assert_eq!(limit.get_i64(), i64::MAX);
    }

    #[test]
    fn a_stop_is_no_loss_whether_a_look_a_store_call_or_the_end_comes_next() {
        let now = Instant::now();
        let back = now + ms(5_000);
        // In the guest, before a store call.
        let (limit, mut calls) = armed(now, ms(100));
        calls.look(now, None);
        call(&mut calls).enter_store(back, Waiting::Free);
        assert_eq!(call(&mut calls).leave_store(back), Duration::ZERO);
        calls.look(back, None);
        assert_eq!(limit.get_i64(), 0);
        // In a store call, which was waited for a millisecond after 10 ms.
        let (limit, mut calls) = armed(now, ms(100));
        calls.look(now, None);
        call(&mut calls).enter_store(now + ms(10), Waiting::Free);
        assert_eq!(call(&mut calls).leave_store(back), ms(4_990));
        calls.look(back + ms(1), None);
        assert_eq!(call(&mut calls).left, ms(89));
        assert_eq!(limit.get_i64(), 0);
        // In one that counts.
        let (limit, mut calls) = armed(now, ms(100));
        call(&mut calls).enter_store(now + ms(10), Waiting::Charged);
        assert!(call(&mut calls).leave_store(back) > ms(4_900));
        calls.look(back, None);
        assert_eq!(limit.get_i64(), 0);
    }

    #[test]
    fn waiting_that_is_seen_counts_for_the_store_and_not_for_the_call() {
        let now = Instant::now();
        let (_, mut calls) = armed(now, ms(100));
        call(&mut calls).enter_store(now, Waiting::Free);
        for tick in 1..=50 {
            calls.look(now + GAP_MAX * tick, None);
        }
        let stood_still = call(&mut calls).leave_store(now + GAP_MAX * 51);
        assert_eq!(stood_still, Duration::ZERO);
        assert_eq!(call(&mut calls).left, ms(100));
    }

    #[test]
    fn what_is_stolen_while_a_process_is_stopped_is_no_evidence() {
        let now = Instant::now();
        let (limit, mut calls) = armed(now, ms(60));
        calls.look(now, None);
        calls.look(now + ms(2), Some(100));
        let back = now + ms(9_000);
        calls.look(back, None);
        assert!(calls.wants_steal(back + ms(2)));
        calls.look(back + ms(2), Some(700));
        calls.look(back + ms(40), None);
        calls.look(back + ms(60), Some(703));
        assert_eq!(limit.get_i64(), i64::MAX);
        let watched = call(&mut calls).watched;
        assert_eq!(watched.stolen, Some(ms(30)));
        assert!(watched.cpu.is_none_or(|cpu| cpu <= ms(62)), "{watched:?}");
    }

    #[test]
    fn without_a_thread_clock_one_gap_of_a_call_is_forgiven_and_no_other() {
        let now = Instant::now();
        let (limit, mut calls) = armed(now, ms(100));
        call(&mut calls).thread = ThreadClock::UNKNOWN;
        call(&mut calls).cpu_counted = None;
        calls.look(now + ms(5_000), None);
        assert_eq!(call(&mut calls).left, ms(100));
        calls.look(now + ms(5_099), None);
        assert_eq!(limit.get_i64(), 0);
        assert_eq!(call(&mut calls).left, ms(1));
        calls.look(now + ms(5_100), None);
        assert_eq!(limit.get_i64(), i64::MAX);
        assert_eq!(call(&mut calls).watched.cpu, None);
    }
}
