//! What rooms that burn their deadline, or hang in a store, cost their neighbours.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cabinet_host::{
    Game, GameOptions, Host, HostOptions, Input, NoServices, Player, RoomConfig, Seed,
};
use cabinet_rooms::services::memory::MemoryStore;
use cabinet_rooms::services::{KvAddress, KvStore, MergeRule, StoreAdmin, wait_for};
use cabinet_rooms::{
    EndReason, Listed, Listing, Registry, Reply, RoomHandle, RoomSpec, Runtime, RuntimeOptions,
    Seat,
};

use super::Error;
use super::gauge::{Watch, fixture, millis, word};

const HEALTHY: usize = 200;
const HUNG: usize = 50;
const MEASURED: Duration = Duration::from_secs(8);
const SHARE: f64 = 0.9;
const LATE_MAX: Duration = Duration::from_millis(5);

/// Answers nothing until it is dropped.
#[derive(Default)]
struct Hangs(Mutex<Vec<Reply<Option<Vec<u8>>>>>);

impl KvStore for Hangs {
    fn get(&self, _: KvAddress<'_>, reply: Reply<Option<Vec<u8>>>) {
        if let Ok(mut held) = self.0.lock() {
            held.push(reply);
        }
    }

    fn set(&self, _: KvAddress<'_>, _: &[u8], _: Option<MergeRule>, reply: Reply<()>) {
        reply.send(Ok(()));
    }

    fn delete(&self, _: KvAddress<'_>, reply: Reply<()>) {
        reply.send(Ok(()));
    }
}

pub fn run() -> Result<bool, Error> {
    let host = Host::new(HostOptions::default())?;
    let tour = host.load(&fixture("tour.wasm")?, &GameOptions::default())?;
    let burner = burner(&host)?;
    let registry = Registry::new();
    // The order gives them their index: the healthy ones are game 0.
    let healthy = registry.add(Listing::new(tour.clone()))?;
    let burning = registry.add(Listing::new(burner).exempt())?;
    let hanging = registry.add(Listing::new(tour).with_slug("bench/hung".parse()?))?;

    println!("{HEALTHY} healthy rooms of tour beside others; lateness of the healthy ones' wakes");
    println!("beside                       p50        p99       most   others' wakes");
    let mut met = true;
    let mut limit = Duration::ZERO;
    for (name, burners, hung) in [
        ("nobody", 0, 0),
        ("1 that burns", 1, 0),
        ("2 that burn", 2, 0),
        ("4 that burn", 4, 0),
        ("50 hung in kv", 0, HUNG),
    ] {
        let mut scene = Scene::open(&healthy, &burning, &hanging, burners, hung)?;
        std::thread::sleep(Duration::from_secs(2));
        scene.watch.clear();
        let began = Instant::now();
        while began.elapsed() < MEASURED {
            scene.hang_again();
            scene.burn_again(&burning, burners)?;
            std::thread::sleep(Duration::from_millis(100));
        }
        let late = &scene.watch.late[0];
        let p99 = late.quantile(0.99);
        if burners + hung == 0 {
            limit = (p99 * 2).max(LATE_MAX);
        }
        let held = p99 <= limit;
        met &= held;
        let mut others = format!("{}", scene.watch.took[1].count());
        if burners > 0 {
            others += &format!(", p50 {}", millis(scene.watch.took[1].quantile(0.5)));
        }
        let ended = |reason| {
            scene
                .others
                .iter()
                .filter(|room| room.ending().is_some_and(|e| e.reason == reason))
                .count()
        };
        let (killed, host) = (ended(EndReason::Fault), ended(EndReason::Host));
        if killed + host > 0 {
            others += &format!(", {killed} killed, {host} ended by the host");
        }
        println!(
            "{name:<22} {:>10} {:>10} {:>10}   {others}   {} {}",
            millis(late.quantile(0.5)),
            millis(p99),
            millis(late.most()),
            word(held),
            if burners + hung == 0 {
                String::new()
            } else {
                format!("<= {}", millis(limit))
            },
        );
        scene.close();
    }
    Ok(met)
}

struct Scene {
    watch: Arc<Watch>,
    runtime: Runtime,
    executor: tokio::runtime::Runtime,
    seats: Vec<Seat>,
    hung: Vec<Seat>,
    others: Vec<RoomHandle>,
    store: Arc<Hangs>,
}

