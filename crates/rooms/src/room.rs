//! The handles callers hold: a room, a seat in it.
//!
//! Everything here is cheap and may be done from any thread; what waits, waits asynchronously and
//! needs no particular executor. Queues are bounded: [`Seat::input`] waits and
//! [`Seat::try_input`] refuses when a player is [`INPUTS_MAX`] keys ahead of the room, and so do
//! the room's own requests past [`REQUESTS_MAX`].

mod seat;
mod status;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cabinet_host::{CaptureError, Footprint, Input, Player, ServiceError, Snapshot};
use cabinet_wire::Lifecycle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::captures::Captured;
use crate::cell::RoomCell;
use crate::pool::Pool;
use crate::posts::Posts;
use crate::recorder::GameLabel;
use crate::registry::{GameSlug, Listed};
use crate::sched::Key;
use crate::screens::{Screens, Viewer};
use crate::services::{Leaderboard, Post};
use cabinet_durability::RoomId;

pub use seat::{INPUTS_MAX, InputError, Seat};
pub use status::{EndReason, Ending, Phase, RoomStatus};

/// Joins, checkpoints and hibernations that may wait for the room.
pub const REQUESTS_MAX: usize = 256;

/// A room that lives. Cheap to clone; the room lives on when every handle is dropped.
#[derive(Clone)]
pub struct RoomHandle {
    pub(crate) shared: Arc<RoomShared>,
}

/// What a room and its handles share.
pub(crate) struct RoomShared {
    pub(crate) id: RoomId,
    pub(crate) listed: Arc<Listed>,
    pub(crate) pool: Arc<Pool<RoomCell>>,
    pub(crate) posts: Arc<Posts>,
    pub(crate) key: OnceLock<Key>,
    pub(crate) screens: Arc<Screens>,
    pub(crate) status: watch::Sender<RoomStatus>,
    pub(crate) members: Mutex<Arc<[Player]>>,
    pub(crate) ending: OnceLock<Arc<Ending>>,
    /// Somebody closed it: once is enough.
    closing: AtomicBool,
    /// Callbacks so far.
    pub(crate) callbacks: AtomicU64,
    mail: Mutex<Mail>,
    requests: Arc<Semaphore>,
}

struct Mail {
    queue: VecDeque<Command>,
    parked: Option<(u64, Result<(), ServiceError>)>,
    closed: bool,
}

/// What a room is asked to do.
pub(crate) enum Command {
    Join {
        player: Player,
        /// A whole seat, so that one nobody takes out of the answer is left when that is dropped.
        reply: oneshot::Sender<Result<Seat, JoinError>>,
        _permit: OwnedSemaphorePermit,
    },
    Leave {
        player: Arc<Player>,
        reply: Option<oneshot::Sender<()>>,
    },
    Input {
        player: Arc<Player>,
        input: Input,
        span: tracing::Span,
        _permit: OwnedSemaphorePermit,
    },
    Close,
    Footprint {
        reply: oneshot::Sender<Footprint>,
        _permit: OwnedSemaphorePermit,
    },
    Checkpoint {
        reply: oneshot::Sender<Result<Snapshot, CheckpointError>>,
        _permit: OwnedSemaphorePermit,
    },
    Capture {
        reply: oneshot::Sender<Result<Captured, CheckpointError>>,
        _permit: OwnedSemaphorePermit,
    },
    /// The room goes on elsewhere: it is dropped here.
    Evict,
    Hibernate {
        reply: oneshot::Sender<Result<(), HibernateError>>,
        _permit: OwnedSemaphorePermit,
    },
}

/// A player was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The room is over. One that was hibernated can be resumed.
    #[error("room is closed")]
    Closed,
    /// As many are in as it takes.
    #[error("room is full")]
    Full,
    /// This very player, connection included, has a seat.
    #[error("the player has a seat in this room already")]
    Already,
    /// The roster would not fit the wire, or a name is too long for it.
    #[error("the roster would be too large to describe to the guest")]
    RosterTooLarge,
}

/// A room was not captured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The room is over.
    #[error("room is closed")]
    Closed,
    /// It could not be captured.
    #[error("cannot capture the room")]
    Capture(#[source] CaptureError),
}

