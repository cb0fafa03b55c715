//! A game outlives its machine: a fabric that carries frames, ways to bring players together, and a
//! sequencer that puts their turns into one order over Raft.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

pub mod config;
mod events;
pub mod fabric;
pub mod game;
mod hidden;
pub mod ids;
pub(crate) mod lobby;
pub mod log;
mod node;
pub mod raft;
pub mod session;
pub mod state;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod turns;
pub mod watch;

pub use lobby::AdmissionTiming;
