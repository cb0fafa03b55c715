//! One room, turn by turn: takes its mail, wakes its guest, ends it.
//!
//! A turn is at most one callback. The room's wake and its mail take turns with each other, so
//! that neither keeps the other waiting.

mod ending;
mod parking;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use cabinet_host::{
    Outcome, Player, RestoreError, Room, RoomConfig, Sck1, Seed, ServiceError, Skip, Snapshot,
};
use cabinet_wire::Lifecycle;
use tokio::sync::oneshot;

use crate::fault_report::FaultReport;
use crate::guest_services::GuestServices;
use crate::host_keys::{self, HostKey};
use crate::life::{Life, LifeRules, NotAdmitted, Verdict};
use crate::recorder::{Export, StoreOp};
use crate::room::{
    CheckpointError, Command, EndReason, Ending, HibernateError, JoinError, Phase, RoomShared,
    RoomStatus, Seat,
};
use crate::runtime::{Env, Parking, RoomSpec};
use crate::sched::Ran;

/// What a room begins with.
pub(crate) enum Origin {
    New,
    Snapshot(Box<Snapshot>),
    Sck1(Box<Sck1>),
}

pub(crate) struct Actor {
    env: Arc<Env>,
    shared: Arc<RoomShared>,
    stage: Stage,
    parking: Option<Arc<dyn Parking>>,
    /// Counts attempts to park, so that a late answer to an old one is told apart.
    attempt: u64,
    hibernating: Option<oneshot::Sender<Result<(), HibernateError>>>,
    /// Where in its period the room wakes: this part of 2^64.
    phase: u64,
    wake_due: Option<Duration>,
    /// The mail's turn comes before the wake's.
    mail_first: bool,
    /// A captured room is being had back: until that is done, it is still where it was.
    restoring: bool,
    /// The recorder was told that there is an instance.
    counted: bool,
    /// When this turn began.
    turned: Duration,
    /// Callbacks so far.
    callbacks: u64,
    /// Bytes of pages the last capture held.
    captured_bytes: usize,
    /// Linear memory as last told to the recorder.
    memory: u64,
    fault: Option<FaultReport>,
}

enum Stage {
    New(Box<(RoomSpec, Origin, GuestServices)>),
    Live(Box<Live>),
    Gone,
}

struct Live {
    room: Room,
    life: Life,
}

impl Actor {
    pub(crate) fn new(
        env: Arc<Env>,
        shared: Arc<RoomShared>,
        spec: RoomSpec,
        origin: Origin,
        services: GuestServices,
        phase: u64,
    ) -> Self {
        Self {
            env,
            shared,
            parking: spec.parking.clone(),
            stage: Stage::New(Box::new((spec, origin, services))),
            attempt: 0,
            hibernating: None,
            phase,
            wake_due: None,
            mail_first: false,
            restoring: false,
            counted: false,
            turned: Duration::ZERO,
            callbacks: 0,
            captured_bytes: 0,
            memory: 0,
            fault: None,
        }
    }

    /// One turn.
    pub(crate) fn turn(&mut self) -> Ran {
        let now = self.env.clock.now();
        self.turned = now;
        match std::mem::replace(&mut self.stage, Stage::Gone) {
            Stage::New(parts) => {
                let (spec, origin, services) = *parts;
                self.begin(now, spec, origin, services);
            }
            Stage::Live(mut live) => {
                if self.live(&mut live, now) {
                    self.stage = Stage::Live(live);
                }
            }
            Stage::Gone => {}
        }
        self.ran()
    }

    fn ran(&self) -> Ran {
        let (more, next, gone) = match &self.stage {
            Stage::New(_) => (true, None, false),
            Stage::Live(live) if live.life.is_parking() => {
                (self.shared.has_parked(), live.life.alarm(), false)
            }
            Stage::Live(live) => {
                let alarm = live.life.alarm();
                let next = self.wake_due.into_iter().chain(alarm).min();
                let due = next.is_some_and(|next| next <= self.env.clock.now());
                (due || self.shared.has_mail(), next, false)
            }
            Stage::Gone => (false, None, true),
        };
        Ran {
            took: Duration::ZERO,
            more,
            next,
            gone,
        }
    }

