//! `cargo xtask bench host`: what a room costs next to wasmer alone, medians of one run.
//!
//! The yardstick is the same guest on wasmer with nothing around it: a bump allocator as kernel,
//! host functions that only answer, no checks in the code, no deadline. Rooms and yardstick are
//! measured in turns, so that a busy machine slows both.
//!
//! Needs the reference's artifacts (`CABINET_REFERENCE`); see `docs/ARCHITECTURE.md`, Measuring.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cabinet_host::{
    CacheOptions, Game, GameOptions, Host, HostOptions, NoServices, Player, Room, RoomConfig, Seed,
    SnapshotDecoder,
};
use cabinet_wire::{Mode, ctx};

mod bare;

use bare::Bare;

const EPOCH: i64 = 1_700_000_000_000_000_000;
const BEAT: i64 = 50_000_000;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench host: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool> {
    let Some(reference) = std::env::var_os("CABINET_REFERENCE").map(PathBuf::from) else {
        return Err("set CABINET_REFERENCE to a checkout of shellcade/kit".into());
    };
    let testdata = reference.join("host/gameabi/testdata");
    let mut table = Table::default();
    let host = Host::new(HostOptions::default())?;
    let mut patient = GameOptions::default();
    patient.deadline = Duration::from_secs(5);

    for (name, what) in [
        ("fixture-rs", "wake, whole keyframe (fixture-rs)"),
        ("fixture-rs-kit", "wake, one cell changed (fixture-rs-kit)"),
        ("fixture", "wake, one cell changed (fixture)"),
    ] {
        let wasm = std::fs::read(testdata.join(format!("{name}/{name}.wasm")))?;
        let game = host.load(&wasm, &patient)?;
        let (ours, bare) = wakes(&game, &wasm)?;
        table.ratio(what, ours, bare, 2.0);
    }

    let wasm = std::fs::read(testdata.join("fixture-rs/fixture-rs.wasm"))?;
    let game = host.load(&wasm, &patient)?;
    let (ours, bare) = creations(&game, &wasm)?;
    table.ratio(
        "compiled module to first frame (fixture-rs)",
        ours,
        bare,
        2.0,
    );

    let wasm = std::fs::read(testdata.join("fixture/fixture.wasm"))?;
    let game = host.load(&wasm, &patient)?;
    table.limit(
        "restore (fixture)",
        restore(&game)?,
        Duration::from_micros(500),
    );

    let wasm = std::fs::read(testdata.join("loadspike/loadspike.wasm"))?;
    table.limit(
        "second load from the cache (loadspike)",
        second_load(&wasm)?,
        Duration::from_millis(5),
    );
    Ok(table.passed)
}

/// Median wake of a room with one player, and of the same guest bare.
fn wakes(game: &Game, wasm: &[u8]) -> Result<(Duration, Duration)> {
    let mut room = played(game)?;
    let mut bare = Bare::compile(wasm)?.instantiate()?;
    let mut now = EPOCH;
    bare.call("start", &context(now, false))?;
    let mut join = context(now, true);
    join.extend_from_slice(&0u32.to_le_bytes());
    bare.call("join", &join)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        for _ in 0..50 {
            now += BEAT;
            let began = Instant::now();
            let outcome = room.wake(now);
            ours.push(began.elapsed());
            if outcome.is_fault() {
                return Err("the room faulted".into());
            }
        }
        for _ in 0..50 {
            now += BEAT;
            // The payload is part of a call, for both.
            let began = Instant::now();
            let payload = context(now, true);
            bare.call("wake", &payload)?;
            theirs.push(began.elapsed());
        }
    }
    Ok((median(ours), median(theirs)))
}

/// Median time from a compiled module to the first frame.
fn creations(game: &Game, wasm: &[u8]) -> Result<(Duration, Duration)> {
    let compiled = Bare::compile(wasm)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        let began = Instant::now();
        let mut room = game.room(RoomConfig::new(Seed::Set(42)), Box::new(NoServices));
        let _ = room.start(EPOCH);
        ours.push(began.elapsed());
        drop(room);
        let began = Instant::now();
        let mut bare = compiled.instantiate()?;
        bare.call("start", &context(EPOCH, false))?;
        theirs.push(began.elapsed());
    }
    Ok((median(ours), median(theirs)))
}

