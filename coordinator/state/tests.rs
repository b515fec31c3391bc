//! The state beside a plain model: each node copies what its ancestors wrote, by rank, into a map.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;

use forkyard_shared::arena::{ArenaReader, ArenaWriter};
use forkyard_shared::context::{Context, Rank, Snapshot};
use forkyard_shared::digest::Digest;
use proptest::prelude::*;

use super::{State, StateError};

type Diff = Vec<(String, Option<Vec<u8>>)>;

fn state() -> State {
    State::new(ArenaWriter::new().unwrap())
}

fn set(key: &str, value: &str) -> Diff {
    vec![(key.into(), Some(value.into()))]
}

fn removed(key: &str) -> Diff {
    vec![(key.into(), None)]
}

fn get(state: &State, context: Context, key: &str) -> Option<String> {
    let value = state.snapshot(context).get(key).unwrap();
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

/// All that is visible, which is visited once.
fn contents(snapshot: Snapshot) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let visit = |key: &str, value: &[u8]| {
        assert_eq!(found.insert(key.to_string(), value.to_vec()), None, "{key} is visited twice");
    };
    snapshot.iter(visit).unwrap();
    found
}

#[test]
fn siblings_do_not_see_each_other_and_their_child_sees_the_higher_rank() {
    let mut state = state();
    let base = state.write(Context::EMPTY, Rank(1 << 32), &set("x", "base")).unwrap();
    // The higher rank happens to finish first.
    let b = state.write(base, Rank(3 << 32), &set("x", "b")).unwrap();
    let a = state.write(base, Rank(2 << 32), &set("x", "a")).unwrap();
    assert_eq!(get(&state, base, "x").unwrap(), "base");
    assert_eq!(get(&state, a, "x").unwrap(), "a");
    assert_eq!(get(&state, b, "x").unwrap(), "b");
    let both = state.join(&[a, b]).unwrap();
    assert_eq!(get(&state, both, "x").unwrap(), "b");
    assert_eq!(state.snapshot(both).writers().unwrap(), [1 << 32, 2 << 32, 3 << 32].map(Rank));
}

#[test]
fn a_removed_key_is_not_there_until_a_descendant_sets_it() {
    let mut state = state();
    let a = state.write(Context::EMPTY, Rank(1), &set("x", "1")).unwrap();
    let b = state.write(a, Rank(2), &removed("x")).unwrap();
    let c = state.write(b, Rank(3), &set("x", "")).unwrap();
    assert_eq!(get(&state, b, "x"), None);
    assert!(contents(state.snapshot(b)).is_empty());
    assert_eq!(get(&state, c, "x").unwrap(), "");
    assert_eq!(get(&state, c, "y"), None);
    assert_eq!(get(&state, Context::EMPTY, "x"), None);
}

#[test]
fn of_several_writes_of_one_key_the_last_counts() {
    let mut state = state();
    let diff = [set("x", "first"), removed("x"), set("x", "last")].concat();
    let a = state.write(Context::EMPTY, Rank(1), &diff).unwrap();
    assert_eq!(get(&state, a, "x").unwrap(), "last");
}

#[test]
fn a_rank_writes_once() {
    let mut state = state();
    let a = state.write(Context::EMPTY, Rank(7), &set("x", "1")).unwrap();
    let error = state.write(a, Rank(7), &set("y", "2")).unwrap_err();
    assert!(matches!(error, StateError::WrittenTwice(Rank(7))));
    assert_eq!(error.to_string(), "write the state: rank 7 has written before");
    assert_eq!(get(&state, a, "y"), None);
}

#[test]
fn a_join_that_adds_nothing_is_the_context_itself() {
    let mut state = state();
    let a = state.write(Context::EMPTY, Rank(1 << 32), &set("x", "1")).unwrap();
    let b = state.write(a, Rank(2 << 32), &set("y", "2")).unwrap();
    let c = state.write(b, Rank(3 << 32), &set("z", "3")).unwrap();
    assert_eq!(state.join(&[]).unwrap(), Context::EMPTY);
    assert_eq!(state.join(&[b, b]).unwrap(), b);
    assert_eq!(state.join(&[a, c, Context::EMPTY, b]).unwrap(), c);
    assert_eq!(state.write(c, Rank(4 << 32), &Vec::new()).unwrap(), c);
}

