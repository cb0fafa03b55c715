//! What is written for a cell's code points, so that it is as wide as its place and moves nothing.
//!
//! Games may put any code points in a cell. What reaches a terminal here is never a control
//! character, nothing that changes the writing direction, and exactly as wide as the cells it was
//! drawn on; without UTF-8 it is ASCII.

use unicode_width::UnicodeWidthChar;

/// Code points of one place on the screen, ready to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glyph {
    chars: [char; 3],
    count: u8,
    /// The places it covers: 1 or 2.
    pub width: u8,
}

impl Glyph {
    /// A blank.
    pub const BLANK: Self = Self::ascii(' ');

    const fn ascii(c: char) -> Self {
        Self {
            chars: [c, '\0', '\0'],
            count: 1,
            width: 1,
        }
    }

    /// A character of our own texts.
    #[must_use]
    pub fn of(c: char, utf8: bool) -> Self {
        Self::of_cell([u32::from(c), 0, 0], false, utf8)
    }

    /// What is written for a cell with these code points; `wide` when the cell to its right is its
    /// right half.
    #[must_use]
    pub fn of_cell(cp: [u32; 3], wide: bool, utf8: bool) -> Self {
        let Some(base) = base(cp[0]) else {
            return Self::BLANK;
        };
        if !utf8 {
            return Self::ascii(fallback(base));
        }
        let width = base.width().unwrap_or(0);
        if width == 0 {
            return Self::BLANK;
        }
        if width > 1 && !wide {
            // One place is all there is for it.
            return Self::ascii('?');
        }
        let mut glyph = Self {
            chars: [base, '\0', '\0'],
            count: 1,
            width: if width > 1 { 2 } else { 1 },
        };
        for point in &cp[1..] {
            let Some(extra) = char::from_u32(*point).filter(|_| *point != 0) else {
                continue;
            };
            if combines(glyph.chars(), extra, wide) {
                glyph.chars[usize::from(glyph.count)] = extra;
                glyph.count += 1;
                if is_flag(extra) || extra == EMOJI_STYLE && wide {
                    glyph.width = 2;
                }
            }
        }
        glyph
    }

    /// The code points.
    #[must_use]
    pub fn chars(&self) -> &[char] {
        &self.chars[..usize::from(self.count)]
    }

    /// Whether a terminal may think otherwise of its width than we do.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        !self.chars[0].is_ascii() || self.count > 1
    }
}

const ZERO_WIDTH_JOINER: char = '\u{200D}';
const EMOJI_STYLE: char = '\u{FE0F}';

/// The first code point, unless it shows as a blank.
fn base(point: u32) -> Option<char> {
    char::from_u32(point).filter(|c| *c > ' ' && !moves_the_text(*c))
}

/// Control characters, and those that reorder or break lines.
fn moves_the_text(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200E}' | '\u{200F}' | '\u{061C}' | '\u{FEFF}')
        || matches!(c, '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FFF9}'..='\u{FFFB}')
}

fn is_flag(c: char) -> bool {
    matches!(c, '\u{1F1E6}'..='\u{1F1FF}')
}

/// Whether `extra` becomes part of what is written already instead of taking a place of its own.
fn combines(before: &[char], extra: char, wide: bool) -> bool {
    if moves_the_text(extra) {
        return false;
    }
    let last = before.last().copied().unwrap_or(' ');
    match extra.width().unwrap_or(0) {
        0 => true,
        _ if !wide => false,
        _ => {
            let skin = matches!(extra, '\u{1F3FB}'..='\u{1F3FF}');
            let flag = is_flag(extra) && is_flag(last) && before.len() == 1;
            skin || flag || last == ZERO_WIDTH_JOINER
        }
    }
}

