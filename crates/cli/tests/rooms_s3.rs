//! `cabinet rooms` on a bucket, in moto: a process of its own.
//!
//! `CABINET_MOTO` is the path of a Python that has `moto[s3,server]`; without it `python3` is tried,
//! and where that has none the test says so and passes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cabinet_durability::seal::{Keyring, MasterKey, Sealing};
use cabinet_durability::store::{Key, S3Credentials, S3Options, S3Store};
use cabinet_durability::{OwnerId, RoomIds, SystemEntropy, Vault, VaultOptions};
use cabinet_wire::ArtifactDigest;

const NOW_MS: u64 = 1_700_000_000_000;

/// A server with an empty bucket called `rooms`; gone when it is dropped.
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
    fn start() -> Option<Self> {
        let python = std::env::var("CABINET_MOTO").unwrap_or_else(|_| "python3".into());
        let quiet = |command: &mut Command| {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        };
        let mut probe = Command::new(&python);
        quiet(probe.args(["-c", "import moto.server, flask"]));
        if !probe.status().is_ok_and(|status| status.success()) {
            let line =
                format!("SKIPPED: no moto in {python}; set CABINET_MOTO to a Python that has it");
            // Past what the test runner keeps to itself.
            let _ = writeln!(std::io::stderr(), "{line}");
            return None;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut server = Command::new(&python);
        let port = address.port().to_string();
        quiet(server.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port]));
        let mut moto = Self {
            child: server.spawn().unwrap(),
            address,
        };
        while !moto.makes_bucket() {
            assert!(moto.child.try_wait().unwrap().is_none(), "moto ended");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(moto)
    }

    fn makes_bucket(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.address) else {
            return false;
        };
        let request = format!(
            "PUT /rooms HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.address
        );
        let mut answer = String::new();
        stream.write_all(request.as_bytes()).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
    }
}

#[test]
fn a_bucket_is_listed_and_verified() {
    let Some(moto) = Moto::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let secret = "3f9a0c57".repeat(8);
    std::fs::write(folder.path().join("keys"), format!("1 {secret}\n")).unwrap();
    let endpoint = format!("http://{}", moto.address);
    let room = RoomIds::default().next(NOW_MS, [1; 8]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let credentials = S3Credentials::new("id", "hush-hush");
        let mut options = S3Options::new("rooms", "us-east-1", credentials).at(&endpoint);
        options.prefix = Some(Key::new("live/eu").unwrap());
        let store = Arc::new(S3Store::new(options, Arc::new(SystemEntropy)));
        let sealing = Sealing::Keys(Keyring::new(MasterKey::from_hex(1, &secret).unwrap()));
        let vault = Vault::open(store, sealing, VaultOptions::new(OwnerId::named("node"))).unwrap();
        let lease = vault.create(room, NOW_MS).await.unwrap();
        let packed = lease.pack(
            lease.next_epoch(),
            ArtifactDigest([5; 32]),
            b"state",
            NOW_MS,
        );
        lease.write(&packed.unwrap(), NOW_MS).await.unwrap();
    });
    let url = format!("s3://rooms/live/eu?region=us-east-1&endpoint={endpoint}");
    let rooms = |command: &str, key: &str| {
        let mut cabinet = Command::new(env!("CARGO_BIN_EXE_cabinet"));
        cabinet.current_dir(folder.path());
        cabinet.args(["rooms", command, "--store", &url, "--key-file", "keys"]);
        cabinet
            .env("AWS_ACCESS_KEY_ID", "id")
            .env("AWS_SECRET_ACCESS_KEY", key);
        let ran = cabinet.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (ran.status.code(), text(&ran.stdout), text(&ran.stderr))
    };
    let (code, out, err) = rooms("list", "hush-hush");
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains(&format!("{room}  live ")), "{out}");
    let (code, out, err) = rooms("verify", "hush-hush");
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(
        out.contains("2 records") && out.contains(", 0 wrong"),
        "{out}"
    );
    let (code, _, err) = rooms("list", "");
    assert_eq!((code, err.lines().count()), (Some(2), 1), "{err}");
    assert!(err.contains("AWS_SECRET_ACCESS_KEY"), "{err}");

    drop(moto);
    let (code, _, err) = rooms("list", "hush-hush");
    assert_eq!((code, err.lines().count()), (Some(2), 1), "{err}");
    assert!(!err.contains("hush"), "{err}");
}
