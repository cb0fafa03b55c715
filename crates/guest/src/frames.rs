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

use cabinet_wire::delta;
use cabinet_wire::{KEYFRAME_BYTES, ROSTER_CAP};

use crate::abi;
use crate::rows::{Baseline, RowSet, Rows};
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
        let shown = self.sender.deliver(slot, screen, now, true, transmit);
        self.diverged |= shown != Shown::Unchanged;
        shown
    }

    /// Shows a frame to everyone.
    pub fn identical(&mut self, screen: &Screen, now: Instant) -> Shown {
        let (slot, skip) = (&mut self.broadcast, !self.diverged);
        let shown = self.sender.deliver(slot, screen, now, skip, abi::identical);
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
    payload: Vec<u8>,
}

impl Sender {
    fn deliver(
        &mut self,
        slot: &mut Slot,
        screen: &Screen,
        now: Instant,
        skip_unchanged: bool,
        transmit: impl Fn(&[u8]) -> Option<u32>,
    ) -> Shown {
        self.payload.clear();
        self.payload.reserve(KEYFRAME_BYTES);
        let (shown, changed) = match &slot.baseline {
            Some(baseline) => {
                let payload = &mut self.payload;
                let (encoded, changed) = self.rows.encode(baseline, screen, slot.epoch, payload);
                let fresh = now.since(slot.sent) < REFRESH_AFTER;
                if changed == RowSet::NONE && skip_unchanged && fresh {
                    return Shown::Unchanged;
                }
                let shown = if encoded.keyframe {
                    Shown::Keyframe
                } else {
                    Shown::Delta
                };
                (shown, changed)
            }
            None => {
                delta::encode_keyframe(screen.bytes(), slot.epoch, &mut self.payload);
                (Shown::Keyframe, RowSet::ALL)
            }
        };
        let Some(epoch) = transmit(&self.payload) else {
            return Shown::Dropped;
        };
        if epoch == slot.epoch || shown == Shown::Keyframe {
            self.adopt(slot, screen, changed, epoch, now);
            return shown;
        }
        self.payload.clear();
        delta::encode_keyframe(screen.bytes(), epoch, &mut self.payload);
        match transmit(&self.payload) {
            Some(epoch) => {
                self.adopt(slot, screen, changed, epoch, now);
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

    /// The host took the screen, which differs from the baseline in `changed` rows.
    fn adopt(
        &mut self,
        slot: &mut Slot,
        screen: &Screen,
        changed: RowSet,
        epoch: u32,
        now: Instant,
    ) {
        if changed != RowSet::NONE {
            slot.baseline = self.rows.replace(slot.baseline.take(), screen, changed);
        }
        (slot.epoch, slot.sent) = (epoch, now);
    }
}

#[cfg(test)]
mod tests;
