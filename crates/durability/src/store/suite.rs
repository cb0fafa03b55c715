//! Whether a store keeps the promises of [`BlobStore`]: for the tests of anybody's store.
//!
//! ```
//! use cabinet_durability::store::suite::{self, SuiteOptions};
//! use cabinet_durability::store::{Key, MemoryStore};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let prefix = Key::new("suite")?;
//! let report = suite::run(&MemoryStore::new(), &prefix, &SuiteOptions::default()).await?;
//! assert!(report.skipped.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What cannot be asked of a running store is not here: what is left after a crash, and what a put
//! answers whose reply was lost.

mod conditions;
mod listing;
mod objects;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;

use super::{BlobStore, Condition, DELETE_KEYS_MAX, KEY_BYTES_MAX, Key, StoreError, Version, Want};

/// Known limits of a store, and how much to ask of it. Start from the default: no limits.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SuiteOptions {
    /// The store honours [`Condition::Absent`] and [`Condition::Matches`].
    pub conditional_writes: bool,
    /// Puts race each other. Needs `conditional_writes`.
    pub races: bool,
    /// Puts that race, 8.
    pub racers: usize,
    /// An object `a` may be beside an object `a/b`.
    pub nested: bool,
    /// The longest key the store takes, [`KEY_BYTES_MAX`].
    pub key_bytes_max: usize,
    /// The longest segment of a key the store takes, [`KEY_BYTES_MAX`].
    pub segment_bytes_max: usize,
    /// Bytes of the large object, 5 MiB.
    pub large_bytes: usize,
}

impl Default for SuiteOptions {
    fn default() -> Self {
        Self {
            conditional_writes: true,
            races: true,
            racers: 8,
            nested: true,
            key_bytes_max: KEY_BYTES_MAX,
            segment_bytes_max: KEY_BYTES_MAX,
            large_bytes: 5 << 20,
        }
    }
}

/// A store kept its promises.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Report {
    /// What was asked of it.
    pub passed: Vec<&'static str>,
    /// What was not asked of it because of a known limit.
    pub skipped: Vec<&'static str>,
}

/// A store did not keep a promise.
#[derive(Debug, thiserror::Error)]
#[error("the store fails where {case}")]
pub struct Failure {
    /// Which.
    pub case: &'static str,
    /// What it did.
    #[source]
    pub broken: Broken,
}

/// What a store did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// It answered with an error where it should not have.
    #[error("an unexpected error")]
    Error(#[from] StoreError),
    /// It answered something else.
    #[error("{what}: expected {expected}, found {found}")]
    Answer {
        /// About what.
        what: String,
        /// What was expected.
        expected: String,
        /// What it answered.
        found: String,
    },
}

/// Asks everything of a store, under keys that begin with `prefix` and a `/`, of which there must be
/// none. Whatever is there afterwards is deleted. Stops at the first promise that is not kept.
///
/// # Errors
/// [`Failure`] says which promise, and what the store did.
pub async fn run(
    store: &dyn BlobStore,
    prefix: &Key,
    options: &SuiteOptions,
) -> Result<Report, Failure> {
    let mut run = Run {
        store,
        prefix,
        options,
        report: Report::default(),
    };
    let asked = run.everything().await;
    let swept = run.sweep().await.map_err(|broken| Failure {
        case: "all is deleted at the end",
        broken,
    });
    asked?;
    swept?;
    Ok(run.report)
}

/// The result of one case.
type Verdict = Result<(), Broken>;

struct Run<'a> {
    store: &'a dyn BlobStore,
    prefix: &'a Key,
    options: &'a SuiteOptions,
    report: Report,
}

