//! Sealing under another key: stopped, raced or failing anywhere it leaves what the store had, under
//! one key or the other, and takes no room from anybody.

use std::time::Duration;

use cabinet_durability::seal::{Keyring, Sealing};
use cabinet_durability::{Resealed, Retention, Standing, SweepPolicy, Vault, VaultError};

use crate::between::{self, kept, taken};
use crate::faults::{self, FAULTS, STOPS, persist};
use crate::faulty::Fault;
use crate::support::{
    Bucket, NOW, failure, head_key, header, key, live, opened, pack, park, room, state, write,
};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// A process whose first key seals.
fn keyed(bucket: &Bucket, name: &str, ids: &[u32]) -> Vault {
    let mut ring = Keyring::new(key(ids[0]));
    for id in &ids[1..] {
        ring = ring.with_older(key(*id)).expect("another key");
    }
    bucket.process_with(name, Sealing::Keys(ring), |_| {})
}

fn operator(bucket: &Bucket) -> Vault {
    keyed(bucket, "operator", &[2, 1])
}

/// A room is parked for the second time: three checkpoints of two owners, and a claim.
async fn parked_again(bucket: &Bucket, n: u32) {
    let (a, b) = (bucket.process("a"), bucket.process("b"));
    let lease = live(&a, room(n), b"first").await;
    let people = header("g", 1, &["ada"]);
    let packed = pack(&lease, b"parked before");
    lease
        .park(&packed, people, NOW)
        .await
        .expect("it is parked");
    let parked = opened(&b, room(n)).await;
    let lease = b.take(&parked, NOW).await.expect("it is nobody's");
    let packed = pack(&lease, b"parked");
    let people = header("g", 2, &["ada", "bob"]);
    lease
        .park(&packed, people, NOW)
        .await
        .expect("it is parked");
}

/// Room 2 was taken, and set aside before its new owner wrote anything: the newest there is of it is
/// a claim.
async fn aside(bucket: &Bucket) {
    let (a, b) = (bucket.process("a"), bucket.process("b"));
    live(&a, room(2), b"aside").await;
    let (lease, _) = b.claim(room(2), NOW).await.expect("it is live");
    lease.set_aside("why", NOW).await.expect("it is ours");
}

/// What is parked, and who finds it, by a process with these keys.
async fn is_parked(bucket: &Bucket, ids: &[u32], at: &str) {
    let reader = keyed(bucket, "reader", ids);
    let parked = reader.open_parked(room(1), Some("bob"), None).await;
    assert_eq!(parked.expect(at).checkpoint().bytes, b"parked", "{at}");
    for account in ["ada", "bob"] {
        let found = reader.parked_of(account).await.expect(at).rooms;
        assert_eq!(found.len(), 1, "{at}: {account} with keys {ids:?}");
    }
}

/// What a rebuild goes on from, by a process with these keys.
async fn rebuilds(bucket: &Bucket, n: u32, ids: &[u32], wanted: &[u8], at: &str) {
    let all = bucket.all().await;
    bucket.delete(&head_key(room(n))).await;
    let heir = keyed(bucket, "heir", ids);
    heir.rebuild(room(n), NOW).await.expect(at);
    assert_eq!(state(&heir, room(n)).await, wanted, "{at}");
    bucket.restore(&all).await;
}

async fn is_clean(bucket: &Bucket, ids: &[u32], at: &str) {
    let audit = keyed(bucket, "reader", ids).audit().await.expect(at);
    assert!(audit.is_clean(), "{at}: {:?}", audit.findings);
}

async fn reseal(vault: &Vault, n: u32) -> Resealed {
    let done = vault.reseal(room(n), NOW).await.expect("it is done");
    assert!(done.problems.is_empty(), "{:?}", done.problems);
    done
}

