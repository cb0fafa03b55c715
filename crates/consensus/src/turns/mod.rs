//! Turns as an author sees them: typed events in the order of the log, and a view that shows one's
//! own actions before they are decided.
//!
//! Invariants
//! - nothing that decides looks at a clock, a random source or a socket: it follows from what was
//!   told;
//! - no bytes from the log can stop the stream: what cannot be read is an event that says so.

mod event;
mod sequencer;
mod speculation;
mod speculative;

pub use crate::node::{ProposeError, ReadError};
pub use event::{IndexedAction, Ruling, TurnEvent};
pub use sequencer::{Decision, Events, Proposal, Seen, TurnError, TurnSequencer};
#[cfg(feature = "testkit")]
pub(crate) use speculation::Planted;
pub use speculation::{Fate, Notice, ReplyOutcome, SpeculateError, Speculation, Standing};
pub use speculative::{NotProposed, Shown, SpeculationOptions, SpeculativeSequencer, Ticket};
