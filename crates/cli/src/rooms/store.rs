//! Blob stores by URL, and the two wrappers that keep an operator's hands off them.

use std::net::Ipv6Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cabinet_durability::SystemEntropy;
use cabinet_durability::store::{
    Answer, Blob, BlobStore, Condition, DirStore, Key, Page, S3Credentials, S3Options, S3Store,
    StoreError, Version, Want,
};

use crate::outcome::Problem;

/// What a store's URL looks like, for messages.
const SHAPES: &str = "a folder, file:///FOLDER, or s3://BUCKET/PREFIX?region=REGION&endpoint=URL";

/// Longest name of a bucket or a region, bytes: what old ones have.
const NAME_BYTES_MAX: usize = 255;

/// Opens the store a URL names. `unsealed` takes records without a seal, from a folder only.
///
/// # Errors
/// [`Problem`]; credentials are in no message.
pub fn open(url: &str, unsealed: bool) -> Result<Arc<dyn BlobStore>, Problem> {
    if let Some(rest) = url.strip_prefix("s3://") {
        if unsealed {
            let what = "--unsealed is for folders only; a bucket needs --key-file FILE";
            return Err(Problem::new(what));
        }
        let options = s3_options(rest, |name| std::env::var(name).ok())?;
        return Ok(Arc::new(S3Store::new(options, Arc::new(SystemEntropy))));
    }
    let path = match url.strip_prefix("file://") {
        Some(path) if path.starts_with('/') => path,
        None if !url.contains("://") && !url.is_empty() => url,
        // What follows the scheme may hold a password.
        _ => {
            let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
            return Err(Problem::new(format!(
                "{scheme:?} is no kind of store; name {SHAPES}"
            )));
        }
    };
    let path = Path::new(path);
    if !path.is_dir() {
        let what = format!("{}: no such folder; name {SHAPES}", path.display());
        return Err(Problem::new(what));
    }
    let store = if unsealed {
        DirStore::unsealed_for_development(path)
    } else {
        DirStore::open(path)
    };
    let store = store.map_err(|error| Problem::about(path.display(), &error))?;
    Ok(Arc::new(store))
}

/// What follows `s3://`, and the environment.
fn s3_options(rest: &str, env: impl Fn(&str) -> Option<String>) -> Result<S3Options, Problem> {
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    if bucket.is_empty() {
        return Err(Problem::new(format!(
            "s3://{place}: no bucket; name {SHAPES}"
        )));
    }
    // Nothing is asked of a network for a name that cannot be one. Wider than Amazon's rules, as some
    // servers are.
    let is_name = |name: &str, more: &[u8]| {
        let all = |byte: &u8| byte.is_ascii_alphanumeric() || more.contains(byte);
        name.len() <= NAME_BYTES_MAX && name.as_bytes().iter().all(all)
    };
    // A step of a path is no bucket either: whatever takes such steps out of a URL asks for another.
    if !is_name(bucket, b"-._") || matches!(bucket, "." | "..") {
        return Err(Problem::new(format!(
            "s3://{place}: a bucket's name is made of letters, digits, `-`, `.` and `_`, and is not `.` or `..`"
        )));
    }
    let (mut region, mut endpoint) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let field = match name {
            "region" => &mut region,
            "endpoint" => &mut endpoint,
            // What somebody took for a parameter may be a secret.
            _ => {
                let what = "a store's URL takes region and endpoint only; credentials come from the environment";
                return Err(Problem::new(what));
            }
        };
        if value.is_empty() || field.replace(value.to_owned()).is_some() {
            return Err(Problem::new(format!(
                "give {name}=VALUE once in the store's URL"
            )));
        }
    }
    if endpoint.as_deref().is_some_and(|url| !is_endpoint(url)) {
        // Not repeated: there may be a password in it.
        let what = "the endpoint is http://HOST:PORT or https://HOST, and has no user in it; credentials come from the environment";
        return Err(Problem::new(what));
    }
    let set = || env("AWS_REGION").filter(|region| !region.is_empty());
    let region = region.or_else(set).ok_or_else(|| {
        Problem::new("no region: add ?region=REGION to the store's URL or set AWS_REGION")
    })?;
    if !is_name(&region, b"-_") {
        let what = format!(
            "the region's name, in the store's URL or AWS_REGION, is made of letters, digits, `-` and `_`, at most {NAME_BYTES_MAX}"
        );
        return Err(Problem::new(what));
    }
    let secret = |name: &str| {
        let value = env(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| Problem::new(format!("no credentials: set {name} in the environment")))
    };
    let mut credentials = S3Credentials::new(
        secret("AWS_ACCESS_KEY_ID")?,
        secret("AWS_SECRET_ACCESS_KEY")?,
    );
    if let Some(token) = env("AWS_SESSION_TOKEN") {
        credentials = credentials.with_session_token(token);
    }
    let mut options = S3Options::new(bucket, region, credentials);
    if let Some(endpoint) = endpoint {
        options = options.at(endpoint);
    }
    let prefix = prefix.trim_end_matches('/');
    if !prefix.is_empty() {
        let key = Key::new(prefix).map_err(|error| Problem::about("the store's prefix", &error))?;
        options.prefix = Some(key);
    }
    Ok(options)
}

