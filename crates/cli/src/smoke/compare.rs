//! Committed shots against what the game draws now, cell by cell.

use std::fmt::Write as _;

use cabinet_wire::cell::Cell;
use cabinet_wire::{COLS, ROWS};
use unicode_width::UnicodeWidthChar;

use crate::outcome::Problem;

use super::files::Picture;
use super::font::Font;
use super::pixels::Pixels;
use super::render::{self, ATTRS, Style};

/// Largest committed file that is read, bytes; one of ours has 200 KiB at most.
pub const MAX_SHOT_BYTES: u64 = 1 << 20;
/// Cells of a picture that are listed; the rest are counted.
const CELLS_SHOWN: usize = 12;

/// One cell as it shows: its glyph and its style.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Shown {
    glyph: String,
    style: Style,
}

/// What is different between a committed ANSI file and a picture, one line each, the name of the
/// file first. Empty when the bytes are the same.
#[must_use]
pub fn difference(picture: &Picture, committed: &[u8]) -> Vec<String> {
    let (name, bytes) = picture.ansi();
    if committed == bytes {
        return Vec::new();
    }
    let Some(before) = read(committed) else {
        return vec![format!("{name}: what is committed is not a shot file")];
    };
    let now: Vec<Vec<Shown>> = (0..ROWS).map(|row| shown(picture, row)).collect();
    let mut cells = Vec::new();
    let mut rows = Vec::new();
    for (row, (before, now)) in before.iter().zip(&now).enumerate() {
        let differing = |col: &usize| before.get(*col) != now.get(*col);
        let columns: Vec<usize> = (0..COLS).filter(differing).collect();
        if !columns.is_empty() {
            rows.push(row);
        }
        let nothing = Shown::default();
        cells.extend(columns.into_iter().map(|col| {
            let was = before.get(col).unwrap_or(&nothing);
            let is = now.get(col).unwrap_or(&nothing);
            format!("  row {row}, col {col}: {}, now {}", tell(was), tell(is))
        }));
    }
    if cells.is_empty() {
        let what = "looks the same but has other bytes: line ends changed on the way?";
        return vec![format!("{name}: {what}")];
    }
    let count = cells.len();
    let noun = if count == 1 { "cell" } else { "cells" };
    let mut lines = vec![format!(
        "{name}: {count} {noun} differ in {} of {ROWS} rows",
        rows.len()
    )];
    lines.extend(cells.drain(..count.min(CELLS_SHOWN)));
    if !cells.is_empty() {
        lines.push(format!("  and {} more", cells.len()));
    }
    for row in rows {
        let text = |row: &[Shown]| {
            let text: String = row.iter().map(|cell| &*cell.glyph).collect();
            // Marks of direction are no controls to Unicode, and turn a line around.
            Problem::new(text.trim_end()).to_string()
        };
        let (was, is) = (text(&before[row]), text(&now[row]));
        if was != is {
            lines.push(format!("- {row:>2} |{was}"));
            lines.push(format!("+ {row:>2} |{is}"));
        }
    }
    lines
}

/// What is different between a committed PNG file and a picture, by what it looks like: who squeezed
/// the file did not change it. With `cells` the cells are listed, else it is said in one line.
#[must_use]
pub fn png_difference(
    picture: &Picture,
    font: &Font,
    committed: Option<&[u8]>,
    cells: bool,
) -> Vec<String> {
    let name = picture.png_name();
    let Some(committed) = committed else {
        return vec![format!("{name}: not committed")];
    };
    let Some(before) = Pixels::read(committed) else {
        return vec![format!(
            "{name}: what is committed is no picture of a screen"
        )];
    };
    let now = Pixels::of(&picture.frame, font);
    let differing: Vec<(usize, usize)> = before.differing(&now).collect();
    let count = differing.len();
    if count == 0 {
        return Vec::new();
    }
    let noun = if count == 1 {
        "cell looks"
    } else {
        "cells look"
    };
    let mut lines = vec![format!("{name}: {count} {noun} different")];
    if cells {
        let shown = differing.iter().take(CELLS_SHOWN);
        lines.extend(shown.map(|(row, col)| format!("  row {row}, col {col}")));
        if count > CELLS_SHOWN {
            lines.push(format!("  and {} more", count - CELLS_SHOWN));
        }
    }
    lines
}

