//! One room by hand: order, rosters, clock, limits, services.

mod common;

use std::time::Duration;

use cabinet_host::{
    Fault, Host, HostOptions, LogSource, MemoryServices, Outcome, Player, Recipient, RoomConfig,
    RoomResult, Seed, ServiceError, Services, Skip, Slot, TrapKind,
};
use cabinet_wire::input::Input;
use cabinet_wire::{LogLevel, Mode};
use common::{SHORT, WIDE, ada, bob, ms, options, room};

fn misbehave(deadline: Duration) -> cabinet_host::Game {
    common::host()
        .load(&common::fixture("misbehave.wasm"), &options(deadline))
        .unwrap()
}

fn rune(c: char) -> Input {
    Input::Rune(c as u32)
}

#[test]
fn calls_out_of_order_are_skipped_with_the_reason() {
    let game = common::game(&common::fixture("tour.wasm"));
    let (mut room, _) = room(&game);
    assert_eq!(room.wake(ms(0)), Outcome::Skipped(Skip::NotStarted));
    assert_eq!(room.join(ms(0), ada()), Outcome::Skipped(Skip::NotStarted));
    assert!(matches!(room.start(ms(0)), Outcome::Done(_)));
    assert_eq!(room.start(ms(0)), Outcome::Skipped(Skip::AlreadyStarted));
    assert_eq!(room.leave(ms(0), &ada()), Outcome::Skipped(Skip::NotMember));
    assert_eq!(
        room.input(ms(0), &ada(), rune('x')),
        Outcome::Skipped(Skip::NotMember)
    );
    assert!(matches!(room.join(ms(0), ada()), Outcome::Done(_)));
    assert_eq!(
        room.join(ms(0), ada()),
        Outcome::Skipped(Skip::AlreadyMember)
    );
    assert!(matches!(room.close(ms(0)), Outcome::Done(_)));
    assert_eq!(room.wake(ms(0)), Outcome::Skipped(Skip::Dead));
    assert_eq!(room.close(ms(0)), Outcome::Skipped(Skip::Dead));
    assert_eq!(room.memory_bytes(), 0, "closing frees the instance");
}

#[test]
fn an_empty_room_wakes_only_when_it_is_resident() {
    let game = common::game(&common::fixture("crowd.wasm"));
    for resident in [false, true] {
        let mut config = RoomConfig::new(Seed::Set(1));
        config.resident = resident;
        let mut room = game.room(config, Box::new(MemoryServices::new()));
        let _ = room.start(ms(0));
        let woke = room.wake(ms(100));
        assert_eq!(woke == Outcome::Skipped(Skip::Empty), !resident, "{woke:?}");
    }
}

#[test]
fn the_room_clock_never_goes_back() {
    let game = common::game(&common::fixture("tour.wasm"));
    let (mut room, _) = room(&game);
    let _ = room.start(ms(1_000));
    let _ = room.join(ms(500), ada());
    assert_eq!(room.now(), ms(1_000));
    let _ = room.wake(ms(1_050));
    assert_eq!(room.now(), ms(1_050));
}

#[test]
fn a_player_who_comes_back_under_another_name_is_seen() {
    // The reference keeps the old name: account and kind are all it compares.
    let game = common::game(&common::fixture("crowd.wasm"));
    assert_ne!(game.meta().ctx_features & 1, 0, "a roster-epoch guest");
    let (mut room, _) = room(&game);
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    let before = room.roster_epoch();
    let _ = room.leave(ms(1), &ada());
    let renamed = Player::member("a1", "countess", "c9");
    let _ = room.join(ms(2), renamed);
    assert!(room.roster_epoch() > before);
}

#[test]
fn a_steady_roster_bumps_nothing() {
    let game = common::game(&common::fixture("crowd.wasm"));
    let (mut room, _) = room(&game);
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    let (roster, frames) = (room.roster_epoch(), room.epoch_seq());
    for beat in 0..20 {
        let _ = room.wake(ms(beat * 100));
    }
    assert_eq!((room.roster_epoch(), room.epoch_seq()), (roster, frames));
}

