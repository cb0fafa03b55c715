//! What openraft does, seen from outside: a node's status, its numbers and its trace.
//!
//! Invariants
//! - a status, a trace and the halves of snapshots that arrive change in one place, in one order;
//! - a leader that no majority has answered within the lease is not called one, and is hushed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::Instant as _;
use openraft::ServerState;
use openraft_rt::watch::WatchReceiver as _;

use super::super::{ChangeError, Progress, RaftNumbers, RaftStatus, Role, Tracer};
use super::answered::Answered;
use super::arrivals::Arrivals;
use super::handover::Handing;
use super::quorum::{Heard, Hush, Pending};
use super::refusals::Refusals;
use super::{Raft, machine, stopped, types};
use crate::log::LogStore;
use crate::watch;

/// What is told of a node beside its status.
#[derive(Clone)]
pub(super) struct Told {
    log: Arc<dyn LogStore>,
    too_large: machine::TooLarge,
    tracer: Arc<Mutex<Tracer>>,
    /// The number of the last entry of the trace.
    pub(super) traced: watch::Sender<u64>,
    /// The term this node leads in and the first entry of it, once one of that term is committed.
    term_start: Arc<Mutex<Option<(u64, u64)>>>,
    pending: Arc<Mutex<Pending>>,
}

impl Told {
    pub(super) fn new(log: Arc<dyn LogStore>, too_large: machine::TooLarge) -> Self {
        Self {
            log,
            too_large,
            tracer: Arc::default(),
            traced: watch::channel(0).0,
            term_start: Arc::default(),
            pending: Arc::default(),
        }
    }

    pub(super) fn tracer(&self) -> MutexGuard<'_, Tracer> {
        self.tracer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the members have been in the log without being known to be committed.
    pub(super) fn change_pending(&self, now: Duration) -> Option<Duration> {
        self.pending().since(now)
    }

    pub(super) fn look(&self, at: Duration, raft: &Raft, status: &RaftStatus) {
        let from = self.committed_from(raft).map(|index| index + 1);
        let numbers = numbers_of(raft, &self.too_large);
        let committed = status.membership_committed;
        self.pending().look(at, status.membership_index, committed);
        let mut tracer = self.tracer();
        if tracer.look(at, status, &numbers, from) {
            self.traced.set(tracer.last());
        }
    }

    /// The first entry of the term this node leads in, if an entry of that term is committed.
    pub(super) fn committed_from(&self, raft: &Raft) -> Option<u64> {
        let (term, committed, purged) = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let committed = metrics.local_committed.as_ref().map(types::position)?;
            let leads = metrics.state == ServerState::Leader && metrics.running_state.is_ok();
            if !leads || committed.term != metrics.current_term {
                return None;
            }
            let purged = metrics.purged.as_ref().map_or(0, |id| id.index + 1);
            (committed.term, committed.index, purged)
        };
        let mut known = self
            .term_start
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((of, start)) = *known
            && of == term
        {
            return Some(start);
        }
        // Terms never fall along the log.
        let (mut low, mut high) = (purged, committed);
        while low < high {
            let middle = low + (high - low) / 2;
            let records = self.log.read(middle, middle + 1).ok();
            let reached = records
                .and_then(|records| records.first().map(|record| record.at.term))
                .is_some_and(|of| of >= term);
            if reached {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        *known = Some((term, low));
        Some(low)
    }
}

pub(super) fn numbers_of(raft: &Raft, too_large: &machine::TooLarge) -> RaftNumbers {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let index = |id: &Option<types::Id>| id.as_ref().map(|id| id.index);
    let mut progress = super::super::ProgressMap::new();
    for (node, matched) in metrics.replication.iter().flatten() {
        let acked = metrics
            .heartbeat
            .as_ref()
            .and_then(|acks| acks.get(node)?.as_ref().map(|at| at.elapsed()));
        progress.insert(
            node.clone(),
            Progress {
                matched: index(matched),
                acked,
            },
        );
    }
    RaftNumbers {
        last: metrics.last_log_index,
        committed: index(&metrics.local_committed),
        applied: index(&metrics.last_applied),
        snapshot: index(&metrics.snapshot),
        purged: index(&metrics.purged),
        progress,
        quorum_acked: metrics.last_quorum_acked.as_ref().map(|at| at.elapsed()),
        snapshot_too_large: too_large.bytes(),
    }
}

/// Whether the members are still those of entry `index`, which a change was decided on, and this
/// node one of them. openraft lets a leader that was removed go on for a while, and a debug build of
/// it panics when that one changes the members.
pub(super) fn still_so(raft: &Raft, index: u64) -> Result<(), ChangeError> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let effective = &metrics.membership_config;
    if !types::membership(effective.membership()).contains(&metrics.id) {
        return Err(ChangeError::NotLeader);
    }
    let now = effective.log_id().map_or(0, |id| id.index);
    if now != index {
        return Err(ChangeError::InProgress);
    }
    Ok(())
}

