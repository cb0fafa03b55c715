//! The threads rooms run on: a thin driver around [`Sched`].
//!
//! There are so many light roles (one per core) and heavy roles (one less than cores, at least
//! one); a thread without a role does not run rooms. Before a guest waits for a store its thread
//! gives its role to another thread, and takes one again before the guest goes on: so a hung
//! store holds up the rooms that asked it and nobody else, and there are never more guests running
//! than roles. At most `waiting_max` threads wait; past that the caller is told at once.
//!
//! When a callback overstays in the light lane while others queue, its role is taken from it too:
//! it runs on without one, and its thread serves the heavy lane afterwards. A few may do so at a
//! time (`excess_max`).
//!
//! One more thread keeps the time: it advances the wheel and looks for callbacks that overstay.

mod roles;

use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::roles::{Holds, State};
use crate::clock::Clock;
use crate::sched::{Key, Lane, OVERRUN, Ran, Sched};

/// What is run.
pub(crate) trait Work: Send + Sync + 'static {
    /// One turn. Must not panic. [`Ran::took`] is the pool's to fill in.
    fn turn(&self) -> Ran;
}

/// How many threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolOptions {
    pub(crate) light: usize,
    pub(crate) heavy: usize,
    pub(crate) waiting_max: usize,
    pub(crate) excess_max: usize,
}

/// Too many threads wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

/// Threads without a role that are kept for the next one.
const SPARES_KEPT: usize = 4;
/// How long a thread more than those waits for a role.
const SPARE_IDLE: Duration = Duration::from_secs(10);
thread_local! {
    /// Pool (its address) and job of the calling thread, while it runs one.
    static JOB: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
}

pub(crate) struct Pool<W: Work> {
    state: Mutex<State<W>>,
    clock: Arc<dyn Clock>,
    options: PoolOptions,
    /// Drivers without work, by lane.
    idle: [Condvar; 2],
    spare: Condvar,
    /// Threads whose store has answered.
    back: Condvar,
    monitor: Condvar,
    stopped: Condvar,
}

/// Counts of a pool, for tests and `stats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) rooms: usize,
    pub(crate) threads: usize,
    pub(crate) waiting: usize,
}

impl<W: Work> Pool<W> {
    /// A pool without threads: [`Pool::turn`] runs what is due.
    pub(crate) fn by_hand(clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::new(
            PoolOptions {
                light: 0,
                heavy: 0,
                waiting_max: 0,
                excess_max: 0,
            },
            clock,
        )
    }

