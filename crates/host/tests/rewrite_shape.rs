//! What the rewrite emits, seen by a parser, and what it says about it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use cabinet_host::rewrite::{
    CostTier, DEPTH_EXPORT, FUEL_EXPORT, LIMIT_EXPORT, ModuleLimits, Rewritten, START_EXPORT,
    ValueType, rewrite,
};
use wasmparser::{ExternalKind, KnownCustom, Name, Operator, Parser, Payload};

const EXPORTS: &str = r#"
    (export "shellcade_abi" (func $callback)) (export "meta" (func $callback))
    (export "start" (func $callback)) (export "join" (func $callback))
    (export "leave" (func $callback)) (export "input" (func $callback))
    (export "wake" (func $callback)) (export "close" (func $callback))"#;

/// A guest with `tail`, rewritten. Its function 0 is a callback; what `tail` defines follows.
fn guest(tail: &str) -> Rewritten {
    let text = format!(
        r#"(module (memory (export "memory") 1) (func $callback (result i32) i32.const 0)
           {EXPORTS} {tail})"#
    );
    let wasm = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    rewrite(&wasm, &ModuleLimits::default()).unwrap()
}

/// What these tests look at in a module.
#[derive(Default)]
struct Parsed {
    exports: BTreeMap<String, (ExternalKind, u32)>,
    memory: Option<(u64, Option<u64>)>,
    tables: Vec<(u64, Option<u64>)>,
    globals: Vec<(wasmparser::ValType, bool)>,
    /// Per defined function, its operators.
    bodies: Vec<Vec<String>>,
    names: BTreeMap<u32, String>,
    customs: Vec<String>,
    start: bool,
}

fn parse(wasm: &[u8]) -> Parsed {
    wasmparser::Validator::new().validate_all(wasm).unwrap();
    let mut parsed = Parsed::default();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.unwrap() {
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.unwrap();
                    parsed
                        .exports
                        .insert(export.name.to_owned(), (export.kind, export.index));
                }
            }
            Payload::MemorySection(section) => {
                let memory = section.into_iter().next().unwrap().unwrap();
                parsed.memory = Some((memory.initial, memory.maximum));
            }
            Payload::TableSection(section) => {
                for table in section {
                    let ty = table.unwrap().ty;
                    parsed.tables.push((ty.initial, ty.maximum));
                }
            }
            Payload::GlobalSection(section) => {
                for global in section {
                    let ty = global.unwrap().ty;
                    parsed.globals.push((ty.content_type, ty.mutable));
                }
            }
            Payload::StartSection { .. } => parsed.start = true,
            Payload::CodeSectionEntry(body) => parsed.bodies.push(
                body.get_operators_reader()
                    .unwrap()
                    .into_iter()
                    .map(|operator| format!("{:?}", operator.unwrap()))
                    .collect(),
            ),
            Payload::CustomSection(section) => {
                parsed.customs.push(section.name().to_owned());
                if let KnownCustom::Name(names) = section.as_known() {
                    for subsection in names {
                        if let Name::Function(map) = subsection.unwrap() {
                            for naming in map {
                                let naming = naming.unwrap();
                                parsed.names.insert(naming.index, naming.name.to_owned());
                            }
                        }
                    }
                }
            }
            _ => {}
        }
    }
    parsed
}

/// Whether `operators` at `at` are a check of this weight with the cells at globals 0 and 1.
fn is_check(operators: &[String], at: usize, weight: i64) -> bool {
    let expected = [
        Operator::GlobalGet { global_index: 0 },
        Operator::I64Const { value: weight },
        Operator::I64Sub,
        Operator::GlobalSet { global_index: 0 },
        Operator::GlobalGet { global_index: 0 },
        Operator::GlobalGet { global_index: 1 },
        Operator::I64LtS,
        Operator::If {
            blockty: wasmparser::BlockType::Empty,
        },
        Operator::Unreachable,
        Operator::End,
    ];
    operators.len() >= at + expected.len()
        && expected
            .iter()
            .zip(&operators[at..])
            .all(|(expected, found)| format!("{expected:?}") == *found)
}

