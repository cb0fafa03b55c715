//! Rewritten modules, run: they compute what they did, at every optimisation level, and their state
//! is where the shape says.

mod rewrite_run;

use cabinet_host::rewrite::{DEPTH_EXPORT, ModuleLimits, rewrite};
use rewrite_run::{LEVELS, PLENTY, Running, guest, i, rewritten};
use wasmer::Value;
use wasmer::sys::CraneliftOptLevel;

/// Runs `calls` on the module as it was and rewritten, at both levels: same results, same traps,
/// same memory, and a depth that is back at zero. Returns the fuel used, which must be the same at
/// both levels.
fn same(tail: &str, calls: &[(&str, &[Value])]) -> i64 {
    let mut used = Vec::new();
    for level in &LEVELS {
        let mut before = Running::new(&guest(tail), level);
        let mut after = Running::new(&rewritten(tail), level);
        for (name, arguments) in calls {
            let expected = before.call(name, arguments);
            let found = after.call(name, arguments);
            assert_eq!(found, expected, "{name} {arguments:?}");
            assert!(before.memory() == after.memory(), "{name} {arguments:?}");
            if expected.is_ok() {
                assert_eq!(after.depth(), 0);
            } else {
                after.set(DEPTH_EXPORT, Value::I32(0));
            }
        }
        used.push(PLENTY - after.fuel());
    }
    assert_eq!(used[0], used[1], "fuel differs between levels");
    used[0]
}

#[test]
fn loops_with_parameters_and_results() {
    same(
        r#"(func (export "sum") (param i32) (result i64)
             (i64.const 0)
             (loop $l (param i64) (result i64)
               (i64.add (i64.extend_i32_u (local.get 0)))
               (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
               (br_if $l (local.get 0))))"#,
        &[("sum", &[i(1)]), ("sum", &[i(10)]), ("sum", &[i(1000)])],
    );
}

#[test]
fn blocks_with_several_values() {
    same(
        r#"(func $three (result i32 i64 f64) i32.const 1 i64.const 2 f64.const 3)
           (func (export "swap") (param i32 i64) (result i64 i32)
             (call $three) drop drop drop
             (local.get 0) (local.get 1)
             (block (param i32 i64) (result i64 i32)
               (local.set 1) (local.set 0) (local.get 1) (local.get 0)
               (if (param i64 i32) (result i64 i32) (local.get 0)
                 (then) (else drop drop (i64.const 7) (i32.const 8)))))"#,
        &[
            ("swap", &[i(3), Value::I64(4)]),
            ("swap", &[i(0), Value::I64(4)]),
        ],
    );
}

#[test]
fn branches_to_the_functions_own_label() {
    let tail = r#"(func $f (param i32) (result i32) (local.get 0))
           (func (export "br") (param i32) (result i32 i32)
             (block (loop
               (br_if 1 (i32.eqz (local.get 0)))
               (drop (call $f (i32.const 1)))
               (br 2 (i32.const 10) (local.get 0))))
             (i32.const 20) (i32.const 21))
           (func (export "br_if") (param i32) (result i32)
             (i32.const 5) (br_if 0 (local.get 0)) (drop) (call $f (i32.const 6)))
           (func (export "br_table") (param i32) (result i32)
             (block $a (result i32)
               (block $b (result i32)
                 (i32.const 100) (local.get 0) (br_table $a $b 2 2))
               (drop) (call $f (i32.const 200)))
             (i32.add (i32.const 1)))
           (func (export "leaf") (param i32) (result i32)
             (block (result i32) (br_table 0 1 (i32.const 9) (local.get 0)))
             (i32.add (i32.const 1)))"#;
    same(
        tail,
        &[
            ("br", &[i(0)]),
            ("br", &[i(1)]),
            ("br_if", &[i(0)]),
            ("br_if", &[i(1)]),
            ("br_table", &[i(0)]),
            ("br_table", &[i(1)]),
            ("br_table", &[i(2)]),
            ("br_table", &[i(-1)]),
            ("leaf", &[i(0)]),
            ("leaf", &[i(1)]),
        ],
    );
}

