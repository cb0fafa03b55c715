//! What a game and a room tell about themselves, and what failing stores come to.

mod common;

use std::time::Duration;

use cabinet_host::{
    EXIT_DEADLINE, Fault, GameOptions, LoadWarning, LogSource, NoServices, Outcome, Player,
    RoomConfig, RoomResult, Seed, ServiceError, Services, Skip, Tier,
};
use cabinet_wire::input::Input;
use cabinet_wire::meta::{Leaderboard, Meta};
use cabinet_wire::{KNOWN_CTX_FEATURES, Lifecycle, LogLevel, ROSTER_CAP};
use common::{KV_GET, READS_A_KEY, SHORT, WIDE, ada, bob, guest, ms, plain, room};

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
    let wasm = guest(&plain(), "", "");
    let game = common::host().load(&wasm, &GameOptions::default()).unwrap();
    assert_eq!(game.meta().slug, "plain");
    let digest = ring::digest::digest(&ring::digest::SHA256, &wasm);
    assert_eq!(&game.digest().0[..], digest.as_ref());
    assert_eq!(game.abi_major(), cabinet_wire::ABI_MAJOR);
    assert_eq!(game.wire_revision(), 0);
    assert_eq!(game.deadline(), Duration::from_millis(100));
    assert_eq!(game.heartbeat(), Duration::from_millis(50));
    assert_eq!(game.memory_cap_bytes(), 32 << 20);
    assert_eq!(game.tier(), Tier::Speed);
    assert!(!game.from_cache());
    assert_eq!(game.warnings(), []);
    let tour = common::game(&common::fixture("tour.wasm"));
    assert_eq!(tour.wire_revision(), cabinet_wire::WIRE_REVISION);
}

