//! Rewritten modules, run: they compute what they did, stop when they must, and count the same at
//! every optimisation level.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use cabinet_host::rewrite::{
    DEPTH_EXHAUSTED, DEPTH_EXPORT, FUEL_EXPORT, LIMIT_EXPORT, ModuleLimits, rewrite,
};
use wasmer::sys::{Cranelift, CraneliftOptLevel, EngineBuilder, Features};
use wasmer::{AsStoreMut, Engine, Extern, Instance, Module, Store, Value, imports};
use wasmer_types::TrapCode;

const LEVELS: [CraneliftOptLevel; 2] = [CraneliftOptLevel::None, CraneliftOptLevel::Speed];
const PLENTY: i64 = i64::MAX / 2;

/// A guest with `tail`, whose memory has two pages. Its function 0 is a callback.
fn guest(tail: &str) -> Vec<u8> {
    let text = format!(
        r#"(module (memory (export "memory") 2 64) (func $callback (result i32) i32.const 0)
           (export "shellcade_abi" (func $callback)) (export "meta" (func $callback))
           (export "start" (func $callback)) (export "join" (func $callback))
           (export "leave" (func $callback)) (export "input" (func $callback))
           (export "wake" (func $callback)) (export "close" (func $callback)) {tail})"#
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn rewritten(tail: &str) -> Vec<u8> {
    rewrite(&guest(tail), &ModuleLimits::default())
        .unwrap()
        .wasm
}

struct Running {
    store: Store,
    instance: Instance,
}

impl Running {
    fn new(wasm: &[u8], level: &CraneliftOptLevel) -> Self {
        let mut compiler = Cranelift::new();
        compiler.opt_level(level.clone()).canonicalize_nans(true);
        let mut features = Features::none();
        features
            .bulk_memory(true)
            .multi_value(true)
            .reference_types(true)
            .simd(true);
        let engine: Engine = EngineBuilder::new(compiler)
            .set_features(Some(features))
            .engine()
            .into();
        let mut store = Store::new(engine);
        let module = Module::new(&store, wasm).unwrap();
        let instance = Instance::new(&mut store, &module, &imports! {}).unwrap();
        let mut running = Self { store, instance };
        if running.instance.exports.get_global(FUEL_EXPORT).is_ok() {
            running.set(FUEL_EXPORT, Value::I64(PLENTY));
        }
        running
    }

    fn set(&mut self, name: &str, value: Value) {
        let global = self.instance.exports.get_global(name).unwrap().clone();
        global.set(&mut self.store, value).unwrap();
    }

    fn get(&mut self, name: &str) -> Value {
        let global = self.instance.exports.get_global(name).unwrap().clone();
        global.get(&mut self.store)
    }

    fn fuel(&mut self) -> i64 {
        self.get(FUEL_EXPORT).unwrap_i64()
    }

    fn depth(&mut self) -> i32 {
        self.get(DEPTH_EXPORT).unwrap_i32()
    }

    /// Results as text (a NaN is its bits), or the trap.
    fn call(&mut self, name: &str, arguments: &[Value]) -> Result<String, TrapCode> {
        let function = self.instance.exports.get_function(name).unwrap().clone();
        match function.call(&mut self.store, arguments) {
            Ok(values) => Ok(values
                .iter()
                .map(|value| match value {
                    Value::F32(float) => format!("f32:{:x} ", float.to_bits()),
                    Value::F64(float) => format!("f64:{:x} ", float.to_bits()),
                    other => format!("{other:?} "),
                })
                .collect()),
            Err(error) => Err(error.to_trap().expect("a wasm trap")),
        }
    }

    fn memory(&self) -> Vec<u8> {
        let memory = self.instance.exports.get_memory("memory").unwrap();
        memory.view(&self.store).copy_to_vec().unwrap()
    }

    /// The limit cell, for another thread.
    fn limit(&mut self) -> &'static AtomicI64 {
        let global = self
            .instance
            .exports
            .get_global(LIMIT_EXPORT)
            .unwrap()
            .clone();
        let wasmer_vm::VMExtern::Global(handle) =
            Extern::Global(global).to_vm_extern().unwrap_sys()
        else {
            panic!("not a global");
        };
        let definition = handle
            .get(self.store.as_store_mut().objects_mut().as_sys())
            .vmglobal();
        // SAFETY: the cell is 16 bytes at a fixed address in the instance, which the callers below
        // keep alive until the thread that writes is joined; compiled code reads it with an
        // aligned 8-byte load.
        unsafe { AtomicI64::from_ptr(definition.as_ptr().cast::<i64>()) }
    }
}

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

