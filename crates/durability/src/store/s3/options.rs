//! Which bucket, and how patiently.

use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::store::Key;

/// Where objects are, and how long to try. Start from [`S3Options::new`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct S3Options {
    /// The bucket, which is there.
    pub bucket: String,
    /// Its region; what a store without regions wants to be told ("auto", "us-east-1", "garage").
    pub region: String,
    /// The store's URL; `None` is AWS.
    pub endpoint: Option<String>,
    /// The bucket is in the path and not in the host's name, as most stores but AWS want it.
    pub path_style: bool,
    /// Who asks.
    pub credentials: S3Credentials,
    /// Every key has this and a `/` before it in the bucket.
    pub prefix: Option<Key>,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How often to try.
    pub retries: Retries,
}

impl S3Options {
    /// A bucket of AWS.
    #[must_use]
    pub fn new(
        bucket: impl Into<String>,
        region: impl Into<String>,
        credentials: S3Credentials,
    ) -> Self {
        Self {
            bucket: bucket.into(),
            region: region.into(),
            endpoint: None,
            path_style: false,
            credentials,
            prefix: None,
            timeouts: Timeouts::default(),
            retries: Retries::default(),
        }
    }

    /// The same bucket's name on another store, with the bucket in the path.
    #[must_use]
    pub fn at(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(endpoint.into());
        self.path_style = true;
        self
    }
}

/// An access key and its secret. The secret is wiped from memory with it, though not from the S3
/// client, and is never shown.
#[derive(Clone)]
pub struct S3Credentials {
    access_key: String,
    secret_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
}

impl S3Credentials {
    /// Credentials for as long as they are valid.
    #[must_use]
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self {
            access_key: access_key.into(),
            secret_key: Zeroizing::new(secret_key.into()),
            session_token: None,
        }
    }

    /// The same, with the token of a session.
    #[must_use]
    pub fn with_session_token(mut self, token: impl Into<String>) -> Self {
        self.session_token = Some(Zeroizing::new(token.into()));
        self
    }

    pub(super) fn access_key(&self) -> &str {
        &self.access_key
    }

    pub(super) fn secret_key(&self) -> &str {
        &self.secret_key
    }

    pub(super) fn session_token(&self) -> Option<&str> {
        self.session_token.as_ref().map(|token| token.as_str())
    }
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Credentials")
            .field("access_key", &self.access_key)
            .finish_non_exhaustive()
    }
}

/// How long to wait for a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// For a connection, 3 s. Less than `attempt`: what was not connected was surely not done.
    pub connect: Duration,
    /// For one request and its whole reply, 10 s.
    pub attempt: Duration,
    /// For all requests of a call and the pauses between them, 30 s.
    pub operation: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            attempt: Duration::from_secs(10),
            operation: Duration::from_secs(30),
        }
    }
}

/// How often to try, and how long to pause in between: at random, at most `base` before the second
/// request, twice that before the third, and so on up to `cap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retries {
    /// Requests of one call, 5; at least one is made.
    pub attempts_max: u32,
    /// The longest first pause, 50 ms.
    pub base: Duration,
    /// The longest pause, 2 s.
    pub cap: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            base: Duration::from_millis(50),
            cap: Duration::from_secs(2),
        }
    }
}

impl Retries {
    /// The longest pause after so many requests.
    pub(super) fn pause_max(&self, requests: u32) -> Duration {
        let doubled = 1_u32.checked_shl(requests.saturating_sub(1));
        let grown = doubled.and_then(|times| self.base.checked_mul(times));
        grown.unwrap_or(self.cap).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let credentials = S3Credentials::new("access", "hidden").with_session_token("hidden");
        let shown = format!("{:?}", S3Options::new("bucket", "region", credentials));
        assert!(
            shown.contains("access") && !shown.contains("hidden"),
            "{shown}"
        );
    }

    #[test]
    fn pauses_double_up_to_the_cap() {
        let retries = Retries::default();
        let pauses =
            [1, 2, 3, 6, 7, 40, u32::MAX].map(|requests| retries.pause_max(requests).as_millis());
        assert_eq!(pauses, [50, 100, 200, 1_600, 2_000, 2_000, 2_000]);
    }
}
