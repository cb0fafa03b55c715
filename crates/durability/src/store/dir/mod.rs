//! A store in a directory of the file system.
//!
//! What is promised beyond [`BlobStore`]
//! - A put is written to a temporary file, synced, and renamed; its directory is synced before the
//!   answer. So it is whole or not there after a crash, and there once it was answered `Ok`, as far as
//!   the disk keeps what it said it synced.
//! - A delete is not synced: after a crash of the machine an object that was deleted may be back.
//! - Conditions hold between threads, stores and processes of one machine: the check and the rename
//!   happen under a lock file. A network file system has to have `flock` for that.
//! - A call that is dropped before its answer still runs to its end on its own thread.
//!
//! A version is the SHA-256 of the content. Versions are equal only when the bytes are, at the price
//! of reading an object whole whatever was wanted of it; a time or a counter in the file system would
//! be cheaper and say less. As with any content's hash, an object that changes and changes back has
//! its old version again.
//!
//! Directories that became empty stay. Calls have to be made inside a tokio runtime.

mod files;
mod paths;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use std::{fmt, panic, process};

use bytes::Bytes;
use ring::digest::{Context, SHA256};

use self::files::{Files, is_missing};
use self::paths::{LOCKS, Layout, TEMP};
use self::walk::Wanted;
use super::{
    Answer, Blob, BlobStore, Condition, DELETE_KEYS_MAX, Key, PAGE_KEYS_MAX, Page, StoreError,
    Version, Want,
};

/// Lock files; a key's hash chooses one.
const LOCKS_COUNT: u64 = 64;
/// Directories remembered as synced into their parents.
const SETTLED_MAX: usize = 8_192;
/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;

/// Objects as files under a directory. Clones share the store.
///
/// ```no_run
/// use cabinet_durability::store::DirStore;
///
/// let store = DirStore::open("/var/lib/cabinet/objects")?;
/// assert_eq!(store.syncs(), 0);
/// # Ok::<(), cabinet_durability::store::DirError>(())
/// ```
#[derive(Clone)]
pub struct DirStore {
    inner: Arc<Inner>,
}

/// A directory cannot be used as a store.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep objects in {}", path.display())]
pub struct DirError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

struct Inner {
    root: PathBuf,
    access: Access,
    files: Files,
    /// Directories whose own name is known to be synced. Making one and syncing it are two steps, and
    /// another thread or process may be between them: that a directory is there says nothing.
    settled: Mutex<HashSet<PathBuf>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Sealed,
    Development,
    ReadReference,
}

impl DirStore {
    /// The store in this directory, which is made if it is not there.
    ///
    /// # Errors
    /// [`DirError`] when it cannot be made.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, DirError> {
        Self::made(root.as_ref(), Access::Sealed)
    }

    /// The same, for records without a seal too: for development. Whoever can write to the directory
    /// then decides what rooms are restored to.
    ///
    /// # Errors
    /// As for [`DirStore::open`].
    pub fn unsealed_for_development(root: impl AsRef<Path>) -> Result<Self, DirError> {
        Self::made(root.as_ref(), Access::Development)
    }

    /// Reads a directory that the reference wrote: keys are plain paths. Puts and deletes are
    /// refused.
    ///
    /// # Errors
    /// [`DirError`] when it is not there.
    pub fn reference_layout(root: impl AsRef<Path>) -> Result<Self, DirError> {
        let root = root.as_ref();
        let absolute = fs::canonicalize(root).map_err(|source| DirError {
            path: root.into(),
            source,
        })?;
        Ok(Self::new(absolute, Access::ReadReference, Files::default()))
    }

    fn made(root: &Path, access: Access) -> Result<Self, DirError> {
        let failed = |source| DirError {
            path: root.into(),
            source,
        };
        make_root(root).map_err(failed)?;
        let absolute = fs::canonicalize(root).map_err(failed)?;
        Ok(Self::new(absolute, access, Files::default()))
    }

    fn new(root: PathBuf, access: Access, files: Files) -> Self {
        Self {
            inner: Arc::new(Inner {
                root,
                access,
                files,
                settled: Mutex::default(),
            }),
        }
    }

    /// Syncs asked of the disk by puts and deletes so far: what a put costs is counted, not timed.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.inner.files.syncs()
    }

    /// Removes temporary files last written before a time, which crashed puts left, and says how many.
    /// Choose a time no put can still be under way from.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Refused`].
    pub async fn sweep_unfinished(&self, before: SystemTime) -> Result<u64, StoreError> {
        self.run(move |inner| {
            inner.writable()?;
            let mut removed = 0;
            sweep(&inner.root, before, &mut removed).map_err(failure)?;
            Ok(removed)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(answer) => answer,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => panic::resume_unwind(panic),
                // The runtime stopped before the work began: blocking work is not cancelled later.
                Err(cancelled) => Err(StoreError::Unavailable(cancelled.into())),
            },
        }
    }
}

