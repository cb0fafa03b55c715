//! Writing a room: what it costs, who may, and in which order.

use std::sync::Arc;

use cabinet_durability::reference::{ReferenceKey, ReferenceStore};
use cabinet_durability::seal::{Keyring, Sealing};
use cabinet_durability::{
    Epoch, Fence, OwnerId, Retention, Standing, SweepPolicy, Vault, VaultOptions, Written,
};
use std::time::Duration;

use crate::faulty::{Counts, Faulty};
use crate::support::{
    Bucket, GAME, NOW, failure, head_key, header, key, live, pack, room, state, write,
};

#[tokio::test]
async fn a_room_is_written_and_read_back_by_whoever_claims_it() {
    let bucket = Bucket::new();
    let (a, b) = (bucket.process("a"), bucket.process("b"));
    let lease = live(&a, room(1), b"one").await;
    write(&lease, b"two").await;
    assert_eq!((lease.epoch(), lease.fence()), (Epoch(2), Fence(1)));

    let (lease, checkpoint) = b.claim(room(1), NOW).await.expect("it is live");
    let checkpoint = checkpoint.expect("it has one");
    assert_eq!(checkpoint.bytes, b"two");
    assert_eq!((checkpoint.epoch, checkpoint.fence), (Epoch(2), Fence(1)));
    // Each capture is later than the one before, whatever the clock says.
    assert_eq!((checkpoint.artifact, checkpoint.at_ms), (GAME, NOW + 1));
    assert_eq!((lease.fence(), lease.next_epoch()), (Fence(2), Epoch(3)));
    let head = a
        .head(room(1))
        .await
        .expect("it reads")
        .expect("it is there");
    assert_eq!((head.owner, head.base), (OwnerId::named("b"), Epoch(2)));
}

#[tokio::test]
async fn a_steady_checkpoint_is_two_requests() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    bucket.0.settle().await;
    let lease = a.create(room(1), NOW).await.expect("it is new");
    let create = Counts {
        puts: 2,
        ..Counts::default()
    };
    assert_eq!(bucket.0.counts(), create, "the index entry and the head");
    for n in 0..5 {
        bucket.0.settle().await;
        write(&lease, &[n]).await;
        assert_eq!(
            bucket.0.counts(),
            Counts {
                puts: 2,
                ..Counts::default()
            }
        );
    }
    bucket.0.settle().await;
    state(&a, room(1)).await;
    assert_eq!(
        bucket.0.counts(),
        Counts {
            gets: 2,
            ..Counts::default()
        }
    );
}

#[tokio::test]
async fn a_room_is_created_once() {
    let bucket = Bucket::new();
    let (a, b) = (bucket.process("a"), bucket.process("b"));
    a.create(room(1), NOW).await.expect("it is new");
    assert_eq!(failure(b.create(room(1), NOW).await), "fenced");
    assert_eq!(failure(a.create(room(1), NOW).await), "fenced");
    assert_eq!(failure(a.claim(room(2), NOW).await), "no checkpoint");
    assert_eq!(failure(a.latest(room(1), None).await), "no checkpoint");
    let (_, checkpoint) = b.claim(room(1), NOW).await.expect("it is live");
    assert_eq!(checkpoint, None);
}

#[tokio::test]
async fn whoever_is_fenced_writes_parks_and_ends_nothing_any_more() {
    let bucket = Bucket::new();
    let (a, b) = (bucket.process("a"), bucket.process("b"));
    let old = live(&a, room(1), b"one").await;
    let prepared = pack(&old, b"by the old owner");
    let (new, _) = b.claim(room(1), NOW).await.expect("it is live");
    let before = bucket.get(&head_key(room(1))).await;
    assert_eq!(failure(old.write(&prepared, NOW).await), "fenced");
    let parked = old.park(&prepared, header("g", 1, &["ada"]), NOW).await;
    assert_eq!(failure(parked), "fenced");
    assert_eq!(failure(old.end(NOW).await), "fenced");
    assert_eq!(failure(old.set_aside("why", NOW).await), "fenced");
    assert_eq!(bucket.get(&head_key(room(1))).await, before);

    write(&new, b"two").await;
    assert_eq!(state(&a, room(1)).await, b"two");
    // What the old owner left at that epoch is neither adopted nor in the way.
    assert_eq!(bucket.checkpoints(room(1)).await.len(), 3);
    let (_, checkpoint) = a.claim(room(1), NOW).await.expect("it is live");
    assert_eq!(checkpoint.expect("it has one").bytes, b"two");
}

