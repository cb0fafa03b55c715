//! What a room did to the world around it: frames, posts, log records and the calls themselves.
//!
//! A [`Tape`] is the services and the observer of one room at a time; clones share it, so that
//! whoever drives the room keeps one. Stores are [`MemoryServices`].
//!
//! The tape works while the guest waits, inside the callback's wall time: it keeps frames by
//! reference and leaves their hashing to [`Sent::sha256`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cabinet_host::{
    Frame, HostCall, LogSource, MemoryServices, Observer, Player, Recipient, RoomResult,
    ServiceError, Services, WasiCall, frame_bytes,
};
use cabinet_wire::LogLevel;

use crate::hash::{Running, sha256};

/// Frames of one callback that are kept whole; later ones are kept as hashes.
const FRAMES_KEPT: usize = 128;
/// Calls of one callback a detailed tape writes down; later ones are counted.
const CALLS_KEPT: usize = 65_536;
/// Inputs up to this many bytes are kept whole by a detailed tape.
pub(crate) const INPUT_KEPT_BYTES: usize = 512;
/// Bytes kept of what a WASI call read or wrote.
const WASI_DATA_KEPT_BYTES: usize = 4_096;
/// Bytes of keys and values a guest may store in a run; later writes are refused.
const STORED_BYTES_MAX: usize = 64 << 20;
/// What is kept of longer ones, bytes: a delta container's header and its first run's.
const INPUT_HEAD_BYTES: usize = 13;

/// Who a frame went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum To {
    Everyone,
    /// A seat of the script.
    Seat(u16),
    /// A roster index whose player sits in no seat of the script.
    Index(usize),
}

/// A frame that was delivered.
pub(crate) struct Sent {
    pub to: To,
    pub grid: Grid,
}

/// A delivered grid, or its hash when too many were delivered to keep.
pub(crate) enum Grid {
    Kept(Frame),
    Hashed([u8; 32]),
}

impl Sent {
    /// Hash of the 46,080-byte grid.
    pub(crate) fn sha256(&self) -> [u8; 32] {
        match &self.grid {
            Grid::Kept(frame) => sha256(frame_bytes(frame).as_slice()),
            Grid::Hashed(hash) => *hash,
        }
    }
}

/// A log record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    pub level: LogLevel,
    pub source: LogSource,
    pub message: Vec<u8>,
}

/// Bytes that crossed the boundary, shortened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    pub len: usize,
    pub sha256: [u8; 32],
    /// All of it up to [`INPUT_KEPT_BYTES`], else its head.
    pub shown: Vec<u8>,
}

impl Blob {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let kept = if bytes.len() <= INPUT_KEPT_BYTES {
            bytes.len()
        } else {
            INPUT_HEAD_BYTES
        };
        Self {
            len: bytes.len(),
            sha256: sha256(bytes),
            shown: bytes[..kept].to_vec(),
        }
    }
}

/// A game function the guest called.
pub(crate) struct HostEntry {
    pub name: String,
    pub args: Vec<i64>,
    pub inputs: Vec<Blob>,
    pub ret: Option<i64>,
    pub output: Option<Blob>,
}

/// A WASI function the guest called.
pub(crate) struct WasiEntry {
    pub name: String,
    pub args: Vec<i64>,
    pub errno: i32,
    pub data: Vec<u8>,
}

/// The calls of one callback, written down.
#[derive(Default)]
pub(crate) struct Detail {
    pub payload: Vec<u8>,
    pub host: Vec<HostEntry>,
    pub wasi: Vec<WasiEntry>,
    /// Calls past [`CALLS_KEPT`].
    pub omitted: u64,
}

/// Everything since the tape was last taken.
#[derive(Default)]
pub(crate) struct Effects {
    pub frames: Vec<Sent>,
    /// The newest frame for everyone, and the newer ones for single recipients.
    pub newest: BTreeMap<To, Frame>,
    /// Leaderboard posts made, and a hash over all of them.
    pub posts: u64,
    pub posts_sha256: [u8; 32],
    pub logs: Vec<Logged>,
    /// How often each game function was called.
    pub host_calls: BTreeMap<String, u64>,
    /// Hash over every call's name, arguments, inputs' lengths and result.
    pub calls_sha256: [u8; 32],
    /// Filled by a detailed tape.
    pub detail: Detail,
}

/// Whether calls are written down or only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Counts,
    Calls,
}

/// See the [module](self).
#[derive(Clone)]
pub(crate) struct Tape {
    shared: Arc<Mutex<State>>,
}

struct State {
    stores: MemoryServices,
    seats: Vec<(u16, Player)>,
    keep: Keep,
    effects: Effects,
    calls: Running,
    posts: Running,
    /// Bytes stored so far, overwritten ones included.
    stored_bytes: usize,
}

