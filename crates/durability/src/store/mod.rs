//! Where bytes are kept: a narrow store of whole objects under ordered keys.
//!
//! A [`BlobStore`] is what object stores have in common: objects are put whole, got whole or from
//! their beginning, deleted, and listed in the order of their keys. A put may depend on what is
//! there ([`Condition`]); everything that must not be lost to a second writer rests on that. It is
//! not a file system: nothing is appended, renamed or locked.
//!
//! [`MemoryStore`], [`DirStore`] and, with the feature `s3`, `S3Store` are stores;
//! [`SingleWriter`] and [`Instrumented`] wrap one. [`suite`] tells whether a store of yours keeps
//! the promises made here.

mod dir;
mod instrument;
mod key;
mod memory;
mod probe;
#[cfg(feature = "s3")]
mod s3;
mod single_writer;
pub mod suite;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

pub use dir::{DirError, DirStore};
pub use instrument::{
    CallCounter, Clock, Instrumented, Outcome, StoreCall, StoreOp, StoreRecorder,
};
pub use key::{KEY_BYTES_MAX, Key, KeyError};
pub use memory::MemoryStore;
pub use probe::{Conditional, probe};
#[cfg(feature = "s3")]
pub use s3::{Retries, S3Credentials, S3Error, S3Options, S3Store, Timeouts};
pub use single_writer::SingleWriter;

/// What a store's calls return: boxed, so that a store can be chosen at run time.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The most keys one page of a listing holds, whatever was asked for.
pub const PAGE_KEYS_MAX: usize = 1_000;
/// The most keys one [`BlobStore::delete`] takes.
pub const DELETE_KEYS_MAX: usize = 1_000;

/// A store of whole objects under ordered keys.
///
/// Promises every implementation keeps
/// - a put is whole or not at all, to every reader, across crashes;
/// - what a put that returned `Ok` wrote is there for every later call of anybody;
/// - of puts under [`Condition::Absent`], or under the same [`Condition::Matches`], at most one
///   succeeds, unless they put bytes that were there before: a version may be made of the bytes;
/// - two versions of a key are equal only when the bytes are.
///
/// What it does not promise: a put without a condition whose answer was lost may be done long
/// after, over what was put since. What must not be overwritten needs a condition.
pub trait BlobStore: Send + Sync {
    /// The object under `key`, or its beginning; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] when [`Want::Whole`] allows less than there is, before the body is
    /// taken; [`StoreError::Unavailable`], [`StoreError::Refused`].
    fn get<'a>(&'a self, key: &'a Key, want: Want) -> Answer<'a, Option<Blob>>;

    /// Puts an object, and says which version it has now.
    ///
    /// # Errors
    /// [`StoreError::Precondition`] when the condition did not hold, [`StoreError::Conflict`] when
    /// another put to the key was under way, [`StoreError::Ambiguous`] when nobody knows whether it
    /// was done, [`StoreError::Unsupported`] where the store has no such condition, and as for
    /// [`BlobStore::get`].
    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes, condition: Condition) -> Answer<'a, Version>;

    /// Deletes up to [`DELETE_KEYS_MAX`] objects, in no particular order. One that is not there is
    /// deleted already. After an error, [`StoreError::Unavailable`] too, some may be gone; and after a
    /// crash of the machine that keeps them some may be back.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Refused`], [`StoreError::TooMany`].
    fn delete<'a>(&'a self, keys: &'a [Key]) -> Answer<'a, ()>;

    /// Keys that begin with `prefix` and come after `after`, by rising bytes: at most `limit`, and
    /// at most [`PAGE_KEYS_MAX`]; a limit of 0 is 1. The prefix is plain text, not a folder.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Refused`].
    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Page>;

    /// Whether records without a seal may be kept here. Only a store that is gone with its process,
    /// or one its owner opened for development, says yes.
    fn allows_unsealed(&self) -> bool {
        false
    }
}

