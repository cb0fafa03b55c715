//! Somebody else does something whole between any two requests of a call: for every place, what comes
//! of it is what would have come one after the other.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cabinet_durability::{Retention, Standing, SweepPolicy, VaultError, Written};

use crate::faulty::Between;
use crate::support::{
    Bucket, NOW, failure, head_key, header, live, opened, pack, park, room, state, write,
};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// More requests than any call here makes.
const REQUESTS_MAX: u64 = 60;

/// Runs `case` for every place. It says whether what was to come between did.
pub async fn everywhere(mut case: impl AsyncFnMut(u64) -> bool) {
    let mut n = 0;
    while case(n).await {
        n += 1;
        assert!(n < REQUESTS_MAX, "it does not end");
    }
    assert!(n > 1, "nothing was tried");
}

/// Keeps what a future comes to.
pub fn kept<T: Send + 'static>(
    doing: impl Future<Output = T> + Send + 'static,
) -> (Between, Arc<Mutex<Option<T>>>) {
    let out = Arc::new(Mutex::new(None));
    let slot = out.clone();
    let between = Box::pin(async move {
        let done = doing.await;
        *slot.lock().expect("nobody panics with it") = Some(done);
    });
    (between, out)
}

pub fn taken<T>(out: &Mutex<Option<T>>) -> T {
    let done = out.lock().expect("nobody panics with it").take();
    done.expect("it came between")
}

fn deep() -> SweepPolicy {
    let mut policy = SweepPolicy::default();
    policy.deep = true;
    policy
}

#[tokio::test]
async fn a_claim_during_a_write_gets_what_was_written_or_stops_it() {
    everywhere(async |n| {
        let bucket = Bucket::new();
        let (a, b) = (bucket.process("a"), bucket.process("b"));
        let old = live(&a, room(1), b"old").await;
        let packed = pack(&old, b"new");
        let (between, claim) = kept(async move { b.claim(room(1), NOW).await });
        bucket.0.interleave(n, between);
        let written = old.write(&packed, NOW).await;
        if !bucket.0.has_come() {
            return false;
        }
        let (lease, checkpoint) = taken(&claim).expect("it is live");
        assert_eq!(failure(written), "fenced", "request {n}");
        assert_eq!(checkpoint.expect("it has one").bytes, b"old", "request {n}");
        write(&lease, b"on").await;
        assert_eq!(state(&a, room(1)).await, b"on", "request {n}");
        true
    })
    .await;
}

#[tokio::test]
async fn a_write_during_a_claim_is_what_the_claim_gets() {
    everywhere(async |n| {
        let bucket = Bucket::new();
        let (a, b) = (bucket.process("a"), bucket.process("b"));
        let old = live(&a, room(1), b"old").await;
        let packed = pack(&old, b"new");
        let (between, wrote) = kept(async move { old.write(&packed, NOW).await });
        bucket.0.interleave(n, between);
        let claim = b.claim(room(1), NOW).await;
        if !bucket.0.has_come() {
            return false;
        }
        let (lease, checkpoint) = claim.expect("it is live");
        let wanted: &[u8] = match taken(&wrote) {
            Ok(Written::Newest) => b"new",
            refused => {
                assert_eq!(failure(refused), "fenced", "request {n}");
                b"old"
            }
        };
        assert_eq!(checkpoint.expect("it has one").bytes, wanted, "request {n}");
        write(&lease, b"on").await;
        assert_eq!(state(&a, room(1)).await, b"on", "request {n}");
        true
    })
    .await;
}

#[tokio::test]
async fn a_reader_during_writes_and_pruning_gets_one_whole_checkpoint() {
    everywhere(async |n| {
        let bucket = Bucket::new();
        let a = bucket.process("a");
        let lease = live(&a, room(1), b"old").await;
        let (between, _) = kept(async move {
            write(&lease, b"new").await;
            let keep = Retention {
                keep_last: 1,
                keep_younger: Duration::ZERO,
            };
            lease.prune(&keep, NOW).await
        });
        bucket.0.interleave(n, between);
        let read = state(&a, room(1)).await;
        if !bucket.0.has_come() {
            return false;
        }
        assert_eq!(read, b"new", "request {n}");
        true
    })
    .await;
}

#[tokio::test]
async fn a_claim_and_a_write_during_pruning_lose_nothing() {
    everywhere(async |n| {
        let bucket = Bucket::new();
        let (a, b) = (bucket.process("a"), bucket.process("b"));
        let old = live(&a, room(1), b"x").await;
        for n in 0..4 {
            write(&old, &[n]).await;
        }
        let (between, claim) = kept(async move {
            let (lease, _) = b.claim(room(1), NOW).await?;
            write(&lease, b"on").await;
            Ok::<_, VaultError>(lease)
        });
        bucket.0.interleave(n, between);
        let keep = Retention {
            keep_last: 1,
            keep_younger: Duration::ZERO,
        };
        old.prune(&keep, NOW).await.expect("it prunes");
        if !bucket.0.has_come() {
            return false;
        }
        taken(&claim).expect("it is live");
        assert_eq!(state(&a, room(1)).await, b"on", "request {n}");
        bucket.delete(&head_key(room(1))).await;
        a.rebuild(room(1), NOW).await.expect("it rebuilds");
        assert_eq!(state(&a, room(1)).await, b"on", "request {n}");
        true
    })
    .await;
}

