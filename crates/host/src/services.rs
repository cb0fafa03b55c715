//! What a room asks of the world around it, and simple answers for tests and tools.
//!
//! Every call is made on the thread that runs the room, while the guest waits. The time it takes
//! is charged to host I/O, not to the guest's deadline; each call is told how much of the room's
//! I/O ceiling is left and should give up before that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cabinet_wire::{FRAME_BYTES, LogLevel, Mode, Status};

use crate::frame::Frame;
use crate::player::Player;

/// A store failed. The guest sees "absent" or "accepted": the ABI has no error channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The store did not answer in time, or not at all.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store refused the request.
    #[error("the store refused: {0}")]
    Refused(String),
}

/// Where a log record came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogSource {
    /// The guest's `log` call.
    Guest,
    /// The guest's stdout or stderr.
    Stdio,
    /// The host, about the guest.
    Host,
}

/// Who a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipient<'a> {
    /// The player at this index of the callback's roster.
    Member(usize, &'a Player),
    /// Every live member.
    Everyone,
}

/// One line of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whose line it is.
    pub player: Player,
    /// The score.
    pub metric: i64,
    /// Place, from 1; 0 for none.
    pub rank: u16,
    /// How the player finished; `None` for a code outside the ABI.
    pub status: Option<Status>,
}

/// What a game ended with, or posted to its leaderboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomResult {
    /// The room's mode.
    pub mode: Mode,
    /// One line per ranked player, in the guest's order.
    pub standings: Vec<Standing>,
    /// For a post: the room's 1-based post counter, which makes replays idempotent. 0 for `end`.
    pub round_seq: u32,
}

/// The services of one room. `within` is what is left of the callback's I/O ceiling.
pub trait Services: Send {
    /// The value stored for this player under `key`; `None` when there is none.
    ///
    /// # Errors
    /// When the store cannot tell; the guest then sees "absent".
    fn kv_get(
        &mut self,
        player: &Player,
        key: &[u8],
        within: Duration,
    ) -> Result<Option<Vec<u8>>, ServiceError>;

    /// Stores a value. `rule` is the guest's merge rule, verbatim: `keep-winner`, `keep-loser`,
    /// `sum`, `max`, or anything else, which acts as `keep-winner`.
    ///
    /// # Errors
    /// When the store failed; the guest is not told.
    fn kv_set(
        &mut self,
        player: &Player,
        key: &[u8],
        value: &[u8],
        rule: &[u8],
        within: Duration,
    ) -> Result<(), ServiceError>;

    /// Forgets a value.
    ///
    /// # Errors
    /// When the store failed; the guest is not told.
    fn kv_delete(
        &mut self,
        player: &Player,
        key: &[u8],
        within: Duration,
    ) -> Result<(), ServiceError>;

    /// The game's configuration value for `key`.
    ///
    /// # Errors
    /// When the store cannot tell; the guest then sees "absent".
    fn config_get(&mut self, key: &[u8], within: Duration)
    -> Result<Option<Vec<u8>>, ServiceError>;

    /// How much of the last store call was spent waiting for a turn to run, after the store had
    /// answered: nobody's time, so neither the guest's nor the store's. Asked once after each call.
    fn turn_wait(&mut self) -> Duration {
        Duration::ZERO
    }

    /// A leaderboard post. Must not block: queue it.
    fn post(&mut self, result: &RoomResult);

    /// A log record, already truncated and within the room's budget.
    fn log(&mut self, level: LogLevel, source: LogSource, message: &[u8]);

