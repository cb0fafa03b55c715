//! Glyphs as pixels, for pictures of screens.
//!
//! The font is Spleen, 8 by 16 pixels: Latin, Greek and Cyrillic letters, box drawing, arrows, card
//! suits and the like. Block elements and Braille are computed. Whatever else there is, Chinese
//! characters and emoji among it, shows as a block with its code point in hexadecimal, so that two
//! different glyphs never look the same.

use std::collections::HashMap;

use cabinet_wire::cell::Cell;

/// Pixels of a cell, across.
pub const CELL_WIDTH: usize = 8;
/// Pixels of a cell, down.
pub const CELL_HEIGHT: usize = 16;

/// The pixels of one glyph: a row each, the leftmost pixel in the highest bit. A glyph of one place
/// has its pixels in the upper half.
pub type Bitmap = [u16; CELL_HEIGHT];

/// The font, ready to be looked up in.
#[derive(Debug)]
pub struct Font {
    glyphs: HashMap<u32, [u8; CELL_HEIGHT]>,
}

impl Font {
    /// Spleen.
    #[must_use]
    pub fn spleen() -> Self {
        // A font that could not be read would show as blocks throughout; a test sees to it that it
        // can.
        let glyphs = read_psf(spleen_font::FONT_8X16).unwrap_or_default();
        Self { glyphs }
    }

    /// What a cell shows, over one place or, when the one to its right is its other half, two.
    #[must_use]
    pub fn bitmap(&self, cell: &Cell, wide: bool) -> Bitmap {
        let [base, second, third] = cell.cp;
        let mut bitmap = match char::from_u32(base) {
            Some(' ') => [0; CELL_HEIGHT],
            Some(base) if base.is_control() => [0; CELL_HEIGHT],
            Some(base) => self.base(base.into(), wide),
            // As in the other files, where what is negative to the reference is blank.
            None if base > i32::MAX as u32 => [0; CELL_HEIGHT],
            None => self.base(0xfffd, wide),
        };
        let marks = [second, third].into_iter();
        for mark in marks.take_while(|mark| *mark != 0) {
            let over = self.mark(mark, wide);
            for (row, over) in bitmap.iter_mut().zip(over) {
                *row |= over;
            }
        }
        bitmap
    }

    fn base(&self, point: u32, wide: bool) -> Bitmap {
        let drawn = match point {
            0x2580..=0x259f => Some(block(point)),
            0x2800..=0x28ff => Some(braille(point)),
            _ => self.glyphs.get(&point).copied(),
        };
        match drawn {
            Some(rows) => placed(rows, wide),
            None => code(point, wide),
        }
    }

    /// What a combining mark adds: accents by their spacing forms, a keycap's frame. Marks without a
    /// picture of their own, variation selectors among them, add nothing.
    fn mark(&self, mark: u32, wide: bool) -> Bitmap {
        if mark == 0x20e3 {
            return frame(wide);
        }
        let spacing = match mark {
            0x300 => 0x60,
            0x301 => 0xb4,
            0x302 => 0x5e,
            0x303 => 0x2dc,
            0x304 => 0xaf,
            0x306 => 0x2d8,
            0x307 => 0x2d9,
            0x308 => 0xa8,
            0x30a => 0xb0,
            0x30b => 0x2dd,
            0x327 => 0xb8,
            0x328 => 0x2db,
            _ => return [0; CELL_HEIGHT],
        };
        let rows = self.glyphs.get(&spacing).copied();
        placed(rows.unwrap_or_default(), wide)
    }
}

/// A glyph of one place in its place, or in the middle of two.
fn placed(rows: [u8; CELL_HEIGHT], wide: bool) -> Bitmap {
    rows.map(|row| u16::from(row) << if wide { 4 } else { 8 })
}

