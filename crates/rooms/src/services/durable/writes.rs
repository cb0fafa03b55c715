//! The thread that writes: takes what is queued, commits it together, answers.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use redb::{ReadableTable, WriteTransaction};

use super::format::{self, CONFIG, HANDLES, KV, POSTS, RESULTS};
use super::{Shared, unavailable};
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

    /// Roughly what it takes in memory.
    pub(super) fn bytes(&self) -> usize {
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
        shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let outcomes = commit_caught(shared, &batch);
        for (index, write) in batch.into_iter().enumerate() {
            let outcome = match &outcomes {
                Ok(outcomes) => Ok(outcomes[index]),
                Err(error) => Err(error.clone()),
            };
            // What a reply does is not the store's; if it panics the next one still gets its own.
            let _ = panic::catch_unwind(AssertUnwindSafe(|| write.answer.send(outcome)));
        }
    }
}

/// One outcome per write; that of anything but a post means nothing.
fn commit_caught(shared: &Shared, batch: &[Write]) -> Result<Vec<Posted>, ServiceError> {
    shared.usable()?;
    let committed = panic::catch_unwind(AssertUnwindSafe(|| commit(shared, batch)));
    match committed {
        Ok(Ok(outcomes)) => {
            shared.commits.fetch_add(1, Ordering::Relaxed);
            let writes = batch.len() as u64;
            shared.writes.fetch_add(writes, Ordering::Relaxed);
            Ok(outcomes)
        }
        Ok(Err(error)) => {
            // Sizes were checked before, so this is about the file and not about these writes.
            shared.fail(error.to_string());
            Err(ServiceError::Unavailable(format!(
                "writing failed: {error}"
            )))
        }
        Err(_) => {
            // The panic may have come between two halves of a change to redb's memory.
            shared.fail("a write panicked".into());
            Err(unavailable("the write panicked"))
        }
    }
}

fn commit(shared: &Shared, batch: &[Write]) -> Result<Vec<Posted>, redb::Error> {
    let mut transaction = shared.files.database.begin_write()?;
    // Two syncs a commit instead of one, and the store opens at once after a crash, whatever its
    // size; and no guest's bytes can pass for a checksum that was not written.
    transaction.set_quick_repair(true);
    let outcomes = batch
        .iter()
        .map(|write| apply(&transaction, &write.op))
        .collect::<Result<_, _>>()?;
    transaction.commit()?;
    Ok(outcomes)
}

fn apply(transaction: &WriteTransaction, op: &Op) -> Result<Posted, redb::Error> {
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

fn merge(transaction: &WriteTransaction, winner: &[u8], loser: &[u8]) -> Result<(), redb::Error> {
    let mut kv = transaction.open_table(KV)?;
    // Keys without their prefix; values are taken one by one.
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for entry in kv.range(loser..)? {
        let (key, _) = entry?;
        match key.value().strip_prefix(loser) {
            Some(key) => keys.push(key.to_vec()),
            None => break,
        }
    }
    for key in keys {
        let lost = kv.remove([loser, &key].concat().as_slice())?;
        let Some(lost) = lost.and_then(|record| stored(record.value())) else {
            continue; // damaged: nothing to move
        };
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
