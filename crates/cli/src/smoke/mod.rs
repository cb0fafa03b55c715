//! `cabinet smoke`: plays a game by its `smoke.yaml` and writes what players see as files.
//!
//! [`SmokeScript`] reads the script, the conformance crate plays it, [`render`], [`pixels`] and
//! [`files`] make bytes of the screens, [`compare`] holds committed ones against them. The `.ansi` and
//! `.txt` files are the reference kit's, byte for byte; `docs/FORMATS.md` describes them.

pub mod compare;
pub mod files;
pub mod font;
mod go;
mod parse;
pub mod pixels;
pub mod render;
mod yaml;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cabinet_conformance::files::{FileError, none_or_file, open};
use cabinet_conformance::{During, SeatFrames, ShotsError, error_line, run_shots};
use cabinet_host::{Game, GameOptions};
use serde_json::json;

pub use parse::{
    MAX_CONFIG, MAX_NAME_BYTES, MAX_SEATS, MAX_SHOTS, MAX_STEPS, ScriptProblem, SmokeScript,
};
pub use yaml::{MAX_DEPTH, MAX_SCRIPT_BYTES};

use crate::artifact::Artifact;
use crate::host_cache::CacheArgs;
use crate::outcome::{self, Outcome, Problem, remark, say};
use files::Picture;
use font::Font;

/// How long one callback may take. Wide: whether a game keeps its deadline is for `check` to say,
/// and pictures must not depend on how busy the machine is.
const DEADLINE: Duration = Duration::from_secs(10);

/// Play a game by its smoke.yaml and write the screens it names.
///
/// Without options the screens go to ./smoke-out, as .ansi (with colours) and .txt; with --png as
/// pictures too. With --update they become the committed ones, in the folder `shots` beside
/// smoke.yaml unless --out says otherwise; --check compares with those, shows every cell that
/// differs, and ends with exit code 1 when one does.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The game: a .wasm file, or a folder that is built first.
    #[arg(value_name = "FILE|DIR")]
    pub game: PathBuf,
    /// Where the files go, or are compared with.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// The script; smoke.yaml beside the game unless given.
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Compare with the committed files; write nothing.
    #[arg(long, conflicts_with = "update")]
    pub check: bool,
    /// Make the committed files what the game draws now; remove those no shot makes any more.
    #[arg(long)]
    pub update: bool,
    /// Make, or compare, pictures as well: 640 by 384 pixels.
    #[arg(long)]
    pub png: bool,
    /// Say what was done as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    cache: CacheArgs,
}

/// Runs the command.
///
/// # Errors
/// [`Problem`] when the game, the script or the folder cannot be used.
pub fn run(args: &Args) -> Result<Outcome, Problem> {
    // Before the script is looked for beside it.
    fs::metadata(&args.game).map_err(|error| Problem::about(args.game.display(), &error))?;
    let beside = folder_of(&args.game);
    let script_path = args
        .script
        .clone()
        .unwrap_or_else(|| beside.join("smoke.yaml"));
    let script = read_script(&script_path)?;
    let game = load(&Artifact::resolve(&args.game)?, args.cache)?;
    let pictures = files::pictures(&film(&game, &script)?);
    let shots = script.run.steps.iter();
    let count = shots
        .filter(|step| matches!(step, cabinet_conformance::ShotStep::Shot { .. }))
        .count();
    let committed = || folder_of(&script_path).join("shots");
    if args.check {
        let out = args.out.clone().unwrap_or_else(committed);
        return check(&out, &pictures, args);
    }
    let out = match (&args.out, args.update) {
        (Some(out), _) => out.clone(),
        (None, true) => committed(),
        (None, false) => PathBuf::from("smoke-out"),
    };
    let font = args.png.then(Font::spleen);
    let written = write(&out, &pictures, font.as_ref())?;
    let removed = if args.update {
        remove_others(&out, &written)?
    } else {
        Vec::new()
    };
    if args.json {
        say(format_args!(
            "{}\n",
            outcome::json(
                &json!({ "shots": count, "out": out.display().to_string(), "files": written, "removed": removed })
            )
        ))?;
        return Ok(Outcome::Good);
    }
    for name in &written {
        say(format_args!("{name}\n"))?;
    }
    for name in &removed {
        say(format_args!("removed {name}\n"))?;
    }
    say(format_args!("smoke: {count} shots → {}\n", out.display()))?;
    Ok(Outcome::Good)
}

/// Plays a script and returns what its shots saw.
///
/// # Errors
/// [`Problem`] when the guest faults, or a seat is filmed before it was shown anything; with the
/// script's line.
pub fn film(game: &Game, script: &SmokeScript) -> Result<Vec<SeatFrames>, Problem> {
    if !script.heartbeat.as_nanos().is_multiple_of(1_000_000) {
        let beat = go::duration(script.heartbeat);
        let what = format!("smoke: heartbeat {beat} must be a whole number of milliseconds");
        return Err(Problem::new(what));
    }
    run_shots(game, &script.run, Some(DEADLINE)).map_err(|error| {
        let step = match &error {
            ShotsError::Faulted {
                during: During::Step { index, .. },
                ..
            }
            | ShotsError::NoFrame { index, .. } => Some(*index),
            _ => None,
        };
        match step.and_then(|index| script.lines.get(index)) {
            Some(line) => Problem::new(format!("{error} (smoke.yaml:{line})")),
            None => Problem::new(error.to_string()),
        }
    })
}

fn read_script(path: &Path) -> Result<SmokeScript, Problem> {
    // One byte more than allowed is enough to know.
    let bytes = read_up_to(path, MAX_SCRIPT_BYTES as u64 + 1).map_err(|error| {
        let what = error_line(&error);
        Problem::new(format!("{what}; name the script with --script FILE"))
    })?;
    SmokeScript::parse(&bytes).map_err(|problem| Problem::new(problem.to_string()))
}

