//! A game as an author would write it: counts presses, shows the count.
#![forbid(unsafe_code)]

use cabinet_guest::prelude::*;

struct Counter {
    presses: u32,
    screen: Screen,
}

impl Game for Counter {
    const META: Meta = Meta::new("counter", "Counter").players(1, 4);

    fn new(_: &mut Room) -> Counter {
        Counter {
            presses: 0,
            screen: Screen::new(),
        }
    }

    fn join(&mut self, room: &mut Room, _: PlayerId) {
        self.draw(room);
    }

    fn input(&mut self, room: &mut Room, _: PlayerId, _: Input) {
        self.presses += 1;
        self.draw(room);
    }
}

impl Counter {
    fn draw(&mut self, room: &mut Room) {
        self.screen.clear();
        let mut pen = self.screen.pen(2, 2, Color::GREEN);
        write!(pen, "presses: {}", self.presses).ok();
        room.show(&self.screen);
    }
}

cabinet_guest::game!(Counter);
