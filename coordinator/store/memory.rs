//! A store in memory, for the tests of what stands above it: nothing of it is ever on a disk but what a worker has written
//! to a file, and the run's own thread commits.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use forkyard_shared::digest::Digest;
use parking_lot::Mutex;

use super::backend::{Backend, Found, NewResult, NewValue};
use super::dir::StoreDir;
use super::error::StoreError;
use super::format::Layout;
use super::index::Index;
use super::reader::Reader;
use super::record::{Place, Record};
use super::runs::RunDir;
use super::writer::{Writer, WriterSettings};

/// Results by key, shared by all that read and write them.
#[derive(Clone)]
pub(crate) struct Memory(Arc<Mutex<Results>>, StoreDir);

#[derive(Default)]
struct Results {
    records: HashMap<Digest, Record>,
    /// In the order in which they came.
    keys: Vec<Digest>,
    /// Results that nobody finds any more.
    lost: HashSet<Digest>,
}

impl Memory {
    /// One whose files are in this directory.
    pub fn in_dir(dir: &Path) -> Memory {
        Memory(Arc::default(), StoreDir::new(dir))
    }

    /// Where its files are, if it has any.
    pub fn dir(&self) -> StoreDir {
        self.1.clone()
    }

    pub fn reader(&self) -> Reader {
        let mut reader = Reader::of_nothing(&self.dir(), Layout::Hybrid);
        reader.backend = Box::new(self.clone());
        reader
    }

    /// A writer of a run that writes this journal.
    pub fn writer(&self, journal: File, commit_every: usize) -> Writer {
        let settings = WriterSettings {
            commit_every,
            commit_within: std::time::Duration::from_secs(3600),
            unchanged: Box::new(|_| true),
            wake: Box::new(|| {}),
        };
        let run = RunDir { id: 1, path: PathBuf::from("/nowhere/forkyard/runs/1") };
        Writer::here(Box::new(self.clone()), &run, journal, settings)
    }

    /// The value of a key, even of one that is lost.
    pub fn value(&self, key: Digest) -> Option<Vec<u8>> {
        match &self.0.lock().records.get(&key)?.place {
            Place::Inline(bytes) => Some(bytes.clone()),
            _ => None,
        }
    }

    /// Whether every value that is in memory has the digest that it is stored with.
    pub fn is_sound(&self) -> bool {
        let results = self.0.lock();
        results.records.values().all(|record| match &record.place {
            Place::Inline(bytes) => Digest::of(bytes) == record.digest,
            _ => true,
        })
    }

    /// Keys that can be found.
    pub fn keys(&self) -> HashSet<Digest> {
        let results = self.0.lock();
        results.keys.iter().filter(|key| !results.lost.contains(*key)).copied().collect()
    }

    /// One of the results, chosen by a number, is lost.
    pub fn lose(&self, number: u64) {
        let mut results = self.0.lock();
        if !results.keys.is_empty() {
            let key = results.keys[(number % results.keys.len() as u64) as usize];
            results.lost.insert(key);
        }
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::in_dir(Path::new("/nowhere/forkyard"))
    }
}

impl Backend for Memory {
    fn commit(&mut self, new: &[NewResult], run: u64) -> Result<Vec<Record>, StoreError> {
        let mut results = self.0.lock();
        let mut records = Vec::new();
        for result in new {
            let (place, read_as) = match &result.value {
                // Read again as a row, which can be lost.
                NewValue::Bytes(bytes) => {
                    (Place::Inline(bytes.clone()), Place::Row(results.keys.len() as i64))
                }
                NewValue::File { .. } => (Place::File, Place::File),
            };
            let record = result.record(place, run);
            results.records.insert(result.key, record.clone());
            records.push(Record { place: read_as, ..record });
            results.keys.push(result.key);
            results.lost.remove(&result.key);
        }
        Ok(records)
    }

    fn lookup(&self, key: Digest) -> Option<Found> {
        let results = self.0.lock();
        results.records.get(&key).filter(|_| !results.lost.contains(&key)).cloned().map(Ok)
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

    fn each(&self, _: &mut dyn FnMut(Digest, Found)) -> Result<(), StoreError> {
        Ok(())
    }

    fn copy_rows(&self, first: i64, _: u64, out: &mut dyn Write) -> Result<(), StoreError> {
        let key = self.0.lock().keys[first as usize];
        if self.lookup(key).is_none() {
            return Err(StoreError::Damaged("it is lost".into()));
        }
        out.write_all(&self.value(key).expect("it was found")).map_err(StoreError::Output)
    }

    fn hold_moment(&self, _: bool) {}

    fn forget(&mut self, _: &[Digest]) -> Result<(), StoreError> {
        Ok(())
    }

    fn sweep(&mut self, _: &[(i64, u64)]) -> Result<bool, StoreError> {
        Ok(true)
    }
}
