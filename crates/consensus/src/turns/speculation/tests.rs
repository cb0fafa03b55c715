//! What a speculation does, case by case; the names of kuilt's tests and of its holes stand beside.

use bytes::Bytes;

use super::pile::{Pile, event_of, key, timed_out};
use super::*;

/// A speculation, and the replicated state whose events it is told.
struct Table {
    spec: Speculation<Pile>,
    agreed: Pile,
    index: u64,
    turn: u64,
}

impl Table {
    fn of(left: u64) -> Self {
        Self {
            spec: Speculation::new(None, Pile::of(left), Standing::default(), 4),
            agreed: Pile::of(left),
            index: 0,
            turn: 0,
        }
    }

    fn propose(&mut self, serial: u64, take: u64) {
        self.spec.propose(key("ann", serial), take).unwrap();
    }

    /// Decides an action without telling of it.
    fn decide(&mut self, key: &ActionKey, take: u64) -> TurnEvent<Pile> {
        self.index += 1;
        let (event, turn) = event_of(&mut self.agreed, self.index, self.turn, key, take, false);
        self.turn = turn;
        event
    }

    fn own(&mut self, serial: u64, take: u64) -> Vec<Notice<String>> {
        let event = self.decide(&key("ann", serial), take);
        self.spec.on_event(&event)
    }

    fn foreign(&mut self, serial: u64, take: u64) -> Vec<Notice<String>> {
        let event = self.decide(&key("bob", serial), take);
        self.spec.on_event(&event)
    }

    fn reset(&mut self) -> Vec<Notice<String>> {
        let event = TurnEvent::Reset {
            index: self.index,
            term: 1,
            turn: self.turn,
            state: self.agreed.clone(),
            bytes: Bytes::new(),
        };
        self.spec.on_event(&event)
    }

    fn reply(&mut self, serial: u64, outcome: ReplyOutcome<Pile>) -> Vec<Notice<String>> {
        self.spec.on_reply(&key("ann", serial), outcome)
    }

    fn shown(&self) -> u64 {
        self.spec.speculative_state().left
    }

    fn counts(&self) -> (usize, u64) {
        (self.spec.pending_count(), self.spec.confirmed_count())
    }

    fn assert_settled(&self) {
        assert_eq!(*self.spec.authoritative_state(), self.agreed);
        assert_eq!(*self.spec.speculative_state(), self.agreed);
        assert!(self.spec.speculative.is_none());
    }
}

fn confirmed(serial: u64, index: u64) -> Notice<String> {
    Notice::Confirmed {
        key: key("ann", serial),
        index,
    }
}

fn accepted(index: u64) -> ReplyOutcome<Pile> {
    ReplyOutcome::Decided {
        index,
        ruling: Ruling::Accepted(0),
    }
}

/// initialSpeculativeStateMatchesInitialState
#[test]
fn what_is_shown_first_is_the_state_given() {
    Table::of(10).assert_settled();
}

/// speculativeStateVisibleBeforeCommitArrives
#[test]
fn a_proposed_action_is_shown_before_it_is_decided() {
    let mut table = Table::of(10);
    table.propose(1, 3);
    assert_eq!((table.shown(), table.agreed.left), (7, 10));
    assert_eq!(table.counts(), (1, 0));
}

/// matchingCommitConfirmsPendingAndLeavesStateUnchanged, localPendingConfirmsCorrectlyWithDedup
#[test]
fn its_own_event_confirms_an_entry_and_shows_the_same() {
    let mut table = Table::of(10);
    table.propose(1, 3);
    let shown = table.spec.speculative_state().clone();
    assert_eq!(table.own(1, 3), [confirmed(1, 1)]);
    assert_eq!(*table.spec.speculative_state(), shown);
    assert_eq!(table.counts(), (0, 1));
    table.assert_settled();
}

/// multipleMatchingCommitsAccumulateWithNoPendingRemaining, confirmedCountExposedAsStateFlow,
/// awaitConfirmedCountSuspendsUntilThresholdReached
#[test]
fn confirmed_actions_are_counted_one_by_one() {
    let mut table = Table::of(10);
    for serial in 1..=3 {
        table.propose(serial, 1);
    }
    for serial in 1..=3 {
        table.own(serial, 1);
        assert_eq!(table.counts(), (3 - serial as usize, serial));
    }
    table.assert_settled();
}

