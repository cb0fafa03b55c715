//! Sealing what is stored under the ring's current key: how an older key is retired.
//!
//! The name of a checkpoint holds the digest of its sealed bytes, so one that is sealed anew has
//! another name: its twin. Of a room that no process has, the twins are written first, then the head
//! names its own, then the claims theirs, and only then goes what was under older keys. Stopped
//! anywhere, everything a reader needs is there under one key or the other, and the next run goes
//! on: it finds the twins that are there already.
//!
//! A live room is its owner's, who seals it under the current key with its next checkpoints. Of it
//! only the claims are sealed anew, which nobody writes twice. Whoever takes a room meanwhile wins:
//! the head is only replaced if it is still the one that was read, and says the same as before.

use std::collections::HashMap;

use bytes::Bytes;

use super::claim::CLAIM_BYTES_MAX;
use super::{Finding, Inner, LOOKS_MAX, MISSING, Put, Vault, VaultError, sha256};
use crate::codec::TEXT_BYTES_MAX;
use crate::head::{Claim, Head, ObjectRef, Standing};
use crate::ids::{Epoch, Fence, RoomId};
use crate::names::{self, ObjectName, RoomObject};
use crate::planted::{Bug, planted};
use crate::retention::lacks_its_checkpoint;
use crate::seal::{HEADER_BYTES, Kind, Place, Sealer, claimed_key};
use crate::store::{Condition, DELETE_KEYS_MAX, Key, StoreError, Version, Want};
use cabinet_wire::ArtifactDigest;

/// What became of a room's records, or of the resident pointers.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Resealed {
    /// How the room is; `None` of resident pointers.
    pub standing: Option<Standing>,
    /// Records that are under the current key now, and were not before.
    pub records: u64,
    /// Records under older keys that were left: a live room's, which its owner replaces, or those
    /// of a room that is over, which a sweep deletes.
    pub waiting: u64,
    /// What could not be sealed anew, and was left as it is; also the head of a room nobody has whose
    /// checkpoint is missing.
    pub problems: Vec<Finding>,
}

impl Resealed {
    fn problem(&mut self, key: &Key, error: VaultError) -> Result<(), VaultError> {
        match error {
            VaultError::Corrupt { .. }
            | VaultError::Unreadable(_)
            | VaultError::TooLarge { .. }
            | VaultError::TooMany(_) => {
                let key = key.as_str().to_owned();
                self.problems.push(Finding { key, error });
                Ok(())
            }
            error => Err(error),
        }
    }
}

/// The twin of each checkpoint that is under an older key.
type Twins = HashMap<ObjectName, ObjectRef>;

impl Vault {
    /// Seals everything there is of a room under the ring's current key. A second run changes
    /// nothing; one that failed or was stopped is gone on with. Every process that may resume the
    /// room must have the current key in its ring before.
    ///
    /// A listing, a small request for each record, and three for each that is under an older key.
    ///
    /// # Errors
    /// [`VaultError::KeyRequired`] without keys; [`VaultError::NoCheckpoint`] when there is no such
    /// room; [`VaultError::HeadLost`], [`VaultError::RolledBack`], [`VaultError::Corrupt`] and
    /// [`VaultError::Unreadable`] of its head; [`VaultError::Unavailable`]. What is wrong with other
    /// records is among [`Resealed::problems`].
    pub async fn reseal(&self, room: RoomId, now_ms: u64) -> Result<Resealed, VaultError> {
        let inner = &self.inner;
        if !inner.sealer.is_keyed() {
            return Err(VaultError::KeyRequired);
        }
        for _ in 0..LOOKS_MAX {
            let seen = inner.read_head_and_surroundings(room).await?;
            let (head, version) = seen.ok_or(VaultError::NoCheckpoint)?;
            if head.standing == Standing::Live {
                return inner.reseal_live(&head).await;
            }
            if let Some(done) = inner.reseal_closed(&head, version, now_ms).await? {
                return Ok(done);
            }
        }
        Err(VaultError::busy())
    }

