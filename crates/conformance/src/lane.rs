//! One room taken through a script, step by step.
//!
//! A lane knows how a step becomes a call and what to note afterwards. Comparing lanes is
//! [`crate::check`]'s business, writing one down [`crate::trace`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cabinet_host::{
    CallReport, CaptureError, Fault, Frame, Game, MemoryServices, Outcome, Player, RestoreError,
    Room, RoomConfig, RoomResult, Sck1, Sck1Error, Seed, Skip, Slot, Snapshot, SnapshotError,
};
use cabinet_wire::Lifecycle;
use cabinet_wire::input::Input;

use crate::compare::{GuestDigest, Guests};
use crate::script::{Script, Setup, Step};
use crate::tape::{Effects, Keep, Tape, To};
use crate::units::error_line;

/// zstd level of the snapshots a lane takes.
const SNAPSHOT_LEVEL: i32 = 1;
/// Room for what a snapshot holds beside guest memory: slots, roster, globals, tables.
const SNAPSHOT_OVERHEAD_BYTES: usize = 256 << 20;

/// How a room is saved and restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restore {
    /// Our snapshots: complete state, the restored room equals the saved one bit for bit.
    #[default]
    Complete,
    /// The reference's `SCK1` blob: memory and counters, with the reference's two epoch bumps.
    Sck1,
}

