//! What a node does unasked: the first settings, timeouts and ticks where it leads, its vote on
//! hashes, and compaction of its own log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Node;
use crate::raft::{Consensus, Role, lock};
use crate::state::Applied;
use crate::state::command::{Body as Do, Hash, Tick, Timeout};

impl Node {
    /// One round of what a node does unasked.
    async fn house_round(&self, house: &mut House) {
        let status = self.engine.status().get();
        let leads = status.role == Role::Leader;
        // Taken in every round: a clock that nobody looks at is seen to move too late.
        let stamp = self.stamp();
        if leads {
            let (configured, due, idle_ms) = {
                let replica = lock(&self.replica);
                let stamp_due = replica.deadline;
                let ttl = replica.settings.as_ref().map(|s| s.session_ttl_ms);
                (replica.settings.is_some(), stamp_due, (replica.now_ms, ttl))
            };
            if !configured {
                let _ = self.bounded(Do::Configure(self.configure.clone())).await;
            } else if let Some(deadline) = due
                && stamp >= deadline.at_ms
            {
                let turn = deadline.turn;
                let _ = self.bounded(Do::Timeout(Timeout { turn })).await;
            } else if let (now_ms, Some(ttl)) = idle_ms
                && stamp.saturating_sub(now_ms) > (ttl / 4).max(1)
            {
                let _ = self.bounded(Do::Tick(Tick {})).await;
            }
        }
        if !leads {
            self.time_turns_too().await;
        }
        if status.role != Role::Learner {
            let hash = lock(&self.replica).hash_to_vote(self.me());
            if let Some((at, hash)) = hash {
                let vote = Do::Hash(Hash {
                    at,
                    hash: Bytes::copy_from_slice(&hash),
                    node: Some(self.me().into()),
                });
                let deadline = Instant::now() + self.timing.election_max();
                let _ = self.submit(vote, deadline).await;
            }
        }
        self.compact_if_due(house).await;
    }

    /// What only a planted bug does: a follower that times turns by its own clock.
    async fn time_turns_too(&self) {
        let due = {
            let replica = lock(&self.replica);
            replica.deadline.filter(|_| replica.planted.timer_per_node)
        };
        if let Some(deadline) = due
            && self.stamp() >= deadline.at_ms
        {
            let turn = deadline.turn;
            let until = Instant::now() + self.timing.election_max();
            let _ = self.submit(Do::Timeout(Timeout { turn }), until).await;
        }
    }

    /// Decides a command here, giving up when no majority answers for a while.
    pub(crate) async fn bounded(&self, body: Do) -> Option<Applied> {
        let within = self.timing.election_max() * 2;
        let submit = self.submit_here(body);
        tokio::time::timeout(within, submit).await.ok()?.ok()
    }

    /// Bytes of the entries after the snapshot that an earlier process left.
    async fn found_bytes(&self) -> u64 {
        let Ok(state) = self.log.state() else {
            return 0;
        };
        let after = self.engine.started_after();
        let end = state.last.map_or(0, |last| last.index + 1);
        let (mut from, mut bytes) = (state.first.max(after), 0);
        while from < end {
            let to = end.min(from + FOUND_AT_ONCE);
            // What is gone meanwhile, a snapshot holds.
            let Ok(records) = self.log.read(from, to) else {
                break;
            };
            bytes += records.iter().map(|r| r.body.len() as u64).sum::<u64>();
            from = to;
            tokio::task::yield_now().await;
        }
        bytes
    }

    async fn compact_if_due(&self, house: &mut House) {
        let Some(compaction) = self.compaction else {
            return;
        };
        let numbers = self.engine.numbers();
        let (Some(applied), snapshot) = (numbers.applied, numbers.snapshot) else {
            return;
        };
        let entries = (applied + 1).saturating_sub(snapshot.map_or(0, |index| index + 1));
        let now = self.clock.now();
        let appended = self.log.stats().bytes;
        let bytes = house.found_bytes + appended.saturating_sub(house.compacted_bytes);
        // One that was too large is written whole to be measured, so the next try waits for as much
        // as the next snapshot would, or for a while: the state may be small by then.
        let (entries, age) = match (numbers.snapshot_too_large, house.asked_at) {
            (Some(_), Some(asked)) => {
                let since = applied.saturating_sub(asked);
                (since, compaction.age.min(MEASURE_AGAIN))
            }
            _ => (entries, compaction.age),
        };
        let due = entries >= compaction.entries
            || (entries > 0 && bytes >= compaction.bytes)
            || (entries > 0 && now.saturating_sub(house.compacted_at) >= age);
        if due && house.asked_at != Some(applied) && self.engine.compact().await.is_ok() {
            house.asked_at = Some(applied);
            house.found_bytes = 0;
            house.compacted_bytes = appended;
            house.compacted_at = now;
        }
    }
}

/// The longest until a state that was too large for a snapshot is measured again, once there is
/// something new in it.
const MEASURE_AGAIN: Duration = Duration::from_secs(60);

/// Records read at a time while what an earlier process left is measured.
const FOUND_AT_ONCE: u64 = 1024;

#[derive(Default)]
struct House {
    /// Bytes of the entries that the log held after its snapshot when this process opened it: what
    /// the log counts begins with the process.
    found_bytes: u64,
    /// What the log had counted at the last compaction, or when this process opened it.
    compacted_bytes: u64,
    compacted_at: Duration,
    asked_at: Option<u64>,
}

/// Keeps a node's house until Raft ends.
pub(super) async fn keep_house(node: Arc<Node>) {
    let mut house = House {
        compacted_bytes: node.log.stats().bytes,
        compacted_at: node.clock.now(),
        ..House::default()
    };
    if node.compaction.is_some() {
        house.found_bytes = node.found_bytes().await;
    }
    let mut status = node.engine.status();
    loop {
        node.house_round(&mut house).await;
        let pause = tokio::time::timeout(node.timing.heartbeat(), status.changed());
        if let Ok(Err(_)) = pause.await {
            return;
        }
    }
}
