//! One test per rule of admission, and per defect of the specification it must not have.

use super::*;
use crate::ids::Incarnation;
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

#[test]
fn who_gets_no_place_is_told_why_once_and_without_an_entry() {
    let mut t = Table::new(1, &["ann"]);
    for (kind, verdict) in [
        (Kind::Player, Verdict::RosterFull),
        (Kind::Spectator, Verdict::GalleryFull),
        (Kind::Witness, Verdict::NoWitness),
    ] {
        t.hear(node("bob", 1), kind);
        t.hear(node("bob", 1), kind);
        assert_eq!(t.step(), [answer(node("bob", 1), verdict)]);
        assert_eq!(t.step(), []);
    }
}

#[test]
fn an_announcement_for_another_session_is_told_so() {
    let mut t = Table::new(2, &["ann"]);
    let bob = node("bob", 1);
    let announce = Announce {
        node: bob.clone(),
        kind: Kind::Player,
        session: Some(SessionId(2)),
        member: false,
    };
    t.connected.insert(bob.peer.clone());
    let heard = t.admission.heard_announce(&bob.peer, announce, ms(0));
    assert_eq!(heard, Ok(()));
    assert_eq!(t.step(), [answer(bob, Verdict::WrongSession)]);
}

#[test]
fn before_the_session_is_open_nothing_is_changed() {
    let mut t = Table::new(2, &["ann"]);
    t.open = false;
    t.seats = SeatTable::default();
    t.hear(node("bob", 1), Kind::Player);
    assert_eq!(t.step(), [answer(node("bob", 1), Verdict::NotOpen)]);
    assert_eq!(t.step(), []);
}

#[test]
fn an_announcement_counts_until_it_expires_or_its_peer_is_gone() {
    for gone in [false, true] {
        let mut t = Table::new(2, &["ann"]);
        t.seat("bob", Kind::Player);
        t.hear(node("bob", 1), Kind::Player);
        t.now = ANNOUNCEMENT_LASTS - ms(1);
        assert_eq!(t.step(), [Step::AddLearner(node("bob", 1))]);
        if gone {
            t.connected.remove(&node("bob", 1).peer);
        } else {
            t.now = ANNOUNCEMENT_LASTS;
        }
        assert_eq!(t.step(), []);
    }
}

#[test]
fn as_many_announcements_are_heard_as_may_be_and_one_more_is_not() {
    let mut t = Table::new(1, &["ann"]);
    let names: Vec<_> = (0..=ANNOUNCED_MAX).map(|n| format!("p{n}")).collect();
    for name in &names[..ANNOUNCED_MAX] {
        t.hear(node(name, 1), Kind::Player);
    }
    let announce = |of: &str| Announce {
        node: node(of, 1),
        kind: Kind::Player,
        session: None,
        member: false,
    };
    let mut hear = |from: &str, of: &str| {
        let from = node(from, 1).peer;
        let announce = announce(of);
        t.admission.heard_announce(&from, announce, t.now)
    };
    let last = &names[ANNOUNCED_MAX];
    let max = ANNOUNCED_MAX;
    assert_eq!(hear(last, last), Err(NotHeard::TooMany { max }));
    assert_eq!(hear("p0", "p0"), Ok(()), "who is known may go on");
    let not_its_own = NotHeard::NotItsOwn {
        from: node("p0", 1).peer,
        node: node("p1", 1),
    };
    assert_eq!(hear("p0", "p1"), Err(not_its_own));
    // One that is gone makes room.
    t.connected.remove(&node("p7", 1).peer);
    t.step();
    t.hear(node(last, 1), Kind::Player);
}

#[test]
fn a_joint_membership_left_behind_is_finished_first() {
    let mut t = Table::new(3, &["ann", "bob"]);
    t.membership.joint = vec![[node("ann", 1)].into(), t.membership.voters.clone()];
    t.membership.learners.insert(node("old", 1));
    t.change = true;
    assert_eq!(t.step(), [], "its own change is under way");
    t.change = false;
    assert_eq!(t.step(), [Step::FinishJoint]);
}

