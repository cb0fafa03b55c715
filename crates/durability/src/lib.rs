//! A room outlives its process.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod entropy;
mod ids;
pub mod store;

pub use entropy::{Entropy, NoRandomness, SeededEntropy, SystemEntropy};
pub use ids::{Epoch, Fence, NotARoomId, OwnerId, RoomId, RoomIds};
