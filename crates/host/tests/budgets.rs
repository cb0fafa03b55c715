//! The work budget and the deadline hold wherever guest code runs: in the start section, in the
//! runtime's initialiser, on the probe, and when a runtime is primed for an `SCK1` blob.

mod common;

use cabinet_host::{
    CaptureError, Fault, Game, GameOptions, LoadError, NoServices, Outcome, RestoreError, Room,
    RoomConfig, Sck1, Seed,
};
use common::{EPOCH, SHORT, WIDE, ada, guest, host, host_with_probe_deadline, ms, options, plain};

/// Enough for everything but an endless loop.
const FUEL: u64 = 5_000_000;
/// A moment in 2020, of which guests that loop in the present make nothing.
const PAST: i64 = EPOCH - 3 * 365 * 24 * 3_600 * 1_000_000_000;

fn with_fuel(fuel: u64) -> GameOptions {
    let mut with = options(WIDE);
    with.fuel = Some(fuel);
    with
}

fn new_room(game: &Game) -> Room {
    game.room(RoomConfig::new(Seed::Set(1)), Box::new(NoServices))
}

#[test]
fn a_budget_ends_endless_work_on_the_probe() {
    let host = host();
    for (file, export) in [
        ("refused-start-loop.wat", "start section"),
        ("refused-initialize-loop.wat", "shellcade_abi"),
        ("refused-ctors-loop.wat", "shellcade_abi"),
        ("refused-abi-loop.wat", "shellcade_abi"),
        ("refused-meta-loop.wat", "meta"),
    ] {
        let error = host.load(&common::wat(file), &with_fuel(FUEL)).unwrap_err();
        let LoadError::Probe {
            export: found,
            fault,
        } = error
        else {
            panic!("{file}: {error}");
        };
        assert_eq!(
            (found, fault),
            (export, Fault::Budget { fuel: FUEL }),
            "{file}"
        );
    }
}

/// A start section that is quick on the probe and endless in a room, which it tells by the clock.
const START_LOOPS_IN_A_ROOM: &str = r#"
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (start $run)
    (func $run
      (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 16)))
      (if (i64.gt_u (i64.load (i32.const 16)) (i64.const 1_650_000_000_000_000_000))
        (then (loop $more (br $more)))))"#;

#[test]
fn a_budget_covers_the_start_section_and_the_initialiser_of_a_room() {
    let host = host();
    for wasm in [
        guest(&plain(), START_LOOPS_IN_A_ROOM, ""),
        common::wat("fault-loop-in-room.wat"),
    ] {
        let game = host.load(&wasm, &with_fuel(FUEL)).unwrap();
        let mut room = new_room(&game);
        let outcome = room.start(ms(0));
        assert_eq!(room.fault(), Some(&Fault::Budget { fuel: FUEL }));
        let report = outcome.report().unwrap();
        assert!(report.fuel >= FUEL, "what was burned is told");
        assert_eq!(room.totals().fuel, report.fuel);
    }
}

#[test]
fn a_callback_and_the_initialiser_in_front_of_it_share_one_budget() {
    // In the present, `_initialize` burns as much as `start` does; in the past, nothing.
    let path = common::fixtures().join("wat/fault-loop-in-room.wat");
    let text = std::fs::read_to_string(path)
        .unwrap()
        .replace("(loop $more (br $more))", "(call $burn)")
        .replace("(export \"start\") ", "");
    let end = text.rfind(')').expect("a module");
    let wasm = common::wat_text(&format!(
        r#"{}
          (func $burn (local $n i32)
            (loop $more
              (local.set $n (i32.add (local.get $n) (i32.const 1)))
              (br_if $more (i32.lt_u (local.get $n) (i32.const 10_000)))))
          (func (export "start") (result i32) (call $burn) (i32.const 0)))"#,
        &text[..end]
    ));
    let host = host();
    let start = |fuel, now| {
        let game = host.load(&wasm, &with_fuel(fuel)).unwrap();
        let mut room = new_room(&game);
        let fuel = room.start(now).report().unwrap().fuel;
        (fuel, room.fault().map(Fault::class))
    };
    let (one, none) = start(FUEL, PAST);
    assert_eq!(none, None);
    let (both, none) = start(FUEL, ms(0));
    assert_eq!(none, None);
    assert!(both > one + one / 2, "{both}, {one}");
    // What both need together is enough; what is enough for each alone is not.
    assert_eq!(start(both, ms(0)), (both, None));
    let (_, class) = start(both - 1, ms(0));
    assert_eq!(class, Some("budget"));
    let enough_for_one = one + one / 4;
    assert_eq!(start(enough_for_one, PAST), (one, None));
    let (_, class) = start(enough_for_one, ms(0));
    assert_eq!(class, Some("budget"));
}

#[test]
fn priming_a_runtime_for_an_sck1_blob_is_under_the_budget() {
    let game = host()
        .load(&common::wat("fault-loop-in-room.wat"), &with_fuel(FUEL))
        .unwrap();
    let error = game
        .restore_sck1(&blob(&game), false, Box::new(NoServices))
        .unwrap_err();
    assert!(
        matches!(error, RestoreError::Prime(Fault::Budget { fuel: FUEL })),
        "{error}"
    );
}

#[test]
fn priming_a_runtime_for_an_sck1_blob_is_under_the_hosts_deadline() {
    let strict = host_with_probe_deadline(SHORT);
    for wasm in [
        guest(&plain(), START_LOOPS_IN_A_ROOM, ""),
        common::wat("fault-loop-in-room.wat"),
    ] {
        let game = strict.load(&wasm, &options(WIDE)).unwrap();
        let error = game
            .restore_sck1(&blob(&game), false, Box::new(NoServices))
            .unwrap_err();
        assert!(
            matches!(
                error,
                RestoreError::Prime(Fault::Deadline {
                    deadline: SHORT,
                    ..
                })
            ),
            "{error}"
        );
    }
}

#[test]
fn an_sck1_blob_whose_runtime_cannot_be_primed_is_not_written() {
    let game = host()
        .load(&common::wat("fault-loop-in-room.wat"), &with_fuel(FUEL))
        .unwrap();
    let mut room = new_room(&game);
    assert!(matches!(room.start(PAST), Outcome::Done(_)));
    assert!(room.snapshot_sck1(3).is_ok());
    assert!(matches!(room.join(ms(0), ada()), Outcome::Done(_)));
    let error = room.snapshot_sck1(3).unwrap_err();
    assert!(matches!(error, CaptureError::Prime(_)), "{error}");
    // The room itself is as it was.
    assert!(matches!(room.wake(ms(50)), Outcome::Done(_)));
}

/// A blob of a room of this game, in the present, with a page of zeros.
fn blob(game: &Game) -> Sck1 {
    Sck1 {
        artifact: game.digest(),
        now: ms(0),
        seed: 1,
        entropy_consumed: 0,
        ended: false,
        dead: false,
        input_context: 0,
        mode: b"quick".to_vec(),
        capacity: 0,
        min_players: 1,
        epoch_seq: 0,
        post_seq: 0,
        roster: Vec::new(),
        memory: vec![0; 65_536].into(),
    }
}
