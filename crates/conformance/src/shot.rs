//! A frame as people read it: 24 rows of text.

use cabinet_host::{Frame, frame_bytes};
use cabinet_wire::{CELL_BYTES, COLS, FRAME_BYTES};

use crate::hash::{hex, sha256};
use crate::report::SeatShot;

/// Offset of a cell's continuation flag: the right half of a wide glyph.
const CELL_CONT: usize = 21;

/// What a seat saw.
pub(crate) fn seat_shot(seat: u16, frame: &Frame) -> SeatShot {
    let grid = frame_bytes(frame);
    SeatShot {
        seat,
        grid_sha256: hex(&sha256(grid.as_slice())),
        rows: rows(&grid),
    }
}

/// The glyphs of every row, trailing blanks cut; control characters read as blanks.
pub(crate) fn rows(grid: &[u8; FRAME_BYTES]) -> Vec<String> {
    grid.chunks_exact(CELL_BYTES * COLS)
        .map(|row| {
            let mut text = String::new();
            for cell in row.chunks_exact(CELL_BYTES) {
                if cell[CELL_CONT] != 1 {
                    glyph(cell, &mut text);
                }
            }
            text.truncate(text.trim_end_matches(' ').len());
            text
        })
        .collect()
}

fn glyph(cell: &[u8], text: &mut String) {
    let points = cell[..12]
        .chunks_exact(4)
        .filter_map(|point| point.try_into().ok());
    for (place, point) in points.map(u32::from_le_bytes).enumerate() {
        match char::from_u32(point) {
            Some(c) if !c.is_control() => text.push(c),
            // A code point of 0 ends the cluster; alone it is an undrawn cell.
            _ if place == 0 => text.push(' '),
            _ => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_reads_as_its_glyphs_without_trailing_blanks() {
        let mut grid = Box::new([0; FRAME_BYTES]);
        grid[0] = b'a';
        grid[CELL_BYTES * 2..CELL_BYTES * 2 + 4].copy_from_slice(&0x4e2d_u32.to_le_bytes());
        grid[CELL_BYTES * 3 + CELL_CONT] = 1;
        grid[CELL_BYTES * 4] = b'b';
        grid[CELL_BYTES * 5] = 7;
        grid[CELL_BYTES * COLS] = b'e';
        grid[CELL_BYTES * COLS + 4..CELL_BYTES * COLS + 8]
            .copy_from_slice(&0x301_u32.to_le_bytes());
        let rows = rows(&grid);
        assert_eq!(rows.len(), 24);
        assert_eq!(rows[0], "a 中b");
        assert_eq!(rows[1], "e\u{301}");
        assert_eq!(rows[2], "");
    }
}
