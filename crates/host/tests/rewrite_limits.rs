//! Every limit of the rewrite: a module at it is taken, one past it is refused by name.

use cabinet_host::rewrite::{Cost, CostTier, ModuleLimits, Refusal, rewrite};

const EXPORTS: &str = r#"
    (export "shellcade_abi" (func $callback)) (export "meta" (func $callback))
    (export "start" (func $callback)) (export "join" (func $callback))
    (export "leave" (func $callback)) (export "input" (func $callback))
    (export "wake" (func $callback)) (export "close" (func $callback))"#;

/// A module that loads: 1 type, 1 function, 9 exports, 1 page, and `tail`.
fn guest(tail: &str) -> Vec<u8> {
    wasm(&format!(
        r#"(module (memory (export "memory") 1) (func $callback (result i32) i32.const 0)
           {EXPORTS} {tail})"#
    ))
}

fn wasm(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Asserts that `make(max)` is taken and `make(max + 1)` refused, where `set` puts `max` into the
/// limits.
fn at_and_past(
    what: &str,
    max: u32,
    set: impl Fn(&mut ModuleLimits),
    make: impl Fn(u32) -> Vec<u8>,
) {
    let mut limits = ModuleLimits::default();
    set(&mut limits);
    if let Err(error) = rewrite(&make(max), &limits) {
        panic!("{what} at the limit: {error}");
    }
    match rewrite(&make(max + 1), &limits) {
        Err(Refusal::Limit {
            what: found_what,
            found,
            max: found_max,
        }) => {
            assert_eq!(found_what, what);
            assert_eq!((found, found_max), (u64::from(max) + 1, u64::from(max)));
        }
        Err(other) => panic!("{what} past the limit: {other}"),
        Ok(_) => panic!("{what} past the limit was taken"),
    }
}

fn many(n: u32, text: impl Fn(u32) -> String) -> String {
    (0..n).map(text).collect()
}

/// The guest with a function whose body has `n` bytes beyond the shortest.
fn padded(n: u32) -> Vec<u8> {
    guest(&format!("(func {})", "nop ".repeat(n as usize)))
}

#[test]
fn artifact_bytes() {
    let size = guest("").len() as u32;
    at_and_past(
        "artifact bytes",
        size,
        |limits| limits.artifact_bytes_max = u64::from(size),
        |bytes| {
            let mut wasm = guest("");
            if bytes > size {
                wasm.extend([0; 1]);
            }
            wasm
        },
    );
}

#[test]
fn types() {
    at_and_past(
        "types",
        20,
        |limits| limits.types_max = 20,
        |n| {
            guest(&many(n - 1, |i| {
                format!("(type (func (param {})))", "i32 ".repeat(i as usize + 1))
            }))
        },
    );
}

#[test]
fn signature_values() {
    at_and_past(
        "parameters and results of one type",
        256,
        |_| {},
        |n| {
            guest(&format!(
                "(type (func (param {}) (result i32)))",
                "i64 ".repeat(n as usize - 1)
            ))
        },
    );
}

#[test]
fn imports() {
    at_and_past(
        "imports",
        512,
        |_| {},
        |n| {
            let imports = many(n, |_| {
                r#"(import "extism:host/env" "reset" (func))"#.to_owned()
            });
            wasm(&format!(
                r#"(module {imports} (memory (export "memory") 1)
                   (func $callback (result i32) i32.const 0) {EXPORTS})"#
            ))
        },
    );
}

#[test]
fn functions() {
    at_and_past(
        "functions",
        20_000,
        |_| {},
        |n| guest(&"(func)".repeat(n as usize - 1)),
    );
}

#[test]
fn body_bytes() {
    // A body of nops has two bytes more: the count of locals and the end.
    at_and_past(
        "bytes of one function body",
        1_000,
        |limits| limits.body_bytes_max = 1_000,
        |n| padded(n - 2),
    );
}

#[test]
fn default_body_bytes() {
    let mut limits = ModuleLimits::default();
    limits.operators_max = u32::MAX;
    rewrite(&padded((512 << 10) - 2), &limits).unwrap();
    let refused = rewrite(&padded((512 << 10) - 1), &limits).unwrap_err();
    assert!(matches!(refused, Refusal::Limit { max: 524_288, .. }));
}

#[test]
fn rewritten_code_bytes() {
    // The estimate adds 120 to each of two bodies, of 4 and of n + 2 bytes.
    at_and_past(
        "code bytes after the rewrite",
        1_000,
        |limits| limits.code_bytes_max = 1_000,
        |n| padded(n - 246),
    );
}

#[test]
fn locals() {
    at_and_past(
        "locals of one function",
        5_000,
        |_| {},
        |n| {
            guest(&format!(
                "(func (param i32) (local {}))",
                "i32 ".repeat(n as usize - 1)
            ))
        },
    );
}