/// Median time from encoded bytes to a room that can be called, decompression included.
fn restore(game: &Game) -> Result<Duration> {
    let bytes = played(game)?.snapshot()?.encode(1)?;
    let mut decoder = SnapshotDecoder::new();
    let mut times = Vec::new();
    for _ in 0..300 {
        let began = Instant::now();
        let snapshot = decoder.decode(&bytes, 64 << 20)?;
        let room = game.restore(&snapshot, Box::new(NoServices))?;
        times.push(began.elapsed());
        drop(room);
        decoder.recycle(snapshot);
    }
    Ok(median(times))
}

/// Median load of an artifact whose code is in the cache.
fn second_load(wasm: &[u8]) -> Result<Duration> {
    let dir = tempfile::tempdir()?;
    let mut options = HostOptions::default();
    options.cache = Some(CacheOptions {
        dir: dir.path().join("cache"),
        key: [7; 32],
    });
    let host = Host::new(options)?;
    host.load(wasm, &GameOptions::default())?;
    let mut times = Vec::new();
    for _ in 0..30 {
        let began = Instant::now();
        let game = host.load(wasm, &GameOptions::default())?;
        times.push(began.elapsed());
        if !game.from_cache() {
            return Err("the cache missed".into());
        }
    }
    Ok(median(times))
}

/// A room with one player, a few wakes old.
fn played(game: &Game) -> Result<Room> {
    let mut room = game.room(RoomConfig::new(Seed::Set(42)), Box::new(NoServices));
    let _ = room.start(EPOCH);
    let _ = room.join(EPOCH, Player::member("a1", "ada", "c1"));
    for beat in 1..=20 {
        let _ = room.wake(EPOCH + beat * BEAT);
    }
    match room.fault() {
        Some(fault) => Err(fault.to_string().into()),
        None => Ok(room),
    }
}

/// The context the yardstick's guest is called with.
fn context(now: i64, joined: bool) -> Vec<u8> {
    let head = ctx::Head {
        now_unix_nanos: now,
        seed: 42,
        seed_set: true,
        mode: Mode::Quick,
        capacity: 0,
        min_players: 1,
    };
    let ada = ctx::Member {
        handle: cabinet_wire::Text::new("ada"),
        account: cabinet_wire::Text::new("a1"),
        conn: cabinet_wire::Text::new("c1"),
        kind: cabinet_wire::Kind::Member,
        ..Default::default()
    };
    let members = [ada];
    let members = if joined { &members[..] } else { &[] };
    let mut payload = Vec::with_capacity(128);
    // One short name always fits the wire.
    let _ = ctx::encode(&head, &ctx::Roster::Legacy(members), 0, false, &mut payload);
    payload
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

struct Table {
    passed: bool,
}

impl Default for Table {
    fn default() -> Self {
        println!(
            "{:<46} {:>11} {:>11} {:>7}   limit",
            "median of one run", "room", "bare", "ratio"
        );
        Self { passed: true }
    }
}

impl Table {
    fn ratio(&mut self, what: &str, ours: Duration, bare: Duration, limit: f64) {
        let ratio = ours.as_secs_f64() / bare.as_secs_f64();
        self.passed &= ratio <= limit;
        println!(
            "{what:<46} {:>11} {:>11} {ratio:>6.2}x   {} <= {limit}x",
            micros(ours),
            micros(bare),
            word(ratio <= limit),
        );
    }

    fn limit(&mut self, what: &str, ours: Duration, limit: Duration) {
        self.passed &= ours <= limit;
        println!(
            "{what:<46} {:>11} {:>11} {:>7}   {} <= {}",
            micros(ours),
            "-",
            "-",
            word(ours <= limit),
            micros(limit),
        );
    }
}

fn micros(time: Duration) -> String {
    format!("{:.1} us", time.as_secs_f64() * 1e6)
}

fn word(met: bool) -> &'static str {
    if met { "met   " } else { "MISSED" }
}
