//! The layout of the file, version 1.
//!
//! Every table of the redb file maps bytes to bytes. Integers are little-endian but in keys, where
//! they are big-endian so that keys sort by them.
//!
//! ```text
//! meta     "format"                                  u32 version
//! kv       slug 00 · u16 length · account · key      u8 rule · value
//! config   slug 00 · key                             value
//! posts    post id, 32 bytes                         (nothing)
//! results  slug 00 · u64 time · post id              u8 mode · { u8 status · i64 metric · u16 length · account }
//! handles  account                                   handle
//!
//! rule     0 none, 1 keep-winner, 2 keep-loser, 3 sum, 4 max
//! time     Unix nanoseconds plus 2^63
//! mode     as on the wire: 0 quick, 1 private, 2 solo
//! status   as on the wire: 0 finished, 1 dnf, 2 flagged; 255 for none of them
//! ```
//!
//! A slug has no zero byte, so `slug 00` is the prefix of its own keys alone.

use cabinet_host::{Mode, Status};
use redb::TableDefinition;

use crate::services::rules::Row;
use crate::services::{KvAddress, MergeRule, PostId};

/// The version of the layout this code writes.
pub const FORMAT_VERSION: u32 = 1;

pub(super) type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

pub(super) const META: Table = TableDefinition::new("meta");
pub(super) const KV: Table = TableDefinition::new("kv");
pub(super) const CONFIG: Table = TableDefinition::new("config");
pub(super) const POSTS: Table = TableDefinition::new("posts");
pub(super) const RESULTS: Table = TableDefinition::new("results");
pub(super) const HANDLES: Table = TableDefinition::new("handles");

/// The key of the version in `meta`.
pub(super) const FORMAT_KEY: &[u8] = b"format";

/// What every key of a game begins with.
pub(super) fn slug_prefix(slug: &str) -> Vec<u8> {
    let mut prefix = slug.as_bytes().to_vec();
    prefix.push(0);
    prefix
}

/// What every kv key of an account begins with.
pub(super) fn account_prefix(slug: &str, account: &str) -> Vec<u8> {
    let mut prefix = slug_prefix(slug);
    // Accounts are checked to be far shorter than 64 KiB before they get here.
    prefix.extend((account.len() as u16).to_be_bytes());
    prefix.extend(account.as_bytes());
    prefix
}

pub(super) fn kv_key(at: KvAddress<'_>) -> Vec<u8> {
    let mut key = account_prefix(at.slug, at.account);
    key.extend(at.key);
    key
}

/// Account and key out of what follows the slug's prefix.
pub(super) fn split_account(rest: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = rest.split_first_chunk()?;
    let (account, key) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    Some((std::str::from_utf8(account).ok()?, key))
}

pub(super) fn config_key(slug: &str, key: &[u8]) -> Vec<u8> {
    let mut at = slug_prefix(slug);
    at.extend(key);
    at
}

pub(super) fn value(rule: Option<MergeRule>, value: &[u8]) -> Vec<u8> {
    let rule = match rule {
        None => 0,
        Some(MergeRule::KeepWinner) => 1,
        Some(MergeRule::KeepLoser) => 2,
        Some(MergeRule::Sum) => 3,
        Some(MergeRule::Max) => 4,
    };
    let mut record = Vec::with_capacity(1 + value.len());
    record.push(rule);
    record.extend(value);
    record
}

/// Rule and value; `None` for a damaged record.
pub(super) fn read_value(record: &[u8]) -> Option<(Option<MergeRule>, &[u8])> {
    let (rule, value) = record.split_first()?;
    let rule = match rule {
        0 => None,
        1 => Some(MergeRule::KeepWinner),
        2 => Some(MergeRule::KeepLoser),
        3 => Some(MergeRule::Sum),
        4 => Some(MergeRule::Max),
        _ => return None,
    };
    Some((rule, value))
}

/// Where the results of a game from this time on begin.
pub(super) fn results_from(slug: &str, since: i64) -> Vec<u8> {
    let mut key = slug_prefix(slug);
    key.extend(((since as u64) ^ (1 << 63)).to_be_bytes());
    key
}

pub(super) fn result_key(slug: &str, at: i64, id: PostId) -> Vec<u8> {
    let mut key = results_from(slug, at);
    key.extend(id.0);
    key
}

/// The time out of what follows the slug's prefix.
pub(super) fn read_time(rest: &[u8]) -> Option<i64> {
    let time = rest.first_chunk()?;
    Some((u64::from_be_bytes(*time) ^ (1 << 63)) as i64)
}

