//! The scheduler without processes: its order, what follows from each event, and random runs to the end.

use std::collections::HashSet;

use forkyard_shared::ids::NodeId;
use proptest::prelude::*;

use crate::counts::Counts;
use crate::graph::{Graph, GraphBuilder};
use crate::schedule::{Scheduler, State, Urgency};
use crate::store::Outcome;

const ALIKE: Urgency = Urgency { priority: 0, remaining: 0.0 };

fn graph(needs: &[&[u32]]) -> Graph {
    let mut builder = GraphBuilder::new();
    needs.iter().for_each(|needs| builder.push(needs.iter().copied().map(NodeId)));
    builder.build().unwrap_or_else(|cycle| panic!("a cycle: {cycle:?}"))
}

fn scheduler<'g>(graph: &'g Graph, urgency: impl Fn(u32) -> Urgency) -> Scheduler<'g> {
    Scheduler::new(graph, (0..graph.len() as u32).map(urgency).collect(), |_| true)
}

/// Everything fresh has to be run.
fn look_up(scheduler: &mut Scheduler) {
    while let Some(node) = scheduler.next_fresh() {
        scheduler.must_run(node);
    }
}

/// The order in which nodes are taken, if each is done before the next.
fn order(scheduler: &mut Scheduler) -> Vec<u32> {
    let mut order = Vec::new();
    look_up(scheduler);
    while let Some(node) = scheduler.take() {
        scheduler.done(node, Outcome::Ran);
        order.push(node.0);
        look_up(scheduler);
    }
    order
}

fn numbers(nodes: Vec<NodeId>) -> Vec<u32> {
    let mut numbers: Vec<u32> = nodes.into_iter().map(|node| node.0).collect();
    numbers.sort_unstable();
    numbers
}

/// Takes a node that must be the next.
fn take(scheduler: &mut Scheduler, node: u32) -> NodeId {
    look_up(scheduler);
    assert_eq!(scheduler.take(), Some(NodeId(node)));
    NodeId(node)
}

#[test]
fn priority_comes_first_then_the_longest_way_to_the_end() {
    let graph = graph(&[&[], &[], &[], &[]]);
    let urgencies = [(0, 1.0), (0, 9.0), (1, 0.0), (-1, 99.0)];
    let urgency = |node: u32| {
        let (priority, remaining) = urgencies[node as usize];
        Urgency { priority, remaining }
    };
    assert_eq!(order(&mut scheduler(&graph, urgency)), [2, 1, 0, 3]);
}

#[test]
fn of_equals_the_freshest_comes_first() {
    // 1 and 2 wait from the start; 3 becomes ready by 0 and goes before the other.
    let graph = graph(&[&[], &[], &[], &[0]]);
    let mut scheduler = scheduler(&graph, |node| Urgency { priority: i32::from(node == 0), ..ALIKE });
    let order = order(&mut scheduler);
    assert_eq!(order[..2], [0, 3]);
}

#[test]
fn a_node_waits_for_all_it_needs() {
    let graph = graph(&[&[], &[], &[0, 1]]);
    let mut scheduler = scheduler(&graph, |node| Urgency { priority: -(node as i32), ..ALIKE });
    let first = take(&mut scheduler, 0);
    scheduler.done(first, Outcome::Ran);
    let second = take(&mut scheduler, 1);
    look_up(&mut scheduler);
    assert_eq!((scheduler.take(), scheduler.state(NodeId(2))), (None, State::Waiting));
    scheduler.done(second, Outcome::Cached);
    take(&mut scheduler, 2);
}

#[test]
fn what_nobody_asked_for_is_left_out() {
    let graph = graph(&[&[], &[0], &[]]);
    let mut scheduler = Scheduler::new(&graph, vec![ALIKE; 3], |node| node.0 < 2);
    assert_eq!(scheduler.wanted(), 2);
    assert_eq!(order(&mut scheduler), [0, 1]);
    assert_eq!(scheduler.state(NodeId(2)), State::Unwanted);
    assert!(scheduler.cancel_rest().is_empty());
}

