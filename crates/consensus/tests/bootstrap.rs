//! Hosting, joining, watching, leaving and coming back, in one process and in virtual time.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::fabric::{MemoryFabric, MemoryPeer, SendError};
use cabinet_consensus::ids::Incarnation;
use cabinet_consensus::raft::Role;
use cabinet_consensus::session::{
    ChannelError, ChannelSendError, GameSession, HostError, HostOptions, JoinError, JoinOptions,
    OpenError, ReturnPolicy, SessionConfig, game_host, game_join, game_node, game_spectate,
    game_witness,
};
use cabinet_consensus::state::seats::{SEATS_MAX, SPECTATORS_MAX, SeatTable};
use cabinet_consensus::turns::{Ruling, TurnEvent};
use common::{Sum, config, peer, port, sum, until};

type Session = GameSession<Sum>;

fn hosting(seats: u32) -> HostOptions {
    HostOptions {
        claim_wait: Duration::from_millis(200),
        ..HostOptions::new(seats, Incarnation(1))
    }
}

fn joining(incarnation: u64) -> JoinOptions {
    JoinOptions::new(Incarnation(incarnation))
}

/// A member that does not answer keeps its place, as it does unless something else is said.
fn keeps_the_dead(nonce: u64) -> SessionConfig {
    let mut config = config(nonce);
    config.admission.evict_after = None;
    config
}

async fn join(at: &Arc<MemoryPeer>, nonce: u64, life: u64) -> Result<Session, JoinError> {
    game_join(port(at), sum(), joining(life), config(nonce)).await
}

/// A host and its joiners, every seat taken.
async fn table(net: &MemoryFabric, names: &[&str]) -> Vec<(Arc<MemoryPeer>, Session)> {
    let peers: Vec<_> = names.iter().map(|n| net.join(peer(n)).unwrap()).collect();
    let host = game_host(
        port(&peers[0]),
        sum(),
        hosting(names.len() as u32),
        config(1),
    );
    let others = futures_util::future::join_all(
        peers[1..]
            .iter()
            .enumerate()
            .map(|(n, at)| join(at, 10 + n as u64, 1)),
    );
    let (host, others) = tokio::join!(host, others);
    let mut sessions = vec![host.unwrap()];
    sessions.extend(others.into_iter().map(Result::unwrap));
    peers.into_iter().zip(sessions).collect()
}

