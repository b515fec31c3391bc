//! Collects nodes, artifacts and settings from every file of a manifest, then checks what only the whole
//! can show: unknown names, cycles.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use forkyard_shared::ids::{ArtifactId, NodeId, OpId};
use forkyard_worker::Ops;
use serde_json::{Map, Value};

use super::alerts;
use super::flow::{self, ParsedFlow};
use super::mentions::Mentions;
use super::node::{self, Parsed, kind_of};
use super::problem::{Fault, ManifestError, PROBLEMS_MAX, Problem};
use super::python::{self, PythonSettings};
use super::settings::{ArtifactEntry, Settings};
use super::source::Source;
use super::used::Used;
use super::words::{check_id, did_you_mean, nearest};
use crate::code::Finder;
use crate::expr::{Scope, Uses};
use crate::graph::GraphBuilder;
use crate::names::{Hasher, NameHash, Names};
use crate::plan::{Arg, Detail, Flow, GroupLimits, Over, PLAIN, Plan};

/// What nodes that come into being find there.
pub(crate) struct Outer {
    /// The number of the first of them.
    pub first: usize,
    /// Nodes that they may name.
    pub ids: Vec<(String, NodeId)>,
}

pub(super) struct Builder<'a> {
    path: PathBuf,
    ops_known: &'a Ops,
    /// Of the file being read.
    dir: PathBuf,
    settings: Settings,
    artifacts: Vec<ArtifactEntry>,
    problems: Vec<Problem>,
    vars: BTreeMap<String, String>,
    /// Variables that replace those.
    given: BTreeMap<String, String>,
    /// Whether some op may set variables that nobody knows of.
    any_write: bool,
    groups: Vec<(String, GroupLimits)>,
    python: Option<PythonSettings>,
    secrets: Vec<String>,

    /// Set for nodes that come into being while a run goes on.
    outer: Option<Outer>,

    names: Names,
    ops: Vec<OpId>,
    detail_of: Vec<u32>,
    details: Vec<Parsed>,
    mentions: Mentions,
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
            vars: BTreeMap::new(),
            given: BTreeMap::new(),
            any_write: false,
            groups: Vec::new(),
            python: None,
            secrets: Vec::new(),
            outer: None,
            names: Names::default(),
            ops: Vec::new(),
            detail_of: Vec::new(),
            details: Vec::new(),
            mentions: Mentions::default(),
            places: Vec::new(),
            file_starts: Vec::new(),
        }
    }

    /// For nodes that come into being in a run of `plan`: they know its artifacts, variables and groups.
    pub fn within(plan: &Plan, ops: &'a Ops, outer: Outer) -> Builder<'a> {
        let mut builder = Builder::new(&plan.path, ops);
        builder.artifacts.clone_from(&plan.artifacts);
        builder.vars.clone_from(&plan.vars);
        builder.groups.clone_from(&plan.groups);
        builder.settings.clone_from(&plan.settings);
        builder.python.clone_from(&plan.python);
        builder.secrets.clone_from(&plan.secrets);
        // What they see of the state is not known before they are there.
        builder.any_write = true;
        builder.outer = Some(outer);
        builder
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

    /// Takes variables that replace those of the manifest.
    pub fn give(&mut self, vars: &BTreeMap<String, String>) {
        self.given.clone_from(vars);
    }

    /// Takes the variables of a `[vars]` table.
    pub fn vars(&mut self, table: Map<String, Value>) -> Result<(), Fault> {
        for (name, value) in table {
            let twice = || Fault::at(&name, format!("variable `{name}` is defined twice"));
            if self.vars.contains_key(&name) {
                return Err(twice());
            }
            if crate::expr::has_expression(&value.to_string()) {
                return Err(Fault::at(
                    &name,
                    format!(
                        "variable `{name}` must be a constant; a node of op `value` with `publish` sets one by an expression"
                    ),
                ));
            }
            self.vars.insert(name, value.to_string());
        }
        Ok(())
    }

    /// Takes the limits of a `[groups]` table.
    pub fn groups(&mut self, table: &Map<String, Value>) -> Result<(), Fault> {
        for (name, value) in table {
            if self.groups.iter().any(|(known, _)| known == name) {
                return Err(Fault::at(name, format!("group `{name}` is defined twice")));
            }
            let limits = flow::group(value).map_err(|fault| fault.inside(name))?;
            self.groups.push((name.clone(), limits));
        }
        Ok(())
    }

    /// Takes a `[python]` table.
    pub fn python(&mut self, table: &Map<String, Value>) -> Result<(), Fault> {
        if self.python.is_some() {
            return Err(Fault::new("`[python]` is said twice: a run has one interpreter"));
        }
        self.python = Some(PythonSettings::read(table, &self.dir)?);
        Ok(())
    }

    /// Takes the thresholds of an `[alerts]` table.
    pub fn alerts(&mut self, table: &Map<String, Value>) -> Result<(), Fault> {
        alerts::read(&mut self.settings.alerts, table)
    }

    /// Takes a `[secrets]` table.
    pub fn secrets(&mut self, table: &Map<String, Value>) -> Result<(), Fault> {
        self.secrets.extend(python::secrets(table)?);
        self.secrets.sort();
        self.secrets.dedup();
        Ok(())
    }

    /// What the hashes of ids are made with.
    pub fn hasher(&self) -> Hasher {
        self.names.hasher().clone()
    }

    /// Nodes come that have or need these ids.
    pub fn fetch(&self, ids: &[NameHash]) {
        self.names.fetch(ids);
    }

    /// Takes a node; ids come with their hashes, and `at` is its place in the file (see [`Source::node_problem`]).
    pub fn node<'n>(
        &mut self,
        (id, hash): (&str, NameHash),
        op: &str,
        needs: impl Iterator<Item = (&'n str, NameHash)>,
        fields: Map<String, Value>,
        at: usize,
    ) -> Result<(), Fault> {
        check_id(id).map_err(|why| Fault::at("id", why))?;
        let mut needs = needs.peekable();
        if op == "race" && needs.peek().is_some() {
            return Err(Fault::at("needs", "a race has no `needs`: say it of its members"));
        }
        let Some(op_id) = self.ops_known.find(op) else {
            let hint = did_you_mean(op, self.ops_known.names());
            return Err(Fault::at("op", format!("there is no op `{op}`{hint}")));
        };
        let signature = self.ops_known.get(op_id).signature();
        let needs_nothing = signature.params.is_some() && signature.required().next().is_none();
        self.any_write |= signature.state;
        let says_more = !fields.is_empty() || !needs_nothing || op == "race";
        let parsed = says_more.then(|| node::parse(op, signature, fields, &self.dir)).transpose()?;
        if let Err(first) = self.names.insert_hashed(id, hash) {
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
        needs.for_each(|(need, hash)| self.mentions.push(&self.names, need, hash));
        self.mentions.end_node();
        Ok(())
    }

    /// The plan, or everything that is wrong with the manifest.
    pub fn finish(mut self, sources: &[Source]) -> Result<Plan, ManifestError> {
        let mut faults: Vec<(NodeId, Fault)> = Vec::new();
        let given = std::mem::take(&mut self.given);
        self.vars.extend(given);
        let published = self.published();
        let looks_back = |uses: &Uses| uses.names.contains("history") || uses.names.contains("last_output");
        let uses_history = self.details.iter().any(|parsed| {
            let flow = parsed.flow.iter().flat_map(|flow| [&flow.uses, &flow.items]);
            flow.chain([&parsed.uses]).any(looks_back)
        });
        self.mentions.resolve(&self.names);
        let dir = Source::dir(&self.path);
        let python = self.python.clone().unwrap_or_else(|| PythonSettings::new(&dir));
        let mut finder = Finder::new(&python, &dir);
        let mut graph = GraphBuilder::new();
        let mut details: Vec<Detail> = Vec::with_capacity(self.details.len());
        let mut parsed = std::mem::take(&mut self.details).into_iter();
        let mut needs = Vec::new();
        for node in (0..self.ops.len()).map(NodeId::new) {
            for (index, mention) in self.mentions.of(node).enumerate() {
                match mention.map(|own| self.global(NodeId(own))).or_else(|id| self.find(id).ok_or(id)) {
                    Ok(need) => needs.push(need),
                    Err(id) => faults.push((node, self.unknown_node(id).in_item(index).inside("needs"))),
                }
            }
            if self.detail_of[node.index()] != PLAIN {
                let parsed = parsed.next().expect("BUG: a detail for each node that has one");
                let mut detail = self.resolve(node, parsed, &published, &mut needs, &mut faults);
                if self.ops_known.get(self.ops[node.index()]).signature().calls_python()
                    && let Err(fault) = python::find_code(&mut finder, &mut detail)
                {
                    faults.push((node, fault));
                }
                details.push(detail);
            }
            // What is there already is no part of this graph.
            graph.push(needs.drain(..).filter_map(|need| self.local(need)));
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
        self.check_each(&details, &mut |node, fault| self.locate(node, fault, sources))?;
        let graph = graph.build().map_err(|cycle| {
            let way: Vec<&str> = cycle.iter().map(|node| self.names.get(node.0)).collect();
            let message = format!("these nodes need each other in a circle: {}", way.join(" -> "));
            let next = self.names.get(cycle[1].0).to_string();
            ManifestError::Mistakes(vec![self.locate(
                cycle[0],
                Fault::using(Used::Node(next), message),
                sources,
            )])
        })?;
        Ok(Plan {
            dir,
            path: self.path,
            settings: self.settings,
            artifacts: self.artifacts,
            names: self.names,
            ops: self.ops,
            graph,
            detail_of: self.detail_of,
            details,
            vars: self.vars,
            uses_history,
            groups: self.groups,
            python: self.python,
            secrets: self.secrets,
        })
    }

    /// Variables that nodes set.
    fn published(&self) -> BTreeSet<String> {
        let flows = self.details.iter().flat_map(|parsed| &parsed.flow).map(|parsed| &parsed.flow);
        flows.flat_map(|flow| flow.publish.iter().map(|(name, _)| name.clone())).collect()
    }

    /// Items follow items, and no node is in a race that has items itself.
    fn check_each(
        &self,
        details: &[Detail],
        locate: &mut dyn FnMut(NodeId, Fault) -> Problem,
    ) -> Result<(), ManifestError> {
        let detail = |node: NodeId| details.get(self.detail_of[node.index()] as usize);
        let flow = |node: NodeId| detail(node).and_then(|detail| detail.flow.as_deref());
        for node in (0..self.ops.len()).map(NodeId::new) {
            let parts =
                |node: NodeId| flow(node).is_some_and(|flow| flow.fan.is_some() || flow.repeat.is_some());
            let item_of = crate::only::item_of(self.names.get(node.0));
            if let Some(of) = item_of.and_then(|id| self.names.find(id)).filter(|of| parts(NodeId(*of))) {
                let (id, of) = (self.names.get(node.0), self.names.get(of));
                let why = format!("`{id}` is the name of an item of node `{of}`: choose another id");
                return Err(ManifestError::Mistakes(vec![locate(node, Fault::at("id", why))]));
            }
            let has_parts = |member: &NodeId| self.local(*member).is_some_and(parts);
            let members = flow(node).map_or(&[][..], |flow| &flow.race);
            if let Some(member) = members.iter().copied().find(has_parts).and_then(|node| self.local(node)) {
                let id = self.names.get(member.0);
                let why = format!("node `{id}` has items or iterations, and cannot be a member of a race");
                return Err(ManifestError::Mistakes(vec![locate(
                    node,
                    Fault::using(Used::Node(id.into()), why),
                )]));
            }
            let Some(leader) = flow(node).and_then(Flow::each) else { continue };
            let Some(leader) = self.local(leader) else {
                let why = "`each` follows a node that is made with this one";
                return Err(ManifestError::Mistakes(vec![locate(node, Fault::at("each", why))]));
            };
            let id = self.names.get(leader.0);
            let leads = self.global(leader);
            let fault = if flow(leader).is_none_or(|flow| flow.fan.is_none()) {
                Some(Fault::at(
                    "each",
                    format!("node `{id}` has no items: it has neither `foreach` nor `each`"),
                ))
            } else if detail(node).is_some_and(|detail| detail.reads_result_of(leads)) {
                let why = format!(
                    "with `each`, the result of `{id}` comes item by item: name it as `item`, not as `nodes.{id}.result`"
                );
                Some(Fault::at("each", why))
            } else {
                None
            };
            if let Some(fault) = fault {
                return Err(ManifestError::Mistakes(vec![locate(node, fault)]));
            }
        }
        Ok(())
    }

    /// Puts numbers in the place of names.
    fn resolve(
        &self,
        node: NodeId,
        parsed: Parsed,
        published: &BTreeSet<String>,
        needs: &mut Vec<NodeId>,
        faults: &mut Vec<(NodeId, Fault)>,
    ) -> Detail {
        let Parsed { mut detail, artifacts, artifact_results, results, uses, flow } = parsed;
        let flow = flow.map_or_else(ParsedFlow::default, |flow| *flow);
        for uses in [&uses, &flow.uses, &flow.items] {
            let unknown = |name: &&String| {
                !self.any_write && !self.vars.contains_key(*name) && !published.contains(*name)
            };
            if let Some(name) = uses.vars.iter().find(unknown) {
                let known = self.vars.keys().chain(published).map(String::as_str);
                let hint = did_you_mean(name, known);
                let why =
                    format!("there is no variable `{name}`, neither in [vars] nor published by a node{hint}");
                faults.push((node, Fault::using(Used::Var(name.clone()), why)));
            }
        }
        self.fold(node, &mut detail, published, faults);
        self.check_items(node, &flow, published, faults);
        let says_more = !flow.says_nothing() || !uses.outcomes.is_empty();
        let resolved = says_more.then(|| self.resolve_flow(node, &flow, &uses.outcomes, needs, faults));
        let (own, rows) = resolved.unzip();
        detail.flow = own.map(Box::new);
        for uses in [&uses, &flow.uses, &flow.items] {
            for id in uses.results.iter().chain(&uses.outcomes) {
                match self.find(id) {
                    Some(need) => needs.push(need),
                    None => {
                        let used = Some(Used::Node(id.clone()));
                        faults.push((node, Fault { used, ..self.unknown_node(id) }));
                    }
                }
            }
            let read = uses.results.iter().filter_map(|id| self.find(id));
            detail.reads.extend(read);
        }
        detail.reads.sort_unstable();
        detail.reads.dedup();
        if let Some(own) = detail.flow.as_mut() {
            own.take_rest(flow, rows.flatten());
        }
        for name in artifacts {
            match self.artifacts.iter().position(|entry| entry.name == name) {
                Some(index) => detail.artifacts.push(ArtifactId::new(index)),
                None => {
                    let hint = did_you_mean(&name, self.artifacts.iter().map(|entry| entry.name.as_str()));
                    let why = format!("there is no artifact `{name}`{hint}");
                    faults.push((node, Fault::using(Used::Artifact(name), why)));
                }
            }
        }
        for id in artifact_results {
            match self.find(&id) {
                Some(producer) => {
                    needs.push(producer);
                    detail.artifact_results.push(producer);
                }
                None => {
                    let used = Some(Used::Node(id.clone()));
                    faults.push((node, Fault { used, ..self.unknown_node(&id) }));
                }
            }
        }
        for (param, id) in results {
            match self.find(&id) {
                Some(producer) => {
                    needs.push(producer);
                    detail.params[param].1 = Arg::Result(producer);
                }
                None => {
                    let name = &detail.params[param].0;
                    let way = name.split('.').rev();
                    let fault = way.fold(self.unknown_node(&id), |fault, key| fault.inside(key));
                    let signature = self.ops_known.get(self.ops[node.index()]).signature();
                    let is_word = signature.beside.iter().any(|spec| name.starts_with(spec.name));
                    faults.push((
                        node,
                        if is_word || name.starts_with("params.") { fault } else { fault.inside("params") },
                    ));
                }
            }
        }
        detail
    }

    /// Works out what depends on constant variables only.
    fn fold(
        &self,
        node: NodeId,
        detail: &mut Detail,
        published: &BTreeSet<String>,
        faults: &mut Vec<(NodeId, Fault)>,
    ) {
        let signature = self.ops_known.get(self.ops[node.index()]).signature();
        for (name, arg) in &mut detail.params {
            let Arg::Template(template) = arg else { continue };
            let Some(scope) = self.constants(&template.uses(), published) else { continue };
            let kind = kind_of(signature, name);
            match template.json(&scope).and_then(|json| kind.fit(json)) {
                Ok(json) => *arg = Arg::Json(json),
                Err(why) => {
                    let short = name.strip_prefix("params.").unwrap_or(name);
                    let fault = Fault::at(short, format!("`{short}`: {why}"));
                    let is_word = signature.beside.iter().any(|spec| spec.name == name);
                    faults.push((node, if is_word { fault } else { fault.inside("params") }));
                }
            }
        }
    }

    /// Whether items that depend on constant variables only are a list.
    fn check_items(
        &self,
        node: NodeId,
        flow: &ParsedFlow,
        published: &BTreeSet<String>,
        faults: &mut Vec<(NodeId, Fault)>,
    ) {
        let Some(Over::Items(items)) = flow.flow.fan.as_ref().map(|fan| &fan.over) else { return };
        let Some(expression) = items.as_expression() else { return };
        let Some(scope) = self.constants(expression.uses(), published) else { return };
        if let Err(why) = expression.items(&scope) {
            faults.push((node, Fault::at("foreach", why)));
        }
    }

    /// What these names stand for, if all of them are constant variables.
    fn constants(&self, uses: &Uses, published: &BTreeSet<String>) -> Option<Scope> {
        let vary =
            !uses.results.is_empty() || !uses.outcomes.is_empty() || !uses.names.is_empty() || uses.all_vars;
        let may_vary = |name: &String| self.any_write || published.contains(name);
        if vary || uses.vars.iter().any(may_vary) {
            return None;
        }
        let mut scope = Scope::default();
        for name in &uses.vars {
            scope.var(name, self.vars.get(name)?.as_bytes()).expect("BUG: a variable that is not JSON");
        }
        Some(scope)
    }

    fn resolve_flow(
        &self,
        node: NodeId,
        parsed: &ParsedFlow,
        outcomes: &BTreeSet<String>,
        needs: &mut Vec<NodeId>,
        faults: &mut Vec<(NodeId, Fault)>,
    ) -> (Flow, Option<ArtifactId>) {
        let (mut flow, mut rows) = (Flow::default(), None);
        let mut find = |key: &str, id: &str| match self.find(id) {
            Some(found) if found != self.global(node) => Some(found),
            Some(_) => {
                faults.push((node, Fault::at(key, format!("`{key}` names the node itself"))));
                None
            }
            None => {
                faults.push((node, self.unknown_node(id).inside(key)));
                None
            }
        };
        flow.race = parsed.race.iter().filter_map(|id| find("race", id)).collect();
        needs.extend(&flow.race);
        flow.terms.accepts.extend(&flow.race);
        let outcomes = outcomes.iter().chain(&parsed.uses.outcomes).chain(&parsed.items.outcomes);
        flow.terms.accepts.extend(outcomes.filter_map(|id| self.find(id)));
        if let Some(each) = parsed.each.as_ref().and_then(|id| find("each", id)) {
            needs.push(each);
            flow.terms.each = Some(each);
        }
        if let Some(name) = &parsed.rows {
            match self.artifacts.iter().position(|entry| entry.name == *name) {
                Some(at) => rows = Some(ArtifactId::new(at)),
                None => {
                    let hint = did_you_mean(name, self.artifacts.iter().map(|entry| entry.name.as_str()));
                    let why = format!("there is no artifact `{name}`{hint}");
                    faults.push((node, Fault::at("artifact", why).inside("foreach")));
                }
            }
        }
        if let Some(name) = &parsed.group {
            flow.group = self.groups.iter().position(|(known, _)| known == name);
            if flow.group.is_none() {
                let near = did_you_mean(name, self.groups.iter().map(|(known, _)| known.as_str()));
                let next = if near.is_empty() { "; groups are defined as [groups.NAME]" } else { &near };
                let why = format!("there is no group `{name}`{next}");
                faults.push((node, Fault::at("group", why)));
            }
        }
        (flow, rows)
    }

    /// The node of this id: one of these, or one that is there already.
    fn find(&self, id: &str) -> Option<NodeId> {
        let own = self.names.find(id).map(|number| self.global(NodeId(number)));
        own.or_else(|| self.outer.as_ref()?.ids.iter().find(|(known, _)| known == id).map(|(_, node)| *node))
    }

    /// The number in the run of a node of this manifest.
    fn global(&self, node: NodeId) -> NodeId {
        NodeId::new(node.index() + self.outer.as_ref().map_or(0, |outer| outer.first))
    }

    /// The number in this manifest of a node of the run, if it is here.
    fn local(&self, node: NodeId) -> Option<NodeId> {
        node.index().checked_sub(self.outer.as_ref().map_or(0, |outer| outer.first)).map(NodeId::new)
    }

    fn unknown_node(&self, id: &str) -> Fault {
        // Looking for the nearest among a million ids would take longer than the run.
        let near = if self.names.len() <= 10_000 { nearest(id, self.names.iter()) } else { None };
        let mut hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        if self.outer.is_some() {
            hint += " (it may name the node that makes it, and those made with it)";
        }
        Fault::new(format!("there is no node `{id}`{hint}"))
    }

    fn locate(&self, node: NodeId, fault: Fault, sources: &[Source]) -> Problem {
        let file = self.file_starts.iter().rev().find(|(first, _)| *first <= node.index());
        let source = &sources[file.expect("BUG: a node before the first file").1];
        source.node_problem(self.places[node.index()], fault)
    }
}

impl Flow {
    /// Takes over what needs no names.
    fn take_rest(&mut self, parsed: ParsedFlow, rows: Option<ArtifactId>) {
        let flow = parsed.flow;
        let each = self.terms.each;
        self.when = flow.when;
        self.runs_if_skipped = flow.runs_if_skipped;
        self.terms.after_any = flow.terms.after_any;
        self.fan = flow.fan;
        if let (Some(fan), Some(each)) = (&mut self.fan, each) {
            fan.over = Over::Each(each);
        }
        if let (Some(fan), Some(rows)) = (&mut self.fan, rows) {
            fan.over = Over::Rows(rows);
        }
        self.route = flow.route;
        self.repeat = flow.repeat;
        self.publish = flow.publish;
    }
}
