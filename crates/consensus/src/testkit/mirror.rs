//! A player's own view of the game, and what must hold of it after every event and reply.

use std::collections::{BTreeMap, BTreeSet};

use super::game::{Ledger, allows, is_choosy};
use super::world::Facts;
use crate::game::Snapshots;
use crate::ids::{ActionKey, ClientId};
use crate::turns::{
    Notice, Planted, ProposeError, ReplyOutcome, Ruling, Speculation, Standing, TurnError,
    TurnEvent,
};

/// More than a client of the simulator ever has under way.
const PENDING_MAX: usize = 64;

pub(super) struct Mirror {
    client: ClientId,
    view: Speculation<Ledger>,
    actions: BTreeMap<u64, u64>,
    /// Own serials whose event was seen.
    decided: BTreeSet<u64>,
}

/// What an error says of a key that may have been proposed before.
fn outcome_of(error: &ProposeError) -> ReplyOutcome<Ledger> {
    match error {
        ProposeError::NotAppended { .. }
        | ProposeError::Overloaded
        | ProposeError::NoPlace(_)
        | ProposeError::Closed => ReplyOutcome::NotAppended,
        ProposeError::Forgotten { .. } => ReplyOutcome::GivenUp,
        // Most say why this attempt came to nothing, and nothing of one before it.
        _ => ReplyOutcome::Unknown,
    }
}

/// What a client was answered.
pub(super) enum Answer {
    Decided(u64, Ruling<Ledger>),
    Error(TurnError),
}

impl Mirror {
    pub(super) fn new(client: ClientId, match_by_value: bool) -> Self {
        let planted = Planted { match_by_value };
        let (state, at) = (Ledger::default(), Standing::default());
        Self {
            client,
            view: Speculation::planted(None, state, at, PENDING_MAX, planted),
            actions: BTreeMap::new(),
            decided: BTreeSet::new(),
        }
    }

    fn key(&self, serial: u64) -> ActionKey {
        ActionKey {
            client: self.client.clone(),
            serial,
        }
    }

    fn pending(&self) -> BTreeSet<u64> {
        self.view.pending().map(|(key, _)| key.serial).collect()
    }

    /// An action is about to be proposed, perhaps again.
    pub(super) fn propose(&mut self, serial: u64, action: u64, facts: &mut Facts) {
        self.actions.insert(serial, action);
        // Whatever it answers: a key that was proposed before is shown once, and what the rules
        // refuse here is proposed all the same, to see them refuse it.
        let _ = self.view.propose(self.key(serial), action);
        self.check(false, facts);
    }

    pub(super) fn replied(&mut self, serial: u64, answer: Answer, facts: &mut Facts) {
        let outcome = match answer {
            Answer::Decided(index, ruling) => ReplyOutcome::Decided { index, ruling },
            Answer::Error(TurnError::Malformed { .. }) => return,
            Answer::Error(TurnError::Propose(error)) => outcome_of(&error),
        };
        let others = self.others(serial);
        let notices = self.view.on_reply(&self.key(serial), outcome);
        self.same_others(others, serial, &notices, facts);
        self.check(false, facts);
    }

    pub(super) fn saw(&mut self, event: &TurnEvent<Ledger>, facts: &mut Facts) {
        let own = match event {
            TurnEvent::Committed(act) if act.key.client == self.client => Some(act.key.serial),
            _ => None,
        };
        let others = self.others(own.unwrap_or(0));
        let notices = self.view.on_event(event);
        facts.counters.speculated += u64::from(self.view.pending_count() > 0);
        if !self.view.is_behind() {
            self.decided.extend(own);
        }
        if !matches!(event, TurnEvent::Reset { .. }) {
            self.same_others(others, own.unwrap_or(0), &notices, facts);
        }
        self.check(true, facts);
    }

    fn others(&self, serial: u64) -> BTreeSet<u64> {
        let mut others = self.pending();
        others.remove(&serial);
        others
    }

    /// What happens to one key leaves every other as it is, except that what the rules refuse now
    /// is not shown any more, and is said so.
    fn same_others(
        &self,
        mut before: BTreeSet<u64>,
        serial: u64,
        notices: &[Notice<u64>],
        facts: &mut Facts,
    ) {
        for notice in notices {
            if let Notice::Rejected { key, refusal } = notice
                && is_choosy(*refusal)
            {
                before.remove(&key.serial);
            }
        }
        let now = self.others(serial);
        if before != now {
            self.broken(
                facts,
                format!("serial {serial} turned {before:?} into {now:?}"),
            );
        }
    }

    fn broken(&self, facts: &mut Facts, detail: String) {
        let client = &self.client;
        facts.broken("SpeculativeView", format!("{client}: {detail}"));
    }

    fn check(&self, whole: bool, facts: &mut Facts) {
        let pending = self.pending();
        let agreed = self.view.authoritative_state();
        if let Some(serial) = pending.intersection(&self.decided).next() {
            self.broken(facts, format!("serial {serial} was decided and is pending"));
        }
        let at = self.view.standing().index;
        if at > 0
            && whole
            && let Some(known) = facts.game_at(at)
            && known != Facts::digest(&agreed.snapshot())
        {
            self.broken(
                facts,
                format!("the agreed state after entry {at} is another"),
            );
        }
        let mut wanted = agreed.seen.clone();
        for (key, _) in self.view.pending() {
            let action = self.actions.get(&key.serial).copied().unwrap_or(0);
            if allows(wanted.len(), action) {
                wanted.insert(action);
            }
        }
        if self.view.speculative_state().seen != wanted {
            self.broken(
                facts,
                format!("what is shown after entry {at} is not the agreed state with {pending:?}"),
            );
        }
    }
}
