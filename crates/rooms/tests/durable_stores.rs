//! The store on disk: what every store does, and that it is there after closing.

mod stores;

use std::fs;
use std::path::Path;

use cabinet_rooms::services::Posted;
use cabinet_rooms::services::durable::{DurableOptions, DurableStore, FORMAT_VERSION, OpenError};
use cabinet_rooms::services::memory::MemoryStore;
use proptest::prelude::*;
use redb::TableDefinition;
use stores::{Stores, every_store_behaves, post};

fn open(directory: &Path) -> Result<DurableStore, OpenError> {
    DurableStore::open(directory, &DurableOptions::default())
}

#[test]
fn the_store_on_disk_behaves_like_every_store() {
    let directory = tempfile::tempdir().unwrap();
    let mut count = 0;
    every_store_behaves(|| {
        count += 1;
        Stores::of(&open(&directory.path().join(count.to_string())).unwrap())
    });
}

#[test]
fn everything_is_there_after_closing() {
    let directory = tempfile::tempdir().unwrap();
    let landed = post("g", 1, 100, &[("a", 7)]);
    {
        let stores = Stores::of(&open(directory.path()).unwrap());
        stores.set(("g", "a", b"k"), "5", b"max");
        stores.set_config("g", b"host.heartbeat_ms", Some(b"200"));
        stores.post(&landed);
    }
    let stores = Stores::of(&open(directory.path()).unwrap());
    assert_eq!(stores.get(("g", "a", b"k")), Some(b"5".to_vec()));
    assert_eq!(
        stores.config("g", b"host.heartbeat_ms"),
        Some(b"200".to_vec())
    );
    assert_eq!(stores.post(&landed), Posted::Duplicate);
    assert_eq!(stores.post(&post("g", 1, 100, &[("a", 8)])), Posted::Landed);
    assert_eq!(stores.results("g").len(), 2);
}

#[test]
fn a_store_is_open_once() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).unwrap();
    assert!(matches!(
        open(directory.path()),
        Err(OpenError::InUse { .. })
    ));
    drop(first);
    open(directory.path()).unwrap();
}

#[test]
fn a_half_made_store_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("store.redb.new"), b"half").unwrap();
    let stores = Stores::of(&open(directory.path()).unwrap());
    stores.set(("g", "a", b"k"), "v", b"");
    assert!(!directory.path().join("store.redb.new").exists());
}

#[test]
fn a_directory_that_cannot_be_made_is_an_io_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(open(&file), Err(OpenError::Io { .. })));
    assert!(matches!(
        open(&file.join("below")),
        Err(OpenError::Io { .. })
    ));
}

const META: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("meta");

/// A store whose format version reads as `version`, or is not there.
fn with_version(version: Option<&[u8]>) -> Result<DurableStore, OpenError> {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).unwrap());
    let database = redb::Database::open(directory.path().join("store.redb")).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut meta = write.open_table(META).unwrap();
        match version {
            Some(version) => meta.insert(&b"format"[..], version).unwrap(),
            None => meta.remove(&b"format"[..]).unwrap(),
        };
    }
    write.commit().unwrap();
    drop(database);
    open(directory.path())
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    drop(with_version(Some(&FORMAT_VERSION.to_le_bytes())).unwrap());
    let newer = FORMAT_VERSION + 1;
    let refused = with_version(Some(&newer.to_le_bytes()));
    assert!(matches!(refused, Err(OpenError::NewerFormat { found, .. }) if found == newer));
}

#[test]
fn a_format_that_never_was_is_damage() {
    for version in [
        None,
        Some(&b""[..]),
        Some(b"\x01"),
        Some(b"\0\0\0\0"),
        Some(b"\x01\0\0\0\0"),
    ] {
        let refused = with_version(version);
        assert!(
            matches!(refused, Err(OpenError::Corrupt { .. })),
            "{version:?}"
        );
    }
}

#[test]
fn files_that_are_no_store_are_damage() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).unwrap());
    let path = directory.path().join("store.redb");
    let whole = fs::read(&path).unwrap();
    let mut garbled = whole.clone();
    for byte in &mut garbled[9..320] {
        *byte ^= 0xA5;
    }
    for (name, bytes) in [
        ("text", b"not a store at all".to_vec()),
        ("empty", Vec::new()),
        ("zeros", vec![0; whole.len()]),
        ("the first page alone", whole[..4_096].to_vec()),
        ("half", whole[..whole.len() / 2].to_vec()),
        ("a garbled header", garbled),
        ("another's redb file", another()),
    ] {
        fs::write(&path, bytes).unwrap();
        let refused = open(directory.path());
        assert!(
            matches!(refused, Err(OpenError::Corrupt { .. })),
            "{name}: {refused:?}"
        );
    }
    fs::write(&path, whole).unwrap();
    open(directory.path()).unwrap();
}

