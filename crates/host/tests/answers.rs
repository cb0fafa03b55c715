//! What a game and a room tell about themselves, and what failing stores come to.

mod common;

use std::time::Duration;

use cabinet_host::{
    Fault, GameOptions, Host, HostOptions, LogSource, NoServices, Outcome, Player, RoomConfig,
    RoomResult, Seed, ServiceError, Services, Skip, Snapshot, Tier,
};
use cabinet_wire::meta::{self, Meta};
use cabinet_wire::{LogLevel, Text};
use common::{ada, bob, ms, room};

/// A guest with this meta that runs `wake` at each wake. The functions `$alloc`, `$store8`, `$kv_get`
/// and `$log` are there for it.
fn guest(meta: &Meta<'_>, wake: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    meta::encode(meta, &mut bytes).unwrap();
    let text: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let source = format!(
        r#"(module
          (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
          (import "extism:host/env" "store_u8" (func $store8 (param i64 i32)))
          (import "extism:host/env" "output_set" (func $output (param i64 i64)))
          (import "extism:host/user" "kv_get" (func $kv_get (param i64 i64) (result i64)))
          (import "extism:host/user" "log" (func $log (param i64 i64)))
          (memory (export "memory") 2)
          (data (i32.const 0) "\02\00\00\00")
          (data (i32.const 16) "{text}")
          (func $answer (param $from i32) (param $bytes i32) (result i32) (local $at i64) (local $i i32)
            (local.set $at (call $alloc (i64.extend_i32_u (local.get $bytes))))
            (loop $next
              (call $store8
                (i64.add (local.get $at) (i64.extend_i32_u (local.get $i)))
                (i32.load8_u (i32.add (local.get $from) (local.get $i))))
              (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (br_if $next (i32.lt_u (local.get $i) (local.get $bytes))))
            (call $output (local.get $at) (i64.extend_i32_u (local.get $bytes)))
            (i32.const 0))
          (func (export "shellcade_abi") (result i32) (call $answer (i32.const 0) (i32.const 4)))
          (func (export "meta") (result i32) (call $answer (i32.const 16) (i32.const {len})))
          (func (export "start") (export "join") (export "leave") (export "input") (export "close")
            (result i32) (i32.const 0))
          (func (export "wake") (result i32) (local $key i64) {wake} (i32.const 0)))"#,
        len = bytes.len()
    );
    wat::parse_str(source).unwrap()
}

fn plain() -> Meta<'static> {
    Meta {
        slug: Text::new("answers"),
        ..Meta::default()
    }
}

/// Asks a store for the key `k` of the player at index 0.
const READS_A_KEY: &str = "
    (local.set $key (call $alloc (i64.const 1)))
    (call $store8 (local.get $key) (i32.const 107))
    (drop (call $kv_get (i64.const 0) (local.get $key)))";

#[test]
fn the_defaults_are_those_of_the_abi() {
    let options = GameOptions::default();
    assert_eq!(options.heartbeat, Duration::from_millis(50));
    assert_eq!(options.deadline, Duration::from_millis(100));
    assert_eq!(options.memory_pages_max, 512);
    assert_eq!(options.fuel, None);
    assert!(options.canonical_nans);
}

#[test]
fn a_game_tells_what_it_is_and_how_it_is_run() {
    let wasm = guest(&plain(), "");
    let game = common::host().load(&wasm, &GameOptions::default()).unwrap();
    assert_eq!(game.meta().slug, "answers");
    assert_eq!(game.abi_major(), cabinet_wire::ABI_MAJOR);
    assert_eq!(game.wire_revision(), 0);
    assert_eq!(game.deadline(), Duration::from_millis(100));
    assert_eq!(game.heartbeat(), Duration::from_millis(50));
    assert_eq!(game.memory_cap_bytes(), 32 << 20);
    assert_ne!(game.tier(), Tier::Auto);
    assert!(!game.from_cache());
}

