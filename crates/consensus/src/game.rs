//! What a game brings: its actions, its rules, and how its state is written down.
//!
//! [`Game`] is what an author implements; [`Rules`] is the same without types, as the replicated
//! state drives it. [`Blueprint`] says how to make one from nothing, since a node may need a second
//! copy to replay the log.
//!
//! A game is a function of the actions it was given, in order. It must not look at clocks, random
//! sources or hash-map order: what it needs of time stands in [`TurnInfo`].

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::ids::{ActionKey, PeerId};

pub use crate::state::seats::Place;

/// Bytes that are not what a [`Codec`] writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, thiserror::Error)]
#[error("the bytes are not an encoding of this type")]
pub struct Malformed;

/// How a value is written into the log. The encoding must be the same on every node and for every
/// version of a game that may read the log.
pub trait Codec: Sized + Send + 'static {
    /// The value as bytes.
    fn encode(&self) -> Vec<u8>;

    /// The value these bytes stand for.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when they stand for none.
    fn decode(bytes: &[u8]) -> Result<Self, Malformed>;
}

impl Codec for () {
    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.is_empty() {
            Ok(())
        } else {
            Err(Malformed)
        }
    }
}

impl Codec for String {
    fn encode(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        String::from_utf8(bytes.to_vec()).map_err(|_| Malformed)
    }
}

impl Codec for Vec<u8> {
    fn encode(&self) -> Vec<u8> {
        self.clone()
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        Ok(bytes.to_vec())
    }
}

impl Codec for Bytes {
    fn encode(&self) -> Vec<u8> {
        self.to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        Ok(Bytes::copy_from_slice(bytes))
    }
}

impl Codec for u64 {
    fn encode(&self) -> Vec<u8> {
        self.to_le_bytes().to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        bytes
            .try_into()
            .map(u64::from_le_bytes)
            .map_err(|_| Malformed)
    }
}

/// Where and when an action is applied: the same on every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnInfo {
    /// The entry's index in the log, from 1. Indices grow, but not by one: other entries take
    /// some.
    pub index: u64,
    /// The term of the leader that wrote the entry.
    pub term: u64,
    /// How many actions and timeouts were accepted before this one.
    pub turn: u64,
    /// The game's clock, in milliseconds since its first entry. It stands still while no leader
    /// writes.
    pub now_ms: u64,
    /// Who proposed, and under which number; `None` for a timeout.
    pub key: Option<ActionKey>,
    /// The peer the proposal came from, as its leader verified it; `None` for a timeout.
    pub player: Option<PeerId>,
    /// The place that peer has in the game at this entry: a seat, the gallery, the witness's. `None`
    /// for a peer without one, which is a server that only votes or who was put out, and for a
    /// timeout. Every member may propose, who watches too: whether that counts is for the rules to
    /// say.
    pub place: Option<Place>,
}

impl TurnInfo {
    /// The number of the seat the proposal came from, from 0; `None` when who proposed only watches,
    /// votes without a seat, or has no place.
    #[must_use]
    pub fn seat(&self) -> Option<u32> {
        match self.place {
            Some(Place::Seat(seat)) => Some(seat),
            _ => None,
        }
    }
}

/// A game: its state, and the rules by which an action changes it.
///
/// ```
/// use cabinet_consensus::game::{Game, TurnInfo};
///
/// /// Players say numbers; each must be larger than the one before.
/// #[derive(Clone, Default)]
/// struct Climb(u64);
///
/// impl Game for Climb {
///     type Action = u64;
///     type Outcome = ();
///     type Refusal = String;
///
///     fn apply(&mut self, at: &TurnInfo, said: &u64) -> Result<(), String> {
///         at.seat().ok_or("you only watch")?;
///         if *said <= self.0 {
///             return Err(format!("say more than {}", self.0));
///         }
///         self.0 = *said;
///         Ok(())
///     }
/// }
/// ```
pub trait Game: Clone + Send + 'static {
    /// What a player does.
    type Action: Codec + Clone;
    /// What the rules answer to an action they accept; `()` when there is nothing to say.
    type Outcome: Codec + Clone;
    /// Why the rules do not accept an action.
    type Refusal: Codec + Clone;

    /// Changes the state by one action. A refused action must leave the state as it was.
    ///
    /// # Errors
    ///
    /// The refusal, which its proposer and every observer get.
    fn apply(
        &mut self,
        at: &TurnInfo,
        action: &Self::Action,
    ) -> Result<Self::Outcome, Self::Refusal>;

    /// How long the present turn may take, on the game's clock. Asked after each accepted action
    /// and timeout; `None` means for ever.
    fn time_limit(&self) -> Option<Duration> {
        None
    }

    /// The present turn took longer than [`Game::time_limit`] allowed. Called once per turn, on
    /// every node at the same place in the log.
    fn time_out(&mut self, at: &TurnInfo) {
        let _ = at;
    }
}

/// A game whose state can be written down and read back: what compaction of the log needs.
pub trait Snapshots: Game {
    /// The state as bytes; the same bytes for equal states, on every node.
    fn snapshot(&self) -> Vec<u8>;

    /// The state these bytes stand for.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when they stand for none.
    fn restore(bytes: &[u8]) -> Result<Self, Malformed>;
}

/// What rules answered to an action, as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The action took place.
    Accepted(Bytes),
    /// The rules refused it; nothing changed.
    Refused(Bytes),
    /// The bytes are no action of this game; nothing changed.
    Malformed,
}

