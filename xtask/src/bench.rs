//! `cargo xtask bench`: speed, which is never judged by a test.
//!
//! `host` compares rooms with wasmer alone; `kill` measures how long after its deadline each
//! endless misdeed is dead. Both print a table and exit 1 when a limit is missed; run them on a
//! quiet machine.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use cabinet_host::{
    Fault, GameOptions, Host, HostOptions, NoServices, Outcome, Player, RoomConfig, Seed,
};
use cabinet_wire::input::Input;
use serde::Deserialize;

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
    /// How long after its deadline each endless misdeed of `fixtures/misbehave.wasm` is dead.
    Kill {
        /// Runs of each misdeed; the worst counts.
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
    match args.what {
        What::Host => host(),
        What::Kill { runs, deadline_ms } => {
            match kill(runs.max(1), Duration::from_millis(deadline_ms)) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(error) => {
                    eprintln!("bench kill: {error}");
                    ExitCode::from(2)
                }
            }
        }
    }
}

/// The comparison names wasmer, so it is an example of the one crate that may.
fn host() -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let ran = Command::new(cargo)
        .args([
            "run",
            "--quiet",
            "--package",
            "cabinet-host",
            "--example",
            "bench-host",
        ])
        .status();
    match ran {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => ExitCode::from(u8::try_from(status.code().unwrap_or(2)).unwrap_or(2)),
        Err(error) => {
            eprintln!("bench host: cannot run cargo: {error}");
            ExitCode::from(2)
        }
    }
}

#[derive(Deserialize)]
struct Table {
    misdeed: Vec<Misdeed>,
}

#[derive(Deserialize)]
struct Misdeed {
    rune: String,
    name: String,
    outcome: String,
}

fn kill(runs: u32, deadline: Duration) -> Result<bool, Box<dyn std::error::Error>> {
    let fixtures = fixtures();
    let table: Table = toml::from_str(&std::fs::read_to_string(fixtures.join("misdeeds.toml"))?)?;
    let host = Host::new(HostOptions::default())?;
    let mut options = GameOptions::default();
    options.deadline = deadline;
    let game = host.load(&std::fs::read(fixtures.join("misbehave.wasm"))?, &options)?;
    println!("deadline {deadline:?}, {runs} runs each, limit deadline + {LATE_MAX:?}");
    println!(
        "{:<26} {:>12} {:>12}",
        "misdeed", "median late", "worst late"
    );
    let mut met = true;
    let endless = table
        .misdeed
        .iter()
        .filter(|misdeed| misdeed.outcome == "fault:deadline");
    for misdeed in endless {
        let rune = misdeed.rune.chars().next().unwrap_or(' ');
        let mut late = Vec::new();
        for _ in 0..runs {
            let ada = Player::member("a1", "ada", "c1");
            let mut room = game.room(RoomConfig::new(Seed::Set(42)), Box::new(NoServices));
            let _ = room.start(EPOCH);
            let _ = room.join(EPOCH, ada.clone());
            let began = Instant::now();
            let outcome = room.input(EPOCH, &ada, Input::Rune(rune.into()));
            let took = began.elapsed();
            let killed = matches!(outcome, Outcome::Faulted(_))
                && matches!(room.fault(), Some(Fault::Deadline { .. }));
            if !killed {
                return Err(format!("{}: {outcome:?}, not a deadline", misdeed.name).into());
            }
            late.push(took.saturating_sub(deadline));
        }
        late.sort_unstable();
        let (median, worst) = (late[late.len() / 2], late[late.len() - 1]);
        met &= worst <= LATE_MAX;
        println!(
            "{:<26} {:>9.2} ms {:>9.2} ms{}",
            misdeed.name,
            median.as_secs_f64() * 1e3,
            worst.as_secs_f64() * 1e3,
            if worst <= LATE_MAX { "" } else { "  MISSED" },
        );
    }
    Ok(met)
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}
