//! Players come back to rooms that were parked.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cabinet_durability::{ParkedRoom, ParkedRooms, RoomId, VaultError};
use cabinet_host::{RestoreError, SnapshotError};
use cabinet_wire::ArtifactDigest;

use super::state::{RoomState, StateError};
use super::{Keeper, error_line};
use crate::registry::{Listed, Registry};
use crate::room::{Ending, RoomHandle};
use crate::runtime::{OpenError, Resume, RoomSpec, Runtime};

/// A room was not resumed. What is told to the player is [`ResumeError::notice`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// There is no such room, or it is not this account's to resume.
    #[error("there is no such parked room")]
    NotFound,
    /// Somebody resumed it first, here or elsewhere: join it there.
    #[error("the room has been resumed already")]
    AlreadyResumed,
    /// It was parked for too long.
    #[error("the room expired")]
    Expired,
    /// The game was updated since: its rooms of that version cannot go on.
    #[error("the room is of artifact {stored}, the game is {listed} now: it was updated")]
    Retired {
        /// What the room runs.
        stored: ArtifactDigest,
        /// What the registry offers.
        listed: ArtifactDigest,
    },
    /// The game is not on offer.
    #[error("the game {0} is not on offer")]
    NotOffered(String),
    /// What is stored of it is damaged.
    #[error("the room's stored state is corrupt")]
    Corrupt(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The game does not take the state; the ending says why.
    #[error("the room could not be restored: {}", restore_text(.0))]
    Restore(Arc<Ending>),
    /// The runtime did not open it.
    #[error("the runtime did not open the room")]
    Open(#[source] OpenError),
    /// This process cannot read it: another version, or limits it does not fit. Nothing is wrong with
    /// what is stored.
    #[error("the room cannot be read by this process")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It went down while it was being resumed.
    #[error("the room went down while it was being resumed")]
    WentDown,
    /// The store did not answer, or cannot be read by this process. Try again later.
    #[error("the store is not available")]
    Unavailable(#[source] VaultError),
}

impl ResumeError {
    /// What a player is told: `corrupt`, `expired`, `retired by an update`, `resumed already`,
    /// `gone` or `not available now`.
    #[must_use]
    pub fn notice(&self) -> &'static str {
        match self {
            Self::Corrupt(_) => "corrupt",
            error @ Self::Restore(_) if error.is_corrupt() => "corrupt",
            Self::Restore(_) => "not available now",
            Self::Expired => "expired",
            Self::Retired { .. } => "retired by an update",
            Self::AlreadyResumed => "resumed already",
            Self::NotFound => "gone",
            Self::NotOffered(_)
            | Self::Open(_)
            | Self::Unreadable(_)
            | Self::WentDown
            | Self::Unavailable(_) => "not available now",
        }
    }

    pub(super) fn of(error: VaultError) -> Self {
        match error {
            VaultError::NoCheckpoint | VaultError::NotAMember => Self::NotFound,
            VaultError::AlreadyResumed | VaultError::Standing(_) | VaultError::Fenced { .. } => {
                Self::AlreadyResumed
            }
            VaultError::Expired => Self::Expired,
            VaultError::ArtifactMismatch { stored, wanted } => Self::Retired {
                stored,
                listed: wanted,
            },
            error
            @ (VaultError::Corrupt { .. } | VaultError::HeadLost | VaultError::RolledBack) => {
                Self::Corrupt(error.into())
            }
            error @ (VaultError::TooLarge { .. }
            | VaultError::TooMany(_)
            | VaultError::Unreadable(_)) => Self::Unreadable(error.into()),
            error => Self::Unavailable(error),
        }
    }

    fn of_state(error: StateError) -> Self {
        match error {
            error @ StateError::Version { .. } => Self::Unreadable(error.into()),
            StateError::Snapshot(error @ SnapshotError::Version { .. }) => {
                Self::Unreadable(error.into())
            }
            error => Self::Corrupt(error.into()),
        }
    }

    /// Whether what is stored of the room is the trouble: it will not go on anywhere.
    pub(super) fn is_corrupt(&self) -> bool {
        match self {
            Self::Corrupt(_) => true,
            Self::Restore(ending) => matches!(
                ending.restore,
                Some(RestoreError::Misfit(_) | RestoreError::Dead)
            ),
            _ => false,
        }
    }
}

/// How often a take that failed in passing is tried again, and the first wait before that.
const TAKES_MAX: u32 = 4;
const TAKE_AGAIN: Duration = Duration::from_millis(100);

/// The rooms of one player.
pub type PlayersRooms = ParkedRooms;

/// A room that was read and matched with its game.
pub(super) struct Ready {
    pub(super) listed: Arc<Listed>,
    pub(super) state: RoomState,
}

impl Keeper {
    /// The parked rooms an account was in, newest first. Rooms of games that are not on offer are
    /// among them. Resident rooms never are: they are not parked.
    ///
    /// # Errors
    /// [`VaultError::Unavailable`].
    pub async fn rooms_of(&self, account: &str) -> Result<PlayersRooms, VaultError> {
        self.vault().parked_of(account).await
    }

    /// Resumes a parked room for somebody who was in it. The room is built first and taken in the
    /// store then: of everybody who tries, in any process, one succeeds, and the others drop what
    /// they built.
    ///
    /// `spec` gives the services; its id, parking, posts, players and configuration come from the
    /// parked room.
    ///
    /// # Errors
    /// [`ResumeError`]; the room is parked still, or somebody else's.
    pub async fn resume(
        &self,
        runtime: &Runtime,
        registry: &Registry,
        room: RoomId,
        account: &str,
        spec: RoomSpec,
    ) -> Result<RoomHandle, ResumeError> {
        self.lend(runtime);
        let mut parked = self
            .vault()
            .open_parked(room, Some(account), None)
            .await
            .map_err(ResumeError::of)?;
        let artifact = parked.checkpoint().artifact;
        let bytes = parked.take_bytes();
        let ready = self.ready(room, artifact, bytes, registry).await?;
        // On a task of its own: whoever waits may leave, and nothing is left half done.
        let (keeper, runtime) = (self.clone(), runtime.clone());
        self.apart(async move { keeper.build_and_take(&runtime, ready, parked, spec).await })
            .await
    }

    async fn build_and_take(
        &self,
        runtime: &Runtime,
        ready: Ready,
        parked: ParkedRoom,
        spec: RoomSpec,
    ) -> Result<RoomHandle, ResumeError> {
        let room = parked.room();
        let _transit = self
            .inner
            .transit(room)
            .ok_or(ResumeError::AlreadyResumed)?;
        let board = spec.services.leaderboard.clone();
        let (handle, posts) = self.build(runtime, ready, room, spec).await?;
        let mut tries = 0;
        let lease = loop {
            match self.vault().take(&parked, self.inner.now_ms()).await {
                Ok(lease) => break lease,
                // An attempt whose answer was lost may have won: only this very room knows.
                Err(error) if error.is_passing() && tries < TAKES_MAX => {
                    tries += 1;
                    self.inner.sleep(TAKE_AGAIN * tries).await;
                }
                Err(error) => {
                    handle.evict();
                    return Err(ResumeError::of(error));
                }
            }
        };
        if let Some(board) = board {
            // Now that the room is ours.
            handle.send_posts(&board, posts);
        }
        self.watch(runtime, handle.clone(), Some(lease));
        Ok(handle)
    }

    /// Runs work to its end, whoever waits for it.
    pub(super) async fn apart<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ResumeError>> + Send + 'static,
    ) -> Result<T, ResumeError> {
        match self.inner.options.executor.spawn(work).await {
            Ok(done) => done,
            // It panicked, or the executor is shutting down.
            Err(_) => Err(ResumeError::WentDown),
        }
    }

    /// Gives the vault warm memory for what it reads next.
    pub(super) fn lend(&self, runtime: &Runtime) {
        // The smallest; what is read is often small.
        self.vault().lend_memory(runtime.captures().take(0));
    }

    /// Reads what a checkpoint holds, and finds the game it is of.
    pub(super) async fn ready(
        &self,
        room: RoomId,
        stored: ArtifactDigest,
        bytes: Vec<u8>,
        registry: &Registry,
    ) -> Result<Ready, ResumeError> {
        let state = self.read(room, bytes).await?;
        let listed = offered(registry, state.slug.as_str())?;
        fits(Ready { listed, state }, stored)
    }

    /// As [`Keeper::ready`], of a game that was found before.
    pub(super) async fn ready_for(
        &self,
        room: RoomId,
        stored: ArtifactDigest,
        bytes: Vec<u8>,
        listed: Arc<Listed>,
    ) -> Result<Ready, ResumeError> {
        let state = self.read(room, bytes).await?;
        fits(Ready { listed, state }, stored)
    }

    async fn read(&self, room: RoomId, bytes: Vec<u8>) -> Result<RoomState, ResumeError> {
        self.inner
            .options
            .executor
            .spawn_blocking(move || RoomState::decode(room, bytes))
            .await
            .map_err(|_| ResumeError::WentDown)?
            .map_err(ResumeError::of_state)
    }

    /// Builds a room from its state. It runs no guest code until somebody joins, or, when it is
    /// resident, until its first wake. Its posts are not sent yet.
    pub(super) async fn build(
        &self,
        runtime: &Runtime,
        ready: Ready,
        room: RoomId,
        mut spec: RoomSpec,
    ) -> Result<(RoomHandle, Vec<crate::services::Post>), ResumeError> {
        let Ready { listed, state } = ready;
        spec.id = Some(room);
        spec.parking = Some(self.parking());
        spec.posts = Vec::new();
        spec.lifecycle = Some(state.lifecycle);
        spec.joined = state.joined;
        spec.roster = state.roster;
        let snapshot = Resume::Snapshot(Box::new(state.snapshot));
        let handle = started(runtime.resume(&listed, snapshot, spec)).await?;
        Ok((handle, state.posts))
    }
}