/// foreignCommitWithNoPendingAdvancesAuthoritativeState,
/// consecutiveForeignCommitsProduceDeterministicFinalState
#[test]
fn others_actions_change_the_agreed_state_without_a_fork() {
    let mut table = Table::of(10);
    for serial in 1..=3 {
        assert!(table.foreign(serial, serial).is_empty());
        table.assert_settled();
    }
    assert_eq!(table.shown(), 4);
    assert_eq!(table.counts(), (0, 0));
}

/// foreignCommitWhilePendingExistsTriggerRollbackThenReplay, multiplePendingAreReplayed_afterForeignCommit
#[test]
fn pending_actions_are_replayed_over_what_another_did() {
    let mut table = Table::of(10);
    table.propose(1, 1);
    table.propose(2, 2);
    table.foreign(1, 3);
    let taken = &table.spec.speculative_state().taken;
    let order: Vec<_> = taken.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(order, ["bob#1", "ann#1", "ann#2"]);
}

/// notLeaderRejectionDoesNotApplySpeculativeState, proposeWithRequestIdRollsBackOnFailure
#[test]
fn an_action_that_was_not_appended_is_not_shown_any_more() {
    let mut table = Table::of(10);
    table.propose(1, 3);
    assert!(table.reply(1, ReplyOutcome::NotAppended).is_empty());
    table.assert_settled();
    table.propose(1, 3);
    assert_eq!(table.own(1, 3), [confirmed(1, 1)]);
}

/// leadershipLostRejectionDoesNotLeavePhantomPendingInput; hole 4
#[test]
fn hole_4_an_unknown_outcome_is_kept_until_it_is_known() {
    let mut table = Table::of(10);
    table.propose(1, 3);
    table.propose(2, 1);
    table.reply(1, ReplyOutcome::Unknown);
    assert_eq!((table.spec.unknown_count(), table.shown()), (1, 6));
    assert_eq!(table.own(1, 3), [confirmed(1, 1)]);
    assert_eq!(table.spec.unknown_count(), 0);
    table.reply(2, ReplyOutcome::Unknown);
    table.reply(2, ReplyOutcome::GivenUp);
    table.assert_settled();
}

#[test]
fn an_unknown_entry_ends_when_its_clients_window_has_passed_it() {
    let mut table = Table::of(10);
    table.propose(1, 3);
    table.reply(1, ReplyOutcome::Unknown);
    assert!(table.own(WINDOW, 1).is_empty());
    let key = key("ann", 1);
    assert_eq!(table.own(WINDOW + 1, 1), [Notice::Expired { key }]);
    table.assert_settled();
}

/// speculativeStateFlowEmitsOnEveryStateChange
#[test]
fn the_revision_grows_with_every_change_and_only_then() {
    let mut table = Table::of(10);
    let mut last = table.spec.revision();
    let mut grew = |table: &Table| {
        let grew = table.spec.revision() > last;
        last = table.spec.revision();
        grew
    };
    table.propose(1, 3);
    assert!(grew(&table));
    table.foreign(1, 1);
    assert!(grew(&table));
    table.own(1, 3);
    assert!(grew(&table));
    table.reset();
    table.reply(1, ReplyOutcome::GivenUp);
    assert!(!grew(&table));
}

/// snapshotInstallResetRehydratesAuthoritativeState, commitsAfterSnapshotInstallApplyOnTopOfRehydratedState
#[test]
fn a_reset_replaces_the_agreed_state_and_later_events_build_on_it() {
    let mut table = Table::of(10);
    table.decide(&key("bob", 1), 4);
    table.reset();
    table.assert_settled();
    table.foreign(2, 1);
    table.assert_settled();
    assert_eq!(table.shown(), 5);
}

/// snapshotInstallResetClearsPendingBuffer: here they stay, and are resolved
#[test]
fn entries_outlive_a_reset_as_unknown_and_their_replies_resolve_them() {
    let mut table = Table::of(10);
    table.propose(1, 3);
    table.propose(2, 1);
    table.decide(&key("ann", 1), 3);
    table.reset();
    assert_eq!(table.spec.unknown_count(), 2);
    // The reset contains it: dropped without being applied.
    assert_eq!(table.reply(1, accepted(1)), [confirmed(1, 1)]);
    assert_eq!((table.shown(), table.counts()), (6, (1, 1)));
    // This one the log takes later.
    assert_eq!(table.own(2, 1), [confirmed(2, 2)]);
    table.assert_settled();
}

