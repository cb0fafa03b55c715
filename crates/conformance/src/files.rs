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
/// [`FileError::Io`], [`FileError::TooLarge`].
pub fn read_up_to(path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
    let problem = |source: io::Error| FileError::Io {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(problem)?;
    file.take(limit as u64 + 1)
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
}
