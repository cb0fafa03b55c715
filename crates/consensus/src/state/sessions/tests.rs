//! The session table, by itself.

use proptest::prelude::*;

use super::*;

fn client() -> ClientId {
    ClientId::new("ann").unwrap()
}

fn owner() -> PeerId {
    PeerId::new("ann").unwrap()
}

fn kept(index: u64) -> Kept {
    Kept {
        index,
        term: 1,
        turn: index,
        result: KeptResult::Accepted(Bytes::new()),
    }
}

fn opened() -> (Sessions, u64) {
    let mut table = Sessions::default();
    let open = table.open(&client(), &owner(), 7, 3, 0).unwrap();
    assert_eq!((open.generation, open.next_serial), (3, 1));
    (table, open.generation)
}

#[test]
fn a_request_is_applied_once_and_its_repetition_gets_the_first_answer() {
    let (mut table, session) = opened();
    assert_eq!(
        table.admit(&client(), &owner(), session, 1, 0),
        Admission::Apply
    );
    table.keep(&client(), 1, kept(4));
    assert_eq!(
        table.admit(&client(), &owner(), session, 1, 0),
        Admission::Duplicate(kept(4))
    );
}

#[test]
fn an_older_request_that_comes_late_is_applied_all_the_same() {
    let (mut table, session) = opened();
    for serial in [3, 1, 2] {
        assert_eq!(
            table.admit(&client(), &owner(), session, serial, 0),
            Admission::Apply
        );
        table.keep(&client(), serial, kept(serial));
    }
    assert_eq!(
        table.admit(&client(), &owner(), session, 1, 0),
        Admission::Duplicate(kept(1))
    );
}

#[test]
fn the_window_holds_its_limit_and_one_older_is_refused_not_applied() {
    let (mut table, session) = opened();
    table.admit(&client(), &owner(), session, WINDOW + 1, 0);
    table.keep(&client(), WINDOW + 1, kept(9));
    assert_eq!(
        table.admit(&client(), &owner(), session, 2, 0),
        Admission::Apply
    );
    assert_eq!(
        table.admit(&client(), &owner(), session, 1, 0),
        Admission::Rejected(Rejection::TooOld)
    );
    assert_eq!(
        table.admit(&client(), &owner(), session, 0, 0),
        Admission::Rejected(Rejection::TooOld)
    );
}

#[test]
fn the_highest_serial_is_taken_and_one_higher_is_refused() {
    let (mut table, session) = opened();
    assert_eq!(
        table.admit(&client(), &owner(), session, SERIAL_MAX + 1, 0),
        Admission::Rejected(Rejection::TooOld)
    );
    assert_eq!(
        table.admit(&client(), &owner(), session, u64::MAX, 0),
        Admission::Rejected(Rejection::TooOld)
    );
    assert_eq!(
        table.admit(&client(), &owner(), session, SERIAL_MAX, 0),
        Admission::Apply
    );
    table.keep(&client(), SERIAL_MAX, kept(4));
    let again = table.open(&client(), &owner(), 8, 6, 0).unwrap();
    assert_eq!(again.next_serial, SERIAL_MAX + 1);
}

#[test]
fn a_client_that_comes_back_goes_on_and_shuts_its_former_self_out() {
    let (mut table, old) = opened();
    table.admit(&client(), &owner(), old, 1, 0);
    table.keep(&client(), 1, kept(4));
    let again = table.open(&client(), &owner(), 7, 5, 0).unwrap();
    assert_eq!((again.generation, again.next_serial), (old, 2));
    let new = table.open(&client(), &owner(), 8, 6, 0).unwrap();
    assert_eq!((new.generation, new.next_serial), (6, 2));
    assert_eq!(
        table.admit(&client(), &owner(), old, 2, 0),
        Admission::Rejected(Rejection::Superseded)
    );
    assert_eq!(
        table.admit(&client(), &owner(), new.generation, 1, 0),
        Admission::Duplicate(kept(4))
    );
    let thief = table.open(&client(), &PeerId::new("bob").unwrap(), 9, 7, 0);
    assert_eq!(thief, Err(Rejection::NotYours));
}

