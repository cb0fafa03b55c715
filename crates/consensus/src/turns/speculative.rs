//! Speculation as a running task: predicts this peer's proposals, sends them, follows the events,
//! and publishes what the player sees.
//!
//! Invariants
//! - one task owns the [`Speculation`] and the stream of events: both are moved into it, so nobody
//!   else can tell it anything;
//! - an action is shown before it is sent, and sent only if it was shown or is known by its key;
//! - a proposal whose outcome is unknown stays shown and is asked for under its key until it is
//!   decided, given up, or the session ends;
//! - a ticket is answered after the state that contains its answer was published.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};

use super::speculation::{Notice, Planted, ReplyOutcome, SpeculateError, Speculation, Standing};
use super::{Decision, Events, Proposal, ProposeError, TurnError, TurnEvent, TurnSequencer};
use crate::config::{self, ConfigError};
use crate::fabric::{Overflow, Pusher, Receiver, queue};
use crate::game::{Codec, Game};
use crate::ids::ActionKey;
use crate::node::{Node, Reserved};
use crate::raft::lock;
use crate::state::sessions::Kept;
use crate::watch::{self, Ended, Watch};

/// Notices kept for a reader that does not come; the oldest go first.
const NOTICES_MAX: usize = 1024;
/// Events taken before what they show is published.
const EVENTS_AT_ONCE: usize = 256;
/// Proposals that wait for the task; who comes then waits to be told.
const COMMANDS_MAX: usize = 64;

/// How much is shown ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpeculationOptions {
    /// Actions that are not decided at a time: 1 to the session's `pending_max`.
    pub pending_max: usize,
}

impl Default for SpeculationOptions {
    fn default() -> Self {
        Self { pending_max: 16 }
    }
}

/// What the player sees at one moment: every part of it belongs to the same moment.
#[derive(Clone)]
pub struct Shown<G> {
    /// The agreed state with this peer's own undecided actions over it.
    pub state: Arc<G>,
    /// The agreed state.
    pub agreed: Arc<G>,
    /// Where the agreed state stands.
    pub standing: Standing,
    /// Own actions that are not decided.
    pub pending: usize,
    /// Those of which nobody knows whether they were appended.
    pub unknown: usize,
    /// Own actions that took place since this began.
    pub confirmed: u64,
    /// Whether events are missing, so that the agreed state stands still.
    pub behind: bool,
    /// How often events were missed, to be read again from the log or replaced by a state.
    pub lags: u64,
    /// How often the agreed state was replaced by a snapshot.
    pub resets: u64,
}

impl<G> fmt::Debug for Shown<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown")
            .field("standing", &self.standing)
            .field("pending", &self.pending)
            .field("unknown", &self.unknown)
            .field("confirmed", &self.confirmed)
            .field("behind", &self.behind)
            .field("lags", &self.lags)
            .field("resets", &self.resets)
            .finish_non_exhaustive()
    }
}

/// An action that was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotProposed<R> {
    /// As many actions are pending as may be.
    #[error("at most {max} actions may be pending: wait for one of them")]
    TooManyPending {
        /// How many may be.
        max: usize,
    },
    /// The rules refuse the action in the state shown.
    #[error("the rules refuse the action in the state shown")]
    PredictedRefusal(R),
    /// It cannot be proposed here and now: see the cause.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// A proposal that is under way. Dropping it leaves the proposal under way.
#[must_use = "what becomes of the action is told here"]
pub struct Ticket<G: Game> {
    key: ActionKey,
    answer: oneshot::Receiver<Result<Decision<G>, TurnError>>,
}

impl<G: Game> fmt::Debug for Ticket<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ticket of {}", self.key)
    }
}

impl<G: Game> Ticket<G> {
    /// The action's key.
    #[must_use]
    pub fn key(&self) -> &ActionKey {
        &self.key
    }

    /// Waits until the action is decided. One whose outcome is unknown is asked for again for as
    /// long as the session lives, so put a deadline on this where one is needed.
    ///
    /// # Errors
    ///
    /// [`TurnError`]; [`ProposeError::Unknown`] when the session ended, the client was taken over, or
    /// the action was given up, before anybody knew.
    pub async fn decided(self) -> Result<Decision<G>, TurnError> {
        let Self { key, answer } = self;
        let unknown = |_| Err(ProposeError::Unknown { key }.into());
        answer.await.unwrap_or_else(unknown)
    }
}

/// A game as its player sees it, kept up to date by a task of its own, which ends with this or with
/// the session.
pub struct SpeculativeSequencer<G: Game + Sync> {
    node: Arc<Node>,
    commands: mpsc::Sender<Command<G>>,
    shown: Watch<Shown<G>>,
    pending: Watch<usize>,
    confirmed: Watch<u64>,
    notices: Option<Receiver<Notice<G::Refusal>>>,
    task: AbortHandle,
}

