//! What nodes take, by op: time, processor time and private memory, learnt while running; and what follows for the size
//! of a batch.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use forkyard_shared::ids::{NodeId, OpId};
use forkyard_shared::protocol::Cost;
use serde::{Deserialize, Serialize};

use crate::nodes::Nodes;
use crate::stats::{Series, Summary};

/// A batch should keep a worker busy for about this long: enough to make a message's cost small, and
/// little enough that nobody waits for long behind it.
const BATCH_SECONDS: f64 = 1e-3;

/// More tasks than this gain nothing.
pub(crate) const BATCH_MAX_TASKS: usize = 256;

/// An op this quick may have a second batch wait behind the first, so that its worker never idles
/// between two messages.
const QUEUE_SECONDS: f64 = 10e-3;

/// Workers do not look at the memory of a task that took less.
const QUICK_SECONDS: f64 = 3e-3;

/// What a node costs of which nothing is known, in seconds. Equal for all, it makes the longest way the
/// one of most hops.
const UNKNOWN_SECONDS: f64 = 1e-3;

/// So many measurements of memory are worth more than what an earlier run says.
const MEASURED_ENOUGH: u64 = 8;

/// Less than this is no more than an impression.
const SEEN_ENOUGH: Duration = Duration::from_millis(50);

/// Nobody knows what a node takes to the byte.
const UNDERSTATED_FROM: f64 = 1.25;

/// What is known by kind of node: by op, of Python by function, of commands by program.
pub(crate) struct Costs {
    kinds: Vec<KindCost>,
    /// Tasks in a batch at the most.
    batch_max: usize,
    names: Vec<String>,
    /// By function or program.
    by_label: HashMap<String, CostKind>,
}

/// The number of a kind of node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CostKind(usize);

#[derive(Clone, Default)]
struct KindCost {
    /// From earlier runs.
    learnt: Option<Learnt>,
    /// A moving average of this run, in seconds.
    recent: Option<f64>,
    duration_ns: Series,
    cpu_ns: Series,
    private: Series,
    /// The most that one took in this run.
    private_max: u64,
    /// By how much nodes that said what they take have taken more.
    understated: f64,
    /// Time of tasks whose processor time is known but for what they waited for a core; that; and what they waited.
    timed_ns: f64,
    busy_ns: f64,
    delayed_ns: f64,
    /// For how long workers were looked at that ran one, and for how long they wanted a core.
    seen: Duration,
    wanted: Duration,
}

/// What one run tells the next of an op.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Learnt {
    /// Mean time of a node that need not wait for a core.
    pub seconds: f64,
    /// The part of that in which it kept a core busy; 1 is a core, more are several.
    pub cpu: f64,
    /// The most private memory that a worker held while it ran one.
    pub private_bytes: u64,
}

/// What a run measured of an op.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpStats {
    pub seconds: Summary,
    /// Of tasks that took long enough to be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<Summary>,
    /// The same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_bytes: Option<Summary>,
}

impl KindCost {
    /// The part of their time in which tasks did not wait for a core.
    fn own_time(&self) -> f64 {
        if self.delayed_ns > 0.0 { self.timed_ns / (self.timed_ns + self.delayed_ns) } else { 1.0 }
    }
}

