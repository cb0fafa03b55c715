//! What a store was asked, how it answered and how long it took, for whoever records that.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::{Answer, Blob, BlobStore, Condition, Key, Page, StoreError, Version, Want};

/// The time since some fixed point.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Told of every call to an [`Instrumented`] store once it has its answer. A call that was dropped
/// before is not told of.
pub trait StoreRecorder: Send + Sync {
    /// A call was answered.
    fn done(&self, call: &StoreCall);
}

/// An answered call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreCall {
    /// What was asked.
    pub op: StoreOp,
    /// How it went.
    pub outcome: Outcome,
    /// Bytes of content given to the store.
    pub bytes_in: u64,
    /// Bytes of content the store gave.
    pub bytes_out: u64,
    /// From the first poll to the answer.
    pub duration: Duration,
}

/// A call of [`BlobStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreOp {
    /// [`BlobStore::get`].
    Get,
    /// [`BlobStore::put`].
    Put,
    /// [`BlobStore::delete`].
    Delete,
    /// [`BlobStore::list`].
    List,
}

impl StoreOp {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Get, Self::Put, Self::Delete, Self::List];

    /// The name, for a label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::List => "list",
        }
    }
}

/// How a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It was done. That there is no object is an answer too.
    Ok,
    /// [`StoreError::Precondition`].
    Precondition,
    /// [`StoreError::Conflict`].
    Conflict,
    /// [`StoreError::Ambiguous`].
    Ambiguous,
    /// [`StoreError::Unavailable`].
    Unavailable,
    /// [`StoreError::Refused`].
    Refused,
    /// Another error: the caller asked for what cannot be.
    Other,
}

impl Outcome {
    /// How a call with this answer went.
    #[must_use]
    pub fn of<T>(answer: &Result<T, StoreError>) -> Self {
        match answer {
            Ok(_) => Self::Ok,
            Err(StoreError::Precondition) => Self::Precondition,
            Err(StoreError::Conflict) => Self::Conflict,
            Err(StoreError::Ambiguous(_)) => Self::Ambiguous,
            Err(StoreError::Unavailable(_)) => Self::Unavailable,
            Err(StoreError::Refused(_)) => Self::Refused,
            Err(_) => Self::Other,
        }
    }

    /// The name, for a label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Precondition => "precondition",
            Self::Conflict => "conflict",
            Self::Ambiguous => "ambiguous",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Other => "other",
        }
    }
}

/// A store whose every call is told to a recorder.
pub struct Instrumented<S> {
    store: S,
    recorder: Arc<dyn StoreRecorder>,
    clock: Clock,
}

impl<S: BlobStore> Instrumented<S> {
    /// Tells `recorder` what is asked of `store`, and how long it took by `clock`.
    #[must_use]
    pub fn new(store: S, recorder: Arc<dyn StoreRecorder>, clock: Clock) -> Self {
        Self {
            store,
            recorder,
            clock,
        }
    }

    async fn told<T>(
        &self,
        op: StoreOp,
        bytes_in: u64,
        asked: Answer<'_, T>,
        bytes_out: fn(&T) -> u64,
    ) -> Result<T, StoreError> {
        let began = (self.clock)();
        let answer = asked.await;
        self.recorder.done(&StoreCall {
            op,
            outcome: Outcome::of(&answer),
            bytes_in,
            bytes_out: answer.as_ref().map_or(0, bytes_out),
            duration: (self.clock)().saturating_sub(began),
        });
        answer
    }
}

impl<S: BlobStore> BlobStore for Instrumented<S> {
    fn get<'a>(&'a self, key: &'a Key, want: Want) -> Answer<'a, Option<Blob>> {
        let length =
            |found: &Option<Blob>| found.as_ref().map_or(0, |blob| blob.bytes.len() as u64);
        Box::pin(self.told(StoreOp::Get, 0, self.store.get(key, want), length))
    }

    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes, condition: Condition) -> Answer<'a, Version> {
        let given = bytes.len() as u64;
        let asked = self.store.put(key, bytes, condition);
        Box::pin(self.told(StoreOp::Put, given, asked, |_| 0))
    }

    fn delete<'a>(&'a self, keys: &'a [Key]) -> Answer<'a, ()> {
        Box::pin(self.told(StoreOp::Delete, 0, self.store.delete(keys), |()| 0))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Page> {
        let asked = self.store.list(prefix, after, limit);
        Box::pin(self.told(StoreOp::List, 0, asked, |_| 0))
    }

    fn allows_unsealed(&self) -> bool {
        self.store.allows_unsealed()
    }
}

