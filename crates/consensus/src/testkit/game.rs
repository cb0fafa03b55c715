//! The game the simulator plays: it remembers which actions it was given, and where.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::game::{Game, Malformed, Snapshots, TurnInfo};

/// How long a turn may take.
pub(super) const TURN_MS: u64 = 120;

/// What the game noticed about itself. Part of its state, so the same on every node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// Actions applied a second time.
    pub doubled: u64,
    /// Timeouts that came before the turn's time was up.
    pub early: u64,
    /// Timeouts.
    pub timeouts: u64,
    /// Timeouts of turns that began under another leader.
    pub across: u64,
    /// The last action, and the entry it stood in.
    pub last: u64,
    pub last_index: u64,
    /// The present turn's beginning on the game's clock, plus one; 0 when not known.
    pub began: u64,
    /// The term it began in.
    pub term: u64,
}

const NOTES_BYTES: usize = 64;

impl Notes {
    fn fields(&self) -> [u64; 8] {
        [
            self.doubled,
            self.early,
            self.timeouts,
            self.across,
            self.last,
            self.last_index,
            self.began,
            self.term,
        ]
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut fields = [0; 8];
        for (field, bytes) in fields.iter_mut().zip(bytes.get(..NOTES_BYTES)?.chunks(8)) {
            *field = u64::from_le_bytes(bytes.try_into().ok()?);
        }
        let [
            doubled,
            early,
            timeouts,
            across,
            last,
            last_index,
            began,
            term,
        ] = fields;
        Some(Self {
            doubled,
            early,
            timeouts,
            across,
            last,
            last_index,
            began,
            term,
        })
    }
}

/// Actions are numbers that no two proposals share.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    pub notes: Notes,
    pub seen: BTreeSet<u64>,
}

/// Whether the rules may refuse this action for the state it meets.
pub(super) fn is_choosy(action: u64) -> bool {
    action % 11 == 4
}

/// Whether the rules allow an action where so many have taken place. Some they never do.
pub(super) fn allows(taken: usize, action: u64) -> bool {
    action % 11 != 7 && !(is_choosy(action) && taken.is_multiple_of(3))
}

/// How many actions took place in a state that was written down.
pub(super) fn taken(state: &[u8]) -> usize {
    state.len().saturating_sub(NOTES_BYTES) / 8
}

impl Game for Ledger {
    type Action = u64;
    type Outcome = u64;
    type Refusal = u64;

    fn apply(&mut self, at: &TurnInfo, action: &u64) -> Result<u64, u64> {
        if !allows(self.seen.len(), *action) {
            return Err(*action);
        }
        if !self.seen.insert(*action) {
            self.notes.doubled += 1;
        }
        self.notes.last = *action;
        self.notes.last_index = at.index;
        self.notes.began = at.now_ms + 1;
        self.notes.term = at.term;
        Ok(*action)
    }

    fn time_limit(&self) -> Option<Duration> {
        Some(Duration::from_millis(TURN_MS))
    }

    fn time_out(&mut self, at: &TurnInfo) {
        let notes = &mut self.notes;
        notes.timeouts += 1;
        if notes.began > 0 {
            notes.early += u64::from(at.now_ms + 1 < notes.began + TURN_MS);
            notes.across += u64::from(at.term != notes.term);
        }
        notes.began = at.now_ms + 1;
        notes.term = at.term;
    }
}

impl Snapshots for Ledger {
    fn snapshot(&self) -> Vec<u8> {
        let fields = self.notes.fields();
        let numbers = fields.iter().chain(&self.seen);
        numbers.flat_map(|n| n.to_le_bytes()).collect()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Malformed> {
        let notes = Notes::read(bytes).ok_or(Malformed)?;
        let seen = bytes[NOTES_BYTES..]
            .chunks(8)
            .map(|n| n.try_into().map(u64::from_le_bytes))
            .collect::<Result<_, _>>()
            .map_err(|_| Malformed)?;
        Ok(Self { notes, seen })
    }
}
