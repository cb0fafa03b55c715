//! Rooms in a store: sealed checkpoints under a fenced head, parked rooms, and the indexes that find
//! them.
//!
//! A [`Vault`] is a blob store and the keys to it. What it holds of a room is one *head*, which is
//! the only truth, and the checkpoints it names. To write a room a process takes it and gets a
//! [`Lease`]: [`Vault::create`] for a new room, [`Vault::claim`] for one whose process died,
//! [`Vault::take`] for one that was parked, [`Vault::rebuild`] for one whose head was lost. Each
//! raises the room's fence; from then on every write of an older lease fails with
//! [`VaultError::Fenced`].
//!
//! A steady checkpoint is two requests: the object, created once, then the head, if it is still the
//! one we wrote.

mod audit;
mod claim;
mod error;
mod import;
mod lease;
mod parked;
mod reseal;
mod residents;
mod sweep;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use cabinet_wire::ArtifactDigest;
use futures_util::future;

pub use audit::{Audit, FINDINGS_MAX, Finding};
pub use error::VaultError;
pub use lease::{Lease, Packed, Written};
pub use parked::{ParkedEntry, ParkedRoom, ParkedRooms};
pub use reseal::Resealed;
pub use residents::ResidentPointer;
pub use sweep::{SweepPolicy, Swept};

use crate::entropy::{Entropy, SystemEntropy};
use crate::head::{HEAD_BYTES_MAX, Hand, Head, ObjectRef, Standing};
use crate::ids::{Epoch, Fence, OwnerId, RoomId};
use crate::names::{self, IndexEntry, RoomObject};
use crate::retention::{Floor, is_object, outdated};
use crate::seal::{Kind, Place, Sealer, Sealing, Wanted};
use crate::store::{
    BlobStore, Condition, Conditional, DELETE_KEYS_MAX, Key, StoreError, Version, Want, probe,
};

/// Requests of one call that may be under way at once.
const PARALLEL: usize = 16;
/// Pages of a room's listing that are read at most: a hundred thousand objects.
const ROOM_PAGES_MAX: usize = 100;
/// How often a lost race or reply is looked into before the store counts as unavailable.
pub(crate) const LOOKS_MAX: usize = 8;

/// Rooms in a store. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn BlobStore>,
    pub(crate) sealer: Sealer,
    pub(crate) owner: OwnerId,
    floors: Option<Arc<dyn Floors>>,
    pub(crate) raw_max: u64,
}

/// What a vault is opened with.
#[derive(Clone)]
#[non_exhaustive]
pub struct VaultOptions {
    /// This process. Its rooms are found under this name when it is dead.
    pub owner: OwnerId,
    /// The most bytes one checkpoint holds, before compression. Default 256 MiB.
    pub checkpoint_bytes_max: u64,
    /// Floors kept outside the store, against a store that is put back whole.
    pub floors: Option<Arc<dyn Floors>>,
    /// Salts and nonces. Leave it at the system's except in tests.
    pub entropy: Arc<dyn Entropy>,
}

impl VaultOptions {
    /// The defaults, for a process of this name.
    #[must_use]
    pub fn new(owner: OwnerId) -> Self {
        Self {
            owner,
            checkpoint_bytes_max: 256 << 20,
            floors: None,
            entropy: Arc::new(SystemEntropy),
        }
    }
}

/// Floors of rooms, kept where whoever can write the store cannot.
pub trait Floors: Send + Sync {
    /// The room's floor; `Floor::default()` where none is kept.
    fn floor(&self, room: RoomId) -> FloorAnswer<'_, Floor>;

    /// Keeps a floor, if it is higher than what is kept. An error is logged and no reason to stop.
    fn raise(&self, room: RoomId, floor: Floor) -> FloorAnswer<'_, ()>;

    /// Forgets a room that is over: its head is gone, and that is as it should be. An error is
    /// logged; until it is forgotten, asking for the room says "rolled back" and not "none".
    fn forget(&self, room: RoomId) -> FloorAnswer<'_, ()>;
}

/// What [`Floors`] returns.
pub type FloorAnswer<'a, T> =
    Pin<Box<dyn Future<Output = Result<T, crate::store::Cause>> + Send + 'a>>;

/// A checkpoint that was read: verified and decompressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The epoch.
    pub epoch: Epoch,
    /// The fence it was written under.
    pub fence: Fence,
    /// The artifact the room runs.
    pub artifact: ArtifactDigest,
    /// When it was taken, Unix milliseconds.
    pub at_ms: u64,
    /// What was given to [`Lease::pack`].
    pub bytes: Vec<u8>,
}

