//! The node's own proposals under way: their serials, and how long each is waited for.
//!
//! A timer of the runtime for each of a thousand proposals, every one of which is answered long
//! before it rings, costs more than most of what a proposal does. So a proposal arms its timer only
//! once a sweep finds that it has waited for a while.
//!
//! Invariants
//! - no serial is more than [`WINDOW`] from another under way: the game remembers so many;
//! - who waits has a timer, or stands where the next sweep but one wakes it. The end of the sweeps
//!   wakes everybody, and who comes later has a timer at once.

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::propose::ClientState;
use super::{Node, guard};
use crate::state::sessions::WINDOW;

/// A serial under way.
#[derive(Default)]
struct Slot {
    /// How many proposals have it: a caller may name the same one twice.
    holders: usize,
    /// Who is to be woken, and after which sweep it began to wait.
    waiting: Option<(Waker, u64)>,
}

/// The serials under way, in a ring, since they come and end nearly in order.
#[derive(Default)]
pub(super) struct UnderWay {
    /// The serial of the first slot. The first and the last slot have holders.
    first: u64,
    slots: VecDeque<Slot>,
    /// Proposals, which may share a serial.
    len: usize,
    sweeps: u64,
    swept_no_more: bool,
}

impl UnderWay {
    /// Takes a serial. `false` when `max` are under way, or it is too far from one of them.
    pub(super) fn begin(&mut self, serial: u64, max: usize) -> bool {
        if self.slots.is_empty() {
            self.first = serial;
        }
        let next = self.first + self.slots.len() as u64;
        let (low, high) = (self.first.min(serial), next.max(serial + 1));
        if self.len >= max || high - low > WINDOW {
            return false;
        }
        for _ in serial..self.first {
            self.slots.push_front(Slot::default());
        }
        for _ in next..high {
            self.slots.push_back(Slot::default());
        }
        self.first = low;
        // Within the ring, which reaches from `low` to `high`.
        self.slots[(serial - low) as usize].holders += 1;
        self.len += 1;
        true
    }

    fn slot(&mut self, serial: u64) -> Option<&mut Slot> {
        let place = usize::try_from(serial.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(place).filter(|slot| slot.holders > 0)
    }

    /// Gives a serial back.
    pub(super) fn end(&mut self, serial: u64) {
        let Some(slot) = self.slot(serial) else {
            return;
        };
        slot.holders -= 1;
        if slot.holders == 0 {
            slot.waiting = None;
        }
        self.len -= 1;
        while self.slots.front().is_some_and(|slot| slot.holders == 0) {
            self.slots.pop_front();
            self.first += 1;
        }
        while self.slots.back().is_some_and(|slot| slot.holders == 0) {
            self.slots.pop_back();
        }
    }

    /// Has a sweep wake who waits for the verdict of this serial. `false` when none will.
    fn wait(&mut self, serial: u64, waker: &Waker) -> bool {
        if self.swept_no_more {
            return false;
        }
        let sweeps = self.sweeps;
        match self.slot(serial) {
            Some(slot) if slot.waiting.is_none() => {
                slot.waiting = Some((waker.clone(), sweeps));
                true
            }
            _ => false,
        }
    }

    /// Who has waited since before the last sweep.
    fn sweep(&mut self) -> Vec<Waker> {
        let before = self.sweeps;
        self.sweeps += 1;
        let slots = self.slots.iter_mut();
        slots
            .filter_map(|slot| slot.waiting.take_if(|(_, since)| *since < before))
            .map(|(waker, _)| waker)
            .collect()
    }

    /// Everybody who waits; nobody will any more.
    fn sweep_no_more(&mut self) -> Vec<Waker> {
        self.swept_no_more = true;
        let slots = self.slots.iter_mut();
        slots
            .filter_map(|slot| slot.waiting.take())
            .map(|(waker, _)| waker)
            .collect()
    }
}

impl Node {
    /// Waits for `work` until `deadline`, or, where a `place` is needed, until this node has none;
    /// `None` then.
    pub(super) async fn until<F: Future>(
        &self,
        now: Instant,
        deadline: Instant,
        serial: Option<u64>,
        place: bool,
        work: F,
    ) -> Option<F::Output> {
        let mut work = pin!(work);
        // Whoever a sweep might wake too late has a timer at once.
        let sweep = self.timing.heartbeat() * 2;
        let mut serial = serial.filter(|_| deadline.saturating_duration_since(now) > sweep);
        let answered = poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(Some(done));
            }
            match serial.take() {
                Some(serial) if guard(&self.state).under_way.wait(serial, context.waker()) => {
                    Poll::Pending
                }
                _ => Poll::Ready(None),
            }
        });
        match answered.await {
            Some(done) => Some(done),
            // On the heap: most never get here.
            None => Box::pin(self.while_placed(deadline, place, work)).await,
        }
    }

    /// [`Node::until`], with a timer at once.
    pub(super) async fn while_placed<F: Future>(
        &self,
        deadline: Instant,
        place: bool,
        work: F,
    ) -> Option<F::Output> {
        let mut told = self.put_out.clone();
        let is_lost = async {
            // Nobody tells any more once the session ends, and then the work ends by itself.
            if !place || told.wait_for(Option::is_some).await.is_err() {
                pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            done = tokio::time::timeout_at(deadline, work) => done.ok(),
            () = is_lost => None,
        }
    }
}

