//! One function body: validated, measured, and its edits planned.
//!
//! The rewrite copies a body's bytes and changes it only at [`Edit`]s, so what is not edited is the
//! guest's own code, byte for byte. Edits are in the order of the code and do not overlap.
//!
//! A *region* is the code of one function or of one loop without the loops inside it. Its weight is
//! the number of its operators: `loop` counts for the region around it, the matching `end` for the
//! region it closes.

use wasmparser::{
    BlockType, FrameKind, FuncType, FuncValidator, FunctionBody, Operator, OperatorsReader,
    ValType, ValidatorResources,
};

use super::check::Module;
use super::cost::FunctionSize;
use super::limits::{ModuleLimits, within};
use super::merges::Merges;
use super::refusal::Refusal;

/// Slots every frame is taken to have besides its values: return address, frame pointer, saved
/// registers, outgoing arguments.
const FRAME_OVERHEAD_SLOTS: u64 = 8;

/// Upper bounds of the bytes an edit adds, and of the basic blocks.
const LOOP_EDIT_BYTES: u64 = 30;
const CHARGE_EDIT_BYTES: u64 = 64;
const BRANCH_EDIT_BYTES: u64 = 8;
const FUNCTION_EDIT_BYTES: u64 = 120;
const CHECK_BLOCKS: u64 = 2;

/// What to do with one function body.
pub(super) struct Body {
    /// Offsets in the artifact: the first byte of the local declarations, of the code, and of the
    /// `end` that closes the function.
    pub locals_at: usize,
    pub code_at: usize,
    pub end_at: usize,
    pub edits: Vec<Edit>,
    /// Weight of the region that is the function itself.
    pub weight: u32,
    /// Whether it calls, so that its depth is counted and its returns become branches.
    pub calls: bool,
    /// Whether an edit needs a scratch local, and the index it gets.
    pub scratch: Option<u32>,
    /// Estimated frame in 8-byte slots.
    pub slots: u32,
    /// At least the size after the rewrite, bytes.
    pub rewritten_bytes: u64,
    pub size: FunctionSize,
    /// Parameters and locals.
    pub locals: u32,
    pub mutated_tables: Vec<u32>,
    pub grown_tables: Vec<u32>,
    pub nesting: u32,
    pub operators: u32,
}

/// A change at one place; `from..to` is what it replaces, empty where it only inserts.
pub(super) struct Edit {
    pub from: usize,
    pub to: usize,
    pub kind: EditKind,
}

/// The changes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EditKind {
    /// After `loop`: a check of this weight.
    Loop {
        weight: u32,
    },
    /// A `return`, as a branch to this label if the body is wrapped.
    Return {
        label: u32,
    },
    /// Bulk memory instructions, as calls of helpers.
    Fill,
    Copy,
    Init {
        segment: u32,
    },
    /// Before a table instruction or `memory.grow`: a charge by the count on top of the stack.
    ChargeTable,
    ChargeGrow,
}

/// A region that is open.
struct Region {
    /// Its edit; none for the function.
    edit: Option<usize>,
    weight: u32,
    /// Control depth inside it.
    depth: u32,
    /// Instructions on locals so far, those of closed regions inside it included.
    local_operators: u64,
}

