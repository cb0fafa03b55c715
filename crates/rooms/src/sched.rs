//! Which room runs next: the deciding half of the runtime, without a thread or a clock.
//!
//! A room is idle, queued or running. It is queued when it was poked (somebody wants something of
//! it) or when the time it asked for has come, and runs one callback per turn, so rooms share the
//! threads callback by callback.
//!
//! Two lanes. A callback that overstays [`OVERRUN`] makes its room heavy: heavy rooms have threads
//! of their own, fewer than cores, so whatever they burn, somebody is left to serve the others. A
//! room is light again after [`CALM_TURNS`] short callbacks.
//!
//! Invariants
//! - a room is in at most one queue, at most once, and never while it runs;
//! - a poke during a callback is not lost: the room is queued again when it ends;
//! - only the last timer a room asked for counts.

use std::collections::VecDeque;
use std::time::Duration;

use crate::wheel::Wheel;

/// A callback longer than this makes its room heavy.
pub(crate) const OVERRUN: Duration = Duration::from_millis(4);
/// A callback at most this long is a short one.
const SHORT: Duration = Duration::from_millis(1);
/// Short callbacks in a row after which a heavy room is light. Doubles each time it is heavy again,
/// up to the most.
const CALM_TURNS: u32 = 64;
const CALM_TURNS_MAX: u32 = 4_096;

/// Which threads a room runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Light,
    Heavy,
}

/// Names a room of a [`Sched`] as long as it is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

/// How a turn went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ran {
    /// How long it took, waits for stores left out.
    pub(crate) took: Duration,
    /// There is more to do at once.
    pub(crate) more: bool,
    /// When the room wants to run again.
    pub(crate) next: Option<Duration>,
    /// The room is gone.
    pub(crate) gone: bool,
}

/// Rooms, each carrying a `T`.
#[derive(Debug)]
pub(crate) struct Sched<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    light: VecDeque<Key>,
    heavy: VecDeque<Key>,
    wheel: Wheel<(Key, u32)>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    item: Option<T>,
    state: State,
    /// Poked while it ran.
    again: bool,
    lane: Lane,
    calm: u32,
    /// Short turns it takes to be light again.
    calm_wanted: u32,
    /// Counts timers asked for.
    timer: u32,
    /// The time of the last, while it is set.
    armed: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Queued,
    Running,
}

