//! The durable store on disks that stop, hang, fail, panic and lose power.

mod disk;
mod hanging;
mod reopening;

use std::sync::mpsc;

use self::disk::{Disk, Trouble};
use super::*;
use crate::services::{PostId, wait_for};

fn at(key: &str) -> KvAddress<'_> {
    KvAddress {
        slug: "g",
        account: "a1",
        key: key.as_bytes(),
    }
}

fn set(store: &DurableStore, key: &str, value: &str) -> Result<(), ServiceError> {
    wait_for(|reply| store.set(at(key), value.as_bytes(), None, reply))
}

fn get(store: &DurableStore, key: &str) -> Result<Option<Vec<u8>>, ServiceError> {
    wait_for(|reply| KvStore::get(store, at(key), reply))
}

type Answers = mpsc::Receiver<Result<(), ServiceError>>;

/// Asks for a write and does not wait.
fn ask(store: &DurableStore, key: &str, value: &[u8]) -> Answers {
    let (sender, receiver) = mpsc::channel();
    let reply = Reply::new(move |answer| drop(sender.send(answer)));
    store.set(at(key), value, None, reply);
    receiver
}

fn is_unavailable<T>(answer: &Result<T, ServiceError>) -> bool {
    matches!(answer, Err(ServiceError::Unavailable(_)))
}

#[test]
fn writes_that_queue_up_behind_a_slow_disk_are_committed_together() {
    let disk = Disk::fresh();
    let store = disk.store(&DurableOptions::default());
    disk.syncs.hold();
    let first = ask(&store, "first", b"1");
    disk.syncs.wait_for(1);
    let queued: Vec<_> = (0..100)
        .map(|n| ask(&store, &n.to_string(), b"1"))
        .collect();
    assert!(first.try_recv().is_err(), "answered before the disk synced");
    // Reads go on meanwhile, and see nothing that is not committed.
    assert_eq!(get(&store, "first"), Ok(None));
    disk.syncs.release();
    assert_eq!(first.recv().unwrap(), Ok(()));
    for answer in queued {
        assert_eq!(answer.recv().unwrap(), Ok(()));
    }
    let stats = store.stats();
    assert_eq!((stats.commits, stats.writes), (2, 101));
}

#[test]
fn a_transaction_holds_so_many_writes_and_so_many_bytes() {
    for (batch_max, batch_bytes_max, commits) in
        [(10, usize::MAX, 11), (1_000, 0, 101), (1_000, 4_000, 26)]
    {
        let disk = Disk::fresh();
        let store = disk.store(&DurableOptions {
            batch_max,
            batch_bytes_max,
            ..DurableOptions::default()
        });
        disk.syncs.hold();
        let first = ask(&store, "first", &[0; 1_000]);
        disk.syncs.wait_for(1);
        let queued: Vec<_> = (0..100)
            .map(|n| ask(&store, &n.to_string(), &[0; 1_000]))
            .collect();
        disk.syncs.release();
        first.recv().unwrap().unwrap();
        for answer in queued {
            answer.recv().unwrap().unwrap();
        }
        assert_eq!(store.stats().commits, commits);
    }
}

#[test]
fn past_the_queue_a_write_is_refused_at_once() {
    let disk = Disk::fresh();
    let store = disk.store(&DurableOptions {
        queue_max: 3,
        ..DurableOptions::default()
    });
    disk.syncs.hold();
    let mut taken = vec![ask(&store, "first", b"1")];
    disk.syncs.wait_for(1);
    taken.extend((0..3).map(|n| ask(&store, &n.to_string(), b"1")));
    let refused = ask(&store, "one more", b"1");
    assert!(is_unavailable(&refused.try_recv().unwrap()));
    disk.syncs.release();
    for answer in taken {
        assert_eq!(answer.recv().unwrap(), Ok(()));
    }
    assert_eq!(get(&store, "one more"), Ok(None));
    assert_eq!(set(&store, "one more", "2"), Ok(()));
}

#[test]
fn past_the_bytes_that_may_wait_a_write_is_refused_but_one_is_always_taken() {
    let disk = Disk::fresh();
    let store = disk.store(&DurableOptions {
        queue_bytes_max: 10_000,
        ..DurableOptions::default()
    });
    disk.syncs.hold();
    let mut taken = vec![ask(&store, "first", &[0; 20_000])];
    disk.syncs.wait_for(1);
    taken.push(ask(&store, "second", &[0; 20_000]));
    let refused = ask(&store, "third", b"");
    assert!(is_unavailable(&refused.try_recv().unwrap()));
    disk.syncs.release();
    for answer in taken {
        assert_eq!(answer.recv().unwrap(), Ok(()));
    }
}

