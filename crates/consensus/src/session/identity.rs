//! Whose log it is: what a node writes before anything else, and reads when it comes back.
//!
//! A vote and a log belong to one node in one session. Another node on them would vote a second
//! time, or count entries of another game as its own.
//!
//! Invariants
//! - a log that Raft has written to says whose it is, and only that node opens it;
//! - nothing is written to a log that is another's.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use prost::Message;

use super::OpenError;
use crate::game::Malformed;
use crate::ids::{GameId, NodeId, SessionId};
use crate::log::LogStore;
use crate::state::command::{Configure, Kind, NodeMsg};

/// Whose log it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOwner {
    /// The node that keeps it.
    pub node: NodeId,
    /// The game.
    pub game: GameId,
    /// The run of the game.
    pub session: SessionId,
}

impl fmt::Display for LogOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            game,
            session,
        } = self;
        write!(f, "{node} in game {game}, session {session}")
    }
}

/// All that a node must know of itself to go on with its log.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LogIdentity {
    pub owner: LogOwner,
    pub kind: Kind,
    /// What it writes, should it lead before anybody has written the settings.
    pub configure: Configure,
    /// The members it was told of before its log named any.
    pub trusted: BTreeSet<NodeId>,
}

#[derive(Clone, PartialEq, Message)]
struct IdentityMsg {
    #[prost(message, optional, tag = "1")]
    node: Option<NodeMsg>,
    #[prost(string, tag = "2")]
    game: String,
    #[prost(bytes = "bytes", tag = "3")]
    session: Bytes,
    #[prost(enumeration = "Kind", tag = "4")]
    kind: i32,
    #[prost(message, optional, tag = "5")]
    configure: Option<Configure>,
    #[prost(message, repeated, tag = "6")]
    trusted: Vec<NodeMsg>,
}

impl LogIdentity {
    pub fn encode(&self) -> Bytes {
        let msg = IdentityMsg {
            node: Some((&self.owner.node).into()),
            game: self.owner.game.as_str().to_owned(),
            session: self.owner.session.to_bytes(),
            kind: self.kind.into(),
            configure: Some(self.configure.clone()),
            trusted: self.trusted.iter().map(NodeMsg::from).collect(),
        };
        msg.encode_to_vec().into()
    }

    fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let msg = IdentityMsg::decode(bytes).map_err(|_| Malformed)?;
        let node = |msg: &NodeMsg| msg.node().ok_or(Malformed);
        Ok(Self {
            owner: LogOwner {
                node: node(&msg.node.ok_or(Malformed)?)?,
                game: GameId::new(&msg.game).map_err(|_| Malformed)?,
                session: SessionId::from_bytes(&msg.session).ok_or(Malformed)?,
            },
            kind: Kind::try_from(msg.kind).map_err(|_| Malformed)?,
            configure: msg.configure.ok_or(Malformed)?,
            trusted: msg.trusted.iter().map(node).collect::<Result<_, _>>()?,
        })
    }
}

/// What a log says of itself.
pub(super) struct Found {
    pub identity: Option<LogIdentity>,
    /// Whether Raft has written to it.
    pub begun: bool,
    /// Whether it names members.
    pub has_entries: bool,
}

/// Looks at a log without changing it.
///
/// # Errors
///
/// [`OpenError::Log`]; [`OpenError::OwnerUnknown`] when it was written to and does not say by whom.
pub(super) fn look(log: &dyn LogStore) -> Result<Found, OpenError> {
    let state = log.state()?;
    let begun = state.has_begun();
    let has_entries = state.last.is_some();
    let identity = state.identity.map(LogIdentity::decode);
    match identity {
        Some(Err(Malformed)) => Err(OpenError::OwnerUnknown),
        None if begun => Err(OpenError::OwnerUnknown),
        identity => Ok(Found {
            identity: identity.and_then(Result::ok),
            begun,
            has_entries,
        }),
    }
}

/// Whether a log may be used by who hosts or joins: nothing has been written to it, and if it
/// was to be somebody's, it was this peer's in this game.
///
/// # Errors
///
/// [`OpenError::OtherOwner`], [`OpenError::LogBegun`], and those of [`look`].
pub(super) fn is_new(log: &dyn LogStore, node: &NodeId, game: &GameId) -> Result<(), OpenError> {
    let found = look(log)?;
    let Some(LogIdentity { owner, .. }) = found.identity else {
        return Ok(());
    };
    if owner.node.peer != node.peer || owner.game != *game {
        return Err(OpenError::OtherOwner { owner });
    }
    if found.begun {
        return Err(OpenError::LogBegun { owner });
    }
    Ok(())
}

/// Whether a log is this node's in this session, or nobody's yet.
///
/// # Errors
///
/// [`OpenError::OtherOwner`], and those of [`look`].
pub(super) fn is_own_or_new(log: &dyn LogStore, me: &LogOwner) -> Result<(), OpenError> {
    match look(log)?.identity {
        Some(LogIdentity { owner, .. }) if owner != *me => Err(OpenError::OtherOwner { owner }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::PEERS_MAX;
    use crate::ids::{Incarnation, NAME_BYTES_MAX, PEER_ID_BYTES_MAX, PeerId};
    use crate::lobby::wire::MEMBERS_MAX;
    use crate::log::IDENTITY_BYTES_MAX;
    use crate::state::seats::SEATS_MAX;

    fn node(n: usize) -> NodeId {
        let name = format!("{n:0>PEER_ID_BYTES_MAX$}");
        NodeId::new(PeerId::new(name).unwrap(), Incarnation(u64::MAX))
    }

    fn largest() -> LogIdentity {
        let core = PEERS_MAX - SEATS_MAX as usize;
        LogIdentity {
            owner: LogOwner {
                node: node(0),
                game: GameId::new("g".repeat(NAME_BYTES_MAX)).unwrap(),
                session: SessionId(u128::MAX),
            },
            kind: Kind::Witness,
            configure: Configure {
                seated: (0..SEATS_MAX as usize).map(|n| (&node(n)).into()).collect(),
                core: (0..core).map(|n| (&node(n)).into()).collect(),
                session: SessionId(u128::MAX).to_bytes(),
                session_ttl_ms: u64::MAX,
                hash_every: u64::MAX,
                secret: Bytes::from_static(&[7; 32]),
                ..Configure::default()
            },
            trusted: (0..MEMBERS_MAX).map(node).collect(),
        }
    }

    #[test]
    fn the_largest_identity_fits_and_is_read_as_it_was_written() {
        let identity = largest();
        let bytes = identity.encode();
        assert!(bytes.len() <= IDENTITY_BYTES_MAX, "{} bytes", bytes.len());
        assert_eq!(LogIdentity::decode(bytes), Ok(identity));
    }

    #[test]
    fn a_damaged_identity_is_an_error_or_another_identity_and_never_a_panic() {
        let bytes = largest().encode();
        for at in 0..200.min(bytes.len()) {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x55;
            let _ = LogIdentity::decode(damaged.into());
            assert!(LogIdentity::decode(bytes.slice(..at)).is_err());
        }
    }
}