#[tokio::test]
async fn one_process_that_claims_twice_fences_itself() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let old = live(&a, room(1), b"one").await;
    let (new, _) = a.claim(room(1), NOW).await.expect("it is live");
    assert_eq!(failure(old.write(&pack(&old, b"x"), NOW).await), "fenced");
    write(&new, b"two").await;
}

#[tokio::test]
async fn an_epoch_that_has_passed_changes_nothing_and_none_is_skipped() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let lease = a.create(room(1), NOW).await.expect("it is new");
    let late = lease.pack(Epoch(1), GAME, b"late", NOW).expect("it packs");
    write(&lease, b"one").await;
    write(&lease, b"two").await;
    let before = bucket.all().await;
    let written = lease.write(&late, NOW).await;
    assert_eq!(written.expect("it is no error"), Written::Superseded);
    assert_eq!(bucket.all().await, before);

    let far = lease.pack(Epoch(4), GAME, b"far", NOW).expect("it packs");
    assert_eq!(failure(lease.write(&far, NOW).await), "epoch skipped");
    let parked = lease.park(&far, header("g", 1, &[]), NOW).await;
    assert_eq!(failure(parked), "epoch skipped");
    assert_eq!(bucket.all().await, before);
}

#[tokio::test]
async fn the_same_checkpoint_may_be_written_again() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let lease = a.create(room(1), NOW).await.expect("it is new");
    let one = pack(&lease, b"one");
    for _ in 0..3 {
        assert_eq!(
            lease.write(&one, NOW).await.expect("it is"),
            Written::Newest
        );
    }
    let other = lease.pack(Epoch(1), GAME, b"other", NOW).expect("it packs");
    assert_eq!(
        lease.write(&other, NOW).await.expect("it is"),
        Written::Superseded
    );
    assert_eq!(state(&a, room(1)).await, b"one");
}

#[tokio::test]
async fn a_reader_says_which_artifact_it_wants() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    live(&a, room(1), b"one").await;
    assert!(a.latest(room(1), Some(GAME)).await.is_ok());
    let other = cabinet_wire::ArtifactDigest([6; 32]);
    assert_eq!(failure(a.latest(room(1), Some(other)).await), "artifact");
}

#[tokio::test]
async fn a_checkpoint_of_the_most_bytes_is_written_and_a_longer_one_is_not() {
    let bucket = Bucket::new();
    let sealing = Sealing::Keys(Keyring::new(key(1)));
    let a = bucket.process_with("a", sealing, |options| options.checkpoint_bytes_max = 100);
    let lease = a.create(room(1), NOW).await.expect("it is new");
    write(&lease, &[7; 100]).await;
    assert_eq!(state(&a, room(1)).await, [7; 100]);
    let over = lease.pack(lease.next_epoch(), GAME, &[7; 101], NOW);
    assert_eq!(failure(over), "too large");
    // One that another process was allowed to write is refused on reading.
    let b = bucket.process("b");
    let (lease, _) = b.claim(room(1), NOW).await.expect("it is live");
    write(&lease, &[7; 101]).await;
    assert_eq!(failure(a.latest(room(1), None).await), "too large");
}

