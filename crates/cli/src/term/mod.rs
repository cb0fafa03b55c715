//! A terminal: what it can show, what was typed in it, and what to write to it.
//!
//! Everything that decides is plain code on values: [`caps`] reads the environment, [`keys`]
//! decodes bytes, [`layout`] places a frame on a screen of any size, [`paint`] writes what differs
//! from the screen before. Only [`tty`] touches a real terminal.

pub mod caps;
pub mod glyph;
pub mod keys;
pub mod layout;
pub mod paint;
pub mod style;
pub mod tty;