#[test]
fn locals_that_overflow_32_bits_are_counted() {
    let mut types = wasm_encoder::TypeSection::new();
    types.ty().function([], []);
    let mut functions = wasm_encoder::FunctionSection::new();
    functions.function(0);
    let mut code = wasm_encoder::CodeSection::new();
    // Two groups of locals, 2^32 - 1 of f64 and one of i64, and the end.
    code.raw(&[2, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x7c, 1, 0x7e, 0x0b]);
    let mut module = wasm_encoder::Module::new();
    module.section(&types).section(&functions).section(&code);
    let wasm = module.finish();
    assert_eq!(
        rewrite(&wasm, &ModuleLimits::default()).unwrap_err(),
        Refusal::Limit {
            what: "locals of one function",
            found: u64::from(u32::MAX),
            max: 5_000
        }
    );
}

#[test]
fn nesting() {
    at_and_past(
        "nesting of blocks",
        2_000,
        |_| {},
        |n| {
            let n = n as usize;
            guest(&format!(
                "(func {} {})",
                "block ".repeat(n),
                "end ".repeat(n)
            ))
        },
    );
}

#[test]
fn operators() {
    // The closing `end` is an operator too.
    at_and_past(
        "operators of one function",
        262_144,
        |_| {},
        |n| padded(n - 1),
    );
}

#[test]
fn br_table_targets() {
    at_and_past(
        "targets of one br_table",
        20_000,
        |_| {},
        |n| {
            guest(&format!(
                "(func (br_table {} (i32.const 0)))",
                "0 ".repeat(n as usize + 1)
            ))
        },
    );
}

#[test]
fn frame_slots() {
    // One operand at most, and 8 slots for the frame itself.
    at_and_past(
        "slots of one frame",
        100,
        |limits| limits.frame_slots_max = 100,
        |n| {
            guest(&format!(
                "(func (local {}) (drop (i32.const 1)))",
                "i32 ".repeat(n as usize - 9)
            ))
        },
    );
}

#[test]
fn an_operand_stack_counts_for_the_frame() {
    at_and_past(
        "slots of one frame",
        16_384,
        |_| {},
        |n| {
            guest(&format!(
                "(func {} unreachable)",
                "i32.const 1 ".repeat(n as usize - 8)
            ))
        },
    );
}

#[test]
fn globals() {
    at_and_past(
        "globals",
        4_096,
        |_| {},
        |n| guest(&"(global i32 (i32.const 0))".repeat(n as usize)),
    );
}

#[test]
fn mutable_globals() {
    at_and_past(
        "mutable globals",
        256,
        |_| {},
        |n| {
            guest(&format!(
                "{} (global i32 (i32.const 0))",
                "(global (mut i32) (i32.const 0))".repeat(n as usize)
            ))
        },
    );
}

#[test]
fn tables() {
    at_and_past(
        "tables",
        16,
        |_| {},
        |n| guest(&"(table 1 funcref)".repeat(n as usize)),
    );
}

#[test]
fn table_elements_of_all_tables_together() {
    at_and_past(
        "table elements",
        65_536,
        |_| {},
        |n| {
            guest(&format!(
                "(table 1000 funcref) (table {} funcref)",
                n - 1_000
            ))
        },
    );
}

#[test]
fn element_segments() {
    at_and_past(
        "element segments",
        20_000,
        |_| {},
        |n| {
            guest(&format!(
                "(table 1 funcref) {}",
                "(elem func)".repeat(n as usize)
            ))
        },
    );
}

#[test]
fn element_items() {
    at_and_past(
        "element items",
        131_072,
        |_| {},
        |n| {
            guest(&format!(
                "(table 1 funcref) (elem func {}) (elem funcref (ref.func $callback))",
                "$callback ".repeat(n as usize - 1)
            ))
        },
    );
}

#[test]
fn data_segments() {
    at_and_past(
        "data segments",
        20_000,
        |_| {},
        |n| guest(&r#"(data "")"#.repeat(n as usize)),
    );
}

#[test]
fn data_bytes() {
    at_and_past(
        "data bytes",
        10,
        |limits| limits.data_bytes_max = 10,
        |n| {
            guest(&format!(
                r#"(data "12345") (data (i32.const 0) "{}")"#,
                "x".repeat(n as usize - 5)
            ))
        },
    );
}

#[test]
fn exports() {
    at_and_past(
        "exports",
        4_096,
        |_| {},
        |n| {
            guest(&many(n - 9, |i| {
                format!("(export \"{i}\" (func $callback))")
            }))
        },
    );
}

#[test]
fn memory_pages() {
    at_and_past(
        "memory pages",
        512,
        |_| {},
        |n| {
            wasm(&format!(
                r#"(module (memory (export "memory") {n}) (func $callback (result i32) i32.const 0)
               {EXPORTS})"#
            ))
        },
    );
}

