//! A process that keeps rooms of its own kind: bytes into a store, and back when it is somebody
//! else's turn.

use std::sync::Arc;

use cabinet_durability::seal::{Keyring, MasterKey, Sealing};
use cabinet_durability::store::{
    BlobStore, DirError, DirStore, MemoryStore, S3Credentials, S3Options, S3Store,
};
use cabinet_durability::{
    OwnerId, Retention, RoomId, SystemEntropy, Vault, VaultError, VaultOptions, Written,
};
use cabinet_wire::ArtifactDigest;

/// What does not go well.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A vault that is gone with the process.
///
/// # Errors
/// None that a memory store can have.
pub fn in_memory(owner: &str) -> Result<Vault, VaultError> {
    let options = VaultOptions::new(OwnerId::named(owner));
    Vault::open(
        Arc::new(MemoryStore::new()),
        Sealing::UnsealedForDevelopment,
        options,
    )
}

/// A vault in a store, under a key of 64 hex digits.
///
/// # Errors
/// When the key is none.
pub fn sealed(store: Arc<dyn BlobStore>, owner: &str, key: &str) -> Result<Vault, Error> {
    let sealing = Sealing::Keys(Keyring::new(MasterKey::from_hex(1, key)?));
    Ok(Vault::open(
        store,
        sealing,
        VaultOptions::new(OwnerId::named(owner)),
    )?)
}

/// A store in a directory.
///
/// # Errors
/// When it cannot be made.
pub fn directory(path: &str) -> Result<Arc<dyn BlobStore>, DirError> {
    Ok(Arc::new(DirStore::open(path)?))
}

/// A store in a bucket.
#[must_use]
pub fn bucket(name: &str, access: &str, secret: &str) -> Arc<dyn BlobStore> {
    let credentials = S3Credentials::new(access, secret);
    let options = S3Options::new(name, "eu-central-1", credentials);
    Arc::new(S3Store::new(options, Arc::new(SystemEntropy)))
}

/// Takes a room whose process died, keeps one more state of it, and says what was there before.
///
/// # Errors
/// When it is somebody else's, or the store fails.
pub async fn keep(
    vault: &Vault,
    room: RoomId,
    state: &[u8],
    now_ms: u64,
) -> Result<Option<Vec<u8>>, VaultError> {
    let (lease, before) = vault.claim(room, now_ms).await?;
    let artifact = ArtifactDigest([0; 32]);
    let packed = lease.pack(lease.next_epoch(), artifact, state, now_ms)?;
    if lease.write(&packed, now_ms).await? == Written::Newest {
        lease.prune(&Retention::default(), now_ms).await?;
    }
    Ok(before.map(|checkpoint| checkpoint.bytes))
}
