//! Large rooms: a thousand players with a view each.

mod common;

use cabinet_host::{NoServices, Outcome, Player, RoomConfig, Seed, Slot};
use cabinet_wire::ROSTER_CAP;
use common::ms;

#[test]
fn a_thousand_players_each_see_a_frame_of_their_own() {
    let game = common::game(&common::fixture("crowd.wasm"));
    let mut room = game.room(RoomConfig::new(Seed::Set(7)), Box::new(NoServices));
    assert!(matches!(room.start(ms(0)), Outcome::Done(_)));
    for index in 0..1_000 {
        let player = Player::member(
            format!("a{index}"),
            format!("p{index}"),
            format!("c{index}"),
        );
        let outcome = room.join(ms(index), player);
        assert!(matches!(outcome, Outcome::Done(_)), "{:?}", room.fault());
    }
    for beat in 0..70 {
        let outcome = room.wake(ms(2_000 + beat * 100));
        assert!(matches!(outcome, Outcome::Done(_)), "{:?}", room.fault());
    }
    let seen = (0..1_000)
        .filter(|index| room.frame(Slot::Member(*index)).is_some())
        .count();
    assert_eq!(seen, 1_000);
    assert!(room.memory_bytes() < game.memory_cap_bytes());
}

#[test]
fn players_past_the_last_slot_are_told_to_the_guest_and_get_no_frame() {
    let game = common::game(&common::fixture("crowd.wasm"));
    let mut room = game.room(RoomConfig::new(Seed::Set(7)), Box::new(NoServices));
    let _ = room.start(ms(0));
    let members: Vec<_> = (0..ROSTER_CAP + 10)
        .map(|index| {
            Player::member(
                format!("a{index}"),
                format!("p{index}"),
                format!("c{index}"),
            )
        })
        .collect();
    room.set_members(members);
    for beat in 0..60 {
        let outcome = room.wake(ms(100 + beat * 100));
        assert!(matches!(outcome, Outcome::Done(_)), "{:?}", room.fault());
    }
    assert!(room.frame(Slot::Member(ROSTER_CAP)).is_none());
}
