//! The places of a store, and making it ready for a run.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use forkyard_shared::blob::{blob_path, packed_path};
use forkyard_shared::digest::Digest;
use forkyard_shared::private;

use nix::unistd::geteuid;

use super::backend::{self, Backend};
use super::error::StoreError;
use super::format::{self, Layout};
use super::lock::Lock;
use super::netfs::network_file_system;
use super::runs::{RunDir, list_runs};
use super::salvage;

/// The directory of a store.
#[derive(Clone)]
pub(crate) struct StoreDir {
    pub path: PathBuf,
}

impl StoreDir {
    pub fn new(path: &Path) -> StoreDir {
        StoreDir { path: path.into() }
    }

    pub fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }

    pub fn tmp_dir(&self) -> PathBuf {
        self.path.join("tmp")
    }

    /// Large values of the layouts that keep them in files.
    pub fn blobs_dir(&self) -> PathBuf {
        self.path.join("blobs")
    }

    /// Large values as workers read them: where the layout has no files, copies for as long as the run lasts.
    pub fn worker_blobs_dir(&self, layout: Layout) -> PathBuf {
        match layout {
            Layout::Sqlite => self.copies_dir(),
            Layout::Hybrid | Layout::Filesystem => self.blobs_dir(),
        }
    }

    fn copies_dir(&self) -> PathBuf {
        self.tmp_dir().join("blobs")
    }

    pub fn quarantine_dir(&self) -> PathBuf {
        self.path.join("quarantine")
    }

    pub fn database_path(&self) -> PathBuf {
        self.path.join("store.db")
    }

    /// The files of the layout that has no database.
    pub fn results_dir(&self) -> PathBuf {
        self.path.join("results")
    }

    /// Makes what is missing, takes the lock and clears what a killed run left unfinished. A new store gets
    /// the layout `wanted`; one that is there keeps its own. Only the owner may look into a store.
    pub fn prepare(&self, wanted: Layout) -> Result<(Lock, Layout), StoreError> {
        make_dir(&self.path)?;
        let lock = self.lock()?;
        for dir in [self.tmp_dir(), self.path.join("runs")] {
            make_dir(&dir)?;
        }
        self.clear_tmp(None);
        self.clear_copies();
        let layout = match format::read(&self.path)? {
            Some(layout) => layout,
            None if !self.runs()?.is_empty() => {
                return Err(StoreError::Damaged(format!(
                    "{} is missing: without it nobody knows how the store was made; put it back (it reads \
                     {{\"format\":1,\"layout\":\"hybrid\"}} or another layout), or name another --store",
                    self.path.join("store.json").display()
                )));
            }
            None => {
                backend::create(self, wanted)?;
                format::write(&self.path, wanted)?;
                wanted
            }
        };
        if layout != Layout::Sqlite {
            make_dir(&self.blobs_dir())?;
        }
        Ok((lock, layout))
    }

    /// The lock, for who changes a store. A new database that has not yet got its place is seen to.
    pub fn lock(&self) -> Result<Lock, StoreError> {
        self.check_owner()?;
        let lock =
            Lock::take(&self.lock_path()).map_err(|error| StoreError::Lock(self.path.clone(), error))?;
        salvage::finish(self)?;
        Ok(lock)
    }

    /// What others can change is not trusted.
    fn check_owner(&self) -> Result<(), StoreError> {
        let Ok(dir) = fs::metadata(&self.path) else { return Ok(()) };
        let foreign = |why: String| Err(StoreError::Foreign(self.path.clone(), why));
        if dir.uid() != geteuid().as_raw() {
            return foreign(format!("belongs to another user (number {})", dir.uid()));
        }
        if dir.mode() & 0o002 != 0 {
            return foreign("may be written to by everybody (`chmod o-w` changes that)".into());
        }
        Ok(())
    }

    /// Its runs, oldest first.
    pub fn runs(&self) -> Result<Vec<RunDir>, StoreError> {
        list_runs(&self.path)
            .map_err(|error| StoreError::Io(format!("read {}", self.path.join("runs").display()), error))
    }

    /// The layout of a store that must be there.
    pub fn layout(&self) -> Result<Layout, StoreError> {
        format::read(&self.path)?.ok_or_else(|| StoreError::Missing(self.path.clone()))
    }

    pub(crate) fn open(&self, layout: Layout) -> Result<Box<dyn Backend>, StoreError> {
        backend::open(self, layout)
    }

    /// What is to be said of the file system below.
    pub fn warning(&self, layout: Layout) -> Option<String> {
        let network = network_file_system(&self.path)?;
        let why = match layout {
            Layout::Filesystem => {
                "its lock does not keep out a run on another machine, and each small file is slow"
            }
            Layout::Sqlite | Layout::Hybrid => {
                "SQLite's write-ahead log needs memory shared by all who use it, so that two machines can damage it"
            }
        };
        let dir = self.path.display();
        Some(format!(
            "store {dir} lies on a network file system ({network}): {why}; put it on a local disk with --store, or use it from one machine only"
        ))
    }

    /// Clears `tmp/` of what a worker left unfinished there (their files' names start with their number), or of what
    /// anybody left. For the lock's holder.
    pub fn clear_tmp(&self, worker: Option<u32>) {
        let prefix = worker.map_or(String::new(), |pid| format!("{pid}-"));
        let entries = fs::read_dir(self.tmp_dir()).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)) {
            let path = entry.path();
            if path == self.copies_dir() {
                continue;
            }
            // What cannot be removed now is tried again by the next run.
            if path.is_dir() {
                fs::remove_dir_all(path).ok()
            } else {
                fs::remove_file(path).ok()
            };
        }
    }

    /// Clears what [`StoreDir::worker_blobs_dir`] held for a run, which is over.
    pub fn clear_copies(&self) {
        fs::remove_dir_all(self.copies_dir()).ok();
    }

    /// Takes a large value out of the files, so that nobody reads it again; its node will run anew.
    pub fn quarantine(&self, layout: Layout, digest: Digest) -> io::Result<()> {
        let (blobs, dir) = (self.worker_blobs_dir(layout), self.quarantine_dir());
        private::make_dirs(&dir)?;
        let mut moved = Err(io::ErrorKind::NotFound.into());
        for path in [blob_path(&blobs, digest), packed_path(&blobs, digest)] {
            let name = path.file_name().expect("it is named after its digest");
            moved = fs::rename(&path, dir.join(name)).or(moved);
        }
        moved
    }
}

pub(super) fn make_dir(dir: &Path) -> Result<(), StoreError> {
    private::make_dirs(dir)
        .map_err(|error| StoreError::Io(format!("make directory {}", dir.display()), error))
}
