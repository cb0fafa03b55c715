//! `cabinet trace`: what a guest and the host said to each other, as JSON lines.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use cabinet_conformance::script::Step;
use cabinet_conformance::{Restore, Script, TraceError, TraceOptions, error_line, files, trace};
use cabinet_host::{Host, HostOptions};

use crate::artifact::Artifact;
use crate::outcome::{Outcome, Problem};

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
}

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
    let mut script = given.unwrap_or_else(|| one_snapshot(Script::for_party(2)));
    for line in &args.set {
        let set = script.setup.set(line);
        set.map_err(|problem| Problem::new(format!("--set `{line}`: {problem}")))?;
    }
    let artifact = Artifact::resolve(&args.game)?;
    let host = Host::new(HostOptions::default()).map_err(|error| Problem::about("host", &error))?;
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
        Some(path) => {
            let file = File::create(path);
            Box::new(file.map_err(|error| Problem::about(path.display(), &error))?)
        }
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
    fn a_script_keeps_its_first_snapshot_and_every_other_step() {
        let script = Script::parse("join 0\nsnapshot\nwake\nsnapshot\nwake").unwrap();
        let one = one_snapshot(script);
        assert_eq!(one, Script::parse("join 0\nsnapshot\nwake\nwake").unwrap());
    }
}
