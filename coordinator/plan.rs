//! A checked manifest: what a run needs to know of its nodes, in flat arrays. Most nodes are only an id,
//! an op and their needs; whatever else a node says is in its [`Detail`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forkyard_shared::ids::{ArtifactId, NodeId, OpId};
use forkyard_shared::protocol::Reads;
use forkyard_worker::Ops;

use crate::code::Call;
use crate::expr::{Expression, Template, Uses};
use crate::graph::Graph;
use crate::manifest::{ArtifactEntry, PythonSettings, Settings};
use crate::names::Names;

/// A manifest, ready to run.
pub(crate) struct Plan {
    /// The manifest's file.
    pub path: PathBuf,
    /// Where the file's own relative paths start.
    pub dir: PathBuf,
    pub settings: Settings,
    pub artifacts: Vec<ArtifactEntry>,
    /// Node ids; a node's [`NodeId`] is its place in the manifest.
    pub names: Names,
    pub ops: Vec<OpId>,
    pub graph: Graph,
    /// For each node its place in `details`, or [`PLAIN`].
    pub detail_of: Vec<u32>,
    pub details: Vec<Detail>,
    /// `[vars]`: JSON by name, sorted.
    pub vars: BTreeMap<String, String>,
    /// Whether an expression names `history` or `last_output`.
    pub uses_history: bool,
    /// `[groups]`, by name.
    pub groups: Vec<(String, GroupLimits)>,
    /// `[python]`, if it is there.
    pub python: Option<PythonSettings>,
    /// Names of environment variables that commands and functions get, sorted.
    pub secrets: Vec<String>,
}

/// The `detail_of` a node about which there is nothing more to say.
pub(crate) const PLAIN: u32 = u32::MAX;

/// What the usual node does not say.
pub(crate) struct Detail {
    /// Parameters by name, sorted.
    pub params: Vec<(String, Arg)>,
    pub artifacts: Vec<ArtifactId>,
    /// Nodes whose results it takes as artifacts.
    pub artifact_results: Vec<NodeId>,
    pub timeout: Option<Duration>,
    pub retry: Retry,
    pub cache: bool,
    /// What makes it another result; [`Arg::Json`] is text as it is.
    pub salt: Option<Arg>,
    /// Higher first.
    pub priority: i32,
    /// How long it is expected to take.
    pub estimate: Option<Duration>,
    /// The private memory that a worker is expected to hold while it runs it, in bytes.
    pub memory: Option<u64>,
    /// What it may hold at the most.
    pub memory_limit: Option<u64>,
    /// Where relative paths of a command start.
    pub dir: PathBuf,
    /// What of the state it reads.
    pub state: Reads,
    /// Nodes whose results its expressions read, each once.
    pub reads: Vec<NodeId>,
    /// What it says about whether, when and how often it runs.
    pub flow: Option<Box<Flow>>,
    /// The Python function that it calls.
    pub call: Option<Arc<Call>>,
    /// The program that it runs, as far as that says what it does.
    pub program: Option<Arc<str>>,
}

/// Whether, when and how often a node runs, and what follows from its result.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub when: Option<Arc<Expression>>,
    /// Whether it runs although a node that it needs was skipped.
    pub runs_if_skipped: bool,
    /// What it says about failures of nodes that it needs.
    pub terms: Terms,
    pub fan: Option<Fan>,
    /// Which of the nodes that need it run.
    pub route: Option<Arc<Expression>>,
    /// The members of a race, in its order.
    pub race: Vec<NodeId>,
    pub repeat: Option<Repeat>,
    /// Variables that it sets, by name.
    pub publish: Vec<(String, Template)>,
    /// Its place in the plan's groups.
    pub group: Option<usize>,
}

/// What a node says about the nodes that it needs, where it says more than that they must succeed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Terms {
    /// It runs however they end.
    pub after_any: bool,
    /// It runs however these end.
    pub accepts: Vec<NodeId>,
    /// Its items start when those of this node are done.
    pub each: Option<NodeId>,
}

