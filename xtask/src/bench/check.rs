//! `cargo xtask bench check`: what an author's CI waits for, `cabinet check` beside the reference's
//! `shellcade-kit check`.
//!
//! The three are run in turns, so that whatever the machine does meanwhile it does to all: ours with
//! an empty compile cache, ours again with what that left in it, and the reference, which has no
//! cache. Each is a process from start to end, as a shell would run it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Error, fixtures};
use crate::run::{self, Ran};

/// Arguments of `cargo xtask bench check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The reference's program; else what `CABINET_REFERENCE_BIN` names, else `bin/shellcade-kit` in
    /// `CABINET_REFERENCE`.
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// Our program; without it the workspace's is built for release, which compiles wasmer too.
    #[arg(long, value_name = "FILE")]
    cabinet: Option<PathBuf>,
    /// The game; the reference's `fixture.wasm` with `CABINET_REFERENCE`, else our `coil.wasm`.
    #[arg(long, value_name = "FILE")]
    game: Option<PathBuf>,
    /// How often each runs; the median counts.
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
}

/// Whether ours is as fast as the reference, cold and warm.
pub fn check(args: &Args) -> Result<bool, Error> {
    let checkout = std::env::var_os("CABINET_REFERENCE").map(PathBuf::from);
    let in_checkout = |name: &str| checkout.as_ref().map(|checkout| checkout.join(name));
    let game = args
        .game
        .clone()
        .or_else(|| in_checkout("host/gameabi/testdata/fixture/fixture.wasm"))
        .unwrap_or_else(|| fixtures().join("coil.wasm"));
    let named = || std::env::var_os("CABINET_REFERENCE_BIN").map(PathBuf::from);
    let reference = args
        .reference
        .clone()
        .or_else(named)
        .or_else(|| in_checkout("bin/shellcade-kit").filter(|path| path.is_file()));
    let cabinet = match &args.cabinet {
        Some(path) => path.clone(),
        None => built()?,
    };
    if reference.is_none() {
        println!("SKIPPED the reference's half: name its program with --reference FILE");
    }
    println!(
        "check {}, {} runs each, in turns",
        game.display(),
        args.runs
    );
    let (mut cold, mut warm, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.runs {
        let home = tempfile::tempdir()?;
        cold.push(timed(&cabinet, &game, home.path())?);
        warm.push(timed(&cabinet, &game, home.path())?);
        if let Some(program) = &reference {
            theirs.push(timed(program, &game, home.path())?);
        }
    }
    println!("{:<28} {:>10} {:>10}", "", "median", "best");
    let cold = row("cabinet, nothing cached", &mut cold);
    let warm = row("cabinet, compiled before", &mut warm);
    let Some(theirs) = row("shellcade-kit", &mut theirs) else {
        return Ok(true);
    };
    let ratio = |ours: Option<Duration>| {
        ours.map_or(f64::NAN, |ours| ours.as_secs_f64() / theirs.as_secs_f64())
    };
    println!(
        "of the reference's time: {:.2} cold, {:.2} warm",
        ratio(cold),
        ratio(warm)
    );
    Ok([cold, warm]
        .into_iter()
        .flatten()
        .all(|ours| ours <= theirs))
}

/// The workspace's program, as it ships.
fn built() -> Result<PathBuf, Error> {
    if run::cargo(&[], &["build", "--release", "--package", "cabinet-cli"]) != Ran::Well {
        return Err("cabinet does not build".into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    Ok(target.join("release/cabinet"))
}

/// How long one check takes, from the start of its process to its end.
fn timed(program: &Path, game: &Path, cache: &Path) -> Result<Duration, Error> {
    let mut command = Command::new(program);
    command
        .arg("check")
        .arg(game)
        .env("XDG_CACHE_HOME", cache)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let began = Instant::now();
    let status = command
        .status()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let took = began.elapsed();
    if !status.success() {
        return Err(format!("{} check: {status}", program.display()).into());
    }
    Ok(took)
}

/// Prints the median and the best, and returns the former.
fn row(name: &str, times: &mut [Duration]) -> Option<Duration> {
    times.sort_unstable();
    let (median, best) = (*times.get(times.len() / 2)?, *times.first()?);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!("{name:<28} {:>7.1} ms {:>7.1} ms", ms(median), ms(best));
    Some(median)
}
