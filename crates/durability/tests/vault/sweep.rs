//! What a sweep takes away, and what it leaves alone.

use std::time::Duration;

use cabinet_durability::{Standing, SweepPolicy};

use crate::faulty::Fault;
use crate::support::{
    Bucket, NOW, failure, head_key, header, live, opened, pack, park, room, state, write,
};

const HOUR_MS: u64 = 60 * 60 * 1_000;
const DAY_MS: u64 = 24 * HOUR_MS;

fn deep() -> SweepPolicy {
    let mut policy = SweepPolicy::default();
    policy.deep = true;
    policy
}

#[tokio::test]
async fn a_parked_room_expires_then_says_so_then_is_gone() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    park(&a, room(1), header("g", 1, &["ada"])).await;
    let parked = opened(&a, room(1)).await;
    let policy = SweepPolicy::default();
    let at = NOW + 14 * DAY_MS;
    let swept = a.sweep(&policy, at).await.expect("it sweeps");
    assert_eq!(swept, Default::default(), "it is just as old as it may be");
    let swept = a.sweep(&policy, at + 1).await.expect("it sweeps");
    assert_eq!((swept.expired, swept.erased), (1, 0));
    assert_eq!(
        failure(a.open_parked(room(1), Some("ada"), None).await),
        "expired"
    );
    assert_eq!(
        failure(a.open_parked(room(1), Some("eve"), None).await),
        "not a member"
    );
    assert_eq!(failure(a.take(&parked, at).await), "expired");
    assert_eq!(failure(a.claim(room(1), at).await), "expired");
    assert_eq!(failure(a.latest(room(1), None).await), "expired");
    assert!(bucket.checkpoints(room(1)).await.is_empty());
    assert!(bucket.keys("v1/players/").await.is_empty());

    let tomb = at + 1 + 30 * DAY_MS;
    let swept = a.sweep(&policy, tomb).await.expect("it sweeps");
    assert_eq!(swept.erased, 0);
    let swept = a.sweep(&policy, tomb + 1).await.expect("it sweeps");
    assert_eq!(swept.erased, 1);
    assert_eq!(bucket.keys("").await, Vec::<String>::new());
    assert_eq!(
        failure(a.open_parked(room(1), None, None).await),
        "no checkpoint"
    );
}

#[tokio::test]
async fn a_live_room_is_never_swept() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let lease = live(&a, room(1), b"x").await;
    let before = bucket.all().await;
    let swept = a
        .sweep(&deep(), NOW + 1_000 * DAY_MS)
        .await
        .expect("it sweeps");
    assert_eq!(swept, Default::default());
    assert_eq!(bucket.all().await, before);
    write(&lease, b"y").await;
}

#[tokio::test]
async fn entries_that_lead_nowhere_go_when_they_are_old_enough() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let at = NOW.to_le_bytes().to_vec();
    bucket
        .put(&format!("v1/live/{}.{:020}", room(1), 1), at.clone())
        .await;
    bucket
        .put(&format!("v1/parked/{}.{:020}", room(2), 1), at.clone())
        .await;
    bucket
        .put(
            &format!("v1/players/{}/{}.{:020}", "0".repeat(32), room(3), 1),
            at,
        )
        .await;
    let swept = a.sweep(&deep(), NOW + HOUR_MS).await.expect("it sweeps");
    assert_eq!(swept.entries, 0, "they are young");
    let swept = a
        .sweep(&SweepPolicy::default(), NOW + HOUR_MS + 1)
        .await
        .expect("it sweeps");
    assert_eq!(
        swept.entries, 2,
        "players' entries are looked through only by a deep one"
    );
    let swept = a
        .sweep(&deep(), NOW + HOUR_MS + 1)
        .await
        .expect("it sweeps");
    assert_eq!(swept.entries, 1);
    assert_eq!(bucket.keys("").await, Vec::<String>::new());
}

#[tokio::test]
async fn entries_of_a_room_that_is_elsewhere_go_and_its_own_stay() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    live(&a, room(1), b"x").await;
    park(&a, room(2), header("g", 1, &["ada"])).await;
    let before = bucket.all().await;
    bucket
        .put(&format!("v1/parked/{}.{:020}", room(1), 1), "")
        .await;
    bucket
        .put(&format!("v1/live/{}.{:020}", room(2), 1), "")
        .await;
    let swept = a.sweep(&deep(), NOW + DAY_MS).await.expect("it sweeps");
    assert_eq!(swept.entries, 2);
    assert_eq!(bucket.all().await, before);
}

#[tokio::test]
async fn a_parked_room_that_is_missing_in_one_index_is_put_back_there() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    park(&a, room(1), header("g", 1, &["ada"])).await;
    bucket
        .delete(&format!("v1/parked/{}.{:020}", room(1), 1))
        .await;
    assert!(a.parked().await.expect("it lists").rooms.is_empty());
    a.sweep(&deep(), NOW + DAY_MS).await.expect("it sweeps");
    assert_eq!(a.parked_of("ada").await.expect("it lists").rooms.len(), 1);
    assert_eq!(a.parked().await.expect("it lists").rooms.len(), 1);
}

