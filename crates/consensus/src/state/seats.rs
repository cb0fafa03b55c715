//! Who has a place in the game: the replicated table admission works from.
//!
//! Invariants
//! - a peer holds at most one place: a seat, a place to watch from, or the witness's;
//! - a seat given up by a peer that died is kept in its name until somebody else takes it, so the
//!   same player comes back to the same seat;
//! - of two lives of a peer the later one holds the place; an earlier one is refused.

use std::collections::{BTreeMap, BTreeSet};

use super::command::Kind;
use crate::ids::{Incarnation, NodeId, PeerId};

/// Most seats a game has.
pub const SEATS_MAX: u32 = 64;
/// Most nodes that vote whoever plays.
pub const CORE_MAX: u32 = 64;
/// Most spectators a game has.
pub const SPECTATORS_MAX: u32 = 128;

/// One seat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seat {
    /// Who sits here.
    pub holder: Option<NodeId>,
    /// Who sat here before and may come back to it.
    pub kept_for: Option<PeerId>,
}

/// A place in the game.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A seat, by number from 0.
    Seat(u32),
    /// To watch from.
    Gallery,
    /// A vote without a seat.
    Witness,
}

/// Why a peer gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoPlace {
    /// Every seat is taken.
    #[error("every seat is taken")]
    RosterFull,
    /// Nobody may watch, or the gallery is full.
    #[error("no more spectators are let in")]
    GalleryFull,
    /// There is a witness already, or the game wants none.
    #[error("the game takes no witness")]
    NoWitness,
    /// A later life of the same peer has the place.
    #[error("a later life of this peer is in the game")]
    Superseded,
    /// The game has no settings yet.
    #[error("the game is not open yet")]
    NotOpen,
}

/// Seats, spectators and the witness.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeatTable {
    /// The seats, by number.
    pub seats: Vec<Seat>,
    /// Who watches.
    pub gallery: BTreeMap<PeerId, Incarnation>,
    /// The voter that does not play.
    pub witness: Option<NodeId>,
    /// How many may watch.
    pub spectators_max: u32,
    /// Whether a witness is wanted.
    pub wants_witness: bool,
    /// Nodes that vote whoever plays. When there are some, players ride as learners.
    pub core: BTreeSet<NodeId>,
}

impl SeatTable {
    /// Gives `node` a place, or finds the one it has. A later life of a peer takes over its place.
    ///
    /// # Errors
    ///
    /// [`NoPlace`] when there is none for it. Nothing changed then: who had another place keeps it.
    pub(crate) fn take(&mut self, node: &NodeId, kind: Kind) -> Result<Place, NoPlace> {
        if let Some((place, held)) = self.place_of(&node.peer) {
            if held > node.incarnation {
                return Err(NoPlace::Superseded);
            }
            let same_kind = matches!(
                (place, kind),
                (Place::Seat(_), Kind::Player)
                    | (Place::Gallery, Kind::Spectator)
                    | (Place::Witness, Kind::Witness)
            );
            if same_kind {
                self.put(place, node);
                return Ok(place);
            }
            if held == node.incarnation {
                // One life of a peer is one thing; to be another it starts anew.
                return Ok(place);
            }
        }
        let place = match kind {
            Kind::Player => self.free_seat(&node.peer).ok_or(NoPlace::RosterFull)?,
            Kind::Spectator if self.gallery.len() < self.spectators_max as usize => Place::Gallery,
            Kind::Spectator => return Err(NoPlace::GalleryFull),
            Kind::Witness if self.wants_witness && self.witness.is_none() => Place::Witness,
            Kind::Witness => return Err(NoPlace::NoWitness),
        };
        // Only now: there is a new place for the old one. It is of another kind.
        self.remove(&node.peer, false);
        self.put(place, node);
        Ok(place)
    }

    /// The seat `peer` would get: the one kept for it, else one nobody had, else any free one.
    fn free_seat(&self, peer: &PeerId) -> Option<Place> {
        let free = |wanted: &dyn Fn(&Seat) -> bool| {
            self.seats
                .iter()
                .position(|seat| seat.holder.is_none() && wanted(seat))
                .map(|n| Place::Seat(n as u32))
        };
        free(&|seat| seat.kept_for.as_ref() == Some(peer))
            .or_else(|| free(&|seat| seat.kept_for.is_none()))
            .or_else(|| free(&|_| true))
    }

