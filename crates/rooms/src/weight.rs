//! What is known of a game's callbacks: whether its next room had better begin in the heavy lane.
//!
//! A room is found heavy only once it has overstayed, and several of them that overstay at once
//! take the cores from each other and die of their deadlines. So a game remembers.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::sched::{Lane, OVERRUN};

/// Callbacks in a row, of all rooms of the game, after which it is light again.
const CALM_CALLBACKS: u32 = 1_024;

/// One game's weight. Light at first.
#[derive(Debug, Default)]
pub(crate) struct Weight {
    heavy: AtomicBool,
    calm: AtomicU32,
}

impl Weight {
    /// A callback took so long, waits left out. Races between rooms lose a count at most.
    pub(crate) fn note(&self, took: Duration) {
        if took > OVERRUN {
            self.calm.store(0, Ordering::Relaxed);
            self.heavy.store(true, Ordering::Relaxed);
        } else if self.heavy.load(Ordering::Relaxed)
            && self.calm.fetch_add(1, Ordering::Relaxed) + 1 >= CALM_CALLBACKS
        {
            self.heavy.store(false, Ordering::Relaxed);
        }
    }

    /// Where a new room begins.
    pub(crate) fn lane(&self) -> Lane {
        if self.heavy.load(Ordering::Relaxed) {
            Lane::Heavy
        } else {
            Lane::Light
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_game_is_heavy_from_its_first_long_callback_until_it_has_been_calm() {
        let weight = Weight::default();
        weight.note(OVERRUN);
        assert_eq!(weight.lane(), Lane::Light);
        weight.note(OVERRUN + Duration::from_nanos(1));
        for _ in 1..CALM_CALLBACKS {
            weight.note(OVERRUN);
            assert_eq!(weight.lane(), Lane::Heavy);
        }
        weight.note(Duration::ZERO);
        assert_eq!(weight.lane(), Lane::Light);
        weight.note(Duration::MAX);
        assert_eq!(weight.lane(), Lane::Heavy);
    }
}