    /// Instantiates or restores the guest.
    fn begin(
        &mut self,
        now: Duration,
        spec: RoomSpec,
        origin: Origin,
        mut services: GuestServices,
    ) {
        let listed = Arc::clone(&self.shared.listed);
        let listing = listed.listing();
        let game = listed.game();
        let mut asked = services.set.config.is_some();
        let mut configured = |key: HostKey| {
            if !asked {
                return None;
            }
            let answer = self.configured(&mut services, key);
            // A store that does not answer once is not waited for again.
            asked = answer.is_ok();
            answer.ok().flatten()
        };
        let heartbeat = configured(HostKey::Heartbeat);
        let deadline = configured(HostKey::Deadline);
        let resident = configured(HostKey::Resident);
        let lifecycle = listing.lifecycle_of_new_room(host_keys::resident(resident.as_deref()));
        // A room that goes on is what it was when nobody can say what it is to be.
        let lifecycle = match spec.lifecycle {
            Some(kept) if !asked => kept,
            _ => lifecycle,
        };
        let deadline = host_keys::deadline(deadline.as_deref(), listing.deadline());

        let services = Box::new(services);
        let restored = !matches!(origin, Origin::New);
        self.restoring = restored;
        let room = match origin {
            Origin::New => {
                let mut config = RoomConfig::new(match spec.seed {
                    Some(seed) => Seed::Set(seed),
                    None => Seed::Drawn(spec.drawn_seed),
                });
                config.mode = spec.mode;
                config.capacity = spec.capacity.unwrap_or(listing.capacity());
                config.min_players = spec
                    .min_players
                    .unwrap_or(u32::from(game.meta().min_players));
                Ok(game.room(config, services))
            }
            Origin::Snapshot(snapshot) => {
                let room = game.restore(&snapshot, services);
                self.env.captures.give(snapshot.into_buffer());
                room
            }
            Origin::Sck1(blob) => {
                game.restore_sck1(&blob, lifecycle == Lifecycle::Resident, services)
            }
        };
        let mut room = match room {
            Ok(room) => room,
            Err(error) => return self.not_resumed(error),
        };
        if let Some(make) = &spec.observer {
            room.observe(make());
        }
        room.set_resident(lifecycle == Lifecycle::Resident);
        room.set_deadline(Some(deadline));
        if heartbeat.is_some() || !restored {
            let option = spec.heartbeat.unwrap_or_else(|| game.heartbeat());
            room.set_heartbeat(Some(host_keys::heartbeat(
                heartbeat.as_deref(),
                game.meta().heartbeat_ms,
                option,
            )));
        }
        // A room whose capture says nothing of it: who was there at its last callback.
        let mut roster = spec.roster;
        if restored {
            if roster.is_empty() {
                roster = room.last_roster();
            }
            // Whoever comes back joins.
            room.set_members(Vec::new());
        }
        let rules = LifeRules {
            lifecycle,
            capacity: room.config().capacity,
            grace: spec.grace.unwrap_or(self.env.grace),
            parks: self.parking.is_some(),
            park_within: self.env.park_within,
        };
        let mut live = Live {
            room,
            life: Life::new(rules, &spec.joined, roster),
        };
        self.env.recorder.rooms(self.shared.label(), 1);
        self.counted = true;
        if restored {
            self.measure(&live.room);
            if live.room.ended() {
                self.over(&mut live, EndReason::Game);
                return;
            }
            if let Some(Verdict::Abandon) = live.life.emptied(now) {
                // Nowhere to park, but it was asked for a moment ago: give it the grace.
                live.life.wait_for_players(now);
            }
        } else {
            let unix = self.env.clock.unix_nanos();
            let outcome = live.room.start(unix);
            if !self.settle_after(&mut live, Export::Start, &outcome) {
                return;
            }
        }
        self.arm_wake(&live, now);
        self.publish(&live);
        self.restoring = false;
        self.stage = Stage::Live(Box::new(live));
    }

    /// A `host.` key, as the operator set it.
    fn configured(
        &self,
        services: &mut GuestServices,
        key: HostKey,
    ) -> Result<Option<Vec<u8>>, ServiceError> {
        let slug = Arc::clone(&services.slug);
        let within = services.timeout;
        let answer = services.ask(StoreOp::ConfigGet, within, |set, reply| match &set.config {
            Some(config) => config.get(&slug, key.key().as_bytes(), reply),
            None => reply.send(Ok(None)),
        });
        answer.inspect_err(|error| {
            self.env
                .recorder
                .store_error(self.shared.label(), StoreOp::ConfigGet);
            tracing::warn!(
                slug = self.shared.listed.slug().as_str(), key = key.key(), %error,
                "cannot read a host setting; the room goes without"
            );
        })
    }

    fn not_resumed(&mut self, error: RestoreError) {
        tracing::warn!(
            slug = self.shared.listed.slug().as_str(), room = %self.shared.id, error = %error,
            "room not resumed"
        );
        let ending = Ending {
            reason: EndReason::NotResumed,
            result: None,
            fault: None,
            restore: Some(error),
        };
        self.finish(Phase::NotResumed, ending);
    }

