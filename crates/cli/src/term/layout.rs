//! A frame on a screen of any size: in the middle, framed where there is room, with a status line
//! below; or a notice where it does not fit.

use cabinet_host::Frame;
use cabinet_wire::cell::Cell;
use cabinet_wire::{COLS, ROWS};

use super::caps::Caps;
use super::glyph::Glyph;
use super::style::Style;

/// Columns and rows of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub cols: usize,
    /// Rows.
    pub rows: usize,
}

impl Size {
    /// Columns or rows that are used at most; terminals that claim more get a screen of this.
    pub const SIDE_MAX: usize = 1_000;

    /// A size, within [`Size::SIDE_MAX`].
    #[must_use]
    pub fn new(cols: usize, rows: usize) -> Self {
        Self {
            cols: cols.min(Self::SIDE_MAX),
            rows: rows.min(Self::SIDE_MAX),
        }
    }
}

/// One place of a screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Something is drawn here.
    Drawn(Glyph, Style),
    /// The right half of what is drawn to the left.
    RightHalf,
}

impl Place {
    /// Nothing.
    pub const BLANK: Self = Self::Drawn(
        Glyph::BLANK,
        Style {
            fg: None,
            bg: None,
            attr: 0,
        },
    );
}

/// What is to be seen on a terminal.
///
/// Every [`Place::RightHalf`] follows a glyph of two places in its row, and every such glyph is
/// followed by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screen {
    size: Size,
    places: Vec<Place>,
}

impl Screen {
    /// An empty screen.
    #[must_use]
    pub fn blank(size: Size) -> Self {
        Self {
            size,
            places: vec![Place::BLANK; size.cols * size.rows],
        }
    }

    /// Its size.
    #[must_use]
    pub fn size(&self) -> Size {
        self.size
    }

    /// The rows, from the top.
    pub fn rows(&self) -> impl Iterator<Item = &[Place]> {
        self.places.chunks(self.size.cols.max(1))
    }

    /// A frame on a terminal of `size`, and `status` below it if there is a row for it.
    #[must_use]
    pub fn compose(frame: &Frame, status: &str, size: Size, caps: Caps) -> Self {
        let mut screen = Self::blank(size);
        if size.cols < COLS || size.rows < ROWS {
            screen.notice(caps);
            return screen;
        }
        let has_status = size.rows > ROWS;
        let rows = size.rows - usize::from(has_status);
        let (top, left) = ((rows - ROWS) / 2, (size.cols - COLS) / 2);
        screen.border(top, left, rows, caps);
        for row in 0..ROWS {
            screen.frame_row(frame, row, top + row, left, caps);
        }
        if has_status {
            let style = Style::FAINT.shown_in(caps.depth);
            screen.text(size.rows - 1, 0, status, style, caps);
        }
        screen
    }

    fn frame_row(&mut self, frame: &Frame, row: usize, to: usize, left: usize, caps: Caps) {
        let cells = frame.row(row).as_chunks().0;
        let mut col = 0;
        while let Some(bytes) = cells.get(col) {
            let cell = Cell::read(bytes);
            let wide = cells.get(col + 1).is_some_and(|next| Cell::read(next).cont);
            let style = Style {
                fg: cell.fg,
                bg: cell.bg,
                attr: cell.attr,
            };
            let glyph = if cell.cont {
                // Its left half was drawn narrower than the game thought, or not at all.
                Glyph::BLANK
            } else {
                Glyph::of_cell(cell.cp, wide, caps.utf8)
            };
            let style = style.shown_in(caps.depth);
            self.put(to, left + col, Place::Drawn(glyph, style));
            if glyph.width == 2 {
                self.put(to, left + col + 1, Place::RightHalf);
            }
            col += usize::from(glyph.width);
        }
    }

