//! A bucket for tests: moto in a process of its own, and a go-between that fails a write.

#[path = "../../../durability/tests/common/moto.rs"]
mod moto;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cabinet_durability::seal::{Keyring, MasterKey, Sealing};
use cabinet_durability::store::{Key, S3Credentials, S3Options, S3Store};
use cabinet_durability::{OwnerId, SystemEntropy, Vault, VaultOptions};

pub use moto::Moto;
use moto::{BUCKET, answer_of};

use super::Ran;
use super::skip;

/// The credential that no message may hold.
pub const HUSH: &str = "hush-hush";

/// A vault under a prefix of the bucket, with these keys, the first of which seals.
pub fn vault(moto: &Moto, prefix: &str, keys: &[(u32, &str)]) -> Vault {
    let credentials = S3Credentials::new("id", HUSH);
    let endpoint = format!("http://{}", moto.address);
    let mut options = S3Options::new(BUCKET, "us-east-1", credentials).at(endpoint);
    options.prefix = Some(Key::new(prefix).unwrap());
    let key = |(id, digits): &(u32, &str)| MasterKey::from_hex(*id, digits).unwrap();
    let mut ring = Keyring::new(key(&keys[0]));
    for older in &keys[1..] {
        ring = ring.with_older(key(older)).unwrap();
    }
    let store = Arc::new(S3Store::new(options, Arc::new(SystemEntropy)));
    let options = VaultOptions::new(OwnerId::named("node"));
    Vault::open(store, Sealing::Keys(ring), options).unwrap()
}

/// The URL of a prefix of the bucket, at the server or a go-between.
pub fn url(prefix: &str, address: SocketAddr) -> String {
    format!("s3://{BUCKET}/{prefix}?region=us-east-1&endpoint=http://{address}")
}

/// `cabinet rooms`, in a folder, on a store.
pub fn rooms(folder: &Path, url: &str, keys: &str, args: &[&str]) -> Command {
    let mut cabinet = Command::new(env!("CARGO_BIN_EXE_cabinet"));
    cabinet
        .current_dir(folder)
        .args(["rooms", "--store", url, "--key-file", keys])
        .args(args)
        .env("AWS_ACCESS_KEY_ID", "id")
        .env("AWS_SECRET_ACCESS_KEY", HUSH)
        .env(
            "XDG_CACHE_HOME",
            concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    cabinet
}

/// Runs it to its end.
pub fn ran(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let ran = Ran {
        code: output.status.code().unwrap(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    };
    assert!(!format!("{ran:?}").contains(HUSH), "{ran:?}");
    ran
}

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Whoever asked is gone before the server heard of it.
    LostBefore,
    /// Whoever asked is gone, and the server has done it.
    LostAfter,
    /// The server says no.
    Refused,
}

/// Stands between the program and the server, and fails one write.
pub struct Between {
    pub address: SocketAddr,
    lost: Receiver<()>,
    /// Connections that nobody answers any more.
    held: Arc<Mutex<Vec<TcpStream>>>,
}

impl Between {
    /// Fails the write with this number, from 0.
    pub fn new(server: SocketAddr, number: usize, fate: Fate) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (to, lost) = channel();
        let held = Arc::new(Mutex::new(Vec::new()));
        let (writes, kept) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&held));
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (writes, to, held) = (Arc::clone(&writes), to.clone(), Arc::clone(&kept));
                thread::spawn(move || {
                    // A client that goes away in the middle is what this is about.
                    let _ = relay(stream, server, &writes, (number, fate), &to, &held);
                });
            }
        });
        Self {
            address,
            lost,
            held,
        }
    }

    /// Runs a program until it ends, or until its write comes to nothing: then it is killed, and there is
    /// no [`Ran`].
    pub fn run(&self, command: &mut Command) -> Option<Ran> {
        let mut child = command.spawn().unwrap();
        loop {
            if self.lost.try_recv().is_ok() {
                child.kill().unwrap();
                child.wait().unwrap();
                self.held.lock().unwrap().clear();
                return None;
            }
            if child.try_wait().unwrap().is_some() {
                let output = child.wait_with_output().unwrap();
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
                return Some(Ran {
                    code: output.status.code().unwrap(),
                    stdout: text(output.stdout),
                    stderr: text(output.stderr),
                });
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Answers one request, and closes.
fn relay(
    mut client: TcpStream,
    server: SocketAddr,
    writes: &AtomicUsize,
    (number, fate): (usize, Fate),
    lost: &Sender<()>,
    held: &Mutex<Vec<TcpStream>>,
) -> io::Result<()> {
    let request = request_of(&mut client)?;
    let is_write = !request.starts_with(b"GET ") && !request.starts_with(b"HEAD ");
    let fails = is_write && writes.fetch_add(1, Ordering::SeqCst) == number;
    if fails && fate == Fate::Refused {
        let body = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";
        let length = body.len();
        return write!(
            client,
            "HTTP/1.1 403 Forbidden\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
    }
    if !fails || fate == Fate::LostAfter {
        let answer = answer_of(server, &request)?;
        if !fails {
            return client.write_all(&answer);
        }
    }
    held.lock().unwrap().push(client);
    let _ = lost.send(());
    Ok(())
}

/// A whole request, which says that the connection ends with it.
fn request_of(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.lines().filter(|line| !line.is_empty());
    let mut request = lines.next().unwrap_or_default().to_owned() + "\r\n";
    let mut length = 0;
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "connection" => continue,
            other => assert_ne!(other, "transfer-encoding", "its length is not told"),
        }
        request += &format!("{line}\r\n");
    }
    request += "Connection: close\r\n\r\n";
    let mut body = vec![0; length];
    client.read_exact(&mut body)?;
    Ok([request.as_bytes(), &body].concat())
}