impl Vault {
    /// A vault in `store`, once the store has shown that it honours conditional writes: about eight
    /// small requests.
    ///
    /// # Errors
    /// [`VaultError::NeedsSingleWriter`] when it does not: wrap it in
    /// [`SingleWriter`](crate::store::SingleWriter) and run one process alone;
    /// [`VaultError::KeyRequired`] when nothing is to be sealed and the store is not one where that
    /// is allowed; [`VaultError::Unavailable`].
    pub async fn start(
        store: Arc<dyn BlobStore>,
        sealing: Sealing,
        options: VaultOptions,
    ) -> Result<Self, VaultError> {
        let vault = Self::open(store, sealing, options)?;
        let inner = &vault.inner;
        let random = inner.sealer.draw()?;
        match probe(&*inner.store, &names::probes(), random).await? {
            Conditional::Honoured => Ok(vault),
            Conditional::Ignored => Err(VaultError::NeedsSingleWriter),
        }
    }

    /// A vault in a store that is known to honour conditional writes: in memory, in a directory, or
    /// probed before. For any other use [`Vault::start`].
    ///
    /// # Errors
    /// [`VaultError::KeyRequired`] when nothing is to be sealed and the store is not one where that
    /// is allowed.
    pub fn open(
        store: Arc<dyn BlobStore>,
        sealing: Sealing,
        options: VaultOptions,
    ) -> Result<Self, VaultError> {
        let sealer = Sealer::new(sealing, options.entropy);
        if !sealer.is_keyed() && !store.allows_unsealed() {
            return Err(VaultError::KeyRequired);
        }
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                sealer,
                owner: options.owner,
                floors: options.floors,
                raw_max: options.checkpoint_bytes_max,
            }),
        })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn BlobStore> {
        &self.inner.store
    }

    /// Gives memory that was used before for the next checkpoint that is read.
    pub fn lend_memory(&self, memory: Vec<u8>) {
        self.inner.sealer.lend_memory(memory);
    }

    /// The name this process claims rooms under.
    #[must_use]
    pub fn owner(&self) -> OwnerId {
        self.inner.owner
    }

    /// A room's head; `None` when the store has none. One request.
    ///
    /// # Errors
    /// [`VaultError::Corrupt`], [`VaultError::Unreadable`], [`VaultError::RolledBack`] below its
    /// floor, [`VaultError::Unavailable`].
    pub async fn head(&self, room: RoomId) -> Result<Option<Head>, VaultError> {
        Ok(self.inner.read_head(room).await?.map(|(head, _)| head))
    }

    /// A room's newest checkpoint. Two requests. Whoever goes on from it must own the room:
    /// [`Vault::claim`] it instead.
    ///
    /// # Errors
    /// [`VaultError::NoCheckpoint`], [`VaultError::Corrupt`], [`VaultError::ArtifactMismatch`] when
    /// it is not of `artifact`, [`VaultError::Expired`] and [`VaultError::Standing`] when the room is
    /// over and its state goes, and as for [`Vault::head`].
    pub async fn latest(
        &self,
        room: RoomId,
        artifact: Option<ArtifactDigest>,
    ) -> Result<Checkpoint, VaultError> {
        let head = self.inner.read_head(room).await?;
        let Some((mut head, _)) = head else {
            return Err(VaultError::NoCheckpoint);
        };
        // The head may move, and what it named go, between two requests.
        for _ in 0..LOOKS_MAX {
            match head.standing {
                Standing::Expired => return Err(VaultError::Expired),
                Standing::Ended => return Err(VaultError::Standing(Standing::Ended)),
                Standing::Live | Standing::Parked | Standing::Aside => {}
            }
            let object = head.object.ok_or(VaultError::NoCheckpoint)?;
            check_artifact(&object, artifact)?;
            match self.inner.read_object(room, &object).await {
                Err(VaultError::Corrupt { what: MISSING, .. }) => {
                    let again = self.inner.read_head(room).await?;
                    match again {
                        Some((again, _))
                            if again.object != head.object || again.standing != head.standing =>
                        {
                            head = again;
                        }
                        None => return Err(VaultError::NoCheckpoint),
                        _ => return Err(VaultError::corrupt(MISSING)),
                    }
                }
                read => return read,
            }
        }
        Err(VaultError::corrupt(MISSING))
    }

    /// Every room that some process has, or had when it died: its head, or why that cannot be read.
    /// One listing, and one request for each.
    ///
    /// # Errors
    /// [`VaultError::Unavailable`] when it cannot be listed.
    pub async fn live_rooms(&self) -> Result<Vec<(RoomId, Result<Head, VaultError>)>, VaultError> {
        let rooms = rooms(self.inner.index(names::LIVE).await?);
        let mut live = Vec::new();
        for (room, head) in self.inner.heads(rooms).await {
            match head {
                Ok(Some(head)) if head.standing == Standing::Live => live.push((room, Ok(head))),
                // An index entry that outlived its room, or came before it.
                Ok(Some(_)) => {}
                Ok(None) => {
                    if !self.inner.list_room(room).await?.is_empty() {
                        live.push((room, Err(VaultError::HeadLost)));
                    }
                }
                Err(error) => live.push((room, Err(error))),
            }
        }
        Ok(live)
    }
}

