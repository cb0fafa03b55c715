//! A whole process is emptied: every room is parked or checkpointed, within a budget.

use std::fmt;
use std::time::Duration;

use cabinet_durability::{Epoch, RoomId};
use futures_util::StreamExt as _;
use futures_util::future::{self, Either};
use futures_util::stream;

use super::Keeper;
use super::error_line;
use crate::registry::GameSlug;
use crate::room::{EndReason, HibernateError};

/// What a drain came to, room by room, in the order of their ids.
#[derive(Debug, Default)]
pub struct DrainReport {
    /// Each room this process had.
    pub rooms: Vec<(RoomId, GameSlug, Drained)>,
}

/// What became of a room in a drain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Drained {
    /// It is parked: its players find it in their lists.
    Parked,
    /// It left a last checkpoint, of this epoch, and goes on wherever it is reclaimed.
    Checkpointed(Epoch),
    /// It had ended by itself.
    Ended(EndReason),
    /// Another process has it.
    Fenced,
    /// The budget ran out, or the store did not take it: what is stored of it is of this epoch, 0
    /// for nothing. It still runs here.
    Left {
        /// The newest checkpoint that was written.
        stored: Epoch,
        /// Why it was left.
        why: String,
    },
}

impl DrainReport {
    /// Whether every room is safe elsewhere, or over.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.left().next().is_none()
    }

    /// The rooms that were left.
    pub fn left(&self) -> impl Iterator<Item = &(RoomId, GameSlug, Drained)> {
        self.rooms
            .iter()
            .filter(|(_, _, drained)| matches!(drained, Drained::Left { .. }))
    }
}

impl fmt::Display for DrainReport {
    /// A line for each room, then the sums.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (room, slug, drained) in &self.rooms {
            write!(f, "{room} {} ", slug.as_str())?;
            match drained {
                Drained::Parked => writeln!(f, "parked")?,
                Drained::Checkpointed(epoch) => writeln!(f, "checkpointed at epoch {epoch}")?,
                Drained::Ended(reason) => writeln!(f, "had ended: {}", reason.name())?,
                Drained::Fenced => writeln!(f, "is another process's")?,
                Drained::Left { stored, why } => {
                    writeln!(f, "LEFT, stored up to epoch {stored}: {why}")?;
                }
            }
        }
        let left = self.left().count();
        write!(f, "{} rooms drained, {left} left", self.rooms.len() - left)
    }
}

impl Keeper {
    /// Parks every room whose lifecycle knows it, and writes a last checkpoint of every other, under
    /// an epoch above all that were written. Each room stops here as it is captured, so that nothing
    /// it does afterwards is lost. What is not done when `budget` has passed is named, and goes on;
    /// the few that were being written then may still be parked a moment later.
    ///
    /// Open nothing meanwhile, and shut the runtime down after it.
    pub async fn drain(&self, budget: Duration) -> DrainReport {
        let inner = &self.inner;
        let rooms = inner.all();
        // Only so many are asked at once: a room that is not asked when the budget is over goes on.
        let asked = inner.options.in_flight_max.max(1) * 2;
        let mut waiting = stream::iter(rooms.iter().enumerate())
            .map(|(at, kept)| async move { (at, kept.handle().hibernate().await) })
            .buffer_unordered(asked);
        let mut outcomes: Vec<Option<Drained>> = vec![None; rooms.len()];
        let mut budget = Box::pin(inner.sleep(budget));
        while let Either::Left((Some((at, parked)), _)) =
            future::select(waiting.next(), &mut budget).await
        {
            let kept = &rooms[at];
            let stored = kept.lease().map_or(Epoch::NONE, |lease| lease.epoch());
            let safe = if kept.parks() {
                Drained::Parked
            } else {
                Drained::Checkpointed(stored)
            };
            outcomes[at] = Some(match parked {
                Ok(()) => safe,
                Err(HibernateError::Closed) => match kept.handle().ending() {
                    Some(ending) if ending.reason == EndReason::Hibernated => safe,
                    Some(ending) if ending.reason == EndReason::Moved => Drained::Fenced,
                    Some(ending) => Drained::Ended(ending.reason),
                    None => Drained::Ended(EndReason::Closed),
                },
                Err(error) => Drained::Left {
                    stored,
                    why: error_line(&error),
                },
            });
        }
        let mut report = DrainReport::default();
        for (kept, outcome) in rooms.iter().zip(outcomes) {
            let outcome = outcome.unwrap_or_else(|| Drained::Left {
                stored: kept.lease().map_or(Epoch::NONE, |lease| lease.epoch()),
                why: "the budget ran out".into(),
            });
            report
                .rooms
                .push((kept.room(), kept.handle().slug().clone(), outcome));
        }
        report
    }
}
