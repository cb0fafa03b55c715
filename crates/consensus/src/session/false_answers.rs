//! A spectator whose answers to the leader are lies, in a game that goes on.

use std::time::Duration;

use prost::Message;

use super::strangers::{Sum, config, peer, port};
use super::*;
use crate::config::Compaction;
use crate::fabric::{Incoming, Lane, Links, MemoryFabric};
use crate::ids::{Incarnation, NodeId};
use crate::raft::wire::{Append, Appended, At, Body as Ask, Chunk, Chunked, Frame, VoteMsg};
use crate::session::{HostOptions, JoinOptions};

/// Nothing is kept that a snapshot stands for, and silence costs nobody a place.
fn compacts(nonce: u64) -> SessionConfig {
    let mut config = config(nonce);
    config.limits.log_kept_after_snapshot = 0;
    config.compaction = Some(Compaction {
        entries: 1,
        bytes: 1 << 30,
        age: Duration::from_secs(86_400),
    });
    config
}

type Lie = fn(&Append) -> Appended;

/// Answers everything that `me` is asked, what it is sent to append with `lie`.
async fn lies(me: NodeId, links: Links, mut incoming: Incoming, lie: Lie) {
    while let Some(inbound) = incoming.raft.recv().await {
        let Ok(frame) = Frame::decode(inbound.frame) else {
            continue;
        };
        let answer = match frame.body {
            Some(Ask::Append(append)) => Ask::Appended(lie(&append)),
            // It has lost all that it was sent, always.
            Some(Ask::Chunk(Chunk { .. })) => Ask::Chunked(Chunked::default()),
            _ => continue,
        };
        let to = NodeId::new(inbound.from, Incarnation(frame.from_incarnation));
        let answer = Frame::new(frame.session, &me, &to, frame.id, answer);
        let _ = links.send(&to.peer, Lane::Raft, answer.encode_to_vec().into());
    }
}

fn outcome(outcome: u32, through: Option<At>) -> Appended {
    Appended {
        outcome,
        through,
        vote: None,
    }
}

const LIES: [(&str, Lie); 6] = [
    ("it took a part, and nothing of it", |_| outcome(1, None)),
    ("it lacks what it acknowledged", |_| outcome(2, None)),
    ("it has what was never sent", |append| {
        let sent = append.entries.last().and_then(|entry| entry.at);
        let last = sent.or(append.previous).unwrap_or_default();
        let index = last.index + 1;
        outcome(1, Some(At { index, ..last }))
    }),
    ("it has the entry of another term", |append| {
        let last = append.previous.unwrap_or_default();
        let term = last.term + 1;
        outcome(1, Some(At { term, ..last }))
    }),
    ("an older vote stands against it", |append| Appended {
        vote: append.vote.clone().map(|vote| VoteMsg {
            term: vote.term.saturating_sub(1),
            ..vote
        }),
        ..outcome(3, None)
    }),
    ("nothing there is", |_| outcome(9, None)),
];

#[tokio::test(start_paused = true)]
async fn a_spectator_that_answers_what_cannot_be_true_stops_no_game_and_is_counted() {
    for (what, lie) in LIES {
        let net = MemoryFabric::new();
        let [ann, eve] = ["ann", "eve"].map(|name| net.join(peer(name)).unwrap());
        let blueprint = || Blueprint::with_snapshots(Sum::default);
        let hosts = HostOptions {
            spectators_max: 1,
            claim_wait: Duration::from_millis(100),
            ..HostOptions::new(1, Incarnation(1))
        };
        let watches = JoinOptions::new(Incarnation(1));
        let (host, watcher) = tokio::join!(
            game_host(port(&ann), blueprint(), hosts, compacts(1)),
            game_spectate(port(&eve), blueprint(), watches, compacts(2)),
        );
        let (host, watcher) = (host.unwrap(), watcher.unwrap());
        for _ in 0..5 {
            host.sequencer().propose(&1).await.unwrap();
        }
        let me = watcher.node().id().clone();
        let caught_up = || {
            let numbers = host.node().numbers();
            let has = numbers.progress.get(&me).and_then(|known| known.matched);
            numbers.purged.is_some() && has == numbers.last
        };
        while !caught_up() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        watcher.close().await;
        drop(watcher);

        let (links, incoming) = port(&eve).split();
        let lying = tokio::spawn(lies(me.clone(), links, incoming, lie));
        let before = host.node().dropped_frames().malformed;
        for n in 0..40 {
            let turn = host.sequencer().propose(&1).await;
            assert!(turn.is_ok(), "{what}, turn {n}: {turn:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(host.node().status().borrow().stopped, None, "{what}");
        assert!(host.node().dropped_frames().malformed > before, "{what}");
        assert!(host.node().learners().contains(&me), "{what}");
        lying.abort();
        host.close().await;
    }
}