#[test]
fn a_silent_client_is_forgotten_one_past_its_time_and_refused_then() {
    let (mut table, session) = opened();
    table.expire(1000, 1000);
    assert_eq!(table.len(), 1);
    table.expire(1001, 1000);
    assert!(table.is_empty());
    assert_eq!(
        table.admit(&client(), &owner(), session, 1, 1001),
        Admission::Rejected(Rejection::NoSession)
    );
}

#[test]
fn a_client_that_speaks_is_not_forgotten() {
    let (mut table, session) = opened();
    table.admit(&client(), &owner(), session, 1, 900);
    table.expire(1800, 1000);
    assert_eq!(table.len(), 1);
}

fn name(of: &str, n: usize) -> ClientId {
    ClientId::new(format!("{of}{n}")).unwrap()
}

fn peer(n: usize) -> PeerId {
    PeerId::new(format!("p{n}")).unwrap()
}

/// Opens a session and has one serial decided in it.
fn used(table: &mut Sessions, client: &ClientId, of: &PeerId, serial: u64, at: u64) {
    let open = table.open(client, of, 1, at, at).unwrap();
    assert_eq!(
        table.admit(client, of, open.generation, serial, at),
        Admission::Apply
    );
    table.keep(client, serial, kept(at));
}

#[test]
fn an_owner_has_its_most_sessions_and_one_more_ends_its_own_most_silent() {
    let mut table = Sessions::default();
    let bob = PeerId::new("bob").unwrap();
    // The most silent of all is another's.
    used(&mut table, &name("b", 0), &bob, 1, 1);
    for n in 0..SESSIONS_PER_OWNER_MAX {
        used(&mut table, &name("c", n), &owner(), 5, 10 + n as u64);
    }
    assert_eq!(table.len(), SESSIONS_PER_OWNER_MAX + 1);
    for n in SESSIONS_PER_OWNER_MAX..5000 {
        // Above what is forgotten of this owner by now.
        let serial = 5 + n as u64;
        used(&mut table, &name("c", n), &owner(), serial, 10 + n as u64);
        assert_eq!(table.len(), SESSIONS_PER_OWNER_MAX + 1);
    }
    assert!(table.owner(&name("b", 0)).is_some(), "bob is still there");
    assert!(table.owner(&name("c", 4999)).is_some());
    assert!(table.owner(&name("c", 0)).is_none());
}

#[test]
fn the_table_takes_its_most_sessions_and_refuses_a_newcomer_instead_of_ending_anybodys() {
    let mut table = Sessions::default();
    for n in 0..SESSIONS_MAX {
        let of = peer(n / SESSIONS_PER_OWNER_MAX);
        table.open(&name("c", n), &of, 1, 1, n as u64).unwrap();
    }
    let before = table.clone();
    let late = PeerId::new("late").unwrap();
    let refused = table.open(&name("d", 0), &late, 1, 1, 1_000_000);
    assert_eq!(refused, Err(Rejection::Full));
    assert_eq!(table, before);
    // Who has some may still replace its own.
    table
        .open(&name("d", 1), &peer(7), 1, 1, 1_000_000)
        .unwrap();
    assert_eq!(table.len(), SESSIONS_MAX);
    assert!(
        table
            .owner(&name("c", 7 * SESSIONS_PER_OWNER_MAX))
            .is_none()
    );
    assert!(table.owner(&name("c", 0)).is_some());
}

