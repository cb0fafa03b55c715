//! One pass over the artifact: limits first, then the validator, then the rules that are ours.
//!
//! Invariants
//! - a section's count is compared with its limit before anything is allocated for it, and a body's
//!   size and locals before it is validated;
//! - nothing here recurses, so a hostile nesting costs heap that is bounded by the body's size;
//! - what leaves here has been validated under [`FEATURES`] and nothing else.

use std::collections::BTreeSet;
use std::ops::Range;

use wasmparser::{
    DataKind, ElementItems, Export, ExternalKind, FuncType, FuncValidatorAllocations, GlobalType,
    NameSectionReader, Operator, Parser, Payload, TypeRef, ValidPayload, Validator, WasmFeatures,
};

use super::body::{self, Body};
use super::imports::{self, HostFunction};
use super::limits::{ModuleLimits, within};
use super::refusal::{PROPOSALS, Refusal, quote};
use super::shape::{Callback, Initializer, MemoryShape, Signature, ValueType};

/// What a guest may use: sign extension, saturating conversions, bulk memory, multiple values,
/// mutable globals, funcref, SIMD. wasmer must be given exactly these.
///
/// Extended constant expressions are out although wasmer runs them: without imported globals they
/// say nothing a constant does not, and the reference host refuses them too.
pub(super) const FEATURES: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::FLOATS);

/// The callbacks every game has (docs/ABI.md).
const CALLBACKS: [&str; 8] = [
    "shellcade_abi",
    "meta",
    "start",
    "join",
    "leave",
    "input",
    "wake",
    "close",
];

/// A module that passed, with what the rewrite needs to know of it.
#[derive(Default)]
pub(super) struct Module<'a> {
    pub types: Vec<FuncType>,
    pub imports: Vec<&'static HostFunction>,
    /// Type of every function in index order, imports first.
    pub function_types: Vec<u32>,
    pub tables: Vec<Table>,
    pub memories: Vec<wasmparser::MemoryType>,
    pub globals: Vec<GlobalType>,
    pub exports: Vec<Export<'a>>,
    pub start: Option<u32>,
    /// Every function a reference can be made to: in an element segment, in the initial value of a
    /// global, or exported. The validator holds `ref.func` in code to these.
    pub referenced: BTreeSet<u32>,
    /// For every data segment the bytes `memory.init` can read: none if it is active, since
    /// instantiation has consumed it.
    pub passive_bytes: Vec<u32>,
    pub bodies: Vec<Body>,
    pub sections: Sections<'a>,
}

/// Where the parts are that are copied or extended rather than decoded.
#[derive(Default)]
pub(super) struct Sections<'a> {
    pub types: Option<wasmparser::TypeSectionReader<'a>>,
    pub imports: Option<Range<usize>>,
    pub globals: Option<wasmparser::GlobalSectionReader<'a>>,
    pub elements: Option<Range<usize>>,
    pub data_count: Option<u32>,
    pub data: Option<Range<usize>>,
    pub names: Option<NameSectionReader<'a>>,
}

/// A table of the guest.
pub(super) struct Table {
    pub min: u32,
    pub max: Option<u32>,
    pub mutated: bool,
    pub grown: bool,
}

/// The rules about exports, resolved.
pub(super) struct Entry {
    pub callbacks: Vec<Callback>,
    pub initializers: Vec<Initializer>,
    pub memory: MemoryShape,
}

/// Parses and checks `wasm`; on an ill-typed module finds out whether a proposal would cure it.
pub(super) fn check<'a>(
    wasm: &'a [u8],
    limits: &ModuleLimits,
) -> Result<(Module<'a>, Entry), Refusal> {
    within(
        "artifact bytes",
        wasm.len() as u64,
        limits.artifact_bytes_max,
    )?;
    if !wasm.starts_with(b"\0asm") {
        return Err(Refusal::NotWasm);
    }
    if wasm.get(4..8) == Some(&[0x0d, 0, 1, 0]) {
        return Err(Refusal::Feature {
            name: "component model",
            offset: 4,
        });
    }
    let module = match scan(wasm, limits, FEATURES) {
        Err(Refusal::Invalid { offset, message }) => {
            return Err(needed_proposal(wasm, limits, offset)
                .unwrap_or(Refusal::Invalid { offset, message }));
        }
        other => other?,
    };
    let entry = entry(&module, limits)?;
    Ok((module, entry))
}