#[test]
fn a_merge_that_meets_a_damaged_value_is_refused_whole_and_its_batch_goes_on() {
    for damaged in ["a1", "a2"] {
        let disk = Disk::fresh();
        let store = disk.store(&DurableOptions::default());
        for (account, key) in [("a1", "a"), ("a1", "b"), ("a2", "a"), ("a2", "b")] {
            let at = KvAddress { account, ..at(key) };
            wait_for(|reply| store.set(at, b"1", None, reply)).unwrap();
        }
        drop(store);
        let store = disk.store(&DurableOptions::default());
        let spoilt = format::kv_key(KvAddress {
            account: damaged,
            ..at("b")
        });
        let spoil = store.inner.shared.work("writing", |database| {
            let transaction = database.begin_write()?;
            let damage = &b"\xff"[..];
            transaction
                .open_table(format::KV)?
                .insert(spoilt.as_slice(), damage)?;
            Ok(transaction.commit()?)
        });
        spoil.unwrap();

        disk.syncs.hold();
        let first = ask(&store, "first", b"1");
        disk.syncs.wait_for(1);
        let (sender, merged) = mpsc::channel();
        let reply = Reply::new(move |answer| drop(sender.send(answer)));
        store.merge("g", "a1", "a2", reply);
        let after = ask(&store, "after", b"1");
        disk.syncs.release();
        assert_eq!(first.recv().unwrap(), Ok(()));
        assert!(matches!(
            merged.recv().unwrap(),
            Err(ServiceError::Refused(_))
        ));
        assert_eq!(after.recv().unwrap(), Ok(()));
        assert_eq!(store.stats().failed, None);
        for (account, key) in [("a1", "a"), ("a1", "b"), ("a2", "a"), ("a2", "b")] {
            let at = KvAddress { account, ..at(key) };
            let value = wait_for(|reply| KvStore::get(&store, at, reply));
            if (account, key) == (damaged, "b") {
                assert!(is_unavailable(&value));
            } else {
                assert_eq!(value, Ok(Some(b"1".to_vec())));
            }
        }
    }
}

#[test]
fn a_flood_of_posts_keeps_nobody_from_setting_values() {
    let disk = Disk::fresh();
    let store = disk.store(&DurableOptions {
        queue_max: 8,
        ..DurableOptions::default()
    });
    disk.syncs.hold();
    let first = ask(&store, "first", b"1");
    disk.syncs.wait_for(1);
    let mut posts: Vec<_> = (0..5)
        .map(|n| {
            let (sender, receiver) = mpsc::channel();
            let reply = Reply::new(move |answer| drop(sender.send(answer)));
            store.post(&post(n), reply);
            receiver
        })
        .collect();
    assert!(is_unavailable(&posts.pop().unwrap().try_recv().unwrap()));
    let values: Vec<_> = (0..4).map(|n| ask(&store, &n.to_string(), b"1")).collect();
    let refused = ask(&store, "one more", b"1");
    assert!(is_unavailable(&refused.try_recv().unwrap()));
    disk.syncs.release();
    assert_eq!(first.recv().unwrap(), Ok(()));
    for answer in posts {
        assert_eq!(answer.recv().unwrap(), Ok(Posted::Landed));
    }
    for answer in values {
        assert_eq!(answer.recv().unwrap(), Ok(()));
    }
}

#[test]
fn the_last_handle_answers_what_is_queued_and_closes() {
    let disk = Disk::fresh();
    let store = disk.store(&DurableOptions::default());
    disk.syncs.hold();
    let first = ask(&store, "first", b"1");
    disk.syncs.wait_for(1);
    let queued = ask(&store, "queued", b"2");
    disk.syncs.release();
    drop(store);
    // No waiting: dropping did.
    assert_eq!(first.try_recv().unwrap(), Ok(()));
    assert_eq!(queued.try_recv().unwrap(), Ok(()));
    let store = disk.store(&DurableOptions::default());
    assert_eq!(get(&store, "queued"), Ok(Some(b"2".to_vec())));
}

#[test]
fn a_reply_may_hold_the_last_handle() {
    let disk = Disk::fresh();
    let store = disk.store(&DurableOptions::default());
    let (sender, receiver) = mpsc::channel();
    let last = store.clone();
    disk.syncs.hold();
    let reply = Reply::new(move |answer| {
        drop(last);
        sender.send(answer).unwrap();
    });
    store.set(at("k"), b"v", None, reply);
    drop(store);
    disk.syncs.release();
    assert_eq!(receiver.recv().unwrap(), Ok(()));
}

#[test]
fn a_reply_that_panics_keeps_nobody_from_an_answer() {
    let disk = Disk::fresh();
    let store = disk.store(&DurableOptions::default());
    disk.syncs.hold();
    let first = ask(&store, "first", b"1");
    disk.syncs.wait_for(1);
    let reply = Reply::new(|_| panic!("the reply panicked, as this test wants"));
    store.set(at("k"), b"v", None, reply);
    let after = ask(&store, "after", b"1");
    disk.syncs.release();
    assert_eq!(first.recv().unwrap(), Ok(()));
    assert_eq!(after.recv().unwrap(), Ok(()));
    assert_eq!(set(&store, "later", "1"), Ok(()));
    assert_eq!(store.stats().failed, None);
}

