//! The durable log: what it keeps through restarts, failures of the disk at every call, crashes at
//! every call, and bytes that change.

mod damage;
mod faults;
mod holds;

use std::sync::Arc;

use bytes::Bytes;
use cabinet_consensus::log::durable::sim_disk::SimDisk;
use cabinet_consensus::log::durable::{Driver, DurableOptions, FileDisk};
use cabinet_consensus::log::{
    DurableLog, LogError, LogState, LogStore, MemoryLog, Position, Record, RecordKind,
    StoredSnapshot,
};
use tokio::sync::oneshot;

/// Small segments, so that a short script has several.
const SMALL: DurableOptions = DurableOptions {
    segment_bytes: 200,
    snapshot_bytes_max: 100,
};

fn at(index: u64, term: u64) -> Position {
    Position { index, term }
}

fn record(index: u64, term: u64, len: usize) -> Record {
    Record {
        at: at(index, term),
        kind: RecordKind::Command,
        body: Bytes::from(vec![index as u8 ^ (term as u8) << 5; len]),
    }
}

fn snapshot(through: Position) -> StoredSnapshot {
    StoredSnapshot {
        through,
        membership: Bytes::from_static(b"ann, ben"),
        state: Bytes::from(vec![through.index as u8; 30]),
    }
}

async fn append(log: &dyn LogStore, records: Vec<Record>) -> Result<(), LogError> {
    let (tell, told) = oneshot::channel();
    log.append(
        records,
        Box::new(move |result| {
            let _ = tell.send(result);
        }),
    )?;
    told.await.expect("every append that was taken is answered")
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(work)
}

async fn open_files(path: &std::path::Path) -> Result<DurableLog, LogError> {
    DurableLog::open(Arc::new(FileDisk::new(path)), SMALL, Driver::Thread).await
}

async fn open_sim(disk: &SimDisk) -> Result<DurableLog, LogError> {
    DurableLog::open(disk.attach(), SMALL, Driver::Task).await
}

/// Everything a store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Held {
    state: LogState,
    records: Vec<Record>,
    snapshot: Option<StoredSnapshot>,
}

async fn held(log: &dyn LogStore) -> Held {
    let state = log.state().unwrap();
    let next = state.last.map_or(0, |at| at.index + 1);
    let first = state.purged.map_or(0, |at| at.index + 1);
    Held {
        records: log.read(first, next).unwrap(),
        snapshot: log.load_snapshot().await.unwrap(),
        state,
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// So many records of so many bytes, in a term this much higher.
    Append(usize, usize, u64),
    /// So many entries go from the end.
    Truncate(u64),
    /// So many entries go from the beginning; beyond the end too.
    Purge(u64),
    Vote(u8),
    Snapshot,
    Reopen,
}

/// Does a step, whatever the store is.
async fn perform(log: &dyn LogStore, step: &Step) -> Result<(), LogError> {
    let state = log.state()?;
    let first = state.purged.map_or(0, |at| at.index + 1);
    let next = state.last.map_or(0, |at| at.index + 1);
    let term = state.last.map_or(1, |at| at.term);
    match *step {
        Step::Append(count, len, up) => {
            let records = (next..next + count as u64).map(|i| record(i, term + up, len));
            append(log, records.collect()).await
        }
        Step::Truncate(count) => log.truncate_after(next.checked_sub(count + 1)).await,
        Step::Purge(count) => {
            let index = (first + count).saturating_sub(1);
            let known = log.read(index, index + 1).ok();
            let term = known.map_or(term, |records| records[0].at.term);
            log.purge(at(index, term)).await
        }
        Step::Vote(vote) => log.save_vote(Bytes::from(vec![vote; 9])).await,
        Step::Snapshot => log.save_snapshot(snapshot(at(next, term))).await,
        Step::Reopen => Ok(()),
    }
}

/// A short life with everything in it.
fn script() -> Vec<Step> {
    vec![
        Step::Vote(1),
        Step::Append(2, 20, 0),
        Step::Append(3, 40, 0),
        Step::Append(1, 40, 1),
        Step::Append(2, 10, 0),
        Step::Snapshot,
        Step::Truncate(2),
        Step::Append(4, 30, 1),
        Step::Purge(4),
        Step::Vote(2),
        Step::Truncate(5),
        Step::Append(4, 30, 0),
        Step::Snapshot,
        Step::Purge(9),
        Step::Append(2, 5, 0),
    ]
}

/// What the store holds before the script and after each of its steps.
async fn expectations() -> Vec<Held> {
    let model = MemoryLog::new();
    let mut all = vec![held(&model).await];
    for step in script() {
        perform(&model, &step).await.unwrap();
        all.push(held(&model).await);
    }
    all
}
