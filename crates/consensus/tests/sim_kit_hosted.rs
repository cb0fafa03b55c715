//! The public test kit with a game that is hosted: who comes, watches, hands over, leaves, crashes
//! and comes back.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::time::Duration;

use cabinet_consensus::game::Blueprint;
use cabinet_consensus::ids::Incarnation;
use cabinet_consensus::raft::TransferError;
use cabinet_consensus::session::{
    AdmissionTiming, CoreOptions, HostError, HostOptions, JoinError, JoinOptions, OpenError,
    ReturnPolicy, ServerCore, SessionConfig,
};
use cabinet_consensus::testkit::{Cluster, ClusterError, Entrance};
use cabinet_consensus::turns::TurnEvent;
use common::Sum;

const LONG: Duration = Duration::from_secs(5);

fn machines(nodes: usize, seed: u64) -> Cluster<Sum> {
    Cluster::machines(Blueprint::with_snapshots(Sum::default), nodes, seed).unwrap()
}

fn options(cluster: &Cluster<Sum>, seats: u32) -> HostOptions {
    HostOptions {
        spectators_max: 1,
        ..HostOptions::new(seats, cluster.next_life(0).unwrap())
    }
}

/// Node 0 hosts, and 1 up to `seats` join.
fn hosted(nodes: usize, seats: u32, seed: u64) -> Cluster<Sum> {
    let mut cluster = machines(nodes, seed);
    cluster.host(0, options(&cluster, seats)).unwrap();
    for node in 1..seats as usize {
        cluster.join(node).unwrap();
    }
    cluster.arrive(0).unwrap();
    assert!(cluster.settle(LONG));
    cluster
}

fn add(cluster: &mut Cluster<Sum>, node: usize, n: u64) {
    assert!(cluster.propose(node, &n).unwrap().is_accepted());
}

fn ends_with(cluster: &mut Cluster<Sum>, nodes: &[usize], sum: u64) {
    for node in nodes {
        cluster.read(*node).unwrap();
        assert_eq!(cluster.state(*node), Some(Sum(sum)), "node {node}");
    }
    assert_eq!(cluster.violation(), None);
}

/// Everything that may happen to a hosted game; answers how long it took.
fn play(seed: u64) -> Duration {
    let mut cluster = hosted(4, 3, seed);
    add(&mut cluster, 1, 1);
    cluster.spectate(3).unwrap();
    cluster.read(3).unwrap();

    cluster.transfer(2, LONG).unwrap();
    assert_eq!(cluster.leader(), Some(2));
    add(&mut cluster, 0, 2);

    let seat = cluster.session(2).unwrap().node().id().peer.clone();
    let seat_of_2 = cluster.session(0).unwrap().seats().place_of(&seat);
    assert!(cluster.leave(2, LONG).unwrap());
    add(&mut cluster, 0, 3);
    cluster.join(2).unwrap();
    let again = cluster.session(0).unwrap().seats().place_of(&seat);
    let place = |of: Option<(_, _)>| of.map(|(place, _)| place);
    assert_eq!(place(again), place(seat_of_2), "it gets its seat back");
    assert_ne!(again, seat_of_2, "in another life");

    for node in [0, 3] {
        assert!(cluster.settle(LONG));
        cluster.crash(node).unwrap();
        add(&mut cluster, 1, 4);
        cluster.restart(node).unwrap();
    }
    assert!(cluster.settle(LONG));
    cluster.disturb(50, Duration::from_millis(5));
    cluster.close(1).unwrap();
    add(&mut cluster, 2, 5);
    cluster.restart(1).unwrap();
    cluster.heal();
    ends_with(&mut cluster, &[0, 1, 2, 3], 1 + 2 + 3 + 4 + 4 + 5);
    cluster.now()
}

#[test]
fn a_hosted_game_is_joined_watched_handed_over_left_and_come_back_to() {
    for seed in 0..3 {
        play(seed);
    }
}

