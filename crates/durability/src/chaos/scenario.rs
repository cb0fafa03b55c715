//! One run: a room that several processes want, a bad night, a quiet morning, and somebody with the
//! bucket and without the key.

mod tampering;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cabinet_wire::ArtifactDigest;

use tampering::victim;

use super::Seen;
use super::oracle::{Mark, Oracle};
use super::sim::{Chance, Sim, Tasks};
use crate::entropy::SeededEntropy;
use crate::head::{Header, Member, Standing};
use crate::ids::{Epoch, OwnerId, RoomId, RoomIds};
use crate::names;
use crate::retention::Retention;
use crate::seal::{Keyring, MasterKey, Sealing};
use crate::vault::{Lease, Vault, VaultError, VaultOptions, Written};

const NOON: u64 = 1_700_000_000_000;
const WRITERS: usize = 3;
const READER: usize = 4;
/// Sets up, and looks at the end.
const QUIET: usize = 5;
/// Seals the room under another key, whenever nobody has it.
const OPERATOR: usize = 6;
const ARTIFACT: ArtifactDigest = ArtifactDigest([7; 32]);

struct World {
    sim: Arc<Sim>,
    room: RoomId,
    other: RoomId,
    oracle: RefCell<Oracle>,
    seen: RefCell<Seen>,
    chance: RefCell<Chance>,
    clock: Cell<u64>,
    /// Numbers states.
    states: Cell<u64>,
}

impl World {
    fn saw(&self, what: &'static str) {
        *self.seen.borrow_mut().entry(what).or_default() += 1;
    }

    fn tick(&self) -> u64 {
        self.oracle.borrow_mut().tick()
    }

    fn below(&self, bound: usize) -> usize {
        self.chance.borrow_mut().below(bound)
    }

    fn percent(&self, percent: usize) -> bool {
        self.chance.borrow_mut().percent(percent)
    }

    fn breaks(&self, what: impl Into<String>) {
        self.oracle.borrow_mut().breaks(what);
    }

    /// An error that a bad night explains; any other breaks a promise.
    fn expects(&self, doing: &str, error: &VaultError) {
        let explained = matches!(
            error,
            VaultError::Unavailable(_)
                | VaultError::Fenced { .. }
                | VaultError::AlreadyResumed
                | VaultError::Standing(_)
        );
        if !explained {
            self.breaks(format!("{doing}: {error:?}"));
        }
    }

    fn vault(&self, process: usize, seed: u64) -> Vault {
        let ids: &[u32] = match process {
            OPERATOR => &[2, 1],
            _ => &[1, 2],
        };
        self.vault_with(process, seed, ids)
    }

    /// A process with these keys, the first of which seals.
    fn vault_with(&self, process: usize, seed: u64, ids: &[u32]) -> Vault {
        let key = |id: &u32| {
            let mut bytes = *b"0123456789abcdef0123456789abcdef";
            bytes[0] ^= *id as u8;
            MasterKey::new(*id, bytes).expect("a key")
        };
        let mut ring = Keyring::new(key(&ids[0]));
        for id in &ids[1..] {
            ring = ring.with_older(key(id)).expect("another key");
        }
        let mut options = VaultOptions::new(OwnerId::named(&format!("process {process}")));
        options.entropy = Arc::new(SeededEntropy::new(seed));
        options.checkpoint_bytes_max = 1 << 20;
        Vault::open(self.sim.of(process), Sealing::Keys(ring), options).expect("a vault")
    }

    /// The bytes of a state nobody has written before.
    fn state(&self, process: usize, room: RoomId) -> (Mark, Vec<u8>) {
        self.states.set(self.states.get() + 1);
        let mark = (process as u64, self.states.get());
        let mut bytes = room.as_bytes().to_vec();
        bytes.extend(mark.0.to_le_bytes());
        bytes.extend(mark.1.to_le_bytes());
        bytes.resize(200, 0);
        (mark, bytes)
    }
}

fn mark_of(room: RoomId, bytes: &[u8]) -> Option<Mark> {
    let mut fields = crate::codec::Reader(bytes);
    let mine = fields.array::<16>()? == *room.as_bytes();
    let mark = (fields.u64()?, fields.u64()?);
    mine.then_some(mark)
}

fn header(at: u64) -> Header {
    Header {
        slug: "game".into(),
        at: at as i64,
        roster: vec![Member {
            account: "a1".into(),
            handle: "ada".into(),
        }],
    }
}

