//! Linear memories of rooms: where their bytes live, how they are recycled, and how the host
//! reaches them between and during calls.
//!
//! Invariants
//! - a memory's base address never changes while its store lives, so a [`RawMemory`] stays good;
//! - bytes past the current length are inaccessible (`PROT_NONE`), which is what makes compiled
//!   code without bounds checks safe;
//! - every byte of a slot in the pool is zero.
//!
//! The pool exists because a first touch of a fresh page costs about 2 µs here, an instantiation
//! about 40 µs and a map/unmap pair about 20 µs (docs/ARCHITECTURE.md): a room that ends leaves its
//! pages, zeroed, to the next one.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use wasmer_compiler::{BaseTunables, Tunables};
use wasmer_types::{MemoryError, MemoryStyle, MemoryType, Pages, TableStyle, TableType};
use wasmer_vm::{
    LinearMemory, MaybeInstanceOwned, VMConfig, VMGlobalDefinition, VMMemory, VMMemoryDefinition,
    VMTable, VMTableDefinition,
};

/// Bytes in a wasm page.
pub(crate) const WASM_PAGE: usize = 65_536;
/// Bytes in the unit snapshots and zeroing work in.
pub(crate) const OS_PAGE: usize = 4_096;
/// Address space behind a memory whose accesses are bounds-checked in code.
const DYNAMIC_GUARD: usize = WASM_PAGE;
/// How much of a finished room's memory is zeroed in place and kept resident; the rest is given
/// back to the system.
const WARM_BYTES_MAX: usize = 4 << 20;

/// Idle, zeroed reservations waiting for a room.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: Mutex<Vec<Slot>>,
    idle_max: usize,
}

impl Pool {
    pub(crate) fn new(idle_max: usize) -> Self {
        Self {
            idle: Mutex::new(Vec::with_capacity(idle_max.min(1024))),
            idle_max,
        }
    }

    /// A reservation of `reserved` bytes whose first `length` bytes are readable, writable and
    /// zero, and whose other bytes are inaccessible.
    fn acquire(&self, reserved: usize, length: usize) -> Result<Slot, MemoryError> {
        let found = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.iter()
                .rposition(|slot| slot.reserved == reserved)
                .map(|at| idle.remove(at))
        };
        if let Some(mut slot) = found
            && slot.set_accessible(length).is_ok()
        {
            return Ok(slot);
        }
        let mut slot = Slot::map(reserved)?;
        slot.set_accessible(length)?;
        Ok(slot)
    }

    fn release(&self, mut slot: Slot) {
        if self.idle_max == 0 || !slot.zero() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // The one that waited longest goes: nobody may ask for its size any more.
        let oldest = (idle.len() >= self.idle_max).then(|| idle.remove(0));
        idle.push(slot);
        drop(idle);
        drop(oldest);
    }
}

/// One private anonymous mapping.
#[derive(Debug)]
struct Slot {
    base: NonNull<u8>,
    reserved: usize,
    accessible: usize,
}

// SAFETY: a slot owns its mapping; nothing else refers to it.
unsafe impl Send for Slot {}
// SAFETY: shared access to a slot reads only its own fields.
unsafe impl Sync for Slot {}

