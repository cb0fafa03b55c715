//! Where the room is, how it is taken, and what its checkpoints hold.

#[cfg(feature = "s3")]
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cabinet_durability::seal::{Keyring, MasterKey, Sealing};
use cabinet_durability::store::{BlobStore, DirStore};
use cabinet_durability::{
    Checkpoint, Epoch, Fence, Header, Lease, Member, OwnerId, RoomId, Standing, Vault, VaultError,
    VaultOptions,
};
use cabinet_wire::ArtifactDigest;

use super::line::{At, Did, Mark};

pub const ARTIFACT: ArtifactDigest = ArtifactDigest([7; 32]);
/// The account that was in the room.
pub const ACCOUNT: &str = "a1";
/// How often in a row a store may fail in passing. A claim does, while the room's owner is faster.
const FAILURES_MAX: u32 = 10_000;

/// Where the room is.
#[derive(Debug, Clone)]
pub enum Place {
    /// In this directory.
    Directory(PathBuf),
    /// In a bucket of the server there.
    #[cfg(feature = "s3")]
    Bucket(SocketAddr),
}

impl Place {
    /// As one word, for a child's environment.
    pub fn word(&self) -> String {
        match self {
            Self::Directory(root) => format!("directory:{}", root.display()),
            #[cfg(feature = "s3")]
            Self::Bucket(address) => format!("bucket:{address}"),
        }
    }

    pub fn read(word: &str) -> Self {
        match word.split_once(':').expect("a kind and where") {
            ("directory", root) => Self::Directory(root.into()),
            #[cfg(feature = "s3")]
            ("bucket", address) => Self::Bucket(address.parse().expect("an address")),
            (kind, _) => panic!("no such store: {kind}"),
        }
    }

    /// The directory, where it is one.
    pub fn directory(&self) -> Option<&PathBuf> {
        match self {
            Self::Directory(root) => Some(root),
            #[cfg(feature = "s3")]
            Self::Bucket(_) => None,
        }
    }

    pub fn store(&self) -> Arc<dyn BlobStore> {
        match self {
            Self::Directory(root) => Arc::new(DirStore::open(root).expect("it opens")),
            #[cfg(feature = "s3")]
            Self::Bucket(address) => {
                Arc::new(crate::common::store(crate::common::options(*address)))
            }
        }
    }

    /// A vault of a process of that name. All have the key.
    pub fn vault(&self, owner: &str) -> Vault {
        let bytes = std::array::from_fn(|index| index as u8);
        let key = MasterKey::new(1, bytes).expect("a key");
        let sealing = Sealing::Keys(Keyring::new(key));
        let options = VaultOptions::new(OwnerId::named(owner));
        Vault::open(self.store(), sealing, options).expect("it opens")
    }
}

/// Takes the room from wherever it is, and says how and what there was of it.
pub async fn take(vault: &Vault, room: RoomId) -> (Lease, Did, At) {
    for _ in 0..FAILURES_MAX {
        let error = match vault.claim(room, now_ms()).await {
            Ok((lease, checkpoint)) => {
                let at = found(checkpoint.as_ref(), lease.fence());
                return (lease, Did::Claimed, at);
            }
            Err(VaultError::NoCheckpoint) => match vault.create(room, now_ms()).await {
                Ok(lease) => {
                    let at = found(None, lease.fence());
                    return (lease, Did::Claimed, at);
                }
                // Somebody else created it meanwhile.
                Err(VaultError::Fenced { .. }) => continue,
                Err(error) => error,
            },
            Err(VaultError::Standing(Standing::Parked)) => match take_parked(vault, room).await {
                Ok((lease, at)) => return (lease, Did::Taken, at),
                // Whoever has it now is fenced by the next claim.
                Err(VaultError::AlreadyResumed) => continue,
                Err(error) => error,
            },
            Err(error) => error,
        };
        assert!(error.is_passing(), "the room cannot be taken: {error:?}");
    }
    panic!("the room cannot be taken, for ever");
}

/// Takes the room if it is parked.
pub async fn take_parked(vault: &Vault, room: RoomId) -> Result<(Lease, At), VaultError> {
    let parked = vault
        .open_parked(room, Some(ACCOUNT), Some(ARTIFACT))
        .await?;
    let lease = vault.take(&parked, now_ms()).await?;
    let at = found(Some(parked.checkpoint()), lease.fence());
    Ok((lease, at))
}

/// What a checkpoint is that was gone on from under a fence, all its bytes looked at.
fn found(checkpoint: Option<&Checkpoint>, fence: Fence) -> At {
    At {
        epoch: checkpoint.map_or(Epoch::NONE, |found| found.epoch).0,
        fence: fence.0,
        mark: checkpoint.map(|found| mark(&found.bytes)),
    }
}

/// What the checkpoint of a mark holds: the mark, and between nothing and 200 KiB that do not
/// compress.
pub fn state(mark: Mark) -> Vec<u8> {
    let mut bytes = format!("{mark}\n").into_bytes();
    let mut dice = Dice::new(mark.child << 32 | mark.n);
    let longest = 1 << dice.below(15);
    for _ in 0..dice.below(longest) {
        bytes.extend(dice.next().to_le_bytes());
    }
    bytes
}

/// The mark in a state, of which every byte must be right.
pub fn mark(bytes: &[u8]) -> Mark {
    let line = bytes.split(|byte| *byte == b'\n').next();
    let text = String::from_utf8_lossy(line.unwrap_or_default());
    let mark: Mark = text.parse().expect("a state begins with its mark");
    assert!(bytes == state(mark), "the state of {mark} is torn");
    mark
}

pub fn header() -> Header {
    Header {
        slug: "game".into(),
        at: 1,
        roster: vec![Member {
            account: ACCOUNT.into(),
            handle: "ada".into(),
        }],
    }
}

pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("it is past 1970").as_millis() as u64
}

/// Splitmix64.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `sides`.
    pub fn below(&mut self, sides: u64) -> u64 {
        self.next() % sides
    }
}