/// The validator does not always know that a proposal is what is missing. Try them one by one: the
/// one that moves the first error is.
fn needed_proposal(wasm: &[u8], limits: &ModuleLimits, offset: u64) -> Option<Refusal> {
    PROPOSALS
        .iter()
        .find(|(_, features)| {
            !matches!(
                scan(wasm, limits, FEATURES.union(*features)),
                Err(Refusal::Invalid { offset: at, .. } | Refusal::Feature { offset: at, .. })
                    if at == offset
            )
        })
        .map(|&(name, _)| Refusal::Feature { name, offset })
}

fn scan<'a>(
    wasm: &'a [u8],
    limits: &ModuleLimits,
    features: WasmFeatures,
) -> Result<Module<'a>, Refusal> {
    let mut module = Module::default();
    let mut validator = Validator::new_with_features(features);
    let mut allocations = FuncValidatorAllocations::default();
    let mut code_bytes = 0;
    let mut parser = Parser::new(0);
    parser.set_features(features);
    for payload in parser.parse_all(wasm) {
        let payload = payload?;
        count(&payload, limits)?;
        if let ValidPayload::Func(function, code) = validator.payload(&payload)? {
            let mut function = function.into_validator(allocations);
            let body = body::scan(&module, &mut function, &code, limits)?;
            allocations = function.into_allocations();
            code_bytes += body.rewritten_bytes;
            within(
                "code bytes after the rewrite",
                code_bytes,
                limits.code_bytes_max,
            )?;
            for &table in &body.mutated_tables {
                module.tables[table as usize].mutated = true;
            }
            for &table in &body.grown_tables {
                module.tables[table as usize].grown = true;
            }
            module.bodies.push(body);
            continue;
        }
        take(&mut module, payload, limits)?;
    }
    Ok(module)
}

/// Holds the counts that stand at the head of each section to their limits.
fn count(payload: &Payload<'_>, limits: &ModuleLimits) -> Result<(), Refusal> {
    match payload {
        Payload::TypeSection(section) => within("types", section.count(), limits.types_max),
        Payload::ImportSection(section) => within("imports", section.count(), limits.imports_max),
        Payload::FunctionSection(section) => {
            within("functions", section.count(), limits.functions_max)
        }
        Payload::TableSection(section) => within("tables", section.count(), limits.tables_max),
        Payload::GlobalSection(section) => within("globals", section.count(), limits.globals_max),
        Payload::ExportSection(section) => within("exports", section.count(), limits.exports_max),
        Payload::ElementSection(section) => within(
            "element segments",
            section.count(),
            limits.element_segments_max,
        ),
        Payload::DataSection(section) => {
            within("data segments", section.count(), limits.data_segments_max)
        }
        Payload::CodeSectionEntry(body) => within(
            "bytes of one function body",
            body.as_bytes().len() as u64,
            limits.body_bytes_max,
        ),
        _ => Ok(()),
    }
}

