//! Snapshots that are larger than their receiver takes, as both ends see it.
//!
//! Trying again at once is of no use: the receiver must be given a higher limit, or the state must
//! become smaller. So a sender asks again ever more rarely, and with an empty piece.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::NodeId;
use crate::raft::{RaftStatus, Role, SnapshotTooLarge};
use crate::watch::{self, Watch};

/// Longest pause before a receiver that refused is asked again.
const PAUSE_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refused {
    what: SnapshotTooLarge,
    times: u32,
}

/// Who refused, or whose snapshot was refused.
#[derive(Clone)]
pub(super) struct Refusals(watch::Sender<BTreeMap<NodeId, Refused>>);

impl Refusals {
    pub fn new() -> Self {
        Self(watch::channel(BTreeMap::new()).0)
    }

    /// The snapshot to or from `other` was refused. Answers how long to wait before the next try,
    /// when the first pause is `first`.
    pub fn note(&self, other: &NodeId, what: SnapshotTooLarge, first: Duration) -> Duration {
        let mut times = 0;
        self.0.modify(|refused| {
            let known = refused.get(other).copied();
            times = known.map_or(0, |known| known.times.saturating_add(1));
            refused.insert(other.clone(), Refused { what, times });
            let news = known.is_none_or(|known| known.what != what);
            if news {
                let SnapshotTooLarge { bytes, max } = what;
                tracing::warn!(%other, bytes, max, "a snapshot is larger than its receiver takes");
            }
            news
        });
        first
            .saturating_mul(2_u32.saturating_pow(times))
            .min(PAUSE_MAX)
    }

    /// A snapshot to or from `other` was taken, or none is needed.
    pub fn clear(&self, other: &NodeId) {
        self.0.modify(|refused| refused.remove(other).is_some());
    }

    pub fn concerns(&self, other: &NodeId) -> bool {
        self.0.borrow().contains_key(other)
    }

    /// Forgets what `status` says does not matter any more: a leader's snapshots are for its
    /// members, and another node's come from its leader.
    pub fn keep_to(&self, status: &RaftStatus) {
        self.0.modify(|refused| {
            let before = refused.len();
            refused.retain(|other, _| match status.role {
                Role::Leader => status.membership.contains(other),
                _ => status.leader.as_ref().is_none_or(|leader| leader == other),
            });
            refused.len() != before
        });
    }

    pub fn all(&self) -> BTreeMap<NodeId, SnapshotTooLarge> {
        let refused = self.0.borrow();
        let what = refused.iter().map(|(other, known)| (other, known.what));
        what.map(|(other, what)| (other.clone(), what)).collect()
    }

    /// Wakes when something is news.
    pub fn changes(&self) -> Watch<impl Sized + use<>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Incarnation, PeerId};

    #[test]
    fn a_receiver_that_refuses_is_asked_ever_more_rarely_until_it_takes_one() {
        let refusals = Refusals::new();
        let bob = NodeId::new(PeerId::new("bob").unwrap(), Incarnation(1));
        let what = SnapshotTooLarge { bytes: 11, max: 10 };
        let first = Duration::from_secs(1);
        let pauses: Vec<_> = (0..9)
            .map(|_| refusals.note(&bob, what, first).as_secs())
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(refusals.all(), [(bob.clone(), what)].into());
        refusals.clear(&bob);
        assert!(!refusals.concerns(&bob) && refusals.all().is_empty());
        assert_eq!(refusals.note(&bob, what, first), first);
    }
}
