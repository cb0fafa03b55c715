//! The cursor every decoder reads through: bounds-checked, and short is an error at once.

use crate::Text;

/// A payload ended inside a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Short;

/// A cursor over a payload. A read that does not fit returns [`Short`] and consumes nothing; no
/// caller reads on after one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Short> {
        let (read, rest) = self.rest.split_at_checked(len).ok_or(Short)?;
        self.rest = rest;
        Ok(read)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let (read, rest) = self.rest.split_first_chunk().ok_or(Short)?;
        self.rest = rest;
        Ok(*read)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Short> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// A flag: true for the byte 1 alone.
    pub(crate) fn flag(&mut self) -> Result<bool, Short> {
        Ok(self.u8()? == 1)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Short> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Short> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Short> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(crate) fn rgb(&mut self) -> Result<[u8; 3], Short> {
        self.array()
    }

    pub(crate) fn text(&mut self) -> Result<Text<'a>, Short> {
        let len = self.u16()?;
        Ok(Text(self.bytes(usize::from(len))?))
    }

    /// The bytes consumed since `start`, an earlier copy of this reader.
    pub(crate) fn since(&self, start: Self) -> &'a [u8] {
        &start.rest[..start.rest.len() - self.rest.len()]
    }
}
