//! What the store asks of the file system, one step at a time.
//!
//! Every step passes a gate that tests can close: they fail the n-th one, or all from the n-th on as
//! a crash would.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// A step of a put or a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    MakeDirectory,
    Create,
    Write,
    SyncFile,
    Lock,
    Read,
    Rename,
    Remove,
    SyncDirectory,
}

/// What happens to a step. Without a test at the gate, all go.
#[cfg_attr(not(test), expect(dead_code, reason = "only tests close the gate"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// It is done.
    Go,
    /// It is not done, and fails.
    Fail,
    /// Half of it is done (of a write), and it fails.
    Torn,
}

/// Says what happens to each step.
pub(super) trait Gate: Send + Sync {
    fn pass(&self, step: Step) -> Pass;
}

/// The file system, behind a gate.
#[derive(Default)]
pub(super) struct Files {
    gate: Option<Box<dyn Gate>>,
    syncs: AtomicU64,
}

impl Files {
    #[cfg(test)]
    pub(super) fn behind(gate: Box<dyn Gate>) -> Self {
        Self {
            gate: Some(gate),
            syncs: AtomicU64::new(0),
        }
    }

    /// Syncs done so far, of files and of directories.
    pub(super) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    fn pass(&self, step: Step) -> Pass {
        self.gate.as_ref().map_or(Pass::Go, |gate| gate.pass(step))
    }

    fn step<T>(&self, step: Step, done: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.pass(step) {
            Pass::Go => done(),
            Pass::Fail | Pass::Torn => Err(injected()),
        }
    }

    /// Makes a directory, unless it is there.
    pub(super) fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.step(Step::MakeDirectory, || match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        })
    }

    /// Makes a file that was not there, for its owner only.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        self.step(Step::Create, || {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            options.open(path)
        })
    }

    pub(super) fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        match self.pass(Step::Write) {
            Pass::Go => file.write_all(bytes),
            Pass::Fail => Err(injected()),
            Pass::Torn => {
                file.write_all(&bytes[..bytes.len() / 2])?;
                Err(injected())
            }
        }
    }

    pub(super) fn sync_file(&self, file: &File) -> io::Result<()> {
        self.step(Step::SyncFile, || {
            self.syncs.fetch_add(1, Ordering::Relaxed);
            file.sync_all()
        })
    }

    /// Syncs the names in a directory. What somebody put there that is none, such as a pipe, is refused
    /// and never waited for.
    pub(super) fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.step(Step::SyncDirectory, || {
            let directory = opened(path, OpenOptions::new().read(true), directory_only)?;
            self.syncs.fetch_add(1, Ordering::Relaxed);
            directory.sync_all()
        })
    }

    /// Locks a file, against other processes and against other handles of this one, until the handle
    /// is dropped.
    pub(super) fn lock(&self, path: &Path) -> io::Result<File> {
        self.step(Step::Lock, || {
            let mut options = OpenOptions::new();
            let options = options.write(true).create(true).truncate(false);
            let file = opened(path, options, file_only)?;
            loop {
                match file.lock() {
                    Ok(()) => return Ok(file),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        })
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Step::Rename, || fs::rename(from, to))
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(Step::Remove, || fs::remove_file(path))
    }

    /// Opens a file to read it, and says how long it is; `None` when there is none. What somebody put
    /// there that is no file, such as a pipe, is refused and never waited for.
    pub(super) fn open(&self, path: &Path) -> io::Result<Option<(File, u64)>> {
        self.step(Step::Read, || {
            let found = opened(path, OpenOptions::new().read(true), file_only)
                .and_then(|file| Ok((file.metadata()?.len(), file)));
            match found {
                Ok((bytes, file)) => Ok(Some((file, bytes))),
                Err(error) if is_missing(&error) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    /// Reads the next bytes of a file; 0 at its end.
    pub(super) fn read(&self, file: &mut File, into: &mut [u8]) -> io::Result<usize> {
        self.step(Step::Read, || {
            loop {
                match file.read(into) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => return other,
                }
            }
        })
    }
}

/// Opens what is of the kind that is wanted, and nothing else: opening a device may do something.
/// Links are followed, as by every step.
fn opened(
    path: &Path,
    options: &mut OpenOptions,
    only: fn(&Path, &fs::Metadata) -> io::Result<()>,
) -> io::Result<File> {
    match fs::metadata(path) {
        Ok(found) => only(path, &found)?,
        // Opening says so, or makes it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let file = waits_for_nobody(options).open(path)?;
    // What was looked at may be gone, and something else in its place.
    only(path, &file.metadata()?)?;
    Ok(file)
}

fn file_only(path: &Path, found: &fs::Metadata) -> io::Result<()> {
    if found.is_file() {
        Ok(())
    } else if found.is_dir() {
        Err(in_its_place(
            io::ErrorKind::IsADirectory,
            path,
            "a directory",
        ))
    } else {
        Err(in_its_place(io::ErrorKind::Unsupported, path, SPECIAL))
    }
}

fn directory_only(path: &Path, found: &fs::Metadata) -> io::Result<()> {
    if found.is_dir() {
        Ok(())
    } else if found.is_file() {
        Err(in_its_place(io::ErrorKind::NotADirectory, path, "a file"))
    } else {
        Err(in_its_place(io::ErrorKind::Unsupported, path, SPECIAL))
    }
}

const SPECIAL: &str = "a pipe, a socket or a device";

/// Says what is in the way, by its name: nothing but taking it away helps.
fn in_its_place(kind: io::ErrorKind, path: &Path, what: &str) -> io::Error {
    let told = format!("{}: {what} is in its place; take it away", path.display());
    io::Error::new(kind, told)
}

/// Has opening a pipe wait for nobody, and a terminal become nobody's. It changes nothing of a file.
#[cfg(unix)]
fn waits_for_nobody(options: &mut OpenOptions) -> &mut OpenOptions {
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, libc::O_NONBLOCK | libc::O_NOCTTY)
}

#[cfg(not(unix))]
fn waits_for_nobody(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// Whether an error says that there is nothing of that name.
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn injected() -> io::Error {
    io::Error::other("a test closed the gate")
}