/// How much of an object is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// All of it, which must not be longer than this many bytes.
    Whole {
        /// Bytes at most.
        max: u64,
    },
    /// Its first so many bytes, or all of a shorter one.
    First(u64),
}

/// What a put depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nothing: whatever is there is replaced.
    None,
    /// Nothing is there yet.
    Absent,
    /// This version is there.
    Matches(Version),
}

/// Names what is under a key at a time: an ETag, or what a store has in its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(Arc<str>);

impl Version {
    /// A version as a store names it.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The store's name for it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An object, or the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// What was asked for of it.
    pub bytes: Bytes,
    /// Which version it is of.
    pub version: Version,
    /// Bytes of the whole object.
    pub total: u64,
}

/// Part of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Keys, by rising bytes.
    pub entries: Vec<Entry>,
    /// Where to go on, for `after`; `None` at the end. A page may be empty and not the last.
    pub next: Option<String>,
    /// Names met that are no [`Key`]: objects of somebody else.
    pub foreign: u64,
}

/// A line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// Bytes of the object.
    pub bytes: u64,
}

/// A store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The condition did not hold. Look at what is there.
    #[error("what is under the key is not what the put depends on")]
    Precondition,
    /// Another put to the key was under way; nothing was done. Try again.
    #[error("another put to the key is under way")]
    Conflict,
    /// The request was sent and no answer came: it was done or not, or will be. Look at what is
    /// there.
    #[error("nobody knows whether the put was done")]
    Ambiguous(#[source] Cause),
    /// Nothing was done, and later it may be.
    #[error("the store is not available")]
    Unavailable(#[source] Cause),
    /// Nothing was done, nor will it be until somebody changes something: no such bucket, no
    /// permission, a store that only reads.
    #[error("the store refuses")]
    Refused(#[source] Cause),
    /// The object is longer than was allowed.
    #[error("the object has {bytes} bytes, more than the {max} allowed")]
    TooLarge {
        /// What it has.
        bytes: u64,
        /// What was allowed.
        max: u64,
    },
    /// More keys than one call takes.
    #[error("{found} keys, more than the {DELETE_KEYS_MAX} one call takes")]
    TooMany {
        /// How many there were.
        found: usize,
    },
    /// The store does not have this condition; [`SingleWriter`] stands in for it.
    #[error(
        "the store does not honour conditional writes: say `single_writer` if one process alone writes"
    )]
    Unsupported,
}

/// What a store's own client said.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

impl StoreError {
    /// Whether the same request may succeed later with nothing changed.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Conflict | Self::Ambiguous(_) | Self::Unavailable(_)
        )
    }
}

impl<S: BlobStore + ?Sized> BlobStore for Arc<S> {
    fn get<'a>(&'a self, key: &'a Key, want: Want) -> Answer<'a, Option<Blob>> {
        (**self).get(key, want)
    }

    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes, condition: Condition) -> Answer<'a, Version> {
        (**self).put(key, bytes, condition)
    }

    fn delete<'a>(&'a self, keys: &'a [Key]) -> Answer<'a, ()> {
        (**self).delete(keys)
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Page> {
        (**self).list(prefix, after, limit)
    }

    fn allows_unsealed(&self) -> bool {
        (**self).allows_unsealed()
    }
}

/// The part of an object that is wanted, or why there is too much of it.
pub(crate) fn cut(bytes: &Bytes, want: Want) -> Result<Bytes, StoreError> {
    let total = bytes.len() as u64;
    match want {
        Want::Whole { max } if total > max => Err(StoreError::TooLarge { bytes: total, max }),
        Want::Whole { .. } => Ok(bytes.clone()),
        // Bounded by the length, which is a usize.
        Want::First(most) => Ok(bytes.slice(..most.min(total) as usize)),
    }
}

/// Which of `count` locks a key's is.
pub(crate) fn shard(key: &Key, count: u64) -> u64 {
    // FNV-1a: the same in every process, as the locks are shared between them.
    let hash = key
        .as_str()
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
    hash % count
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