    /// Seals the pointers to resident rooms under the ring's current key, under the names they have
    /// there. Every process must seal under that key by then ([`Vault::set_resident`]).
    ///
    /// # Errors
    /// [`VaultError::KeyRequired`], [`VaultError::Unavailable`].
    pub async fn reseal_residents(&self) -> Result<Resealed, VaultError> {
        let inner = &self.inner;
        if !inner.sealer.is_keyed() {
            return Err(VaultError::KeyRequired);
        }
        let mut out = Resealed::default();
        let mut after: Option<String> = None;
        loop {
            let page = inner
                .store
                .list(names::RESIDENTS, after.as_deref(), DELETE_KEYS_MAX)
                .await?;
            for entry in &page.entries {
                match inner.reseal_resident(&entry.key).await {
                    Ok(done) => out.records += u64::from(done),
                    Err(error) => out.problem(&entry.key, error)?,
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(out),
            }
        }
    }
}

impl Inner {
    /// `None` when the head changed hands meanwhile: look again.
    async fn reseal_closed(
        &self,
        head: &Head,
        version: Version,
        now_ms: u64,
    ) -> Result<Option<Resealed>, VaultError> {
        let room = head.room;
        let mut out = Resealed {
            standing: Some(head.standing),
            ..Resealed::default()
        };
        let listed = self.list_room(room).await?;
        let is_over = matches!(head.standing, Standing::Expired | Standing::Ended);
        if lacks_its_checkpoint(head, &listed) {
            match self.read_head(room).await? {
                Some((_, again)) if again == version => {
                    out.problem(&names::head(room), VaultError::corrupt(MISSING))?;
                }
                // Whoever has the room now, or sealed it, has replaced that one.
                _ => return Ok(None),
            }
        }
        let mut twins = Twins::new();
        for name in checkpoints(&listed) {
            let key = name.key(room);
            match self.is_current(&key).await? {
                None | Some(true) => {}
                Some(false) if is_over => out.waiting += 1,
                Some(false) => match self.twin(head, &name, &listed).await {
                    Ok(twin) => {
                        twins.insert(name, twin);
                    }
                    // It may have been pruned since it was listed.
                    Err(error) if self.is_current(&key).await?.is_some() => {
                        out.problem(&key, error)?;
                    }
                    Err(error) if error.is_outage() => return Err(error),
                    Err(_) => {}
                },
            }
        }
        if planted(Bug::DropBeforeResealed) {
            let old: Vec<Key> = twins.keys().map(|name| name.key(room)).collect();
            self.delete(&old).await?;
        }
        let mut next = head.clone();
        if let Some(object) = &head.object {
            next.object = twins.get(&object.name).or(Some(object)).copied();
        }
        let moves =
            next.object != head.object || self.is_current(&names::head(room)).await? == Some(false);
        if moves {
            next.nonce = self.sealer.draw()?;
            if !self
                .replace_head(head, &next, version, now_ms, &twins)
                .await?
            {
                return Ok(None);
            }
            out.records += 1;
        }
        let problems = out.problems.len();
        self.reseal_claims(room, &listed, &twins, &mut out).await?;
        let old: Vec<Key> = twins.keys().map(|name| name.key(room)).collect();
        if out.problems.len() == problems {
            // Nothing names them any more.
            self.delete(&old).await?;
            out.records += old.len() as u64;
        } else {
            // A claim that does not read here may.
            out.waiting += old.len() as u64;
        }
        self.drop_older_names(head).await?;
        Ok(Some(out))
    }

    async fn reseal_live(&self, head: &Head) -> Result<Resealed, VaultError> {
        let room = head.room;
        let mut out = Resealed {
            standing: Some(Standing::Live),
            ..Resealed::default()
        };
        let listed = self.list_room(room).await?;
        let named = checkpoints(&listed).map(|name| name.key(room));
        for key in named.chain([names::head(room)]) {
            out.waiting += u64::from(self.is_current(&key).await? == Some(false));
        }
        self.reseal_claims(room, &listed, &Twins::new(), &mut out)
            .await?;
        Ok(out)
    }

    /// Whether a record says it is under the current key; `None` when there is none. What is no
    /// record says nothing, and is not.
    async fn is_current(&self, key: &Key) -> Result<Option<bool>, VaultError> {
        let first = Want::First(HEADER_BYTES as u64);
        let blob = self.store.get(key, first).await?;
        let current = self.sealer.current_key();
        Ok(blob.map(|blob| claimed_key(&blob.bytes) == Some(current)))
    }

