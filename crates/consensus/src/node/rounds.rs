//! Reads that share one round of asking the majority.
//!
//! Invariants
//! - a read is answered by a round that began after the read did: an earlier one may have missed a
//!   turn that was acknowledged in between;
//! - two rounds are known at most: the one that is on, and the one that everybody who came since
//!   waits for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

type Round<T> = Shared<BoxFuture<'static, T>>;

struct Known<T: Clone> {
    on: Option<(u64, Round<T>)>,
    /// Not begun.
    next: Option<(u64, Round<T>)>,
    /// Of the last round that was made.
    last: u64,
}

fn lock<T: Clone>(known: &Mutex<Known<T>>) -> MutexGuard<'_, Known<T>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The rounds of one node.
pub(super) struct Rounds<T: Clone>(Arc<Mutex<Known<T>>>);

impl<T: Clone + Send + Sync + 'static> Rounds<T> {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Known {
            on: None,
            next: None,
            last: 0,
        })))
    }

    /// What a round answers that begins after this is called; `ask` is one. Cancel safe: a round
    /// that nobody waits for any more goes on with who comes next.
    pub(super) async fn join(&self, ask: impl Future<Output = T> + Send + 'static) -> T {
        let (number, round) = self.later(ask);
        let answer = round.await;
        lock(&self.0).on.take_if(|(on, _)| *on == number);
        answer
    }

    fn later(&self, ask: impl Future<Output = T> + Send + 'static) -> (u64, Round<T>) {
        let mut known = lock(&self.0);
        if let Some(next) = &known.next {
            return next.clone();
        }
        known.last += 1;
        let number = known.last;
        match known.on.clone() {
            None => {
                let first = (number, ask.boxed().shared());
                known.on = Some(first.clone());
                first
            }
            Some((_, before)) => {
                let begins = Arc::downgrade(&self.0);
                let next = async move {
                    before.await;
                    begin(&begins, number);
                    ask.await
                };
                let next = (number, next.boxed().shared());
                known.next = Some(next.clone());
                next
            }
        }
    }
}

/// From here on nobody may join the round.
fn begin<T: Clone>(known: &Weak<Mutex<Known<T>>>, number: u64) {
    let Some(known) = known.upgrade() else { return };
    let mut known = lock(&known);
    if let Some(next) = known.next.take_if(|(next, _)| *next == number) {
        known.on = Some(next);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use futures_util::future::join_all;
    use tokio::time::sleep;

    use super::*;

    const ROUND: Duration = Duration::from_millis(10);

    /// Counts rounds, and answers what `seen` was when it began.
    fn ask(
        rounds: &Arc<AtomicU64>,
        seen: &Arc<AtomicU64>,
    ) -> impl Future<Output = u64> + Send + use<> {
        let (rounds, seen) = (rounds.clone(), seen.clone());
        async move {
            rounds.fetch_add(1, Ordering::Relaxed);
            let began = seen.load(Ordering::Relaxed);
            sleep(ROUND).await;
            began
        }
    }

    #[tokio::test(start_paused = true)]
    async fn reads_at_a_time_take_two_rounds_and_the_next_read_takes_one() {
        let (count, seen) = (Arc::default(), Arc::default());
        let rounds = Rounds::new();
        join_all((0..100).map(|_| rounds.join(ask(&count, &seen)))).await;
        assert_eq!(count.load(Ordering::Relaxed), 2);
        rounds.join(ask(&count, &seen)).await;
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_sees_what_was_there_when_it_began_whoever_else_reads_or_gives_up() {
        let (count, seen) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let rounds = Rounds::new();
        let read = |n: u64| {
            let (count, seen, rounds) = (&count, &seen, &rounds);
            async move {
                sleep(Duration::from_millis(n * 7 % 300)).await;
                // Something is acknowledged, and read right after.
                let floor = seen.fetch_add(1, Ordering::Relaxed) + 1;
                let asked = rounds.join(ask(count, seen));
                let patience =
                    Duration::from_millis(if n.is_multiple_of(3) { n % 25 } else { 1000 });
                let answer = tokio::time::timeout(patience, asked).await;
                if !n.is_multiple_of(3) {
                    assert!(answer.unwrap() >= floor, "read {n}");
                }
            }
        };
        join_all((0..300).map(read)).await;
        assert!(count.load(Ordering::Relaxed) <= 2 * 300 / 10 + 10);
    }
}