    /// One thing a live room has to do. `false`: it is over.
    fn live(&mut self, live: &mut Live, now: Duration) -> bool {
        if live.life.is_parking() {
            return self.parking(live, now);
        }
        match live.life.due(now) {
            Some(Verdict::Abandon) => {
                return self.over(live, EndReason::Abandoned);
            }
            Some(Verdict::Park) => return self.park(live, now),
            None => {}
        }
        let wakes = self.wake_due.is_some_and(|due| due <= now);
        if wakes && !(self.mail_first && self.shared.has_mail()) {
            self.mail_first = true;
            return self.wake(live, now);
        }
        self.mail_first = false;
        match self.shared.take() {
            Some(command) => self.command(live, now, command),
            None => true,
        }
    }

    fn wake(&mut self, live: &mut Live, now: Duration) -> bool {
        let Some(due) = self.wake_due else {
            return true;
        };
        let label = self.shared.label();
        self.env.recorder.wake_late(label, now.saturating_sub(due));
        // As many periods as were missed are one wake: the last of them, at once.
        let period = live.room.heartbeat().max(Duration::from_millis(1));
        let mut next = due + period;
        if next <= now {
            let missed = (now - next).as_nanos() / period.as_nanos();
            // A million years of periods fit.
            let missed = u32::try_from(missed).unwrap_or(u32::MAX);
            next += period.saturating_mul(missed);
            if missed > 0 {
                self.env.recorder.wakes_skipped(label, missed.into());
            }
        }
        self.wake_due = Some(next);
        let unix = self.env.clock.unix_nanos();
        let _span = self.span(Export::Wake);
        let outcome = live.room.wake(unix);
        self.settle_after(live, Export::Wake, &outcome)
    }

    fn command(&mut self, live: &mut Live, now: Duration, command: Command) -> bool {
        match command {
            Command::Join { player, reply, .. } => self.join(live, now, player, reply),
            Command::Leave { player, reply } => {
                let stays = self.leave(live, now, &player);
                if let Some(reply) = reply {
                    // Whoever left may not wait to be told.
                    let _ = reply.send(());
                }
                stays
            }
            Command::Input {
                player,
                input,
                span,
                _permit,
            } => {
                let _within = span.entered();
                let _span = self.span(Export::Input);
                let label = self.shared.label();
                self.env.recorder.input_bytes_in(label, INPUT_BYTES);
                let unix = self.env.clock.unix_nanos();
                let outcome = live.room.input(unix, &player, input);
                self.settle_after(live, Export::Input, &outcome)
            }
            Command::Close => self.over(live, EndReason::Closed),
            Command::Footprint { reply, .. } => {
                // Whoever asked may not wait.
                let _ = reply.send(live.room.footprint());
                true
            }
            Command::Checkpoint { reply, .. } => {
                let taken = live.room.snapshot().map_err(CheckpointError::Capture);
                // Whoever asked may not wait.
                let _ = reply.send(taken);
                true
            }
            Command::Capture { reply, .. } => {
                let taken = self.capture(live).map_err(CheckpointError::Capture);
                if let Err(Ok(unwanted)) = reply.send(taken) {
                    // Whoever asked does not wait any more.
                    self.env.captures.give(unwanted.snapshot.into_buffer());
                }
                true
            }
            Command::Evict => {
                tracing::info!(
                    slug = self.shared.listed.slug().as_str(), room = %self.shared.id,
                    "room goes on elsewhere"
                );
                self.gone(Phase::Moved, EndReason::Moved, None, None);
                false
            }
            Command::Hibernate { reply, .. } => {
                if self.parking.is_none() {
                    let _ = reply.send(Err(HibernateError::NoParking));
                    return true;
                }
                self.hibernating = Some(reply);
                self.park(live, now)
            }
        }
    }

