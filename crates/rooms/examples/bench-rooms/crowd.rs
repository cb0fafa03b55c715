//! One large room: how long a tick takes with 100 to 1,000 players.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cabinet_host::{GameOptions, Host, HostOptions, Input, Player};
use cabinet_rooms::{Listing, Registry, RoomSpec, Runtime, RuntimeOptions, Seat};

use super::Error;
use super::gauge::{Watch, fixture, millis, reference, word};

/// Players, and the reference's tick p50 and p95 on a like machine (host.md 10), in ms.
const SIZES: [(usize, Option<(f64, f64)>); 4] = [
    (100, Some((9.8, 48.0))),
    (250, Some((54.0, 144.0))),
    (500, Some((242.0, 772.0))),
    (1_000, None),
];
const WARM_UP: u64 = 5;
const TICKS: u64 = 100;
const BEAT: Duration = Duration::from_millis(50);
const MOVES: [char; 4] = ['h', 'j', 'l', 'k'];
const DEADLINE: Duration = Duration::from_millis(100);
/// 2,048 pages: what the reference's own runs of this guest need from 250 players up.
const MEMORY_PAGES: u32 = 2_048;

pub fn run() -> Result<bool, Error> {
    let (name, wasm) = match reference() {
        Some(kit) => {
            let path = kit.join("host/gameabi/testdata/loadspike/loadspike-cons.wasm");
            let wasm =
                std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            ("loadspike-cons", wasm)
        }
        None => {
            println!("CABINET_REFERENCE is not set: measuring our own crowd instead");
            ("crowd", fixture("crowd.wasm")?)
        }
    };
    let host = Host::new(HostOptions::default())?;
    let mut game_options = GameOptions::default();
    game_options.memory_pages_max = MEMORY_PAGES;
    game_options.deadline = DEADLINE;
    let game = host.load(&wasm, &game_options)?;
    println!("{name}, deadline {DEADLINE:?}, {TICKS} ticks each");
    println!(
        "players   tick p50       p95        most     reference p50/p95    besides the guest p50   fuel a tick"
    );
    let mut met = true;
    for (players, reference) in SIZES {
        let watch = Arc::new(Watch::default());
        let mut options = RuntimeOptions::default();
        options.recorder = watch.clone();
        let runtime = Runtime::new(options)?;
        let listed = Registry::new().add(Listing::new(game.clone()).with_capacity(0))?;
        let executor = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let mut spec = RoomSpec::default();
        spec.seed = Some(42);
        spec.heartbeat = Some(BEAT);
        let room = runtime.open(&listed, spec)?;
        let mut seats: Vec<Seat> = Vec::new();
        let (mut joined, mut measuring) = (true, false);
        for n in 0..players {
            let player = Player::member(
                format!("acct-{n:04}"),
                format!("bot{n:04}"),
                format!("conn-{n:04}"),
            );
            match executor.block_on(room.join(player)) {
                Ok(seat) => seats.push(seat),
                Err(error) => {
                    println!("{players:>7}   join {n}: {error}");
                    joined = false;
                    break;
                }
            }
        }
        // As many moves as the reference's bench makes: 1.5 a player and second, in turn.
        let per_beat = players * 3 * BEAT.as_millis() as usize / 2_000;
        let mut next = Instant::now();
        let mut beat = 0;
        while joined && room.ending().is_none() {
            if watch.took[0].count() > WARM_UP && !measuring {
                watch.clear();
                measuring = true;
            }
            if measuring && watch.took[0].count() >= TICKS {
                break;
            }
            for seat in &mut seats {
                let _ = seat.frames().try_next();
            }
            for n in 0..per_beat {
                let rune = MOVES[(beat + n) % MOVES.len()];
                let seat = &seats[(beat * per_beat + n) % players];
                // A player too far ahead of a slow room misses a move.
                let _ = seat.try_input(Input::Rune(rune.into()));
            }
            beat += 1;
            next += BEAT;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        if let Some(ending) = room.ending() {
            println!("{players:>7}   ended: {}", ending.reason.name());
            if let Some(fault) = &ending.fault {
                println!("{fault}");
            }
            met = false;
            continue;
        }
        let took = &watch.took[0];
        let (p50, p95) = (took.quantile(0.5), took.quantile(0.95));
        let ticks = took.count().max(1);
        let (theirs, held) = match reference {
            Some((r50, r95)) => (
                format!(
                    "{r50:>6.1}/{r95:<5.1} {:>5.1}x",
                    r50 / (p50.as_secs_f64() * 1e3)
                ),
                players < 250 || p50.as_secs_f64() * 1e4 <= r50,
            ),
            None => ("fails".to_owned(), true),
        };
        println!(
            "{players:>7} {:>10} {:>10} {:>10}   {theirs:<20}   {:>10}   {:>10}   {}",
            millis(p50),
            millis(p95),
            millis(took.most()),
            millis(watch.host_time.quantile(0.5)),
            watch.fuel.load(Ordering::Relaxed) / ticks,
            word(held),
        );
        met &= held;
        room.close();
        executor.block_on(runtime.shutdown());
    }
    println!(
        "target: a tenth of the reference's p50 at 250 and 500; 1,000 players run under the deadline"
    );
    Ok(met)
}
