//! Frame baselines: what each frame delta of a guest is applied to, and the epochs that tell
//! whether guest and host mean the same one.
//!
//! There is a slot per roster index and one for broadcasts. A keyframe gives a slot its baseline
//! and its epoch; a delta applies only onto the epoch it was made for, else the slot is bumped to
//! a new epoch and the guest, which sees it returned, sends a keyframe. A broadcast becomes the
//! baseline of every slot that ever had one. The arithmetic is the reference's (docs/ABI.md
//! 6), with one difference: a slot that loses its baseline reads as undrawn from then on, so
//! that a partial keyframe cannot show one player what was drawn for another.
//!
//! Invariants
//! - a slot without a baseline reads as undrawn;
//! - `broadcast.frame` is what the last applied broadcast drew, even after the broadcast slot
//!   itself lost its baseline, for other slots may still stand on it;
//! - what happens to all slots at once is one stamp here, worked out by `Slots::view` when a
//!   slot is next looked at: a roster change or a broadcast costs the same for 1 and 1,024 slots.

use cabinet_wire::{BROADCAST_SLOT, ROSTER_CAP, delta};

use crate::frame::{Frame, RowPool};

/// All slots of a room.
#[derive(Debug)]
pub struct Slots {
    epoch_seq: u32,
    /// Grows to the highest index used.
    slots: Vec<Slot>,
    broadcast: Slot,
    /// Counts what happens to all slots at once.
    clock: u64,
    invalidated: Stamp,
    reconciled: Stamp,
    rows: RowPool,
}

/// The outcome of one container.
#[derive(Debug)]
pub struct Applied<'a> {
    /// What the guest is told.
    pub epoch: u32,
    /// Whether the bytes were no frame container at all.
    pub malformed: bool,
    /// The slot's frame, which now is what the container describes; `None` if it did not apply.
    pub frame: Option<&'a Frame>,
}

#[derive(Debug, Default)]
struct Slot {
    /// `None` until the first baseline. Undrawn whatever it holds while `has_baseline` is false.
    frame: Option<Frame>,
    epoch: u32,
    has_baseline: bool,
    /// The clock when the fields above were last written.
    written: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Stamp {
    clock: u64,
    epoch: u32,
}

/// What a slot is after everything that happened to all slots since it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct View {
    epoch: u32,
    baseline: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Absent,
    Own,
    Broadcast,
}

impl Default for Slots {
    fn default() -> Self {
        Self::new()
    }
}

impl Slots {
    /// Slots that were never used, at epoch 0.
    #[must_use]
    pub fn new() -> Self {
        Self {
            epoch_seq: 0,
            slots: Vec::new(),
            broadcast: Slot::default(),
            clock: 0,
            invalidated: Stamp::default(),
            reconciled: Stamp::default(),
            rows: RowPool::new(),
        }
    }

