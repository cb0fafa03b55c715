//! The bytes of a record.
//!
//! ```text
//! offset size
//!   0     4   "CABR"
//!   4     2   version, 1
//!   6     1   kind
//!   7     1   form: 0 sealed, 1 unsealed
//!   8     4   key id, 0 when unsealed
//!  12    16   room
//!  28     8   epoch
//!  36     8   fence
//!  44    32   artifact
//!  76     8   bytes of the body, decompressed
//!  84     8   bytes of the body, compressed
//!  92    32   salt
//! 124     …   body: one zstd frame, encrypted with AES-256-GCM (nonce zero: each key is used once)
//!   …    16   tag, over the body and bytes 0 to 124; unsealed: the beginning of their SHA-256
//! ```

use bytes::Bytes;
use cabinet_wire::ArtifactDigest;
use ring::{aead, digest};

use super::{OpenError, SealError, Sealer, Sealing, ZSTD_LEVEL};
use crate::ids::{Epoch, Fence, RoomId};
use crate::planted::{Bug, planted};

/// What every record begins with.
pub const MAGIC: [u8; 4] = *b"CABR";
/// The version of the layout.
pub const RECORD_VERSION: u16 = 1;
/// Bytes before the body.
pub const HEADER_BYTES: usize = 124;
/// Bytes after the body.
pub const TAG_BYTES: usize = 16;

const SEALED: u8 = 0;
const UNSEALED: u8 = 1;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Kind {
    /// A room's state at an epoch.
    Checkpoint = 1,
    /// A room's head: which checkpoint counts, and whose turn it is.
    Head = 2,
    /// A claim: from which checkpoint an owner went on.
    Claim = 3,
    /// Which room is the resident one of a game.
    Resident = 4,
}

impl Kind {
    fn named(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Checkpoint),
            2 => Some(Self::Head),
            3 => Some(Self::Claim),
            4 => Some(Self::Resident),
            _ => None,
        }
    }
}

/// Where a record belongs. All of it is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// What it is.
    pub kind: Kind,
    /// The room.
    pub room: RoomId,
    /// The epoch it is of.
    pub epoch: Epoch,
    /// The fence it was written under.
    pub fence: Fence,
    /// The artifact the room runs; zeros where none matters.
    pub artifact: ArtifactDigest,
}

/// What a reader requires of a record's place. Kind and room always; the rest where it is known.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The kind.
    pub kind: Kind,
    /// The room.
    pub room: RoomId,
    /// The epoch, where it is known.
    pub epoch: Option<Epoch>,
    /// The fence, where it is known.
    pub fence: Option<Fence>,
    /// The artifact, where it is known.
    pub artifact: Option<ArtifactDigest>,
}

impl Wanted {
    /// Any record of this kind and room.
    #[must_use]
    pub fn any(kind: Kind, room: RoomId) -> Self {
        Self {
            kind,
            room,
            epoch: None,
            fence: None,
            artifact: None,
        }
    }

    /// Just this place.
    #[must_use]
    pub fn exactly(place: &Place) -> Self {
        Self {
            kind: place.kind,
            room: place.room,
            epoch: Some(place.epoch),
            fence: Some(place.fence),
            artifact: Some(place.artifact),
        }
    }

    fn check(&self, place: &Place) -> Result<(), OpenError> {
        let differs = |wanted: bool, what| {
            if wanted {
                Ok(())
            } else {
                Err(OpenError::Misplaced(what))
            }
        };
        differs(self.kind == place.kind, "kind")?;
        differs(
            self.room == place.room || planted(Bug::SealWithoutRoom),
            "room",
        )?;
        differs(self.epoch.is_none_or(|one| one == place.epoch), "epoch")?;
        differs(self.fence.is_none_or(|one| one == place.fence), "fence")?;
        differs(
            self.artifact.is_none_or(|one| one == place.artifact),
            "artifact",
        )
    }
}

