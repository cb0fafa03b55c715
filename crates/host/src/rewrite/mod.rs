//! Checks a guest module and rewrites it, once, at load.
//!
//! What comes out runs under our control and holds no hidden state:
//! - it has been validated under a fixed set of features and imports only functions of the host,
//!   with their types;
//! - every function and every turn of every loop passes a fuel check, bulk instructions are split
//!   and charged by length, and the depth of calls is counted ([`FUEL_EXPORT`], [`LIMIT_EXPORT`],
//!   [`DEPTH_EXPORT`]);
//! - memory and tables have a maximum;
//! - nothing runs at instantiation: the start function is an export;
//! - every mutable global and every table is exported, and where references are state, every
//!   function a reference can point to.
//!
//! Invariants
//! - the rewrite depends on the bytes, the limits and [`VERSION`] alone;
//! - no index of the guest's types, functions, tables, globals or segments moves;
//! - but for traps by fuel and depth, the module computes what it did.
//!
//! How the host uses the cells. Before a call: `fuel` = budget (or a very large number), `limit` =
//! 0, `depth` = 0. After a trap: `depth` = [`DEPTH_EXHAUSTED`] is a call depth exhausted; else `fuel`
//! < 0 is the budget; else `fuel` < `limit` is whoever wrote `limit`; else the guest's own trap. To
//! stop a running guest, another thread stores `i64::MAX` to `limit`.
//!
//! A tour: `limits` and `refusal` say what is admitted, `check` reads the sections and `body`
//! one function, `instrument` and `bulk` write code, `encode` the module, `shape` describes it.

mod body;
mod bulk;
mod check;
mod cost;
mod encode;
pub mod imports;
mod instrument;
mod limits;
mod merges;
mod refusal;
mod shape;

use body::EditKind;

pub use cost::{Cost, CostTier};
pub use limits::ModuleLimits;
pub use refusal::Refusal;
pub use shape::{
    Callback, FunctionShape, GlobalShape, Initializer, MemoryShape, Shape, Signature, Stats,
    TableShape, ValueType,
};

/// Version of the rewrite, for cache keys: bytes compiled from another version's output are not
/// ours. Raise it with any change to what is emitted.
pub const VERSION: u32 = 1;

/// What our own exports begin with; a guest's may not.
pub const RESERVED_PREFIX: &str = "cabinet:";
/// Mutable i64: the fuel left.
pub const FUEL_EXPORT: &str = "cabinet:fuel";
/// Mutable i64: below this much fuel the guest traps.
pub const LIMIT_EXPORT: &str = "cabinet:limit";
/// Mutable i32: slots of all active frames, or [`DEPTH_EXHAUSTED`].
pub const DEPTH_EXPORT: &str = "cabinet:depth";
/// The function of the start section, if there was one.
pub const START_EXPORT: &str = "cabinet:start";
/// What the depth is set to just before the trap for too deep a call.
pub const DEPTH_EXHAUSTED: i32 = i32::MIN;

/// A module ready to be compiled.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rewritten {
    /// The module.
    pub wasm: Vec<u8>,
    /// What the host must know about it.
    pub shape: Shape,
}

/// Checks `wasm` against `limits` and rewrites it.
///
/// # Errors
/// A [`Refusal`] that says what the author must change. The cost of compiling is only estimated
/// here ([`Shape::cost`]); the caller decides with [`Cost::tier`].
pub fn rewrite(wasm: &[u8], limits: &ModuleLimits) -> Result<Rewritten, Refusal> {
    let (module, entry) = check::check(wasm, limits)?;
    let state = encode::State {
        memory: entry.memory,
        globals: globals(&module),
        tables: tables(&module, limits),
        references: references(&module),
    };
    let rewritten = encode::encode(wasm, &module, &state, limits)?;
    debug_assert_eq!(
        wasmparser::Validator::new_with_features(check::FEATURES)
            .validate_all(&rewritten)
            .err()
            .map(|error| error.to_string()),
        None,
        "the rewrite of a valid module is valid"
    );
    let mut cost = Cost::default();
    for body in &module.bodies {
        cost.add(&body.size);
    }
    let stats = stats(wasm, &rewritten, &module);
    let shape = Shape {
        functions: module.bodies.len() as u32,
        imports: module.imports,
        callbacks: entry.callbacks,
        initializers: entry.initializers,
        start: module.start.map(|_| START_EXPORT),
        memory: state.memory,
        globals: state.globals,
        tables: state.tables,
        references: state.references,
        cost,
        stats,
    };
    Ok(Rewritten {
        wasm: rewritten,
        shape,
    })
}

fn globals(module: &check::Module<'_>) -> Vec<GlobalShape> {
    (0u32..)
        .zip(&module.globals)
        .filter(|(_, global)| global.mutable)
        .map(|(index, global)| GlobalShape {
            export: format!("{RESERVED_PREFIX}g{index}"),
            index,
            ty: ValueType::from(global.content_type),
        })
        .collect()
}

/// A table that is never grown ends at its size. What the limit leaves free is shared equally by
/// those that are.
fn tables(module: &check::Module<'_>, limits: &ModuleLimits) -> Vec<TableShape> {
    let used: u32 = module.tables.iter().map(|table| table.min).sum();
    let grown = module.tables.iter().filter(|table| table.grown).count() as u32;
    let share = (limits.table_elements_max - used) / grown.max(1);
    (0u32..)
        .zip(&module.tables)
        .map(|(index, table)| TableShape {
            export: format!("{RESERVED_PREFIX}t{index}"),
            min: table.min,
            max: if table.grown {
                table
                    .max
                    .map_or(table.min + share, |max| max.min(table.min + share))
            } else {
                table.min
            },
            mutated: table.mutated,
        })
        .collect()
}

/// Functions need names of ours only where a reference can be state.
fn references(module: &check::Module<'_>) -> Vec<FunctionShape> {
    let state = module.tables.iter().any(|table| table.mutated)
        || module.globals.iter().any(|global| {
            global.mutable && ValueType::from(global.content_type) == ValueType::FuncRef
        });
    if !state {
        return Vec::new();
    }
    module
        .referenced
        .iter()
        .map(|&index| FunctionShape {
            export: format!("{RESERVED_PREFIX}f{index}"),
            index,
        })
        .collect()
}

fn stats(wasm: &[u8], rewritten: &[u8], module: &check::Module<'_>) -> Stats {
    let mut stats = Stats {
        artifact_bytes: wasm.len() as u64,
        rewritten_bytes: rewritten.len() as u64,
        ..Stats::default()
    };
    for ty in &module.types {
        let values = (ty.params().len() + ty.results().len()) as u32;
        stats.signature_values = stats.signature_values.max(values);
    }
    for body in &module.bodies {
        let bytes = (body.end_at + 1 - body.locals_at) as u64;
        stats.body_bytes = stats.body_bytes.max(bytes);
        stats.nesting = stats.nesting.max(body.nesting);
        stats.locals = stats.locals.max(body.locals);
        stats.operators = stats.operators.max(body.operators);
        stats.frame_slots = stats.frame_slots.max(body.slots);
        stats.checks += 1 + body
            .edits
            .iter()
            .filter(|edit| {
                matches!(
                    edit.kind,
                    EditKind::Loop { .. } | EditKind::ChargeTable | EditKind::ChargeGrow
                )
            })
            .count() as u64;
    }
    stats
}
