//! The thread that writes: takes what is queued, commits it together, answers.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use redb::{Database, ReadableTable, WriteTransaction};

use super::format::{self, CONFIG, HANDLES, KV, POSTS, RESULTS};
use super::waiting::Weight;
use super::{Broken, Shared, locked};
use crate::reply::Reply;
use crate::services::rules::{self, Stored};
use crate::services::{MergeRule, Post, PostId, Posted, ServiceError};

/// A write that waits.
pub(super) struct Write {
    pub(super) op: Op,
    pub(super) answer: Answer,
}

/// What is to be written. Keys are those of `format`.
pub(super) enum Op {
    Set {
        key: Vec<u8>,
        value: Vec<u8>,
        rule: Option<MergeRule>,
    },
    Delete {
        key: Vec<u8>,
    },
    /// `None` takes the value away.
    Config {
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    },
    /// Prefixes of the two accounts' keys.
    Merge {
        winner: Vec<u8>,
        loser: Vec<u8>,
    },
    /// `result` is absent when no standing counts; the post is known all the same.
    Post {
        id: PostId,
        key: Vec<u8>,
        result: Option<Vec<u8>>,
        handles: Vec<(String, String)>,
    },
}

/// Who is told.
pub(super) enum Answer {
    Done(Reply<()>),
    Posted(Reply<Posted>),
}

impl Answer {
    pub(super) fn send(self, outcome: Result<Posted, ServiceError>) {
        match self {
            Self::Done(reply) => reply.send(outcome.map(drop)),
            Self::Posted(reply) => reply.send(outcome),
        }
    }
}

impl Op {
    pub(super) fn post(post: &Post) -> Self {
        let handles = rules::handles(post);
        Self::Post {
            id: post.id,
            key: format::result_key(&post.slug, post.at, post.id),
            result: format::result(post.result.mode, rules::rows(post)),
            handles: handles.map(|(a, h)| (a.into(), h.into())).collect(),
        }
    }

    pub(super) fn weight(&self) -> Weight {
        Weight {
            bytes: self.bytes(),
            is_post: matches!(self, Self::Post { .. }),
        }
    }

    /// Roughly what it takes in memory.
    fn bytes(&self) -> usize {
        let held = match self {
            Self::Set { key, value, .. } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
            Self::Config { key, value } => key.len() + value.as_ref().map_or(0, Vec::len),
            Self::Merge { winner, loser } => winner.len() + loser.len(),
            Self::Post {
                key,
                result,
                handles,
                ..
            } => {
                let handles: usize = handles.iter().map(|(a, h)| a.len() + h.len() + 48).sum();
                key.len() + result.as_ref().map_or(0, Vec::len) + handles
            }
        };
        held + size_of::<Write>()
    }
}

/// How much goes into one transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimits {
    pub(super) writes_max: usize,
    pub(super) bytes_max: usize,
}

/// Runs until every sender is gone and everything queued is answered.
pub(super) fn run(shared: &Shared, queue: &Receiver<Write>, limits: BatchLimits) {
    while let Ok(first) = queue.recv() {
        let mut bytes = first.op.bytes();
        let mut batch = vec![first];
        while batch.len() < limits.writes_max && bytes < limits.bytes_max {
            let Ok(next) = queue.try_recv() else { break };
            bytes += next.op.bytes();
            batch.push(next);
        }
        {
            let mut waiting = locked(&shared.waiting);
            for write in &batch {
                waiting.leaves(write.op.weight());
            }
        }
        let outcomes = shared.work("writing", |database| commit(database, &batch));
        if outcomes.is_ok() {
            shared.commits.fetch_add(1, Ordering::Relaxed);
            let writes = batch.len() as u64;
            shared.writes.fetch_add(writes, Ordering::Relaxed);
        }
        for (index, write) in batch.into_iter().enumerate() {
            let outcome = match &outcomes {
                Ok(outcomes) => outcomes[index].clone(),
                Err(error) => Err(error.clone()),
            };
            // What a reply does is not the store's; if it panics the next one still gets its own.
            let _ = panic::catch_unwind(AssertUnwindSafe(|| write.answer.send(outcome)));
        }
    }
}

/// One outcome per write; that of anything but a post means nothing but that it was done.
type Outcomes = Vec<Result<Posted, ServiceError>>;

