//! Rooms of more players than there are frame slots: what they see, and that a tick costs the host
//! what changed and not what the room holds.

mod common;

use std::sync::{Arc, Mutex};

use cabinet_host::{CallReport, Input};
use cabinet_rooms::{Export, GameLabel, Listing, Recorder, RoomHandle, RoomSpec, Seat};
use cabinet_wire::ROSTER_CAP;

use common::{ByHand, by_hand_with, game, list, ms, player};

/// Members past the last frame slot too.
const MANY: usize = ROSTER_CAP + 76;

/// Keeps the report of the last wake.
#[derive(Default)]
struct LastWake(Mutex<CallReport>);

impl Recorder for LastWake {
    fn work(&self, _: &GameLabel, export: Export, report: &CallReport) {
        if export == Export::Wake {
            *self.0.lock().unwrap() = report.clone();
        }
    }
}

struct Large {
    by: ByHand,
    room: RoomHandle,
    seats: Vec<Seat>,
    last: Arc<LastWake>,
}

/// A room of `tour` with so many members, a second old.
fn tour_of(members: usize) -> Large {
    let last = Arc::new(LastWake::default());
    let recorder = Arc::clone(&last);
    let by = by_hand_with(|options| options.recorder = recorder);
    let listed = list(Listing::new(game("tour.wasm")).with_capacity(0));
    let mut spec = RoomSpec::default();
    spec.seed = Some(7);
    let room = by.runtime.open(&listed, spec).unwrap();
    let seats = (0..members)
        .map(|n| by.run(room.join(player(n))).unwrap())
        .collect();
    by.pass(ms(1_000));
    Large {
        by,
        room,
        seats,
        last,
    }
}

#[test]
fn a_steady_wake_costs_the_host_the_same_whatever_the_room_holds() {
    let wake = |members| {
        let large = tour_of(members);
        let report = large.last.0.lock().unwrap().clone();
        (report.bytes_in, report.host_calls, report.frames)
    };
    // The roster has an epoch: it is not sent again, and a broadcast is one frame.
    assert_eq!(wake(2), (29, 1, 1));
    assert_eq!(wake(MANY), (29, 1, 1));
}

#[test]
fn players_past_the_last_slot_see_what_everybody_sees_and_nothing_of_their_own() {
    let mut large = tour_of(MANY);
    for at in [0, ROSTER_CAP - 1, ROSTER_CAP, MANY - 1] {
        let view = large.seats[at].frames().try_next().unwrap();
        assert!(view.frame.row_text(0).starts_with("TOUR"), "seat {at}");
    }
    for (at, own) in [(ROSTER_CAP - 1, true), (ROSTER_CAP, false)] {
        let key = Input::Rune('h' as u32);
        large.by.run(large.seats[at].input(key)).unwrap();
        large.by.pass(ms(0));
        let view = large.seats[at].frames().try_next();
        let personal = view.is_some_and(|view| view.frame.row_text(1).contains("PERSONAL"));
        assert_eq!(personal, own, "seat {at}");
    }
    assert_eq!(large.room.members().len(), MANY);
}

#[test]
fn frames_of_a_thousand_viewers_share_what_is_the_same() {
    let mut large = tour_of(ROSTER_CAP);
    // A page for each, then the page for everybody again.
    large
        .by
        .run(large.seats[0].input(Input::Rune('a' as u32)))
        .unwrap();
    large.by.pass(ms(0));
    let personal = large.seats[9].frames().try_next().unwrap();
    assert!(personal.frame.row_text(1).contains("PERSONAL"));
    large.by.pass(ms(1_000));
    let first = large.seats[9].frames().try_next().unwrap().frame;
    let second = large.seats[700].frames().try_next().unwrap().frame;
    assert!(
        first
            .rows()
            .zip(second.rows())
            .all(|(one, other)| std::ptr::eq(one, other))
    );
}

#[test]
fn one_player_leaving_a_thousand_moves_the_others_up_and_nobody_sees_anothers_page() {
    let mut large = tour_of(ROSTER_CAP);
    let first = large.seats.remove(0);
    large.by.run(first.leave());
    let (at, key) = (500, Input::Rune('h' as u32));
    large.by.run(large.seats[at].input(key)).unwrap();
    large.by.pass(ms(0));
    for (other, seat) in large.seats.iter_mut().enumerate() {
        let Some(view) = seat.frames().try_next() else {
            continue;
        };
        let personal = view.frame.row_text(1).contains("PERSONAL");
        assert_eq!(personal, other == at, "seat {other}");
        if personal {
            assert!(view.frame.row_text(2).contains("you=p501"));
        }
    }
}