#[test]
fn the_one_who_leaves_is_the_last_of_that_callbacks_roster_only() {
    let game = common::game(&common::fixture("tour.wasm"));
    let (mut room, _) = room(&game);
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    let _ = room.join(ms(0), bob());
    let _ = room.leave(ms(1), &ada());
    assert_eq!(room.members(), [bob()]);
    assert_eq!(room.last_roster(), [bob(), ada()]);
    let _ = room.wake(ms(50));
    assert_eq!(room.last_roster(), [bob()]);
}

#[test]
fn the_same_seed_draws_the_same_and_another_differs() {
    let game = common::game(&common::fixture("tour.wasm"));
    let digest = |seed| {
        let mut room = game.room(
            RoomConfig::new(Seed::Set(seed)),
            Box::new(MemoryServices::new()),
        );
        let _ = room.start(ms(0));
        let _ = room.join(ms(0), ada());
        for beat in 1..10 {
            let _ = room.wake(ms(beat * 50));
        }
        room.state_digest().unwrap()
    };
    assert_eq!(digest(42), digest(42));
    assert_ne!(digest(42), digest(43));
}

#[test]
fn a_deadline_kill_is_told_apart_from_a_trap_an_exit_and_a_budget() {
    let cases = [
        ('t', SHORT, None, "deadline"),
        ('u', WIDE, None, "trap"),
        ('Z', WIDE, None, "exit"),
        ('E', WIDE, None, "error-text"),
        ('t', WIDE, Some(50_000_000), "budget"),
    ];
    for (misdeed, deadline, fuel, class) in cases {
        let mut with = options(deadline);
        with.fuel = fuel;
        let game = common::host()
            .load(&common::fixture("misbehave.wasm"), &with)
            .unwrap();
        let (mut room, _) = room(&game);
        let _ = room.start(ms(0));
        let _ = room.join(ms(0), ada());
        let outcome = room.input(ms(1), &ada(), rune(misdeed));
        assert!(outcome.is_fault());
        let fault = room.fault().unwrap();
        assert_eq!(fault.class(), class, "{misdeed}: {fault}");
        assert!(fault.is_guests());
    }
}

#[test]
fn a_budget_kill_comes_at_the_same_fuel_every_time_and_in_both_tiers() {
    let mut burned = Vec::new();
    for tier in [cabinet_host::Tier::Speed, cabinet_host::Tier::Quick] {
        let mut with = options(WIDE);
        with.fuel = Some(10_000_000);
        with.tier = tier;
        let game = common::host()
            .load(&common::fixture("misbehave.wasm"), &with)
            .unwrap();
        for misdeed in ['t', 'n', 's', 'm', 'R'] {
            let (mut room, _) = room(&game);
            let _ = room.start(ms(0));
            let _ = room.join(ms(0), ada());
            let outcome = room.input(ms(1), &ada(), rune(misdeed));
            assert!(matches!(room.fault(), Some(Fault::Budget { .. })));
            let digest = room.state_digest().unwrap();
            burned.push((misdeed, outcome.report().unwrap().fuel, digest));
        }
    }
    let half = burned.len() / 2;
    assert_eq!(burned[..half], burned[half..]);
}

#[test]
fn a_trap_report_names_what_and_where() {
    let (mut room, _) = room(&misbehave(WIDE));
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    let _ = room.input(ms(1), &ada(), rune('/'));
    let Some(Fault::Trap(trap)) = room.fault() else {
        panic!("{:?}", room.fault());
    };
    assert_eq!(trap.kind, TrapKind::DivisionByZero);
    assert!(!trap.backtrace.is_empty());
    let _ = room.close(ms(2));

    let (mut room, _) = common::room(&misbehave(WIDE));
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    let _ = room.input(ms(1), &ada(), rune('d'));
    let Some(Fault::Trap(trap)) = room.fault() else {
        panic!("{:?}", room.fault());
    };
    assert_eq!(trap.kind, TrapKind::CallDepth);
}

