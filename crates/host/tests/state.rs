//! A snapshot is complete: after every step of a script, the restored room equals an
//! uninterrupted control, bit for bit.

mod common;

use cabinet_host::{
    CaptureError, Game, Outcome, RestoreError, Room, RoomConfig, Seed, Slot, Snapshot,
};
use cabinet_wire::input::Input;
use cabinet_wire::{
    CTX_FEATURE_ROSTER_EPOCH, CTX_HEAD_BYTES, CTX_ROSTER_FULL, CTX_ROSTER_UNCHANGED,
};
use common::{ada, bob, ms, room};

type Step = fn(&mut Room) -> Outcome;

const SCRIPT: [Step; 12] = [
    |room| room.start(ms(0)),
    |room| room.join(ms(1), ada()),
    |room| room.wake(ms(50)),
    |room| room.input(ms(60), &ada(), Input::Rune('x' as u32)),
    |room| room.join(ms(70), bob()),
    |room| room.wake(ms(100)),
    |room| room.input(ms(110), &bob(), Input::Rune('h' as u32)),
    |room| room.leave(ms(120), &ada()),
    |room| room.wake(ms(150)),
    |room| room.join(ms(160), ada()),
    |room| room.wake(ms(200)),
    |room| room.wake(ms(250)),
];

/// For every step: capture after it, restore, play the rest on both, compare after each.
fn restored_rooms_equal_the_control(game: &Game) {
    for cut in 1..SCRIPT.len() {
        let (mut control, services) = room(game);
        for step in &SCRIPT[..cut] {
            assert!(matches!(step(&mut control), Outcome::Done(_)));
        }
        let captured = control.snapshot().unwrap();
        let bytes = captured.encode(1).unwrap();
        let decoded = Snapshot::decode(&bytes, 64 << 20).unwrap();
        assert_eq!(decoded, captured);
        let fork = services.fork();
        let mut restored = game.restore(&decoded, Box::new(fork.clone())).unwrap();
        assert_eq!(restored.snapshot().unwrap(), captured, "cut {cut}");
        services.take_frames();
        for (index, step) in SCRIPT.iter().enumerate().skip(cut) {
            let (left, right) = (step(&mut control), step(&mut restored));
            let at = format!("cut {cut}, step {index}");
            let (left, right) = (left.report().unwrap(), right.report().unwrap());
            assert_eq!(left.fuel, right.fuel, "{at}");
            assert_eq!(left.frames, right.frames, "{at}");
            assert_eq!(
                control.state_digest().unwrap(),
                restored.state_digest().unwrap(),
                "{at}"
            );
            assert!(control.same_guest_state(&mut restored).unwrap(), "{at}");
            assert_eq!(
                control.snapshot().unwrap(),
                restored.snapshot().unwrap(),
                "{at}"
            );
            let frames = |services: &cabinet_host::MemoryServices| {
                services
                    .take_frames()
                    .into_iter()
                    .map(|sent| (sent.member, cabinet_host::frame_bytes(&sent.frame)))
                    .collect::<Vec<_>>()
            };
            assert!(frames(&services) == frames(&fork), "{at}: frames differ");
        }
    }
}

#[test]
fn globals_of_all_six_types_and_a_changed_table_survive_after_every_step() {
    let game = common::game(&common::wat("ok-state.wat"));
    // The guest's state must really move, or the comparison below shows nothing.
    let (mut room, _) = room(&game);
    let mut seen = std::collections::BTreeSet::new();
    for step in &SCRIPT {
        assert!(matches!(step(&mut room), Outcome::Done(_)));
        let digest = room.state_digest().unwrap();
        seen.insert((digest.globals, digest.tables));
    }
    assert_eq!(seen.len(), SCRIPT.len(), "each step changes the state");
    restored_rooms_equal_the_control(&game);
}

#[test]
fn two_guests_are_the_same_exactly_when_their_digests_are() {
    let game = common::game(&common::wat("ok-state.wat"));
    let at = |steps: usize| {
        let (mut room, _) = room(&game);
        for step in &SCRIPT[..steps] {
            assert!(matches!(step(&mut room), Outcome::Done(_)));
        }
        room
    };
    for (left, right) in (1..SCRIPT.len()).flat_map(|l| (1..SCRIPT.len()).map(move |r| (l, r))) {
        let (mut left, mut right) = (at(left), at(right));
        let digests_are = left.state_digest().unwrap() == right.state_digest().unwrap();
        assert_eq!(left.same_guest_state(&mut right).unwrap(), digests_are);
    }
    let (mut unmade, _) = room(&game);
    assert!(matches!(
        at(1).same_guest_state(&mut unmade),
        Err(CaptureError::NotLive)
    ));
}

