//! Nodes that come into being while a run goes on: a result `{"$nodes": [...]}` lists them, as a manifest would. They
//! are checked like a manifest, need the node that made them, and may name it and each other.

use forkyard_shared::ids::NodeId;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::core::Engine;
use super::evaluate::Unknown;
use crate::manifest::{Outer, load_made};
use crate::plan::Plan;

/// What a node returns that makes nodes.
#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(rename = "$nodes", borrow)]
    nodes: Vec<&'a RawValue>,
}

impl Engine<'_> {
    /// Takes over the nodes that a finished one lists.
    pub(super) fn generate(&mut self, node: NodeId) -> Result<(), Unknown> {
        let json = self.own_result(node)?;
        let Listed { nodes: list } =
            serde_json::from_slice(&json).map_err(|error| format!("`$nodes` is a list of nodes: {error}"))?;
        if list.is_empty() {
            return Ok(());
        }
        let (made, most) = (self.state.generated + list.len(), self.nodes.plan.settings.max_generated);
        if made > most {
            return Err(Unknown::Wrong(format!(
                "with its {} nodes {made} have been generated in this run; [run] max_generated = {most}",
                list.len()
            )));
        }
        // A line each: what ends a line within one of them stands between words, never in a string.
        let lines: Vec<String> = list.iter().map(|made| made.get().replace(['\n', '\r'], " ")).collect();
        let name = self.nodes.name(node).into_owned();
        let ids = vec![(name.clone(), node)];
        let outer = Outer { first: self.nodes.len(), ids };
        let source = format!("nodes of {name}");
        let dir = self.nodes.detail(node).map_or(&self.nodes.plan.dir, |detail| &detail.dir);
        let plan = load_made(lines.join("\n"), source, (self.nodes.plan, dir), self.ops, outer);
        let plan = plan.map_err(|error| error.to_string())?;
        if let Some(known) = plan.names.iter().find(|id| self.nodes.find(id).is_some()) {
            return Err(Unknown::Wrong(format!("it makes a node `{known}`, and there is one of that id")));
        }
        if plan.uses_history && !self.state.lineages.are_used {
            return Err(Unknown::Wrong(
                "it makes nodes that name `history` or `last_output`, and the manifest has no node that does: what came before was not kept".into(),
            ));
        }
        if plan.uses_state(self.ops) {
            self.contexts.begin(self.nodes.plan)?;
        }
        self.state.generated = made;
        self.take_made(node, plan);
        Ok(())
    }

    fn take_made(&mut self, generator: NodeId, plan: Plan) {
        let first = self.nodes.len();
        let (count, terms) = (plan.len(), plan.terms());
        let members: Vec<NodeId> = plan
            .races()
            .flat_map(|(_, members)| members.to_vec())
            .filter(|node| node.index() >= first)
            .collect();
        self.state.know(&plan, self.ops, first);
        self.nodes.add_made(generator, plan);
        let urgency = self.scheduler.urgency(self.nodes.declared(generator));
        let model = self.nodes.declared(generator);
        let nodes = || (first..first + count).map(NodeId::new);
        for node in nodes() {
            // Those that it needs may come later in the list: edges follow when all are there.
            let added = self.scheduler.add(urgency, model);
            assert_eq!(node, added, "BUG: two numbers for one node");
            self.keys.add();
        }
        for member in members {
            self.scheduler.excuse(member);
        }
        for (node, terms) in terms {
            self.scheduler.set_terms(NodeId::new(node.index() + first), terms);
        }
        for node in nodes() {
            let needs: Vec<NodeId> = self.nodes.needs(node).collect();
            self.scheduler.wait_for(node, &needs);
        }
        self.scheduler.drain_from(first);
        let readers = self.readers(generator);
        if let Some(held) = self.state.results.get_mut(&generator) {
            held.readers = readers;
        }
    }
}
