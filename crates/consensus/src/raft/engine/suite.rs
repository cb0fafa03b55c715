//! openraft's own storage suite, on both of our logs.

use std::sync::Arc;

use openraft::StorageError;
use openraft::storage::RaftStateMachine;
use openraft::testing::log::{StoreBuilder, Suite};

use super::machine::{Machine, TooLarge};
use super::store::{Kept, Store};
use super::types::Types;
use super::{Nobody, SharedReplica};
use crate::events::Feed;
use crate::game::{Blueprint, Game, Malformed, Snapshots, TurnInfo};
use crate::ids::{Incarnation, NodeId, PeerId};
use crate::log::durable::{Driver, DurableOptions, FileDisk};
use crate::log::{DurableLog, LogStore, MemoryLog, Position};
use crate::state::{Planted, Replica};

impl From<u64> for NodeId {
    fn from(n: u64) -> Self {
        let peer = PeerId::new(format!("n{n}")).unwrap();
        Self::new(peer, Incarnation(n))
    }
}

#[derive(Clone)]
struct Nothing;

impl Game for Nothing {
    type Action = ();
    type Outcome = ();
    type Refusal = ();

    fn apply(&mut self, _: &TurnInfo, (): &()) -> Result<(), ()> {
        Ok(())
    }
}

impl Snapshots for Nothing {
    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(_: &[u8]) -> Result<Self, Malformed> {
        Ok(Self)
    }
}

async fn on(log: Arc<dyn LogStore>) -> (Store, Machine) {
    within(log, 1 << 20).await
}

async fn within(log: Arc<dyn LogStore>, snapshot_bytes_max: usize) -> (Store, Machine) {
    let feed = Feed::new(Default::default(), 0);
    let rules = Blueprint::with_snapshots(|| Nothing).rules();
    let replica = Replica::new(rules, Some(feed.clone()), Planted::default());
    let replica: SharedReplica = Arc::new(std::sync::Mutex::new(replica));
    let observer = Arc::new(Nobody);
    let kept = Kept::new(0, u64::MAX);
    let snapshot = log.load_snapshot().await.unwrap();
    let machine = Machine {
        replica,
        game_clock_ms: Arc::default(),
        feed,
        log: log.clone(),
        observer: observer.clone(),
        kept: kept.clone(),
        too_large: TooLarge::new(snapshot_bytes_max),
        applied: None,
        members: super::types::Stored::default(),
    };
    let machine = machine.opened(snapshot).unwrap();
    let store = Store {
        log,
        observer,
        kept,
        terms: super::inbound::Terms::new(0),
    };
    (store, machine)
}

struct InMemory;

impl StoreBuilder<Types, Store, Machine> for InMemory {
    async fn build(&self) -> Result<((), Store, Machine), StorageError<Types>> {
        let (store, machine) = on(Arc::new(MemoryLog::new())).await;
        Ok(((), store, machine))
    }
}

struct OnDisk;

impl StoreBuilder<Types, Store, Machine, tempfile::TempDir> for OnDisk {
    async fn build(&self) -> Result<(tempfile::TempDir, Store, Machine), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(FileDisk::new(dir.path()));
        let log = DurableLog::open(disk, DurableOptions::default(), Driver::Thread).await;
        let (store, machine) = on(Arc::new(log.unwrap())).await;
        Ok((dir, store, machine))
    }
}

#[tokio::test]
async fn the_log_in_memory_passes_openrafts_storage_suite() {
    Suite::test_all(InMemory).await.unwrap();
}

#[tokio::test]
async fn the_durable_log_passes_openrafts_storage_suite() {
    Suite::test_all(OnDisk).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_is_made_at_its_limit_as_encoded_and_not_one_byte_past_it() {
    let made = |max| async move {
        let (_, mut machine) = within(Arc::new(MemoryLog::new()), max).await;
        let made = machine.try_create_snapshot_builder(false).await.is_some();
        (made, machine.too_large.bytes())
    };
    let (false, Some(bytes)) = made(1).await else {
        panic!("an empty state has more than a byte");
    };
    let size = usize::try_from(bytes).unwrap();
    assert_eq!(made(size).await, (true, None));
    assert_eq!(made(size - 1).await, (false, Some(bytes)));
}

#[tokio::test]
async fn a_snapshot_this_game_cannot_read_is_not_stored_and_changes_nothing() {
    let log = Arc::new(MemoryLog::new());
    let (_, mut machine) = on(log.clone()).await;
    let meta = super::types::Meta {
        last_log_id: Some(super::types::id(Position { index: 9, term: 1 })),
        last_membership: super::types::Stored::default(),
    };
    let unreadable = bytes::Bytes::from_static(&[0xff; 9]);
    let installed = machine.install_snapshot(&meta, unreadable).await;
    assert!(installed.is_err());
    assert_eq!(log.load_snapshot().await, Ok(None));
    assert_eq!(machine.applied, None);
    let readable = super::machine::lock(&machine.replica).snapshot().unwrap();
    machine.install_snapshot(&meta, readable).await.unwrap();
    assert!(log.load_snapshot().await.unwrap().is_some());
    assert_eq!(machine.applied, meta.last_log_id);
}
