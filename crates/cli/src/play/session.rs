//! What a key press in `play` means, and whose it is. No terminal, no room, no clock.

use std::collections::VecDeque;

use cabinet_host::{Input, Key};

use crate::term::keys::Press;

/// Keys of one seat that wait for the room; more are dropped, as by a keyboard.
pub const WAITING_MAX: usize = 4_096;

/// Several people, or one, at one keyboard.
#[derive(Debug)]
pub struct Session {
    /// Keys that the room has not taken yet, by seat.
    waiting: Vec<VecDeque<Input>>,
    current: usize,
    over: bool,
    leaving: bool,
}

impl Session {
    /// With so many seats, at least one; the first has the keyboard.
    #[must_use]
    pub fn new(seats: u16) -> Self {
        Self {
            waiting: vec![VecDeque::new(); usize::from(seats.max(1))],
            current: 0,
            over: false,
            leaving: false,
        }
    }

    /// The seat that has the keyboard and is shown, from 0.
    #[must_use]
    pub fn current(&self) -> usize {
        self.current
    }

    /// Seats.
    #[must_use]
    pub fn seats(&self) -> usize {
        self.waiting.len()
    }

    /// Whether somebody wants to leave.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Whether the room is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The room is over: its last frame is looked at until a key is pressed.
    pub fn room_over(&mut self) {
        self.over = true;
        self.waiting.iter_mut().for_each(VecDeque::clear);
    }

    /// A key was pressed.
    pub fn press(&mut self, press: &Press) {
        match press {
            Press::Ctrl('c') | Press::Esc => self.leaving = true,
            Press::Ctrl('t') => self.current = (self.current + 1) % self.waiting.len(),
            _ if self.over => self.leaving = true,
            Press::Char(c) => self.put(Input::Rune(u32::from(*c))),
            Press::Enter => self.put(Input::Key(Key::Enter)),
            Press::Backspace => self.put(Input::Key(Key::Backspace)),
            Press::Tab => self.put(Input::Key(Key::Tab)),
            Press::Up => self.put(Input::Key(Key::Up)),
            Press::Down => self.put(Input::Key(Key::Down)),
            Press::Left => self.put(Input::Key(Key::Left)),
            Press::Right => self.put(Input::Key(Key::Right)),
            Press::Paste(text) => self.paste(text),
            Press::Ctrl(_)
            | Press::BackTab
            | Press::Home
            | Press::End
            | Press::PageUp
            | Press::PageDown => {}
        }
    }

    /// Pasted text is typed, line ends and tabs as keys; what controls a terminal is left out, so
    /// that no paste leaves the game or changes the seat.
    fn paste(&mut self, text: &str) {
        let mut before = '\0';
        for c in text.chars() {
            match c {
                '\n' if before == '\r' => {}
                '\r' | '\n' => self.put(Input::Key(Key::Enter)),
                '\t' => self.put(Input::Key(Key::Tab)),
                c if c.is_control() => {}
                c => self.put(Input::Rune(u32::from(c))),
            }
            before = c;
        }
    }

    fn put(&mut self, input: Input) {
        let waiting = &mut self.waiting[self.current];
        if waiting.len() < WAITING_MAX {
            waiting.push_back(input);
        }
    }

    /// The next key of a seat for the room, if one waits; it waits until [`Session::taken`].
    #[must_use]
    pub fn next_input(&self, seat: usize) -> Option<Input> {
        self.waiting.get(seat)?.front().copied()
    }

    /// The room took the next key of a seat.
    pub fn taken(&mut self, seat: usize) {
        if let Some(waiting) = self.waiting.get_mut(seat) {
            waiting.pop_front();
        }
    }

    /// Whether keys wait that the room has no place for.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting.iter().any(|waiting| !waiting.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn inputs(session: &mut Session, seat: usize) -> Vec<Input> {
        let mut out = Vec::new();
        while let Some(input) = session.next_input(seat) {
            out.push(input);
            session.taken(seat);
        }
        out
    }

    #[test]
    fn keys_go_to_the_seat_that_has_the_keyboard() {
        let mut session = Session::new(2);
        session.press(&Press::Char('a'));
        session.press(&Press::Ctrl('t'));
        assert_eq!(session.current(), 1);
        session.press(&Press::Char('日'));
        session.press(&Press::Left);
        session.press(&Press::Ctrl('t'));
        assert_eq!(session.current(), 0);
        assert_eq!(inputs(&mut session, 0), [Input::Rune('a' as u32)]);
        assert_eq!(
            inputs(&mut session, 1),
            [Input::Rune('日' as u32), Input::Key(Key::Left)]
        );
        assert!(!session.is_leaving());
    }

    #[test]
    fn control_c_and_a_bare_escape_leave_and_no_other_key_does() {
        for press in [Press::Ctrl('c'), Press::Esc] {
            let mut session = Session::new(1);
            session.press(&press);
            assert!(session.is_leaving() && !session.is_waiting());
        }
        let mut session = Session::new(1);
        for press in [
            Press::Ctrl('d'),
            Press::Home,
            Press::Enter,
            Press::Char('q'),
        ] {
            session.press(&press);
        }
        assert!(!session.is_leaving());
    }

    #[test]
    fn a_paste_is_typed_and_controls_nothing() {
        let mut session = Session::new(2);
        session.press(&Press::Paste("a\r\nb\n\tc\x03\x14\x1b".into()));
        let rune = |c| Input::Rune(u32::from(c));
        let key = Input::Key;
        assert_eq!(
            inputs(&mut session, 0),
            [
                rune('a'),
                key(Key::Enter),
                rune('b'),
                key(Key::Enter),
                key(Key::Tab),
                rune('c')
            ]
        );
        assert_eq!(session.current(), 0);
        assert!(!session.is_leaving());
    }

    #[test]
    fn when_the_room_is_over_any_key_leaves_but_another_seat_may_be_looked_at_first() {
        let mut session = Session::new(2);
        session.press(&Press::Char('a'));
        session.room_over();
        assert!(!session.is_waiting());
        session.press(&Press::Ctrl('t'));
        assert!(!session.is_leaving());
        session.press(&Press::Char('x'));
        assert!(session.is_leaving());
    }

    #[test]
    fn as_many_keys_wait_as_the_limit_and_one_more_is_dropped() {
        let mut session = Session::new(1);
        session.press(&Press::Paste("x".repeat(WAITING_MAX)));
        assert_eq!(session.waiting[0].len(), WAITING_MAX);
        session.press(&Press::Char('y'));
        assert_eq!(session.waiting[0].len(), WAITING_MAX);
        session.taken(0);
        session.press(&Press::Char('y'));
        assert_eq!(session.waiting[0].back(), Some(&Input::Rune('y' as u32)));
    }

    proptest! {
        #[test]
        fn any_keys_leave_a_seat_that_exists(seats in 0u16..5, keys in prop::collection::vec(0u8..6, 0..60)) {
            let mut session = Session::new(seats);
            for key in keys {
                session.press(&match key {
                    0 => Press::Ctrl('t'),
                    1 => Press::Enter,
                    2 => Press::Paste("\x1bx".into()),
                    3 => Press::PageUp,
                    _ => Press::Char('x'),
                });
                prop_assert!(session.current() < session.seats());
                prop_assert!(!session.is_leaving());
            }
        }
    }
}