#[test]
fn guests_written_with_the_sdk_survive_after_every_step() {
    for name in ["tour.wasm", "crowd.wasm"] {
        restored_rooms_equal_the_control(&common::game(&common::fixture(name)));
    }
}

#[test]
fn a_restored_room_is_not_told_a_roster_it_knows() {
    let meta = cabinet_wire::meta::Meta {
        ctx_features: CTX_FEATURE_ROSTER_EPOCH,
        ..common::plain()
    };
    let game = common::game(&common::guest(&meta, "", ""));
    let (mut control, services) = room(&game);
    let form =
        |payload: &[u8]| u16::from_le_bytes([payload[CTX_HEAD_BYTES], payload[CTX_HEAD_BYTES + 1]]);
    let seen = common::Recorder::watching(&mut control);
    let _ = control.start(ms(0));
    let _ = control.join(ms(0), ada());
    let _ = control.wake(ms(50));
    let forms: Vec<_> = seen
        .take_payloads()
        .iter()
        .map(|payload| form(payload))
        .collect();
    assert_eq!(
        forms,
        [CTX_ROSTER_FULL, CTX_ROSTER_FULL, CTX_ROSTER_UNCHANGED]
    );

    let snapshot = control.snapshot().unwrap();
    let mut restored = game.restore(&snapshot, Box::new(services.fork())).unwrap();
    let seen_restored = common::Recorder::watching(&mut restored);
    let steps: [(Step, u16); 3] = [
        (|room| room.wake(ms(100)), CTX_ROSTER_UNCHANGED),
        (|room| room.join(ms(150), bob()), CTX_ROSTER_FULL),
        (|room| room.wake(ms(200)), CTX_ROSTER_UNCHANGED),
    ];
    for (step, expected) in steps {
        assert!(matches!(step(&mut control), Outcome::Done(_)));
        assert!(matches!(step(&mut restored), Outcome::Done(_)));
        let (left, right) = (seen.take_payloads(), seen_restored.take_payloads());
        assert_eq!(left, right);
        assert_eq!(form(&left[0]), expected);
    }

    // An `SCK1` blob does not say what the guest knows, so it is told everything once.
    let bytes = control.snapshot_sck1(3).unwrap();
    let blob = cabinet_host::Sck1::decode(&bytes, 64 << 20).unwrap();
    let mut back = game
        .restore_sck1(&blob, false, Box::new(services.fork()))
        .unwrap();
    let seen = common::Recorder::watching(&mut back);
    let _ = back.wake(ms(250));
    let _ = back.wake(ms(300));
    let forms: Vec<_> = seen
        .take_payloads()
        .iter()
        .map(|payload| form(payload))
        .collect();
    assert_eq!(forms, [CTX_ROSTER_FULL, CTX_ROSTER_UNCHANGED]);
}