#[test]
fn the_digest_follows_the_order_of_ranks_and_not_their_numbers() {
    let digest = |ranks: [u64; 2], values: [&str; 2]| {
        let mut state = state();
        let mut context = Context::EMPTY;
        for (rank, value) in ranks.into_iter().zip(values) {
            context = state.write(context, Rank(rank), &set("x", value)).unwrap();
        }
        state.digest(context).unwrap()
    };
    assert_eq!(digest([1, 2], ["a", "b"]), digest([1 << 32, 9 << 32], ["a", "b"]));
    assert_eq!(digest([1, 2], ["a", "b"]), digest([2, 1], ["b", "a"]));
    assert_ne!(digest([1, 2], ["a", "b"]), digest([1, 2], ["b", "a"]));
}

#[test]
fn a_context_that_names_nothing_is_an_error() {
    let mut state = state();
    state.write(Context::EMPTY, Rank(1), &set("x", "1")).unwrap();
    for wrong in [1 << 40, (1 << 40) + 1, 12] {
        let snapshot = state.snapshot(Context(wrong));
        assert!(snapshot.get("x").is_err());
        assert!(snapshot.iter(|_, _| ()).is_err());
    }
}

/// Whether a walk goes by writer or by key is decided by how many keys there are, also unseen ones.
#[test]
fn the_order_of_a_walk_depends_on_what_is_visible_alone() {
    fn order(state: &State, context: Context) -> Vec<String> {
        let mut keys = Vec::new();
        state.snapshot(context).iter(|key, _| keys.push(key.to_string())).unwrap();
        keys
    }
    let mut state = state();
    let first = [set("d", "1"), set("b", "1"), set("c", "1")].concat();
    let a = state.write(Context::EMPTY, Rank(1), &first).unwrap();
    let b = state.write(a, Rank(2), &[set("d", "2"), set("a", "2")].concat()).unwrap();
    let by_key = order(&state, b);
    let unseen: Diff = (0..100).flat_map(|key| set(&format!("unseen-{key}"), "")).collect();
    state.write(Context::EMPTY, Rank(3), &unseen).unwrap();
    let by_writer = order(&state, b);
    assert_eq!(by_key, ["b", "c", "a", "d"]);
    assert_eq!(by_writer, by_key);
}

#[test]
fn many_keys_and_many_writers_are_all_found() {
    let mut state = state();
    let mut context = Context::EMPTY;
    for writer in 0..3000_u64 {
        let diff = [set(&format!("own-{writer}"), "1"), set("common", &writer.to_string())].concat();
        let next = state.write(context, Rank(writer << 32), &diff).unwrap();
        state.release(context);
        context = next;
    }
    assert_eq!(contents(state.snapshot(context)).len(), 3001);
    assert_eq!(get(&state, context, "common").unwrap(), "2999");
    assert!((0..3000).all(|writer| get(&state, context, &format!("own-{writer}")).is_some()));
}

/// Nodes, by rank.
#[derive(Clone, Debug)]
struct Dag {
    parents: Vec<Vec<usize>>,
    diffs: Vec<Diff>,
    ranks: Vec<Rank>,
    /// Of the nodes that may complete, the one with the lowest does.
    haste: Vec<u16>,
}

fn dag() -> impl Strategy<Value = Dag> {
    let key = (0..6_u8).prop_map(|key| format!("key-{key}"));
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..4));
    let gap = prop_oneof![Just(1_u64), 1..100_u64, Just(1_u64 << 32), 1..1_u64 << 50];
    let node = (
        prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        prop::collection::vec((key, value), 0..4),
        gap,
        any::<u16>(),
    );
    prop::collection::vec(node, 1..30).prop_map(|nodes| {
        let mut dag = Dag { parents: vec![], diffs: vec![], ranks: vec![], haste: vec![] };
        let mut rank = 0;
        for (index, (parents, diff, gap, haste)) in nodes.into_iter().enumerate() {
            rank += gap;
            let parents = parents.iter().filter(|_| index > 0).map(|parent| parent.index(index.max(1)));
            dag.parents.push(parents.collect());
            dag.diffs.push(diff);
            dag.ranks.push(Rank(rank));
            dag.haste.push(haste);
        }
        dag
    })
}