/// Keeps the status in step with openraft's own, and what arrives with the members.
pub(super) struct Follow {
    pub(super) raft: Raft,
    pub(super) status: watch::Sender<RaftStatus>,
    pub(super) leads: Arc<AtomicBool>,
    pub(super) refusals: Refusals,
    pub(super) answered: Answered,
    pub(super) arrivals: Arc<Mutex<Arrivals>>,
    pub(super) began: tokio::time::Instant,
    pub(super) again: Duration,
    pub(super) lease: Duration,
    pub(super) led: Led,
    pub(super) hush: Hush,
    pub(super) handing: Handing,
    pub(super) told: Told,
}

impl Follow {
    pub(super) async fn run(mut self) {
        let mut changes = self.raft.server_metrics();
        let mut refused = self.refusals.changes();
        loop {
            let status = self.led.status_of(&self.raft, &self.refusals, self.lease);
            // Who hands over sends no heartbeats either: its entries are all that is heard of it, and the
            // next leader may need them to be elected.
            let hands_over =
                (self.handing.borrow().as_ref()).is_some_and(|(of, _)| *of == status.term);
            self.hush
                .set(status.role == Role::StaleLeader && !hands_over);
            self.refusals.keep_to(&status);
            self.answered.keep_to(&status.membership);
            self.arrivals
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .sweep(&status.membership.voters, self.began.elapsed());
            self.told.look(self.began.elapsed(), &self.raft, &status);
            let is_leader = status.role == Role::Leader && status.stopped.is_none();
            self.leads.store(is_leader, Ordering::Release);
            self.status.set_if_new(status);
            // openraft wakes who watches the server's part before it publishes the whole that is
            // read here: what was missed is seen a heartbeat later. So is a leader nobody answers.
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() { break },
                _ = refused.changed() => {}
                () = tokio::time::sleep(self.again) => {}
            }
        }
        self.leads.store(false, Ordering::Release);
        self.status.modify(|status| {
            let first = status.stopped.is_none();
            if first {
                status.stopped = Some("it was shut down".to_owned());
            }
            first
        });
        let last = self.status.borrow().clone();
        self.told.look(self.began.elapsed(), &self.raft, &last);
    }
}

/// Since when this node leads: the majority that voted for it counts as having answered then.
#[derive(Default)]
pub(super) struct Led(Option<(u64, tokio::time::Instant)>);

impl Led {
    pub(super) fn status_of(
        &mut self,
        raft: &Raft,
        refusals: &Refusals,
        lease: Duration,
    ) -> RaftStatus {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let effective = &metrics.membership_config;
        let membership = types::membership(effective.membership());
        let role = match metrics.state {
            ServerState::Leader => {
                let term = metrics.current_term;
                let led = self.0.filter(|(led, _)| *led == term);
                let (_, since) = *self
                    .0
                    .insert(led.unwrap_or_else(|| (term, tokio::time::Instant::now())));
                let heard = Heard {
                    acked: metrics.last_quorum_acked.as_ref().map(|at| at.elapsed()),
                    led: since.elapsed(),
                    alone: !membership.is_joint() && membership.voters.iter().eq([&metrics.id]),
                };
                if heard.is_confirmed(lease) {
                    Role::Leader
                } else {
                    Role::StaleLeader
                }
            }
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            _ => Role::Learner,
        };
        if !role.leads() {
            self.0 = None;
        }
        RaftStatus {
            role,
            term: metrics.current_term,
            leader: metrics.current_leader.clone(),
            membership: Arc::new(membership),
            membership_index: effective.log_id().map_or(0, |id| id.index),
            membership_committed: *effective == metrics.committed_membership_config,
            snapshots_refused: Arc::new(refusals.all()),
            stopped: metrics.running_state.as_ref().err().map(stopped),
        }
    }
}
