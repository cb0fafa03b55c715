//! A room's life as its callers see it: joining, capacity, ending, results, abandonment.

mod common;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cabinet_host::{Input, Status};
use cabinet_rooms::services::memory::MemoryStore;
use cabinet_rooms::{
    CheckpointError, EndReason, HibernateError, JoinError, Listing, Phase, Resume,
};
use cabinet_wire::Lifecycle;

use common::{by_hand, by_hand_with, configure, game, list, ms, player, spec, tour};

#[test]
fn a_player_joins_types_sees_and_leaves() {
    let by = by_hand();
    let room = by
        .runtime
        .open(&tour(Lifecycle::Ephemeral), spec())
        .unwrap();
    by.run(room.started()).unwrap();
    let mut ada = by.run(room.join(player(1))).unwrap();
    let first = ada.frames().try_next().unwrap();
    assert!(first.frame.row_text(0).starts_with("TOUR"));
    assert!(ada.frames().try_next().is_none());
    by.run(ada.input(Input::Rune('z' as u32))).unwrap();
    by.pass(ms(0));
    let view = ada.frames().try_next().unwrap();
    assert!(
        view.frame.row_text(4).contains("'z'"),
        "{}",
        view.frame.row_text(4)
    );
    assert_ne!(view.changed, 0);
    assert_ne!(view.changed, 0x00FF_FFFF);
    by.pass(ms(1_000));
    assert!(ada.frames().try_next().is_some());
    assert_eq!(by.counts.get("callback wake"), 25);
    assert_eq!(by.counts.get("input bytes"), 10);
    assert_eq!(room.members().len(), 1);
    by.run(ada.leave());
    assert_eq!(room.members().len(), 0);
    by.pass(ms(10_000));
    assert_eq!(by.counts.get("callback wake"), 25);
}

#[test]
fn phases_tell_whether_another_player_gets_in() {
    let by = by_hand();
    let room = by
        .runtime
        .open(&tour(Lifecycle::Ephemeral), spec())
        .unwrap();
    assert_eq!(room.status().phase, Phase::Init);
    by.run(room.started()).unwrap();
    let open = |open| Phase::InPlay { open };
    assert_eq!(room.status().phase, open(true));
    let seats: Vec<_> = (0..3)
        .map(|n| by.run(room.join(player(n))).unwrap())
        .collect();
    assert_eq!(room.status().phase, open(false));
    assert_eq!(by.run(room.join(player(3))).unwrap_err(), JoinError::Full);
    assert_eq!(room.status().members, 3);
    by.run(seats.into_iter().next().unwrap().leave());
    assert_eq!(room.status().phase, open(true));
    by.run(room.join(player(3))).unwrap();
}

#[test]
fn a_room_without_a_limit_is_always_open() {
    let by = by_hand();
    let mut spec = spec();
    spec.capacity = Some(0);
    let room = by.runtime.open(&tour(Lifecycle::Ephemeral), spec).unwrap();
    let _seats: Vec<_> = (0..40)
        .map(|n| by.run(room.join(player(n))).unwrap())
        .collect();
    assert_eq!(room.status().phase, Phase::InPlay { open: true });
}

#[test]
fn the_same_player_does_not_sit_twice_and_another_connection_is_another_player() {
    let by = by_hand();
    let room = by
        .runtime
        .open(&tour(Lifecycle::Ephemeral), spec())
        .unwrap();
    let first = by.run(room.join(player(1))).unwrap();
    assert_eq!(
        by.run(room.join(player(1))).unwrap_err(),
        JoinError::Already
    );
    let mut elsewhere = player(1);
    elsewhere.conn = "another".into();
    let second = by.run(room.join(elsewhere)).unwrap();
    assert_eq!(room.members().len(), 2);
    by.run(first.input(Input::Rune('e' as u32))).unwrap();
    let ending = by.run(room.ended());
    let result = ending.result.as_ref().unwrap();
    // The reference gives a player who joined twice two lines.
    assert_eq!(result.standings.len(), 2);
    drop(second);
}

