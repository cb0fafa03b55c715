//! Players that are processes of their own: children of the test program that plays with them, joined
//! by TLS. A directory holds who a player is; what it says on its standard output is all it tells.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
#[path = "../common/mod.rs"]
mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};

use cabinet_consensus::fabric::tls::{Credentials, TlsConfig, TlsFabric};
pub use common::{NAMES, Sum};

use crate::support::{Authority, backoff, limits, peer};

/// Writes down who a player is, and where `peers` (a name and an address to a line) are.
pub fn furnish(dir: &Path, authority: &Authority, name: &str, peers: &str) {
    let issued = authority.issue(name);
    std::fs::write(dir.join("chain.pem"), &issued.pem.0).unwrap();
    std::fs::write(dir.join("key.pem"), &issued.pem.1).unwrap();
    std::fs::write(dir.join("root.pem"), &authority.root_pem).unwrap();
    std::fs::write(dir.join("peers"), peers).unwrap();
}

/// Starts a child of this program that plays `test`, and passes on its lines under `who`.
pub fn start<T: Copy + Send + 'static>(
    mut command: Command,
    test: &str,
    who: T,
    lines: &mpsc::Sender<(T, String)>,
) -> Child {
    let mut process = command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(process.stdout.take().unwrap());
    let lines = lines.clone();
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if lines.send((who, line)).is_err() {
                return;
            }
        }
    });
    process
}

/// Runs a child's part.
pub fn play(part: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(part);
}

/// A child's place on the network, by its directory.
pub async fn fabric(name: &str, dir: &Path) -> Arc<TlsFabric> {
    let read = |file: &str| std::fs::read(dir.join(file)).unwrap();
    let credentials =
        Credentials::from_pem(&read("chain.pem"), &read("key.pem"), &read("root.pem")).unwrap();
    let mut config = TlsConfig::builder(peer(name), credentials)
        .limits(limits())
        .backoff(backoff());
    for line in String::from_utf8(read("peers")).unwrap().lines() {
        let (other, address) = line.split_once(' ').unwrap();
        let address: SocketAddr = address.parse().unwrap();
        config = if other == name {
            config.listen(address)
        } else {
            config.peer(peer(other), address)
        };
    }
    TlsFabric::start(config.build().unwrap()).await.unwrap()
}

pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The parent is gone when this fails, and then so is the reason to play.
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Waits for a line of the parent's, or its end.
pub async fn told() {
    tokio::task::spawn_blocking(|| {
        let _ = std::io::stdin().lock().read_line(&mut String::new());
    })
    .await
    .unwrap();
}
