//! Collects nodes, artifacts and settings from every file of a manifest, then checks what only the whole
//! can show: unknown names, cycles.

use std::path::{Path, PathBuf};

use forkyard_shared::ids::{ArtifactId, NodeId, OpId};
use forkyard_worker::Ops;
use serde_json::{Map, Value};

use super::node::{self, Parsed};
use super::problem::{Fault, ManifestError, PROBLEMS_MAX, Problem};
use super::settings::{ArtifactEntry, Settings};
use super::source::Source;
use super::words::{did_you_mean, nearest};
use crate::graph::GraphBuilder;
use crate::names::Names;
use crate::plan::{Arg, Detail, PLAIN, Plan};

pub(super) struct Builder<'a> {
    path: PathBuf,
    ops_known: &'a Ops,
    /// Of the file being read.
    dir: PathBuf,
    settings: Settings,
    artifacts: Vec<ArtifactEntry>,
    problems: Vec<Problem>,

    names: Names,
    ops: Vec<OpId>,
    detail_of: Vec<u32>,
    details: Vec<Parsed>,
    /// Ids that nodes need, numbered by `mentioned`; node n's end at `need_ends[n]`.
    mentioned: Names,
    needs: Vec<u32>,
    need_ends: Vec<usize>,
    /// Where each node stands in its file.
    places: Vec<usize>,
    /// The first node of each file.
    file_starts: Vec<(usize, usize)>,
}

