//! A room with its players, in this process: real runtime and limits, services in memory.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cabinet_conformance::error_line;
use cabinet_host::{Frame, Game, GameOptions, Input, Mode, Player};
use cabinet_rooms::host_keys::{self, HostKey};
use cabinet_rooms::keeper::RoomState;
use cabinet_rooms::services::memory::MemoryStore;
use cabinet_rooms::services::{StoreAdmin, wait_for};
use cabinet_rooms::{
    EndReason, Ending, InputError, Listing, Registry, Resume, RoomHandle, RoomSpec, Runtime,
    RuntimeOptions, Seat,
};
use cabinet_wire::ROSTER_CAP;
use cabinet_wire::meta::MetaOwned;

use super::last_log::LastLog;
use super::log_file::LogFile;
use super::meter::{Meter, Recorded};
use crate::config::acceptable;
use crate::outcome::{Problem, remark};
use crate::overwrite::{self, Overwritten};
use crate::recording::format::{self, TEXT_BYTES_MAX};
use crate::recording::tap::Tap;
use crate::recording::{End, Header, player_of};

/// What a room is opened with.
#[derive(Debug, Default)]
pub struct Setup {
    /// Players; within what the game admits.
    pub seats: Option<u16>,
    /// The seed; one is drawn without.
    pub seed: Option<i64>,
    /// Time between wakes, for games that declare none.
    pub heartbeat: Option<Duration>,
    /// What the game is configured with.
    pub config: Vec<(String, Vec<u8>)>,
    /// Where to record to.
    pub record: Option<PathBuf>,
    /// Where what the guest logs is written to.
    pub log: Option<PathBuf>,
}

/// An open room and everybody in it.
pub struct Table {
    /// Ends its threads when it is dropped.
    _runtime: Runtime,
    waits: tokio::runtime::Runtime,
    room: RoomHandle,
    seats: Vec<Seat>,
    meter: Arc<Meter>,
    log: Arc<LastLog>,
    tap: Option<Tap>,
}

/// A room that did not get as far as being played.
#[derive(Debug)]
pub enum NotOpened {
    /// Something around it was wrong.
    Problem(Problem),
    /// It ended before everybody sat.
    Ended(Over),
}

/// How a room ended, and what it said last.
#[derive(Debug)]
pub struct Over {
    /// The ending.
    pub ending: Arc<Ending>,
    /// The last lines of its log.
    pub log: Vec<String>,
    /// Why the recording is not whole, if it is not.
    pub recorded: Result<(), String>,
    /// Why the log file is not whole, if it is not.
    pub logged: Result<(), String>,
}

impl From<Problem> for NotOpened {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// The seats of a game: what was asked for, else as many as it takes to begin, within what it
/// admits.
#[must_use]
pub fn seat_count(asked: Option<u16>, min_players: u16, max_players: u16) -> u16 {
    let most = max_players.clamp(1, ROSTER_CAP as u16);
    asked.unwrap_or(min_players).clamp(1, most)
}

/// Who sits in a room that goes on: those who were in it last, else everybody who ever was, else one
/// who is new; as many as the game admits.
fn players_of(state: &RoomState, max_players: u16) -> Vec<Player> {
    let known = if state.roster.is_empty() {
        &state.joined
    } else {
        &state.roster
    };
    if known.is_empty() {
        return vec![player_of(1)];
    }
    let most = match max_players {
        0 => ROSTER_CAP,
        most => ROSTER_CAP.min(most.into()),
    };
    known.iter().take(most).cloned().collect()
}

impl Table {
    /// Opens a room of `game`, which came from the file `artifact`, and seats everybody.
    ///
    /// # Errors
    /// [`NotOpened`].
    pub fn open(game: Game, artifact: &Path, setup: &Setup) -> Result<Self, NotOpened> {
        Self::begin(game, artifact, setup, None)
    }

    /// Goes on with a room that was stored, and seats those who were in it last. Nothing of it is
    /// written anywhere.
    ///
    /// # Errors
    /// [`NotOpened`].
    pub fn resume(game: Game, artifact: &Path, state: RoomState) -> Result<Self, NotOpened> {
        Self::begin(game, artifact, &Setup::default(), Some(state))
    }

