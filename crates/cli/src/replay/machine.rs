//! A recorded room, run again: forward, and back by way of snapshots taken on the way.
//!
//! Invariants
//! - at step `n` the guest has been told the first `n` callbacks of the recording and nothing else,
//!   whichever way that step was reached;
//! - the snapshots kept take no more memory than `SNAPSHOT_BYTES_MAX`.
//!
//! No clock and no store: times and answers are the recording's.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cabinet_host::{
    Frame, Game, HostCall, LogLevel, LogSource, Observer, Outcome, Player, Recipient, Room,
    RoomConfig, RoomResult, Seed, ServiceError, Services, Snapshot,
};
use cabinet_rooms::Export;
use cabinet_wire::ArtifactDigest;

use crate::recording::tap::check_call;
use crate::recording::{Answer, Callback, Recording, player_of};

/// Callbacks from one snapshot to the next, at first.
const SPACING: usize = 64;
/// Memory of the snapshots that are kept. When they take more, every other one goes.
const SNAPSHOT_BYTES_MAX: usize = 256 << 20;
/// Snapshots that are kept.
const SNAPSHOTS_MAX: usize = 1_024;
/// A callback took less when it was recorded; this ends only what a forged recording sets off.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A recording does not belong to a game.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the recording is of artifact {recorded}, this game is {given}: another game, or another version of it"
)]
pub struct OtherArtifact {
    /// The recording's artifact.
    pub recorded: ArtifactDigest,
    /// The game's.
    pub given: ArtifactDigest,
}

/// A recorded room, at one of its steps.
pub struct Machine {
    game: Game,
    recording: Recording,
    room: Room,
    scene: Scene,
    at: usize,
    spacing: usize,
    snapshots: Vec<Kept>,
    diverged: Option<usize>,
}

/// A step to go back to.
struct Kept {
    at: usize,
    snapshot: Snapshot,
    frames: Vec<Frame>,
    present: Vec<bool>,
}

impl Machine {
    /// The recorded room before its first callback.
    ///
    /// # Errors
    /// When the game is not the one that was recorded.
    pub fn new(game: Game, recording: Recording) -> Result<Self, OtherArtifact> {
        let (recorded, given) = (recording.header.artifact, game.digest());
        if recorded != given {
            return Err(OtherArtifact { recorded, given });
        }
        let scene = Scene::new(recording.header.seats);
        let room = first_room(&game, &recording, &scene);
        Ok(Self {
            game,
            recording,
            room,
            scene,
            at: 0,
            spacing: SPACING,
            snapshots: Vec::new(),
            diverged: None,
        })
    }

    /// What is run again.
    #[must_use]
    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Callbacks the guest was told so far.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Callbacks there are to tell. One that was ended by the clock or a store, not by the guest's
    /// own doing, cannot be had again and is not among them.
    #[must_use]
    pub fn steps(&self) -> usize {
        let fault = self
            .recording
            .end
            .as_ref()
            .and_then(|end| end.fault.as_deref());
        let once_only = matches!(
            fault,
            Some("deadline" | "host-io" | "host-bug" | "instantiation")
        );
        let recorded = self.recording.callbacks.len();
        recorded.saturating_sub(usize::from(once_only))
    }

    /// The first callback, by number, in which the guest did something else than when it was
    /// recorded.
    #[must_use]
    pub fn diverged(&self) -> Option<usize> {
        self.diverged
    }

    /// The callback that led to where it is; `None` at the beginning.
    #[must_use]
    pub fn last(&self) -> Option<&Callback> {
        self.at
            .checked_sub(1)
            .and_then(|last| self.recording.callbacks.get(last))
    }

