//! Stores that hang, fail, panic or answer late: the room that asked ends or goes on as it should,
//! and nobody else notices.
//!
//! Real threads, one of them for all rooms, and real time; what is asserted is order and counts.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cabinet_host::{
    Fault, Game, GameOptions, Input, LogLevel, LogSource, Player, ServiceError, Status,
};
use cabinet_rooms::services::memory::MemoryStore;
use cabinet_rooms::services::{
    Accounts, ConfigStore, KvAddress, KvStore, LogOrigin, LogSink, MergeRule, ServiceSet, wait_for,
};
use cabinet_rooms::{
    Blame, EndReason, Listed, Listing, Phase, Quarantine, QuarantinePolicy, Registry, Reply,
    RoomHandle, RoomSpec, Runtime, RuntimeOptions, Seat,
};
use cabinet_wire::Lifecycle;

use common::{Counts, WIDE, block_on, fixture, host, list, ms, player};

/// The I/O ceiling of the games whose rooms are to run into it.
const CEILING: Duration = Duration::from_millis(200);

/// How a store behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// Keeps its replies until it is told to let go.
    Hangs,
    Fails,
    /// Panics inside the call.
    Panics,
    /// Takes the request to a thread of its own, which panics over it.
    PanicsLater,
}

/// A store in a mood.
struct Moody {
    mood: Mutex<Mood>,
    asked: AtomicUsize,
    held: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    store: MemoryStore,
}

impl Moody {
    fn new(mood: Mood) -> Arc<Self> {
        Arc::new(Self {
            mood: Mutex::new(mood),
            asked: AtomicUsize::new(0),
            held: Mutex::default(),
            store: MemoryStore::new(),
        })
    }

    fn becomes(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Sends the late answers.
    fn lets_go(&self) -> usize {
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        let count = held.len();
        for answer in held {
            answer();
        }
        count
    }

    /// Meets a request; `late` is what it is told when it was kept waiting.
    fn meet<T: Send + 'static>(&self, reply: Reply<T>, late: T, well: impl FnOnce(Reply<T>)) {
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Well => well(reply),
            Mood::Hangs => {
                let answer = Box::new(move || reply.send(Ok(late)));
                self.held.lock().unwrap().push(answer);
            }
            Mood::Fails => reply.send(Err(ServiceError::Unavailable("down".into()))),
            Mood::Panics => {
                self.asked.fetch_add(1, Ordering::SeqCst);
                panic!("a store that panics");
            }
            Mood::PanicsLater => {
                std::thread::spawn(move || {
                    let _reply = reply;
                    panic!("a store that panics on its own thread");
                });
            }
        }
        // Last, so that who sees the count finds the request where the mood has put it.
        self.asked.fetch_add(1, Ordering::SeqCst);
    }
}

impl KvStore for Moody {
    fn get(&self, at: KvAddress<'_>, reply: Reply<Option<Vec<u8>>>) {
        self.meet(reply, Some(b"41".to_vec()), |reply| {
            KvStore::get(&self.store, at, reply);
        });
    }

    fn set(&self, at: KvAddress<'_>, value: &[u8], rule: Option<MergeRule>, reply: Reply<()>) {
        self.meet(reply, (), |reply| self.store.set(at, value, rule, reply));
    }

    fn delete(&self, at: KvAddress<'_>, reply: Reply<()>) {
        self.meet(reply, (), |reply| self.store.delete(at, reply));
    }
}

impl ConfigStore for Moody {
    fn get(&self, slug: &str, key: &[u8], reply: Reply<Option<Vec<u8>>>) {
        self.meet(reply, Some(b"1000".to_vec()), |reply| {
            ConfigStore::get(&self.store, slug, key, reply);
        });
    }
}

impl Accounts for Moody {
    fn account(&self, player: &Player, reply: Reply<Option<String>>) {
        self.meet(reply, Some("late".to_owned()), |reply| {
            self.store.account(player, reply);
        });
    }
}

/// Nobody may keep anything.
struct Strangers;

impl Accounts for Strangers {
    fn account(&self, _: &Player, reply: Reply<Option<String>>) {
        reply.send(Ok(None));
    }
}

