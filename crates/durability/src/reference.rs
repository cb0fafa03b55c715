//! Records of the reference host, shellcade's gameabi: read, never written.
//!
//! A [`ReferenceStore`] reads what that host left in a bucket: checkpoints under
//! `snapshots/<room>/<epoch>` with a `latest` pointer, and parked rooms under `snapshots/<room>`.
//! It is for a move to Cabinet, one room after the other: read a room here, write it through a
//! [`Lease`](crate::Lease), and from then on its head is the truth. [`Vault::reference_latest`] and
//! [`Vault::reference_parked`] keep that order.
//!
//! The reference's seal proves less than ours. It covers the bytes and nothing else: not the room,
//! not the epoch, not which kind of record it is, and its pointer carries no seal. Whoever can write
//! the bucket can put one sealed record in another's place. What the records say of themselves is
//! checked here; a checkpoint says nothing of its room.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ring::hmac;
use zeroize::Zeroizing;

use crate::codec::{Reader, TEXT_BYTES_MAX};
use crate::head::{Header, Member};
use crate::ids::{Epoch, RoomId};
use crate::names;
use crate::store::{BlobStore, Key, PAGE_KEYS_MAX, StoreError, Want};
use crate::vault::{Vault, VaultError};

/// Bytes of a seal: HMAC-SHA256 over all that comes before.
pub const SEAL_BYTES: usize = 32;
/// The first four bytes of a parked room's record, as a number; "1HCS" in the file.
pub const MAGIC: u32 = 0x5343_4831;
/// The one format of a parked room's record.
pub const FORMAT: u32 = 1;
/// Bytes of an object at most, where nobody says otherwise.
pub const OBJECT_BYTES_MAX: u64 = 256 << 20;
/// Bytes of a pointer at most: the longest there can be has 76.
const POINTER_BYTES_MAX: u64 = 128;

/// The key the reference host seals under, as it was given: nothing is derived from it.
pub struct ReferenceKey(Zeroizing<Vec<u8>>);

impl ReferenceKey {
    /// A key of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }
}

impl fmt::Debug for ReferenceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReferenceKey(..)")
    }
}

/// What is wrong with a record of the reference host. No byte of it was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// Changed, cut, extended, or sealed under another key.
    #[error("the seal does not hold")]
    Seal,
    /// It ends in the middle of its header.
    #[error("unexpected end of the header")]
    End,
    /// It is something else.
    #[error("bad magic")]
    Magic,
    /// Another format.
    #[error("format v{found}, want v{FORMAT}")]
    Format {
        /// The one it says.
        found: u32,
    },
    /// A slug, room, account or handle is longer than 4,096 bytes.
    #[error("a text of {0} bytes, more than the {TEXT_BYTES_MAX} taken")]
    Text(usize),
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Utf8,
    /// It says it is of another room: somebody moved it.
    #[error("it is of another room")]
    OtherRoom,
    /// The pointer is no key of a checkpoint of this room.
    #[error("malformed latest pointer")]
    Pointer,
    /// The pointer names a checkpoint that is not there.
    #[error("the latest pointer names an absent object")]
    Absent,
    /// More bytes than allowed.
    #[error("{bytes} bytes, more than the {max} allowed")]
    TooLarge {
        /// How many there are.
        bytes: u64,
        /// How many there may be.
        max: u64,
    },
}

/// A record of the reference host was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// There is none.
    #[error("the reference host left no such record")]
    NoCheckpoint,
    /// There is one, and it is not to be used: set this room aside.
    #[error("the reference host's record is corrupt")]
    Corrupt(#[from] Damage),
    /// The store did not do it.
    #[error("the store failed")]
    Unavailable(#[source] StoreError),
    /// The room has a head of ours, which is the truth about it.
    #[error("the room is Cabinet's already: the reference host's record of it is out of date")]
    Moved,
    /// Whether the room has a head of ours cannot be told.
    #[error("cannot tell whether the room is Cabinet's already")]
    Ours(#[source] VaultError),
}

impl ReferenceError {
    /// Whether the same call may succeed later with nothing changed.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unavailable(error) => error.is_passing(),
            Self::Ours(error) => error.is_passing(),
            _ => false,
        }
    }
}

