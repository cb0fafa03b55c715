//! The in-memory host behind the native ABI: baselines, store, log and results.
//!
//! Invariant: one host at a time is current on a thread, and only inside [`enter`].

use std::cell::RefCell;
use std::collections::BTreeMap;

use core::time::Duration;

use cabinet_wire::ctx::{self, Character, Head, Member, RosterForm};
use cabinet_wire::delta::{self, Grid};
use cabinet_wire::{
    CTX_FEATURE_ROSTER_EPOCH, INPUT_BYTES, LogLevel, MergeRule, ROSTER_CAP, Status, Text,
    input as wire_input, outcome,
};

use super::{Credit, Seat, Sent, TestOptions, TestPlayer};
use crate::meta::Meta;
use crate::store::parse_i64;
use crate::time::Instant;

thread_local! {
    static CURRENT: RefCell<Option<Box<TestHost>>> = const { RefCell::new(None) };
}

/// Makes `host` the one the ABI reaches while `callback` runs, and no longer also if it panics.
pub(super) fn enter(host: &mut Option<Box<TestHost>>, callback: impl FnOnce()) {
    let outer = CURRENT.replace(host.take());
    let _entered = Entered { host, outer };
    callback();
}

/// Puts the current host back where it came from, and the one before it in its place.
struct Entered<'h> {
    host: &'h mut Option<Box<TestHost>>,
    outer: Option<Box<TestHost>>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        *self.host = CURRENT.replace(self.outer.take());
    }
}

/// Everything a host keeps for a room.
#[derive(Debug)]
pub(super) struct TestHost {
    pub now: Instant,
    pub settled: bool,
    pub has_memory: bool,
    pub has_store: bool,
    pub input_context: u8,
    pub logs: Vec<(LogLevel, String)>,
    pub posts: Vec<Vec<Credit>>,
    pub result: Option<Vec<Credit>>,
    pub sent: Vec<Sent>,
    head: Head,
    features: u32,
    config: BTreeMap<Vec<u8>, Vec<u8>>,
    kv: BTreeMap<(String, Vec<u8>), Vec<u8>>,
    seats: Vec<Occupant>,
    /// The callback's roster; in `leave` the departed one is last.
    roster: Vec<Seat>,
    /// How many of `roster` are in the room.
    live: usize,
    members: Vec<u8>,
    members_before: Option<Vec<u8>>,
    roster_epoch: u32,
    full_epoch: Option<u32>,
    input: Vec<u8>,
    slots: BTreeMap<usize, Slot>,
    /// The epoch of slots that hold no frame yet.
    slot_epoch: u32,
    epoch_seq: u32,
}

#[derive(Debug)]
struct Occupant {
    player: TestPlayer,
    seen: Option<Box<Grid>>,
}

#[derive(Debug)]
struct Slot {
    /// `None` until the first keyframe; until then a broadcast gives it nothing either.
    grid: Option<Box<Grid>>,
    epoch: u32,
    has: bool,
}

const BROADCAST: usize = ROSTER_CAP;

impl TestHost {
    pub fn new(meta: &Meta, options: TestOptions) -> TestHost {
        let head = Head {
            now_unix_nanos: 0,
            seed: options.seed,
            seed_set: true,
            mode: options.mode,
            capacity: options.capacity.unwrap_or(meta.max_players()),
            min_players: meta.min_players(),
        };
        let bytes = |(key, value): (String, String)| (key.into_bytes(), value.into_bytes());
        TestHost {
            now: options.start,
            settled: false,
            has_memory: true,
            has_store: true,
            input_context: 0,
            logs: Vec::new(),
            posts: Vec::new(),
            result: None,
            // Room for a test's worth, so that a warm callback under test does not grow it.
            sent: Vec::with_capacity(4096),
            head,
            features: meta.features(),
            config: options.config.into_iter().map(bytes).collect(),
            kv: BTreeMap::new(),
            seats: Vec::new(),
            roster: Vec::new(),
            live: 0,
            members: Vec::new(),
            members_before: None,
            roster_epoch: 0,
            full_epoch: None,
            input: Vec::new(),
            slots: BTreeMap::new(),
            slot_epoch: 0,
            epoch_seq: 0,
        }
    }

    pub fn pass(&mut self, duration: Duration) {
        self.now = self.now + duration;
    }

    pub fn seat_count(&self) -> usize {
        self.seats.len()
    }

