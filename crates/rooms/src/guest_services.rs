//! A room's services as the host calls them: requests to stores, waits that hold nobody else up,
//! frames to the screens, posts, logs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cabinet_host::{
    Frame, LogLevel, LogSource, Player, Recipient, RoomResult, ServiceError, Services,
};

use crate::cell::RoomCell;
use crate::clock::Clock;
use crate::pool::Pool;
use crate::posts::Posts;
use crate::recorder::{GameLabel, Recorder, StoreOp};
use crate::reply::Reply;
use crate::screens::Screens;
use crate::services::{KvAddress, LogOrigin, MergeRule, Post, PostId, ServiceSet};
use cabinet_durability::RoomId;

/// What a room asks of the world, with the means to wait for it.
pub(crate) struct GuestServices {
    pub(crate) set: ServiceSet,
    pub(crate) slug: Arc<str>,
    pub(crate) room: RoomId,
    pub(crate) label: GameLabel,
    pub(crate) recorder: Arc<dyn Recorder>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) screens: Arc<Screens>,
    pub(crate) posts: Arc<Posts>,
    pub(crate) pool: Arc<Pool<RoomCell>>,
    /// The longest wait for one answer.
    pub(crate) timeout: Duration,
    /// The failure on its way to [`Services::store_failed`] was counted already.
    pub(crate) counted: bool,
    /// What the last request waited for its turn after it was answered.
    pub(crate) turn_wait: Duration,
}

/// One wait on a condition variable: longer ones overflow the system's time. It is waited again.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// An answer on its way.
struct Answer<T> {
    slot: Mutex<Option<Result<T, ServiceError>>>,
    arrived: Condvar,
}

