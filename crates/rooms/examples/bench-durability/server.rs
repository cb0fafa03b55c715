//! An S3 server in this process: s3s-fs on a loopback port.

use std::path::Path;
use std::sync::Arc;

use cabinet_durability::SystemEntropy;
use cabinet_durability::store::{S3Credentials, S3Options, S3Store};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::Error;

const ACCESS_KEY: &str = "bench-access";
const SECRET_KEY: &str = "bench-secret";

pub struct Server {
    endpoint: String,
    bucket: String,
    _root: TempDir,
}

impl Server {
    pub async fn start(bucket: &Path) -> Result<Self, Error> {
        let root = tempfile::tempdir()?;
        std::fs::create_dir(root.path().join(bucket))?;
        let files = s3s_fs::FileSystem::new(root.path()).map_err(|error| format!("{error:?}"))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone());
                // One that is cut is the client's to notice.
                tokio::spawn(async move { drop(connection.await) });
            }
        });
        Ok(Self {
            endpoint,
            bucket: bucket.display().to_string(),
            _root: root,
        })
    }

    pub fn store(&self) -> S3Store {
        let credentials = S3Credentials::new(ACCESS_KEY, SECRET_KEY);
        let options = S3Options::new(&self.bucket, "us-east-1", credentials).at(&self.endpoint);
        S3Store::new(options, Arc::new(SystemEntropy))
    }
}
