//! What a room did to the world around it: frames, posts, log records and the calls themselves.
//!
//! A [`Tape`] is the services and the observer of one room at a time; clones share it, so that
//! whoever drives the room keeps one. Stores are [`MemoryServices`].
//!
//! The tape works while the guest waits, inside the callback's wall time: it keeps frames by
//! reference and leaves their hashing to [`Sent::sha256`], and it looks a recipient's seat up once
//! per roster.

mod effects;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cabinet_host::{
    Frame, HostCall, LogSource, MemoryServices, Observer, Player, Recipient, RoomResult,
    ServiceError, Services, WasiCall,
};
use cabinet_wire::LogLevel;

pub(crate) use self::effects::{
    Blob, Effects, Grid, HostEntry, INPUT_KEPT_BYTES, Logged, Sent, To, WasiEntry,
};
use crate::hash::Running;
use crate::units::nanos;

/// Frames of one callback that are kept whole, one for each seat a script may have; later ones are
/// kept as hashes.
const FRAMES_KEPT: usize = crate::script::MAX_SEATS as usize;
/// Calls of one callback a detailed tape writes down; later ones are counted.
const CALLS_KEPT: usize = 65_536;
/// Bytes kept of what a WASI call read or wrote.
const WASI_DATA_KEPT_BYTES: usize = 4_096;
/// Bytes of keys and values a guest may store in a run; later writes are refused.
const STORED_BYTES_MAX: usize = 64 << 20;
/// Bytes of an input or output of a call that are hashed, beside its length. What is longer is a
/// frame's container or a stored value, which are compared where they arrive.
const HASHED_BYTES_MAX: usize = 16 << 10;

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
    seats: Seats,
    keep: Keep,
    effects: Effects,
    calls: Running,
    posts: Running,
    writes: Running,
    /// Bytes stored so far, overwritten ones included.
    stored_bytes: usize,
}

