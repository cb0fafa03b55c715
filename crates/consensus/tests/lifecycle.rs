//! What a session starts ends with it, on every way in and out, and no way out waits for ever.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cabinet_consensus::config::Timing;
use cabinet_consensus::fabric::{MemoryFabric, MemoryPeer};
use cabinet_consensus::ids::{Incarnation, PeerId};
use cabinet_consensus::log::{
    AppendDone, LogError, LogState, LogStats, LogStore, MemoryLog, Position, Record, StoredSnapshot,
};
use cabinet_consensus::session::{
    GameSession, HostError, HostOptions, JoinError, JoinOptions, ReturnPolicy, SessionConfig,
    game_host, game_join, game_node, game_resume, game_spectate, game_witness,
};
use common::{Sum, config, peer, port, sum};
use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};

fn machine(net: &MemoryFabric, name: &str) -> Arc<MemoryPeer> {
    net.join(peer(name)).unwrap()
}

fn hosting(seats: u32) -> HostOptions {
    HostOptions {
        claim_wait: Duration::from_millis(100),
        spectators_max: 2,
        witness: true,
        return_at: ReturnPolicy::FullMembership,
        ..HostOptions::new(seats, Incarnation(1))
    }
}

fn joining() -> JoinOptions {
    JoinOptions::new(Incarnation(1))
}

