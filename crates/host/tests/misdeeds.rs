//! Every misdeed has the outcome of the table in `fixtures/misdeeds.toml` (and docs/ABI.md), and a
//! neighbour room of the same game plays on.

mod common;

use std::time::Duration;

use cabinet_host::{Fault, Game, NoServices, Outcome, Room, RoomConfig, Seed, Slot};
use cabinet_wire::input::Input;
use common::{SHORT, WIDE, ada, bob, lines, ms};
use serde::Deserialize;

#[derive(Deserialize)]
struct Table {
    misdeed: Vec<Misdeed>,
}

#[derive(Deserialize)]
struct Misdeed {
    rune: String,
    name: String,
    outcome: String,
    then: Option<String>,
    #[serde(default)]
    ends: bool,
}

#[test]
fn every_misdeed_ends_as_the_table_says_while_a_neighbour_plays_on() {
    let text = std::fs::read_to_string(common::fixtures().join("misdeeds.toml")).unwrap();
    let table: Table = toml::from_str(&text).unwrap();
    assert!(table.misdeed.len() > 50, "the table lost its rows");
    let game = common::game(&common::fixture("misbehave.wasm"));

    let mut wrong = Vec::new();
    for misdeed in &table.misdeed {
        let mut runes = misdeed.rune.chars();
        let rune = runes.next().unwrap();
        assert_eq!(runes.next(), None, "{}: one rune", misdeed.name);

        let played = if misdeed.outcome == "fault:deadline" {
            endless(&game, rune, &misdeed.name)
        } else {
            play(&game, rune, WIDE)
        };
        let expected_then = match (&misdeed.then, misdeed.outcome.as_str()) {
            (Some(then), _) => then.as_str(),
            (None, "ok") => "ok",
            (None, _) => "not called",
        };
        let expected = (misdeed.outcome.as_str(), expected_then, misdeed.ends);
        let found = (played.outcome.as_str(), played.then.as_str(), played.ended);
        if found != expected {
            wrong.push(format!(
                "{rune:?} {}: expected {expected:?}, found {found:?}: {:?}",
                misdeed.name, played.fault
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Plays a misdeed that only its deadline ends, so that the neighbour is seen to draw while it
/// lasts. A machine may be too busy to run both at once for so long: then the culprit gets longer.
/// Where the culprit holds its neighbour up, no time is long enough.
fn endless(game: &Game, rune: char, name: &str) -> Played {
    [SHORT, SHORT * 4, SHORT * 16]
        .into_iter()
        .map(|deadline| play(game, rune, deadline))
        .find(|played| played.beats_meanwhile > 0)
        .unwrap_or_else(|| panic!("{name}: the neighbour stands still meanwhile"))
}

struct Played {
    outcome: String,
    /// What the next wake comes to.
    then: String,
    ended: bool,
    fault: Option<Fault>,
    /// Wakes of the neighbour that began and ended during the culprit's call.
    beats_meanwhile: u32,
}

/// A culprit and a neighbour, rooms of one game: what comes of the one while and after which the
/// other draws.
fn play(game: &Game, rune: char, deadline: Duration) -> Played {
    let mut culprit = started(game, deadline);
    let mut neighbour = started(game, WIDE);

    let (entering, entered) = std::sync::mpsc::channel();
    let (outcome, beats_meanwhile) = std::thread::scope(|scope| {
        let culprit = &mut culprit;
        let call = scope.spawn(move || {
            entering.send(()).unwrap();
            culprit.input(ms(50), &ada(), Input::Rune(rune as u32))
        });
        entered.recv().unwrap();
        let mut beats = 0;
        loop {
            beat(&mut neighbour, rune);
            if call.is_finished() {
                break (call.join().unwrap(), beats);
            }
            beats += 1;
        }
    });
    let outcome = class(&outcome, &culprit);
    let then = culprit.wake(ms(100));
    let then = class(&then, &culprit);

    // Somebody joins next door, and it draws on.
    assert!(matches!(
        neighbour.join(neighbour.now(), bob()),
        Outcome::Done(_)
    ));
    beat(&mut neighbour, rune);
    Played {
        outcome,
        then,
        ended: culprit.ended(),
        fault: culprit.fault().cloned(),
        beats_meanwhile,
    }
}

fn started(game: &Game, deadline: Duration) -> Room {
    let config = RoomConfig {
        deadline: Some(deadline),
        ..RoomConfig::new(Seed::Set(42))
    };
    let mut room = game.room(config, Box::new(NoServices));
    assert!(matches!(room.start(ms(0)), Outcome::Done(_)));
    assert!(matches!(room.join(ms(0), ada()), Outcome::Done(_)));
    room
}

/// Wakes a room that must draw something new.
fn beat(room: &mut Room, beside: char) {
    let drawn = |room: &Room| room.frame(Slot::Broadcast).map(|frame| lines(&frame));
    let before = drawn(room);
    let outcome = room.wake(room.now() + 50_000_000);
    assert!(
        matches!(outcome, Outcome::Done(_)),
        "beside {beside:?}: {:?}",
        room.fault()
    );
    assert_ne!(before, drawn(room), "beside {beside:?}");
}

fn class(outcome: &Outcome, room: &Room) -> String {
    match outcome {
        Outcome::Done(_) => "ok".into(),
        Outcome::Faulted(_) => format!("fault:{}", room.fault().expect("a fault").class()),
        Outcome::Skipped(_) => "not called".into(),
    }
}
