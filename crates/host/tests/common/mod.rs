//! What the host's tests share: fixtures, guests written on the spot, players, a clock.
#![allow(dead_code)] // each test binary uses its part

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cabinet_host::{
    Game, GameOptions, Host, HostCall, HostOptions, LogSource, MemoryServices, Observer, Player,
    Room, RoomConfig, RoomResult, Seed, ServiceError, Services,
};
use cabinet_wire::meta::{self, Meta};
use cabinet_wire::{LogLevel, Text};

/// 2023-11-14T22:13:20Z, in Unix nanoseconds: where every test's clock starts.
pub const EPOCH: i64 = 1_700_000_000_000_000_000;

/// A deadline no test runs into by accident.
pub const WIDE: Duration = Duration::from_secs(60);
/// A deadline for guests that must run into it; long enough for callbacks that must not, on a
/// machine that is busy with something else.
pub const SHORT: Duration = Duration::from_millis(250);

pub fn ms(milliseconds: i64) -> i64 {
    EPOCH + milliseconds * 1_000_000
}

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

pub fn fixture(name: &str) -> Vec<u8> {
    let path = fixtures().join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn wat(name: &str) -> Vec<u8> {
    let path = fixtures().join("wat").join(name);
    wat::parse_file(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn host() -> Host {
    host_with_probe_deadline(WIDE)
}

pub fn host_with_probe_deadline(deadline: Duration) -> Host {
    let mut options = HostOptions::default();
    options.probe_deadline = deadline;
    Host::new(options).expect("a host")
}

pub fn options(deadline: Duration) -> GameOptions {
    let mut options = GameOptions::default();
    options.deadline = deadline;
    options
}

pub fn game(wasm: &[u8]) -> Game {
    host().load(wasm, &options(WIDE)).expect("a game")
}

pub fn ada() -> Player {
    Player::member("a1", "ada", "c1")
}

pub fn bob() -> Player {
    Player::member("a2", "bob", "c2")
}

pub fn room(game: &Game) -> (Room, MemoryServices) {
    let services = MemoryServices::new().keeping_frames();
    let room = game.room(RoomConfig::new(Seed::Set(42)), Box::new(services.clone()));
    (room, services)
}

/// Lines of a frame, right-trimmed, for readable failures.
pub fn lines(frame: &cabinet_host::Frame) -> Vec<String> {
    (0..cabinet_wire::ROWS)
        .map(|row| {
            let line: String = (0..cabinet_wire::COLS)
                .map(|col| {
                    let cell = frame.cell(row, col);
                    let point = u32::from_le_bytes([cell[0], cell[1], cell[2], cell[3]]);
                    char::from_u32(point).filter(|c| *c >= ' ').unwrap_or(' ')
                })
                .collect();
            line.trim_end().to_owned()
        })
        .collect()
}

/// Assembles a module written in a test.
pub fn wat_text(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the test's own module assembles")
}

/// One to four players and a name.
pub fn plain() -> Meta<'static> {
    Meta {
        slug: Text::new("plain"),
        min_players: 1,
        max_players: 4,
        ..Meta::default()
    }
}

/// A guest with this meta that runs `wake` at each wake and nothing otherwise.
///
/// `wake` has the locals `$at` (i64) and `$n` (i32) and returns an exit code; it may fall through,
/// which is success. `extra` is for imports, functions and data of the test's own, at addresses 16
/// to 65,535. There are `$alloc`, `$store8`, `$output`, `$log`, and `$block`, which copies so many
/// bytes from an address into a kernel block.
pub fn guest(meta: &Meta<'_>, extra: &str, wake: &str) -> Vec<u8> {
    let mut declared = Vec::new();
    meta::encode(meta, &mut declared).expect("the test's own meta encodes");
    wat_text(&format!(
        r#"(module
          (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
          (import "extism:host/env" "store_u8" (func $store8 (param i64 i32)))
          (import "extism:host/env" "output_set" (func $output (param i64 i64)))
          (import "extism:host/user" "log" (func $log (param i64 i64)))
          {extra}
          (memory (export "memory") {pages})
          (data (i32.const 0) "\02\00\00\00")
          (data (i32.const 65536) "{meta}")
          (func $block (param $from i32) (param $bytes i32) (result i64) (local $to i64) (local $i i32)
            (local.set $to (call $alloc (i64.extend_i32_u (local.get $bytes))))
            (block $done
              (loop $next
                (br_if $done (i32.ge_u (local.get $i) (local.get $bytes)))
                (call $store8
                  (i64.add (local.get $to) (i64.extend_i32_u (local.get $i)))
                  (i32.load8_u (i32.add (local.get $from) (local.get $i))))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br $next)))
            (local.get $to))
          (func $answer (param $from i32) (param $bytes i32) (result i32)
            (call $output
              (call $block (local.get $from) (local.get $bytes))
              (i64.extend_i32_u (local.get $bytes)))
            (i32.const 0))
          (func (export "shellcade_abi") (result i32) (call $answer (i32.const 0) (i32.const 4)))
          (func (export "meta") (result i32) (call $answer (i32.const 65536) (i32.const {len})))
          (func (export "start") (export "join") (export "leave") (export "input") (export "close")
            (result i32) (i32.const 0))
          (func (export "wake") (result i32) (local $at i64) (local $n i32) {wake} (i32.const 0)))"#,
        pages = 1 + declared.len().div_ceil(65_536),
        meta = hex(&declared),
        len = declared.len(),
    ))
}

/// A room of [`guest`], started, with ada in it.
pub fn playing(wasm: &[u8]) -> (Room, MemoryServices) {
    let (mut room, services) = room(&game(wasm));
    assert!(room.start(ms(0)).report().is_some());
    assert!(room.join(ms(0), ada()).report().is_some());
    assert_eq!(room.fault(), None);
    services.take_frames();
    services.take_logs();
    (room, services)
}

/// Bytes as the text format writes them in a string.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

/// The ABI's and the meta's exports, built word by word in the kernel: major 2, slug `w`. Wants
/// `$alloc`, `$store` (`store_u64`) and `$output`.
pub const DESCRIBED: &str = r#"
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
      (i32.const 0))"#;

