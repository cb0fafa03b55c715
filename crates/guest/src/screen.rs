//! The drawing surface: 24 rows of 80 cells, kept as the bytes the wire carries.
//!
//! Invariants
//! - every cell is canonical: unused code points, unset colours and padding are zero, so that two
//!   screens that look alike are the same bytes;
//! - right of what was drawn since it was last cleared, a row is blank: nobody looks there or clears
//!   there again;
//! - a wide glyph is a base cell followed by its continuation cell; overwriting one half blanks the
//!   other, so no half is ever left alone.
//!
//! Rows and columns are signed and count from 0 at the top left; whatever falls outside is clipped.

use core::fmt;

use cabinet_wire::cell::Cell;
use cabinet_wire::delta::{self, Grid};
use cabinet_wire::{CELL_BYTES, COLS, ROW_BYTES, ROWS};

use crate::cluster::{Cluster, single, text_width};
use crate::pen::Pen;
use crate::style::{Ink, Style};

const LAST_ROW: i32 = ROWS as i32 - 1;
pub(crate) const RIGHT: i32 = COLS as i32;
pub(crate) const SPACE: u32 = 0x20;

/// A rectangle of cells. Its far edges are `row + rows` and `col + cols`, both outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rect {
    /// First row.
    pub row: i32,
    /// First column.
    pub col: i32,
    /// Height; nothing is drawn at 0 or below.
    pub rows: i32,
    /// Width; nothing is drawn at 0 or below.
    pub cols: i32,
}

impl Rect {
    /// The whole screen.
    pub const SCREEN: Rect = Rect::new(0, 0, ROWS as i32, COLS as i32);

    /// A rectangle from its top left cell and its size.
    pub const fn new(row: i32, col: i32, rows: i32, cols: i32) -> Rect {
        Rect {
            row,
            col,
            rows,
            cols,
        }
    }

    /// A rectangle of this size in the middle of `self`, rounded up and left.
    pub const fn centered(self, rows: i32, cols: i32) -> Rect {
        let row = self.row.saturating_add(self.rows.saturating_sub(rows) / 2);
        let col = self.col.saturating_add(self.cols.saturating_sub(cols) / 2);
        Rect::new(row, col, rows, cols)
    }

    /// What is left inside a margin of `cells` on all four sides.
    pub const fn inset(self, cells: i32) -> Rect {
        let both = cells.saturating_mul(2);
        Rect::new(
            self.row.saturating_add(cells),
            self.col.saturating_add(cells),
            self.rows.saturating_sub(both),
            self.cols.saturating_sub(both),
        )
    }

    /// The first row below.
    pub const fn row_end(self) -> i32 {
        self.row.saturating_add(self.rows)
    }

    /// The first column to the right.
    pub const fn col_end(self) -> i32 {
        self.col.saturating_add(self.cols)
    }

    /// Whether the cell lies inside.
    pub const fn contains(self, row: i32, col: i32) -> bool {
        row >= self.row && row < self.row_end() && col >= self.col && col < self.col_end()
    }
}

/// The line a box is drawn with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Border {
    /// `┌─┐│└┘`
    #[default]
    Single,
    /// `╭─╮│╰╯`
    Round,
    /// `╔═╗║╚╝`
    Double,
    /// `┏━┓┃┗┛`
    Heavy,
    /// `+-+|++`, for viewers without line drawing.
    Ascii,
}

impl Border {
    /// Top left, horizontal, top right, vertical, bottom left, bottom right.
    const fn glyphs(self) -> [char; 6] {
        match self {
            Border::Single => ['┌', '─', '┐', '│', '└', '┘'],
            Border::Round => ['╭', '─', '╮', '│', '╰', '╯'],
            Border::Double => ['╔', '═', '╗', '║', '╚', '╝'],
            Border::Heavy => ['┏', '━', '┓', '┃', '┗', '┛'],
            Border::Ascii => ['+', '-', '+', '|', '+', '+'],
        }
    }
}