/// The rooms of an index, each once.
pub(crate) fn rooms(entries: Vec<IndexEntry>) -> Vec<RoomId> {
    let mut rooms: Vec<RoomId> = entries.into_iter().map(|entry| entry.room).collect();
    rooms.sort_unstable();
    rooms.dedup();
    rooms
}

/// What [`VaultError::Corrupt`] says of an object that is not there.
pub(crate) const MISSING: &str = "the checkpoint its head names is missing";

pub(crate) fn check_artifact(
    object: &ObjectRef,
    wanted: Option<ArtifactDigest>,
) -> Result<(), VaultError> {
    match wanted {
        Some(wanted) if wanted != object.artifact => Err(VaultError::ArtifactMismatch {
            stored: object.artifact,
            wanted,
        }),
        _ => Ok(()),
    }
}

/// How a conditional put of a head went.
pub(crate) enum Put {
    Done(Version),
    /// It did not hold, or nobody knows: look.
    Look,
}

impl Inner {
    pub(crate) fn hand(&self, at_ms: u64) -> Result<Hand, VaultError> {
        Ok(Hand {
            owner: self.owner,
            nonce: self.sealer.draw()?,
            at_ms,
        })
    }

    pub(crate) async fn read_head(
        &self,
        room: RoomId,
    ) -> Result<Option<(Head, Version)>, VaultError> {
        let key = names::head(room);
        let want = Want::Whole {
            max: Sealer::bytes_max(HEAD_BYTES_MAX),
        };
        // Before the head: a floor that is raised while the head is on its way is of a later one.
        let floor = self.floor(room).await?;
        let blob = match self.store.get(&key, want).await {
            Ok(blob) => blob,
            Err(StoreError::TooLarge { .. }) => return Err(VaultError::corrupt("head too large")),
            Err(error) => return Err(error.into()),
        };
        let Some(blob) = blob else {
            if floor > Floor::default() {
                return Err(VaultError::RolledBack);
            }
            return Ok(None);
        };
        let wanted = Wanted::any(Kind::Head, room);
        let (place, body) = self
            .sealer
            .open(blob.bytes, &wanted, HEAD_BYTES_MAX)
            .map_err(VaultError::opening)?;
        let head = Head::decode(&place, &body).map_err(|_| VaultError::corrupt("head"))?;
        if !floor.admits(&head) {
            return Err(VaultError::RolledBack);
        }
        Ok(Some((head, blob.version)))
    }

    /// A head that is about to be succeeded, with what lies beside it: one that was put back alone
    /// is found out here.
    pub(crate) async fn read_head_and_surroundings(
        &self,
        room: RoomId,
    ) -> Result<Option<(Head, Version)>, VaultError> {
        // The head first: what is written meanwhile may look too new, and is looked at again.
        for _ in 0..LOOKS_MAX {
            let head = self.read_head(room).await?;
            let listed = self.list_room(room).await?;
            match head {
                None if listed.is_empty() => return Ok(None),
                None => {
                    if self.read_head(room).await?.is_none() {
                        return Err(VaultError::HeadLost);
                    }
                }
                Some((head, version)) if !outdated(&head, &listed) => {
                    return Ok(Some((head, version)));
                }
                Some((_, version)) => match self.read_head(room).await? {
                    Some((_, again)) if again == version => return Err(VaultError::RolledBack),
                    _ => {}
                },
            }
        }
        Err(VaultError::busy())
    }

