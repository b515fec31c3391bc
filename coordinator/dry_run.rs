//! What a run would do: every node looked up, without a pool and without touching the store. Behind
//! `run --dry-run`, and behind `plan`, which counts and adds up what is found here.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use forkyard_shared::ids::NodeId;
use forkyard_worker::Ops;

use crate::cost::Costs;
use crate::key::{Keys, ResultId, Said};
use crate::nodes::Nodes;
use crate::plan::Plan;
use crate::run::{RunError, choose, open_artifacts};
use crate::store::{DigestMemo, Reader, StoreDir, latest_summary};

/// What a run would do with each node of a plan.
pub(crate) struct DryRun {
    pub plan: Plan,
    /// How long nodes of an op took in earlier runs.
    pub costs: Costs,
    /// All artifacts together.
    pub artifact_bytes: u64,
    fates: Vec<Fate>,
}

/// What a run would do with a node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing: `--only` leaves it out.
    Unwanted,
    /// Run it.
    Runs,
    /// Take the stored result, which took so long to compute.
    Cached(Duration),
}

impl DryRun {
    /// Looks every node up. A node that reads the result of one that would run, would run.
    pub fn look(
        manifest: &Path,
        store: &Path,
        (only, refresh): (&[String], &[String]),
        ops: &Ops,
    ) -> Result<DryRun, RunError> {
        let plan = crate::manifest::load(manifest, ops).map_err(RunError::Manifest)?;
        let (wanted, refresh) = choose(&plan, only, refresh)?;
        let dir = StoreDir::new(store);
        let mut memo = DigestMemo::open(&dir.path);
        let artifacts = open_artifacts(&plan)?;
        let digests = artifacts.iter().map(|artifact| artifact.digest(&mut memo)).collect::<Result<_, _>>();
        let mut keys = Keys::new(&plan, ops, digests.map_err(RunError::Artifact)?, memo)
            .map_err(|error| RunError::Internal(format!("read our executable: {error}")))?;
        // No store yet: everything would run.
        let reader = Reader::look(&dir, 0).ok();

        let mut results: HashMap<NodeId, ResultId> = HashMap::new();
        let mut fates = vec![Fate::Unwanted; plan.len()];
        for &node in plan.graph.order() {
            if !wanted(node) {
                continue;
            }
            let readable = plan.results_of(node).all(|producer| results.contains_key(&producer));
            let key = if readable {
                let said = Said::of(plan.detail(node));
                keys.make(&Nodes::new(&plan), node, said, |producer| results.get(&producer).copied()).ok()
            } else {
                None
            };
            let anew = refresh.contains(&node) || !plan.is_cached(node);
            fates[node.index()] = match key.filter(|_| !anew).and_then(|key| reader.as_ref()?.lookup(key)) {
                Some(record) => {
                    results.insert(node, ResultId { kind: record.kind, digest: record.digest });
                    Fate::Cached(Duration::from_micros(record.duration_us))
                }
                None => Fate::Runs,
            };
        }
        drop(keys);
        let before = latest_summary(&dir.path).unwrap_or_default();
        Ok(DryRun {
            plan,
            costs: Costs::new(ops.ids().count(), |op| before.op_seconds.get(ops.name(op)).copied()),
            artifact_bytes: artifacts.iter().map(|artifact| artifact.bytes).sum(),
            fates,
        })
    }

    /// What would be done with a node.
    pub fn fate(&self, node: NodeId) -> Fate {
        self.fates[node.index()]
    }

    /// Nodes that the run is about, each after all it needs.
    pub fn wanted(&self) -> impl Iterator<Item = NodeId> {
        self.plan.graph.order().iter().copied().filter(|node| self.fate(*node) != Fate::Unwanted)
    }

    /// Nodes that would run, in an order in which they could.
    pub fn to_run(&self) -> impl Iterator<Item = NodeId> {
        self.wanted().filter(|node| self.fate(*node) == Fate::Runs)
    }
}
