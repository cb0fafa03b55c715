//! What was judged and how: pure functions from what was measured to a verdict.
//!
//! | verdict | fails when |
//! |---|---|
//! | `guest fault` | a callback trapped, exited, reported an error, or was stopped |
//! | `callback latency` | the slowest callback took as long as the deadline, or longer |
//! | `linear memory` | guest memory reached its cap |
//! | `hibernation determinism` | a restored room differs from one that was never saved |
//! | `replay determinism` | the same script twice gives two histories |
//! | `compiler determinism` | the other compiler tier gives another history |
//! | `leaderboard declared` | asked for, and the game declares none |

use std::time::Duration;

use cabinet_host::Fault;
use serde::Serialize;

use crate::compare::Difference;
use crate::units::{Size, Time, count, one_line};

/// How a verdict came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// Within its limit.
    Pass,
    /// Not.
    Fail,
    /// There was nothing to judge by; the detail says why.
    NotChecked,
}

/// One thing judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Verdict {
    /// What was judged, see the [module](self).
    pub name: &'static str,
    /// How it came out.
    pub judgement: Judgement,
    /// What was allowed, for people.
    pub limit: String,
    /// What was measured, for people.
    pub measured: String,
    /// The step it was measured at: 0 is `start`, n the script's n-th step.
    pub step: Option<usize>,
    /// More about it, for people; empty when there is no more.
    pub detail: String,
}

impl Verdict {
    /// Whether this is no failure.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.judgement != Judgement::Fail
    }
}

/// Judges whether the guest stayed alive.
pub(crate) fn guest_fault(fault: Option<(usize, u32, &Fault)>) -> Verdict {
    let verdict = Verdict {
        name: "guest fault",
        judgement: Judgement::Pass,
        limit: "no fault".to_owned(),
        measured: "no fault".to_owned(),
        step: None,
        detail: String::new(),
    };
    match fault {
        None => verdict,
        Some((step, exit, fault)) => Verdict {
            judgement: Judgement::Fail,
            measured: format!("{}, exit {exit}", fault.class()),
            step: Some(step),
            detail: format!(
                "{}; the room is dead from here on",
                one_line(&fault.to_string())
            ),
            ..verdict
        },
    }
}

/// Judges the slowest callback's wall time, guest and host, against the deadline.
pub(crate) fn latency(slowest: (usize, Duration), deadline: Duration) -> Verdict {
    let (step, measured) = slowest;
    let fails = measured >= deadline;
    Verdict {
        name: "callback latency",
        judgement: if fails {
            Judgement::Fail
        } else {
            Judgement::Pass
        },
        limit: format!("under {}", Time(deadline)),
        measured: Time(measured).to_string(),
        step: Some(step),
        detail: if fails {
            "a callback used up its wall time".to_owned()
        } else {
            String::new()
        },
    }
}

/// Judges the largest guest memory seen against the cap.
pub(crate) fn memory(peak: (usize, u64), cap: u64) -> Verdict {
    let (step, measured) = peak;
    let fails = measured >= cap;
    let detail = "guest memory reached its cap; the next allocation may be refused";
    Verdict {
        name: "linear memory",
        judgement: if fails {
            Judgement::Fail
        } else {
            Judgement::Pass
        },
        limit: format!("under {}", Size(cap)),
        measured: Size(measured).to_string(),
        step: Some(step),
        detail: if fails {
            detail.to_owned()
        } else {
            String::new()
        },
    }
}

/// How a room that should repeat the control's history did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It agreed after each of this many steps.
    Same {
        steps: usize,
    },
    Differs {
        step: usize,
        difference: Difference,
    },
    /// It could not go on.
    Broke {
        step: usize,
        what: &'static str,
        why: String,
    },
    NotChecked {
        why: String,
    },
}

/// Judges a repeated history.
pub(crate) fn repeat(name: &'static str, limit: &str, repeat: Repeat) -> Verdict {
    let (judgement, measured, step, detail) = match repeat {
        Repeat::Same { steps } => (
            Judgement::Pass,
            format!("same after {}", count(steps, "step")),
            None,
            String::new(),
        ),
        Repeat::Differs { step, difference } => {
            let measured = format!("different {}", difference.what);
            (Judgement::Fail, measured, Some(step), difference.detail)
        }
        Repeat::Broke { step, what, why } => {
            (Judgement::Fail, what.to_owned(), Some(step), one_line(&why))
        }
        Repeat::NotChecked { why } => (
            Judgement::NotChecked,
            "not checked".to_owned(),
            None,
            one_line(&why),
        ),
    };
    Verdict {
        name,
        judgement,
        limit: limit.to_owned(),
        measured,
        step,
        detail,
    }
}

/// Judges whether the game says how its results rank.
pub(crate) fn leaderboard(declared: bool) -> Verdict {
    let detail = "the game's meta has no leaderboard, so its results cannot be ranked";
    Verdict {
        name: "leaderboard declared",
        judgement: if declared {
            Judgement::Pass
        } else {
            Judgement::Fail
        },
        limit: "declared".to_owned(),
        measured: if declared { "declared" } else { "missing" }.to_owned(),
        step: None,
        detail: if declared {
            String::new()
        } else {
            detail.to_owned()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_reached_is_a_limit_broken() {
        let deadline = Duration::from_millis(100);
        let just = deadline - Duration::from_nanos(1);
        assert_eq!(latency((3, just), deadline).judgement, Judgement::Pass);
        let reached = latency((3, deadline), deadline);
        assert_eq!(reached.judgement, Judgement::Fail);
        assert_eq!(
            (reached.limit.as_str(), reached.measured.as_str()),
            ("under 100ms", "100ms")
        );
        assert_eq!(reached.step, Some(3));

        assert_eq!(memory((1, 65_535), 65_536).judgement, Judgement::Pass);
        let full = memory((1, 65_536), 65_536);
        assert_eq!(full.judgement, Judgement::Fail);
        assert_eq!(
            (full.limit.as_str(), full.measured.as_str()),
            ("under 64 KiB", "64 KiB")
        );
    }

    #[test]
    fn a_room_that_could_not_be_restored_is_a_failure() {
        let why = "checksum".to_owned();
        let broke = Repeat::Broke {
            step: 4,
            what: "restore failed",
            why,
        };
        let verdict = repeat("hibernation determinism", "same as the control", broke);
        assert!(!verdict.ok());
        assert_eq!(verdict.measured, "restore failed");
        assert_eq!(
            (verdict.step, verdict.detail.as_str()),
            (Some(4), "checksum")
        );
    }

    #[test]
    fn what_was_not_checked_is_neither_passed_nor_failed() {
        let why = "the script has no snapshot step".to_owned();
        let verdict = repeat("hibernation determinism", "", Repeat::NotChecked { why });
        assert!(verdict.ok());
        assert_eq!(verdict.judgement, Judgement::NotChecked);
        assert_eq!(verdict.measured, "not checked");
    }

    #[test]
    fn a_fault_is_named_with_its_class_exit_and_step() {
        let fault = Fault::Exit { code: 3 };
        let verdict = guest_fault(Some((2, 3, &fault)));
        assert_eq!(verdict.measured, "exit, exit 3");
        assert_eq!(verdict.step, Some(2));
        assert!(guest_fault(None).ok());
        assert!(!leaderboard(false).ok());
        assert!(leaderboard(true).ok());
    }
}
