//! What the pool runs: rooms, and the posts that are to be sent again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::actor::Actor;
use crate::clock::Clock;
use crate::pool::Work;
use crate::posts::Posts;
use crate::sched::Ran;

/// When posts are looked at again after a recorder panicked over one.
const AFTER_A_PANIC: Duration = Duration::from_secs(1);

/// Something with turns.
#[expect(clippy::large_enum_variant, reason = "all but one of them are rooms")]
pub(crate) enum RoomCell {
    /// Locked only by the thread whose turn it is.
    Room(Mutex<Actor>),
    Posts(Arc<Posts>, Arc<dyn Clock>),
}

impl Work for RoomCell {
    fn turn(&self) -> Ran {
        match self {
            Self::Room(actor) => {
                let mut actor = actor.lock().unwrap_or_else(PoisonError::into_inner);
                match catch_unwind(AssertUnwindSafe(|| actor.turn())) {
                    Ok(ran) => ran,
                    // Host code panicked: this room is over, the others are not.
                    Err(_) => actor.panicked(),
                }
            }
            Self::Posts(posts, clock) => {
                let now = clock.now();
                // A recorder that panics is not this turn's end.
                let next = catch_unwind(AssertUnwindSafe(|| posts.resend(now)));
                Ran {
                    took: Duration::ZERO,
                    more: false,
                    next: next.unwrap_or(Some(now + AFTER_A_PANIC)),
                    gone: false,
                }
            }
        }
    }
}
