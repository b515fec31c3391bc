//! How long a run would take and what it would hold, if nothing but its nodes took time: the scheduler and the admission by
//! memory themselves, with a clock that jumps and workers that are only counted. Does no I/O; knows nothing of stores, ops or
//! the cost of messages.
//!
//! A node computes first and waits then. Those that compute share the cores in equal parts; those that wait cost nothing. So
//! all that compute progress at one speed, and it is enough to keep one clock for them (virtual time), which runs slower the
//! more there are.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use forkyard_shared::ids::{NodeId, WorkerId};

use crate::admission::Admission;
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
    /// One worker.
    Worker(Load),
}

/// What a node takes of one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Load {
    pub time: Duration,
    /// The part of that in which it keeps a core busy.
    pub cpu: f64,
    /// The private memory that its worker holds meanwhile, in bytes.
    pub memory: u64,
}

/// What there is to run on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Means {
    /// At least one.
    pub workers: usize,
    pub cores: usize,
    /// What workers may hold together.
    pub budget: Option<u64>,
    /// What a worker holds that does nothing.
    pub idle: u64,
}

/// How it would go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Course {
    /// From the start of the first node to the end of the last.
    pub makespan: Duration,
    /// The most that all workers hold at once.
    pub private: u64,
}

/// Nanoseconds.
type Time = u64;

struct Clock {
    cores: f64,
    now: Time,
    /// How far those that compute have come.
    progress: f64,
    /// By the progress at which they are done computing.
    computing: BinaryHeap<Reverse<(Time, NodeId)>>,
    /// By the time at which they end.
    waiting: BinaryHeap<Reverse<(Time, NodeId)>>,
}

impl Clock {
    fn speed(&self) -> f64 {
        (self.cores / self.computing.len() as f64).min(1.0)
    }

    /// Goes to the next moment at which a node ends; none if nothing runs. `wait` is how long a node waits after it has
    /// computed.
    fn next(&mut self, wait: impl Fn(NodeId) -> Time) -> Option<NodeId> {
        loop {
            let computed = self.computing.peek().map(|Reverse((at, _))| {
                self.now + ((*at as f64 - self.progress).max(0.0) / self.speed()).ceil() as Time
            });
            let waited = self.waiting.peek().map(|Reverse((at, _))| *at);
            if waited.is_some_and(|waited| computed.is_none_or(|computed| waited <= computed)) {
                let Reverse((at, node)) = self.waiting.pop()?;
                self.advance(at);
                return Some(node);
            }
            self.advance(computed?);
            let Reverse((at, node)) = self.computing.pop()?;
            // Rounding must not leave it a part of a nanosecond.
            self.progress = self.progress.max(at as f64);
            match wait(node) {
                0 => return Some(node),
                wait => self.waiting.push(Reverse((self.now + wait, node))),
            }
        }
    }

    fn advance(&mut self, to: Time) {
        if !self.computing.is_empty() {
            self.progress += (to - self.now) as f64 * self.speed();
        }
        self.now = to;
    }

    fn start(&mut self, node: NodeId, computes: Time, waits: Time) {
        match computes {
            0 => self.waiting.push(Reverse((self.now + waits, node))),
            computes => self.computing.push(Reverse((self.progress as Time + computes, node))),
        }
    }
}