#[test]
fn the_same_seed_is_the_same_hosted_game_to_the_millisecond() {
    assert_eq!(play(5), play(5));
}

#[test]
fn who_comes_late_sees_the_whole_game_in_order() {
    let mut cluster = machines(3, 3);
    let table = HostOptions {
        return_at: ReturnPolicy::Quorum,
        ..options(&cluster, 3)
    };
    cluster.host(0, table).unwrap();
    cluster.join(1).unwrap();
    cluster.arrive(0).unwrap();
    for n in 1..=4 {
        add(&mut cluster, 0, n);
    }
    cluster.join(2).unwrap();
    let sequencer = cluster.session(2).unwrap().sequencer();
    let mut events = sequencer.events_from(1);
    let mut seen = Vec::new();
    while seen.len() < 4 {
        if let TurnEvent::Committed(turn) = cluster.during(events.next()).unwrap() {
            seen.push(turn.action);
        }
    }
    assert_eq!(seen, [1, 2, 3, 4]);
}

#[test]
fn a_link_that_is_mended_brings_frames_again_and_another_stays_cut() {
    let mut cluster = hosted(3, 3, 4);
    cluster.transfer(0, LONG).unwrap();
    for other in [1, 2] {
        cluster.cut(0, other).unwrap();
        cluster.cut(other, 0).unwrap();
    }
    let deposed = |cluster: &Cluster<Sum>| cluster.leader().is_some_and(|leader| leader != 0);
    assert!(cluster.run_until(LONG, deposed));
    assert!(matches!(cluster.propose(0, &1), Err(ClusterError::Turn(_))));
    cluster.mend(0, 1).unwrap();
    cluster.mend(1, 0).unwrap();
    cluster.transfer(1, LONG).unwrap();
    add(&mut cluster, 0, 2);
    assert_eq!(cluster.cut(0, 3), Err(ClusterError::NoNode(3)));
    assert_eq!(cluster.mend(3, 0), Err(ClusterError::NoNode(3)));
}

#[test]
fn a_witness_keeps_a_game_of_two_going() {
    let mut cluster = machines(3, 6);
    let table = HostOptions {
        witness: true,
        ..options(&cluster, 2)
    };
    cluster.host(0, table).unwrap();
    cluster.join(1).unwrap();
    cluster.arrive(0).unwrap();
    cluster.witness(2).unwrap();
    assert!(cluster.settle(LONG));
    cluster.crash(0).unwrap();
    add(&mut cluster, 1, 7);
    cluster.restart(0).unwrap();
    ends_with(&mut cluster, &[0, 1, 2], 7);
}

#[test]
fn servers_vote_and_players_ride() {
    let mut cluster = machines(4, 7);
    let servers: Vec<_> = (0..2).map(|n| cluster.peer(n).unwrap().clone()).collect();
    let core = ServerCore::new(servers).unwrap();
    for server in 0..2 {
        let options = CoreOptions {
            core: core.clone(),
            seats: 2,
            spectators_max: 0,
        };
        cluster.enter(server, Entrance::Serve(options)).unwrap();
    }
    for player in 2..4 {
        let options = JoinOptions::new(cluster.next_life(player).unwrap());
        let entrance = Entrance::Ride(core.clone(), options);
        cluster.enter(player, entrance).unwrap();
    }
    add(&mut cluster, 2, 1);
    for node in [0, 3] {
        cluster.crash(node).unwrap();
        cluster.restart(node).unwrap();
    }
    add(&mut cluster, 3, 2);
    ends_with(&mut cluster, &[0, 1, 2, 3], 3);
}

