//! Peers on real sockets with real certificates.

mod flow;
mod links;
mod refused;
mod support;