impl Costs {
    /// Starts with what earlier runs measured of ops, and of the functions and programs that the plan calls.
    pub fn new<'n>(
        ops: impl Iterator<Item = &'n str>,
        labels: &[&str],
        learnt: &BTreeMap<String, Learnt>,
    ) -> Costs {
        let mut names: Vec<String> = ops.map(String::from).collect();
        let mut by_label = HashMap::new();
        for label in labels {
            by_label.entry(label.to_string()).or_insert_with(|| {
                names.push(label.to_string());
                CostKind(names.len() - 1)
            });
        }
        let kind = |name: &String| KindCost { learnt: learnt.get(name).copied(), ..KindCost::default() };
        Costs { kinds: names.iter().map(kind).collect(), batch_max: BATCH_MAX_TASKS, names, by_label }
    }

    /// The kind of a node of this op, which calls this function or runs this program.
    pub fn kind(&self, op: OpId, label: Option<&str>) -> CostKind {
        let labelled = label.and_then(|label| self.by_label.get(label));
        labelled.copied().unwrap_or(CostKind(op.index()))
    }

    /// The name of its op or function.
    pub fn name(&self, kind: CostKind) -> &str {
        &self.names[kind.0]
    }

    /// The kind of a node.
    pub fn kind_of(&self, nodes: &Nodes, node: NodeId) -> CostKind {
        self.kind(nodes.op(node), nodes.label(node))
    }

    /// No batch is to have more tasks.
    pub fn limit_batches(&mut self, most: usize) {
        self.batch_max = most;
    }

    /// A node of this kind took so long, and cost this.
    pub fn learn(&mut self, kind: CostKind, duration_ns: u64, cost: Option<Cost>) {
        let known = &mut self.kinds[kind.0];
        let seconds = duration_ns as f64 / 1e9;
        known.recent = Some(known.recent.map_or(seconds, |recent| 0.8 * recent + 0.2 * seconds));
        known.duration_ns.add(duration_ns);
        let Some(Cost { cpu_ns, delayed_ns, private }) = cost else { return };
        known.cpu_ns.add(cpu_ns);
        known.timed_ns += duration_ns.saturating_sub(delayed_ns) as f64;
        known.busy_ns += cpu_ns as f64;
        known.delayed_ns += delayed_ns as f64;
        if let Some(private) = private {
            known.private.add(private.peak);
            self.hold(kind, private.peak);
        }
    }

    /// A node of this kind that said it would take so much memory takes this.
    pub fn compare(&mut self, kind: CostKind, said: u64, takes: u64) {
        let factor = takes as f64 / said.max(1) as f64;
        let known = &mut self.kinds[kind.0];
        if factor > UNDERSTATED_FROM && factor > known.understated {
            known.understated = factor;
        }
    }

    /// What a node of this kind that says it takes so much memory is to be expected to take.
    pub fn corrected(&self, kind: CostKind, said: u64) -> u64 {
        match self.kinds[kind.0].understated {
            0.0 => said,
            factor => (said as f64 * factor) as u64,
        }
    }

    /// A worker holds this much private memory while it runs a node of this kind.
    pub fn hold(&mut self, kind: CostKind, private: u64) {
        let known = &mut self.kinds[kind.0];
        known.private_max = known.private_max.max(private);
    }

    /// The most private memory that a worker held while it ran a node of this kind; 0 if nobody knows. Earlier runs
    /// count until this one has measured enough.
    pub fn private_max(&self, kind: CostKind) -> u64 {
        let known = &self.kinds[kind.0];
        match known.learnt {
            Some(learnt) if known.private.count() < MEASURED_ENOUGH => {
                known.private_max.max(learnt.private_bytes)
            }
            _ => known.private_max,
        }
    }

    /// How many nodes of this kind this run has measured.
    pub fn count(&self, kind: CostKind) -> u64 {
        self.kinds[kind.0].duration_ns.count()
    }

    /// A worker was looked at for so long while it ran a node of this kind, and so long its processes wanted a core.
    pub fn watched(&mut self, kind: CostKind, seen: Duration, wanted: Duration) {
        let known = &mut self.kinds[kind.0];
        (known.seen, known.wanted) = (known.seen + seen, known.wanted + wanted);
    }

    /// The part of their time in which nodes of this kind keep a core busy, or would if they had one, if anybody knows.
    /// What was seen comes first: what a command has waited for a core is known in no other way.
    pub fn cpu(&self, kind: CostKind) -> Option<f64> {
        let known = &self.kinds[kind.0];
        let seen = (known.seen >= SEEN_ENOUGH).then(|| known.wanted.div_duration_f64(known.seen));
        let measured = (known.timed_ns > 0.0).then(|| known.busy_ns / known.timed_ns);
        seen.or(measured).or(known.learnt.map(|learnt| learnt.cpu))
    }

    /// Whether nodes of this kind are over too soon to be asked for their memory.
    pub fn is_quick(&self, kind: CostKind) -> bool {
        self.kinds[kind.0].recent.is_some_and(|seconds| seconds < QUICK_SECONDS)
    }

    /// What a node of this kind probably takes: for the order of nodes.
    pub fn expected(&self, kind: CostKind) -> f64 {
        self.known(kind).unwrap_or(UNKNOWN_SECONDS)
    }

    /// The same, if anything is known of the kind.
    pub fn known(&self, kind: CostKind) -> Option<f64> {
        let cost = &self.kinds[kind.0];
        cost.recent.or(cost.learnt.map(|learnt| learnt.seconds))
    }

    /// How many nodes of this kind go into a batch when so many are runnable for so many workers. Only what
    /// was measured in this run makes batches: an op may have changed since the last.
    pub fn batch(&self, kind: CostKind, runnable: usize, workers: usize) -> usize {
        let Some(seconds) = self.kinds[kind.0].recent else { return 1 };
        let by_time = (BATCH_SECONDS / seconds.max(1e-9)) as usize;
        let mut limit = by_time.clamp(1, self.batch_max);
        // What is too little to be worth a second worker's wake-up stays together.
        if seconds * runnable as f64 > 100e-6 {
            limit = limit.min(runnable.div_ceil(workers).max(1));
        }
        limit
    }

    /// Whether a batch of this kind may wait behind another.
    pub fn may_queue(&self, kind: CostKind) -> bool {
        self.kinds[kind.0].recent.is_some_and(|seconds| seconds < QUEUE_SECONDS)
    }

    /// What this run and earlier ones know of each kind, by the name of its op or function.
    pub fn learnt(&self) -> BTreeMap<String, Learnt> {
        let of = |kind: usize| {
            let known = &self.kinds[kind];
            let seconds = match known.duration_ns.count() {
                0 => known.learnt?.seconds,
                _ => known.duration_ns.mean() / 1e9 * known.own_time(),
            };
            // What is too short to be asked is taken to compute.
            let cpu = self.cpu(CostKind(kind)).unwrap_or(1.0);
            let before = known.learnt.map_or(0, |learnt| learnt.private_bytes);
            let private_bytes = if known.private_max > 0 { known.private_max } else { before };
            Some(Learnt { seconds, cpu, private_bytes })
        };
        (0..self.kinds.len()).filter_map(|kind| Some((self.names[kind].clone(), of(kind)?))).collect()
    }

    /// What this run measured of each kind that ran, by the name of its op or function.
    pub fn stats(&self) -> BTreeMap<String, OpStats> {
        let stats = |known: &KindCost| {
            Some(OpStats {
                seconds: known.duration_ns.summary(1e9)?,
                cpu_seconds: known.cpu_ns.summary(1e9),
                private_bytes: known.private.summary(1.0),
            })
        };
        let all = self.names.iter().zip(&self.kinds);
        all.filter_map(|(name, known)| Some((name.clone(), stats(known)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_core_computes() {
        let mut costs = Costs::new(["spin", "exec"].into_iter(), &[], &BTreeMap::new());
        let (spin, exec) = (CostKind(0), CostKind(1));
        let cost = |cpu_ns, delayed_ns| Some(Cost { cpu_ns, delayed_ns, private: None });
        // Eight on a core.
        costs.learn(spin, 8_000_000_000, cost(1_000_000_000, 7_000_000_000));
        assert_eq!(costs.cpu(spin), Some(1.0));
        assert_eq!(costs.learnt()["spin"], Learnt { seconds: 1.0, cpu: 1.0, private_bytes: 0 });
        costs.learn(exec, 8_000_000_000, cost(1_000_000_000, 0));
        assert_eq!(costs.cpu(exec), Some(0.125));
        costs.watched(exec, Duration::from_secs(2), Duration::from_secs(2));
        assert_eq!(costs.cpu(exec), Some(1.0), "what was seen of it");
    }

    #[test]
    fn batches_fit_the_duration() {
        let mut costs = Costs::new(["noop"].into_iter(), &[], &BTreeMap::new());
        let op = CostKind(0);
        assert_eq!((costs.batch(op, 1000, 2), costs.may_queue(op)), (1, false));
        costs.learn(op, 100, None);
        assert_eq!((costs.batch(op, 100_000, 2), costs.may_queue(op)), (BATCH_MAX_TASKS, true));
        assert_eq!(costs.batch(op, 100, 2), BATCH_MAX_TASKS, "too little to share");
        let mut costs = Costs::new(["noop"].into_iter(), &[], &BTreeMap::new());
        costs.learn(op, 100_000, None);
        assert_eq!((costs.batch(op, 1000, 2), costs.batch(op, 6, 2)), (10, 3));
        costs.learn(op, 10_000_000_000, None);
        assert_eq!((costs.batch(op, 1000, 2), costs.may_queue(op)), (1, false));
    }
}
