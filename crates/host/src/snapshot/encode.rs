//! Writing a [`Snapshot`]; the format is described in [the module](super).

use cabinet_wire::{ROW_BYTES, ROWS};

use super::image::PAGE_BYTES;
use super::limits::*;
use super::reader::deflate;
use super::{GlobalValue, HEADER_BYTES, MAGIC, STATUS_UNKNOWN, Snapshot, SnapshotError, VERSION};
use crate::frame::{Frame, Row};
use crate::player::Player;
use crate::slots::{Baseline, SlotState, SlotsState};

pub(super) fn encode(snapshot: &Snapshot, level: i32) -> Result<Vec<u8>, SnapshotError> {
    let mut payload = Vec::new();
    self::payload(snapshot, &mut payload)?;
    let mut out = Vec::with_capacity(HEADER_BYTES + payload.len() / 4);
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend((payload.len() as u64).to_le_bytes());
    deflate(&mut out, &payload, level).map_err(SnapshotError::Compress)?;
    Ok(out)
}

pub(super) fn payload(snapshot: &Snapshot, out: &mut Vec<u8>) -> Result<(), SnapshotError> {
    let mut writer = Writer {
        out: std::mem::take(out),
    };
    let written = writer.payload(snapshot);
    *out = writer.out;
    written
}

struct Writer {
    out: Vec<u8>,
}

impl Writer {
    fn payload(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let estimate = 4096
            + snapshot.memory.pages().len() * (8 + PAGE_BYTES)
            + (snapshot.slots.slots.len() + 1) * 128
            + ROWS * ROW_BYTES;
        self.out.reserve(estimate);
        self.head(snapshot);
        self.people(snapshot)?;
        self.slots(&snapshot.slots)?;
        self.guest(snapshot)
    }

    fn head(&mut self, s: &Snapshot) {
        self.out.extend(s.artifact.0);
        self.u32(s.abi_major);
        self.out.extend(s.rules);
        for flag in [
            s.canonical_nans,
            s.seed_set,
            s.initialised,
            s.closed,
            s.ended,
            s.dead,
            s.settled,
            s.force_full,
        ] {
            self.bool(flag);
        }
        self.u8(s.input_context);
        self.out.extend(s.now.to_le_bytes());
        self.out.extend(s.seed.to_le_bytes());
        self.u64(s.entropy_consumed);
        self.u32(s.post_seq);
        self.u32(s.roster_epoch);
        self.u32(s.last_full_epoch);
        self.u8(s.config.mode as u8);
        self.u32(s.config.capacity);
        self.u32(s.config.min_players);
        self.bool(s.config.resident);
        for nanos in [s.config.deadline_ns, s.config.heartbeat_ns] {
            self.bool(nanos.is_some());
            if let Some(nanos) = nanos {
                self.u64(nanos);
            }
        }
        self.u32(s.kernel_grown_pages);
        self.u32(s.kernel_memory_pages);
        self.u64(s.fuel_used);
    }

    fn people(&mut self, s: &Snapshot) -> Result<(), SnapshotError> {
        self.bool(s.member_section.is_some());
        if let Some(section) = &s.member_section {
            self.count(section.len(), MEMBER_SECTION)?;
            self.out.extend(section);
        }
        for players in [&s.members, &s.last_roster] {
            self.count(players.len(), PLAYERS)?;
            for player in players {
                self.player(player)?;
            }
        }
        self.bool(s.result.is_some());
        if let Some(result) = &s.result {
            self.u8(result.mode as u8);
            self.u32(result.round_seq);
            self.count(result.standings.len(), STANDINGS)?;
            for standing in &result.standings {
                self.player(&standing.player)?;
                self.out.extend(standing.metric.to_le_bytes());
                self.u16(standing.rank);
                self.u8(standing
                    .status
                    .map_or(STATUS_UNKNOWN, |status| status as u8));
            }
        }
        Ok(())
    }

    fn player(&mut self, player: &Player) -> Result<(), SnapshotError> {
        self.text(&player.account)?;
        self.text(&player.handle)?;
        self.text(&player.conn)?;
        self.u8(player.kind as u8);
        self.text(&player.character.glyph)?;
        self.out.extend(player.character.ink);
        self.out.extend(player.character.bg);
        self.u8(player.character.ascii_fallback);
        Ok(())
    }

