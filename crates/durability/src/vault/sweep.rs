//! Tidying: parked rooms past their time, and what crashes left behind.
//!
//! Every step leaves the old truth or the new one, so a sweep may be stopped anywhere and run
//! beside others.

use std::collections::HashSet;
use std::time::Duration;

use super::{Inner, Put, Vault, VaultError};
use crate::head::{Head, Standing};
use crate::ids::RoomId;
use crate::names::{self, IndexEntry, RoomObject};
use crate::retention::Retention;
use crate::store::{Condition, DELETE_KEYS_MAX, Key, Want};

/// What a sweep takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepPolicy {
    /// Parked rooms older than this expire. Default 14 days.
    pub parked_for: Duration,
    /// How long an expired room's head still says so, after its state is gone. Default 30 days.
    pub expired_for: Duration,
    /// Index entries and checkpoints that lead nowhere are left alone while they are younger: a
    /// write of theirs may be under way. Default one hour.
    pub grace: Duration,
    /// Whether all players' entries and all rooms' checkpoints are looked through for such that lead
    /// nowhere. Reads every name in the store. Default no.
    pub deep: bool,
    /// Which old checkpoints of a parked room a deep sweep keeps beside the one its head names. A live
    /// room's are its owner's to prune ([`Lease::prune`](crate::Lease::prune)).
    pub keep: Retention,
}

impl Default for SweepPolicy {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            parked_for: 14 * DAY,
            expired_for: 30 * DAY,
            grace: Duration::from_secs(60 * 60),
            deep: false,
            keep: Retention::default(),
        }
    }
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Swept {
    /// Rooms that expired now.
    pub expired: usize,
    /// Rooms of which nothing is left now.
    pub erased: usize,
    /// Index entries that led nowhere.
    pub entries: usize,
    /// Checkpoints without a room.
    pub orphans: usize,
    /// Old checkpoints and claims of parked rooms.
    pub pruned: usize,
    /// Rooms whose head cannot be read; they are left alone.
    pub damaged: usize,
    /// Rooms that could not be swept now.
    pub failed: usize,
}

impl Vault {
    /// Sweeps the store. A listing for each index, and a small request for each room in them.
    ///
    /// # Errors
    /// [`VaultError::Unavailable`] when the store cannot be listed. What goes wrong with one room is
    /// counted.
    pub async fn sweep(&self, policy: &SweepPolicy, now_ms: u64) -> Result<Swept, VaultError> {
        let inner = &self.inner;
        let mut swept = Swept::default();
        let parked = inner.index(names::PARKED).await?;
        for (entry, head) in inner.heads_of(&parked).await {
            let done = inner.sweep_parked(entry, head, policy, now_ms, &mut swept);
            if let Err(error) = done.await {
                tracing::warn!(room = %entry.room, %error, "room not swept");
                swept.failed += 1;
            }
        }
        let live = inner.index(names::LIVE).await?;
        for (entry, head) in inner.heads_of(&live).await {
            let done = inner.sweep_live(entry, head, policy, now_ms, &mut swept);
            if let Err(error) = done.await {
                tracing::warn!(room = %entry.room, %error, "room not swept");
                swept.failed += 1;
            }
        }
        if policy.deep {
            let parked = parked.iter().map(|entry| (entry.room, entry.number));
            inner
                .sweep_players(&parked.collect(), policy, now_ms, &mut swept)
                .await?;
            inner.sweep_orphans(policy, now_ms, &mut swept).await?;
        }
        Ok(swept)
    }
}

/// Whether what happened at `at_ms` is longer ago than that.
fn is_past(at_ms: u64, age: Duration, now_ms: u64) -> bool {
    u128::from(now_ms.saturating_sub(at_ms)) > age.as_millis()
}

