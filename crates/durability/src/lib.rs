//! A room outlives its process.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

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
    Checkpoint, FloorAnswer, Floors, Lease, Packed, ParkedEntry, ParkedRoom, ParkedRooms,
    ResidentPointer, SweepPolicy, Swept, Vault, VaultError, VaultOptions, Written,
};