/// Validates one body and plans its rewrite.
pub(super) fn scan(
    module: &Module<'_>,
    validator: &mut FuncValidator<ValidatorResources>,
    code: &FunctionBody<'_>,
    limits: &ModuleLimits,
) -> Result<Body, Refusal> {
    let signature = &module.types[module.function_types[validator.index() as usize] as usize];
    let locals = locals(code, signature, limits)?;
    let mut reader = code.get_binary_reader();
    let locals_at = reader.original_position() as usize;
    validator.read_locals(&mut reader)?;
    reader.set_features(*validator.features());
    let code_at = reader.original_position() as usize;

    let mut body = Body {
        locals_at,
        code_at,
        end_at: code_at,
        edits: Vec::new(),
        weight: 1,
        calls: false,
        scratch: None,
        slots: 0,
        rewritten_bytes: 0,
        size: FunctionSize {
            source_bytes: code.as_bytes().len() as u64,
            blocks: 2 * CHECK_BLOCKS,
            ..FunctionSize::default()
        },
        locals: locals.count,
        mutated_tables: Vec::new(),
        grown_tables: Vec::new(),
        nesting: 0,
        operators: 0,
    };
    let mut regions = vec![Region {
        edit: None,
        weight: 0,
        depth: 1,
        local_operators: 0,
    }];
    let mut stack = StackHeight {
        max: 0,
        vectors: locals.vectors,
    };
    let mut merges = Merges::new();
    let mut moved_values = 0u64;
    let mut reader = OperatorsReader::new(reader);
    while !reader.eof() {
        let from = reader.original_position();
        let operator = reader.read()?;
        body.operators += 1;
        within(
            "operators of one function",
            body.operators,
            limits.operators_max,
        )?;
        let depth = validator.control_stack_height();
        validator.op(from, &operator)?;
        let to = reader.original_position() as usize;
        let from = from as usize;

        // The function itself is one frame of the control stack.
        body.nesting = body
            .nesting
            .max(validator.control_stack_height().saturating_sub(1));
        within("nesting of blocks", body.nesting, limits.nesting_max)?;
        stack.observe(validator, vector_type(&operator, module));
        within(
            "slots of one frame",
            locals.slots + stack.slots() + FRAME_OVERHEAD_SLOTS,
            u64::from(limits.frame_slots_max),
        )?;
        if let Some(region) = regions.last_mut() {
            region.weight += 1;
        }
        moved_values += values_moved(&operator, validator, module);
        body.size.blocks += blocks(&operator);
        merges.observe(&operator);
        match operator {
            Operator::Loop { .. } => {
                regions.push(Region {
                    edit: Some(body.edits.len()),
                    weight: 0,
                    depth: depth + 1,
                    local_operators: 0,
                });
                let loops = regions.len() as u64 - 1;
                body.size.loop_depth_squares += loops * loops;
                body.edit(to, to, EditKind::Loop { weight: 1 });
            }
            Operator::End => {
                if regions.last().is_some_and(|region| region.depth == depth)
                    && let Some(region) = regions.pop()
                {
                    let weight = region.weight.max(1);
                    let touched = region.local_operators.min(u64::from(locals.count));
                    match (region.edit, regions.last_mut()) {
                        (Some(edit), Some(outer)) => {
                            body.edits[edit].kind = EditKind::Loop { weight };
                            body.size.phis += touched;
                            outer.local_operators += region.local_operators;
                        }
                        _ => {
                            body.weight = weight;
                            body.end_at = from;
                            body.size.live = touched;
                        }
                    }
                }
            }
            Operator::LocalGet { .. } | Operator::LocalSet { .. } | Operator::LocalTee { .. } => {
                if let Some(region) = regions.last_mut() {
                    region.local_operators += 1;
                }
            }
            Operator::Return => body.edit(from, to, EditKind::Return { label: depth - 1 }),
            Operator::Call { .. } | Operator::CallIndirect { .. } => body.calls = true,
            Operator::BrTable { targets } => within(
                "targets of one br_table",
                targets.len(),
                limits.br_table_targets_max,
            )?,
            Operator::MemoryFill { .. } => body.edit(from, to, EditKind::Fill),
            Operator::MemoryCopy { .. } => body.edit(from, to, EditKind::Copy),
            Operator::MemoryInit { data_index, .. } => body.edit(
                from,
                to,
                EditKind::Init {
                    segment: data_index,
                },
            ),
            Operator::MemoryGrow { .. } => body.charge(from, locals.count, EditKind::ChargeGrow),
            Operator::TableSet { table } => body.mutated_tables.push(table),
            Operator::TableGrow { table } => {
                body.charge(from, locals.count, EditKind::ChargeTable);
                body.mutated_tables.push(table);
                body.grown_tables.push(table);
            }
            Operator::TableFill { table }
            | Operator::TableInit { table, .. }
            | Operator::TableCopy {
                dst_table: table, ..
            } => {
                body.charge(from, locals.count, EditKind::ChargeTable);
                body.mutated_tables.push(table);
            }
            Operator::DataDrop { .. } => {
                return Err(Refusal::Uncapturable {
                    what: "data.drop",
                    why: "a snapshot cannot tell which data segments are gone",
                    offset: from as u64,
                });
            }
            Operator::ElemDrop { .. } => {
                return Err(Refusal::Uncapturable {
                    what: "elem.drop",
                    why: "a snapshot cannot tell which element segments are gone",
                    offset: from as u64,
                });
            }
            _ => {}
        }
    }
    reader.finish()?;
    body.mutated_tables.dedup();
    body.grown_tables.dedup();
    // Held to frame_slots_max, a u32, after every operator.
    body.slots = (locals.slots + stack.slots() + FRAME_OVERHEAD_SLOTS) as u32;
    body.rewritten_bytes += code.as_bytes().len() as u64 + FUNCTION_EDIT_BYTES;
    body.size.bytes = body.rewritten_bytes + moved_values;
    body.size.merges = merges.total(body.size.live);
    body.size.live += u64::from(stack.max);
    Ok(body)
}

impl Body {
    fn edit(&mut self, from: usize, to: usize, kind: EditKind) {
        self.rewritten_bytes += match kind {
            EditKind::Loop { .. } => LOOP_EDIT_BYTES,
            EditKind::ChargeTable | EditKind::ChargeGrow => CHARGE_EDIT_BYTES,
            EditKind::Return { .. } | EditKind::Fill | EditKind::Copy | EditKind::Init { .. } => {
                BRANCH_EDIT_BYTES
            }
        };
        self.edits.push(Edit { from, to, kind });
    }

