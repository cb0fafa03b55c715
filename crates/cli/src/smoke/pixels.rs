//! A frame as a picture: 640 by 384 pixels, PNG.
//!
//! Colours are those of the ANSI file. Where it leaves one to the terminal, a glyph is light grey
//! and what is behind it black. Bold is one pixel broader, dim half-way to the background; reverse
//! swaps the two. The bytes depend on the frame and on the version of the PNG encoder, so committed
//! pictures are compared by their pixels.

use std::io::Cursor;

use cabinet_host::Frame;
use cabinet_wire::cell::{ATTR_BOLD, ATTR_DIM, ATTR_REVERSE, ATTR_UNDERLINE, Cell};
use cabinet_wire::{COLS, ROWS};
use png::{BitDepth, ColorType, Compression, Decoder, Encoder, Filter, Limits, Transformations};

use super::font::{CELL_HEIGHT, CELL_WIDTH, Font};
use super::render::cells;

/// Pixels of a picture, across.
pub const WIDTH: usize = COLS * CELL_WIDTH;
/// Pixels of a picture, down.
pub const HEIGHT: usize = ROWS * CELL_HEIGHT;
/// The colour of a glyph that has none of its own.
pub const FOREGROUND: Rgb = [0xcc, 0xcc, 0xcc];
/// The colour behind a cell that has none of its own.
pub const BACKGROUND: Rgb = [0, 0, 0];

const PIXEL_BYTES: usize = 3;
/// The row of a cell that is its underline, under the letters' own descent.
const UNDERLINE_ROW: usize = 14;
/// Memory a committed picture may take to read, bytes: some times its pixels.
const READ_BYTES_MAX: usize = 8 << 20;

/// Red, green, blue.
pub type Rgb = [u8; 3];

/// Pixels of a screen, row by row from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    rgb: Vec<u8>,
}

impl Pixels {
    /// A frame, drawn.
    #[must_use]
    pub fn of(frame: &Frame, font: &Font) -> Self {
        let mut pixels = Self {
            rgb: vec![0; WIDTH * HEIGHT * PIXEL_BYTES],
        };
        for row in 0..ROWS {
            let cells: Vec<Cell> = cells(frame, row).collect();
            for (col, cell) in cells.iter().enumerate() {
                let right_half = |col: usize| cells.get(col).is_some_and(|cell| cell.cont);
                if !cell.cont {
                    pixels.draw(row, col, cell, right_half(col + 1), font);
                } else if col == 0 || right_half(col - 1) {
                    // The half of nothing.
                    pixels.draw(row, col, &Cell::default(), false, font);
                }
            }
        }
        pixels
    }

    /// The pixel `x` from the left and `y` from the top.
    #[must_use]
    pub fn get(&self, x: usize, y: usize) -> Rgb {
        let at = (y * WIDTH + x) * PIXEL_BYTES;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }

