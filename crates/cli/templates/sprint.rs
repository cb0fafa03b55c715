//! {{title}}: one to eight players press space; ten presses win.
#![forbid(unsafe_code)]

use cabinet_guest::prelude::*;

/// Presses that win.
const GOAL: i64 = 10;

/// The whole state of a room. It is saved and restored with the room, so keep everything here.
struct Sprint {
    scores: Vec<(PlayerId, i64)>,
}

impl Game for Sprint {
    const META: Meta = Meta::new("{{name}}", "{{title}}")
        .description("First to ten presses wins")
        .players(1, 8)
        .leaderboard(Leaderboard::highest("Presses"))
        .controls(&[Control::char(' ', "PRESS")]);

    fn new(_: &mut Room) -> Sprint {
        Sprint { scores: Vec::new() }
    }

    fn join(&mut self, room: &mut Room, player: PlayerId) {
        self.scores.push((player, 0));
        self.draw(room);
    }

    fn leave(&mut self, room: &mut Room, player: PlayerId) {
        self.scores.retain(|(id, _)| *id != player);
        self.draw(room);
    }

    fn input(&mut self, room: &mut Room, player: PlayerId, input: Input) {
        if input != Input::Char(' ') {
            return;
        }
        for (id, score) in &mut self.scores {
            *score += i64::from(*id == player);
        }
        self.draw(room);
        if self.scores.iter().any(|(_, score)| *score == GOAL) {
            let outcome = self
                .scores
                .iter()
                .fold(Outcome::new(), |outcome, &(id, score)| {
                    outcome.finished(id, score)
                });
            room.end(&outcome.ranked_high_to_low());
        }
    }
}

impl Sprint {
    fn draw(&self, room: &mut Room) {
        room.draw(|screen, room| {
            screen.text_center(2, "{{title}}", Style::new().fg(Color::YELLOW).bold());
            for (row, (id, score)) in (5..).zip(&self.scores) {
                let mut pen = screen.pen(row, 24, Color::GREEN);
                write!(pen, "{:<12} {score:>3} ", room.handle(*id)).ok();
                for _ in 0..*score {
                    write!(pen, "=").ok();
                }
                write!(pen, ">").ok();
            }
            screen.text_center(22, "space: press", Color::GRAY);
        });
    }
}

cabinet_guest::game!(Sprint);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_presses_win() {
        let mut room = TestRoom::<Sprint>::new();
        let ada = room.join("ada");
        room.join("ben");
        for _ in 0..GOAL {
            room.input(ada, ' ');
        }
        assert_eq!(room.result().unwrap()[0].metric, GOAL);
    }
}
