//! Reading a [`Snapshot`]; the format is described in [the module](super).

use std::sync::Arc;

use cabinet_wire::{ArtifactDigest, Kind, Mode, ROW_BYTES, ROWS, Status};

use super::image::PageAt;
use super::limits::*;
use super::reader::{Inflater, Reader, declared_size};
use super::{
    ConfigState, GlobalValue, HEADER_BYTES, MAGIC, MemoryImage, STATUS_UNKNOWN, Snapshot,
    SnapshotError, VERSION,
};
use crate::frame::{Frame, Row};
use crate::player::{Character, Player};
use crate::services::{RoomResult, Standing};
use crate::slots::{Baseline, SlotState, SlotsState};

/// Reads snapshots, one after the other, without taking new memory for each.
pub struct Decoder {
    inflater: Inflater,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder that has no buffer yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            inflater: Inflater::new(),
        }
    }

    /// Reads a snapshot; see [`Snapshot::decode`].
    ///
    /// # Errors
    /// Any [`SnapshotError`] when the payload is not exactly what [`Snapshot::encode`] writes.
    pub fn decode(&mut self, bytes: &[u8], max_bytes: usize) -> Result<Snapshot, SnapshotError> {
        let mut header = Reader::new(bytes);
        if header.array() != Some(MAGIC) {
            return Err(SnapshotError::NotASnapshot);
        }
        let version = header.u32().ok_or(CUT)?;
        if version != VERSION {
            return Err(SnapshotError::Version { found: version });
        }
        let length = header.u64().ok_or(CUT)?;
        if length > max_bytes as u64 {
            return Err(SnapshotError::TooLarge {
                bytes: length,
                max: max_bytes as u64,
            });
        }
        let frame = &bytes[HEADER_BYTES..];
        // Bit 2 of the byte after zstd's own magic number says that a checksum follows.
        let checksummed = frame.get(4).is_some_and(|descriptor| descriptor & 4 != 0);
        if declared_size(frame) != Some(length) || !checksummed {
            return Err(SnapshotError::Damaged("compressed frame"));
        }
        let payload = self
            .inflater
            .inflate(frame, length as usize)
            .map_err(|_| SnapshotError::Damaged("compressed content"))?;
        read_payload(payload, 0)
    }

    /// Takes a snapshot that is no longer needed, so that the next one is read into its memory.
    pub fn recycle(&mut self, snapshot: Snapshot) {
        self.inflater.recycle(snapshot.memory.into_buffer());
    }
}

const CUT: SnapshotError = SnapshotError::Damaged("cut short");

/// Reads the payload that begins at `start`.
pub(super) fn read_payload(payload: Vec<u8>, start: usize) -> Result<Snapshot, SnapshotError> {
    let mut parser = Parser {
        bytes: Reader::new(payload.get(start..).ok_or(CUT)?),
    };
    let snapshot = parser.snapshot()?;
    let (wasm_pages, pages) = parser.memory()?;
    let contents = payload.len() - parser.bytes.left()..payload.len();
    let memory = MemoryImage::from_parts(wasm_pages, pages, contents, payload)?;
    Ok(Snapshot { memory, ..snapshot })
}

struct Parser<'a> {
    bytes: Reader<'a>,
}