#[test]
fn a_reset_confirms_what_its_reply_said_it_contains() {
    let mut table = Table::of(10);
    table.propose(1, 3);
    table.decide(&key("ann", 1), 3);
    assert!(table.reply(1, accepted(1)).is_empty());
    assert_eq!(table.reset(), [confirmed(1, 1)]);
    table.assert_settled();
}

/// duplicateDedupKeyAppliedOnlyOnce, distinctDedupKeysAreEachApplied,
/// foreignDuplicateOfLocallyConfirmedKeyIsNotDoubleApplied
#[test]
fn an_event_told_again_changes_nothing_and_equal_actions_of_two_keys_both_count() {
    let mut table = Table::of(10);
    table.propose(1, 3);
    let event = table.decide(&key("ann", 1), 3);
    table.spec.on_event(&event);
    assert!(table.spec.on_event(&event).is_empty());
    table.assert_settled();
    table.foreign(1, 3);
    assert_eq!((table.shown(), table.counts()), (4, (0, 1)));
}

/// proposeWithRequestIdSucceeds
#[test]
fn a_key_proposed_again_is_shown_once() {
    let mut table = Table::of(10);
    table.propose(1, 3);
    let key = key("ann", 1);
    let again = table.spec.propose(key.clone(), 3);
    assert_eq!(
        again,
        Err(SpeculateError::AlreadyPending { key: key.clone() })
    );
    table.own(1, 3);
    let again = table.spec.propose(key.clone(), 3);
    assert_eq!(again, Err(SpeculateError::AlreadyDecided { key, index: 1 }));
    table.assert_settled();
}

#[test]
fn hole_1_an_equal_action_of_another_confirms_nothing_and_order_does_not_matter() {
    let mut table = Table::of(10);
    table.propose(1, 2);
    table.propose(2, 2);
    assert!(table.foreign(1, 2).is_empty());
    assert_eq!(table.counts(), (2, 0));
    assert_eq!(table.own(2, 2), [confirmed(2, 2)]);
    assert_eq!(table.shown(), 4);
    assert_eq!(table.own(1, 2), [confirmed(1, 3)]);
    table.assert_settled();
}

#[test]
fn hole_2_a_failure_removes_its_own_entry_not_the_last() {
    let mut table = Table::of(10);
    table.propose(1, 3);
    table.propose(2, 1);
    table.reply(1, ReplyOutcome::NotAppended);
    let left: Vec<_> = table.spec.pending().map(|(key, _)| key.serial).collect();
    assert_eq!((left, table.shown()), (vec![2], 9));
}

#[test]
fn hole_3_a_failure_after_confirmation_removes_nothing() {
    let mut table = Table::of(10);
    table.propose(1, 3);
    table.propose(2, 1);
    table.own(1, 3);
    for outcome in [ReplyOutcome::GivenUp, ReplyOutcome::Unknown, accepted(1)] {
        assert!(table.reply(1, outcome).is_empty());
    }
    // Nor does it when the reply was first and the event is on its way.
    table.reply(2, accepted(2));
    table.reply(2, ReplyOutcome::GivenUp);
    assert_eq!((table.counts(), table.shown()), ((1, 1), 6));
    assert_eq!(table.own(2, 1), [confirmed(2, 2)]);
    table.assert_settled();
}

#[test]
fn hole_5_what_the_rules_refuse_after_another_acted_is_dropped_and_reported() {
    let mut table = Table::of(5);
    table.propose(1, 4);
    table.propose(2, 1);
    let refusal = "only 2 left".to_owned();
    let key_1 = key("ann", 1);
    let rejected = Notice::Rejected {
        key: key_1,
        refusal,
    };
    assert_eq!(table.foreign(1, 3), [rejected]);
    assert_eq!((table.counts(), table.shown()), ((1, 0), 1));
    // It is under way all the same, and the log refuses it: nothing happens.
    assert!(table.own(1, 4).is_empty());
    let refused = table.spec.propose(key("ann", 3), 2);
    let why = "only 1 left".to_owned();
    assert_eq!(refused, Err(SpeculateError::PredictedRefusal(why)));
    table.own(2, 1);
    table.assert_settled();
}

