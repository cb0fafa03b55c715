//! Thousands of small rooms at 20 wakes a second, each drawing a changed cell for two viewers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cabinet_host::{GameOptions, Host, HostOptions, Player};
use cabinet_rooms::services::memory::MemoryStore;
use cabinet_rooms::services::{StoreAdmin, wait_for};
use cabinet_rooms::{Listing, Registry, RoomSpec, Runtime, RuntimeOptions, Seat};

use super::Error;
use super::gauge::{Stretch, Watch, fixture, millis, resident, word};

const WARM_UP: Duration = Duration::from_secs(4);
const MEASURED: Duration = Duration::from_secs(15);

const CPUS_MAX: f64 = 0.70;
const LATE_MAX: Duration = Duration::from_millis(10);
const BESIDES_GUEST_MAX: u64 = 256 << 10;

pub fn run(count: usize) -> Result<bool, Error> {
    let host = Host::new(HostOptions::default())?;
    let game = host.load(&fixture("tour.wasm")?, &GameOptions::default())?;
    let listed = Registry::new().add(Listing::new(game))?;
    let config = MemoryStore::new();
    wait_for(|reply| config.set_config("tour", b"host.heartbeat_ms", Some(b"50"), reply))?;
    let watch = Arc::new(Watch::default());
    let mut options = RuntimeOptions::default();
    options.recorder = watch.clone();
    let cores = std::thread::available_parallelism()?.get();
    let runtime = Runtime::new(options)?;
    let executor = tokio::runtime::Builder::new_current_thread().build()?;

    let empty = resident()?;
    let mut spec = RoomSpec::default();
    spec.services.config = Some(Arc::new(config));
    let mut seats: Vec<Seat> = Vec::with_capacity(2 * count);
    let mut rooms = Vec::with_capacity(count);
    for n in 0..count {
        let room = runtime.open(&listed, spec.clone())?;
        for who in 0..2 {
            let player = Player::member(format!("a{n}-{who}"), "ada", format!("c{n}-{who}"));
            seats.push(executor.block_on(room.join(player))?);
        }
        rooms.push(room);
    }
    println!("{count} rooms of tour on {cores} cores, 20 wakes a second, two viewers each");

    // The viewers: one thread takes each one's newest frame twenty times a second.
    let stop = Arc::new(AtomicBool::new(false));
    let taken = Arc::new(AtomicU64::new(0));
    let rows = Arc::new(AtomicU64::new(0));
    let viewers = {
        let (stop, taken, rows) = (stop.clone(), taken.clone(), rows.clone());
        std::thread::spawn(move || {
            let mut next = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                for part in seats.chunks_mut(200) {
                    for seat in part {
                        if let Some(view) = seat.frames().try_next() {
                            taken.fetch_add(1, Ordering::Relaxed);
                            rows.fetch_add(view.changed.count_ones().into(), Ordering::Relaxed);
                        }
                    }
                    std::thread::yield_now();
                }
                next += Duration::from_millis(50);
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            seats
        })
    };
    std::thread::sleep(WARM_UP);
    watch.clear();
    let taken_before = taken.load(Ordering::Relaxed);
    let rows_before = rows.load(Ordering::Relaxed);
    let stretch = Stretch::begin()?;
    std::thread::sleep(MEASURED);
    let busy = stretch.cpus()? / cores as f64;
    let seconds = stretch.elapsed().as_secs_f64();
    let (late, took) = (&watch.late[0], &watch.took[0]);
    let wakes = took.count();
    let sum = |sum: &AtomicU64| sum.load(Ordering::Relaxed) / wakes.max(1);

    let full = resident()?;
    let (mut guest, mut kernel, mut frames) = (0, 0, 0);
    for room in &rooms {
        let footprint = executor
            .block_on(room.footprint())
            .ok_or("a room is gone")?;
        guest += footprint.guest_bytes;
        kernel += footprint.kernel_bytes;
        frames += footprint.frame_bytes;
    }
    let per_room = |bytes: u64| bytes / count as u64;
    let besides = per_room((full - empty).saturating_sub(guest));
    let rest = besides.saturating_sub(per_room(kernel) + per_room(frames));

    println!(
        "wakes                  {wakes} in {seconds:.1} s, {:.1} a room and second, {} skipped",
        wakes as f64 / seconds / count as f64,
        watch.skipped.load(Ordering::Relaxed)
    );
    println!(
        "views taken            {:.1} a viewer and second, {:.1} changed rows each",
        (taken.load(Ordering::Relaxed) - taken_before) as f64 / seconds / (2 * count) as f64,
        (rows.load(Ordering::Relaxed) - rows_before) as f64
            / (taken.load(Ordering::Relaxed) - taken_before).max(1) as f64
    );
    println!(
        "callback               p50 {}, p99 {}",
        millis(took.quantile(0.5)),
        millis(took.quantile(0.99))
    );
    println!(
        "a wake                 {} fuel, {} host calls, {} bytes in, {} bytes out",
        sum(&watch.fuel),
        sum(&watch.host_calls),
        sum(&watch.bytes_in),
        sum(&watch.bytes_out)
    );
    println!(
        "memory of a room       {} KiB: guest {}, kernel {}, frames {}, rest {}",
        per_room(full - empty) >> 10,
        per_room(guest) >> 10,
        per_room(kernel) >> 10,
        per_room(frames) >> 10,
        rest >> 10
    );
    let checks = [
        (
            format!(
                "CPU                    {:.0} % of {cores} cores, viewers included, target {:.0} %",
                busy * 100.0,
                CPUS_MAX * 100.0
            ),
            busy <= CPUS_MAX,
        ),
        (
            format!(
                "lateness               p50 {}, p99 {}, most {}, target p99 {}",
                millis(late.quantile(0.5)),
                millis(late.quantile(0.99)),
                millis(late.most()),
                millis(LATE_MAX)
            ),
            late.quantile(0.99) < LATE_MAX,
        ),
        (
            format!(
                "besides the guest's    {} KiB a room, target {} KiB",
                besides >> 10,
                BESIDES_GUEST_MAX >> 10
            ),
            besides <= BESIDES_GUEST_MAX,
        ),
    ];
    let mut met = wakes > 0;
    for (line, held) in checks {
        println!("{line}: {}", word(held));
        met &= held;
    }
    stop.store(true, Ordering::Relaxed);
    drop(viewers.join());
    executor.block_on(runtime.shutdown());
    Ok(met)
}
