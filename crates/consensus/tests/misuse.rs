//! What nobody should do with a session, and what comes of it: an error that says so, never a panic
//! and never a wait without end.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::config::{Compaction, FeedLimits, Limits};
use cabinet_consensus::fabric::{MemoryFabric, MemoryPeer, Port, PortError};
use cabinet_consensus::game::{Blueprint, Game, TurnInfo};
use cabinet_consensus::ids::{GameId, Incarnation};
use cabinet_consensus::session::{
    ChannelError, ChannelSendError, GameSession, HostOptions, JoinError, JoinOptions, OpenError,
    SessionConfig, game_host, game_join, game_node,
};
use cabinet_consensus::turns::{
    NotProposed, Proposal, ProposeError, ReadError, Ruling, SpeculationOptions,
    SpeculativeSequencer, TurnError,
};
use common::{NAMES, Sum, fast, peer, port, roster, sum};

const LONG: Duration = Duration::from_secs(20);

struct Table {
    peers: [Arc<MemoryPeer>; 3],
    sessions: Vec<GameSession<Sum>>,
}

/// A game that the first `open` of three peers have opened.
async fn table(open: usize, set: impl Fn(&mut SessionConfig)) -> Table {
    let net = MemoryFabric::new();
    let peers = NAMES.map(|name| net.join(peer(name)).unwrap());
    let mut sessions = Vec::new();
    for at in &peers[..open] {
        // Every process with the same nonce, which nobody should give them either.
        let mut config = fast(7);
        set(&mut config);
        let blueprint = Blueprint::with_snapshots(Sum::default);
        let opened = game_node(port(at), blueprint, roster(), config).await;
        sessions.push(opened.unwrap());
    }
    Table { peers, sessions }
}

/// Whatever is asked, it is answered.
async fn answered<T>(asked: impl Future<Output = T>) -> T {
    let answered = tokio::time::timeout(LONG, asked).await;
    answered.expect("it was never answered")
}

#[tokio::test(start_paused = true)]
async fn a_closed_session_says_so_to_whatever_is_asked_of_it() {
    let Table { sessions, .. } = table(3, |_| {}).await;
    let session = &sessions[0];
    let sequencer = session.sequencer();
    sequencer.propose(&1).await.unwrap();
    let view = SpeculativeSequencer::start(sequencer.clone(), SpeculationOptions::default());
    let view = view.unwrap();
    let mut events = sequencer.events();
    let channel = session.app_channel("chat").unwrap();
    let mut reader = channel.incoming().unwrap();
    let node = session.node();
    let other = sessions[1].node().id().clone();

    answered(session.close()).await;
    answered(session.close()).await;

    let said = answered(sequencer.propose(&1)).await;
    assert!(matches!(
        said,
        Err(TurnError::Propose(ProposeError::Closed))
    ));
    let said = answered(sequencer.propose_with_id(9, &1)).await;
    let Err(TurnError::Propose(ProposeError::Unknown { .. })) = said else {
        panic!("an attempt before may have been taken: {said:?}");
    };
    assert_eq!(
        answered(sequencer.read_barrier(LONG)).await,
        Err(ReadError::Closed)
    );
    assert_eq!(sequencer.read_local(|seen| seen.game.clone()), Sum(1));
    while answered(events.next()).await.is_some() {}
    assert!(answered(reader.recv()).await.is_none());
    let reopened = session.app_channel("chat").unwrap_err();
    assert_eq!(reopened, ChannelError::Closed);
    let sent = channel.broadcast(b"hello").unwrap_err();
    assert_eq!(sent, ChannelSendError::Closed);
    assert!(answered(node.transfer(&other, LONG)).await.is_err());
    let shown = answered(view.propose(1)).await.err();
    assert!(matches!(
        shown,
        Some(NotProposed::Propose(ProposeError::Closed))
    ));
    let late = SpeculativeSequencer::start(session.sequencer(), SpeculationOptions::default());
    // It may not know yet that the session is over, and then its ticket does.
    let ticket = answered(late.unwrap().propose(1)).await;
    let decided = match ticket {
        Ok(ticket) => answered(ticket.decided()).await.is_ok(),
        Err(NotProposed::Propose(ProposeError::Closed)) => false,
        Err(other) => panic!("unexpected {other:?}"),
    };
    assert!(!decided);
    answered(session.leave(LONG)).await;
    assert_eq!(session.seats().players().count(), 3, "it keeps its seat");
}

