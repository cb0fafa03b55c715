//! What host functions and the room both work on: the room's state outside the guest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cabinet_wire::{LogLevel, Mode};

use crate::entropy::Entropy;
use crate::host::HostShared;
use crate::kernel::Kernel;
use crate::logcap::{LogCap, LogVerdict};
use crate::memory::{RawGlobal, RawMemory};
use crate::observe::Observer;
use crate::player::Player;
use crate::services::{LogSource, RoomResult, ServiceError, Services};
use crate::slots::Slots;
use crate::watchdog::{Ticket, Waiting};

/// State of a room that host functions change.
pub(crate) struct Shared {
    pub(crate) services: Box<dyn Services>,
    pub(crate) observer: Option<Box<dyn Observer>>,
    pub(crate) kernel: Kernel,
    /// The guest's memory, once instantiated.
    pub(crate) guest: Option<RawMemory>,
    /// The instance's fuel and stop cells, for host functions whose work grows with an argument.
    pub(crate) fuel: Option<RawGlobal>,
    pub(crate) limit: Option<RawGlobal>,
    pub(crate) slots: Slots,
    pub(crate) entropy: Entropy,
    log_cap: LogCap,
    /// Where the log budget's clock starts; real time, as the budget protects the host.
    log_epoch: Instant,
    /// Live members, in join order.
    pub(crate) members: Vec<Player>,
    /// During `leave` and until the next callback: the player who left, the roster's last entry.
    pub(crate) departed: Option<Player>,
    /// A room callback is on the stack: effects count.
    pub(crate) in_callback: bool,
    /// The room clock, frozen during a callback. Unix nanoseconds.
    pub(crate) now: i64,
    pub(crate) mode: Mode,
    pub(crate) input_context: u8,
    pub(crate) ended: bool,
    pub(crate) settled: bool,
    pub(crate) result: Option<RoomResult>,
    pub(crate) post_seq: u32,
    pub(crate) tally: Tally,
    pub(crate) io: Io,
}

/// Counts of one callback.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) host_time: Duration,
    /// When the game function under way was entered, for the observer.
    pub(crate) call_began: Option<Instant>,
    pub(crate) io_time: Duration,
    pub(crate) frames: u32,
    pub(crate) bytes_out: u64,
    pub(crate) host_calls: u32,
    pub(crate) posts: u32,
    pub(crate) store_calls: u32,
    /// Waiting for a turn to run, part of `host_time` and nobody's.
    pub(crate) turn_wait: Duration,
    /// Time in store calls in which the process stood still, likewise.
    pub(crate) stood_still: Duration,
    /// Waiting for stores that ran down the guest's own deadline.
    pub(crate) charged_wait: Duration,
}

/// The running callback's deadline, which does not run down while it waits for stores.
pub(crate) struct Io {
    pub(crate) ceiling: Duration,
    pub(crate) watch: Option<Watch>,
}

/// The watchdog entry of the running callback.
pub(crate) struct Watch {
    pub(crate) host: Arc<HostShared>,
    pub(crate) ticket: Ticket,
}

/// Why a store call did not happen or must end the callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IoStop {
    /// The deadline had passed before.
    #[error("the deadline had passed")]
    Late,
    /// The ceiling is used up.
    #[error("the callback's I/O ceiling is used up")]
    Ceiling,
    /// The work budget is used up.
    #[error("the work budget is used up")]
    Budget,
    /// The payload does not fit the kernel's memory.
    #[error("the payload does not fit the kernel")]
    Payload,
}

/// Fuel of one call into the host, and of 64 bytes it moves, in operators: about what the same
/// work takes in guest code.
const CALL_FUEL: u64 = 64;
/// Store calls per callback whose waiting is not the guest's: one that makes more pays for them
/// with its own deadline, so that a flood of calls is its own fault.
const STORE_CALLS_EXEMPT: u32 = 256;

