//! How large what a store keeps may be. Both stores of this crate refuse what is larger before they
//! look at anything else; a guest sees such a write vanish.

use super::{KvAddress, Post, ServiceError};

/// Bytes of a slug.
pub const SLUG_BYTES_MAX: usize = 128;
/// Bytes of an account id.
pub const ACCOUNT_BYTES_MAX: usize = 1_024;
/// Bytes of a key, of values and of configuration alike.
pub const KEY_BYTES_MAX: usize = 4_096;
/// Bytes of a value, stored or configured.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Bytes a post takes: [`POST_ROW_BYTES`] and the account id for each standing. The largest result
/// the wire can carry, 65,535 standings, fits with account ids of 53 bytes.
pub const POST_BYTES_MAX: usize = 4 << 20;
/// What a standing takes besides its account id.
pub const POST_ROW_BYTES: usize = 11;
/// Bytes of a handle that are remembered; longer ones are cut at a character.
pub const HANDLE_BYTES_MAX: usize = 256;

/// A request is larger than a store takes, or names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// The slug is empty, longer than [`SLUG_BYTES_MAX`], or has a zero byte.
    #[error("slug of {bytes} bytes: want 1 to {SLUG_BYTES_MAX}, none of them zero")]
    Slug {
        /// Its length.
        bytes: usize,
    },
    /// The account id is longer than [`ACCOUNT_BYTES_MAX`].
    #[error("account id of {bytes} bytes: want at most {ACCOUNT_BYTES_MAX}")]
    Account {
        /// Its length.
        bytes: usize,
    },
    /// The key is empty or longer than [`KEY_BYTES_MAX`].
    #[error("key of {bytes} bytes: want 1 to {KEY_BYTES_MAX}")]
    Key {
        /// Its length.
        bytes: usize,
    },
    /// The value is longer than [`VALUE_BYTES_MAX`].
    #[error("value of {bytes} bytes: want at most {VALUE_BYTES_MAX}")]
    Value {
        /// Its length.
        bytes: usize,
    },
    /// The post takes more than [`POST_BYTES_MAX`].
    #[error("post of {bytes} bytes: want at most {POST_BYTES_MAX}")]
    Post {
        /// What it takes.
        bytes: usize,
    },
}

impl From<LimitError> for ServiceError {
    fn from(error: LimitError) -> Self {
        Self::Refused(error.to_string())
    }
}

/// Checks a slug.
///
/// # Errors
/// [`LimitError::Slug`]
pub fn check_slug(slug: &str) -> Result<(), LimitError> {
    let bytes = slug.len();
    let good = (1..=SLUG_BYTES_MAX).contains(&bytes) && !slug.as_bytes().contains(&0);
    good.then_some(()).ok_or(LimitError::Slug { bytes })
}

/// Checks an account id; the empty one, which keyless guests share, passes.
///
/// # Errors
/// [`LimitError::Account`]
pub fn check_account(account: &str) -> Result<(), LimitError> {
    let bytes = account.len();
    (bytes <= ACCOUNT_BYTES_MAX)
        .then_some(())
        .ok_or(LimitError::Account { bytes })
}

/// Checks a key.
///
/// # Errors
/// [`LimitError::Key`]
pub fn check_key(key: &[u8]) -> Result<(), LimitError> {
    let bytes = key.len();
    (1..=KEY_BYTES_MAX)
        .contains(&bytes)
        .then_some(())
        .ok_or(LimitError::Key { bytes })
}

/// Checks a value.
///
/// # Errors
/// [`LimitError::Value`]
pub fn check_value(value: &[u8]) -> Result<(), LimitError> {
    let bytes = value.len();
    (bytes <= VALUE_BYTES_MAX)
        .then_some(())
        .ok_or(LimitError::Value { bytes })
}

/// Checks where a value is to be kept.
///
/// # Errors
/// The first part that does not pass.
pub fn check_address(at: KvAddress<'_>) -> Result<(), LimitError> {
    check_slug(at.slug)?;
    check_account(at.account)?;
    check_key(at.key)
}

/// Checks a post.
///
/// # Errors
/// The first part that does not pass.
pub fn check_post(post: &Post) -> Result<(), LimitError> {
    check_slug(&post.slug)?;
    let mut bytes = 0;
    for standing in &post.result.standings {
        check_account(&standing.player.account)?;
        bytes += POST_ROW_BYTES + standing.player.account.len();
    }
    (bytes <= POST_BYTES_MAX)
        .then_some(())
        .ok_or(LimitError::Post { bytes })
}
