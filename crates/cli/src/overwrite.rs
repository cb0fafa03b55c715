//! Files that a command writes over only if they are its own: a name typed wrong costs no game.

use std::fs::File;
use std::io::{self, Seek as _};
use std::path::Path;

/// What was found at a path.
#[derive(Debug)]
pub enum Overwritten {
    /// A file, empty now, or something that never holds anything, such as a pipe.
    File(File),
    /// Something else's file, as it was.
    NotOurs,
}

/// Opens a file to write to, which is made when there is none. `is_ours` looks at one that is not
/// empty, from its start.
///
/// # Errors
/// What opening, looking or emptying met.
pub fn open(
    path: &Path,
    is_ours: impl FnOnce(&File) -> io::Result<bool>,
) -> io::Result<Overwritten> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(path)?;
    // What is no file holds nothing.
    if file.metadata()?.len() > 0 {
        if !is_ours(&file)? {
            return Ok(Overwritten::NotOurs);
        }
        file.set_len(0)?;
        file.rewind()?;
    }
    Ok(Overwritten::File(file))
}
