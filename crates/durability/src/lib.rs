//! A room outlives its process: sealed checkpoints under a fenced head, in any object store.
//!
//! What is kept of a room are opaque bytes; this crate never sees a guest. A [`Vault`] is a
//! [blob store](store) and the [keys](seal) to it. Whoever takes a room gets a [`Lease`] and writes
//! through it; whoever takes it next fences the one before.
//!
//! ```
//! use std::sync::Arc;
//!
//! use cabinet_durability::seal::{Keyring, MasterKey, Sealing};
//! use cabinet_durability::store::MemoryStore;
//! use cabinet_durability::{OwnerId, RoomIds, Vault, VaultError, VaultOptions};
//! use cabinet_wire::ArtifactDigest;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = MasterKey::from_hex(1, &"3f9a0c57".repeat(8))?;
//! let store = Arc::new(MemoryStore::new());
//! let sealing = Sealing::Keys(Keyring::new(key));
//! let vault = Vault::start(store, sealing, VaultOptions::new(OwnerId::named("node-1"))).await?;
//!
//! let (room, game, now_ms) = (RoomIds::default().next(1, [7; 8]), ArtifactDigest([1; 32]), 1);
//! let lease = vault.create(room, now_ms).await?;
//! let packed = lease.pack(lease.next_epoch(), game, b"the room's state", now_ms)?;
//! lease.write(&packed, now_ms).await?;
//!
//! // Another process thinks this one dead, and takes the room.
//! let (theirs, checkpoint) = vault.claim(room, now_ms).await?;
//! assert_eq!(checkpoint.map(|read| read.bytes).as_deref(), Some(&b"the room's state"[..]));
//! let late = lease.pack(lease.next_epoch(), game, b"too late", now_ms)?;
//! assert!(matches!(lease.write(&late, now_ms).await, Err(VaultError::Fenced { .. })));
//! assert!(theirs.fence() > lease.fence());
//! # Ok(())
//! # }
//! ```
//!
//! What is where
//! - [`store`]: the seam to object stores; memory, directory, S3 (feature `s3`), wrappers, and a
//!   suite for stores of your own;
//! - [`seal`]: records nobody can read, change or move without the key;
//! - [`Vault`], [`Lease`]: checkpoints, parking, claims, resumes, sweeps; [`Floors`] against a store
//!   that is put back whole;
//! - [`cadence`]: when a room is checkpointed;
//! - [`mod@reference`]: the records of the host that came before, to be read.
//!
//! What it is not: a lock service. Nothing here knows whether a process is dead; whoever claims a
//! room says so, and a mistake costs that process its room and corrupts nothing.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

pub mod cadence;
#[cfg(test)]
mod chaos;
mod codec;
mod entropy;
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod ids;
mod names;
mod planted;
pub mod reference;
mod retention;
pub mod seal;
pub mod store;
mod vault;

pub use entropy::{Entropy, NoRandomness, SeededEntropy, SystemEntropy};
pub use head::{HEAD_BYTES_MAX, Head, HeadError, Header, Member, ObjectRef, ROSTER_MAX, Standing};
pub use ids::{Epoch, Fence, NotARoomId, OwnerId, RoomId, RoomIds};
pub use names::{ObjectName, RoomObject};
pub use retention::{Floor, Retention};
pub use vault::{
    Audit, Checkpoint, FINDINGS_MAX, Finding, FloorAnswer, Floors, Lease, Packed, ParkedEntry,
    ParkedRoom, ParkedRooms, Resealed, ResidentPointer, SweepPolicy, Swept, Vault, VaultError,
    VaultOptions, Written,
};