/// Reads a font file in the format PSF, version 1, with glyphs as tall as a cell: four bytes of
/// header, the glyphs, and for each the code points it stands for. `None` for anything else.
fn read_psf(file: &[u8]) -> Option<HashMap<u32, [u8; CELL_HEIGHT]>> {
    const MAGIC: [u8; 2] = [0x36, 0x04];
    const IS_512: u8 = 1;
    const HAS_TABLE: u8 = 2;
    const END_OF_GLYPH: u16 = 0xffff;
    const SEQUENCE: u16 = 0xfffe;
    let (header, rest) = file.split_first_chunk::<4>()?;
    let [magic @ .., mode, height] = *header;
    if magic != MAGIC || usize::from(height) != CELL_HEIGHT || mode & HAS_TABLE == 0 {
        return None;
    }
    let count = if mode & IS_512 == 0 { 256 } else { 512 };
    let (bitmaps, table) = rest.split_at_checked(count * CELL_HEIGHT)?;
    let (bitmaps, _) = bitmaps.as_chunks::<CELL_HEIGHT>();
    let (table, _) = table.as_chunks::<2>();
    let mut glyphs = HashMap::new();
    let mut points = table.iter().map(|pair| u16::from_le_bytes(*pair));
    for bitmap in bitmaps {
        let mut single = true;
        for point in points.by_ref().take_while(|point| *point != END_OF_GLYPH) {
            // What follows in this entry are sequences of several code points.
            single &= point != SEQUENCE;
            if single {
                glyphs.entry(u32::from(point)).or_insert(*bitmap);
            }
        }
    }
    Some(glyphs)
}

/// U+2580 to U+259F, which fill eighths, quarters and shades of a cell.
fn block(point: u32) -> [u8; CELL_HEIGHT] {
    let lower = |eighths: usize| {
        let first = CELL_HEIGHT - CELL_HEIGHT * eighths / 8;
        std::array::from_fn(|y| if y >= first { 0xff } else { 0 })
    };
    let columns = |row: u8| [row; CELL_HEIGHT];
    // Upper left, upper right, lower left, lower right.
    let quarters = |upper_left: bool, upper_right: bool, lower_left: bool, lower_right: bool| {
        let row = |left: bool, right: bool| (u8::from(left) * 0xf0) | (u8::from(right) * 0x0f);
        std::array::from_fn(|y| match y {
            0..8 => row(upper_left, upper_right),
            _ => row(lower_left, lower_right),
        })
    };
    // The step of 1 in `point` is one eighth less, or more.
    let eighths = |from: u32| (point.abs_diff(from) as usize).min(8);
    match point {
        0x2580 => quarters(true, true, false, false),
        0x2581..=0x2588 => lower(eighths(0x2580)),
        0x2589..=0x258f => columns(0xff << eighths(0x2588)),
        0x2590 => columns(0x0f),
        0x2591 => std::array::from_fn(|y| if y % 2 == 0 { 0x88 } else { 0x22 }),
        0x2592 => std::array::from_fn(|y| if y % 2 == 0 { 0xaa } else { 0x55 }),
        0x2593 => std::array::from_fn(|y| if y % 2 == 0 { 0xdd } else { 0x77 }),
        0x2594 => std::array::from_fn(|y| if y < 2 { 0xff } else { 0 }),
        0x2595 => columns(1),
        0x2596 => quarters(false, false, true, false),
        0x2597 => quarters(false, false, false, true),
        0x2598 => quarters(true, false, false, false),
        0x2599 => quarters(true, false, true, true),
        0x259a => quarters(true, false, false, true),
        0x259b => quarters(true, true, true, false),
        0x259c => quarters(true, true, false, true),
        0x259d => quarters(false, true, false, false),
        0x259e => quarters(false, true, true, false),
        _ => quarters(false, true, true, true),
    }
}

/// U+2800 to U+28FF: bits 0 to 2 and 6 are the dots of the left column from the top, the others
/// those of the right one.
fn braille(point: u32) -> [u8; CELL_HEIGHT] {
    const LEFT: u8 = 0b0110_0000;
    const RIGHT: u8 = 0b0000_0110;
    let dot = |bit: u32, pixels: u8| if point >> bit & 1 == 1 { pixels } else { 0 };
    let rows = [(0, 3), (1, 4), (2, 5), (6, 7)];
    let rows = rows.map(|(left, right)| dot(left, LEFT) | dot(right, RIGHT));
    std::array::from_fn(|y| match y % 4 {
        1 | 2 => rows[y / 4],
        _ => 0,
    })
}

