//! `forkyard store verify`: reads everything, and takes what is damaged out of use. The next run computes it
//! again.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write;

use forkyard_shared::blob::{self, digest_of_name};
use forkyard_shared::digest::Digest;
use forkyard_shared::private;

use super::backend;
use super::census::{Census, NamedResults, named_results};
use super::dir::{StoreDir, make_dir};
use super::error::StoreError;
use super::reader::Reader;
use super::record::{Place, Record};

/// What was found.
pub(crate) struct Verified {
    /// Results that were read.
    pub results: u64,
    /// Bytes of values that were read.
    pub bytes: u64,
    /// What is damaged, and the nodes that lose their result by it.
    pub damaged: Vec<(String, Vec<String>)>,
}

/// What is wrong, and the keys of the results that are lost by it.
type Found = Vec<(String, Vec<Digest>)>;

/// Checks a store. The caller holds its lock.
///
/// # Errors
/// When something cannot be read that is not known to be damaged: then nothing is taken out of use.
pub(crate) fn verify(dir: &StoreDir) -> Result<Verified, StoreError> {
    let mut found: Found = backend::salvage(dir, dir.layout()?)?.into_iter().collect();
    let mut reader = Reader::look(dir, 0)?;
    let census = Census::take(&reader)?;
    let named = named_results(dir)?;
    let bytes = reader.at_one_moment(|| check_values(dir, &reader, &census, &mut found))?;
    for (key, record) in &census.damaged {
        set_aside(dir, &format!("{key}.result"), |file| file.write_all(record).map_err(StoreError::Output))?;
        found.push((format!("result {key} is damaged: it does not pass its check"), vec![*key]));
    }
    check_other_blobs(dir, &census, &mut found)?;
    for run in &named.damaged {
        let what = format!("{} is damaged: not all that the run did is known any more", run.path.display());
        found.push((what, Vec::new()));
    }

    let gone: Vec<Digest> = found.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
    if !gone.is_empty() {
        reader.backend.forget(&gone)?;
    }
    // A damaged database may have lost results without a trace, but for the journals. They are told once.
    let known = known_as_lost(dir);
    let there = |key: &Digest| census.results.contains_key(key) || known.contains(key) || gone.contains(key);
    let missing: Vec<Digest> = named.by_key.keys().copied().filter(|key| !there(key)).collect();
    if !missing.is_empty() {
        let results = crate::text::plural(missing.len(), "result");
        found.push((format!("{results} that runs made durable or used: not in the store"), missing.clone()));
    }
    note_as_lost(dir, gone.iter().chain(&missing))?;
    let mut damaged: Vec<_> = found.into_iter().map(|(what, keys)| (what, nodes_of(&named, &keys))).collect();
    damaged.sort();
    Ok(Verified { results: census.results.len() as u64, bytes, damaged })
}

fn nodes_of(named: &NamedResults, keys: &[Digest]) -> Vec<String> {
    let mut nodes: Vec<String> =
        keys.iter().filter_map(|key| named.by_key.get(key).map(|named| named.node.clone())).collect();
    nodes.sort();
    nodes
}

/// Reads the values of all results, each in each place once; how many bytes that were.
fn check_values(
    dir: &StoreDir,
    reader: &Reader,
    census: &Census,
    found: &mut Found,
) -> Result<u64, StoreError> {
    /// One value in one place, and the keys of the results that name it there.
    struct Value<'a>(&'a Record, Vec<Digest>);
    let mut by_place: HashMap<(Digest, Option<i64>), Value> = HashMap::new();
    for (key, record) in &census.results {
        let row = match record.place {
            Place::Inline(_) => continue,
            Place::Row(first) => Some(first),
            Place::File => None,
        };
        by_place.entry((record.digest, row)).or_insert(Value(record, Vec::new())).1.push(*key);
    }
    let mut bytes = 0;
    for Value(record, keys) in by_place.into_values() {
        bytes += record.len;
        match reader.check(record) {
            Ok(()) => {}
            Err(error) if !error.is_loss() => return Err(error),
            Err(error) => {
                match record.place {
                    // Of rows what can be read of them; one of files that is missing cannot be moved.
                    Place::Row(first) => set_aside(dir, &record.digest.to_hex(), |file| {
                        reader.backend.copy_rows(first, record.len, file)
                    })?,
                    _ => drop(dir.quarantine(dir.layout()?, record.digest)),
                }
                found.push((error.to_string(), keys));
            }
        }
    }
    Ok(bytes)
}

/// Values that no result names: a result that comes may find its value there already.
fn check_other_blobs(dir: &StoreDir, census: &Census, found: &mut Found) -> Result<(), StoreError> {
    let in_files = census.results.values().filter(|record| record.place == Place::File);
    let checked: HashSet<Digest> = in_files.map(|record| record.digest).collect();
    for digest in blob_digests(dir).into_iter().filter(|digest| !checked.contains(digest)) {
        match blob::check(&dir.blobs_dir(), digest).map_err(StoreError::from) {
            Ok(()) => {}
            Err(error) if !error.is_loss() => return Err(error),
            Err(error) => {
                dir.quarantine(dir.layout()?, digest).ok();
                found.push((error.to_string(), Vec::new()));
            }
        }
    }
    Ok(())
}

/// Keeps what is left of something damaged where nobody reads it.
fn set_aside(
    dir: &StoreDir,
    name: &str,
    write: impl FnOnce(&mut File) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    make_dir(&dir.quarantine_dir())?;
    let path = dir.quarantine_dir().join(name);
    let mut file =
        private::create(&path).map_err(|error| StoreError::Io(format!("write {}", path.display()), error))?;
    // Whatever could be read.
    write(&mut file).ok();
    Ok(())
}

/// Results that an earlier verify has told of.
fn known_as_lost(dir: &StoreDir) -> HashSet<Digest> {
    let text = fs::read_to_string(dir.quarantine_dir().join("lost")).unwrap_or_default();
    text.lines().filter_map(Digest::from_hex).collect()
}

fn note_as_lost<'a>(dir: &StoreDir, keys: impl Iterator<Item = &'a Digest>) -> Result<(), StoreError> {
    let lines: String = keys.map(|key| format!("{key}\n")).collect();
    if lines.is_empty() {
        return Ok(());
    }
    make_dir(&dir.quarantine_dir())?;
    let path = dir.quarantine_dir().join("lost");
    let note = || private::options().create(true).append(true).open(&path)?.write_all(lines.as_bytes());
    note().map_err(|error| StoreError::Io(format!("write {}", path.display()), error))
}

/// The digests that files under `blobs/` are named after.
pub(super) fn blob_digests(dir: &StoreDir) -> HashSet<Digest> {
    let dirs = fs::read_dir(dir.blobs_dir()).into_iter().flatten().flatten();
    let files = dirs.flat_map(|dir| fs::read_dir(dir.path()).into_iter().flatten().flatten());
    files.filter_map(|file| digest_of_name(file.file_name().to_str()?)).collect()
}
