//! One room by hand: order, rosters, clock, limits, services.

mod common;

use std::time::Duration;

use cabinet_host::{
    Fault, Game, GameOptions, Host, HostOptions, MemoryServices, Outcome, Player, Room, RoomConfig,
    Seed, Skip, Slot, TrapKind,
};
use cabinet_wire::Mode;
use cabinet_wire::input::Input;
use common::{Asked, KV_GET, READS_A_KEY, SHORT, WIDE, ada, ms, options, plain, room};

fn misbehave(deadline: Duration) -> Game {
    misbehave_with(&options(deadline))
}

fn misbehave_with(options: &GameOptions) -> Game {
    common::host()
        .load(&common::fixture("misbehave.wasm"), options)
        .unwrap()
}

/// A new room of the game in which ada has typed one misdeed, and how that ended.
fn misdeed_in(game: &Game, misdeed: char) -> (Room, Outcome) {
    let (mut room, _) = room(game);
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    let outcome = room.input(ms(1), &ada(), rune(misdeed));
    (room, outcome)
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
        let game = misbehave_with(&with);
        let (room, outcome) = misdeed_in(&game, misdeed);
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
        let game = misbehave_with(&with);
        for misdeed in ['t', 'n', 's', 'm', 'R'] {
            let (mut room, outcome) = misdeed_in(&game, misdeed);
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
    let (mut room, _) = misdeed_in(&misbehave(WIDE), '/');
    let Some(Fault::Trap(trap)) = room.fault() else {
        panic!("{:?}", room.fault());
    };
    assert_eq!(trap.kind, TrapKind::DivisionByZero);
    assert!(!trap.backtrace.is_empty());
    let _ = room.close(ms(2));

    let (room, _) = misdeed_in(&misbehave(WIDE), 'd');
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
            let game = misbehave_with(&with);
            let (mut room, outcome) = misdeed_in(&game, 'd');
            (outcome.report().unwrap().fuel, room.state_digest().unwrap())
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn memory_growth_stops_at_the_cap() {
    let mut with = options(WIDE);
    with.memory_pages_max = 80;
    let game = misbehave_with(&with);
    let (room, grown) = misdeed_in(&game, 'g');
    assert!(matches!(grown, Outcome::Done(_)), "{:?}", room.fault());
    assert_eq!(room.memory_bytes(), 80 * 65_536);
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

/// A room over a store that does this when asked, after a wake that asked it.
fn asked(store: fn(), deadline: Duration) -> Room {
    let game = common::host()
        .load(
            &common::guest(&plain(), KV_GET, READS_A_KEY),
            &options(deadline),
        )
        .unwrap();
    let mut room = game.room(RoomConfig::new(Seed::Set(1)), Box::new(Asked(store)));
    let _ = room.start(ms(0));
    let _ = room.join(ms(0), ada());
    let _ = room.wake(ms(50));
    room
}

#[test]
fn waiting_for_a_store_does_not_count_against_the_guests_deadline() {
    // That time passes without being charged cannot be shown without letting it pass. Only the
    // sleep is sure to outlast the deadline: the guest's own work is microseconds.
    const LONGER: Duration = SHORT.saturating_add(Duration::from_millis(50));
    let room = asked(|| std::thread::sleep(LONGER), SHORT);
    assert_eq!(room.fault(), None);
    // Not all of it on a machine so busy that nobody looked in the meantime.
    assert!(room.last_call().unwrap().io_time > Duration::ZERO);
}

#[test]
fn a_panicking_store_is_a_host_bug_and_kills_one_room_only() {
    let room = asked(|| panic!("a store's bug"), WIDE);
    let fault = room.fault().unwrap();
    assert!(
        matches!(fault, Fault::HostBug { message } if message == "a service panicked: a store's bug"),
        "{fault}"
    );
    assert!(!fault.is_guests());
    let room = asked(|| {}, WIDE);
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