fn i(value: i32) -> Value {
    Value::I32(value)
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

/// Runs `name` with exactly `fuel` and says whether it finished.
fn finishes(running: &mut Running, name: &str, fuel: i64) -> bool {
    running.set(FUEL_EXPORT, Value::I64(fuel));
    match running.call(name, &[]) {
        Ok(_) => true,
        Err(trap) => {
            assert_eq!(trap, TrapCode::UnreachableCodeReached);
            assert!(running.fuel() < 0);
            false
        }
    }
}

#[test]
fn fuel_runs_out_at_an_exact_count() {
    // 4 at the entry, 10 turns of 9: the end of a region is one of its operators.
    let loops = r#"(func (export "f") (local i32)
        (local.set 0 (i32.const 10))
        (loop $l
          (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
          (br_if $l (i32.ne (local.get 0) (i32.const 0)))))"#;
    // 4 of its own and 3 callees of 1.
    let calls = r#"(func $g) (func (export "f") call $g call $g call $g)"#;
    // 5 of its own; the helper has no entry check, only its charge of 1 + 4096/64.
    let short = r#"(func (export "f")
        (memory.fill (i32.const 0) (i32.const 0) (i32.const 4096)))"#;
    // The same by the long way: one chunk.
    let long = r#"(func (export "f")
        (memory.fill (i32.const 0) (i32.const 0) (i32.const 131072)))"#;
    // 4 of its own and 1 + 32/16 pages.
    let grow = r#"(func (export "f") (drop (memory.grow (i32.const 32))))"#;
    for (tail, cost) in [
        (loops, 4 + 10 * 9),
        (calls, 4 + 3),
        (short, 5 + 65),
        (long, 5 + 2_049),
        (grow, 4 + 3),
    ] {
        for level in &LEVELS {
            let mut running = Running::new(&rewritten(tail), level);
            assert!(finishes(&mut running, "f", cost), "{tail}");
            assert_eq!(running.fuel(), 0, "{tail}");
            let mut running = Running::new(&rewritten(tail), level);
            assert!(!finishes(&mut running, "f", cost - 1), "{tail}");
        }
    }
}