#[test]
fn a_room_tells_its_limits_after_overrides_and_its_last_roster() {
    let game = common::game(&guest(&plain(), ""));
    let config = RoomConfig {
        deadline: Some(Duration::from_millis(250)),
        heartbeat: Some(Duration::from_millis(20)),
        capacity: 3,
        ..RoomConfig::new(Seed::Set(7))
    };
    let mut room = game.room(config.clone(), Box::new(NoServices));
    assert_eq!(room.config(), &config);
    assert_eq!(room.deadline(), Duration::from_millis(250));
    assert_eq!(room.heartbeat(), Duration::from_millis(20));
    assert_eq!(room.memory_bytes(), 0);
    let _ = room.start(ms(0));
    assert_eq!(room.memory_bytes(), 2 << 16);
    let _ = room.join(ms(0), ada());
    let _ = room.join(ms(0), bob());
    let _ = room.leave(ms(1), &ada());
    assert_eq!(room.members(), [bob()]);
    assert_eq!(room.last_roster(), [bob(), ada()]);
    assert!(!room.ended() && !room.dead());
    assert_eq!(room.last_call().map(|call| call.export), Some("leave"));
    assert!(room.fault().is_none());
}

#[test]
fn a_declared_heartbeat_wins_over_the_option_and_the_rooms_over_both() {
    let declared = Meta {
        heartbeat_ms: 100,
        ..plain()
    };
    let mut options = common::options(common::WIDE);
    options.heartbeat = Duration::from_millis(70);
    let host = common::host();
    let silent = host.load(&guest(&plain(), ""), &options).unwrap();
    let game = host.load(&guest(&declared, ""), &options).unwrap();
    assert_eq!(silent.heartbeat(), Duration::from_millis(70));
    assert_eq!(game.heartbeat(), Duration::from_millis(100));
    let (mut room, _) = room(&game);
    let _ = room.start(ms(0));
    assert_eq!(room.heartbeat(), Duration::from_millis(100));
    let snapshot = room.snapshot().unwrap();
    let restored = game.restore(&snapshot, Box::new(NoServices)).unwrap();
    assert_eq!(restored.heartbeat(), Duration::from_millis(100));
}

#[test]
fn an_empty_room_wakes_only_when_it_is_resident_also_after_a_restore() {
    let game = common::game(&guest(&plain(), ""));
    let (mut ordinary, _) = room(&game);
    let _ = ordinary.start(ms(0));
    assert_eq!(ordinary.wake(ms(50)), Outcome::Skipped(Skip::Empty));

    let config = RoomConfig {
        resident: true,
        ..RoomConfig::new(Seed::Set(7))
    };
    let mut resident = game.room(config, Box::new(NoServices));
    let _ = resident.start(ms(0));
    assert!(matches!(resident.wake(ms(50)), Outcome::Done(_)));
    let snapshot = resident.snapshot().unwrap();
    let mut restored = game.restore(&snapshot, Box::new(NoServices)).unwrap();
    assert!(matches!(restored.wake(ms(100)), Outcome::Done(_)));
}

#[test]
fn a_call_tells_what_it_did_and_the_room_adds_up() {
    let game = common::game(&common::fixture("misbehave.wasm"));
    let (mut room, services) = room(&game);
    let start = room.start(ms(0)).report().unwrap().clone();
    assert_eq!((start.export, start.exit, start.frames), ("start", 0, 1));
    assert_eq!(start.bytes_out, cabinet_wire::KEYFRAME_BYTES as u64);
    assert!(start.host_calls > 0 && start.fuel > 0);
    assert_eq!(services.take_frames().len(), 1);
    let join = room.join(ms(1), ada()).report().unwrap().clone();
    let totals = room.totals();
    assert_eq!(totals.fuel, start.fuel + join.fuel);
    assert_eq!(totals.guest_time, start.guest_time + join.guest_time);
    assert_eq!(totals.host_time, start.host_time + join.host_time);
    let mut memory = Vec::new();
    room.copy_memory(&mut memory);
    assert_eq!(memory.len() as u64, room.memory_bytes());
}