    fn slots(&mut self, slots: &SlotsState) -> Result<(), SnapshotError> {
        self.u32(slots.epoch_seq);
        self.u32(slots.unlisted_epoch);
        let listed = slots.slots.iter().map(|(_, slot)| slot);
        let rows = RowNumbers::new(std::iter::once(&slots.broadcast).chain(listed));
        self.count(rows.distinct.len(), FRAME_ROWS)?;
        for row in &rows.distinct {
            self.out.extend_from_slice(*row);
        }
        self.slot(&slots.broadcast, &rows);
        self.count(slots.slots.len(), SLOTS)?;
        for (index, slot) in &slots.slots {
            self.u16(*index);
            self.slot(slot, &rows);
        }
        Ok(())
    }

    fn slot(&mut self, slot: &SlotState, rows: &RowNumbers<'_>) {
        self.u32(slot.epoch);
        match &slot.baseline {
            Baseline::Never => self.u8(0),
            Baseline::Lost => self.u8(1),
            Baseline::Frame(frame) => {
                self.u8(2);
                for row in frame.rows() {
                    self.u16(rows.number(row));
                }
            }
        }
    }

    fn guest(&mut self, s: &Snapshot) -> Result<(), SnapshotError> {
        self.count(s.globals.len(), GLOBALS)?;
        for global in &s.globals {
            self.u8(global.type_byte());
            match *global {
                GlobalValue::I32(bits) | GlobalValue::F32(bits) => self.u32(bits),
                GlobalValue::I64(bits) | GlobalValue::F64(bits) => self.u64(bits),
                GlobalValue::V128(bits) => self.out.extend(bits.to_le_bytes()),
                GlobalValue::FuncRef(function) => self.reference(function)?,
            }
        }
        self.count(s.tables.len(), TABLES)?;
        for table in &s.tables {
            self.count(table.len(), TABLE_ELEMENTS)?;
            for &element in table {
                self.reference(element)?;
            }
        }
        self.u32(s.memory.wasm_pages());
        let (contents, pages) = s.memory.distinct();
        // No more than the pages of a memory, whose limit its image has kept.
        self.u32(pages.len() as u32);
        for page in pages {
            self.u32(page.index);
            self.u32(page.content);
        }
        for content in contents {
            self.out.extend_from_slice(content);
        }
        Ok(())
    }

    fn reference(&mut self, function: Option<u32>) -> Result<(), SnapshotError> {
        let number = match function {
            None => 0,
            Some(index) => index.checked_add(1).ok_or(SnapshotError::Limit {
                what: "functions",
                found: u64::from(u32::MAX) + 1,
                max: u64::from(u32::MAX),
            })?,
        };
        self.u32(number);
        Ok(())
    }

    fn count(&mut self, count: usize, limit: Limit) -> Result<(), SnapshotError> {
        // Every limit is below 2^32.
        self.u32(limit.check(count)? as u32);
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), SnapshotError> {
        self.u16(TEXT.check(text.len())? as u16);
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }
}

/// The distinct rows of some frames, and the number of each.
struct RowNumbers<'a> {
    distinct: Vec<&'a Row>,
    /// Number by address, for rows are shared between frames more often than not.
    by_address: Vec<(*const Row, u16)>,
}

impl<'a> RowNumbers<'a> {
    fn new(slots: impl Iterator<Item = &'a SlotState>) -> Self {
        let mut rows: Vec<&Row> = slots
            .filter_map(|slot| match &slot.baseline {
                Baseline::Frame(frame) => Some(frame),
                Baseline::Never | Baseline::Lost => None,
            })
            .flat_map(Frame::rows)
            .collect();
        rows.sort_unstable_by_key(|row| std::ptr::from_ref(*row));
        rows.dedup_by_key(|row| std::ptr::from_ref(*row));
        rows.sort_unstable();
        let mut distinct: Vec<&Row> = Vec::new();
        let mut by_address = Vec::with_capacity(rows.len());
        for row in rows {
            if distinct.last() != Some(&row) {
                distinct.push(row);
            }
            // Beyond 16 bits the count is refused before any number is used.
            by_address.push((std::ptr::from_ref(row), (distinct.len() - 1) as u16));
        }
        by_address.sort_unstable();
        Self {
            distinct,
            by_address,
        }
    }

    fn number(&self, row: &Row) -> u16 {
        let address = std::ptr::from_ref(row);
        let found = self.by_address.binary_search_by_key(&address, |row| row.0);
        // Every row asked for was among those given to `new`.
        found.map_or(0, |at| self.by_address[at].1)
    }
}

impl GlobalValue {
    /// The type's byte in the wasm binary format.
    fn type_byte(self) -> u8 {
        match self {
            Self::I32(_) => 0x7f,
            Self::I64(_) => 0x7e,
            Self::F32(_) => 0x7d,
            Self::F64(_) => 0x7c,
            Self::V128(_) => 0x7b,
            Self::FuncRef(_) => 0x70,
        }
    }
}
