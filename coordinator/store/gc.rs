//! `forkyard store gc`: forgets old runs, and every result and value that no kept run names. Runs go first, then
//! files, then results and the rows of values: whoever is killed in between leaves results that no run names, and
//! the next gc goes on.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::{Duration, SystemTime};

use forkyard_shared::blob::{blob_path, packed_path};
use forkyard_shared::digest::Digest;

use super::census::{Census, named_results};
use super::dir::StoreDir;
use super::error::StoreError;
use super::reader::Reader;
use super::record::{Extra, Place, Record};
use super::runs::{RunDir, note_removed};
use super::verify::blob_digests;

/// What is to be kept. A run must pass every limit that is given.
pub(crate) struct Keep {
    /// So many of the newest runs.
    pub runs: Option<usize>,
    /// Runs that started less than this ago.
    pub younger_than: Option<Duration>,
    /// The newest runs whose values fit this size together.
    pub bytes: Option<u64>,
}

/// What goes.
pub(crate) struct Plan {
    /// The oldest run that stays.
    first_kept: u64,
    /// Runs that go.
    pub runs: Vec<RunDir>,
    /// Results that go.
    pub results: Vec<Digest>,
    /// Bytes of values that go.
    pub bytes: u64,
    census: Census,
    reader: Reader,
}

/// Finds out what goes; changes nothing.
pub(crate) fn plan(dir: &StoreDir, keep: &Keep) -> Result<Plan, StoreError> {
    let reader = Reader::look(dir, 0)?;
    let census = Census::take(&reader)?;
    let runs = dir.runs()?;
    let named = named_results(dir)?;
    let there: HashSet<u64> = runs.iter().map(|run| run.id).collect();
    // A run that was killed may have made a result durable that its journal does not name. One that is gone was
    // removed by a gc, perhaps by one that was killed before it came to the results.
    let newest = |key: &Digest, record: &Record| {
        let made = if there.contains(&record.run) { record.run } else { 0 };
        // No journal names who won a race; it goes with the winner.
        let winner = Extra::decode(&record.extra).and_then(|extra| extra.winner);
        let runs = [Some(*key), winner].into_iter().flatten().filter_map(|key| named.by_key.get(&key));
        runs.map(|named| named.run).fold(made, u64::max)
    };
    let mut first_kept = runs.last().map_or(1, |run| run.id + 1);
    let values = values_by_newest_run(&census, newest);
    let (mut bytes, now) = (0u64, SystemTime::now());
    for (count, run) in runs.iter().rev().enumerate() {
        bytes += values.get(&run.id).copied().unwrap_or(0);
        let age = now.duration_since(started(run)).unwrap_or_default();
        if keep.runs.is_some_and(|most| count >= most)
            || keep.younger_than.is_some_and(|limit| age > limit)
            || keep.bytes.is_some_and(|most| bytes > most)
        {
            break;
        }
        first_kept = run.id;
    }
    if let Some(run) = named.damaged.iter().find(|run| run.id >= first_kept) {
        return Err(StoreError::Damaged(format!(
            "run {} is to be kept, but {} is damaged, so that nobody knows which results it names; remove that \
             directory to go on without it",
            run.id,
            run.path.display()
        )));
    }
    let dead = census.results.iter().filter(|(key, record)| newest(key, record) < first_kept);
    let results: Vec<Digest> = dead.map(|(key, _)| *key).collect();
    let live: HashSet<Digest> = {
        let gone: HashSet<&Digest> = results.iter().collect();
        census
            .results
            .iter()
            .filter(|(key, _)| !gone.contains(key))
            .map(|(_, record)| record.digest)
            .collect()
    };
    let mut counted = HashSet::new();
    let freed = results
        .iter()
        .map(|key| &census.results[key])
        .filter(|record| !live.contains(&record.digest) && counted.insert(record.digest));
    let bytes = freed.map(|record| record.len).sum();
    let runs = runs.into_iter().filter(|run| run.id < first_kept).collect();
    Ok(Plan { first_kept, runs, results, bytes, census, reader })
}

/// When a run started; by its directory, if it does not say.
fn started(run: &RunDir) -> SystemTime {
    match run.header() {
        Some(header) => SystemTime::UNIX_EPOCH + Duration::from_secs(header.started),
        None => fs::metadata(&run.path).and_then(|dir| dir.modified()).unwrap_or_else(|_| SystemTime::now()),
    }
}

/// Bytes of values by the newest run that names them.
fn values_by_newest_run(census: &Census, newest: impl Fn(&Digest, &Record) -> u64) -> HashMap<u64, u64> {
    let mut value_runs: HashMap<Digest, (u64, u64)> = HashMap::new();
    for (key, record) in &census.results {
        let run = newest(key, record);
        let entry = value_runs.entry(record.digest).or_insert((run, record.len));
        entry.0 = entry.0.max(run);
    }
    let mut by_run = HashMap::new();
    value_runs.into_values().for_each(|(run, len)| *by_run.entry(run).or_insert(0) += len);
    by_run
}

impl Plan {
    /// Removes what goes; whether all of its room was given back. The caller holds the store's lock.
    pub fn carry_out(mut self, dir: &StoreDir) -> Result<bool, StoreError> {
        if let Some(newest) = self.runs.last() {
            let path = newest.path.display();
            note_removed(&dir.path, newest.id)
                .map_err(|error| StoreError::Io(format!("note that {path} is removed"), error))?;
        }
        for run in &self.runs {
            fs::remove_dir_all(&run.path)
                .map_err(|error| StoreError::Io(format!("remove {}", run.path.display()), error))?;
        }
        // Damaged results are nobody's.
        self.results.extend(self.census.damaged.keys());
        self.results.iter().for_each(|key| drop(self.census.results.remove(key)));
        let kept = || self.census.results.values();
        let rows: Vec<(i64, u64)> = kept()
            .filter_map(
                |record| if let Place::Row(first) = record.place { Some((first, record.len)) } else { None },
            )
            .collect();
        let files: HashSet<Digest> =
            kept().filter(|record| record.place == Place::File).map(|record| record.digest).collect();
        // Files first, because a database needs room to become smaller. A result whose value is gone is none.
        for digest in blob_digests(dir) {
            let (plain, packed) =
                (blob_path(&dir.blobs_dir(), digest), packed_path(&dir.blobs_dir(), digest));
            if !files.contains(&digest) {
                fs::remove_file(&plain).ok();
                fs::remove_file(&packed).ok();
            } else if plain.exists() {
                fs::remove_file(&packed).ok();
            }
        }
        self.reader.backend.forget(&self.results)?;
        let all_given_back = self.reader.backend.sweep(&rows)?;
        fs::remove_dir_all(dir.quarantine_dir()).ok();
        Ok(all_given_back)
    }

    /// The number of the oldest run that stays, if one does.
    pub fn first_kept(&self) -> u64 {
        self.first_kept
    }
}