#[tokio::test]
async fn what_is_sealed_anew_opens_without_the_older_key() {
    let bucket = Bucket::new();
    parked_again(&bucket, 1).await;
    aside(&bucket).await;
    let a = bucket.process("a");
    let lease = live(&a, room(3), b"live").await;
    write(&lease, b"on").await;
    a.set_resident("town", room(3), None).await.expect("none");
    park(&a, room(4), header("g", 1, &["ada"])).await;
    a.sweep(&SweepPolicy::default(), NOW + 15 * DAY_MS)
        .await
        .expect("the rooms expire");
    parked_again(&bucket, 5).await;

    let operator = operator(&bucket);
    // The head, three checkpoints, a claim.
    let done = reseal(&operator, 5).await;
    assert_eq!((done.records, done.waiting), (5, 0));
    assert_eq!(done.standing, Some(Standing::Parked));
    let done = reseal(&operator, 2).await;
    assert_eq!((done.records, done.waiting), (3, 0));
    // Its state is gone, its claim keeps the fence.
    assert_eq!(reseal(&operator, 1).await.standing, Some(Standing::Expired));
    assert_eq!(reseal(&operator, 4).await.records, 1);
    let done = operator.reseal_residents().await.expect("it is done");
    assert_eq!(done.records, 1);

    // The live room is its owner's.
    let done = reseal(&operator, 3).await;
    assert_eq!((done.records, done.waiting), (0, 3));
    assert_eq!(done.standing, Some(Standing::Live));
    write(&lease, b"and on").await;
    let (heir, _) = keyed(&bucket, "heir", &[2, 1])
        .claim(room(3), NOW)
        .await
        .expect("it is live");
    write(&heir, b"under the new key").await;
    let keep = Retention {
        keep_last: 1,
        keep_younger: Duration::ZERO,
    };
    heir.prune(&keep, NOW).await.expect("it prunes");
    assert_eq!(reseal(&operator, 3).await.waiting, 0);

    is_clean(&bucket, &[2], "with the new key alone").await;
    let reader = keyed(&bucket, "reader", &[2]);
    let parked = reader.open_parked(room(5), Some("bob"), None).await;
    assert_eq!(parked.expect("it is parked").checkpoint().bytes, b"parked");
    for account in ["ada", "bob"] {
        let found = reader.parked_of(account).await.expect("it lists");
        assert_eq!((found.rooms.len(), found.damaged), (1, 0), "{account}");
    }
    assert_eq!(state(&reader, room(2)).await, b"aside");
    rebuilds(&bucket, 2, &[2], b"aside", "from the claim").await;
    rebuilds(&bucket, 5, &[2], b"parked", "from the newest").await;
    let resident = reader.resident("town").await.expect("it reads");
    assert_eq!(resident.expect("there is one").room, room(3));

    // A second run finds nothing to do, and does nothing.
    let before = bucket.all().await;
    for n in 1..=5 {
        let done = reseal(&operator, n).await;
        assert_eq!((done.records, done.waiting), (0, 0), "room {n}");
    }
    let done = operator.reseal_residents().await.expect("it is done");
    assert_eq!(done.records, 0);
    assert_eq!(bucket.all().await, before);
}

#[tokio::test]
async fn stopped_anywhere_the_room_is_there_under_one_key_or_the_other() {
    faults::everywhere(&STOPS, async |n, fault| {
        let at = format!("request {n}, {fault:?}");
        let bucket = Bucket::new();
        parked_again(&bucket, 1).await;
        bucket.0.fail(n, fault);
        let stopped = operator(&bucket).reseal(room(1), NOW).await;
        let failed = bucket.0.calm();
        assert!(!failed || stopped.is_err(), "{at}");
        bucket.0.settle().await;
        for ids in [[2, 1], [1, 2]] {
            is_parked(&bucket, &ids, &at).await;
            rebuilds(&bucket, 1, &ids, b"parked", &at).await;
            is_clean(&bucket, &ids, &at).await;
        }
        // The next run ends it.
        let done = operator(&bucket).reseal(room(1), NOW).await.expect(&at);
        assert!(done.problems.is_empty(), "{at}: {:?}", done.problems);
        is_parked(&bucket, &[2], &at).await;
        rebuilds(&bucket, 1, &[2], b"parked", &at).await;
        is_clean(&bucket, &[2], &at).await;
        assert_eq!(bucket.checkpoints(room(1)).await.len(), 3, "{at}");
        failed
    })
    .await;
}

#[tokio::test]
async fn stopped_anywhere_a_claim_names_what_is_there() {
    faults::everywhere(&STOPS, async |n, fault| {
        let at = format!("request {n}, {fault:?}");
        let bucket = Bucket::new();
        aside(&bucket).await;
        bucket.0.fail(n, fault);
        let stopped = operator(&bucket).reseal(room(2), NOW).await;
        let failed = bucket.0.calm();
        assert!(!failed || stopped.is_err(), "{at}");
        bucket.0.settle().await;
        for ids in [[2, 1], [1, 2]] {
            rebuilds(&bucket, 2, &ids, b"aside", &at).await;
        }
        let done = operator(&bucket).reseal(room(2), NOW).await.expect(&at);
        assert!(done.problems.is_empty(), "{at}: {:?}", done.problems);
        rebuilds(&bucket, 2, &[2], b"aside", &at).await;
        is_clean(&bucket, &[2], &at).await;
        failed
    })
    .await;
}

