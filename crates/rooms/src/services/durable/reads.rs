//! The threads that read one value each: what guests wait for.
//!
//! Several, so that a page which is slow to come holds up one of them. None of it happens on the
//! thread of whoever asks: a disk that hangs would take that thread with it.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::mpsc::Receiver;

use redb::{Database, ReadableDatabase};

use super::format::{self, CONFIG, KV};
use super::{Broken, Shared, locked};
use crate::reply::Reply;

/// A read that waits.
pub(super) struct Read {
    pub(super) kind: Kind,
    /// As in `format`.
    pub(super) key: Vec<u8>,
    pub(super) reply: Reply<Option<Vec<u8>>>,
}

/// The table.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Values,
    Config,
}

/// Runs until every sender is gone and everything queued is answered.
pub(super) fn run(shared: &Shared, queue: &Mutex<Receiver<Read>>) {
    loop {
        // One thread waits for the queue, the others for that one. The lock is gone when it reads.
        let next = locked(queue).recv();
        let Ok(Read { kind, key, reply }) = next else {
            return;
        };
        let found = shared.work("reading", |database| find(database, kind, &key));
        // What a reply does is not the store's.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| reply.send(found)));
    }
}

fn find(database: &Database, kind: Kind, key: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(match kind {
        Kind::Values => KV,
        Kind::Config => CONFIG,
    })?;
    let Some(record) = table.get(key)? else {
        return Ok(None);
    };
    let value = match kind {
        Kind::Values => format::read_value(record.value()).ok_or(Broken::Record)?.1,
        Kind::Config => record.value(),
    };
    Ok(Some(value.to_vec()))
}
