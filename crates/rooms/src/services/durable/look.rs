//! Reading what a store is configured with, and changing nothing: for programs that only look.

use std::path::Path;

use redb::{Builder, DatabaseError, ReadableDatabase};

use super::format::{self, CONFIG};
use super::open::{self, OpenError};

/// The configured values of a game's keys, in order; `None` for a key nobody set.
///
/// Opens the file for reading: works where nothing may be written, makes nothing that is not there,
/// and several may look at once. A store that a host has open is [`OpenError::InUse`].
///
/// # Errors
/// [`OpenError`]; [`OpenError::Unclean`] for a store whose process died: only a writer can mend it.
pub fn look_config(
    directory: impl AsRef<Path>,
    slug: &str,
    keys: &[&[u8]],
) -> Result<Vec<Option<Vec<u8>>>, OpenError> {
    let path = open::file_in(directory.as_ref());
    open::caught(&path, || {
        // A single value is read: no cache worth its name.
        let database = Builder::new().set_cache_size(1 << 20).open_read_only(&path);
        let database = database.map_err(|error| match error {
            DatabaseError::RepairAborted => OpenError::Unclean { path: path.clone() },
            error => open::not_opened(&path, error),
        })?;
        open::check_version(&path, &database)?;
        let read = || -> Result<Vec<Option<Vec<u8>>>, redb::Error> {
            let table = database.begin_read()?.open_table(CONFIG)?;
            let value = |key: &&[u8]| {
                let value = table.get(&*format::config_key(slug, key))?;
                Ok(value.map(|value| value.value().to_vec()))
            };
            keys.iter().map(value).collect()
        };
        read().map_err(|error| open::wrong(&path, error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::durable::{DurableOptions, DurableStore};
    use crate::services::{StoreAdmin, wait_for};

    #[test]
    fn a_look_finds_what_was_set_and_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableStore::open(dir.path(), &DurableOptions::default()).unwrap();
        wait_for(|reply| store.set_config("tour", b"speed", Some(b"2"), reply)).unwrap();
        let open = look_config(dir.path(), "tour", &[b"speed"]);
        assert!(matches!(open, Err(OpenError::InUse { .. })), "{open:?}");
        store.close();
        let files = || {
            let mut files: Vec<_> = std::fs::read_dir(dir.path())
                .unwrap()
                .map(|entry| {
                    let path = entry.unwrap().path();
                    (std::fs::read(&path).unwrap(), path)
                })
                .collect();
            files.sort();
            files
        };
        let before = files();
        let found = look_config(dir.path(), "tour", &[b"speed", b"size"]).unwrap();
        assert_eq!(found, [Some(b"2".to_vec()), None]);
        assert_eq!(
            look_config(dir.path(), "maze", &[b"speed"]).unwrap(),
            [None]
        );
        assert!(files() == before, "a look changed the store");
    }

    #[test]
    fn a_directory_without_a_store_stays_empty() {
        let dir = tempfile::tempdir().unwrap();
        let error = look_config(dir.path(), "tour", &[b"speed"]).unwrap_err();
        assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_store_whose_process_died_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableStore::open(dir.path(), &DurableOptions::default()).unwrap();
        wait_for(|reply| store.set_config("tour", b"speed", Some(b"2"), reply)).unwrap();
        // What a process leaves that died: the file as it is while the store is open.
        let left = tempfile::tempdir().unwrap();
        std::fs::copy(open::file_in(dir.path()), open::file_in(left.path())).unwrap();
        store.close();
        let error = look_config(left.path(), "tour", &[b"speed"]).unwrap_err();
        assert!(matches!(error, OpenError::Unclean { .. }), "{error:?}");
        DurableStore::open(left.path(), &DurableOptions::default())
            .unwrap()
            .close();
        let found = look_config(left.path(), "tour", &[b"speed"]).unwrap();
        assert_eq!(found, [Some(b"2".to_vec())]);
    }
}