/// Keeps log records.
#[derive(Default)]
struct Log(Mutex<Vec<(LogLevel, LogSource, String)>>);

impl LogSink for Log {
    fn record(&self, from: &LogOrigin<'_>, message: &[u8]) {
        let text = String::from_utf8_lossy(message).into_owned();
        self.0.lock().unwrap().push((from.level, from.source, text));
    }
}

fn load(name: &str, deadline: Duration, io_ceiling: Duration) -> Game {
    let mut options = GameOptions::default();
    options.deadline = deadline;
    options.io_ceiling = io_ceiling;
    host().load(&fixture(name), &options).unwrap()
}

fn tour(io_ceiling: Duration) -> Arc<Listed> {
    list(Listing::new(load("tour.wasm", WIDE, io_ceiling)).with_lifecycle(Lifecycle::Ephemeral))
}

/// A runtime with one light thread, and what it counted.
struct OneThread {
    runtime: Runtime,
    counts: Arc<Counts>,
}

fn one_thread(change: impl FnOnce(&mut RuntimeOptions)) -> OneThread {
    let counts = Arc::new(Counts::default());
    let mut options = RuntimeOptions::default();
    options.threads = 1;
    options.heavy_threads = 1;
    options.store_timeout = WIDE;
    options.recorder = counts.clone();
    change(&mut options);
    OneThread {
        runtime: Runtime::new(options).unwrap(),
        counts,
    }
}

impl OneThread {
    fn open(&self, listed: &Arc<Listed>, services: ServiceSet) -> (RoomHandle, Seat) {
        let mut spec = RoomSpec::default();
        spec.seed = Some(7);
        spec.services = services;
        let room = self.runtime.open(listed, spec).unwrap();
        let seat = block_on(room.join(player(1))).unwrap();
        (room, seat)
    }

    fn neighbours(&self, listed: &Arc<Listed>) -> Vec<(RoomHandle, Seat)> {
        (0..3)
            .map(|_| self.open(listed, ServiceSet::default()))
            .collect()
    }

    /// Waits for so many more wakes of any room.
    fn wakes(&self, more: i64) {
        let wanted = self.counts.get("callback wake") + more;
        until("wakes", || self.counts.get("callback wake") >= wanted);
    }

    fn ends(self) {
        block_on(self.runtime.shutdown());
        assert!(self.runtime.join_threads(WIDE), "every thread ends");
        assert_eq!(self.counts.get("memory"), 0);
        assert_eq!(self.counts.get("rooms"), 0);
    }
}

fn kv(store: &Arc<Moody>) -> ServiceSet {
    ServiceSet {
        kv: Some(store.clone()),
        ..ServiceSet::default()
    }
}

fn press(seat: &Seat, rune: char) {
    block_on(seat.input(Input::Rune(rune as u32))).unwrap();
}

/// Waits for something that must come; fails when it has not for a minute.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < WIDE, "waited in vain for {what}");
        std::thread::sleep(ms(1));
    }
}

/// Waits until the row of the tour that tells of the last command says this.
fn shows(seat: &mut Seat, text: &str) {
    until(text, || {
        let _ = seat.frames().try_next();
        seat.frames().frame().row_text(4).contains(text)
    });
}

#[test]
fn while_one_room_hangs_in_a_store_others_keep_waking_and_its_guest_is_not_charged() {
    let by = one_thread(|_| {});
    let deadline = ms(1_000);
    let tour =
        list(Listing::new(load("tour.wasm", deadline, WIDE)).with_lifecycle(Lifecycle::Ephemeral));
    let _others = by.neighbours(&tour);
    let store = Moody::new(Mood::Hangs);
    let (room, mut seat) = by.open(&tour, kv(&store));
    press(&seat, 'k');
    until("the request", || store.asked() == 1);
    until("the wait", || by.runtime.stats().waiting == 1);
    by.wakes(60);
    // Past the deadline of the callback that waits.
    std::thread::sleep(deadline + ms(100));
    by.wakes(10);
    assert_eq!(by.runtime.stats().waiting, 1);
    assert!(room.ending().is_none());
    store.becomes(Mood::Well);
    assert_eq!(store.lets_go(), 1);
    shows(&mut seat, "visits 42 Ok");
    assert_eq!(by.runtime.stats().waiting, 0);
    assert_eq!(by.counts.get("deadline"), 0);
    assert_eq!(by.counts.get("store error kv_get"), 0);
    by.ends();
}