    pub fn add(&mut self, player: TestPlayer) -> Seat {
        let seat = Seat(self.seats.len());
        self.seats.push(Occupant { player, seen: None });
        self.roster.push(seat);
        self.live = self.roster.len();
        seat
    }

    /// Moves the seat out of the room, to the end of the coming callback's roster.
    pub fn remove(&mut self, seat: Seat) -> bool {
        let Some(index) = self.index_of(seat) else {
            return false;
        };
        let seat = self.roster.remove(index);
        self.live = self.roster.len();
        self.roster.push(seat);
        true
    }

    pub fn forget_departed(&mut self) {
        self.roster.truncate(self.live);
    }

    pub fn index_of(&self, seat: Seat) -> Option<usize> {
        self.roster.iter().position(|other| *other == seat)
    }

    pub fn seen(&self, seat: Seat) -> Option<&Grid> {
        self.seats[seat.0].seen.as_deref()
    }

    pub fn store(&mut self, seat: Seat, key: &str, value: &[u8]) {
        let account = self.seats[seat.0].player.account.clone();
        self.kv
            .insert((account, key.as_bytes().to_vec()), value.to_vec());
    }

    pub fn configure(&mut self, key: &str, value: &[u8]) {
        self.config.insert(key.as_bytes().to_vec(), value.to_vec());
    }

    pub fn stored(&self, seat: Seat, key: &str) -> Option<&[u8]> {
        let account = self.seats[seat.0].player.account.clone();
        self.kv
            .get(&(account, key.as_bytes().to_vec()))
            .map(Vec::as_slice)
    }

    pub fn set_input(&mut self, payload: &[u8]) {
        self.input.clear();
        self.input.extend_from_slice(payload);
    }

    /// Writes the payload of a callback, about one seat of the roster or none.
    ///
    /// # Panics
    ///
    /// When the roster does not fit one, of which `TestRoom::join_as` warns: a test that asks for
    /// such a room is wrong, and has nobody to hand an error to.
    pub fn encode_payload(&mut self, about: Option<Seat>, extras: &[u8]) {
        self.members.clear();
        let members = self
            .roster
            .iter()
            .map(|seat| member(&self.seats[seat.0].player));
        ctx::encode_members(members, self.features, &mut self.members)
            .expect("a test's roster fits");
        if self.members_before.as_ref() != Some(&self.members) {
            self.members_before
                .get_or_insert_default()
                .clone_from(&self.members);
            self.roster_epoch += 1;
            self.invalidate_frames();
        }
        let epoch = self.roster_epoch;
        let form = if self.features & CTX_FEATURE_ROSTER_EPOCH == 0 {
            RosterForm::Legacy
        } else if self.full_epoch == Some(epoch) {
            RosterForm::Unchanged { epoch }
        } else {
            self.full_epoch = Some(epoch);
            RosterForm::Full { epoch }
        };
        let head = Head {
            now_unix_nanos: self.now.unix_nanos(),
            ..self.head
        };
        let count = u16::try_from(self.roster.len()).expect("a test's roster fits");
        self.input.clear();
        ctx::encode_with_members(
            &head,
            form,
            count,
            &self.members,
            self.settled,
            &mut self.input,
        )
        .expect("a test's roster fits");
        if let Some(index) = about.and_then(|seat| self.index_of(seat)) {
            wire_input::encode_index(index as u32, &mut self.input);
        }
        self.input.extend_from_slice(extras);
    }

    pub fn invalidate_frames(&mut self) {
        self.epoch_seq += 1;
        self.slot_epoch = self.epoch_seq;
        for slot in self.slots.values_mut() {
            (slot.epoch, slot.has) = (self.epoch_seq, false);
        }
    }

