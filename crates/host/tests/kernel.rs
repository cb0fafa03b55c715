//! The kernel and WASI as a guest finds them: addresses, edges, error numbers (docs/ABI.md).

mod common;

use cabinet_host::{Fault, LogSource, Outcome, TrapKind};
use common::{DESCRIBED, WIDE, ada, ms, options, room};

/// What a guest says at its first wake, when its body is `body`. `(call $say (i64))` says a number.
fn says(imports: &str, body: &str) -> Result<Vec<i64>, Fault> {
    said(imports, "", body, 1)
}

/// The same, after `wakes` wakes, with functions or memory contents of its own.
fn said(imports: &str, extra: &str, body: &str, wakes: i64) -> Result<Vec<i64>, Fault> {
    let wasm = common::wat_text(&format!(
        r#"(module
          (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
          (import "extism:host/env" "free" (func $free (param i64)))
          (import "extism:host/env" "length" (func $length (param i64) (result i64)))
          (import "extism:host/env" "store_u64" (func $store (param i64 i64)))
          (import "extism:host/env" "load_u64" (func $load (param i64) (result i64)))
          (import "extism:host/env" "output_set" (func $output (param i64 i64)))
          (import "extism:host/user" "log" (func $log (param i64 i64)))
          {imports}
          (memory (export "memory") 1)
          {extra}
          (global $block (mut i64) (i64.const 0))
          ;; One kernel block of 8 bytes, taken and given back: addresses stay predictable.
          (func $say (param $number i64)
            (global.set $block (call $alloc (i64.const 8)))
            (call $store (global.get $block) (local.get $number))
            (call $log (i64.const 1) (global.get $block))
            (call $free (global.get $block)))
          {DESCRIBED}
          (func (export "start")) (func (export "join")) (func (export "leave"))
          (func (export "input")) (func (export "close"))
          (func (export "wake") (local $a i64) (local $b i64) {body}))"#
    ));
    let game = common::host().load(&wasm, &options(WIDE)).unwrap();
    let (mut room, services) = room(&game);
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    for beat in 1..=wakes {
        if let Outcome::Faulted(_) = room.wake(ms(beat * 50)) {
            return Err(room.fault().expect("a fault").clone());
        }
    }
    Ok(services
        .take_logs()
        .into_iter()
        .filter(|record| record.source == LogSource::Guest)
        .map(|record| i64::from_le_bytes(record.message.try_into().expect("eight bytes")))
        .collect())
}

/// The payload of the wakes above: 25 bytes without members, and one member of 14.
const CONTEXT_BYTES: i64 = 39;

#[test]
fn blocks_are_where_the_reference_puts_them() {
    let found = says(
        "",
        "(local.set $a (call $alloc (i64.const 10)))
         (local.set $b (call $alloc (i64.const 1)))
         (call $say (local.get $a)) (call $say (local.get $b))
         (call $say (global.get $block))",
    )
    .unwrap();
    // The payload at 77; then 12 bytes of header each. A freed block is not used again while
    // there is room, so the third `say` is two blocks of 8 further.
    let first = 77 + CONTEXT_BYTES + 12;
    let second = first + 10 + 12;
    assert_eq!(found, [first, second, second + 1 + 12 + 8 + 12]);
}