#[test]
fn every_entry_and_every_loop_has_a_check_weighted_by_its_own_region() {
    let rewritten = guest(
        "(func (param i32)
           (loop $outer
             nop
             (loop $inner (br_if $inner (local.get 0)))
             (br_if $outer (local.get 0))))",
    );
    let parsed = parse(&rewritten.wasm);
    // `i32.const`, `end`.
    assert!(is_check(&parsed.bodies[0], 0, 2));
    let body = &parsed.bodies[1];
    // `loop`, `end`.
    assert!(is_check(body, 0, 2));
    assert!(body[10].starts_with("Loop"));
    // `nop`, `loop`, `local.get`, `br_if`, `end`.
    assert!(is_check(body, 11, 5));
    assert_eq!(body[21], "Nop");
    assert!(body[22].starts_with("Loop"));
    // `local.get`, `br_if`, `end`.
    assert!(is_check(body, 23, 3));
    assert_eq!(rewritten.shape.stats.checks, 4);
}

#[test]
fn an_empty_function_is_checked_too() {
    let parsed = parse(&guest("(func)").wasm);
    assert!(is_check(&parsed.bodies[1], 0, 1));
    assert_eq!(parsed.bodies[1].len(), 11);
}

#[test]
fn the_cells_come_after_the_guests_globals() {
    let rewritten = guest("(global i32 (i32.const 5)) (global (mut f64) (f64.const 1))");
    let parsed = parse(&rewritten.wasm);
    let global = |index| (ExternalKind::Global, index);
    assert_eq!(parsed.exports[FUEL_EXPORT], global(2));
    assert_eq!(parsed.exports[LIMIT_EXPORT], global(3));
    assert_eq!(parsed.exports[DEPTH_EXPORT], global(4));
    assert_eq!(parsed.globals[2], (wasmparser::ValType::I64, true));
    assert_eq!(parsed.globals[3], (wasmparser::ValType::I64, true));
    assert_eq!(parsed.globals[4], (wasmparser::ValType::I32, true));
}

#[test]
fn only_functions_that_call_count_their_depth() {
    let parsed = parse(&guest("(func $leaf) (func call $leaf)").wasm);
    let counts = |body: &[String]| body.iter().any(|op| op == "GlobalSet { global_index: 2 }");
    assert!(!counts(&parsed.bodies[1]));
    assert!(counts(&parsed.bodies[2]));
}

#[test]
fn a_return_becomes_a_branch_where_depth_is_counted() {
    let parsed =
        parse(&guest("(func $leaf (block return)) (func (block (block return)) call $leaf)").wasm);
    assert!(parsed.bodies[1].contains(&"Return".to_owned()));
    assert!(!parsed.bodies[2].contains(&"Return".to_owned()));
    assert!(parsed.bodies[2].contains(&"Br { relative_depth: 2 }".to_owned()));
}

#[test]
fn bulk_memory_goes_through_helpers_after_the_guests_functions() {
    let rewritten = guest(
        r#"(data $d "abc")
           (func (memory.copy (i32.const 0) (i32.const 1) (i32.const 2)))
           (func (memory.fill (i32.const 0) (i32.const 1) (i32.const 2)))
           (func (memory.init $d (i32.const 0) (i32.const 1) (i32.const 2)))"#,
    );
    let parsed = parse(&rewritten.wasm);
    assert_eq!(rewritten.shape.functions, 4);
    assert_eq!(parsed.bodies.len(), 7);
    let calls = |function: u32| format!("Call {{ function_index: {function} }}");
    assert!(parsed.bodies[1].contains(&calls(5)));
    assert!(parsed.bodies[2].contains(&calls(4)));
    assert!(parsed.bodies[3].contains(&calls(6)));
    assert_eq!(parsed.names[&4], "cabinet:fill");
    assert_eq!(parsed.names[&5], "cabinet:copy");
    assert_eq!(parsed.names[&6], "cabinet:init0");
}

