//! What the tests of rooms share: games, players, a recorder that counts, a runtime by hand.
#![allow(dead_code)] // each test binary uses its part

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cabinet_host::{Game, GameOptions, Host, HostOptions, Player};
use cabinet_rooms::services::StoreAdmin;
use cabinet_rooms::services::memory::MemoryStore;
use cabinet_rooms::{
    Export, GameLabel, Listed, Listing, ManualClock, Recorder, Registry, Reply, RoomSpec, Runtime,
    RuntimeOptions, SeededEntropy, StoreOp,
};
use cabinet_wire::Lifecycle;

/// 2023-11-14T22:13:20Z, in Unix nanoseconds: where every test's clock starts.
pub const EPOCH: i64 = 1_700_000_000_000_000_000;
/// A deadline no test runs into by accident.
pub const WIDE: Duration = Duration::from_secs(60);

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

pub fn fixture(name: &str) -> Vec<u8> {
    let path = fixtures().join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One host for a test process: compiling is what takes long.
pub fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| Host::new(HostOptions::default()).unwrap())
}

pub fn load(wasm: &[u8], deadline: Duration) -> Game {
    let mut options = GameOptions::default();
    options.deadline = deadline;
    host().load(wasm, &options).unwrap()
}

pub fn game(name: &str) -> Game {
    load(&fixture(name), WIDE)
}

pub fn list(listing: Listing) -> Arc<Listed> {
    Registry::new().add(listing).unwrap()
}

pub fn player(n: usize) -> Player {
    Player::member(format!("a{n}"), format!("p{n}"), format!("c{n}"))
}

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Sums of everything a recorder is told.
#[derive(Debug, Default)]
pub struct Counts {
    sums: Mutex<BTreeMap<String, i64>>,
}

impl Counts {
    pub fn get(&self, name: &str) -> i64 {
        self.sums.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    pub fn all(&self) -> BTreeMap<String, i64> {
        self.sums.lock().unwrap().clone()
    }

    fn add(&self, name: impl Into<String>, by: i64) {
        *self.sums.lock().unwrap().entry(name.into()).or_default() += by;
    }
}

impl Recorder for Counts {
    fn callback(&self, _: &GameLabel, export: Export, _: Duration) {
        self.add(format!("callback {}", export.name()), 1);
    }
    fn callback_deadline(&self, _: &GameLabel, _: Export) {
        self.add("deadline", 1);
    }
    fn stolen(&self, _: &GameLabel, _: Export, _: Duration) {
        self.add("stolen", 1);
    }
    fn excused(&self, _: &GameLabel, _: Export) {
        self.add("excused", 1);
    }
    fn host_io_deadline(&self, _: &GameLabel, _: Export) {
        self.add("host io", 1);
    }
    fn host_fault(&self, _: &GameLabel) {
        self.add("host fault", 1);
    }
    fn fault(&self, _: &GameLabel) {
        self.add("fault", 1);
    }
    fn frame_bytes_out(&self, _: &GameLabel, bytes: u64) {
        self.add("frame bytes", bytes as i64);
    }
    fn input_bytes_in(&self, _: &GameLabel, bytes: u64) {
        self.add("input bytes", bytes as i64);
    }
    fn store_error(&self, _: &GameLabel, op: StoreOp) {
        self.add(format!("store error {}", op.name()), 1);
    }
    fn store_panicked(&self, _: &GameLabel, op: StoreOp) {
        self.add(format!("store panic {}", op.name()), 1);
    }
    fn linear_memory(&self, _: &GameLabel, delta: i64) {
        self.add("memory", delta);
    }
    fn rooms(&self, _: &GameLabel, delta: i64) {
        self.add("rooms", delta);
    }
    fn wakes_skipped(&self, _: &GameLabel, count: u64) {
        self.add("skipped", count as i64);
    }
    fn room_ended(&self, _: &GameLabel, reason: &'static str) {
        self.add(format!("ended {reason}"), 1);
    }
    fn quarantined(&self, _: &GameLabel) {
        self.add("quarantined", 1);
    }
}

/// A runtime on a clock that stands still, and what it counted.
pub struct ByHand {
    pub runtime: Runtime,
    pub clock: ManualClock,
    pub counts: Arc<Counts>,
}

pub fn by_hand() -> ByHand {
    by_hand_with(|_| {})
}

pub fn by_hand_with(change: impl FnOnce(&mut RuntimeOptions)) -> ByHand {
    let clock = ManualClock::new(EPOCH);
    let counts = Arc::new(Counts::default());
    let mut options = RuntimeOptions::default();
    options.recorder = counts.clone();
    options.entropy = Arc::new(SeededEntropy::new(42));
    change(&mut options);
    ByHand {
        runtime: Runtime::by_hand(options, &clock),
        clock,
        counts,
    }
}

impl ByHand {
    /// Lets the time pass.
    pub fn pass(&self, time: Duration) {
        let until = cabinet_rooms::Clock::now(&self.clock) + time;
        self.runtime.run_until(&self.clock, until);
    }

    /// Runs the rooms until the future is done; it must not need time to pass.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..1_000 {
            if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
                return value;
            }
            self.pass(Duration::ZERO);
        }
        panic!("the future waits for something that needs time to pass");
    }
}

/// Runs a future on the calling thread, for runtimes with threads of their own.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

/// Sets one of the operator's keys for `tour`.
pub fn configure(store: &MemoryStore, key: &[u8], value: &[u8]) {
    store.set_config(
        "tour",
        key,
        Some(value),
        Reply::new(|answer| answer.unwrap()),
    );
}

/// What most rooms of the tests are opened with.
pub fn spec() -> RoomSpec {
    let mut spec = RoomSpec::default();
    spec.seed = Some(7);
    spec
}

/// `tour` for three, under this lifecycle.
pub fn tour(lifecycle: Lifecycle) -> Arc<Listed> {
    list(
        Listing::new(game("tour.wasm"))
            .with_lifecycle(lifecycle)
            .with_capacity(3),
    )
}