    fn begin(
        game: Game,
        artifact: &Path,
        setup: &Setup,
        state: Option<RoomState>,
    ) -> Result<Self, NotOpened> {
        let meta = game.meta();
        let seats = seat_count(setup.seats, meta.min_players, meta.max_players);
        let players = match &state {
            Some(state) => players_of(state, meta.max_players),
            None => (1..=seats).map(player_of).collect(),
        };
        check_config(meta, &setup.config)?;
        let (meta_heartbeat, features) = (meta.heartbeat_ms, meta.ctx_features);
        let digest = game.digest();
        let fallback = setup.heartbeat.unwrap_or(GameOptions::default().heartbeat);

        let mut listing = Listing::new(game);
        if let Some(state) = &state {
            listing = listing.with_slug(state.slug.clone());
        }
        let listed = Registry::new()
            .add(listing)
            .map_err(|error| Problem::about("cannot list the game", &error))?;
        let slug = listed.slug().as_str().to_owned();
        let store = MemoryStore::new();
        for (key, value) in &setup.config {
            let set = |reply| store.set_config(&slug, key.as_bytes(), Some(value), reply);
            wait_for(set).map_err(|error| Problem::about(format!("--config {key}"), &error))?;
        }
        let admin = setup
            .config
            .iter()
            .find(|(key, _)| key == HostKey::Heartbeat.key());
        let heartbeat = host_keys::heartbeat(
            admin.map(|(_, value)| value.as_slice()),
            meta_heartbeat,
            fallback,
        );

        let mut spec = RoomSpec::default();
        spec.mode = Mode::Private;
        spec.seed = setup.seed;
        spec.heartbeat = setup.heartbeat;
        spec.services = store.services();
        // Everybody is the account they say they are.
        spec.services.accounts = None;
        let file = setup.log.as_deref().map(LogFile::open).transpose()?;
        let log = Arc::new(LastLog::with_file(file));
        spec.services.log = Some(Arc::clone(&log) as _);
        let tap = match &setup.record {
            Some(path) => {
                let header = Header {
                    artifact: digest,
                    slug: slug.clone(),
                    path: absolute(artifact),
                    // The room says itself; see `Tap::start`.
                    mode: Mode::Private,
                    capacity: 0,
                    min_players: 0,
                    seed: 0,
                    seed_set: false,
                    seats,
                    heartbeat_ms: u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX),
                    config: setup.config.clone(),
                };
                let file = create(path)?;
                let tap = Tap::start(file, header, features)
                    .map_err(|error| Problem::about("cannot start to record", &error))?;
                spec.observer = Some(tap.observer());
                spec.services = tap.services(spec.services);
                Some(tap)
            }
            None => None,
        };

        let meter = Arc::new(Meter::default());
        let mut options = RuntimeOptions::default();
        options.recorder = Arc::clone(&meter) as _;
        let runtime = Runtime::new(options)
            .map_err(|error| Problem::about("cannot start the room's threads", &error))?;
        let waits = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|error| Problem::about("cannot wait for a room", &error))?;
        let opened = match state {
            None => runtime.open(&listed, spec),
            Some(state) => {
                spec.joined = state.joined;
                spec.roster = state.roster;
                let snapshot = Resume::Snapshot(Box::new(state.snapshot));
                runtime.resume(&listed, snapshot, spec)
            }
        };
        let room = opened.map_err(|error| Problem::about("cannot open a room", &error))?;
        let mut table = Self {
            _runtime: runtime,
            waits,
            room,
            seats: Vec::with_capacity(players.len()),
            meter,
            log,
            tap,
        };
        table.seat_everybody(players)?;
        Ok(table)
    }

    fn seat_everybody(&mut self, players: Vec<Player>) -> Result<(), NotOpened> {
        if let Err(ending) = self.waits.block_on(self.room.started()) {
            return Err(NotOpened::Ended(self.over(ending)));
        }
        for (seat, player) in (1..).zip(players) {
            match self.waits.block_on(self.room.join(player)) {
                Ok(taken) => self.seats.push(taken),
                Err(error) => {
                    if let Some(ending) = self.ending_if_over() {
                        return Err(NotOpened::Ended(self.over(ending)));
                    }
                    let what = format!("seat {seat} was not let in");
                    return Err(Problem::about(what, &error).into());
                }
            }
        }
        Ok(())
    }

    fn ending_if_over(&self) -> Option<Arc<Ending>> {
        let over = self.room.status().phase.is_over();
        over.then(|| self.waits.block_on(self.room.ended()))
    }

    /// Seats that are taken.
    #[must_use]
    pub fn seats(&self) -> usize {
        self.seats.len()
    }

    /// What the room costs.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Whether the room is recorded.
    #[must_use]
    pub fn recorded(&self) -> Recorded {
        match &self.tap {
            None => Recorded::Not,
            Some(tap) if tap.is_going() => Recorded::Going,
            Some(_) => Recorded::Stopped,
        }
    }

    /// What a seat, from 0, sees now; and how the room ended, if it did. `waker` is woken when that
    /// changes.
    pub fn look(&mut self, seat: usize, waker: &Waker) -> (Frame, Option<Arc<Ending>>) {
        let Some(seat) = self.seats.get_mut(seat) else {
            return (Frame::blank(), None);
        };
        let mut cx = Context::from_waker(waker);
        loop {
            match seat.frames().poll_next(&mut cx) {
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => {
                    let frame = seat.frames().frame().clone();
                    return (frame, Some(self.waits.block_on(self.room.ended())));
                }
                Poll::Pending => return (seat.frames().frame().clone(), None),
            }
        }
    }

    /// Passes on a key of a seat, from 0; `false` when the room has no place for it yet. A room
    /// that is over takes every key, to nobody.
    pub fn type_in(&mut self, seat: usize, input: Input) -> bool {
        let typed = self.seats.get(seat).map(|seat| seat.try_input(input));
        !matches!(typed, Some(Err(InputError::Full)))
    }

    /// Everybody leaves, the room is closed, what was recorded is written.
    #[must_use]
    pub fn leave(mut self) -> Over {
        for seat in self.seats.drain(..) {
            self.waits.block_on(seat.leave());
        }
        self.room.close();
        let ending = self.waits.block_on(self.room.ended());
        self.over(ending)
    }

    fn over(&self, ending: Arc<Ending>) -> Over {
        let tap = self.tap.as_ref();
        Over {
            recorded: tap.map_or(Ok(()), |tap| tap.finish(end_of(&ending))),
            logged: self.log.file().map_or(Ok(()), LogFile::finish),
            log: self.log.lines(),
            ending,
        }
    }
}

