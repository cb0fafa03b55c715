//! What to write to a terminal so that it shows a screen: only what differs from the one before.
//!
//! Invariants
//! - after the writes of [`Painter::paint`] the terminal shows the screen, whatever it showed;
//! - after a glyph terminals disagree about, the cursor is placed anew: no disagreement moves what
//!   follows.

use std::fmt::Write;

use super::caps::Caps;
use super::layout::{Place, Screen};
use super::style::Style;

/// Writes screens to one terminal.
#[derive(Debug)]
pub struct Painter {
    caps: Caps,
    shown: Option<Screen>,
}

impl Painter {
    /// For a terminal that shows nobody knows what.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        Self { caps, shown: None }
    }

    /// The terminal may show anything now: the next screen is written whole.
    pub fn forget(&mut self) {
        self.shown = None;
    }

    /// Appends what makes the terminal show `next`: nothing if it does.
    pub fn paint(&mut self, next: Screen, out: &mut String) {
        let size = next.size();
        let begin = out.len();
        // A terminal that can, shows all of it at once.
        out.push_str("\x1b[?2026h");
        let known = self.shown.take().filter(|shown| shown.size() == size);
        let shown = known.unwrap_or_else(|| {
            out.push_str("\x1b[0m\x1b[2J");
            Screen::blank(size)
        });
        let mut pen = Pen {
            caps: self.caps,
            at: None,
            style: None,
        };
        let nothing = out.len();
        for (row, (new, old)) in next.rows().zip(shown.rows()).enumerate() {
            for (col, (place, before)) in new.iter().zip(old).enumerate() {
                if let Place::Drawn(glyph, style) = place
                    && place != before
                {
                    let last = col + usize::from(glyph.width) >= size.cols;
                    pen.go(row, col, out);
                    pen.wear(*style, out);
                    out.extend(glyph.chars());
                    // In the last column terminals differ in where the cursor is.
                    let known = !glyph.is_ambiguous() && !last;
                    pen.at = known.then_some((row, col + 1));
                }
            }
        }
        if out.len() == nothing && nothing == begin + "\x1b[?2026h".len() {
            out.truncate(begin);
        } else {
            out.push_str("\x1b[0m\x1b[?2026l");
        }
        self.shown = Some(next);
    }
}

/// Where the terminal's cursor is and how it would write, as far as we know.
struct Pen {
    caps: Caps,
    at: Option<(usize, usize)>,
    style: Option<Style>,
}

impl Pen {
    fn go(&mut self, row: usize, col: usize, out: &mut String) {
        if self.at != Some((row, col)) {
            // Writing to a string does not fail.
            let _ = write!(out, "\x1b[{};{}H", row + 1, col + 1);
            self.at = Some((row, col));
        }
    }

