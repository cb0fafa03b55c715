//! What players type.

use cabinet_wire::Key;

/// One key press.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A character, as typed: `'a'` and `'A'` differ.
    Char(char),
    /// A key that types no character.
    Key(Key),
}

/// Where a press points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Towards row 0.
    Up,
    /// Towards the last row.
    Down,
    /// Towards column 0.
    Left,
    /// Towards the last column.
    Right,
}

impl Direction {
    /// The change of row and column of one step.
    pub const fn delta(self) -> (i32, i32) {
        match self {
            Direction::Up => (-1, 0),
            Direction::Down => (1, 0),
            Direction::Left => (0, -1),
            Direction::Right => (0, 1),
        }
    }

    /// The direction back.
    pub const fn opposite(self) -> Direction {
        match self {
            Direction::Up => Direction::Down,
            Direction::Down => Direction::Up,
            Direction::Left => Direction::Right,
            Direction::Right => Direction::Left,
        }
    }
}

impl Input {
    /// The direction of an arrow key, of `wasd` or of `hjkl`, in either case. Not for text entry.
    ///
    /// ```
    /// use cabinet_guest::{Direction, Input, Key};
    /// assert_eq!(Input::Key(Key::Left).direction(), Some(Direction::Left));
    /// assert_eq!(Input::Char('k').direction(), Some(Direction::Up));
    /// assert_eq!(Input::Char('x').direction(), None);
    /// ```
    pub const fn direction(self) -> Option<Direction> {
        match self {
            Input::Key(Key::Up) | Input::Char('w' | 'W' | 'k' | 'K') => Some(Direction::Up),
            Input::Key(Key::Down) | Input::Char('s' | 'S' | 'j' | 'J') => Some(Direction::Down),
            Input::Key(Key::Left) | Input::Char('a' | 'A' | 'h' | 'H') => Some(Direction::Left),
            Input::Key(Key::Right) | Input::Char('d' | 'D' | 'l' | 'L') => Some(Direction::Right),
            _ => None,
        }
    }

    /// Enter or space.
    pub const fn is_confirm(self) -> bool {
        matches!(self, Input::Key(Key::Enter) | Input::Char(' '))
    }

    /// Escape or Ctrl-C.
    pub const fn is_back(self) -> bool {
        matches!(self, Input::Key(Key::Esc | Key::CtrlC))
    }

    /// The character in lower case, for commands that ignore shift.
    pub fn command(self) -> Option<char> {
        match self {
            Input::Char(ch) => Some(ch.to_ascii_lowercase()),
            Input::Key(_) => None,
        }
    }
}

impl From<char> for Input {
    fn from(ch: char) -> Input {
        Input::Char(ch)
    }
}

impl From<Key> for Input {
    fn from(key: Key) -> Input {
        Input::Key(key)
    }
}
