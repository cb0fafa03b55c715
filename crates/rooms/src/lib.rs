//! Rooms that live: thousands of them on a few threads of their own, with services that may be slow,
//! lifecycles, faults that are judged, and metrics.
//!
//! [`cabinet_host`] runs one room called by hand. Here rooms run by themselves: a [`Runtime`] wakes
//! them at their cadence, takes in who joins and what they type, hands out frames, parks or ends
//! them when nobody is left. Handles are asynchronous and need no particular executor; guests run
//! on the runtime's own threads and never on the caller's.
//!
//! ```no_run
//! use cabinet_host::{GameOptions, Host, HostOptions, Input, Player};
//! use cabinet_rooms::{Listing, Registry, RoomSpec, Runtime, RuntimeOptions};
//!
//! # async fn play() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::new(HostOptions::default())?;
//! let game = host.load(&std::fs::read("game.wasm")?, &GameOptions::default())?;
//! let registry = Registry::new();
//! let listed = registry.add(Listing::new(game))?;
//!
//! let runtime = Runtime::new(RuntimeOptions::default())?;
//! let room = runtime.open(&listed, RoomSpec::default())?;
//! let mut seat = room.join(Player::member("a1", "ada", "c1")).await?;
//! seat.input(Input::Rune('x' as u32)).await?;
//! while let Some(view) = seat.frames().next().await {
//!     println!("{}", view.frame.row_text(0));
//! }
//! println!("{:?}", room.ended().await.result);
//! # Ok(())
//! # }
//! ```
//!
//! What is where
//! - [`Runtime`] opens and finds rooms; [`RoomHandle`] and [`Seat`] are what callers hold;
//! - [`services`] is what guests ask of the world: in memory, on disk, or your own; [`board`] ranks
//!   what they post, [`host_keys`] are the operator's settings;
//! - [`keeper`] makes rooms outlive their process;
//! - [`Registry`] lists games, [`Quarantine`] takes out those that fail too often, [`FaultReport`]
//!   tells their authors why;
//! - [`Recorder`] hears everything that happens, for metrics.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide-embedders.md")]
mod guide {}

mod actor;
mod blame;
pub mod board;
mod captures;
mod cell;
mod clock;
mod controls;
mod fault_report;
#[doc(hidden)]
pub mod fuzzing;
mod guest_services;
pub mod host_keys;
pub mod keeper;
mod life;
#[cfg(feature = "metrics")]
mod metrics_adapter;
mod pool;
mod posts;
mod quarantine;
mod recorder;
mod registry;
mod reply;
mod room;
mod runtime;
mod sched;
mod screens;
pub mod services;
mod weight;
mod wheel;

pub use blame::{Blame, Evidence, judge_deadline};
pub use cabinet_durability::{NotARoomId, RoomId, RoomIds};
pub use captures::Captured;
pub use clock::{Clock, Entropy, ManualClock, SeededEntropy, SystemClock, SystemEntropy};
pub use controls::{Action, InputContext};
pub use fault_report::{FAULT_REPORT_BYTES_MAX, FaultReport};
#[cfg(feature = "metrics")]
pub use metrics_adapter::MetricsRecorder;
pub use quarantine::{
    AUDIT_MAX, AuditAction, AuditRecord, COUNTED_MAX, FaultVerdict, QUARANTINED_MAX, Quarantine,
    QuarantineError, QuarantinePolicy,
};
pub use recorder::{
    Export, GAME_LABELS_MAX, GameLabel, NoRecorder, Recorder, SECONDS_BUCKETS, StoreOp,
};
pub use registry::{GameSlug, GameSlugError, Generation, Listed, Listing, Registry, RegistryError};
pub use reply::Reply;
pub use room::{
    CheckpointError, EndReason, Ending, HibernateError, INPUTS_MAX, InputError, JoinError, Phase,
    REQUESTS_MAX, RoomHandle, RoomStatus, Seat,
};
pub use runtime::{
    MakeObserver, OpenError, Parking, Resume, RoomSpec, Runtime, RuntimeOptions, RuntimeStats,
    Witness,
};
pub use screens::{View, Viewer};
