//! The suite against Garage, which has no conditional writes: a store for a single writer.
//!
//! `CABINET_GARAGE` is the path of its binary (`cargo install garage --locked`). Without it the test
//! says so and passes.

mod common;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cabinet_durability::store::suite::SuiteOptions;
use cabinet_durability::store::{Conditional, S3Credentials, SingleWriter, probe};
use cabinet_durability::{Entropy as _, SystemEntropy};
use tempfile::TempDir;
use tokio::net::TcpListener;

use common::{BUCKET, key, options, passes, say, store};

/// A node that is a cluster; gone when it is dropped.
struct Garage {
    binary: PathBuf,
    config: PathBuf,
    server: Child,
    address: SocketAddr,
    access: String,
    secret: String,
    _home: TempDir,
}

impl Drop for Garage {
    fn drop(&mut self) {
        // One that has ended already is fine.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Garage {
    /// Starts one with an empty bucket and a key to it.
    async fn start() -> Option<Self> {
        let Some(binary) = std::env::var_os("CABINET_GARAGE").map(PathBuf::from) else {
            say(
                "SKIPPED: no garage; set CABINET_GARAGE to its binary (cargo install garage --locked)",
            );
            return None;
        };
        let home = tempfile::tempdir().expect("a directory");
        let config = home.path().join("garage.toml");
        let address = free_port().await;
        let written = write_config(home.path(), free_port().await, address);
        std::fs::write(&config, written).expect("a file");
        let server = command(&binary, &config)
            .arg("server")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("CABINET_GARAGE starts");
        let mut garage = Self {
            binary,
            config,
            server,
            address,
            access: format!("GK{}", random_hex::<12>()),
            secret: random_hex::<32>(),
            _home: home,
        };
        garage.set_up().await;
        Some(garage)
    }

    async fn set_up(&mut self) {
        // Until it answers, which it must.
        while self.asked(&["status"]).is_err() {
            let ended = self.server.try_wait().expect("a child");
            assert!(ended.is_none(), "garage ended: {ended:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let node = self.done(&["node", "id", "--quiet"]);
        let (node, _) = node.trim().split_once('@').expect("an id and an address");
        self.done(&["layout", "assign", "-z", "dc1", "-c", "1G", node]);
        self.done(&["layout", "apply", "--version", "1"]);
        self.done(&["bucket", "create", BUCKET]);
        let (access, secret) = (self.access.as_str(), self.secret.as_str());
        self.done(&["key", "import", "--yes", "-n", "test", access, secret]);
        self.done(&[
            "bucket", "allow", "--read", "--write", BUCKET, "--key", access,
        ]);
    }

    /// What a command prints, or what it complains of.
    fn asked(&self, args: &[&str]) -> Result<String, String> {
        let output = command(&self.binary, &self.config).args(args).output();
        let output = output.expect("CABINET_GARAGE starts");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    fn done(&self, args: &[&str]) -> String {
        let verb = args[..2].join(" ");
        self.asked(args)
            .unwrap_or_else(|error| panic!("garage {verb}: {error}"))
    }
}

fn command(binary: &Path, config: &Path) -> Command {
    let mut command = Command::new(binary);
    command.arg("-c").arg(config).stdin(Stdio::null());
    command
}

fn write_config(home: &Path, rpc: SocketAddr, s3: SocketAddr) -> String {
    let (home, secret) = (home.display(), random_hex::<32>());
    format!(
        r#"
metadata_dir = "{home}/meta"
data_dir = "{home}/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "{rpc}"
rpc_public_addr = "{rpc}"
rpc_secret = "{secret}"

[s3_api]
s3_region = "us-east-1"
api_bind_addr = "{s3}"
root_domain = ".s3.localhost"
"#
    )
}

/// Nobody else takes it between here and there, or the start fails.
async fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address")
}

fn random_hex<const BYTES: usize>() -> String {
    let mut bytes = [0; BYTES];
    SystemEntropy.fill(&mut bytes).expect("random bytes");
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes all");
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_garage_keeps_the_promises_to_a_single_writer() {
    let Some(garage) = Garage::start().await else {
        return;
    };
    let mut options = options(garage.address);
    options.credentials = S3Credentials::new(&*garage.access, &*garage.secret);
    let bucket = store(options);
    let found = probe(&bucket, &key("probe"), [1; 16]).await;
    let found = found.expect("an answer");
    say(&format!("garage's conditions: {found:?}"));
    let mut limits = SuiteOptions::default();
    // A newer one may honour them.
    limits.conditional_writes = found == Conditional::Honoured;
    passes(&bucket, &limits).await;
    let alone = SingleWriter::new(bucket);
    let honoured = probe(&alone, &key("probe"), [2; 16]).await;
    assert_eq!(honoured.expect("an answer"), Conditional::Honoured);
    let report = passes(&alone, &SuiteOptions::default()).await;
    assert!(report.skipped.is_empty());
}