    /// The cells, by row and column, that look different in `other`.
    pub fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (usize, usize)> + 'a {
        let line = move |row: usize, y: usize, col: usize| {
            let at = ((row * CELL_HEIGHT + y) * WIDTH + col * CELL_WIDTH) * PIXEL_BYTES;
            at..at + CELL_WIDTH * PIXEL_BYTES
        };
        let differs = move |row, col| {
            (0..CELL_HEIGHT)
                .map(|y| line(row, y, col))
                .any(|line| self.rgb[line.clone()] != other.rgb[line])
        };
        (0..ROWS)
            .flat_map(|row| (0..COLS).map(move |col| (row, col)))
            .filter(move |(row, col)| differs(*row, *col))
    }

    /// The PNG file.
    #[must_use]
    pub fn png(&self) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = Encoder::new(&mut file, WIDTH as u32, HEIGHT as u32);
        encoder.set_color(ColorType::Rgb);
        encoder.set_depth(BitDepth::Eight);
        encoder.set_compression(Compression::Balanced);
        encoder.set_filter(Filter::NoFilter);
        let written = encoder
            .write_header()
            .and_then(|mut writer| writer.write_image_data(&self.rgb));
        // Writing to memory does not fail, and the pixels are as many as the header says.
        debug_assert!(written.is_ok(), "{written:?}");
        file
    }

    /// Reads a PNG file of any kind of colours; `None` for what is none, or not of a screen's size.
    #[must_use]
    pub fn read(file: &[u8]) -> Option<Self> {
        let limits = Limits {
            bytes: READ_BYTES_MAX,
        };
        let mut decoder = Decoder::new_with_limits(Cursor::new(file), limits);
        decoder.set_transformations(Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().ok()?;
        let (width, height) = reader.info().size();
        if (width as usize, height as usize) != (WIDTH, HEIGHT) {
            return None;
        }
        let mut samples = vec![0; reader.output_buffer_size()?];
        let about = reader.next_frame(&mut samples).ok()?;
        samples.truncate(about.buffer_size());
        let grey = |chunk: &[u8]| [chunk[0]; PIXEL_BYTES];
        let colour = |chunk: &[u8]| [chunk[0], chunk[1], chunk[2]];
        let rgb: Vec<u8> = match about.color_type {
            ColorType::Rgb => samples,
            // What is behind a picture is nobody's business here: alpha is not looked at.
            ColorType::Rgba => samples.chunks_exact(4).flat_map(colour).collect(),
            ColorType::Grayscale => samples.chunks_exact(1).flat_map(grey).collect(),
            ColorType::GrayscaleAlpha => samples.chunks_exact(2).flat_map(grey).collect(),
            ColorType::Indexed => return None,
        };
        (rgb.len() == WIDTH * HEIGHT * PIXEL_BYTES).then_some(Self { rgb })
    }

    /// Draws a cell over one place or two.
    fn draw(&mut self, row: usize, col: usize, cell: &Cell, wide: bool, font: &Font) {
        let (mut ink, mut paper) = (cell.fg.unwrap_or(FOREGROUND), cell.bg.unwrap_or(BACKGROUND));
        if cell.attr & ATTR_DIM != 0 {
            ink = std::array::from_fn(|at| ink[at].midpoint(paper[at]));
        }
        if cell.attr & ATTR_REVERSE != 0 {
            std::mem::swap(&mut ink, &mut paper);
        }
        let mut bitmap = font.bitmap(cell, wide);
        if cell.attr & ATTR_BOLD != 0 {
            bitmap = bitmap.map(|row| row | row >> 1);
        }
        if cell.attr & ATTR_UNDERLINE != 0 {
            bitmap[UNDERLINE_ROW] = 0xffff;
        }
        let width = if wide { 2 * CELL_WIDTH } else { CELL_WIDTH };
        for (y, bits) in bitmap.into_iter().enumerate() {
            for x in 0..width {
                let colour = if bits >> (15 - x) & 1 == 1 {
                    ink
                } else {
                    paper
                };
                let (x, y) = (col * CELL_WIDTH + x, row * CELL_HEIGHT + y);
                let at = (y * WIDTH + x) * PIXEL_BYTES;
                self.rgb[at..at + PIXEL_BYTES].copy_from_slice(&colour);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smoke::render::tests::frame;
    use proptest::prelude::*;

    const RED: Rgb = [255, 0, 0];
    const BLUE: Rgb = [0, 0, 200];

    fn drawn(cells: &[(usize, usize, Cell)]) -> Pixels {
        Pixels::of(&frame(cells), &Font::spleen())
    }

    /// The colours of a cell's row of pixels.
    fn line(pixels: &Pixels, (row, col): (usize, usize), y: usize) -> Vec<Rgb> {
        let pixel = |x| pixels.get(col * CELL_WIDTH + x, row * CELL_HEIGHT + y);
        (0..CELL_WIDTH).map(pixel).collect()
    }

    fn full(attr: u8) -> Cell {
        Cell {
            fg: Some(RED),
            bg: Some(BLUE),
            attr,
            ..Cell::of('█')
        }
    }

    #[test]
    fn a_glyph_is_where_its_cell_is_in_its_colours() {
        let pixels = drawn(&[(
            3,
            5,
            Cell {
                fg: Some(RED),
                bg: Some(BLUE),
                ..Cell::of('T')
            },
        )]);
        let (r, b) = (RED, BLUE);
        assert_eq!(line(&pixels, (3, 5), 2), [r; CELL_WIDTH]);
        assert_eq!(line(&pixels, (3, 5), 5), [b, b, b, r, r, b, b, b]);
        assert_eq!(line(&pixels, (3, 5), 15), [b; CELL_WIDTH]);
        for beside in [(3, 4), (3, 6), (2, 5), (4, 5)] {
            assert_eq!(line(&pixels, beside, 2), [BACKGROUND; CELL_WIDTH]);
        }
        let plain = drawn(&[(0, 0, Cell::of('T'))]);
        assert_eq!(plain.get(3, 5), FOREGROUND);
        assert_eq!(plain.get(0, 5), BACKGROUND);
    }

    #[test]
    fn every_attribute_shows_and_unknown_bits_do_not() {
        let plain = Cell {
            fg: Some(RED),
            bg: Some(BLUE),
            ..Cell::of('T')
        };
        let with = |attr| drawn(&[(0, 0, Cell { attr, ..plain })]);
        let (r, b) = (RED, BLUE);
        assert_eq!(line(&with(ATTR_BOLD), (0, 0), 5), [b, b, b, r, r, r, b, b]);
        assert_eq!(
            line(&with(ATTR_REVERSE), (0, 0), 5),
            [r, r, r, b, b, r, r, r]
        );
        assert_eq!(line(&with(ATTR_UNDERLINE), (0, 0), 14), [r; CELL_WIDTH]);
        assert_eq!(line(&with(ATTR_UNDERLINE), (0, 0), 13), [b; CELL_WIDTH]);
        let dim = [127, 0, 100];
        assert_eq!(
            line(&with(ATTR_DIM), (0, 0), 5),
            [b, b, b, dim, dim, b, b, b]
        );
        assert_eq!(with(0xf0), with(0));
        let both = drawn(&[(0, 0, full(ATTR_DIM | ATTR_REVERSE))]);
        assert_eq!(line(&both, (0, 0), 0), [BLUE; CELL_WIDTH]);
    }

    #[test]
    fn a_wide_glyph_takes_both_its_places() {
        let right = Cell {
            cont: true,
            bg: Some([9, 9, 9]),
            ..Cell::default()
        };
        let wide = Cell {
            fg: Some(RED),
            bg: Some(BLUE),
            ..Cell::of('個')
        };
        let pixels = drawn(&[(0, 0, wide), (0, 1, right), (0, 2, right), (1, 0, right)]);
        assert_eq!(line(&pixels, (0, 0), 0), [RED; CELL_WIDTH]);
        assert_eq!(line(&pixels, (0, 1), 0), [RED; CELL_WIDTH]);
        assert_ne!(line(&pixels, (0, 0), 3), line(&pixels, (0, 1), 3));
        // The right half of nothing is blank.
        assert_eq!(line(&pixels, (0, 2), 0), [BACKGROUND; CELL_WIDTH]);
        assert_eq!(line(&pixels, (1, 0), 0), [BACKGROUND; CELL_WIDTH]);
    }

    #[test]
    fn the_last_cell_is_the_lower_right_corner() {
        let pixels = drawn(&[(ROWS - 1, COLS - 1, full(0))]);
        assert_eq!((WIDTH, HEIGHT), (640, 384));
        assert_eq!(pixels.get(639, 383), RED);
        assert_eq!(pixels.get(631, 383), BACKGROUND);
        // A wide glyph there has only one place.
        let cut = drawn(&[(
            0,
            COLS - 1,
            Cell {
                fg: Some(RED),
                ..Cell::of('個')
            },
        )]);
        assert_eq!(cut.get(639, 0), RED);
    }

    #[test]
    fn a_file_reads_back_as_the_pixels_and_is_the_same_each_time() {
        let pixels = drawn(&[
            (0, 0, full(0)),
            (7, 9, Cell::of('é')),
            (7, 10, Cell::of('個')),
        ]);
        let file = pixels.png();
        assert_eq!(file, pixels.png());
        assert_eq!(&file[..8], b"\x89PNG\r\n\x1a\n");
        assert_eq!(
            (&file[16..20], &file[20..24]),
            (&640_u32.to_be_bytes()[..], &384_u32.to_be_bytes()[..])
        );
        assert_eq!(Pixels::read(&file), Some(pixels));
        for bad in [&file[..file.len() / 2], b"", b"\x89PNG\r\n\x1a\n", b"hello"] {
            assert_eq!(Pixels::read(bad), None);
        }
    }

    #[test]
    fn a_picture_that_somebody_squeezed_is_the_same_picture() {
        let encode = |colour: ColorType, depth, size: (u32, u32), data: &[u8]| {
            let mut file = Vec::new();
            let mut encoder = Encoder::new(&mut file, size.0, size.1);
            encoder.set_color(colour);
            encoder.set_depth(depth);
            if colour == ColorType::Indexed {
                encoder.set_palette(&[0_u8, 0, 0, 255, 0, 0][..]);
            }
            encoder
                .write_header()
                .unwrap()
                .write_image_data(data)
                .unwrap();
            file
        };
        let size = (WIDTH as u32, HEIGHT as u32);
        let black = drawn(&[]);
        let bits = vec![0; WIDTH / 8 * HEIGHT];
        for colour in [ColorType::Indexed, ColorType::Grayscale] {
            assert_eq!(
                Pixels::read(&encode(colour, BitDepth::One, size, &bits)),
                Some(black.clone())
            );
        }
        let samples = vec![0; WIDTH * HEIGHT * 4];
        let alpha = encode(ColorType::Rgba, BitDepth::Eight, size, &samples);
        assert_eq!(Pixels::read(&alpha), Some(black.clone()));
        let alpha = &samples[..WIDTH * HEIGHT * 2];
        let alpha = encode(ColorType::GrayscaleAlpha, BitDepth::Eight, size, alpha);
        assert_eq!(Pixels::read(&alpha), Some(black));
        let other = encode(ColorType::Grayscale, BitDepth::Eight, (2, 2), &[0; 4]);
        assert_eq!(Pixels::read(&other), None);
        // Its pixels would be 14 GB.
        let mut huge = encode(ColorType::Grayscale, BitDepth::Eight, (1, 1), &[0]);
        huge[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        assert_eq!(Pixels::read(&huge), None);
    }

    #[test]
    fn differing_cells_are_found_where_they_are() {
        let one = drawn(&[(0, 0, full(0)), (23, 79, full(0))]);
        let two = drawn(&[(0, 0, full(0)), (23, 78, full(0))]);
        assert_eq!(one.differing(&one).count(), 0);
        assert_eq!(
            one.differing(&two).collect::<Vec<_>>(),
            [(23, 78), (23, 79)]
        );
    }

    proptest! {
        #[test]
        fn no_cell_and_no_file_makes_it_panic(
            cells in proptest::collection::vec((0..ROWS, 0..COLS, any::<[u8; 24]>()), 1..40),
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let cells: Vec<_> = cells.iter().map(|(r, c, bytes)| (*r, *c, Cell::read(bytes))).collect();
            let mut file = drawn(&cells).png();
            for (at, byte) in edits {
                let at = at.index(file.len());
                file[at] = byte;
            }
            let _ = Pixels::read(&file);
        }
    }
}
