//! `runs/<id>/`: what a run was (`run.json`), what became of its nodes (`journal`), how it ended
//! (`summary.json`, absent while it goes on or if it was killed). Ids count from 1.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The directory of one run.
pub(crate) struct RunDir {
    pub id: u64,
    pub path: PathBuf,
}

/// `run.json`.
#[derive(Serialize, Deserialize)]
pub(crate) struct RunHeader {
    pub manifest: String,
    pub name: Option<String>,
    pub nodes: u64,
    pub workers: u64,
    pub pid: u32,
    /// Seconds since 1970.
    pub started: u64,
    /// The loss window, in words.
    pub commit: String,
}

/// `summary.json`.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct RunSummary {
    pub nodes: u64,
    pub ran: u64,
    pub cached: u64,
    pub failed: u64,
    pub skipped: u64,
    pub blocked: u64,
    pub timed_out: u64,
    pub cancelled: u64,
    pub wall_s: f64,
    /// How many results this run made durable.
    pub durable: u64,
    /// How often a result that a node reads was in memory, and how often it was read again.
    #[serde(default)]
    pub cache_hits: u64,
    #[serde(default)]
    pub cache_misses: u64,
    pub peak_private_bytes: u64,
    pub artifact_bytes: u64,
    /// Mean seconds of a node, by op: what the next run expects.
    #[serde(default)]
    pub op_seconds: BTreeMap<String, f64>,
}

impl RunDir {
    /// Makes the directory of the next run of a store. The caller holds the store's lock.
    pub fn create(store: &Path, header: &RunHeader) -> io::Result<RunDir> {
        let id = list_runs(store).last().map_or(1, |last| last.id + 1);
        let path = store.join("runs").join(id.to_string());
        fs::create_dir_all(&path)?;
        fs::write(path.join("run.json"), serde_json::to_vec_pretty(header)?)?;
        Ok(RunDir { id, path })
    }

    pub fn journal_path(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// A journal to append to.
    pub fn create_journal(&self) -> io::Result<File> {
        File::options().create_new(true).append(true).open(self.journal_path())
    }

    pub fn header(&self) -> Option<RunHeader> {
        serde_json::from_slice(&fs::read(self.path.join("run.json")).ok()?).ok()
    }

    /// How it ended; `None` while it goes on, or if it was killed.
    pub fn summary(&self) -> Option<RunSummary> {
        serde_json::from_slice(&fs::read(self.path.join("summary.json")).ok()?).ok()
    }

    pub fn write_summary(&self, summary: &RunSummary) -> io::Result<()> {
        let temporary = self.path.join("summary.new");
        fs::write(&temporary, serde_json::to_vec_pretty(summary)?)?;
        fs::rename(temporary, self.path.join("summary.json"))
    }
}

/// The runs of a store, oldest first.
pub(crate) fn list_runs(store: &Path) -> Vec<RunDir> {
    let entries = fs::read_dir(store.join("runs")).into_iter().flatten().flatten();
    let mut runs: Vec<RunDir> = entries
        .filter_map(|entry| {
            Some(RunDir { id: entry.file_name().to_str()?.parse().ok()?, path: entry.path() })
        })
        .collect();
    runs.sort_by_key(|run| run.id);
    runs
}

/// The newest run of a store.
pub(crate) fn latest_run(store: &Path) -> Option<RunDir> {
    list_runs(store).pop()
}
