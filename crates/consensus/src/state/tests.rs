//! The replicated state, driven entry by entry, and what it writes, byte for byte.

use std::time::Duration;

use super::command::{Act, NodeMsg, Open, SeatRequest, Tick, Timeout, Vacate};
use super::votes::POINTS_MAX;
use super::*;
use crate::events::{FeedLimits, Read};
use crate::game::{Blueprint, Game, Snapshots};
use crate::ids::Incarnation;

/// Says as many bytes as the action asks for; refuses from a million on.
#[derive(Clone, Default)]
struct Talk {
    accepted: u64,
    timeouts: u64,
    /// Where the last one came from.
    place: Option<Place>,
}

const REFUSED: u64 = 1_000_000;

impl Game for Talk {
    type Action = u64;
    type Outcome = Vec<u8>;
    type Refusal = Vec<u8>;

    fn apply(&mut self, at: &TurnInfo, says: &u64) -> Result<Vec<u8>, Vec<u8>> {
        self.place = at.place;
        let answer = |bytes: u64| vec![7; usize::try_from(bytes).unwrap()];
        if *says >= REFUSED {
            return Err(answer(says - REFUSED));
        }
        self.accepted += 1;
        Ok(answer(*says))
    }

    fn time_limit(&self) -> Option<Duration> {
        Some(Duration::from_millis(100))
    }

    fn time_out(&mut self, _: &TurnInfo) {
        self.timeouts += 1;
    }
}

impl Snapshots for Talk {
    fn snapshot(&self) -> Vec<u8> {
        [self.accepted.to_le_bytes(), self.timeouts.to_le_bytes()].concat()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Malformed> {
        let (accepted, timeouts) = bytes.split_at_checked(8).ok_or(Malformed)?;
        let read = |b: &[u8]| b.try_into().map(u64::from_le_bytes).map_err(|_| Malformed);
        Ok(Self {
            accepted: read(accepted)?,
            timeouts: read(timeouts)?,
            place: None,
        })
    }
}

fn node(name: &str) -> NodeId {
    NodeId::new(PeerId::new(name).unwrap(), Incarnation(1))
}

fn at(index: u64) -> Position {
    // Games count entries from 1.
    Position {
        index: index - 1,
        term: 2,
    }
}

/// A replica, and the index of its next entry.
struct Driven {
    replica: Replica,
    feed: Feed,
    next: u64,
    now_ms: u64,
}

const EVERY: u64 = 4;
const ANSWER_MAX: usize = 100;

impl Driven {
    /// Three voters, configured at entry 2.
    fn new() -> Self {
        let feed = Feed::new(FeedLimits::default(), 0);
        let rules = Blueprint::with_snapshots(Talk::default).rules();
        let replica = Replica::new(rules, Some(feed.clone()), Planted::default());
        let mut this = Self {
            replica,
            feed,
            next: 1,
            now_ms: 0,
        };
        let voters = [node("ann"), node("bob"), node("cyd")];
        this.replica.pass_membership(at(1), voters.clone().into());
        this.next = 2;
        let configure = Configure {
            session: SessionId(5).to_bytes(),
            seats: 3,
            spectators_max: 1,
            seated: voters.iter().map(NodeMsg::from).collect(),
            session_ttl_ms: 1000,
            hash_every: EVERY,
            outcome_bytes_max: ANSWER_MAX as u64,
            ..Configure::default()
        };
        assert_eq!(this.apply(Body::Configure(configure)), Applied::Internal);
        this
    }

    fn try_apply(&mut self, body: Body) -> Result<Applied, Desync> {
        let command = Command::new(self.now_ms, body).to_bytes();
        self.next += 1;
        self.replica.apply(at(self.next - 1), &command)
    }

    fn apply(&mut self, body: Body) -> Applied {
        self.try_apply(body).unwrap()
    }

    fn open(&mut self, client: &str, owner: &str) -> Opened {
        let open = Open {
            client: client.to_owned(),
            owner: owner.to_owned(),
            nonce: 9,
        };
        match self.apply(Body::Open(open)) {
            Applied::Opened(opened) => opened,
            other => panic!("{other:?}"),
        }
    }

