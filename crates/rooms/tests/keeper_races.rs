//! Rooms that are kept, while something else happens: a store that holds, loses or forgets, a shutdown,
//! a cadence that fires, a caller who leaves.

mod common;
mod kept;

use std::sync::Arc;
use std::time::Duration;

use cabinet_durability::cadence::CadenceRules;
use cabinet_durability::store::{BlobStore, Key};
use cabinet_durability::{Epoch, RoomId};
use cabinet_rooms::EndReason;
use cabinet_rooms::services::memory::MemoryStore as Values;
use cabinet_wire::Lifecycle;
use futures_util::StreamExt as _;

use common::{configure, player, spec};
use kept::{names, process, process_with, store, until, until_taken, vault};

#[tokio::test(flavor = "multi_thread")]
async fn rooms_a_drain_left_are_reclaimed_after_the_shutdown() {
    let store = store();
    let old = process(&store, "old");
    let listed = old.offers(Lifecycle::Resumable);
    let (room, _seat) = old.plays(&listed, player(1)).await;
    old.keeper.checkpoint(room.id()).await.unwrap();
    store.hold("v1/rooms/");
    let report = old.keeper.drain(Duration::from_millis(50)).await;
    assert_eq!(report.left().count(), 1, "{report}");
    // Nothing of it is written any more, and nothing erased.
    store.set_down(true);
    store.lift();
    old.runtime.shutdown().await;
    until(async || old.keeper.stats().rooms == 0).await;
    store.set_down(false);
    let new = process(&store, "new");
    new.offers(Lifecycle::Resumable);
    let report = new.reclaims().await;
    assert!(report[0].handle().is_some(), "{report:?}");
    // One that somebody closes is over, and erased.
    let again = report[0].handle().unwrap();
    again.close();
    again.ended().await;
    until(async || names(&*store).await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cadence_that_is_about_to_capture_does_not_keep_a_room_from_being_parked() {
    let store = store();
    let process = process_with(&store, "p", |options| {
        options.cadence = CadenceRules {
            base: Duration::from_micros(1),
            jitter: Duration::ZERO,
        };
    });
    let listed = process.offers(Lifecycle::Resumable);
    for n in 0..60 {
        let (room, seat) = process.plays(&listed, player(n)).await;
        until(async || process.keeper.stats().checkpoints > n as u64).await;
        room.hibernate().await.unwrap();
        drop(seat);
    }
    // Had one waited for the other, both would have waited until the room gave up parking.
    assert_eq!(process.keeper.stats().parked, 60);
    assert_eq!(process.keeper.stats().failed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_gave_up_being_parked_and_was_is_dropped_and_resumed_once() {
    let store = store();
    let mut runtime = cabinet_rooms::RuntimeOptions::default();
    runtime.park_within = Duration::from_millis(20);
    let process = kept::process_on(kept::options(&store, "p"), runtime);
    let listed = process.offers(Lifecycle::Resumable);
    let (room, mut seat) = process.plays(&listed, player(1)).await;
    store.hold("v1/heads/");
    assert!(room.hibernate().await.is_err(), "the store does not answer");
    // It plays on.
    while seat.frames().try_next().is_some() {}
    assert!(seat.frames().next().await.is_some());
    store.lift();
    // In the store it is parked now: there must not be two of it.
    assert_eq!(room.ended().await.reason, EndReason::Moved);
    until(async || process.keeper.stats().rooms == 0).await;
    let again = process
        .keeper
        .resume(&process.runtime, &process.registry, room.id(), "a1", spec())
        .await
        .unwrap();
    assert_eq!(again.id(), room.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_room_whose_claim_went_through_unheard_is_not_taken_for_somebody_elses() {
    let store = store();
    let process = process(&store, "p");
    let listed = process.offers(Lifecycle::Resumable);
    store.lose_a_head();
    let (room, _seat) = process.plays(&listed, player(1)).await;
    process.keeper.checkpoint(room.id()).await.unwrap();
    assert_eq!(process.keeper.stats().fenced, 0);
    assert!(!room.status().phase.is_over());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_whose_head_was_lost_is_reclaimed_from_what_lies_beside_it() {
    let store = store();
    let old = process(&store, "old");
    let listed = old.offers(Lifecycle::Ephemeral);
    let (room, _seat) = old.plays(&listed, player(1)).await;
    old.keeper.checkpoint(room.id()).await.unwrap();
    let head = Key::new(format!("v1/heads/{}", room.id())).unwrap();
    store.delete(&[head]).await.unwrap();
    // Its owner is not told that it is somebody else's.
    assert!(old.keeper.checkpoint(room.id()).await.is_err());
    assert!(!room.status().phase.is_over());
    // And no sweep takes its state for nobody's.
    let mut policy = cabinet_durability::SweepPolicy::default();
    policy.deep = true;
    let swept = vault(&store, "sweeper")
        .sweep(&policy, u64::MAX / 2)
        .await
        .unwrap();
    assert_eq!((swept.orphans, swept.entries), (0, 0), "{swept:?}");

    let new = process(&store, "new");
    new.offers(Lifecycle::Ephemeral);
    let report = new.reclaims().await;
    assert!(report[0].handle().is_some(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_room_keeps_its_lifecycle_when_nobody_can_say_what_it_is_to_be() {
    let store = store();
    let values = Arc::new(Values::new());
    configure(&values, b"host.resident", b"true");
    let old = process(&store, "old");
    let listed = old.offers(Lifecycle::Resident);
    let mut granted = spec();
    granted.services.config = Some(values.clone());
    let room = old.keeper.open(&old.runtime, &listed, granted).unwrap();
    until_taken(&old).await;
    until(async || room.callbacks() > 3).await;
    assert_eq!(room.status().lifecycle, Lifecycle::Resident);
    old.keeper.checkpoint(room.id()).await.unwrap();
    let new = process(&store, "new");
    new.offers(Lifecycle::Resident);
    let report = new.reclaims().await;
    let again = report[0].handle().expect("resumed");
    assert_eq!(again.status().lifecycle, Lifecycle::Resident);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_that_nobody_waits_for_is_done_all_the_same() {
    let store = store();
    let process = process(&store, "p");
    let listed = process.offers(Lifecycle::Resumable);
    let (room, seat) = process.plays(&listed, player(1)).await;
    room.hibernate().await.unwrap();
    drop(seat);
    until(async || process.keeper.stats().rooms == 0).await;
    store.hold("v1/heads/");
    let waiting =
        process
            .keeper
            .resume(&process.runtime, &process.registry, room.id(), "a1", spec());
    let left = tokio::time::timeout(Duration::from_millis(100), waiting).await;
    assert!(left.is_err(), "the store does not answer");
    store.lift();
    until(async || process.keeper.stats().rooms == 1).await;
    process.keeper.checkpoint(room.id()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_game_with_rules_of_its_own_is_checkpointed_by_them() {
    let store = store();
    let process = process_with(&store, "p", |options| {
        let often = CadenceRules {
            base: Duration::from_millis(1),
            jitter: Duration::ZERO,
        };
        options
            .cadence_of
            .insert("ada/tour".parse().unwrap(), often);
    });
    let rarely = process.offers(Lifecycle::Ephemeral);
    let listing =
        cabinet_rooms::Listing::new(rarely.game().clone()).with_slug("ada/tour".parse().unwrap());
    let often = process.registry.add(listing).unwrap();
    let (a, b) = (
        process
            .keeper
            .open(&process.runtime, &rarely, spec())
            .unwrap(),
        process
            .keeper
            .open(&process.runtime, &often, spec())
            .unwrap(),
    );
    let _seats = (
        a.join(player(1)).await.unwrap(),
        b.join(player(2)).await.unwrap(),
    );
    until_taken(&process).await;
    until(async || process.keeper.stats().checkpoints >= 5).await;
    let epoch = async |id: RoomId| {
        process
            .keeper
            .vault()
            .head(id)
            .await
            .unwrap()
            .unwrap()
            .epoch()
    };
    assert_eq!(epoch(a.id()).await, Epoch::NONE);
    assert!(epoch(b.id()).await >= Epoch(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_rooms_are_captured_to_be_parked_than_the_store_takes() {
    let store = store();
    let process = process_with(&store, "p", |options| options.in_flight_max = 1);
    let listed = process.offers(Lifecycle::Resumable);
    let rooms: Vec<_> = (0..40)
        .map(|_| {
            process
                .keeper
                .open(&process.runtime, &listed, spec())
                .unwrap()
        })
        .collect();
    until_taken(&process).await;
    store.hold("v1/rooms/");
    let mut parking: futures_util::stream::FuturesUnordered<_> = rooms
        .iter()
        .map(|room| async move { (room, room.hibernate().await) })
        .collect();
    // Eight are refused at once, and go on; the others wait for the store.
    for _ in 0..8 {
        let (room, refused) = parking.next().await.unwrap();
        let refused = refused.expect_err("there is no place");
        let why = std::error::Error::source(&refused).unwrap().to_string();
        assert!(why.contains("32 rooms are being parked already"), "{why}");
        assert!(!room.status().phase.is_over());
    }
    store.lift();
    while let Some((_, parked)) = parking.next().await {
        parked.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_room_may_be_resumed_the_moment_it_is_parked() {
    const ROOMS: usize = 20;
    const TIMES: u64 = 30;
    let store = store();
    let process = process(&store, "p");
    let listed = process.offers(Lifecycle::Resumable);
    // Many at once, so that what is over is not forgotten at once.
    let rooms = (0..ROOMS).map(async |n| {
        let opened = process.keeper.open(&process.runtime, &listed, spec());
        let mut room = opened.unwrap();
        let mut seat = room.join(player(n)).await.unwrap();
        until(async || room.hibernate().await.is_ok()).await;
        for _ in 1..TIMES {
            drop(seat);
            let account = format!("a{n}");
            let resumed = process.keeper.resume(
                &process.runtime,
                &process.registry,
                room.id(),
                &account,
                spec(),
            );
            room = resumed.await.unwrap();
            seat = room.join(player(n)).await.unwrap();
            room.hibernate().await.unwrap();
        }
    });
    futures_util::future::join_all(rooms).await;
    assert_eq!(process.keeper.stats().parked, ROOMS as u64 * TIMES);
    until(async || process.keeper.stats().rooms == 0).await;
}
