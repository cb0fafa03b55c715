//! A frame: the 24×80 grid of packed cells a player sees, shared and immutable.
//!
//! A frame is 24 rows behind reference counts, one per row. Cloning one is 24 increments; the
//! host's next change copies only the rows it touches, and only while somebody still holds them.
//! So a viewer that keeps every frame costs one row per changed row, not 46 KB per wake, and a
//! host whose frames nobody keeps writes in place and allocates nothing.

use std::fmt;
use std::sync::Arc;

use cabinet_wire::cell::Cell;
use cabinet_wire::{CELL_BYTES, FRAME_BYTES, ROW_BYTES, ROWS};

/// One row of packed cells.
pub type Row = [u8; ROW_BYTES];

/// An immutable grid of 24×80 packed cells (docs/ABI.md), cheap to clone and to keep.
#[derive(Clone)]
pub struct Frame {
    rows: [Arc<Row>; ROWS],
}

impl Frame {
    /// The frame with these cells.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; FRAME_BYTES]) -> Self {
        Self {
            rows: std::array::from_fn(|row| {
                let mut cells = [0; ROW_BYTES];
                cells.copy_from_slice(&bytes[row * ROW_BYTES..][..ROW_BYTES]);
                Arc::new(cells)
            }),
        }
    }

    /// The frame with these rows; equal rows may be the same one.
    pub(crate) fn from_rows(rows: [Arc<Row>; ROWS]) -> Self {
        Self { rows }
    }

    /// Row `row` of the grid.
    ///
    /// # Panics
    /// When `row` is not below [`ROWS`].
    #[must_use]
    pub fn row(&self, row: usize) -> &Row {
        &self.rows[row]
    }

    /// The rows from top to bottom.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &Row> {
        self.rows.iter().map(|row| &**row)
    }

    /// A row as text, without colours: blanks as spaces, none at the end, control characters as
    /// spaces, the right half of a wide glyph left out.
    ///
    /// # Panics
    /// When `row` is not below [`ROWS`].
    #[must_use]
    pub fn row_text(&self, row: usize) -> String {
        let mut text = String::with_capacity(cabinet_wire::COLS);
        for cell in self.rows[row].as_chunks().0.iter().map(Cell::read) {
            if cell.cont {
                continue;
            }
            let shown = |point: &u32| char::from_u32(*point).filter(|c| !c.is_control());
            text.push(shown(&cell.cp[0]).unwrap_or(' '));
            text.extend(
                cell.cp[1..]
                    .iter()
                    .filter(|point| **point != 0)
                    .filter_map(shown),
            );
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// The packed cell at a row and column.
    ///
    /// # Panics
    /// When `row` is not below [`ROWS`] or `col` not below [`COLS`](cabinet_wire::COLS).
    #[must_use]
    pub fn cell(&self, row: usize, col: usize) -> &[u8; CELL_BYTES] {
        &self.rows[row].as_chunks().0[col]
    }

    /// Writes the whole grid into `out`, row after row.
    pub fn copy_to(&self, out: &mut [u8; FRAME_BYTES]) {
        for (row, out) in self.rows.iter().zip(out.as_chunks_mut::<ROW_BYTES>().0) {
            *out = **row;
        }
    }

    /// The rows that differ from those of `since`. Rows the two frames share are not compared, so
    /// against the frame before this costs what changed.
    pub fn changed_rows(&self, since: &Self) -> impl Iterator<Item = usize> {
        let pairs = self.rows.iter().zip(&since.rows);
        pairs
            .enumerate()
            .filter(|(_, (a, b))| !Arc::ptr_eq(a, b) && a != b)
            .map(|(row, _)| row)
    }
}

impl Frame {
    /// Becomes `newer`, touching only the rows the two do not share; returns those, row `n` as bit
    /// `n`. How a viewer's copy follows the room's at the cost of what changed.
    pub fn follow(&mut self, newer: &Self) -> u32 {
        let mut taken = 0;
        for (at, (own, new)) in self.rows.iter_mut().zip(&newer.rows).enumerate() {
            if !Arc::ptr_eq(own, new) {
                *own = Arc::clone(new);
                taken |= 1 << at;
            }
        }
        taken
    }

    /// A frame of undrawn cells.
    #[must_use]
    pub fn blank() -> Self {
        let row: Arc<Row> = Arc::new([0; ROW_BYTES]);
        Self {
            rows: std::array::from_fn(|_| Arc::clone(&row)),
        }
    }
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.changed_rows(other).next().is_none()
    }
}

impl Eq for Frame {}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let drawn = self.rows.iter().filter(|row| ***row != [0; ROW_BYTES]);
        write!(f, "Frame({} rows drawn)", drawn.count())
    }
}

/// Rows between frames: where a frame that is written gets one from when the row it has is shared.
#[derive(Debug)]
pub(crate) struct RowPool {
    blank: Arc<Row>,
    spare: Vec<Arc<Row>>,
}

