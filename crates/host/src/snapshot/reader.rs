//! Reading from bytes nobody vouches for, and the compressed frames they come in.

use zstd::zstd_safe::{self, CCtx, CParameter, DCtx};

/// A position in a byte string. Every read either moves past what it returns or changes nothing.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// A u16 length and that many bytes.
    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let mut ahead = self.clone();
        let length = ahead.u16()?;
        let text = ahead.bytes(usize::from(length))?;
        *self = ahead;
        Some(text)
    }
}

/// A zstd decompressor and the buffer it writes to, both kept for the next time.
pub(super) struct Inflater {
    context: DCtx<'static>,
    buffer: Vec<u8>,
}

/// Why [`Inflater::inflate`] gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadFrame;

impl Inflater {
    pub(super) fn new() -> Self {
        Self {
            context: DCtx::create(),
            buffer: Vec::new(),
        }
    }

    /// The content of a whole frame that holds exactly `length` bytes, which are allocated at
    /// once: bound them first.
    pub(super) fn inflate(&mut self, frame: &[u8], length: usize) -> Result<Vec<u8>, BadFrame> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.reserve(length);
        match self.context.decompress(&mut buffer, frame) {
            Ok(written) if written == length => Ok(buffer),
            _ => {
                self.buffer = buffer;
                Err(BadFrame)
            }
        }
    }

    /// Takes a buffer back, to write the next content into.
    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() > self.buffer.capacity() {
            self.buffer = buffer;
        }
    }
}

/// The content size a frame declares, if the bytes are exactly one frame that does.
pub(super) fn declared_size(frame: &[u8]) -> Option<u64> {
    let whole = zstd_safe::find_frame_compressed_size(frame).ok()?;
    if whole != frame.len() {
        return None;
    }
    zstd_safe::get_frame_content_size(frame).ok().flatten()
}

/// Appends one zstd frame with content size and checksum to `out`.
pub(super) fn deflate(out: &mut Vec<u8>, content: &[u8], level: i32) -> Result<(), &'static str> {
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(level),
        CParameter::ContentSizeFlag(true),
        CParameter::ChecksumFlag(true),
    ] {
        context
            .set_parameter(parameter)
            .map_err(zstd_safe::get_error_name)?;
    }
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(content.len()));
    context
        .compress2(&mut frame, content)
        .map_err(zstd_safe::get_error_name)?;
    out.extend_from_slice(&frame);
    Ok(())
}
