//! Votes on servers that do not play, in one process and in virtual time: players ride as learners,
//! come and go, and keep their seats; servers may die; games on one connection set are apart.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::fabric::{MemoryFabric, MemoryPeer};
use cabinet_consensus::ids::{Incarnation, PeerId};
use cabinet_consensus::raft::Role;
use cabinet_consensus::session::{
    CoreOptions, GameSession, HostError, HostOptions, JoinError, JoinOptions, OpenError,
    PlacementError, ServerCore, game_host, game_join, game_player, game_server, game_spectate,
};
use cabinet_consensus::turns::{Ruling, TurnEvent};
use common::{Sum, config, peer, port_of, sum, until};

type Session = GameSession<Sum>;

const SERVERS: [&str; 3] = ["s1", "s2", "s3"];

fn core() -> ServerCore {
    ServerCore::new(SERVERS.map(peer)).unwrap()
}

fn options() -> CoreOptions {
    CoreOptions {
        core: core(),
        seats: 2,
        spectators_max: 1,
    }
}

fn joining(life: u64) -> JoinOptions {
    JoinOptions::new(Incarnation(life))
}

async fn serve(servers: &[Arc<MemoryPeer>], game: &str) -> Vec<Session> {
    let mut sessions = Vec::new();
    for (n, at) in servers.iter().enumerate() {
        let opened = game_server(port_of(at, game), sum(), options(), config(n as u64)).await;
        sessions.push(opened.unwrap());
    }
    sessions
}

async fn play(
    at: &Arc<MemoryPeer>,
    game: &str,
    nonce: u64,
    life: u64,
) -> Result<Session, JoinError> {
    game_player(
        port_of(at, game),
        sum(),
        core(),
        joining(life),
        config(nonce),
    )
    .await
}

async fn add(session: &Session, n: u64) -> u64 {
    match session.sequencer().propose(&n).await.unwrap().ruling {
        Ruling::Accepted(total) => total,
        other => panic!("unexpected {other:?}"),
    }
}

fn seat_of(session: &Session, name: &str) -> Option<usize> {
    let seats = session.seats().seats;
    seats.iter().position(|seat| {
        seat.holder
            .as_ref()
            .is_some_and(|node| node.peer == peer(name))
    })
}

/// Three servers and two players, connected.
struct Table {
    net: MemoryFabric,
    at: Vec<Arc<MemoryPeer>>,
    servers: Vec<Session>,
    players: Vec<Session>,
    player_at: Vec<Arc<MemoryPeer>>,
}

async fn table() -> Table {
    let net = MemoryFabric::new();
    let at: Vec<_> = SERVERS.iter().map(|n| net.join(peer(n)).unwrap()).collect();
    let player_at: Vec<_> = ["ann", "bob"]
        .iter()
        .map(|n| net.join(peer(n)).unwrap())
        .collect();
    let servers = serve(&at, "sum").await;
    let (ann, bob) = tokio::join!(
        play(&player_at[0], "sum", 10, 1),
        play(&player_at[1], "sum", 11, 1)
    );
    Table {
        net,
        at,
        servers,
        players: vec![ann.unwrap(), bob.unwrap()],
        player_at,
    }
}

/// The voters a node of the game knows are the servers and nobody else.
fn only_servers_vote(session: &Session) {
    let voters: Vec<_> = session
        .node()
        .voters()
        .into_iter()
        .map(|n| n.peer)
        .collect();
    assert_eq!(voters, SERVERS.map(peer));
}

#[tokio::test(start_paused = true)]
async fn three_servers_vote_and_two_players_ride_and_play() {
    let table = table().await;
    assert_eq!(add(&table.players[0], 1).await, 1);
    assert_eq!(add(&table.players[1], 2).await, 3);
    for player in &table.players {
        assert_eq!(player.id(), table.servers[0].id());
        assert_eq!(player.node().status().borrow().role, Role::Learner);
        only_servers_vote(player);
        let learners = player.node().learners();
        assert!(learners.contains(player.node().id()));
    }
    let seats = table.players[0].seats();
    assert_eq!(seats.players().count(), 2);
    // One player more finds no seat, one may watch, and one more may not.
    let cyd = table.net.join(peer("cyd")).unwrap();
    assert_eq!(
        play(&cyd, "sum", 20, 1).await.err(),
        Some(JoinError::RosterFull)
    );
    let eve = game_spectate(port_of(&cyd, "sum"), sum(), joining(1), config(21))
        .await
        .unwrap();
    let mut events = eve.sequencer().events_from(1);
    assert!(matches!(events.next().await, Some(TurnEvent::Committed(a)) if a.action == 1));
    let dan = table.net.join(peer("dan")).unwrap();
    let watched = game_spectate(port_of(&dan, "sum"), sum(), joining(1), config(22)).await;
    assert_eq!(watched.err(), Some(JoinError::SpectatorsClosed));
    only_servers_vote(&table.servers[0]);
}