    fn new(options: PoolOptions, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::new()),
            clock,
            options,
            idle: Default::default(),
            spare: Condvar::new(),
            back: Condvar::new(),
            monitor: Condvar::new(),
            stopped: Condvar::new(),
        })
    }

    /// A pool with its threads.
    pub(crate) fn start(options: PoolOptions, clock: Arc<dyn Clock>) -> std::io::Result<Arc<Self>> {
        let pool = Self::new(options, clock);
        let begun = (|| {
            for (lane, count) in [(Lane::Light, options.light), (Lane::Heavy, options.heavy)] {
                for _ in 0..count {
                    pool.spawn(&mut pool.lock(), lane)?;
                }
            }
            let monitor = Arc::clone(&pool);
            pool.lock().threads += 1;
            std::thread::Builder::new()
                .name("cabinet-timer".into())
                .spawn(move || monitor.keep_time())
                .map(drop)
                .inspect_err(|_| pool.lock().threads -= 1)
        })();
        match begun {
            Ok(()) => Ok(pool),
            Err(error) => {
                pool.stop();
                Err(error)
            }
        }
    }

    /// Adds a room that begins in this lane.
    pub(crate) fn insert(&self, work: Arc<W>, lane: Lane) -> Key {
        self.lock().sched.insert(work, lane)
    }

    /// Somebody wants something of the room.
    pub(crate) fn poke(&self, key: Key) {
        let mut state = self.lock();
        if state.sched.poke(key) {
            self.rouse(&state);
        }
    }

    /// Runs one room that is due, on the calling thread; `false` when none is. For pools by hand.
    pub(crate) fn turn(&self) -> bool {
        let mut state = self.lock();
        state.sched.advance(self.clock.now());
        let found = state
            .sched
            .take(Lane::Light)
            .or_else(|| state.sched.take(Lane::Heavy));
        drop(state);
        let Some((key, work)) = found else {
            return false;
        };
        let ran = work.turn();
        let gone = self.lock().sched.finish(key, ran);
        drop(gone);
        true
    }

    /// When a pool by hand should be looked at again, if nobody pokes.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.lock().sched.next()
    }

    pub(crate) fn census(&self) -> Census {
        let state = self.lock();
        Census {
            rooms: state.sched.len(),
            threads: state.threads,
            waiting: state.waiting,
        }
    }

    /// Runs `block`, which waits for something outside, with the calling thread's role lent to
    /// somebody else. Returns what it did and how long the thread then waited for a role. A thread
    /// that is not the pool's just runs it.
    ///
    /// # Errors
    /// [`Busy`] when too many wait already; `block` did not run.
    pub(crate) fn wait<R>(
        self: &Arc<Self>,
        block: impl FnOnce() -> R,
    ) -> Result<(R, Duration), Busy> {
        let at = match JOB.get() {
            Some((pool, at)) if pool == self.address() => at,
            _ => return Ok((block(), Duration::ZERO)),
        };
        let left = self.clock.now();
        let lane = {
            let mut state = self.lock();
            if state.waiting >= self.options.waiting_max {
                return Err(Busy);
            }
            let Some(job) = state.jobs.get_mut(at).and_then(Option::as_mut) else {
                debug_assert!(false, "a pool thread has a job while it runs one");
                return Err(Busy);
            };
            job.waits = true;
            let holds = job.holds;
            state.waiting += 1;
            let lane = match holds {
                Holds::Role(lane) => {
                    self.leave_role(&mut state, lane);
                    lane
                }
                Holds::Nothing => {
                    state.excess -= 1;
                    Lane::Heavy
                }
            };
            self.rouse(&state);
            lane
        };
        let answer = block();
        let answered = self.clock.now();
        let mut state = self.lock();
        state.waiting -= 1;
        let ticket = state.tickets;
        state.tickets += 1;
        state.returning[lane as usize].push_back(ticket);
        if state.owed(lane) {
            self.idle[lane as usize].notify_one();
        }
        while state.free[lane as usize] == 0
            || state.returning[lane as usize].front() != Some(&ticket)
        {
            state = self
                .back
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.returning[lane as usize].pop_front();
        state.free[lane as usize] -= 1;
        if lane == Lane::Heavy {
            state.heavy += 1;
        }
        self.back.notify_all();
        let now = self.clock.now();
        if let Some(job) = state.jobs.get_mut(at).and_then(Option::as_mut) {
            job.waits = false;
            job.holds = Holds::Role(lane);
            job.since = now;
            job.waited += now.saturating_sub(left);
        }
        self.remind(&mut state, now);
        Ok((answer, now.saturating_sub(answered)))
    }

    /// Lets every thread end once its turn is over, and forgets the rooms.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        for idle in &self.idle {
            idle.notify_all();
        }
        self.spare.notify_all();
        self.monitor.notify_all();
        if state.threads == 0 {
            let rooms = std::mem::replace(&mut state.sched, Sched::new());
            drop(state);
            drop(rooms);
        }
    }

    /// Blocks until every thread has ended, at most so long; `false`: some have not.
    pub(crate) fn join(&self, within: Duration) -> bool {
        let state = self.lock();
        let (state, _) = self
            .stopped
            .wait_timeout_while(state, within, |state| state.threads > 0)
            .unwrap_or_else(PoisonError::into_inner);
        state.threads == 0
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes as many idle drivers as there is work for.
    fn rouse(&self, state: &State<W>) {
        for lane in [Lane::Light, Lane::Heavy] {
            for _ in 0..state.sched.queued(lane).min(state.idle[lane as usize]) {
                self.idle[lane as usize].notify_one();
            }
        }
    }

    /// A role is free now; somebody takes it.
    fn leave_role(self: &Arc<Self>, state: &mut State<W>, lane: Lane) {
        if lane == Lane::Heavy {
            state.heavy -= 1;
        }
        self.offer_role(state, lane);
    }

    fn offer_role(self: &Arc<Self>, state: &mut State<W>, lane: Lane) {
        state.free[lane as usize] += 1;
        if !state.surplus(lane) {
            self.back.notify_all();
        } else if state.spares > 0 {
            self.spare.notify_one();
        } else if !state.stopping {
            state.free[lane as usize] -= 1;
            if let Err(error) = self.spawn(state, lane) {
                // The role waits for a thread that comes back.
                state.free[lane as usize] += 1;
                tracing::error!(%error, "cannot start a room thread");
            }
        }
    }

    fn spawn(self: &Arc<Self>, state: &mut State<W>, lane: Lane) -> std::io::Result<()> {
        let pool = Arc::clone(self);
        std::thread::Builder::new()
            .name("cabinet-rooms".into())
            .spawn(move || pool.drive(lane))?;
        state.threads += 1;
        Ok(())
    }

    /// A thread's life: run rooms while it has a role.
    fn drive(self: Arc<Self>, mut lane: Lane) {
        let mut state = self.lock();
        while !state.stopping {
            if state.owed(lane) {
                state.free[lane as usize] += 1;
                self.back.notify_all();
                match self.spare(state) {
                    (again, Some(role)) => (state, lane) = (again, role),
                    (again, None) => return self.leave(again),
                }
                continue;
            }
            let now = self.clock.now();
            state.sched.advance(now);
            // A callback that lost its role still takes a core of the heavy lane's; one heavy room
            // runs in any case.
            let may = lane == Lane::Light
                || state.heavy == 0
                || state.heavy + state.excess < self.options.heavy;
            let found = if may { state.sched.take(lane) } else { None };
            let Some((key, work)) = found else {
                self.remind(&mut state, now);
                state.idle[lane as usize] += 1;
                state = self.idle[lane as usize]
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                state.idle[lane as usize] -= 1;
                continue;
            };
            if state.sched.queued(lane) > 0 && state.idle[lane as usize] > 0 {
                self.idle[lane as usize].notify_one();
            }
            let at = state.begin(key, lane, now);
            self.remind(&mut state, now);
            drop(state);
            JOB.set(Some((self.address(), at)));
            let mut ran = work.turn();
            JOB.set(None);
            drop(work);
            state = self.lock();
            let holds = state.end(at, self.clock.now(), &mut ran);
            let gone = state.sched.finish(key, ran);
            if gone.is_some() {
                drop(state);
                drop(gone);
                state = self.lock();
            }
            match holds {
                None => {}
                Some(Holds::Role(held)) => {
                    if held == Lane::Heavy {
                        state.heavy -= 1;
                    }
                    // A callback that lost its light role came back from its store with a heavy
                    // one.
                    lane = held;
                }
                Some(Holds::Nothing) => {
                    state.excess -= 1;
                    self.rouse(&state);
                    match self.spare(state) {
                        (again, Some(role)) => (state, lane) = (again, role),
                        (again, None) => return self.leave(again),
                    }
                }
            }
        }
        // Whoever comes back from a store ends its turn with this role.
        state.free[lane as usize] += 1;
        self.back.notify_all();
        self.leave(state);
    }

    /// Waits for a role. `None`: there are enough threads, or no more work.
    fn spare<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<W>>,
    ) -> (MutexGuard<'a, State<W>>, Option<Lane>) {
        let now = self.clock.now();
        self.remind(&mut state, now);
        let mut last = false;
        loop {
            if state.stopping {
                return (state, None);
            }
            for lane in [Lane::Light, Lane::Heavy] {
                if state.surplus(lane) {
                    state.free[lane as usize] -= 1;
                    return (state, Some(lane));
                }
            }
            if last {
                return (state, None);
            }
            state.spares += 1;
            let (again, waited) = self
                .spare
                .wait_timeout(state, SPARE_IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            state = again;
            state.spares -= 1;
            last = waited.timed_out() && state.spares >= SPARES_KEPT;
        }
    }

    fn leave(&self, mut state: MutexGuard<'_, State<W>>) {
        state.threads -= 1;
        if state.threads == 0 {
            // Rooms hold on to the pool, and the pool on to its rooms, until here.
            let rooms = std::mem::replace(&mut state.sched, Sched::new());
            drop(state);
            drop(rooms);
            self.stopped.notify_all();
        }
    }

    /// Sees to it that the monitor looks soon enough.
    fn remind(&self, state: &mut State<W>, now: Duration) {
        if !state.monitor_asleep {
            return;
        }
        let until = state.look_at(now);
        if until.is_some_and(|until| state.monitor_until.is_none_or(|planned| until < planned)) {
            state.monitor_until = until;
            self.monitor.notify_one();
        }
    }

    fn keep_time(self: Arc<Self>) {
        let mut state = self.lock();
        while !state.stopping {
            let now = self.clock.now();
            state.sched.advance(now);
            self.take_roles(&mut state, now);
            self.rouse(&state);
            state.monitor_until = state.look_at(now);
            state.monitor_asleep = true;
            let sleep = state
                .monitor_until
                .map_or(SPARE_IDLE, |until| until.saturating_sub(now));
            state = self
                .monitor
                .wait_timeout(state, sleep)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            state.monitor_asleep = false;
        }
        self.leave(state);
    }

    /// Takes their role from callbacks that overstay while others queue.
    fn take_roles(self: &Arc<Self>, state: &mut State<W>, now: Duration) {
        for at in 0..state.jobs.len() {
            if state.sched.queued(Lane::Light) == 0 || state.excess >= self.options.excess_max {
                return;
            }
            let Some(job) = &mut state.jobs[at] else {
                continue;
            };
            let overstays = now.saturating_sub(job.since) > OVERRUN;
            if job.waits || !overstays || job.holds != Holds::Role(Lane::Light) {
                continue;
            }
            job.holds = Holds::Nothing;
            let key = job.key;
            state.excess += 1;
            state.sched.overran(key);
            self.offer_role(state, Lane::Light);
        }
    }
}

#[cfg(test)]
mod tests;
