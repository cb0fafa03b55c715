//! A host that keeps compiled games in the user's cache directory, so that a game starts at once the
//! second time.
//!
//! Entries are machine code and are authenticated with a key that lies beside them, readable by
//! nobody else: that keeps out what other users and half-written files may put there, and not
//! whoever can read the user's own files, who needs no cache to run code as them.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cabinet_conformance::files;
use cabinet_durability::{Entropy, SystemEntropy};
use cabinet_host::{CacheOptions, Host, HostOptions};

use crate::outcome::Problem;

const KEY_BYTES: usize = 32;

/// Most bytes of compiled games kept; what was compiled first goes first. A game is about 1 MB, for
/// `check` twice.
const KEPT_BYTES_MAX: u64 = 256 << 20;

/// Whether compiled games are kept.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct CacheArgs {
    /// Compile the game anew; neither look into the compile cache nor add to it.
    #[arg(long)]
    no_cache: bool,
}

impl CacheArgs {
    /// A host with the user's compile cache; without one where it is not wanted, or where there is
    /// no directory for it.
    ///
    /// # Errors
    /// When no host can be made.
    pub fn host(self) -> Result<Host, Problem> {
        let env = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let dir = if self.no_cache { None } else { cache_dir(env) };
        let mut options = HostOptions::default();
        // A cache that cannot be had costs a second, not the game.
        options.cache = dir.and_then(|dir| open(&dir).ok());
        if let Some(cache) = &options.cache {
            drop_oldest(&cache.dir, KEPT_BYTES_MAX);
        }
        if let Ok(host) = Host::new(options) {
            return Ok(host);
        }
        Host::new(HostOptions::default())
            .map_err(|error| Problem::about("cannot run games", &error))
    }
}

/// Removes what was written first until what is left has `max` bytes or less. What another process
/// reads just now it has open, and keeps.
fn drop_oldest(dir: &Path, max: u64) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let about = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((about.modified().ok()?, about.len(), entry.path()))
        })
        .collect();
    let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    files.sort();
    for (_, size, path) in files {
        if bytes <= max {
            return;
        }
        // One that stays is tried again next time.
        if fs::remove_file(path).is_ok() {
            bytes -= size;
        }
    }
}

/// `$XDG_CACHE_HOME/cabinet`, else `$HOME/.cache/cabinet`. Relative paths are not looked at, as the
/// XDG specification says.
fn cache_dir(env: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name: &str| env(name).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("cabinet"))
}

fn open(dir: &Path) -> io::Result<CacheOptions> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir)?;
    Ok(CacheOptions {
        key: key(&dir.join("compile.key"))?,
        dir: dir.join("compiled"),
    })
}

/// The key in a file, made if there is none. Of several processes that make one, one wins.
fn key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    if let Ok(key) = read_key(path) {
        return Ok(key);
    }
    let mut key = [0; KEY_BYTES];
    SystemEntropy.fill(&mut key).map_err(io::Error::other)?;
    let name = format!("compile.key.{}.tmp", std::process::id());
    let temporary = path.with_file_name(name);
    // Whatever a process of the same number left.
    let _ = fs::remove_file(&temporary);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&temporary)?.write_all(&key)?;
    // A link, unlike a rename, does not take the place of a whole key that came first; one that is
    // not whole is replaced.
    let linked = fs::hard_link(&temporary, path);
    if linked.is_err() && read_key(path).is_err() {
        fs::rename(&temporary, path)?;
    } else {
        let _ = fs::remove_file(&temporary);
    }
    read_key(path)
}

fn read_key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let mut bytes = Vec::with_capacity(KEY_BYTES + 1);
    files::open(path)
        .map_err(io::Error::other)?
        .take(KEY_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    <[u8; KEY_BYTES]>::try_from(bytes.as_slice())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_where_the_xdg_specification_says() {
        let dir = |variables: &[(&str, &str)]| {
            cache_dir(|name| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| PathBuf::from(value))
            })
        };
        assert_eq!(dir(&[]), None);
        assert_eq!(dir(&[("HOME", "/h")]), Some("/h/.cache/cabinet".into()));
        let both = [("XDG_CACHE_HOME", "/c"), ("HOME", "/h")];
        assert_eq!(dir(&both), Some("/c/cabinet".into()));
        let relative = [("XDG_CACHE_HOME", "c"), ("HOME", "/h")];
        assert_eq!(dir(&relative), Some("/h/.cache/cabinet".into()));
    }

    #[test]
    fn a_key_is_made_once_and_a_damaged_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        let first = open(&deep).unwrap().key;
        assert_eq!(open(&deep).unwrap().key, first);
        assert_ne!(first, [0; KEY_BYTES]);
        let path = deep.join("compile.key");
        for damaged in [&b"short"[..], &[1; KEY_BYTES + 1]] {
            fs::write(&path, damaged).unwrap();
            let second = open(&deep).unwrap().key;
            assert_ne!(second, first);
            assert_eq!(open(&deep).unwrap().key, second);
        }
        assert_eq!(fs::read_dir(&deep).unwrap().count(), 1);
    }

    #[test]
    fn what_was_compiled_first_goes_when_there_is_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, age_seconds: u64| {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            (&file).write_all(&[0; 10]).unwrap();
            let age = std::time::Duration::from_secs(age_seconds);
            file.set_modified(SystemTime::now() - age).unwrap();
        };
        for (name, age) in [("a", 10), ("b", 30), ("c", 20)] {
            write(name, age);
        }
        let kept = || {
            let entries = fs::read_dir(dir.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        drop_oldest(dir.path(), 30);
        assert_eq!(kept(), ["a", "b", "c"]);
        drop_oldest(dir.path(), 29);
        assert_eq!(kept(), ["a", "c"]);
        drop_oldest(dir.path(), 0);
        assert!(kept().is_empty());
        drop_oldest(&dir.path().join("none"), 0);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_may_read_the_key() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cabinet");
        open(&cache).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&cache.join("compile.key")), 0o600);
        assert_eq!(mode(&cache), 0o700);
    }
}
