//! The durable store on disks that stop, hang, fail, panic and lose power.

use std::io;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};

use redb::{Builder, StorageBackend};

use super::open::{Files, initialise};
use super::*;
use crate::services::{PostId, wait_for};

/// A disk in memory. What was written and not synced may be lost with the power.
#[derive(Debug, Clone, Default)]
struct Disk {
    state: Arc<Mutex<DiskState>>,
    /// While true, a sync waits.
    held: Arc<(Mutex<Held>, Condvar)>,
}

#[derive(Debug, Default)]
struct DiskState {
    bytes: Vec<u8>,
    /// What the last sync left.
    synced: Vec<u8>,
    /// Changes since then, in order.
    unsynced: Vec<Change>,
    /// Changes and syncs so far.
    operations: u64,
    /// From this operation on, what happens.
    trouble: Option<(u64, Trouble)>,
}

#[derive(Debug, Default)]
struct Held {
    hold: bool,
    waiting: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Trouble {
    Fails,
    Panics,
}

#[derive(Debug, Clone)]
enum Change {
    Length(u64),
    Write(u64, Vec<u8>),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length as usize, 0),
            Self::Write(offset, data) => {
                let start = *offset as usize;
                // A write past an end that was lost extends the file, as a disk's would.
                if bytes.len() < start + data.len() {
                    bytes.resize(start + data.len(), 0);
                }
                bytes[start..start + data.len()].copy_from_slice(data);
            }
        }
    }
}

impl Disk {
    fn with(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        {
            let mut state = disk.state.lock().unwrap();
            state.synced.clone_from(&bytes);
            state.bytes = bytes;
        }
        disk
    }

    /// A disk that holds an empty store.
    fn fresh() -> Self {
        let disk = Self::default();
        let database = Builder::new().create_with_backend(disk.clone()).unwrap();
        initialise(&database).unwrap();
        drop(database);
        let bytes = disk.state.lock().unwrap().bytes.clone();
        Self::with(bytes)
    }

    fn store(&self, options: &DurableOptions) -> DurableStore {
        self.try_store(options).unwrap()
    }

    fn try_store(&self, options: &DurableOptions) -> Result<DurableStore, redb::Error> {
        let database = Builder::new()
            .set_cache_size(1 << 20)
            .create_with_backend(self.clone())?;
        let files = Files {
            database,
            _lock: None,
        };
        Ok(DurableStore::start(files, options).unwrap())
    }

    /// What a machine finds after the power went: what was synced and, of what was not, the changes
    /// `kept` picks.
    fn after_power_loss(&self, mut kept: impl FnMut(usize) -> bool) -> Self {
        let state = self.state.lock().unwrap();
        let mut bytes = state.synced.clone();
        for (index, change) in state.unsynced.iter().enumerate() {
            if kept(index) {
                change.apply(&mut bytes);
            }
        }
        Self::with(bytes)
    }

    fn operations(&self) -> u64 {
        self.state.lock().unwrap().operations
    }

    fn trouble_from(&self, operation: u64, trouble: Trouble) {
        self.state.lock().unwrap().trouble = Some((operation, trouble));
    }

    fn step(&self) -> io::Result<std::sync::MutexGuard<'_, DiskState>> {
        let mut state = self.state.lock().unwrap();
        let operation = state.operations;
        state.operations += 1;
        match state.trouble {
            Some((from, Trouble::Fails)) if operation >= from => {
                Err(io::Error::other("the disk failed"))
            }
            Some((from, Trouble::Panics)) if operation >= from => {
                drop(state);
                panic!("the disk panicked, as this test wants");
            }
            _ => Ok(state),
        }
    }

    fn hold(&self) {
        self.held.0.lock().unwrap().hold = true;
    }

    fn wait_until_held(&self) {
        let held = self.held.0.lock().unwrap();
        drop(self.held.1.wait_while(held, |held| !held.waiting).unwrap());
    }

    fn release(&self) {
        self.held.0.lock().unwrap().hold = false;
        self.held.1.notify_all();
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock().unwrap();
        let start = offset as usize;
        let found = state.bytes.get(start..start + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.step()?;
        let change = Change::Length(len);
        change.apply(&mut state.bytes);
        state.unsynced.push(change);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut held = self.held.0.lock().unwrap();
        while held.hold {
            held.waiting = true;
            self.held.1.notify_all();
            held = self.held.1.wait(held).unwrap();
        }
        held.waiting = false;
        drop(held);
        let mut state = self.step()?;
        state.synced = state.bytes.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.step()?;
        let change = Change::Write(offset, data.to_vec());
        change.apply(&mut state.bytes);
        state.unsynced.push(change);
        Ok(())
    }
}

fn at(key: &str) -> KvAddress<'_> {
    KvAddress {
        slug: "g",
        account: "a1",
        key: key.as_bytes(),
    }
}

fn set(store: &DurableStore, key: &str, value: &str) -> Result<(), ServiceError> {
    wait_for(|reply| store.set(at(key), value.as_bytes(), None, reply))
}

