//! When a room is checkpointed: a plain state machine, and the loop that drives it.
//!
//! [`Cadence`] decides: every 30 s, give or take a jitter, so that many rooms do not write at once;
//! not while the room is idle; one at a time; an epoch that failed is tried again, never skipped.
//! After [`Cadence::close`] nothing fires. It has no clock: time and randomness are arguments.
//! [`Scheduler`] is the loop around it.

mod driver;

use std::time::Duration;

pub use driver::{Fired, Pace, Scheduler, TokioPace};

use crate::ids::Epoch;

/// How often a room is checkpointed where nobody says otherwise.
pub const DEFAULT_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(30);

/// How often a room is checkpointed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CadenceRules {
    /// The time between two checkpoints; zero stands for [`DEFAULT_CHECKPOINT_INTERVAL`].
    pub base: Duration,
    /// How far each wait may be from it, either way; at most the base itself.
    pub jitter: Duration,
}

impl Default for CadenceRules {
    fn default() -> Self {
        Self {
            base: DEFAULT_CHECKPOINT_INTERVAL,
            jitter: Duration::from_secs(5),
        }
    }
}

impl CadenceRules {
    /// The wait that `draw` comes to: uniform over the nanoseconds from base − jitter to
    /// base + jitter, ends included, and never zero.
    #[must_use]
    pub fn wait(&self, draw: u64) -> Duration {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4);
        let base = match nanos(self.base) {
            0 => nanos(DEFAULT_CHECKPOINT_INTERVAL),
            base => base.min(u64::MAX / 4),
        };
        let jitter = nanos(self.jitter).min(base);
        let span = u128::from(jitter) * 2 + 1;
        // The high half of the product is uniform over the span, and fits it.
        let offset = ((u128::from(draw) * span) >> 64) as u64;
        Duration::from_nanos((base - jitter + offset).max(1))
    }
}

/// One room's cadence.
#[derive(Debug, Clone)]
pub struct Cadence {
    rules: CadenceRules,
    next: Epoch,
    state: State,
    closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { until: Duration },
    InFlight,
}

/// What a cadence wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing before this time.
    Wait(Duration),
    /// A checkpoint of this epoch; say how it went with [`Cadence::finished`].
    Fire(Epoch),
    /// Nothing: one is under way.
    InFlight,
    /// Nothing any more.
    Closed,
}

impl Cadence {
    /// A cadence whose first checkpoint has the epoch `start`: [`Lease::next_epoch`] of the lease
    /// it writes through.
    ///
    /// [`Lease::next_epoch`]: crate::Lease::next_epoch
    #[must_use]
    pub fn new(rules: CadenceRules, start: Epoch, now: Duration, draw: u64) -> Self {
        Self {
            rules,
            next: start,
            state: State::Waiting {
                until: now.saturating_add(rules.wait(draw)),
            },
            closed: false,
        }
    }

    /// What is to be done at `now`. An `idle` room is left alone for another interval, and keeps
    /// its epoch.
    pub fn due(&mut self, now: Duration, idle: bool, draw: u64) -> Due {
        match self.state {
            _ if self.closed => Due::Closed,
            State::InFlight => Due::InFlight,
            State::Waiting { until } if until > now => Due::Wait(until),
            State::Waiting { .. } if idle => {
                let until = self.rearm(now, draw);
                Due::Wait(until)
            }
            State::Waiting { .. } => {
                self.state = State::InFlight;
                Due::Fire(self.next)
            }
        }
    }

    /// The checkpoint is written, or it failed and its epoch is tried again. Either way the next
    /// wait begins now.
    pub fn finished(&mut self, written: bool, now: Duration, draw: u64) {
        if self.state != State::InFlight {
            return;
        }
        if written {
            self.next = self.next.next();
        }
        self.rearm(now, draw);
    }

    /// An epoch that was written by somebody else, or before: the next is above it.
    pub fn passed(&mut self, epoch: Epoch) {
        self.next = self.next.max(epoch.next());
    }

    /// Nothing fires any more. `true`: one is under way, and [`Cadence::next_epoch`] is final only
    /// when it is finished.
    pub fn close(&mut self) -> bool {
        self.closed = true;
        self.state == State::InFlight
    }

    /// The epoch the next checkpoint has. Once closed and nothing is under way, that of the drain:
    /// above every epoch that was written.
    #[must_use]
    pub fn next_epoch(&self) -> Epoch {
        self.next
    }

    fn rearm(&mut self, now: Duration, draw: u64) -> Duration {
        let until = now.saturating_add(self.rules.wait(draw));
        self.state = State::Waiting { until };
        until
    }
}

#[cfg(test)]
mod tests;
