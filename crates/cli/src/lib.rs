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

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod artifact;
pub mod outcome;
pub mod rooms;
pub mod smoke;

use outcome::{Outcome, Problem};

/// Check, play, record and film games; look after stored rooms.
#[derive(Debug, Parser)]
#[command(name = "cabinet", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Rooms(rooms::Args),
    Smoke(smoke::Args),
}

/// Runs the program with `args`, the first of which is its name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout and are no failure; clap knows which is which.
            let code = u8::from(error.use_stderr()) * Outcome::Unusable.code();
            // Nobody is left to tell when the terminal is gone.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match dispatch(cli.command) {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(problem) => {
            eprintln!("cabinet: {problem}");
            ExitCode::from(Outcome::Unusable.code())
        }
    }
}

fn dispatch(command: Command) -> Result<Outcome, Problem> {
    match command {
        Command::Rooms(args) => rooms::run(&args),
        Command::Smoke(args) => smoke::run(&args),
    }
}
