//! Reading what a person names: artifacts and scripts, each with a limit and a one-line problem.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::script::{MAX_SCRIPT_BYTES, Script, ScriptError};

/// Largest artifact read, bytes. Four hundred times the largest real one seen.
pub const MAX_ARTIFACT_BYTES: usize = 256 << 20;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file system said no.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// It is a directory, a pipe, a socket or a device.
    #[error("{}: {what} and no file; name a file", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
        /// What it is, with its article.
        what: &'static str,
    },
    /// The file is larger than its kind may be.
    #[error("{}: more than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Most bytes it may have.
        limit: usize,
    },
    /// The file does not start as a wasm module does.
    #[error("{}: not a wasm module", path.display())]
    NotWasm {
        /// The file.
        path: PathBuf,
    },
    /// The file is no script.
    #[error("{}", path.display())]
    Script {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ScriptError,
    },
}

/// Reads a wasm module of [`MAX_ARTIFACT_BYTES`] at most.
///
/// # Errors
/// [`FileError`]; its [`error_line`](crate::error_line) is fit to show.
pub fn read_artifact(path: &Path) -> Result<Vec<u8>, FileError> {
    let wasm = read_up_to(path, MAX_ARTIFACT_BYTES)?;
    if !wasm.starts_with(b"\0asm") {
        return Err(FileError::NotWasm {
            path: path.to_owned(),
        });
    }
    Ok(wasm)
}

/// Reads a script of [`MAX_SCRIPT_BYTES`] at most.
///
/// # Errors
/// [`FileError`]; its [`error_line`](crate::error_line) is fit to show.
pub fn read_script(path: &Path) -> Result<Script, FileError> {
    let text = read_up_to(path, MAX_SCRIPT_BYTES)?;
    Script::from_bytes(&text).map_err(|source| FileError::Script {
        path: path.to_owned(),
        source,
    })
}

/// Reads a file of `limit` bytes at most.
///
/// # Errors
/// [`FileError::Io`], [`FileError::NotAFile`], [`FileError::TooLarge`].
pub fn read_up_to(path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
    let problem = |source: io::Error| FileError::Io {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    open(path)?
        .take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(problem)?;
    if bytes.len() > limit {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
            limit,
        });
    }
    Ok(bytes)
}

/// Opens a file to read. Whatever is no file is refused, and never waited for: a pipe nobody writes
/// to, a socket or a terminal would be for ever.
///
/// The pipe of a shell's `<(…)` is read, as is one on the standard input: both are named as a
/// descriptor of this process that is open to read, and somebody writes to them.
///
/// # Errors
/// [`FileError::Io`], [`FileError::NotAFile`].
pub fn open(path: &Path) -> Result<File, FileError> {
    let problem = |source: io::Error| FileError::Io {
        path: path.to_owned(),
        source,
    };
    let kind = std::fs::metadata(path).map_err(problem)?.file_type();
    refuse(path, kind, Way::Read)?;
    if !kind.is_file() {
        return File::open(path).map_err(problem);
    }
    let mut options = OpenOptions::new();
    let file = waits_for_nobody(options.read(true))
        .open(path)
        .map_err(problem)?;
    // What was looked at above may be gone, and something else in its place.
    still_a_file(path, &file)?;
    Ok(file)
}

/// Opens a file to write to, which is made when there is none, and which is not emptied; `append`
/// writes at its end. It can be read too.
///
/// A device, such as a terminal, is opened to write only, and so is the pipe of a shell's `>(…)`: a
/// descriptor of this process that is open to write. Any other pipe is refused: whoever is to read it
/// may never come.
///
/// # Errors
/// [`FileError::Io`], [`FileError::NotAFile`].
pub fn open_to_write(path: &Path, append: bool) -> Result<File, FileError> {
    let problem = |source: io::Error| FileError::Io {
        path: path.to_owned(),
        source,
    };
    let mut options = OpenOptions::new();
    options.write(true).append(append);
    let found = match std::fs::metadata(path) {
        Ok(found) => Some(found.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(problem(error)),
    };
    if let Some(kind) = found {
        refuse(path, kind, Way::Write)?;
        if !kind.is_file() {
            return options.open(path).map_err(problem);
        }
    }
    // Opened to read too, a pipe that takes the place just now is not waited for either.
    options.read(true).create(true);
    let file = waits_for_nobody(&mut options).open(path).map_err(problem)?;
    still_a_file(path, &file)?;
    Ok(file)
}

/// Says what [`open`] would not open, of a file that is to be opened in some other way.
///
/// # Errors
/// [`FileError::Io`], [`FileError::NotAFile`].
pub fn no_other(path: &Path) -> Result<(), FileError> {
    let found = std::fs::metadata(path).map_err(|source| FileError::Io {
        path: path.to_owned(),
        source,
    })?;
    refuse(path, found.file_type(), Way::Read)
}

/// As [`no_other`], of a file that need not be there.
///
/// # Errors
/// [`FileError::Io`], [`FileError::NotAFile`].
pub fn none_or_file(path: &Path) -> Result<(), FileError> {
    match no_other(path) {
        Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Read,
    Write,
}

fn refuse(path: &Path, kind: FileType, way: Way) -> Result<(), FileError> {
    let what = if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a directory")
    } else {
        special(path, kind, way)
    };
    what.map_or(Ok(()), |what| {
        Err(FileError::NotAFile {
            path: path.to_owned(),
            what,
        })
    })
}

/// Says what an opened file is, if it is none.
fn still_a_file(path: &Path, file: &File) -> Result<(), FileError> {
    let found = file.metadata().map_err(|source| FileError::Io {
        path: path.to_owned(),
        source,
    })?;
    if found.is_file() {
        return Ok(());
    }
    Err(FileError::NotAFile {
        path: path.to_owned(),
        what: "something else by now",
    })
}

/// Has opening a pipe wait for nobody, and a terminal become nobody's. It changes nothing of a file.
#[cfg(unix)]
fn waits_for_nobody(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;

    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
}

#[cfg(not(unix))]
fn waits_for_nobody(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// What a path names that is neither a file nor a directory; `None` where it is opened all the same.
#[cfg(unix)]
fn special(path: &Path, kind: FileType, way: Way) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt as _;

    if kind.is_fifo() {
        let is_ours = descriptor(path).is_some_and(|number| is_open_to(number, way));
        return (!is_ours).then_some("a pipe");
    }
    if kind.is_socket() {
        return Some("a socket");
    }
    (way == Way::Read).then_some("a device")
}

#[cfg(not(unix))]
fn special(_: &Path, _: FileType, way: Way) -> Option<&'static str> {
    (way == Way::Read).then_some("a device")
}