#[test]
fn lengths_are_told_of_live_block_starts_only() {
    let found = says(
        "",
        "(local.set $a (call $alloc (i64.const 10)))
         (call $say (call $length (local.get $a)))
         (call $say (call $length (i64.add (local.get $a) (i64.const 1))))
         (call $say (call $length (i64.const 0)))
         (call $say (call $length (i64.const -1)))
         (call $free (local.get $a))
         (call $say (call $length (local.get $a)))
         (call $say (call $alloc (i64.const 0)))
         (call $say (call $alloc (i64.const 34603008)))",
    )
    .unwrap();
    assert_eq!(found, [10, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn blocks_past_32_bits_are_not_had_and_errors_past_the_blocks_not_set() {
    let found = says(
        r#"(import "extism:host/env" "error_set" (func $error (param i64)))
           (import "extism:host/env" "error_get" (func $which (result i64)))"#,
        "(call $say (call $alloc (i64.const 4294967296)))
         (call $say (call $alloc (i64.const 4294967285)))
         (call $say (call $alloc (i64.const -1)))
         (call $error (i64.const 64))
         (call $say (call $which))
         (call $error (i64.const 70000))
         (call $say (call $which))
         (call $error (i64.const 77))
         (call $say (call $which))
         (call $error (i64.const 0))
         (call $say (call $which))",
    )
    .unwrap();
    assert_eq!(found, [0, 0, 0, 0, 0, 77, 0]);
}

#[test]
fn the_input_is_the_payload_and_freeing_it_empties_it() {
    let found = says(
        r#"(import "extism:host/env" "input_length" (func $in_length (result i64)))
           (import "extism:host/env" "input_offset" (func $in_offset (result i64)))
           (import "extism:host/env" "input_load_u64" (func $in_u64 (param i64) (result i64)))
           (import "extism:host/env" "input_load_u8" (func $in_u8 (param i64) (result i32)))"#,
        "(call $say (call $in_length))
         (call $say (call $in_offset))
         (call $say (call $in_u64 (i64.const 0)))
         (call $say (i64.extend_i32_u (call $in_u8 (i64.const 16))))
         (call $say (i64.extend_i32_u (call $in_u8 (i64.const 39))))
         (call $free (i64.const 77))
         (call $say (call $in_length))",
    )
    .unwrap();
    assert_eq!(found, [CONTEXT_BYTES, 77, ms(50), 1, 0, 0]);
}

#[test]
fn nothing_a_callback_wrote_is_there_in_the_next() {
    // A word in a block and one far outside any block.
    let found = said(
        "",
        "",
        "(local.set $a (call $alloc (i64.const 8)))
         (call $say (call $load (local.get $a)))
         (call $say (call $load (i64.const 500000)))
         (call $store (local.get $a) (i64.const 7))
         (call $store (i64.const 500000) (i64.const 7))",
        2,
    )
    .unwrap();
    assert_eq!(found, [0, 0, 0, 0]);
}

#[test]
fn words_outside_the_kernels_memory_trap_and_bytes_do_not() {
    for body in [
        "(call $store (i64.const 99999999) (i64.const 1))",
        "(drop (call $load (i64.const 99999999)))",
        // The last seven bytes of a page do not hold a word.
        "(call $store (i64.const 1048569) (i64.const 1))",
    ] {
        let Err(Fault::Trap(trap)) = says("", body) else {
            panic!("{body} does not trap");
        };
        assert!(
            matches!(
                trap.kind,
                TrapKind::MemoryOutOfBounds | TrapKind::Unreachable
            ),
            "{trap}"
        );
    }
    let found = says(
        r#"(import "extism:host/env" "load_u8" (func $load8 (param i64) (result i32)))
           (import "extism:host/env" "store_u8" (func $store8 (param i64 i32)))"#,
        "(call $store8 (i64.const 99999999) (i32.const 1))
         (call $store8 (i64.const 63) (i32.const 1))
         (call $store8 (i64.const -1) (i32.const 1))
         (call $say (i64.extend_i32_u (call $load8 (i64.const 99999999))))
         (call $say (i64.extend_i32_u (call $load8 (i64.const 63))))
         (call $say (i64.extend_i32_u (call $load8 (i64.const 1048576))))
         (call $store8 (i64.const 1048575) (i32.const 300))
         (call $say (i64.extend_i32_u (call $load8 (i64.const 1048575))))",
    )
    .unwrap();
    assert_eq!(found, [0, 0, 0, 44]);
}

#[test]
fn what_extism_has_and_this_host_does_not_answers_as_the_reference() {
    let found = says(
        r#"(import "extism:host/env" "config_get" (func $config (param i64) (result i64)))
           (import "extism:host/env" "var_get" (func $var (param i64) (result i64)))
           (import "extism:host/env" "get_log_level" (func $level (result i32)))
           (import "extism:host/env" "http_status_code" (func $status (result i32)))"#,
        "(call $say (call $config (i64.const 77)))
         (call $say (call $var (call $alloc (i64.const 3))))
         (call $say (i64.extend_i32_u (call $level)))
         (call $say (i64.extend_i32_u (call $status)))",
    )
    .unwrap();
    assert_eq!(found, [0, 0, 0x7fff_ffff, 0]);
}

#[test]
fn kernel_memory_grows_to_the_cap_and_keeps_its_size() {
    // Blocks of 1 MiB until there are none; at the second wake the same number again.
    let found = said(
        r#"(import "extism:host/env" "memory_bytes" (func $bytes (result i64)))"#,
        "",
        "(loop $more
           (local.set $a (call $alloc (i64.const 1048576)))
           (if (i64.ne (local.get $a) (i64.const 0))
             (then (local.set $b (i64.add (local.get $b) (i64.const 1))) (br $more))))
         (call $say (local.get $b))
         (call $say (call $bytes))",
        2,
    )
    .unwrap();
    assert_eq!(found[0], found[2]);
    assert_eq!(found[1], found[3]);
    // Sixteen pages are there from the start, of which the allocator counts one.
    assert!((30..32).contains(&found[0]), "{found:?}");
}

/// Error numbers of WASI calls: import type, arguments, expected.
const ERRNOS: &[(&str, &str, &str, i64)] = &[
    ("clock_time_get", "i32 i64 i32", "0 1 64", 0),
    ("clock_time_get", "i32 i64 i32", "1 1 64", 0),
    ("clock_time_get", "i32 i64 i32", "2 1 64", 28),
    ("clock_time_get", "i32 i64 i32", "0 1 65530", 21),
    ("clock_res_get", "i32 i32", "0 64", 0),
    ("clock_res_get", "i32 i32", "9 64", 28),
    ("random_get", "i32 i32", "64 8", 0),
    ("random_get", "i32 i32", "65536 1", 21),
    ("random_get", "i32 i32", "-1 -1", 21),
    ("args_sizes_get", "i32 i32", "64 68", 0),
    ("args_sizes_get", "i32 i32", "65536 68", 21),
    ("environ_sizes_get", "i32 i32", "64 68", 0),
    ("args_get", "i32 i32", "64 68", 0),
    ("environ_get", "i32 i32", "64 68", 0),
    ("fd_write", "i32 i32 i32 i32", "0 64 0 128", 8),
    ("fd_write", "i32 i32 i32 i32", "1 64 0 128", 0),
    ("fd_write", "i32 i32 i32 i32", "2 65530 1 128", 21),
    ("fd_write", "i32 i32 i32 i32", "7 64 0 128", 8),
    ("fd_read", "i32 i32 i32 i32", "0 64 0 128", 0),
    ("fd_read", "i32 i32 i32 i32", "5 64 0 128", 8),
    ("fd_fdstat_get", "i32 i32", "1 64", 0),
    ("fd_fdstat_get", "i32 i32", "3 64", 8),
    ("fd_seek", "i32 i64 i32 i32", "1 0 0 64", 52),
    ("fd_seek", "i32 i64 i32 i32", "3 0 0 64", 8),
    ("fd_close", "i32", "1", 0),
    ("fd_close", "i32", "9", 8),
    ("fd_prestat_get", "i32 i32", "1 64", 8),
    ("fd_prestat_get", "i32 i32", "3 64", 8),
    ("poll_oneoff", "i32 i32 i32 i32", "64 256 0 128", 28),
    ("poll_oneoff", "i32 i32 i32 i32", "64 256 1 512", 0),
    ("sched_yield", "", "", 0),
    ("proc_raise", "i32", "1", 52),
    ("fd_fdstat_set_rights", "i32 i64 i64", "1 0 0", 52),
    ("sock_shutdown", "i32 i32", "4 0", 8),
    ("path_unlink_file", "i32 i32 i32", "3 64 1", 8),
];

#[test]
fn wasi_answers_the_error_numbers_of_the_reference() {
    for (name, params, args, expected) in ERRNOS {
        let imports = format!(
            r#"(import "wasi_snapshot_preview1" "{name}" (func $wasi (param {params}) (result i32)))"#
        );
        let arguments: String = params
            .split_whitespace()
            .zip(args.split_whitespace())
            .map(|(ty, value)| format!("({ty}.const {value})"))
            .collect();
        let body = format!("(call $say (i64.extend_i32_u (call $wasi {arguments})))");
        assert_eq!(
            says(&imports, &body).unwrap(),
            [*expected],
            "{name}({args})"
        );
    }
}

#[test]
fn both_clocks_stand_still_at_the_rooms_time() {
    let found = says(
        r#"(import "wasi_snapshot_preview1" "clock_time_get"
             (func $clock (param i32 i64 i32) (result i32)))"#,
        "(drop (call $clock (i32.const 0) (i64.const 1) (i32.const 64)))
         (call $say (i64.load (i32.const 64)))
         (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 64)))
         (call $say (i64.load (i32.const 64)))",
    )
    .unwrap();
    assert_eq!(found, [ms(50), ms(50)]);
}

