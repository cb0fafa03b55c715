//! Rooms under a simulated store: writers that die anywhere, race each other and lose replies, a
//! store that fails, delays and duplicates, clocks that jump, and somebody who tampers.
//!
//! One thread, one seed, no clock: the same seed is the same run. `cargo xtask chaos durability` runs
//! many; a seed that fails prints itself, and `--from SEED --seeds 1` repeats it. The whole of
//! `vault` runs unmodified on top.

mod oracle;
mod scenario;
mod sim;

use std::collections::BTreeMap;

use crate::planted::{Bug, tests as planted};

/// What a run saw, by name: each must happen in some run, or the simulation proves less than it
/// says.
pub(super) type Seen = BTreeMap<&'static str, u64>;

/// Everything a run of enough seeds must have seen.
const MUST_SEE: [&str; 19] = [
    "acknowledged",
    "claimed",
    "clock jumped",
    "conflict",
    "crashed",
    "duplicated",
    "failed",
    "fenced",
    "late",
    "lost a reply",
    "lost a take",
    "overtaken",
    "parked",
    "pruned",
    "read",
    "rebuilt",
    "resealed",
    "taken",
    "tampered",
];

/// Runs seeds; the first that breaks a promise ends it.
fn run(from: u64, seeds: u64, progress: bool) -> Result<Seen, String> {
    let mut seen = Seen::new();
    for seed in from..from + seeds {
        scenario::run(seed, &mut seen).map_err(|broken| {
            format!(
                "seed {seed}: {broken}\n  again: cargo xtask chaos durability --from {seed} --seeds 1"
            )
        })?;
        let done = seed - from + 1;
        if progress && done.is_multiple_of(1_000) {
            println!("chaos: {done} of {seeds} seeds");
        }
    }
    Ok(seen)
}

fn asked(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[test]
fn no_seed_breaks_a_promise() {
    let (from, seeds) = (
        asked("CABINET_CHAOS_FROM", 0),
        asked("CABINET_CHAOS_SEEDS", 2_000),
    );
    let seen = run(from, seeds, true).unwrap_or_else(|broken| panic!("{broken}"));
    println!("chaos: {seeds} seeds from {from}, no promise broken; they saw");
    for (what, times) in &seen {
        println!("  {what:<14} {times:>9}");
    }
    if seeds >= 2_000 {
        for what in MUST_SEE {
            assert!(seen.contains_key(what), "no seed saw this: {what}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..20 {
        let (mut first, mut second) = (Seen::new(), Seen::new());
        let digests = [&mut first, &mut second].map(|seen| scenario::run(seed, seen));
        assert_eq!(digests[0], digests[1], "seed {seed}");
        assert_eq!(first, second);
    }
}

/// The simulator finds each bug there is to plant, within this many seeds.
const SEEDS_TO_FIND: u64 = 2_000;

fn finds(bug: Bug) {
    let found = planted::with(Some(bug), || run(0, SEEDS_TO_FIND, false));
    match found {
        Err(broken) => println!("chaos: planted {bug:?} was found: {broken}"),
        Ok(_) => panic!("{bug:?} was planted, and {SEEDS_TO_FIND} seeds did not find it"),
    }
}

#[test]
fn a_head_that_is_put_whatever_is_there_is_found() {
    finds(Bug::UnconditionalHead);
}

#[test]
fn a_seal_that_does_not_bind_the_room_is_found() {
    finds(Bug::SealWithoutRoom);
}

#[test]
fn acting_on_a_header_before_it_is_proven_is_found() {
    finds(Bug::DecodeBeforeVerify);
}

#[test]
fn deleting_the_old_checkpoint_before_the_head_moved_is_found() {
    finds(Bug::DeleteBeforeAdvance);
}

#[test]
fn an_epoch_that_is_used_again_after_a_reclaim_is_found() {
    finds(Bug::EpochReused);
}

#[test]
fn rebuilding_a_head_by_epoch_alone_is_found() {
    finds(Bug::RebuildByEpoch);
}

#[test]
fn dropping_what_is_under_the_older_key_too_early_is_found() {
    finds(Bug::DropBeforeResealed);
}
