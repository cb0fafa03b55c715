//! Sessions that live beside this one: what is reported of them, and until when.

use super::*;

#[test]
fn a_split_is_reported_once_on_each_side_and_does_not_echo() {
    let mut one = established("ann", 1, &["bob"]);
    let mut two = established("bob", 2, &["ann"]);
    let first = two.heard_claim(&peer("ann"), &a_claim("ann", 1, 0, true), ms(1));
    assert!(matches!(
        &first[..],
        [ClaimAction::Send { .. }, ClaimAction::SplitDetected { theirs, session, .. }]
            if *theirs == node("ann") && *session == SessionId(1)
    ));
    let second = one.heard_claim(&peer("bob"), &a_claim("bob", 2, 0, true), ms(2));
    assert_eq!(second.len(), 2);
    assert!(
        two.heard_claim(&peer("ann"), &a_claim("ann", 1, 0, true), ms(3))
            .is_empty()
    );
    // A-2, H6: another member of the same rival session is no second split.
    assert!(
        two.heard_claim(&peer("cyd"), &a_claim("cyd", 1, 0, true), ms(4))
            .is_empty()
    );
}

#[test]
fn a_rival_session_is_reported_again_only_by_who_vouches_for_it_in_a_later_term() {
    let mut ann = established("ann", 1, &["bob", "cyd"]);
    let theirs = |holder: &str, term| Claim {
        term,
        ..a_claim(holder, 2, 0, true)
    };
    let reported = |actions: Vec<ClaimAction>| {
        let split = actions.into_iter().find_map(|action| match action {
            ClaimAction::SplitDetected { theirs, term, .. } => Some((theirs, term)),
            _ => None,
        });
        split.map(|(holder, term)| (holder.peer.to_string(), term))
    };
    let hear = |ann: &mut HostClaim, holder: &str, term| {
        reported(ann.heard_claim(&peer(holder), &theirs(holder, term), ms(1)))
    };
    assert_eq!(hear(&mut ann, "bob", 3), Some(("bob".to_owned(), 3)));
    assert_eq!(hear(&mut ann, "cyd", 2), None, "an older leader's");
    assert_eq!(hear(&mut ann, "cyd", 3), None);
    assert_eq!(hear(&mut ann, "cyd", 4), Some(("cyd".to_owned(), 4)));
    // A claim that another overtook takes nothing back.
    assert_eq!(hear(&mut ann, "cyd", 2), None);
    assert_eq!(rivals(&ann), [(2, 4, "cyd".to_owned())]);
}

#[test]
fn a_peer_that_flips_between_two_sessions_is_news_once_for_each() {
    let mut host = established("ann", 1, &["bob", "eve"]);
    let mut news = 0;
    for n in 0..1000u64 {
        let theirs = a_claim("eve", 2 + u128::from(n % 2), 0, true);
        let told = host.heard_claim(&peer("eve"), &theirs, ms(n));
        let split = |act: &&ClaimAction| matches!(act, ClaimAction::SplitDetected { .. });
        news += told.iter().filter(split).count();
        if n == 500 {
            // Nor is it news when she goes and comes back, or takes it back meanwhile.
            host.peers_changed(&peers(&["bob"]), ms(n));
            host.peers_changed(&peers(&["bob", "eve"]), ms(n));
            host.heard_withdraw(&peer("eve"), ms(n));
        }
    }
    assert_eq!(news, 2);
    // What she says now is what she vouches for, and another's word is his own.
    assert_eq!(rivals(&host), [(3, 1, "eve".to_owned())]);
    let theirs = a_claim("bob", 2, 0, true);
    let told = host.heard_claim(&peer("bob"), &theirs, ms(1000));
    assert!(matches!(
        told.last(),
        Some(ClaimAction::SplitDetected { .. })
    ));
}

