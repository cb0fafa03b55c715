//! {{title}}: counts the keys that are pressed. A place to begin.
#![forbid(unsafe_code)]

use cabinet_guest::prelude::*;

/// The whole state of a room. It is saved and restored with the room, so keep everything here.
struct Counter {
    keys: u32,
}

impl Game for Counter {
    const META: Meta = Meta::new("{{name}}", "{{title}}")
        .description("Press a key, any key")
        .players(1, 8)
        .controls(&[Control::char(' ', "PRESS")]);

    fn new(_: &mut Room) -> Counter {
        Counter { keys: 0 }
    }

    fn join(&mut self, room: &mut Room, _: PlayerId) {
        self.draw(room);
    }

    fn leave(&mut self, room: &mut Room, _: PlayerId) {
        self.draw(room);
    }

    fn input(&mut self, room: &mut Room, _: PlayerId, _: Input) {
        self.keys += 1;
        self.draw(room);
    }
}

impl Counter {
    fn draw(&self, room: &mut Room) {
        room.draw(|screen, room| {
            screen.text_center(2, "{{title}}", Style::new().fg(Color::YELLOW).bold());
            let mut pen = screen.pen(11, 30, Color::GREEN);
            write!(pen, "{} keys by {}", self.keys, room.player_count()).ok();
            screen.text_center(22, "space: press", Color::GRAY);
        });
    }
}

cabinet_guest::game!(Counter);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_counted() {
        let mut room = TestRoom::<Counter>::new();
        let ada = room.join("ada");
        room.input(ada, ' ');
        assert!(room.shows(ada, "1 keys by 1"));
    }
}