    /// Takes a frame into a slot: the slot's epoch afterwards, and whether it holds the frame.
    fn ingest(&mut self, index: usize, payload: &[u8]) -> (u32, bool) {
        let slot_epoch = self.slot_epoch;
        let fresh = || Slot {
            grid: None,
            epoch: slot_epoch,
            has: false,
        };
        let slot = self.slots.entry(index).or_insert_with(fresh);
        let lands = |container: &delta::Container<'_>| {
            container.is_keyframe() || (slot.has && container.epoch() == slot.epoch)
        };
        match delta::check(payload).ok().filter(lands) {
            Some(container) => {
                (slot.epoch, slot.has) = (container.epoch(), true);
                container.apply_to(slot.grid.get_or_insert_with(delta::zeroed));
                (slot.epoch, true)
            }
            None => {
                self.epoch_seq += 1;
                (slot.epoch, slot.has) = (self.epoch_seq, false);
                (slot.epoch, false)
            }
        }
    }

    fn send(&mut self, index: u32, payload: &[u8]) -> u32 {
        let index = index as usize;
        if index >= ROSTER_CAP || index >= self.roster.len() {
            return 0;
        }
        let (returned, applied) = self.ingest(index, payload);
        let seat = self.roster[index];
        self.record(Some(seat), payload, returned, applied);
        if applied
            && index < self.live
            && let Some(grid) = self.slots.get(&index).and_then(|slot| slot.grid.as_deref())
        {
            show(&mut self.seats[seat.0], grid);
        }
        returned
    }

    fn identical(&mut self, payload: &[u8]) -> u32 {
        let (returned, applied) = self.ingest(BROADCAST, payload);
        self.record(None, payload, returned, applied);
        if !applied {
            return returned;
        }
        let broadcast = self.slots.remove(&BROADCAST);
        if let Some(frame) = broadcast.as_ref().and_then(|slot| slot.grid.as_deref()) {
            for seat in &self.roster[..self.live] {
                show(&mut self.seats[seat.0], frame);
            }
            for slot in self.slots.values_mut() {
                if let Some(grid) = &mut slot.grid {
                    grid.copy_from_slice(frame);
                    (slot.epoch, slot.has) = (returned, true);
                }
            }
        }
        self.slots.extend(broadcast.map(|slot| (BROADCAST, slot)));
        returned
    }

    fn record(&mut self, to: Option<Seat>, payload: &[u8], returned: u32, applied: bool) {
        let container = delta::check(payload);
        self.sent.push(Sent {
            to,
            keyframe: container.is_ok_and(|container| container.is_keyframe()),
            epoch: container.map_or(0, |container| container.epoch()),
            returned,
            bytes: payload.len(),
            applied,
        });
    }

    /// The credits of a result, or none of them when one names an empty seat.
    fn credits(&self, payload: &[u8]) -> Option<Vec<Credit>> {
        let rankings = outcome::decode(payload, self.roster.len()).ok()?;
        let credit = |ranking: outcome::Ranking| Credit {
            seat: self.roster[ranking.player as usize],
            metric: ranking.metric,
            rank: ranking.rank,
            status: ranking.status().unwrap_or(Status::Flagged),
        };
        Some(rankings.map(credit).collect())
    }

    fn account_of(&self, index: u32) -> Option<String> {
        let seat = self.roster.get(index as usize).filter(|_| self.has_store)?;
        Some(self.seats[seat.0].player.account.clone()).filter(|account| !account.is_empty())
    }
}

fn member(player: &TestPlayer) -> Member<'_> {
    Member {
        handle: Text::new(&player.handle),
        account: Text::new(&player.account),
        conn: Text::new(&player.conn),
        kind: player.kind,
        character: Character {
            glyph: Text::new(&player.glyph),
            ink: player.colors[0],
            bg: player.colors[1],
            ascii_fallback: player.ascii_fallback,
        },
    }
}

fn show(occupant: &mut Occupant, grid: &Grid) {
    occupant
        .seen
        .get_or_insert_with(delta::zeroed)
        .copy_from_slice(grid);
}

/// The ten bytes behind the context of `input`, without an allocation.
pub(super) fn encode_input(index: usize, input: &wire_input::Input, out: &mut [u8; INPUT_BYTES]) {
    let mut bytes = Vec::with_capacity(INPUT_BYTES);
    wire_input::encode(index as u32, input, &mut bytes);
    out.copy_from_slice(&bytes);
}

// What `abi` exports off wasm32. Without a current host everything answers as a host without a room.

fn with<R>(default: R, use_it: impl FnOnce(&mut TestHost) -> R) -> R {
    CURRENT.with_borrow_mut(|current| match current {
        Some(host) => use_it(host),
        None => default,
    })
}

/// As [`with`] for what is staged in the host's memory: `None` when it has none.
fn stage<R>(default: R, use_it: impl FnOnce(&mut TestHost) -> R) -> Option<R> {
    with(Some(default), |host| host.has_memory.then(|| use_it(host)))
}

pub(crate) fn input(payload: &mut Vec<u8>) {
    payload.clear();
    with((), |host| payload.extend_from_slice(&host.input));
}

