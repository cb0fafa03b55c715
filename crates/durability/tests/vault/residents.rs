//! Which room is a game's resident one: everybody may say so, and one succeeds.

use cabinet_durability::seal::{Keyring, Sealing};

use crate::faulty::Fault;
use crate::support::{Bucket, failure, key, room};

#[tokio::test]
async fn of_those_who_replace_the_same_pointer_one_succeeds() {
    let bucket = Bucket::new();
    let (a, b) = (bucket.process("a"), bucket.process("b"));
    assert_eq!(a.resident("g").await.expect("it reads"), None);
    a.set_resident("g", room(1), None)
        .await
        .expect("there was none");
    assert_eq!(
        failure(b.set_resident("g", room(2), None).await),
        "already resumed"
    );
    let old = b
        .resident("g")
        .await
        .expect("it reads")
        .expect("it is there");
    assert_eq!(old.room, room(1));
    b.set_resident("g", room(2), Some(&old))
        .await
        .expect("it is still the one");
    assert_eq!(
        failure(a.set_resident("g", room(3), Some(&old)).await),
        "already resumed"
    );
    let now = a
        .resident("g")
        .await
        .expect("it reads")
        .expect("it is there");
    assert_eq!(now.room, room(2));
    assert_eq!(a.resident("h").await.expect("it reads"), None);
}

#[tokio::test]
async fn a_pointer_whose_reply_is_lost_is_told_from_one_somebody_else_wrote() {
    for fault in [
        Fault::NotDone,
        Fault::NotDoneReplyLost,
        Fault::DoneReplyLost,
        Fault::DoneLate(2),
    ] {
        for replaces in [false, true] {
            let at = format!("{fault:?}, replaces: {replaces}");
            let bucket = Bucket::new();
            let a = bucket.process("a");
            let mut old = None;
            if replaces {
                a.set_resident("g", room(1), None).await.expect(&at);
                old = a.resident("g").await.expect(&at);
            }
            bucket.0.fail(0, fault);
            let set = a.set_resident("g", room(2), old.as_ref()).await;
            bucket.0.settle().await;
            if let Err(error) = set {
                assert!(error.is_passing(), "{at}: {error}");
                a.set_resident("g", room(2), old.as_ref()).await.expect(&at);
            }
            let now = a.resident("g").await.expect(&at).expect(&at);
            assert_eq!(now.room, room(2), "{at}");
        }
    }
}

#[tokio::test]
async fn a_pointer_that_is_damaged_or_of_another_game_is_corrupt() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    a.set_resident("g", room(1), None)
        .await
        .expect("there was none");
    let mine = bucket.keys("v1/residents/").await.remove(0);
    let good = bucket.get(&mine).await.expect("it is there");
    a.set_resident("h", room(2), None)
        .await
        .expect("there was none");
    let theirs = bucket.keys("v1/residents/").await;
    let theirs = theirs.iter().find(|key| **key != mine).expect("the other");
    let theirs = bucket.get(theirs).await.expect("it is there");
    for bytes in [
        theirs.to_vec(),
        b"foreign".to_vec(),
        vec![0; 1 << 20],
        good[1..].to_vec(),
    ] {
        bucket.put(&mine, bytes).await;
        assert_eq!(failure(a.resident("g").await), "corrupt");
    }
    bucket.put(&mine, good).await;
    assert!(a.resident("g").await.expect("it reads").is_some());
}

#[tokio::test]
async fn a_slug_of_the_most_bytes_is_taken_and_a_longer_one_is_not() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let slug = "s".repeat(4_096);
    a.set_resident(&slug, room(1), None).await.expect("it fits");
    assert!(a.resident(&slug).await.expect("it reads").is_some());
    assert_eq!(
        failure(a.set_resident(&format!("{slug}s"), room(1), None).await),
        "header"
    );
}

#[tokio::test]
async fn a_pointer_under_an_older_key_is_found_and_replaced() {
    let bucket = Bucket::new();
    bucket
        .process("a")
        .set_resident("g", room(1), None)
        .await
        .expect("there was none");
    let ring = Keyring::new(key(2)).with_older(key(1)).expect("two keys");
    let b = bucket.process_with("b", Sealing::Keys(ring), |_| {});
    let old = b
        .resident("g")
        .await
        .expect("it reads")
        .expect("it is there");
    b.set_resident("g", room(2), Some(&old))
        .await
        .expect("it is still the one");
    let now = b
        .resident("g")
        .await
        .expect("it reads")
        .expect("it is there");
    assert_eq!(now.room, room(2));
}

#[tokio::test]
async fn a_pointer_that_is_replaced_moves_to_the_name_of_the_current_key() {
    let bucket = Bucket::new();
    let ring = |current: u32, older: u32| {
        let ring = Keyring::new(key(current)).with_older(key(older));
        Sealing::Keys(ring.expect("two keys"))
    };
    let before = bucket.process_with("a", ring(1, 2), |_| {});
    before
        .set_resident("g", room(1), None)
        .await
        .expect("it sets");
    let after = bucket.process_with("b", ring(2, 1), |_| {});
    let old = after.resident("g").await.expect("it reads");
    assert_eq!(old.as_ref().map(|old| old.room), Some(room(1)));
    after
        .set_resident("g", room(2), old.as_ref())
        .await
        .expect("it sets");
    assert_eq!(bucket.keys("v1/residents/").await.len(), 1);
    // The old key is not needed any more.
    let alone = bucket.process_with("c", Sealing::Keys(Keyring::new(key(2))), |_| {});
    let found = alone.resident("g").await.expect("it reads");
    assert_eq!(found.map(|found| found.room), Some(room(2)));
}
