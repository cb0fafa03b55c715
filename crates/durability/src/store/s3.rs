//! A store in a bucket.
//!
//! What an S3 store answers, and what that means here
//! - 412, 304, and 404 for a put that wants a version there: [`StoreError::Precondition`];
//! - 409: tried again, then [`StoreError::Conflict`];
//! - 429, 503, no connection: nothing was done; tried again, then [`StoreError::Unavailable`];
//! - no reply, a reply cut short, any other 5xx: done or not. A put without a condition is tried
//!   again, since putting the same twice is putting it once. One with a condition is not: if the first
//!   was done the second fails, and says that somebody else was faster. It is
//!   [`StoreError::Ambiguous`];
//! - 501 for a put with a condition: [`StoreError::Unsupported`]. Many stores ignore conditions
//!   instead of saying so; [`probe`](super::probe()) finds out;
//! - 3xx, 401, 403, no such bucket, and what else is the request's fault: [`StoreError::Refused`].
//!
//! A version is the ETag. Without one, or with a weak one, it is the SHA-256 of the content, and no
//! condition can be put on it but by [`SingleWriter`](super::SingleWriter).
//!
//! A put that got no reply, tried again or not, may still be done after later ones. What must not be
//! replaced by it has to be put under a condition.
//!
//! Checksums beyond those the protocol requires are off: stores other than AWS often fail on them,
//! and records carry a seal. Buckets whose listings are not in the order of their keys (S3 Express
//! One Zone) are refused.

mod failure;
mod get;
mod options;
mod retry;

use std::fmt;
use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Config, Credentials, Region, RequestChecksumCalculation,
    ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use bytes::Bytes;
use ring::digest::{Context, SHA256};

use self::failure::{Failed, Kind};
use self::get::Fetched;
use self::retry::{Again, retry};
use super::{
    Answer, Blob, BlobStore, Condition, DELETE_KEYS_MAX, Entry, Key, PAGE_KEYS_MAX, Page,
    StoreError, Version, Want,
};
use crate::Entropy;

pub use self::failure::S3Error;
pub use self::options::{Retries, S3Credentials, S3Options, Timeouts};

/// What the version of an object without an ETag begins with. An ETag begins with a quote.
const HASHED: &str = "sha256:";

/// Objects in a bucket. Clones share the connections.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use cabinet_durability::SystemEntropy;
/// use cabinet_durability::store::{S3Credentials, S3Options, S3Store};
///
/// let credentials = S3Credentials::new("access", "secret");
/// let options = S3Options::new("rooms", "garage", credentials).at("http://localhost:3900");
/// let store = S3Store::new(options, Arc::new(SystemEntropy));
/// ```
#[derive(Clone)]
pub struct S3Store {
    client: Client,
    options: Arc<S3Options>,
    entropy: Arc<dyn Entropy>,
}

