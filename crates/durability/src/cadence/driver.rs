//! The loop that drives a [`Cadence`]: sleeps, asks whether the room is idle, calls the checkpoint.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::{Cadence, CadenceRules, Due};
use crate::ids::Epoch;

/// How a scheduler sleeps.
pub trait Pace: Send + Sync {
    /// Time since some fixed moment; never goes back.
    fn now(&self) -> Duration;

    /// Returns when [`Pace::now`] has reached `until`.
    fn sleep_until(&self, until: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Sleeps with tokio's timers; needs a tokio runtime with time.
#[derive(Debug, Clone, Copy)]
pub struct TokioPace {
    origin: Instant,
}

impl TokioPace {
    /// A pace that begins at zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Default for TokioPace {
    fn default() -> Self {
        Self::new()
    }
}

impl Pace for TokioPace {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn sleep_until(&self, until: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep_until(self.origin + until))
    }
}

/// How a checkpoint went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fired {
    /// It is written; the next has the next epoch.
    Written,
    /// It is not; its epoch is tried again after another interval.
    Failed,
    /// It is not, because this epoch has passed already: the next is above this one.
    Passed(Epoch),
    /// There will be no more of them: the room is over, or another process has it.
    Stop,
}

/// One room's cadence, running. Clones are the same one.
#[derive(Clone)]
pub struct Scheduler {
    shared: Arc<Shared>,
}

struct Shared {
    cadence: Mutex<Cadence>,
    closed: Notify,
    in_flight: watch::Sender<bool>,
}

impl Scheduler {
    /// A scheduler that has not begun: [`Scheduler::run`] it.
    #[must_use]
    pub fn new(rules: CadenceRules, start: Epoch, now: Duration, draw: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                cadence: Mutex::new(Cadence::new(rules, start, now, draw)),
                closed: Notify::new(),
                in_flight: watch::Sender::new(false),
            }),
        }
    }

    /// Runs until it is closed or a checkpoint says stop. Dropping the future gives up what is
    /// under way: its epoch counts as failed.
    pub async fn run<F>(
        &self,
        pace: &dyn Pace,
        mut draw: impl FnMut() -> u64 + Send,
        mut idle: impl FnMut() -> bool + Send,
        mut checkpoint: impl FnMut(Epoch) -> F + Send,
    ) where
        F: Future<Output = Fired> + Send,
    {
        loop {
            // Asked without the lock: it is the caller's code.
            let (idle, drawn) = (idle(), draw());
            let due = self.lock().due(pace.now(), idle, drawn);
            match due {
                Due::Closed | Due::InFlight => return,
                Due::Wait(until) => {
                    let closed = pin!(self.shared.closed.notified());
                    future::select(pace.sleep_until(until), closed).await;
                }
                Due::Fire(epoch) => {
                    let flight = InFlight::begin(self, pace, draw());
                    let fired = checkpoint(epoch).await;
                    flight.end(fired);
                    if fired == Fired::Stop {
                        return;
                    }
                }
            }
        }
    }

    /// Stops firing, waits for the checkpoint that is under way, and says which epoch the next one
    /// has: that of the drain. Everybody who calls waits. From inside a checkpoint use
    /// [`Scheduler::close_soon`]: this would wait for itself.
    pub async fn close(&self) -> Epoch {
        self.close_soon();
        let mut in_flight = self.shared.in_flight.subscribe();
        // The sender lives as long as this scheduler.
        let _ = in_flight.wait_for(|under_way| !under_way).await;
        self.next_epoch()
    }

    /// As [`Scheduler::close`], without waiting.
    pub fn close_soon(&self) {
        self.lock().close();
        // Kept for a loop that is not waiting yet.
        self.shared.closed.notify_one();
    }

    /// The epoch the next checkpoint has.
    #[must_use]
    pub fn next_epoch(&self) -> Epoch {
        self.lock().next_epoch()
    }

    fn lock(&self) -> MutexGuard<'_, Cadence> {
        self.shared
            .cadence
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A checkpoint under way; dropped before its end, it failed.
struct InFlight<'a> {
    scheduler: &'a Scheduler,
    pace: &'a dyn Pace,
    draw: u64,
    fired: Fired,
}

impl<'a> InFlight<'a> {
    fn begin(scheduler: &'a Scheduler, pace: &'a dyn Pace, draw: u64) -> Self {
        scheduler.shared.in_flight.send_replace(true);
        Self {
            scheduler,
            pace,
            draw,
            fired: Fired::Failed,
        }
    }

    fn end(mut self, fired: Fired) {
        self.fired = fired;
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        {
            let mut cadence = self.scheduler.lock();
            cadence.finished(self.fired == Fired::Written, self.pace.now(), self.draw);
            match self.fired {
                Fired::Passed(epoch) => cadence.passed(epoch),
                Fired::Stop => {
                    cadence.close();
                }
                Fired::Written | Fired::Failed => {}
            }
        }
        // Only now is the next epoch final.
        self.scheduler.shared.in_flight.send_replace(false);
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler")
            .field("cadence", &*self.lock())
            .finish()
    }
}
