//! Edges of the drawing surface.

use core::fmt::Write;

use cabinet_wire::FRAME_CELLS;
use proptest::prelude::*;

use super::*;

const PLAIN: Style = Style::new();

fn blank_but(edit: impl FnOnce(&mut Screen)) -> Screen {
    let mut screen = Screen::new();
    edit(&mut screen);
    screen
}

fn cp(screen: &Screen, row: i32, col: i32) -> [u32; 3] {
    screen.cell(row, col).unwrap().cp
}

#[test]
fn cells_off_the_screen_are_clipped_on_all_four_sides() {
    let screen = blank_but(|screen| {
        for (row, col) in [(-1, 0), (24, 0), (0, -1), (0, 80), (i32::MIN, i32::MAX)] {
            assert_eq!(screen.set(row, col, 'x', PLAIN), col);
            screen.fill(Rect::new(row, col, 1, 1), 'x', PLAIN);
            screen.text(row, if col == 0 { 0 } else { i32::MAX }, "xx", PLAIN);
        }
    });
    assert_eq!(screen, Screen::new());
    assert_eq!(screen.cell(24, 0), None);
}

#[test]
fn a_huge_rectangle_fills_the_screen_and_nothing_overflows() {
    let screen = blank_but(|screen| {
        screen.fill(Rect::new(-5, -5, i32::MAX, i32::MAX), '#', PLAIN);
    });
    assert_eq!(screen.row_text(23), "#".repeat(80));
    let none = blank_but(|screen| screen.fill(Rect::new(3, 3, 0, -4), '#', PLAIN));
    assert_eq!(none, Screen::new());
}

#[test]
fn no_coordinate_is_too_far_out() {
    const FAR: [i32; 4] = [i32::MIN, -1, 79, i32::MAX];
    let mut screen = Screen::new();
    for row in FAR {
        for col in FAR {
            for size in FAR {
                let rect = Rect::new(row, col, size, size);
                screen.fill(rect.inset(size), '漢', PLAIN);
                screen.restyle(rect.centered(size, size), PLAIN);
                screen.border(
                    Rect::new(row, col, size.min(99), size.min(99)),
                    Border::Heavy,
                    PLAIN,
                );
                screen.text(row, col, "漢e\u{301}\nx", PLAIN);
                screen.text_right(row, col, "漢", PLAIN);
                screen.text_center_in(rect, row, "漢", PLAIN);
                screen.text_fit(row, col, size.min(99), "long enough to be cut", PLAIN);
            }
        }
    }
}

#[test]
fn a_cell_left_as_it_was_is_the_same_24_bytes() {
    let style = Style::from(crate::Color::RED)
        .bg(crate::Color::BLUE)
        .bold()
        .reverse();
    let mut screen = Screen::new();
    screen.text(2, 2, "e\u{301}漢", style);
    assert_ne!(screen, Screen::new());
    screen.text(2, 2, "   ", PLAIN);
    assert_eq!(screen, Screen::new());
    let cells = screen.bytes().as_chunks::<CELL_BYTES>().0;
    assert_eq!(
        cells.iter().filter(|cell| **cell == BLANK_CELL).count(),
        FRAME_CELLS
    );
}

#[test]
fn a_wide_glyph_is_a_base_and_its_continuation() {
    let style = Style::from(crate::Color::GREEN);
    let screen = blank_but(|screen| assert_eq!(screen.set(1, 10, '漢', style), 12));
    let (base, half) = (screen.cell(1, 10).unwrap(), screen.cell(1, 11).unwrap());
    assert_eq!((base.cp, base.cont), (['漢' as u32, 0, 0], false));
    assert_eq!((half.cp, half.cont, half.fg), ([0; 3], true, base.fg));
}

#[test]
fn a_wide_glyph_is_refused_in_the_last_column() {
    let screen = blank_but(|screen| {
        assert_eq!(screen.set(0, 79, '漢', PLAIN), 79);
        assert_eq!(screen.put_wide(0, 79, "x", PLAIN), 79);
        assert_eq!(screen.text(0, 78, "a漢b", PLAIN), 82);
    });
    assert_eq!(
        screen.row_text(0).trim_end(),
        format!("{}a", " ".repeat(78))
    );
    assert_eq!(
        blank_but(|screen| assert_eq!(screen.set(0, 78, '漢', PLAIN), 80))
            .cell(0, 79)
            .map(|cell| cell.cont),
        Some(true)
    );
}

