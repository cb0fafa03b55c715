//! Snapshots that are larger than their receiver takes: both ends know, nobody is flooded, and a
//! higher limit mends it.

use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::config::{Compaction, Timing};
use cabinet_consensus::fabric::{MemoryFabric, MemoryPeer, Port};
use cabinet_consensus::game::{Blueprint, Game, Malformed, Snapshots, TurnInfo};
use cabinet_consensus::ids::{GameId, Incarnation, PeerId};
use cabinet_consensus::log::MemoryLog;
use cabinet_consensus::raft::SnapshotTooLarge;
use cabinet_consensus::session::{
    GameSession, HostOptions, JoinError, JoinOptions, ReturnPolicy, SessionConfig, TokioClock,
    Waiting, game_host, game_join, game_node, game_spectate,
};

/// Large, and of the same size whatever happens.
#[derive(Clone)]
struct Large(Vec<u8>);

impl Game for Large {
    type Action = u64;
    type Outcome = ();
    type Refusal = ();

    fn apply(&mut self, _: &TurnInfo, byte: &u64) -> Result<(), ()> {
        self.0.fill(*byte as u8);
        Ok(())
    }
}

impl Snapshots for Large {
    fn snapshot(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Malformed> {
        Ok(Self(bytes.to_vec()))
    }
}

const STATE_BYTES: usize = 200_000;

fn large() -> Blueprint<Large> {
    Blueprint::with_snapshots(|| Large(vec![0; STATE_BYTES]))
}

fn config(nonce: u64, snapshot_bytes_max: usize) -> SessionConfig {
    let mut config = SessionConfig::new(Arc::new(TokioClock::default()), nonce);
    config.timing = Timing::fast();
    config.limits.snapshot_bytes_max = snapshot_bytes_max;
    config.limits.snapshot_chunk_bytes = 50_000;
    config.limits.log_kept_after_snapshot = 1;
    config.compaction = Some(Compaction {
        entries: 20,
        bytes: 1 << 30,
        age: Duration::from_secs(86_400),
    });
    config
}

fn machine(net: &MemoryFabric, name: &str) -> Arc<MemoryPeer> {
    net.join(PeerId::new(name).unwrap()).unwrap()
}

fn port(at: &Arc<MemoryPeer>) -> Port {
    Port::open(at.clone(), GameId::new("large").unwrap()).unwrap()
}

async fn until(what: &str, mut met: impl FnMut() -> bool) {
    for _ in 0..100_000 {
        if met() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{what}: not in a hundred seconds");
}

fn refused(session: &GameSession<Large>) -> Option<SnapshotTooLarge> {
    let status = session.node().status().get();
    status.snapshots_refused.values().next().copied()
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_over_its_receivers_limit_is_told_on_both_ends_and_not_sent_without_end() {
    let net = MemoryFabric::new();
    let [ann, bob, cyd] = ["ann", "bob", "cyd"].map(|name| machine(&net, name));
    let roster = || {
        ["ann", "bob", "cyd"]
            .map(|n| PeerId::new(n).unwrap())
            .into()
    };
    let open = |at: &Arc<MemoryPeer>, config| game_node(port(at), large(), roster(), config);
    let others = [
        open(&ann, config(1, 1 << 20)).await.unwrap(),
        open(&bob, config(2, 1 << 20)).await.unwrap(),
    ];
    for n in 0..60 {
        others[0].sequencer().propose(&n).await.unwrap();
    }
    until("both have forgotten the beginning", || {
        others.iter().all(|s| s.node().numbers().purged.is_some())
    })
    .await;

    let log = MemoryLog::new();
    let cyds = |nonce, max| SessionConfig {
        log: Arc::new(log.clone()),
        ..config(nonce, max)
    };
    let behind = open(&cyd, cyds(3, 1000)).await.unwrap();
    let leads = || others.iter().find(|s| refused(s).is_some());
    until("both ends know", || {
        leads().is_some() && refused(&behind).is_some()
    })
    .await;
    let told = refused(&behind).unwrap();
    let state = behind.node().state(Duration::from_secs(3600));
    assert!(
        matches!(&state.waiting, Waiting::ForSnapshot { from, too_large }
            if Some(from) == state.leader.as_ref() && *too_large == told),
        "{state:?}"
    );
    let goes_on = leads().unwrap().node().waiting(Duration::from_secs(3600));
    assert_eq!(goes_on, Waiting::No, "the others do not wait for it");
    assert_eq!(leads().and_then(refused), Some(told));
    assert!(
        told.max == 1000 && told.bytes > STATE_BYTES as u64,
        "{told:?}"
    );
    // A minute: empty pieces, ever more rarely. Sent again and again, it would be 50 MB.
    let before = cyd.stats().raft.bytes;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let heartbeats = 60_000 / 10 * 200;
    let came = cyd.stats().raft.bytes - before;
    assert!(came < heartbeats + 10 * STATE_BYTES as u64, "{came} bytes");
    assert!(
        others[0]
            .sequencer()
            .propose(&1)
            .await
            .unwrap()
            .is_accepted()
    );

    // One byte short it is refused still; with what it has it is taken, and the game caught up.
    behind.close().await;
    log.reopen();
    let behind = open(&cyd, cyds(4, told.bytes as usize - 1)).await.unwrap();
    until("it is refused again", || refused(&behind).is_some()).await;
    assert_eq!(refused(&behind).map(|told| told.max), Some(told.bytes - 1));
    behind.close().await;
    log.reopen();
    let behind = open(&cyd, cyds(5, told.bytes as usize)).await.unwrap();
    let within = Duration::from_secs(120);
    behind.sequencer().read_barrier(within).await.unwrap();
    assert_eq!(refused(&behind), None);
    let waiting = behind.node().waiting(Duration::from_secs(3600));
    assert_eq!(waiting, Waiting::No);
    until("the leader knows", || leads().is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_joiner_that_cannot_take_the_state_is_told_so() {
    let net = MemoryFabric::new();
    let [ann, bob] = ["ann", "bob"].map(|name| machine(&net, name));
    let options = HostOptions {
        return_at: ReturnPolicy::Quorum,
        claim_wait: Duration::from_millis(100),
        spectators_max: 1,
        ..HostOptions::new(1, Incarnation(1))
    };
    let host = game_host(port(&ann), large(), options, config(1, 1 << 20)).await;
    let host = host.unwrap();
    for n in 0..60 {
        host.sequencer().propose(&n).await.unwrap();
    }
    until("the beginning is forgotten", || {
        host.node().numbers().purged.is_some()
    })
    .await;
    let joining = |life| JoinOptions::new(Incarnation(life));
    let small = game_spectate(port(&bob), large(), joining(1), config(2, 1000)).await;
    let Err(JoinError::SnapshotTooLarge { bytes, max: 1000 }) = small else {
        panic!("unexpected {small:?}");
    };
    assert!(bytes > STATE_BYTES as u64);
    let enough = game_spectate(port(&bob), large(), joining(2), config(3, 1 << 20)).await;
    assert!(enough.is_ok(), "{enough:?}");
    let none_free = game_join(
        port(&machine(&net, "cyd")),
        large(),
        joining(1),
        config(4, 1),
    )
    .await;
    assert_eq!(none_free.err(), Some(JoinError::RosterFull));
}
