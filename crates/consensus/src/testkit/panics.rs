//! A panic anywhere in a run is that run's violation, not the sweep's end.
//!
//! A run is one thread: what panics there meanwhile is its own, whether it unwinds the run or ends a
//! task that nobody looks at.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use super::{Counters, Outcome, Violation};

thread_local! {
    /// The first panic of the run that is under way here, if one is.
    static FIRST: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
}

/// Beside whatever is told of panics already.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let _ = FIRST.try_with(|first| {
                if let Ok(mut first) = first.try_borrow_mut()
                    && let Some(first) = &mut *first
                {
                    first.get_or_insert_with(|| info.to_string());
                }
            });
            others(info);
        }));
    });
}

/// Plays a run, and answers also if it panics.
pub(super) fn caught(seed: u64, play: impl FnOnce() -> Outcome) -> Outcome {
    listen();
    FIRST.set(Some(None));
    let played = catch_unwind(AssertUnwindSafe(play));
    let first = FIRST.take().flatten();
    let mut outcome = played.unwrap_or_else(|_| Outcome {
        seed,
        trace_hash: 0,
        counters: Counters::default(),
        violation: None,
    });
    if let (None, Some(detail)) = (&outcome.violation, first) {
        outcome.violation = Some(Violation {
            invariant: "NoPanic",
            detail,
            at_ms: 0,
        });
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet() -> Outcome {
        Outcome {
            seed: 7,
            trace_hash: 1,
            counters: Counters::default(),
            violation: None,
        }
    }

    #[test]
    fn a_run_that_panics_is_told_by_its_seed_and_the_next_is_another() {
        let outcome = caught(7, || panic!("on purpose"));
        let violation = outcome.violation.unwrap();
        assert_eq!((outcome.seed, violation.invariant), (7, "NoPanic"));
        assert!(violation.detail.contains("on purpose"), "{violation:?}");
        assert_eq!(caught(7, quiet), quiet());
    }

    #[test]
    fn a_panic_of_a_task_that_nobody_waits_for_is_told_too() {
        let outcome = caught(7, || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            runtime.block_on(async {
                let task = tokio::spawn(async { panic!("aside") });
                assert!(task.await.is_err());
            });
            quiet()
        });
        let violation = outcome.violation.unwrap();
        assert_eq!(violation.invariant, "NoPanic");
        assert!(violation.detail.contains("aside"), "{violation:?}");
    }
}
