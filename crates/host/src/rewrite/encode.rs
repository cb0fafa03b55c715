//! Puts the rewritten module together.
//!
//! Imports, element segments and data are copied as they are. Types, functions, globals and exports
//! keep their order and get more at the end, so no index of the guest moves. The start section and
//! all custom sections but the function names are left out.

use std::collections::BTreeMap;

use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{
    CodeSection, ConstExpr, ExportKind, ExportSection, FunctionSection, GlobalSection, GlobalType,
    MemorySection, MemoryType, NameMap, NameSection, RawSection, RefType, SectionId, TableSection,
    TableType, TypeSection, ValType,
};

use super::body::EditKind;
use super::bulk::Bulk;
use super::check::Module;
use super::instrument::{self, Layout};
use super::limits::ModuleLimits;
use super::refusal::Refusal;
use super::shape::{FunctionShape, GlobalShape, MemoryShape, TableShape};
use super::{DEPTH_EXPORT, FUEL_EXPORT, LIMIT_EXPORT, START_EXPORT};

/// Longest function name that is kept, bytes; trap reports show them.
const NAME_BYTES_MAX: usize = 256;

/// Everything the rewrite exports or resizes.
pub(super) struct State {
    pub memory: MemoryShape,
    pub globals: Vec<GlobalShape>,
    pub tables: Vec<TableShape>,
    pub references: Vec<FunctionShape>,
}

/// Encodes the rewritten module.
pub(super) fn encode(
    wasm: &[u8],
    module: &Module<'_>,
    state: &State,
    limits: &ModuleLimits,
) -> Result<Vec<u8>, Refusal> {
    let helpers = helpers(module);
    let mut types = TypeSection::new();
    if let Some(section) = module.sections.types.clone() {
        RoundtripReencoder
            .parse_type_section(&mut types, section)
            .map_err(internal)?;
    }
    let layout = layout(module, &helpers, &mut types, limits);

    let mut functions = FunctionSection::new();
    for ty in &module.function_types[module.imports.len()..] {
        functions.function(*ty);
    }
    if !helpers.is_empty() {
        let helper_type = types.len();
        types
            .ty()
            .function([ValType::I32, ValType::I32, ValType::I32], []);
        for _ in &helpers {
            functions.function(helper_type);
        }
    }
    let mut code = CodeSection::new();
    let guest_types = &module.function_types[module.imports.len()..];
    for (body, &ty) in module.bodies.iter().zip(guest_types) {
        let results = module.types[ty as usize].results();
        code.raw(&instrument::function(wasm, body, ty, results, &layout));
    }
    for helper in &helpers {
        code.raw(&helper.body(&layout));
    }

    let mut out = wasm_encoder::Module::new();
    out.section(&types);
    copy(
        &mut out,
        SectionId::Import,
        wasm,
        module.sections.imports.as_ref(),
    );
    out.section(&functions);
    out.section(&tables(state));
    out.section(&memory(&state.memory));
    out.section(&globals(module)?);
    out.section(&exports(module, state, &layout));
    copy(
        &mut out,
        SectionId::Element,
        wasm,
        module.sections.elements.as_ref(),
    );
    if let Some(count) = module.sections.data_count {
        out.section(&wasm_encoder::DataCountSection { count });
    }
    out.section(&code);
    copy(
        &mut out,
        SectionId::Data,
        wasm,
        module.sections.data.as_ref(),
    );
    out.section(&names(module, &helpers));
    Ok(out.finish())
}

/// The helpers this module needs, in the order of their indexes.
fn helpers(module: &Module<'_>) -> Vec<Bulk> {
    let mut fill = None;
    let mut copy = None;
    let mut init = BTreeMap::new();
    for edit in module.bodies.iter().flat_map(|body| &body.edits) {
        match edit.kind {
            EditKind::Fill => fill = Some(Bulk::Fill),
            EditKind::Copy => copy = Some(Bulk::Copy),
            EditKind::Init { segment } => {
                let bytes = module.passive_bytes[segment as usize];
                init.insert(segment, Bulk::Init { segment, bytes });
            }
            _ => {}
        }
    }
    fill.into_iter()
        .chain(copy)
        .chain(init.into_values())
        .collect()
}