impl Dag {
    /// The nodes that each node sees, itself included.
    fn visible(&self) -> Vec<BTreeSet<usize>> {
        let mut visible: Vec<BTreeSet<usize>> = Vec::new();
        for (node, parents) in self.parents.iter().enumerate() {
            let mut set: BTreeSet<usize> =
                parents.iter().flat_map(|parent| visible[*parent].clone()).collect();
            set.insert(node);
            visible.push(set);
        }
        visible
    }

    /// An order in which nodes may complete.
    fn by_haste(&self) -> Vec<usize> {
        let mut order: Vec<usize> = Vec::new();
        while order.len() < self.parents.len() {
            let ready = |node: &usize| {
                !order.contains(node) && self.parents[*node].iter().all(|parent| order.contains(parent))
            };
            let next = (0..self.parents.len()).filter(ready).min_by_key(|node| self.haste[*node]);
            order.push(next.expect("parents come first"));
        }
        order
    }

    /// What each node sees after its own write, when they complete in this order.
    fn run(&self, order: impl IntoIterator<Item = usize>, ranks: &[Rank]) -> (State, Vec<Context>) {
        let mut state = state();
        let mut contexts = vec![Context::EMPTY; self.parents.len()];
        for node in order {
            let parents: Vec<Context> = self.parents[node].iter().map(|parent| contexts[*parent]).collect();
            let sees = state.join(&parents).unwrap();
            contexts[node] = state.write(sees, ranks[node], &self.diffs[node]).unwrap();
            state.release(sees);
        }
        (state, contexts)
    }

    fn digests(&self, state: &mut State, contexts: &[Context]) -> Vec<Digest> {
        contexts.iter().map(|context| state.digest(*context).unwrap()).collect()
    }
}