fn get(store: &DurableStore, key: &str) -> Result<Option<Vec<u8>>, ServiceError> {
    wait_for(|reply| KvStore::get(store, at(key), reply))
}

type Answers = mpsc::Receiver<Result<(), ServiceError>>;

/// Asks for a write and does not wait.
fn ask(store: &DurableStore, key: &str, value: &[u8]) -> Answers {
    let (sender, receiver) = mpsc::channel();
    let reply = Reply::new(move |answer| drop(sender.send(answer)));
    store.set(at(key), value, None, reply);
    receiver
}

fn is_unavailable<T>(answer: &Result<T, ServiceError>) -> bool {
    matches!(answer, Err(ServiceError::Unavailable(_)))
}

#[test]
fn writes_that_queue_up_behind_a_slow_disk_are_committed_together() {
    let disk = Disk::fresh();
    let store = disk.store(&DurableOptions::default());
    disk.hold();
    let first = ask(&store, "first", b"1");
    disk.wait_until_held();
    let queued: Vec<_> = (0..100)
        .map(|n| ask(&store, &n.to_string(), b"1"))
        .collect();
    assert!(first.try_recv().is_err(), "answered before the disk synced");
    // Reads go on meanwhile, and see nothing that is not committed.
    assert_eq!(get(&store, "first"), Ok(None));
    disk.release();
    assert_eq!(first.recv().unwrap(), Ok(()));
    for answer in queued {
        assert_eq!(answer.recv().unwrap(), Ok(()));
    }
    let stats = store.stats();
    assert_eq!((stats.commits, stats.writes), (2, 101));
}

#[test]
fn a_transaction_holds_so_many_writes_and_so_many_bytes() {
    for (batch_max, batch_bytes_max, commits) in
        [(10, usize::MAX, 11), (1_000, 0, 101), (1_000, 4_000, 26)]
    {
        let disk = Disk::fresh();
        let store = disk.store(&DurableOptions {
            batch_max,
            batch_bytes_max,
            ..DurableOptions::default()
        });
        disk.hold();
        let first = ask(&store, "first", &[0; 1_000]);
        disk.wait_until_held();
        let queued: Vec<_> = (0..100)
            .map(|n| ask(&store, &n.to_string(), &[0; 1_000]))
            .collect();
        disk.release();
        first.recv().unwrap().unwrap();
        for answer in queued {
            answer.recv().unwrap().unwrap();
        }
        assert_eq!(store.stats().commits, commits);
    }
}

#[test]
fn past_the_queue_a_write_is_refused_at_once() {
    let disk = Disk::fresh();
    let store = disk.store(&DurableOptions {
        queue_max: 3,
        ..DurableOptions::default()
    });
    disk.hold();
    let mut taken = vec![ask(&store, "first", b"1")];
    disk.wait_until_held();
    taken.extend((0..3).map(|n| ask(&store, &n.to_string(), b"1")));
    let refused = ask(&store, "one more", b"1");
    assert!(is_unavailable(&refused.try_recv().unwrap()));
    disk.release();
    for answer in taken {
        assert_eq!(answer.recv().unwrap(), Ok(()));
    }
    assert_eq!(get(&store, "one more"), Ok(None));
    assert_eq!(set(&store, "one more", "2"), Ok(()));
}

#[test]
fn past_the_bytes_that_may_wait_a_write_is_refused_but_one_is_always_taken() {
    let disk = Disk::fresh();
    let store = disk.store(&DurableOptions {
        queue_bytes_max: 10_000,
        ..DurableOptions::default()
    });
    disk.hold();
    let mut taken = vec![ask(&store, "first", &[0; 20_000])];
    disk.wait_until_held();
    taken.push(ask(&store, "second", &[0; 20_000]));
    let refused = ask(&store, "third", b"");
    assert!(is_unavailable(&refused.try_recv().unwrap()));
    disk.release();
    for answer in taken {
        assert_eq!(answer.recv().unwrap(), Ok(()));
    }
}

#[test]
fn the_last_handle_answers_what_is_queued_and_closes() {
    let disk = Disk::fresh();
    let store = disk.store(&DurableOptions::default());
    disk.hold();
    let first = ask(&store, "first", b"1");
    disk.wait_until_held();
    let queued = ask(&store, "queued", b"2");
    disk.release();
    drop(store);
    // No waiting: dropping did.
    assert_eq!(first.try_recv().unwrap(), Ok(()));
    assert_eq!(queued.try_recv().unwrap(), Ok(()));
    let store = disk.store(&DurableOptions::default());
    assert_eq!(get(&store, "queued"), Ok(Some(b"2".to_vec())));
}

#[test]
fn a_reply_may_hold_the_last_handle() {
    let disk = Disk::fresh();
    let store = disk.store(&DurableOptions::default());
    let (sender, receiver) = mpsc::channel();
    let last = store.clone();
    disk.hold();
    let reply = Reply::new(move |answer| {
        drop(last);
        sender.send(answer).unwrap();
    });
    store.set(at("k"), b"v", None, reply);
    drop(store);
    disk.release();
    assert_eq!(receiver.recv().unwrap(), Ok(()));
}

