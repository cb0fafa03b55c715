//! Watching what a guest and the host say to each other; for traces and tests.

use std::time::Duration;

/// A call of a game function.
#[derive(Debug)]
#[non_exhaustive]
pub struct HostCall<'a> {
    /// The function's name in `extism:host/user`.
    pub name: &'static str,
    /// Its arguments, offsets included.
    pub args: &'a [i64],
    /// The blocks that the offsets among the arguments name, in order.
    pub inputs: &'a [&'a [u8]],
    /// What it answered; `None` for a function without a result.
    pub ret: Option<i64>,
    /// The block it answered with, for `kv_get` and `config_get`.
    pub output: Option<&'a [u8]>,
    /// Wall time from the guest's call until it was carried out, the observer not included.
    pub took: Duration,
}

/// A call of a WASI function.
#[derive(Debug)]
#[non_exhaustive]
pub struct WasiCall<'a> {
    /// The function's name.
    pub name: &'static str,
    /// Its arguments, widened to 64 bits.
    pub args: &'a [i64],
    /// The error number it answered.
    pub errno: i32,
    /// What it wrote (`random_get`), read (`fd_write`) or told (`clock_time_get`, the decimal
    /// nanoseconds).
    pub data: &'a [u8],
}

/// Sees every call of a room. Costs an allocation per call, so leave it off in production.
pub trait Observer: Send {
    /// A callback is about to enter the guest.
    fn callback_begin(&mut self, _export: &'static str, _payload: &[u8]) {}

    /// The guest called a game function; told after it was carried out.
    fn host_call(&mut self, _call: &HostCall<'_>) {}

    /// The guest called a WASI function; told after it was carried out.
    fn wasi_call(&mut self, _call: &WasiCall<'_>) {}
}