fn another() -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    drop(redb::Database::create(file.path()).unwrap());
    fs::read(file.path()).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Set(Place, &'static str, &'static [u8]),
    Delete(Place),
    Merge(&'static str, &'static str, &'static str),
    Configure(&'static str, Option<&'static [u8]>),
    Post(&'static str, u32, i64, Vec<(&'static str, i64)>),
    Reopen,
}

type Place = (&'static str, &'static str, &'static [u8]);

fn slug() -> impl Strategy<Value = &'static str> + Clone {
    proptest::sample::select(vec!["g", "g2"])
}

fn account() -> impl Strategy<Value = &'static str> + Clone {
    proptest::sample::select(vec!["", "a", "b", "ab"])
}

fn step() -> impl Strategy<Value = Step> {
    let keys: Vec<&[u8]> = vec![b"k", b"k2", b"b"];
    let place = (slug(), account(), proptest::sample::select(keys));
    let values = proptest::sample::select(vec!["", "1", " 7\n", "-3", "x", "9223372036854775807"]);
    let rules: Vec<&[u8]> = vec![b"", b"keep-winner", b"keep-loser", b"sum", b"max", b"odd"];
    let rule = proptest::sample::select(rules);
    let lines = proptest::collection::vec((account(), -2..3i64), 0..3);
    prop_oneof![
        6 => (place.clone(), values, rule).prop_map(|(at, value, rule)| Step::Set(at, value, rule)),
        1 => place.prop_map(Step::Delete),
        3 => (slug(), account(), account()).prop_map(|(s, w, l)| Step::Merge(s, w, l)),
        1 => (slug(), proptest::option::of(Just(&b"v"[..]))).prop_map(|(s, v)| Step::Configure(s, v)),
        4 => (slug(), 1..3u32, -2..3i64, lines).prop_map(|(s, n, at, lines)| Step::Post(s, n, at, lines)),
        1 => Just(Step::Reopen),
    ]
}

/// Everything that can be read.
fn all(stores: &Stores) -> String {
    let mut all = String::new();
    for slug in ["g", "g2"] {
        for account in ["", "a", "b", "ab"] {
            for key in [&b"k"[..], b"k2", b"b"] {
                all += &format!("{:?}\n", stores.get((slug, account, key)));
            }
        }
        all += &format!("{:?}\n", stores.config(slug, b"key"));
        all += &format!(
            "{:#?}\n{:#?}\n",
            stores.results(slug),
            stores.board_of(slug)
        );
        all += &format!("{:?}\n", stores.int_values(slug, b"k"));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn both_stores_answer_alike_whatever_is_asked(steps in proptest::collection::vec(step(), 1..40)) {
        let directory = tempfile::tempdir().unwrap();
        let memory = Stores::of(&MemoryStore::new());
        let mut durable = Some(Stores::of(&open(directory.path()).unwrap()));
        for step in steps {
            let disk = durable.as_ref().unwrap();
            match step {
                Step::Set(at, value, rule) => {
                    memory.set(at, value, rule);
                    disk.set(at, value, rule);
                }
                Step::Delete(at) => {
                    memory.delete(at);
                    disk.delete(at);
                }
                Step::Merge(slug, winner, loser) => {
                    memory.merge(slug, winner, loser);
                    disk.merge(slug, winner, loser);
                }
                Step::Configure(slug, value) => {
                    memory.set_config(slug, b"key", value);
                    disk.set_config(slug, b"key", value);
                }
                Step::Post(slug, counter, at, lines) => {
                    let post = post(slug, counter, at, &lines);
                    prop_assert_eq!(memory.post(&post), disk.post(&post));
                }
                Step::Reopen => {
                    drop(durable.take());
                    durable = Some(Stores::of(&open(directory.path()).unwrap()));
                }
            }
        }
        prop_assert_eq!(all(&memory), all(durable.as_ref().unwrap()));
    }
}
