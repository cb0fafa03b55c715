//! Compiled modules on disk, so that a game is compiled once per machine.
//!
//! Native code that is read from a file and run must be code this host wrote. So every entry
//! carries an authentication code under a key of the embedder's, over its content and over what
//! it is the compilation of: an entry that was changed, cut, or renamed is not returned. That
//! holds against whoever can write to the directory but does not know the key. An old entry put
//! back is harmless: it is what this host compiled from the same bytes with the same settings.
//!
//! An entry is read into memory, checked there, and used from there, never mapped. Writing is to
//! a file of another name, then a rename: readers and other writers see whole entries. Nothing is
//! synced to disk, for an entry torn by a power cut fails its check and is compiled again.
//!
//! # Format `CABC`, version 1
//!
//! ```text
//! offset size
//!  0     4    magic "CABC"
//!  4     4    version, 1, little-endian
//!  8     8    length of the content, bytes, little-endian
//! 16    32    HMAC-SHA256 over bytes 0..16, the cache key (32 bytes) and the content
//! 48     …    content
//! ```
//!
//! The file's name is the cache key in hex and `.cabc`; the HMAC's own key is the HMAC-SHA256 of
//! `cabinet compile cache 1` under the embedder's key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ring::digest::{Context, SHA256};
use ring::hmac::{self, HMAC_SHA256};

const MAGIC: [u8; 4] = *b"CABC";
const VERSION: u32 = 1;
const PREFIX_BYTES: usize = 16;
const TAG_BYTES: usize = 32;
const HEADER_BYTES: usize = PREFIX_BYTES + TAG_BYTES;
const KEY_PURPOSE: &[u8] = b"cabinet compile cache 1";
/// Largest content of an entry. The largest known guest compiles to about 4 MB.
pub const CONTENT_BYTES_MAX: u64 = 256 << 20;
/// Names tried for a temporary file; another is needed only if one was left by a process that
/// died and had the same number.
const TEMPORARY_NAMES: usize = 16;

/// What an entry is the compilation of: everything that decides which machine code results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// The key of a module, as handed to the compiler, under settings: engine and its version,
    /// compiler settings, version of the rewrite, CPU features.
    #[must_use]
    pub fn new(module: &[u8], settings: &str) -> Self {
        let mut hash = Context::new(&SHA256);
        // The length in front makes sure that no two pairs are the same bytes.
        hash.update(&(settings.len() as u64).to_le_bytes());
        hash.update(settings.as_bytes());
        hash.update(module);
        let mut key = [0; 32];
        key.copy_from_slice(hash.finish().as_ref());
        Self(key)
    }

    fn file_name(&self) -> String {
        let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        hex + ".cabc"
    }
}

/// A directory of compiled modules. Any number of processes may share one.
pub struct Cache {
    dir: PathBuf,
    key: hmac::Key,
    temporaries: AtomicU64,
}

