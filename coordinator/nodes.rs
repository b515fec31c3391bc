//! The nodes of a run: those of the plan, and those that come into being while it goes on.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use forkyard_shared::ids::{ArtifactId, NodeId, OpId};

use crate::code::Call;
use crate::names::NameRef;
use crate::plan::{Detail, Flow, Plan};
use crate::room::{self, NODES_MAX};

/// All nodes, by number.
pub(crate) struct Nodes {
    /// The manifest. It is needed until the end of the process.
    pub plan: &'static Plan,
    /// Those after the plan's.
    later: Vec<Later>,
    /// How many there will be of those, as far as it is known.
    expected: usize,
    made: Vec<Made>,
    generators: HashSet<NodeId>,
    /// The ids of nodes that were made.
    ids: HashMap<String, NodeId>,
    /// What nodes that are submitted have in common: plans of one node.
    shapes: Vec<&'static Plan>,
    submitted: u32,
}

/// One item or iteration of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Item {
    pub of: NodeId,
    pub index: u32,
}

/// A node that was not there when the run began.
#[derive(Clone, Copy)]
enum Later {
    Item(Item),
    /// A node of one of the `made` plans.
    Made {
        by: u32,
        number: NodeId,
    },
    /// One that came from another thread: of one of the `shapes`, with its number among all that came.
    Submitted {
        shape: u32,
        number: u32,
    },
}

/// The nodes that one node has brought into being.
struct Made {
    plan: &'static Plan,
    first: NodeId,
    generator: NodeId,
    /// Their order, as [`crate::graph::Graph::ranks`] counts.
    ranks: Vec<u32>,
}

/// Where a node comes from.
pub(crate) enum Origin {
    /// The manifest.
    Plan,
    Item(Item),
    /// This node has made it, as the `number`-th of `of`, from 1.
    Made {
        generator: NodeId,
        number: u32,
        of: u32,
    },
    /// Nobody in this run: it stands for itself.
    Submitted,
}

impl Nodes {
    pub fn new(plan: &'static Plan) -> Nodes {
        Nodes {
            plan,
            later: Vec::new(),
            expected: 0,
            made: Vec::new(),
            generators: HashSet::new(),
            ids: HashMap::new(),
            shapes: Vec::new(),
            submitted: 0,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.plan.len() + self.later.len()
    }

    /// There will be so many more; how many that makes in all.
    pub fn expect(&mut self, more: usize) -> usize {
        self.expected = (self.expected + more).min(NODES_MAX);
        let nobody = Later::Item(Item { of: NodeId(0), index: 0 });
        room::take(&mut self.later, self.expected, nobody);
        self.plan.len() + self.expected
    }

    /// A new item of a node.
    pub fn add_item(&mut self, of: NodeId, index: u32) -> NodeId {
        self.later.push(Later::Item(Item { of, index }));
        NodeId::new(self.len() - 1)
    }

    /// Takes over nodes that `generator` has made; they are numbered from [`Nodes::len`].
    pub fn add_made(&mut self, generator: NodeId, plan: Plan) {
        // It is needed until the end of the process, as the manifest is.
        let plan: &'static Plan = Box::leak(Box::new(plan));
        let (first, by) = (NodeId::new(self.len()), self.made.len() as u32);
        for (number, id) in plan.names.iter().enumerate() {
            self.ids.insert(id.into(), NodeId::new(first.index() + number));
            self.later.push(Later::Made { by, number: NodeId::new(number) });
        }
        self.ids.entry(self.name(generator).into_owned()).or_insert(generator);
        self.generators.insert(generator);
        self.made.push(Made { plan, first, generator, ranks: plan.graph.ranks() });
    }

    /// A plan of one node, of which many will be submitted; its number.
    pub fn add_shape(&mut self, plan: Plan) -> u32 {
        // It is needed until the end of the process, as the manifest is.
        self.shapes.push(Box::leak(Box::new(plan)));
        self.shapes.len() as u32 - 1
    }

    /// A node that was submitted; it gets the `place` of one that nobody asks about any more, if there is one.
    pub fn add_submitted(&mut self, place: Option<NodeId>, shape: u32) -> NodeId {
        self.submitted = self.submitted.wrapping_add(1);
        let new = Later::Submitted { shape, number: self.submitted };
        match place {
            Some(node) => self.later[node.index() - self.plan.len()] = new,
            None => self.later.push(new),
        }
        place.unwrap_or_else(|| NodeId::new(self.len() - 1))
    }

    /// Whether it came from another thread.
    pub fn is_submitted(&self, node: NodeId) -> bool {
        matches!(self.later(node), Some(Later::Submitted { .. }))
    }

    /// Whether the node has made any.
    pub fn has_made(&self, node: NodeId) -> bool {
        self.generators.contains(&node)
    }

    fn later(&self, node: NodeId) -> Option<Later> {
        node.index().checked_sub(self.plan.len()).map(|at| self.later[at])
    }

    /// The plan that a declared node is in, its number there, and the number of that plan's first node.
    fn home(&self, node: NodeId) -> (&'static Plan, NodeId, usize) {
        match self.later(node) {
            None => (self.plan, node, 0),
            Some(Later::Item(item)) => self.home(item.of),
            Some(Later::Made { by, number }) => {
                let made = &self.made[by as usize];
                (made.plan, number, made.first.index())
            }
            Some(Later::Submitted { shape, .. }) => (self.shapes[shape as usize], NodeId(0), node.index()),
        }
    }

    /// Which item of which node it is, if it is one.
    pub fn item(&self, node: NodeId) -> Option<Item> {
        match self.later(node) {
            Some(Later::Item(item)) => Some(item),
            _ => None,
        }
    }

    /// Where it comes from.
    pub fn origin(&self, node: NodeId) -> Origin {
        match self.later(node) {
            None => Origin::Plan,
            Some(Later::Item(item)) => Origin::Item(item),
            Some(Later::Made { by, number }) => {
                let Made { generator, ranks, .. } = &self.made[by as usize];
                Origin::Made { generator: *generator, number: ranks[number.index()], of: ranks.len() as u32 }
            }
            Some(Later::Submitted { .. }) => Origin::Submitted,
        }
    }

    /// The node that was declared, of an item.
    pub fn declared(&self, node: NodeId) -> NodeId {
        self.item(node).map_or(node, |item| item.of)
    }

    /// The node of this id.
    pub fn find(&self, id: &str) -> Option<NodeId> {
        self.plan.names.find(id).map(NodeId).or_else(|| self.ids.get(id).copied())
    }

    /// `id`, or `id[index]`; of a node that was submitted its op and number, `op#1` being the first.
    pub fn name(&self, node: NodeId) -> Cow<'static, str> {
        if let Some(Item { of, index }) = self.item(node) {
            return format!("{}[{index}]", self.name(of)).into();
        }
        let (plan, place, _) = self.home(node);
        match self.later(node) {
            Some(Later::Submitted { number, .. }) => format!("{}#{number}", plan.name(place)).into(),
            _ => plan.name(place).into(),
        }
    }

