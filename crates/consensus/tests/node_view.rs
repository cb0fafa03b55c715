//! What a session says of its node: role and what is waited for, members, how far the log is
//! committed and from where, reads, transfer, and the trace.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::time::Duration;

use cabinet_consensus::config::Compaction;
use cabinet_consensus::fabric::MemoryFabric;
use cabinet_consensus::game::Blueprint;
use cabinet_consensus::ids::{Incarnation, NodeId};
use cabinet_consensus::raft::Role;
use cabinet_consensus::session::{
    GameSession, HostOptions, JoinOptions, TRACE_MAX, TraceEvent, TransferError, Waiting,
    game_host, game_spectate,
};
use cabinet_consensus::turns::ReadError;
use common::{NAMES, Node, Sum, fast as config, peer, port, sum, three, until};

const SILENT: Duration = Duration::from_millis(200);
const SOON: Duration = Duration::from_secs(5);

fn whole() -> Blueprint<Sum> {
    Blueprint::with_snapshots(Sum::default)
}

/// Who leads, with an entry of its own term committed.
async fn leader(nodes: &[Node<Sum>]) -> usize {
    let mut found = None;
    until("somebody leads", || {
        found = nodes
            .iter()
            .position(|(_, session)| session.node().committed_from().is_some());
        found.is_some()
    })
    .await;
    found.unwrap()
}

fn events(session: &GameSession<Sum>) -> Vec<TraceEvent> {
    let trace = session.node().trace(1);
    trace.into_iter().map(|entry| entry.event).collect()
}

