//! What the shape of a graph and the times of its nodes say before anything runs: levels, the critical path,
//! what so many workers can make of it. Only counts and adds; where the times come from is said here too.

use std::time::Duration;

use forkyard_shared::ids::NodeId;

use crate::crew::cores;
use crate::dry_run::{DryRun, Fate};
use crate::simulate::{Course, Demand, Load, Means, simulate};

/// The shape of what a run is about. Nodes that are stored are part of it.
pub(crate) struct Shape {
    pub edges: usize,
    /// Nodes by level: by the number of edges on the longest way to them.
    pub level_widths: Vec<usize>,
    /// The way of the largest sum of times; of equal ones that of the larger id, seen from its end.
    pub critical_path: Vec<NodeId>,
    pub critical_time: Duration,
    /// All times together.
    pub work: Duration,
}

/// What so many workers can make of it, if nothing but nodes takes time.
pub(crate) struct Forecast {
    pub workers: usize,
    /// How long what is not stored would take.
    pub makespan: Duration,
    /// How many times as fast as one worker these would run everything.
    pub speedup: f64,
}

impl Forecast {
    /// The part of the workers' time in which they would work.
    pub fn efficiency(&self) -> f64 {
        self.speedup / self.workers as f64
    }
}

/// How long each node takes.
pub(crate) struct Times {
    times: Vec<Duration>,
    /// Nodes of which nothing is known.
    pub guessed: usize,
}

impl Times {
    /// The time of the stored result, else the node's estimate, else the mean of its op in earlier runs, else a guess.
    pub fn of(dry: &DryRun) -> Times {
        let mut times = vec![Duration::ZERO; dry.graph.len()];
        let mut guessed = 0;
        for node in dry.wanted() {
            times[node.index()] = match dry.fate(node) {
                Fate::Cached(took) => took,
                Fate::Nothing | Fate::Unwanted => Duration::ZERO,
                Fate::Runs => {
                    let (expected, is_known) = dry.expected(node);
                    guessed += usize::from(!is_known);
                    expected
                }
            };
        }
        Times { times, guessed }
    }

    /// The same with something between the nodes.
    pub fn longer_by(&self, between: impl Fn(Duration) -> Duration) -> Times {
        let times = self.times.iter().map(|time| *time + between(*time)).collect();
        Times { times, guessed: self.guessed }
    }

    /// The time of a node.
    pub fn get(&self, node: NodeId) -> Duration {
        self.times[node.index()]
    }
}

impl Shape {
    /// The shape of a run.
    pub fn of(dry: &DryRun, times: &Times) -> Shape {
        let (mut edges, mut level_widths, mut work) = (0, Vec::new(), Duration::ZERO);
        let mut level = vec![0; dry.graph.len()];
        // The critical path to the end of each node: its length, and the node before.
        let mut way = vec![(Duration::ZERO, None); dry.graph.len()];
        let longer = |a: &(Duration, NodeId), b: &(Duration, NodeId)| {
            a.0.cmp(&b.0).then_with(|| dry.name(a.1).cmp(&dry.name(b.1)))
        };
        let mut end: Option<(Duration, NodeId)> = None;
        for node in dry.wanted() {
            let needs = dry.graph.needs(node);
            edges += needs.len();
            level[node.index()] = needs.iter().map(|need| level[need.index()] + 1).max().unwrap_or(0);
            if level_widths.len() <= level[node.index()] {
                level_widths.push(0);
            }
            level_widths[level[node.index()]] += 1;
            work += times.get(node);
            let before = needs.iter().map(|need| (way[need.index()].0, *need)).max_by(&longer);
            let length = before.map_or(Duration::ZERO, |(length, _)| length) + times.get(node);
            way[node.index()] = (length, before.map(|(_, need)| need));
            end = end.into_iter().chain([(length, node)]).max_by(&longer);
        }
        let mut critical_path: Vec<NodeId> =
            std::iter::successors(end.map(|(_, node)| node), |node| way[node.index()].1).collect();
        critical_path.reverse();
        let critical_time = end.map_or(Duration::ZERO, |(length, _)| length);
        Shape { edges, level_widths, critical_path, critical_time, work }
    }

    /// The most nodes of one level.
    pub fn width(&self) -> usize {
        self.level_widths.iter().copied().max().unwrap_or(0)
    }

    /// How many workers have something to do on average, if there are always enough.
    pub fn parallelism(&self) -> f64 {
        times_as_long(self.work, self.critical_time)
    }

    /// What so many workers can make of it.
    pub fn forecast(&self, dry: &DryRun, times: &Times, workers: usize) -> Forecast {
        let means = Means { workers, cores: cores(), budget: None, idle: 0 };
        let everything = course(dry, times, means, true);
        Forecast {
            workers,
            makespan: course(dry, times, means, false).makespan,
            speedup: times_as_long(self.work, everything.makespan),
        }
    }
}

/// How a run would go: of everything, or only of what is not stored.
pub(crate) fn course(dry: &DryRun, times: &Times, means: Means, everything: bool) -> Course {
    let load = |node, time| Demand::Worker(Load { time, cpu: dry.cpu(node), memory: dry.memory(node) });
    simulate(&dry.graph, dry.urgencies(|node| times.get(node)), means, |node| match dry.fate(node) {
        Fate::Unwanted => Demand::Unwanted,
        Fate::Nothing => Demand::Nothing,
        Fate::Cached(_) if everything => load(node, times.get(node)),
        Fate::Cached(_) => Demand::Nothing,
        Fate::Runs => load(node, times.get(node)),
    })
}

/// Where nothing takes any time, one worker is as good as many.
fn times_as_long(long: Duration, short: Duration) -> f64 {
    if short.is_zero() { 1.0 } else { long.as_secs_f64() / short.as_secs_f64() }
}
