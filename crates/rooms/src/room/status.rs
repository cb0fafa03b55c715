//! What a room says of itself: how far it is, and how it ended.

use cabinet_host::{RestoreError, RoomResult};
use cabinet_wire::Lifecycle;

use crate::fault_report::FaultReport;

/// A room as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomStatus {
    /// How far it is.
    pub phase: Phase,
    /// Members.
    pub members: usize,
    /// The input context the guest last set: 0 navigation, 1 command, 2 text; others as they are.
    pub input_context: u8,
    /// Whether [`RoomHandle::hibernate`](super::RoomHandle::hibernate) could park it now.
    pub hibernatable: bool,
    /// The lifecycle it runs under; resumable until it has begun.
    pub lifecycle: Lifecycle,
}

/// How far a room is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It has not begun.
    Init,
    /// It is in play.
    InPlay {
        /// Whether another player would be let in.
        open: bool,
    },
    /// It is over and has a result.
    Settled,
    /// It was parked and can be resumed. It has no result.
    Hibernated,
    /// It goes on in another process. It has no result here.
    Moved,
    /// It could not be resumed. It has no result, and what it was to be resumed from is as it was.
    NotResumed,
}

impl Phase {
    /// Whether the room is gone.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(
            self,
            Self::Settled | Self::Hibernated | Self::Moved | Self::NotResumed
        )
    }

    /// A stable name: `init`, `in play`, `settled`, `hibernated`, `moved` or `not resumed`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::InPlay { .. } => "in play",
            Self::Settled => "settled",
            Self::Hibernated => "hibernated",
            Self::Moved => "moved",
            Self::NotResumed => "not resumed",
        }
    }
}

/// How a room ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ending {
    /// Why.
    pub reason: EndReason,
    /// The result, once and for all, with a line for everybody who joined since the room was opened
    /// or resumed (after a panic of the host, for who was in it); `None` for a room that was
    /// parked or not resumed.
    pub result: Option<RoomResult>,
    /// What killed it.
    pub fault: Option<FaultReport>,
    /// Why it could not be resumed.
    pub restore: Option<RestoreError>,
}

/// Why a room ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The game ended it.
    Game,
    /// Nobody was left.
    Abandoned,
    /// Somebody closed it, or the runtime was shut down.
    Closed,
    /// The guest failed; a game's own result from before stands.
    Fault,
    /// The host or a store failed, or the machine did not give the guest its time.
    Host,
    /// It was parked.
    Hibernated,
    /// It goes on in another process.
    Moved,
    /// It could not be resumed.
    NotResumed,
}

impl EndReason {
    /// A stable name: `game`, `abandoned`, `closed`, `fault`, `host`, `hibernated`,
    /// `moved` or `not-resumed`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Game => "game",
            Self::Abandoned => "abandoned",
            Self::Closed => "closed",
            Self::Fault => "fault",
            Self::Host => "host",
            Self::Hibernated => "hibernated",
            Self::Moved => "moved",
            Self::NotResumed => "not-resumed",
        }
    }
}