/// A room was not hibernated; except for [`HibernateError::Closed`] it goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HibernateError {
    /// The room is over.
    #[error("room is closed")]
    Closed,
    /// It was opened without anywhere to park.
    #[error("the room has nowhere to park: open it with `RoomSpec::parking`")]
    NoParking,
    /// It could not be captured.
    #[error("cannot capture the room")]
    Capture(#[source] CaptureError),
    /// Where it was to be parked did not take it.
    #[error("cannot park the room")]
    Park(#[source] ServiceError),
}

impl RoomHandle {
    /// The room's id.
    #[must_use]
    pub fn id(&self) -> RoomId {
        self.shared.id
    }

    /// The game's slug.
    #[must_use]
    pub fn slug(&self) -> &GameSlug {
        self.shared.listed.slug()
    }

    /// The listing the room was opened under.
    #[must_use]
    pub fn listed(&self) -> &Arc<Listed> {
        &self.shared.listed
    }

    /// Takes a seat. Returns once the guest was told.
    ///
    /// # Errors
    /// [`JoinError`].
    pub async fn join(&self, player: Player) -> Result<Seat, JoinError> {
        let asked = self.ask(|reply, permit| Command::Join {
            player,
            reply,
            _permit: permit,
        });
        asked.await.unwrap_or(Err(JoinError::Closed))
    }

    /// Looks on without a seat: sees what is drawn for everybody.
    #[must_use]
    pub fn spectate(&self) -> Viewer {
        self.shared.screens.spectator()
    }

    /// The room as it is now.
    #[must_use]
    pub fn status(&self) -> RoomStatus {
        *self.shared.status.borrow()
    }

    /// Waits until the status is as `wanted` says, and returns it. A room that is over changes no
    /// more: ask for [`Phase::is_over`] too, or wait for ever.
    pub async fn status_when(&self, wanted: impl FnMut(&RoomStatus) -> bool) -> RoomStatus {
        let mut changes = self.shared.status.subscribe();
        let mut wanted = wanted;
        loop {
            // Copied out, so that the caller's code runs under no lock of the room's.
            let status = *changes.borrow_and_update();
            if wanted(&status) || changes.changed().await.is_err() {
                return status;
            }
        }
    }

    /// Waits until the guest has been started or restored.
    ///
    /// # Errors
    /// How the room ended, if it did before anybody could play.
    pub async fn started(&self) -> Result<(), Arc<Ending>> {
        let status = self.status_when(|status| status.phase != Phase::Init).await;
        match self.ending() {
            Some(ending) if status.phase.is_over() => Err(ending),
            _ => Ok(()),
        }
    }

    /// The members, in the order they joined.
    #[must_use]
    pub fn members(&self) -> Arc<[Player]> {
        Arc::clone(&lock(&self.shared.members))
    }

    /// How it ended, once it has.
    #[must_use]
    pub fn ending(&self) -> Option<Arc<Ending>> {
        self.shared.ending.get().cloned()
    }

    /// Waits until the room is over.
    pub async fn ended(&self) -> Arc<Ending> {
        loop {
            self.status_when(|status| status.phase.is_over()).await;
            if let Some(ending) = self.ending() {
                return ending;
            }
        }
    }

    /// Ends the room, after what was asked of it before. Returns at once; see
    /// [`RoomHandle::ended`].
    pub fn close(&self) {
        if !self.shared.closing.swap(true, Ordering::Relaxed) {
            // One that is over is closed.
            let _ = self.shared.post(Command::Close);
        }
    }

    /// Where the room's memory is, measured now; `None` when the room is over.
    pub async fn footprint(&self) -> Option<Footprint> {
        self.ask(|reply, permit| Command::Footprint {
            reply,
            _permit: permit,
        })
        .await
    }

    /// Captures the room between two callbacks. It goes on.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub async fn checkpoint(&self) -> Result<Snapshot, CheckpointError> {
        let asked = self.ask(|reply, permit| Command::Checkpoint {
            reply,
            _permit: permit,
        });
        asked.await.unwrap_or(Err(CheckpointError::Closed))
    }

    /// Captures the room between two callbacks, with everything that makes it go on elsewhere. It
    /// goes on. Into memory that is kept warm for it, where [`RoomHandle::checkpoint`] takes new.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub async fn capture(&self) -> Result<Captured, CheckpointError> {
        let asked = self.ask(|reply, permit| Command::Capture {
            reply,
            _permit: permit,
        });
        asked.await.unwrap_or(Err(CheckpointError::Closed))
    }

    /// Drops the room without a word to its guest: it goes on in another process, which has it from
    /// a checkpoint. It ends with [`EndReason::Moved`] and no result. Returns at once.
    pub fn evict(&self) {
        // One that is over is gone.
        let _ = self.shared.post(Command::Evict);
    }

    /// How many callbacks the room has had since it was opened or resumed here. While the number
    /// stands the room's state does.
    #[must_use]
    pub fn callbacks(&self) -> u64 {
        self.shared.callbacks.load(Ordering::Relaxed)
    }

    /// Sends leaderboard posts again that a capture came with, if [`RoomSpec::posts`] did not.
    ///
    /// [`RoomSpec::posts`]: crate::RoomSpec::posts
    pub fn send_posts(&self, board: &Arc<dyn Leaderboard>, posts: Vec<Post>) {
        for post in posts {
            self.shared.posts.post(board, post, self.shared.label());
        }
    }

    /// Leaderboard posts of the room that are not recorded yet, in order. A capture remembers that
    /// they were posted, so keep them with a checkpoint: ask after [`RoomHandle::checkpoint`], and
    /// give them to [`RoomSpec::posts`](crate::RoomSpec::posts) when the room is resumed. Posting one
    /// that was recorded meanwhile changes nothing.
    #[must_use]
    pub fn unrecorded_posts(&self) -> Vec<Post> {
        self.shared.posts.of_room(self.shared.id)
    }

    /// Captures the room, parks it, and ends it without a result. Members see their frames end.
    ///
    /// # Errors
    /// [`HibernateError`]; the room goes on unless it is closed.
    pub async fn hibernate(&self) -> Result<(), HibernateError> {
        let asked = self.ask(|reply, permit| Command::Hibernate {
            reply,
            _permit: permit,
        });
        asked.await.unwrap_or(Err(HibernateError::Closed))
    }

    /// Asks the room for something and waits for it; `None` when it is over.
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>, OwnedSemaphorePermit) -> Command,
    ) -> Option<T> {
        let permit = self.shared.permit().await?;
        let (reply, answer) = oneshot::channel();
        self.shared.post(command(reply, permit)).ok()?;
        answer.await.ok()
    }
}

