//! One room, called by hand.
//!
//! A room is one guest instance and the state the host keeps for it. Nothing here has a thread or
//! a timer: the caller says what happened and what time it is, the room calls the guest and says
//! what came of it. Calls are made on the caller's thread and return when the guest does, at the
//! latest when its deadline kills it; never make them from an async executor's worker, and make no
//! more at once than there are cores.
//!
//! Order, as a guest sees it: `start`, then any of join, leave, input and wake, then `close`.
//!
//! Invariants
//! - the room clock never goes back;
//! - the guest never sees a roster other than the one indices refer to;
//! - a fault is final: the guest is not called again.

pub(crate) mod capture;
mod config;
pub(crate) mod core;
pub(crate) mod link;
pub(crate) mod restore;
pub(crate) mod roster;
pub(crate) mod shared;
pub(crate) mod user;
pub(crate) mod wasi;

use std::sync::Arc;
use std::time::Duration;

use cabinet_wire::ctx;
use cabinet_wire::input::{self, Input};

use crate::fault::{CallReport, Fault, Outcome, Skip};
use crate::frame::Frame;
use crate::game::GameInner;
use crate::observe::Observer;
use crate::player::Player;
use crate::services::{NoServices, RoomResult, Services};

pub use self::config::{NoRandomness, RoomConfig, Seed};
use self::core::{Core, Ended};
use self::roster::Roster;
use self::shared::{Shared, Tally};

/// Which frame to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// What the player at this roster index was last sent.
    Member(usize),
    /// What everyone was last sent.
    Broadcast,
}

/// A room, called by hand.
///
/// `Send`: it may be called from different threads, one at a time.
pub struct Room {
    game: Arc<GameInner>,
    config: RoomConfig,
    state: State,
    roster: Roster,
    payload: Vec<u8>,
    fault: Option<Fault>,
    last: Option<CallReport>,
    totals: Totals,
}

/// Memory of a room that is in RAM, by what it is for. What the engine keeps for an instance and
/// what the room's services keep is not in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Linear memory the guest touched.
    pub guest_bytes: u64,
    /// The kernel's memory, through which payloads pass.
    pub kernel_bytes: u64,
    /// Rows of the frame baselines, those that are shared once.
    pub frame_bytes: u64,
}

/// Sums over the room's life, this process's part.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Wall time in guest code.
    pub guest_time: Duration,
    /// Wall time in host functions.
    pub host_time: Duration,
    /// Fuel burned; carried through restores.
    pub fuel: u64,
}

enum State {
    /// Not instantiated yet.
    New(Box<Shared>),
    Live(Box<Core>),
    /// Closed: the instance is gone, the record stays.
    Closed(Box<Shared>),
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room")
            .field("game", &self.game.digest)
            .field("members", &self.members().len())
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

/// What follows the context in a payload.
enum Extra<'a> {
    Nothing,
    Seat(u32),
    Input(u32, &'a Input),
}

impl Room {
    pub(crate) fn new(
        game: Arc<GameInner>,
        config: RoomConfig,
        services: Box<dyn Services>,
    ) -> Self {
        let mut shared = Shared::new(services, game.options.io_ceiling);
        shared.mode = config.mode;
        shared.reseed(config.seed.value());
        Self {
            roster: Roster::new(game.features()),
            game,
            config,
            state: State::New(Box::new(shared)),
            payload: Vec::new(),
            fault: None,
            last: None,
            totals: Totals::default(),
        }
    }

    /// Instantiates the guest and calls `start`. Once, before anything else.
    pub fn start(&mut self, now: i64) -> Outcome {
        if self.fault.is_some() {
            return Outcome::Skipped(Skip::Dead);
        }
        let State::New(shared) = &mut self.state else {
            return Outcome::Skipped(match self.state {
                State::Closed(_) => Skip::Dead,
                _ => Skip::AlreadyStarted,
            });
        };
        shared.now = now;
        let shared = std::mem::replace(shared.as_mut(), hollow());
        let mut core = match Core::build(&self.game, shared) {
            Ok(core) => core,
            Err(message) => {
                return self.faulted("start", 1, Fault::Instantiation { message });
            }
        };
        let section = core.run_start(&self.game, self.deadline());
        self.state = State::Live(Box::new(core));
        if let Some(ended) = section
            && let Outcome::Faulted(report) = self.conclude("start", ended)
        {
            return Outcome::Faulted(report);
        }
        self.invoke("start", now, Extra::Nothing)
    }