    fn act(&mut self, owner: &str, session: u64, serial: u64, says: u64) -> Applied {
        self.apply(Body::Act(Act {
            client: "one".to_owned(),
            session,
            serial,
            expected_turn: None,
            action: says.to_le_bytes().to_vec().into(),
            owner: owner.to_owned(),
        }))
    }

    /// Ticks until the next entry is `index`.
    fn until(&mut self, index: u64) {
        while self.next < index {
            self.apply(Body::Tick(Tick {}));
        }
    }

    fn vote(&mut self, who: &str, on: u64, hash: [u8; 32]) -> Result<Applied, Desync> {
        self.try_apply(Body::Hash(vote(who, on, &hash)))
    }

    fn noted(&self) -> Option<u64> {
        self.replica.hash_to_vote(&node("ann")).map(|(at, _)| at)
    }
}

fn vote(who: &str, on: u64, hash: &[u8]) -> Hash {
    Hash {
        at: on,
        hash: Bytes::copy_from_slice(hash),
        node: Some((&node(who)).into()),
    }
}

#[test]
fn an_action_counts_only_from_the_peer_that_owns_the_session_on_every_replica() {
    let mut all = [Driven::new(), Driven::new()];
    for driven in &mut all {
        let open = driven.open("one", "ann");
        for (owner, answer) in [
            ("bob", Rejection::NotYours),
            ("", Rejection::Malformed),
            ("an\u{7}n", Rejection::Malformed),
        ] {
            assert_eq!(
                driven.act(owner, open.generation, 1, 3),
                Applied::Rejected(answer)
            );
        }
        assert!(matches!(
            driven.act("ann", open.generation, 1, 3),
            Applied::Decided {
                duplicate: false,
                ..
            }
        ));
        assert_eq!(
            driven.act("bob", open.generation, 1, 3),
            Applied::Rejected(Rejection::NotYours),
            "nor what became of it"
        );
    }
    assert_eq!(all[0].replica.snapshot(), all[1].replica.snapshot());
}

#[test]
fn the_game_is_told_the_place_that_who_acts_has_at_that_entry_also_after_a_snapshot() {
    let mut driven = Driven::new();
    let seat = |name: &str, kind: Kind| {
        Body::Seat(SeatRequest {
            node: Some((&node(name)).into()),
            kind: kind as i32,
        })
    };
    let told = |driven: &mut Driven, owner: &str, serial| {
        let open = driven.open("one", owner);
        driven.act(owner, open.generation, serial, 3);
        let game = driven.replica.game.game().downcast_ref::<Talk>().unwrap();
        game.place
    };
    assert_eq!(told(&mut driven, "bob", 1), Some(Place::Seat(1)));
    // Given up, it is gone from that entry on; taken again, it is back.
    let vacate = Vacate {
        node: Some((&node("bob")).into()),
        left: false,
    };
    driven.apply(Body::Vacate(vacate));
    assert_eq!(told(&mut driven, "bob", 2), None);
    driven.apply(seat("bob", Kind::Player));
    assert_eq!(told(&mut driven, "bob", 3), Some(Place::Seat(1)));

    // Another node has only the snapshot.
    let mut other = Driven::new();
    let voters = ["ann", "bob", "cyd"].map(node).into();
    let state = driven.replica.snapshot().unwrap();
    let through = at(driven.next - 1);
    other.replica.install(through, voters, &state).unwrap();
    (other.next, other.now_ms) = (driven.next, driven.now_ms);
    for driven in [&mut driven, &mut other] {
        assert_eq!(told(driven, "bob", 4), Some(Place::Seat(1)));
    }
    assert_eq!(driven.replica.snapshot(), other.replica.snapshot());
}

#[test]
fn a_hash_is_noted_at_every_multiple_whatever_the_entry_is_but_a_vote() {
    let mut driven = Driven::new();
    let index = |driven: &mut Driven| {
        let index = driven.next.next_multiple_of(EVERY);
        driven.until(index);
        index
    };
    let on = index(&mut driven);
    driven.apply(Body::Tick(Tick {}));
    assert_eq!(driven.noted(), Some(on), "a tick");

    let on = index(&mut driven);
    driven.now_ms = 500;
    let turn = driven.replica.turn;
    assert_eq!(
        driven.apply(Body::Timeout(Timeout { turn })),
        Applied::TimedOut(true)
    );
    assert_eq!(driven.noted(), Some(on), "a timeout");

    let on = index(&mut driven);
    let seat = SeatRequest {
        node: Some((&node("eve")).into()),
        kind: Kind::Spectator as i32,
    };
    assert_eq!(
        driven.apply(Body::Seat(seat)),
        Applied::Placed(Place::Gallery)
    );
    assert_eq!(driven.noted(), Some(on), "a seat");

    let on = index(&mut driven);
    let vacate = Vacate {
        node: Some((&node("eve")).into()),
        left: true,
    };
    driven.apply(Body::Vacate(vacate));
    assert_eq!(driven.noted(), Some(on), "a seat given up");

    let on = index(&mut driven);
    driven.replica.pass_blank(at(on));
    driven.next += 1;
    assert_eq!(driven.noted(), Some(on), "a new leader's blank entry");

    let on = index(&mut driven);
    let voters = ["ann", "bob", "cyd"].map(node);
    driven.replica.pass_membership(at(on), voters.into());
    driven.next += 1;
    assert_eq!(driven.noted(), Some(on), "a change of members");

    let on = index(&mut driven);
    driven
        .replica
        .apply(at(on), &Bytes::from_static(b"\xff"))
        .unwrap();
    driven.next += 1;
    assert_eq!(driven.noted(), Some(on), "bytes that are no command");

    let before = on;
    let on = index(&mut driven);
    driven.vote("bob", before, [1; 32]).unwrap();
    assert_eq!(driven.next, on + 1);
    assert_eq!(driven.noted(), Some(before), "a vote calls for no votes");
}

#[test]
fn a_node_that_differs_learns_it_where_only_timeouts_and_ticks_were_written() {
    let mut driven = Driven::new();
    driven.until(EVERY);
    driven.apply(Body::Tick(Tick {}));
    let others = [9; 32];
    assert_eq!(driven.vote("bob", EVERY, others), Ok(Applied::Internal));
    let desync = driven.vote("cyd", EVERY, others).unwrap_err();
    assert_eq!((desync.index, desync.theirs), (EVERY, others));
    let Read::Events(events, _) = driven.feed.read(1) else {
        panic!("it is told");
    };
    assert!(matches!(events.last(), Some(RawEvent::Desync { .. })));
}

#[test]
fn votes_count_at_their_limits_and_one_past_them_they_are_refused_and_counted() {
    let mut driven = Driven::new();
    let mine = |driven: &Driven| driven.replica.hash_to_vote(&node("ann")).unwrap().1;
    driven.until(EVERY + 1);
    let hash = mine(&driven);
    let no = |why| Ok(Applied::NoVote(why));
    assert_eq!(driven.vote("eve", EVERY, hash), no(NoVote::NotVoter));
    assert_eq!(driven.vote("bob", EVERY + 1, hash), no(NoVote::NoPoint));
    assert_eq!(driven.vote("bob", 0, hash), no(NoVote::NoPoint));
    // The vote's own entry is one past the last that it can be on.
    assert_eq!(driven.next, 2 * EVERY);
    assert_eq!(driven.vote("bob", 2 * EVERY, hash), no(NoVote::Ahead));
    assert_eq!(driven.vote("bob", u64::MAX - 3, hash), no(NoVote::Ahead));
    assert_eq!(
        driven.try_apply(Body::Hash(vote("bob", EVERY, &hash[1..]))),
        no(NoVote::Malformed)
    );
    assert_eq!(driven.vote("bob", EVERY, hash), Ok(Applied::Internal));
    assert_eq!(driven.vote("bob", EVERY, [1; 32]), no(NoVote::Twice));
    assert_eq!(driven.replica.votes.refused, 7);

    // The last entry that a vote on the first point counts in, and one more.
    let last = EVERY + POINTS_MAX * EVERY;
    driven.until(last);
    assert_eq!(driven.vote("cyd", EVERY, hash), Ok(Applied::Internal));
    assert_eq!(driven.vote("ann", EVERY, hash), no(NoVote::Gone));

    // Whatever is voted, so many points are kept.
    for on in 0..100 * EVERY {
        for who in ["ann", "bob", "cyd"] {
            driven.vote(who, on, [on as u8; 32]).ok();
        }
        assert!(driven.replica.votes.cast.len() as u64 <= POINTS_MAX);
    }
}

#[test]
fn a_node_that_cannot_vote_any_more_does_not_try_for_ever() {
    let mut driven = Driven::new();
    driven.until(EVERY + 1);
    assert_eq!(driven.noted(), Some(EVERY));
    // Nothing but votes of others is written, so no later point is noted.
    while driven.next <= EVERY + POINTS_MAX * EVERY {
        assert_eq!(driven.noted(), Some(EVERY));
        driven.vote("bob", 1, [0; 32]).unwrap();
    }
    assert_eq!(driven.noted(), None);
}

#[test]
fn a_games_answer_is_kept_at_its_limit_and_withheld_one_past_it_on_every_replica() {
    let mut all = [Driven::new(), Driven::new()];
    for driven in &mut all {
        let open = driven.open("one", "ann");
        let mut say = |serial, says| match driven.act("ann", open.generation, serial, says) {
            Applied::Decided { kept, .. } => (kept.turn, kept.result),
            other => panic!("{other:?}"),
        };
        let most = Bytes::from(vec![7; ANSWER_MAX]);
        let max = ANSWER_MAX as u64;
        let withheld = |accepted| KeptResult::Withheld {
            accepted,
            bytes: max + 1,
        };
        assert_eq!(say(1, max), (1, KeptResult::Accepted(most.clone())));
        assert_eq!(say(2, max + 1), (2, withheld(true)), "it took place");
        assert_eq!(say(2, max + 1), (2, withheld(true)), "once");
        assert_eq!(
            say(3, REFUSED + max),
            (2, KeptResult::Refused(most.clone()))
        );
        assert_eq!(say(4, REFUSED + max + 1), (2, withheld(false)));
        let Read::Events(events, _) = driven.feed.read(1) else {
            panic!("there are events");
        };
        let rulings: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                RawEvent::Turn(turn) => Some(turn.ruling.is_accepted()),
                _ => None,
            })
            .collect();
        assert_eq!(rulings, [true, true, false, false]);
    }
    assert_eq!(all[0].replica.snapshot(), all[1].replica.snapshot());
}

