//! The same things asked of every way into a game: channels, closing twice, names with delimiters in
//! them, and what a full house says.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::config::{Compaction, ConfigError, TIME_MAX};
use cabinet_consensus::fabric::{MemoryFabric, MemoryPeer};
use cabinet_consensus::game::Blueprint;
use cabinet_consensus::ids::Incarnation;
use cabinet_consensus::log::{LogStore, MemoryLog};
use cabinet_consensus::session::{
    CoreOptions, GameSession, HostError, HostOptions, JoinError, JoinOptions, OpenError,
    ResumeError, ServerCore, SessionConfig, game_host, game_join, game_node, game_player,
    game_resume, game_server, game_spectate, game_witness,
};
use common::{Sum, config, peer, port, sum, until};

type Session = GameSession<Sum>;

fn hosting(seats: u32) -> HostOptions {
    HostOptions {
        claim_wait: Duration::from_millis(200),
        ..HostOptions::new(seats, Incarnation(1))
    }
}

fn joining() -> JoinOptions {
    JoinOptions::new(Incarnation(1))
}

fn join_net<const N: usize>(net: &MemoryFabric, names: [&str; N]) -> [Arc<MemoryPeer>; N] {
    names.map(|name| net.join(peer(name)).unwrap())
}

/// Two peers of a known roster.
async fn known() -> Vec<Session> {
    let at = join_net(&MemoryFabric::new(), ["ann", "bob"]);
    let roster: BTreeSet<_> = ["ann", "bob"].map(peer).into();
    let mut sessions = Vec::new();
    for (n, at) in at.iter().enumerate() {
        let opened = game_node(port(at), sum(), roster.clone(), config(n as u64)).await;
        sessions.push(opened.unwrap());
    }
    sessions
}

/// A host, a player, a watcher and a witness.
async fn hosted(names: [&str; 4]) -> (MemoryFabric, Vec<Session>) {
    let net = MemoryFabric::new();
    let at = join_net(&net, names);
    let options = HostOptions {
        spectators_max: 1,
        witness: true,
        ..hosting(2)
    };
    let (host, player, watcher, witness) = tokio::join!(
        game_host(port(&at[0]), sum(), options, config(1)),
        game_join(port(&at[1]), sum(), joining(), config(2)),
        game_spectate(port(&at[2]), sum(), joining(), config(3)),
        game_witness(port(&at[3]), sum(), joining(), config(4))
    );
    let sessions = vec![
        host.unwrap(),
        player.unwrap(),
        watcher.unwrap(),
        witness.unwrap(),
    ];
    (net, sessions)
}

/// A server that votes and two players that ride.
async fn served() -> Vec<Session> {
    let at = join_net(&MemoryFabric::new(), ["srv", "ann", "bob"]);
    let core = ServerCore::new([peer("srv")]).unwrap();
    let options = CoreOptions {
        core: core.clone(),
        seats: 2,
        spectators_max: 0,
    };
    let mut sessions = vec![
        game_server(port(&at[0]), sum(), options, config(1))
            .await
            .unwrap(),
    ];
    for (n, at) in (2..).zip(&at[1..]) {
        let played = game_player(port(at), sum(), core.clone(), joining(), config(n)).await;
        sessions.push(played.unwrap());
    }
    sessions
}