/// Why a room could not be saved and restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HibernateError {
    /// The room could not be saved.
    #[error("the room could not be saved")]
    Save(#[source] CaptureError),
    /// The snapshot could not be encoded.
    #[error("the snapshot could not be encoded")]
    Encode(#[source] SnapshotError),
    /// The encoded snapshot could not be read back.
    #[error("the snapshot could not be read back")]
    Decode(#[source] SnapshotError),
    /// The encoded `SCK1` blob could not be read back.
    #[error("the blob could not be read back")]
    DecodeSck1(#[source] Sck1Error),
    /// What was read back could not be restored.
    #[error("the snapshot could not be restored")]
    Restore(#[source] RestoreError),
}

/// What a step did.
pub(crate) struct Record {
    pub call: Option<CallReport>,
    pub skipped: Option<Skip>,
    /// Set when this step killed the room.
    pub fault: Option<Fault>,
    pub effects: Effects,
    pub state: State,
}

/// The parts of a room, beside its guest's state, that two runs must agree on after every step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    pub memory_bytes: u64,
    pub entropy_consumed: u64,
    pub epoch_seq: u32,
    pub roster_epoch: u32,
    pub input_context: u8,
    pub post_seq: u32,
    /// Unix nanoseconds of the last callback.
    pub now: i64,
    pub dead: bool,
    pub ended: bool,
    pub settled: bool,
    pub result: Option<RoomResult>,
    pub members: Vec<Player>,
    /// The members at the last callback and, after a `leave`, who left.
    pub last_roster: Vec<Player>,
    /// What everyone was last sent, then what each member was: the baselines of the next frames.
    pub frames: Vec<Option<Frame>>,
}

/// See the [module](self).
pub(crate) struct Lane {
    game: Game,
    pub room: Room,
    tape: Tape,
    pub now: i64,
    /// The newest frame of every seat.
    pub screens: BTreeMap<u16, Frame>,
    /// Whether the room settles once the guest has called `end`, as a real one does.
    settles: bool,
}

impl Lane {
    /// Makes the script's room. `deadline` replaces the game's, until the room is restored from the
    /// reference's blob, which has no place for it.
    pub(crate) fn new(
        game: &Game,
        script: &Script,
        deadline: Option<Duration>,
        keep: Keep,
    ) -> Self {
        let setup = &script.setup;
        let meta = game.meta();
        let stores = MemoryServices::new();
        for (key, value) in &setup.config {
            stores.set_config(key.as_bytes(), value.as_bytes());
        }
        let tape = Tape::new(stores, seated(script), keep);
        let config = RoomConfig {
            mode: setup.mode,
            capacity: setup.capacity.unwrap_or(u32::from(meta.max_players.max(1))),
            min_players: setup
                .min_players
                .unwrap_or(u32::from(meta.min_players.max(1))),
            seed: Seed::Set(setup.seed),
            resident: setup
                .resident
                .unwrap_or(meta.lifecycle() == Lifecycle::Resident),
            deadline,
            heartbeat: None,
        };
        let mut room = game.room(config, Box::new(tape.clone()));
        room.observe(Box::new(tape.clone()));
        let now = setup.clock_unix_nanos;
        Self {
            game: game.clone(),
            room,
            tape,
            now,
            screens: BTreeMap::new(),
            settles: true,
        }
    }

    /// The same, but frames go on after the guest has called `end`: the last of them is what the
    /// author of a game wants to see.
    pub(crate) fn filmed(mut self) -> Self {
        self.settles = false;
        self
    }

    /// Calls the guest's `start`.
    pub(crate) fn start(&mut self) -> Record {
        let outcome = self.room.start(self.now);
        self.record(Some(outcome))
    }

    /// Takes one step. [`Step::Snapshot`] does nothing here; see [`Lane::hibernate`].
    pub(crate) fn step(&mut self, setup: &Setup, step: &Step) -> Record {
        let now = self.now;
        let outcome = match step {
            Step::Join { seat } => Some(self.room.join(now, setup.player(*seat))),
            Step::Leave { seat } => Some(self.room.leave(now, &setup.player(*seat))),
            Step::Input { seat, rune } => Some(self.room.input(
                now,
                &setup.player(*seat),
                Input::Rune(u32::from(*rune)),
            )),
            Step::Key { seat, key } => {
                Some(self.room.input(now, &setup.player(*seat), Input::Key(*key)))
            }
            Step::Wake { after } => {
                self.advance(*after);
                Some(self.room.wake(self.now))
            }
            Step::Advance { by } => {
                self.advance(*by);
                None
            }
            Step::Snapshot | Step::Shot { .. } => None,
            Step::Close => Some(self.room.close(now)),
        };
        self.record(outcome)
    }

    /// Saves the room and puts the restored one in its place. Returns the encoded snapshot.
    pub(crate) fn hibernate(&mut self, how: Restore) -> Result<Vec<u8>, HibernateError> {
        let encoded = self.save(how)?;
        let mut restored = self.restored(how, &encoded, self.tape.clone())?;
        if how == Restore::Sck1 {
            // That blob names whoever left last among the members.
            restored.set_members(self.room.members().to_vec());
        }
        self.room = restored;
        Ok(encoded)
    }

    /// The room saved and encoded.
    pub(crate) fn save(&mut self, how: Restore) -> Result<Vec<u8>, HibernateError> {
        match how {
            Restore::Complete => {
                let snapshot = self.room.snapshot().map_err(HibernateError::Save)?;
                snapshot
                    .encode(SNAPSHOT_LEVEL)
                    .map_err(HibernateError::Encode)
            }
            Restore::Sck1 => self
                .room
                .snapshot_sck1(SNAPSHOT_LEVEL)
                .map_err(HibernateError::Save),
        }
    }

    /// A second lane that goes on from a saved room, with the same clock and members and a copy of
    /// the stores.
    pub(crate) fn branch(&self, how: Restore, encoded: &[u8]) -> Result<Self, HibernateError> {
        let tape = self.tape.fork();
        let mut room = self.restored(how, encoded, tape.clone())?;
        // The blob may be of another room.
        room.set_members(self.room.members().to_vec());
        let screens = self.screens.clone();
        Ok(Self {
            game: self.game.clone(),
            room,
            tape,
            now: self.now,
            screens,
            settles: self.settles,
        })
    }

    fn restored(&self, how: Restore, encoded: &[u8], tape: Tape) -> Result<Room, HibernateError> {
        let cap = usize::try_from(self.game.memory_cap_bytes()).unwrap_or(usize::MAX);
        let max = cap.saturating_add(SNAPSHOT_OVERHEAD_BYTES);
        let services = Box::new(tape.clone());
        let mut room = match how {
            Restore::Complete => {
                let snapshot = Snapshot::decode(encoded, max).map_err(HibernateError::Decode)?;
                self.game.restore(&snapshot, services)
            }
            Restore::Sck1 => {
                let blob = Sck1::decode(encoded, max).map_err(HibernateError::DecodeSck1)?;
                let resident = self.room.config().resident;
                self.game.restore_sck1(&blob, resident, services)
            }
        }
        .map_err(HibernateError::Restore)?;
        room.observe(Box::new(tape));
        Ok(room)
    }

    /// What the room is like now, and what it did since it was last asked.
    pub(crate) fn record(&mut self, outcome: Option<Outcome>) -> Record {
        let effects = self.tape.take();
        self.update_screens(&effects);
        // The engine settles a room once the callback that ended it has returned.
        if self.settles && self.room.ended() && !self.room.settled() {
            self.room.settle();
        }
        let (call, skipped, faulted) = match outcome {
            None => (None, None, false),
            Some(Outcome::Done(call)) => (Some(call), None, false),
            Some(Outcome::Faulted(call)) => (Some(call), None, true),
            Some(Outcome::Skipped(skip)) => (None, Some(skip), false),
        };
        let fault = if faulted {
            self.room.fault().cloned()
        } else {
            None
        };
        Record {
            call,
            skipped,
            fault,
            effects,
            state: self.state(),
        }
    }

    /// The guest of this room, which is the control, beside that of another.
    pub(crate) fn guests(&mut self, other: &mut Self) -> Guests {
        match self.room.same_guest_state(&mut other.room) {
            Ok(true) => Guests::Alike,
            Ok(false) | Err(_) => {
                Guests::Apart(Box::new([self.guest_digest(), other.guest_digest()]))
            }
        }
    }

    fn guest_digest(&mut self) -> GuestDigest {
        match self.room.state_digest() {
            Ok(digest) => Ok(Some(digest)),
            Err(CaptureError::NotLive) => Ok(None),
            Err(error) => Err(error_line(&error)),
        }
    }

    fn state(&mut self) -> State {
        let members = self.room.members().to_vec();
        let slots = (0..members.len()).map(Slot::Member);
        let slots = std::iter::once(Slot::Broadcast).chain(slots);
        State {
            memory_bytes: self.room.memory_bytes(),
            entropy_consumed: self.room.entropy_consumed(),
            epoch_seq: self.room.epoch_seq(),
            roster_epoch: self.room.roster_epoch(),
            input_context: self.room.input_context(),
            post_seq: self.room.post_seq(),
            now: self.room.now(),
            dead: self.room.dead(),
            ended: self.room.ended(),
            settled: self.room.settled(),
            result: self.room.result().cloned(),
            frames: slots.map(|slot| self.room.frame(slot)).collect(),
            last_roster: self.room.last_roster(),
            members,
        }
    }

    fn update_screens(&mut self, effects: &Effects) {
        // `To::Everyone` orders first, so newer personal frames replace the broadcast.
        for (to, frame) in &effects.newest {
            match to {
                To::Seat(seat) => {
                    self.screens.insert(*seat, frame.clone());
                }
                To::Everyone => {
                    for seat in self.tape.seats_of(self.room.members()) {
                        self.screens.insert(seat, frame.clone());
                    }
                }
                To::Index(_) => {}
            }
        }
    }

    fn advance(&mut self, by: Duration) {
        let by = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        self.now = self.now.saturating_add(by);
    }
}

/// Every seat the script lets join, and who sits there.
fn seated(script: &Script) -> Vec<(u16, Player)> {
    let seats: BTreeSet<u16> = script
        .steps
        .iter()
        .filter_map(|step| {
            if let Step::Join { seat } = step {
                Some(*seat)
            } else {
                None
            }
        })
        .collect();
    seats
        .into_iter()
        .map(|seat| (seat, script.setup.player(seat)))
        .collect()
}