/// One process: takes the room, writes it, loses it, takes it again.
async fn life(world: Rc<World>, who: usize, vault: Vault) {
    for _ in 0..1 + world.below(4) {
        let Some(lease) = take(&world, &vault).await else {
            continue;
        };
        for _ in 0..world.below(5) {
            if !write(&world, who, &lease).await {
                break;
            }
            if world.percent(15) {
                let keep = Retention {
                    keep_last: 1 + world.below(2),
                    keep_younger: Duration::ZERO,
                };
                match lease.prune(&keep, world.clock.get()).await {
                    Ok(0) => {}
                    Ok(_) => world.saw("pruned"),
                    Err(error) => world.expects("pruning", &error),
                }
            }
            if world.percent(15) && park(&world, who, &lease).await {
                break;
            }
        }
    }
}

async fn take(world: &World, vault: &Vault) -> Option<Lease> {
    let (room, now_ms) = (world.room, world.clock.get());
    let began = world.tick();
    match vault.claim(room, now_ms).await {
        Ok((lease, checkpoint)) => {
            world.saw("claimed");
            let mut oracle = world.oracle.borrow_mut();
            oracle.claim(lease.fence(), lease.epoch(), began);
            if let Some(read) = checkpoint {
                oracle.read(began, &read, mark_of(room, &read.bytes));
            }
            Some(lease)
        }
        Err(VaultError::Standing(Standing::Parked)) => {
            let parked = match vault.open_parked(room, Some("a1"), Some(ARTIFACT)).await {
                Ok(parked) => parked,
                Err(error) => {
                    world.expects("opening a parked room", &error);
                    return None;
                }
            };
            let read = parked.checkpoint().clone();
            let mark = mark_of(room, &read.bytes);
            world.oracle.borrow_mut().read(began, &read, mark);
            let began = world.tick();
            match vault.take(&parked, world.clock.get()).await {
                Ok(lease) => {
                    world.saw("taken");
                    let mut oracle = world.oracle.borrow_mut();
                    oracle.took(read.epoch);
                    oracle.claim(lease.fence(), lease.epoch(), began);
                    Some(lease)
                }
                Err(error) => {
                    if matches!(error, VaultError::AlreadyResumed) {
                        world.saw("lost a take");
                    }
                    world.expects("taking a parked room", &error);
                    None
                }
            }
        }
        Err(error) => {
            world.expects("claiming", &error);
            None
        }
    }
}

/// `false`: the room is somebody else's.
async fn write(world: &World, who: usize, lease: &Lease) -> bool {
    let (fence, epoch) = (lease.fence(), lease.next_epoch());
    let (mark, bytes) = world.state(who, world.room);
    let packed = lease.pack(epoch, ARTIFACT, &bytes, world.clock.get());
    let packed = packed.expect("it is small");
    world.oracle.borrow_mut().attempt(fence, epoch, mark);
    // The same again, or a later capture of the same epoch.
    for _ in 0..1 + world.below(3) {
        let began = world.tick();
        match lease.write(&packed, world.clock.get()).await {
            Ok(Written::Newest) => {
                world.saw("acknowledged");
                world
                    .oracle
                    .borrow_mut()
                    .acknowledge(began, fence, epoch, mark);
                return true;
            }
            Ok(Written::Superseded) => {
                world.saw("overtaken");
                return true;
            }
            Err(VaultError::Fenced { .. }) => {
                world.saw("fenced");
                return false;
            }
            Err(error) => world.expects("writing", &error),
        }
    }
    true
}

/// `true`: the lease is spent.
async fn park(world: &World, who: usize, lease: &Lease) -> bool {
    let (fence, epoch) = (lease.fence(), lease.next_epoch());
    let (mark, bytes) = world.state(who, world.room);
    let packed = lease.pack(epoch, ARTIFACT, &bytes, world.clock.get());
    let packed = packed.expect("it is small");
    world.oracle.borrow_mut().attempt(fence, epoch, mark);
    let began = world.tick();
    match lease.park(&packed, header(began), world.clock.get()).await {
        Ok(()) => {
            world.saw("parked");
            world.oracle.borrow_mut().parked(began, fence, epoch, mark);
            true
        }
        Err(error) => {
            world.expects("parking", &error);
            matches!(error, VaultError::Fenced { .. })
        }
    }
}

/// The operator, who does not know how the room is.
async fn reseals(world: Rc<World>, vault: Vault, times: usize) {
    for _ in 0..times {
        match vault.reseal(world.room, world.clock.get()).await {
            Ok(done) => {
                if done.records > 0 {
                    world.saw("resealed");
                }
                if !done.problems.is_empty() {
                    world.breaks(format!("sealing anew: {:?}", done.problems));
                }
            }
            Err(error) => world.expects("sealing anew", &error),
        }
    }
}