#[test]
fn the_most_owners_are_remembered_and_one_more_is_refused_while_idle_ones_are_forgotten() {
    let mut table = Sessions::default();
    // Who never proposed leaves nothing behind.
    table.open(&name("idle", 0), &owner(), 1, 1, 0).unwrap();
    table.expire(2, 1);
    assert_eq!(table, Sessions::default());
    for n in 0..OWNERS_MAX {
        used(&mut table, &name("c", n), &peer(n), 1, 10 * (1 + n as u64));
        table.expire(10 * (1 + n as u64) + 2, 1);
    }
    assert_eq!((table.len(), table.owners.len()), (0, OWNERS_MAX));
    let now = u64::MAX / 2;
    let late = PeerId::new("late").unwrap();
    assert_eq!(
        table.open(&name("d", 0), &late, 1, 1, now),
        Err(Rejection::Full)
    );
    assert!(table.open(&name("c", 3), &peer(3), 1, 1, now).is_ok());
}

#[test]
fn a_serial_of_a_session_that_ended_is_not_applied_anew_and_the_next_one_is() {
    let (mut table, old) = opened();
    table.admit(&client(), &owner(), old, 9, 0);
    table.keep(&client(), 9, kept(4));
    table.expire(1001, 1000);
    assert!(table.is_empty());
    let thief = table.open(&client(), &PeerId::new("bob").unwrap(), 1, 5, 1001);
    assert_eq!(thief, Err(Rejection::NotYours));
    let again = table.open(&client(), &owner(), 7, 6, 1001).unwrap();
    assert_eq!(again.next_serial, 10);
    for serial in [1, 9] {
        assert_eq!(
            table.admit(&client(), &owner(), again.generation, serial, 1001),
            Admission::Rejected(Rejection::Expired)
        );
    }
    // What the ended session still had under way comes too late.
    assert_eq!(
        table.admit(&client(), &owner(), old, 10, 1001),
        Admission::Rejected(Rejection::Superseded)
    );
    assert_eq!(
        table.admit(&client(), &owner(), again.generation, 10, 1001),
        Admission::Apply
    );
}

#[test]
fn the_most_ended_sessions_are_remembered_and_past_them_their_owners_floor_is() {
    let mut table = Sessions::default();
    let end = |table: &mut Sessions, n: usize, serial| {
        let at = 10 * (1 + n as u64);
        used(table, &name("c", n), &owner(), serial, at);
        table.expire(at + 2, 1);
    };
    end(&mut table, 0, 70);
    for n in 1..ENDED_PER_OWNER_MAX {
        end(&mut table, n, 5);
    }
    let mut at_limit = table.clone();
    let again = at_limit.open(&name("c", 0), &owner(), 2, 1, 9999).unwrap();
    assert_eq!(again.next_serial, 71);
    let fresh = at_limit
        .open(&name("new", 0), &owner(), 2, 1, 9999)
        .unwrap();
    assert_eq!(fresh.next_serial, 1, "nothing of this owner was forgotten");
    end(&mut table, ENDED_PER_OWNER_MAX, 5);
    assert_eq!(table.ended.len(), ENDED_PER_OWNER_MAX);
    for who in [name("c", 0), name("new", 0)] {
        let again = table.open(&who, &owner(), 2, 1, 9999).unwrap();
        assert_eq!(again.next_serial, 71, "{who}");
        assert_eq!(
            table.admit(&who, &owner(), again.generation, 70, 9999),
            Admission::Rejected(Rejection::Expired)
        );
    }
    let bob = PeerId::new("bob").unwrap();
    let other = table.open(&name("b", 0), &bob, 2, 1, 9999).unwrap();
    assert_eq!(other.next_serial, 1, "another owner has a floor of its own");
}