impl S3Store {
    /// A store in that bucket. Nothing is asked of it yet. `entropy` spreads the pauses between
    /// requests.
    #[must_use]
    pub fn new(options: S3Options, entropy: Arc<dyn Entropy>) -> Self {
        let credentials = &options.credentials;
        let http = aws_smithy_http_client::Builder::new();
        let is_plain = |endpoint: &String| endpoint.starts_with("http://");
        let http = match options.endpoint.as_ref().is_some_and(is_plain) {
            true => http.build_http(),
            false => http
                .tls_provider(Provider::Rustls(CryptoMode::Ring))
                .build_https(),
        };
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(options.region.clone()))
            .credentials_provider(Credentials::new(
                credentials.access_key(),
                credentials.secret_key(),
                credentials.session_token().map(str::to_owned),
                None,
                "cabinet",
            ))
            .force_path_style(options.path_style)
            .http_client(http)
            // Retries and the other timeouts are ours: only we know what may be sent twice.
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(options.timeouts.connect)
                    .build(),
            )
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        config.set_endpoint_url(options.endpoint.clone());
        Self {
            client: Client::from_conf(config.build()),
            options: Arc::new(options),
            entropy,
        }
    }

    /// The key's name in the bucket.
    fn name(&self, key: &Key) -> String {
        format!("{}{key}", self.base())
    }

    /// What every name begins with.
    fn base(&self) -> String {
        let prefix = self.options.prefix.as_ref();
        prefix.map_or_else(String::new, |prefix| format!("{prefix}/"))
    }

    async fn retry<T, F>(
        &self,
        operation: &'static str,
        again: Again,
        request: impl FnMut() -> F,
    ) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let patience = (&self.options.timeouts, &self.options.retries);
        retry(operation, again, patience, &*self.entropy, request).await
    }

    async fn get_object(&self, key: &Key, want: Want) -> Result<Option<Blob>, StoreError> {
        let mut ranged = matches!(want, Want::First(_));
        loop {
            let fetched = self
                .retry("get", Again::WheneverItPasses, || {
                    self.fetch(key, want, ranged)
                })
                .await
                .map_err(Failed::into_store_error)?;
            return match (fetched, want) {
                (Fetched::Blob(blob), _) => Ok(Some(blob)),
                (Fetched::TooLarge(bytes), Want::Whole { max }) => {
                    Err(StoreError::TooLarge { bytes, max })
                }
                (Fetched::AskForAll | Fetched::TooLarge(_), _) if ranged => {
                    ranged = false;
                    continue;
                }
                (Fetched::Missing, _) => Ok(None),
                (Fetched::AskForAll | Fetched::TooLarge(_), _) => Err(StoreError::Refused(
                    "a part where all of an object was asked for".into(),
                )),
            };
        }
    }

    async fn put_object(
        &self,
        key: &Key,
        bytes: Bytes,
        condition: &Condition,
    ) -> Result<Version, StoreError> {
        let is_hashed = |version: &Version| version.as_str().starts_with(HASHED);
        if matches!(condition, Condition::Matches(version) if is_hashed(version)) {
            return Err(StoreError::Unsupported);
        }
        let again = match condition {
            Condition::None => Again::WheneverItPasses,
            Condition::Absent | Condition::Matches(_) => Again::IfNotDone,
        };
        let request = || async {
            let put = self
                .client
                .put_object()
                .bucket(&self.options.bucket)
                .key(self.name(key))
                .body(bytes.clone().into());
            let put = match condition {
                Condition::None => put,
                Condition::Absent => put.if_none_match("*"),
                Condition::Matches(version) => put.if_match(version.as_str()),
            };
            let reply = put.send().await.map_err(|error| Failed::of("put", error))?;
            Ok(version(reply.e_tag()))
        };
        match self.retry("put", again, request).await {
            Ok(Some(version)) => Ok(version),
            Ok(None) => {
                let mut hash = Context::new(&SHA256);
                hash.update(&bytes);
                Ok(hashed(hash))
            }
            Err(failed) => Err(put_failed(failed, condition)),
        }
    }

    async fn delete_objects(&self, keys: &[Key]) -> Result<(), StoreError> {
        match keys {
            [] => return Ok(()),
            [key] => {
                let request = || async {
                    self.client
                        .delete_object()
                        .bucket(&self.options.bucket)
                        .key(self.name(key))
                        .send()
                        .await
                        .map_err(|error| Failed::of("delete", error))
                };
                let again = Again::WheneverItPasses;
                match self.retry("delete", again, request).await {
                    Err(failed) if failed.kind == Kind::Missing => {}
                    other => drop(other.map_err(Failed::into_store_error)?),
                }
                return Ok(());
            }
            _ if keys.len() > DELETE_KEYS_MAX => {
                return Err(StoreError::TooMany { found: keys.len() });
            }
            _ => {}
        }
        // Asking for all again is simpler than for those that failed, and as good: the others are
        // gone, which is what was asked.
        let request = || self.delete_many(keys);
        self.retry("delete", Again::WheneverItPasses, request)
            .await
            .map_err(Failed::into_store_error)
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<(), Failed> {
        let cannot = |error| Failed::plain(Kind::Refused, "delete", "a request").caused_by(error);
        let mut delete = Delete::builder().quiet(true);
        for key in keys {
            let object = ObjectIdentifier::builder().key(self.name(key)).build();
            delete = delete.objects(object.map_err(cannot)?);
        }
        let reply = self
            .client
            .delete_objects()
            .bucket(&self.options.bucket)
            .delete(delete.build().map_err(cannot)?)
            .send()
            .await
            .map_err(|error| Failed::of("delete", error))?;
        let failed = reply
            .errors()
            .iter()
            .map(|error| Failed::of_key(error.code(), error.message()))
            .filter(|failed| failed.kind != Kind::Missing);
        // What does not pass is worth more than what does.
        match failed.max_by_key(|failed| failed.kind == Kind::Refused) {
            Some(failed) => Err(failed),
            None => Ok(()),
        }
    }

    async fn list_objects(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let base = self.base();
        let full = format!("{base}{prefix}");
        // From before its prefix a listing begins there anyway.
        let after = after.filter(|after| *after >= prefix);
        let limit = limit.clamp(1, PAGE_KEYS_MAX);
        let request = || async {
            self.client
                .list_objects_v2()
                .bucket(&self.options.bucket)
                .prefix(&full)
                .set_start_after(after.map(|after| format!("{base}{after}")))
                // At most `PAGE_KEYS_MAX`.
                .max_keys(limit as i32)
                .send()
                .await
                .map_err(|error| Failed::of("list", error))
        };
        let again = Again::WheneverItPasses;
        let reply = self.retry("list", again, request).await;
        let reply = reply.map_err(Failed::into_store_error)?;
        let mut page = Page::default();
        let mut last: Option<&str> = after;
        for object in reply.contents() {
            let Some(name) = object.key().and_then(|name| name.strip_prefix(&base)) else {
                page.foreign += 1;
                continue;
            };
            if last.is_some_and(|last| name <= last) {
                return Err(StoreError::Refused(
                    "the bucket does not list its objects in the order of their keys".into(),
                ));
            }
            last = Some(name);
            match Key::new(name) {
                Ok(key) => page.entries.push(Entry {
                    key,
                    bytes: object
                        .size()
                        .and_then(|size| size.try_into().ok())
                        .unwrap_or(0),
                }),
                Err(_) => page.foreign += 1,
            }
        }
        if reply.is_truncated() == Some(true) {
            if last == after {
                return Err(StoreError::Refused(
                    "the bucket's listing goes on without an object".into(),
                ));
            }
            page.next = last.map(str::to_owned);
        }
        Ok(page)
    }
}

