//! The public test kit, as an embedder uses it: a game of its own, with a crash, a partition and a
//! bad network.

use std::time::Duration;

use cabinet_consensus::game::{Blueprint, Game, Malformed, Snapshots, TurnInfo};
use cabinet_consensus::session::Waiting;
use cabinet_consensus::testkit::{Cluster, ClusterError, NODES_MAX};

/// Two sides put stones into heaps; a heap holds five.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Heaps([u8; 4]);

impl Game for Heaps {
    type Action = u64;
    type Outcome = u64;
    type Refusal = String;

    fn apply(&mut self, _: &TurnInfo, heap: &u64) -> Result<u64, String> {
        let heap = usize::try_from(*heap).map_err(|error| error.to_string())?;
        match self.0.get_mut(heap) {
            None => Err("no such heap".to_owned()),
            Some(5) => Err("the heap is full".to_owned()),
            Some(stones) => {
                *stones += 1;
                Ok(u64::from(*stones))
            }
        }
    }
}

impl Snapshots for Heaps {
    fn snapshot(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Malformed> {
        bytes.try_into().map(Self).map_err(|_| Malformed)
    }
}

fn heaps(nodes: usize, seed: u64) -> Cluster<Heaps> {
    Cluster::new(Blueprint::with_snapshots(Heaps::default), nodes, seed).unwrap()
}

const LONG: Duration = Duration::from_secs(10);

#[test]
fn what_a_node_waits_for_is_told_by_virtual_time_also_between_two_calls() {
    let mut cluster = heaps(3, 5);
    let leader = cluster.await_leader(LONG).unwrap();
    assert!(cluster.propose(0, &0).unwrap().is_accepted());
    let silent = Duration::from_secs(60);
    let waiting = |cluster: &Cluster<Heaps>, node| {
        let view = cluster.session(node).unwrap().node();
        (view.waiting(silent), view.state(silent).waiting)
    };
    let follower = (leader + 1) % 3;
    for node in [leader, follower] {
        assert_eq!(waiting(&cluster, node), (Waiting::No, Waiting::No));
    }
    for node in [leader, follower] {
        cluster.isolate(node).unwrap();
    }
    cluster.run_for(silent - Duration::from_secs(5));
    for node in [leader, follower] {
        assert_eq!(waiting(&cluster, node), (Waiting::No, Waiting::No));
    }
    // Next to nothing on the machine's own clock.
    cluster.run_for(Duration::from_secs(10));
    let lost = Waiting::ForLeader;
    assert_eq!(waiting(&cluster, follower), (lost.clone(), lost));
    let (alone, state) = waiting(&cluster, leader);
    assert!(
        matches!(
            &alone,
            Waiting::ForVoters {
                reachable: 1,
                of: 3,
                ..
            }
        ),
        "{alone:?}"
    );
    assert_eq!(alone, state);
    let view = cluster.session(leader).unwrap().node();
    let acked = view.numbers().quorum_acked;
    assert!(acked.is_some_and(|ago| ago > silent), "{acked:?}");
}

/// Plays through a crash, a partition and a bad network, and answers how it ended.
fn play(seed: u64) -> (Heaps, Duration) {
    let mut cluster = heaps(3, seed);
    assert!(cluster.propose(0, &0).unwrap().is_accepted());

    let leader = cluster.await_leader(LONG).unwrap();
    cluster.crash(leader).unwrap();
    let next = (leader + 1) % 3;
    assert!(cluster.propose(next, &1).unwrap().is_accepted());
    cluster.restart(leader).unwrap();

    let leader = cluster.await_leader(LONG).unwrap();
    cluster.isolate(leader).unwrap();
    let next = (leader + 1) % 3;
    assert!(cluster.propose(next, &2).unwrap().is_accepted());
    cluster.heal();

    cluster.disturb(100, Duration::from_millis(10));
    cluster.slow_disk(0, Duration::from_millis(20)).unwrap();
    for turn in 0..7 {
        let accepted = cluster.propose(turn % 3, &3).unwrap().is_accepted();
        assert_eq!(accepted, turn < 5, "the heap holds five");
    }
    cluster.heal();
    for node in 0..3 {
        cluster.read(node).unwrap();
        assert_eq!(cluster.state(node), Some(Heaps([1, 1, 1, 5])));
    }
    assert_eq!(cluster.violation(), None);
    (cluster.state(0).unwrap(), cluster.now())
}

#[test]
fn a_game_of_its_own_survives_what_is_done_to_it() {
    for seed in 0..5 {
        play(seed);
    }
}

#[test]
fn the_same_seed_is_the_same_game_to_the_millisecond() {
    assert_eq!(play(11), play(11));
}

#[test]
fn a_minority_decides_nothing_until_it_is_healed() {
    let mut cluster = heaps(3, 1);
    let leader = cluster.await_leader(LONG).unwrap();
    cluster.isolate(leader).unwrap();
    assert!(matches!(
        cluster.propose(leader, &0),
        Err(ClusterError::Turn(_))
    ));
    cluster.heal();
    assert!(cluster.propose(leader, &1).is_ok());
}

#[test]
fn nodes_that_are_down_or_are_not_there_are_named() {
    let mut cluster = heaps(1, 1);
    cluster.crash(0).unwrap();
    assert_eq!(cluster.crash(0), Err(ClusterError::Down(0)));
    assert!(matches!(cluster.propose(0, &0), Err(ClusterError::Down(0))));
    assert_eq!(cluster.state(0), None);
    cluster.restart(0).unwrap();
    assert_eq!(cluster.restart(0), Err(ClusterError::Up(0)));
    assert_eq!(cluster.cut(0, 1), Err(ClusterError::NoNode(1)));
    for nodes in [0, NODES_MAX + 1] {
        let blueprint = Blueprint::with_snapshots(Heaps::default);
        let refused = Cluster::new(blueprint, nodes, 1).err();
        assert_eq!(refused, Some(ClusterError::Nodes(nodes)));
    }
    assert!(heaps(NODES_MAX, 1).await_leader(LONG).is_some());
}
