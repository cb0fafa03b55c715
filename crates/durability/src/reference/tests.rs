//! The reference's golden vectors, each limit and one past it, and what a bucket may hold.

use super::*;
use crate::ids::OwnerId;
use crate::seal::{Keyring, MasterKey, Sealing};
use crate::store::{Condition, MemoryStore};
use crate::vault::VaultOptions;

const ROOM: &str = "0190b8a0-1234-7abc-8def-0123456789ab";
const OTHER: &str = "0190b8a0-1234-7abc-8def-0123456789ac";
const KEY: &[u8] = b"server-side-key";

/// The reference's record of {slug fixture, room room-7, at 1700000000.123456789, a1/ada, a2/bob}.
const GOLDEN_HEADER: &str = "31484353010000000700666978747572650600726f6f6d2d3715cd853dfe9c9717\
                             0200020061310300616461020061320300626f62";

fn hex(digits: &str) -> Vec<u8> {
    let digits = digits.as_bytes();
    digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("digits");
            u8::from_str_radix(pair, 16).expect("digits")
        })
        .collect()
}

fn room(text: &str) -> RoomId {
    text.parse().expect("a room id")
}

fn seal(key: &[u8], payload: &[u8]) -> Bytes {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    [payload, hmac::sign(&key, payload).as_ref()]
        .concat()
        .into()
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text);
}

fn record(room: &str, at: i64, roster: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(MAGIC.to_le_bytes());
    out.extend(FORMAT.to_le_bytes());
    put_text(&mut out, b"fixture");
    put_text(&mut out, room.as_bytes());
    out.extend(at.to_le_bytes());
    out.extend((roster.len() as u16).to_le_bytes());
    for (account, handle) in roster {
        put_text(&mut out, account.as_bytes());
        put_text(&mut out, handle.as_bytes());
    }
    out.extend(body);
    out
}

async fn put(store: &MemoryStore, key: &str, bytes: impl Into<Bytes>) {
    let key = Key::new(key).expect("a key");
    store
        .put(&key, bytes.into(), Condition::None)
        .await
        .expect("a memory store takes it");
}

fn reader(store: &Arc<MemoryStore>) -> ReferenceStore {
    ReferenceStore::new(store.clone(), ReferenceKey::new(KEY))
}

/// How a call failed, for a record that is not to be used.
fn damage<T: fmt::Debug>(read: Result<T, ReferenceError>) -> Damage {
    match read {
        Err(ReferenceError::Corrupt(damage)) => damage,
        other => panic!("not refused as corrupt: {other:?}"),
    }
}

#[test]
fn the_references_seals_open() {
    for (key, payload, tag) in [
        (
            KEY,
            &b"room checkpoint bytes"[..],
            "0f121d2b5f918d0279ab1a43c8e334daac59f46315d1244879adaee5dbb8eb11",
        ),
        (
            b"k",
            b"",
            "8bb990c40a7d61cb97597a942125025be50ac8beb74436e3735b98893a7f6620",
        ),
    ] {
        let sealed = Bytes::from([payload, &hex(tag)].concat());
        let opened = open_sealed(&ReferenceKey::new(key), &sealed);
        assert_eq!(opened.as_deref(), Ok(payload));
    }
}

#[test]
fn no_changed_cut_or_extended_seal_opens() {
    let sealed = seal(KEY, b"room checkpoint bytes");
    let key = ReferenceKey::new(KEY);
    for bit in 0..sealed.len() * 8 {
        let mut changed = sealed.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            open_sealed(&key, &changed.into()),
            Err(Damage::Seal),
            "bit {bit}"
        );
    }
    for length in 0..sealed.len() {
        let cut = sealed.slice(..length);
        assert_eq!(open_sealed(&key, &cut), Err(Damage::Seal), "{length} bytes");
    }
    let longer = Bytes::from([&sealed[..], &[0]].concat());
    assert_eq!(open_sealed(&key, &longer), Err(Damage::Seal));
    let other = ReferenceKey::new(b"another key");
    assert_eq!(open_sealed(&other, &sealed), Err(Damage::Seal));
}

