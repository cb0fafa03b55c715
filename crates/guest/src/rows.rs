//! Frames kept row by row, each distinct row once.
//!
//! A thousand viewers' baselines are 46 MB as grids, more than a guest may have. Viewers of one room
//! mostly see the same rows, so a baseline is 24 references into a store of rows. Where they do not,
//! the store is full at [`ROWS_MAX`], and a frame it has no room for has no baseline: that viewer is
//! sent whole frames.
//!
//! Invariants
//! - a row's count is the number of baselines that refer to it; a row of count 0 is free for reuse;
//! - a [`Baseline`] is neither copied nor dropped but goes back through [`Rows::release`] or
//!   [`Rows::replace`].

use cabinet_wire::delta::{Encoded, Encoder};
use cabinet_wire::{ROW_BYTES, ROWS};

use crate::screen::{Row, Screen};

/// Distinct rows kept: 15.7 MB, under half of the memory a guest may have.
const ROWS_MAX: u16 = 8_192;

/// Some of a frame's rows: bit 0 is the top one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowSet(u32);

impl RowSet {
    /// No row.
    pub const NONE: RowSet = RowSet(0);
    /// All 24.
    pub const ALL: RowSet = RowSet((1 << ROWS) - 1);

    fn add(&mut self, row: usize) {
        self.0 |= 1 << row;
    }

    fn has(self, row: usize) -> bool {
        self.0 & 1 << row != 0
    }
}

/// A row as it is kept.
#[derive(Debug)]
struct Kept {
    bytes: [u8; ROW_BYTES],
    end: u8,
}

impl Kept {
    fn of(row: Row<'_>) -> Kept {
        Kept {
            bytes: *row.bytes,
            end: row.end,
        }
    }

    fn row(&self) -> Row<'_> {
        Row {
            bytes: &self.bytes,
            end: self.end,
        }
    }
}

/// A frame, as references to its rows. At most 1025 baselines of 24 rows fit a `u16`.
#[derive(Debug)]
pub(crate) struct Baseline([u16; ROWS]);

/// The distinct rows of all baselines.
#[derive(Debug)]
pub(crate) struct Rows {
    /// How many distinct rows may be kept.
    limit: u16,
    #[expect(
        clippy::vec_box,
        reason = "growing a plain vector would for a moment hold all rows twice"
    )]
    rows: Vec<Box<Kept>>,
    /// By row, the baselines that refer to it.
    counts: Vec<u16>,
    free: Vec<u16>,
    /// By place on the screen, the row stored last: what the next viewer most likely sees too.
    recent: [Option<u16>; ROWS],
}

impl Default for Rows {
    fn default() -> Rows {
        Rows::with_limit(ROWS_MAX)
    }
}

impl Rows {
    /// An empty store of at most `limit` distinct rows.
    pub const fn with_limit(limit: u16) -> Rows {
        Rows {
            limit,
            rows: Vec::new(),
            counts: Vec::new(),
            free: Vec::new(),
            recent: [None; ROWS],
        }
    }

    /// Appends to `out` what changed from a baseline to a screen, as [`delta::encode`] does, and
    /// tells in which rows.
    ///
    /// [`delta::encode`]: cabinet_wire::delta::encode
    pub fn encode(
        &self,
        baseline: &Baseline,
        screen: &Screen,
        epoch: u32,
        out: &mut Vec<u8>,
    ) -> (Encoded, RowSet) {
        let mut changed = RowSet::NONE;
        let mut encoder = Encoder::new(epoch, out);
        for (place, &id) in baseline.0.iter().enumerate() {
            let (old, new) = (self.rows[usize::from(id)].row(), screen.row(place));
            let columns = old.end.max(new.end);
            if columns > 0 && encoder.row(place, old.cells(columns), new.cells(columns)) {
                changed.add(place);
            }
        }
        (encoder.finish_or_keyframe(screen.bytes()), changed)
    }

    /// Stores a screen in place of an old frame, if there was one, from which it differs in
    /// `changed` rows only. `None`, with nothing kept of either, when there is no room for it.
    pub fn replace(
        &mut self,
        old: Option<Baseline>,
        screen: &Screen,
        changed: RowSet,
    ) -> Option<Baseline> {
        let mut ids = [0; ROWS];
        for place in 0..ROWS {
            let id = match old.as_ref().map(|old| old.0[place]) {
                Some(id) if !changed.has(place) => Some(id),
                before => {
                    if let Some(id) = before {
                        self.drop_one(id);
                    }
                    self.find_or_store(place, screen.row(place))
                }
            };
            let Some(id) = id else {
                let rest = old.iter().flat_map(|old| &old.0[place + 1..]);
                for &id in ids[..place].iter().chain(rest) {
                    self.drop_one(id);
                }
                return None;
            };
            ids[place] = id;
        }
        Some(Baseline(ids))
    }

