//! One room: its pause, its checkpoints, its way to a parked room's first frame.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cabinet_durability::cadence::CadenceRules;
use cabinet_durability::seal::{Keyring, MasterKey, Sealing};
use cabinet_durability::store::{
    BlobStore, CallCounter, DirStore, Instrumented, MemoryStore, StoreOp,
};
use cabinet_durability::{OwnerId, RoomIds, Vault, VaultOptions};
use cabinet_host::{MemoryServices, Player, RoomConfig, Seed, Snapshot};
use cabinet_rooms::keeper::{Keeper, KeeperOptions};
use cabinet_rooms::{RoomSpec, Runtime, RuntimeOptions};

use super::{Error, Table, cpu_ms, guest, server};

/// Where a room's clock starts: 2023-11-14, in Unix nanoseconds.
const EPOCH: i64 = 1_700_000_000_000_000_000;

pub fn vault(store: Arc<dyn BlobStore>) -> Result<Vault, Error> {
    let ring = Keyring::new(MasterKey::from_hex(1, &"0123456789abcdef".repeat(4))?);
    let options = VaultOptions::new(OwnerId::named("bench"));
    Ok(Vault::open(store, Sealing::Keys(ring), options)?)
}

pub fn keeper(store: Arc<dyn BlobStore>) -> Result<Keeper, Error> {
    let mut options = KeeperOptions::new(vault(store)?, tokio::runtime::Handle::current());
    // Checkpoints come when they are asked for.
    options.cadence = CadenceRules {
        base: Duration::from_secs(1 << 20),
        jitter: Duration::ZERO,
    };
    options.prune_every = u32::MAX;
    Ok(Keeper::new(options))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// What a room's thread does for a checkpoint, beside a copy of the same bytes.
pub fn pause(table: &mut Table) -> Result<(), Error> {
    table.heading(
        "pause of the room's thread for a checkpoint, every page in use (median of 60, in turns)",
    );
    for mib in [2, 32] {
        let game = guest::game(mib, 1)?;
        let config = RoomConfig::new(Seed::Set(7));
        let mut room = game.room(config, Box::new(MemoryServices::new()));
        let _ = room.start(EPOCH);
        let _ = room.join(EPOCH, Player::member("a1", "ada", "c1"));
        let bytes = mib as usize * (1 << 20);
        let source = vec![7_u8; bytes];
        let mut target = vec![1_u8; bytes];
        let mut buffer = room.snapshot()?.into_buffer();
        let (mut pauses, mut copies) = (Vec::new(), Vec::new());
        for round in 0..60 {
            let _ = room.wake(EPOCH + round * 50_000_000);
            let began = Instant::now();
            let snapshot = room.snapshot_into(buffer)?;
            pauses.push(began.elapsed());
            assert!(
                snapshot.page_bytes() + 8_192 >= bytes,
                "every page is in use"
            );
            buffer = snapshot.into_buffer();
            let began = Instant::now();
            target.copy_from_slice(black_box(&source));
            copies.push(began.elapsed());
            black_box(&target);
        }
        let (pause, copy) = (median(pauses), median(copies));
        let ratio = pause.as_secs_f64() / copy.as_secs_f64();
        table.judged(
            &format!("{mib} MiB: pause, memcpy into warm memory"),
            format!("{pause:>9.1?} {copy:>9.1?}   {ratio:.2}x"),
            "<= 2x (the reference: 1.2-11 ms, 30-49 ms)",
            ratio <= 2.0,
        );
    }
    Ok(())
}

/// Requests and bytes of steady checkpoints.
pub async fn checkpoints(table: &mut Table) -> Result<(), Error> {
    const STEADY: u64 = 50;
    table.heading("a steady checkpoint");
    for mib in [2, 32] {
        let counter = Arc::new(CallCounter::default());
        let clock: Arc<dyn Fn() -> Duration + Send + Sync> = Arc::new(|| Duration::ZERO);
        let store = Instrumented::new(MemoryStore::new(), counter.clone(), clock);
        let keeper = keeper(Arc::new(store))?;
        let runtime = Runtime::new(RuntimeOptions::default())?;
        let (_, listed) = guest::offer(guest::game(mib, 1)?)?;
        let room = keeper.open(&runtime, &listed, RoomSpec::default())?;
        let _seat = room.join(Player::member("a1", "ada", "c1")).await?;
        taken(&keeper).await;
        keeper.checkpoint(room.id()).await?;
        let calls = || {
            [StoreOp::Get, StoreOp::Put, StoreOp::Delete, StoreOp::List]
                .map(|op| counter.calls(op))
                .iter()
                .sum::<u64>()
        };
        let (before, bytes) = (calls(), keeper.stats().checkpoint_bytes);
        let began = (Instant::now(), cpu_ms());
        for _ in 0..STEADY {
            keeper.checkpoint(room.id()).await?;
        }
        let requests = (calls() - before) as f64 / STEADY as f64;
        let stored = (keeper.stats().checkpoint_bytes - bytes) / STEADY;
        let took = began.0.elapsed() / STEADY as u32;
        let cpu = (cpu_ms() - began.1) / STEADY as f64;
        table.judged(
            &format!("{mib} MiB: requests"),
            requests,
            "<= 2 (the reference: 4)",
            requests <= 2.0,
        );
        table.row(
            &format!("{mib} MiB: bytes stored, whole time, CPU of all threads"),
            format!("{stored}, {took:.1?}, {cpu:.1} ms"),
        );
        room.close();
        room.ended().await;
    }
    Ok(())
}

/// From the store, in memory here, to a room.
pub async fn restore(table: &mut Table) -> Result<(), Error> {
    table.heading("restore (median of 40)");
    for mib in [2, 32] {
        let game = guest::game(mib, 1)?;
        let config = RoomConfig::new(Seed::Set(7));
        let mut room = game.room(config, Box::new(MemoryServices::new()));
        let _ = room.start(EPOCH);
        let payload = room.snapshot()?.payload()?;
        let vault = vault(Arc::new(MemoryStore::new()))?;
        let id = RoomIds::default().next(1, [1; 8]);
        let lease = vault.create(id, 1).await?;
        let packed = lease.pack(lease.next_epoch(), game.digest(), &payload, 1)?;
        lease.write(&packed, 1).await?;
        let (mut decodes, mut restores, mut reads) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..40 {
            let began = Instant::now();
            vault.lend_memory(vault.latest(id, None).await?.bytes);
            reads.push(began.elapsed());
            let copy = payload.clone();
            let began = Instant::now();
            let snapshot = Snapshot::from_payload(copy, 0)?;
            decodes.push(began.elapsed());
            let began = Instant::now();
            let restored = game.restore(&snapshot, Box::new(MemoryServices::new()))?;
            restores.push(began.elapsed());
            drop(restored);
        }
        table.row(
            &format!("{mib} MiB: opening the record, reading it, building the room"),
            format!(
                "{:.1?}, {:.1?}, {:.1?}",
                median(reads),
                median(decodes),
                median(restores)
            ),
        );
    }
    Ok(())
}

/// Waits until the keeper has its rooms in the store.
pub async fn taken(keeper: &Keeper) {
    while keeper.stats().unclaimed > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A room of 2 MiB is parked, resumed, joined, and seen.
pub async fn park_to_first_frame(table: &mut Table) -> Result<(), Error> {
    table.heading("park to first frame, 2 MiB: hibernate, resume, take, join, first frame");
    // A quarter of the pages, as in the images of games that zstd was chosen on
    // (docs/ARCHITECTURE.md), and all of them.
    for (every, what) in [(4, "a quarter in use"), (1, "all in use")] {
        let name = format!("memory, {what}");
        let memory = Arc::new(MemoryStore::new());
        let memory = run(table, &name, memory, (200, every), None).await?;
        let folder = tempfile::tempdir()?;
        let store = Arc::new(DirStore::open(folder.path())?);
        let name = format!("directory, {what}");
        let dir = run(
            table,
            &name,
            store.clone(),
            (DIR_ROUNDS, every),
            Some(&store),
        )
        .await?;
        let cpu = format!("{:.2} ms (in memory {:.2})", dir.cpu, memory.cpu);
        let name = format!("{name}: CPU of all threads");
        if every == 1 {
            table.row(&name, cpu);
        } else {
            table.judged(&name, cpu, "<= 3 ms", dir.cpu <= 3.0);
        }
        let (syncs, most) = (dir.syncs, SYNCS_MAX);
        table.judged(
            &format!("directory, {what}: fsyncs"),
            format!("{syncs:.1}"),
            &format!("<= {most}"),
            syncs <= most,
        );
    }
    let server = server::Server::start(Path::new("bucket")).await?;
    let s3 = Arc::new(server.store());
    let s3 = run(
        table,
        "s3s-fs on loopback, a quarter in use",
        s3,
        (50, 4),
        None,
    )
    .await?;
    table.row(
        "s3s-fs: CPU of all threads, the server's included",
        format!("{:.2} ms", s3.cpu),
    );
    Ok(())
}

/// Parking puts an object, two index entries and a head; taking puts an entry, a head and a claim. A put
/// is two fsyncs.
const SYNCS_MAX: f64 = 14.0;

/// Few: ext4 keeps an inode that was deleted from being used again for seconds and looks at each of
/// them for every new file, so that hundreds of rounds in a row measure that.
const DIR_ROUNDS: u32 = 40;

struct Cost {
    cpu: f64,
    syncs: f64,
}

async fn run(
    table: &Table,
    name: &str,
    store: Arc<dyn BlobStore>,
    (rounds, every): (u32, u32),
    synced: Option<&DirStore>,
) -> Result<Cost, Error> {
    let keeper = keeper(store)?;
    let runtime = Runtime::new(RuntimeOptions::default())?;
    let (registry, listed) = guest::offer(guest::game(2, every)?)?;
    let ada = Player::member("a1", "ada", "c1");
    let mut room = keeper.open(&runtime, &listed, RoomSpec::default())?;
    let mut seat = room.join(ada.clone()).await?;
    taken(&keeper).await;
    let mut times = Vec::new();
    let (mut cpu, mut syncs) = (0.0, 0);
    for round in 0..rounds + 5 {
        if round == 5 {
            // Folders are made and memory is warm.
            cpu = cpu_ms();
            syncs = synced.map_or(0, DirStore::syncs);
            times.clear();
        }
        let began = Instant::now();
        room.hibernate().await?;
        drop(seat);
        let id = room.id();
        room = keeper
            .resume(&runtime, &registry, id, "a1", RoomSpec::default())
            .await?;
        seat = room.join(ada.clone()).await?;
        seat.frames().next().await.ok_or("no frame")?;
        times.push(began.elapsed());
    }
    let cpu = (cpu_ms() - cpu) / f64::from(rounds);
    let syncs = synced.map_or(0, DirStore::syncs) - syncs;
    table.row(
        &format!("{name}: whole time (median of {rounds})"),
        format!("{:.2?}", median(times)),
    );
    room.close();
    room.ended().await;
    Ok(Cost {
        cpu,
        syncs: syncs as f64 / f64::from(rounds),
    })
}