/// A frame being drawn: the one [`Room::draw`](crate::Room::draw) hands out, or one a game keeps for
/// [`Room::show`](crate::Room::show). Making one allocates, drawing does not.
///
/// ```
/// use cabinet_guest::{Border, Color, Rect, Screen, Style};
/// use std::fmt::Write;
///
/// let mut screen = Screen::new();
/// screen.border(Rect::SCREEN.centered(5, 30), Border::Round, Style::new());
/// screen.text_center(11, "Dragon's hoard 🐉", Color::YELLOW);
/// let score = 1200;
/// write!(screen.pen(12, 27, Style::new().bold()), "{score:>8} points").ok();
/// assert_eq!(screen.row_text(12).trim(), "│     1200 points            │");
/// ```
#[derive(Clone)]
pub struct Screen {
    grid: Box<Grid>,
    /// By row, the column from which on it is blank.
    ends: [u8; ROWS],
}

type CellBytes = [u8; CELL_BYTES];

/// A row of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub bytes: &'a [u8; ROW_BYTES],
    /// The column from which on it is blank.
    pub end: u8,
}

impl<'a> Row<'a> {
    /// Its first cells.
    pub fn cells(self, columns: u8) -> &'a [CellBytes] {
        &self.bytes.as_chunks().0[..usize::from(columns)]
    }

    /// Whether two rows show the same. Compared word by word: on wasm the library compares slices
    /// byte by byte.
    pub fn shows(self, other: Row<'_>) -> bool {
        let words = usize::from(self.end.max(other.end)) * (CELL_BYTES / 8);
        let ours = &self.bytes.as_chunks::<8>().0[..words];
        let theirs = &other.bytes.as_chunks::<8>().0[..words];
        let same = |(a, b): (&[u8; 8], &[u8; 8])| u64::from_le_bytes(*a) == u64::from_le_bytes(*b);
        ours.iter().zip(theirs).all(same)
    }
}

impl Screen {
    /// A blank screen: spaces in the viewer's own colours.
    pub fn new() -> Screen {
        let mut screen = Screen {
            grid: delta::zeroed(),
            ends: [COLS as u8; ROWS],
        };
        screen.clear();
        screen
    }

    /// Blanks every cell.
    pub fn clear(&mut self) {
        let rows = self.grid.as_chunks_mut::<ROW_BYTES>().0;
        for (row, end) in rows.iter_mut().zip(&mut self.ends) {
            if *end > 0 {
                let bytes = usize::from(*end) * CELL_BYTES;
                row[..bytes].copy_from_slice(&BLANK_ROW.as_flattened()[..bytes]);
                *end = 0;
            }
        }
    }

    /// Draws one code point and returns the column after it, or `col` when nothing was drawn:
    /// outside the screen, a control character or a mark, a wide glyph with no column to its right.
    pub fn set(&mut self, row: i32, col: i32, ch: char, style: impl Into<Style>) -> i32 {
        let width = crate::width::char_width(ch);
        let cluster = Cluster {
            cp: [u32::from(ch), 0, 0],
            width,
        };
        if width > 0 && self.place(row, col, cluster, Ink::from(style.into())) {
            col + i32::from(width)
        } else {
            col
        }
    }

    /// Draws one glyph of up to three code points (`"é"`, `"👍🏽"`, `"🇳🇱"`) and returns the column after
    /// it, or `col` when nothing was drawn: as for [`set`](Screen::set), or `glyph` is not exactly
    /// one glyph that fits a cell.
    pub fn glyph(&mut self, row: i32, col: i32, glyph: &str, style: impl Into<Style>) -> i32 {
        match single(glyph) {
            Some(cluster) if self.place(row, col, cluster, Ink::from(style.into())) => {
                col + i32::from(cluster.width)
            }
            _ => col,
        }
    }