impl<S: fmt::Debug> fmt::Debug for Instrumented<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Instrumented").field(&self.store).finish()
    }
}

/// Counts calls, for tests and benches.
#[derive(Debug, Default)]
pub struct CallCounter {
    calls: [AtomicU64; 4],
    failed: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl CallCounter {
    /// Calls of one kind, however they went.
    #[must_use]
    pub fn calls(&self, op: StoreOp) -> u64 {
        self.calls[op as usize].load(Ordering::Relaxed)
    }

    /// Calls that were answered with an error.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Bytes given to the store.
    #[must_use]
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    /// Bytes the store gave.
    #[must_use]
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }
}

impl StoreRecorder for CallCounter {
    fn done(&self, call: &StoreCall) {
        self.calls[call.op as usize].fetch_add(1, Ordering::Relaxed);
        let failed = u64::from(call.outcome != Outcome::Ok);
        self.failed.fetch_add(failed, Ordering::Relaxed);
        self.bytes_in.fetch_add(call.bytes_in, Ordering::Relaxed);
        self.bytes_out.fetch_add(call.bytes_out, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::store::MemoryStore;

    #[derive(Default)]
    struct Told(Mutex<Vec<StoreCall>>);

    impl StoreRecorder for Told {
        fn done(&self, call: &StoreCall) {
            self.0.lock().expect("no test panics with it").push(*call);
        }
    }

    #[tokio::test]
    async fn every_call_is_told_with_its_outcome_its_bytes_and_its_time() {
        let told = Arc::new(Told::default());
        let ticks = AtomicU64::new(0);
        let clock = move || Duration::from_secs(ticks.fetch_add(1, Ordering::Relaxed));
        let store = Instrumented::new(MemoryStore::new(), told.clone(), Arc::new(clock));
        let key = Key::new("a").expect("a key");
        let bytes = Bytes::from_static(b"four");
        let whole = Want::Whole { max: 4 };
        assert!(store.get(&key, whole).await.expect("it reads").is_none());
        let put = store.put(&key, bytes.clone(), Condition::Absent);
        put.await.expect("the first put");
        let again = store.put(&key, bytes, Condition::Absent).await;
        assert!(matches!(again, Err(StoreError::Precondition)));
        assert!(store.get(&key, whole).await.expect("it reads").is_some());
        let calls: Vec<_> = told
            .0
            .lock()
            .expect("no test panics with it")
            .iter()
            .map(|call| (call.op, call.outcome, call.bytes_in, call.bytes_out))
            .collect();
        let expected = [
            (StoreOp::Get, Outcome::Ok, 0, 0),
            (StoreOp::Put, Outcome::Ok, 4, 0),
            (StoreOp::Put, Outcome::Precondition, 4, 0),
            (StoreOp::Get, Outcome::Ok, 0, 4),
        ];
        assert_eq!(calls, expected);
        let durations = told.0.lock().expect("no test panics with it");
        assert!(durations.iter().all(|call| call.duration.as_secs() == 1));
    }

    #[tokio::test]
    async fn a_counter_counts_per_kind() {
        let counter = Arc::new(CallCounter::default());
        let clock = Arc::new(|| Duration::ZERO);
        let store = Instrumented::new(MemoryStore::new(), counter.clone(), clock);
        store.list("", None, 1).await.expect("a page");
        store.delete(&[]).await.expect("nothing to delete");
        store.list("", None, 1).await.expect("a page");
        let counted = StoreOp::ALL.map(|op| counter.calls(op));
        assert_eq!((counted, counter.failed()), ([0, 0, 1, 2], 0));
    }
}
