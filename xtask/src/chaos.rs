//! `cargo xtask chaos`: what is stored, under a store that fails and processes that are killed.
//!
//! Many more seeds and kills than the tests of every day. Exit code 0: no promise was broken; 1: one
//! was, or a test failed; 2: something could not be run.

use std::process::ExitCode;

use crate::run::{self, Ran};

/// Arguments of `cargo xtask chaos`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Rooms in a vault: simulated seed by seed, then written by processes that are killed.
    Durability(Durability),
}

#[derive(Debug, clap::Args)]
struct Durability {
    /// How many seeds to simulate.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed. Only seeds are run then: no planted bugs, and kills only with `--kills`.
    #[arg(long, value_name = "SEED")]
    from: Option<u64>,
    /// How many processes to kill over each store, 200 unless said otherwise.
    #[arg(long, conflicts_with = "no_kills")]
    kills: Option<u64>,
    /// Kill no process.
    #[arg(long)]
    no_kills: bool,
}

/// Kills unless there is something else to look for.
const KILLS: u64 = 200;

impl Durability {
    fn kills(&self) -> Option<u64> {
        match (self.no_kills, self.kills, self.from) {
            (true, ..) | (false, None, Some(_)) => None,
            (false, kills, _) => Some(kills.unwrap_or(KILLS)),
        }
    }
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    let What::Durability(durability) = &args.what;
    let mut worst = simulate(durability);
    if let Some(kills) = durability.kills() {
        worst = worst.max(kill(kills));
    }
    worst.exit_code()
}

fn simulate(asked: &Durability) -> Ran {
    // One seed again is the point of `--from`; planted bugs are found from seed 0.
    let tests = match asked.from {
        Some(_) => "chaos::no_seed_breaks_a_promise",
        None => "chaos::",
    };
    let seeds = asked.seeds.to_string();
    let from = asked.from.unwrap_or(0).to_string();
    run::cargo(
        &[
            ("CABINET_CHAOS_FROM", &from),
            ("CABINET_CHAOS_SEEDS", &seeds),
        ],
        &[
            "test",
            "--package",
            "cabinet-durability",
            "--lib",
            "--",
            tests,
            "--nocapture",
        ],
    )
}

fn kill(kills: u64) -> Ran {
    run::find_moto();
    run::cargo(
        &[("CABINET_KILLS", &kills.to_string())],
        &[
            "test",
            "--package",
            "cabinet-durability",
            "--features",
            "s3",
            "--test",
            "kill_nine",
            "--",
            "--nocapture",
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kills(from: Option<u64>, kills: Option<u64>, no_kills: bool) -> Option<u64> {
        let seeds = 1;
        Durability {
            seeds,
            from,
            kills,
            no_kills,
        }
        .kills()
    }

    #[test]
    fn one_seed_again_kills_nobody_unless_asked_to() {
        assert_eq!(kills(None, None, false), Some(KILLS));
        assert_eq!(kills(None, None, true), None);
        assert_eq!(kills(Some(7), None, false), None);
        assert_eq!(kills(Some(7), Some(3), false), Some(3));
    }
}
