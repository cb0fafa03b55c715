//! What the log asks of a disk: one directory of files that only grow, are cut, or are replaced.
//!
//! Two of them: [`FileDisk`] blocks in real files, [`super::sim_disk::SimDisk`] is memory that a
//! simulator can cut the power of.
//!
//! Contract
//! - what was written is on stable storage after [`DiskFile::sync`], and a name after
//!   [`Disk::sync_directory`]; neither implies the other;
//! - a file whose sync failed may hold anything: nobody here calls a sync a second time.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};

/// A file that is being written.
pub trait DiskFile: Send {
    /// Writes at its end.
    fn append<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>>;

    /// Cuts it down to `len` bytes.
    fn cut(&mut self, len: u64) -> BoxFuture<'_, io::Result<()>>;

    /// Resolves once all its bytes are on stable storage.
    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>>;
}

/// Held while a directory is in use; dropping it lets the next one in.
pub trait DiskLock: Send {}

/// A directory of files.
pub trait Disk: Send + Sync + 'static {
    /// What it is called in errors.
    fn name(&self) -> String;

    /// Takes the directory, which is made if it is not there. `None` when somebody else has it.
    fn lock(&self) -> BoxFuture<'_, io::Result<Option<Box<dyn DiskLock>>>>;

    /// The names of its files, in order.
    fn list(&self) -> BoxFuture<'_, io::Result<BTreeSet<String>>>;

    /// The first `bytes_max` bytes of a file, or all of it if it is not longer.
    fn read<'a>(&'a self, name: &'a str, bytes_max: u64) -> BoxFuture<'a, io::Result<Vec<u8>>>;

    /// An empty file of this name, whatever was there.
    fn create<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Box<dyn DiskFile>>>;

    /// A file that is there, to go on writing at its end.
    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Box<dyn DiskFile>>>;

    /// Gives a file another name, in place of the file that has it.
    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, io::Result<()>>;

    /// Removes a file.
    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<()>>;

    /// Resolves once the names are on stable storage.
    fn sync_directory(&self) -> BoxFuture<'_, io::Result<()>>;
}

/// A directory of the file system. Its calls block, so they belong on a thread of their own:
/// [`super::Driver::Thread`].
#[derive(Debug)]
pub struct FileDisk {
    root: PathBuf,
}

impl FileDisk {
    /// The directory `root`. It is made when it is first locked.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn take(&self) -> io::Result<Option<Box<dyn DiskLock>>> {
        make_directories(&self.root)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        private(&mut options);
        let file = options.open(self.root.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(FileLock(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn names(&self) -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for entry in std::fs::read_dir(&self.root)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.insert(name);
            }
        }
        Ok(names)
    }

    fn make(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let path = self.root.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.append(true).create_new(true);
        private(&mut options);
        Ok(Box::new(RealFile(options.open(path)?)))
    }
}

/// Makes a directory and those above it, and syncs the name of each that is new.
fn make_directories(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_directories(parent)?;
    }
    match std::fs::create_dir(path) {
        Err(error) if !(error.kind() == io::ErrorKind::AlreadyExists && path.is_dir()) => {
            return Err(error);
        }
        _ => {}
    }
    sync_names(parent.unwrap_or(Path::new(".")))
}

/// Windows has no sync of a directory; NTFS journals its names.
fn sync_names(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(path)?.sync_all()
    } else {
        Ok(())
    }
}

fn private(options: &mut OpenOptions) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    #[cfg(not(unix))]
    let _ = options;
}

struct FileLock(#[expect(dead_code, reason = "dropping the handle releases the lock")] File);

impl DiskLock for FileLock {}

struct RealFile(File);

impl DiskFile for RealFile {
    fn append<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        future::ready(self.0.write_all(bytes)).boxed()
    }

    fn cut(&mut self, len: u64) -> BoxFuture<'_, io::Result<()>> {
        future::ready(self.0.set_len(len)).boxed()
    }

    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>> {
        // The length is data for this call; only times may be left behind.
        future::ready(self.0.sync_data()).boxed()
    }
}

impl Disk for FileDisk {
    fn name(&self) -> String {
        self.root.display().to_string()
    }

    fn lock(&self) -> BoxFuture<'_, io::Result<Option<Box<dyn DiskLock>>>> {
        future::ready(self.take()).boxed()
    }

    fn list(&self) -> BoxFuture<'_, io::Result<BTreeSet<String>>> {
        future::ready(self.names()).boxed()
    }

    fn read<'a>(&'a self, name: &'a str, bytes_max: u64) -> BoxFuture<'a, io::Result<Vec<u8>>> {
        let read = || {
            let mut bytes = Vec::new();
            File::open(self.root.join(name))?
                .take(bytes_max)
                .read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        future::ready(read()).boxed()
    }

    fn create<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Box<dyn DiskFile>>> {
        future::ready(self.make(name)).boxed()
    }

    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Box<dyn DiskFile>>> {
        let file = OpenOptions::new()
            .append(true)
            .open(self.root.join(name))
            .map(|file| Box::new(RealFile(file)) as Box<dyn DiskFile>);
        future::ready(file).boxed()
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, io::Result<()>> {
        future::ready(std::fs::rename(self.root.join(from), self.root.join(to))).boxed()
    }

    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<()>> {
        future::ready(std::fs::remove_file(self.root.join(name))).boxed()
    }

    fn sync_directory(&self) -> BoxFuture<'_, io::Result<()>> {
        future::ready(sync_names(&self.root)).boxed()
    }
}
