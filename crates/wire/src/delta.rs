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
    let mark = out.len();
    let changed_cells = encode_run_list(prev, next, epoch, out);
    let keyframe = out.len() - mark >= DELTA_BYTES_MAX;
    if keyframe {
        out.truncate(mark);
        encode_keyframe(next, epoch, out);
    }
    Encoded {
        changed_cells,
        keyframe,
    }
}

/// Appends the delta from `prev` to `next` and returns how many cells differ. Without a difference
/// it is the nine bytes of the header.
pub fn encode_run_list(prev: &Grid, next: &Grid, epoch: u32, out: &mut Vec<u8>) -> usize {
    let head = out.len();
    put_header(0, epoch, 0, out);
    let (old, _) = prev.as_chunks::<CELL_BYTES>();
    let (new, _) = next.as_chunks::<CELL_BYTES>();
    let (mut runs, mut changed, mut at) = (0u16, 0, 0);
    while let Some(skipped) = position(&old[at..], &new[at..], |same| !same) {
        let start = at + skipped;
        let len =
            position(&old[start..], &new[start..], |same| same).unwrap_or(FRAME_CELLS - start);
        // Both fit: a grid has 1920 cells.
        put_run_header(start as u16, len as u16, out);
        out.extend_from_slice(new[start..start + len].as_flattened());
        runs += 1;
        changed += len;
        at = start + len;
    }
    // The count stands where the header has it; runs are known only now.
    out[head + 5..head + 7].copy_from_slice(&runs.to_le_bytes());
    changed
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

/// The first index at which `wanted` holds of whether the two cells are the same.
fn position(old: &Cells, new: &Cells, wanted: impl Fn(bool) -> bool) -> Option<usize> {
    old.iter()
        .zip(new)
        .position(|(old, new)| wanted(same(old, new)))
}

/// Compares as three words: a call to `memcmp` for 24 bytes costs more than the comparison.
#[inline]
fn same(old: &[u8; CELL_BYTES], new: &[u8; CELL_BYTES]) -> bool {
    let (old, _) = old.as_chunks::<8>();
    let (new, _) = new.as_chunks::<8>();
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
