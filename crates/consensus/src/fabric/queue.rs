//! A bounded queue between a fabric and one reader: count and bytes are limited, a full one drops
//! what its [`Overflow`] says and counts it. Nobody ever waits to push. A queue of many senders may
//! be shared evenly among them instead (`shares`).
//!
//! A reader that has nothing to wait for may be diverted: what is pushed then goes straight to a
//! sink, on the thread that pushes, and no task is woken for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::Notify;

use super::shares::Shares;
use crate::ids::PeerId;

/// What a full queue gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// What arrives: for protocols that send again.
    DropNewest,
    /// What has waited longest: for streams where the latest matters.
    DropOldest,
}

type Sink<T> = Box<dyn Fn(T) + Send + Sync>;

/// What waits for the reader.
enum Items<T> {
    /// In the order in which it was pushed.
    Line {
        items: VecDeque<(T, usize)>,
        bytes: usize,
    },
    /// In turns of who sent it.
    Shares {
        shares: Shares<T>,
        sender: fn(&T) -> &PeerId,
    },
}

impl<T> Items<T> {
    fn line() -> Self {
        Self::Line {
            items: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Takes what there is, and leaves as much of the same kind as before anything came.
    fn take(&mut self) -> Self {
        let empty = match self {
            Self::Line { .. } => Self::line(),
            Self::Shares { sender, .. } => Self::Shares {
                shares: Shares::new(),
                sender: *sender,
            },
        };
        std::mem::replace(self, empty)
    }

    fn len(&self) -> usize {
        match self {
            Self::Line { items, .. } => items.len(),
            Self::Shares { shares, .. } => shares.len(),
        }
    }

    fn pop(&mut self) -> Option<T> {
        match self {
            Self::Line { items, bytes } => {
                let (item, weight) = items.pop_front()?;
                *bytes -= weight;
                Some(item)
            }
            Self::Shares { shares, .. } => shares.pop(),
        }
    }
}

struct State<T> {
    items: Items<T>,
    closed: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// What is pushed goes to the sink, and nothing waits in `items`. Set and cleared with the lock
    /// of `state` held.
    diverted: AtomicBool,
    /// Read while it runs, so that who drops the reading half waits for it: the thread that pushes,
    /// which may hold locks of a fabric, never has the last handle to what the sink owns.
    sink: RwLock<Option<Sink<T>>>,
    ready: Notify,
    dropped: AtomicU64,
    items_max: usize,
    bytes_max: usize,
    overflow: Overflow,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for an item that is not larger than all that fits, and puts it in, if that can be.
    fn put(&self, items: &mut Items<T>, item: T, weight: usize) -> Pushed {
        let (items, bytes) = match items {
            Items::Line { items, bytes } => (items, bytes),
            Items::Shares { shares, sender } => {
                let by = sender(&item).clone();
                return shares.push(&by, item, weight, self.items_max, self.bytes_max);
            }
        };
        let mut dropped = 0;
        while items.len() >= self.items_max || *bytes + weight > self.bytes_max {
            dropped += 1;
            let oldest = match self.overflow {
                Overflow::DropOldest => items.pop_front(),
                Overflow::DropNewest => None,
            };
            match oldest {
                Some((_, weight)) => *bytes -= weight,
                None => return Pushed::new(false, dropped),
            }
        }
        *bytes += weight;
        items.push_back((item, weight));
        Pushed::new(true, dropped)
    }
}

/// What became of an item that was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// Whether it is in the queue, or was taken by who reads it.
    pub taken: bool,
    /// How many items were given up, it or others.
    pub dropped: u64,
}

impl Pushed {
    pub(super) fn new(taken: bool, dropped: u64) -> Self {
        Self { taken, dropped }
    }
}

/// The writing half.
pub(crate) struct Pusher<T>(Arc<Shared<T>>);

/// The reading half: there is one, and it cannot be cloned.
pub struct Receiver<T>(Arc<Shared<T>>);

/// A queue of at most `items_max` items weighing at most `bytes_max` together.
pub(crate) fn queue<T>(
    items_max: usize,
    bytes_max: usize,
    overflow: Overflow,
) -> (Pusher<T>, Receiver<T>) {
    queue_of(Items::line(), items_max, bytes_max, overflow)
}

/// A queue like [`queue`], which those who send share evenly: a full one gives up what has waited
/// longest of who has most in it, and its reader gets one item of each in turn.
pub(crate) fn shared_queue<T>(
    items_max: usize,
    bytes_max: usize,
    sender: fn(&T) -> &PeerId,
) -> (Pusher<T>, Receiver<T>) {
    let shares = Shares::new();
    let items = Items::Shares { shares, sender };
    queue_of(items, items_max, bytes_max, Overflow::DropOldest)
}

fn queue_of<T>(
    items: Items<T>,
    items_max: usize,
    bytes_max: usize,
    overflow: Overflow,
) -> (Pusher<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            items,
            closed: false,
        }),
        diverted: AtomicBool::new(false),
        sink: RwLock::default(),
        ready: Notify::new(),
        dropped: AtomicU64::new(0),
        items_max,
        bytes_max,
        overflow,
    });
    (Pusher(shared.clone()), Receiver(shared))
}

