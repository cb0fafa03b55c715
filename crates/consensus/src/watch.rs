//! A value and those who wait for it to change, waking in the order they began to wait.
//!
//! tokio's own wakes its waiters in an order it draws at random; under a simulated clock that made
//! 57 to 100 of 100 seeds differ between two runs (`../shared/spec/turns.md`, part C). With this
//! one none did.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::Notify;

struct Shared<T> {
    value: RwLock<T>,
    version: AtomicU64,
    changed: Notify,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    closed: AtomicBool,
}

impl<T> Shared<T> {
    fn read(&self) -> RwLockReadGuard<'_, T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn bump(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }
}

/// Changes the value. When the last one is dropped, waiting ends.
pub struct Sender<T>(Arc<Shared<T>>);

/// Sees the value and waits for it to change.
pub struct Watch<T>(Arc<Shared<T>>, u64);

/// The value will not change any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what was watched has ended")]
pub struct Ended;

/// A value and its first watcher.
pub fn channel<T>(value: T) -> (Sender<T>, Watch<T>) {
    let shared = Arc::new(Shared {
        value: RwLock::new(value),
        version: AtomicU64::new(0),
        changed: Notify::new(),
        senders: AtomicUsize::new(1),
        receivers: AtomicUsize::new(1),
        closed: AtomicBool::new(false),
    });
    (Sender(shared.clone()), Watch(shared, 0))
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::SeqCst);
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.closed.store(true, Ordering::SeqCst);
            self.0.changed.notify_waiters();
        }
    }
}

impl<T> Clone for Watch<T> {
    fn clone(&self) -> Self {
        self.0.receivers.fetch_add(1, Ordering::SeqCst);
        Self(self.0.clone(), self.1)
    }
}

impl<T> Drop for Watch<T> {
    fn drop(&mut self) {
        self.0.receivers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<T> Sender<T> {
    /// Replaces the value and wakes whoever waits.
    pub fn set(&self, value: T) {
        *self.0.value.write().unwrap_or_else(PoisonError::into_inner) = value;
        self.0.bump();
    }

    /// Changes the value where it is; wakes only when `change` answers `true`.
    pub fn modify(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let changed = change(&mut self.0.value.write().unwrap_or_else(PoisonError::into_inner));
        if changed {
            self.0.bump();
        }
        changed
    }

    /// The value, borrowed: nobody can change it meanwhile.
    pub fn borrow(&self) -> RwLockReadGuard<'_, T> {
        self.0.read()
    }

    /// How often the value was changed: what was read after this is at least as new.
    pub(crate) fn version(&self) -> u64 {
        self.0.version.load(Ordering::SeqCst)
    }

    /// A watcher that has seen the present value.
    pub fn subscribe(&self) -> Watch<T> {
        self.0.receivers.fetch_add(1, Ordering::SeqCst);
        Watch(self.0.clone(), self.0.version.load(Ordering::SeqCst))
    }

    /// How many watchers there are.
    pub fn watchers(&self) -> usize {
        self.0.receivers.load(Ordering::SeqCst)
    }
}

impl<T: PartialEq> Sender<T> {
    /// Replaces the value and wakes whoever waits, unless it is equal.
    pub fn set_if_new(&self, value: T) {
        self.modify(|old| {
            let new = *old != value;
            if new {
                *old = value;
            }
            new
        });
    }
}

impl<T> Watch<T> {
    /// The value, borrowed: nobody can change it meanwhile, so do not keep it long.
    pub fn borrow(&self) -> RwLockReadGuard<'_, T> {
        self.0.read()
    }

    /// The value, borrowed and marked as seen.
    pub fn borrow_and_update(&mut self) -> RwLockReadGuard<'_, T> {
        self.1 = self.0.version.load(Ordering::SeqCst);
        self.0.read()
    }

    /// A copy of the value.
    pub fn get(&self) -> T
    where
        T: Clone,
    {
        self.borrow().clone()
    }

    /// Waits until the value is another than the one last seen. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Ended`] when nobody is left to change it.
    pub async fn changed(&mut self) -> Result<(), Ended> {
        loop {
            let waiting = self.0.changed.notified();
            tokio::pin!(waiting);
            waiting.as_mut().enable();
            let version = self.0.version.load(Ordering::SeqCst);
            if version != self.1 {
                self.1 = version;
                return Ok(());
            }
            if self.0.closed.load(Ordering::SeqCst) {
                return Err(Ended);
            }
            waiting.await;
        }
    }

    /// Waits until the value satisfies `wanted`, and answers a copy of it. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Ended`] when nobody is left to change it.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<T, Ended>
    where
        T: Clone,
    {
        loop {
            {
                let value = self.borrow_and_update();
                if wanted(&value) {
                    return Ok(value.clone());
                }
            }
            self.changed().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watcher_sees_each_latest_value_and_the_end() {
        let (sender, mut watch) = channel(1);
        sender.set(2);
        watch.changed().await.unwrap();
        assert_eq!(*watch.borrow(), 2);
        sender.set_if_new(2);
        assert!(!sender.modify(|_| false));
        let mut late = sender.subscribe();
        sender.set(3);
        assert_eq!(late.wait_for(|v| *v == 3).await, Ok(3));
        drop(sender);
        watch.changed().await.unwrap();
        assert_eq!(watch.changed().await, Err(Ended));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn waiters_wake_in_the_order_they_began_to_wait() {
        let (sender, watch) = channel(0);
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for n in 0..20 {
            let (mut watch, order) = (watch.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                watch.changed().await.unwrap();
                order.lock().unwrap().push(n);
            }));
        }
        tokio::task::yield_now().await;
        sender.set(1);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
    }
}
