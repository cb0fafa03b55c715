//! Every call fails once, and the machine dies at every call.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cabinet_consensus::log::durable::sim_disk::{Crash, Fault, SimDisk};
use cabinet_consensus::log::{DurableLog, LogError, LogStore};

use super::*;

/// Runs the script until a step fails: which one, and how.
async fn live(log: &dyn LogStore) -> Option<(usize, LogError)> {
    for (place, step) in script().iter().enumerate() {
        if let Err(error) = perform(log, step).await {
            return Some((place, error));
        }
    }
    None
}

/// Checks what was found after step `failed` was cut short: everything before it, and of it all, a
/// part or nothing.
fn between(found: &Held, failed: usize, expected: &[Held], story: &str) {
    let before = &expected[failed];
    let Some(after) = expected.get(failed + 1) else {
        assert_eq!(found, before, "{story}: the script was over");
        return;
    };
    if found == after || found == before {
        return;
    }
    // A part of an append or of a truncation, one record at a time. The rest is whole or not done.
    let (short, long) = if before.records.len() <= after.records.len() {
        (before, after)
    } else {
        (after, before)
    };
    let n = found.records.len();
    assert!(
        before.state.purged == after.state.purged
            && found.snapshot == before.snapshot
            && found.state.vote == before.state.vote
            && found.state.purged == before.state.purged
            && (short.records.len()..=long.records.len()).contains(&n)
            && found.records == long.records[..n]
            && long.records.starts_with(&short.records),
        "{story}: found {found:?}\nbetween {before:?}\nand {after:?}"
    );
}

/// The log goes on after a restart, and what is written then is found too.
async fn goes_on(disk: &SimDisk, log: DurableLog, story: &str) {
    perform(&log, &Step::Append(3, 20, 1)).await.expect(story);
    perform(&log, &Step::Vote(9)).await.expect(story);
    let before = held(&log).await;
    log.close().await.expect(story);
    let log = open_sim(disk).await.expect(story);
    assert_eq!(held(&log).await, before, "{story}");
    log.close().await.expect(story);
}

#[test]
fn whichever_call_fails_the_log_is_poisoned_and_what_was_acknowledged_is_there_afterwards() {
    run(async {
        let expected = expectations().await;
        let mut failed_steps = BTreeSet::new();
        for n in 0.. {
            let story = format!("call {n} fails");
            let disk = SimDisk::new();
            disk.set_fault(Some(Fault::Once(n)));
            let failed = match open_sim(&disk).await {
                Err(error) => {
                    assert!(matches!(error, LogError::Io { .. }), "{story}: {error}");
                    0
                }
                Ok(log) => {
                    let Some((failed, error)) = live(&log).await else {
                        log.close().await.unwrap();
                        assert!(n > 60, "the script makes more calls than {n}");
                        break;
                    };
                    assert!(matches!(error, LogError::Io { .. }), "{story}: {error}");
                    // Poisoned for good, although the disk would do it now.
                    let calls = disk.counts().calls;
                    let next = record(99, 9, 1);
                    assert_eq!(append(&log, vec![next]).await, Err(LogError::Poisoned));
                    let vote = log.save_vote(Bytes::new()).await;
                    assert_eq!(vote, Err(LogError::Poisoned));
                    assert_eq!(log.truncate_after(None).await, Err(LogError::Poisoned));
                    assert_eq!(log.purge(at(99, 9)).await, Err(LogError::Poisoned));
                    assert_eq!(log.state(), Err(LogError::Poisoned));
                    assert_eq!(log.close().await, Err(LogError::Poisoned));
                    assert_eq!(disk.counts().calls, calls, "{story}");
                    failed
                }
            };
            failed_steps.insert(failed);
            let log = open_sim(&disk).await.expect(&story);
            let found = held(&log).await;
            between(&found, failed, &expected, &story);
            // What a restart found is there for good, although the sync that was to see to it failed.
            disk.crash(Crash::Lost);
            let log = open_sim(&disk).await.expect(&story);
            assert_eq!(held(&log).await, found, "{story}");
            goes_on(&disk, log, &story).await;
        }
        assert_eq!(failed_steps.len(), script().len(), "{failed_steps:?}");
    });
}

