//! A disk in memory whose power can be cut: for tests and the simulator.
//!
//! A [`SimDisk`] is the machine's disk, and survives; what [`SimDisk::attach`] gives is one process's
//! use of it, and is dead after [`SimDisk::crash`]. No threads, no clock but tokio's, no randomness
//! but the seed a crash is given.
//!
//! Model
//! - a file has bytes that are synced and changes that are not; a directory likewise has names;
//! - a crash keeps of each file's unsynced changes a beginning, of which single sectors may read as
//!   zeros, and of the names' unsynced changes any subset;
//! - a write that is made to fail has written half of its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};

use super::disk::{Disk, DiskFile, DiskLock};

const SECTOR_BYTES: usize = 512;

/// What was asked of a disk so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SimDiskCounts {
    /// Calls of any kind.
    pub calls: u64,
    /// Appends.
    pub writes: u64,
    /// Syncs of files.
    pub syncs: u64,
    /// Syncs of the directory.
    pub directory_syncs: u64,
    /// Bytes appended.
    pub bytes: u64,
}

/// What a crash leaves of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// All of it: the process was killed, the machine was not.
    Kept,
    /// None of it.
    Lost,
    /// All names and cuts; of what was appended to each file, this many bytes.
    Torn(usize),
    /// Whatever this seed says.
    Seeded(u64),
}

/// Which calls fail, counted from the next one, which is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The n-th.
    Once(u64),
    /// The n-th and all after it: the machine died there.
    From(u64),
}

#[derive(Clone)]
enum Change {
    Append(Vec<u8>),
    Cut(usize),
}

#[derive(Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum NameChange {
    Add(String, u64),
    Move(String, String, u64),
    Remove(String),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Add(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Move(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

#[derive(Default)]
struct State {
    files: BTreeMap<u64, Content>,
    files_made: u64,
    names: BTreeMap<String, u64>,
    names_synced: BTreeMap<String, u64>,
    names_unsynced: Vec<NameChange>,
    /// Which life of the machine this is.
    life: u64,
    locked: bool,
    fault: Option<Fault>,
    sync_delay: Duration,
    counts: SimDiskCounts,
}

impl State {
    /// Counts a call and says whether it is to fail.
    fn fails(&mut self) -> bool {
        self.counts.calls += 1;
        match &mut self.fault {
            None => false,
            Some(Fault::Once(0)) => {
                self.fault = None;
                true
            }
            Some(Fault::From(0)) => true,
            Some(Fault::Once(left) | Fault::From(left)) => {
                *left -= 1;
                false
            }
        }
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.names_unsynced.push(change);
    }

    fn file(&self, name: &str) -> io::Result<u64> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Forgets files that no name leads to and nobody will ask for again.
    fn sweep(&mut self) {
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.files.retain(|file, _| named.contains(file));
    }
}

/// The disk of one machine. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    /// An empty disk that syncs at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A process's use of the disk, until the next crash.
    #[must_use]
    pub fn attach(&self) -> Arc<dyn Disk> {
        Arc::new(Attached {
            disk: self.clone(),
            life: self.state().life,
        })
    }

    /// How long each sync takes from now on, in tokio's time.
    pub fn set_sync_delay(&self, delay: Duration) {
        self.state().sync_delay = delay;
    }

    /// How long each sync takes.
    #[must_use]
    pub fn sync_delay(&self) -> Duration {
        self.state().sync_delay
    }

    /// Lets calls fail, or with `None` lets all succeed again.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    /// What was asked so far.
    #[must_use]
    pub fn counts(&self) -> SimDiskCounts {
        self.state().counts
    }

    /// The files as a process sees them now.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let content = |file: &u64| state.files.get(file).map(|c| c.now.clone());
        state
            .names
            .iter()
            .filter_map(|(name, file)| Some((name.clone(), content(file)?)))
            .collect()
    }

    /// A disk with just these files, all synced.
    #[must_use]
    pub fn with_files(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let mut state = State::default();
        for (name, bytes) in files {
            state.files_made += 1;
            let content = Content {
                now: bytes.clone(),
                synced: bytes.clone(),
                unsynced: Vec::new(),
            };
            state.files.insert(state.files_made, content);
            state.names.insert(name.clone(), state.files_made);
        }
        state.names_synced = state.names.clone();
        Self(Arc::new(Mutex::new(state)))
    }

    /// Ends every process's use of the disk, and with it all faults, and loses what `crash` says of
    /// what was not synced.
    pub fn crash(&self, crash: Crash) {
        let mut state = self.state();
        let mut dice = Dice(match crash {
            Crash::Seeded(seed) => seed,
            _ => 0,
        });
        let mut names = std::mem::take(&mut state.names_synced);
        for change in std::mem::take(&mut state.names_unsynced) {
            let kept = match crash {
                Crash::Kept | Crash::Torn(_) => true,
                Crash::Lost => false,
                Crash::Seeded(_) => dice.below(2) == 0,
            };
            if kept {
                change.apply(&mut names);
            }
        }
        state.names = names.clone();
        state.names_synced = names;
        for content in state.files.values_mut() {
            settle(content, crash, &mut dice);
        }
        state.sweep();
        state.life += 1;
        state.locked = false;
        state.fault = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a crash makes of one file.
fn settle(content: &mut Content, crash: Crash, dice: &mut Dice) {
    let mut bytes = std::mem::take(&mut content.synced);
    let mut torn_left = match crash {
        Crash::Torn(bytes) => bytes,
        _ => usize::MAX,
    };
    for change in std::mem::take(&mut content.unsynced) {
        // 0 keeps it, 1 tears it, 2 loses it and all after it.
        let fate = match crash {
            Crash::Kept | Crash::Torn(_) => 0,
            Crash::Lost => 2,
            Crash::Seeded(_) => dice.below(3),
        };
        match change {
            _ if fate == 2 => break,
            Change::Cut(len) => bytes.truncate(len),
            Change::Append(added) if fate == 0 => {
                let keep = added.len().min(torn_left);
                torn_left -= keep;
                bytes.extend_from_slice(&added[..keep]);
            }
            Change::Append(mut added) => {
                added.truncate(dice.below(added.len() as u64 + 1) as usize);
                for sector in added.chunks_mut(SECTOR_BYTES) {
                    if dice.below(4) == 0 {
                        sector.fill(0);
                    }
                }
                bytes.extend_from_slice(&added);
                break;
            }
        }
    }
    content.now.clone_from(&bytes);
    content.synced = bytes;
}

/// SplitMix64: enough to choose what a crash keeps.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

#[derive(Clone)]
struct Attached {
    disk: SimDisk,
    life: u64,
}

fn switched_off() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the machine is off")
}

fn planned() -> io::Error {
    io::Error::other("a fault that was planned")
}

impl Attached {
    /// The disk, if the machine is on.
    fn on(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.life == self.life {
            Ok(state)
        } else {
            Err(switched_off())
        }
    }

    /// The disk, for a call that is not planned to fail.
    fn call(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.on()?;
        if state.fails() {
            return Err(planned());
        }
        Ok(state)
    }

    fn answer<'a, T: Send + 'a>(
        &self,
        change: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> BoxFuture<'a, io::Result<T>> {
        let result = self.call().and_then(|mut state| change(&mut state));
        future::ready(result).boxed()
    }

    /// Waits as long as a sync takes, and goes on if the machine is still on.
    async fn sync(&self, finish: impl FnOnce(&mut State)) -> io::Result<()> {
        let delay = self.call()?.sync_delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        finish(&mut *self.on()?);
        Ok(())
    }

    fn handle(&self, file: u64) -> Box<dyn DiskFile> {
        Box::new(SimFile {
            disk: self.clone(),
            file,
        })
    }
}

struct SimLock(Attached);

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        if let Ok(mut state) = self.0.on() {
            state.locked = false;
        }
    }
}