    /// Applies a container sent to roster index `slot`. An index without a slot answers epoch 0
    /// and changes nothing, as the guest's `send` does.
    pub fn apply(&mut self, slot: usize, container: &[u8]) -> Applied<'_> {
        if slot >= ROSTER_CAP {
            return Applied {
                epoch: 0,
                malformed: false,
                frame: None,
            };
        }
        self.land(slot, container)
    }

    /// Applies a broadcast container. When it applies, every slot that ever had a baseline now
    /// has this one, and every other slot still has none.
    pub fn identical(&mut self, container: &[u8]) -> Applied<'_> {
        self.land(BROADCAST_SLOT, container)
    }

    /// Takes the broadcast slot's baseline away under a new epoch, which is returned: what a
    /// broadcast of no readable container does.
    pub fn bump_broadcast(&mut self) -> u32 {
        self.bump(BROADCAST_SLOT)
    }

    /// Takes every slot's baseline away under one new epoch: what a change of roster does.
    pub fn invalidate_all(&mut self) {
        self.clock += 1;
        self.invalidated = Stamp {
            clock: self.clock,
            epoch: self.next_epoch(),
        };
    }

    /// Continues after `high_water`, the highest epoch some earlier host gave out, with every
    /// baseline gone: how a room imported from the reference starts.
    pub fn reseed(&mut self, high_water: u32) {
        self.epoch_seq = high_water;
        self.invalidate_all();
    }

    /// The last epoch given out.
    #[must_use]
    pub fn epoch_seq(&self) -> u32 {
        self.epoch_seq
    }

    /// The baseline of a roster index, or of [`BROADCAST_SLOT`], if it has one.
    #[must_use]
    pub fn frame(&self, slot: usize) -> Option<&Frame> {
        let slot = match slot {
            BROADCAST_SLOT => &self.broadcast,
            index => self.slots.get(index)?,
        };
        match self.view(slot).baseline {
            Source::Absent => None,
            Source::Own => slot.frame.as_ref(),
            Source::Broadcast => self.broadcast.frame.as_ref(),
        }
    }

    /// Bytes of the rows the slots hold, shared ones once.
    #[must_use]
    pub fn row_bytes(&self) -> u64 {
        let slots = self.slots.iter().chain([&self.broadcast]);
        let frames = slots.filter_map(|slot| slot.frame.as_ref());
        let rows: std::collections::BTreeSet<*const crate::frame::Row> = frames
            .flat_map(Frame::rows)
            .map(std::ptr::from_ref)
            .collect();
        (rows.len() * cabinet_wire::ROW_BYTES) as u64
    }

    /// The baseline of the broadcast slot, if it has one.
    #[must_use]
    pub fn broadcast_frame(&self) -> Option<&Frame> {
        self.frame(BROADCAST_SLOT)
    }

    fn bump(&mut self, index: usize) -> u32 {
        let epoch = self.next_epoch();
        let clock = self.clock;
        let slot = self.slot_mut(index);
        slot.epoch = epoch;
        slot.has_baseline = false;
        slot.written = clock;
        epoch
    }

    fn land(&mut self, index: usize, container: &[u8]) -> Applied<'_> {
        let Ok(checked) = delta::check(container) else {
            return Applied {
                epoch: self.bump(index),
                malformed: true,
                frame: None,
            };
        };
        self.slot_mut(index);
        let view = self.view(self.slot(index));
        let keyframe = checked.is_keyframe();
        if !keyframe && (view.baseline == Source::Absent || view.epoch != checked.epoch()) {
            return Applied {
                epoch: self.bump(index),
                malformed: false,
                frame: None,
            };
        }
        if index == BROADCAST_SLOT {
            self.clock += 1;
            self.reconciled = Stamp {
                clock: self.clock,
                epoch: checked.epoch(),
            };
        }

        let (slot, broadcast) = match index {
            BROADCAST_SLOT => (&mut self.broadcast, None),
            _ => (&mut self.slots[index], self.broadcast.frame.as_ref()),
        };
        let frame = slot.frame.get_or_insert_with(|| self.rows.blank_frame());
        // A frame that is drawn over entirely needs nothing underneath.
        let replaced = checked.covers_grid();
        match (view.baseline, broadcast) {
            _ if replaced => {}
            (Source::Absent, _) => self.rows.clear(frame),
            (Source::Broadcast, Some(broadcast)) => self.rows.share(frame, broadcast),
            (Source::Own | Source::Broadcast, _) => {}
        }
        for run in checked.runs() {
            self.rows.write(frame, run.start, run.cells);
        }
        // A delta's epoch is the slot's already; a keyframe's is adopted.
        slot.epoch = checked.epoch();
        slot.has_baseline = true;
        slot.written = self.clock;
        Applied {
            epoch: checked.epoch(),
            malformed: false,
            frame: Some(frame),
        }
    }

    fn view(&self, slot: &Slot) -> View {
        let allocated = slot.frame.is_some();
        if allocated && self.reconciled.clock > slot.written.max(self.invalidated.clock) {
            View {
                epoch: self.reconciled.epoch,
                baseline: Source::Broadcast,
            }
        } else if self.invalidated.clock > slot.written {
            View {
                epoch: self.invalidated.epoch,
                baseline: Source::Absent,
            }
        } else {
            View {
                epoch: slot.epoch,
                baseline: if slot.has_baseline {
                    Source::Own
                } else {
                    Source::Absent
                },
            }
        }
    }

    fn slot(&self, index: usize) -> &Slot {
        match index {
            BROADCAST_SLOT => &self.broadcast,
            _ => &self.slots[index],
        }
    }

    fn slot_mut(&mut self, index: usize) -> &mut Slot {
        if index == BROADCAST_SLOT {
            return &mut self.broadcast;
        }
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Slot::default);
        }
        &mut self.slots[index]
    }

    fn next_epoch(&mut self) -> u32 {
        self.epoch_seq = self.epoch_seq.wrapping_add(1);
        self.epoch_seq
    }
}

