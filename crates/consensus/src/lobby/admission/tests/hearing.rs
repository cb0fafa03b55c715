//! Who is heard, what it is answered, and what it loses by what it says.

use super::*;

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
        needs_vote: false,
        begins: false,
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
        needs_vote: false,
        begins: false,
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
fn who_came_first_is_seated_first_and_a_later_life_came_later() {
    let mut t = Table::new(2, &["ann"]);
    for (at, who) in [
        (0, node("bob", 1)),
        (10, node("cyd", 1)),
        (20, node("bob", 2)),
    ] {
        t.now = ms(at);
        t.hear(who, Kind::Player);
    }
    let (node, kind) = (node("cyd", 1), Kind::Player);
    assert_eq!(t.step(), [Step::Seat { node, kind }]);
}

#[test]
fn who_was_refused_is_not_seated_when_a_seat_comes_free_unless_it_asks_again() {
    let mut t = Table::new(1, &["ann"]);
    let bob = node("bob", 1);
    t.hear(bob.clone(), Kind::Player);
    assert_eq!(t.step(), [answer(bob.clone(), Verdict::RosterFull)]);
    t.seats.seats.push(Seat::default());
    assert_eq!(t.step(), []);
    t.hear(bob.clone(), Kind::Player);
    let (node, kind) = (bob, Kind::Player);
    assert_eq!(t.step(), [Step::Seat { node, kind }]);
}

