//! A player at a `SpeculativeSequencer`, and what must hold of everything it is shown and told.
//!
//! Invariants, each broken as `SpeculativePlayer`
//! - what is agreed is the log's state where it stands, and neither it nor a count goes back;
//! - what is shown beside it are this player's own undecided actions: no more than are pending, and
//!   none that was decided;
//! - an action that nothing forbids is shown from before it is sent until it is decided;
//! - a key gets one notice at most, and what its proposer is told agrees with it;
//! - once nothing is under way any more, nothing is pending, what is shown is what is agreed, and as
//!   many actions are confirmed as took place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::game::{Ledger, allows, is_choosy};
use super::quest::promises;
use super::world::{Facts, Watcher, World};
use crate::config::ConfigError;
use crate::fabric::Receiver;
use crate::game::Snapshots;
use crate::turns::{
    Notice, Planted, Ruling, Shown, SpeculationOptions, SpeculativeSequencer, TurnError,
    TurnSequencer,
};

/// Fewer than a client of the simulator has under way at most: at times one more is refused.
const PENDING_MAX: usize = 3;

/// What becomes of a player's actions.
type Notices = Receiver<Notice<u64>>;

/// What a key's notice said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Confirmed(u64),
    Refused,
    Fenced,
    Rejected,
}

/// An action whose ticket the player has, or had.
#[derive(Debug, Clone, Copy)]
struct Own {
    action: u64,
    /// Whether no earlier life proposed it.
    fresh: bool,
    answer: Option<Answer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Accepted(u64),
    Refused,
    Fenced,
    /// It did not and will not take effect.
    NotAppended,
    /// Nobody waits to hear, or can be told.
    Open,
}

/// What is known of one life's speculation.
#[derive(Default)]
pub(super) struct Judge {
    /// Actions it may be shown: proposed here, and not decided in another way than taking place.
    mine: BTreeSet<u64>,
    own: BTreeMap<u64, Own>,
    /// Of those, the ones an earlier life proposed: what is agreed may contain them before anybody
    /// here knows it.
    again: BTreeSet<u64>,
    /// Actions that must be shown until they are decided.
    surely: BTreeSet<u64>,
    /// Of those, the ones that were not shown at some time: only if they were not appended.
    absent: BTreeSet<u64>,
    said: BTreeMap<u64, Said>,
    last: Counts,
}

/// What never goes back.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    index: u64,
    confirmed: u64,
    lags: u64,
    resets: u64,
    pending: usize,
    unknown: usize,
}

type Wrong = Result<(), String>;

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Wrong {
    if holds { Ok(()) } else { Err(why()) }
}

impl Judge {
    /// An action is about to be proposed.
    pub(super) fn asks(&mut self, action: u64, fresh: bool) {
        self.mine.insert(action);
        if !fresh {
            self.again.insert(action);
        }
    }

    /// It was not sent.
    pub(super) fn not_sent(&mut self, action: u64) {
        self.mine.remove(&action);
    }

    /// It is under way, and shown.
    fn took(&mut self, serial: u64, own: Own, fenced: bool, shown: &Shown<Ledger>) -> Wrong {
        let action = own.action;
        self.own.insert(serial, own);
        if own.fresh && !fenced && !is_choosy(action) {
            self.surely.insert(action);
            return ensure(shown.state.seen.contains(&action), || {
                format!("{action} was sent and is not shown")
            });
        }
        Ok(())
    }

    /// Its proposer was told what became of it; that was published before.
    fn answered(&mut self, serial: u64, answer: Answer, shown: &Shown<Ledger>) -> Wrong {
        let Some(own) = self.own.get_mut(&serial) else {
            return Ok(());
        };
        own.answer = Some(answer);
        let action = own.action;
        let was_sure = self.surely.remove(&action);
        // It may be proposed once more.
        let was_absent = self.absent.remove(&action);
        if answer != Answer::Open {
            self.again.remove(&action);
        }
        if answer == Answer::Open {
            return Ok(());
        }
        let Answer::Accepted(index) = answer else {
            self.mine.remove(&action);
            return ensure(!Self::beside(shown).any(|shown| shown == action), || {
                format!("{action} came to {answer:?} and is shown")
            });
        };
        ensure(!(was_sure && was_absent), || {
            format!("{action} took place and was not shown before")
        })?;
        let there = shown.standing.index < index || shown.agreed.seen.contains(&action);
        ensure(there, || {
            format!("{action} took place in entry {index} and is not in what is agreed after it")
        })
    }

    /// Nobody waits for it any more: it may take place all the same.
    fn gave_up(&mut self, serial: u64) {
        if let Some(own) = self.own.get_mut(&serial) {
            own.answer = Some(Answer::Open);
            self.surely.remove(&own.action);
        }
    }

