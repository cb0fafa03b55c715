//! What dropped games and rooms leave behind in the address space: nothing.
//!
//! Alone in their process and one after the other: they count what all of it has mapped.
#![cfg(target_os = "linux")]

mod common;

use std::sync::Mutex;

use cabinet_host::{Host, HostOptions, NoServices, Outcome, Snapshot};
use common::{WIDE, ada, guest, ms, options, plain, room};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn rooms_that_were_restored_and_dropped_leave_no_mappings_behind() {
    let _alone = ONE_AT_A_TIME.lock();
    let mut without_pool = HostOptions::default();
    without_pool.idle_memories = 0;
    let host = Host::new(without_pool).unwrap();
    let game = host.load(&guest(&plain(), "", ""), &options(WIDE)).unwrap();
    let (mut control, _) = room(&game);
    let _ = control.start(ms(0));
    let bytes = control.snapshot().unwrap().encode(1).unwrap();
    let snapshot = Snapshot::decode(&bytes, game.snapshot_bytes_max()).unwrap();
    let restore = || drop(game.restore(&snapshot, Box::new(NoServices)).unwrap());
    restore();
    let before = mappings("");
    for _ in 0..400 {
        restore();
    }
    // A room has two at least; the allocator may have taken a few of its own.
    let after = mappings("");
    assert!(after.count < before.count + 100, "{before:?}, {after:?}");
}

#[test]
fn code_goes_with_a_games_last_room() {
    let _alone = ONE_AT_A_TIME.lock();
    let host = common::host();
    let wasm = guest(&plain(), "", "");
    let play = || {
        let game = host.load(&wasm, &options(WIDE)).unwrap();
        let (mut room, _) = room(&game);
        drop(game);
        let code = mappings("x");
        assert!(matches!(room.start(ms(0)), Outcome::Done(_)));
        assert!(matches!(room.join(ms(0), ada()), Outcome::Done(_)));
        code
    };
    for _ in 0..10 {
        play();
    }
    let before = mappings("x");
    let during = play();
    assert!(during.bytes > before.bytes, "{during:?}: code is counted");
    for _ in 0..40 {
        play();
    }
    let after = mappings("x");
    assert!(after.bytes <= before.bytes, "{before:?}, {after:?}");
}

#[derive(Debug)]
struct Mappings {
    count: usize,
    bytes: u64,
}

/// This process's mappings that have the permission, a letter of `rwxp`.
fn mappings(permission: &str) -> Mappings {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let sizes: Vec<u64> = maps
        .lines()
        .filter_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let address = |text| u64::from_str_radix(text, 16).ok();
            rest.get(..4)?
                .contains(permission)
                .then_some(address(end)? - address(start)?)
        })
        .collect();
    Mappings {
        count: sizes.len(),
        bytes: sizes.iter().sum(),
    }
}
