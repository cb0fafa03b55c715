//! What players see: a script of inputs and pauses, and the screens at named moments.
//!
//! A run is all that the pictures depend on: seed, seats, config, the clock at the start, the steps.
//! No verdicts, no second room: a guest that faults, or a seat that was shown nothing, is an error,
//! because whoever films a game wants screens or the reason why there are none.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use cabinet_host::{Fault, Frame, Game};
use cabinet_wire::{Key, Mode};

use crate::lane::{Lane, Record};
use crate::script::{Script, Setup, Step};
use crate::tape::Keep;

/// A room to film.
///
/// All seats join before the first step: seat `n` is the member with account `seat-n`, handle
/// `seatn` and connection `conn-n`. The room is for as many as sit in it, solo for one and private
/// for more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShotRun {
    /// The room's seed.
    pub seed: i64,
    /// How many sit in it, at least 1.
    pub seats: u16,
    /// Game config values by key.
    pub config: BTreeMap<String, String>,
    /// Room clock at the start, unix nanoseconds.
    pub clock_unix_nanos: i64,
    /// What happens, in order.
    pub steps: Vec<ShotStep>,
}

/// One step of a [`ShotRun`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShotStep {
    /// A seat types a character.
    Input {
        /// Seat number.
        seat: u16,
        /// The character.
        rune: char,
    },
    /// A seat presses a key.
    Key {
        /// Seat number.
        seat: u16,
        /// The key.
        key: Key,
    },
    /// The clock moves, then the room wakes; `by` may be nothing.
    Wake {
        /// How far the clock moves first.
        by: Duration,
    },
    /// Keep what seats see.
    Shot {
        /// What it is called.
        name: String,
        /// Which seats, in the order they are to come; `None` takes all of them.
        seats: Option<Vec<u16>>,
    },
}

impl ShotStep {
    fn note(&self) -> &'static str {
        match self {
            Self::Input { .. } => "input rune",
            Self::Key { .. } => "input key",
            Self::Wake { .. } => "wake",
            Self::Shot { .. } => "shot",
        }
    }
}

/// What the seats of one shot saw.
#[derive(Debug, Clone)]
pub struct SeatFrames {
    /// The name the step gave it.
    pub name: String,
    /// Whose screens, and each one's.
    pub frames: Vec<(u16, Frame)>,
}

/// When a guest faulted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum During {
    /// In its `start`.
    Start,
    /// While this seat joined.
    Join {
        /// Seat number.
        seat: u16,
    },
    /// In a step, by its index in [`ShotRun::steps`].
    Step {
        /// The index.
        index: usize,
        /// What kind of step it is.
        note: &'static str,
    },
}

impl fmt::Display for During {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::Join { seat } => write!(f, "join seat {seat}"),
            Self::Step { index, note } => write!(f, "step {index} ({note})"),
        }
    }
}

/// Why there are no screens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShotsError {
    /// The game is not for so many.
    #[error("smoke: seats {seats} outside the game's 1..{max}")]
    Seats {
        /// How many were to sit down.
        seats: u16,
        /// The game's largest party.
        max: u16,
    },
    /// The guest died.
    #[error("smoke: guest faulted during {during} (exit {exit}): {fault}")]
    Faulted {
        /// When.
        during: During,
        /// The exit code of the callback.
        exit: u32,
        /// What happened.
        fault: Fault,
    },
    /// A seat was to be filmed before it was shown anything.
    #[error(
        "smoke: shot {name:?}: seat {seat} has no frame yet — the game has not rendered for it"
    )]
    NoFrame {
        /// The shot.
        name: String,
        /// The seat.
        seat: u16,
        /// The shot's index in [`ShotRun::steps`].
        index: usize,
    },
}

/// Takes a game through a run and returns what its shots saw, in order.
///
/// `deadline` is how long one callback may take; `None` leaves the game's.
///
/// # Errors
/// [`ShotsError`]; nothing that was filmed until then is kept.
pub fn run_shots(
    game: &Game,
    run: &ShotRun,
    deadline: Option<Duration>,
) -> Result<Vec<SeatFrames>, ShotsError> {
    let meta = game.meta();
    let max = meta.max_players;
    if run.seats < 1 || run.seats > max.max(1) {
        let seats = run.seats;
        return Err(ShotsError::Seats { seats, max });
    }
    let script = script(run, meta.min_players);
    let setup = &script.setup;
    let mut lane = Lane::new(game, &script, deadline, Keep::Counts).filmed();
    survived(lane.start(), During::Start)?;
    for (seat, join) in (0..run.seats).zip(&script.steps) {
        survived(lane.step(setup, join), During::Join { seat })?;
    }
    let mut shots = Vec::new();
    for (index, step) in run.steps.iter().enumerate() {
        let taken = match step {
            ShotStep::Input { seat, rune } => Step::Input {
                seat: *seat,
                rune: *rune,
            },
            ShotStep::Key { seat, key } => Step::Key {
                seat: *seat,
                key: *key,
            },
            ShotStep::Wake { by } => Step::Wake { after: *by },
            ShotStep::Shot { name, seats } => {
                let all = || (0..run.seats).collect();
                let seats = seats.clone().unwrap_or_else(all);
                let seen = |seat: u16| match lane.screens.get(&seat) {
                    Some(frame) => Ok((seat, frame.clone())),
                    None => {
                        let name = name.clone();
                        Err(ShotsError::NoFrame { name, seat, index })
                    }
                };
                shots.push(SeatFrames {
                    name: name.clone(),
                    frames: seats.into_iter().map(seen).collect::<Result<_, _>>()?,
                });
                continue;
            }
        };
        let note = step.note();
        survived(lane.step(setup, &taken), During::Step { index, note })?;
    }
    // Its frames are behind no shot any more, and a fault in it spoils none.
    lane.step(setup, &Step::Close);
    Ok(shots)
}

/// The room of a run, and everybody's way in.
fn script(run: &ShotRun, min_players: u16) -> Script {
    Script {
        setup: Setup {
            seed: run.seed,
            mode: if run.seats == 1 {
                Mode::Solo
            } else {
                Mode::Private
            },
            capacity: Some(u32::from(run.seats)),
            min_players: Some(u32::from(min_players.max(1).min(run.seats))),
            clock_unix_nanos: run.clock_unix_nanos,
            config: run.config.clone(),
            ..Setup::default()
        },
        steps: (0..run.seats).map(|seat| Step::Join { seat }).collect(),
    }
}

fn survived(record: Record, during: During) -> Result<(), ShotsError> {
    match record.fault {
        None => Ok(()),
        Some(fault) => Err(ShotsError::Faulted {
            during,
            exit: record.call.map_or(1, |call| call.exit),
            fault,
        }),
    }
}