impl<T> Clone for Pusher<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Pusher<T> {
    /// Adds an item that weighs `bytes`. Answers what became of it.
    pub(crate) fn push(&self, item: T, bytes: usize) -> Pushed {
        if self.0.diverted.load(Ordering::Acquire) {
            return self.divert(item);
        }
        let mut state = self.0.lock();
        // It may have been diverted while this waited for the lock.
        if self.0.diverted.load(Ordering::Relaxed) {
            drop(state);
            return self.divert(item);
        }
        let pushed = if state.closed || bytes > self.0.bytes_max {
            Pushed::new(false, 1)
        } else {
            self.0.put(&mut state.items, item, bytes)
        };
        drop(state);
        if pushed.dropped > 0 {
            self.0.dropped.fetch_add(pushed.dropped, Ordering::Relaxed);
        }
        if pushed.taken {
            self.0.ready.notify_one();
        }
        pushed
    }

    fn divert(&self, item: T) -> Pushed {
        let sink = self.0.sink.read().unwrap_or_else(PoisonError::into_inner);
        let Some(sink) = &*sink else {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return Pushed::new(false, 1);
        };
        sink(item);
        Pushed::new(true, 0)
    }

    /// Ends the queue: its reader gets what is in it and then `None`.
    pub(crate) fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        self.0.diverted.store(false, Ordering::Release);
        drop(state);
        self.0.ready.notify_one();
    }

    /// Items that wait for the reader.
    #[cfg(feature = "testkit")]
    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().items.len()
    }

    /// Items given up so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl<T> Receiver<T> {
    /// The next item, or `None` when the queue has ended. Cancel safe.
    pub async fn recv(&mut self) -> Option<T> {
        loop {
            {
                let mut state = self.0.lock();
                if let Some(item) = state.items.pop() {
                    return Some(item);
                }
                if state.closed {
                    return None;
                }
            }
            self.0.ready.notified().await;
        }
    }

    /// The next item, if one is there.
    pub fn try_recv(&mut self) -> Option<T> {
        self.0.lock().items.pop()
    }

    /// Items given up so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Gives what waits, and then whatever is pushed, to `sink` on the thread that pushes it, until
    /// the answer is dropped, which waits for a call under way. One thread's items reach it in their
    /// order. It must neither push into this queue nor drop the answer.
    pub(crate) fn divert(self, sink: impl Fn(T) + Send + Sync + 'static) -> Diverted<T> {
        loop {
            let mut waiting = {
                let mut state = self.0.lock();
                if state.items.len() == 0 {
                    let mut place = self.0.sink.write().unwrap_or_else(PoisonError::into_inner);
                    *place = Some(Box::new(sink));
                    self.0.diverted.store(!state.closed, Ordering::Release);
                    break;
                }
                state.items.take()
            };
            while let Some(item) = waiting.pop() {
                sink(item);
            }
        }
        Diverted(self)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        self.0.diverted.store(false, Ordering::Release);
        let items = state.items.take();
        drop(state);
        let sink = {
            let mut place = self.0.sink.write().unwrap_or_else(PoisonError::into_inner);
            place.take()
        };
        // What they own may take any lock when it goes.
        drop((items, sink));
    }
}