/// Keeps what the rewrite needs of a section the validator has accepted.
fn take<'a>(
    module: &mut Module<'a>,
    payload: Payload<'a>,
    limits: &ModuleLimits,
) -> Result<(), Refusal> {
    match payload {
        Payload::TypeSection(section) => {
            module.sections.types = Some(section.clone());
            for ty in section.into_iter_err_on_gc_types() {
                let ty = ty?;
                within(
                    "parameters and results of one type",
                    (ty.params().len() + ty.results().len()) as u64,
                    u64::from(limits.signature_values_max),
                )?;
                module.types.push(ty);
            }
        }
        Payload::ImportSection(section) => {
            module.sections.imports = Some(range(section.range()));
            for import in section.into_imports() {
                take_import(module, &import?)?;
            }
        }
        Payload::FunctionSection(section) => {
            for ty in section {
                module.function_types.push(ty?);
            }
        }
        Payload::TableSection(section) => {
            let mut elements = 0;
            for table in section {
                let ty = table?.ty;
                elements += ty.initial;
                within(
                    "table elements",
                    elements,
                    u64::from(limits.table_elements_max),
                )?;
                module.tables.push(Table {
                    // Held to a u32 limit just above.
                    min: ty.initial as u32,
                    max: ty.maximum.map(|max| u32::try_from(max).unwrap_or(u32::MAX)),
                    mutated: false,
                    grown: false,
                });
            }
        }
        Payload::MemorySection(section) => {
            for memory in section {
                module.memories.push(memory?);
            }
        }
        Payload::GlobalSection(section) => {
            module.sections.globals = Some(section.clone());
            let mut mutable = 0;
            for global in section {
                let global = global?;
                mutable += u32::from(global.ty.mutable);
                within("mutable globals", mutable, limits.mutable_globals_max)?;
                module.globals.push(global.ty);
                refer(module, &global.init_expr)?;
            }
        }
        Payload::ExportSection(section) => {
            for export in section {
                let export = export?;
                if export.kind == ExternalKind::Func {
                    module.referenced.insert(export.index);
                }
                module.exports.push(export);
            }
        }
        Payload::StartSection { func, .. } => module.start = Some(func),
        Payload::ElementSection(section) => {
            module.sections.elements = Some(range(section.range()));
            take_elements(module, section, limits)?;
        }
        Payload::DataCountSection { count, .. } => module.sections.data_count = Some(count),
        Payload::DataSection(section) => {
            module.sections.data = Some(range(section.range()));
            let mut bytes = 0;
            for data in section {
                let data = data?;
                bytes += data.data.len() as u64;
                within("data bytes", bytes, limits.data_bytes_max)?;
                module.passive_bytes.push(match data.kind {
                    DataKind::Active { .. } => 0,
                    // A segment lies within a section, whose size is a u32.
                    DataKind::Passive => data.data.len() as u32,
                });
            }
        }
        Payload::CustomSection(section) => {
            if let wasmparser::KnownCustom::Name(names) = section.as_known() {
                module.sections.names = Some(names);
            }
        }
        _ => {}
    }
    Ok(())
}

fn take_import(module: &mut Module<'_>, import: &wasmparser::Import<'_>) -> Result<(), Refusal> {
    let kind = match import.ty {
        TypeRef::Func(ty) | TypeRef::FuncExact(ty) => {
            let signature = Signature::from(&module.types[ty as usize]);
            let function = imports::resolve(import.module, import.name, &signature)?;
            module.imports.push(function);
            module.function_types.push(ty);
            return Ok(());
        }
        TypeRef::Memory(_) => "memory",
        TypeRef::Table(_) => "table",
        TypeRef::Global(_) => "global",
        TypeRef::Tag(_) => "tag",
    };
    Err(Refusal::ImportKind {
        module: quote(import.module),
        name: quote(import.name),
        kind,
    })
}

fn take_elements(
    module: &mut Module<'_>,
    section: wasmparser::ElementSectionReader<'_>,
    limits: &ModuleLimits,
) -> Result<(), Refusal> {
    let mut total = 0u64;
    for element in section {
        let items = element?.items;
        total += u64::from(match &items {
            ElementItems::Functions(functions) => functions.count(),
            ElementItems::Expressions(_, expressions) => expressions.count(),
        });
        within("element items", total, u64::from(limits.element_items_max))?;
        match items {
            ElementItems::Functions(functions) => {
                for function in functions {
                    module.referenced.insert(function?);
                }
            }
            ElementItems::Expressions(_, expressions) => {
                for expression in expressions {
                    refer(module, &expression?)?;
                }
            }
        }
    }
    Ok(())
}

/// Notes the function a constant expression refers to, if it does.
fn refer(module: &mut Module<'_>, expression: &wasmparser::ConstExpr<'_>) -> Result<(), Refusal> {
    for operator in expression.get_operators_reader() {
        if let Operator::RefFunc { function_index } = operator? {
            module.referenced.insert(function_index);
        }
    }
    Ok(())
}

