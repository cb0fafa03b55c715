//! The pool with work of a test's own making.

use super::*;
use crate::clock::{ManualClock, SystemClock};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{OnceLock, Weak};

/// Runs a closure each turn.
struct Step {
    run: Box<dyn Fn(&Step) + Send + Sync>,
    pool: OnceLock<Weak<Pool<Step>>>,
    turns: AtomicUsize,
    /// How long after its first turn it wants another.
    next: Mutex<Option<Duration>>,
}

impl Step {
    fn new(run: impl Fn(&Step) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            run: Box::new(run),
            pool: OnceLock::new(),
            turns: AtomicUsize::new(0),
            next: Mutex::new(None),
        })
    }

    fn pool(&self) -> Arc<Pool<Step>> {
        self.pool.get().unwrap().upgrade().unwrap()
    }

    fn add_to(self: &Arc<Self>, pool: &Arc<Pool<Step>>) -> Key {
        self.pool.set(Arc::downgrade(pool)).unwrap();
        pool.insert(Arc::clone(self), Lane::Light)
    }
}

impl Work for Step {
    fn turn(&self) -> Ran {
        (self.run)(self);
        self.turns.fetch_add(1, Ordering::SeqCst);
        Ran {
            took: Duration::ZERO,
            more: false,
            next: self
                .next
                .lock()
                .unwrap()
                .take()
                .map(|wait| self.pool().clock.now() + wait),
            gone: false,
        }
    }
}

fn pool(light: usize, waiting_max: usize) -> Arc<Pool<Step>> {
    pool_on(light, waiting_max, Arc::new(SystemClock::new()))
}

fn pool_on(light: usize, waiting_max: usize, clock: Arc<dyn Clock>) -> Arc<Pool<Step>> {
    let options = PoolOptions {
        light,
        heavy: 1,
        waiting_max,
        excess_max: 2,
    };
    Pool::start(options, clock).unwrap()
}

fn end(pool: &Arc<Pool<Step>>) {
    pool.stop();
    assert!(pool.join(Duration::from_secs(60)));
    assert_eq!(pool.census().rooms, 0);
}

fn gate() -> (Sender<()>, Mutex<Receiver<()>>) {
    let (open, gate) = channel();
    (open, Mutex::new(gate))
}

#[test]
fn a_room_that_waits_for_a_store_does_not_hold_up_the_only_thread() {
    let pool = pool(1, 1);
    let (open, gate) = gate();
    let (told, tell) = channel();
    let waiter = Step::new(move |step| {
        let answer = step.pool().wait(|| gate.lock().unwrap().recv());
        assert!(answer.is_ok());
    });
    let other = Step::new(move |_| told.send(()).unwrap());
    let waiter_key = waiter.add_to(&pool);
    let other_key = other.add_to(&pool);
    pool.poke(waiter_key);
    while pool.census().waiting == 0 {
        std::thread::yield_now();
    }
    pool.poke(other_key);
    tell.recv().unwrap();
    assert_eq!(waiter.turns.load(Ordering::SeqCst), 0);
    open.send(()).unwrap();
    while waiter.turns.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    end(&pool);
}

