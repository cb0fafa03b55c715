//! What was reported of rival sessions, so that a peer that says one thing and then another is no
//! news each time.
//!
//! Invariants
//! - of one peer's word a session's term is reported once for as long as it is heard now and then;
//! - one peer's word is reported [`REPORTS_MAX`] times in the time that a report is remembered, also
//!   when it goes and comes back: it cannot fill what keeps the reports;
//! - what one peer said before keeps nobody else's word from being reported; what it says now, does: of
//!   one session's term one word is enough.

use std::collections::VecDeque;
use std::time::Duration;

use crate::ids::{PeerId, SessionId};

/// Reports of one peer's word that are remembered: with so many it is reported no more.
pub(super) const REPORTS_MAX: usize = 8;
/// Reports that are remembered of all: past that the oldest is forgotten.
pub(super) const REPORTS_KEPT: usize = 1024;

/// A session in a term, that was reported by somebody's word.
#[derive(Debug)]
struct Report {
    by: PeerId,
    session: SessionId,
    term: u64,
    heard_at: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Reports(VecDeque<Report>);

impl Reports {
    /// A peer vouches for a session in a term, and `was_told` says whether somebody does so already.
    /// Answers whether to report it: a report is remembered until it was not heard for `lasts`.
    pub(super) fn hear(
        &mut self,
        by: &PeerId,
        session: SessionId,
        term: u64,
        was_told: bool,
        now: Duration,
        lasts: Duration,
    ) -> bool {
        self.0
            .retain(|known| now.saturating_sub(known.heard_at) < lasts);
        let mut of_peer = 0;
        let mut known = was_told;
        for report in self.0.iter_mut().filter(|report| report.by == *by) {
            of_peer += 1;
            if report.session == session && report.term >= term {
                report.heard_at = now;
                known = true;
            }
        }
        if known || of_peer >= REPORTS_MAX {
            return false;
        }
        if self.0.len() >= REPORTS_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Report {
            by: by.clone(),
            session,
            term,
            heard_at: now,
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_secs(60);

    fn peer(name: &str) -> PeerId {
        PeerId::new(name).unwrap()
    }

    fn hear(reports: &mut Reports, by: &str, session: usize, term: u64, secs: u64) -> bool {
        let session = SessionId(session as u128);
        let now = Duration::from_secs(secs);
        reports.hear(&peer(by), session, term, false, now, LASTS)
    }

    #[test]
    fn a_peer_that_says_one_and_then_the_other_is_reported_once_for_each() {
        let mut reports = Reports::default();
        let said = |reports: &mut Reports, secs| [1, 2].map(|n| hear(reports, "eve", n, 3, secs));
        assert_eq!(said(&mut reports, 0), [true, true]);
        for secs in 1..200 {
            assert_eq!(said(&mut reports, secs), [false, false]);
        }
        // An older term is none either, a later one is, and another peer's word is its own.
        assert!(!hear(&mut reports, "eve", 1, 2, 200));
        assert!(hear(&mut reports, "eve", 1, 4, 200));
        assert!(hear(&mut reports, "bob", 1, 3, 200));
    }

    #[test]
    fn what_is_known_already_is_not_reported_and_takes_no_place() {
        let mut reports = Reports::default();
        let (eve, now) = (peer("eve"), Duration::ZERO);
        assert!(!reports.hear(&eve, SessionId(1), 1, true, now, LASTS));
        assert!(hear(&mut reports, "eve", 1, 1, 0));
    }

    #[test]
    fn one_peers_word_is_reported_so_often_and_not_once_more_until_a_report_is_forgotten() {
        let mut reports = Reports::default();
        for n in 0..REPORTS_MAX {
            assert!(hear(&mut reports, "eve", n, 1, n as u64), "{n}");
        }
        assert!(!hear(&mut reports, "eve", REPORTS_MAX, 1, 59));
        assert!(!hear(&mut reports, "eve", 1, 2, 59), "nor a later term");
        assert!(hear(&mut reports, "bob", REPORTS_MAX, 1, 59));
        // The first is forgotten after a minute: there is place for one.
        assert!(hear(&mut reports, "eve", REPORTS_MAX, 1, 60));
        assert!(!hear(&mut reports, "eve", REPORTS_MAX + 1, 1, 60));
    }

    #[test]
    fn so_many_reports_are_remembered_and_one_more_takes_the_place_of_the_oldest() {
        let mut reports = Reports::default();
        let by = |n: usize| format!("p{}", n / REPORTS_MAX);
        for n in 0..REPORTS_KEPT {
            assert!(hear(&mut reports, &by(n), n, 1, 0));
        }
        assert!(!hear(&mut reports, &by(0), 0, 1, 0));
        assert!(hear(&mut reports, "more", 0, 1, 0));
        assert_eq!(reports.0.len(), REPORTS_KEPT);
        assert!(
            !hear(&mut reports, &by(1), 1, 1, 0),
            "the second is remembered"
        );
        assert!(hear(&mut reports, &by(0), 0, 1, 0), "the first is not");
    }
}
