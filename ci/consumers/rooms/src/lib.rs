//! An embedder: rooms of listed games on a runtime, with stores, a quarantine and metrics.

use std::path::Path;
use std::sync::Arc;

use cabinet_host::{GameOptions, Host, HostOptions, Input, Player};
use cabinet_rooms::services::durable::{DurableOptions, DurableStore};
use cabinet_rooms::services::{KvAddress, KvStore, MergeRule};
use cabinet_rooms::{
    Captured, EndReason, Listed, Listing, MetricsRecorder, Parking, Quarantine, QuarantinePolicy,
    Registry, Reply, Resume, RoomHandle, RoomSpec, Runtime, RuntimeOptions,
};

/// What can go wrong here.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A registry with one game, and a runtime that watches over it.
///
/// # Errors
/// When the game is refused, or a thread.
pub fn set_up(wasm: &[u8]) -> Result<(Runtime, Arc<Registry>, Arc<Listed>), Error> {
    let host = Host::new(HostOptions::default())?;
    let game = host.load(wasm, &GameOptions::default())?;
    let registry = Arc::new(Registry::new());
    let listed = registry.add(Listing::new(game))?;
    let metrics = MetricsRecorder::new();
    metrics.prepare(listed.label());
    let mut options = RuntimeOptions::default();
    options.recorder = Arc::new(metrics);
    options.quarantine = Some(Arc::new(Quarantine::new(
        Arc::clone(&registry),
        QuarantinePolicy::default(),
    )));
    Ok((Runtime::new(options)?, registry, listed))
}

/// Plays one key in a room whose values are kept in a directory.
///
/// # Errors
/// When the store cannot be opened or the room does not take the player.
pub async fn play(runtime: &Runtime, listed: &Arc<Listed>, dir: &Path) -> Result<EndReason, Error> {
    let store = DurableStore::open(dir, &DurableOptions::default())?;
    let mut spec = RoomSpec::default();
    spec.services = store.services();
    let room: RoomHandle = runtime.open(listed, spec)?;
    let mut seat = room.join(Player::member("a1", "ada", "c1")).await?;
    seat.input(Input::Rune('x'.into())).await?;
    if let Some(view) = seat.frames().next().await {
        println!("{}", view.frame.row_text(0));
    }
    seat.leave().await;
    room.close();
    Ok(room.ended().await.reason)
}

/// Goes on with a parked room.
///
/// # Errors
/// When it is open already, or there is no room for it.
pub fn resume(
    runtime: &Runtime,
    listed: &Arc<Listed>,
    parked: Captured,
) -> Result<RoomHandle, Error> {
    let mut spec = RoomSpec::default();
    spec.id = Some(parked.room);
    let from = Resume::Snapshot(Box::new(parked.snapshot));
    Ok(runtime.resume(listed, from, spec)?)
}

/// Forgets every room it is given.
#[derive(Debug)]
pub struct Forgetful;

impl Parking for Forgetful {
    fn park(&self, _: Captured, reply: Reply<()>) {
        reply.send(Ok(()));
    }
}

/// Finds nothing and keeps nothing.
impl KvStore for Forgetful {
    fn get(&self, _: KvAddress<'_>, reply: Reply<Option<Vec<u8>>>) {
        reply.send(Ok(None));
    }

    fn set(&self, _: KvAddress<'_>, _: &[u8], _: Option<MergeRule>, reply: Reply<()>) {
        reply.send(Ok(()));
    }

    fn delete(&self, _: KvAddress<'_>, reply: Reply<()>) {
        reply.send(Ok(()));
    }
}
