//! One Cabinet room, called by hand.
//!
//! A game is one `.wasm` file that speaks guest ABI 2 ([`cabinet_wire`]). This crate checks it,
//! compiles it with wasmer's Cranelift, and runs it as rooms: sandboxed, timed, metered, and
//! captured whole. It has no network, no scheduler and no storage; [`Services`] is where those
//! plug in.
//!
//! ```no_run
//! use cabinet_host::{GameOptions, Host, HostOptions, Input, NoServices, Player, RoomConfig, Seed, Slot};
//!
//! let host = Host::new(HostOptions::default())?;
//! let game = host.load(&std::fs::read("game.wasm")?, &GameOptions::default())?;
//!
//! let mut room = game.room(RoomConfig::new(Seed::draw()?), Box::new(NoServices));
//! let now = 1_700_000_000_000_000_000; // Unix nanoseconds; the caller owns the clock
//! let ada = Player::member("a1", "ada", "c1");
//! let _ = room.start(now);
//! let _ = room.join(now, ada.clone());
//! let _ = room.input(now, &ada, Input::Rune('x' as u32));
//! let _ = room.wake(now + 50_000_000);
//! if let Some(fault) = room.fault() {
//!     eprintln!("{fault}"); // whichever call it was: later ones are skipped
//! }
//! if let Some(frame) = room.frame(Slot::Member(0)) {
//!     println!("{}", frame.row_text(0)); // what the first player sees
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What is where
//! - [`Host`] loads a [`Game`]: `rewrite` checks and instruments the module, `compile` turns it
//!   into code, `cache` keeps that on disk;
//! - [`Game::room`] makes a [`Room`]; its methods are the callbacks of the ABI, each answering an
//!   [`Outcome`];
//! - [`Room::snapshot`] captures everything; [`Game::restore`] continues it bit for bit.
//!
//! This crate is not a server: it starts one thread (the watchdog) and does nothing on its own.

#![warn(missing_docs)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod arena;
mod cache;
mod compile;
mod cputime;
mod entropy;
mod entropy_table;
mod fault;
mod frame;
mod game;
mod host;
mod kernel;
mod logcap;
mod memory;
mod observe;
mod player;
#[doc(hidden)]
pub mod rewrite;
mod room;
mod services;
mod slots;
mod snapshot;
mod steal;
mod watchdog;

pub use cabinet_wire::input::Input;
pub use cabinet_wire::{Key, Kind, LogLevel, Mode, Status};

pub use cache::CacheError;
pub use compile::{CompileError, CompileIn, Tier, WorkerOptions, compile_worker};
pub use fault::{
    CallReport, EXIT_DEADLINE, Fault, Outcome, Skip, TRAP_FRAMES_MAX, Trap, TrapFrame, TrapKind,
};
pub use frame::Frame;
pub use game::Game;
pub use host::{
    CacheOptions, GameOptions, Host, HostError, HostOptions, LoadError, LoadWarning, NewerRevision,
};
pub use observe::{HostCall, Observer, WasiCall};
pub use player::{Character, Player};
pub use rewrite::{ModuleLimits, Refusal};
pub use room::capture::{CaptureError, StateDigest};
pub use room::restore::RestoreError;
pub use room::{Footprint, NoRandomness, Room, RoomConfig, Seed, Slot, Totals};
pub use services::{
    DeliveredFrame, LogRecord, LogSource, MemoryServices, NoServices, Recipient, RoomResult,
    ServiceError, Services, Standing, frame_bytes,
};
pub use snapshot::sck1::{Sck1, Sck1Decoder, Sck1Error, Sck1Member, Sck1Memory};
pub use snapshot::{Decoder as SnapshotDecoder, MemoryImage, Snapshot, SnapshotError};
pub use steal::machine_cpus;
