//! Text onto a screen, one code point at a time.

use core::fmt;

use crate::cluster::{Cluster, Clusters, Step, is_plain};
use crate::screen::{RIGHT, SPACE, Screen};
use crate::style::{Ink, Style};

const REPLACEMENT: u32 = 0xFFFD;

/// Writes text from a cell rightwards, glyph by glyph; the target of `write!`.
///
/// Marks, variation selectors, skin tones and the second half of a flag join the glyph before them,
/// also across `write!` arguments. A glyph of more than three code points is shown as `�` in the
/// same columns. What lies left of the screen is skipped, a wide glyph that would cross the right
/// edge is not drawn and ends the line. `\n` goes on in the first column on the next row; other
/// control characters are nothing.
#[derive(Debug)]
pub struct Pen<'s> {
    screen: &'s mut Screen,
    row: i32,
    col: i32,
    /// Where lines begin.
    start: i32,
    /// The first column not drawn on.
    end: i32,
    ink: Ink,
    clusters: Clusters,
    /// Column and cluster that a mark would join.
    last: Option<(i32, Cluster)>,
    /// The column after the last glyph that was drawn.
    drawn_to: i32,
}

impl<'s> Pen<'s> {
    pub(crate) fn new(screen: &'s mut Screen, row: i32, col: i32, style: Style) -> Pen<'s> {
        Pen {
            screen,
            row,
            col,
            start: col,
            end: RIGHT,
            ink: style.into(),
            clusters: Clusters::default(),
            last: None,
            drawn_to: col,
        }
    }

    /// Draws nothing at or right of column `end`.
    pub fn until(mut self, end: i32) -> Pen<'s> {
        self.end = end.min(RIGHT);
        self
    }

    /// The style of what is written from now on.
    pub fn style(&mut self, style: impl Into<Style>) -> &mut Pen<'s> {
        self.ink = Ink::from(style.into());
        self
    }

    /// Writes text.
    pub fn push_str(&mut self, text: &str) -> &mut Pen<'s> {
        let mut rest = text;
        loop {
            let plain = rest.bytes().take_while(|&byte| is_plain(byte)).count();
            self.push_plain(&rest.as_bytes()[..plain]);
            if plain == rest.len() {
                return self;
            }
            rest = self.push_at(rest, plain);
        }
    }

    /// Writes the code point at a byte of the text, plain ones before it, and returns what follows.
    ///
    /// Apart from the loop over text that is mostly ASCII: a metered guest is charged for all of a
    /// loop's code, run or not.
    #[inline(never)]
    fn push_at<'t>(&mut self, text: &'t str, at: usize) -> &'t str {
        let mut rest = text[at..].chars();
        if let Some(ch) = rest.next() {
            self.push(ch);
        }
        rest.as_str()
    }

    /// The row the pen is on.
    pub fn row(&self) -> i32 {
        self.row
    }

    /// The column the next glyph would start in, beyond the edge when text was cut off.
    pub fn col(&self) -> i32 {
        self.col
    }

    /// The column after the last glyph that was drawn.
    pub(crate) fn drawn_to(&self) -> i32 {
        self.drawn_to
    }

    /// Writes printable ASCII, as [`push`](Pen::push) would byte by byte.
    fn push_plain(&mut self, text: &[u8]) {
        let Some(&last) = text.last() else {
            return;
        };
        let (first, len) = (self.col, i32::try_from(text.len()).unwrap_or(i32::MAX));
        self.col = first.saturating_add(len);
        let (from, to) = (first.max(0), self.col.min(self.end));
        if from < to {
            // Some of it is right of column 0 and left of the end, so both differences are within it.
            let shown = &text[(from - first) as usize..(to - first) as usize];
            if self.screen.place_plain(self.row, from, shown, self.ink) {
                self.drawn_to = to;
            }
        }
        let last = narrow(u32::from(last));
        self.clusters = Clusters::after(last);
        self.last = Some((first.saturating_add(len - 1), last));
    }

    /// Writes one code point.
    pub(crate) fn push(&mut self, ch: char) {
        if ch == '\n' {
            (self.row, self.col) = (self.row.saturating_add(1), self.start);
            (self.clusters, self.last) = (Clusters::default(), None);
            return;
        }
        match self.clusters.push(ch) {
            Step::Start(cluster) => self.draw(self.col, cluster),
            Step::Extend(cluster) => {
                if let Some((col, _)) = self.last {
                    self.draw(col, cluster);
                }
            }
            Step::Refuse(cluster) => {
                if let Some((col, _)) = self.last {
                    self.draw(col, narrow(REPLACEMENT));
                    if cluster.width == 2 {
                        self.draw(col.saturating_add(1), narrow(SPACE));
                    }
                    self.last = None;
                }
            }
            Step::Skip => {}
        }
    }

    fn draw(&mut self, col: i32, cluster: Cluster) {
        let after = col.saturating_add(i32::from(cluster.width));
        if after <= self.end {
            if self.screen.place(self.row, col, cluster, self.ink) {
                self.drawn_to = after;
            }
        } else if col < self.end {
            // Half of it would be cut: what was there of it goes too, and the line ends.
            if self.last.is_some_and(|(at, _)| at == col) {
                self.screen.place(self.row, col, narrow(SPACE), self.ink);
                self.drawn_to = col;
            }
        }
        self.last = Some((col, cluster));
        self.col = after;
    }
}

impl fmt::Write for Pen<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_str(text);
        Ok(())
    }
}

/// A code point in one column.
const fn narrow(cp: u32) -> Cluster {
    Cluster {
        cp: [cp, 0, 0],
        width: 1,
    }
}
