//! Why a module is not a game: one variant per thing its author would change.

use wasmparser::WasmFeatures;

/// Longest piece of a guest's own text that an error repeats, bytes.
const QUOTE_BYTES_MAX: usize = 96;

/// A module was not admitted. Nothing of it has run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The bytes do not begin with the wasm magic.
    #[error("not a wasm module")]
    NotWasm,
    /// The module is malformed or ill-typed.
    #[error("invalid wasm at byte {offset}: {message}")]
    Invalid {
        /// Where in the artifact, bytes.
        offset: u64,
        /// What the validator says.
        message: String,
    },
    /// The module needs a wasm proposal that Cabinet does not run.
    #[error("needs the wasm feature `{name}` at byte {offset}, which is not supported")]
    Feature {
        /// The proposal.
        name: &'static str,
        /// The first place that needs it, bytes.
        offset: u64,
    },
    /// Something is larger than [`super::ModuleLimits`] admit.
    #[error("{what}: {found} is over the limit of {max}")]
    Limit {
        /// What was counted, with its unit.
        what: &'static str,
        /// How much the module has, or how much had been counted when the limit was passed.
        found: u64,
        /// How much is admitted.
        max: u64,
    },
    /// An import names a module that the host does not have.
    #[error("imports `{name}` from unknown module `{module}`")]
    ImportModule {
        /// The module asked for.
        module: String,
        /// The name asked for.
        name: String,
    },
    /// An import names a function that its module does not have.
    #[error("imports unknown function `{name}` from `{module}`")]
    ImportName {
        /// The module asked for.
        module: String,
        /// The name asked for.
        name: String,
    },
    /// An imported function has another type than the host's.
    #[error("imports `{name}` from `{module}` as {found}, but it is {expected}")]
    ImportType {
        /// The module asked for.
        module: String,
        /// The name asked for.
        name: String,
        /// The host's type.
        expected: String,
        /// The guest's type.
        found: String,
    },
    /// An import is not a function: its state would be shared with something outside the room.
    #[error("imports the {kind} `{name}` from `{module}`; only functions can be imported")]
    ImportKind {
        /// The module asked for.
        module: String,
        /// The name asked for.
        name: String,
        /// `memory`, `table`, `global` or `tag`.
        kind: &'static str,
    },
    /// The module has no memory.
    #[error("has no memory")]
    NoMemory,
    /// The module has a memory but exports none under the name `memory`.
    #[error("does not export its memory as `memory`")]
    MemoryNotExported,
    /// A callback of the ABI is missing.
    #[error("does not export the function `{name}`")]
    MissingExport {
        /// The callback.
        name: &'static str,
    },
    /// A callback of the ABI is not a guest function without parameters and with no result, one
    /// i32 or one i64.
    #[error("exports `{name}` as {found}, but it must be () -> (), () -> i32 or () -> i64")]
    ExportSignature {
        /// The callback.
        name: &'static str,
        /// What the guest exports under that name.
        found: String,
    },
    /// An export begins with `cabinet:`, which the rewrite uses for its own.
    #[error("exports `{name}`, but names that begin with `cabinet:` are reserved")]
    ReservedExport {
        /// The guest's name.
        name: String,
    },
    /// The module changes state that a snapshot cannot hold.
    #[error("uses {what} at byte {offset}: {why}")]
    Uncapturable {
        /// The instruction.
        what: &'static str,
        /// The state that would be lost.
        why: &'static str,
        /// Where, bytes.
        offset: u64,
    },
}

impl Refusal {
    /// A stable name of the refusal: the variant's, in lowercase with hyphens.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::NotWasm => "not-wasm",
            Self::Invalid { .. } => "invalid",
            Self::Feature { .. } => "feature",
            Self::Limit { .. } => "limit",
            Self::ImportModule { .. } => "import-module",
            Self::ImportName { .. } => "import-name",
            Self::ImportType { .. } => "import-type",
            Self::ImportKind { .. } => "import-kind",
            Self::NoMemory => "no-memory",
            Self::MemoryNotExported => "memory-not-exported",
            Self::MissingExport { .. } => "missing-export",
            Self::ExportSignature { .. } => "export-signature",
            Self::ReservedExport { .. } => "reserved-export",
            Self::Uncapturable { .. } => "uncapturable",
        }
    }
}

impl From<wasmparser::Error> for Refusal {
    fn from(error: wasmparser::Error) -> Self {
        let offset = error.offset();
        // The validator blames this one for every reference but funcref; trial tells which it is.
        let missing = error
            .missing_wasm_feature()
            .filter(|missing| *missing != WasmFeatures::GC_TYPES);
        if let Some(name) = missing.and_then(feature_name) {
            return Refusal::Feature { name, offset };
        }
        Refusal::Invalid {
            offset,
            message: quote(error.message()),
        }
    }
}

/// The proposals we refuse by name, the likelier first. Used to name a feature the validator found
/// missing, and to find out by trial which one an invalid module needs.
pub(super) const PROPOSALS: &[(&str, WasmFeatures)] = &[
    ("threads", WasmFeatures::THREADS),
    ("relaxed SIMD", WasmFeatures::RELAXED_SIMD),
    ("multi-memory", WasmFeatures::MULTI_MEMORY),
    ("memory64", WasmFeatures::MEMORY64),
    ("tail calls", WasmFeatures::TAIL_CALL),
    ("exceptions", WasmFeatures::EXCEPTIONS),
    ("legacy exceptions", WasmFeatures::LEGACY_EXCEPTIONS),
    (
        "extended constant expressions",
        WasmFeatures::EXTENDED_CONST,
    ),
    ("externref", WasmFeatures::GC_TYPES),
    (
        "typed function references",
        WasmFeatures::FUNCTION_REFERENCES,
    ),
    (
        "garbage collection",
        WasmFeatures::GC
            .union(WasmFeatures::FUNCTION_REFERENCES)
            .union(WasmFeatures::GC_TYPES),
    ),
    (
        "stack switching",
        WasmFeatures::STACK_SWITCHING
            .union(WasmFeatures::FUNCTION_REFERENCES)
            .union(WasmFeatures::EXCEPTIONS),
    ),
    ("wide arithmetic", WasmFeatures::WIDE_ARITHMETIC),
    ("custom page sizes", WasmFeatures::CUSTOM_PAGE_SIZES),
    ("memory control", WasmFeatures::MEMORY_CONTROL),
    (
        "shared-everything threads",
        WasmFeatures::SHARED_EVERYTHING_THREADS.union(WasmFeatures::THREADS),
    ),
    ("custom descriptors", WasmFeatures::CUSTOM_DESCRIPTORS),
    ("compact imports", WasmFeatures::COMPACT_IMPORTS),
];

/// The name of the first proposal in `missing`: an exact match, else any that has a part of it.
fn feature_name(missing: WasmFeatures) -> Option<&'static str> {
    PROPOSALS
        .iter()
        .find(|(_, features)| *features == missing)
        .or_else(|| {
            PROPOSALS
                .iter()
                .find(|(_, features)| features.intersects(missing))
        })
        .map(|(name, _)| *name)
}

/// `text`, cut so that an error of ours stays one short line whatever the guest wrote in it.
pub(super) fn quote(text: &str) -> String {
    let cut = text.floor_char_boundary(QUOTE_BYTES_MAX);
    let mut quoted: String = text[..cut]
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if cut < text.len() {
        quoted.push('…');
    }
    quoted
}
