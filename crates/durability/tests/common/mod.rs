//! What the tests of the S3 store share.
#![allow(dead_code, reason = "each test uses some of it")]

pub mod moto;
pub mod proxy;
pub mod server;
mod skip;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cabinet_durability::SeededEntropy;
use cabinet_durability::store::suite::{self, Report, SuiteOptions};
use cabinet_durability::store::{BlobStore, Key, S3Credentials, S3Options, S3Store};

pub use moto::BUCKET;

pub const ACCESS_KEY: &str = "access";
pub const SECRET_KEY: &str = "secret";

pub fn key(name: &str) -> Key {
    Key::new(name).expect("a key")
}

/// Options for a store on a loopback port. They wait long, so that a slow machine changes nothing,
/// and pause shortly.
pub fn options(address: SocketAddr) -> S3Options {
    let credentials = S3Credentials::new(ACCESS_KEY, SECRET_KEY);
    let mut options =
        S3Options::new(BUCKET, "us-east-1", credentials).at(format!("http://{address}"));
    options.timeouts.connect = Duration::from_secs(60);
    options.timeouts.attempt = Duration::from_secs(120);
    options.timeouts.operation = Duration::from_secs(600);
    options.retries.attempts_max = 3;
    options.retries.base = Duration::from_millis(1);
    options.retries.cap = Duration::from_millis(2);
    options
}

pub fn store(options: S3Options) -> S3Store {
    S3Store::new(options, Arc::new(SeededEntropy::new(1)))
}

/// Prints a line even where a test's output is kept back.
pub fn say(line: &str) {
    // Where there is no standard error nobody reads it.
    let _ = writeln!(std::io::stderr(), "{line}");
}

pub async fn passes(store: &dyn BlobStore, options: &SuiteOptions) -> Report {
    match suite::run(store, &key("suite"), options).await {
        Ok(report) => report,
        Err(failure) => panic!("{failure}: {:?}", failure.broken),
    }
}
