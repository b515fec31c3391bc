//! What a run would do: the engine itself, looking every node up and running none, without touching the store.
//! Behind `run --dry-run`, and behind `plan`, which counts and adds up what is found here.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use forkyard_shared::arena::ArenaWriter;
use forkyard_shared::ids::NodeId;
use forkyard_shared::spin::SPIN;

use crate::context_file::Vars;
use crate::cost::Costs;
use crate::early::Early;
use crate::engine::{Contexts, Engine, Progressing, Provision, Watched};
use crate::graph::{Graph, GraphBuilder};
use crate::init::Runtime;
use crate::key::Keys;
use crate::manifest::Settings;
use crate::nodes::Nodes;
use crate::only::Only;
use crate::plan::{Flow, Plan};
use crate::pool::Pool;
use crate::report::{EventsWanted, Report, ReportOptions};
use crate::run::{Limits, RunError, choose, open_artifacts, urgencies};
use crate::schedule::{Scheduler, Urgency};
use crate::store::{DigestMemo, Layout, Reader, StoreDir, StoreError, Writer, latest_summary};

/// What a run would do with each node: those of the manifest, and the items that they consist of.
pub(crate) struct DryRun {
    nodes: Nodes,
    /// Nodes and items; a node that consists of items needs them.
    pub graph: Graph,
    /// How long nodes of an op took in earlier runs.
    pub costs: Costs,
    /// All artifacts together.
    pub artifact_bytes: u64,
    fates: Vec<Fate>,
}

/// What a run would do with a node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing: `--only` or `--failed` leaves it out.
    Unwanted,
    /// Nothing: it is skipped by its own rules, or all of it is in its items.
    Nothing,
    /// Run it.
    Runs,
    /// Take the stored result, which took so long to compute.
    Cached(Duration),
}

impl DryRun {
    /// Looks every node up. A node that depends on the result of one that would run, would run.
    pub fn look(
        manifest: &Path,
        given: &BTreeMap<String, String>,
        store: &Path,
        (only, refresh): (&Only, &[String]),
        runtime: &Runtime,
    ) -> Result<DryRun, RunError> {
        DryRun::watch(manifest, given, store, (only, refresh), None, runtime).map(|(dry, _)| dry)
    }

    /// What is set after a node, if all that it takes is stored.
    pub fn context(
        manifest: &Path,
        given: &BTreeMap<String, String>,
        store: &Path,
        node: &str,
        runtime: &Runtime,
    ) -> Result<Vars, RunError> {
        let only = Only::About(node.into());
        let watched = DryRun::watch(manifest, given, store, (&only, &[]), Some(node), runtime)?.1;
        watched.context.ok_or_else(|| {
            RunError::Usage(format!(
                "node `{node}` of {}, or one that it needs, has no stored result: run the manifest first",
                manifest.display()
            ))
        })
    }

    /// Looks at all that a node needs, and closely at that node.
    pub fn watch(
        manifest: &Path,
        given: &BTreeMap<String, String>,
        store: &Path,
        (only, refresh): (&Only, &[String]),
        watched: Option<&str>,
        runtime: &Runtime,
    ) -> Result<(DryRun, Watched), RunError> {
        let ops = runtime.ops();
        let plan = crate::manifest::load(manifest, None, ops, given).map_err(RunError::Manifest)?;
        // It is needed until the end of the process.
        let plan: &'static Plan = Box::leak(Box::new(plan));
        let (wanted, refresh) = choose(plan, only, refresh)?;
        let dir = StoreDir::new(store);
        let mut memo = DigestMemo::open(&dir.path);
        let artifacts = open_artifacts(plan)?;
        let digests = artifacts.iter().map(|artifact| artifact.digest(&mut memo)).collect::<Result<_, _>>();
        let keys = Keys::new(plan, ops, digests.map_err(RunError::Artifact)?, (memo, Early::none(plan)))
            .map_err(|error| RunError::Internal(format!("read our executable: {error}")))?;
        let (layout, reader) = match (dir.layout(), Reader::look(&dir, 0)) {
            (Ok(layout), Ok(reader)) => (layout, reader),
            // No store yet: everything would run.
            (Err(StoreError::Missing(_)), _) => {
                (Layout::default(), Reader::of_nothing(&dir, Layout::default()))
            }
            (Err(error), _) | (_, Err(error)) => return Err(RunError::Open(error)),
        };
        let before = latest_summary(&dir.path).unwrap_or_default();
        let labels = plan.labels();
        let costs = || Costs::new(ops.names(), &labels, &before.learnt);
        let urgencies = urgencies(plan, &costs());
        let mut scheduler = Scheduler::new(&plan.graph, urgencies, &wanted).with_terms(plan.terms());
        plan.races().flat_map(|(_, members)| members).for_each(|member| scheduler.excuse(*member));
        let quiet = ReportOptions { json: false, events: EventsWanted::None, quiet: true, trace: None };
        let mut report = Report::new(&quiet, Instant::now(), 0).map_err(RunError::Usage)?;
        let refused = |error: std::io::Error| RunError::Pool(error.to_string());
        let mut pool = Pool::new(runtime.take_zygote().map_err(RunError::Pool)?, 1, SPIN).map_err(refused)?;
        let arena = ArenaWriter::new().map_err(refused)?;
        let mut attach =
            |_: &Pool, _: &mut Report| Err(RunError::Internal("a dry run needs a worker".into()));
        let engine = Engine {
            nodes: Nodes::new(plan),
            ops,
            artifacts: artifacts.clone(),
            run: None,
            dir: &dir,
            layout,
            limits: Limits { on_failure: plan.settings.on_failure, max_failures: None, refresh },
            scheduler,
            keys,
            contexts: Contexts::new(plan, ops, arena).map_err(RunError::Pool)?,
            costs: costs(),
            reader,
            writer: Writer::of_nothing(),
            pool: &mut pool,
            report: &mut report,
            attach: &mut attach,
            state: Progressing::new(plan, ops, Provision::none()),
        };
        let (nodes, foreseen, families) = engine.foresee(watched)?;

        let fate = |node: NodeId| if wanted(node) { Fate::Nothing } else { Fate::Unwanted };
        let mut fates: Vec<Fate> = (0..plan.len()).map(NodeId::new).map(fate).collect();
        fates.resize(nodes.len(), Fate::Nothing);
        foreseen.runs.iter().for_each(|node| fates[node.index()] = Fate::Runs);
        foreseen.stored.iter().for_each(|(node, took)| fates[node.index()] = Fate::Cached(*took));
        let dry = DryRun {
            graph: with_items(&nodes, families),
            nodes,
            costs: costs(),
            artifact_bytes: artifacts.iter().map(|artifact| artifact.bytes).sum(),
            fates,
        };
        Ok((dry, foreseen.watched))
    }