impl Inner {
    fn layout(&self) -> Layout {
        match self.access {
            Access::ReadReference => Layout::Plain,
            Access::Sealed | Access::Development => Layout::Marked,
        }
    }

    fn writable(&self) -> Result<(), StoreError> {
        match self.access {
            Access::ReadReference => Err(StoreError::Refused(
                "a directory in the reference's layout is only read".into(),
            )),
            Access::Sealed | Access::Development => Ok(()),
        }
    }

    fn get(&self, key: &Key, want: Want) -> Result<Option<Blob>, StoreError> {
        let path = self.root.join(self.layout().path(key));
        let opened = match self.files.open(&path) {
            // Of the reference's `a` and `a/b` only one can be there.
            Err(error)
                if error.kind() == io::ErrorKind::IsADirectory
                    && self.layout() == Layout::Plain =>
            {
                return Ok(None);
            }
            other => other.map_err(failure)?,
        };
        let Some((mut file, bytes)) = opened else {
            return Ok(None);
        };
        let most = match want {
            Want::Whole { max } if bytes > max => {
                return Err(StoreError::TooLarge { bytes, max });
            }
            Want::Whole { max } => max,
            Want::First(most) => most,
        };
        let (kept, version, total) = self.read(&mut file, most.min(bytes)).map_err(failure)?;
        Ok(Some(Blob {
            bytes: kept.into(),
            version,
            total,
        }))
    }

    /// Reads a file to its end, and keeps its first `keep` bytes.
    fn read(&self, file: &mut File, keep: u64) -> io::Result<(Vec<u8>, Version, u64)> {
        let mut hash = Context::new(&SHA256);
        let mut kept = Vec::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut total = 0;
        loop {
            let read = self.files.read(file, &mut buffer)?;
            if read == 0 {
                return Ok((kept, named(hash), total));
            }
            hash.update(&buffer[..read]);
            // What remains to be kept of this part is no more than the part.
            let more = keep.saturating_sub(total).min(read as u64) as usize;
            kept.extend_from_slice(&buffer[..more]);
            total += read as u64;
        }
    }

    fn put(&self, key: &Key, bytes: &[u8], condition: &Condition) -> Result<Version, StoreError> {
        self.writable()?;
        let path = self.root.join(Layout::Marked.path(key));
        // A key has a segment, so its path has a parent.
        let directory = path.parent().unwrap_or(&self.root);
        let (temp, mut file) = self.create_in(directory).map_err(failure)?;
        let written = self
            .files
            .write(&mut file, bytes)
            .and_then(|()| self.files.sync_file(&file));
        drop(file);
        let renamed = written
            .map_err(failure)
            .and_then(|()| self.replace(key, &path, &temp, condition));
        if let Err(error) = renamed {
            // If this fails too, a sweep finds the file.
            let _ = self.files.remove(&temp);
            return Err(error);
        }
        self.files
            .sync_directory(directory)
            .map_err(|error| StoreError::Ambiguous(error.into()))?;
        let mut hash = Context::new(&SHA256);
        hash.update(bytes);
        Ok(named(hash))
    }

    /// Puts the temporary file in the object's place, if the condition holds.
    fn replace(
        &self,
        key: &Key,
        path: &Path,
        temp: &Path,
        condition: &Condition,
    ) -> Result<(), StoreError> {
        let _lock = self.lock(key).map_err(failure)?;
        let holds = match condition {
            Condition::None => true,
            Condition::Absent => self.files.open(path).map_err(failure)?.is_none(),
            Condition::Matches(version) => match self.files.open(path).map_err(failure)? {
                Some((mut file, _)) => self.read(&mut file, 0).map_err(failure)?.1 == *version,
                None => false,
            },
        };
        if !holds {
            return Err(StoreError::Precondition);
        }
        self.files.rename(temp, path).map_err(failure)
    }

