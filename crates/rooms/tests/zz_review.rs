//! throw-away
#![allow(dead_code, missing_docs, clippy::all)]
mod common;
#[path = "/tmp/zz/clock.rs"]
mod clock;
#[path = "/tmp/zz/sched.rs"]
mod sched;
#[path = "/tmp/zz/wheel.rs"]
mod wheel;
#[path = "/tmp/zz/pool.rs"]
mod pool;

use pool::{Pool, PoolOptions, Work};
use sched::{Key, Ran};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

struct Step {
    run: Box<dyn Fn(&Step) -> Option<Duration> + Send + Sync>,
    pool: OnceLock<Weak<Pool<Step>>>,
    turns: AtomicUsize,
}
impl Step {
    fn new(run: impl Fn(&Step) -> Option<Duration> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { run: Box::new(run), pool: OnceLock::new(), turns: AtomicUsize::new(0) })
    }
    fn pool(&self) -> Arc<Pool<Step>> { self.pool.get().unwrap().upgrade().unwrap() }
    fn add_to(self: &Arc<Self>, pool: &Arc<Pool<Step>>) -> Key {
        self.pool.set(Arc::downgrade(pool)).ok().unwrap();
        pool.insert(Arc::clone(self))
    }
    fn n(&self) -> usize { self.turns.load(SeqCst) }
}
impl Work for Step {
    fn turn(&self) -> Ran {
        let next = (self.run)(self);
        self.turns.fetch_add(1, SeqCst);
        Ran { took: Duration::ZERO, more: false, next, gone: false }
    }
}
fn start(light: usize, heavy: usize) -> (Arc<Pool<Step>>, Arc<dyn clock::Clock>) {
    let c: Arc<dyn clock::Clock> = Arc::new(clock::SystemClock::new());
    (Pool::start(PoolOptions { light, heavy, waiting_max: 64, excess_max: 4 * light }, c.clone()).unwrap(), c)
}
fn until(what: &str, secs: u64, f: impl Fn() -> bool) -> bool {
    let t = Instant::now();
    while !f() {
        if t.elapsed() > Duration::from_secs(secs) { eprintln!("NOT WITHIN {secs}s: {what}"); return false; }
        std::thread::sleep(Duration::from_micros(200));
    }
    eprintln!("{what}: after {:?}", t.elapsed());
    true
}

#[test]
fn a_lane_leak() {
    let (pool, _) = start(1, 1);
    let (open, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let first = AtomicBool::new(true);
    let long = Step::new(move |s| {
        if first.swap(false, SeqCst) {
            gate.lock().unwrap().recv().unwrap(); // burns past 4 ms
            let _ = s.pool().wait(|| std::thread::sleep(Duration::from_millis(5)));
        }
        None
    });
    let short = Step::new(|_| None);
    let (lk, sk) = (long.add_to(&pool), short.add_to(&pool));
    pool.poke(lk);
    pool.poke(sk);
    until("short ran", 5, || short.n() == 1);
    eprintln!("role taken: {}", pool.probe());
    open.send(()).unwrap();
    until("long ended", 5, || long.n() == 1);
    std::thread::sleep(Duration::from_millis(50));
    eprintln!("after: {}", pool.probe());
    pool.poke(lk); // heavy now
    let ok = until("long ran again in the heavy lane", 5, || long.n() == 2);
    eprintln!("end: {}", pool.probe());
    assert!(ok, "heavy lane has lost its only role");
}

#[test]
fn b_roles_left_lying() {
    let (pool, _) = start(2, 1);
    let steps: Vec<_> = (0..40).map(|i| Step::new(move |s| {
        let t = Instant::now();
        while t.elapsed() < Duration::from_micros(100) {}
        if i % 2 == 0 { let _ = s.pool().wait(|| std::thread::sleep(Duration::from_micros(300))); }
        None
    })).collect();
    let keys: Vec<_> = steps.iter().map(|s| s.add_to(&pool)).collect();
    let mut bad = 0;
    for round in 0..200 {
        let before: usize = steps.iter().map(|s| s.n()).sum();
        for k in &keys { pool.poke(*k); }
        while steps.iter().map(|s| s.n()).sum::<usize>() < before + 40 { std::thread::yield_now(); }
        std::thread::sleep(Duration::from_millis(3));
        let (free, idle, spares) = pool.counts();
        if free[0] > 0 && spares > 0 { bad += 1; if bad < 4 { eprintln!("round {round}: free {free:?} idle {idle:?} spares {spares}"); } }
    }
    eprintln!("rounds with a free light role nobody takes: {bad}/200; {}", pool.probe());
    pool.stop();
    assert_eq!(bad, 0);
}

#[test]
fn c_timer_not_reminded() {
    let (pool, clock) = start(1, 1);
    let (open, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let first = AtomicBool::new(true);
    let long = Step::new(move |_| {
        if first.swap(false, SeqCst) {
            gate.lock().unwrap().recv().unwrap();
            return Some(clock.now() + Duration::from_millis(50));
        }
        None
    });
    let short = Step::new(|_| None);
    let (lk, sk) = (long.add_to(&pool), short.add_to(&pool));
    pool.poke(lk);
    pool.poke(sk);
    until("short ran", 5, || short.n() == 1);
    std::thread::sleep(Duration::from_millis(30));
    open.send(()).unwrap();
    until("long ended", 5, || long.n() == 1);
    let t = Instant::now();
    until("long woke by its 50 ms timer", 15, || long.n() == 2);
    let took = t.elapsed();
    pool.stop();
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn d_status_closure_blocks_the_room() {
    use cabinet_rooms::*;
    let runtime = Runtime::new(RuntimeOptions::default()).unwrap();
    let room = runtime.open(&common::list(Listing::new(common::game("tour.wasm"))), RoomSpec::default()).unwrap();
    common::block_on(room.started()).unwrap();
    let (open, gate) = channel::<()>();
    let (tell, told) = channel::<()>();
    let watched = room.clone();
    let w = std::thread::spawn(move || common::block_on(watched.status_when(|_| { tell.send(()).unwrap(); gate.recv().unwrap(); true })));
    told.recv().unwrap();
    let got = common::block_on(async { tokio::time::timeout(Duration::from_secs(2), room.join(common::player(1))).await.is_ok() });
    open.send(()).unwrap();
    w.join().unwrap();
    assert!(got, "a caller's predicate holds up the room");
}