#[test]
fn a_segment_that_never_held_a_record_is_not_in_the_way_of_the_next() {
    run(async {
        let mut begun = 0;
        for n in 0..20 {
            let disk = SimDisk::new();
            let log = open_sim(&disk).await.unwrap();
            disk.set_fault(Some(Fault::From(n)));
            let _ = append(&log, vec![record(5, 1, 9)]).await;
            disk.crash(Crash::Torn(40));
            begun += usize::from(disk.files().contains_key("log-00000000000000000005.seg"));

            let log = open_sim(&disk).await.unwrap();
            if log.state().unwrap().last.is_none() {
                append(&log, vec![record(2, 1, 9)]).await.unwrap();
                log.close().await.unwrap();
                let log = open_sim(&disk).await.unwrap();
                assert_eq!(log.read(2, 3).unwrap(), [record(2, 1, 9)], "call {n}");
            }
        }
        assert!(begun > 0);
    });
}

#[test]
fn a_failed_sync_is_told_to_all_who_wait_and_never_tried_again() {
    run(async {
        let disk = SimDisk::new();
        let log = open_sim(&disk).await.unwrap();
        append(&log, vec![record(0, 1, 1)]).await.unwrap();
        disk.set_sync_delay(Duration::from_millis(10));
        // The next calls: the batch's write, its sync, and then one that must not come.
        disk.set_fault(Some(Fault::Once(1)));
        let syncs = disk.counts().syncs;
        let answers = Arc::new(Mutex::new(Vec::new()));
        for index in 1..3 {
            let answers = answers.clone();
            let done = move |result: Result<(), LogError>| answers.lock().unwrap().push(result);
            log.append(vec![record(index, 1, 1)], Box::new(done))
                .unwrap();
        }
        let vote = log.save_vote(Bytes::new()).await;
        assert_eq!(vote, Err(LogError::Poisoned));
        assert_eq!(log.close().await, Err(LogError::Poisoned));
        let answers = answers.lock().unwrap();
        assert_eq!(answers.len(), 2);
        for answer in answers.iter() {
            assert!(
                matches!(answer, Err(LogError::Io { doing, .. }) if doing.starts_with("syncing"))
            );
        }
        assert_eq!(disk.counts().syncs, syncs);
    });
}

#[test]
fn a_crash_at_any_call_loses_nothing_that_was_acknowledged_and_invents_nothing() {
    run(async {
        let expected = expectations().await;
        let crashes = [Crash::Kept, Crash::Lost]
            .into_iter()
            .chain((0..300).map(Crash::Torn))
            .chain((0..60).map(Crash::Seeded))
            .collect::<Vec<_>>();
        for n in 0.. {
            let mut over = false;
            for &crash in &crashes {
                let story = format!("crash at call {n}, {crash:?}");
                let disk = SimDisk::new();
                disk.set_fault(Some(Fault::From(n)));
                let failed = match open_sim(&disk).await {
                    Err(_) => 0,
                    Ok(log) => match live(&log).await {
                        Some((failed, _)) => failed,
                        None => {
                            over = true;
                            script().len()
                        }
                    },
                };
                disk.crash(crash);
                let log = open_sim(&disk).await.expect(&story);
                between(&held(&log).await, failed, &expected, &story);
                goes_on(&disk, log, &story).await;
            }
            if over {
                assert!(n > 60, "the script makes more calls than {n}");
                break;
            }
        }
    });
}

#[test]
fn a_crash_while_recovering_from_a_crash_loses_nothing_either() {
    run(async {
        let expected = expectations().await;
        let mut second_crashes = 0;
        for n in 0..90 {
            for m in 0..14 {
                let seed = n * 100 + m;
                let story = format!("crash at call {n}, again at {m}");
                let disk = SimDisk::new();
                disk.set_fault(Some(Fault::From(n)));
                let failed = match open_sim(&disk).await {
                    Err(_) => 0,
                    Ok(log) => live(&log)
                        .await
                        .map_or(script().len(), |(failed, _)| failed),
                };
                disk.crash(Crash::Seeded(seed));
                disk.set_fault(Some(Fault::From(m)));
                second_crashes += usize::from(open_sim(&disk).await.is_err());
                disk.crash(Crash::Seeded(seed + 1));
                let log = open_sim(&disk).await.expect(&story);
                between(&held(&log).await, failed, &expected, &story);
                goes_on(&disk, log, &story).await;
            }
        }
        assert!(
            second_crashes > 400,
            "only {second_crashes} recoveries crashed"
        );
    });
}
