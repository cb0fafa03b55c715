//! Callers on real threads that want different things of one room at once: every call returns, and
//! what it says is true.

mod common;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use cabinet_host::{Input, Snapshot};
use cabinet_rooms::{
    Captured, CheckpointError, EndReason, HibernateError, InputError, JoinError, Listed, Listing,
    Parking, Phase, Reply, Resume, RoomHandle, RoomId, RoomSpec, Runtime, RuntimeOptions,
};
use cabinet_wire::Lifecycle;

use common::{Counts, WIDE, block_on, by_hand, game, list, player};

/// Takes every room, at once.
#[derive(Default)]
struct Garage(Mutex<BTreeMap<RoomId, Snapshot>>);

impl Garage {
    fn take(&self, id: RoomId) -> Option<Snapshot> {
        self.0.lock().unwrap().remove(&id)
    }
}

impl Parking for Garage {
    fn park(&self, parked: Captured, reply: Reply<()>) {
        let mut rooms = self.0.lock().unwrap();
        rooms.insert(parked.room, parked.snapshot);
        drop(rooms);
        reply.send(Ok(()));
    }
}

/// A runtime with threads, one game, somewhere to park.
struct Bench {
    runtime: Runtime,
    counts: Arc<Counts>,
    listed: Arc<Listed>,
    garage: Arc<Garage>,
}

impl Bench {
    fn new() -> Self {
        let counts = Arc::new(Counts::default());
        let mut options = RuntimeOptions::default();
        options.recorder = counts.clone();
        options.threads = 2;
        let listing = Listing::new(game("tour.wasm"))
            .with_lifecycle(Lifecycle::Resumable)
            .with_capacity(8);
        Self {
            runtime: Runtime::new(options).unwrap(),
            counts,
            listed: list(listing),
            garage: Arc::default(),
        }
    }

    fn spec(&self) -> RoomSpec {
        let mut spec = RoomSpec::default();
        spec.seed = Some(7);
        spec.parking = Some(self.garage.clone());
        spec
    }

    fn open(&self) -> RoomHandle {
        self.runtime.open(&self.listed, self.spec()).unwrap()
    }

    /// Closes what is open; nothing is left.
    fn end(self) {
        block_on(self.runtime.shutdown());
        assert!(self.runtime.join_threads(WIDE));
        assert_eq!(self.counts.get("rooms"), 0);
        assert_eq!(self.counts.get("memory"), 0);
        assert_eq!(self.counts.get("host fault"), 0);
        assert_eq!(self.runtime.stats().rooms, 0);
    }
}

/// Starts both at the same time, on threads of their own, and waits for both.
fn race<A: Send, B: Send>(
    one: impl FnOnce() -> A + Send,
    other: impl FnOnce() -> B + Send,
) -> (A, B) {
    let start = Barrier::new(2);
    thread::scope(|scope| {
        let one = scope.spawn(|| {
            start.wait();
            one()
        });
        start.wait();
        let other = other();
        (one.join().unwrap(), other)
    })
}

