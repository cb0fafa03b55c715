//! A memory store that counts its requests and gets the n-th one wrong.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cabinet_durability::store::{
    Answer, Blob, BlobStore, Condition, Key, MemoryStore, Page, StoreError, Version, Want,
};

/// How a request goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not done, and the caller is told.
    NotDone,
    /// It is done, and the reply is lost.
    DoneReplyLost,
    /// It is not done, and the caller cannot know.
    NotDoneReplyLost,
    /// The reply is lost, and it is done just before the request so many after it.
    DoneLate(u64),
    /// It is not done, nor is anything after it: the process died before.
    Stop,
    /// It is done, and nothing after it: the process died then.
    StopAfter,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub gets: u64,
    pub puts: u64,
    pub deletes: u64,
    pub lists: u64,
}

impl Counts {
    pub fn all(&self) -> u64 {
        self.gets + self.puts + self.deletes + self.lists
    }
}

/// A write that is under way still.
enum Write {
    Put(Key, Bytes, Condition),
    Delete(Vec<Key>),
}

#[derive(Default)]
struct Plan {
    counts: Counts,
    /// The number of the request that goes wrong, from 0, and how.
    fault: Option<(u64, Fault)>,
    stopped: bool,
    /// With the number of the request before which it is done.
    late: VecDeque<(u64, Write)>,
    /// With the number of the request before which it comes.
    between: Option<(u64, Between)>,
}

/// What somebody else does meanwhile.
pub type Between = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What becomes of one request.
enum Fate {
    Good,
    Bad(Fault),
}

#[derive(Default)]
pub struct Faulty {
    pub inner: MemoryStore,
    plan: Mutex<Plan>,
    sealed_only: bool,
}

impl Faulty {
    pub fn new() -> Self {
        Self::default()
    }

    /// One that keeps nothing unsealed, as stores do that last.
    pub fn sealed_only() -> Self {
        Self {
            sealed_only: true,
            ..Self::default()
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts from zero, and gets request `n` from here wrong.
    pub fn fail(&self, n: u64, fault: Fault) {
        let mut plan = self.plan();
        plan.counts = Counts::default();
        plan.fault = Some((n, fault));
        plan.stopped = false;
    }

    /// Counts from zero, and has somebody else do something before request `n` from here.
    pub fn interleave(&self, n: u64, between: Between) {
        let mut plan = self.plan();
        plan.counts = Counts::default();
        plan.between = Some((n, between));
    }

    /// Whether what was to come between did. It does not come any more.
    pub fn has_come(&self) -> bool {
        self.plan().between.take().is_none()
    }

    /// Requests since the last [`Faulty::fail`] or [`Faulty::settle`].
    pub fn counts(&self) -> Counts {
        self.plan().counts
    }

    /// Whether the request that was to go wrong was made. None goes wrong from here; what is late
    /// stays so.
    pub fn calm(&self) -> bool {
        let mut plan = self.plan();
        let made = plan.counts.all();
        plan.stopped = false;
        plan.fault.take().is_some_and(|(n, _)| made > n)
    }

    /// Everything goes well from here, and what is under way is done; counts from zero.
    pub async fn settle(&self) {
        let late: Vec<Write> = {
            let mut plan = self.plan();
            plan.fault = None;
            plan.stopped = false;
            plan.counts = Counts::default();
            plan.late.drain(..).map(|(_, write)| write).collect()
        };
        for write in late {
            self.apply(write).await;
        }
    }

    async fn apply(&self, write: Write) {
        // Nobody waits for the answer.
        match write {
            Write::Put(key, bytes, condition) => {
                let _ = self.inner.put(&key, bytes, condition).await;
            }
            Write::Delete(keys) => {
                let _ = self.inner.delete(&keys).await;
            }
        }
    }

    async fn next(&self, count: impl Fn(&mut Counts) -> &mut u64) -> Fate {
        let (due, between, fate) = {
            let mut plan = self.plan();
            let n = plan.counts.all();
            *count(&mut plan.counts) += 1;
            let ready = plan.late.iter().take_while(|(at, _)| *at <= n).count();
            let due: Vec<Write> = plan.late.drain(..ready).map(|(_, write)| write).collect();
            let fate = match plan.fault {
                _ if plan.stopped => Fate::Bad(Fault::Stop),
                Some((at, fault)) if at == n => {
                    plan.stopped = matches!(fault, Fault::Stop | Fault::StopAfter);
                    Fate::Bad(fault)
                }
                _ => Fate::Good,
            };
            let between = plan.between.take_if(|(at, _)| *at == n);
            (due, between.map(|(_, between)| between), fate)
        };
        for write in due {
            self.apply(write).await;
        }
        if let Some(between) = between {
            between.await;
        }
        fate
    }

    fn defer(&self, after: u64, write: Write) {
        let mut plan = self.plan();
        let at = plan.counts.all() + after - 1;
        plan.late.push_back((at, write));
    }

    async fn read<T>(
        &self,
        count: impl Fn(&mut Counts) -> &mut u64,
        answer: Answer<'_, T>,
    ) -> Result<T, StoreError> {
        match self.next(count).await {
            Fate::Good => answer.await,
            Fate::Bad(_) => Err(unavailable()),
        }
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("planned".into())
}

fn ambiguous() -> StoreError {
    StoreError::Ambiguous("planned".into())
}

impl BlobStore for Faulty {
    fn get<'a>(&'a self, key: &'a Key, want: Want) -> Answer<'a, Option<Blob>> {
        Box::pin(self.read(|counts| &mut counts.gets, self.inner.get(key, want)))
    }

    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes, condition: Condition) -> Answer<'a, Version> {
        Box::pin(async move {
            match self.next(|counts| &mut counts.puts).await {
                Fate::Good => self.inner.put(key, bytes, condition).await,
                Fate::Bad(Fault::NotDone | Fault::Stop) => Err(unavailable()),
                Fate::Bad(Fault::DoneReplyLost | Fault::StopAfter) => {
                    self.apply(Write::Put(key.clone(), bytes, condition)).await;
                    Err(ambiguous())
                }
                Fate::Bad(Fault::NotDoneReplyLost) => Err(ambiguous()),
                Fate::Bad(Fault::DoneLate(after)) => {
                    self.defer(after, Write::Put(key.clone(), bytes, condition));
                    Err(ambiguous())
                }
            }
        })
    }

    fn delete<'a>(&'a self, keys: &'a [Key]) -> Answer<'a, ()> {
        Box::pin(async move {
            match self.next(|counts| &mut counts.deletes).await {
                Fate::Good => self.inner.delete(keys).await,
                Fate::Bad(Fault::NotDone | Fault::NotDoneReplyLost | Fault::Stop) => {
                    Err(unavailable())
                }
                Fate::Bad(Fault::DoneReplyLost | Fault::StopAfter) => {
                    self.inner.delete(keys).await?;
                    Err(unavailable())
                }
                Fate::Bad(Fault::DoneLate(after)) => {
                    self.defer(after, Write::Delete(keys.to_vec()));
                    Err(unavailable())
                }
            }
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Page> {
        let answer = self.inner.list(prefix, after, limit);
        Box::pin(self.read(|counts| &mut counts.lists, answer))
    }

    fn allows_unsealed(&self) -> bool {
        !self.sealed_only
    }
}
