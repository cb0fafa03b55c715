//! What the host must know about a rewritten module: links, entry points and where its state is.

use std::fmt;

use super::cost::Cost;
use super::imports::HostFunction;

/// A rewritten module, described. All indexes are those of the rewritten module, which keeps the
/// guest's own (whatever the rewrite adds comes after).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shape {
    /// The imported functions in index order. The same function may appear twice.
    pub imports: Vec<&'static HostFunction>,
    /// Functions of the guest (imports and the rewrite's helpers not counted).
    pub functions: u32,
    /// The eight callbacks of the ABI, in its order.
    pub callbacks: Vec<Callback>,
    /// Runtime initialisers the guest exports, in the order to call them once before its first
    /// callback (docs/ABI.md).
    pub initializers: Vec<Initializer>,
    /// [`super::START_EXPORT`] if the guest had a start section, else none. The host calls it
    /// right after instantiation.
    pub start: Option<&'static str>,
    /// The one memory, exported as `memory`.
    pub memory: MemoryShape,
    /// The guest's mutable globals in index order: all of them, each exported under a name of ours.
    pub globals: Vec<GlobalShape>,
    /// The guest's tables in index order, each exported under a name of ours.
    pub tables: Vec<TableShape>,
    /// Every function a reference can point to, by index, each exported under a name of ours.
    /// Empty unless a reference can be state: a mutated table or a mutable funcref global.
    pub references: Vec<FunctionShape>,
    /// What compiling it is estimated to take.
    pub cost: Cost,
    /// Sizes worth a line in a report.
    pub stats: Stats,
}

/// One callback of the ABI. It takes no parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Callback {
    /// Export name.
    pub name: &'static str,
    /// None, i32 or i64.
    pub result: Option<ValueType>,
}

/// A runtime initialiser: `_initialize`, `__wasm_call_ctors` or `hs_init`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Initializer {
    /// Export name.
    pub name: &'static str,
    /// `() -> …`, or `(i32, i32) -> …` for `hs_init`, which is called with two zeros.
    pub signature: Signature,
}

/// The memory of a rewritten module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryShape {
    /// Pages at instantiation.
    pub min_pages: u32,
    /// Pages after any growth: the declared maximum or the limit, whichever is less.
    pub max_pages: u32,
}

/// A mutable global of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GlobalShape {
    /// Export name, `cabinet:g<index>`.
    pub export: String,
    /// Index in the module.
    pub index: u32,
    /// Its type, which is also the mask for its raw bytes.
    pub ty: ValueType,
}

/// A table of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableShape {
    /// Export name, `cabinet:t<index>`.
    pub export: String,
    /// Elements at instantiation.
    pub min: u32,
    /// Elements after any growth; equal to `min` if no instruction grows it.
    pub max: u32,
    /// Whether any instruction of the guest changes an element or the size. If not, instantiating
    /// the module again gives the same table.
    pub mutated: bool,
}

/// A function a reference can point to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionShape {
    /// Export name, `cabinet:f<index>`.
    pub export: String,
    /// Index in the module; imports come first.
    pub index: u32,
}

/// The largest of everything, for reports and for choosing limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Size of the artifact, bytes.
    pub artifact_bytes: u64,
    /// Size after the rewrite, bytes.
    pub rewritten_bytes: u64,
    /// Largest function body, bytes.
    pub body_bytes: u64,
    /// Deepest nesting of blocks.
    pub nesting: u32,
    /// Most parameters and locals in one function.
    pub locals: u32,
    /// Most operators in one function.
    pub operators: u32,
    /// Largest estimated frame, 8-byte slots.
    pub frame_slots: u32,
    /// Most parameters and results in one type.
    pub signature_values: u32,
    /// Fuel checks the rewrite put in (bulk helpers not counted).
    pub checks: u64,
}

/// A wasm value type that Cabinet admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 128-bit vector.
    V128,
    /// Reference to a function, or null.
    FuncRef,
}

impl ValueType {
    /// Bytes of the value in a snapshot; a reference has none of its own (it is a pointer).
    pub fn bytes(self) -> Option<usize> {
        match self {
            ValueType::I32 | ValueType::F32 => Some(4),
            ValueType::I64 | ValueType::F64 => Some(8),
            ValueType::V128 => Some(16),
            ValueType::FuncRef => None,
        }
    }
}

impl From<wasmparser::ValType> for ValueType {
    fn from(ty: wasmparser::ValType) -> Self {
        match ty {
            wasmparser::ValType::I32 => ValueType::I32,
            wasmparser::ValType::I64 => ValueType::I64,
            wasmparser::ValType::F32 => ValueType::F32,
            wasmparser::ValType::F64 => ValueType::F64,
            wasmparser::ValType::V128 => ValueType::V128,
            // Under our feature set the validator admits no other reference than funcref.
            wasmparser::ValType::Ref(_) => ValueType::FuncRef,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ValueType::I32 => "i32",
            ValueType::I64 => "i64",
            ValueType::F32 => "f32",
            ValueType::F64 => "f64",
            ValueType::V128 => "v128",
            ValueType::FuncRef => "funcref",
        })
    }
}

/// A function type, shown as `(i64, i32) -> i64`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Signature {
    /// Parameter types.
    pub params: Vec<ValueType>,
    /// Result types.
    pub results: Vec<ValueType>,
}

impl From<&wasmparser::FuncType> for Signature {
    fn from(ty: &wasmparser::FuncType) -> Self {
        Self {
            params: ty.params().iter().copied().map(ValueType::from).collect(),
            results: ty.results().iter().copied().map(ValueType::from).collect(),
        }
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, &self.params)?;
        f.write_str(" -> ")?;
        match self.results.as_slice() {
            [one] => write!(f, "{one}"),
            results => list(f, results),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, types: &[ValueType]) -> fmt::Result {
    f.write_str("(")?;
    for (i, ty) in types.iter().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        write!(f, "{comma}{ty}")?;
    }
    f.write_str(")")
}
