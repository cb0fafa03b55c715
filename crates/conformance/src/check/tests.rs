//! Every verdict made to fail once, by a guest that does what the verdict is there to catch, and a
//! guest that passes them all.
//!
//! Replay and compiler determinism cannot be broken from inside the sandbox, so there the defect is
//! planted: the room beside the control is given another seed, or another game.

use cabinet_host::HostOptions;

use super::*;
use crate::testing::{COUNT, ECHO, guest, guest_with_start, host};
use crate::verdict::{Judgement, Verdict};

/// Options under which a slow machine fails no latency verdict.
fn patient() -> CheckOptions {
    let mut options = CheckOptions::default();
    options.game.deadline = Duration::from_secs(60);
    options
}

fn checked(wasm: &[u8], options: &CheckOptions, script: &str) -> Report {
    check(
        &host(),
        wasm,
        options,
        Some(&Script::parse(script).unwrap()),
    )
    .unwrap()
}

fn failed(report: &Report) -> Vec<&'static str> {
    report
        .verdicts
        .iter()
        .filter(|verdict| !verdict.ok())
        .map(|verdict| verdict.name)
        .collect()
}

fn verdict<'a>(report: &'a Report, name: &str) -> &'a Verdict {
    report.verdict(name).unwrap()
}

#[test]
fn a_guest_that_keeps_its_promises_passes_every_verdict() {
    let report = checked(
        &guest(COUNT, ECHO),
        &patient(),
        "join 0\nwake +50ms\nshot before\nsnapshot\nadvance 1s\nwake\ninput 0 'x'\nshot after\nclose",
    );
    assert!(report.ok, "{report}");
    assert!(failed(&report).is_empty());
    let judgements = report.verdicts.iter().map(|verdict| verdict.judgement);
    assert!(judgements.eq([Judgement::Pass; 6]), "{report}");
    let names: Vec<_> = report.verdicts.iter().map(|verdict| verdict.name).collect();
    assert_eq!(
        names,
        [
            "guest fault",
            "callback latency",
            "linear memory",
            "hibernation determinism",
            "replay determinism",
            "compiler determinism",
        ]
    );
    let verdict = verdict(&report, "hibernation determinism");
    assert_eq!(verdict.measured, "same after 9 steps");

    let row = &report.steps[2];
    assert_eq!(
        (row.what.as_str(), row.callback, row.exit),
        ("wake +50ms", Some("wake"), Some(0))
    );
    assert_eq!(
        (row.frames, row.bytes_out, row.memory_bytes),
        (1, 37, 65_536)
    );
    assert_eq!(row.host_calls["identical"], 1);
    assert!(row.fuel > 0 && row.latency_ns == row.guest_ns + row.host_ns);
    assert!(report.steps[4].snapshot_bytes.is_some());
    assert_eq!(report.steps[5].what, "advance 1s");
    assert_eq!(report.steps[5].callback, None);
    let close = &report.steps[9];
    assert_eq!(close.callback, Some("close"));
    assert_eq!(close.memory_bytes, 0, "a closed room has no instance");
    assert_eq!(report.headroom.deadline_ns, 60_000_000_000);
    assert_eq!(report.headroom.memory_peak_bytes, 65_536);

    assert_eq!(
        (report.shots[0].name.as_str(), report.shots[0].step),
        ("before", 3)
    );
    assert_eq!(report.shots[0].seats[0].rows[0], "A");
    assert_eq!(report.shots[1].seats[0].rows[0], "x");
}

#[test]
fn a_trap_fails_the_guest_fault_verdict_at_its_step() {
    let trap = "(if (i32.eq (local.get $rune) (i32.const 116)) (then unreachable)) (i32.const 65)";
    let script = "join 0\ninput 0 'a'\ninput 0 't'\nwake";
    let report = checked(&guest(COUNT, trap), &patient(), script);
    assert_eq!(failed(&report), ["guest fault"], "{report}");
    let found = verdict(&report, "guest fault");
    assert_eq!(
        (found.limit.as_str(), found.measured.as_str()),
        ("no fault", "trap, exit 1")
    );
    assert_eq!(found.step, Some(3));
    assert!(
        found.detail.starts_with("guest trap: unreachable"),
        "{}",
        found.detail
    );
    assert_eq!(
        report.steps.len(),
        4,
        "the step after the fault is not taken"
    );
    assert!(
        report
            .to_string()
            .contains("the room died: 1 step of the script not taken")
    );
    assert_eq!(
        verdict(&report, "hibernation determinism").judgement,
        Judgement::NotChecked
    );
    assert_eq!(
        verdict(&report, "replay determinism").measured,
        "same after 3 steps",
        "it died there and then again"
    );
}

