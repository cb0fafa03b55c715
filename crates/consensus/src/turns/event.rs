//! What happened in a game, typed: the same events in the same order on every node.
//!
//! Invariants
//! - one undecodable entry is one [`TurnEvent::Malformed`], and the stream goes on;
//! - an event holds all that the game was told ([`IndexedAction::info`]), so that a reader who
//!   applies accepted actions to a state of its own gets the replicated one;
//! - two events are equal when their encodings are: a game need not be comparable.

use std::fmt;

use bytes::Bytes;

use crate::events::{self, RawEvent, RawTurn};
use crate::game::{Blueprint, Codec, Game, Malformed, Place, TurnInfo, Verdict};
use crate::ids::{ActionKey, PeerId};

/// An action that stands in the log, and what became of it.
pub struct IndexedAction<G: Game> {
    /// The entry's index in the log, from 1; indices grow, but not by one.
    pub index: u64,
    /// The term of the leader that wrote the entry.
    pub term: u64,
    /// The turn after it.
    pub turn: u64,
    /// The game's clock at it.
    pub now_ms: u64,
    /// Who proposed, and under which number.
    pub key: ActionKey,
    /// The peer the proposal came from, as the game was told.
    pub player: Option<PeerId>,
    /// The place that peer had in the game, as the game was told.
    pub place: Option<Place>,
    /// What was proposed.
    pub action: G::Action,
    /// What became of it.
    pub ruling: Ruling<G>,
}

/// What became of an action.
pub enum Ruling<G: Game> {
    /// It took place.
    Accepted(G::Outcome),
    /// The rules refused it; nothing changed.
    Refused(G::Refusal),
    /// It was meant for another turn; nothing changed.
    Fenced,
    /// It was decided, and the game's answer is not kept: it is larger than
    /// [`Limits::outcome_bytes_max`](crate::config::Limits::outcome_bytes_max), or, to who asks
    /// again, had to make room for later ones.
    Withheld {
        /// Whether the action took place.
        accepted: bool,
        /// Bytes the answer had.
        bytes: u64,
    },
}

/// One event of a game.
pub enum TurnEvent<G: Game> {
    /// An action was decided.
    Committed(IndexedAction<G>),
    /// A turn took longer than it may.
    TimedOut {
        /// The entry's index.
        index: u64,
        /// The term of the leader that wrote it.
        term: u64,
        /// The turn that ended; the one after it is on now.
        turn: u64,
        /// The game's clock at it.
        now_ms: u64,
    },
    /// Everything through `index` is replaced by `state`: a snapshot came from another node.
    Reset {
        /// The last entry that is in the state.
        index: u64,
        /// Its term.
        term: u64,
        /// The turn that is on.
        turn: u64,
        /// The state.
        state: G,
        /// The state as the game wrote it down.
        bytes: Bytes,
    },
    /// An entry that this program cannot read.
    Malformed {
        /// The entry's index.
        index: u64,
        /// Its term.
        term: u64,
        /// Who proposed it; `None` for a state.
        key: Option<ActionKey>,
        /// Whether the entry changed the replicated state all the same, so that whoever applies
        /// events to a state of its own must wait for a [`TurnEvent::Reset`]. `false` when every
        /// node passed it over.
        changed: bool,
    },
    /// The reader was too slow for what is kept. Either these events follow, read again from the
    /// log, or a [`TurnEvent::Reset`] that contains them.
    Lagged {
        /// The first index that may be missing.
        from: u64,
        /// The last.
        to: u64,
    },
    /// This node's state is not the others'; it has stopped.
    Desync {
        /// The entry after which the states were compared.
        index: u64,
        /// This node's hash.
        mine: [u8; 32],
        /// The others'.
        theirs: [u8; 32],
    },
}

impl<G: Game> IndexedAction<G> {
    /// What the game was told when it judged the action.
    #[must_use]
    pub fn info(&self) -> TurnInfo {
        let accepted = self.ruling.is_accepted();
        TurnInfo {
            index: self.index,
            term: self.term,
            turn: self.turn.saturating_sub(u64::from(accepted)),
            now_ms: self.now_ms,
            key: Some(self.key.clone()),
            player: self.player.clone(),
            place: self.place,
        }
    }
}

impl<G: Game> TurnEvent<G> {
    /// The entry the event belongs to; of [`TurnEvent::Lagged`] the first that may be missing.
    #[must_use]
    pub fn index(&self) -> u64 {
        match self {
            Self::Committed(action) => action.index,
            Self::TimedOut { index, .. }
            | Self::Reset { index, .. }
            | Self::Malformed { index, .. }
            | Self::Desync { index, .. }
            | Self::Lagged { from: index, .. } => *index,
        }
    }

