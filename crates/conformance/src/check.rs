//! The check: a script against the real host, four rooms in step.
//!
//! The control runs the script and is what the report's rows measure. Beside it run a room that is
//! saved and restored at every `snapshot` step, a second run of the same script, and a run on the
//! other compiler tier. After every step each is compared with the control, so that a difference is
//! reported at the step that caused it.

use std::time::Duration;

use cabinet_host::{Fault, Game, GameOptions, Host, LoadError, LoadWarning, Skip, Tier};

use crate::compare::{Agree, Guests, difference};
use crate::hash::hex;
use crate::lane::{HibernateError, Lane, Record, Restore};
use crate::report::{GameFacts, Headroom, REPORT_FORMAT, Report, SeatShot, Shot, StepRow, Tally};
use crate::script::{Script, Step};
use crate::shot::seat_shot;
use crate::tape::{Effects, Keep};
use crate::units::{cut, error_line, nanos};
use crate::verdict::{self, Repeat};

/// How to check.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// How the game is loaded. A script's `deadline` and `memory-pages` win over these.
    pub game: GameOptions,
    /// How the room that is saved and restored is. With [`Restore::Sck1`] it is only held to what
    /// players and embedders can see.
    pub hibernate: Restore,
    /// Also ask that the game declares a leaderboard.
    pub require_leaderboard: bool,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The host refused the artifact.
    #[error("the artifact was refused")]
    Load(#[source] LoadError),
}

/// The rooms beside the control may take this many deadlines per callback, and
/// [`COMPARED_DEADLINE_LEAST`] at least: the control has shown that the guest returns.
const COMPARED_DEADLINES: u32 = 20;
const COMPARED_DEADLINE_LEAST: Duration = Duration::from_secs(5);

/// Checks an artifact with a script, or with [`Script::for_party`] when it brings none.
///
/// # Errors
/// [`CheckError`] when the game cannot be run at all. Whatever goes wrong once it runs is a verdict
/// of the report.
pub fn check(
    host: &Host,
    artifact: &[u8],
    options: &CheckOptions,
    script: Option<&Script>,
) -> Result<Report, CheckError> {
    let checker = Checker::load(host, artifact, options, script)?;
    Ok(match script {
        Some(script) => checker.check(script),
        None => checker.check(&Script::for_party(checker.game.meta().max_players)),
    })
}

/// A game loaded once, to be checked with many scripts.
pub struct Checker {
    game: Game,
    /// The same on the other compiler tier.
    recompiled: Result<Game, Repeat>,
    /// Wall time a callback of the control may take.
    deadline: Duration,
    hibernate: Restore,
    require_leaderboard: bool,
}

impl Checker {
    /// Loads the artifact with `options`, over which the `deadline` and `memory-pages` of
    /// `script` win; those of scripts it is later checked with do not.
    ///
    /// # Errors
    /// [`CheckError`] when the game cannot be run at all.
    pub fn load(
        host: &Host,
        artifact: &[u8],
        options: &CheckOptions,
        script: Option<&Script>,
    ) -> Result<Self, CheckError> {
        let mut load = load_options(&options.game, script);
        let deadline = load.deadline;
        // The rooms beside the control have the game's deadline and the control its own: a room's
        // own one has no place in the reference's blob.
        load.deadline = deadline
            .saturating_mul(COMPARED_DEADLINES)
            .max(COMPARED_DEADLINE_LEAST);
        // Both at once, on two cores: compiling is most of what a check costs.
        let (game, other) = std::thread::scope(|scope| {
            let other = scope.spawn(|| host.load(artifact, &other_options(&load)));
            (host.load(artifact, &load), other.join())
        });
        let game = game.map_err(CheckError::Load)?;
        // As without a thread of its own, a panic in the compiler is the caller's.
        let other = other.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(Self {
            recompiled: other_tier(&load, &game, other),
            game,
            deadline,
            hibernate: options.hibernate,
            require_leaderboard: options.require_leaderboard,
        })
    }

    /// The game.
    #[must_use]
    pub fn game(&self) -> &Game {
        &self.game
    }

