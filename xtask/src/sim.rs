//! `cargo xtask sim`: a cluster in virtual time, seed by seed, under faults.
//!
//! Exit code 0: every invariant held and, in 500 or more mixed seeds, every situation came up; 1: one
//! did not; 2: something could not be run.

use std::process::ExitCode;

use crate::run;

/// From so many seeds on, an optimised build pays for itself.
const RELEASE_FROM: u64 = 5000;

/// Arguments of `cargo xtask sim`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    from: u64,
    /// Which scenario: mixed, roster, hosted, estranged, three, five or long.
    #[arg(long, default_value = "mixed")]
    scenario: String,
    /// A bug to plant, to see that it is found; a name there is not lists them.
    #[arg(long, value_name = "BUG")]
    plant: Option<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    let (seeds, from) = (args.seeds.to_string(), args.from.to_string());
    let mut command = vec!["run"];
    if args.seeds >= RELEASE_FROM {
        command.push("--release");
    }
    command.extend([
        "--package",
        "cabinet-consensus",
        "--features",
        "tls,testkit",
        "--example",
        "sim",
        "--",
        "--seeds",
        &seeds,
        "--from",
        &from,
        "--scenario",
        &args.scenario,
    ]);
    if let Some(plant) = &args.plant {
        command.extend(["--plant", plant]);
    }
    run::cargo(&[], &command).exit_code()
}
