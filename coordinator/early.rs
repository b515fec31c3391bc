//! The keys of plain nodes, made by threads of their own before anybody asks for them, and looked up as they are made.
//!
//! A plain node says nothing beyond its op and its needs. If those are plain too, its key depends on the manifest
//! alone: it is the same whenever it is made.

use std::hint::black_box;
use std::io;
use std::sync::atomic::{
    AtomicU8, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::thread::{self, JoinHandle};

use forkyard_shared::digest::Digest;
use forkyard_shared::ids::{NodeId, OpId};
use forkyard_worker::Ops;

use crate::graph::Graph;
use crate::key::{self, NO_KEY};
use crate::names::Names;
use crate::plan::{PLAIN, Plan};
use crate::store::{AtHand, Learnt, Reader, StoreError};
use crate::{room, threads};

/// Nodes whose data is fetched from memory side by side.
const ABREAST: usize = 64;

/// Nodes that a thread takes on at a time, in the order of the graph.
const BLOCK: usize = 16 * ABREAST;

/// So many nodes are worth a second thread.
const SHARED_FROM: usize = 50_000;

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
    wanted: impl Fn(NodeId) -> bool + Send + Sync + 'static,
    open: impl FnOnce() -> Result<Reader, StoreError> + Send + 'static,
) -> io::Result<Making> {
    let walk = Walk::of(plan, ops);
    threads::start("early keys", move || {
        let reader = open();
        let learnt = reader.as_ref().map_or_else(|_| Learnt::nothing(), Reader::at_hand);
        (walk.keys(&learnt, wanted), reader)
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

    fn keys(&self, learnt: &Learnt, wanted: impl Fn(NodeId) -> bool + Sync) -> Early {
        let made = Made::new(self.ops.len());
        thread::scope(|scope| {
            if self.ops.len() >= SHARED_FROM {
                // Refused, it is not missed: this thread makes all of them.
                threads::start_within(scope, "early keys 2", || self.make(learnt, &wanted, &made)).ok();
            }
            self.make(learnt, &wanted, &made);
        });
        made.into_early()
    }

    /// Makes keys until all blocks are taken on.
    fn make(&self, learnt: &Learnt, wanted: &impl Fn(NodeId) -> bool, made: &Made) {
        let (mut text, mut needs, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        let blocks = || self.graph.order().chunks(BLOCK).nth(made.taken.fetch_add(1, Relaxed));
        for some in std::iter::from_fn(blocks).flat_map(|block| block.chunks(ABREAST)) {
            self.fetch(some, made);
            for &node in some {
                needs.clear();
                needs.extend(self.graph.needs(node).iter().map_while(|need| made.key(*need)));
                let all_made = needs.len() == self.graph.needs(node).len();
                let known = &self.known[self.ops[node.index()].index()];
                let plain = self.detail_of[node.index()] == PLAIN && all_made && wanted(node);
                let key = known.as_ref().filter(|_| plain).map(|(op, version, has_id)| {
                    text.clear();
                    text.push(key::KEY_VERSION);
                    let id = has_id.then(|| self.names.get(node.0));
                    key::begin((op, version, id), |field, bytes| key::push(&mut text, field, bytes));
                    key::end(&mut needs, |field, bytes| key::push(&mut text, field, bytes));
                    Digest::of(&text)
                });
                made.set(node, key);
                keys.extend(key.map(|key| (node, key)));
            }
            learnt.fetch(keys.iter().map(|(_, key)| *key));
            for (node, key) in keys.drain(..) {
                made.stored[node.index()].store(learnt.find(key) as u8, Relaxed);
            }
        }
    }

    /// Looks at all that the keys of these nodes are made of: reading it later need not wait for memory, one by one.
    fn fetch(&self, nodes: &[NodeId], made: &Made) {
        let mut seen = 0;
        for node in nodes {
            seen ^= self.names.get(node.0).as_bytes()[0] ^ self.ops[node.index()].0 as u8;
            seen ^= self.detail_of[node.index()] as u8;
        }
        for need in nodes.iter().flat_map(|node| self.graph.needs(*node)) {
            seen ^= made.keys[need.index()][0].load(Relaxed) as u8 ^ made.states[need.index()].load(Relaxed);
        }
        black_box(seen);
    }
}

/// Keys that threads make together, each of them once.
struct Made {
    keys: Vec<[AtomicU64; 4]>,
    /// [`OPEN`] at first, then for ever [`THERE`] or [`NONE`].
    states: Vec<AtomicU8>,
    /// What was found under the keys, as numbers.
    stored: Vec<AtomicU8>,
    /// Blocks of the order that somebody has taken on.
    taken: AtomicUsize,
}

/// Somebody will say whether there is a key.
const OPEN: u8 = 0;
/// There is one, and it is written.
const THERE: u8 = 1;
/// There will be none.
const NONE: u8 = 2;

impl Made {
    fn new(nodes: usize) -> Made {
        let mut keys = room::list(nodes);
        keys.resize_with(nodes, Default::default);
        let bytes = |byte| (0..nodes).map(|_| AtomicU8::new(byte)).collect();
        let (states, stored) = (bytes(OPEN), bytes(AtHand::Unknown as u8));
        Made { keys, states, stored, taken: AtomicUsize::new(0) }
    }

    fn set(&self, node: NodeId, key: Option<Digest>) {
        let bytes = key.iter().flat_map(|key| key.0.as_chunks::<8>().0);
        for (bytes, word) in bytes.zip(&self.keys[node.index()]) {
            word.store(u64::from_ne_bytes(*bytes), Relaxed);
        }
        // After the words: who sees this sees them.
        self.states[node.index()].store(if key.is_some() { THERE } else { NONE }, Release);
    }

    /// The key of a node that stands before in the order. If another thread has not made it yet, that is at it: nobody waits
    /// for a node of a block that was not taken on.
    fn key(&self, node: NodeId) -> Option<Digest> {
        loop {
            match self.states[node.index()].load(Acquire) {
                OPEN => thread::yield_now(),
                THERE => return Some(digest(&self.keys[node.index()])),
                _ => return None,
            }
        }
    }

    /// Both lists stay where they are in memory: the standard library sees that their elements keep their size.
    fn into_early(self) -> Early {
        let at_hand = |stored: AtomicU8| AtHand::of(stored.into_inner());
        Early {
            // Words that nobody wrote are those of `NO_KEY`.
            keys: self.keys.into_iter().map(|words| digest(&words)).collect(),
            stored: self.stored.into_iter().map(at_hand).collect(),
        }
    }
}

fn digest(words: &[AtomicU64; 4]) -> Digest {
    let mut key = NO_KEY;
    for (bytes, word) in key.0.chunks_mut(8).zip(words) {
        bytes.copy_from_slice(&word.load(Relaxed).to_ne_bytes());
    }
    key
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
        let early = Walk::of(plan, &ops).keys(&Learnt::nothing(), |_| true).keys;
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
        let names = &plan.names;
        let some = Walk::of(plan, &ops).keys(&Learnt::nothing(), |node| names.get(node.0) != "b").keys;
        assert_eq!(some[0], NO_KEY, "it needs one that is left out");
    }

    /// Two threads make what one makes, also where each node needs the one before it.
    #[test]
    fn threads_wait_for_each_other() {
        let (nodes, ops) = (SHARED_FROM + 10_000, Ops::standard());
        let line = |n: usize| match n.checked_sub(1) {
            None => r#"{"id": "n0", "op": "noop"}"#.to_string(),
            Some(last) => format!(r#"{{"id": "n{n}", "op": "noop", "needs": ["n{last}", "n{}"]}}"#, last / 2),
        };
        let text: Vec<String> = (0..nodes).map(line).collect();
        let text = text.join("\n");
        let plan = crate::manifest::load(Path::new("-"), Some(&text), &ops, &BTreeMap::new()).unwrap();
        let walk = Walk::of(Box::leak(Box::new(plan)), &ops);
        let alone = Made::new(nodes);
        walk.make(&Learnt::nothing(), &|_| true, &alone);
        assert!(walk.keys(&Learnt::nothing(), |_| true).keys == alone.into_early().keys);
    }
}
