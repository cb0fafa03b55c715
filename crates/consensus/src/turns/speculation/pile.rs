//! The game the tests here play, and the replicated state's judgement of it.

use super::*;
use crate::ids::ClientId;

/// Players take from a pile; what was taken is remembered with its key and its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pile {
    pub(super) left: u64,
    pub(super) taken: Vec<(ActionKey, u64)>,
}

impl Pile {
    pub(super) fn of(left: u64) -> Self {
        let taken = Vec::new();
        Self { left, taken }
    }

    pub(super) fn info(index: u64, turn: u64, key: Option<ActionKey>) -> TurnInfo {
        TurnInfo {
            index,
            term: 1,
            turn,
            now_ms: index * 10,
            key,
            player: None,
            place: None,
        }
    }
}

impl Game for Pile {
    type Action = u64;
    type Outcome = u64;
    type Refusal = String;

    fn apply(&mut self, at: &TurnInfo, take: &u64) -> Result<u64, String> {
        let Some(left) = self.left.checked_sub(*take) else {
            return Err(format!("only {} left", self.left));
        };
        self.left = left;
        self.taken.push((at.key.clone().unwrap(), *take));
        Ok(left)
    }

    fn time_out(&mut self, _: &TurnInfo) {
        self.left += 7;
    }
}

pub(super) fn key(client: &str, serial: u64) -> ActionKey {
    ActionKey {
        client: ClientId::new(client).unwrap(),
        serial,
    }
}

/// Judges an action as the replicated state does, and answers its event and the turn after it.
pub(super) fn event_of(
    state: &mut Pile,
    index: u64,
    turn: u64,
    key: &ActionKey,
    action: u64,
    fenced: bool,
) -> (TurnEvent<Pile>, u64) {
    let ruling = if fenced {
        Ruling::Fenced
    } else {
        match state.apply(&Pile::info(index, turn, Some(key.clone())), &action) {
            Ok(outcome) => Ruling::Accepted(outcome),
            Err(refusal) => Ruling::Refused(refusal),
        }
    };
    let turn = turn + u64::from(matches!(ruling, Ruling::Accepted(_)));
    let event = TurnEvent::Committed(IndexedAction {
        index,
        term: 1,
        turn,
        now_ms: index * 10,
        key: key.clone(),
        player: None,
        place: None,
        action,
        ruling,
    });
    (event, turn)
}

pub(super) fn timed_out(index: u64, turn: u64) -> TurnEvent<Pile> {
    TurnEvent::TimedOut {
        index,
        term: 1,
        turn,
        now_ms: index * 10,
    }
}
