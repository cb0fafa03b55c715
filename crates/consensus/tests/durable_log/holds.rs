//! What a log holds, with a disk that does as it is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cabinet_consensus::log::durable::sim_disk::{Crash, SimDisk};
use cabinet_consensus::log::durable::{
    Disk, Driver, DurableOptions, FileDisk, MEMBERSHIP_BYTES_MAX, VOTE_BYTES_MAX,
};
use cabinet_consensus::log::{
    DurableLog, IDENTITY_BYTES_MAX, LogError, LogStore, MemoryLog, RECORD_BYTES_MAX, StoredSnapshot,
};
use proptest::prelude::*;

use super::*;

#[test]
fn what_was_written_to_real_files_is_read_by_the_next_process() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/below");
        let identity = Bytes::from_static(b"ann in chess");
        let log = open_files(&path).await.unwrap();
        assert_eq!(log.state().unwrap().identity, None);
        log.save_identity(identity.clone()).await.unwrap();
        for step in script() {
            perform(&log, &step).await.unwrap();
        }
        let before = held(&log).await;
        log.close().await.unwrap();
        assert_eq!(log.state(), Err(LogError::Closed));
        assert_eq!(append(&log, vec![]).await, Err(LogError::Closed));
        assert_eq!(log.close().await, Ok(()));

        let log = open_files(&path).await.unwrap();
        assert_eq!(held(&log).await, before);
        let mut expected = expectations().await.pop().unwrap();
        expected.state.identity = Some(identity);
        assert_eq!(before, expected);
        log.close().await.unwrap();
    });
}

#[test]
fn a_note_of_whose_log_it_is_is_taken_at_its_limit_and_refused_one_past_it() {
    run(async {
        let logs: [Arc<dyn LogStore>; 2] = [
            Arc::new(MemoryLog::new()),
            Arc::new(open_sim(&SimDisk::new()).await.unwrap()),
        ];
        for log in logs {
            let note = |len| log.save_identity(vec![1; len].into());
            assert_eq!(note(IDENTITY_BYTES_MAX).await, Ok(()));
            let (len, max) = (IDENTITY_BYTES_MAX + 1, IDENTITY_BYTES_MAX);
            let what = "a note of whose log it is";
            let too_large = LogError::TooLarge { what, len, max };
            assert_eq!(note(len).await, Err(too_large));
            let kept = log.state().unwrap();
            assert_eq!(kept.identity.map(|note| note.len()), Some(max));
            assert!(kept.vote.is_none() && kept.last.is_none());
        }
    });
}

#[test]
fn a_directory_that_is_open_is_refused_until_it_is_closed_and_its_thread_gone() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(FileDisk::new(directory.path()));
        let log = DurableLog::open(disk.clone(), SMALL, Driver::Thread)
            .await
            .unwrap();
        let other = open_files(directory.path()).await;
        assert!(matches!(other, Err(LogError::InUse { .. })));
        log.close().await.unwrap();
        // The writer's thread held the only other one.
        assert_eq!(Arc::strong_count(&disk), 1);
        let again = open_files(directory.path()).await.unwrap();
        again.close().await.unwrap();
    });
}

