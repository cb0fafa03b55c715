//! `cargo xtask bench`: speed, which is never judged by a test.
//!
//! `host` compares rooms with wasmer alone; `rooms`, `crowd` and `neighbours` load the runtime; `durability`
//! measures what keeping rooms costs; `turns` holds a turn against openraft's bare write; `play` measures how soon a game
//! is seen; `check` holds `cabinet check` against the reference's program; `kill` measures how long after its deadline each
//! endless guest is dead: the misdeeds of `fixtures/misbehave.wasm`, and the guests of
//! `fixtures/wat` that never come out of a callback or of loading. Each prints a table and exit 1
//! when a limit is missed; run them on a quiet machine.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use cabinet_host::{
    CacheOptions, Fault, Game, GameOptions, Host, HostOptions, LoadError, NoServices, Outcome,
    Player, Room, RoomConfig, Seed,
};
use cabinet_wire::input::Input;
use serde::Deserialize;

mod check;
mod play;

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Wakes, room creation, restore and cached loads, next to wasmer alone. Needs
    /// `CABINET_REFERENCE`.
    Host,
    /// Thousands of small rooms at 20 wakes a second: CPU, lateness, memory.
    Rooms {
        /// How many.
        #[arg(long, default_value_t = 2_000)]
        count: u32,
    },
    /// One room of 100 to 1,000 players: the time of a tick. With `CABINET_REFERENCE` the
    /// reference's load test is played, else our own.
    Crowd,
    /// What rooms that burn their deadline or hang in a store cost 200 others.
    Neighbours,
    /// What it costs that rooms outlive their process: pauses, requests, parking, drains, lists.
    Durability,
    /// What a turn costs beside openraft's bare write, in memory, over TLS and on disk.
    Turns,
    /// `cabinet check`, from the start of its process to the end, beside `shellcade-kit check`.
    Check(check::Args),
    /// How soon `cabinet play` shows a game that was compiled before.
    Play {
        /// Runs of each game; the median counts.
        #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        runs: u32,
    },
    /// How long after its deadline each endless misdeed and guest of `fixtures` is dead.
    Kill {
        /// Runs of each; the worst counts.
        #[arg(long, default_value_t = 5)]
        runs: u32,
        /// The deadline, in milliseconds.
        #[arg(long, default_value_t = 100)]
        deadline_ms: u64,
    },
}

/// Dead within the deadline and this much, on a quiet core.
const LATE_MAX: Duration = Duration::from_millis(20);
/// Where a room's clock starts: 2023-11-14, in Unix nanoseconds.
const EPOCH: i64 = 1_700_000_000_000_000_000;

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    match &args.what {
        What::Host => example("cabinet-host", "bench-host", &[], &[]),
        What::Rooms { count } => rooms(&["rooms", &count.to_string()]),
        What::Crowd => rooms(&["crowd"]),
        What::Neighbours => rooms(&["neighbours"]),
        What::Durability => example(
            "cabinet-rooms",
            "bench-durability",
            &["--features", "s3"],
            &[],
        ),
        What::Turns => example(
            "cabinet-consensus",
            "bench-turns",
            // openraft checks its own state at every step in a debug build, and would look slower
            // than it is.
            &["--release", "--features", "testkit,tls"],
            &[],
        ),
        What::Play { runs } => exit_code("play", play::run(*runs)),
        What::Check(args) => exit_code("check", check::check(args)),
        What::Kill { runs, deadline_ms } => {
            let deadline = Duration::from_millis(*deadline_ms);
            exit_code("kill", kill((*runs).max(1), deadline))
        }
    }
}

/// 0 when every limit was met.
fn exit_code(name: &str, met: Result<bool, Error>) -> ExitCode {
    match met {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench {name}: {error}");
            ExitCode::from(2)
        }
    }
}

fn rooms(args: &[&str]) -> ExitCode {
    example("cabinet-rooms", "bench-rooms", &[], args)
}

/// Benches that name what xtask does not compile are examples of the crates that do.
fn example(package: &str, name: &str, features: &[&str], args: &[&str]) -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let ran = Command::new(cargo)
        .args(["run", "--quiet", "--package", package, "--example", name])
        .args(features)
        .arg("--")
        .args(args)
        .status();
    match ran {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => ExitCode::from(u8::try_from(status.code().unwrap_or(2)).unwrap_or(2)),
        Err(error) => {
            eprintln!("bench: cannot run cargo: {error}");
            ExitCode::from(2)
        }
    }
}

/// Why nothing could be measured.
type Error = Box<dyn std::error::Error>;

#[derive(Deserialize)]
struct Misdeeds {
    misdeed: Vec<Misdeed>,
}

#[derive(Deserialize)]
struct Misdeed {
    rune: String,
    name: String,
    outcome: String,
}

#[derive(Deserialize)]
struct Outcomes {
    guest: Vec<Guest>,
}

