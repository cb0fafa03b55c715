//! The program `cabinet`: for people who write games, and people who look after rooms.
//!
//! One module per command, each with its `Args` and a `run`. What several need is beside them:
//! [`artifact`] (what `FILE|DIR` means), [`outcome`] (exit codes, and the one line an error is). The
//! binary is this library and nothing else, so that tests reach what a command decides without a
//! process around it.
//!
//! Exit codes are the same everywhere: 0 it is as it should be, 1 it was looked at and is not, 2
//! it could not be looked at: a bad argument, a file that is not what it should be.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
// Both panic when nobody reads; `outln!` and `outcome::remark` do not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// As `println!`, but a reader that went away ends nothing: see [`outcome::line`].
macro_rules! outln {
    ($($arg:tt)*) => { $crate::outcome::line(format_args!($($arg)*)) };
}

pub mod artifact;
pub mod check;
pub mod completions;
pub mod config;
pub mod diff;
mod host_cache;
pub mod lint;
pub mod meta;
pub mod new;
pub mod outcome;
mod overwrite;
pub mod play;
pub mod recording;
pub mod replay;
pub mod rooms;
pub mod smoke;
pub mod term;
pub mod trace;
pub mod version;

use outcome::{Outcome, Problem, remark};

/// What `cabinet help` ends with.
const EXAMPLES: &str = "\
Examples:
  cabinet new maze             begin a game in ./maze
  cabinet check maze           build it, and see whether it keeps its promises
  cabinet check game.wasm --random 50 --shrink
                               look for a short script that breaks a game
  cabinet play maze --record a.cabp
                               play it, and keep what happened
  cabinet trace game.wasm --script s.script -o a.jsonl
                               write down all it says to the host

Exit codes: 0 as it should be, 1 looked at and not so, 2 could not be looked at.";

/// Check, play, record and film games; look after stored rooms.
#[derive(Debug, Parser)]
#[command(name = "cabinet", version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a game with the real host: what an author's CI runs.
    Check(check::Args),
    /// Begin a game from a template.
    New(new::Args),
    /// Print what a game says about itself, as JSON.
    Meta(meta::Args),
    /// Write what a guest and the host said to each other, one JSON line per callback.
    Trace(trace::Args),
    /// Find where two traces part.
    Diff(diff::Args),
    Play(play::Args),
    Replay(replay::Args),
    /// Show or set what an operator may configure of a game.
    Config(config::Args),
    /// Look for glyphs that shift a screen, and for what a game could do better.
    Lint(lint::Args),
    /// Print the completions of a shell.
    Completions(completions::Args),
    /// Print the versions of the program, its kit and its ABI.
    Version(version::Args),
    Rooms(rooms::Args),
    Smoke(smoke::Args),
}

/// Runs the program with `args`, the first of which is its name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            if error.use_stderr() {
                remark(format_args!("cabinet: {}", argument_problem(&error)));
                return ExitCode::from(Outcome::Unusable.code());
            }
            // Help, or the version.
            let printed = error.print().and_then(|()| io::stdout().flush());
            return match printed {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    let problem = Problem::about("cannot write to stdout", &error);
                    remark(format_args!("cabinet: {problem}"));
                    ExitCode::from(Outcome::Unusable.code())
                }
                _ => ExitCode::SUCCESS,
            };
        }
    };
    let told = dispatch(cli.command).and_then(|outcome| match outcome::lost() {
        Some(problem) => Err(problem.clone()),
        None => Ok(outcome),
    });
    match told {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(problem) => {
            remark(format_args!("cabinet: {problem}"));
            ExitCode::from(Outcome::Unusable.code())
        }
    }
}

fn dispatch(command: Command) -> Result<Outcome, Problem> {
    match command {
        Command::Check(args) => check::run(&args),
        Command::New(args) => new::run(&args),
        Command::Meta(args) => meta::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Play(args) => play::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Rooms(args) => rooms::run(&args),
        Command::Smoke(args) => smoke::run(&args),
        Command::Completions(args) => completions::run(&args, &mut Cli::command()),
        Command::Version(args) => version::run(&args),
    }
}

/// What clap objects to, in one line that ends in what to do.
fn argument_problem(error: &clap::Error) -> Problem {
    use clap::error::ErrorKind;
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Problem::new("no command was given; try `cabinet help`");
    }
    let text = error.to_string();
    let said: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("Usage:"))
        .map(|line| line.strip_prefix("error: ").unwrap_or(line))
        .filter(|line| !line.starts_with("For more information"))
        .collect();
    Problem::new(format!("{}; try `--help`", said.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: &str = include_str!("../../../docs/FORMATS.md");

    /// The words of every command that takes `--json` and has no others below it.
    fn with_json(command: &clap::Command, words: &str, inherited: bool, found: &mut Vec<String>) {
        let has = inherited || command.get_arguments().any(|arg| arg.get_id() == "json");
        let mut below = command
            .get_subcommands()
            .filter(|below| below.get_name() != "help")
            .peekable();
        if below.peek().is_none() && has {
            found.push(words.trim_start().to_owned());
        }
        for command in below {
            let words = format!("{words} {}", command.get_name());
            with_json(command, &words, has, found);
        }
    }

    #[test]
    fn what_every_command_prints_with_json_has_its_section() {
        let mut commands = Vec::new();
        with_json(&Cli::command(), "", false, &mut commands);
        assert!(commands.iter().any(|words| words == "check"));
        assert!(commands.iter().any(|words| words == "rooms list"));
        for words in commands {
            let heading = format!("\n### `cabinet {words} --json`\n");
            assert!(FORMATS.contains(&heading), "no section{heading}");
        }
    }
}
