//! `cabinet rooms verify` finds, by name, every record that somebody changed, cut, moved, took away
//! or put back: those of the durability crate's corpus, and those made here of a store's own.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cabinet_durability::store::{BlobStore, Condition, DirStore, Key, Want};
use cabinet_durability::{RoomId, RoomIds};
use common::place::{NOW_MS, Place, SECRET, write_next};
use serde_json::Value;

/// A store behind the vault's back.
struct Bucket {
    store: Arc<DirStore>,
    runtime: tokio::runtime::Runtime,
}

impl Bucket {
    fn of(place: &Place) -> Self {
        Self {
            store: Arc::new(DirStore::open(place.store()).unwrap()),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
        }
    }

    fn put(&self, key: &str, bytes: impl Into<Bytes>) {
        let key = Key::new(key).unwrap();
        let put = self.store.put(&key, bytes.into(), Condition::None);
        self.runtime.block_on(put).unwrap();
    }

    fn get(&self, key: &str) -> Bytes {
        let key = Key::new(key).unwrap();
        let got = self.store.get(&key, Want::Whole { max: u64::MAX });
        self.runtime.block_on(got).unwrap().unwrap().bytes
    }

    fn delete(&self, key: &str) {
        let key = [Key::new(key).unwrap()];
        self.runtime.block_on(self.store.delete(&key)).unwrap();
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        let page = self.runtime.block_on(self.store.list(prefix, None, 1_000));
        let entries = page.unwrap().entries;
        let names = entries.iter().map(|entry| entry.key.as_str().to_owned());
        names.collect()
    }
}

/// The keys that `verify` names.
fn found(place: &Place) -> Vec<String> {
    let verify = place.rooms(&["verify", "--json"]);
    let told: Value = serde_json::from_str(&verify.stdout).unwrap();
    let findings = told["findings"].as_array().unwrap().clone();
    assert_eq!(verify.code, i32::from(!findings.is_empty()), "{verify:?}");
    let key = |finding: &Value| finding["key"].as_str().unwrap().to_owned();
    findings.iter().map(key).collect()
}

#[test]
fn every_record_of_the_corpus_is_found_by_name_whatever_it_is_put_for() {
    let place = Place::new();
    let bucket = Bucket::of(&place);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../durability/fuzz/corpus");
    let mut ids = RoomIds::default();
    let mut planted = Vec::new();
    for part in ["record", "head", "claim", "reference_record"] {
        let mut files: Vec<_> = fs::read_dir(corpus.join(part))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        for file in files {
            let bytes = fs::read(file).unwrap();
            let room: RoomId = ids.next(NOW_MS, [7; 8]);
            let digest = "ab".repeat(16);
            let ten = format!("{:020}", 10);
            for key in [
                format!("v1/heads/{room}"),
                format!("v1/rooms/{room}/e-{ten}-{ten}-{NOW_MS:013}-{digest}"),
                format!("v1/rooms/{room}/c-{ten}"),
                format!("v1/residents/{}", room.to_string().replace('-', "")),
            ] {
                bucket.put(&key, bytes.clone());
                planted.push(key);
            }
        }
    }
    assert!(planted.len() > 4 * 60, "{}", planted.len());
    let found = found(&place);
    for key in &planted {
        assert!(found.contains(key), "{key} was not found");
    }
    // And nothing that is as it should be.
    assert_eq!(found.len(), planted.len());
}

#[test]
fn what_is_cut_moved_taken_away_or_put_back_is_found_by_name() {
    let place = Place::new();
    let bucket = Bucket::of(&place);
    // The parked room is taken once, so that there is a claim; and a game has its resident room.
    let head = format!("v1/heads/{}", place.parked);
    let old = bucket.get(&head);
    bucket.runtime.block_on(async {
        let vault = place.vault(&[(1, SECRET)]);
        let parked = vault.open_parked(place.parked, None, None).await.unwrap();
        let lease = vault.take(&parked, NOW_MS).await.unwrap();
        let checkpoint = parked.checkpoint();
        write_next(&lease, checkpoint.artifact, &checkpoint.bytes).await;
        vault.set_resident("town", place.live, None).await.unwrap();
    });
    assert_eq!(found(&place), Vec::<String>::new());
    let sealed = ["v1/heads/", "v1/rooms/", "v1/residents/"];
    let records: Vec<String> = sealed.iter().flat_map(|of| bucket.keys(of)).collect();
    assert_eq!(records.len(), 2 + 4 + 1 + 1);
    for key in &records {
        let good = bucket.get(key);
        let mut bad = vec![
            Bytes::new(),
            Bytes::from_static(b"foreign"),
            good.slice(..good.len() - 1),
            good.slice(..100),
            [&good[..], b"x"].concat().into(),
            vec![7; 40 << 20].into(),
        ];
        // Another's, of this store and under its key.
        let others = records.iter().filter(|other| *other != key);
        bad.extend(others.map(|other| bucket.get(other)));
        for (case, bytes) in bad.into_iter().enumerate() {
            bucket.put(key, bytes);
            assert!(found(&place).contains(key), "{key}, case {case}");
        }
        bucket.put(key, good);
    }
    // The head is put back to before the room was taken; taken away; its checkpoint is.
    let good = bucket.get(&head);
    bucket.put(&head, old);
    assert_eq!(found(&place), [&*head]);
    bucket.delete(&head);
    assert_eq!(found(&place), [&*head]);
    bucket.put(&head, good);
    let newest = bucket.keys(&format!("v1/rooms/{}/e-", place.parked));
    bucket.delete(newest.last().unwrap());
    assert_eq!(found(&place), [&*head]);
}
