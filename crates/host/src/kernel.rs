//! The Extism kernel of a room: the memory through which guest and host exchange payloads.
//!
//! The hot half is wasm ([`WAT`]), linked straight into the guest; the rest is here. Addresses are
//! the reference allocator's (guest memory hashes depend on them), but blocks are described in an
//! [`Arena`] on the host's side, where no guest store reaches.
//!
//! Invariants
//! - everything a callback wrote is cleared before the next one, so the memory carries no state
//!   between callbacks but its size;
//! - a block the guest freed after `output_set` or `error_set` stays readable until then.

use wasmer::{AsStoreMut, Memory};

use crate::arena::Arena;
use crate::memory::{RawGlobal, RawMemory};

/// Source of the hot half.
pub(crate) const WAT: &str = include_str!("kernel.wat");
/// Blocks up to this size are expected to be filled: twenty whole frames.
const EAGER_BYTES_MAX: u64 = 1 << 20;
/// Pages the kernel's memory starts with, as the reference's.
pub(crate) const PAGES_MIN: u32 = 16;

/// The kernel of one room.
#[derive(Debug)]
pub(crate) struct Kernel {
    arena: Arena,
    /// `None` until the room is instantiated.
    wired: Option<Wired>,
    output: (u64, u64),
    error: (u64, u64),
}

/// Where the kernel's wasm half keeps its state.
#[derive(Debug)]
pub(crate) struct Wired {
    pub(crate) memory: RawMemory,
    pub(crate) grow: Memory,
    pub(crate) input_offset: RawGlobal,
    pub(crate) input_length: RawGlobal,
    pub(crate) dirty: RawGlobal,
}

/// A block lies outside the kernel's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfBounds;

impl Kernel {
    pub(crate) fn new() -> Self {
        Self {
            arena: Arena::new(),
            wired: None,
            output: (0, 0),
            error: (0, 0),
        }
    }

    pub(crate) fn wire(&mut self, wired: Wired) {
        self.wired = Some(wired);
    }

    /// Clears the last callback's blocks and presents `input` to the guest. `false` when the
    /// input does not fit the memory.
    pub(crate) fn begin(&mut self, store: &mut impl AsStoreMut, input: &[u8]) -> bool {
        let Some(wired) = self.wired.as_mut() else {
            return false;
        };
        let dirty = usize::try_from(wired.dirty.get_i64()).unwrap_or(0);
        let bytes = wired.memory.bytes_mut();
        let dirty = dirty.min(bytes.len());
        bytes[..dirty].fill(0);
        wired.dirty.set_i64(0);
        wired.input_offset.set_i64(0);
        wired.input_length.set_i64(0);
        self.arena.reset();
        self.output = (0, 0);
        self.error = (0, 0);
        if input.is_empty() {
            return true;
        }
        let offset = self.put(store, input);
        let Some(wired) = self.wired.as_mut() else {
            return false;
        };
        wired.input_offset.set_i64(offset as i64);
        wired
            .input_length
            .set_i64(if offset == 0 { 0 } else { input.len() as i64 });
        offset != 0
    }

    /// A new block of `len` bytes; 0 when there is no room.
    pub(crate) fn alloc(&mut self, store: &mut impl AsStoreMut, len: u64) -> u64 {
        let Some(wired) = self.wired.as_ref() else {
            return 0;
        };
        let offset = self
            .arena
            .alloc(len, |pages| wired.grow.grow(store, pages).is_ok());
        if offset != 0 {
            // The guest is about to fill the block: so its stores need not extend the range that
            // is cleared later, one by one. A huge block may never be touched; clearing it would
            // be what makes it resident.
            if len <= EAGER_BYTES_MAX {
                let end = (offset + len) as i64;
                wired.dirty.set_i64(wired.dirty.get_i64().max(end));
            }
        }
        offset
    }

    /// A new block holding `data`; 0 when there is no room, or no data.
    pub(crate) fn put(&mut self, store: &mut impl AsStoreMut, data: &[u8]) -> u64 {
        let offset = self.alloc(store, data.len() as u64);
        if offset == 0 {
            return 0;
        }
        let Some(wired) = self.wired.as_mut() else {
            return 0;
        };
        if !wired.memory.write(offset, data) {
            return 0;
        }
        let end = (offset + data.len() as u64) as i64;
        wired.dirty.set_i64(wired.dirty.get_i64().max(end));
        offset
    }

    /// Bytes that the next clearing clears.
    pub(crate) fn dirty_bytes(&self) -> u64 {
        self.wired
            .as_ref()
            .map_or(0, |wired| wired.dirty.get_i64() as u64)
    }

