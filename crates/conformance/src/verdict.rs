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
//!
//! The three that compare are not checked, and neither passed nor failed, when there was nothing to
//! compare: no step was taken twice, the script saved no living room, the game is too costly for
//! the other tier.

use std::fmt;
use std::time::Duration;

use cabinet_host::Fault;
use serde::Serialize;

use crate::compare::Difference;
use crate::units::{Size, Time, count, cut, nanos};

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
    /// The two as numbers, where they are.
    pub quantity: Option<Quantity>,
    /// The step it was measured at: 0 is `start`, n the script's n-th step.
    pub step: Option<usize>,
    /// More about it, for people; empty when there is no more. A guest may have chosen some of its
    /// words, and nothing is escaped.
    pub detail: String,
}

/// A limit and what was measured against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Quantity {
    /// What both are counted in: `ns` or `bytes`.
    pub unit: &'static str,
    /// What the measured must stay under.
    pub limit: u64,
    /// What was measured.
    pub measured: u64,
}

impl Verdict {
    fn judged(name: &'static str, within: bool, limit: String, measured: String) -> Self {
        Self {
            name,
            judgement: if within {
                Judgement::Pass
            } else {
                Judgement::Fail
            },
            limit,
            measured,
            quantity: None,
            step: None,
            detail: String::new(),
        }
    }

    /// Adds what an author should know when the verdict is a failure.
    fn explained(mut self, why: &str) -> Self {
        if !self.ok() {
            why.clone_into(&mut self.detail);
        }
        self
    }

    /// Whether this is no failure: within its limit, or not checked.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.judgement != Judgement::Fail
    }
}

/// Judges whether the guest stayed alive.
pub(crate) fn guest_fault(fault: Option<(usize, u32, &Fault)>) -> Verdict {
    const NONE: &str = "no fault";
    let measured = match fault {
        None => NONE.to_owned(),
        Some((_, exit, fault)) => format!("{}, exit {exit}", fault.class()),
    };
    let told = fault.map_or_else(String::new, |(_, _, fault)| cut(&fault.to_string()));
    Verdict {
        step: fault.map(|(step, ..)| step),
        ..Verdict::judged("guest fault", fault.is_none(), NONE.to_owned(), measured)
    }
    .explained(&format!("{told}; the room is dead from here on"))
}

/// Judges the slowest callback's wall time, guest and host, against the deadline.
pub(crate) fn latency(slowest: (usize, Duration), deadline: Duration) -> Verdict {
    let (step, measured) = slowest;
    let quantity = Quantity {
        unit: "ns",
        limit: nanos(deadline),
        measured: nanos(measured),
    };
    let (limit, measured) = (Time(deadline), Time(measured));
    under("callback latency", step, quantity, &limit, &measured)
        .explained("a callback used up its wall time")
}

/// Judges the largest guest memory seen against the cap.
pub(crate) fn memory(peak: (usize, u64), cap: u64) -> Verdict {
    let (step, measured) = peak;
    let quantity = Quantity {
        unit: "bytes",
        limit: cap,
        measured,
    };
    under("linear memory", step, quantity, &Size(cap), &Size(measured))
        .explained("guest memory reached its cap; the next allocation may be refused")
}

/// A limit reached is a limit broken.
fn under(
    name: &'static str,
    step: usize,
    quantity: Quantity,
    limit: &dyn fmt::Display,
    measured: &dyn fmt::Display,
) -> Verdict {
    let within = quantity.measured < quantity.limit;
    Verdict {
        quantity: Some(quantity),
        step: Some(step),
        ..Verdict::judged(name, within, format!("under {limit}"), measured.to_string())
    }
}

/// How a room that should repeat the control's history did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It agreed after `start` and after each of this many steps.
    Same {
        steps: usize,
    },
    Differs {
        step: usize,
        difference: Difference,
    },
    /// It could not be made, or not go on.
    Broke {
        /// `None` when it never began.
        step: Option<usize>,
        what: &'static str,
        why: String,
    },
    NotChecked {
        why: String,
    },
}

/// Judges a repeated history.
pub(crate) fn repeat(name: &'static str, limit: &str, repeat: Repeat) -> Verdict {
    let judged = |within, measured| Verdict::judged(name, within, limit.to_owned(), measured);
    match repeat {
        Repeat::Same { steps: 0 } => judged(true, "same after start".to_owned()),
        Repeat::Same { steps } => judged(true, format!("same after {}", count(steps, "step"))),
        Repeat::Differs { step, difference } => Verdict {
            step: Some(step),
            detail: difference.detail,
            ..judged(false, format!("different {}", difference.what))
        },
        Repeat::Broke { step, what, why } => Verdict {
            step,
            detail: cut(&why),
            ..judged(false, what.to_owned())
        },
        Repeat::NotChecked { why } => Verdict {
            judgement: Judgement::NotChecked,
            detail: cut(&why),
            ..judged(true, "not checked".to_owned())
        },
    }
}

/// Judges whether the game says how its results rank.
pub(crate) fn leaderboard(declared: bool) -> Verdict {
    let measured = if declared { "declared" } else { "missing" };
    let (limit, measured) = ("declared".to_owned(), measured.to_owned());
    Verdict::judged("leaderboard declared", declared, limit, measured)
        .explained("the game's meta has no leaderboard, so its results cannot be ranked")
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
        let numbers = |verdict: &Verdict| {
            let quantity = verdict.quantity.unwrap();
            (quantity.limit, quantity.measured, quantity.unit)
        };
        assert_eq!(numbers(&reached), (100_000_000, 100_000_000, "ns"));

        assert_eq!(memory((1, 65_535), 65_536).judgement, Judgement::Pass);
        let full = memory((1, 65_536), 65_536);
        assert_eq!(full.judgement, Judgement::Fail);
        assert_eq!(
            (full.limit.as_str(), full.measured.as_str()),
            ("under 64 KiB", "64 KiB")
        );
        assert_eq!(numbers(&full), (65_536, 65_536, "bytes"));
        assert!(!full.detail.is_empty() && memory((1, 0), 65_536).detail.is_empty());
    }

    #[test]
    fn a_room_that_could_not_be_restored_is_a_failure() {
        let why = "checksum".to_owned();
        let broke = Repeat::Broke {
            step: Some(4),
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