    /// Reads an event of the replicated state.
    pub(crate) fn read(raw: RawEvent, blueprint: &Blueprint<G>) -> Self {
        match raw {
            RawEvent::Turn(turn) => Self::read_turn(turn),
            RawEvent::TimedOut {
                index,
                term,
                turn,
                now_ms,
            } => Self::TimedOut {
                index,
                term,
                turn,
                now_ms,
            },
            RawEvent::Reset {
                index,
                term,
                turn,
                state: bytes,
            } => match blueprint.restore(&bytes) {
                Ok(state) => Self::Reset {
                    index,
                    term,
                    turn,
                    state,
                    bytes,
                },
                Err(Malformed) => Self::Malformed {
                    index,
                    term,
                    key: None,
                    changed: true,
                },
            },
            RawEvent::Desync {
                index,
                mine,
                theirs,
            } => Self::Desync {
                index,
                mine,
                theirs,
            },
        }
    }

    fn read_turn(turn: RawTurn) -> Self {
        let malformed = Self::Malformed {
            index: turn.index,
            term: turn.term,
            key: Some(turn.key.clone()),
            changed: turn.ruling.is_accepted(),
        };
        let (Some(ruling), Ok(action)) =
            (Ruling::read(&turn.ruling), G::Action::decode(&turn.action))
        else {
            return malformed;
        };
        Self::Committed(IndexedAction {
            index: turn.index,
            term: turn.term,
            turn: turn.turn,
            now_ms: turn.now_ms,
            key: turn.key,
            player: turn.player,
            place: turn.place,
            action,
            ruling,
        })
    }
}

impl<G: Game> Ruling<G> {
    /// Whether the action took place.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        matches!(
            self,
            Self::Accepted(_) | Self::Withheld { accepted: true, .. }
        )
    }

    /// `None` when the bytes are no action, outcome or refusal of this game.
    fn read(raw: &events::Ruling) -> Option<Self> {
        match raw {
            events::Ruling::Fenced => Some(Self::Fenced),
            events::Ruling::Withheld { accepted, bytes } => Some(Self::Withheld {
                accepted: *accepted,
                bytes: *bytes,
            }),
            events::Ruling::Game(Verdict::Accepted(bytes)) => {
                G::Outcome::decode(bytes).ok().map(Self::Accepted)
            }
            events::Ruling::Game(Verdict::Refused(bytes)) => {
                G::Refusal::decode(bytes).ok().map(Self::Refused)
            }
            events::Ruling::Game(Verdict::Malformed) => None,
        }
    }
}

impl<G: Game> Clone for Ruling<G> {
    fn clone(&self) -> Self {
        match self {
            Self::Accepted(outcome) => Self::Accepted(outcome.clone()),
            Self::Refused(refusal) => Self::Refused(refusal.clone()),
            Self::Fenced => Self::Fenced,
            Self::Withheld { accepted, bytes } => Self::Withheld {
                accepted: *accepted,
                bytes: *bytes,
            },
        }
    }
}

impl<G: Game> Clone for IndexedAction<G> {
    fn clone(&self) -> Self {
        Self {
            index: self.index,
            term: self.term,
            turn: self.turn,
            now_ms: self.now_ms,
            key: self.key.clone(),
            player: self.player.clone(),
            place: self.place,
            action: self.action.clone(),
            ruling: self.ruling.clone(),
        }
    }
}

impl<G: Game> Clone for TurnEvent<G> {
    fn clone(&self) -> Self {
        match self {
            Self::Committed(action) => Self::Committed(action.clone()),
            Self::TimedOut {
                index,
                term,
                turn,
                now_ms,
            } => Self::TimedOut {
                index: *index,
                term: *term,
                turn: *turn,
                now_ms: *now_ms,
            },
            Self::Reset {
                index,
                term,
                turn,
                state,
                bytes,
            } => Self::Reset {
                index: *index,
                term: *term,
                turn: *turn,
                state: state.clone(),
                bytes: bytes.clone(),
            },
            Self::Malformed {
                index,
                term,
                key,
                changed,
            } => Self::Malformed {
                index: *index,
                term: *term,
                key: key.clone(),
                changed: *changed,
            },
            Self::Lagged { from, to } => Self::Lagged {
                from: *from,
                to: *to,
            },
            Self::Desync {
                index,
                mine,
                theirs,
            } => Self::Desync {
                index: *index,
                mine: *mine,
                theirs: *theirs,
            },
        }
    }
}

impl<G: Game> fmt::Debug for Ruling<G>
where
    G::Outcome: fmt::Debug,
    G::Refusal: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted(outcome) => f.debug_tuple("Accepted").field(outcome).finish(),
            Self::Refused(refusal) => f.debug_tuple("Refused").field(refusal).finish(),
            Self::Fenced => f.write_str("Fenced"),
            Self::Withheld { accepted, bytes } => f
                .debug_struct("Withheld")
                .field("accepted", accepted)
                .field("bytes", bytes)
                .finish(),
        }
    }
}

