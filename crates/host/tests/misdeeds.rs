//! Every misdeed has the outcome of the table in `fixtures/misdeeds.toml` (and docs/ABI.md), and a
//! neighbour room of the same game plays on.

mod common;

use cabinet_host::{Outcome, Slot};
use cabinet_wire::input::Input;
use common::{SHORT, WIDE, ada, bob, host, lines, ms, options, room};
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
    let host = host();
    let wasm = common::fixture("misbehave.wasm");
    let patient = host.load(&wasm, &options(WIDE)).unwrap();
    let strict = host.load(&wasm, &options(SHORT)).unwrap();

    let mut wrong = Vec::new();
    for misdeed in &table.misdeed {
        let endless = misdeed.outcome == "fault:deadline";
        let game = if endless { &strict } else { &patient };
        let (mut culprit, _) = room(game);
        let (mut neighbour, _) = room(&patient);
        for room in [&mut culprit, &mut neighbour] {
            assert!(matches!(room.start(ms(0)), Outcome::Done(_)));
            assert!(matches!(room.join(ms(0), ada()), Outcome::Done(_)));
        }
        let before = neighbour.frame(Slot::Broadcast).map(|frame| lines(&frame));

        let mut runes = misdeed.rune.chars();
        let rune = runes.next().unwrap();
        assert_eq!(runes.next(), None, "{}: one rune", misdeed.name);
        let outcome = culprit.input(ms(50), &ada(), Input::Rune(rune as u32));
        let found = class(&outcome, &culprit);
        let next = culprit.wake(ms(100));
        let then = class(&next, &culprit);
        let expected_then = match (&misdeed.then, misdeed.outcome.as_str()) {
            (Some(then), _) => then.as_str(),
            (None, "ok") => "ok",
            (None, _) => "not called",
        };
        if found != misdeed.outcome || then != expected_then || culprit.ended() != misdeed.ends {
            wrong.push(format!(
                "{:?} {}: expected {} then {expected_then} (ends {}), found {found} then {then} (ends {}): {:?}",
                rune, misdeed.name, misdeed.outcome, misdeed.ends, culprit.ended(), culprit.fault()
            ));
        }

        // Somebody joins next door, and it draws on.
        assert!(matches!(neighbour.join(ms(150), bob()), Outcome::Done(_)));
        assert!(matches!(neighbour.wake(ms(200)), Outcome::Done(_)));
        let after = neighbour.frame(Slot::Broadcast).map(|frame| lines(&frame));
        assert_ne!(
            before, after,
            "{}: the neighbour stands still",
            misdeed.name
        );
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn class(outcome: &Outcome, room: &cabinet_host::Room) -> String {
    match outcome {
        Outcome::Done(_) => "ok".into(),
        Outcome::Faulted(_) => format!("fault:{}", room.fault().expect("a fault").class()),
        Outcome::Skipped(_) => "not called".into(),
    }
}
