//! The suite against moto, an S3 server that other people wrote, in a process of its own.
//!
//! `CABINET_MOTO` is the path of a Python that has `moto[s3,server]`; without it `python3` is tried.
//! Where there is none the test says so and passes.

mod common;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cabinet_durability::store::suite::SuiteOptions;
use cabinet_durability::store::{Conditional, SingleWriter, probe};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use common::{BUCKET, key, options, passes, store};

struct Moto {
    child: Child,
    address: SocketAddr,
}

impl Drop for Moto {
    fn drop(&mut self) {
        // One that has ended already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Moto {
    async fn start() -> Option<Self> {
        let python = std::env::var("CABINET_MOTO").unwrap_or_else(|_| "python3".into());
        let has_moto = Command::new(&python)
            .args(["-c", "import moto.server, flask"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !has_moto.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: no moto in {python}; set CABINET_MOTO to a Python that has it");
            return None;
        }
        // Nobody else takes the port between here and there, or the start below fails.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let port = address.port().to_string();
        let child = Command::new(&python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("python starts");
        let mut moto = Self { child, address };
        moto.make_bucket().await;
        Some(moto)
    }

    /// Asks for the bucket until somebody answers.
    async fn make_bucket(&mut self) {
        loop {
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "moto ended: {ended:?}");
            if let Ok(mut stream) = TcpStream::connect(self.address).await {
                let request = format!(
                    "PUT /{BUCKET} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                    self.address
                );
                stream
                    .write_all(request.as_bytes())
                    .await
                    .expect("it is sent");
                let mut reply = String::new();
                stream.read_to_string(&mut reply).await.expect("a reply");
                assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_moto_keeps_the_promises() {
    let Some(moto) = Moto::start().await else {
        return;
    };
    let bucket = store(options(moto.address));
    let honoured = probe(&bucket, &key("probe"), [1; 16])
        .await
        .expect("an answer");
    eprintln!("moto's conditions: {honoured:?}");
    let mut limits = SuiteOptions::default();
    limits.conditional_writes = honoured == Conditional::Honoured;
    // Its server is threaded, and checks and writes in two steps.
    limits.races = false;
    passes(&bucket, &limits).await;
    let alone = SingleWriter::new(bucket);
    let report = passes(&alone, &SuiteOptions::default()).await;
    assert!(report.skipped.is_empty());
}