    fn charge(&mut self, at: usize, scratch: u32, kind: EditKind) {
        self.scratch = Some(scratch);
        self.size.blocks += CHECK_BLOCKS;
        self.edit(at, at, kind);
    }
}

/// Parameters and locals of a function.
struct Locals {
    count: u32,
    slots: u64,
    vectors: bool,
}

/// Counts before the validator does, in 64 bits: 5 bytes of a body can declare 2³² locals.
fn locals(
    code: &FunctionBody<'_>,
    signature: &FuncType,
    limits: &ModuleLimits,
) -> Result<Locals, Refusal> {
    let mut count = signature.params().len() as u64;
    let mut slots: u64 = signature.params().iter().map(|ty| slots_of(*ty)).sum();
    let mut vectors =
        signature.params().contains(&ValType::V128) || signature.results().contains(&ValType::V128);
    let max = u64::from(limits.locals_max);
    within("locals of one function", count, max)?;
    let mut reader = code.get_binary_reader();
    for _ in 0..reader.read_var_u32()? {
        let group: u32 = reader.read()?;
        let ty: ValType = reader.read()?;
        count += u64::from(group);
        within("locals of one function", count, max)?;
        slots += u64::from(group) * slots_of(ty);
        vectors |= ty == ValType::V128;
    }
    Ok(Locals {
        // Held to a u32 limit just above.
        count: count as u32,
        slots,
        vectors,
    })
}

fn slots_of(ty: ValType) -> u64 {
    if ty == ValType::V128 { 2 } else { 1 }
}

/// The highest the operand stack gets. Once a function holds a vector, every operand counts as one:
/// the validator tells the height, not what lies below the top.
struct StackHeight {
    max: u32,
    vectors: bool,
}

impl StackHeight {
    fn observe(&mut self, validator: &FuncValidator<ValidatorResources>, vector_type: bool) {
        self.max = self.max.max(validator.operand_stack_height());
        self.vectors |= vector_type || validator.get_operand_type(0) == Some(Some(ValType::V128));
    }

    fn slots(&self) -> u64 {
        u64::from(self.max) * if self.vectors { 2 } else { 1 }
    }
}

/// Whether the operator can push a vector below the top of the stack.
fn vector_type(operator: &Operator<'_>, module: &Module<'_>) -> bool {
    operator_type(operator, module).is_some_and(|ty| {
        ty.params().contains(&ValType::V128) || ty.results().contains(&ValType::V128)
    })
}

/// Values an operator moves beyond the one or two its own bytes stand for.
fn values_moved(
    operator: &Operator<'_>,
    validator: &FuncValidator<ValidatorResources>,
    module: &Module<'_>,
) -> u64 {
    match operator {
        Operator::Br { relative_depth } | Operator::BrIf { relative_depth } => {
            label_values(*relative_depth, validator, module)
        }
        Operator::BrTable { targets } => (u64::from(targets.len()) + 1)
            .saturating_mul(label_values(targets.default(), validator, module)),
        _ => operator_type(operator, module)
            .map_or(0, |ty| (ty.params().len() + ty.results().len()) as u64),
    }
}

/// The function type an operator names, by a call or as the type of a block.
fn operator_type<'m>(operator: &Operator<'_>, module: &'m Module<'_>) -> Option<&'m FuncType> {
    let index = match operator {
        Operator::Call { function_index } => {
            *module.function_types.get(*function_index as usize)?
        }
        Operator::CallIndirect { type_index, .. } => *type_index,
        Operator::Block { blockty } | Operator::Loop { blockty } | Operator::If { blockty } => {
            match blockty {
                BlockType::FuncType(index) => *index,
                _ => return None,
            }
        }
        _ => return None,
    };
    module.types.get(index as usize)
}

fn label_values(
    label: u32,
    validator: &FuncValidator<ValidatorResources>,
    module: &Module<'_>,
) -> u64 {
    let Some(frame) = validator.get_control_frame(label as usize) else {
        return 0;
    };
    match frame.block_type {
        BlockType::Empty => 0,
        BlockType::Type(_) => 1,
        BlockType::FuncType(index) => module.types.get(index as usize).map_or(0, |ty| {
            if frame.kind == FrameKind::Loop {
                ty.params().len() as u64
            } else {
                ty.results().len() as u64
            }
        }),
    }
}

/// At most how many basic blocks an operator makes after the rewrite.
fn blocks(operator: &Operator<'_>) -> u64 {
    match operator {
        Operator::Block { .. }
        | Operator::Br { .. }
        | Operator::BrIf { .. }
        | Operator::Return
        | Operator::Unreachable => 1,
        Operator::If { .. } => 2,
        Operator::Loop { .. } => 1 + CHECK_BLOCKS,
        Operator::BrTable { targets } => u64::from(targets.len()) + 1,
        _ => 0,
    }
}
