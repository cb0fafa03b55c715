//! A store that is gone with its process.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{
    Answer, Blob, BlobStore, Condition, DELETE_KEYS_MAX, Entry, Key, PAGE_KEYS_MAX, Page,
    StoreError, Version, Want, cut,
};

/// Objects in a map. For tests, and for rooms that need not outlive their process.
#[derive(Default)]
pub struct MemoryStore {
    objects: Mutex<Objects>,
}

#[derive(Default)]
struct Objects {
    by_key: BTreeMap<Key, (Bytes, u64)>,
    puts: u64,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get_now(&self, key: &Key, want: Want) -> Result<Option<Blob>, StoreError> {
        let objects = self.lock();
        let Some((bytes, version)) = objects.by_key.get(key) else {
            return Ok(None);
        };
        Ok(Some(Blob {
            bytes: cut(bytes, want)?,
            version: name(*version),
            total: bytes.len() as u64,
        }))
    }

    fn put_now(
        &self,
        key: &Key,
        bytes: Bytes,
        condition: &Condition,
    ) -> Result<Version, StoreError> {
        let mut objects = self.lock();
        let there = objects.by_key.get(key).map(|(_, version)| name(*version));
        let holds = match condition {
            Condition::None => true,
            Condition::Absent => there.is_none(),
            Condition::Matches(version) => there.as_ref() == Some(version),
        };
        if !holds {
            return Err(StoreError::Precondition);
        }
        objects.puts += 1;
        let version = objects.puts;
        objects.by_key.insert(key.clone(), (bytes, version));
        Ok(name(version))
    }

    fn list_now(&self, prefix: &str, after: Option<&str>, limit: usize) -> Page {
        let objects = self.lock();
        let limit = limit.clamp(1, PAGE_KEYS_MAX);
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut entries: Vec<Entry> = objects
            .by_key
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(prefix))
            .take(limit + 1)
            .map(|(key, (bytes, _))| Entry {
                key: key.clone(),
                bytes: bytes.len() as u64,
            })
            .collect();
        let more = entries.len() > limit;
        entries.truncate(limit);
        Page {
            next: entries
                .last()
                .filter(|_| more)
                .map(|last| last.key.as_str().into()),
            entries,
            foreign: 0,
        }
    }
}

fn name(version: u64) -> Version {
    Version::new(version.to_string())
}

impl BlobStore for MemoryStore {
    fn get<'a>(&'a self, key: &'a Key, want: Want) -> Answer<'a, Option<Blob>> {
        Box::pin(async move { self.get_now(key, want) })
    }

    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes, condition: Condition) -> Answer<'a, Version> {
        Box::pin(async move { self.put_now(key, bytes, &condition) })
    }

    fn delete<'a>(&'a self, keys: &'a [Key]) -> Answer<'a, ()> {
        Box::pin(async move {
            if keys.len() > DELETE_KEYS_MAX {
                return Err(StoreError::TooMany { found: keys.len() });
            }
            let mut objects = self.lock();
            for key in keys {
                objects.by_key.remove(key);
            }
            Ok(())
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Page> {
        Box::pin(async move { Ok(self.list_now(prefix, after, limit)) })
    }

    fn allows_unsealed(&self) -> bool {
        true
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("objects", &self.lock().by_key.len())
            .finish()
    }
}
