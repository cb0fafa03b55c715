//! What stands in the log for the replicated state, as protobuf messages.
//!
//! Invariants
//! - a command is stamped by the leader that appends it, with the game's clock;
//! - fields are only ever added: a log outlives the program that wrote it.

pub(crate) mod plain;

use std::fmt;

use bytes::Bytes;
use prost::Message;

use crate::ids::{Incarnation, NodeId, PeerId};

/// A node, on the wire and in the log.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub(crate) struct NodeMsg {
    #[prost(string, tag = "1")]
    pub peer: String,
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
}

impl From<&NodeId> for NodeMsg {
    fn from(node: &NodeId) -> Self {
        Self {
            peer: node.peer.as_str().to_owned(),
            incarnation: node.incarnation.0,
        }
    }
}

impl NodeMsg {
    /// The node, if its name is one.
    pub(crate) fn node(&self) -> Option<NodeId> {
        let peer = PeerId::new(&self.peer).ok()?;
        Some(NodeId::new(peer, Incarnation(self.incarnation)))
    }
}

/// One entry of the log that is ours.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Command {
    /// The game's clock when the leader appended this, in milliseconds.
    #[prost(uint64, tag = "1")]
    pub stamp_ms: u64,
    #[prost(oneof = "Body", tags = "2, 3, 4, 5, 6, 7, 8, 9")]
    pub body: Option<Body>,
}

/// Where a [`Configure`] stands in a [`Command`].
pub(crate) const CONFIGURE_TAG: u32 = 4;

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Body {
    #[prost(message, tag = "2")]
    Act(Act),
    #[prost(message, tag = "3")]
    Open(Open),
    #[prost(message, tag = "4")]
    Configure(Configure),
    #[prost(message, tag = "5")]
    Seat(SeatRequest),
    #[prost(message, tag = "6")]
    Vacate(Vacate),
    #[prost(message, tag = "7")]
    Timeout(Timeout),
    #[prost(message, tag = "8")]
    Hash(Hash),
    /// Only moves the clock, so that sessions expire in a game where nobody acts.
    #[prost(message, tag = "9")]
    Tick(Tick),
}

/// An action of the game.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct Act {
    #[prost(string, tag = "1")]
    pub client: String,
    /// What [`Open`] answered: an older process under the same client is refused by it.
    #[prost(uint64, tag = "2")]
    pub session: u64,
    #[prost(uint64, tag = "3")]
    pub serial: u64,
    /// Refused unless the game stands at this turn.
    #[prost(uint64, optional, tag = "4")]
    pub expected_turn: Option<u64>,
    #[prost(bytes = "bytes", tag = "5")]
    pub action: Bytes,
    /// The peer the action came from, as the leader verified it.
    #[prost(string, tag = "6")]
    pub owner: String,
}

impl fmt::Debug for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        plain::PlainAct::from(self).fmt(f)
    }
}

/// Begins or continues a client's session.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Open {
    #[prost(string, tag = "1")]
    pub client: String,
    /// The peer the request came from, as the leader verified it.
    #[prost(string, tag = "2")]
    pub owner: String,
    /// A number this process drew, so that a repeated request opens one session.
    #[prost(uint64, tag = "3")]
    pub nonce: u64,
}

/// The session's own settings: the first entry of a game. Later ones are ignored.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct Configure {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub session: Bytes,
    #[prost(uint32, tag = "2")]
    pub seats: u32,
    #[prost(uint32, tag = "3")]
    pub spectators_max: u32,
    /// Nodes that vote whoever plays; when there are some, players ride as learners.
    #[prost(message, repeated, tag = "4")]
    pub core: Vec<NodeMsg>,
    /// Nodes that hold a seat from the start.
    #[prost(message, repeated, tag = "5")]
    pub seated: Vec<NodeMsg>,
    /// Whether a third voter that does not play may join.
    #[prost(bool, tag = "6")]
    pub witness: bool,
    /// How long a client may be silent before its session is forgotten, in milliseconds.
    #[prost(uint64, tag = "7")]
    pub session_ttl_ms: u64,
    /// A state hash is voted on every so many entries; 0 means never.
    #[prost(uint64, tag = "8")]
    pub hash_every: u64,
    /// Bytes of a game's answer that are kept; 0 means as many as may be.
    #[prost(uint64, tag = "9")]
    pub outcome_bytes_max: u64,
    /// What only those know that were given the log: 32 bytes, or none.
    #[prost(bytes = "bytes", tag = "10")]
    pub secret: Bytes,
}

impl fmt::Debug for Configure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Configure")
            .field("session", &self.session)
            .field("seats", &self.seats)
            .finish_non_exhaustive()
    }
}

/// What a peer wants to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Kind {
    Player = 0,
    Spectator = 1,
    Witness = 2,
}

/// Gives a peer a place.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SeatRequest {
    #[prost(message, optional, tag = "1")]
    pub node: Option<NodeMsg>,
    #[prost(enumeration = "Kind", tag = "2")]
    pub kind: i32,
}

/// Takes a peer's place away.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Vacate {
    #[prost(message, optional, tag = "1")]
    pub node: Option<NodeMsg>,
    /// Whether the peer left by itself: then its seat is nobody's at once.
    #[prost(bool, tag = "2")]
    pub left: bool,
}

/// The present turn took too long.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Timeout {
    #[prost(uint64, tag = "1")]
    pub turn: u64,
}

/// One voter's hash of its state after an entry.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Hash {
    #[prost(uint64, tag = "1")]
    pub at: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub hash: Bytes,
    #[prost(message, optional, tag = "3")]
    pub node: Option<NodeMsg>,
}

/// Nothing but the stamp.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Tick {}

impl Command {
    pub(crate) fn new(stamp_ms: u64, body: Body) -> Self {
        Self {
            stamp_ms,
            body: Some(body),
        }
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        self.encode_to_vec().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hidden::tests::{SECRET, hides_it};

    #[test]
    fn neither_a_secret_nor_an_action_is_in_a_command_that_is_shown() {
        let configure = Configure {
            secret: Bytes::from_static(SECRET),
            seats: 77,
            ..Configure::default()
        };
        let act = Act {
            serial: 77,
            action: Bytes::from_static(SECRET),
            ..Act::default()
        };
        for body in [Body::Configure(configure), Body::Act(act)] {
            let command = Command::new(0, body);
            hides_it(&command);
            let shown = format!("{command:?}");
            assert!(shown.contains("77"), "{shown}");
        }
        let act = plain::PlainAct {
            client: "ann",
            session: 1,
            serial: 77,
            expected_turn: None,
            action: SECRET,
            owner: "ann",
        };
        hides_it(&act);
    }
}
