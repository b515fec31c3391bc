//! `forkyard store verify`: reads everything, and takes what is damaged out of use. The next run computes it
//! again.

use std::collections::{HashMap, HashSet};
use std::fs;

use forkyard_shared::blob::{self, digest_of_name};
use forkyard_shared::digest::Digest;

use super::census::{Census, named_results};
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

/// Checks a store. The caller holds its lock.
pub(crate) fn verify(dir: &StoreDir) -> Result<Verified, StoreError> {
    let layout = dir.layout()?;
    let mut reader = Reader::look(dir, 0)?;
    let census = Census::take(&reader)?;
    let quarantine = dir.quarantine_dir();
    let mut verified = Verified { results: census.results.len() as u64, bytes: 0, damaged: Vec::new() };

    let mut checked: HashMap<Digest, Option<String>> = HashMap::new();
    let mut lost: Vec<(String, Vec<Digest>)> = Vec::new();
    let mut by_value: HashMap<Digest, Vec<Digest>> = HashMap::new();
    reader.at_one_moment(|| {
        for (key, record) in &census.results {
            by_value.entry(record.digest).or_default().push(*key);
            if checked.contains_key(&record.digest) {
                continue;
            }
            verified.bytes += record.len;
            let trouble = reader.check(record).err();
            if trouble.is_some() {
                make_dir(&quarantine)?;
                set_aside(dir, &reader, record)?;
            }
            checked.insert(record.digest, trouble.map(|trouble| trouble.to_string()));
        }
        Ok::<(), StoreError>(())
    })?;
    for (digest, trouble) in &checked {
        if let Some(trouble) = trouble {
            lost.push((trouble.clone(), by_value.remove(digest).unwrap_or_default()));
        }
    }
    for (key, bytes) in &census.damaged {
        make_dir(&quarantine)?;
        let path = quarantine.join(format!("{key}.result"));
        fs::write(&path, bytes)
            .map_err(|error| StoreError::Io(format!("write {}", path.display()), error))?;
        lost.push((format!("result {key} is damaged: it does not pass its check"), vec![*key]));
    }
    // Values that no result names, too: a result that comes may find its value there already.
    for digest in blob_digests(dir).into_iter().filter(|digest| !checked.contains_key(digest)) {
        if let Err(error) = blob::check(&dir.blobs_dir(), digest) {
            dir.quarantine(layout, digest).ok();
            lost.push((error.to_string(), Vec::new()));
        }
    }
    let gone: Vec<Digest> = lost.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
    if !gone.is_empty() {
        reader.backend.forget(&gone)?;
    }
    if !lost.is_empty() {
        let named = named_results(dir);
        let node = |key: &Digest| named.get(key).map(|named| named.node.clone());
        verified.damaged =
            lost.into_iter().map(|(what, keys)| (what, keys.iter().filter_map(node).collect())).collect();
        verified.damaged.sort();
    }
    Ok(verified)
}

/// Moves a damaged value to where nobody reads it; of rows, what can be read of them.
fn set_aside(dir: &StoreDir, reader: &Reader, record: &Record) -> Result<(), StoreError> {
    match record.place {
        Place::Inline(_) => {}
        // One that is missing cannot be moved.
        Place::File => drop(dir.quarantine(dir.layout()?, record.digest)),
        Place::Row(first) => {
            let path = dir.quarantine_dir().join(record.digest.to_hex());
            let mut file = fs::File::create(&path)
                .map_err(|error| StoreError::Io(format!("write {}", path.display()), error))?;
            reader.backend.copy_rows(first, record.len, &mut file).ok();
        }
    }
    Ok(())
}

/// The digests that files under `blobs/` are named after.
pub(super) fn blob_digests(dir: &StoreDir) -> HashSet<Digest> {
    let dirs = fs::read_dir(dir.blobs_dir()).into_iter().flatten().flatten();
    let files = dirs.flat_map(|dir| fs::read_dir(dir.path()).into_iter().flatten().flatten());
    files.filter_map(|file| digest_of_name(file.file_name().to_str()?)).collect()
}
