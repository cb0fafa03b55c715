//! A room that processes are killed over: what its children do, what they say, and what must be true
//! of it.

pub mod child;
pub mod history;
pub mod line;
pub mod parent;
pub mod place;
