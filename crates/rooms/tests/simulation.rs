//! An hour of play out of one seed: five hundred rooms of many games, with players who come, type
//! and go, faults, hibernations, resumes, races, stores and a parking that fail; and afterwards
//! nothing is left of them. The same seed comes to the same.
//!
//! Alone in their process and one after the other: they count what all of it holds.
#![cfg(target_os = "linux")]

#[path = "simulation/chance.rs"]
mod chance;
mod common;
#[path = "simulation/games.rs"]
mod games;
#[path = "simulation/process.rs"]
mod process;
#[path = "simulation/stores.rs"]
mod stores;
#[path = "simulation/world.rs"]
mod world;

use std::sync::Mutex;
use std::time::Instant;

use chance::Log;
use process::Held;
use world::{Plan, World};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What must have happened, and at least how often: else the run shows nothing.
const AT_LEAST: [(&str, u64); 50] = [
    ("opened", 1_000),
    ("joined", 5_000),
    ("join of a closed room", 20),
    ("join of a full room", 100),
    ("join twice", 100),
    ("join while parking", 50),
    ("gave up before the answer", 200),
    ("gave up after the answer", 200),
    ("left", 3_000),
    ("input", 20_000),
    ("input refused", 100),
    ("frame", 500),
    ("wakes", 200_000),
    ("hibernated on demand", 200),
    ("hibernate failed", 50),
    ("hibernate of a closed room", 50),
    ("hibernate without parking", 20),
    ("hibernate and close", 100),
    ("ended: hibernated", 1_000),
    ("resume", 1_000),
    ("lost resume", 200),
    ("resumed and closed", 50),
    ("damaged snapshot", 20),
    ("resume as another game", 20),
    ("ended: not resumed", 20),
    ("open of an open room", 50),
    ("resume of an open room", 10),
    ("checkpoint", 200),
    ("restored and dropped", 50),
    ("restored and closed", 20),
    ("restored and forgotten", 20),
    ("ended: game", 20),
    ("ended: abandoned", 50),
    ("ended: closed", 100),
    ("ended: fault", 200),
    ("trap, exit or error", 100),
    ("loop ended by its budget", 50),
    ("quarantined", 5),
    ("taken out of quarantine", 5),
    ("failed load", 20),
    ("loaded and dropped", 5),
    ("posts", 200),
    ("posts sent again", 50),
    ("parked at once", 200),
    ("parked later", 200),
    ("parking failed", 50),
    ("parking forgot", 50),
    ("parking panicked", 50),
    ("parking never answered", 50),
    ("store slow", 50),
];

#[test]
fn an_hour_of_five_hundred_rooms_leaves_nothing_behind() {
    let _alone = ONE_AT_A_TIME.lock();
    let began = Instant::now();
    let half = Plan {
        rooms: 500,
        minutes: 30,
        deeds: 24,
    };
    let mut world = World::new(0x00CA_B1E7, false);
    let before = Held::now();
    world.play(half);
    let between = Held::now();
    world.play(half);
    let after = Held::now();
    let (log, tally) = world.end();
    eprintln!("{before:?}\n{between:?}\n{after:?}");
    eprintln!("{tally:#?}\ndigest {:x}, {:?}", log.digest, began.elapsed());
    for (name, least) in AT_LEAST {
        let times = tally.get(name).copied().unwrap_or(0);
        assert!(times >= least, "{name}: {times}, want {least}");
    }
    assert_eq!(before.descriptors, after.descriptors);
    // The first half warms up allocator, arenas and idle memories; the second adds nothing.
    assert!(
        after.mappings < between.mappings + 64,
        "{between:?}, {after:?}"
    );
    let grown = after.resident_bytes.saturating_sub(between.resident_bytes);
    assert!(grown < 32 << 20, "{between:?}, {after:?}");
}

#[test]
fn the_same_seed_comes_to_the_same_and_another_to_something_else() {
    let _alone = ONE_AT_A_TIME.lock();
    let run = |seed| -> Log {
        let mut world = World::new(seed, true);
        world.play(Plan {
            rooms: 60,
            minutes: 5,
            deeds: 12,
        });
        world.end().0
    };
    let (first, second, other) = (run(7), run(7), run(8));
    let (first_lines, second_lines) = (first.lines.unwrap(), second.lines.unwrap());
    for (at, (one, two)) in first_lines.iter().zip(&second_lines).enumerate() {
        assert_eq!(one, two, "line {at} of {}", first_lines.len());
    }
    assert_eq!(first_lines.len(), second_lines.len());
    assert_eq!(first.digest, second.digest);
    assert_ne!(first.digest, other.digest);
    assert!(first_lines.len() > 2_000, "{}", first_lines.len());
}
