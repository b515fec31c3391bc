//! `run --failed`: what did not succeed in the newest run of a manifest.

use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure};
use super::runs::outcomes;
use crate::store::{JournalEntry, Outcome, RunDir, StoreDir};

/// What is left to do of an earlier run.
pub(super) enum Left {
    /// Nodes and items that failed, timed out, were blocked or cancelled.
    These(Vec<String>),
    /// Nothing, and this is to be said of it.
    Nothing(String),
}

/// What the newest run of a manifest left to do.
pub(super) fn failed(store: &Path, manifest: &Path) -> Result<Left, Failure> {
    let run = newest_of(store, manifest)?;
    let names: Vec<String> = outcomes(&run).into_values().filter(is_to_do).map(|entry| entry.node).collect();
    if !names.is_empty() {
        return Ok(Left::These(names));
    }
    let shown = manifest.display();
    Ok(Left::Nothing(match run.summary() {
        Some(_) => format!("nothing to do: every node of run {} of {shown} succeeded", run.id),
        None => format!(
            "nothing to do: no node of run {} of {shown} failed, but it did not come to its end; run it without --failed",
            run.id
        ),
    }))
}

fn newest_of(store: &Path, manifest: &Path) -> Result<RunDir, Failure> {
    let dir = StoreDir::new(store);
    dir.layout()?;
    let path = absolute(manifest);
    let is_of = |run: &RunDir| run.header().is_some_and(|header| header.path == path && !header.is_sample);
    dir.runs()?.into_iter().rev().find(is_of).ok_or_else(|| {
        let message = format!(
            "--failed: store {} has no earlier run of {}; run it without --failed",
            store.display(),
            manifest.display()
        );
        Failure::new(Exit::Usage, message)
    })
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

/// Who lost a race was cancelled too, but for a reason of its own, and need not run.
fn is_to_do(entry: &JournalEntry) -> bool {
    match entry.outcome {
        Outcome::Failed | Outcome::TimedOut | Outcome::Blocked => true,
        Outcome::Cancelled => entry.error.is_none(),
        Outcome::Ran | Outcome::Cached | Outcome::Skipped => false,
    }
}