    /// Time of the room since its first callback.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.time_of(self.at)
    }

    /// When a step was reached, since the first callback.
    #[must_use]
    pub fn time_of(&self, step: usize) -> Duration {
        let callbacks = &self.recording.callbacks;
        let reached = step.checked_sub(1).and_then(|last| callbacks.get(last));
        let (Some(first), Some(last)) = (callbacks.first(), reached) else {
            return Duration::ZERO;
        };
        let nanos = i128::from(last.now) - i128::from(first.now);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }

    /// What a seat, from 1, sees; blank before anything was drawn for it.
    #[must_use]
    pub fn frame(&self, seat: u16) -> Frame {
        let state = self.scene.lock();
        let frame = usize::from(seat)
            .checked_sub(1)
            .and_then(|seat| state.frames.get(seat));
        frame.cloned().unwrap_or_else(Frame::blank)
    }

    /// Goes to a step; past the last is the last.
    pub fn seek(&mut self, step: usize) {
        let step = step.min(self.steps());
        let nearest = self.snapshots.iter().rposition(|kept| kept.at <= step);
        let from = nearest.map_or(0, |kept| self.snapshots[kept].at);
        if step < self.at || from > self.at {
            match nearest {
                Some(kept) => self.restore(kept),
                None => self.rewind(),
            }
        }
        while self.at < step {
            self.step();
        }
    }

    /// Tells the guest the next callback; `false` at the end.
    pub fn step(&mut self) -> bool {
        if self.at >= self.steps() {
            return false;
        }
        let number = self.at;
        let callback = &self.recording.callbacks[number];
        self.scene.prepare(callback);
        let now = callback.now;
        let player = player_of(callback.seat.unwrap_or_default());
        // What comes of it is in the frames and in the check.
        let outcome = match (callback.export, callback.input) {
            (Export::Start, _) => self.room.start(now),
            (Export::Join, _) => self.room.join(now, player),
            (Export::Leave, _) => self.room.leave(now, &player),
            (Export::Input, Some(input)) => self.room.input(now, &player, input),
            (Export::Wake, _) => self.room.wake(now),
            (Export::Close, _) => self.room.close(now),
            // The format refuses it.
            (Export::Input, None) => return false,
        };
        let same = !matches!(outcome, Outcome::Skipped(_)) && self.scene.went_as(callback);
        if !same && self.diverged.is_none() {
            self.diverged = Some(number);
        }
        self.at += 1;
        self.keep();
        true
    }

    /// Takes a snapshot where one is due.
    fn keep(&mut self) {
        let newest = self.snapshots.last().map_or(0, |kept| kept.at);
        if !self.at.is_multiple_of(self.spacing) || self.at <= newest || self.room.dead() {
            return;
        }
        // A room that cannot be captured is run from an earlier step.
        let Ok(snapshot) = self.room.snapshot() else {
            return;
        };
        let state = self.scene.lock();
        self.snapshots.push(Kept {
            at: self.at,
            snapshot,
            frames: state.frames.clone(),
            present: state.present.clone(),
        });
        drop(state);
        while self.snapshots.len() > SNAPSHOTS_MAX || self.kept_bytes() > SNAPSHOT_BYTES_MAX {
            self.spacing *= 2;
            let spacing = self.spacing;
            self.snapshots
                .retain(|kept| kept.at.is_multiple_of(spacing));
        }
    }

    fn kept_bytes(&self) -> usize {
        self.snapshots
            .iter()
            .map(|kept| kept.snapshot.page_bytes())
            .sum()
    }

    fn restore(&mut self, kept: usize) {
        let scene = Scene::new(self.recording.header.seats);
        let kept = &self.snapshots[kept];
        let Ok(mut room) = self.game.restore(&kept.snapshot, scene.services()) else {
            // It was captured here; without memory for it, the long way round.
            return self.rewind();
        };
        room.observe(scene.observer());
        {
            let mut state = scene.lock();
            state.frames.clone_from(&kept.frames);
            state.present.clone_from(&kept.present);
        }
        self.at = kept.at;
        self.room = room;
        self.scene = scene;
    }

    fn rewind(&mut self) {
        self.scene = Scene::new(self.recording.header.seats);
        self.room = first_room(&self.game, &self.recording, &self.scene);
        self.at = 0;
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine")
            .field("at", &self.at)
            .field("steps", &self.steps())
            .field("snapshots", &self.snapshots.len())
            .finish_non_exhaustive()
    }
}