/// Refuses what `cabinet config` would: a key that has a type has values of it. A key nobody declared
/// reaches the guest all the same, as the reference's program lets it; that is said.
fn check_config(meta: &MetaOwned, config: &[(String, Vec<u8>)]) -> Result<(), Problem> {
    let host = HostKey::ALL.map(HostKey::spec);
    for (key, value) in config {
        let mut declared = meta.config.iter().chain(&host);
        let Some(spec) = declared.find(|spec| spec.key == *key) else {
            let what = Problem::new(format!("--config {key}: the game declares no such key"));
            remark(format_args!("cabinet: warning: {what}"));
            continue;
        };
        let text = String::from_utf8_lossy(value);
        acceptable(spec, &text)
            .map_err(|why| Problem::new(format!("--config {key} cannot be {text:?}: {why}")))?;
    }
    Ok(())
}

/// What a recording says of an ending.
#[must_use]
pub fn end_of(ending: &Ending) -> End {
    End {
        reason: ending.reason.name().to_owned(),
        fault: ending
            .fault
            .as_ref()
            .map(|report| report.fault.class().to_owned()),
        // A report is shorter than the format's limit.
        text: ending
            .fault
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    }
}

/// What people read about a room that failed; `None` of one that did not.
#[must_use]
pub fn failure_of(ending: &Ending) -> Option<String> {
    match (&ending.fault, ending.reason) {
        (Some(report), EndReason::Fault | EndReason::Host) => Some(report.to_string()),
        (None, EndReason::Fault | EndReason::Host) => {
            Some("the host failed the room: a service panicked or memory ran out".to_owned())
        }
        _ => None,
    }
}

/// A file to record to. One that is something else than a recording is left alone.
fn create(path: &Path) -> Result<File, Problem> {
    let about = |error: std::io::Error| {
        Problem::about(format!("cannot record to {}", path.display()), &error)
    };
    let is_recording = |file: &File| {
        let mut start = [0; format::MAGIC.len()];
        Ok((&*file).read_exact(&mut start).is_ok() && start == *format::MAGIC)
    };
    let opened = overwrite::open(path, is_recording);
    let opened =
        opened.map_err(|error| Problem::new(format!("cannot record to {}", error_line(&error))))?;
    let Overwritten::File(mut file) = opened else {
        return Err(Problem::new(format!(
            "cannot record to {}: it is there, and is no recording; name another file",
            path.display()
        )));
    };
    // A pipe cannot: a recording is a file.
    file.rewind().map_err(about)?;
    Ok(file)
}

/// The whole path, where it is a text.
fn absolute(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let text = path.to_str().unwrap_or_default().to_owned();
    if text.len() > TEXT_BYTES_MAX {
        return String::new();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_seats_as_asked_for_within_what_the_game_admits() {
        for (asked, min, max, seats) in [
            (None, 2, 4, 2),
            (None, 0, 4, 1),
            (None, 9, 4, 4),
            (Some(3), 2, 4, 3),
            (Some(0), 2, 4, 1),
            (Some(5), 2, 4, 4),
            (Some(2), 1, 0, 1),
            (Some(u16::MAX), 1, u16::MAX, ROSTER_CAP as u16),
        ] {
            assert_eq!(seat_count(asked, min, max), seats, "{asked:?} {min} {max}");
        }
    }
}
