//! Capturing a room whole, between two callbacks.
//!
//! Invariants
//! - a capture changes nothing and runs no guest code of the room;
//! - what a snapshot holds, [`super::restore`] brings back bit for bit; what it could not hold, the
//!   rewrite refused at load.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cabinet_wire::ABI_MAJOR;
use wasmer::{AsStoreMut, Extern};
use wasmer_vm::TableElement;

use crate::fault::Fault;
use crate::game::{GameInner, sha256};
use crate::memory::{RawGlobal, RawMemory};
use crate::player::Character;
use crate::rewrite::ValueType;
use crate::room::core::Core;
use crate::room::shared::Shared;
use crate::room::{Room, Seed, State};
use crate::services::NoServices;
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
    #[error("the state does not fit a snapshot")]
    Limit(#[source] SnapshotError),
    /// The instance an `SCK1` blob would be restored into could not be built to compare with.
    #[error("cannot prime an instance to compare with: {0}")]
    Prime(String),
    /// An `SCK1` blob would lose part of the state.
    #[error("an SCK1 blob would lose {0}")]
    Lossy(&'static str),
    /// An `SCK1` blob cannot hold the state.
    #[error("the state does not fit an SCK1 blob")]
    Sck1(#[source] Sck1Error),
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
        self.snapshot_into(Vec::new())
    }

    /// As [`Room::snapshot`], into the memory of `buffer` ([`Snapshot::into_buffer`] of one that is
    /// not needed any more). A buffer that is large enough makes the capture a copy into warm
    /// memory.
    ///
    /// # Errors
    /// [`CaptureError`]; the room is unchanged, and the buffer is gone.
    pub fn snapshot_into(&mut self, buffer: Vec<u8>) -> Result<Snapshot, CaptureError> {
        let (epoch, last_full, force_full, section) = self.roster.export();
        let fuel_used = self.totals.fuel;
        let config = self.config.clone();
        let (digest, rules) = (self.game.digest, self.game.rules);
        let canonical_nans = self.game.options.canonical_nans;
        let core = self.live_core()?;
        let globals = core.capture_globals()?;
        let tables = core.capture_tables()?;
        let (initialised, closed) = (core.initialised, core.exited);
        let kernel_memory_pages = core.shared().kernel.memory_pages();
        let shared = core.shared();
        let memory = match &shared.guest {
            Some(guest) => {
                MemoryImage::capture_into(guest.bytes(), buffer).map_err(CaptureError::Limit)?
            }
            None => return Err(CaptureError::NotLive),
        };
        Ok(Snapshot {
            artifact: digest,
            abi_major: ABI_MAJOR,
            rules,
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
            last_roster: shared.roster(),
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
        if config.deadline.is_some() || config.heartbeat.is_some() {
            return Err(CaptureError::Lossy("the room's own deadline or heartbeat"));
        }
        let shared = core.shared();
        if shared.result.is_some() || shared.settled {
            return Err(CaptureError::Lossy("the result"));
        }
        let plain = Character::default();
        if shared
            .members
            .iter()
            .any(|player| player.character != plain)
        {
            return Err(CaptureError::Lossy("the players' characters"));
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
            // Not who has just left: the roster of a blob is who is there when it is restored.
            roster: shared
                .members
                .iter()
                .map(|player| Sck1Member {
                    handle: player.handle.as_bytes().to_vec(),
                    account: player.account.as_bytes().to_vec(),
                    conn: player.conn.as_bytes().to_vec(),
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
        let memory = core
            .shared()
            .guest
            .as_ref()
            .map_or(&[][..], |guest| guest.bytes());
        Ok(StateDigest {
            memory: sha256(memory),
            globals: sha256(&globals),
            tables: sha256(&tables),
        })
    }

    /// Whether two rooms have the same memory, globals and tables, byte for byte: what equal
    /// [`Room::state_digest`]s say, without the cost of digests.
    ///
    /// # Errors
    /// [`CaptureError`] as for [`Room::state_digest`], when one of them cannot be looked into.
    pub fn same_guest_state(&mut self, other: &mut Self) -> Result<bool, CaptureError> {
        let (State::Live(ours), State::Live(theirs)) = (&mut self.state, &mut other.state) else {
            return Err(CaptureError::NotLive);
        };
        let same_beside_memory = ours.capture_globals()? == theirs.capture_globals()?
            && ours.capture_tables()? == theirs.capture_tables()?;
        let (ours, theirs) = (&ours.shared().guest, &theirs.shared().guest);
        let same_memory =
            || ours.as_ref().map(RawMemory::bytes) == theirs.as_ref().map(RawMemory::bytes);
        Ok(same_beside_memory && same_memory())
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

/// The instance the reference would write an `SCK1` blob's memory into.
fn prime(game: &GameInner, seed: i64, now: i64) -> Result<Core, CaptureError> {
    let mut shared = Shared::new(Box::new(NoServices), game.options.io_ceiling);
    shared.now = now;
    shared.reseed(seed);
    let deadline = game.host.options.probe_deadline;
    let mut core = Core::build(game, shared).map_err(CaptureError::Prime)?;
    let failed = |fault: Fault| CaptureError::Prime(fault.to_string());
    core.pass_start(game, deadline).map_err(failed)?;
    core.probe(game, "shellcade_abi", deadline)
        .map_err(failed)?;
    Ok(core)
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

    fn capture_global(
        &self,
        ty: ValueType,
        global: RawGlobal,
    ) -> Result<GlobalValue, CaptureError> {
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

    pub(super) fn capture_tables(&mut self) -> Result<Vec<Vec<Option<u32>>>, CaptureError> {
        let by_address: HashMap<usize, u32> = self
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
}
