//! What a node did, in the order it was seen: a bounded ring, told by whoever watches Raft.
//!
//! Invariants
//! - numbers grow by one, and at most [`TRACE_MAX`] entries are kept, the latest;
//! - an entry says what changed between two looks: what came and went between them is not in it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::{Membership, RaftNumbers, RaftStatus, Role};
use crate::ids::NodeId;

/// Entries kept.
pub const TRACE_MAX: usize = 256;

/// One thing a node did or saw. Indices count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceEvent {
    /// It became something else, or entered another term: an election stood for, won or lost.
    Role {
        /// What it is now.
        role: Role,
        /// In which term.
        term: u64,
    },
    /// It believes that another node leads, or none.
    Leader {
        /// Who, in `term`.
        leader: Option<NodeId>,
        /// In which term.
        term: u64,
    },
    /// It leads, and an entry of its own term is committed: only now does it know that the log
    /// before that entry is.
    CommittedFrom {
        /// The first entry of its term.
        index: u64,
        /// The term.
        term: u64,
    },
    /// An entry of the log changed the members.
    Members {
        /// Who is a member now.
        members: Arc<Membership>,
        /// The entry.
        index: u64,
        /// Whether it is committed.
        committed: bool,
    },
    /// A snapshot stands for every entry through this one.
    Snapshot {
        /// The last entry it contains.
        through: u64,
    },
    /// The log was forgotten through this entry.
    Purged {
        /// The last entry forgotten.
        through: u64,
    },
    /// Raft stopped.
    Stopped {
        /// Why.
        why: String,
    },
}

/// An entry of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// Its number, from 1.
    pub number: u64,
    /// Since the node started.
    pub at: Duration,
    /// What happened.
    pub event: TraceEvent,
}

/// The ring, and what was seen last.
#[derive(Debug, Default)]
pub(crate) struct Tracer {
    ring: VecDeque<Traced>,
    last: u64,
    seen: Option<Seen>,
}

#[derive(Debug)]
struct Seen {
    status: RaftStatus,
    snapshot: Option<u64>,
    purged: Option<u64>,
    committed_from: Option<(u64, u64)>,
}

impl Tracer {
    /// Looks at the node at a time. Answers whether there is anything new.
    pub(crate) fn look(
        &mut self,
        at: Duration,
        status: &RaftStatus,
        numbers: &RaftNumbers,
        committed_from: Option<u64>,
    ) -> bool {
        let before = self.seen.replace(Seen {
            status: status.clone(),
            snapshot: numbers.snapshot,
            purged: numbers.purged,
            committed_from: committed_from.map(|index| (status.term, index)),
        });
        let mut events = Vec::new();
        let old = before.as_ref().map(|seen| &seen.status);
        let term = status.term;
        if old.is_none_or(|old| (old.role, old.term) != (status.role, term)) {
            let role = status.role;
            events.push(TraceEvent::Role { role, term });
        }
        if old.is_none_or(|old| old.leader != status.leader) {
            let leader = status.leader.clone();
            events.push(TraceEvent::Leader { leader, term });
        }
        if let Some(index) = committed_from
            && before.as_ref().and_then(|seen| seen.committed_from) != Some((term, index))
        {
            events.push(TraceEvent::CommittedFrom { index, term });
        }
        let members = |status: &RaftStatus| (status.membership_index, status.membership_committed);
        let anybody = !status.membership.voters.is_empty();
        if anybody && old.is_none_or(|old| members(old) != members(status)) {
            events.push(TraceEvent::Members {
                members: status.membership.clone(),
                index: status.membership_index + 1,
                committed: status.membership_committed,
            });
        }
        let newer = |old: Option<u64>, new: Option<u64>| new.filter(|_| new > old);
        let (snapshot, purged) = before
            .as_ref()
            .map_or((None, None), |seen| (seen.snapshot, seen.purged));
        if let Some(index) = newer(snapshot, numbers.snapshot) {
            let through = index + 1;
            events.push(TraceEvent::Snapshot { through });
        }
        if let Some(index) = newer(purged, numbers.purged) {
            let through = index + 1;
            events.push(TraceEvent::Purged { through });
        }
        if let Some(why) = &status.stopped
            && old.is_none_or(|old| old.stopped.is_none())
        {
            events.push(TraceEvent::Stopped { why: why.clone() });
        }
        let any = !events.is_empty();
        for event in events {
            self.last += 1;
            self.ring.push_back(Traced {
                number: self.last,
                at,
                event,
            });
            if self.ring.len() > TRACE_MAX {
                self.ring.pop_front();
            }
        }
        any
    }

    /// The number of the last entry; 0 before the first.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The entries from a number on that are kept.
    pub(crate) fn since(&self, number: u64) -> Vec<Traced> {
        let start = self.ring.partition_point(|entry| entry.number < number);
        self.ring.iter().skip(start).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(role: Role, term: u64) -> RaftStatus {
        RaftStatus {
            role,
            term,
            leader: None,
            membership: Arc::default(),
            membership_index: 0,
            membership_committed: true,
            snapshots_refused: Arc::default(),
            stopped: None,
        }
    }

    #[test]
    fn an_entry_is_made_of_what_changed_and_of_nothing_else() {
        let mut tracer = Tracer::default();
        let (at, numbers) = (Duration::from_millis(3), RaftNumbers::default());
        assert!(tracer.look(at, &status(Role::Follower, 1), &numbers, None));
        let first = tracer.last();
        assert!(!tracer.look(at, &status(Role::Follower, 1), &numbers, None));
        assert_eq!(tracer.last(), first);
        assert!(tracer.look(at, &status(Role::Leader, 2), &numbers, None));
        assert!(tracer.look(at, &status(Role::Leader, 2), &numbers, Some(9)));
        let mut snapshot = numbers.clone();
        snapshot.snapshot = Some(11);
        assert!(tracer.look(at, &status(Role::Leader, 2), &snapshot, Some(9)));
        let events: Vec<_> = tracer
            .since(first + 1)
            .into_iter()
            .map(|entry| entry.event)
            .collect();
        let role = Role::Leader;
        assert_eq!(
            events,
            [
                TraceEvent::Role { role, term: 2 },
                TraceEvent::CommittedFrom { index: 9, term: 2 },
                TraceEvent::Snapshot { through: 12 },
            ]
        );
    }

    #[test]
    fn the_most_entries_are_kept_and_one_more_drops_the_oldest() {
        let mut tracer = Tracer::default();
        let numbers = RaftNumbers::default();
        let mut term = 0;
        while tracer.last() < TRACE_MAX as u64 {
            term += 1;
            tracer.look(
                Duration::ZERO,
                &status(Role::Follower, term),
                &numbers,
                None,
            );
        }
        assert_eq!(tracer.since(0).len(), TRACE_MAX);
        assert_eq!(tracer.since(0)[0].number, 1);
        tracer.look(
            Duration::ZERO,
            &status(Role::Follower, term + 1),
            &numbers,
            None,
        );
        assert_eq!(tracer.since(0).len(), TRACE_MAX);
        assert_eq!(tracer.since(0)[0].number, 2);
        assert_eq!(tracer.since(TRACE_MAX as u64).len(), 2);
    }
}