    /// Takes the game through `script` and judges what it did.
    #[must_use]
    pub fn check(&self, script: &Script) -> Report {
        let mut control = Lane::new(&self.game, script, Some(self.deadline), Keep::Counts);
        let lane = |game: &Game| Lane::new(game, script, None, Keep::Counts);
        let hibernated = Beside::hibernating(lane(&self.game), self.hibernate, script.snapshots());
        let replayed = Beside::new("replay", lane(&self.game));
        let recompiled = match &self.recompiled {
            Ok(game) => Beside::new("room on the other tier", lane(game)),
            Err(why) => Beside::stopped("room on the other tier", why.clone()),
        };
        let mut run = Run {
            script,
            rows: Vec::new(),
            shots: Vec::new(),
            fault: None,
            beside: [hibernated, replayed, recompiled],
        };
        run.drive(&mut control);
        run.report(&self.game, self.deadline, self.require_leaderboard)
    }
}

/// The options a script's game is loaded with.
pub(crate) fn load_options(base: &GameOptions, script: Option<&Script>) -> GameOptions {
    let mut options = base.clone();
    if let Some(script) = script {
        if let Some(deadline) = script.setup.deadline {
            options.deadline = deadline;
        }
        if let Some(pages) = script.setup.memory_pages_max {
            options.memory_pages_max = pages;
        }
    }
    options
}

/// The same with the tier the game is probably not loaded with.
fn other_options(options: &GameOptions) -> GameOptions {
    let mut other = options.clone();
    other.tier = match options.tier {
        Tier::Quick => Tier::Speed,
        Tier::Auto | Tier::Speed => Tier::Quick,
    };
    other
}

/// The game on the compiler tier it was not loaded with, or what that comes to: a tier the cost
/// estimate rules out is not checked, one that refuses the game is a failure.
fn other_tier(
    options: &GameOptions,
    game: &Game,
    other: Result<Game, LoadError>,
) -> Result<Game, Repeat> {
    let wanted = other_options(options).tier;
    let too_costly = || Repeat::NotChecked {
        why: "the game is too costly to compile for speed".to_owned(),
    };
    match other {
        Ok(other) if other.tier() == wanted && other.tier() != game.tier() => Ok(other),
        Ok(_) => Err(too_costly()),
        Err(error) => Err(Repeat::Broke {
            step: None,
            what: "refused",
            why: format!("the other tier refused the game: {}", error_line(&error)),
        }),
    }
}

/// The control's history, and the rooms beside it.
struct Run<'a> {
    script: &'a Script,
    rows: Vec<StepRow>,
    shots: Vec<Shot>,
    /// The step the control died at.
    fault: Option<(usize, u32, Fault)>,
    beside: [Beside; 3],
}

