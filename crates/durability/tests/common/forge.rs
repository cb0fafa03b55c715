//! A second writer of records, from the format's description: proves the description, and writes
//! what the real one never would.

use bytes::Bytes;
use cabinet_durability::seal::{Keyring, MasterKey, Place, Sealer, Sealing};
use cabinet_durability::{Epoch, Fence, RoomId, RoomIds, SystemEntropy};
use cabinet_wire::ArtifactDigest;
use ring::{aead, hkdf};
use std::sync::Arc;

/// The bytes of the master key of that id.
pub fn master(id: u32) -> [u8; 32] {
    std::array::from_fn(|n| (n as u8).wrapping_mul(7) ^ id as u8)
}

pub fn key(id: u32) -> MasterKey {
    MasterKey::new(id, master(id)).expect("it is random enough")
}

/// A sealer under the key of that id.
pub fn sealer(id: u32) -> Sealer {
    with(Sealing::Keys(Keyring::new(key(id))))
}

pub fn with(sealing: Sealing) -> Sealer {
    Sealer::new(sealing, Arc::new(SystemEntropy))
}

pub fn room(n: u8) -> RoomId {
    RoomIds::default().next(1_700_000_000_000, [n; 8])
}

/// A place like any other.
pub fn place() -> Place {
    Place {
        kind: cabinet_durability::seal::Kind::Checkpoint,
        room: room(1),
        epoch: Epoch(7),
        fence: Fence(3),
        artifact: ArtifactDigest([5; 32]),
    }
}

struct Length;

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        32
    }
}

fn derive(salt: &[u8], secret: &[u8], info: &[&[u8]]) -> [u8; 32] {
    let mut out = [0; 32];
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(info, Length)
        .and_then(|okm| okm.fill(&mut out))
        .expect("32 bytes can be had");
    out
}

/// A record, sealed under the key of id 1, that says it holds `raw` bytes, with this compressed
/// body.
pub fn sealed(place: &Place, raw: u64, body: &[u8]) -> Bytes {
    let salt = [9; 32];
    let mut out = Vec::new();
    out.extend(b"CABR");
    out.extend(1u16.to_le_bytes());
    out.push(place.kind as u8);
    out.push(0);
    out.extend(1u32.to_le_bytes());
    out.extend(place.room.as_bytes());
    out.extend(place.epoch.0.to_le_bytes());
    out.extend(place.fence.0.to_le_bytes());
    out.extend(place.artifact.as_bytes());
    out.extend(raw.to_le_bytes());
    out.extend((body.len() as u64).to_le_bytes());
    out.extend(salt);
    assert_eq!(out.len(), 124);

    let room_key = derive(b"", &master(1), &[b"cabinet room 1", place.room.as_bytes()]);
    let record_key = derive(&salt, &room_key, &[b"cabinet record 1"]);
    let key = aead::UnboundKey::new(&aead::AES_256_GCM, &record_key).expect("32 bytes");
    let key = aead::LessSafeKey::new(key);
    let mut body = body.to_vec();
    let nonce = aead::Nonce::assume_unique_for_key([0; 12]);
    let tag = key
        .seal_in_place_separate_tag(nonce, aead::Aad::from(&out[..]), &mut body)
        .expect("it is short");
    out.extend(body);
    out.extend(tag.as_ref());
    out.into()
}
