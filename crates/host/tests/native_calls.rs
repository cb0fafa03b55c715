//! Calls into the host are stopped, charged and limited like the guest's own code: a guest need
//! not loop to misbehave.

mod common;

use std::time::Duration;

use cabinet_host::{Fault, GameOptions, LogSource, MemoryServices, Outcome, RoomConfig, Seed};
use common::{Asked, DESCRIBED, WIDE, ada, ms, options, wat_text};

/// A guest with these imports whose `input` is `body`, and a kernel block of a byte in `$block`.
fn guest(imports: &str, body: &str) -> Vec<u8> {
    wat_text(&format!(
        r#"(module
          (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
          (import "extism:host/env" "reset" (func $reset))
          (import "extism:host/env" "store_u64" (func $store (param i64 i64)))
          (import "extism:host/env" "output_set" (func $output (param i64 i64)))
          {imports}
          (memory (export "memory") 1)
          {DESCRIBED}
          (func (export "start")) (func (export "join")) (func (export "leave"))
          (func (export "wake")) (func (export "close"))
          (func (export "input") (local $block i64) (local $left i32) {body}))"#
    ))
}

/// Plays one input; the room, for its fault, and what its services saw.
fn play(wasm: &[u8], options: &GameOptions) -> (cabinet_host::Room, MemoryServices, Outcome) {
    let game = common::host().load(wasm, options).unwrap();
    let services = MemoryServices::new();
    let mut room = game.room(RoomConfig::new(Seed::Set(1)), Box::new(services.clone()));
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    services.take_logs();
    let outcome = room.input(ms(1), &ada(), cabinet_wire::input::Input::Rune(120));
    (room, services, outcome)
}

#[test]
fn straight_line_calls_are_stopped_at_the_deadline() {
    // Many seconds of clearing 16 MiB, without a loop.
    let line = "(drop (call $alloc (i64.const 1048576)))".repeat(16) + "(call $reset)";
    let wasm = guest("", &line.repeat(4_000));
    let (room, _, outcome) = play(&wasm, &options(Duration::from_millis(250)));
    let fault = room.fault().unwrap_or_else(|| panic!("{outcome:?}"));
    assert!(matches!(fault, Fault::Deadline { .. }), "{fault}");
}

#[test]
fn calls_into_the_host_burn_the_budget() {
    let bodies = [
        "(loop $more (drop (call $alloc (i64.const 1048576))) (call $reset) (br $more))",
        "(loop $more (call $log (i64.const 1) (i64.const 0)) (br $more))",
        "(local.set $block (call $alloc (i64.const 1000000)))
         (loop $more (drop (call $send (i64.const 0) (local.get $block))) (br $more))",
    ];
    for body in bodies {
        let wasm = guest(
            r#"(import "extism:host/user" "log" (func $log (param i64 i64)))
               (import "extism:host/user" "send" (func $send (param i64 i64) (result i64)))"#,
            body,
        );
        let mut with = options(WIDE);
        with.fuel = Some(1_000_000);
        let burned: Vec<_> = (0..2)
            .map(|_| {
                let (room, _, outcome) = play(&wasm, &with);
                let fault = room.fault().expect("a fault");
                assert!(matches!(fault, Fault::Budget { .. }), "{body}: {fault}");
                outcome.report().unwrap().fuel
            })
            .collect();
        assert_eq!(burned[0], burned[1], "{body}");
    }
}

#[test]
fn a_log_flood_of_nothing_and_of_malformed_frames_is_limited() {
    for body in [
        "(call $log (i64.const 1) (i64.const 0))",
        "(drop (call $send (i64.const 0) (local.get $block)))",
    ] {
        let wasm = guest(
            r#"(import "extism:host/user" "log" (func $log (param i64 i64)))
               (import "extism:host/user" "send" (func $send (param i64 i64) (result i64)))"#,
            &format!(
                "(local.set $block (call $alloc (i64.const 3)))
                 (local.set $left (i32.const 5000))
                 (loop $more {body}
                   (br_if $more
                     (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))"
            ),
        );
        let (room, services, _) = play(&wasm, &options(WIDE));
        assert_eq!(room.fault(), None);
        let records = services.take_logs();
        // 512 of at least 64 bytes a second, and a warning; a slow machine may see two windows.
        assert!(
            (512..5_000).contains(&records.len()),
            "{body}: {} records",
            records.len()
        );
        assert!(
            records.iter().any(|record| record.source == LogSource::Host
                && record.message == b"guest log output rate-limited"),
            "{body}: no warning"
        );
    }
}

#[test]
fn kv_keys_values_and_rules_have_limits() {
    // Key and rule lengths, value length, and whether the write arrives.
    let cases = [
        (4_096, 1, 4, true),
        (4_097, 1, 4, false),
        (1, 1 << 20, 4, true),
        (1, (1 << 20) + 1, 4, false),
        (1, 1, 64, true),
        (1, 1, 65, false),
    ];
    for (key, value, rule, arrives) in cases {
        let wasm = guest(
            r#"(import "extism:host/user" "kv_set" (func $kv_set (param i64 i64 i64 i64)))"#,
            &format!(
                "(call $kv_set (i64.const 0) (call $alloc (i64.const {key}))
                   (call $alloc (i64.const {value})) (call $alloc (i64.const {rule})))"
            ),
        );
        let (room, services, _) = play(&wasm, &options(WIDE));
        assert_eq!(room.fault(), None);
        let stored = services.value("a1", &vec![0; key]);
        assert_eq!(
            stored.map(|stored| stored.len()),
            arrives.then_some(value),
            "key {key}, value {value}, rule {rule}"
        );
    }
}