impl Sealer {
    /// Writes a record. Compresses and encrypts: CPU work for a thread that may be busy.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(&self, place: &Place, raw: &[u8]) -> Result<Bytes, SealError> {
        let salt: [u8; 32] = self.draw()?;
        let mut out = Vec::with_capacity(
            HEADER_BYTES + zstd::zstd_safe::compress_bound(raw.len()) + TAG_BYTES,
        );
        out.resize(HEADER_BYTES, 0);
        let mut compressor = match self.compressors.take() {
            Some(compressor) => compressor,
            None => zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(SealError::Compress)?,
        };
        let mut body = std::io::Cursor::new(out);
        body.set_position(HEADER_BYTES as u64);
        compressor
            .compress_to_buffer(raw, &mut body)
            .map_err(SealError::Compress)?;
        self.compressors.give(compressor);
        let mut out = body.into_inner();
        let (form, key) = match &self.sealing {
            Sealing::Keys(ring) => (SEALED, Some(ring.current())),
            Sealing::UnsealedForDevelopment => (UNSEALED, None),
        };
        let header = Header {
            form,
            key: key.map_or(0, super::MasterKey::id),
            place: *place,
            raw: raw.len() as u64,
            body: (out.len() - HEADER_BYTES) as u64,
            salt,
        };
        out[..HEADER_BYTES].copy_from_slice(&header.encode());
        let tag: [u8; TAG_BYTES] = match key {
            Some(key) => {
                let key =
                    Self::object_key(key, place.room, &salt).map_err(|_| SealError::Cipher)?;
                let (aad, body) = out.split_at_mut(HEADER_BYTES);
                let tag = key
                    .seal_in_place_separate_tag(nonce(), aead::Aad::from(&*aad), body)
                    .map_err(|_| SealError::Cipher)?;
                let mut bytes = [0; TAG_BYTES];
                bytes.copy_from_slice(tag.as_ref());
                bytes
            }
            None => checksum(&out),
        };
        out.extend_from_slice(&tag);
        Ok(out.into())
    }

    /// The most bytes a record of so many raw bytes has.
    #[must_use]
    pub fn bytes_max(raw_max: u64) -> u64 {
        // Past a quarter of all addresses nothing can be held, and the bound would overflow.
        let raw = usize::try_from(raw_max)
            .unwrap_or(usize::MAX)
            .min(usize::MAX / 4);
        (HEADER_BYTES + TAG_BYTES + zstd::zstd_safe::compress_bound(raw)) as u64
    }

    /// Verifies, bounds and decodes: [`Unverified::parse`], [`Unverified::verify`] and
    /// [`Verified::decode`] in one.
    ///
    /// # Errors
    /// [`OpenError`]; no byte was decoded unless the seal held.
    pub fn open(
        &self,
        bytes: Bytes,
        wanted: &Wanted,
        raw_max: u64,
    ) -> Result<(Place, Vec<u8>), OpenError> {
        let verified = Unverified::parse(bytes)?.verify(self, wanted)?;
        let place = *verified.place();
        Ok((place, verified.decode_with(self, raw_max)?))
    }
}

/// The only nonce: every key seals one record.
fn nonce() -> aead::Nonce {
    aead::Nonce::assume_unique_for_key([0; aead::NONCE_LEN])
}

fn checksum(bytes: &[u8]) -> [u8; TAG_BYTES] {
    let digest = digest::digest(&digest::SHA256, bytes);
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&digest.as_ref()[..TAG_BYTES]);
    tag
}