#[test]
fn who_was_there_and_is_not_ranked_did_not_finish() {
    let by = by_hand();
    let room = by
        .runtime
        .open(&tour(Lifecycle::Ephemeral), spec())
        .unwrap();
    let seats: Vec<_> = (0..3)
        .map(|n| by.run(room.join(player(n))).unwrap())
        .collect();
    let mut seats = seats.into_iter();
    by.run(seats.next().unwrap().leave());
    let mut ada = seats.next().unwrap();
    by.run(ada.input(Input::Rune('e' as u32))).unwrap();
    let ending = by.run(room.ended());
    assert_eq!(ending.reason, EndReason::Game);
    let lines: Vec<_> = ending
        .result
        .as_ref()
        .unwrap()
        .standings
        .iter()
        .map(|line| (line.player.handle.clone(), line.status))
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[2], ("p0".into(), Some(Status::Dnf)));
    assert_eq!(room.status().phase, Phase::Settled);
    // The last frame can still be seen; then the stream is over.
    assert!(by.run(ada.frames().next()).is_some());
    assert!(by.run(ada.frames().next()).is_none());
    assert!(ada.try_input(Input::Rune('x' as u32)).is_err());
    assert_eq!(by.run(room.join(player(9))).unwrap_err(), JoinError::Closed);
    assert_eq!(by.counts.get("memory"), 0);
    assert_eq!(by.counts.get("rooms"), 0);
    assert_eq!(by.counts.get("callback close"), 1);
    assert!(by.runtime.find(room.id()).is_none());
}

#[test]
fn an_ephemeral_room_ends_after_its_grace_and_a_join_calls_that_off() {
    let by = by_hand();
    let room = by
        .runtime
        .open(&tour(Lifecycle::Ephemeral), spec())
        .unwrap();
    by.run(by.run(room.join(player(1))).unwrap().leave());
    by.pass(ms(59_000));
    assert!(room.ending().is_none());
    let back = by.run(room.join(player(2))).unwrap();
    by.pass(ms(120_000));
    assert!(room.ending().is_none());
    drop(back);
    by.pass(ms(60_500));
    assert_eq!(by.run(room.ended()).reason, EndReason::Abandoned);
    assert_eq!(
        by.run(room.ended())
            .result
            .as_ref()
            .unwrap()
            .standings
            .len(),
        2
    );
}

#[test]
fn a_room_nobody_ever_joined_is_not_abandoned() {
    let by = by_hand();
    let room = by
        .runtime
        .open(&tour(Lifecycle::Ephemeral), spec())
        .unwrap();
    by.pass(ms(600_000));
    assert!(room.ending().is_none());
    assert_eq!(by.counts.get("callback wake"), 0);
    room.close();
    assert_eq!(by.run(room.ended()).reason, EndReason::Closed);
}

#[test]
fn a_resumable_room_with_nowhere_to_park_ends_at_once() {
    let by = by_hand();
    let room = by
        .runtime
        .open(&tour(Lifecycle::Resumable), spec())
        .unwrap();
    by.run(by.run(room.join(player(1))).unwrap().leave());
    assert_eq!(by.run(room.ended()).reason, EndReason::Abandoned);
    let other = by
        .runtime
        .open(&tour(Lifecycle::Resumable), spec())
        .unwrap();
    assert!(matches!(
        by.run(other.hibernate()),
        Err(HibernateError::NoParking)
    ));
    assert!(!other.status().hibernatable);
}

#[test]
fn the_operators_cadence_applies_to_new_rooms() {
    let store = MemoryStore::new();
    configure(&store, b"host.heartbeat_ms", b"200");
    let mut spec = spec();
    spec.services.config = Some(Arc::new(store));
    let by = by_hand();
    let room = by.runtime.open(&tour(Lifecycle::Ephemeral), spec).unwrap();
    let _seat = by.run(room.join(player(1))).unwrap();
    by.pass(ms(2_000));
    assert_eq!(by.counts.get("callback wake"), 10);
}

#[test]
fn a_checkpoint_disturbs_nothing_and_continues_as_the_room_does() {
    let by = by_hand();
    let listed = tour(Lifecycle::Ephemeral);
    let room = by.runtime.open(&listed, spec()).unwrap();
    // Nobody is in it, so that both have the same players after the restore.
    let bytes = by.run(room.checkpoint()).unwrap().encode(1).unwrap();
    // As another process would: the game loaded anew, the snapshot decoded.
    let again = list(Listing::new(game("tour.wasm")).with_lifecycle(Lifecycle::Ephemeral));
    let max = again.game().snapshot_bytes_max();
    let snapshot = cabinet_host::Snapshot::decode(&bytes, max).unwrap();
    let restored = by
        .runtime
        .resume(&again, Resume::Snapshot(Box::new(snapshot)), spec())
        .unwrap();
    by.run(restored.started()).unwrap();
    let frames = [&room, &restored].map(|room| {
        let mut seat = by.run(room.join(player(1))).unwrap();
        for rune in ['z', 'd', 'i', 'z'] {
            by.run(seat.input(Input::Rune(rune.into()))).unwrap();
            by.pass(Duration::ZERO);
        }
        seat.frames().try_next().unwrap().frame
    });
    assert_eq!(frames[0], frames[1]);
    assert!(frames[0].row_text(5).contains("dice"));
    room.close();
    by.run(room.ended());
    assert!(matches!(
        by.run(room.checkpoint()),
        Err(CheckpointError::Closed)
    ));
}