impl Scene {
    fn open(
        healthy: &Arc<Listed>,
        burning: &Arc<Listed>,
        hanging: &Arc<Listed>,
        burners: usize,
        hung: usize,
    ) -> Result<Self, Error> {
        let watch = Arc::new(Watch::default());
        let mut options = RuntimeOptions::default();
        options.recorder = watch.clone();
        options.store_timeout = Duration::from_secs(30);
        let runtime = Runtime::new(options)?;
        let executor = tokio::runtime::Builder::new_current_thread().build()?;
        let config = MemoryStore::new();
        wait_for(|reply| config.set_config("tour", b"host.heartbeat_ms", Some(b"50"), reply))?;
        let store = Arc::new(Hangs::default());
        let mut seats = Vec::new();
        let mut others = Vec::new();
        let mut hung_seats = Vec::new();
        let open = |listed: &Arc<Listed>,
                    spec: &RoomSpec,
                    n: usize|
         -> Result<(RoomHandle, Seat), Error> {
            let room = runtime.open(listed, spec.clone())?;
            let player = Player::member(format!("a{n}"), "ada", format!("c{n}"));
            let seat = executor.block_on(room.join(player))?;
            Ok((room, seat))
        };
        let mut spec = RoomSpec::default();
        spec.services.config = Some(Arc::new(config));
        for n in 0..HEALTHY {
            seats.push(open(healthy, &spec, n)?.1);
        }
        for n in 0..burners {
            let (room, seat) = open(burning, &spec, n)?;
            others.push(room);
            seats.push(seat);
        }
        spec.services.kv = Some(store.clone());
        for n in 0..hung {
            let (room, seat) = open(hanging, &spec, n)?;
            others.push(room);
            hung_seats.push(seat);
        }
        Ok(Self {
            watch,
            runtime,
            executor,
            seats,
            hung: hung_seats,
            others,
            store,
        })
    }

    /// Every room that hangs asks its store; one that does already has the key waiting.
    fn hang_again(&self) {
        for seat in &self.hung {
            let _ = seat.try_input(Input::Rune('k' as u32));
        }
    }

    /// A room that ran into its deadline after all is replaced, so that as many burn throughout.
    fn burn_again(&mut self, burning: &Arc<Listed>, burners: usize) -> Result<(), Error> {
        if burners == 0 {
            return Ok(());
        }
        let alive = self
            .others
            .iter()
            .filter(|room| room.ending().is_none())
            .count();
        for n in alive..burners {
            let room = self.runtime.open(burning, RoomSpec::default())?;
            let player = Player::member(format!("b{n}"), "ada", format!("c{}", self.others.len()));
            // One that is killed before anybody joins is replaced next time.
            if let Ok(seat) = self.executor.block_on(room.join(player)) {
                self.seats.push(seat);
            }
            self.others.push(room);
        }
        Ok(())
    }

    fn close(self) {
        if let Ok(mut held) = self.store.0.lock() {
            held.clear();
        }
        drop(self.hung);
        self.executor.block_on(self.runtime.shutdown());
    }
}

/// A game that burns [`SHARE`] of its deadline on every wake: a loop, its length measured here.
fn burner(host: &Host) -> Result<Game, Error> {
    let deadline = GameOptions::default().deadline;
    let trial = 20_000_000;
    let game = host.load(&loops(trial)?, &GameOptions::default())?;
    let mut room = game.room(RoomConfig::new(Seed::Set(1)), Box::new(NoServices));
    let _ = room.start(0);
    let _ = room.join(0, Player::member("a", "a", "a"));
    let mut times = Vec::new();
    for _ in 0..15 {
        let began = Instant::now();
        let _ = room.wake(0);
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    let rounds = f64::from(trial) * (deadline.as_secs_f64() * SHARE) / median.as_secs_f64();
    Ok(host.load(&loops(rounds as u32)?, &GameOptions::default())?)
}

fn loops(rounds: u32) -> Result<Vec<u8>, Error> {
    let meta = cabinet_wire::meta::Meta {
        slug: cabinet_wire::Text::new("burner"),
        name: cabinet_wire::Text::new("Burner"),
        min_players: 1,
        max_players: 4,
        ..Default::default()
    };
    let mut bytes = Vec::new();
    cabinet_wire::meta::encode(&meta, &mut bytes).map_err(|error| format!("{error:?}"))?;
    let data: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let len = bytes.len();
    let text = format!(
        r#"(module
          (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
          (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
          (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
          (memory (export "memory") 1)
          (data (i32.const 0) "{data}\02\00\00\00")
          (func $give (param $from i32) (param $len i32) (local $at i64) (local $i i32)
            (local.set $at (call $alloc (i64.extend_i32_u (local.get $len))))
            (block $done (loop $next
              (br_if $done (i32.ge_u (local.get $i) (local.get $len)))
              (call $store_u8 (i64.add (local.get $at) (i64.extend_i32_u (local.get $i)))
                (i32.load8_u (i32.add (local.get $from) (local.get $i))))
              (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (br $next)))
            (call $output_set (local.get $at) (i64.extend_i32_u (local.get $len))))
          (func (export "shellcade_abi") (result i32) (call $give (i32.const {len}) (i32.const 4)) (i32.const 0))
          (func (export "meta") (result i32) (call $give (i32.const 0) (i32.const {len})) (i32.const 0))
          (func (export "start") (result i32) (i32.const 0))
          (func (export "join") (result i32) (i32.const 0))
          (func (export "leave") (result i32) (i32.const 0))
          (func (export "input") (result i32) (i32.const 0))
          (func (export "close") (result i32) (i32.const 0))
          (func (export "wake") (result i32) (local $i i32)
            (loop $next
              (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (br_if $next (i32.lt_u (local.get $i) (i32.const {rounds}))))
            (i32.const 0)))"#
    );
    Ok(wat::parse_str(text)?)
}