/// Asks a store for the key `k` of the player at index 0. Wants [`KV_GET`].
pub const READS_A_KEY: &str = "
    (local.set $at (call $alloc (i64.const 1)))
    (call $store8 (local.get $at) (i32.const 107))
    (drop (call $kv_get (i64.const 0) (local.get $at)))";

pub const KV_GET: &str =
    r#"(import "extism:host/user" "kv_get" (func $kv_get (param i64 i64) (result i64)))"#;

/// A store that does something before it finds nothing.
pub struct Asked(pub fn());

impl Services for Asked {
    fn kv_get(
        &mut self,
        _: &Player,
        _: &[u8],
        _: Duration,
    ) -> Result<Option<Vec<u8>>, ServiceError> {
        (self.0)();
        Ok(None)
    }
    fn kv_set(
        &mut self,
        _: &Player,
        _: &[u8],
        _: &[u8],
        _: &[u8],
        _: Duration,
    ) -> Result<(), ServiceError> {
        Ok(())
    }
    fn kv_delete(&mut self, _: &Player, _: &[u8], _: Duration) -> Result<(), ServiceError> {
        Ok(())
    }
    fn config_get(&mut self, _: &[u8], _: Duration) -> Result<Option<Vec<u8>>, ServiceError> {
        Ok(None)
    }
    fn post(&mut self, _: &RoomResult) {}
    fn log(&mut self, _: LogLevel, _: LogSource, _: &[u8]) {}
}

/// Keeps what a room and its guest said to each other.
#[derive(Clone, Default)]
pub struct Recorder {
    payloads: Arc<Mutex<Vec<Vec<u8>>>>,
    returns: Arc<Mutex<Vec<i64>>>,
}

impl Recorder {
    pub fn watching(room: &mut Room) -> Self {
        let recorder = Self::default();
        room.observe(Box::new(recorder.clone()));
        recorder
    }

    /// The payload of every callback since the last call.
    pub fn take_payloads(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.payloads.lock().unwrap())
    }

    /// What every game function with a result returned since the last call.
    pub fn take_returns(&self) -> Vec<i64> {
        std::mem::take(&mut self.returns.lock().unwrap())
    }
}

impl Observer for Recorder {
    fn callback_begin(&mut self, _: &'static str, payload: &[u8]) {
        self.payloads.lock().unwrap().push(payload.to_vec());
    }

    fn host_call(&mut self, call: &HostCall<'_>) {
        self.returns.lock().unwrap().extend(call.ret);
    }
}
