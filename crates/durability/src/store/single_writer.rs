//! Conditions for a store that has none.

use std::fmt;

use bytes::Bytes;
use tokio::sync::{Mutex, MutexGuard};

use super::{
    Answer, Blob, BlobStore, Condition, DELETE_KEYS_MAX, Key, Page, StoreError, Version, Want,
};

const SHARDS: usize = 64;

/// Stands in for conditional writes where a store has none (Garage): looks what is there, then puts.
///
/// It keeps apart the writers that go through this one value, and nobody else. It does not protect
/// from
/// - another process, or another `SingleWriter` over the same store: both look, both put, one put is
///   lost and nobody is told;
/// - a put of ours that the store takes late: one that was given up, or whose future was dropped, may
///   come after a later one and replace it;
/// - a restart while such a put is under way, for the same reason.
///
/// So use it only where one process alone writes, by construction and not by hope.
pub struct SingleWriter<S> {
    store: S,
    shards: [Mutex<()>; SHARDS],
}

impl<S: BlobStore> SingleWriter<S> {
    /// Conditions over this store.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self {
            store,
            shards: [const { Mutex::const_new(()) }; SHARDS],
        }
    }

    fn shard(&self, key: &Key) -> usize {
        // Less than a number that was a usize.
        super::shard(key, SHARDS as u64) as usize
    }

    async fn put_alone(
        &self,
        key: &Key,
        bytes: Bytes,
        condition: Condition,
    ) -> Result<Version, StoreError> {
        let _alone = self.shards[self.shard(key)].lock().await;
        let holds = match condition {
            Condition::None => true,
            Condition::Absent => self.version(key).await?.is_none(),
            Condition::Matches(wanted) => self.version(key).await? == Some(wanted),
        };
        if !holds {
            return Err(StoreError::Precondition);
        }
        self.store.put(key, bytes, Condition::None).await
    }

    /// The store's own version, which every store promises to have.
    async fn version(&self, key: &Key) -> Result<Option<Version>, StoreError> {
        let there = self.store.get(key, Want::First(0)).await?;
        Ok(there.map(|blob| blob.version))
    }
}

impl<S: BlobStore> BlobStore for SingleWriter<S> {
    fn get<'a>(&'a self, key: &'a Key, want: Want) -> Answer<'a, Option<Blob>> {
        self.store.get(key, want)
    }

    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes, condition: Condition) -> Answer<'a, Version> {
        Box::pin(self.put_alone(key, bytes, condition))
    }

    fn delete<'a>(&'a self, keys: &'a [Key]) -> Answer<'a, ()> {
        Box::pin(async move {
            if keys.len() > DELETE_KEYS_MAX {
                return Err(StoreError::TooMany { found: keys.len() });
            }
            let mut shards: Vec<usize> = keys.iter().map(|key| self.shard(key)).collect();
            // Each once, and all callers in one order: two deletes never wait for each other.
            shards.sort_unstable();
            shards.dedup();
            let mut alone: Vec<MutexGuard<'_, ()>> = Vec::with_capacity(shards.len());
            for shard in shards {
                alone.push(self.shards[shard].lock().await);
            }
            self.store.delete(keys).await
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Page> {
        self.store.list(prefix, after, limit)
    }

    fn allows_unsealed(&self) -> bool {
        self.store.allows_unsealed()
    }
}

impl<S: fmt::Debug> fmt::Debug for SingleWriter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SingleWriter").field(&self.store).finish()
    }
}
