//! The simulator: `sim --seeds N [--from S] [--scenario X] [--plant BUG]`.
//!
//! Exits with 1 when an invariant does not hold, when a run panics, and when none of `RUNS_OF_EVERYTHING` or more mixed
//! seeds saw some situation.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cabinet_consensus::testkit::{Outcome, Plant, Scenario, Setting, Tally, run_seed, shrink};

/// Runs at a time.
const RUNS: usize = 2;
/// How often progress is told.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// A run that takes longer is named.
const LONG: Duration = Duration::from_secs(60);

struct Asked {
    seeds: u64,
    from: u64,
    scenario: Scenario,
    trace: bool,
    /// What else to say to run one of its seeds again.
    kind: String,
}

/// Since when each run is under way, and of which seed.
#[derive(Default)]
struct UnderWay(Mutex<[Option<(u64, Instant)>; RUNS]>);

impl UnderWay {
    fn set(&self, run: usize, seed: Option<u64>) {
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        runs[run] = seed.map(|seed| (seed, Instant::now()));
    }

    /// The runs that take long, in words.
    fn long(&self) -> String {
        let runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let long = runs.iter().flatten();
        let long = long.filter(|(_, since)| since.elapsed() > LONG);
        long.map(|(seed, since)| format!("; seed {seed} runs for {:.0?}", since.elapsed()))
            .collect()
    }
}

fn asked() -> Result<Asked, String> {
    let mut asked = Asked {
        seeds: 100,
        from: 0,
        scenario: Scenario::default(),
        trace: false,
        kind: String::new(),
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
        if matches!(arg.as_str(), "--scenario" | "--plant") {
            asked.kind += &format!(" {arg} {value}");
        }
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

fn report(outcome: &Outcome, asked: &Asked) {
    let Some(violation) = &outcome.violation else {
        return;
    };
    println!(
        "seed {}: {} at {} ms: {}",
        outcome.seed, violation.invariant, violation.at_ms, violation.detail
    );
    let (seed, kind) = (outcome.seed, &asked.kind);
    println!("again: cargo xtask sim --seeds 1 --from {seed}{kind}");
    println!("the faults {} needs:", violation.invariant);
    for fault in shrink(seed, &asked.scenario, violation.invariant) {
        println!("  {fault:?}");
    }
}

fn sim(asked: &Asked) -> ExitCode {
    let begun = Instant::now();
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let under_way = UnderWay::default();
    let (sender, receiver) = mpsc::channel::<Outcome>();
    let (mut tally, mut told, mut failed) = (Tally::default(), Instant::now(), None::<Outcome>);
    std::thread::scope(|scope| {
        for run in 0..RUNS {
            let sender = sender.clone();
            let (next, stop, under_way) = (&next, &stop, &under_way);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= asked.seeds {
                        return;
                    }
                    let seed = asked.from + n;
                    under_way.set(run, Some(seed));
                    let outcome = run_seed(seed, &asked.scenario);
                    under_way.set(run, None);
                    if sender.send(outcome).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        loop {
            if told.elapsed() > TOLD_EVERY {
                told = Instant::now();
                eprintln!(
                    "{} of {} seeds, {:?}{}",
                    tally.runs(),
                    asked.seeds,
                    begun.elapsed(),
                    under_way.long()
                );
            }
            let outcome = match receiver.recv_timeout(TOLD_EVERY) {
                Ok(outcome) => outcome,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
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
        }
    });
    if let Some(outcome) = failed {
        report(&outcome, asked);
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
