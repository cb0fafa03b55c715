//! `cargo xtask chaos`: what is stored, under a store that fails and processes that are killed; and
//! turns, when the leader is killed.
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
    /// Turns of three processes over TLS: kill -9 of whoever leads, and how long the next turn then
    /// takes. Before that the bugs planted in the simulator are looked for.
    Turns(Turns),
}

#[derive(Debug, clap::Args)]
struct Turns {
    /// How many leaders to kill, 1 or more.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    kills: u64,
    /// Plant no bugs.
    #[arg(long)]
    no_planted: bool,
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
    let worst = match &args.what {
        What::Durability(durability) => {
            let mut worst = simulate(durability);
            if let Some(kills) = durability.kills() {
                worst = worst.max(kill(kills));
            }
            worst
        }
        What::Turns(turns) => {
            let mut worst = Ran::Well;
            if !turns.no_planted {
                worst = worst.max(consensus(&[], "sim_planted", ""));
            }
            let envs = [
                ("CABINET_KILLS", &*turns.kills.to_string()),
                // Said here and not in a test of every day, which judges no time.
                ("CABINET_JUDGE_FAIL_OVER", "1"),
            ];
            let test = "three_processes_lose_no_turn_when_the_leader_is_killed";
            worst.max(consensus(&envs, "kill_turns", test))
        }
    };
    worst.exit_code()
}

fn consensus(envs: &[(&str, &str)], target: &str, test: &str) -> Ran {
    let package = ["--package", "cabinet-consensus"];
    let features = ["--features", "tls,testkit"];
    let mut command = vec!["test"];
    command.extend(package.into_iter().chain(features));
    command.extend(["--test", target, "--", "--nocapture"]);
    if !test.is_empty() {
        command.push(test);
    }
    run::cargo(envs, &command)
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
