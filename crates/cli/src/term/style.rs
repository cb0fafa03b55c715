//! Colours and attributes of a place on the screen, and the codes that switch them on.

use std::fmt::Write;

use cabinet_wire::cell::{ATTR_BOLD, ATTR_DIM, ATTR_REVERSE, ATTR_UNDERLINE};

use super::caps::Depth;

/// How something is drawn. The default is the terminal's own way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// Colour of the glyph: red, green, blue.
    pub fg: Option<[u8; 3]>,
    /// Colour behind it.
    pub bg: Option<[u8; 3]>,
    /// `ATTR_*` bits of [`cabinet_wire::cell`]; others mean nothing.
    pub attr: u8,
}

const KNOWN_ATTRS: u8 = ATTR_BOLD | ATTR_DIM | ATTR_UNDERLINE | ATTR_REVERSE;

impl Style {
    /// Dim and grey: what is not the game's.
    pub const FAINT: Self = Self {
        fg: Some([0x80, 0x80, 0x80]),
        bg: None,
        attr: ATTR_DIM,
    };

    /// The same style with only what a terminal of `depth` tells apart.
    #[must_use]
    pub fn shown_in(self, depth: Depth) -> Self {
        let colour = |colour: Option<[u8; 3]>| colour.filter(|_| depth != Depth::None);
        Self {
            fg: colour(self.fg),
            bg: colour(self.bg),
            attr: self.attr & KNOWN_ATTRS,
        }
    }

    /// Appends the code that sets this style, whatever was set before.
    pub fn write(self, depth: Depth, out: &mut String) {
        out.push_str("\x1b[0");
        for (bit, code) in [
            (ATTR_BOLD, ";1"),
            (ATTR_DIM, ";2"),
            (ATTR_UNDERLINE, ";4"),
            (ATTR_REVERSE, ";7"),
        ] {
            if self.attr & bit != 0 {
                out.push_str(code);
            }
        }
        if let Some(rgb) = self.fg {
            write_colour(rgb, depth, 0, out);
        }
        if let Some(rgb) = self.bg {
            write_colour(rgb, depth, 10, out);
        }
        out.push('m');
    }
}

/// `layer` is 0 for the glyph and 10 for what is behind it.
fn write_colour(rgb: [u8; 3], depth: Depth, layer: u8, out: &mut String) {
    let [r, g, b] = rgb;
    // Writing to a string does not fail.
    let _ = match depth {
        Depth::None => Ok(()),
        Depth::Ansi16 => write!(out, ";{}", 30 + layer + ansi16(rgb)),
        Depth::Ansi256 => write!(out, ";{};5;{}", 38 + layer, ansi256(rgb)),
        Depth::Truecolor => write!(out, ";{};2;{r};{g};{b}", 38 + layer),
    };
}

/// 0 to 7, or 60 to 67 for the bright ones.
fn ansi16([r, g, b]: [u8; 3]) -> u8 {
    let hue = u8::from(r > 96) | u8::from(g > 96) << 1 | u8::from(b > 96) << 2;
    let sum = u16::from(r) + u16::from(g) + u16::from(b);
    hue + if sum > 384 { 60 } else { 0 }
}

fn ansi256([r, g, b]: [u8; 3]) -> u8 {
    if r == g && g == b {
        return match r {
            0..8 => 16,
            249.. => 231,
            // 23 at most.
            _ => 232 + (u16::from(r - 8) * 24 / 247) as u8,
        };
    }
    // 0 to 5.
    let step = |value: u8| (u16::from(value) * 5 / 255) as u8;
    16 + 36 * step(r) + 6 * step(g) + step(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(style: Style, depth: Depth) -> String {
        let mut out = String::new();
        style.shown_in(depth).write(depth, &mut out);
        out
    }

    #[test]
    fn a_colour_is_written_as_the_terminal_can_show_it() {
        let style = Style {
            fg: Some([255, 0, 0]),
            bg: Some([0, 0, 128]),
            attr: ATTR_BOLD | ATTR_REVERSE,
        };
        assert_eq!(
            code(style, Depth::Truecolor),
            "\x1b[0;1;7;38;2;255;0;0;48;2;0;0;128m"
        );
        assert_eq!(code(style, Depth::Ansi256), "\x1b[0;1;7;38;5;196;48;5;18m");
        assert_eq!(code(style, Depth::Ansi16), "\x1b[0;1;7;31;44m");
        assert_eq!(code(style, Depth::None), "\x1b[0;1;7m");
        assert_eq!(code(Style::default(), Depth::Truecolor), "\x1b[0m");
    }

    #[test]
    fn bright_colours_are_bright_and_greys_have_their_own_ramp() {
        let fg = |rgb, depth| {
            code(
                Style {
                    fg: Some(rgb),
                    ..Style::default()
                },
                depth,
            )
        };
        assert_eq!(fg([255, 255, 255], Depth::Ansi16), "\x1b[0;97m");
        assert_eq!(fg([128, 128, 128], Depth::Ansi16), "\x1b[0;37m");
        for (grey, index) in [
            (0, 16),
            (7, 16),
            (8, 232),
            (128, 243),
            (248, 255),
            (249, 231),
            (255, 231),
        ] {
            assert_eq!(
                fg([grey; 3], Depth::Ansi256),
                format!("\x1b[0;38;5;{index}m"),
                "{grey}"
            );
        }
    }

    #[test]
    fn attribute_bits_nobody_knows_are_not_written() {
        let style = Style {
            attr: 0xF0,
            ..Style::default()
        };
        assert_eq!(code(style, Depth::Truecolor), "\x1b[0m");
        let style = Style {
            attr: 0xFF,
            ..Style::default()
        };
        assert_eq!(code(style, Depth::Truecolor), "\x1b[0;1;2;4;7m");
    }
}
