//! A mark for each node, in one bit: the marks of a million nodes stay in the processor's caches.

use forkyard_shared::ids::NodeId;

/// Which nodes of a plan are marked.
pub(crate) struct Marks(Vec<u64>);

impl Marks {
    /// None of so many nodes.
    pub fn none(nodes: usize) -> Marks {
        Marks(vec![0; nodes.div_ceil(64)])
    }

    /// Marks a node.
    pub fn mark(&mut self, node: NodeId) {
        self.0[node.index() / 64] |= 1 << (node.index() % 64);
    }

    /// Whether a node is marked.
    pub fn has(&self, node: NodeId) -> bool {
        self.0[node.index() / 64] >> (node.index() % 64) & 1 != 0
    }
}