#[test]
fn settings_of_a_game_are_taken_within_their_limits() {
    let limit = |outcome_bytes_max, core: u64| {
        let rules = Blueprint::with_snapshots(Talk::default).rules();
        let mut replica = Replica::new(rules, None, Planted::default());
        let server = |n| NodeMsg::from(&node(&format!("s{n}")));
        let configure = Configure {
            session: SessionId(5).to_bytes(),
            outcome_bytes_max,
            core: (0..core).map(server).collect(),
            ..Configure::default()
        };
        let command = Command::new(0, Body::Configure(configure)).to_bytes();
        replica.apply(at(1), &command).unwrap();
        (
            replica.settings.unwrap().outcome_bytes_max,
            replica.seats.core.len() as u64,
        )
    };
    let (bytes, core) = (SESSION_BYTES_MAX as u64, u64::from(seats::CORE_MAX));
    assert_eq!(limit(0, 0), (bytes, 0));
    assert_eq!(limit(bytes, core), (bytes, core));
    assert_eq!(limit(bytes + 1, core + 1), (bytes, core));
}

/// A state with something of everything in it.
fn full() -> Driven {
    let mut driven = Driven::new();
    driven.open("old", "ann");
    let open = driven.open("one", "ann");
    driven.act("ann", open.generation, 1, 2);
    driven.act("ann", open.generation, 2, REFUSED + 1);
    driven.act("ann", open.generation, 3, 101);
    driven.open("gone", "cyd");
    driven.apply(Body::Act(Act {
        client: "gone".to_owned(),
        session: driven.next - 1,
        serial: 40,
        expected_turn: None,
        action: 1u64.to_le_bytes().to_vec().into(),
        owner: "cyd".to_owned(),
    }));
    driven.now_ms = 5000;
    let open = driven.open("one", "ann");
    assert_eq!(open.next_serial, 4, "the first one has ended");
    driven.act("ann", open.generation, 4, 1);
    driven.act("ann", open.generation, 5, 101);
    driven.open("two", "bob");
    driven.vote("bob", EVERY, [1; 32]).unwrap();
    let seat = SeatRequest {
        node: Some((&node("eve")).into()),
        kind: Kind::Spectator as i32,
    };
    driven.apply(Body::Seat(seat));
    driven
}

