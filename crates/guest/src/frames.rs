//! What each viewer was last shown, and the smallest payload that shows the next frame.
//!
//! Invariants
//! - a baseline is what the host holds for that slot, under the same epoch; a slot without one is
//!   sent whole frames;
//! - a frame is lost at most when the host has no memory for it: a rejected delta is followed by the
//!   same frame as a keyframe, once, in the same call.
//!
//! Epochs are the host's: whatever it returns is adopted.

use core::time::Duration;

use cabinet_wire::delta::{self, Grid};
use cabinet_wire::{KEYFRAME_BYTES, ROSTER_CAP};

use crate::abi;
use crate::rows::{Baseline, Rows};
use crate::screen::Screen;
use crate::time::Instant;

/// A slot that was told nothing for this long is sent the 9-byte "no change", so that a host that
/// lost its baselines (a restored room) asks for a keyframe.
const REFRESH_AFTER: Duration = Duration::from_secs(1);

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Sent whole: the first frame of this slot since the roster changed, or all of it differs.
    Keyframe,
    /// Sent as the cells that changed.
    Delta,
    /// The host rejected the changes (it lost track) and was sent the whole frame.
    Resynced,
    /// Not sent: the viewer already has it.
    Unchanged,
    /// Not sent: the player is not in the room, sits beyond the host's 1024 slots, or the host had
    /// no memory for the payload.
    Dropped,
}

/// All baselines of a room.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// By roster index; there is one once a frame was sent to it.
    seats: Vec<Option<Slot>>,
    broadcast: Slot,
    /// Whether a seat was shown something else since the last broadcast.
    diverged: bool,
    sender: Sender,
}

/// What the host holds for one seat or for everybody.
#[derive(Debug, Default)]
struct Slot {
    baseline: Option<Baseline>,
    epoch: u32,
    sent: Instant,
}

impl Frames {
    /// Baselines in a store of so many rows.
    #[cfg(test)]
    pub fn with_rows(limit: u16) -> Frames {
        Frames {
            sender: Sender {
                rows: Rows::with_limit(limit),
                ..Sender::default()
            },
            ..Frames::default()
        }
    }

    /// Shows a frame to the player at a roster index.
    pub fn send(&mut self, index: usize, screen: &Screen, now: Instant) -> Shown {
        if index >= ROSTER_CAP {
            return Shown::Dropped;
        }
        if self.seats.len() <= index {
            self.seats.resize_with(index + 1, || None);
        }
        let slot = self.seats[index].get_or_insert_default();
        // An index below ROSTER_CAP fits.
        let transmit = |payload: &[u8]| abi::send(index as u32, payload);
        let shown = self
            .sender
            .deliver(slot, screen.bytes(), now, true, transmit);
        self.diverged |= shown != Shown::Unchanged;
        shown
    }

    /// Shows a frame to everyone.
    pub fn identical(&mut self, screen: &Screen, now: Instant) -> Shown {
        let (slot, skip) = (&mut self.broadcast, !self.diverged);
        let shown = self
            .sender
            .deliver(slot, screen.bytes(), now, skip, abi::identical);
        if matches!(shown, Shown::Unchanged | Shown::Dropped) {
            return shown;
        }
        self.diverged = false;
        let rows = &mut self.sender.rows;
        for seat in self.seats.iter_mut().flatten() {
            // The host gave every seat this frame. Where there was no room to keep it, what the
            // seat had before is wrong now.
            let old = seat.baseline.take();
            seat.baseline = match (&slot.baseline, old) {
                (Some(baseline), old) => Some(rows.share(baseline, old)),
                (None, Some(old)) => {
                    rows.release(old);
                    None
                }
                (None, None) => None,
            };
            (seat.epoch, seat.sent) = (slot.epoch, now);
        }
        shown
    }

    /// The roster changed: the host forgot every baseline, and so do we. Epochs stay.
    pub fn forget(&mut self) {
        for slot in self.seats.iter_mut().flatten().chain([&mut self.broadcast]) {
            if let Some(baseline) = slot.baseline.take() {
                self.sender.rows.release(baseline);
            }
        }
    }
}

/// Turns a frame into a payload and the payload's fate into a baseline.
#[derive(Debug, Default)]
struct Sender {
    rows: Rows,
    /// The baseline that a changed frame is compared with, cell by cell.
    previous: Option<Box<Grid>>,
    payload: Vec<u8>,
}

impl Sender {
    fn deliver(
        &mut self,
        slot: &mut Slot,
        next: &Grid,
        now: Instant,
        skip_unchanged: bool,
        transmit: impl Fn(&[u8]) -> Option<u32>,
    ) -> Shown {
        let baseline = slot.baseline.as_ref();
        let unchanged = baseline.is_some_and(|baseline| self.rows.equal(baseline, next));
        if unchanged && skip_unchanged && now.since(slot.sent) < REFRESH_AFTER {
            return Shown::Unchanged;
        }
        self.payload.clear();
        self.payload.reserve(KEYFRAME_BYTES);
        let shown = match &slot.baseline {
            Some(_) if unchanged => {
                delta::encode_run_list(next, next, slot.epoch, &mut self.payload);
                Shown::Delta
            }
            Some(baseline) => {
                let previous = self.previous.get_or_insert_with(delta::zeroed);
                self.rows.read(baseline, previous);
                let encoded = delta::encode(previous, next, slot.epoch, &mut self.payload);
                if encoded.keyframe {
                    Shown::Keyframe
                } else {
                    Shown::Delta
                }
            }
            None => {
                delta::encode_keyframe(next, slot.epoch, &mut self.payload);
                Shown::Keyframe
            }
        };
        let Some(epoch) = transmit(&self.payload) else {
            return Shown::Dropped;
        };
        if epoch == slot.epoch || shown == Shown::Keyframe {
            self.adopt(slot, (!unchanged).then_some(next), epoch, now);
            return shown;
        }
        self.payload.clear();
        delta::encode_keyframe(next, epoch, &mut self.payload);
        match transmit(&self.payload) {
            Some(epoch) => {
                self.adopt(slot, (!unchanged).then_some(next), epoch, now);
                Shown::Resynced
            }
            None => {
                slot.epoch = epoch;
                if let Some(baseline) = slot.baseline.take() {
                    self.rows.release(baseline);
                }
                Shown::Dropped
            }
        }
    }

    /// The host took the frame; `changed` is it where it is not the baseline already.
    fn adopt(&mut self, slot: &mut Slot, changed: Option<&Grid>, epoch: u32, now: Instant) {
        if let Some(grid) = changed {
            slot.baseline = self.rows.replace(slot.baseline.take(), grid);
        }
        (slot.epoch, slot.sent) = (epoch, now);
    }
}

#[cfg(test)]
mod tests;
