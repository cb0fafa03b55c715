//! Colours and attributes of a cell.

/// A 24-bit colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Color {
    /// Red, 0 to 255.
    pub r: u8,
    /// Green, 0 to 255.
    pub g: u8,
    /// Blue, 0 to 255.
    pub b: u8,
}

impl Color {
    /// White, `ffffff`.
    pub const WHITE: Color = Color::rgb(0xFF, 0xFF, 0xFF);
    /// Light gray, `c0c0c0`.
    pub const SILVER: Color = Color::gray(0xC0);
    /// Medium gray, `808080`.
    pub const GRAY: Color = Color::gray(0x80);
    /// Dark gray, `404040`.
    pub const CHARCOAL: Color = Color::gray(0x40);
    /// Black, `000000`.
    pub const BLACK: Color = Color::gray(0);
    /// A red that reads well on black, `ff5c57`.
    pub const RED: Color = Color::rgb(0xFF, 0x5C, 0x57);
    /// Orange, `ff9f43`.
    pub const ORANGE: Color = Color::rgb(0xFF, 0x9F, 0x43);
    /// Yellow, `f7d154`.
    pub const YELLOW: Color = Color::rgb(0xF7, 0xD1, 0x54);
    /// Green, `5af78e`.
    pub const GREEN: Color = Color::rgb(0x5A, 0xF7, 0x8E);
    /// Cyan, `57d7ff`.
    pub const CYAN: Color = Color::rgb(0x57, 0xD7, 0xFF);
    /// A blue that reads well on black, `6c8cff`.
    pub const BLUE: Color = Color::rgb(0x6C, 0x8C, 0xFF);
    /// Magenta, `ff6ac1`.
    pub const MAGENTA: Color = Color::rgb(0xFF, 0x6A, 0xC1);

    /// A colour from its three channels.
    pub const fn rgb(r: u8, g: u8, b: u8) -> Color {
        Color { r, g, b }
    }

    /// A gray of the given lightness.
    pub const fn gray(level: u8) -> Color {
        Color::rgb(level, level, level)
    }

    #[cfg(test)]
    pub(crate) const fn channels(self) -> [u8; 3] {
        [self.r, self.g, self.b]
    }
}

/// How a glyph is drawn: foreground, background, attributes. Unset colours are the viewer's own.
///
/// ```
/// use cabinet_guest::{Color, Style};
/// const TITLE: Style = Style::new().fg(Color::YELLOW).bold();
/// assert_eq!(TITLE.bg, None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Style {
    /// Foreground, or the viewer's default.
    pub fg: Option<Color>,
    /// Background, or the viewer's default.
    pub bg: Option<Color>,
    /// Attribute bits: 1 bold, 2 dim, 4 underline, 8 reverse.
    pub attr: u8,
}

impl Style {
    /// The viewer's own colours, no attributes.
    pub const fn new() -> Style {
        Style {
            fg: None,
            bg: None,
            attr: 0,
        }
    }

    /// With this foreground.
    pub const fn fg(mut self, color: Color) -> Style {
        self.fg = Some(color);
        self
    }

    /// With this background.
    pub const fn bg(mut self, color: Color) -> Style {
        self.bg = Some(color);
        self
    }

    /// Bold.
    pub const fn bold(self) -> Style {
        self.with(1)
    }

    /// Dim.
    pub const fn dim(self) -> Style {
        self.with(2)
    }

    /// Underlined.
    pub const fn underline(self) -> Style {
        self.with(4)
    }

    /// Foreground and background exchanged.
    pub const fn reverse(self) -> Style {
        self.with(8)
    }

    const fn with(mut self, bit: u8) -> Style {
        self.attr |= bit;
        self
    }
}

/// A style as the words of a cell have it: the colours and attributes in bytes 12 to 20.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ink {
    /// Bytes 8 to 15, the code point in it still 0.
    pub middle: u64,
    /// Bytes 16 to 23, of a cell that continues no other.
    pub last: u64,
}

impl From<Style> for Ink {
    fn from(style: Style) -> Ink {
        Ink {
            middle: color_bytes(style.fg) << 32,
            last: color_bytes(style.bg) | u64::from(style.attr) << 32,
        }
    }
}

fn color_bytes(color: Option<Color>) -> u64 {
    match color {
        Some(Color { r, g, b }) => u64::from(u32::from_le_bytes([1, r, g, b])),
        None => 0,
    }
}

impl From<Color> for Style {
    fn from(color: Color) -> Style {
        Style::new().fg(color)
    }
}