    fn wear(&mut self, style: Style, out: &mut String) {
        if self.style != Some(style) {
            style.write(self.caps.depth, out);
            self.style = Some(style);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::term::caps::Depth;
    use crate::term::layout::Size;
    use crate::term::layout::tests::{RIGHT_HALF, frame_of};
    use cabinet_host::Frame;
    use cabinet_wire::cell::{ATTR_BOLD, Cell};
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthChar;

    const SIZE: Size = Size {
        cols: 100,
        rows: 30,
    };

    /// A terminal that knows what a painter writes and nothing else.
    #[derive(Debug, PartialEq)]
    struct Terminal {
        size: Size,
        places: Vec<(String, String)>,
    }

    impl Terminal {
        fn new(size: Size) -> Self {
            let noise = ("#".to_owned(), "noise".to_owned());
            Self {
                size,
                places: vec![noise; size.cols * size.rows],
            }
        }

        fn show(&mut self, bytes: &str) {
            let (mut at, mut style) = (0, String::new());
            let mut rest = bytes;
            while let Some(c) = rest.chars().next() {
                if let Some(sequence) = rest.strip_prefix("\x1b[") {
                    let end = sequence.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                    let parameters = &sequence[..end];
                    match sequence.as_bytes()[end] {
                        b'H' => {
                            let (row, col) = parameters.split_once(';').unwrap();
                            let (row, col): (usize, usize) =
                                (row.parse().unwrap(), col.parse().unwrap());
                            at = (row - 1) * self.size.cols + col - 1;
                        }
                        b'm' => style = parameters.to_owned(),
                        b'J' => self.places.fill((" ".into(), "0".into())),
                        b'h' | b'l' => assert_eq!(parameters, "?2026"),
                        other => panic!("{other}"),
                    }
                    rest = &sequence[end + 1..];
                    continue;
                }
                assert!(!c.is_control(), "{c:?}");
                match c.width().unwrap() {
                    0 => self.places[at - 1].0.push(c),
                    width => {
                        self.places[at] = (c.into(), style.clone());
                        at += 1;
                        if width == 2 {
                            self.places[at] = (String::new(), style.clone());
                            at += 1;
                        }
                    }
                }
                rest = &rest[c.len_utf8()..];
            }
        }
    }

    fn painted(painter: &mut Painter, frame: &Frame, size: Size) -> String {
        let mut out = String::new();
        let screen = Screen::compose(frame, "status", size, painter.caps);
        painter.paint(screen, &mut out);
        out
    }

    #[test]
    fn the_same_screen_again_costs_nothing_and_one_cell_costs_one_cell() {
        let mut painter = Painter::new(Caps::FULL);
        let blank = Frame::blank();
        assert!(painted(&mut painter, &blank, SIZE).contains("\x1b[2J"));
        assert_eq!(painted(&mut painter, &blank, SIZE), "");
        let bold = Cell {
            fg: Some([1, 2, 3]),
            attr: ATTR_BOLD,
            ..Cell::of('x')
        };
        let frame = frame_of(&[(0, 0, bold), (0, 1, bold)]);
        assert_eq!(
            painted(&mut painter, &frame, SIZE),
            "\x1b[?2026h\x1b[3;11H\x1b[0;1;38;2;1;2;3mxx\x1b[0m\x1b[?2026l"
        );
        painter.forget();
        assert!(painted(&mut painter, &frame, SIZE).contains("\x1b[2J"));
    }

    #[test]
    fn a_resize_is_drawn_whole() {
        let mut painter = Painter::new(Caps::FULL);
        let frame = frame_of(&[(0, 0, Cell::of('x'))]);
        painted(&mut painter, &frame, SIZE);
        let small = Size { cols: 40, rows: 10 };
        assert!(painted(&mut painter, &frame, small).contains("Please"));
        assert!(painted(&mut painter, &frame, SIZE).contains('x'));
    }

    #[test]
    fn the_cursor_is_placed_anew_after_what_terminals_disagree_about() {
        let mut painter = Painter::new(Caps {
            depth: Depth::None,
            utf8: true,
        });
        painted(&mut painter, &Frame::blank(), SIZE);
        let frame = frame_of(&[
            (0, 0, Cell::of('日')),
            (0, 1, RIGHT_HALF),
            (0, 2, Cell::of('x')),
        ]);
        assert_eq!(
            painted(&mut painter, &frame, SIZE),
            "\x1b[?2026h\x1b[3;11H\x1b[0m日\x1b[3;13Hx\x1b[0m\x1b[?2026l"
        );
    }

    fn any_cell() -> impl Strategy<Value = Cell> {
        let glyph = prop::sample::select(vec!['a', 'b', ' ', '日', '░', '\u{301}', '\u{1b}']);
        let colour = prop::option::of(prop::array::uniform3(any::<u8>()));
        (glyph, colour, 0u8..32, any::<bool>(), any::<bool>()).prop_map(
            |(c, fg, attr, accent, cont)| Cell {
                cp: [u32::from(c), if accent { 0x301 } else { 0 }, 0],
                fg,
                bg: None,
                attr,
                cont,
            },
        )
    }

    proptest! {
        #[test]
        fn frames_drawn_one_after_the_other_look_as_if_each_were_drawn_alone(
            frames in prop::collection::vec(
                (prop::collection::vec((0usize..24, 0usize..80, any_cell()), 0..40), any::<bool>()),
                1..5,
            ),
            utf8: bool,
            depth in prop::sample::select(vec![Depth::None, Depth::Ansi16, Depth::Truecolor]),
        ) {
            let caps = Caps { depth, utf8 };
            let mut painter = Painter::new(caps);
            let mut terminal = Terminal::new(SIZE);
            for (cells, small) in frames {
                let size = if small { Size { cols: 90, rows: 24 } } else { SIZE };
                if terminal.size != size {
                    terminal = Terminal::new(size);
                }
                let frame = frame_of(&cells);
                terminal.show(&painted(&mut painter, &frame, size));
                let mut alone = Terminal::new(size);
                alone.show(&painted(&mut Painter::new(caps), &frame, size));
                prop_assert_eq!(&terminal, &alone);
            }
        }
    }
}
