//! Random scripts: the same seed gives the same script, everywhere.

use std::time::Duration;

use cabinet_wire::Key;

use crate::script::{Script, Step};

/// Seats a random script uses at most.
const SEATS_MAX: u16 = 4;
/// What players type besides a game's own keys.
const RUNES: &[char] = &[
    ' ', 'a', 'd', 's', 'w', 'h', 'j', 'k', 'l', 'q', 'y', 'n', '1', '2', '9', 'é', '中',
];
const KEYS: &[Key] = &[
    Key::Enter,
    Key::Backspace,
    Key::Esc,
    Key::Tab,
    Key::Up,
    Key::Down,
    Key::Left,
    Key::Right,
];

/// A script of `steps` steps and no setup for a game of up to `max_players`: people come, go, type
/// `runes` and other things, time passes, and the room is saved now and then.
#[must_use]
pub fn script(seed: u64, max_players: u16, runes: &[char], steps: usize) -> Script {
    let mut dice = Dice(seed);
    let seats = max_players.clamp(1, SEATS_MAX);
    let mut seated = vec![0];
    let mut script = Script::default();
    script.steps.push(Step::Join { seat: 0 });
    while script.steps.len() < steps.max(1) {
        let step = match dice.below(24) {
            0 => {
                let seat = dice.below(u64::from(seats)) as u16;
                if seated.contains(&seat) {
                    seated.retain(|other| *other != seat);
                    Step::Leave { seat }
                } else {
                    seated.push(seat);
                    Step::Join { seat }
                }
            }
            1..=2 => match (0..seats).find(|seat| !seated.contains(seat)) {
                Some(seat) => {
                    seated.push(seat);
                    Step::Join { seat }
                }
                None => wake(&mut dice),
            },
            3 => Step::Snapshot,
            4 => Step::Advance {
                by: Duration::from_millis(1 + dice.below(5_000)),
            },
            5..=10 => wake(&mut dice),
            other => match seated.get(dice.below(seated.len().max(1) as u64) as usize) {
                None => wake(&mut dice),
                Some(&seat) if other < 15 => Step::Key {
                    seat,
                    key: *dice.of(KEYS, &Key::Enter),
                },
                Some(&seat) if other < 20 && !runes.is_empty() => Step::Input {
                    seat,
                    rune: *dice.of(runes, &' '),
                },
                Some(&seat) => Step::Input {
                    seat,
                    rune: *dice.of(RUNES, &' '),
                },
            },
        };
        script.steps.push(step);
    }
    script
}

fn wake(dice: &mut Dice) -> Step {
    let ticks = if dice.below(8) == 0 {
        dice.below(40)
    } else {
        1
    };
    Step::Wake {
        after: Duration::from_millis(50 * ticks),
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    fn of<'a, T>(&mut self, all: &'a [T], or: &'a T) -> &'a T {
        all.get(self.below(all.len() as u64) as usize).unwrap_or(or)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_script_and_another_seed_is_another() {
        assert_eq!(script(7, 2, &['x'], 40), script(7, 2, &['x'], 40));
        assert_ne!(script(7, 2, &['x'], 40), script(8, 2, &['x'], 40));
    }

    #[test]
    fn every_random_script_reads_back_and_stays_within_the_games_seats() {
        for seed in 0..200 {
            let max_players = (seed % 6) as u16;
            let random = script(seed, max_players, &['x', '#'], 48);
            assert_eq!(random.steps.len(), 48);
            assert_eq!(
                Script::parse(&random.to_string()).unwrap(),
                random,
                "seed {seed}"
            );
            let seats = max_players.clamp(1, SEATS_MAX);
            let fits = random.steps.iter().all(|step| match step {
                Step::Join { seat } | Step::Leave { seat } => *seat < seats,
                _ => true,
            });
            assert!(fits, "seed {seed}");
        }
    }
}
