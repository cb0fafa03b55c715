//! What a game remembers, says and promises at its limits and past them, in one process.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::config::{Compaction, ConfigError, Timing};
use cabinet_consensus::fabric::{MemoryFabric, MemoryPeer};
use cabinet_consensus::game::{Blueprint, Game, Malformed, Snapshots, TurnInfo};
use cabinet_consensus::log::durable::sim_disk::SimDisk;
use cabinet_consensus::log::durable::{Driver, DurableOptions};
use cabinet_consensus::log::{DurableLog, LogStore};
use cabinet_consensus::raft::Role;
use cabinet_consensus::session::{
    GameSession, OpenError, SessionConfig, TokioClock, Waiting, game_node,
};
use cabinet_consensus::turns::{
    Proposal, ProposeError, ReadError, Ruling, Speculation, Standing, TurnError, TurnEvent,
};
use common::{NAMES, peer, port_of};

/// Counts actions, and says as many bytes as each asks for.
#[derive(Clone, Default, Debug, PartialEq)]
struct Talk {
    actions: u64,
}

impl Game for Talk {
    type Action = u64;
    type Outcome = Vec<u8>;
    type Refusal = ();

    fn apply(&mut self, _: &TurnInfo, says: &u64) -> Result<Vec<u8>, ()> {
        self.actions += 1;
        Ok(vec![7; usize::try_from(*says).unwrap()])
    }
}

impl Snapshots for Talk {
    fn snapshot(&self) -> Vec<u8> {
        self.actions.to_le_bytes().to_vec()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Malformed> {
        let actions = bytes.try_into().map_err(|_| Malformed)?;
        Ok(Self {
            actions: u64::from_le_bytes(actions),
        })
    }
}

struct Table {
    net: MemoryFabric,
    nodes: Vec<(Arc<MemoryPeer>, GameSession<Talk>)>,
}

impl Table {
    async fn of(names: &[&str], set: impl Fn(&mut SessionConfig)) -> Self {
        let net = MemoryFabric::new();
        let roster: BTreeSet<_> = names.iter().map(|name| peer(name)).collect();
        let mut nodes = Vec::new();
        for (n, name) in names.iter().enumerate() {
            let at = net.join(peer(name)).unwrap();
            let port = port_of(&at, "talk");
            let mut config = SessionConfig::new(Arc::new(TokioClock::default()), n as u64);
            config.timing = Timing::fast();
            set(&mut config);
            let blueprint = Blueprint::with_snapshots(Talk::default);
            let opening = game_node(port, blueprint, roster.clone(), config);
            nodes.push((at, opening.await.unwrap()));
        }
        Self { net, nodes }
    }

    fn role(&self, n: usize) -> Role {
        self.nodes[n].1.node().status().get().role
    }

    async fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        for _ in 0..20_000 {
            if is_so() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("not in twenty seconds: {what}");
    }

    async fn leader(&self) -> usize {
        let led = || (0..self.nodes.len()).find(|n| self.role(*n) == Role::Leader);
        self.until("somebody leads", || led().is_some()).await;
        led().unwrap()
    }