#[derive(Deserialize)]
struct Guest {
    file: String,
    phase: String,
    outcome: String,
}

/// Whether every endless guest of the fixtures was dead in time.
fn kill(runs: u32, deadline: Duration) -> Result<bool, Error> {
    let fixtures = fixtures();
    let misdeeds: Misdeeds =
        toml::from_str(&std::fs::read_to_string(fixtures.join("misdeeds.toml"))?)?;
    let wat = fixtures.join("wat");
    let guests: Outcomes = toml::from_str(&std::fs::read_to_string(wat.join("outcomes.toml"))?)?;

    // Loading again from the cache is mostly the guest's own endless call.
    let dir = tempfile::tempdir()?;
    let mut host = HostOptions::default();
    host.probe_deadline = deadline;
    host.cache = Some(CacheOptions {
        dir: dir.path().to_owned(),
        key: [0; 32],
    });
    let host = Host::new(host)?;
    let mut options = GameOptions::default();
    options.deadline = deadline;

    println!("deadline {deadline:?}, {runs} runs each, limit deadline + {LATE_MAX:?}");
    println!("{:<44} {:>12} {:>12}", "guest", "median late", "worst late");
    let mut met = true;
    let mut row = |name: &str, run: &mut dyn FnMut() -> Result<Duration, Error>| {
        let mut late = (0..runs)
            .map(|_| run().map(|took| took.saturating_sub(deadline)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("{name}: {error}"))?;
        late.sort_unstable();
        let (median, worst) = (late[late.len() / 2], late[late.len() - 1]);
        met &= worst <= LATE_MAX;
        println!(
            "{name:<44} {:>9.2} ms {:>9.2} ms{}",
            median.as_secs_f64() * 1e3,
            worst.as_secs_f64() * 1e3,
            if worst <= LATE_MAX { "" } else { "  MISSED" },
        );
        Ok::<(), Error>(())
    };

    let game = host.load(&std::fs::read(fixtures.join("misbehave.wasm"))?, &options)?;
    for misdeed in &misdeeds.misdeed {
        if misdeed.outcome == "fault:deadline" {
            let rune = misdeed.rune.chars().next().unwrap_or(' ');
            row(&misdeed.name, &mut || callback(&game, "input", rune))?;
        }
    }
    for guest in &guests.guest {
        let wasm = || wat::parse_file(wat.join(&guest.file));
        let name = format!("{} ({})", guest.file, guest.phase);
        match guest.outcome.as_str() {
            "fault:deadline" => {
                let game = host.load(&wasm()?, &options)?;
                row(&name, &mut || callback(&game, &guest.phase, 'x'))?;
            }
            "refused:deadline" => {
                let wasm = wasm()?;
                // Fills the cache.
                load(&host, &wasm, &options)?;
                row(&name, &mut || load(&host, &wasm, &options))?;
            }
            _ => {}
        }
    }
    Ok(met)
}

/// How long a new room's callback of that name took, which its deadline must have ended.
fn callback(game: &Game, phase: &str, rune: char) -> Result<Duration, Error> {
    let ada = Player::member("a1", "ada", "c1");
    let mut room = game.room(RoomConfig::new(Seed::Set(42)), Box::new(NoServices));
    type Step<'a> = (&'a str, &'a dyn Fn(&mut Room) -> Outcome);
    let steps: [Step<'_>; 7] = [
        ("start", &|room| room.start(EPOCH)),
        ("join", &|room| room.join(EPOCH, ada.clone())),
        ("input", &|room| {
            room.input(EPOCH, &ada, Input::Rune(rune.into()))
        }),
        ("wake", &|room| room.wake(EPOCH)),
        ("wake2", &|room| room.wake(EPOCH)),
        ("leave", &|room| room.leave(EPOCH, &ada)),
        ("close", &|room| room.close(EPOCH)),
    ];
    for (name, step) in steps {
        let began = Instant::now();
        let outcome = step(&mut room);
        let took = began.elapsed();
        let killed = matches!(room.fault(), Some(Fault::Deadline { .. }));
        match outcome {
            Outcome::Faulted(_) if killed && name == phase => return Ok(took),
            Outcome::Done(_) if name != phase => {}
            other => return Err(format!("{name}: {other:?}, not a deadline in {phase}").into()),
        }
    }
    Err(format!("there is no callback {phase}").into())
}

/// How long loading took, which the probe's deadline must have ended.
fn load(host: &Host, wasm: &[u8], options: &GameOptions) -> Result<Duration, Error> {
    let began = Instant::now();
    let loaded = host.load(wasm, options);
    let took = began.elapsed();
    match loaded {
        Err(LoadError::Probe {
            fault: Fault::Deadline { .. },
            ..
        }) => Ok(took),
        Err(error) => Err(format!("{error}, not a deadline").into()),
        Ok(_) => Err("loaded, no deadline".into()),
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}