    /// Draws one glyph over two columns whatever its width is believed to be, and returns the column
    /// after it, or `col` when nothing was drawn.
    pub fn put_wide(&mut self, row: i32, col: i32, glyph: &str, style: impl Into<Style>) -> i32 {
        match single(glyph) {
            Some(cluster)
                if self.place(
                    row,
                    col,
                    Cluster {
                        width: 2,
                        ..cluster
                    },
                    Ink::from(style.into()),
                ) =>
            {
                col + 2
            }
            _ => col,
        }
    }

    /// Draws text and returns the column after it. See [`Pen`] for what happens to marks, wide
    /// glyphs, newlines and the edge.
    pub fn text(&mut self, row: i32, col: i32, text: &str, style: impl Into<Style>) -> i32 {
        let mut pen = self.pen(row, col, style);
        pen.push_str(text);
        pen.col()
    }

    /// Draws text that ends before column `end` and returns the column it began in.
    pub fn text_right(&mut self, row: i32, end: i32, text: &str, style: impl Into<Style>) -> i32 {
        let col = end.saturating_sub(text_width(text));
        self.text(row, col, text, style);
        col
    }

    /// Draws text in the middle of the row and returns the column it began in.
    pub fn text_center(&mut self, row: i32, text: &str, style: impl Into<Style>) -> i32 {
        self.text_center_in(Rect::SCREEN, row, text, style)
    }

    /// Draws text in the middle of the rectangle's columns and returns the column it began in. The
    /// row is the screen's.
    pub fn text_center_in(
        &mut self,
        rect: Rect,
        row: i32,
        text: &str,
        style: impl Into<Style>,
    ) -> i32 {
        let spare = rect.cols.saturating_sub(text_width(text));
        let col = rect.col.saturating_add(spare.div_euclid(2));
        self.text(row, col, text, style);
        col
    }

    /// Draws text into exactly `cols` columns: what is too long ends in `…`, what is short is padded
    /// with spaces.
    pub fn text_fit(&mut self, row: i32, col: i32, cols: i32, text: &str, style: impl Into<Style>) {
        let style = style.into();
        self.fill(Rect::new(row, col, 1, cols), ' ', style);
        if text_width(text) <= cols {
            self.text(row, col, text, style);
        } else if cols > 0 {
            let mut pen = self
                .pen(row, col, style)
                .until(col.saturating_add(cols) - 1);
            pen.push_str(text);
            let end = pen.drawn_to();
            self.set(row, end, '…', style);
        }
    }