    fn noticed(&mut self, notice: &Notice<u64>) -> Wrong {
        let (key, said) = match notice {
            Notice::Confirmed { key, index } => (key, Said::Confirmed(*index)),
            Notice::Refused { key, .. } => (key, Said::Refused),
            Notice::Fenced { key } => (key, Said::Fenced),
            Notice::Rejected { key, refusal } => {
                ensure(is_choosy(*refusal), || {
                    format!("{refusal} was taken back, which the rules allow everywhere")
                })?;
                (key, Said::Rejected)
            }
            Notice::Malformed { .. } | Notice::Expired { .. } | Notice::Stalled { .. } => {
                return Err(format!("a notice that cannot be: {notice:?}"));
            }
        };
        let before = self.said.insert(key.serial, said);
        ensure(before.is_none(), || {
            format!("{key} was said to be {before:?} and then {said:?}")
        })
    }

    /// The actions shown that are not agreed.
    fn beside(shown: &Shown<Ledger>) -> impl Iterator<Item = u64> {
        shown.state.seen.difference(&shown.agreed.seen).copied()
    }

    /// What is shown has changed. `known` is the game's state there, hashed, if anybody had it.
    fn sees(&mut self, shown: &Shown<Ledger>, known: Option<u64>) -> Wrong {
        let last = std::mem::replace(
            &mut self.last,
            Counts {
                index: shown.standing.index,
                confirmed: shown.confirmed,
                lags: shown.lags,
                resets: shown.resets,
                pending: shown.pending,
                unknown: shown.unknown,
            },
        );
        let goes_on = last.index <= shown.standing.index
            && last.confirmed <= shown.confirmed
            && last.lags <= shown.lags
            && last.resets <= shown.resets;
        ensure(goes_on, || format!("{last:?} became {shown:?}"))?;
        let agreed = Facts::digest(&shown.agreed.snapshot());
        ensure(known.is_none_or(|known| known == agreed), || {
            format!("another state is agreed in {shown:?}")
        })?;
        let others = Self::beside(shown).find(|action| !self.mine.contains(action));
        ensure(others.is_none(), || {
            format!("{others:?} is shown, and is not under way here")
        })?;
        let beside = Self::beside(shown).count();
        ensure(
            beside <= shown.pending && shown.agreed.seen.is_subset(&shown.state.seen),
            || format!("{beside} actions are shown beside what is agreed in {shown:?}"),
        )?;
        let is_open =
            |action: &&u64| self.again.contains(*action) || !shown.agreed.seen.contains(*action);
        let open = self.mine.iter().filter(is_open).count();
        // Of one that is unknown it may be the reset that contains it.
        ensure(shown.pending - shown.unknown <= open, || {
            format!("{open} actions are under way in {shown:?}")
        })?;
        let missing = self.surely.difference(&shown.state.seen);
        self.absent.extend(missing);
        Ok(())
    }

    /// Whether nothing is under way and all that is shown is agreed.
    fn is_settled(&self, shown: &Shown<Ledger>, target: u64) -> bool {
        shown.pending == 0
            && shown.unknown == 0
            && !shown.behind
            && shown.standing.index >= target
            && Arc::ptr_eq(&shown.state, &shown.agreed)
    }

    /// Nothing is under way any more: do notices, answers and counts agree?
    fn ends(&self, shown: &Shown<Ledger>) -> Wrong {
        let confirmed = |said: &&Said| matches!(said, Said::Confirmed(_));
        let notices = self.said.values().filter(confirmed).count() as u64;
        ensure(notices == shown.confirmed, || {
            format!("{notices} notices of actions that took place, and {shown:?}")
        })?;
        for (serial, said) in &self.said {
            let Some(own) = self.own.get(serial) else {
                return Err(format!("serial {serial} was said {said:?} and never sent"));
            };
            let there = shown.agreed.seen.contains(&own.action);
            // Who gave up may have been told before it did.
            let open = own.answer == Some(Answer::Open);
            let right = match said {
                Said::Confirmed(at) => there && (open || own.answer == Some(Answer::Accepted(*at))),
                Said::Refused => !there && (open || own.answer == Some(Answer::Refused)),
                Said::Fenced => !there && (open || own.answer == Some(Answer::Fenced)),
                Said::Rejected => true,
            };
            ensure(right, || {
                format!("{own:?} was said {said:?}, in the game: {there}")
            })?;
        }
        for (serial, own) in self.own.iter().filter(|(_, own)| own.fresh) {
            let said = self.said.get(serial);
            let silent = match own.answer {
                Some(Answer::Accepted(_) | Answer::Refused | Answer::Fenced) => said.is_none(),
                Some(Answer::NotAppended | Answer::Open) => false,
                None => true,
            };
            ensure(!silent, || format!("{own:?} was never said what became of"))?;
        }
        Ok(())
    }
}