/// Tasks there are, once those that were told to end have had their turn. No time passes.
async fn alive() -> usize {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn every_way_into_a_game_leaves_no_task_behind_when_it_is_closed() {
    let net = MemoryFabric::new();
    let [ann, bob, eve, srv] = ["ann", "bob", "eve", "srv"].map(|name| machine(&net, name));
    let log = MemoryLog::new();
    let anns = |nonce| SessionConfig {
        log: Arc::new(log.clone()),
        ..config(nonce)
    };
    let before = alive().await;
    let (host, player, spectator, witness) = tokio::join!(
        game_host(port(&ann), sum(), hosting(2), anns(1)),
        game_join(port(&bob), sum(), joining(), config(2)),
        game_spectate(port(&eve), sum(), joining(), config(3)),
        game_witness(port(&srv), sum(), joining(), config(4)),
    );
    let others: Vec<GameSession<Sum>> = vec![player.unwrap(), spectator.unwrap(), witness.unwrap()];
    let host = host.unwrap();
    host.sequencer().propose(&1).await.unwrap();
    assert!(alive().await > before);
    host.close().await;
    log.reopen();
    let host = game_resume(port(&ann), sum(), anns(5)).await.unwrap();
    host.sequencer().propose(&1).await.unwrap();
    for session in others.iter().chain([&host]) {
        session.close().await;
    }
    assert_eq!(alive().await, before);
    drop((others, host));

    let alone = game_node(port(&ann), sum(), [ann_id()].into(), config(6)).await;
    let alone = alone.unwrap();
    alone.sequencer().propose(&1).await.unwrap();
    assert!(alive().await > before);
    assert!(!alone.leave(Duration::from_secs(1)).await, "to nobody");
    assert_eq!(alive().await, before);
}

fn ann_id() -> PeerId {
    PeerId::new("ann").unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_way_into_a_game_leaves_no_task_behind_when_it_fails_or_is_dropped() {
    let net = MemoryFabric::new();
    let [ann, bob] = ["ann", "bob"].map(|name| machine(&net, name));
    let before = alive().await;
    let options = HostOptions {
        within: Some(Duration::from_millis(500)),
        ..hosting(2)
    };
    let hosted = game_host(port(&ann), sum(), options, config(1)).await;
    assert!(matches!(hosted, Err(HostError::Timeout { .. })));
    assert_eq!(alive().await, before, "a host that gave up");
    let short = JoinOptions {
        within: Duration::from_millis(500),
        ..joining()
    };
    let joined = game_join(port(&bob), sum(), short, config(2)).await;
    assert!(matches!(joined, Err(JoinError::Timeout(_))));
    assert_eq!(alive().await, before, "a joiner that gave up");
    // Dropped while the host waits for a third player and admits the second.
    {
        let hosting = game_host(port(&ann), sum(), hosting(3), config(3));
        let joining = game_join(port(&bob), sum(), joining(), config(4));
        let both = future::join(hosting, joining);
        let waited = tokio::time::timeout(Duration::from_secs(5), both).await;
        assert!(waited.is_err());
    }
    // Who drops does not wait: the host offers its game to the others in the time it has for that.
    tokio::time::sleep(Timing::fast().election_max() * 12).await;
    assert_eq!(alive().await, before, "a host that was dropped");
    let opened = game_node(port(&ann), sum(), [ann_id()].into(), config(5)).await;
    drop(opened.unwrap());
    // The timer of a node that never led ends at its next tick.
    tokio::time::sleep(Timing::fast().heartbeat()).await;
    assert_eq!(alive().await, before, "a session that was dropped");
}

#[test]
fn a_session_dropped_outside_its_runtime_or_while_it_closes_is_closed_whoever_still_looks_at_it() {
    for begins_to_close in [false, true] {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let net = MemoryFabric::new();
        let log = MemoryLog::new();
        let session = runtime.block_on(async {
            let config = SessionConfig {
                log: Arc::new(log.clone()),
                ..config(1)
            };
            let ann = port(&machine(&net, "ann"));
            let opened = game_node(ann, sum(), [ann_id()].into(), config).await;
            let session = opened.unwrap();
            session.sequencer().propose(&1).await.unwrap();
            if begins_to_close {
                assert!(session.close().now_or_never().is_none());
            }
            session
        });
        let (looks, sequencer) = (session.node(), session.sequencer());
        drop(session);
        runtime.block_on(async {
            while log.state().is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(log.state(), Err(LogError::Closed));
            assert!(looks.status().borrow().stopped.is_some());
            assert!(sequencer.propose(&1).await.is_err());
        });
    }
}

/// A log on a disk that stops answering: nothing is ever on stable storage any more.
#[derive(Clone)]
struct Stuck {
    inner: MemoryLog,
    stuck: Arc<std::sync::atomic::AtomicBool>,
    /// Calls that will never be answered.
    unanswered: Arc<std::sync::Mutex<Vec<AppendDone>>>,
}

impl Stuck {
    fn new() -> Self {
        Self {
            inner: MemoryLog::new(),
            stuck: Arc::default(),
            unanswered: Arc::default(),
        }
    }

    fn is_stuck(&self) -> bool {
        self.stuck.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn unless_stuck(
        &self,
        done: BoxFuture<'static, Result<(), LogError>>,
    ) -> BoxFuture<'static, Result<(), LogError>> {
        if self.is_stuck() {
            return future::pending().boxed();
        }
        done
    }
}

impl LogStore for Stuck {
    fn state(&self) -> Result<LogState, LogError> {
        self.inner.state()
    }

    fn read(&self, from: u64, to: u64) -> Result<Vec<Record>, LogError> {
        self.inner.read(from, to)
    }

    fn append(&self, records: Vec<Record>, done: AppendDone) -> Result<(), LogError> {
        if self.is_stuck() {
            self.unanswered.lock().unwrap().push(done);
            return self.inner.append(records, Box::new(|_| ()));
        }
        self.inner.append(records, done)
    }

    fn truncate_after(&self, last: Option<u64>) -> BoxFuture<'static, Result<(), LogError>> {
        self.unless_stuck(self.inner.truncate_after(last))
    }

    fn purge(&self, through: Position) -> BoxFuture<'static, Result<(), LogError>> {
        self.unless_stuck(self.inner.purge(through))
    }

    fn save_identity(&self, identity: Bytes) -> BoxFuture<'static, Result<(), LogError>> {
        self.unless_stuck(self.inner.save_identity(identity))
    }

    fn save_vote(&self, vote: Bytes) -> BoxFuture<'static, Result<(), LogError>> {
        self.unless_stuck(self.inner.save_vote(vote))
    }

    fn save_snapshot(&self, snapshot: StoredSnapshot) -> BoxFuture<'static, Result<(), LogError>> {
        self.unless_stuck(self.inner.save_snapshot(snapshot))
    }

    fn load_snapshot(&self) -> BoxFuture<'static, Result<Option<StoredSnapshot>, LogError>> {
        self.inner.load_snapshot()
    }

    fn stats(&self) -> LogStats {
        self.inner.stats()
    }

    fn close(&self) -> BoxFuture<'static, Result<(), LogError>> {
        self.unless_stuck(self.inner.close())
    }
}

