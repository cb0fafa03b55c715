//! What happened, in the order of the log, kept for a while so that readers may be slow.
//!
//! The replicated state pushes; any number of readers follow with a cursor. Nobody is waited for:
//! a reader that fell behind what is kept is told so and replays the log instead.
//!
//! Invariants
//! - events are in the order of their indices, on every node the same;
//! - what [`Feed::read`] answers holds every event from the cursor on, or says that it cannot.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::game::Verdict;
use crate::hidden::Hidden;
use crate::ids::{ActionKey, PeerId};
use crate::state::seats::Place;
use crate::watch::{self, Watch};

/// How many events are kept, and how many bytes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedLimits {
    /// Events kept.
    pub events_max: usize,
    /// Bytes of actions, outcomes and states kept.
    pub bytes_max: usize,
}

impl Default for FeedLimits {
    fn default() -> Self {
        Self {
            events_max: 8192,
            bytes_max: 16 << 20,
        }
    }
}

/// An event without types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RawEvent {
    Turn(RawTurn),
    TimedOut {
        index: u64,
        term: u64,
        turn: u64,
        now_ms: u64,
    },
    /// Everything through `index` is replaced by `state`.
    Reset {
        index: u64,
        term: u64,
        turn: u64,
        state: Bytes,
    },
    /// This node's state is not the others': it has stopped.
    Desync {
        index: u64,
        mine: [u8; 32],
        theirs: [u8; 32],
    },
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RawTurn {
    pub index: u64,
    pub term: u64,
    /// The turn after it.
    pub turn: u64,
    pub now_ms: u64,
    pub key: ActionKey,
    /// Who the game was told had proposed it: a reader that folds the events needs the same.
    pub player: Option<PeerId>,
    /// The place the game was told that peer had.
    pub place: Option<Place>,
    pub action: Bytes,
    pub ruling: Ruling,
}

impl fmt::Debug for RawTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawTurn")
            .field("index", &self.index)
            .field("turn", &self.turn)
            .field("key", &self.key)
            .field("action", &Hidden(self.action.len()))
            .finish_non_exhaustive()
    }
}

/// What became of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ruling {
    Game(Verdict),
    /// It was meant for another turn than this.
    Fenced,
    /// The game decided, and its answer is larger than nodes keep.
    Withheld {
        accepted: bool,
        bytes: u64,
    },
}

impl Ruling {
    /// Whether the action took place.
    pub(crate) fn is_accepted(&self) -> bool {
        matches!(
            self,
            Self::Game(Verdict::Accepted(_)) | Self::Withheld { accepted: true, .. }
        )
    }
}

impl RawEvent {
    pub(crate) fn index(&self) -> u64 {
        match self {
            Self::Turn(turn) => turn.index,
            Self::TimedOut { index, .. }
            | Self::Reset { index, .. }
            | Self::Desync { index, .. } => *index,
        }
    }

    fn weight(&self) -> usize {
        64 + match self {
            Self::Turn(turn) => {
                turn.action.len()
                    + match &turn.ruling {
                        Ruling::Game(Verdict::Accepted(bytes) | Verdict::Refused(bytes)) => {
                            bytes.len()
                        }
                        _ => 0,
                    }
            }
            Self::Reset { state, .. } => state.len(),
            _ => 0,
        }
    }
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Events, and the cursor to go on with.
    Events(Vec<RawEvent>, u64),
    /// Nothing new: wait for [`Feed::progress`].
    Nothing,
    /// Events at the cursor are not kept any more. They are from `oldest` on.
    Behind { oldest: u64 },
}

struct Ring {
    events: VecDeque<RawEvent>,
    bytes: usize,
    /// Every event with a higher index is in the ring.
    dropped_through: u64,
}

/// Most events one read answers, so that a slow reader does not hold the lock long.
const READ_MAX: usize = 256;

/// The events of one node.
#[derive(Clone)]
pub(crate) struct Feed {
    ring: Arc<Mutex<Ring>>,
    /// The last entry that was applied, whether it made an event or not.
    applied: Arc<AtomicU64>,
    progress: watch::Sender<u64>,
    limits: FeedLimits,
}

