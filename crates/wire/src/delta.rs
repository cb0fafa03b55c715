//! The frame container: the payload of `send` and `identical`.
//!
//! ```text
//! u8 flags (bit 0 keyframe) · u32 epoch · u16 runs · u8 24 · u8 80
//! runs × { u16 start · u16 cells · cells × 24 bytes }
//! ```
//!
//! A delta lists the runs of cells that differ from the last frame both sides agree on; a keyframe
//! stands alone. Encoders scan left to right and make every unbroken stretch of changed cells one
//! run. [`check`] is the host's gate: nothing is applied unless the whole container holds.
//!
//! ```
//! use cabinet_wire::{cell::Cell, delta, CELL_BYTES};
//!
//! // The game draws one letter and sends what changed.
//! let prev = delta::zeroed();
//! let mut next = prev.clone();
//! Cell::of('A').write(&mut next.as_chunks_mut::<CELL_BYTES>().0[81]);
//! let mut payload = Vec::new();
//! assert_eq!(delta::encode(&prev, &next, 0, &mut payload).changed_cells, 1);
//!
//! // The host brings its own copy up to date.
//! let mut slot = prev.clone();
//! delta::check(&payload)?.apply_to(&mut slot);
//! assert!(slot == next);
//! # Ok::<(), delta::DeltaError>(())
//! ```

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::reader::{Reader, Short};
use crate::writer::{put_u16, put_u32};
use crate::{
    CELL_BYTES, COLS, DELTA_BYTES_MAX, DELTA_HEADER_BYTES, FLAG_KEYFRAME, FRAME_BYTES, FRAME_CELLS,
    KEYFRAME_BYTES, ROWS,
};

/// A packed frame: 1920 cells of 24 bytes, row by row.
pub type Grid = [u8; FRAME_BYTES];

/// A grid of zeros, which shows as blank, on the heap.
#[must_use]
pub fn zeroed() -> Box<Grid> {
    let bytes: Box<[u8]> = vec![0; FRAME_BYTES].into_boxed_slice();
    match bytes.try_into() {
        Ok(grid) => grid,
        // The slice was made with exactly the array's length.
        Err(_) => unreachable!(),
    }
}

/// Reads and checks a container.
///
/// What the reference accepts is accepted: touching runs, runs that change nothing, and keyframes
/// that do not cover the grid ([`Container::covers_grid`] tells). Cell bytes are not looked at.
///
/// # Errors
///
/// [`DeltaError`] names the first rule broken. A host treats all of them alike: drop the frame and
/// ask for a keyframe.
pub fn check(bytes: &[u8]) -> Result<Container<'_>, DeltaError> {
    let mut reader = Reader::new(bytes);
    let flags = reader.u8()?;
    let epoch = reader.u32()?;
    let run_count = reader.u16()?;
    let rows = reader.u8()?;
    let cols = reader.u8()?;
    if flags & !FLAG_KEYFRAME != 0 {
        return Err(DeltaError::UnknownFlags(flags));
    }
    if usize::from(rows) != ROWS || usize::from(cols) != COLS {
        return Err(DeltaError::WrongSize { rows, cols });
    }
    let body = reader;
    let mut end = 0;
    for run in 0..run_count {
        let Run { start, cells } = read_run(&mut reader)?;
        let len = cells.len() / CELL_BYTES;
        if len == 0 {
            return Err(DeltaError::EmptyRun { run });
        }
        if start < end {
            return Err(DeltaError::OutOfOrder { run });
        }
        end = start + len;
        if end > FRAME_CELLS {
            return Err(DeltaError::OutOfGrid { run });
        }
    }
    if !reader.is_empty() {
        return Err(DeltaError::Trailing {
            bytes: reader.rest().len(),
        });
    }
    Ok(Container {
        flags,
        epoch,
        runs: Runs {
            count: run_count,
            body,
        },
    })
}

fn read_run<'a>(reader: &mut Reader<'a>) -> Result<Run<'a>, Short> {
    let start = usize::from(reader.u16()?);
    let len = usize::from(reader.u16()?);
    let cells = reader.bytes(len * CELL_BYTES)?;
    Ok(Run { start, cells })
}

/// A container that [`check`] found whole.
#[derive(Clone, Copy, Debug)]
pub struct Container<'a> {
    flags: u8,
    epoch: u32,
    runs: Runs<'a>,
}

impl<'a> Container<'a> {
    /// Whether it stands alone, whatever the receiver holds.
    #[must_use]
    pub const fn is_keyframe(&self) -> bool {
        self.flags & FLAG_KEYFRAME != 0
    }

    /// The epoch it was encoded against.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// How many runs there are.
    #[must_use]
    pub const fn run_count(&self) -> u16 {
        self.runs.count
    }