#[test]
fn one_peers_word_is_news_so_often_and_not_once_more_until_it_fell_silent() {
    let lasts = WAIT * BEACON_WAITS * RIVAL_BEACONS;
    let mut host = established("ann", 1, &["eve"]);
    let mut tell = |n: usize, at: Duration| {
        let theirs = a_claim("eve", 2 + n as u128, 0, true);
        !host.heard_claim(&peer("eve"), &theirs, at).is_empty()
    };
    for n in 0..reports::REPORTS_MAX {
        assert!(tell(n, ms(1)), "{n}");
    }
    assert!(!tell(reports::REPORTS_MAX, ms(1)));
    assert!(!tell(reports::REPORTS_MAX, lasts));
    assert!(tell(reports::REPORTS_MAX + 1, lasts + ms(1)));
}

/// The rival sessions, with who vouches for each.
fn rivals(host: &HostClaim) -> Vec<(u128, u64, String)> {
    let rivals = host.rivals().into_iter();
    rivals
        .map(|(session, (term, holder))| (session.0, term, holder.peer.to_string()))
        .collect()
}

#[test]
fn a_peer_that_makes_up_sessions_without_end_holds_one_and_hides_nobody_elses() {
    let mut host = established("ann", 1, &["bob", "eve"]);
    for n in 2..1000u128 {
        host.heard_claim(&peer("eve"), &a_claim("eve", n, 0, true), ms(1));
        assert_eq!(rivals(&host), [(n, 1, "eve".to_owned())]);
    }
    let split = host.heard_claim(&peer("bob"), &a_claim("bob", 5000, 0, true), ms(2));
    assert!(
        matches!(split.last(), Some(ClaimAction::SplitDetected { theirs, .. })
        if *theirs == node("bob"))
    );
    let bobs = (5000, 1, "bob".to_owned());
    assert_eq!(rivals(&host), [(999, 1, "eve".to_owned()), bobs.clone()]);
    // To vouch for bob's in a term that is none does not keep it there once she is gone.
    let lie = Claim {
        term: u64::MAX,
        ..a_claim("eve", 5000, 0, true)
    };
    host.heard_claim(&peer("eve"), &lie, ms(3));
    assert_eq!(rivals(&host), [(5000, u64::MAX, "eve".to_owned())]);
    host.peers_changed(&peers(&["bob"]), ms(4));
    assert_eq!(rivals(&host), [bobs]);
}

#[test]
fn a_rival_is_over_when_its_peers_withdrew_left_say_another_thing_or_fell_silent() {
    let silent = WAIT * BEACON_WAITS * RIVAL_BEACONS;
    type End = fn(&mut HostClaim, Duration);
    let ends: [(&str, End); 5] = [
        ("withdrew", |host, now| {
            host.heard_withdraw(&peer("bob"), now);
        }),
        ("is not connected", |host, now| {
            host.peers_changed(&peers(&["cyd"]), now);
        }),
        ("hosts nothing yet", |host, now| {
            host.heard_claim(&peer("bob"), &a_claim("bob", 7, 0, false), now);
        }),
        ("came over", |host, now| {
            host.heard_claim(&peer("bob"), &a_claim("bob", 1, 0, true), now);
        }),
        ("is silent", |host, now| {
            host.tick(now + WAIT * BEACON_WAITS * RIVAL_BEACONS);
        }),
    ];
    for (what, end) in ends {
        let mut host = established("ann", 1, &["bob", "cyd"]);
        host.heard_claim(&peer("bob"), &a_claim("bob", 2, 0, true), ms(1));
        // A beacon within the time keeps it.
        host.tick(ms(1) + silent - ms(1));
        assert_eq!(rivals(&host).len(), 1, "{what}: too early");
        host.heard_claim(&peer("bob"), &a_claim("bob", 2, 0, true), silent);
        host.tick(silent + silent - ms(1));
        assert_eq!(rivals(&host).len(), 1, "{what}: it was heard again");
        end(&mut host, silent);
        assert!(rivals(&host).is_empty(), "{what}");
    }
    // It lives for as long as any of its peers vouches for it.
    let mut host = established("ann", 1, &["bob", "cyd"]);
    for name in ["bob", "cyd"] {
        host.heard_claim(&peer(name), &a_claim(name, 2, 0, true), ms(1));
    }
    host.heard_withdraw(&peer("bob"), ms(2));
    assert_eq!(rivals(&host), [(2, 1, "cyd".to_owned())]);
}
