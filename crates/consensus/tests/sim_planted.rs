//! Bugs put in on purpose: the simulator must find each within 2,000 seeds.

use cabinet_consensus::testkit::{Outcome, Plant, Scenario, run_seed};

const SEEDS_MAX: u64 = 2000;

fn found(plant: Plant, invariants: &[&str]) -> Outcome {
    let scenario = Scenario {
        plant,
        ..Scenario::default()
    };
    (0..SEEDS_MAX)
        .map(|seed| run_seed(seed, &scenario))
        .find(|outcome| {
            let broken = outcome.violation.as_ref().map(|v| v.invariant);
            broken.is_some_and(|name| invariants.contains(&name))
        })
        .unwrap_or_else(|| panic!("{plant:?} was not found in {SEEDS_MAX} seeds"))
}

#[test]
fn a_high_water_session_table_is_found() {
    found(Plant::HighWaterSessions, &["ExactlyOnce", "Progress"]);
}

#[test]
fn a_timer_per_node_is_found() {
    found(Plant::TimerPerNode, &["OneTimeoutPerTurn"]);
}

#[test]
fn a_reply_before_the_sync_is_found() {
    found(
        Plant::ReplyBeforeFsync,
        &["LogMatching", "LeaderCompleteness", "StateMachineSafety"],
    );
}

#[test]
fn a_read_that_asks_no_leader_is_found() {
    found(Plant::LocalReads, &["LinearizableReads"]);
}
