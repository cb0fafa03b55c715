//! How a room is booked and how it ends: what a callback did is told to recorder and quarantine, and
//! whatever the end, whoever waits is told once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use cabinet_host::{CallReport, Fault, Outcome, Room, RoomResult};

use super::{Actor, Live, Stage};
use crate::blame::{Blame, Evidence};
use crate::fault_report::FaultReport;
use crate::life::Life;
use crate::quarantine::FaultVerdict;
use crate::recorder::Export;
use crate::room::{EndReason, Ending, HibernateError, Phase};
use crate::sched::Ran;

impl Actor {
    /// Host code panicked in this room.
    pub(crate) fn panicked(&mut self) -> Ran {
        tracing::error!(
            slug = self.shared.listed.slug().as_str(), room = %self.shared.id,
            "room actor panicked: settling the room"
        );
        // The room was lost with the panic; who was in it is known.
        let members = self.shared.members.lock();
        let members = Arc::clone(&members.unwrap_or_else(PoisonError::into_inner));
        let (phase, reason, result) = if self.restoring {
            (Phase::NotResumed, EndReason::NotResumed, None)
        } else {
            (Phase::Settled, EndReason::Host, Some(Life::lost(&members)))
        };
        let ending = |result| Ending {
            reason,
            result,
            fault: None,
            restore: None,
        };
        let booked = catch_unwind(AssertUnwindSafe(|| {
            self.env.recorder.host_fault(self.shared.label());
            self.book_gone();
            self.finish(phase, ending(result.clone()));
        }));
        if booked.is_err() {
            // It was the recorder that panicked, and does so again.
            let published = catch_unwind(AssertUnwindSafe(|| {
                self.publish_ending(phase, ending(result));
            }));
            if published.is_err() {
                tracing::error!(room = %self.shared.id, "a waker panicked");
            }
        }
        self.ran()
    }

    /// Books a callback and ends the room if it is over. `false`: it is.
    pub(super) fn settle_after(
        &mut self,
        live: &mut Live,
        export: Export,
        outcome: &Outcome,
    ) -> bool {
        self.book(live, export, outcome);
        let reason = match () {
            () if live.room.fault().is_some() => self.fault_reason(),
            () if live.room.ended() => EndReason::Game,
            () => {
                self.publish(live);
                return true;
            }
        };
        self.over(live, reason)
    }

    fn fault_reason(&self) -> EndReason {
        match self.fault.as_ref().map(FaultReport::blame) {
            Some(Blame::Guest) | None => EndReason::Fault,
            Some(_) => EndReason::Host,
        }
    }

    /// Tells recorder and quarantine what a callback did.
    fn book(&mut self, live: &mut Live, export: Export, outcome: &Outcome) {
        let Some(report) = outcome.report() else {
            return;
        };
        self.callbacks += 1;
        self.shared
            .callbacks
            .store(self.callbacks, Ordering::Relaxed);
        let step = self.callbacks;
        let label = self.shared.label();
        let took = report.guest_time + report.host_time;
        // No more than has passed in this turn by the runtime's clock, which lanes go by: where time is
        // virtual, the order of rooms must not depend on how busy the machine is.
        let passed = self.env.clock.now().saturating_sub(self.turned);
        let worked = took.saturating_sub(report.io_time);
        self.shared.listed.weight().note(worked.min(passed));
        self.env.recorder.callback(label, export, took);
        self.env.recorder.work(label, export, report);
        if report.frames > 0 {
            self.env.recorder.frame_bytes_out(label, report.bytes_out);
        }
        if let Outcome::Faulted(report) = outcome
            && let Some(fault) = live.room.fault().cloned()
        {
            self.faulted(live, export, report, fault, step);
        }
        self.measure(&live.room);
    }

    fn faulted(&mut self, live: &Live, export: Export, call: &CallReport, fault: Fault, step: u64) {
        let evidence = Evidence::of(&fault, self.env.cores);
        let evidence = match &self.env.witness {
            Some(witness) => {
                catch_unwind(AssertUnwindSafe(|| witness(&fault, evidence))).unwrap_or(evidence)
            }
            None => evidence,
        };
        let report = FaultReport {
            slug: self.shared.listed.slug().clone(),
            artifact: self.shared.listed.game().digest(),
            room: self.shared.id,
            export,
            step,
            room_clock: live.room.now(),
            call: Some(call.clone()),
            memory_bytes: live.room.memory_bytes(),
            fault,
            evidence,
        };
        let (label, recorder) = (self.shared.label(), &self.env.recorder);
        let blame = report.blame();
        match &report.fault {
            Fault::Deadline { .. } => {
                recorder.callback_deadline(label, export);
                if let Some(stolen) = evidence.stolen.filter(|stolen| !stolen.is_zero()) {
                    recorder.stolen(label, export, stolen);
                }
                if blame == Blame::Starved {
                    recorder.excused(label, export);
                }
            }
            Fault::HostIo { .. } => recorder.host_io_deadline(label, export),
            _ if blame == Blame::Host => recorder.host_fault(label),
            _ => {}
        }
        if blame.counts() {
            recorder.fault(label);
        }
        tracing::error!(
            slug = self.shared.listed.slug().as_str(), room = %self.shared.id,
            blame = blame.name(), "{report}"
        );
        self.fault = Some(report);
        if let Some(quarantine) = &self.env.quarantine {
            let now = self.env.clock.now();
            let verdict = quarantine.record_fault(&self.shared.listed, blame, now);
            if verdict == FaultVerdict::Quarantined {
                recorder.quarantined(label);
            }
        }
    }

