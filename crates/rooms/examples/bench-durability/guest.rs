//! The guest that is measured: a memory of so many pages, all or part of it in use, and a whole frame
//! on every callback.

use std::sync::Arc;

use cabinet_host::{Game, GameOptions, Host, HostOptions};
use cabinet_rooms::{Listed, Listing, Registry};
use cabinet_wire::Lifecycle;

use super::Error;

/// A game with that much memory, in MiB, every so manieth page of 4 KiB in use.
pub fn game(mib: u32, every: u32) -> Result<Game, Error> {
    let mut options = GameOptions::default();
    options.deadline = std::time::Duration::from_secs(10);
    Ok(Host::new(HostOptions::default())?
        .load(&wat::parse_str(text(mib * 16, every))?, &options)?)
}

/// A registry that offers it.
pub fn offer(game: Game) -> Result<(Registry, Arc<Listed>), Error> {
    let registry = Registry::new();
    let listed = registry.add(Listing::new(game).with_lifecycle(Lifecycle::Resumable))?;
    Ok((registry, listed))
}

/// Cells of 24 bytes, as games keep them: a letter, its colours, the rest of the row alike.
fn text(pages: u32, every: u32) -> String {
    let bytes = u64::from(pages) * 65_536;
    let gap = u64::from(every - 1) * 4_096;
    format!(
        r#"(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u64" (func $store (param i64 i64)))
  (import "extism:host/env" "output_set" (func $output (param i64 i64)))
  (import "extism:host/user" "identical" (func $identical (param i64) (result i64)))
  (memory (export "memory") {pages})
  (func (export "shellcade_abi") (result i32) (local $at i64)
    (local.set $at (call $alloc (i64.const 8)))
    (call $store (local.get $at) (i64.const 2))
    (call $output (local.get $at) (i64.const 4))
    (i32.const 0))
  (func (export "meta") (result i32) (local $at i64)
    (local.set $at (call $alloc (i64.const 24)))
    (call $store (local.get $at) (i64.const 0x0100000000770001))
    (call $store (i64.add (local.get $at) (i64.const 8)) (i64.const 0x0000000000000400))
    (call $store (i64.add (local.get $at) (i64.const 16)) (i64.const 0))
    (call $output (local.get $at) (i64.const 20))
    (i32.const 0))
  (func $fill (local $at i64)
    (loop $more
      (i64.store (i32.wrap_i64 (local.get $at))
        (i64.add (i64.const 0x0030_2010_0000_0041)
          (i64.and (i64.shr_u (i64.mul (local.get $at) (i64.const 0x9E3779B97F4A7C15)) (i64.const 58)) (i64.const 25))))
      (local.set $at (i64.add (local.get $at) (i64.const 24)))
      (if (i64.lt_u (i64.and (local.get $at) (i64.const 4095)) (i64.const 24))
        (then (local.set $at (i64.add (local.get $at) (i64.const {gap})))))
      (br_if $more (i64.lt_u (local.get $at) (i64.const {last})))))
  (func $draw (local $left i64) (local $frame i64)
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
    (local.set $frame (call $alloc (i64.const 46093)))
    (local.set $left (i64.const 46085))
    (loop $more
      (call $store (i64.add (local.get $frame) (local.get $left)) (i64.const 0))
      (local.set $left (i64.sub (local.get $left) (i64.const 8)))
      (br_if $more (i64.ge_s (local.get $left) (i64.const 0))))
    (call $store (local.get $frame) (i64.const 0x1800_0100_0000_0001))
    (call $store (i64.add (local.get $frame) (i64.const 8)) (i64.const 0x0000_0007_8000_0050))
    (call $store (i64.add (local.get $frame) (i64.const 13)) (i64.const 65))
    (drop (call $identical (local.get $frame))))
  (func (export "start") (result i32) (call $fill) (call $draw) (i32.const 0))
  (func (export "join") (export "leave") (export "input") (export "wake") (result i32)
    (call $draw)
    (i32.const 0))
  (func (export "close") (result i32) (i32.const 0)))"#,
        last = bytes - 24
    )
}
