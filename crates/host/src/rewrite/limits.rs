//! What a guest module may contain, in one place.
//!
//! Every number admits at least twice the largest value seen in nineteen real guests (a body of
//! 49,127 bytes, nesting 605, 41 locals, 2,265 functions, a table of 6,361, 8 mutable globals) and
//! is small enough that a module at every limit is still parsed in bounded time and memory.

use super::refusal::Refusal;

/// Limits on one guest module. All maxima are inclusive: a module at the limit loads, one past it
/// is refused with [`Refusal::Limit`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ModuleLimits {
    /// Size of the artifact, bytes (16 MiB; the largest known guest is 681,210).
    pub artifact_bytes_max: u64,
    /// Types in the type section (5,000).
    pub types_max: u32,
    /// Parameters plus results of one type (256). Two bytes of `call` move this many values, so it
    /// bounds how much work a byte of code can ask of the compiler.
    pub signature_values_max: u32,
    /// Imports (512).
    pub imports_max: u32,
    /// Functions defined by the module (20,000).
    pub functions_max: u32,
    /// Size of one function body, bytes (512 KiB).
    pub body_bytes_max: u64,
    /// Size of all function bodies after the rewrite, bytes (32 MiB), by an upper estimate.
    pub code_bytes_max: u64,
    /// Parameters plus locals of one function (5,000).
    pub locals_max: u32,
    /// Nesting of blocks, loops and ifs in one function (2,000).
    pub nesting_max: u32,
    /// Operators in one function (262,144).
    pub operators_max: u32,
    /// Targets of one `br_table`, without the default (20,000).
    pub br_table_targets_max: u32,
    /// Estimated frame of one function in 8-byte slots (16,384, that is 128 KiB).
    pub frame_slots_max: u32,
    /// Sum of the frames of all active calls in 8-byte slots (131,072, that is 1 MiB). Baked into
    /// the code; past it the guest traps with the depth global at [`super::DEPTH_EXHAUSTED`].
    pub depth_slots_max: u32,
    /// Globals, mutable or not (4,096).
    pub globals_max: u32,
    /// Mutable globals (256).
    pub mutable_globals_max: u32,
    /// Tables (16).
    pub tables_max: u32,
    /// Elements of all tables together, now and after any growth (65,536).
    pub table_elements_max: u32,
    /// Element segments (20,000).
    pub element_segments_max: u32,
    /// Items of all element segments together (131,072).
    pub element_items_max: u32,
    /// Data segments (20,000).
    pub data_segments_max: u32,
    /// Bytes of all data segments together (32 MiB).
    pub data_bytes_max: u64,
    /// Exports (4,096).
    pub exports_max: u32,
    /// Pages of 64 KiB the memory may have, at first and after any growth (512, that is 32 MiB).
    pub memory_pages_max: u32,
    /// Costliest function admitted to the optimising tier, in the unit of [`super::Cost`] (3 s).
    pub cost_speed_max: u64,
    /// Whole module admitted to the optimising tier (15 s).
    pub cost_speed_total_max: u64,
    /// Costliest function admitted to the quick tier (4 s).
    pub cost_quick_max: u64,
    /// Whole module admitted to the quick tier (20 s).
    pub cost_quick_total_max: u64,
}

impl Default for ModuleLimits {
    fn default() -> Self {
        Self {
            artifact_bytes_max: 16 << 20,
            types_max: 5_000,
            signature_values_max: 256,
            imports_max: 512,
            functions_max: 20_000,
            body_bytes_max: 512 << 10,
            code_bytes_max: 32 << 20,
            locals_max: 5_000,
            nesting_max: 2_000,
            operators_max: 262_144,
            br_table_targets_max: 20_000,
            frame_slots_max: 16_384,
            depth_slots_max: 131_072,
            globals_max: 4_096,
            mutable_globals_max: 256,
            tables_max: 16,
            table_elements_max: 65_536,
            element_segments_max: 20_000,
            element_items_max: 131_072,
            data_segments_max: 20_000,
            data_bytes_max: 32 << 20,
            exports_max: 4_096,
            memory_pages_max: 512,
            cost_speed_max: 3_000_000,
            cost_speed_total_max: 15_000_000,
            cost_quick_max: 4_000_000,
            cost_quick_total_max: 20_000_000,
        }
    }
}

/// Refuses `found` past `max`, naming `what` was counted.
pub(super) fn within<T: Into<u64>>(what: &'static str, found: T, max: T) -> Result<(), Refusal> {
    let (found, max) = (found.into(), max.into());
    if found > max {
        return Err(Refusal::Limit { what, found, max });
    }
    Ok(())
}
