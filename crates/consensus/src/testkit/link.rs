//! The connection of two processes, as each of them sees it.
//!
//! Invariants
//! - a process that is gone, or a link that is cut in either direction, is noticed after an idle
//!   time, by each end in its own; one that was cut for less is not noticed;
//! - a connection that one end has given up is none: the other hears of that as soon as it hears
//!   anything, or does not notice, where a new one takes its place;
//! - a process begins without connections, and gets one some time after its link is whole.
//!
//! Real transports give up a silent connection after seconds; here it is about as long as a member
//! may be silent before it is put out, so that either may come first.

use std::ops::Range;

use super::dice::Dice;

/// How long a silent connection is taken for one.
const IDLE_MS: Range<u64> = 60..700;
/// How long it takes to connect.
const CONNECTS_MS: Range<u64> = 1..80;
/// In how many of a thousand cases an end that has noticed nothing does not notice the new one.
const UNNOTICED: u64 = 500;

/// Whether frames get from each end of a link to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whole {
    Yes,
    /// No; and whether there is a process at each end.
    No([bool; 2]),
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Link {
    /// Whether each end takes the other for connected.
    sees: [bool; 2],
    /// When each end gives the other up.
    gives_up: [Option<u64>; 2],
    /// When there is a new connection.
    back: Option<u64>,
}

impl Link {
    pub(super) fn sees(&self, end: usize) -> bool {
        self.sees[end]
    }

    /// Another process is at this end.
    pub(super) fn begins_anew(&mut self, end: usize) {
        self.sees[end] = false;
        self.gives_up[end] = None;
        self.back = None;
    }

    /// A millisecond. Answers which ends see something else than before.
    pub(super) fn pass(&mut self, whole: Whole, now_ms: u64, dice: &mut Dice) -> [bool; 2] {
        let before = self.sees;
        match whole {
            Whole::No(there) => {
                self.back = None;
                for (end, is_there) in there.into_iter().enumerate() {
                    if !is_there {
                        self.sees[end] = false;
                        self.gives_up[end] = None;
                    } else if self.sees[end] {
                        let idle = || now_ms + dice.range(IDLE_MS.start, IDLE_MS.end);
                        let at = *self.gives_up[end].get_or_insert_with(idle);
                        self.sees[end] = now_ms < at;
                    }
                }
            }
            Whole::Yes if self.sees == [true, true] => self.gives_up = [None, None],
            Whole::Yes => match self.back {
                None => {
                    self.gives_up = [None, None];
                    for end in 0..2 {
                        self.sees[end] &= dice.permille(UNNOTICED);
                    }
                    self.back = Some(now_ms + dice.range(CONNECTS_MS.start, CONNECTS_MS.end));
                }
                Some(at) if at <= now_ms => (self.sees, self.back) = ([true, true], None),
                Some(_) => {}
            },
        }
        [before[0] != self.sees[0], before[1] != self.sees[1]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUT: Whole = Whole::No([true, true]);

    /// Lets milliseconds pass until `wanted` holds; answers how many it took.
    fn passes(link: &mut Link, whole: Whole, dice: &mut Dice, wanted: [bool; 2]) -> u64 {
        let passed = (1..=IDLE_MS.end).find(|now_ms| {
            link.pass(whole, *now_ms, dice);
            link.sees == wanted
        });
        passed.unwrap_or_else(|| panic!("{link:?} never is {wanted:?}"))
    }

    #[test]
    fn what_is_cut_for_long_is_seen_to_go_by_each_end_and_comes_back_when_it_is_healed() {
        for seed in 0..100 {
            let (mut link, mut dice) = (Link::default(), Dice::new(seed, 3));
            assert!(passes(&mut link, Whole::Yes, &mut dice, [true, true]) <= CONNECTS_MS.end + 1);
            assert!(passes(&mut link, CUT, &mut dice, [false, false]) > IDLE_MS.start);
            assert!(passes(&mut link, Whole::Yes, &mut dice, [true, true]) <= CONNECTS_MS.end + 1);
        }
    }

    #[test]
    fn what_is_cut_for_less_than_the_idle_time_is_not_noticed() {
        let (mut link, mut dice) = (Link::default(), Dice::new(7, 3));
        passes(&mut link, Whole::Yes, &mut dice, [true, true]);
        for now_ms in 1..IDLE_MS.start {
            assert_eq!(link.pass(CUT, now_ms, &mut dice), [false, false]);
        }
        assert_eq!(link.pass(Whole::Yes, 100, &mut dice), [false, false]);
        assert_eq!(link.gives_up, [None, None]);
    }

    #[test]
    fn another_process_is_connected_anew_whether_the_other_end_notices_or_not() {
        let mut noticed = [0, 0];
        for seed in 0..100 {
            let (mut link, mut dice) = (Link::default(), Dice::new(seed, 3));
            passes(&mut link, Whole::Yes, &mut dice, [true, true]);
            link.begins_anew(0);
            assert!(!link.sees(0));
            let [_, seen] = link.pass(Whole::Yes, 1000, &mut dice);
            noticed[usize::from(seen)] += 1;
            link.pass(Whole::Yes, 1000 + CONNECTS_MS.end, &mut dice);
            assert_eq!(link.sees, [true, true]);
        }
        assert!(noticed.iter().all(|times| *times > 20), "{noticed:?}");
    }
}