    /// The same frame for one more viewer, in place of an old one.
    pub fn share(&mut self, baseline: &Baseline, old: Option<Baseline>) -> Baseline {
        if old.as_ref().is_some_and(|old| old.0 == baseline.0) {
            return Baseline(baseline.0);
        }
        for &id in &baseline.0 {
            self.counts[usize::from(id)] += 1;
        }
        if let Some(old) = old {
            self.release(old);
        }
        Baseline(baseline.0)
    }

    /// Gives a frame up.
    pub fn release(&mut self, baseline: Baseline) {
        for id in baseline.0 {
            self.drop_one(id);
        }
    }

    /// Apart from the loop over rows, few of which changed: a metered guest is charged for all of a
    /// loop's code, run or not.
    #[inline(never)]
    fn find_or_store(&mut self, place: usize, row: Row<'_>) -> Option<u16> {
        if let Some(id) = self.recent[place]
            && self.counts[usize::from(id)] > 0
            && self.rows[usize::from(id)].row().shows(row)
        {
            self.counts[usize::from(id)] += 1;
            return Some(id);
        }
        let id = match self.free.pop() {
            Some(id) => {
                let kept = &mut self.rows[usize::from(id)];
                (kept.bytes, kept.end) = (*row.bytes, row.end);
                self.counts[usize::from(id)] = 1;
                id
            }
            None if self.rows.len() >= usize::from(self.limit) => return None,
            None => {
                // Below the limit, which fits.
                let id = self.rows.len() as u16;
                self.rows.push(Box::new(Kept::of(row)));
                self.counts.push(1);
                // Room for every row to be given up, so that giving up never allocates.
                self.free.reserve(self.rows.len());
                id
            }
        };
        self.recent[place] = Some(id);
        Some(id)
    }