    /// Around the frame where the terminal is larger, in each direction for itself.
    fn border(&mut self, top: usize, left: usize, rows: usize, caps: Caps) {
        let style = Style::FAINT.shown_in(caps.depth);
        let bar = |c| Place::Drawn(Glyph::of(c, false), style);
        let beside = left > 0 && left + COLS < self.size.cols;
        let above = top > 0 && top + ROWS < rows;
        if beside {
            for row in top..top + ROWS {
                self.put(row, left - 1, bar('|'));
                self.put(row, left + COLS, bar('|'));
            }
        }
        if above {
            for row in [top - 1, top + ROWS] {
                for col in left..left + COLS {
                    self.put(row, col, bar('-'));
                }
                if beside {
                    self.put(row, left - 1, bar('+'));
                    self.put(row, left + COLS, bar('+'));
                }
            }
        }
    }

    /// Says that the terminal is too small, in the middle of what there is.
    fn notice(&mut self, caps: Caps) {
        let Size { cols, rows } = self.size;
        let text = format!(
            "Please resize your terminal to at least {COLS}x{ROWS}. Current size: {cols}x{rows}."
        );
        let lines = wrap(&text, cols);
        let top = rows.saturating_sub(lines.len()) / 2;
        for (row, line) in (top..rows).zip(&lines) {
            let left = cols.saturating_sub(line.len()) / 2;
            self.text(row, left, line, Style::default(), caps);
        }
    }

    /// Text from a column on, cut at the right edge.
    fn text(&mut self, row: usize, col: usize, text: &str, style: Style, caps: Caps) {
        for (col, c) in (col..self.size.cols).zip(text.chars()) {
            self.put(row, col, Place::Drawn(Glyph::of(c, caps.utf8), style));
        }
    }

    fn put(&mut self, row: usize, col: usize, place: Place) {
        if col < self.size.cols
            && let Some(at) = self.places.get_mut(row * self.size.cols + col)
        {
            *at = place;
        }
    }
}

