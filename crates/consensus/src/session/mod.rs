//! Bringing a game up on a fabric, and what a player holds of it.
//!
//! [`game_node`] is for a roster that is known: every voter passes the same one, and Raft elects.
//! Otherwise one peer calls [`game_host`], and the others [`game_join`], [`game_spectate`] or
//! [`game_witness`]. Where servers vote and players ride, servers call [`game_server`] and players
//! [`game_player`]. A process that comes back with its log calls [`game_resume`].
//!
//! Invariants
//! - what a bootstrap starts is stopped on every path out of it;
//! - nothing here needs wall time: the clock is passed in.

mod asking;
mod attend;
mod bootstrap;
mod channels;
mod claiming;
mod core;
mod entering;
#[cfg(test)]
mod false_answers;
#[cfg(test)]
mod flood;
#[cfg(test)]
mod gate;
mod identity;
mod leaving;
#[cfg(test)]
mod lost_log;
#[cfg(test)]
mod lost_voter;
mod node_view;
mod opening;
mod presence;
mod roster;
mod settings;
#[cfg(test)]
mod strangers;
#[cfg(test)]
mod vouching;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;

pub use attend::Rival;
pub use bootstrap::{
    HostError, HostOptions, JoinError, JoinOptions, ResumeError, ReturnPolicy, game_host,
    game_join, game_resume, game_spectate, game_witness,
};
#[cfg(feature = "testkit")]
pub(crate) use bootstrap::{enter, host, resume};
pub use channels::{AppChannel, ChannelError, ChannelReader, ChannelSendError};
pub use core::{CoreOptions, PlacementError, ServerCore, game_player, game_server};
#[cfg(feature = "testkit")]
pub(crate) use core::{ride, serve};
pub use identity::LogOwner;
pub use node_view::{NodeState, NodeView, Waiting};
#[cfg(feature = "testkit")]
pub(crate) use opening::Hooks;
pub use presence::{Attendee, Presence, PresenceChange};
pub use roster::game_node;
#[cfg(feature = "testkit")]
pub(crate) use roster::game_node_with;
pub use settings::SessionConfig;

use crate::config::ConfigError;
use crate::fabric::{Links, Peers};
use crate::game::{Blueprint, Game};
use crate::ids::{PeerId, SessionId};
use crate::log::LogError;
use crate::node::Node;
use crate::raft::lock;
use crate::state::seats::{self, NoPlace};
use crate::turns::TurnSequencer;
use crate::watch::{self, Watch};

pub use crate::lobby::AdmissionTiming;
pub use crate::node::{Clock, DroppedFrames, Identity, TokioClock};
pub use crate::raft::{TRACE_MAX, TraceEvent, Traced, TransferError};

/// A session that did not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The roster does not name this peer.
    #[error("{0} is not in the roster: pass the same roster on every peer, itself included")]
    NotInRoster(PeerId),
    /// The roster is empty or too long.
    #[error("a roster has 1 to {max} peers, this one has {len}")]
    Roster {
        /// Peers given.
        len: usize,
        /// Peers allowed.
        max: usize,
    },
    /// There are no seats, or too many.
    #[error("a game has 1 to {max} seats, not {len}")]
    Seats {
        /// Seats asked for.
        len: u32,
        /// Seats allowed.
        max: u32,
    },
    /// The gallery is too large.
    #[error("a gallery has at most {max} places, not {len}")]
    Gallery {
        /// Places asked for.
        len: u32,
        /// Places allowed.
        max: u32,
    },
    /// The votes cannot be placed like this.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The log is another node's, or of another game or session. Nothing was written to it.
    #[error("the log is {owner}'s: give this node its own")]
    OtherOwner {
        /// Whose it is.
        owner: LogOwner,
    },
    /// The log holds a part of a game that has begun. Nothing was written to it.
    #[error("the log holds a game, of {owner}: resume it, or use an empty log")]
    LogBegun {
        /// Whose it is.
        owner: LogOwner,
    },
    /// The log was written to and does not say by whom.
    #[error("the log does not say whose it is: take this node out and let it join anew")]
    OwnerUnknown,
    /// The log could not be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log's snapshot is of another game, or of another version of this one that this one does
    /// not read: open it with the game that wrote it, or take this node out and let it join anew.
    #[error("the log's snapshot cannot be read by this game: is it the game that wrote it?")]
    SnapshotUnreadable,
    /// Raft did not start.
    #[error("the node could not start: {0}")]
    Start(String),
}

type Held = (JoinSet<()>, crate::fabric::OpenGame);

/// A game this peer is in.
pub struct GameSession<G: Game> {
    node: Arc<Node>,
    blueprint: Blueprint<G>,
    session: SessionId,
    links: Links,
    channels: channels::Channels,
    held: Mutex<Option<Held>>,
    rivals: watch::Sender<BTreeSet<Rival>>,
    presence: Watch<Presence>,
    leaving: Arc<AtomicBool>,
    /// How long a message to another member may take.
    grace: Duration,
}

impl<G: Game> fmt::Debug for GameSession<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} on {}", self.session, self.node.me())
    }
}

impl<G: Game> GameSession<G> {
    /// Which run of the game this is.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.session
    }

    /// Proposes this peer's actions and follows everybody's.
    #[must_use]
    pub fn sequencer(&self) -> TurnSequencer<G> {
        TurnSequencer::new(self.node.clone(), self.blueprint.clone())
    }

    /// What this peer is in the cluster.
    #[must_use]
    pub fn node(&self) -> NodeView {
        NodeView::new(self.node.clone())
    }

    /// A named channel for the application's own traffic between members: best effort, bounded,
    /// never relayed. It is open until its last handle and its reader are dropped.
    ///
    /// # Errors
    ///
    /// [`ChannelError`] when the name is none, too many are open, or the session is closed.
    pub fn app_channel(&self, name: &str) -> Result<AppChannel, ChannelError> {
        self.channels.open(name)
    }

    /// App frames that arrived for channels nobody had open here.
    #[must_use]
    pub fn unclaimed_app_frames(&self) -> u64 {
        self.channels.unknown()
    }

    /// App frames of peers that are no members, as far as this node knew.
    #[cfg(feature = "testkit")]
    pub(crate) fn turned_away_app_frames(&self) -> u64 {
        self.channels.turned_away()
    }

    /// Connected peers, and how the fabric verified each.
    #[must_use]
    pub fn principals(&self) -> Watch<Peers> {
        self.links.peers()
    }

    /// Other sessions of the same game that were seen on this fabric: a split, which nothing can
    /// merge. Empty when all is well: one that nobody connected speaks for any more is gone from it.
    #[must_use]
    pub fn rivals(&self) -> Watch<BTreeSet<Rival>> {
        self.rivals.subscribe()
    }

    /// Why this node is out of the game, once it was told: it was put out while it was silent or its
    /// process away, and its place is another's by now. `None` while all is well. The node goes on
    /// asking, and comes in again when a place is free; close it if that is not wanted. Until then
    /// what it proposes and reads is refused, if a voter that it knows said so, or who leads: the word
    /// of who only shows that it was let in once is told here and refuses nothing.
    #[must_use]
    pub fn refused(&self) -> Watch<Option<NoPlace>> {
        self.node.refused()
    }

    /// Who has a place in the game, and who of them is there, as this node sees it. Empty until the
    /// first entry of the log is applied here.
    #[must_use]
    pub fn presence(&self) -> Watch<Presence> {
        self.presence.clone()
    }

    /// Who sits where, who watches, and who is the witness.
    #[must_use]
    pub fn seats(&self) -> seats::SeatTable {
        lock(&self.node.replica).seats.clone()
    }
}
