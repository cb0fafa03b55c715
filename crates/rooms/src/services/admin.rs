//! What a platform asks of a store besides what games ask.

use std::collections::BTreeMap;
use std::sync::mpsc;

use cabinet_host::{Mode, Status};

use super::ServiceError;
use crate::reply::Reply;

/// What operators and platforms do with a store; no game can.
pub trait StoreAdmin: Send + Sync {
    /// Sets a configuration value of a game, or with `None` takes it away. Any key is taken, the
    /// reserved `host.` ones included.
    fn set_config(&self, slug: &str, key: &[u8], value: Option<&[u8]>, reply: Reply<()>);

    /// Merges an account into another, for one game: each of the loser's values moves to the winner
    /// and meets what is there by the winner's rule, or the loser's where the winner has none (see
    /// [`super::MergeRule`]). The loser has none afterwards. All of it happens or none.
    ///
    /// Nothing happens when either account is empty or both are the same. Results stay whose they
    /// were. An integer past what an `i64` holds stays at that bound.
    fn merge(&self, slug: &str, winner: &str, loser: &str, reply: Reply<()>);

    /// Every account's value under a key that reads as a base-10 integer, space around it allowed;
    /// other values are left out.
    fn int_values(&self, slug: &str, key: &[u8], reply: Reply<BTreeMap<String, i64>>);

    /// The results recorded at or after `since` (Unix nanoseconds, `None` for ever), oldest
    /// first, at most `limit` of them; for audits and exports.
    fn results(&self, slug: &str, since: Option<i64>, limit: usize, reply: Reply<Vec<Recorded>>);
}

/// One player's line of a recorded post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Whose it is; never empty.
    pub account: String,
    /// The score.
    pub metric: i64,
    /// The room's mode.
    pub mode: Mode,
    /// How the player finished; `None` for a code outside the ABI.
    pub status: Option<Status>,
    /// When it was posted, Unix nanoseconds.
    pub at: i64,
}

/// Asks a store and waits for the answer on this thread: for tools and tests, never on a thread
/// that runs rooms.
///
/// ```
/// use cabinet_rooms::services::memory::MemoryStore;
/// use cabinet_rooms::services::{ConfigStore, StoreAdmin, wait_for};
///
/// let store = MemoryStore::new();
/// wait_for(|reply| store.set_config("tour", b"greeting", Some(b"hello"), reply))?;
/// let value = wait_for(|reply| ConfigStore::get(&store, "tour", b"greeting", reply))?;
/// assert_eq!(value.as_deref(), Some(&b"hello"[..]));
/// # Ok::<(), cabinet_rooms::services::ServiceError>(())
/// ```
///
/// # Errors
/// Those of the store.
pub fn wait_for<T: Send + 'static>(ask: impl FnOnce(Reply<T>)) -> Result<T, ServiceError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    ask(Reply::new(move |answer| {
        // Only fails when nobody waits any more.
        let _ = sender.send(answer);
    }));
    receiver
        .recv()
        .unwrap_or_else(|_| Err(ServiceError::Unavailable("no answer came".into())))
}