/// What the cache has for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The content, just as it was put.
    Hit(Vec<u8>),
    /// Nothing, or nothing this version reads, or nothing that can be read.
    Miss,
    /// A file that does not hold what was put under this key with the embedder's key.
    Tampered,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Cache {
    /// The cache in `dir`, which is made, readable by nobody else, if it is missing. Entries put
    /// under another `key` count as tampered with.
    ///
    /// # Errors
    /// [`CacheError::Open`] when there is no such directory and none can be made.
    pub fn open(dir: &Path, key: &[u8; 32]) -> Result<Self, CacheError> {
        let open = |source| CacheError::Open {
            dir: dir.to_owned(),
            source,
        };
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(dir).map_err(open)?;
        let derived = hmac::sign(&hmac::Key::new(HMAC_SHA256, key), KEY_PURPOSE);
        Ok(Self {
            dir: dir.to_owned(),
            key: hmac::Key::new(HMAC_SHA256, derived.as_ref()),
            temporaries: AtomicU64::new(0),
        })
    }

    /// What was put under `key`.
    #[must_use]
    pub fn get(&self, key: &CacheKey) -> Lookup {
        match self.read(key) {
            Ok(lookup) => lookup,
            Err(_) => Lookup::Miss,
        }
    }

    /// Keeps `content` under `key`, in place of what was there.
    ///
    /// # Errors
    /// [`CacheError::TooLarge`] for content above [`CONTENT_BYTES_MAX`], [`CacheError::Write`]
    /// when the file cannot be written. What was there before stays.
    pub fn put(&self, key: &CacheKey, content: &[u8]) -> Result<(), CacheError> {
        let length = content.len() as u64;
        if length > CONTENT_BYTES_MAX {
            return Err(CacheError::TooLarge { bytes: length });
        }
        let prefix = prefix(length);
        let mut mac = self.mac(&prefix, key);
        mac.update(content);
        let tag = mac.sign();

        let path = self.dir.join(key.file_name());
        let write = |source| CacheError::Write {
            path: path.clone(),
            source,
        };
        let (temporary, mut file) = self.temporary(key).map_err(write)?;
        let written = file
            .write_all(&prefix)
            .and_then(|()| file.write_all(tag.as_ref()))
            .and_then(|()| file.write_all(content))
            .and_then(|()| fs::rename(&temporary, &path));
        written.map_err(|source| {
            // If this fails too, the file stays: in nobody's way, its name is never tried twice.
            _ = fs::remove_file(&temporary);
            write(source)
        })
    }

    fn read(&self, key: &CacheKey) -> io::Result<Lookup> {
        let mut options = OpenOptions::new();
        options.read(true);
        // Something else under that name, a pipe for one, must not make the load wait.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
        let mut file = options.open(self.dir.join(key.file_name()))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(Lookup::Miss);
        }
        let size = metadata.len();
        let Some(length) = size.checked_sub(HEADER_BYTES as u64) else {
            return Ok(Lookup::Tampered);
        };
        let mut header = [0; HEADER_BYTES];
        file.read_exact(&mut header)?;
        let (found, tag) = header.split_at(PREFIX_BYTES);
        let other_version = found[..4] == MAGIC && found[4..8] != VERSION.to_le_bytes();
        if other_version {
            return Ok(Lookup::Miss);
        }
        if length > CONTENT_BYTES_MAX || found != prefix(length) {
            return Ok(Lookup::Tampered);
        }
        let mut content = Vec::with_capacity(length as usize);
        // One byte more than expected tells that the file grew meanwhile.
        file.take(length + 1).read_to_end(&mut content)?;

        let mut mac = self.mac(found, key);
        mac.update(&content);
        let expected = mac.sign();
        if !equal_in_constant_time(&self.key, expected.as_ref(), tag) {
            return Ok(Lookup::Tampered);
        }
        Ok(Lookup::Hit(content))
    }

    fn mac(&self, prefix: &[u8], key: &CacheKey) -> hmac::Context {
        let mut mac = hmac::Context::with_key(&self.key);
        mac.update(prefix);
        mac.update(&key.0);
        mac
    }

    /// A new file, readable by nobody else, that no reader looks for.
    fn temporary(&self, key: &CacheKey) -> io::Result<(PathBuf, File)> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..TEMPORARY_NAMES {
            let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}.{}.{number}.tmp", key.file_name(), std::process::id());
            let path = self.dir.join(name);
            match options.open(&path) {
                Ok(file) => return Ok((path, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

fn prefix(length: u64) -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    prefix[..4].copy_from_slice(&MAGIC);
    prefix[4..8].copy_from_slice(&VERSION.to_le_bytes());
    prefix[8..].copy_from_slice(&length.to_le_bytes());
    prefix
}

/// Compares two codes without telling by the time it takes where they differ. `ring` compares so
/// when it verifies, but verifies only what is one slice: here, the codes' own codes.
fn equal_in_constant_time(key: &hmac::Key, a: &[u8], b: &[u8]) -> bool {
    hmac::verify(key, b, hmac::sign(key, a).as_ref()).is_ok()
}

/// Why the cache cannot be used or an entry cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The directory is not there and cannot be made.
    #[error("cannot use {} as compile cache", dir.display())]
    Open {
        /// The directory.
        dir: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// An entry cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The entry's file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The content is larger than an entry may be.
    #[error("compiled module of {bytes} bytes, the cache keeps at most {CONTENT_BYTES_MAX}")]
    TooLarge {
        /// Bytes of the content.
        bytes: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const KEY: [u8; 32] = [7; 32];

    fn cache() -> (TempDir, Cache) {
        let dir = TempDir::new().expect("a temporary directory");
        let cache = Cache::open(dir.path(), &KEY).expect("it is there");
        (dir, cache)
    }

    fn key(module: &str) -> CacheKey {
        CacheKey::new(module.as_bytes(), "settings")
    }

    fn file(cache: &Cache, key: &CacheKey) -> PathBuf {
        cache.dir.join(key.file_name())
    }

    fn content(seed: u8) -> Vec<u8> {
        (0..5000u32)
            .map(|i| (i as u8).wrapping_mul(31) ^ seed)
            .collect()
    }

    #[test]
    fn what_is_put_is_got_by_any_cache_with_the_same_directory_and_key() {
        let (dir, cache) = cache();
        let other = Cache::open(dir.path(), &KEY).expect("it is there");
        assert_eq!(cache.get(&key("a")), Lookup::Miss);
        cache.put(&key("a"), &content(1)).expect("writable");
        cache.put(&key("b"), b"").expect("writable");
        assert_eq!(other.get(&key("a")), Lookup::Hit(content(1)));
        assert_eq!(other.get(&key("b")), Lookup::Hit(vec![]));
        other.put(&key("a"), &content(2)).expect("writable");
        assert_eq!(cache.get(&key("a")), Lookup::Hit(content(2)));
    }

    #[test]
    fn a_missing_directory_is_made_and_what_is_no_directory_is_refused() {
        let (dir, _) = cache();
        let deep = dir.path().join("a/b/c");
        let cache = Cache::open(&deep, &KEY).expect("it can be made");
        cache.put(&key("a"), b"x").expect("writable");
        let no_dir = file(&cache, &key("a"));
        assert!(matches!(
            Cache::open(&no_dir, &KEY),
            Err(CacheError::Open { .. })
        ));
    }

    #[test]
    fn one_changed_byte_anywhere_is_noticed() {
        let (_dir, cache) = cache();
        cache.put(&key("a"), &content(1)).expect("writable");
        let path = file(&cache, &key("a"));
        let good = fs::read(&path).expect("written");
        for at in (0..HEADER_BYTES + 3).chain([good.len() / 2, good.len() - 1]) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).expect("writable");
            let version = (4..8).contains(&at);
            let expected = if version {
                Lookup::Miss
            } else {
                Lookup::Tampered
            };
            assert_eq!(cache.get(&key("a")), expected, "byte {at}");
        }
        fs::write(&path, &good).expect("writable");
        assert_eq!(cache.get(&key("a")), Lookup::Hit(content(1)));
    }

    #[test]
    fn a_cut_or_longer_file_is_noticed_even_when_its_length_agrees() {
        let (_dir, cache) = cache();
        cache.put(&key("a"), &content(1)).expect("writable");
        let path = file(&cache, &key("a"));
        let good = fs::read(&path).expect("written");
        for len in [
            0,
            1,
            PREFIX_BYTES,
            HEADER_BYTES - 1,
            HEADER_BYTES,
            good.len() - 1,
        ] {
            fs::write(&path, &good[..len]).expect("writable");
            assert_eq!(cache.get(&key("a")), Lookup::Tampered, "cut to {len}");
        }
        for mut bad in [good[..good.len() - 1].to_vec(), [&good[..], &[0]].concat()] {
            let length = (bad.len() - HEADER_BYTES) as u64;
            bad[8..16].copy_from_slice(&length.to_le_bytes());
            fs::write(&path, &bad).expect("writable");
            assert_eq!(cache.get(&key("a")), Lookup::Tampered);
        }
    }

    #[test]
    fn an_entry_under_another_name_is_noticed() {
        let (_dir, cache) = cache();
        let (a, b) = (key("a"), key("b"));
        cache.put(&a, &content(1)).expect("writable");
        cache.put(&b, &content(2)).expect("writable");
        let aside = cache.dir.join("aside");
        fs::rename(file(&cache, &a), &aside).expect("writable");
        fs::rename(file(&cache, &b), file(&cache, &a)).expect("writable");
        fs::rename(&aside, file(&cache, &b)).expect("writable");
        assert_eq!(cache.get(&a), Lookup::Tampered);
        assert_eq!(cache.get(&b), Lookup::Tampered);
    }

    #[test]
    fn an_entry_of_another_embedder_is_noticed_and_replaced() {
        let (dir, cache) = cache();
        cache.put(&key("a"), &content(1)).expect("writable");
        let mut other_key = KEY;
        other_key[31] ^= 1;
        let other = Cache::open(dir.path(), &other_key).expect("it is there");
        assert_eq!(other.get(&key("a")), Lookup::Tampered);
        other.put(&key("a"), &content(2)).expect("writable");
        assert_eq!(other.get(&key("a")), Lookup::Hit(content(2)));
    }

    #[test]
    fn keys_differ_by_module_and_by_settings_and_by_where_one_ends() {
        let keys = [
            ("ab", "c"),
            ("a", "bc"),
            ("c", "ab"),
            ("abc", ""),
            ("", "abc"),
        ]
        .map(|(module, settings)| CacheKey::new(module.as_bytes(), settings));
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[..i].iter().all(|b| a != b));
        }
        assert_eq!(key("a"), key("a"));
    }

    #[test]
    fn what_cannot_be_read_is_a_miss_and_what_cannot_be_written_an_error_without_leftovers() {
        let (_dir, cache) = cache();
        fs::create_dir(file(&cache, &key("a"))).expect("writable");
        assert_eq!(cache.get(&key("a")), Lookup::Miss);
        let error = cache
            .put(&key("a"), b"x")
            .expect_err("a directory is in the way");
        assert!(matches!(error, CacheError::Write { .. }));
        let left = fs::read_dir(&cache.dir).expect("readable").count();
        assert_eq!(left, 1, "the directory only");
    }

    #[test]
    fn content_of_the_largest_size_is_kept_and_one_byte_more_is_not() {
        let (_dir, cache) = cache();
        let mut content = vec![0; CONTENT_BYTES_MAX as usize];
        cache.put(&key("a"), &content).expect("at the limit");
        match cache.get(&key("a")) {
            Lookup::Hit(got) => assert!(got == content),
            other => panic!("{other:?}"),
        }
        content.push(0);
        let bytes = CONTENT_BYTES_MAX + 1;
        let refused = cache.put(&key("b"), &content);
        assert!(matches!(refused, Err(CacheError::TooLarge { bytes: found }) if found == bytes));
        assert_eq!(cache.get(&key("b")), Lookup::Miss);

        // A file beyond the limit is not read, whatever it says.
        let file = File::create(file(&cache, &key("c"))).expect("writable");
        file.set_len(bytes + HEADER_BYTES as u64).expect("a hole");
        assert_eq!(cache.get(&key("c")), Lookup::Tampered);
    }

    #[test]
    #[cfg(unix)]
    fn entries_and_the_directory_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, _) = cache();
        let cache = Cache::open(&dir.path().join("new"), &KEY).expect("it can be made");
        cache.put(&key("a"), b"x").expect("writable");
        let mode = |path: &Path| {
            fs::metadata(path)
                .expect("it is there")
                .permissions()
                .mode()
        };
        assert_eq!(mode(&file(&cache, &key("a"))) & 0o777, 0o600);
        assert_eq!(mode(&cache.dir) & 0o777, 0o700);
    }
}