    /// A frame was accepted. Delivery is depth one, newest wins: keep the frame (cloning is
    /// cheap) or ignore it and read [`crate::Room::frame`] later.
    fn deliver(&mut self, _to: Recipient<'_>, _frame: &Frame) {}

    /// A store call failed; for metrics.
    fn store_failed(&mut self, _operation: &'static str, _error: &ServiceError) {}
}

/// No stores at all: reads find nothing, writes vanish, logs are dropped.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoServices;

impl Services for NoServices {
    fn kv_get(
        &mut self,
        _: &Player,
        _: &[u8],
        _: Duration,
    ) -> Result<Option<Vec<u8>>, ServiceError> {
        Ok(None)
    }

    fn kv_set(
        &mut self,
        _: &Player,
        _: &[u8],
        _: &[u8],
        _: &[u8],
        _: Duration,
    ) -> Result<(), ServiceError> {
        Ok(())
    }

    fn kv_delete(&mut self, _: &Player, _: &[u8], _: Duration) -> Result<(), ServiceError> {
        Ok(())
    }

    fn config_get(&mut self, _: &[u8], _: Duration) -> Result<Option<Vec<u8>>, ServiceError> {
        Ok(None)
    }

    fn post(&mut self, _: &RoomResult) {}

    fn log(&mut self, _: LogLevel, _: LogSource, _: &[u8]) {}
}

/// Everything in memory and readable from outside: for tests, tools and conformance.
///
/// Clones share their contents, so a test keeps one and gives the room another.
#[derive(Debug, Clone, Default)]
pub struct MemoryServices {
    shared: Arc<Mutex<MemoryState>>,
}

/// A frame a [`MemoryServices`] was given.
#[derive(Debug, Clone)]
pub struct DeliveredFrame {
    /// The roster index it was for, or `None` for everyone.
    pub member: Option<usize>,
    /// The frame.
    pub frame: Frame,
}

/// A log record a [`MemoryServices`] was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Severity.
    pub level: LogLevel,
    /// Where it came from.
    pub source: LogSource,
    /// The bytes, as given.
    pub message: Vec<u8>,
}

#[derive(Debug, Default)]
struct MemoryState {
    /// Values by account and key.
    kv: BTreeMap<(String, Vec<u8>), Vec<u8>>,
    config: BTreeMap<Vec<u8>, Vec<u8>>,
    posts: Vec<RoomResult>,
    logs: Vec<LogRecord>,
    frames: Vec<DeliveredFrame>,
    keep_frames: bool,
}

impl MemoryServices {
    /// Empty stores.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps every delivered frame for [`MemoryServices::take_frames`].
    #[must_use]
    pub fn keeping_frames(self) -> Self {
        self.lock().keep_frames = true;
        self
    }

    /// Sets a configuration value of the game.
    pub fn set_config(&self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.lock().config.insert(key.into(), value.into());
    }

    /// The stored value of an account's key.
    pub fn value(&self, account: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.lock()
            .kv
            .get(&(account.to_owned(), key.to_vec()))
            .cloned()
    }

    /// Stores a value, as a test's preparation.
    pub fn set_value(&self, account: &str, key: &[u8], value: &[u8]) {
        self.lock()
            .kv
            .insert((account.to_owned(), key.to_vec()), value.to_vec());
    }

    /// The leaderboard posts so far.
    pub fn posts(&self) -> Vec<RoomResult> {
        self.lock().posts.clone()
    }

    /// The log records since the last call.
    pub fn take_logs(&self) -> Vec<LogRecord> {
        std::mem::take(&mut self.lock().logs)
    }

    /// The frames delivered since the last call.
    pub fn take_frames(&self) -> Vec<DeliveredFrame> {
        std::mem::take(&mut self.lock().frames)
    }