impl<T: Clone> Sched<T> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            light: VecDeque::new(),
            heavy: VecDeque::new(),
            wheel: Wheel::new(),
        }
    }

    /// Adds an idle room that begins in this lane.
    pub(crate) fn insert(&mut self, item: T, lane: Lane) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                item: None,
                state: State::Idle,
                again: false,
                lane: Lane::Light,
                calm: 0,
                calm_wanted: CALM_TURNS,
                timer: 0,
                armed: None,
            });
            // As many rooms do not fit a machine's memory.
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.item = Some(item);
        slot.lane = lane;
        slot.calm_wanted = CALM_TURNS;
        Key {
            index,
            generation: slot.generation,
        }
    }

    /// Queues the room, or makes it run again when it runs now. `true`: it was queued.
    pub(crate) fn poke(&mut self, key: Key) -> bool {
        let Some(slot) = self.slot(key) else {
            return false;
        };
        match slot.state {
            State::Idle => {
                self.enqueue(key);
                true
            }
            State::Queued => false,
            State::Running => {
                slot.again = true;
                false
            }
        }
    }

    /// Queues every room whose time has come.
    pub(crate) fn advance(&mut self, now: Duration) {
        let Self {
            wheel,
            slots,
            light,
            heavy,
            ..
        } = self;
        wheel.advance(now, |(key, timer)| {
            let slot = &mut slots[key.index as usize];
            if slot.generation != key.generation || slot.timer != timer {
                return;
            }
            slot.armed = None;
            match slot.state {
                State::Idle => {
                    slot.state = State::Queued;
                    match slot.lane {
                        Lane::Light => light.push_back(key),
                        Lane::Heavy => heavy.push_back(key),
                    }
                }
                State::Queued => {}
                State::Running => slot.again = true,
            }
        });
    }

    /// When [`Sched::advance`] may have something to do.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.wheel.next()
    }

    /// Queued rooms of a lane.
    pub(crate) fn queued(&self, lane: Lane) -> usize {
        match lane {
            Lane::Light => self.light.len(),
            Lane::Heavy => self.heavy.len(),
        }
    }

    /// The room whose turn it is; it runs until [`Sched::finish`].
    pub(crate) fn take(&mut self, lane: Lane) -> Option<(Key, T)> {
        let key = match lane {
            Lane::Light => self.light.pop_front(),
            Lane::Heavy => self.heavy.pop_front(),
        }?;
        let slot = self.slot(key)?;
        slot.state = State::Running;
        let item = slot.item.clone()?;
        Some((key, item))
    }

    /// The room runs longer than a light one may.
    pub(crate) fn overran(&mut self, key: Key) {
        if let Some(slot) = self.slot(key) {
            slot.lane = Lane::Heavy;
            slot.calm = 0;
        }
    }

    /// A turn is over. What a room that is gone carried is returned, to be dropped where nothing is
    /// locked.
    pub(crate) fn finish(&mut self, key: Key, ran: Ran) -> Option<T> {
        let slot = self.slot(key)?;
        slot.state = State::Idle;
        if ran.gone {
            slot.generation = slot.generation.wrapping_add(1);
            let item = slot.item.take();
            slot.again = false;
            slot.calm = 0;
            slot.armed = None;
            self.free.push(key.index);
            return item;
        }
        if ran.took > OVERRUN {
            slot.lane = Lane::Heavy;
            slot.calm = 0;
        } else if slot.lane == Lane::Heavy {
            slot.calm = if ran.took <= SHORT { slot.calm + 1 } else { 0 };
            if slot.calm >= slot.calm_wanted {
                slot.lane = Lane::Light;
                slot.calm_wanted = (slot.calm_wanted * 2).min(CALM_TURNS_MAX);
            }
        }
        let again = std::mem::take(&mut slot.again);
        if slot.armed != ran.next {
            slot.armed = ran.next;
            slot.timer = slot.timer.wrapping_add(1);
            let timer = slot.timer;
            if let Some(at) = ran.next {
                self.wheel.insert(at, (key, timer));
            }
        }
        if ran.more || again {
            self.enqueue(key);
        }
        None
    }

    /// Rooms in all.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn enqueue(&mut self, key: Key) {
        let slot = &mut self.slots[key.index as usize];
        slot.state = State::Queued;
        match slot.lane {
            Lane::Light => self.light.push_back(key),
            Lane::Heavy => self.heavy.push_back(key),
        }
    }

    fn slot(&mut self, key: Key) -> Option<&mut Slot<T>> {
        self.slots
            .get_mut(key.index as usize)
            .filter(|slot| slot.generation == key.generation && slot.item.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    const NOTHING: Ran = Ran {
        took: Duration::ZERO,
        more: false,
        next: None,
        gone: false,
    };

    fn taken(sched: &mut Sched<char>, lane: Lane) -> Vec<char> {
        std::iter::from_fn(|| sched.take(lane).map(|(_, item)| item)).collect()
    }

    #[test]
    fn rooms_take_turns_and_a_poke_counts_once() {
        let mut sched = Sched::new();
        let a = sched.insert('a', Lane::Light);
        let b = sched.insert('b', Lane::Light);
        assert!(sched.poke(a));
        assert!(sched.poke(b));
        assert!(!sched.poke(a));
        assert_eq!(taken(&mut sched, Lane::Light), ['a', 'b']);
    }

    #[test]
    fn a_poke_during_a_turn_is_not_lost() {
        let mut sched = Sched::new();
        let a = sched.insert('a', Lane::Light);
        sched.poke(a);
        sched.take(Lane::Light).unwrap();
        assert!(!sched.poke(a));
        assert_eq!(sched.queued(Lane::Light), 0);
        sched.finish(a, NOTHING);
        assert_eq!(taken(&mut sched, Lane::Light), ['a']);
    }

    #[test]
    fn a_room_that_always_has_more_to_do_waits_its_turn() {
        let mut sched = Sched::new();
        let (greedy, other) = (
            sched.insert('g', Lane::Light),
            sched.insert('o', Lane::Light),
        );
        sched.poke(greedy);
        sched.poke(other);
        let mut order = String::new();
        for _ in 0..3 {
            let (key, item) = sched.take(Lane::Light).unwrap();
            order.push(item);
            sched.finish(
                key,
                Ran {
                    more: item == 'g',
                    ..NOTHING
                },
            );
        }
        assert_eq!(order, "gog");
    }

    #[test]
    fn a_long_turn_makes_a_room_heavy_until_it_has_been_calm() {
        let mut sched = Sched::new();
        let a = sched.insert('a', Lane::Light);
        let turn = |sched: &mut Sched<char>, lane, took| {
            assert!(sched.poke(a));
            assert_eq!(
                sched.take(lane).map(|(_, item)| item),
                Some('a'),
                "{lane:?}"
            );
            sched.finish(a, Ran { took, ..NOTHING });
        };
        turn(&mut sched, Lane::Light, OVERRUN);
        turn(&mut sched, Lane::Light, OVERRUN + Duration::from_nanos(1));
        for _ in 0..CALM_TURNS - 1 {
            turn(&mut sched, Lane::Heavy, SHORT);
        }
        turn(&mut sched, Lane::Heavy, SHORT + Duration::from_nanos(1));
        for _ in 0..CALM_TURNS {
            turn(&mut sched, Lane::Heavy, SHORT);
        }
        turn(&mut sched, Lane::Light, SHORT);
        sched.poke(a);
        sched.take(Lane::Light).unwrap();
        sched.overran(a);
        sched.finish(a, NOTHING);
        // Being calm just long enough pays less each time.
        for _ in 1..2 * CALM_TURNS {
            turn(&mut sched, Lane::Heavy, SHORT);
        }
        turn(&mut sched, Lane::Light, OVERRUN * 2);
        for _ in 0..4 * CALM_TURNS {
            turn(&mut sched, Lane::Heavy, SHORT);
        }
        turn(&mut sched, Lane::Light, SHORT);
    }

    #[test]
    fn only_the_last_timer_counts_and_none_after_the_end() {
        let mut sched = Sched::new();
        let a = sched.insert('a', Lane::Light);
        let at = |sched: &mut Sched<char>, next: Option<u64>, gone| {
            sched.poke(a);
            sched.take(Lane::Light).unwrap();
            sched.finish(
                a,
                Ran {
                    next: next.map(ms),
                    gone,
                    ..NOTHING
                },
            );
        };
        at(&mut sched, Some(10), false);
        at(&mut sched, Some(20), false);
        sched.advance(ms(15));
        assert_eq!(sched.queued(Lane::Light), 0);
        sched.advance(ms(20));
        assert_eq!(taken(&mut sched, Lane::Light), ['a']);
        sched.finish(a, NOTHING);
        at(&mut sched, Some(30), false);
        at(&mut sched, None, true);
        assert_eq!(sched.len(), 0);
        let b = sched.insert('b', Lane::Light);
        assert_eq!(b.index, a.index);
        sched.advance(ms(40));
        assert!(!sched.poke(a));
        assert_eq!(sched.queued(Lane::Light), 0);
    }

    #[test]
    fn a_room_begins_in_the_lane_it_is_put_in_even_where_another_was() {
        let mut sched = Sched::new();
        let heavy = sched.insert('h', Lane::Heavy);
        sched.poke(heavy);
        assert!(taken(&mut sched, Lane::Light).is_empty());
        sched.take(Lane::Heavy).unwrap();
        let gone = Ran {
            gone: true,
            ..NOTHING
        };
        assert_eq!(sched.finish(heavy, gone), Some('h'));
        let light = sched.insert('l', Lane::Light);
        assert_eq!(light.index, heavy.index);
        sched.poke(light);
        assert_eq!(taken(&mut sched, Lane::Light), ['l']);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Insert,
        Poke(usize),
        Take(bool),
        Finish(usize, u64, bool, Option<u64>, bool),
        Advance(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Insert),
            (0usize..8).prop_map(Event::Poke),
            any::<bool>().prop_map(Event::Take),
            (
                0usize..8,
                0u64..9,
                any::<bool>(),
                prop::option::of(0u64..3_000),
                prop::bool::weighted(0.1)
            )
                .prop_map(|(n, took, more, next, gone)| Event::Finish(n, took, more, next, gone)),
            (1u64..500).prop_map(Event::Advance),
        ]
    }

    proptest! {
        #[test]
        fn no_room_runs_twice_at_once_and_none_that_was_wanted_is_forgotten(
            events in prop::collection::vec(event(), 1..200),
        ) {
            let mut sched = Sched::new();
            let mut now = Duration::ZERO;
            let (mut live, mut running): (Vec<Key>, Vec<Key>) = (vec![], vec![]);
            let mut wanted: std::collections::HashSet<Key> = Default::default();
            for event in events {
                match event {
                    Event::Insert => live.push(sched.insert('r', Lane::Light)),
                    Event::Poke(n) => if let Some(key) = live.get(n) {
                        sched.poke(*key);
                        wanted.insert(*key);
                    },
                    Event::Take(heavy) => {
                        let lane = if heavy { Lane::Heavy } else { Lane::Light };
                        if let Some((key, _)) = sched.take(lane) {
                            prop_assert!(!running.contains(&key));
                            wanted.remove(&key);
                            running.push(key);
                        }
                    }
                    Event::Finish(n, took, more, next, gone) => if !running.is_empty() {
                        let key = running.remove(n % running.len());
                        sched.finish(key, Ran {
                            took: ms(took), more, gone,
                            next: next.map(|next| now + ms(next)),
                        });
                        if gone {
                            live.retain(|other| *other != key);
                            wanted.remove(&key);
                        } else if more {
                            wanted.insert(key);
                        }
                    },
                    Event::Advance(by) => { now += ms(by); sched.advance(now); }
                }
                prop_assert_eq!(sched.len(), live.len());
            }
            for key in running {
                sched.finish(key, NOTHING);
            }
            for lane in [Lane::Light, Lane::Heavy] {
                while let Some((key, _)) = sched.take(lane) {
                    wanted.remove(&key);
                }
            }
            prop_assert!(wanted.is_empty());
        }
    }
}
