//! The tasks of one fabric: all of them end when it does.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};

/// The tasks. Once they were ended, no other begins.
pub(super) struct Tasks {
    set: Mutex<Option<JoinSet<()>>>,
    runtime: Handle,
    alive: Arc<AtomicUsize>,
}

struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Tasks {
    pub(super) fn new(runtime: Handle) -> Self {
        Self {
            set: Mutex::new(Some(JoinSet::new())),
            runtime,
            alive: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<JoinSet<()>>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a task, unless they were ended.
    pub(super) fn spawn(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Option<AbortHandle> {
        let mut slot = self.lock();
        let Some(set) = slot.as_mut() else {
            // The task may hold what locks again when it is dropped.
            drop(slot);
            drop(task);
            return None;
        };
        while set.try_join_next().is_some() {}
        let alive = Alive::new(&self.alive);
        let counted = async move {
            task.await;
            drop(alive);
        };
        Some(set.spawn_on(counted, &self.runtime))
    }

    /// Ends every task now.
    pub(super) fn abort(&self) {
        let set = self.lock().take();
        drop(set);
    }

    /// Gives the tasks, which were told to end, this long, and ends those that have not.
    pub(super) async fn finish(&self, within: Duration) {
        let Some(mut set) = self.lock().take() else {
            return;
        };
        let ended = async { while set.join_next().await.is_some() {} };
        if tokio::time::timeout(within, ended).await.is_err() {
            set.shutdown().await;
        }
    }

    /// Where tasks are counted while they live.
    pub(super) fn alive(&self) -> Arc<AtomicUsize> {
        self.alive.clone()
    }
}
