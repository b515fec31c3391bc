//! `run --dry-run`: what would run, without a pool and without touching the store.

use std::collections::HashMap;

use forkyard_shared::ids::NodeId;
use forkyard_worker::Ops;

use crate::key::{Keys, ResultId, Said};
use crate::nodes::Nodes;
use crate::run::{RunError, RunOptions, choose, open_artifacts};
use crate::store::{DigestMemo, Reader, StoreDir};

/// What a run would do.
pub(crate) struct DryRun {
    /// Nodes that have no stored result, in an order in which they could run.
    pub to_run: Vec<String>,
    /// How many have one.
    pub cached: usize,
}

/// Looks every node up. A node that reads the result of one that would run, would run.
pub(crate) fn dry_run(options: &RunOptions, ops: &Ops) -> Result<DryRun, RunError> {
    let plan = crate::manifest::load(&options.manifest, ops).map_err(RunError::Manifest)?;
    let (wanted, refresh) = choose(&plan, options)?;
    let dir = StoreDir::new(&options.store);
    let mut memo = DigestMemo::open(&dir.path);
    let digests =
        open_artifacts(&plan)?.iter().map(|artifact| artifact.digest(&mut memo)).collect::<Result<_, _>>();
    let mut keys = Keys::new(&plan, ops, digests.map_err(RunError::Artifact)?, memo)
        .map_err(|error| RunError::Internal(format!("read our executable: {error}")))?;
    // No store yet: everything would run.
    let reader = Reader::look(&dir, 0).ok();

    let nodes = Nodes::new(&plan);
    let mut results: HashMap<NodeId, ResultId> = HashMap::new();
    let mut dry = DryRun { to_run: Vec::new(), cached: 0 };
    for &node in plan.graph.order() {
        if !wanted(node) {
            continue;
        }
        let readable = plan.results_of(node).all(|producer| results.contains_key(&producer));
        let key =
            if readable { keys.make(&nodes, node, Said::of(plan.detail(node)), |producer| results.get(&producer).copied()).ok() } else { None };
        let anew = refresh.contains(&node) || !plan.is_cached(node);
        match key.filter(|_| !anew).and_then(|key| reader.as_ref()?.lookup(key)) {
            Some(record) => {
                results.insert(node, ResultId { kind: record.kind, digest: record.digest });
                dry.cached += 1;
            }
            None => dry.to_run.push(plan.name(node).into()),
        }
    }
    Ok(dry)
}
