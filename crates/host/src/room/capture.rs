//! Capturing a room whole, and building one from a capture.
//!
//! Invariants
//! - everything is verified before a byte is written to the new instance;
//! - a restored room runs no guest code before its next callback: neither start section nor
//!   runtime initialiser, whose effects are in the captured memory, globals and tables. (An
//!   imported `SCK1` blob lacks globals, so there the initialiser runs first, as the reference
//!   has it.)
//! - an abandoned restore drops what it built.

use std::sync::Arc;
use std::time::Duration;

use cabinet_wire::{ABI_MAJOR, ArtifactDigest, CTX_FEATURE_ROSTER_EPOCH, Kind, Mode};
use wasmer::{AsStoreMut, Extern, Value};
use wasmer_vm::{TableElement, VMFuncRef};

use crate::fault::Fault;
use crate::game::{Game, GameInner, sha256};
use crate::memory::{OS_PAGE, RawGlobal, WASM_PAGE};
use crate::player::Player;
use crate::rewrite::{self, ValueType};
use crate::room::core::Core;
use crate::room::roster::Roster;
use crate::room::shared::Shared;
use crate::room::{Room, RoomConfig, Seed, State};
use crate::services::Services;
use crate::slots::Slots;
use crate::snapshot::sck1::{Sck1, Sck1Error, Sck1Member};
use crate::snapshot::{ConfigState, GlobalValue, MemoryImage, Snapshot, SnapshotError};

