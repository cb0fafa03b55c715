//! A game of two with a witness: whose vote keeps it going while one of the two is away.

use super::dice::Dice;
use super::hosted::{Part, shuffle};
use super::machine::Wish;
use super::run::Run;
use crate::raft::Role;
use crate::state::command::Kind;

/// Peers of such a run: one hosts, one thinks it does, one more plays, one watches, and the witness.
pub(super) const PEERS: usize = 5;
pub(super) const SEATS: u32 = 2;

/// What is known of the game of a run.
#[derive(Debug, Default)]
pub(super) struct Duel {
    /// Who is away, and the latest entry there was when it went.
    alone_since: Option<(usize, u64)>,
}

/// Whether a seed's hosted game is one.
pub(super) fn is_one(seed: u64) -> bool {
    Dice::new(seed, 10).range(0, 4) == 1
}

/// The parts of a seed.
pub(super) fn cast(seed: u64) -> Vec<Part> {
    let mut dice = Dice::new(seed, 5);
    let part = |wish, begins_ms, is_second_host| Part {
        wish,
        begins_ms,
        is_second_host,
    };
    let mut parts = vec![
        part(Wish::Host, dice.range(0, 100), false),
        part(Wish::Host, dice.range(0, 2000), true),
        part(Wish::Join(Kind::Player), dice.range(0, 600), false),
        part(Wish::Join(Kind::Witness), dice.range(0, 900), false),
        part(Wish::Join(Kind::Spectator), dice.range(0, 2500), false),
    ];
    shuffle(&mut parts, &mut dice);
    parts
}

impl Run {
    /// A millisecond of a game of two: whether something was decided while one of them was away.
    pub(super) fn duels(&mut self) {
        let Some(mut duel) = self.duel.take() else {
            return;
        };
        let alone = self.plays_alone();
        let mut facts = self.world.facts();
        let latest = facts.latest();
        duel.alone_since = match (alone, duel.alone_since) {
            (Some(away), Some((known, since))) if away == known => {
                // What was told of now was written after.
                if since < u64::MAX && facts.acknowledged > since {
                    facts.counters.witnessed += 1;
                    Some((away, u64::MAX))
                } else {
                    Some((away, since))
                }
            }
            // Of what was under way some may have had two votes.
            (Some(away), _) => Some((away, latest + 8)),
            (None, _) => None,
        };
        drop(facts);
        self.duel = Some(duel);
    }

    /// The place of the player that is away, where the other and the witness vote with it.
    fn plays_alone(&self) -> Option<usize> {
        let leader = self.machines[self.leader()?].running.as_ref()?;
        let status = leader.session.node().status().get();
        let seats = leader.session.seats();
        let witness = seats.witness.as_ref()?;
        let voters = &status.membership.voters;
        let two: Vec<_> = seats.players().collect();
        let is_whole = status.role == Role::Leader
            && !status.membership.is_joint()
            && two.len() == 2
            && voters.len() == 3
            && voters.contains(witness);
        let is_away = |node: &&&crate::ids::NodeId| self.place_of(node).is_none();
        let away = two.iter().find(is_away).filter(|_| is_whole)?;
        self.names.iter().position(|name| *name == away.peer)
    }
}
