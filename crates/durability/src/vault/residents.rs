//! Which room is the resident one of a game.

use bytes::Bytes;
use cabinet_wire::ArtifactDigest;

use super::{Inner, Vault, VaultError};
use crate::codec::TEXT_BYTES_MAX;
use crate::head::HeadError;
use crate::ids::{Epoch, Fence, RoomId};
use crate::names;
use crate::seal::{Kind, Place, Sealer, Unverified, Wanted};
use crate::store::{Condition, Key, StoreError, Version, Want};

/// The domain of slugs' pseudonyms.
pub(super) const SLUG: &str = "slug";

/// Which room a game's resident one is, as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResidentPointer {
    /// The room.
    pub room: RoomId,
    key: Key,
    version: Version,
}

impl Vault {
    /// The resident room of a game; `None` when it never had one.
    ///
    /// # Errors
    /// [`VaultError::Corrupt`], [`VaultError::Unreadable`], [`VaultError::Unavailable`].
    pub async fn resident(&self, slug: &str) -> Result<Option<ResidentPointer>, VaultError> {
        let inner = &self.inner;
        for pseudonym in inner.sealer.pseudonyms(SLUG, slug) {
            let key = names::resident(&pseudonym);
            let max = Sealer::bytes_max(TEXT_BYTES_MAX as u64);
            let blob = match inner.store.get(&key, Want::Whole { max }).await {
                Ok(Some(blob)) => blob,
                Ok(None) => continue,
                Err(StoreError::TooLarge { .. }) => {
                    return Err(VaultError::corrupt("resident pointer"));
                }
                Err(error) => return Err(error.into()),
            };
            let (room, of) = inner.open_resident(blob.bytes)?;
            if of != slug {
                return Err(VaultError::corrupt("resident pointer of another game"));
            }
            return Ok(Some(ResidentPointer {
                room,
                key,
                version: blob.version,
            }));
        }
        Ok(None)
    }

    /// Says which room is a game's resident one from now on, in place of `old`. Of everybody who
    /// tries with the same `old` exactly one succeeds, if all have the same current key: give a new
    /// key to every process as an older one before any seals under it.
    ///
    /// # Errors
    /// [`VaultError::AlreadyResumed`] when somebody else was first, [`VaultError::Unavailable`],
    /// [`VaultError::Header`] for a slug over 4,096 bytes.
    pub async fn set_resident(
        &self,
        slug: &str,
        room: RoomId,
        old: Option<&ResidentPointer>,
    ) -> Result<(), VaultError> {
        let inner = &self.inner;
        if slug.len() > TEXT_BYTES_MAX {
            return Err(HeadError::Text(slug.len()).into());
        }
        let sealed = inner.seal_resident(room, slug)?;
        let pseudonyms = inner.sealer.pseudonyms(SLUG, slug);
        // There is one for each key, and there is a key.
        let current = names::resident(pseudonyms.first().map_or("", String::as_str));
        let (condition, outdated) = match old {
            Some(old) if old.key == current => (Condition::Matches(old.version.clone()), None),
            // Under a name of an older key, which must not be needed for ever.
            Some(old) => (Condition::Absent, Some(old.key.clone())),
            None => (Condition::Absent, None),
        };
        match inner.store.put(&current, sealed, condition).await {
            Ok(_) => {
                if let Some(outdated) = outdated {
                    inner.delete(&[outdated]).await?;
                }
                Ok(())
            }
            Err(
                error
                @ (StoreError::Precondition | StoreError::Conflict | StoreError::Ambiguous(_)),
            ) => match self.resident(slug).await? {
                Some(now) if now.room == room => Ok(()),
                // Nobody was first: it was not done.
                now if now.as_ref() == old && error.is_passing() => Err(error.into()),
                _ => Err(VaultError::AlreadyResumed),
            },
            Err(error) => Err(error.into()),
        }
    }
}

impl Inner {
    /// The room a pointer names, and the slug inside it, which must be the one asked about.
    pub(super) fn open_resident(&self, bytes: Bytes) -> Result<(RoomId, String), VaultError> {
        let verified = Unverified::parse(bytes)
            .and_then(|record| {
                // The room is what is asked for.
                let wanted = Wanted::any(Kind::Resident, record.claimed().room);
                record.verify(&self.sealer, &wanted)
            })
            .map_err(VaultError::opening)?;
        let body = verified
            .decode(TEXT_BYTES_MAX as u64)
            .map_err(VaultError::opening)?;
        let slug = String::from_utf8(body).map_err(|_| VaultError::corrupt("resident pointer"))?;
        Ok((verified.place().room, slug))
    }

    pub(super) fn seal_resident(&self, room: RoomId, slug: &str) -> Result<Bytes, VaultError> {
        let place = Place {
            kind: Kind::Resident,
            room,
            epoch: Epoch::NONE,
            fence: Fence::NONE,
            artifact: ArtifactDigest([0; 32]),
        };
        Ok(self.sealer.seal(&place, slug.as_bytes())?)
    }
}