#[test]
fn the_defaults_admit_twice_the_largest_real_guest() {
    let limits = ModuleLimits::default();
    assert!(limits.artifact_bytes_max >= 2 * 681_210);
    assert!(limits.body_bytes_max >= 2 * 49_127);
    assert!(limits.nesting_max >= 2 * 605);
    assert!(limits.locals_max >= 2 * 41);
    assert!(limits.functions_max >= 2 * 2_265);
    assert!(limits.table_elements_max >= 2 * 6_361);
    assert!(limits.mutable_globals_max >= 2 * 8);
}

fn cost(tail: &str) -> Cost {
    rewrite(&guest(tail), &ModuleLimits::default())
        .unwrap()
        .shape
        .cost
}

fn tier(tail: &str) -> CostTier {
    cost(tail).tier(&ModuleLimits::default())
}

#[test]
fn twice_the_largest_real_function_is_optimised() {
    let ifs = "(if (local.get 0) (then (local.set 1 (i32.add (local.get 0) (local.get 2)))))";
    let body = format!(
        "(func (param i32) (local {}) {})",
        "i32 ".repeat(81),
        ifs.repeat(98_254 / 13)
    );
    assert_eq!(tier(&body), CostTier::Speed);
}

#[test]
fn a_long_straight_line_is_compiled_quickly() {
    let line = "(local.set 0 (i32.mul (local.get 0) (i32.const 3)))".repeat(500_000 / 7);
    let mut limits = ModuleLimits::default();
    limits.operators_max = 400_000;
    let wasm = guest(&format!("(func (param i32) {line})"));
    let cost = rewrite(&wasm, &limits).unwrap().shape.cost;
    assert_eq!(cost.tier(&limits), CostTier::Quick);
}

#[test]
fn locals_times_blocks_is_refused() {
    let body = format!(
        "(func (param i32) (local {}) {})",
        "i32 ".repeat(4_900),
        "(if (local.get 0) (then nop))".repeat(10_000)
    );
    assert_eq!(tier(&body), CostTier::Refuse);
}

#[test]
fn loops_in_one_another_are_compiled_quickly_or_refused_with_locals_they_set() {
    let nest = |n: usize, inner: &str| {
        let ends = "(br_if 0 (local.get 0)) end ".repeat(n);
        format!("{} {inner} {ends}", "loop ".repeat(n))
    };
    let bare = format!("(func (param i32) {})", nest(1_900, ""));
    assert_eq!(tier(&bare), CostTier::Quick);
    let sets: String = (1..=500)
        .map(|i| format!("(local.set {i} (local.get 0))"))
        .collect();
    let body = format!(
        "(func (param i32) (local {}) {})",
        "i32 ".repeat(500),
        nest(500, &sets)
    );
    assert_eq!(tier(&body), CostTier::Refuse);
}

#[test]
fn many_branches_to_one_label_are_refused_unless_it_only_panics() {
    let body = |after: &str| {
        let branches: String = (0..5_000)
            .map(|i| {
                let local = i % 300 + 1;
                format!("(local.set {local} (i32.const {i})) (br_if 0 (local.get 0))")
            })
            .collect();
        format!(
            "(func (param i32) (local {}) (block {branches} return) {after})",
            "i32 ".repeat(300)
        )
    };
    let reads: String = (1..=300)
        .map(|i| format!("(drop (local.get {i}))"))
        .collect();
    assert_eq!(tier(&body(&reads)), CostTier::Refuse);
    assert_eq!(
        tier(&body("(drop (local.get 1)) unreachable")),
        CostTier::Speed
    );
}

#[test]
fn values_that_calls_move_count_as_size() {
    let narrow = cost(&format!("(func $f) (func {})", "call $f ".repeat(100)));
    let wide = cost(&format!(
        "(func $f (result {r}) unreachable) (func {})",
        "call $f unreachable ".repeat(100),
        r = "i64 ".repeat(200)
    ));
    assert!(wide.worst_function > 10 * narrow.worst_function);
}

#[test]
fn the_tiers_end_at_their_limits() {
    let cost = cost("(func (param i32) (loop (br_if 0 (local.get 0))))");
    let mut limits = ModuleLimits::default();
    limits.cost_speed_max = cost.worst_function;
    limits.cost_speed_total_max = cost.total;
    limits.cost_quick_max = cost.worst_function_quick;
    limits.cost_quick_total_max = cost.total_quick;
    assert_eq!(cost.tier(&limits), CostTier::Speed);
    limits.cost_speed_total_max -= 1;
    assert_eq!(cost.tier(&limits), CostTier::Quick);
    limits.cost_speed_total_max += 1;
    limits.cost_speed_max -= 1;
    assert_eq!(cost.tier(&limits), CostTier::Quick);
    limits.cost_quick_max -= 1;
    assert_eq!(cost.tier(&limits), CostTier::Refuse);
    limits.cost_quick_max += 1;
    limits.cost_quick_total_max -= 1;
    assert_eq!(cost.tier(&limits), CostTier::Refuse);
}