/// Sizes were checked before, so an error is about the file and not about these writes.
fn commit(database: &Database, batch: &[Write]) -> Result<Outcomes, Broken> {
    let mut transaction = database.begin_write()?;
    // Two syncs a commit instead of one, and the store opens at once after a crash, whatever its
    // size; and no guest's bytes can pass for a checksum that was not written. The commit counts
    // only once its pages were synced, so it is safe to reopen the file after a sync failed.
    transaction.set_quick_repair(true);
    let mut outcomes = Vec::with_capacity(batch.len());
    for write in batch {
        outcomes.push(match apply(&transaction, &write.op) {
            Ok(posted) => Ok(posted),
            Err(Broken::Record) => Err(ServiceError::Refused(
                "a value is damaged; nothing was changed".into(),
            )),
            Err(error) => return Err(error),
        });
    }
    transaction.commit()?;
    Ok(outcomes)
}

/// Answers [`Broken::Record`] only before it changed anything: the transaction goes on.
fn apply(transaction: &WriteTransaction, op: &Op) -> Result<Posted, Broken> {
    match op {
        Op::Set { key, value, rule } => {
            let mut kv = transaction.open_table(KV)?;
            let stays = kv.get(key.as_slice())?.is_some_and(|record| {
                // A damaged record is replaced.
                format::read_value(record.value())
                    .is_some_and(|(_, stored)| rules::keeps_stored(stored, value, *rule))
            });
            if !stays {
                kv.insert(key.as_slice(), format::value(*rule, value).as_slice())?;
            }
        }
        Op::Delete { key } => {
            transaction.open_table(KV)?.remove(key.as_slice())?;
        }
        Op::Config { key, value } => {
            let mut config = transaction.open_table(CONFIG)?;
            match value {
                Some(value) => config.insert(key.as_slice(), value.as_slice())?,
                None => config.remove(key.as_slice())?,
            };
        }
        Op::Merge { winner, loser } => merge(transaction, winner, loser)?,
        Op::Post {
            id,
            key,
            result,
            handles,
        } => {
            let known = transaction
                .open_table(POSTS)?
                .insert(&id.0[..], &[][..])?
                .is_some();
            if known {
                return Ok(Posted::Duplicate);
            }
            if let Some(result) = result {
                let mut results = transaction.open_table(RESULTS)?;
                results.insert(key.as_slice(), result.as_slice())?;
            }
            let mut table = transaction.open_table(HANDLES)?;
            for (account, handle) in handles {
                let (account, handle) = (account.as_bytes(), handle.as_bytes());
                let same = table
                    .get(account)?
                    .is_some_and(|seen| seen.value() == handle);
                if !same {
                    table.insert(account, handle)?;
                }
            }
        }
    }
    Ok(Posted::Landed)
}

fn merge(transaction: &WriteTransaction, winner: &[u8], loser: &[u8]) -> Result<(), Broken> {
    let mut kv = transaction.open_table(KV)?;
    // Keys without their prefix; values are taken one by one.
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for entry in kv.range(loser..)? {
        let (key, record) = entry?;
        let Some(key) = key.value().strip_prefix(loser) else {
            break;
        };
        // A value that cannot be read is not thrown away, whoever's it is.
        format::read_value(record.value()).ok_or(Broken::Record)?;
        if let Some(record) = kv.get([winner, key].concat().as_slice())? {
            format::read_value(record.value()).ok_or(Broken::Record)?;
        }
        keys.push(key.to_vec());
    }
    for key in keys {
        let from = [loser, &key].concat();
        let lost = kv
            .get(from.as_slice())?
            .and_then(|record| stored(record.value()));
        let Some(lost) = lost else {
            continue; // cannot be: it was read above
        };
        kv.remove(from.as_slice())?;
        let at = [winner, &key].concat();
        let won = kv
            .get(at.as_slice())?
            .and_then(|record| stored(record.value()));
        let merged = rules::merged(won, lost);
        kv.insert(
            at.as_slice(),
            format::value(merged.rule, &merged.value).as_slice(),
        )?;
    }
    Ok(())
}

fn stored(record: &[u8]) -> Option<Stored> {
    let (rule, value) = format::read_value(record)?;
    let value = value.to_vec();
    Some(Stored { value, rule })
}
