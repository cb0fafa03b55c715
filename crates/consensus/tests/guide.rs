//! The game of `docs/guide-turns.md` is played, and what the guide quotes stands in the example.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::fabric::{MemoryFabric, Port};
use cabinet_consensus::game::{Blueprint, Game, Snapshots, TurnInfo};
use cabinet_consensus::ids::{GameId, Incarnation, PeerId};
use cabinet_consensus::log::{LogError, LogStore, MemoryLog};
use cabinet_consensus::session::{
    GameSession, HostOptions, JoinError, JoinOptions, OpenError, ResumeError, ReturnPolicy,
    ServerCore, SessionConfig, TokioClock, game_host, game_join, game_resume,
};
use cabinet_consensus::testkit::Cluster;

#[path = "../examples/turns.rs"]
mod turns;

use turns::{Stones, play, play_ahead, ride, seat, serve, table};

const NAMES: [&str; 3] = ["ann", "bob", "cyd"];

fn roster(names: &[&str]) -> BTreeSet<PeerId> {
    names
        .iter()
        .map(|name| PeerId::new(*name).unwrap())
        .collect()
}

fn told(player: &str) -> TurnInfo {
    TurnInfo {
        index: 1,
        term: 1,
        turn: 0,
        now_ms: 0,
        key: None,
        player: Some(PeerId::new(player).unwrap()),
        place: None,
    }
}

#[test]
fn the_rules_of_the_guides_game_are_tried_without_a_network() {
    let mut game = Stones::new(&roster(&NAMES), 4);
    assert_eq!(game.apply(&told("ann"), &3), Ok(1));
    assert_eq!(
        game.apply(&told("ann"), &1),
        Err("it is bob's turn".to_owned())
    );
    assert!(game.apply(&told("bob"), &2).is_err());
    assert_eq!(Stones::restore(&game.snapshot()), Ok(game.clone()));
    assert_eq!(game.apply(&told("bob"), &1), Ok(0));
    assert_eq!(game.winner, PeerId::new("bob").ok());
    assert_eq!(Stones::restore(&game.snapshot()), Ok(game.clone()));
    assert!(Stones::restore(b"1\n9\n\nann").is_err());
}