impl Tape {
    /// A tape for players who sit in `seats`.
    pub(crate) fn new(stores: MemoryServices, seats: Vec<(u16, Player)>, keep: Keep) -> Self {
        let state = State {
            stores,
            seats,
            keep,
            effects: Effects::default(),
            calls: Running::new(),
            posts: Running::new(),
            stored_bytes: 0,
        };
        Self {
            shared: Arc::new(Mutex::new(state)),
        }
    }

    /// What happened since the last call.
    pub(crate) fn take(&self) -> Effects {
        let mut state = self.lock();
        let mut effects = std::mem::take(&mut state.effects);
        effects.calls_sha256 = state.calls.finish();
        effects.posts_sha256 = state.posts.finish();
        state.calls = Running::new();
        state.posts = Running::new();
        effects
    }

    /// A tape with a copy of the stores as they are now and nothing recorded.
    pub(crate) fn fork(&self) -> Self {
        let state = self.lock();
        let fork = Self::new(state.stores.fork(), state.seats.clone(), state.keep);
        fork.lock().stored_bytes = state.stored_bytes;
        fork
    }

    /// The seats these players sit in.
    pub(crate) fn seats_of(&self, players: &[Player]) -> Vec<u16> {
        let state = self.lock();
        let seats = state
            .seats
            .iter()
            .filter(|(_, player)| players.contains(player));
        seats.map(|(seat, _)| *seat).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Services for Tape {
    fn kv_get(
        &mut self,
        player: &Player,
        key: &[u8],
        within: Duration,
    ) -> Result<Option<Vec<u8>>, ServiceError> {
        self.lock().stores.kv_get(player, key, within)
    }

    fn kv_set(
        &mut self,
        player: &Player,
        key: &[u8],
        value: &[u8],
        rule: &[u8],
        within: Duration,
    ) -> Result<(), ServiceError> {
        let mut state = self.lock();
        let stored = state.stored_bytes.saturating_add(key.len() + value.len());
        if stored > STORED_BYTES_MAX {
            let limit = format!("a run stores at most {STORED_BYTES_MAX} bytes");
            return Err(ServiceError::Refused(limit));
        }
        state.stored_bytes = stored;
        state.stores.kv_set(player, key, value, rule, within)
    }

    fn kv_delete(
        &mut self,
        player: &Player,
        key: &[u8],
        within: Duration,
    ) -> Result<(), ServiceError> {
        self.lock().stores.kv_delete(player, key, within)
    }

    fn config_get(
        &mut self,
        key: &[u8],
        within: Duration,
    ) -> Result<Option<Vec<u8>>, ServiceError> {
        self.lock().stores.config_get(key, within)
    }

    fn post(&mut self, result: &RoomResult) {
        let mut state = self.lock();
        state.effects.posts += 1;
        // Hashed and not kept: a guest may post tens of thousands of lines at a time.
        let posts = &mut state.posts;
        posts.update(&result.round_seq.to_le_bytes());
        for line in &result.standings {
            let player = &line.player;
            for text in [&player.account, &player.handle, &player.conn] {
                posts.update(&text.len().to_le_bytes());
                posts.update(text.as_bytes());
            }
            posts.update(&line.metric.to_le_bytes());
            posts.update(&line.rank.to_le_bytes());
            posts.update(&[line.status.map_or(u8::MAX, u8::from)]);
        }
    }

    fn log(&mut self, level: LogLevel, source: LogSource, message: &[u8]) {
        let message = message.to_vec();
        self.lock().effects.logs.push(Logged {
            level,
            source,
            message,
        });
    }

    fn deliver(&mut self, to: Recipient<'_>, frame: &Frame) {
        let mut state = self.lock();
        let to = match to {
            Recipient::Everyone => To::Everyone,
            Recipient::Member(index, player) => state
                .seats
                .iter()
                .find(|(_, seated)| seated == player)
                .map_or(To::Index(index), |(seat, _)| To::Seat(*seat)),
        };
        if to == To::Everyone {
            state.effects.newest.clear();
        }
        state.effects.newest.insert(to, frame.clone());
        let grid = if state.effects.frames.len() < FRAMES_KEPT {
            Grid::Kept(frame.clone())
        } else {
            Grid::Hashed(sha256(frame_bytes(frame).as_slice()))
        };
        state.effects.frames.push(Sent { to, grid });
    }
}

impl Observer for Tape {
    fn host_call(&mut self, call: &HostCall<'_>) {
        let mut state = self.lock();
        let state = &mut *state;
        match state.effects.host_calls.get_mut(call.name) {
            Some(count) => *count += 1,
            None => {
                state.effects.host_calls.insert(call.name.to_owned(), 1);
            }
        }
        state.calls.update(call.name.as_bytes());
        call.args
            .iter()
            .for_each(|arg| state.calls.update(&arg.to_le_bytes()));
        for input in call.inputs {
            state.calls.update(&input.len().to_le_bytes());
        }
        if let Some(ret) = call.ret {
            state.calls.update(&ret.to_le_bytes());
        }
        if state.keep == Keep::Calls {
            let detail = &mut state.effects.detail;
            if detail.host.len() == CALLS_KEPT {
                detail.omitted += 1;
                return;
            }
            detail.host.push(HostEntry {
                name: call.name.to_owned(),
                args: call.args.to_vec(),
                inputs: call.inputs.iter().map(|input| Blob::of(input)).collect(),
                ret: call.ret,
                output: call.output.map(Blob::of),
            });
        }
    }

    fn wasi_call(&mut self, call: &WasiCall<'_>) {
        let mut state = self.lock();
        let state = &mut *state;
        state.calls.update(call.name.as_bytes());
        call.args
            .iter()
            .for_each(|arg| state.calls.update(&arg.to_le_bytes()));
        state.calls.update(&call.errno.to_le_bytes());
        if state.keep == Keep::Calls {
            let detail = &mut state.effects.detail;
            if detail.wasi.len() == CALLS_KEPT {
                detail.omitted += 1;
                return;
            }
            detail.wasi.push(WasiEntry {
                name: call.name.to_owned(),
                args: call.args.to_vec(),
                errno: call.errno,
                data: call.data[..call.data.len().min(WASI_DATA_KEPT_BYTES)].to_vec(),
            });
        }
    }

    fn callback_begin(&mut self, _export: &'static str, payload: &[u8]) {
        let mut state = self.lock();
        if state.keep == Keep::Calls {
            state.effects.detail.payload = payload.to_vec();
        }
    }
}

#[cfg(test)]
mod tests {
    use cabinet_host::Standing;
    use cabinet_wire::Mode;

    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    fn tape() -> (Tape, Player) {
        let ada = Player::member("a1", "ada", "c1");
        let seats = vec![(3, ada.clone())];
        (Tape::new(MemoryServices::new(), seats, Keep::Counts), ada)
    }

    #[test]
    fn a_run_stores_up_to_its_limit_and_not_one_byte_more() {
        let (mut tape, ada) = tape();
        let value = vec![0; STORED_BYTES_MAX - 1];
        assert_eq!(tape.kv_set(&ada, b"k", &value, b"", SOON), Ok(()));
        assert_eq!(tape.kv_set(&ada, b"", b"", b"", SOON), Ok(()));
        let refused = |tape: &mut Tape| {
            matches!(
                tape.kv_set(&ada, b"", b"1", b"", SOON),
                Err(ServiceError::Refused(_))
            )
        };
        assert!(refused(&mut tape));
        assert!(refused(&mut tape.fork()), "a fork has stored as much");
    }

    #[test]
    fn posts_that_differ_in_anything_have_different_hashes() {
        let hash = |metric, rank, account: &str| {
            let (mut tape, _) = tape();
            let player = Player::member(account, "ada", "c1");
            let standings = vec![Standing {
                player,
                metric,
                rank,
                status: None,
            }];
            tape.post(&RoomResult {
                mode: Mode::Quick,
                standings,
                round_seq: 1,
            });
            let effects = tape.take();
            assert_eq!(effects.posts, 1);
            effects.posts_sha256
        };
        let same = hash(7, 1, "a1");
        assert_eq!(hash(7, 1, "a1"), same);
        for other in [hash(8, 1, "a1"), hash(7, 2, "a1"), hash(7, 1, "a2")] {
            assert_ne!(other, same);
        }
    }

    #[test]
    fn frames_past_the_first_are_kept_as_hashes_and_name_seats() {
        let (mut tape, ada) = tape();
        let frame = Frame::from_bytes(&[7; cabinet_wire::FRAME_BYTES]);
        let stranger = Player::guest("zoe", "c9");
        tape.deliver(Recipient::Member(5, &stranger), &frame);
        for _ in 0..FRAMES_KEPT {
            tape.deliver(Recipient::Member(0, &ada), &frame);
        }
        let effects = tape.take();
        assert_eq!(effects.frames.len(), FRAMES_KEPT + 1);
        assert_eq!(effects.frames[0].to, To::Index(5));
        let last = &effects.frames[FRAMES_KEPT];
        assert_eq!(last.to, To::Seat(3));
        assert!(matches!(last.grid, Grid::Hashed(_)));
        assert!(matches!(effects.frames[1].grid, Grid::Kept(_)));
        assert_eq!(last.sha256(), effects.frames[1].sha256());
        assert_eq!(tape.take().frames.len(), 0);
    }
}