/// A room nobody has is all under the new key, whatever the night was: whoever has only that reads
/// it.
async fn resealed(world: Rc<World>, operator: Vault, new_key: Vault) {
    let done = operator.reseal(world.room, world.clock.get()).await;
    let done = match done {
        Ok(done) if done.problems.is_empty() => done,
        other => return world.breaks(format!("sealing anew in the morning: {other:?}")),
    };
    if done.standing == Some(Standing::Live) {
        return;
    }
    if done.waiting > 0 {
        world.breaks(format!("not all is sealed anew: {done:?}"));
    }
    reads(Rc::clone(&world), new_key.clone(), 1).await;
    for name in new_key.checkpoints(world.room).await.expect("it lists") {
        if let Err(error) = new_key.checkpoint(world.room, &name).await {
            world.breaks(format!("{name:?} is not under the new key: {error:?}"));
        }
    }
}

async fn reads(world: Rc<World>, vault: Vault, times: usize) {
    for _ in 0..times {
        let began = world.tick();
        match vault.latest(world.room, Some(ARTIFACT)).await {
            Ok(read) => {
                world.saw("read");
                let mark = mark_of(world.room, &read.bytes);
                world.oracle.borrow_mut().read(began, &read, mark);
            }
            Err(VaultError::NoCheckpoint) if world.oracle.borrow().newest() == Epoch::NONE => {}
            Err(error) => world.expects("reading", &error),
        }
    }
}

/// Two rooms: the one that is fought over, and another that checkpoints and heads are spliced from.
async fn set_up(world: Rc<World>, vault: Vault) {
    for room in [world.room, world.other] {
        let lease = vault.create(room, NOON).await.expect("a good night");
        if room == world.other {
            let (_, bytes) = world.state(QUIET, room);
            for _ in 0..2 {
                let packed = lease.pack(lease.next_epoch(), ARTIFACT, &bytes, NOON);
                let packed = packed.expect("it is small");
                lease.write(&packed, NOON).await.expect("a good night");
            }
        }
    }
}

/// After the night: everything that was promised is there, and the room goes on.
async fn morning(world: Rc<World>, vault: Vault) {
    reads(Rc::clone(&world), vault.clone(), 1).await;
    let head = vault.head(world.room).await;
    let head = match head {
        Ok(Some(head)) => head,
        other => return world.breaks(format!("the head in the morning: {other:?}")),
    };
    let listed = vault.parked_of("a1").await.expect("a good morning");
    let shown = listed.rooms.iter().any(|entry| entry.room == world.room);
    if shown != (head.standing == Standing::Parked) {
        world.breaks(format!(
            "the room is {}, and in the list: {shown}",
            head.standing.name()
        ));
    }
    if world.oracle.borrow().is_parked()
        && head.epoch() == world.oracle.borrow().newest()
        && head.standing == Standing::Ended
    {
        world.breaks("a parked room ended by itself");
    }
    let Some(lease) = take(&world, &vault).await else {
        return world.breaks("the room cannot be had in the morning");
    };
    if !write(&world, QUIET, &lease).await {
        world.breaks("the room cannot be written in the morning");
    }
    reads(Rc::clone(&world), vault.clone(), 1).await;
}

/// The head is lost while nobody writes.
async fn rebuild(world: Rc<World>, vault: Vault) {
    world.saw("rebuilt");
    match vault.rebuild(world.room, world.clock.get()).await {
        Ok(lease) => match vault.latest(world.room, Some(ARTIFACT)).await {
            Ok(read) => {
                let mark = mark_of(world.room, &read.bytes);
                let mut oracle = world.oracle.borrow_mut();
                let began = oracle.tick();
                oracle.rebuilt(read.fence, read.epoch);
                oracle.read(began, &read, mark);
                if lease.epoch() != read.epoch {
                    oracle.breaks("the rebuilt head names another checkpoint than its lease");
                }
            }
            Err(VaultError::NoCheckpoint) if world.oracle.borrow().newest() == Epoch::NONE => {}
            Err(error) => world.breaks(format!("reading from a rebuilt head: {error:?}")),
        },
        Err(VaultError::NoCheckpoint) if world.oracle.borrow().newest() == Epoch::NONE => {}
        Err(error) => world.breaks(format!("rebuilding a head: {error:?}")),
    }
}

impl World {
    /// The head as it lies there.
    fn head_bytes(&self) -> Option<(Epoch, Bytes)> {
        let state = self.sim.lock();
        let (bytes, _) = state.objects().get(&names::head(self.room))?;
        let epoch = u64::from_le_bytes(*bytes.get(28..36)?.first_chunk()?);
        Some((Epoch(epoch), bytes.clone()))
    }

