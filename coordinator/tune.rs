//! How many workers are worth having: what memory allows, and how long a run would take with each number. Only counts;
//! what nodes take was measured by somebody else.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::analysis::{Times, course};
use crate::crew::cores;
use crate::dry_run::{DryRun, Fate};
use crate::memory::{Budget, WORKER_BYTES};
use crate::simulate::{Load, Means};
use crate::store::Shares;

/// More workers that make a run shorter by less than this part are not worth it.
const GAIN: f64 = 0.03;

/// Numbers of workers that are looked at, as far as they make sense; from these on in doublings.
const FIRST: [usize; 8] = [1, 2, 3, 4, 6, 8, 12, 16];

/// More are not looked at.
const WORKERS_MAX: usize = 1024;

/// A node that keeps a core busy for less than this part of its time waits for something else.
const WAITS_BELOW: f64 = 0.5;

/// From the command to the first node.
const START: Duration = Duration::from_millis(15);

/// What lies between two nodes on one worker: it reports, the coordinator wakes up, chooses, sends, and the worker wakes up.
/// Short nodes travel together, and share that.
const BETWEEN: Duration = Duration::from_micros(150);

/// What the coordinator touches of its own code and buffers in a run that lasts, and not in a sample.
const TOUCHED_LATER: u64 = 2000 << 10;

/// What a worker costs the coordinator and the zygote.
const KEPT_FOR_WORKER: u64 = 100 << 10;

/// What is known of one kind of node.
pub(crate) struct Kind {
    pub name: String,
    pub nodes: usize,
    /// Mean of those that the run is about.
    pub time: Duration,
    /// None if nobody has measured it.
    pub cpu: Option<f64>,
    /// The most that a worker holds while it runs one; 0 if nobody knows.
    pub private: u64,
}

impl Kind {
    /// Whether it waits, if anybody knows.
    pub fn waits(&self) -> Option<bool> {
        self.cpu.map(|cpu| cpu < WAITS_BELOW)
    }
}

/// A number of workers.
pub(crate) struct Row {
    pub workers: usize,
    pub makespan: Duration,
    /// All processes together, artifacts once.
    pub bytes: u64,
    /// The same if each worker had its own copy of the artifacts.
    pub naive: u64,
}

/// The whole answer.
pub(crate) struct Tuning {
    pub budget: Budget,
    pub kinds: Vec<Kind>,
    /// What one worker takes, running whatever takes most.
    pub private: u64,
    /// How many of those fit.
    pub fits: usize,
    pub rows: Vec<Row>,
    /// The row from which on more workers gain nothing worth it.
    pub recommended: usize,
}

impl Tuning {
    /// Of a run of everything, on these numbers of workers or on some that make sense.
    pub fn of(dry: &DryRun, times: &Times, budget: Budget, shares: Shares, asked: &[usize]) -> Tuning {
        let kinds = kinds(dry, times);
        let idle = shares.worker_bytes + KEPT_FOR_WORKER;
        let private = kinds.iter().map(|kind| kind.private).max().unwrap_or(0).max(idle);
        let fits = budget.fits(private);
        let width =
            dry.wanted().filter(|node| dry.fate(*node) != Fate::Nothing).count().clamp(1, WORKERS_MAX);
        let mut counts = if asked.is_empty() { numbers(fits.min(width)) } else { asked.to_vec() };
        counts.sort();
        counts.dedup();
        let left = budget.for_workers();
        let spaced = times.longer_by(|time| BETWEEN.min(time / 10));
        let row = |workers: usize| {
            let means = Means { workers, cores: cores(), budget: Some(left), idle };
            let course = course(dry, &spaced, means, true);
            let (fixed, artifacts) = (shares.fixed_bytes + TOUCHED_LATER, budget.artifacts);
            Row {
                workers,
                makespan: START + course.makespan,
                bytes: fixed + artifacts + course.private,
                naive: fixed + workers as u64 * artifacts + course.private,
            }
        };
        let rows: Vec<Row> = counts.into_iter().map(row).collect();
        let recommended = knee(&rows, fits);
        Tuning { budget, kinds, private, fits, rows, recommended }
    }

    /// The row that is recommended.
    pub fn best(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.workers == self.recommended)
    }
}

/// What nothing is known of: a small process.
impl Default for Shares {
    fn default() -> Shares {
        Shares { fixed_bytes: 16 * WORKER_BYTES, worker_bytes: WORKER_BYTES }
    }
}

fn kinds(dry: &DryRun, times: &Times) -> Vec<Kind> {
    let mut kinds: BTreeMap<String, (Kind, Duration)> = BTreeMap::new();
    for node in dry.wanted().filter(|node| dry.fate(*node) != Fate::Nothing) {
        let name = dry.kind_name(node);
        let new = || Kind {
            name: name.into(),
            nodes: 0,
            time: Duration::ZERO,
            cpu: dry.known_cpu(node),
            private: 0,
        };
        let (kind, all) = kinds.entry(name.into()).or_insert_with(|| (new(), Duration::ZERO));
        let Load { time, memory, .. } = Load { time: times.get(node), memory: dry.memory(node), cpu: 0.0 };
        kind.nodes += 1;
        kind.private = kind.private.max(memory);
        *all += time;
    }
    let mean = |(mut kind, all): (Kind, Duration)| {
        kind.time = all / kind.nodes.max(1) as u32;
        kind
    };
    kinds.into_values().map(mean).collect()
}

/// 1, 2, 3, 4, 6, 8, 12, 16, 32, ... and the last that makes sense.
fn numbers(most: usize) -> Vec<usize> {
    let most = most.max(1);
    let doubled = (5..).map(|power| 1 << power);
    let mut numbers: Vec<usize> =
        FIRST.into_iter().chain(doubled).take_while(|number| *number < most).collect();
    numbers.push(most);
    numbers
}

/// The least number of workers that fits and is almost as quick as the quickest that fits.
fn knee(rows: &[Row], fits: usize) -> usize {
    let fitting = || rows.iter().filter(|row| row.workers <= fits.max(1));
    let best = fitting().map(|row| row.makespan).min().unwrap_or_default();
    let good = fitting().find(|row| row.makespan.as_secs_f64() <= best.as_secs_f64() * (1.0 + GAIN));
    good.map_or(1, |row| row.workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_workers_to_look_at() {
        assert_eq!(numbers(0), [1]);
        assert_eq!(numbers(5), [1, 2, 3, 4, 5]);
        assert_eq!(numbers(100), [1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 100]);
    }

    #[test]
    fn the_knee_is_the_least_that_is_almost_as_quick() {
        let rows = [(1, 100), (2, 50), (4, 26), (8, 25), (16, 20)].map(|(workers, secs)| Row {
            workers,
            makespan: Duration::from_secs(secs),
            bytes: 0,
            naive: 0,
        });
        assert_eq!([knee(&rows, 100), knee(&rows, 8), knee(&rows, 4), knee(&rows, 0)], [16, 8, 4, 1]);
        assert_eq!(knee(&rows[..4], 5), 4);
    }
}