impl Slot {
    fn map(reserved: usize) -> Result<Self, MemoryError> {
        // SAFETY: a new private anonymous mapping at an address the kernel chooses aliases
        // nothing.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                reserved,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        match NonNull::new(base.cast::<u8>()) {
            Some(base_ptr) if base != libc::MAP_FAILED => {
                // SAFETY: the range is the mapping made above. A failure only makes core dumps
                // larger.
                unsafe { libc::madvise(base, reserved, libc::MADV_DONTDUMP) };
                Ok(Self {
                    base: base_ptr,
                    reserved,
                    accessible: 0,
                })
            }
            _ => Err(MemoryError::Region(format!(
                "cannot reserve {reserved} bytes of address space: {}",
                std::io::Error::last_os_error()
            ))),
        }
    }

    fn set_accessible(&mut self, length: usize) -> Result<(), MemoryError> {
        let (from, to, protection) = match length.cmp(&self.accessible) {
            std::cmp::Ordering::Equal => return Ok(()),
            std::cmp::Ordering::Greater => {
                (self.accessible, length, libc::PROT_READ | libc::PROT_WRITE)
            }
            std::cmp::Ordering::Less => (length, self.accessible, libc::PROT_NONE),
        };
        debug_assert!(to <= self.reserved);
        // SAFETY: `from..to` lies inside this slot's own mapping, and both ends are multiples of
        // the wasm page size.
        let done =
            unsafe { libc::mprotect(self.base.as_ptr().add(from).cast(), to - from, protection) };
        if done != 0 {
            return Err(MemoryError::Region(format!(
                "cannot change {} bytes of memory protection: {}",
                to - from,
                std::io::Error::last_os_error()
            )));
        }
        self.accessible = length;
        Ok(())
    }

    /// Clears every byte; `false` when that failed and the slot must not be used again.
    fn zero(&mut self) -> bool {
        const ZERO: [u8; OS_PAGE] = [0; OS_PAGE];
        let warm = self.accessible.min(WARM_BYTES_MAX);
        // SAFETY: the first `accessible` bytes are mapped readable and writable, and the slot is
        // not lent to any memory now.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), warm) };
        for page in bytes.chunks_exact_mut(OS_PAGE) {
            // Reading first keeps untouched pages unallocated.
            if page != ZERO {
                page.fill(0);
            }
        }
        if self.accessible > warm {
            // SAFETY: the range is inside this slot's mapping; anonymous pages given back read as
            // zero afterwards.
            let given_back = unsafe {
                libc::madvise(
                    self.base.as_ptr().add(warm).cast(),
                    self.accessible - warm,
                    libc::MADV_DONTNEED,
                )
            };
            return given_back == 0;
        }
        true
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: the mapping is this slot's own and nothing points into it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.reserved) };
    }
}

/// A guest's or a kernel's memory, drawn from the pool.
#[derive(Debug)]
struct RoomMemory {
    /// `None` only while dropping.
    slot: Option<Slot>,
    pool: Arc<Pool>,
    ty: MemoryType,
    style: MemoryStyle,
    maximum: Pages,
    definition: MaybeInstanceOwned<VMMemoryDefinition>,
}

// SAFETY: the definition pointer leads into the instance that owns this memory; both move and die
// together with their store, which one room owns.
unsafe impl Send for RoomMemory {}
// SAFETY: as above; `&RoomMemory` only reads.
unsafe impl Sync for RoomMemory {}

impl RoomMemory {
    fn pages(&self) -> Pages {
        let bytes = self.slot.as_ref().map_or(0, |slot| slot.accessible);
        // A memory is at most 65,536 pages, which fits.
        Pages((bytes / WASM_PAGE) as u32)
    }
}

impl Drop for RoomMemory {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.pool.release(slot);
        }
    }
}

impl LinearMemory for RoomMemory {
    fn ty(&self) -> MemoryType {
        let mut ty = self.ty;
        ty.minimum = self.pages();
        ty
    }

    fn size(&self) -> Pages {
        self.pages()
    }

    fn style(&self) -> MemoryStyle {
        self.style
    }

    fn grow(&mut self, delta: Pages) -> Result<Pages, MemoryError> {
        let before = self.pages();
        if delta.0 == 0 {
            return Ok(before);
        }
        let refused = MemoryError::CouldNotGrow {
            current: before,
            attempted_delta: delta,
        };
        let after = match before.0.checked_add(delta.0) {
            Some(after) if after <= self.maximum.0 => after as usize * WASM_PAGE,
            _ => return Err(refused),
        };
        let slot = self.slot.as_mut().ok_or(refused)?;
        slot.set_accessible(after)?;
        // SAFETY: the definition belongs to the live instance that is growing this memory, and
        // compiled code is not running while it does.
        unsafe { self.definition.as_ptr().as_mut().current_length = after };
        Ok(before)
    }

    fn vmmemory(&self) -> NonNull<VMMemoryDefinition> {
        self.definition.as_ptr()
    }

    fn try_clone(&self) -> Result<Box<dyn LinearMemory + Send + Sync>, MemoryError> {
        Err(MemoryError::MemoryNotShared)
    }

    fn copy(&self) -> Result<Box<dyn LinearMemory + Send + Sync>, MemoryError> {
        Err(MemoryError::MemoryNotShared)
    }
}

/// Which bounds checks compiled code carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryChecks {
    /// None: 8 GiB of address space stand behind the memory instead. Guests.
    Reserved,
    /// In code, behind a reservation of the memory's cap. The kernel, so that a room costs one
    /// large reservation and not two.
    InCode,
}

/// How wasmer makes the memories, tables and stacks of a game's rooms.
pub(crate) struct RoomTunables {
    base: BaseTunables,
    pool: Arc<Pool>,
    pages_max: u32,
    checks: MemoryChecks,
    config: VMConfig,
}

