//! Writes a recording while a room plays.
//!
//! What the guest is told is seen where it is told: an observer of the room has every payload, and
//! stores in front of the room's own hear every answer. A thread writes; the room never waits for a
//! disk. When the disk cannot keep up, or a limit is reached, the recording stops there and says
//! so; the room plays on.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use cabinet_host::{HostCall, Observer, ServiceError};
use cabinet_rooms::services::{ConfigStore, KvAddress, KvStore, MergeRule, ServiceSet};
use cabinet_rooms::{Export, MakeObserver, Reply};
use cabinet_wire::ctx::{self, DecodedRoster};
use cabinet_wire::input;

use super::format::{ANSWERS_MAX, Writer};
use super::{Answer, Callback, End, Header, player_of};

/// Callbacks that may wait to be written.
const WAITING_MAX: usize = 4_096;

/// Records one room. Cheap to clone; clones are the same recording.
#[derive(Clone)]
pub struct Tap {
    state: Arc<Mutex<State>>,
}

struct State {
    header: Header,
    /// The context features the game declared.
    features: u32,
    /// The connection of each seat, the first of seat 1.
    conns: Vec<String>,
    /// The seats in roster order, as the guest was last told.
    roster: Vec<u16>,
    /// The callback under way, or the last one.
    current: Option<Callback>,
    check: crc32fast::Hasher,
    to: Option<SyncSender<Written>>,
    thread: Option<JoinHandle<io::Result<()>>>,
    begun: bool,
    stopped: Option<String>,
}

enum Written {
    Header(Box<Header>),
    Callback(Box<Callback>),
    End(End),
}

impl Tap {
    /// Records to `file`, on a thread of its own. What the room tells its guest first overrides
    /// what `header` says of mode, players and seed. The players are those of [`player_of`].
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        file: impl Write + Send + 'static,
        header: Header,
        features: u32,
    ) -> io::Result<Self> {
        let conns = (1..=header.seats)
            .map(|seat| player_of(seat).conn)
            .collect();
        let (to, from) = sync_channel(WAITING_MAX);
        let thread = thread::Builder::new()
            .name("cabinet-record".into())
            .spawn(move || write(file, &from))?;
        Ok(Self {
            state: Arc::new(Mutex::new(State {
                header,
                features,
                conns,
                roster: Vec::new(),
                current: None,
                check: crc32fast::Hasher::new(),
                to: Some(to),
                thread: Some(thread),
                begun: false,
                stopped: None,
            })),
        })
    }

    /// For [`RoomSpec::observer`](cabinet_rooms::RoomSpec::observer).
    #[must_use]
    pub fn observer(&self) -> MakeObserver {
        let tap = self.clone();
        Arc::new(move || Box::new(tap.clone()))
    }

    /// The same services, whose answers are recorded.
    #[must_use]
    pub fn services(&self, mut set: ServiceSet) -> ServiceSet {
        set.kv = set.kv.map(|kv| -> Arc<dyn KvStore> {
            Arc::new(Tapped {
                inner: kv,
                tap: self.clone(),
            })
        });
        set.config = set.config.map(|config| -> Arc<dyn ConfigStore> {
            Arc::new(Tapped {
                inner: config,
                tap: self.clone(),
            })
        });
        set
    }

    /// Whether what happens still goes to the file: not after it could take no more.
    #[must_use]
    pub fn is_going(&self) -> bool {
        self.lock().to.is_some()
    }

    /// The room is over: writes what is left, and waits until it is in the file.
    ///
    /// # Errors
    /// Why the recording is not whole, in one line.
    pub fn finish(&self, end: End) -> Result<(), String> {
        let (thread, stopped) = {
            let mut state = self.lock();
            state.flush();
            state.send(Written::End(end));
            state.to = None;
            (state.thread.take(), state.stopped.take())
        };
        // Not under the lock: the room may still be there.
        let written = thread.map(JoinHandle::join);
        match (written, stopped) {
            (Some(Ok(Err(error))), _) => Err(error.to_string()),
            (_, Some(reason)) => Err(reason),
            (Some(Err(_)), None) => Err("the thread that writes it panicked".into()),
            (Some(Ok(Ok(()))) | None, None) => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered<T>(
        &self,
        answer: Result<T, ServiceError>,
        value: impl FnOnce(&T) -> Answer,
    ) -> Result<T, ServiceError> {
        let recorded = match &answer {
            Ok(found) => value(found),
            Err(_) => Answer::Failed,
        };
        let mut state = self.lock();
        if let Some(current) = &mut state.current {
            if current.answers.len() < ANSWERS_MAX {
                current.answers.push(recorded);
            } else {
                state.stop("a callback asked the stores too often".into());
            }
        }
        answer
    }
}

impl State {
    fn begin(&mut self, export: &'static str, payload: &[u8]) {
        self.flush();
        let Some(callback) = self.read(export, payload) else {
            self.stop(format!("a call of {export} could not be read back"));
            return;
        };
        self.check = crc32fast::Hasher::new();
        self.current = Some(callback);
    }

    fn read(&mut self, export: &'static str, payload: &[u8]) -> Option<Callback> {
        let export = Export::ALL.into_iter().find(|one| one.name() == export)?;
        let decoded = ctx::decode(payload, self.features).ok()?;
        if let DecodedRoster::Legacy(members) | DecodedRoster::Full { members, .. } = decoded.roster
        {
            let seat = |conn: &[u8]| {
                let at = self.conns.iter().position(|one| one.as_bytes() == conn)?;
                u16::try_from(at + 1).ok()
            };
            self.roster = members
                .map(|member| seat(member.conn.0))
                .collect::<Option<_>>()?;
        }
        if !self.begun {
            self.begun = true;
            let head = decoded.head;
            self.header.mode = head.mode;
            self.header.capacity = head.capacity;
            self.header.min_players = head.min_players;
            self.header.seed = head.seed;
            self.header.seed_set = head.seed_set;
            let header = Box::new(self.header.clone());
            self.send(Written::Header(header));
        }
        let (index, input) = match export {
            Export::Join | Export::Leave => (Some(input::decode_index(decoded.extras).ok()?), None),
            Export::Input => {
                let (index, input) = input::decode(decoded.extras).ok()?;
                (Some(index), Some(input))
            }
            Export::Start | Export::Wake | Export::Close => (None, None),
        };
        let seat = match index {
            Some(index) => Some(*self.roster.get(index as usize)?),
            None => None,
        };
        Some(Callback {
            export,
            now: decoded.head.now_unix_nanos,
            seat,
            input,
            answers: Vec::new(),
            check: 0,
        })
    }

    /// The callback under way has ended.
    fn flush(&mut self) {
        if let Some(mut callback) = self.current.take() {
            callback.check = self.check.clone().finalize();
            self.send(Written::Callback(Box::new(callback)));
        }
    }

    fn send(&mut self, written: Written) {
        let Some(to) = &self.to else {
            return;
        };
        match to.try_send(written) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.stop("the disk could not keep up".into()),
            // The writer says itself why.
            Err(TrySendError::Disconnected(_)) => self.to = None,
        }
    }

    fn stop(&mut self, reason: String) {
        self.current = None;
        self.to = None;
        self.stopped.get_or_insert(reason);
    }
}

