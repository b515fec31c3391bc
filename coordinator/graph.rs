//! The shape of the DAG: who needs whom, in compressed sparse rows. Knows nothing of what nodes do.

use forkyard_shared::ids::NodeId;

use crate::room;

/// Edges in both directions: 8 bytes an edge, 8 bytes a node.
pub(crate) struct Graph {
    needs: Rows,
    users: Rows,
    /// Every node after all it needs: in the manifest's order if that is such an order, else level by level.
    order: Vec<NodeId>,
}

/// For each node a list of nodes: `items[starts[n]..starts[n + 1]]`.
struct Rows {
    starts: Vec<u32>,
    items: Vec<NodeId>,
}

impl Rows {
    fn of(&self, node: NodeId) -> &[NodeId] {
        &self.items[self.starts[node.index()] as usize..self.starts[node.index() + 1] as usize]
    }
}

/// Collects the needs of one node after the other.
pub(crate) struct GraphBuilder(Rows);

impl GraphBuilder {
    pub fn new() -> GraphBuilder {
        GraphBuilder(Rows { starts: vec![0], items: Vec::new() })
    }

    /// The next node needs these; one named twice counts once.
    pub fn push(&mut self, needs: impl IntoIterator<Item = NodeId>) {
        let from = self.0.items.len();
        self.0.items.extend(needs);
        self.0.items[from..].sort_unstable();
        let mut kept = from;
        for at in from..self.0.items.len() {
            if at == from || self.0.items[at] != self.0.items[kept - 1] {
                self.0.items[kept] = self.0.items[at];
                kept += 1;
            }
        }
        self.0.items.truncate(kept);
        self.0.starts.push(u32::try_from(kept).expect("fewer than 2^32 edges"));
    }

    /// The graph, or a cycle: each node needs the one after it, and the last is the first again.
    pub fn build(self) -> Result<Graph, Vec<NodeId>> {
        let needs = self.0;
        let nodes = needs.starts.len() - 1;
        let mut starts = room::filled(nodes + 1, 0u32);
        for need in &needs.items {
            starts[need.index() + 1] += 1;
        }
        for node in 0..nodes {
            starts[node + 1] += starts[node];
        }
        let mut next = starts.clone();
        let mut items = room::filled(needs.items.len(), NodeId(0));
        for node in (0..nodes).map(NodeId::new) {
            for need in needs.of(node) {
                items[next[need.index()] as usize] = node;
                next[need.index()] += 1;
            }
        }
        let users = Rows { starts, items };
        let all = || (0..nodes).map(NodeId::new);
        if all().all(|node| needs.of(node).last().is_none_or(|last| *last < node)) {
            return Ok(Graph { needs, users, order: all().collect() });
        }
        let mut waiting: Vec<u32> = needs.starts.windows(2).map(|w| w[1] - w[0]).collect();
        let mut order: Vec<NodeId> = all().filter(|n| waiting[n.index()] == 0).collect();
        let mut at = 0;
        while at < order.len() {
            for user in users.of(order[at]) {
                waiting[user.index()] -= 1;
                if waiting[user.index()] == 0 {
                    order.push(*user);
                }
            }
            at += 1;
        }
        if order.len() < nodes {
            return Err(cycle(&needs, &waiting));
        }
        Ok(Graph { needs, users, order })
    }
}

/// Every node with something left to wait for needs another such node, so that a walk along them must
/// come back to itself.
fn cycle(needs: &Rows, waiting: &[u32]) -> Vec<NodeId> {
    let stuck = |node: &NodeId| waiting[node.index()] > 0;
    let mut path: Vec<NodeId> = (0..waiting.len()).map(NodeId::new).filter(stuck).take(1).collect();
    let mut seen = vec![false; waiting.len()];
    loop {
        let last = *path.last().expect("BUG: a cycle without a node");
        if std::mem::replace(&mut seen[last.index()], true) {
            let first = path.iter().position(|n| *n == last).expect("it was seen");
            return path.split_off(first);
        }
        path.push(
            *needs.of(last).iter().find(|n| stuck(n)).expect("BUG: a stuck node that needs no stuck one"),
        );
    }
}

