//! The layout without a database: `results/ab/<key>`, a small file for each result. A small value stands in it,
//! because a file takes a block of the disk anyway; a large one is a blob.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use forkyard_shared::blob;
use forkyard_shared::digest::Digest;
use forkyard_shared::private;
use nix::unistd::syncfs;

use super::backend::{Backend, Found, NewResult, NewValue};
use super::dir::{StoreDir, make_dir};
use super::error::StoreError;
use super::index::Index;
use super::record::{Place, Record};

/// Values up to this size stand in the file of their result: with it they fit one block.
const INLINE_MAX_BYTES: usize = 3 << 10;

/// The files of one store.
pub(super) struct Files {
    dir: StoreDir,
    /// For the name of the next unfinished file.
    next: u64,
}

impl Files {
    /// Makes the directory.
    pub fn create(dir: &StoreDir) -> Result<(), StoreError> {
        make_dir(&dir.results_dir())
    }

    pub fn open(dir: &StoreDir) -> Files {
        Files { dir: dir.clone(), next: 0 }
    }

    fn path(&self, key: Digest) -> PathBuf {
        let hex = key.to_hex();
        self.dir.results_dir().join(&hex[..2]).join(hex)
    }

    /// Where the value of a result goes: into its file, or into a blob.
    fn place(&mut self, result: &NewResult) -> Result<Place, StoreError> {
        match &result.value {
            NewValue::Bytes(bytes) if bytes.len() <= INLINE_MAX_BYTES => Ok(Place::Inline(bytes.clone())),
            NewValue::Bytes(bytes) => {
                // One that went bad must not be trusted for its name.
                if blob::check(&self.dir.blobs_dir(), result.digest).is_err() {
                    let packed = forkyard_shared::pack::pack(bytes);
                    let temporary = self.write_temporary(packed.as_deref().unwrap_or(bytes))?;
                    blob::adopt(&self.dir.blobs_dir(), &temporary, result.digest, packed.is_some())
                        .map_err(|error| StoreError::Io(format!("keep blob {}", result.digest), error))?;
                }
                Ok(Place::File)
            }
            NewValue::File { .. } => Ok(Place::File),
        }
    }

    fn write_temporary(&mut self, bytes: &[u8]) -> Result<PathBuf, StoreError> {
        self.next += 1;
        let path = self.dir.tmp_dir().join(format!("{}-store-{}", std::process::id(), self.next));
        private::create(&path)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(|error| during("write", &path, error))?;
        Ok(path)
    }

    /// Writes a result's file. A new one is written in place: torn, it does not pass its check. One that is there
    /// already is replaced whole.
    fn write(&mut self, key: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(key);
        let create = || private::options().write(true).create_new(true).open(&path);
        let created = create().or_else(|error| match path.parent() {
            Some(dir) if error.kind() == ErrorKind::NotFound => {
                private::make_dirs(dir).and_then(|()| create())
            }
            _ => Err(error),
        });
        match created {
            Ok(mut file) => file.write_all(bytes).map_err(|error| during("write", &path, error)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let temporary = self.write_temporary(bytes)?;
                // It replaces a result that may be durable: its bytes first.
                let replace = || {
                    File::open(&temporary)?.sync_data()?;
                    fs::rename(&temporary, &path)
                };
                replace().map_err(|error| during("write", &path, error))
            }
            Err(error) => Err(during("write", &path, error)),
        }
    }
}

impl Backend for Files {
    fn commit(&mut self, results: &[NewResult], run: u64) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::with_capacity(results.len());
        for result in results {
            let place = self.place(result)?;
            records.push(result.record(place, run));
        }
        for (result, record) in results.iter().zip(&records) {
            self.write(result.key, &record.encode(result.key))?;
        }
        // All files and names of the group at once. (Other files of the same disk are synced with them.)
        let root = File::open(&self.dir.path).map_err(|error| during("open", &self.dir.path, error))?;
        syncfs(&root).map_err(|error| during("sync", &self.dir.path, error.into()))?;
        Ok(records)
    }

    fn fold(&mut self, _: &AtomicBool) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn fold_is_due(&self) -> bool {
        false
    }

    fn learn(&mut self, _: u64) -> Result<(), StoreError> {
        Ok(())
    }

    fn learnt(&self) -> Option<Arc<Index>> {
        None
    }

    fn lookup(&self, key: Digest) -> Option<Found> {
        let bytes = fs::read(self.path(key)).ok()?;
        Some(Record::decode(key, &bytes).ok_or(bytes))
    }

    fn each(&self, each: &mut dyn FnMut(Digest, Found)) -> Result<(), StoreError> {
        let results = self.dir.results_dir();
        let dirs = fs::read_dir(&results).map_err(|error| during("read", &results, error))?;
        for dir in dirs.flatten().map(|dir| dir.path()) {
            let files = fs::read_dir(&dir).map_err(|error| during("read", &dir, error))?;
            for file in files.flatten() {
                let Some(key) = file.file_name().to_str().and_then(Digest::from_hex) else { continue };
                match fs::read(file.path()) {
                    Ok(bytes) => each(key, Record::decode(key, &bytes).ok_or(bytes)),
                    // It was removed meanwhile.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(during("read", &file.path(), error)),
                }
            }
        }
        Ok(())
    }

    fn copy_rows(&self, _: i64, _: u64, _: &mut dyn Write) -> Result<(), StoreError> {
        Err(StoreError::Damaged("a result of this store names a database, and it has none".into()))
    }

    fn hold_moment(&self, _: bool) {}

    fn forget(&mut self, keys: &[Digest]) -> Result<(), StoreError> {
        for key in keys {
            let path = self.path(*key);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(during("remove", &path, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn sweep(&mut self, _: &[(i64, u64)]) -> Result<bool, StoreError> {
        Ok(true)
    }
}

fn during(verb: &str, path: &Path, error: std::io::Error) -> StoreError {
    StoreError::Io(format!("{verb} {}", path.display()), error)
}