#[test]
fn one_change_and_one_proposal_are_under_way_at_most() {
    let mut t = Table::new(4, &["ann"]);
    for name in ["bob", "cyd"] {
        t.hear(node(name, 1), Kind::Player);
    }
    t.membership
        .learners
        .extend([node("old", 1), node("older", 1)]);
    assert_eq!(t.step().len(), 2);
    t.proposal = true;
    t.change = true;
    assert_eq!(t.step(), []);
    t.change = false;
    t.committed = false;
    assert_eq!(t.step(), [], "the membership is not committed");
}

#[test]
fn a_voter_that_left_stays_while_the_others_have_no_majority() {
    let mut t = Table::new(3, &["ann", "bob", "cyd"]);
    t.dies("cyd");
    t.seats.vacate(&node("bob", 1), true);
    assert_eq!(t.step(), []);
    t.acks("cyd", 50);
    assert_eq!(t.step(), [Step::Remove(node("bob", 1))]);
}

#[test]
fn a_voter_goes_only_once_those_who_stay_answered_since_the_seats_changed() {
    // Seed 159 of the simulator: cyd fell silent, bob stopped for good, cyd came back, and its
    // removal would have needed bob.
    let mut t = Table::new(3, &["ann", "bob", "cyd"]);
    t.now = ms(1_000);
    assert_eq!(t.step(), []);
    t.seats.vacate(&node("cyd", 1), false);
    t.progress.get_mut(&node("bob", 1)).unwrap().acked = Some(ms(1));
    assert_eq!(t.step(), [], "bob may be gone since");
    t.now += ms(500);
    t.progress.get_mut(&node("bob", 1)).unwrap().acked = Some(ms(501));
    assert_eq!(t.step(), [], "it is alive and has not answered since");
    t.progress.get_mut(&node("bob", 1)).unwrap().acked = Some(ms(500));
    assert_eq!(t.step(), [Step::Remove(node("cyd", 1))]);
    // The same of the next change.
    let mut t = Table::new(5, &["ann", "bob", "cyd", "dan", "eve"]);
    for name in ["dan", "eve"] {
        t.seats.vacate(&node(name, 1), true);
    }
    assert_eq!(t.step(), [Step::Remove(node("dan", 1))]);
    t.membership.voters.remove(&node("dan", 1));
    t.now += ms(500);
    t.index += 1;
    t.progress.get_mut(&node("bob", 1)).unwrap().acked = Some(ms(1));
    t.progress.get_mut(&node("cyd", 1)).unwrap().acked = Some(ms(1));
    assert_eq!(t.step(), []);
    t.acks("bob", 50);
    assert_eq!(t.step(), [Step::Remove(node("eve", 1))]);
}

#[test]
fn a_learner_votes_only_once_it_answered_since_the_seats_changed() {
    let mut t = Table::new(2, &["ann"]);
    t.seat("bob", Kind::Player);
    t.membership.learners.insert(node("bob", 1));
    t.acks("bob", 50);
    t.progress.get_mut(&node("bob", 1)).unwrap().acked = Some(ms(1));
    assert_eq!(t.step(), []);
    t.now += ms(1);
    assert_eq!(t.step(), [Step::Promote(node("bob", 1))]);
}

#[test]
fn a_leader_that_is_no_member_any_more_changes_nothing() {
    let mut t = Table::new(3, &["ann", "bob"]);
    t.membership.learners.insert(node("old", 1));
    assert_eq!(t.step(), [Step::Remove(node("old", 1))]);
    t.membership.voters.remove(&node("ann", 1));
    assert_eq!(t.step(), []);
}

#[test]
fn the_leader_goes_last_and_only_when_no_other_could_lead() {
    let mut t = Table::new(2, &["ann", "bob"]);
    t.seats.vacate(&node("ann", 1), true);
    assert_eq!(t.step(), [], "the session transfers first");
    t.acks("bob", 3);
    assert_eq!(t.step(), [Step::Remove(node("ann", 1))]);
    t.membership.voters.remove(&node("bob", 1));
    assert_eq!(t.step(), [], "never the last voter");
}

#[test]
fn a_silent_member_keeps_its_place_unless_eviction_is_on_and_safe() {
    let mut t = Table::new(2, &["ann", "bob"]);
    t.dies("bob");
    t.now = ms(100_000);
    assert_eq!(t.step(), []);
    t.timing.evict_after = Some(Duration::from_secs(30));
    assert_eq!(t.step(), [], "one of two voters is no majority");
}

