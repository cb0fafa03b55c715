//! Captured rooms, and the memory they are captured into.
//!
//! A room's thread pauses for a capture, so its memory is kept warm: a first touch of a page costs
//! more than copying it. The pool holds what is not in use, up to a bound.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use cabinet_durability::RoomId;
use cabinet_host::{Player, Snapshot};
use cabinet_wire::Lifecycle;

use crate::registry::GameSlug;
use crate::services::Post;

/// A room as it was between two callbacks: everything that makes it go on elsewhere.
#[derive(Debug)]
#[non_exhaustive]
pub struct Captured {
    /// The room.
    pub room: RoomId,
    /// The game's slug.
    pub slug: GameSlug,
    /// The lifecycle it ran under.
    pub lifecycle: Lifecycle,
    /// Who was in it last: its members, or, when it is empty, those who were there before the last
    /// of them left.
    pub roster: Vec<Player>,
    /// Everybody who was ever in it, in the order they came, for its result.
    pub joined: Vec<Player>,
    /// When, Unix nanoseconds.
    pub at: i64,
    /// Callbacks the room had had: equal numbers mean equal states.
    pub callbacks: u64,
    /// Leaderboard posts that are not recorded yet; keep them with the snapshot, which remembers
    /// that they were posted.
    pub posts: Vec<Post>,
    /// Everything else.
    pub snapshot: Snapshot,
}

/// Memory for captures.
pub(crate) struct CapturePool {
    idle: Mutex<Vec<Vec<u8>>>,
    idle_bytes_max: usize,
}

impl CapturePool {
    pub(crate) fn new(idle_bytes_max: usize) -> Self {
        Self {
            idle: Mutex::default(),
            idle_bytes_max,
        }
    }

    /// Memory for about so many bytes: the smallest that is enough, else the largest there is.
    pub(crate) fn take(&self, bytes: usize) -> Vec<u8> {
        let mut idle = self.lock();
        let enough = idle.partition_point(|buffer| buffer.capacity() < bytes);
        let at = enough.min(idle.len().saturating_sub(1));
        if at < idle.len() {
            idle.remove(at)
        } else {
            Vec::new()
        }
    }

    /// Takes memory back, unless there is enough already.
    pub(crate) fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut idle = self.lock();
        let held: usize = idle.iter().map(Vec::capacity).sum();
        if buffer.capacity() > 0 && held + buffer.capacity() <= self.idle_bytes_max {
            let at = idle.partition_point(|other| other.capacity() < buffer.capacity());
            idle.insert(at, buffer);
        }
    }

    /// Fills the pool with `count` pieces of `bytes`, every page touched.
    pub(crate) fn warm(&self, count: usize, bytes: usize) {
        for _ in 0..count {
            let mut buffer = vec![1; bytes];
            buffer.clear();
            self.give(buffer);
        }
    }

    pub(crate) fn idle_bytes(&self) -> usize {
        self.lock().iter().map(Vec::capacity).sum()
    }

    /// Smallest first.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CapturePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CapturePool")
            .field("idle_bytes", &self.idle_bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_that_is_enough_is_lent_and_the_bound_is_kept() {
        let pool = CapturePool::new(100);
        for bytes in [40, 10, 30] {
            pool.give(Vec::with_capacity(bytes));
        }
        assert_eq!(pool.idle_bytes(), 80);
        pool.give(Vec::with_capacity(30));
        assert_eq!(pool.idle_bytes(), 80, "it would be more than the bound");
        assert_eq!(pool.take(20).capacity(), 30);
        assert_eq!(pool.take(99).capacity(), 40);
        assert_eq!(pool.take(0).capacity(), 10);
        assert_eq!(pool.take(5).capacity(), 0);
        pool.warm(3, 50);
        assert_eq!(pool.idle_bytes(), 100);
    }
}
