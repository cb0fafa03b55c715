//! Guest ABI 2, wire revision 6, as bytes: every payload a host and a game exchange, both directions.
//!
//! ```
//! use cabinet_wire::{ctx, input, Kind, Mode, Text};
//!
//! // The host tells a game that Ada pressed `x`.
//! let head = ctx::Head { now_unix_nanos: 1_700_000_000_000_000_000, seed: 42, seed_set: true,
//!     mode: Mode::Quick, capacity: 2, min_players: 1 };
//! let ada = ctx::Member { handle: Text::new("ada"), account: Text::new("a1"), conn: Text::new("c1"),
//!     kind: Kind::Member, ..Default::default() };
//! let mut payload = Vec::new();
//! ctx::encode(&head, &ctx::Roster::Legacy(&[ada]), 0, false, &mut payload)?;
//! input::encode(0, &input::Input::Rune('x' as u32), &mut payload);
//!
//! // The game reads it back without copying anything.
//! let decoded = ctx::decode(&payload, 0)?;
//! assert_eq!(decoded.head, head);
//! assert!(decoded.roster.members().eq([ada]));
//! assert_eq!(input::decode(decoded.extras)?, (0, input::Input::Rune('x' as u32)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | payload | direction | module |
//! |---|---|---|
//! | call context: clock, seed, roster | host to guest | [`ctx`] |
//! | seat and key that follow it | host to guest | [`input`] |
//! | what a game declares about itself | guest to host | [`meta`] |
//! | rankings of `end` and `post` | guest to host | [`outcome`] |
//! | one screen cell | guest to host | [`cell`] |
//! | a frame, whole or as the runs that changed | guest to host | [`delta`] |
//!
//! Conventions
//! - integers are little-endian; a `str` is a `u16` byte length and that many bytes ([`Text`]);
//! - decoders borrow from the payload, never panic, never reserve memory by a count they read, and
//!   ignore bytes after the last field they know (the frame container alone must fit exactly);
//! - encoders append to the caller's buffer, allocate nothing once it is large enough, and leave it
//!   as it was when they return an error.
//!
//! This crate is not a host and holds no policy: it knows no clock, no room and no slot. Numbers
//! come from the ABI (see [`limits`]); what a host does when a payload is refused is the host's
//! decision.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod cell;
pub mod ctx;
pub mod delta;
pub mod input;
pub mod json;
pub mod limits;
pub mod meta;
pub mod outcome;

mod codes;
mod digest;
mod reader;
mod slug;
mod text;
mod writer;

pub use codes::{
    Aggregation, ConfigType, Direction, InputContext, Key, Kind, Lifecycle, LogLevel, MergeRule,
    MetricFormat, Mode, Status, UnknownCode,
};
pub use digest::{ArtifactDigest, DigestError};
pub use limits::*;
pub use slug::{Slug, SlugError};
pub use text::Text;