    fn settle(&self, tasks: &mut Tasks) {
        loop {
            tasks.settle();
            let stepped = {
                let mut chance = self.chance.borrow_mut();
                self.sim.step(&mut chance, &mut self.seen.borrow_mut())
            };
            if !stepped {
                return;
            }
        }
    }
}

/// Runs one seed; `Ok` is a digest of what the store holds at the end.
pub(super) fn run(seed: u64, seen: &mut Seen) -> Result<u64, String> {
    let mut ids = RoomIds::default();
    let world = Rc::new(World {
        sim: Arc::new(Sim::default()),
        room: ids.next(NOON, [1; 8]),
        other: ids.next(NOON, [2; 8]),
        oracle: RefCell::default(),
        seen: RefCell::new(std::mem::take(seen)),
        chance: RefCell::new(Chance(seed)),
        clock: Cell::new(NOON),
        states: Cell::new(0),
    });
    let outcome = play(&world, seed);
    *seen = world.seen.take();
    outcome?;
    let state = world.sim.lock();
    let digest = state
        .objects()
        .iter()
        .fold(seed, |digest, (key, (bytes, _))| {
            let parts = [key.as_str().as_bytes(), bytes].concat();
            let hash = crate::vault::sha256(&parts);
            digest.rotate_left(7) ^ u64::from_le_bytes(*hash.first_chunk().expect("32 bytes"))
        });
    Ok(digest)
}

fn play(world: &Rc<World>, seed: u64) -> Result<(), String> {
    let verdict = || match world.oracle.borrow().broken() {
        Some(broken) => Err(broken.to_owned()),
        None => Ok(()),
    };
    let mut tasks = Tasks::default();
    let mut lives = 0;
    let mut vault = |process: usize| {
        lives += 1;
        world.vault(process, seed.wrapping_mul(1_000).wrapping_add(lives))
    };
    tasks.spawn(QUIET, set_up(Rc::clone(world), vault(QUIET)));
    world.settle(&mut tasks);

    world.sim.lock().trouble = world.below(45);
    for who in 1..=WRITERS {
        tasks.spawn(who, life(Rc::clone(world), who, vault(who)));
    }
    tasks.spawn(READER, reads(Rc::clone(world), vault(READER), 8));
    let times = world.below(12);
    tasks.spawn(OPERATOR, reseals(Rc::clone(world), vault(OPERATOR), times));
    let mut respawns = world.below(5);
    let mut old_head = None;
    loop {
        tasks.settle();
        verdict()?;
        if world.percent(2) {
            let who = match world.below(WRITERS + 1) {
                0 => OPERATOR,
                writer => writer,
            };
            if tasks.has(who) {
                world.saw("crashed");
                tasks.crash(who);
                world.sim.crash(who, &mut world.chance.borrow_mut());
            }
            if respawns > 0 && !tasks.has(who) {
                respawns -= 1;
                match who {
                    OPERATOR => {
                        tasks.spawn(who, reseals(Rc::clone(world), vault(who), 4));
                    }
                    _ => tasks.spawn(who, life(Rc::clone(world), who, vault(who))),
                }
            }
        }
        if world.percent(2) {
            world.saw("clock jumped");
            let jump = world.below(7_200_000) as u64;
            let now = world.clock.get();
            world.clock.set(if world.percent(50) {
                now + jump
            } else {
                now.saturating_sub(jump)
            });
        }
        if world.percent(3) {
            old_head = world.head_bytes();
        }
        world.clock.set(world.clock.get() + 1);
        let stepped = {
            let mut chance = world.chance.borrow_mut();
            world.sim.step(&mut chance, &mut world.seen.borrow_mut())
        };
        if !stepped && tasks.is_empty() {
            break;
        }
    }
    world.sim.lock().trouble = 0;
    if world.percent(50) {
        let new_key = world.vault_with(QUIET, seed ^ 2, &[2]);
        let operator = vault(OPERATOR);
        tasks.spawn(QUIET, resealed(Rc::clone(world), operator, new_key));
        world.settle(&mut tasks);
        verdict()?;
    }
    if world.percent(70) {
        tasks.spawn(QUIET, morning(Rc::clone(world), vault(QUIET)));
        world.settle(&mut tasks);
        verdict()?;
    }
    if world.percent(40) {
        world.sim.lock().tamper(names::head(world.room), None);
        tasks.spawn(QUIET, rebuild(Rc::clone(world), vault(QUIET)));
    } else if let Some(deed) = world.tamper(old_head) {
        tasks.spawn(QUIET, victim(Rc::clone(world), vault(QUIET), deed));
    }
    world.settle(&mut tasks);
    verdict()?;
    if tasks.is_empty() {
        Ok(())
    } else {
        Err("somebody waits for ever".into())
    }
}