/// A cell in words: `"x" bold fg=#ff0000`.
fn tell(cell: &Shown) -> String {
    let mut text = format!("\"{}\"", cell.glyph.escape_debug());
    // Writing to a string does not fail.
    for (_, _, name) in ATTRS.iter().filter(|(bit, ..)| cell.style.attr & bit != 0) {
        let _ = write!(text, " {name}");
    }
    for (name, colour) in [("fg", cell.style.fg), ("bg", cell.style.bg)] {
        if let Some([r, g, b]) = colour {
            let _ = write!(text, " {name}=#{r:02x}{g:02x}{b:02x}");
        }
    }
    text
}

/// A row of a picture; the right half of a wide glyph is a cell without one.
fn shown(picture: &Picture, row: usize) -> Vec<Shown> {
    let show = |cell: Cell| match cell.cont {
        true => Shown::default(),
        false => Shown {
            glyph: render::glyph(&cell),
            style: Style::of(&cell),
        },
    };
    render::cells(&picture.frame, row).map(show).collect()
}

/// The rows of an ANSI shot file; `None` for what is none. Where a glyph begins and ends is not
/// written down, so this goes by the width of characters, as a terminal does.
fn read(bytes: &[u8]) -> Option<Vec<Vec<Shown>>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let rows: Vec<Vec<Shown>> = text.lines().map(read_row).collect::<Option<_>>()?;
    (rows.len() == ROWS).then_some(rows)
}

/// Whether these bytes are an ANSI shot file.
#[must_use]
pub fn is_shot(bytes: &[u8]) -> bool {
    read(bytes).is_some()
}

fn read_row(line: &str) -> Option<Vec<Shown>> {
    let mut row: Vec<Shown> = Vec::new();
    let mut style = Style::default();
    let mut last = 0;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c == '\x1b' {
            let (codes, after) = rest.as_str().strip_prefix('[')?.split_once('m')?;
            style = read_style(codes)?;
            rest = after.chars();
            continue;
        }
        // No shot has any: what is committed may come from anybody, and is shown.
        if c.is_control() {
            return None;
        }
        let joins = c.width() == Some(0)
            || row
                .get(last)
                .is_some_and(|cell| cell.glyph.ends_with('\u{200d}'));
        match row.get_mut(last) {
            Some(cell) if joins && !cell.glyph.is_empty() => cell.glyph.push(c),
            _ => {
                last = row.len();
                let glyph = c.to_string();
                row.push(Shown { glyph, style });
                if c.width() == Some(2) {
                    row.push(Shown::default());
                }
            }
        }
    }
    Some(row)
}

