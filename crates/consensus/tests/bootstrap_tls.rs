//! Every way into a game once over real TLS on loopback, with real time: hosting to a quorum, a late
//! joiner, a second host, a full roster, a spectator, a witness, a known roster, and votes on
//! servers. `tests/bootstrap.rs` has the rules in virtual time.

#[path = "tls_fabric/support.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests of the fabric, which use all of it"
)]
mod support;

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::fabric::tls::TlsFabric;
use cabinet_consensus::fabric::{Fabric, Port, Principal};
use cabinet_consensus::game::Blueprint;
use cabinet_consensus::ids::Incarnation;
use cabinet_consensus::raft::Role;
use cabinet_consensus::session::{
    CoreOptions, GameSession, HostError, HostOptions, JoinError, JoinOptions, ReturnPolicy,
    ServerCore, SessionConfig, TokioClock, game_host, game_join, game_node, game_player,
    game_server, game_spectate, game_witness,
};
use cabinet_consensus::turns::{Proposal, Ruling, TurnEvent};
use common::Sum;
use support::{Authority, PATIENCE, game, in_time, joined, peer};

type Session = GameSession<Sum>;

/// Fabrics of these peers, each connected to each.
async fn mesh<const N: usize>(names: [&str; N]) -> [Arc<TlsFabric>; N] {
    let authority = Authority::new();
    let mut fabrics: Vec<Arc<TlsFabric>> = Vec::new();
    for name in names {
        let new = authority.start(name).await;
        for old in &fabrics {
            new.add_peer(old.local(), old.address()).unwrap();
            joined_at_least(&new, old).await;
        }
        fabrics.push(new);
    }
    fabrics.try_into().unwrap_or_else(|_| unreachable!())
}

async fn joined_at_least(a: &TlsFabric, b: &TlsFabric) {
    in_time("both are connected", joined(a, b)).await;
}

fn port(at: &Arc<TlsFabric>) -> Port {
    Port::open(at.clone(), game("sum")).unwrap()
}

fn sum() -> Blueprint<Sum> {
    Blueprint::new(Sum::default)
}

fn config(nonce: u64) -> SessionConfig {
    SessionConfig::new(Arc::new(TokioClock::default()), nonce)
}

fn hosting(seats: u32) -> HostOptions {
    HostOptions {
        claim_wait: Duration::from_secs(1),
        within: Some(PATIENCE),
        ..HostOptions::new(seats, Incarnation(1))
    }
}

fn joining() -> JoinOptions {
    JoinOptions {
        within: PATIENCE,
        ..JoinOptions::new(Incarnation(1))
    }
}

async fn join(at: &Arc<TlsFabric>, nonce: u64) -> Result<Session, JoinError> {
    game_join(port(at), sum(), joining(), config(nonce)).await
}

async fn add(session: &Session, n: u64) -> u64 {
    let patient = Proposal {
        within: PATIENCE,
        ..Proposal::default()
    };
    let decided = session.sequencer().propose_with(&n, patient).await;
    match decided.unwrap().ruling {
        Ruling::Accepted(total) => total,
        other => panic!("unexpected {other:?}"),
    }
}

