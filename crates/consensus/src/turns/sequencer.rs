//! Proposing actions and following what became of everybody's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Ruling, TurnEvent};
use crate::game::{Blueprint, Codec, Game, Malformed};
use crate::ids::{ActionKey, ClientId};
use crate::node::{Next, Node, ProposeError, RawEvents, ReadError};
use crate::raft::lock;
use crate::state::sessions::{Kept, KeptResult};

/// How long a proposal is tried when nothing else is said.
const PROPOSE_WITHIN: Duration = Duration::from_secs(10);

/// A proposal that was decided.
#[derive(Clone)]
pub struct Decision<G: Game> {
    /// The entry that decided, from 1.
    pub index: u64,
    /// Its leader's term.
    pub term: u64,
    /// The turn after it.
    pub turn: u64,
    /// The action's key: proposing it again under this key answers the same.
    pub key: ActionKey,
    /// What the rules said.
    pub ruling: Ruling<G>,
}

impl<G: Game> Decision<G> {
    pub(super) fn read(key: ActionKey, kept: &Kept) -> Result<Self, TurnError> {
        let ruling = match &kept.result {
            KeptResult::Accepted(bytes) => G::Outcome::decode(bytes).map(Ruling::Accepted),
            KeptResult::Refused(bytes) => G::Refusal::decode(bytes).map(Ruling::Refused),
            KeptResult::Fenced => Ok(Ruling::Fenced),
            KeptResult::Malformed => Err(Malformed),
            KeptResult::Withheld { accepted, bytes } => Ok(Ruling::Withheld {
                accepted: *accepted,
                bytes: *bytes,
            }),
        };
        let Ok(ruling) = ruling else {
            return Err(TurnError::Malformed { key });
        };
        Ok(Self {
            index: kept.index,
            term: kept.term,
            turn: kept.turn,
            key,
            ruling,
        })
    }

    /// Whether the action took place.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.ruling.is_accepted()
    }
}

impl<G: Game> fmt::Debug for Decision<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decision")
            .field("index", &self.index)
            .field("term", &self.term)
            .field("turn", &self.turn)
            .field("key", &self.key)
            .field("accepted", &self.is_accepted())
            .finish_non_exhaustive()
    }
}

/// A proposal that was not decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TurnError {
    /// See the cause: what to do depends on it.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The log's entry, or the game's answer to it, cannot be read here: the nodes run different
    /// versions of the game.
    #[error("the answer to {key} cannot be read: do all nodes run the same game?")]
    Malformed {
        /// The action's key.
        key: ActionKey,
    },
}

/// Puts this node's actions into the common order, and follows everybody's.
pub struct TurnSequencer<G: Game> {
    pub(super) node: Arc<Node>,
    pub(super) blueprint: Blueprint<G>,
}

impl<G: Game> Clone for TurnSequencer<G> {
    fn clone(&self) -> Self {
        Self {
            node: self.node.clone(),
            blueprint: self.blueprint.clone(),
        }
    }
}

impl<G: Game> TurnSequencer<G> {
    pub(crate) fn new(node: Arc<Node>, blueprint: Blueprint<G>) -> Self {
        Self { node, blueprint }
    }

    /// The client this node's actions are proposed as.
    #[must_use]
    pub fn client(&self) -> &ClientId {
        self.node.client()
    }

    /// Proposes an action from any node and waits until it is decided, for ten seconds at most.
    ///
    /// # Errors
    ///
    /// [`TurnError`]; only [`ProposeError::Unknown`] leaves open whether the action took place, and
    /// [`ProposeError::Forgotten`], which says that it will not any more.
    pub async fn propose(&self, action: &G::Action) -> Result<Decision<G>, TurnError> {
        self.propose_with(action, Proposal::default()).await
    }

    /// Proposes an action under the client's own number for it. The same number again, from this
    /// process or a later one of a durable client, answers what became of the first.
    ///
    /// # Errors
    ///
    /// As [`TurnSequencer::propose`], and [`ProposeError::Forgotten`] for a number of long ago.
    /// Never [`ProposeError::NotAppended`], [`ProposeError::Overloaded`],
    /// [`ProposeError::NoPlace`] or [`ProposeError::Closed`], but [`ProposeError::Unknown`]: an
    /// attempt before under the number may still take effect. No other error says what became of
    /// such an attempt.
    pub async fn propose_with_id(
        &self,
        serial: u64,
        action: &G::Action,
    ) -> Result<Decision<G>, TurnError> {
        let proposal = Proposal {
            serial: Some(serial),
            ..Proposal::default()
        };
        self.propose_with(action, proposal).await
    }