#[tokio::test]
async fn a_room_that_is_parked_during_a_sweep_is_found_by_its_players() {
    everywhere(async |n| {
        let bucket = Bucket::new();
        let a = bucket.process("a");
        // Entries of an attempt to park that failed long ago.
        let lease = live(&a, room(1), b"x").await;
        let entries = {
            let other = Bucket::new();
            park(&other.process("a"), room(1), header("g", 1, &["ada"])).await;
            [
                other.keys("v1/parked/").await,
                other.keys("v1/players/").await,
            ]
            .concat()
        };
        assert_eq!(entries.len(), 2);
        for entry in &entries {
            bucket.put(entry, 0u64.to_le_bytes().to_vec()).await;
        }
        let packed = pack(&lease, b"parked");
        let (between, parked) = kept(async move {
            lease
                .park(&packed, header("g", 1, &["ada"]), NOW + DAY_MS)
                .await
        });
        bucket.0.interleave(n, between);
        a.sweep(&deep(), NOW + DAY_MS).await.expect("it sweeps");
        if !bucket.0.has_come() {
            return false;
        }
        taken(&parked).expect("it is ours");
        assert_eq!(
            a.parked_of("ada").await.expect("it lists").rooms.len(),
            1,
            "request {n}"
        );
        assert_eq!(
            a.parked().await.expect("it lists").rooms.len(),
            1,
            "request {n}"
        );
        true
    })
    .await;
}

#[tokio::test]
async fn a_room_that_is_taken_during_a_sweep_is_live_where_it_is_found_or_expired() {
    for age in [DAY_MS, 15 * DAY_MS] {
        everywhere(async |n| {
            let at = format!("request {n}, age {age}");
            let bucket = Bucket::new();
            let (a, b) = (bucket.process("a"), bucket.process("b"));
            park(&a, room(1), header("g", 1, &["ada"])).await;
            // Left by an attempt to take it that failed long ago.
            let stale = format!("v1/live/{}", room(1));
            bucket.put(&stale, 0u64.to_le_bytes().to_vec()).await;
            let parked = opened(&b, room(1)).await;
            let (between, took) = kept(async move { b.take(&parked, NOW + age).await });
            bucket.0.interleave(n, between);
            a.sweep(&deep(), NOW + age).await.expect(&at);
            if !bucket.0.has_come() {
                return false;
            }
            match taken(&took) {
                Ok(lease) => {
                    assert_eq!(state(&a, room(1)).await, b"parked", "{at}");
                    assert_eq!(a.live_rooms().await.expect(&at).len(), 1, "{at}");
                    write(&lease, b"on").await;
                }
                refused => assert_eq!(failure(refused), "expired", "{at}"),
            }
            true
        })
        .await;
    }
}

#[tokio::test]
async fn a_room_that_is_made_or_ends_during_a_deep_sweep_is_not_taken_for_an_orphan() {
    everywhere(async |n| {
        let at = format!("request {n}");
        let bucket = Bucket::new();
        let (a, b) = (bucket.process("a"), bucket.process("b"));
        live(&a, room(1), b"x").await;
        let lease = live(&a, room(2), b"x").await;
        let (between, made) = kept(async move {
            let made = live(&b, room(3), b"new").await;
            lease.end(NOW).await?;
            Ok::<_, VaultError>(made)
        });
        bucket.0.interleave(n, between);
        // Everything is old.
        a.sweep(&deep(), NOW + DAY_MS).await.expect(&at);
        if !bucket.0.has_come() {
            return false;
        }
        let made = taken(&made).expect(&at);
        assert_eq!(state(&a, room(3)).await, b"new", "{at}");
        assert_eq!(state(&a, room(1)).await, b"x", "{at}");
        assert_eq!(a.live_rooms().await.expect(&at).len(), 2, "{at}");
        write(&made, b"on").await;
        true
    })
    .await;
}

#[tokio::test]
async fn of_a_take_and_a_discard_one_wins() {
    everywhere(async |n| {
        let at = format!("request {n}");
        let bucket = Bucket::new();
        let (a, b) = (bucket.process("a"), bucket.process("b"));
        park(&a, room(1), header("g", 1, &["ada"])).await;
        let parked = opened(&b, room(1)).await;
        let (between, took) = kept(async move { b.take(&parked, NOW).await });
        bucket.0.interleave(n, between);
        let discarded = a.discard(room(1), NOW).await;
        if !bucket.0.has_come() {
            return false;
        }
        match (taken(&took), discarded) {
            (Ok(lease), discarded) => {
                assert_eq!(failure(discarded), "standing", "{at}");
                write(&lease, b"on").await;
                assert_eq!(a.live_rooms().await.expect(&at).len(), 1, "{at}");
            }
            (refused, discarded) => {
                discarded.expect(&at);
                assert_eq!(failure(refused), "already resumed", "{at}");
                assert!(a.head(room(1)).await.expect(&at).is_none(), "{at}");
            }
        }
        true
    })
    .await;
}

#[tokio::test]
async fn of_two_rebuilds_one_makes_the_head() {
    everywhere(async |n| {
        let at = format!("request {n}");
        let bucket = Bucket::new();
        let (a, b) = (bucket.process("a"), bucket.process("b"));
        live(&a, room(1), b"x").await;
        bucket.delete(&head_key(room(1))).await;
        let (between, other) = kept(async move { b.rebuild(room(1), NOW).await });
        bucket.0.interleave(n, between);
        let mine = a.rebuild(room(1), NOW).await;
        if !bucket.0.has_come() {
            return false;
        }
        let lease = match (mine, taken(&other)) {
            (Ok(lease), refused) | (refused, Ok(lease)) => {
                assert_eq!(failure(refused), "head intact", "{at}");
                lease
            }
            (mine, other) => panic!("{at}: {mine:?} {other:?}"),
        };
        write(&lease, b"on").await;
        let head = a.head(room(1)).await.expect(&at).expect(&at);
        assert_eq!(
            (head.standing, head.fence),
            (Standing::Live, lease.fence()),
            "{at}"
        );
        true
    })
    .await;
}