struct Header {
    form: u8,
    key: u32,
    place: Place,
    raw: u64,
    body: u64,
    salt: [u8; 32],
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&RECORD_VERSION.to_le_bytes());
        out[6] = self.place.kind as u8;
        out[7] = self.form;
        out[8..12].copy_from_slice(&self.key.to_le_bytes());
        out[12..28].copy_from_slice(self.place.room.as_bytes());
        out[28..36].copy_from_slice(&self.place.epoch.0.to_le_bytes());
        out[36..44].copy_from_slice(&self.place.fence.0.to_le_bytes());
        out[44..76].copy_from_slice(self.place.artifact.as_bytes());
        out[76..84].copy_from_slice(&self.raw.to_le_bytes());
        out[84..92].copy_from_slice(&self.body.to_le_bytes());
        out[92..].copy_from_slice(&self.salt);
        out
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, OpenError> {
        if bytes[..4] != MAGIC {
            return Err(OpenError::NotARecord);
        }
        let version = u16::from_le_bytes(array(bytes, 4));
        if version != RECORD_VERSION {
            return Err(OpenError::Version { found: version });
        }
        let kind = Kind::named(bytes[6]).ok_or(OpenError::NotARecord)?;
        if bytes[7] > UNSEALED {
            return Err(OpenError::NotARecord);
        }
        let room = RoomId::from_bytes(array(bytes, 12)).map_err(|_| OpenError::NotARecord)?;
        let u64_at = |at| u64::from_le_bytes(array(bytes, at));
        Ok(Self {
            form: bytes[7],
            key: u32::from_le_bytes(array(bytes, 8)),
            place: Place {
                kind,
                room,
                epoch: Epoch(u64_at(28)),
                fence: Fence(u64_at(36)),
                artifact: ArtifactDigest(array(bytes, 44)),
            },
            raw: u64_at(76),
            body: u64_at(84),
            salt: array(bytes, 92),
        })
    }
}

/// The `N` bytes at `at`, which lie within the header.
fn array<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// A record whose header was read and of which nothing is proven.
pub struct Unverified {
    header: Header,
    bytes: Bytes,
}

impl Unverified {
    /// Reads the header of a whole record.
    ///
    /// # Errors
    /// [`OpenError::NotARecord`], [`OpenError::Version`], and [`OpenError::Broken`] when the record
    /// is longer or shorter than it says.
    pub fn parse(bytes: Bytes) -> Result<Self, OpenError> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(match bytes.first_chunk::<4>() {
                Some(&MAGIC) => OpenError::Broken,
                _ => OpenError::NotARecord,
            });
        };
        let header = Header::decode(header)?;
        let rest = (bytes.len() - HEADER_BYTES) as u64;
        if header.body.checked_add(TAG_BYTES as u64) != Some(rest) {
            return Err(OpenError::Broken);
        }
        if planted(Bug::DecodeBeforeVerify) && header.raw > 1 << 30 {
            return Err(OpenError::TooLarge {
                bytes: header.raw,
                max: 1 << 30,
            });
        }
        Ok(Self { header, bytes })
    }

    /// Where it claims to belong. Proven only by [`Unverified::verify`].
    #[must_use]
    pub fn claimed(&self) -> &Place {
        &self.header.place
    }

    /// The id of the key it claims to be sealed under; 0 when it is not sealed.
    #[must_use]
    pub fn key_id(&self) -> u32 {
        self.header.key
    }

    /// Proves the seal and that the record is what and where it is wanted.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn verify(self, sealer: &Sealer, wanted: &Wanted) -> Result<Verified, OpenError> {
        let Self { header, bytes } = self;
        let body = match &sealer.sealing {
            Sealing::Keys(ring) => {
                if header.form != SEALED {
                    return Err(OpenError::NotSealed);
                }
                let master = ring
                    .find(header.key)
                    .ok_or(OpenError::UnknownKey(header.key))?;
                let key = Sealer::object_key(master, header.place.room, &header.salt)
                    .map_err(|_| OpenError::Broken)?;
                let mut body = bytes[HEADER_BYTES..].to_vec();
                let aad = aead::Aad::from(&bytes[..HEADER_BYTES]);
                let length = key
                    .open_in_place(nonce(), aad, &mut body)
                    .map_err(|_| OpenError::Broken)?
                    .len();
                body.truncate(length);
                Bytes::from(body)
            }
            Sealing::UnsealedForDevelopment => {
                if header.form != UNSEALED {
                    return Err(OpenError::NoKeys);
                }
                let (content, tag) = bytes.split_at(bytes.len() - TAG_BYTES);
                if checksum(content) != tag || header.key != 0 {
                    return Err(OpenError::Broken);
                }
                bytes.slice(HEADER_BYTES..bytes.len() - TAG_BYTES)
            }
        };
        wanted.check(&header.place)?;
        Ok(Verified { header, body })
    }
}

