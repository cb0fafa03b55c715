//! Reads that the disk does not answer: whoever asks goes on.

use std::sync::Arc;

use cabinet_host::{GameOptions, Host, HostOptions, Input, Player};

use super::*;
use crate::{Listing, Registry, RoomHandle, RoomSpec, Runtime, RuntimeOptions, Seat};

type Found = mpsc::Receiver<Result<Option<Vec<u8>>, ServiceError>>;

/// Asks for a value and does not wait.
fn look(store: &DurableStore, key: &str) -> Found {
    let (sender, receiver) = mpsc::channel();
    let reply = Reply::new(move |answer| drop(sender.send(answer)));
    KvStore::get(store, at(key), reply);
    receiver
}

fn look_up_config(store: &DurableStore, key: &[u8]) -> Found {
    let (sender, receiver) = mpsc::channel();
    let reply = Reply::new(move |answer| drop(sender.send(answer)));
    ConfigStore::get(store, "g", key, reply);
    receiver
}

/// A store that keeps nothing of its file in memory, where the value of `k` is `v`.
fn cold(options: &DurableOptions) -> (Disk, DurableStore) {
    let mut disk = Disk::fresh();
    disk.cache_bytes = 0;
    let store = disk.store(options);
    set(&store, "k", "v").unwrap();
    (disk, store)
}

#[test]
fn reads_that_hang_are_answered_when_the_disk_does_and_past_the_queue_refused_at_once() {
    let (disk, store) = cold(&DurableOptions {
        readers: 4,
        reads_max: 46,
        ..DurableOptions::default()
    });
    disk.reads.hold();
    // Each call returns, or this test hangs.
    let mut asked: Vec<_> = (0..4).map(|_| look(&store, "k")).collect();
    disk.reads.wait_for(4);
    asked.extend((0..45).map(|_| look(&store, "k")));
    let config = look_up_config(&store, b"k");
    let refused = look(&store, "k");
    assert!(is_unavailable(&refused.try_recv().unwrap()));
    let refused = look_up_config(&store, b"k");
    assert!(is_unavailable(&refused.try_recv().unwrap()));
    assert!(asked.iter().all(|answer| answer.try_recv().is_err()));
    assert_eq!(disk.reads.waiting(), 4);
    assert_eq!(store.stats().failed, None);
    disk.reads.release();
    for answer in asked {
        assert_eq!(answer.recv().unwrap(), Ok(Some(b"v".to_vec())));
    }
    assert_eq!(config.recv().unwrap(), Ok(None));
    assert_eq!(get(&store, "k"), Ok(Some(b"v".to_vec())));
}

#[test]
fn closing_answers_reads_that_wait() {
    let (disk, store) = cold(&DurableOptions::default());
    disk.reads.hold();
    let asked: Vec<_> = (0..20).map(|_| look(&store, "k")).collect();
    disk.reads.wait_for(1);
    disk.reads.release();
    store.close();
    for answer in asked {
        // No waiting: closing did.
        assert_eq!(answer.try_recv().unwrap(), Ok(Some(b"v".to_vec())));
    }
}

fn open(runtime: &Runtime, listed: &Arc<crate::Listed>, spec: RoomSpec) -> (RoomHandle, Seat) {
    block_on(async {
        let room = runtime.open(listed, spec).unwrap();
        let seat = room.join(Player::member("a1", "ada", "c1")).await.unwrap();
        (room, seat)
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

#[test]
fn fifty_rooms_that_wait_for_a_hung_disk_leave_the_only_thread_to_the_others() {
    let (disk, store) = cold(&DurableOptions::default());
    let wide = std::time::Duration::from_secs(60);
    let host = Host::new(HostOptions::default()).unwrap();
    let mut game = GameOptions::default();
    game.deadline = wide;
    game.io_ceiling = wide;
    let wasm = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tour.wasm");
    let game = host.load(&std::fs::read(wasm).unwrap(), &game).unwrap();
    let listed = Registry::new().add(Listing::new(game)).unwrap();
    let options = RuntimeOptions {
        threads: 1,
        heavy_threads: 1,
        store_timeout: wide,
        ..RuntimeOptions::default()
    };
    let runtime = Runtime::new(options).unwrap();

    let mut spec = RoomSpec::default();
    spec.services.kv = Some(Arc::new(store.clone()));
    let mut rooms: Vec<_> = (0..50)
        .map(|_| open(&runtime, &listed, spec.clone()))
        .collect();
    let (_other, mut other) = open(&runtime, &listed, RoomSpec::default());
    disk.reads.hold();
    for (_, seat) in &rooms {
        // The tour reads a value when it is told to.
        block_on(seat.input(Input::Rune('k' as u32))).unwrap();
    }
    disk.reads.wait_for(4);
    while runtime.stats().waiting < 50 {
        // The tour draws when it wakes.
        block_on(other.frames().next()).unwrap();
    }
    for _ in 0..5 {
        block_on(other.frames().next()).unwrap();
    }
    assert_eq!(runtime.stats().waiting, 50);
    disk.reads.release();
    for (room, seat) in &mut rooms {
        // Which visit it is depends on who was answered first: they share the account.
        let visited = |row: &str| row.contains("visits ") && row.contains(" Ok");
        while !visited(&seat.frames().frame().row_text(4)) {
            block_on(seat.frames().next()).unwrap();
        }
        assert!(room.ending().is_none());
    }
    block_on(runtime.shutdown());
    assert!(runtime.join_threads(wide));
}
