//! A moto server, in a process of its own. The tests of `cabinet-cli` take this file too.
//!
//! `CABINET_MOTO` is the path of a Python that has `moto[s3,server]`; without it `python3` is tried,
//! and where that has none the test says so and passes.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use super::skip::skipped;

/// The name of its bucket.
pub const BUCKET: &str = "rooms";

/// Serves at a port that the system chooses, and prints it: nobody else can have it. Moto's own server
/// is threaded, and checks a condition and writes in two steps. With `one-at-a-time` each request has
/// its turn, so that the conditions hold.
const SERVE: &str = "
import sys, threading
import moto.server
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
handler = getattr(moto.server, 'MotoRequestHandler', WSGIRequestHandler)
app = DomainDispatcherApplication(create_backend_app)
turn = threading.Lock()
def in_turn(environ, start_response):
    with turn:
        return app(environ, start_response)
answer = in_turn if sys.argv[1] == 'one-at-a-time' else app
server = make_server('127.0.0.1', 0, answer, threaded=True, request_handler=handler)
print(server.server_port, flush=True)
server.serve_forever()
";

/// A server with an empty bucket; gone when it is dropped.
pub struct Moto {
    child: Child,
    pub address: SocketAddr,
}

impl Drop for Moto {
    fn drop(&mut self) {
        // One that has ended already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Moto {
    /// Starts one as it comes. Where there is none, says so on one line and answers `None`.
    pub fn start() -> Option<Self> {
        Self::run("as-it-comes")
    }

    /// Starts one that answers one request after the other.
    pub fn start_one_at_a_time() -> Option<Self> {
        Self::run("one-at-a-time")
    }

    fn run(how: &str) -> Option<Self> {
        let python = std::env::var("CABINET_MOTO").unwrap_or_else(|_| "python3".into());
        let has_moto = Command::new(&python)
            .args(["-c", "import moto.server, flask"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !has_moto.is_ok_and(|status| status.success()) {
            let why = format!("no moto in {python}; set CABINET_MOTO to a Python that has it");
            skipped("moto", &why);
            return None;
        }
        let mut child = Command::new(&python)
            .args(["-c", SERVE, how])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python starts");
        let mut port = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        // It prints the port and nothing more: what it would write after that may fail.
        let read = BufReader::new(stdout).read_line(&mut port);
        read.expect("it is text");
        // Kills it whatever the port turns out to be.
        let mut moto = Self {
            child,
            address: ([127, 0, 0, 1], 0).into(),
        };
        let port = port
            .trim()
            .parse()
            .expect("moto ended before it said a port");
        moto.address.set_port(port);
        assert!(moto.put(&format!("/{BUCKET}"), b""), "no bucket");
        Some(moto)
    }

    /// Puts an object, or makes a bucket; whether that was done.
    pub fn put(&self, path: &str, body: &[u8]) -> bool {
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        let answer = answer_of(self.address, &request);
        answer.is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200"))
    }
}

/// What a server says to a request, until it closes.
pub fn answer_of(server: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server)?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}
