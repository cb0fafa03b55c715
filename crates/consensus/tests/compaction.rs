//! When a log is compacted: each rule alone, and what a process that comes back counts.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::config::{Compaction, TIME_MAX};
use cabinet_consensus::fabric::{MemoryFabric, MemoryPeer};
use cabinet_consensus::game::{Blueprint, Game, Malformed, Snapshots, TurnInfo};
use cabinet_consensus::log::durable::sim_disk::SimDisk;
use cabinet_consensus::log::durable::{Driver, DurableOptions};
use cabinet_consensus::log::{DurableLog, LogStore, MemoryLog};
use cabinet_consensus::session::{GameSession, SessionConfig, game_node};
use common::{config, peer, port};

/// Counts what was said.
#[derive(Clone, Default)]
struct Heard(u64);

impl Game for Heard {
    type Action = Vec<u8>;
    type Outcome = ();
    type Refusal = ();

    fn apply(&mut self, _: &TurnInfo, _: &Vec<u8>) -> Result<(), ()> {
        self.0 += 1;
        Ok(())
    }
}

impl Snapshots for Heard {
    fn snapshot(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes = bytes.try_into().map_err(|_| Malformed)?;
        Ok(Self(u64::from_le_bytes(bytes)))
    }
}

type Session = GameSession<Heard>;

const NEVER: Compaction = Compaction {
    entries: u64::MAX,
    bytes: u64::MAX,
    age: TIME_MAX,
};

/// A game of one, whose every entry is its own or the leader's.
async fn alone(
    at: &Arc<MemoryPeer>,
    nonce: u64,
    log: Arc<dyn LogStore>,
    compaction: Compaction,
) -> Session {
    let config = SessionConfig {
        log,
        compaction: Some(compaction),
        hash_every: 0,
        ..config(nonce)
    };
    let blueprint = Blueprint::with_snapshots(Heard::default);
    let roster = [peer("ann")].into();
    let session = game_node(port(at), blueprint, roster, config)
        .await
        .unwrap();
    session
        .sequencer()
        .read_barrier(Duration::from_secs(5))
        .await
        .unwrap();
    session
}