#[test]
fn hole_5_an_own_action_that_every_node_refused_is_reported_once() {
    for reply_first in [false, true] {
        let mut table = Table::of(5);
        table.propose(1, 4);
        table.reply(1, ReplyOutcome::Unknown);
        table.foreign(1, 3);
        assert_eq!((table.counts(), table.shown()), ((1, 0), 2));
        let event = table.decide(&key("ann", 1), 4);
        let refusal = "only 2 left".to_owned();
        let ruling = Ruling::Refused(refusal.clone());
        let reply = ReplyOutcome::Decided { index: 2, ruling };
        let key = key("ann", 1);
        let refused = vec![Notice::Refused { key, refusal }];
        let (first, second) = if reply_first {
            (table.reply(1, reply), table.spec.on_event(&event))
        } else {
            let first = table.spec.on_event(&event);
            (first, table.reply(1, reply))
        };
        assert_eq!((first, second), (refused, vec![]));
        table.assert_settled();
    }
}

/// Hole 6 is a type: everything that changes a speculation borrows it alone, and it may move to
/// the one task that owns it.
#[test]
fn hole_6_a_speculation_has_one_owner_which_may_be_any_thread() {
    fn may_move<T: Send>(_: &T) {}
    may_move(&Table::of(1).spec);
}

#[test]
fn hole_7_the_most_actions_may_be_pending_and_one_more_is_refused() {
    let mut table = Table::of(10);
    for serial in 1..=4 {
        table.propose(serial, 1);
    }
    let more = table.spec.propose(key("ann", 5), 1);
    assert_eq!(more, Err(SpeculateError::TooManyPending { max: 4 }));
    assert_eq!(table.shown(), 6);
    table.own(1, 1);
    table.propose(5, 1);
}

/// Counts how often it is copied.
struct Copied(std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl Clone for Copied {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Self(self.0.clone())
    }
}

impl Game for Copied {
    type Action = u64;
    type Outcome = ();
    type Refusal = String;

    fn apply(&mut self, _: &TurnInfo, _: &u64) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn hole_8_the_state_is_copied_for_the_first_pending_entry_and_on_a_mismatch_only() {
    let copies = std::sync::Arc::default();
    let copied =
        || std::sync::atomic::AtomicUsize::load(&copies, std::sync::atomic::Ordering::SeqCst);
    let game = Copied(std::sync::Arc::clone(&copies));
    let mut spec = Speculation::new(None, game, Standing::default(), 8);
    let event = |index: u64, client: &str, serial| {
        TurnEvent::Committed(IndexedAction {
            index,
            term: 1,
            turn: index,
            now_ms: 0,
            key: key(client, serial),
            player: None,
            place: None,
            action: 0,
            ruling: Ruling::Accepted(()),
        })
    };
    for serial in 1..=4 {
        spec.propose(key("ann", serial), 0).unwrap();
    }
    assert_eq!(copied(), 1);
    for serial in 1..=3 {
        spec.on_event(&event(serial, "ann", serial));
    }
    assert_eq!(copied(), 1);
    spec.on_event(&event(4, "bob", 1));
    assert_eq!(copied(), 2);
    spec.on_event(&event(5, "ann", 4));
    spec.on_event(&event(6, "bob", 2));
    assert_eq!((copied(), spec.pending_count()), (2, 0));
}

#[test]
fn one_action_may_be_pending_whatever_is_said_and_not_one_more() {
    for pending_max in [0, 1] {
        let mut spec = Speculation::new(None, Pile::of(9), Standing::default(), pending_max);
        spec.propose(key("ann", 1), 1).unwrap();
        assert_eq!(
            spec.propose(key("ann", 2), 1),
            Err(SpeculateError::TooManyPending { max: 1 })
        );
    }
}

/// Remembers from which seats it was played.
#[derive(Clone, Debug, PartialEq)]
struct Sat(Vec<Option<u32>>);

impl Game for Sat {
    type Action = u64;
    type Outcome = ();
    type Refusal = String;

