//! What the reference host leaves, in its formats.

use std::fs;

use cabinet_durability::RoomId;
use cabinet_durability::RoomIds;
use cabinet_host::{GameOptions, Host, HostOptions, MemoryServices, Player, RoomConfig, Seed};

use super::fixture;

/// The key the reference host seals under.
pub const KEY: &[u8] = b"server-side-key";
/// When its rooms were parked.
pub const AT: i64 = 1_700_000_000_000_000_000;

/// One that no store of these tests has.
pub fn room(n: u8) -> RoomId {
    RoomIds::default().next(1_600_000_000_000, [n; 8])
}

/// An `SCK1` snapshot of the game `tour` with Ada in it.
pub fn snapshot() -> Vec<u8> {
    let wasm = fs::read(fixture("tour.wasm")).unwrap();
    let mut load = GameOptions::default();
    load.deadline = std::time::Duration::from_secs(60);
    let game = Host::new(HostOptions::default())
        .unwrap()
        .load(&wasm, &load);
    let mut room = game.unwrap().room(
        RoomConfig::new(Seed::Set(7)),
        Box::new(MemoryServices::new()),
    );
    let _ = room.start(AT);
    let _ = room.join(AT, Player::member("ada", "Ada", "c1"));
    room.snapshot_sck1(3).unwrap()
}

/// A payload and its tag, as the reference seals.
pub fn sealed(payload: &[u8]) -> Vec<u8> {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, KEY);
    let tag = ring::hmac::sign(&key, payload);
    [payload, tag.as_ref()].concat()
}

/// A parked record without its seal: its header, then the snapshot.
pub fn record(room: RoomId, slug: &str, blob: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend((text.len() as u16).to_le_bytes());
        out.extend(text.as_bytes());
    };
    out.extend(0x5343_4831_u32.to_le_bytes());
    out.extend(1_u32.to_le_bytes());
    text(&mut out, slug);
    text(&mut out, &room.to_string());
    out.extend(AT.to_le_bytes());
    out.extend(2_u16.to_le_bytes());
    for account in ["ada", "bob"] {
        text(&mut out, account);
        text(&mut out, "handle");
    }
    out.extend(blob);
    out
}
