//! An S3 server in this process: s3s-fs on a loopback port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use super::{ACCESS_KEY, BUCKET, SECRET_KEY};

/// A server; gone with its runtime.
pub struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    service: S3Service,
    /// The same files, for requests whose signed headers were changed.
    unsigned: S3Service,
    /// s3s-fs checks a condition and then writes, and says itself that this races.
    alone: Mutex<()>,
    ignores_conditions: AtomicBool,
    gives_no_tags: AtomicBool,
    _root: TempDir,
}

impl Server {
    /// Starts one with an empty bucket.
    pub async fn start() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(root.path().join(BUCKET)).expect("a bucket");
        let files = || s3s_fs::FileSystem::new(root.path()).expect("a file system");
        let mut builder = S3ServiceBuilder::new(files());
        // The signatures are checked.
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let shared = Arc::new(Shared {
            service: builder.build(),
            unsigned: S3ServiceBuilder::new(files()).build(),
            alone: Mutex::new(()),
            ignores_conditions: AtomicBool::new(false),
            gives_no_tags: AtomicBool::new(false),
            _root: root,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared }
    }

    /// From now on the server puts whatever the condition, as some do.
    pub fn ignore_conditions(&self) {
        self.shared.ignores_conditions.store(true, Ordering::SeqCst);
    }

    /// From now on the server gives no ETags.
    pub fn give_no_tags(&self) {
        self.shared.gives_no_tags.store(true, Ordering::SeqCst);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| answer(Arc::clone(&shared), request));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // A connection that a test cut is no error here.
        tokio::spawn(async move { drop(connection.await) });
    }
}

async fn answer(
    shared: Arc<Shared>,
    mut request: Request<Incoming>,
) -> Result<s3s::HttpResponse, s3s::HttpError> {
    let mut service = &shared.service;
    if shared.ignores_conditions.load(Ordering::SeqCst) {
        let signed = ["if-match", "if-none-match", "authorization"];
        forget(request.headers_mut(), &signed);
        service = &shared.unsigned;
    }
    let _alone = shared.alone.lock().await;
    let mut response = service.call(request.map(s3s::Body::from)).await?;
    if shared.gives_no_tags.load(Ordering::SeqCst) {
        forget(response.headers_mut(), &["etag"]);
    }
    Ok(response)
}

fn forget(headers: &mut HeaderMap, names: &[&str]) {
    for name in names {
        headers.remove(*name);
    }
}