/// The payload of a sealed record, once the seal holds.
///
/// # Errors
/// [`Damage::Seal`].
pub fn open_sealed(key: &ReferenceKey, bytes: &Bytes) -> Result<Bytes, Damage> {
    let length = bytes.len().checked_sub(SEAL_BYTES).ok_or(Damage::Seal)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key.0);
    // Compares in constant time.
    hmac::verify(&key, &bytes[..length], &bytes[length..]).map_err(|_| Damage::Seal)?;
    Ok(bytes.slice(..length))
}

/// A parked room as the reference host keeps it, without its seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedRecord {
    /// The room it says it is of.
    pub room: String,
    /// Game, time and players.
    pub header: Header,
    /// The room's state: an `SCK1` snapshot, not looked into.
    pub body: Bytes,
}

impl ParkedRecord {
    /// Reads a record whose seal was checked and taken off.
    ///
    /// # Errors
    /// [`Damage`].
    pub fn decode(bytes: &Bytes) -> Result<Self, Damage> {
        let mut fields = Reader(bytes);
        let number = |fields: &mut Reader<'_>| fields.u32().ok_or(Damage::End);
        if number(&mut fields)? != MAGIC {
            return Err(Damage::Magic);
        }
        let found = number(&mut fields)?;
        if found != FORMAT {
            return Err(Damage::Format { found });
        }
        let slug = text(&mut fields)?;
        let room = text(&mut fields)?;
        let at = fields.i64().ok_or(Damage::End)?;
        let count = count(&mut fields)?;
        // Grows as members are read: the count alone takes no memory.
        let mut roster = Vec::new();
        for _ in 0..count {
            roster.push(Member {
                account: text(&mut fields)?,
                handle: text(&mut fields)?,
            });
        }
        let body = bytes.slice(bytes.len() - fields.0.len()..);
        Ok(Self {
            room,
            header: Header { slug, at, roster },
            body,
        })
    }
}

fn count(fields: &mut Reader<'_>) -> Result<u16, Damage> {
    fields.array().map(u16::from_le_bytes).ok_or(Damage::End)
}

fn text(fields: &mut Reader<'_>) -> Result<String, Damage> {
    let length = usize::from(count(fields)?);
    if length > TEXT_BYTES_MAX {
        return Err(Damage::Text(length));
    }
    let text = fields.take(length).ok_or(Damage::End)?;
    let text = std::str::from_utf8(text).map_err(|_| Damage::Utf8)?;
    Ok(text.to_owned())
}

/// Reads a record that carries no seal. For an offline tool that imports a folder its operator
/// vouches for: nothing tells such a record from a forged one, so no [`ReferenceStore`] reads it.
///
/// # Errors
/// [`Damage`].
pub fn import_unsealed(bytes: &[u8]) -> Result<ParkedRecord, Damage> {
    ParkedRecord::decode(&Bytes::copy_from_slice(bytes))
}

/// The epoch a latest pointer of this room names. As the reference parses it: what follows the
/// room's prefix is a decimal i64, signed or not, of any width, and not negative.
///
/// # Errors
/// [`Damage::Pointer`].
pub fn latest_pointer(room: &str, text: &[u8]) -> Result<Epoch, Damage> {
    let number = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.strip_prefix("snapshots/"))
        .and_then(|text| text.strip_prefix(room))
        .and_then(|text| text.strip_prefix('/'))
        .and_then(|number| number.parse::<i64>().ok());
    number
        .and_then(|number| u64::try_from(number).ok())
        .map(Epoch)
        .ok_or(Damage::Pointer)
}

/// Parked rooms of the reference host, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReferenceRooms {
    /// The rooms, and what their records say of them.
    pub rooms: Vec<(RoomId, Header)>,
    /// Records that are not authentic, do not read, or are of another room than their name says.
    pub damaged: usize,
    /// Names that are no room's.
    pub foreign: u64,
}

/// A room of which the reference host left something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReferenceRoom {
    /// The room.
    pub room: RoomId,
    /// It is parked: that record counts, whatever checkpoints there are.
    pub parked: bool,
    /// There is a pointer to its newest checkpoint.
    pub checkpointed: bool,
}

/// Reads the reference host's bucket.
pub struct ReferenceStore {
    store: Arc<dyn BlobStore>,
    key: ReferenceKey,
    bytes_max: u64,
}