#[test]
fn deep_recursion_ends_at_the_same_depth_in_both_tiers() {
    let digests: Vec<_> = [cabinet_host::Tier::Speed, cabinet_host::Tier::Quick]
        .into_iter()
        .map(|tier| {
            let mut with = options(WIDE);
            with.tier = tier;
            let game = common::host()
                .load(&common::fixture("misbehave.wasm"), &with)
                .unwrap();
            let (mut room, _) = room(&game);
            let _ = room.start(ms(0));
            let _ = room.join(ms(0), ada());
            let outcome = room.input(ms(1), &ada(), rune('d'));
            (outcome.report().unwrap().fuel, room.state_digest().unwrap())
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn memory_growth_stops_at_the_cap() {
    let mut with = options(WIDE);
    with.memory_pages_max = 80;
    let game = common::host()
        .load(&common::fixture("misbehave.wasm"), &with)
        .unwrap();
    let (mut room, _) = room(&game);
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    let grown = room.input(ms(1), &ada(), rune('g'));
    assert!(matches!(grown, Outcome::Done(_)), "{:?}", room.fault());
    assert_eq!(room.memory_bytes(), 80 * 65_536);
}

#[test]
fn a_room_can_override_deadline_and_heartbeat() {
    let game = misbehave(WIDE);
    let mut config = RoomConfig::new(Seed::Set(1));
    config.deadline = Some(SHORT);
    config.heartbeat = Some(Duration::from_millis(250));
    let mut room = game.room(config, Box::new(MemoryServices::new()));
    assert_eq!(room.deadline(), SHORT);
    assert_eq!(room.heartbeat(), Duration::from_millis(250));
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    let _ = room.input(ms(1), &ada(), rune('t'));
    assert!(matches!(
        room.fault(),
        Some(Fault::Deadline {
            deadline: SHORT,
            ..
        })
    ));
}

#[test]
fn after_a_fault_nothing_reaches_the_guest_not_even_close() {
    let (mut room, services) = room(&misbehave(WIDE));
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    let _ = room.input(ms(1), &ada(), rune('u'));
    services.take_frames();
    assert_eq!(room.wake(ms(50)), Outcome::Skipped(Skip::Dead));
    assert_eq!(room.close(ms(60)), Outcome::Skipped(Skip::Dead));
    assert!(services.take_frames().is_empty());
}

/// Stores that take their time, fail, or panic.
struct Trouble {
    kind: Kind,
    log: MemoryServices,
}

#[derive(Clone, Copy)]
enum Kind {
    Slow(Duration),
    Failing,
    Panicking,
}

impl Trouble {
    fn strike<T>(&self) -> Result<Option<T>, ServiceError> {
        match self.kind {
            Kind::Slow(time) => {
                std::thread::sleep(time);
                Ok(None)
            }
            Kind::Failing => Err(ServiceError::Unavailable("no store today".into())),
            Kind::Panicking => panic!("a store's bug"),
        }
    }
}

impl Services for Trouble {
    fn kv_get(
        &mut self,
        _: &Player,
        _: &[u8],
        _: Duration,
    ) -> Result<Option<Vec<u8>>, ServiceError> {
        self.strike()
    }
    fn kv_set(
        &mut self,
        _: &Player,
        _: &[u8],
        _: &[u8],
        _: &[u8],
        _: Duration,
    ) -> Result<(), ServiceError> {
        self.strike::<()>().map(|_| ())
    }
    fn kv_delete(&mut self, _: &Player, _: &[u8], _: Duration) -> Result<(), ServiceError> {
        self.strike::<()>().map(|_| ())
    }
    fn config_get(&mut self, _: &[u8], _: Duration) -> Result<Option<Vec<u8>>, ServiceError> {
        Ok(None)
    }
    fn post(&mut self, _: &RoomResult) {}
    fn log(&mut self, level: LogLevel, source: LogSource, message: &[u8]) {
        self.log.log(level, source, message);
    }
    fn deliver(&mut self, _: Recipient<'_>, _: &cabinet_host::Frame) {}
}

/// A room over troubled stores, after a callback that uses them.
fn troubled(
    kind: Kind,
    io_ceiling: Duration,
    deadline: Duration,
) -> (cabinet_host::Room, MemoryServices) {
    let mut with = options(deadline);
    with.io_ceiling = io_ceiling;
    let game = common::host()
        .load(&common::wat_text(KV_GUEST), &with)
        .unwrap();
    let log = MemoryServices::new();
    let mut room = game.room(
        RoomConfig::new(Seed::Set(1)),
        Box::new(Trouble {
            kind,
            log: log.clone(),
        }),
    );
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    let _ = room.input(ms(1), &ada(), rune('k'));
    (room, log)
}

/// Reads the key `k` of roster entry 0 whenever there is input.
const KV_GUEST: &str = r#"(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "store_u64" (func $store (param i64 i64)))
  (import "extism:host/env" "output_set" (func $output (param i64 i64)))
  (import "extism:host/user" "kv_get" (func $kv_get (param i64 i64) (result i64)))
  (memory (export "memory") 1)
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
  (func (export "input") (result i32) (local $key i64)
    (local.set $key (call $alloc (i64.const 1)))
    (call $store_u8 (local.get $key) (i32.const 107))
    (drop (call $kv_get (i64.const 0) (local.get $key)))
    (i32.const 0))
  (func (export "start"))
  (func (export "join"))
  (func (export "leave"))
  (func (export "wake"))
  (func (export "close")))"#;

#[test]
fn waiting_for_a_store_does_not_count_against_the_guests_deadline() {
    // Far over the deadline, far under the ceiling.
    let (room, _) = troubled(Kind::Slow(SHORT * 4), WIDE, SHORT);
    assert_eq!(room.fault(), None);
    let report = room.last_call().unwrap();
    assert!(report.io_time >= SHORT * 4);
}

#[test]
fn a_store_over_the_ceiling_ends_the_room_without_blaming_the_guest() {
    let (room, _) = troubled(Kind::Slow(SHORT), SHORT / 10, WIDE);
    let fault = room.fault().unwrap();
    assert!(matches!(fault, Fault::HostIo { .. }), "{fault}");
    assert!(!fault.is_guests());
}

#[test]
fn a_failing_store_is_logged_and_the_guest_lives() {
    let (room, log) = troubled(Kind::Failing, WIDE, WIDE);
    assert_eq!(room.fault(), None);
    let records = log.take_logs();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].level, LogLevel::Error);
    assert!(records[0].message.starts_with(b"kv_get failed"));
}

#[test]
fn a_panicking_store_is_a_host_bug_and_kills_one_room_only() {
    let (room, _) = troubled(Kind::Panicking, WIDE, WIDE);
    let fault = room.fault().unwrap();
    assert!(matches!(fault, Fault::HostBug { .. }), "{fault}");
    assert!(!fault.is_guests());
    let (room, _) = troubled(Kind::Failing, WIDE, WIDE);
    assert_eq!(room.fault(), None, "the process goes on");
}

#[test]
fn a_room_moves_between_threads_between_calls() {
    let game = common::game(&common::fixture("tour.wasm"));
    let (mut room, _) = room(&game);
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    for beat in 1..8 {
        room = std::thread::spawn(move || {
            let outcome = room.wake(ms(beat * 50));
            assert!(matches!(outcome, Outcome::Done(_)), "{:?}", room.fault());
            room
        })
        .join()
        .unwrap();
    }
    assert!(room.frame(Slot::Broadcast).is_some() || room.frame(Slot::Member(0)).is_some());
}

#[test]
fn many_rooms_of_one_game_share_nothing() {
    let host = Host::new(HostOptions::default()).unwrap();
    let game = host
        .load(&common::wat("ok-state.wat"), &options(WIDE))
        .unwrap();
    let mut rooms: Vec<_> = (0..20).map(|_| room(&game).0).collect();
    for (index, room) in rooms.iter_mut().enumerate() {
        let _ = room.start(ms(0));
        let _ = room.join(ms(0), ada());
        for beat in 0..index as i64 {
            let _ = room.wake(ms(beat * 50));
        }
    }
    let digests: std::collections::BTreeSet<_> = rooms
        .iter_mut()
        .map(|room| room.state_digest().unwrap().globals)
        .collect();
    assert_eq!(digests.len(), 20);
}

#[test]
fn the_mode_and_sizes_a_room_is_made_with_are_kept() {
    let game = common::game(&common::fixture("tour.wasm"));
    let mut config = RoomConfig::new(Seed::Set(9));
    config.mode = Mode::Private;
    config.capacity = 4;
    config.min_players = 2;
    let mut room = game.room(config.clone(), Box::new(MemoryServices::new()));
    let _ = room.start(ms(0));
    let snapshot = room.snapshot().unwrap();
    let back = game
        .restore(&snapshot, Box::new(MemoryServices::new()))
        .unwrap();
    assert_eq!(back.config(), &config);
}