    /// A new temporary file in a directory, which is made and synced first if that was not done.
    fn create_in(&self, directory: &Path) -> io::Result<(PathBuf, File)> {
        self.settle(directory)?;
        match self.create_temp(directory) {
            // Somebody removed what we remember to be there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.settled().clear();
                self.settle(directory)?;
                self.create_temp(directory)
            }
            other => other,
        }
    }

    fn create_temp(&self, directory: &Path) -> io::Result<(PathBuf, File)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let temp = directory.join(format!("{TEMP}{}-{number}", process::id()));
            match self.files.create(&temp) {
                // A process that had our id left it.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other.map(|file| (temp, file)),
            }
        }
    }

    /// Makes the directories down to this one, and syncs their names.
    fn settle(&self, directory: &Path) -> io::Result<()> {
        let unsettled: Vec<&Path> = {
            let settled = self.settled();
            directory
                .ancestors()
                .take_while(|path| *path != self.root && !settled.contains(*path))
                .collect()
        };
        for path in unsettled.into_iter().rev() {
            self.files.make_directory(path)?;
            self.files
                .sync_directory(path.parent().unwrap_or(&self.root))?;
            let mut settled = self.settled();
            if settled.len() == SETTLED_MAX {
                settled.clear();
            }
            settled.insert(path.into());
        }
        Ok(())
    }

    fn settled(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self, key: &Key) -> io::Result<File> {
        let locks = self.root.join(LOCKS);
        let shard = super::shard(key, LOCKS_COUNT);
        let path = locks.join(format!("{shard:02}"));
        match self.files.lock(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.files.make_directory(&locks)?;
                self.files.lock(&path)
            }
            other => other,
        }
    }

    fn delete(&self, keys: &[Key]) -> Result<(), StoreError> {
        self.writable()?;
        for key in keys {
            let path = self.root.join(Layout::Marked.path(key));
            let _lock = self.lock(key).map_err(failure)?;
            match self.files.remove(&path) {
                Err(error) if !is_missing(&error) => return Err(failure(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

impl BlobStore for DirStore {
    fn get<'a>(&'a self, key: &'a Key, want: Want) -> Answer<'a, Option<Blob>> {
        let key = key.clone();
        Box::pin(self.run(move |inner| inner.get(&key, want)))
    }

    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes, condition: Condition) -> Answer<'a, Version> {
        let key = key.clone();
        Box::pin(self.run(move |inner| inner.put(&key, &bytes, &condition)))
    }

    fn delete<'a>(&'a self, keys: &'a [Key]) -> Answer<'a, ()> {
        Box::pin(async move {
            if keys.len() > DELETE_KEYS_MAX {
                return Err(StoreError::TooMany { found: keys.len() });
            }
            let keys = keys.to_vec();
            self.run(move |inner| inner.delete(&keys)).await
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Page> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        Box::pin(self.run(move |inner| {
            let wanted = Wanted {
                prefix: &prefix,
                after: after.as_deref(),
                limit: limit.clamp(1, PAGE_KEYS_MAX),
            };
            walk::walk(&inner.root, inner.layout(), &wanted).map_err(failure)
        }))
    }

    fn allows_unsealed(&self) -> bool {
        self.inner.access == Access::Development
    }
}

impl fmt::Debug for DirStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirStore")
            .field("root", &self.inner.root)
            .field("access", &self.inner.access)
            .finish_non_exhaustive()
    }
}

/// The version of the content that was hashed.
fn named(hash: Context) -> Version {
    Version::new(super::hex(hash.finish().as_ref()))
}

/// What an error of the file system means when nothing was done yet.
fn failure(error: io::Error) -> StoreError {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::PermissionDenied
        | Kind::ReadOnlyFilesystem
        | Kind::IsADirectory
        | Kind::NotADirectory
        | Kind::InvalidFilename
        | Kind::Unsupported => StoreError::Refused(error.into()),
        _ => StoreError::Unavailable(error.into()),
    }
}

/// Makes a directory and those above it, each synced into its parent.
fn make_root(root: &Path) -> io::Result<()> {
    if root.is_dir() {
        return Ok(());
    }
    let parent = match root.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(io::ErrorKind::NotFound.into()),
    };
    make_root(parent)?;
    let files = Files::default();
    files.make_directory(root)?;
    files.sync_directory(parent)
}

fn sweep(directory: &Path, before: SystemTime, removed: &mut u64) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sweep(&entry.path(), before, removed)?;
        } else if kind.is_file() && entry.file_name().to_string_lossy().starts_with(TEMP) {
            // A put that ends meanwhile takes its file away.
            match entry.metadata().and_then(|metadata| metadata.modified()) {
                Ok(written) if written < before => match fs::remove_file(entry.path()) {
                    Ok(()) => *removed += 1,
                    Err(error) if is_missing(&error) => {}
                    Err(error) => return Err(error),
                },
                Ok(_) => {}
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
