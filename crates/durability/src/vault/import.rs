//! Rooms that come from elsewhere, parked here under the ids they had there.

use cabinet_wire::ArtifactDigest;

use super::{LOOKS_MAX, Vault, VaultError};
use crate::head::{Header, Standing};
use crate::ids::RoomId;
use crate::names;
use crate::store::Want;
use crate::vault::lease::Lease;

impl Vault {
    /// Parks a room that the store does not have, and notes that it is Cabinet's for good
    /// ([`Vault::adopted`]). An import that failed or was stopped is gone on with by the next one
    /// under the same owner's name; give imports a name no process has.
    ///
    /// # Errors
    /// [`VaultError::AlreadyThere`] when the store has the room or had it; [`VaultError::Header`] and
    /// [`VaultError::TooLarge`], with nothing written; [`VaultError::HeadLost`],
    /// [`VaultError::RolledBack`], [`VaultError::Corrupt`] and [`VaultError::Unreadable`] of what
    /// there is; [`VaultError::Unavailable`].
    pub async fn import(
        &self,
        room: RoomId,
        artifact: ArtifactDigest,
        state: &[u8],
        header: Header,
        now_ms: u64,
    ) -> Result<(), VaultError> {
        header.check()?;
        let (bytes, max) = (state.len() as u64, self.inner.raw_max);
        if bytes > max {
            return Err(VaultError::TooLarge { bytes, max });
        }
        let lease = self.lease_to_import(room, now_ms).await?;
        let packed = lease.pack(lease.next_epoch(), artifact, state, now_ms)?;
        lease.park(&packed, header, now_ms).await?;
        self.adopted(room, now_ms).await
    }

    async fn lease_to_import(&self, room: RoomId, now_ms: u64) -> Result<Lease, VaultError> {
        for _ in 0..LOOKS_MAX {
            let seen = self.inner.read_head_and_surroundings(room).await?;
            let Some((head, _)) = seen else {
                if self.is_adopted(room).await? {
                    return Err(VaultError::AlreadyThere);
                }
                match self.create(room, now_ms).await {
                    Err(VaultError::Fenced { .. }) => continue,
                    lease => return lease,
                }
            };
            let is_import = head.owner == self.owner();
            if is_import && head.standing == Standing::Live && head.object.is_none() {
                // One that was stopped before it had written anything.
                return self.claim_only(room, now_ms, &[Standing::Live]).await;
            }
            if is_import && !self.is_adopted(room).await? {
                // One that was stopped just before its end.
                self.adopted(room, now_ms).await?;
            }
            return Err(VaultError::AlreadyThere);
        }
        Err(VaultError::busy())
    }

    async fn is_adopted(&self, room: RoomId) -> Result<bool, VaultError> {
        let note = names::adopted(room);
        let note = self.inner.store.get(&note, Want::First(1)).await?;
        Ok(note.is_some())
    }
}