#[test]
fn a_store_that_never_answers_ends_the_room_at_the_ceiling_as_the_hosts_doing() {
    let registry = Arc::new(Registry::new());
    let quarantine = Arc::new(Quarantine::new(
        Arc::clone(&registry),
        QuarantinePolicy {
            threshold: 1.try_into().unwrap(),
            ..QuarantinePolicy::default()
        },
    ));
    let watching = Arc::clone(&quarantine);
    let by = one_thread(move |options| options.quarantine = Some(watching));
    let listing = Listing::new(load("tour.wasm", WIDE, CEILING));
    let tour = registry
        .add(listing.with_lifecycle(Lifecycle::Ephemeral))
        .unwrap();
    let others = by.neighbours(&tour);
    let store = Moody::new(Mood::Hangs);
    let (room, seat) = by.open(&tour, kv(&store));
    press(&seat, 'k');
    let ending = block_on(room.ended());
    by.wakes(10);

    assert_eq!(ending.reason, EndReason::Host);
    let report = ending.fault.as_ref().unwrap();
    assert!(
        matches!(report.fault, Fault::HostIo { waited, ceiling } if ceiling == CEILING && waited > ceiling),
        "{:?}",
        report.fault
    );
    assert_eq!(report.blame(), Blame::Host);
    let result = ending.result.as_ref().unwrap();
    assert_eq!(result.standings.len(), 1);
    assert_eq!(result.standings[0].status, Some(Status::Dnf));
    assert_eq!(by.counts.get("host io"), 1);
    assert_eq!(by.counts.get("ended host"), 1);
    for nobodys in ["fault", "deadline", "stolen", "excused", "host fault"] {
        assert_eq!(by.counts.get(nobodys), 0, "{nobodys}");
    }
    assert!(registry.get("tour").is_some());
    assert!(quarantine.quarantined().is_empty());
    assert!(quarantine.audit().is_empty());
    for (other, _) in &others {
        assert!(other.ending().is_none());
    }
    // An answer after the room's end meets nobody.
    assert_eq!(store.lets_go(), 1);
    by.wakes(3);
    assert_eq!(by.counts.get("ended host"), 1);
    by.ends();
}

#[test]
fn past_the_rooms_that_may_wait_the_next_guest_goes_on_at_once_without_a_value() {
    let by = one_thread(|options| options.waiting_max = 2);
    let tour = tour(WIDE);
    let store = Moody::new(Mood::Hangs);
    let mut waiting: Vec<_> = (0..2).map(|_| by.open(&tour, kv(&store))).collect();
    for (_, seat) in &waiting {
        press(seat, 'k');
    }
    until("the waits", || by.runtime.stats().waiting == 2);
    let (_room, mut third) = by.open(&tour, kv(&store));
    press(&third, 'k');
    shows(&mut third, "visits 1 Ok");
    assert_eq!(by.runtime.stats().waiting, 2);
    assert_eq!(by.counts.get("store error kv_get"), 1);
    assert_eq!(by.counts.get("store error kv_set"), 1);
    assert_eq!(by.counts.get("store panic kv_get"), 0);
    store.becomes(Mood::Well);
    store.lets_go();
    for (_, seat) in &mut waiting {
        shows(seat, "visits 42 Ok");
    }
    // Those that waited were not counted, and there is room again.
    assert_eq!(by.counts.get("store error kv_get"), 1);
    press(&third, 'k');
    shows(&mut third, "visits 43 Ok");
    assert_eq!(by.counts.get("host io") + by.counts.get("fault"), 0);
    by.ends();
}