#[tokio::test]
async fn checkpoints_without_a_room_go_in_a_deep_sweep_when_nothing_leads_to_them() {
    let bucket = Bucket::new();
    let (a, b) = (bucket.process("a"), bucket.process("b"));
    // Written late by somebody who was fenced, after the room was over.
    let old = live(&a, room(1), b"x").await;
    let late = pack(&old, b"late");
    let (new, _) = b.claim(room(1), NOW).await.expect("it is live");
    new.end(NOW).await.expect("it ends");
    assert_eq!(failure(old.write(&late, NOW).await), "fenced");
    assert_eq!(bucket.keys("").await.len(), 1);
    // A head that was lost, of a room that is in an index.
    live(&a, room(2), b"y").await;
    bucket.delete(&head_key(room(2))).await;
    live(&a, room(3), b"z").await;
    bucket.put("v1/rooms/foreign/x", "x").await;

    let swept = a
        .sweep(&SweepPolicy::default(), NOW + DAY_MS)
        .await
        .expect("it sweeps");
    assert_eq!(swept.orphans, 0);
    bucket
        .put(
            &format!("v1/live/{}.{:020}", room(2), 1),
            (NOW + DAY_MS).to_le_bytes().to_vec(),
        )
        .await;
    let swept = a.sweep(&deep(), NOW + HOUR_MS).await.expect("it sweeps");
    assert_eq!(swept.orphans, 0, "they are young");
    let swept = a.sweep(&deep(), NOW + DAY_MS).await.expect("it sweeps");
    assert_eq!(swept.orphans, 1);
    a.rebuild(room(2), NOW).await.expect("it rebuilds");
    assert_eq!(state(&a, room(2)).await, b"y");
    assert_eq!(state(&a, room(3)).await, b"z");
    assert!(bucket.get("v1/rooms/foreign/x").await.is_some());
}

#[tokio::test]
async fn rooms_whose_head_cannot_be_read_are_counted_and_left_alone() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    park(&a, room(1), header("g", 1, &["ada"])).await;
    live(&a, room(2), b"x").await;
    bucket.put(&head_key(room(1)), "damaged").await;
    bucket.put(&head_key(room(2)), "damaged").await;
    let before = bucket.all().await;
    let swept = a
        .sweep(&SweepPolicy::default(), NOW + 100 * DAY_MS)
        .await
        .expect("it sweeps");
    assert_eq!((swept.damaged, swept.failed), (2, 0));
    let swept = a
        .sweep(&deep(), NOW + 100 * DAY_MS)
        .await
        .expect("it sweeps");
    assert_eq!(swept.orphans, 0);
    assert_eq!(bucket.all().await, before);
}

#[tokio::test]
async fn a_room_that_cannot_be_swept_now_does_not_keep_the_others() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    park(&a, room(1), header("g", 1, &["ada"])).await;
    park(&a, room(2), header("g", 1, &["ada"])).await;
    // The listing, two heads, then the first room's own look.
    bucket.0.fail(3, Fault::NotDone);
    let swept = a
        .sweep(&SweepPolicy::default(), NOW + 15 * DAY_MS)
        .await
        .expect("it sweeps");
    assert_eq!((swept.failed, swept.expired), (1, 1));
}

#[tokio::test]
async fn a_policy_sets_its_own_times() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    park(&a, room(1), header("g", 1, &["ada"])).await;
    let mut policy = SweepPolicy::default();
    policy.parked_for = Duration::from_secs(1);
    policy.expired_for = Duration::ZERO;
    a.sweep(&policy, NOW + 1_001).await.expect("it sweeps");
    let head = a
        .head(room(1))
        .await
        .expect("it reads")
        .expect("it is there");
    assert_eq!(head.standing, Standing::Expired);
    a.sweep(&policy, NOW + 1_002).await.expect("it sweeps");
    assert_eq!(bucket.keys("").await, Vec::<String>::new());
}

#[tokio::test]
async fn old_checkpoints_of_a_parked_room_go_in_a_deep_sweep_and_a_live_rooms_stay() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let lease = live(&a, room(1), b"live").await;
    let parking = live(&a, room(2), b"parking").await;
    for n in 0..6 {
        write(&lease, &[n]).await;
        write(&parking, &[n]).await;
    }
    let packed = crate::support::pack(&parking, b"parked");
    parking
        .park(&packed, header("g", 1, &["ada"]), NOW)
        .await
        .expect("it is parked");
    let before = bucket.keys("").await;
    let later = NOW + HOUR_MS;
    let shallow = a.sweep(&SweepPolicy::default(), later).await;
    assert_eq!(shallow.expect("it sweeps").pruned, 0);
    let young = a.sweep(&deep(), NOW + 1_000).await;
    assert_eq!(young.expect("it sweeps").pruned, 0);
    assert_eq!(bucket.keys("").await, before);
    // Eight, of which four are kept.
    let swept = a.sweep(&deep(), later).await.expect("it sweeps");
    assert_eq!(swept.pruned, 4);
    assert_eq!(bucket.checkpoints(room(2)).await.len(), 4);
    assert_eq!(bucket.checkpoints(room(1)).await.len(), 7);
    let mut only = deep();
    only.keep.keep_last = 1;
    let swept = a.sweep(&only, later).await.expect("it sweeps");
    assert_eq!(swept.pruned, 3);
    let parked = crate::support::opened(&a, room(2)).await;
    assert_eq!(parked.checkpoint().bytes, b"parked");
    assert_eq!(state(&a, room(1)).await, [5]);
}
