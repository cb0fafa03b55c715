//! Who has which role, and what runs with it: the books of a pool, kept under its lock.
//!
//! No thread and no clock here; the pool beside it says what time it is and wakes whom it concerns.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Work;
use crate::sched::{Key, Lane, Ran, Sched};

/// How often running callbacks are looked at.
const LOOK: Duration = Duration::from_millis(2);

/// What the pool's lock guards.
pub(super) struct State<W: Work> {
    pub(super) sched: Sched<Arc<W>>,
    /// Roles nobody has.
    pub(super) free: [usize; 2],
    /// Drivers that wait for work.
    pub(super) idle: [usize; 2],
    pub(super) returning: [VecDeque<u64>; 2],
    pub(super) tickets: u64,
    pub(super) spares: usize,
    pub(super) threads: usize,
    pub(super) waiting: usize,
    /// Callbacks that lost their role and run on.
    pub(super) excess: usize,
    /// Callbacks that run in the heavy lane with a role.
    pub(super) heavy: usize,
    pub(super) jobs: Vec<Option<Job>>,
    /// Until when the monitor sleeps; `None`: until it is woken.
    pub(super) monitor_until: Option<Duration>,
    pub(super) monitor_asleep: bool,
    pub(super) stopping: bool,
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) key: Key,
    pub(super) began: Duration,
    /// Since when the guest runs without a break.
    pub(super) since: Duration,
    pub(super) waited: Duration,
    pub(super) holds: Holds,
    pub(super) waits: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Role(Lane),
    /// Lost its role.
    Nothing,
}

impl<W: Work> State<W> {
    /// No rooms, no threads, no roles.
    pub(super) fn new() -> Self {
        Self {
            sched: Sched::new(),
            free: [0, 0],
            idle: [0, 0],
            returning: Default::default(),
            tickets: 0,
            spares: 0,
            threads: 0,
            waiting: 0,
            excess: 0,
            heavy: 0,
            jobs: Vec::new(),
            monitor_until: None,
            monitor_asleep: false,
            stopping: false,
        }
    }

    /// More threads want a role of this lane back than there are free ones.
    pub(super) fn owed(&self, lane: Lane) -> bool {
        self.returning[lane as usize].len() > self.free[lane as usize]
    }

    /// There is a free role that nobody who comes back will take.
    pub(super) fn surplus(&self, lane: Lane) -> bool {
        self.free[lane as usize] > self.returning[lane as usize].len()
    }

    pub(super) fn begin(&mut self, key: Key, lane: Lane, now: Duration) -> usize {
        if lane == Lane::Heavy {
            self.heavy += 1;
        }
        let job = Job {
            key,
            began: now,
            since: now,
            waited: Duration::ZERO,
            holds: Holds::Role(lane),
            waits: false,
        };
        match self.jobs.iter().position(Option::is_none) {
            Some(at) => {
                self.jobs[at] = Some(job);
                at
            }
            None => {
                self.jobs.push(Some(job));
                self.jobs.len() - 1
            }
        }
    }

    pub(super) fn end(&mut self, at: usize, now: Duration, ran: &mut Ran) -> Option<Holds> {
        let job = self.jobs.get_mut(at)?.take()?;
        ran.took = now.saturating_sub(job.began).saturating_sub(job.waited);
        Some(job.holds)
    }

    /// When the monitor should look: at the next timer, and soon while anything runs in the light
    /// lane.
    pub(super) fn look_at(&self, now: Duration) -> Option<Duration> {
        let running = self
            .jobs
            .iter()
            .flatten()
            .any(|job| job.holds == Holds::Role(Lane::Light) && !job.waits);
        let look = running.then(|| now + LOOK);
        match (self.sched.next(), look) {
            (Some(timer), Some(look)) => Some(timer.min(look)),
            (timer, look) => timer.or(look),
        }
    }
}