#[test]
fn a_room_that_dies_before_its_first_snapshot_has_not_hibernated() {
    let report = checked(
        &guest(COUNT, "unreachable"),
        &patient(),
        "join 0\ninput 0 't'\nsnapshot",
    );
    assert_eq!(failed(&report), ["guest fault"], "{report}");
    let found = verdict(&report, "hibernation determinism");
    assert_eq!(found.judgement, Judgement::NotChecked, "{report}");
    assert_eq!(found.detail, "no snapshot step found the room alive");
    assert_eq!(report.tally.not_checked, 1);
    assert!(
        report
            .to_string()
            .ends_with("w: 4 verdicts within limits, 1 outside, 1 not checked\n"),
        "{report}"
    );
}

#[test]
fn a_start_stopped_by_the_clock_leaves_nothing_to_compare() {
    let wasm = guest_with_start(COUNT, ECHO, "(loop $for_ever (br $for_ever)) unreachable");
    let script = "deadline 200ms\njoin 0\nsnapshot\nwake";
    let report = checked(&wasm, &CheckOptions::default(), script);
    assert_eq!(
        failed(&report),
        ["guest fault", "callback latency"],
        "{report}"
    );
    assert_eq!(verdict(&report, "guest fault").step, Some(0));
    for name in [
        "hibernation determinism",
        "replay determinism",
        "compiler determinism",
    ] {
        let found = verdict(&report, name);
        assert_eq!(found.judgement, Judgement::NotChecked, "{report}");
    }
    assert_eq!(report.tally.not_checked, 3);
}

#[test]
fn a_start_that_traps_is_compared_and_no_more() {
    let wasm = guest_with_start(COUNT, ECHO, "unreachable");
    let report = checked(&wasm, &patient(), "join 0\nsnapshot");
    assert_eq!(failed(&report), ["guest fault"], "{report}");
    let measured = |name| verdict(&report, name).measured.as_str();
    assert_eq!(measured("replay determinism"), "same after start");
    assert_eq!(measured("hibernation determinism"), "not checked");
}

#[test]
fn a_snapshot_of_a_closed_room_has_nothing_to_save() {
    // No script file says this; a script built in code may.
    let mut script = Script::parse("join 0\nwake\nclose").unwrap();
    script.steps.push(Step::Snapshot);
    let report = check(&host(), &guest(COUNT, ECHO), &patient(), Some(&script)).unwrap();
    assert!(report.ok, "{report}");
    let found = verdict(&report, "hibernation determinism");
    assert_eq!(found.judgement, Judgement::NotChecked, "{report}");
}

#[test]
fn a_tier_that_refuses_the_game_is_a_failure() {
    let script = Script::parse("join 0\nwake").unwrap();
    let options = patient().game;
    let game = host().load(&guest(COUNT, ECHO), &options).unwrap();
    // What one tier refuses and the other takes is a defect of ours, so it is planted.
    let refused = host().load(b"\0asm\x01\0\0\0", &other_options(&options));
    let Err(why) = other_tier(&options, &game, refused) else {
        panic!("an empty module is no game");
    };
    let report = planted_beside(
        &script,
        &game,
        [
            Beside::new("replay", Lane::new(&game, &script, None, Keep::Counts)),
            Beside::stopped("room on the other tier", why),
        ],
    );
    assert_eq!(failed(&report), ["compiler determinism"], "{report}");
    let found = verdict(&report, "compiler determinism");
    assert_eq!((found.measured.as_str(), found.step), ("refused", None));
    assert!(
        found
            .detail
            .starts_with("the other tier refused the game: "),
        "{}",
        found.detail
    );
}

#[test]
fn a_game_too_costly_for_speed_is_not_compared_and_the_report_warns_of_it() {
    let mut options = HostOptions::default();
    options.limits.cost_speed_max = 0;
    options.limits.cost_speed_total_max = 0;
    let host = Host::new(options).unwrap();
    let script = Script::parse("join 0\nwake").unwrap();
    let report = check(&host, &guest(COUNT, ECHO), &patient(), Some(&script)).unwrap();
    assert!(report.ok, "{report}");
    let found = verdict(&report, "compiler determinism");
    assert_eq!(found.judgement, Judgement::NotChecked, "{report}");
    let [warning] = report.game.warnings.as_slice() else {
        panic!("{report}")
    };
    assert!(
        report
            .to_string()
            .contains(&format!("\nwarning: {warning}\n"))
    );
}