impl<G: Game + Sync> Drop for SpeculativeSequencer<G> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<G: Game + Sync> fmt::Debug for SpeculativeSequencer<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "speculation of {}", self.node.me())
    }
}

impl<G: Game + Sync> SpeculativeSequencer<G> {
    /// Starts speculating from the game's first state, which the log brings up to date.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Limit`] when more may be pending than the session lets this node propose.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime: its task is spawned there.
    pub fn start(
        sequencer: TurnSequencer<G>,
        options: SpeculationOptions,
    ) -> Result<Self, ConfigError> {
        Self::planted(sequencer, options, Planted::default())
    }

    /// [`SpeculativeSequencer::start`] with bugs: for the simulator.
    pub(crate) fn planted(
        sequencer: TurnSequencer<G>,
        options: SpeculationOptions,
        planted: Planted,
    ) -> Result<Self, ConfigError> {
        let node = sequencer.node.clone();
        let (value, max) = (options.pending_max, node.limits().pending_max);
        if value == 0 || value > max {
            return Err(ConfigError::Limit {
                what: "pending_max of a speculation",
                value: value as u64,
                max: max as u64,
            });
        }
        let player = Some(node.me().peer.clone());
        let first = sequencer.blueprint.first_state();
        let at = Standing::default();
        let speculation = Speculation::planted(player, first, at, value, planted);
        let agreed = Arc::new(speculation.authoritative_state().clone());
        let (shown, shown_watch) = watch::channel(Shown {
            state: agreed.clone(),
            agreed,
            standing: Standing::default(),
            pending: 0,
            unknown: 0,
            confirmed: 0,
            behind: false,
            lags: 0,
            resets: 0,
        });
        let (pending, pending_watch) = watch::channel(0);
        let (confirmed, confirmed_watch) = watch::channel(0);
        let (commands, told) = mpsc::channel(COMMANDS_MAX);
        let (noticed, notices) = queue(NOTICES_MAX, usize::MAX, Overflow::DropOldest);
        let driver = Driver {
            events: sequencer.events_from(1),
            node: node.clone(),
            speculation,
            told,
            attempts: JoinSet::new(),
            aborts: BTreeMap::new(),
            answers: Vec::new(),
            revision: 0,
            lagged_to: None,
            lags: 0,
            resets: 0,
            shown,
            pending,
            confirmed,
            noticed,
        };
        Ok(Self {
            node,
            commands,
            shown: shown_watch,
            pending: pending_watch,
            confirmed: confirmed_watch,
            notices: Some(notices),
            task: tokio::spawn(driver.run()).abort_handle(),
        })
    }

    /// Shows an action at once and proposes it. The first time this waits until the game knows this
    /// node's client, which takes a leader.
    ///
    /// # Errors
    ///
    /// [`NotProposed`]; the action is not shown and was not sent.
    pub async fn propose(&self, action: G::Action) -> Result<Ticket<G>, NotProposed<G::Refusal>> {
        self.propose_with(action, Proposal::default()).await
    }

    /// Proposes an action with everything that can be said of it. `within` bounds each attempt, not
    /// the whole. A key that is pending or decided already is not shown again; its ticket gets the
    /// first answer. A fence is not predicted.
    ///
    /// # Errors
    ///
    /// As [`SpeculativeSequencer::propose`].
    pub async fn propose_with(
        &self,
        action: G::Action,
        proposal: Proposal,
    ) -> Result<Ticket<G>, NotProposed<G::Refusal>> {
        let bytes = action.encode().into();
        self.node.fits(&bytes)?;
        let deadline = config::deadline(proposal.within);
        let reserved = self.node.number(proposal.serial, deadline).await?;
        let key = reserved.key();
        let (answer, answered) = oneshot::channel();
        let flight = Flight {
            reserved,
            bytes,
            proposal,
            unknown: false,
            answer,
        };
        let (verdict, shown) = oneshot::channel();
        let command = Command::Propose(action, flight, verdict);
        let closed = || NotProposed::Propose(ProposeError::Closed);
        self.commands.send(command).await.map_err(|_| closed())?;
        shown.await.map_err(|_| closed())??;
        let answer = answered;
        Ok(Ticket { key, answer })
    }

    /// Stops asking what became of an action and showing it. Should it take place all the same, it
    /// comes as anybody's action does.
    pub async fn give_up(&self, key: &ActionKey) {
        // A task that has ended asks nothing.
        let _ = self.commands.send(Command::GiveUp(key.clone())).await;
    }