#[test]
fn a_configuration_of_its_own_puts_silent_players_out() {
    let mut cluster = machines(3, 8);
    cluster.configure(|_, config| SessionConfig {
        admission: AdmissionTiming {
            alive_within: Duration::from_millis(150),
            evict_after: Some(Duration::from_millis(500)),
            admit_within: Duration::from_millis(1200),
        },
        ..config
    });
    cluster.host(0, options(&cluster, 3)).unwrap();
    cluster.join(1).unwrap();
    cluster.join(2).unwrap();
    cluster.arrive(0).unwrap();
    cluster.crash(2).unwrap();
    let is_out = |cluster: &Cluster<Sum>| {
        let seats = cluster.session(0).map(|session| session.seats());
        seats.is_ok_and(|seats| seats.free_seats() == 1)
    };
    assert!(cluster.run_until(LONG, is_out));
    cluster.join(2).unwrap();
    add(&mut cluster, 2, 1);
    ends_with(&mut cluster, &[0, 1, 2], 1);
}

#[test]
fn who_does_not_get_in_is_told_why_and_is_down() {
    let mut cluster = hosted(4, 2, 9);
    let full = cluster.join(2);
    assert_eq!(full, Err(ClusterError::Join(JoinError::RosterFull)));
    assert!(matches!(cluster.session(2), Err(ClusterError::Down(2))));
    cluster
        .host(2, HostOptions::new(2, Incarnation(9)))
        .unwrap();
    let second = cluster.arrive(2);
    let Err(ClusterError::Host(HostError::DuplicateHost { incumbent, .. })) = second else {
        panic!("unexpected {second:?}");
    };
    // Who leads speaks for the game.
    let holders = [0, 1].map(|node| cluster.peer(node).unwrap().clone());
    assert!(holders.contains(&incumbent.peer), "{incumbent}");
    // Nothing was written there.
    assert!(matches!(cluster.restart(2), Err(ClusterError::Resume(_))));
    let none = HostOptions::new(0, Incarnation(1));
    let refused = cluster.enter(3, Entrance::Host(none));
    assert!(matches!(
        refused,
        Err(ClusterError::Host(HostError::Open(OpenError::Seats { .. })))
    ));
    ends_with(&mut cluster, &[0, 1], 0);
}

#[test]
fn who_is_on_its_way_is_neither_up_nor_down_and_can_be_stopped() {
    let mut cluster = machines(2, 10);
    cluster.host(0, options(&cluster, 2)).unwrap();
    cluster.run_for(LONG);
    assert!(matches!(cluster.session(0), Err(ClusterError::Coming(0))));
    assert_eq!(cluster.restart(0), Err(ClusterError::Coming(0)));
    let again = cluster.set_off(0, Entrance::Roster);
    assert_eq!(again, Err(ClusterError::Coming(0)));
    assert_eq!(
        cluster.arrive(0),
        Err(ClusterError::Coming(0)),
        "nobody joins"
    );
    assert_eq!(cluster.leave(0, LONG), Err(ClusterError::Coming(0)));
    assert_eq!(cluster.close(1), Err(ClusterError::Down(1)));
    cluster.crash(0).unwrap();
    assert_eq!(cluster.crash(0), Err(ClusterError::Down(0)));
    // Its log has begun: it goes on alone, and the other joins it.
    cluster.restart(0).unwrap();
    cluster.join(1).unwrap();
    assert_eq!(
        cluster.host(1, options(&cluster, 2)),
        Err(ClusterError::Up(1))
    );
    add(&mut cluster, 1, 3);
    ends_with(&mut cluster, &[0, 1], 3);
}

#[test]
fn leadership_goes_to_no_node_that_cannot_have_it() {
    let mut cluster = hosted(3, 2, 11);
    cluster.spectate(2).unwrap();
    let watches = cluster.transfer(2, LONG);
    assert!(matches!(
        watches,
        Err(ClusterError::Transfer(
            TransferError::NotAnotherVoter { .. }
        ))
    ));
    assert_eq!(cluster.transfer(7, LONG), Err(ClusterError::NoNode(7)));
    cluster.crash(0).unwrap();
    cluster.run_for(LONG);
    let nobody = cluster.transfer(1, LONG);
    let not_leader = TransferError::NotLeader { leader: None };
    assert_eq!(nobody, Err(ClusterError::Transfer(not_leader)));
    assert_eq!(cluster.transfer(0, LONG), Err(ClusterError::Down(0)));
}