    /// The runs, left to right.
    #[must_use]
    pub const fn runs(&self) -> Runs<'a> {
        self.runs
    }

    /// Whether the runs write every cell of the grid.
    #[must_use]
    pub fn covers_grid(&self) -> bool {
        self.runs.map(|run| run.len()).sum::<usize>() == FRAME_CELLS
    }

    /// Copies every run into `grid`.
    pub fn apply_to(&self, grid: &mut Grid) {
        for Run { start, cells } in self.runs {
            let at = start * CELL_BYTES;
            grid[at..at + cells.len()].copy_from_slice(cells);
        }
    }
}

/// Consecutive cells to overwrite.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Run<'a> {
    /// The first cell: row × 80 + column.
    pub start: usize,
    /// The cells' bytes, 24 each.
    pub cells: &'a [u8],
}

// A run is never empty: `check` refuses it.
#[allow(clippy::len_without_is_empty)]
impl Run<'_> {
    /// How many cells, at least one.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.cells.len() / CELL_BYTES
    }
}

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Run {{ start: {}, len: {} }}", self.start, self.len())
    }
}

/// The runs of a container: an iterator that reads them from the payload.
#[derive(Clone, Copy, Debug)]
pub struct Runs<'a> {
    count: u16,
    body: Reader<'a>,
}

impl<'a> Iterator for Runs<'a> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        self.count = self.count.checked_sub(1)?;
        // `check` has read every run once, so this one is complete.
        read_run(&mut self.body).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = usize::from(self.count);
        (count, Some(count))
    }
}

impl ExactSizeIterator for Runs<'_> {}

/// What [`encode`] chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Cells that differ.
    pub changed_cells: usize,
    /// Whether a keyframe was written because a delta would have been no smaller.
    pub keyframe: bool,
}

/// Appends the delta from `prev` to `next`, or a keyframe when the delta would be no smaller (which
/// is when every cell changed).
pub fn encode(prev: &Grid, next: &Grid, epoch: u32, out: &mut Vec<u8>) -> Encoded {
    all_rows(prev, next, epoch, out).finish_or_keyframe(next)
}

/// Appends the delta from `prev` to `next` and returns how many cells differ. Without a difference
/// it is the nine bytes of the header.
pub fn encode_run_list(prev: &Grid, next: &Grid, epoch: u32, out: &mut Vec<u8>) -> usize {
    all_rows(prev, next, epoch, out).finish()
}

fn all_rows<'o>(prev: &Grid, next: &Grid, epoch: u32, out: &'o mut Vec<u8>) -> Encoder<'o> {
    let mut encoder = Encoder::new(epoch, out);
    let (old, _) = prev.as_chunks::<CELL_BYTES>();
    let (new, _) = next.as_chunks::<CELL_BYTES>();
    for (row, (old, new)) in old.chunks(COLS).zip(new.chunks(COLS)).enumerate() {
        encoder.row(row, old, new);
    }
    encoder
}

/// Appends a delta row by row, for who keeps frames as rows and knows of some that they are as they
/// were: those need not be compared.
///
/// Rows come from top to bottom. A row that is left out, and what is left out at a row's end, has
/// not changed.
///
/// ```
/// use cabinet_wire::{CELL_BYTES, delta};
///
/// let (prev, mut next) = (delta::zeroed(), delta::zeroed());
/// next[5 * 80 * CELL_BYTES] = b'!';
/// let cells = |grid: &delta::Grid| grid.as_chunks::<CELL_BYTES>().0[5 * 80..6 * 80].to_vec();
///
/// let (mut rows, mut whole) = (Vec::new(), Vec::new());
/// let mut encoder = delta::Encoder::new(1, &mut rows);
/// assert!(encoder.row(5, &cells(&prev), &cells(&next)));
/// assert_eq!(encoder.finish(), delta::encode_run_list(&prev, &next, 1, &mut whole));
/// assert_eq!(rows, whole);
/// ```
#[derive(Debug)]
pub struct Encoder<'o> {
    out: &'o mut Vec<u8>,
    epoch: u32,
    /// Where in `out` the container begins.
    head: usize,
    runs: u16,
    changed: usize,
    /// Where in `out` the last run begins, and the cell after it.
    last_run: (usize, usize),
}

impl<'o> Encoder<'o> {
    /// Begins a container at the end of `out`.
    pub fn new(epoch: u32, out: &'o mut Vec<u8>) -> Self {
        let head = out.len();
        put_header(0, epoch, 0, out);
        Self {
            out,
            epoch,
            head,
            runs: 0,
            changed: 0,
            last_run: (head, 0),
        }
    }

