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
