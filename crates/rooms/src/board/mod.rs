//! Leaderboards: from the results games post to ranked rows.
//!
//! A [`BoardSource`] (both stores are one) sums up what was recorded into a [`Score`] per account;
//! [`rank`] puts them in order; [`BoardReader`] does both for a [`BoardQuery`]; [`CachedReader`]
//! keeps whole boards for a while, so that a thousand viewers cost one read. No clock here: a query
//! carries its time.

mod cache;
mod rank;
mod reader;
mod spec;
mod tally;

pub use cache::{CachedReader, WAITERS_MAX};
pub use rank::{BoardRow, rank};
pub use reader::{BoardPage, BoardQuery, BoardReader, Page};
pub use spec::{BoardSpec, Window};
pub use tally::{Score, Tally};

use crate::reply::Reply;

/// Where recorded results are summed up. May be slow.
pub trait BoardSource: Send + Sync {
    /// One score per account with a result of this game at or after `since` (Unix nanoseconds,
    /// `None` for ever), in any order, each as `spec` combines them.
    fn scores(&self, slug: &str, since: Option<i64>, spec: &BoardSpec, reply: Reply<Vec<Score>>);
}