/// A game without types. [`Blueprint`] makes one of every [`Game`].
pub trait Rules: Send {
    /// Changes the state by one action.
    fn apply(&mut self, at: &TurnInfo, action: &[u8]) -> Verdict;
    /// How long the present turn may take.
    fn time_limit(&self) -> Option<Duration>;
    /// The present turn took too long.
    fn time_out(&mut self, at: &TurnInfo);
    /// The state as bytes, if the game can write it down.
    fn snapshot(&self) -> Option<Bytes>;
    /// Replaces the state.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when the bytes stand for no state, or the game cannot read any.
    fn restore(&mut self, state: &[u8]) -> Result<(), Malformed>;
    /// The game itself, to look at.
    fn game(&self) -> &dyn Any;
}

type SnapshotFn<G> = fn(&G) -> Vec<u8>;
type RestoreFn<G> = fn(&[u8]) -> Result<G, Malformed>;

/// How to make a game from nothing, and whether its state can be written down.
pub struct Blueprint<G> {
    make: Arc<dyn Fn() -> G + Send + Sync>,
    snapshots: Option<(SnapshotFn<G>, RestoreFn<G>)>,
}

impl<G> Clone for Blueprint<G> {
    fn clone(&self) -> Self {
        Self {
            make: self.make.clone(),
            snapshots: self.snapshots,
        }
    }
}

impl<G> fmt::Debug for Blueprint<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blueprint")
            .field("snapshots", &self.snapshots.is_some())
            .finish_non_exhaustive()
    }
}

impl<G: Game> Blueprint<G> {
    /// A game whose log is kept whole: it cannot be opened with compaction on. `make` must answer
    /// the same state each time and on every node.
    pub fn new(make: impl Fn() -> G + Send + Sync + 'static) -> Self {
        Self {
            make: Arc::new(make),
            snapshots: None,
        }
    }

    /// A game whose state can be written down, so that its log may be compacted.
    pub fn with_snapshots(make: impl Fn() -> G + Send + Sync + 'static) -> Self
    where
        G: Snapshots,
    {
        Self {
            make: Arc::new(make),
            snapshots: Some((G::snapshot, G::restore)),
        }
    }

    /// Whether the state can be written down.
    #[must_use]
    pub fn can_snapshot(&self) -> bool {
        self.snapshots.is_some()
    }

    /// The game before its first action.
    #[must_use]
    pub fn first_state(&self) -> G {
        (self.make)()
    }

    /// The state these bytes stand for.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when they stand for none, or the game cannot read any.
    pub fn restore(&self, state: &[u8]) -> Result<G, Malformed> {
        let (_, restore) = self.snapshots.ok_or(Malformed)?;
        restore(state)
    }

    /// How the replicated state makes copies of the game.
    #[must_use]
    pub(crate) fn rules(&self) -> RulesFactory {
        let blueprint = self.clone();
        RulesFactory {
            make: Arc::new(move || {
                Box::new(Typed {
                    game: blueprint.first_state(),
                    blueprint: blueprint.clone(),
                })
            }),
            can_snapshot: self.can_snapshot(),
        }
    }
}

/// Makes [`Rules`] from nothing.
#[derive(Clone)]
pub struct RulesFactory {
    make: Arc<dyn Fn() -> Box<dyn Rules> + Send + Sync>,
    pub(crate) can_snapshot: bool,
}

impl RulesFactory {
    pub(crate) fn make(&self) -> Box<dyn Rules> {
        (self.make)()
    }
}

struct Typed<G> {
    game: G,
    blueprint: Blueprint<G>,
}

impl<G: Game> Rules for Typed<G> {
    fn apply(&mut self, at: &TurnInfo, action: &[u8]) -> Verdict {
        let Ok(action) = G::Action::decode(action) else {
            return Verdict::Malformed;
        };
        match self.game.apply(at, &action) {
            Ok(outcome) => Verdict::Accepted(outcome.encode().into()),
            Err(refusal) => Verdict::Refused(refusal.encode().into()),
        }
    }

    fn time_limit(&self) -> Option<Duration> {
        self.game.time_limit()
    }

    fn time_out(&mut self, at: &TurnInfo) {
        self.game.time_out(at);
    }

    fn snapshot(&self) -> Option<Bytes> {
        let (snapshot, _) = self.blueprint.snapshots?;
        Some(snapshot(&self.game).into())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), Malformed> {
        self.game = self.blueprint.restore(state)?;
        Ok(())
    }

    fn game(&self) -> &dyn Any {
        &self.game
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_codec_writes_it_reads() {
        assert_eq!(
            String::decode(&"häuser".to_owned().encode()),
            Ok("häuser".to_owned())
        );
        assert_eq!(u64::decode(&7u64.encode()), Ok(7));
        assert_eq!(<()>::decode(&().encode()), Ok(()));
        assert_eq!(Vec::<u8>::decode(&vec![1, 2].encode()), Ok(vec![1, 2]));
        assert_eq!(
            Bytes::decode(&Bytes::from_static(b"x").encode()),
            Ok(Bytes::from_static(b"x"))
        );
        assert_eq!(u64::decode(b"short"), Err(Malformed));
        assert_eq!(<()>::decode(b"x"), Err(Malformed));
        assert_eq!(String::decode(&[0xff]), Err(Malformed));
    }
}