    /// The node of this id.
    pub fn find(&self, id: &str) -> Option<NodeId> {
        self.nodes.find(id)
    }

    /// Whether it says that it runs each time.
    pub fn runs_always(&self, node: NodeId) -> bool {
        !self.nodes.is_cached(node)
    }

    /// What a node says about whether, when and how often it runs.
    pub fn flow(&self, node: NodeId) -> Option<&Flow> {
        self.nodes.flow(node)
    }

    /// The node's id.
    pub fn name(&self, node: NodeId) -> std::borrow::Cow<'_, str> {
        self.nodes.name(node)
    }

    /// How long a node would take, and whether anybody knows: its estimate, else the mean of its op in earlier runs,
    /// else a guess.
    pub fn expected(&self, node: NodeId) -> (Duration, bool) {
        let kind = self.costs.kind_of(&self.nodes, node);
        match self.nodes.detail(node).and_then(|detail| detail.estimate) {
            Some(estimate) => (estimate, true),
            None => (Duration::from_secs_f64(self.costs.expected(kind)), self.costs.known(kind).is_some()),
        }
    }

    /// The part of its time in which a node keeps a core busy; 0 if nobody knows.
    pub fn cpu(&self, node: NodeId) -> f64 {
        self.known_cpu(node).unwrap_or(0.0)
    }

    /// The same, if anybody knows.
    pub fn known_cpu(&self, node: NodeId) -> Option<f64> {
        self.costs.cpu(self.costs.kind_of(&self.nodes, node))
    }

    /// What a node calls: its Python function, or its op.
    pub fn kind_name(&self, node: NodeId) -> &str {
        self.costs.name(self.costs.kind_of(&self.nodes, node))
    }

    /// How the manifest wants a run to behave.
    pub fn settings(&self) -> &Settings {
        &self.nodes.plan.settings
    }

    /// The private memory that a worker holds while it runs a node; 0 if nobody knows.
    pub fn memory(&self, node: NodeId) -> u64 {
        let said = self.nodes.detail(node).and_then(|detail| detail.memory);
        said.unwrap_or_else(|| self.costs.private_max(self.costs.kind_of(&self.nodes, node)))
    }

    /// What the order of nodes depends on, if they take these times.
    pub fn urgencies(&self, time: impl Fn(NodeId) -> Duration) -> Vec<Urgency> {
        let remaining = self.graph.remaining(|node| time(node).as_secs_f32()).into_iter().enumerate();
        let priority = |node: NodeId| self.nodes.detail(node).map_or(0, |detail| detail.priority);
        remaining.map(|(n, remaining)| Urgency { priority: priority(NodeId::new(n)), remaining }).collect()
    }

    /// What would be done with a node.
    pub fn fate(&self, node: NodeId) -> Fate {
        self.fates[node.index()]
    }

    /// Nodes that the run is about, each after all it needs.
    pub fn wanted(&self) -> impl Iterator<Item = NodeId> {
        self.graph.order().iter().copied().filter(|node| self.fate(*node) != Fate::Unwanted)
    }

    /// Nodes that would run, in an order in which they could.
    pub fn to_run(&self) -> impl Iterator<Item = NodeId> {
        self.wanted().filter(|node| self.fate(*node) == Fate::Runs)
    }

    /// How many would not, because their result is there.
    pub fn cached(&self) -> usize {
        self.wanted().filter(|node| matches!(self.fate(*node), Fate::Cached(_))).count()
    }
}

/// The graph of all nodes, in which one that consists of items needs them.
fn with_items(nodes: &Nodes, families: Vec<(NodeId, Vec<NodeId>)>) -> Graph {
    let mut items = vec![Vec::new(); nodes.len()];
    families.into_iter().for_each(|(node, units)| items[node.index()] = units);
    let mut graph = GraphBuilder::new();
    for node in (0..nodes.len()).map(NodeId::new) {
        graph.push(nodes.needs(node).chain(std::mem::take(&mut items[node.index()])));
    }
    graph.build().unwrap_or_else(|cycle| panic!("BUG: items in a circle: {cycle:?}"))
}
