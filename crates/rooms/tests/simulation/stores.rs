//! Stores and a parking that fail: by chance, and the same way for the same seed. What they keep
//! back is answered from a queue that the test advances.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cabinet_host::{Player, ServiceError};
use cabinet_rooms::services::memory::MemoryStore;
use cabinet_rooms::services::{
    Accounts, ConfigStore, KvAddress, KvStore, Leaderboard, LogOrigin, LogSink, MergeRule, Post,
    PostId, Posted, ServiceSet, wait_for,
};
use cabinet_rooms::{Captured, Parking, Reply, RoomId};

use crate::chance::Chance;

type Later = Box<dyn FnOnce() + Send>;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Serve,
    Fail,
    Panic,
    Drop,
    /// Answered later, out of the queue.
    Hold,
    /// Done, but the answer is lost.
    ServeAndDrop,
}

fn down() -> ServiceError {
    ServiceError::Unavailable("down".into())
}

/// As a panic, without a word on standard error.
fn panic_quietly() -> ! {
    resume_unwind(Box::new("a store that panics"))
}

/// Values, configuration, accounts, a board and a log sink.
#[derive(Clone)]
pub struct Stores(Arc<Mutex<State>>);

struct State {
    inner: MemoryStore,
    chance: Chance,
    held: Vec<Later>,
    posts: BTreeMap<PostId, PostSeen>,
    fates: BTreeMap<&'static str, u64>,
}

/// What the board knows of one distinct post.
#[derive(Debug, Clone)]
pub struct PostSeen {
    pub room: RoomId,
    pub round: u32,
    pub sent: u32,
    pub landed: u32,
}

impl Stores {
    pub fn new(chance: Chance) -> Self {
        Self(Arc::new(Mutex::new(State {
            inner: MemoryStore::new(),
            chance,
            held: Vec::new(),
            posts: BTreeMap::new(),
            fates: BTreeMap::new(),
        })))
    }

    pub fn services(&self) -> ServiceSet {
        ServiceSet {
            kv: Some(Arc::new(self.clone())),
            config: Some(Arc::new(self.clone())),
            leaderboard: Some(Arc::new(self.clone())),
            accounts: Some(Arc::new(self.clone())),
            log: Some(Arc::new(self.clone())),
        }
    }

    /// Answers about half of what is kept back, oldest first; `all`: all of it.
    pub fn advance(&self, all: bool) {
        let due: Vec<Later> = {
            let mut state = self.0.lock().unwrap();
            let count = match all {
                true => state.held.len(),
                false => state.held.len().div_ceil(2),
            };
            state.held.drain(..count).collect()
        };
        for answer in due {
            answer();
        }
    }

    pub fn posts(&self) -> Vec<PostSeen> {
        self.0.lock().unwrap().posts.values().cloned().collect()
    }

    pub fn fates(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap().fates.clone()
    }

    /// Nobody but the test holds on to the stores.
    pub fn is_let_go(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    fn inner(&self) -> MemoryStore {
        self.0.lock().unwrap().inner.clone()
    }

    /// Trouble for one request in `seldom`.
    fn fate(&self, seldom: usize) -> Fate {
        let mut state = self.0.lock().unwrap();
        if !state.chance.one_in(seldom) {
            return Fate::Serve;
        }
        let (fate, name) = match state.chance.below(5) {
            0 => (Fate::Fail, "store failed"),
            1 => (Fate::Panic, "store panicked"),
            2 => (Fate::Drop, "store forgot"),
            3 => (Fate::Hold, "store slow"),
            _ => (Fate::ServeAndDrop, "answer lost"),
        };
        *state.fates.entry(name).or_default() += 1;
        fate
    }

    fn hold(&self, answer: Later) {
        self.0.lock().unwrap().held.push(answer);
    }

    /// Serves a request of a guest, or not.
    fn serve<T: Send + 'static>(
        &self,
        seldom: usize,
        reply: Reply<T>,
        inner: impl FnOnce(&MemoryStore, Reply<T>),
    ) {
        match self.fate(seldom) {
            Fate::Serve => inner(&self.inner(), reply),
            Fate::Fail => reply.send(Err(down())),
            Fate::Panic => panic_quietly(),
            Fate::Drop => drop(reply),
            Fate::Hold => self.hold(Box::new(move || reply.send(Err(down())))),
            Fate::ServeAndDrop => inner(&self.inner(), Reply::new(|_| {})),
        }
    }

