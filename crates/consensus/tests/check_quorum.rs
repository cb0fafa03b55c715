//! A leader that no majority answers falls silent, so that those who hear it can elect with the
//! others, and speaks again where it is needed.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::time::Duration;

use cabinet_consensus::game::Blueprint;
use cabinet_consensus::raft::Role;
use cabinet_consensus::session::Waiting;
use cabinet_consensus::testkit::Cluster;
use cabinet_consensus::turns::Ruling;
use common::Sum;

const LONG: Duration = Duration::from_secs(20);

struct Table {
    cluster: Cluster<Sum>,
    leader: usize,
    /// Everybody else.
    others: Vec<usize>,
}

impl Table {
    /// A game in which `1` is decided, and every node knows it.
    fn new(nodes: usize, seed: u64) -> Self {
        let blueprint = Blueprint::with_snapshots(Sum::default);
        let mut cluster = Cluster::new(blueprint, nodes, seed).unwrap();
        let leader = cluster.await_leader(LONG).unwrap();
        let others: Vec<_> = (0..nodes).filter(|n| *n != leader).collect();
        let mut table = Self {
            cluster,
            leader,
            others,
        };
        assert_eq!(table.add(leader, 1), 1);
        for node in 0..nodes {
            table.cluster.read(node).unwrap();
        }
        assert_eq!(table.role(leader), Role::Leader);
        table
    }

    fn role(&self, node: usize) -> Role {
        let session = self.cluster.session(node).unwrap();
        session.node().status().get().role
    }

    fn term(&self, node: usize) -> u64 {
        let session = self.cluster.session(node).unwrap();
        session.node().status().get().term
    }

