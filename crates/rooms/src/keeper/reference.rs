//! Rooms of the reference host go on here, from then on in our own format.

use cabinet_durability::reference::{ReferenceError, ReferenceStore};
use cabinet_durability::{RoomId, VaultError};
use cabinet_host::{CaptureError, Game, NoServices, Player, RestoreError, Sck1, Sck1Error};
use cabinet_wire::{ArtifactDigest, Lifecycle};

use super::resume::{ResumeError, offered, started};
use super::{KeepError, Keeper, StateError, encode_state, error_line};
use crate::captures::Captured;
use crate::registry::{GameSlug, Registry};
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

/// A room of the reference host in Cabinet's own bytes.
#[derive(Debug)]
#[non_exhaustive]
pub struct ReferenceState {
    /// What a checkpoint of it holds.
    pub bytes: Vec<u8>,
    /// Who was in it last.
    pub roster: Vec<Player>,
}

/// A room of the reference host cannot go on here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceStateError {
    /// Its snapshot does not read.
    #[error("the reference host's snapshot")]
    Blob(#[source] Sck1Error),
    /// It is of another game, or of another version of this one.
    #[error("the room is of artifact {stored}, the game is {game}")]
    OtherGame {
        /// What the room runs.
        stored: ArtifactDigest,
        /// What was given.
        game: ArtifactDigest,
    },
    /// The game had ended it.
    #[error("the room was over")]
    Over,
    /// The game does not take its state.
    #[error("the room could not be restored")]
    Restore(#[source] RestoreError),
    /// It was restored, and cannot be captured.
    #[error("the room could not be captured")]
    Capture(#[source] CaptureError),
    /// It does not fit a checkpoint.
    #[error("the room's state")]
    State(#[source] StateError),
}

/// What a keeper would write of a room of the reference host, which is resumable then: for tools
/// that move rooms while nobody plays. Runs what makes an instance of the game ready, and none of
/// its callbacks. `at` is when it was parked, Unix nanoseconds.
///
/// # Errors
/// [`ReferenceStateError`].
pub fn state_of_reference(
    game: &Game,
    slug: &GameSlug,
    room: RoomId,
    blob: &[u8],
    at: i64,
) -> Result<ReferenceState, ReferenceStateError> {
    let blob = Sck1::decode(blob, game.snapshot_bytes_max()).map_err(ReferenceStateError::Blob)?;
    let (stored, digest) = (blob.artifact, game.digest());
    if stored != digest {
        let game = digest;
        return Err(ReferenceStateError::OtherGame { stored, game });
    }
    if blob.ended {
        return Err(ReferenceStateError::Over);
    }
    let mut restored = game
        .restore_sck1(&blob, false, Box::new(NoServices))
        .map_err(ReferenceStateError::Restore)?;
    drop(blob);
    let roster = restored.last_roster();
    let snapshot = restored.snapshot().map_err(ReferenceStateError::Capture)?;
    let captured = Captured {
        room,
        slug: slug.clone(),
        lifecycle: Lifecycle::Resumable,
        roster,
        joined: Vec::new(),
        at,
        callbacks: 0,
        posts: Vec::new(),
        snapshot,
    };
    let mut bytes = Vec::new();
    encode_state(&captured, &mut bytes).map_err(ReferenceStateError::State)?;
    Ok(ReferenceState {
        bytes,
        roster: captured.roster,
    })
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
