//! Parked rooms: what is shown of them, and taking one.

use std::collections::BTreeSet;
use std::fmt;

use cabinet_wire::ArtifactDigest;
use tokio::sync::Mutex;

use super::claim::standing;
use super::{Checkpoint, Inner, LOOKS_MAX, MISSING, Put, Vault, VaultError, check_artifact, rooms};
use crate::head::{Head, Header, Standing};
use crate::ids::{Epoch, RoomId};
use crate::names;
use crate::store::{Condition, Key, Version};
use crate::vault::lease::Lease;

/// A parked room that was read: verified, and nobody's yet.
pub struct ParkedRoom {
    head: Head,
    version: Version,
    checkpoint: Checkpoint,
    /// Held while it is taken.
    takes: Mutex<Takes>,
}

/// What became of attempts to take a room.
#[derive(Default)]
struct Takes {
    /// Nonces of heads that were put. An attempt whose answer was lost may land during a later one.
    nonces: Vec<[u8; 16]>,
    /// One succeeded.
    taken: bool,
}

impl ParkedRoom {
    /// The room.
    #[must_use]
    pub fn room(&self) -> RoomId {
        self.head.room
    }

    /// Who was in it, and when.
    #[must_use]
    pub fn header(&self) -> Option<&Header> {
        self.head.header.as_ref()
    }

    /// Its state.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The bytes of its state, taken out.
    #[must_use]
    pub fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.checkpoint.bytes)
    }
}

/// A parked room as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedEntry {
    /// The room.
    pub room: RoomId,
    /// The artifact it runs.
    pub artifact: ArtifactDigest,
    /// The epoch it was parked at.
    pub epoch: Epoch,
    /// Game, time and players.
    pub header: Header,
}

/// A list of parked rooms, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ParkedRooms {
    /// The rooms.
    pub rooms: Vec<ParkedEntry>,
    /// Rooms whose head could not be read or is not authentic, and that are therefore not shown.
    pub damaged: usize,
    /// Index entries of rooms that are not parked any more, or not theirs.
    pub stale: usize,
}

impl Vault {
    /// Reads a parked room for somebody who was in it (`account`), or for an operator (`None`). It
    /// stays parked: build the room, then [`Vault::take`] it. Two requests and a listing, which
    /// finds out a head that was put back alone.
    ///
    /// # Errors
    /// [`VaultError::NoCheckpoint`] when there is no such room, [`VaultError::NotAMember`],
    /// [`VaultError::AlreadyResumed`], [`VaultError::Expired`], [`VaultError::ArtifactMismatch`]
    /// when it is not of `artifact`, and as for [`Vault::latest`].
    pub async fn open_parked(
        &self,
        room: RoomId,
        account: Option<&str>,
        artifact: Option<ArtifactDigest>,
    ) -> Result<ParkedRoom, VaultError> {
        for _ in 0..LOOKS_MAX {
            let head = self.inner.read_head_and_surroundings(room).await?;
            let (head, version) = head.ok_or(VaultError::NoCheckpoint)?;
            let header = head.header.as_ref();
            // Before anything else is said of the room; a live one has no header to ask.
            if let (Some(account), Some(header)) = (account, header)
                && !header.has(account)
            {
                return Err(VaultError::NotAMember);
            }
            let object = match (head.standing, head.object) {
                (Standing::Parked, Some(object)) => object,
                (Standing::Live | Standing::Ended, _) => return Err(VaultError::AlreadyResumed),
                (other, _) => return Err(standing(other)),
            };
            check_artifact(&object, artifact)?;
            match self.inner.read_object(room, &object).await {
                Err(VaultError::Corrupt { what: MISSING, .. }) => {
                    match self.inner.read_head(room).await? {
                        // It was sealed under another key meanwhile, and has another name.
                        Some((now, _))
                            if same_parking(&now, &head) && now.object != head.object => {}
                        Some((now, _)) if now.fence == head.fence => {
                            return Err(VaultError::corrupt(MISSING));
                        }
                        // Somebody resumed the room since, went on, and deleted what is old.
                        Some((now, _)) if now.standing == Standing::Expired => {
                            return Err(VaultError::Expired);
                        }
                        _ => return Err(VaultError::AlreadyResumed),
                    }
                }
                checkpoint => {
                    return Ok(ParkedRoom {
                        head,
                        version,
                        checkpoint: checkpoint?,
                        takes: Mutex::default(),
                    });
                }
            }
        }
        Err(VaultError::busy())
    }

