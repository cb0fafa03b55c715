//! Taking a room: a new one, a dead process's, one whose head was lost.

use bytes::Bytes;
use cabinet_wire::ArtifactDigest;

use super::lease::Lease;
use super::{Checkpoint, Inner, LOOKS_MAX, MISSING, Put, Vault, VaultError, sha256};
use crate::head::{Claim, Head, ObjectRef, Standing};
use crate::ids::{Epoch, Fence, RoomId};
use crate::names::{self, ObjectName};
use crate::retention::{RebuildFrom, outdated, rebuild};
use crate::seal::{Kind, Place, Sealer, Unverified, Wanted};
use crate::store::{Blob, Condition, Key, StoreError, Version, Want};

/// How far a rebuilt head's fence is above any that was seen: claims that were under way when the
/// head was lost end below it.
const REBUILD_GAP: u64 = 1 << 20;
/// Bytes of a claim's record body at most.
pub(super) const CLAIM_BYTES_MAX: u64 = 1 << 10;

impl Vault {
    /// Takes a new room: one whose id was made just now. Two requests.
    ///
    /// Nothing tells a second call from somebody else's. When the first one failed, and the second
    /// finds the room fenced, the first had made it: [`Vault::claim`] it, or take another id.
    ///
    /// # Errors
    /// [`VaultError::Fenced`] when the store has a head of that room, [`VaultError::Unavailable`].
    pub async fn create(&self, room: RoomId, now_ms: u64) -> Result<Lease, VaultError> {
        let inner = &self.inner;
        let head = Head::first(room, inner.hand(now_ms)?);
        inner
            .put_entries(&[names::live(room, head.fence)], now_ms)
            .await?;
        for _ in 0..LOOKS_MAX {
            match inner.put_head(&head, Condition::Absent).await? {
                Put::Done(version) => return Ok(self.lease(head, version).await),
                Put::Look => match inner.read_head(room).await? {
                    Some((seen, version)) if seen.nonce == head.nonce => {
                        return Ok(self.lease(head, version).await);
                    }
                    Some((seen, _)) => return Err(VaultError::Fenced { by: seen.fence }),
                    None => {}
                },
            }
        }
        Err(VaultError::busy())
    }

    /// Takes a room from whatever process has it, which is fenced from then on, and reads its newest
    /// checkpoint; `None` when it never had one. Whether that process is dead is for the caller to
    /// know: a mistake costs it the room, and corrupts nothing.
    ///
    /// # Errors
    /// [`VaultError::NoCheckpoint`] when there is no such room; [`VaultError::HeadLost`];
    /// [`VaultError::Standing`] when it is not live; [`VaultError::RolledBack`];
    /// [`VaultError::Corrupt`] and [`VaultError::Unreadable`], after which the room is claimed all
    /// the same if only its checkpoint is; [`VaultError::Unavailable`].
    pub async fn claim(
        &self,
        room: RoomId,
        now_ms: u64,
    ) -> Result<(Lease, Option<Checkpoint>), VaultError> {
        let lease = self.claim_only(room, now_ms, &[Standing::Live]).await?;
        let Some(object) = lease.object().await else {
            return Ok((lease, None));
        };
        match self.inner.read_object(room, &object).await {
            Err(VaultError::Corrupt { what: MISSING, .. }) => {
                // Somebody may have claimed the room since, gone on, and deleted what is old.
                match self.inner.read_head(room).await? {
                    Some((head, _)) if head.fence == lease.fence() => {
                        Err(VaultError::corrupt(MISSING))
                    }
                    head => Err(VaultError::Fenced {
                        by: head.map_or(Fence::NONE, |(head, _)| head.fence),
                    }),
                }
            }
            read => Ok((lease, Some(read?))),
        }
    }

    /// Takes a room without reading its state.
    pub(crate) async fn claim_only(
        &self,
        room: RoomId,
        now_ms: u64,
        from: &[Standing],
    ) -> Result<Lease, VaultError> {
        let inner = &self.inner;
        // An attempt whose answer was lost may land during a later one.
        let mut nonces = Vec::new();
        let mut taken_from = None;
        for _ in 0..LOOKS_MAX {
            let seen = inner.read_head_and_surroundings(room).await?;
            let (seen, version) = seen.ok_or(VaultError::NoCheckpoint)?;
            if nonces.contains(&seen.nonce) {
                return self.mark(seen, version, taken_from).await;
            }
            if !from.contains(&seen.standing) {
                return Err(standing(seen.standing));
            }
            let next = seen.claimed(inner.hand(now_ms)?);
            nonces.push(next.nonce);
            taken_from = Some(seen.fence);
            inner
                .put_entries(&[names::live(room, next.fence)], now_ms)
                .await?;
            match inner.put_head(&next, Condition::Matches(version)).await? {
                Put::Done(version) => return self.mark(next, version, taken_from).await,
                Put::Look => {}
            }
        }
        Err(VaultError::busy())
    }

