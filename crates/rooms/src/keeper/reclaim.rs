//! Rooms of a process that died go on here.

use std::sync::Arc;

use cabinet_durability::{Epoch, Head, OwnerId, RoomId, VaultError};

use super::resume::ResumeError;
use super::{Keeper, error_line};
use crate::registry::{GameSlug, Listed, Registry};
use crate::room::RoomHandle;
use crate::runtime::{RoomSpec, Runtime};

/// What became of one room.
#[derive(Debug)]
pub struct ReclaimedRoom {
    /// The room.
    pub room: RoomId,
    /// Whose it was, where its head could be read.
    pub owner: Option<OwnerId>,
    /// What became of it.
    pub outcome: Reclaimed,
}

/// How reclaiming a room went.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reclaimed {
    /// It goes on here.
    Resumed(RoomHandle),
    /// It had never been checkpointed, so there is nothing to go on from; it is gone.
    NothingKept,
    /// Its state is damaged. It was set aside, and is not looked at again.
    SetAside(ResumeError),
    /// It stays where it is, for somebody else or a later try: the game was updated or is not on
    /// offer, the store was not available, somebody else has it.
    Left(ResumeError),
}

impl Keeper {
    /// Goes on with every live room whose owner is `dead`, from its newest checkpoint. The process
    /// that had one is fenced; if it was alive after all, it drops the room at its next checkpoint.
    /// Rooms of this keeper's own name that it does not keep are looked at too: those of the process
    /// that had the name before, and those that could not be brought up here. So no two processes
    /// may have one name.
    ///
    /// `spec` gives each room its services. One room's trouble is that room's: it is reported, and
    /// the next one is looked at.
    ///
    /// # Errors
    /// [`VaultError::Unavailable`] when the rooms cannot be listed.
    pub async fn reclaim(
        &self,
        runtime: &Runtime,
        registry: &Registry,
        dead: impl Fn(&OwnerId) -> bool,
        spec: impl Fn(&GameSlug) -> RoomSpec,
    ) -> Result<Vec<ReclaimedRoom>, VaultError> {
        let mut report = Vec::new();
        for (room, head) in self.vault().live_rooms().await? {
            if self.inner.kept(room).is_some() {
                continue;
            }
            let head = match head {
                // From what lies beside it; then it is ours, and goes on like any other.
                Err(VaultError::HeadLost) => self.heal(room).await,
                head => head,
            };
            let own = self.vault().owner();
            let (owner, outcome) = match head {
                Ok(head) if head.owner != own && !dead(&head.owner) => continue,
                Ok(head) => {
                    let owner = head.owner;
                    let outcome = self.reclaim_one(runtime, registry, &head, &spec).await;
                    (Some(owner), outcome)
                }
                // Whose it is cannot be told.
                Err(error) => (None, self.trouble(room, ResumeError::of(error)).await),
            };
            let slug = match &outcome {
                Reclaimed::Resumed(handle) => handle.slug().as_str(),
                _ => "",
            };
            tracing::info!(%room, slug, outcome = outcome.name(), "room of a dead process");
            report.push(ReclaimedRoom {
                room,
                owner,
                outcome,
            });
        }
        Ok(report)
    }

    async fn heal(&self, room: RoomId) -> Result<Head, VaultError> {
        self.vault().rebuild(room, self.inner.now_ms()).await?;
        self.vault().head(room).await?.ok_or(VaultError::HeadLost)
    }

    pub(super) async fn reclaim_one(
        &self,
        runtime: &Runtime,
        registry: &Registry,
        head: &Head,
        spec: &impl Fn(&GameSlug) -> RoomSpec,
    ) -> Reclaimed {
        let room = head.room;
        let resumed = self.go_on(runtime, registry, head, spec).await;
        match resumed {
            Ok(Some(handle)) => Reclaimed::Resumed(handle),
            Ok(None) => Reclaimed::NothingKept,
            Err(error) => self.trouble(room, error).await,
        }
    }

    /// Looks before it takes: a room that cannot go on here stays whose it is.
    async fn go_on(
        &self,
        runtime: &Runtime,
        registry: &Registry,
        head: &Head,
        spec: &impl Fn(&GameSlug) -> RoomSpec,
    ) -> Result<Option<RoomHandle>, ResumeError> {
        let (vault, room) = (self.vault(), head.room);
        let seen = match head.object {
            Some(_) => {
                let seen = vault.latest(room, None).await.map_err(ResumeError::of)?;
                let ready = self.ready(room, seen.artifact, seen.bytes, registry);
                Some(ready.await?)
            }
            None => None,
        };
        let spec = match &seen {
            Some(seen) => spec(seen.listed.slug()),
            None => RoomSpec::default(),
        };
        // On a task of its own: whoever waits may leave, and nothing is left half done.
        let (keeper, runtime) = (self.clone(), runtime.clone());
        let game = seen.map(|seen| seen.listed);
        self.apart(async move { keeper.claim_and_build(&runtime, room, game, spec).await })
            .await
    }

    async fn claim_and_build(
        &self,
        runtime: &Runtime,
        room: RoomId,
        game: Option<Arc<Listed>>,
        spec: RoomSpec,
    ) -> Result<Option<RoomHandle>, ResumeError> {
        let _transit = self
            .inner
            .transit(room)
            .ok_or(ResumeError::AlreadyResumed)?;
        let now_ms = self.inner.now_ms();
        let claimed = self.vault().claim(room, now_ms).await;
        let (lease, checkpoint) = claimed.map_err(ResumeError::of)?;
        let (Some(checkpoint), Some(game)) = (checkpoint, game) else {
            if lease.epoch() == Epoch::NONE
                && let Err(error) = lease.end(now_ms).await
            {
                tracing::debug!(%room, error = error_line(&error), "an empty room's head stays");
            }
            return Ok(None);
        };
        let ready = self
            .ready_for(room, checkpoint.artifact, checkpoint.bytes, game)
            .await?;
        let board = spec.services.leaderboard.clone();
        let (handle, posts) = self.build(runtime, ready, room, spec).await?;
        if let Some(board) = board {
            handle.send_posts(&board, posts);
        }
        self.watch(runtime, handle.clone(), Some(lease));
        Ok(Some(handle))
    }

    /// Sets a room aside whose state is the trouble; leaves any other.
    async fn trouble(&self, room: RoomId, error: ResumeError) -> Reclaimed {
        tracing::error!(%room, error = error_line(&error), "room not reclaimed");
        if !error.is_corrupt() {
            return Reclaimed::Left(error);
        }
        let reason = error_line(&error);
        match self
            .vault()
            .set_aside(room, &reason, self.inner.now_ms())
            .await
        {
            Ok(()) => Reclaimed::SetAside(error),
            Err(failed) => {
                tracing::warn!(%room, error = error_line(&failed), "room not set aside");
                Reclaimed::Left(error)
            }
        }
    }
}

impl Reclaimed {
    /// A stable name: `resumed`, `nothing-kept`, `set-aside` or `left`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Resumed(_) => "resumed",
            Self::NothingKept => "nothing-kept",
            Self::SetAside(_) => "set-aside",
            Self::Left(_) => "left",
        }
    }
}

impl ReclaimedRoom {
    /// The room that goes on here.
    #[must_use]
    pub fn handle(&self) -> Option<&RoomHandle> {
        match &self.outcome {
            Reclaimed::Resumed(handle) => Some(handle),
            _ => None,
        }
    }
}
