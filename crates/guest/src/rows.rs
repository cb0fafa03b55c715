//! Frames kept row by row, each distinct row once.
//!
//! A thousand viewers' baselines are 46 MB as grids, more than a guest may have. Viewers of one room
//! mostly see the same rows, so a baseline is 24 references into a store of rows.
//!
//! Invariants
//! - a row's count is the number of baselines that refer to it; a row of count 0 is free for reuse;
//! - a [`Baseline`] is neither copied nor dropped but goes back through [`Rows::release`] or
//!   [`Rows::replace`].

use cabinet_wire::delta::Grid;
use cabinet_wire::{ROW_BYTES, ROWS};

type Row = [u8; ROW_BYTES];

/// A frame, as references to its rows. At most 1025 baselines of 24 rows fit a `u16`.
#[derive(Debug)]
pub(crate) struct Baseline([u16; ROWS]);

/// The distinct rows of all baselines.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    #[expect(
        clippy::vec_box,
        reason = "growing a plain vector would for a moment hold all rows twice"
    )]
    rows: Vec<Box<Row>>,
    /// By row, the baselines that refer to it.
    counts: Vec<u16>,
    free: Vec<u16>,
    /// By place on the screen, the row stored last: what the next viewer most likely sees too.
    recent: [Option<u16>; ROWS],
}

impl Rows {
    /// Writes a baseline's frame out.
    pub fn read(&self, baseline: &Baseline, grid: &mut Grid) {
        for (row, &id) in grid.as_chunks_mut().0.iter_mut().zip(&baseline.0) {
            *row = *self.rows[usize::from(id)];
        }
    }

    /// Stores a frame in place of an old one, if there was one.
    pub fn replace(&mut self, old: Option<Baseline>, grid: &Grid) -> Baseline {
        let mut ids = [0; ROWS];
        for (place, row) in grid.as_chunks().0.iter().enumerate() {
            ids[place] = match &old {
                Some(old) if self.holds(old.0[place], row) => old.0[place],
                Some(old) => {
                    self.drop_one(old.0[place]);
                    self.find_or_store(place, row)
                }
                None => self.find_or_store(place, row),
            };
        }
        Baseline(ids)
    }

    /// The same frame for one more viewer, in place of an old one.
    pub fn share(&mut self, baseline: &Baseline, old: Option<Baseline>) -> Baseline {
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

    fn find_or_store(&mut self, place: usize, row: &Row) -> u16 {
        if let Some(id) = self.recent[place]
            && self.counts[usize::from(id)] > 0
            && self.holds(id, row)
        {
            self.counts[usize::from(id)] += 1;
            return id;
        }
        let id = match self.free.pop() {
            Some(id) => {
                *self.rows[usize::from(id)] = *row;
                self.counts[usize::from(id)] = 1;
                id
            }
            None => {
                let id = self.rows.len() as u16;
                self.rows.push(Box::new(*row));
                self.counts.push(1);
                // Room for every row to be given up, so that giving up never allocates.
                self.free.reserve(self.rows.len());
                id
            }
        };
        self.recent[place] = Some(id);
        id
    }

    fn drop_one(&mut self, id: u16) {
        let count = &mut self.counts[usize::from(id)];
        *count -= 1;
        if *count == 0 {
            self.free.push(id);
        }
    }

    /// Word by word: on wasm the library compares slices byte by byte.
    fn holds(&self, id: u16, row: &Row) -> bool {
        let ours = self.rows[usize::from(id)].as_chunks::<8>().0;
        let theirs = row.as_chunks::<8>().0;
        let same = |(a, b): (&[u8; 8], &[u8; 8])| u64::from_le_bytes(*a) == u64::from_le_bytes(*b);
        ours.iter().zip(theirs).all(same)
    }
}

#[cfg(test)]
mod tests {
    use cabinet_wire::delta;
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
        rows.read(baseline, &mut grid);
        grid
    }

    #[test]
    fn a_thousand_viewers_with_a_line_of_their_own_share_the_others() {
        let mut rows = Rows::default();
        let viewers: Vec<Baseline> = (0..1000_u32)
            .map(|viewer| {
                let mut grid = frame(&[7; ROWS]);
                grid[..4].copy_from_slice(&viewer.to_le_bytes());
                rows.replace(None, &grid)
            })
            .collect();
        assert_eq!(rows.rows.len(), 1000 + ROWS - 1);
        assert_eq!(read(&rows, &viewers[3])[..4], 3_u32.to_le_bytes());
        for viewer in viewers {
            rows.release(viewer);
        }
        assert_eq!(rows.free.len(), rows.rows.len());
    }

    proptest! {
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
                        viewers[viewer] = Some(rows.replace(old, &grid));
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