/// The first bytes of a file.
fn read_up_to(path: &Path, max: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let read = open(path)?.take(max).read_to_end(&mut bytes);
    read.map_err(|source| FileError::Io {
        path: path.to_owned(),
        source,
    })?;
    Ok(bytes)
}

/// Writes the files of every picture, with a `font` also the one of pixels, and returns their names.
fn write(out: &Path, pictures: &[Picture], font: Option<&Font>) -> Result<Vec<String>, Problem> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| Problem::new(format!("smoke: {path}: {error}"))
    };
    fs::create_dir_all(out).map_err(failed(out))?;
    let mut names = Vec::new();
    let files = pictures.iter().flat_map(|picture| {
        let png = font.map(|font| picture.png(font));
        [picture.ansi(), picture.text()].into_iter().chain(png)
    });
    for (name, bytes) in files {
        let path = out.join(&name);
        none_or_file(&path)
            .map_err(|error| Problem::new(format!("smoke: {}", error_line(&error))))?;
        fs::write(&path, bytes).map_err(failed(&path))?;
        names.push(name);
    }
    Ok(names)
}

/// Removes shot files that no shot makes any more, and returns their names.
fn remove_others(out: &Path, made: &[String]) -> Result<Vec<String>, Problem> {
    let others = others(out, made)?;
    for name in &others {
        let path = out.join(name);
        fs::remove_file(&path)
            .map_err(|error| Problem::new(format!("smoke: {}: {error}", path.display())))?;
    }
    Ok(others)
}

fn others(out: &Path, made: &[String]) -> Result<Vec<String>, Problem> {
    let failed = |error: io::Error| Problem::new(format!("smoke: {}: {error}", out.display()));
    let made: BTreeSet<&str> = made.iter().map(String::as_str).collect();
    let mut others = BTreeSet::new();
    for entry in fs::read_dir(out).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str().filter(|name| !made.contains(name)) else {
            continue;
        };
        // A name is no proof: what is removed was a shot by its content, or stands beside one.
        let Some(stem) = files::stem_of(name) else {
            continue;
        };
        let ansi = committed_file(&out.join(format!("{stem}.ansi")))?;
        if ansi.is_some_and(|bytes| compare::is_shot(&bytes)) {
            others.insert(name.to_owned());
        }
    }
    Ok(others.into_iter().collect())
}

fn check(out: &Path, pictures: &[Picture], args: &Args) -> Result<Outcome, Problem> {
    if !out.is_dir() {
        let what = format!(
            "smoke: {} is no folder of shots; make it with --update",
            out.display()
        );
        return Err(Problem::new(what));
    }
    let font = args.png.then(Font::spleen);
    let mut made = Vec::new();
    let mut differing = Vec::new();
    for picture in pictures {
        let (ansi, _) = picture.ansi();
        let (text, bytes) = picture.text();
        let committed = committed_file(&out.join(&ansi))?;
        let mut lines = match &committed {
            None => vec![format!("{ansi}: not committed")],
            Some(committed) => compare::difference(picture, committed),
        };
        match committed_file(&out.join(&text))? {
            None => lines.push(format!("{text}: not committed")),
            // What the file with colours says is not said twice.
            Some(committed) if committed != bytes && lines.is_empty() => {
                lines.push(format!("{text}: differs, though {ansi} does not"));
            }
            Some(_) => {}
        }
        if let Some(font) = &font {
            let png = committed_file(&out.join(picture.png_name()))?;
            lines.extend(compare::png_difference(
                picture,
                font,
                png.as_deref(),
                lines.is_empty(),
            ));
        }
        if !lines.is_empty() {
            differing.push((picture.stem.clone(), lines));
        }
        made.extend([ansi, text]);
        made.push(picture.png_name());
    }
    for name in others(out, &made)? {
        let line = format!("{name}: no shot makes it");
        differing.push((name, vec![line]));
    }
    if args.json {
        let told = differing.iter();
        let told: Vec<_> = told
            .map(|(shot, lines)| json!({ "shot": shot, "lines": lines }))
            .collect();
        say(format_args!(
            "{}\n",
            outcome::json(
                &json!({ "same": differing.is_empty(), "out": out.display().to_string(), "differing": told })
            )
        ))?;
    } else {
        for line in differing.iter().flat_map(|(_, lines)| lines) {
            say(format_args!("{line}\n"))?;
        }
    }
    if differing.is_empty() {
        if !args.json {
            say(format_args!(
                "smoke: {} screens as committed in {}\n",
                pictures.len(),
                out.display()
            ))?;
        }
        return Ok(Outcome::Good);
    }
    remark(format_args!(
        "smoke: {} of {} screens differ from {}; if that is meant, run again with --update",
        differing.len(),
        pictures.len(),
        out.display()
    ));
    Ok(Outcome::Bad)
}

/// A committed file; `None` where there is none.
fn committed_file(path: &Path) -> Result<Option<Vec<u8>>, Problem> {
    match read_up_to(path, compare::MAX_SHOT_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Problem::new(format!("smoke: {}", error_line(&error)))),
    }
}

/// The folder a file is in, or the folder itself.
fn folder_of(path: &Path) -> PathBuf {
    if path.is_dir() {
        return path.to_owned();
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn load(artifact: &Artifact, cache: CacheArgs) -> Result<Game, Problem> {
    cache
        .host()?
        .load(&artifact.wasm, &GameOptions::default())
        .map_err(|error| Problem::about(artifact.path.display(), &error))
}