    fn land(&self, post: &Post) -> Posted {
        let inner = self.inner();
        let posted = wait_for(|reply| inner.post(post, reply)).unwrap();
        let mut state = self.0.lock().unwrap();
        let seen = state.posts.get_mut(&post.id).unwrap();
        seen.landed += u32::from(posted == Posted::Landed);
        posted
    }
}

impl KvStore for Stores {
    fn get(&self, at: KvAddress<'_>, reply: Reply<Option<Vec<u8>>>) {
        self.serve(60, reply, |inner, reply| KvStore::get(inner, at, reply));
    }

    fn set(&self, at: KvAddress<'_>, value: &[u8], rule: Option<MergeRule>, reply: Reply<()>) {
        self.serve(60, reply, |inner, reply| inner.set(at, value, rule, reply));
    }

    fn delete(&self, at: KvAddress<'_>, reply: Reply<()>) {
        self.serve(60, reply, |inner, reply| inner.delete(at, reply));
    }
}

impl ConfigStore for Stores {
    fn get(&self, _: &str, key: &[u8], reply: Reply<Option<Vec<u8>>>) {
        let value = match key {
            b"host.heartbeat_ms" => Some(b"1000".to_vec()),
            b"host.resident" => Some(b"true".to_vec()),
            _ => None,
        };
        // Seldom: a room that does not learn its heartbeat wakes 25 times as often.
        self.serve(1_000, reply, |_, reply| reply.send(Ok(value)));
    }
}

impl Accounts for Stores {
    fn account(&self, player: &Player, reply: Reply<Option<String>>) {
        self.serve(200, reply, |inner, reply| inner.account(player, reply));
    }
}

impl Leaderboard for Stores {
    fn post(&self, post: &Post, reply: Reply<Posted>) {
        let sent = {
            let mut state = self.0.lock().unwrap();
            let seen = state.posts.entry(post.id).or_insert(PostSeen {
                room: post.room,
                round: post.result.round_seq,
                sent: 0,
                landed: 0,
            });
            seen.sent += 1;
            seen.sent
        };
        // A post is given up after eight attempts; no board of ours is down for so long.
        let fate = match sent {
            1..=5 => self.fate(3),
            _ => Fate::Serve,
        };
        match fate {
            Fate::Serve => reply.send(Ok(self.land(post))),
            Fate::Fail => reply.send(Err(down())),
            Fate::Panic => panic_quietly(),
            Fate::Drop => drop(reply),
            Fate::Hold => {
                let (stores, post) = (self.clone(), post.clone());
                self.hold(Box::new(move || {
                    let posted = stores.land(&post);
                    reply.send(Ok(posted));
                }));
            }
            Fate::ServeAndDrop => {
                self.land(post);
            }
        }
    }
}

impl LogSink for Stores {
    fn record(&self, _: &LogOrigin<'_>, _: &[u8]) {
        let panics = {
            let mut state = self.0.lock().unwrap();
            *state.fates.entry("logged").or_default() += 1;
            state.chance.one_in(500)
        };
        if panics {
            panic_quietly();
        }
    }
}

/// Where rooms are parked.
#[derive(Clone)]
pub struct Garage(Arc<Mutex<GarageState>>);

struct GarageState {
    chance: Chance,
    /// The newest snapshot of each room, encoded, and when it was taken.
    records: BTreeMap<RoomId, (i64, Vec<u8>)>,
    held: Vec<HeldRoom>,
    /// Replies to attempts nobody ever answers.
    never: Vec<(RoomId, Reply<()>)>,
    fates: BTreeMap<&'static str, u64>,
}

