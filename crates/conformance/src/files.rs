//! Reading what a person names: artifacts and scripts, each with a limit and a one-line problem.

use std::fs::File;
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

/// Opens a file to read. Whatever is no file is refused before it is opened: a pipe nobody writes
/// to, a socket or a terminal would be waited for for ever.
///
/// The pipe of a shell's `<(…)` is read, as is one on the standard input: both are named as a
/// descriptor of this process, and somebody writes to them.
///
/// # Errors
/// [`FileError::Io`], [`FileError::NotAFile`].
pub fn open(path: &Path) -> Result<File, FileError> {
    no_other(path)?;
    File::open(path).map_err(|source| FileError::Io {
        path: path.to_owned(),
        source,
    })
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
    let kind = found.file_type();
    let what = if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a directory")
    } else {
        special(path, kind)
    };
    what.map_or(Ok(()), |what| {
        Err(FileError::NotAFile {
            path: path.to_owned(),
            what,
        })
    })
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

/// What a path names that is neither a file nor a directory; `None` where it is read all the same.
#[cfg(unix)]
fn special(path: &Path, kind: std::fs::FileType) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt as _;

    if kind.is_fifo() {
        let descriptors = ["/dev/fd", "/proc/self/fd"];
        let is_ours = descriptors
            .iter()
            .any(|dir| path.parent() == Some(Path::new(dir)))
            || path == Path::new("/dev/stdin");
        return (!is_ours).then_some("a pipe");
    }
    Some(if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    })
}

#[cfg(not(unix))]
fn special(_: &Path, _: std::fs::FileType) -> Option<&'static str> {
    Some("a device")
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
        }
    }
}