const NO_STATUS: u8 = 255;

/// `None` when no row is left.
pub(super) fn result<'a>(mode: Mode, rows: impl Iterator<Item = Row<'a>>) -> Option<Vec<u8>> {
    let mut record = vec![mode.into()];
    for row in rows {
        record.push(row.status.map_or(NO_STATUS, u8::from));
        record.extend(row.metric.to_le_bytes());
        // As in `account_prefix`.
        record.extend((row.account.len() as u16).to_le_bytes());
        record.extend(row.account.as_bytes());
    }
    (record.len() > 1).then_some(record)
}

/// Calls `each` with every row; `None` for a damaged record.
pub(super) fn read_result<'a>(record: &'a [u8], mut each: impl FnMut(Row<'a>)) -> Option<Mode> {
    let (mode, mut rest) = record.split_first()?;
    let mode = Mode::try_from(*mode).ok()?;
    while let Some((status, after)) = rest.split_first() {
        let (metric, after) = after.split_first_chunk()?;
        let (length, after) = after.split_first_chunk()?;
        let (account, after) = after.split_at_checked(u16::from_le_bytes(*length).into())?;
        rest = after;
        each(Row {
            account: std::str::from_utf8(account).ok()?,
            metric: i64::from_le_bytes(*metric),
            status: Status::try_from(*status).ok(),
        });
    }
    Some(mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_of_version_1_is_fixed() {
        let at = KvAddress {
            slug: "g",
            account: "ada",
            key: b"\0k",
        };
        assert_eq!(kv_key(at), b"g\0\0\x03ada\0k");
        assert_eq!(config_key("g", b"k"), b"g\0k");
        assert_eq!(value(Some(MergeRule::Sum), b"7"), b"\x037");
        assert_eq!(
            result_key("g", 1, PostId([9; 32]))[..10],
            *b"g\0\x80\0\0\0\0\0\0\x01"
        );
        assert_eq!(result_key("g", 1, PostId([9; 32]))[10..], [9; 32]);
        let rows = [
            Row {
                account: "ada",
                metric: -2,
                status: Some(Status::Dnf),
            },
            Row {
                account: "b",
                metric: 1,
                status: None,
            },
        ];
        let record = result(Mode::Solo, rows.into_iter()).unwrap();
        assert_eq!(
            record,
            b"\x02\x01\xfe\xff\xff\xff\xff\xff\xff\xff\x03\0ada\xff\x01\0\0\0\0\0\0\0\x01\0b"
        );
        let mut read = Vec::new();
        assert_eq!(read_result(&record, |row| read.push(row)), Some(Mode::Solo));
        assert_eq!(read, rows);
        assert_eq!(result(Mode::Solo, std::iter::empty()), None);
    }

    #[test]
    fn keys_of_results_sort_by_time() {
        let times = [i64::MIN, -1, 0, 1, i64::MAX];
        assert!(times.map(|at| results_from("g", at)).is_sorted());
        for at in times {
            let key = result_key("g", at, PostId([1; 32]));
            assert_eq!(read_time(&key[2..]), Some(at));
        }
    }

    proptest! {
        #[test]
        fn damaged_records_are_told_from_whole_ones_without_a_panic(bytes: Vec<u8>) {
            let mut rows = Vec::new();
            if let Some(mode) = read_result(&bytes, |row| rows.push(row))
                && rows.iter().all(|row| row.status.is_some())
                && !rows.is_empty()
            {
                prop_assert_eq!(result(mode, rows.into_iter()), Some(bytes.clone()));
            }
            if let Some((rule, read)) = read_value(&bytes) {
                prop_assert_eq!(value(rule, read), bytes.clone());
            }
            if let Some((account, key)) = split_account(&bytes) {
                prop_assert_eq!(&account_prefix("", account)[1..], &bytes[..bytes.len() - key.len()]);
            }
        }

        #[test]
        fn two_addresses_never_share_a_key(
            a in ("[a-b]{1,2}", "[a-b]{0,2}", "[a-b\0]{1,2}"),
            b in ("[a-b]{1,2}", "[a-b]{0,2}", "[a-b\0]{1,2}"),
        ) {
            let key = |(slug, account, key): &(String, String, String)| kv_key(KvAddress {
                slug,
                account,
                key: key.as_bytes(),
            });
            prop_assert_eq!(key(&a) == key(&b), a == b);
        }
    }
}