/// Says so many bytes, and leaves the house time to see it.
async fn say(session: &Session, bytes: usize) {
    let said = session.sequencer().propose(&vec![7; bytes]).await;
    assert!(said.unwrap().is_accepted());
    settle().await;
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn snapshot(session: &Session) -> Option<u64> {
    session.node().numbers().snapshot
}

/// Entries that are applied and in no snapshot.
fn entries(session: &Session) -> u64 {
    let numbers = session.node().numbers();
    let count = |last: Option<u64>| last.map_or(0, |index| index + 1);
    count(numbers.applied) - count(numbers.snapshot)
}

fn ann(net: &MemoryFabric) -> Arc<MemoryPeer> {
    net.join(peer("ann")).unwrap()
}

async fn durable(disk: &SimDisk) -> Arc<DurableLog> {
    let options = DurableOptions::default();
    let log = DurableLog::open(disk.attach(), options, Driver::Task).await;
    Arc::new(log.unwrap())
}

#[tokio::test(start_paused = true)]
async fn by_count_alone_a_log_is_compacted_at_the_count_and_not_one_before() {
    let at = ann(&MemoryFabric::new());
    let compaction = Compaction {
        entries: 20,
        ..NEVER
    };
    let session = alone(&at, 1, Arc::new(MemoryLog::new()), compaction).await;
    for round in 0..3 {
        let before = snapshot(&session);
        settle().await;
        while entries(&session) < 19 {
            say(&session, 5000).await;
            assert_eq!(snapshot(&session), before, "round {round}");
        }
        say(&session, 1).await;
        assert_eq!(entries(&session), 0, "round {round}");
        assert!(snapshot(&session) > before);
    }
}

#[tokio::test(start_paused = true)]
async fn by_bytes_alone_a_log_is_compacted_at_so_many_bytes_and_not_before() {
    let at = ann(&MemoryFabric::new());
    let log = MemoryLog::new();
    let compaction = Compaction {
        bytes: 10_000,
        ..NEVER
    };
    let session = alone(&at, 1, Arc::new(log.clone()), compaction).await;
    let mut since = 0;
    for round in 0..3 {
        let before = snapshot(&session);
        for _ in 0..9 {
            say(&session, 1000).await;
            assert!(log.stats().bytes - since < 10_000);
            assert_eq!(snapshot(&session), before, "round {round}");
        }
        say(&session, 1000).await;
        since = log.stats().bytes;
        assert!(snapshot(&session) > before, "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn by_age_alone_a_log_is_compacted_when_it_is_old_and_something_is_new() {
    let at = ann(&MemoryFabric::new());
    let compaction = Compaction {
        age: Duration::from_secs(60),
        ..NEVER
    };
    let session = alone(&at, 1, Arc::new(MemoryLog::new()), compaction).await;
    say(&session, 1).await;
    tokio::time::sleep(Duration::from_secs(58)).await;
    assert_eq!(snapshot(&session), None, "too early");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let first = snapshot(&session);
    assert!(first.is_some() && entries(&session) == 0);
    // Nothing is new, however old it gets.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(snapshot(&session), first);
    // One entry is enough.
    say(&session, 1).await;
    let second = snapshot(&session);
    assert!(second > first, "{second:?}");
    say(&session, 1).await;
    tokio::time::sleep(Duration::from_secs(58)).await;
    assert_eq!(snapshot(&session), second, "this one is not old yet");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(snapshot(&session) > second);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_an_earlier_process_left_count_and_those_in_a_snapshot_do_not() {
    let at = ann(&MemoryFabric::new());
    let disk = SimDisk::new();
    let compaction = Compaction {
        bytes: 10_000,
        ..NEVER
    };
    let session = alone(&at, 1, durable(&disk).await, compaction).await;
    for _ in 0..6 {
        say(&session, 1000).await;
    }
    assert_eq!(snapshot(&session), None);
    session.close().await;

    let session = alone(&at, 2, durable(&disk).await, compaction).await;
    settle().await;
    assert_eq!(snapshot(&session), None, "six thousand are not enough");
    for _ in 0..4 {
        say(&session, 1000).await;
    }
    let first = snapshot(&session);
    assert!(first.is_some(), "ten thousand are");
    say(&session, 1000).await;
    session.close().await;

    // All but the last thousand are in the snapshot.
    let session = alone(&at, 3, durable(&disk).await, compaction).await;
    for _ in 0..8 {
        say(&session, 1000).await;
        assert_eq!(snapshot(&session), first);
    }
    say(&session, 1000).await;
    assert!(snapshot(&session) > first);
    session.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_in_memory_that_was_compacted_is_not_compacted_again_because_it_was_reopened() {
    let at = ann(&MemoryFabric::new());
    let log = MemoryLog::new();
    let compaction = Compaction {
        bytes: 10_000,
        ..NEVER
    };
    let session = alone(&at, 1, Arc::new(log.clone()), compaction).await;
    for _ in 0..10 {
        say(&session, 1000).await;
    }
    let first = snapshot(&session);
    assert!(first.is_some());
    session.close().await;
    log.reopen();
    let session = alone(&at, 2, Arc::new(log), compaction).await;
    say(&session, 1).await;
    assert_eq!(snapshot(&session), first);
}

/// Holds what was said last, so it is as large as that.
#[derive(Clone, Default)]
struct Last(Vec<u8>);

impl Game for Last {
    type Action = Vec<u8>;
    type Outcome = ();
    type Refusal = ();

    fn apply(&mut self, _: &TurnInfo, said: &Vec<u8>) -> Result<(), ()> {
        self.0.clone_from(said);
        Ok(())
    }
}

impl Snapshots for Last {
    fn snapshot(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Malformed> {
        Ok(Self(bytes.to_vec()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_state_that_was_too_large_is_measured_again_by_bytes_or_after_a_minute_whatever_the_count()
 {
    let by_bytes = Compaction {
        bytes: 10_000,
        ..NEVER
    };
    let by_age = Compaction {
        age: Duration::from_secs(600),
        ..NEVER
    };
    for (compaction, by_bytes) in [(by_bytes, true), (by_age, false)] {
        let at = ann(&MemoryFabric::new());
        let mut config = SessionConfig {
            compaction: Some(compaction),
            hash_every: 0,
            ..config(1)
        };
        config.limits.snapshot_bytes_max = 20_000;
        let roster = [peer("ann")].into();
        let blueprint = Blueprint::with_snapshots(Last::default);
        let session = game_node(port(&at), blueprint, roster, config)
            .await
            .unwrap();
        let say = async |bytes: usize| {
            let said = session.sequencer().propose(&vec![7; bytes]).await;
            assert!(said.unwrap().is_accepted());
            settle().await;
        };
        let refused = || session.node().numbers().snapshot_too_large;
        let written = || session.node().numbers().snapshot;
        say(25_000).await;
        if !by_bytes {
            assert_eq!(refused(), None, "it is not old yet");
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
        let first = refused();
        assert!(first.is_some_and(|bytes| bytes > 25_000), "{first:?}");
        // Smaller, and a small entry: too little for another try.
        say(26_000 - usize::from(by_bytes) * 17_000).await;
        assert_eq!((refused(), written()), (first, None));
        if by_bytes {
            // Half of what it was, and as many bytes as the next snapshot would wait for.
            say(9_000).await;
        } else {
            tokio::time::sleep(Duration::from_secs(61)).await;
            let second = refused();
            assert!(second > first, "measured again: {second:?}");
            // Nothing is new, so there is nothing to measure.
            say(10).await;
            tokio::time::sleep(Duration::from_secs(61)).await;
        }
        assert_eq!(refused(), None);
        assert!(written().is_some());
    }
}