#[test]
fn each_mebibyte_of_a_bulk_operation_has_its_own_check() {
    let tail = r#"(func (export "f")
        (drop (memory.grow (i32.const 62)))
        (memory.fill (i32.const 0) (i32.const 1) (i32.const 4194304)))"#;
    let chunk = 1 + (1 << 20) / 64;
    let own = 8 + 1 + 62 / 16;
    for level in &LEVELS {
        let mut running = Running::new(&rewritten(tail), level);
        assert!(!finishes(&mut running, "f", own + 2 * chunk + chunk / 2));
        let memory = running.memory();
        assert!(memory[..2 << 20].iter().all(|byte| *byte == 1));
        assert!(memory[2 << 20..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn endless_work_of_every_shape_ends_with_the_fuel() {
    for (tail, name) in ENDLESS {
        for level in &LEVELS {
            let mut running = Running::new(&rewritten(tail), level);
            assert!(!finishes(&mut running, "f", 3_000_000), "{name}");
        }
    }
}

const ENDLESS: &[(&str, &str)] = &[
    (r#"(func (export "f") (loop (br 0)))"#, "tight"),
    (
        r#"(func (export "f") (loop (loop (br 1))))"#,
        "nested, inner never taken",
    ),
    (
        r#"(func (export "f") (local i32)
             (loop (loop
               (local.set 0 (i32.add (local.get 0) (i32.const 1)))
               (br_if 0 (i32.and (local.get 0) (i32.const 1023))))
               (br 0)))"#,
        "nested",
    ),
    (
        r#"(func (export "f") (loop (i32.store (i32.const 0) (i32.const 1)) (br 0)))"#,
        "store only",
    ),
    (
        r#"(func (export "f") (loop (drop (i32.load (i32.const 0))) (br 0)))"#,
        "load only",
    ),
    (
        r#"(global $g (mut i64) (i64.const 0))
           (func (export "f")
             (loop (global.set $g (i64.add (global.get $g) (i64.const 1))) (br 0)))"#,
        "global only",
    ),
    (
        r#"(func (export "f") (loop (memory.fill (i32.const 0) (i32.const 0) (i32.const 131072)) (br 0)))"#,
        "fills",
    ),
    (
        r#"(func (export "f") (loop (drop (memory.grow (i32.const 0))) (br 0)))"#,
        "grows by nothing",
    ),
    (
        r#"(func $g) (func (export "f") (loop (call $g) (br 0)))"#,
        "calls",
    ),
    (
        r#"(func $g (param i32) (result i32)
             (if (i32.eqz (local.get 0)) (then (return (i32.const 0))))
             (i32.add (call $g (i32.sub (local.get 0) (i32.const 1)))
                      (call $g (i32.sub (local.get 0) (i32.const 1)))))
           (func (export "f") (drop (call $g (i32.const 60))))"#,
        "a tree of calls without a loop",
    ),
];

#[test]
fn endless_work_of_every_shape_ends_when_another_thread_says_so() {
    for (tail, name) in ENDLESS {
        for level in &LEVELS {
            let mut running = Running::new(&rewritten(tail), level);
            let limit = running.limit();
            let watchdog = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(5));
                limit.store(i64::MAX, Ordering::Relaxed);
            });
            let result = running.call("f", &[]);
            watchdog.join().unwrap();
            assert_eq!(result, Err(TrapCode::UnreachableCodeReached), "{name}");
            assert!(
                running.fuel() > 0,
                "{name}: stopped by the limit, not by fuel"
            );
        }
    }
}

#[test]
fn endless_recursion_traps_by_depth_and_says_so() {
    let recursion = r#"
        (func $f (export "f") (param i32) (result i32)
          (i32.add (i32.const 1) (call $f (local.get 0))))
        (type $t (func)) (table 1 funcref) (elem (i32.const 0) $g)
        (func $g (export "g") (call_indirect (type $t) (i32.const 0)))
        (func $wide (export "wide") (param v128 v128) (result v128)
          (local v128 v128 v128 v128 v128 v128 v128 v128)
          (call $wide (local.get 0) (local.get 1)))"#;
    for level in &LEVELS {
        for (name, arguments) in [
            ("f", vec![i(0)]),
            ("g", vec![]),
            ("wide", vec![Value::V128(0), Value::V128(0)]),
        ] {
            let mut running = Running::new(&rewritten(recursion), level);
            let result = running.call(name, &arguments);
            assert_eq!(result, Err(TrapCode::UnreachableCodeReached), "{name}");
            assert_eq!(running.depth(), DEPTH_EXHAUSTED);
            // The host resets the cell and the room could go on.
            running.set(DEPTH_EXPORT, Value::I32(0));
            running.call("wake", &[]).unwrap();
        }
    }
}

#[test]
fn depth_is_counted_exactly() {
    // `f` has one parameter, at most two operands, 8 slots besides: 11 a frame.
    let tail = r#"(func $f (export "f") (param i32)
        (if (local.get 0) (then (call $f (i32.sub (local.get 0) (i32.const 1))))))"#;
    let mut limits = ModuleLimits::default();
    limits.depth_slots_max = 11 * 100;
    let wasm = rewrite(&guest(tail), &limits).unwrap().wasm;
    for level in &LEVELS {
        let mut running = Running::new(&wasm, level);
        running.call("f", &[i(99)]).unwrap();
        assert_eq!(running.depth(), 0);
        running.call("f", &[i(100)]).unwrap_err();
        assert_eq!(running.depth(), DEPTH_EXHAUSTED);
    }
}

#[test]
fn a_trap_by_fuel_or_by_the_guest_does_not_look_like_depth() {
    let tail = r#"(func $g unreachable) (func (export "f") call $g)"#;
    let mut running = Running::new(&rewritten(tail), &CraneliftOptLevel::Speed);
    running.call("f", &[]).unwrap_err();
    assert!(running.depth() > 0);
    assert!(running.fuel() > 0);
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
