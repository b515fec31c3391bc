//! A run without running: every node is looked up, and what has no stored result is only noted. What depends on a
//! result that is not there yet counts as to be run.

use std::collections::HashSet;
use std::time::Duration;

use forkyard_shared::ids::NodeId;

use super::core::Engine;
use crate::context_file::Vars;
use crate::fields::KeyFields;
use crate::nodes::Nodes;
use crate::run::RunError;
use crate::store::{Outcome, Record};

/// What a run would do.
#[derive(Default)]
pub(crate) struct Foreseen {
    /// Nodes that would run.
    pub runs: Vec<NodeId>,
    /// Nodes whose result is stored, and how long it took to compute.
    pub stored: Vec<(NodeId, Duration)>,
    /// Nodes after which nobody knows what is set.
    uncertain: HashSet<NodeId>,
    /// What is found out about one node.
    pub watched: Watched,
}

/// What is found out about the node of this name, which may be an item.
#[derive(Default)]
pub(crate) struct Watched {
    pub name: Option<String>,
    /// What its key is made of, and how long its stored result took to compute.
    pub key: Option<(KeyFields, Option<Duration>)>,
    /// Why it has no key now.
    pub why_none: Option<String>,
    /// What is set after it, if all that it takes is stored.
    pub context: Option<Vars>,
}

/// All nodes, what would be done with them, and the items of those that have any.
type Prospect = (Nodes, Foreseen, Vec<(NodeId, Vec<NodeId>)>);

impl Engine<'_> {
    /// Looks every node up and runs none.
    pub fn foresee(mut self, watched: Option<&str>) -> Result<Prospect, RunError> {
        let name = watched.map(String::from);
        self.state.foreseen =
            Some(Foreseen { watched: Watched { name, ..Watched::default() }, ..Foreseen::default() });
        let node = watched.and_then(|name| self.nodes.find(name));
        self.contexts.watched = node;
        loop {
            self.expand();
            self.look_up()?;
            if !self.scheduler.has_fresh() {
                self.decide_races();
            }
            if self.scheduler.has_fresh() || !self.state.expandable.is_empty() {
                continue;
            }
            // Only now: a race may be won by a member whose result is stored.
            if self.scheduler.peek().is_none() {
                break;
            }
            while let Some(node) = self.scheduler.take() {
                self.would_run(node);
            }
        }
        let families = self.state.families.keys().map(|node| (*node, self.all_units(*node))).collect();
        let context = node.map(|node| self.contexts.after(self.nodes.plan, node));
        let mut foreseen = self.state.foreseen.unwrap_or_default();
        foreseen.watched.context = context.transpose().map_err(RunError::Internal)?.flatten();
        Ok((self.nodes, foreseen, families))
    }

    /// Whether nothing is to be run.
    pub(super) fn is_dry(&self) -> bool {
        self.state.foreseen.is_some()
    }

    /// The node would run, and succeed.
    fn would_run(&mut self, node: NodeId) {
        let writes = self.ops.get(self.nodes.op(node)).signature().state
            || self.nodes.flow(node).is_some_and(|flow| !flow.publish.is_empty());
        if writes {
            self.be_uncertain(node);
            self.be_uncertain(self.nodes.declared(node));
        }
        if let Some(foreseen) = &mut self.state.foreseen {
            foreseen.runs.push(node);
        }
        self.pass_on_doubt(node);
        self.scheduler.done(node, Outcome::Ran);
        self.item_settled(node, Outcome::Ran, None);
    }

    /// Some of the node's items would run, so that its own result is not known.
    pub(super) fn would_run_as_list(&mut self, node: NodeId) {
        self.pass_on_doubt(node);
        self.scheduler.done(node, Outcome::Ran);
        self.item_settled(node, Outcome::Ran, None);
    }

    pub(super) fn is_stored(&mut self, node: NodeId, record: &Record) {
        if let Some(foreseen) = &mut self.state.foreseen {
            foreseen.stored.push((node, Duration::from_micros(record.duration_us)));
        }
    }

    fn be_uncertain(&mut self, node: NodeId) {
        if let Some(foreseen) = &mut self.state.foreseen {
            foreseen.uncertain.insert(node);
        }
    }

    /// A node is settled: what is uncertain before it is so after it.
    pub(super) fn pass_on_doubt(&mut self, node: NodeId) {
        if self.is_dry() && self.doubt(node).is_some() {
            self.be_uncertain(node);
        }
    }

    /// The node before this one that leaves it uncertain what is set.
    pub(super) fn doubt(&self, node: NodeId) -> Option<NodeId> {
        let uncertain = &self.state.foreseen.as_ref()?.uncertain;
        let of = self.nodes.item(node).map(|item| self.starts_from(item.of)).unwrap_or_default();
        let mut before = self.starts_from(node).into_iter().chain(of);
        before.find(|before| uncertain.contains(before))
    }

    fn is_watched(&self, node: NodeId) -> bool {
        let name = self.state.foreseen.as_ref().and_then(|foreseen| foreseen.watched.name.as_deref());
        name.is_some_and(|name| name == self.nodes.name(node))
    }

    /// The node has its key: what it is made of is kept, if that was asked for.
    pub(super) fn watch_key(&mut self, node: NodeId, record: Option<&Record>) {
        if !self.is_watched(node) {
            return;
        }
        let fields =
            self.walk_key(node, |keys, nodes, said, result| KeyFields::of(keys, nodes, node, said, result));
        let took = record.map(|record| Duration::from_micros(record.duration_us));
        if let Some(foreseen) = &mut self.state.foreseen {
            foreseen.watched.key = fields.map(|fields| (fields, took));
        }
    }

    /// The node has no key, for this reason.
    pub(super) fn watch_none(&mut self, node: NodeId, why: &str) {
        if self.is_watched(node)
            && let Some(foreseen) = &mut self.state.foreseen
        {
            foreseen.watched.why_none = Some(why.into());
        }
    }
}
