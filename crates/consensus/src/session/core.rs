//! Votes on servers: a fixed core of them votes in the game, and players ride along as learners.
//!
//! A game lives as long as a majority of its core does, whoever of the players is there; no player
//! ever votes or leads. Every server calls [`game_server`] with the same [`CoreOptions`], every
//! player [`game_player`] with the same [`ServerCore`].
//!
//! Invariants
//! - the core is in the first entry of the log and in the session's id: another core is another
//!   session;
//! - a player hears only of servers: what any other peer says of the session is not believed.

use std::collections::BTreeSet;

use super::asking::Asking;
use super::bootstrap::{JoinError, JoinOptions};
use super::entering::Entering;
use super::identity::{self, LogIdentity, LogOwner};
use super::opening::{Founding, Hooks, Member, found, open, places_fit};
use super::{GameSession, OpenError, SessionConfig};
use crate::config;
use crate::fabric::Port;
use crate::game::{Blueprint, Game};
use crate::ids::{Incarnation, NodeId, PeerId, SessionId};
use crate::raft::lock;
use crate::state::command::{Configure, Kind};
use crate::state::seats::{self, Place};

/// Votes that cannot be placed like this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// Nobody would vote.
    #[error("a core has at least one server")]
    EmptyCore,
    /// More servers than may vote.
    #[error("a core has at most {max} servers, this one has {len}")]
    CoreTooLarge {
        /// Servers given.
        len: usize,
        /// Servers allowed.
        max: usize,
    },
    /// This peer is no server of the core.
    #[error("{0} is not in the core: it can only play, with game_player")]
    NotInCore(PeerId),
    /// This peer is a server of the core.
    #[error("{0} is in the core: it votes and does not play, with game_server")]
    InCore(PeerId),
}

/// The servers that vote, known to everybody beforehand. There is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCore(BTreeSet<PeerId>);

impl ServerCore {
    /// A core of these servers; 1, 3 or 5 is usual.
    ///
    /// # Errors
    ///
    /// [`PlacementError`] when there are none, or more than [`seats::SEATS_MAX`].
    pub fn new(servers: impl IntoIterator<Item = PeerId>) -> Result<Self, PlacementError> {
        let servers: BTreeSet<_> = servers.into_iter().collect();
        let (len, max) = (servers.len(), seats::SEATS_MAX as usize);
        if len == 0 {
            return Err(PlacementError::EmptyCore);
        }
        if len > max {
            return Err(PlacementError::CoreTooLarge { len, max });
        }
        Ok(Self(servers))
    }

    /// The servers.
    #[must_use]
    pub fn servers(&self) -> &BTreeSet<PeerId> {
        &self.0
    }

    fn nodes(&self) -> BTreeSet<NodeId> {
        let node = |peer: &PeerId| NodeId::new(peer.clone(), Incarnation(0));
        self.0.iter().map(node).collect()
    }

    fn session(&self, game: &str) -> SessionId {
        let mut text = format!("cabinet core\n{}:{game}\n", game.len());
        for server in &self.0 {
            let server = server.as_str();
            text.push_str(&format!("{}:{server}\n", server.len()));
        }
        SessionId::named(&text)
    }
}

/// What the servers decide for the whole game: the same on each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreOptions {
    /// The servers that vote.
    pub core: ServerCore,
    /// Players.
    pub seats: u32,
    /// How many may watch.
    pub spectators_max: u32,
}

/// Opens a game on a server of its core. Returns at once, before there is a leader. Whoever of the
/// core leads lets the players in, and whoever calls [`game_spectate`](super::game_spectate).
///
/// A server that lost its log must not come back this way: it would vote a second time in a term it
/// has voted in. Keep a durable log.
///
/// # Errors
///
/// [`OpenError`]; nothing keeps running then.
pub async fn game_server<G: Game>(
    port: Port,
    blueprint: Blueprint<G>,
    options: CoreOptions,
    config: SessionConfig,
) -> Result<GameSession<G>, OpenError> {
    serve(port, blueprint, options, config, Hooks::default()).await
}