    /// Tells how the linear memory changed.
    pub(super) fn measure(&mut self, room: &Room) {
        let memory = room.memory_bytes();
        if memory != self.memory {
            let delta = memory.wrapping_sub(self.memory).cast_signed();
            self.env.recorder.linear_memory(self.shared.label(), delta);
            self.memory = memory;
        }
    }

    pub(super) fn over(&mut self, live: &mut Live, reason: EndReason) -> bool {
        self.close(live, reason);
        false
    }

    /// Settles the room: the result is final, the guest is told and freed.
    fn close(&mut self, live: &mut Live, reason: EndReason) {
        let result = live.result();
        let unix = self.env.clock.unix_nanos();
        let outcome = {
            let _span = self.span(Export::Close);
            live.room.close(unix)
        };
        self.book(live, Export::Close, &outcome);
        tracing::info!(
            slug = self.shared.listed.slug().as_str(), room = %self.shared.id,
            reason = reason.name(), joined = live.life.joined_count(), "room settled"
        );
        let fault = self.fault.take();
        self.gone(Phase::Settled, reason, Some(result), fault);
    }

    /// Books the instance as gone and publishes the ending.
    pub(super) fn gone(
        &mut self,
        phase: Phase,
        reason: EndReason,
        result: Option<RoomResult>,
        fault: Option<FaultReport>,
    ) {
        self.book_gone();
        let ending = Ending {
            reason,
            result,
            fault,
            restore: None,
        };
        self.finish(phase, ending);
    }

    /// The instance is gone.
    fn book_gone(&mut self) {
        let label = self.shared.label();
        let memory = std::mem::take(&mut self.memory);
        if memory > 0 {
            let delta = 0_u64.wrapping_sub(memory).cast_signed();
            self.env.recorder.linear_memory(label, delta);
        }
        if std::mem::take(&mut self.counted) {
            self.env.recorder.rooms(label, -1);
        }
    }

    pub(super) fn finish(&mut self, phase: Phase, ending: Ending) {
        let reason = ending.reason.name();
        self.env.recorder.room_ended(self.shared.label(), reason);
        self.publish_ending(phase, ending);
    }

    fn publish_ending(&mut self, phase: Phase, ending: Ending) {
        // Whoever is told that the room is over, by whatever means, finds its id free and its
        // ending known.
        self.env.forget(self.shared.id);
        // Settled once: whoever comes second finds it set.
        let _ = self.shared.ending.set(Arc::new(ending));
        self.shared.status.send_modify(|status| {
            status.phase = phase;
            status.hibernatable = false;
        });
        self.shared.close_mail();
        self.shared.screens.close();
        if let Some(reply) = self.hibernating.take() {
            let _ = reply.send(Err(HibernateError::Closed));
        }
        self.stage = Stage::Gone;
    }
}

impl Live {
    /// The room's result as it stands: the game's, else an empty one, filled up.
    fn result(&self) -> RoomResult {
        self.life
            .result(self.room.result().cloned().unwrap_or(RoomResult {
                mode: self.room.config().mode,
                standings: Vec::new(),
                round_seq: 0,
            }))
    }
}

impl Drop for Actor {
    /// A runtime that is dropped without a shutdown takes its rooms with it: their guests are not
    /// called any more, but whoever waits is told.
    fn drop(&mut self) {
        let dropped = catch_unwind(AssertUnwindSafe(|| self.left_behind()));
        if dropped.is_err() {
            tracing::error!(room = %self.shared.id, "a recorder or a waker panicked");
        }
    }
}

impl Actor {
    fn left_behind(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Gone) {
            Stage::Live(live) => {
                self.gone(Phase::Settled, EndReason::Closed, Some(live.result()), None);
            }
            Stage::New(_) => {
                let ending = Ending {
                    reason: EndReason::Closed,
                    result: None,
                    fault: None,
                    restore: None,
                };
                self.finish(Phase::Settled, ending);
            }
            Stage::Gone => {}
        }
    }
}
