//! Helpers that take the place of `memory.fill`, `memory.copy` and `memory.init`.
//!
//! Invariants
//! - a helper leaves memory exactly as its instruction would, and traps exactly when it would, as
//!   itself: an out-of-bounds range reaches the original instruction whole, before a byte is written;
//! - no native bulk operation is longer than [`CHUNK_BYTES`], and a check stands before each, so
//!   that neither the budget nor the watchdog waits for 32 MiB;
//! - the charge depends on the length alone: one, and one for each 64 bytes, of each chunk.

use wasm_encoder::{BlockType, Encode, InstructionSink, ValType};

use super::instrument::{Layout, charge};

/// The longest native bulk operation (0.1–0.3 ms).
pub(super) const CHUNK_BYTES: u32 = 1 << 20;
/// Up to this length the instruction runs as it is, without the range check.
const SMALL_BYTES: u32 = 4_096;
/// log2 of the bytes that one unit of fuel pays for.
const BYTES_PER_FUEL_LOG2: u32 = 6;

/// Parameters of a helper, `(destination, source or value, length)`, and its locals.
const DESTINATION: u32 = 0;
const SOURCE: u32 = 1;
const LENGTH: u32 = 2;
const CHUNK: u32 = 3;
const BACKWARD: u32 = 4;

/// A bulk memory instruction with a helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bulk {
    Fill,
    Copy,
    /// Of a segment that has this many bytes left after instantiation.
    Init {
        segment: u32,
        bytes: u32,
    },
}

impl Bulk {
    /// Name for trap reports.
    pub fn name(self) -> String {
        match self {
            Bulk::Fill => "cabinet:fill".to_owned(),
            Bulk::Copy => "cabinet:copy".to_owned(),
            Bulk::Init { segment, .. } => format!("cabinet:init{segment}"),
        }
    }

    /// The body of the helper: locals and code, without its size.
    pub fn body(self, layout: &Layout) -> Vec<u8> {
        let mut bytes = Vec::new();
        // One group of two i32: CHUNK and BACKWARD.
        1u32.encode(&mut bytes);
        2u32.encode(&mut bytes);
        ValType::I32.encode(&mut bytes);
        let sink = &mut InstructionSink::new(&mut bytes);
        self.small(sink, layout);
        self.out_of_bounds(sink);
        if self == Bulk::Copy {
            // Chunks go downwards when the destination lies above the source, so that a chunk
            // never overwrites what a later one reads.
            sink.local_get(DESTINATION)
                .local_get(SOURCE)
                .i32_gt_u()
                .local_set(BACKWARD);
        }
        self.chunks(sink, layout);
        sink.end();
        bytes
    }

    /// `if length <= SMALL { charge; the instruction; return }`
    fn small(self, sink: &mut InstructionSink<'_>, layout: &Layout) {
        sink.local_get(LENGTH)
            .i32_const(SMALL_BYTES as i32)
            .i32_le_u()
            .if_(BlockType::Empty);
        charge(sink, layout, LENGTH, BYTES_PER_FUEL_LOG2);
        sink.local_get(DESTINATION)
            .local_get(SOURCE)
            .local_get(LENGTH);
        self.instruction(sink);
        sink.return_().end();
    }

    /// `if the range is out of bounds { the instruction, which traps }`
    fn out_of_bounds(self, sink: &mut InstructionSink<'_>) {
        past_memory(sink, DESTINATION);
        match self {
            Bulk::Fill => {}
            Bulk::Copy => {
                past_memory(sink, SOURCE);
                sink.i32_or();
            }
            Bulk::Init { bytes, .. } => {
                end_of_range(sink, SOURCE);
                sink.i64_const(i64::from(bytes)).i64_gt_u().i32_or();
            }
        }
        sink.if_(BlockType::Empty)
            .local_get(DESTINATION)
            .local_get(SOURCE)
            .local_get(LENGTH);
        self.instruction(sink);
        sink.unreachable().end();
    }

    /// `loop { chunk = min(length, CHUNK); charge; one chunk; if length != 0 continue }`
    fn chunks(self, sink: &mut InstructionSink<'_>, layout: &Layout) {
        sink.loop_(BlockType::Empty)
            .local_get(LENGTH)
            .i32_const(CHUNK_BYTES as i32)
            .local_get(LENGTH)
            .i32_const(CHUNK_BYTES as i32)
            .i32_lt_u()
            .select()
            .local_set(CHUNK);
        charge(sink, layout, CHUNK, BYTES_PER_FUEL_LOG2);
        sink.local_get(LENGTH)
            .local_get(CHUNK)
            .i32_sub()
            .local_set(LENGTH);
        if self == Bulk::Copy {
            sink.local_get(BACKWARD)
                .if_(BlockType::Empty)
                .local_get(DESTINATION)
                .local_get(LENGTH)
                .i32_add()
                .local_get(SOURCE)
                .local_get(LENGTH)
                .i32_add()
                .local_get(CHUNK);
            self.instruction(sink);
            sink.else_();
        }
        sink.local_get(DESTINATION)
            .local_get(SOURCE)
            .local_get(CHUNK);
        self.instruction(sink);
        advance(sink, DESTINATION);
        if self != Bulk::Fill {
            advance(sink, SOURCE);
        }
        if self == Bulk::Copy {
            sink.end();
        }
        sink.local_get(LENGTH).br_if(0).end();
    }

    fn instruction(self, sink: &mut InstructionSink<'_>) {
        match self {
            Bulk::Fill => sink.memory_fill(0),
            Bulk::Copy => sink.memory_copy(0, 0),
            Bulk::Init { segment, .. } => sink.memory_init(0, segment),
        };
    }
}

/// Pushes whether `start + length` lies past the end of memory.
fn past_memory(sink: &mut InstructionSink<'_>, start: u32) {
    end_of_range(sink, start);
    sink.memory_size(0)
        .i64_extend_i32_u()
        .i64_const(16)
        .i64_shl()
        .i64_gt_u();
}

/// Pushes `start + length` in 64 bits, where it cannot wrap.
fn end_of_range(sink: &mut InstructionSink<'_>, start: u32) {
    sink.local_get(start)
        .i64_extend_i32_u()
        .local_get(LENGTH)
        .i64_extend_i32_u()
        .i64_add();
}

fn advance(sink: &mut InstructionSink<'_>, local: u32) {
    sink.local_get(local)
        .local_get(CHUNK)
        .i32_add()
        .local_set(local);
}
