//! The result of a round: the payload of `end` and `post`.
//!
//! ```text
//! u16 count · count × { u32 player · i64 metric · u16 rank · u8 status }
//! ```
//!
//! ```
//! use cabinet_wire::{outcome::{self, Ranking}, Status};
//!
//! let mut payload = Vec::new();
//! outcome::encode(&[Ranking::new(1, 9000, 1, Status::Finished)], &mut payload)?;
//! let mut rankings = outcome::decode(&payload, 2)?;
//! assert_eq!(rankings.next().unwrap().status(), Some(Status::Finished));
//! assert!(outcome::decode(&payload, 1).is_err(), "there is no player 1 in a roster of one");
//! # Ok::<(), outcome::OutcomeError>(())
//! ```

use alloc::vec::Vec;
use core::fmt;

use crate::reader::{Reader, Short};
use crate::writer::{or_undo, put_i64, put_u16, put_u32};
use crate::{LIST_COUNT_MAX, RANKING_BYTES, Status};

/// How one player did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ranking {
    /// Index into the roster of the callback.
    pub player: u32,
    /// The leaderboard metric.
    pub metric: i64,
    /// The place, from 1; 0 for none.
    pub rank: u16,
    /// The status code as sent; see [`Ranking::status`].
    pub status: u8,
}

impl Ranking {
    /// A ranking with an assigned status.
    #[must_use]
    pub const fn new(player: u32, metric: i64, rank: u16, status: Status) -> Self {
        Self {
            player,
            metric,
            rank,
            status: status as u8,
        }
    }

    /// The status, `None` for a code this revision does not assign.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        Status::try_from(self.status).ok()
    }
}

/// Appends a result.
///
/// # Errors
///
/// [`OutcomeError::TooMany`]; `out` is then as it was.
pub fn encode(rankings: &[Ranking], out: &mut Vec<u8>) -> Result<(), OutcomeError> {
    let count = u16::try_from(rankings.len()).map_err(|_| OutcomeError::TooMany {
        count: rankings.len(),
    })?;
    or_undo(out, |out| {
        put_u16(out, count);
        for ranking in rankings {
            put_u32(out, ranking.player);
            put_i64(out, ranking.metric);
            put_u16(out, ranking.rank);
            out.push(ranking.status);
        }
        Ok(())
    })
}

/// Reads a result against a roster of `roster_len` players. Bytes after it are ignored.
///
/// # Errors
///
/// [`OutcomeError::Short`], and [`OutcomeError::NotInRoster`] when any ranking names a player who
/// is not there: the whole result is then void.
pub fn decode(bytes: &[u8], roster_len: usize) -> Result<Rankings<'_>, OutcomeError> {
    let mut reader = Reader::new(bytes);
    let count = reader.u16()?;
    let body = reader.bytes(usize::from(count) * RANKING_BYTES)?;
    let rankings = Rankings {
        count,
        body: Reader::new(body),
    };
    for (index, ranking) in rankings.enumerate() {
        if usize::try_from(ranking.player).is_ok_and(|player| player < roster_len) {
            continue;
        }
        return Err(OutcomeError::NotInRoster {
            index,
            player: ranking.player,
            roster_len,
        });
    }
    Ok(rankings)
}

/// The rankings of a result: an iterator that reads them from the payload.
#[derive(Clone, Copy, Debug)]
pub struct Rankings<'a> {
    count: u16,
    body: Reader<'a>,
}

impl Iterator for Rankings<'_> {
    type Item = Ranking;

    fn next(&mut self) -> Option<Ranking> {
        self.count = self.count.checked_sub(1)?;
        // `decode` took `count` whole rankings, so this one is complete.
        read_ranking(&mut self.body).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = usize::from(self.count);
        (count, Some(count))
    }
}

impl ExactSizeIterator for Rankings<'_> {}

fn read_ranking(reader: &mut Reader<'_>) -> Result<Ranking, Short> {
    Ok(Ranking {
        player: reader.u32()?,
        metric: reader.i64()?,
        rank: reader.u16()?,
        status: reader.u8()?,
    })
}

/// Why a result could not be written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutcomeError {
    /// A ranking runs past the end of the payload.
    Short,
    /// A ranking names a player outside the roster.
    NotInRoster {
        /// Which ranking.
        index: usize,
        /// The player it names.
        player: u32,
        /// How many players there are.
        roster_len: usize,
    },
    /// More rankings than the wire can count.
    TooMany {
        /// How many there are.
        count: usize,
    },
}

impl From<Short> for OutcomeError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

impl fmt::Display for OutcomeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("result ends inside a ranking"),
            Self::NotInRoster {
                index,
                player,
                roster_len,
            } => write!(
                f,
                "ranking {index} names player {player} in a roster of {roster_len}"
            ),
            Self::TooMany { count } => {
                write!(
                    f,
                    "result has {count} rankings, at most {LIST_COUNT_MAX} fit"
                )
            }
        }
    }
}

impl core::error::Error for OutcomeError {}
