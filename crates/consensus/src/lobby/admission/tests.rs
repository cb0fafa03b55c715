//! One test per rule of admission, and per defect of the specification it must not have.

mod changes;
mod hearing;

use super::*;
use crate::ids::Incarnation;
use crate::raft::{Membership, Progress, ProgressMap};
use crate::state::command::Kind;
use crate::state::seats::Seat;

fn node(name: &str, life: u64) -> NodeId {
    NodeId::new(PeerId::new(name).unwrap(), Incarnation(life))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A leader `ann` with a table of seats, and what it sees.
struct Table {
    admission: Admission,
    now: Duration,
    me: NodeId,
    seats: SeatTable,
    open: bool,
    membership: Membership,
    committed: bool,
    index: u64,
    last_log: u64,
    progress: ProgressMap,
    connected: BTreeSet<PeerId>,
    change: bool,
    proposal: bool,
    timing: AdmissionTiming,
}

impl Table {
    fn new(seats: usize, voters: &[&str]) -> Self {
        let mut table = Self {
            admission: Admission::new(SessionId(1)),
            now: ms(0),
            me: node("ann", 1),
            seats: SeatTable {
                seats: vec![Seat::default(); seats],
                ..SeatTable::default()
            },
            open: true,
            membership: Membership::default(),
            committed: true,
            index: 10,
            last_log: 50,
            progress: ProgressMap::new(),
            connected: BTreeSet::new(),
            change: false,
            proposal: false,
            timing: AdmissionTiming::default(),
        };
        for name in voters {
            table.seats.take(&node(name, 1), Kind::Player).unwrap();
            table.membership.voters.insert(node(name, 1));
            table.acks(name, 50);
        }
        table
    }

    fn acks(&mut self, name: &str, matched: u64) {
        let known = Progress {
            matched: Some(matched),
            acked: Some(ms(0)),
        };
        self.progress.insert(node(name, 1), known);
        self.connected.insert(node(name, 1).peer);
    }

    fn dies(&mut self, name: &str) {
        self.progress.get_mut(&node(name, 1)).unwrap().acked = Some(Duration::from_secs(60));
    }

    fn seat(&mut self, name: &str, kind: Kind) {
        self.seats.take(&node(name, 1), kind).unwrap();
    }

    fn hear(&mut self, node: NodeId, kind: Kind) {
        self.connected.insert(node.peer.clone());
        let announce = Announce {
            node: node.clone(),
            kind,
            session: None,
            member: false,
            needs_vote: false,
            begins: false,
        };
        let heard = self
            .admission
            .heard_announce(&node.peer, announce, self.now);
        assert_eq!(heard, Ok(()));
    }

    fn step(&mut self) -> Vec<Step> {
        self.admission.step(&View {
            now: self.now,
            me: &self.me,
            seats: &self.seats,
            open: self.open,
            membership: &self.membership,
            membership_committed: self.committed,
            membership_index: self.index,
            last_log: self.last_log,
            progress: &self.progress,
            connected: &self.connected,
            change_in_flight: self.change,
            proposal_in_flight: self.proposal,
            timing: &self.timing,
        })
    }
}

fn answer(node: NodeId, verdict: Verdict) -> Step {
    Step::Answer {
        to: node.peer.clone(),
        node,
        verdict,
    }
}

#[test]
fn an_announcer_is_seated_learns_and_votes_once_it_caught_up() {
    let mut t = Table::new(2, &["ann"]);
    let bob = node("bob", 1);
    t.hear(bob.clone(), Kind::Player);
    let kind = Kind::Player;
    assert_eq!(
        t.step(),
        [Step::Seat {
            node: bob.clone(),
            kind
        }]
    );
    t.seat("bob", kind);
    assert_eq!(t.step(), [Step::AddLearner(bob.clone())]);
    t.membership.learners.insert(bob.clone());
    t.index = 51;
    t.last_log = 51;
    assert_eq!(t.step(), [answer(bob.clone(), Verdict::Welcome)]);
    t.acks("bob", 50);
    assert_eq!(t.step(), [], "it lacks the entry that made it a learner");
    t.acks("bob", 51);
    assert_eq!(t.step(), [Step::Promote(bob)]);
}

#[test]
fn a3_a_seated_peer_that_never_announced_itself_is_not_admitted() {
    let mut t = Table::new(2, &["ann"]);
    t.seat("bob", Kind::Player);
    t.connected.insert(node("bob", 1).peer);
    assert_eq!(t.step(), []);
    t.now = ms(10_000);
    let vacate = Step::Vacate {
        node: node("bob", 1),
        left: false,
    };
    assert_eq!(t.step(), [vacate]);
    assert_eq!(t.step(), [], "said once in that time");
}

#[test]
fn a3_a_silent_learner_is_not_promoted_and_loses_its_place() {
    let mut t = Table::new(2, &["ann"]);
    t.seat("bob", Kind::Player);
    t.membership.learners.insert(node("bob", 1));
    assert_eq!(t.step(), [], "nothing known of it is not caught up");
    t.acks("bob", 50);
    t.dies("bob");
    assert_eq!(t.step(), [], "caught up once, silent now");
    t.now = ms(10_000);
    let vacate = Step::Vacate {
        node: node("bob", 1),
        left: false,
    };
    assert_eq!(t.step(), [vacate]);
}

#[test]
fn a3_nobody_is_promoted_while_the_present_voters_have_no_majority() {
    let mut t = Table::new(3, &["ann", "bob"]);
    t.dies("bob");
    t.seat("cyd", Kind::Player);
    t.membership.learners.insert(node("cyd", 1));
    t.acks("cyd", 50);
    assert_eq!(t.step(), []);
    t.now = ms(60_000);
    assert_eq!(t.step(), [], "and it is not held against the learner");
}

#[test]
fn a4_another_leader_goes_on_from_the_table_and_what_it_heard() {
    let mut t = Table::new(3, &["ann", "bob"]);
    t.seat("cyd", Kind::Player);
    t.hear(node("cyd", 1), Kind::Player);
    t.admission.reset();
    assert_eq!(t.step(), [], "what the former leadership heard is gone");
    t.me = node("bob", 1);
    t.hear(node("cyd", 1), Kind::Player);
    assert_eq!(t.step(), [Step::AddLearner(node("cyd", 1))]);
}

#[test]
fn a8_a_later_life_takes_the_seat_and_the_earlier_one_stops_voting() {
    let mut t = Table::new(3, &["ann", "bob", "cyd"]);
    t.dies("bob");
    let again = node("bob", 2);
    t.hear(again.clone(), Kind::Player);
    let kind = Kind::Player;
    assert_eq!(
        t.step(),
        [Step::Seat {
            node: again.clone(),
            kind
        }]
    );
    t.seats.take(&again, kind).unwrap();
    assert_eq!(t.step(), [Step::Remove(node("bob", 1))]);
    t.membership.voters.remove(&node("bob", 1));
    assert_eq!(t.step(), [Step::AddLearner(again)]);
    t.hear(node("bob", 1), kind);
    assert!(
        t.step()
            .contains(&answer(node("bob", 1), Verdict::Superseded))
    );
}

#[test]
fn a9_every_dead_voter_is_evicted_without_waiting_for_a_replacement() {
    let mut t = Table::new(5, &["ann", "bob", "cyd", "dan", "eve"]);
    t.timing.evict_after = Some(Duration::from_secs(30));
    t.dies("bob");
    t.dies("cyd");
    for name in ["bob", "cyd"] {
        let vacate = Step::Vacate {
            node: node(name, 1),
            left: false,
        };
        assert_eq!(t.step(), [vacate]);
        t.seats.vacate(&node(name, 1), false);
        assert!(t.step().contains(&Step::Remove(node(name, 1))));
        t.membership.voters.remove(&node(name, 1));
    }
    assert_eq!(t.step(), []);
}

#[test]
fn a14_a15_a_spectator_is_in_no_step_that_changes_voters() {
    let mut t = Table::new(3, &["ann", "bob"]);
    t.seats.spectators_max = 1;
    t.seat("eve", Kind::Spectator);
    t.membership.learners.insert(node("eve", 1));
    t.seat("cyd", Kind::Player);
    t.membership.learners.insert(node("cyd", 1));
    t.acks("cyd", 50);
    t.acks("eve", 50);
    assert_eq!(
        t.step(),
        [Step::Promote(node("cyd", 1))],
        "by name, not a set"
    );
}

#[test]
fn a17_a_spectator_is_let_in_before_the_roster_is_full_and_never_votes() {
    let mut t = Table::new(4, &["ann"]);
    t.seats.spectators_max = 1;
    let eve = node("eve", 1);
    t.hear(eve.clone(), Kind::Spectator);
    let kind = Kind::Spectator;
    assert_eq!(
        t.step(),
        [Step::Seat {
            node: eve.clone(),
            kind
        }]
    );
    t.seat("eve", kind);
    assert_eq!(t.step(), [Step::AddLearner(eve.clone())]);
    t.membership.learners.insert(eve.clone());
    t.acks("eve", 50);
    assert_eq!(t.step(), [answer(eve, Verdict::Welcome)]);
    assert_eq!(t.step(), []);
}