    fn add(&mut self, node: usize, n: u64) -> u64 {
        match self.cluster.propose(node, &n).unwrap().ruling {
            Ruling::Accepted(total) => total,
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Proposes where it cannot be decided: it is in that node's log from now on.
    fn leave_in_the_log(&mut self, node: usize, n: u64) {
        let session = self.cluster.session(node).unwrap();
        let before = session.node().numbers().last;
        let sequencer = session.sequencer();
        let proposed = self.cluster.during(async {
            tokio::time::timeout(Duration::from_millis(20), sequencer.propose(&n)).await
        });
        assert!(proposed.is_err(), "decided: {proposed:?}");
        let session = self.cluster.session(node).unwrap();
        assert!(session.node().numbers().last > before);
    }

    fn cut_both_ways(&mut self, one: usize, other: usize) {
        self.cluster.cut(one, other).unwrap();
        self.cluster.cut(other, one).unwrap();
    }

    /// Another leads, and the old leader does not decide anything any more.
    fn another_leads(&mut self) {
        let old = self.leader;
        let led = self.cluster.run_until(LONG, |cluster| {
            cluster.leader().is_some_and(|leader| leader != old)
        });
        assert!(led, "nobody is elected");
    }

    fn ends_well(mut self, total: u64) {
        self.cluster.heal();
        for node in 0..self.cluster.nodes() {
            if self.cluster.session(node).is_err() {
                self.cluster.restart(node).unwrap();
            }
        }
        let total = total + 1;
        assert_eq!(self.add(self.leader, 1), total);
        for node in 0..self.cluster.nodes() {
            self.cluster.read(node).unwrap();
            assert_eq!(self.cluster.state(node), Some(Sum(total)), "node {node}");
        }
        assert_eq!(self.cluster.violation(), None);
    }
}

#[test]
fn a_voter_that_hears_only_a_leader_without_a_majority_helps_to_elect_another() {
    for seed in 0..4 {
        let mut table = Table::new(5, seed);
        let [_linked, gone, far, farther] = table.others[..] else {
            panic!("five nodes");
        };
        // Three of five are needed: the linked one and both of those that do not hear the leader.
        table.cluster.crash(gone).unwrap();
        table.cut_both_ways(table.leader, far);
        table.cut_both_ways(table.leader, farther);
        table.another_leads();
        assert_eq!(table.add(far, 2), 3, "seed {seed}");
        table.ends_well(3);
    }
}

#[test]
fn a_voter_whose_answers_are_lost_is_not_held_by_an_entry_that_is_sent_again_and_again() {
    for seed in 0..4 {
        let mut table = Table::new(5, seed);
        let [linked, gone, far, farther] = table.others[..] else {
            panic!("five nodes");
        };
        table.cluster.crash(gone).unwrap();
        table.cluster.cut(linked, table.leader).unwrap();
        table.cut_both_ways(table.leader, far);
        table.cut_both_ways(table.leader, farther);
        table.leave_in_the_log(table.leader, 8);
        table.another_leads();
        let total = table.add(far, 2);
        // The linked one may have got it, and may have been elected for it.
        assert!([3, 11].contains(&total), "{total}");
        let old = table.role(table.leader);
        assert_ne!(old, Role::Leader);
        table.ends_well(total);
    }
}

#[test]
fn a_leader_with_the_longest_log_goes_on_leading_when_the_others_cannot_do_without_it() {
    for seed in 0..4 {
        let mut table = Table::new(5, seed);
        let (leader, term) = (table.leader, table.term(table.leader));
        let [near, other, gone, lost] = table.others[..] else {
            panic!("five nodes");
        };
        table.cluster.isolate(leader).unwrap();
        table.cluster.crash(gone).unwrap();
        table.cluster.crash(lost).unwrap();
        table.leave_in_the_log(leader, 8);
        table.cluster.run_for(Duration::from_secs(2));
        assert_eq!(table.role(leader), Role::StaleLeader);
        for node in [near, other] {
            let node = table.cluster.session(node).unwrap().node();
            let waiting = async { node.waiting(Duration::from_millis(100)) };
            assert_eq!(table.cluster.during(waiting), Waiting::ForLeader);
        }
        // Theirs are not long enough for its vote, and without its vote nobody wins.
        table.cluster.heal();
        let again = |cluster: &Cluster<Sum>| cluster.leader().is_some();
        assert!(table.cluster.run_until(LONG, again), "nobody leads");
        assert_eq!(table.cluster.leader(), Some(leader), "seed {seed}");
        assert_eq!(table.term(leader), term, "it never stopped leading");
        assert_eq!(table.add(near, 2), 11);
        table.ends_well(11);
    }
}

#[test]
fn of_two_voters_who_lost_each_other_one_leads_when_the_link_is_back() {
    for seed in 0..4 {
        for pending in [false, true] {
            let mut table = Table::new(2, seed);
            let (leader, other) = (table.leader, table.others[0]);
            table.cut_both_ways(leader, other);
            if pending {
                table.leave_in_the_log(leader, 8);
            }
            table.cluster.run_for(Duration::from_secs(1));
            assert_eq!(table.role(leader), Role::StaleLeader);
            table.cluster.heal();
            let total = table.add(other, 2);
            assert_eq!(total, if pending { 11 } else { 3 });
            table.ends_well(total);
        }
    }
}

#[test]
fn the_halves_of_a_game_go_on_when_they_are_one_again() {
    for seed in 0..4 {
        let mut table = Table::new(4, seed);
        let [near, far, farther] = table.others[..] else {
            panic!("four nodes");
        };
        // Two and two: nobody has three.
        for here in [table.leader, near] {
            for there in [far, farther] {
                table.cut_both_ways(here, there);
            }
        }
        table.leave_in_the_log(table.leader, 8);
        table.cluster.run_for(Duration::from_secs(2));
        assert_eq!(table.cluster.leader(), None, "seed {seed}");
        table.cluster.heal();
        // It is in two logs: whoever is elected by three has it.
        assert_eq!(table.add(far, 2), 11);
        table.ends_well(11);
    }
}

#[test]
fn a_hand_over_that_fails_ends_when_the_link_is_back_though_the_next_leader_lacks_an_entry() {
    for seed in 0..4 {
        let mut table = Table::new(2, seed);
        let (leader, other) = (table.leader, table.others[0]);
        let to = table.cluster.session(other).unwrap().node().id().clone();
        table.cut_both_ways(leader, other);
        table.leave_in_the_log(leader, 4);
        // It answered a moment ago, so it may be handed to.
        let node = table.cluster.session(leader).unwrap().node().clone();
        let asked = table.cluster.during(async {
            let handed = node.transfer(&to, LONG);
            tokio::time::timeout(Duration::from_millis(10), handed).await
        });
        assert!(asked.is_err(), "under way: {asked:?}");
        // Well past the time that the leader is confirmed for.
        let waited = table.cluster.run_until(Duration::from_secs(2), |_| false);
        assert!(!waited);
        table.cluster.heal();
        let led = table
            .cluster
            .run_until(LONG, |cluster| cluster.leader().is_some());
        assert!(led, "seed {seed}: nobody leads");
        table.ends_well(5);
    }
}
