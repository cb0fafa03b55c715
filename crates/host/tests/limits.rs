//! The host's own limits, each at the last value that fits and the first that does not.

mod common;

use cabinet_host::{Fault, NoServices, Outcome, Player, RoomConfig, Seed, Skip, TRAP_FRAMES_MAX};
use cabinet_wire::{CTX_HEAD_BYTES, CTX_ROSTER_COUNT_MAX, TEXT_BYTES_MAX};
use common::{Recorder, guest, ms, plain, playing};

/// The text of a guest's error that is `bytes` times the byte `byte`.
fn error_text(byte: u8, bytes: usize) -> String {
    let wasm = guest(
        &plain(),
        r#"(import "extism:host/env" "error_set" (func $error (param i64)))"#,
        &format!(
            "(memory.fill (i32.const 1024) (i32.const {byte}) (i32.const {bytes}))
            (call $error (call $block (i32.const 1024) (i32.const {bytes})))"
        ),
    );
    let (mut room, _) = playing(&wasm);
    assert!(room.wake(ms(50)).is_fault());
    match room.fault() {
        Some(Fault::ErrorText { text }) => text.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_error_text_of_4096_bytes_is_kept_and_a_longer_one_is_cut() {
    assert_eq!(error_text(b'e', 4_096), "e".repeat(4_096));
    assert_eq!(error_text(b'e', 4_097), "e".repeat(4_096));
    assert_eq!(error_text(b'e', 60_000), "e".repeat(4_096));
}

#[test]
fn an_error_text_that_is_not_utf8_is_no_longer_than_4096_bytes_either() {
    // Each byte becomes a replacement character of three.
    let text = error_text(0xff, 4_096);
    assert!(text.len() <= 4_096, "{} bytes", text.len());
    assert!(text.chars().all(|c| c == char::REPLACEMENT_CHARACTER));
}

#[test]
fn a_backtrace_is_cut_to_its_innermost_frames() {
    // A function that calls itself `depth` times, then traps.
    let frames = |depth: usize| {
        let wasm = guest(
            &plain(),
            "(func $down (param $left i32)
               (if (i32.eqz (local.get $left)) (then (unreachable)))
               (call $down (i32.sub (local.get $left) (i32.const 1))))",
            &format!("(call $down (i32.const {depth}))"),
        );
        let (mut room, _) = playing(&wasm);
        assert!(room.wake(ms(50)).is_fault());
        match room.fault() {
            Some(Fault::Trap(trap)) => trap.backtrace.clone(),
            other => panic!("{other:?}"),
        }
    };
    let shallow = frames(0);
    let [down, ..] = &shallow[..] else {
        panic!("no frames");
    };
    let of_down = |depth| {
        let backtrace = frames(depth);
        let of_down = backtrace.iter().take_while(|frame| *frame == down).count();
        (backtrace.len(), of_down)
    };
    // Around the frames of `down` there are those of `wake`.
    let around = shallow.len() - 1;
    let fits = TRAP_FRAMES_MAX - 1 - around;
    assert_eq!(of_down(fits), (TRAP_FRAMES_MAX, fits + 1));
    assert_eq!(of_down(fits + 1), (TRAP_FRAMES_MAX, fits + 2));
    assert_eq!(of_down(100), (TRAP_FRAMES_MAX, TRAP_FRAMES_MAX));
}

#[test]
fn lists_of_1024_entries_are_read_and_longer_ones_are_invalid() {
    // The error number is the callback's exit code.
    let errno = |name: &str, arguments: &str| {
        let wasm = guest(
            &plain(),
            &format!(
                r#"(import "wasi_snapshot_preview1" "{name}"
                     (func $wasi (param i32 i32 i32 i32) (result i32)))"#
            ),
            &format!("(return (call $wasi {arguments}))"),
        );
        let (mut room, _) = playing(&wasm);
        let _ = room.wake(ms(50));
        room.last_call().unwrap().exit
    };
    const INVAL: u32 = 28;
    // Empty pieces, and clocks that are due at once.
    for (count, expected) in [(1_024, 0), (1_025, INVAL)] {
        let count = format!("(i32.const {count})");
        let written = format!("(i32.const 1) (i32.const 64) {count} (i32.const 60_000)");
        assert_eq!(errno("fd_write", &written), expected, "{count}");
        let polled = format!("(i32.const 64) (i32.const 256) {count} (i32.const 60_000)");
        assert_eq!(errno("poll_oneoff", &polled), expected, "{count}");
    }
}

#[test]
fn a_roster_of_65533_members_is_told_and_one_more_does_not_get_in() {
    let most = usize::from(CTX_ROSTER_COUNT_MAX);
    assert_eq!(most, 65_533);
    let game = common::game(&guest(&plain(), "", ""));
    let mut room = game.room(RoomConfig::new(Seed::Set(7)), Box::new(NoServices));
    let _ = room.start(ms(0));
    let seen = Recorder::watching(&mut room);
    let told = || {
        let payloads = seen.take_payloads();
        let [payload] = &payloads[..] else {
            panic!("{} payloads", payloads.len());
        };
        let count = &payload[CTX_HEAD_BYTES..CTX_HEAD_BYTES + 2];
        usize::from(u16::from_le_bytes(count.try_into().unwrap()))
    };
    let player = |index: usize| Player::guest("", index.to_string());
    room.set_members((1..most).map(player).collect());
    assert!(matches!(room.wake(ms(50)), Outcome::Done(_)));
    assert_eq!(told(), most - 1);
    assert!(matches!(room.join(ms(100), player(most)), Outcome::Done(_)));
    assert_eq!(told(), most);

    let outcome = room.join(ms(150), player(most + 1));
    assert_eq!(outcome, Outcome::Skipped(Skip::RosterTooLarge));
    assert_eq!(room.members().len(), most);
    assert!(seen.take_payloads().is_empty());
    // The room goes on as it was, and the one who leaves counts as long as they are told.
    assert!(matches!(room.wake(ms(200)), Outcome::Done(_)));
    assert_eq!(told(), most);
    assert!(matches!(room.leave(ms(250), &player(1)), Outcome::Done(_)));
    assert_eq!(told(), most);
    assert!(matches!(
        room.join(ms(300), player(most + 1)),
        Outcome::Done(_)
    ));
    assert_eq!(told(), most);
}

#[test]
fn a_name_of_65535_bytes_is_told_and_a_longer_one_does_not_get_in() {
    let (mut room, _) = playing(&guest(&plain(), "", ""));
    let named = |bytes: usize| Player::guest("n".repeat(bytes), "c9");
    let outcome = room.join(ms(50), named(TEXT_BYTES_MAX + 1));
    assert_eq!(outcome, Outcome::Skipped(Skip::RosterTooLarge));
    assert_eq!(room.members().len(), 1);
    assert!(matches!(room.wake(ms(100)), Outcome::Done(_)));
    let outcome = room.join(ms(150), named(TEXT_BYTES_MAX));
    assert!(matches!(outcome, Outcome::Done(_)));
    assert_eq!(room.members().len(), 2);
}
