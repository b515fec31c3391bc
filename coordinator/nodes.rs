//! The nodes of a run: those of the plan, and those that come into being while it goes on.

use std::borrow::Cow;

use forkyard_shared::ids::{ArtifactId, NodeId, OpId};

use crate::plan::{Detail, Plan};

/// All nodes, by number.
pub(crate) struct Nodes<'p> {
    pub plan: &'p Plan,
    /// Those after the plan's.
    items: Vec<Item>,
}

/// One item or iteration of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Item {
    pub of: NodeId,
    pub index: u32,
}

impl<'p> Nodes<'p> {
    pub fn new(plan: &'p Plan) -> Nodes<'p> {
        Nodes { plan, items: Vec::new() }
    }

    /// A new item of a node.
    pub fn add_item(&mut self, of: NodeId, index: u32) -> NodeId {
        self.items.push(Item { of, index });
        NodeId::new(self.plan.len() + self.items.len() - 1)
    }

    /// Which item of which node it is, if it is one.
    pub fn item(&self, node: NodeId) -> Option<Item> {
        node.index().checked_sub(self.plan.len()).map(|at| self.items[at])
    }

    /// The node that the manifest knows.
    pub fn declared(&self, node: NodeId) -> NodeId {
        self.item(node).map_or(node, |item| item.of)
    }

    /// `id`, or `id[index]`.
    pub fn name(&self, node: NodeId) -> Cow<'p, str> {
        match self.item(node) {
            None => self.plan.name(node).into(),
            Some(Item { of, index }) => format!("{}[{index}]", self.plan.name(of)).into(),
        }
    }

    pub fn op(&self, node: NodeId) -> OpId {
        self.plan.ops[self.declared(node).index()]
    }

    /// What a node says beyond id, op and needs.
    pub fn detail(&self, node: NodeId) -> Option<&'p Detail> {
        self.plan.detail(self.declared(node))
    }

    /// The nodes that it waits for, or that its node has waited for.
    pub fn needs(&self, node: NodeId) -> &'p [NodeId] {
        self.plan.graph.needs(self.declared(node))
    }

    /// The artifacts that it names.
    pub fn artifacts(&self, node: NodeId) -> &'p [ArtifactId] {
        self.plan.artifacts_of(self.declared(node))
    }

    /// Whether a stored result of it will do.
    pub fn is_cached(&self, node: NodeId) -> bool {
        self.plan.is_cached(self.declared(node))
    }
}