#[test]
fn a_client_that_comes_back_as_one_too_many_keeps_its_serials() {
    let mut table = Sessions::default();
    used(&mut table, &name("c", 0), &owner(), 30, 1);
    table.expire(3, 1);
    // Its tombstone is the oldest, and ending another session would push it out.
    for n in 1..=ENDED_PER_OWNER_MAX - 1 {
        used(&mut table, &name("c", n), &owner(), 2, 10 * n as u64);
        table.expire(10 * n as u64 + 2, 1);
    }
    for n in 0..SESSIONS_PER_OWNER_MAX {
        used(&mut table, &name("live", n), &owner(), 2, 1000);
    }
    assert_eq!(table.ended.len(), ENDED_PER_OWNER_MAX);
    let again = table.open(&name("c", 0), &owner(), 2, 1, 1001).unwrap();
    assert_eq!(again.next_serial, 31);
}

#[test]
fn a_process_that_was_replaced_does_not_get_its_successors_answer() {
    let (mut table, old) = opened();
    table.admit(&client(), &owner(), old, 1, 0);
    table.keep(&client(), 1, kept(4));
    let new = table.open(&client(), &owner(), 8, 6, 0).unwrap();
    table.admit(&client(), &owner(), new.generation, 2, 0);
    table.keep(&client(), 2, kept(7));
    // The former process means another action by its number 2.
    assert_eq!(
        table.admit(&client(), &owner(), old, 2, 0),
        Admission::Rejected(Rejection::Superseded)
    );
    // Its own is answered to either.
    for generation in [old, new.generation] {
        assert_eq!(
            table.admit(&client(), &owner(), generation, 1, 0),
            Admission::Duplicate(kept(4))
        );
    }
}

#[test]
fn an_action_from_another_peer_is_refused_whatever_it_knows() {
    let (mut table, session) = opened();
    table.admit(&client(), &owner(), session, 1, 0);
    table.keep(&client(), 1, kept(4));
    let bob = PeerId::new("bob").unwrap();
    for serial in [1, 2] {
        assert_eq!(
            table.admit(&client(), &bob, session, serial, 0),
            Admission::Rejected(Rejection::NotYours)
        );
    }
}

#[test]
fn a_name_that_nodes_give_themselves_is_that_peers_alone() {
    let mut table = Sessions::default();
    let auto = |name: &str| ClientId::new(name).unwrap();
    assert!(table.open(&auto("auto:ann/0"), &owner(), 1, 1, 0).is_ok());
    for other in ["auto:bob/0", "auto:ann/b/0", "auto:ann", "auto:"] {
        assert_eq!(
            table.open(&auto(other), &owner(), 1, 1, 0),
            Err(Rejection::NotYours),
            "{other}"
        );
    }
    let slashed = PeerId::new("ann/b").unwrap();
    assert!(table.open(&auto("auto:ann/b/0"), &slashed, 1, 1, 0).is_ok());
}

#[test]
fn a_session_keeps_its_most_bytes_and_past_them_the_oldest_answers_are_withheld() {
    let (mut table, session) = opened();
    let mut decide = |serial: u64, bytes: usize| {
        let admitted = table.admit(&client(), &owner(), session, serial, 0);
        assert_eq!(admitted, Admission::Apply);
        let result = KeptResult::Accepted(vec![7; bytes].into());
        let kept = Kept {
            result,
            ..kept(serial)
        };
        table.keep(&client(), serial, kept);
        let of = |n| table.result(&client(), n).unwrap().result.clone();
        (of(1), of(serial))
    };
    let half = SESSION_BYTES_MAX / 2;
    let whole = KeptResult::Accepted(vec![7; half].into());
    decide(1, half);
    assert_eq!(decide(2, half), (whole.clone(), whole));
    let withheld = KeptResult::Withheld {
        accepted: true,
        bytes: half as u64,
    };
    let one = KeptResult::Accepted(vec![7; 1].into());
    assert_eq!(decide(3, 1), (withheld.clone(), one));
    assert_eq!(table.clients[&client()].results.bytes(), half + 1);
    // What was decided is still known, and not applied again.
    let Admission::Duplicate(kept) = table.admit(&client(), &owner(), session, 1, 0) else {
        panic!("it was decided");
    };
    assert_eq!((kept.index, kept.result), (1, withheld));
}