fn first_room(game: &Game, recording: &Recording, scene: &Scene) -> Room {
    let header = &recording.header;
    let mut config = RoomConfig::new(if header.seed_set {
        Seed::Set(header.seed)
    } else {
        Seed::Drawn(header.seed)
    });
    config.mode = header.mode;
    config.capacity = header.capacity.into();
    config.min_players = header.min_players.into();
    // Its guest is not told, and a recorded wake is told to it whoever is there.
    config.resident = true;
    config.deadline = Some(DEADLINE);
    let mut room = game.room(config, scene.services());
    room.observe(scene.observer());
    room
}

/// What is around the guest: who sees what, what stores will answer, what it called.
#[derive(Clone)]
struct Scene {
    state: Arc<Mutex<SceneState>>,
}

struct SceneState {
    /// What each seat sees, the first of seat 1.
    frames: Vec<Frame>,
    /// Which seats are in the room.
    present: Vec<bool>,
    answers: VecDeque<Answer>,
    check: crc32fast::Hasher,
    /// The guest asked more than was answered.
    ran_dry: bool,
}

impl Scene {
    fn new(seats: u16) -> Self {
        let seats = usize::from(seats);
        Self {
            state: Arc::new(Mutex::new(SceneState {
                frames: vec![Frame::blank(); seats],
                present: vec![false; seats],
                answers: VecDeque::new(),
                check: crc32fast::Hasher::new(),
                ran_dry: false,
            })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, SceneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn services(&self) -> Box<dyn Services> {
        Box::new(self.clone())
    }

    fn observer(&self) -> Box<dyn Observer> {
        Box::new(self.clone())
    }

    fn prepare(&self, callback: &Callback) {
        let mut state = self.lock();
        state.answers = callback.answers.iter().cloned().collect();
        state.check = crc32fast::Hasher::new();
        state.ran_dry = false;
        // Who joins sees what is drawn meanwhile, who leaves does not.
        let seat = callback.seat.map(|seat| usize::from(seat) - 1);
        if let Some(present) = seat.and_then(|seat| state.present.get_mut(seat)) {
            match callback.export {
                Export::Join => *present = true,
                Export::Leave => *present = false,
                _ => {}
            }
        }
    }

    fn went_as(&self, callback: &Callback) -> bool {
        let state = self.lock();
        let check = state.check.clone().finalize();
        check == callback.check && state.answers.is_empty() && !state.ran_dry
    }

    fn answer(&self) -> Result<Option<Vec<u8>>, ServiceError> {
        let mut state = self.lock();
        match state.answers.pop_front() {
            Some(Answer::Value(value)) => Ok(value),
            Some(Answer::Failed) => Err(ServiceError::Unavailable("as it was recorded".into())),
            None => {
                state.ran_dry = true;
                Ok(None)
            }
        }
    }
}

impl Observer for Scene {
    fn host_call(&mut self, call: &HostCall<'_>) {
        check_call(&mut self.lock().check, call);
    }
}

impl Services for Scene {
    fn kv_get(
        &mut self,
        _: &Player,
        _: &[u8],
        _: Duration,
    ) -> Result<Option<Vec<u8>>, ServiceError> {
        self.answer()
    }

    fn kv_set(
        &mut self,
        _: &Player,
        _: &[u8],
        _: &[u8],
        _: &[u8],
        _: Duration,
    ) -> Result<(), ServiceError> {
        Ok(())
    }

    fn kv_delete(&mut self, _: &Player, _: &[u8], _: Duration) -> Result<(), ServiceError> {
        Ok(())
    }

    fn config_get(&mut self, _: &[u8], _: Duration) -> Result<Option<Vec<u8>>, ServiceError> {
        self.answer()
    }

    fn post(&mut self, _: &RoomResult) {}

    fn log(&mut self, _: LogLevel, _: LogSource, _: &[u8]) {}

    fn deliver(&mut self, to: Recipient<'_>, frame: &Frame) {
        let mut state = self.lock();
        let SceneState {
            frames, present, ..
        } = &mut *state;
        for (seat, (shown, present)) in (1..).zip(frames.iter_mut().zip(present.iter())) {
            let sees = match to {
                Recipient::Everyone => *present,
                Recipient::Member(_, player) => *present && *player == player_of(seat),
            };
            if sees {
                *shown = frame.clone();
            }
        }
    }
}
