//! A recording: everything a room's guest was told, so that telling it again gives the same frames.
//!
//! [`mod@format`] is the file, [`tap`] writes one while a room plays. `docs/FORMATS.md` describes the
//! bytes.

pub mod format;
pub mod tap;

use cabinet_host::{Input, Player};
use cabinet_rooms::Export;
use cabinet_wire::{ArtifactDigest, Mode};

/// What is recorded of a room.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// How the room was opened.
    pub header: Header,
    /// Every callback, in order.
    pub callbacks: Vec<Callback>,
    /// How it ended; `None` when the recording stopped before the room did.
    pub end: Option<End>,
    /// The file ended in the middle of a record, which was left out.
    pub torn: bool,
}

/// How a room was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// SHA-256 of the game's artifact.
    pub artifact: ArtifactDigest,
    /// The name the game goes by.
    pub slug: String,
    /// The file the artifact was read from; empty when that is not a text.
    pub path: String,
    /// Quick, private or solo.
    pub mode: Mode,
    /// Most members.
    pub capacity: u16,
    /// Fewest members to begin with.
    pub min_players: u16,
    /// The seed.
    pub seed: i64,
    /// Whether somebody chose it.
    pub seed_set: bool,
    /// Seats that players sat in, numbered from 1.
    pub seats: u16,
    /// The time between wakes, in milliseconds.
    pub heartbeat_ms: u32,
    /// What the game was configured with. Its reads are among the [`Callback::answers`].
    pub config: Vec<(String, Vec<u8>)>,
}

/// One call of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback {
    /// Which.
    pub export: Export,
    /// The room clock, Unix nanoseconds.
    pub now: i64,
    /// Whose it is, from 1: of a join, a leave and an input.
    pub seat: Option<u16>,
    /// What was typed: of an input.
    pub input: Option<Input>,
    /// What stores answered the guest, in order: `kv_get` and `config_get`.
    pub answers: Vec<Answer>,
    /// CRC-32 over the game functions the guest called, with what it passed: tells a re-run that
    /// goes another way.
    pub check: u32,
}

/// What a store answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This value, or none.
    Value(Option<Vec<u8>>),
    /// It could not tell.
    Failed,
}

/// How a recorded room ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The reason's stable name ([`cabinet_rooms::EndReason::name`]).
    pub reason: String,
    /// The fault's class, when one killed it.
    pub fault: Option<String>,
    /// What a person was told.
    pub text: String,
}

/// The player at a seat of a recorded room, from 1.
#[must_use]
pub fn player_of(seat: u16) -> Player {
    Player::member(
        format!("local-{seat}"),
        format!("seat-{seat}"),
        format!("local-{seat}"),
    )
}
