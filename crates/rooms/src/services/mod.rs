//! What rooms ask of the world: values, configuration, leaderboards, accounts, a place for logs.
//!
//! Each request comes with a [`Reply`]. A store may answer inside the call, which costs a room
//! nothing but the time it takes, or hand the reply to a thread of its own and return: the
//! guest that asked waits, every other room goes on. Never block inside a call for long.
//!
//! Requests borrow; copy what outlives the call. Anything may be absent from [`ServiceSet`]: reads
//! then find nothing and writes vanish.

mod admin;
pub mod durable;
pub mod limits;
pub mod memory;
mod rules;

use std::sync::Arc;

use cabinet_host::{LogLevel, LogSource, Player, RoomResult};

use crate::reply::Reply;
use cabinet_durability::RoomId;

pub use admin::{Recorded, StoreAdmin, wait_for};
pub use cabinet_host::ServiceError;

/// Where a value is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KvAddress<'a> {
    /// The game.
    pub slug: &'a str,
    /// The account, as [`Accounts`] named it. Keyless guests may share the empty one.
    pub account: &'a str,
    /// The game's key, 1 to 4,096 bytes.
    pub key: &'a [u8],
}

/// Values by game, account and key.
pub trait KvStore: Send + Sync {
    /// The stored value.
    fn get(&self, at: KvAddress<'_>, reply: Reply<Option<Vec<u8>>>);

    /// Stores a value of at most 1 MiB. `None`: the game named no merge rule.
    ///
    /// Under [`MergeRule::Max`] a stored integer is never lowered: when both values are base-10
    /// integers (surrounding space allowed) and the stored one is not smaller, value and rule stay.
    /// An answer of `Ok` means the value is as durable as the store makes it.
    fn set(&self, at: KvAddress<'_>, value: &[u8], rule: Option<MergeRule>, reply: Reply<()>);

    /// Forgets a value; forgetting one that is not there succeeds.
    fn delete(&self, at: KvAddress<'_>, reply: Reply<()>);
}

/// What becomes of a value when two accounts are merged into one, the winner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MergeRule {
    /// The winner's value stays; also what an unknown rule means.
    KeepWinner,
    /// The loser's value replaces it.
    KeepLoser,
    /// Integers are added; anything else acts as [`MergeRule::KeepWinner`].
    Sum,
    /// The larger integer; anything else acts as [`MergeRule::KeepWinner`].
    Max,
}

impl MergeRule {
    /// The rule a guest named; `None` for the empty name.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"" => None,
            b"keep-loser" => Some(Self::KeepLoser),
            b"sum" => Some(Self::Sum),
            b"max" => Some(Self::Max),
            _ => Some(Self::KeepWinner),
        }
    }
}

/// Configuration values by game and key, the reserved `host.` keys included.
pub trait ConfigStore: Send + Sync {
    /// The configured value.
    fn get(&self, slug: &str, key: &[u8], reply: Reply<Option<Vec<u8>>>);
}

/// Takes the results games post.
pub trait Leaderboard: Send + Sync {
    /// Records a post, once: an id that was recorded before is answered [`Posted::Duplicate`] and
    /// changes nothing.
    fn post(&self, post: &Post, reply: Reply<Posted>);
}

/// What became of a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// It is recorded now.
    Landed,
    /// It had been recorded before.
    Duplicate,
}

/// A result a game posted during play.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// Names this post: the same room posting the same content under the same counter has the same
    /// id, so a replay after a restore changes nothing; different content under a counter that was
    /// used before, as after a rollback, has another id and lands.
    pub id: PostId,
    /// The game.
    pub slug: Arc<str>,
    /// The room.
    pub room: RoomId,
    /// The result; [`RoomResult::round_seq`] is the room's 1-based post counter.
    pub result: RoomResult,
    /// When it was posted first, Unix nanoseconds.
    pub at: i64,
}

/// Names a post: a digest of room, counter and content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PostId(pub [u8; 32]);

impl PostId {
    /// The id of a result posted by a room.
    #[must_use]
    pub fn of(slug: &str, room: RoomId, result: &RoomResult) -> Self {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        let mut field = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_le_bytes());
            context.update(bytes);
        };
        field(slug.as_bytes());
        field(room.as_bytes());
        field(&result.round_seq.to_le_bytes());
        field(&[result.mode as u8]);
        for standing in &result.standings {
            // The connection and the handle are not part of whose result it is.
            field(standing.player.account.as_bytes());
            field(&standing.metric.to_le_bytes());
            field(&standing.rank.to_le_bytes());
            field(&[standing.status.map_or(u8::MAX, |status| status as u8)]);
        }
        let mut id = [0; 32];
        id.copy_from_slice(context.finish().as_ref());
        Self(id)
    }
}

/// Says under which account a player's values are kept.
pub trait Accounts: Send + Sync {
    /// The account, or `None` for a player who may keep nothing.
    fn account(&self, player: &Player, reply: Reply<Option<String>>);
}

/// Where guests' log records go. Called on room threads: must not block.
pub trait LogSink: Send + Sync {
    /// A record, already truncated to 4 KiB and within the room's 32 KiB a second. The bytes are
    /// the guest's own: neither UTF-8 nor free of control characters.
    fn record(&self, from: &LogOrigin<'_>, message: &[u8]);
}

/// Where a log record comes from.
#[derive(Debug, Clone, Copy)]
pub struct LogOrigin<'a> {
    /// The game.
    pub slug: &'a str,
    /// The room.
    pub room: RoomId,
    /// Severity.
    pub level: LogLevel,
    /// Guest, its stdio, or the host about it.
    pub source: LogSource,
}

/// What a room is given. Cheap to clone.
#[derive(Clone, Default)]
pub struct ServiceSet {
    /// Values; without it reads find nothing.
    pub kv: Option<Arc<dyn KvStore>>,
    /// Configuration.
    pub config: Option<Arc<dyn ConfigStore>>,
    /// Leaderboard posts.
    pub leaderboard: Option<Arc<dyn Leaderboard>>,
    /// Accounts; without it a player's own account id is used, the empty one of guests included.
    pub accounts: Option<Arc<dyn Accounts>>,
    /// Logs; without it they become `tracing` events.
    pub log: Option<Arc<dyn LogSink>>,
}

impl std::fmt::Debug for ServiceSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceSet")
            .field("kv", &self.kv.is_some())
            .field("config", &self.config.is_some())
            .field("leaderboard", &self.leaderboard.is_some())
            .field("accounts", &self.accounts.is_some())
            .field("log", &self.log.is_some())
            .finish()
    }
}