/// A frame around one place or two.
fn frame(wide: bool) -> Bitmap {
    let (edge, sides) = if wide {
        (0xffff, 0x8001)
    } else {
        (0xff00, 0x8100)
    };
    std::array::from_fn(|y| match y {
        0 | 15 => edge,
        _ => sides,
    })
}

/// Hexadecimal digits, 3 by 5 pixels: three bits a row, the upper row first.
const DIGITS: [[u16; 5]; 16] = [
    [0b111, 0b101, 0b101, 0b101, 0b111],
    [0b010, 0b110, 0b010, 0b010, 0b111],
    [0b111, 0b001, 0b111, 0b100, 0b111],
    [0b111, 0b001, 0b011, 0b001, 0b111],
    [0b101, 0b101, 0b111, 0b001, 0b001],
    [0b111, 0b100, 0b111, 0b001, 0b111],
    [0b111, 0b100, 0b111, 0b101, 0b111],
    [0b111, 0b001, 0b010, 0b010, 0b010],
    [0b111, 0b101, 0b111, 0b101, 0b111],
    [0b111, 0b101, 0b111, 0b001, 0b111],
    [0b010, 0b101, 0b111, 0b101, 0b101],
    [0b110, 0b101, 0b110, 0b101, 0b110],
    [0b011, 0b100, 0b100, 0b100, 0b011],
    [0b110, 0b101, 0b101, 0b101, 0b110],
    [0b111, 0b100, 0b110, 0b100, 0b111],
    [0b111, 0b100, 0b110, 0b100, 0b100],
];

