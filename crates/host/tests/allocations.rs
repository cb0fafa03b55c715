//! A steady wake allocates nothing in host code, and neither does a steady input.
//!
//! Counted on the test's own thread: the test runner's threads allocate as they please.

mod common;
#[path = "common/counting.rs"]
mod counting;

use std::io::Write;

use cabinet_host::{NoServices, Outcome, Player, Room, RoomConfig, Seed};
use cabinet_wire::input::Input;
use common::{ada, bob, ms};

#[test]
fn steady_wakes_and_inputs_allocate_nothing() {
    let host = common::host();
    let mut guests = vec![
        ("tour.wasm".to_owned(), common::fixture("tour.wasm")),
        ("crowd.wasm".to_owned(), common::fixture("crowd.wasm")),
    ];
    match std::env::var_os("CABINET_REFERENCE") {
        Some(kit) => {
            for name in ["fixture", "fixture-rs", "fixture-rs-kit"] {
                let path = std::path::Path::new(&kit)
                    .join(format!("host/gameabi/testdata/{name}/{name}.wasm"));
                guests.push((name.to_owned(), std::fs::read(path).unwrap()));
            }
        }
        None => {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED the reference's guests: CABINET_REFERENCE is not set"
            );
        }
    }
    for (name, wasm) in guests {
        let game = host.load(&wasm, &common::options(common::WIDE)).unwrap();
        let mut room = game.room(RoomConfig::new(Seed::Set(42)), Box::new(NoServices));
        assert!(matches!(room.start(ms(0)), Outcome::Done(_)));
        assert!(matches!(room.join(ms(1), ada()), Outcome::Done(_)));
        assert!(matches!(room.join(ms(2), bob()), Outcome::Done(_)));
        let player = ada();
        play(&mut room, &player, 1..200);
        let before = counting::allocations();
        play(&mut room, &player, 200..400);
        let allocations = counting::allocations() - before;
        assert_eq!(allocations, 0, "{name}: over 200 wakes and 200 inputs");
    }
}

fn play(room: &mut Room, player: &Player, beats: std::ops::Range<i64>) {
    for beat in beats {
        let wake = room.wake(ms(beat * 50));
        assert!(matches!(wake, Outcome::Done(_)), "{:?}", room.fault());
        // A key no guest of ours acts upon.
        let input = room.input(ms(beat * 50 + 10), player, Input::Rune('~' as u32));
        assert!(matches!(input, Outcome::Done(_)), "{:?}", room.fault());
    }
}
