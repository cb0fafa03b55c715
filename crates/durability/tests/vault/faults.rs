//! The n-th request goes wrong, for every n and every way: what is tried again converges, and what
//! is stopped leaves the old truth or the new one, where it can be found.

use std::time::Duration;

use cabinet_durability::{Lease, Retention, Standing, SweepPolicy, VaultError, Written};

use crate::faulty::Fault;
use crate::support::{
    Bucket, GAME, NOW, failure, header, live, opened, pack, park, room, state, write,
};

pub const FAULTS: [Fault; 7] = [
    Fault::NotDone,
    Fault::DoneReplyLost,
    Fault::NotDoneReplyLost,
    Fault::DoneLate(1),
    Fault::DoneLate(2),
    Fault::DoneLate(3),
    Fault::DoneLate(9),
];
pub const STOPS: [Fault; 2] = [Fault::Stop, Fault::StopAfter];
/// More requests than any call here makes.
const REQUESTS_MAX: u64 = 60;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Calls again until it is done, as a caller may after errors that pass.
pub async fn persist<T>(
    mut call: impl AsyncFnMut() -> Result<T, VaultError>,
) -> Result<T, VaultError> {
    let mut last = call().await;
    for _ in 0..3 {
        match last {
            Err(error) if error.is_passing() => last = call().await,
            done => return done,
        }
    }
    last
}

/// Runs `case` with every fault at every request. It makes a bucket and says whether the request
/// that was to go wrong was made at all.
pub async fn everywhere(faults: &[Fault], mut case: impl AsyncFnMut(u64, Fault) -> bool) {
    for fault in faults {
        let mut n = 0;
        while case(n, *fault).await {
            n += 1;
            assert!(n < REQUESTS_MAX, "it does not end");
        }
        assert!(n > 1, "{fault:?}: nothing was tried");
    }
}

/// The room is this lease's, and what is late changes nothing of that.
async fn is_held(bucket: &Bucket, lease: &Lease, at: &str) {
    let room = lease.room();
    write(lease, b"later").await;
    bucket.0.settle().await;
    let reader = bucket.process("reader");
    assert_eq!(state(&reader, room).await, b"later", "{at}");
    write(lease, b"later still").await;
    assert_eq!(state(&reader, room).await, b"later still", "{at}");
    let live = reader.live_rooms().await.expect("it lists");
    assert!(
        live.iter().any(|(found, _)| *found == room),
        "{at}: in no index"
    );
    let claimed = bucket.process("heir").claim(room, NOW).await;
    assert!(claimed.is_ok(), "{at}: {:?}", claimed.err());
    assert_eq!(
        failure(lease.write(&pack(lease, b"x"), NOW).await),
        "fenced",
        "{at}"
    );
}

#[tokio::test]
async fn a_checkpoint_that_is_tried_again_is_written_once() {
    everywhere(&FAULTS, async |n, fault| {
        let at = format!("request {n}, {fault:?}");
        let bucket = Bucket::new();
        let a = bucket.process("a");
        let lease = live(&a, room(1), b"before").await;
        let packed = pack(&lease, b"new");
        bucket.0.fail(n, fault);
        let written = persist(async || lease.write(&packed, NOW).await).await;
        let failed = bucket.0.calm();
        assert_eq!(written.expect(&at), Written::Newest, "{at}");
        assert_eq!(state(&a, room(1)).await, b"new", "{at}");
        is_held(&bucket, &lease, &at).await;
        failed
    })
    .await;
}