pub(crate) fn output(_: &[u8]) {}

pub(crate) fn fail(_: &str) {}

pub(crate) fn send(index: u32, payload: &[u8]) -> Option<u32> {
    stage(0, |host| host.send(index, payload))
}

pub(crate) fn identical(payload: &[u8]) -> Option<u32> {
    stage(0, |host| host.identical(payload))
}

pub(crate) fn set_input_context(context: u8) {
    with((), |host| host.input_context = context);
}

pub(crate) fn end(result: &[u8]) -> bool {
    let ended = stage((), |host| {
        if host.result.is_none() {
            host.result = Some(host.credits(result).unwrap_or_default());
            host.settled = true;
        }
    });
    ended.is_some()
}

pub(crate) fn post(result: &[u8]) -> bool {
    stage((), |host| host.posts.extend(host.credits(result))).is_some()
}

pub(crate) fn log(level: u8, message: &[u8]) {
    let line = String::from_utf8_lossy(message).into_owned();
    stage((), |host| {
        host.logs
            .push((LogLevel::from_argument(i64::from(level)), line))
    });
}

pub(crate) fn kv_get(index: u32, key: &[u8], value: &mut Vec<u8>) -> bool {
    stage(false, |host| {
        let Some(account) = host.account_of(index) else {
            return false;
        };
        take(host.kv.get(&(account, key.to_vec())), value)
    })
    .unwrap_or(false)
}

pub(crate) fn kv_set(index: u32, key: &[u8], value: &[u8], rule: &[u8]) {
    stage((), |host| {
        let Some(account) = host.account_of(index) else {
            return;
        };
        let key = (account, key.to_vec());
        let stored = host.kv.get(&key).and_then(|stored| parse_i64(stored));
        let is_max = MergeRule::from_bytes(rule) == Some(MergeRule::Max);
        // A smaller or equal number under `max` is ignored, as by the reference's store.
        if !(is_max
            && stored.is_some_and(|stored| parse_i64(value).is_some_and(|new| new <= stored)))
        {
            host.kv.insert(key, value.to_vec());
        }
    });
}

pub(crate) fn kv_delete(index: u32, key: &[u8]) {
    stage((), |host| {
        if let Some(account) = host.account_of(index) {
            host.kv.remove(&(account, key.to_vec()));
        }
    });
}

pub(crate) fn config_get(key: &[u8], value: &mut Vec<u8>) -> bool {
    stage(false, |host| {
        host.has_store && take(host.config.get(key), value)
    })
    .unwrap_or(false)
}

fn take(stored: Option<&Vec<u8>>, value: &mut Vec<u8>) -> bool {
    value.clear();
    let Some(stored) = stored.filter(|stored| !stored.is_empty()) else {
        return false;
    };
    value.extend_from_slice(stored);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: Meta = Meta::new("room", "Room").players(1, 4);

    fn host() -> TestHost {
        let mut host = TestHost::new(&META, TestOptions::default());
        host.add(TestPlayer::default());
        host
    }

    #[test]
    fn a_rejected_delta_does_not_make_a_slot_that_a_broadcast_fills() {
        let mut host = host();
        let (blank, mut payload) = (delta::zeroed(), Vec::new());
        delta::encode_run_list(&blank, &blank, 0, &mut payload);
        let (epoch, applied) = host.ingest(0, &payload);
        assert!(!applied);
        payload.clear();
        delta::encode_keyframe(&blank, epoch, &mut payload);
        assert_eq!(host.identical(&payload), epoch);
        payload.clear();
        delta::encode_run_list(&blank, &blank, epoch, &mut payload);
        let (after, applied) = host.ingest(0, &payload);
        assert!(!applied && after != epoch);
    }

    #[test]
    fn the_host_comes_back_and_the_one_before_it_is_current_again_when_a_callback_panics() {
        let (mut outer, mut inner) = (Some(Box::new(host())), Some(Box::new(host())));
        enter(&mut outer, || {
            let panicked = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
                enter(&mut inner, || {
                    set_input_context(1);
                    panic!("the game's own");
                });
            }));
            assert!(panicked.is_err());
            set_input_context(2);
        });
        let context = |host: Option<Box<TestHost>>| host.map(|host| host.input_context);
        assert_eq!((context(outer), context(inner)), (Some(2), Some(1)));
    }
}