/// The number of this process's descriptor that a path names.
#[cfg(unix)]
fn descriptor(path: &Path) -> Option<u32> {
    let standard = ["/dev/stdin", "/dev/stdout", "/dev/stderr"];
    if let Some(at) = standard.iter().position(|name| path == Path::new(name)) {
        return u32::try_from(at).ok();
    }
    let mut dirs = ["/dev/fd", "/proc/self/fd"].iter();
    let is_ours = dirs.any(|dir| path.parent() == Some(Path::new(dir)));
    path.file_name()?.to_str().filter(|_| is_ours)?.parse().ok()
}

/// Whether somebody else is at the other end of a pipe of ours: one that we write to has us to read
/// it, and is waited for for ever.
#[cfg(unix)]
fn is_open_to(descriptor: u32, way: Way) -> bool {
    use std::os::unix::fs::PermissionsExt as _;

    // Linux shows how it was opened as the permissions of this link.
    match std::fs::symlink_metadata(format!("/proc/self/fd/{descriptor}")) {
        Ok(link) => {
            let (reads, writes) = (0o400, 0o200);
            let mode = link.permissions().mode() & (reads | writes);
            match way {
                Way::Read => mode == reads,
                Way::Write => mode & writes != 0,
            }
        }
        // Elsewhere what a shell's pipes are for must do.
        Err(_) => match way {
            Way::Read => descriptor == 0 || descriptor > 2,
            Way::Write => descriptor > 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error_line;

    #[test]
    fn a_file_is_read_at_its_limit_and_refused_one_past_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, [0; 8]).unwrap();
        assert_eq!(read_up_to(&path, 8).unwrap().len(), 8);
        let error = read_up_to(&path, 7).unwrap_err();
        assert!(
            error_line(&error).ends_with("x: more than 7 bytes"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_file_is_refused_by_its_name_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let told = |path: &Path| error_line(&open(path).unwrap_err());
        assert!(told(dir.path()).ends_with(": a directory and no file; name a file"));
        assert!(told(&dir.path().join("missing")).contains("missing: "));
        #[cfg(unix)]
        {
            let pipe = dir.path().join("pipe");
            let made = std::process::Command::new("mkfifo").arg(&pipe).status();
            assert!(made.unwrap().success());
            assert!(told(&pipe).ends_with("pipe: a pipe and no file; name a file"));
            let link = dir.path().join("link");
            std::os::unix::fs::symlink(&pipe, &link).unwrap();
            assert!(told(&link).ends_with("link: a pipe and no file; name a file"));
            let socket = dir.path().join("socket");
            let _bound = std::os::unix::net::UnixListener::bind(&socket).unwrap();
            assert!(told(&socket).contains("socket: a socket and no file"));
            assert!(told(Path::new("/dev/zero")).contains("/dev/zero: a device and no file"));
            for odd in [&pipe, &link, &socket, &dir.path().to_owned()] {
                for append in [false, true] {
                    let told = error_line(&open_to_write(odd, append).unwrap_err());
                    assert!(told.ends_with(" and no file; name a file"), "{told}");
                }
            }
            assert!(open_to_write(Path::new("/dev/null"), true).is_ok());
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_pipe_of_ours_is_opened_the_way_it_is_open() {
        use std::os::fd::AsRawFd as _;

        let (reader, writer) = io::pipe().unwrap();
        let path = |number: i32| PathBuf::from(format!("/proc/self/fd/{number}"));
        let (from, to) = (path(reader.as_raw_fd()), path(writer.as_raw_fd()));
        assert!(open(&from).is_ok() && open_to_write(&to, false).is_ok());
        for told in [open(&to), open_to_write(&from, false)] {
            let told = error_line(&told.unwrap_err());
            assert!(
                told.ends_with(": a pipe and no file; name a file"),
                "{told}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_that_takes_a_files_place_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        // As they are opened after the look that finds a file.
        for options in [
            OpenOptions::new().read(true),
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false),
        ] {
            let file = waits_for_nobody(options).open(&pipe).unwrap();
            let told = error_line(&still_a_file(&pipe, &file).unwrap_err());
            assert!(told.contains("something else by now and no file"), "{told}");
        }
    }

    #[test]
    fn what_is_written_to_is_not_emptied() {
        use std::io::Write as _;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for (append, text, holds) in [
            (true, "one", "one"),
            (true, "two", "onetwo"),
            (false, "six", "sixtwo"),
        ] {
            let mut file = open_to_write(&path, append).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), holds);
        }
    }
}
