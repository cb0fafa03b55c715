//! Who of a game is there: the members that have a place, and whether the process of each is in the
//! session and can be reached from here.
//!
//! Presence is what one node sees of its links, and decides nothing: a seat is lost by silence
//! towards whoever leads ([`AdmissionTiming`](super::AdmissionTiming)), a vote by an entry in the log.
//!
//! Invariants
//! - who has no place in the applied log is not in it, whoever is connected;
//! - a node is here only while its peer is connected and has spoken for this session, and has not
//!   closed it since.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::NodeId;
use crate::state::seats::{Place, SeatTable};

/// A member of a game.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attendee {
    /// Its place; `None` for a server, which votes and does not play.
    pub place: Option<Place>,
    /// Whether its process is in the session and can be reached from here.
    pub here: bool,
}

/// Who is in a game, and who of them is there, as one node sees it.
///
/// ```
/// # use std::sync::Arc;
/// # use cabinet_consensus::config::Timing;
/// # use cabinet_consensus::fabric::{MemoryFabric, Port};
/// # use cabinet_consensus::game::{Blueprint, Game, TurnInfo};
/// # use cabinet_consensus::ids::{GameId, Incarnation, PeerId};
/// # use cabinet_consensus::session::{
/// #     HostOptions, JoinOptions, PresenceChange, SessionConfig, TokioClock, game_host, game_join,
/// # };
/// # #[derive(Clone, Default)]
/// # struct Sum(u64);
/// # impl Game for Sum {
/// #     type Action = u64;
/// #     type Outcome = u64;
/// #     type Refusal = ();
/// #     fn apply(&mut self, _: &TurnInfo, add: &u64) -> Result<u64, ()> {
/// #         self.0 += add;
/// #         Ok(self.0)
/// #     }
/// # }
/// # fn config(nonce: u64) -> SessionConfig {
/// #     SessionConfig {
/// #         timing: Timing::fast(),
/// #         ..SessionConfig::new(Arc::new(TokioClock::default()), nonce)
/// #     }
/// # }
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// // Two rooms on the same connections: a room is a game's name.
/// let net = MemoryFabric::new();
/// let (ann, bob) = (net.join(PeerId::new("ann")?)?, net.join(PeerId::new("bob")?)?);
/// let room = |at, name| Ok::<_, Box<dyn std::error::Error>>(Port::open(at, GameId::new(name)?)?);
/// let blueprint = Blueprint::new(Sum::default);
/// let (host, player) = tokio::join!(
///     game_host(
///         room(ann.clone(), "red")?,
///         blueprint.clone(),
///         HostOptions::new(2, Incarnation(1)),
///         config(1),
///     ),
///     game_join(
///         room(bob.clone(), "red")?,
///         blueprint,
///         JoinOptions::new(Incarnation(1)),
///         config(2),
///     ),
/// );
/// let (host, player) = (host?, player?);
/// let bob = player.node().id().clone();
///
/// let mut presence = host.presence();
/// let both = presence.wait_for(|now| now.here().len() == 2).await?.clone();
/// player.close().await;
/// let one = presence.wait_for(|now| !now.is_here(&bob)).await?.clone();
/// // Bob's seat is his still: he closed, and did not leave.
/// assert_eq!(one.since(&both), [PresenceChange::Away(bob)]);
/// # host.close().await;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presence(BTreeMap<NodeId, Attendee>);

/// What is different between two moments.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresenceChange {
    /// It has a place in the game, and had none. Whether it is there is said apart.
    Joined(NodeId),
    /// It has no place any more: it left, was put out, or a later life of its peer has it.
    Left(NodeId),
    /// Its process is in the session, and can be reached from here.
    Here(NodeId),
    /// Its process closed the session or ended, or cannot be reached from here. Its place is its own
    /// still.
    Away(NodeId),
}

impl Presence {
    /// What `me` sees: who has a place by `seats`, with the nodes of this session that are `heard`.
    pub(super) fn new(seats: &SeatTable, heard: &BTreeSet<NodeId>, me: &NodeId) -> Self {
        let players = seats.players().cloned();
        let watching = seats.gallery.iter();
        let watching = watching.map(|(peer, life)| NodeId::new(peer.clone(), *life));
        let nodes = players.chain(watching).chain(seats.witness.clone());
        let attendee = |node: NodeId| {
            let place = seats.place_of(&node.peer).map(|(place, _)| place);
            let here = node == *me || heard.contains(&node);
            (node, Attendee { place, here })
        };
        Self(nodes.chain(seats.core.clone()).map(attendee).collect())
    }