    fn drop_one(&mut self, id: u16) {
        let count = &mut self.counts[usize::from(id)];
        *count -= 1;
        if *count == 0 {
            self.free.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use cabinet_wire::delta::{self, Grid};
    use proptest::prelude::*;

    use super::*;

    /// A frame whose rows are filled with these bytes.
    fn frame(rows: &[u8]) -> Box<Grid> {
        let mut grid = delta::zeroed();
        for (row, &byte) in grid.as_chunks_mut::<ROW_BYTES>().0.iter_mut().zip(rows) {
            row.fill(byte);
        }
        grid
    }

    fn read(rows: &Rows, baseline: &Baseline) -> Box<Grid> {
        let mut grid = delta::zeroed();
        for (row, &id) in grid.as_chunks_mut().0.iter_mut().zip(&baseline.0) {
            *row = rows.rows[usize::from(id)].bytes;
        }
        grid
    }

    /// Stores a frame in place of an old one, finding out what changed.
    fn replace(rows: &mut Rows, old: Option<Baseline>, grid: &Grid) -> Option<Baseline> {
        let screen = Screen::from_bytes(grid);
        let changed = match &old {
            Some(old) => rows.encode(old, &screen, 0, &mut Vec::new()).1,
            None => RowSet::ALL,
        };
        rows.replace(old, &screen, changed)
    }

    #[test]
    fn a_thousand_viewers_with_a_line_of_their_own_share_the_others() {
        let mut rows = Rows::default();
        let viewers: Vec<Baseline> = (0..1000_u32)
            .map(|viewer| {
                let mut grid = frame(&[7; ROWS]);
                grid[..4].copy_from_slice(&viewer.to_le_bytes());
                replace(&mut rows, None, &grid).unwrap()
            })
            .collect();
        assert_eq!(rows.rows.len(), 1000 + ROWS - 1);
        assert_eq!(read(&rows, &viewers[3])[..4], 3_u32.to_le_bytes());
        for viewer in viewers {
            rows.release(viewer);
        }
        assert_eq!(rows.free.len(), rows.rows.len());
    }

    /// A frame in which no two rows are alike, nor any with those of another number.
    fn unlike(number: u32) -> Box<Grid> {
        let mut grid = delta::zeroed();
        for (place, row) in (0u32..).zip(grid.as_chunks_mut::<ROW_BYTES>().0) {
            row[..4].copy_from_slice(&(number * ROWS as u32 + place).to_le_bytes());
        }
        grid
    }

    #[test]
    fn a_full_store_keeps_nothing_of_the_next_frame_and_takes_it_when_there_is_room() {
        let fit = 5;
        let mut rows = Rows::with_limit(fit as u16 * ROWS as u16 + 8);
        let mut kept: Vec<Baseline> = (0..fit)
            .map(|number| replace(&mut rows, None, &unlike(number)).unwrap())
            .collect();
        assert!(replace(&mut rows, None, &unlike(fit)).is_none());
        // A frame in place of an old one has the old one's room.
        let changed = replace(&mut rows, kept.pop(), &unlike(fit + 1)).unwrap();
        assert_eq!(read(&rows, &changed), unlike(fit + 1));
        rows.release(changed);
        let next = replace(&mut rows, None, &unlike(fit)).unwrap();
        assert_eq!(read(&rows, &next), unlike(fit));
        rows.release(next);
        for baseline in kept {
            rows.release(baseline);
        }
        assert!(rows.counts.iter().all(|count| *count == 0));
    }

    #[test]
    fn a_viewer_whose_new_frame_does_not_fit_holds_on_to_nothing() {
        let limit = 5 * ROWS;
        let mut rows = Rows::with_limit(limit as u16);
        // Two viewers of one frame, then the store is filled to the last row.
        let first = replace(&mut rows, None, &unlike(0)).unwrap();
        let second = rows.share(&first, None);
        let mut number = 1;
        while rows.rows.len() + ROWS <= limit {
            let _kept = replace(&mut rows, None, &unlike(number)).unwrap();
            number += 1;
        }
        let before: usize = rows.counts.iter().map(|&count| usize::from(count)).sum();
        assert!(replace(&mut rows, Some(second), &unlike(number)).is_none());
        let after: usize = rows.counts.iter().map(|&count| usize::from(count)).sum();
        assert_eq!(before - after, ROWS, "the old frame's share went back");
        assert_eq!(read(&rows, &first), unlike(0));
    }

    #[test]
    fn a_byte_that_differs_changes_its_row_and_no_other() {
        let mut rows = Rows::with_limit(ROWS as u16);
        let mut grid = unlike(1);
        let baseline = replace(&mut rows, None, &grid).unwrap();
        let changed = |grid: &Grid| {
            let screen = Screen::from_bytes(grid);
            rows.encode(&baseline, &screen, 0, &mut Vec::new()).1
        };
        assert_eq!(changed(&grid), RowSet::NONE);
        for place in 0..ROWS {
            for byte in [place * ROW_BYTES, (place + 1) * ROW_BYTES - 1] {
                grid[byte] ^= 1;
                assert_eq!(changed(&grid), RowSet(1 << place), "byte {byte}");
                grid[byte] ^= 1;
            }
        }
    }

    /// A screen drawn on over and over, as games do: cleared or not, in different places.
    fn drawn() -> impl Strategy<Value = Vec<(bool, i32, i32, String)>> {
        let text = "[a-c 漢]{0,30}";
        proptest::collection::vec((prop::bool::weighted(0.2), 0..24, -5..80, text), 0..40)
    }

    proptest! {
        #[test]
        fn what_changed_is_encoded_as_if_every_cell_had_been_compared(before in drawn(), after in drawn()) {
            let mut screen = Screen::new();
            let mut draw = |steps: Vec<(bool, i32, i32, String)>| {
                for (clear, row, col, text) in steps {
                    if clear {
                        screen.clear();
                    }
                    screen.text(row, col, &text, crate::Style::new());
                }
                screen.clone()
            };
            let (before, after) = (draw(before), draw(after));
            let mut rows = Rows::default();
            let baseline = rows.replace(None, &before, RowSet::ALL).unwrap();
            let (mut ours, mut whole) = (Vec::new(), Vec::new());
            let (encoded, changed) = rows.encode(&baseline, &after, 7, &mut ours);
            prop_assert_eq!(encoded, delta::encode(before.bytes(), after.bytes(), 7, &mut whole));
            prop_assert_eq!(ours, whole);
            for place in 0..ROWS {
                let same = before.row(place).bytes == after.row(place).bytes;
                prop_assert_eq!(changed.has(place), !same, "row {}", place);
            }
            let baseline = rows.replace(Some(baseline), &after, changed).unwrap();
            prop_assert!(read(&rows, &baseline)[..] == after.bytes()[..]);
        }

        #[test]
        fn every_viewer_keeps_their_own_frame_whatever_the_others_do(
            steps in proptest::collection::vec((0..4_usize, 0..4_u8, prop::array::uniform3(0..3_u8)), 1..60),
        ) {
            let mut rows = Rows::default();
            let mut viewers: [Option<Baseline>; 4] = Default::default();
            let mut model: [Option<Box<Grid>>; 4] = Default::default();
            for (viewer, what, bytes) in steps {
                match what {
                    0 => {
                        if let Some(baseline) = viewers[viewer].take() {
                            rows.release(baseline);
                        }
                        model[viewer] = None;
                    }
                    1 => {
                        let from = (viewer + 1) % 4;
                        let old = viewers[viewer].take();
                        viewers[viewer] = match &viewers[from] {
                            Some(baseline) => Some(rows.share(baseline, old)),
                            None => old,
                        };
                        if model[from].is_some() {
                            model[viewer] = model[from].clone();
                        }
                    }
                    _ => {
                        let grid = frame(&bytes);
                        let old = viewers[viewer].take();
                        viewers[viewer] = replace(&mut rows, old, &grid);
                        model[viewer] = Some(grid);
                    }
                }
                for (baseline, grid) in viewers.iter().zip(&model) {
                    prop_assert_eq!(baseline.as_ref().map(|it| read(&rows, it)), grid.clone());
                }
                let held = viewers.iter().flatten().count() * ROWS;
                prop_assert_eq!(rows.counts.iter().map(|&count| usize::from(count)).sum::<usize>(), held);
            }
        }
    }
}