#[test]
fn mutable_globals_of_every_type_are_exported_by_index() {
    let rewritten = guest(
        "(global i32 (i32.const 1))
         (global (mut i32) (i32.const 1)) (global (mut i64) (i64.const 1))
         (global (mut f32) (f32.const 1)) (global (mut f64) (f64.const 1))
         (global (mut v128) (v128.const i64x2 1 2)) (global (mut funcref) (ref.func $f))
         (func $f)",
    );
    let found: Vec<_> = rewritten
        .shape
        .globals
        .iter()
        .map(|global| (global.export.as_str(), global.ty))
        .collect();
    assert_eq!(
        found,
        [
            ("cabinet:g1", ValueType::I32),
            ("cabinet:g2", ValueType::I64),
            ("cabinet:g3", ValueType::F32),
            ("cabinet:g4", ValueType::F64),
            ("cabinet:g5", ValueType::V128),
            ("cabinet:g6", ValueType::FuncRef),
        ]
    );
    let parsed = parse(&rewritten.wasm);
    for global in &rewritten.shape.globals {
        assert_eq!(
            parsed.exports[&global.export],
            (ExternalKind::Global, global.index)
        );
    }
    // A funcref global is state, so its functions have names: the callback is exported, `f` is the
    // initial value.
    let references: Vec<_> = rewritten.shape.references.iter().map(|f| f.index).collect();
    assert_eq!(references, [0, 1]);
    assert_eq!(parsed.exports["cabinet:f1"], (ExternalKind::Func, 1));
}

#[test]
fn each_instruction_that_changes_a_table_marks_it_mutated() {
    for (text, mutated) in [
        ("(func (drop (table.get 1 (i32.const 0))))", false),
        ("(func (drop (table.size 1)))", false),
        ("(func (call_indirect 1 (i32.const 0)))", false),
        ("(elem (table 1) (i32.const 0) func $callback)", false),
        (
            "(func (table.copy 0 1 (i32.const 0) (i32.const 0) (i32.const 0)))",
            false,
        ),
        ("(func (table.set 1 (i32.const 0) (ref.null func)))", true),
        (
            "(func (drop (table.grow 1 (ref.null func) (i32.const 1))))",
            true,
        ),
        (
            "(func (table.fill 1 (i32.const 0) (ref.null func) (i32.const 1)))",
            true,
        ),
        (
            "(func (table.copy 1 0 (i32.const 0) (i32.const 0) (i32.const 0)))",
            true,
        ),
        (
            "(elem $e func $callback)
             (func (table.init 1 $e (i32.const 0) (i32.const 0) (i32.const 0)))",
            true,
        ),
    ] {
        let rewritten = guest(&format!("(table 2 funcref) (table 3 funcref) {text}"));
        let tables = &rewritten.shape.tables;
        assert_eq!(tables[1].mutated, mutated, "{text}");
        assert_eq!(
            rewritten.shape.references.is_empty(),
            !(tables[0].mutated || mutated)
        );
        assert_eq!(
            (tables[0].export.as_str(), tables[1].export.as_str()),
            ("cabinet:t0", "cabinet:t1")
        );
    }
}

#[test]
fn functions_in_any_segment_can_be_references() {
    let rewritten = guest(
        "(table 2 funcref)
         (func $in_active) (func $in_passive) (func $declared) (func $nowhere) (func $expression)
         (elem (i32.const 0) func $in_active) (elem func $in_passive)
         (elem declare func $declared) (elem funcref (ref.func $expression) (ref.null func))
         (func (table.set 0 (i32.const 0) (ref.func $declared)))",
    );
    let found: Vec<_> = rewritten.shape.references.iter().map(|f| f.index).collect();
    assert_eq!(found, [0, 1, 2, 3, 5]);
}

#[test]
fn a_guest_without_reference_state_has_no_function_names_of_ours() {
    let rewritten = guest("(table 1 funcref) (elem (i32.const 0) func $callback)");
    assert!(rewritten.shape.references.is_empty());
    assert!(!parse(&rewritten.wasm).exports.contains_key("cabinet:f0"));
}