#[test]
fn who_leaves_finds_a_place_however_full_the_queues_are() {
    let by = by_hand();
    let room = by
        .runtime
        .open(&tour(Lifecycle::Ephemeral), spec())
        .unwrap();
    let ada = by.run(room.join(player(1))).unwrap();
    for _ in 0..cabinet_rooms::INPUTS_MAX {
        ada.try_input(Input::Rune('x' as u32)).unwrap();
    }
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut asked: Vec<_> = (0..=cabinet_rooms::REQUESTS_MAX)
        .map(|_| Box::pin(room.checkpoint()))
        .collect();
    for request in &mut asked {
        assert!(request.as_mut().poll(&mut cx).is_pending());
    }
    drop(ada);
    by.pass(Duration::ZERO);
    assert_eq!(
        by.counts.get("callback input"),
        cabinet_rooms::INPUTS_MAX as i64
    );
    assert_eq!(by.counts.get("callback leave"), 1);
    // The one past the limit had to wait for a place; it is answered too.
    for request in asked {
        assert!(by.run(request).is_ok());
    }
}

#[test]
fn the_gauge_of_linear_memory_is_what_the_guest_has_and_is_told_when_it_changes() {
    let by = by_hand();
    let room = by
        .runtime
        .open(&tour(Lifecycle::Ephemeral), spec())
        .unwrap();
    by.run(room.started()).unwrap();
    let gauge = by.counts.get("memory");
    assert!(gauge > 0 && gauge % 65_536 == 0, "{gauge}");
    let mut by_hand = game("tour.wasm").room(
        cabinet_host::RoomConfig::new(cabinet_host::Seed::Set(7)),
        Box::new(cabinet_host::NoServices),
    );
    let _ = by_hand.start(common::EPOCH);
    assert_eq!(gauge as u64, by_hand.memory_bytes());
    let _seat = by.run(room.join(player(1))).unwrap();
    let gauge = by.counts.get("memory");
    by.pass(ms(1_000));
    assert_eq!(by.counts.get("memory"), gauge);
    let second = by
        .runtime
        .open(&tour(Lifecycle::Ephemeral), spec())
        .unwrap();
    by.run(second.started()).unwrap();
    assert!(by.counts.get("memory") > gauge);
    second.close();
    by.run(second.ended());
    assert_eq!(by.counts.get("memory"), gauge);
}

#[test]
fn what_a_caller_does_in_a_status_predicate_does_not_hold_the_room_up() {
    let by = by_hand();
    let room = by
        .runtime
        .open(&tour(Lifecycle::Ephemeral), spec())
        .unwrap();
    by.run(room.started()).unwrap();
    let status = by.run(room.status_when(|status| {
        // The room publishes a new status meanwhile, and asks for it.
        if status.members == 0 {
            drop(by.run(room.join(player(1))).unwrap());
            by.pass(Duration::ZERO);
        }
        room.status().phase == status.phase
    }));
    assert_eq!(status.members, 0);
}

#[test]
fn a_room_is_open_once_and_there_are_no_more_than_the_limit() {
    let by = by_hand_with(|options| options.rooms_max = 2);
    let listed = tour(Lifecycle::Ephemeral);
    let room = by.runtime.open(&listed, spec()).unwrap();
    let mut same = spec();
    same.id = Some(room.id());
    assert!(
        by.runtime
            .open(&listed, same.clone())
            .unwrap_err()
            .to_string()
            .contains("open already")
    );
    let _second = by.runtime.open(&listed, spec()).unwrap();
    assert!(
        by.runtime
            .open(&listed, spec())
            .unwrap_err()
            .to_string()
            .contains("2 rooms")
    );
    room.close();
    by.run(room.ended());
    by.runtime.open(&listed, same).unwrap();
}

#[test]
fn a_seat_given_up_before_the_room_looked_is_not_taken() {
    let by = by_hand();
    let room = by
        .runtime
        .open(&tour(Lifecycle::Ephemeral), spec())
        .unwrap();
    {
        let mut join = Box::pin(room.join(player(1)));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(join.as_mut().poll(&mut cx).is_pending());
    }
    by.pass(Duration::ZERO);
    // The guest never hears of it.
    assert_eq!(by.counts.get("callback join"), 0);
    assert!(room.members().is_empty());
}