    /// A copy of the stores as they are now, sharing nothing: what a second run starts from.
    #[must_use]
    pub fn fork(&self) -> Self {
        let state = self.lock();
        Self {
            shared: Arc::new(Mutex::new(MemoryState {
                kv: state.kv.clone(),
                config: state.config.clone(),
                posts: state.posts.clone(),
                logs: Vec::new(),
                frames: Vec::new(),
                keep_frames: state.keep_frames,
            })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, MemoryState> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Services for MemoryServices {
    fn kv_get(
        &mut self,
        player: &Player,
        key: &[u8],
        _: Duration,
    ) -> Result<Option<Vec<u8>>, ServiceError> {
        Ok(self.value(&player.account, key))
    }

    fn kv_set(
        &mut self,
        player: &Player,
        key: &[u8],
        value: &[u8],
        rule: &[u8],
        _: Duration,
    ) -> Result<(), ServiceError> {
        let mut state = self.lock();
        let at = (player.account.clone(), key.to_vec());
        if rule == b"max"
            && let Some(stored) = state.kv.get(&at)
            && let (Some(stored), Some(new)) = (integer(stored), integer(value))
            && stored >= new
        {
            return Ok(());
        }
        state.kv.insert(at, value.to_vec());
        Ok(())
    }

    fn kv_delete(&mut self, player: &Player, key: &[u8], _: Duration) -> Result<(), ServiceError> {
        self.lock()
            .kv
            .remove(&(player.account.clone(), key.to_vec()));
        Ok(())
    }

    fn config_get(&mut self, key: &[u8], _: Duration) -> Result<Option<Vec<u8>>, ServiceError> {
        Ok(self.lock().config.get(key).cloned())
    }

    fn post(&mut self, result: &RoomResult) {
        self.lock().posts.push(result.clone());
    }

    fn log(&mut self, level: LogLevel, source: LogSource, message: &[u8]) {
        self.lock().logs.push(LogRecord {
            level,
            source,
            message: message.to_vec(),
        });
    }

    fn deliver(&mut self, to: Recipient<'_>, frame: &Frame) {
        let mut state = self.lock();
        if state.keep_frames {
            state.frames.push(DeliveredFrame {
                member: match to {
                    Recipient::Member(index, _) => Some(index),
                    Recipient::Everyone => None,
                },
                frame: frame.clone(),
            });
        }
    }
}

/// A value as the `sum` and `max` rules read it: base-10, surrounding space allowed.
fn integer(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// The frame as contiguous bytes; for hashing and tools.
pub fn frame_bytes(frame: &Frame) -> Box<[u8; FRAME_BYTES]> {
    let mut bytes = Box::new([0; FRAME_BYTES]);
    frame.copy_to(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    #[test]
    fn a_max_write_never_lowers_an_integer() {
        let mut services = MemoryServices::new();
        let ada = Player::member("a1", "ada", "c1");
        for (write, expected) in [("5", "5"), ("3", "5"), (" 9 ", " 9 "), ("x", "x")] {
            services
                .kv_set(&ada, b"best", write.as_bytes(), b"max", SOON)
                .unwrap();
            assert_eq!(
                services.value("a1", b"best").as_deref(),
                Some(expected.as_bytes())
            );
        }
    }

    #[test]
    fn values_belong_to_an_account_and_not_to_a_connection() {
        let mut services = MemoryServices::new();
        let ada = Player::member("a1", "ada", "c1");
        let ada_again = Player::member("a1", "ada", "c2");
        let bob = Player::member("a2", "bob", "c3");
        services.kv_set(&ada, b"k", b"v", b"", SOON).unwrap();
        assert_eq!(
            services.kv_get(&ada_again, b"k", SOON).unwrap().as_deref(),
            Some(&b"v"[..])
        );
        assert_eq!(services.kv_get(&bob, b"k", SOON).unwrap(), None);
        services.kv_delete(&ada, b"k", SOON).unwrap();
        assert_eq!(services.kv_get(&ada_again, b"k", SOON).unwrap(), None);
    }

    #[test]
    fn a_fork_shares_nothing() {
        let services = MemoryServices::new();
        services.set_value("a1", b"k", b"1");
        let fork = services.fork();
        fork.set_value("a1", b"k", b"2");
        assert_eq!(services.value("a1", b"k").as_deref(), Some(&b"1"[..]));
        assert_eq!(fork.value("a1", b"k").as_deref(), Some(&b"2"[..]));
    }
}
