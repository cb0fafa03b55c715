//! Groups code points into what one cell can hold, one code point at a time.
//!
//! A cluster is a base and up to two more code points: combining marks, a variation selector, a
//! skin tone, the second half of a flag, a short joined emoji. What needs more than three code
//! points does not fit the wire's cell and is refused as a whole.

use crate::width::char_width;

const ZERO_WIDTH_JOINER: u32 = 0x200D;
const EMOJI_PRESENTATION: u32 = 0xFE0F;
const KEYCAP: u32 = 0x20E3;
/// The lowest symbol that has an emoji presentation and is not a digit, `#`, `*`, (c) or (r).
const FIRST_SYMBOL: u32 = 0x203C;

/// A base code point and what is drawn on top of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// Base, second, third; unused ones are 0.
    pub cp: [u32; 3],
    /// Columns: 1 or 2.
    pub width: u8,
}

/// What one more code point does to the text so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A new cluster begins in a column of its own.
    Start(Cluster),
    /// The last cluster becomes this one; its width may have grown from 1 to 2.
    Extend(Cluster),
    /// The last cluster outgrew three code points; its columns hold a replacement character.
    Refuse(Cluster),
    /// Nothing to draw: a control character, a mark without a base, the rest of a refused cluster.
    Skip,
}

/// The state of the cluster that the next code point may still join.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clusters {
    current: Cluster,
    /// Code points in `current`; 0 when there is none.
    len: usize,
    joined: bool,
    refused: bool,
}

impl Clusters {
    /// After a cluster of one code point.
    pub fn after(base: Cluster) -> Clusters {
        Clusters {
            current: base,
            len: 1,
            ..Clusters::default()
        }
    }

    /// Takes the next code point.
    pub fn push(&mut self, ch: char) -> Step {
        let cp = u32::from(ch);
        if ch.is_control() {
            *self = Clusters::default();
            return Step::Skip;
        }
        let width = char_width(ch);
        if self.len > 0 && self.joins(cp, width) {
            return self.extend(cp, width);
        }
        if width == 0 {
            *self = Clusters::default();
            return Step::Skip;
        }
        let current = Cluster {
            cp: [cp, 0, 0],
            width,
        };
        *self = Clusters::after(current);
        Step::Start(current)
    }

    fn joins(&self, cp: u32, width: u8) -> bool {
        let base = self.current.cp[0];
        let skin_tone = (0x1F3FB..=0x1F3FF).contains(&cp) && base >= FIRST_SYMBOL;
        let flag = is_regional(cp) && is_regional(base) && self.len == 1;
        let joined = self.joined && cp >= FIRST_SYMBOL;
        width == 0 || skin_tone || flag || joined
    }

    fn extend(&mut self, cp: u32, width: u8) -> Step {
        self.joined = cp == ZERO_WIDTH_JOINER;
        if self.refused {
            return Step::Skip;
        }
        if self.len == 3 {
            self.refused = true;
            self.current.cp = [u32::from(char::REPLACEMENT_CHARACTER), 0, 0];
            return Step::Refuse(self.current);
        }
        self.current.cp[self.len] = cp;
        self.len += 1;
        let base = self.current.cp[0];
        let emoji =
            cp == EMOJI_PRESENTATION && (base >= FIRST_SYMBOL || base == 0xA9 || base == 0xAE);
        let tone_or_flag = width > 0;
        if emoji || tone_or_flag || cp == KEYCAP {
            self.current.width = 2;
        }
        Step::Extend(self.current)
    }
}

fn is_regional(cp: u32) -> bool {
    (0x1F1E6..=0x1F1FF).contains(&cp)
}

/// Whether the byte is printable ASCII: a code point that joins nothing, in a column of its own.
pub(crate) const fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

/// Columns that [`Screen::text`](crate::Screen::text) advances over for `text`, ignoring newlines.
///
/// ```
/// use cabinet_guest::text_width;
/// assert_eq!(text_width("score 漢字"), 10);
/// assert_eq!(text_width("e\u{301}"), 1);
/// ```
pub fn text_width(text: &str) -> i32 {
    if text.bytes().all(is_plain) {
        return i32::try_from(text.len()).unwrap_or(i32::MAX);
    }
    let mut clusters = Clusters::default();
    let mut columns = 0;
    let mut last = 0;
    for ch in text.chars() {
        match clusters.push(ch) {
            Step::Start(cluster) => {
                last = i32::from(cluster.width);
                columns += last;
            }
            Step::Extend(cluster) => {
                columns += i32::from(cluster.width) - last;
                last = i32::from(cluster.width);
            }
            Step::Refuse(_) | Step::Skip => {}
        }
    }
    columns
}

/// The one cluster that `text` is, or `None` when it is empty, has a control character, is more
/// than one cluster or does not fit a cell.
pub(crate) fn single(text: &str) -> Option<Cluster> {
    let mut clusters = Clusters::default();
    let mut found = None;
    for ch in text.chars() {
        match (clusters.push(ch), found) {
            (Step::Start(cluster), None) => found = Some(cluster),
            (Step::Extend(cluster), Some(_)) => found = Some(cluster),
            _ => return None,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_keycaps_and_skin_tones_are_one_wide_cluster() {
        for text in ["🇳🇱", "1\u{fe0f}\u{20e3}", "👍🏽", "❤\u{fe0f}", "☝🏽"] {
            assert_eq!(single(text).map(|cluster| cluster.width), Some(2), "{text}");
            assert_eq!(text_width(text), 2, "{text}");
        }
    }

    #[test]
    fn four_regional_indicators_are_two_flags() {
        assert_eq!(text_width("🇳🇱🇧🇪"), 4);
        assert_eq!(single("🇳🇱🇧🇪"), None);
    }

    #[test]
    fn three_code_points_fit_and_four_are_refused() {
        assert_eq!(
            single("e\u{301}\u{302}").map(|c| c.cp),
            Some([0x65, 0x301, 0x302])
        );
        assert_eq!(single("e\u{301}\u{302}\u{303}"), None);
        assert_eq!(single("👨\u{200d}👩\u{200d}👧"), None);
    }

    #[test]
    fn the_rest_of_a_refused_cluster_takes_no_columns() {
        assert_eq!(text_width("👨\u{200d}👩\u{200d}👧!"), 3);
    }

    #[test]
    fn every_plain_byte_is_one_column_that_joins_nothing() {
        for byte in 0..0x80 {
            let ch = char::from(byte);
            let mut after_a_joiner = Clusters::default();
            after_a_joiner.push('❤');
            after_a_joiner.push('\u{200d}');
            let step = after_a_joiner.push(ch);
            let alone = Cluster {
                cp: [u32::from(byte), 0, 0],
                width: 1,
            };
            assert_eq!(is_plain(byte), step == Step::Start(alone), "{ch:?}");
        }
    }

    #[test]
    fn a_mark_without_a_base_is_nothing() {
        assert_eq!((single("\u{301}"), text_width("\u{301}a")), (None, 1));
    }

    #[test]
    fn a_digit_stays_narrow_under_a_variation_selector_alone() {
        assert_eq!(text_width("1\u{fe0f}"), 1);
    }
}
