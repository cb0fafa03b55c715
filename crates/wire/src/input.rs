//! What follows the context: a seat, or a seat and a key press.
//!
//! ```text
//! join, leave:  u32 player
//! input:        u32 player · u8 kind · u32 rune · u8 key
//! ```

use alloc::vec::Vec;
use core::fmt;

use crate::Key;
use crate::reader::{Reader, Short};
use crate::writer::put_u32;

const KIND_RUNE: u8 = 0;
const KIND_KEY: u8 = 1;

/// What a player pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A character, as a code point. Not validated: surrogates and values past U+10FFFF pass, a
    /// guest drops what it cannot use.
    Rune(u32),
    /// A key that is not a character.
    Key(Key),
}

/// Appends the index behind the context of `join` and `leave`.
pub fn encode_index(player: u32, out: &mut Vec<u8>) {
    put_u32(out, player);
}

/// Appends the ten bytes behind the context of `input`.
pub fn encode(player: u32, input: &Input, out: &mut Vec<u8>) {
    let (kind, rune, key) = match *input {
        Input::Rune(rune) => (KIND_RUNE, rune, 0),
        Input::Key(key) => (KIND_KEY, 0, u8::from(key)),
    };
    put_u32(out, player);
    out.push(kind);
    put_u32(out, rune);
    out.push(key);
}

/// Reads the index behind the context of `join` and `leave`. Bytes after it are ignored.
///
/// # Errors
///
/// [`InputError::Short`].
pub fn decode_index(extras: &[u8]) -> Result<u32, InputError> {
    Ok(Reader::new(extras).u32()?)
}

/// Reads the index and the key press behind the context of `input`. Bytes after them are ignored.
///
/// # Errors
///
/// [`InputError::Short`], or a kind or key of a newer revision: a guest ignores such an input.
pub fn decode(extras: &[u8]) -> Result<(u32, Input), InputError> {
    let mut reader = Reader::new(extras);
    let player = reader.u32()?;
    let kind = reader.u8()?;
    let rune = reader.u32()?;
    let key = reader.u8()?;
    let input = match kind {
        KIND_RUNE => Input::Rune(rune),
        KIND_KEY => Input::Key(Key::try_from(key).map_err(|_| InputError::UnknownKey(key))?),
        kind => return Err(InputError::UnknownKind(kind)),
    };
    Ok((player, input))
}

/// Why the bytes behind a context are not an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InputError {
    /// A field runs past the end.
    Short,
    /// Neither rune nor key.
    UnknownKind(u8),
    /// A key without a code in this revision; 0 is none.
    UnknownKey(u8),
}

impl From<Short> for InputError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("input ends inside a field"),
            Self::UnknownKind(kind) => write!(f, "input has unknown kind {kind}"),
            Self::UnknownKey(key) => write!(f, "input has unknown key {key}"),
        }
    }
}

impl core::error::Error for InputError {}