/// A node that is run once for each of many items.
#[derive(Debug)]
pub(crate) struct Fan {
    pub over: Over,
    /// How many items one of its tasks takes; `None`: one, by itself.
    pub chunk: Option<u32>,
    pub limits: GroupLimits,
    pub on_item_failure: OnItemFailure,
    /// Whether what a task does depends on its item, and not only that it is done.
    pub reads_item: bool,
}

/// Where the items come from.
#[derive(Debug)]
pub(crate) enum Over {
    /// A list.
    Items(Template),
    /// The rows or records of an artifact.
    Rows(ArtifactId),
    /// The results of another node's items, one by one as they come.
    Each(NodeId),
}

/// What the failure of an item means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnItemFailure {
    /// The other items are run, then the node fails.
    #[default]
    Fail,
    /// Its result is null.
    Null,
    /// No more items are started, and the node fails.
    Stop,
}

/// How many tasks may run at once, and how many may start in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct GroupLimits {
    pub concurrency: Option<u32>,
    pub rate: Option<f64>,
}

/// A node that is run again until its result will do.
#[derive(Debug)]
pub(crate) struct Repeat {
    pub until: Arc<Expression>,
    pub max: u32,
}

/// A parameter as the manifest gives it.
#[derive(Debug)]
pub(crate) enum Arg {
    /// Canonical JSON text.
    Json(String),
    /// `{{ nodes.X.result }}`.
    Result(NodeId),
    /// The result of the item of the same index, where items follow items.
    EachResult,
    /// Known when the node is about to run.
    Template(Template),
}

/// When and how often a failed attempt is repeated.
#[derive(Clone, Debug)]
pub(crate) struct Retry {
    pub attempts: u32,
    pub backoff: Duration,
    /// Up to this part of each wait is added to it, at random.
    pub jitter: f64,
    pub on_error: bool,
    pub on_timeout: bool,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry { attempts: 1, backoff: Duration::ZERO, jitter: 0.25, on_error: true, on_timeout: true }
    }
}

impl Flow {
    /// Whether what follows from its result depends on the result itself.
    pub fn reads_own_result(&self) -> bool {
        let names = |uses: &Uses| uses.names.contains("result");
        self.route.as_ref().is_some_and(|route| names(route.uses()))
            || self.repeat.as_ref().is_some_and(|repeat| names(repeat.until.uses()))
            || self.publish.iter().any(|(_, value)| names(&value.uses()))
    }

    /// The node whose items its items follow.
    pub fn each(&self) -> Option<NodeId> {
        match self.fan.as_ref()?.over {
            Over::Each(node) => Some(node),
            Over::Items(_) | Over::Rows(_) => None,
        }
    }
}

impl Detail {
    /// What tells it from others of its op: the Python function that it calls, the program that it runs.
    pub fn label(&self) -> Option<&str> {
        self.call.as_ref().map(|call| call.text.as_str()).or(self.program.as_deref())
    }

    /// Whether nothing of it is in the node's key.
    pub fn adds_nothing(&self) -> bool {
        self.params.is_empty()
            && self.artifacts.is_empty()
            && self.artifact_results.is_empty()
            && self.salt.is_none()
            && self.state == Reads::Nothing
    }

    /// Whether it reads all of a node's result.
    pub fn reads_result_of(&self, node: NodeId) -> bool {
        let whole = |arg: &Arg| matches!(arg, Arg::Result(producer) if *producer == node);
        self.reads.contains(&node)
            || self.artifact_results.contains(&node)
            || self.params.iter().any(|(_, arg)| whole(arg))
    }

    /// Whether its parameters are known before it is decided.
    pub fn is_known(&self) -> bool {
        let known = |arg: &Arg| matches!(arg, Arg::Json(_) | Arg::Result(_));
        let reads_nothing = self.state == Reads::Nothing;
        reads_nothing && self.params.iter().all(|(_, arg)| known(arg)) && self.salt.as_ref().is_none_or(known)
    }
}

impl Plan {
    /// What a node says beyond id, op and needs.
    pub fn detail(&self, node: NodeId) -> Option<&Detail> {
        self.details.get(self.detail_of[node.index()] as usize)
    }