/// [`game_server`], watched.
pub(crate) async fn serve<G: Game>(
    port: Port,
    blueprint: Blueprint<G>,
    options: CoreOptions,
    config: SessionConfig,
    hooks: Hooks,
) -> Result<GameSession<G>, OpenError> {
    config.validate(&blueprint)?;
    places_fit(options.seats as usize, options.spectators_max)?;
    let local = port.links.local().clone();
    if !options.core.servers().contains(&local) {
        return Err(PlacementError::NotInCore(local).into());
    }
    let session = options.core.session(port.links.game().as_str());
    let voters = options.core.nodes();
    let configure = Configure {
        seats: options.seats,
        spectators_max: options.spectators_max,
        core: voters.iter().map(Into::into).collect(),
        ..config.settings(port.links.game(), session)
    };
    let founding = Founding {
        kind: Kind::Witness,
        session,
        configure,
        voters,
    };
    found(port, blueprint, founding, config, hooks).await
}

/// Joins a game whose votes are on `core`, as a player without a vote, in the seat it had if it had
/// one. A player that lost its log takes a higher incarnation.
///
/// # Errors
///
/// [`JoinError`]; nothing keeps running then, and the game's name on the fabric is free again.
pub async fn game_player<G: Game>(
    port: Port,
    blueprint: Blueprint<G>,
    core: ServerCore,
    options: JoinOptions,
    config: SessionConfig,
) -> Result<GameSession<G>, JoinError> {
    ride(port, blueprint, core, options, config, Hooks::default()).await
}

/// [`game_player`], watched.
pub(crate) async fn ride<G: Game>(
    mut port: Port,
    blueprint: Blueprint<G>,
    core: ServerCore,
    options: JoinOptions,
    config: SessionConfig,
    hooks: Hooks,
) -> Result<GameSession<G>, JoinError> {
    config.validate(&blueprint)?;
    options.validate()?;
    let local = port.links.local().clone();
    if core.servers().contains(&local) {
        return Err(OpenError::from(PlacementError::InCore(local)).into());
    }
    let session = core.session(port.links.game().as_str());
    if options.session.is_some_and(|wanted| wanted != session) {
        return Err(JoinError::WrongSession { session });
    }
    let deadline = config::deadline(options.within);
    let timeout = || JoinError::Timeout(options.within);
    let me = NodeId::new(local, options.incarnation);
    let owner = LogOwner {
        node: me.clone(),
        game: port.links.game().clone(),
        session,
    };
    identity::is_own_or_new(&*config.log, &owner)?;
    let begins = !identity::look(&*config.log)?.begun;
    let asking = Asking {
        me: &me,
        kind: Kind::Player,
        needs_vote: false,
        begins,
        session: Some(session),
        hosts: core.servers().clone(),
        within: options.within,
    };
    let (_, dropped, mut wanted) = asking.of(&mut port, &config).await?;
    let identity = LogIdentity {
        owner,
        kind: Kind::Player,
        configure: Configure::default(),
        trusted: core.nodes(),
    };
    let observer = hooks.observer.clone();
    let member = Member { identity, hooks };
    let entering = Entering::new(open(port, blueprint, member, config).await?, observer);
    let game = entering.game();
    game.node.count_not_member(dropped);
    // It is in the game once it has applied the entry that seats it.
    let seated = async {
        let mut progress = game.node.feed.progress();
        let mut status = game.node.status();
        loop {
            let place = lock(&game.node.replica).seats.place_of(&me.peer);
            let seated = matches!(place, Some((Place::Seat(_), life)) if life == me.incarnation);
            {
                let status = status.borrow_and_update();
                if status.stopped.is_some() {
                    return false;
                }
                if seated && status.membership.learners.contains(&me) {
                    return true;
                }
            }
            tokio::select! {
                changed = progress.changed() => if changed.is_err() { return false },
                changed = status.changed() => if changed.is_err() { return false },
            }
        }
    };
    if !matches!(tokio::time::timeout_at(deadline, seated).await, Ok(true)) {
        entering.give_back().await;
        return Err(timeout());
    }
    wanted.had();
    Ok(entering.came_in())
}
