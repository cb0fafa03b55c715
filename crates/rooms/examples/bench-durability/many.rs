//! Many rooms: a drain, and one player's list among a hundred thousand parked rooms.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cabinet_durability::store::{
    BlobStore, CallCounter, DirStore, Instrumented, MemoryStore, StoreOp,
};
use cabinet_durability::{Header, Member, RoomIds};
use cabinet_host::{GameOptions, Host, HostOptions, Player};
use cabinet_rooms::{RoomSpec, Runtime, RuntimeOptions};
use cabinet_wire::ArtifactDigest;

use super::{Error, Table, guest, one};

const ROOMS: usize = 2_000;

/// A whole process is emptied.
pub async fn drain(table: &mut Table) -> Result<(), Error> {
    table.heading(&format!(
        "drain of {ROOMS} rooms of `tour` into a directory"
    ));
    for (budget, complete) in [(60, true), (1, false)] {
        let folder = tempfile::tempdir()?;
        let keeper = one::keeper(Arc::new(DirStore::open(folder.path())?))?;
        let runtime = Runtime::new(RuntimeOptions::default())?;
        let wasm = std::fs::read(
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tour.wasm"),
        )?;
        let mut options = GameOptions::default();
        options.deadline = Duration::from_secs(10);
        let game = Host::new(HostOptions::default())?.load(&wasm, &options)?;
        let (_, listed) = guest::offer(game)?;
        let mut seats = Vec::new();
        for n in 0..ROOMS {
            let room = keeper.open(&runtime, &listed, RoomSpec::default())?;
            let player = Player::member(format!("a{n}"), "p", "c");
            seats.push(room.join(player).await?);
        }
        one::taken(&keeper).await;
        let began = Instant::now();
        let report = keeper.drain(Duration::from_secs(budget)).await;
        let took = began.elapsed();
        let left = report.left().count();
        let met = if complete {
            report.is_complete() && report.rooms.len() == ROOMS
        } else {
            // Every room is named, whatever became of it.
            report.rooms.len() == ROOMS && left > 0
        };
        table.judged(
            &format!("budget {budget} s: time, rooms safe, rooms left by name"),
            format!("{took:.1?}, {}, {left}", report.rooms.len() - left),
            if complete {
                "all safe"
            } else {
                "some left, all named"
            },
            met,
        );
        if let Some((room, slug, what)) = report.left().next() {
            table.row("  for one", format!("{room} {} {what:?}", slug.as_str()));
        }
        drop(seats);
        runtime.shutdown().await;
    }
    Ok(())
}

/// What a player's list costs.
pub async fn list(table: &mut Table) -> Result<(), Error> {
    const PARKED: usize = 100_000;
    const OWN: usize = 3;
    table.heading(&format!(
        "one player's list among {PARKED} parked rooms, {OWN} of them theirs"
    ));
    let counter = Arc::new(CallCounter::default());
    let clock: Arc<dyn Fn() -> Duration + Send + Sync> = Arc::new(|| Duration::ZERO);
    let store: Arc<dyn BlobStore> = Arc::new(Instrumented::new(
        MemoryStore::new(),
        counter.clone(),
        clock,
    ));
    let vault = one::vault(store)?;
    let mut ids = RoomIds::default();
    for n in 0..PARKED {
        let lease = vault.create(ids.next(1, [1; 8]), 1).await?;
        let packed = lease.pack(lease.next_epoch(), ArtifactDigest([1; 32]), &[7; 64], 1)?;
        let account = if n % (PARKED / OWN) == 7 {
            "ada".to_owned()
        } else {
            format!("a{n}")
        };
        let header = Header {
            slug: "w".into(),
            at: n as i64,
            roster: vec![Member {
                account,
                handle: "p".into(),
            }],
        };
        lease.park(&packed, header, 1).await?;
        if n % 20_000 == 0 && n > 0 {
            eprintln!("bench durability: {n} of {PARKED} rooms parked");
        }
    }
    let calls = || [StoreOp::List, StoreOp::Get].map(|op| counter.calls(op));
    let before = calls();
    let bytes = counter.bytes_out();
    let rooms = vault.parked_of("ada").await?;
    let [lists, gets] = calls();
    let (lists, gets) = (lists - before[0], gets - before[1]);
    let own = rooms.rooms.len() as u64;
    table.judged(
        "listings, small reads, bytes read",
        format!("{lists}, {gets}, {}", counter.bytes_out() - bytes),
        "1, one for each own room (the reference: every blob)",
        lists == 1 && gets == own && own >= OWN as u64,
    );
    Ok(())
}