/// A block with the code point cut out of it, four or six digits: two a row in one place, and in
/// two places two rows of two or three.
fn code(point: u32, wide: bool) -> Bitmap {
    let count: usize = if point > 0xffff { 6 } else { 4 };
    let a_row = if wide { count / 2 } else { 2 };
    let (rows, width) = (count / a_row, if wide { 16 } else { 8 });
    // Three rows have just room for the digits, without a gap between them.
    let line = if rows == 3 { 5 } else { 6 };
    let left = (width - (4 * a_row - 1)) / 2;
    let top = (CELL_HEIGHT + 1 - line * rows) / 2;
    let mut holes: Bitmap = [0; CELL_HEIGHT];
    for place in 0..count {
        let digit = point >> (4 * (count - 1 - place)) & 0xf;
        let (x, y) = (left + 4 * (place % a_row), top + line * (place / a_row));
        for (row, bits) in holes[y..].iter_mut().zip(DIGITS[digit as usize]) {
            *row |= bits << (13 - x);
        }
    }
    let full: u16 = if wide { 0xffff } else { 0xff00 };
    holes.map(|row| full & !row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn art(bitmap: Bitmap, width: usize) -> Vec<String> {
        let pixel = |row: u16, x: usize| if row >> (15 - x) & 1 == 1 { '#' } else { '.' };
        let line = |row: u16| -> String { (0..width).map(|x| pixel(row, x)).collect() };
        bitmap.map(line).to_vec()
    }

    fn of(c: char) -> Bitmap {
        Font::spleen().bitmap(&Cell::of(c), false)
    }

    fn cluster(points: [char; 3], wide: bool) -> Bitmap {
        let cell = Cell {
            cp: points.map(u32::from),
            ..Cell::default()
        };
        Font::spleen().bitmap(&cell, wide)
    }

    #[test]
    fn the_font_has_what_games_draw_with() {
        let font = Font::spleen();
        let letters = (0x21..0x7f).chain(0xa1..0x100).chain(0x2500..0x2580);
        for point in letters.chain("←↑→↓♠♣♥♦●○■▲▼◆☺♪✗€…•".chars().map(u32::from))
        {
            assert!(font.glyphs.contains_key(&point), "U+{point:04X}");
        }
        assert_eq!(
            art(of('A'), 8)[2..11],
            [
                ".#####..", "##...##.", "##...##.", "##...##.", "#######.", "##...##.", "##...##.",
                "##...##.", "##...##."
            ]
        );
    }

    #[test]
    fn what_computes_agrees_with_what_the_font_has_of_it() {
        let font = Font::spleen();
        for point in [0x2580, 0x2584, 0x2588, 0x258c, 0x2590] {
            assert_eq!(block(point), font.glyphs[&point], "U+{point:04X}");
        }
        // Every one is another.
        let blocks: Vec<_> = (0x2580..0x25a0).map(block).collect();
        for (at, one) in blocks.iter().enumerate() {
            assert!(!blocks[..at].contains(one), "U+{:04X}", 0x2580 + at);
        }
        assert_eq!(block(0x258f), [0x80; CELL_HEIGHT]);
        assert_eq!(block(0x2589), [0xfe; CELL_HEIGHT]);
        assert_eq!(block(0x2581)[13..], [0, 0xff, 0xff]);
        assert_eq!(braille(0x2840)[12..], [0, 0x60, 0x60, 0]);
        assert_eq!(braille(0x28ff)[..4], [0, 0x66, 0x66, 0]);
    }

    #[test]
    fn blanks_and_controls_show_nothing() {
        for c in [' ', '\0', '\u{1}', '\u{1b}', '\u{7f}', '\u{9b}'] {
            assert_eq!(of(c), [0; CELL_HEIGHT], "{c:?}");
        }
        // No code points at all show as U+FFFD does.
        for (base, shown) in [
            (0xd800, '\u{fffd}'),
            (0x11_0000, '\u{fffd}'),
            (u32::MAX, ' '),
        ] {
            let cell = Cell {
                cp: [base, 0, 0],
                ..Cell::default()
            };
            assert_eq!(Font::spleen().bitmap(&cell, false), of(shown));
        }
    }

    #[test]
    fn a_glyph_that_is_missing_shows_its_code_point() {
        assert_eq!(
            art(code(0x500b, false), 8),
            [
                "########", "########", "...#...#", ".###.#.#", "...#.#.#", "##.#.#.#", "...#...#",
                "########", "...#..##", ".#.#.#.#", ".#.#..##", ".#.#.#.#", "...#..##", "########",
                "########", "########",
            ]
        );
        assert_eq!(
            art(code(0x1f600, true), 16)[2..13],
            [
                "##...##.##...###",
                "##.#.#..##.#####",
                "##.#.##.##..####",
                "##.#.##.##.#####",
                "##...#...#.#####",
                "################",
                "##...#...#...###",
                "##.###.#.#.#.###",
                "##...#.#.#.#.###",
                "##.#.#.#.#.#.###",
                "##...#...#...###",
            ]
        );
        assert_eq!(of('個'), code(0x500b, false));
        // Six digits fill one place but for its first row.
        let six = code(0x1f600, false);
        assert_eq!((six[0], six[15]), (0xff00, 0x1100));
    }

    #[test]
    fn accents_and_keycaps_are_drawn_over_their_base() {
        let accented = cluster(['x', '\u{301}', '\0'], false);
        let (plain, accent) = (of('x'), of('\u{b4}'));
        for y in 0..CELL_HEIGHT {
            assert_eq!(accented[y], plain[y] | accent[y]);
        }
        assert_eq!(cluster(['x', '\u{fe0f}', '\0'], false), plain);
        assert_eq!(cluster([' ', '\u{301}', '\0'], false), accent);
        // The third counts only behind a second.
        assert_eq!(cluster(['x', '\0', '\u{301}'], false), plain);
        let keycap = cluster(['7', '\u{fe0f}', '\u{20e3}'], true);
        assert_eq!((keycap[0], keycap[15]), (0xffff, 0xffff));
        assert_eq!(keycap[5] & 0x0ff0, of('7')[5] >> 4);
    }

    #[test]
    fn a_file_that_is_no_font_is_none() {
        let spleen = spleen_font::FONT_8X16;
        assert!(read_psf(spleen).is_some());
        assert!(read_psf(&spleen[..3]).is_none());
        assert!(read_psf(&spleen[..4 + 511 * 16]).is_none());
        for (at, byte) in [(0, 0), (2, 1), (3, 14)] {
            let mut other = spleen.to_vec();
            other[at] = byte;
            assert!(read_psf(&other).is_none(), "{at}");
        }
    }
}