#[tokio::test]
async fn a_hosted_game_over_tls_starts_with_a_quorum_and_takes_late_players_watchers_and_no_second_host()
 {
    let at = mesh(["ann", "bob", "cyd", "dan", "eve", "fay"]).await;
    let options = HostOptions {
        return_at: ReturnPolicy::Quorum,
        spectators_max: 1,
        ..hosting(3)
    };
    let (host, bob) = tokio::join!(
        game_host(port(&at[0]), sum(), options, config(1)),
        join(&at[1], 2)
    );
    let (host, bob) = (host.unwrap(), bob.unwrap());
    assert_eq!(add(&host, 1).await, 1);
    assert_eq!(add(&bob, 2).await, 3);
    // A second host is told who hosts.
    let second = game_host(port(&at[3]), sum(), hosting(2), config(3)).await;
    assert!(
        matches!(&second, Err(HostError::DuplicateHost { session, .. }) if *session == host.id()),
        "{second:?}"
    );
    // A late player sees every turn.
    let cyd = join(&at[2], 4).await.unwrap();
    let mut events = cyd.sequencer().events_from(1);
    for n in [1, 2] {
        match in_time("a turn", events.next()).await.unwrap() {
            TurnEvent::Committed(action) => assert_eq!(action.action, n),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(add(&cyd, 4).await, 7);
    // One watches, with every seat taken; one more player and one more watcher are refused.
    let eve = game_spectate(port(&at[4]), sum(), joining(), config(5))
        .await
        .unwrap();
    assert_eq!(join(&at[3], 6).await.err(), Some(JoinError::RosterFull));
    let watched = game_spectate(port(&at[5]), sum(), joining(), config(7)).await;
    assert_eq!(watched.err(), Some(JoinError::SpectatorsClosed));
    let mut events = eve.sequencer().events_from(1);
    let first = in_time("a turn", events.next()).await.unwrap();
    assert!(matches!(first, TurnEvent::Committed(action) if action.action == 1));
    assert_eq!(eve.node().status().borrow().role, Role::Learner);
    // Everybody was proven by a certificate, and channels go where they should.
    let principals = eve.principals().get();
    assert!(
        principals
            .values()
            .all(|known| matches!(known, Principal::Certificate { .. }))
    );
    let (said, heard) = (
        host.app_channel("chat").unwrap(),
        cyd.app_channel("chat").unwrap(),
    );
    let mut heard = heard.incoming().unwrap();
    said.send_to(&peer("cyd"), b"psst").unwrap();
    let frame = in_time("what was said", heard.recv()).await.unwrap();
    assert_eq!((frame.from, &frame.frame[..]), (peer("ann"), &b"psst"[..]));
    // The host goes, and the game goes on.
    assert!(host.leave(PATIENCE).await);
    assert_eq!(add(&bob, 1).await, 8);
    for session in [&bob, &cyd, &eve] {
        session.close().await;
        session.close().await;
    }
}

#[tokio::test]
async fn two_players_and_a_witness_over_tls_go_on_without_one_of_them() {
    let at = mesh(["ann", "bob", "srv"]).await;
    let options = HostOptions {
        witness: true,
        ..hosting(2)
    };
    let (ann, bob, srv) = tokio::join!(
        game_host(port(&at[0]), sum(), options, config(1)),
        join(&at[1], 2),
        game_witness(port(&at[2]), sum(), joining(), config(3))
    );
    let (ann, bob, _srv) = (ann.unwrap(), bob.unwrap(), srv.unwrap());
    assert_eq!(add(&ann, 1).await, 1);
    ann.close().await;
    assert_eq!(add(&bob, 3).await, 4);
}

#[tokio::test]
async fn a_known_roster_of_two_over_tls_agrees() {
    let at = mesh(["ann", "bob"]).await;
    let roster = || ["ann", "bob"].map(peer).into();
    let ann = game_node(port(&at[0]), sum(), roster(), config(1)).await;
    let bob = game_node(port(&at[1]), sum(), roster(), config(2)).await;
    let (ann, bob) = (ann.unwrap(), bob.unwrap());
    assert_eq!(ann.id(), bob.id());
    assert_eq!(add(&ann, 1).await, 1);
    assert_eq!(add(&bob, 2).await, 3);
}

#[tokio::test]
async fn servers_that_vote_over_tls_carry_players_that_do_not() {
    let at = mesh(["s1", "s2", "s3", "ann", "bob"]).await;
    let core = ServerCore::new(["s1", "s2", "s3"].map(peer)).unwrap();
    let options = CoreOptions {
        core: core.clone(),
        seats: 2,
        spectators_max: 0,
    };
    let mut servers = Vec::new();
    for (n, at) in at[..3].iter().enumerate() {
        let opened = game_server(port(at), sum(), options.clone(), config(n as u64)).await;
        servers.push(opened.unwrap());
    }
    let player = |n: usize| {
        game_player(
            port(&at[n]),
            sum(),
            core.clone(),
            joining(),
            config(n as u64),
        )
    };
    let (ann, bob) = tokio::join!(player(3), player(4));
    let (ann, bob) = (ann.unwrap(), bob.unwrap());
    assert_eq!(add(&ann, 1).await, 1);
    let dead = servers.pop().unwrap();
    dead.close().await;
    assert_eq!(add(&bob, 1).await, 2);
    let voters = bob.node().voters().into_iter().map(|node| node.peer);
    assert!(voters.eq(["s1", "s2", "s3"].map(peer)));
}
