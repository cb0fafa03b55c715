//! A room that is ours to write: checkpoints, parking, the end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cabinet_wire::ArtifactDigest;
use tokio::sync::Mutex;

use super::{Inner, LOOKS_MAX, Put, VaultError, sha256};
use crate::head::{Hand, Head, Header, ObjectRef, Standing, Verdict, judge};
use crate::ids::{Epoch, Fence, RoomId};
use crate::names::{self, ObjectName, RoomObject};
use crate::planted::{Bug, planted};
use crate::retention::Retention;
use crate::seal::{Kind, Place};
use crate::store::{Condition, Key, StoreError, Version, Want};

/// A room this process may write, until somebody takes it. Dropping it leaves the room as it is:
/// live, for whoever claims it.
pub struct Lease {
    inner: Arc<Inner>,
    room: RoomId,
    fence: Fence,
    /// The epoch of the head last seen; never goes back.
    epoch: AtomicU64,
    /// When the last capture was packed, Unix milliseconds. Each is later than the one before it,
    /// whatever the clock says, so that of two attempts at an epoch the later one is known.
    packed_ms: AtomicU64,
    /// Held for a whole write: writes of a room come one after the other.
    seen: Mutex<Seen>,
}

struct Seen {
    head: Head,
    version: Version,
    /// When the newest capture was packed of which anything was sent.
    put_ms: u64,
    /// Nonces of heads that were put in place of `version` and whose answer was lost, in this call
    /// or one before it. None of them lands once the version has changed.
    attempts: Vec<[u8; 16]>,
    /// It was parked, ended or set aside: nothing is written any more.
    spent: bool,
}

/// How moving the head went.
#[derive(PartialEq, Eq)]
enum Advanced {
    Done,
    /// An attempt of an earlier call, which nobody knew of, had landed with that epoch or a later
    /// one.
    Overtaken,
}

/// A checkpoint that is compressed and sealed, and written nowhere yet.
#[derive(Debug, Clone)]
pub struct Packed {
    object: ObjectRef,
    bytes: Bytes,
    raw_len: u64,
}

impl Packed {
    /// Its epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.object.name.epoch
    }

    /// Bytes that will be stored.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.object.bytes
    }

    /// Bytes before compression.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        self.raw_len
    }
}

/// What became of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is the newest now.
    Newest,
    /// One of this epoch or a later, or packed later, had been written; nothing was changed. Where it matters that
    /// this very state is kept, capture again and write it under [`Lease::next_epoch`].
    Superseded,
}

impl Lease {
    pub(super) fn new(inner: Arc<Inner>, head: Head, version: Version) -> Self {
        Self {
            room: head.room,
            fence: head.fence,
            epoch: AtomicU64::new(head.epoch().0),
            packed_ms: AtomicU64::new(0),
            inner,
            seen: Mutex::new(Seen {
                head,
                version,
                put_ms: 0,
                attempts: Vec::new(),
                spent: false,
            }),
        }
    }

    /// The room.
    #[must_use]
    pub fn room(&self) -> RoomId {
        self.room
    }

    /// Under which fence it is ours.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// The newest epoch written.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// The epoch the next checkpoint is to have.
    #[must_use]
    pub fn next_epoch(&self) -> Epoch {
        if planted(Bug::EpochReused) {
            return Epoch(self.epoch().0.max(1));
        }
        self.epoch().next()
    }

    pub(super) async fn object(&self) -> Option<ObjectRef> {
        self.seen.lock().await.head.object
    }

