//! Every reason the rewrite gives for not taking a module, each by a module that has only that fault.

use cabinet_host::rewrite::imports::{ENV, USER, WASI, host_functions};
use cabinet_host::rewrite::{ModuleLimits, Refusal, rewrite};

/// A module that loads, with `head` before its definitions (imports) and `tail` after them.
fn guest(head: &str, tail: &str) -> Vec<u8> {
    let exports: String = CALLBACKS
        .iter()
        .map(|name| format!("(export {name:?} (func $callback))"))
        .collect();
    wasm(&format!(
        r#"(module {head} (memory (export "memory") 1) (func $callback (result i32) i32.const 0)
           {exports} {tail})"#
    ))
}

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

fn wasm(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn refusal(wasm: &[u8]) -> Refusal {
    rewrite(wasm, &ModuleLimits::default()).expect_err("the module must be refused")
}

fn feature(wasm: &[u8]) -> &'static str {
    match refusal(wasm) {
        Refusal::Feature { name, .. } => name,
        other => panic!("expected a feature, got: {other}"),
    }
}

#[test]
fn a_minimal_guest_is_taken() {
    rewrite(&guest("", ""), &ModuleLimits::default()).unwrap();
}

#[test]
fn bytes_that_are_not_wasm_are_told_apart_from_broken_wasm() {
    assert_eq!(refusal(b""), Refusal::NotWasm);
    assert_eq!(refusal(b"#!/bin/sh"), Refusal::NotWasm);
    assert!(matches!(refusal(b"\0asm"), Refusal::Invalid { .. }));
    assert!(matches!(
        refusal(b"\0asm\x01\0\0\0\x01"),
        Refusal::Invalid { .. }
    ));
    let mut cut = guest("", "");
    cut.pop();
    assert!(matches!(refusal(&cut), Refusal::Invalid { .. }));
}

#[test]
fn an_ill_typed_body_is_invalid_and_says_where() {
    let Refusal::Invalid { offset, message } =
        refusal(&guest("", "(func (result i32) i64.const 1)"))
    else {
        panic!("expected Invalid");
    };
    assert!(offset > 8);
    assert!(message.contains("type mismatch"), "{message}");
}

#[test]
fn a_component_is_refused_by_name() {
    assert_eq!(feature(b"\0asm\x0d\0\x01\0"), "component model");
}

#[test]
fn every_unsupported_proposal_is_refused_by_name() {
    let cases = [
        ("threads", "(func (drop (i32.atomic.load (i32.const 0))))"),
        ("threads", "(func (atomic.fence))"),
        (
            "threads",
            "(func (drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1))))",
        ),
        ("multi-memory", "(memory 1)"),
        ("tail calls", "(func $f return_call $f)"),
        ("exceptions", "(tag $t) (func throw $t)"),
        (
            "extended constant expressions",
            "(global i32 (i32.add (i32.const 1) (i32.const 2)))",
        ),
        (
            "typed function references",
            "(type $t (func)) (func (param (ref $t)))",
        ),
        ("garbage collection", "(type (struct (field i32)))"),
        ("garbage collection", "(func (param i31ref))"),
        ("externref", "(table 1 externref)"),
        ("externref", "(global (mut externref) (ref.null extern))"),
        ("externref", "(func (param externref))"),
        (
            "relaxed SIMD",
            "(func (param v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))",
        ),
        (
            "wide arithmetic",
            "(func (param i64 i64) (result i64 i64) (i64.mul_wide_s (local.get 0) (local.get 1)))",
        ),
        (
            "stack switching",
            "(type $f (func)) (type $c (cont $f)) (func (param (ref null $c)))",
        ),
        ("memory64", "(table i64 1 funcref)"),
    ];
    for (name, text) in cases {
        assert_eq!(feature(&guest("", text)), name, "{text}");
    }
}

