//! A bucket somebody else can write: what is put there is refused, by name, and never read.

use cabinet_durability::{Epoch, Head};

use crate::support::{Bucket, GAME, NOW, failure, head_key, live, pack, room, state, write};

/// What a reader, a claimer and the owner are told.
async fn told(bucket: &Bucket) -> [&'static str; 3] {
    let reader = bucket.process("reader");
    let latest = failure(reader.latest(room(1), None).await);
    let head = failure(reader.head(room(1)).await);
    let claim = failure(bucket.process("heir").claim(room(1), NOW).await);
    [latest, head, claim]
}

#[tokio::test]
async fn a_head_with_any_bit_changed_is_corrupt_or_unreadable() {
    let bucket = Bucket::new();
    live(&bucket.process("a"), room(1), b"x").await;
    let key = head_key(room(1));
    let good = bucket.get(&key).await.expect("it is there");
    let reader = bucket.process("reader");
    for bit in 0..good.len() * 8 {
        let mut bad = good.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        bucket.put(&key, bad).await;
        let read = failure(reader.head(room(1)).await);
        // The version and the key's id are looked at before anything can be proven.
        let named = ["corrupt", "unreadable"][usize::from(matches!(bit / 8, 4 | 5 | 8..12))];
        assert_eq!(read, named, "bit {bit}");
    }
}

#[tokio::test]
async fn what_is_not_a_head_is_corrupt_whatever_it_is() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let lease = live(&a, room(1), b"x").await;
    live(&a, room(2), b"y").await;
    a.claim(room(1), NOW).await.expect("it is live");
    let key = head_key(room(1));
    let good = bucket.get(&key).await.expect("it is there");
    let object = bucket.checkpoints(room(1)).await.remove(0);
    let claim = bucket
        .keys(&format!("v1/rooms/{}/c-", room(1)))
        .await
        .remove(0);
    let bad = [
        Vec::new(),
        b"foreign".to_vec(),
        good[..good.len() - 1].to_vec(),
        [&good[..], b"x"].concat(),
        bucket
            .get(&head_key(room(2)))
            .await
            .expect("it is there")
            .to_vec(),
        bucket.get(&object).await.expect("it is there").to_vec(),
        bucket.get(&claim).await.expect("it is there").to_vec(),
        vec![7; 40 << 20],
    ];
    for bytes in bad {
        let length = bytes.len();
        bucket.put(&key, bytes).await;
        assert_eq!(told(&bucket).await, ["corrupt"; 3], "{length} bytes");
        assert_eq!(
            failure(lease.write(&pack(&lease, b"z"), NOW).await),
            "corrupt"
        );
        assert_eq!(failure(a.discard(room(1), NOW).await), "corrupt");
        let found = a.live_rooms().await.expect("it lists");
        assert_eq!(found.len(), 2, "a damaged room is shown as that");
    }
}

#[tokio::test]
async fn a_checkpoint_that_is_missing_or_another_is_corrupt() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let lease = live(&a, room(1), b"one").await;
    write(&lease, b"two").await;
    live(&a, room(2), b"two").await;
    let keys = bucket.checkpoints(room(1)).await;
    let (old, key) = (bucket.get(&keys[0]).await.expect("it"), &keys[1]);
    let good = bucket.get(key).await.expect("it is there");
    let other = bucket.checkpoints(room(2)).await.remove(0);
    let bad = [
        Vec::new(),
        b"foreign".to_vec(),
        good[..good.len() - 1].to_vec(),
        [&good[..], b"x"].concat(),
        old.to_vec(),
        bucket.get(&other).await.expect("it is there").to_vec(),
        bucket
            .get(&head_key(room(1)))
            .await
            .expect("it is there")
            .to_vec(),
        vec![7; good.len()],
    ];
    for bytes in bad {
        let length = bytes.len();
        bucket.put(key, bytes).await;
        let read = failure(a.latest(room(1), None).await);
        assert_eq!(read, "corrupt", "{length} bytes");
    }
    bucket.delete(key).await;
    assert_eq!(failure(a.latest(room(1), None).await), "corrupt");
    // The room is claimed all the same, for whoever sets it aside.
    let b = bucket.process("b");
    assert_eq!(failure(b.claim(room(1), NOW).await), "corrupt");
    let head = b
        .head(room(1))
        .await
        .expect("it reads")
        .expect("it is there");
    assert_eq!((head.owner, head.epoch()), (b.owner(), Epoch(2)));
    bucket.put(key, good).await;
    assert_eq!(state(&a, room(1)).await, b"two");
}

