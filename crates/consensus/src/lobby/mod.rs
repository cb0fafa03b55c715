//! The lobby: how players find the game, who may host it, and who is let in.
//!
//! Invariants
//! - everything here decides and nothing here acts: events and the time go in, actions come out;
//!   there is no clock, socket, task or randomness (a nonce is drawn by the caller);
//! - a message is bound to the peer the fabric verified: nobody announces or claims for another;
//! - nobody is admitted unannounced, and whoever leads admits.
//!
//! [`wire`] holds the messages, [`claim`] the question of who hosts, [`knock`] whom a joiner
//! believes, [`proof`] what a member shows one that knows it no more, [`admission`] the reconciler
//! that turns seats and announcements into membership changes.

pub(crate) mod admission;
pub(crate) mod claim;
pub(crate) mod knock;
pub(crate) mod proof;
pub(crate) mod wire;

pub use admission::AdmissionTiming;
