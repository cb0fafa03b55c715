//! The seam between a game and whatever carries its frames.
//!
//! A [`Fabric`] knows which peers are connected, sends a frame to one of them, and hands each game
//! that was opened on it the frames of that game: an [`Incoming`], one queue per [`Lane`]. Delivery
//! is best effort and, between two peers on one lane, in order.
//!
//! Invariants
//! - lanes never wait for one another: each has its own bounded queue, and a full one drops and
//!   counts instead of holding the sender;
//! - there is one [`Incoming`] of a game at a time and it cannot be cloned; a second
//!   [`Port::open`] of the same game is refused, and dropping the first frees the name;
//! - who sent a frame is what the fabric verified, never a field of the frame.

mod memory;
mod queue;
mod shares;
mod switchboard;
#[cfg(feature = "tls")]
pub mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

pub use memory::{MemoryFabric, MemoryPeer};
pub use queue::{Overflow, Receiver};
pub(crate) use queue::{Pusher, queue};
pub(crate) use switchboard::OpenGame;
pub use switchboard::{Incoming, LaneStats, QueueLimits, Switchboard, SwitchboardStats};

use crate::ids::{GameId, PeerId};
use crate::watch::Watch;

/// Largest frame a fabric carries, in bytes, without what the fabric adds around it.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

/// Most peers a fabric keeps links to.
pub const PEERS_MAX: usize = 256;

/// What a frame is for. Each lane has its own queue, and on a real network Raft and the lobby have
/// a connection that app channels do not share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Raft and what rides with it: forwarded proposals and reads.
    Raft,
    /// Who is here, who hosts, who wants a seat.
    Lobby,
    /// The application's own channels.
    App,
}

impl Lane {
    /// Every lane.
    pub const ALL: [Self; 3] = [Self::Raft, Self::Lobby, Self::App];

    /// The lane's number in a frame's header.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Raft => 1,
            Self::Lobby => 2,
            Self::App => 3,
        }
    }

    /// The lane with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.number() == number)
    }
}

/// How the fabric knows who a peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Principal {
    /// The peer said so, and the fabric trusts its word: links inside one process.
    Asserted,
    /// The peer proved it with a certificate that our authority signed.
    Certificate {
        /// SHA-256 of the certificate, DER encoded.
        sha256: [u8; 32],
    },
}

/// Connected peers, ourselves not among them, and how each is known.
pub type Peers = Arc<BTreeMap<PeerId, Principal>>;

/// A frame and who sent it.
#[derive(Clone, PartialEq, Eq)]
pub struct Inbound {
    /// The verified sender.
    pub from: PeerId,
    /// What it sent.
    pub frame: Bytes,
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes from {}", self.frame.len(), self.from)
    }
}

/// A frame that was not taken for sending. Any frame that was taken may still be lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No link to this peer now.
    #[error("{0} is not connected")]
    NotConnected(PeerId),
    /// The frame is larger than [`FRAME_BYTES_MAX`].
    #[error("a frame has at most {max} bytes, this one has {len}", max = FRAME_BYTES_MAX)]
    TooLarge {
        /// Bytes given.
        len: usize,
    },
    /// The queue towards the peer is full: the frame was dropped and counted.
    #[error("the queue to {0} is full")]
    Full(PeerId),
    /// A peer does not send to itself.
    #[error("{0} is this peer itself")]
    ToSelf(PeerId),
    /// The fabric was closed.
    #[error("the fabric is closed")]
    Closed,
}

/// A game that cannot be opened on a fabric.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// The game is open already: close its session, or drop its port, first.
    #[error("game {0} is open on this fabric already: close it first")]
    Taken(GameId),
    /// More games than the fabric carries.
    #[error("a fabric carries at most {max} games: close one first")]
    TooMany {
        /// Games allowed.
        max: usize,
    },
    /// The fabric was closed.
    #[error("the fabric is closed")]
    Closed,
}

/// Carries frames between peers.
///
/// Implementations never block in [`Fabric::send`]: a frame that cannot go is dropped, counted and
/// reported.
pub trait Fabric: Send + Sync + 'static {
    /// This peer.
    fn local(&self) -> &PeerId;

    /// The peers connected now.
    fn peers(&self) -> Watch<Peers>;

    /// Sends `frame` to `to`, best effort.
    ///
    /// # Errors
    ///
    /// [`SendError`] when the frame was certainly not sent.
    fn send(&self, to: &PeerId, game: &GameId, lane: Lane, frame: Bytes) -> Result<(), SendError>;

    /// Takes the frames of `game` that arrive from now on.
    ///
    /// # Errors
    ///
    /// [`PortError`] when somebody else takes them, or nobody can.
    fn open(&self, game: &GameId) -> Result<Incoming, PortError>;
}

/// One game's place on a fabric: what every bootstrap path consumes.
///
/// ```
/// use cabinet_consensus::fabric::{MemoryFabric, Port, PortError};
/// use cabinet_consensus::ids::{GameId, PeerId};
///
/// let net = MemoryFabric::new();
/// let ann = net.join(PeerId::new("ann")?)?;
/// let chess = GameId::new("chess")?;
/// let port = Port::open(ann.clone(), chess.clone())?;
/// // One incoming stream: nobody can take it a second time.
/// assert_eq!(Port::open(ann.clone(), chess.clone()).err(), Some(PortError::Taken(chess.clone())));
/// drop(port);
/// assert!(Port::open(ann, chess).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Port {
    pub(crate) links: Links,
    pub(crate) incoming: Incoming,
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port of {} on {}", self.links.game, self.links.local())
    }
}

impl Port {
    /// Opens `game` on `fabric`.
    ///
    /// # Errors
    ///
    /// [`PortError`] when the game is open already, or no more can be.
    pub fn open(fabric: Arc<dyn Fabric>, game: GameId) -> Result<Self, PortError> {
        let incoming = fabric.open(&game)?;
        Ok(Self {
            links: Links {
                fabric,
                game: Arc::new(game),
            },
            incoming,
        })
    }

    /// This peer.
    #[must_use]
    pub fn local(&self) -> &PeerId {
        self.links.local()
    }

    /// The peers connected now, this one not among them, whatever games they have open.
    #[must_use]
    pub fn peers(&self) -> Watch<Peers> {
        self.links.peers()
    }

    /// The sending half and the receiving half, for who builds something else than a game on them.
    #[must_use]
    pub fn split(self) -> (Links, Incoming) {
        (self.links, self.incoming)
    }
}

/// The sending half of a [`Port`].
#[derive(Clone)]
pub struct Links {
    fabric: Arc<dyn Fabric>,
    game: Arc<GameId>,
}

impl Links {
    /// This peer.
    #[must_use]
    pub fn local(&self) -> &PeerId {
        self.fabric.local()
    }

    /// The game whose frames these links carry.
    #[must_use]
    pub fn game(&self) -> &GameId {
        &self.game
    }

    /// The peers connected now.
    #[must_use]
    pub fn peers(&self) -> Watch<Peers> {
        self.fabric.peers()
    }

    /// Sends to one peer, best effort.
    ///
    /// # Errors
    ///
    /// [`SendError`] when the frame was certainly not sent.
    pub fn send(&self, to: &PeerId, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        self.fabric.send(to, &self.game, lane, frame)
    }

    /// Sends to every connected peer, best effort; answers how many took it.
    pub fn broadcast(&self, lane: Lane, frame: &Bytes) -> usize {
        let peers = self.peers().get();
        peers
            .keys()
            .filter(|peer| self.send(peer, lane, frame.clone()).is_ok())
            .count()
    }
}