    /// Appends the cells of one row that differ; whether any do. `old` and `new` are the same number
    /// of cells from the row's first on, and the row lies below the one before.
    ///
    /// # Panics
    ///
    /// It may, when they are not the same number.
    pub fn row(&mut self, row: usize, old: &[[u8; CELL_BYTES]], new: &[[u8; CELL_BYTES]]) -> bool {
        let differs = first_difference(old, new);
        if let Some(first) = differs {
            self.put_changes(row, first, old, new);
        }
        differs.is_some()
    }

    /// Appends what differs in a row, of which the cells before `first` do not.
    ///
    /// Apart from [`row`](Encoder::row): most rows do not change, and a metered guest is charged for
    /// all of a function's code, run or not.
    #[inline(never)]
    fn put_changes(&mut self, row: usize, first: usize, old: &Cells, new: &Cells) {
        let mut start = first;
        loop {
            let len =
                position(&old[start..], &new[start..], |same| same).unwrap_or(new.len() - start);
            self.put_run(row * COLS + start, &new[start..start + len]);
            let at = start + len;
            match position(&old[at..], &new[at..], |same| !same) {
                Some(skipped) => start = at + skipped,
                None => return,
            }
        }
    }

    /// Ends the container and returns how many cells differ. Without a difference it is the nine
    /// bytes of the header.
    pub fn finish(self) -> usize {
        // The count stands where the header has it; runs are known only now.
        self.out[self.head + 5..self.head + 7].copy_from_slice(&self.runs.to_le_bytes());
        self.changed
    }

    /// Ends the container, or puts `next` in its place as a keyframe when that is no larger.
    pub fn finish_or_keyframe(self, next: &Grid) -> Encoded {
        let keyframe = self.out.len() - self.head >= DELTA_BYTES_MAX;
        if keyframe {
            self.out.truncate(self.head);
            encode_keyframe(next, self.epoch, self.out);
            return Encoded {
                changed_cells: self.changed,
                keyframe,
            };
        }
        Encoded {
            changed_cells: self.finish(),
            keyframe,
        }
    }

    /// Appends changed cells: to the last run when they go on where it ends, the row above.
    #[inline(never)]
    fn put_run(&mut self, start: usize, cells: &[[u8; CELL_BYTES]]) {
        let (at, end) = self.last_run;
        let after = start + cells.len();
        // Indexes and lengths fit: a grid has 1920 cells.
        if self.runs > 0 && end == start {
            let field = at + 2..at + 4;
            let len = (self.out.len() - at) / CELL_BYTES + cells.len();
            self.out[field].copy_from_slice(&(len as u16).to_le_bytes());
            self.last_run = (at, after);
        } else {
            self.last_run = (self.out.len(), after);
            put_run_header(start as u16, cells.len() as u16, self.out);
            self.runs += 1;
        }
        // Runs are short, and on wasm a copy whose length is known is far cheaper than another.
        for cell in cells {
            self.out.extend_from_slice(cell);
        }
        self.changed += cells.len();
    }
}

/// Appends `next` as a keyframe: 46093 bytes.
pub fn encode_keyframe(next: &Grid, epoch: u32, out: &mut Vec<u8>) {
    out.reserve(KEYFRAME_BYTES);
    put_header(FLAG_KEYFRAME, epoch, 1, out);
    put_run_header(0, FRAME_CELLS as u16, out);
    out.extend_from_slice(next);
}

fn put_header(flags: u8, epoch: u32, runs: u16, out: &mut Vec<u8>) {
    let mark = out.len();
    out.push(flags);
    put_u32(out, epoch);
    put_u16(out, runs);
    out.extend_from_slice(&[ROWS as u8, COLS as u8]);
    debug_assert_eq!(out.len() - mark, DELTA_HEADER_BYTES);
}

fn put_run_header(start: u16, len: u16, out: &mut Vec<u8>) {
    put_u16(out, start);
    put_u16(out, len);
}

type Cells = [[u8; CELL_BYTES]];

/// Cells that are compared at once while nothing differs.
const STRIDE: usize = 4;

/// The first index at which two cells differ.
fn first_difference(old: &Cells, new: &Cells) -> Option<usize> {
    let (old_strides, _) = old.as_chunks::<STRIDE>();
    let (new_strides, _) = new.as_chunks::<STRIDE>();
    let strides = old_strides.iter().zip(new_strides);
    let skipped = STRIDE * strides.take_while(|(old, new)| same(old, new)).count();
    let found = position(&old[skipped..], &new[skipped..], |same| !same)?;
    Some(skipped + found)
}

