//! Where the stream of events stands: what was applied, what is missing, what replaces it.
//!
//! Invariants
//! - [`Standing::index`] never goes back;
//! - nothing is applied past a gap: events missing in it come again, or a state replaces them;
//! - past an entry that cannot be applied only a state at or after it helps.

use crate::game::Game;
use crate::ids::ActionKey;

use super::{Fate, Notice, Speculation, Standing};

/// Events through `through` are missing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gap {
    pub(super) through: u64,
    /// The first entry that no repetition helps with: only a later state does.
    pub(super) broken_at: Option<u64>,
}

impl<G: Game> Speculation<G> {
    /// Every event through `index` was told, whether or not one had that index: what an owner says
    /// that read the log again after [`TurnEvent::Lagged`](crate::turns::TurnEvent::Lagged).
    pub fn caught_up(&mut self, index: u64) {
        if let Some(gap) = self.gap
            && gap.broken_at.is_none()
            && index >= gap.through
        {
            self.gap = None;
            self.at.index = self.at.index.max(index);
        }
    }

    pub(super) fn reset(
        &mut self,
        index: u64,
        term: u64,
        turn: u64,
        state: &G,
        notices: &mut Vec<Notice<G::Refusal>>,
    ) {
        let heals = self
            .gap
            .and_then(|gap| gap.broken_at)
            .is_some_and(|broken| index >= broken);
        if index <= self.at.index && !heals {
            return;
        }
        self.authoritative = state.clone();
        // A reset does not say what the clock shows; it never goes back.
        let now_ms = self.at.now_ms;
        self.at = Standing {
            index,
            term,
            turn,
            now_ms,
        };
        self.gap = self.gap.filter(|gap| gap.through > index).map(|gap| Gap {
            broken_at: gap.broken_at.filter(|broken| *broken > index),
            ..gap
        });
        let mut contained = Vec::new();
        for (place, entry) in &mut self.pending {
            match entry.fate {
                Fate::Accepted { index: own } if own <= index => contained.push((*place, own)),
                Fate::Accepted { .. } => {}
                Fate::InFlight | Fate::Unknown => entry.fate = Fate::Unknown,
            }
        }
        for (place, own) in contained {
            if let Some(entry) = self.pending.get(&place) {
                self.decided.note(&entry.key, own);
            }
            self.confirm(place, own, notices);
        }
        self.rebuild(notices);
    }

    pub(super) fn malformed(
        &mut self,
        index: u64,
        term: u64,
        key: Option<&ActionKey>,
        changed: bool,
        notices: &mut Vec<Notice<G::Refusal>>,
    ) {
        if !self.awaits(index) {
            return;
        }
        if changed {
            self.missing(index, Some(index));
            notices.push(Notice::Stalled { index });
        } else {
            self.advance(index, term, self.at.turn, self.at.now_ms);
        }
        let Some(key) = key else {
            return;
        };
        self.decided.note(key, index);
        if let Some(place) = self.places.get(key).copied() {
            self.remove(place);
            notices.push(Notice::Malformed { key: key.clone() });
            self.rebuild(notices);
        }
    }

    /// Whether an event is the next to be applied. One that comes while earlier ones are missing
    /// is missing too: it must be told again.
    pub(super) fn awaits(&mut self, index: u64) -> bool {
        if index <= self.at.index {
            return false;
        }
        match &mut self.gap {
            Some(gap) if gap.broken_at.is_some() || index > gap.through => {
                gap.through = gap.through.max(index);
                false
            }
            _ => true,
        }
    }

    pub(super) fn missing(&mut self, through: u64, broken_at: Option<u64>) {
        let gap = self.gap.get_or_insert(Gap { through, broken_at });
        gap.through = gap.through.max(through);
        gap.broken_at = gap.broken_at.or(broken_at);
    }

    pub(super) fn advance(&mut self, index: u64, term: u64, turn: u64, now_ms: u64) {
        self.at = Standing {
            index,
            term,
            turn,
            now_ms,
        };
        self.gap = self.gap.filter(|gap| gap.through > index);
        self.revision += 1;
    }
}