#[test]
fn a_store_that_fails_at_once_is_counted_and_logged_and_the_room_lives() {
    let by = one_thread(|_| {});
    let store = Moody::new(Mood::Fails);
    let log = Arc::new(Log::default());
    let mut services = kv(&store);
    services.log = Some(log.clone());
    let (room, mut seat) = by.open(&tour(WIDE), services);
    press(&seat, 'k');
    shows(&mut seat, "visits 1 Ok");
    press(&seat, 'x');
    shows(&mut seat, "forgot 5 keys");
    assert!(room.ending().is_none());
    assert_eq!(by.counts.get("store error kv_get"), 1);
    assert_eq!(by.counts.get("store error kv_set"), 1);
    assert_eq!(by.counts.get("store error kv_delete"), 5);
    assert_eq!(by.counts.get("fault"), 0);
    let records = log.0.lock().unwrap().clone();
    assert_eq!(records.len(), 7);
    assert_eq!(
        records[..2],
        ["kv_get", "kv_set"].map(|operation| {
            let text = format!("{operation} failed: the store is unavailable: down");
            (LogLevel::Error, LogSource::Host, text)
        })
    );
    by.ends();
}

#[test]
fn a_store_that_panics_is_counted_as_such_and_the_room_lives() {
    let by = one_thread(|_| {});
    let store = Moody::new(Mood::Panics);
    let (room, mut seat) = by.open(&tour(WIDE), kv(&store));
    press(&seat, 'k');
    shows(&mut seat, "visits 1 Ok");
    assert_eq!(by.counts.get("store panic kv_get"), 1);
    assert_eq!(by.counts.get("store panic kv_set"), 1);
    assert_eq!(by.counts.get("store error kv_get"), 1);
    assert_eq!(by.counts.get("store error kv_set"), 1);
    assert_eq!(by.counts.get("fault") + by.counts.get("host fault"), 0);
    // The store is as good as ever afterwards.
    store.becomes(Mood::Well);
    press(&seat, 'k');
    press(&seat, 'k');
    shows(&mut seat, "visits 2 Ok");
    assert!(room.ending().is_none());
    by.ends();
}

#[test]
fn a_store_that_panics_on_its_own_thread_keeps_nobody_waiting() {
    let by = one_thread(|_| {});
    let store = Moody::new(Mood::PanicsLater);
    let (room, mut seat) = by.open(&tour(WIDE), kv(&store));
    press(&seat, 'k');
    shows(&mut seat, "visits 1 Ok");
    assert_eq!(by.counts.get("store error kv_get"), 1);
    assert_eq!(by.counts.get("store error kv_set"), 1);
    assert_eq!(by.runtime.stats().waiting, 0);
    assert!(room.ending().is_none());
    by.ends();
}

#[test]
fn an_answer_after_the_rooms_patience_is_not_taken_for_the_next_one() {
    let by = one_thread(|options| options.store_timeout = ms(50));
    let store = Moody::new(Mood::Hangs);
    let (room, mut seat) = by.open(&tour(WIDE), kv(&store));
    press(&seat, 'k');
    shows(&mut seat, "visits 1 Ok");
    assert_eq!(by.counts.get("store error kv_get"), 1);
    assert_eq!(by.counts.get("store error kv_set"), 1);
    assert_eq!(by.counts.get("host io"), 0);
    store.becomes(Mood::Well);
    let at = KvAddress {
        slug: "tour",
        account: "a1",
        key: b"visits",
    };
    wait_for(|reply| store.store.set(at, b"8", None, reply)).unwrap();
    // 41, for a request that was given up.
    assert_eq!(store.lets_go(), 2);
    press(&seat, 'k');
    shows(&mut seat, "visits 9 Ok");
    assert!(room.ending().is_none());
    by.ends();
}

#[test]
fn a_player_who_may_keep_nothing_costs_the_store_nothing() {
    let by = one_thread(|_| {});
    let store = Moody::new(Mood::Well);
    let mut services = kv(&store);
    services.accounts = Some(Arc::new(Strangers));
    let (_room, mut seat) = by.open(&tour(WIDE), services);
    for _ in 0..3 {
        press(&seat, 'k');
    }
    press(&seat, 'x');
    shows(&mut seat, "forgot 5 keys");
    press(&seat, 'k');
    shows(&mut seat, "visits 1 Ok");
    assert_eq!(store.asked(), 0);
    assert_eq!(by.counts.get("store error kv_get"), 0);
    by.ends();
}