    fn put(&mut self, place: Place, node: &NodeId) {
        match place {
            Place::Seat(n) => {
                if let Some(seat) = self.seats.get_mut(n as usize) {
                    seat.holder = Some(node.clone());
                    seat.kept_for = Some(node.peer.clone());
                }
            }
            Place::Gallery => {
                self.gallery.insert(node.peer.clone(), node.incarnation);
            }
            Place::Witness => self.witness = Some(node.clone()),
        }
    }

    /// Takes the place of `node` away, if this very life of the peer holds it. Its seat is kept in
    /// its name unless it left for good. Answers whether anything changed.
    pub fn vacate(&mut self, node: &NodeId, left: bool) -> bool {
        match self.place_of(&node.peer) {
            Some((_, held)) if held == node.incarnation => {
                self.remove(&node.peer, left);
                true
            }
            _ => false,
        }
    }

    fn remove(&mut self, peer: &PeerId, left: bool) {
        for seat in &mut self.seats {
            if seat.holder.as_ref().is_some_and(|node| node.peer == *peer) {
                seat.holder = None;
                if left {
                    seat.kept_for = None;
                }
            }
        }
        self.gallery.remove(peer);
        if self.witness.as_ref().is_some_and(|node| node.peer == *peer) {
            self.witness = None;
        }
    }

    /// The place of a peer and the life that holds it.
    #[must_use]
    pub fn place_of(&self, peer: &PeerId) -> Option<(Place, Incarnation)> {
        if let Some((n, node)) = self
            .seats
            .iter()
            .enumerate()
            .filter_map(|(n, seat)| Some((n, seat.holder.as_ref()?)))
            .find(|(_, node)| node.peer == *peer)
        {
            return Some((Place::Seat(n as u32), node.incarnation));
        }
        if let Some(incarnation) = self.gallery.get(peer) {
            return Some((Place::Gallery, *incarnation));
        }
        let witness = self.witness.as_ref().filter(|node| node.peer == *peer)?;
        Some((Place::Witness, witness.incarnation))
    }

    /// The nodes that should vote.
    #[must_use]
    pub fn voters(&self) -> BTreeSet<NodeId> {
        if !self.core.is_empty() {
            return self.core.clone();
        }
        self.players()
            .chain(self.witness.as_ref())
            .cloned()
            .collect()
    }

    /// The nodes that should get the log without a vote.
    #[must_use]
    pub fn learners(&self) -> BTreeSet<NodeId> {
        let watching = self
            .gallery
            .iter()
            .map(|(peer, incarnation)| NodeId::new(peer.clone(), *incarnation));
        let riding = self.players().filter(|_| !self.core.is_empty()).cloned();
        let voters = self.voters();
        watching
            .chain(riding)
            .filter(|node| !voters.contains(node))
            .collect()
    }

    /// Who sits, seat by seat.
    pub fn players(&self) -> impl Iterator<Item = &NodeId> {
        self.seats.iter().filter_map(|seat| seat.holder.as_ref())
    }

