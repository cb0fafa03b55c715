//! An embedder: one room of somebody's game, driven by hand, saved and restored.

use cabinet_host::{
    Fault, Game, GameOptions, Host, HostOptions, LoadError, NoServices, Player, Room, RoomConfig,
    Seed, Slot, Snapshot,
};

/// Loads a game on a host with default options.
///
/// # Errors
/// When the host cannot be made or refuses the game.
pub fn load(wasm: &[u8]) -> Result<Game, Box<dyn std::error::Error>> {
    let host = Host::new(HostOptions::default())?;
    let game = host.load(wasm, &GameOptions::default());
    game.map_err(|error: LoadError| error.into())
}

/// Lets one player in and the room tick once; the frame everyone sees.
///
/// # Errors
/// The fault that killed the room.
pub fn play(room: &mut Room, now: i64) -> Result<Option<cabinet_host::Frame>, Fault> {
    let ada = Player::member("a1", "ada", "c1");
    for outcome in [
        room.start(now),
        room.join(now, ada),
        room.wake(now + 50_000_000),
    ] {
        if outcome.is_fault() {
            return Err(room.fault().cloned().expect("a faulted room says why"));
        }
    }
    Ok(room.frame(Slot::Broadcast))
}

/// A room without stores.
pub fn room(game: &Game) -> Room {
    game.room(RoomConfig::new(Seed::Set(7)), Box::new(NoServices))
}

/// The room as bytes.
///
/// # Errors
/// When it cannot be captured.
pub fn save(room: &mut Room) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    Ok(room.snapshot()?.encode(1)?)
}

/// The room again, from at most 64 MiB of state.
///
/// # Errors
/// When the bytes are no snapshot, or another game's.
pub fn resume(game: &Game, bytes: &[u8]) -> Result<Room, Box<dyn std::error::Error>> {
    let snapshot = Snapshot::decode(bytes, 64 << 20)?;
    Ok(game.restore(&snapshot, Box::new(NoServices))?)
}