#[test]
fn overwriting_half_of_a_wide_glyph_blanks_the_other_half() {
    for col in [4, 5] {
        let screen = blank_but(|screen| {
            screen.set(0, 4, '漢', PLAIN);
            screen.set(0, col, 'x', PLAIN);
        });
        assert_eq!(
            screen,
            blank_but(|screen| {
                screen.set(0, col, 'x', PLAIN);
            })
        );
    }
    let screen = blank_but(|screen| {
        screen.text(0, 4, "漢漢", PLAIN);
        screen.set(0, 5, '字', PLAIN);
    });
    assert_eq!(
        screen,
        blank_but(|screen| {
            screen.set(0, 5, '字', PLAIN);
        })
    );
}

#[test]
fn marks_join_the_glyph_before_them_also_across_write_arguments() {
    let screen = blank_but(|screen| {
        let (base, mark) = ('e', '\u{301}');
        write!(screen.pen(0, 0, PLAIN), "{base}{mark}x").unwrap();
    });
    assert_eq!(cp(&screen, 0, 0), ['e' as u32, 0x301, 0]);
    assert_eq!(cp(&screen, 0, 1), ['x' as u32, 0, 0]);
}

#[test]
fn a_variation_selector_widens_the_glyph_it_follows() {
    let screen = blank_but(|screen| assert_eq!(screen.text(0, 0, "❤\u{fe0f}!", PLAIN), 3));
    assert_eq!(cp(&screen, 0, 0), ['❤' as u32, 0xFE0F, 0]);
    assert!(screen.cell(0, 1).unwrap().cont);
    assert_eq!(cp(&screen, 0, 2)[0], '!' as u32);
    // In the last column it cannot widen, so it is not there at all.
    let edge = blank_but(|screen| {
        screen.text(0, 79, "❤\u{fe0f}", PLAIN);
    });
    assert_eq!(edge, Screen::new());
}

#[test]
fn a_glyph_of_more_than_three_code_points_is_shown_replaced_in_its_columns() {
    let screen = blank_but(|screen| {
        assert_eq!(screen.text(0, 0, "👨\u{200d}👩\u{200d}👧!", PLAIN), 3);
        assert_eq!(screen.glyph(5, 5, "👨\u{200d}👩\u{200d}👧", PLAIN), 5);
    });
    assert_eq!(screen.row_text(0).trim_end(), "\u{fffd} !");
    assert_eq!(screen.row_text(5).trim_end(), "");
}

#[test]
fn text_that_begins_left_of_the_screen_is_cut_there() {
    let screen = blank_but(|screen| assert_eq!(screen.text(0, -3, "abcdef", PLAIN), 3));
    assert_eq!(screen.row_text(0).trim_end(), "def");
}

#[test]
fn a_newline_goes_on_below_where_the_text_began() {
    let screen = blank_but(|screen| {
        screen.text(3, 10, "ab\ncd\r\n\x07e", PLAIN);
    });
    let rows = [3, 4, 5].map(|row| screen.row_text(row).trim().to_owned());
    assert_eq!(rows, ["ab", "cd", "e"]);
    assert_eq!(cp(&screen, 4, 10)[0], 'c' as u32);
}

#[test]
fn aligned_text_counts_columns_and_not_characters() {
    let screen = blank_but(|screen| {
        assert_eq!(screen.text_right(0, 80, "漢字", PLAIN), 76);
        assert_eq!(screen.text_center(1, "漢字", PLAIN), 38);
        assert_eq!(
            screen.text_center_in(Rect::new(0, 10, 5, 5), 2, "e\u{301}", PLAIN),
            12
        );
        assert_eq!(screen.text_center(3, &"x".repeat(90), PLAIN), -5);
    });
    assert!(screen.row_text(0).ends_with("漢字"));
    assert_eq!(screen.row_text(3), "x".repeat(80));
}

#[test]
fn fitted_text_is_exactly_as_wide_as_asked() {
    let fit = |text: &str, cols| {
        let screen = blank_but(|screen| {
            screen.fill(Rect::SCREEN, '#', PLAIN);
            screen.text_fit(0, 0, cols, text, PLAIN);
        });
        screen.row_text(0).replace("##", "")
    };
    assert_eq!(fit("ada", 6), "ada   ");
    assert_eq!(fit("adalovelace", 6), "adalo…");
    assert_eq!(fit("漢字漢字", 6), "漢字… ");
    assert_eq!(fit("漢字", 0), "");
}

#[test]
fn a_wide_fill_leaves_an_odd_last_column_blank() {
    let screen = blank_but(|screen| screen.fill(Rect::new(0, 0, 1, 5), '漢', PLAIN));
    assert_eq!(screen.row_text(0).trim_end(), "漢漢");
    assert_eq!(cp(&screen, 0, 4)[0], SPACE);
}