#[test]
fn returns_inside_nested_blocks() {
    same(
        r#"(func $f (result i32) i32.const 0)
           (func (export "one") (param i32) (result i32)
             (drop (call $f))
             (block (loop (if (local.get 0)
               (then (return (i32.const 1)))
               (else (block (return (i32.const 2)))))))
             (i32.const 3))
           (func (export "two") (param i32) (result i32 v128)
             (drop (call $f))
             (block (br_if 0 (local.get 0)) (return (i32.const 1) (v128.const i64x2 1 2)))
             (i32.const 2) (v128.const i64x2 3 4))
           (func (export "none") (param i32)
             (block (br_if 0 (local.get 0)) return) (drop (call $f)) return)
           (func (export "dead") (result i32) (drop (call $f)) (return (i32.const 1)) return)"#,
        &[
            ("one", &[i(0)]),
            ("one", &[i(1)]),
            ("two", &[i(0)]),
            ("two", &[i(1)]),
            ("none", &[i(0)]),
            ("none", &[i(1)]),
            ("dead", &[]),
        ],
    );
}

#[test]
fn recursion_direct_and_through_a_table() {
    same(
        r#"(type $t (func (param i32) (result i32)))
           (table 2 funcref) (elem (i32.const 0) $fib $odd)
           (func $fib (export "fib") (param i32) (result i32)
             (if (i32.lt_u (local.get 0) (i32.const 2)) (then (return (local.get 0))))
             (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1)))
                      (call_indirect (type $t)
                        (i32.sub (local.get 0) (i32.const 2)) (i32.const 0))))
           (func $odd (param i32) (result i32) (i32.and (local.get 0) (i32.const 1)))
           (func (export "indirect") (param i32 i32) (result i32)
             (call_indirect (type $t) (local.get 0) (local.get 1)))"#,
        &[
            ("fib", &[i(15)]),
            ("indirect", &[i(7), i(1)]),
            ("indirect", &[i(7), i(2)]),
        ],
    );
}