/// Whether a URL can be that of an S3 server.
fn is_endpoint(url: &str) -> bool {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest else {
        return false;
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = match host.strip_prefix('[') {
        Some(address) => match address.split_once(']') {
            Some((address, rest)) if address.parse::<Ipv6Addr>().is_ok() => ("v6", rest),
            _ => return false,
        },
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_of = |text: &str, more: &[u8]| {
        let all = |byte: &u8| byte.is_ascii_alphanumeric() || more.contains(byte);
        text.as_bytes().iter().all(all)
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    !host.is_empty()
        && is_of(host, b"-._")
        && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
        && is_of(path, b"-._~/")
}

/// A store nothing is written to, whatever is tried: what commands that only look are given.
pub struct ReadOnly(pub Arc<dyn BlobStore>);

impl BlobStore for ReadOnly {
    fn get<'a>(&'a self, key: &'a Key, want: Want) -> Answer<'a, Option<Blob>> {
        self.0.get(key, want)
    }

    fn put<'a>(&'a self, _: &'a Key, _: Bytes, _: Condition) -> Answer<'a, Version> {
        Box::pin(async { Err(StoreError::Refused("this command only reads".into())) })
    }

    fn delete<'a>(&'a self, _: &'a [Key]) -> Answer<'a, ()> {
        Box::pin(async { Err(StoreError::Refused("this command only reads".into())) })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Page> {
        self.0.list(prefix, after, limit)
    }

    fn allows_unsealed(&self) -> bool {
        self.0.allows_unsealed()
    }
}

/// A store that notes what would be written, and writes nothing.
pub struct DryRun {
    store: Arc<dyn BlobStore>,
    notes: Mutex<Vec<String>>,
}

impl DryRun {
    /// Over this store.
    #[must_use]
    pub fn new(store: Arc<dyn BlobStore>) -> Self {
        let notes = Mutex::default();
        Self { store, notes }
    }

    /// What would have been done, in order: `put KEY` and `delete KEY`.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlobStore for DryRun {
    fn get<'a>(&'a self, key: &'a Key, want: Want) -> Answer<'a, Option<Blob>> {
        self.store.get(key, want)
    }

    fn put<'a>(&'a self, key: &'a Key, _: Bytes, _: Condition) -> Answer<'a, Version> {
        let mut notes = self.lock();
        notes.push(format!("put {}", key.as_str()));
        let version = Version::new(format!("dry-{}", notes.len()));
        Box::pin(async { Ok(version) })
    }

    fn delete<'a>(&'a self, keys: &'a [Key]) -> Answer<'a, ()> {
        let keys = keys.iter().map(|key| format!("delete {}", key.as_str()));
        self.lock().extend(keys);
        Box::pin(async { Ok(()) })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Page> {
        self.store.list(prefix, after, limit)
    }

    fn allows_unsealed(&self) -> bool {
        self.store.allows_unsealed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(rest: &str) -> Result<S3Options, Problem> {
        options_in(None, rest)
    }

    /// With a region in the environment.
    fn options_in(region: Option<&str>, rest: &str) -> Result<S3Options, Problem> {
        s3_options(rest, |name| match name {
            "AWS_ACCESS_KEY_ID" => Some("id".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("hush".to_owned()),
            "AWS_REGION" => region.map(str::to_owned),
            _ => None,
        })
    }

    #[test]
    fn a_bucket_is_named_with_prefix_region_and_endpoint() {
        let options = options("rooms/live/eu?region=auto&endpoint=http://127.0.0.1:9000").unwrap();
        assert_eq!((&*options.bucket, &*options.region), ("rooms", "auto"));
        assert_eq!(options.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert!(options.path_style);
        assert_eq!(options.prefix.unwrap().as_str(), "live/eu");
    }

    #[test]
    fn a_url_that_is_none_says_what_one_is_and_shows_no_secret() {
        for (rest, wanted) in [
            ("?region=a", "no bucket"),
            ("b", "no region"),
            ("b?region=a&region=b", "once"),
            ("b?region=", "once"),
            (
                "b?region=a&secret=hush",
                "credentials come from the environment",
            ),
            ("b/UPPER?region=a", "prefix"),
            ("b b?region=a", "letters, digits"),
            (".?region=a", "a bucket's name"),
            ("../p?region=a", "a bucket's name"),
            ("b\n?region=a", "letters, digits"),
            ("b?region=a b", "region's name"),
            ("b?region=a&endpoint=ftp://hush@x", "http://HOST:PORT"),
            (
                "b?region=a&endpoint=http://id:hush@127.0.0.1:9",
                "no user in it",
            ),
            ("b?region=a&endpoint=http://", "http://HOST:PORT"),
            ("b?region=a&endpoint=http://[::1", "http://HOST:PORT"),
            ("b?region=a&endpoint=http://h:0", "http://HOST:PORT"),
            ("b?region=a&endpoint=http://h:65536", "http://HOST:PORT"),
            ("b?region=a&endpoint=http://h/%zz", "http://HOST:PORT"),
        ] {
            let told = options(rest).unwrap_err().to_string();
            assert!(told.contains(wanted), "{rest}: {told}");
            assert!(!told.contains("hush"), "{told}");
        }
        for endpoint in [
            "http://[::1]:9000",
            "https://s3.example.org",
            "http://h_1:65535/p/q~",
        ] {
            assert!(
                options(&format!("b?region=a&endpoint={endpoint}")).is_ok(),
                "{endpoint}"
            );
        }
        for (bucket, taken) in [("b".repeat(255), true), ("b".repeat(256), false)] {
            let of = options(&format!("{bucket}?region=a"));
            assert_eq!(of.is_ok(), taken, "{} bytes", bucket.len());
        }
        for (region, taken) in [("r".repeat(255), true), ("r".repeat(256), false)] {
            let of = [
                options(&format!("b?region={region}")),
                options_in(Some(&region), "b"),
            ];
            for of in of {
                assert_eq!(of.is_ok(), taken, "{} bytes", region.len());
            }
        }
        let of = options_in(Some("us\nhush"), "b").unwrap_err().to_string();
        assert!(of.contains("AWS_REGION") && !of.contains("hush"), "{of}");
        let none = options_in(Some(""), "b").unwrap_err().to_string();
        assert!(none.contains("no region"), "{none}");
        // The URL's wins.
        let of = options_in(Some("b b"), "b?region=a").unwrap();
        assert_eq!(of.region, "a");
        let none = s3_options("b?region=a", |_| None).unwrap_err().to_string();
        assert_eq!(
            none,
            "no credentials: set AWS_ACCESS_KEY_ID in the environment"
        );
        for url in ["", "ftp://x", "file://relative", "/no/such/folder"] {
            assert!(open(url, false).is_err(), "{url}");
        }
        assert!(open("s3://b?region=a", true).is_err());
    }
}
