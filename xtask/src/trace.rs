//! `cargo xtask trace`: what a guest and the host said to each other, as JSON lines.
//!
//! Options lay over what the script's own setup lines say.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use cabinet_conformance::{Restore, Script, TraceOptions, error_line, trace};
use cabinet_host::{Host, HostOptions};

use crate::conformance::{read_artifact, read_script};

/// Arguments of `cargo xtask trace`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The game.
    #[arg(long, value_name = "FILE")]
    artifact: PathBuf,
    /// The script to take it through.
    #[arg(long, value_name = "FILE")]
    script: PathBuf,
    /// The room's seed.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<i64>,
    /// `quick`, `private` or `solo`.
    #[arg(long)]
    mode: Option<String>,
    /// Seats in the room.
    #[arg(long, value_name = "N")]
    capacity: Option<u32>,
    /// Players the room wants.
    #[arg(long, value_name = "N")]
    min_players: Option<u32>,
    /// Wall time one callback may take, such as `5s`.
    #[arg(long, value_name = "DURATION")]
    deadline: Option<String>,
    /// Cap on guest memory, pages of 64 KiB.
    #[arg(long, value_name = "N")]
    memory_pages: Option<u32>,
    /// A config value of the game.
    #[arg(long, value_name = "KEY=VALUE")]
    config: Vec<String>,
    /// Who sits in a seat, as a script's `seat` line has it: `1 guest handle=zoë conn=c9`.
    #[arg(long, value_name = "SEAT KIND FIELD=VALUE ...")]
    player: Vec<String>,
    /// Room clock at start, since 1970, such as `1700000000s`.
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    clock: Option<String>,
    /// How the room is restored at a `snapshot` step.
    #[arg(long, default_value = "complete")]
    restore: Flavour,
    /// Where to write; stdout when there is none.
    #[arg(long, value_name = "FILE")]
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
pub fn run(args: &Args) -> ExitCode {
    match try_run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("trace: {problem}");
            ExitCode::from(2)
        }
    }
}

fn try_run(args: &Args) -> Result<(), String> {
    let mut script = read_script(&args.script)?;
    lay_over(args, &mut script)?;
    let wasm = read_artifact(&args.artifact)?;
    let host = Host::new(HostOptions::default()).map_err(|error| error_line(&error))?;
    let options = TraceOptions {
        artifact: args.artifact.display().to_string(),
        restore: match args.restore {
            Flavour::Complete => Restore::Complete,
            Flavour::Sck1 => Restore::Sck1,
        },
        ..TraceOptions::default()
    };
    let mut out: Box<dyn Write> = match &args.output {
        None => Box::new(io::stdout().lock()),
        Some(path) => {
            let file = File::create(path);
            Box::new(file.map_err(|error| format!("{}: {error}", path.display()))?)
        }
    };
    let mut buffered = BufWriter::new(&mut out);
    let traced = trace(&host, &wasm, &options, &script, &mut buffered);
    // What was written before a problem is worth having.
    let flushed = buffered.flush();
    traced.map_err(|error| format!("{}: {}", args.artifact.display(), error_line(&error)))?;
    flushed.map_err(|error| format!("the trace could not be written: {error}"))
}

fn lay_over(args: &Args, script: &mut Script) -> Result<(), String> {
    let mut lines = Vec::new();
    lines.extend(args.seed.map(|seed| format!("seed {seed}")));
    lines.extend(args.mode.as_ref().map(|mode| format!("mode {mode}")));
    lines.extend(args.capacity.map(|seats| format!("capacity {seats}")));
    lines.extend(
        args.min_players
            .map(|players| format!("min-players {players}")),
    );
    lines.extend(
        args.deadline
            .as_ref()
            .map(|deadline| format!("deadline {deadline}")),
    );
    lines.extend(
        args.memory_pages
            .map(|pages| format!("memory-pages {pages}")),
    );
    lines.extend(args.clock.as_ref().map(|clock| format!("clock {clock}")));
    lines.extend(args.player.iter().map(|player| format!("seat {player}")));
    for line in lines {
        script
            .setup
            .set(&line)
            .map_err(|problem| format!("`{line}`: {problem}"))?;
    }
    for pair in &args.config {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("--config {pair:?} is not KEY=VALUE"))?;
        script.setup.config.insert(key.to_owned(), value.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn options_lay_over_the_scripts_setup() {
        let line = "trace --artifact a.wasm --script s --seed -7 --mode solo --capacity 3 \
                    --min-players 2 --deadline 5s --memory-pages 80 --clock -5s --restore sck1";
        let words = line
            .split_whitespace()
            .chain(["--config", "greeting=a b", "--player"]);
        let cli = Cli::parse_from(words.chain(["1 guest account= handle=zoë"]));
        let mut script = Script::parse("seed 1\nseat 1 member\nconfig greeting=x\njoin 1").unwrap();
        lay_over(&cli.args, &mut script).unwrap();
        let said = script.to_string();
        for expected in [
            "seed -7\n",
            "mode solo\n",
            "capacity 3\n",
            "min-players 2\n",
            "deadline 5s\n",
            "memory-pages 80\n",
            "clock -5s\n",
            "config greeting=\"a b\"\n",
            "seat 1 guest account= handle=zoë conn=conn-1\n",
        ] {
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn a_bad_option_is_named() {
        let words = [
            "trace",
            "--artifact",
            "a",
            "--script",
            "s",
            "--mode",
            "fast",
        ];
        let cli = Cli::parse_from(words);
        let mut script = Script::parse("wake").unwrap();
        let problem = lay_over(&cli.args, &mut script).unwrap_err();
        assert_eq!(
            problem,
            "`mode fast`: \"fast\" is not quick, private or solo"
        );
    }

    #[test]
    fn a_refused_artifact_and_a_bad_script_are_each_told_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let artifact = dir.path().join("hostile.wasm");
        std::fs::write(&artifact, crate::conformance::tests::hostile_guest()).unwrap();
        let script = dir.path().join("s.script");
        let run = |text: &str| {
            std::fs::write(&script, text).unwrap();
            let words = ["trace", "--artifact"].map(std::ffi::OsString::from);
            let paths = [
                artifact.clone().into(),
                "--script".into(),
                script.clone().into(),
            ];
            try_run(&Cli::parse_from(words.into_iter().chain(paths)).args).unwrap_err()
        };
        for problem in [run("wake"), run("jump")] {
            assert!(
                !problem.contains(char::is_control) && !problem.contains("FAIL"),
                "{problem:?}"
            );
        }
        assert!(run("wake").contains("the artifact was refused: meta failed"));
        assert!(run("jump").ends_with("s.script: line 1: unknown word \"jump\""));
    }
}