    /// Adds a player and tells the guest.
    pub fn join(&mut self, now: i64, player: Player) -> Outcome {
        if let Some(skip) = self.refuses_calls() {
            return Outcome::Skipped(skip);
        }
        if self.members().contains(&player) {
            return Outcome::Skipped(Skip::AlreadyMember);
        }
        let shared = self.shared_mut();
        shared.departed = None;
        shared.members.push(player);
        let seat = shared.members.len() - 1;
        self.roster.members_changed();
        let outcome = self.invoke_seat("join", now, seat);
        if outcome == Outcome::Skipped(Skip::RosterTooLarge) {
            self.shared_mut().members.pop();
            self.roster.members_changed();
        }
        outcome
    }

    /// Removes a player and tells the guest, for which the player is the roster's last entry
    /// during this one callback.
    pub fn leave(&mut self, now: i64, player: &Player) -> Outcome {
        if let Some(skip) = self.refuses_calls() {
            return Outcome::Skipped(skip);
        }
        let Some(at) = self.members().iter().position(|member| member == player) else {
            return Outcome::Skipped(Skip::NotMember);
        };
        let shared = self.shared_mut();
        let departed = shared.members.remove(at);
        shared.departed = Some(departed);
        let seat = shared.members.len();
        self.roster.members_changed();
        self.invoke_seat("leave", now, seat)
    }

    /// Passes a player's key press to the guest.
    pub fn input(&mut self, now: i64, player: &Player, input: Input) -> Outcome {
        if let Some(skip) = self.refuses_calls() {
            return Outcome::Skipped(skip);
        }
        let Some(seat) = self.members().iter().position(|member| member == player) else {
            return Outcome::Skipped(Skip::NotMember);
        };
        self.invoke("input", now, Extra::Input(seat as u32, &input))
    }

    /// The heartbeat. An empty room does not wake unless it is resident.
    pub fn wake(&mut self, now: i64) -> Outcome {
        if let Some(skip) = self.refuses_calls() {
            return Outcome::Skipped(skip);
        }
        if self.members().is_empty() && !self.config.resident {
            return Outcome::Skipped(Skip::Empty);
        }
        self.invoke("wake", now, Extra::Nothing)
    }

    /// Settles the room, calls `close` if the guest is alive, and frees the instance.
    pub fn close(&mut self, now: i64) -> Outcome {
        self.settle();
        let outcome = match self.refuses_calls() {
            Some(skip) => Outcome::Skipped(skip),
            None => self.invoke("close", now, Extra::Nothing),
        };
        if !matches!(self.state, State::Closed(_)) {
            let mut shared = std::mem::replace(self.shared_mut(), hollow());
            shared.detach();
            self.state = State::Closed(Box::new(shared));
        }
        outcome
    }

    /// Marks the result as final: the guest sees `settled` from now on and its frames go nowhere.
    pub fn settle(&mut self) {
        self.shared_mut().settled = true;
    }

    /// The fault that killed the room.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// Whether the guest will never be called again.
    pub fn dead(&self) -> bool {
        self.fault.is_some() || matches!(self.state, State::Closed(_))
    }

    /// Whether the guest has called `end`.
    pub fn ended(&self) -> bool {
        self.shared().ended
    }

    /// Whether the result is final.
    pub fn settled(&self) -> bool {
        self.shared().settled
    }

    /// The result of the guest's first `end`.
    pub fn result(&self) -> Option<&RoomResult> {
        self.shared().result.as_ref()
    }

    /// Live members, in join order: the roster of the next callback.
    pub fn members(&self) -> &[Player] {
        &self.shared().members
    }

    /// Replaces the live members without telling the guest by a callback; the next callback
    /// carries the new roster. For a room restored while players came and went.
    pub fn set_members(&mut self, members: Vec<Player>) {
        let shared = self.shared_mut();
        shared.members = members;
        shared.departed = None;
        self.roster.members_changed();
    }