#[test]
fn slow_accounts_are_waited_for_like_any_store() {
    let by = one_thread(|_| {});
    let tour = tour(WIDE);
    let _others = by.neighbours(&tour);
    let (store, accounts) = (Moody::new(Mood::Well), Moody::new(Mood::Hangs));
    let mut services = kv(&store);
    services.accounts = Some(accounts.clone());
    let (_room, mut seat) = by.open(&tour, services);
    press(&seat, 'k');
    until("the wait", || by.runtime.stats().waiting == 1);
    by.wakes(10);
    // The store is not asked before it is known for whom.
    assert_eq!((accounts.asked(), store.asked()), (1, 0));
    accounts.becomes(Mood::Well);
    accounts.lets_go();
    shows(&mut seat, "visits 1 Ok");
    assert_eq!((accounts.asked(), store.asked()), (2, 2));
    // The first answer named another account: what was read belongs to "late", what was written
    // to the player.
    let at = KvAddress {
        slug: "tour",
        account: "a1",
        key: b"visits",
    };
    let stored = wait_for(|reply| KvStore::get(&store.store, at, reply)).unwrap();
    assert_eq!(stored.as_deref(), Some(&b"1"[..]));

    accounts.becomes(Mood::Fails);
    press(&seat, 'x');
    shows(&mut seat, "forgot 5 keys");
    assert_eq!(by.counts.get("store error account"), 5);
    assert_eq!(store.asked(), 2);
    by.ends();
}

#[test]
fn accounts_that_never_answer_end_the_room_at_the_ceiling() {
    let by = one_thread(|_| {});
    let (store, accounts) = (Moody::new(Mood::Well), Moody::new(Mood::Hangs));
    let mut services = kv(&store);
    services.accounts = Some(accounts.clone());
    let (room, seat) = by.open(&tour(CEILING), services);
    press(&seat, 'k');
    assert_eq!(block_on(room.ended()).reason, EndReason::Host);
    assert_eq!(by.counts.get("host io"), 1);
    assert_eq!(by.counts.get("fault"), 0);
    assert_eq!(store.asked(), 0);
    accounts.lets_go();
    by.ends();
}

#[test]
fn a_room_whose_settings_hang_begins_later_and_holds_nobody_up() {
    let by = one_thread(|_| {});
    let tour = tour(WIDE);
    let _others = by.neighbours(&tour);
    let config = Moody::new(Mood::Hangs);
    let mut spec = RoomSpec::default();
    spec.services.config = Some(config.clone());
    let room = by.runtime.open(&tour, spec).unwrap();
    until("the wait", || by.runtime.stats().waiting == 1);
    by.wakes(10);
    assert_eq!(room.status().phase, Phase::Init);
    config.becomes(Mood::Well);
    config.lets_go();
    block_on(room.started()).unwrap();
    assert_eq!(config.asked(), 3);
    assert_eq!(by.counts.get("store error config_get"), 0);
    by.ends();
}

#[test]
fn a_room_whose_settings_never_come_begins_without_them() {
    let by = one_thread(|options| options.store_timeout = ms(50));
    let config = Moody::new(Mood::Hangs);
    let services = ServiceSet {
        config: Some(config.clone()),
        ..ServiceSet::default()
    };
    let (room, _seat) = by.open(&tour(WIDE), services);
    by.wakes(3);
    assert!(by.counts.get("store error config_get") > 0);
    assert_eq!(room.status().lifecycle, Lifecycle::Ephemeral);
    assert!(room.ending().is_none());
    assert_eq!(by.counts.get("host io"), 0);
    config.lets_go();
    by.ends();
}

#[test]
fn a_guest_that_asks_a_hung_configuration_is_ended_at_the_ceiling() {
    let by = one_thread(|_| {});
    let config = Moody::new(Mood::Well);
    let services = ServiceSet {
        config: Some(config.clone()),
        ..ServiceSet::default()
    };
    let (room, seat) = by.open(&tour(CEILING), services);
    config.becomes(Mood::Hangs);
    press(&seat, 'c');
    assert_eq!(block_on(room.ended()).reason, EndReason::Host);
    assert_eq!(by.counts.get("host io"), 1);
    assert_eq!(by.counts.get("fault"), 0);
    config.lets_go();
    by.ends();
}

