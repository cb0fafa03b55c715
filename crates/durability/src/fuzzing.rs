//! What the fuzzer calls, one function for each decoder: whatever the bytes, nothing panics, and what
//! is read is what would be written. `tests/fuzz_corpus.rs` runs the committed corpora through the
//! same functions.

use std::sync::Arc;

use bytes::Bytes;
use cabinet_wire::ArtifactDigest;

use crate::codec::Reader;
use crate::entropy::SeededEntropy;
use crate::head::{Claim, Head};
use crate::ids::{Epoch, Fence, RoomId};
use crate::names::{self, RoomObject};
use crate::reference::{FORMAT, MAGIC, ParkedRecord, ReferenceKey, latest_pointer, open_sealed};
use crate::seal::{
    HEADER_BYTES, Keyring, Kind, MasterKey, Place, Sealer, Sealing, TAG_BYTES, Unverified, Wanted,
};

/// Bytes a record may come to.
const RAW_MAX: u64 = 1 << 20;
/// The room everything is said to be of.
const ROOM: &str = "0190b8a0-1234-7abc-8def-0123456789ab";

/// The bytes of the key, id 1, under which the corpus is sealed.
#[must_use]
pub fn master() -> [u8; 32] {
    std::array::from_fn(|n| n as u8)
}

fn room() -> RoomId {
    RoomId::from_bytes([
        0x01, 0x90, 0xb8, 0xa0, 0x12, 0x34, 0x7a, 0xbc, 0x8d, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89,
        0xab,
    ])
    // These are the bytes of `ROOM`; a test holds them to it.
    .unwrap_or_else(|error| panic!("{error}"))
}

fn sealers() -> [Sealer; 2] {
    let keys = MasterKey::new(1, master()).map(|key| Sealing::Keys(Keyring::new(key)));
    [
        keys.unwrap_or(Sealing::UnsealedForDevelopment),
        Sealing::UnsealedForDevelopment,
    ]
    .map(|sealing| Sealer::new(sealing, Arc::new(SeededEntropy::new(1))))
}

/// A record, as it is, and with its lengths and checksum mended so that its body is reached.
pub fn record(bytes: &[u8]) {
    let [keyed, bare] = sealers();
    open(&keyed, bytes);
    open(&bare, bytes);
    let mut mended = bytes.to_vec();
    if mended.len() >= HEADER_BYTES + TAG_BYTES {
        let (body, tag) = (
            mended.len() - HEADER_BYTES - TAG_BYTES,
            mended.len() - TAG_BYTES,
        );
        mended[7] = 1;
        mended[8..12].fill(0);
        mended[84..92].copy_from_slice(&(body as u64).to_le_bytes());
        let sum = ring::digest::digest(&ring::digest::SHA256, &mended[..tag]);
        mended[tag..].copy_from_slice(&sum.as_ref()[..TAG_BYTES]);
        open(&bare, &mended);
    }
}

fn open(sealer: &Sealer, bytes: &[u8]) {
    let Ok(unverified) = Unverified::parse(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    let wanted = Wanted::exactly(unverified.claimed());
    let Ok(verified) = unverified.verify(sealer, &wanted) else {
        return;
    };
    let place = *verified.place();
    if let Ok(raw) = verified.decode(RAW_MAX) {
        assert_eq!(raw.len() as u64, verified.raw_len());
        assert!(raw.len() as u64 <= RAW_MAX);
        // Salt and compression may differ; place and length are written as they were read.
        let again = sealer.seal(&place, &raw);
        assert!(again.is_ok_and(|again| again[12..84] == bytes[12..84]));
    }
}

/// A head's body, after its epoch, fence and artifact.
pub fn head(bytes: &[u8]) {
    let mut fields = Reader(bytes);
    let place = (|| {
        Some(Place {
            kind: Kind::Head,
            room: room(),
            epoch: Epoch(fields.u64()?),
            fence: Fence(fields.u64()?),
            artifact: ArtifactDigest(fields.array()?),
        })
    })();
    let Some(place) = place else { return };
    if let Ok(head) = Head::decode(&place, fields.0) {
        assert_eq!(head.place(), place);
        assert_eq!(head.encode().as_deref(), Ok(fields.0));
    }
}

/// A claim's body.
pub fn claim(bytes: &[u8]) {
    if let Some(claim) = Claim::decode(bytes) {
        assert_eq!(claim.encode(), bytes);
    }
}

/// The last segment of a key under a room's prefix.
pub fn room_object_name(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let key = match RoomObject::parse(text) {
        Some(RoomObject::Checkpoint(name)) => name.key(room()),
        Some(RoomObject::Claim(fence)) => names::claim(room(), fence),
        None => return,
    };
    assert_eq!(key.as_str(), format!("v1/rooms/{ROOM}/{text}"));
}

/// A record of the reference host, sealed and not.
pub fn reference_record(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(payload) = open_sealed(&ReferenceKey::new(b"server-side-key"), &bytes) {
        assert_eq!(payload.len() + 32, bytes.len());
        reference_header(&payload);
    }
    reference_header(&bytes);
}

fn reference_header(bytes: &Bytes) {
    let Ok(record) = ParkedRecord::decode(bytes) else {
        return;
    };
    let mut again = Vec::new();
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend((text.len() as u16).to_le_bytes());
        out.extend(text.as_bytes());
    };
    again.extend(MAGIC.to_le_bytes());
    again.extend(FORMAT.to_le_bytes());
    text(&mut again, &record.header.slug);
    text(&mut again, &record.room);
    again.extend(record.header.at.to_le_bytes());
    again.extend((record.header.roster.len() as u16).to_le_bytes());
    for member in &record.header.roster {
        text(&mut again, &member.account);
        text(&mut again, &member.handle);
    }
    again.extend_from_slice(&record.body);
    assert_eq!(again, bytes[..]);
}

/// The text of a latest pointer.
pub fn reference_pointer(bytes: &[u8]) {
    if let Ok(epoch) = latest_pointer(ROOM, bytes) {
        assert!(i64::try_from(epoch.0).is_ok());
        assert!(bytes.starts_with(format!("snapshots/{ROOM}/").as_bytes()));
        let canonical = format!("snapshots/{ROOM}/{:020}", epoch.0);
        assert_eq!(latest_pointer(ROOM, canonical.as_bytes()), Ok(epoch));
    }
}

#[cfg(test)]
mod tests;