    /// The checkpoint under the current key: one that an earlier run left, or a new one.
    async fn twin(
        &self,
        head: &Head,
        name: &ObjectName,
        listed: &[RoomObject],
    ) -> Result<ObjectRef, VaultError> {
        let room = head.room;
        let (place, bytes) = self.open_checkpoint(room, name).await?;
        let named = head.object.filter(|object| object.name == *name);
        if named.is_some_and(|object| object.artifact != place.artifact) {
            return Err(VaultError::corrupt(
                "checkpoint is not the one its head names",
            ));
        }
        let same = |other: &ObjectName| {
            let place = |name: &ObjectName| (name.fence, name.epoch, name.at_ms);
            other != name && place(other) == place(name)
        };
        let mut others: Vec<ObjectName> = checkpoints(listed).filter(same).collect();
        // Of two that were made at once the head's counts.
        others.sort_by_key(|other| head.object.map(|object| object.name) != Some(*other));
        for other in others {
            if self.is_current(&other.key(room)).await? != Some(true) {
                continue;
            }
            match self.open_checkpoint(room, &other).await {
                Ok((there, same)) if there == place && same == bytes => {
                    return self.identify(room, other).await;
                }
                Err(error) if error.is_outage() => return Err(error),
                _ => {}
            }
        }
        let sealed = self.sealer.seal(&place, &bytes)?;
        self.sealer.lend_memory(bytes);
        let digest = sha256(&sealed);
        let object = ObjectRef {
            name: ObjectName::new(place.epoch, place.fence, name.at_ms, &digest),
            digest,
            bytes: sealed.len() as u64,
            artifact: place.artifact,
        };
        self.create_object(&object.name.key(room), &sealed).await?;
        Ok(object)
    }

    /// Puts the head that names the twin; `false` when somebody else wrote it meanwhile.
    async fn replace_head(
        &self,
        head: &Head,
        next: &Head,
        version: Version,
        now_ms: u64,
        twins: &Twins,
    ) -> Result<bool, VaultError> {
        let (room, epoch) = (head.room, head.epoch());
        // Before the head: players find the room under the older key's names until then.
        let entries = match &head.header {
            Some(header) if head.standing == Standing::Parked => {
                self.players_now(room, epoch, header)
            }
            _ => Vec::new(),
        };
        self.put_entries(&entries, now_ms).await?;
        let put = self.put_head(next, Condition::Matches(version.clone()));
        if let Put::Done(_) = put.await? {
            return Ok(true);
        }
        let found = self.read_head(room).await?;
        match &found {
            Some((found, _)) if found.nonce == next.nonce => return Ok(true),
            // It was not done, or will be: that shows when it is looked at again.
            Some((_, now)) if *now == version => return Ok(false),
            Some((found, _)) if found.standing == Standing::Parked && found.epoch() == epoch => {
                return Ok(false);
            }
            _ => {}
        }
        // The room went on: nobody looks for that parking any more.
        self.delete(&entries).await?;
        let is_over = found
            .is_none_or(|(found, _)| matches!(found.standing, Standing::Expired | Standing::Ended));
        if is_over {
            // What whoever ended it has not seen. An owner's pruning takes them otherwise.
            let made: Vec<Key> = twins.values().map(|twin| twin.name.key(room)).collect();
            self.delete(&made).await?;
        }
        Ok(false)
    }

    /// Seals claims anew, and has them name the twins.
    async fn reseal_claims(
        &self,
        room: RoomId,
        listed: &[RoomObject],
        twins: &Twins,
        out: &mut Resealed,
    ) -> Result<(), VaultError> {
        for object in listed {
            let RoomObject::Claim(fence) = *object else {
                continue;
            };
            let key = names::claim(room, fence);
            match self.is_current(&key).await? {
                None => continue,
                Some(true) if twins.is_empty() => continue,
                _ => {}
            }
            match self.reseal_claim(room, fence, &key, twins).await {
                Ok(done) => out.records += u64::from(done),
                Err(error) => out.problem(&key, error)?,
            }
        }
        Ok(())
    }