impl Feed {
    /// A feed of a state that contains everything through `applied`.
    pub(crate) fn new(limits: FeedLimits, applied: u64) -> Self {
        Self {
            ring: Arc::new(Mutex::new(Ring {
                events: VecDeque::new(),
                bytes: 0,
                dropped_through: applied,
            })),
            applied: Arc::new(AtomicU64::new(applied)),
            progress: watch::channel(applied).0,
            limits,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event.
    pub(crate) fn push(&self, event: RawEvent) {
        let mut ring = self.lock();
        if let RawEvent::Reset { index, .. } = &event {
            // What is before a reset is part of it.
            ring.events.clear();
            ring.bytes = 0;
            ring.dropped_through = index.saturating_sub(1);
        }
        ring.bytes += event.weight();
        ring.events.push_back(event);
        while ring.events.len() > 1
            && (ring.events.len() > self.limits.events_max || ring.bytes > self.limits.bytes_max)
        {
            if let Some(old) = ring.events.pop_front() {
                ring.bytes -= old.weight();
                ring.dropped_through = old.index();
            }
        }
    }

    /// Takes the events that are kept out, for a reader that is alone.
    pub(crate) fn take(&self) -> Vec<RawEvent> {
        let mut ring = self.lock();
        let events: Vec<_> = ring.events.drain(..).collect();
        ring.bytes = 0;
        if let Some(last) = events.last() {
            ring.dropped_through = last.index();
        }
        events
    }

    /// How many events are kept.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.lock().events.len()
    }

    /// Entries through `index` are applied, and their events pushed.
    pub(crate) fn advance(&self, index: u64) {
        self.applied.store(index, Ordering::Release);
    }

    /// Wakes the readers: called once per batch of entries.
    pub(crate) fn publish(&self) {
        self.progress.set_if_new(self.applied());
    }

    /// The last applied entry.
    pub(crate) fn progress(&self) -> Watch<u64> {
        self.progress.subscribe()
    }

    /// The last applied entry, now.
    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Events with an index of at least `cursor`.
    pub(crate) fn read(&self, cursor: u64) -> Read {
        let ring = self.lock();
        if cursor <= ring.dropped_through {
            return Read::Behind {
                oldest: ring.dropped_through + 1,
            };
        }
        let start = ring.events.partition_point(|event| event.index() < cursor);
        let events: Vec<_> = ring
            .events
            .iter()
            .skip(start)
            .take(READ_MAX)
            .cloned()
            .collect();
        match events.last() {
            // Two events never share an index but a reset and a desync, which ends the feed.
            Some(last) => {
                let next = last.index() + 1;
                Read::Events(events, next)
            }
            None => Read::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed_out(index: u64) -> RawEvent {
        RawEvent::TimedOut {
            index,
            term: 1,
            turn: 0,
            now_ms: 0,
        }
    }

    fn feed(events_max: usize) -> Feed {
        let limits = FeedLimits {
            events_max,
            bytes_max: 1 << 20,
        };
        Feed::new(limits, 0)
    }

    #[test]
    fn a_reader_gets_every_event_from_its_cursor_on() {
        let feed = feed(10);
        for index in [2, 5, 9] {
            feed.push(timed_out(index));
        }
        assert_eq!(
            feed.read(3),
            Read::Events(vec![timed_out(5), timed_out(9)], 10)
        );
        assert_eq!(feed.read(10), Read::Nothing);
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_reader_behind_it_is_told() {
        let feed = feed(2);
        for index in 1..=3 {
            feed.push(timed_out(index));
        }
        assert_eq!(feed.read(1), Read::Behind { oldest: 2 });
        assert_eq!(
            feed.read(2),
            Read::Events(vec![timed_out(2), timed_out(3)], 4)
        );
    }

    #[test]
    fn a_reset_replaces_what_came_before_it() {
        let feed = feed(10);
        feed.push(timed_out(1));
        let reset = RawEvent::Reset {
            index: 7,
            term: 1,
            turn: 3,
            state: Bytes::from_static(b"x"),
        };
        feed.push(reset.clone());
        feed.push(timed_out(8));
        assert_eq!(feed.read(7), Read::Events(vec![reset, timed_out(8)], 9));
        assert_eq!(feed.read(2), Read::Behind { oldest: 7 });
    }
}
