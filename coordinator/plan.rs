//! A checked manifest: what a run needs to know of its nodes, in flat arrays. Most nodes are only an id,
//! an op and their needs; whatever else a node says is in its [`Detail`].

use std::path::PathBuf;
use std::time::Duration;

use forkyard_shared::ids::{ArtifactId, NodeId, OpId};

use crate::graph::Graph;
use crate::manifest::{ArtifactEntry, Settings};
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
    pub salt: Option<String>,
    /// Higher first.
    pub priority: i32,
    /// Expected seconds.
    pub estimate: Option<f32>,
    /// Where relative paths of a command start.
    pub dir: PathBuf,
}

/// A parameter as the manifest gives it.
#[derive(Debug)]
pub(crate) enum Arg {
    /// Canonical JSON text.
    Json(String),
    /// `{{ nodes.X.result }}`.
    Result(NodeId),
}

/// When and how often a failed attempt is repeated.
#[derive(Clone, Debug)]
pub(crate) struct Retry {
    pub attempts: u32,
    pub backoff: Duration,
    pub on_error: bool,
    pub on_timeout: bool,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry { attempts: 1, backoff: Duration::ZERO, on_error: true, on_timeout: true }
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
            Arg::Json(_) => None,
        });
        in_params.chain(detail.into_iter().flat_map(|detail| detail.artifact_results.iter().copied()))
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