/// All slots of a room as a snapshot holds them: equal for rooms that behave the same, however
/// they came there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlotsState {
    /// The last epoch given out.
    pub epoch_seq: u32,
    /// The epoch of every index slot that is not listed; none of those ever had a baseline.
    pub unlisted_epoch: u32,
    /// The broadcast slot.
    pub broadcast: SlotState,
    /// Index slots that had a baseline or have another epoch than the unlisted, by rising index.
    pub slots: Vec<(u16, SlotState)>,
}

/// One slot of a [`SlotsState`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlotState {
    /// The slot's epoch.
    pub epoch: u32,
    /// What it holds.
    pub baseline: Baseline,
}

/// What a slot holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Baseline {
    /// It never had a baseline; a broadcast does not give it one.
    #[default]
    Never,
    /// It had one; the next broadcast gives it one again.
    Lost,
    /// It has this one.
    Frame(Frame),
}

impl Slots {
    /// Everything there is to know about the slots. Frames are shared, not copied.
    #[must_use]
    pub fn export(&self) -> SlotsState {
        let unlisted_epoch = self.invalidated.epoch;
        SlotsState {
            epoch_seq: self.epoch_seq,
            unlisted_epoch,
            broadcast: self.export_slot(&self.broadcast),
            slots: (0..)
                .zip(self.slots.iter().map(|slot| self.export_slot(slot)))
                .filter(|(_, slot)| {
                    slot.baseline != Baseline::Never || slot.epoch != unlisted_epoch
                })
                .collect(),
        }
    }

    fn export_slot(&self, slot: &Slot) -> SlotState {
        let view = self.view(slot);
        let frame = match view.baseline {
            Source::Absent => None,
            Source::Own => slot.frame.as_ref(),
            Source::Broadcast => self.broadcast.frame.as_ref(),
        };
        SlotState {
            epoch: view.epoch,
            baseline: match (frame, &slot.frame) {
                (Some(frame), _) => Baseline::Frame(frame.clone()),
                (None, Some(_)) => Baseline::Lost,
                (None, None) => Baseline::Never,
            },
        }
    }

    /// Slots that behave as those `state` was exported from. Entries that are not for an index
    /// slot are left out.
    #[must_use]
    pub fn import(state: &SlotsState) -> Self {
        let mut slots = Self::new();
        slots.epoch_seq = state.epoch_seq;
        slots.clock = 1;
        slots.invalidated = Stamp {
            clock: 1,
            epoch: state.unlisted_epoch,
        };
        slots.import_slot(BROADCAST_SLOT, &state.broadcast);
        for (index, slot) in &state.slots {
            let index = usize::from(*index);
            if index < ROSTER_CAP {
                slots.import_slot(index, slot);
            }
        }
        slots
    }

    fn import_slot(&mut self, index: usize, state: &SlotState) {
        let slot = Slot {
            frame: match &state.baseline {
                Baseline::Never => None,
                Baseline::Lost => Some(self.rows.blank_frame()),
                Baseline::Frame(frame) => Some(frame.clone()),
            },
            epoch: state.epoch,
            has_baseline: matches!(state.baseline, Baseline::Frame(_)),
            written: self.clock,
        };
        *self.slot_mut(index) = slot;
    }
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