/// The first index at which `wanted` holds of whether the two cells are the same.
fn position(old: &Cells, new: &Cells, wanted: impl Fn(bool) -> bool) -> Option<usize> {
    old.iter()
        .zip(new)
        .position(|(old, new)| wanted(same(&[*old], &[*new])))
}

/// Compares as words: a call to `memcmp` for 24 bytes costs more than the comparison.
#[inline]
fn same<const N: usize>(old: &[[u8; CELL_BYTES]; N], new: &[[u8; CELL_BYTES]; N]) -> bool {
    let (old, _) = old.as_flattened().as_chunks::<8>();
    let (new, _) = new.as_flattened().as_chunks::<8>();
    old.iter().zip(new).fold(0, |differing, (old, new)| {
        differing | (u64::from_le_bytes(*old) ^ u64::from_le_bytes(*new))
    }) == 0
}

/// Why a container was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeltaError {
    /// The header or a run runs past the end of the payload.
    Short,
    /// Flag bits this revision does not assign.
    UnknownFlags(u8),
    /// A grid of another size.
    WrongSize {
        /// Rows named.
        rows: u8,
        /// Columns named.
        cols: u8,
    },
    /// A run without cells.
    EmptyRun {
        /// Which run.
        run: u16,
    },
    /// A run starts before the end of the one in front of it.
    OutOfOrder {
        /// Which run.
        run: u16,
    },
    /// A run ends past the grid.
    OutOfGrid {
        /// Which run.
        run: u16,
    },
    /// Bytes after the last run.
    Trailing {
        /// How many.
        bytes: usize,
    },
}

impl From<Short> for DeltaError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

impl fmt::Display for DeltaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("frame ends inside its header or a run"),
            Self::UnknownFlags(flags) => write!(f, "frame has unknown flags {flags:#04x}"),
            Self::WrongSize { rows, cols } => {
                write!(f, "frame is {rows}x{cols}, not {ROWS}x{COLS}")
            }
            Self::EmptyRun { run } => write!(f, "run {run} has no cells"),
            Self::OutOfOrder { run } => write!(f, "run {run} starts before the last one ends"),
            Self::OutOfGrid { run } => write!(f, "run {run} ends past the grid"),
            Self::Trailing { bytes } => write!(f, "{bytes} bytes follow the last run"),
        }
    }
}

impl core::error::Error for DeltaError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The container as the module's documentation has it, found cell by cell.
    fn plainly(prev: &Grid, next: &Grid, epoch: u32) -> Vec<u8> {
        let old = prev.as_chunks::<CELL_BYTES>().0;
        let new = next.as_chunks::<CELL_BYTES>().0;
        let changed: Vec<usize> = (0..FRAME_CELLS).filter(|&at| old[at] != new[at]).collect();
        let runs: Vec<&[usize]> = changed.chunk_by(|a, b| a + 1 == *b).collect();
        let mut out = Vec::new();
        put_header(0, epoch, runs.len() as u16, &mut out);
        for run in runs {
            put_run_header(run[0] as u16, run.len() as u16, &mut out);
            out.extend(run.iter().flat_map(|&at| new[at]));
        }
        out
    }

    /// Stretches of cells to change, some across the ends of rows.
    fn stretches() -> impl Strategy<Value = Vec<(usize, usize, usize)>> {
        let len = prop_oneof![1..4_usize, 1..200_usize];
        proptest::collection::vec((0..FRAME_CELLS, len, 0..CELL_BYTES), 0..12)
    }

    proptest! {
        #[test]
        fn rows_and_row_ends_that_did_not_change_may_be_left_out(stretches in stretches(), epoch: u32) {
            let prev = zeroed();
            let mut next = zeroed();
            for (start, len, byte) in stretches {
                for cell in start..(start + len).min(FRAME_CELLS) {
                    next[cell * CELL_BYTES + byte] ^= 1;
                }
            }
            let expected = plainly(&prev, &next, epoch);
            let mut whole = Vec::new();
            encode_run_list(&prev, &next, epoch, &mut whole);
            prop_assert_eq!(&whole, &expected);

            let mut rows = vec![0xAB; 3];
            let mut encoder = Encoder::new(epoch, &mut rows);
            let old = prev.as_chunks::<CELL_BYTES>().0.chunks(COLS);
            for (row, (old, new)) in old.zip(next.as_chunks::<CELL_BYTES>().0.chunks(COLS)).enumerate() {
                let differing = (0..COLS).rfind(|&col| old[col] != new[col]);
                let end = differing.map_or(0, |col| col + 1);
                if end > 0 {
                    prop_assert!(encoder.row(row, &old[..end], &new[..end]));
                }
            }
            encoder.finish();
            prop_assert_eq!(&rows[3..], &expected[..]);
        }
    }
}
