//! Whether a store keeps its word about conditions: asked of the store itself, once, at start-up.

use bytes::Bytes;

use super::{BlobStore, Condition, Key, StoreError, Version, Want};

/// What a store does with the condition of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditional {
    /// It honours it.
    Honoured,
    /// It does not: it said so, or it put what it should not have put, or did not put what it should.
    /// [`SingleWriter`](super::SingleWriter) stands in for it.
    Ignored,
}

/// Learns whether a store honours [`Condition::Absent`] and [`Condition::Matches`].
///
/// Puts a small object under `prefix` and `random`, sixteen bytes nobody else has, and deletes it
/// again. One left behind by a crash does no harm.
///
/// # Errors
/// What the store answered, when that says nothing about conditions: try again later.
pub async fn probe(
    store: &dyn BlobStore,
    prefix: &Key,
    random: [u8; 16],
) -> Result<Conditional, StoreError> {
    let name = format!("{prefix}/{}", super::hex(&random));
    let key = Key::new(name).map_err(|error| StoreError::Refused(error.into()))?;
    let found = examined(store, &key).await;
    let deleted = store.delete(std::slice::from_ref(&key)).await;
    let found = found?;
    deleted?;
    Ok(if found {
        Conditional::Honoured
    } else {
        Conditional::Ignored
    })
}

async fn examined(store: &dyn BlobStore, key: &Key) -> Result<bool, StoreError> {
    let put = |bytes: &'static [u8], condition| put(store, key, bytes, condition);
    let Tried::Put(first) = put(b"first", Condition::Absent).await? else {
        return Ok(false);
    };
    if !put(b"second", Condition::Absent).await?.is_held_back() {
        return Ok(false);
    }
    let Tried::Put(third) = put(b"third", Condition::Matches(first.clone())).await? else {
        return Ok(false);
    };
    if third == first
        || !put(b"fourth", Condition::Matches(first))
            .await?
            .is_held_back()
    {
        return Ok(false);
    }
    // One that says no and puts all the same is no better.
    let there = store.get(key, Want::Whole { max: 64 }).await?;
    if there.is_none_or(|blob| blob.bytes != "third" || blob.version != third) {
        return Ok(false);
    }
    store.delete(std::slice::from_ref(key)).await?;
    Ok(put(b"fifth", Condition::Matches(third))
        .await?
        .is_held_back())
}

enum Tried {
    Put(Version),
    HeldBack,
    Unsupported,
}

impl Tried {
    fn is_held_back(&self) -> bool {
        matches!(self, Self::HeldBack)
    }
}

async fn put(
    store: &dyn BlobStore,
    key: &Key,
    bytes: &'static [u8],
    condition: Condition,
) -> Result<Tried, StoreError> {
    match store.put(key, Bytes::from_static(bytes), condition).await {
        Ok(version) => Ok(Tried::Put(version)),
        Err(StoreError::Precondition) => Ok(Tried::HeldBack),
        Err(StoreError::Unsupported) => Ok(Tried::Unsupported),
        Err(other) => Err(other),
    }
}
