//! Every number of the ABI in one place.
//!
//! Sizes are bytes unless the name says otherwise. Those marked *host default* are what the
//! reference host does when nothing else is configured; a game must not rely on them.

/// The major version a guest's `shellcade_abi` must answer.
pub const ABI_MAJOR: u32 = 2;
/// The newest wire-visible minor this crate speaks, stamped into meta by guest SDKs.
pub const WIRE_REVISION: u16 = 6;

/// Rows of a frame.
pub const ROWS: usize = 24;
/// Columns of a frame.
pub const COLS: usize = 80;
/// Bytes of one packed cell.
pub const CELL_BYTES: usize = 24;
/// Cells of a frame.
pub const FRAME_CELLS: usize = ROWS * COLS;
/// Bytes of one packed row.
pub const ROW_BYTES: usize = COLS * CELL_BYTES;
/// Bytes of a packed frame, the "grid".
pub const FRAME_BYTES: usize = FRAME_CELLS * CELL_BYTES;

/// Bytes of the frame container's header.
pub const DELTA_HEADER_BYTES: usize = 9;
/// Bytes in front of each run of a frame container.
pub const RUN_HEADER_BYTES: usize = 4;
/// Bytes of a keyframe: header, one run header, the whole grid.
pub const KEYFRAME_BYTES: usize = DELTA_HEADER_BYTES + RUN_HEADER_BYTES + FRAME_BYTES;
/// The largest container an encoder emits; at this size a keyframe is sent instead.
pub const DELTA_BYTES_MAX: usize = KEYFRAME_BYTES;
/// The only assigned bit of the container's flags.
pub const FLAG_KEYFRAME: u8 = 0x01;

/// One past the largest roster index a frame can be sent to.
pub const ROSTER_CAP: usize = 1024;
/// The slot of broadcast frames, after the roster's.
pub const BROADCAST_SLOT: usize = ROSTER_CAP;

/// Member count that says "the roster of this epoch, which you have".
pub const CTX_ROSTER_UNCHANGED: u16 = 0xFFFF;
/// Member count that says "an epoch and a real count follow".
pub const CTX_ROSTER_FULL: u16 = 0xFFFE;
/// The largest member count the legacy roster form can carry.
pub const CTX_ROSTER_COUNT_MAX: u16 = 0xFFFD;
/// Bytes of the call context before the member section.
pub const CTX_HEAD_BYTES: usize = 22;

/// Meta feature bit: the guest understands roster epochs.
pub const CTX_FEATURE_ROSTER_EPOCH: u32 = 1 << 0;
/// Meta feature bit: the guest reads a character section behind every member.
pub const CTX_FEATURE_CHARACTER: u32 = 1 << 1;
/// Every feature bit this revision assigns.
pub const KNOWN_CTX_FEATURES: u32 = CTX_FEATURE_ROSTER_EPOCH | CTX_FEATURE_CHARACTER;

/// Bytes behind the context of `join` and `leave`.
pub const INDEX_BYTES: usize = 4;
/// Bytes behind the context of `input`.
pub const INPUT_BYTES: usize = 10;
/// Bytes of one ranking in a result.
pub const RANKING_BYTES: usize = 15;

/// The longest string the wire can carry.
pub const TEXT_BYTES_MAX: usize = u16::MAX as usize;
/// The longest list the wire can carry, in items.
pub const LIST_COUNT_MAX: usize = u16::MAX as usize;
/// The longest slug.
pub const SLUG_BYTES_MAX: usize = 32;
/// The shortest heartbeat a game may declare, in milliseconds (0 declares none).
pub const HEARTBEAT_MIN_MS: u16 = 20;
/// The longest heartbeat a game may declare, in milliseconds.
pub const HEARTBEAT_MAX_MS: u16 = 1000;
/// The most controls a game may declare.
pub const CONTROLS_MAX: usize = 32;
/// The longest control label, in code points (an invalid UTF-8 byte counts as one).
pub const CONTROL_LABEL_CHARS_MAX: usize = 16;
/// Config keys that start with this belong to the host; a game may not declare them.
pub const HOST_KEY_PREFIX: &str = "host.";
/// The deepest nesting a config schema may have.
pub const JSON_DEPTH_MAX: usize = 10_000;

/// Host default: time between wakes, in milliseconds.
pub const HEARTBEAT_DEFAULT_MS: u64 = 50;
/// Host default: wall-clock time a callback may take, in milliseconds.
pub const DEADLINE_DEFAULT_MS: u64 = 100;
/// The shortest deadline the `host.deadline_ms` config key may set.
pub const DEADLINE_MIN_MS: u64 = 10;
/// The longest deadline the `host.deadline_ms` config key may set.
pub const DEADLINE_MAX_MS: u64 = 2000;
/// Host default: wasm pages of guest memory, and separately of kernel memory.
pub const MEMORY_PAGES_MAX: u32 = 512;
/// Host default: time one key-value or config request may take, in milliseconds.
pub const SERVICE_TIMEOUT_DEFAULT_MS: u64 = 2000;
/// Host default: bytes kept of one guest log write.
pub const LOG_WRITE_BYTES_MAX: usize = 4096;
/// Host default: guest log bytes per room and second.
pub const LOG_BYTES_PER_SECOND: usize = 32_768;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_that_follow_from_others_are_the_abis() {
        assert_eq!((FRAME_CELLS, ROW_BYTES, FRAME_BYTES), (1920, 1920, 46_080));
        assert_eq!((KEYFRAME_BYTES, DELTA_BYTES_MAX), (46_093, 46_093));
        assert_eq!((TEXT_BYTES_MAX, LIST_COUNT_MAX), (65_535, 65_535));
        assert_eq!(KNOWN_CTX_FEATURES, 3);
        assert_eq!(CTX_ROSTER_COUNT_MAX + 1, CTX_ROSTER_FULL);
        assert_eq!(CTX_ROSTER_FULL + 1, CTX_ROSTER_UNCHANGED);
    }
}