#[test]
fn the_references_header_reads() {
    let bytes = Bytes::from([&hex(GOLDEN_HEADER)[..], b"the snapshot"].concat());
    let read = ParkedRecord::decode(&bytes).expect("it is one");
    let member = |account: &str, handle: &str| Member {
        account: account.into(),
        handle: handle.into(),
    };
    assert_eq!(read.room, "room-7");
    assert_eq!(
        read.header,
        Header {
            slug: "fixture".into(),
            at: 1_700_000_000_123_456_789,
            roster: vec![member("a1", "ada"), member("a2", "bob")],
        }
    );
    assert_eq!(&read.body[..], b"the snapshot");
    assert_eq!(import_unsealed(&bytes), Ok(read));
}

#[test]
fn a_header_that_is_cut_or_is_something_else_is_refused_as_that() {
    let header = hex(GOLDEN_HEADER);
    for length in 0..header.len() {
        assert_eq!(
            import_unsealed(&header[..length]),
            Err(Damage::End),
            "{length}"
        );
    }
    let mut other = header.clone();
    other[0] ^= 1;
    assert_eq!(import_unsealed(&other), Err(Damage::Magic));
    let mut newer = header.clone();
    newer[4] = 2;
    assert_eq!(import_unsealed(&newer), Err(Damage::Format { found: 2 }));
    let mut latin = header;
    latin[10] = 0xE4;
    assert_eq!(import_unsealed(&latin), Err(Damage::Utf8));
}

#[test]
fn a_text_of_4096_bytes_is_taken_and_a_longer_one_is_not() {
    let of = |length: usize| record(ROOM, 1, &[("a", &"h".repeat(length))], b"");
    let read = import_unsealed(&of(TEXT_BYTES_MAX)).expect("it is not too long");
    assert_eq!(read.header.roster[0].handle.len(), TEXT_BYTES_MAX);
    assert_eq!(
        import_unsealed(&of(TEXT_BYTES_MAX + 1)),
        Err(Damage::Text(TEXT_BYTES_MAX + 1))
    );
}

#[test]
fn the_largest_roster_reads_and_a_count_without_members_takes_no_memory() {
    let full = record(ROOM, 1, &vec![("", "g"); 65_535], b"body");
    let read = import_unsealed(&full).expect("it is not too large");
    assert_eq!(
        (read.header.roster.len(), &read.body[..]),
        (65_535, &b"body"[..])
    );
    let mut lies = record(ROOM, 1, &[], b"");
    let at = lies.len() - 2;
    lies[at..].copy_from_slice(&u16::MAX.to_le_bytes());
    assert_eq!(import_unsealed(&lies), Err(Damage::End));
}

#[test]
fn a_pointer_is_parsed_as_the_reference_does() {
    let of = |tail: &str| latest_pointer(ROOM, format!("snapshots/{ROOM}/{tail}").as_bytes());
    for (tail, epoch) in [
        ("00000000000000000007", 7),
        ("5", 5),
        ("+7", 7),
        ("-0", 0),
        ("0", 0),
        ("9223372036854775807", i64::MAX as u64),
        ("00009223372036854775807", i64::MAX as u64),
    ] {
        assert_eq!(of(tail), Ok(Epoch(epoch)), "{tail}");
    }
    for tail in [
        "",
        "-1",
        "9223372036854775808",
        "7/",
        "7/8",
        "7\n",
        " 7",
        "0x7",
        "1_000",
        "latest",
        "+",
        "７",
    ] {
        assert_eq!(of(tail), Err(Damage::Pointer), "{tail}");
    }
    for text in [
        &b""[..],
        b"snapshots/",
        b"\xff",
        format!("snapshots/{OTHER}/7").as_bytes(),
        format!("snapshots/{ROOM}7").as_bytes(),
        format!("/snapshots/{ROOM}/7").as_bytes(),
        format!("Snapshots/{ROOM}/7").as_bytes(),
    ] {
        assert_eq!(latest_pointer(ROOM, text), Err(Damage::Pointer), "{text:?}");
    }
}