#[tokio::test]
async fn old_checkpoints_and_claims_are_pruned_and_the_rest_is_kept() {
    let bucket = Bucket::new();
    let (a, b) = (bucket.process("a"), bucket.process("b"));
    let lease = live(&a, room(1), b"x").await;
    for n in 2..=9u8 {
        write(&lease, &[n]).await;
    }
    let keep = Retention {
        keep_last: 3,
        keep_younger: Duration::ZERO,
    };
    assert_eq!(lease.prune(&keep, NOW + 1).await.expect("it prunes"), 6);
    assert_eq!(bucket.checkpoints(room(1)).await.len(), 3);
    assert_eq!(state(&b, room(1)).await, [9]);

    for _ in 0..3 {
        b.claim(room(1), NOW).await.expect("it is live");
    }
    let (lease, _) = b.claim(room(1), NOW).await.expect("it is live");
    let claims = format!("v1/rooms/{}/c-", room(1));
    assert_eq!(bucket.keys(&claims).await.len(), 4);
    lease.prune(&keep, NOW + 1).await.expect("it prunes");
    assert_eq!(bucket.keys(&claims).await.len(), 1);
    // Young ones stay.
    let young = Retention {
        keep_last: 1,
        keep_younger: Duration::from_secs(60),
    };
    assert_eq!(
        lease.prune(&young, NOW + 59_999).await.expect("it prunes"),
        0
    );
    assert_eq!(
        lease.prune(&young, NOW + 60_010).await.expect("it prunes"),
        2
    );
    assert_eq!(state(&a, room(1)).await, [9]);
}

#[tokio::test]
async fn a_room_that_is_over_leaves_nothing_in_the_store() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let lease = live(&a, room(1), b"x").await;
    lease.end(NOW).await.expect("it ends");
    assert_eq!(bucket.keys("").await, Vec::<String>::new());
    assert_eq!(
        failure(lease.write(&pack(&lease, b"y"), NOW).await),
        "standing"
    );
    lease.end(NOW).await.expect("it is over already");
    assert_eq!(failure(a.claim(room(1), NOW).await), "no checkpoint");
}

#[tokio::test]
async fn a_room_that_is_set_aside_stays_and_is_nobodys_until_it_is_discarded() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let lease = live(&a, room(1), b"x").await;
    lease
        .set_aside("it does not restore", NOW)
        .await
        .expect("it is set aside");
    assert_eq!(failure(a.claim(room(1), NOW).await), "corrupt");
    assert!(a.live_rooms().await.expect("it lists").is_empty());
    assert_eq!(state(&a, room(1)).await, b"x");
    let note = bucket.get(&format!("v1/aside/{}", room(1))).await;
    assert_eq!(note.as_deref(), Some(&b"it does not restore"[..]));
    a.discard(room(1), NOW).await.expect("it is deleted");
    assert_eq!(bucket.keys("").await, Vec::<String>::new());
}

#[tokio::test]
async fn live_rooms_are_found_with_their_owners() {
    let bucket = Bucket::new();
    let (a, b) = (bucket.process("a"), bucket.process("b"));
    live(&a, room(1), b"x").await;
    live(&b, room(2), b"x").await;
    live(&a, room(3), b"x")
        .await
        .end(NOW)
        .await
        .expect("it ends");
    bucket
        .put(&format!("v1/live/{}.{:020}", room(4), 1), "stale")
        .await;
    bucket.put("v1/live/not-a-room", "foreign").await;
    live(&a, room(5), b"x").await;
    bucket.put(&head_key(room(5)), "damaged").await;
    let found = a.live_rooms().await.expect("it lists");
    let rooms: Vec<_> = found.iter().map(|(room, _)| *room).collect();
    assert_eq!(rooms, [room(1), room(2), room(5)]);
    let owner = |n: usize| found[n].1.as_ref().map(|head| head.owner).ok();
    assert_eq!(owner(0), Some(OwnerId::named("a")));
    assert_eq!(owner(1), Some(OwnerId::named("b")));
    assert_eq!(owner(2), None);
}

#[test]
fn a_store_that_lasts_needs_a_key() {
    let store = Arc::new(Faulty::sealed_only());
    let open = |sealing| {
        Vault::open(
            store.clone(),
            sealing,
            VaultOptions::new(OwnerId::named("a")),
        )
    };
    assert_eq!(
        failure(open(Sealing::UnsealedForDevelopment)),
        "key required"
    );
    assert!(open(Sealing::Keys(Keyring::new(key(1)))).is_ok());
}

