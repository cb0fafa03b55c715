//! Who sits in a room, as the host keeps them.

use cabinet_wire::Kind;
use cabinet_wire::Text;
use cabinet_wire::ctx;

/// A player of a room.
///
/// Two values are the same player only when every field agrees: one account on two connections
/// is two players, and a reconnect is a new one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Player {
    /// Stable account id; empty for a keyless guest. What kv rows are kept under.
    pub account: String,
    /// The name shown to others. Sent to the guest as it is: cap its length (the wire takes 65,535
    /// bytes, of which every callback carries a copy) and strip control characters before it gets
    /// here.
    pub handle: String,
    /// The connection this player came on.
    pub conn: String,
    /// Guest or member.
    pub kind: Kind,
    /// The avatar sent to games that ask for one.
    pub character: Character,
}

/// A player's avatar: one glyph with its colours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Character {
    /// The glyph, UTF-8; empty for none.
    pub glyph: String,
    /// Ink colour, red green blue.
    pub ink: [u8; 3],
    /// Background colour, red green blue.
    pub bg: [u8; 3],
    /// What a terminal without UTF-8 shows, an ASCII byte; 0 for none.
    pub ascii_fallback: u8,
}

impl Player {
    /// A member: someone with an account.
    pub fn member(
        account: impl Into<String>,
        handle: impl Into<String>,
        conn: impl Into<String>,
    ) -> Self {
        Self {
            account: account.into(),
            handle: handle.into(),
            conn: conn.into(),
            kind: Kind::Member,
            character: Character::default(),
        }
    }

    /// A keyless guest: no account id.
    pub fn guest(handle: impl Into<String>, conn: impl Into<String>) -> Self {
        Self {
            account: String::new(),
            handle: handle.into(),
            conn: conn.into(),
            kind: Kind::Guest,
            character: Character::default(),
        }
    }

    /// The same player with an avatar.
    #[must_use]
    pub fn with_character(mut self, character: Character) -> Self {
        self.character = character;
        self
    }

    /// The player as the wire describes one.
    pub(crate) fn to_wire(&self) -> ctx::Member<'_> {
        ctx::Member {
            handle: Text(self.handle.as_bytes()),
            account: Text(self.account.as_bytes()),
            conn: Text(self.conn.as_bytes()),
            kind: self.kind,
            character: ctx::Character {
                glyph: Text(self.character.glyph.as_bytes()),
                ink: self.character.ink,
                bg: self.character.bg,
                ascii_fallback: self.character.ascii_fallback,
            },
        }
    }
}