    /// Every member, by name.
    pub fn members(&self) -> impl Iterator<Item = (&NodeId, Attendee)> {
        self.0.iter().map(|(node, attendee)| (node, *attendee))
    }

    /// A member; `None` when it is none.
    #[must_use]
    pub fn of(&self, node: &NodeId) -> Option<Attendee> {
        self.0.get(node).copied()
    }

    /// Whether a node is a member and there.
    #[must_use]
    pub fn is_here(&self, node: &NodeId) -> bool {
        self.of(node).is_some_and(|attendee| attendee.here)
    }

    /// The members that are there.
    #[must_use]
    pub fn here(&self) -> BTreeSet<NodeId> {
        let here = self.0.iter().filter(|(_, attendee)| attendee.here);
        here.map(|(node, _)| node.clone()).collect()
    }

    /// What changed since `before`, by name: who left, then who joined and who came and went.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<PresenceChange> {
        let gone = before.0.keys().filter(|node| !self.0.contains_key(*node));
        let mut changes: Vec<_> = gone.cloned().map(PresenceChange::Left).collect();
        for (node, attendee) in &self.0 {
            let known = before.of(node);
            if known.is_none() {
                changes.push(PresenceChange::Joined(node.clone()));
            }
            match (known.is_some_and(|known| known.here), attendee.here) {
                (false, true) => changes.push(PresenceChange::Here(node.clone())),
                (true, false) => changes.push(PresenceChange::Away(node.clone())),
                _ => {}
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Incarnation, PeerId};
    use crate::state::command::Kind;
    use crate::state::seats::Seat;

    fn node(name: &str, life: u64) -> NodeId {
        NodeId::new(PeerId::new(name).unwrap(), Incarnation(life))
    }

    fn table() -> SeatTable {
        let mut seats = SeatTable {
            seats: vec![Seat::default(); 2],
            spectators_max: 1,
            wants_witness: true,
            ..SeatTable::default()
        };
        for (name, kind) in [
            ("ann", Kind::Player),
            ("bob", Kind::Player),
            ("eve", Kind::Spectator),
            ("wit", Kind::Witness),
        ] {
            seats.take(&node(name, 1), kind).unwrap();
        }
        seats
    }

    #[test]
    fn everybody_with_a_place_is_in_it_and_nobody_else_whoever_is_heard() {
        let heard = [node("bob", 1), node("zoe", 1)].into();
        let now = Presence::new(&table(), &heard, &node("ann", 1));
        let told: Vec<_> = now
            .members()
            .map(|(node, a)| (node.peer.as_str(), a))
            .collect();
        let is = |place, here| Attendee {
            place: Some(place),
            here,
        };
        let wanted = [
            ("ann", is(Place::Seat(0), true)),
            ("bob", is(Place::Seat(1), true)),
            ("eve", is(Place::Gallery, false)),
            ("wit", is(Place::Witness, false)),
        ];
        assert_eq!(told, wanted);
        assert_eq!(now.here(), [node("ann", 1), node("bob", 1)].into());
        assert_eq!(now.of(&node("zoe", 1)), None);
    }

    #[test]
    fn another_life_of_a_member_is_another_member() {
        let heard = [node("bob", 2)].into();
        let mut seats = table();
        let before = Presence::new(&seats, &heard, &node("ann", 1));
        assert!(!before.is_here(&node("bob", 1)), "its later life is heard");
        seats.take(&node("bob", 2), Kind::Player).unwrap();
        let now = Presence::new(&seats, &heard, &node("ann", 1));
        let changes = [
            PresenceChange::Left(node("bob", 1)),
            PresenceChange::Joined(node("bob", 2)),
            PresenceChange::Here(node("bob", 2)),
        ];
        assert_eq!(now.since(&before), changes);
        assert_eq!(now.since(&now), []);
    }

    #[test]
    fn servers_are_there_without_a_place_and_who_goes_away_keeps_its_own() {
        let mut seats = table();
        seats.core = [node("s1", 0), node("s2", 0)].into();
        let me = node("s1", 0);
        let both = [node("s2", 0), node("bob", 1)].into();
        let before = Presence::new(&seats, &both, &me);
        let server = Attendee {
            place: None,
            here: true,
        };
        assert_eq!(before.of(&node("s2", 0)), Some(server));
        let now = Presence::new(&seats, &BTreeSet::new(), &me);
        let changes = [
            PresenceChange::Away(node("bob", 1)),
            PresenceChange::Away(node("s2", 0)),
        ];
        assert_eq!(now.since(&before), changes);
        assert_eq!(
            now.of(&node("bob", 1)).and_then(|a| a.place),
            Some(Place::Seat(1))
        );
    }
}