    async fn reseal_claim(
        &self,
        room: RoomId,
        fence: Fence,
        key: &Key,
        twins: &Twins,
    ) -> Result<bool, VaultError> {
        let max = Sealer::bytes_max(CLAIM_BYTES_MAX);
        let mut tried = false;
        for _ in 0..LOOKS_MAX {
            let blob = match self.store.get(key, Want::Whole { max }).await {
                Ok(Some(blob)) => blob,
                // Pruned, or its room is over.
                Ok(None) => return Ok(false),
                Err(StoreError::TooLarge { .. }) => return Err(VaultError::corrupt("claim")),
                Err(error) => return Err(error.into()),
            };
            let is_current = claimed_key(&blob.bytes) == Some(self.sealer.current_key());
            let claim = self.open_claim(room, fence, blob.bytes)?;
            let twin = claim.base.and_then(|base| twins.get(&base.name));
            if is_current && twin.is_none() {
                return Ok(tried);
            }
            let base = twin.copied().or(claim.base);
            let place = Place {
                kind: Kind::Claim,
                room,
                epoch: base.map_or(Epoch::NONE, |base| base.name.epoch),
                fence,
                artifact: ArtifactDigest([0; 32]),
            };
            let claim = Claim { base, ..claim };
            let sealed = self.sealer.seal(&place, &claim.encode())?;
            let put = self
                .store
                .put(key, sealed, Condition::Matches(blob.version));
            match put.await {
                Ok(_) => return Ok(true),
                Err(StoreError::Precondition) => {}
                Err(StoreError::Conflict | StoreError::Ambiguous(_)) => tried = true,
                Err(error) => return Err(error.into()),
            }
        }
        Err(VaultError::busy())
    }

    /// Deletes the players' entries of a parking that are under older keys' names.
    async fn drop_older_names(&self, head: &Head) -> Result<(), VaultError> {
        let Some(header) = &head.header else {
            return Ok(());
        };
        let now = self.players_now(head.room, head.epoch(), header);
        let mut old = Vec::new();
        for key in self.player_entries(head) {
            if !now.contains(&key) && self.store.get(&key, Want::First(1)).await?.is_some() {
                old.push(key);
            }
        }
        self.delete(&old).await
    }

    /// Whether the pointer was under an older key.
    async fn reseal_resident(&self, key: &Key) -> Result<bool, VaultError> {
        let max = Sealer::bytes_max(TEXT_BYTES_MAX as u64);
        let open = |bytes: Bytes| -> Result<(RoomId, String, Vec<Key>), VaultError> {
            let (room, slug) = self.open_resident(bytes)?;
            let names = self.sealer.pseudonyms(super::residents::SLUG, &slug);
            let keys = names.iter().map(|name| names::resident(name)).collect();
            Ok((room, slug, keys))
        };
        let (room, slug, keys) = open(self.whole(key, max).await?)?;
        if !keys.contains(key) {
            return Err(VaultError::corrupt("resident pointer of another game"));
        }
        // There is one for each key, and there is a key.
        let Some(current) = keys.first().filter(|current| *current != key) else {
            return Ok(false);
        };
        let sealed = self.seal_resident(room, &slug)?;
        let mut done = false;
        for _ in 0..LOOKS_MAX {
            let put = self.store.put(current, sealed.clone(), Condition::Absent);
            match put.await {
                Ok(_) => done = true,
                Err(StoreError::Precondition) => {
                    // That one counts already; it must be one before the older goes.
                    let (_, of, _) = open(self.whole(current, max).await?)?;
                    if of != slug {
                        return Err(VaultError::corrupt("resident pointer of another game"));
                    }
                    done = true;
                }
                Err(StoreError::Conflict | StoreError::Ambiguous(_)) => {}
                Err(error) => return Err(error.into()),
            }
            if done {
                self.delete(std::slice::from_ref(key)).await?;
                return Ok(true);
            }
        }
        Err(VaultError::busy())
    }
}

fn checkpoints(listed: &[RoomObject]) -> impl Iterator<Item = ObjectName> + '_ {
    listed.iter().filter_map(|object| match object {
        RoomObject::Checkpoint(name) => Some(*name),
        RoomObject::Claim(_) => None,
    })
}