#[tokio::test]
async fn tried_again_it_is_done_whatever_went_wrong_and_whatever_lands_late() {
    faults::everywhere(&FAULTS, async |n, fault| {
        let at = format!("request {n}, {fault:?}");
        let bucket = Bucket::new();
        parked_again(&bucket, 1).await;
        let operator = operator(&bucket);
        bucket.0.fail(n, fault);
        let done = persist(async || operator.reseal(room(1), NOW).await).await;
        let failed = bucket.0.calm();
        assert!(done.expect(&at).problems.is_empty(), "{at}");
        bucket.0.settle().await;
        is_parked(&bucket, &[2], &at).await;
        // A late write brings back no more than a copy, which the next run takes away.
        operator.reseal(room(1), NOW).await.expect(&at);
        is_clean(&bucket, &[2], &at).await;
        let parked = operator.open_parked(room(1), None, None).await.expect(&at);
        let lease = operator.take(&parked, NOW).await.expect(&at);
        write(&lease, b"on").await;
        assert_eq!(state(&operator, room(1)).await, b"on", "{at}");
        failed
    })
    .await;
}

#[tokio::test]
async fn whoever_takes_the_room_meanwhile_has_it_and_keeps_it() {
    between::everywhere(async |n| {
        let bucket = Bucket::new();
        parked_again(&bucket, 1).await;
        let node = keyed(&bucket, "node", &[1, 2]);
        // Read before anything was sealed anew: what was built from it is still right.
        let parked = node.open_parked(room(1), Some("ada"), None).await;
        let parked = parked.expect("it is parked");
        let taker = node.clone();
        let (between, took) = kept(async move {
            let lease = taker.take(&parked, NOW).await?;
            let packed = pack(&lease, b"on");
            lease.write(&packed, NOW).await?;
            Ok::<_, VaultError>(lease)
        });
        bucket.0.interleave(n, between);
        let done = operator(&bucket).reseal(room(1), NOW).await;
        if !bucket.0.has_come() {
            return false;
        }
        let lease = taken(&took).expect("it is ours");
        let done = done.expect("it is done, or left to the owner");
        assert!(done.problems.is_empty(), "request {n}: {:?}", done.problems);
        assert_eq!(state(&node, room(1)).await, b"on", "request {n}");
        write(&lease, b"and on").await;
        assert_eq!(state(&node, room(1)).await, b"and on", "request {n}");
        is_clean(&bucket, &[1, 2], &format!("request {n}")).await;
        // Nothing says that the room is parked still.
        let found = node.parked_of("bob").await.expect("it lists");
        assert_eq!(found.rooms.len(), 0, "request {n}");
        rebuilds(&bucket, 1, &[1, 2], b"and on", "from the newest").await;
        true
    })
    .await;
}

#[tokio::test]
async fn whoever_opens_the_room_meanwhile_gets_it_and_may_take_it() {
    between::everywhere(async |n| {
        let bucket = Bucket::new();
        parked_again(&bucket, 1).await;
        let operator = operator(&bucket);
        let (between, done) = kept(async move { operator.reseal(room(1), NOW).await });
        let node = keyed(&bucket, "node", &[1, 2]);
        bucket.0.interleave(n, between);
        let parked = node.open_parked(room(1), Some("ada"), None).await;
        let parked = parked.unwrap_or_else(|error| panic!("request {n}: {error:?}"));
        let took = node.take(&parked, NOW).await;
        if !bucket.0.has_come() {
            return false;
        }
        assert!(taken(&done).is_ok(), "request {n}");
        assert_eq!(parked.checkpoint().bytes, b"parked", "request {n}");
        let lease = took.unwrap_or_else(|error| panic!("request {n}: {error:?}"));
        write(&lease, b"on").await;
        assert_eq!(state(&node, room(1)).await, b"on", "request {n}");
        assert_eq!(
            failure(node.take(&parked, NOW).await),
            "already resumed",
            "request {n}"
        );
        true
    })
    .await;
}

