//! Files that a command writes over only if they are its own: a name typed wrong costs no game.

use std::fs::File;
use std::io::{self, Seek as _};
use std::path::Path;

use cabinet_conformance::files::{self, FileError};

/// What was found at a path.
#[derive(Debug)]
pub enum Overwritten {
    /// A file, empty now, or something that never holds anything, such as a pipe.
    File(File),
    /// Something else's file, as it was.
    NotOurs,
}

/// Opens a file to write to, which is made when there is none. `is_ours` looks at one that is not
/// empty, from its start. A pipe is refused but for one that the shell made.
///
/// # Errors
/// What opening, looking or emptying met.
pub fn open(
    path: &Path,
    is_ours: impl FnOnce(&File) -> io::Result<bool>,
) -> Result<Overwritten, FileError> {
    let problem = |source: io::Error| FileError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = files::open_to_write(path, false)?;
    // What is no file holds nothing.
    if file.metadata().map_err(problem)?.len() > 0 {
        if !is_ours(&file).map_err(problem)? {
            return Ok(Overwritten::NotOurs);
        }
        file.set_len(0).map_err(problem)?;
        file.rewind().map_err(problem)?;
    }
    Ok(Overwritten::File(file))
}
