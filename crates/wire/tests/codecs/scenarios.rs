//! Six made-up games, frame by frame: what the delta encoder is measured on.

use cabinet_wire::cell::Cell;
use cabinet_wire::delta::Grid;
use cabinet_wire::{CELL_BYTES, COLS};

use super::support::spaces;

/// A name and the frames in order; each is drawn from a grid of spaces.
pub struct Scenario {
    pub name: &'static str,
    pub frames: usize,
    pub draw: fn(usize, &mut Grid),
}

pub const ALL: [Scenario; 6] = [
    Scenario {
        name: "static-idle",
        frames: 12,
        draw: static_idle,
    },
    Scenario {
        name: "cursor-blink",
        frames: 16,
        draw: cursor_blink,
    },
    Scenario {
        name: "scroll-row",
        frames: 20,
        draw: scroll_row,
    },
    Scenario {
        name: "grapheme-churn",
        frames: 20,
        draw: grapheme_churn,
    },
    Scenario {
        name: "half-screen",
        frames: 8,
        draw: half_screen,
    },
    Scenario {
        name: "worstcase-fullchange",
        frames: 5,
        draw: worst_case,
    },
];

impl Scenario {
    pub fn frame(&self, index: usize) -> Box<Grid> {
        let mut grid = spaces();
        (self.draw)(index, &mut grid);
        grid
    }
}

fn set(grid: &mut Grid, cell: usize, content: Cell) {
    content.write(&mut grid.as_chunks_mut::<CELL_BYTES>().0[cell]);
}

fn text(grid: &mut Grid, row: usize, col: usize, text: &str) {
    for (at, character) in text.chars().enumerate() {
        set(grid, row * COLS + col + at, Cell::of(character));
    }
}

fn static_idle(_frame: usize, grid: &mut Grid) {
    text(grid, 1, 2, "Waiting for players...");
}

fn cursor_blink(frame: usize, grid: &mut Grid) {
    text(grid, 12, 4, "> enter your name: ");
    if frame.is_multiple_of(2) {
        set(grid, 12 * COLS + 23, Cell::of('_'));
    }
}

fn scroll_row(frame: usize, grid: &mut Grid) {
    let message = b"the quick brown fox jumps over the lazy dog while the band plays on and on";
    text(grid, 0, 0, "STATUS");
    for col in 0..COLS {
        let character = char::from(message[(col + frame) % message.len()]);
        set(grid, 23 * COLS + col, Cell::of(character));
    }
}

fn grapheme_churn(frame: usize, grid: &mut Grid) {
    let bases = [
        '\u{261D}',
        '\u{270B}',
        '\u{1F44D}',
        '\u{1F44B}',
        '1',
        '2',
        '3',
        '#',
    ];
    text(
        grid,
        4,
        0,
        "grapheme churn: VS16 / skin-tone / keycap mutate per frame",
    );
    for column in 0..16 {
        let base = bases[(column + frame) % bases.len()];
        let third = match (column + frame) % 6 {
            _ if base.is_ascii() => 0x20E3,
            0 => 0,
            tone => 0x1F3FA + tone as u32,
        };
        let glyph = Cell {
            cp: [base as u32, 0xFE0F, third],
            ..Cell::default()
        };
        set(grid, 6 * COLS + 2 * column, glyph);
        let right = Cell {
            cont: true,
            ..Cell::of(' ')
        };
        set(grid, 6 * COLS + 2 * column + 1, right);
    }
}

fn half_screen(frame: usize, grid: &mut Grid) {
    for cell in 0..12 * COLS {
        let digit = (cell / COLS + cell % COLS + frame) % 10;
        set(grid, cell, Cell::of(char::from(b'0' + digit as u8)));
    }
}

fn worst_case(frame: usize, grid: &mut Grid) {
    for cell in grid.as_chunks_mut::<CELL_BYTES>().0 {
        Cell::of(if frame.is_multiple_of(2) { 'A' } else { 'B' }).write(cell);
    }
}