impl Shared {
    pub(crate) fn new(services: Box<dyn Services>, io_ceiling: Duration) -> Self {
        Self {
            services,
            observer: None,
            kernel: Kernel::new(),
            guest: None,
            fuel: None,
            limit: None,
            slots: Slots::new(),
            entropy: Entropy::new(0),
            log_cap: LogCap::new(),
            log_epoch: Instant::now(),
            members: Vec::new(),
            departed: None,
            in_callback: false,
            now: 0,
            mode: Mode::Quick,
            input_context: 0,
            ended: false,
            settled: false,
            result: None,
            post_seq: 0,
            tally: Tally::default(),
            io: Io {
                ceiling: io_ceiling,
                watch: None,
            },
        }
    }

    /// Lets go of everything that points into the instance, which is about to be dropped.
    pub(crate) fn detach(&mut self) {
        self.guest = None;
        self.fuel = None;
        self.limit = None;
        self.kernel = Kernel::new();
        self.io.watch = None;
    }

    /// Whether the running callback was told to stop.
    pub(crate) fn stopped(&self) -> bool {
        self.limit.is_some_and(|limit| limit.get_i64() != 0)
    }

    /// Charges a call into the host that moves `bytes`, and refuses it when the callback was told
    /// to stop or has burned its budget.
    pub(crate) fn charge(&mut self, bytes: u64) -> Result<(), IoStop> {
        if self.stopped() {
            return Err(IoStop::Late);
        }
        let Some(fuel) = self.fuel else {
            return Ok(());
        };
        let cost = i64::try_from(CALL_FUEL + bytes / 64).unwrap_or(i64::MAX);
        let left = fuel.get_i64().saturating_sub(cost);
        fuel.set_i64(left);
        if left < 0 {
            Err(IoStop::Budget)
        } else {
            Ok(())
        }
    }

    /// Starts the entropy stream over from `seed`.
    pub(crate) fn reseed(&mut self, seed: i64) {
        self.entropy = Entropy::new(seed);
    }

    /// The roster of the last callback: the members and, after a `leave`, who left.
    pub(crate) fn roster(&self) -> Vec<Player> {
        self.members
            .iter()
            .chain(self.departed.as_ref())
            .cloned()
            .collect()
    }

    /// Entries of the callback roster.
    pub(crate) fn roster_len(&self) -> usize {
        self.members.len() + usize::from(self.departed.is_some())
    }

    /// The callback roster's entry at `index`.
    pub(crate) fn roster_at(&self, index: usize) -> Option<&Player> {
        self.members.get(index).or_else(|| {
            (index == self.members.len())
                .then_some(self.departed.as_ref())
                .flatten()
        })
    }

    /// The guest's log record in the kernel block at `at`.
    pub(crate) fn log_from_kernel(&mut self, level: LogLevel, at: i64) {
        let message = self.kernel.read(at).unwrap_or(&[]);
        write_log(
            self.services.as_mut(),
            self.log_cap.admit(self.log_epoch.elapsed(), message),
            (level, LogSource::Guest),
        );
    }

    /// What the guest wrote to stdout or stderr, in its own memory. `false`: not in its memory.
    pub(crate) fn log_from_guest(&mut self, at: u64, len: u64) -> bool {
        let Some(message) = self.guest.as_ref().and_then(|guest| guest.get(at, len)) else {
            return false;
        };
        write_log(
            self.services.as_mut(),
            self.log_cap.admit(self.log_epoch.elapsed(), message),
            (LogLevel::Debug, LogSource::Stdio),
        );
        true
    }

    /// Tells the room's log something the guest did, within the guest's budget: a loop of it would
    /// flood the log like any other.
    pub(crate) fn host_log(&mut self, level: LogLevel, message: &str) {
        write_log(
            self.services.as_mut(),
            self.log_cap
                .admit(self.log_epoch.elapsed(), message.as_bytes()),
            (level, LogSource::Host),
        );
    }

