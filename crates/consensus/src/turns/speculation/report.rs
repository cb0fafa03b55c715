//! What a speculation is told of its entries, and what it answers.

use crate::game::Game;
use crate::ids::ActionKey;

use super::super::event::Ruling;

/// What is known of a pending entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was sent, or will be.
    InFlight,
    /// Nobody knows whether it was appended.
    Unknown,
    /// Its reply came before its event: it takes place at this index.
    Accepted {
        /// The entry's index.
        index: u64,
    },
}

/// What a proposal's reply says of it.
pub enum ReplyOutcome<G: Game> {
    /// It was decided, now or earlier.
    Decided {
        /// The entry that decided it.
        index: u64,
        /// What became of it.
        ruling: Ruling<G>,
    },
    /// It was decided that the bytes are no action of the game.
    Malformed {
        /// The entry that decided it.
        index: u64,
    },
    /// It may have been appended: send it again under the same key.
    Unknown,
    /// It was not appended, and will not be.
    NotAppended,
    /// The application does not wait for it any more. Should it take place all the same, it comes
    /// as anybody's action does.
    GivenUp,
}

/// What the owner should tell whoever proposed, or the embedder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice<R> {
    /// The action took place, once.
    Confirmed {
        /// Which action.
        key: ActionKey,
        /// The last entry known to contain it.
        index: u64,
    },
    /// The rules refused the action, on every node.
    Refused {
        /// Which action.
        key: ActionKey,
        /// Why.
        refusal: R,
    },
    /// The action was meant for another turn.
    Fenced {
        /// Which action.
        key: ActionKey,
    },
    /// The entry with the action cannot be read, or the rules refused it in more bytes than are
    /// kept.
    Malformed {
        /// Which action.
        key: ActionKey,
    },
    /// After what others did the rules would refuse the action, so it is not shown any more. It is
    /// still under way, and should it take place it comes as anybody's action does.
    Rejected {
        /// Which action.
        key: ActionKey,
        /// Why, by this node's prediction.
        refusal: R,
    },
    /// The client's later actions pushed this one out of its window of [`WINDOW`](crate::state::sessions::WINDOW): it did not take
    /// place before a state that was seen, and cannot any more.
    Expired {
        /// Which action.
        key: ActionKey,
    },
    /// The agreed state cannot be followed past this entry, which this program cannot apply.
    /// Nothing is applied until a [`TurnEvent::Reset`](crate::turns::TurnEvent::Reset) at or after it.
    Stalled {
        /// The entry.
        index: u64,
    },
}

/// An action that cannot be shown before it is decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpeculateError<R> {
    /// As many actions are pending as may be.
    #[error("at most {max} actions may be pending: wait for one of them")]
    TooManyPending {
        /// How many may be.
        max: usize,
    },
    /// The rules refuse the action as things stand here. It is not kept: do not send it.
    #[error("the rules refuse the action in the state shown")]
    PredictedRefusal(R),
    /// The key is pending. Sending it again is safe; it is shown once.
    #[error("action {key} is pending already")]
    AlreadyPending {
        /// Which key.
        key: ActionKey,
    },
    /// The key's action is in the agreed state, or was refused. Sending it again gets the first
    /// answer.
    #[error("action {key} was decided at entry {index} already")]
    AlreadyDecided {
        /// Which key.
        key: ActionKey,
        /// The entry that decided it.
        index: u64,
    },
}
