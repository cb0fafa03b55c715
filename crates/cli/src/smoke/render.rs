//! A frame as the two shot files hold it: with ANSI colours, and as text.
//!
//! The bytes are the reference kit's. What it would pass through and a terminal obey is replaced:
//! a base that is DEL or a C1 control shows as a blank, such a combining code point as U+FFFD.

use std::fmt::Write as _;

use cabinet_host::Frame;
use cabinet_wire::cell::{ATTR_BOLD, ATTR_DIM, ATTR_REVERSE, ATTR_UNDERLINE, Cell};
use cabinet_wire::{COLS, ROWS};

/// 24 lines with their line ends; a style is written where it changes and reset at the end of a row.
#[must_use]
pub fn ansi(frame: &Frame) -> String {
    let mut out = String::new();
    for row in 0..ROWS {
        let mut style = None;
        for cell in cells(frame, row).filter(|cell| !cell.cont) {
            let wanted = Style::of(&cell);
            if style != Some(wanted) {
                wanted.write(&mut out);
                style = Some(wanted);
            }
            push_glyph(&cell, &mut out);
        }
        out.push_str("\x1b[0m\n");
    }
    out
}

/// 24 lines with their line ends, blanks at the end of a row left out.
#[must_use]
pub fn text(frame: &Frame) -> String {
    let mut out = String::new();
    for row in 0..ROWS {
        let mut line: Vec<Cell> = cells(frame, row).collect();
        while line.last().is_some_and(is_trimmed) {
            line.pop();
        }
        for cell in line.iter().filter(|cell| !cell.cont) {
            push_glyph(cell, &mut out);
        }
        out.push('\n');
    }
    out
}

/// The cells of a row.
pub(super) fn cells(frame: &Frame, row: usize) -> impl Iterator<Item = Cell> {
    (0..COLS).map(move |col| Cell::read(frame.cell(row, col)))
}

/// What shows where a cell is, without its colours.
pub(super) fn glyph(cell: &Cell) -> String {
    let mut glyph = String::new();
    push_glyph(cell, &mut glyph);
    glyph
}

fn is_trimmed(cell: &Cell) -> bool {
    let blank = matches!(cell.cp[0], 0 | 0x20) && cell.cp[1] == 0;
    cell.cont || blank
}

fn push_glyph(cell: &Cell, out: &mut String) {
    let [base, second, third] = cell.cp;
    out.push(match char::from_u32(base) {
        Some(base) if base.is_control() => ' ',
        Some(base) => base,
        // A code point is a signed number to the reference, and all below 0x20 are blanks.
        None if base > i32::MAX as u32 => ' ',
        None => char::REPLACEMENT_CHARACTER,
    });
    // The third belongs to the second: without one there is no cluster.
    let combining = match (second, third) {
        (0, _) => &[][..],
        (_, 0) => &[second][..],
        _ => &[second, third][..],
    };
    out.extend(combining.iter().map(|point| {
        let point = char::from_u32(*point).filter(|c| !c.is_control());
        point.unwrap_or(char::REPLACEMENT_CHARACTER)
    }));
}

/// What the glyph of a cell looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Style {
    /// Known `ATTR_*` bits.
    pub attr: u8,
    pub fg: Option<[u8; 3]>,
    pub bg: Option<[u8; 3]>,
}

/// Attribute bits and their SGR codes, in the order they are written.
pub(super) const ATTRS: [(u8, u8, &str); 4] = [
    (ATTR_BOLD, 1, "bold"),
    (ATTR_DIM, 2, "dim"),
    (ATTR_UNDERLINE, 4, "underline"),
    (ATTR_REVERSE, 7, "reverse"),
];

impl Style {
    pub(super) fn of(cell: &Cell) -> Self {
        let known = ATTR_BOLD | ATTR_DIM | ATTR_UNDERLINE | ATTR_REVERSE;
        Self {
            attr: cell.attr & known,
            fg: cell.fg,
            bg: cell.bg,
        }
    }

