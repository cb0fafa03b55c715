//! Which changes of members are begun, and which wait for a majority that answers.

use super::*;

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
    // Nor where the others are a majority without it.
    let mut t = Table::new(4, &["ann", "bob", "cyd"]);
    t.seat("dan", Kind::Player);
    t.membership.learners.insert(node("dan", 1));
    t.acks("dan", 50);
    t.progress.get_mut(&node("dan", 1)).unwrap().acked = Some(ms(1));
    assert_eq!(t.step(), []);
    t.now += ms(1);
    assert_eq!(t.step(), [Step::Promote(node("dan", 1))]);
}

#[test]
fn who_learns_anew_votes_once_it_has_what_there_is_then() {
    let mut t = Table::new(2, &["ann"]);
    let bob = node("bob", 1);
    t.seat("bob", Kind::Player);
    t.membership.learners.insert(bob.clone());
    t.acks("bob", 20);
    assert_eq!(t.step(), []);
    t.membership.learners.remove(&bob);
    assert_eq!(t.step(), []);
    (t.index, t.last_log) = (55, 100);
    t.membership.learners.insert(bob.clone());
    t.acks("bob", 100 - CATCH_UP_SLACK - 1);
    assert_eq!(t.step(), []);
    t.acks("bob", 100 - CATCH_UP_SLACK);
    assert_eq!(t.step(), [Step::Promote(bob)]);
}

#[test]
fn of_the_voters_that_go_the_dead_go_first() {
    let mut t = Table::new(4, &["ann", "bob", "cyd", "dan"]);
    t.dies("cyd");
    for name in ["bob", "cyd"] {
        t.seats.vacate(&node(name, 1), true);
    }
    assert_eq!(t.step(), [Step::Remove(node("cyd", 1))]);
}

#[test]
fn a_voter_whose_seat_a_later_life_took_counts_as_dead() {
    let mut t = Table::new(4, &["ann", "bob", "cyd"]);
    t.seats.take(&node("bob", 2), Kind::Player).unwrap();
    t.dies("cyd");
    t.seat("dan", Kind::Player);
    t.membership.learners.insert(node("dan", 1));
    t.acks("dan", 50);
    assert_eq!(t.step(), [], "one of three is no majority");
    t.acks("cyd", 50);
    assert_eq!(t.step(), [Step::Remove(node("bob", 1))]);
}

#[test]
fn a_leader_that_is_no_member_any_more_changes_nothing() {
    let mut t = Table::new(3, &["ann", "bob"]);
    t.membership.learners.insert(node("old", 1));
    assert_eq!(t.step(), [Step::Remove(node("old", 1))]);
    t.membership.voters.remove(&node("ann", 1));
    assert_eq!(t.step(), []);
    t.now += t.timing.admit_within;
    assert_eq!(t.step(), [], "nor does it give its own seat to others");
}

#[test]
fn the_leader_goes_last_and_only_when_no_other_could_lead() {
    let mut t = Table::new(2, &["ann", "bob"]);
    t.seats.vacate(&node("ann", 1), true);
    assert_eq!(t.step(), [Step::HandOver(node("bob", 1))]);
    t.acks("bob", 3);
    assert_eq!(t.step(), [Step::Remove(node("ann", 1))]);
    t.membership.voters.remove(&node("bob", 1));
    assert_eq!(t.step(), [], "never the last voter");
    // The dead lead nobody, whatever they had.
    let mut t = Table::new(4, &["ann", "bob", "cyd", "dan"]);
    t.seats.vacate(&node("ann", 1), true);
    t.acks("cyd", 3);
    t.acks("dan", 3);
    assert_eq!(t.step(), [Step::HandOver(node("bob", 1))]);
    t.dies("bob");
    assert_eq!(t.step(), [Step::Remove(node("ann", 1))]);
}

#[test]
fn a_leader_without_a_place_hands_over_to_the_furthest_that_has_one() {
    let mut t = Table::new(4, &["ann", "bob", "cyd", "dan"]);
    t.last_log = 100;
    for (name, matched) in [("bob", 98), ("cyd", 99), ("dan", 100)] {
        t.acks(name, matched);
    }
    assert_eq!(t.step(), [], "ann has a place");
    t.seats.vacate(&node("ann", 1), false);
    t.seats.vacate(&node("dan", 1), false);
    assert_eq!(
        t.step(),
        [Step::Remove(node("dan", 1))],
        "others without a place go first"
    );
    t.membership.voters.remove(&node("dan", 1));
    assert_eq!(t.step(), [Step::HandOver(node("cyd", 1))]);
    t.connected.remove(&node("cyd", 1).peer);
    assert_eq!(t.step(), [Step::HandOver(node("bob", 1))]);
    t.acks("bob", 91);
    t.acks("cyd", 91);
    assert_eq!(t.step(), [Step::Remove(node("ann", 1))], "nobody is near");
}

#[test]
fn a_silent_member_keeps_its_place_unless_eviction_is_on_and_safe() {
    let mut t = Table::new(2, &["ann", "bob"]);
    t.dies("bob");
    t.now = ms(100_000);
    assert_eq!(t.step(), []);
    t.timing.evict_after = Some(Duration::from_secs(30));
    assert_eq!(t.step(), [], "one of two voters is no majority");
    let silent_for = |t: &mut Table, time| {
        t.progress.get_mut(&node("bob", 1)).unwrap().acked = Some(time);
    };
    let mut t = Table::new(3, &["ann", "bob", "cyd"]);
    t.timing.evict_after = Some(Duration::from_secs(30));
    silent_for(&mut t, ms(29_999));
    assert_eq!(t.step(), []);
    silent_for(&mut t, ms(30_000));
    // A change of voters that is under way may need it.
    t.change = true;
    t.membership.joint = vec![[node("ann", 1)].into(), t.membership.voters.clone()];
    assert_eq!(t.step(), []);
    t.membership.joint.clear();
    let (node, left) = (node("bob", 1), false);
    assert_eq!(t.step(), [Step::Vacate { node, left }]);
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
    // As a member anew it has all of it again.
    t.membership.learners.remove(&node("eve", 1));
    assert_eq!(t.step(), []);
    t.now = Duration::from_secs(130);
    t.membership.learners.insert(node("eve", 1));
    assert_eq!(t.step(), []);
    t.now = Duration::from_millis(159_999);
    assert_eq!(t.step(), []);
    t.now = Duration::from_secs(160);
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
