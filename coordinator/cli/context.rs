//! `forkyard context export`: what is set at the end of a run, or after a node.

use std::io::Write;
use std::path::Path;

use super::exit::{Exit, Failure, printed};
use super::runs::{find, outcomes};
use crate::context_file;
use crate::dry_run::DryRun;
use crate::init::Runtime;
use crate::store::StoreDir;

pub(super) fn export(store: &Path, of: Option<&str>, runtime: &Runtime) -> Result<Exit, Failure> {
    let mut out = std::io::stdout().lock();
    let run = match of {
        None => Some(None),
        Some(word) => word.parse::<u64>().ok().map(Some),
    };
    if let Some(run) = run {
        let run = find(store, run)?;
        let text = std::fs::read(run.context_path()).map_err(|error| {
            let why = match error.kind() {
                std::io::ErrorKind::NotFound => "it did not come to its end".to_string(),
                _ => error.to_string(),
            };
            Failure::new(Exit::Usage, format!("run {} has left no context: {why}", run.id))
        })?;
        return printed(out.write_all(&text));
    }
    let node = of.unwrap_or_default();
    let runs = StoreDir::new(store).runs()?;
    let Some(run) = runs.iter().rev().find(|run| outcomes(run).contains_key(node)) else {
        let why = format!("no run of store {} has finished a node `{node}` so far", store.display());
        return Err(Failure::new(Exit::Usage, why));
    };
    let header = run.header();
    let header = header.ok_or_else(|| Failure::new(Exit::Store, format!("run {} has no header", run.id)))?;
    let context = DryRun::context(Path::new(&header.manifest), &header.given, store, node, runtime)?;
    let text = context_file::write(&context).map_err(|why| Failure::new(Exit::Bug, why))?;
    printed(out.write_all(&text))
}