#[test]
fn what_a_state_writes_another_reads_and_goes_on_as_it_does() {
    let mut driven = full();
    assert!(!driven.replica.sessions.ended.is_empty());
    let state = driven.replica.snapshot().unwrap();
    let mut other = Driven::new();
    let voters = ["ann", "bob", "cyd"].map(node);
    other
        .replica
        .install(at(driven.next - 1), voters.into(), &state)
        .unwrap();
    (other.next, other.now_ms) = (driven.next, driven.now_ms);
    assert_eq!(other.replica.snapshot().unwrap(), state);
    assert_eq!(other.replica.sessions, driven.replica.sessions);
    for driven in [&mut driven, &mut other] {
        let open = driven.open("gone", "cyd");
        assert_eq!(open.next_serial, 41);
        let open = driven.open("one", "ann");
        driven.act("ann", open.generation, 4, 1);
        driven.act("ann", open.generation, 6, 1);
    }
    assert_eq!(other.replica.snapshot(), driven.replica.snapshot());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What stands in logs: see docs/FORMATS.md. These bytes must never change their meaning.
#[test]
fn commands_are_written_as_they_always_were() {
    let node: NodeMsg = (&node("ann")).into();
    let golden: [(Body, &str); 8] = [
        (
            Body::Act(Act {
                client: "one".to_owned(),
                session: 3,
                serial: 4,
                expected_turn: Some(5),
                action: Bytes::from_static(b"xy"),
                owner: "ann".to_owned(),
            }),
            "080112140a036f6e651003180420052a0278793203616e6e",
        ),
        (
            Body::Open(Open {
                client: "one".to_owned(),
                owner: "ann".to_owned(),
                nonce: 6,
            }),
            "08011a0c0a036f6e651203616e6e1806",
        ),
        (
            Body::Configure(Configure {
                session: SessionId(5).to_bytes(),
                seats: 2,
                spectators_max: 3,
                core: vec![node.clone()],
                seated: vec![node.clone()],
                witness: true,
                session_ttl_ms: 7,
                hash_every: 8,
                outcome_bytes_max: 9,
                secret: Bytes::new(),
            }),
            "080122300a10000000000000000000000000000000051002180322070a03616e6e10012a070a03616e6e10013001380740084809",
        ),
        (
            Body::Seat(SeatRequest {
                node: Some(node.clone()),
                kind: Kind::Witness as i32,
            }),
            "08012a0b0a070a03616e6e10011002",
        ),
        (
            Body::Vacate(Vacate {
                node: Some(node.clone()),
                left: true,
            }),
            "0801320b0a070a03616e6e10011001",
        ),
        (Body::Timeout(Timeout { turn: 10 }), "08013a02080a"),
        (
            Body::Hash(Hash {
                at: 11,
                hash: Bytes::from_static(&[0xab; 32]),
                node: Some(node),
            }),
            "0801422d080b1220abababababababababababababababababababababababababababababababab1a070a03616e6e1001",
        ),
        (Body::Tick(Tick {}), "08014a00"),
    ];
    let mut written = Vec::new();
    let mut as_always = Vec::new();
    for (body, bytes) in golden {
        let command = Command::new(1, body);
        assert_eq!(Command::decode(command.to_bytes()), Ok(command.clone()));
        written.push(hex(&command.to_bytes()));
        as_always.push(bytes);
    }
    assert_eq!(written, as_always);
}

#[test]
fn a_state_is_written_as_it_always_was() {
    let golden = [
        "08882710051a190a100000000000000000000000000000000510e80718042064223b0a0e0a070a03616e6e10",
        "011203616e6e0a0e0a070a03626f6210011203626f620a0e0a070a036379641001120363796412070a036576",
        "65100120012a340a036f6e651203616e6e180a200928053088273a0d0804100b18022004320107380a3a0e08",
        "05100c180220052804380a406540032a110a0374776f1203626f62180d200930882730ec273a2d080412070a",
        "03626f6210011a20010101010101010101010101010101010101010101010101010101010101010142100500",
        "00000000000000000000000000004a0d0a04676f6e651203637964182852050a03616e6e52050a03626f6252",
        "050a03637964",
    ];
    let state = full().replica.snapshot().unwrap();
    assert_eq!(hex(&state), golden.concat());
}
