//! The code the rewrite puts into a guest's functions.
//!
//! A *check* takes fuel and traps when less is left than the limit cell says. It stores on purpose:
//! Cranelift hoists a check that only loads out of a loop that stores nothing, and then the loop
//! never sees the watchdog's write (docs/ARCHITECTURE.md).
//!
//! Invariants
//! - every function entry and every turn of every loop passes a check, so between two checks there
//!   is straight-line code and at most one bulk operation of bounded length;
//! - every function that can call adds its frame to the depth before it does and takes it off at
//!   every way out that is not a trap;
//! - inserted code leaves the operand stack as it was and touches no local of the guest.

use std::collections::BTreeMap;

use wasm_encoder::{BlockType, Encode, InstructionSink, ValType};

use super::body::{Body, EditKind};

/// log2 of the table elements or memory pages that one unit of fuel pays for.
const ELEMENTS_PER_FUEL_LOG2: u32 = 4;

/// Indexes of what the rewrite adds, and the limits it bakes into the code.
pub(super) struct Layout {
    pub fuel: u32,
    pub limit: u32,
    pub depth: u32,
    pub depth_max: i32,
    pub fill: u32,
    pub copy: u32,
    /// Helper by data segment.
    pub init: BTreeMap<u32, u32>,
    /// Type `() -> results` by the type of the function that has those results, where a block
    /// cannot say them without a type of its own.
    pub result_types: BTreeMap<u32, u32>,
    pub memory_pages_max: u32,
    pub table_elements_max: u32,
}

/// The rewritten body: locals and code, without its size. `results` are those of the function, and
/// `ty` the index of its type.
pub(super) fn function(
    wasm: &[u8],
    body: &Body,
    ty: u32,
    results: &[wasmparser::ValType],
    layout: &Layout,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.rewritten_bytes as usize);
    locals(wasm, body, &mut out);
    check(&mut InstructionSink::new(&mut out), layout, body.weight);
    if body.calls {
        enter(&mut InstructionSink::new(&mut out), layout, body.slots);
        let block = block_type(ty, results, layout);
        InstructionSink::new(&mut out).block(block);
    }
    let mut copied = body.code_at;
    for edit in &body.edits {
        out.extend_from_slice(&wasm[copied..edit.from]);
        copied = edit.to;
        let sink = &mut InstructionSink::new(&mut out);
        match edit.kind {
            EditKind::Loop { weight } => check(sink, layout, weight),
            EditKind::Return { label } if body.calls => {
                sink.br(label);
            }
            EditKind::Return { .. } => {
                sink.return_();
            }
            EditKind::Fill => {
                sink.call(layout.fill);
            }
            EditKind::Copy => {
                sink.call(layout.copy);
            }
            EditKind::Init { segment } => {
                sink.call(layout.init[&segment]);
            }
            EditKind::ChargeTable => charge_top(sink, layout, body, layout.table_elements_max),
            EditKind::ChargeGrow => charge_top(sink, layout, body, layout.memory_pages_max),
        }
    }
    out.extend_from_slice(&wasm[copied..body.end_at]);
    let sink = &mut InstructionSink::new(&mut out);
    if body.calls {
        sink.end();
        leave(sink, layout, body.slots);
    }
    sink.end();
    debug_assert!(out.len() as u64 <= body.rewritten_bytes);
    out
}

/// `fuel -= weight; if fuel < limit { trap }`
fn check(sink: &mut InstructionSink<'_>, layout: &Layout, weight: u32) {
    sink.global_get(layout.fuel)
        .i64_const(i64::from(weight))
        .i64_sub();
    store_and_compare(sink, layout);
}

/// `fuel -= 1 + local / 2^log2; if fuel < limit { trap }`
pub(super) fn charge(sink: &mut InstructionSink<'_>, layout: &Layout, local: u32, log2: u32) {
    sink.global_get(layout.fuel).local_get(local);
    charge_pushed(sink, layout, log2);
}