fn read_style(codes: &str) -> Option<Style> {
    let mut style = Style::default();
    let mut codes = codes.split(';').map(|code| code.parse::<u8>().ok());
    while let Some(code) = codes.next() {
        match code? {
            0 => style = Style::default(),
            colour @ (38 | 48) => {
                if codes.next()?? != 2 {
                    return None;
                }
                let rgb = [codes.next()??, codes.next()??, codes.next()??];
                *(if colour == 38 {
                    &mut style.fg
                } else {
                    &mut style.bg
                }) = Some(rgb);
            }
            code => style.attr |= ATTRS.iter().find(|(_, known, _)| *known == code)?.0,
        }
    }
    Some(style)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cabinet_host::Frame;
    use cabinet_wire::{CELL_BYTES, FRAME_BYTES};
    use proptest::prelude::*;

    fn picture(cells: &[(usize, usize, Cell)]) -> Picture {
        let mut grid = [0; FRAME_BYTES];
        for (row, col, cell) in cells {
            let at = (row * COLS + col) * CELL_BYTES;
            grid[at..at + CELL_BYTES].copy_from_slice(&cell.to_bytes());
        }
        Picture {
            stem: "01-a".to_owned(),
            frame: Frame::from_bytes(&grid),
        }
    }

    #[test]
    fn every_cell_that_changed_is_named_with_what_it_was_and_is() {
        let red = Cell {
            fg: Some([255, 0, 0]),
            attr: 1,
            ..Cell::of('x')
        };
        let before = picture(&[(0, 0, red), (3, 4, Cell::of('a')), (3, 5, Cell::of('b'))]);
        let now = picture(&[
            (0, 0, Cell::of('x')),
            (3, 4, Cell::of('a')),
            (3, 5, Cell::of('c')),
        ]);
        let committed = before.ansi().1;
        assert_eq!(difference(&before, &committed), Vec::<String>::new());
        assert_eq!(
            difference(&now, &committed),
            [
                "01-a.ansi: 2 cells differ in 2 of 24 rows",
                "  row 0, col 0: \"x\" bold fg=#ff0000, now \"x\"",
                "  row 3, col 5: \"b\", now \"c\"",
                "-  3 |    ab",
                "+  3 |    ac",
            ]
        );
    }

    #[test]
    fn wide_glyphs_and_clusters_keep_their_columns() {
        let right = Cell {
            cont: true,
            ..Cell::default()
        };
        let keycap = Cell {
            cp: ['7' as u32, 0xfe0f, 0x20e3],
            ..Cell::default()
        };
        let cells = |last| {
            [
                (0, 0, Cell::of('個')),
                (0, 1, right),
                (0, 2, keycap),
                (0, 3, Cell::of(last)),
            ]
        };
        let committed = picture(&cells('a')).ansi().1;
        let found = difference(&picture(&cells('b')), &committed);
        assert_eq!(found[1], "  row 0, col 3: \"a\", now \"b\"");
    }

    #[test]
    fn a_long_list_is_cut_and_counted() {
        let row: Vec<(usize, usize, Cell)> = (0..COLS).map(|col| (1, col, Cell::of('z'))).collect();
        let found = difference(&picture(&row), &picture(&[]).ansi().1);
        assert_eq!(found[0], "01-a.ansi: 80 cells differ in 1 of 24 rows");
        assert_eq!(found[1 + CELLS_SHOWN], "  and 68 more");
    }

    #[test]
    fn changed_line_ends_and_foreign_files_are_told_apart() {
        let now = picture(&[(0, 0, Cell::of('x'))]);
        let crlf = String::from_utf8(now.ansi().1)
            .unwrap()
            .replace('\n', "\r\n");
        let told = |bytes: &[u8]| difference(&now, bytes).join("\n");
        assert!(
            told(crlf.as_bytes()).contains("has other bytes"),
            "{}",
            told(crlf.as_bytes())
        );
        for foreign in [&b"hello\n"[..], b"\xff", b"", b"\x1b[31m\n"] {
            assert_eq!(
                told(foreign),
                "01-a.ansi: what is committed is not a shot file"
            );
        }
    }

    #[test]
    fn nothing_committed_draws_on_the_terminal_it_is_shown_on() {
        let now = picture(&[(0, 0, Cell::of('x'))]);
        let shot = String::from_utf8(picture(&[(0, 0, Cell::of('y'))]).ansi().1).unwrap();
        for hostile in [
            "\x07",
            "\x08",
            "\u{9b}2J",
            "\u{9d}0;pwn\u{9c}",
            "\r!",
            "\x0e",
        ] {
            let bytes = shot.replacen('y', hostile, 1);
            assert_eq!(
                difference(&now, bytes.as_bytes()),
                ["01-a.ansi: what is committed is not a shot file"],
                "{hostile:?}"
            );
        }
        let turned = shot.replacen('y', "y\u{202e}", 1);
        let told = difference(&now, turned.as_bytes()).join("\n");
        assert!(
            told.contains("202e") && !told.contains('\u{202e}'),
            "{told}"
        );
    }

    #[test]
    fn pictures_are_compared_by_what_they_look_like() {
        let font = Font::spleen();
        let now = picture(&[(0, 0, Cell::of('x')), (3, 4, Cell::of('y'))]);
        let told = |committed: Option<&[u8]>| png_difference(&now, &font, committed, true);
        let same = now.png(&font).1;
        assert_eq!(told(Some(&same)), Vec::<String>::new());
        assert_eq!(told(None), ["01-a.png: not committed"]);
        assert_eq!(
            told(Some(b"x")),
            ["01-a.png: what is committed is no picture of a screen"]
        );
        let before = picture(&[(0, 0, Cell::of('x'))]).png(&font).1;
        assert_eq!(
            told(Some(&before)),
            ["01-a.png: 1 cell looks different", "  row 3, col 4"]
        );
        let row: Vec<(usize, usize, Cell)> = (0..COLS).map(|col| (5, col, Cell::of('z'))).collect();
        let before = picture(&row).png(&font).1;
        let long = told(Some(&before));
        assert_eq!(
            (&*long[0], long.len(), &*long[13]),
            ("01-a.png: 82 cells look different", 14, "  and 70 more")
        );
        assert_eq!(png_difference(&now, &font, Some(&before), false).len(), 1);
    }

    proptest! {
        #[test]
        fn no_committed_bytes_make_it_panic(
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
        ) {
            let now = picture(&[(0, 0, Cell::of('個')), (5, 5, Cell { attr: 3, ..Cell::of('x') })]);
            let mut bytes = now.ansi().1;
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let same = bytes == now.ansi().1;
            prop_assert_eq!(difference(&now, &bytes).is_empty(), same);
        }
    }
}
