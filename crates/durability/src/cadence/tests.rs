//! The rules of the cadence one by one, and its driver on virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;
use tokio::sync::Notify;

use super::*;

const RULES: CadenceRules = CadenceRules {
    base: Duration::from_secs(30),
    jitter: Duration::from_secs(5),
};
/// The draw that comes to the base itself.
const MIDDLE: u64 = 1 << 63;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn started() -> Cadence {
    Cadence::new(RULES, Epoch(1), Duration::ZERO, MIDDLE)
}

#[test]
fn it_fires_with_rising_epochs_and_waits_anew_after_each() {
    let mut cadence = started();
    assert_eq!(cadence.due(secs(29), false, MIDDLE), Due::Wait(secs(30)));
    assert_eq!(cadence.due(secs(30), false, MIDDLE), Due::Fire(Epoch(1)));
    assert_eq!(cadence.due(secs(99), false, MIDDLE), Due::InFlight);
    cadence.finished(true, secs(100), MIDDLE);
    assert_eq!(cadence.due(secs(100), false, MIDDLE), Due::Wait(secs(130)));
    assert_eq!(cadence.due(secs(130), false, MIDDLE), Due::Fire(Epoch(2)));
}

#[test]
fn an_epoch_that_failed_is_tried_again() {
    let mut cadence = started();
    assert_eq!(cadence.due(secs(30), false, MIDDLE), Due::Fire(Epoch(1)));
    cadence.finished(false, secs(31), MIDDLE);
    assert_eq!(cadence.due(secs(61), false, MIDDLE), Due::Fire(Epoch(1)));
}

#[test]
fn an_idle_room_is_left_alone_and_keeps_its_epoch() {
    let mut cadence = started();
    assert_eq!(cadence.due(secs(30), true, MIDDLE), Due::Wait(secs(60)));
    assert_eq!(cadence.next_epoch(), Epoch(1));
    assert_eq!(cadence.due(secs(60), false, MIDDLE), Due::Fire(Epoch(1)));
}

#[test]
fn after_a_reclaim_it_starts_above_what_was_restored() {
    let mut cadence = Cadence::new(RULES, Epoch(8), Duration::ZERO, MIDDLE);
    assert_eq!(cadence.due(secs(30), false, MIDDLE), Due::Fire(Epoch(8)));
}

#[test]
fn the_drains_epoch_is_above_every_one_that_was_written() {
    let mut cadence = started();
    assert_eq!(cadence.due(secs(30), false, MIDDLE), Due::Fire(Epoch(1)));
    assert!(cadence.close(), "one is under way");
    cadence.finished(true, secs(40), MIDDLE);
    assert_eq!(cadence.next_epoch(), Epoch(2));
    assert_eq!(cadence.due(secs(999), false, MIDDLE), Due::Closed);
    assert!(!cadence.close());
}

#[test]
fn an_epoch_that_passed_is_not_used_again() {
    let mut cadence = started();
    cadence.passed(Epoch(5));
    assert_eq!(cadence.next_epoch(), Epoch(6));
    cadence.passed(Epoch(2));
    assert_eq!(cadence.next_epoch(), Epoch(6));
}

#[test]
fn the_ends_of_the_jitter_are_reached_and_odd_rules_are_made_sense_of() {
    assert_eq!(RULES.wait(0), secs(25));
    assert_eq!(RULES.wait(MIDDLE), secs(30));
    assert_eq!(RULES.wait(u64::MAX), secs(35));
    let rules = |base, jitter| CadenceRules { base, jitter };
    assert_eq!(rules(Duration::ZERO, Duration::ZERO).wait(9), secs(30));
    // Jitter is at most the base, and a wait is never zero.
    assert_eq!(rules(secs(1), secs(9)).wait(0), Duration::from_nanos(1));
    assert_eq!(rules(secs(1), secs(9)).wait(u64::MAX), secs(2));
    let huge = rules(Duration::MAX, Duration::MAX).wait(u64::MAX);
    assert!(huge > secs(1 << 30));
}

proptest! {
    #[test]
    fn waits_are_within_the_jitter(
        base in 1u64..1 << 62, jitter in 0u64..1 << 62, draw in any::<u64>(),
    ) {
        let rules = CadenceRules {
            base: Duration::from_nanos(base),
            jitter: Duration::from_nanos(jitter),
        };
        let wait = rules.wait(draw).as_nanos() as u64;
        let jitter = jitter.min(base);
        prop_assert!(wait >= (base - jitter).max(1) && wait <= base + jitter);
    }

    #[test]
    fn epochs_rise_by_one_and_only_with_what_was_written(
        steps in prop::collection::vec((0u64..100, any::<bool>(), any::<bool>(), any::<u64>()), 0..200),
    ) {
        let mut cadence = started();
        let (mut now, mut written) = (0, 0);
        for (pause, idle, works, draw) in steps {
            now += pause;
            if let Due::Fire(epoch) = cadence.due(secs(now), idle, draw) {
                prop_assert!(!idle);
                prop_assert_eq!(epoch, Epoch(written + 1));
                cadence.finished(works, secs(now), draw);
                written += u64::from(works);
            }
            prop_assert_eq!(cadence.next_epoch(), Epoch(written + 1));
        }
    }
}

