//! Opening the file, or making it.
//!
//! A directory holds `store.redb` and `store.lock`. The lock is held as long as the store is open.
//! A new file is made under another name and renamed when it is whole, so that a crash leaves either
//! no store or an empty one.

use std::fs::{self, File, TryLockError};
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, DatabaseError, ReadableDatabase};

use super::format::{CONFIG, FORMAT_KEY, FORMAT_VERSION, HANDLES, KV, META, POSTS, RESULTS};

/// A store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another part of this one, has it open.
    #[error("{} is in use; close the process, or the other store of this one, that has it open", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A newer version of this code wrote it.
    #[error("{} has format {found}, newer than {FORMAT_VERSION}, the newest this version reads", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
    },
    /// It is damaged or not a store. Nothing repairs it.
    #[error("{} is damaged or not a store: {detail}; restore a backup, nothing repairs it", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Its process died, and what it left must be mended by one that may write.
    #[error("{} was not closed; start its host, or open it for writing once, and look again", path.display())]
    Unclean {
        /// The file.
        path: PathBuf,
    },
    /// The file system failed.
    #[error("cannot open the store in {}", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// This store was closed; it is not opened again.
    #[error("the store was closed")]
    Closed,
}

/// What a store holds open. The database is closed before the lock is given back: fields drop in
/// this order.
pub(super) struct Files {
    /// `None` after closing, and after reopening failed.
    pub(super) database: Option<Database>,
    /// Opens the database, which must be there. `None` after closing.
    pub(super) opener: Option<Opener>,
    pub(super) lock: Option<File>,
}

pub(super) type Opener = Box<dyn Fn() -> Result<Database, OpenError> + Send + Sync>;

impl Files {
    /// Closes the database and opens it anew, with the lock held all along.
    pub(super) fn reopen(&mut self) -> Result<(), OpenError> {
        let opener = self.opener.as_ref().ok_or(OpenError::Closed)?;
        let failed = self.database.take();
        // One that panicked before may do so again.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(failed)));
        self.database = Some(opener()?);
        Ok(())
    }

    pub(super) fn close(&mut self) {
        self.opener = None;
        self.database = None;
        self.lock = None;
    }
}

const FILE: &str = "store.redb";
const UNFINISHED: &str = "store.redb.new";
const LOCK: &str = "store.lock";

/// The file of a store in this directory.
pub(super) fn file_in(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

pub(super) fn open(directory: &Path, cache_bytes: usize) -> Result<Files, OpenError> {
    let io_at = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    fs::create_dir_all(directory).map_err(io_at(directory))?;
    let lock = lock(directory)?;
    let path = file_in(directory);
    if !path.try_exists().map_err(io_at(&path))? {
        let unfinished = directory.join(UNFINISHED);
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_at(&unfinished)(error));
            }
            _ => {}
        }
        drop(caught(&unfinished, || {
            let database = Builder::new().create(&unfinished);
            let database = database.map_err(|error| not_opened(&unfinished, error))?;
            initialise(&database).map_err(|error| wrong(&unfinished, error))?;
            Ok(database)
        })?);
        fs::rename(&unfinished, &path).map_err(io_at(&path))?;
        // Makes the names durable: of the file in its directory, of that in the one above.
        sync_directory(directory).map_err(io_at(directory))?;
        if let Some(above) = directory.canonicalize().map_err(io_at(directory))?.parent() {
            sync_directory(above).map_err(io_at(above))?;
        }
    }
    let opener: Opener = Box::new(move || {
        caught(&path, || {
            let database = Builder::new().set_cache_size(cache_bytes).open(&path);
            let database = database.map_err(|error| not_opened(&path, error))?;
            check_version(&path, &database)?;
            Ok(database)
        })
    });
    Ok(Files {
        database: Some(opener()?),
        opener: Some(opener),
        lock: Some(lock),
    })
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK);
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let locked = file.map(|file| (file.try_lock(), file));
    match locked {
        Ok((Ok(()), file)) => Ok(file),
        Ok((Err(TryLockError::WouldBlock), _)) => Err(OpenError::InUse {
            path: directory.to_owned(),
        }),
        Ok((Err(TryLockError::Error(source)), _)) | Err(source) => {
            Err(OpenError::Io { path, source })
        }
    }
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Elsewhere a directory cannot be opened to be synced; the file system orders names itself.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Writes the version and makes every table, so that readers always find them.
pub(super) fn initialise(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    let version = FORMAT_VERSION.to_le_bytes();
    transaction
        .open_table(META)?
        .insert(FORMAT_KEY, &version[..])?;
    for table in [KV, CONFIG, POSTS, RESULTS, HANDLES] {
        transaction.open_table(table)?;
    }
    Ok(transaction.commit()?)
}

pub(super) fn check_version(
    path: &Path,
    database: &impl ReadableDatabase,
) -> Result<(), OpenError> {
    let read = || -> Result<Option<Vec<u8>>, redb::Error> {
        let meta = database.begin_read()?.open_table(META)?;
        let version = meta.get(FORMAT_KEY)?;
        Ok(version.map(|version| version.value().to_vec()))
    };
    let version = read().map_err(|error| wrong(path, error))?;
    let corrupt = |detail: String| OpenError::Corrupt {
        path: path.to_owned(),
        detail,
    };
    let version: Vec<u8> = version.ok_or_else(|| corrupt("it has no format version".into()))?;
    match <[u8; 4]>::try_from(version.as_slice()).map(u32::from_le_bytes) {
        Ok(FORMAT_VERSION) => Ok(()),
        Ok(found) if found > FORMAT_VERSION => Err(OpenError::NewerFormat {
            path: path.to_owned(),
            found,
        }),
        _ => Err(corrupt(format!("its format version is {version:02x?}"))),
    }
}

/// Opens, taking a panic over a damaged file for what it is.
pub(super) fn caught<T>(
    path: &Path,
    open: impl FnOnce() -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    panic::catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| {
        Err(OpenError::Corrupt {
            path: path.to_owned(),
            detail: "reading it panicked".into(),
        })
    })
}

pub(super) fn not_opened(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse {
            path: path.to_owned(),
        },
        error => wrong(path, error.into()),
    }
}

pub(super) fn wrong(path: &Path, error: redb::Error) -> OpenError {
    let path = path.to_owned();
    match error {
        // redb reports a file that is not its own, or ends too early, as an I/O error.
        redb::Error::Io(source)
            if !matches!(
                source.kind(),
                io::ErrorKind::InvalidData
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::UnexpectedEof
            ) =>
        {
            OpenError::Io { path, source }
        }
        error => OpenError::Corrupt {
            path,
            detail: error.to_string(),
        },
    }
}