    /// What the player sees. Ends with the session.
    #[must_use]
    pub fn shown(&self) -> Watch<Shown<G>> {
        self.shown.clone()
    }

    /// How many of this peer's actions are not decided.
    #[must_use]
    pub fn pending_count(&self) -> Watch<usize> {
        self.pending.clone()
    }

    /// How many of this peer's actions took place since this began.
    #[must_use]
    pub fn confirmed_count(&self) -> Watch<u64> {
        self.confirmed.clone()
    }

    /// Waits until at least `count` of this peer's actions took place; answers how many did.
    ///
    /// # Errors
    ///
    /// [`Ended`] when the session ended first.
    pub async fn await_confirmed(&self, count: u64) -> Result<u64, Ended> {
        self.confirmed
            .clone()
            .wait_for(|confirmed| *confirmed >= count)
            .await
    }

    /// What became of each action, in order; `None` the second time. The latest 1,024 are kept.
    pub fn notices(&mut self) -> Option<Receiver<Notice<G::Refusal>>> {
        self.notices.take()
    }
}

type Answer<G> = Result<Decision<G>, TurnError>;

enum Command<G: Game> {
    Propose(
        G::Action,
        Flight<G>,
        oneshot::Sender<Result<(), NotProposed<<G as Game>::Refusal>>>,
    ),
    GiveUp(ActionKey),
}

/// A proposal under way.
struct Flight<G: Game> {
    reserved: Reserved,
    bytes: Bytes,
    proposal: Proposal,
    /// Whether an attempt before may be in a log.
    unknown: bool,
    answer: oneshot::Sender<Answer<G>>,
}

type Attempt<G> = (Flight<G>, Result<Kept, ProposeError>);

struct Driver<G: Game + Sync> {
    events: Events<G>,
    node: Arc<Node>,
    speculation: Speculation<G>,
    told: mpsc::Receiver<Command<G>>,
    attempts: JoinSet<Attempt<G>>,
    aborts: BTreeMap<ActionKey, Vec<AbortHandle>>,
    /// What tickets are told once it is published.
    answers: Vec<(oneshot::Sender<Answer<G>>, Answer<G>)>,
    /// Of the state that was published last.
    revision: u64,
    lagged_to: Option<u64>,
    lags: u64,
    resets: u64,
    shown: watch::Sender<Shown<G>>,
    pending: watch::Sender<usize>,
    confirmed: watch::Sender<u64>,
    noticed: Pusher<Notice<G::Refusal>>,
}