/// A player of one life, at its speculative sequencer.
pub(super) struct Player {
    pub spec: SpeculativeSequencer<Ledger>,
    judge: Mutex<Judge>,
}

impl Player {
    /// Starts speculating, with everybody who watches over it.
    ///
    /// # Errors
    ///
    /// As [`SpeculativeSequencer::start`].
    pub(super) fn start(
        sequencer: TurnSequencer<Ledger>,
        match_by_value: bool,
    ) -> Result<(Arc<Self>, Option<Notices>), ConfigError> {
        let options = SpeculationOptions {
            pending_max: PENDING_MAX,
        };
        let planted = Planted { match_by_value };
        let mut spec = SpeculativeSequencer::planted(sequencer, options, planted)?;
        let notices = spec.notices();
        let judge = Mutex::default();
        Ok((Arc::new(Self { spec, judge }), notices))
    }

    pub(super) fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A ticket was given out.
    pub(super) fn took(
        &self,
        serial: u64,
        action: u64,
        fresh: bool,
        fenced: bool,
        facts: &mut Facts,
    ) {
        let own = Own {
            action,
            fresh,
            answer: None,
        };
        let took = self
            .judge()
            .took(serial, own, fenced, &self.spec.shown().get());
        broken(facts, took);
    }

    /// A ticket was answered.
    pub(super) fn answered(
        &self,
        serial: u64,
        answer: Result<(u64, &Ruling<Ledger>), &TurnError>,
        facts: &mut Facts,
    ) {
        let answer = match answer {
            Ok((index, ruling)) if ruling.is_accepted() => Answer::Accepted(index),
            Ok((_, Ruling::Fenced)) => Answer::Fenced,
            Ok(_) => Answer::Refused,
            Err(error) if promises(error) => Answer::NotAppended,
            Err(_) => Answer::Open,
        };
        facts.counters.spec_refused += u64::from(answer == Answer::Refused);
        facts.counters.spec_turns += u64::from(matches!(answer, Answer::Accepted(_)));
        let shown = self.spec.shown().get();
        let answered = self.judge().answered(serial, answer, &shown);
        broken(facts, answered);
    }

    /// The player waits for it no longer.
    pub(super) fn gave_up(&self, serial: u64, facts: &mut Facts) {
        facts.counters.spec_given_up += 1;
        self.judge().gave_up(serial);
    }

    /// What the rules refuse before it is sent.
    pub(super) fn predicted(&self, action: u64, facts: &mut Facts) {
        let never = (0..3).all(|taken| !allows(taken, action));
        let wrong = ensure(never || is_choosy(action), || {
            format!("{action} was not sent, which the rules allow everywhere")
        });
        broken(facts, wrong);
    }

    /// Looks at everything that is shown.
    pub(super) async fn watch(self: Arc<Self>, world: World, watcher: Arc<Watcher>) {
        let mut watch = self.spec.shown();
        while watch.changed().await.is_ok() && watcher.is_on() {
            let shown = watch.get();
            let mut judge = self.judge();
            let before = judge.last;
            let mut facts = world.facts();
            let index = shown.standing.index;
            let known = facts.game_at(index);
            let sees = judge.sees(&shown, known);
            let counters = &mut facts.counters;
            let reset = shown.resets > before.resets && before.pending > 0;
            counters.spec_resets += u64::from(reset);
            counters.spec_unknown += u64::from(before.unknown > 0 && shown.unknown == 0);
            facts.note(
                watcher.node,
                14,
                &[index, shown.pending as u64, shown.confirmed],
            );
            broken(&mut facts, sees);
        }
    }

    /// Hears every notice.
    pub(super) async fn hear(
        self: Arc<Self>,
        mut notices: Notices,
        world: World,
        watcher: Arc<Watcher>,
    ) {
        while let Some(notice) = notices.recv().await {
            if !watcher.is_on() {
                return;
            }
            let noticed = self.judge().noticed(&notice);
            let mut facts = world.facts();
            let rejected = matches!(notice, Notice::Rejected { .. });
            facts.counters.spec_rejected += u64::from(rejected);
            broken(&mut facts, noticed);
        }
    }

    /// Whether nothing is under way and everything through entry `target` is agreed.
    pub(super) fn is_settled(&self, target: u64) -> bool {
        self.judge().is_settled(&self.spec.shown().get(), target)
    }

    /// The run is over, and everything is decided.
    pub(super) fn ends(&self, facts: &mut Facts) {
        let shown = self.spec.shown().get();
        let ends = self.judge().ends(&shown);
        broken(facts, ends);
    }
}