/// Runs it.
pub(crate) fn simulate(
    graph: &Graph,
    urgency: Vec<Urgency>,
    means: Means,
    demand: impl Fn(NodeId) -> Demand,
) -> Course {
    let load = |node: NodeId| match demand(node) {
        Demand::Worker(load) => load,
        Demand::Unwanted | Demand::Nothing => Load::default(),
    };
    let parts = |node: NodeId| {
        let load = load(node);
        let time = load.time.as_nanos() as Time;
        let computes = ((time as f64 * load.cpu.clamp(0.0, 1.0)) as Time).min(time);
        (computes, time - computes)
    };
    let wanted = |node: NodeId| !matches!(demand(node), Demand::Unwanted);
    let mut scheduler = Scheduler::new(graph, urgency, wanted);
    let workers = means.workers.max(1);
    let mut memory = Admission::new(means.budget, workers);
    let mut free: Vec<WorkerId> = (0..workers).rev().map(WorkerId::new).collect();
    let mut on = vec![WorkerId(0); graph.len()];
    let (cores, now) = (means.cores.max(1) as f64, 0);
    let mut clock =
        Clock { cores, now, progress: 0.0, computing: BinaryHeap::new(), waiting: BinaryHeap::new() };
    let (mut held, mut most) = (0, 0);
    loop {
        while let Some(node) = scheduler.next_fresh() {
            match demand(node) {
                Demand::Worker(_) => scheduler.must_run(node),
                Demand::Nothing | Demand::Unwanted => scheduler.done(node, Outcome::Cached),
            }
        }
        while let Some(&worker) = free.last() {
            if memory.is_anyone_waiting()
                && let Some(node) = memory.next_to_start()
            {
                scheduler.unhold(node);
            }
            let Some(node) = scheduler.take() else { break };
            let bytes = load(node).memory;
            if !memory.admits(node, bytes, worker) {
                memory.wait(node, bytes);
                continue;
            }
            free.pop();
            memory.start(node, bytes, worker);
            held += bytes.saturating_sub(means.idle);
            most = most.max(held);
            on[node.index()] = worker;
            let (computes, waits) = parts(node);
            clock.start(node, computes, waits);
        }
        let Some(node) = clock.next(|node| parts(node).1) else {
            let private = workers as u64 * means.idle + most;
            return Course { makespan: Duration::from_nanos(clock.now), private };
        };
        let worker = on[node.index()];
        memory.reserve(worker, 0);
        held -= load(node).memory.saturating_sub(means.idle);
        free.push(worker);
        scheduler.done(node, Outcome::Ran);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::GraphBuilder;

    const UNWANTED: i64 = -1;
    const STORED: i64 = 0;

    fn means(workers: usize) -> Means {
        Means { workers, cores: 1, budget: None, idle: 0 }
    }

    fn run(nodes: &[(&[u32], i64)], means: Means, load: impl Fn(u64) -> Load) -> Course {
        let mut builder = GraphBuilder::new();
        nodes.iter().for_each(|(needs, _)| builder.push(needs.iter().copied().map(NodeId)));
        let graph = builder.build().unwrap();
        let demand = |node: NodeId| match nodes[node.index()].1 {
            UNWANTED => Demand::Unwanted,
            STORED => Demand::Nothing,
            seconds => Demand::Worker(load(seconds as u64)),
        };
        let remaining = graph.remaining(|node| nodes[node.index()].1.max(0) as f32);
        let urgency = remaining.into_iter().map(|remaining| Urgency { priority: 0, remaining }).collect();
        simulate(&graph, urgency, means, demand)
    }

    /// The makespan in seconds of nodes that need these and wait so many seconds.
    fn seconds(nodes: &[(&[u32], i64)], workers: usize) -> u64 {
        let waits = |seconds| Load { time: Duration::from_secs(seconds), ..Load::default() };
        run(nodes, means(workers), waits).makespan.as_secs()
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

    #[test]
    fn nodes_that_compute_share_the_cores() {
        let wide = [(&[][..], 2); 8];
        let computes = |cpu| move |seconds| Load { time: Duration::from_secs(seconds), cpu, memory: 0 };
        let on = |workers, cores, cpu| {
            run(&wide, Means { cores, ..means(workers) }, computes(cpu)).makespan.as_secs_f64()
        };
        assert_eq!([1, 2, 8].map(|workers| on(workers, 2, 1.0)), [16.0, 8.0, 8.0]);
        // Half of the time each waits: two workers are better than one, for one core too.
        assert_eq!([on(1, 1, 0.5), on(8, 8, 0.5)], [16.0, 2.0]);
        let shared = on(8, 1, 0.5);
        assert!((8.0..9.5).contains(&shared), "{shared}");
    }

    #[test]
    fn memory_limits_who_runs_at_once() {
        let wide = [(&[][..], 1); 6];
        let holds = |seconds| Load { time: Duration::from_secs(seconds), cpu: 0.0, memory: 40 };
        let forecast = run(&wide, Means { budget: Some(100), idle: 10, ..means(6) }, holds);
        assert_eq!(forecast.makespan.as_secs(), 3, "two at a time");
        assert_eq!(forecast.private, 6 * 10 + 2 * 30);
        let forecast = run(&wide, Means { idle: 10, ..means(6) }, holds);
        assert_eq!((forecast.makespan.as_secs(), forecast.private), (1, 6 * 40));
    }
}