#[test]
fn a_reply_that_panics_keeps_nobody_from_an_answer() {
    let disk = Disk::fresh();
    let store = disk.store(&DurableOptions::default());
    disk.hold();
    let first = ask(&store, "first", b"1");
    disk.wait_until_held();
    let reply = Reply::new(|_| panic!("the reply panicked, as this test wants"));
    store.set(at("k"), b"v", None, reply);
    let after = ask(&store, "after", b"1");
    disk.release();
    assert_eq!(first.recv().unwrap(), Ok(()));
    assert_eq!(after.recv().unwrap(), Ok(()));
    assert_eq!(set(&store, "later", "1"), Ok(()));
    assert_eq!(store.stats().failed, None);
}

#[test]
fn a_failed_disk_is_unavailable_to_the_whole_batch_and_to_everybody_after() {
    for trouble in [Trouble::Fails, Trouble::Panics] {
        let disk = Disk::fresh();
        let store = disk.store(&DurableOptions::default());
        assert_eq!(set(&store, "before", "1"), Ok(()));
        disk.hold();
        let first = ask(&store, "first", b"1");
        disk.wait_until_held();
        let queued: Vec<_> = (0..10).map(|n| ask(&store, &n.to_string(), b"1")).collect();
        disk.trouble_from(0, trouble);
        disk.release();
        assert!(is_unavailable(&first.recv().unwrap()), "{trouble:?}");
        for answer in queued {
            assert!(is_unavailable(&answer.recv().unwrap()), "{trouble:?}");
        }
        assert!(store.stats().failed.is_some());
        assert!(is_unavailable(&set(&store, "later", "1")));
        assert!(is_unavailable(&get(&store, "before")));
        assert!(is_unavailable(&wait_for(
            |reply| store.int_values("g", b"k", reply)
        )));
        drop(store);

        let again = disk
            .after_power_loss(|_| false)
            .store(&DurableOptions::default());
        assert_eq!(get(&again, "before"), Ok(Some(b"1".to_vec())));
        assert_eq!(set(&again, "later", "1"), Ok(()));
    }
}

/// Writes that each depend on those before; answers which were acknowledged.
fn workload(store: &DurableStore) -> Vec<bool> {
    let post = |n: i64| Post {
        id: PostId([n as u8; 32]),
        slug: "g".into(),
        room: "0190b5a4-3c1e-7abc-8def-0123456789ab".parse().unwrap(),
        result: cabinet_host::RoomResult {
            mode: cabinet_host::Mode::Quick,
            standings: vec![cabinet_host::Standing {
                player: cabinet_host::Player::member(format!("p{n}"), "pat", "c"),
                metric: 1,
                rank: 1,
                status: None,
            }],
            round_seq: n as u32,
        },
        at: n,
    };
    (0..6)
        .flat_map(|n| {
            let written = set(store, &format!("k{n}"), &"v".repeat(2_000)).is_ok();
            let posted = wait_for(|reply| store.post(&post(n), reply));
            [written, posted.is_ok()]
        })
        .collect()
}

#[test]
fn whatever_operation_the_power_goes_at_no_acknowledged_write_is_lost_or_doubled() {
    let disk = Disk::fresh();
    let store = disk.store(&DurableOptions::default());
    let opened = disk.operations();
    assert_eq!(workload(&store), [true; 12]);
    let total = disk.operations();
    drop(store);
    assert!(total > opened + 24, "{opened}..{total}");

    for stop in opened..=total {
        let disk = Disk::fresh();
        let store = disk.store(&DurableOptions::default());
        disk.trouble_from(stop, Trouble::Fails);
        let acknowledged = workload(&store);
        drop(store);
        assert_eq!(
            acknowledged.contains(&false),
            stop < total,
            "stopped at {stop}"
        );
        // Nothing of what was not synced, all of it, and two mixtures.
        let fates: [fn(usize) -> bool; 4] = [|_| false, |_| true, |n| n % 2 == 0, |n| n % 3 == 1];
        for (fate, kept) in fates.into_iter().enumerate() {
            let found = disk.after_power_loss(kept);
            let store = found
                .try_store(&DurableOptions::default())
                .unwrap_or_else(|error| panic!("stopped at {stop}, fate {fate}: {error}"));
            let spec = BoardSpec {
                aggregation: cabinet_wire::Aggregation::Sum,
                ..BoardSpec::default()
            };
            let scores = wait_for(|reply| store.scores("g", None, &spec, reply)).unwrap();
            for (n, pair) in acknowledged.chunks(2).enumerate() {
                let value = get(&store, &format!("k{n}")).unwrap();
                let times = scores.iter().find(|score| score.account == format!("p{n}"));
                if pair[0] || value.is_some() {
                    assert_eq!(
                        value,
                        Some(vec![b'v'; 2_000]),
                        "stopped at {stop}, fate {fate}"
                    );
                }
                if pair[1] || times.is_some() {
                    assert_eq!(
                        times.map(|score| score.value),
                        Some(1),
                        "stopped at {stop}, fate {fate}"
                    );
                }
            }
            drop(store);
        }
    }
}
