//! Scripts: what happens to a room, one step per line.
//!
//! A script is UTF-8 text. `#` begins a comment, empty lines are ignored, words are separated by
//! spaces or tabs. A word may hold quoted parts, `'…'` or `"…"`, in which `#` and blanks are
//! ordinary and these escapes are known: `\\ \' \" \n \r \t \0 \u{HEX}`. Durations are whole numbers
//! with a unit: `ns us ms s m h`.
//!
//! First the setup, every line of it optional:
//!
//! | line | default | meaning |
//! |---|---|---|
//! | `seed N` | 42 | the room's seed, a signed 64-bit number |
//! | `mode quick\|private\|solo` | private | |
//! | `capacity N` | the game's largest party, at least 1 | |
//! | `min-players N` | the game's smallest party, at least 1 | |
//! | `clock D` | `1700000000s` | room clock at start, since 1970; may be negative |
//! | `deadline D` | the host's | wall time one callback may take |
//! | `memory-pages N` | the host's | cap on guest memory, pages of 64 KiB |
//! | `resident yes\|no` | the game's lifecycle | whether the room wakes with nobody in it |
//! | `config KEY=VALUE` | none | one game config value; repeat the line for more |
//! | `seat N guest\|member FIELD=VALUE …` | see below | who sits in seat N |
//!
//! A seat's fields are `account`, `handle`, `conn` and, for a drawn character, `glyph`, `ink` and
//! `bg` (six hex digits each) and `fallback` (one ASCII character). What a `seat` line leaves out
//! keeps its default: a member with account `seat-N`, handle `seatN`, connection `conn-N` and no
//! character. Seats are numbered 0 to 1,023 and need no line of their own.
//!
//! Then the steps:
//!
//! | line | what happens |
//! |---|---|
//! | `join N` / `leave N` | the player of seat N comes or goes |
//! | `input N 'x'` | seat N types one character |
//! | `key N NAME` | seat N presses `enter backspace esc tab up down left right ctrl-c` |
//! | `wake` / `wake +D` | the room's tick, after moving the clock by D |
//! | `advance D` | the clock moves, nobody is called |
//! | `snapshot` | the room is saved, encoded, decoded and restored, and goes on from there |
//! | `shot NAME` | note what every seat sees now, under a name |
//! | `close` | the room is closed; nothing comes after this |
//!
//! The guest's `start` is called before the first step. Example:
//!
//! ```
//! use cabinet_conformance::Script;
//! let script = Script::parse(
//!     "seed 7\n\
//!      seat 1 guest account= handle=zoë\n\
//!      join 0\n\
//!      join 1\n\
//!      input 0 'x'   # a move\n\
//!      wake +50ms\n\
//!      snapshot\n\
//!      wake +50ms\n",
//! )?;
//! assert_eq!(script.setup.seed, 7);
//! assert_eq!(script.steps.len(), 6);
//! assert_eq!(Script::parse(&script.to_string())?, script);
//! # Ok::<(), cabinet_conformance::ScriptError>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use cabinet_host::{Character, Player};
use cabinet_wire::{Key, Kind, Mode};

mod builtin;
mod lex;
mod parse;
mod print;

pub use builtin::{BUILTIN, Builtin};
pub use parse::{LineProblem, ScriptError};

/// Largest script file, bytes.
pub const MAX_SCRIPT_BYTES: usize = 1 << 20;
/// Most steps in a script.
pub const MAX_STEPS: usize = 65_536;
/// Seats are numbered below this, as many as a roster holds.
pub const MAX_SEATS: u16 = 1_024;
/// Longest account, handle, connection or glyph of a seat, and longest shot name, bytes.
pub const MAX_FIELD_BYTES: usize = 1_024;
/// Most `shot` steps in a script: each is kept as text for every seat.
pub const MAX_SHOTS: usize = 64;
/// Most `config` lines.
pub const MAX_CONFIG: usize = 1_024;

/// The room clock a script starts at unless it says otherwise, unix nanoseconds.
pub const DEFAULT_CLOCK_UNIX_NANOS: i64 = 1_700_000_000_000_000_000;
/// The seed a script uses unless it says otherwise.
pub const DEFAULT_SEED: i64 = 42;

/// A room to set up and the steps to take in it. See the [module](self) for the text form.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Script {
    /// How the room is made.
    pub setup: Setup,
    /// What happens in it, in order.
    pub steps: Vec<Step>,
}

