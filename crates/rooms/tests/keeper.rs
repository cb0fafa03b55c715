//! Rooms that outlive their process: what dies, what goes on where, who may come back.

mod common;
mod kept;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cabinet_durability::cadence::CadenceRules;
use cabinet_durability::store::{BlobStore, Condition, Key};
use cabinet_durability::{Epoch, OwnerId, RoomId, Standing};
use cabinet_host::{Character, Input, Player};
use cabinet_rooms::EndReason;
use cabinet_rooms::keeper::{Drained, Reclaimed, Resident, ResumeError};
use cabinet_rooms::services::ServiceSet;
use cabinet_rooms::services::memory::MemoryStore as Values;
use cabinet_wire::Lifecycle;

use common::{configure, player, spec};
use kept::{
    Process, Store, everybody, names, process, process_with, spec_of, store, until, until_taken,
    vault, wakes_in, wakes_seen,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_room_whose_process_died_goes_on_elsewhere_from_its_last_checkpoint() {
    let store = store();
    let old = process(&store, "old");
    let listed = old.offers(Lifecycle::Ephemeral);
    let room = old.keeper.open(&old.runtime, &listed, spec()).unwrap();
    let mut seat = room.join(player(1)).await.unwrap();
    while wakes_seen(&mut seat).await < 5 {}
    until_taken(&old).await;
    old.keeper.checkpoint(room.id()).await.unwrap();
    let written = room.capture().await.unwrap();
    while wakes_seen(&mut seat).await < 20 {}

    // The old process is not told: it hangs.
    let new = process(&store, "new");
    new.offers(Lifecycle::Ephemeral);
    let report = new.reclaims().await;
    assert_eq!(report.len(), 1);
    assert_eq!(report[0].owner, Some(OwnerId::named("old")));
    let again = report[0].handle().expect("resumed").clone();
    assert_eq!(again.id(), room.id());
    let mut back = again.join(player(1)).await.unwrap();
    let first = back.frames().next().await.unwrap().frame;
    assert!(wakes_in(&first) <= 20, "it went on from the checkpoint");
    assert!(written.joined.iter().any(|one| one.account == "a1"));

    // It comes back to itself, and is told at its next checkpoint.
    let late = old.keeper.checkpoint(room.id()).await;
    assert!(late.is_err(), "{late:?}");
    assert_eq!(room.ended().await.reason, EndReason::Moved);
    assert_eq!(old.keeper.stats().fenced, 1);
    while seat.frames().next().await.is_some() {}

    // The new owner writes on above what was there.
    new.keeper.checkpoint(again.id()).await.unwrap();
    let head = new.keeper.vault().head(again.id()).await.unwrap().unwrap();
    assert_eq!(
        (head.epoch(), head.owner),
        (Epoch(2), OwnerId::named("new"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cadence_checkpoints_a_room_that_plays_and_leaves_alone_one_that_does_not() {
    let store = store();
    let process = process_with(&store, "p", |options| {
        options.cadence = CadenceRules {
            base: Duration::from_millis(1),
            jitter: Duration::ZERO,
        };
        options.prune_every = 2;
        options.retention.keep_last = 1;
        options.retention.keep_younger = Duration::ZERO;
    });
    let listed = process.offers(Lifecycle::Ephemeral);
    let room = process
        .keeper
        .open(&process.runtime, &listed, spec())
        .unwrap();
    let seat = room.join(player(1)).await.unwrap();
    until(async || process.keeper.stats().checkpoints >= 6).await;
    drop(seat);
    // Nobody is there, so nothing is called and nothing changes: after one more there is quiet.
    until(async || room.status().members == 0).await;
    let id = room.id();
    until(async || {
        let head = process.keeper.vault().head(id).await.unwrap().unwrap();
        let calls = room.callbacks();
        let before = process.keeper.stats().checkpoints;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let after = process.keeper.stats().checkpoints;
        before == after && calls == room.callbacks() && head.epoch() == Epoch(after)
    })
    .await;
    // Old checkpoints went: not all of them are there.
    let kept = names(&*store).await;
    let objects = kept.iter().filter(|name| name.contains("/e-")).count() as u64;
    assert!(objects < process.keeper.stats().checkpoints, "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_room_is_found_and_resumed_by_who_was_in_it_and_nobody_else() {
    let store = store();
    let old = process(&store, "old");
    let listed = old.offers(Lifecycle::Resumable);
    let room = old.keeper.open(&old.runtime, &listed, spec()).unwrap();
    let ada = player(1).with_character(Character {
        glyph: "@".into(),
        ink: [1, 2, 3],
        ..Character::default()
    });
    let gone = room.join(player(3)).await.unwrap();
    gone.leave().await;
    let mut seat = room.join(ada.clone()).await.unwrap();
    let guest = room.join(Player::guest("guest", "c9")).await.unwrap();
    while wakes_seen(&mut seat).await < 5 {}
    until_taken(&old).await;
    room.hibernate().await.unwrap();
    assert_eq!(room.ended().await.reason, EndReason::Hibernated);
    drop((seat, guest));

    let new = process(&store, "new");
    new.offers(Lifecycle::Resumable);
    let id = room.id();
    for (account, rooms) in [("a1", 1), ("a3", 0), ("a2", 0), ("", 0)] {
        let found = new.keeper.rooms_of(account).await.unwrap();
        assert_eq!(found.rooms.len(), rooms, "{account}");
    }
    let resume = async |account: &str| {
        new.keeper
            .resume(&new.runtime, &new.registry, id, account, spec())
            .await
    };
    // Who left before is in its result and not in its roster.
    for stranger in ["a3", "a2", ""] {
        let refused = resume(stranger).await.expect_err("refused");
        assert!(matches!(refused, ResumeError::NotFound), "{refused}");
        assert_eq!(refused.notice(), "gone");
    }
    let again = resume("a1").await.unwrap();
    let captured = again.capture().await.unwrap();
    let accounts: Vec<&str> = captured
        .joined
        .iter()
        .map(|one| one.account.as_str())
        .collect();
    assert_eq!(accounts, ["a3", "a1", ""]);
    assert_eq!(captured.joined[1], ada, "character and all");
    assert_eq!(captured.roster.len(), 2);
    assert_eq!(again.status().lifecycle, Lifecycle::Resumable);
    let twice = resume("a1").await.expect_err("refused");
    assert!(matches!(twice, ResumeError::AlreadyResumed), "{twice}");
    assert!(new.keeper.rooms_of("a1").await.unwrap().rooms.is_empty());

    // Everybody who was ever there gets a line.
    let seat = again.join(ada).await.unwrap();
    seat.input(Input::Rune('e' as u32)).await.unwrap();
    let ending = again.ended().await;
    assert_eq!(ending.result.as_ref().unwrap().standings.len(), 3);
    // And nothing is left of it.
    until(async || names(&*store).await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_processes_that_resume_a_room_one_does_and_the_others_free_what_they_built() {
    let store = store();
    let old = process(&store, "old");
    let listed = old.offers(Lifecycle::Resumable);
    for round in 0..10 {
        let (room, seat) = old.plays(&listed, player(round)).await;
        room.hibernate().await.unwrap();
        drop(seat);
        let processes: Vec<Process> = (0..3).map(|n| process(&store, &format!("p{n}"))).collect();
        let account = format!("a{round}");
        let tries = processes.iter().map(|one| {
            one.offers(Lifecycle::Resumable);
            one.keeper
                .resume(&one.runtime, &one.registry, room.id(), &account, spec())
        });
        let results = futures_util::future::join_all(tries).await;
        assert_eq!(results.iter().filter(|one| one.is_ok()).count(), 1);
        for (process, result) in processes.iter().zip(&results) {
            match result {
                Ok(_) => assert_eq!(process.runtime.stats().rooms, 1),
                Err(error) => {
                    assert!(matches!(error, ResumeError::AlreadyResumed), "{error:?}");
                    until(async || process.runtime.stats().rooms == 0).await;
                }
            }
        }
        // The winner forgets it, so that the next round begins on an empty store.
        for room in results.into_iter().flatten() {
            room.close();
            room.ended().await;
        }
        until(async || names(&*store).await.is_empty()).await;
    }
}

/// Breaks what the store has under every key that `picks`.
async fn garble(store: &Store, picks: impl Fn(&str) -> bool) {
    for name in names(store).await {
        if picks(&name) {
            let key = Key::new(name).unwrap();
            let garbage = Bytes::from_static(b"garbage");
            store.put(&key, garbage, Condition::None).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reclaiming_goes_past_what_is_corrupt_or_updated_and_reports_each() {
    let store = store();
    let old = process(&store, "old");
    let listed = old.offers(Lifecycle::Ephemeral);
    let mut ids: Vec<RoomId> = Vec::new();
    for n in 0..4 {
        let (room, _seat) = old.plays(&listed, player(n)).await;
        old.keeper.checkpoint(room.id()).await.unwrap();
        ids.push(room.id());
    }
    // One that was never checkpointed, one with a broken checkpoint, one with a broken head.
    let bare = old.keeper.open(&old.runtime, &listed, spec()).unwrap();
    until_taken(&old).await;
    garble(&store, |name| name.contains(&format!("{}/e-", ids[1]))).await;
    garble(&store, |name| name == format!("v1/heads/{}", ids[2])).await;

    let new = process(&store, "new");
    new.offers(Lifecycle::Ephemeral);
    let report = new.reclaims().await;
    let of = |id: RoomId| {
        let found = report.iter().find(|one| one.room == id);
        found.expect("reported").outcome.name()
    };
    assert_eq!(report.len(), 5);
    assert_eq!((of(ids[0]), of(ids[3])), ("resumed", "resumed"));
    assert_eq!((of(ids[1]), of(ids[2])), ("set-aside", "set-aside"));
    assert_eq!(of(bare.id()), "nothing-kept");
    // What was set aside is not looked at again.
    assert!(new.reclaims().await.is_empty());
    let aside = names(&*store).await;
    let aside = aside.iter().filter(|name| name.starts_with("v1/aside/"));
    assert_eq!(aside.count(), 2);
    let head = new.keeper.vault().head(ids[1]).await.unwrap().unwrap();
    assert_eq!(head.standing, Standing::Aside);

    // A process whose game was updated leaves the rooms to others.
    let updated = process(&store, "updated");
    updated.offers_update(Lifecycle::Ephemeral);
    let report = updated.reclaims().await;
    assert_eq!(report.len(), 2);
    for room in &report {
        let Reclaimed::Left(error @ ResumeError::Retired { stored, listed }) = &room.outcome else {
            panic!("{room:?}");
        };
        assert_eq!(error.notice(), "retired by an update");
        assert_ne!(stored, listed);
    }
    // They are still the other's, which is not fenced.
    new.keeper.checkpoint(ids[0]).await.unwrap();

    store.set_down(true);
    let listing = updated
        .keeper
        .reclaim(&updated.runtime, &updated.registry, everybody, spec_of)
        .await;
    assert!(listing.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_players_resume_says_corrupt_expired_or_retired_by_an_update() {
    let store = store();
    let old = process(&store, "old");
    let listed = old.offers(Lifecycle::Resumable);
    let (room, seat) = old.plays(&listed, player(1)).await;
    room.hibernate().await.unwrap();
    drop(seat);
    let notice = async |process: &Process| {
        process
            .keeper
            .resume(&process.runtime, &process.registry, room.id(), "a1", spec())
            .await
            .expect_err("refused")
            .notice()
    };
    let none = process(&store, "none");
    assert_eq!(notice(&none).await, "not available now");
    let updated = process(&store, "updated");
    updated.offers_update(Lifecycle::Resumable);
    assert_eq!(notice(&updated).await, "retired by an update");
    store.set_down(true);
    assert_eq!(notice(&updated).await, "not available now");
    store.set_down(false);

    let new = process(&store, "new");
    new.offers(Lifecycle::Resumable);
    garble(&store, |name| name.contains("/e-")).await;
    assert_eq!(notice(&new).await, "corrupt");
    assert_eq!(new.runtime.stats().rooms, 0);

    let mut policy = cabinet_durability::SweepPolicy::default();
    policy.parked_for = Duration::ZERO;
    let swept = vault(&store, "sweeper").sweep(&policy, u64::MAX / 2).await;
    assert_eq!(swept.unwrap().expired, 1);
    assert_eq!(notice(&new).await, "expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resident_room_is_restored_and_one_of_another_artifact_is_retired() {
    let store = store();
    let values = Arc::new(Values::new());
    configure(&values, b"host.resident", b"true");
    let granted = |_: &cabinet_rooms::GameSlug| {
        let mut wanted = spec();
        wanted.services = ServiceSet {
            config: Some(values.clone()),
            ..ServiceSet::default()
        };
        wanted
    };
    let bring_up = async |process: &Process| {
        let mut report = process
            .keeper
            .bring_up_residents(&process.runtime, &process.registry, everybody, &granted)
            .await;
        assert_eq!(report.len(), 1);
        report.remove(0).outcome
    };
    let first = process(&store, "first");
    first.offers(Lifecycle::Resident);
    let Resident::Fresh(room, None) = bring_up(&first).await else {
        panic!("there was none");
    };
    assert!(matches!(bring_up(&first).await, Resident::Here(_)));
    until(async || room.callbacks() > 10).await;
    first.keeper.checkpoint(room.id()).await.unwrap();
    // It is in nobody's list, however it is drained.
    let seat = room.join(player(1)).await.unwrap();
    let report = first.keeper.drain(Duration::from_secs(60)).await;
    assert!(
        matches!(report.rooms[0].2, Drained::Checkpointed(Epoch(2))),
        "{report}"
    );
    drop(seat);
    assert!(first.keeper.rooms_of("a1").await.unwrap().rooms.is_empty());

    let second = process(&store, "second");
    second.offers(Lifecycle::Resident);
    let elsewhere = second
        .keeper
        .bring_up_residents(&second.runtime, &second.registry, |_| false, &granted)
        .await;
    assert!(matches!(elsewhere[0].outcome, Resident::Elsewhere(_)));
    let Resident::Restored(again) = bring_up(&second).await else {
        panic!("there is a checkpoint");
    };
    assert_eq!(again.id(), room.id());
    // It ticks with nobody in it, as a resident room does.
    until(async || again.callbacks() > 5).await;
    second.keeper.checkpoint(again.id()).await.unwrap();

    let updated = process(&store, "updated");
    updated.offers_update(Lifecycle::Resident);
    let Resident::Fresh(fresh, Some(ResumeError::Retired { .. })) = bring_up(&updated).await else {
        panic!("the game was updated");
    };
    assert_ne!(fresh.id(), again.id());
    assert!(
        updated
            .keeper
            .vault()
            .head(again.id())
            .await
            .unwrap()
            .is_none()
    );

    let not_granted = process(&store, "other");
    not_granted.offers(Lifecycle::Resident);
    let report = not_granted
        .keeper
        .bring_up_residents(
            &not_granted.runtime,
            &not_granted.registry,
            everybody,
            spec_of,
        )
        .await;
    assert!(report.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_makes_every_room_safe_and_names_what_it_left() {
    let store = store();
    let old = process(&store, "old");
    let resumable = old.offers(Lifecycle::Resumable);
    let mut seats = Vec::new();
    for n in 0..30 {
        let room = old.keeper.open(&old.runtime, &resumable, spec()).unwrap();
        seats.push(room.join(player(n)).await.unwrap());
    }
    until_taken(&old).await;
    // While the store does not answer nothing is done, and everything is named and goes on.
    store.hold("v1/rooms/");
    let report = old.keeper.drain(Duration::from_millis(50)).await;
    assert_eq!(report.rooms.len(), 30);
    assert_eq!(report.left().count(), 30, "{report}");
    assert!(
        report
            .to_string()
            .contains("LEFT, stored up to epoch 0: the budget ran out")
    );
    store.lift();
    let report = old.keeper.drain(Duration::from_secs(60)).await;
    assert!(report.is_complete(), "{report}");
    let new = process(&store, "new");
    new.offers(Lifecycle::Resumable);
    for n in 0..30 {
        let account = format!("a{n}");
        let rooms = new.keeper.rooms_of(&account).await.unwrap().rooms;
        assert_eq!(rooms.len(), 1, "{account}");
        let id = rooms[0].room;
        let resumed = new
            .keeper
            .resume(&new.runtime, &new.registry, id, &account, spec());
        resumed.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_plays_while_the_store_is_down_and_is_taken_when_it_is_back() {
    let store = store();
    store.set_down(true);
    let process = process(&store, "p");
    let listed = process.offers(Lifecycle::Resumable);
    let room = process
        .keeper
        .open(&process.runtime, &listed, spec())
        .unwrap();
    let mut seat = room.join(player(1)).await.unwrap();
    while wakes_seen(&mut seat).await < 3 {}
    until(async || process.keeper.stats().failed > 0).await;
    assert_eq!(process.keeper.stats().unclaimed, 1);
    assert!(room.hibernate().await.is_err(), "there is nowhere to park");
    while wakes_seen(&mut seat).await < 6 {}
    store.set_down(false);
    until_taken(&process).await;
    process.keeper.checkpoint(room.id()).await.unwrap();
    // And when it goes down again, the room is not the worse for it.
    store.set_down(true);
    assert!(process.keeper.checkpoint(room.id()).await.is_err());
    store.set_down(false);
    process.keeper.checkpoint(room.id()).await.unwrap();
    room.hibernate().await.unwrap();
}