#[tokio::test]
async fn the_newest_checkpoint_is_the_one_its_pointer_names() {
    let store = Arc::new(MemoryStore::new());
    let reader = reader(&store);
    let latest = async || reader.latest(room(ROOM)).await;
    assert!(matches!(latest().await, Err(ReferenceError::NoCheckpoint)));

    let pointer = format!("snapshots/{ROOM}/latest");
    let golden = format!("snapshots/{ROOM}/00000000000000000007");
    put(&store, &pointer, golden.clone()).await;
    assert_eq!(damage(latest().await), Damage::Absent);
    put(&store, &golden, seal(KEY, b"state")).await;
    assert_eq!(
        latest().await.expect("it is there"),
        (Epoch(7), Bytes::from_static(b"state"))
    );

    put(&store, &golden, seal(b"another key", b"state")).await;
    assert_eq!(damage(latest().await), Damage::Seal);
    put(&store, &golden, seal(KEY, b"state")).await;
    put(&store, &pointer, format!("snapshots/{ROOM}/7")).await;
    assert_eq!(damage(latest().await), Damage::Absent);
    put(
        &store,
        &pointer,
        format!("snapshots/{OTHER}/00000000000000000007"),
    )
    .await;
    assert_eq!(damage(latest().await), Damage::Pointer);
    put(&store, &pointer, vec![b'0'; 129]).await;
    assert_eq!(damage(latest().await), Damage::Pointer);
}

#[tokio::test]
async fn an_object_of_the_most_bytes_is_read_and_a_longer_one_is_not() {
    let store = Arc::new(MemoryStore::new());
    let sealed = seal(KEY, b"state");
    let name = format!("snapshots/{ROOM}/00000000000000000000");
    put(&store, &name, sealed.clone()).await;
    put(&store, &format!("snapshots/{ROOM}/latest"), name).await;
    let max = sealed.len() as u64;
    let at = reader(&store).with_bytes_max(max).latest(room(ROOM)).await;
    assert_eq!(at.expect("it fits").0, Epoch(0));
    let past = reader(&store)
        .with_bytes_max(max - 1)
        .latest(room(ROOM))
        .await;
    assert_eq!(
        damage(past),
        Damage::TooLarge {
            bytes: max,
            max: max - 1
        }
    );
}

#[tokio::test]
async fn a_parked_room_reads_where_it_belongs_and_nowhere_else() {
    let store = Arc::new(MemoryStore::new());
    let reader = reader(&store);
    let sealed = seal(KEY, &record(ROOM, 5, &[("a1", "ada")], b"state"));
    put(&store, &format!("snapshots/{ROOM}"), sealed.clone()).await;
    let (header, body) = reader.parked(room(ROOM)).await.expect("it is there");
    assert!(header.has("a1"));
    assert_eq!(&body[..], b"state");
    let absent = reader.parked(room(OTHER)).await;
    assert!(matches!(absent, Err(ReferenceError::NoCheckpoint)));
    put(&store, &format!("snapshots/{OTHER}"), sealed).await;
    assert_eq!(damage(reader.parked(room(OTHER)).await), Damage::OtherRoom);
    // An older, unsealed record is not let through.
    let bare = record(ROOM, 5, &[("a1", "ada")], &[0; 64]);
    put(&store, &format!("snapshots/{ROOM}"), bare).await;
    assert_eq!(damage(reader.parked(room(ROOM)).await), Damage::Seal);
}

