//! A proxy that does to chosen requests what networks and object stores do.
//!
//! One request per connection: the proxy says `connection: close` both ways, so that a reply is what
//! comes until the end.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The proxy answers it with this status and code.
    Answer(u16, &'static str),
    /// The server answers it, and the reply is lost.
    LoseReply,
    /// It is lost, and its connection.
    LoseRequest,
    /// The server answers it, and the reply is held back until nobody waits for it.
    HoldReply,
    /// It comes to the server twice, one after the other; the reply is to the second.
    Duplicate,
    /// Half of the reply's body comes, then the connection ends.
    Truncate,
}

/// A proxy; gone with its runtime.
pub struct Proxy {
    pub address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    /// For requests of this method, in order.
    faults: Vec<(&'static str, Option<Fault>)>,
    seen: Vec<String>,
}

impl Proxy {
    /// Starts one in front of a server.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let script = Arc::<Mutex<Script>>::default();
        let shared = Arc::clone(&script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                // A connection that is cut is what this is for.
                tokio::spawn(async move { drop(carry(stream, server, &shared).await) });
            }
        });
        Self { address, script }
    }

    /// Does this to the next requests of a method, one each; `None` leaves one alone. Forgets what
    /// was to be done and what was seen.
    pub fn script(&self, method: &'static str, faults: impl IntoIterator<Item = Option<Fault>>) {
        let faults = faults.into_iter().map(|fault| (method, fault)).collect();
        *self.script.lock().expect("no test panics with it") = Script {
            faults,
            seen: Vec::new(),
        };
    }

    /// Requests seen of a method since the last script.
    pub fn seen(&self, method: &str) -> usize {
        let script = self.script.lock().expect("no test panics with it");
        script.seen.iter().filter(|seen| *seen == method).count()
    }
}

impl Script {
    fn fault(&mut self, method: &str) -> Option<Fault> {
        self.seen.push(method.into());
        let next = self.faults.iter().position(|(of, _)| *of == method)?;
        self.faults.remove(next).1
    }
}

async fn carry(
    mut client: TcpStream,
    server: SocketAddr,
    script: &Mutex<Script>,
) -> std::io::Result<()> {
    let Some(request) = read_request(&mut client).await? else {
        return Ok(());
    };
    let method: String = request
        .iter()
        .take_while(|byte| **byte != b' ')
        .map(|byte| char::from(*byte))
        .collect();
    let fault = script
        .lock()
        .expect("no test panics with it")
        .fault(&method);
    match fault {
        Some(Fault::Answer(status, code)) => {
            let body = format!(
                "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>from the proxy</Message></Error>"
            );
            let head = format!(
                "HTTP/1.1 {status} Fault\r\ncontent-type: application/xml\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            client.write_all(format!("{head}{body}").as_bytes()).await?;
        }
        Some(Fault::LoseRequest) => {}
        Some(Fault::LoseReply) => drop(forward(server, &request).await?),
        Some(Fault::HoldReply) => {
            let _reply = forward(server, &request).await?;
            while client.read(&mut [0; 64]).await? > 0 {}
        }
        Some(Fault::Duplicate) => {
            forward(server, &request).await?;
            let reply = forward(server, &request).await?;
            client.write_all(&reply).await?;
        }
        Some(Fault::Truncate) => {
            let reply = forward(server, &request).await?;
            let body = head_length(&reply).unwrap_or(reply.len());
            let half = body + (reply.len() - body) / 2;
            client.write_all(&reply[..half]).await?;
        }
        None => {
            let reply = forward(server, &request).await?;
            client.write_all(&reply).await?;
        }
    }
    client.shutdown().await
}

async fn forward(server: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut upstream = TcpStream::connect(server).await?;
    upstream.write_all(request).await?;
    let mut reply = Vec::new();
    upstream.read_to_end(&mut reply).await?;
    Ok(reply)
}

/// A whole request, saying `connection: close`; `None` when the client sent none.
async fn read_request(client: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(length) = head_length(&bytes) {
            break length;
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut kept = Vec::new();
    let mut body = 0;
    for line in text.trim_end().split("\r\n") {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        match name.to_ascii_lowercase().as_str() {
            "connection" => continue,
            "expect" => {
                client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
                continue;
            }
            "content-length" => body = value.trim().parse().expect("a length"),
            "transfer-encoding" => panic!("the proxy knows no chunks: {line}"),
            _ => {}
        }
        kept.push(line);
    }
    let mut request = format!("{}\r\nconnection: close\r\n\r\n", kept.join("\r\n")).into_bytes();
    while bytes.len() < head + body {
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
    request.extend_from_slice(&bytes[head..head + body]);
    Ok(Some(request))
}

/// Bytes up to the end of the empty line.
fn head_length(bytes: &[u8]) -> Option<usize> {
    let end = b"\r\n\r\n";
    let start = bytes.windows(end.len()).position(|window| window == end)?;
    Some(start + end.len())
}