struct HeldRoom {
    parked: Captured,
    reply: Reply<()>,
    due: Duration,
    takes: bool,
}

/// Longer than a runtime waits for a room to be parked.
const TOO_LATE: u64 = 45;

impl Garage {
    pub fn new(chance: Chance) -> Self {
        Self(Arc::new(Mutex::new(GarageState {
            chance,
            records: BTreeMap::new(),
            held: Vec::new(),
            never: Vec::new(),
            fates: BTreeMap::new(),
        })))
    }

    /// Answers what is due.
    pub fn advance(&self, now: Duration) {
        let due: Vec<HeldRoom> = {
            let mut state = self.0.lock().unwrap();
            state.held.extract_if(.., |held| held.due <= now).collect()
        };
        for held in due {
            if held.takes {
                self.keep(&held.parked);
            }
            held.reply.send(match held.takes {
                true => Ok(()),
                false => Err(down()),
            });
        }
    }

    pub fn record(&self, id: RoomId) -> Option<Vec<u8>> {
        let state = self.0.lock().unwrap();
        state.records.get(&id).map(|(_, bytes)| bytes.clone())
    }

    /// Rooms whose attempt waits for an answer that will come.
    pub fn holds(&self) -> BTreeSet<RoomId> {
        let state = self.0.lock().unwrap();
        state.held.iter().map(|held| held.parked.room).collect()
    }

    /// Those, and rooms whose attempt never gets one.
    pub fn attempts(&self) -> BTreeSet<RoomId> {
        let mut rooms = self.holds();
        let state = self.0.lock().unwrap();
        rooms.extend(state.never.iter().map(|(room, _)| *room));
        rooms
    }

    /// The room has settled.
    pub fn forget(&self, id: RoomId) {
        self.0.lock().unwrap().records.remove(&id);
    }

    pub fn fates(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap().fates.clone()
    }

    /// Forgets everything; what waits for an answer gets none.
    pub fn clear(&self) {
        let gone = {
            let mut state = self.0.lock().unwrap();
            state.records.clear();
            (
                std::mem::take(&mut state.held),
                std::mem::take(&mut state.never),
            )
        };
        drop(gone);
    }

    pub fn is_let_go(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// An answer that comes late must not bury a newer snapshot under an old one.
    fn keep(&self, parked: &Captured) {
        let bytes = parked.snapshot.encode(1).unwrap();
        let mut state = self.0.lock().unwrap();
        let record = state
            .records
            .entry(parked.room)
            .or_insert((i64::MIN, Vec::new()));
        if parked.at >= record.0 {
            *record = (parked.at, bytes);
        }
    }
}

impl Parking for Garage {
    fn park(&self, parked: Captured, reply: Reply<()>) {
        let (fate, wait, takes) = {
            let mut state = self.0.lock().unwrap();
            let fate = state.chance.below(20);
            let name = match fate {
                0..=10 => "parked at once",
                11..=15 => "parked later",
                16 => "parking failed",
                17 => "parking forgot",
                18 => "parking panicked",
                _ => "parking never answered",
            };
            *state.fates.entry(name).or_default() += 1;
            // One in eight of those that come later come too late.
            let wait = match state.chance.one_in(8) {
                true => TOO_LATE,
                false => state.chance.below(12) as u64,
            };
            (fate, wait, !state.chance.one_in(4))
        };
        match fate {
            0..=10 => {
                self.keep(&parked);
                reply.send(Ok(()));
            }
            11..=15 => {
                let at = u64::try_from(parked.at - crate::common::EPOCH).unwrap();
                let due = Duration::from_nanos(at) + Duration::from_secs(wait);
                let held = HeldRoom {
                    parked,
                    reply,
                    due,
                    takes,
                };
                self.0.lock().unwrap().held.push(held);
            }
            16 => reply.send(Err(down())),
            17 => drop(reply),
            18 => panic_quietly(),
            _ => self.0.lock().unwrap().never.push((parked.room, reply)),
        }
    }
}