#[tokio::test]
async fn a_head_that_is_put_back_is_found_out_by_the_next_claim_and_the_next_write() {
    let bucket = Bucket::new();
    let (a, b) = (bucket.process("a"), bucket.process("b"));
    let lease = live(&a, room(1), b"one").await;
    let key = head_key(room(1));
    let one = bucket.get(&key).await.expect("it is there");
    write(&lease, b"two").await;
    let two = bucket.get(&key).await.expect("it is there");
    write(&lease, b"three").await;

    bucket.put(&key, one).await;
    assert_eq!(failure(b.claim(room(1), NOW).await), "rolled back");
    assert_eq!(
        failure(lease.write(&pack(&lease, b"x"), NOW).await),
        "rolled back"
    );
    bucket.put(&key, two).await;
    assert_eq!(
        failure(lease.write(&pack(&lease, b"y"), NOW).await),
        "rolled back"
    );
    // What it left proves it to a claim too, though the head is only one epoch behind.
    assert_eq!(failure(b.claim(room(1), NOW).await), "rolled back");
}

#[tokio::test]
async fn a_head_that_is_put_back_by_one_epoch_is_found_out_by_its_owner_or_across_a_claim() {
    let bucket = Bucket::new();
    let (a, b) = (bucket.process("a"), bucket.process("b"));
    let lease = live(&a, room(1), b"one").await;
    let key = head_key(room(1));
    let one = bucket.get(&key).await.expect("it is there");
    write(&lease, b"two").await;
    bucket.put(&key, one.clone()).await;
    // It looks like a write whose head was not put yet: a claim cannot tell.
    let (lease, checkpoint) = b.claim(room(1), NOW).await.expect("it looks alive");
    assert_eq!(checkpoint.expect("it has one").bytes, b"one");
    let object = lease
        .pack(lease.next_epoch(), GAME, b"by b", NOW)
        .expect("it packs");
    // Across that claim it is found out however near it is.
    bucket.put(&key, one).await;
    assert_eq!(failure(a.claim(room(1), NOW).await), "rolled back");
    assert_eq!(failure(lease.write(&object, NOW).await), "rolled back");
}

#[tokio::test]
async fn a_head_that_is_taken_away_is_lost_and_not_a_new_room() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let lease = live(&a, room(1), b"one").await;
    bucket.delete(&head_key(room(1))).await;
    assert_eq!(failure(a.claim(room(1), NOW).await), "head lost");
    // Its owner is not told that it is somebody else's.
    let written = lease.write(&pack(&lease, b"two"), NOW).await;
    assert_eq!(failure(written), "head lost");
    assert_eq!(bucket.get(&head_key(room(1))).await, None);
}

#[tokio::test]
async fn foreign_objects_beside_a_rooms_are_left_alone_and_do_no_harm() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let lease = live(&a, room(1), b"one").await;
    let prefix = format!("v1/rooms/{}", room(1));
    let foreign = [
        format!("{prefix}/readme"),
        format!("{prefix}/e-1"),
        format!("{prefix}/deep/c-00000000000000000099"),
    ];
    for key in &foreign {
        bucket.put(key, "foreign").await;
    }
    let (_, checkpoint) = bucket
        .process("b")
        .claim(room(1), NOW)
        .await
        .expect("it is live");
    assert!(checkpoint.is_some());
    drop(lease);
    let (lease, _) = a.claim(room(1), NOW).await.expect("it is live");
    lease.end(NOW).await.expect("it ends");
    let mut left = foreign.to_vec();
    left.sort();
    assert_eq!(bucket.keys("").await, left);
}

#[tokio::test]
async fn a_head_says_what_it_is() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    live(&a, room(1), b"one").await;
    let head: Head = a
        .head(room(1))
        .await
        .expect("it reads")
        .expect("it is there");
    assert_eq!((head.room, head.epoch()), (room(1), Epoch(1)));
    assert_eq!(head.object.map(|object| object.artifact), Some(GAME));
}