    fn join(
        &mut self,
        live: &mut Live,
        now: Duration,
        player: Player,
        reply: oneshot::Sender<Result<Seat, JoinError>>,
    ) -> bool {
        if reply.is_closed() {
            // Whoever asked has given up.
            return true;
        }
        let refused = match live.life.admits(live.room.members(), &player) {
            Ok(()) => None,
            Err(NotAdmitted::Full) => Some(JoinError::Full),
            Err(NotAdmitted::Already) => Some(JoinError::Already),
        };
        if let Some(error) = refused {
            let _ = reply.send(Err(error));
            return true;
        }
        let viewer = self.shared.screens.seat();
        let unix = self.env.clock.unix_nanos();
        let _span = self.span(Export::Join);
        let outcome = live.room.join(unix, player.clone());
        if let Outcome::Skipped(skip) = outcome {
            self.shared.screens.unseat(live.room.members().len());
            let error = match skip {
                Skip::RosterTooLarge => JoinError::RosterTooLarge,
                _ => JoinError::Closed,
            };
            let _ = reply.send(Err(error));
            return true;
        }
        live.life.joined(&player, live.room.members());
        self.publish_members(live);
        tracing::info!(
            slug = self.shared.listed.slug().as_str(), room = %self.shared.id,
            kind = ?player.kind, members = live.room.members().len(), "player joined"
        );
        if self.wake_due.is_none() {
            self.arm_wake(live, now);
        }
        let stays = self.settle_after(live, Export::Join, &outcome);
        // A seat that nobody takes is left, now or when the answer is dropped.
        let _ = reply.send(Ok(Seat::new(Arc::clone(&self.shared), player, viewer)));
        stays
    }

    fn leave(&mut self, live: &mut Live, now: Duration, player: &Player) -> bool {
        let Some(at) = live.room.members().iter().position(|one| one == player) else {
            return true;
        };
        self.shared.screens.unseat(at);
        live.life.leaving(live.room.members());
        let unix = self.env.clock.unix_nanos();
        let _span = self.span(Export::Leave);
        let outcome = live.room.leave(unix, player);
        self.publish_members(live);
        let empty = live.room.members().is_empty();
        tracing::info!(
            slug = self.shared.listed.slug().as_str(), room = %self.shared.id,
            members = live.room.members().len(), "player left"
        );
        if !self.settle_after(live, Export::Leave, &outcome) {
            return false;
        }
        if !empty {
            return true;
        }
        if live.life.rules().lifecycle != Lifecycle::Resident {
            self.wake_due = None;
        }
        let verdict = live.life.emptied(now);
        if live.life.alarm().is_some() {
            tracing::info!(
                slug = self.shared.listed.slug().as_str(), room = %self.shared.id,
                lifecycle = ?live.life.rules().lifecycle, grace = ?live.life.rules().grace,
                "room abandoned"
            );
        }
        match verdict {
            Some(_) => self.over(live, EndReason::Abandoned),
            None => true,
        }
    }

    /// Publishes what changed.
    fn publish(&self, live: &Live) {
        let members = live.room.members().len();
        let status = RoomStatus {
            phase: Phase::InPlay {
                open: !live.life.is_full(members),
            },
            members,
            input_context: live.room.input_context(),
            hibernatable: self.parking.is_some(),
            lifecycle: live.life.rules().lifecycle,
        };
        self.shared.status.send_if_modified(|published| {
            let changed = *published != status;
            *published = status;
            changed
        });
    }

    fn publish_members(&self, live: &Live) {
        let members: Arc<[Player]> = live.room.members().into();
        *self
            .shared
            .members
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = members;
    }

    /// Sets the next wake: the room's own moment in each of its periods.
    fn arm_wake(&mut self, live: &Live, now: Duration) {
        let resident = live.life.rules().lifecycle == Lifecycle::Resident;
        if live.room.members().is_empty() && !resident {
            self.wake_due = None;
            return;
        }
        self.wake_due = Some(next_moment(now, live.room.heartbeat(), self.phase));
    }

    fn span(&self, export: Export) -> tracing::span::EnteredSpan {
        tracing::debug_span!(
            target: "cabinet::room", "callback",
            slug = self.shared.listed.slug().as_str(), room = %self.shared.id,
            export = export.name()
        )
        .entered()
    }
}

/// Payload bytes of one key: roster index, kind, rune, key.
const INPUT_BYTES: u64 = 10;

/// The first time after `now` that lies `phase` (as part of 2^64) into a period.
fn next_moment(now: Duration, period: Duration, phase: u64) -> Duration {
    let period = period.as_nanos().max(1);
    let offset = (period * u128::from(phase)) >> 64;
    let now = now.as_nanos();
    let after = (now + period - offset) / period * period + offset;
    let after = if after > now { after } else { after + period };
    Duration::from_nanos(u64::try_from(after).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_room_keeps_its_moment_in_each_period_and_waits_at_most_one(
            now in 0u64..u64::MAX / 4, period_ms in 20u64..1_000, phase in any::<u64>(),
        ) {
            let (now, period) = (Duration::from_nanos(now), Duration::from_millis(period_ms));
            let first = next_moment(now, period, phase);
            prop_assert!(first > now && first - now <= period);
            prop_assert_eq!(next_moment(first, period, phase), first + period);
        }
    }
}
