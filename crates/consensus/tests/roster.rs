//! A game whose players are all known, in one process: turns, their order, fail-over, reads.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::config::{Compaction, ConfigError};
use cabinet_consensus::fabric::{MemoryFabric, MemoryPeer, Port};
use cabinet_consensus::game::{Blueprint, Game, Malformed, Snapshots, TurnInfo};
use cabinet_consensus::ids::{ClientId, GameId};
use cabinet_consensus::log::MemoryLog;
use cabinet_consensus::session::{
    GameSession, Identity, OpenError, SessionConfig, Waiting, game_node,
};
use cabinet_consensus::turns::{Proposal, ProposeError, Ruling, TurnError, TurnEvent};
use common::{NAMES, fast as config, leader, peer, roster, three};

/// Players add numbers below 100; a turn that takes over 200 ms adds 1000.
#[derive(Clone, Default, Debug, PartialEq)]
struct Sum {
    total: u64,
    timed: bool,
}

impl Game for Sum {
    type Action = u64;
    type Outcome = u64;
    type Refusal = String;

    fn apply(&mut self, _: &TurnInfo, add: &u64) -> Result<u64, String> {
        if *add >= 100 {
            return Err(format!("{add} is too much"));
        }
        self.total += add;
        Ok(self.total)
    }

    fn time_limit(&self) -> Option<Duration> {
        self.timed.then_some(Duration::from_millis(200))
    }

    fn time_out(&mut self, _: &TurnInfo) {
        self.total += 1000;
        self.timed = false;
    }
}

