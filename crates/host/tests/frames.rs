//! What comes of the frames and results a guest sends: malformed ones, numbered ones, late ones.

mod common;

use cabinet_host::{LogSource, Outcome, Slot, Snapshot};
use cabinet_wire::outcome::{self, Ranking};
use cabinet_wire::{CELL_BYTES, LogLevel, Status};
use common::{ada, game, guest, hex, ms, plain, playing};

/// A container from its header and runs: flags, run count, rows, columns, then the runs' bytes.
fn container(flags: u8, runs: u16, size: [u8; 2], body: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![flags];
    bytes.extend_from_slice(&9u32.to_le_bytes());
    bytes.extend_from_slice(&runs.to_le_bytes());
    bytes.extend_from_slice(&size);
    bytes.extend(body.concat());
    bytes
}

/// A run of the letter `B`.
fn run(start: u16, cells: u16) -> Vec<u8> {
    let mut bytes = [start.to_le_bytes(), cells.to_le_bytes()].concat();
    for _ in 0..cells {
        let mut cell = [0; CELL_BYTES];
        cell[0] = b'B';
        bytes.extend_from_slice(&cell);
    }
    bytes
}

const KEYFRAME: u8 = 1;
const SIZE: [u8; 2] = [24, 80];

/// Every way a container can be malformed, each beginning with what would be a fine run.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let fine = run(0, 1);
    vec![
        ("nothing", Vec::new()),
        ("a short header", vec![KEYFRAME; 8]),
        (
            "an unknown flag",
            container(KEYFRAME | 2, 1, SIZE, &[&fine]),
        ),
        ("another size", container(KEYFRAME, 1, [25, 80], &[&fine])),
        (
            "a run without cells",
            container(KEYFRAME, 2, SIZE, &[&fine, &run(1, 0)]),
        ),
        (
            "runs out of order",
            container(KEYFRAME, 2, SIZE, &[&fine, &run(0, 1)]),
        ),
        (
            "a run past the grid",
            container(KEYFRAME, 2, SIZE, &[&fine, &run(1_919, 2)]),
        ),
        (
            "a run that is not all there",
            container(KEYFRAME, 2, SIZE, &[&fine, &run(1, 2)[..40]]),
        ),
        (
            "a byte too many",
            container(KEYFRAME, 1, SIZE, &[&fine, &[0]]),
        ),
    ]
}

#[test]
fn a_malformed_container_is_not_applied_and_bumps_the_epoch_and_is_logged() {
    let ways = [
        (
            r#"(import "extism:host/user" "send" (func $send (param i64 i64) (result i64)))"#,
            "(drop (call $send (i64.const 0) (local.get $at)))",
            Slot::Member(0),
        ),
        (
            r#"(import "extism:host/user" "identical" (func $send (param i64) (result i64)))"#,
            "(drop (call $send (local.get $at)))",
            Slot::Broadcast,
        ),
    ];
    for (import, send, slot) in ways {
        for (what, bytes) in malformed() {
            // A fine frame and a malformed one, in turn.
            let fine = container(KEYFRAME, 1, SIZE, &[&run(0, 1)]);
            let wasm = guest(
                &plain(),
                &format!(
                    r#"{import}
                    (global $odd (mut i32) (i32.const 0))
                    (data (i32.const 1024) "{}") (data (i32.const 2048) "{}")"#,
                    hex(&fine),
                    hex(&bytes)
                ),
                &format!(
                    "(global.set $odd (i32.xor (global.get $odd) (i32.const 1)))
                    (local.set $at
                      (if (result i64) (global.get $odd)
                        (then (call $block (i32.const 1024) (i32.const {})))
                        (else (call $block (i32.const 2048) (i32.const {})))))
                    {send}",
                    fine.len(),
                    bytes.len()
                ),
            );
            let (mut room, services) = playing(&wasm);
            let seen = common::Recorder::watching(&mut room);
            for beat in 0..3 {
                let report = done(room.wake(ms(100 + beat * 100)));
                assert_eq!((report.frames, report.bytes_out), (1, fine.len() as u64));
                assert_eq!(seen.take_returns(), [9], "{what}");
                assert!(room.frame(slot).is_some(), "{what}");
                assert_eq!(services.take_logs(), [], "{what}");
                assert_eq!(services.take_frames().len(), 1);

                let before = room.epoch_seq();
                let report = done(room.wake(ms(150 + beat * 100)));
                assert_eq!((report.frames, report.bytes_out), (0, 0), "{what}");
                assert_eq!(room.epoch_seq(), before + 1, "{what}");
                assert_eq!(seen.take_returns(), [i64::from(before + 1)], "{what}");
                assert!(room.frame(slot).is_none(), "{what}: a new baseline is due");
                assert!(services.take_frames().is_empty(), "{what}");
                let logs = services.take_logs();
                assert_eq!(logs.len(), 1, "{what}");
                assert_eq!(
                    (logs[0].level, logs[0].source),
                    (LogLevel::Warn, LogSource::Host)
                );
                assert_eq!(logs[0].message, b"dropped a malformed frame");
            }
        }
    }
}