#[test]
fn keys_ahead_of_the_room_are_bounded_per_player() {
    let by = by_hand();
    let room = by
        .runtime
        .open(&tour(Lifecycle::Ephemeral), spec())
        .unwrap();
    let ada = by.run(room.join(player(1))).unwrap();
    let bob = by.run(room.join(player(2))).unwrap();
    for _ in 0..cabinet_rooms::INPUTS_MAX {
        ada.try_input(Input::Rune('x' as u32)).unwrap();
    }
    assert_eq!(
        ada.try_input(Input::Rune('x' as u32)).unwrap_err(),
        cabinet_rooms::InputError::Full
    );
    // One player's flood does not keep another from typing, or from leaving.
    bob.try_input(Input::Rune('y' as u32)).unwrap();
    by.pass(Duration::ZERO);
    assert_eq!(
        by.counts.get("callback input"),
        cabinet_rooms::INPUTS_MAX as i64 + 1
    );
    ada.try_input(Input::Rune('x' as u32)).unwrap();
}

#[test]
fn a_runtime_that_is_dropped_tells_those_who_wait() {
    let by = by_hand();
    let room = by
        .runtime
        .open(&tour(Lifecycle::Ephemeral), spec())
        .unwrap();
    let seat = by.run(room.join(player(1))).unwrap();
    drop(by.runtime);
    let ending = room.ending().unwrap();
    assert_eq!(ending.reason, EndReason::Closed);
    assert_eq!(ending.result.as_ref().unwrap().standings.len(), 1);
    drop(seat);
}

#[test]
fn a_room_that_is_late_makes_up_for_one_wake_and_tells_of_the_others() {
    let by = by_hand();
    let room = by
        .runtime
        .open(&tour(Lifecycle::Ephemeral), spec())
        .unwrap();
    let _seat = by.run(room.join(player(1))).unwrap();
    by.pass(ms(1_000));
    let (before, skipped) = (by.counts.get("callback wake"), by.counts.get("skipped"));
    assert_eq!(skipped, 0);
    // The machine stood still for ten periods of 40 ms: the wake that was due, and the last missed.
    by.clock.advance_to(ms(1_400));
    by.pass(ms(0));
    assert_eq!(by.counts.get("callback wake") - before, 2);
    assert_eq!(by.counts.get("skipped"), 8);
    by.pass(ms(400));
    assert_eq!(by.counts.get("callback wake") - before, 12);
}

#[test]
fn rooms_opened_together_do_not_wake_together() {
    let by = by_hand();
    let listed = tour(Lifecycle::Ephemeral);
    let mut seats: Vec<_> = (0..40)
        .map(|n| {
            let room = by.runtime.open(&listed, spec()).unwrap();
            by.run(room.join(player(n))).unwrap()
        })
        .collect();
    for seat in &mut seats {
        seat.frames().try_next();
    }
    let mut most = 0;
    for _ in 0..40 {
        by.pass(ms(1));
        let woke = seats
            .iter_mut()
            .filter_map(|seat| seat.frames().try_next())
            .count();
        most = most.max(woke);
    }
    // Forty rooms over forty milliseconds.
    assert!(most <= 3, "{most}");
}

#[test]
fn a_lone_player_who_comes_back_under_another_name_is_shown_under_it() {
    let by = by_hand();
    // The game is told of its roster by epochs: it hears nothing when the epoch stays.
    let room = by
        .runtime
        .open(&tour(Lifecycle::Ephemeral), spec())
        .unwrap();
    by.run(by.run(room.join(player(1))).unwrap().leave());
    let mut renamed = player(1);
    renamed.handle = "somebody".into();
    renamed.conn = "another".into();
    let mut seat = by.run(room.join(renamed)).unwrap();
    by.pass(ms(100));
    let frame = seat.frames().try_next().unwrap().frame;
    assert!(
        (0..24).any(|row| frame.row_text(row).contains("somebody")),
        "{}",
        frame.row_text(10)
    );
}

#[test]
fn a_room_is_watched_from_its_first_call() {
    #[derive(Clone, Default)]
    struct Calls(Arc<std::sync::Mutex<Vec<&'static str>>>);

    impl cabinet_host::Observer for Calls {
        fn callback_begin(&mut self, export: &'static str, _: &[u8]) {
            self.0.lock().unwrap().push(export);
        }
    }

    let by = by_hand();
    let calls = Calls::default();
    let watching = calls.clone();
    let mut spec = spec();
    spec.observer = Some(Arc::new(move || Box::new(watching.clone())));
    let room = by.runtime.open(&tour(Lifecycle::Ephemeral), spec).unwrap();
    by.run(room.started()).unwrap();
    let ada = by.run(room.join(player(1))).unwrap();
    by.run(ada.input(Input::Rune('z' as u32))).unwrap();
    by.pass(ms(0));
    room.close();
    by.run(room.ended());
    assert_eq!(
        *calls.0.lock().unwrap(),
        ["start", "join", "input", "close"]
    );
}