    fn isolate(&self, n: usize) {
        for name in NAMES.iter().filter(|name| **name != NAMES[n]) {
            self.net.cut(&peer(NAMES[n]), &peer(name));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_reaches_nobody_is_no_leader_to_who_looks_before_another_is_one() {
    let table = Table::of(&NAMES, |_| {}).await;
    let old = table.leader().await;
    let node = table.nodes[old].1.node();
    let lease = Timing::fast().election_max();
    table.nodes[old].1.sequencer().propose(&1).await.unwrap();
    assert_eq!(node.waiting(lease), Waiting::No);
    table.isolate(old);
    let mut led_alone = 0;
    let others: Vec<_> = (0..3).filter(|n| *n != old).collect();
    table
        .until("another leads", || {
            let another = others.iter().any(|n| table.role(*n) == Role::Leader);
            let role = table.role(old);
            assert!(role.leads(), "nobody told it");
            if role == Role::Leader {
                led_alone += 1;
                assert!(!another, "two nodes say they lead");
            }
            another
        })
        .await;
    assert!(led_alone > 0, "it led when it was cut off");
    assert_eq!(table.role(old), Role::StaleLeader);
    let Waiting::ForVoters { reachable, of, .. } = node.waiting(lease) else {
        panic!("{:?}", node.waiting(lease));
    };
    assert_eq!((reachable, of), (1, 3));
    table.net.heal();
    table
        .until("it follows", || table.role(old) == Role::Follower)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_stays_one_in_a_quiet_game_alone_or_with_others() {
    for names in [&NAMES[..1], &NAMES[..]] {
        let table = Table::of(names, |_| {}).await;
        let leader = table.leader().await;
        for _ in 0..2000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert_eq!(table.role(leader), Role::Leader, "of {}", names.len());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_sees_every_acknowledged_turn_and_a_node_cut_off_only_what_was() {
    let table = Table::of(&NAMES, |_| {}).await;
    let leader = table.leader().await;
    let (far, near) = ((leader + 1) % 3, (leader + 2) % 3);
    for n in 1..=20 {
        let told = table.nodes[leader].1.sequencer().propose(&0).await.unwrap();
        let sequencer = table.nodes[n % 3].1.sequencer();
        let (actions, index, turn) = sequencer
            .read(|seen| (seen.game.actions, seen.index, seen.turn))
            .await
            .unwrap();
        assert_eq!((actions, turn), (n as u64, n as u64));
        assert!(index >= told.index);
    }
    table.isolate(far);
    table.nodes[near].1.sequencer().propose(&0).await.unwrap();
    let cut_off = table.nodes[far].1.sequencer();
    let mut called = false;
    let read = cut_off
        .read_within(Duration::from_secs(1), |_| called = true)
        .await;
    assert_eq!((read, called), (Err(ReadError::NoQuorum), false));
    assert_eq!(cut_off.read_local(|seen| seen.game.actions), 20);
    table.net.heal();
    let turn = cut_off.read(|seen| seen.turn).await.unwrap();
    assert_eq!(turn, 21);
    // What was seen fences what is proposed from it.
    let only_now = |expected_turn| Proposal {
        expected_turn: Some(expected_turn),
        ..Proposal::default()
    };
    let now = cut_off.propose_with(&0, only_now(turn)).await.unwrap();
    let late = cut_off.propose_with(&0, only_now(turn)).await.unwrap();
    assert_eq!((now.is_accepted(), late.ruling), (true, Ruling::Fenced));
    table.nodes[far].1.close().await;
    let closed = cut_off.read(|seen| seen.turn).await;
    assert_eq!(closed, Err(ReadError::Closed));
    assert!(cut_off.read_local(|seen| seen.turn) >= 21);
}

#[tokio::test(start_paused = true)]
async fn a_serial_of_a_session_that_ended_is_forgotten_not_played_again_and_the_next_one_is() {
    let table = Table::of(&NAMES, |config| {
        config.client_ttl = config.timing.election_max() * 10;
    })
    .await;
    let ann = table.nodes[0].1.sequencer();
    let first = ann.propose_with_id(7, &1).await.unwrap();
    assert!(first.is_accepted());
    // Nobody acts; the leader's ticks move the clock.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..3 {
        let again = ann.propose_with_id(7, &1).await;
        assert_eq!(
            again.map(|_| ()),
            Err(TurnError::Propose(ProposeError::Forgotten { serial: 7 }))
        );
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Two at once find the session ended, and both go on in the new one.
    let (one, two) = tokio::join!(ann.propose(&1), ann.propose(&1));
    let mut serials = [one.unwrap(), two.unwrap()].map(|d| (d.is_accepted(), d.key.serial));
    serials.sort_unstable();
    assert_eq!(serials, [(true, 8), (true, 9)]);
    assert_eq!(ann.read(|seen| seen.game.actions).await, Ok(3));
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_the_most_bytes_is_told_and_one_byte_more_is_withheld_and_still_played() {
    let table = Table::of(&NAMES, |config| config.limits.outcome_bytes_max = 1000).await;
    let ann = table.nodes[0].1.sequencer();
    let mut events = table.nodes[1].1.sequencer().events_from(1);
    let most = ann.propose(&1000).await.unwrap();
    assert_eq!(most.ruling, Ruling::Accepted(vec![7; 1000]));
    let withheld = Ruling::Withheld {
        accepted: true,
        bytes: 1001,
    };
    let more = ann.propose(&1001).await.unwrap();
    assert!(more.is_accepted());
    assert_eq!(more.ruling, withheld);
    let again = ann.propose_with_id(more.key.serial, &1001).await.unwrap();
    assert_eq!((again.index, again.ruling), (more.index, withheld.clone()));
    // Who folds the events comes to the same state.
    let mut view = Speculation::new(None, Talk::default(), Standing::default(), 1);
    let mut rulings = Vec::new();
    while rulings.len() < 2 {
        let event = events.next().await.unwrap();
        view.on_event(&event);
        if let TurnEvent::Committed(action) = event {
            rulings.push(action.ruling);
        }
    }
    assert_eq!(rulings, [Ruling::Accepted(vec![7; 1000]), withheld]);
    assert_eq!(view.authoritative_state().actions, 2);
    assert_eq!(view.standing().turn, 2);
    assert_eq!(ann.read(|seen| seen.game.actions).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_state_too_large_for_a_snapshot_keeps_its_log_says_so_and_plays_on() {
    for (bytes_max, fits) in [(64 << 20, true), (10, false)] {
        let table = Table::of(&NAMES, |config| {
            config.limits.snapshot_bytes_max = bytes_max;
            config.limits.log_kept_after_snapshot = 0;
            config.compaction = Some(Compaction {
                entries: 10,
                bytes: 1 << 30,
                age: Duration::from_secs(3600),
            });
        })
        .await;
        let ann = table.nodes[0].1.sequencer();
        for _ in 0..50 {
            assert!(ann.propose(&1).await.unwrap().is_accepted());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (_, session) in &table.nodes {
            let numbers = session.node().numbers();
            assert_eq!(numbers.snapshot_too_large.is_none(), fits, "{numbers:?}");
            assert_eq!(numbers.snapshot.is_some(), fits, "{numbers:?}");
            assert_eq!(numbers.purged.is_some(), fits, "{numbers:?}");
            assert_eq!(session.node().status().get().stopped, None);
        }
        assert!(ann.propose(&1).await.unwrap().is_accepted());
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_takes_a_smaller_snapshot_than_its_node_is_refused_before_the_session_opens() {
    let net = MemoryFabric::new();
    for (log_max, taken) in [(999, false), (1000, true)] {
        let options = DurableOptions {
            snapshot_bytes_max: log_max,
            ..DurableOptions::default()
        };
        let log = DurableLog::open(SimDisk::new().attach(), options, Driver::Task).await;
        let log: Arc<dyn LogStore> = Arc::new(log.unwrap());
        let mut config = SessionConfig::new(Arc::new(TokioClock::default()), 1);
        config.limits.snapshot_bytes_max = 1000;
        config.log = log.clone();
        let at = net.join(peer("ann")).unwrap();
        let port = port_of(&at, "talk");
        let blueprint = Blueprint::with_snapshots(Talk::default);
        let opened = game_node(port, blueprint, [peer("ann")].into(), config).await;
        let refused = ConfigError::LogTakesLess { log_max, max: 1000 };
        match opened {
            Ok(_) => assert!(taken),
            Err(error) => assert!(!taken && error == OpenError::Config(refused), "{error}"),
        }
        assert_eq!(log.state().unwrap().has_begun(), taken);
    }
}
