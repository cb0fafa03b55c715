//! The screens a template's `smoke.yaml` films, as the game draws them.
//!
//! They are committed with a new game, so that `smoke --check` has something to hold it to from the
//! first day. Nothing is compiled when a game is made, hence each screen is written down here; only
//! the title differs from game to game. `tests/templates.rs` holds them to what the games draw.

use cabinet_host::Frame;
use cabinet_wire::cell::{ATTR_BOLD, Cell};
use cabinet_wire::{CELL_BYTES, COLS, FRAME_BYTES};

use crate::smoke::files::Picture;

use super::Template;

// The SDK's colours.
const YELLOW: [u8; 3] = [0xF7, 0xD1, 0x54];
const GREEN: [u8; 3] = [0x5A, 0xF7, 0x8E];
const GRAY: [u8; 3] = [0x80; 3];

/// What `smoke` makes of the template under this title, of at most 80 ASCII characters.
pub(super) fn of(template: Template, title: &str) -> Vec<Picture> {
    let picture = |stem: &str, middle: &[(usize, usize, &str)]| {
        let mut screen = Screen([0; FRAME_BYTES]);
        screen.text((2, centred(title)), title, YELLOW, ATTR_BOLD);
        for (row, col, text) in middle {
            screen.text((*row, *col), text, GREEN, 0);
        }
        let hint = "space: press";
        screen.text((22, centred(hint)), hint, GRAY, 0);
        Picture {
            stem: stem.to_owned(),
            frame: Frame::from_bytes(&screen.0),
        }
    };
    match template {
        Template::Blank => vec![
            picture("01-start", &[(11, 30, "0 keys by 1")]),
            picture("02-two-keys", &[(11, 30, "2 keys by 1")]),
        ],
        Template::Sprint => vec![
            picture(
                "01-start",
                &[(5, 24, "seat0          0 >"), (6, 24, "seat1          0 >")],
            ),
            picture(
                "02-three-to-one",
                &[
                    (5, 24, "seat0          3 ===>"),
                    (6, 24, "seat1          1 =>"),
                ],
            ),
        ],
    }
}

/// The column in which a text in the middle begins.
fn centred(text: &str) -> usize {
    COLS.saturating_sub(text.len()) / 2
}

struct Screen([u8; FRAME_BYTES]);

impl Screen {
    fn text(&mut self, (row, col): (usize, usize), text: &str, fg: [u8; 3], attr: u8) {
        let from = (row * COLS + col) * CELL_BYTES;
        let cells = self.0[from..].chunks_exact_mut(CELL_BYTES);
        for (bytes, glyph) in cells.zip(text.chars()) {
            let fg = Some(fg);
            let cell = Cell {
                fg,
                attr,
                ..Cell::of(glyph)
            };
            bytes.copy_from_slice(&cell.to_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_of_any_length_is_in_the_middle_and_on_the_screen() {
        for title in ["", "X", "Tic Tac", &"W".repeat(32), &"W".repeat(80)] {
            for template in [Template::Blank, Template::Sprint] {
                for picture in of(template, title) {
                    let row = picture.frame.row_text(2);
                    assert_eq!(row.trim(), title, "{}", picture.stem);
                    let left = row.len() - row.trim_start().len();
                    let centred = title.is_empty() || left == (COLS - title.len()) / 2;
                    assert!(centred, "{row:?}");
                }
            }
        }
    }
}
