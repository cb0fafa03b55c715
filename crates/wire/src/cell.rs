//! One cell of the screen: up to three code points, two colours, attributes.
//!
//! ```text
//! u32×3 code points · { u8 set · u8×3 rgb } foreground · the same background · u8 attr · u8 cont · u16 0
//! ```
//!
//! [`Cell::write`] is canonical: what is unused is zero, so two cells look alike exactly when their
//! 24 bytes are equal. That is what makes a frame delta a byte comparison.
//!
//! ```
//! use cabinet_wire::cell::{ATTR_BOLD, Cell};
//! let warning = Cell { fg: Some([255, 0, 0]), attr: ATTR_BOLD, ..Cell::of('!') };
//! assert_eq!(Cell::read(&warning.to_bytes()), warning);
//! ```

use crate::CELL_BYTES;

/// Attribute bit: bold.
pub const ATTR_BOLD: u8 = 1 << 0;
/// Attribute bit: dim.
pub const ATTR_DIM: u8 = 1 << 1;
/// Attribute bit: underlined.
pub const ATTR_UNDERLINE: u8 = 1 << 2;
/// Attribute bit: foreground and background swapped.
pub const ATTR_REVERSE: u8 = 1 << 3;

/// One cell. The default has no code point and shows as blank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cell {
    /// The base and two code points that combine with it; 0 is unused. A base below 0x20 shows as
    /// blank.
    pub cp: [u32; 3],
    /// The colour of the glyph, if not the viewer's own.
    pub fg: Option<[u8; 3]>,
    /// The colour behind it, if not the viewer's own.
    pub bg: Option<[u8; 3]>,
    /// `ATTR_*` bits; renderers ignore the others.
    pub attr: u8,
    /// Whether this is the right half of the wide glyph to its left.
    pub cont: bool,
}

impl Cell {
    /// A cell that shows one character in the viewer's own colours.
    #[must_use]
    pub const fn of(character: char) -> Self {
        Self {
            cp: [character as u32, 0, 0],
            fg: None,
            bg: None,
            attr: 0,
            cont: false,
        }
    }

    /// Writes all 24 bytes, zero where nothing is set.
    pub fn write(&self, bytes: &mut [u8; CELL_BYTES]) {
        for (field, cp) in bytes.chunks_exact_mut(4).zip(self.cp) {
            field.copy_from_slice(&cp.to_le_bytes());
        }
        bytes[12..16].copy_from_slice(&colour_bytes(self.fg));
        bytes[16..20].copy_from_slice(&colour_bytes(self.bg));
        bytes[20] = self.attr;
        bytes[21] = u8::from(self.cont);
        bytes[22..].fill(0);
    }

    /// The 24 bytes of the cell.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; CELL_BYTES] {
        let mut bytes = [0; CELL_BYTES];
        self.write(&mut bytes);
        bytes
    }

    /// Reads any 24 bytes: a colour is set and a continuation true only by the byte 1, padding is
    /// not looked at.
    #[must_use]
    pub fn read(bytes: &[u8; CELL_BYTES]) -> Self {
        let cp = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let colour =
            |at: usize| (bytes[at] == 1).then(|| [bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self {
            cp: [cp(0), cp(4), cp(8)],
            fg: colour(12),
            bg: colour(16),
            attr: bytes[20],
            cont: bytes[21] == 1,
        }
    }
}

fn colour_bytes(colour: Option<[u8; 3]>) -> [u8; 4] {
    colour.map_or([0; 4], |[r, g, b]| [1, r, g, b])
}