impl ReferenceStore {
    /// What the reference host left in `store`, sealed under `key`. Objects of up to
    /// [`OBJECT_BYTES_MAX`] are read.
    #[must_use]
    pub fn new(store: Arc<dyn BlobStore>, key: ReferenceKey) -> Self {
        Self {
            store,
            key,
            bytes_max: OBJECT_BYTES_MAX,
        }
    }

    /// Reads objects of up to so many bytes, their seal included.
    #[must_use]
    pub fn with_bytes_max(mut self, bytes_max: u64) -> Self {
        self.bytes_max = bytes_max;
        self
    }

    /// A room's newest checkpoint: its epoch, and an `SCK1` snapshot. Two requests.
    ///
    /// # Errors
    /// [`ReferenceError::NoCheckpoint`], [`ReferenceError::Corrupt`],
    /// [`ReferenceError::Unavailable`].
    pub async fn latest(&self, room: RoomId) -> Result<(Epoch, Bytes), ReferenceError> {
        let pointer = key(format!("snapshots/{room}/latest"));
        let text = self.get(&pointer, POINTER_BYTES_MAX).await;
        let text = match text {
            Err(ReferenceError::Corrupt(Damage::TooLarge { .. })) => {
                return Err(Damage::Pointer.into());
            }
            got => got?.ok_or(ReferenceError::NoCheckpoint)?,
        };
        let epoch = latest_pointer(&room.to_string(), &text)?;
        let named = key(format!("snapshots/{room}/{:020}", epoch.0));
        if named.as_str().as_bytes() != &text[..] {
            // Another spelling of the number is the name of an object nobody writes.
            return Err(Damage::Absent.into());
        }
        let sealed = self.get(&named, self.bytes_max).await?;
        let sealed = sealed.ok_or(Damage::Absent)?;
        Ok((epoch, open_sealed(&self.key, &sealed)?))
    }

    /// A parked room: what is shown of it, and an `SCK1` snapshot. One request.
    ///
    /// # Errors
    /// As for [`ReferenceStore::latest`].
    pub async fn parked(&self, room: RoomId) -> Result<(Header, Bytes), ReferenceError> {
        let key = key(format!("snapshots/{room}"));
        let sealed = self.get(&key, self.bytes_max).await?;
        let record = self.open_parked(room, &sealed.ok_or(ReferenceError::NoCheckpoint)?)?;
        Ok((record.header, record.body))
    }