impl<'a> Run<'a> {
    async fn everything(&mut self) -> Result<(), Failure> {
        let conditional = self.options.conditional_writes;
        let races = conditional && self.options.races;
        let nested = self.options.nested;
        let bench = |folder| self.bench(folder);
        let (objects, listing, conditions) =
            (bench("objects"), bench("listing"), bench("conditions"));
        // Each sentence ends "the store fails where ...".
        self.case(
            "an object is put, got and replaced",
            objects::replaced(objects),
        )
        .await?;
        self.case("there is no object", objects::missing(objects))
            .await?;
        self.case("an object is empty", objects::empty(objects))
            .await?;
        self.case("the first bytes are wanted", objects::first_bytes(objects))
            .await?;
        self.case(
            "an object is as long as is allowed",
            objects::limits(objects),
        )
        .await?;
        self.case("an object is large", objects::large(objects))
            .await?;
        self.case("a key is the longest", objects::longest_key(objects))
            .await?;
        self.case("keys have every character", objects::characters(objects))
            .await?;
        self.case("objects are deleted", objects::deleted(objects))
            .await?;
        self.case(
            "more is deleted than one call takes",
            objects::delete_limits(objects),
        )
        .await?;
        self.case_if(
            nested,
            "an object is beside what looks like its folder",
            objects::nested(objects),
        )
        .await?;
        self.case("keys are listed by their bytes", listing::order(listing))
            .await?;
        self.case("a prefix is no folder", listing::prefixes(listing))
            .await?;
        self.case("a listing goes on after a text", listing::after(listing))
            .await?;
        self.case("a listing has pages of every size", listing::pages(listing))
            .await?;
        self.case_if(
            conditional,
            "a put wants nothing there",
            conditions::absent(conditions),
        )
        .await?;
        self.case_if(
            conditional,
            "a put wants a version there",
            conditions::matches(conditions),
        )
        .await?;
        self.case_if(
            conditional,
            "a version is as good from a get as from a put",
            conditions::versions(conditions),
        )
        .await?;
        self.case_if(
            races,
            "puts that want nothing there race",
            conditions::absent_race(conditions),
        )
        .await?;
        self.case_if(
            races,
            "puts that want a version there race",
            conditions::counter_race(conditions),
        )
        .await
    }

    fn bench(&self, folder: &'static str) -> Bench<'a> {
        Bench {
            store: self.store,
            prefix: self.prefix,
            folder,
            options: self.options,
        }
    }

    async fn case(
        &mut self,
        name: &'static str,
        case: impl Future<Output = Verdict>,
    ) -> Result<(), Failure> {
        self.case_if(true, name, case).await
    }

    async fn case_if(
        &mut self,
        asked: bool,
        name: &'static str,
        case: impl Future<Output = Verdict>,
    ) -> Result<(), Failure> {
        if !asked {
            self.report.skipped.push(name);
            return Ok(());
        }
        case.await
            .map_err(|broken| Failure { case: name, broken })?;
        self.report.passed.push(name);
        Ok(())
    }

    async fn sweep(&self) -> Verdict {
        let prefix = format!("{}/", self.prefix);
        loop {
            let page = self.store.list(&prefix, None, DELETE_KEYS_MAX).await?;
            let keys: Vec<Key> = page.entries.into_iter().map(|entry| entry.key).collect();
            if keys.is_empty() {
                return Ok(());
            }
            self.store.delete(&keys).await?;
        }
    }
}

/// A store, and a place in it.
#[derive(Clone, Copy)]
struct Bench<'a> {
    store: &'a dyn BlobStore,
    prefix: &'a Key,
    folder: &'static str,
    options: &'a SuiteOptions,
}

impl Bench<'_> {
    fn text(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.prefix, self.folder)
    }

    fn key(&self, name: &str) -> Result<Key, Broken> {
        Key::new(self.text(name)).map_err(|error| Broken::Error(StoreError::Refused(error.into())))
    }

    async fn put(
        &self,
        key: &Key,
        bytes: &[u8],
        condition: Condition,
    ) -> Result<Version, StoreError> {
        let bytes = Bytes::copy_from_slice(bytes);
        self.store.put(key, bytes, condition).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        let max = self.options.large_bytes.max(1 << 20) as u64;
        let got = self.store.get(key, Want::Whole { max }).await?;
        Ok(got.map(|blob| blob.bytes))
    }

    async fn is_there(&self, key: &Key, expected: &[u8]) -> Verdict {
        let found = self.get(key).await?;
        let expected = Bytes::copy_from_slice(expected);
        same(&format!("the object {key}"), &Some(expected), &found)
    }
}

fn same<T: PartialEq + fmt::Debug>(what: &str, expected: &T, found: &T) -> Verdict {
    if expected == found {
        return Ok(());
    }
    Err(wrong(what, &shown(expected), found))
}

fn wrong(what: &str, expected: &str, found: &impl fmt::Debug) -> Broken {
    Broken::Answer {
        what: what.into(),
        expected: expected.into(),
        found: shown(found),
    }
}

/// What a value looks like, not longer than a screen.
fn shown(value: &impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{} and more", &text[..end]),
        None => text,
    }
}

/// One of several that race.
type Racer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Broken>> + Send + 'a>>;

/// Polls all, until each has its answer.
async fn together<T>(racers: Vec<Racer<'_, T>>) -> Vec<Result<T, Broken>> {
    let mut waiting: Vec<_> = racers.into_iter().map(Some).collect();
    let mut done: Vec<Option<_>> = waiting.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (slot, answer) in waiting.iter_mut().zip(&mut done) {
            if let Some(future) = slot
                && let Poll::Ready(found) = future.as_mut().poll(context)
            {
                *answer = Some(found);
                *slot = None;
            }
        }
        match waiting.iter().all(Option::is_none) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    done.into_iter().flatten().collect()
}
