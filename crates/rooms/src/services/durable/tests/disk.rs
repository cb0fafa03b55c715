//! A disk that can be made to hang, fail, panic and lose power.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use redb::{Builder, StorageBackend};

use crate::services::durable::open::{Files, Opener, caught, initialise, not_opened};
use crate::services::durable::{DurableOptions, DurableStore, OpenError};

/// A disk in memory. What was written and not synced may be lost with the power.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    state: Arc<Mutex<DiskState>>,
    pub(super) syncs: Gate,
    pub(super) reads: Gate,
    /// What redb keeps of it in memory.
    pub(super) cache_bytes: usize,
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

/// Where operations wait while it is held.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate {
    state: Arc<(Mutex<GateState>, Condvar)>,
}

#[derive(Debug, Default)]
struct GateState {
    held: bool,
    waiting: usize,
}

impl Gate {
    pub(super) fn hold(&self) {
        self.state.0.lock().unwrap().held = true;
    }

    pub(super) fn release(&self) {
        self.state.0.lock().unwrap().held = false;
        self.state.1.notify_all();
    }

    /// Returns when so many operations wait.
    pub(super) fn wait_for(&self, operations: usize) {
        let state = self.state.0.lock().unwrap();
        let enough = self
            .state
            .1
            .wait_while(state, |state| state.waiting < operations);
        drop(enough.unwrap());
    }

    pub(super) fn waiting(&self) -> usize {
        self.state.0.lock().unwrap().waiting
    }

    fn pass(&self) {
        let mut state = self.state.0.lock().unwrap();
        state.waiting += 1;
        self.state.1.notify_all();
        state = self.state.1.wait_while(state, |state| state.held).unwrap();
        state.waiting -= 1;
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Trouble {
    Fails,
    Panics,
    /// One operation fails. A sync that does forgets what it was to sync, as a kernel does which
    /// marks pages clean that it could not write: they read as written until the power goes.
    FailsOnce,
    /// Reads fail, nothing else.
    ReadsFail,
    ReadsPanic,
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
    pub(super) fn with(bytes: Vec<u8>) -> Self {
        let disk = Self {
            cache_bytes: 1 << 20,
            ..Self::default()
        };
        {
            let mut state = disk.state.lock().unwrap();
            state.synced.clone_from(&bytes);
            state.bytes = bytes;
        }
        disk
    }

    /// A disk that holds an empty store.
    pub(super) fn fresh() -> Self {
        let disk = Self::default();
        let database = Builder::new().create_with_backend(disk.clone()).unwrap();
        initialise(&database).unwrap();
        drop(database);
        let bytes = disk.state.lock().unwrap().bytes.clone();
        Self::with(bytes)
    }

    pub(super) fn store(&self, options: &DurableOptions) -> DurableStore {
        self.try_store(options).unwrap()
    }

    pub(super) fn try_store(&self, options: &DurableOptions) -> Result<DurableStore, OpenError> {
        let disk = self.clone();
        let opener: Opener = Box::new(move || {
            let path = Path::new("disk");
            caught(path, || {
                Builder::new()
                    .set_cache_size(disk.cache_bytes)
                    .create_with_backend(disk.clone())
                    .map_err(|error| not_opened(path, error))
            })
        });
        let files = Files {
            database: Some(opener()?),
            opener: Some(opener),
            lock: None,
        };
        Ok(DurableStore::start(files, options).unwrap())
    }

    /// What a machine finds after the power went: what was synced and, of what was not, the changes
    /// `kept` picks.
    pub(super) fn after_power_loss(&self, mut kept: impl FnMut(usize) -> bool) -> Self {
        let state = self.state.lock().unwrap();
        let mut bytes = state.synced.clone();
        for (index, change) in state.unsynced.iter().enumerate() {
            if kept(index) {
                change.apply(&mut bytes);
            }
        }
        Self::with(bytes)
    }

    pub(super) fn operations(&self) -> u64 {
        self.state.lock().unwrap().operations
    }

    pub(super) fn trouble_from(&self, operation: u64, trouble: Trouble) {
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
            Some((at, Trouble::FailsOnce)) if operation == at => {
                Err(io::Error::other("the disk failed once"))
            }
            Some((from, Trouble::Panics)) if operation >= from => {
                drop(state);
                panic!("the disk panicked, as this test wants");
            }
            _ => Ok(state),
        }
    }

    /// The disk is well from now on.
    pub(super) fn heals(&self) {
        self.state.lock().unwrap().trouble = None;
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.reads.pass();
        let state = self.state.lock().unwrap();
        match state.trouble {
            Some((_, Trouble::ReadsFail)) => return Err(io::Error::other("the disk failed")),
            Some((_, Trouble::ReadsPanic)) => {
                drop(state);
                panic!("the disk panicked, as this test wants");
            }
            _ => {}
        }
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
        self.syncs.pass();
        match self.step() {
            Ok(mut state) => {
                let DiskState {
                    synced, unsynced, ..
                } = &mut *state;
                unsynced.drain(..).for_each(|change| change.apply(synced));
                Ok(())
            }
            Err(error) => {
                let mut state = self.state.lock().unwrap();
                if matches!(state.trouble, Some((_, Trouble::FailsOnce))) {
                    let lengths = |change: &Change| matches!(change, Change::Length(_));
                    state.unsynced.retain(lengths);
                }
                Err(error)
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.step()?;
        let change = Change::Write(offset, data.to_vec());
        change.apply(&mut state.bytes);
        state.unsynced.push(change);
        Ok(())
    }
}
