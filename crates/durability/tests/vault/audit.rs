//! An audit finds what was changed, by name, and writes nothing.

use std::sync::Arc;

use bytes::Bytes;
use cabinet_durability::seal::{Keyring, Sealing};
use cabinet_durability::store::{
    Answer, Blob, BlobStore, Condition, Key, Page, StoreError, Version, Want,
};
use cabinet_durability::{Audit, FINDINGS_MAX, OwnerId, Vault, VaultError, VaultOptions};

use crate::support::{Bucket, NOW, head_key, header, key, live, park, room, write};

/// A bucket that only reads.
struct ReadOnly(Bucket);

impl BlobStore for ReadOnly {
    fn get<'a>(&'a self, key: &'a Key, want: Want) -> Answer<'a, Option<Blob>> {
        self.0.0.inner.get(key, want)
    }

    fn put<'a>(&'a self, _: &'a Key, _: Bytes, _: Condition) -> Answer<'a, Version> {
        Box::pin(async { Err(StoreError::Refused("it only reads".into())) })
    }

    fn delete<'a>(&'a self, _: &'a [Key]) -> Answer<'a, ()> {
        Box::pin(async { Err(StoreError::Refused("it only reads".into())) })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Page> {
        self.0.0.inner.list(prefix, after, limit)
    }
}

fn reader(bucket: &Bucket, id: u32) -> Vault {
    let options = VaultOptions::new(OwnerId::named("operator"));
    let sealing = Sealing::Keys(Keyring::new(key(id)));
    Vault::open(Arc::new(ReadOnly(bucket.clone())), sealing, options).expect("it opens")
}

async fn audit(bucket: &Bucket) -> Audit {
    reader(bucket, 1).audit().await.expect("the store answers")
}

fn names(audit: &Audit) -> Vec<&str> {
    audit
        .findings
        .iter()
        .map(|finding| finding.key.as_str())
        .collect()
}

/// A live room with two checkpoints and two owners, a parked one, and a resident one.
async fn filled() -> Bucket {
    let bucket = Bucket::new();
    let vault = bucket.process("a");
    let lease = live(&vault, room(1), b"first").await;
    write(&lease, b"second").await;
    let heir = bucket.process("b");
    let (lease, _) = heir.claim(room(1), NOW).await.expect("it is claimed");
    write(&lease, b"third").await;
    park(&vault, room(2), header("chess", 5, &["ada", "bob"])).await;
    live(&vault, room(3), b"resident").await;
    vault
        .set_resident("town", room(3), None)
        .await
        .expect("it is set");
    bucket
}

#[tokio::test]
async fn a_store_as_it_should_be_has_nothing_found_in_it_and_nothing_written_to_it() {
    let bucket = filled().await;
    let before = bucket.all().await;
    bucket.put("somebody/elses", &b"object"[..]).await;
    bucket.put("v1/heads/nobodys", &b"object"[..]).await;
    let found = audit(&bucket).await;
    assert!(found.is_clean(), "{found:?}");
    let sealed = ["v1/heads/0", "v1/rooms/", "v1/residents/"];
    let records = before
        .iter()
        .filter(|(key, _)| sealed.iter().any(|of| key.starts_with(of)));
    assert_eq!(found.records, records.count() as u64);
    assert_eq!((found.records + found.entries) as usize, before.len());
    assert_eq!(found.foreign, 1);
    bucket.delete("somebody/elses").await;
    bucket.delete("v1/heads/nobodys").await;
    assert_eq!(bucket.all().await, before);
}

#[tokio::test]
async fn every_record_that_is_changed_anywhere_is_found_by_name() {
    let bucket = filled().await;
    let mut tampered = 0;
    for (key, bytes) in bucket.all().await {
        let sealed = ["v1/heads/", "v1/rooms/", "v1/residents/"];
        if !sealed.iter().any(|of| key.starts_with(of)) {
            continue;
        }
        let last = bytes.len() - 1;
        for at in [
            0,
            4,
            6,
            7,
            8,
            12,
            28,
            36,
            44,
            76,
            84,
            92,
            123,
            124,
            last / 2,
            last - 16,
            last,
        ] {
            let mut changed = bytes.to_vec();
            changed[at] ^= 0x40;
            bucket.put(&key, changed).await;
            let found = audit(&bucket).await;
            assert!(
                names(&found).contains(&key.as_str()),
                "{key} at {at}: {found:?}"
            );
            tampered += 1;
        }
        for cut in [&bytes[..0], &bytes[..last], &bytes[..100]] {
            bucket.put(&key, cut.to_vec()).await;
            assert!(
                names(&audit(&bucket).await).contains(&key.as_str()),
                "{key} cut"
            );
        }
        let longer = [&bytes[..], &[0]].concat();
        bucket.put(&key, longer).await;
        assert!(
            names(&audit(&bucket).await).contains(&key.as_str()),
            "{key} longer"
        );
        bucket.put(&key, bytes).await;
    }
    assert!(tampered >= 17 * 9, "{tampered}");
    assert!(audit(&bucket).await.is_clean());
}

#[tokio::test]
async fn every_record_that_is_put_in_anothers_place_is_found() {
    let bucket = filled().await;
    let all = bucket.all().await;
    let records: Vec<&(String, Bytes)> = all
        .iter()
        .filter(|(key, _)| key.starts_with("v1/heads/") || key.starts_with("v1/rooms/"))
        .collect();
    for (key, bytes) in &records {
        for (other, moved) in &records {
            if other != key {
                bucket.put(key, moved.clone()).await;
                let found = audit(&bucket).await;
                assert!(names(&found).contains(&key.as_str()), "{other} as {key}");
            }
        }
        bucket.put(key, bytes.clone()).await;
    }
}

#[tokio::test]
async fn a_lost_head_a_missing_checkpoint_and_a_head_that_was_put_back_are_found() {
    let bucket = filled().await;
    let all = bucket.all().await;
    let key = head_key(room(1));

    bucket.delete(&key).await;
    let found = audit(&bucket).await;
    assert_eq!(names(&found), [&key]);
    assert!(matches!(found.findings[0].error, VaultError::HeadLost));
    bucket.restore(&all).await;

    for checkpoint in bucket.checkpoints(room(2)).await {
        bucket.delete(&checkpoint).await;
    }
    assert_eq!(names(&audit(&bucket).await), [head_key(room(2))]);
    bucket.restore(&all).await;

    let (heir, _) = bucket
        .process("c")
        .claim(room(1), NOW)
        .await
        .expect("it is claimed");
    write(&heir, b"fourth").await;
    let old = all
        .iter()
        .find(|(name, _)| *name == key)
        .expect("it was there");
    bucket.put(&key, old.1.clone()).await;
    let found = audit(&bucket).await;
    let rolled_back = found
        .findings
        .iter()
        .any(|finding| finding.key == key && matches!(finding.error, VaultError::RolledBack));
    assert!(rolled_back, "{found:?}");
}

#[tokio::test]
async fn another_key_opens_nothing_and_says_so_of_each() {
    let bucket = filled().await;
    let found = reader(&bucket, 2).audit().await.expect("the store answers");
    let unreadable = found.findings.iter();
    let unreadable =
        unreadable.filter(|finding| matches!(finding.error, VaultError::Unreadable(_)));
    assert_eq!(unreadable.count() as u64, found.records);
    let rooms = reader(&bucket, 1)
        .all_rooms()
        .await
        .expect("the store answers");
    let ids: Vec<_> = rooms.iter().map(|(room, _)| *room).collect();
    assert_eq!(ids, [room(1), room(2), room(3)]);
}

#[tokio::test]
async fn past_ten_thousand_findings_the_rest_is_counted() {
    let bucket = Bucket::new();
    for n in 0..=FINDINGS_MAX as u32 {
        bucket.put(&head_key(room(n)), &b"nothing"[..]).await;
    }
    let found = audit(&bucket).await;
    assert_eq!((found.findings.len(), found.more), (FINDINGS_MAX, 1));
}
