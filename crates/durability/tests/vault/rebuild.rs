//! A head that is lost, made anew from what lies beside it.

use cabinet_durability::{Epoch, Fence};

use crate::faulty::Fault;
use crate::support::{
    Bucket, NOW, failure, head_key, header, live, opened, pack, park, room, state, write,
};

#[tokio::test]
async fn a_lost_head_is_rebuilt_from_the_newest_checkpoint_and_older_leases_are_fenced() {
    let bucket = Bucket::new();
    let (a, b) = (bucket.process("a"), bucket.process("b"));
    let old = live(&a, room(1), b"one").await;
    write(&old, b"two").await;
    assert_eq!(failure(b.rebuild(room(1), NOW).await), "head intact");
    bucket.delete(&head_key(room(1))).await;
    assert_eq!(failure(b.claim(room(1), NOW).await), "head lost");
    let lease = b.rebuild(room(1), NOW).await.expect("it rebuilds");
    assert_eq!(lease.epoch(), Epoch(2));
    assert!(lease.fence() > Fence(1 << 20));
    assert_eq!(state(&b, room(1)).await, b"two");
    assert_eq!(failure(old.write(&pack(&old, b"x"), NOW).await), "fenced");
    write(&lease, b"three").await;
    assert_eq!(failure(a.rebuild(room(1), NOW).await), "head intact");
    assert!(a.claim(room(1), NOW).await.is_ok());
}

#[tokio::test]
async fn a_damaged_head_is_rebuilt_too() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    live(&a, room(1), b"one").await;
    bucket.put(&head_key(room(1)), "damaged").await;
    let lease = a.rebuild(room(1), NOW).await.expect("it rebuilds");
    write(&lease, b"two").await;
    assert_eq!(state(&a, room(1)).await, b"two");
}

#[tokio::test]
async fn the_newest_owner_counts_and_not_the_highest_epoch() {
    let bucket = Bucket::new();
    let (a, b) = (bucket.process("a"), bucket.process("b"));
    let old = live(&a, room(1), b"base").await;
    let (new, _) = b.claim(room(1), NOW).await.expect("it is live");
    // The old owner's last object lands, and its head does not.
    let orphan = pack(&old, b"by the dead");
    assert_eq!(failure(old.write(&orphan, NOW).await), "fenced");
    bucket.delete(&head_key(room(1))).await;
    // The new owner has written nothing: its claim says what it went on from.
    a.rebuild(room(1), NOW).await.expect("it rebuilds");
    assert_eq!(state(&a, room(1)).await, b"base");
    assert_eq!(failure(new.write(&pack(&new, b"x"), NOW).await), "fenced");
}

#[tokio::test]
async fn a_checkpoint_that_was_being_written_is_rebuilt_from() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let lease = live(&a, room(1), b"one").await;
    bucket.0.fail(1, Fault::Stop);
    assert!(lease.write(&pack(&lease, b"two"), NOW).await.is_err());
    bucket.0.settle().await;
    bucket.delete(&head_key(room(1))).await;
    let lease = a.rebuild(room(1), NOW).await.expect("it rebuilds");
    assert_eq!(
        (lease.epoch(), &state(&a, room(1)).await[..]),
        (Epoch(2), &b"two"[..])
    );
}

#[tokio::test]
async fn a_room_that_was_parked_comes_back_live() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    park(&a, room(1), header("g", 1, &["ada"])).await;
    let parked = opened(&a, room(1)).await;
    bucket.delete(&head_key(room(1))).await;
    assert_eq!(failure(a.take(&parked, NOW).await), "head lost");
    a.rebuild(room(1), NOW).await.expect("it rebuilds");
    assert_eq!(failure(a.take(&parked, NOW).await), "already resumed");
    assert_eq!(a.live_rooms().await.expect("it lists").len(), 1);
}

#[tokio::test]
async fn nothing_is_rebuilt_from_nothing_or_from_what_is_damaged() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    assert_eq!(failure(a.rebuild(room(1), NOW).await), "no checkpoint");
    let lease = live(&a, room(1), b"one").await;
    write(&lease, b"two").await;
    bucket.delete(&head_key(room(1))).await;
    let newest = bucket.checkpoints(room(1)).await.remove(1);
    bucket.put(&newest, "damaged").await;
    assert_eq!(failure(a.rebuild(room(1), NOW).await), "corrupt");
    assert_eq!(bucket.get(&head_key(room(1))).await, None);
    // As the error says: without it, it is rebuilt from the one before.
    bucket.delete(&newest).await;
    a.rebuild(room(1), NOW).await.expect("it rebuilds");
    assert_eq!(state(&a, room(1)).await, b"one");
}

#[tokio::test]
async fn a_checkpoint_under_anothers_name_is_not_rebuilt_from() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let lease = live(&a, room(1), b"one").await;
    write(&lease, b"two").await;
    bucket.delete(&head_key(room(1))).await;
    let names = bucket.checkpoints(room(1)).await;
    let one = bucket.get(&names[0]).await.expect("it is there");
    // An older checkpoint under a newer name, and the name's digest changed.
    bucket.put(&names[1], one).await;
    assert_eq!(failure(a.rebuild(room(1), NOW).await), "corrupt");
    bucket.delete(&names[1]).await;
    let two = names[0].replace("e-00000000000000000001", "e-00000000000000000005");
    let one = bucket.get(&names[0]).await.expect("it is there");
    bucket.put(&two, one).await;
    assert_eq!(failure(a.rebuild(room(1), NOW).await), "corrupt");
}

#[tokio::test]
async fn a_rebuild_that_goes_wrong_anywhere_is_finished_by_another_or_by_a_claim() {
    for fault in [
        Fault::NotDone,
        Fault::DoneReplyLost,
        Fault::NotDoneReplyLost,
        Fault::StopAfter,
    ] {
        for n in 0..12 {
            let at = format!("request {n}, {fault:?}");
            let bucket = Bucket::new();
            let a = bucket.process("a");
            live(&a, room(1), b"one").await;
            bucket.delete(&head_key(room(1))).await;
            bucket.0.fail(n, fault);
            let rebuilt = a.rebuild(room(1), NOW).await;
            bucket.0.calm();
            let lease = match rebuilt {
                Ok(lease) => lease,
                Err(error) => {
                    assert!(error.is_passing(), "{at}: {error}");
                    match a.rebuild(room(1), NOW).await {
                        Ok(lease) => lease,
                        Err(error) => {
                            assert_eq!(failure::<()>(Err(error)), "head intact", "{at}");
                            a.claim(room(1), NOW).await.expect(&at).0
                        }
                    }
                }
            };
            write(&lease, b"two").await;
            assert_eq!(state(&a, room(1)).await, b"two", "{at}");
        }
    }
}