    /// Proposes an action with everything that can be said of it.
    ///
    /// # Errors
    ///
    /// As [`TurnSequencer::propose`], or with a serial as [`TurnSequencer::propose_with_id`].
    pub async fn propose_with(
        &self,
        action: &G::Action,
        proposal: Proposal,
    ) -> Result<Decision<G>, TurnError> {
        let Proposal {
            serial,
            expected_turn,
            within,
        } = proposal;
        let bytes = action.encode().into();
        let (key, kept) = self
            .node
            .propose(bytes, serial, expected_turn, within)
            .await?;
        Decision::read(key, &kept)
    }

    /// Everything from the next entry on.
    #[must_use]
    pub fn events(&self) -> Events<G> {
        self.events_from(self.node.feed.applied() + 1)
    }

    /// Everything from entry `index` on; from 1 is from the start. What was compacted comes as one
    /// [`TurnEvent::Reset`].
    #[must_use]
    pub fn events_from(&self, index: u64) -> Events<G> {
        Events {
            raw: self.node.events(index.max(1)),
            blueprint: self.blueprint.clone(),
        }
    }

    /// Waits until this node has applied every turn acknowledged before the call, on whichever
    /// node; answers an index it has applied.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when no majority confirms a leader in time.
    pub async fn read_barrier(&self, within: Duration) -> Result<u64, ReadError> {
        self.node.read_barrier(within).await
    }

    /// Looks at the state with every turn in it that was acknowledged before the call, on whichever
    /// node, and maybe later ones. Waits ten seconds at most for a majority to confirm a leader.
    ///
    /// `look` holds up this node while it runs: it should be short, take what it needs, and not
    /// read again. [`Seen::turn`] fences a proposal that is made from what it saw.
    ///
    /// ```
    /// # use cabinet_consensus::game::Game;
    /// # use cabinet_consensus::turns::{Proposal, ReadError, TurnSequencer};
    /// # async fn f<G: Game>(sequencer: TurnSequencer<G>) -> Result<(), ReadError> {
    /// let turn = sequencer.read(|seen| seen.turn).await?;
    /// let only_now = Proposal { expected_turn: Some(turn), ..Proposal::default() };
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ReadError`]; then `look` was not called.
    pub async fn read<T>(&self, look: impl FnOnce(Seen<'_, G>) -> T) -> Result<T, ReadError> {
        self.read_within(PROPOSE_WITHIN, look).await
    }

    /// [`TurnSequencer::read`] with another time limit.
    ///
    /// # Errors
    ///
    /// As [`TurnSequencer::read`].
    pub async fn read_within<T>(
        &self,
        within: Duration,
        look: impl FnOnce(Seen<'_, G>) -> T,
    ) -> Result<T, ReadError> {
        self.node.read_barrier(within).await?;
        Ok(self.read_local(look))
    }

    /// Looks at the state as this node has it, at once and without asking anybody: a state that was,
    /// with any number of later turns missing while the node is cut off or has stopped.
    ///
    /// `look` holds up this node while it runs, as in [`TurnSequencer::read`].
    pub fn read_local<T>(&self, look: impl FnOnce(Seen<'_, G>) -> T) -> T {
        let replica = lock(&self.node.replica);
        let Some(game) = replica.game.game().downcast_ref() else {
            unreachable!("the blueprint of this sequencer made the game");
        };
        look(Seen {
            game,
            index: replica.applied.map_or(0, |at| at.index + 1),
            turn: replica.turn,
            now_ms: replica.now_ms,
        })
    }

    #[cfg(any(test, feature = "testkit"))]
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

/// A state that is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a, G> {
    /// The game.
    pub game: &'a G,
    /// The last entry that is in it, from 1; 0 before the first.
    pub index: u64,
    /// The turn that is on.
    pub turn: u64,
    /// The game's clock.
    pub now_ms: u64,
}

/// What can be said of a proposal.
#[derive(Debug, Clone, Copy)]
pub struct Proposal {
    /// The client's own number for the action; the next one when `None`.
    pub serial: Option<u64>,
    /// The turn the action is meant for: it is [`Ruling::Fenced`] when the game stands elsewhere.
    pub expected_turn: Option<u64>,
    /// How long to try.
    pub within: Duration,
}

impl Default for Proposal {
    fn default() -> Self {
        Self {
            serial: None,
            expected_turn: None,
            within: PROPOSE_WITHIN,
        }
    }
}

/// The game's events in the order of the log, the same on every node.
pub struct Events<G: Game> {
    raw: RawEvents,
    blueprint: Blueprint<G>,
}

impl<G: Game> Events<G> {
    /// The next event; `None` once the session is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<TurnEvent<G>> {
        Some(match self.raw.next().await? {
            Next::Event(event) => TurnEvent::read(event, &self.blueprint),
            Next::Lagged(from, before) => TurnEvent::Lagged {
                from,
                to: before.saturating_sub(1),
            },
        })
    }
}