#[test]
fn a_voter_whose_later_life_announced_itself_counts_as_dead_at_once() {
    let mut t = Table::new(3, &["ann", "bob", "cyd"]);
    t.seats.vacate(&node("bob", 1), true);
    t.hear(node("cyd", 2), Kind::Player);
    let steps = t.step();
    assert!(
        !steps.contains(&Step::Remove(node("bob", 1))),
        "cyd/1 acknowledged a moment ago and is gone: {steps:?}"
    );
}

#[test]
fn a_voter_that_cannot_be_reached_counts_as_dead_at_once() {
    let mut t = Table::new(3, &["ann", "bob", "cyd"]);
    t.seats.vacate(&node("bob", 1), true);
    t.connected.remove(&node("cyd", 1).peer);
    assert_eq!(t.step(), []);
}

#[test]
fn a_learner_that_gets_nearer_keeps_its_place_however_long_the_log() {
    let mut t = Table::new(2, &["ann"]);
    t.last_log = 1_000;
    t.seat("bob", Kind::Player);
    t.membership.learners.insert(node("bob", 1));
    for n in 1..40 {
        t.acks("bob", n);
        t.now = ms(9_000 * n);
        assert_eq!(t.step(), []);
    }
    t.now += ms(10_000);
    assert_eq!(t.step().len(), 1, "it stopped getting nearer");
}

#[test]
fn a_member_that_has_not_answered_yet_has_the_time_to_before_it_is_put_out() {
    let mut t = Table::new(3, &["ann", "bob"]);
    t.timing.evict_after = Some(Duration::from_secs(30));
    t.seats.spectators_max = 1;
    t.step();
    // Long after this leader began, somebody begins to watch.
    t.now = Duration::from_secs(100);
    t.seat("eve", Kind::Spectator);
    t.membership.learners.insert(node("eve", 1));
    t.progress.insert(node("eve", 1), Progress::default());
    assert_eq!(t.step(), []);
    t.now = Duration::from_millis(129_999);
    assert_eq!(t.step(), []);
    t.now = Duration::from_secs(130);
    let (node, left) = (node("eve", 1), false);
    assert_eq!(t.step(), [Step::Vacate { node, left }]);
}

#[test]
fn who_never_answered_has_the_time_to_come_in_even_where_silence_is_short() {
    let mut t = Table::new(2, &["ann", "bob"]);
    t.timing.evict_after = Some(ms(500));
    t.timing.admit_within = ms(1200);
    t.seats.spectators_max = 1;
    t.acks("bob", 50);
    t.seat("eve", Kind::Spectator);
    t.membership.learners.insert(node("eve", 1));
    t.progress.insert(node("eve", 1), Progress::default());
    assert_eq!(t.step(), []);
    t.now += ms(1199);
    assert_eq!(t.step(), []);
    t.now += ms(1);
    let (node, left) = (node("eve", 1), false);
    assert_eq!(t.step(), [Step::Vacate { node, left }]);
}

#[test]
fn who_was_welcomed_and_lost_its_place_is_not_let_in_by_what_it_said_before() {
    let mut t = Table::new(2, &["ann"]);
    t.seat("bob", Kind::Player);
    t.membership.voters.insert(node("bob", 1));
    t.acks("bob", 50);
    t.hear(node("bob", 1), Kind::Player);
    assert_eq!(t.step(), [answer(node("bob", 1), Verdict::Welcome)]);
    assert!(t.seats.vacate(&node("bob", 1), true));
    let steps = t.step();
    assert!(
        !steps.iter().any(|step| matches!(step, Step::Seat { .. })),
        "{steps:?}"
    );
    t.hear(node("bob", 1), Kind::Player);
    let steps = t.step();
    assert!(
        steps.iter().any(|step| matches!(step, Step::Seat { .. })),
        "{steps:?}"
    );
}

#[test]
fn who_left_is_not_seated_for_what_it_said_before() {
    let mut t = Table::new(2, &["ann", "bob"]);
    t.hear(node("bob", 1), Kind::Player);
    t.step();
    t.seats.vacate(&node("bob", 1), true);
    let seats_bob = |steps: Vec<Step>| steps.iter().any(|s| matches!(s, Step::Seat { .. }));
    assert!(!seats_bob(t.step()));
    t.hear(node("bob", 1), Kind::Player);
    assert!(seats_bob(t.step()), "it came back");
}