    fn write(self, out: &mut String) {
        out.push_str("\x1b[0");
        // Writing to a string does not fail.
        for (_, code, _) in ATTRS.iter().filter(|(bit, ..)| self.attr & bit != 0) {
            let _ = write!(out, ";{code}");
        }
        for (code, colour) in [(38, self.fg), (48, self.bg)] {
            if let Some([r, g, b]) = colour {
                let _ = write!(out, ";{code};2;{r};{g};{b}");
            }
        }
        out.push('m');
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use cabinet_wire::{CELL_BYTES, FRAME_BYTES};

    pub(in crate::smoke) fn frame(cells: &[(usize, usize, Cell)]) -> Frame {
        let mut grid = [0; FRAME_BYTES];
        for (row, col, cell) in cells {
            let at = (row * COLS + col) * CELL_BYTES;
            grid[at..at + CELL_BYTES].copy_from_slice(&cell.to_bytes());
        }
        Frame::from_bytes(&grid)
    }

    fn cluster(points: [char; 3]) -> Cell {
        Cell {
            cp: points.map(u32::from),
            ..Cell::default()
        }
    }

    #[test]
    fn ansi_has_styles_where_they_change_and_a_reset_on_every_line() {
        let warning = |c| Cell {
            fg: Some([255, 0, 0]),
            attr: ATTR_BOLD | 0x80,
            ..Cell::of(c)
        };
        let all = Cell {
            fg: Some([1, 2, 3]),
            bg: Some([4, 5, 6]),
            attr: 0xff,
            ..Cell::of('x')
        };
        let out = ansi(&frame(&[
            (0, 0, warning('h')),
            (0, 1, warning('i')),
            (1, 79, all),
        ]));
        let lines: Vec<&str> = out.split('\n').collect();
        assert_eq!((lines.len(), lines[24]), (25, ""));
        let blanks = |count| " ".repeat(count);
        assert_eq!(
            lines[0],
            format!("\x1b[0;1;38;2;255;0;0mhi\x1b[0m{}\x1b[0m", blanks(78))
        );
        let styled = "\x1b[0;1;2;4;7;38;2;1;2;3;48;2;4;5;6mx\x1b[0m";
        assert_eq!(lines[1], format!("\x1b[0m{}{styled}", blanks(79)));
        for line in &lines[2..24] {
            assert_eq!(*line, format!("\x1b[0m{}\x1b[0m", blanks(80)));
        }
    }

    #[test]
    fn a_cluster_is_written_unbroken() {
        let heart = cluster(['❤', '\u{fe0f}', '\0']);
        let out = ansi(&frame(&[(2, 4, heart)]));
        assert_eq!(
            out.split('\n').nth(2).unwrap(),
            format!("\x1b[0m    ❤\u{fe0f}{}\x1b[0m", " ".repeat(75))
        );
    }

    #[test]
    fn the_right_half_of_a_wide_glyph_writes_nothing() {
        let right = Cell {
            cont: true,
            ..Cell::default()
        };
        let out = ansi(&frame(&[(0, 0, Cell::of('個')), (0, 1, right)]));
        let line = out.split('\n').next().unwrap();
        assert_eq!(line, format!("\x1b[0m個{}\x1b[0m", " ".repeat(78)));
    }

    #[test]
    fn text_is_trimmed_and_keeps_clusters() {
        let keycap = cluster(['7', '\u{fe0f}', '\u{20e3}']);
        let mut cells: Vec<(usize, usize, Cell)> = "score"
            .chars()
            .enumerate()
            .map(|(col, c)| (0, col, Cell::of(c)))
            .collect();
        cells.push((0, 6, keycap));
        cells.push((0, 7, Cell::of(' ')));
        // Not blank to the reference, though it shows as one.
        cells.push((1, 2, Cell::of('\u{1}')));
        let out = text(&frame(&cells));
        let lines: Vec<&str> = out.split('\n').collect();
        assert_eq!(
            (lines.len(), lines[0], lines[1]),
            (25, "score 7\u{fe0f}\u{20e3}", "   ")
        );
        assert!(lines[2..].iter().all(|line| line.is_empty()));
    }

    #[test]
    fn nothing_a_terminal_obeys_gets_through() {
        let bad = |cp| Cell {
            cp,
            ..Cell::default()
        };
        let out = text(&frame(&[
            (0, 0, bad([0x1b, 0, 0])),
            (0, 1, bad([0x9b, 0, 0])),
            (0, 2, bad([0x7f, 0, 0])),
            (0, 3, bad([u32::from('e'), 0x1b, 0x9b])),
            (0, 4, bad([u32::from('f'), 0, 0x301])),
            (0, 5, bad([0xd800, 0, 0])),
            (0, 6, bad([0x8000_0000, 0, 0])),
            (0, 7, Cell::of('|')),
        ]));
        assert_eq!(
            out.lines().next().unwrap(),
            "   e\u{fffd}\u{fffd}f\u{fffd} |"
        );
    }
}