    /// The roster of the last callback: the members and, after a `leave`, who left.
    pub fn last_roster(&self) -> Vec<Player> {
        self.shared().roster()
    }

    /// The input context the guest last set; 0 (navigation) at first.
    pub fn input_context(&self) -> u8 {
        self.shared().input_context
    }

    /// What the room was made with.
    pub fn config(&self) -> &RoomConfig {
        &self.config
    }

    /// The room clock: Unix nanoseconds of the last callback.
    pub fn now(&self) -> i64 {
        self.shared().now
    }

    /// The callback deadline in force.
    pub fn deadline(&self) -> Duration {
        self.config.deadline.unwrap_or(self.game.options.deadline)
    }

    /// Overrides the callback deadline from the next call on, or with `None` returns to the
    /// game's. Not the guest's to see; for an embedder who does not trust what a snapshot says.
    pub fn set_deadline(&mut self, deadline: Option<Duration>) {
        self.config.deadline = deadline;
    }

    /// Says whether the room wakes with nobody in it, from the next call on. Not the guest's to
    /// see; for a room restored under another rule than it was captured under.
    pub fn set_resident(&mut self, resident: bool) {
        self.config.resident = resident;
    }

    /// Overrides the wake cadence, or with `None` returns to the game's.
    pub fn set_heartbeat(&mut self, heartbeat: Option<Duration>) {
        self.config.heartbeat = heartbeat;
    }

    /// The wake cadence in force.
    pub fn heartbeat(&self) -> Duration {
        self.config.heartbeat.unwrap_or_else(|| {
            crate::Game {
                inner: Arc::clone(&self.game),
            }
            .heartbeat()
        })
    }

    /// The last call's report.
    pub fn last_call(&self) -> Option<&CallReport> {
        self.last.as_ref()
    }

    /// Sums over the room's life.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Bytes of the guest's linear memory; 0 without an instance.
    pub fn memory_bytes(&self) -> u64 {
        self.shared()
            .guest
            .as_ref()
            .map_or(0, |guest| guest.bytes().len() as u64)
    }

    /// Where the room's memory is, measured now: costs a walk over the pages.
    pub fn footprint(&self) -> Footprint {
        let shared = self.shared();
        Footprint {
            guest_bytes: shared
                .guest
                .as_ref()
                .map_or(0, crate::memory::RawMemory::resident_bytes),
            kernel_bytes: shared.kernel.resident_bytes(),
            frame_bytes: shared.slots.row_bytes(),
        }
    }

    /// Copies the guest's linear memory, replacing `out`'s contents.
    pub fn copy_memory(&self, out: &mut Vec<u8>) {
        out.clear();
        if let Some(guest) = &self.shared().guest {
            out.extend_from_slice(guest.bytes());
        }
    }

    /// What a player or everyone was last sent; `None` before the first frame and after the
    /// roster changed.
    pub fn frame(&self, slot: Slot) -> Option<Frame> {
        let slots = &self.shared().slots;
        match slot {
            Slot::Member(index) if index < cabinet_wire::ROSTER_CAP => slots.frame(index).cloned(),
            Slot::Member(_) => None,
            Slot::Broadcast => slots.broadcast_frame().cloned(),
        }
    }

    /// The frame epoch counter.
    pub fn epoch_seq(&self) -> u32 {
        self.shared().slots.epoch_seq()
    }

    /// The roster epoch counter.
    pub fn roster_epoch(&self) -> u32 {
        self.roster.epoch()
    }

    /// Entropy bytes the guest has drawn.
    pub fn entropy_consumed(&self) -> u64 {
        self.shared().entropy.consumed()
    }

    /// Leaderboard posts so far.
    pub fn post_seq(&self) -> u32 {
        self.shared().post_seq
    }

    /// Watches every call from now on.
    pub fn observe(&mut self, observer: Box<dyn Observer>) {
        self.shared_mut().observer = Some(observer);
    }

    fn shared(&self) -> &Shared {
        match &self.state {
            State::New(shared) | State::Closed(shared) => shared,
            State::Live(core) => core.shared(),
        }
    }

    fn shared_mut(&mut self) -> &mut Shared {
        match &mut self.state {
            State::New(shared) | State::Closed(shared) => shared,
            State::Live(core) => core.shared_mut(),
        }
    }