    /// Seats nobody holds.
    #[must_use]
    pub fn free_seats(&self) -> usize {
        self.seats
            .iter()
            .filter(|seat| seat.holder.is_none())
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(peer: &str, life: u64) -> NodeId {
        NodeId::new(PeerId::new(peer).unwrap(), Incarnation(life))
    }

    fn table(seats: usize, spectators: u32) -> SeatTable {
        SeatTable {
            seats: vec![Seat::default(); seats],
            spectators_max: spectators,
            ..SeatTable::default()
        }
    }

    #[test]
    fn seats_fill_in_order_and_one_more_player_finds_none() {
        let mut table = table(2, 0);
        assert_eq!(
            table.take(&node("ann", 1), Kind::Player),
            Ok(Place::Seat(0))
        );
        assert_eq!(
            table.take(&node("bob", 1), Kind::Player),
            Ok(Place::Seat(1))
        );
        assert_eq!(
            table.take(&node("cyd", 1), Kind::Player),
            Err(NoPlace::RosterFull)
        );
        assert_eq!(
            table.take(&node("ann", 1), Kind::Player),
            Ok(Place::Seat(0))
        );
        assert_eq!(table.voters().len(), 2);
    }

    #[test]
    fn a_player_comes_back_to_the_seat_it_had() {
        let mut table = table(3, 0);
        for name in ["ann", "bob"] {
            table.take(&node(name, 1), Kind::Player).unwrap();
        }
        assert!(table.vacate(&node("ann", 1), false));
        assert_eq!(
            table.take(&node("cyd", 1), Kind::Player),
            Ok(Place::Seat(2))
        );
        assert_eq!(
            table.take(&node("ann", 2), Kind::Player),
            Ok(Place::Seat(0))
        );
    }

    #[test]
    fn a_seat_of_the_dead_goes_to_another_when_no_other_is_free() {
        let mut table = table(1, 0);
        table.take(&node("ann", 1), Kind::Player).unwrap();
        table.vacate(&node("ann", 1), false);
        assert_eq!(
            table.take(&node("bob", 1), Kind::Player),
            Ok(Place::Seat(0))
        );
        assert_eq!(
            table.take(&node("ann", 2), Kind::Player),
            Err(NoPlace::RosterFull)
        );
    }

    #[test]
    fn a_later_life_takes_over_and_an_earlier_one_is_refused() {
        let mut table = table(1, 0);
        table.take(&node("ann", 5), Kind::Player).unwrap();
        assert_eq!(
            table.take(&node("ann", 6), Kind::Player),
            Ok(Place::Seat(0))
        );
        assert_eq!(
            table.take(&node("ann", 5), Kind::Player),
            Err(NoPlace::Superseded)
        );
        assert!(
            !table.vacate(&node("ann", 5), true),
            "not its place any more"
        );
        assert_eq!(table.voters(), [node("ann", 6)].into());
    }

    #[test]
    fn who_finds_no_place_of_another_kind_keeps_the_one_it_has() {
        let mut table = table(1, 1);
        table.take(&node("ann", 1), Kind::Player).unwrap();
        table.take(&node("eve", 1), Kind::Spectator).unwrap();
        let before = table.clone();
        for (again, kind, why) in [
            (node("eve", 2), Kind::Player, NoPlace::RosterFull),
            (node("ann", 2), Kind::Spectator, NoPlace::GalleryFull),
            (node("ann", 2), Kind::Witness, NoPlace::NoWitness),
        ] {
            assert_eq!(table.take(&again, kind), Err(why));
            assert_eq!(table, before);
        }
        // With a place for it, the old one is given up.
        table.spectators_max = 2;
        assert_eq!(
            table.take(&node("ann", 2), Kind::Spectator),
            Ok(Place::Gallery)
        );
        assert_eq!(table.free_seats(), 1);
    }

    #[test]
    fn the_gallery_takes_its_limit_and_one_more_is_refused() {
        let mut table = table(1, 1);
        assert_eq!(
            table.take(&node("eve", 1), Kind::Spectator),
            Ok(Place::Gallery)
        );
        assert_eq!(
            table.take(&node("fay", 1), Kind::Spectator),
            Err(NoPlace::GalleryFull)
        );
        assert_eq!(table.learners(), [node("eve", 1)].into());
    }

    #[test]
    fn a_witness_votes_without_a_seat_and_there_is_one() {
        let mut table = table(2, 0);
        assert_eq!(
            table.take(&node("srv", 1), Kind::Witness),
            Err(NoPlace::NoWitness)
        );
        table.wants_witness = true;
        assert_eq!(
            table.take(&node("srv", 1), Kind::Witness),
            Ok(Place::Witness)
        );
        assert_eq!(
            table.take(&node("two", 1), Kind::Witness),
            Err(NoPlace::NoWitness)
        );
        assert!(table.voters().contains(&node("srv", 1)));
        assert_eq!(table.free_seats(), 2);
    }

    #[test]
    fn with_a_core_the_servers_vote_and_players_ride() {
        let mut table = table(2, 0);
        table.core = [node("s1", 0), node("s2", 0)].into();
        table.take(&node("ann", 1), Kind::Player).unwrap();
        assert_eq!(table.voters(), table.core);
        assert_eq!(table.learners(), [node("ann", 1)].into());
    }
}
