//! A store and an executor under one seed.
//!
//! A request waits until the simulator takes it up. Then it is done, or fails, or is done and its
//! reply lost, or is done much later, or twice.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;

use super::Seen;
use crate::store::{
    Answer, Blob, BlobStore, Condition, Entry, Key, Page, StoreError, Version, Want, cut,
};

/// splitmix64.
#[derive(Debug, Clone)]
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound.max(1) as u128) >> 64) as usize
    }

    pub(super) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// What is asked of the store.
#[derive(Debug, Clone)]
enum Request {
    Get(Key, Want),
    Put(Key, Bytes, Condition),
    Delete(Vec<Key>),
    List(String, Option<String>, usize),
}

enum Reply {
    Blob(Option<Blob>),
    Version(Version),
    Done,
    Page(Page),
}

type Answered = Result<Reply, StoreError>;

struct Waiting {
    ticket: u64,
    process: usize,
    request: Request,
}

#[derive(Default)]
pub(super) struct State {
    objects: BTreeMap<Key, (Bytes, u64)>,
    puts: u64,
    tickets: u64,
    waiting: Vec<Waiting>,
    /// Requests whose sender has given up, and which are done yet.
    late: Vec<Request>,
    replies: BTreeMap<u64, (Option<Answered>, Option<Waker>)>,
    /// In percent; 0 is a good night.
    pub(super) trouble: usize,
}

/// The simulated store of one run.
#[derive(Default)]
pub(super) struct Sim {
    state: Mutex<State>,
}

impl Sim {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under it")
    }

    /// The store as one process sees it.
    pub(super) fn of(self: &Arc<Self>, process: usize) -> Arc<dyn BlobStore> {
        Arc::new(View {
            sim: Arc::clone(self),
            process,
        })
    }

    /// Takes up one request. `false`: there is none.
    pub(super) fn step(&self, chance: &mut Chance, seen: &mut Seen) -> bool {
        let mut state = self.lock();
        let trouble = state.trouble;
        if !state.late.is_empty() && (state.waiting.is_empty() || chance.percent(15)) {
            let at = chance.below(state.late.len());
            let request = state.late.swap_remove(at);
            // Its reply goes nowhere.
            let _ = state.perform(&request);
            *seen.entry("late").or_default() += 1;
            return true;
        }
        if state.waiting.is_empty() {
            return false;
        }
        let at = chance.below(state.waiting.len());
        let Waiting {
            ticket, request, ..
        } = state.waiting.swap_remove(at);
        let mut saw = |what| *seen.entry(what).or_default() += 1;
        let is_put = matches!(request, Request::Put(..));
        let lost = || StoreError::Ambiguous("the reply was lost".into());
        let down = || StoreError::Unavailable("the store failed".into());
        let conditional = matches!(
            request,
            Request::Put(_, _, Condition::Absent | Condition::Matches(_))
        );
        let answer = if !chance.percent(trouble) {
            state.perform(&request)
        } else {
            match chance.below(6) {
                0 => {
                    saw("failed");
                    Err(down())
                }
                1 => {
                    saw("lost a reply");
                    let _ = state.perform(&request);
                    Err(if is_put { lost() } else { down() })
                }
                2 if is_put => {
                    // Not done, and nobody can tell.
                    Err(lost())
                }
                3 => {
                    state.late.push(request);
                    Err(if is_put { lost() } else { down() })
                }
                4 => {
                    saw("duplicated");
                    let first = state.perform(&request);
                    let _ = state.perform(&request);
                    first
                }
                5 if conditional => {
                    saw("conflict");
                    Err(StoreError::Conflict)
                }
                _ => state.perform(&request),
            }
        };
        if let Some((reply, waker)) = state.replies.get_mut(&ticket) {
            *reply = Some(answer);
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
        true
    }

    /// A process died: what it asked for is done, or not, or later; nobody hears of it.
    pub(super) fn crash(&self, process: usize, chance: &mut Chance) {
        let mut state = self.lock();
        let (gone, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut state.waiting)
            .into_iter()
            .partition(|waiting| waiting.process == process);
        state.waiting = rest;
        for Waiting {
            ticket, request, ..
        } in gone
        {
            state.replies.remove(&ticket);
            match chance.below(3) {
                0 => {
                    let _ = state.perform(&request);
                }
                1 => state.late.push(request),
                _ => {}
            }
        }
    }
}

