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

mod calls;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::calls::{Call, Calls};
pub(crate) use self::calls::{Ticket, Waiting, Watched};
use crate::memory::RawGlobal;
use crate::steal::read_steal_jiffies;

/// Ticks without any call under way after which the thread stops looking.
const QUIET_TICKS: u32 = 50;

/// Kills calls that outlive their deadline.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    calls: Calls,
    asleep: bool,
    stopping: bool,
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
        let ticket = state.calls.add(call);
        if std::mem::take(&mut state.asleep) {
            self.shared.wake.notify_one();
        }
        ticket
    }

    /// The call begins to wait for a store. `true`: too late, it was killed.
    pub(crate) fn enter_store(&self, ticket: Ticket, waiting: Waiting) -> bool {
        let mut state = self.shared.lock();
        match state.calls.get_mut(ticket) {
            Some(call) if call.is_stopped() => true,
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
        match state.calls.get_mut(ticket) {
            Some(call) => call.leave_store(Instant::now()),
            None => Duration::ZERO,
        }
    }

    /// Ends the watch of a call, and tells what happened.
    pub(crate) fn disarm(&self, ticket: Ticket) -> Watched {
        let mut state = self.shared.lock();
        let Some(call) = state.calls.remove(ticket) else {
            debug_assert!(false, "a ticket is disarmed once");
            return Watched::default();
        };
        call.end(Instant::now())
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
            if state.calls.is_empty() {
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
            let steal = if state.calls.wants_steal(Instant::now()) {
                drop(state);
                let steal = read_steal_jiffies();
                state = self.lock();
                steal
            } else {
                None
            };
            let pause = state.calls.look(Instant::now(), steal);
            state = self
                .wake
                .wait_timeout(state, pause)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// A cell that no guest reads.
#[cfg(test)]
fn nobodys_cell() -> RawGlobal {
    let definition = Box::leak(Box::new(wasmer_vm::VMGlobalDefinition::new()));
    // SAFETY: it is never freed, and nobody else has it.
    let cell = unsafe { RawGlobal::new(std::ptr::NonNull::from(definition)) };
    cell.set_i64(0);
    cell
}

#[cfg(test)]
impl Watchdog {
    /// Watches a call that runs nothing, for tests of what happens around a call.
    pub(crate) fn arm_nothing(&self, deadline: Duration) -> Ticket {
        // SAFETY: the cell is never freed.
        unsafe { self.arm(nobodys_cell(), Instant::now(), deadline) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_stops_a_call_and_forgets_a_finished_one() {
        let watchdog = Watchdog::start().unwrap();
        let limit = nobodys_cell();
        // SAFETY: the cell is never freed.
        let ticket = unsafe { watchdog.arm(limit, Instant::now(), Duration::ZERO) };
        while limit.get_i64() != i64::MAX {
            std::thread::yield_now();
        }
        let is_stopped = || {
            let mut state = watchdog.shared.lock();
            state
                .calls
                .get_mut(ticket)
                .is_some_and(|call| call.is_stopped())
        };
        while !is_stopped() {
            std::thread::yield_now();
        }
        assert!(watchdog.disarm(ticket).fired);
        // SAFETY: as above.
        let ticket = unsafe { watchdog.arm(limit, Instant::now(), Duration::MAX) };
        assert!(!watchdog.disarm(ticket).fired);
        assert!(watchdog.shared.lock().calls.is_empty());
    }
}