proptest! {
    /// Any order and repetition of requests within the window applies each once.
    #[test]
    fn each_serial_is_applied_at_most_once(
        requests in proptest::collection::vec((1u64..600, 0u8..2), 1..400),
    ) {
        let (mut table, session) = opened();
        let mut applied = BTreeMap::new();
        let mut highest = 0;
        for (n, (serial, _)) in requests.into_iter().enumerate() {
            match table.admit(&client(), &owner(), session, serial, n as u64) {
                Admission::Apply => {
                    prop_assert!(!applied.contains_key(&serial), "{serial} twice");
                    applied.insert(serial, n as u64);
                    table.keep(&client(), serial, kept(n as u64));
                    highest = highest.max(serial);
                }
                Admission::Duplicate(kept) => {
                    prop_assert_eq!(applied.get(&serial), Some(&kept.index));
                }
                Admission::Rejected(why) => {
                    prop_assert_eq!(why, Rejection::TooOld);
                    prop_assert!(serial + WINDOW <= highest);
                }
            }
        }
    }
}

/// What a peer does to the table, in any order.
#[derive(Debug, Clone)]
enum Deed {
    Open {
        client: usize,
        owner: usize,
    },
    /// Under a session it had, or the latest.
    Act {
        client: usize,
        serial: u64,
        stale: bool,
    },
    Wait(u64),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        2 => (0usize..40, 0usize..2).prop_map(|(client, owner)| Deed::Open { client, owner }),
        6 => (0usize..40, 1u64..6, any::<bool>())
            .prop_map(|(client, serial, stale)| Deed::Act { client, serial, stale }),
        1 => (1u64..60).prop_map(Deed::Wait),
    ];
    proptest::collection::vec(deed, 1..600)
}

proptest! {
    /// However sessions end, are opened again and forgotten: no serial is applied twice for a
    /// client of an owner, nothing grows past its limit, and no owner ends another's session.
    #[test]
    fn nothing_is_applied_twice_whatever_ended_or_was_forgotten(deeds in deeds()) {
        let mut table = Sessions::default();
        let mut generations: BTreeMap<(usize, usize), Vec<u64>> = BTreeMap::new();
        let mut applied = BTreeSet::new();
        let (mut now, mut index) = (0, 0);
        for deed in deeds {
            index += 1;
            table.expire(now, 50);
            match deed {
                Deed::Wait(ms) => now += ms,
                Deed::Open { client, owner } => {
                    let others = |table: &Sessions| {
                        let mut names: Vec<_> = table.clients.iter()
                            .filter(|(_, s)| s.owner != peer(owner))
                            .map(|(name, _)| name.clone())
                            .collect();
                        names.sort();
                        names
                    };
                    let before = others(&table);
                    if let Ok(open) = table.open(&name("c", client), &peer(owner), index, index, now) {
                        generations.entry((client, owner)).or_default().push(open.generation);
                    }
                    prop_assert_eq!(before, others(&table));
                }
                Deed::Act { client, serial, stale } => for owner in 0..2 {
                    let known = generations.get(&(client, owner));
                    let known = known.map_or(&[][..], Vec::as_slice);
                    let generation = if stale { known.first() } else { known.last() };
                    let (Some(generation), who) = (generation, peer(owner)) else {
                        continue;
                    };
                    let client = name("c", client);
                    if table.admit(&client, &who, *generation, serial, now) == Admission::Apply {
                        let first = applied.insert((client.clone(), owner, serial));
                        prop_assert!(first, "{client} {serial} of {who} was applied twice");
                        table.keep(&client, serial, kept(index));
                    }
                },
            }
            prop_assert!(table.len() <= 2 * SESSIONS_PER_OWNER_MAX);
            prop_assert!(table.ended.len() <= 2 * ENDED_PER_OWNER_MAX);
        }
    }
}