#[test]
fn entropy_is_the_stream_of_the_rooms_seed() {
    let found = says(
        r#"(import "wasi_snapshot_preview1" "random_get"
             (func $random (param i32 i32) (result i32)))"#,
        "(drop (call $random (i32.const 64) (i32.const 3)))
         (drop (call $random (i32.const 67) (i32.const 5)))
         (call $say (i64.load (i32.const 64)))",
    )
    .unwrap();
    // Seed 42: 538c7f96b164bf1b…
    assert_eq!(
        found,
        [i64::from_le_bytes([
            0x53, 0x8c, 0x7f, 0x96, 0xb1, 0x64, 0xbf, 0x1b
        ])]
    );
}

#[test]
fn stdout_goes_to_the_log_and_counts_its_bytes() {
    let wasm_imports = r#"(import "wasi_snapshot_preview1" "fd_write"
        (func $write (param i32 i32 i32 i32) (result i32)))"#;
    let data = r#"(data (i32.const 64) "\50\00\00\00\05\00\00\00\60\00\00\00\06\00\00\00")
        (data (i32.const 80) "hello") (data (i32.const 96) " world")"#;
    let found = said(
        wasm_imports,
        data,
        "(drop (call $write (i32.const 1) (i32.const 64) (i32.const 2) (i32.const 128)))
         (call $say (i64.load (i32.const 128)))",
        1,
    )
    .unwrap();
    assert_eq!(found, [11]);
}