/// Lines of at most `cols` ASCII characters, broken at spaces; words that are longer are cut.
fn wrap(text: &str, cols: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let word = &word[..word.len().min(cols)];
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= cols => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use cabinet_wire::{CELL_BYTES, FRAME_BYTES};
    use proptest::prelude::*;

    /// A frame with these cells at row and column.
    pub(crate) fn frame_of(cells: &[(usize, usize, Cell)]) -> Frame {
        let mut bytes = Box::new([0; FRAME_BYTES]);
        for (row, col, cell) in cells {
            let at = (row * COLS + col) * CELL_BYTES;
            bytes[at..at + CELL_BYTES].copy_from_slice(&cell.to_bytes());
        }
        Frame::from_bytes(&bytes)
    }

    pub(crate) const RIGHT_HALF: Cell = Cell {
        cp: [0; 3],
        fg: None,
        bg: None,
        attr: 0,
        cont: true,
    };

    fn texts(screen: &Screen) -> Vec<String> {
        let line = |row: &[Place]| -> String {
            let glyphs = row.iter().filter_map(|place| match place {
                Place::Drawn(glyph, _) => Some(glyph),
                Place::RightHalf => None,
            });
            glyphs.flat_map(|glyph| glyph.chars().to_vec()).collect()
        };
        screen
            .rows()
            .map(line)
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    fn sample() -> Frame {
        frame_of(&[
            (0, 0, Cell::of('A')),
            (0, 79, Cell::of('B')),
            (23, 79, Cell::of('Z')),
        ])
    }

    #[test]
    fn a_terminal_of_the_frames_size_shows_just_the_frame() {
        let screen = Screen::compose(&sample(), "status", Size::new(80, 24), Caps::FULL);
        let lines = texts(&screen);
        assert_eq!(lines[0], format!("A{:78}B", ""));
        assert_eq!(lines[23], format!("{:79}Z", ""));
        assert!(lines[1..23].iter().all(String::is_empty));
    }

    #[test]
    fn a_row_more_is_for_the_status() {
        let screen = Screen::compose(&sample(), "status", Size::new(80, 25), Caps::FULL);
        let lines = texts(&screen);
        assert!(lines[0].starts_with('A') && lines[23].ends_with('Z'));
        assert_eq!(lines[24], "status");
    }

    #[test]
    fn a_larger_terminal_frames_it_in_the_middle() {
        let lines = texts(&Screen::compose(
            &sample(),
            "status",
            Size::new(100, 31),
            Caps::FULL,
        ));
        assert_eq!(lines[2], format!("{:9}+{}+", "", "-".repeat(80)));
        assert_eq!(lines[3], format!("{:9}|A{:78}B|", "", ""));
        assert_eq!(lines[26], format!("{:9}|{:79}Z|", "", ""));
        assert_eq!(lines[27], lines[2]);
        assert_eq!(lines[30], "status");
    }

    #[test]
    fn a_terminal_larger_in_one_direction_is_framed_in_that_one() {
        let wide = texts(&Screen::compose(
            &sample(),
            "",
            Size::new(82, 24),
            Caps::FULL,
        ));
        assert_eq!(wide[0], format!("|A{:78}B|", ""));
        assert!(wide.iter().all(|line| !line.contains('-')));
        let high = texts(&Screen::compose(
            &sample(),
            "",
            Size::new(80, 27),
            Caps::FULL,
        ));
        assert_eq!(high[0], "-".repeat(80));
        assert!(high[1].starts_with('A'));
        let one_more = texts(&Screen::compose(
            &sample(),
            "",
            Size::new(81, 24),
            Caps::FULL,
        ));
        assert_eq!(one_more[0], format!("A{:78}B", ""));
    }

    #[test]
    fn a_terminal_that_is_too_small_says_so_in_its_middle() {
        let lines = texts(&Screen::compose(
            &sample(),
            "status",
            Size::new(79, 24),
            Caps::FULL,
        ));
        let notice = "Please resize your terminal to at least 80x24. Current size: 79x24.";
        assert_eq!(lines[11].trim_start(), notice);
        assert_eq!(lines[11].len() - notice.len(), (79 - notice.len()) / 2);
        let lines = texts(&Screen::compose(
            &sample(),
            "",
            Size::new(20, 6),
            Caps::FULL,
        ));
        let expected = [
            "Please resize your",
            "terminal to at least",
            "80x24. Current size:",
            "20x6.",
        ];
        assert_eq!(
            lines[1..5]
                .iter()
                .map(|line| line.trim())
                .collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn a_wide_glyph_takes_two_places_and_without_utf8_leaves_a_blank() {
        let frame = frame_of(&[
            (0, 0, Cell::of('日')),
            (0, 1, RIGHT_HALF),
            (0, 2, Cell::of('x')),
        ]);
        let full = Screen::compose(&frame, "", Size::new(80, 24), Caps::FULL);
        assert_eq!(texts(&full)[0], "日x");
        assert_eq!(full.rows().next().unwrap()[1], Place::RightHalf);
        let ascii = Caps {
            utf8: false,
            ..Caps::FULL
        };
        let plain = Screen::compose(&frame, "", Size::new(80, 24), ascii);
        assert_eq!(texts(&plain)[0], "? x");
    }

    proptest! {
        #[test]
        fn any_terminal_gets_a_whole_screen(
            cols in 0usize..200, rows in 0usize..60, cell in any::<([u32; 3], u8, bool)>(), at in 0usize..1920, utf8: bool,
        ) {
            let (cp, attr, cont) = cell;
            let cell = Cell { cp, attr, cont, ..Cell::default() };
            let frame = frame_of(&[(at / 80, at % 80, cell)]);
            let caps = Caps { utf8, ..Caps::FULL };
            let screen = Screen::compose(&frame, "some status", Size::new(cols, rows), caps);
            prop_assert_eq!(screen.rows().map(<[Place]>::len).sum::<usize>(), cols * rows);
            for row in screen.rows() {
                let mut right_half = false;
                for place in row {
                    prop_assert_eq!(*place == Place::RightHalf, right_half);
                    right_half = matches!(place, Place::Drawn(glyph, _) if glyph.width == 2);
                }
                prop_assert!(!right_half);
            }
        }
    }

    #[test]
    fn a_terminal_that_claims_more_than_the_limit_gets_the_limit() {
        assert_eq!(
            Size::new(1_000, 1_000),
            Size {
                cols: 1_000,
                rows: 1_000
            }
        );
        assert_eq!(
            Size::new(1_001, usize::MAX),
            Size {
                cols: 1_000,
                rows: 1_000
            }
        );
    }
}
