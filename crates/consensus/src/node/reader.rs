//! Following a node's events, however slowly.
//!
//! Invariants
//! - a reader gets every event from its cursor on, in order, or is told that it lagged and gets them
//!   from a second copy of the state that replays the log;
//! - nobody waits for a reader;
//! - a replay holds what one batch of entries makes, and the state it began with: not the game so far.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::Node;
use crate::events::{Feed, FeedLimits, RawEvent, Read};
use crate::log::{Position, RecordKind, StoredSnapshot};
use crate::raft::Consensus;
use crate::state::{Planted, Replica};

impl Node {
    /// Events from `cursor` on.
    pub(crate) fn events(self: &Arc<Self>, cursor: u64) -> RawEvents {
        RawEvents {
            node: self.clone(),
            cursor,
            queue: VecDeque::new(),
            replay: None,
        }
    }

    fn replay_from(&self, snapshot: Option<StoredSnapshot>) -> Replay {
        // Taken out after each batch, so nothing may fall out of it unread.
        let limits = FeedLimits {
            events_max: usize::MAX,
            bytes_max: usize::MAX,
        };
        let feed = Feed::new(limits, 0);
        let mut replica = Replica::new(self.rules.clone(), Some(feed.clone()), Planted::default());
        let mut next = 0;
        if let Some(snapshot) = snapshot
            && replica
                .install(snapshot.through, BTreeSet::new(), &snapshot.state)
                .is_ok()
        {
            next = snapshot.through.index + 1;
        }
        Replay {
            replica,
            feed,
            next,
        }
    }
}

/// A second copy of the state that reads the log for somebody who fell behind.
struct Replay {
    replica: Replica,
    feed: Feed,
    next: u64,
}

/// Entries a replay reads at a time.
pub(super) const REPLAY_ENTRIES: u64 = 256;

/// What a reader of events gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Event(RawEvent),
    /// Events from the first to before the second are read again from the log, or replaced by a
    /// reset.
    Lagged(u64, u64),
}

/// A reader of one node's events.
pub(crate) struct RawEvents {
    node: Arc<Node>,
    cursor: u64,
    queue: VecDeque<RawEvent>,
    replay: Option<Replay>,
}

impl RawEvents {
    /// The next event; `None` once the node has stopped and everything was read. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Next> {
        let mut progress = self.node.feed.progress();
        let mut status = self.node.engine.status();
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(Next::Event(event));
            }
            if self.replay.is_some() {
                if !self.replay_some().await {
                    return None;
                }
                tokio::task::yield_now().await;
                continue;
            }
            drop(progress.borrow_and_update());
            match self.node.feed.read(self.cursor) {
                Read::Events(events, cursor) => {
                    self.cursor = cursor;
                    self.queue.extend(events);
                }
                Read::Behind { oldest } => {
                    let snapshot = self.node.log.load_snapshot().await.ok().flatten();
                    self.replay = Some(self.node.replay_from(snapshot));
                    return Some(Next::Lagged(self.cursor, oldest));
                }
                Read::Nothing => {
                    if status.borrow_and_update().stopped.is_some() {
                        return None;
                    }
                    tokio::select! {
                        biased;
                        changed = progress.changed() => changed.ok()?,
                        _ = status.changed() => {}
                    }
                }
            }
        }
    }

    /// Events a replay holds beside the queue, and those in it.
    #[cfg(test)]
    pub(super) fn replayed(&self) -> usize {
        let held = self.replay.as_ref().map_or(0, |replay| replay.feed.held());
        held + self.queue.len()
    }

    /// Answers whether there is a log to go on with.
    async fn replay_some(&mut self) -> bool {
        let Some(replay) = &mut self.replay else {
            return true;
        };
        // Entries count from 1 in a feed and from 0 in the log: `applied` entries are applied.
        let applied = self.node.feed.applied();
        let to = (replay.next + REPLAY_ENTRIES).min(applied);
        let records = self.node.engine.read(replay.next, to);
        match records {
            Ok(records) if !records.is_empty() => {
                for record in records {
                    let Position { index, .. } = record.at;
                    match record.kind {
                        // A replay votes on nothing, so it cannot disagree.
                        RecordKind::Command => {
                            let _ = replay.replica.apply(record.at, &record.body);
                        }
                        _ => replay.replica.pass_blank(record.at),
                    }
                    replay.next = index + 1;
                }
            }
            // Purged meanwhile: start over from the snapshot that stands for it.
            Err(_) => {
                let stopped = self.node.engine.status().borrow().stopped.is_some();
                let snapshot = self.node.log.load_snapshot().await;
                let (false, Ok(snapshot)) = (stopped, snapshot) else {
                    // Closed or poisoned: it will not be there later either.
                    return false;
                };
                *replay = self.node.replay_from(snapshot);
                tokio::time::sleep(self.node.timing.heartbeat()).await;
                return true;
            }
            Ok(_) => {}
        }
        let wanted = |event: &RawEvent| event.index() >= self.cursor;
        let events = replay.feed.take().into_iter().filter(wanted);
        self.queue.extend(events);
        if let Some(last) = self.queue.back() {
            self.cursor = last.index() + 1;
        }
        let caught_up = !matches!(
            self.node.feed.read(self.cursor.max(replay.next + 1)),
            Read::Behind { .. }
        );
        if caught_up || to == applied {
            self.cursor = self.cursor.max(replay.next + 1);
            self.replay = None;
        }
        true
    }
}