#[tokio::test(start_paused = true)]
async fn on_every_path_turns_are_taken_channels_go_both_ways_and_closing_twice_is_harmless() {
    let (_net, hosted) = hosted(["ann", "bob", "eve", "srv"]).await;
    for sessions in [known().await, hosted, served().await] {
        for (n, session) in (1..).zip(&sessions) {
            let decided = session.sequencer().propose(&1).await.unwrap();
            assert_eq!(decided.turn, n);
        }
        let channels: Vec<_> = sessions
            .iter()
            .map(|session| session.app_channel("chat").unwrap())
            .collect();
        let mut readers: Vec<_> = channels.iter().map(|c| c.incoming().unwrap()).collect();
        for (from, channel) in channels.iter().enumerate() {
            let said = format!("from {from}").into_bytes();
            assert_eq!(channel.broadcast(&said), Ok(sessions.len() - 1));
            for (to, reader) in readers.iter_mut().enumerate() {
                if to != from {
                    assert_eq!(reader.recv().await.unwrap().frame[..], said[..]);
                }
            }
        }
        for session in &sessions {
            session.close().await;
            session.close().await;
        }
        for reader in &mut readers {
            assert!(reader.recv().await.is_none(), "it ends with its session");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn names_with_delimiters_in_them_are_names() {
    let names = ["ann:1/2", "bob,cyd;#", "eve \"=\" |", "srv//:0"];
    let (net, sessions) = hosted(names).await;
    let seats = sessions[3].seats();
    let players: Vec<_> = seats.players().map(|node| node.peer.as_str()).collect();
    assert_eq!(players, names[..2]);
    let voters: BTreeSet<_> = [names[0], names[1], names[3]].map(peer).into();
    let known = sessions[2]
        .node()
        .voters()
        .into_iter()
        .map(|node| node.peer);
    assert_eq!(known.collect::<BTreeSet<_>>(), voters);
    for session in &sessions {
        assert!(session.sequencer().propose(&1).await.unwrap().is_accepted());
    }
    // Names that differ only where a delimiter stands are two peers, and the second finds no seat.
    let [other] = join_net(&net, ["ann:1/22"]);
    let full = game_join(port(&other), sum(), joining(), config(9)).await;
    assert_eq!(full.err(), Some(JoinError::RosterFull));
}

#[tokio::test(start_paused = true)]
async fn a_full_roster_says_so_with_a_watcher_there_and_eviction_on() {
    let (net, sessions) = hosted(["ann", "bob", "eve", "srv"]).await;
    let [cyd] = join_net(&net, ["cyd"]);
    let full = game_join(port(&cyd), sum(), joining(), config(9)).await;
    assert_eq!(full.err(), Some(JoinError::RosterFull));
    let watched = game_spectate(port(&cyd), sum(), joining(), config(10)).await;
    assert_eq!(watched.err(), Some(JoinError::SpectatorsClosed));
    let witness = game_witness(port(&cyd), sum(), joining(), config(11)).await;
    assert_eq!(witness.err(), Some(JoinError::NoWitness));
    assert!(sessions[2].sequencer().propose(&1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn nobody_watches_a_game_that_takes_no_watchers() {
    let net = MemoryFabric::new();
    let at = join_net(&net, ["ann", "bob", "eve"]);
    let (host, bob) = tokio::join!(
        game_host(port(&at[0]), sum(), hosting(2), config(1)),
        game_join(port(&at[1]), sum(), joining(), config(2))
    );
    let (host, _bob) = (host.unwrap(), bob.unwrap());
    let watched = game_spectate(port(&at[2]), sum(), joining(), config(3)).await;
    assert_eq!(watched.err(), Some(JoinError::SpectatorsClosed));
    assert!(host.node().learners().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_watches_does_not_vote_after_a_dead_player_was_replaced() {
    let net = MemoryFabric::new();
    let at = join_net(&net, ["ann", "bob", "cyd", "eve"]);
    let options = HostOptions {
        spectators_max: 1,
        ..hosting(3)
    };
    let (host, bob, cyd, eve) = tokio::join!(
        game_host(port(&at[0]), sum(), options, config(1)),
        game_join(port(&at[1]), sum(), joining(), config(2)),
        game_join(port(&at[2]), sum(), joining(), config(3)),
        game_spectate(port(&at[3]), sum(), joining(), config(4))
    );
    let (host, _bob, cyd, eve) = (host.unwrap(), bob.unwrap(), cyd.unwrap(), eve.unwrap());
    at[2].leave();
    cyd.close().await;
    until("the dead voter is put out", || {
        host.node().voters().len() == 2
    })
    .await;
    let [dan] = join_net(&net, ["dan"]);
    let dan = game_join(port(&dan), sum(), joining(), config(5))
        .await
        .unwrap();
    let voters: BTreeSet<_> = dan.node().voters().into_iter().map(|n| n.peer).collect();
    assert_eq!(voters, ["ann", "bob", "dan"].map(peer).into());
    until("the watcher is there still", || {
        eve.node().learners().contains(eve.node().id()) && eve.node().voters().len() == 3
    })
    .await;
}

/// What every way in answers to these settings.
async fn opened_with(config: SessionConfig) -> Vec<Option<OpenError>> {
    fn of_join(tried: Result<Session, JoinError>) -> Option<OpenError> {
        match tried.err()? {
            JoinError::Open(error) => Some(error),
            other => panic!("unexpected {other:?}"),
        }
    }
    let net = MemoryFabric::new();
    let at = net.join(peer("ann")).unwrap();
    let port = || port(&at);
    let game = || Blueprint::with_snapshots(Sum::default);
    let core = |name| ServerCore::new([peer(name)]).unwrap();
    let options = CoreOptions {
        core: core("ann"),
        seats: 1,
        spectators_max: 0,
    };
    let config = || config.clone();
    let roster = [peer("ann")].into();
    let resumed = match game_resume(port(), game(), config()).await.err() {
        Some(ResumeError::Open(error)) => Some(error),
        other => panic!("unexpected {other:?}"),
    };
    let hosted = match game_host(port(), game(), hosting(1), config()).await.err() {
        Some(HostError::Open(error)) => Some(error),
        other => panic!("unexpected {other:?}"),
    };
    let joined = joining;
    vec![
        game_node(port(), game(), roster, config()).await.err(),
        hosted,
        of_join(game_join(port(), game(), joined(), config()).await),
        of_join(game_spectate(port(), game(), joined(), config()).await),
        of_join(game_witness(port(), game(), joined(), config()).await),
        resumed,
        game_server(port(), game(), options, config()).await.err(),
        of_join(game_player(port(), game(), core("srv"), joined(), config()).await),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_way_in_refuses_settings_that_cannot_be_and_begins_nothing() {
    type Set = fn(&mut SessionConfig);
    let settings: [Set; 8] = [
        |config| config.timing.election_max_ms = u64::MAX,
        |config| config.limits.channels_max = 0,
        |config| config.admission.alive_within = Duration::ZERO,
        |config| config.admission.evict_after = Some(Duration::from_millis(10)),
        |config| config.admission.admit_within = Duration::MAX,
        |config| config.client_ttl = Duration::ZERO,
        |config| config.events.events_max = 0,
        |config| {
            config.compaction = Some(Compaction {
                entries: 0,
                ..Compaction::default()
            });
        },
    ];
    for (n, set) in settings.into_iter().enumerate() {
        let log = MemoryLog::new();
        let mut config = SessionConfig {
            log: Arc::new(log.clone()),
            ..config(1)
        };
        set(&mut config);
        let answers = opened_with(config).await;
        assert_eq!(answers.len(), 8);
        for answer in answers {
            assert!(
                matches!(answer, Some(OpenError::Config(_))),
                "setting {n}: {answer:?}"
            );
        }
        assert!(log.state().unwrap().identity.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn no_way_in_is_tried_for_longer_than_a_year() {
    let net = MemoryFabric::new();
    let at = net.join(peer("ann")).unwrap();
    let past = TIME_MAX + Duration::from_nanos(1);
    let forever = JoinOptions {
        within: past,
        ..joining()
    };
    let core = ServerCore::new([peer("srv")]).unwrap();
    let joins = [
        game_join(port(&at), sum(), forever.clone(), config(1)).await,
        game_player(port(&at), sum(), core, forever, config(1)).await,
    ];
    for joined in joins {
        let refused = JoinError::Open(OpenError::Config(ConfigError::TooLong {
            what: "JoinOptions::within",
            value: past,
            max: TIME_MAX,
        }));
        assert_eq!(joined.err(), Some(refused));
    }
    let waiting = HostOptions {
        claim_wait: past,
        ..hosting(1)
    };
    let patient = HostOptions {
        within: Some(past),
        ..hosting(1)
    };
    for options in [waiting, patient] {
        let hosted = game_host(port(&at), sum(), options, config(1)).await.err();
        let too_long = matches!(
            hosted,
            Some(HostError::Open(OpenError::Config(
                ConfigError::TooLong { .. }
            )))
        );
        assert!(too_long, "{hosted:?}");
    }
    // At the limit it is tried, for as long as somebody waits.
    let year = JoinOptions {
        within: TIME_MAX,
        ..joining()
    };
    let joined = game_join(port(&at), sum(), year, config(1));
    let waited = tokio::time::timeout(Duration::from_secs(60), joined).await;
    assert!(waited.is_err());
    let options = HostOptions {
        within: Some(TIME_MAX),
        ..hosting(1)
    };
    let hosted = game_host(port(&at), sum(), options, config(1)).await;
    assert!(!hosted.unwrap().leave(Duration::MAX).await, "to nobody");
}
