//! The keys of plain nodes, made by a thread of their own before anybody asks for them, and looked up in one go.
//!
//! A plain node says nothing beyond its op and its needs. If those are plain too, its key depends on the manifest
//! alone: it is the same whenever it is made.

use std::hint::black_box;
use std::io;
use std::thread::JoinHandle;

use forkyard_shared::digest::Digest;
use forkyard_shared::ids::{NodeId, OpId};
use forkyard_worker::Ops;

use crate::graph::Graph;
use crate::key::{self, NO_KEY};
use crate::names::Names;
use crate::plan::{PLAIN, Plan};
use crate::store::{AtHand, Reader, StoreError};
use crate::{room, threads};

/// Nodes whose data is fetched from memory side by side.
const ABREAST: usize = 64;

/// What is known of plain nodes before a run begins.
pub(crate) struct Early {
    /// By node; [`NO_KEY`] of those that are not plain, or need such nodes.
    pub keys: Vec<Digest>,
    /// What is stored under them.
    pub stored: Vec<AtHand>,
}

impl Early {
    /// Nothing.
    pub fn none(plan: &Plan) -> Early {
        Early { keys: vec![NO_KEY; plan.len()], stored: Vec::new() }
    }
}

/// What a plain node's key depends on.
struct Walk {
    graph: &'static Graph,
    names: &'static Names,
    ops: &'static [OpId],
    detail_of: &'static [u32],
    /// By op: its name, its version, and whether nodes' ids are in their keys; nothing if it has no version of its own.
    known: Vec<Option<(String, Vec<u8>, bool)>>,
}

/// A thread that makes keys and looks them up in a store that it opens.
pub(crate) type Making = JoinHandle<(Early, Result<Reader, StoreError>)>;

/// Starts to make the keys of the wanted nodes of a plan.
///
/// # Errors
/// When the system refuses a thread.
pub(crate) fn start(
    plan: &'static Plan,
    ops: &Ops,
    wanted: impl Fn(NodeId) -> bool + Send + 'static,
    open: impl FnOnce() -> Result<Reader, StoreError> + Send + 'static,
) -> io::Result<Making> {
    let walk = Walk::of(plan, ops);
    threads::start("early keys", move || {
        let keys = walk.keys(wanted);
        let reader = open();
        let stored = reader.as_ref().map_or_else(|_| Vec::new(), |reader| reader.look_all_up(&keys));
        (Early { keys, stored }, reader)
    })
}

impl Walk {
    fn of(plan: &'static Plan, ops: &Ops) -> Walk {
        let known = |op| {
            let version = ops.version(op)?.to_le_bytes().to_vec();
            Some((ops.name(op).into(), version, ops.get(op).signature().effect))
        };
        Walk {
            graph: &plan.graph,
            names: &plan.names,
            ops: &plan.ops,
            detail_of: &plan.detail_of,
            known: ops.ids().map(known).collect(),
        }
    }

    fn keys(&self, wanted: impl Fn(NodeId) -> bool) -> Vec<Digest> {
        let mut keys = room::filled(self.ops.len(), NO_KEY);
        let (mut text, mut needs) = (Vec::new(), Vec::new());
        for some in self.graph.order().chunks(ABREAST) {
            self.fetch(some, &keys);
            for &node in some {
                let Some((op, version, has_id)) = &self.known[self.ops[node.index()].index()] else {
                    continue;
                };
                needs.clear();
                needs.extend(self.graph.needs(node).iter().map(|need| keys[need.index()]));
                if self.detail_of[node.index()] != PLAIN || !wanted(node) || needs.contains(&NO_KEY) {
                    continue;
                }
                text.clear();
                text.push(key::KEY_VERSION);
                let id = has_id.then(|| self.names.get(node.0));
                key::begin((op, version, id), |field, bytes| key::push(&mut text, field, bytes));
                key::end(&mut needs, |field, bytes| key::push(&mut text, field, bytes));
                keys[node.index()] = Digest::of(&text);
            }
        }
        keys
    }

    /// Looks at all that the keys of these nodes are made of: reading it later need not wait for memory, one by one.
    fn fetch(&self, nodes: &[NodeId], keys: &[Digest]) {
        let mut seen = 0;
        for node in nodes {
            seen ^= self.names.get(node.0).as_bytes()[0] ^ self.ops[node.index()].0 as u8;
            seen ^= self.detail_of[node.index()] as u8;
        }
        for need in nodes.iter().flat_map(|node| self.graph.needs(*node)) {
            seen ^= keys[need.index()].0[0];
        }
        black_box(seen);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::key::{Keys, Said};
    use crate::nodes::Nodes;
    use crate::store::DigestMemo;

    /// A plain node's key is that which the walk over all fields makes; what is not plain is left alone, with all that
    /// comes after it.
    #[test]
    fn early_keys_are_the_keys_that_a_run_makes() {
        let text = r#"{"id": "c", "op": "noop", "needs": ["b", "a"]}
            {"id": "a", "op": "noop"}
            {"id": "b", "op": "noop", "needs": ["a"]}
            {"id": "salted", "op": "noop", "needs": ["a"], "salt": "x"}
            {"id": "value", "op": "value", "params": {"value": 1}}
            {"id": "d", "op": "noop", "needs": ["c", "a", "b"]}
            {"id": "after", "op": "noop", "needs": ["d", "salted"]}"#;
        let ops = Ops::standard();
        let plan = crate::manifest::load(Path::new("-"), Some(text), &ops, &BTreeMap::new()).unwrap();
        let plan: &'static Plan = Box::leak(Box::new(plan));
        let early = Walk::of(plan, &ops).keys(|_| true);
        let place = tempfile::tempdir().unwrap();
        let keys = Keys::new(plan, &ops, Vec::new(), (DigestMemo::open(place.path()), Early::none(plan)));
        let mut keys = keys.unwrap();
        let nodes = Nodes::new(plan);
        for node in plan.graph.order() {
            let made = keys.make(&nodes, *node, Said::of(plan.detail(*node)), |_| None).unwrap();
            let plain = ["a", "b", "c", "d"].contains(&plan.name(*node));
            let expected = if plain { made } else { NO_KEY };
            assert_eq!(early[node.index()], expected, "{}", plan.name(*node));
        }
        let some = Walk::of(plan, &ops).keys(|node| plan.name(node) != "b");
        assert_eq!(some[0], NO_KEY, "it needs one that is left out");
    }
}