#[tokio::test(start_paused = true)]
async fn leaving_and_closing_end_though_the_disk_never_answers_again() {
    let net = MemoryFabric::new();
    let [ann, bob] = ["ann", "bob"].map(|name| machine(&net, name));
    let log = Stuck::new();
    let anns = SessionConfig {
        log: Arc::new(log.clone()),
        ..config(1)
    };
    let (host, player) = tokio::join!(
        game_host(port(&ann), sum(), hosting(2), anns),
        game_join(port(&bob), sum(), joining(), config(2)),
    );
    let (host, player) = (host.unwrap(), player.unwrap());
    host.sequencer().propose(&1).await.unwrap();
    log.stuck.store(true, std::sync::atomic::Ordering::Relaxed);
    let begun = tokio::time::Instant::now();
    let ended = tokio::time::timeout(
        Duration::from_secs(3600),
        host.leave(Duration::from_secs(2)),
    );
    assert!(ended.await.is_ok(), "it waits for the disk");
    assert!(begun.elapsed() <= Duration::from_secs(12));
    // The game's name is free again, whatever the disk does.
    host.close().await;
    drop(port(&ann));
    player.close().await;
}

#[tokio::test(start_paused = true)]
async fn who_stops_leaving_half_way_is_in_the_game_again_whenever_it_stops() {
    // After so many milliseconds: before it said anything, while it waits to be out, and after.
    for after in [0, 1, 5, 20, 50, 100, 200, 300] {
        let net = MemoryFabric::new();
        let [ann, bob, cyd] = ["ann", "bob", "cyd"].map(|name| machine(&net, name));
        let (host, leaver, other) = tokio::join!(
            game_host(port(&ann), sum(), hosting(3), config(1)),
            game_join(port(&bob), sum(), joining(), config(2)),
            game_join(port(&cyd), sum(), joining(), config(3))
        );
        let (host, leaver, _other) = (host.unwrap(), leaver.unwrap(), other.unwrap());
        leaver.sequencer().propose(&1).await.unwrap();
        let left = leaver.leave(Duration::from_secs(5));
        let stopped = tokio::time::timeout(Duration::from_millis(after), left).await;
        if stopped.is_ok() {
            assert!(after > 5, "it takes longer than {after} ms");
            continue;
        }
        // Long enough to be put out, and to ask for the place again.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let me = leaver.node().id().clone();
        let back = || host.node().voters().contains(&me);
        common::until("it is back", || {
            back() && leaver.refused().borrow().is_none()
        })
        .await;
        let seated = leaver.sequencer().propose(&1).await;
        assert!(seated.is_ok(), "after {after} ms: {seated:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_left_is_not_seated_again_by_a_new_leader_that_heard_it_knock_before() {
    let net = MemoryFabric::new();
    let [ann, bob, cyd] = ["ann", "bob", "cyd"].map(|name| machine(&net, name));
    let (host, bob_joins, heir) = tokio::join!(
        game_host(port(&ann), sum(), hosting(3), config(1)),
        game_join(port(&bob), sum(), joining(), config(2)),
        game_join(port(&cyd), sum(), joining(), config(3))
    );
    let (host, leaver, heir) = (host.unwrap(), bob_joins.unwrap(), heir.unwrap());
    // Bob is connected as before; all of this takes less than an announcement counts.
    let begun = tokio::time::Instant::now();
    assert!(leaver.leave(Duration::from_secs(1)).await);
    let to = heir.node().id().clone();
    assert_eq!(
        host.node().transfer(&to, Duration::from_secs(1)).await,
        Ok(())
    );
    assert!(begun.elapsed() < Duration::from_secs(1), "virtual time");
    for _ in 0..300 {
        let seats = heir.seats();
        let seated = seats.players().any(|node| node.peer == peer("bob"));
        assert!(!seated, "{:?} after it left", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(heir.node().voters().len(), 2);
}
