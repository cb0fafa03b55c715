//! Rooms of the reference host: a parked record and a checkpoint with its pointer, in its formats,
//! resume here, once, and go on in ours.

mod common;
mod kept;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cabinet_durability::reference::{ReferenceKey, ReferenceStore};
use cabinet_durability::store::{BlobStore, Condition, Key, MemoryStore};
use cabinet_durability::{RoomId, RoomIds};
use cabinet_host::{Game, MemoryServices, Player, RoomConfig, Sck1, Seed};
use cabinet_rooms::Listing;
use cabinet_rooms::keeper::ResumeError;
use cabinet_wire::Lifecycle;

use common::{EPOCH, WIDE, game, load, spec};
use kept::{Process, Store, process};

const KEY: &[u8] = b"server-side-key";

fn room_id() -> RoomId {
    "0190b8a0-1234-7abc-8def-0123456789ab".parse().unwrap()
}

/// A payload and its tag, as the reference seals.
fn sealed(payload: &[u8]) -> Bytes {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, KEY);
    let tag = ring::hmac::sign(&key, payload);
    [payload, tag.as_ref()].concat().into()
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A parked record: its header, then the snapshot.
fn parked_record(slug: &str, room: RoomId, accounts: &[&str], blob: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(0x5343_4831_u32.to_le_bytes());
    out.extend(1_u32.to_le_bytes());
    text(&mut out, slug);
    text(&mut out, &room.to_string());
    out.extend(EPOCH.to_le_bytes());
    out.extend((accounts.len() as u16).to_le_bytes());
    for account in accounts {
        text(&mut out, account);
        text(&mut out, "handle");
    }
    out.extend(blob);
    out
}

async fn put(store: &MemoryStore, name: &str, bytes: impl Into<Bytes>) {
    let key = Key::new(name).unwrap();
    store
        .put(&key, bytes.into(), Condition::None)
        .await
        .unwrap();
}

/// What the reference host left: a parked room, and another that was checkpointed at epoch 7.
async fn left_behind(slug: &str, parked: RoomId, live: RoomId, blob: &[u8]) -> ReferenceStore {
    let store = MemoryStore::new();
    let record = parked_record(slug, parked, &["a1", "a2"], blob);
    put(&store, &format!("snapshots/{parked}"), sealed(&record)).await;
    let epoch = format!("snapshots/{live}/{:020}", 7);
    put(&store, &epoch, sealed(blob)).await;
    put(&store, &format!("snapshots/{live}/latest"), epoch.clone()).await;
    let store: Arc<dyn BlobStore> = Arc::new(store);
    ReferenceStore::new(store, ReferenceKey::new(KEY))
}

/// Resumes both, and shows that they are ours from then on.
async fn resumes(game: Game, slug: &str, blob: &[u8]) {
    let (parked, live) = (
        room_id(),
        RoomIds::default().next(1_700_000_000_000, [8; 8]),
    );
    let reference = left_behind(slug, parked, live, blob).await;
    let store = Arc::new(Store::default());
    let process: Process = process(&store, "new");
    let listing = Listing::new(game)
        .with_lifecycle(Lifecycle::Resumable)
        .with_slug(slug.parse().unwrap());
    process.registry.add(listing).unwrap();
    let resume = async |account: &str| {
        process
            .keeper
            .resume_reference(
                &process.runtime,
                &process.registry,
                &reference,
                parked,
                account,
                spec(),
            )
            .await
    };
    let stranger = resume("a9").await.expect_err("refused");
    assert!(matches!(stranger, ResumeError::NotFound), "{stranger}");
    let room = resume("a1").await.unwrap();
    assert_eq!(room.id(), parked);
    let mut seat = room.join(Player::member("a1", "ada", "c1")).await.unwrap();
    let before = seat.frames().next().await.expect("it draws").frame;

    // It is ours: parked here, it is found here, and never again there.
    let again = resume("a1").await.expect_err("refused");
    assert!(matches!(again, ResumeError::AlreadyResumed), "{again}");
    room.hibernate().await.unwrap();
    drop(seat);
    let again = resume("a1").await.expect_err("refused");
    assert!(matches!(again, ResumeError::AlreadyResumed), "{again}");
    let room = process
        .keeper
        .resume(&process.runtime, &process.registry, parked, "a1", spec())
        .await
        .unwrap();
    let mut seat = room.join(Player::member("a1", "ada", "c1")).await.unwrap();
    let after = seat.frames().next().await.expect("it draws").frame;
    assert_eq!(before.rows().len(), after.rows().len());

    let reclaim = async || {
        process
            .keeper
            .reclaim_reference(
                &process.runtime,
                &process.registry,
                &reference,
                live,
                slug,
                spec(),
            )
            .await
    };
    let room = reclaim().await.unwrap();
    // Written in our format at once.
    let head = process.keeper.vault().head(live).await.unwrap().unwrap();
    assert_eq!(head.epoch().0, 1);
    room.evict();
    room.ended().await;
    let again = reclaim().await.expect_err("refused");
    assert!(matches!(again, ResumeError::AlreadyResumed), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_in_the_references_formats_resume_once_and_are_ours_then() {
    let game = game("tour.wasm");
    let mut room = game.room(
        RoomConfig::new(Seed::Set(7)),
        Box::new(MemoryServices::new()),
    );
    let _ = room.start(EPOCH);
    let _ = room.join(EPOCH, Player::member("a1", "ada", "c1"));
    let blob = match room.snapshot_sck1(3) {
        Ok(blob) => blob,
        Err(error) => panic!("{error}"),
    };
    drop(room);
    resumes(game, "tour", &blob).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_references_own_snapshots_resume_from_its_own_records() {
    let vectors = std::env::var_os("CABINET_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"),
        PathBuf::from,
    );
    let kit = std::env::var_os("CABINET_REFERENCE").map(PathBuf::from);
    let (Some(kit), true) = (kit, vectors.join("snapshots").is_dir()) else {
        eprintln!("SKIPPED: the reference's snapshots: want CABINET_VECTORS and CABINET_REFERENCE");
        return;
    };
    for name in ["fixture", "fixture-rs", "fixture-rs-kit"] {
        let wasm = kit.join(format!("host/gameabi/testdata/{name}/{name}.wasm"));
        let game = load(&std::fs::read(wasm).unwrap(), WIDE);
        let blob = std::fs::read(vectors.join(format!("snapshots/trace-{name}.snap"))).unwrap();
        let decoded = Sck1::decode(&blob, game.snapshot_bytes_max()).unwrap();
        assert_eq!(decoded.artifact, game.digest());
        resumes(game, "game", &blob).await;
    }
}