impl Snapshots for Sum {
    fn snapshot(&self) -> Vec<u8> {
        [&self.total.to_le_bytes()[..], &[u8::from(self.timed)]].concat()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Malformed> {
        let (total, timed) = bytes.split_at_checked(8).ok_or(Malformed)?;
        Ok(Self {
            total: u64::from_le_bytes(total.try_into().map_err(|_| Malformed)?),
            timed: timed == [1],
        })
    }
}

fn counted() -> Blueprint<Sum> {
    Blueprint::with_snapshots(Sum::default)
}

async fn node(at: &Arc<MemoryPeer>, config: SessionConfig) -> GameSession<Sum> {
    node_of(at, config, Sum::default()).await
}

async fn node_of(at: &Arc<MemoryPeer>, config: SessionConfig, first: Sum) -> GameSession<Sum> {
    let port = Port::open(at.clone(), GameId::new("sum").unwrap()).unwrap();
    let blueprint = Blueprint::with_snapshots(move || first.clone());
    game_node(port, blueprint, roster(), config).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_node_proposes_and_every_node_sees_the_same_turns_in_the_same_order() {
    let net = MemoryFabric::new();
    let nodes = three(&net, "sum", counted(), config).await;
    let mut readers: Vec<_> = nodes
        .iter()
        .map(|(_, s)| s.sequencer().events_from(1))
        .collect();
    let mut decided = Vec::new();
    for round in 0..5 {
        for (_, session) in &nodes {
            let decision = session.sequencer().propose(&round).await.unwrap();
            assert!(decision.is_accepted());
            decided.push((decision.index, decision.key.clone()));
        }
    }
    let refused = nodes[1].1.sequencer().propose(&100).await.unwrap();
    assert_eq!(
        refused.ruling,
        Ruling::Refused("100 is too much".to_owned())
    );
    decided.push((refused.index, refused.key));
    assert!(decided.is_sorted_by_key(|(index, _)| *index));
    for reader in &mut readers {
        let mut seen = Vec::new();
        while seen.len() < decided.len() {
            match reader.next().await.unwrap() {
                TurnEvent::Committed(action) => seen.push((action.index, action.key)),
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!(seen, decided);
    }
    for (_, session) in &nodes {
        session.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_game_goes_on_when_its_leader_dies_and_nothing_is_lost_or_doubled() {
    let net = MemoryFabric::new();
    let mut nodes = three(&net, "sum", counted(), config).await;
    let first = leader(&nodes).await;
    let proposer = nodes[(first + 1) % 3].1.sequencer();
    let mut acknowledged = Vec::new();
    for n in 0..10 {
        acknowledged.push(proposer.propose(&n).await.unwrap().key);
    }
    // Ten more are under way while the leader goes.
    let under_way: Vec<_> = (10..20)
        .map(|n| {
            let proposer = proposer.clone();
            tokio::spawn(async move { proposer.propose(&n).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let (dead, session) = nodes.remove(first);
    dead.leave();
    session.close().await;
    for task in under_way {
        acknowledged.push(task.await.unwrap().unwrap().key);
    }
    leader(&nodes).await;
    for (_, session) in &nodes {
        let sequencer = session.sequencer();
        let through = sequencer
            .read_barrier(Duration::from_secs(5))
            .await
            .unwrap();
        let mut events = sequencer.events_from(1);
        let mut seen = Vec::new();
        while seen.len() < acknowledged.len() {
            if let TurnEvent::Committed(action) = events.next().await.unwrap() {
                assert!(action.index <= through);
                seen.push(action.key);
            }
        }
        let mut sorted = seen.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), 20, "each once");
        assert!(acknowledged.iter().all(|key| seen.contains(key)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_game_with_two_of_three_players_plays_and_says_who_is_missing_when_one_more_goes() {
    let net = MemoryFabric::new();
    let mut nodes = three(&net, "sum", counted(), config).await;
    let (gone, session) = nodes.pop().unwrap();
    gone.leave();
    session.close().await;
    assert!(
        nodes[0]
            .1
            .sequencer()
            .propose(&1)
            .await
            .unwrap()
            .is_accepted()
    );
    let at = leader(&nodes).await;
    let (other, session) = nodes.remove(1 - at);
    other.leave();
    session.close().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let alone = nodes[0].1.node();
    match alone.waiting(Duration::from_millis(500)) {
        Waiting::ForVoters {
            reachable,
            of,
            missing,
        } => {
            assert_eq!((reachable, of, missing.len()), (1, 3, 2));
        }
        other => panic!("unexpected {other:?}"),
    }
    let short = Proposal {
        within: Duration::from_millis(300),
        ..Proposal::default()
    };
    let tried = nodes[0].1.sequencer().propose_with(&1, short).await;
    assert!(
        matches!(
            tried,
            Err(TurnError::Propose(
                ProposeError::Unknown { .. } | ProposeError::NotAppended { .. }
            ))
        ),
        "{tried:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_same_id_again_gets_the_first_answer_and_another_turn_is_fenced() {
    let net = MemoryFabric::new();
    let nodes = three(&net, "sum", counted(), config).await;
    let sequencer = nodes[0].1.sequencer();
    let first = sequencer.propose_with_id(7, &5).await.unwrap();
    let again = sequencer.propose_with_id(7, &5).await.unwrap();
    assert_eq!(
        (again.index, again.term, &again.ruling),
        (first.index, first.term, &first.ruling)
    );
    assert_eq!(first.ruling, Ruling::Accepted(5));
    let fenced = Proposal {
        expected_turn: Some(first.turn + 1),
        ..Proposal::default()
    };
    let late = sequencer.propose_with(&1, fenced).await.unwrap();
    assert_eq!(late.ruling, Ruling::Fenced);
    assert_eq!(late.key.serial, 8, "numbers go on after a pinned one");
    let fits = Proposal {
        expected_turn: Some(first.turn),
        ..Proposal::default()
    };
    assert!(
        sequencer
            .propose_with(&1, fits)
            .await
            .unwrap()
            .is_accepted()
    );
}

#[tokio::test(start_paused = true)]
async fn a_durable_client_goes_on_after_its_process_died_and_its_former_self_is_shut_out() {
    let net = MemoryFabric::new();
    let client = ClientId::new("ann's game").unwrap();
    // A process that starts again has its log: without it, it would vote twice.
    let logs: Vec<_> = NAMES.iter().map(|_| MemoryLog::new()).collect();
    let durable = |n: usize, nonce| SessionConfig {
        identity: Identity::Durable(client.clone()),
        log: Arc::new(logs[n].clone()),
        ..config(nonce)
    };
    let at: Vec<_> = NAMES
        .iter()
        .map(|name| net.join(peer(name)).unwrap())
        .collect();
    let before = node(&at[0], durable(0, 50)).await;
    let log: Arc<MemoryLog> = Arc::new(logs[1].clone());
    let bob = node(&at[1], SessionConfig { log, ..config(1) }).await;
    let _cyd = node(&at[2], config(2)).await;
    let first = before.sequencer().propose(&5).await.unwrap();
    before.close().await;
    drop(before);
    logs[0].reopen();
    let after = node(&at[0], durable(0, 51)).await;
    let again = after
        .sequencer()
        .propose_with_id(first.key.serial, &5)
        .await
        .unwrap();
    assert_eq!(again.index, first.index);
    let next = after.sequencer().propose(&6).await.unwrap();
    assert_eq!(next.key.serial, first.key.serial + 1);
    assert_eq!(next.ruling, Ruling::Accepted(11));
    // Somebody else's client id is refused.
    bob.close().await;
    drop(bob);
    logs[1].reopen();
    let thief = node(&at[1], durable(1, 52)).await;
    let stolen = thief.sequencer().propose(&1).await;
    assert_eq!(
        stolen.map(|_| ()),
        Err(TurnError::Propose(ProposeError::IdentityTaken { client }))
    );
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_takes_too_long_times_out_once_on_every_node() {
    let net = MemoryFabric::new();
    let mut nodes = Vec::new();
    for (n, name) in NAMES.iter().enumerate() {
        let at = net.join(peer(name)).unwrap();
        let first = Sum {
            total: 0,
            timed: true,
        };
        nodes.push((at.clone(), node_of(&at, config(n as u64), first).await));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let next = nodes[1].1.sequencer().propose(&1).await.unwrap();
    assert_eq!(
        next.ruling,
        Ruling::Accepted(1001),
        "one timeout, not one per node"
    );
    let mut timed_out = Vec::new();
    for (_, session) in &nodes {
        let mut events = session.sequencer().events_from(1);
        loop {
            match events.next().await.unwrap() {
                TurnEvent::TimedOut { index, turn, .. } => timed_out.push((index, turn)),
                TurnEvent::Committed(action) if action.key == next.key => break,
                other => panic!("unexpected {other:?}"),
            }
        }
    }
    let first = timed_out[0];
    assert_eq!(first.1, 0);
    assert_eq!(timed_out, [first; 3], "the same one on each node");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_fell_behind_is_told_and_reads_the_log_again() {
    let net = MemoryFabric::new();
    let mut nodes = Vec::new();
    for (n, name) in NAMES.iter().enumerate() {
        let at = net.join(peer(name)).unwrap();
        let mut config = config(n as u64);
        config.events.events_max = 10;
        let session = node(&at, config).await;
        nodes.push((at, session));
    }
    let mut slow = nodes[2].1.sequencer().events_from(1);
    let sequencer = nodes[0].1.sequencer();
    for n in 0..400 {
        sequencer.propose(&(n % 100)).await.unwrap();
    }
    nodes[2]
        .1
        .sequencer()
        .read_barrier(Duration::from_secs(5))
        .await
        .unwrap();
    assert!(matches!(
        slow.next().await.unwrap(),
        TurnEvent::Lagged { from: 1, .. }
    ));
    let mut seen = Vec::new();
    while seen.len() < 400 {
        match slow.next().await.unwrap() {
            TurnEvent::Committed(action) => seen.push(action.key.serial),
            TurnEvent::Lagged { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(seen, (1..=400).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_compacted_log_comes_as_a_reset_and_a_node_far_behind_gets_a_snapshot() {
    let net = MemoryFabric::new();
    let compaction = Compaction {
        entries: 50,
        bytes: 1 << 30,
        age: Duration::from_secs(3600),
    };
    let compacting = |nonce| {
        let mut config = config(nonce);
        config.compaction = Some(compaction);
        config.limits.log_kept_after_snapshot = 5;
        config.limits.snapshot_chunk_bytes = 16;
        config
    };
    let mut nodes = Vec::new();
    for (n, name) in NAMES.iter().enumerate().take(2) {
        let at = net.join(peer(name)).unwrap();
        nodes.push((at.clone(), node(&at, compacting(n as u64)).await));
    }
    let sequencer = nodes[0].1.sequencer();
    for n in 0..120 {
        sequencer.propose(&(n % 10)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let purged = nodes[0].1.node().numbers().purged;
    assert!(purged.is_some_and(|index| index > 40), "{purged:?}");
    let late_at = net.join(peer("cyd")).unwrap();
    let late = node(&late_at, compacting(9)).await;
    let mut events = late.sequencer().events_from(1);
    let total = sequencer.propose(&3).await.unwrap();
    let mut reset = None;
    let last = loop {
        match events.next().await.unwrap() {
            TurnEvent::Reset { state, .. } => reset = Some(state.total),
            TurnEvent::Committed(action) if action.key == total.key => break action,
            _ => {}
        }
    };
    assert!(reset.is_some(), "the late node began with a snapshot");
    assert_eq!(last.ruling, Ruling::Accepted(120 / 10 * 45 + 3));
}

#[tokio::test(start_paused = true)]
async fn an_action_of_the_most_bytes_is_taken_and_one_more_byte_is_not() {
    #[derive(Clone)]
    struct Any;
    impl Game for Any {
        type Action = Vec<u8>;
        type Outcome = ();
        type Refusal = ();
        fn apply(&mut self, _: &TurnInfo, _: &Vec<u8>) -> Result<(), ()> {
            Ok(())
        }
    }
    let net = MemoryFabric::new();
    let at = net.join(peer("ann")).unwrap();
    let open = |config| {
        let port = Port::open(at.clone(), GameId::new("any").unwrap()).unwrap();
        game_node(port, Blueprint::new(|| Any), [peer("ann")].into(), config)
    };
    let mut compacting = config(1);
    compacting.compaction = Some(Compaction::default());
    assert_eq!(
        open(compacting).await.err(),
        Some(OpenError::Config(ConfigError::CompactionNeedsSnapshots)),
        "a game that cannot be written down cannot be compacted"
    );
    let mut small = config(1);
    small.limits.action_bytes_max = 1000;
    small.limits.pending_max = 2;
    let session = open(small).await.unwrap();
    let sequencer = session.sequencer();
    assert!(
        sequencer
            .propose(&vec![0; 1000])
            .await
            .unwrap()
            .is_accepted()
    );
    let (len, max) = (1001, 1000);
    assert_eq!(
        sequencer.propose(&vec![0; len]).await.map(|_| ()),
        Err(TurnError::Propose(ProposeError::TooLarge { len, max }))
    );
    // Two under way at a time, and one more is refused.
    let three = [vec![1], vec![2], vec![3]];
    let (a, b, c) = tokio::join!(
        sequencer.propose(&three[0]),
        sequencer.propose(&three[1]),
        sequencer.propose(&three[2])
    );
    assert!(a.is_ok() && b.is_ok());
    assert_eq!(
        c.map(|_| ()),
        Err(TurnError::Propose(ProposeError::TooManyPending { max: 2 }))
    );
    session.close().await;
    assert_eq!(
        sequencer.propose(&vec![1]).await.map(|_| ()),
        Err(TurnError::Propose(ProposeError::Closed))
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_outside_the_roster_is_refused_and_its_game_can_be_opened_again() {
    let net = MemoryFabric::new();
    let at = net.join(peer("eve")).unwrap();
    for _ in 0..2 {
        let port = Port::open(at.clone(), GameId::new("sum").unwrap()).unwrap();
        let refused = game_node(port, Blueprint::new(Sum::default), roster(), config(1)).await;
        assert_eq!(refused.err(), Some(OpenError::NotInRoster(peer("eve"))));
    }
}

#[tokio::test(start_paused = true)]
async fn random_bytes_and_frames_of_another_session_are_dropped_and_counted() {
    let net = MemoryFabric::new();
    let nodes = three(&net, "sum", counted(), config).await;
    let eve = net.join(peer("eve")).unwrap();
    let port = Port::open(eve.clone(), GameId::new("sum").unwrap()).unwrap();
    let (links, _incoming) = port.split();
    for n in 0..50u8 {
        let _ = links.send(
            &peer("ann"),
            cabinet_consensus::fabric::Lane::Raft,
            vec![n; usize::from(n)].into(),
        );
    }
    nodes[1].1.sequencer().propose(&1).await.unwrap();
    let dropped = nodes[0].1.node().dropped_frames();
    assert_eq!(dropped.malformed + dropped.other_session, 50, "{dropped:?}");
    // A node of another roster is in another session.
    let port = Port::open(net.join(peer("fay")).unwrap(), GameId::new("sum").unwrap()).unwrap();
    let strangers = [peer("ann"), peer("fay")].into();
    let other = game_node(port, Blueprint::new(Sum::default), strangers, config(8))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(nodes[0].1.node().dropped_frames().other_session > dropped.other_session);
    assert!(
        nodes[2]
            .1
            .sequencer()
            .propose(&1)
            .await
            .unwrap()
            .is_accepted()
    );
    other.close().await;
}

#[tokio::test(start_paused = true)]
async fn leaving_hands_leadership_over_and_closing_twice_is_harmless() {
    let net = MemoryFabric::new();
    let mut nodes = three(&net, "sum", counted(), config).await;
    let at = leader(&nodes).await;
    nodes[at].1.sequencer().propose(&1).await.unwrap();
    let (_peer, leaving) = nodes.remove(at);
    assert!(leaving.leave(Duration::from_secs(2)).await);
    leaving.close().await;
    let next = leader(&nodes).await;
    assert!(
        nodes[1 - next]
            .1
            .sequencer()
            .propose(&2)
            .await
            .unwrap()
            .is_accepted()
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_state_is_not_the_others_stops_and_says_so_and_the_others_play_on() {
    let net = MemoryFabric::new();
    let mut nodes = Vec::new();
    for (n, name) in NAMES.iter().enumerate() {
        let at = net.join(peer(name)).unwrap();
        let first = Sum {
            // One node starts from another state than the rest.
            total: u64::from(n == 2),
            timed: false,
        };
        let mut config = config(n as u64);
        config.hash_every = 5;
        nodes.push((at.clone(), node_of(&at, config, first).await));
    }
    let mut events = nodes[2].1.sequencer().events_from(1);
    for n in 0..20 {
        nodes[0].1.sequencer().propose(&n).await.unwrap();
    }
    let (mine, theirs) = loop {
        match events.next().await.expect("the stream says why it ends") {
            TurnEvent::Desync { mine, theirs, .. } => break (mine, theirs),
            TurnEvent::Committed(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    };
    assert_ne!(mine, theirs);
    assert_eq!(events.next().await.map(|_| ()), None);
    assert!(matches!(
        nodes[2].1.node().waiting(Duration::from_secs(1)),
        Waiting::Stopped(_)
    ));
    let after = nodes[0].1.sequencer().propose(&1).await.unwrap();
    assert!(after.is_accepted());
}