struct SimFile {
    disk: Attached,
    file: u64,
}

impl SimFile {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.on()?;
        let fails = state.fails();
        let bytes = if fails {
            &bytes[..bytes.len() / 2]
        } else {
            bytes
        };
        state.counts.writes += 1;
        state.counts.bytes += bytes.len() as u64;
        let content = state.files.entry(self.file).or_default();
        content.now.extend_from_slice(bytes);
        content.unsynced.push(Change::Append(bytes.to_vec()));
        if fails { Err(planned()) } else { Ok(()) }
    }
}

impl DiskFile for SimFile {
    fn append<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        future::ready(self.write(bytes)).boxed()
    }

    fn cut(&mut self, len: u64) -> BoxFuture<'_, io::Result<()>> {
        let file = self.file;
        self.disk.answer(|state| {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            let content = state.files.entry(file).or_default();
            content.now.truncate(len);
            content.unsynced.push(Change::Cut(len));
            Ok(())
        })
    }

    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>> {
        let file = self.file;
        async move {
            self.disk
                .sync(|state| {
                    state.counts.syncs += 1;
                    let content = state.files.entry(file).or_default();
                    content.synced.clone_from(&content.now);
                    content.unsynced.clear();
                })
                .await
        }
        .boxed()
    }
}

impl Disk for Attached {
    fn name(&self) -> String {
        "sim".to_owned()
    }

    fn lock(&self) -> BoxFuture<'_, io::Result<Option<Box<dyn DiskLock>>>> {
        self.answer(|state| {
            if std::mem::replace(&mut state.locked, true) {
                return Ok(None);
            }
            Ok(Some(Box::new(SimLock(self.clone())) as Box<dyn DiskLock>))
        })
    }

    fn list(&self) -> BoxFuture<'_, io::Result<BTreeSet<String>>> {
        self.answer(|state| Ok(state.names.keys().cloned().collect()))
    }

    fn read<'a>(&'a self, name: &'a str, bytes_max: u64) -> BoxFuture<'a, io::Result<Vec<u8>>> {
        self.answer(|state| {
            let file = state.file(name)?;
            let bytes = &state.files.entry(file).or_default().now;
            let len = usize::try_from(bytes_max).unwrap_or(usize::MAX);
            Ok(bytes[..bytes.len().min(len)].to_vec())
        })
    }

    fn create<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Box<dyn DiskFile>>> {
        self.answer(|state| {
            state.files_made += 1;
            let file = state.files_made;
            state.files.insert(file, Content::default());
            state.rename(NameChange::Add(name.to_owned(), file));
            Ok(self.handle(file))
        })
    }

    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Box<dyn DiskFile>>> {
        self.answer(|state| Ok(self.handle(state.file(name)?)))
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, io::Result<()>> {
        self.answer(|state| {
            let file = state.file(from)?;
            state.rename(NameChange::Move(from.to_owned(), to.to_owned(), file));
            Ok(())
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<()>> {
        self.answer(|state| {
            state.file(name)?;
            state.rename(NameChange::Remove(name.to_owned()));
            Ok(())
        })
    }

    fn sync_directory(&self) -> BoxFuture<'_, io::Result<()>> {
        async move {
            self.sync(|state| {
                state.counts.directory_syncs += 1;
                state.names_synced = state.names.clone();
                state.names_unsynced.clear();
            })
            .await
        }
        .boxed()
    }
}
