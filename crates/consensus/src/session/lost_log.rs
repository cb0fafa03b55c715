//! A player whose process is gone, and its log with it, joins as if nothing had been.

use std::time::Duration;

use super::strangers::{Sum, config, peer, port};
use super::*;
use crate::fabric::{MemoryFabric, MemoryPeer};
use crate::ids::Incarnation;
use crate::lobby::wire::{Announce, LobbyMsg};
use crate::state::command::Kind;

fn joins(life: u64) -> JoinOptions {
    JoinOptions {
        within: Duration::from_secs(20),
        ..JoinOptions::new(Incarnation(life))
    }
}

fn sum() -> Blueprint<Sum> {
    Blueprint::new(Sum::default)
}

/// Ann hosts, bob and cyd join; and where cyd is.
async fn table() -> ([GameSession<Sum>; 3], Arc<MemoryPeer>) {
    table_with(config).await
}

async fn table_with(
    config: impl Fn(u64) -> SessionConfig,
) -> ([GameSession<Sum>; 3], Arc<MemoryPeer>) {
    let net = MemoryFabric::new();
    let [ann, bob, at] = ["ann", "bob", "cyd"].map(|name| net.join(peer(name)).unwrap());
    let hosts = HostOptions {
        claim_wait: Duration::from_millis(100),
        ..HostOptions::new(3, Incarnation(1))
    };
    let (ann, bob, cyd) = tokio::join!(
        game_host(port(&ann), sum(), hosts, config(1)),
        game_join(port(&bob), sum(), joins(1), config(2)),
        game_join(port(&at), sum(), joins(1), config(3)),
    );
    ([ann.unwrap(), bob.unwrap(), cyd.unwrap()], at)
}

#[tokio::test(start_paused = true)]
async fn a_player_that_lost_its_log_is_told_so_at_once_and_comes_in_in_a_later_life() {
    for leads in [false, true] {
        let ([ann, bob, cyd], at) = table().await;
        for session in [&ann, &bob, &cyd] {
            session.sequencer().propose(&1).await.unwrap();
        }
        // The leader has heard from cyd, or another leads since and has not.
        let heir = if leads { &cyd } else { &ann };
        if ann.node().leader().as_ref() != Some(heir.node().id()) {
            let to = heir.node().id().clone();
            let former = [&ann, &bob, &cyd].map(GameSession::node);
            let former = former.iter().find(|n| n.leader().as_ref() == Some(n.id()));
            let handed = former.unwrap().transfer(&to, joins(1).within).await;
            assert_eq!(handed, Ok(()));
        }
        cyd.close().await;
        drop(cyd);
        let begun = tokio::time::Instant::now();
        let again = game_join(port(&at), sum(), joins(1), config(4)).await;
        assert_eq!(again.err(), Some(JoinError::LogLost));
        assert!(
            begun.elapsed() < joins(1).within,
            "it is told, not left waiting"
        );
        for session in [&ann, &bob] {
            assert_eq!(session.node().status().borrow().stopped, None);
            assert!(session.sequencer().propose(&1).await.is_ok());
        }
        let later = game_join(port(&at), sum(), joins(2), config(5))
            .await
            .unwrap();
        let seated = later.sequencer().propose(&1).await.unwrap();
        assert!(seated.is_accepted());
        assert_eq!(later.seats().players().count(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn an_announcement_that_is_late_costs_who_came_in_nothing() {
    let ([ann, bob, cyd], _at) = table().await;
    cyd.sequencer().propose(&1).await.unwrap();
    let me = cyd.node().id().clone();
    let announce = LobbyMsg::Announce(Announce {
        node: me.clone(),
        kind: Kind::Player,
        session: None,
        member: false,
        needs_vote: true,
        begins: true,
    });
    for _ in 0..20 {
        attend::broadcast(&cyd.links, &announce);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(*cyd.refused().borrow(), None);
        for session in [&ann, &bob, &cyd] {
            assert!(session.node().voters().contains(&me));
        }
        assert!(cyd.sequencer().propose(&1).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_life_that_was_put_out_promises_nothing_any_more_and_comes_in_anew_without_its_log() {
    let evicts = |nonce| SessionConfig {
        admission: AdmissionTiming {
            evict_after: Some(Duration::from_secs(3)),
            ..AdmissionTiming::default()
        },
        ..config(nonce)
    };
    let ([ann, bob, cyd], at) = table_with(evicts).await;
    let me = cyd.node().id().clone();
    assert!(cyd.sequencer().propose(&1).await.is_ok());
    cyd.close().await;
    drop(cyd);
    // As long as it has its vote, it must have its log.
    let again = game_join(port(&at), sum(), joins(1), evicts(4)).await;
    assert_eq!(again.err(), Some(JoinError::LogLost));
    let mut status = ann.node().status();
    let is_out = |status: &crate::raft::RaftStatus| {
        status.membership_committed && !status.membership.contains(&me)
    };
    drop(status.wait_for(is_out).await.unwrap());
    let back = game_join(port(&at), sum(), joins(1), evicts(5))
        .await
        .unwrap();
    assert_eq!(*back.node().id(), me);
    for session in [&ann, &bob, &back] {
        assert!(session.sequencer().propose(&1).await.unwrap().is_accepted());
    }
    let mut status = ann.node().status();
    let votes = |status: &crate::raft::RaftStatus| status.membership.voters.contains(&me);
    assert!(status.wait_for(votes).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_roster_voter_that_lost_its_log_is_not_believed_by_the_leader_it_answered_before() {
    let net = MemoryFabric::new();
    let names = ["ann", "bob", "cyd"];
    let at = names.map(|name| net.join(peer(name)).unwrap());
    let roster: BTreeSet<_> = names.map(peer).into();
    let mut sessions = Vec::new();
    for (n, at) in at.iter().enumerate() {
        let config = config(n as u64);
        let opened = game_node(port(at), sum(), roster.clone(), config).await;
        sessions.push(opened.unwrap());
    }
    for session in &sessions {
        session.sequencer().propose(&1).await.unwrap();
    }
    let leader = sessions[0].node().leader().unwrap();
    let leads = sessions.iter().position(|one| *one.node().id() == leader);
    let (leads, lost) = (leads.unwrap(), (leads.unwrap() + 1) % 3);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = sessions[leads].node().dropped_frames().malformed;
    sessions[lost].close().await;
    let opened = game_node(port(&at[lost]), sum(), roster, config(9)).await;
    sessions[lost] = opened.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let view = sessions[leads].node();
    assert!(view.dropped_frames().malformed > before, "it is counted");
    assert_eq!(sessions[lost].node().applied(), 0, "it is told nothing");
    // The others are a majority, and go on.
    assert_eq!(view.leader().as_ref(), Some(view.id()));
    assert!(sessions[leads].sequencer().propose(&1).await.is_ok());
}
