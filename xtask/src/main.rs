//! `cargo xtask`: the chores a person would otherwise have to remember.
//!
//! Thin on purpose: each command parses its arguments here and calls a library crate or an
//! ordinary tool. `cargo xtask help` lists them.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod chaos;
mod ci;
mod conformance;
mod fixtures;
mod run;
mod sim;
mod stores;

/// Cabinet's chores.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the conformance check: committed fixtures by default, or your own artifacts.
    Conformance(conformance::Args),
    /// Build the fixture guests, or check that the committed ones match their sources.
    Fixtures(fixtures::Args),
    /// Measure: what a call, a room, a thousand players, keeping, a turn, a first frame or a check costs.
    Bench(bench::Args),
    /// Break what is stored: simulated stores that fail, and real processes that are killed.
    Chaos(chaos::Args),
    /// Simulate a cluster of players under faults, in virtual time.
    Sim(sim::Args),
    /// Run the store suite on every store there is here.
    Stores(stores::Args),
    /// Everything `.ci/run` runs, step by step.
    Ci(ci::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Conformance(args) => conformance::run(&args),
        Command::Fixtures(args) => fixtures::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Chaos(args) => chaos::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Stores(args) => stores::run(&args),
        Command::Ci(args) => ci::run(&args),
    }
}