    /// What a store answered, for the guest: a failure is reported and reads as nothing.
    pub(crate) fn or_report<T>(
        &mut self,
        operation: &'static str,
        answer: Result<T, ServiceError>,
    ) -> Option<T> {
        match answer {
            Ok(value) => Some(value),
            Err(error) => {
                self.services.store_failed(operation, &error);
                self.host_log(LogLevel::Error, &format!("{operation} failed: {error}"));
                None
            }
        }
    }
}

impl Io {
    /// Runs one store call. The deadline's clock stands still meanwhile, for the first calls of a
    /// callback; a guest that makes more pays for them, and is killed while it waits.
    pub(crate) fn call<T>(
        &mut self,
        tally: &mut Tally,
        services: &mut dyn Services,
        call: impl FnOnce(&mut dyn Services, Duration) -> Result<T, ServiceError>,
    ) -> Result<Result<T, ServiceError>, IoStop> {
        let left = self.ceiling.saturating_sub(tally.io_time);
        if left.is_zero() {
            return Err(IoStop::Ceiling);
        }
        let waiting = if tally.store_calls < STORE_CALLS_EXEMPT {
            Waiting::Free
        } else {
            Waiting::Charged
        };
        if let Some(watch) = &self.watch
            && watch.host.watchdog.enter_store(watch.ticket, waiting)
        {
            return Err(IoStop::Late);
        }
        let began = Instant::now();
        let answer = call(services, left);
        let took = began.elapsed();
        let stood_still = self.watch.as_ref().map_or(Duration::ZERO, |watch| {
            watch.host.watchdog.leave_store(watch.ticket).min(took)
        });
        let took = took - stood_still;
        let turn_wait = services.turn_wait().min(took);
        tally.stood_still += stood_still;
        tally.turn_wait += turn_wait;
        tally.io_time += took - turn_wait;
        tally.store_calls = tally.store_calls.saturating_add(1);
        if waiting == Waiting::Charged {
            tally.charged_wait += took;
        }
        if tally.io_time > self.ceiling {
            return Err(IoStop::Ceiling);
        }
        Ok(answer)
    }
}

fn write_log(
    services: &mut dyn Services,
    verdict: LogVerdict<'_>,
    (level, source): (LogLevel, LogSource),
) {
    match verdict {
        LogVerdict::Pass(message) => services.log(level, source, &message),
        LogVerdict::DropFirst => services.log(
            LogLevel::Warn,
            LogSource::Host,
            b"guest log output rate-limited",
        ),
        LogVerdict::Drop => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Host, HostOptions};
    use crate::services::NoServices;

    /// Of a store call that counts or not, and in which the process was stopped: what it came to.
    fn stopped_in_a_store_call(earlier: u32) -> (Result<(), IoStop>, Tally, Duration) {
        let host = Host::new(HostOptions::default()).unwrap().shared;
        let ticket = host.watchdog.arm_nothing(Duration::from_secs(3_600));
        let mut io = Io {
            ceiling: Duration::from_secs(3),
            watch: Some(Watch {
                host: Arc::clone(&host),
                ticket,
            }),
        };
        let mut tally = Tally {
            store_calls: earlier,
            ..Tally::default()
        };
        let answer = io.call(&mut tally, &mut NoServices, |_, _| {
            // As if it were stopped: the thread cannot look.
            host.watchdog
                .hold(|| std::thread::sleep(Duration::from_secs(4)));
            Ok(())
        });
        let wall = host.watchdog.disarm(ticket).wall;
        (answer.map(Result::unwrap), tally, wall)
    }

    #[test]
    fn a_stop_in_a_store_call_is_nobodys_waiting() {
        for earlier in [0, STORE_CALLS_EXEMPT] {
            let (answer, tally, wall) = stopped_in_a_store_call(earlier);
            assert_eq!(answer, Ok(()));
            for (name, time) in [
                ("io", tally.io_time),
                ("charged", tally.charged_wait),
                ("wall", wall),
            ] {
                assert!(time < Duration::from_secs(2), "{name}: {time:?}");
            }
            assert!(tally.stood_still > Duration::from_secs(2));
        }
    }
}