/// How a script's room is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// The room's seed.
    pub seed: i64,
    /// The room's mode.
    pub mode: Mode,
    /// Seats in the room; `None` takes the game's largest party.
    pub capacity: Option<u32>,
    /// Players the room wants; `None` takes the game's smallest party.
    pub min_players: Option<u32>,
    /// Room clock at start, unix nanoseconds.
    pub clock_unix_nanos: i64,
    /// Wall time one callback may take; `None` leaves the host's.
    pub deadline: Option<Duration>,
    /// Cap on guest memory in pages of 64 KiB; `None` leaves the host's.
    pub memory_pages_max: Option<u32>,
    /// Whether the room wakes with nobody in it; `None` leaves it to the game's lifecycle.
    pub resident: Option<bool>,
    /// Game config values by key.
    pub config: BTreeMap<String, String>,
    /// Declared seats; an undeclared one is [`Seat::numbered`].
    pub seats: BTreeMap<u16, Seat>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: DEFAULT_SEED,
            mode: Mode::Private,
            capacity: None,
            min_players: None,
            clock_unix_nanos: DEFAULT_CLOCK_UNIX_NANOS,
            deadline: None,
            memory_pages_max: None,
            resident: None,
            config: BTreeMap::new(),
            seats: BTreeMap::new(),
        }
    }
}

impl Setup {
    /// Who sits in `seat`.
    #[must_use]
    pub fn player(&self, seat: u16) -> Player {
        match self.seats.get(&seat) {
            Some(declared) => declared.to_player(),
            None => Seat::numbered(seat).to_player(),
        }
    }
}

/// Who sits in a seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// Guest or member.
    pub kind: Kind,
    /// Account id; empty for a guest without one.
    pub account: String,
    /// The name others see.
    pub handle: String,
    /// Connection id.
    pub conn: String,
    /// Glyph of the player's character, empty for none.
    pub glyph: String,
    /// Ink of the character, red green blue.
    pub ink: [u8; 3],
    /// Background of the character, red green blue.
    pub bg: [u8; 3],
    /// ASCII stand-in of the character, 0 for none.
    pub fallback: u8,
}

impl Seat {
    /// The player an undeclared seat gets.
    #[must_use]
    pub fn numbered(seat: u16) -> Self {
        Self {
            kind: Kind::Member,
            account: format!("seat-{seat}"),
            handle: format!("seat{seat}"),
            conn: format!("conn-{seat}"),
            glyph: String::new(),
            ink: [0; 3],
            bg: [0; 3],
            fallback: 0,
        }
    }

    fn to_player(&self) -> Player {
        Player {
            account: self.account.clone(),
            handle: self.handle.clone(),
            conn: self.conn.clone(),
            kind: self.kind,
            character: Character {
                glyph: self.glyph.clone(),
                ink: self.ink,
                bg: self.bg,
                ascii_fallback: self.fallback,
            },
        }
    }
}

/// One step of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The player of a seat joins.
    Join {
        /// Seat number.
        seat: u16,
    },
    /// The player of a seat leaves.
    Leave {
        /// Seat number.
        seat: u16,
    },
    /// A seat types a character.
    Input {
        /// Seat number.
        seat: u16,
        /// The character.
        rune: char,
    },
    /// A seat presses a key.
    Key {
        /// Seat number.
        seat: u16,
        /// The key.
        key: Key,
    },
    /// The room's tick.
    Wake {
        /// How far the clock moves first.
        after: Duration,
    },
    /// The clock moves.
    Advance {
        /// How far.
        by: Duration,
    },
    /// Save, encode, decode, restore, go on.
    Snapshot,
    /// Note what every seat sees.
    Shot {
        /// Unique in the script: letters, digits, `.`, `_` and `-`, not beginning with a mark.
        name: String,
    },
    /// The room is closed; the last step.
    Close,
}

impl Script {
    /// The script a game is checked with when it brings none: everybody who fits in two seats
    /// joins, presses enter, waits, types; the room is saved; then one leaves and comes back, and
    /// the room is closed.
    #[must_use]
    pub fn for_party(max_players: u16) -> Self {
        let builtin = if max_players >= 2 {
            &builtin::PARTY
        } else {
            &builtin::SOLO
        };
        builtin.script()
    }

    /// How many of the steps are snapshots.
    #[must_use]
    pub fn snapshots(&self) -> usize {
        self.steps
            .iter()
            .filter(|step| matches!(step, Step::Snapshot))
            .count()
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print::script(self, f)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print::step(self, f)
    }
}