    /// The same for somebody who will look at it later.
    pub fn name_ref(&self, node: NodeId) -> NameRef {
        match self.later(node) {
            None => NameRef::Numbered(&self.plan.names, node.0),
            Some(_) => NameRef::Text(self.name(node)),
        }
    }

    pub fn op(&self, node: NodeId) -> OpId {
        let (plan, number, _) = self.home(node);
        plan.ops[number.index()]
    }

    /// What a node says beyond id, op and needs.
    pub fn detail(&self, node: NodeId) -> Option<&'static Detail> {
        let (plan, number, _) = self.home(node);
        plan.detail(number)
    }

    /// What a node says about whether, when and how often it runs.
    pub fn flow(&self, node: NodeId) -> Option<&'static Flow> {
        self.detail(node)?.flow.as_deref()
    }

    /// The nodes that it waits for, or that its node has waited for.
    pub fn needs(&self, node: NodeId) -> impl Iterator<Item = NodeId> + use<> {
        let (plan, number, first) = self.home(node);
        let generator = match self.later(self.declared(node)) {
            Some(Later::Made { by, .. }) => Some(self.made[by as usize].generator),
            _ => None,
        };
        let needs = plan.graph.needs(number).iter().map(move |need| NodeId::new(need.index() + first));
        generator.into_iter().chain(needs)
    }

    /// The nodes that wait for it.
    pub fn users(&self, node: NodeId) -> impl Iterator<Item = NodeId> + use<> {
        let (plan, number, first) = self.home(node);
        plan.graph.users(number).iter().map(move |user| NodeId::new(user.index() + first))
    }

    /// The nodes whose results a node takes as parameters or artifacts, or in expressions.
    pub fn results_of(&self, node: NodeId) -> impl Iterator<Item = NodeId> + use<> {
        let (plan, number, _) = self.home(node);
        plan.results_of(number)
    }

    /// What tells a node from others of its op: the Python function that it calls, the program that it runs.
    pub fn label(&self, node: NodeId) -> Option<&'static str> {
        self.detail(node)?.label()
    }

    /// The Python function that it calls.
    pub fn call(&self, node: NodeId) -> Option<&'static Arc<Call>> {
        self.detail(node)?.call.as_ref()
    }

    /// Whether it runs beside others in one process.
    pub fn is_concurrent(&self, node: NodeId) -> bool {
        self.call(node).is_some_and(|call| call.is_concurrent)
    }

    /// The artifacts that it names.
    pub fn artifacts(&self, node: NodeId) -> &'static [ArtifactId] {
        let (plan, number, _) = self.home(node);
        plan.artifacts_of(number)
    }

    /// Whether a stored result of it will do.
    pub fn is_cached(&self, node: NodeId) -> bool {
        let (plan, number, _) = self.home(node);
        plan.is_cached(number)
    }
}