async fn add(session: &Session, n: u64) -> u64 {
    match session.sequencer().propose(&n).await.unwrap().ruling {
        Ruling::Accepted(total) => total,
        other => panic!("unexpected {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_returns_once_every_seat_is_taken_and_everybody_plays() {
    let net = MemoryFabric::new();
    let game = table(&net, &["ann", "bob", "cyd"]).await;
    for (n, (_, session)) in game.iter().enumerate() {
        assert_eq!(add(session, 1).await, n as u64 + 1);
        assert_eq!(session.id(), game[0].1.id());
    }
    let seats = game[0].1.seats();
    let who: Vec<_> = seats.players().map(|node| node.peer.as_str()).collect();
    assert_eq!(who.len(), 3);
    assert_eq!(who[0], "ann");
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_missed_who_joined_votes_for_them_when_the_others_it_knows_are_dead() {
    let net = MemoryFabric::new();
    let at = ["ann", "bob", "cyd", "dee", "eve"].map(|name| net.join(peer(name)).unwrap());
    let options = HostOptions {
        return_at: ReturnPolicy::Quorum,
        ..hosting(5)
    };
    let enter = |n: usize| {
        let config = keeps_the_dead(n as u64 + 2);
        game_join(port(&at[n]), sum(), joining(1), config)
    };
    let (ann, bob, cyd) = tokio::join!(
        game_host(port(&at[0]), sum(), options, keeps_the_dead(1)),
        enter(1),
        enter(2)
    );
    let (ann, bob, cyd) = (ann.unwrap(), bob.unwrap(), cyd.unwrap());
    assert_eq!(add(&cyd, 1).await, 1);
    for other in ["ann", "cyd", "dee", "eve"] {
        net.cut(&peer("bob"), &peer(other));
    }
    let (dee, eve) = tokio::join!(enter(3), enter(4));
    let (dee, eve) = (dee.unwrap(), eve.unwrap());
    let all_vote = || {
        [&ann, &cyd, &dee, &eve]
            .iter()
            .all(|s| s.node().voters().len() == 5)
    };
    until("five vote", all_vote).await;
    assert_eq!(add(&eve, 2).await, 3);
    assert_eq!(bob.node().voters().len(), 3, "it has missed that");
    at[0].leave();
    at[2].leave();
    tokio::time::sleep(Duration::from_secs(1)).await;
    net.heal();
    assert_eq!(add(&dee, 3).await, 6);
    assert_eq!(add(&bob, 4).await, 10);
    assert_eq!(bob.node().voters().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_leader_leaves_its_seat_though_the_last_of_the_others_is_dead() {
    for dead_for in [Duration::ZERO, Duration::from_secs(1)] {
        let net = MemoryFabric::new();
        let names = ["ann", "bob", "cyd", "dee", "eve"];
        let roster: std::collections::BTreeSet<_> = names.map(peer).into();
        let mut nodes = Vec::new();
        for (n, name) in names.into_iter().enumerate() {
            let at = net.join(peer(name)).unwrap();
            let config = keeps_the_dead(n as u64);
            let opened = game_node(port(&at), sum(), roster.clone(), config).await;
            nodes.push((at, opened.unwrap()));
        }
        add(&nodes[0].1, 1).await;
        let leads = |(_, session): &(_, Session)| {
            let status = session.node().status().get();
            status.role == Role::Leader
        };
        let leader = nodes.iter().position(leads).unwrap();
        let (_, leaver) = nodes.remove(leader);
        // All have the whole log: of those the last name was asked to lead.
        let (dead, _) = nodes.last().unwrap();
        dead.leave();
        tokio::time::sleep(dead_for).await;
        let name = names[leader];
        assert!(leaver.leave(Duration::from_secs(5)).await);
        let other = &nodes[0].1;
        assert_eq!(add(other, 1).await, 2);
        let sits = |seats: SeatTable| seats.players().any(|node| node.peer == peer(name));
        assert!(!sits(other.seats()), "{name} after {dead_for:?}");
        assert_eq!(other.node().voters().len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_quorum_is_enough_to_start_and_a_late_player_sees_every_turn() {
    let net = MemoryFabric::new();
    let (ann, bob) = (
        net.join(peer("ann")).unwrap(),
        net.join(peer("bob")).unwrap(),
    );
    let options = HostOptions {
        return_at: ReturnPolicy::Quorum,
        ..hosting(3)
    };
    let (host, bob) = tokio::join!(
        game_host(port(&ann), sum(), options, config(1)),
        join(&bob, 2, 1)
    );
    let (host, _bob) = (host.unwrap(), bob.unwrap());
    for n in 1..=5 {
        add(&host, n).await;
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    let cyd = net.join(peer("cyd")).unwrap();
    let late = join(&cyd, 3, 1).await.unwrap();
    let mut events = late.sequencer().events_from(1);
    for n in 1..=5 {
        match events.next().await.unwrap() {
            TurnEvent::Committed(action) => assert_eq!(action.action, n),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(add(&late, 1).await, 16);
}

#[tokio::test(start_paused = true)]
async fn one_more_player_is_told_the_roster_is_full_at_once() {
    let net = MemoryFabric::new();
    let _game = table(&net, &["ann", "bob"]).await;
    let cyd = net.join(peer("cyd")).unwrap();
    assert_eq!(join(&cyd, 3, 1).await.err(), Some(JoinError::RosterFull));
}

#[tokio::test(start_paused = true)]
async fn a_spectator_sees_the_game_never_votes_and_outlives_a_change_of_voters() {
    let net = MemoryFabric::new();
    let peers: Vec<_> = ["ann", "bob", "eve", "fay", "cyd"]
        .iter()
        .map(|n| net.join(peer(n)).unwrap())
        .collect();
    let options = HostOptions {
        return_at: ReturnPolicy::Quorum,
        spectators_max: 1,
        ..hosting(3)
    };
    let (host, bob, eve) = tokio::join!(
        game_host(port(&peers[0]), sum(), options, config(1)),
        join(&peers[1], 2, 1),
        game_spectate(port(&peers[2]), sum(), joining(1), config(3))
    );
    let (host, _bob, eve) = (host.unwrap(), bob.unwrap(), eve.unwrap());
    let one_more = game_spectate(port(&peers[3]), sum(), joining(1), config(4)).await;
    assert_eq!(one_more.err(), Some(JoinError::SpectatorsClosed));
    let _cyd = join(&peers[4], 5, 1).await.unwrap();
    add(&host, 7).await;
    let mut events = eve.sequencer().events_from(1);
    assert!(matches!(events.next().await.unwrap(), TurnEvent::Committed(a) if a.action == 7));
    assert_eq!(eve.node().status().borrow().role, Role::Learner);
    assert_eq!(host.node().membership().voters.len(), 3);
    assert!(host.node().membership().learners.contains(eve.node().id()));
}

#[tokio::test(start_paused = true)]
async fn whoever_hosts_second_is_told_who_hosts_whatever_its_name() {
    let net = MemoryFabric::new();
    let game = table(&net, &["mia", "bob"]).await;
    // A lower name than the incumbent's does not help, and neither does coming while it plays.
    let ann = net.join(peer("ann")).unwrap();
    for _ in 0..2 {
        let second = game_host(port(&ann), sum(), hosting(2), config(9)).await;
        match second.err() {
            Some(HostError::DuplicateHost { session, .. }) => assert_eq!(session, game[0].1.id()),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(game[0].1.rivals().borrow().is_empty());
    add(&game[1].1, 1).await;
}

#[tokio::test(start_paused = true)]
async fn who_meets_a_bystander_before_it_meets_who_hosts_founds_nothing() {
    let wait = hosting(1).claim_wait;
    // Before the wait is over, and when somebody else has drawn it out.
    for meets_after in [wait / 2, wait * 3 / 2] {
        let net = MemoryFabric::new();
        let [ann, bob, cyd, zoe] = ["ann", "bob", "cyd", "zoe"].map(|n| net.join(peer(n)).unwrap());
        let cut = |from: &str, others: &[&str]| {
            for other in others {
                net.cut(&peer(from), &peer(other));
            }
        };
        cut("zoe", &["ann", "bob", "cyd"]);
        cut("cyd", &["ann", "bob"]);
        let incumbent = game_host(port(&zoe), sum(), hosting(1), config(1));
        let incumbent = incumbent.await.unwrap();
        // Bob is a member of nothing, and says so at once. Cyd says nothing.
        let bystander = tokio::spawn(game_join(port(&bob), sum(), joining(1), config(2)));
        tokio::time::sleep(Duration::from_millis(10)).await;
        let meets = async {
            tokio::time::sleep(wait - Duration::from_millis(1)).await;
            net.heal();
            cut("zoe", &["ann", "bob"]);
        };
        let meets = async {
            if meets_after > wait {
                meets.await;
                tokio::time::sleep(meets_after - wait).await;
            } else {
                tokio::time::sleep(meets_after).await;
            }
            net.heal();
        };
        let hosts = game_host(port(&ann), sum(), hosting(1), config(3));
        let (hosted, ()) = tokio::join!(hosts, meets);
        match hosted.err() {
            Some(HostError::DuplicateHost { session, .. }) => assert_eq!(session, incumbent.id()),
            other => panic!("unexpected {other:?} after {meets_after:?}"),
        }
        assert!(incumbent.rivals().borrow().is_empty());
        bystander.abort();
        drop(cyd);
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_hosts_that_start_together_one_hosts() {
    let net = MemoryFabric::new();
    let (ann, bob) = (
        net.join(peer("ann")).unwrap(),
        net.join(peer("bob")).unwrap(),
    );
    let (a, b) = tokio::join!(
        game_host(port(&ann), sum(), hosting(1), config(7)),
        game_host(port(&bob), sum(), hosting(1), config(3))
    );
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
}

#[tokio::test(start_paused = true)]
async fn two_sessions_that_meet_later_are_both_told_and_neither_takes_the_others_turns() {
    let net = MemoryFabric::new();
    let (ann, bob) = (
        net.join(peer("ann")).unwrap(),
        net.join(peer("bob")).unwrap(),
    );
    net.cut(&peer("ann"), &peer("bob"));
    let a = game_host(port(&ann), sum(), hosting(1), config(1))
        .await
        .unwrap();
    let b = game_host(port(&bob), sum(), hosting(1), config(2))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(a.rivals().borrow().is_empty() && b.rivals().borrow().is_empty());
    net.heal();
    until("both are told", || {
        !a.rivals().borrow().is_empty() && !b.rivals().borrow().is_empty()
    })
    .await;
    let rival = a.rivals().borrow().first().cloned().unwrap();
    assert_eq!((rival.session, rival.holder.peer), (b.id(), peer("bob")));
    assert_eq!((add(&a, 1).await, add(&b, 1).await), (1, 1));
    b.close().await;
    until("the one that is over is no rival", || {
        a.rivals().borrow().is_empty()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_player_cut_off_for_a_while_is_put_out_and_comes_back_to_its_seat_by_itself() {
    let net = MemoryFabric::new();
    let game = table(&net, &["ann", "bob", "cyd"]).await;
    for other in ["ann", "bob"] {
        net.cut(&peer(other), &peer("cyd"));
    }
    until("the silent voter is put out", || {
        let leads = game[..2]
            .iter()
            .find(|(_, s)| s.node().status().borrow().role == Role::Leader);
        leads.is_some_and(|(_, s)| s.node().membership().voters.len() == 2)
    })
    .await;
    add(&game[0].1, 1).await;
    net.heal();
    until("it is a voter again", || {
        game[0].1.node().membership().voters.len() == 3
    })
    .await;
    assert_eq!(add(&game[2].1, 1).await, 2);
}

#[tokio::test(start_paused = true)]
async fn when_the_host_dies_whoever_leads_then_lets_players_in() {
    let net = MemoryFabric::new();
    let peers: Vec<_> = ["ann", "bob", "cyd"]
        .iter()
        .map(|n| net.join(peer(n)).unwrap())
        .collect();
    let options = HostOptions {
        return_at: ReturnPolicy::FullMembership,
        ..hosting(4)
    };
    let host = tokio::spawn(game_host(port(&peers[0]), sum(), options, config(1)));
    let (bob, cyd) = tokio::join!(join(&peers[1], 2, 1), join(&peers[2], 3, 1));
    let (bob, _cyd) = (bob.unwrap(), cyd.unwrap());
    add(&bob, 1).await;
    // The host goes while it waits for the fourth player.
    host.abort();
    assert!(host.await.is_err());
    peers[0].leave();
    let dan = net.join(peer("dan")).unwrap();
    let dan = join(&dan, 4, 1).await.unwrap();
    assert_eq!(add(&dan, 1).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_dead_players_seat_is_given_to_another_and_the_game_goes_on() {
    let net = MemoryFabric::new();
    let mut game = table(&net, &["ann", "bob", "cyd"]).await;
    let (at, dead) = game.remove(2);
    at.leave();
    dead.close().await;
    until("the dead voter is put out", || {
        game[0].1.node().membership().voters.len() == 2
    })
    .await;
    let dan = net.join(peer("dan")).unwrap();
    let dan = join(&dan, 5, 1).await.unwrap();
    assert_eq!(add(&dan, 4).await, 4);
    assert_eq!(game[0].1.node().membership().voters.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_player_that_lost_everything_comes_back_to_its_own_seat() {
    let net = MemoryFabric::new();
    let mut game = table(&net, &["ann", "bob", "cyd"]).await;
    let seat_of = |session: &Session, name: &str| {
        let seats = session.seats().seats;
        seats
            .iter()
            .position(|seat| seat.holder.as_ref().is_some_and(|n| n.peer == peer(name)))
    };
    add(&game[0].1, 5).await;
    let before = seat_of(&game[0].1, "bob");
    assert!(before.is_some());
    let (at, dead) = game.remove(1);
    dead.close().await;
    drop(dead);
    let again = join(&at, 20, 2).await.unwrap();
    assert_eq!(add(&again, 1).await, 6);
    assert_eq!(seat_of(&again, "bob"), before);
    until("the earlier life is gone", || {
        let members = again.node().membership();
        members
            .voters
            .iter()
            .filter(|node| node.peer == peer("bob"))
            .count()
            == 1
            && members.voters.len() == 3
    })
    .await;
    // Its earlier life is refused.
    again.close().await;
    drop(again);
    let stale = join(&at, 21, 1).await;
    assert_eq!(stale.err(), Some(JoinError::Superseded));
}

#[tokio::test(start_paused = true)]
async fn a_short_silence_costs_nobody_its_seat() {
    let net = MemoryFabric::new();
    let game = table(&net, &["ann", "bob", "cyd"]).await;
    add(&game[0].1, 1).await;
    let before = game[0].1.node().membership();
    let seats = game[0].1.seats();
    let cyd = &game[2].1;
    for round in 0..5 {
        // Shorter than a silence that costs the seat, longer than it takes to miss somebody. One
        // of the rounds, at least, silences a leader.
        let victim = ["cyd", "ann", "bob", "cyd", "ann"][round];
        for other in ["ann", "bob", "cyd"] {
            if other != victim {
                net.cut(&peer(other), &peer(victim));
            }
        }
        for _ in 0..500 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            for (_, session) in &game {
                assert_eq!(session.node().membership(), before, "silent: {victim}");
            }
        }
        net.heal();
        // Long enough for a change of members that was under way to be seen.
        for _ in 0..2000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            for (_, session) in &game {
                assert_eq!(session.node().membership(), before, "back: {victim}");
            }
        }
        assert_eq!(add(cyd, 1).await, round as u64 + 2);
    }
    for (_, session) in &game {
        session
            .sequencer()
            .read_barrier(Duration::from_secs(5))
            .await
            .unwrap();
        assert_eq!(session.seats(), seats);
    }
}

#[tokio::test(start_paused = true)]
async fn a_game_has_as_many_seats_and_spectators_as_may_be_and_not_one_more() {
    let net = MemoryFabric::new();
    let ann = net.join(peer("ann")).unwrap();
    let within = Some(Duration::from_millis(100));
    let host = |options| game_host(port(&ann), sum(), options, config(1));
    let with = |seats, spectators_max| HostOptions {
        within,
        spectators_max,
        ..hosting(seats)
    };
    for seats in [0, SEATS_MAX + 1] {
        let (len, max) = (seats, SEATS_MAX);
        let error = HostError::Open(OpenError::Seats { len, max });
        let said = error.to_string();
        assert!(said.contains(&format!("seats, not {seats}")), "{said}");
        assert_eq!(host(with(seats, 0)).await.err(), Some(error));
    }
    let (len, max) = (SPECTATORS_MAX + 1, SPECTATORS_MAX);
    let error = HostError::Open(OpenError::Gallery { len, max });
    assert_eq!(host(with(1, len)).await.err(), Some(error));
    // At the limit a game opens, and waits for its players.
    let (present, wanted) = (1, SEATS_MAX as usize);
    let opened = host(with(SEATS_MAX, SPECTATORS_MAX)).await;
    assert_eq!(opened.err(), Some(HostError::Timeout { present, wanted }));

    // On a roster as well.
    let named = |len: usize| {
        let others = (1..len).map(|n| peer(&format!("p{n}")));
        others.chain([peer("ann")]).collect()
    };
    let open = |roster| game_node(port(&ann), sum(), roster, config(1));
    let (len, max) = (SEATS_MAX as usize + 1, SEATS_MAX as usize);
    let error = OpenError::Roster { len, max };
    assert_eq!(open(named(len)).await.err(), Some(error));
    let opened = open(named(max)).await.unwrap();
    assert_eq!(opened.node().membership().voters.len(), max);
}

#[tokio::test(start_paused = true)]
async fn with_a_witness_a_game_of_two_goes_on_when_one_player_goes() {
    let net = MemoryFabric::new();
    let peers: Vec<_> = ["ann", "bob", "srv"]
        .iter()
        .map(|n| net.join(peer(n)).unwrap())
        .collect();
    let options = HostOptions {
        witness: true,
        ..hosting(2)
    };
    let (ann, bob, srv) = tokio::join!(
        game_host(port(&peers[0]), sum(), options, config(1)),
        join(&peers[1], 2, 1),
        game_witness(port(&peers[2]), sum(), joining(1), config(3))
    );
    let (ann, bob, srv) = (ann.unwrap(), bob.unwrap(), srv.unwrap());
    assert_eq!(srv.seats().players().count(), 2);
    peers[0].leave();
    ann.close().await;
    assert_eq!(add(&bob, 3).await, 3);
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_gives_its_seat_up_at_once_even_in_a_game_of_two() {
    let net = MemoryFabric::new();
    let mut game = table(&net, &["ann", "bob"]).await;
    let (_at, leaving) = game.remove(0);
    assert!(leaving.leave(Duration::from_secs(5)).await);
    until("one voter is left", || {
        game[0].1.node().membership().voters.len() == 1
    })
    .await;
    assert_eq!(add(&game[0].1, 2).await, 2);
    let cyd = net.join(peer("cyd")).unwrap();
    let cyd = join(&cyd, 7, 1).await.unwrap();
    assert_eq!(add(&cyd, 2).await, 4);
}

#[tokio::test(start_paused = true)]
async fn joining_nobody_times_out_and_the_same_peer_may_try_again() {
    let net = MemoryFabric::new();
    let bob = net.join(peer("bob")).unwrap();
    let short = JoinOptions {
        within: Duration::from_secs(1),
        ..joining(1)
    };
    for _ in 0..2 {
        let tried = game_join(port(&bob), sum(), short.clone(), config(1)).await;
        assert_eq!(
            tried.err(),
            Some(JoinError::Timeout(Duration::from_secs(1)))
        );
    }
    let watched = game_spectate(port(&bob), sum(), short, config(1)).await;
    assert_eq!(
        watched.err(),
        Some(JoinError::Timeout(Duration::from_secs(1)))
    );
    let ann = net.join(peer("ann")).unwrap();
    let (host, bob) = tokio::join!(
        game_host(port(&ann), sum(), hosting(2), config(2)),
        join(&bob, 3, 1)
    );
    assert!(host.is_ok() && bob.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_host_nobody_joins_gives_up_when_told_to() {
    let net = MemoryFabric::new();
    let ann = net.join(peer("ann")).unwrap();
    let options = HostOptions {
        within: Some(Duration::from_secs(1)),
        ..hosting(2)
    };
    let tried = game_host(port(&ann), sum(), options, config(1)).await;
    assert_eq!(
        tried.err(),
        Some(HostError::Timeout {
            present: 1,
            wanted: 2
        })
    );
    assert!(
        game_host(port(&ann), sum(), hosting(1), config(2))
            .await
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn channels_carry_what_is_sent_to_one_or_to_all_and_a_flood_harms_nobody() {
    let net = MemoryFabric::new();
    let game = table(&net, &["ann", "bob", "cyd"]).await;
    let [ann, bob, cyd] = [0, 1, 2].map(|n| game[n].1.app_channel("chat").unwrap());
    let (mut to_bob, mut to_cyd) = (bob.incoming().unwrap(), cyd.incoming().unwrap());
    assert!(matches!(
        bob.incoming(),
        Err(ChannelError::ReaderTaken { .. })
    ));
    assert_eq!(ann.broadcast(b"hello"), Ok(2));
    ann.send_to(&peer("bob"), b"psst").unwrap();
    let got = to_bob.recv().await.unwrap();
    assert_eq!((got.from, &got.frame[..]), (peer("ann"), &b"hello"[..]));
    assert_eq!(&to_bob.recv().await.unwrap().frame[..], b"psst");
    assert_eq!(&to_cyd.recv().await.unwrap().frame[..], b"hello");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        to_cyd.try_recv().is_none(),
        "what was sent to one is relayed to nobody"
    );
    assert_eq!(
        ann.send_to(&peer("ann"), b"x"),
        Err(ChannelSendError::Fabric(SendError::ToSelf(peer("ann"))))
    );
    // The same name is the same channel, which has its reader.
    let again = game[1].1.app_channel("chat").unwrap();
    assert!(matches!(
        again.incoming(),
        Err(ChannelError::ReaderTaken { .. })
    ));
    assert_eq!(again.broadcast(b"again"), Ok(2));
    assert_eq!(&to_cyd.recv().await.unwrap().frame[..], b"again");
    // Nobody reads this one.
    let flood = game[0].1.app_channel("flood").unwrap();
    let unread = game[1].1.app_channel("flood").unwrap();
    for n in 0..3000u32 {
        flood.broadcast(&n.to_le_bytes()).unwrap();
        if n % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(add(&game[2].1, 1).await, 1);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(unread.dropped(), 3000 - 1024);
    assert_eq!(game[2].1.unclaimed_app_frames(), 3000);
    let strays = [to_bob.try_recv(), to_cyd.try_recv()];
    assert!(strays.iter().all(Option::is_none), "another name's");
    // Names.
    let name = |len: usize| game[0].1.app_channel(&"n".repeat(len));
    assert!(name(255).is_ok());
    assert!(matches!(name(256), Err(ChannelError::Name { len: 256 })));
    assert!(matches!(name(0), Err(ChannelError::Name { len: 0 })));
}

#[tokio::test(start_paused = true)]
async fn a_witness_takes_no_players_place_in_what_a_host_waits_for() {
    let net = MemoryFabric::new();
    let peers: Vec<_> = ["ann", "bob", "srv"]
        .iter()
        .map(|n| net.join(peer(n)).unwrap())
        .collect();
    let options = HostOptions {
        witness: true,
        within: Some(Duration::from_secs(2)),
        ..hosting(2)
    };
    let (host, srv) = tokio::join!(
        game_host(port(&peers[0]), sum(), options.clone(), config(1)),
        game_witness(port(&peers[2]), sum(), joining(1), config(2))
    );
    let timeout = HostError::Timeout {
        present: 1,
        wanted: 2,
    };
    assert_eq!(host.err(), Some(timeout), "one player and a witness");
    srv.unwrap().close().await;
    let (host, bob, srv) = tokio::join!(
        game_host(port(&peers[0]), sum(), options, config(3)),
        join(&peers[1], 4, 1),
        game_witness(port(&peers[2]), sum(), joining(2), config(5))
    );
    let host = host.unwrap();
    assert!(bob.is_ok() && srv.is_ok());
    assert_eq!(host.seats().players().count(), 2);
}