impl Graph {
    /// The nodes that `node` waits for.
    pub fn needs(&self, node: NodeId) -> &[NodeId] {
        self.needs.of(node)
    }

    /// The nodes that wait for `node`.
    pub fn users(&self, node: NodeId) -> &[NodeId] {
        self.users.of(node)
    }

    /// Every node, after all it needs.
    pub fn order(&self) -> &[NodeId] {
        &self.order
    }

    /// A number for each node, larger than those of all it needs. Where nothing else decides, nodes count in the
    /// order in which they were given: if that is a possible order, it is the one.
    pub fn ranks(&self) -> Vec<u32> {
        let mut ranks = vec![0u32; self.len()];
        let mut next = 1;
        let mut stack = Vec::new();
        for node in (0..self.len()).map(NodeId::new) {
            stack.push((node, 0));
            while let Some((node, at)) = stack.pop() {
                if ranks[node.index()] != 0 {
                    continue;
                }
                match self.needs(node).get(at) {
                    Some(need) => stack.extend([(node, at + 1), (*need, 0)]),
                    None => {
                        ranks[node.index()] = next;
                        next += 1;
                    }
                }
            }
        }
        ranks
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// For each node the longest way from its start to the end of the run, where `cost` says how long
    /// each node takes.
    pub fn remaining(&self, cost: impl Fn(NodeId) -> f32) -> Vec<f32> {
        let mut remaining = vec![0.0f32; self.len()];
        for node in self.order.iter().rev() {
            let after = self.users(*node).iter().map(|user| remaining[user.index()]).fold(0.0, f32::max);
            remaining[node.index()] = cost(*node) + after;
        }
        remaining
    }

    /// `nodes` and everything they need, as a mark for each node.
    pub fn with_needs(&self, nodes: &[NodeId]) -> Vec<bool> {
        let mut marked = vec![false; self.len()];
        let mut stack = nodes.to_vec();
        while let Some(node) = stack.pop() {
            if !std::mem::replace(&mut marked[node.index()], true) {
                stack.extend(self.needs(node));
            }
        }
        marked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(needs: &[&[u32]]) -> Result<Graph, Vec<NodeId>> {
        let mut builder = GraphBuilder::new();
        for list in needs {
            builder.push(list.iter().copied().map(NodeId));
        }
        builder.build()
    }

    #[test]
    fn rows_run_both_ways_and_repeated_needs_count_once() {
        let graph = graph(&[&[1, 2, 1], &[2], &[]]).unwrap();
        assert_eq!(graph.needs(NodeId(0)), [NodeId(1), NodeId(2)]);
        assert_eq!(graph.users(NodeId(2)), [NodeId(0), NodeId(1)]);
        assert_eq!(graph.needs.items.len(), 3);
    }

    #[test]
    fn a_cycle_is_shown_as_it_runs() {
        let cycle = graph(&[&[1], &[2], &[3], &[1], &[]]).err().unwrap();
        assert_eq!(cycle, [1, 2, 3, 1].map(NodeId));
        assert_eq!(graph(&[&[0]]).err().unwrap(), [0, 0].map(NodeId));
    }

    #[test]
    fn ranks_follow_the_order_given_where_they_can() {
        assert_eq!(graph(&[&[], &[0], &[], &[1, 2]]).unwrap().ranks(), [1, 2, 3, 4]);
        // 0 needs 3, which comes later; 1 and 2 are strangers to both.
        assert_eq!(graph(&[&[3], &[], &[], &[2]]).unwrap().ranks(), [3, 4, 1, 2]);
    }

    #[test]
    fn the_longest_way_counts_costs() {
        let graph = graph(&[&[], &[0], &[0], &[1, 2]]).unwrap();
        let remaining = graph.remaining(|node| if node.0 == 2 { 5.0 } else { 1.0 });
        assert_eq!(remaining, [7.0, 2.0, 6.0, 1.0]);
    }

    #[test]
    fn only_what_is_needed_is_marked() {
        let graph = graph(&[&[], &[0], &[0], &[2]]).unwrap();
        assert_eq!(graph.with_needs(&[NodeId(3)]), [true, false, true, true]);
    }
}