#[test]
fn a_chain_is_offered_when_it_needs_nothing_outside_the_batch() {
    // 0 -> 1 -> 2, and 3 needs 1 and 4.
    let graph = graph(&[&[], &[0], &[1], &[1, 4], &[]]);
    let mut scheduler = scheduler(&graph, |node| Urgency { priority: i32::from(node == 0), ..ALIKE });
    let offered = |scheduler: &mut Scheduler, node: NodeId, accept: bool| {
        let mut offered = Vec::new();
        scheduler.chain(node, |user| {
            offered.push(user.0);
            accept
        });
        offered
    };
    let first = take(&mut scheduler, 0);
    assert_eq!(offered(&mut scheduler, first, true), [1]);
    assert_eq!(scheduler.state(NodeId(1)), State::Taken);
    assert_eq!(offered(&mut scheduler, NodeId(1), false), [2], "3 needs a node outside");
    assert_eq!(scheduler.state(NodeId(2)), State::Waiting, "it was refused");
    // 4 joins the batch: now 3 needs nothing outside.
    take(&mut scheduler, 4);
    assert_eq!(offered(&mut scheduler, NodeId(4), true), [3]);
    scheduler.end_chain();
    assert_eq!(scheduler.taken(), 4);
    // Given back, the chain waits again, and nothing of the batch is remembered.
    for node in [1, 3] {
        scheduler.release(NodeId(node));
        assert_eq!(scheduler.state(NodeId(node)), State::Waiting);
    }
    assert_eq!(offered(&mut scheduler, first, true), [1]);
    scheduler.end_chain();
}

#[test]
fn a_failure_blocks_everything_below_and_nothing_else() {
    let graph = graph(&[&[], &[0], &[1], &[], &[2, 3]]);
    let mut scheduler = scheduler(&graph, |node| Urgency { priority: -(node as i32), ..ALIKE });
    let first = take(&mut scheduler, 0);
    assert_eq!(numbers(scheduler.fail(first, Outcome::Failed)), [1, 2]);
    assert_eq!(order(&mut scheduler), [3]);
    assert_eq!(numbers(scheduler.take_left_out()), [4], "decided when all its needs were settled");
    let expected = Counts { ran: 1, failed: 1, blocked: 3, ..Counts::default() };
    assert_eq!(scheduler.counts(), expected);
    assert_eq!(scheduler.counts().failures(), 1);
}

#[test]
fn a_result_that_was_done_can_still_be_brought_down() {
    // 1 is in a queue when the result of 0 is thrown away.
    let graph = graph(&[&[], &[0], &[]]);
    let mut scheduler = scheduler(&graph, |node| Urgency { priority: -(node as i32), ..ALIKE });
    let first = take(&mut scheduler, 0);
    scheduler.done(first, Outcome::Ran);
    look_up(&mut scheduler);
    assert_eq!(numbers(scheduler.fail(first, Outcome::Failed)), [1]);
    assert_eq!(order(&mut scheduler), [2]);
    assert_eq!(scheduler.counts(), Counts { ran: 1, failed: 1, blocked: 1, ..Counts::default() });
}

#[test]
fn a_revived_node_runs_before_who_found_it_missing() {
    // 1 and 2 read 0; 1 finds the result gone while 2 is in a queue; 3 has had it.
    let graph = graph(&[&[], &[0], &[0], &[0]]);
    let urgency = |node: u32| Urgency { priority: [9, 5, 1, 7][node as usize], ..ALIKE };
    let mut scheduler = scheduler(&graph, urgency);
    let producer = take(&mut scheduler, 0);
    scheduler.done(producer, Outcome::Cached);
    let third = take(&mut scheduler, 3);
    scheduler.done(third, Outcome::Ran);
    let reader = take(&mut scheduler, 1);
    assert_eq!(scheduler.revive(producer, reader), Some(vec![NodeId(2)]));
    assert_eq!([1, 2].map(|node| scheduler.state(NodeId(node))), [State::Waiting; 2]);
    assert_eq!(scheduler.counts(), Counts { ran: 1, ..Counts::default() });
    assert_eq!(order(&mut scheduler), [0, 1, 2]);
    assert_eq!(scheduler.counts().ran, 4);
}

#[test]
fn two_readers_that_find_a_result_missing_revive_it_once() {
    let graph = graph(&[&[], &[0], &[0]]);
    let mut scheduler = scheduler(&graph, |node| Urgency { priority: -(node as i32), ..ALIKE });
    let producer = take(&mut scheduler, 0);
    scheduler.done(producer, Outcome::Cached);
    let readers = [take(&mut scheduler, 1), take(&mut scheduler, 2)];
    assert!(readers.iter().all(|reader| scheduler.revive(producer, *reader).is_some()));
    assert_eq!(scheduler.taken(), 0);
    assert_eq!(order(&mut scheduler), [0, 1, 2]);
}

