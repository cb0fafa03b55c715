//! A bucket, processes that share it, and what is in it.

use std::sync::Arc;

use bytes::Bytes;
use cabinet_durability::seal::{Keyring, MasterKey, Sealing};
use cabinet_durability::store::{BlobStore, Condition, Key, Want};
use cabinet_durability::{
    Header, Lease, Member, OwnerId, Packed, ParkedRoom, RoomId, RoomIds, SeededEntropy, Vault,
    VaultError, VaultOptions, Written,
};
use cabinet_wire::ArtifactDigest;

use crate::faulty::Faulty;

pub const NOW: u64 = 1_700_000_000_000;
pub const GAME: ArtifactDigest = ArtifactDigest([5; 32]);

pub fn key(id: u32) -> MasterKey {
    let bytes = std::array::from_fn(|n| (n as u8).wrapping_mul(7) ^ id as u8);
    MasterKey::new(id, bytes).expect("it is random enough")
}

pub fn room(n: u32) -> RoomId {
    let mut random = [0; 8];
    random[..4].copy_from_slice(&n.to_be_bytes());
    RoomIds::default().next(NOW, random)
}

/// One bucket.
#[derive(Clone)]
pub struct Bucket(pub Arc<Faulty>);

impl Bucket {
    pub fn new() -> Self {
        Self(Arc::new(Faulty::new()))
    }

    /// A process of that name.
    pub fn process(&self, name: &str) -> Vault {
        self.process_with(name, Sealing::Keys(Keyring::new(key(1))), |_| {})
    }

    pub fn process_with(
        &self,
        name: &str,
        sealing: Sealing,
        set: impl FnOnce(&mut VaultOptions),
    ) -> Vault {
        let mut options = VaultOptions::new(OwnerId::named(name));
        // Different for each process, as the system's would be.
        let seed = name
            .bytes()
            .fold(7, |seed: u64, byte| seed * 31 + u64::from(byte));
        options.entropy = Arc::new(SeededEntropy::new(seed));
        set(&mut options);
        Vault::open(self.0.clone(), sealing, options).expect("it opens")
    }

    /// What is under a key, behind everybody's back.
    pub async fn get(&self, key: &str) -> Option<Bytes> {
        let key = Key::new(key).expect("a key");
        let got = self.0.inner.get(&key, Want::Whole { max: u64::MAX }).await;
        got.expect("a memory store answers").map(|blob| blob.bytes)
    }

    pub async fn put(&self, key: &str, bytes: impl Into<Bytes>) {
        let key = Key::new(key).expect("a key");
        let put = self.0.inner.put(&key, bytes.into(), Condition::None).await;
        put.expect("a memory store takes it");
    }

    pub async fn delete(&self, key: &str) {
        let key = [Key::new(key).expect("a key")];
        self.0
            .inner
            .delete(&key)
            .await
            .expect("a memory store deletes");
    }

    pub async fn keys(&self, prefix: &str) -> Vec<String> {
        let mut keys = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.0.inner.list(prefix, after.as_deref(), 1_000).await;
            let page = page.expect("a memory store lists");
            keys.extend(
                page.entries
                    .into_iter()
                    .map(|entry| entry.key.as_str().to_owned()),
            );
            match page.next {
                Some(next) => after = Some(next),
                None => return keys,
            }
        }
    }

    /// Everything there is.
    pub async fn all(&self) -> Vec<(String, Bytes)> {
        let mut all = Vec::new();
        for key in self.keys("").await {
            let bytes = self.get(&key).await.expect("it was listed");
            all.push((key, bytes));
        }
        all
    }

    /// Puts back what there was.
    pub async fn restore(&self, all: &[(String, Bytes)]) {
        for key in self.keys("").await {
            self.delete(&key).await;
        }
        for (key, bytes) in all {
            self.put(key, bytes.clone()).await;
        }
    }

    /// The keys of a room's checkpoints.
    pub async fn checkpoints(&self, room: RoomId) -> Vec<String> {
        self.keys(&format!("v1/rooms/{room}/e-")).await
    }
}

pub fn head_key(room: RoomId) -> String {
    format!("v1/heads/{room}")
}

pub fn header(slug: &str, at: i64, accounts: &[&str]) -> Header {
    Header {
        slug: slug.into(),
        at,
        roster: accounts
            .iter()
            .map(|account| Member {
                account: (*account).into(),
                handle: format!("h-{account}"),
            })
            .collect(),
    }
}

/// The lease's next checkpoint.
pub fn pack(lease: &Lease, state: &[u8]) -> Packed {
    lease
        .pack(lease.next_epoch(), GAME, state, NOW)
        .expect("it packs")
}

/// Writes a state as the lease's next checkpoint.
pub async fn write(lease: &Lease, state: &[u8]) {
    let written = lease.write(&pack(lease, state), NOW).await;
    assert_eq!(written.expect("it is written"), Written::Newest);
}

/// A new room with one checkpoint.
pub async fn live(vault: &Vault, room: RoomId, state: &[u8]) -> Lease {
    let lease = vault.create(room, NOW).await.expect("it is new");
    write(&lease, state).await;
    lease
}

/// A new room that is parked.
pub async fn park(vault: &Vault, room: RoomId, header: Header) {
    let lease = vault.create(room, NOW).await.expect("it is new");
    let packed = pack(&lease, b"parked");
    lease
        .park(&packed, header, NOW)
        .await
        .expect("it is parked");
}

pub async fn opened(vault: &Vault, room: RoomId) -> ParkedRoom {
    vault
        .open_parked(room, None, None)
        .await
        .expect("it is parked")
}

pub async fn state(vault: &Vault, room: RoomId) -> Vec<u8> {
    vault
        .latest(room, None)
        .await
        .expect("it has a checkpoint")
        .bytes
}

/// How a call failed, in short: the variant's name.
pub fn failure<T>(done: Result<T, VaultError>) -> &'static str {
    match done {
        Ok(_) => "nothing",
        Err(VaultError::NoCheckpoint) => "no checkpoint",
        Err(VaultError::Corrupt { .. }) => "corrupt",
        Err(VaultError::HeadLost) => "head lost",
        Err(VaultError::HeadIntact) => "head intact",
        Err(VaultError::Unreadable(_)) => "unreadable",
        Err(VaultError::ArtifactMismatch { .. }) => "artifact",
        Err(VaultError::Fenced { .. }) => "fenced",
        Err(VaultError::AlreadyResumed) => "already resumed",
        Err(VaultError::NotAMember) => "not a member",
        Err(VaultError::Expired) => "expired",
        Err(VaultError::Standing(_)) => "standing",
        Err(VaultError::RolledBack) => "rolled back",
        Err(VaultError::TooLarge { .. }) => "too large",
        Err(VaultError::Header(_)) => "header",
        Err(VaultError::EpochSkipped { .. }) => "epoch skipped",
        Err(VaultError::Unavailable(_)) => "unavailable",
        Err(VaultError::KeyRequired) => "key required",
        Err(_) => "another",
    }
}
