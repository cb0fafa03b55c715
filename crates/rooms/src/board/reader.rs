//! Reading a board.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::{BoardRow, BoardSource, BoardSpec, Window, rank};
use crate::reply::Reply;

/// Which part of which board is wanted.
#[derive(Debug, Clone, Copy)]
pub struct BoardQuery<'a> {
    /// The game.
    pub slug: &'a str,
    /// Its board.
    pub spec: &'a BoardSpec,
    /// Since when results count.
    pub window: Window,
    /// The time, Unix nanoseconds.
    pub now: i64,
    /// Which rows.
    pub page: Page,
}

/// Some rows of a board; all of them by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Page {
    /// Rows left out at the top. Past the end, the page is empty.
    pub offset: usize,
    /// Rows wanted at most; 0 for all that follow.
    pub limit: usize,
}

impl Page {
    /// Which of `total` rows are on the page.
    #[must_use]
    pub fn of(self, total: usize) -> Range<usize> {
        let start = self.offset.min(total);
        let end = match self.limit {
            0 => total,
            limit => start.saturating_add(limit).min(total),
        };
        start..end
    }
}

/// A page of a board, sharing the board's rows with every other page of it.
#[derive(Clone, PartialEq, Eq)]
pub struct BoardPage {
    board: Arc<[BoardRow]>,
    range: Range<usize>,
}

impl BoardPage {
    pub(super) fn new(board: Arc<[BoardRow]>, page: Page) -> Self {
        let range = page.of(board.len());
        Self { board, range }
    }

    /// The rows on the page, ranked within the whole board.
    #[must_use]
    pub fn rows(&self) -> &[BoardRow] {
        &self.board[self.range.clone()]
    }

    /// How many rows the whole board has.
    #[must_use]
    pub fn total(&self) -> usize {
        self.board.len()
    }
}

impl fmt::Debug for BoardPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoardPage")
            .field("rows", &self.rows())
            .field("total", &self.total())
            .finish()
    }
}

/// Reads boards, every time anew.
#[derive(Clone)]
pub struct BoardReader {
    source: Arc<dyn BoardSource>,
}

impl BoardReader {
    /// Reads from `source`.
    #[must_use]
    pub fn new(source: Arc<dyn BoardSource>) -> Self {
        Self { source }
    }

    /// Reads a page.
    pub fn read(&self, query: &BoardQuery<'_>, reply: Reply<BoardPage>) {
        let page = query.page;
        let whole = Reply::new(move |board: Result<Arc<[BoardRow]>, _>| {
            reply.send(board.map(|board| BoardPage::new(board, page)));
        });
        self.whole(query, whole);
    }

    /// Reads the whole board, whatever the query's page.
    pub(super) fn whole(&self, query: &BoardQuery<'_>, reply: Reply<Arc<[BoardRow]>>) {
        let direction = query.spec.direction;
        let since = query.window.start(query.now);
        let ranked = Reply::new(move |scores: Result<Vec<_>, _>| {
            reply.send(scores.map(|scores| rank(scores, direction).into()));
        });
        self.source.scores(query.slug, since, query.spec, ranked);
    }
}

impl fmt::Debug for BoardReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoardReader(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_page_past_the_end_is_empty_and_no_limit_means_all() {
        let page = |offset, limit| Page { offset, limit }.of(10);
        assert_eq!(page(0, 0), 0..10);
        assert_eq!(page(3, 0), 3..10);
        assert_eq!(page(3, 4), 3..7);
        assert_eq!(page(8, 4), 8..10);
        assert!(page(10, 4).is_empty());
        assert!(page(usize::MAX, usize::MAX).is_empty());
    }

    proptest! {
        #[test]
        fn the_pages_of_a_board_put_together_are_the_board(total in 0..200usize, limit in 1..50usize) {
            let mut seen = Vec::new();
            for offset in (0..total + limit).step_by(limit) {
                seen.extend(Page { offset, limit }.of(total));
            }
            prop_assert!(seen.into_iter().eq(0..total));
        }
    }
}