#[tokio::test(start_paused = true)]
async fn the_guides_game_is_played_to_its_end_and_all_agree_who_won() {
    let sessions = table(&NAMES, 21).await.unwrap();
    let first = Stones::new(&roster(&NAMES), 21);
    let parts = sessions.iter().map(|session| play(session, first.clone()));
    let winners = futures_util::future::try_join_all(parts).await.unwrap();
    assert!(winners.iter().all(|winner| *winner == winners[0]));
    for session in &sessions {
        session.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_guides_game_is_shown_ahead_and_all_agree_who_won() {
    let sessions = table(&NAMES, 21).await.unwrap();
    let parts = sessions.iter().map(play_ahead);
    let winners = futures_util::future::try_join_all(parts).await.unwrap();
    assert!(winners.iter().all(|winner| *winner == winners[0]));
    for session in &sessions {
        session.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_guides_game_is_played_by_players_that_ride_on_servers() {
    let net = MemoryFabric::new();
    let core = ServerCore::new(roster(&["s1", "s2", "s3"])).unwrap();
    let players = roster(&["ann", "bob"]);
    let port = |peer: &PeerId| {
        let at = net.join(peer.clone()).unwrap();
        Port::open(at, GameId::new("stones").unwrap()).unwrap()
    };
    let mut servers = Vec::new();
    for peer in core.servers() {
        let opened = serve(port(peer), core.clone(), players.clone()).await;
        servers.push(opened.unwrap());
    }
    let mut riders = Vec::new();
    for peer in &players {
        let opened = ride(port(peer), core.clone(), players.clone(), 1).await;
        riders.push(opened.unwrap());
    }
    servers.pop().unwrap().close().await;
    let parts = riders.iter().map(play_ahead);
    let winners = futures_util::future::try_join_all(parts).await.unwrap();
    assert_eq!(winners[0], winners[1]);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_move_in_the_guides_game_loses_a_stone_and_the_turn() {
    let sessions = table(&NAMES, 9).await.unwrap();
    let first = Stones::new(&roster(&NAMES), 9);
    // Ann is there and does not move; the others play on.
    let bob = play(&sessions[1], first.clone());
    let cyd = play(&sessions[2], first.clone());
    let (bob, cyd) = tokio::join!(bob, cyd);
    assert_eq!(bob.unwrap(), cyd.unwrap());
    for session in &sessions {
        session.close().await;
    }
}

#[tokio::test]
async fn a_seat_of_the_guides_game_comes_back_from_its_directory() {
    let home = tempfile::tempdir().unwrap();
    let net = MemoryFabric::new();
    let alone = roster(&["ann"]);
    let peer = PeerId::new("ann").unwrap();
    let at = net.join(peer.clone()).unwrap();
    let game = GameId::new("stones").unwrap();
    let port = Port::open(at.clone(), game.clone()).unwrap();
    let session = seat(port, &peer, alone.clone(), home.path()).await.unwrap();
    let first = session.sequencer().propose(&2).await.unwrap();
    session.close().await;
    drop(session);
    let port = Port::open(at, game).unwrap();
    let session = seat(port, &peer, alone, home.path()).await.unwrap();
    let again = session
        .sequencer()
        .propose_with_id(first.key.serial, &2)
        .await
        .unwrap();
    assert_eq!(again.index, first.index);
    let through = session
        .sequencer()
        .read_barrier(Duration::from_secs(5))
        .await
        .unwrap();
    assert!(through >= first.index);
    session.close().await;
}

/// A player of a hosted game: joins the first time, and goes on with its log every later time, also
/// after a join that failed. A session closes its log, so each opens it anew.
async fn come_in(
    port: impl Fn() -> Port,
    life: Incarnation,
    open_log: impl AsyncFn() -> Result<Arc<dyn LogStore>, LogError>,
) -> Result<GameSession<Stones>, JoinError> {
    let config = SessionConfig {
        log: open_log().await.map_err(OpenError::from)?,
        ..SessionConfig::new(Arc::new(TokioClock::default()), rand::random())
    };
    let blueprint = Blueprint::with_snapshots(|| Stones::new(&roster(&NAMES), 21));
    match game_resume(port(), blueprint.clone(), config.clone()).await {
        Ok(resumed) => Ok(resumed),
        Err(ResumeError::Open(error)) => Err(JoinError::Open(error)),
        // Nothing is held: this is the first time.
        Err(_) => game_join(port(), blueprint, JoinOptions::new(life), config).await,
    }
}

#[tokio::test(start_paused = true)]
async fn a_player_of_the_guides_hosted_game_joins_once_and_resumes_from_then_on() {
    let net = MemoryFabric::new();
    let [ann, bob] = ["ann", "bob"].map(|name| net.join(PeerId::new(name).unwrap()).unwrap());
    let open = |at| Port::open(at, GameId::new("stones").unwrap()).unwrap();
    let config = |nonce| SessionConfig::new(Arc::new(TokioClock::default()), nonce);
    let options = HostOptions {
        return_at: ReturnPolicy::Quorum,
        ..HostOptions::new(3, Incarnation(1))
    };
    let blueprint = Blueprint::with_snapshots(|| Stones::new(&roster(&NAMES), 21));
    let log = MemoryLog::new();
    let as_it_is = async || Ok::<_, LogError>(Arc::new(log.clone()) as Arc<dyn LogStore>);
    let anew = async || {
        log.reopen();
        as_it_is().await
    };
    let (host, player) = tokio::join!(
        game_host(open(ann.clone()), blueprint, options, config(1)),
        come_in(|| open(bob.clone()), Incarnation(1), &anew)
    );
    let (host, player) = (host.unwrap(), player.unwrap());
    let first = host.sequencer().propose(&2).await.unwrap();
    player.close().await;
    drop(player);
    // The log that a session had is closed, and what is said of it is how to go on.
    let closed = come_in(|| open(bob.clone()), Incarnation(1), &as_it_is).await;
    let closed = closed.err().unwrap();
    assert_eq!(closed, JoinError::Open(OpenError::Log(LogError::Closed)));
    let said = closed.to_string();
    assert!(said.contains("open it anew"), "{said}");
    let again = come_in(|| open(bob.clone()), Incarnation(1), &anew).await;
    let again = again.unwrap();
    assert_eq!(again.id(), host.id());
    let next = again.sequencer().propose(&1).await.unwrap();
    assert!(next.index > first.index);
}

#[test]
fn the_guides_game_goes_on_when_machines_die_and_links_are_cut() {
    let players = roster(&["node-0", "node-1", "node-2"]);
    let first = Blueprint::with_snapshots(move || Stones::new(&players, 9));
    let mut cluster = Cluster::new(first, 3, 7).unwrap();
    assert!(cluster.propose(0, &2).unwrap().is_accepted());

    // Whoever leads dies; the others elect, and its log is on its disk.
    let leader = cluster.await_leader(Duration::from_secs(5)).unwrap();
    cluster.crash(leader).unwrap();
    cluster.run_for(Duration::from_secs(1));
    cluster.restart(leader).unwrap();
    assert!(cluster.propose(1, &2).unwrap().is_accepted());

    // Who is cut off does not move: its time is up, once, though nobody asked.
    cluster.isolate(2).unwrap();
    cluster.run_for(Duration::from_secs(32));
    cluster.heal();
    assert!(!cluster.propose(2, &1).unwrap().is_accepted());
    cluster.transfer(0, Duration::from_secs(5)).unwrap();
    assert!(cluster.propose(0, &3).unwrap().is_accepted());
    for node in 0..3 {
        cluster.read(node).unwrap();
        assert_eq!(cluster.state(node).unwrap().heap, 9 - 2 - 2 - 1 - 3);
    }
    assert_eq!(cluster.violation(), None);
}

#[test]
fn every_block_of_rust_in_the_guide_stands_in_its_example() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    // The guide is not in the published crate.
    let Ok(guide) = std::fs::read_to_string(format!("{root}/docs/guide-turns.md")) else {
        return;
    };
    let example = include_str!("../examples/turns.rs");
    let test = include_str!("guide.rs");
    let mut blocks = 0;
    for block in guide.split("```rust\n").skip(1) {
        let block = block.split("```").next().unwrap();
        assert!(
            example.contains(block) || test.contains(block),
            "the guide shows what is not in the example:\n{block}"
        );
        blocks += 1;
    }
    assert!(blocks >= 5);
}