/// A room could not be captured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// It was not started, or is closed.
    #[error("the room has no instance")]
    NotLive,
    /// A fault ended it: there is nothing to continue.
    #[error("the room is dead")]
    Dead,
    /// A table or global holds a reference the host cannot name.
    #[error("a function reference is not the guest's own")]
    ForeignReference,
    /// There is more of something than a snapshot holds.
    #[error("the state does not fit a snapshot: {0}")]
    Limit(#[source] SnapshotError),
    /// The instance an `SCK1` blob would be restored into could not be built to compare with.
    #[error("cannot prime an instance to compare with: {0}")]
    Prime(String),
    /// An `SCK1` blob would lose part of the state.
    #[error("an SCK1 blob would lose {0}")]
    Lossy(&'static str),
    /// An `SCK1` blob cannot hold the state.
    #[error("the state does not fit an SCK1 blob: {0}")]
    Sck1(#[source] Sck1Error),
}

/// A room could not be built from a snapshot. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The snapshot belongs to another game, or another version of this one.
    #[error("the snapshot is of artifact {snapshot}, the game is {game}: the game was updated")]
    ArtifactMismatch {
        /// The snapshot's artifact.
        snapshot: ArtifactDigest,
        /// The game's.
        game: ArtifactDigest,
    },
    /// The snapshot was taken under other rules than this host's.
    #[error("the snapshot was taken with another {0}")]
    Incompatible(&'static str),
    /// The snapshot is of a room that a fault ended.
    #[error("the snapshot is of a dead room")]
    Dead,
    /// The snapshot does not describe a state this guest can be in.
    #[error("the snapshot does not fit the guest: {0}")]
    Misfit(&'static str),
    /// The memory it needs could not be had.
    #[error("cannot grow {0} to its captured size")]
    OutOfMemory(&'static str),
    /// The guest could not be instantiated.
    #[error("cannot instantiate the guest: {0}")]
    Instantiate(String),
    /// The guest's runtime initialiser failed, for an `SCK1` blob.
    #[error("cannot prime the guest's runtime: {0}")]
    Prime(Fault),
}

/// Digests of a room's guest state, to compare rooms by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateDigest {
    /// SHA-256 of the linear memory.
    pub memory: [u8; 32],
    /// SHA-256 of all mutable globals.
    pub globals: [u8; 32],
    /// SHA-256 of all tables the guest can change.
    pub tables: [u8; 32],
}

impl Room {
    /// Captures the room whole. Costs a copy of the memory that is not zero.
    ///
    /// # Errors
    /// [`CaptureError`]; the room is unchanged.
    pub fn snapshot(&mut self) -> Result<Snapshot, CaptureError> {
        let (epoch, last_full, force_full, section) = self.roster.export();
        let fuel_used = self.totals.fuel;
        let config = self.config.clone();
        let digest = self.game.digest;
        let canonical_nans = self.game.options.canonical_nans;
        let core = self.live_core()?;
        let globals = core.capture_globals()?;
        let tables = core.capture_tables()?;
        let (initialised, closed) = (core.initialised, core.exited);
        let kernel_memory_pages = core.shared().kernel.memory_pages();
        let shared = core.shared();
        let memory = match &shared.guest {
            Some(guest) => MemoryImage::capture(guest.bytes()).map_err(CaptureError::Limit)?,
            None => return Err(CaptureError::NotLive),
        };
        Ok(Snapshot {
            artifact: digest,
            abi_major: ABI_MAJOR,
            rewrite_version: rewrite::VERSION,
            canonical_nans,
            seed_set: matches!(config.seed, Seed::Set(_)),
            initialised,
            closed,
            ended: shared.ended,
            dead: false,
            settled: shared.settled,
            force_full,
            input_context: shared.input_context,
            now: shared.now,
            seed: config.seed.value(),
            entropy_consumed: shared.entropy.consumed(),
            post_seq: shared.post_seq,
            roster_epoch: epoch,
            last_full_epoch: last_full,
            config: ConfigState {
                mode: config.mode,
                capacity: config.capacity,
                min_players: config.min_players,
                resident: config.resident,
                deadline_ns: config.deadline.map(nanos),
                heartbeat_ns: config.heartbeat.map(nanos),
            },
            kernel_grown_pages: shared.kernel.grown_pages(),
            kernel_memory_pages,
            fuel_used,
            member_section: section,
            members: shared.members.clone(),
            last_roster: roster_of(shared),
            result: shared.result.clone(),
            slots: shared.slots.export(),
            globals,
            tables,
            memory,
        })
    }

    /// Captures the room as the reference host's `SCK1` blob, when that loses nothing.
    ///
    /// # Errors
    /// [`CaptureError::Lossy`] names what the format has no place for.
    pub fn snapshot_sck1(&mut self, level: i32) -> Result<Vec<u8>, CaptureError> {
        let config = self.config.clone();
        let game = Arc::clone(&self.game);
        let artifact = game.digest;
        let core = self.live_core()?;
        if core.exited {
            return Err(CaptureError::Lossy("that the guest has exited"));
        }
        if !core.initialised {
            return Err(CaptureError::Lossy("a room that was never called"));
        }
        let Seed::Set(seed) = config.seed else {
            return Err(CaptureError::Lossy("that the seed was drawn"));
        };
        let mut primed = prime(&game, seed, core.shared().now)?;
        if core.capture_globals()? != primed.capture_globals()? {
            return Err(CaptureError::Lossy("changed globals"));
        }
        if core.capture_tables()? != primed.capture_tables()? {
            return Err(CaptureError::Lossy("changed tables"));
        }
        if config.resident {
            return Err(CaptureError::Lossy("that the room is resident"));
        }
        let shared = core.shared();
        if shared.result.is_some() {
            return Err(CaptureError::Lossy("the result"));
        }
        let memory = shared
            .guest
            .as_ref()
            .map(|guest| guest.bytes().to_vec())
            .ok_or(CaptureError::NotLive)?;
        let blob = Sck1 {
            artifact,
            now: shared.now,
            seed,
            entropy_consumed: shared.entropy.consumed() as i64,
            ended: shared.ended,
            dead: false,
            input_context: shared.input_context,
            mode: config.mode.as_str().into(),
            capacity: config.capacity,
            min_players: config.min_players,
            epoch_seq: shared.slots.epoch_seq(),
            post_seq: shared.post_seq,
            roster: roster_of(shared)
                .into_iter()
                .map(|player| Sck1Member {
                    handle: player.handle.into(),
                    account: player.account.into(),
                    conn: player.conn.into(),
                    kind: player.kind.as_str().into(),
                })
                .collect(),
            memory: memory.into(),
        };
        blob.encode(level).map_err(CaptureError::Sck1)
    }

    /// Digests of memory, globals and tables.
    ///
    /// # Errors
    /// [`CaptureError`] as for [`Room::snapshot`]; a dead room has digests too.
    pub fn state_digest(&mut self) -> Result<StateDigest, CaptureError> {
        let State::Live(core) = &mut self.state else {
            return Err(CaptureError::NotLive);
        };
        let mut globals = Vec::new();
        for value in core.capture_globals()? {
            globals.extend_from_slice(format!("{value:?};").as_bytes());
        }
        let mut tables = Vec::new();
        for table in core.capture_tables()? {
            tables.extend_from_slice(&(table.len() as u64).to_le_bytes());
            for element in table {
                tables.extend_from_slice(&element.map_or(-1, i64::from).to_le_bytes());
            }
        }
        let memory = core.shared().guest.as_ref().map_or(&[][..], |guest| guest.bytes());
        Ok(StateDigest {
            memory: sha256(memory),
            globals: sha256(&globals),
            tables: sha256(&tables),
        })
    }

    fn live_core(&mut self) -> Result<&mut Core, CaptureError> {
        if self.fault.is_some() {
            return Err(CaptureError::Dead);
        }
        match &mut self.state {
            State::Live(core) => Ok(core),
            _ => Err(CaptureError::NotLive),
        }
    }
}

impl Game {
    /// Continues a captured room, bit for bit, with `services` in place of the old ones.
    ///
    /// The restored room has the members it was captured with; if they are not there any more,
    /// call [`Room::set_members`] before the next callback.
    ///
    /// # Errors
    /// [`RestoreError`]; nothing is left of the attempt.
    pub fn restore(
        &self,
        snapshot: &Snapshot,
        services: Box<dyn Services>,
    ) -> Result<Room, RestoreError> {
        let game = &self.inner;
        verify(game, snapshot)?;
        let config = RoomConfig {
            mode: snapshot.config.mode,
            capacity: snapshot.config.capacity,
            min_players: snapshot.config.min_players,
            seed: if snapshot.seed_set {
                Seed::Set(snapshot.seed)
            } else {
                Seed::Drawn(snapshot.seed)
            },
            resident: snapshot.config.resident,
            deadline: snapshot.config.deadline_ns.map(Duration::from_nanos),
            heartbeat: snapshot.config.heartbeat_ns.map(Duration::from_nanos),
        };
        let mut shared = Shared::new(services, game.options.io_ceiling);
        shared.mode = config.mode;
        shared.now = snapshot.now;
        shared.reseed(snapshot.seed);
        shared.entropy.skip_to(snapshot.entropy_consumed);
        shared.slots = Slots::import(&snapshot.slots);
        shared.members = snapshot.members.clone();
        shared.departed = departed(snapshot);
        shared.input_context = snapshot.input_context;
        shared.ended = snapshot.ended;
        shared.settled = snapshot.settled;
        shared.result = snapshot.result.clone();
        shared.post_seq = snapshot.post_seq;

        let mut core = Core::build(game, shared).map_err(RestoreError::Instantiate)?;
        core.initialised = snapshot.initialised;
        core.exited = snapshot.closed;
        core.restore_kernel(snapshot.kernel_grown_pages)?;
        core.restore_memory(game, &snapshot.memory)?;
        core.restore_globals(&snapshot.globals)?;
        core.restore_tables(&snapshot.tables)?;

        let mut room = Room::new(
            Arc::clone(game),
            config,
            Box::new(crate::services::NoServices),
        );
        room.roster.import(
            snapshot.roster_epoch,
            snapshot.last_full_epoch,
            snapshot.force_full,
            snapshot.member_section.clone(),
            snapshot.last_roster.len(),
        );
        room.totals.fuel = snapshot.fuel_used;
        room.state = State::Live(Box::new(core));
        Ok(room)
    }

    /// Continues a room the reference host captured, as the reference would: two epoch bumps, no
    /// frame baselines, the full roster at the next callback.
    ///
    /// The blob does not say whether the room is resident, so `resident` does. Its members are
    /// those of the blob's roster until [`Room::set_members`] says otherwise.
    ///
    /// # Errors
    /// [`RestoreError`]; nothing is left of the attempt.
    pub fn restore_sck1(
        &self,
        blob: &Sck1,
        resident: bool,
        services: Box<dyn Services>,
    ) -> Result<Room, RestoreError> {
        let game = &self.inner;
        if blob.artifact != game.digest {
            return Err(RestoreError::ArtifactMismatch {
                snapshot: blob.artifact,
                game: game.digest,
            });
        }
        if blob.dead {
            return Err(RestoreError::Dead);
        }
        let members = blob
            .roster
            .iter()
            .map(player)
            .collect::<Result<Vec<_>, _>>()?;
        let mode = match blob.mode.as_slice() {
            b"private" => Mode::Private,
            b"solo" => Mode::Solo,
            _ => Mode::Quick,
        };
        let config = RoomConfig {
            mode,
            capacity: blob.capacity,
            min_players: blob.min_players,
            seed: Seed::Set(blob.seed),
            resident,
            deadline: None,
            heartbeat: None,
        };
        let mut shared = Shared::new(services, game.options.io_ceiling);
        shared.mode = mode;
        shared.now = blob.now;
        shared.reseed(blob.seed);

        let mut core = Core::build(game, shared).map_err(RestoreError::Instantiate)?;
        let deadline = game.host.options.probe_deadline;
        core.run_start(game, deadline).map_err(RestoreError::Prime)?;
        // The runtime initialises itself now and cannot wipe the memory later.
        core.probe(game, "shellcade_abi", deadline)
            .map_err(RestoreError::Prime)?;
        core.overwrite_memory(blob.memory.bytes())?;

        let shared = core.shared_mut();
        shared.reseed(blob.seed);
        // The reference reads a negative position as none.
        shared
            .entropy
            .skip_to(u64::try_from(blob.entropy_consumed).unwrap_or(0));
        shared.slots = Slots::new();
        shared.slots.reseed(blob.epoch_seq);
        shared.slots.invalidate_all();
        shared.members = members;
        shared.input_context = blob.input_context;
        shared.ended = blob.ended;
        shared.post_seq = blob.post_seq;

        let mut room = Room::new(
            Arc::clone(game),
            config,
            Box::new(crate::services::NoServices),
        );
        let mut roster = Roster::new(game.features());
        roster
            .adopt(
                &core.shared().members,
                game.features() & CTX_FEATURE_ROSTER_EPOCH != 0,
            )
            .map_err(|_| RestoreError::Misfit("roster"))?;
        room.roster = roster;
        room.state = State::Live(Box::new(core));
        Ok(room)
    }
}

/// The instance the reference would write an `SCK1` blob's memory into.
fn prime(game: &GameInner, seed: i64, now: i64) -> Result<Core, CaptureError> {
    let mut shared = Shared::new(
        Box::new(crate::services::NoServices),
        game.options.io_ceiling,
    );
    shared.now = now;
    shared.reseed(seed);
    let deadline = game.host.options.probe_deadline;
    let mut core = Core::build(game, shared).map_err(CaptureError::Prime)?;
    let failed = |fault: Fault| CaptureError::Prime(fault.to_string());
    core.run_start(game, deadline).map_err(failed)?;
    core.probe(game, "shellcade_abi", deadline).map_err(failed)?;
    Ok(core)
}

/// Everything that can be checked before anything is built.
fn verify(game: &GameInner, snapshot: &Snapshot) -> Result<(), RestoreError> {
    if snapshot.artifact != game.digest {
        return Err(RestoreError::ArtifactMismatch {
            snapshot: snapshot.artifact,
            game: game.digest,
        });
    }
    if snapshot.abi_major != ABI_MAJOR {
        return Err(RestoreError::Incompatible("ABI major"));
    }
    if snapshot.rewrite_version != rewrite::VERSION {
        return Err(RestoreError::Incompatible("version of the module rewrite"));
    }
    if snapshot.canonical_nans != game.options.canonical_nans {
        return Err(RestoreError::Incompatible("treatment of NaNs"));
    }
    if snapshot.dead {
        return Err(RestoreError::Dead);
    }
    let shape = &game.shape;
    let pages = snapshot.memory.wasm_pages();
    if pages < shape.memory.min_pages || pages > shape.memory.max_pages {
        return Err(RestoreError::Misfit("memory size"));
    }
    if snapshot.globals.len() != shape.globals.len()
        || snapshot
            .globals
            .iter()
            .zip(&shape.globals)
            .any(|(value, global)| value_type(value) != global.ty)
    {
        return Err(RestoreError::Misfit("globals"));
    }
    let known = |index: &u32| shape.references.iter().any(|known| known.index == *index);
    let references = snapshot
        .globals
        .iter()
        .filter_map(|value| match value {
            GlobalValue::FuncRef(index) => index.as_ref(),
            _ => None,
        })
        .chain(snapshot.tables.iter().flatten().flatten());
    if !references.into_iter().all(known) {
        return Err(RestoreError::Misfit("a function reference"));
    }
    let mutated: Vec<_> = shape.tables.iter().filter(|table| table.mutated).collect();
    if snapshot.tables.len() != mutated.len()
        || snapshot.tables.iter().zip(mutated).any(|(elements, table)| {
            elements.len() < table.min as usize || elements.len() > table.max as usize
        })
    {
        return Err(RestoreError::Misfit("tables"));
    }
    Ok(())
}

fn value_type(value: &GlobalValue) -> ValueType {
    match value {
        GlobalValue::I32(_) => ValueType::I32,
        GlobalValue::I64(_) => ValueType::I64,
        GlobalValue::F32(_) => ValueType::F32,
        GlobalValue::F64(_) => ValueType::F64,
        GlobalValue::V128(_) => ValueType::V128,
        GlobalValue::FuncRef(_) => ValueType::FuncRef,
    }
}

fn roster_of(shared: &Shared) -> Vec<Player> {
    shared
        .members
        .iter()
        .chain(shared.departed.as_ref())
        .cloned()
        .collect()
}

/// Who had just left when the snapshot was taken: the roster's entry past the members.
fn departed(snapshot: &Snapshot) -> Option<Player> {
    match snapshot.last_roster.split_last() {
        Some((last, rest)) if rest == snapshot.members.as_slice() => Some(last.clone()),
        _ => None,
    }
}

fn player(member: &Sck1Member) -> Result<Player, RestoreError> {
    let text = |bytes: &[u8]| {
        String::from_utf8(bytes.to_vec()).map_err(|_| RestoreError::Misfit("a player's name"))
    };
    let (account, handle, conn) = (
        text(&member.account)?,
        text(&member.handle)?,
        text(&member.conn)?,
    );
    Ok(Player {
        account,
        handle,
        conn,
        kind: if member.kind == b"member" {
            Kind::Member
        } else {
            Kind::Guest
        },
        character: crate::player::Character::default(),
    })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Core {
    pub(super) fn capture_globals(&self) -> Result<Vec<GlobalValue>, CaptureError> {
        self.globals
            .iter()
            .map(|(ty, global)| self.capture_global(*ty, *global))
            .collect()
    }

    fn capture_global(&self, ty: ValueType, global: RawGlobal) -> Result<GlobalValue, CaptureError> {
        // Only the type's width is the guest's; the rest are stray host bytes.
        let raw = global.get_raw();
        Ok(match ty {
            ValueType::I32 => GlobalValue::I32(raw as u32),
            ValueType::I64 => GlobalValue::I64(raw as u64),
            ValueType::F32 => GlobalValue::F32(raw as u32),
            ValueType::F64 => GlobalValue::F64(raw as u64),
            ValueType::V128 => GlobalValue::V128(raw),
            ValueType::FuncRef => GlobalValue::FuncRef(self.index_of(raw as usize)?),
        })
    }

    /// The function index behind a reference, given as an address; 0 is null.
    fn index_of(&self, address: usize) -> Result<Option<u32>, CaptureError> {
        if address == 0 {
            return Ok(None);
        }
        self.functions
            .iter()
            .find(|(_, reference)| reference.0.as_ptr() as usize == address)
            .map(|(index, _)| Some(*index))
            .ok_or(CaptureError::ForeignReference)
    }

    fn reference(&self, index: u32) -> Option<VMFuncRef> {
        self.functions
            .iter()
            .find(|(known, _)| *known == index)
            .map(|(_, reference)| *reference)
    }

    pub(super) fn capture_tables(&mut self) -> Result<Vec<Vec<Option<u32>>>, CaptureError> {
        let by_address: std::collections::HashMap<usize, u32> = self
            .functions
            .iter()
            .map(|(index, reference)| (reference.0.as_ptr() as usize, *index))
            .collect();
        let mut captured = Vec::with_capacity(self.tables.len());
        for table in &self.tables {
            let wasmer_vm::VMExtern::Table(handle) =
                Extern::Table(table.clone()).to_vm_extern().unwrap_sys()
            else {
                return Err(CaptureError::ForeignReference);
            };
            let mut store = self.store.as_store_mut();
            let table = handle.get(store.objects_mut().as_sys());
            let mut elements = Vec::with_capacity(table.size() as usize);
            for index in 0..table.size() {
                elements.push(match table.get(index) {
                    Some(TableElement::FuncRef(None)) | None => None,
                    Some(TableElement::FuncRef(Some(reference))) => Some(
                        *by_address
                            .get(&(reference.0.as_ptr() as usize))
                            .ok_or(CaptureError::ForeignReference)?,
                    ),
                    Some(TableElement::ExternRef(_)) => {
                        return Err(CaptureError::ForeignReference);
                    }
                });
            }
            captured.push(elements);
        }
        Ok(captured)
    }

    fn restore_kernel(&mut self, grown_pages: u32) -> Result<(), RestoreError> {
        let mut env = self.env.clone().into_mut(&mut self.store);
        let (shared, mut store) = env.data_and_store_mut();
        if shared.kernel.restore_grown_pages(&mut store, grown_pages) {
            Ok(())
        } else {
            Err(RestoreError::OutOfMemory("the kernel"))
        }
    }

    /// Gives the guest's memory its captured size.
    fn grow_memory(&mut self, bytes: usize) -> Result<(), RestoreError> {
        let have = self
            .shared()
            .guest
            .as_ref()
            .map_or(0, |guest| guest.bytes().len());
        if bytes > have {
            let pages = (bytes - have).div_ceil(WASM_PAGE) as u32;
            self.guest
                .grow(&mut self.store, pages)
                .map_err(|_| RestoreError::OutOfMemory("the guest's memory"))?;
        }
        Ok(())
    }

    fn restore_memory(
        &mut self,
        game: &GameInner,
        image: &MemoryImage,
    ) -> Result<(), RestoreError> {
        self.grow_memory(image.wasm_pages() as usize * WASM_PAGE)?;
        let Some(guest) = self.shared_mut().guest.as_mut() else {
            return Err(RestoreError::Misfit("memory"));
        };
        let memory = guest.bytes_mut();
        // A fresh memory is zero but for the pages its data segments touch.
        for pages in &game.data_pages {
            let range = pages.start * OS_PAGE..(pages.end * OS_PAGE).min(memory.len());
            if let Some(bytes) = memory.get_mut(range) {
                bytes.fill(0);
            }
        }
        for (offset, bytes) in image.pages() {
            match memory.get_mut(offset..offset + bytes.len()) {
                Some(target) => target.copy_from_slice(bytes),
                None => return Err(RestoreError::Misfit("memory")),
            }
        }
        Ok(())
    }

    /// Overwrites the beginning of the memory, as the reference restores one.
    fn overwrite_memory(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.grow_memory(bytes.len())?;
        match self.shared_mut().guest.as_mut() {
            Some(guest) if guest.bytes().len() >= bytes.len() => {
                guest.write(0, bytes);
                Ok(())
            }
            _ => Err(RestoreError::Misfit("memory")),
        }
    }

    fn restore_globals(&mut self, values: &[GlobalValue]) -> Result<(), RestoreError> {
        for ((_, global), value) in self.globals.iter().zip(values) {
            global.set_raw(match *value {
                GlobalValue::I32(bits) | GlobalValue::F32(bits) => u128::from(bits),
                GlobalValue::I64(bits) | GlobalValue::F64(bits) => u128::from(bits),
                GlobalValue::V128(bits) => bits,
                GlobalValue::FuncRef(None) => 0,
                GlobalValue::FuncRef(Some(index)) => {
                    let reference = self
                        .reference(index)
                        .ok_or(RestoreError::Misfit("a function reference"))?;
                    reference.0.as_ptr() as usize as u128
                }
            });
        }
        Ok(())
    }

    fn restore_tables(&mut self, tables: &[Vec<Option<u32>>]) -> Result<(), RestoreError> {
        let by_index: std::collections::HashMap<u32, VMFuncRef> =
            self.functions.iter().copied().collect();
        for (table, elements) in self.tables.iter().zip(tables) {
            let have = table.size(&self.store) as usize;
            if elements.len() > have {
                table
                    .grow(
                        &mut self.store,
                        (elements.len() - have) as u32,
                        Value::FuncRef(None),
                    )
                    .map_err(|_| RestoreError::OutOfMemory("a table"))?;
            }
            let wasmer_vm::VMExtern::Table(handle) =
                Extern::Table(table.clone()).to_vm_extern().unwrap_sys()
            else {
                return Err(RestoreError::Misfit("tables"));
            };
            let mut store = self.store.as_store_mut();
            let table = handle.get_mut(store.objects_mut().as_sys_mut());
            for (index, element) in elements.iter().enumerate() {
                let reference = match element {
                    None => None,
                    Some(index) => Some(
                        *by_index
                            .get(index)
                            .ok_or(RestoreError::Misfit("a function reference"))?,
                    ),
                };
                table
                    .set(index as u32, TableElement::FuncRef(reference))
                    .map_err(|_| RestoreError::Misfit("tables"))?;
            }
        }
        Ok(())
    }
}