#[tokio::test(start_paused = true)]
async fn a_player_that_crashes_comes_back_to_its_seat_and_the_other_plays_on() {
    let mut table = table().await;
    add(&table.players[1], 1).await;
    let before = seat_of(&table.servers[0], "bob");
    assert!(before.is_some());
    let gone = table.players.pop().unwrap();
    table.player_at[1].leave();
    gone.close().await;
    drop(gone);
    assert_eq!(add(&table.players[0], 1).await, 2);
    until("the silent player is put out", || {
        table.servers[0].node().learners().len() == 1
    })
    .await;
    assert_eq!(seat_of(&table.servers[0], "bob"), None);
    table.player_at.pop();
    let at = table.net.join(peer("bob")).unwrap();
    let back = play(&at, "sum", 30, 2).await.unwrap();
    assert_eq!(add(&back, 1).await, 3);
    assert_eq!(seat_of(&back, "bob"), before);
    only_servers_vote(&back);
    assert_eq!(back.node().learners().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_dies_and_the_game_goes_on_with_every_seat() {
    let mut table = table().await;
    add(&table.players[0], 1).await;
    let seats = table.players[0].seats();
    let before = seat_of(&table.servers[0], "ann");
    assert!(before.is_some());
    let leads = |session: &Session| session.node().status().borrow().role == Role::Leader;
    let leader = table.servers.iter().position(leads).unwrap();
    let dead = table.servers.remove(leader);
    table.at.remove(leader).leave();
    dead.close().await;
    assert_eq!(add(&table.players[1], 1).await, 2);
    assert_eq!(add(&table.players[0], 1).await, 3);
    assert_eq!(table.players[1].seats().seats, seats.seats);
    // A core stays what it is: nobody takes the dead one's vote.
    only_servers_vote(&table.players[0]);
    // Every player may go and come back while the servers keep the game.
    for player in table.players.drain(..) {
        player.close().await;
    }
    let again = play(&table.player_at[0], "sum", 40, 2).await.unwrap();
    assert_eq!(add(&again, 1).await, 4);
    assert_eq!(seat_of(&again, "ann"), before);
}

#[tokio::test(start_paused = true)]
async fn a_core_has_a_server_at_least_and_as_many_as_may_vote_at_most() {
    let none: [PeerId; 0] = [];
    assert_eq!(ServerCore::new(none), Err(PlacementError::EmptyCore));
    let servers = |n: u32| (0..n).map(|n| peer(&format!("s{n}")));
    assert_eq!(ServerCore::new(servers(64)).unwrap().servers().len(), 64);
    assert_eq!(
        ServerCore::new(servers(65)),
        Err(PlacementError::CoreTooLarge { len: 65, max: 64 })
    );
    let net = MemoryFabric::new();
    let (s1, ann) = (
        net.join(peer("s1")).unwrap(),
        net.join(peer("ann")).unwrap(),
    );
    let server = game_server(port_of(&ann, "sum"), sum(), options(), config(1)).await;
    let not_in_core = PlacementError::NotInCore(peer("ann"));
    assert_eq!(server.err(), Some(OpenError::Placement(not_in_core)));
    let in_core = OpenError::Placement(PlacementError::InCore(peer("s1")));
    assert_eq!(
        play(&s1, "sum", 2, 1).await.err(),
        Some(JoinError::Open(in_core))
    );
    for seats in [0, 65] {
        let options = CoreOptions { seats, ..options() };
        let refused = game_server(port_of(&s1, "sum"), sum(), options, config(3)).await;
        let len = seats as usize;
        assert_eq!(refused.err(), Some(OpenError::Roster { len, max: 64 }));
    }
    let options = CoreOptions {
        spectators_max: 129,
        ..options()
    };
    let refused = game_server(port_of(&s1, "sum"), sum(), options, config(4)).await;
    let (len, max) = (129, 128);
    assert_eq!(refused.err(), Some(OpenError::Gallery { len, max }));
    // Nothing was left open by any of it.
    let nobody = JoinOptions {
        within: Duration::from_secs(1),
        ..joining(1)
    };
    let tried = game_player(port_of(&ann, "sum"), sum(), core(), nobody, config(5)).await;
    assert_eq!(
        tried.err(),
        Some(JoinError::Timeout(Duration::from_secs(1)))
    );
}

#[tokio::test(start_paused = true)]
async fn the_paths_that_seat_votes_on_players_refuse_a_game_whose_votes_are_on_servers() {
    let mut table = table().await;
    let session = table.servers[0].id();
    let gone = table.players.pop().unwrap();
    gone.leave(Duration::from_secs(5)).await;
    let cyd = table.net.join(peer("cyd")).unwrap();
    let hosting = HostOptions::new(2, Incarnation(1));
    let hosted = game_host(port_of(&cyd, "sum"), sum(), hosting, config(20)).await;
    assert!(
        matches!(hosted, Err(HostError::DuplicateHost { session: theirs, .. }) if theirs == session)
    );
    // However patient it is, whoever leads says so at once, and gives it no seat.
    let patient = JoinOptions {
        within: Duration::from_secs(3600),
        ..joining(1)
    };
    let asked_at = tokio::time::Instant::now();
    let joined = game_join(port_of(&cyd, "sum"), sum(), patient, config(21)).await;
    assert_eq!(joined.err(), Some(JoinError::CoreVotes));
    assert!(asked_at.elapsed() < Duration::from_secs(60), "virtual time");
    let leads = |s: &&Session| s.node().status().borrow().role == Role::Leader;
    let leader = table.servers.iter().find(leads).unwrap();
    assert_eq!(seat_of(leader, "cyd"), None);
    let other = JoinOptions {
        session: Some(cabinet_consensus::ids::SessionId(7)),
        ..joining(2)
    };
    let asked = game_player(port_of(&cyd, "sum"), sum(), core(), other, config(22)).await;
    assert_eq!(asked.err(), Some(JoinError::WrongSession { session }));
    assert_eq!(add(&play(&cyd, "sum", 23, 2).await.unwrap(), 5).await, 5);
    only_servers_vote(&table.servers[0]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_leaves_hands_over_and_closes_at_once_whatever_time_it_has() {
    for within in [Duration::from_secs(600), Duration::MAX] {
        let mut table = table().await;
        let players = std::mem::take(&mut table.players);
        add(&players[0], 1).await;
        for gone in [true, false] {
            let leads = |s: &Session| s.node().status().borrow().role == Role::Leader;
            let wanted = table.servers.iter().position(|s| leads(s) == gone);
            let server = table.servers.remove(wanted.unwrap());
            let begun = tokio::time::Instant::now();
            assert!(server.leave(within).await, "it does not lead");
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(30), "{took:?}, virtual time");
            if gone {
                // Its vote is its own still.
                assert_eq!(add(&players[1], 1).await, 2);
                only_servers_vote(&players[0]);
            }
        }
    }
    // Where nobody could take over, nobody is waited for.
    let net = MemoryFabric::new();
    let s1 = net.join(peer("s1")).unwrap();
    let options = CoreOptions {
        core: ServerCore::new([peer("s1")]).unwrap(),
        ..options()
    };
    let alone = game_server(port_of(&s1, "sum"), sum(), options, config(1)).await;
    let alone = alone.unwrap();
    until("it leads", || {
        alone.node().status().borrow().role == Role::Leader
    })
    .await;
    let begun = tokio::time::Instant::now();
    assert!(!alone.leave(Duration::MAX).await, "to nobody");
    assert!(begun.elapsed() < Duration::from_secs(30), "virtual time");
}

#[tokio::test(start_paused = true)]
async fn two_games_on_the_same_connections_know_nothing_of_each_other() {
    let net = MemoryFabric::new();
    let at: Vec<_> = SERVERS.iter().map(|n| net.join(peer(n)).unwrap()).collect();
    let players: Vec<_> = ["ann", "bob"]
        .iter()
        .map(|n| net.join(peer(n)).unwrap())
        .collect();
    let (red, blue) = (serve(&at, "red").await, serve(&at, "blue").await);
    let (ann_red, bob_red) = (
        play(&players[0], "red", 10, 1).await.unwrap(),
        play(&players[1], "red", 11, 1).await.unwrap(),
    );
    let (ann_blue, bob_blue) = (
        play(&players[0], "blue", 12, 1).await.unwrap(),
        play(&players[1], "blue", 13, 1).await.unwrap(),
    );
    assert_ne!(ann_red.id(), ann_blue.id());
    assert_eq!(add(&ann_red, 1).await, 1);
    assert_eq!(add(&bob_blue, 10).await, 10);
    assert_eq!(add(&bob_red, 1).await, 2);
    assert_eq!(add(&ann_blue, 10).await, 20);
    // What is said in one is not heard in the other, though the channel's name is the same.
    let [said, heard, elsewhere] =
        [&ann_red, &bob_red, &bob_blue].map(|session| session.app_channel("chat").unwrap());
    let (mut heard, mut elsewhere) = (heard.incoming().unwrap(), elsewhere.incoming().unwrap());
    said.broadcast(b"red only").unwrap();
    assert_eq!(&heard.recv().await.unwrap().frame[..], b"red only");
    assert!(elsewhere.try_recv().is_none());
    // One game's end is not the other's.
    for session in red.iter().chain([&ann_red, &bob_red]) {
        session.close().await;
    }
    assert_eq!(add(&bob_blue, 10).await, 30);
    for session in blue.iter().chain([&ann_blue, &bob_blue]) {
        assert_eq!(session.node().dropped_frames().other_session, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn players_on_servers_speak_to_each_other_and_to_one_alone() {
    let table = table().await;
    let [ann, bob] = [0, 1].map(|n| table.players[n].app_channel("chat").unwrap());
    let server = table.servers[0].app_channel("chat").unwrap();
    let (mut to_bob, mut to_server) = (bob.incoming().unwrap(), server.incoming().unwrap());
    assert_eq!(ann.broadcast(b"hello"), Ok(4));
    ann.send_to(&peer("bob"), b"psst").unwrap();
    assert_eq!(&to_bob.recv().await.unwrap().frame[..], b"hello");
    assert_eq!(&to_bob.recv().await.unwrap().frame[..], b"psst");
    assert_eq!(&to_server.recv().await.unwrap().frame[..], b"hello");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(to_server.try_recv().is_none());
}