/// Sweeps while it is not dropped.
struct Sweeps(Arc<Node>);

impl Drop for Sweeps {
    fn drop(&mut self) {
        wake(&self.0.state, UnderWay::sweep_no_more);
    }
}

fn wake(state: &Mutex<ClientState>, whom: impl FnOnce(&mut UnderWay) -> Vec<Waker>) {
    let wakers = whom(&mut guard(state).under_way);
    for waker in wakers {
        waker.wake();
    }
}

/// Wakes those who wait, once in every `pause`.
pub(super) async fn sweep(node: Arc<Node>, pause: Duration) {
    let sweeps = Sweeps(node);
    loop {
        tokio::time::sleep(pause).await;
        wake(&sweeps.0.state, UnderWay::sweep);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn under_way(serials: &[u64]) -> UnderWay {
        let mut under_way = UnderWay::default();
        for serial in serials {
            assert!(under_way.begin(*serial, 10), "{serial}");
        }
        under_way
    }

    #[test]
    fn as_many_as_may_be_are_under_way_and_one_more_is_not() {
        let mut some = under_way(&[1, 2]);
        assert!(!some.begin(3, 2));
        some.end(1);
        assert!(some.begin(3, 2));
    }

    #[test]
    fn serials_within_the_window_are_under_way_together_and_one_past_either_end_is_not() {
        let mut some = under_way(&[5000, 5000 + WINDOW - 1]);
        assert!(!some.begin(5000 + WINDOW, 10));
        assert!(!some.begin(4999, 10));
        some.end(5000);
        assert!(some.begin(5000 + WINDOW, 10));
        some.end(5000 + WINDOW);
        assert!(some.begin(5000, 10));
        for serial in [5000, 5000 + WINDOW - 1] {
            some.end(serial);
        }
        assert_eq!((some.slots.len(), some.len), (0, 0));
    }

    #[test]
    fn a_serial_that_two_have_ends_with_the_second() {
        let mut some = under_way(&[7, 7]);
        some.end(7);
        assert!(some.slot(7).is_some());
        some.end(7);
        assert!(some.slot(7).is_none());
        some.end(7);
        assert_eq!(some.len, 0);
    }

    #[test]
    fn who_waits_is_woken_by_the_second_sweep_and_never_if_it_was_answered() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut some = under_way(&[1, 2]);
        assert!(some.wait(1, &waker) && some.wait(2, &waker));
        assert!(!some.wait(2, &waker), "another waits there");
        assert!(some.sweep().is_empty());
        some.end(1);
        for waker in some.sweep() {
            waker.wake();
        }
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(some.sweep().is_empty());
        assert!(some.wait(2, &waker));
        assert_eq!(some.sweep_no_more().len(), 1);
        assert!(!some.wait(2, &waker), "nobody would wake it");
    }
}