impl State {
    fn perform(&mut self, request: &Request) -> Result<Reply, StoreError> {
        match request {
            Request::Get(key, want) => Ok(Reply::Blob(match self.objects.get(key) {
                None => None,
                Some((bytes, version)) => Some(Blob {
                    bytes: cut(bytes, *want)?,
                    version: Version::new(version.to_string()),
                    total: bytes.len() as u64,
                }),
            })),
            Request::Put(key, bytes, condition) => {
                let there = self.objects.get(key).map(|(_, version)| *version);
                let holds = match condition {
                    Condition::None => true,
                    Condition::Absent => there.is_none(),
                    Condition::Matches(version) => {
                        there.is_some_and(|there| there.to_string() == version.as_str())
                    }
                };
                if !holds {
                    return Err(StoreError::Precondition);
                }
                self.puts += 1;
                let version = self.puts;
                self.objects.insert(key.clone(), (bytes.clone(), version));
                Ok(Reply::Version(Version::new(version.to_string())))
            }
            Request::Delete(keys) => {
                for key in keys {
                    self.objects.remove(key);
                }
                Ok(Reply::Done)
            }
            Request::List(prefix, after, limit) => {
                let entries: Vec<Entry> = self
                    .objects
                    .iter()
                    .filter(|(key, _)| key.as_str().starts_with(prefix.as_str()))
                    .filter(|(key, _)| after.as_deref().is_none_or(|after| key.as_str() > after))
                    // Small pages, so that listings are read in parts.
                    .take((*limit).min(3))
                    .map(|(key, (bytes, _))| Entry {
                        key: key.clone(),
                        bytes: bytes.len() as u64,
                    })
                    .collect();
                let next = entries.last().map(|last| last.key.as_str().to_owned());
                Ok(Reply::Page(Page {
                    entries,
                    next,
                    foreign: 0,
                }))
            }
        }
    }

    pub(super) fn objects(&self) -> &BTreeMap<Key, (Bytes, u64)> {
        &self.objects
    }

    /// Somebody with the bucket and without the key.
    pub(super) fn tamper(&mut self, key: Key, bytes: Option<Bytes>) {
        self.puts += 1;
        let version = self.puts;
        match bytes {
            Some(bytes) => self.objects.insert(key, (bytes, version)),
            None => self.objects.remove(&key),
        };
    }
}

struct View {
    sim: Arc<Sim>,
    process: usize,
}

/// One request on its way.
struct Ask {
    sim: Arc<Sim>,
    process: usize,
    request: Option<Request>,
    ticket: u64,
}

impl View {
    fn ask(&self, request: Request) -> Ask {
        Ask {
            sim: Arc::clone(&self.sim),
            process: self.process,
            request: Some(request),
            ticket: 0,
        }
    }
}

impl Future for Ask {
    type Output = Result<Reply, StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.sim.lock();
        if let Some(request) = this.request.take() {
            state.tickets += 1;
            this.ticket = state.tickets;
            let waker = Some(cx.waker().clone());
            state.replies.insert(this.ticket, (None, waker));
            state.waiting.push(Waiting {
                ticket: this.ticket,
                process: this.process,
                request,
            });
            return Poll::Pending;
        }
        let Some((reply, waker)) = state.replies.get_mut(&this.ticket) else {
            return Poll::Pending;
        };
        match reply.take() {
            Some(reply) => {
                state.replies.remove(&this.ticket);
                Poll::Ready(reply)
            }
            None => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl BlobStore for View {
    fn get<'a>(&'a self, key: &'a Key, want: Want) -> Answer<'a, Option<Blob>> {
        Box::pin(async move {
            match self.ask(Request::Get(key.clone(), want)).await? {
                Reply::Blob(blob) => Ok(blob),
                _ => unreachable!("a get is answered with a blob"),
            }
        })
    }

    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes, condition: Condition) -> Answer<'a, Version> {
        Box::pin(async move {
            match self
                .ask(Request::Put(key.clone(), bytes, condition))
                .await?
            {
                Reply::Version(version) => Ok(version),
                _ => unreachable!("a put is answered with a version"),
            }
        })
    }

    fn delete<'a>(&'a self, keys: &'a [Key]) -> Answer<'a, ()> {
        Box::pin(async move {
            self.ask(Request::Delete(keys.to_vec())).await?;
            Ok(())
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Page> {
        Box::pin(async move {
            let after = after.map(str::to_owned);
            match self.ask(Request::List(prefix.into(), after, limit)).await? {
                Reply::Page(page) => Ok(page),
                _ => unreachable!("a list is answered with a page"),
            }
        })
    }
}

/// Futures by the process they run in.
#[derive(Default)]
pub(super) struct Tasks {
    running: Vec<(usize, Task, Arc<Flag>)>,
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Tasks {
    pub(super) fn spawn(&mut self, process: usize, task: impl Future<Output = ()> + 'static) {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        self.running.push((process, Box::pin(task), flag));
    }

    /// Runs what was woken, until nothing is.
    pub(super) fn settle(&mut self) {
        loop {
            let mut ran = false;
            self.running.retain_mut(|(_, task, flag)| {
                if !flag.0.swap(false, Ordering::Relaxed) {
                    return true;
                }
                ran = true;
                let waker = Waker::from(Arc::clone(flag));
                task.as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            });
            if !ran {
                return;
            }
        }
    }

    pub(super) fn crash(&mut self, process: usize) {
        self.running.retain(|(of, _, _)| *of != process);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    pub(super) fn has(&self, process: usize) -> bool {
        self.running.iter().any(|(of, _, _)| *of == process)
    }
}