#[test]
fn one_more_than_may_wait_is_told_at_once() {
    let pool = pool(1, 1);
    let (open, gate) = gate();
    let first = Step::new(move |step| {
        let _ = step.pool().wait(|| gate.lock().unwrap().recv());
    });
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let second = Step::new(move |step| {
        if step.pool().wait(|| ()) == Err(Busy) {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let first_key = first.add_to(&pool);
    let second_key = second.add_to(&pool);
    pool.poke(first_key);
    while pool.census().waiting == 0 {
        std::thread::yield_now();
    }
    pool.poke(second_key);
    while second.turns.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    assert_eq!(refused.load(Ordering::SeqCst), 1);
    open.send(()).unwrap();
    end(&pool);
}

#[test]
fn a_callback_that_overstays_lets_those_behind_it_run() {
    // A clock that stands: whatever the machine does meanwhile, the short one is a short one.
    let clock = ManualClock::new(0);
    let pool = pool_on(1, 1, Arc::new(clock.clone()));
    let (open, gate) = gate();
    // It keeps its thread without telling the pool, as a guest that computes does.
    let long = Step::new(move |_| gate.lock().unwrap().recv().unwrap());
    let (told, tell) = channel();
    let short = Step::new(move |_| told.send(()).unwrap());
    let long_key = long.add_to(&pool);
    let short_key = short.add_to(&pool);
    pool.poke(long_key);
    while pool.lock().jobs.is_empty() {
        std::thread::yield_now();
    }
    pool.poke(short_key);
    clock.advance_to(OVERRUN * 2);
    tell.recv().unwrap();
    assert_eq!(long.turns.load(Ordering::SeqCst), 0);
    open.send(()).unwrap();
    while long.turns.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    // From now on it runs in the other lane, and is not in anybody's way.
    while pool.lock().excess > 0 {
        std::thread::yield_now();
    }
    pool.poke(long_key);
    pool.poke(short_key);
    tell.recv().unwrap();
    open.send(()).unwrap();
    while long.turns.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
    end(&pool);
}

#[test]
fn a_callback_that_lost_its_role_and_then_waits_gives_the_heavy_one_back() {
    let pool = pool(1, 1);
    let (open, gate) = gate();
    let first = AtomicUsize::new(0);
    let long = Step::new(move |step| {
        if first.fetch_add(1, Ordering::SeqCst) == 0 {
            gate.lock().unwrap().recv().unwrap();
            assert!(step.pool().wait(std::thread::yield_now).is_ok());
        }
    });
    let (told, tell) = channel();
    let short = Step::new(move |_| told.send(()).unwrap());
    let (long_key, short_key) = (long.add_to(&pool), short.add_to(&pool));
    pool.poke(long_key);
    pool.poke(short_key);
    tell.recv().unwrap();
    open.send(()).unwrap();
    // It is heavy now; there is one heavy role, and it must still be there.
    for turn in 1..20 {
        while long.turns.load(Ordering::SeqCst) < turn {
            std::thread::yield_now();
        }
        pool.poke(long_key);
    }
    settle(&pool, [1, 1]);
    end(&pool);
}

/// Waits until every role is an idle driver's again.
fn settle(pool: &Arc<Pool<Step>>, roles: [usize; 2]) {
    while {
        let state = pool.lock();
        state.idle != roles || state.free != [0, 0] || state.heavy + state.excess > 0
    } {
        std::thread::yield_now();
    }
}

#[test]
fn a_timer_set_by_a_callback_that_lost_its_role_fires_in_time() {
    let pool = pool(1, 1);
    let (open, gate) = gate();
    let long = Step::new(move |_| gate.lock().unwrap().recv().unwrap());
    *long.next.lock().unwrap() = Some(Duration::from_millis(50));
    let (told, tell) = channel();
    let short = Step::new(move |_| told.send(()).unwrap());
    let (long_key, short_key) = (long.add_to(&pool), short.add_to(&pool));
    pool.poke(long_key);
    pool.poke(short_key);
    tell.recv().unwrap();
    open.send(()).unwrap();
    while long.turns.load(Ordering::SeqCst) < 1 {
        std::thread::yield_now();
    }
    let began = pool.clock.now();
    open.send(()).unwrap();
    while long.turns.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
    // Not when a spare thread happens to give up, ten seconds later.
    assert!(pool.clock.now() - began < SPARE_IDLE / 2);
    end(&pool);
}

#[test]
fn roles_are_neither_lost_nor_left_lying_whatever_rooms_do() {
    let pool = pool(2, 64);
    let burn = |time: Duration| {
        let clock = SystemClock::new();
        while clock.now() < time {}
    };
    let steps: Vec<_> = (0..40)
        .map(|room| {
            let turn = AtomicUsize::new(room);
            Step::new(move |step| {
                let turn = turn.fetch_add(7, Ordering::SeqCst);
                let long = turn.is_multiple_of(11);
                burn(Duration::from_micros(if long { 6_000 } else { 30 }));
                if turn.is_multiple_of(3) {
                    let pause = Duration::from_micros(100 * (turn % 5) as u64);
                    let _ = step.pool().wait(|| std::thread::sleep(pause));
                }
                burn(Duration::from_micros(if turn.is_multiple_of(13) {
                    5_000
                } else {
                    30
                }));
            })
        })
        .collect();
    let keys: Vec<_> = steps.iter().map(|step| step.add_to(&pool)).collect();
    for round in 1..=12 {
        for key in &keys {
            pool.poke(*key);
        }
        while steps
            .iter()
            .any(|step| step.turns.load(Ordering::SeqCst) < round)
        {
            std::thread::yield_now();
        }
        settle(&pool, [2, 1]);
    }
    end(&pool);
}

#[test]
fn a_thread_of_one_pool_waits_for_another_in_place() {
    let (one, other) = (pool(1, 1), pool(1, 1));
    let theirs = Arc::clone(&other);
    let step = Step::new(move |_| {
        assert_eq!(theirs.wait(|| 7), Ok((7, Duration::ZERO)));
    });
    let key = step.add_to(&one);
    one.poke(key);
    while step.turns.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    end(&one);
    end(&other);
}

#[test]
fn never_more_rooms_run_than_there_are_roles() {
    let pool = pool(2, 64);
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let steps: Vec<_> = (0..40)
        .map(|_| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            Step::new(move |step| {
                let enter = || {
                    let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                };
                enter();
                running.fetch_sub(1, Ordering::SeqCst);
                let _ = step.pool().wait(std::thread::yield_now);
                enter();
                running.fetch_sub(1, Ordering::SeqCst);
            })
        })
        .collect();
    let keys: Vec<_> = steps.iter().map(|step| step.add_to(&pool)).collect();
    for _ in 0..50 {
        for key in &keys {
            pool.poke(*key);
        }
    }
    while steps
        .iter()
        .any(|step| step.turns.load(Ordering::SeqCst) == 0)
    {
        std::thread::yield_now();
    }
    // Two light roles, one heavy, and two that may overstay.
    assert!(most.load(Ordering::SeqCst) <= 5);
    end(&pool);
}

#[test]
fn a_pool_by_hand_runs_what_is_due_and_waits_in_place() {
    let pool = Pool::by_hand(Arc::new(SystemClock::new()));
    let step = Step::new(|step| {
        assert_eq!(step.pool().wait(|| 7), Ok((7, Duration::ZERO)));
    });
    let key = step.add_to(&pool);
    assert!(!pool.turn());
    pool.poke(key);
    assert!(pool.turn());
    assert!(!pool.turn());
    assert_eq!(step.turns.load(Ordering::SeqCst), 1);
}