#[tokio::test(start_paused = true)]
async fn the_longest_times_and_none_at_all_are_taken() {
    // One of three: nobody ever leads.
    let Table { sessions, .. } = table(1, |_| {}).await;
    let session = &sessions[0];
    let sequencer = session.sequencer();
    let other = session.node().id().clone();
    let within = |within| Proposal {
        within,
        ..Proposal::default()
    };
    let ever = Duration::MAX;
    let waits = async {
        tokio::join!(
            sequencer.propose_with(&1, within(ever)),
            sequencer.read_barrier(ever),
        )
    };
    assert!(tokio::time::timeout(LONG, waits).await.is_err());
    assert!(
        answered(session.node().transfer(&other, ever))
            .await
            .is_err()
    );

    let none = Duration::ZERO;
    let said = answered(sequencer.propose_with(&1, within(none))).await;
    assert!(matches!(
        said,
        Err(TurnError::Propose(ProposeError::NotAppended { .. }))
    ));
    let said = answered(sequencer.read_barrier(none)).await;
    assert_eq!(said, Err(ReadError::NoQuorum));
    assert_eq!(session.node().state(ever).leader, None);
    // It leaves for as long as it is given, and stops when it is not waited for any more.
    let left = tokio::time::timeout(LONG, session.leave(ever)).await;
    assert!(left.is_err());
    let left = answered(session.leave(none)).await;
    assert!(!left, "nobody knows");
}

