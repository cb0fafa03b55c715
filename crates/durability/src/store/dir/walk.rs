//! Listing a directory in the order of its keys.
//!
//! The order of names is not the order of keys: `a+/` stands for keys after `a-b` and before `a0`.
//! So what was met waits in a heap under the least text its keys can have, and the least is looked
//! at first: a directory is read into the heap, an object is the next key.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::files::is_missing;
use super::paths::{Layout, Name};
use crate::store::{Entry, Key, Page};

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    /// No key of it is less.
    least: String,
    kind: Kind,
    path: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Object,
    Foreign,
    Directory,
}

/// What of a listing is wanted.
pub(super) struct Wanted<'a> {
    pub(super) prefix: &'a str,
    pub(super) after: Option<&'a str>,
    pub(super) limit: usize,
}

impl Wanted<'_> {
    /// Whether some key that begins with `least` may be wanted.
    fn below(&self, least: &str) -> bool {
        (least.starts_with(self.prefix) || self.prefix.starts_with(least))
            && self
                .after
                .is_none_or(|after| least > after || after.starts_with(least))
    }

    fn exactly(&self, key: &str) -> bool {
        key.starts_with(self.prefix) && self.after.is_none_or(|after| key > after)
    }
}

/// The page of keys that is wanted.
pub(super) fn walk(root: &Path, layout: Layout, wanted: &Wanted<'_>) -> io::Result<Page> {
    let mut page = Page::default();
    let Some((start, base)) = layout.start(wanted.prefix) else {
        return Ok(page);
    };
    let mut heap = BinaryHeap::new();
    if wanted.below(&base) {
        heap.push(Reverse(Waiting {
            least: base,
            kind: Kind::Directory,
            path: root.join(start),
        }));
    }
    // Met since the last entry: the next page meets them again, if there is one.
    let mut foreign = 0;
    while let Some(Reverse(next)) = heap.pop() {
        match next.kind {
            Kind::Directory => read(&next, layout, wanted, &mut heap)?,
            Kind::Foreign => foreign += 1,
            Kind::Object => {
                // One that was deleted meanwhile is no entry.
                let Some(bytes) = length(&next.path)? else {
                    continue;
                };
                if page.entries.len() == wanted.limit {
                    page.next = page.entries.last().map(|last| last.key.as_str().into());
                    return Ok(page);
                }
                page.foreign += std::mem::take(&mut foreign);
                page.entries.push(Entry {
                    key: Key::known(next.least),
                    bytes,
                });
            }
        }
    }
    page.foreign += foreign;
    Ok(page)
}

fn read(
    directory: &Waiting,
    layout: Layout,
    wanted: &Wanted<'_>,
    heap: &mut BinaryHeap<Reverse<Waiting>>,
) -> io::Result<()> {
    let entries = match fs::read_dir(&directory.path) {
        Ok(entries) => entries,
        Err(error) if is_missing(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let kind = entry.file_type()?;
        let read = if kind.is_dir() || kind.is_file() {
            layout.name(&directory.least, &name, kind.is_dir())
        } else {
            Name::Foreign
        };
        let (least, kind, is_wanted) = match read {
            Name::Internal => continue,
            Name::Directory(text) => {
                let below = wanted.below(&text);
                (text, Kind::Directory, below)
            }
            Name::Object(text) => {
                let exactly = wanted.exactly(&text);
                (text, Kind::Object, exactly)
            }
            Name::Foreign => {
                let text = format!("{}{name}", directory.least);
                let exactly = wanted.exactly(&text);
                (text, Kind::Foreign, exactly)
            }
        };
        if is_wanted {
            heap.push(Reverse(Waiting {
                least,
                kind,
                path: entry.path(),
            }));
        }
    }
    Ok(())
}

fn length(path: &Path) -> io::Result<Option<u64>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
