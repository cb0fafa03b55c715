//! Looking through everything a store holds of rooms, writing nothing.
//!
//! Every record is opened with the keys and held to its name: a head to its room, a checkpoint to
//! its epoch, fence and digest, a claim to its fence, a resident pointer to the game inside it. Then
//! each head is held to what lies beside it. Index entries carry no seal and lead to nothing but
//! heads, so only their shape is looked at.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::claim::CLAIM_BYTES_MAX;
use super::{Checkpoint, Inner, MISSING, Vault, VaultError, sha256};
use crate::codec::TEXT_BYTES_MAX;
use crate::head::{Claim, HEAD_BYTES_MAX, Head};
use crate::ids::RoomId;
use crate::names::{self, IndexEntry, ObjectName, RoomObject};
use crate::retention::{lacks_its_checkpoint, outdated};
use crate::seal::{Kind, OpenError, Place, Sealer, Wanted};
use crate::store::{Key, PAGE_KEYS_MAX, StoreError, Want};

/// What is found wrong, at most; the rest is counted.
pub const FINDINGS_MAX: usize = 10_000;
/// Everything of ours lies under this.
const OURS: &str = "v1/";

/// What an audit came to.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Audit {
    /// Sealed records that were looked at.
    pub records: u64,
    /// Entries of indexes.
    pub entries: u64,
    /// Names that are nobody's of ours: not looked at.
    pub foreign: u64,
    /// What is wrong, in the order of the keys.
    pub findings: Vec<Finding>,
    /// How much more is, past [`FINDINGS_MAX`].
    pub more: u64,
}

impl Audit {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.more == 0
    }

    fn found(&mut self, key: impl Into<String>, error: VaultError) {
        if self.findings.len() == FINDINGS_MAX {
            self.more += 1;
        } else {
            let key = key.into();
            self.findings.push(Finding { key, error });
        }
    }
}

/// Something that is wrong in a store.
#[derive(Debug)]
#[non_exhaustive]
pub struct Finding {
    /// The object.
    pub key: String,
    /// What is the matter with it.
    pub error: VaultError,
}

/// What is known of a room after its objects were read.
#[derive(Default)]
struct Room {
    head: Option<Head>,
    /// There is a head, readable or not.
    has_head: bool,
    objects: Vec<RoomObject>,
}

