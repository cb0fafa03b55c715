//! Names of things: peers, nodes, sessions, games, clients and the keys of their actions.
//!
//! Invariants
//! - a [`PeerId`] is 1 to 64 bytes without control characters, a [`ClientId`] 1 to 128, a
//!   [`GameId`] 1 to 255: what a frame carries is checked by the same constructor;
//! - a [`NodeId`] is never reused with lost state: a process that starts without its log takes a
//!   higher [`Incarnation`].

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// Longest [`PeerId`], in bytes.
pub const PEER_ID_BYTES_MAX: usize = 64;
/// Longest [`ClientId`], in bytes.
pub const CLIENT_ID_BYTES_MAX: usize = 128;
/// Longest [`GameId`] and longest name of an app channel, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// A name that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name has no bytes.
    #[error("a {what} must not be empty")]
    Empty {
        /// What was being named.
        what: &'static str,
    },
    /// The name is too long.
    #[error("a {what} has at most {max} bytes, this one has {len}")]
    TooLong {
        /// What was being named.
        what: &'static str,
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The name holds a control character.
    #[error("a {what} must not hold control characters")]
    Control {
        /// What was being named.
        what: &'static str,
    },
}

fn checked(what: &'static str, name: &str, max: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { what });
    }
    if name.len() > max {
        return Err(NameError::TooLong {
            what,
            len: name.len(),
            max,
        });
    }
    if name.chars().any(char::is_control) {
        return Err(NameError::Control { what });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks and wraps a name.
            ///
            /// # Errors
            ///
            /// [`NameError`] when it is empty, too long or holds control characters.
            pub fn new(name: impl AsRef<str>) -> Result<Self, NameError> {
                let name = name.as_ref();
                checked($what, name, $max)?;
                Ok(Self(Arc::from(name)))
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        /// Equal names are equal strings, and in the same order: a map is looked up by either.
        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::str::FromStr for $type {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }
    };
}

name!(
    /// Who is at the other end of a link: a player, a server, a witness. On a TLS fabric the
    /// name stands in the peer's certificate.
    PeerId,
    "peer id",
    PEER_ID_BYTES_MAX
);
name!(
    /// Who proposes actions, as the replicated session table knows them.
    ClientId,
    "client id",
    CLIENT_ID_BYTES_MAX
);
name!(
    /// One game on a connection set that may carry several.
    GameId,
    "game id",
    NAME_BYTES_MAX
);

/// Which life of a peer: chosen when a process starts without a log, kept when it has one.
/// Of two, the higher is the later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A member of the cluster: a peer in one of its lives. Raft must never see one of these come back
/// without the log it had.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// The peer frames for this node go to.
    pub peer: PeerId,
    /// Which of its lives.
    pub incarnation: Incarnation,
}

impl NodeId {
    /// The node of `peer` in its life `incarnation`.
    #[must_use]
    pub fn new(peer: PeerId, incarnation: Incarnation) -> Self {
        Self { peer, incarnation }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.peer, self.incarnation)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One run of a game from its first entry to its end: drawn at random by whoever hosts it, or
/// derived from the voters when all of them are known beforehand.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

impl SessionId {
    /// The session named by a text: the same on whoever writes the same one.
    pub(crate) fn named(text: &str) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&sha256(text.as_bytes())[..16]);
        Self(u128::from_be_bytes(id))
    }

    /// The id as it stands in messages and in the log.
    pub(crate) fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_be_bytes())
    }

    /// The session these bytes name: there are 16.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let id = bytes.try_into().ok()?;
        Some(Self(u128::from_be_bytes(id)))
    }
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut hash = [0; 32];
    // The algorithm's output has this many bytes.
    hash.copy_from_slice(digest.as_ref());
    hash
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What names an action for ever: the client that proposed it and the client's own number for it.
/// Numbers start at 1.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionKey {
    /// Who proposed.
    pub client: ClientId,
    /// The client's number for the action.
    pub serial: u64,
}

impl fmt::Display for ActionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.client, self.serial)
    }
}

impl fmt::Debug for ActionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_accepted_at_its_limit_and_refused_one_past_it() {
        for (make, max) in [
            (
                (|n: &str| PeerId::new(n).map(|_| ())) as fn(&str) -> Result<(), NameError>,
                PEER_ID_BYTES_MAX,
            ),
            (|n| ClientId::new(n).map(|_| ()), CLIENT_ID_BYTES_MAX),
            (|n| GameId::new(n).map(|_| ()), NAME_BYTES_MAX),
        ] {
            assert_eq!(make(&"x".repeat(max)), Ok(()));
            assert!(matches!(
                make(&"x".repeat(max + 1)),
                Err(NameError::TooLong { len, .. }) if len == max + 1
            ));
            assert!(matches!(make(""), Err(NameError::Empty { .. })));
            assert!(matches!(make("a\u{7}b"), Err(NameError::Control { .. })));
        }
    }

    #[test]
    fn a_later_life_of_a_peer_sorts_after_an_earlier_one() {
        let peer = PeerId::new("ann").unwrap();
        assert!(
            NodeId::new(peer.clone(), Incarnation(1)) < NodeId::new(peer.clone(), Incarnation(2))
        );
        assert_eq!(NodeId::new(peer, Incarnation(7)).to_string(), "ann/7");
    }
}