#[test]
fn appends_that_wait_together_share_one_sync_and_are_answered_in_order() {
    run(async {
        let disk = SimDisk::new();
        let options = DurableOptions::default();
        let log = DurableLog::open(disk.attach(), options, Driver::Task)
            .await
            .unwrap();
        append(&log, vec![record(0, 1, 10)]).await.unwrap();
        disk.set_sync_delay(Duration::from_millis(10));
        let (stats, counts) = (log.stats(), disk.counts());
        let order = Arc::new(Mutex::new(Vec::new()));
        for index in 1..=100 {
            let order = order.clone();
            let done = move |result: Result<(), LogError>| {
                result.unwrap();
                order.lock().unwrap().push(index);
            };
            log.append(vec![record(index, 1, 10)], Box::new(done))
                .unwrap();
            assert_eq!(log.read(index, index + 1).unwrap().len(), 1);
            if index == 1 {
                // The writer takes the first one alone, and the others while it syncs.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        assert!(order.lock().unwrap().is_empty());
        log.close().await.unwrap();
        assert_eq!(*order.lock().unwrap(), (1..=100).collect::<Vec<_>>());
        assert_eq!(log.stats().batches - stats.batches, 2);
        assert_eq!(log.stats().syncs - stats.syncs, 2);
        assert_eq!(disk.counts().syncs - counts.syncs, 2);
        assert_eq!(disk.counts().directory_syncs, counts.directory_syncs);
        assert_eq!(log.stats().records, 101);
        assert_eq!(log.stats().bytes, 1010);
    });
}

#[test]
fn what_does_not_follow_the_log_is_refused_and_poisons_nothing() {
    run(async {
        let log = open_sim(&SimDisk::new()).await.unwrap();
        append(&log, vec![record(0, 3, 1), record(1, 3, 1)])
            .await
            .unwrap();
        let gap = append(&log, vec![record(3, 3, 1)]).await;
        let expected = LogError::Gap {
            expected: 2,
            got: 3,
        };
        assert_eq!(gap, Err(expected));
        let term = |index, got| LogError::Term {
            index,
            known: 3,
            got,
        };
        let below = append(&log, vec![record(2, 2, 1)]).await;
        assert_eq!(below, Err(term(2, 2)));
        assert_eq!(log.purge(at(1, 4)).await, Err(term(1, 4)));
        assert_eq!(log.read(0, 3), Err(LogError::Missing(2)));
        append(&log, vec![record(2, 3, 1)]).await.unwrap();
        log.close().await.unwrap();
    });
}

#[test]
fn a_record_a_vote_and_a_snapshot_are_taken_at_their_limits_and_refused_one_past_them() {
    run(async {
        let disk = SimDisk::new();
        let log = open_sim(&disk).await.unwrap();
        let too_large = |what, max| {
            Err(LogError::TooLarge {
                what,
                len: max + 1,
                max,
            })
        };
        let over = append(&log, vec![record(0, 1, RECORD_BYTES_MAX + 1)]).await;
        assert_eq!(over, too_large("a record", RECORD_BYTES_MAX));
        append(&log, vec![record(0, 1, RECORD_BYTES_MAX)])
            .await
            .unwrap();
        let vote = |len| log.save_vote(Bytes::from(vec![1; len]));
        let over = vote(VOTE_BYTES_MAX + 1).await;
        assert_eq!(over, too_large("a vote", VOTE_BYTES_MAX));
        vote(VOTE_BYTES_MAX).await.unwrap();
        let of = |len: usize, members: usize| StoredSnapshot {
            state: Bytes::from(vec![2; len]),
            membership: Bytes::from(vec![3; members]),
            ..snapshot(at(0, 1))
        };
        let over = log.save_snapshot(of(101, 8)).await;
        assert_eq!(over, too_large("a snapshot", 100));
        let over = log.save_snapshot(of(8, MEMBERSHIP_BYTES_MAX + 1)).await;
        assert_eq!(over, too_large("a list of members", MEMBERSHIP_BYTES_MAX));
        log.save_snapshot(of(100, MEMBERSHIP_BYTES_MAX))
            .await
            .unwrap();
        let before = held(&log).await;
        log.close().await.unwrap();

        let log = open_sim(&disk).await.unwrap();
        assert_eq!(held(&log).await, before);
        log.close().await.unwrap();
        let less = DurableOptions {
            snapshot_bytes_max: 99,
            ..SMALL
        };
        let refused = DurableLog::open(disk.attach(), less, Driver::Task).await;
        assert!(matches!(refused, Err(LogError::TooLarge { max: 99, .. })));
    });
}

#[test]
fn options_are_taken_at_their_limits_and_refused_one_past_them() {
    use cabinet_consensus::log::durable::{
        SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SNAPSHOT_BYTES_MAX,
    };
    run(async {
        let open = |segment_bytes, snapshot_bytes_max| {
            let options = DurableOptions {
                segment_bytes,
                snapshot_bytes_max,
            };
            DurableLog::open(SimDisk::new().attach(), options, Driver::Task)
        };
        for (segment, snapshot) in [
            (SEGMENT_BYTES_MIN, 1),
            (SEGMENT_BYTES_MAX, SNAPSHOT_BYTES_MAX),
        ] {
            let log = open(segment, snapshot).await.unwrap();
            append(&log, vec![record(0, 1, 1)]).await.unwrap();
            log.close().await.unwrap();
        }
        for (segment, snapshot, which) in [
            (0, 1, "segment_bytes"),
            (SEGMENT_BYTES_MIN - 1, 1, "segment_bytes"),
            (SEGMENT_BYTES_MAX + 1, 1, "segment_bytes"),
            (SEGMENT_BYTES_MIN, 0, "snapshot_bytes_max"),
            (
                SEGMENT_BYTES_MIN,
                SNAPSHOT_BYTES_MAX + 1,
                "snapshot_bytes_max",
            ),
        ] {
            match open(segment, snapshot).await.err() {
                Some(LogError::OutOfRange { what, .. }) => assert_eq!(what, which),
                other => panic!("unexpected {other:?}"),
            }
        }
    });
}

#[test]
fn a_log_that_never_held_anything_may_begin_anywhere() {
    run(async {
        let disk = SimDisk::new();
        let log = open_sim(&disk).await.unwrap();
        append(&log, vec![record(5, 2, 1)]).await.unwrap();
        log.truncate_after(None).await.unwrap();
        append(&log, (2..9).map(|i| record(i, 2, 60)).collect())
            .await
            .unwrap();
        append(&log, vec![record(9, 2, 1)]).await.unwrap();
        assert_eq!(log.read(1, 3), Err(LogError::Missing(1)));
        log.close().await.unwrap();
        let log = open_sim(&disk).await.unwrap();
        assert_eq!(log.read(2, 10).unwrap().len(), 8);
        log.close().await.unwrap();

        // The segment after the first one says that something was before it.
        let mut files = disk.files();
        assert!(files.remove("log-00000000000000000002.seg").is_some());
        let refused = open_sim(&SimDisk::with_files(&files)).await;
        assert!(matches!(refused, Err(LogError::Corrupt { .. })));
    });
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..5usize, 0..90usize, 0..2u64).prop_map(|(n, len, up)| Step::Append(n, len, up)),
        2 => (0..6u64).prop_map(Step::Truncate),
        1 => (1..9u64).prop_map(Step::Purge),
        1 => any::<u8>().prop_map(Step::Vote),
        1 => Just(Step::Snapshot),
        2 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn it_holds_what_a_log_in_memory_holds(steps in steps(), seed: u64) {
        run(async {
            let disk = SimDisk::new();
            let mut log = open_sim(&disk).await.unwrap();
            let model = MemoryLog::new();
            for step in &steps {
                if let Step::Reopen = step {
                    // Everything was acknowledged, so a crash takes nothing.
                    disk.crash(Crash::Seeded(seed));
                    log = open_sim(&disk).await.unwrap();
                }
                perform(&log, step).await.unwrap();
                perform(&model, step).await.unwrap();
                assert_eq!(held(&log).await, held(&model).await);
            }
        });
    }

    #[test]
    fn real_files_hold_what_a_log_in_memory_holds(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        run(async {
            let mut log = open_files(directory.path()).await.unwrap();
            let model = MemoryLog::new();
            for step in steps.iter().take(12) {
                if let Step::Reopen = step {
                    log.close().await.unwrap();
                    log = open_files(directory.path()).await.unwrap();
                }
                perform(&log, step).await.unwrap();
                perform(&model, step).await.unwrap();
                assert_eq!(held(&log).await, held(&model).await);
            }
            log.close().await.unwrap();
        });
    }
}

#[test]
fn an_older_snapshot_does_not_take_a_newer_ones_place() {
    run(async {
        let disk = SimDisk::new();
        let durable = open_sim(&disk).await.unwrap();
        let memory = MemoryLog::new();
        let logs: [&dyn LogStore; 2] = [&durable, &memory];
        for log in logs {
            for index in [5, 4, 0] {
                log.save_snapshot(snapshot(at(index, 1))).await.unwrap();
                let stored = log.load_snapshot().await.unwrap();
                assert_eq!(stored, Some(snapshot(at(5, 1))), "after {index}");
            }
            let again = StoredSnapshot {
                state: Bytes::from_static(b"again"),
                ..snapshot(at(5, 1))
            };
            log.save_snapshot(again.clone()).await.unwrap();
            assert_eq!(log.load_snapshot().await.unwrap(), Some(again));
            log.save_snapshot(snapshot(at(6, 1))).await.unwrap();
            log.save_snapshot(snapshot(at(5, 1))).await.unwrap();
        }
        let before = held(&durable).await;
        durable.close().await.unwrap();
        let reopened = open_sim(&disk).await.unwrap();
        assert_eq!(held(&reopened).await, before);
        assert_eq!(before.snapshot, Some(snapshot(at(6, 1))));
    });
}