impl<G: Game> fmt::Debug for IndexedAction<G>
where
    G::Action: fmt::Debug,
    G::Outcome: fmt::Debug,
    G::Refusal: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexedAction")
            .field("index", &self.index)
            .field("term", &self.term)
            .field("turn", &self.turn)
            .field("now_ms", &self.now_ms)
            .field("key", &self.key)
            .field("player", &self.player)
            .field("place", &self.place)
            .field("action", &self.action)
            .field("ruling", &self.ruling)
            .finish()
    }
}

/// A state is shown by its length only, so that a game need not be printable.
impl<G: Game> fmt::Debug for TurnEvent<G>
where
    G::Action: fmt::Debug,
    G::Outcome: fmt::Debug,
    G::Refusal: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Committed(action) => f.debug_tuple("Committed").field(action).finish(),
            Self::TimedOut {
                index,
                term,
                turn,
                now_ms,
            } => f
                .debug_struct("TimedOut")
                .field("index", index)
                .field("term", term)
                .field("turn", turn)
                .field("now_ms", now_ms)
                .finish(),
            Self::Reset {
                index,
                term,
                turn,
                bytes,
                ..
            } => f
                .debug_struct("Reset")
                .field("index", index)
                .field("term", term)
                .field("turn", turn)
                .field("state_bytes", &bytes.len())
                .finish_non_exhaustive(),
            Self::Malformed {
                index,
                term,
                key,
                changed,
            } => f
                .debug_struct("Malformed")
                .field("index", index)
                .field("term", term)
                .field("key", key)
                .field("changed", changed)
                .finish(),
            Self::Lagged { from, to } => f
                .debug_struct("Lagged")
                .field("from", from)
                .field("to", to)
                .finish(),
            Self::Desync { index, .. } => f
                .debug_struct("Desync")
                .field("index", index)
                .finish_non_exhaustive(),
        }
    }
}

impl<G: Game> PartialEq for Ruling<G>
where
    G::Outcome: PartialEq,
    G::Refusal: PartialEq,
{
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Accepted(mine), Self::Accepted(theirs)) => mine == theirs,
            (Self::Refused(mine), Self::Refused(theirs)) => mine == theirs,
            (Self::Fenced, Self::Fenced) => true,
            (
                Self::Withheld { accepted, bytes },
                Self::Withheld {
                    accepted: accepted_,
                    bytes: bytes_,
                },
            ) => (accepted, bytes) == (accepted_, bytes_),
            _ => false,
        }
    }
}

impl<G: Game> PartialEq for IndexedAction<G>
where
    G::Action: PartialEq,
    G::Outcome: PartialEq,
    G::Refusal: PartialEq,
{
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.term, self.turn, self.now_ms)
            == (other.index, other.term, other.turn, other.now_ms)
            && self.key == other.key
            && self.player == other.player
            && self.place == other.place
            && self.action == other.action
            && self.ruling == other.ruling
    }
}

/// States are compared by their bytes, so that a game need not be comparable.
impl<G: Game> PartialEq for TurnEvent<G>
where
    G::Action: PartialEq,
    G::Outcome: PartialEq,
    G::Refusal: PartialEq,
{
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Committed(mine), Self::Committed(theirs)) => mine == theirs,
            (
                Self::TimedOut {
                    index,
                    term,
                    turn,
                    now_ms,
                },
                Self::TimedOut {
                    index: index_,
                    term: term_,
                    turn: turn_,
                    now_ms: now_ms_,
                },
            ) => (index, term, turn, now_ms) == (index_, term_, turn_, now_ms_),
            (
                Self::Reset {
                    index,
                    term,
                    turn,
                    bytes,
                    ..
                },
                Self::Reset {
                    index: index_,
                    term: term_,
                    turn: turn_,
                    bytes: bytes_,
                    ..
                },
            ) => (index, term, turn, bytes) == (index_, term_, turn_, bytes_),
            (
                Self::Malformed {
                    index,
                    term,
                    key,
                    changed,
                },
                Self::Malformed {
                    index: index_,
                    term: term_,
                    key: key_,
                    changed: changed_,
                },
            ) => (index, term, key, changed) == (index_, term_, key_, changed_),
            (
                Self::Lagged { from, to },
                Self::Lagged {
                    from: from_,
                    to: to_,
                },
            ) => (from, to) == (from_, to_),
            (
                Self::Desync {
                    index,
                    mine,
                    theirs,
                },
                Self::Desync {
                    index: index_,
                    mine: mine_,
                    theirs: theirs_,
                },
            ) => (index, mine, theirs) == (index_, mine_, theirs_),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