/// Results in which ada has 10 and 20.
fn results() -> String {
    let result = |metric| {
        let mut bytes = Vec::new();
        outcome::encode(&[Ranking::new(0, metric, 1, Status::Finished)], &mut bytes).unwrap();
        hex(&bytes)
    };
    format!(
        r#"(data (i32.const 1024) "{}") (data (i32.const 1088) "{}")"#,
        result(10),
        result(20)
    )
}

#[test]
fn the_number_of_a_post_goes_on_after_a_snapshot() {
    let game = game(&guest(
        &plain(),
        &format!(
            r#"(import "extism:host/user" "post" (func $post (param i64))) {}"#,
            results()
        ),
        "(call $post (call $block (i32.const 1024) (i32.const 17)))",
    ));
    let (mut room, services) = common::room(&game);
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    done(room.wake(ms(50)));
    done(room.wake(ms(100)));
    let bytes = room.snapshot().unwrap().encode(1).unwrap();
    let snapshot = Snapshot::decode(&bytes, game.snapshot_bytes_max()).unwrap();
    let fork = services.fork();
    let mut restored = game.restore(&snapshot, Box::new(fork.clone())).unwrap();
    for (room, services) in [(&mut room, services), (&mut restored, fork)] {
        done(room.wake(ms(150)));
        let posts = services.posts();
        let numbers: Vec<_> = posts.iter().map(|post| post.round_seq).collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert_eq!(room.post_seq(), 3);
        assert_eq!(posts[2].standings[0].player, ada());
        assert_eq!(posts[2].standings[0].metric, 10);
    }
}

#[test]
fn the_first_end_wins_and_frames_go_out_until_the_room_is_settled() {
    let fine = container(KEYFRAME, 1, SIZE, &[&run(0, 1)]);
    let wasm = guest(
        &plain(),
        &format!(
            r#"(import "extism:host/user" "end" (func $end (param i64)))
            (import "extism:host/user" "identical" (func $send (param i64) (result i64)))
            (global $from (mut i32) (i32.const 1024))
            {} (data (i32.const 2048) "{}")"#,
            results(),
            hex(&fine)
        ),
        &format!(
            "(call $end (call $block (global.get $from) (i32.const 17)))
            (global.set $from (i32.const 1088))
            (drop (call $send (call $block (i32.const 2048) (i32.const {}))))",
            fine.len()
        ),
    );
    let (mut room, services) = playing(&wasm);
    assert!(!room.ended());
    assert_eq!(room.result(), None);
    done(room.wake(ms(50)));
    assert!(room.ended() && !room.settled() && !room.dead());
    let first = room.result().unwrap().clone();
    assert_eq!(first.standings[0].metric, 10);
    assert_eq!(first.standings[0].status, Some(Status::Finished));
    assert_eq!(first.round_seq, 0);
    assert_eq!(services.take_frames().len(), 1);

    let seen = common::Recorder::watching(&mut room);
    done(room.wake(ms(100)));
    let told = seen.take_payloads();
    assert_eq!(told[0].last(), Some(&1), "told before it is settled");
    assert_eq!(room.result(), Some(&first), "a second end changes nothing");
    assert_eq!(services.take_frames().len(), 1);
    assert_eq!(services.take_logs(), []);

    room.settle();
    let seen = common::Recorder::watching(&mut room);
    let report = done(room.wake(ms(150)));
    assert_eq!(report.frames, 1, "still accepted");
    assert!(services.take_frames().is_empty(), "and not delivered");
    assert_eq!(
        seen.take_payloads()[0].last(),
        Some(&1),
        "the guest is told"
    );
    assert!(matches!(room.close(ms(200)), Outcome::Done(_)));
    assert_eq!(room.result(), Some(&first), "kept after the instance");
}

#[test]
fn an_end_that_cannot_be_read_ends_the_game_without_a_result_and_is_logged() {
    let wasm = guest(
        &plain(),
        r#"(import "extism:host/user" "end" (func $end (param i64)))"#,
        "(call $end (call $block (i32.const 0) (i32.const 1)))",
    );
    let (mut room, services) = playing(&wasm);
    done(room.wake(ms(50)));
    assert!(room.ended());
    assert!(room.result().unwrap().standings.is_empty());
    let logs = services.take_logs();
    assert_eq!(logs.len(), 1);
    assert_eq!(logs[0].source, LogSource::Host);
}

fn done(outcome: Outcome) -> cabinet_host::CallReport {
    match outcome {
        Outcome::Done(report) => report,
        other => panic!("{other:?}"),
    }
}