    /// Takes a parked room that was read. Of everybody who tries exactly one succeeds. After an
    /// error that passes, try again with the same [`ParkedRoom`]: it knows an attempt of its own
    /// that went through.
    ///
    /// # Errors
    /// [`VaultError::AlreadyResumed`]: drop what was built. [`VaultError::Expired`],
    /// [`VaultError::RolledBack`], [`VaultError::Unavailable`].
    pub async fn take(&self, parked: &ParkedRoom, now_ms: u64) -> Result<Lease, VaultError> {
        let inner = &self.inner;
        let room = parked.room();
        let mut takes = parked.takes.lock().await;
        if takes.taken {
            return Err(VaultError::AlreadyResumed);
        }
        // As it was when it was read; looked at again only if it is not that any more.
        let mut found = Some((parked.head.clone(), parked.version.clone()));
        for _ in 0..LOOKS_MAX {
            let seen = match found.take() {
                Some(seen) => Some(seen),
                None => inner.read_head_and_surroundings(room).await?,
            };
            let (seen, version) = seen.ok_or(VaultError::AlreadyResumed)?;
            let won = if takes.nonces.contains(&seen.nonce) {
                Some((seen, version))
            } else {
                match seen.standing {
                    Standing::Parked if same_parking(&seen, &parked.head) => {}
                    Standing::Parked | Standing::Live | Standing::Ended => {
                        return Err(VaultError::AlreadyResumed);
                    }
                    other => return Err(standing(other)),
                }
                let next = seen.claimed(inner.hand(now_ms)?);
                takes.nonces.push(next.nonce);
                // Before the head: a live room in no index would not be claimed when we die.
                inner
                    .put_entries(&[names::live(room, next.fence)], now_ms)
                    .await?;
                match inner.put_head(&next, Condition::Matches(version)).await? {
                    Put::Done(version) => Some((next, version)),
                    Put::Look => None,
                }
            };
            if let Some((head, version)) = won {
                let lease = self.mark(head, version, None).await?;
                takes.taken = true;
                let mut entries = inner.player_entries(&parked.head);
                entries.push(names::parked(room, parked.head.epoch()));
                if let Err(error) = inner.delete(&entries).await {
                    tracing::debug!(%room, %error, "index entries of a resumed room stay");
                }
                return Ok(lease);
            }
        }
        Err(VaultError::busy())
    }

    /// All parked rooms, newest first: for operators. One listing, and a small request for each.
    ///
    /// # Errors
    /// [`VaultError::Unavailable`] when they cannot be listed; a room that cannot be read is counted
    /// and left out.
    pub async fn parked(&self) -> Result<ParkedRooms, VaultError> {
        let rooms = rooms(self.inner.index(names::PARKED).await?);
        self.show(rooms, |_| true).await
    }

    /// The parked rooms an account was in, newest first. One listing for each key of the ring, and
    /// a small request for each room. An empty account has none.
    ///
    /// # Errors
    /// As for [`Vault::parked`].
    pub async fn parked_of(&self, account: &str) -> Result<ParkedRooms, VaultError> {
        if account.is_empty() {
            return Ok(ParkedRooms::default());
        }
        let mut entries = Vec::new();
        for pseudonym in self.inner.sealer.pseudonyms(ACCOUNT, account) {
            entries.extend(self.inner.index(&names::players_of(&pseudonym)).await?);
        }
        self.show(rooms(entries), |header| header.has(account))
            .await
    }

