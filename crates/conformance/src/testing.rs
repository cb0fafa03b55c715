//! A small guest to check and trace in tests.

use cabinet_host::{Host, HostOptions};

pub(crate) fn host() -> Host {
    Host::new(HostOptions::default()).unwrap()
}

/// A guest that draws one character at the top left corner: `wake` and `input` leave its code point
/// on the stack. Both may use `$rune` (what was typed, 0 in `wake`) and the global `$n`, which the
/// reference's snapshots lose.
pub(crate) fn guest(wake: &str, input: &str) -> Vec<u8> {
    guest_with_start(wake, input, "(i32.const 0)")
}

/// [`guest`] with a `start` that leaves its return code on the stack.
pub(crate) fn guest_with_start(wake: &str, input: &str, start: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u64" (func $store_u64 (param i64 i64)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (import "extism:host/env" "input_length" (func $input_length (result i64)))
  (import "extism:host/env" "input_load_u8" (func $input_load_u8 (param i64) (result i32)))
  (import "extism:host/user" "identical" (func $identical (param i64) (result i64)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (global $n (mut i32) (i32.const 0))
  (func (export "shellcade_abi") (result i32) (local $at i64)
    (local.set $at (call $alloc (i64.const 8)))
    (call $store_u64 (local.get $at) (i64.const 2))
    (call $output_set (local.get $at) (i64.const 4))
    (i32.const 0))
  ;; Slug "w", 1 to 4 players, nothing else.
  (func (export "meta") (result i32) (local $at i64)
    (local.set $at (call $alloc (i64.const 24)))
    (call $store_u64 (local.get $at) (i64.const 0x0100000000770001))
    (call $store_u64 (i64.add (local.get $at) (i64.const 8)) (i64.const 0x400))
    (call $store_u64 (i64.add (local.get $at) (i64.const 16)) (i64.const 0))
    (call $output_set (local.get $at) (i64.const 20))
    (i32.const 0))
  ;; Broadcasts a keyframe of one run of one cell.
  (func $draw (param $point i32) (local $at i64)
    (local.set $at (call $alloc (i64.const 37)))
    (call $store_u64 (local.get $at) (i64.const 0x1800010000000001))
    (call $store_u64 (i64.add (local.get $at) (i64.const 8)) (i64.const 0x01000050))
    (call $store_u64 (i64.add (local.get $at) (i64.const 13)) (i64.extend_i32_u (local.get $point)))
    (call $store_u64 (i64.add (local.get $at) (i64.const 21)) (i64.const 0))
    (call $store_u64 (i64.add (local.get $at) (i64.const 29)) (i64.const 0))
    (drop (call $identical (local.get $at))))
  (func $wake_point (param $rune i32) (result i32) {wake})
  (func $input_point (param $rune i32) (result i32) {input})
  (func $typed (result i32)
    (call $input_load_u8 (i64.sub (call $input_length) (i64.const 5))))
  (func (export "wake") (result i32)
    (call $draw (call $wake_point (i32.const 0)))
    (i32.const 0))
  (func (export "input") (result i32)
    (call $draw (call $input_point (call $typed)))
    (i32.const 0))
  (func (export "start") (result i32) {start})
  (func (export "join") (export "leave") (export "close") (result i32)
    (i32.const 0)))"#
    );
    wat::parse_str(&text).unwrap()
}

/// Counts in the global and shows the count as a letter.
pub(crate) const COUNT: &str = "(global.set $n (i32.add (global.get $n) (i32.const 1)))
    (i32.add (i32.const 64) (global.get $n))";
/// Shows what was typed.
pub(crate) const ECHO: &str = "(local.get $rune)";