impl<'a> Builder<'a> {
    pub fn new(path: &Path, ops: &'a Ops) -> Builder<'a> {
        Builder {
            path: path.into(),
            ops_known: ops,
            dir: PathBuf::new(),
            settings: Settings::default(),
            artifacts: Vec::new(),
            problems: Vec::new(),
            names: Names::default(),
            ops: Vec::new(),
            detail_of: Vec::new(),
            details: Vec::new(),
            mentioned: Names::default(),
            needs: Vec::new(),
            need_ends: Vec::new(),
            places: Vec::new(),
            file_starts: Vec::new(),
        }
    }

    /// What follows comes from file number `file`, whose paths are relative to `dir`.
    pub fn enter(&mut self, dir: PathBuf, file: usize) {
        self.dir = dir;
        self.file_starts.push((self.ops.len(), file));
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn problem(&mut self, problem: Problem) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }

    pub fn settings(&mut self, table: &Map<String, Value>) -> Result<(), Fault> {
        self.settings.read(table)
    }

    pub fn take_includes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.settings.include)
    }

    pub fn artifact(&mut self, entry: ArtifactEntry) -> Result<(), Fault> {
        if self.artifacts.iter().any(|known| known.name == entry.name) {
            return Err(Fault::new(format!("artifact `{}` is defined twice", entry.name)));
        }
        self.artifacts.push(entry);
        Ok(())
    }

    /// Takes a node; `at` is its place in the file (see [`Source::node_problem`]).
    pub fn node<'n>(
        &mut self,
        id: &str,
        op: &str,
        needs: impl Iterator<Item = &'n str>,
        fields: Map<String, Value>,
        at: usize,
    ) -> Result<(), Fault> {
        if id.is_empty() || id.len() > 1024 || id.chars().any(char::is_control) {
            return Err(Fault::at("id", "an id is 1 to 1024 bytes of text without control characters"));
        }
        let Some(op_id) = self.ops_known.find(op) else {
            let hint = did_you_mean(op, self.ops_known.names());
            return Err(Fault::at("op", format!("there is no op `{op}`{hint}")));
        };
        let signature = self.ops_known.get(op_id).signature();
        let needs_nothing = signature.params.is_some_and(|specs| specs.iter().all(|spec| !spec.required));
        let says_more = !fields.is_empty() || !needs_nothing;
        let parsed = says_more.then(|| node::parse(op, signature, fields, &self.dir)).transpose()?;
        if let Err(first) = self.names.insert(id) {
            let message = format!("node `{id}` is defined twice: it is node {} already", first + 1);
            return Err(Fault::at("id", message));
        }
        let detail_of = match parsed {
            None => PLAIN,
            Some(parsed) => {
                self.details.push(parsed);
                u32::try_from(self.details.len() - 1).expect("fewer than 2^32 nodes")
            }
        };
        self.ops.push(op_id);
        self.detail_of.push(detail_of);
        self.places.push(at);
        for need in needs {
            let need = self.mentioned.intern(need);
            self.needs.push(need);
        }
        self.need_ends.push(self.needs.len());
        Ok(())
    }

    /// The plan, or everything that is wrong with the manifest.
    pub fn finish(mut self, sources: &[Source]) -> Result<Plan, ManifestError> {
        let mut faults: Vec<(NodeId, Fault)> = Vec::new();
        let by_mention: Vec<Option<NodeId>> =
            self.mentioned.iter().map(|id| self.names.find(id).map(NodeId)).collect();
        let mut graph = GraphBuilder::new();
        let mut details: Vec<Detail> = Vec::with_capacity(self.details.len());
        let mut parsed = std::mem::take(&mut self.details).into_iter();
        let mut start = 0;
        for node in (0..self.ops.len()).map(NodeId::new) {
            let end = self.need_ends[node.index()];
            let mut needs = Vec::with_capacity(end - start);
            for (index, mention) in self.needs[start..end].iter().enumerate() {
                match by_mention[*mention as usize] {
                    Some(need) => needs.push(need),
                    None => {
                        let wanted = self.mentioned.get(*mention);
                        faults.push((node, self.unknown_node(wanted).in_item(index).inside("needs")));
                    }
                }
            }
            start = end;
            if self.detail_of[node.index()] != PLAIN {
                let parsed = parsed.next().expect("BUG: a detail for each node that has one");
                details.push(self.resolve(node, parsed, &mut needs, &mut faults));
            }
            graph.push(needs);
            if faults.len() >= PROBLEMS_MAX {
                break;
            }
        }
        // A node that is itself wrong is unknown to those that need it: one mistake is told once.
        let faults = if self.problems.is_empty() { faults } else { Vec::new() };
        for (node, fault) in faults {
            let problem = self.locate(node, fault, sources);
            self.problem(problem);
        }
        if self.ops.is_empty() && self.problems.is_empty() {
            self.problem(sources[0].problem_at(0, "this manifest has no nodes"));
        }
        if !self.problems.is_empty() {
            return Err(ManifestError::Mistakes(self.problems));
        }
        let graph = graph.build().map_err(|cycle| {
            let way: Vec<&str> = cycle.iter().map(|node| self.names.get(node.0)).collect();
            let message = format!("these nodes need each other in a circle: {}", way.join(" -> "));
            ManifestError::Mistakes(vec![self.locate(cycle[0], Fault::at("needs", message), sources)])
        })?;
        Ok(Plan {
            dir: Source::dir(&self.path),
            path: self.path,
            settings: self.settings,
            artifacts: self.artifacts,
            names: self.names,
            ops: self.ops,
            graph,
            detail_of: self.detail_of,
            details,
        })
    }

    /// Puts numbers in the place of names.
    fn resolve(
        &self,
        node: NodeId,
        parsed: Parsed,
        needs: &mut Vec<NodeId>,
        faults: &mut Vec<(NodeId, Fault)>,
    ) -> Detail {
        let Parsed { mut detail, artifacts, artifact_results, results } = parsed;
        for name in artifacts {
            match self.artifacts.iter().position(|entry| entry.name == name) {
                Some(index) => detail.artifacts.push(ArtifactId::new(index)),
                None => {
                    let hint = did_you_mean(&name, self.artifacts.iter().map(|entry| entry.name.as_str()));
                    faults
                        .push((node, Fault::at("artifact", format!("there is no artifact `{name}`{hint}"))));
                }
            }
        }
        for id in artifact_results {
            match self.names.find(&id).map(NodeId) {
                Some(producer) => {
                    needs.push(producer);
                    detail.artifact_results.push(producer);
                }
                None => faults.push((node, self.unknown_node(&id).inside("artifact"))),
            }
        }
        for (param, id) in results {
            match self.names.find(&id).map(NodeId) {
                Some(producer) => {
                    needs.push(producer);
                    detail.params[param].1 = Arg::Result(producer);
                }
                None => {
                    let name = &detail.params[param].0;
                    let way = name.split('.').rev();
                    let fault = way.fold(self.unknown_node(&id), |fault, key| fault.inside(key));
                    let beside = self.ops_known.get(self.ops[node.index()]).signature().beside;
                    faults.push((node, if beside { fault } else { fault.inside("params") }));
                }
            }
        }
        detail
    }

    fn unknown_node(&self, id: &str) -> Fault {
        // Looking for the nearest among a million ids would take longer than the run.
        let near = if self.names.len() <= 10_000 { nearest(id, self.names.iter()) } else { None };
        let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        Fault::new(format!("there is no node `{id}`{hint}"))
    }

    fn locate(&self, node: NodeId, fault: Fault, sources: &[Source]) -> Problem {
        let file = self.file_starts.iter().rev().find(|(first, _)| *first <= node.index());
        let source = &sources[file.expect("BUG: a node before the first file").1];
        source.node_problem(self.places[node.index()], fault)
    }
}