impl Vault {
    /// Reads every object under the vault's prefix once. Takes a lease of nothing and writes
    /// nothing; a room that is written meanwhile may be reported as changed.
    ///
    /// # Errors
    /// [`VaultError::Unavailable`] when the store cannot be listed or read.
    pub async fn audit(&self) -> Result<Audit, VaultError> {
        let inner = &self.inner;
        let mut audit = Audit::default();
        let mut rooms: BTreeMap<RoomId, Room> = BTreeMap::new();
        let mut after: Option<String> = None;
        loop {
            let page = inner
                .store
                .list(OURS, after.as_deref(), PAGE_KEYS_MAX)
                .await?;
            audit.foreign += page.foreign;
            for entry in &page.entries {
                match inner.audit_object(&entry.key, &mut rooms, &mut audit).await {
                    Ok(()) => {}
                    Err(error) if error.is_outage() => return Err(error),
                    Err(error) => audit.found(entry.key.as_str(), error),
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        for (id, room) in rooms {
            let key = names::head(id);
            match &room.head {
                Some(head) => inner.audit_head(head, &room.objects, &mut audit),
                None if room.has_head => {}
                None => audit.found(key.as_str(), VaultError::HeadLost),
            }
        }
        audit.findings.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(audit)
    }

    /// Every room the store has a head of, or objects without one: its head, `None` where that is
    /// lost, or why it cannot be read. One listing, and one request for each.
    ///
    /// # Errors
    /// [`VaultError::Unavailable`] when the store cannot be listed.
    pub async fn all_rooms(
        &self,
    ) -> Result<Vec<(RoomId, Result<Option<Head>, VaultError>)>, VaultError> {
        let mut ids = Vec::new();
        for prefix in ["v1/heads/", names::ROOMS] {
            let mut after: Option<String> = None;
            loop {
                let page = self
                    .inner
                    .store
                    .list(prefix, after.as_deref(), PAGE_KEYS_MAX)
                    .await?;
                ids.extend(page.entries.iter().filter_map(|entry| {
                    let name = &entry.key.as_str()[prefix.len()..];
                    name.split('/').next()?.parse::<RoomId>().ok()
                }));
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(self.inner.heads(ids).await)
    }

    /// The checkpoints that lie under a room, oldest first: by fence, then by epoch, then by time.
    ///
    /// # Errors
    /// [`VaultError::Unavailable`], [`VaultError::TooMany`].
    pub async fn checkpoints(&self, room: RoomId) -> Result<Vec<ObjectName>, VaultError> {
        let mut names: Vec<ObjectName> = self
            .inner
            .list_room(room)
            .await?
            .into_iter()
            .filter_map(|object| match object {
                RoomObject::Checkpoint(name) => Some(name),
                RoomObject::Claim(_) => None,
            })
            .collect();
        names.sort_by_key(|name| (name.fence, name.epoch, name.at_ms));
        Ok(names)
    }

    /// One of a room's checkpoints, whether its head names it or not: to be looked into. Nobody goes
    /// on from it.
    ///
    /// # Errors
    /// [`VaultError::Corrupt`], [`VaultError::Unreadable`], [`VaultError::TooLarge`],
    /// [`VaultError::Unavailable`].
    pub async fn checkpoint(
        &self,
        room: RoomId,
        name: &ObjectName,
    ) -> Result<Checkpoint, VaultError> {
        let (place, bytes) = self.inner.open_checkpoint(room, name).await?;
        Ok(Checkpoint {
            epoch: place.epoch,
            fence: place.fence,
            artifact: place.artifact,
            at_ms: name.at_ms,
            bytes,
        })
    }
}

impl Inner {
    pub(super) async fn open_checkpoint(
        &self,
        room: RoomId,
        name: &ObjectName,
    ) -> Result<(Place, Vec<u8>), VaultError> {
        let key = name.key(room);
        let bytes = self.whole(&key, Sealer::bytes_max(self.raw_max)).await?;
        if sha256(&bytes)[..16] != name.digest {
            let what = "checkpoint is not the one its name says";
            return Err(VaultError::corrupt(what));
        }
        let wanted = Wanted {
            epoch: Some(name.epoch),
            fence: Some(name.fence),
            ..Wanted::any(Kind::Checkpoint, room)
        };
        let opened = self.sealer.open(bytes, &wanted, self.raw_max);
        opened.map_err(VaultError::opening)
    }

    async fn audit_object(
        &self,
        key: &Key,
        rooms: &mut BTreeMap<RoomId, Room>,
        audit: &mut Audit,
    ) -> Result<(), VaultError> {
        let name = key.as_str();
        if let Some(room) = name.strip_prefix("v1/heads/") {
            let Ok(room) = room.parse::<RoomId>() else {
                audit.foreign += 1;
                return Ok(());
            };
            audit.records += 1;
            rooms.entry(room).or_default().has_head = true;
            let bytes = self.whole(key, Sealer::bytes_max(HEAD_BYTES_MAX)).await?;
            let wanted = Wanted::any(Kind::Head, room);
            let opened = self.sealer.open(bytes, &wanted, HEAD_BYTES_MAX);
            let (place, body) = opened.map_err(VaultError::opening)?;
            let head = Head::decode(&place, &body).map_err(|_| VaultError::corrupt("head"))?;
            rooms.entry(room).or_default().head = Some(head);
            return Ok(());
        }
        if let Some((room, object)) = name.strip_prefix(names::ROOMS).and_then(|rest| {
            let (room, segment) = rest.split_once('/')?;
            Some((room.parse::<RoomId>().ok()?, RoomObject::parse(segment)?))
        }) {
            audit.records += 1;
            rooms.entry(room).or_default().objects.push(object);
            return self.audit_room_object(key, room, object).await;
        }
        if let Some(pseudonym) = name.strip_prefix(names::RESIDENTS) {
            audit.records += 1;
            return self.audit_resident(key, pseudonym).await;
        }
        let indexed = [names::LIVE, names::PARKED, names::PLAYERS];
        if indexed.iter().any(|prefix| name.starts_with(prefix)) && IndexEntry::parse(key).is_some()
        {
            audit.entries += 1;
            // It says when it was written, and nothing else.
            let bytes = self.whole(key, 8).await?;
            return match bytes.len() {
                8 => Ok(()),
                _ => Err(VaultError::corrupt("index entry without a time")),
            };
        }
        if name.starts_with("v1/aside/") || name.starts_with("v1/adopted/") {
            audit.entries += 1;
            return Ok(());
        }
        audit.foreign += 1;
        Ok(())
    }

    async fn audit_room_object(
        &self,
        key: &Key,
        room: RoomId,
        object: RoomObject,
    ) -> Result<(), VaultError> {
        match object {
            RoomObject::Checkpoint(name) => {
                let (_, body) = self.open_checkpoint(room, &name).await?;
                self.sealer.lend_memory(body);
            }
            RoomObject::Claim(fence) => {
                let bytes = self.whole(key, Sealer::bytes_max(CLAIM_BYTES_MAX)).await?;
                let wanted = Wanted {
                    fence: Some(fence),
                    ..Wanted::any(Kind::Claim, room)
                };
                let opened = self.sealer.open(bytes, &wanted, CLAIM_BYTES_MAX);
                let (_, body) = opened.map_err(VaultError::opening)?;
                Claim::decode(&body).ok_or(VaultError::corrupt("claim"))?;
            }
        }
        Ok(())
    }

    async fn audit_resident(&self, key: &Key, pseudonym: &str) -> Result<(), VaultError> {
        let max = TEXT_BYTES_MAX as u64;
        let bytes = self.whole(key, Sealer::bytes_max(max)).await?;
        let (_, slug) = self.open_resident(bytes)?;
        let names = self.sealer.pseudonyms(super::residents::SLUG, &slug);
        if names.iter().any(|name| name == pseudonym) {
            Ok(())
        } else {
            Err(VaultError::corrupt("resident pointer of another game"))
        }
    }

    /// A head beside what lies under its room.
    fn audit_head(&self, head: &Head, objects: &[RoomObject], audit: &mut Audit) {
        let key = names::head(head.room);
        if outdated(head, objects) {
            audit.found(key.as_str(), VaultError::RolledBack);
        }
        if lacks_its_checkpoint(head, objects) {
            audit.found(key.as_str(), VaultError::corrupt(MISSING));
        }
    }

    pub(super) async fn whole(&self, key: &Key, max: u64) -> Result<Bytes, VaultError> {
        match self.store.get(key, Want::Whole { max }).await {
            Ok(Some(blob)) => Ok(blob.bytes),
            // It went since it was listed.
            Ok(None) => Err(VaultError::corrupt("it is listed and not there")),
            Err(StoreError::TooLarge { .. }) => Err(VaultError::Corrupt {
                what: "record too long",
                source: Some(OpenError::Broken),
            }),
            Err(error) => Err(error.into()),
        }
    }
}
