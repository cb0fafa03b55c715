//! Cells: canonical zero, and reading whatever a guest wrote.

use cabinet_wire::cell::{ATTR_BOLD, ATTR_DIM, ATTR_REVERSE, ATTR_UNDERLINE, Cell};
use cabinet_wire::{CELL_BYTES, FRAME_BYTES, delta};
use proptest::prelude::*;

const STYLED: Cell = Cell {
    cp: [0x261D, 0x1F3FB, 0xFE0F],
    fg: Some([1, 2, 3]),
    bg: Some([0, 0, 0]),
    attr: ATTR_BOLD | ATTR_REVERSE,
    cont: true,
};

#[test]
fn a_cell_inside_a_grid_reads_back_and_touches_no_neighbour() {
    let mut grid = delta::zeroed();
    assert_eq!(grid.len(), FRAME_BYTES);
    grid.fill(0xAA);
    let (cells, rest) = grid.as_chunks_mut::<CELL_BYTES>();
    assert!(rest.is_empty());
    STYLED.write(&mut cells[1234]);
    assert_eq!(Cell::read(&cells[1234]), STYLED);
    assert_eq!(cells[1234][22..], [0, 0], "padding is zero");
    assert_eq!(cells[1233], [0xAA; CELL_BYTES]);
    assert_eq!(cells[1235], [0xAA; CELL_BYTES]);
}

#[test]
fn what_is_unused_is_zero() {
    assert_eq!(Cell::default().to_bytes(), [0; CELL_BYTES]);
    let mut letter = [0; CELL_BYTES];
    letter[0] = b'A';
    assert_eq!(Cell::of('A').to_bytes(), letter);
    let black = Cell {
        bg: Some([0; 3]),
        ..Cell::default()
    };
    assert_ne!(black.to_bytes(), [0; CELL_BYTES], "black is not no colour");
}

#[test]
fn a_styled_cell_has_its_layout() {
    let bytes = STYLED.to_bytes();
    let by_hand = [
        0x1D, 0x26, 0, 0, 0xFB, 0xF3, 1, 0, 0x0F, 0xFE, 0, 0, 1, 1, 2, 3, 1, 0, 0, 0, 0b1001, 1, 0,
        0,
    ];
    assert_eq!(bytes, by_hand);
    assert_eq!(
        [ATTR_BOLD, ATTR_DIM, ATTR_UNDERLINE, ATTR_REVERSE],
        [1, 2, 4, 8]
    );
}

#[test]
fn only_the_byte_one_sets_a_colour_or_a_continuation() {
    for byte in 0..=u8::MAX {
        let mut bytes = [7; CELL_BYTES];
        (bytes[12], bytes[16], bytes[21]) = (byte, byte, byte);
        let cell = Cell::read(&bytes);
        assert_eq!(cell.fg, (byte == 1).then_some([7; 3]));
        assert_eq!(cell.bg, (byte == 1).then_some([7; 3]));
        assert_eq!(cell.cont, byte == 1);
    }
}

proptest! {
    #[test]
    fn a_cell_survives_the_round_trip(
        cp: [u32; 3], fg: Option<[u8; 3]>, bg: Option<[u8; 3]>, attr: u8, cont: bool,
    ) {
        let cell = Cell { cp, fg, bg, attr, cont };
        prop_assert_eq!(Cell::read(&cell.to_bytes()), cell);
    }

    #[test]
    fn rewriting_any_bytes_makes_them_canonical(bytes: [u8; CELL_BYTES]) {
        let once = Cell::read(&bytes).to_bytes();
        prop_assert_eq!(Cell::read(&once), Cell::read(&bytes));
        prop_assert_eq!(Cell::read(&once).to_bytes(), once);
    }
}
