//! What a failed request says about what was done.

use std::error::Error;
use std::fmt;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::store::{Cause, StoreError};

/// What an S3 store, or the way to it, answered at last.
#[derive(Debug)]
pub struct S3Error {
    operation: &'static str,
    status: Option<u16>,
    code: Option<String>,
    detail: String,
    attempts: u32,
    source: Option<Cause>,
}

impl S3Error {
    /// The status of the reply; `None` when there was none.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// The store's code, as in `NoSuchBucket`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Requests that were made.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// What to do about it.
    fn hint(&self) -> Option<&'static str> {
        match (self.status, self.code()) {
            (_, Some("RequestTimeTooSkewed")) => Some("set this machine's clock"),
            (_, Some("NoSuchBucket")) => Some("make the bucket, or look at its name"),
            (_, Some("AuthorizationHeaderMalformed" | "PermanentRedirect"))
            | (Some(300..=399), _) => Some("look at the region and the endpoint"),
            (Some(401 | 403), _) => Some("look at the credentials and the bucket's policy"),
            _ => None,
        }
    }
}

impl fmt::Display for S3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3 {}: {}", self.operation, self.detail)?;
        if let Some(hint) = self.hint() {
            write!(f, "; {hint}")?;
        }
        if let Some(status) = self.status {
            write!(f, " status={status}")?;
        }
        if let Some(code) = &self.code {
            write!(f, " code={code}")?;
        }
        write!(f, " attempts={}", self.attempts)
    }
}

impl Error for S3Error {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// What a failed request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is no such object.
    Missing,
    /// The condition did not hold.
    Precondition,
    /// Another request to the key is under way.
    Conflict,
    /// The object has none of the wanted bytes.
    OutOfRange,
    /// It was surely not done, and later may be.
    NotDone,
    /// It was done or not, or will be.
    Unknown,
    /// The store has no such thing.
    Unsupported,
    /// It was not done, and will not be.
    Refused,
}

/// A request failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) kind: Kind,
    /// This request or one before it in the same call may have been done.
    pub(super) may_be_done: bool,
    pub(super) error: S3Error,
}

impl Failed {
    /// A request that the client says failed.
    pub(super) fn of<E>(operation: &'static str, error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let status = error.raw_response().map(|reply| reply.status().as_u16());
        let code = error.code().map(str::to_owned);
        let kind = match (&error, status) {
            (SdkError::ConstructionFailure(_), _) => Kind::Refused,
            // A reply that cannot be read: only a refusal is clear from its status alone.
            (SdkError::ResponseError(_), Some(200..300)) => Kind::Unknown,
            (_, Some(status)) => kind(status, code.as_deref()),
            (SdkError::DispatchFailure(failure), None) => match failure.as_connector_error() {
                Some(error) if never_connected(error) => Kind::NotDone,
                Some(error) if error.is_user() => Kind::Refused,
                _ => Kind::Unknown,
            },
            _ => Kind::Unknown,
        };
        let detail = match (error.message(), status) {
            (Some(message), _) => message.to_owned(),
            (None, Some(_)) => "an error without a message".into(),
            (None, None) => "no reply".into(),
        };
        Self::with(
            kind,
            S3Error {
                operation,
                status,
                code,
                detail,
                attempts: 1,
                source: error.into_source().ok(),
            },
        )
    }

    /// A request that has no good reply.
    pub(super) fn plain(kind: Kind, operation: &'static str, detail: impl Into<String>) -> Self {
        Self::with(
            kind,
            S3Error {
                operation,
                status: None,
                code: None,
                detail: detail.into(),
                attempts: 1,
                source: None,
            },
        )
    }

    /// A key of a delete that failed while others did not.
    pub(super) fn of_key(code: Option<&str>, message: Option<&str>) -> Self {
        let kind = match code {
            Some("InternalError" | "ServiceUnavailable" | "SlowDown" | "OperationAborted") => {
                Kind::NotDone
            }
            Some("NoSuchKey") => Kind::Missing,
            _ => Kind::Refused,
        };
        let mut failed = Self::plain(kind, "delete", message.unwrap_or("a key is not deleted"));
        failed.error.code = code.map(str::to_owned);
        failed
    }

    pub(super) fn caused_by(mut self, source: impl Into<Cause>) -> Self {
        self.error.source = Some(source.into());
        self
    }

    pub(super) fn after(mut self, attempts: u32) -> Self {
        self.error.attempts = attempts;
        self
    }

    /// What it means for a call that changes nothing or may be made twice.
    pub(super) fn into_store_error(self) -> StoreError {
        match self.kind {
            Kind::Conflict | Kind::NotDone | Kind::Unknown => {
                StoreError::Unavailable(self.error.into())
            }
            _ => StoreError::Refused(self.error.into()),
        }
    }

    fn with(kind: Kind, error: S3Error) -> Self {
        Self {
            kind,
            may_be_done: kind == Kind::Unknown,
            error,
        }
    }
}

fn kind(status: u16, code: Option<&str>) -> Kind {
    match (status, code) {
        (_, Some("NoSuchBucket")) => Kind::Refused,
        // The store gave up waiting for the rest of the request.
        (_, Some("RequestTimeout" | "SlowDown")) => Kind::NotDone,
        (404, Some("NoSuchKey" | "NotFound") | None) => Kind::Missing,
        (304 | 412, _) => Kind::Precondition,
        (409, _) => Kind::Conflict,
        (416, _) => Kind::OutOfRange,
        (429 | 503, _) => Kind::NotDone,
        (501, _) => Kind::Unsupported,
        (408 | 500.., _) => Kind::Unknown,
        _ => Kind::Refused,
    }
}

/// Whether a request was not sent because there was no connection to send it on.
fn never_connected(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let client = error.downcast_ref::<hyper_util::client::legacy::Error>();
        if client.is_some_and(hyper_util::client::legacy::Error::is_connect) {
            return true;
        }
        next = error.source();
    }
    false
}