#[tokio::test]
async fn a_listing_shows_parked_rooms_newest_first_and_counts_the_rest() {
    let store = Arc::new(MemoryStore::new());
    let ids: Vec<String> = (0..5)
        .map(|n| format!("0190b8a0-1234-7abc-8def-01234567890{n}"))
        .collect();
    for (at, id) in ids.iter().enumerate().take(3) {
        put(
            &store,
            &format!("snapshots/{id}"),
            seal(KEY, &record(id, at as i64, &[], b"x")),
        )
        .await;
    }
    put(&store, &format!("snapshots/{}", ids[3]), "no seal").await;
    put(
        &store,
        &format!("snapshots/{}", ids[4]),
        seal(KEY, &record(&ids[0], 9, &[], b"x")),
    )
    .await;
    put(
        &store,
        &format!("snapshots/{ROOM}/latest"),
        "a checkpoint's",
    )
    .await;
    put(&store, "snapshots/readme", "foreign").await;
    let listed = reader(&store)
        .list_parked()
        .await
        .expect("it can be listed");
    let shown: Vec<String> = listed
        .rooms
        .iter()
        .map(|(room, _)| room.to_string())
        .collect();
    assert_eq!(shown, [&ids[2][..], &ids[1], &ids[0]]);
    assert_eq!((listed.damaged, listed.foreign), (2, 1));
}

#[tokio::test]
async fn a_room_that_is_ours_is_never_read_from_the_reference() {
    let store = Arc::new(MemoryStore::new());
    let master = MasterKey::new(1, std::array::from_fn(|n| n as u8)).expect("a key");
    let vault = Vault::open(
        store.clone(),
        Sealing::Keys(Keyring::new(master)),
        VaultOptions::new(OwnerId::named("a")),
    )
    .expect("it opens");
    let reader = reader(&store);
    let name = format!("snapshots/{ROOM}/00000000000000000003");
    put(&store, &name, seal(KEY, b"state")).await;
    put(&store, &format!("snapshots/{ROOM}/latest"), name).await;
    put(
        &store,
        &format!("snapshots/{ROOM}"),
        seal(KEY, &record(ROOM, 5, &[], b"parked")),
    )
    .await;
    let id = room(ROOM);
    assert!(vault.reference_latest(&reader, id).await.is_ok());
    assert!(vault.reference_parked(&reader, id).await.is_ok());

    let lease = vault.create(id, 1).await.expect("it is new");
    let moved = vault.reference_latest(&reader, id).await;
    assert!(matches!(moved, Err(ReferenceError::Moved)));
    let moved = vault.reference_parked(&reader, id).await;
    assert!(matches!(moved, Err(ReferenceError::Moved)));

    // Nor when its head was lost, or is damaged.
    let artifact = cabinet_wire::ArtifactDigest([1; 32]);
    let packed = lease
        .pack(lease.next_epoch(), artifact, b"newer", 2)
        .expect("it packs");
    lease.write(&packed, 2).await.expect("it is written");
    let head = Key::new(format!("v1/heads/{ROOM}")).expect("a key");
    store
        .delete(std::slice::from_ref(&head))
        .await
        .expect("it is deleted");
    let lost = vault.reference_latest(&reader, id).await;
    assert!(matches!(
        lost,
        Err(ReferenceError::Ours(VaultError::HeadLost))
    ));
    put(&store, head.as_str(), "not a head").await;
    let damaged = vault.reference_latest(&reader, id).await;
    assert!(matches!(
        damaged,
        Err(ReferenceError::Ours(VaultError::Corrupt { .. }))
    ));
}

#[test]
fn the_key_is_not_printed() {
    let key = ReferenceKey::new(b"hunter2");
    let store = ReferenceStore::new(Arc::new(MemoryStore::new()), key);
    assert!(!format!("{store:?}").contains("hunter2"));
    assert!(
        !format!("{store:?}").contains("104"),
        "the first byte, as a number"
    );
}
