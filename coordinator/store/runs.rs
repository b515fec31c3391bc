//! `runs/<id>/`: what a run was (`run.json`), what became of its nodes (`journal`), what their keys
//! were made of (`fields`), how it ended (`summary.json`, absent while it goes on or if it was killed). `paused` is
//! there while it starts nothing new. Ids count from 1.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use forkyard_shared::private;
use serde::{Deserialize, Serialize};

use crate::alerts::Told;
use crate::cost::{Learnt, OpStats};

/// The directory of one run.
pub(crate) struct RunDir {
    pub id: u64,
    pub path: PathBuf,
}

/// `run.json`.
#[derive(Serialize, Deserialize)]
pub(crate) struct RunHeader {
    /// The manifest as it was typed.
    pub manifest: String,
    /// The manifest from the root on: what was typed means another file elsewhere.
    #[serde(default)]
    pub path: PathBuf,
    pub name: Option<String>,
    pub nodes: u64,
    pub workers: u64,
    pub pid: u32,
    /// Seconds since 1970.
    pub started: u64,
    /// The loss window, in words.
    pub commit: String,
    /// Whether it was only to show what nodes take.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_sample: bool,
    /// Variables that `--context` gave, as JSON by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub given: BTreeMap<String, String>,
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
    /// How many of those that did not succeed need not have: losers of races, items that may be null.
    #[serde(default)]
    pub excused: u64,
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
    /// What this run measured, by op or Python function.
    #[serde(default)]
    pub ops: BTreeMap<String, OpStats>,
    /// What processes take before they run anything, if this run or an earlier one has looked.
    #[serde(default)]
    pub shares: Option<Shares>,
    /// Thresholds that were passed, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alerts: BTreeMap<String, Told>,
    /// What the next run expects, of ops that this one did not run too.
    #[serde(default)]
    pub learnt: BTreeMap<String, Learnt>,
}

/// Memory that is there whatever nodes run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shares {
    /// Coordinator, zygote and what all share, but for artifacts.
    pub fixed_bytes: u64,
    /// What a worker has for itself that runs nothing large.
    pub worker_bytes: u64,
}

impl RunSummary {
    /// Whether every node succeeded that had to.
    pub fn is_complete(&self) -> bool {
        self.ran + self.cached + self.skipped + self.excused == self.nodes
    }
}

impl RunDir {
    /// Makes the directory of the next run of a store. The caller holds the store's lock.
    pub fn create(store: &Path, header: &RunHeader) -> io::Result<RunDir> {
        let newest = list_runs(store)?.last().map_or(0, |last| last.id);
        let id = newest.max(last_removed(store)) + 1;
        let path = store.join("runs").join(id.to_string());
        private::make_dirs(&path)?;
        let written = write_whole(&path.join("run.json"), &serde_json::to_vec_pretty(header)?);
        if written.is_err() {
            // A run without a header is nobody's.
            fs::remove_dir_all(&path).ok();
        }
        written.map(|()| RunDir { id, path })
    }

    /// What was set at its end.
    pub fn context_path(&self) -> PathBuf {
        self.path.join("context.json")
    }

    /// Keeps what was set at its end.
    pub fn write_context(&self, text: &[u8]) -> io::Result<()> {
        write_whole(&self.context_path(), text)
    }

    pub fn journal_path(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// What the keys of its nodes were made of.
    pub fn fields_path(&self) -> PathBuf {
        self.path.join("fields")
    }

    /// A journal to append to.
    pub fn create_journal(&self) -> io::Result<File> {
        private::options().create_new(true).append(true).open(self.journal_path())
    }

    pub fn header(&self) -> Option<RunHeader> {
        serde_json::from_slice(&fs::read(self.path.join("run.json")).ok()?).ok()
    }

    /// Notes for readers whether the run starts nothing new for now.
    pub fn mark_paused(&self, paused: bool) -> io::Result<()> {
        let mark = self.path.join("paused");
        if paused { private::create(&mark).map(drop) } else { fs::remove_file(mark) }
    }

    /// Whether it starts nothing new for now, if it goes on.
    pub fn is_paused(&self) -> bool {
        self.path.join("paused").exists()
    }

    /// How it ended; `None` while it goes on, or if it was killed.
    pub fn summary(&self) -> Option<RunSummary> {
        serde_json::from_slice(&fs::read(self.path.join("summary.json")).ok()?).ok()
    }

    pub fn write_summary(&self, summary: &RunSummary) -> io::Result<()> {
        write_whole(&self.path.join("summary.json"), &serde_json::to_vec_pretty(summary)?)
    }
}

/// The runs of a store, oldest first.
///
/// # Errors
/// When they cannot be read; a store without any has none.
pub(super) fn list_runs(store: &Path) -> io::Result<Vec<RunDir>> {
    let mut runs = Vec::new();
    let entries = match fs::read_dir(store.join("runs")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(runs),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            runs.push(RunDir { id, path: entry.path() });
        }
    }
    runs.sort_by_key(|run: &RunDir| run.id);
    Ok(runs)
}

/// The newest run of a store that has ended, and how.
pub(crate) fn latest_summary(store: &Path) -> Option<RunSummary> {
    list_runs(store).ok()?.iter().rev().find_map(RunDir::summary)
}

/// The highest number of a run that was removed: no other run gets it.
fn last_removed(store: &Path) -> u64 {
    let text = fs::read_to_string(store.join("runs").join("removed"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Notes that runs up to this one are about to be removed.
pub(super) fn note_removed(store: &Path, id: u64) -> io::Result<()> {
    write_whole(&store.join("runs").join("removed"), id.max(last_removed(store)).to_string().as_bytes())
}

/// Writes a file that is there whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = private::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(temporary, path)
}
