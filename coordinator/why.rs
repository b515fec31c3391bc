//! What would become of one node now, and of what: behind `forkyard why`. Takes the walk of the key that a run would
//! take; knows nothing of earlier runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::dry_run::DryRun;
use crate::fields::KeyFields;
use crate::init::Runtime;
use crate::only::Only;
use crate::run::RunError;

/// What would become of a node.
pub(crate) enum Now {
    /// Its result is stored, and took so long to compute.
    Cached(KeyFields, Duration),
    /// It would run.
    Runs(KeyFields, WouldRun),
    /// Nobody knows before it is about to run, for this reason.
    Unknown(String),
}

/// Why a node would run whose key is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum WouldRun {
    /// It says so: `cache = false`.
    Always,
    /// There is no result of this key.
    NotStored,
}

/// Looks at a node by its id, or by that of one of its items.
pub(crate) fn now(manifest: &Path, store: &Path, name: &str, runtime: &Runtime) -> Result<Now, RunError> {
    let only = Only::About(name.into());
    let (dry, watched) = DryRun::watch(manifest, &BTreeMap::new(), store, (&only, &[]), Some(name), runtime)?;
    Ok(match (watched.key, watched.why_none) {
        (Some((fields, Some(took))), _) => Now::Cached(fields, took),
        (Some((fields, None)), _) => {
            let always = dry.find(name).is_some_and(|node| dry.runs_always(node));
            Now::Runs(fields, if always { WouldRun::Always } else { WouldRun::NotStored })
        }
        (None, Some(why)) => Now::Unknown(why),
        (None, None) => Now::Unknown(without_key(&dry, name)),
    })
}

/// Why a node has no key of its own, or none yet.
fn without_key(dry: &DryRun, name: &str) -> String {
    let flow = dry.find(name).and_then(|node| dry.flow(node));
    match flow {
        Some(flow) if flow.fan.is_some() || flow.repeat.is_some() => {
            format!("it consists of items, which have keys: `forkyard why M '{name}[0]'`")
        }
        Some(flow) if !flow.race.is_empty() => {
            "it has the result of whichever member of its race wins".into()
        }
        _ => "what it needs would run first".into(),
    }
}