impl Tape {
    /// A tape for players who sit in `seats`.
    pub(crate) fn new(stores: MemoryServices, seats: Vec<(u16, Player)>, keep: Keep) -> Self {
        let state = State {
            stores,
            seats: Seats::new(seats),
            keep,
            effects: Effects::default(),
            calls: Running::new(),
            posts: Running::new(),
            writes: Running::new(),
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
        effects.writes_sha256 = state.writes.finish();
        state.calls = Running::new();
        state.posts = Running::new();
        state.writes = Running::new();
        effects
    }

    /// A tape with a copy of the stores as they are now and nothing recorded.
    pub(crate) fn fork(&self) -> Self {
        let state = self.lock();
        let seats = state.seats.declared.clone();
        let fork = Self::new(state.stores.fork(), seats, state.keep);
        fork.lock().stored_bytes = state.stored_bytes;
        fork
    }

    /// The seats these players sit in.
    pub(crate) fn seats_of(&self, players: &[Player]) -> Vec<u16> {
        let state = self.lock();
        let seats = players.iter().map(|player| state.seats.of(player));
        seats.flatten().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who sits where.
struct Seats {
    declared: Vec<(u16, Player)>,
    /// The seats of each player, in the order they were declared.
    of: HashMap<Player, Vec<u16>>,
    /// Whom frames went to at each roster index, and who that is to the script. A roster that has
    /// changed is noticed entry by entry.
    roster: Vec<Option<(Player, To)>>,
}

impl Seats {
    fn new(declared: Vec<(u16, Player)>) -> Self {
        let mut of: HashMap<Player, Vec<u16>> = HashMap::new();
        for (seat, player) in &declared {
            of.entry(player.clone()).or_default().push(*seat);
        }
        Self {
            declared,
            of,
            roster: Vec::new(),
        }
    }

    fn of(&self, player: &Player) -> &[u16] {
        self.of.get(player).map_or(&[], Vec::as_slice)
    }

    /// Who the player at a roster index is to the script.
    fn recipient(&mut self, index: usize, player: &Player) -> To {
        if let Some(Some((known, to))) = self.roster.get(index)
            && known == player
        {
            return *to;
        }
        let to = match self.of(player) {
            [seat, ..] => To::Seat(*seat),
            [] => To::Index(index),
        };
        // A roster holds as many players as there are seats; anything past it is looked up anew.
        if index < usize::from(crate::script::MAX_SEATS) {
            if self.roster.len() <= index {
                self.roster.resize(index + 1, None);
            }
            self.roster[index] = Some((player.clone(), to));
        }
        to
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
        state.note_write("set", player, &[key, value, rule]);
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
        let mut state = self.lock();
        state.note_write("delete", player, &[key]);
        state.stores.kv_delete(player, key, within)
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
            Recipient::Member(index, player) => state.seats.recipient(index, player),
        };
        if to == To::Everyone {
            state.effects.newest.clear();
        }
        state.effects.newest.insert(to, frame.clone());
        let grid = if state.effects.frames.len() < FRAMES_KEPT {
            Grid::Kept(frame.clone())
        } else {
            Grid::hashed(frame)
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
        if state.effects.host_call_times.len() < CALLS_KEPT {
            let times = &mut state.effects.host_call_times;
            times.push((call.name, nanos(call.took)));
        }
        state.note_call(call.name, call.args);
        for input in call.inputs {
            state.note_bytes(input);
        }
        state.calls.update(&call.ret.unwrap_or(0).to_le_bytes());
        let answered = [call.ret.is_some(), call.output.is_some()];
        state.calls.update(&answered.map(u8::from));
        state.note_bytes(call.output.unwrap_or_default());
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
        state.note_call(call.name, call.args);
        state.calls.update(&call.errno.to_le_bytes());
        state.note_bytes(call.data);
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

impl State {
    fn note_call(&mut self, name: &str, args: &[i64]) {
        self.calls.update(&name.len().to_le_bytes());
        self.calls.update(name.as_bytes());
        self.calls.update(&args.len().to_le_bytes());
        for arg in args {
            self.calls.update(&arg.to_le_bytes());
        }
    }

    fn note_bytes(&mut self, bytes: &[u8]) {
        self.calls.update(&bytes.len().to_le_bytes());
        self.calls
            .update(&bytes[..bytes.len().min(HASHED_BYTES_MAX)]);
    }

    fn note_write(&mut self, what: &str, player: &Player, texts: &[&[u8]]) {
        self.effects.writes += 1;
        let account = player.account.as_bytes();
        for text in [what.as_bytes(), account].iter().chain(texts) {
            self.writes.update(&text.len().to_le_bytes());
            self.writes.update(text);
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
    fn writes_that_differ_in_anything_have_different_hashes() {
        let hash = |account: &str, key: &[u8], value: &[u8], rule: &[u8]| {
            let (mut tape, _) = tape();
            let player = Player::member(account, "ada", "c1");
            tape.kv_set(&player, key, value, rule, SOON).unwrap();
            let effects = tape.take();
            assert_eq!(effects.writes, 1);
            effects.writes_sha256
        };
        let same = hash("a1", b"k", b"v", b"max");
        assert_eq!(hash("a1", b"k", b"v", b"max"), same);
        for other in [
            hash("a2", b"k", b"v", b"max"),
            hash("a1", b"kv", b"", b"max"),
            hash("a1", b"k", b"w", b"max"),
            hash("a1", b"k", b"v", b"sum"),
        ] {
            assert_ne!(other, same);
        }
        let (mut tape, ada) = tape();
        tape.kv_delete(&ada, b"k", SOON).unwrap();
        assert_ne!(tape.take().writes_sha256, same);
        assert_eq!(tape.take().writes, 0);
    }

    #[test]
    fn inputs_of_one_length_that_differ_have_different_hashes_up_to_what_is_hashed() {
        let hash = |input: &[u8]| {
            let (tape, _) = tape();
            tape.lock().note_call("log", &[1, 2]);
            tape.lock().note_bytes(input);
            tape.take().calls_sha256
        };
        let zeroes = vec![0; HASHED_BYTES_MAX + 1];
        let with = |at: usize| {
            let mut bytes = zeroes.clone();
            bytes[at] = 1;
            hash(&bytes)
        };
        assert_ne!(with(0), hash(&zeroes));
        assert_ne!(with(HASHED_BYTES_MAX - 1), hash(&zeroes));
        assert_eq!(with(HASHED_BYTES_MAX), hash(&zeroes));
        assert_ne!(hash(&zeroes[1..]), hash(&zeroes));
    }

    #[test]
    fn a_roster_index_names_whoever_sits_there_now() {
        let (mut tape, ada) = tape();
        let zoe = Player::guest("zoe", "c9");
        let frame = Frame::from_bytes(&[7; cabinet_wire::FRAME_BYTES]);
        for player in [&ada, &zoe, &ada, &ada] {
            tape.deliver(Recipient::Member(2, player), &frame);
        }
        let sent: Vec<To> = tape.take().frames.iter().map(|sent| sent.to).collect();
        assert_eq!(sent, [To::Seat(3), To::Index(2), To::Seat(3), To::Seat(3)]);
        assert_eq!(tape.seats_of(&[zoe, ada]), [3]);
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
