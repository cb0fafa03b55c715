//! Every guest of `fixtures/wat` is refused, faults or plays as `outcomes.toml` says, and its
//! neighbours play on.

mod common;

use cabinet_host::{Game, Host, NoServices, Outcome, Room, RoomConfig, Seed};
use cabinet_wire::input::Input;
use common::{SHORT, WIDE, ada, host_with_probe_deadline, ms, options};
use serde::Deserialize;

#[derive(Deserialize)]
struct Table {
    guest: Vec<Guest>,
}

#[derive(Deserialize)]
struct Guest {
    file: String,
    phase: String,
    outcome: String,
}

#[test]
fn every_wat_guest_ends_as_the_table_says() {
    let dir = common::fixtures().join("wat");
    let text = std::fs::read_to_string(dir.join("outcomes.toml")).unwrap();
    let table: Table = toml::from_str(&text).unwrap();
    let mut listed: Vec<_> = table.guest.iter().map(|guest| guest.file.clone()).collect();
    listed.sort();
    let mut present: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".wat"))
        .collect();
    present.sort();
    assert_eq!(listed, present, "outcomes.toml lists every guest once");

    let (patient, strict) = (
        host_with_probe_deadline(WIDE),
        host_with_probe_deadline(SHORT),
    );
    // A room of another game beside all of them.
    let other = patient
        .load(&common::wat("ok-state.wat"), &options(WIDE))
        .unwrap();
    let mut other = resident(&other);

    let mut wrong = Vec::new();
    for guest in &table.guest {
        let host = match guest.outcome.as_str() {
            "refused:deadline" => &strict,
            _ => &patient,
        };
        let (phase, outcome) = play(host, guest);
        if (phase.as_str(), outcome.as_str()) != (guest.phase.as_str(), guest.outcome.as_str()) {
            wrong.push(format!(
                "{}: expected {} {}, found {phase} {outcome}",
                guest.file, guest.phase, guest.outcome
            ));
        }
        let before = other.state_digest().unwrap();
        beat(&mut other, guest);
        assert_ne!(before, other.state_digest().unwrap(), "{}", guest.file);
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn play(host: &Host, guest: &Guest) -> (String, String) {
    let game = match host.load(&common::wat(&guest.file), &options(WIDE)) {
        Ok(game) => game,
        Err(error) => return ("load".into(), format!("refused:{}", error.class())),
    };
    // A room of the same game, where the callbacks it needs are not the guilty ones.
    let mut neighbour = match guest.phase.as_str() {
        "start" | "wake" | "wake2" => None,
        _ => Some(resident(&game)),
    };
    let ended = script(&game, guest);
    if let Some(neighbour) = &mut neighbour {
        beat(neighbour, guest);
    }
    ended
}

/// Plays the script of `outcomes.toml` to its end or the first callback that does not end well.
fn script(game: &Game, guest: &Guest) -> (String, String) {
    let mut config = RoomConfig::new(Seed::Set(42));
    if guest.outcome == "fault:deadline" {
        config.deadline = Some(SHORT);
    }
    let mut room = game.room(config, Box::new(NoServices));
    type Step = fn(&mut Room) -> Outcome;
    let steps: [(&str, Step); 7] = [
        ("start", |room| room.start(ms(0))),
        ("join", |room| room.join(ms(10), ada())),
        ("input", |room| {
            room.input(ms(20), &ada(), Input::Rune('x' as u32))
        }),
        ("wake", |room| room.wake(ms(70))),
        ("wake2", |room| room.wake(ms(120))),
        ("leave", |room| room.leave(ms(130), &ada())),
        ("close", |room| room.close(ms(140))),
    ];
    for (name, step) in steps {
        match step(&mut room) {
            Outcome::Done(_) => {}
            Outcome::Faulted(_) => {
                let class = room.fault().expect("a fault").class();
                return (name.into(), format!("fault:{class}"));
            }
            Outcome::Skipped(skip) => return (name.into(), format!("skipped:{skip:?}")),
        }
    }
    ("load".into(), "ok".into())
}

/// A room that has begun and wakes with nobody in it.
fn resident(game: &Game) -> Room {
    let config = RoomConfig {
        resident: true,
        ..RoomConfig::new(Seed::Set(7))
    };
    let mut room = game.room(config, Box::new(NoServices));
    assert!(matches!(room.start(ms(0)), Outcome::Done(_)));
    assert!(matches!(room.wake(ms(50)), Outcome::Done(_)));
    room
}

fn beat(room: &mut Room, beside: &Guest) {
    let outcome = room.wake(room.now() + 50_000_000);
    assert!(
        matches!(outcome, Outcome::Done(_)),
        "beside {}: {:?}",
        beside.file,
        room.fault()
    );
}