#[tokio::test]
async fn a_room_that_ends_meanwhile_leaves_nothing() {
    between::everywhere(async |n| {
        let bucket = Bucket::new();
        parked_again(&bucket, 1).await;
        let node = keyed(&bucket, "node", &[1, 2]);
        let ending = node.clone();
        let (between, ended) = kept(async move { ending.discard(room(1), NOW).await });
        bucket.0.interleave(n, between);
        let done = operator(&bucket).reseal(room(1), NOW).await;
        if !bucket.0.has_come() {
            return false;
        }
        taken(&ended).expect("it is nobody's");
        let at = format!("request {n}: {done:?}");
        let mut deep = SweepPolicy::default();
        deep.deep = true;
        node.sweep(&deep, NOW + DAY_MS).await.expect(&at);
        assert_eq!(bucket.keys("").await, Vec::<String>::new(), "{at}");
        true
    })
    .await;
}

#[tokio::test]
async fn a_live_rooms_owner_notices_nothing() {
    between::everywhere(async |n| {
        let bucket = Bucket::new();
        let node = keyed(&bucket, "node", &[1, 2]);
        let first = live(&node, room(1), b"first").await;
        let (lease, _) = node.claim(room(1), NOW).await.expect("it is live");
        drop(first);
        let packed = pack(&lease, b"on");
        let (between, wrote) = kept(async move {
            lease.write(&packed, NOW).await.expect("it is ours");
            lease
        });
        bucket.0.interleave(n, between);
        let done = operator(&bucket).reseal(room(1), NOW).await;
        if !bucket.0.has_come() {
            return false;
        }
        let lease = taken(&wrote);
        let done = done.expect("it is left to its owner");
        assert_eq!(done.standing, Some(Standing::Live), "request {n}");
        // The claim, and nothing else.
        assert_eq!(done.records, 1, "request {n}");
        assert!(done.waiting >= 2, "request {n}");
        write(&lease, b"and on").await;
        assert_eq!(state(&node, room(1)).await, b"and on", "request {n}");
        is_clean(&bucket, &[1, 2], "with both").await;
        true
    })
    .await;
}

#[tokio::test]
async fn two_at_once_come_to_the_same() {
    between::everywhere(async |n| {
        let bucket = Bucket::new();
        parked_again(&bucket, 1).await;
        let other = keyed(&bucket, "other", &[2, 1]);
        let (between, done) = kept(async move { other.reseal(room(1), NOW).await });
        bucket.0.interleave(n, between);
        let first = operator(&bucket).reseal(room(1), NOW).await;
        if !bucket.0.has_come() {
            return false;
        }
        let at = format!("request {n}");
        taken(&done).expect(&at);
        // What the other has deleted in between is no harm.
        let first = first.expect(&at);
        assert!(first.problems.is_empty(), "{at}: {:?}", first.problems);
        reseal(&operator(&bucket), 1).await;
        is_parked(&bucket, &[2], &at).await;
        is_clean(&bucket, &[2], &at).await;
        rebuilds(&bucket, 1, &[2], b"parked", &at).await;
        true
    })
    .await;
}

#[tokio::test]
async fn a_pointer_is_there_under_one_key_or_the_other_and_the_newer_one_wins() {
    faults::everywhere(&STOPS, async |n, fault| {
        let at = format!("request {n}, {fault:?}");
        let bucket = Bucket::new();
        let a = bucket.process("a");
        a.set_resident("town", room(1), None).await.expect(&at);
        bucket.0.fail(n, fault);
        let stopped = operator(&bucket).reseal_residents().await;
        let failed = bucket.0.calm();
        assert!(!failed || stopped.is_err(), "{at}");
        bucket.0.settle().await;
        let node = keyed(&bucket, "node", &[2, 1]);
        let there = node.resident("town").await.expect(&at).expect(&at);
        assert_eq!(there.room, room(1), "{at}");
        operator(&bucket).reseal_residents().await.expect(&at);
        is_clean(&bucket, &[2], &at).await;
        let there = keyed(&bucket, "node", &[2]).resident("town").await;
        assert_eq!(there.expect(&at).expect(&at).room, room(1), "{at}");
        failed
    })
    .await;
    between::everywhere(async |n| {
        let bucket = Bucket::new();
        let a = bucket.process("a");
        a.set_resident("town", room(1), None).await.expect("none");
        let node = keyed(&bucket, "node", &[2, 1]);
        let old = node.resident("town").await.expect("it reads");
        let setter = node.clone();
        let set = async move { setter.set_resident("town", room(2), old.as_ref()).await };
        let (between, set) = kept(set);
        bucket.0.interleave(n, between);
        let done = operator(&bucket).reseal_residents().await;
        if !bucket.0.has_come() {
            return false;
        }
        assert!(done.is_ok(), "request {n}: {done:?}");
        let wanted = match failure(taken(&set)) {
            "nothing" => room(2),
            "already resumed" => room(1),
            other => panic!("request {n}: {other}"),
        };
        let there = keyed(&bucket, "node", &[2]).resident("town").await;
        let there = there.expect("it reads").expect("it is there");
        assert_eq!(there.room, wanted, "request {n}");
        true
    })
    .await;
}