#[test]
fn a_memory_gets_the_lesser_of_its_maximum_and_the_limit() {
    for (declared, pages) in [("1", 512), ("1 600", 512), ("1 7", 7), ("1 1", 1)] {
        let text = format!(
            r#"(module (memory (export "memory") {declared})
               (func $callback (result i32) i32.const 0) {EXPORTS})"#
        );
        let rewritten = rewrite(&wat::parse_str(text).unwrap(), &ModuleLimits::default()).unwrap();
        assert_eq!(rewritten.shape.memory.max_pages, pages);
        assert_eq!(rewritten.shape.memory.min_pages, 1);
        assert_eq!(
            parse(&rewritten.wasm).memory,
            Some((1, Some(u64::from(pages))))
        );
    }
}

#[test]
fn a_table_grows_to_its_maximum_or_its_share_of_what_is_left_and_only_if_something_grows_it() {
    let grow = |table| format!("(func (drop (table.grow {table} (ref.null func) (i32.const 1))))");
    let max = |tail: String| -> Vec<u32> {
        let rewritten = guest(&tail);
        let tables = parse(&rewritten.wasm).tables;
        let max: Vec<_> = rewritten
            .shape
            .tables
            .iter()
            .map(|table| table.max)
            .collect();
        let found: Vec<_> = tables.iter().map(|(_, max)| max.unwrap() as u32).collect();
        assert_eq!(found, max);
        max
    };
    assert_eq!(max("(table 10 funcref)".into()), [10]);
    assert_eq!(max("(table 10 90000 funcref)".into()), [10]);
    assert_eq!(max(format!("(table 10 20 funcref) {}", grow(0))), [20]);
    assert_eq!(max(format!("(table 10 funcref) {}", grow(0))), [65_536]);
    assert_eq!(
        max(format!(
            "(table 36 funcref) (table 500 funcref) (table 1000 funcref) {} {}",
            grow(0),
            grow(2)
        )),
        [32_036, 500, 33_000]
    );
}

#[test]
fn the_start_function_is_an_export_and_no_start() {
    let rewritten = guest("(func $s) (start $s)");
    let parsed = parse(&rewritten.wasm);
    assert!(!parsed.start);
    assert_eq!(parsed.exports[START_EXPORT], (ExternalKind::Func, 1));
    assert_eq!(rewritten.shape.start, Some(START_EXPORT));
    assert_eq!(guest("").shape.start, None);
}

#[test]
fn the_guests_exports_and_callbacks_stay() {
    let rewritten = guest(r#"(func (export "malloc") (param i32) (result i32) unreachable)"#);
    let parsed = parse(&rewritten.wasm);
    assert_eq!(parsed.exports["malloc"], (ExternalKind::Func, 1));
    assert_eq!(parsed.exports["memory"], (ExternalKind::Memory, 0));
    let names: Vec<_> = rewritten.shape.callbacks.iter().map(|c| c.name).collect();
    assert_eq!(
        names,
        [
            "shellcade_abi",
            "meta",
            "start",
            "join",
            "leave",
            "input",
            "wake",
            "close"
        ]
    );
    assert!(
        rewritten
            .shape
            .callbacks
            .iter()
            .all(|callback| callback.result == Some(ValueType::I32))
    );
}

#[test]
fn initializers_are_called_as_the_reference_does() {
    let initialize = r#"(func (export "_initialize"))"#;
    let with_parameter = r#"(func (export "_initialize") (param i32))"#;
    let constructors = r#"(func (export "__wasm_call_ctors"))"#;
    let haskell = r#"(func (export "hs_init") (param i32 i32))"#;
    for (tail, expected) in [
        (String::new(), vec![]),
        (initialize.to_owned(), vec!["_initialize"]),
        (constructors.to_owned(), vec!["__wasm_call_ctors"]),
        (format!("{initialize}{constructors}"), vec!["_initialize"]),
        (
            format!("{with_parameter}{constructors}"),
            vec!["__wasm_call_ctors"],
        ),
        (
            format!("{haskell}{initialize}{constructors}"),
            vec!["_initialize", "hs_init"],
        ),
        (format!("{haskell}{constructors}"), vec!["hs_init"]),
    ] {
        let rewritten = guest(&tail);
        let names: Vec<_> = rewritten
            .shape
            .initializers
            .iter()
            .map(|i| i.name)
            .collect();
        assert_eq!(names, expected, "{tail}");
    }
}

#[test]
fn function_names_stay_and_all_other_custom_sections_go() {
    let mut wasm = wat::parse_str(format!(
        r#"(module $game (memory (export "memory") 1) (func $callback (result i32) i32.const 0)
           (func $lobby (local $x i32)) {EXPORTS} (@custom "producers" "x") (@custom ".debug" "y"))"#
    ))
    .unwrap();
    let parsed = parse(&rewrite(&wasm, &ModuleLimits::default()).unwrap().wasm);
    assert_eq!(parsed.customs, ["name"]);
    assert_eq!(parsed.names[&0], "callback");
    assert_eq!(parsed.names[&1], "lobby");
    // A broken name section is no reason to refuse: a second one, of one stray byte.
    wasm.extend(b"\0\x06\x04name\x01");
    rewrite(&wasm, &ModuleLimits::default()).unwrap();
}

