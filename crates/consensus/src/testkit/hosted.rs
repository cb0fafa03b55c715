//! Who wants what in a game that is hosted, and when it is well.

use std::collections::BTreeSet;

use super::dice::Dice;
use super::duel;
use super::machine::{GALLERY, Machine, Wish};
use super::run::Run;
use crate::ids::{NodeId, PeerId};
use crate::raft::{Membership, Role};
use crate::state::command::Kind;

/// Peers around a hosted game: one hosts, one thinks it does, three more play, and two watch, where
/// there are seats for three and room for one to watch.
pub(super) const PEERS: usize = 7;

/// Of them, where servers vote: as many servers, players for all the seats, and one who watches.
const SERVERS: usize = 3;

/// Whether servers vote in a seed's game.
pub(super) fn is_served(seed: u64) -> bool {
    Dice::new(seed, 10).range(0, 4) == 0
}

/// One peer's part.
pub(super) struct Part {
    pub wish: Wish,
    pub begins_ms: u64,
    /// Whether it hosts beside the first: it must find that out.
    pub is_second_host: bool,
}

/// The parts of a seed, one per place: any name may host.
pub(super) fn cast(seed: u64) -> Vec<Part> {
    let mut dice = Dice::new(seed, 5);
    let mut parts = Vec::new();
    let mut part = |wish, begins_ms, is_second_host| {
        parts.push(Part {
            wish,
            begins_ms,
            is_second_host,
        });
    };
    if duel::is_one(seed) {
        return duel::cast(seed);
    }
    if is_served(seed) {
        for _ in 0..SERVERS {
            part(Wish::Serve, dice.range(0, 200), false);
        }
        for latest in [300, 900, 2000] {
            part(Wish::Ride, dice.range(0, latest), false);
        }
        part(Wish::Join(Kind::Spectator), dice.range(0, 1200), false);
        shuffle(&mut parts, &mut dice);
        return parts;
    }
    part(Wish::Host, dice.range(0, 100), false);
    // Beside the first host's claim, or some time after it.
    let second = match dice.range(0, 3) {
        0 => dice.range(0, 600),
        _ => dice.range(600, 3000),
    };
    part(Wish::Host, second, true);
    for latest in [600, 1000, 2500] {
        part(Wish::Join(Kind::Player), dice.range(0, latest), false);
    }
    for latest in [1200, 2500] {
        part(Wish::Join(Kind::Spectator), dice.range(0, latest), false);
    }
    shuffle(&mut parts, &mut dice);
    parts
}

pub(super) fn shuffle(parts: &mut [Part], dice: &mut Dice) {
    for n in (1..parts.len()).rev() {
        parts.swap(n, dice.range(0, n as u64 + 1) as usize);
    }
}

/// What whoever leads says of its members, and of who should be.
struct Led {
    members: Membership,
    /// Whether no change of them is under way.
    settled: bool,
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    /// Who sits.
    players: BTreeSet<NodeId>,
    /// Places nobody holds.
    free: usize,
}

impl Run {
    fn led(&self) -> Option<Led> {
        let leader = self.machines[self.leader()?].running.as_ref()?;
        let status = leader.session.node().status().get();
        let seats = leader.session.seats();
        let settled = status.role == Role::Leader
            && status.membership_committed
            && !status.membership.is_joint();
        let free = seats.free_seats()
            + (GALLERY as usize - seats.gallery.len())
            + usize::from(seats.wants_witness && seats.witness.is_none());
        Some(Led {
            members: (*status.membership).clone(),
            settled,
            voters: seats.voters(),
            learners: seats.learners(),
            players: seats.players().cloned().collect(),
            free,
        })
    }

    /// How every node that is in the game sees it.
    fn views(&self) -> String {
        let view = |machine: &Machine| {
            let node = machine.running.as_ref()?.session.node();
            let status = node.status().get();
            let (me, role, term) = (node.id(), status.role, status.term);
            Some(format!(
                "{me} is {role:?} in {term} of {:?}",
                status.membership
            ))
        };
        let views: Vec<String> = self.machines.iter().filter_map(view).collect();
        views.join("; ")
    }

    /// The place of a life that is in the game now.
    pub(super) fn place_of(&self, node: &NodeId) -> Option<usize> {
        (0..self.machines.len()).find(|place| {
            let running = self.machines[*place].running.as_ref();
            running.is_some_and(|running| running.session.node().id() == node)
        })
    }

    /// Why the lobby is not what it should be; `None` when it is.
    pub(super) fn lobby_unwell(&self) -> Option<String> {
        let Some(led) = self.led() else {
            return Some(format!("nobody leads: {}", self.views()));
        };
        let Led {
            members,
            settled,
            voters,
            learners,
            free,
            ..
        } = led;
        let lives = members
            .voters
            .iter()
            .chain(&members.learners)
            .all(|node| self.place_of(node).is_some());
        let well = settled
            && free
                == self
                    .machines
                    .iter()
                    .filter(|machine| machine.for_good)
                    .count()
            && members.voters == voters
            && members.learners == learners
            && lives;
        (!well).then(|| {
            format!(
                "members {members:?}, settled {settled}, all alive {lives}; {voters:?} should vote \
                 and {learners:?} watch, {free} places are free"
            )
        })
    }

    /// The places of everybody who plays now.
    pub(super) fn players(&self) -> BTreeSet<usize> {
        let Some(Led { players, .. }) = self.led() else {
            return BTreeSet::new();
        };
        players
            .iter()
            .filter_map(|node| self.place_of(node))
            .collect()
    }

    /// The places of everybody who gets the log.
    pub(super) fn listeners(&self) -> BTreeSet<usize> {
        let Some(Led { members, .. }) = self.led() else {
            return BTreeSet::new();
        };
        let nodes = members.voters.iter().chain(&members.learners);
        nodes.filter_map(|node| self.place_of(node)).collect()
    }

    /// The life that is, or will be, at a place.
    pub(super) fn life(&self, place: usize) -> Option<NodeId> {
        let peer: &PeerId = self.names.get(place)?;
        let incarnation = self.machines[place].incarnation;
        Some(NodeId::new(
            peer.clone(),
            crate::ids::Incarnation(incarnation),
        ))
    }
}