impl RoomTunables {
    pub(crate) fn new(
        pool: Arc<Pool>,
        pages_max: u32,
        checks: MemoryChecks,
        stack_bytes: usize,
    ) -> Self {
        Self {
            base: BaseTunables::new(),
            pool,
            pages_max,
            checks,
            config: VMConfig {
                wasm_stack_size: Some(stack_bytes),
            },
        }
    }
}

impl Tunables for RoomTunables {
    fn memory_style(&self, _: &MemoryType) -> MemoryStyle {
        match self.checks {
            MemoryChecks::Reserved => MemoryStyle::Static,
            MemoryChecks::InCode => MemoryStyle::Dynamic {
                offset_guard_size: DYNAMIC_GUARD as u64,
            },
        }
    }

    fn table_style(&self, table: &TableType) -> TableStyle {
        self.base.table_style(table)
    }

    fn create_host_memory(
        &self,
        ty: &MemoryType,
        style: &MemoryStyle,
    ) -> Result<VMMemory, MemoryError> {
        self.base.create_host_memory(ty, style)
    }

    unsafe fn create_vm_memory(
        &self,
        ty: &MemoryType,
        style: &MemoryStyle,
        mut location: NonNull<VMMemoryDefinition>,
    ) -> Result<VMMemory, MemoryError> {
        if ty.minimum.0 > self.pages_max {
            return Err(MemoryError::MinimumMemoryTooLarge {
                min_requested: ty.minimum,
                max_allowed: Pages(self.pages_max),
            });
        }
        let maximum = Pages(
            ty.maximum
                .map_or(self.pages_max, |pages| pages.0)
                .min(self.pages_max),
        );
        // The style is the one the code was compiled for, whatever these tunables would choose.
        let reserved = match style {
            MemoryStyle::Static => {
                MemoryStyle::static_bound().bytes().0
                    + MemoryStyle::static_offset_guard_size() as usize
            }
            MemoryStyle::Dynamic { offset_guard_size } => {
                self.pages_max as usize * WASM_PAGE + *offset_guard_size as usize
            }
        };
        let length = ty.minimum.0 as usize * WASM_PAGE;
        let slot = self.pool.acquire(reserved, length)?;
        // SAFETY: the caller promises that `location` is this memory's definition in the instance
        // being built.
        unsafe {
            let definition = location.as_mut();
            definition.base = slot.base.as_ptr();
            definition.current_length = length;
        }
        Ok(VMMemory::from_custom(Box::new(RoomMemory {
            slot: Some(slot),
            pool: Arc::clone(&self.pool),
            ty: *ty,
            style: *style,
            maximum,
            definition: MaybeInstanceOwned::Instance(location),
        })
            as Box<dyn LinearMemory + Send + Sync>))
    }

    fn create_host_table(&self, ty: &TableType, style: &TableStyle) -> Result<VMTable, String> {
        self.base.create_host_table(ty, style)
    }

    unsafe fn create_vm_table(
        &self,
        ty: &TableType,
        style: &TableStyle,
        location: NonNull<VMTableDefinition>,
    ) -> Result<VMTable, String> {
        // Table caps are in the table's own type: the rewrite clamps its maximum.
        // SAFETY: the caller's promise about `location` is passed on unchanged.
        unsafe { self.base.create_vm_table(ty, style, location) }
    }

    fn vmconfig(&self) -> &VMConfig {
        &self.config
    }
}

/// Direct access to a linear memory of a room, for host functions and between calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawMemory(NonNull<VMMemoryDefinition>);

// SAFETY: the pointer leads into the store of the room that owns this value; a room moves between
// threads whole (see `room::core`).
unsafe impl Send for RawMemory {}

impl RawMemory {
    /// # Safety
    /// `definition` must belong to a memory of a store that outlives every use of the value, and
    /// no compiled code may run while a slice from it is held.
    pub(crate) unsafe fn new(definition: NonNull<VMMemoryDefinition>) -> Self {
        Self(definition)
    }