#[test]
fn a_revived_node_that_fails_does_not_hold_up_who_had_its_result() {
    let graph = graph(&[&[], &[0], &[0], &[1]]);
    let mut scheduler = scheduler(&graph, |node| Urgency { priority: -(node as i32), ..ALIKE });
    for node in [0, 1] {
        let node = take(&mut scheduler, node);
        scheduler.done(node, Outcome::Cached);
    }
    let (early, late) = (take(&mut scheduler, 2), take(&mut scheduler, 3));
    assert!(scheduler.revive(NodeId(0), early).is_some());
    let failed = take(&mut scheduler, 0);
    assert_eq!(numbers(scheduler.fail(failed, Outcome::Failed)), [2]);
    // Now the result of 1 is found missing too, and its worker dies: it must be able to run again.
    assert!(scheduler.revive(NodeId(1), late).is_some());
    let again = take(&mut scheduler, 1);
    scheduler.release(again);
    assert_eq!(order(&mut scheduler), [1, 3]);
}

#[test]
fn a_node_that_failed_is_not_revived() {
    // 1 and 2 read 0, and both find its result gone; by the time 2 does, 0 has run again and failed.
    let graph = graph(&[&[], &[0], &[0], &[1]]);
    let mut scheduler = scheduler(&graph, |node| Urgency { priority: -(node as i32), ..ALIKE });
    let producer = take(&mut scheduler, 0);
    scheduler.done(producer, Outcome::Cached);
    let (first, second) = (take(&mut scheduler, 1), take(&mut scheduler, 2));
    assert!(scheduler.revive(producer, first).is_some());
    let failed = take(&mut scheduler, 0);
    assert_eq!(numbers(scheduler.fail(failed, Outcome::Failed)), [1, 3]);
    assert!(scheduler.revive(producer, second).is_none());
    scheduler.fail(second, Outcome::Blocked);
    assert_eq!(scheduler.counts(), Counts { failed: 1, blocked: 3, ..Counts::default() });
    assert!(scheduler.is_drained() && scheduler.taken() == 0);
}

#[test]
fn what_is_cancelled_does_not_come_again() {
    let graph = graph(&[&[], &[0], &[], &[]]);
    let mut scheduler = scheduler(&graph, |node| Urgency { priority: -(node as i32), ..ALIKE });
    let first = take(&mut scheduler, 0);
    scheduler.done(first, Outcome::Ran);
    look_up(&mut scheduler);
    assert_eq!(numbers(scheduler.cancel_rest()), [1, 2, 3]);
    assert!(scheduler.is_drained() && scheduler.take().is_none());
    assert_eq!(scheduler.counts(), Counts { ran: 1, cancelled: 3, ..Counts::default() });
}

/// Whatever happens: the counts add up, and no node goes before what it needs. (What is `revived` was done
/// once, which is enough for who needs it and does not read it.)
fn sanity_check(graph: &Graph, scheduler: &Scheduler, revived: &HashSet<NodeId>) {
    let nodes = || (0..graph.len()).map(NodeId::new);
    let states = |wanted: fn(State) -> bool| nodes().filter(|node| wanted(scheduler.state(*node))).count();
    assert_eq!(states(|state| matches!(state, State::Settled(_))), scheduler.counts().settled());
    assert_eq!(states(|state| state == State::Taken), scheduler.taken());
    assert_eq!(states(|state| state != State::Unwanted), scheduler.wanted());
    for node in nodes() {
        let done =
            |need: &NodeId| matches!(scheduler.state(*need), State::Settled(outcome) if outcome.is_done());
        let needs = graph.needs(node);
        match scheduler.state(node) {
            State::Ready => {
                let was_done = |need: &NodeId| done(need) || revived.contains(need);
                assert!(needs.iter().all(was_done), "{node:?} is ready too early");
            }
            State::Settled(outcome) if outcome.is_done() => {
                let begun = |need: &NodeId| done(need) || !matches!(scheduler.state(*need), State::Unwanted);
                assert!(needs.iter().all(begun), "{node:?} is done before what it needs");
            }
            State::Settled(Outcome::Blocked) => {
                assert!(!needs.iter().all(done), "{node:?} is blocked by nothing")
            }
            _ => {}
        }
    }
}

/// A random graph: each node needs some of those before it.
fn random_graph() -> impl Strategy<Value = Vec<Vec<u32>>> {
    let node = |n: u32| proptest::collection::vec(0..n.max(1), 0..if n == 0 { 1 } else { 4 });
    (1u32..40).prop_flat_map(move |nodes| (0..nodes).map(node).collect::<Vec<_>>())
}

