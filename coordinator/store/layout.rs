//! The places of a store, making it ready for a run, and what can be wrong with it.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use forkyard_shared::blob::blob_path;
use forkyard_shared::digest::Digest;

use super::database::{Database, OpenError};
use super::lock::{Lock, LockError};

/// Why a store cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no store here.
    Missing(PathBuf),
    /// The lock cannot be had.
    Lock(PathBuf, LockError),
    /// It was made by a later version of Forkyard.
    Newer(PathBuf, i64),
    /// A file or directory of it cannot be used.
    Io(String, io::Error),
    /// The database cannot be used.
    Database(PathBuf, String),
    /// The bytes of a blob do not match its digest.
    Damaged(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            StoreError::Missing(dir) => write!(
                f,
                "there is no store at {}: `forkyard run` makes one, `--store DIR` names another",
                dir.display()
            ),
            StoreError::Lock(dir, error) => write!(f, "store {}: {error}", dir.display()),
            StoreError::Newer(dir, version) => write!(
                f,
                "store {} has format {version}, this forkyard knows format 1: use the forkyard that made it",
                dir.display()
            ),
            StoreError::Io(what, error) => write!(f, "{what}: {error}"),
            StoreError::Database(path, error) => write!(f, "database {}: {error}", path.display()),
            StoreError::Damaged(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for StoreError {}

/// The places of a store.
#[derive(Clone)]
pub(crate) struct Layout {
    pub dir: PathBuf,
}

impl Layout {
    pub fn new(dir: &Path) -> Layout {
        Layout { dir: dir.into() }
    }

    pub fn lock_path(&self) -> PathBuf {
        self.dir.join("lock")
    }

    pub fn tmp_dir(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    pub fn blobs_dir(&self) -> PathBuf {
        self.dir.join("blobs")
    }

    fn database_path(&self) -> PathBuf {
        self.dir.join("store.db")
    }

    /// Makes what is missing, takes the lock and clears what a killed run left unfinished. Only the
    /// owner may look into a store.
    pub fn prepare(&self) -> Result<Lock, StoreError> {
        let make = |dir: &Path| {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(|error| StoreError::Io(format!("make directory {}", dir.display()), error))
        };
        make(&self.dir)?;
        let lock =
            Lock::take(&self.lock_path()).map_err(|error| StoreError::Lock(self.dir.clone(), error))?;
        for dir in [self.tmp_dir(), self.blobs_dir(), self.dir.join("runs")] {
            make(&dir)?;
        }
        self.clear_tmp(None);
        Ok(lock)
    }

    /// Clears `tmp/` of what a worker left there (their files' names start with their number), or of everything.
    /// For the lock's holder.
    pub fn clear_tmp(&self, worker: Option<u32>) {
        let prefix = worker.map_or(String::new(), |pid| format!("{pid}-"));
        let entries = fs::read_dir(self.tmp_dir()).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)) {
            let path = entry.path();
            // What cannot be removed now is tried again by the next run.
            if path.is_dir() {
                fs::remove_dir_all(path).ok()
            } else {
                fs::remove_file(path).ok()
            };
        }
    }

    /// The database, for the lock's holder, who makes it if there is none.
    pub(super) fn create_database(&self) -> Result<Database, StoreError> {
        Database::create(&self.database_path()).map_err(|error| self.database_error(error))
    }

    pub(super) fn read_database(&self) -> Result<Database, StoreError> {
        Database::read(&self.database_path()).map_err(|error| self.database_error(error))
    }

    pub(super) fn database_error(&self, error: OpenError) -> StoreError {
        match error {
            OpenError::Missing => StoreError::Missing(self.dir.clone()),
            OpenError::Newer(version) => StoreError::Newer(self.dir.clone(), version),
            OpenError::Sqlite(error) => StoreError::Database(self.database_path(), error.to_string()),
        }
    }

    /// Takes a file out of `blobs/`, so that nobody reads it again; its node will run anew.
    pub fn quarantine(&self, digest: Digest) -> io::Result<()> {
        let dir = self.dir.join("quarantine");
        fs::create_dir_all(&dir)?;
        fs::rename(blob_path(&self.blobs_dir(), digest), dir.join(digest.to_hex()))
    }
}