#[test]
fn nobody_is_welcomed_before_the_members_that_name_it_are_committed() {
    let mut t = Table::new(2, &["ann"]);
    let bob = node("bob", 1);
    t.seat("bob", Kind::Player);
    t.membership.learners.insert(bob.clone());
    t.hear(bob.clone(), Kind::Player);
    t.committed = false;
    assert_eq!(t.step(), []);
    t.committed = true;
    assert_eq!(t.step(), [answer(bob, Verdict::Welcome)]);
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

#[test]
fn who_gives_up_loses_the_place_it_was_given_meanwhile_and_who_takes_part_does_not() {
    let mut t = Table::new(3, &["ann"]);
    let bob = node("bob", 1);
    let vacate = Step::Vacate {
        node: bob.clone(),
        left: false,
    };
    let only = [vacate.clone()];
    t.hear(bob.clone(), Kind::Player);
    let give_up = |t: &mut Table| {
        let heard = t.admission.heard_give_up(&bob.peer, bob.clone(), t.now);
        assert_eq!(heard, Ok(()));
    };
    give_up(&mut t);
    assert_eq!(t.step(), [], "it is not seated any more");
    // Its seat was on its way already.
    t.seat("bob", Kind::Player);
    assert_eq!(t.step(), only);
    t.membership.learners.insert(bob.clone());
    assert_eq!(t.step(), only, "until it is done");
    // Whoever asks meanwhile is not told that the seats are taken.
    t.seats.seats.truncate(2);
    t.hear(node("cyd", 1), Kind::Player);
    assert_eq!(t.step(), only);
    t.acks("bob", 50);
    assert!(
        !t.step().contains(&vacate),
        "it is in the game: the word was late"
    );
    t.dies("bob");
    assert_eq!(t.step(), only);
    t.hear(bob.clone(), Kind::Player);
    assert!(!t.step().contains(&vacate), "it wants in again");
    give_up(&mut t);
    t.membership.voters.insert(bob.clone());
    t.membership.learners.remove(&bob);
    assert!(!t.step().contains(&vacate), "it votes");
    let another = t.admission.heard_give_up(&bob.peer, node("cyd", 1), ms(0));
    assert!(matches!(another, Err(NotHeard::NotItsOwn { .. })));
}

#[test]
fn as_many_that_give_up_are_noted_as_may_be_and_one_more_is_not() {
    let mut t = Table::new(1, &["ann"]);
    let names: Vec<_> = (0..=ANNOUNCED_MAX).map(|n| format!("p{n}")).collect();
    let (last, rest) = names.split_last().unwrap();
    let mut give_up = |name: &str| {
        let node = node(name, 1);
        t.admission.heard_give_up(&node.peer.clone(), node, ms(0))
    };
    for name in rest {
        assert_eq!(give_up(name), Ok(()));
    }
    let max = ANNOUNCED_MAX;
    assert_eq!(give_up(last), Err(NotHeard::TooMany { max }));
    assert_eq!(give_up("p0"), Ok(()));
    // Time makes room.
    t.now = t.timing.admit_within;
    t.step();
    let last = node(last, 1);
    let noted = t.admission.heard_give_up(&last.peer.clone(), last, t.now);
    assert_eq!(noted, Ok(()));
}

#[test]
fn who_needs_a_vote_is_refused_at_once_where_servers_vote_and_takes_no_seat() {
    let mut t = Table::new(2, &[]);
    t.seats.core = [node("ann", 1)].into();
    t.membership.voters = t.seats.core.clone();
    let bob = node("bob", 1);
    t.connected.insert(bob.peer.clone());
    let mut announce = Announce {
        node: bob.clone(),
        kind: Kind::Player,
        session: None,
        member: false,
        needs_vote: true,
        begins: false,
    };
    let heard = t
        .admission
        .heard_announce(&bob.peer, announce.clone(), t.now);
    assert_eq!(heard, Ok(()));
    assert_eq!(t.step(), [answer(bob.clone(), Verdict::CoreVotes)]);
    announce.needs_vote = false;
    let heard = t.admission.heard_announce(&bob.peer, announce, t.now);
    assert_eq!(heard, Ok(()));
    let kind = Kind::Player;
    assert_eq!(t.step(), [Step::Seat { node: bob, kind }]);
}

#[test]
fn who_begins_in_a_life_that_had_the_log_is_told_so_and_who_has_begun_since_it_asked_is_not() {
    let bob = node("bob", 1);
    let mut t = Table::new(3, &["ann"]);
    let begins = |t: &mut Table, node: &NodeId, begins| {
        let announce = Announce {
            node: node.clone(),
            kind: Kind::Player,
            session: None,
            member: false,
            needs_vote: true,
            begins,
        };
        t.connected.insert(node.peer.clone());
        let heard = t.admission.heard_announce(&node.peer, announce, t.now);
        assert_eq!(heard, Ok(()));
    };
    let verdicts = |t: &mut Table| {
        let told = |step| match step {
            Step::Answer { to, verdict, .. } => {
                assert_eq!(to, node("bob", 1).peer);
                Some(verdict)
            }
            Step::AddLearner(_) | Step::Promote(_) | Step::Seat { .. } => None,
            other => panic!("it loses nothing: {other:?}"),
        };
        t.step().into_iter().filter_map(told).collect::<Vec<_>>()
    };
    t.seat("bob", Kind::Player);
    begins(&mut t, &bob, true);
    assert_eq!(verdicts(&mut t), [], "it is let in");
    t.membership.learners.insert(bob.clone());
    assert_eq!(verdicts(&mut t), [Verdict::Welcome]);
    // The answer was lost: what it asked again comes before its first log does.
    begins(&mut t, &bob, true);
    assert_eq!(verdicts(&mut t), [Verdict::Welcome]);
    t.progress.insert(bob.clone(), Progress::default());
    begins(&mut t, &bob, true);
    assert_eq!(verdicts(&mut t), [Verdict::Welcome]);
    // It has a part of the log, and is not a member yet by that part.
    t.acks("bob", 3);
    begins(&mut t, &bob, false);
    assert_eq!(verdicts(&mut t), [Verdict::Welcome]);
    // It had a part of the log, and has none.
    begins(&mut t, &bob, true);
    assert_eq!(verdicts(&mut t), [Verdict::LogLost]);
    assert_eq!(verdicts(&mut t), [], "once");
    // A new leader, which has heard nothing from it: nobody votes before it had the log.
    t.membership.learners.remove(&bob);
    t.membership.voters.insert(bob.clone());
    t.progress.remove(&bob);
    begins(&mut t, &bob, true);
    assert_eq!(verdicts(&mut t), [Verdict::LogLost]);
    begins(&mut t, &bob, false);
    assert_eq!(verdicts(&mut t), [Verdict::Welcome]);
    // A later life begins as it should.
    t.acks("bob", 50);
    let later = node("bob", 2);
    begins(&mut t, &later, true);
    let seat = Step::Seat {
        node: later,
        kind: Kind::Player,
    };
    assert_eq!(t.step(), [seat]);
}
