//! The simulator: `sim --seeds N [--from S] [--scenario X] [--plant BUG]`.
//!
//! Exits with 1 when an invariant does not hold, and when none of `RUNS_OF_EVERYTHING` or more mixed
//! seeds saw some situation.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cabinet_consensus::testkit::{Outcome, Plant, Scenario, Setting, Tally, run_seed, shrink};

struct Asked {
    seeds: u64,
    from: u64,
    scenario: Scenario,
    trace: bool,
}

fn asked() -> Result<Asked, String> {
    let mut asked = Asked {
        seeds: 100,
        from: 0,
        scenario: Scenario::default(),
        trace: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--trace" {
            asked.trace = true;
            continue;
        }
        let value = args.next().ok_or(format!("{arg} needs a value"))?;
        let number = || {
            let parsed = value.parse::<u64>();
            parsed.map_err(|_| format!("{arg} needs a number, not {value}"))
        };
        match arg.as_str() {
            "--seeds" => asked.seeds = number()?,
            "--from" => asked.from = number()?,
            "--scenario" => match value.as_str() {
                "mixed" => asked.scenario.setting = Setting::Mixed,
                "roster" => asked.scenario.setting = Setting::Roster,
                "hosted" => asked.scenario.setting = Setting::Hosted,
                "estranged" => asked.scenario.setting = Setting::Estranged,
                "three" | "five" => {
                    asked.scenario.setting = Setting::Roster;
                    asked.scenario.nodes = Some(if value == "three" { 3 } else { 5 });
                }
                "long" => asked.scenario.chaos_ms = 20_000,
                _ => {
                    let all = "mixed, roster, hosted, estranged, three, five, long";
                    return Err(format!("scenarios: {all}"));
                }
            },
            "--plant" => {
                let found = Plant::ALL.iter().find(|(name, _)| *name == value);
                let names = Plant::ALL.map(|(name, _)| name).join(", ");
                asked.scenario.plant = found.ok_or(format!("bugs: {names}"))?.1;
            }
            _ => return Err(format!("{arg} is not an option")),
        }
    }
    Ok(asked)
}

fn main() -> ExitCode {
    match asked() {
        Ok(asked) => sim(&asked),
        Err(why) => {
            eprintln!("{why}");
            eprintln!("sim --seeds N [--from S] [--scenario X] [--plant BUG] [--trace]");
            ExitCode::from(2)
        }
    }
}

fn report(outcome: &Outcome, scenario: &Scenario) {
    let Some(violation) = &outcome.violation else {
        return;
    };
    println!(
        "seed {}: {} at {} ms: {}",
        outcome.seed, violation.invariant, violation.at_ms, violation.detail
    );
    println!("the faults it needs:");
    for fault in shrink(outcome.seed, scenario) {
        println!("  {fault:?}");
    }
}

fn sim(asked: &Asked) -> ExitCode {
    let begun = Instant::now();
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel::<Outcome>();
    let (mut tally, mut told, mut failed) = (Tally::default(), Instant::now(), None::<Outcome>);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let sender = sender.clone();
            let (next, stop) = (&next, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= asked.seeds
                        || sender
                            .send(run_seed(asked.from + n, &asked.scenario))
                            .is_err()
                    {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for outcome in receiver {
            tally.add(&outcome);
            if asked.trace {
                println!("{} {:016x}", outcome.seed, outcome.trace_hash);
            }
            if outcome.violation.is_some() {
                stop.store(true, Ordering::Relaxed);
                if failed
                    .as_ref()
                    .is_none_or(|known| known.seed > outcome.seed)
                {
                    failed = Some(outcome);
                }
            }
            if told.elapsed() > Duration::from_secs(5) {
                told = Instant::now();
                eprintln!(
                    "{} of {} seeds, {:?}",
                    tally.runs(),
                    asked.seeds,
                    begun.elapsed()
                );
            }
        }
    });
    if let Some(outcome) = failed {
        report(&outcome, &asked.scenario);
        return ExitCode::FAILURE;
    }
    println!(
        "{} seeds clean in {:.1} s",
        tally.runs(),
        begun.elapsed().as_secs_f64()
    );
    for row in tally.rows() {
        let (situation, runs, times) = (row.situation, row.runs, row.times);
        println!("{situation:>28}: {runs} seeds, {times} times");
    }
    let missing = tally.missing(asked.scenario.setting);
    if !missing.is_empty() {
        println!("never came up: {}", missing.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
