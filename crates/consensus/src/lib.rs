//! A game outlives its machine: a fabric that carries frames, ways to bring players together, and a
//! sequencer that puts their turns into one order over Raft.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod fabric;
pub mod ids;
pub mod log;
pub mod watch;
