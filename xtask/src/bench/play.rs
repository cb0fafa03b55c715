//! How soon `cabinet play` shows a game that was compiled before.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{Error, fixtures};

/// From the start of the process to its first frame, on a quiet machine.
const FIRST_FRAME_MAX: Duration = Duration::from_millis(50);
/// Games that draw when somebody joins. `crowd` draws at its first wake, a heartbeat later whatever
/// the host does.
const GAMES: &[&str] = &["coil", "fences", "tour"];

/// What `play --bench-first-frame` prints.
#[derive(Debug, Deserialize)]
struct Told {
    first_frame_ms: f64,
    load_ms: f64,
    from_cache: bool,
}

/// Plays each game `runs` times in processes of their own, after once to fill a cache. Whether the
/// median of each was in time.
pub(super) fn run(runs: u32) -> Result<bool, Error> {
    let cabinet = build()?;
    let cache = tempfile::tempdir()?;
    println!(
        "{:<8} {:>10} {:>10} {:>10} {:>10} {:>12}",
        "game", "compiled", "load", "first", "worst", "process"
    );
    let mut in_time = true;
    for game in GAMES {
        let play = || play(&cabinet, game, cache.path());
        let (compiled, _) = play()?;
        if compiled.from_cache {
            return Err(format!("{game} was in a cache that is empty").into());
        }
        let mut measured = (0..runs).map(|_| play()).collect::<Result<Vec<_>, _>>()?;
        if measured.iter().any(|(told, _)| !told.from_cache) {
            return Err(format!("{game} was compiled again").into());
        }
        measured.sort_by(|(a, _), (b, _)| a.first_frame_ms.total_cmp(&b.first_frame_ms));
        let (median, process) = &measured[measured.len() / 2];
        let worst = measured.last().map_or(0.0, |(told, _)| told.first_frame_ms);
        println!(
            "{game:<8} {:>7.1} ms {:>7.1} ms {:>7.1} ms {worst:>7.1} ms {:>9.1} ms",
            compiled.first_frame_ms,
            median.load_ms,
            median.first_frame_ms,
            process.as_secs_f64() * 1_000.0,
        );
        in_time &= median.first_frame_ms < FIRST_FRAME_MAX.as_secs_f64() * 1_000.0;
    }
    println!(
        "first frame within {} ms: {}",
        FIRST_FRAME_MAX.as_millis(),
        if in_time { "yes" } else { "NO" }
    );
    Ok(in_time)
}

/// The program, with the optimisations of the other benches.
fn build() -> Result<PathBuf, Error> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--package", "cabinet-cli"])
        .status()?;
    if !built.success() {
        return Err(format!("cabinet does not build ({built})").into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Ok(root.join(target).join("debug/cabinet"))
}

/// What it says, and how long the whole process took.
fn play(cabinet: &Path, game: &str, cache: &Path) -> Result<(Told, Duration), Error> {
    let began = Instant::now();
    let output: Output = Command::new(cabinet)
        .arg("play")
        .arg(fixtures().join(game).with_extension("wasm"))
        .arg("--bench-first-frame")
        .env("XDG_CACHE_HOME", cache)
        .output()?;
    let took = began.elapsed();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok((serde_json::from_slice(&output.stdout)?, took))
}