    /// Sets a room aside, from whatever it is: nobody claims or resumes it any more. What there is of
    /// it stays for whoever looks into it. Of a room whose head does not read only the index
    /// entry goes, and a note with the reason stays in its place.
    ///
    /// # Errors
    /// [`VaultError::Unavailable`].
    pub async fn set_aside(
        &self,
        room: RoomId,
        reason: &str,
        now_ms: u64,
    ) -> Result<(), VaultError> {
        let inner = &self.inner;
        for _ in 0..LOOKS_MAX {
            match inner.read_head(room).await {
                Ok(Some((head, version))) => {
                    let next = head.closed(Standing::Aside, inner.hand(now_ms)?);
                    match inner.put_head(&next, Condition::Matches(version)).await? {
                        Put::Done(_) => {
                            inner.raise_floor(&next).await;
                            let live = names::live(room, head.fence);
                            return inner.note_aside(room, reason, &[live]).await;
                        }
                        Put::Look => {}
                    }
                }
                Err(error) if error.is_outage() => {
                    return Err(error);
                }
                Ok(None) | Err(_) => {
                    // Under which fence it was is not known.
                    let live = inner.index(&names::live_of(room)).await?;
                    let live: Vec<_> = live.into_iter().map(|entry| entry.key).collect();
                    return inner.note_aside(room, reason, &live).await;
                }
            }
        }
        Err(VaultError::busy())
    }

    /// Leaves the claim beside the checkpoints; only then does the room change hands. `taken_from` is
    /// the fence of who had it live.
    pub(super) async fn mark(
        &self,
        head: Head,
        version: Version,
        taken_from: Option<Fence>,
    ) -> Result<Lease, VaultError> {
        let inner = &self.inner;
        let place = Place {
            kind: Kind::Claim,
            room: head.room,
            epoch: head.epoch(),
            fence: head.fence,
            artifact: ArtifactDigest([0; 32]),
        };
        let sealed = inner.sealer.seal(&place, &Claim::of(&head).encode())?;
        let key = names::claim(head.room, head.fence);
        inner.store.put(&key, sealed, Condition::None).await?;
        // What the older owner left in the index.
        if let Some(older) = taken_from
            && let Err(error) = inner.delete(&[names::live(head.room, older)]).await
        {
            tracing::debug!(room = %head.room, %error, "an older owner's index entry stays");
        }
        Ok(self.lease(head, version).await)
    }

    pub(super) async fn lease(&self, head: Head, version: Version) -> Lease {
        self.inner.raise_floor(&head).await;
        Lease::new(self.inner.clone(), head, version)
    }