#[test]
fn traps_of_the_guest_stay_what_they_are() {
    same(
        r#"(func (export "unreachable") unreachable)
           (func (export "div") (param i32) (result i32) (i32.div_s (i32.const 1) (local.get 0)))
           (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
           (func (export "trunc") (param f32) (result i32) (i32.trunc_f32_s (local.get 0)))"#,
        &[
            ("unreachable", &[]),
            ("div", &[i(0)]),
            ("div", &[i(1)]),
            ("load", &[i(131_069)]),
            ("load", &[i(131_068)]),
            ("trunc", &[Value::F32(f32::NAN)]),
        ],
    );
}

#[test]
fn tables_and_memory_grow_as_before() {
    same(
        r#"(table $t 2 20 funcref) (elem $e func $callback $callback)
           (func (export "grow") (param i32) (result i32)
             (table.grow $t (ref.func $callback) (local.get 0)))
           (func (export "is_null") (param i32) (result i32)
             (ref.is_null (table.get $t (local.get 0))))
           (func (export "fill") (param i32 i32)
             (table.fill $t (local.get 0) (ref.null func) (local.get 1)))
           (func (export "copy") (param i32 i32 i32)
             (table.copy $t $t (local.get 0) (local.get 1) (local.get 2)))
           (func (export "init") (param i32 i32 i32)
             (table.init $t $e (local.get 0) (local.get 1) (local.get 2)))
           (func (export "pages") (param i32) (result i32) (memory.grow (local.get 0)))"#,
        &[
            ("grow", &[i(3)]),
            ("is_null", &[i(0)]),
            ("is_null", &[i(4)]),
            ("fill", &[i(3), i(2)]),
            ("fill", &[i(3), i(3)]),
            ("is_null", &[i(4)]),
            ("init", &[i(0), i(0), i(2)]),
            ("init", &[i(0), i(1), i(2)]),
            ("copy", &[i(1), i(0), i(2)]),
            ("is_null", &[i(2)]),
            ("grow", &[i(16)]),
            ("grow", &[i(-1)]),
            ("grow", &[i(15)]),
            ("grow", &[i(1)]),
            ("pages", &[i(1)]),
            ("pages", &[i(1000)]),
            ("pages", &[i(-1)]),
            ("pages", &[i(0)]),
        ],
    );
}

const BULK: &str = r#"
    (data $d "The quick brown fox jumps over the lazy dog")
    (data $active (i32.const 16) "active")
    (func (export "pattern") (param i32) (local $i i32)
      (loop $l
        (i32.store8 (local.get $i) (i32.mul (local.get $i) (i32.const 31)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $l (i32.lt_u (local.get $i) (local.get 0)))))
    (func (export "grow") (result i32) (memory.grow (i32.const 62)))
    (func (export "fill") (param i32 i32 i32)
      (memory.fill (local.get 0) (local.get 1) (local.get 2)))
    (func (export "copy") (param i32 i32 i32)
      (memory.copy (local.get 0) (local.get 1) (local.get 2)))
    (func (export "init") (param i32 i32 i32)
      (memory.init $d (local.get 0) (local.get 1) (local.get 2)))
    (func (export "again") (param i32 i32 i32)
      (memory.init $active (local.get 0) (local.get 1) (local.get 2)))"#;

#[test]
fn small_bulk_operations_are_unchanged() {
    let end = 131_072;
    same(
        BULK,
        &[
            ("pattern", &[i(end)]),
            ("fill", &[i(10), i(0x1ff), i(100)]),
            ("copy", &[i(1000), i(1001), i(4096)]),
            ("copy", &[i(1001), i(1000), i(4096)]),
            ("init", &[i(5000), i(4), i(39)]),
            // Zero length: at the end is fine, past it traps.
            ("fill", &[i(end), i(0), i(0)]),
            ("fill", &[i(end + 1), i(0), i(0)]),
            ("copy", &[i(end), i(end), i(0)]),
            ("copy", &[i(end + 1), i(0), i(0)]),
            ("copy", &[i(0), i(end + 1), i(0)]),
            ("init", &[i(end), i(43), i(0)]),
            ("init", &[i(end + 1), i(43), i(0)]),
            ("init", &[i(0), i(44), i(0)]),
            ("again", &[i(0), i(0), i(0)]),
            ("again", &[i(0), i(0), i(1)]),
            ("again", &[i(0), i(1), i(0)]),
            // Out of bounds by one, with nothing written.
            ("fill", &[i(end - 99), i(7), i(100)]),
            ("copy", &[i(end - 99), i(0), i(100)]),
            ("copy", &[i(0), i(end - 99), i(100)]),
            ("init", &[i(end - 42), i(0), i(43)]),
            ("init", &[i(0), i(1), i(43)]),
        ],
    );
}

#[test]
fn large_bulk_operations_are_unchanged_in_chunks() {
    let end = 64 << 16;
    let big = 3 << 20;
    same(
        BULK,
        &[
            ("grow", &[]),
            ("pattern", &[i(end)]),
            ("copy", &[i(1), i(0), i(big)]),
            ("copy", &[i(0), i(1), i(big)]),
            ("copy", &[i(700_000), i(0), i(big)]),
            ("copy", &[i(0), i(700_000), i(big)]),
            ("copy", &[i(0), i(0), i(big)]),
            ("copy", &[i(0), i(2 << 20), i(2 << 20)]),
            ("fill", &[i(3), i(9), i((1 << 20) + 1)]),
            ("fill", &[i(3), i(8), i(1 << 20)]),
            ("fill", &[i(0), i(1), i(end)]),
            ("pattern", &[i(end)]),
            // Out of bounds, with nothing written, even where the sum wraps 32 bits.
            ("fill", &[i(1), i(7), i(end)]),
            ("fill", &[i(16), i(7), i(-8)]),
            ("fill", &[i(-8), i(7), i(8_000)]),
            ("copy", &[i(end - big + 1), i(0), i(big)]),
            ("copy", &[i(0), i(end - big + 1), i(big)]),
            ("copy", &[i(0), i(1), i(-1)]),
            ("init", &[i(0), i(0), i(4_097)]),
            ("init", &[i(0), i(0), i(-1)]),
            ("again", &[i(0), i(0), i(1 << 21)]),
        ],
    );
}

#[test]
fn a_long_passive_segment_is_initialised_in_chunks() {
    let text = "abcdefgh".repeat(300_000);
    let tail = format!(
        r#"(data $d "{text}")
           (func (export "grow") (result i32) (memory.grow (i32.const 62)))
           (func (export "init") (param i32 i32 i32)
             (memory.init $d (local.get 0) (local.get 1) (local.get 2)))"#
    );
    same(
        &tail,
        &[
            ("grow", &[]),
            ("init", &[i(5), i(3), i(2_399_997)]),
            ("init", &[i(5), i(4), i(2_399_997)]),
            ("init", &[i(3_000_000), i(0), i(1_200_000)]),
        ],
    );
}

#[test]
fn state_in_globals_and_tables_is_reachable_by_name() {
    let tail = r#"(global $i (mut i32) (i32.const 1)) (global $f (mut funcref) (ref.null func))
        (global $v (mut v128) (v128.const i64x2 5 6))
        (table $t 1 9 funcref)
        (func $g (result i32) (i32.const 77)) (elem declare func $g)
        (func (export "f")
          (global.set $i (i32.const 2)) (global.set $f (ref.func $g))
          (global.set $v (v128.const i64x2 7 8))
          (drop (table.grow $t (ref.func $g) (i32.const 3))))"#;
    let mut running = Running::new(&rewritten(tail), &CraneliftOptLevel::Speed);
    running.call("f", &[]).unwrap();
    assert_eq!(running.get("cabinet:g0").unwrap_i32(), 2);
    assert_eq!(running.get("cabinet:g2").unwrap_v128(), 7 | 8 << 64);
    let Value::FuncRef(Some(function)) = running.get("cabinet:g1") else {
        panic!("a function");
    };
    assert_eq!(
        function.call(&mut running.store, &[]).unwrap()[0].unwrap_i32(),
        77
    );
    let table = running
        .instance
        .exports
        .get_table("cabinet:t0")
        .unwrap()
        .clone();
    assert_eq!(table.size(&running.store), 4);
    assert!(matches!(
        table.get(&mut running.store, 3),
        Some(Value::FuncRef(Some(_)))
    ));
    running.instance.exports.get_function("cabinet:f1").unwrap();
}

#[test]
fn the_start_function_waits_to_be_called() {
    let tail =
        r#"(global $g (mut i32) (i32.const 0)) (func $s (global.set $g (i32.const 1))) (start $s)"#;
    let mut running = Running::new(&rewritten(tail), &CraneliftOptLevel::None);
    assert_eq!(running.get("cabinet:g0").unwrap_i32(), 0);
    running.call("cabinet:start", &[]).unwrap();
    assert_eq!(running.get("cabinet:g0").unwrap_i32(), 1);
}

#[test]
fn growth_stops_at_the_limits() {
    let tail = r#"(table $t 10 funcref)
        (func (export "pages") (param i32) (result i32) (memory.grow (local.get 0)))
        (func (export "elements") (param i32) (result i32)
          (table.grow $t (ref.null func) (local.get 0)))"#;
    let mut limits = ModuleLimits::default();
    limits.memory_pages_max = 5;
    limits.table_elements_max = 20;
    let wasm = rewrite(&guest(tail), &limits).unwrap().wasm;
    let mut running = Running::new(&wasm, &CraneliftOptLevel::Speed);
    let mut grow = |name, by| running.call(name, &[i(by)]).unwrap();
    assert_eq!(grow("pages", 4), "I32(-1) ");
    assert_eq!(grow("pages", 3), "I32(2) ");
    assert_eq!(grow("pages", 1), "I32(-1) ");
    assert_eq!(grow("elements", 11), "I32(-1) ");
    assert_eq!(grow("elements", 10), "I32(10) ");
    assert_eq!(grow("elements", 1), "I32(-1) ");
}