#[tokio::test(start_paused = true)]
async fn a_node_says_what_it_is_who_leads_who_votes_and_how_far_the_log_is_committed() {
    let net = MemoryFabric::new();
    let nodes = three(&net, "sum", whole(), config).await;
    let at = leader(&nodes).await;
    let decided = nodes[at].1.sequencer().propose(&1).await.unwrap();
    let id = nodes[at].1.node().id().clone();
    for (n, (_, session)) in nodes.iter().enumerate() {
        let node = session.node();
        let read = node.read_barrier(Duration::from_secs(5)).await.unwrap();
        assert!(read >= decided.index && node.applied() >= read);
        assert!(node.commit_index() >= decided.index);
        assert_eq!(node.leader().as_ref(), Some(&id));
        assert_eq!(node.voters().len(), 3);
        assert!(node.learners().is_empty());
        let state = node.state(SILENT);
        let role = if n == at {
            Role::Leader
        } else {
            Role::Follower
        };
        assert_eq!((state.role, state.waiting), (role, Waiting::No));
        assert_eq!(
            (state.leader.as_ref(), state.term),
            (Some(&id), decided.term)
        );
        assert_eq!(node.committed_from().is_some(), n == at);
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_knows_from_where_its_own_term_is_committed_and_nobody_else_does() {
    let net = MemoryFabric::new();
    let nodes = three(&net, "sum", whole(), config).await;
    let first = leader(&nodes).await;
    let node = nodes[first].1.node();
    let from = node.committed_from().unwrap();
    for _ in 0..20 {
        nodes[first].1.sequencer().propose(&1).await.unwrap();
    }
    assert_eq!(
        node.committed_from(),
        Some(from),
        "it is where the term began"
    );
    let before = node.commit_index();
    let heir = nodes[(first + 1) % 3].1.node();
    assert_eq!(node.transfer(heir.id(), SOON).await, Ok(()));
    until("the heir has committed in its term", || {
        heir.committed_from().is_some()
    })
    .await;
    let from = heir.committed_from().unwrap();
    assert!(from > before && from <= heir.commit_index());
    assert_eq!(node.committed_from(), None);
    let entry = TraceEvent::CommittedFrom {
        index: from,
        term: heir.status().borrow().term,
    };
    until("the heir's trace says so", || {
        events(&nodes[(first + 1) % 3].1).contains(&entry)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_majority_says_whom_it_waits_for_and_reads_are_refused() {
    let net = MemoryFabric::new();
    let nodes = three(&net, "sum", whole(), config).await;
    let at = leader(&nodes).await;
    for (n, name) in NAMES.iter().enumerate() {
        if n != at {
            net.cut(&peer(NAMES[at]), &peer(name));
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cut = nodes[at].1.node();
    let waiting = cut.waiting(SILENT);
    assert!(
        matches!(&waiting, Waiting::ForVoters { reachable: 1, of: 3, missing } if missing.len() == 2)
            || waiting == Waiting::ForLeader,
        "{waiting:?}"
    );
    let read = cut.read_barrier(Duration::from_millis(500)).await;
    assert_eq!(read, Err(ReadError::NoQuorum));
    // Then the last other one goes: who followed it is told of no leader any more.
    let others: Vec<_> = (0..3).filter(|n| *n != at).collect();
    let leads = |n: usize| nodes[n].1.node().committed_from().is_some();
    until("the others have a leader", || {
        others.iter().any(|n| leads(*n))
    })
    .await;
    let next = *others.iter().find(|n| leads(**n)).unwrap();
    let last = *others.iter().find(|n| **n != next).unwrap();
    assert_eq!(nodes[last].1.node().waiting(SILENT), Waiting::No);
    nodes[next].0.leave();
    until("it is waited for a leader", || {
        nodes[last].1.node().waiting(SILENT) == Waiting::ForLeader
    })
    .await;
    nodes[last].1.close().await;
    let stopped = nodes[last].1.node().state(SILENT).waiting;
    assert!(matches!(stopped, Waiting::Stopped(_)));
}

#[tokio::test(start_paused = true)]
async fn leadership_goes_to_who_is_asked_and_to_nobody_who_cannot_take_it() {
    let net = MemoryFabric::new();
    let nodes = three(&net, "sum", whole(), config).await;
    let at = leader(&nodes).await;
    let (to, away) = ((at + 1) % 3, (at + 2) % 3);
    let heir = nodes[to].1.node().id().clone();
    let node = nodes[at].1.node();
    assert_eq!(node.transfer(&heir, SOON).await, Ok(()));
    assert_eq!(node.leader(), Some(heir.clone()));
    until("it leads", || nodes[to].1.node().committed_from().is_some()).await;
    for other in [at, to] {
        net.cut(&peer(NAMES[away]), &peer(NAMES[other]));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let gone = nodes[away].1.node().id().clone();
    let view = nodes[to].1.node();
    let not_ready = TransferError::NotReady { to: gone.clone() };
    let handed = view.transfer(&gone, Duration::from_millis(500)).await;
    assert_eq!(handed, Err(not_ready));
    assert_eq!(view.waiting(SILENT), Waiting::No, "it leads as before");
    assert!(nodes[to].1.sequencer().propose(&1).await.is_ok());
    // Who is heard again while there is time is asked.
    let comes_back = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        net.heal();
    };
    let (handed, ()) = tokio::join!(view.transfer(&gone, SOON), comes_back);
    assert_eq!(handed, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn leadership_is_handed_to_another_voter_alone_and_a_refusal_costs_nothing() {
    let net = MemoryFabric::new();
    let [ann, eve] = ["ann", "eve"].map(|name| net.join(peer(name)).unwrap());
    let hosts = HostOptions {
        spectators_max: 1,
        claim_wait: Duration::from_millis(100),
        ..HostOptions::new(1, Incarnation(1))
    };
    let watches = JoinOptions::new(Incarnation(1));
    let (host, watcher) = tokio::join!(
        game_host(port(&ann), sum(), hosts, config(1)),
        game_spectate(port(&eve), sum(), watches, config(2)),
    );
    let (host, watcher) = (host.unwrap(), watcher.unwrap());
    let node = host.node();
    let term = node.status().borrow().term;
    let unknown = NodeId::new(peer("dan"), Incarnation(1));
    for to in [node.id(), watcher.node().id(), &unknown] {
        let handed = node.transfer(to, SOON).await;
        let refused = TransferError::NotAnotherVoter { to: to.clone() };
        assert_eq!(handed, Err(refused));
        assert_eq!(node.waiting(SILENT), Waiting::No, "{to}");
        assert!(host.sequencer().propose(&1).await.is_ok(), "{to}");
    }
    let leader = Some(node.id().clone());
    let handed = watcher.node().transfer(node.id(), SOON).await;
    assert_eq!(handed, Err(TransferError::NotLeader { leader }));
    assert_eq!(node.status().borrow().term, term, "no election");
}

#[tokio::test(start_paused = true)]
async fn a_game_goes_on_when_the_voter_that_was_to_lead_dies_at_that_moment() {
    let net = MemoryFabric::new();
    let nodes = three(&net, "sum", whole(), config).await;
    let at = leader(&nodes).await;
    let heir = (at + 1) % 3;
    nodes[at].1.sequencer().propose(&1).await.unwrap();
    tokio::time::sleep(SILENT).await;
    let node = nodes[at].1.node();
    let to = nodes[heir].1.node().id().clone();
    // It answered a moment ago.
    nodes[heir].0.leave();
    let third = nodes[(at + 2) % 3].1.node().id().clone();
    let waits = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let told = node.transfer(&third, Duration::ZERO).await;
        assert_eq!(told, Err(TransferError::Changing), "one at a time");
        // Longer than any voter may be silent: nobody answers who is sent nothing.
        node.waiting(Duration::from_millis(5))
    };
    let (handed, waiting) = tokio::join!(node.transfer(&to, SOON), waits);
    assert_eq!(handed, Err(TransferError::NotTaken { to: to.clone() }));
    assert_eq!(waiting, Waiting::ForHandover { to });
    for n in [at, (at + 2) % 3] {
        let proposed = nodes[n].1.sequencer().propose(&1).await;
        assert!(proposed.is_ok(), "{proposed:?}");
    }
    let next = nodes[(at + 2) % 3].1.node();
    assert_eq!(node.waiting(SILENT), Waiting::No);
    assert_eq!(node.leader().as_ref(), Some(next.id()));
}

#[tokio::test(start_paused = true)]
async fn the_trace_tells_of_elections_members_snapshots_and_the_end_and_is_bounded() {
    let net = MemoryFabric::new();
    let nodes = three(&net, "sum", whole(), |nonce| {
        let mut config = config(nonce);
        config.compaction = Some(Compaction {
            entries: 20,
            bytes: 1 << 30,
            age: Duration::from_secs(3600),
        });
        config.limits.log_kept_after_snapshot = 2;
        config
    })
    .await;
    let at = leader(&nodes).await;
    for _ in 0..60 {
        nodes[at].1.sequencer().propose(&1).await.unwrap();
    }
    let session = &nodes[at].1;
    until("a snapshot is written and the log cut", || {
        let seen = events(session);
        let snapshot = |event: &TraceEvent| matches!(event, TraceEvent::Snapshot { .. });
        let purged = |event: &TraceEvent| matches!(event, TraceEvent::Purged { .. });
        seen.iter().any(snapshot) && seen.iter().any(purged)
    })
    .await;
    let seen = events(session);
    let place = |wanted: &dyn Fn(&TraceEvent) -> bool| seen.iter().position(wanted).unwrap();
    let role = Role::Leader;
    let won = place(&|e| matches!(e, TraceEvent::Role { role: is, .. } if *is == role));
    let committed = place(&|e| matches!(e, TraceEvent::CommittedFrom { .. }));
    let snapshot = place(&|e| matches!(e, TraceEvent::Snapshot { .. }));
    assert!(won < committed && committed < snapshot, "{seen:?}");
    assert!(seen.iter().any(|e| {
        matches!(e, TraceEvent::Members { members, committed: true, .. } if members.voters.len() == 3)
    }));
    let mut news = session.node().traced();
    let last = *news.borrow_and_update();
    session.close().await;
    until("the end is told", || {
        matches!(events(session).last(), Some(TraceEvent::Stopped { .. }))
    })
    .await;
    assert!(*news.borrow() > last);
    let tail = session.node().trace(last + 1);
    assert_eq!(tail[0].number, last + 1);
    assert!(session.node().trace(1).len() <= TRACE_MAX);
}