/// A store that is down.
#[derive(Clone, Default)]
struct Down {
    failed: std::sync::Arc<std::sync::Mutex<Vec<&'static str>>>,
    logged: std::sync::Arc<std::sync::Mutex<Vec<(LogLevel, LogSource)>>>,
}

impl Services for Down {
    fn kv_get(
        &mut self,
        _: &Player,
        _: &[u8],
        _: Duration,
    ) -> Result<Option<Vec<u8>>, ServiceError> {
        Err(ServiceError::Unavailable("down".to_owned()))
    }

    fn kv_set(
        &mut self,
        _: &Player,
        _: &[u8],
        _: &[u8],
        _: &[u8],
        _: Duration,
    ) -> Result<(), ServiceError> {
        Err(ServiceError::Unavailable("down".to_owned()))
    }

    fn kv_delete(&mut self, _: &Player, _: &[u8], _: Duration) -> Result<(), ServiceError> {
        Err(ServiceError::Unavailable("down".to_owned()))
    }

    fn config_get(&mut self, _: &[u8], _: Duration) -> Result<Option<Vec<u8>>, ServiceError> {
        Err(ServiceError::Unavailable("down".to_owned()))
    }

    fn post(&mut self, _: &RoomResult) {}

    fn log(&mut self, level: LogLevel, source: LogSource, _: &[u8]) {
        self.logged.lock().unwrap().push((level, source));
    }

    fn store_failed(&mut self, operation: &'static str, _: &ServiceError) {
        self.failed.lock().unwrap().push(operation);
    }
}

#[test]
fn a_store_that_fails_is_reported_and_logged_and_the_room_goes_on() {
    let game = common::game(&guest(&plain(), READS_A_KEY));
    let services = Down::default();
    let mut room = game.room(RoomConfig::new(Seed::Set(7)), Box::new(services.clone()));
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    assert!(matches!(room.wake(ms(50)), Outcome::Done(_)));
    assert_eq!(*services.failed.lock().unwrap(), ["kv_get"]);
    assert_eq!(
        *services.logged.lock().unwrap(),
        [(LogLevel::Error, LogSource::Host)]
    );
}

#[test]
fn waiting_for_stores_past_the_ceiling_ends_the_room_and_is_not_the_guests_fault() {
    let mut options = common::options(common::WIDE);
    options.io_ceiling = Duration::ZERO;
    let game = common::host()
        .load(&guest(&plain(), READS_A_KEY), &options)
        .unwrap();
    let (mut room, _) = room(&game);
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    assert!(room.wake(ms(50)).is_fault());
    let fault = room.fault().unwrap();
    assert!(matches!(fault, Fault::HostIo { .. }), "{fault}");
    assert!(!fault.is_guests());
    assert_eq!(room.wake(ms(100)), Outcome::Skipped(Skip::Dead));
}

#[test]
#[cfg(target_os = "linux")]
fn rooms_that_were_restored_and_dropped_leave_no_mappings_behind() {
    let mut options = HostOptions::default();
    options.idle_memories = 0;
    let host = Host::new(options).unwrap();
    let game = host
        .load(&guest(&plain(), ""), &common::options(common::WIDE))
        .unwrap();
    let (mut control, _) = room(&game);
    let _ = control.start(ms(0));
    let bytes = control.snapshot().unwrap().encode(1).unwrap();
    let snapshot = Snapshot::decode(&bytes, 1 << 20).unwrap();
    let mappings = || {
        std::fs::read_to_string("/proc/self/maps")
            .unwrap()
            .lines()
            .count()
    };
    let before = mappings();
    for _ in 0..400 {
        drop(game.restore(&snapshot, Box::new(NoServices)).unwrap());
    }
    // Each room has two mappings at least; other tests of this process may add a few.
    assert!(
        mappings() < before + 400,
        "{before} before, {} after",
        mappings()
    );
}