#[test]
fn a_border_has_corners_and_a_degenerate_one_is_nothing() {
    let screen = blank_but(|screen| {
        screen.border(Rect::new(0, 0, 3, 4), Border::Single, PLAIN);
        screen.border(Rect::new(5, 5, 1, 9), Border::Single, PLAIN);
    });
    let rows = [0, 1, 2, 5].map(|row| screen.row_text(row).trim_end().to_owned());
    assert_eq!(rows, ["┌──┐", "│  │", "└──┘", ""]);
}

#[test]
fn restyling_keeps_the_glyphs() {
    let screen = blank_but(|screen| {
        screen.text(0, 0, "a漢e\u{301}", PLAIN);
        screen.restyle(Rect::new(0, 0, 1, 80), crate::Color::RED);
    });
    assert_eq!(screen.row_text(0).trim_end(), "a漢e\u{301}");
    assert!(screen.cell(0, 2).unwrap().cont);
    assert_eq!(
        screen.cell(0, 2).unwrap().fg,
        Some(crate::Color::RED.channels())
    );
}

#[test]
fn a_glyph_too_long_for_a_cell_in_the_last_column_there_is_draws_nothing() {
    let screen = blank_but(|screen| {
        for text in ["👍\u{1F3FD}\u{301}\u{301}", "a\u{301}\u{302}\u{303}"] {
            screen.text(0, i32::MAX, text, PLAIN);
            screen.pen(0, i32::MAX - 1, PLAIN).push_str(text);
        }
    });
    assert_eq!(screen, Screen::new());
}

/// The screen as its documentation has it, one cell at a time.
struct Model(Vec<Cell>);

impl Model {
    fn place(&mut self, row: i32, col: i32, ch: char, style: Style) {
        let wide = crate::char_width(ch) == 2;
        if !on_screen(row, col) || (wide && !on_screen(row, col + 1)) {
            return;
        }
        let index = cell_index(row, col);
        self.split(row, col);
        if wide {
            self.split(row, col + 1);
            self.0[index + 1] = styled([0; 3], style, true);
        }
        self.0[index] = styled([u32::from(ch), 0, 0], style, false);
    }