proptest! {
    /// Recalled at once or looked up one by one: the same nodes are done, and the same are left to run.
    #[test]
    fn what_is_recalled_is_what_would_be_found(needs in random_graph(), stored in any::<u64>(), unwanted in 0u32..50) {
        let needs: Vec<&[u32]> = needs.iter().map(Vec::as_slice).collect();
        let graph = graph(&needs);
        let is_stored = |node: NodeId| stored >> node.0 & 1 != 0;
        let fresh = || Scheduler::new(&graph, vec![ALIKE; graph.len()], |node| node.0 < unwanted);
        let mut one_by_one = fresh();
        let mut left = HashSet::new();
        while let Some(node) = one_by_one.next_fresh() {
            if is_stored(node) {
                one_by_one.done(node, Outcome::Cached);
            } else {
                left.insert(node);
            }
        }
        let mut at_once = fresh();
        let recalled = at_once.recall(is_stored);
        prop_assert_eq!(at_once.counts(), one_by_one.counts());
        prop_assert_eq!(recalled.len(), at_once.counts().cached);
        prop_assert_eq!(at_once.sanity_check(), Vec::new());
        let ready: HashSet<NodeId> = std::iter::from_fn(|| at_once.next_fresh()).collect();
        prop_assert_eq!(ready, left);
        sanity_check(&graph, &at_once, &HashSet::new());
    }

    #[test]
    fn any_order_of_events_comes_to_an_end(
        needs in random_graph(),
        unwanted in 0u32..50,
        events in proptest::collection::vec((0u8..20, any::<usize>()), 400),
    ) {
        let needs: Vec<&[u32]> = needs.iter().map(Vec::as_slice).collect();
        let graph = graph(&needs);
        // What is wanted contains what it needs: needs come before.
        let urgency = (0..graph.len()).map(|n| Urgency { priority: (n % 3) as i32, ..ALIKE }).collect();
        let mut scheduler = Scheduler::new(&graph, urgency, |node| node.0 < unwanted.max(1));
        let (mut batch, mut revived) = (Vec::<NodeId>::new(), HashSet::new());
        let mut events = events.into_iter().chain(std::iter::repeat((7, 0)));
        let mut turns = 0;
        while scheduler.counts().settled() < scheduler.wanted() {
            turns += 1;
            prop_assert!(turns < 5000, "stuck");
            let (event, which) = events.next().expect("it has no end");
            let ready: Vec<NodeId> = batch
                .iter()
                .copied()
                // A worker runs a batch in order.
                .filter(|node| graph.needs(*node).iter().all(|need| !batch.contains(need)))
                .collect();
            match event {
                0 | 1 => if let Some(node) = scheduler.next_fresh() {
                    scheduler.hold(node);
                    scheduler.done(node, Outcome::Cached);
                },
                2..=5 => if let Some(node) = scheduler.next_fresh() {
                    scheduler.must_run(node);
                },
                6..=9 if ready.is_empty() || event < 8 => {
                    while let Some(node) = scheduler.next_fresh() {
                        scheduler.must_run(node);
                    }
                    if let Some(node) = scheduler.take() {
                        batch.push(node);
                        scheduler.chain(node, |user| { batch.push(user); true });
                        scheduler.end_chain();
                    } else if let Some(node) = ready.first() {
                        scheduler.done(*node, Outcome::Ran);
                        batch.retain(|other| other != node);
                    }
                }
                _ if ready.is_empty() => {}
                10 => {
                    // As an engine does it: first all the rest of the batch goes back, then the one fails.
                    let node = ready[which % ready.len()];
                    batch.drain(..).filter(|other| *other != node).for_each(|other| scheduler.release(other));
                    scheduler.fail(node, Outcome::Failed);
                }
                11 => batch.drain(..).for_each(|node| scheduler.release(node)),
                12 => {
                    // A worker finds a result gone.
                    let node = ready[which % ready.len()];
                    if let Some(need) = graph.needs(node).first() {
                        batch.drain(..).filter(|other| *other != node).for_each(|other| scheduler.release(other));
                        if scheduler.revive(*need, node).is_some() {
                            revived.insert(*need);
                        } else {
                            scheduler.fail(node, Outcome::Blocked);
                        }
                    }
                }
                _ => {
                    let node = ready[which % ready.len()];
                    scheduler.done(node, Outcome::Ran);
                    batch.retain(|other| *other != node);
                }
            }
            sanity_check(&graph, &scheduler, &revived);
        }
        prop_assert!(scheduler.is_drained() && scheduler.taken() == 0);
        prop_assert!(scheduler.cancel_rest().is_empty());
    }
}