    pub(crate) async fn put_head(
        &self,
        head: &Head,
        condition: Condition,
    ) -> Result<Put, VaultError> {
        let body = head.encode()?;
        let sealed = self.sealer.seal(&head.place(), &body)?;
        match self
            .store
            .put(&names::head(head.room), sealed, condition)
            .await
        {
            Ok(version) => Ok(Put::Done(version)),
            Err(StoreError::Precondition | StoreError::Conflict | StoreError::Ambiguous(_)) => {
                Ok(Put::Look)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn read_object(
        &self,
        room: RoomId,
        object: &ObjectRef,
    ) -> Result<Checkpoint, VaultError> {
        let key = object.name.key(room);
        let most = Sealer::bytes_max(self.raw_max);
        if object.bytes > most {
            return Err(VaultError::TooLarge {
                bytes: object.bytes,
                max: most,
            });
        }
        let blob = match self
            .store
            .get(&key, Want::Whole { max: object.bytes })
            .await
        {
            Ok(Some(blob)) => blob,
            Ok(None) => return Err(VaultError::corrupt(MISSING)),
            Err(StoreError::TooLarge { .. }) => {
                return Err(VaultError::corrupt("checkpoint longer than its head says"));
            }
            Err(error) => return Err(error.into()),
        };
        if !is_object(object, &sha256(&blob.bytes), blob.bytes.len()) {
            return Err(VaultError::corrupt(
                "checkpoint is not the one its head names",
            ));
        }
        let wanted = Wanted::exactly(&Place {
            kind: Kind::Checkpoint,
            room,
            epoch: object.name.epoch,
            fence: object.name.fence,
            artifact: object.artifact,
        });
        let (place, bytes) = self
            .sealer
            .open(blob.bytes, &wanted, self.raw_max)
            .map_err(VaultError::opening)?;
        Ok(Checkpoint {
            epoch: place.epoch,
            fence: place.fence,
            artifact: place.artifact,
            at_ms: object.name.at_ms,
            bytes,
        })
    }

    /// What lies under a room's prefix, other people's objects left out.
    pub(crate) async fn list_room(&self, room: RoomId) -> Result<Vec<RoomObject>, VaultError> {
        let prefix = names::of_room(room);
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..ROOM_PAGES_MAX {
            let page = self
                .store
                .list(&prefix, after.as_deref(), DELETE_KEYS_MAX)
                .await?;
            found.extend(
                page.entries
                    .iter()
                    .filter_map(|entry| RoomObject::parse(&entry.key.as_str()[prefix.len()..])),
            );
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(found),
            }
        }
        Err(VaultError::TooMany("objects of one room"))
    }

    pub(crate) fn object_key(room: RoomId, object: RoomObject) -> Key {
        match object {
            RoomObject::Checkpoint(name) => name.key(room),
            RoomObject::Claim(fence) => names::claim(room, fence),
        }
    }

    pub(crate) async fn delete(&self, keys: &[Key]) -> Result<(), VaultError> {
        for part in keys.chunks(DELETE_KEYS_MAX) {
            self.store.delete(part).await?;
        }
        Ok(())
    }

    /// The entries of an index.
    pub(crate) async fn index(&self, prefix: &str) -> Result<Vec<IndexEntry>, VaultError> {
        let mut entries = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self
                .store
                .list(prefix, after.as_deref(), DELETE_KEYS_MAX)
                .await?;
            entries.extend(
                page.entries
                    .iter()
                    .filter_map(|entry| IndexEntry::parse(&entry.key)),
            );
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(entries),
            }
        }
    }

    pub(crate) async fn heads(
        &self,
        rooms: Vec<RoomId>,
    ) -> Vec<(RoomId, Result<Option<Head>, VaultError>)> {
        let mut heads = Vec::with_capacity(rooms.len());
        for part in rooms.chunks(PARALLEL) {
            let mut reads = Vec::with_capacity(part.len());
            for room in part {
                reads.push(self.read_head(*room));
            }
            let read = future::join_all(reads).await;
            heads.extend(
                part.iter()
                    .zip(read)
                    .map(|(room, head)| (*room, head.map(|found| found.map(|(head, _)| head)))),
            );
        }
        heads
    }

    /// Index entries say when they were written, so that a sweep leaves alone what is under way.
    pub(crate) async fn put_entries(&self, keys: &[Key], at_ms: u64) -> Result<(), VaultError> {
        let at = Bytes::copy_from_slice(&at_ms.to_le_bytes());
        for part in keys.chunks(PARALLEL) {
            let mut puts = Vec::with_capacity(part.len());
            for key in part {
                puts.push(self.store.put(key, at.clone(), Condition::None));
            }
            future::try_join_all(puts).await?;
        }
        Ok(())
    }

    async fn floor(&self, room: RoomId) -> Result<Floor, VaultError> {
        match &self.floors {
            Some(floors) => floors.floor(room).await.map_err(VaultError::Floors),
            None => Ok(Floor::default()),
        }
    }

    pub(crate) async fn forget_floor(&self, room: RoomId) {
        if let Some(floors) = &self.floors
            && let Err(error) = floors.forget(room).await
        {
            tracing::warn!(%room, %error, "cannot forget the floor of a room that is over");
        }
    }

    pub(crate) async fn raise_floor(&self, head: &Head) {
        if let Some(floors) = &self.floors
            && let Err(error) = floors.raise(head.room, Floor::of(head)).await
        {
            tracing::warn!(room = %head.room, %error, "cannot raise the floor");
        }
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("owner", &self.inner.owner)
            .field("sealer", &self.inner.sealer)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for VaultOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultOptions")
            .field("owner", &self.owner)
            .field("checkpoint_bytes_max", &self.checkpoint_bytes_max)
            .finish_non_exhaustive()
    }
}