    /// A pen at this cell, for `write!` without an allocation.
    pub fn pen(&mut self, row: i32, col: i32, style: impl Into<Style>) -> Pen<'_> {
        Pen::new(self, row, col, style.into())
    }

    /// Fills the rectangle with a glyph. A wide one fills pairs of columns and leaves an odd last
    /// column blank; a control character or a mark fills with spaces.
    pub fn fill(&mut self, rect: Rect, ch: char, style: impl Into<Style>) {
        let ink = Ink::from(style.into());
        let width = crate::width::char_width(ch);
        let (cp, width) = if width == 0 {
            (SPACE, 1)
        } else {
            (u32::from(ch), i32::from(width))
        };
        let rows = rect.row.max(0)..rect.row_end().min(LAST_ROW + 1);
        let (first, end) = (rect.col.max(0), rect.col_end().min(RIGHT));
        if first >= end {
            return;
        }
        for row in rows {
            if width == 1 {
                let words = packed([cp, 0, 0], ink);
                // Both columns are on the screen.
                for slot in self.claim(row, first as usize, end as usize) {
                    store(slot, words);
                }
            } else {
                self.fill_row_wide(row, first, end, cp, ink);
            }
        }
    }

    fn fill_row_wide(&mut self, row: i32, first: i32, end: i32, cp: u32, ink: Ink) {
        let mut col = first;
        while col < end {
            let (cp, width) = if col + 2 <= end { (cp, 2) } else { (SPACE, 1) };
            let cluster = Cluster {
                cp: [cp, 0, 0],
                width,
            };
            self.place(row, col, cluster, ink);
            col += i32::from(width);
        }
    }

    /// Draws the outline of the rectangle; its inside is left alone. Nothing below 2 by 2 cells.
    pub fn border(&mut self, rect: Rect, border: Border, style: impl Into<Style>) {
        if rect.rows < 2 || rect.cols < 2 {
            return;
        }
        let style = style.into();
        let [top_left, across, top_right, down, bottom_left, bottom_right] = border.glyphs();
        let (bottom, right) = (rect.row_end() - 1, rect.col_end() - 1);
        for row in [rect.row, bottom] {
            self.fill(Rect::new(row, rect.col, 1, rect.cols), across, style);
        }
        for col in [rect.col, right] {
            self.fill(Rect::new(rect.row, col, rect.rows, 1), down, style);
        }
        self.set(rect.row, rect.col, top_left, style);
        self.set(rect.row, right, top_right, style);
        self.set(bottom, rect.col, bottom_left, style);
        self.set(bottom, right, bottom_right, style);
    }

    /// Gives cells another style and leaves their glyphs.
    pub fn restyle(&mut self, rect: Rect, style: impl Into<Style>) {
        let ink = Ink::from(style.into());
        let (first, end) = (rect.col.max(0), rect.col_end().min(RIGHT));
        if first >= end {
            return;
        }
        for row in rect.row.max(0)..rect.row_end().min(LAST_ROW + 1) {
            // Nothing is torn apart: every cell keeps its glyph.
            for slot in &mut self.reach(row, end as usize)[first as usize..end as usize] {
                let words = if is_continuation(slot) {
                    continuation(ink)
                } else {
                    packed(Cell::read(slot).cp, ink)
                };
                store(slot, words);
            }
        }
    }

    /// The cell there, or `None` outside the screen.
    pub fn cell(&self, row: i32, col: i32) -> Option<Cell> {
        on_screen(row, col).then(|| self.read(cell_index(row, col)))
    }

    /// The row as text: blanks as spaces, wide glyphs once. Empty outside the screen.
    pub fn row_text(&self, row: i32) -> String {
        let mut text = String::new();
        for col in 0..RIGHT {
            match self.cell(row, col) {
                Some(cell) if !cell.cont => push_cell(&mut text, &cell),
                _ => {}
            }
        }
        text
    }

    /// The frame as the wire carries it.
    pub fn bytes(&self) -> &[u8; cabinet_wire::FRAME_BYTES] {
        &self.grid
    }

    /// A row, which is on the screen.
    pub(crate) fn row(&self, row: usize) -> Row<'_> {
        Row {
            bytes: &self.grid.as_chunks().0[row],
            end: self.ends[row],
        }
    }

    /// A screen that shows these bytes, as they are.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn from_bytes(bytes: &Grid) -> Screen {
        let mut grid = delta::zeroed();
        grid.copy_from_slice(bytes);
        Screen {
            grid,
            ends: [COLS as u8; ROWS],
        }
    }

    /// Writes the cluster if all of it is on the screen; whether it did.
    pub(crate) fn place(&mut self, row: i32, col: i32, cluster: Cluster, ink: Ink) -> bool {
        let width = i32::from(cluster.width);
        if !on_screen(row, col) || col + width > RIGHT {
            return false;
        }
        let words = packed(cluster.cp, ink);
        // Both columns are on the screen.
        let cells = self.claim(row, col as usize, (col + width) as usize);
        if let [base, half @ ..] = cells {
            store(base, words);
            if let [half] = half {
                store(half, continuation(ink));
            }
        }
        true
    }

    /// Writes printable ASCII, at least one byte, from a column on whose row has room for it all;
    /// whether the row is on the screen.
    pub(crate) fn place_plain(&mut self, row: i32, col: i32, text: &[u8], ink: Ink) -> bool {
        if !on_screen(row, col) {
            return false;
        }
        let col = col as usize;
        for (slot, &byte) in self.claim(row, col, col + text.len()).iter_mut().zip(text) {
            store(slot, [u64::from(byte), ink.middle, ink.last]);
        }
        true
    }

    /// The cells of a row from one column to before another, to be overwritten: what would be left
    /// of a wide glyph on either side is blank now.
    fn claim(&mut self, row: i32, from: usize, to: usize) -> &mut [CellBytes] {
        let cells = self.reach(row, to);
        if from > 0 && is_continuation(&cells[from]) {
            blank(&mut cells[from - 1]);
        }
        if to < COLS && is_continuation(&cells[to]) {
            blank(&mut cells[to]);
        }
        &mut cells[from..to]
    }

    /// The cells of a row, some of them before column `to` no longer blank.
    fn reach(&mut self, row: i32, to: usize) -> &mut [CellBytes; COLS] {
        let row = row as usize;
        self.ends[row] = self.ends[row].max(to as u8);
        &mut self.grid.as_chunks_mut().0.as_chunks_mut().0[row]
    }

    fn read(&self, index: usize) -> Cell {
        match self.grid[index * CELL_BYTES..].first_chunk() {
            Some(slot) => Cell::read(slot),
            None => Cell::default(),
        }
    }
}

