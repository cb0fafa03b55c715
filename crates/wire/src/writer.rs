//! Appending fields to a caller's buffer.

use alloc::vec::Vec;

use crate::{TEXT_BYTES_MAX, Text};

/// A text has more than [`TEXT_BYTES_MAX`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TextTooLong {
    pub(crate) bytes: usize,
}

/// Appends a length and the bytes, or nothing when they do not fit the length.
pub(crate) fn put_text(out: &mut Vec<u8>, text: Text<'_>) -> Result<(), TextTooLong> {
    let bytes = text.as_bytes();
    let len = u16::try_from(bytes.len()).map_err(|_| TextTooLong { bytes: bytes.len() })?;
    debug_assert!(bytes.len() <= TEXT_BYTES_MAX);
    put_u16(out, len);
    out.extend_from_slice(bytes);
    Ok(())
}

pub(crate) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Runs `write`; on its error the buffer is as long as it was before.
pub(crate) fn or_undo<E>(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let mark = out.len();
    let result = write(out);
    if result.is_err() {
        out.truncate(mark);
    }
    result
}