/// The key a record claims to be sealed under, from its first [`HEADER_BYTES`]: nothing of it is
/// proven. `None` when they are no record's.
pub(crate) fn claimed_key(first: &[u8]) -> Option<u32> {
    let header = Header::decode(first.first_chunk::<HEADER_BYTES>()?).ok()?;
    Some(header.key)
}

/// A record whose seal holds, where it belongs.
pub struct Verified {
    header: Header,
    /// Compressed still.
    body: Bytes,
}

impl Verified {
    /// Where it belongs.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.header.place
    }

    /// Bytes of the body once decompressed.
    #[must_use]
    pub fn raw_len(&self) -> u64 {
        self.header.raw
    }

    /// Decompresses the body, into as many bytes as the record says and no more than `raw_max`.
    ///
    /// # Errors
    /// [`OpenError::TooLarge`] before anything is allocated, [`OpenError::Damaged`].
    pub fn decode(&self, raw_max: u64) -> Result<Vec<u8>, OpenError> {
        let length = self.bounded(raw_max)?;
        let mut zstd = zstd::bulk::Decompressor::new().map_err(|_| NO_CONTEXT)?;
        self.inflate(&mut zstd, Vec::new(), length)
    }

    /// As [`Verified::decode`], with what the sealer keeps for it.
    fn decode_with(&self, sealer: &Sealer, raw_max: u64) -> Result<Vec<u8>, OpenError> {
        let length = self.bounded(raw_max)?;
        let mut zstd = match sealer.decompressors.take() {
            Some(zstd) => zstd,
            None => zstd::bulk::Decompressor::new().map_err(|_| NO_CONTEXT)?,
        };
        let memory = if length >= LENT_FROM {
            sealer.memory.take().unwrap_or_default()
        } else {
            Vec::new()
        };
        let out = self.inflate(&mut zstd, memory, length)?;
        sealer.decompressors.give(zstd);
        Ok(out)
    }

    fn bounded(&self, raw_max: u64) -> Result<usize, OpenError> {
        let raw = self.header.raw;
        let length = match usize::try_from(raw) {
            Ok(length) if raw <= raw_max => length,
            _ => {
                return Err(OpenError::TooLarge {
                    bytes: raw,
                    max: raw_max,
                });
            }
        };
        let declared = zstd::zstd_safe::get_frame_content_size(&self.body);
        if matches!(declared, Ok(Some(size)) if size == raw) {
            Ok(length)
        } else {
            Err(OpenError::Damaged("compressed frame"))
        }
    }

    fn inflate(
        &self,
        zstd: &mut zstd::bulk::Decompressor<'_>,
        mut out: Vec<u8>,
        length: usize,
    ) -> Result<Vec<u8>, OpenError> {
        out.clear();
        out.reserve_exact(length);
        let written = zstd
            .decompress_to_buffer(&self.body, &mut out)
            .map_err(|_| OpenError::Damaged("compressed content"))?;
        if written == length {
            Ok(out)
        } else {
            Err(OpenError::Damaged("length of the content"))
        }
    }
}

const NO_CONTEXT: OpenError = OpenError::Damaged("no memory to decompress it");
/// What is shorter does not get lent memory: heads and claims are a few hundred bytes.
const LENT_FROM: usize = 64 << 10;