/// Charges by the count on top of the stack, which stays there. A count past `max` fails or traps
/// at once, so it costs no more than `max`.
fn charge_top(sink: &mut InstructionSink<'_>, layout: &Layout, body: &Body, max: u32) {
    // The scan gives a scratch local to every body it plans a charge for.
    let scratch = body.scratch.unwrap_or_default();
    sink.local_tee(scratch)
        .global_get(layout.fuel)
        .local_get(scratch)
        .i32_const(max as i32)
        .local_get(scratch)
        .i32_const(max as i32)
        .i32_lt_u()
        .select();
    charge_pushed(sink, layout, ELEMENTS_PER_FUEL_LOG2);
}

fn charge_pushed(sink: &mut InstructionSink<'_>, layout: &Layout, log2: u32) {
    sink.i32_const(log2 as i32)
        .i32_shr_u()
        .i64_extend_i32_u()
        .i64_const(1)
        .i64_add()
        .i64_sub();
    store_and_compare(sink, layout);
}

fn store_and_compare(sink: &mut InstructionSink<'_>, layout: &Layout) {
    sink.global_set(layout.fuel)
        .global_get(layout.fuel)
        .global_get(layout.limit)
        .i64_lt_s()
        .if_(BlockType::Empty)
        .unreachable()
        .end();
}

/// `depth += slots; if depth > max { depth = DEPTH_EXHAUSTED; trap }`
///
/// The sum cannot wrap: depth is at most `max` before it, and a frame is within its own limit.
fn enter(sink: &mut InstructionSink<'_>, layout: &Layout, slots: u32) {
    sink.global_get(layout.depth)
        .i32_const(slots as i32)
        .i32_add()
        .global_set(layout.depth)
        .global_get(layout.depth)
        .i32_const(layout.depth_max)
        .i32_gt_s()
        .if_(BlockType::Empty)
        .i32_const(super::DEPTH_EXHAUSTED)
        .global_set(layout.depth)
        .unreachable()
        .end();
}

fn leave(sink: &mut InstructionSink<'_>, layout: &Layout, slots: u32) {
    sink.global_get(layout.depth)
        .i32_const(slots as i32)
        .i32_sub()
        .global_set(layout.depth);
}

fn block_type(ty: u32, results: &[wasmparser::ValType], layout: &Layout) -> BlockType {
    match results {
        [] => BlockType::Empty,
        [one] => BlockType::Result(val_type(*one)),
        _ => BlockType::FunctionType(layout.result_types[&ty]),
    }
}

/// The validator admits these types and no other.
pub(super) fn val_type(ty: wasmparser::ValType) -> ValType {
    match ty {
        wasmparser::ValType::I32 => ValType::I32,
        wasmparser::ValType::I64 => ValType::I64,
        wasmparser::ValType::F32 => ValType::F32,
        wasmparser::ValType::F64 => ValType::F64,
        wasmparser::ValType::V128 => ValType::V128,
        wasmparser::ValType::Ref(_) => ValType::FUNCREF,
    }
}

/// The guest's declarations, with one more group for the scratch local.
fn locals(wasm: &[u8], body: &Body, out: &mut Vec<u8>) {
    let declared = &wasm[body.locals_at..body.code_at];
    if body.scratch.is_none() {
        out.extend_from_slice(declared);
        return;
    }
    let (groups, rest) = leb_u32(declared);
    (groups + 1).encode(out);
    out.extend_from_slice(rest);
    1u32.encode(out);
    ValType::I32.encode(out);
}

/// An LEB128 number the validator has accepted, and what follows it.
fn leb_u32(bytes: &[u8]) -> (u32, &[u8]) {
    let mut value = 0u32;
    for (i, byte) in bytes.iter().enumerate().take(5) {
        value |= u32::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return (value, &bytes[i + 1..]);
        }
    }
    (value, &[])
}
