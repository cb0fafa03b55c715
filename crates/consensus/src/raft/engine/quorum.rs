//! Check-quorum: what a leader still says when no majority answers it.
//!
//! Raft lets such a leader be: it commits nothing, so nothing is lost. But a member that hears it
//! gives nobody its vote, and where that vote is needed the others never elect. So it falls silent.
//! openraft sends heartbeats by turns then, none for [`PROBE_TIMEOUTS`] upper election timeouts and
//! then as usual for as long; entries and snapshots, which openraft does not hold back, are not sent
//! at all ([`Hush`]): one whose answer is lost is sent again and again, and would hold a member as a
//! heartbeat does.
//!
//! Invariants
//! - only what is sent depends on this, and Raft may lose any message: no promise is touched;
//! - only an answer shows that a member hears. A request, as for a vote, shows that the other way is
//!   open: a leader that went on speaking on its strength would hold those who do hear it for ever.
//!
//! Why the game goes on, counted in upper election timeouts since a majority last answered
//! - A majority without the leader can elect. From 1 on nobody hears the leader. At 2 every member
//!   is free to vote, at 4 also for one it never heard of and was shown a proof by, and until 6 there
//!   is time to do it. If it fails, another such time comes 10 later. A majority that follows another
//!   then answers the old leader's heartbeats with the later term, if the new leader has not told it.
//!   So it does not matter whom the old leader reaches: one half of a cut, or one voter of the half
//!   that needs it.
//! - The others need the leader. It has the longest log, or they have not got the entry that gives
//!   them a vote and never stand. They refuse each other, or wait, and some of them hear the leader
//!   within 5 of the link's coming back, and answer: a heartbeat is answered by who lacks what comes
//!   before it, too. With the answers of a majority everything is sent again. Of five, with two dead
//!   and the longest log at the silent leader, the other two answer; of two, the other one.
//! - A silent leader is no obstacle. Its lease is the answers it got, so it ends with them: it
//!   answers a vote asked of it, and whether it would give it, by the logs, and follows who wins.
//! - A voter that is alone is its own majority, and is never silent. Learners are part of none: a
//!   leader that only they answer is silent to them as well, and they follow the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::Timing;

/// Upper election timeouts that a leader without a majority is silent for, and then sends heartbeats
/// for, by turns. Three until a member believes those it never heard of, and two for the election.
const PROBE_TIMEOUTS: u64 = 5;

/// The same in milliseconds.
pub(super) fn probe_ms(timing: &Timing) -> u64 {
    timing.election_max_ms.saturating_mul(PROBE_TIMEOUTS)
}

/// The longest a leader without a majority says nothing to who can hear it.
pub(super) fn silent_at_most(timing: &Timing) -> Duration {
    // Its turn, and a heartbeat interval at either end of it.
    Duration::from_millis(probe_ms(timing).saturating_add(timing.election_max_ms))
}

/// What a leader has heard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    /// How long ago the message was sent that a majority last answered; `None` when none has been.
    pub acked: Option<Duration>,
    /// How long it has led: the majority that voted for it counts as having answered then.
    pub led: Duration,
    /// Whether nobody else has a say.
    pub alone: bool,
}

impl Heard {
    /// Whether a majority stands behind the leader, as far as it can know.
    pub(super) fn is_confirmed(&self, lease: Duration) -> bool {
        let answered = self.acked.is_some_and(|ago| ago <= lease);
        self.alone || answered || self.led <= lease
    }
}

/// Whether entries and snapshots are held back: what watches the leader says so, the network keeps
/// to it.
#[derive(Debug, Clone, Default)]
pub(super) struct Hush(Arc<AtomicBool>);

impl Hush {
    pub(super) fn set(&self, on: bool) {
        self.0.store(on, Ordering::Release);
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The latest change of members that is not known to be committed.
#[derive(Debug, Default)]
pub(super) struct Pending(Option<(u64, Duration)>);

impl Pending {
    /// At `now` the members are those of entry `index`.
    pub(super) fn look(&mut self, now: Duration, index: u64, committed: bool) {
        let known = self.0.filter(|(of, _)| *of == index);
        self.0 = (!committed).then(|| known.unwrap_or((index, now)));
    }

    /// How long it has been in the log; `None` when there is none.
    pub(super) fn since(&self, now: Duration) -> Option<Duration> {
        self.0.map(|(_, since)| now.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_millis(60);
    const PAST: Duration = Duration::from_millis(61);

    fn heard(acked: Option<Duration>, led: Duration) -> Heard {
        Heard {
            acked,
            led,
            alone: false,
        }
    }

    #[test]
    fn a_leader_is_confirmed_by_answers_as_old_as_the_lease_and_no_older() {
        let long = LEASE * 100;
        assert!(heard(Some(Duration::ZERO), long).is_confirmed(LEASE));
        assert!(heard(Some(LEASE), long).is_confirmed(LEASE));
        assert!(!heard(Some(PAST), long).is_confirmed(LEASE));
        assert!(!heard(None, long).is_confirmed(LEASE));
    }

    #[test]
    fn those_who_voted_for_a_leader_count_as_having_answered_then() {
        assert!(heard(None, LEASE).is_confirmed(LEASE));
        assert!(!heard(None, PAST).is_confirmed(LEASE));
        // Answers to an earlier term's messages say nothing against it.
        assert!(heard(Some(PAST), LEASE).is_confirmed(LEASE));
    }

    #[test]
    fn who_is_alone_needs_nobody() {
        let alone = Heard {
            alone: true,
            ..heard(None, PAST)
        };
        assert!(alone.is_confirmed(LEASE));
    }

    #[test]
    fn whatever_the_times_openraft_takes_the_turns_a_silent_leader_speaks_by() {
        for timing in [Timing::default(), Timing::fast()] {
            // Less leaves no time for an election after a member may believe who it never heard of.
            assert!(probe_ms(&timing) >= (3 + 2) * timing.election_max_ms);
            // A turn begins and ends between two heartbeats.
            let turn = Duration::from_millis(probe_ms(&timing) + 2 * timing.heartbeat_ms);
            assert!(silent_at_most(&timing) >= turn);
        }
        let most = Timing {
            election_max_ms: u64::MAX,
            ..Timing::default()
        };
        assert_eq!(probe_ms(&most), u64::MAX);
    }

    #[test]
    fn a_change_is_pending_from_when_it_is_in_the_log_until_it_is_committed() {
        let ms = Duration::from_millis;
        let mut pending = Pending::default();
        assert_eq!(pending.since(ms(1)), None);
        pending.look(ms(10), 4, false);
        pending.look(ms(30), 4, false);
        assert_eq!(pending.since(ms(30)), Some(ms(20)));
        // Another change, as when a leader wrote over it.
        pending.look(ms(40), 5, false);
        assert_eq!(pending.since(ms(45)), Some(ms(5)));
        pending.look(ms(50), 5, true);
        assert_eq!(pending.since(ms(50)), None);
    }
}
