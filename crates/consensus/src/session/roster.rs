//! A game whose players are all known beforehand.

use std::collections::BTreeSet;

use super::opening::{Founding, Hooks, found};
use super::{GameSession, OpenError, SessionConfig};
use crate::fabric::Port;
use crate::game::{Blueprint, Game};
use crate::ids::{Incarnation, NodeId, PeerId, SessionId};
use crate::state::command::{Configure, Kind};
use crate::state::seats;

/// Opens a game whose players are all known: every one of them passes the same `roster`, and any
/// majority of it plays. Returns at once, before there is a leader.
///
/// A voter that lost its log must not come back this way: it would vote a second time in a term it
/// has voted in. Keep a durable log, or give the player another name. Nothing can stop it in time: it
/// begins as the first voters did, who had nobody to ask. A leader that it answered in the same term
/// takes its answers for none ([`DroppedFrames::malformed`](crate::session::DroppedFrames::malformed)
/// counts them there), so it counts as unreachable and applies nothing; the next leader knows nothing
/// of that.
///
/// # Errors
///
/// [`OpenError`]; nothing keeps running then.
///
/// # Panics
///
/// When it is polled outside a tokio runtime that has its timer on.
pub async fn game_node<G: Game>(
    port: Port,
    blueprint: Blueprint<G>,
    roster: BTreeSet<PeerId>,
    config: SessionConfig,
) -> Result<GameSession<G>, OpenError> {
    game_node_with(port, blueprint, roster, config, Hooks::default()).await
}

/// [`game_node`], watched.
pub(crate) async fn game_node_with<G: Game>(
    port: Port,
    blueprint: Blueprint<G>,
    roster: BTreeSet<PeerId>,
    config: SessionConfig,
    hooks: Hooks,
) -> Result<GameSession<G>, OpenError> {
    config.validate(&blueprint)?;
    let (len, max) = (roster.len(), seats::SEATS_MAX as usize);
    if len == 0 || len > max {
        return Err(OpenError::Roster { len, max });
    }
    let local = port.links.local().clone();
    if !roster.contains(&local) {
        return Err(OpenError::NotInRoster(local));
    }
    let voters: BTreeSet<NodeId> = roster
        .into_iter()
        .map(|peer| NodeId::new(peer, Incarnation(0)))
        .collect();
    let session = roster_session(port.links.game().as_str(), &voters);
    let configure = Configure {
        seats: u32::try_from(voters.len()).unwrap_or(seats::SEATS_MAX),
        seated: voters.iter().map(Into::into).collect(),
        ..config.settings(port.links.game(), session)
    };
    let founding = Founding {
        kind: Kind::Player,
        session,
        configure,
        voters,
    };
    found(port, blueprint, founding, config, hooks).await
}

/// The session every peer with the same game and roster is in.
fn roster_session(game: &str, voters: &BTreeSet<NodeId>) -> SessionId {
    let mut text = format!("cabinet roster\n{}:{game}\n", game.len());
    for voter in voters {
        let peer = voter.peer.as_str();
        text.push_str(&format!("{}:{peer}\n", peer.len()));
    }
    SessionId::named(&text)
}
