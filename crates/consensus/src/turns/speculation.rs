//! A game as its player sees it: the agreed state, and on top of it the player's own actions that
//! are not decided yet.
//!
//! Invariants
//! - an entry is found by its key, never by its action or its place: what happens to one key leaves
//!   every other as it is;
//! - `authoritative` is the fold of the accepted entries through [`Standing::index`], each once;
//! - the speculative state is `authoritative` and, over it in the order of proposing, each pending
//!   entry the rules allow there, once; with nothing pending the two are one state, not copied;
//! - an event or a reply may come again, late, or before its other half: the result is the same;
//! - an entry whose fate is unknown stays until its event, its reply, its client's window passing
//!   it, or the application's own word.
//!
//! One residue: an action that a [`TurnEvent::Reset`] already contains is shown twice until its
//! reply says so, for the session table in a snapshot cannot be read here.
//!
//! No task and no lock: one owner tells it what happened, with [`Speculation::propose`],
//! [`Speculation::on_event`] and [`Speculation::on_reply`], and publishes what it then shows
//! whenever [`Speculation::revision`] has changed.

mod decided;
mod report;
mod stream;

use std::collections::BTreeMap;

use crate::game::{Codec, Game, Place, TurnInfo};
use crate::ids::{ActionKey, PeerId};
use crate::state::sessions::WINDOW;

use super::event::{IndexedAction, Ruling, TurnEvent};
use decided::Decided;
use stream::Gap;

pub use report::{Fate, Notice, ReplyOutcome, SpeculateError};

/// Where a state stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// The last entry that is in it; 0 before the first.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// The turn that is on.
    pub turn: u64,
    /// The game's clock, as far as it was told.
    pub now_ms: u64,
}

/// Bugs that a simulator must be able to find. Always none outside its tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Planted {
    /// Confirm the first pending entry when its action equals the committed one, whoever's it is.
    pub match_by_value: bool,
}

/// What an entry was told and answered in the speculative state.
struct Prediction {
    index: u64,
    turn: u64,
    place: Option<Place>,
    outcome: Vec<u8>,
}

struct Entry<G: Game> {
    key: ActionKey,
    action: G::Action,
    fate: Fate,
    /// `None` while the rules do not allow the action where it stands: it has no effect then.
    prediction: Option<Prediction>,
}

/// The agreed state, and one's own actions over it.
pub struct Speculation<G: Game> {
    player: Option<PeerId>,
    place: Option<Place>,
    pending_max: usize,
    at: Standing,
    authoritative: G,
    /// `None` while nothing pending has an effect: the speculative state is the authoritative one.
    speculative: Option<G>,
    /// In the order of proposing.
    pending: BTreeMap<u64, Entry<G>>,
    places: BTreeMap<ActionKey, u64>,
    next_place: u64,
    decided: Decided,
    gap: Option<Gap>,
    confirmed: u64,
    revision: u64,
    planted: Planted,
}

impl<G: Game> Speculation<G> {
    /// Speculates over `state`, which stands `at` a place in the log, for proposals that the game
    /// will be told come from `player`, without a place in the game until
    /// [`Speculation::set_place`] says which. At most `pending_max` actions are pending at a time,
    /// and one in any case.
    #[must_use]
    pub fn new(player: Option<PeerId>, state: G, at: Standing, pending_max: usize) -> Self {
        Self::planted(player, state, at, pending_max, Planted::default())
    }

    pub(crate) fn planted(
        player: Option<PeerId>,
        state: G,
        at: Standing,
        pending_max: usize,
        planted: Planted,
    ) -> Self {
        Self {
            player,
            place: None,
            pending_max: pending_max.max(1),
            at,
            authoritative: state,
            speculative: None,
            pending: BTreeMap::new(),
            places: BTreeMap::new(),
            next_place: 0,
            decided: Decided::default(),
            gap: None,
            confirmed: 0,
            revision: 0,
            planted,
        }
    }

    /// The place in the game that the player has now. The rules may look at it, so what is pending is
    /// predicted anew when it changed.
    pub fn set_place(&mut self, place: Option<Place>) -> Vec<Notice<G::Refusal>> {
        let mut notices = Vec::new();
        if self.place != place {
            self.place = place;
            if !self.pending.is_empty() {
                self.rebuild(&mut notices);
            }
        }
        notices
    }