    /// Makes a head anew that was lost, is damaged, or was put back to an older one, from the newest checkpoint of the newest
    /// owner, and takes the room. A room that was parked comes back live.
    ///
    /// It may be later than what the lost head named, by one checkpoint that its owner was still
    /// writing. It is never one of an owner that had been fenced.
    ///
    /// # Errors
    /// [`VaultError::HeadIntact`]; [`VaultError::NoCheckpoint`] when there is nothing to rebuild
    /// from; [`VaultError::Corrupt`] when what it would be rebuilt from is damaged: delete that
    /// object to rebuild from the one before; [`VaultError::RolledBack`] below its floor.
    pub async fn rebuild(&self, room: RoomId, now_ms: u64) -> Result<Lease, VaultError> {
        let inner = &self.inner;
        let condition = match inner.read_head(room).await {
            // One that somebody put back is as good as lost.
            Ok(Some((head, version))) if outdated(&head, &inner.list_room(room).await?) => {
                Condition::Matches(version)
            }
            Ok(Some(_)) => return Err(VaultError::HeadIntact),
            Ok(None) => Condition::Absent,
            // Damaged, below its floor, or gone where the floor remembers one.
            Err(VaultError::Corrupt { .. } | VaultError::RolledBack) => {
                let key = names::head(room);
                match inner.store.get(&key, Want::First(1)).await? {
                    Some(blob) => Condition::Matches(blob.version),
                    None => Condition::Absent,
                }
            }
            Err(error) => return Err(error),
        };
        let rebuilt = rebuild(&inner.list_room(room).await?);
        let object = match rebuilt.from {
            RebuildFrom::Nothing => return Err(VaultError::NoCheckpoint),
            RebuildFrom::Checkpoint(name) => Some(inner.identify(room, name).await?),
            RebuildFrom::ClaimOf(fence) => inner.read_claim(room, fence).await?.base,
        };
        let mut head = Head::first(room, inner.hand(now_ms)?);
        head.object = object;
        head.base = head.epoch();
        head.fence = rebuilt.fence.above(REBUILD_GAP);
        if !inner.floor(room).await?.admits(&head) {
            return Err(VaultError::RolledBack);
        }
        if let Some(object) = &object {
            // Never name what cannot be had.
            inner.read_object(room, object).await?;
        }
        inner
            .put_entries(&[names::live(room, head.fence)], now_ms)
            .await?;
        match inner.put_head(&head, condition).await? {
            Put::Done(version) => self.mark(head, version, None).await,
            Put::Look => match inner.read_head(room).await? {
                Some((seen, version)) if seen.nonce == head.nonce => {
                    self.mark(head, version, None).await
                }
                Some(_) => Err(VaultError::HeadIntact),
                // It was not done, and still is to be.
                None => Err(VaultError::busy()),
            },
        }
    }
}

/// What a room that cannot be claimed says.
pub(super) fn standing(standing: Standing) -> VaultError {
    match standing {
        Standing::Expired => VaultError::Expired,
        Standing::Aside => VaultError::corrupt("it was set aside"),
        standing => VaultError::Standing(standing),
    }
}

impl Inner {
    /// What a checkpoint is that only its name is known of.
    pub(super) async fn identify(
        &self,
        room: RoomId,
        name: ObjectName,
    ) -> Result<ObjectRef, VaultError> {
        let max = Sealer::bytes_max(self.raw_max);
        let blob = self.got(&name.key(room), max).await?;
        let digest = sha256(&blob.bytes);
        let bytes = blob.bytes.len() as u64;
        let mut wanted = Wanted::any(Kind::Checkpoint, room);
        wanted.epoch = Some(name.epoch);
        wanted.fence = Some(name.fence);
        let verified = Unverified::parse(blob.bytes)
            .and_then(|record| record.verify(&self.sealer, &wanted))
            .map_err(VaultError::opening)?;
        if name != ObjectName::new(name.epoch, name.fence, name.at_ms, &digest) {
            return Err(VaultError::corrupt("checkpoint under another's name"));
        }
        Ok(ObjectRef {
            name,
            digest,
            bytes,
            artifact: verified.place().artifact,
        })
    }

    /// An object that was listed just now.
    async fn got(&self, key: &Key, max: u64) -> Result<Blob, VaultError> {
        match self.store.get(key, Want::Whole { max }).await {
            Ok(Some(blob)) => Ok(blob),
            Ok(None) => Err(VaultError::busy()),
            Err(StoreError::TooLarge { .. }) => Err(VaultError::corrupt("record too large")),
            Err(error) => Err(error.into()),
        }
    }

    async fn read_claim(&self, room: RoomId, fence: Fence) -> Result<Claim, VaultError> {
        let key = names::claim(room, fence);
        let max = Sealer::bytes_max(CLAIM_BYTES_MAX);
        let blob = self.got(&key, max).await?;
        self.open_claim(room, fence, blob.bytes)
    }

    pub(super) fn open_claim(
        &self,
        room: RoomId,
        fence: Fence,
        bytes: Bytes,
    ) -> Result<Claim, VaultError> {
        let mut wanted = Wanted::any(Kind::Claim, room);
        wanted.fence = Some(fence);
        let (place, body) = self
            .sealer
            .open(bytes, &wanted, CLAIM_BYTES_MAX)
            .map_err(VaultError::opening)?;
        let claim = Claim::decode(&body).ok_or_else(|| VaultError::corrupt("claim"))?;
        let epoch = claim.base.map_or(Epoch::NONE, |object| object.name.epoch);
        if epoch != place.epoch {
            return Err(VaultError::corrupt("claim"));
        }
        Ok(claim)
    }
}
