//! A frame as people read it: 24 rows of text.

use cabinet_host::{Frame, frame_bytes};
use cabinet_wire::cell::Cell;
use cabinet_wire::{COLS, ROWS};

use crate::hash::{hex, sha256};
use crate::report::SeatShot;

/// What a seat saw.
pub(crate) fn seat_shot(seat: u16, frame: &Frame) -> SeatShot {
    SeatShot {
        seat,
        grid_sha256: hex(&sha256(frame_bytes(frame).as_slice())),
        rows: rows(frame),
    }
}

/// The glyphs of every row, trailing blanks cut.
fn rows(frame: &Frame) -> Vec<String> {
    let row = |row| {
        let cells = (0..COLS).map(|col| Cell::read(frame.cell(row, col)));
        let mut text: String = cells.filter(|cell| !cell.cont).map(|c| glyph(&c)).collect();
        text.truncate(text.trim_end_matches(' ').len());
        text
    };
    (0..ROWS).map(row).collect()
}

/// What a cell shows: a blank where nothing is drawn or a control character is, U+FFFD for what is
/// no character.
pub(crate) fn glyph(cell: &Cell) -> String {
    let [base, combining @ ..] = cell.cp.map(char::from_u32);
    let mut text = String::from(match base {
        Some(base) if base.is_control() => ' ',
        Some(base) => base,
        None => char::REPLACEMENT_CHARACTER,
    });
    // A code point of 0 ends the cluster.
    let drawn = combining.into_iter().map_while(|point| point);
    text.extend(drawn.take_while(|point| !point.is_control()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use cabinet_wire::{CELL_BYTES, FRAME_BYTES};

    #[test]
    fn a_grid_reads_as_its_glyphs_without_trailing_blanks() {
        let mut grid = [0; FRAME_BYTES];
        let right_half = Cell {
            cont: true,
            ..Cell::default()
        };
        let accented = Cell {
            cp: ['e' as u32, 0x301, 0],
            ..Cell::default()
        };
        let no_character = Cell {
            cp: [0x11_0000, 0x301, 0x11_0000],
            ..Cell::default()
        };
        for (at, cell) in [
            (0, Cell::of('a')),
            (2, Cell::of('中')),
            (3, right_half),
            (4, Cell::of('b')),
            (5, Cell::of('\u{7}')),
            (COLS, accented),
            (2 * COLS, no_character),
        ] {
            grid[at * CELL_BYTES..][..CELL_BYTES].copy_from_slice(&cell.to_bytes());
        }
        let rows = rows(&Frame::from_bytes(&grid));
        assert_eq!(rows.len(), 24);
        assert_eq!(rows[0], "a 中b");
        assert_eq!(rows[1], "e\u{301}");
        assert_eq!(rows[2], "\u{fffd}\u{301}");
        assert_eq!(rows[3], "");
    }
}