#[test]
fn every_call_returns_when_checkpoint_hibernate_and_close_race() {
    let bench = Bench::new();
    let (mut parked, mut settled) = (0, 0);
    for round in 0..40 {
        let room = bench.open();
        let _seat = block_on(room.join(player(1))).unwrap();
        let ((captured, again), hibernated) = race(
            || {
                let captured = block_on(room.checkpoint());
                (captured, block_on(room.checkpoint()))
            },
            || {
                let mut close = Some(thread::spawn({
                    let room = room.clone();
                    move || room.close()
                }));
                if round % 2 == 0 {
                    close.take().unwrap().join().unwrap();
                }
                let hibernated = block_on(room.hibernate());
                if let Some(close) = close {
                    close.join().unwrap();
                }
                hibernated
            },
        );
        for captured in [captured, again] {
            assert!(matches!(captured, Ok(_) | Err(CheckpointError::Closed)));
        }
        let ending = block_on(room.ended());
        match hibernated {
            Ok(()) => {
                assert_eq!(ending.reason, EndReason::Hibernated);
                assert!(bench.garage.take(room.id()).is_some());
                parked += 1;
            }
            Err(HibernateError::Closed) => {
                assert_eq!(ending.reason, EndReason::Closed);
                assert_eq!(ending.result.as_ref().unwrap().standings.len(), 1);
                settled += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(parked + settled, 40);
    bench.end();
}

#[test]
fn a_hibernation_that_was_done_is_never_told_as_closed_and_the_room_can_be_had_back() {
    let bench = Bench::new();
    for _ in 0..200 {
        let room = bench.open();
        let id = room.id();
        let other = room.clone();
        let (first, second) = race(
            || block_on(room.hibernate()),
            || block_on(other.hibernate()),
        );
        // One of the two was done.
        let told = [first, second].map(|told| match told {
            Ok(()) => true,
            Err(HibernateError::Closed) => false,
            Err(error) => panic!("{error}"),
        });
        assert_eq!(told.iter().filter(|done| **done).count(), 1);
        assert_eq!(room.status().phase, Phase::Hibernated);
        assert!(bench.garage.take(id).is_some());
    }
    bench.end();
}

#[test]
fn a_room_that_was_told_to_be_hibernated_can_be_resumed_at_once() {
    let bench = Bench::new();
    let mut room = bench.open();
    for round in 0..200 {
        let id = room.id();
        // Whether one waits for the request or for the end, the id is free then.
        if round % 2 == 0 {
            block_on(room.hibernate()).unwrap();
        } else {
            let other = room.clone();
            let (told, ending) = race(
                || block_on(room.hibernate()),
                || loop {
                    // As somebody sees it who does not wait to be woken.
                    if let Some(ending) = other.ending() {
                        break ending;
                    }
                    thread::yield_now();
                },
            );
            assert_eq!(ending.reason, EndReason::Hibernated);
            told.unwrap();
        }
        assert!(room.ending().is_some());
        assert!(bench.runtime.find(id).is_none());
        let snapshot = Box::new(bench.garage.take(id).unwrap());
        let mut spec = bench.spec();
        spec.id = Some(id);
        room = bench
            .runtime
            .resume(&bench.listed, Resume::Snapshot(snapshot), spec)
            .unwrap();
    }
    bench.end();
}

#[test]
fn a_join_queued_behind_the_end_is_told_that_the_room_is_closed() {
    let bench = Bench::new();
    for round in 0..60 {
        let room = bench.open();
        let (joined, ()) = race(
            || {
                let joins = (0..8).map(|n| block_on(room.join(player(n))).map(drop));
                joins.collect::<Vec<_>>()
            },
            || match round % 2 {
                0 => room.close(),
                _ => match block_on(room.hibernate()) {
                    Ok(()) | Err(HibernateError::Closed) => {}
                    Err(error) => panic!("{error}"),
                },
            },
        );
        let refused = joined.iter().position(Result::is_err).unwrap_or(8);
        assert!(
            joined[refused..]
                .iter()
                .all(|told| *told == Err(JoinError::Closed))
        );
        let ending = block_on(room.ended());
        if let Some(result) = &ending.result {
            assert_eq!(result.standings.len(), refused);
        }
        assert_eq!(
            block_on(room.join(player(9))).unwrap_err(),
            JoinError::Closed
        );
    }
    bench.end();
}

#[test]
fn a_room_ends_cleanly_while_its_players_type() {
    let bench = Bench::new();
    for round in 0..20 {
        let room = bench.open();
        let seats: Vec<_> = (0..4)
            .map(|n| block_on(room.join(player(n))).unwrap())
            .collect();
        thread::scope(|scope| {
            for seat in &seats {
                scope.spawn(move || {
                    // Until the room is gone: a key waits for a free place or is refused.
                    let mut typed = 0;
                    loop {
                        match block_on(seat.input(Input::Rune('h' as u32))) {
                            Ok(()) => typed += 1,
                            Err(error) => {
                                assert_eq!(error, InputError::Closed);
                                return typed;
                            }
                        }
                    }
                });
            }
            if round % 2 == 0 {
                room.close();
            } else {
                block_on(room.hibernate()).unwrap();
            }
        });
        let ending = block_on(room.ended());
        let standings = ending.result.as_ref().map(|result| result.standings.len());
        assert_eq!(standings, (round % 2 == 0).then_some(4));
    }
    bench.end();
}

#[test]
fn a_runtime_shuts_down_while_callers_open_join_and_type() {
    let bench = Bench::new();
    thread::scope(|scope| {
        for caller in 0..4 {
            let bench = &bench;
            scope.spawn(move || {
                while let Ok(room) = bench.runtime.open(&bench.listed, bench.spec()) {
                    if let Ok(seat) = block_on(room.join(player(caller))) {
                        // Refused when the room is gone, which is fine.
                        let _ = block_on(seat.input(Input::Rune('h' as u32)));
                        drop(seat);
                    }
                    room.close();
                    block_on(room.ended());
                }
            });
        }
        while bench.counts.get("callback input") < 40 {
            thread::yield_now();
        }
        block_on(bench.runtime.shutdown());
    });
    bench.end();
}

#[test]
fn a_seat_nobody_took_out_of_the_answer_is_left() {
    let by = by_hand();
    let listing = Listing::new(game("tour.wasm")).with_lifecycle(Lifecycle::Ephemeral);
    let room = by
        .runtime
        .open(&list(listing), RoomSpec::default())
        .unwrap();
    {
        let mut join = Box::pin(room.join(player(1)));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(join.as_mut().poll(&mut cx).is_pending());
        by.pass(std::time::Duration::ZERO);
        // The room has answered; the caller, whose patience ended, does not look.
        assert_eq!(room.members().len(), 1);
    }
    by.pass(std::time::Duration::ZERO);
    assert!(room.members().is_empty());
}