fn broken(facts: &mut Facts, wrong: Wrong) {
    if let Err(detail) = wrong {
        facts.broken("SpeculativePlayer", detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ActionKey, ClientId};
    use crate::turns::Standing;

    fn ledger(seen: &[u64]) -> Arc<Ledger> {
        Arc::new(Ledger {
            seen: seen.iter().copied().collect(),
            ..Ledger::default()
        })
    }

    /// What is shown: these actions are agreed, these are beside them.
    fn shown(index: u64, agreed: &[u64], beside: &[u64]) -> Shown<Ledger> {
        let state = ledger(&[agreed, beside].concat());
        let agreed = ledger(agreed);
        let state = if beside.is_empty() {
            agreed.clone()
        } else {
            state
        };
        Shown {
            state,
            agreed,
            standing: Standing {
                index,
                ..Standing::default()
            },
            pending: beside.len(),
            unknown: 0,
            confirmed: 0,
            behind: false,
            lags: 0,
            resets: 0,
        }
    }

    fn key(serial: u64) -> ActionKey {
        ActionKey {
            client: ClientId::new("ann").unwrap(),
            serial,
        }
    }

    /// A judge of action 9, under way as serial 1 and shown.
    fn judge() -> Judge {
        let mut judge = Judge::default();
        judge.asks(9, true);
        let own = Own {
            action: 9,
            fresh: true,
            answer: None,
        };
        judge.took(1, own, false, &shown(0, &[], &[9])).unwrap();
        judge
    }

    #[test]
    fn an_action_that_is_shown_takes_place_and_is_confirmed_is_well() {
        let mut judge = judge();
        assert_eq!(judge.sees(&shown(0, &[], &[9]), None), Ok(()));
        let mut after = shown(3, &[9], &[]);
        after.confirmed = 1;
        let hash = Facts::digest(&after.agreed.snapshot());
        assert_eq!(judge.sees(&after, Some(hash)), Ok(()));
        let index = 3;
        let confirmed = Notice::Confirmed { key: key(1), index };
        assert_eq!(judge.noticed(&confirmed), Ok(()));
        assert_eq!(judge.answered(1, Answer::Accepted(3), &after), Ok(()));
        assert!(judge.is_settled(&after, 3) && !judge.is_settled(&after, 4));
        assert_eq!(judge.ends(&after), Ok(()));
        // Nothing that was counted or said is left out or comes twice.
        assert!(judge.ends(&shown(3, &[9], &[])).is_err());
        assert!(judge.noticed(&confirmed).is_err());
        assert!(judge.sees(&shown(2, &[9], &[]), None).is_err());
    }

    #[test]
    fn what_is_shown_wrongly_is_found() {
        let sees = |shown: Shown<Ledger>, known| judge().sees(&shown, known);
        assert!(sees(shown(0, &[], &[9]), None).is_ok());
        assert!(sees(shown(0, &[], &[9, 10]), None).is_err(), "another's");
        assert!(sees(shown(1, &[], &[9]), Some(7)).is_err(), "not the log's");
        let mut none = shown(0, &[], &[9]);
        none.pending = 0;
        assert!(sees(none, None).is_err(), "shown and not pending");
        // It was confirmed by its value, or not at all: agreed and pending at once.
        let mut twice = shown(3, &[9], &[]);
        twice.pending = 1;
        assert!(sees(twice, None).is_err(), "agreed and pending");
    }

    #[test]
    fn an_answer_that_what_is_shown_denies_is_found() {
        let gone = shown(3, &[], &[]);
        assert!(judge().answered(1, Answer::Accepted(3), &gone).is_err());
        assert!(judge().answered(1, Answer::Accepted(4), &gone).is_ok());
        let there = shown(3, &[], &[9]);
        for answer in [Answer::Refused, Answer::Fenced, Answer::NotAppended] {
            assert!(judge().answered(1, answer, &there).is_err());
            assert!(judge().answered(1, answer, &gone).is_ok());
        }
        let mut hidden = judge();
        hidden.sees(&gone, None).unwrap();
        assert!(hidden.answered(1, Answer::Accepted(4), &gone).is_err());
        let mut unshown = Judge::default();
        let own = Own {
            action: 9,
            fresh: true,
            answer: None,
        };
        assert!(unshown.took(1, own, false, &gone).is_err());
    }

    #[test]
    fn a_refusal_that_nobody_reports_is_found() {
        let mut judge = judge();
        let after = shown(3, &[], &[]);
        assert!(judge.ends(&after).is_err(), "never answered");
        judge.answered(1, Answer::Refused, &after).unwrap();
        assert!(judge.ends(&after).is_err(), "no notice");
        let refused = Notice::Refused {
            key: key(1),
            refusal: 9,
        };
        judge.noticed(&refused).unwrap();
        assert_eq!(judge.ends(&after), Ok(()));
        let mut taken_back = Judge::default();
        let rejected = Notice::Rejected {
            key: key(1),
            refusal: 9,
        };
        assert!(taken_back.noticed(&rejected).is_err(), "always allowed");
    }
}