    /// Compresses and seals a room's state. CPU work: not for a room's thread, nor for one that
    /// drives futures.
    ///
    /// # Errors
    /// [`VaultError::TooLarge`] past `checkpoint_bytes_max`, [`VaultError::Seal`].
    pub fn pack(
        &self,
        epoch: Epoch,
        artifact: ArtifactDigest,
        state: &[u8],
        now_ms: u64,
    ) -> Result<Packed, VaultError> {
        let raw_len = state.len() as u64;
        if raw_len > self.inner.raw_max {
            return Err(VaultError::TooLarge {
                bytes: raw_len,
                max: self.inner.raw_max,
            });
        }
        let place = Place {
            kind: Kind::Checkpoint,
            room: self.room,
            epoch,
            fence: self.fence,
            artifact,
        };
        let bytes = self.inner.sealer.seal(&place, state)?;
        let digest = sha256(&bytes);
        let later = |last: u64| now_ms.max(last.saturating_add(1));
        let at_ms = self
            .packed_ms
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| {
                Some(later(last))
            })
            .map_or(now_ms, later);
        Ok(Packed {
            object: ObjectRef {
                name: ObjectName::new(epoch, self.fence, at_ms, &digest),
                digest,
                bytes: bytes.len() as u64,
                artifact,
            },
            bytes,
            raw_len,
        })
    }

    /// Writes a checkpoint: the object, then the head. Two requests when nothing goes wrong.
    ///
    /// After an error the same checkpoint, or another of the same epoch, may be written again; it
    /// converges. A checkpoint of an epoch that has passed changes nothing.
    ///
    /// # Errors
    /// [`VaultError::Fenced`] when another process has the room; [`VaultError::RolledBack`] when
    /// somebody put an older head back; [`VaultError::EpochSkipped`] above
    /// [`Lease::next_epoch`]; [`VaultError::Unavailable`].
    pub async fn write(&self, packed: &Packed, now_ms: u64) -> Result<Written, VaultError> {
        let mut seen = self.lock().await?;
        if seen.head.object == Some(packed.object) && seen.head.standing == Standing::Live {
            return Ok(Written::Newest);
        }
        if self.has_passed(&seen, packed)? {
            return Ok(Written::Superseded);
        }
        seen.put_ms = packed.object.name.at_ms;
        self.inner
            .create_object(&packed.object.name.key(self.room), &packed.bytes)
            .await?;
        if planted(Bug::DeleteBeforeAdvance)
            && let Some(old) = seen.head.object
        {
            self.inner.delete(&[old.name.key(self.room)]).await?;
        }
        let advanced = self
            .advance(&mut seen, now_ms, |head, hand| {
                head.advanced(packed.object, hand)
            })
            .await?;
        Ok(match advanced {
            Advanced::Done => Written::Newest,
            Advanced::Overtaken => Written::Superseded,
        })
    }

    /// The room's turn to be written.
    async fn lock(&self) -> Result<tokio::sync::MutexGuard<'_, Seen>, VaultError> {
        let seen = self.seen.lock().await;
        if seen.spent {
            return Err(VaultError::Standing(seen.head.standing));
        }
        Ok(seen)
    }

    fn has_passed(&self, seen: &Seen, packed: &Packed) -> Result<bool, VaultError> {
        let newest = seen.head.epoch();
        if packed.epoch() > newest.next() {
            return Err(VaultError::EpochSkipped {
                next: newest.next(),
            });
        }
        if packed.object.name.at_ms < seen.put_ms {
            // Of this epoch something later may be in the store.
            return Ok(true);
        }
        if planted(Bug::EpochReused) {
            return Ok(packed.epoch() < newest);
        }
        Ok(packed.epoch() <= newest)
    }

    /// Writes the room's last state and parks it: whoever `header` lists finds it and may resume
    /// it. The lease is spent unless this fails.
    ///
    /// # Errors
    /// As for [`Lease::write`], and [`VaultError::Header`] when the header does not fit. The room is
    /// live still, or parked; never in between. After [`VaultError::Unavailable`] it may turn out to
    /// be parked; writing it again makes it live.
    pub async fn park(
        &self,
        packed: &Packed,
        header: Header,
        now_ms: u64,
    ) -> Result<(), VaultError> {
        header.check()?;
        let mut seen = self.lock().await?;
        if self.has_passed(&seen, packed)? {
            return Err(overtaken());
        }
        seen.put_ms = packed.object.name.at_ms;
        self.inner
            .create_object(&packed.object.name.key(self.room), &packed.bytes)
            .await?;
        // Before the head: a parked room that nobody finds would be lost, an entry for a room that
        // is not parked is not shown.
        let entries = self
            .inner
            .parked_entries(self.room, packed.epoch(), &header);
        self.inner.put_entries(&entries, now_ms).await?;
        let advanced = self
            .advance(&mut seen, now_ms, |head, hand| {
                head.parked(packed.object, header.clone(), hand)
            })
            .await?;
        if advanced == Advanced::Overtaken {
            return Err(overtaken());
        }
        seen.spent = true;
        drop(seen);
        let live = [names::live(self.room, self.fence)];
        if let Err(error) = self.inner.delete(&live).await {
            tracing::debug!(room = %self.room, %error, "index entry of a parked room stays");
        }
        Ok(())
    }

    /// The room is over: its head says so, then what the store has of it is deleted.
    ///
    /// # Errors
    /// As for [`Lease::write`]. When only deleting failed, a sweep finishes it.
    pub async fn end(&self, now_ms: u64) -> Result<(), VaultError> {
        let mut seen = self.seen.lock().await;
        if !(seen.spent && seen.head.standing == Standing::Ended) {
            self.close(&mut seen, Standing::Ended, now_ms).await?;
        }
        let head = seen.head.clone();
        drop(seen);
        self.inner.erase(&head).await
    }

    async fn close(
        &self,
        seen: &mut Seen,
        standing: Standing,
        now_ms: u64,
    ) -> Result<(), VaultError> {
        if seen.spent {
            return Err(VaultError::Standing(seen.head.standing));
        }
        self.advance(seen, now_ms, |head, hand| head.closed(standing, hand))
            .await?;
        seen.spent = true;
        Ok(())
    }

    /// Sets the room aside: nobody claims or resumes it any more, and what there is of it stays for
    /// whoever looks into it.
    ///
    /// # Errors
    /// As for [`Lease::write`].
    pub async fn set_aside(&self, reason: &str, now_ms: u64) -> Result<(), VaultError> {
        let mut seen = self.lock().await?;
        self.close(&mut seen, Standing::Aside, now_ms).await?;
        drop(seen);
        let live = [names::live(self.room, self.fence)];
        self.inner.note_aside(self.room, reason, &live).await
    }

    /// Deletes old checkpoints. One listing, and one request for up to a thousand of them. May fail
    /// or be stopped anywhere.
    ///
    /// # Errors
    /// [`VaultError::Unavailable`].
    pub async fn prune(&self, keep: &Retention, now_ms: u64) -> Result<usize, VaultError> {
        // Not under the lock: what is deleted is below any head there will be.
        let head = self.seen.lock().await.head.clone();
        let listed = self.inner.list_room(self.room).await?;
        let gone: Vec<Key> = keep
            .deletable(&head, &listed, now_ms)
            .into_iter()
            .map(|object| Inner::object_key(self.room, object))
            .collect();
        self.inner.delete(&gone).await?;
        Ok(gone.len())
    }

    /// Replaces the head by its successor, for as long as the room is ours.
    async fn advance(
        &self,
        seen: &mut Seen,
        now_ms: u64,
        successor: impl Fn(&Head, Hand) -> Head,
    ) -> Result<Advanced, VaultError> {
        for _ in 0..LOOKS_MAX {
            let next = successor(&seen.head, self.inner.hand(now_ms)?);
            // Before the put: whoever drops this future leaves it under way.
            seen.attempts.push(next.nonce);
            let condition = if planted(Bug::UnconditionalHead) {
                Condition::None
            } else {
                Condition::Matches(seen.version.clone())
            };
            match self.inner.put_head(&next, condition).await {
                Ok(Put::Done(version)) => {
                    self.adopt(seen, next, version).await;
                    return Ok(Advanced::Done);
                }
                Ok(Put::Look) => {}
                Err(error) => {
                    // Nothing was done.
                    seen.attempts.pop();
                    return Err(error);
                }
            }
            let Some((found, version)) = self.inner.read_head(self.room).await? else {
                return Err(self.without_a_head(seen).await?);
            };
            // An attempt of an earlier call counts when it came to the same.
            let same = found.object == next.object
                && found.standing == next.standing
                && found.header == next.header;
            if same && seen.attempts.contains(&found.nonce) {
                self.adopt(seen, found, version).await;
                return Ok(Advanced::Done);
            }
            match judge(self.inner.owner, self.fence, seen.head.epoch(), &found) {
                Verdict::Fenced { by } => return Err(VaultError::Fenced { by }),
                Verdict::RolledBack => return Err(VaultError::RolledBack),
                Verdict::Ours => {
                    // Perhaps an attempt of an earlier call landed late.
                    let moves = next.object != seen.head.object;
                    self.adopt(seen, found, version).await;
                    if moves && seen.head.epoch() >= next.epoch() {
                        return Ok(Advanced::Overtaken);
                    }
                }
            }
        }
        Err(VaultError::busy())
    }

    /// What it means that the head is gone. Whoever ends a room has claimed it, and takes away what
    /// lies beside the head first: what we have written since proves nothing, what was there before
    /// does.
    async fn without_a_head(&self, seen: &Seen) -> Result<VaultError, VaultError> {
        let listed = self.inner.list_room(self.room).await?;
        let newest = listed.iter().filter_map(|object| match object {
            RoomObject::Claim(fence) => Some(*fence),
            RoomObject::Checkpoint(_) => None,
        });
        if let Some(by) = newest.max().filter(|newest| *newest > self.fence) {
            return Ok(VaultError::Fenced { by });
        }
        let claim = RoomObject::Claim(self.fence);
        let newest = seen
            .head
            .object
            .map(|object| RoomObject::Checkpoint(object.name));
        let lost = listed.contains(&claim) || newest.is_some_and(|newest| listed.contains(&newest));
        Ok(if lost {
            VaultError::HeadLost
        } else {
            VaultError::Fenced { by: Fence::NONE }
        })
    }

    async fn adopt(&self, seen: &mut Seen, head: Head, version: Version) {
        self.epoch.fetch_max(head.epoch().0, Ordering::AcqRel);
        if seen.version != version {
            seen.attempts.clear();
        }
        seen.head = head;
        seen.version = version;
        self.inner.raise_floor(&seen.head).await;
    }
}