    /// Shows an action before it is decided. Of what the game is told, `key` and `player` are what
    /// they will be; `place` is right unless the player is given another first; `turn` is right if
    /// nobody else acts first; `term` and `now_ms` are those last seen, so the clock is at most too
    /// early; `index` is the lowest the entry can have.
    ///
    /// # Errors
    ///
    /// [`SpeculateError`], and then nothing changed: the action is not pending, and except for a
    /// key that was proposed before it is not to be sent.
    pub fn propose(
        &mut self,
        key: ActionKey,
        action: G::Action,
    ) -> Result<(), SpeculateError<G::Refusal>> {
        if self.places.contains_key(&key) {
            return Err(SpeculateError::AlreadyPending { key });
        }
        if let Some(index) = self.decided.index_of(&key) {
            return Err(SpeculateError::AlreadyDecided { key, index });
        }
        if self.pending.len() >= self.pending_max {
            return Err(SpeculateError::TooManyPending {
                max: self.pending_max,
            });
        }
        let last = self
            .pending
            .values()
            .rev()
            .find_map(|e| e.prediction.as_ref());
        let info = predicted_info(&self.at, last, &key, self.player.as_ref(), self.place);
        let game = match &mut self.speculative {
            Some(game) => game,
            None => self.speculative.insert(self.authoritative.clone()),
        };
        let prediction = match predict(game, info, &action) {
            Ok(prediction) => prediction,
            Err(refusal) => {
                if last.is_none() {
                    self.speculative = None;
                }
                return Err(SpeculateError::PredictedRefusal(refusal));
            }
        };
        self.places.insert(key.clone(), self.next_place);
        self.pending.insert(
            self.next_place,
            Entry {
                key,
                action,
                fate: Fate::InFlight,
                prediction: Some(prediction),
            },
        );
        self.next_place += 1;
        self.revision += 1;
        Ok(())
    }

    /// Takes the next event of the stream. One at or below [`Standing::index`] is no news.
    pub fn on_event(&mut self, event: &TurnEvent<G>) -> Vec<Notice<G::Refusal>> {
        let mut notices = Vec::new();
        match event {
            TurnEvent::Committed(action) => self.committed(action, &mut notices),
            TurnEvent::TimedOut {
                index,
                term,
                turn,
                now_ms,
            } => {
                if self.awaits(*index) {
                    let info = TurnInfo {
                        index: *index,
                        term: *term,
                        turn: *turn,
                        now_ms: *now_ms,
                        key: None,
                        player: None,
                        place: None,
                    };
                    self.authoritative.time_out(&info);
                    self.advance(*index, *term, turn + 1, *now_ms);
                    self.rebuild(&mut notices);
                }
            }
            TurnEvent::Reset {
                index,
                term,
                turn,
                state,
                ..
            } => self.reset(*index, *term, *turn, state, &mut notices),
            TurnEvent::Malformed {
                index,
                term,
                key,
                changed,
            } => self.malformed(*index, *term, key.as_ref(), *changed, &mut notices),
            TurnEvent::Lagged { to, .. } => {
                if *to > self.at.index {
                    self.missing(*to, None);
                }
            }
            TurnEvent::Desync { index, .. } => {
                let index = self.at.index.max(*index);
                self.missing(index, Some(index));
                notices.push(Notice::Stalled { index });
            }
        }
        notices
    }