/// Two frames' worth: a broadcast that every slot has taken over, and the slots' own changes.
const SPARE_ROWS_MAX: usize = 2 * ROWS;
/// Spare rows that a viewer may still hold when they are put here. It lets go of them with the next
/// frame, so a room whose viewers follow it allocates nothing.
const HELD_SPARE_ROWS_MAX: usize = 4;

impl RowPool {
    pub(crate) fn new() -> Self {
        Self {
            blank: Arc::new([0; ROW_BYTES]),
            spare: Vec::with_capacity(SPARE_ROWS_MAX),
        }
    }

    /// A frame of undrawn cells.
    pub(crate) fn blank_frame(&self) -> Frame {
        Frame {
            rows: std::array::from_fn(|_| Arc::clone(&self.blank)),
        }
    }

    /// Makes every cell of `frame` undrawn.
    pub(crate) fn clear(&mut self, frame: &mut Frame) {
        for row in &mut frame.rows {
            let old = std::mem::replace(row, Arc::clone(&self.blank));
            self.put(old);
        }
    }

    /// Makes `frame` the same as `source`.
    pub(crate) fn share(&mut self, frame: &mut Frame, source: &Frame) {
        for (row, source) in frame.rows.iter_mut().zip(&source.rows) {
            let old = std::mem::replace(row, Arc::clone(source));
            self.put(old);
        }
    }

    /// Writes packed cells from cell index `start` on. They must end within the frame.
    pub(crate) fn write(&mut self, frame: &mut Frame, start: usize, cells: &[u8]) {
        let mut at = start * CELL_BYTES;
        let mut rest = cells;
        while !rest.is_empty() {
            let (row, from) = (at / ROW_BYTES, at % ROW_BYTES);
            let (piece, after) = rest.split_at(rest.len().min(ROW_BYTES - from));
            let whole = piece.len() == ROW_BYTES;
            let row = self.unshared(&mut frame.rows[row], whole);
            row[from..from + piece.len()].copy_from_slice(piece);
            at += piece.len();
            rest = after;
        }
    }

