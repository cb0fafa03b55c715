//! The runtime on its own threads: guests run there, handles wait without an executor of their own,
//! and everything ends when told to.

mod common;

use std::sync::Arc;
use std::time::Duration;

use cabinet_host::Input;
use cabinet_rooms::{EndReason, Listing, OpenError, Phase, RoomSpec, Runtime, RuntimeOptions};

use common::{Counts, block_on, game, list, player};

fn runtime(threads: usize) -> (Runtime, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let mut options = RuntimeOptions::default();
    options.threads = threads;
    options.recorder = counts.clone();
    (Runtime::new(options).unwrap(), counts)
}

#[test]
fn a_player_sees_frames_as_they_come() {
    let (runtime, _) = runtime(1);
    let listed = list(Listing::new(game("tour.wasm")));
    block_on(async {
        let room = runtime.open(&listed, RoomSpec::default()).unwrap();
        room.started().await.unwrap();
        let mut seat = room.join(player(1)).await.unwrap();
        let mut wakes = Vec::new();
        while wakes.len() < 5 {
            let view = seat.frames().next().await.unwrap();
            let row = view.frame.row_text(1);
            let count = row
                .split("wakes=")
                .nth(1)
                .unwrap()
                .split(' ')
                .next()
                .unwrap();
            wakes.push(count.parse::<u32>().unwrap());
        }
        assert!(wakes.is_sorted_by(|a, b| a < b), "{wakes:?}");
        seat.input(Input::Rune('e' as u32)).await.unwrap();
        assert_eq!(room.ended().await.reason, EndReason::Game);
        while seat.frames().next().await.is_some() {}
        assert_eq!(room.status().phase, Phase::Settled);
    });
}

#[test]
fn handles_work_on_an_executor_of_any_kind() {
    // No tokio here: futures are polled by a thread that parks.
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let (runtime, _) = runtime(2);
    let listed = list(Listing::new(game("tour.wasm")));
    let room = runtime.open(&listed, RoomSpec::default()).unwrap();
    let mut joined = std::pin::pin!(room.join(player(1)));
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut cx = std::task::Context::from_waker(&waker);
    let seat = loop {
        match joined.as_mut().poll(&mut cx) {
            std::task::Poll::Ready(seat) => break seat.unwrap(),
            std::task::Poll::Pending => std::thread::park(),
        }
    };
    assert_eq!(room.members().len(), 1);
    drop(seat);
}

#[test]
fn a_shutdown_settles_every_room_and_ends_the_threads() {
    let (runtime, counts) = runtime(2);
    let listed = list(Listing::new(game("tour.wasm")));
    block_on(async {
        let mut seats = Vec::new();
        let mut rooms = Vec::new();
        for n in 0..50 {
            let room = runtime.open(&listed, RoomSpec::default()).unwrap();
            seats.push(room.join(player(n)).await.unwrap());
            rooms.push(room);
        }
        assert_eq!(runtime.stats().rooms, 50);
        runtime.shutdown().await;
        for room in rooms {
            let ending = room.ending().unwrap();
            assert_eq!(ending.reason, EndReason::Closed);
            assert_eq!(ending.result.as_ref().unwrap().standings.len(), 1);
        }
        assert!(matches!(
            runtime.open(&listed, RoomSpec::default()),
            Err(OpenError::ShuttingDown)
        ));
    });
    assert!(runtime.join_threads(Duration::from_secs(60)));
    assert_eq!(runtime.stats().threads, 0);
    assert_eq!(counts.get("rooms"), 0);
    assert_eq!(counts.get("memory"), 0);
}

#[test]
fn a_runtime_that_is_dropped_tells_those_who_wait() {
    let (runtime, _) = runtime(1);
    let listed = list(Listing::new(game("tour.wasm")));
    let room = block_on(async {
        let room = runtime.open(&listed, RoomSpec::default()).unwrap();
        room.started().await.unwrap();
        room
    });
    drop(runtime);
    assert_eq!(block_on(room.ended()).reason, EndReason::Closed);
}

#[test]
fn a_hundred_rooms_share_one_thread_and_each_keeps_its_cadence() {
    let (runtime, counts) = runtime(1);
    let listed = list(Listing::new(game("tour.wasm")));
    block_on(async {
        let mut seats = Vec::new();
        for n in 0..100 {
            let room = runtime.open(&listed, RoomSpec::default()).unwrap();
            seats.push(room.join(player(n)).await.unwrap());
        }
        // Every one of them gets its turns.
        for _ in 0..3 {
            for seat in &mut seats {
                seat.frames().next().await.unwrap();
            }
        }
        runtime.shutdown().await;
    });
    assert_eq!(counts.get("fault"), 0);
    assert!(counts.get("callback wake") >= 100);
}