impl<T> Answer<T> {
    fn take(&self) -> Option<Result<T, ServiceError>> {
        self.slot
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn wait(&self, within: Duration) -> Option<Result<T, ServiceError>> {
        // Past the end of time is no limit.
        let until = Instant::now().checked_add(within);
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(answer) = slot.take() {
                return Some(answer);
            }
            let left = until.map_or(Duration::MAX, |until| {
                until.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return None;
            }
            slot = self
                .arrived
                .wait_timeout(slot, left.min(LONGEST_WAIT))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl GuestServices {
    /// Asks a store and waits for the answer, at most `within`.
    pub(crate) fn ask<T: Send + 'static>(
        &mut self,
        op: StoreOp,
        within: Duration,
        request: impl FnOnce(&ServiceSet, Reply<T>),
    ) -> Result<T, ServiceError> {
        let answer = Arc::new(Answer {
            slot: Mutex::new(None),
            arrived: Condvar::new(),
        });
        let at_sender = Arc::clone(&answer);
        let reply = Reply::new(move |sent| {
            *at_sender
                .slot
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(sent);
            at_sender.arrived.notify_one();
        });
        if catch_unwind(AssertUnwindSafe(|| request(&self.set, reply))).is_err() {
            self.recorder.store_panicked(&self.label, op);
            return Err(ServiceError::Unavailable("the store panicked".into()));
        }
        if let Some(answer) = answer.take() {
            return answer;
        }
        let within = within.min(self.timeout);
        match self.pool.wait(|| answer.wait(within)) {
            Ok((answer, turn_wait)) => {
                self.turn_wait += turn_wait;
                answer.unwrap_or_else(|| {
                    Err(ServiceError::Unavailable(format!(
                        "no answer within {within:?}"
                    )))
                })
            }
            Err(_) => Err(ServiceError::Unavailable(
                "too many rooms wait for stores already".into(),
            )),
        }
    }

    /// The account a player's values are kept under; `None` for one who may keep nothing.
    fn account(
        &mut self,
        player: &Player,
        within: Duration,
    ) -> Result<Option<String>, ServiceError> {
        if self.set.accounts.is_none() {
            return Ok(Some(player.account.clone()));
        }
        let answer = self.ask(StoreOp::Account, within, |set, reply| match &set.accounts {
            Some(accounts) => accounts.account(player, reply),
            None => reply.send(Ok(None)),
        });
        if answer.is_err() {
            self.recorder.store_error(&self.label, StoreOp::Account);
            self.counted = true;
        }
        answer
    }

    /// One request to the kv store on behalf of a player.
    fn kv<T: Send + Default + 'static>(
        &mut self,
        op: StoreOp,
        player: &Player,
        key: &[u8],
        within: Duration,
        request: impl FnOnce(&dyn crate::services::KvStore, KvAddress<'_>, Reply<T>),
    ) -> Result<T, ServiceError> {
        self.turn_wait = Duration::ZERO;
        if self.set.kv.is_none() {
            return Ok(T::default());
        }
        let began = Instant::now();
        let Some(account) = self.account(player, within)? else {
            return Ok(T::default());
        };
        let left = within.saturating_sub(began.elapsed());
        let slug = Arc::clone(&self.slug);
        self.ask(op, left, |set, reply| {
            let at = KvAddress {
                slug: &slug,
                account: &account,
                key,
            };
            match &set.kv {
                Some(kv) => request(kv.as_ref(), at, reply),
                None => reply.send(Ok(T::default())),
            }
        })
    }
}

impl Services for GuestServices {
    fn kv_get(
        &mut self,
        player: &Player,
        key: &[u8],
        within: Duration,
    ) -> Result<Option<Vec<u8>>, ServiceError> {
        self.kv(StoreOp::KvGet, player, key, within, |kv, at, reply| {
            kv.get(at, reply);
        })
    }

    fn kv_set(
        &mut self,
        player: &Player,
        key: &[u8],
        value: &[u8],
        rule: &[u8],
        within: Duration,
    ) -> Result<(), ServiceError> {
        let rule = MergeRule::named(rule);
        self.kv(StoreOp::KvSet, player, key, within, |kv, at, reply| {
            kv.set(at, value, rule, reply);
        })
    }

    fn kv_delete(
        &mut self,
        player: &Player,
        key: &[u8],
        within: Duration,
    ) -> Result<(), ServiceError> {
        self.kv(StoreOp::KvDelete, player, key, within, |kv, at, reply| {
            kv.delete(at, reply);
        })
    }

    fn config_get(
        &mut self,
        key: &[u8],
        within: Duration,
    ) -> Result<Option<Vec<u8>>, ServiceError> {
        self.turn_wait = Duration::ZERO;
        let slug = Arc::clone(&self.slug);
        self.ask(StoreOp::ConfigGet, within, |set, reply| match &set.config {
            Some(config) => config.get(&slug, key, reply),
            None => reply.send(Ok(None)),
        })
    }

    fn turn_wait(&mut self) -> Duration {
        std::mem::take(&mut self.turn_wait)
    }

    fn post(&mut self, result: &RoomResult) {
        let Some(leaderboard) = &self.set.leaderboard else {
            return;
        };
        let post = Post {
            id: PostId::of(&self.slug, self.room, result),
            slug: Arc::clone(&self.slug),
            room: self.room,
            result: result.clone(),
            at: self.clock.unix_nanos(),
        };
        self.posts.post(leaderboard, post, &self.label);
    }

    fn log(&mut self, level: LogLevel, source: LogSource, message: &[u8]) {
        if let Some(sink) = &self.set.log {
            let from = LogOrigin {
                slug: &self.slug,
                room: self.room,
                level,
                source,
            };
            // A sink that panics loses its record, not the room.
            let _ = catch_unwind(AssertUnwindSafe(|| sink.record(&from, message)));
            return;
        }
        let (slug, room) = (&*self.slug, self.room);
        // Escaped: the bytes are the guest's own.
        let out = String::from_utf8_lossy(message);
        match level {
            LogLevel::Debug => tracing::debug!(target: "cabinet::guest", slug, %room, ?out),
            LogLevel::Info => tracing::info!(target: "cabinet::guest", slug, %room, ?out),
            LogLevel::Warn => tracing::warn!(target: "cabinet::guest", slug, %room, ?out),
            _ => tracing::error!(target: "cabinet::guest", slug, %room, ?out),
        }
    }

    fn deliver(&mut self, to: Recipient<'_>, frame: &Frame) {
        match to {
            Recipient::Member(index, _) => self.screens.draw(index, frame),
            Recipient::Everyone => self.screens.draw_all(frame),
        }
        tracing::trace!(target: "cabinet::frame", everyone = matches!(to, Recipient::Everyone));
    }

    fn store_failed(&mut self, operation: &'static str, error: &ServiceError) {
        if std::mem::take(&mut self.counted) {
            // It was the account that could not be had.
        } else if let Some(op) = StoreOp::ALL.into_iter().find(|op| op.name() == operation) {
            self.recorder.store_error(&self.label, op);
        }
        tracing::warn!(slug = &*self.slug, room = %self.room, operation, %error, "a store failed");
    }
}
