//! How long a run would take if nothing but its nodes took time: the scheduler itself, with a clock that
//! jumps and workers that are only counted. Does no I/O; knows nothing of stores, ops or the cost of messages.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use forkyard_shared::ids::NodeId;

use crate::graph::Graph;
use crate::schedule::{Scheduler, Urgency};
use crate::store::Outcome;

/// What a node asks of the workers.
#[derive(Clone, Copy)]
pub(crate) enum Demand {
    /// It is no part of the run.
    Unwanted,
    /// Its result is there.
    Nothing,
    /// One worker, for so long.
    Worker(Duration),
}

/// The time from the start of the first node to the end of the last, on so many workers. (At least one.)
pub(crate) fn makespan(
    graph: &Graph,
    urgency: Vec<Urgency>,
    workers: usize,
    demand: impl Fn(NodeId) -> Demand,
) -> Duration {
    let wanted = |node: NodeId| !matches!(demand(node), Demand::Unwanted);
    let mut scheduler = Scheduler::new(graph, urgency, wanted);
    let mut running: BinaryHeap<Reverse<(Duration, NodeId)>> = BinaryHeap::new();
    let mut now = Duration::ZERO;
    loop {
        while let Some(node) = scheduler.next_fresh() {
            match demand(node) {
                Demand::Worker(_) => scheduler.must_run(node),
                Demand::Nothing | Demand::Unwanted => scheduler.done(node, Outcome::Cached),
            }
        }
        while running.len() < workers.max(1)
            && let Some(node) = scheduler.take()
        {
            if let Demand::Worker(time) = demand(node) {
                running.push(Reverse((now + time, node)));
            }
        }
        let Some(Reverse((end, node))) = running.pop() else { return now };
        now = end;
        scheduler.done(node, Outcome::Ran);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::GraphBuilder;

    const UNWANTED: i64 = -1;
    const STORED: i64 = 0;

    /// The makespan in seconds of nodes that need these and take so many seconds.
    fn seconds(nodes: &[(&[u32], i64)], workers: usize) -> u64 {
        let mut builder = GraphBuilder::new();
        nodes.iter().for_each(|(needs, _)| builder.push(needs.iter().copied().map(NodeId)));
        let graph = builder.build().unwrap();
        let demand = |node: NodeId| match nodes[node.index()].1 {
            UNWANTED => Demand::Unwanted,
            STORED => Demand::Nothing,
            seconds => Demand::Worker(Duration::from_secs(seconds as u64)),
        };
        let remaining = graph.remaining(|node| nodes[node.index()].1.max(0) as f32);
        let urgency = remaining.into_iter().map(|remaining| Urgency { priority: 0, remaining }).collect();
        makespan(&graph, urgency, workers, demand).as_secs()
    }

    #[test]
    fn a_chain_takes_its_length_on_any_number_of_workers() {
        let chain: &[(&[u32], i64)] = &[(&[], 1), (&[0], 2), (&[1], 3)];
        assert_eq!([1, 2, 16].map(|workers| seconds(chain, workers)), [6, 6, 6]);
    }

    #[test]
    fn independent_nodes_share_the_workers() {
        let wide = [(&[][..], 2); 10];
        assert_eq!([1, 2, 3, 10, 99].map(|workers| seconds(&wide, workers)), [20, 10, 8, 2, 2]);
        assert_eq!(seconds(&wide, 0), 20, "less than one worker is none to count with");
    }

    #[test]
    fn the_longest_way_goes_first() {
        // The chain of 0 and 4 beside three short ones: begun last, it would end at 1 + 2 + 3.
        let nodes: &[(&[u32], i64)] = &[(&[], 2), (&[], 1), (&[], 1), (&[], 1), (&[0], 3)];
        assert_eq!(seconds(nodes, 2), 5);
    }

    #[test]
    fn stored_and_unwanted_nodes_take_no_time() {
        let nodes: &[(&[u32], i64)] = &[(&[], STORED), (&[0], 2), (&[1], UNWANTED)];
        assert_eq!(seconds(nodes, 1), 2);
        assert_eq!(seconds(&[(&[], STORED), (&[0], STORED)], 1), 0);
    }
}