#[tokio::test]
async fn what_does_not_open_is_named_and_left_as_it_is() {
    let bucket = Bucket::new();
    parked_again(&bucket, 1).await;
    let operator = operator(&bucket);
    let keys = bucket.checkpoints(room(1)).await;
    for (at, damaged) in keys.iter().enumerate() {
        let bytes = bucket.get(damaged).await.expect("it is there");
        let mut changed = bytes.to_vec();
        changed[200 % bytes.len()] ^= 1;
        bucket.put(damaged, changed.clone()).await;
        let all = bucket.all().await;
        let done = operator.reseal(room(1), NOW).await.expect("the rest is");
        let named: Vec<&str> = done.problems.iter().map(|one| &*one.key).collect();
        assert_eq!(named, [damaged], "checkpoint {at}");
        let left = bucket.get(damaged).await.expect("it is left");
        assert_eq!(left, changed, "checkpoint {at}");
        bucket.restore(&all).await;
        bucket.put(damaged, bytes).await;
    }
    // A claim that does not read may name any of them: none goes.
    let claim = bucket.keys(&format!("v1/rooms/{}/c-", room(1))).await;
    bucket.put(&claim[0], &b"broken"[..]).await;
    let done = operator.reseal(room(1), NOW).await.expect("the rest is");
    assert_eq!((done.problems.len(), done.waiting), (1, 3));
    for key in keys {
        assert!(bucket.get(&key).await.is_some(), "{key}");
    }
}

#[tokio::test]
async fn a_checkpoint_that_is_missing_is_named_and_the_rest_is_sealed() {
    let bucket = Bucket::new();
    parked_again(&bucket, 1).await;
    aside(&bucket).await;
    for n in [1, 2] {
        let newest = bucket.checkpoints(room(n)).await.pop();
        bucket.delete(&newest.expect("there are some")).await;
    }
    let operator = operator(&bucket);
    for (n, sealed) in [(1, 4), (2, 2)] {
        let done = operator.reseal(room(n), NOW).await.expect("the rest is");
        let named: Vec<&str> = done.problems.iter().map(|one| &*one.key).collect();
        assert_eq!(named, [head_key(room(n))], "room {n}");
        assert_eq!((done.records, done.waiting), (sealed, 0), "room {n}");
        // Also when there is nothing left to seal.
        let again = operator
            .reseal(room(n), NOW)
            .await
            .expect("it is looked at");
        assert_eq!((again.records, again.problems.len()), (0, 1), "room {n}");
    }
    let audit = keyed(&bucket, "reader", &[2]).audit().await;
    let findings = audit.expect("it reads").findings;
    let named: Vec<&str> = findings.iter().map(|one| &*one.key).collect();
    assert_eq!(named, [head_key(room(1)), head_key(room(2))]);
}

#[tokio::test]
async fn without_the_key_or_the_head_or_any_keys_it_says_so() {
    let bucket = Bucket::new();
    parked_again(&bucket, 1).await;
    let before = bucket.all().await;
    let stranger = keyed(&bucket, "stranger", &[3, 2]);
    assert_eq!(failure(stranger.reseal(room(1), NOW).await), "unreadable");
    let operator = operator(&bucket);
    assert_eq!(
        failure(operator.reseal(room(9), NOW).await),
        "no checkpoint"
    );
    let keyless = bucket.process_with("dev", Sealing::UnsealedForDevelopment, |_| {});
    assert_eq!(failure(keyless.reseal(room(1), NOW).await), "key required");
    assert_eq!(failure(keyless.reseal_residents().await), "key required");
    assert_eq!(bucket.all().await, before);
    bucket.delete(&head_key(room(1))).await;
    assert_eq!(failure(operator.reseal(room(1), NOW).await), "head lost");
    bucket.restore(&before).await;
    bucket.0.fail(0, Fault::NotDone);
    assert_eq!(failure(operator.reseal(room(1), NOW).await), "unavailable");
}
