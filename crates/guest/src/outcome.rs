//! Results: who did how well.

use cabinet_wire::Status;

use crate::roster::PlayerId;

/// The rankings of a round or of the whole room, for [`Room::post`](crate::Room::post) and
/// [`Room::end`](crate::Room::end).
///
/// ```
/// use cabinet_guest::{Outcome, PlayerId};
/// # fn example(ada: PlayerId, bob: PlayerId) {
/// let outcome = Outcome::new().finished(ada, 300).finished(bob, 120).ranked_high_to_low();
/// assert_eq!(outcome.standings().map(|standing| standing.rank).collect::<Vec<_>>(), [1, 2]);
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    standings: Vec<Standing>,
}

/// One player's part of an [`Outcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Who.
    pub player: PlayerId,
    /// The number the leaderboard compares, in the metric's unit (tenths for a decimal metric,
    /// seconds for a duration).
    pub metric: i64,
    /// Place, from 1; equal places for a tie. 0 is unranked.
    pub rank: u16,
    /// How the player came to this result.
    pub status: Status,
}

/// What became of an [`Outcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The host has all of it.
    Complete,
    /// The host has it without so many standings, whose players had left.
    ///
    /// The ABI names players by seat, so a player without one cannot be named. The host itself
    /// credits everybody who was ever in the room and is not in the final result with a "did not
    /// finish".
    Partial(usize),
    /// The host has nothing of it, for it had no memory to take it. After an
    /// [`end`](crate::Room::end) the room goes on: end it again in a later callback.
    Dropped,
    /// Not sent: the room has ended with an earlier one.
    AlreadyEnded,
}

impl Outcome {
    /// Nobody.
    pub const fn new() -> Outcome {
        Outcome {
            standings: Vec::new(),
        }
    }

    /// Adds a player who finished. A second standing of a player replaces the first.
    #[must_use]
    pub fn finished(self, player: PlayerId, metric: i64) -> Outcome {
        self.with(Standing {
            player,
            metric,
            rank: 0,
            status: Status::Finished,
        })
    }

    /// Adds a player who did not finish.
    #[must_use]
    pub fn did_not_finish(self, player: PlayerId, metric: i64) -> Outcome {
        self.with(Standing {
            player,
            metric,
            rank: 0,
            status: Status::Dnf,
        })
    }

    /// Adds any standing.
    #[must_use]
    pub fn with(mut self, standing: Standing) -> Outcome {
        self.set(standing);
        self
    }

    /// Adds any standing, in place; the first one of the player is replaced.
    pub fn set(&mut self, standing: Standing) {
        match self
            .standings
            .iter_mut()
            .find(|other| other.player == standing.player)
        {
            Some(other) => *other = standing,
            None => self.standings.push(standing),
        }
    }

    /// Removes everybody and keeps the memory.
    pub fn clear(&mut self) {
        self.standings.clear();
    }

    /// Orders by metric, highest first, and gives places: 1, 2, 2, 4. Those who did not finish come
    /// after those who did.
    #[must_use]
    pub fn ranked_high_to_low(self) -> Outcome {
        self.ranked(core::cmp::Reverse)
    }

    /// Orders by metric, lowest first, and gives places: 1, 2, 2, 4. Those who did not finish come
    /// after those who did.
    #[must_use]
    pub fn ranked_low_to_high(self) -> Outcome {
        self.ranked(|metric| metric)
    }

    /// The standings, in order.
    pub fn standings(&self) -> impl Iterator<Item = &Standing> {
        self.standings.iter()
    }

    fn ranked<K: Ord>(mut self, key: impl Fn(i64) -> K) -> Outcome {
        let order =
            |standing: &Standing| (standing.status != Status::Finished, key(standing.metric));
        // Insertion sort: stable, and a tenth of the code of the library's.
        for end in 1..self.standings.len() {
            let mut at = end;
            while at > 0 && order(&self.standings[at]) < order(&self.standings[at - 1]) {
                self.standings.swap(at, at - 1);
                at -= 1;
            }
        }
        let mut rank = 0;
        for index in 0..self.standings.len() {
            let tied =
                index > 0 && order(&self.standings[index - 1]) == order(&self.standings[index]);
            if !tied {
                rank = u16::try_from(index + 1).unwrap_or(u16::MAX);
            }
            self.standings[index].rank = rank;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids<const N: usize>() -> [PlayerId; N] {
        core::array::from_fn(|index| PlayerId::nth(index as u64))
    }

    fn places(outcome: &Outcome) -> Vec<(PlayerId, u16)> {
        outcome
            .standings()
            .map(|standing| (standing.player, standing.rank))
            .collect()
    }

    #[test]
    fn ties_share_a_place_and_the_next_one_is_skipped() {
        let [a, b, c, d] = ids();
        let outcome = Outcome::new()
            .finished(a, 5)
            .finished(b, 9)
            .finished(c, 5)
            .finished(d, 1);
        assert_eq!(
            places(&outcome.ranked_high_to_low()),
            [(b, 1), (a, 2), (c, 2), (d, 4)]
        );
    }

    #[test]
    fn who_did_not_finish_ranks_after_who_did() {
        let [a, b] = ids();
        let outcome = Outcome::new().did_not_finish(a, 1).finished(b, 90);
        assert_eq!(places(&outcome.ranked_low_to_high()), [(b, 1), (a, 2)]);
    }

    #[test]
    fn a_second_standing_replaces_the_first() {
        let [a] = ids();
        let outcome = Outcome::new().finished(a, 1).did_not_finish(a, 2);
        assert_eq!(
            outcome.standings().map(|s| s.metric).collect::<Vec<_>>(),
            [2]
        );
    }
}
