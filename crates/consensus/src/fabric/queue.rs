//! A bounded queue between a fabric and one reader: count and bytes are limited, a full one drops
//! what its [`Overflow`] says and counts it. Nobody ever waits to push.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What a full queue gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// What arrives: for protocols that send again.
    DropNewest,
    /// What has waited longest: for streams where the latest matters.
    DropOldest,
}

struct State<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    closed: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
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
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            items: VecDeque::new(),
            bytes: 0,
            closed: false,
        }),
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
    /// Adds an item that weighs `bytes`. Answers whether it is in the queue.
    pub(crate) fn push(&self, item: T, bytes: usize) -> bool {
        let mut state = self.0.lock();
        if state.closed || bytes > self.0.bytes_max {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        while state.items.len() >= self.0.items_max || state.bytes + bytes > self.0.bytes_max {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            match self.0.overflow {
                Overflow::DropNewest => return false,
                Overflow::DropOldest => match state.items.pop_front() {
                    Some((_, weight)) => state.bytes -= weight,
                    None => return false,
                },
            }
        }
        state.bytes += bytes;
        state.items.push_back((item, bytes));
        drop(state);
        self.0.ready.notify_one();
        true
    }

    /// Ends the queue: its reader gets what is in it and then `None`.
    pub(crate) fn close(&self) {
        self.0.lock().closed = true;
        self.0.ready.notify_one();
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
                if let Some((item, bytes)) = state.items.pop_front() {
                    state.bytes -= bytes;
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
        let mut state = self.0.lock();
        let (item, bytes) = state.items.pop_front()?;
        state.bytes -= bytes;
        Some(item)
    }

    /// Items given up so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.items.clear();
        state.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_queue_takes_its_limit_and_drops_what_its_overflow_says() {
        let (push, mut read) = queue(2, 100, Overflow::DropNewest);
        assert!(push.push(1, 1) && push.push(2, 1));
        assert!(!push.push(3, 1));
        assert_eq!((read.recv().await, read.recv().await), (Some(1), Some(2)));
        assert_eq!(read.dropped(), 1);

        let (push, mut read) = queue(2, 100, Overflow::DropOldest);
        assert!(push.push(1, 1) && push.push(2, 1) && push.push(3, 1));
        assert_eq!(
            (read.try_recv(), read.try_recv(), read.try_recv()),
            (Some(2), Some(3), None)
        );
        assert_eq!(push.dropped(), 1);
    }

    #[test]
    fn bytes_are_limited_as_well_as_items() {
        let (push, _read) = queue(10, 100, Overflow::DropNewest);
        assert!(push.push(1, 100));
        assert!(!push.push(2, 1));
        let (push, mut read) = queue(10, 100, Overflow::DropOldest);
        assert!(!push.push(0, 101), "nothing makes room for this one");
        assert!(push.push(1, 60) && push.push(2, 60));
        assert_eq!(read.try_recv(), Some(2));
    }

    #[tokio::test]
    async fn a_closed_queue_gives_what_it_has_and_then_ends() {
        let (push, mut read) = queue(2, 100, Overflow::DropNewest);
        push.push(1, 1);
        push.close();
        assert!(!push.push(2, 1));
        assert_eq!((read.recv().await, read.recv().await), (Some(1), None));
        let (push, read) = queue(2, 100, Overflow::DropNewest);
        drop(read);
        assert!(!push.push(1, 1));
    }
}