#[test]
fn the_rewrite_is_a_function_of_bytes_and_limits() {
    let text = "(func (param i32) (loop (br_if 0 (local.get 0))) (call 0) drop)";
    assert_eq!(guest(text).wasm, guest(text).wasm);
    assert_eq!(guest(text).shape, guest(text).shape);
}

#[test]
fn the_estimate_of_the_rewritten_size_is_not_exceeded() {
    let text = format!(
        r#"(module (memory (export "memory") 1) (func $callback (result i32) i32.const 0)
           {EXPORTS} (table 1 funcref) {}
           (func (param i32) (result i32 i32) {} {} {} (call 0) (return (i32.const 1)))
           (func (result i64 i64 i64) (call 0) unreachable) (func))"#,
        "(global (mut i64) (i64.const 0))".repeat(200),
        "(loop (drop (memory.grow (local.get 0))))".repeat(300),
        "(memory.fill (i32.const 0) (i32.const 0) (local.get 0))".repeat(300),
        "(drop (table.grow 0 (ref.null func) (local.get 0)))".repeat(300),
    );
    let wasm = wat::parse_str(text).unwrap();
    let mut limits = ModuleLimits::default();
    let rewritten = rewrite(&wasm, &limits).unwrap();
    let bytes: u64 = Parser::new(0)
        .parse_all(&rewritten.wasm)
        .filter_map(|payload| match payload.unwrap() {
            Payload::CodeSectionEntry(body) => Some(body.as_bytes().len() as u64),
            _ => None,
        })
        .take(rewritten.shape.functions as usize)
        .sum();
    // A limit just short of what came out must refuse before anything is written.
    limits.code_bytes_max = bytes - 1;
    assert!(rewrite(&wasm, &limits).is_err());
}

fn reference_artifacts() -> Option<Vec<PathBuf>> {
    let Some(kit) = std::env::var_os("CABINET_REFERENCE") else {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: set CABINET_REFERENCE to a kit checkout to rewrite its artifacts"
        );
        return None;
    };
    let data = PathBuf::from(kit).join("host/gameabi/testdata");
    Some(
        [
            "fixture/fixture.wasm",
            "fixture-rs/fixture-rs.wasm",
            "fixture-rs-kit/fixture-rs-kit.wasm",
            "loadspike/loadspike.wasm",
            "loadspike/loadspike-cons.wasm",
        ]
        .iter()
        .map(|name| data.join(name))
        .collect(),
    )
}

#[test]
fn the_five_reference_artifacts_are_rewritten_and_optimised() {
    let Some(artifacts) = reference_artifacts() else {
        return;
    };
    let limits = ModuleLimits::default();
    for path in artifacts {
        let wasm = std::fs::read(&path).unwrap();
        let rewritten =
            rewrite(&wasm, &limits).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        parse(&rewritten.wasm);
        let shape = rewritten.shape;
        assert_eq!(
            shape.cost.tier(&limits),
            CostTier::Speed,
            "{}",
            path.display()
        );
        assert_eq!(shape.start, None);
        assert!(shape.tables.iter().all(|table| !table.mutated));
        assert!(shape.references.is_empty());
        assert!(
            shape
                .globals
                .iter()
                .all(|global| global.ty == ValueType::I32)
        );
        eprintln!("{}: {:?} {:?}", path.display(), shape.cost, shape.stats);
    }
}
