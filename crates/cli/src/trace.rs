//! `cabinet trace`: what a guest and the host said to each other, as JSON lines.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

use cabinet_conformance::script::Step;
use cabinet_conformance::{Restore, Script, TraceError, TraceOptions, error_line, files, trace};
use cabinet_host::{GameOptions, Host};

use crate::artifact::Artifact;
use crate::host_cache::CacheArgs;
use crate::outcome::{Outcome, Problem};
use crate::overwrite::{self, Overwritten};

/// Arguments of `cabinet trace`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cabinet trace game.wasm --script win.script --grids -o a.jsonl
  cabinet trace game.wasm --set 'seed 7' --set 'config speed=2'

`cabinet diff a.jsonl b.jsonl` tells where two traces part.")]
pub struct Args {
    /// A game's module, or its directory, which is built first.
    #[arg(value_name = "FILE|DIR")]
    game: PathBuf,
    /// The script to take it through; one that fits the game's party when there is none.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// A setup line to lay over the script's, such as `seed 7` or `seat 1 guest handle=zoë`.
    #[arg(long, value_name = "LINE")]
    set: Vec<String>,
    /// Also write every frame whole, so that `diff` can compare cells.
    #[arg(long)]
    grids: bool,
    /// How the room is restored at a `snapshot` step.
    #[arg(long, default_value = "complete")]
    restore: Flavour,
    /// Where to write; stdout when there is none.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    cache: CacheArgs,
}

/// Longest first line of a trace that is looked at, bytes: a game's meta is in it.
const HEADER_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Flavour {
    /// Our snapshots: the restored room equals the saved one.
    Complete,
    /// The reference's blob, with its epoch bumps.
    Sck1,
}

/// Runs the command.
///
/// # Errors
/// A [`Problem`] when the game or the script is not usable, or the trace cannot be written.
pub fn run(args: &Args) -> Result<Outcome, Problem> {
    let given = args.script.as_deref().map(files::read_script).transpose();
    let given = given.map_err(|error| Problem::new(error_line(&error)))?;
    let artifact = Artifact::resolve(&args.game)?;
    let host = args.cache.host()?;
    let mut script = match given {
        Some(script) => script,
        None => one_snapshot(Script::for_party(party(&host, &artifact)?)),
    };
    for line in &args.set {
        let set = script.setup.set(line);
        set.map_err(|problem| Problem::new(format!("--set `{line}`: {problem}")))?;
    }
    let options = TraceOptions {
        artifact: artifact.path.display().to_string(),
        restore: match args.restore {
            Flavour::Complete => Restore::Complete,
            Flavour::Sck1 => Restore::Sck1,
        },
        grids: args.grids,
        ..TraceOptions::default()
    };
    let mut out: Box<dyn Write> = match &args.output {
        None => Box::new(io::stdout().lock()),
        Some(path) => Box::new(create(path)?),
    };
    let mut buffered = BufWriter::new(&mut out);
    let traced = trace(&host, &artifact.wasm, &options, &script, &mut buffered);
    // What was written before a problem is worth having.
    let flushed = buffered.flush();
    match traced.and_then(|()| Ok(flushed?)) {
        // A reader that went away, such as `head`, has read enough.
        Err(TraceError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => return Err(Problem::about(artifact.path.display(), &error)),
        Ok(()) => {}
    }
    Ok(Outcome::Good)
}

/// Players the game takes, for a script that fits it.
fn party(host: &Host, artifact: &Artifact) -> Result<u16, Problem> {
    let game = host
        .load(&artifact.wasm, &GameOptions::default())
        .map_err(|error| Problem::about(artifact.path.display(), &error))?;
    Ok(game.meta().max_players)
}

/// A file to write to. One that is something else than a trace is left alone.
fn create(path: &Path) -> Result<File, Problem> {
    let is_trace = |file: &File| {
        let mut first = Vec::new();
        BufReader::new(file.take(HEADER_BYTES_MAX)).read_until(b'\n', &mut first)?;
        let header: Option<serde_json::Value> = serde_json::from_slice(&first).ok();
        Ok(header.is_some_and(|header| header.get("artifact_sha256").is_some()))
    };
    match overwrite::open(path, is_trace) {
        Ok(Overwritten::File(file)) => Ok(file),
        Ok(Overwritten::NotOurs) => Err(Problem::new(format!(
            "{}: it is there, and is no trace; name another file",
            path.display()
        ))),
        Err(error) => Err(Problem::new(error_line(&error))),
    }
}

/// The script with its first snapshot only: a trace takes one.
fn one_snapshot(mut script: Script) -> Script {
    let mut snapshots = 0;
    script.steps.retain(|step| {
        snapshots += usize::from(*step == Step::Snapshot);
        *step != Step::Snapshot || snapshots == 1
    });
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trace_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"\0asm\x01\0\0\0").unwrap();
        let told = create(&path).unwrap_err().to_string();
        assert!(told.contains("is no trace; name another file"), "{told}");
        assert_eq!(std::fs::read(&path).unwrap(), b"\0asm\x01\0\0\0");
        std::fs::write(&path, b"{\"artifact_sha256\":\"00\"}\n{\"seq\":0}\n").unwrap();
        create(&path).unwrap().write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        create(&dir.path().join("b")).unwrap();
    }

    #[test]
    fn a_script_keeps_its_first_snapshot_and_every_other_step() {
        let script = Script::parse("join 0\nsnapshot\nwake\nsnapshot\nwake").unwrap();
        let one = one_snapshot(script);
        assert_eq!(one, Script::parse("join 0\nsnapshot\nwake\nwake").unwrap());
    }
}