impl Run<'_> {
    fn drive(&mut self, control: &mut Lane) {
        let record = control.start();
        self.took(0, None, &record, control);
        for (index, step) in self.script.steps.iter().enumerate() {
            if self.fault.is_some() {
                return;
            }
            let record = control.step(&self.script.setup, step);
            self.took(index + 1, Some(step), &record, control);
            if let Step::Shot { name } = step {
                let seats = control.screens.iter();
                let seats: Vec<SeatShot> = seats.map(|(seat, f)| seat_shot(*seat, f)).collect();
                self.shots.push(Shot {
                    name: name.clone(),
                    step: index + 1,
                    seats,
                });
            }
        }
    }

    /// Notes a step of the control and takes the others through it.
    fn took(&mut self, number: usize, step: Option<&Step>, record: &Record, control: &mut Lane) {
        let mut row = row(number, step, record);
        if let Some(fault) = &record.fault {
            self.fault = Some((number, row.exit.unwrap_or(0), fault.clone()));
        }
        // A wall-clock kill stops at no particular instruction; there is nothing to compare with,
        // and a room with a wider deadline would run on and on.
        let by_clock = record
            .fault
            .as_ref()
            .is_some_and(|fault| matches!(fault, Fault::Deadline { .. } | Fault::HostIo { .. }));
        if !by_clock {
            for beside in &mut self.beside {
                let encoded = beside.follow(self.script, number, step, record, control);
                row.snapshot_bytes = row.snapshot_bytes.or(encoded);
            }
        }
        self.rows.push(row);
    }

    fn report(self, game: &Game, deadline: Duration, require_leaderboard: bool) -> Report {
        let meta = game.meta();
        let headroom = Headroom::of(&self.rows, deadline, game.memory_cap_bytes());
        let slowest = self.rows.iter().max_by_key(|row| row.latency_ns);
        let slowest = slowest.map_or((0, 0), |row| (row.step, row.latency_ns));
        // The earliest of the largest: the step that grew the memory.
        let peak = self.rows.iter().rev().max_by_key(|row| row.memory_bytes);
        let peak = peak.map_or((0, 0), |row| (row.step, row.memory_bytes));
        let fault = self
            .fault
            .as_ref()
            .map(|(step, exit, fault)| (*step, *exit, fault));
        let [hibernated, replayed, recompiled] = self.beside.map(|beside| beside.repeat);
        let mut verdicts = vec![
            verdict::guest_fault(fault),
            verdict::latency((slowest.0, Duration::from_nanos(slowest.1)), deadline),
            verdict::memory(peak, game.memory_cap_bytes()),
            verdict::repeat("hibernation determinism", "same as unsaved", hibernated),
            verdict::repeat("replay determinism", "same again", replayed),
            verdict::repeat("compiler determinism", "same on both tiers", recompiled),
        ];
        if require_leaderboard {
            verdicts.push(verdict::leaderboard(meta.leaderboard.is_some()));
        }
        Report {
            format: REPORT_FORMAT,
            game: GameFacts {
                artifact_sha256: hex(&game.digest().0),
                slug: meta.slug.to_string(),
                name: meta.name.clone(),
                min_players: meta.min_players,
                max_players: meta.max_players,
                abi_major: game.abi_major(),
                wire_revision: game.wire_revision(),
                tier: tier_name(game.tier()),
                warnings: game.warnings().iter().map(warning).collect(),
            },
            ok: verdicts.iter().all(verdict::Verdict::ok),
            tally: Tally::of(&verdicts),
            verdicts,
            headroom,
            steps_in_script: self.script.steps.len(),
            steps: self.rows,
            shots: self.shots,
        }
    }
}

/// A room that should repeat the control's history.
struct Beside {
    who: &'static str,
    lane: Option<Lane>,
    /// Set for the room that is saved and restored at `snapshot` steps.
    hibernates: Option<Restore>,
    /// Whether it ever was.
    restored: bool,
    /// Not checked until a step was compared, and for the room above until it was restored.
    repeat: Repeat,
}

impl Beside {
    fn new(who: &'static str, lane: Lane) -> Self {
        let why = "the clock stopped the control before there was anything to compare";
        let beside = Self::not_checked(who, why);
        Self {
            lane: Some(lane),
            ..beside
        }
    }

    /// The room that is saved and restored at each of the script's snapshot steps.
    fn hibernating(lane: Lane, how: Restore, snapshots: usize) -> Self {
        let who = "restored room";
        if snapshots == 0 {
            return Self::not_checked(who, "the script has no snapshot step");
        }
        let beside = Self::not_checked(who, "no snapshot step found the room alive");
        Self {
            lane: Some(lane),
            hibernates: Some(how),
            ..beside
        }
    }

    fn not_checked(who: &'static str, why: &str) -> Self {
        let why = why.to_owned();
        Self::stopped(who, Repeat::NotChecked { why })
    }

    /// A room there is not.
    fn stopped(who: &'static str, repeat: Repeat) -> Self {
        Self {
            who,
            lane: None,
            hibernates: None,
            restored: false,
            repeat,
        }
    }