    /// Frees the live block that starts at `offset`, if there is one.
    pub(crate) fn free(&mut self, offset: u64) {
        if self.arena.free(offset)
            && let Some(wired) = self.wired.as_ref()
            && wired.input_offset.get_i64() as u64 == offset
        {
            wired.input_length.set_i64(0);
        }
    }

    /// Size of the live block that starts at `offset`; 0 when there is none.
    pub(crate) fn length(&self, offset: u64) -> u64 {
        self.arena.length(offset)
    }

    /// The bytes a guest means by `offset`: the live block that starts there, else nothing.
    pub(crate) fn read(&self, offset: i64) -> Result<&[u8], OutOfBounds> {
        let len = self.arena.length(offset as u64);
        self.range(offset as u64 & 0xffff_ffff, len)
            .ok_or(OutOfBounds)
    }

    /// Remembers the output range; a range the kernel does not obey is ignored.
    pub(crate) fn set_output(&mut self, offset: u64, len: u64) {
        if self.obeys(offset, len) {
            self.output = (offset, len);
        }
    }

    /// Whether input or output may be set to a range: its first byte and its last lie where blocks
    /// do, as the reference's kernel was seen to check. (Its last byte is computed as
    /// `offset + len - 1` whatever `len` is.)
    fn obeys(&self, offset: u64, len: u64) -> bool {
        let last = offset.wrapping_add(len).wrapping_sub(1);
        self.in_blocks(offset) && self.in_blocks(last) && self.range(offset, len).is_some()
    }

    fn in_blocks(&self, at: u64) -> bool {
        at > crate::arena::ROOT_BYTES && at <= crate::arena::ROOT_BYTES + self.memory_bytes()
    }

    /// What the guest last declared as its output.
    pub(crate) fn output(&self) -> &[u8] {
        self.range(self.output.0, self.output.1).unwrap_or(&[])
    }

    /// Where the output is: offset and length.
    pub(crate) fn output_range(&self) -> (u64, u64) {
        self.output
    }

    /// Sets or, with 0, clears the error block.
    pub(crate) fn set_error(&mut self, offset: u64) {
        if offset == 0 || self.in_blocks(offset) {
            // Remembered with its length: the block may be freed before the callback ends.
            self.error = (offset, self.arena.length(offset));
        }
    }

    /// The error block's offset, 0 for none.
    pub(crate) fn error(&self) -> u64 {
        self.error.0
    }

    /// The error text, when one is set.
    pub(crate) fn error_text(&self) -> Option<&[u8]> {
        let (offset, len) = self.error;
        (offset != 0).then(|| self.range(offset, len).unwrap_or(&[]))
    }

    /// Presents another block as the input, as the kernel's own `input_set` does.
    pub(crate) fn set_input(&mut self, offset: u64, len: u64) {
        if self.obeys(offset, len)
            && let Some(wired) = self.wired.as_ref()
        {
            wired.input_offset.set_i64(offset as i64);
            wired.input_length.set_i64(len as i64);
        }
    }

    /// Where the input is.
    pub(crate) fn input_offset(&self) -> u64 {
        self.wired
            .as_ref()
            .map_or(0, |wired| wired.input_offset.get_i64() as u64)
    }

    /// Bytes the allocator has at its disposal, as the kernel's `memory_bytes` tells.
    pub(crate) fn memory_bytes(&self) -> u64 {
        crate::memory::WASM_PAGE as u64 * (1 + u64::from(self.arena.grown_pages()))
            - crate::arena::ROOT_BYTES
    }

    /// Forgets every block, as the kernel's own `reset` does.
    pub(crate) fn reset(&mut self, store: &mut impl AsStoreMut) {
        self.begin(store, &[]);
    }

    /// Pages the allocator added beyond its first; the kernel's only state between callbacks.
    pub(crate) fn grown_pages(&self) -> u32 {
        self.arena.grown_pages()
    }

    /// Bytes of the memory in RAM.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.wired
            .as_ref()
            .map_or(0, |wired| wired.memory.resident_bytes())
    }

    /// Pages of the memory in all.
    pub(crate) fn memory_pages(&self) -> u32 {
        self.wired.as_ref().map_or(0, |wired| {
            (wired.memory.bytes().len() / crate::memory::WASM_PAGE) as u32
        })
    }

    /// Brings a fresh kernel to the size of a captured one. `false` when memory cannot grow.
    pub(crate) fn restore_grown_pages(&mut self, store: &mut impl AsStoreMut, pages: u32) -> bool {
        let Some(wired) = self.wired.as_ref() else {
            return false;
        };
        (pages == 0 || wired.grow.grow(store, pages).is_ok())
            && self.arena.restore_grown_pages(pages)
    }

    fn range(&self, offset: u64, len: u64) -> Option<&[u8]> {
        self.wired.as_ref()?.memory.get(offset, len)
    }
}