    /// Blanks the other half of what a cell is half of.
    fn split(&mut self, row: i32, col: i32) {
        for (half, other) in [(col, col - 1), (col + 1, col + 1)] {
            if on_screen(row, half) && self.0[cell_index(row, half)].cont {
                let cell = &mut self.0[cell_index(row, other)];
                (cell.cp, cell.cont) = ([SPACE, 0, 0], false);
            }
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(Cell::to_bytes).collect()
    }
}

fn styled(cp: [u32; 3], style: Style, cont: bool) -> Cell {
    Cell {
        cp,
        fg: style.fg.map(crate::Color::channels),
        bg: style.bg.map(crate::Color::channels),
        attr: style.attr,
        cont,
    }
}

#[derive(Clone, Debug)]
enum Draw {
    Clear,
    Set(i32, i32, char, Style),
    Text(i32, i32, String, Style),
    Fill(Rect, char, Style),
    Restyle(Rect, Style),
}

fn draw() -> impl Strategy<Value = Draw> {
    let color =
        || proptest::option::of(any::<[u8; 3]>().prop_map(|[r, g, b]| crate::Color::rgb(r, g, b)));
    let style =
        move || (color(), color(), 0..16_u8).prop_map(|(fg, bg, attr)| Style { fg, bg, attr });
    let glyph = || proptest::sample::select(&['a', ' ', '█', 'é', '漢'][..]);
    let rect = || {
        (-2..25, -2..82, 0..9, 0..90)
            .prop_map(|(row, col, rows, cols)| Rect::new(row, col, rows, cols))
    };
    prop_oneof![
        1 => Just(Draw::Clear),
        4 => (-1..25, -2..82, glyph(), style()).prop_map(|(row, col, ch, style)| Draw::Set(row, col, ch, style)),
        4 => (-1..25, -9..82, "[a-z ]{0,12}漢?[0-9é漢]{0,4}", style()).prop_map(|(row, col, text, style)| Draw::Text(row, col, text, style)),
        2 => (rect(), glyph(), style()).prop_map(|(rect, ch, style)| Draw::Fill(rect, ch, style)),
        1 => (rect(), style()).prop_map(|(rect, style)| Draw::Restyle(rect, style)),
    ]
}

/// Draws a step on the model, cell by cell.
fn draw_slowly(model: &mut Model, step: &Draw) {
    match *step {
        Draw::Clear => model.0.fill(styled([SPACE, 0, 0], PLAIN, false)),
        Draw::Set(row, col, ch, style) => model.place(row, col, ch, style),
        Draw::Text(row, col, ref text, style) => {
            let mut at = col;
            for ch in text.chars() {
                model.place(row, at, ch, style);
                at += i32::from(crate::char_width(ch));
            }
        }
        Draw::Fill(rect, ch, style) => {
            for row in rect.row.max(0)..rect.row_end().min(24) {
                let (mut col, end) = (rect.col.max(0), rect.col_end().min(80));
                while col < end {
                    let width = i32::from(crate::char_width(ch));
                    model.place(row, col, if col + width > end { ' ' } else { ch }, style);
                    col += width;
                }
            }
        }
        Draw::Restyle(rect, style) => {
            for row in rect.row.max(0)..rect.row_end().min(24) {
                for col in rect.col.max(0)..rect.col_end().min(80) {
                    let cell = &mut model.0[cell_index(row, col)];
                    *cell = styled(cell.cp, style, cell.cont);
                }
            }
        }
    }
}

proptest::proptest! {
    #[test]
    fn drawing_by_the_row_is_drawing_cell_by_cell(
        steps in proptest::collection::vec(draw(), 0..40),
    ) {
        let mut screen = Screen::new();
        let mut model = Model(vec![styled([SPACE, 0, 0], PLAIN, false); FRAME_CELLS]);
        for step in steps {
            draw_slowly(&mut model, &step);
            match step {
                Draw::Clear => screen.clear(),
                Draw::Set(row, col, ch, style) => {
                    screen.set(row, col, ch, style);
                }
                Draw::Text(row, col, text, style) => {
                    screen.text(row, col, &text, style);
                }
                Draw::Fill(rect, ch, style) => screen.fill(rect, ch, style),
                Draw::Restyle(rect, style) => screen.restyle(rect, style),
            }
            proptest::prop_assert!(screen.bytes()[..] == model.bytes()[..], "{:?}", screen);
            for row in 0..ROWS {
                let Row { bytes, end } = screen.row(row);
                let rest = &bytes.as_chunks::<CELL_BYTES>().0[usize::from(end)..];
                proptest::prop_assert!(rest.iter().all(|cell| *cell == BLANK_CELL), "row {}", row);
            }
        }
    }

    #[test]
    fn text_written_at_once_is_text_written_one_code_point_at_a_time(
        row in -1..25_i32,
        col in prop_oneof![-9..90_i32, Just(i32::MIN), Just(i32::MAX - 2)],
        end in prop_oneof![Just(i32::MAX), -2..90_i32],
        texts in proptest::collection::vec("[a-z ]{0,9}[a漢👍\u{301}\u{fe0f}\u{200d}❤1\n\u{7}]{0,4}", 0..6),
    ) {
        let mut at_once = Screen::new();
        at_once.fill(Rect::SCREEN, '漢', PLAIN);
        let mut one_by_one = at_once.clone();
        let mut pens = [&mut at_once, &mut one_by_one].map(|screen| screen.pen(row, col, PLAIN).until(end));
        let [fast, slow] = &mut pens;
        for text in &texts {
            fast.push_str(text);
            text.chars().for_each(|ch| slow.push(ch));
            let states = [&*fast, &*slow].map(|pen| (pen.row(), pen.col(), pen.drawn_to()));
            proptest::prop_assert_eq!(states[0], states[1]);
        }
        proptest::prop_assert!(at_once == one_by_one, "{:?}\n{:?}", at_once, one_by_one);
    }

    #[test]
    fn no_half_of_a_wide_glyph_is_ever_alone(
        writes in proptest::collection::vec((0..3_i32, -2..82_i32, "[a漢👍\u{301}\u{fe0f}\u{200d}❤\n]{0,6}"), 0..40),
    ) {
        let mut screen = Screen::new();
        for (row, col, text) in &writes {
            screen.text(*row, *col, text, PLAIN);
        }
        for row in 0..3 {
            for col in 0..RIGHT {
                let cell = screen.cell(row, col).unwrap();
                if cell.cont {
                    let base = screen.cell(row, col - 1).unwrap();
                    proptest::prop_assert!(!base.cont && base.cp[0] > SPACE);
                } else {
                    proptest::prop_assert!(cell.cp[0] >= SPACE);
                }
            }
        }
    }
}