    /// The row to write to, copied first if somebody else holds it. One that will be overwritten
    /// whole is not copied.
    fn unshared<'a>(&mut self, row: &'a mut Arc<Row>, overwritten: bool) -> &'a mut Row {
        if Arc::get_mut(row).is_none() {
            let mut own = self.take().unwrap_or_else(|| Arc::new([0; ROW_BYTES]));
            if !overwritten {
                *Arc::make_mut(&mut own) = **row;
            }
            let old = std::mem::replace(row, own);
            self.put(old);
        }
        // Held by nobody else now, so this copies nothing.
        Arc::make_mut(row)
    }

    /// A spare row nobody holds.
    fn take(&mut self) -> Option<Arc<Row>> {
        let at = self
            .spare
            .iter_mut()
            .rposition(|row| Arc::get_mut(row).is_some())?;
        Some(self.spare.swap_remove(at))
    }

    fn put(&mut self, mut row: Arc<Row>) {
        if Arc::get_mut(&mut row).is_some() {
            if self.spare.len() < SPARE_ROWS_MAX {
                self.spare.push(row);
            }
            return;
        }
        if Arc::ptr_eq(&row, &self.blank) {
            return;
        }
        if self.spare.len() >= HELD_SPARE_ROWS_MAX {
            // The one that was put here first may be held for ever.
            if self.spare.iter_mut().any(|row| Arc::get_mut(row).is_some()) {
                return;
            }
            self.spare.remove(0);
        }
        self.spare.push(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(frame: &Frame) -> Box<[u8; FRAME_BYTES]> {
        let mut out = Box::new([0xEE; FRAME_BYTES]);
        frame.copy_to(&mut out);
        out
    }

    #[test]
    fn a_row_reads_as_text_without_blanks_at_its_end_or_control_characters() {
        let mut bytes = Box::new([0; FRAME_BYTES]);
        let mut put = |col: usize, cell: Cell| {
            let at = col * CELL_BYTES;
            bytes[at..at + CELL_BYTES].copy_from_slice(&cell.to_bytes());
        };
        put(0, Cell::of('a'));
        put(1, Cell::of('\u{1b}'));
        put(2, Cell::of('日'));
        put(
            3,
            Cell {
                cont: true,
                ..Cell::default()
            },
        );
        put(
            4,
            Cell {
                cp: ['e' as u32, 0x301, 0],
                ..Cell::default()
            },
        );
        put(6, Cell::of(' '));
        let frame = Frame::from_bytes(&bytes);
        assert_eq!(frame.row_text(0), "a 日e\u{301}");
        assert_eq!(frame.row_text(1), "");
    }

    #[test]
    fn a_frame_gives_back_the_bytes_it_was_made_of() {
        let source: [u8; FRAME_BYTES] = std::array::from_fn(|i| (i % 251) as u8);
        let frame = Frame::from_bytes(&source);
        assert_eq!(*bytes(&frame), source);
        assert_eq!(frame.cell(3, 7)[..], source[(3 * 80 + 7) * 24..][..24]);
        assert_eq!(frame.row(23)[..], source[23 * 1920..]);
        assert_eq!(frame.rows().len(), 24);
    }

    #[test]
    fn writing_does_not_change_a_frame_somebody_holds() {
        let mut pool = RowPool::new();
        let mut frame = pool.blank_frame();
        pool.write(&mut frame, 79, &[1; 48]);
        let held = frame.clone();
        pool.write(&mut frame, 80, &[2; 24]);
        assert_eq!(held.cell(1, 0), &[1; 24]);
        assert_eq!(frame.cell(1, 0), &[2; 24]);
        assert_eq!(frame.changed_rows(&held).collect::<Vec<_>>(), [1]);
        assert!(Arc::ptr_eq(&frame.rows[0], &held.rows[0]));
    }

    #[test]
    fn a_row_nobody_else_holds_is_written_in_place() {
        let mut pool = RowPool::new();
        let mut frame = pool.blank_frame();
        pool.write(&mut frame, 0, &[1; FRAME_BYTES]);
        let before: Vec<_> = frame.rows.iter().map(Arc::as_ptr).collect();
        pool.write(&mut frame, 0, &[2; FRAME_BYTES]);
        let after: Vec<_> = frame.rows.iter().map(Arc::as_ptr).collect();
        assert_eq!(before, after);
    }

    #[test]
    fn a_row_a_viewer_has_let_go_of_is_used_again_and_one_it_holds_is_not() {
        let mut pool = RowPool::new();
        let mut frame = pool.blank_frame();
        let mut viewer = Frame::blank();
        let mut rows = std::collections::BTreeSet::new();
        for fill in 0..100 {
            pool.write(&mut frame, 0, &[fill; CELL_BYTES]);
            viewer.follow(&frame);
            rows.insert(Arc::as_ptr(&frame.rows[0]));
        }
        assert!(rows.len() <= 3, "{}", rows.len());
        let kept: Vec<Frame> = (0..10)
            .map(|fill| {
                pool.write(&mut frame, 0, &[fill; CELL_BYTES]);
                frame.clone()
            })
            .collect();
        for (fill, frame) in (0..).zip(&kept) {
            assert_eq!(frame.cell(0, 0), &[fill; CELL_BYTES]);
        }
        assert!(pool.spare.len() <= HELD_SPARE_ROWS_MAX);
    }

    #[test]
    fn a_frame_follows_another_by_the_rows_that_differ() {
        let mut pool = RowPool::new();
        let mut frame = pool.blank_frame();
        pool.write(&mut frame, 0, &[1; FRAME_BYTES]);
        let mut viewer = Frame::blank();
        assert_eq!(viewer.follow(&frame), 0x00FF_FFFF);
        assert_eq!(viewer.follow(&frame), 0);
        pool.write(&mut frame, 3 * 80 + 79, &[2; 48]);
        assert_eq!(viewer.follow(&frame), 1 << 3 | 1 << 4);
        assert_eq!(viewer, frame);
        assert!(
            viewer
                .rows
                .iter()
                .zip(&frame.rows)
                .all(|(a, b)| Arc::ptr_eq(a, b))
        );
    }

    #[test]
    fn rows_that_are_let_go_are_used_again() {
        let mut pool = RowPool::new();
        let mut frame = pool.blank_frame();
        pool.write(&mut frame, 0, &[1; FRAME_BYTES]);
        pool.clear(&mut frame);
        assert_eq!(pool.spare.len(), 24);
        assert_eq!(*bytes(&frame), [0; FRAME_BYTES]);
        pool.write(&mut frame, 0, &[3; 24]);
        assert_eq!(pool.spare.len(), 23);
        assert_eq!(frame.cell(0, 0), &[3; 24]);
        assert_eq!(frame.cell(0, 1), &[0; 24]);
    }

    #[test]
    fn no_more_rows_are_kept_than_the_limit() {
        let mut pool = RowPool::new();
        for _ in 0..4 {
            let mut frame = Frame::from_bytes(&[9; FRAME_BYTES]);
            pool.clear(&mut frame);
        }
        assert_eq!(pool.spare.len(), SPARE_ROWS_MAX);
    }

    proptest! {
        #[test]
        fn any_writes_match_a_plain_array_and_every_held_frame_stays_as_it_was(
            writes in prop::collection::vec((0usize..1920, 1usize..400, any::<u8>(), any::<bool>()), 0..30),
        ) {
            let mut pool = RowPool::new();
            let mut frame = pool.blank_frame();
            let mut plain = Box::new([0u8; FRAME_BYTES]);
            let mut held = vec![];
            for (start, len, fill, hold) in writes {
                let len = len.min(1920 - start);
                pool.write(&mut frame, start, &vec![fill; len * 24]);
                plain[start * 24..(start + len) * 24].fill(fill);
                prop_assert_eq!(bytes(&frame), plain.clone());
                if hold {
                    held.push((frame.clone(), plain.clone()));
                }
            }
            for (frame, plain) in held {
                prop_assert_eq!(bytes(&frame), plain);
            }
        }
    }
}
