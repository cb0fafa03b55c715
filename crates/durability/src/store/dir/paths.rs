//! Where in a directory an object is.
//!
//! A key `a/b` is the file `a+/b`: directories carry a `+`, which no key has, so `a` and `a/b` have
//! different names. A segment longer than [`CHUNK_BYTES`] is cut, and each part but the last is a
//! directory with a `~`, because file systems end names at 255 bytes. The reference's layout has the
//! plain names.

use std::path::PathBuf;

use crate::store::Key;

/// Bytes of a segment that one name holds.
const CHUNK_BYTES: usize = 240;

/// What every temporary file's name begins with.
pub(super) const TEMP: &str = ".tmp-";
/// The directory of the lock files, at the root.
pub(super) const LOCKS: &str = ".locks";

/// How keys become paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Ours.
    Marked,
    /// The reference's: `a/b` is the file `a/b`.
    Plain,
}

/// What a name in a directory is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// Text of a key that goes on below.
    Directory(String),
    /// Text that ends a key.
    Object(String),
    /// Ours, and no object: a temporary file or the locks.
    Internal,
    /// Somebody else's.
    Foreign,
}

impl Layout {
    /// Where under the root the object is.
    pub(super) fn path(self, key: &Key) -> PathBuf {
        if self == Self::Plain {
            return PathBuf::from(key.as_str());
        }
        let mut path = PathBuf::new();
        let mut segments = key.as_str().split('/').peekable();
        while let Some(segment) = segments.next() {
            let last = push_chunks(&mut path, segment);
            if segments.peek().is_some() {
                path.push(format!("{last}+"));
            } else {
                path.push(last);
            }
        }
        path
    }

    /// The deepest directory that holds every key of a prefix, and the text its keys begin with.
    /// `None` when there can be no such key.
    pub(super) fn start(self, prefix: &str) -> Option<(PathBuf, String)> {
        let Some((folder, _)) = prefix.rsplit_once('/') else {
            return Some((PathBuf::new(), String::new()));
        };
        let key = Key::new(folder).ok()?;
        let directory = match self {
            Self::Plain => self.path(&key),
            Self::Marked => {
                let mut path = self.path(&key).into_os_string();
                path.push("+");
                path.into()
            }
        };
        Some((directory, format!("{folder}/")))
    }

    /// What a name is, met below a directory whose keys begin with `base`.
    pub(super) fn name(self, base: &str, name: &str, is_directory: bool) -> Name {
        if name.starts_with(TEMP) || (base.is_empty() && name == LOCKS) {
            return Name::Internal;
        }
        // Whoever is not spelt as `path` spells is not where its key's object is.
        let (text, joint) = match (self, is_directory) {
            (_, false) => (name, ""),
            (Self::Plain, true) => (name, "/"),
            (Self::Marked, true) => match name.split_at_checked(name.len() - 1) {
                Some((text, "+")) => (text, "/"),
                Some((text, "~")) if text.len() == CHUNK_BYTES => (text, ""),
                _ => return Name::Foreign,
            },
        };
        let too_long = self == Self::Marked && text.len() > CHUNK_BYTES;
        let whole = format!("{base}{text}");
        if text.is_empty() || too_long || Key::new(whole.as_str()).is_err() {
            Name::Foreign
        } else if is_directory {
            Name::Directory(whole + joint)
        } else {
            Name::Object(whole)
        }
    }
}

/// Pushes all but the last part of a segment, which it answers.
fn push_chunks<'a>(path: &mut PathBuf, mut segment: &'a str) -> &'a str {
    // Keys are ASCII, so every index is between characters.
    while segment.len() > CHUNK_BYTES {
        let (chunk, rest) = segment.split_at(CHUNK_BYTES);
        path.push(format!("{chunk}~"));
        segment = rest;
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(layout: Layout, key: &str) -> String {
        let key = Key::new(key).expect("a key");
        layout.path(&key).to_str().expect("ascii").into()
    }

    #[test]
    fn an_object_and_a_directory_of_its_name_are_two_names() {
        assert_eq!(path(Layout::Marked, "a"), "a");
        assert_eq!(path(Layout::Marked, "a/b"), "a+/b");
        assert_eq!(path(Layout::Plain, "a/b"), "a/b");
    }

    #[test]
    fn no_name_is_longer_than_a_file_system_takes() {
        let long = "k".repeat(512);
        let found = path(Layout::Marked, &long);
        assert!(found.split('/').all(|name| name.len() < 255), "{found}");
        assert_eq!(found.replace("~/", ""), long);
    }

    #[test]
    fn a_name_reads_back_as_what_it_was_made_from() {
        let name =
            |base: &str, name: &str, is_directory| Layout::Marked.name(base, name, is_directory);
        assert_eq!(name("", "a+", true), Name::Directory("a/".into()));
        assert_eq!(name("a/", "b", false), Name::Object("a/b".into()));
        assert_eq!(name("", ".locks", true), Name::Internal);
        assert_eq!(name("a/", ".tmp-1-2", false), Name::Internal);
        for (foreign, is_directory) in [
            ("A", false),
            ("a", true),
            ("+", true),
            ("a~", true),
            (".x", false),
        ] {
            assert_eq!(name("", foreign, is_directory), Name::Foreign, "{foreign}");
        }
    }
}
