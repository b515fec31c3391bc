//! What is in a store, all of it: every result with the runs that name it. For whoever cleans up or counts.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;

use forkyard_shared::digest::Digest;

use super::backend::Found;
use super::dir::StoreDir;
use super::error::StoreError;
use super::journal::read_journal;
use super::reader::Reader;
use super::record::{Place, Record};
use super::runs::RunDir;

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
            Ok(mut record) => {
                if let Place::Inline(bytes) = &mut record.place {
                    // Of no use here, and much where there are many.
                    *bytes = Vec::new();
                }
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

/// What the journals of runs name.
#[derive(Default)]
pub(crate) struct NamedResults {
    /// Results, by key.
    pub by_key: HashMap<Digest, Named>,
    /// Runs that ended well enough to have a whole journal, and have none.
    pub damaged: Vec<RunDir>,
}

/// Reads all journals.
///
/// # Errors
/// When one cannot be read.
pub(crate) fn named_results(dir: &StoreDir) -> Result<NamedResults, StoreError> {
    let mut named = NamedResults::default();
    for run in dir.runs()? {
        let path = run.journal_path();
        let mut nodes = HashMap::new();
        let sound = match read_journal(&path, |entry| {
            nodes.insert(entry.node, entry.key);
        }) {
            Ok(sound) => sound,
            // A run that was killed before its first commit has no journal.
            Err(error) if error.kind() == ErrorKind::NotFound => run.summary().is_none(),
            Err(error) => return Err(StoreError::Io(format!("read {}", path.display()), error)),
        };
        for (node, key) in nodes {
            if let Some(key) = key {
                named.by_key.insert(key, Named { node, run: run.id });
            }
        }
        // One that was killed may have left a torn end, or before its beginning nothing but its directory.
        let began = path.exists() || run.path.join("run.json").exists();
        if (began && run.header().is_none()) || (!sound && run.summary().is_some()) {
            named.damaged.push(run);
        }
    }
    Ok(named)
}
