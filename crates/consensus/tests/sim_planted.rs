//! Bugs put in on purpose: the simulator must find each within 2,000 seeds, and nothing in the same
//! seed without the bug.

use cabinet_consensus::testkit::{Outcome, Plant, Scenario, Setting, run_seed};

const SEEDS_MAX: u64 = 2000;

/// Finds the bug, and that it is the bug that was found.
fn found(plant: Plant, setting: Setting, invariants: &[&str]) {
    found_from(0, plant, setting, invariants);
}

/// The same from a later seed on: those before it are clean with the bug, too, and take their time.
fn found_from(from: u64, plant: Plant, setting: Setting, invariants: &[&str]) {
    let scenario = Scenario {
        plant,
        setting,
        ..Scenario::default()
    };
    let found: Outcome = (from..SEEDS_MAX)
        .map(|seed| run_seed(seed, &scenario))
        .find(|outcome| {
            let broken = outcome.violation.as_ref().map(|v| v.invariant);
            broken.is_some_and(|name| invariants.contains(&name))
        })
        .unwrap_or_else(|| panic!("{plant:?} was not found in {SEEDS_MAX} seeds"));
    let control = Scenario {
        plant: Plant::Nothing,
        ..scenario
    };
    let clean = run_seed(found.seed, &control);
    assert_eq!(
        clean.violation, None,
        "seed {} without the plant",
        found.seed
    );
}

#[test]
fn a_high_water_session_table_is_found() {
    let invariants = ["ExactlyOnce", "Progress"];
    found(Plant::HighWaterSessions, Setting::Roster, &invariants);
}

#[test]
fn a_timer_per_node_is_found() {
    let invariants = ["OneTimeoutPerTurn"];
    found(Plant::TimerPerNode, Setting::Roster, &invariants);
}

#[test]
fn a_reply_before_the_sync_is_found() {
    let invariants = ["LogMatching", "LeaderCompleteness", "StateMachineSafety"];
    found(Plant::ReplyBeforeFsync, Setting::Roster, &invariants);
}

#[test]
fn a_read_that_asks_no_leader_is_found() {
    let invariants = ["LinearizableReads"];
    found(Plant::LocalReads, Setting::Roster, &invariants);
}

#[test]
fn an_absolute_voter_set_is_found() {
    let invariants = ["AdditiveMembership", "SpectatorsSurvive"];
    found(Plant::AbsoluteVoterSets, Setting::Hosted, &invariants);
}

#[test]
fn a_host_that_stays_for_its_low_id_is_found() {
    found_from(16, Plant::LowestIdHost, Setting::Hosted, &["OneHost"]);
}

#[test]
fn a_promotion_without_catch_up_is_found() {
    let invariants = ["CaughtUp"];
    found(Plant::PromotionWithoutCatchUp, Setting::Hosted, &invariants);
}

#[test]
fn a_speculation_that_matches_by_value_is_found() {
    let invariants = ["SpeculativeView"];
    found(Plant::MatchByValue, Setting::Roster, &invariants);
}

#[test]
fn a_speculative_sequencer_that_matches_by_value_is_found() {
    let invariants = ["SpeculativePlayer"];
    found(Plant::MatchByValue, Setting::Roster, &invariants);
}

#[test]
fn a_proof_that_is_believed_beside_a_leader_is_found() {
    let invariants = ["LeaderCompleteness", "StateMachineSafety", "LogMatching"];
    let plant = Plant::ProofBelievedWhileLed;
    found(plant, Setting::Estranged, &invariants);
}

#[test]
fn a_proof_that_nobody_takes_is_found() {
    found(Plant::ProofNeverTaken, Setting::Estranged, &["Progress"]);
}

#[test]
fn an_app_frame_that_is_passed_on_is_found() {
    found(Plant::AppRelay, Setting::Mixed, &["AppChannels"]);
}

#[test]
fn an_app_frame_in_another_channel_is_found() {
    found(Plant::WrongChannel, Setting::Mixed, &["AppChannels"]);
}

#[test]
fn a_member_that_went_and_is_said_to_be_here_is_found() {
    found(Plant::PresenceKept, Setting::Mixed, &["Presence"]);
}

#[test]
fn a_hand_over_that_is_believed_unseen_is_found() {
    found_from(35, Plant::HandOverUnseen, Setting::Mixed, &["Handover"]);
}

#[test]
fn a_leader_that_leads_on_alone_is_found() {
    found(Plant::LeaderAlone, Setting::Mixed, &["CheckQuorum"]);
}

#[test]
fn a_witness_that_gives_no_vote_is_found() {
    found_from(19, Plant::IdleWitness, Setting::Hosted, &["Progress"]);
}
