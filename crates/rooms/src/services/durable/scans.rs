//! The thread that reads long: boards, integer values, results.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::Receiver;

use redb::{ReadTransaction, ReadableDatabase};

use super::format::{self, HANDLES, KV, RESULTS};
use super::{Broken, Shared};
use crate::board::{BoardSpec, Score, Tally};
use crate::reply::Reply;
use crate::services::{Recorded, ServiceError, rules};

/// A scan that waits.
pub(super) enum Scan {
    Scores {
        slug: String,
        since: Option<i64>,
        spec: BoardSpec,
        reply: Reply<Vec<Score>>,
    },
    Integers {
        slug: String,
        key: Vec<u8>,
        reply: Reply<BTreeMap<String, i64>>,
    },
    Results {
        slug: String,
        since: Option<i64>,
        limit: usize,
        reply: Reply<Vec<Recorded>>,
    },
}

impl Scan {
    pub(super) fn refuse(self, error: ServiceError) {
        match self {
            Self::Scores { reply, .. } => reply.send(Err(error)),
            Self::Integers { reply, .. } => reply.send(Err(error)),
            Self::Results { reply, .. } => reply.send(Err(error)),
        }
    }

    fn answer(self, shared: &Shared) {
        match self {
            Self::Scores {
                slug,
                since,
                spec,
                reply,
            } => reply.send(read(shared, |from| scores(from, &slug, since, &spec))),
            Self::Integers { slug, key, reply } => {
                reply.send(read(shared, |from| integers(from, &slug, &key)));
            }
            Self::Results {
                slug,
                since,
                limit,
                reply,
            } => reply.send(read(shared, |from| results(from, &slug, since, limit))),
        }
    }
}

/// Runs until every sender is gone and everything queued is answered.
pub(super) fn run(shared: &Shared, queue: &Receiver<Scan>) {
    while let Ok(scan) = queue.recv() {
        // A panic has dropped the reply, which answered it.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| scan.answer(shared)));
    }
}

/// Reads from one moment of the store.
fn read<T>(
    shared: &Shared,
    scan: impl FnOnce(&ReadTransaction) -> Result<T, Broken>,
) -> Result<T, ServiceError> {
    shared.work("reading", |database| scan(&database.begin_read()?))
}

fn scores(
    from: &ReadTransaction,
    slug: &str,
    since: Option<i64>,
    spec: &BoardSpec,
) -> Result<Vec<Score>, Broken> {
    let mut tally = Tally::new(spec);
    each_result(from, slug, since, |at, record| {
        format::read_result(record, |row| tally.add(row.account, row.metric, at))
            .map(|_| true)
            .ok_or(Broken::Record)
    })?;
    let handles = from.open_table(HANDLES)?;
    let mut broken = None;
    let scores = tally.scores(|account| match handles.get(account.as_bytes()) {
        Ok(handle) => handle.map(|handle| String::from_utf8_lossy(handle.value()).into_owned()),
        Err(error) => {
            broken = Some(error);
            None
        }
    });
    broken.map_or(Ok(scores), |error| Err(error.into()))
}

fn results(
    from: &ReadTransaction,
    slug: &str,
    since: Option<i64>,
    limit: usize,
) -> Result<Vec<Recorded>, Broken> {
    let mut results = Vec::new();
    each_result(from, slug, since, |at, record| {
        let mut rows = Vec::new();
        let mode = format::read_result(record, |row| rows.push(row)).ok_or(Broken::Record)?;
        let room = limit - results.len();
        results.extend(rows.into_iter().take(room).map(|row| Recorded {
            account: row.account.into(),
            metric: row.metric,
            mode,
            status: row.status,
            at,
        }));
        Ok(results.len() < limit)
    })?;
    Ok(results)
}

/// Calls `each` with the time and record of every result from `since` on, until it says false.
fn each_result(
    from: &ReadTransaction,
    slug: &str,
    since: Option<i64>,
    mut each: impl FnMut(i64, &[u8]) -> Result<bool, Broken>,
) -> Result<(), Broken> {
    let prefix = format::slug_prefix(slug);
    let start = format::results_from(slug, since.unwrap_or(i64::MIN));
    let results = from.open_table(RESULTS)?;
    for entry in results.range(start.as_slice()..)? {
        let (key, record) = entry?;
        let Some(rest) = key.value().strip_prefix(prefix.as_slice()) else {
            break;
        };
        let at = format::read_time(rest).ok_or(Broken::Record)?;
        if !each(at, record.value())? {
            break;
        }
    }
    Ok(())
}

fn integers(
    from: &ReadTransaction,
    slug: &str,
    wanted: &[u8],
) -> Result<BTreeMap<String, i64>, Broken> {
    let prefix = format::slug_prefix(slug);
    let mut values = BTreeMap::new();
    let kv = from.open_table(KV)?;
    for entry in kv.range(prefix.as_slice()..)? {
        let (key, record) = entry?;
        let Some(rest) = key.value().strip_prefix(prefix.as_slice()) else {
            break;
        };
        let (account, key) = format::split_account(rest).ok_or(Broken::Record)?;
        if key != wanted {
            continue;
        }
        let (_, value) = format::read_value(record.value()).ok_or(Broken::Record)?;
        if let Some(value) = rules::integer(value) {
            values.insert(account.to_owned(), value);
        }
    }
    Ok(values)
}