    /// Takes what came back for a proposal, before or after its event. A key that is not pending
    /// was resolved before: nothing happens.
    pub fn on_reply(
        &mut self,
        key: &ActionKey,
        outcome: ReplyOutcome<G>,
    ) -> Vec<Notice<G::Refusal>> {
        let mut notices = Vec::new();
        let Some(place) = self.places.get(key).copied() else {
            return notices;
        };
        let Some(entry) = self.pending.get_mut(&place) else {
            return notices;
        };
        match outcome {
            ReplyOutcome::Decided {
                index,
                ruling: Ruling::Accepted(_) | Ruling::Withheld { accepted: true, .. },
            } => {
                if index > self.at.index {
                    entry.fate = Fate::Accepted { index };
                    return notices;
                }
                // Its event is past and did not confirm it: a reset contains it.
                self.decided.note(key, index);
                self.confirm(place, index, &mut notices);
            }
            ReplyOutcome::Decided {
                index,
                ruling: Ruling::Refused(refusal),
            } => {
                self.decided.note(key, index);
                let key = key.clone();
                notices.push(Notice::Refused { key, refusal });
            }
            ReplyOutcome::Decided {
                index,
                ruling: Ruling::Fenced,
            } => {
                self.decided.note(key, index);
                notices.push(Notice::Fenced { key: key.clone() });
            }
            // What the game said of it is not known, only that it did not take place.
            ReplyOutcome::Malformed { index }
            | ReplyOutcome::Decided {
                index,
                ruling: Ruling::Withheld { .. },
            } => {
                self.decided.note(key, index);
                notices.push(Notice::Malformed { key: key.clone() });
            }
            ReplyOutcome::Unknown => {
                if entry.fate == Fate::InFlight {
                    entry.fate = Fate::Unknown;
                }
                return notices;
            }
            ReplyOutcome::NotAppended | ReplyOutcome::GivenUp => {
                // Who knows that it takes place is not told otherwise by a caller that left.
                if matches!(entry.fate, Fate::Accepted { .. }) {
                    return notices;
                }
            }
        }
        self.remove(place);
        self.rebuild(&mut notices);
        notices
    }

    /// What the player sees.
    #[must_use]
    pub fn speculative_state(&self) -> &G {
        self.speculative.as_ref().unwrap_or(&self.authoritative)
    }

    /// What all nodes agree on.
    #[must_use]
    pub fn authoritative_state(&self) -> &G {
        &self.authoritative
    }

