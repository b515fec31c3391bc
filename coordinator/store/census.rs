//! What is in a store, all of it: every result with the runs that name it. For whoever cleans up or counts.

use std::collections::{HashMap, HashSet};

use forkyard_shared::digest::Digest;

use super::backend::Found;
use super::dir::StoreDir;
use super::error::StoreError;
use super::journal::read_journal;
use super::reader::Reader;
use super::record::Record;
use super::runs::list_runs;

/// All results of a store at one moment.
pub(crate) struct Census {
    /// Those that pass their check, by key.
    pub results: HashMap<Digest, Record>,
    /// The bytes of those that do not.
    pub damaged: HashMap<Digest, Vec<u8>>,
}

impl Census {
    /// Reads all results, but not their values.
    pub fn take(reader: &Reader) -> Result<Census, StoreError> {
        let (mut results, mut damaged) = (HashMap::new(), HashMap::new());
        reader.backend.each(&mut |key, found: Found| match found {
            Ok(record) => {
                damaged.remove(&key);
                results.insert(key, record);
            }
            Err(bytes) => {
                results.remove(&key);
                damaged.insert(key, bytes);
            }
        })?;
        Ok(Census { results, damaged })
    }

    /// The bytes of all values, equal ones counted once.
    pub fn value_bytes(&self) -> u64 {
        let mut seen = HashSet::new();
        self.results.values().filter(|record| seen.insert(record.digest)).map(|record| record.len).sum()
    }
}

/// Who speaks of a result.
pub(crate) struct Named {
    /// The node, in the newest run that names it.
    pub node: String,
    /// That run.
    pub run: u64,
}

/// The results that the journals of runs name, by key.
pub(crate) fn named_results(dir: &StoreDir) -> HashMap<Digest, Named> {
    let mut named = HashMap::new();
    for run in list_runs(&dir.path) {
        // A run that was killed before its first commit has no journal.
        let read = read_journal(&run.journal_path(), |entry| {
            if let Some(key) = entry.key {
                named.insert(key, Named { node: entry.node, run: run.id });
            }
        });
        read.ok();
    }
    named
}