    /// The node's id in the manifest.
    pub fn name(&self, node: NodeId) -> &str {
        self.names.get(node.0)
    }

    /// The Python functions that nodes call, each once, and how Python is to be started for them; nothing if there are
    /// none.
    pub fn calls(&self) -> Vec<&Arc<Call>> {
        let mut calls: Vec<&Arc<Call>> = Vec::new();
        for call in self.details.iter().filter_map(|detail| detail.call.as_ref()) {
            // Mostly the one before.
            if !calls.iter().rev().any(|known| Arc::ptr_eq(known, call)) {
                calls.push(call);
            }
        }
        calls
    }

    /// What a node does: the Python function that it calls, the program that it runs, else its op.
    pub fn kind_name<'a>(&'a self, node: NodeId, ops: &'a Ops) -> &'a str {
        self.label(node).unwrap_or_else(|| ops.name(self.ops[node.index()]))
    }

    /// What tells a node from others of its op.
    pub fn label(&self, node: NodeId) -> Option<&str> {
        self.detail(node)?.label()
    }

    /// All of those, each once.
    pub fn labels(&self) -> Vec<&str> {
        let all: BTreeSet<&str> = self.details.iter().filter_map(Detail::label).collect();
        all.into_iter().collect()
    }

    /// The artifacts that a node names.
    pub fn artifacts_of(&self, node: NodeId) -> &[ArtifactId] {
        self.detail(node).map_or(&[], |detail| &detail.artifacts)
    }

    /// The nodes whose results a node takes as parameters or artifacts.
    pub fn results_of(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        let detail = self.detail(node);
        let params = detail.map_or(&[][..], |detail| &detail.params);
        let in_params = params.iter().filter_map(|(_, arg)| match arg {
            Arg::Result(producer) => Some(*producer),
            Arg::Json(_) | Arg::EachResult | Arg::Template(_) => None,
        });
        let others = detail.map_or((&[][..], &[][..]), |d| (&d.artifact_results, &d.reads));
        in_params.chain(others.0.iter().copied()).chain(others.1.iter().copied())
    }

    /// What a node says about whether, when and how often it runs.
    pub fn flow(&self, node: NodeId) -> Option<&Flow> {
        self.detail(node)?.flow.as_deref()
    }

    /// What nodes say about failures of those that they need.
    pub fn terms(&self) -> HashMap<NodeId, Terms> {
        let said = self.flows().filter(|(_, flow)| flow.terms != Terms::default());
        said.map(|(node, flow)| (node, flow.terms.clone())).collect()
    }

    /// The races, each with its members.
    pub fn races(&self) -> impl Iterator<Item = (NodeId, &[NodeId])> {
        let races = self.flows().filter(|(_, flow)| !flow.race.is_empty());
        races.map(|(node, flow)| (node, flow.race.as_slice()))
    }

    /// The nodes whose items follow those of others.
    pub fn followers(&self) -> impl Iterator<Item = (NodeId, NodeId)> {
        self.flows().filter_map(|(node, flow)| Some((node, flow.each()?)))
    }

    fn flows(&self) -> impl Iterator<Item = (NodeId, &Flow)> {
        // Most manifests have few details, or none.
        let nodes = if self.details.is_empty() { 0 } else { self.len() };
        (0..nodes).map(NodeId::new).filter_map(|node| Some((node, self.flow(node)?)))
    }

    /// Whether there is any state: a node that publishes, reads or may write.
    pub fn uses_state(&self, ops: &Ops) -> bool {
        let publishes = self.flows().any(|(_, flow)| !flow.publish.is_empty());
        let reads = self.details.iter().any(|detail| detail.state != Reads::Nothing);
        let ops_of_state: Vec<bool> = ops.ids().map(|op| ops.get(op).signature().state).collect();
        publishes || reads || self.uses_history || self.ops.iter().any(|op| ops_of_state[op.index()])
    }

    /// Whether a stored result of the node will do.
    pub fn is_cached(&self, node: NodeId) -> bool {
        self.detail(node).is_none_or(|detail| detail.cache)
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.ops.len()
    }
}