#[test]
fn unsupported_kinds_of_memory_are_refused_by_name() {
    let cases = [
        ("threads", r#"(memory (export "memory") 1 2 shared)"#),
        ("memory64", r#"(memory (export "memory") i64 1)"#),
        (
            "custom page sizes",
            r#"(memory (export "memory") 1 (pagesize 1))"#,
        ),
    ];
    for (name, text) in cases {
        assert_eq!(feature(&wasm(&format!("(module {text})"))), name);
    }
}

#[test]
fn every_supported_feature_is_taken() {
    for text in [
        "(func (param i32) (result i32) (i32.extend8_s (local.get 0)))",
        "(func (param f32) (result i32) (i32.trunc_sat_f32_s (local.get 0)))",
        "(func (result i32 i64) i32.const 1 i64.const 2)",
        "(func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)))",
        "(func (param v128) (result v128) (i32x4.add (local.get 0) (local.get 0)))",
        "(table 1 funcref) (func (drop (table.get 0 (i32.const 0))))",
        "(global (export \"g\") (mut i32) (i32.const 0))",
        "(table 1 funcref) (table 1 funcref) (func (call_indirect 1 (i32.const 0)))",
    ] {
        rewrite(&guest("", text), &ModuleLimits::default())
            .unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[test]
fn an_overlong_table_index_of_call_indirect_is_taken() {
    let table = "(table 1 funcref) (func (call_indirect 0 (i32.const 0)) (drop (i32.const 99)))";
    let mut wasm = guest("", table);
    // call_indirect, type 1, table 0: the table index becomes 80 00, over the `i32.const 99`.
    let at = wasm
        .windows(6)
        .position(|bytes| bytes == [0x11, 1, 0, 0x41, 0xe3, 0])
        .unwrap();
    wasm[at..at + 6].copy_from_slice(&[0x11, 1, 0x80, 0, 0x41, 0]);
    rewrite(&wasm, &ModuleLimits::default()).unwrap();
}

#[test]
fn the_host_offers_ten_game_functions_the_kernel_and_all_of_wasi() {
    let count = |module| host_functions().filter(|f| f.module == module).count();
    assert_eq!((count(USER), count(ENV), count(WASI)), (10, 32, 46));
    let mut names: Vec<_> = host_functions().map(|f| (f.module, f.name)).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 88);
}

#[test]
fn every_host_function_can_be_imported_with_its_type_and_no_other() {
    for function in host_functions() {
        let signature = function.signature();
        let params: String = signature.params.iter().map(|ty| format!("{ty} ")).collect();
        let results: String = signature
            .results
            .iter()
            .map(|ty| format!("{ty} "))
            .collect();
        let import = |extra| {
            format!(
                "(import {:?} {:?} (func (param {params}{extra}) (result {results})))",
                function.module, function.name
            )
        };
        let rewritten = rewrite(&guest(&import(""), ""), &ModuleLimits::default()).unwrap();
        assert_eq!(rewritten.shape.imports, [function]);
        let Refusal::ImportType {
            module,
            name,
            expected,
            found,
        } = refusal(&guest(&import("f32"), ""))
        else {
            panic!("{} must be refused", function.name);
        };
        assert_eq!(
            (module.as_str(), name.as_str()),
            (function.module, function.name)
        );
        assert_eq!(expected, signature.to_string());
        assert!(found.contains("f32"), "{found}");
    }
}

#[test]
fn unknown_imports_are_refused_by_module_and_name() {
    assert_eq!(
        refusal(&guest(r#"(import "env" "alloc" (func))"#, "")),
        Refusal::ImportModule {
            module: "env".into(),
            name: "alloc".into()
        }
    );
    assert_eq!(
        refusal(&guest(
            r#"(import "extism:host/user" "profile_get" (func))"#,
            ""
        )),
        Refusal::ImportName {
            module: "extism:host/user".into(),
            name: "profile_get".into()
        }
    );
    let error = refusal(&guest(
        r#"(import "extism:host/user" "send" (func (param i32)))"#,
        "",
    ));
    assert_eq!(
        error.to_string(),
        "imports `send` from `extism:host/user` as (i32) -> (), but it is (i64, i64) -> i64"
    );
}

#[test]
fn a_long_or_dirty_import_name_is_cut_in_the_error() {
    let name = "\\n".repeat(1000);
    let error = refusal(&guest(&format!(r#"(import "{name}" "x" (func))"#), "")).to_string();
    assert!(error.len() < 500, "{}", error.len());
    assert!(!error.contains('\n'));
}

#[test]
fn only_functions_can_be_imported() {
    for (kind, import) in [
        ("memory", "(memory 1)"),
        ("table", "(table 1 funcref)"),
        ("global", "(global i32)"),
        ("global", "(global (mut i32))"),
    ] {
        let import = format!(r#"(import "extism:host/env" "alloc" {import})"#);
        let text = wasm(&format!("(module {import})"));
        let Refusal::ImportKind { kind: found, .. } = refusal(&text) else {
            panic!("{import}");
        };
        assert_eq!(found, kind);
    }
}

#[test]
fn a_memory_is_required_and_must_be_exported_under_its_name() {
    assert_eq!(refusal(&wasm("(module)")), Refusal::NoMemory);
    assert_eq!(
        refusal(&wasm("(module (memory 1))")),
        Refusal::MemoryNotExported
    );
    assert_eq!(
        refusal(&wasm(r#"(module (memory (export "mem") 1))"#)),
        Refusal::MemoryNotExported
    );
    assert_eq!(
        refusal(&wasm(r#"(module (memory 1) (func (export "memory")))"#)),
        Refusal::MemoryNotExported
    );
}

/// A guest whose callback `name` is exported as `export` instead, or not at all.
fn with_callback(name: &str, export: &str) -> Vec<u8> {
    let exports: String = CALLBACKS
        .iter()
        .filter(|other| **other != name)
        .map(|name| format!("(export {name:?} (func $callback))"))
        .collect();
    wasm(&format!(
        r#"(module (import "wasi_snapshot_preview1" "sched_yield" (func $imported (result i32)))
           (memory (export "memory") 1) (func $callback (result i32) i32.const 0)
           {exports} {export})"#
    ))
}

#[test]
fn each_callback_is_required() {
    for name in CALLBACKS {
        assert_eq!(
            refusal(&with_callback(name, "")),
            Refusal::MissingExport { name }
        );
    }
}

#[test]
fn a_callback_must_take_nothing_and_return_nothing_or_one_integer() {
    for (ty, ok) in [
        ("", true),
        ("(result i32)", true),
        ("(result i64)", true),
        ("(result f32)", false),
        ("(result f64)", false),
        ("(result v128)", false),
        ("(result funcref)", false),
        ("(result i32 i32)", false),
        ("(param i32) (result i32)", false),
    ] {
        let export = format!(r#"(func (export "wake") {ty} unreachable)"#);
        let result = rewrite(&with_callback("wake", &export), &ModuleLimits::default());
        match result {
            Ok(_) => assert!(ok, "{ty} was taken"),
            Err(Refusal::ExportSignature { name: "wake", .. }) => assert!(!ok, "{ty} was refused"),
            Err(other) => panic!("{ty}: {other}"),
        }
    }
}

#[test]
fn a_callback_must_be_a_function_of_the_guest() {
    let global = r#"(global (export "wake") i32 (i32.const 0))"#;
    assert_eq!(
        refusal(&with_callback("wake", global)).to_string(),
        "exports `wake` as a global, but it must be () -> (), () -> i32 or () -> i64"
    );
    let import = r#"(export "wake" (func $imported))"#;
    assert!(
        refusal(&with_callback("wake", import))
            .to_string()
            .starts_with("exports `wake` as a function of the host")
    );
}

#[test]
fn our_export_names_are_reserved() {
    for name in ["cabinet:fuel", "cabinet:g0", "cabinet:"] {
        let export = format!("(export {name:?} (func $callback))");
        assert_eq!(
            refusal(&guest("", &export)),
            Refusal::ReservedExport { name: name.into() }
        );
    }
    rewrite(
        &guest("", r#"(export "cabinet" (func $callback))"#),
        &ModuleLimits::default(),
    )
    .unwrap();
}

#[test]
fn dropping_a_segment_is_refused_because_a_snapshot_would_lose_it() {
    let data = refusal(&guest("", r#"(data $d "x") (func (data.drop $d))"#));
    let elem = refusal(&guest(
        "",
        "(table 1 funcref) (elem $e func $callback) (func (elem.drop $e))",
    ));
    assert!(matches!(
        data,
        Refusal::Uncapturable {
            what: "data.drop",
            ..
        }
    ));
    assert!(matches!(
        elem,
        Refusal::Uncapturable {
            what: "elem.drop",
            ..
        }
    ));
    let passive =
        r#"(data $d "x") (func (memory.init $d (i32.const 0) (i32.const 0) (i32.const 1)))"#;
    rewrite(&guest("", passive), &ModuleLimits::default()).unwrap();
}

#[test]
fn a_refused_artifact_never_panics_however_it_is_damaged() {
    let original = guest(
        r#"(import "extism:host/env" "alloc" (func (param i64) (result i64)))"#,
        r#"(table 3 funcref) (elem (i32.const 0) func $callback) (global (mut i64) (i64.const 7))
           (func (param i32) (result i32) (loop (br_if 0 (local.get 0))) (return (i32.const 3)))
           (data (i32.const 0) "hello")"#,
    );
    let limits = ModuleLimits::default();
    for at in 0..original.len() {
        let _ = rewrite(&original[..at], &limits);
        for bit in [1, 2, 0x40, 0x80, 0xff] {
            let mut damaged = original.clone();
            damaged[at] ^= bit;
            if let Ok(rewritten) = rewrite(&damaged, &limits) {
                assert!(rewritten.wasm.starts_with(b"\0asm"));
            }
        }
    }
}