impl<G: Game + Sync> Driver<G> {
    async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                Some(attempt) = self.attempts.join_next() => {
                    // One that was given up has nothing to say.
                    if let Ok((flight, result)) = attempt {
                        self.answered(flight, result);
                    }
                }
                Some(command) = self.told.recv() => self.told(command),
                event = self.events.next() => {
                    // Tickets that are dropped unanswered say that their outcome is unknown.
                    let Some(event) = event else { return };
                    self.happened(&event);
                }
            }
            for _ in 0..EVENTS_AT_ONCE {
                match self.events.next().now_or_never() {
                    Some(Some(event)) => self.happened(&event),
                    _ => break,
                }
            }
            if self.speculation.pending_count() > 0 {
                self.note_place();
            }
            self.publish();
        }
    }

    fn told(&mut self, command: Command<G>) {
        match command {
            Command::GiveUp(key) => {
                for abort in self.aborts.remove(&key).unwrap_or_default() {
                    abort.abort();
                }
                let notices = self.speculation.on_reply(&key, ReplyOutcome::GivenUp);
                self.notice(notices);
            }
            Command::Propose(action, mut flight, verdict) => {
                self.note_place();
                let told = match self.speculation.propose(flight.reserved.key(), action) {
                    Ok(()) => Ok(()),
                    // Sent again, it gets the first answer.
                    Err(
                        SpeculateError::AlreadyPending { .. }
                        | SpeculateError::AlreadyDecided { .. },
                    ) => {
                        flight.reserved.pin();
                        Ok(())
                    }
                    Err(SpeculateError::TooManyPending { max }) => {
                        Err(NotProposed::TooManyPending { max })
                    }
                    Err(SpeculateError::PredictedRefusal(refusal)) => {
                        Err(NotProposed::PredictedRefusal(refusal))
                    }
                };
                if told.is_ok() {
                    self.attempt(flight);
                }
                // Who left before the answer has a proposal under way all the same.
                let _ = verdict.send(told);
            }
        }
    }

    fn attempt(&mut self, flight: Flight<G>) {
        let key = flight.reserved.key();
        let pause = self.node.timing().election_max();
        let abort = self.attempts.spawn(async move {
            if flight.unknown {
                tokio::time::sleep(pause).await;
            }
            let Proposal {
                expected_turn,
                within,
                ..
            } = flight.proposal;
            let deadline = config::deadline(within);
            let action = flight.bytes.clone();
            let asked = flight.reserved.propose(action, expected_turn, deadline);
            let result = asked.await;
            (flight, result)
        });
        let aborts = self.aborts.entry(key).or_default();
        aborts.retain(|abort| !abort.is_finished());
        aborts.push(abort);
    }

    /// An attempt ended.
    fn answered(&mut self, mut flight: Flight<G>, result: Result<Kept, ProposeError>) {
        let key = flight.reserved.key();
        let outcome = match &result {
            Ok(kept) => Some(match Decision::<G>::read(key.clone(), kept) {
                Ok(Decision { index, ruling, .. }) => ReplyOutcome::Decided { index, ruling },
                Err(_) => ReplyOutcome::Malformed { index: kept.index },
            }),
            Err(ProposeError::Unknown { .. }) => {
                flight.unknown = true;
                flight.reserved.pin();
                Some(ReplyOutcome::Unknown)
            }
            Err(ProposeError::Forgotten { .. }) => Some(ReplyOutcome::GivenUp),
            // What an attempt before may have appended, this one cannot take back.
            Err(ProposeError::Closed | ProposeError::IdentityTaken { .. }) if flight.unknown => {
                None
            }
            Err(_) if flight.unknown => Some(ReplyOutcome::Unknown),
            Err(_) => Some(ReplyOutcome::NotAppended),
        };
        let unknown = flight.unknown;
        let again = matches!(outcome, Some(ReplyOutcome::Unknown));
        if let Some(outcome) = outcome {
            let notices = self.speculation.on_reply(&key, outcome);
            self.notice(notices);
        }
        if again {
            self.attempt(flight);
            return;
        }
        if let Some(aborts) = self.aborts.get_mut(&key) {
            aborts.retain(|abort| !abort.is_finished());
            if aborts.is_empty() {
                self.aborts.remove(&key);
            }
        }
        let answer = match result {
            Ok(kept) => Decision::read(key, &kept),
            Err(error @ ProposeError::Forgotten { .. }) => Err(error.into()),
            Err(_) if unknown => Err(ProposeError::Unknown { key }.into()),
            Err(error) => Err(error.into()),
        };
        self.answers.push((flight.answer, answer));
    }

    fn happened(&mut self, event: &TurnEvent<G>) {
        match event {
            TurnEvent::Lagged { to, .. } => {
                self.lags += 1;
                self.lagged_to = self.lagged_to.max(Some(*to));
            }
            _ => {
                // Events come in order: this one is past everything that was missing.
                if let Some(to) = self.lagged_to.take_if(|to| event.index() > *to) {
                    self.speculation.caught_up(to);
                }
                self.resets += u64::from(matches!(event, TurnEvent::Reset { .. }));
            }
        }
        let notices = self.speculation.on_event(event);
        self.notice(notices);
    }

    /// A place is given and taken without an event of its own.
    fn note_place(&mut self) {
        let place = lock(&self.node.replica).place(&self.node.me().peer);
        let notices = self.speculation.set_place(place);
        self.notice(notices);
    }

    fn notice(&mut self, notices: Vec<Notice<G::Refusal>>) {
        for notice in notices {
            self.noticed.push(notice, 0);
        }
    }

    fn publish(&mut self) {
        let speculation = &self.speculation;
        let pending = speculation.pending_count();
        let last = self.shown.borrow().clone();
        let moved = self.revision != speculation.revision();
        self.revision = speculation.revision();
        let same_place =
            last.standing.index == speculation.standing().index && last.resets == self.resets;
        let agreed = if same_place {
            last.agreed
        } else {
            Arc::new(speculation.authoritative_state().clone())
        };
        let state = if pending == 0 {
            agreed.clone()
        } else if moved || !same_place {
            Arc::new(speculation.speculative_state().clone())
        } else {
            last.state
        };
        self.shown.set(Shown {
            state,
            agreed,
            standing: speculation.standing(),
            pending,
            unknown: speculation.unknown_count(),
            confirmed: speculation.confirmed_count(),
            behind: speculation.is_behind(),
            lags: self.lags,
            resets: self.resets,
        });
        self.pending.set_if_new(pending);
        self.confirmed.set_if_new(speculation.confirmed_count());
        for (ticket, answer) in self.answers.drain(..) {
            // Nobody need wait.
            let _ = ticket.send(answer);
        }
    }
}