/// Checks the memory and the exports, and names the host's ways in.
fn entry(module: &Module<'_>, limits: &ModuleLimits) -> Result<Entry, Refusal> {
    // More than one memory needs a proposal, so the validator has refused it.
    let memory = module.memories.first().ok_or(Refusal::NoMemory)?;
    within(
        "memory pages",
        memory.initial,
        u64::from(limits.memory_pages_max),
    )?;
    if let Some(export) = module
        .exports
        .iter()
        .find(|export| export.name.starts_with(super::RESERVED_PREFIX))
    {
        return Err(Refusal::ReservedExport {
            name: quote(export.name),
        });
    }
    match find(module, "memory") {
        Some(export) if export.kind == ExternalKind::Memory => {}
        _ => return Err(Refusal::MemoryNotExported),
    }
    let max = memory
        .maximum
        .map_or(u64::from(limits.memory_pages_max), |declared| {
            declared.min(u64::from(limits.memory_pages_max))
        });
    Ok(Entry {
        callbacks: CALLBACKS
            .into_iter()
            .map(|name| callback(module, name))
            .collect::<Result<_, _>>()?,
        initializers: initializers(module)?,
        memory: MemoryShape {
            // Both are at most memory_pages_max, a u32.
            min_pages: memory.initial as u32,
            max_pages: max as u32,
        },
    })
}

fn callback(module: &Module<'_>, name: &'static str) -> Result<Callback, Refusal> {
    let export = find(module, name).ok_or(Refusal::MissingExport { name })?;
    let refuse = |found: String| Err(Refusal::ExportSignature { name, found });
    let Some(signature) = function_signature(module, export) else {
        return refuse(format!("a {}", kind_name(export.kind)));
    };
    if (export.index as usize) < module.imports.len() {
        return refuse("a function of the host".to_owned());
    }
    let result = match (signature.params.as_slice(), signature.results.as_slice()) {
        ([], []) => None,
        ([], [result @ (ValueType::I32 | ValueType::I64)]) => Some(*result),
        _ => return refuse(quote(&signature.to_string())),
    };
    Ok(Callback { name, result })
}

/// docs/ABI.md: `_initialize`, else `__wasm_call_ctors`, if they take nothing; a Haskell
/// runtime has `hs_init(i32, i32)` on top of `_initialize` and instead of the constructors.
fn initializers(module: &Module<'_>) -> Result<Vec<Initializer>, Refusal> {
    let exported = |name: &'static str, params: &[ValueType]| {
        find(module, name)
            .and_then(|export| function_signature(module, export))
            .filter(|signature| signature.params == params)
            .map(|signature| Initializer { name, signature })
    };
    let initialize = exported("_initialize", &[]);
    let haskell = exported("hs_init", &[ValueType::I32, ValueType::I32]);
    let found: Vec<Initializer> = if haskell.is_some() || initialize.is_some() {
        initialize.into_iter().chain(haskell).collect()
    } else {
        exported("__wasm_call_ctors", &[]).into_iter().collect()
    };
    // One that could not be called would be skipped in silence.
    for initializer in &found {
        let callable = match initializer.signature.results.as_slice() {
            [] => true,
            [ValueType::I32 | ValueType::I64] => initializer.name != "hs_init",
            _ => false,
        };
        if !callable {
            return Err(Refusal::ExportSignature {
                name: initializer.name,
                found: quote(&initializer.signature.to_string()),
            });
        }
    }
    Ok(found)
}

fn find<'m, 'a>(module: &'m Module<'a>, name: &str) -> Option<&'m Export<'a>> {
    module.exports.iter().find(|export| export.name == name)
}

fn function_signature(module: &Module<'_>, export: &Export<'_>) -> Option<Signature> {
    if export.kind != ExternalKind::Func {
        return None;
    }
    let ty = module.function_types.get(export.index as usize)?;
    module.types.get(*ty as usize).map(Signature::from)
}

fn kind_name(kind: ExternalKind) -> &'static str {
    match kind {
        ExternalKind::Func | ExternalKind::FuncExact => "function",
        ExternalKind::Table => "table",
        ExternalKind::Memory => "memory",
        ExternalKind::Global => "global",
        ExternalKind::Tag => "tag",
    }
}

/// A range of the artifact, which is in memory, so its offsets are usizes.
pub(super) fn range(range: Range<u64>) -> Range<usize> {
    range.start as usize..range.end as usize
}
