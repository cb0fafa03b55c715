//! The suite, on the stores that need no network.

use std::sync::Arc;

use bytes::Bytes;
use cabinet_durability::store::suite::{self, Report, SuiteOptions};
use cabinet_durability::store::{
    Answer, Blob, BlobStore, Condition, Conditional, DirStore, Key, MemoryStore, Page,
    SingleWriter, StoreError, Version, Want, probe,
};

fn prefix() -> Key {
    Key::new("suite").expect("a key")
}

async fn passes(store: &dyn BlobStore, options: &SuiteOptions) -> Report {
    match suite::run(store, &prefix(), options).await {
        Ok(report) => report,
        Err(failure) => panic!("{failure}: {:?}", failure.broken),
    }
}

/// Which promise a store does not keep.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// It puts whatever the condition.
    IgnoresConditions,
    /// It honours `Absent` alone.
    IgnoresMatches,
    /// It says that the condition did not hold, and puts.
    LiesAboutPuts,
    /// It says that it has no conditions.
    SaysSo,
    /// It lists a prefix as a folder.
    PrefixIsAFolder,
}

struct Flawed(MemoryStore, Flaw);

impl BlobStore for Flawed {
    fn get<'a>(&'a self, key: &'a Key, want: Want) -> Answer<'a, Option<Blob>> {
        self.0.get(key, want)
    }

    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes, condition: Condition) -> Answer<'a, Version> {
        let put = |condition| self.0.put(key, bytes.clone(), condition);
        match (self.1, condition) {
            (Flaw::IgnoresConditions, _) | (Flaw::IgnoresMatches, Condition::Matches(_)) => {
                put(Condition::None)
            }
            (Flaw::SaysSo, Condition::Absent | Condition::Matches(_)) => {
                Box::pin(async { Err(StoreError::Unsupported) })
            }
            (Flaw::LiesAboutPuts, condition) => {
                let (honest, forced) = (put(condition), put(Condition::None));
                Box::pin(async move {
                    let answer = honest.await;
                    if answer.is_err() {
                        forced.await?;
                    }
                    answer
                })
            }
            (_, condition) => put(condition),
        }
    }

    fn delete<'a>(&'a self, keys: &'a [Key]) -> Answer<'a, ()> {
        self.0.delete(keys)
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Page> {
        Box::pin(async move {
            let mut page = self.0.list(prefix, after, limit).await?;
            if self.1 == Flaw::PrefixIsAFolder && !prefix.ends_with('/') {
                let folder = format!("{prefix}/");
                page.entries
                    .retain(|entry| entry.key.as_str().starts_with(&folder));
            }
            Ok(page)
        })
    }
}

fn flawed(flaw: Flaw) -> Flawed {
    Flawed(MemoryStore::new(), flaw)
}

#[tokio::test]
async fn a_memory_store_keeps_the_promises() {
    let store = MemoryStore::new();
    let report = passes(&store, &SuiteOptions::default()).await;
    assert!(report.skipped.is_empty());
    assert_eq!(report.passed.len(), 20);
    let left = store.list("", None, 1).await.expect("a page");
    assert_eq!(left, Page::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_keeps_the_promises() {
    let root = tempfile::tempdir().expect("a directory");
    let store = DirStore::open(root.path()).expect("it opens");
    let report = passes(&store, &SuiteOptions::default()).await;
    assert!(report.skipped.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_on_one_directory_lose_no_update() {
    let root = tempfile::tempdir().expect("a directory");
    let key = prefix();
    let one = DirStore::open(root.path()).expect("it opens");
    one.put(&key, Bytes::from_static(b"0"), Condition::Absent)
        .await
        .expect("the first put");
    let counting = (0..4).map(|_| {
        let store = DirStore::open(root.path()).expect("it opens");
        let key = key.clone();
        tokio::spawn(async move {
            let mut counted = 0;
            while counted < 5 {
                let blob = store
                    .get(&key, Want::Whole { max: 9 })
                    .await
                    .expect("it reads");
                let blob = blob.expect("an object");
                let text = std::str::from_utf8(&blob.bytes).expect("digits");
                let next = text.parse::<u32>().expect("a number") + 1;
                let put = store.put(
                    &key,
                    next.to_string().into(),
                    Condition::Matches(blob.version),
                );
                match put.await {
                    Ok(_) => counted += 1,
                    Err(StoreError::Precondition) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
        })
    });
    for racer in counting.collect::<Vec<_>>() {
        racer.await.expect("it counts");
    }
    let blob = one
        .get(&key, Want::Whole { max: 9 })
        .await
        .expect("it reads");
    assert_eq!(blob.expect("an object").bytes, "20");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_writer_has_conditions_over_a_store_that_ignores_them() {
    let store = SingleWriter::new(flawed(Flaw::IgnoresConditions));
    let report = passes(&store, &SuiteOptions::default()).await;
    assert!(report.skipped.is_empty());
    let root = tempfile::tempdir().expect("a directory");
    let store = SingleWriter::new(DirStore::open(root.path()).expect("it opens"));
    passes(&store, &SuiteOptions::default()).await;
}

#[tokio::test]
async fn the_suite_finds_what_a_store_gets_wrong_and_skips_what_is_known() {
    for (flaw, case) in [
        (Flaw::IgnoresConditions, "a put wants nothing there"),
        (Flaw::IgnoresMatches, "a put wants a version there"),
        (Flaw::LiesAboutPuts, "a put wants nothing there"),
        (Flaw::SaysSo, "a put wants nothing there"),
        (Flaw::PrefixIsAFolder, "a prefix is no folder"),
    ] {
        let store = flawed(flaw);
        let failure = suite::run(&store, &prefix(), &SuiteOptions::default()).await;
        let failure = failure.expect_err("a flaw");
        // A prefix that is a folder also hides the longest key.
        let folder = flaw == Flaw::PrefixIsAFolder && failure.case == "a key is the longest";
        assert!(failure.case == case || folder, "{failure}");
    }
    let mut options = SuiteOptions::default();
    options.conditional_writes = false;
    let report = passes(&flawed(Flaw::IgnoresConditions), &options).await;
    assert_eq!(report.skipped.len(), 5);
}

#[tokio::test]
async fn a_probe_tells_a_store_that_honours_conditions_from_one_that_does_not() {
    let root = tempfile::tempdir().expect("a directory");
    let stores: [(Arc<dyn BlobStore>, Conditional); 7] = [
        (Arc::new(MemoryStore::new()), Conditional::Honoured),
        (
            Arc::new(DirStore::open(root.path()).expect("it opens")),
            Conditional::Honoured,
        ),
        (
            Arc::new(flawed(Flaw::IgnoresConditions)),
            Conditional::Ignored,
        ),
        (Arc::new(flawed(Flaw::IgnoresMatches)), Conditional::Ignored),
        (Arc::new(flawed(Flaw::LiesAboutPuts)), Conditional::Ignored),
        (Arc::new(flawed(Flaw::SaysSo)), Conditional::Ignored),
        (
            Arc::new(SingleWriter::new(flawed(Flaw::IgnoresConditions))),
            Conditional::Honoured,
        ),
    ];
    for (index, (store, expected)) in stores.iter().enumerate() {
        let found = probe(store, &prefix(), [7; 16]).await.expect("an answer");
        assert_eq!(found, *expected, "store {index}");
        let left = store.list("", None, 1).await.expect("a page");
        assert!(left.entries.is_empty(), "store {index}");
    }
}