/// Equal when they show the same.
impl PartialEq for Screen {
    fn eq(&self, other: &Screen) -> bool {
        self.grid == other.grid
    }
}

impl Eq for Screen {}

impl Default for Screen {
    fn default() -> Screen {
        Screen::new()
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Screen")?;
        for row in 0..=LAST_ROW {
            writeln!(f, "{:2}|{}", row, self.row_text(row).trim_end())?;
        }
        Ok(())
    }
}

/// A space in the viewer's own colours.
const BLANK_CELL: CellBytes = {
    let mut cell = [0; CELL_BYTES];
    cell[0] = SPACE as u8;
    cell
};

static BLANK_ROW: [CellBytes; COLS] = [BLANK_CELL; COLS];

/// The bytes that [`Cell::write`] writes, as the words a cell is stored in.
fn packed(cp: [u32; 3], ink: Ink) -> [u64; 3] {
    let [first, second, third] = cp.map(u64::from);
    [first | second << 32, third | ink.middle, ink.last]
}

/// The right half of a wide glyph, in the same form.
const fn continuation(ink: Ink) -> [u64; 3] {
    [0, ink.middle, ink.last | 1 << 40]
}

fn store(slot: &mut CellBytes, words: [u64; 3]) {
    if let [first, middle, last] = slot.as_chunks_mut::<8>().0 {
        *first = words[0].to_le_bytes();
        *middle = words[1].to_le_bytes();
        *last = words[2].to_le_bytes();
    }
}

fn is_continuation(cell: &CellBytes) -> bool {
    cell[21] != 0
}

/// A space in the cell's own style.
#[cold]
fn blank(cell: &mut CellBytes) {
    cell[..12].copy_from_slice(&BLANK_CELL[..12]);
    cell[21] = 0;
}

fn on_screen(row: i32, col: i32) -> bool {
    Rect::SCREEN.contains(row, col)
}

/// The index of a cell that is on the screen.
fn cell_index(row: i32, col: i32) -> usize {
    row as usize * COLS + col as usize
}

fn push_cell(text: &mut String, cell: &Cell) {
    if cell.cp[0] < SPACE {
        text.push(' ');
        return;
    }
    for cp in cell.cp.into_iter().take_while(|cp| *cp != 0) {
        text.push(char::from_u32(cp).unwrap_or(char::REPLACEMENT_CHARACTER));
    }
}

#[cfg(test)]
mod tests;
