//! Reading an object, or its beginning, without taking more than is wanted.

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use bytes::{Bytes, BytesMut};
use ring::digest::{Context, SHA256};

use super::failure::{Failed, Kind};
use super::{S3Store, version};
use crate::store::{Blob, Key, Want};

/// What a request for an object came to.
pub(super) enum Fetched {
    Blob(Blob),
    Missing,
    TooLarge(u64),
    /// The store cannot say it of a part: ask for all of it.
    AskForAll,
}

impl S3Store {
    /// Asks once. `ranged` asks for the wanted beginning alone.
    pub(super) async fn fetch(
        &self,
        key: &Key,
        want: Want,
        ranged: bool,
    ) -> Result<Fetched, Failed> {
        let mut request = self
            .client
            .get_object()
            .bucket(&self.options.bucket)
            .key(self.name(key));
        if let (Want::First(most), true) = (want, ranged) {
            // A range has at least a byte, and its end is one that signed numbers have.
            let last = most.clamp(1, i64::MAX as u64) - 1;
            request = request.range(format!("bytes=0-{last}"));
        }
        let reply = match request.send().await {
            Ok(reply) => reply,
            Err(error) => {
                let failed = Failed::of("get", error);
                return match failed.kind {
                    Kind::Missing => Ok(Fetched::Missing),
                    // An empty object has no first byte.
                    Kind::OutOfRange if ranged => Ok(Fetched::AskForAll),
                    _ => Err(failed),
                };
            }
        };
        take(reply, want).await
    }
}

async fn take(mut reply: GetObjectOutput, want: Want) -> Result<Fetched, Failed> {
    let said = reply
        .content_length()
        .and_then(|said| u64::try_from(said).ok());
    let ranged = reply.content_range().map(str::to_owned);
    let whole = match &ranged {
        Some(range) => range
            .rsplit_once('/')
            .and_then(|(_, total)| total.parse().ok()),
        None => said,
    };
    if let (Want::Whole { max }, Some(bytes)) = (want, whole)
        && bytes > max
    {
        return Ok(Fetched::TooLarge(bytes));
    }
    let known = version(reply.e_tag());
    if ranged.is_some() && (known.is_none() || whole.is_none()) {
        return Ok(Fetched::AskForAll);
    }
    let most = match want {
        Want::Whole { max } => max,
        Want::First(most) => most,
    };
    // The rest is read for its length or its hash, when the store says neither.
    let to_the_end = matches!(want, Want::Whole { .. }) || whole.is_none() || known.is_none();
    let mut hash = known.is_none().then(|| Context::new(&SHA256));
    let mut kept = BytesMut::new();
    let mut read = 0;
    while to_the_end || (read < most && said.is_none_or(|said| read < said)) {
        let Some(part) = reply.body.next().await else {
            break;
        };
        let part: Bytes = part.map_err(|error| broken("the body broke off").caused_by(error))?;
        if let Some(hash) = &mut hash {
            hash.update(&part);
        }
        // No more than the part has.
        let more = most.saturating_sub(read).min(part.len() as u64) as usize;
        kept.extend_from_slice(&part[..more]);
        read += part.len() as u64;
        if matches!(want, Want::Whole { max } if read > max) {
            return Ok(Fetched::TooLarge(read));
        }
    }
    let total = whole.unwrap_or(read);
    if kept.len() as u64 != most.min(total) || (to_the_end && said.is_some_and(|said| said != read))
    {
        return Err(broken("the body ended early"));
    }
    let version = known
        .or_else(|| hash.map(super::hashed))
        .ok_or_else(|| broken("an object without a version"))?;
    Ok(Fetched::Blob(Blob {
        bytes: kept.freeze(),
        version,
        total,
    }))
}

fn broken(detail: &str) -> Failed {
    Failed::plain(Kind::Unknown, "get", detail)
}
