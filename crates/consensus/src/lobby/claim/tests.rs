//! The host claim among nodes whose frames the test carries.
//!
//! Invariants
//! - every pair of nodes decides alike whatever the order of their frames.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ids::Incarnation;

mod rivals;

const WAIT: Duration = Duration::from_millis(400);

fn peer(name: &str) -> PeerId {
    PeerId::new(name).unwrap()
}

fn node(name: &str) -> NodeId {
    NodeId::new(peer(name), Incarnation(1))
}

fn peers(names: &[&str]) -> BTreeSet<PeerId> {
    names.iter().map(|name| peer(name)).collect()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn a_claim(name: &str, session: u128, nonce: u64, established: bool) -> Claim {
    Claim {
        session: SessionId(session),
        holder: node(name),
        nonce,
        established,
        term: u64::from(established),
        leader: None,
        proof: None,
    }
}

fn claiming(name: &str, nonce: u64, connected: &[&str]) -> HostClaim {
    let mut host = HostClaim::idle(node(name), &peers(connected), WAIT);
    let actions = host.claim(SessionId(u128::from(nonce)), nonce, ms(0));
    assert_eq!(
        actions,
        [ClaimAction::Broadcast(LobbyMsg::Claim(a_claim(
            name,
            u128::from(nonce),
            nonce,
            false
        )))]
    );
    host
}

fn established(name: &str, session: u128, connected: &[&str]) -> HostClaim {
    HostClaim::incumbent(
        node(name),
        SessionId(session),
        1,
        &peers(connected),
        WAIT,
        ms(0),
    )
    .0
}

/// To whom messages go, in their order.
fn receivers(actions: &[ClaimAction]) -> Vec<String> {
    let to = actions.iter().filter_map(|action| match action {
        ClaimAction::Send { to, .. } => Some(to.to_string()),
        _ => None,
    });
    to.collect()
}

#[test]
fn a_claim_stands_for_all_of_its_wait_whoever_answers_and_is_not_repeated_to_those() {
    let mut host = claiming("ann", 5, &["bob", "cyd"]);
    assert!(host.heard_no_claim(&peer("bob"), 5, ms(10)).is_empty());
    assert!(
        host.heard_no_claim(&peer("cyd"), 4, ms(10)).is_empty(),
        "an answer to another claim"
    );
    assert_eq!(receivers(&host.tick(ms(100))), ["cyd"]);
    assert!(host.heard_no_claim(&peer("cyd"), 5, ms(120)).is_empty());
    assert!(host.tick(ms(200)).is_empty(), "nobody is asked again");
    assert!(host.tick(ms(399)).is_empty());
    assert!(host.wakes_at() <= Some(WAIT));
    assert_eq!(host.tick(WAIT), [ClaimAction::Won]);
}

#[test]
fn an_incumbent_that_connects_after_everybody_else_answered_is_heard() {
    let lost = |host: &mut HostClaim, at: u64| {
        assert_eq!(
            receivers(&host.peers_changed(&peers(&["bob", "zoe"]), ms(at))),
            ["zoe"]
        );
        let heard = host.heard_claim(&peer("zoe"), &a_claim("zoe", 9, 0, true), ms(at + 5));
        assert_eq!(
            heard.last(),
            Some(&ClaimAction::DuplicateHost {
                incumbent: node("zoe"),
                session: SessionId(9)
            })
        );
    };
    // Bob is member of nothing, and says so at once.
    for at in [20, 300, 399] {
        let mut host = claiming("ann", 5, &["bob"]);
        assert!(host.heard_no_claim(&peer("bob"), 5, ms(10)).is_empty());
        lost(&mut host, at);
    }
    // So is one that connected in time and took its time to answer.
    let mut host = claiming("ann", 5, &["bob"]);
    assert!(host.heard_no_claim(&peer("bob"), 5, ms(10)).is_empty());
    host.peers_changed(&peers(&["bob", "zoe"]), ms(399));
    assert_eq!(receivers(&host.tick(ms(400))), ["zoe"], "asked again");
    let heard = host.heard_claim(&peer("zoe"), &a_claim("zoe", 9, 0, true), ms(798));
    assert_eq!(heard.len(), 2);
}

#[test]
fn who_connects_late_has_a_wait_of_its_own_until_it_answers() {
    let late = |at| {
        let mut host = claiming("ann", 5, &[]);
        host.peers_changed(&peers(&["bob"]), ms(at));
        host
    };
    let mut host = late(250);
    assert!(!host.tick(WAIT).contains(&ClaimAction::Won));
    assert!(!host.tick(ms(649)).contains(&ClaimAction::Won));
    assert!(host.wakes_at() <= Some(ms(650)));
    assert_eq!(host.tick(ms(650)), [ClaimAction::Won]);
    // Its answer ends what it was given, and not the wait of all.
    let mut host = late(250);
    assert!(host.heard_no_claim(&peer("bob"), 5, ms(300)).is_empty());
    assert!(host.tick(ms(399)).is_empty());
    assert_eq!(host.tick(WAIT), [ClaimAction::Won]);
    let mut host = late(250);
    assert!(!host.tick(ms(500)).contains(&ClaimAction::Won));
    assert_eq!(
        host.heard_no_claim(&peer("bob"), 5, ms(501)),
        [ClaimAction::Won]
    );
    // So does its going.
    let mut host = late(250);
    assert_eq!(host.peers_changed(&peers(&[]), ms(500)), [ClaimAction::Won]);
}

#[test]
fn peers_that_come_and_go_hold_a_claim_for_two_waits_and_not_longer() {
    let mut host = claiming("ann", 5, &["bob"]);
    for at in 1..800 {
        let now: &[&str] = if at % 2 == 0 { &["eve"] } else { &["fay"] };
        let mut actions = host.peers_changed(&peers(now), ms(at));
        actions.extend(host.tick(ms(at)));
        assert!(!actions.contains(&ClaimAction::Won), "at {at}");
        assert!(host.wakes_at() <= Some(WAIT * WAITS_MAX));
    }
    assert_eq!(host.tick(WAIT * WAITS_MAX), [ClaimAction::Won]);
    // At the limit an incumbent that came last is still heard; one past it is not.
    for (at, wins) in [(799, false), (800, true)] {
        let mut host = claiming("ann", 5, &[]);
        host.peers_changed(&peers(&["bob"]), ms(399));
        let came = host.peers_changed(&peers(&["bob", "zoe"]), ms(at));
        let won = came.contains(&ClaimAction::Won) || host.tick(ms(at)).contains(&ClaimAction::Won);
        assert_eq!(won, wins, "at {at}");
        let heard = host.heard_claim(&peer("zoe"), &a_claim("zoe", 9, 0, true), ms(at));
        // A claim that was won gives way too, for as long as nothing is founded on it.
        assert_eq!(heard.len(), 2);
    }
}

#[test]
fn a_silent_peer_costs_the_wait_and_no_more() {
    let mut host = claiming("ann", 5, &["bob"]);
    assert!(host.tick(ms(99)).is_empty());
    assert!(
        matches!(&host.tick(ms(100))[..], [ClaimAction::Send { to, .. }] if *to == peer("bob")),
        "the claim is repeated to who did not answer"
    );
    assert!(host.wakes_at() <= Some(WAIT));
    assert_eq!(host.tick(ms(400)), [ClaimAction::Won]);
    assert!(host.tick(ms(800)).is_empty());
}

#[test]
fn with_nobody_connected_a_host_waits_for_a_rival_that_is_connecting_too() {
    let mut host = claiming("ann", 5, &[]);
    assert!(host.tick(ms(399)).is_empty());
    let told = host.peers_changed(&peers(&["bob"]), ms(399));
    assert!(matches!(&told[..], [ClaimAction::Send { .. }]), "{told:?}");
    let lost = host.heard_claim(&peer("bob"), &a_claim("bob", 3, 3, false), ms(399));
    assert!(lost.contains(&ClaimAction::DuplicateHost {
        incumbent: node("bob"),
        session: SessionId(3)
    }));
}

#[test]
fn an_incumbent_wins_whatever_its_name_and_nonce() {
    // A-2, H3: the lower id and the lower nonce are the newcomer's.
    let mut newcomer = claiming("ann", 0, &["zoe"]);
    let mut incumbent = established("zoe", 9, &["ann"]);
    let answer = incumbent.heard_claim(&peer("ann"), &a_claim("ann", 0, 0, false), ms(50));
    let [ClaimAction::Send { to, msg }] = &answer[..] else {
        panic!("{answer:?}");
    };
    assert_eq!(*to, peer("ann"));
    let LobbyMsg::Claim(claim) = msg else {
        panic!("{msg:?}");
    };
    assert!(claim.established);
    assert_eq!(
        newcomer.heard_claim(&peer("zoe"), claim, ms(60)),
        [
            ClaimAction::Broadcast(LobbyMsg::Withdraw { nonce: 0 }),
            ClaimAction::DuplicateHost {
                incumbent: node("zoe"),
                session: SessionId(9)
            }
        ]
    );
    assert!(incumbent.is_established());
}

#[test]
fn an_incumbent_watches_for_life() {
    // H2: long after it opened, a late host still hears of it.
    let mut incumbent = established("zoe", 9, &[]);
    let late = ms(3_600_000);
    let told = incumbent.peers_changed(&peers(&["ann"]), late);
    assert!(matches!(&told[..], [ClaimAction::Send { .. }]));
    let answer = incumbent.heard_claim(&peer("ann"), &a_claim("ann", 0, 0, false), late);
    assert!(matches!(&answer[..], [ClaimAction::Send { .. }]));
}

#[test]
fn a_member_answers_for_its_session_when_the_host_is_gone() {
    let (mut member, actions) =
        HostClaim::incumbent(node("bob"), SessionId(9), 4, &peers(&["ann"]), WAIT, ms(0));
    let claim = LobbyMsg::Claim(Claim {
        term: 4,
        ..a_claim("bob", 9, 0, true)
    });
    assert_eq!(actions, [ClaimAction::Broadcast(claim.clone())]);
    assert_eq!(
        member.heard_claim(&peer("ann"), &a_claim("ann", 1, 1, false), ms(1)),
        [ClaimAction::Send {
            to: peer("ann"),
            msg: claim
        }]
    );
}

#[test]
fn a_claim_won_and_not_established_keeps_a_rival_waiting_then_beats_it() {
    let mut host = claiming("zoe", 9, &[]);
    assert_eq!(host.tick(WAIT), [ClaimAction::Won]);
    let rival = a_claim("ann", 1, 1, false);
    assert!(host.heard_claim(&peer("ann"), &rival, ms(401)).is_empty());
    let told = host.establish(SessionId(9), 1, ms(402));
    let [ClaimAction::Broadcast(LobbyMsg::Claim(claim))] = &told[..] else {
        panic!("{told:?}");
    };
    let mut rival = claiming("ann", 1, &["zoe"]);
    assert!(
        rival
            .heard_claim(&peer("zoe"), claim, ms(403))
            .iter()
            .any(|action| matches!(action, ClaimAction::DuplicateHost { .. }))
    );
}

#[test]
fn a_claim_won_and_then_failed_lets_the_rival_win() {
    let mut host = claiming("zoe", 9, &[]);
    host.tick(WAIT);
    let told = host.withdraw();
    assert_eq!(
        told,
        [ClaimAction::Broadcast(LobbyMsg::Withdraw { nonce: 9 })]
    );
    assert!(host.withdraw().is_empty(), "once");
    let mut rival = claiming("ann", 1, &[]);
    rival.peers_changed(&peers(&["zoe"]), ms(300));
    assert!(!rival.tick(WAIT).contains(&ClaimAction::Won));
    assert_eq!(
        rival.heard_withdraw(&peer("zoe"), ms(401)),
        [ClaimAction::Won]
    );
    assert_eq!(
        host.heard_claim(&peer("ann"), &a_claim("ann", 2, 2, false), ms(2)),
        [ClaimAction::Send {
            to: peer("ann"),
            msg: LobbyMsg::NoClaim { nonce: 2 }
        }],
        "H4: what was withdrawn objects to nothing"
    );
}

#[test]
fn a_claim_says_the_present_term_and_leader_and_the_incumbent_still_wins() {
    let mut bob = established("bob", 7, &["ann", "cyd"]);
    bob.follow(5, Some(node("bob")));
    // A term that is reported late takes nothing back.
    bob.follow(4, Some(node("bob")));
    let mine = Claim {
        term: 5,
        leader: Some(node("bob")),
        ..a_claim("bob", 7, 0, true)
    };
    let told = |to: &str| {
        vec![ClaimAction::Send {
            to: peer(to),
            msg: LobbyMsg::Claim(mine.clone()),
        }]
    };
    assert_eq!(bob.heard_announce(&peer("ann")), told("ann"));
    // A claim that is not established is told the same, whatever its nonce.
    let early = a_claim("cyd", 9, 0, false);
    assert_eq!(bob.heard_claim(&peer("cyd"), &early, ms(10)), told("cyd"));
    let mut cyd = claiming("cyd", 0, &["bob"]);
    assert_eq!(
        cyd.heard_claim(&peer("bob"), &mine, ms(20)).last(),
        Some(&ClaimAction::DuplicateHost {
            incumbent: node("bob"),
            session: SessionId(7)
        })
    );
}

#[test]
fn members_of_one_session_fall_silent_once_they_heard_each_other() {
    let mut one = established("ann", 1, &["bob"]);
    assert!(!one.tick(WAIT * BEACON_WAITS).is_empty());
    assert_eq!(
        one.heard_claim(&peer("bob"), &a_claim("bob", 1, 0, true), ms(1700))
            .len(),
        1,
        "tells it once"
    );
    assert!(
        one.heard_claim(&peer("bob"), &a_claim("bob", 1, 0, true), ms(1701))
            .is_empty()
    );
    assert!(one.tick(WAIT * 3 * BEACON_WAITS).is_empty());
    one.peers_changed(&peers(&[]), ms(9000));
    assert_eq!(one.peers_changed(&peers(&["bob"]), ms(9001)).len(), 1);
}

#[test]
fn who_withdrew_came_over_to_another_session_or_went_is_of_this_one_no_more() {
    type End = fn(&mut HostClaim);
    let ends: [(&str, End); 3] = [
        ("withdrew", |host| {
            host.heard_withdraw(&peer("bob"), ms(2));
        }),
        ("is of another", |host| {
            host.heard_claim(&peer("bob"), &a_claim("bob", 2, 0, true), ms(2));
        }),
        ("went and came back", |host| {
            host.peers_changed(&peers(&[]), ms(2));
            host.peers_changed(&peers(&["bob"]), ms(2));
        }),
    ];
    for (what, end) in ends {
        let mut host = established("ann", 1, &["bob"]);
        host.heard_claim(&peer("bob"), &a_claim("bob", 1, 0, true), ms(1));
        assert_eq!(host.kin().count(), 1, "{what}");
        end(&mut host);
        assert_eq!(host.kin().count(), 0, "{what}");
        let beacon = host.tick(WAIT * BEACON_WAITS);
        assert_eq!(receivers(&beacon), ["bob"], "{what}");
    }
}

#[test]
fn another_session_begins_without_what_was_heard_in_the_one_before_and_the_same_goes_on() {
    let said_term = |actions: &[ClaimAction]| match actions {
        [
            ClaimAction::Send {
                msg: LobbyMsg::Claim(claim),
                ..
            },
        ] => claim.term,
        other => panic!("{other:?}"),
    };
    let mut host = established("ann", 1, &["bob", "cyd"]);
    host.heard_claim(&peer("bob"), &a_claim("bob", 1, 0, true), ms(1));
    host.heard_claim(&peer("cyd"), &a_claim("cyd", 2, 0, true), ms(1));
    for (term, held) in [(5, 5), (4, 5)] {
        assert!(host.establish(SessionId(1), term, ms(2)).is_empty());
        assert_eq!(said_term(&host.heard_announce(&peer("dan"))), held);
    }
    assert_eq!((host.kin().count(), host.rivals().len()), (1, 1));
    let told = host.establish(SessionId(3), 1, ms(3));
    assert!(matches!(&told[..], [ClaimAction::Broadcast(_)]));
    assert_eq!(said_term(&host.heard_announce(&peer("dan"))), 1);
    assert_eq!((host.kin().count(), host.rivals().len()), (0, 0));
    // Nor does a claim that is taken back know of rivals.
    host.heard_claim(&peer("cyd"), &a_claim("cyd", 2, 0, true), ms(4));
    host.withdraw();
    assert!(host.rivals().is_empty());
}

#[test]
fn a_session_that_lives_is_not_told_that_nobody_claims_and_its_own_claim_is_no_rivals() {
    let mut idle = HostClaim::idle(node("ann"), &peers(&["bob"]), WAIT);
    let lives = a_claim("bob", 5, 0, true);
    assert!(idle.heard_claim(&peer("bob"), &lives, ms(1)).is_empty());
    let mut host = claiming("ann", 5, &["bob"]);
    assert!(host.heard_claim(&peer("bob"), &lives, ms(1)).is_empty());
    assert!(host.tick(ms(100)).is_empty(), "it has answered");
    assert_eq!(host.tick(WAIT), [ClaimAction::Won]);
}

#[test]
fn a_claim_in_anothers_name_is_not_heard() {
    let mut host = claiming("ann", 5, &["eve"]);
    assert!(
        host.heard_claim(&peer("eve"), &a_claim("bob", 1, 0, true), ms(1))
            .is_empty()
    );
}

proptest! {
    /// Claimants, all connected, whose frames arrive in any order: at most one wins.
    #[test]
    fn of_connected_rivals_one_wins(
        nonces in proptest::collection::vec(0u64..3, 2..5),
        starts in proptest::collection::vec(0u64..600, 5),
        picks in proptest::collection::vec(any::<u16>(), 400),
    ) {
        let names = ["ann", "bob", "cyd", "dan", "eve"];
        let names = &names[..nonces.len()];
        let mut nodes: BTreeMap<PeerId, HostClaim> = names
            .iter()
            .map(|name| (peer(name), HostClaim::idle(node(name), &peers(names), WAIT)))
            .collect();
        let mut wire: Vec<(PeerId, PeerId, LobbyMsg)> = Vec::new();
        let mut won = Vec::new();
        let mut duplicate = 0;
        let mut picks = picks.into_iter().cycle();
        for now in (0..2000).step_by(10) {
            let now_at = ms(now);
            let mut acts: Vec<(PeerId, Vec<ClaimAction>)> = Vec::new();
            for (n, name) in names.iter().enumerate() {
                let host = nodes.get_mut(&peer(name)).unwrap();
                if starts[n] / 10 * 10 == now {
                    acts.push((peer(name), host.claim(SessionId(n as u128 + 1), nonces[n], now_at)));
                }
                acts.push((peer(name), host.tick(now_at)));
            }
            // A few frames a step, the oldest of a link first, links in any order.
            for _ in 0..wire.len().min(6) {
                let at = usize::from(picks.next().unwrap()) % wire.len();
                let link = (wire[at].0.clone(), wire[at].1.clone());
                let at = wire.iter().position(|(a, b, _)| (a, b) == (&link.0, &link.1)).unwrap();
                let (from, to, msg) = wire.remove(at);
                let host = nodes.get_mut(&to).unwrap();
                let actions = match msg {
                    LobbyMsg::Claim(claim) => host.heard_claim(&from, &claim, now_at),
                    LobbyMsg::NoClaim { nonce } => host.heard_no_claim(&from, nonce, now_at),
                    LobbyMsg::Withdraw { .. } => host.heard_withdraw(&from, now_at),
                    _ => Vec::new(),
                };
                acts.push((to, actions));
            }
            while let Some((who, actions)) = acts.pop() {
                for action in actions {
                    match action {
                        ClaimAction::Send { to, msg } => wire.push((who.clone(), to, msg)),
                        ClaimAction::Broadcast(msg) => {
                            for name in names.iter().filter(|name| peer(name) != who) {
                                wire.push((who.clone(), peer(name), msg.clone()));
                            }
                        }
                        ClaimAction::Won => {
                            won.push(who.clone());
                            let host = nodes.get_mut(&who).unwrap();
                            let session = host.session;
                            acts.push((who.clone(), host.establish(session, 1, now_at)));
                        }
                        ClaimAction::DuplicateHost { .. } => duplicate += 1,
                        ClaimAction::SplitDetected { .. } => prop_assert!(false, "split"),
                    }
                }
            }
        }
        prop_assert_eq!(won.len(), 1, "{:?}", won);
        prop_assert_eq!(duplicate, names.len() - 1);
    }
}

/// Carries frames between two established nodes until neither has anything to say; answers how many.
fn carry(ends: &mut [HostClaim; 2], first: Vec<ClaimAction>, now: Duration) -> usize {
    let mut carried = 0;
    let mut queue: Vec<(usize, ClaimAction)> = first.into_iter().map(|act| (0, act)).collect();
    while let Some((by, action)) = queue.pop() {
        let (ClaimAction::Send { msg, .. } | ClaimAction::Broadcast(msg)) = action else {
            continue;
        };
        let LobbyMsg::Claim(claim) = msg else {
            continue;
        };
        carried += 1;
        assert!(carried < 20, "they never stop");
        let from = ends[by].me.peer.clone();
        let answers = ends[1 - by].heard_claim(&from, &claim, now);
        queue.extend(answers.into_iter().map(|act| (1 - by, act)));
    }
    carried
}

#[test]
fn who_comes_back_to_a_member_that_noticed_nothing_is_told_of_it() {
    let mut ends = [
        established("ann", 1, &["bob"]),
        established("bob", 1, &["ann"]),
    ];
    let first = ends[0].tell(&peer("bob"));
    carry(&mut ends, first, ms(0));
    let knows = |ends: &[HostClaim; 2], at: usize| ends[at].kin().count() == 1;
    assert!(knows(&ends, 0) && knows(&ends, 1));

    // Ann's process is another; bob's connection was replaced before he noticed.
    ends[0] = HostClaim::idle(node("ann"), &peers(&["bob"]), WAIT);
    let first = ends[0].establish(SessionId(1), 1, WAIT);
    assert!(!knows(&ends, 0));
    assert_eq!(
        carry(&mut ends, first, WAIT),
        3,
        "both say it, and ann once more"
    );
    assert!(knows(&ends, 0) && knows(&ends, 1));

    // It is not said again and again to who asks without end.
    let theirs = a_claim("ann", 1, 0, true);
    let again = WAIT * 2;
    let mut asks = |now| ends[1].heard_claim(&peer("ann"), &theirs, now).len();
    assert_eq!(asks(again - ms(1)), 0);
    assert_eq!(asks(again), 1);
    assert_eq!(asks(again), 0);
}
