//! Building a room from a capture.
//!
//! Invariants
//! - everything is verified before a byte is written to the new instance;
//! - a restored room runs no guest code before its next callback: neither start section nor
//!   runtime initialiser, whose effects are in the captured memory, globals and tables. (An
//!   imported `SCK1` blob lacks globals, so there the initialiser runs first, as the reference
//!   has it.)
//! - an abandoned restore drops what it built.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cabinet_wire::{ABI_MAJOR, ArtifactDigest, CTX_FEATURE_ROSTER_EPOCH, Kind, Mode};
use wasmer::{AsStoreMut, Extern, Value};
use wasmer_vm::{TableElement, VMFuncRef};

use crate::fault::Fault;
use crate::game::{Game, GameInner};
use crate::memory::{OS_PAGE, WASM_PAGE};
use crate::player::{Character, Player};
use crate::rewrite::ValueType;
use crate::room::core::Core;
use crate::room::roster::Roster;
use crate::room::shared::Shared;
use crate::room::{Room, RoomConfig, Seed, State};
use crate::services::{NoServices, Services};
use crate::slots::Slots;
use crate::snapshot::sck1::{Sck1, Sck1Member};
use crate::snapshot::{GlobalValue, MemoryImage, Snapshot};

/// A room could not be built from a snapshot. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The snapshot belongs to another game, or another version of this one.
    #[error(
        "the snapshot is of artifact {snapshot}, the game is {game}: another game, or another version of it"
    )]
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

        let mut room = Room::new(Arc::clone(game), config, Box::new(NoServices));
        room.roster.import(
            snapshot.roster_epoch,
            snapshot.last_full_epoch,
            snapshot.force_full,
            snapshot.member_section.clone(),
            &snapshot.last_roster,
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
        core.pass_start(game, deadline)
            .map_err(RestoreError::Prime)?;
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

        let mut room = Room::new(Arc::clone(game), config, Box::new(NoServices));
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
    if snapshot.rules != game.rules {
        return Err(RestoreError::Incompatible(
            "version or limits of the module rewrite, such as memory_pages_max",
        ));
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
    let mutated: Vec<_> = shape.tables.iter().filter(|table| table.mutated).collect();
    if snapshot.tables.len() != mutated.len()
        || snapshot
            .tables
            .iter()
            .zip(mutated)
            .any(|(elements, table)| {
                elements.len() < table.min as usize || elements.len() > table.max as usize
            })
    {
        return Err(RestoreError::Misfit("tables"));
    }
    let known: HashSet<u32> = shape.references.iter().map(|known| known.index).collect();
    let references = snapshot
        .globals
        .iter()
        .filter_map(|value| match value {
            GlobalValue::FuncRef(index) => index.as_ref(),
            _ => None,
        })
        .chain(snapshot.tables.iter().flatten().flatten());
    if !references.into_iter().all(|index| known.contains(index)) {
        return Err(RestoreError::Misfit("a function reference"));
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
        character: Character::default(),
    })
}

impl Core {
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
        let by_index: HashMap<u32, VMFuncRef> = self.functions.iter().copied().collect();
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

    fn reference(&self, index: u32) -> Option<VMFuncRef> {
        self.functions
            .iter()
            .find(|(known, _)| *known == index)
            .map(|(_, reference)| *reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GameOptions, Host, HostOptions};

    /// The guest with state wherever wasm can keep it, and a snapshot of a room of it.
    fn captured() -> (Game, Snapshot) {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../fixtures/wat/ok-state.wat"
        );
        let wasm = wat::parse_file(path).unwrap();
        let options = GameOptions {
            deadline: Duration::from_secs(60),
            ..GameOptions::default()
        };
        let host = Host::new(HostOptions::default()).unwrap();
        let game = host.load(&wasm, &options).unwrap();
        let mut room = game.room(RoomConfig::new(Seed::Set(1)), Box::new(NoServices));
        assert!(!room.start(0).is_fault());
        for beat in 1..4 {
            assert!(
                !room
                    .join(
                        beat,
                        Player::member("a", format!("p{beat}"), format!("c{beat}"))
                    )
                    .is_fault()
            );
        }
        let snapshot = room.snapshot().unwrap();
        (game, snapshot)
    }

    /// A way to spoil a snapshot, and what it must be called.
    type Forgery = (&'static str, fn(&mut Snapshot), fn(&RestoreError) -> bool);

    #[test]
    fn a_snapshot_the_guest_cannot_be_in_is_refused_before_anything_is_built() {
        let misfit = |error: &RestoreError| matches!(error, RestoreError::Misfit(_));
        let incompatible = |error: &RestoreError| matches!(error, RestoreError::Incompatible(_));
        let forgeries: &[Forgery] = &[
            ("a global too few", |s| _ = s.globals.pop(), misfit),
            (
                "a global too many",
                |s| s.globals.push(GlobalValue::I32(0)),
                misfit,
            ),
            (
                "a global of another type",
                |s| s.globals[0] = GlobalValue::I64(0),
                misfit,
            ),
            ("a table too few", |s| _ = s.tables.pop(), misfit),
            ("a table below its minimum", |s| s.tables[0].clear(), misfit),
            (
                "a table one past its maximum",
                |s| s.tables[0] = vec![None; 13],
                misfit,
            ),
            (
                "an unknown function in a table",
                |s| s.tables[0][0] = Some(9_999),
                misfit,
            ),
            (
                "an unknown function in a global",
                |s| {
                    for value in &mut s.globals {
                        if let GlobalValue::FuncRef(index) = value {
                            *index = Some(9_999);
                        }
                    }
                },
                misfit,
            ),
            (
                "no memory",
                |s| s.memory = MemoryImage::capture(&[]).unwrap(),
                misfit,
            ),
            (
                "memory one page past the cap",
                |s| s.memory = MemoryImage::capture(&vec![0; 513 * WASM_PAGE]).unwrap(),
                misfit,
            ),
            ("another ABI", |s| s.abi_major = 3, incompatible),
            ("another rewrite", |s| s.rules[0] ^= 1, incompatible),
            (
                "a kernel past its cap",
                |s| s.kernel_grown_pages = 512,
                |error| matches!(error, RestoreError::OutOfMemory("the kernel")),
            ),
            (
                "a kernel of impossible size",
                |s| s.kernel_grown_pages = u32::MAX,
                |error| matches!(error, RestoreError::OutOfMemory("the kernel")),
            ),
            (
                "a dead room",
                |s| s.dead = true,
                |error| matches!(error, RestoreError::Dead),
            ),
        ];
        let (game, snapshot) = captured();
        for (what, forge, expected) in forgeries {
            let mut forged = snapshot.clone();
            forge(&mut forged);
            let error = game.restore(&forged, Box::new(NoServices)).unwrap_err();
            assert!(expected(&error), "{what}: {error}");
        }
        assert!(game.restore(&snapshot, Box::new(NoServices)).is_ok());
    }

    #[test]
    fn a_table_at_its_maximum_is_restored() {
        let (game, mut snapshot) = captured();
        snapshot.tables[0].resize(12, None);
        let mut room = game.restore(&snapshot, Box::new(NoServices)).unwrap();
        assert_eq!(room.snapshot().unwrap().tables[0].len(), 12);
    }
}