    /// All parked rooms, newest first. Reads every record whole, because nothing less is proven.
    /// Those that are not to be used are counted.
    ///
    /// # Errors
    /// [`ReferenceError::Unavailable`].
    pub async fn list_parked(&self) -> Result<ReferenceRooms, ReferenceError> {
        const PREFIX: &str = "snapshots/";
        let mut out = ReferenceRooms::default();
        let mut after: Option<String> = None;
        loop {
            let page = self
                .store
                .list(PREFIX, after.as_deref(), PAGE_KEYS_MAX)
                .await
                .map_err(ReferenceError::Unavailable)?;
            out.foreign += page.foreign;
            for entry in page.entries {
                let name = &entry.key.as_str()[PREFIX.len()..];
                // With a further segment it is a checkpoint or a pointer.
                let (first, deeper) = name
                    .split_once('/')
                    .map_or((name, false), |(a, _)| (a, true));
                match first.parse::<RoomId>() {
                    Err(_) => out.foreign += 1,
                    Ok(_) if deeper => {}
                    Ok(room) => match self.parked(room).await {
                        Ok((header, _)) => out.rooms.push((room, header)),
                        // It was deleted after it was listed.
                        Err(ReferenceError::NoCheckpoint) => {}
                        Err(ReferenceError::Corrupt(_)) => out.damaged += 1,
                        Err(error) => return Err(error),
                    },
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        out.rooms
            .sort_by_key(|(room, header)| std::cmp::Reverse((header.at, *room)));
        Ok(out)
    }

    /// Every room that has a parked record or a pointer, by id. Names only: nothing is proven.
    ///
    /// # Errors
    /// [`ReferenceError::Unavailable`].
    pub async fn rooms(&self) -> Result<Vec<ReferenceRoom>, ReferenceError> {
        const PREFIX: &str = "snapshots/";
        let mut rooms: BTreeMap<RoomId, ReferenceRoom> = BTreeMap::new();
        let mut after: Option<String> = None;
        loop {
            let page = self
                .store
                .list(PREFIX, after.as_deref(), PAGE_KEYS_MAX)
                .await
                .map_err(ReferenceError::Unavailable)?;
            for entry in &page.entries {
                let name = &entry.key.as_str()[PREFIX.len()..];
                let (first, rest) = match name.split_once('/') {
                    Some((first, rest)) => (first, Some(rest)),
                    None => (name, None),
                };
                let Ok(room) = first.parse::<RoomId>() else {
                    continue;
                };
                let found = rooms.entry(room).or_insert(ReferenceRoom {
                    room,
                    parked: false,
                    checkpointed: false,
                });
                found.parked |= rest.is_none();
                found.checkpointed |= rest == Some("latest");
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let named = |found: &ReferenceRoom| found.parked || found.checkpointed;
        Ok(rooms.into_values().filter(named).collect())
    }

    fn open_parked(&self, room: RoomId, sealed: &Bytes) -> Result<ParkedRecord, Damage> {
        let record = ParkedRecord::decode(&open_sealed(&self.key, sealed)?)?;
        if record.room == room.to_string() {
            Ok(record)
        } else {
            Err(Damage::OtherRoom)
        }
    }

    async fn get(&self, key: &Key, max: u64) -> Result<Option<Bytes>, ReferenceError> {
        match self.store.get(key, Want::Whole { max }).await {
            Ok(blob) => Ok(blob.map(|blob| blob.bytes)),
            Err(StoreError::TooLarge { bytes, max }) => Err(Damage::TooLarge { bytes, max }.into()),
            Err(error) => Err(ReferenceError::Unavailable(error)),
        }
    }
}

/// The key of that name, which is put together from a room and digits.
fn key(name: String) -> Key {
    Key::known(name)
}

impl fmt::Debug for ReferenceStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReferenceStore")
            .field("key", &self.key)
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}

impl Vault {
    /// A room's newest checkpoint of the reference host, for a room that Cabinet does not have yet.
    ///
    /// # Errors
    /// [`ReferenceError::Moved`] when there is a head of ours, [`ReferenceError::Ours`] when it is
    /// damaged, lost or cannot be had, and as for [`ReferenceStore::latest`].
    pub async fn reference_latest(
        &self,
        reference: &ReferenceStore,
        room: RoomId,
    ) -> Result<(Epoch, Bytes), ReferenceError> {
        self.not_ours(room).await?;
        reference.latest(room).await
    }

    /// A parked room of the reference host that Cabinet does not have yet.
    ///
    /// # Errors
    /// As for [`Vault::reference_latest`].
    pub async fn reference_parked(
        &self,
        reference: &ReferenceStore,
        room: RoomId,
    ) -> Result<(Header, Bytes), ReferenceError> {
        self.not_ours(room).await?;
        reference.parked(room).await
    }

    /// Notes that a room of the reference host is Cabinet's for good, also when it is over here. Once
    /// there is a checkpoint of ours.
    ///
    /// # Errors
    /// [`VaultError::Unavailable`].
    pub async fn adopted(&self, room: RoomId, now_ms: u64) -> Result<(), VaultError> {
        self.inner
            .put_entries(&[names::adopted(room)], now_ms)
            .await
    }

    /// A head that was taken away does not make the reference's older record the truth again: what
    /// lies beside it counts too.
    async fn not_ours(&self, room: RoomId) -> Result<(), ReferenceError> {
        match self.inner.read_head_and_surroundings(room).await {
            Ok(None) => {
                let note = names::adopted(room);
                match self.inner.store.get(&note, Want::First(1)).await {
                    Ok(None) => Ok(()),
                    Ok(Some(_)) => Err(ReferenceError::Moved),
                    Err(error) => Err(ReferenceError::Ours(error.into())),
                }
            }
            Ok(Some(_)) => Err(ReferenceError::Moved),
            Err(error) => Err(ReferenceError::Ours(error)),
        }
    }
}

#[cfg(test)]
mod tests;