#[test]
fn a_room_keeps_the_deadline_its_game_was_loaded_with_through_either_kind_of_snapshot() {
    let wasm = guest("(i32.const 65)", ECHO);
    let script = Script::parse("deadline 10s\njoin 0\nsnapshot\nwake").unwrap();
    let game = host().load(&wasm, &patient().game).unwrap();
    for how in [Restore::Complete, Restore::Sck1] {
        let mut lane = Lane::new(&game, &script, None, Keep::Counts);
        lane.start();
        lane.hibernate(how).unwrap();
        assert_eq!(lane.room.deadline(), Duration::from_secs(60));

        let options = CheckOptions {
            hibernate: how,
            ..patient()
        };
        let report = check(&host(), &wasm, &options, Some(&script)).unwrap();
        let found = verdict(&report, "hibernation determinism");
        assert_eq!(found.measured, "same after 3 steps", "{report}");
        // What is measured has the script's.
        assert_eq!(report.headroom.deadline_ns, 10_000_000_000);
    }
}

#[test]
fn endless_work_fails_the_latency_verdict_at_its_step() {
    let spin = "(loop $for_ever (br $for_ever)) unreachable";
    let script = "deadline 500ms\njoin 0\nwake\ninput 0 'l'";
    let report = checked(&guest(COUNT, spin), &CheckOptions::default(), script);
    assert_eq!(
        failed(&report),
        ["guest fault", "callback latency"],
        "{report}"
    );
    let found = verdict(&report, "callback latency");
    assert_eq!((found.limit.as_str(), found.step), ("under 500ms", Some(3)));
    assert!(report.headroom.latency_max_ns >= 500_000_000, "{report}");
    assert_eq!(
        found.measured,
        crate::units::Time(Duration::from_nanos(report.headroom.latency_max_ns)).to_string()
    );
    let fault = verdict(&report, "guest fault");
    assert_eq!(fault.measured, "deadline, exit 4026531839");
}

#[test]
fn memory_grown_to_the_cap_fails_the_memory_verdict_at_the_step_that_grew_it() {
    let grow = "(drop (memory.grow (i32.const 23))) (i32.const 65)";
    let script = "memory-pages 24\njoin 0\nwake\ninput 0 'm'\nwake";
    let report = checked(&guest(COUNT, grow), &patient(), script);
    assert_eq!(failed(&report), ["linear memory"], "{report}");
    let found = verdict(&report, "linear memory");
    assert_eq!(
        (found.limit.as_str(), found.measured.as_str()),
        ("under 1.5 MiB", "1.5 MiB")
    );
    assert_eq!(found.step, Some(3));
}

#[test]
fn a_snapshot_that_cannot_be_taken_fails_the_hibernation_verdict() {
    // The reference's blob has no place for globals.
    let options = CheckOptions {
        hibernate: Restore::Sck1,
        ..patient()
    };
    let report = checked(
        &guest(COUNT, ECHO),
        &options,
        "join 0\nwake\nsnapshot\nwake",
    );
    assert_eq!(failed(&report), ["hibernation determinism"], "{report}");
    let found = verdict(&report, "hibernation determinism");
    assert_eq!(found.limit, "same as unsaved");
    assert_eq!(
        (found.measured.as_str(), found.step),
        ("snapshot failed", Some(3))
    );
    assert!(
        found.detail.starts_with("the room could not be saved: "),
        "{}",
        found.detail
    );
}

#[test]
fn a_guest_that_shows_what_a_restore_changes_fails_the_hibernation_verdict() {
    // A malformed broadcast is answered with the next epoch, and the reference's restore moves
    // epochs on by two.
    let epoch =
        "(i32.add (i32.const 64) (i32.wrap_i64 (call $identical (call $alloc (i64.const 1)))))";
    let script = "join 0\nwake\nsnapshot\nadvance 1s\nwake";
    let options = CheckOptions {
        hibernate: Restore::Sck1,
        ..patient()
    };
    let report = checked(&guest(epoch, ECHO), &options, script);
    assert_eq!(failed(&report), ["hibernation determinism"], "{report}");
    let found = verdict(&report, "hibernation determinism");
    assert_eq!(
        (found.measured.as_str(), found.step),
        ("different frames", Some(5))
    );
    assert_eq!(
        found.detail,
        "frame 1 of the step, to everyone, differs at row 0, column 0: the control shows \"D\", the \
         restored room \"F\""
    );
    // Our own snapshots change nothing.
    let report = checked(&guest(epoch, ECHO), &patient(), script);
    assert!(report.ok, "{report}");
}