#[tokio::test]
async fn a_checkpoint_that_is_captured_again_is_written_or_was_before() {
    everywhere(&FAULTS, async |n, fault| {
        let at = format!("request {n}, {fault:?}");
        let bucket = Bucket::new();
        let a = bucket.process("a");
        let lease = live(&a, room(1), b"before").await;
        let mut tries = 0u8;
        bucket.0.fail(n, fault);
        let written = persist(async || {
            tries += 1;
            let packed = lease.pack(lease.next_epoch(), GAME, &[tries], NOW)?;
            lease.write(&packed, NOW).await
        })
        .await;
        let failed = bucket.0.calm();
        let newest = match written.expect(&at) {
            Written::Newest => tries,
            // An attempt before had landed.
            Written::Superseded => tries - 1,
        };
        assert_eq!(state(&a, room(1)).await, [newest], "{at}");
        is_held(&bucket, &lease, &at).await;
        failed
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_is_tried_again_takes_the_room() {
    everywhere(&FAULTS, async |n, fault| {
        let at = format!("request {n}, {fault:?}");
        let bucket = Bucket::new();
        let old = live(&bucket.process("a"), room(1), b"before").await;
        let b = bucket.process("b");
        bucket.0.fail(n, fault);
        let claimed = persist(async || b.claim(room(1), NOW).await).await;
        let failed = bucket.0.calm();
        let (lease, checkpoint) = claimed.expect(&at);
        assert_eq!(checkpoint.expect(&at).bytes, b"before", "{at}");
        assert_eq!(
            failure(old.write(&pack(&old, b"x"), NOW).await),
            "fenced",
            "{at}"
        );
        is_held(&bucket, &lease, &at).await;
        failed
    })
    .await;
}

#[tokio::test]
async fn a_create_that_is_tried_again_makes_the_room_or_leaves_it_to_be_claimed() {
    everywhere(&FAULTS, async |n, fault| {
        let at = format!("request {n}, {fault:?}");
        let bucket = Bucket::new();
        let a = bucket.process("a");
        bucket.0.fail(n, fault);
        let created = persist(async || a.create(room(1), NOW).await).await;
        let failed = bucket.0.calm();
        let lease = match created {
            Err(VaultError::Fenced { .. }) => a.claim(room(1), NOW).await.expect(&at).0,
            created => created.expect(&at),
        };
        is_held(&bucket, &lease, &at).await;
        failed
    })
    .await;
}

#[tokio::test]
async fn a_take_that_is_tried_again_gets_the_room_and_nobody_else_does() {
    everywhere(&FAULTS, async |n, fault| {
        let at = format!("request {n}, {fault:?}");
        let bucket = Bucket::new();
        let (a, b) = (bucket.process("a"), bucket.process("b"));
        park(&a, room(1), header("g", 1, &["ada", "bob"])).await;
        let (mine, theirs) = (opened(&a, room(1)).await, opened(&b, room(1)).await);
        bucket.0.fail(n, fault);
        let lease = persist(async || a.take(&mine, NOW).await).await.expect(&at);
        let failed = bucket.0.calm();
        let second = a.take(&mine, NOW).await;
        assert_eq!(failure(second), "already resumed", "{at}");
        assert_eq!(
            failure(b.take(&theirs, NOW).await),
            "already resumed",
            "{at}"
        );
        assert!(
            a.parked_of("ada").await.expect(&at).rooms.is_empty(),
            "{at}"
        );
        is_held(&bucket, &lease, &at).await;
        failed
    })
    .await;
}

#[tokio::test]
async fn a_park_that_is_tried_again_parks_the_room_where_its_players_find_it() {
    everywhere(&FAULTS, async |n, fault| {
        let at = format!("request {n}, {fault:?}");
        let bucket = Bucket::new();
        let a = bucket.process("a");
        let lease = live(&a, room(1), b"before").await;
        let packed = pack(&lease, b"parked");
        let header = header("g", 1, &["ada", "bob"]);
        bucket.0.fail(n, fault);
        let parked = persist(async || lease.park(&packed, header.clone(), NOW).await).await;
        parked.expect(&at);
        let failed = bucket.0.calm();
        bucket.0.settle().await;
        assert_eq!(failure(lease.write(&packed, NOW).await), "standing", "{at}");
        for account in ["ada", "bob"] {
            let found = a.parked_of(account).await.expect(&at).rooms;
            assert_eq!(found.len(), 1, "{at}: {account}");
        }
        assert_eq!(a.parked().await.expect(&at).rooms.len(), 1, "{at}");
        let parked = opened(&a, room(1)).await;
        assert_eq!(parked.checkpoint().bytes, b"parked", "{at}");
        let lease = a.take(&parked, NOW).await.expect(&at);
        is_held(&bucket, &lease, &at).await;
        failed
    })
    .await;
}

#[tokio::test]
async fn an_end_that_is_tried_again_ends_the_room() {
    everywhere(&FAULTS, async |n, fault| {
        let at = format!("request {n}, {fault:?}");
        let bucket = Bucket::new();
        let a = bucket.process("a");
        let lease = live(&a, room(1), b"before").await;
        bucket.0.fail(n, fault);
        persist(async || lease.end(NOW).await).await.expect(&at);
        let failed = bucket.0.calm();
        bucket.0.settle().await;
        assert_eq!(bucket.keys("").await, Vec::<String>::new(), "{at}");
        failed
    })
    .await;
}

/// A reply that is lost together with the look at what became of it: the call fails, and the next
/// one meets its own work.
#[tokio::test]
async fn a_call_whose_reply_and_look_are_both_lost_is_recognised_by_the_next() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let lease = live(&a, room(1), b"before").await;
    let packed = pack(&lease, b"new");
    bucket.0.fail(1, Fault::StopAfter);
    assert_eq!(failure(lease.write(&packed, NOW).await), "unavailable");
    bucket.0.settle().await;
    let written = lease.write(&packed, NOW).await;
    assert_eq!(written.expect("it is written"), Written::Newest);

    let packed = pack(&lease, b"parked");
    let header = header("g", 1, &["ada"]);
    // The object, two entries, the head.
    bucket.0.fail(3, Fault::StopAfter);
    let parked = lease.park(&packed, header.clone(), NOW).await;
    assert_eq!(failure(parked), "unavailable");
    bucket.0.settle().await;
    lease
        .park(&packed, header, NOW)
        .await
        .expect("it is parked");

    let parked = opened(&a, room(1)).await;
    for n in [0, 1, 2, 3, 3] {
        // The index entry, head and surroundings, the head; once that is done, the claim.
        bucket.0.fail(n, Fault::StopAfter);
        assert_eq!(
            failure(a.take(&parked, NOW).await),
            "unavailable",
            "request {n}"
        );
        bucket.0.settle().await;
    }
    let lease = a.take(&parked, NOW).await.expect("it is ours");

    bucket.0.fail(0, Fault::StopAfter);
    assert_eq!(failure(lease.end(NOW).await), "unavailable");
    bucket.0.settle().await;
    lease.end(NOW).await.expect("it is over");
    assert_eq!(bucket.keys("").await, Vec::<String>::new());
}

#[tokio::test]
async fn an_attempt_of_another_state_does_not_pass_for_this_one() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let lease = live(&a, room(1), b"before").await;
    let parked = pack(&lease, b"parked");
    bucket.0.fail(3, Fault::StopAfter);
    let lost = lease.park(&parked, header("g", 1, &["ada"]), NOW).await;
    assert_eq!(failure(lost), "unavailable");
    bucket.0.settle().await;
    // It was given up and landed; the room goes on.
    let other = pack(&lease, b"other");
    let written = lease.write(&other, NOW).await;
    assert_eq!(written.expect("it is no error"), Written::Superseded);
    write(&lease, b"on").await;
    let head = a
        .head(room(1))
        .await
        .expect("it reads")
        .expect("it is there");
    assert_eq!(head.standing, Standing::Live);
    let found = a.parked_of("ada").await.expect("it lists");
    assert_eq!((found.rooms.len(), found.stale), (0, 1));
}

#[tokio::test]
async fn a_process_that_dies_while_it_parks_leaves_the_room_live_or_parked() {
    everywhere(&STOPS, async |n, fault| {
        let at = format!("request {n}, {fault:?}");
        let bucket = Bucket::new();
        let a = bucket.process("a");
        let lease = live(&a, room(1), b"live").await;
        let packed = pack(&lease, b"parked");
        bucket.0.fail(n, fault);
        let parked = lease
            .park(&packed, header("g", 1, &["ada", "bob"]), NOW)
            .await;
        let failed = bucket.0.calm();
        bucket.0.settle().await;
        let b = bucket.process("b");
        let head = b.head(room(1)).await.expect(&at).expect(&at);
        match head.standing {
            Standing::Live => {
                assert!(parked.is_err(), "{at}");
                assert_eq!(b.live_rooms().await.expect(&at).len(), 1, "{at}");
                let (_, checkpoint) = b.claim(room(1), NOW).await.expect(&at);
                assert_eq!(checkpoint.expect(&at).bytes, b"live", "{at}");
            }
            Standing::Parked => {
                for account in ["ada", "bob"] {
                    let found = b.parked_of(account).await.expect(&at).rooms;
                    assert_eq!(found.len(), 1, "{at}: {account}");
                }
                assert_eq!(
                    opened(&b, room(1)).await.checkpoint().bytes,
                    b"parked",
                    "{at}"
                );
            }
            other => panic!("{at}: {other:?}"),
        }
        failed
    })
    .await;
}

#[tokio::test]
async fn a_process_that_dies_while_it_takes_leaves_the_room_parked_or_to_be_reclaimed() {
    everywhere(&STOPS, async |n, fault| {
        let at = format!("request {n}, {fault:?}");
        let bucket = Bucket::new();
        let a = bucket.process("a");
        park(&a, room(1), header("g", 1, &["ada"])).await;
        let parked = opened(&a, room(1)).await;
        bucket.0.fail(n, fault);
        let taken = a.take(&parked, NOW).await;
        let failed = bucket.0.calm();
        bucket.0.settle().await;
        let b = bucket.process("b");
        let head = b.head(room(1)).await.expect(&at).expect(&at);
        match head.standing {
            Standing::Parked => {
                assert!(taken.is_err(), "{at}");
                assert_eq!(b.parked_of("ada").await.expect(&at).rooms.len(), 1, "{at}");
                let parked = opened(&b, room(1)).await;
                assert!(b.take(&parked, NOW).await.is_ok(), "{at}");
            }
            Standing::Live => {
                assert_eq!(b.live_rooms().await.expect(&at).len(), 1, "{at}");
                let (_, checkpoint) = b.claim(room(1), NOW).await.expect(&at);
                assert_eq!(checkpoint.expect(&at).bytes, b"parked", "{at}");
                assert!(
                    b.parked_of("ada").await.expect(&at).rooms.is_empty(),
                    "{at}"
                );
            }
            other => panic!("{at}: {other:?}"),
        }
        failed
    })
    .await;
}

#[tokio::test]
async fn a_process_that_dies_while_it_ends_a_room_leaves_it_live_or_to_be_swept() {
    everywhere(&STOPS, async |n, fault| {
        let at = format!("request {n}, {fault:?}");
        let bucket = Bucket::new();
        let a = bucket.process("a");
        park(&a, room(1), header("g", 1, &["ada"])).await;
        let parked = opened(&a, room(1)).await;
        let lease = a.take(&parked, NOW).await.expect(&at);
        write(&lease, b"live").await;
        bucket.0.fail(n, fault);
        let ended = lease.end(NOW).await;
        let failed = bucket.0.calm();
        bucket.0.settle().await;
        let b = bucket.process("b");
        match b.head(room(1)).await.expect(&at) {
            Some(head) if head.standing == Standing::Live => {
                assert!(ended.is_err(), "{at}");
                assert_eq!(state(&b, room(1)).await, b"live", "{at}");
            }
            _ => {
                b.sweep(&SweepPolicy::default(), NOW + DAY_MS)
                    .await
                    .expect(&at);
                assert_eq!(bucket.keys("").await, Vec::<String>::new(), "{at}");
            }
        }
        failed
    })
    .await;
}

#[tokio::test]
async fn a_sweep_that_is_stopped_anywhere_is_finished_by_the_next() {
    let mut deep = SweepPolicy::default();
    deep.deep = true;
    let later = NOW + 15 * DAY_MS;
    everywhere(&STOPS, async |n, fault| {
        let at = format!("request {n}, {fault:?}");
        let bucket = Bucket::new();
        let a = bucket.process("a");
        park(&a, room(1), header("g", 1, &["ada"])).await;
        let lease = live(&a, room(2), b"live").await;
        let ending = live(&a, room(3), b"over").await;
        bucket.0.fail(1, Fault::Stop);
        assert!(ending.end(NOW).await.is_err());
        bucket.0.settle().await;
        bucket
            .put(
                &format!("v1/live/{}.{:020}", room(4), 1),
                0u64.to_le_bytes().to_vec(),
            )
            .await;
        bucket
            .put(
                &format!("v1/players/{}/{}.{:020}", "0".repeat(32), room(5), 1),
                "",
            )
            .await;

        bucket.0.fail(n, fault);
        let stopped = a.sweep(&deep, later).await;
        let failed = bucket.0.calm();
        bucket.0.settle().await;
        assert_eq!(state(&a, room(2)).await, b"live", "{at}: {stopped:?}");
        // Never half of a room: it is there, or it says that it is gone.
        match a.head(room(1)).await.expect(&at).expect(&at).standing {
            Standing::Parked => {
                assert_eq!(a.parked_of("ada").await.expect(&at).rooms.len(), 1, "{at}");
                opened(&a, room(1)).await;
            }
            standing => {
                assert_eq!(standing, Standing::Expired, "{at}");
                assert_eq!(
                    failure(a.open_parked(room(1), None, None).await),
                    "expired",
                    "{at}"
                );
            }
        }

        a.sweep(&deep, later).await.expect(&at);
        write(&lease, b"on").await;
        let mut left = bucket.keys("").await;
        left.retain(|key| !key.contains(&room(2).to_string()));
        let expected = [
            format!("v1/heads/{}", room(1)),
            format!("v1/parked/{}.{:020}", room(1), 1),
        ];
        assert_eq!(left, expected, "{at}");
        a.sweep(&deep, later + 31 * DAY_MS).await.expect(&at);
        left = bucket.keys("").await;
        left.retain(|key| !key.contains(&room(2).to_string()));
        assert_eq!(left, Vec::<String>::new(), "{at}");
        failed
    })
    .await;
}

#[tokio::test]
async fn a_pruning_that_is_stopped_anywhere_takes_nothing_that_is_needed() {
    let keep = Retention {
        keep_last: 2,
        keep_younger: Duration::ZERO,
    };
    everywhere(&STOPS, async |n, fault| {
        let at = format!("request {n}, {fault:?}");
        let bucket = Bucket::new();
        let a = bucket.process("a");
        let lease = live(&a, room(1), b"x").await;
        for n in 0..5 {
            write(&lease, &[n]).await;
        }
        bucket.0.fail(n, fault);
        let pruned = lease.prune(&keep, NOW).await;
        let failed = bucket.0.calm();
        assert_eq!(pruned.is_err(), failed, "{at}");
        bucket.0.settle().await;
        assert_eq!(state(&a, room(1)).await, [4], "{at}");
        lease.prune(&keep, NOW).await.expect(&at);
        assert_eq!(bucket.checkpoints(room(1)).await.len(), 2, "{at}");
        failed
    })
    .await;
}