#[test]
fn posts_per_callback_and_rankings_per_result_have_limits() {
    let post = |rankings: usize, posts: usize| {
        guest(
            r#"(import "extism:host/user" "post" (func $post (param i64)))"#,
            &format!(
                "(local.set $block (call $alloc (i64.const {})))
                 (call $store (local.get $block) (i64.const {rankings}))
                 (local.set $left (i32.const {posts}))
                 (loop $more (call $post (local.get $block))
                   (br_if $more
                     (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))",
                2 + 15 * rankings + 8,
            ),
        )
    };
    for (rankings, posts, expected) in
        [(64, 1, 1), (65, 1, 0), (0, 1_024, 1_024), (0, 1_025, 1_024)]
    {
        let (room, services, _) = play(&post(rankings, posts), &options(WIDE));
        assert_eq!(room.fault(), None);
        assert_eq!(
            services.posts().len(),
            expected,
            "{posts} posts of {rankings} rankings"
        );
    }
}

#[test]
fn output_and_input_ranges_are_obeyed_where_the_reference_obeys_them() {
    // Offset, length, obeyed: seen on the reference.
    let cases = [
        (0, 0, false),
        (0, 4, false),
        (10, 5, false),
        (64, 1, false),
        (65, 0, false),
        (65, 1, true),
        (77, 0, true),
        (65_536, 1, true),
        (70_000, 4, false),
        (1_048_576, 0, false),
    ];
    for (offset, length, obeyed) in cases {
        let wasm = guest(
            r#"(import "extism:host/env" "output_offset" (func $out (result i64)))
               (import "extism:host/user" "log" (func $log (param i64 i64)))"#,
            &format!(
                "(call $output (i64.const 77) (i64.const 2))
                 (call $output (i64.const {offset}) (i64.const {length}))
                 (local.set $block (call $alloc (i64.const 8)))
                 (call $store (local.get $block) (call $out))
                 (call $log (i64.const 1) (local.get $block))"
            ),
        );
        let (_, services, _) = play(&wasm, &options(WIDE));
        let logs = services.take_logs();
        let found = i64::from_le_bytes(logs[0].message.clone().try_into().unwrap());
        let expected = if obeyed { offset } else { 77 };
        assert_eq!(found, expected, "({offset}, {length})");
    }
}

#[test]
fn a_flood_of_store_calls_is_the_guests_own_fault() {
    let wasm = guest(
        r#"(import "extism:host/user" "kv_get" (func $kv_get (param i64 i64) (result i64)))"#,
        "(local.set $block (call $alloc (i64.const 1)))
         (loop $more (drop (call $kv_get (i64.const 0) (local.get $block))) (br $more))",
    );
    let mut with = options(common::SHORT);
    with.io_ceiling = WIDE;
    let game = common::host().load(&wasm, &with).unwrap();
    let slow = Asked(|| std::thread::sleep(Duration::from_millis(1)));
    let mut room = game.room(RoomConfig::new(Seed::Set(1)), Box::new(slow));
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    let _ = room.input(ms(1), &ada(), cabinet_wire::input::Input::Rune(120));
    let fault = room.fault().expect("a fault");
    assert!(matches!(fault, Fault::Deadline { .. }), "{fault}");
    assert!(fault.is_guests());
}

#[test]
fn drawing_entropy_burns_the_budget_also_at_the_end_of_a_callback() {
    let wasm = guest(
        r#"(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))"#,
        "(drop (call $random (i32.const 0) (i32.const 60000)))",
    );
    for (fuel, dies) in [(70_000, false), (50_000, true)] {
        let mut with = options(WIDE);
        with.fuel = Some(fuel);
        let (room, _, _) = play(&wasm, &with);
        let budget = matches!(room.fault(), Some(Fault::Budget { .. }));
        assert_eq!(budget, dies, "{fuel}: {:?}", room.fault());
    }
}