    /// Where the authoritative state stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.at
    }

    /// Actions that are not decided.
    #[must_use]
    pub fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// The actions that are not decided, in the order of proposing.
    pub fn pending(&self) -> impl Iterator<Item = (&ActionKey, Fate)> {
        self.pending.values().map(|entry| (&entry.key, entry.fate))
    }

    /// Own actions that took place since this began. Others' are not counted.
    #[must_use]
    pub fn confirmed_count(&self) -> u64 {
        self.confirmed
    }

    /// Pending actions of which nobody knows whether they were appended.
    #[must_use]
    pub fn unknown_count(&self) -> usize {
        let unknown = |entry: &&Entry<G>| entry.fate == Fate::Unknown;
        self.pending.values().filter(unknown).count()
    }

    /// Whether events are missing, so that the authoritative state stands still.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.gap.is_some()
    }

    /// Grows whenever the state shown may have changed.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn committed(&mut self, action: &IndexedAction<G>, notices: &mut Vec<Notice<G::Refusal>>) {
        if !self.awaits(action.index) {
            return;
        }
        let own = self.find(action);
        let accepted = action.ruling.is_accepted();
        if accepted
            && self
                .authoritative
                .apply(&action.info(), &action.action)
                .is_err()
        {
            // Every node accepted it: this copy of the state, or the rules, are not theirs.
            let index = action.index;
            self.missing(index, Some(index));
            if let Some(entry) = own.and_then(|place| self.pending.get_mut(&place)) {
                entry.fate = Fate::Accepted { index };
            }
            notices.push(Notice::Stalled { index });
            return;
        }
        self.advance(action.index, action.term, action.turn, action.now_ms);
        self.decided.note(&action.key, action.index);
        let expired = self.expire(&action.key, notices);
        let stands = match (&action.ruling, own) {
            (Ruling::Accepted(outcome), Some(place)) => {
                let was_next = self.pending.keys().next() == Some(&place);
                let prediction = self.confirm(place, action.index, notices);
                was_next
                    && (self.planted.match_by_value
                        || prediction.is_some_and(|p| {
                            p.turn + 1 == action.turn
                                && p.place == action.place
                                && p.outcome == outcome.encode()
                        }))
            }
            // Without the outcome there is nothing to compare a prediction with.
            (Ruling::Withheld { accepted: true, .. }, Some(place)) => {
                self.confirm(place, action.index, notices);
                false
            }
            (Ruling::Accepted(_) | Ruling::Withheld { accepted: true, .. }, None) => false,
            (Ruling::Withheld { .. }, Some(place)) => {
                self.remove(place);
                notices.push(Notice::Malformed {
                    key: action.key.clone(),
                });
                false
            }
            (Ruling::Refused(refusal), Some(place)) => {
                self.remove(place);
                notices.push(Notice::Refused {
                    key: action.key.clone(),
                    refusal: refusal.clone(),
                });
                false
            }
            (Ruling::Fenced, Some(place)) => {
                self.remove(place);
                notices.push(Notice::Fenced {
                    key: action.key.clone(),
                });
                false
            }
            // Nothing happened to the authoritative state, nor to the list.
            (Ruling::Refused(_) | Ruling::Fenced | Ruling::Withheld { .. }, None) => true,
        };
        if !stands || expired {
            self.rebuild(notices);
        } else if self.pending.values().all(|e| e.prediction.is_none()) {
            self.speculative = None;
        }
    }

    fn find(&self, action: &IndexedAction<G>) -> Option<u64> {
        if self.planted.match_by_value {
            let (place, head) = self.pending.first_key_value()?;
            return (head.action.encode() == action.action.encode()).then_some(*place);
        }
        self.places.get(&action.key).copied()
    }

    fn remove(&mut self, place: u64) -> Option<Entry<G>> {
        let entry = self.pending.remove(&place)?;
        self.places.remove(&entry.key);
        Some(entry)
    }

    fn confirm(
        &mut self,
        place: u64,
        index: u64,
        notices: &mut Vec<Notice<G::Refusal>>,
    ) -> Option<Prediction> {
        let entry = self.remove(place)?;
        self.confirmed += 1;
        let key = entry.key;
        notices.push(Notice::Confirmed { key, index });
        entry.prediction
    }

    /// Ends the entries that are too old for the session table once `newest` is in it.
    fn expire(&mut self, newest: &ActionKey, notices: &mut Vec<Notice<G::Refusal>>) -> bool {
        let Some(serial) = newest.serial.checked_sub(WINDOW) else {
            return false;
        };
        let oldest = |serial| ActionKey {
            client: newest.client.clone(),
            serial,
        };
        let expired: Vec<_> = self
            .places
            .range(oldest(0)..=oldest(serial))
            .map(|(key, place)| (key.clone(), *place))
            .collect();
        let any = !expired.is_empty();
        for (key, place) in expired {
            self.remove(place);
            notices.push(Notice::Expired { key });
        }
        any
    }

    /// Forks the authoritative state anew and replays what is pending. An entry in flight that the
    /// rules refuse now is dropped; one that may be decided already only has no effect.
    fn rebuild(&mut self, notices: &mut Vec<Notice<G::Refusal>>) {
        self.revision += 1;
        self.speculative = None;
        if self.pending.is_empty() {
            return;
        }
        let mut game = self.authoritative.clone();
        let mut last: Option<&Prediction> = None;
        let mut rejected = Vec::new();
        for (place, entry) in &mut self.pending {
            let player = self.player.as_ref();
            let info = predicted_info(&self.at, last, &entry.key, player, self.place);
            entry.prediction = match predict(&mut game, info, &entry.action) {
                Ok(prediction) => Some(prediction),
                Err(refusal) => {
                    if entry.fate == Fate::InFlight {
                        rejected.push((*place, refusal));
                    }
                    None
                }
            };
            last = entry.prediction.as_ref().or(last);
        }
        if last.is_some() {
            self.speculative = Some(game);
        }
        for (place, refusal) in rejected {
            if let Some(Entry { key, .. }) = self.remove(place) {
                notices.push(Notice::Rejected { key, refusal });
            }
        }
    }
}

/// What the game is told of an action after those predicted up to `last`.
fn predicted_info(
    at: &Standing,
    last: Option<&Prediction>,
    key: &ActionKey,
    player: Option<&PeerId>,
    place: Option<Place>,
) -> TurnInfo {
    TurnInfo {
        index: last.map_or(at.index, |last| last.index.max(at.index)) + 1,
        term: at.term,
        turn: last.map_or(at.turn, |last| last.turn + 1),
        now_ms: at.now_ms,
        key: Some(key.clone()),
        player: player.cloned(),
        place,
    }
}

fn predict<G: Game>(
    game: &mut G,
    info: TurnInfo,
    action: &G::Action,
) -> Result<Prediction, G::Refusal> {
    let outcome = game.apply(&info, action)?;
    Ok(Prediction {
        index: info.index,
        turn: info.turn,
        place: info.place,
        outcome: outcome.encode(),
    })
}

#[cfg(test)]
mod pile;
#[cfg(test)]
mod search;
#[cfg(test)]
mod tests;
