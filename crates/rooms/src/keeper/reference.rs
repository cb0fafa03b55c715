//! Rooms of the reference host go on here, from then on in our own format.

use cabinet_durability::reference::{ReferenceError, ReferenceStore};
use cabinet_durability::{RoomId, VaultError};
use cabinet_host::{Sck1, Sck1Error};

use super::resume::{ResumeError, offered, started};
use super::{KeepError, Keeper, error_line};
use crate::registry::Registry;
use crate::room::RoomHandle;
use crate::runtime::{Resume, RoomSpec, Runtime};

impl Keeper {
    /// Resumes a room the reference host parked, for somebody who was in it: under its id, from then
    /// on in our own format. A room of which the vault has a record is never read from there.
    ///
    /// # Errors
    /// [`ResumeError`].
    pub async fn resume_reference(
        &self,
        runtime: &Runtime,
        registry: &Registry,
        reference: &ReferenceStore,
        room: RoomId,
        account: &str,
        spec: RoomSpec,
    ) -> Result<RoomHandle, ResumeError> {
        let (header, blob) = self
            .vault()
            .reference_parked(reference, room)
            .await
            .map_err(of_reference)?;
        if !header.has(account) {
            return Err(ResumeError::NotFound);
        }
        self.adopt_reference(runtime, registry, room, &header.slug, &blob, spec)
            .await
    }

    /// Goes on with a live room of the reference host from its newest checkpoint. Its checkpoints do
    /// not say which game they are of, so `slug` does.
    ///
    /// # Errors
    /// [`ResumeError`].
    pub async fn reclaim_reference(
        &self,
        runtime: &Runtime,
        registry: &Registry,
        reference: &ReferenceStore,
        room: RoomId,
        slug: &str,
        spec: RoomSpec,
    ) -> Result<RoomHandle, ResumeError> {
        let (_, blob) = self
            .vault()
            .reference_latest(reference, room)
            .await
            .map_err(of_reference)?;
        self.adopt_reference(runtime, registry, room, slug, &blob, spec)
            .await
    }

    async fn adopt_reference(
        &self,
        runtime: &Runtime,
        registry: &Registry,
        room: RoomId,
        slug: &str,
        blob: &[u8],
        mut spec: RoomSpec,
    ) -> Result<RoomHandle, ResumeError> {
        let listed = offered(registry, slug)?;
        let blob = Sck1::decode(blob, listed.game().snapshot_bytes_max())
            .map_err(|error: Sck1Error| ResumeError::Corrupt(error.into()))?;
        let (stored, now) = (blob.artifact, listed.game().digest());
        if stored != now {
            return Err(ResumeError::Retired {
                stored,
                listed: now,
            });
        }
        let _transit = self
            .inner
            .transit(room)
            .ok_or(ResumeError::AlreadyResumed)?;
        spec.id = Some(room);
        spec.parking = Some(self.parking());
        let resumed = runtime.resume(&listed, Resume::Sck1(Box::new(blob)), spec);
        let handle = started(resumed).await?;
        match self.vault().create(room, self.inner.now_ms()).await {
            Ok(lease) => {
                let kept = self.watch(runtime, handle.clone(), Some(lease));
                // From now on the room is ours, so it must be ours to read.
                let written = kept.checkpoint_now().await;
                let noted = match written {
                    // Once the room is over here its old record must not come back.
                    Ok(()) => self
                        .vault()
                        .adopted(room, self.inner.now_ms())
                        .await
                        .map_err(KeepError::from),
                    Err(error) => Err(error),
                };
                if let Err(error) = noted {
                    tracing::warn!(%room, error = error_line(&error), "room of the reference not written yet");
                }
                Ok(handle)
            }
            Err(error) => {
                handle.evict();
                Err(ResumeError::of(error))
            }
        }
    }
}

fn of_reference(error: ReferenceError) -> ResumeError {
    match error {
        ReferenceError::NoCheckpoint => ResumeError::NotFound,
        ReferenceError::Corrupt(damage) => ResumeError::Corrupt(damage.into()),
        ReferenceError::Moved => ResumeError::AlreadyResumed,
        ReferenceError::Ours(error) => ResumeError::of(error),
        ReferenceError::Unavailable(error) => ResumeError::Unavailable(error.into()),
        other => ResumeError::Unavailable(VaultError::Floors(other.into())),
    }
}