#[test]
fn a_failed_disk_is_unavailable_to_the_whole_batch_and_to_everybody_after() {
    for trouble in [Trouble::Fails, Trouble::Panics] {
        let disk = Disk::fresh();
        let store = disk.store(&DurableOptions::default());
        assert_eq!(set(&store, "before", "1"), Ok(()));
        disk.syncs.hold();
        let first = ask(&store, "first", b"1");
        disk.syncs.wait_for(1);
        let queued: Vec<_> = (0..10).map(|n| ask(&store, &n.to_string(), b"1")).collect();
        disk.trouble_from(0, trouble);
        disk.syncs.release();
        assert!(is_unavailable(&first.recv().unwrap()), "{trouble:?}");
        for answer in queued {
            assert!(is_unavailable(&answer.recv().unwrap()), "{trouble:?}");
        }
        assert!(store.stats().failed.is_some());
        assert!(is_unavailable(&set(&store, "later", "1")));
        assert!(is_unavailable(&get(&store, "before")));
        assert!(is_unavailable(&wait_for(
            |reply| store.int_values("g", b"k", reply)
        )));
        drop(store);

        let again = disk
            .after_power_loss(|_| false)
            .store(&DurableOptions::default());
        assert_eq!(get(&again, "before"), Ok(Some(b"1".to_vec())));
        assert_eq!(set(&again, "later", "1"), Ok(()));
    }
}

fn post(n: i64) -> Post {
    Post {
        id: PostId([n as u8; 32]),
        slug: "g".into(),
        room: "0190b5a4-3c1e-7abc-8def-0123456789ab".parse().unwrap(),
        result: cabinet_host::RoomResult {
            mode: cabinet_host::Mode::Quick,
            standings: vec![cabinet_host::Standing {
                player: cabinet_host::Player::member(format!("p{n}"), "pat", "c"),
                metric: 1,
                rank: 1,
                status: None,
            }],
            round_seq: n as u32,
        },
        at: n,
    }
}

/// Writes that each depend on those before; answers which were acknowledged.
fn workload(store: &DurableStore) -> Vec<bool> {
    (0..6)
        .flat_map(|n| {
            let written = set(store, &format!("k{n}"), &"v".repeat(2_000)).is_ok();
            let posted = wait_for(|reply| store.post(&post(n), reply));
            [written, posted.is_ok()]
        })
        .collect()
}

/// Lets the power go: nothing of what was not synced is left, all of it, or one of two mixtures.
/// What was acknowledged is there each time, and what is there is whole.
fn survives_power_loss(disk: &Disk, acknowledged: &[bool], when: &str) {
    let fates: [fn(usize) -> bool; 4] = [|_| false, |_| true, |n| n % 2 == 0, |n| n % 3 == 1];
    for (fate, kept) in fates.into_iter().enumerate() {
        let when = format!("{when}, fate {fate}");
        let store = disk
            .after_power_loss(kept)
            .try_store(&DurableOptions::default())
            .unwrap_or_else(|error| panic!("{when}: {error}"));
        let spec = BoardSpec {
            aggregation: cabinet_wire::Aggregation::Sum,
            ..BoardSpec::default()
        };
        let scores = wait_for(|reply| store.scores("g", None, &spec, reply)).unwrap();
        for (n, pair) in acknowledged.chunks(2).enumerate() {
            let value = get(&store, &format!("k{n}")).unwrap();
            let times = scores.iter().find(|score| score.account == format!("p{n}"));
            if pair[0] || value.is_some() {
                assert_eq!(value, Some(vec![b'v'; 2_000]), "{when}");
            }
            if pair[1] || times.is_some() {
                assert_eq!(times.map(|score| score.value), Some(1), "{when}");
            }
        }
    }
}

#[test]
fn whatever_operation_the_power_goes_at_no_acknowledged_write_is_lost_or_doubled() {
    let disk = Disk::fresh();
    let store = disk.store(&DurableOptions::default());
    let opened = disk.operations();
    assert_eq!(workload(&store), [true; 12]);
    let total = disk.operations();
    drop(store);
    assert!(total > opened + 24, "{opened}..{total}");

    for stop in opened..=total {
        let disk = Disk::fresh();
        let store = disk.store(&DurableOptions::default());
        disk.trouble_from(stop, Trouble::Fails);
        let acknowledged = workload(&store);
        drop(store);
        assert_eq!(
            acknowledged.contains(&false),
            stop < total,
            "stopped at {stop}"
        );
        survives_power_loss(&disk, &acknowledged, &format!("stopped at {stop}"));
    }
}