impl fmt::Debug for RoomHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomHandle")
            .field("id", &self.shared.id)
            .field("slug", &self.shared.listed.slug())
            .field("status", &self.status())
            .finish()
    }
}

/// The room takes no more mail.
pub(crate) struct MailClosed;

impl RoomShared {
    pub(crate) fn new(
        id: RoomId,
        listed: Arc<Listed>,
        pool: Arc<Pool<RoomCell>>,
        posts: Arc<Posts>,
    ) -> Arc<Self> {
        let status = RoomStatus {
            phase: Phase::Init,
            members: 0,
            input_context: 0,
            hibernatable: false,
            lifecycle: Lifecycle::Resumable,
        };
        Arc::new(Self {
            id,
            listed,
            pool,
            posts,
            key: OnceLock::new(),
            screens: Screens::new(),
            status: watch::Sender::new(status),
            members: Mutex::new(Arc::from([])),
            ending: OnceLock::new(),
            closing: AtomicBool::new(false),
            callbacks: AtomicU64::new(0),
            mail: Mutex::new(Mail {
                queue: VecDeque::new(),
                parked: None,
                closed: false,
            }),
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
        })
    }

    pub(crate) fn label(&self) -> &GameLabel {
        self.listed.label()
    }

    /// Puts a command in the room's mail.
    pub(crate) fn post(&self, command: Command) -> Result<(), MailClosed> {
        {
            let mut mail = lock(&self.mail);
            if mail.closed {
                return Err(MailClosed);
            }
            mail.queue.push_back(command);
        }
        self.poke();
        Ok(())
    }

    /// Tells the room how an attempt to park it went.
    pub(crate) fn parked(&self, attempt: u64, answer: Result<(), ServiceError>) {
        {
            let mut mail = lock(&self.mail);
            // A late answer to an old attempt does not displace the one that is waited for.
            if mail
                .parked
                .as_ref()
                .is_none_or(|(told, _)| *told <= attempt)
            {
                mail.parked = Some((attempt, answer));
            }
        }
        self.poke();
    }

    pub(crate) fn take(&self) -> Option<Command> {
        lock(&self.mail).queue.pop_front()
    }

    pub(crate) fn take_parked(&self) -> Option<(u64, Result<(), ServiceError>)> {
        lock(&self.mail).parked.take()
    }

    pub(crate) fn has_mail(&self) -> bool {
        !lock(&self.mail).queue.is_empty()
    }

    pub(crate) fn has_parked(&self) -> bool {
        lock(&self.mail).parked.is_some()
    }

    /// Takes no more mail. What was not read is dropped, which tells those who wait.
    pub(crate) fn close_mail(&self) {
        let unread = {
            let mut mail = lock(&self.mail);
            mail.closed = true;
            std::mem::take(&mut mail.queue)
        };
        drop(unread);
        self.requests.close();
    }

    fn poke(&self) {
        if let Some(key) = self.key.get() {
            self.pool.poke(*key);
        }
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.requests).acquire_owned().await.ok()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