fn scheduler() -> Scheduler {
    Scheduler::new(RULES, Epoch(1), Duration::ZERO, MIDDLE)
}

#[tokio::test(start_paused = true)]
async fn the_driver_fires_by_the_clock_and_stops_when_it_is_closed() {
    let scheduler = scheduler();
    let fired = Arc::new(AtomicU64::new(0));
    let task = {
        let (scheduler, fired) = (scheduler.clone(), Arc::clone(&fired));
        tokio::spawn(async move {
            let pace = TokioPace::new();
            scheduler
                .run(
                    &pace,
                    || MIDDLE,
                    || false,
                    |epoch| {
                        fired.store(epoch.0, Ordering::Relaxed);
                        async { Fired::Written }
                    },
                )
                .await;
        })
    };
    tokio::time::sleep(secs(95)).await;
    assert_eq!(fired.load(Ordering::Relaxed), 3);
    assert_eq!(scheduler.close().await, Epoch(4));
    task.await.expect("it ends");
    assert_eq!(fired.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_the_checkpoint_that_is_under_way_and_everybody_waits() {
    let scheduler = scheduler();
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let task = {
        let scheduler = scheduler.clone();
        let (entered, release) = (Arc::clone(&entered), Arc::clone(&release));
        tokio::spawn(async move {
            let pace = TokioPace::new();
            scheduler
                .run(
                    &pace,
                    || MIDDLE,
                    || false,
                    |_| {
                        let (entered, release) = (Arc::clone(&entered), Arc::clone(&release));
                        async move {
                            entered.notify_one();
                            release.notified().await;
                            Fired::Written
                        }
                    },
                )
                .await;
        })
    };
    entered.notified().await;
    let closers: Vec<_> = (0..3)
        .map(|_| {
            let scheduler = scheduler.clone();
            tokio::spawn(async move { scheduler.close().await })
        })
        .collect();
    tokio::time::sleep(secs(5)).await;
    assert!(closers.iter().all(|closer| !closer.is_finished()));
    release.notify_one();
    for closer in closers {
        assert_eq!(closer.await.expect("it ends"), Epoch(2));
    }
    task.await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn an_idle_room_is_asked_at_its_time_and_written_when_it_is_not_idle_any_more() {
    let scheduler = scheduler();
    let idle = Arc::new(AtomicBool::new(true));
    let fired = Arc::new(AtomicU64::new(0));
    let task = {
        let (scheduler, fired, idle) = (scheduler.clone(), Arc::clone(&fired), Arc::clone(&idle));
        tokio::spawn(async move {
            let pace = TokioPace::new();
            let asked = || idle.load(Ordering::Relaxed);
            scheduler
                .run(
                    &pace,
                    || MIDDLE,
                    asked,
                    |_| {
                        fired.fetch_add(1, Ordering::Relaxed);
                        async { Fired::Written }
                    },
                )
                .await;
        })
    };
    tokio::time::sleep(secs(100)).await;
    assert_eq!(fired.load(Ordering::Relaxed), 0);
    idle.store(false, Ordering::Relaxed);
    tokio::time::sleep(secs(21)).await;
    assert_eq!(fired.load(Ordering::Relaxed), 1);
    assert_eq!(scheduler.close().await, Epoch(2));
    task.await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_is_dropped_gives_up_what_is_under_way() {
    let scheduler = scheduler();
    let entered = Arc::new(Notify::new());
    let task = {
        let (scheduler, entered) = (scheduler.clone(), Arc::clone(&entered));
        tokio::spawn(async move {
            let pace = TokioPace::new();
            scheduler
                .run(
                    &pace,
                    || MIDDLE,
                    || false,
                    |_| {
                        entered.notify_one();
                        std::future::pending()
                    },
                )
                .await;
        })
    };
    entered.notified().await;
    task.abort();
    // It does not hang, and the epoch was not written.
    assert_eq!(scheduler.close().await, Epoch(1));
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_says_stop_is_the_last() {
    let scheduler = scheduler();
    let pace = TokioPace::new();
    let mut calls = 0;
    scheduler
        .run(
            &pace,
            || MIDDLE,
            || false,
            |_| {
                calls += 1;
                let fired = if calls == 1 {
                    Fired::Passed(Epoch(7))
                } else {
                    Fired::Stop
                };
                async move { fired }
            },
        )
        .await;
    assert_eq!(calls, 2);
    assert_eq!(scheduler.close().await, Epoch(8));
}