#[test]
fn a_guest_that_floods_a_store_pays_with_its_own_deadline() {
    let by = one_thread(|_| {});
    let store = Moody::new(Mood::Well);
    let listed = list(Listing::new(load("misbehave.wasm", ms(300), WIDE)));
    let (room, seat) = by.open(&listed, kv(&store));
    // kv_set and kv_get for ever.
    press(&seat, 'K');
    let ending = block_on(room.ended());
    let fault = &ending.fault.as_ref().unwrap().fault;
    assert!(matches!(fault, Fault::Deadline { .. }), "{fault:?}");
    assert_eq!(by.counts.get("deadline"), 1);
    assert_eq!(by.counts.get("host io"), 0);
    by.ends();
}

/// Takes its time, inside the call.
struct Slow;

impl KvStore for Slow {
    fn get(&self, _: KvAddress<'_>, reply: Reply<Option<Vec<u8>>>) {
        std::thread::sleep(ms(2));
        reply.send(Ok(None));
    }

    fn set(&self, _: KvAddress<'_>, _: &[u8], _: Option<MergeRule>, reply: Reply<()>) {
        std::thread::sleep(ms(2));
        reply.send(Ok(()));
    }

    fn delete(&self, _: KvAddress<'_>, reply: Reply<()>) {
        reply.send(Ok(()));
    }
}

#[test]
fn a_flood_of_slow_calls_is_the_guests_fault_though_it_computes_nothing() {
    let by = one_thread(|_| {});
    let listed = list(Listing::new(load("misbehave.wasm", ms(200), WIDE)));
    let services = ServiceSet {
        kv: Some(Arc::new(Slow)),
        ..ServiceSet::default()
    };
    let (room, seat) = by.open(&listed, services);
    press(&seat, 'K');
    let ending = block_on(room.ended());
    let report = ending.fault.as_ref().unwrap();
    assert!(matches!(report.fault, Fault::Deadline { .. }), "{report}");
    assert_eq!(report.blame(), cabinet_rooms::Blame::Guest, "{report}");
    assert_eq!(by.counts.get("excused"), 0);
    assert_eq!(by.counts.get("fault"), 1);
    by.ends();
}

#[test]
fn fifty_hung_rooms_leave_one_thread_to_the_others() {
    let by = one_thread(|options| options.waiting_max = 64);
    let tour = tour(WIDE);
    let others = by.neighbours(&tour);
    let store = Moody::new(Mood::Hangs);
    let mut hung: Vec<_> = (0..50).map(|_| by.open(&tour, kv(&store))).collect();
    for (_, seat) in &hung {
        press(seat, 'k');
    }
    until("the waits", || by.runtime.stats().waiting == 50);
    by.wakes(30);
    for (other, seat) in &others {
        press(seat, 'z');
        assert!(other.ending().is_none());
    }
    store.becomes(Mood::Well);
    assert_eq!(store.lets_go(), 50);
    for (_, seat) in &mut hung {
        shows(seat, "visits 42 Ok");
    }
    assert_eq!(by.counts.get("store error kv_get"), 0);
    drop(hung);
    drop(others);
    by.ends();
}

#[test]
fn leaving_and_closing_wait_behind_the_callback_that_hangs() {
    let by = one_thread(|_| {});
    let tour = tour(WIDE);
    let store = Moody::new(Mood::Hangs);
    let (room, seat) = by.open(&tour, kv(&store));
    press(&seat, 'k');
    until("the wait", || by.runtime.stats().waiting == 1);
    room.close();
    assert!(room.ending().is_none());
    store.becomes(Mood::Well);
    store.lets_go();
    // What was asked before the close was done before it.
    assert_eq!(block_on(room.ended()).reason, EndReason::Closed);
    let at = KvAddress {
        slug: "tour",
        account: "a1",
        key: b"visits",
    };
    let stored = wait_for(|reply| KvStore::get(&store.store, at, reply)).unwrap();
    assert_eq!(stored.as_deref(), Some(&b"42"[..]));
    drop(seat);
    by.ends();
}
