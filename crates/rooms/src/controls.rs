//! What a key means outside a game: the shell's menus and prompts.
//!
//! A game sees keys as they are. Whoever shows something of their own over it (a menu, a prompt to
//! leave) asks here what a key stands for in the game's current input context.

use cabinet_host::{Input, Key};

/// What a key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Up.
    Up,
    /// Down.
    Down,
    /// Left.
    Left,
    /// Right.
    Right,
    /// Yes; the thing under the cursor.
    Confirm,
    /// No; out of here.
    Back,
}

/// The input context a guest has set ([`crate::RoomStatus::input_context`]), as far as keys are
/// concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InputContext {
    /// Letters move.
    Navigation,
    /// Letters are commands of the game.
    Command,
    /// Letters are text.
    Text,
}

impl InputContext {
    /// The context of a code; one that is not assigned reads as navigation.
    #[must_use]
    pub fn of(code: u8) -> Self {
        match code {
            1 => Self::Command,
            2 => Self::Text,
            _ => Self::Navigation,
        }
    }
}

impl Action {
    /// What `input` stands for, if for anything: Escape and Ctrl-C always for
    /// [`Action::Back`]. In text nothing else does; elsewhere arrows, Enter, space and `q` do, and
    /// `hjkl` where letters move.
    #[must_use]
    pub fn of(input: &Input, context: InputContext) -> Option<Self> {
        let rune = match input {
            Input::Key(Key::Esc | Key::CtrlC) => return Some(Self::Back),
            _ if context == InputContext::Text => return None,
            Input::Key(Key::Up) => return Some(Self::Up),
            Input::Key(Key::Down) => return Some(Self::Down),
            Input::Key(Key::Left) => return Some(Self::Left),
            Input::Key(Key::Right) => return Some(Self::Right),
            Input::Key(Key::Enter) => return Some(Self::Confirm),
            Input::Key(_) => return None,
            Input::Rune(rune) => char::from_u32(*rune)?,
        };
        match rune {
            ' ' => Some(Self::Confirm),
            'q' => Some(Self::Back),
            _ if context != InputContext::Navigation => None,
            'k' => Some(Self::Up),
            'j' => Some(Self::Down),
            'h' => Some(Self::Left),
            'l' => Some(Self::Right),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [InputContext; 3] = [
        InputContext::Navigation,
        InputContext::Command,
        InputContext::Text,
    ];

    fn row(input: Input) -> [Option<Action>; 3] {
        ALL.map(|context| Action::of(&input, context))
    }

    #[test]
    fn keys_stand_for_the_same_wherever_letters_are_not_text() {
        let outside_text = |action| [Some(action), Some(action), None];
        for (key, action) in [
            (Key::Up, Action::Up),
            (Key::Down, Action::Down),
            (Key::Left, Action::Left),
            (Key::Right, Action::Right),
            (Key::Enter, Action::Confirm),
        ] {
            assert_eq!(row(Input::Key(key)), outside_text(action));
        }
        assert_eq!(row(Input::Rune(' ' as u32)), outside_text(Action::Confirm));
        assert_eq!(row(Input::Rune('q' as u32)), outside_text(Action::Back));
        for key in [Key::Tab, Key::Backspace] {
            assert_eq!(row(Input::Key(key)), [None; 3]);
        }
    }

    #[test]
    fn the_way_out_is_always_there() {
        for key in [Key::Esc, Key::CtrlC] {
            assert_eq!(row(Input::Key(key)), [Some(Action::Back); 3]);
        }
    }

    #[test]
    fn letters_move_only_in_navigation_and_nonsense_means_nothing() {
        for (letter, action) in [
            ('k', Action::Up),
            ('j', Action::Down),
            ('h', Action::Left),
            ('l', Action::Right),
        ] {
            assert_eq!(row(Input::Rune(letter as u32)), [Some(action), None, None]);
        }
        for rune in ['Q' as u32, 'x' as u32, 0xD800, u32::MAX] {
            assert_eq!(row(Input::Rune(rune)), [None; 3]);
        }
    }

    #[test]
    fn a_code_that_is_not_assigned_reads_as_navigation() {
        assert_eq!(
            [0, 1, 2, 3, 255].map(InputContext::of),
            [ALL[0], ALL[1], ALL[2], ALL[0], ALL[0]]
        );
    }
}
