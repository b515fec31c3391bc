//! Which nodes show what the others take: a few of each kind that nobody has measured, and those that come first, so that
//! little else is needed for them.

use std::collections::{BTreeMap, HashSet};

use forkyard_shared::ids::NodeId;
use forkyard_worker::Ops;

use crate::cost::Learnt;
use crate::plan::Plan;

/// So many nodes show what their kind takes.
pub(crate) const ENOUGH: u64 = 3;

/// Of each kind that is not known the first nodes; if all are known, any node: it shows what a worker takes.
pub(crate) fn choose(plan: &Plan, ops: &Ops, known: &BTreeMap<String, Learnt>) -> HashSet<NodeId> {
    let mut level = vec![0; plan.len()];
    let mut of_kind: BTreeMap<&str, Vec<(usize, NodeId)>> = BTreeMap::new();
    for &node in plan.graph.order() {
        let needs = plan.graph.needs(node).iter();
        level[node.index()] = needs.map(|need| level[need.index()] + 1).max().unwrap_or(0);
        let kind = plan.kind_name(node, ops);
        if !known.contains_key(kind) {
            of_kind.entry(kind).or_default().push((level[node.index()], node));
        }
    }
    let first = |mut nodes: Vec<(usize, NodeId)>| {
        nodes.sort();
        nodes.into_iter().map(|(_, node)| node).take(ENOUGH as usize)
    };
    let chosen: HashSet<NodeId> = of_kind.into_values().flat_map(first).collect();
    if chosen.is_empty() { plan.graph.order().first().copied().into_iter().collect() } else { chosen }
}