#[test]
fn nan_bits_are_the_same_in_both_tiers() {
    let host = common::host();
    let wasm = common::wat("ok-nans.wat");
    let digests: Vec<_> = [cabinet_host::Tier::Speed, cabinet_host::Tier::Quick]
        .into_iter()
        .map(|tier| {
            let mut options = common::options(common::WIDE);
            options.tier = tier;
            let game = host.load(&wasm, &options).unwrap();
            assert_eq!(game.tier(), tier);
            let (mut room, _) = room(&game);
            for step in &SCRIPT {
                let _ = step(&mut room);
            }
            room.state_digest().unwrap()
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn a_snapshot_of_another_game_is_refused() {
    let tour = common::game(&common::fixture("tour.wasm"));
    let crowd = common::game(&common::fixture("crowd.wasm"));
    let (mut played, services) = room(&tour);
    let _ = played.start(ms(0));
    let snapshot = played.snapshot().unwrap();
    let error = crowd.restore(&snapshot, Box::new(services)).unwrap_err();
    assert!(matches!(error, RestoreError::ArtifactMismatch { .. }));
}

#[test]
fn a_snapshot_under_other_nan_rules_is_refused() {
    let host = common::host();
    let wasm = common::fixture("tour.wasm");
    let canonical = host.load(&wasm, &common::options(common::WIDE)).unwrap();
    let mut options = common::options(common::WIDE);
    options.canonical_nans = false;
    let native = host.load(&wasm, &options).unwrap();
    let (mut played, services) = room(&canonical);
    let _ = played.start(ms(0));
    let snapshot = played.snapshot().unwrap();
    let error = native.restore(&snapshot, Box::new(services)).unwrap_err();
    assert!(matches!(error, RestoreError::Incompatible(_)), "{error}");
}

#[test]
fn rooms_without_a_future_are_not_captured() {
    let game = common::game(&common::fixture("misbehave.wasm"));
    let (mut room, _) = room(&game);
    assert!(matches!(room.snapshot(), Err(CaptureError::NotLive)));
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    let _ = room.input(ms(1), &ada(), Input::Rune('u' as u32));
    assert!(room.dead());
    assert!(matches!(room.snapshot(), Err(CaptureError::Dead)));
    let _ = room.close(ms(2));
    assert!(matches!(room.snapshot(), Err(CaptureError::Dead)));
}

#[test]
fn an_sck1_blob_is_written_only_when_it_loses_nothing() {
    let state = common::game(&common::wat("ok-state.wat"));
    let (mut played, _) = room(&state);
    let _ = played.start(ms(0));
    let error = played.snapshot_sck1(3).unwrap_err();
    assert!(
        matches!(error, CaptureError::Lossy("changed globals")),
        "{error}"
    );

    let tour = common::game(&common::fixture("tour.wasm"));
    let mut drawn = tour.room(
        RoomConfig::new(Seed::Drawn(7)),
        Box::new(cabinet_host::NoServices),
    );
    let _ = drawn.start(ms(0));
    let error = drawn.snapshot_sck1(3).unwrap_err();
    assert!(matches!(error, CaptureError::Lossy(_)), "{error}");

    let (mut played, services) = room(&tour);
    let _ = played.start(ms(0));
    let _ = played.join(ms(1), ada());
    let blob = played.snapshot_sck1(3).unwrap();
    let decoded = cabinet_host::Sck1::decode(&blob, 64 << 20).unwrap();
    let mut back = tour
        .restore_sck1(&decoded, false, Box::new(services.fork()))
        .unwrap();
    let _ = played.wake(ms(100));
    let _ = back.wake(ms(100));
    let frame = |room: &Room| {
        room.frame(Slot::Broadcast)
            .map(|frame| common::lines(&frame))
    };
    assert_eq!(frame(&played), frame(&back));
}

#[test]
fn a_drawn_seed_and_the_clock_survive() {
    let game = common::game(&common::fixture("tour.wasm"));
    let mut room = game.room(
        RoomConfig::new(Seed::Drawn(7)),
        Box::new(cabinet_host::NoServices),
    );
    let _ = room.start(ms(1_000));
    let snapshot = room.snapshot().unwrap();
    let mut back = game
        .restore(&snapshot, Box::new(cabinet_host::NoServices))
        .unwrap();
    assert_eq!(back.config().seed, Seed::Drawn(7));
    // A host whose clock is behind does not turn the room's back.
    let _ = back.join(ms(0), ada());
    assert_eq!(back.now(), ms(1_000));
}

#[test]
fn characters_that_a_blob_has_no_place_for_are_no_change_of_roster() {
    let game = common::game(&common::fixture("tour.wasm"));
    assert_ne!(
        game.meta().ctx_features & 2,
        0,
        "a guest that sees characters"
    );
    let (mut played, services) = room(&game);
    let _ = played.start(ms(0));
    let _ = played.join(ms(1), ada());
    let blob = played.snapshot_sck1(3).unwrap();
    let blob = cabinet_host::Sck1::decode(&blob, 64 << 20).unwrap();
    let mut back = game
        .restore_sck1(&blob, false, Box::new(services.fork()))
        .unwrap();
    let figure = cabinet_host::Character {
        glyph: "λ".into(),
        ..Default::default()
    };
    back.set_members(vec![ada().with_character(figure.clone())]);
    // Also when it is saved and restored before anybody sees it.
    let saved = back.snapshot().unwrap();
    let mut back = game.restore(&saved, Box::new(services.fork())).unwrap();
    let bumped = back.epoch_seq();
    assert!(matches!(back.wake(ms(50)), Outcome::Done(_)));
    assert_eq!((back.roster_epoch(), back.epoch_seq()), (0, bumped));
    // From then on they count, as they are sent.
    let other = cabinet_host::Character {
        glyph: "μ".into(),
        ..figure.clone()
    };
    back.set_members(vec![ada().with_character(other)]);
    assert!(matches!(back.wake(ms(100)), Outcome::Done(_)));
    assert_eq!(back.roster_epoch(), 1);

    // Writing such a room as a blob would lose them.
    let error = back.snapshot_sck1(3).unwrap_err();
    assert!(
        matches!(error, CaptureError::Lossy("the players' characters")),
        "{error}"
    );
}