fn fits(ready: Ready, stored: ArtifactDigest) -> Result<Ready, ResumeError> {
    let listed = ready.listed.game().digest();
    if stored == listed {
        Ok(ready)
    } else {
        Err(ResumeError::Retired { stored, listed })
    }
}

pub(super) fn offered(registry: &Registry, slug: &str) -> Result<Arc<Listed>, ResumeError> {
    registry
        .get(slug)
        .ok_or_else(|| ResumeError::NotOffered(slug.into()))
}

/// Waits until a resumed room has been restored.
pub(super) async fn started(
    resumed: Result<RoomHandle, OpenError>,
) -> Result<RoomHandle, ResumeError> {
    let handle = match resumed {
        Ok(handle) => handle,
        Err(OpenError::AlreadyOpen(_)) => return Err(ResumeError::AlreadyResumed),
        Err(error) => return Err(ResumeError::Open(error)),
    };
    match handle.started().await {
        Ok(()) => Ok(handle),
        Err(ending) if ending.restore.is_some() => Err(ResumeError::Restore(ending)),
        Err(_) => Err(ResumeError::WentDown),
    }
}

fn restore_text(ending: &Ending) -> String {
    ending
        .restore
        .as_ref()
        .map_or_else(String::new, |error| error_line(error))
}
