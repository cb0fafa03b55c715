//! Trying again: how often, after how long, and after which failures.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::failure::{Failed, Kind};
use super::options::{Retries, Timeouts};
use crate::Entropy;

/// Which failures are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Every passing one: the call may be made twice.
    WheneverItPasses,
    /// Those after which it surely was not done.
    IfNotDone,
}

/// Makes requests until one is answered or there is no more patience.
pub(super) async fn retry<T, F>(
    operation: &'static str,
    again: Again,
    (timeouts, retries): (&Timeouts, &Retries),
    entropy: &dyn Entropy,
    mut request: impl FnMut() -> F,
) -> Result<T, Failed>
where
    F: Future<Output = Result<T, Failed>>,
{
    let began = Instant::now();
    let mut may_be_done = false;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let left = timeouts.operation.saturating_sub(began.elapsed());
        let mut failed = match timeout(timeouts.attempt.min(left), request()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(failed)) => failed,
            Err(late) => {
                Failed::plain(Kind::Unknown, operation, "no reply in time").caused_by(late)
            }
        };
        may_be_done |= failed.may_be_done;
        failed.may_be_done = may_be_done;
        let passes = match failed.kind {
            Kind::Conflict | Kind::NotDone => true,
            Kind::Unknown => again == Again::WheneverItPasses,
            _ => false,
        };
        let pause = pause(retries.pause_max(attempts), entropy);
        let no_time = began.elapsed() + pause >= timeouts.operation;
        if !passes || no_time || attempts >= retries.attempts_max {
            return Err(failed.after(attempts));
        }
        tracing::debug!(operation, attempts, error = %failed.error, "trying again");
        sleep(pause).await;
    }
}

/// A random pause, so that those who failed together do not come back together.
fn pause(most: Duration, entropy: &dyn Entropy) -> Duration {
    let mut random = [0; 4];
    match entropy.fill(&mut random) {
        Ok(()) => most.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX)),
        Err(_) => most,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededEntropy;

    const TIMEOUTS: Timeouts = Timeouts {
        connect: Duration::from_secs(1),
        attempt: Duration::from_secs(10),
        operation: Duration::from_secs(25),
    };

    async fn failing(again: Again, kind: Kind, retries: Retries) -> Failed {
        let entropy = SeededEntropy::new(1);
        let patience = (&TIMEOUTS, &retries);
        let request = || async move { Err::<(), _>(Failed::plain(kind, "put", "a test")) };
        let answer = retry("put", again, patience, &entropy, request).await;
        answer.expect_err("it fails every time")
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_may_be_made_twice_is_tried_again_when_it_may_have_been_done() {
        for (again, kind, attempts) in [
            (Again::WheneverItPasses, Kind::Unknown, 5),
            (Again::WheneverItPasses, Kind::NotDone, 5),
            (Again::WheneverItPasses, Kind::Refused, 1),
            (Again::IfNotDone, Kind::Unknown, 1),
            (Again::IfNotDone, Kind::NotDone, 5),
            (Again::IfNotDone, Kind::Conflict, 5),
            (Again::IfNotDone, Kind::Precondition, 1),
        ] {
            let failed = failing(again, kind, Retries::default()).await;
            assert_eq!(failed.error.attempts(), attempts, "{again:?} {kind:?}");
            assert_eq!(failed.may_be_done, kind == Kind::Unknown);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_when_its_time_is_over_however_many_requests_are_left() {
        let retries = Retries {
            attempts_max: 100,
            ..Retries::default()
        };
        let began = Instant::now();
        let request = || async {
            sleep(Duration::from_secs(60)).await;
            Ok(())
        };
        let entropy = SeededEntropy::new(1);
        let patience = (&TIMEOUTS, &retries);
        let answer = retry("get", Again::WheneverItPasses, patience, &entropy, request).await;
        assert_eq!(answer.expect_err("no time").error.attempts(), 3);
        // The clock of a test that is paused counts whole milliseconds.
        assert!(began.elapsed() <= TIMEOUTS.operation + Duration::from_millis(5));
    }
}
