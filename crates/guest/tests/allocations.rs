//! A warm room allocates nothing, whatever it does every wake.
//!
//! Alone in this file: the counter counts the thread's allocations in the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use cabinet_guest::prelude::*;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to `System` unchanged; counting touches no memory it hands out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise about `layout` is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` came from `System` with this layout.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: `memory` came from `System` with this layout; the size is the caller's.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(run: impl FnOnce()) -> usize {
    let before = COUNT.get();
    run();
    COUNT.get() - before
}

#[derive(Clone, Copy, PartialEq)]
enum Alarm {
    Tick,
}

struct Busy {
    timers: Timers<Alarm>,
    ticks: u64,
    deck: [u8; 8],
}

impl Game for Busy {
    const META: Meta = Meta::new("busy", "Busy").players(1, 8).roster_epochs();

    fn new(room: &mut Room) -> Busy {
        let mut timers = Timers::new();
        timers
            .every(Alarm::Tick, room.now(), Duration::from_millis(50))
            .unwrap();
        Busy {
            timers,
            ticks: 0,
            deck: [0, 1, 2, 3, 4, 5, 6, 7],
        }
    }

    fn wake(&mut self, room: &mut Room) {
        while let Some(Alarm::Tick) = self.timers.due(room.now()) {
            self.ticks += 1;
            room.rng().shuffle(&mut self.deck);
        }
        room.draw(|screen, room| {
            screen.border(Rect::SCREEN, Border::Double, Color::CYAN);
            write!(
                screen.pen(3, 4, Color::GREEN),
                "tick {} 漢字 e\u{301}",
                self.ticks
            )
            .ok();
            for (row, player) in (5..).zip(room.players()) {
                screen.text_right(row, 40, player.handle, Style::new().bold());
            }
        });
        if self.ticks.is_multiple_of(2) {
            room.draw_each(|screen, _, player| {
                screen.text_center(12, player.handle, Color::RED);
            });
        }
    }
}

#[test]
fn a_warm_wake_that_changes_a_cell_and_shows_it_allocates_nothing() {
    let mut room = TestRoom::<Busy>::new();
    for name in ["ada", "bob", "cyd"] {
        room.join(name);
    }
    for _ in 0..8 {
        room.wake();
    }
    room.clear_sent();
    let allocations = allocations(|| {
        for _ in 0..100 {
            room.wake();
        }
    });
    assert_eq!(allocations, 0);
    assert!(
        room.sent().len() >= 250,
        "the wakes did show: {}",
        room.sent().len()
    );
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}