/// Checks `control` with `replayed` and `recompiled` in the places of the rooms beside it.
fn planted(script: &Script, control: &Game, replayed: Lane, recompiled: Lane) -> Report {
    let beside = [
        Beside::new("replay", replayed),
        Beside::new("room on the other tier", recompiled),
    ];
    planted_beside(script, control, beside)
}

fn planted_beside(script: &Script, control: &Game, beside: [Beside; 2]) -> Report {
    let [replayed, recompiled] = beside;
    let mut run = Run {
        script,
        rows: Vec::new(),
        shots: Vec::new(),
        fault: None,
        beside: [
            Beside::not_checked("restored room", "not part of this test"),
            replayed,
            recompiled,
        ],
    };
    run.drive(&mut Lane::new(control, script, None, Keep::Counts));
    run.report(control, patient().game.deadline, false)
}

#[test]
fn another_history_fails_the_replay_verdict_where_it_parts() {
    let random = "(drop (call $random_get (i32.const 16) (i32.const 8)))
        (i32.add (i32.const 65) (i32.and (i32.load8_u (i32.const 16)) (i32.const 15)))";
    let script = Script::parse("join 0\ninput 0 'x'\nwake\nwake").unwrap();
    let mut reseeded = script.clone();
    reseeded.setup.seed += 1;
    let game = host().load(&guest(random, ECHO), &patient().game).unwrap();
    let lane = |script| Lane::new(&game, script, None, Keep::Counts);
    let report = planted(&script, &game, lane(&reseeded), lane(&script));
    assert_eq!(failed(&report), ["replay determinism"], "{report}");
    let found = verdict(&report, "replay determinism");
    // The seed is in every callback's context, but the guest looks at randomness at step 3 first.
    assert_eq!((found.limit.as_str(), found.step), ("same again", Some(3)));
    assert_eq!(found.measured, "different frames");
    assert!(
        found
            .detail
            .contains("at row 0, column 0: the control shows"),
        "{}",
        found.detail
    );
}

#[test]
fn another_history_on_the_other_tier_fails_the_compiler_verdict_where_it_parts() {
    let other = "(i32.add (i32.const 1) (local.get $rune))";
    let script = Script::parse("join 0\nwake\ninput 0 'x'\nwake").unwrap();
    let options = patient().game;
    let game = host().load(&guest(COUNT, ECHO), &options).unwrap();
    let twin = host().load(&guest(COUNT, other), &options).unwrap();
    let report = planted(
        &script,
        &game,
        Lane::new(&game, &script, None, Keep::Counts),
        Lane::new(&twin, &script, None, Keep::Counts),
    );
    assert_eq!(failed(&report), ["compiler determinism"], "{report}");
    let found = verdict(&report, "compiler determinism");
    assert_eq!(
        (found.limit.as_str(), found.step),
        ("same on both tiers", Some(3))
    );
    assert_eq!(
        found.detail,
        "frame 1 of the step, to everyone, differs at row 0, column 0: the control shows \"x\", the \
         room on the other tier \"y\""
    );
}

#[test]
fn a_missing_leaderboard_fails_only_when_it_is_asked_for() {
    let wasm = guest(COUNT, ECHO);
    assert!(
        checked(&wasm, &patient(), "join 0")
            .verdict("leaderboard declared")
            .is_none()
    );
    let options = CheckOptions {
        require_leaderboard: true,
        ..patient()
    };
    let report = checked(&wasm, &options, "join 0");
    assert_eq!(failed(&report), ["leaderboard declared"], "{report}");
    let found = verdict(&report, "leaderboard declared");
    assert_eq!(
        (found.limit.as_str(), found.measured.as_str()),
        ("declared", "missing")
    );
    assert_eq!(found.step, None);
}

#[test]
fn an_artifact_the_host_refuses_is_an_error_and_no_report() {
    let refused = check(&host(), b"\0asm\x01\0\0\0", &CheckOptions::default(), None);
    assert!(matches!(refused, Err(CheckError::Load(_))));
}

#[test]
fn a_step_the_room_refuses_is_told_and_is_no_failure() {
    let report = checked(
        &guest(COUNT, ECHO),
        &patient(),
        "wake\nleave 3\njoin 0\njoin 0",
    );
    assert!(report.ok, "{report}");
    let skipped: Vec<_> = report
        .steps
        .iter()
        .map(|row| row.skipped.as_deref())
        .collect();
    assert_eq!(
        skipped,
        [
            None,
            Some("nobody is in the room"),
            Some("the player is not in the room"),
            None,
            Some("the player is in the room"),
        ]
    );
}
