//! What a turn costs, counted: messages, syncs, and who waits for whose disk. How long it takes is
//! for `cargo xtask bench turns`.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::config::Timing;
use cabinet_consensus::fabric::{MemoryFabric, MemoryPeer};
use cabinet_consensus::game::Blueprint;
use cabinet_consensus::log::durable::disk::{Disk, DiskFile, DiskLock};
use cabinet_consensus::log::durable::{Driver, DurableOptions, FileDisk};
use cabinet_consensus::log::{DurableLog, LogStore, MemoryLog};
use cabinet_consensus::raft::Role;
use cabinet_consensus::session::{
    AdmissionTiming, GameSession, SessionConfig, TokioClock, game_node,
};
use cabinet_consensus::watch::{self, Watch};
use common::{NAMES, Sum, port_of, roster};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};

/// Beyond what any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Node {
    peer: Arc<MemoryPeer>,
    log: Arc<dyn LogStore>,
    session: GameSession<Sum>,
}

async fn three(logs: [Arc<dyn LogStore>; 3], timing: Timing) -> Vec<Node> {
    let net = MemoryFabric::new();
    let mut nodes = Vec::new();
    for (nonce, (peer, log)) in (1..).zip(NAMES.into_iter().zip(logs)) {
        let peer = net.join(common::peer(peer)).unwrap();
        let port = port_of(&peer, "count");
        let config = SessionConfig {
            timing,
            log: log.clone(),
            admission: AdmissionTiming {
                alive_within: timing.heartbeat() * 3,
                admit_within: timing.heartbeat() * 6,
                ..AdmissionTiming::default()
            },
            ..SessionConfig::new(Arc::new(TokioClock::default()), nonce)
        };
        let blueprint = Blueprint::new(Sum::default);
        let session = game_node(port, blueprint, roster(), config);
        nodes.push(Node {
            peer,
            log,
            session: session.await.unwrap(),
        });
    }
    // Everybody's client has its session: what is counted later are turns.
    for node in &nodes {
        let mut status = node.session.node().status();
        let led = status.wait_for(|status| status.leader.is_some());
        tokio::time::timeout(PATIENCE, led).await.unwrap().unwrap();
        node.session.sequencer().propose(&0).await.unwrap();
    }
    nodes
}

fn leader(nodes: &[Node]) -> usize {
    let leads = |node: &Node| node.session.node().status().get().role == Role::Leader;
    nodes.iter().position(leads).unwrap()
}

fn messages(nodes: &[Node]) -> u64 {
    let delivered = |node: &Node| node.peer.stats().raft.delivered;
    nodes.iter().map(delivered).sum()
}