impl Parser<'_> {
    /// Everything but the memory, in whose place an empty one stands.
    fn snapshot(&mut self) -> Result<Snapshot, SnapshotError> {
        let artifact = ArtifactDigest(self.bytes.array().ok_or(CUT)?);
        let abi_major = self.u32()?;
        let rules = self.bytes.array().ok_or(CUT)?;
        let mut flags = [false; 8];
        for flag in &mut flags {
            *flag = self.bool()?;
        }
        let [
            canonical_nans,
            seed_set,
            initialised,
            closed,
            ended,
            dead,
            settled,
            force_full,
        ] = flags;
        Ok(Snapshot {
            artifact,
            abi_major,
            rules,
            canonical_nans,
            seed_set,
            initialised,
            closed,
            ended,
            dead,
            settled,
            force_full,
            input_context: self.u8()?,
            now: self.i64()?,
            seed: self.i64()?,
            entropy_consumed: self.u64()?,
            post_seq: self.u32()?,
            roster_epoch: self.u32()?,
            last_full_epoch: self.u32()?,
            config: ConfigState {
                mode: self.mode()?,
                capacity: self.u32()?,
                min_players: self.u32()?,
                resident: self.bool()?,
                deadline_ns: self.option(Self::u64)?,
                heartbeat_ns: self.option(Self::u64)?,
            },
            kernel_grown_pages: self.u32()?,
            kernel_memory_pages: self.u32()?,
            fuel_used: self.u64()?,
            member_section: self.option(Self::member_section)?,
            members: self.list(PLAYERS, Self::player)?,
            last_roster: self.list(PLAYERS, Self::player)?,
            result: self.option(Self::result)?,
            slots: self.slots()?,
            globals: self.list(GLOBALS, Self::global)?,
            tables: self.list(TABLES, |p| p.list(TABLE_ELEMENTS, Self::reference))?,
            memory: MemoryImage::from_parts(0, Vec::new(), 0..0, Vec::new())?,
        })
    }

    fn memory(&mut self) -> Result<(u32, Vec<PageAt>), SnapshotError> {
        let wasm_pages = self.u32()?;
        MEMORY_PAGES.check(wasm_pages as usize)?;
        let pages = self.list(PAGES, |p| {
            Ok(PageAt {
                index: p.u32()?,
                content: p.u32()?,
            })
        })?;
        Ok((wasm_pages, pages))
    }

    fn member_section(&mut self) -> Result<Vec<u8>, SnapshotError> {
        let length = MEMBER_SECTION.check(self.u32()? as usize)?;
        Ok(self.bytes.bytes(length).ok_or(CUT)?.to_vec())
    }

    fn player(&mut self) -> Result<Player, SnapshotError> {
        Ok(Player {
            account: self.text()?,
            handle: self.text()?,
            conn: self.text()?,
            kind: Kind::try_from(self.u8()?).map_err(|_| SnapshotError::Damaged("player kind"))?,
            character: Character {
                glyph: self.text()?,
                ink: self.bytes.array().ok_or(CUT)?,
                bg: self.bytes.array().ok_or(CUT)?,
                ascii_fallback: self.u8()?,
            },
        })
    }

    fn result(&mut self) -> Result<RoomResult, SnapshotError> {
        let mode = self.mode()?;
        Ok(RoomResult {
            mode,
            round_seq: self.u32()?,
            standings: self.list(STANDINGS, |p| {
                Ok(Standing {
                    player: p.player()?,
                    metric: p.i64()?,
                    rank: p.bytes.u16().ok_or(CUT)?,
                    status: match p.u8()? {
                        STATUS_UNKNOWN => None,
                        code => Some(
                            Status::try_from(code)
                                .map_err(|_| SnapshotError::Damaged("ranking status"))?,
                        ),
                    },
                })
            })?,
        })
    }

    fn slots(&mut self) -> Result<SlotsState, SnapshotError> {
        let (epoch_seq, unlisted_epoch) = (self.u32()?, self.u32()?);
        let rows = self.list(FRAME_ROWS, |p| {
            p.bytes.array::<ROW_BYTES>().map(Arc::new).ok_or(CUT)
        })?;
        if !rows.is_sorted_by(|a, b| a < b) {
            return Err(SnapshotError::Damaged("order of frame rows"));
        }
        let mut used = vec![false; rows.len()];
        let broadcast = self.slot(&rows, &mut used)?;
        let slots = self.list(SLOTS, |p| {
            let index = p.bytes.u16().ok_or(CUT)?;
            Ok((index, p.slot(&rows, &mut used)?))
        })?;
        let rising = slots.is_sorted_by(|a, b| a.0 < b.0);
        let in_range = slots
            .iter()
            .all(|(index, _)| usize::from(*index) < SLOTS.max);
        let needed = slots
            .iter()
            .all(|(_, slot)| slot.baseline != Baseline::Never || slot.epoch != unlisted_epoch);
        if !rising || !in_range || !needed {
            return Err(SnapshotError::Damaged("slot list"));
        }
        if used.contains(&false) {
            return Err(SnapshotError::Damaged("unused frame row"));
        }
        Ok(SlotsState {
            epoch_seq,
            unlisted_epoch,
            broadcast,
            slots,
        })
    }

    fn slot(&mut self, rows: &[Arc<Row>], used: &mut [bool]) -> Result<SlotState, SnapshotError> {
        let epoch = self.u32()?;
        let baseline = match self.u8()? {
            0 => Baseline::Never,
            1 => Baseline::Lost,
            2 => {
                let mut numbers = [0; ROWS];
                for number in &mut numbers {
                    *number = usize::from(self.bytes.u16().ok_or(CUT)?);
                    *used
                        .get_mut(*number)
                        .ok_or(SnapshotError::Damaged("frame row number"))? = true;
                }
                Baseline::Frame(Frame::from_rows(numbers.map(|row| Arc::clone(&rows[row]))))
            }
            _ => return Err(SnapshotError::Damaged("slot baseline")),
        };
        Ok(SlotState { epoch, baseline })
    }

    fn global(&mut self) -> Result<GlobalValue, SnapshotError> {
        Ok(match self.u8()? {
            0x7f => GlobalValue::I32(self.u32()?),
            0x7e => GlobalValue::I64(self.u64()?),
            0x7d => GlobalValue::F32(self.u32()?),
            0x7c => GlobalValue::F64(self.u64()?),
            0x7b => GlobalValue::V128(u128::from_le_bytes(self.bytes.array().ok_or(CUT)?)),
            0x70 => GlobalValue::FuncRef(self.reference()?),
            _ => return Err(SnapshotError::Damaged("global type")),
        })
    }

    fn reference(&mut self) -> Result<Option<u32>, SnapshotError> {
        Ok(self.u32()?.checked_sub(1))
    }

    fn mode(&mut self) -> Result<Mode, SnapshotError> {
        Mode::try_from(self.u8()?).map_err(|_| SnapshotError::Damaged("room mode"))
    }

    /// A u32 count within `limit` and that many elements. Memory is reserved as elements are
    /// read, so a count costs nothing by itself.
    fn list<T>(
        &mut self,
        limit: Limit,
        mut element: impl FnMut(&mut Self) -> Result<T, SnapshotError>,
    ) -> Result<Vec<T>, SnapshotError> {
        let count = limit.check(self.u32()? as usize)?;
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(element(self)?);
        }
        Ok(list)
    }

    fn option<T>(
        &mut self,
        value: impl FnOnce(&mut Self) -> Result<T, SnapshotError>,
    ) -> Result<Option<T>, SnapshotError> {
        Ok(if self.bool()? {
            Some(value(self)?)
        } else {
            None
        })
    }

    fn text(&mut self) -> Result<String, SnapshotError> {
        let text = self.bytes.text().ok_or(CUT)?;
        let text = std::str::from_utf8(text).map_err(|_| SnapshotError::Damaged("text"))?;
        Ok(text.to_owned())
    }

    fn bool(&mut self) -> Result<bool, SnapshotError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(SnapshotError::Damaged("truth value")),
        }
    }

    fn u8(&mut self) -> Result<u8, SnapshotError> {
        self.bytes.u8().ok_or(CUT)
    }

    fn u32(&mut self) -> Result<u32, SnapshotError> {
        self.bytes.u32().ok_or(CUT)
    }

    fn u64(&mut self) -> Result<u64, SnapshotError> {
        self.bytes.u64().ok_or(CUT)
    }

    fn i64(&mut self) -> Result<i64, SnapshotError> {
        self.bytes.i64().ok_or(CUT)
    }
}