/// A queue whose items go to a sink. Dropped, it closes the queue and lets the sink go.
pub(crate) struct Diverted<T>(Receiver<T>);

impl<T> Diverted<T> {
    /// Waits until the queue has ended. Cancel safe.
    pub(crate) async fn ended(&mut self) {
        while !self.0.0.lock().closed {
            self.0.0.ready.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_queue_takes_its_limit_and_drops_what_its_overflow_says() {
        let (push, mut read) = queue(2, 100, Overflow::DropNewest);
        assert!(push.push(1, 1).taken && push.push(2, 1).taken);
        assert!(!push.push(3, 1).taken);
        assert_eq!((read.recv().await, read.recv().await), (Some(1), Some(2)));
        assert_eq!(read.dropped(), 1);

        let (push, mut read) = queue(2, 100, Overflow::DropOldest);
        assert!(push.push(1, 1).taken && push.push(2, 1).taken && push.push(3, 1).taken);
        assert_eq!(
            (read.try_recv(), read.try_recv(), read.try_recv()),
            (Some(2), Some(3), None)
        );
        assert_eq!(push.dropped(), 1);
    }

    #[test]
    fn bytes_are_limited_as_well_as_items() {
        let (push, _read) = queue(10, 100, Overflow::DropNewest);
        assert!(push.push(1, 100).taken);
        assert!(!push.push(2, 1).taken);
        let (push, mut read) = queue(10, 100, Overflow::DropOldest);
        assert!(!push.push(0, 101).taken, "nothing makes room for this one");
        assert!(push.push(1, 60).taken && push.push(2, 60).taken);
        assert_eq!(read.try_recv(), Some(2));
    }

    #[tokio::test]
    async fn a_closed_queue_gives_what_it_has_and_then_ends() {
        let (push, mut read) = queue(2, 100, Overflow::DropNewest);
        push.push(1, 1);
        push.close();
        assert!(!push.push(2, 1).taken);
        assert_eq!((read.recv().await, read.recv().await), (Some(1), None));
        let (push, read) = queue(2, 100, Overflow::DropNewest);
        drop(read);
        assert!(!push.push(1, 1).taken);
    }

    #[tokio::test]
    async fn a_diverted_queue_gives_what_waited_and_what_comes_in_order_until_it_is_dropped() {
        let (push, read) = queue(2, 100, Overflow::DropNewest);
        push.push(1, 1);
        push.push(2, 1);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let mut diverted = read.divert(move |n| sink.lock().unwrap().push(n));
        for n in 3..=9 {
            assert_eq!(push.push(n, 1), Pushed::new(true, 0), "nothing fills up");
        }
        assert_eq!(*seen.lock().unwrap(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        push.close();
        diverted.ended().await;
        assert_eq!(push.push(10, 1), Pushed::new(false, 1));
        drop(diverted);
        assert_eq!(Arc::strong_count(&seen), 1, "the sink is let go");
        assert_eq!(seen.lock().unwrap().len(), 9);
    }

    #[test]
    fn who_drops_a_diverted_queue_waits_for_the_sink_and_has_the_last_of_what_it_owns() {
        let (push, read) = queue(2, 100, Overflow::DropNewest);
        let began = Arc::new(std::sync::Barrier::new(2));
        let runs = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let owned = Arc::new(());
        let (in_sink, running, owns) = (began.clone(), runs.clone(), owned.clone());
        let diverted = read.divert(move |()| {
            let _owned = &owns;
            running.store(true, Ordering::SeqCst);
            in_sink.wait();
            std::thread::sleep(std::time::Duration::from_millis(50));
            running.store(false, Ordering::SeqCst);
        });
        let pusher = push.clone();
        let pushing = std::thread::spawn(move || pusher.push((), 1));
        began.wait();
        drop(diverted);
        assert!(!runs.load(Ordering::SeqCst), "it runs on without its owner");
        assert_eq!(Arc::strong_count(&owned), 1);
        assert!(pushing.join().unwrap().taken);
        assert!(!push.push((), 1).taken);
    }
}
