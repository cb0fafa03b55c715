//! Rooms that are parked and had back: by the grace, on demand, and when parking fails.

mod common;

use std::future::Future;
use std::sync::{Arc, Mutex};

use cabinet_host::{Input, MemoryServices, RoomConfig, Sck1, Seed};
use cabinet_rooms::services::memory::MemoryStore;
use cabinet_rooms::services::{Leaderboard, Post, Posted, ServiceError};
use cabinet_rooms::{
    Captured, EndReason, HibernateError, JoinError, Listing, Parking, Phase, Reply, Resume,
};
use cabinet_wire::Lifecycle;

use common::{by_hand, configure, game, list, ms, player, spec, tour};

/// Takes rooms as told: a list of answers, then always yes.
#[derive(Default)]
struct Garage {
    failures: Mutex<u32>,
    attempts: Mutex<u32>,
    parked: Mutex<Vec<Captured>>,
    held: Mutex<Option<Reply<()>>>,
    hold: bool,
}

impl Parking for Garage {
    fn park(&self, parked: Captured, reply: Reply<()>) {
        *self.attempts.lock().unwrap() += 1;
        if self.hold {
            *self.held.lock().unwrap() = Some(reply);
            return;
        }
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return reply.send(Err(ServiceError::Unavailable("no space".into())));
        }
        self.parked.lock().unwrap().push(parked);
        reply.send(Ok(()));
    }
}