    fn refuses_calls(&self) -> Option<Skip> {
        match &self.state {
            _ if self.fault.is_some() => Some(Skip::Dead),
            State::New(_) => Some(Skip::NotStarted),
            State::Closed(_) => Some(Skip::Dead),
            State::Live(_) => None,
        }
    }

    fn invoke_seat(&mut self, export: &'static str, now: i64, seat: usize) -> Outcome {
        // A roster that long is refused before it is encoded.
        self.invoke(
            export,
            now,
            Extra::Seat(u32::try_from(seat).unwrap_or(u32::MAX)),
        )
    }

    /// The single way into the guest.
    fn invoke(&mut self, export: &'static str, now: i64, extra: Extra<'_>) -> Outcome {
        let deadline = self.deadline();
        let State::Live(core) = &mut self.state else {
            return Outcome::Skipped(Skip::NotStarted);
        };
        let shared = core.shared_mut();
        if !matches!(export, "leave") {
            shared.departed = None;
        }
        match self
            .roster
            .settle_on(&shared.members, shared.departed.as_ref())
        {
            Ok(true) => shared.slots.invalidate_all(),
            Ok(false) => {}
            Err(_) => return Outcome::Skipped(Skip::RosterTooLarge),
        }
        shared.now = shared.now.max(now);
        let head = ctx::Head {
            now_unix_nanos: shared.now,
            seed: self.config.seed.value(),
            seed_set: matches!(self.config.seed, Seed::Set(_)),
            mode: self.config.mode,
            // The wire has 16 bits for each.
            capacity: u16::try_from(self.config.capacity).unwrap_or(u16::MAX),
            min_players: u16::try_from(self.config.min_players).unwrap_or(u16::MAX),
        };
        self.payload.clear();
        // A guest that called `end` is told so from its next callback on. A room that settles at
        // once has no callback between the two.
        let over = shared.settled || shared.ended;
        if self.roster.encode(&head, over, &mut self.payload).is_err() {
            return Outcome::Skipped(Skip::RosterTooLarge);
        }
        match extra {
            Extra::Nothing => {}
            Extra::Seat(seat) => input::encode_index(seat, &mut self.payload),
            Extra::Input(seat, input) => input::encode(seat, input, &mut self.payload),
        }
        shared.tally = Tally::default();
        shared.in_callback = true;
        if let Some(observer) = shared.observer.as_mut() {
            observer.callback_begin(export, &self.payload);
        }
        let ended = core.call(&self.game, export, &self.payload, deadline);
        core.shared_mut().in_callback = false;
        self.conclude(export, ended)
    }

    fn conclude(&mut self, export: &'static str, ended: Ended) -> Outcome {
        let tally = self.shared().tally;
        let host_time = tally.host_time.saturating_sub(tally.stood_still);
        let report = CallReport {
            export,
            exit: ended.exit,
            guest_time: ended.wall.saturating_sub(host_time),
            host_time: host_time.saturating_sub(tally.turn_wait),
            io_time: tally.io_time,
            fuel: ended.fuel,
            frames: tally.frames,
            bytes_out: tally.bytes_out,
            bytes_in: self.payload.len() as u64,
            host_calls: tally.host_calls,
        };
        self.totals.guest_time += report.guest_time;
        self.totals.host_time += report.host_time;
        self.totals.fuel = self.totals.fuel.saturating_add(report.fuel);
        self.last = Some(report.clone());
        match ended.fault {
            None => Outcome::Done(report),
            Some(fault) => {
                // As a debug string: names and texts in it are the guest's own.
                let told = fault.to_string();
                tracing::warn!(export, class = fault.class(), fault = ?told, "room faulted");
                self.fault = Some(fault);
                Outcome::Faulted(report)
            }
        }
    }

    fn faulted(&mut self, export: &'static str, exit: u32, fault: Fault) -> Outcome {
        self.conclude(
            export,
            Ended {
                exit,
                fault: Some(fault),
                wall: Duration::ZERO,
                fuel: 0,
            },
        )
    }
}

/// A record with nothing in it, left where one was moved away.
fn hollow() -> Shared {
    Shared::new(Box::new(NoServices), Duration::ZERO)
}