impl BlobStore for S3Store {
    fn get<'a>(&'a self, key: &'a Key, want: Want) -> Answer<'a, Option<Blob>> {
        Box::pin(self.get_object(key, want))
    }

    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes, condition: Condition) -> Answer<'a, Version> {
        Box::pin(async move { self.put_object(key, bytes, &condition).await })
    }

    fn delete<'a>(&'a self, keys: &'a [Key]) -> Answer<'a, ()> {
        Box::pin(self.delete_objects(keys))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Page> {
        Box::pin(self.list_objects(prefix, after, limit))
    }
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store")
            .field("bucket", &self.options.bucket)
            .field("endpoint", &self.options.endpoint)
            .field("prefix", &self.options.prefix)
            .finish_non_exhaustive()
    }
}

/// What a failed put means.
fn put_failed(failed: Failed, condition: &Condition) -> StoreError {
    if failed.may_be_done {
        return StoreError::Ambiguous(failed.error.into());
    }
    match (failed.kind, condition) {
        (Kind::Precondition, _) | (Kind::Missing, Condition::Matches(_)) => {
            StoreError::Precondition
        }
        (Kind::Conflict, _) => StoreError::Conflict,
        (Kind::Unsupported, Condition::Absent | Condition::Matches(_)) => StoreError::Unsupported,
        _ => failed.into_store_error(),
    }
}

/// The version an ETag names. A weak one may be the same for other bytes.
fn version(tag: Option<&str>) -> Option<Version> {
    tag.filter(|tag| !tag.is_empty() && !tag.starts_with("W/"))
        .map(Version::new)
}

/// The version of content without a tag.
fn hashed(hash: Context) -> Version {
    Version::new(format!("{HASHED}{}", super::hex(hash.finish().as_ref())))
}