#[test]
fn a_resumable_room_is_parked_after_its_grace_and_its_instance_is_freed() {
    let by = by_hand();
    let garage = Arc::new(Garage::default());
    let listed = tour(Lifecycle::Resumable);
    let mut spec = spec();
    spec.parking = Some(garage.clone());
    let room = by.runtime.open(&listed, spec.clone()).unwrap();
    let mut ada = by.run(room.join(player(1))).unwrap();
    by.pass(ms(1_000));
    let before = ada.frames().try_next().unwrap().frame;
    assert!(by.counts.get("memory") > 0);
    drop(ada);
    by.pass(ms(61_000));
    let ending = by.run(room.ended());
    assert_eq!(ending.reason, EndReason::Hibernated);
    assert!(ending.result.is_none());
    assert_eq!(room.status().phase, Phase::Hibernated);
    // The reference keeps the instance, and its gauge, for as long as the game is loaded.
    assert_eq!(by.counts.get("memory"), 0);
    assert_eq!(by.counts.get("rooms"), 0);
    assert_eq!(by.counts.get("callback close"), 0);

    let parked = garage.parked.lock().unwrap().pop().unwrap();
    assert_eq!(parked.roster.len(), 1);
    spec.id = Some(parked.room);
    let again = by
        .runtime
        .resume(&listed, Resume::Snapshot(Box::new(parked.snapshot)), spec)
        .unwrap();
    by.run(again.started()).unwrap();
    let mut ada = by.run(again.join(player(1))).unwrap();
    let after = ada.frames().try_next().unwrap().frame;
    let wakes = |frame: &cabinet_host::Frame| -> u32 {
        let row = frame.row_text(1);
        row.split("wakes=")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    assert_eq!(wakes(&after), wakes(&before));
    by.pass(ms(1_000));
    // The cadence the game declares, 40 ms, is kept by a restore; the reference forgets it.
    assert_eq!(
        wakes(&ada.frames().try_next().unwrap().frame),
        wakes(&before) + 25
    );
}

#[test]
fn a_resumed_room_that_nobody_joins_is_parked_again() {
    let by = by_hand();
    let garage = Arc::new(Garage::default());
    let listed = tour(Lifecycle::Resumable);
    let mut spec = spec();
    spec.parking = Some(garage.clone());
    let room = by.runtime.open(&listed, spec.clone()).unwrap();
    by.run(room.hibernate()).unwrap();
    let parked = garage.parked.lock().unwrap().pop().unwrap();
    let again = by
        .runtime
        .resume(&listed, Resume::Snapshot(Box::new(parked.snapshot)), spec)
        .unwrap();
    by.run(again.started()).unwrap();
    by.pass(ms(61_000));
    assert_eq!(by.run(again.ended()).reason, EndReason::Hibernated);
    assert_eq!(garage.parked.lock().unwrap().len(), 1);
}

#[test]
fn a_room_of_the_reference_that_nobody_joined_is_parked_with_who_was_in_it() {
    let listed = tour(Lifecycle::Resumable);
    let mut room = game("tour.wasm").room(
        RoomConfig::new(Seed::Set(7)),
        Box::new(MemoryServices::new()),
    );
    let _ = room.start(1_700_000_000_000_000_000);
    let _ = room.join(1_700_000_000_000_000_000, player(1));
    let _ = room.join(1_700_000_000_000_000_000, player(2));
    let blob = room.snapshot_sck1(3).unwrap();
    let accounts = |parked: &Captured| -> Vec<String> {
        let roster = parked.roster.iter();
        roster.map(|player| player.account.clone()).collect()
    };
    // At once, and when the grace is over.
    for at_once in [true, false] {
        let by = by_hand();
        let garage = Arc::new(Garage::default());
        let mut spec = spec();
        spec.parking = Some(garage.clone());
        let blob = Sck1::decode(&blob, 1 << 30).unwrap();
        let resumed = by
            .runtime
            .resume(&listed, Resume::Sck1(Box::new(blob)), spec)
            .unwrap();
        by.run(resumed.started()).unwrap();
        if at_once {
            by.run(resumed.hibernate()).unwrap();
        } else {
            by.pass(ms(61_000));
        }
        assert_eq!(by.run(resumed.ended()).reason, EndReason::Hibernated);
        let parked = garage.parked.lock().unwrap().pop().unwrap();
        assert_eq!(accounts(&parked), ["a1", "a2"], "at once: {at_once}");
    }
}

#[test]
fn parking_that_fails_is_tried_again_and_the_room_does_not_stay_for_ever() {
    let by = by_hand();
    let garage = Arc::new(Garage {
        failures: Mutex::new(3),
        ..Garage::default()
    });
    let mut spec = spec();
    spec.parking = Some(garage.clone());
    let room = by.runtime.open(&tour(Lifecycle::Resumable), spec).unwrap();
    drop(by.run(room.join(player(1))).unwrap());
    by.pass(ms(60_000 + 1_000 + 2_000));
    assert!(room.ending().is_none());
    assert_eq!(*garage.attempts.lock().unwrap(), 3);
    // Somebody comes back meanwhile, and the room is as it was.
    let seat = by.run(room.join(player(1))).unwrap();
    by.pass(ms(60_000));
    assert_eq!(*garage.attempts.lock().unwrap(), 3);
    drop(seat);
    by.pass(ms(61_000));
    assert_eq!(by.run(room.ended()).reason, EndReason::Hibernated);
}

#[test]
fn parking_that_never_answers_is_given_up_and_a_late_answer_changes_nothing() {
    let by = by_hand();
    let garage = Arc::new(Garage {
        hold: true,
        ..Garage::default()
    });
    let mut spec = spec();
    spec.parking = Some(garage.clone());
    let room = by.runtime.open(&tour(Lifecycle::Resumable), spec).unwrap();
    drop(by.run(room.join(player(1))).unwrap());
    by.pass(ms(60_500));
    let late = garage.held.lock().unwrap().take().unwrap();
    by.pass(ms(30_000));
    let seat = by.run(room.join(player(2))).unwrap();
    late.send(Ok(()));
    by.pass(ms(1_000));
    assert!(room.ending().is_none());
    assert_eq!(room.members().len(), 1);
    drop(seat);
}

#[test]
fn a_join_during_parking_waits_for_how_it_ends() {
    let by = by_hand();
    let garage = Arc::new(Garage {
        hold: true,
        ..Garage::default()
    });
    let mut spec = spec();
    spec.parking = Some(garage.clone());
    let room = by.runtime.open(&tour(Lifecycle::Resumable), spec).unwrap();
    drop(by.run(room.join(player(1))).unwrap());
    by.pass(ms(60_500));
    let mut join = Box::pin(room.join(player(2)));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(join.as_mut().poll(&mut cx).is_pending());
    by.pass(ms(1_000));
    assert!(join.as_mut().poll(&mut cx).is_pending());
    let reply = garage.held.lock().unwrap().take().unwrap();
    reply.send(Ok(()));
    assert_eq!(by.run(join).unwrap_err(), JoinError::Closed);
    assert_eq!(room.status().phase, Phase::Hibernated);
}

#[test]
fn hibernating_a_room_that_cannot_be_parked_leaves_it_as_it_was() {
    let by = by_hand();
    let garage = Arc::new(Garage {
        failures: Mutex::new(1),
        ..Garage::default()
    });
    let mut spec = spec();
    spec.parking = Some(garage.clone());
    let room = by.runtime.open(&tour(Lifecycle::Resumable), spec).unwrap();
    let ada = by.run(room.join(player(1))).unwrap();
    assert!(room.status().hibernatable);
    assert!(matches!(
        by.run(room.hibernate()),
        Err(HibernateError::Park(_))
    ));
    by.pass(ms(1_000));
    assert!(room.ending().is_none());
    assert!(by.counts.get("callback wake") > 20);
    by.run(room.hibernate()).unwrap();
    assert!(by.run(room.ended()).result.is_none());
    drop(ada);
    assert!(matches!(
        by.run(room.hibernate()),
        Err(HibernateError::Closed)
    ));
}

#[test]
fn a_resident_room_ticks_with_nobody_in_it_only_when_the_operator_grants_it() {
    let store = MemoryStore::new();
    let listed = tour(Lifecycle::Resident);
    let mut spec = spec();
    spec.services.config = Some(Arc::new(store.clone()));
    let by = by_hand();
    let plain = by.runtime.open(&listed, spec.clone()).unwrap();
    by.pass(ms(1_000));
    assert_eq!(plain.status().lifecycle, Lifecycle::Resumable);
    assert_eq!(by.counts.get("callback wake"), 0);

    configure(&store, b"host.resident", b"true");
    let garage = Arc::new(Garage::default());
    spec.parking = Some(garage.clone());
    let room = by.runtime.open(&listed, spec.clone()).unwrap();
    by.pass(ms(1_000));
    assert_eq!(room.status().lifecycle, Lifecycle::Resident);
    assert_eq!(by.counts.get("callback wake"), 25);
    by.run(by.run(room.join(player(1))).unwrap().leave());
    by.pass(ms(600_000));
    assert!(room.ending().is_none());
    // It can be frozen all the same, and is resident again when resumed; the reference forgets.
    by.run(room.hibernate()).unwrap();
    let parked = garage.parked.lock().unwrap().pop().unwrap();
    let before = by.counts.get("callback wake");
    let again = by
        .runtime
        .resume(&listed, Resume::Snapshot(Box::new(parked.snapshot)), spec)
        .unwrap();
    by.pass(ms(1_000));
    assert_eq!(again.status().lifecycle, Lifecycle::Resident);
    assert_eq!(by.counts.get("callback wake") - before, 25);
}

#[test]
fn a_snapshot_of_another_game_is_not_resumed_and_costs_nothing() {
    let by = by_hand();
    let garage = Arc::new(Garage::default());
    let mut spec = spec();
    spec.parking = Some(garage.clone());
    let room = by
        .runtime
        .open(&tour(Lifecycle::Resumable), spec.clone())
        .unwrap();
    by.run(room.hibernate()).unwrap();
    let parked = garage.parked.lock().unwrap().pop().unwrap();
    let other = list(Listing::new(game("fences.wasm")));
    let again = by
        .runtime
        .resume(&other, Resume::Snapshot(Box::new(parked.snapshot)), spec)
        .unwrap();
    let ending = by.run(again.started()).unwrap_err();
    assert_eq!(ending.reason, EndReason::NotResumed);
    assert!(matches!(
        ending.restore,
        Some(cabinet_host::RestoreError::ArtifactMismatch { .. })
    ));
    assert!(ending.result.is_none());
    assert_eq!(by.counts.get("rooms"), 0);
    assert_eq!(by.counts.get("memory"), 0);
}

#[test]
fn posts_that_were_not_recorded_go_with_the_parked_room() {
    /// Records nothing until it is told to.
    #[derive(Default)]
    struct Board {
        open: Mutex<bool>,
        held: Mutex<Vec<Reply<Posted>>>,
        landed: Mutex<Vec<Post>>,
    }
    impl Leaderboard for Board {
        fn post(&self, post: &Post, reply: Reply<Posted>) {
            if *self.open.lock().unwrap() {
                self.landed.lock().unwrap().push(post.clone());
                return reply.send(Ok(Posted::Landed));
            }
            self.held.lock().unwrap().push(reply);
        }
    }
    let by = by_hand();
    let listed = tour(Lifecycle::Resumable);
    let garage = Arc::new(Garage::default());
    let board = Arc::new(Board::default());
    let mut spec = spec();
    spec.parking = Some(garage.clone());
    spec.services.leaderboard = Some(board.clone());
    let room = by.runtime.open(&listed, spec.clone()).unwrap();
    let ada = by.run(room.join(player(1))).unwrap();
    by.run(ada.input(Input::Rune('p' as u32))).unwrap();
    by.run(room.checkpoint()).unwrap();
    let unrecorded = room.unrecorded_posts();
    assert_eq!(unrecorded.len(), 1);
    by.run(room.hibernate()).unwrap();
    let parked = garage.parked.lock().unwrap().pop().unwrap();
    assert_eq!(parked.posts, unrecorded);

    // The process dies with what waited; another has the parked room back.
    let other = by_hand();
    *board.open.lock().unwrap() = true;
    spec.id = Some(parked.room);
    spec.posts = parked.posts;
    let again = other
        .runtime
        .resume(&listed, Resume::Snapshot(Box::new(parked.snapshot)), spec)
        .unwrap();
    other.run(again.started()).unwrap();
    assert_eq!(*board.landed.lock().unwrap(), unrecorded);
    drop(ada);
}

#[test]
fn a_room_says_it_can_be_parked_only_while_it_can() {
    let by = by_hand();
    let mut spec = spec();
    spec.parking = Some(Arc::new(Garage::default()));
    let room = by.runtime.open(&tour(Lifecycle::Resumable), spec).unwrap();
    assert!(!room.status().hibernatable);
    by.run(room.started()).unwrap();
    assert!(room.status().hibernatable);
    room.close();
    by.run(room.ended());
    assert!(!room.status().hibernatable);
}
