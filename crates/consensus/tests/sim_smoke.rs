//! The simulator, on the code as it is: what CI runs.

use std::process::Command;

use cabinet_consensus::testkit::{Scenario, run_seed};

#[test]
fn sixty_seeds_hold_every_invariant() {
    for seed in 0..60 {
        let outcome = run_seed(seed, &Scenario::default());
        assert_eq!(outcome.violation, None, "seed {seed}");
    }
}

#[test]
fn the_same_seed_is_the_same_trace() {
    for seed in 1000..1020 {
        let scenario = Scenario::default();
        let first = run_seed(seed, &scenario);
        assert_eq!(first, run_seed(seed, &scenario), "seed {seed}");
    }
}

/// Answers its own traces when it is the child.
#[test]
fn the_same_seed_is_the_same_trace_in_two_processes() {
    const CHILD: &str = "CABINET_SIM_TRACES";
    let traces = || {
        let trace = |seed| run_seed(seed, &Scenario::default()).trace_hash;
        (1000..1005).map(trace).collect::<Vec<_>>()
    };
    if std::env::var_os(CHILD).is_some() {
        println!("traces {:?}", traces());
        return;
    }
    let this = std::env::current_exe().unwrap();
    let child = Command::new(this)
        .args([
            "--exact",
            "the_same_seed_is_the_same_trace_in_two_processes",
        ])
        .args(["--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    let mine = format!("traces {:?}", traces());
    assert!(said.contains(&mine), "{mine} is not in\n{said}");
}
