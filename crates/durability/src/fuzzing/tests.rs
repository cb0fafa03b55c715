//! Writes the seeds of the corpora, when asked to by `CABINET_WRITE_VECTORS=1`, and holds the
//! functions to what they are for.

use std::path::Path;

use super::*;
use crate::head::{Hand, Header, Member, ObjectRef};
use crate::ids::OwnerId;
use crate::names::ObjectName;

fn object(epoch: u64, fence: u64) -> ObjectRef {
    let digest = [epoch as u8; 32];
    ObjectRef {
        name: ObjectName::new(Epoch(epoch), Fence(fence), 1_700_000_000_000, &digest),
        digest,
        bytes: 99,
        artifact: ArtifactDigest([8; 32]),
    }
}

fn hand() -> Hand {
    Hand {
        owner: OwnerId::named("a"),
        nonce: [3; 16],
        at_ms: 1_700_000_000_000,
    }
}

fn heads() -> Vec<Head> {
    let first = Head::first(room(), hand());
    let live = first.advanced(object(4, 1), hand());
    let roster = [("a1", "ada"), ("", "guest")].map(|(account, handle)| Member {
        account: account.into(),
        handle: handle.into(),
    });
    let header = Header {
        slug: "ada/chess".into(),
        at: 1_700_000_000_123_456_789,
        roster: roster.into(),
    };
    let parked = live.claimed(hand()).parked(object(5, 2), header, hand());
    let closed = parked.closed(crate::head::Standing::Expired, hand());
    vec![first, live.clone(), live.claimed(hand()), parked, closed]
}

fn head_seed(head: &Head) -> Vec<u8> {
    let place = head.place();
    let mut out = Vec::new();
    out.extend(place.epoch.0.to_le_bytes());
    out.extend(place.fence.0.to_le_bytes());
    out.extend(place.artifact.0);
    out.extend(head.encode().expect("it fits"));
    out
}

fn reference_seed(roster: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend((text.len() as u16).to_le_bytes());
        out.extend(text.as_bytes());
    };
    out.extend(MAGIC.to_le_bytes());
    out.extend(FORMAT.to_le_bytes());
    text(&mut out, "fixture");
    text(&mut out, ROOM);
    out.extend(1_700_000_000_123_456_789i64.to_le_bytes());
    out.extend((roster.len() as u16).to_le_bytes());
    for (account, handle) in roster {
        text(&mut out, account);
        text(&mut out, handle);
    }
    out.extend(b"1KCS");
    out
}

/// Good seeds of every target.
fn seeds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let mut records = Vec::new();
    for sealer in sealers() {
        for head in heads() {
            let body = head.encode().expect("it fits");
            records.push(
                sealer
                    .seal(&head.place(), &body)
                    .expect("it seals")
                    .to_vec(),
            );
        }
        let place = heads()[1].place();
        records.push(sealer.seal(&place, b"").expect("it seals").to_vec());
        records.push(sealer.seal(&place, &[0; 5_000]).expect("it seals").to_vec());
    }
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"server-side-key");
    let bare = reference_seed(&[("a1", "ada"), ("a2", "bob")]);
    let sealed = [&bare[..], ring::hmac::sign(&key, &bare).as_ref()].concat();
    let checkpoint = object(7, 3).name.key(room());
    let claim = names::claim(room(), Fence(3));
    let segment = |key: &crate::store::Key| {
        let last = key.as_str().rsplit('/').next().unwrap_or_default();
        last.as_bytes().to_vec()
    };
    let pointer = |tail: &str| format!("snapshots/{ROOM}/{tail}").into_bytes();
    vec![
        ("record", records),
        ("head", heads().iter().map(head_seed).collect()),
        (
            "claim",
            heads()
                .iter()
                .map(|head| Claim::of(head).encode())
                .collect(),
        ),
        (
            "room_object_name",
            vec![segment(&checkpoint), segment(&claim)],
        ),
        ("reference_record", vec![bare, sealed, reference_seed(&[])]),
        (
            "reference_pointer",
            ["00000000000000000007", "5", "+7", "9223372036854775807"]
                .map(pointer)
                .into(),
        ),
    ]
}

#[test]
fn good_seeds_are_read() {
    let [keyed, bare] = sealers();
    let seeds = seeds();
    for bytes in &seeds[0].1 {
        let record = Unverified::parse(bytes.clone().into()).expect("a record");
        let sealer = [&bare, &keyed][usize::from(record.key_id() == 1)];
        let wanted = Wanted::exactly(record.claimed());
        assert!(sealer.open(bytes.clone().into(), &wanted, RAW_MAX).is_ok());
    }
    for bytes in &seeds[2].1 {
        assert!(Claim::decode(bytes).is_some());
    }
    assert_eq!(room().to_string(), ROOM);
}

#[test]
fn seeds_are_written_when_asked_for() {
    for (target, good) in seeds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(target);
        for (n, good) in good.iter().enumerate() {
            let mut flipped = good.clone();
            let at = (n * 7 + 3) % good.len();
            flipped[at] ^= 1 << (n % 8);
            let variants = [
                ("good", &good[..]),
                ("cut", &good[..good.len() * 2 / 3]),
                ("flipped", &flipped[..]),
            ];
            for (variant, bytes) in variants {
                if std::env::var_os("CABINET_WRITE_VECTORS").is_some_and(|asked| asked == "1") {
                    std::fs::create_dir_all(&folder).expect("a folder");
                    let path = folder.join(format!("{variant}-{n}"));
                    std::fs::write(path, bytes).expect("it is written");
                }
            }
        }
    }
}