impl Inner {
    /// The heads of the rooms an index names, entry by entry.
    async fn heads_of<'a>(
        &self,
        entries: &'a [IndexEntry],
    ) -> Vec<(&'a IndexEntry, Result<Option<Head>, VaultError>)> {
        let rooms = entries.iter().map(|entry| entry.room).collect();
        let heads = self.heads(rooms).await;
        entries
            .iter()
            .zip(heads)
            .map(|(entry, (_, head))| (entry, head))
            .collect()
    }

    async fn sweep_parked(
        &self,
        entry: &IndexEntry,
        head: Result<Option<Head>, VaultError>,
        policy: &SweepPolicy,
        now_ms: u64,
        swept: &mut Swept,
    ) -> Result<(), VaultError> {
        let head = match head {
            Ok(head) => head,
            Err(error) if error.is_outage() => return Err(error),
            Err(_) => {
                swept.damaged += 1;
                return Ok(());
            }
        };
        match head {
            // One of an earlier parking leads nowhere.
            Some(head) if head.epoch().0 != entry.number => {
                self.drop_entry(&entry.key, entry.room, policy, now_ms, swept)
                    .await
            }
            Some(head) if head.standing == Standing::Parked => {
                if is_past(head.at_ms, policy.parked_for, now_ms) {
                    self.expire(entry, policy, now_ms, swept).await?;
                }
                Ok(())
            }
            Some(head) if head.standing == Standing::Expired => {
                // Again, in case the sweep that expired it was stopped.
                self.empty(&head).await?;
                if is_past(head.at_ms, policy.expired_for, now_ms) {
                    self.erase(&head).await?;
                    swept.erased += 1;
                }
                Ok(())
            }
            Some(head) if head.standing == Standing::Ended => {
                self.erase(&head).await?;
                swept.erased += 1;
                Ok(())
            }
            _ => {
                self.drop_entry(&entry.key, entry.room, policy, now_ms, swept)
                    .await
            }
        }
    }

    async fn sweep_live(
        &self,
        entry: &IndexEntry,
        head: Result<Option<Head>, VaultError>,
        policy: &SweepPolicy,
        now_ms: u64,
        swept: &mut Swept,
    ) -> Result<(), VaultError> {
        match head {
            Ok(Some(head)) if head.standing == Standing::Live && head.fence.0 == entry.number => {
                Ok(())
            }
            Ok(Some(head)) if head.standing == Standing::Ended => {
                self.erase(&head).await?;
                swept.erased += 1;
                Ok(())
            }
            // Lost, and not over: there is a state to rebuild it from.
            Ok(None) if !self.list_room(entry.room).await?.is_empty() => {
                swept.damaged += 1;
                Ok(())
            }
            Ok(_) => {
                self.drop_entry(&entry.key, entry.room, policy, now_ms, swept)
                    .await
            }
            Err(error) if error.is_outage() => Err(error),
            Err(_) => {
                swept.damaged += 1;
                Ok(())
            }
        }
    }

    /// The head says so first, then the state goes: whoever comes meanwhile is told "expired", and
    /// never finds half of a room.
    async fn expire(
        &self,
        entry: &IndexEntry,
        policy: &SweepPolicy,
        now_ms: u64,
        swept: &mut Swept,
    ) -> Result<(), VaultError> {
        let Some((head, version)) = self.read_head(entry.room).await? else {
            return Ok(());
        };
        // It may have been resumed, and parked again, since it was looked at.
        if head.standing != Standing::Parked
            || head.epoch().0 != entry.number
            || !is_past(head.at_ms, policy.parked_for, now_ms)
        {
            return Ok(());
        }
        let next = head.closed(Standing::Expired, self.hand(now_ms)?);
        match self.put_head(&next, Condition::Matches(version)).await? {
            Put::Done(_) => {
                self.raise_floor(&next).await;
                self.empty(&next).await?;
                swept.expired += 1;
                Ok(())
            }
            // Somebody has it, or another sweep.
            Put::Look => Ok(()),
        }
    }

    /// Deletes an expired room's state and its players' entries; its head and the entry it is found
    /// by stay.
    async fn empty(&self, head: &Head) -> Result<(), VaultError> {
        let room = head.room;
        let objects: Vec<Key> = self
            .list_room(room)
            .await?
            .into_iter()
            // The claims keep the fence, should the head be lost.
            .filter(|object| matches!(object, RoomObject::Checkpoint(_)))
            .map(|object| Self::object_key(room, object))
            .collect();
        if objects.is_empty() {
            return Ok(());
        }
        // The state last: while there is some the entries are deleted again.
        let mut keys = self.player_entries(head);
        keys.extend(objects);
        self.delete(&keys).await
    }

    /// Deletes an entry that leads nowhere, unless it is young.
    async fn drop_entry(
        &self,
        key: &Key,
        room: RoomId,
        policy: &SweepPolicy,
        now_ms: u64,
        swept: &mut Swept,
    ) -> Result<(), VaultError> {
        let Some(blob) = self.store.get(key, Want::First(8)).await? else {
            return Ok(());
        };
        // One that does not say when it was written is not ours, and old.
        let at_ms = blob
            .bytes
            .first_chunk()
            .map_or(0, |at| u64::from_le_bytes(*at));
        if is_past(at_ms, policy.grace, now_ms) {
            self.delete(std::slice::from_ref(key)).await?;
            swept.entries += 1;
            // Nothing keeps the room from being parked or taken between the look and the deletion.
            if let Some((head, _)) = self.read_head(room).await?
                && self.leads_to(key, &head)
            {
                self.put_entries(std::slice::from_ref(key), now_ms).await?;
            }
        }
        Ok(())
    }

    /// Whether a room with this head is to be found by that entry.
    fn leads_to(&self, key: &Key, head: &Head) -> bool {
        match (head.standing, &head.header) {
            (Standing::Live, _) => *key == names::live(head.room, head.fence),
            (Standing::Parked, Some(_)) => {
                *key == names::parked(head.room, head.epoch())
                    || self.player_entries(head).contains(key)
            }
            _ => false,
        }
    }

    async fn sweep_players(
        &self,
        parked: &HashSet<(RoomId, u64)>,
        policy: &SweepPolicy,
        now_ms: u64,
        swept: &mut Swept,
    ) -> Result<(), VaultError> {
        let mut after: Option<String> = None;
        loop {
            let page = self
                .store
                .list(names::PLAYERS, after.as_deref(), DELETE_KEYS_MAX)
                .await?;
            for entry in &page.entries {
                let Some(found) = IndexEntry::parse(&entry.key) else {
                    continue;
                };
                let room = found.room;
                if parked.contains(&(room, found.number)) {
                    continue;
                }
                // The head counts, not the other index.
                match self.read_head(room).await {
                    Ok(Some((head, _))) if self.leads_to(&entry.key, &head) => {
                        let parked = [names::parked(room, head.epoch())];
                        self.put_entries(&parked, now_ms).await?;
                    }
                    Ok(_) => {
                        self.drop_entry(&entry.key, room, policy, now_ms, swept)
                            .await?;
                    }
                    Err(error) if error.is_outage() => {
                        return Err(error);
                    }
                    Err(_) => swept.damaged += 1,
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Checkpoints of a parked room that its head does not name. What goes is below any head there
    /// will be, whoever takes the room meanwhile.
    async fn prune_parked(
        &self,
        room: RoomId,
        policy: &SweepPolicy,
        now_ms: u64,
        swept: &mut Swept,
    ) -> Result<(), VaultError> {
        // A head that does not read was counted where an index names it.
        let head = match self.read_head(room).await {
            Ok(Some((head, _))) if head.standing == Standing::Parked => head,
            Err(error) if error.is_outage() => return Err(error),
            _ => return Ok(()),
        };
        let listed = self.list_room(room).await?;
        let gone: Vec<Key> = policy
            .keep
            .deletable(&head, &listed, now_ms)
            .into_iter()
            .map(|object| Self::object_key(room, object))
            .collect();
        self.delete(&gone).await?;
        swept.pruned += gone.len();
        Ok(())
    }

    /// Checkpoints whose room has no head: written late by somebody who was fenced, after the room
    /// was over.
    async fn sweep_orphans(
        &self,
        policy: &SweepPolicy,
        now_ms: u64,
        swept: &mut Swept,
    ) -> Result<(), VaultError> {
        let mut after: Option<String> = None;
        loop {
            // One name of each room; the rest of its names are skipped.
            let page = self.store.list(names::ROOMS, after.as_deref(), 1).await?;
            let Some(entry) = page.entries.first() else {
                match page.next {
                    Some(next) => {
                        after = Some(next);
                        continue;
                    }
                    None => return Ok(()),
                }
            };
            let name = &entry.key.as_str()[names::ROOMS.len()..];
            let Some(room) = name.split('/').next().and_then(|room| room.parse().ok()) else {
                after = Some(entry.key.as_str().into());
                continue;
            };
            // `~` sorts after every character of a key.
            after = Some(format!("{}~", names::of_room(room)));
            let head = self.store.get(&names::head(room), Want::First(1)).await?;
            if head.is_some() {
                self.prune_parked(room, policy, now_ms, swept).await?;
                continue;
            }
            let listed = self.list_room(room).await?;
            let young = listed.iter().any(|object| match object {
                RoomObject::Checkpoint(name) => !is_past(name.at_ms, policy.grace, now_ms),
                RoomObject::Claim(_) => false,
            });
            // A head that was lost is rebuilt from these: they go only when the room is in no index
            // either.
            let indexed = !self.index(&names::live_of(room)).await?.is_empty()
                || !self.index(&names::parked_of(room)).await?.is_empty();
            if !young && !indexed {
                let keys: Vec<Key> = listed
                    .into_iter()
                    .map(|object| Self::object_key(room, object))
                    .collect();
                self.delete(&keys).await?;
                swept.orphans += keys.len();
            }
        }
    }
}