    /// All bytes of the memory.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: by the promise made to `new` the definition is alive; base and length describe
        // mapped, initialised memory, and no guest code runs while the slice lives.
        unsafe {
            let definition = self.0.as_ref();
            std::slice::from_raw_parts(definition.base, definition.current_length)
        }
    }

    /// All bytes of the memory, to write.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` keeps this value from handing out two slices, and
        // each room holds one `RawMemory` per memory.
        unsafe {
            let definition = self.0.as_ref();
            std::slice::from_raw_parts_mut(definition.base, definition.current_length)
        }
    }

    /// Bytes of the memory that are in RAM, in whole pages: what was touched and is not swapped out.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let bytes = self.bytes();
        let mut pages = vec![0_u8; bytes.len().div_ceil(OS_PAGE)];
        // SAFETY: the range is this memory's own mapping, its start is page-aligned, and `pages`
        // has a byte for each page of it.
        let failed = unsafe {
            libc::mincore(
                bytes.as_ptr().cast_mut().cast(),
                bytes.len(),
                pages.as_mut_ptr().cast(),
            )
        };
        if failed != 0 {
            return bytes.len() as u64;
        }
        let resident = pages.iter().filter(|page| **page & 1 != 0).count();
        (resident * OS_PAGE) as u64
    }

    /// The `len` bytes at `offset`, or `None` when any of them lies outside.
    pub(crate) fn get(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        let end = usize::try_from(offset.checked_add(len)?).ok()?;
        self.bytes().get(start..end)
    }

    /// Writes `data` at `offset`; `false`, with nothing written, when it does not fit.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        let Ok(start) = usize::try_from(offset) else {
            return false;
        };
        let Some(end) = start.checked_add(data.len()) else {
            return false;
        };
        match self.bytes_mut().get_mut(start..end) {
            Some(target) => {
                target.copy_from_slice(data);
                true
            }
            None => false,
        }
    }
}

/// Direct access to one mutable global of a room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawGlobal(NonNull<VMGlobalDefinition>);

// SAFETY: as for `RawMemory`.
unsafe impl Send for RawGlobal {}

impl RawGlobal {
    /// # Safety
    /// `definition` must belong to a global of a store that outlives every use of the value.
    pub(crate) unsafe fn new(definition: NonNull<VMGlobalDefinition>) -> Self {
        Self(definition)
    }

    pub(crate) fn get_i64(self) -> i64 {
        self.as_atomic().load(Ordering::Relaxed)
    }

    pub(crate) fn set_i64(self, value: i64) {
        self.as_atomic().store(value, Ordering::Relaxed);
    }

    pub(crate) fn get_i32(self) -> i32 {
        // The low half: the other bytes of a 32-bit global are stray.
        self.get_i64() as i32
    }

    pub(crate) fn set_i32(self, value: i32) {
        self.set_i64(i64::from(value));
    }

    /// The cell the watchdog writes. Compiled code reads it with plain loads.
    fn as_atomic(&self) -> &AtomicI64 {
        // SAFETY: a global definition is 16 bytes, aligned to 16, alive by the promise made to
        // `new`; all host access to its first 8 bytes goes through this atomic.
        unsafe { AtomicI64::from_ptr(self.0.as_ptr().cast::<i64>()) }
    }

    /// The raw 16 bytes. Only the type's width of them means anything.
    pub(crate) fn get_raw(self) -> u128 {
        // SAFETY: alive and 16 bytes wide (see `as_atomic`); read between calls, when no other
        // thread writes it.
        unsafe { self.0.as_ptr().cast::<u128>().read() }
    }

    /// Replaces the raw 16 bytes.
    pub(crate) fn set_raw(self, value: u128) {
        // SAFETY: as in `get_raw`; the room is between calls.
        unsafe { self.0.as_ptr().cast::<u128>().write(value) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_slot_is_zero_and_its_tail_is_sealed() {
        let pool = Pool::new(4);
        let reserved = 64 * WASM_PAGE;
        let slot = pool.acquire(reserved, 3 * WASM_PAGE).unwrap();
        // SAFETY: three pages are accessible and ours.
        unsafe { std::slice::from_raw_parts_mut(slot.base.as_ptr(), 3 * WASM_PAGE).fill(7) };
        let base = slot.base;
        pool.release(slot);

        let again = pool.acquire(reserved, 2 * WASM_PAGE).unwrap();
        assert_eq!(again.base, base, "the warm slot is reused");
        assert_eq!(again.accessible, 2 * WASM_PAGE);
        let mut again = again;
        again.set_accessible(3 * WASM_PAGE).unwrap();
        // SAFETY: three pages are accessible and ours.
        let bytes = unsafe { std::slice::from_raw_parts(again.base.as_ptr(), 3 * WASM_PAGE) };
        assert!(bytes.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_full_pool_gives_the_rest_back() {
        let pool = Pool::new(1);
        let first = pool.acquire(4 * WASM_PAGE, WASM_PAGE).unwrap();
        let second = pool.acquire(4 * WASM_PAGE, WASM_PAGE).unwrap();
        pool.release(first);
        pool.release(second);
        assert_eq!(pool.idle.lock().unwrap().len(), 1);
    }
}