impl Observer for Tap {
    fn callback_begin(&mut self, export: &'static str, payload: &[u8]) {
        self.lock().begin(export, payload);
    }

    fn host_call(&mut self, call: &HostCall<'_>) {
        check_call(&mut self.lock().check, call);
    }
}

/// Adds a call of a game function to the sum that tells whether a re-run goes the same way.
pub(crate) fn check_call(check: &mut crc32fast::Hasher, call: &HostCall<'_>) {
    check.update(call.name.as_bytes());
    for arg in call.args {
        check.update(&arg.to_le_bytes());
    }
    for input in call.inputs {
        check.update(&(input.len() as u64).to_le_bytes());
        check.update(input);
    }
}

/// A store whose answers are recorded.
struct Tapped<S: ?Sized> {
    inner: Arc<S>,
    tap: Tap,
}

impl<S: ?Sized> Tapped<S> {
    fn reply(&self, reply: Reply<Option<Vec<u8>>>) -> Reply<Option<Vec<u8>>> {
        let tap = self.tap.clone();
        Reply::new(move |answer| {
            reply.send(tap.answered(answer, |found| Answer::Value(found.clone())));
        })
    }
}

impl KvStore for Tapped<dyn KvStore> {
    fn get(&self, at: KvAddress<'_>, reply: Reply<Option<Vec<u8>>>) {
        self.inner.get(at, self.reply(reply));
    }

    fn set(&self, at: KvAddress<'_>, value: &[u8], rule: Option<MergeRule>, reply: Reply<()>) {
        self.inner.set(at, value, rule, reply);
    }

    fn delete(&self, at: KvAddress<'_>, reply: Reply<()>) {
        self.inner.delete(at, reply);
    }
}

impl ConfigStore for Tapped<dyn ConfigStore> {
    fn get(&self, slug: &str, key: &[u8], reply: Reply<Option<Vec<u8>>>) {
        self.inner.get(slug, key, self.reply(reply));
    }
}

/// Writes what comes until nothing comes any more. What waits is written together.
fn write(mut file: impl Write, from: &Receiver<Written>) -> io::Result<()> {
    let mut writer = Writer::new();
    let mut bytes = Vec::new();
    while let Ok(first) = from.recv() {
        let mut next = Ok(first);
        while let Ok(written) = next {
            let appended = match &written {
                Written::Header(header) => writer.header(header, &mut bytes),
                Written::Callback(callback) => writer.callback(callback, &mut bytes),
                Written::End(end) => writer.end(end, &mut bytes),
            };
            if let Err(error) = appended {
                file.write_all(&bytes)?;
                file.flush()?;
                return Err(io::Error::other(error));
            }
            next = match from.try_recv() {
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                next => next,
            };
        }
        file.write_all(&bytes)?;
        bytes.clear();
    }
    file.flush()
}
