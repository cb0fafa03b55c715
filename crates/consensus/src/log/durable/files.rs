//! What the log does to its directory, in the few steps that are safe to be cut short.
//!
//! Invariants
//! - a file that is replaced is whole under its name: written and synced under another, renamed, and
//!   the name synced before anybody is told;
//! - every error names the file and what was being done.

use std::io;
use std::sync::Arc;

use super::super::LogError;
use super::disk::{Disk, DiskFile};
use super::format::Cell;

/// What a file is called while it is written.
pub(super) const TEMPORARY: &str = ".tmp";

pub(super) fn failed(doing: &str, name: &str, error: &io::Error) -> LogError {
    LogError::Io {
        doing: format!("{doing} {name}"),
        kind: error.kind(),
    }
}

pub(super) struct Files {
    pub disk: Arc<dyn Disk>,
    /// Syncs done, of files and of the directory.
    pub syncs: u64,
}

impl Files {
    pub async fn append(
        &self,
        name: &str,
        file: &mut dyn DiskFile,
        bytes: &[u8],
    ) -> Result<(), LogError> {
        file.append(bytes)
            .await
            .map_err(|error| failed("writing", name, &error))
    }

    pub async fn sync(&mut self, name: &str, file: &mut dyn DiskFile) -> Result<(), LogError> {
        self.syncs += 1;
        file.sync()
            .await
            .map_err(|error| failed("syncing", name, &error))
    }

    pub async fn sync_directory(&mut self) -> Result<(), LogError> {
        self.syncs += 1;
        self.disk
            .sync_directory()
            .await
            .map_err(|error| failed("syncing", &self.disk.name(), &error))
    }

    pub async fn open(&self, name: &str) -> Result<Box<dyn DiskFile>, LogError> {
        self.disk
            .open(name)
            .await
            .map_err(|error| failed("opening", name, &error))
    }

    pub async fn remove(&self, name: &str) -> Result<(), LogError> {
        self.disk
            .remove(name)
            .await
            .map_err(|error| failed("removing", name, &error))
    }

    /// Puts a file with just these bytes in place, on stable storage.
    pub async fn replace(
        &mut self,
        name: &str,
        bytes: &[u8],
    ) -> Result<Box<dyn DiskFile>, LogError> {
        let temporary = format!("{name}{TEMPORARY}");
        let mut file = self
            .disk
            .create(&temporary)
            .await
            .map_err(|error| failed("creating", &temporary, &error))?;
        self.append(&temporary, &mut *file, bytes).await?;
        self.sync(&temporary, &mut *file).await?;
        self.disk
            .rename(&temporary, name)
            .await
            .map_err(|error| failed("renaming", &temporary, &error))?;
        self.sync_directory().await?;
        Ok(file)
    }

    pub async fn replace_cell(&mut self, cell: Cell, content: &[u8]) -> Result<(), LogError> {
        self.replace(cell.file(), &cell.encode(content)).await?;
        Ok(())
    }
}