    /// Takes the room through a step the control took. Stops for good at the first difference.
    /// Returns the encoded size when the room was saved.
    fn follow(
        &mut self,
        script: &Script,
        number: usize,
        step: Option<&Step>,
        control: &Record,
        control_lane: &mut Lane,
    ) -> Option<u64> {
        let lane = self.lane.as_mut()?;
        let mut encoded = None;
        let record = match (step, self.hibernates) {
            (None, _) => lane.start(),
            // A closed room has nothing to save.
            (Some(Step::Snapshot), Some(how)) if !lane.room.dead() => match lane.hibernate(how) {
                Ok(bytes) => {
                    self.restored = true;
                    encoded = u64::try_from(bytes.len()).ok();
                    lane.record(None)
                }
                Err(error) => {
                    let what = match &error {
                        HibernateError::Save(_) | HibernateError::Encode(_) => "snapshot failed",
                        HibernateError::Decode(_) | HibernateError::DecodeSck1(_) => {
                            "snapshot not readable"
                        }
                        HibernateError::Restore(_) => "restore failed",
                    };
                    self.stop(Repeat::Broke {
                        step: Some(number),
                        what,
                        why: error_line(&error),
                    });
                    return None;
                }
            },
            (Some(step), _) => lane.step(&script.setup, step),
        };
        let agree = match self.hibernates {
            Some(Restore::Sck1) => Agree::Visible,
            _ => Agree::Everything,
        };
        let guests = match agree {
            Agree::Everything => control_lane.guests(lane),
            Agree::Visible => Guests::Alike,
        };
        match difference(self.who, control, &record, &guests, agree) {
            Some(difference) => self.stop(Repeat::Differs {
                step: number,
                difference,
            }),
            // Before its first restore the room is one more replay.
            None if self.hibernates.is_some() && !self.restored => {}
            None => self.repeat = Repeat::Same { steps: number },
        }
        encoded
    }

    fn stop(&mut self, repeat: Repeat) {
        self.repeat = repeat;
        self.lane = None;
    }
}

/// What was logged last, which is where a panic says why.
fn last_words(effects: &Effects) -> Vec<String> {
    const RECORDS: usize = 8;
    let logs = &effects.logs;
    logs[logs.len().saturating_sub(RECORDS)..]
        .iter()
        .map(|logged| cut(&String::from_utf8_lossy(&logged.message)))
        .collect()
}

fn row(number: usize, step: Option<&Step>, record: &Record) -> StepRow {
    let call = record.call.as_ref();
    let host = call.map_or(Duration::ZERO, |call| call.host_time);
    let guest = call.map_or(Duration::ZERO, |call| call.guest_time);
    StepRow {
        step: number,
        what: step.map_or_else(|| "start".to_owned(), |step| cut(&step.to_string())),
        callback: call.map(|call| call.export),
        skipped: record.skipped.map(skip_name),
        latency_ns: nanos(guest + host),
        guest_ns: nanos(guest),
        host_ns: nanos(host),
        exit: call.map(|call| call.exit),
        fault: record.fault.as_ref().map(|fault| cut(&fault.to_string())),
        last_words: match record.fault {
            Some(_) => last_words(&record.effects),
            None => Vec::new(),
        },
        frames: call.map_or(0, |call| call.frames),
        bytes_out: call.map_or(0, |call| call.bytes_out),
        memory_bytes: record.state.memory_bytes,
        fuel: call.map_or(0, |call| call.fuel),
        host_calls: record.effects.host_calls.clone(),
        host_call_times: record.effects.host_call_times.clone(),
        snapshot_bytes: None,
    }
}

/// Why the guest was not called, in words.
pub(crate) fn skip_name(skip: Skip) -> String {
    match skip {
        Skip::Dead => "the room is dead or closed",
        Skip::NotStarted => "the room has not started",
        Skip::AlreadyStarted => "the room has started",
        Skip::Empty => "nobody is in the room",
        Skip::AlreadyMember => "the player is in the room",
        Skip::NotMember => "the player is not in the room",
        Skip::RosterTooLarge => "the roster cannot be described on the wire",
        _ => "the host says so",
    }
    .to_owned()
}

/// A warning: a game may have chosen some of its words.
fn warning(warning: &LoadWarning) -> String {
    cut(&warning.to_string())
}

fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Speed => "speed",
        Tier::Quick => "quick",
        Tier::Auto => "auto",
    }
}

#[cfg(test)]
mod tests;