#[tokio::test]
async fn a_keyed_vault_reads_nothing_unsealed_and_the_reverse() {
    let bucket = Bucket::new();
    let keyed = bucket.process("a");
    let bare = bucket.process_with("b", Sealing::UnsealedForDevelopment, |_| {});
    live(&bare, room(1), b"x").await;
    live(&keyed, room(2), b"x").await;
    assert_eq!(failure(keyed.head(room(1)).await), "corrupt");
    assert_eq!(failure(bare.head(room(2)).await), "unreadable");
}

#[tokio::test]
async fn a_room_outlives_the_rotation_of_its_key() {
    let bucket = Bucket::new();
    let old = bucket.process("a");
    live(&old, room(1), b"x").await;
    let ring = Keyring::new(key(2)).with_older(key(1)).expect("two keys");
    let both = bucket.process_with("b", Sealing::Keys(ring), |_| {});
    let (lease, _) = both.claim(room(1), NOW).await.expect("it is live");
    write(&lease, b"y").await;
    assert_eq!(failure(old.head(room(1)).await), "unreadable");
    let new = bucket.process_with("c", Sealing::Keys(Keyring::new(key(2))), |_| {});
    assert_eq!(state(&new, room(1)).await, b"y");
    assert_eq!(
        new.head(room(1))
            .await
            .expect("it reads")
            .map(|head| head.standing),
        Some(Standing::Live)
    );
}

#[tokio::test]
async fn nothing_secret_is_printed() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let lease = live(&a, room(1), b"the-state").await;
    let packed = pack(&lease, b"the-state");
    lease
        .park(&packed, header("the-slug", 1, &["the-account"]), NOW)
        .await
        .expect("it parks");
    let parked = a
        .open_parked(room(1), None, None)
        .await
        .expect("it is parked");
    let key = format!("{:?}", key(1));
    assert_eq!(key, "MasterKey(1)");
    for printed in [
        format!("{a:?}"),
        format!("{lease:?}"),
        format!("{parked:?}"),
    ] {
        assert!(!printed.contains("the-"), "{printed}");
        assert!(printed.len() < 200, "{printed}");
    }
    // Nor stored in the clear: neither names of keys nor records tell.
    for (key, bytes) in bucket.all().await {
        for secret in ["the-slug", "the-account", "the-state"] {
            let found = bytes
                .windows(secret.len())
                .any(|part| part == secret.as_bytes());
            assert!(!found && !key.contains(secret), "{secret} in {key}");
        }
    }
}

#[test]
fn every_call_may_be_spawned() {
    fn spawnable<T: Send>(_: T) {}
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let reference = ReferenceStore::new(bucket.0.clone(), ReferenceKey::new(b"k"));
    spawnable(a.create(room(1), NOW));
    spawnable(a.claim(room(1), NOW));
    spawnable(a.rebuild(room(1), NOW));
    spawnable(a.latest(room(1), None));
    spawnable(a.live_rooms());
    spawnable(a.open_parked(room(1), None, None));
    spawnable(a.parked());
    spawnable(a.parked_of("ada"));
    spawnable(a.discard(room(1), NOW));
    spawnable(a.resident("g"));
    spawnable(a.set_resident("g", room(1), None));
    spawnable(a.sweep(&SweepPolicy::default(), NOW));
    spawnable(a.reference_latest(&reference, room(1)));
    spawnable(reference.list_parked());
    spawnable(async {
        let parked = a.open_parked(room(1), None, None).await?;
        let lease = a.take(&parked, NOW).await?;
        let packed = lease.pack(lease.next_epoch(), GAME, b"x", NOW)?;
        lease.write(&packed, NOW).await?;
        lease.prune(&Retention::default(), NOW).await?;
        lease.park(&packed, header("g", 1, &[]), NOW).await?;
        lease.set_aside("why", NOW).await?;
        lease.end(NOW).await
    });
}