fn model<'a>(diffs: impl Iterator<Item = &'a Diff>) -> BTreeMap<String, Vec<u8>> {
    let mut map = BTreeMap::new();
    for (key, value) in diffs.flatten() {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
    map
}

proptest! {
    #[test]
    fn every_node_sees_what_its_ancestors_wrote(dag in dag()) {
        let (state, contexts) = dag.run(dag.by_haste(), &dag.ranks);
        for (context, visible) in contexts.iter().zip(dag.visible()) {
            let snapshot = state.snapshot(*context);
            let expected = model(visible.iter().map(|node| &dag.diffs[*node]));
            prop_assert_eq!(&contents(snapshot), &expected);
            for key in (0..7).map(|key| format!("key-{key}")) {
                prop_assert_eq!(snapshot.get(&key).unwrap(), expected.get(&key).map(|value| &value[..]));
            }
            let writers = visible.iter().filter(|node| !dag.diffs[**node].is_empty());
            let writers: Vec<Rank> = writers.map(|node| dag.ranks[*node]).collect();
            prop_assert_eq!(snapshot.writers().unwrap(), writers);
        }
    }

    #[test]
    fn neither_the_order_of_completion_nor_the_ranks_numbers_change_digests(dag in dag()) {
        let n = dag.parents.len();
        let (mut first, contexts) = dag.run(0..n, &dag.ranks);
        let digests = dag.digests(&mut first, &contexts);
        let (mut hasty, contexts) = dag.run(dag.by_haste(), &dag.ranks);
        prop_assert_eq!(&dag.digests(&mut hasty, &contexts), &digests);
        let dense: Vec<Rank> = (0..n as u64).map(Rank).collect();
        let (mut dense, contexts) = dag.run(0..n, &dense);
        prop_assert_eq!(dag.digests(&mut dense, &contexts), digests);
    }

    #[test]
    fn digests_tell_apart_what_was_written(dag in dag()) {
        let (mut state, contexts) = dag.run(0..dag.parents.len(), &dag.ranks);
        let digests = dag.digests(&mut state, &contexts);
        // What a writer wrote, without what it overwrote itself.
        let wrote = |node: &usize| -> BTreeMap<&String, &Option<Vec<u8>>> {
            dag.diffs[*node].iter().map(|(key, value)| (key, value)).collect()
        };
        let visible = dag.visible();
        let histories: Vec<Vec<_>> = visible
            .iter()
            .map(|nodes| nodes.iter().map(wrote).filter(|diff| !diff.is_empty()).collect())
            .collect();
        for (a, history) in histories.iter().enumerate() {
            for (b, other) in histories.iter().enumerate().skip(a) {
                prop_assert_eq!(digests[a] == digests[b], history == other);
            }
        }
    }

    #[test]
    fn equal_sets_of_writers_are_the_same_context(dag in dag(), picks in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let (mut state, contexts) = dag.run(dag.by_haste(), &dag.ranks);
        let mut parents: Vec<Context> = picks.iter().map(|pick| contexts[pick.index(contexts.len())]).collect();
        let joined = state.join(&parents).unwrap();
        parents.reverse();
        let one_by_one = parents.iter().fold(Context::EMPTY, |joined, parent| state.join(&[joined, *parent]).unwrap());
        prop_assert_eq!(joined, one_by_one);
        parents.push(joined);
        prop_assert_eq!(state.join(&parents).unwrap(), joined);
    }

    #[test]
    fn when_all_is_released_only_keys_and_diffs_are_left(dag in dag()) {
        let (mut state, contexts) = dag.run(dag.by_haste(), &dag.ranks);
        contexts.iter().for_each(|context| state.release(*context));
        // The same keys and diffs, of nodes that never saw each other.
        let mut alone = self::state();
        for node in dag.by_haste() {
            let context = alone.write(Context::EMPTY, dag.ranks[node], &dag.diffs[node]).unwrap();
            alone.release(context);
        }
        prop_assert_eq!(state.arena().live_bytes(), alone.arena().live_bytes());
    }
}

/// The value that a writer gives a key: readers can tell whether it is whole and whose it is.
fn signed(rank: u64, key: usize) -> Vec<u8> {
    let digest = Digest::of(format!("{rank} {key}").as_bytes());
    digest.0.repeat(1 + key % 3)
}

/// A reader in a mapping of its own, while the writer joins, writes, releases and recycles.
#[test]
fn a_reader_never_sees_half_a_version_or_another_context() {
    const KEYS: usize = 40;
    const STEPS: u64 = 300;
    let key = |key: usize| format!("key-{key}");
    let mut state = state();
    let arena = ArenaReader::read_only(state.arena().file()).unwrap();
    let (send, jobs) = mpsc::sync_channel::<(u64, Context, super::Ticket)>(8);
    let (done, finished) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for (rank, context, ticket) in jobs {
            let snapshot = Snapshot { arena: &arena, context };
            for index in 0..KEYS {
                assert_eq!(snapshot.get(&key(index)).unwrap(), Some(&signed(rank, index)[..]), "rank {rank}");
            }
            let all = contents(snapshot);
            let ours = (0..KEYS).map(|index| (key(index), signed(rank, index)));
            assert!(ours.into_iter().all(|(key, value)| all[&key] == value));
            assert_eq!(all.len() as u64, KEYS as u64 + rank, "a key of its own for each ancestor");
            done.send((context, ticket)).unwrap();
        }
    });
    let mut context = Context::EMPTY;
    for rank in 1..=STEPS {
        let common = (0..KEYS).map(|index| (key(index), Some(signed(rank, index))));
        let own = (format!("own-{rank}"), Some(vec![1]));
        let diff: Diff = common.chain([own]).collect();
        let next = state.write(context, Rank(rank << 32), &diff).unwrap();
        // A sibling, which nobody ever sees.
        let sibling = state.write(context, Rank((rank << 32) + 1), &diff).unwrap();
        state.release(sibling);
        state.release(context);
        context = next;
        state.retain(context);
        let ticket = state.reader_started();
        send.send((rank, context, ticket)).unwrap();
        for (context, ticket) in finished.try_iter() {
            state.reader_done(ticket);
            state.release(context);
        }
    }
    drop(send);
    reader.join().unwrap();
    assert_eq!(state.snapshot(context).writers().unwrap().len() as u64, STEPS);
}