#[test]
fn what_makes_no_sense_in_a_meta_loads_with_a_warning_each() {
    let board = Leaderboard::default();
    let cases: &[(Meta<'_>, &[LoadWarning])] = &[
        (plain(), &[]),
        (
            Meta {
                min_players: 4,
                max_players: 4,
                ..plain()
            },
            &[],
        ),
        (
            Meta {
                min_players: 5,
                max_players: 4,
                ..plain()
            },
            &[LoadWarning::Players { min: 5, max: 4 }],
        ),
        (
            Meta {
                min_players: 0,
                max_players: 0,
                ..plain()
            },
            &[LoadWarning::Players { min: 0, max: 0 }],
        ),
        (
            Meta {
                max_players: ROSTER_CAP as u16,
                ..plain()
            },
            &[],
        ),
        (
            Meta {
                max_players: ROSTER_CAP as u16 + 1,
                ..plain()
            },
            &[LoadWarning::MorePlayersThanSlots {
                max: ROSTER_CAP as u16 + 1,
            }],
        ),
        (
            Meta {
                lifecycle: Lifecycle::Resident.into(),
                ..plain()
            },
            &[],
        ),
        (
            Meta {
                lifecycle: Lifecycle::Resident.into(),
                min_players: 2,
                ..plain()
            },
            &[LoadWarning::ResidentNeedsPlayers { min: 2 }],
        ),
        (
            Meta {
                lifecycle: 3,
                ..plain()
            },
            &[LoadWarning::Lifecycle(3)],
        ),
        (
            Meta {
                ctx_features: KNOWN_CTX_FEATURES,
                ..plain()
            },
            &[],
        ),
        (
            Meta {
                ctx_features: KNOWN_CTX_FEATURES | 0x8000_0004,
                ..plain()
            },
            &[LoadWarning::UnknownFeatures(0x8000_0004)],
        ),
        (
            Meta {
                leaderboard: Some(Leaderboard {
                    direction: 1,
                    aggregation: 1,
                    format: 2,
                    ..board
                }),
                ..plain()
            },
            &[],
        ),
        (
            Meta {
                leaderboard: Some(Leaderboard {
                    direction: 2,
                    ..board
                }),
                ..plain()
            },
            &[LoadWarning::LeaderboardCode],
        ),
        (
            Meta {
                leaderboard: Some(Leaderboard {
                    aggregation: 2,
                    ..board
                }),
                ..plain()
            },
            &[LoadWarning::LeaderboardCode],
        ),
        (
            Meta {
                leaderboard: Some(Leaderboard { format: 3, ..board }),
                ..plain()
            },
            &[LoadWarning::LeaderboardCode],
        ),
    ];
    let host = common::host();
    for (meta, expected) in cases {
        let game = host
            .load(&guest(meta, "", ""), &common::options(WIDE))
            .unwrap();
        assert_eq!(game.warnings(), *expected, "{meta:?}");
    }
}

#[test]
fn a_room_tells_its_limits_after_overrides_and_its_last_roster() {
    let game = common::game(&guest(&plain(), "", ""));
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
    // Who left is on the roster of that callback only.
    let _ = room.wake(ms(50));
    assert_eq!(room.last_roster(), [bob()]);
}

#[test]
fn the_last_call_tells_how_it_exited() {
    // What misbehave does, how long it may, and the exit code of that call.
    let cases = [
        ('~', WIDE, 0, "ok"),
        ('x', WIDE, 7, "exit"),
        ('X', WIDE, u32::MAX, "exit"),
        ('Z', WIDE, 3, "exit"),
        ('z', WIDE, 0, "ok"),
        ('u', WIDE, 1, "trap"),
        ('E', WIDE, 0, "error-text"),
        ('t', SHORT, EXIT_DEADLINE, "deadline"),
    ];
    let game = common::game(&common::fixture("misbehave.wasm"));
    for (rune, deadline, exit, class) in cases {
        let config = RoomConfig {
            deadline: Some(deadline),
            ..RoomConfig::new(Seed::Set(7))
        };
        let mut room = game.room(config, Box::new(NoServices));
        let _ = room.start(ms(0));
        let _ = room.join(ms(0), ada());
        let _ = room.input(ms(50), &ada(), Input::Rune(rune as u32));
        let last = room.last_call().unwrap();
        assert_eq!((last.export, last.exit), ("input", exit), "{rune}");
        let found = room.fault().map_or("ok", Fault::class);
        assert_eq!(found, class, "{rune}");
        assert_eq!(room.dead(), class != "ok", "{rune}");
        let is_deadline =
            matches!(room.fault(), Some(Fault::Deadline { deadline, .. }) if *deadline == SHORT);
        assert_eq!(is_deadline, class == "deadline", "{rune}: the room's own");
    }
}

#[test]
fn a_declared_heartbeat_wins_over_the_option_and_the_rooms_over_both() {
    let declared = Meta {
        heartbeat_ms: 100,
        ..plain()
    };
    let mut options = common::options(WIDE);
    options.heartbeat = Duration::from_millis(70);
    let host = common::host();
    let silent = host.load(&guest(&plain(), "", ""), &options).unwrap();
    let game = host.load(&guest(&declared, "", ""), &options).unwrap();
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
    let game = common::game(&guest(&plain(), "", ""));
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
    logged: std::sync::Arc<std::sync::Mutex<Vec<(LogLevel, LogSource, String)>>>,
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

    fn log(&mut self, level: LogLevel, source: LogSource, message: &[u8]) {
        let message = String::from_utf8_lossy(message).into_owned();
        self.logged.lock().unwrap().push((level, source, message));
    }

    fn store_failed(&mut self, operation: &'static str, _: &ServiceError) {
        self.failed.lock().unwrap().push(operation);
    }
}

#[test]
fn a_store_that_fails_is_reported_and_logged_and_the_room_goes_on() {
    let game = common::game(&guest(&plain(), KV_GET, READS_A_KEY));
    let services = Down::default();
    let mut room = game.room(RoomConfig::new(Seed::Set(7)), Box::new(services.clone()));
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    assert!(matches!(room.wake(ms(50)), Outcome::Done(_)));
    assert_eq!(*services.failed.lock().unwrap(), ["kv_get"]);
    let logged = services.logged.lock().unwrap();
    let [(LogLevel::Error, LogSource::Host, message)] = &logged[..] else {
        panic!("{logged:?}");
    };
    assert!(message.starts_with("kv_get failed"), "{message}");
}

#[test]
fn waiting_for_stores_past_the_ceiling_ends_the_room_and_is_not_the_guests_fault() {
    // Nothing left before the call, and a ceiling that any call exceeds.
    for ceiling in [Duration::ZERO, Duration::from_nanos(1)] {
        let mut options = common::options(WIDE);
        options.io_ceiling = ceiling;
        let game = common::host()
            .load(&guest(&plain(), KV_GET, READS_A_KEY), &options)
            .unwrap();
        let (mut room, _) = room(&game);
        let _ = room.start(ms(0));
        let _ = room.join(ms(0), ada());
        assert!(room.wake(ms(50)).is_fault());
        let Some(
            fault @ Fault::HostIo {
                waited,
                ceiling: told,
            },
        ) = room.fault()
        else {
            panic!("{:?}", room.fault());
        };
        assert_eq!(*told, ceiling);
        assert!(*waited >= ceiling);
        assert!(!fault.is_guests());
        assert_eq!(room.wake(ms(100)), Outcome::Skipped(Skip::Dead));
    }
}