fn syncs(nodes: &[Node]) -> u64 {
    nodes.iter().map(|node| node.log.stats().syncs).sum()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(in_time.is_ok(), "not in time: {what}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_turn_costs_at_most_four_messages_per_follower() {
    // Heartbeats are so rare that none falls between one and the next turn.
    let timing = Timing {
        election_min_ms: 20_000,
        election_max_ms: 40_000,
        heartbeat_ms: 10_000,
    };
    let memory = || Arc::new(MemoryLog::new()) as Arc<dyn LogStore>;
    let nodes = three([memory(), memory(), memory()], timing).await;
    let leader = leader(&nodes);
    let others = nodes.len() as u64 - 1;
    for (n, node) in nodes.iter().enumerate() {
        let quiet = messages(&nodes);
        while messages(&nodes) == quiet {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = messages(&nodes);
        node.session.sequencer().propose(&1).await.unwrap();
        // What follows the verdict is the turn's as well.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let cost = messages(&nodes) - before;
        // A follower asks the leader, and is answered.
        let asked = if n == leader { 0 } else { 2 };
        assert!(cost > 0, "nothing was sent for a turn of {}", NAMES[n]);
        assert!(
            cost <= 4 * others + asked,
            "{cost} messages for a turn of {}",
            NAMES[n]
        );
    }
    for node in &nodes {
        node.session.close().await;
    }
}

#[tokio::test]
async fn under_load_a_turn_costs_less_than_a_message_and_less_than_a_sync() {
    const TURNS: usize = 512;
    let dir = tempfile::tempdir().unwrap();
    let mut logs = Vec::new();
    for name in NAMES {
        let disk = Arc::new(FileDisk::new(dir.path().join(name)));
        let log = DurableLog::open(disk, DurableOptions::default(), Driver::Thread).await;
        logs.push(Arc::new(log.unwrap()) as Arc<dyn LogStore>);
    }
    let nodes = three(logs.try_into().ok().unwrap(), Timing::default()).await;
    let sequencer = nodes[leader(&nodes)].session.sequencer();
    let (sent, synced) = (messages(&nodes), syncs(&nodes));
    let decided = join_all((0..TURNS).map(|_| sequencer.propose(&1))).await;
    let (sent, synced) = (messages(&nodes) - sent, syncs(&nodes) - synced);
    assert!(decided.into_iter().all(|turn| turn.unwrap().is_accepted()));
    assert!(sent < TURNS as u64, "{sent} messages for {TURNS} turns");
    assert!(
        synced < TURNS as u64,
        "{synced} syncs of three nodes for {TURNS} turns"
    );
    for node in &nodes {
        node.session.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_followers_turns_share_messages_when_many_are_under_way_and_one_alone_has_its_own() {
    const CLIENTS: u64 = 64;
    const ROUNDS: u64 = 20;
    let timing = Timing {
        election_min_ms: 20_000,
        election_max_ms: 40_000,
        heartbeat_ms: 10_000,
    };
    let memory = || Arc::new(MemoryLog::new()) as Arc<dyn LogStore>;
    let nodes = three([memory(), memory(), memory()], timing).await;
    let follower = (leader(&nodes) + 1) % nodes.len();
    let sequencer = nodes[follower].session.sequencer();
    let before = messages(&nodes);
    let client = async || {
        for _ in 0..ROUNDS {
            assert!(sequencer.propose(&1).await.unwrap().is_accepted());
        }
    };
    join_all((0..CLIENTS).map(|_| client())).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (sent, turns) = (messages(&nodes) - before, CLIENTS * ROUNDS);
    // One after the other each would cost two between follower and leader alone.
    assert!(sent < turns / 2, "{sent} messages for {turns} turns");
    for node in &nodes {
        node.session.close().await;
    }
}

/// A disk whose syncs wait while its gate is shut.
struct Gated {
    disk: FileDisk,
    open: Watch<bool>,
}

struct GatedFile {
    file: Box<dyn DiskFile>,
    open: Watch<bool>,
}

impl DiskFile for GatedFile {
    fn append<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        self.file.append(bytes)
    }

    fn cut(&mut self, len: u64) -> BoxFuture<'_, io::Result<()>> {
        self.file.cut(len)
    }

    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>> {
        async {
            // A test that is over opens every gate.
            let _ = self.open.wait_for(|open| *open).await;
            self.file.sync().await
        }
        .boxed()
    }
}

impl Disk for Gated {
    fn name(&self) -> String {
        self.disk.name()
    }

    fn lock(&self) -> BoxFuture<'_, io::Result<Option<Box<dyn DiskLock>>>> {
        self.disk.lock()
    }

    fn list(&self) -> BoxFuture<'_, io::Result<BTreeSet<String>>> {
        self.disk.list()
    }

    fn read<'a>(&'a self, name: &'a str, bytes_max: u64) -> BoxFuture<'a, io::Result<Vec<u8>>> {
        self.disk.read(name, bytes_max)
    }

    fn create<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Box<dyn DiskFile>>> {
        self.gate(self.disk.create(name))
    }

    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Box<dyn DiskFile>>> {
        self.gate(self.disk.open(name))
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, io::Result<()>> {
        self.disk.rename(from, to)
    }

    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<()>> {
        self.disk.remove(name)
    }

    fn sync_directory(&self) -> BoxFuture<'_, io::Result<()>> {
        self.disk.sync_directory()
    }
}

impl Gated {
    fn gate<'a>(
        &'a self,
        file: BoxFuture<'a, io::Result<Box<dyn DiskFile>>>,
    ) -> BoxFuture<'a, io::Result<Box<dyn DiskFile>>> {
        async {
            let open = self.open.clone();
            Ok(Box::new(GatedFile {
                file: file.await?,
                open,
            }) as Box<dyn DiskFile>)
        }
        .boxed()
    }
}

#[tokio::test]
async fn the_followers_keep_a_turn_while_the_leaders_own_sync_is_still_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let mut gates = Vec::new();
    let mut logs = Vec::new();
    for name in NAMES {
        let (gate, open) = watch::channel(true);
        let disk = FileDisk::new(dir.path().join(name));
        let disk = Arc::new(Gated { disk, open });
        let log = DurableLog::open(disk, DurableOptions::default(), Driver::Thread).await;
        logs.push(Arc::new(log.unwrap()) as Arc<dyn LogStore>);
        gates.push(gate);
    }
    // Slow to elect another leader: a busy machine must not look like a dead one.
    let timing = Timing {
        election_min_ms: 5_000,
        election_max_ms: 10_000,
        heartbeat_ms: 100,
    };
    let nodes = three(logs.try_into().ok().unwrap(), timing).await;
    let leader = leader(&nodes);
    // Nothing of before is still being written.
    tokio::time::sleep(Duration::from_millis(200)).await;

    gates[leader].set(false);
    let before: Vec<_> = nodes.iter().map(|node| node.log.stats()).collect();
    let sequencer = nodes[leader].session.sequencer();
    let turn = tokio::spawn(async move { sequencer.propose(&1).await });
    until("the followers keep the turn", || {
        nodes
            .iter()
            .zip(&before)
            .enumerate()
            .all(|(n, (node, before))| {
                let now = node.log.stats();
                n == leader || (now.records > before.records && now.syncs > before.syncs)
            })
    })
    .await;
    assert_eq!(nodes[leader].log.stats().syncs, before[leader].syncs);
    gates[leader].set(true);
    let turn = tokio::time::timeout(PATIENCE, turn).await;
    assert!(turn.unwrap().unwrap().unwrap().is_accepted());
    for node in &nodes {
        node.session.close().await;
    }
}