    async fn show(
        &self,
        rooms: Vec<RoomId>,
        shown: impl Fn(&Header) -> bool,
    ) -> Result<ParkedRooms, VaultError> {
        let mut out = ParkedRooms::default();
        for (room, head) in self.inner.heads(rooms).await {
            let head = match head {
                Ok(head) => head,
                Err(error) if error.is_outage() => {
                    return Err(error);
                }
                Err(_) => {
                    out.damaged += 1;
                    continue;
                }
            };
            let parked = head.filter(|head| head.standing == Standing::Parked);
            let entry = parked.and_then(|head| {
                let (epoch, object) = (head.epoch(), head.object?);
                let header = head.header.filter(|header| shown(header))?;
                Some(ParkedEntry {
                    room,
                    artifact: object.artifact,
                    epoch,
                    header,
                })
            });
            match entry {
                Some(entry) => out.rooms.push(entry),
                None => out.stale += 1,
            }
        }
        out.rooms
            .sort_by_key(|entry| std::cmp::Reverse((entry.header.at, entry.room)));
        Ok(out)
    }

    /// Deletes a parked room for good. One that is not there is deleted already.
    ///
    /// # Errors
    /// [`VaultError::Standing`] when it is live, and as for [`Vault::claim`].
    pub async fn discard(&self, room: RoomId, now_ms: u64) -> Result<(), VaultError> {
        let inner = &self.inner;
        for _ in 0..LOOKS_MAX {
            let Some((head, version)) = inner.read_head(room).await? else {
                return Ok(());
            };
            if head.standing == Standing::Live {
                return Err(VaultError::Standing(Standing::Live));
            }
            let next = head.closed(Standing::Ended, inner.hand(now_ms)?);
            match inner.put_head(&next, Condition::Matches(version)).await? {
                Put::Done(_) => {
                    inner.raise_floor(&next).await;
                    return inner.erase(&next).await;
                }
                Put::Look => {}
            }
        }
        Err(VaultError::busy())
    }
}

/// The domain of accounts' pseudonyms.
pub(super) const ACCOUNT: &str = "account";

impl Inner {
    /// The index entries of a room that is about to be parked.
    pub(super) fn parked_entries(&self, room: RoomId, epoch: Epoch, header: &Header) -> Vec<Key> {
        std::iter::once(names::parked(room, epoch))
            .chain(self.players_now(room, epoch, header))
            .collect()
    }

    /// The players' entries of a parking, under the current key.
    pub(super) fn players_now(&self, room: RoomId, epoch: Epoch, header: &Header) -> Vec<Key> {
        let name = |account| self.sealer.pseudonyms(ACCOUNT, account).into_iter().next();
        accounts(header)
            .into_iter()
            .filter_map(|account| Some(names::player(&name(account)?, room, epoch)))
            .collect()
    }

    /// The players' entries that a head's parking left, under whichever key it was.
    pub(super) fn player_entries(&self, head: &Head) -> Vec<Key> {
        let Some(header) = &head.header else {
            return Vec::new();
        };
        accounts(header)
            .into_iter()
            .flat_map(|account| self.sealer.pseudonyms(ACCOUNT, account))
            .map(|name| names::player(&name, head.room, head.epoch()))
            .collect()
    }
}

/// Whether two heads of a room are of one parking. What is sealed under another key has another
/// name and the same place.
fn same_parking(a: &Head, b: &Head) -> bool {
    let is_parked = a.standing == Standing::Parked && b.standing == Standing::Parked;
    is_parked && a.fence == b.fence && a.epoch() == b.epoch()
}

/// The accounts of a roster, each once. The empty one is nobody's.
fn accounts(header: &Header) -> BTreeSet<&str> {
    header
        .roster
        .iter()
        .map(|member| member.account.as_str())
        .filter(|account| !account.is_empty())
        .collect()
}

impl fmt::Debug for ParkedRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParkedRoom")
            .field("room", &self.head.room)
            .field("epoch", &self.head.epoch())
            .finish_non_exhaustive()
    }
}
