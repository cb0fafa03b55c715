//! Events as they are read from the replicated state's bytes.

use super::*;
use crate::game::Snapshots;
use crate::ids::ClientId;

#[derive(Clone)]
struct Sum(u64);

impl Game for Sum {
    type Action = u64;
    type Outcome = u64;
    type Refusal = String;

    fn apply(&mut self, _: &TurnInfo, action: &u64) -> Result<u64, String> {
        self.0 += action;
        Ok(self.0)
    }
}

impl Snapshots for Sum {
    fn snapshot(&self) -> Vec<u8> {
        self.0.encode()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Malformed> {
        u64::decode(bytes).map(Self)
    }
}

fn turn(action: &[u8], ruling: events::Ruling) -> RawEvent {
    RawEvent::Turn(RawTurn {
        index: 4,
        term: 2,
        turn: 3,
        now_ms: 9,
        key: key(),
        player: Some(PeerId::new("ann").unwrap()),
        place: Some(Place::Seat(1)),
        action: Bytes::copy_from_slice(action),
        ruling,
    })
}

fn key() -> ActionKey {
    ActionKey {
        client: ClientId::new("c").unwrap(),
        serial: 1,
    }
}

fn accepted(outcome: &[u8]) -> events::Ruling {
    events::Ruling::Game(Verdict::Accepted(Bytes::copy_from_slice(outcome)))
}

fn read(raw: RawEvent) -> TurnEvent<Sum> {
    TurnEvent::read(raw, &Blueprint::with_snapshots(|| Sum(0)))
}

#[test]
fn a_committed_action_is_read_with_all_that_the_game_was_told() {
    let event = read(turn(&7u64.encode(), accepted(&7u64.encode())));
    let TurnEvent::Committed(action) = event.clone() else {
        panic!("{event:?}");
    };
    assert_eq!((action.index, action.term, action.turn), (4, 2, 3));
    assert_eq!(action.action, 7);
    assert_eq!(action.ruling, Ruling::Accepted(7));
    let info = action.info();
    assert_eq!((info.place, info.seat()), (Some(Place::Seat(1)), Some(1)));
    assert_eq!((info.turn, info.now_ms, info.key), (2, 9, Some(key())));
    assert_eq!(info.player, Some(PeerId::new("ann").unwrap()));
    assert_eq!(event, TurnEvent::Committed(action));
}

#[test]
fn a_refused_or_fenced_action_was_judged_in_the_turn_that_is_still_on() {
    let refused = events::Ruling::Game(Verdict::Refused(Bytes::from_static(b"no")));
    for raw in [refused, events::Ruling::Fenced] {
        let TurnEvent::Committed(action) = read(turn(&7u64.encode(), raw)) else {
            panic!("not committed");
        };
        assert_eq!(action.info().turn, 3);
    }
}

#[test]
fn what_cannot_be_read_is_an_event_that_says_whether_it_changed_anything() {
    let malformed = |changed| TurnEvent::Malformed {
        index: 4,
        term: 2,
        key: Some(key()),
        changed,
    };
    let good = 7u64.encode();
    let refused = events::Ruling::Game(Verdict::Refused(Bytes::from_static(&[0xff])));
    let passed = events::Ruling::Game(Verdict::Malformed);
    assert_eq!(read(turn(b"x", passed)), malformed(false));
    assert_eq!(read(turn(b"x", events::Ruling::Fenced)), malformed(false));
    assert_eq!(read(turn(&good, refused)), malformed(false));
    assert_eq!(read(turn(&good, accepted(b"x"))), malformed(true));
    assert_eq!(read(turn(b"x", accepted(&good))), malformed(true));
}

#[test]
fn a_state_is_read_or_is_malformed_without_a_key() {
    let reset = |state: &[u8]| RawEvent::Reset {
        index: 8,
        term: 2,
        turn: 5,
        state: Bytes::copy_from_slice(state),
    };
    let event = read(reset(&3u64.encode()));
    assert!(matches!(
        &event,
        TurnEvent::Reset {
            index: 8,
            turn: 5,
            state: Sum(3),
            ..
        }
    ));
    assert_eq!(event, event.clone());
    let malformed = TurnEvent::Malformed {
        index: 8,
        term: 2,
        key: None,
        changed: true,
    };
    assert_eq!(read(reset(b"x")), malformed);
    let unreadable = Blueprint::new(|| Sum(0));
    assert_eq!(
        TurnEvent::read(reset(&3u64.encode()), &unreadable),
        malformed
    );
}
