//! Rewritten modules that do not end by themselves: stopped by fuel at an exact count, by another
//! thread, and by depth.

mod rewrite_run;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use cabinet_host::rewrite::{
    DEPTH_EXHAUSTED, DEPTH_EXPORT, FUEL_EXPORT, LIMIT_EXPORT, ModuleLimits, rewrite,
};
use rewrite_run::{LEVELS, Running, guest, i, rewritten};
use wasmer::sys::CraneliftOptLevel;
use wasmer::{AsStoreMut, Extern, Value};
use wasmer_types::TrapCode;

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
            let limit = limit(&mut running);
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

/// The limit cell, for another thread.
fn limit(running: &mut Running) -> &'static AtomicI64 {
    let global = running
        .instance
        .exports
        .get_global(LIMIT_EXPORT)
        .unwrap()
        .clone();
    let wasmer_vm::VMExtern::Global(handle) = Extern::Global(global).to_vm_extern().unwrap_sys()
    else {
        panic!("not a global");
    };
    let definition = handle
        .get(running.store.as_store_mut().objects_mut().as_sys())
        .vmglobal();
    // SAFETY: the cell is 16 bytes at a fixed address in the instance, which the callers below
    // keep alive until the thread that writes is joined; compiled code reads it with an
    // aligned 8-byte load.
    unsafe { AtomicI64::from_ptr(definition.as_ptr().cast::<i64>()) }
}