/// The ASCII character that stands for `c` where there is no UTF-8.
#[must_use]
pub fn fallback(c: char) -> char {
    match c {
        ' '..='~' => c,
        '\u{FF01}'..='\u{FF5E}' => {
            // Full-width forms lie a fixed distance from ASCII.
            char::from_u32(u32::from(c) - 0xFEE0).unwrap_or('?')
        }
        '\u{3000}' | '\u{A0}' => ' ',
        '─' | '━' | '═' | '╌' | '╍' | '┄' | '┅' | '┈' | '┉' | '╴' | '╶' | '╸' | '╺' | '╼' | '╾' => {
            '-'
        }
        '│' | '┃' | '║' | '╎' | '╏' | '┆' | '┇' | '┊' | '┋' | '╵' | '╷' | '╹' | '╻' | '╽' | '╿' => {
            '|'
        }
        '╱' => '/',
        '╲' => '\\',
        '\u{2500}'..='\u{257F}' => '+',
        '░' => '.',
        '▒' => ':',
        '▓' | '█' | '▀' | '▄' | '▌' | '▐' | '■' | '▪' | '◼' => '#',
        '□' | '▫' | '◻' => '.',
        '·' | '•' | '∙' | '⋅' => '.',
        '○' | '●' | '◯' | '◉' | '◎' | '⚪' | '⚫' => 'o',
        '►' | '▶' | '▸' | '→' => '>',
        '◄' | '◀' => '>',
        '◂' | '←' => '<',
        '▲' | '↑' => '^',
        '▼' | '↓' => 'v',
        '♠' | '♤' => 'S',
        '♥' | '♡' => 'H',
        '♦' | '♢' => 'D',
        '♣' | '♧' => 'C',
        '♔' => 'K',
        '♕' => 'Q',
        '♖' => 'R',
        '♗' => 'B',
        '♘' => 'N',
        '♙' => 'P',
        '♚' => 'k',
        '♛' => 'q',
        '♜' => 'r',
        '♝' => 'b',
        '♞' => 'n',
        '♟' => 'p',
        '🍒' => 'C',
        '🔔' => 'B',
        '★' | '☆' | '⭐' => '*',
        '💎' => 'D',
        '…' => '.',
        '–' | '—' => '-',
        '‘' | '’' => '\'',
        '“' | '”' => '"',
        '×' => 'x',
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(cp: [u32; 3], wide: bool, utf8: bool) -> (String, u8) {
        let glyph = Glyph::of_cell(cp, wide, utf8);
        (glyph.chars().iter().collect(), glyph.width)
    }

    #[test]
    fn nothing_a_game_writes_controls_the_terminal() {
        for point in [
            0,
            7,
            0x1B,
            0x7F,
            0x9B,
            0x202E,
            0x2066,
            0xFEFF,
            0xD800,
            0x11_0000,
            u32::MAX,
        ] {
            assert_eq!(
                written([point, 0, 0], false, true),
                (" ".into(), 1),
                "{point:x}"
            );
            assert_eq!(
                written(['a' as u32, point, point], false, true),
                ("a".into(), 1)
            );
        }
    }

    #[test]
    fn a_cluster_is_written_whole_with_utf8_and_as_one_stand_in_without() {
        let accent = ['e' as u32, 0x301, 0];
        assert_eq!(written(accent, false, true), ("e\u{301}".into(), 1));
        assert_eq!(written(accent, false, false), ("e".into(), 1));
        let flag = [0x1F1E8, 0x1F1ED, 0];
        assert_eq!(written(flag, true, true), ("\u{1F1E8}\u{1F1ED}".into(), 2));
        let skin = [0x1F44D, 0x1F3FD, 0];
        assert_eq!(written(skin, true, true), ("\u{1F44D}\u{1F3FD}".into(), 2));
    }

    #[test]
    fn a_glyph_takes_the_places_it_was_drawn_on() {
        assert_eq!(written(['日' as u32, 0, 0], true, true), ("日".into(), 2));
        // Its right half was not drawn.
        assert_eq!(written(['日' as u32, 0, 0], false, true), ("?".into(), 1));
        // A second letter would be drawn over the next place.
        assert_eq!(
            written(['a' as u32, 'b' as u32, 0], false, true),
            ("a".into(), 1)
        );
        // A mark with nothing to stand on.
        assert_eq!(written([0x301, 0, 0], false, true), (" ".into(), 1));
    }

    #[test]
    fn without_utf8_the_usual_glyphs_have_their_stand_ins() {
        for (from, to) in [
            ("─━═", "---"),
            ("│┃║", "|||"),
            ("┌┐└┘├┼╬╭", "++++++++"),
            ("○●", "oo"),
            ("►▶◄◀", ">>>>"),
            ("♠♥♦♣", "SHDC"),
            ("♔♕♖♗♘♙♚♛♜♝♞♟", "KQRBNPkqrbnp"),
            ("🍒🔔★💎", "CB*D"),
            ("ＡＺａ！～", "AZa!~"),
            ("Añ日é", "A???"),
        ] {
            let got: String = from.chars().map(fallback).collect();
            assert_eq!(got, to, "{from}");
        }
    }

    proptest! {
        #[test]
        fn any_cell_is_written_in_its_places_and_nowhere_else(
            cp in any::<[u32; 3]>(), low in prop::array::uniform3(0u32..0x1_2000), wide: bool, utf8: bool,
        ) {
            for cp in [cp, low] {
                let glyph = Glyph::of_cell(cp, wide, utf8);
                prop_assert!(glyph.width == 1 || wide && glyph.width == 2);
                prop_assert!(!glyph.chars().is_empty());
                for c in glyph.chars() {
                    prop_assert!(!moves_the_text(*c));
                    prop_assert!(utf8 || c.is_ascii());
                }
            }
        }
    }
}
