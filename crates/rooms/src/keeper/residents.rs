//! Resident rooms: one for each game that is granted one, for as long as it is.

use std::sync::Arc;

use cabinet_durability::{OwnerId, ResidentPointer, RoomId, Standing, VaultError};
use cabinet_host::ServiceError;
use cabinet_wire::Lifecycle;
use tokio::sync::oneshot;

use super::reclaim::Reclaimed;
use super::resume::ResumeError;
use super::{Keeper, error_line};
use crate::host_keys::{self, HostKey};
use crate::registry::{GameSlug, Listed, Registry};
use crate::reply::Reply;
use crate::room::RoomHandle;
use crate::runtime::{RoomSpec, Runtime};

/// What became of one game's resident room.
#[derive(Debug)]
pub struct ResidentRoom {
    /// The game.
    pub slug: GameSlug,
    /// What became of it.
    pub outcome: Resident,
}

/// How bringing up a resident room went.
#[derive(Debug)]
#[non_exhaustive]
pub enum Resident {
    /// It goes on from its newest checkpoint.
    Restored(RoomHandle),
    /// It was started fresh: there was none, or, with the error, none that could go on.
    Fresh(RoomHandle, Option<ResumeError>),
    /// It runs here already.
    Here(RoomHandle),
    /// Another process has it, and is not dead.
    Elsewhere(OwnerId),
    /// It is neither: the store, or the runtime, did not do it. Try again later.
    Failed(ResumeError),
}

impl Resident {
    /// The room, if it runs here.
    #[must_use]
    pub fn handle(&self) -> Option<&RoomHandle> {
        match self {
            Self::Restored(room) | Self::Fresh(room, _) | Self::Here(room) => Some(room),
            _ => None,
        }
    }
}

impl Keeper {
    /// Brings up the resident room of every game in the registry that declares the lifecycle and was
    /// granted it (`host.resident`, read through the services of `spec`): restored from its newest
    /// checkpoint, else started fresh. A snapshot of another artifact is logged with both hashes and
    /// retired.
    ///
    /// A resident room of an owner that is not `dead` is left alone.
    pub async fn bring_up_residents(
        &self,
        runtime: &Runtime,
        registry: &Registry,
        dead: impl Fn(&OwnerId) -> bool,
        spec: impl Fn(&GameSlug) -> RoomSpec,
    ) -> Vec<ResidentRoom> {
        let mut report = Vec::new();
        for listed in registry.all() {
            let slug = listed.slug().clone();
            if !granted(&listed, &spec(&slug)).await {
                continue;
            }
            let outcome = self
                .bring_up(runtime, registry, &listed, &dead, &spec)
                .await
                .unwrap_or_else(Resident::Failed);
            if let Resident::Failed(error) = &outcome {
                tracing::error!(
                    slug = slug.as_str(),
                    error = error_line(error),
                    "no resident room"
                );
            }
            report.push(ResidentRoom { slug, outcome });
        }
        report
    }

    async fn bring_up(
        &self,
        runtime: &Runtime,
        registry: &Registry,
        listed: &Arc<Listed>,
        dead: &impl Fn(&OwnerId) -> bool,
        spec: &impl Fn(&GameSlug) -> RoomSpec,
    ) -> Result<Resident, ResumeError> {
        let vault = self.vault();
        let slug = listed.slug().as_str();
        let pointer = match vault.resident(slug).await {
            Ok(pointer) => pointer,
            Err(error) => return Err(ResumeError::of(error)),
        };
        let Some(old) = &pointer else {
            return self.start_fresh(runtime, listed, None, None, spec).await;
        };
        if let Some(room) = runtime.find(old.room) {
            return Ok(Resident::Here(room));
        }
        let trouble = match vault.head(old.room).await {
            // It ended, or its state is gone.
            Ok(None) => None,
            Ok(Some(head)) if head.standing != Standing::Live => None,
            Ok(Some(head)) if head.owner != vault.owner() && !dead(&head.owner) => {
                return Ok(Resident::Elsewhere(head.owner));
            }
            Ok(Some(head)) => match self.reclaim_one(runtime, registry, &head, spec).await {
                Reclaimed::Resumed(room) => return Ok(Resident::Restored(room)),
                Reclaimed::NothingKept => None,
                Reclaimed::SetAside(error) => Some(error),
                Reclaimed::Left(error @ ResumeError::Retired { .. }) => {
                    let ResumeError::Retired { stored, listed } = &error else {
                        return Err(error);
                    };
                    tracing::warn!(
                        slug, room = %old.room, %stored, now = %listed,
                        "the resident room is of another artifact; it is retired"
                    );
                    self.retire(old.room).await;
                    Some(error)
                }
                Reclaimed::Left(error) => return Err(error),
            },
            Err(error @ (VaultError::Unavailable(_) | VaultError::Unreadable(_))) => {
                return Err(ResumeError::of(error));
            }
            Err(error) => Some(ResumeError::of(error)),
        };
        self.start_fresh(runtime, listed, pointer.as_ref(), trouble, spec)
            .await
    }

    /// Opens a new resident room; of several processes that do one succeeds.
    async fn start_fresh(
        &self,
        runtime: &Runtime,
        listed: &Arc<Listed>,
        old: Option<&ResidentPointer>,
        trouble: Option<ResumeError>,
        spec: &impl Fn(&GameSlug) -> RoomSpec,
    ) -> Result<Resident, ResumeError> {
        let slug = listed.slug();
        let mut wanted = spec(slug);
        wanted.id = None;
        wanted.parking = Some(self.parking());
        let room = runtime.open(listed, wanted).map_err(ResumeError::Open)?;
        let _transit = self
            .inner
            .transit(room.id())
            .ok_or(ResumeError::AlreadyResumed)?;
        let vault = self.vault();
        let lease = match vault.create(room.id(), self.inner.now_ms()).await {
            Ok(lease) => lease,
            Err(error) => {
                room.evict();
                return Err(ResumeError::of(error));
            }
        };
        match vault.set_resident(slug.as_str(), room.id(), old).await {
            Ok(()) => {
                self.watch(runtime, room.clone(), Some(lease));
                Ok(Resident::Fresh(room, trouble))
            }
            Err(error) => {
                room.evict();
                if let Err(error) = lease.end(self.inner.now_ms()).await {
                    tracing::debug!(room = %room.id(), error = error_line(&error), "its head stays");
                }
                Err(ResumeError::of(error))
            }
        }
    }

    async fn retire(&self, room: RoomId) {
        let now_ms = self.inner.now_ms();
        let ended = async {
            let (lease, _) = self.vault().claim(room, now_ms).await?;
            lease.end(now_ms).await
        };
        if let Err(error) = ended.await {
            tracing::warn!(%room, error = error_line(&error), "a retired room's state stays");
        }
    }
}

/// Whether the operator grants a game its resident room.
async fn granted(listed: &Listed, spec: &RoomSpec) -> bool {
    let configured = match &spec.services.config {
        Some(config) => {
            let (sender, answer) = oneshot::channel::<Result<_, ServiceError>>();
            let reply = Reply::new(move |answer| {
                // Whoever asked may be gone.
                let _ = sender.send(answer);
            });
            let key = HostKey::Resident.key().as_bytes();
            config.get(listed.slug().as_str(), key, reply);
            match answer.await {
                Ok(Ok(value)) => value,
                _ => None,
            }
        }
        None => None,
    };
    let granted = host_keys::resident(configured.as_deref());
    listed.listing().lifecycle_of_new_room(granted) == Lifecycle::Resident
}