#[tokio::test(start_paused = true)]
async fn names_are_taken_at_their_limits_and_refused_past_them() {
    let Table { peers, sessions } = table(3, |config| config.limits.channels_max = 2).await;
    let session = &sessions[0];
    let longest = "n".repeat(255);
    let opened = session.app_channel(&longest).unwrap();
    assert_eq!(opened.name(), longest);
    for name in [String::new(), "n".repeat(256)] {
        let refused = session.app_channel(&name).unwrap_err();
        assert_eq!(refused, ChannelError::Name { len: name.len() });
    }
    // The same name is the same channel, and a third one is too many.
    let _again = session.app_channel(&longest).unwrap();
    let _other = session.app_channel("\0 any text ☃").unwrap();
    let third = session.app_channel("third").unwrap_err();
    assert_eq!(third, ChannelError::TooMany { max: 2 });
    let _reads = opened.incoming().unwrap();
    let second = opened.incoming().unwrap_err();
    assert_eq!(second, ChannelError::ReaderTaken { name: longest });

    // One game is open once on a fabric, and others beside it.
    let taken = Port::open(peers[0].clone(), GameId::new("sum").unwrap()).err();
    assert!(matches!(taken, Some(PortError::Taken(_))), "{taken:?}");
    let beside = Port::open(peers[0].clone(), GameId::new("sum 2").unwrap()).unwrap();
    let alone = [peer(NAMES[0])].into();
    let beside = game_node(beside, sum(), alone, fast(8)).await.unwrap();
    let decided = answered(beside.sequencer().propose(&5)).await.unwrap();
    assert!(decided.is_accepted());
    assert_eq!(session.sequencer().read(|seen| seen.game.0).await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn one_configuration_for_two_peers_is_one_log_too_many() {
    let net = MemoryFabric::new();
    let roster: BTreeSet<_> = ["ann", "bob"].map(peer).into();
    let [ann, bob] = ["ann", "bob"].map(|name| net.join(peer(name)).unwrap());
    let config = fast(1);
    let first = game_node(port(&ann), sum(), roster.clone(), config.clone()).await;
    let first = first.unwrap();
    let second = game_node(port(&bob), sum(), roster.clone(), config.clone()).await;
    let Err(OpenError::OtherOwner { owner }) = second else {
        panic!("unexpected {second:?}");
    };
    assert_eq!(owner.node, *first.node().id());
    // Its own log, without opening it anew.
    answered(first.close()).await;
    let again = game_node(port(&ann), sum(), roster, config).await;
    assert!(matches!(again, Err(OpenError::Log(_))), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn who_joins_twice_as_the_same_life_is_told_that_its_log_is_lost() {
    let net = MemoryFabric::new();
    let [ann, bob, cyd] = NAMES.map(|name| net.join(peer(name)).unwrap());
    let options = HostOptions {
        claim_wait: Duration::from_millis(100),
        ..HostOptions::new(3, Incarnation(1))
    };
    let joining = || JoinOptions::new(Incarnation(1));
    let (host, guest, third) = tokio::join!(
        game_host(port(&ann), sum(), options, fast(1)),
        game_join(port(&bob), sum(), joining(), fast(2)),
        game_join(port(&cyd), sum(), joining(), fast(5)),
    );
    let (host, guest, _third) = (host.unwrap(), guest.unwrap(), third.unwrap());
    drop(guest);
    let again = answered(game_join(port(&bob), sum(), joining(), fast(3))).await;
    assert_eq!(again.err(), Some(JoinError::LogLost));
    let next = JoinOptions::new(Incarnation(2));
    let again = answered(game_join(port(&bob), sum(), next, fast(4))).await;
    let again = again.unwrap();
    let older = answered(again.sequencer().propose(&3)).await.unwrap();
    assert!(older.is_accepted());
    answered(host.close()).await;
}

#[tokio::test(start_paused = true)]
async fn a_game_with_every_limit_at_one_is_played() {
    let Table { sessions, .. } = table(3, |config| {
        config.limits = Limits {
            // A number has eight bytes.
            action_bytes_max: 8,
            outcome_bytes_max: 1,
            pending_max: 1,
            pending_total_max: 1,
            channels_max: 1,
            channel_frames_max: 1,
            snapshot_bytes_max: 1,
            snapshot_chunk_bytes: 1,
            log_kept_after_snapshot: 0,
        };
        config.events = FeedLimits {
            events_max: 1,
            bytes_max: 1,
        };
        config.hash_every = 1;
        config.compaction = Some(Compaction {
            entries: 1,
            bytes: 1,
            age: Duration::from_nanos(1),
        });
    })
    .await;
    let mut lagging = sessions[2].sequencer().events_from(1);
    for turn in 1..=6u64 {
        let sequencer = sessions[turn as usize % 3].sequencer();
        let decided = answered(sequencer.propose(&turn)).await.unwrap();
        // A sum has eight bytes, too.
        let Ruling::Withheld { accepted: true, .. } = decided.ruling else {
            panic!("unexpected {decided:?}");
        };
    }
    for session in &sessions {
        let sum = answered(session.sequencer().read(|seen| seen.game.0)).await;
        assert_eq!(sum, Ok(21));
    }
    assert!(answered(lagging.next()).await.is_some());
    let sequencer = sessions[0].sequencer();
    let (one, other) =
        answered(async { tokio::join!(sequencer.propose(&1), sequencer.propose(&1)) }).await;
    assert!(one.is_ok(), "{one:?}");
    assert!(
        matches!(
            other,
            Err(TurnError::Propose(
                ProposeError::TooManyPending { .. } | ProposeError::Overloaded
            ))
        ),
        "{other:?}"
    );
}

/// A game whose rules break.
#[derive(Debug, Clone, Default)]
struct Breaks;

impl Game for Breaks {
    type Action = u64;
    type Outcome = ();
    type Refusal = ();

    fn apply(&mut self, _: &TurnInfo, action: &u64) -> Result<(), ()> {
        assert_ne!(*action, 13, "thirteen");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_game_that_panics_stops_its_nodes_and_whoever_waits_is_told() {
    let net = MemoryFabric::new();
    let ann = net.join(peer("ann")).unwrap();
    let blueprint = Blueprint::new(Breaks::default);
    let alone = [peer("ann")].into();
    let session = game_node(port(&ann), blueprint, alone, fast(1))
        .await
        .unwrap();
    let sequencer = session.sequencer();
    answered(sequencer.propose(&1)).await.unwrap();
    let said = answered(sequencer.propose(&13)).await;
    assert!(matches!(
        said,
        Err(TurnError::Propose(ProposeError::Unknown { .. }))
    ));
    let mut status = session.node().status();
    let stopped = answered(status.wait_for(|status| status.stopped.is_some())).await;
    assert!(stopped.is_ok());
    assert!(answered(sequencer.propose(&1)).await.is_err());
    assert!(answered(sequencer.read_barrier(LONG)).await.is_err());
    answered(session.leave(LONG)).await;
    answered(session.close()).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_in_the_middle_holds_nothing_up() {
    let Table { sessions, .. } = table(3, |config| config.limits.pending_max = 2).await;
    let sequencer = sessions[0].sequencer();
    for _ in 0..20 {
        let dropped = tokio::time::timeout(Duration::from_millis(1), sequencer.propose(&1));
        drop(dropped.await);
        drop(sequencer.read_barrier(LONG));
        drop(sequencer.events_from(1));
        drop(sessions[0].app_channel("chat"));
    }
    let decided = answered(sequencer.propose(&1)).await.unwrap();
    assert!(decided.is_accepted());
    let transfer = sessions[0].node();
    let other = sessions[1].node().id().clone();
    let half = tokio::time::timeout(Duration::from_millis(1), transfer.transfer(&other, LONG));
    drop(half.await);
    for session in &sessions {
        let decided = answered(session.sequencer().propose(&1)).await.unwrap();
        assert!(decided.is_accepted());
    }
    // Dropped, not closed: the two others play on.
    let mut others = sessions.into_iter();
    drop(others.next());
    for session in others.as_slice() {
        let decided = answered(session.sequencer().propose(&1)).await.unwrap();
        assert!(decided.is_accepted());
    }
}