/// A state cannot be parked under an epoch that has passed.
fn overtaken() -> VaultError {
    StoreError::Unavailable(
        "an earlier attempt has that epoch: capture again and park under the next".into(),
    )
    .into()
}

impl Inner {
    /// Creates a checkpoint's object, once. One of the same name is our own earlier attempt if its
    /// bytes are.
    pub(super) async fn create_object(&self, key: &Key, bytes: &Bytes) -> Result<(), VaultError> {
        let mut last = None;
        for _ in 0..LOOKS_MAX {
            let put = self.store.put(key, bytes.clone(), Condition::Absent).await;
            match put {
                Ok(_) => return Ok(()),
                Err(StoreError::Precondition) => {
                    let max = bytes.len() as u64;
                    let there = match self.store.get(key, Want::Whole { max }).await {
                        Err(StoreError::TooLarge { .. }) => None,
                        got => got?,
                    };
                    if there.is_some_and(|blob| blob.bytes == *bytes) {
                        return Ok(());
                    }
                    return Err(StoreError::Unavailable(
                        "other bytes are under the checkpoint's name; the next attempt has another"
                            .into(),
                    )
                    .into());
                }
                Err(error @ (StoreError::Ambiguous(_) | StoreError::Conflict)) => {
                    last = Some(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.unwrap_or(StoreError::Conflict).into())
    }

    /// Deletes what the store has of a room that is over or expired; the head last but one, then the
    /// entries it is found by.
    pub(super) async fn erase(&self, head: &Head) -> Result<(), VaultError> {
        let room = head.room;
        let mut keys: Vec<Key> = self
            .list_room(room)
            .await?
            .into_iter()
            .map(|object: RoomObject| Self::object_key(room, object))
            .collect();
        keys.extend(self.player_entries(head));
        self.delete(&keys).await?;
        self.delete(&[names::head(room)]).await?;
        self.forget_floor(room).await;
        // A head that was closed has the fence after that of who had the room.
        let owners = Fence(head.fence.0.saturating_sub(1));
        self.delete(&[
            names::parked(room, head.epoch()),
            names::live(room, owners),
            names::live(room, head.fence),
            names::aside(room),
        ])
        .await
    }

    pub(super) async fn note_aside(
        &self,
        room: RoomId,
        reason: &str,
        live: &[Key],
    ) -> Result<(), VaultError> {
        let note = Bytes::copy_from_slice(reason.as_bytes());
        self.store
            .put(&names::aside(room), note, Condition::None)
            .await?;
        self.delete(live).await
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("room", &self.room)
            .field("fence", &self.fence)
            .field("epoch", &self.epoch())
            .finish_non_exhaustive()
    }
}
