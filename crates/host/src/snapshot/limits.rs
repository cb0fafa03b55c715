//! The most a snapshot may hold of each thing.
//!
//! Each limit is above what a room can come to have: they keep a forged snapshot from costing
//! more than its own size.

use cabinet_wire::{ROSTER_CAP, ROWS, TEXT_BYTES_MAX};

use super::SnapshotError;
use super::image::PAGES_PER_WASM_PAGE;

/// One limit, and what it limits.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// What is counted, as error messages name it.
    pub what: &'static str,
    /// The most there may be.
    pub max: usize,
}

/// Players in one list; a wire roster's count is 16 bits.
pub const PLAYERS: Limit = limit("players", 65_535);
/// Bytes of one string, as on the wire.
pub const TEXT: Limit = limit("bytes of text", TEXT_BYTES_MAX);
/// Bytes of a member section.
pub const MEMBER_SECTION: Limit = limit("bytes of member section", 64 << 20);
/// Standings in a result; a wire result's count is 16 bits.
pub const STANDINGS: Limit = limit("standings", 65_535);
/// Frame rows: every slot, the broadcast slot too, with 24 of its own.
pub const FRAME_ROWS: Limit = limit("frame rows", (ROSTER_CAP + 1) * ROWS);
/// Slots that are not the broadcast slot.
pub const SLOTS: Limit = limit("slots", ROSTER_CAP);
/// Globals; the loader admits fewer.
pub const GLOBALS: Limit = limit("globals", 65_536);
/// Tables; the loader admits fewer.
pub const TABLES: Limit = limit("tables", 256);
/// Elements of one table; the loader admits fewer.
pub const TABLE_ELEMENTS: Limit = limit("table elements", 1 << 20);
/// Wasm pages of a 32-bit memory.
pub const MEMORY_PAGES: Limit = limit("memory pages", 65_536);
/// Pages of 4 KiB in a memory.
pub const PAGES: Limit = limit("pages of 4 KiB", MEMORY_PAGES.max * PAGES_PER_WASM_PAGE);

const fn limit(what: &'static str, max: usize) -> Limit {
    Limit { what, max }
}

impl Limit {
    pub(super) fn check(self, found: usize) -> Result<usize, SnapshotError> {
        if found > self.max {
            return Err(SnapshotError::Limit {
                what: self.what,
                found: found as u64,
                max: self.max as u64,
            });
        }
        Ok(found)
    }
}