    fn apply(&mut self, at: &TurnInfo, _: &u64) -> Result<(), String> {
        self.0.push(at.seat());
        Ok(())
    }
}

#[test]
fn what_was_predicted_for_another_place_is_predicted_anew_whatever_the_rules_answer() {
    let mut spec = Speculation::new(None, Sat(Vec::new()), Standing::default(), 8);
    spec.set_place(Some(Place::Seat(1)));
    for serial in 1..=3 {
        spec.propose(key("ann", serial), 0).unwrap();
    }
    assert_eq!(spec.speculative_state(), &Sat(vec![Some(1); 3]));
    // It was given another seat before the first was decided, and nobody told it.
    let event = TurnEvent::Committed(IndexedAction {
        index: 1,
        term: 1,
        turn: 1,
        now_ms: 0,
        key: key("ann", 1),
        player: None,
        place: Some(Place::Seat(0)),
        action: 0,
        ruling: Ruling::Accepted(()),
    });
    spec.on_event(&event);
    assert_eq!(spec.authoritative_state(), &Sat(vec![Some(0)]));
    let shown = |rest| Sat(vec![Some(0), rest, rest]);
    assert_eq!(spec.speculative_state(), &shown(Some(1)));
    let revision = spec.revision();
    spec.set_place(Some(Place::Seat(0)));
    assert_eq!(spec.speculative_state(), &shown(Some(0)));
    assert!(spec.revision() > revision);
}

#[test]
fn a_timeout_happens_to_what_is_agreed_and_under_what_is_pending() {
    let mut table = Table::of(10);
    table.propose(1, 3);
    table.spec.on_event(&timed_out(1, 0));
    assert_eq!(table.spec.authoritative_state().left, 17);
    assert_eq!((table.shown(), table.spec.standing().turn), (14, 1));
}

#[test]
fn a_fenced_action_is_removed_and_reported() {
    let mut table = Table::of(10);
    table.propose(1, 3);
    let (event, _) = event_of(&mut table.agreed, 1, 0, &key("ann", 1), 3, true);
    let key = key("ann", 1);
    assert_eq!(table.spec.on_event(&event), [Notice::Fenced { key }]);
    table.assert_settled();
}

#[test]
fn an_unreadable_own_action_is_removed_and_one_that_counted_stops_what_follows() {
    let mut table = Table::of(10);
    let malformed = |index, serial, changed| TurnEvent::Malformed {
        index,
        term: 1,
        key: Some(key("ann", serial)),
        changed,
    };
    table.propose(1, 3);
    let key = |serial| key("ann", serial);
    let notices = table.spec.on_event(&malformed(1, 1, false));
    assert_eq!(notices, [Notice::Malformed { key: key(1) }]);
    table.assert_settled();
    table.propose(2, 3);
    let notices = table.spec.on_event(&malformed(2, 2, true));
    let stalled = Notice::Stalled { index: 2 };
    assert_eq!(notices, [stalled, Notice::Malformed { key: key(2) }]);
    // Applying what follows to a state that lacks entry 2 would be wrong.
    table.index = 2;
    assert!(table.foreign(1, 1).is_empty());
    assert!(table.spec.is_behind());
    table.spec.caught_up(9);
    assert!(table.spec.is_behind());
    table.reset();
    assert!(!table.spec.is_behind());
    table.assert_settled();
}

#[test]
fn a_state_that_is_not_the_others_is_noticed() {
    let mut table = Table::of(1);
    let mut others = Pile::of(10);
    let (event, _) = event_of(&mut others, 1, 0, &key("bob", 1), 5, false);
    assert_eq!(table.spec.on_event(&event), [Notice::Stalled { index: 1 }]);
    let desync = TurnEvent::Desync {
        index: 1,
        mine: [0; 32],
        theirs: [1; 32],
    };
    assert_eq!(table.spec.on_event(&desync), [Notice::Stalled { index: 1 }]);
}

#[test]
fn after_a_gap_nothing_counts_until_it_is_filled() {
    let mut table = Table::of(10);
    let missed: Vec<_> = (1..=3)
        .map(|serial| table.decide(&key("bob", serial), 1))
        .collect();
    table.spec.on_event(&TurnEvent::Lagged { from: 1, to: 2 });
    table.spec.on_event(&missed[2]);
    assert_eq!(table.shown(), 10);
    for event in &missed {
        assert!(table.spec.is_behind());
        table.spec.on_event(event);
    }
    assert!(!table.spec.is_behind());
    table.assert_settled();
    table.spec.on_event(&TurnEvent::Lagged { from: 4, to: 6 });
    table.spec.caught_up(6);
    assert!(!table.spec.is_behind());
}