fn layout(
    module: &Module<'_>,
    helpers: &[Bulk],
    types: &mut TypeSection,
    limits: &ModuleLimits,
) -> Layout {
    let globals = module.globals.len() as u32;
    let mut layout = Layout {
        fuel: globals,
        limit: globals + 1,
        depth: globals + 2,
        // Leaves room for one more frame below i32::MAX.
        depth_max: i32::try_from(limits.depth_slots_max)
            .unwrap_or(i32::MAX)
            .min(i32::MAX - i32::try_from(limits.frame_slots_max).unwrap_or(i32::MAX)),
        fill: 0,
        copy: 0,
        init: BTreeMap::new(),
        result_types: BTreeMap::new(),
        memory_pages_max: limits.memory_pages_max,
        table_elements_max: limits.table_elements_max,
    };
    for (index, helper) in (module.function_types.len() as u32..).zip(helpers) {
        match *helper {
            Bulk::Fill => layout.fill = index,
            Bulk::Copy => layout.copy = index,
            Bulk::Init { segment, .. } => {
                layout.init.insert(segment, index);
            }
        }
    }
    let guest_types = &module.function_types[module.imports.len()..];
    for (body, &ty) in module.bodies.iter().zip(guest_types) {
        let results = module.types[ty as usize].results();
        if body.calls && results.len() > 1 && !layout.result_types.contains_key(&ty) {
            layout.result_types.insert(ty, types.len());
            types
                .ty()
                .function([], results.iter().map(|ty| instrument::val_type(*ty)));
        }
    }
    layout
}

/// Copies a section, whose contents need no change.
fn copy(
    out: &mut wasm_encoder::Module,
    id: SectionId,
    wasm: &[u8],
    range: Option<&std::ops::Range<usize>>,
) {
    if let Some(range) = range {
        out.section(&RawSection {
            id: id.into(),
            data: &wasm[range.clone()],
        });
    }
}

fn tables(state: &State) -> TableSection {
    let mut section = TableSection::new();
    for table in &state.tables {
        section.table(TableType {
            element_type: RefType::FUNCREF,
            minimum: u64::from(table.min),
            maximum: Some(u64::from(table.max)),
            table64: false,
            shared: false,
        });
    }
    section
}

fn memory(memory: &MemoryShape) -> MemorySection {
    let mut section = MemorySection::new();
    section.memory(MemoryType {
        minimum: u64::from(memory.min_pages),
        maximum: Some(u64::from(memory.max_pages)),
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    section
}

fn globals(module: &Module<'_>) -> Result<GlobalSection, Refusal> {
    let mut section = GlobalSection::new();
    if let Some(guest) = module.sections.globals.clone() {
        RoundtripReencoder
            .parse_global_section(&mut section, guest)
            .map_err(internal)?;
    }
    let cell = |val_type| GlobalType {
        val_type,
        mutable: true,
        shared: false,
    };
    section.global(cell(ValType::I64), &ConstExpr::i64_const(0));
    section.global(cell(ValType::I64), &ConstExpr::i64_const(0));
    section.global(cell(ValType::I32), &ConstExpr::i32_const(0));
    Ok(section)
}

fn exports(module: &Module<'_>, state: &State, layout: &Layout) -> ExportSection {
    let mut section = ExportSection::new();
    for export in &module.exports {
        section.export(export.name, ExportKind::from(export.kind), export.index);
    }
    section
        .export(FUEL_EXPORT, ExportKind::Global, layout.fuel)
        .export(LIMIT_EXPORT, ExportKind::Global, layout.limit)
        .export(DEPTH_EXPORT, ExportKind::Global, layout.depth);
    if let Some(start) = module.start {
        section.export(START_EXPORT, ExportKind::Func, start);
    }
    for global in &state.globals {
        section.export(&global.export, ExportKind::Global, global.index);
    }
    for (index, table) in (0u32..).zip(&state.tables) {
        section.export(&table.export, ExportKind::Table, index);
    }
    for function in &state.references {
        section.export(&function.export, ExportKind::Func, function.index);
    }
    section
}

/// The guest's names of functions, as far as they make sense, and those of the helpers. A name
/// section can say anything without making a module invalid.
fn names(module: &Module<'_>, helpers: &[Bulk]) -> NameSection {
    let functions = module.function_types.len() as u32;
    let mut names = BTreeMap::new();
    for subsection in module
        .sections
        .names
        .clone()
        .into_iter()
        .flatten()
        .flatten()
    {
        if let wasmparser::Name::Function(map) = subsection {
            for naming in map.into_iter().flatten() {
                if naming.index < functions {
                    let cut = naming.name.floor_char_boundary(NAME_BYTES_MAX);
                    names.insert(naming.index, naming.name[..cut].to_owned());
                }
            }
        }
    }
    names.extend((functions..).zip(helpers.iter().map(|helper| helper.name())));
    let mut map = NameMap::new();
    for (index, name) in &names {
        map.append(*index, name);
    }
    let mut section = NameSection::new();
    section.functions(&map);
    section
}

/// Re-encoding what the validator accepted does not fail; if it did, the module would be refused.
fn internal(error: wasm_encoder::reencode::Error) -> Refusal {
    Refusal::Invalid {
        offset: 0,
        message: format!("cannot be encoded again: {error}"),
    }
}
