//! Does a game keep its promises? Scripts, reports and verdicts against the real host.
//!
//! [`check`] takes an artifact through a [`Script`] with every limit on, next to a room that is
//! saved and restored, a second run and a run on the other compiler tier, and answers with a
//! [`Report`]. [`trace()`] writes down what the guest and the host said to each other, one JSON
//! object per callback.
//!
//! ```
//! use cabinet_conformance::{CheckOptions, Script, check, error_line};
//! use cabinet_host::{Host, HostOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let not_a_game = b"\0asm\x01\0\0\0";
//! let host = Host::new(HostOptions::default())?;
//! let script = Script::parse("join 0\nwake +50ms\nsnapshot\nwake +50ms\n")?;
//! match check(&host, not_a_game, &CheckOptions::default(), Some(&script)) {
//!     Ok(report) => println!("{report}"),
//!     Err(error) => println!("no report: {}", error_line(&error)),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Where to look: the script format is in [`script`], what is judged in [`verdict`], the fields of
//! a report in [`report`], the lines of a trace in [`trace`](mod@trace), screens at named moments in
//! [`film`], the compiler that builds a game in [`toolchain`].
//!
//! This crate decides nothing about games at run time, and it is no benchmark: latencies are
//! compared with the deadline, not with each other.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod check;
mod compare;
pub mod diff;
pub mod files;
pub mod film;
mod hash;
mod lane;
mod profile;
pub mod random;
pub mod report;
mod screens;
pub mod script;
mod shot;
pub mod shrink;
mod tape;
#[cfg(test)]
mod testing;
pub mod toolchain;
pub mod trace;
mod units;
pub mod verdict;

pub use check::{CheckError, CheckOptions, Checker, check};
pub use film::{During, SeatFrames, ShotRun, ShotStep, ShotsError, run_shots};
pub use lane::{HibernateError, Restore};
pub use profile::{Profile, Share};
pub use report::Report;
pub use screens::{Looked, every_screen};
pub use script::{Script, ScriptError};
pub use trace::{TraceError, TraceOptions, trace};
pub use units::{draws, error_line};
pub use verdict::{Judgement, Verdict};

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
