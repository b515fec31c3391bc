//! `forkyard logs [RUN] NODE`: what a node's command wrote to stderr. A cached node shows the log of the run
//! that ran it.

use std::io::Write;
use std::path::Path;

use super::exit::{Exit, Failure, printed};
use super::runs::{find, outcomes};
use crate::store::{JournalEntry, Outcome, StoreDir};

pub(super) fn logs(store: &Path, run_or_node: &str, node: Option<&str>) -> Result<Exit, Failure> {
    let (run, node) = match node {
        None => (None, run_or_node),
        Some(node) => {
            let run = run_or_node.parse().map_err(|_| {
                Failure::new(Exit::Usage, format!("`{run_or_node}` is not the number of a run"))
            })?;
            (Some(run), node)
        }
    };
    let newest = find(store, run)?;
    let entry = outcomes(&newest).remove(node).ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            format!(
                "run {} has not finished a node `{node}` so far; `forkyard results ls` lists those it has",
                newest.id
            ),
        )
    })?;
    let entry = if entry.outcome == Outcome::Cached {
        first_run(store, newest.id, &entry).unwrap_or(entry)
    } else {
        entry
    };
    let mut out = std::io::stdout().lock();
    if let Some(error) = &entry.error {
        eprintln!("{node} {}: {error}", entry.outcome.word());
    } else if entry.log.is_empty() {
        eprintln!("{node} {}; it wrote nothing to stderr", entry.outcome.word());
    }
    printed(out.write_all(&entry.log))
}

/// The entry of the run that computed a cached result.
fn first_run(store: &Path, before: u64, cached: &JournalEntry) -> Option<JournalEntry> {
    let earlier = StoreDir::new(store).runs().ok()?.into_iter().rev().filter(|run| run.id < before);
    let mut entries = earlier.filter_map(|run| outcomes(&run).remove(&cached.node));
    entries.find(|entry| entry.outcome == Outcome::Ran && entry.key == cached.key)
}
