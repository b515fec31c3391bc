//! How long nodes take, by op: learnt while running, and what follows for the size of a batch.

use std::collections::HashMap;
use std::rc::Rc;

use forkyard_shared::ids::{NodeId, OpId};

use crate::code::Call;
use crate::nodes::Nodes;

/// A batch should keep a worker busy for about this long: enough to make a message's cost small, and
/// little enough that nobody waits for long behind it.
const BATCH_SECONDS: f64 = 1e-3;

/// More tasks than this gain nothing.
pub(crate) const BATCH_MAX_TASKS: usize = 256;

/// An op this quick may have a second batch wait behind the first, so that its worker never idles
/// between two messages.
const QUEUE_SECONDS: f64 = 10e-3;

/// What a node costs of which nothing is known, in seconds. Equal for all, it makes the longest way the
/// one of most hops.
const UNKNOWN_SECONDS: f64 = 1e-3;

/// Durations by kind of node: by op, and of Python by function.
pub(crate) struct Costs {
    kinds: Vec<KindCost>,
    names: Vec<String>,
    of_calls: HashMap<String, CostKind>,
}

/// The number of a kind of node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CostKind(usize);

#[derive(Clone, Copy, Default)]
struct KindCost {
    /// From earlier runs.
    expected: Option<f64>,
    /// A moving average of this run.
    recent: Option<f64>,
    sum: f64,
    count: u64,
}

impl Costs {
    /// Starts with what earlier runs measured of ops, and of the functions that the plan calls.
    pub fn new<'n>(
        ops: impl Iterator<Item = &'n str>,
        calls: &[&Rc<Call>],
        expected: impl Fn(&str) -> Option<f64>,
    ) -> Costs {
        let mut names: Vec<String> = ops.map(String::from).collect();
        let mut of_calls = HashMap::new();
        for call in calls {
            of_calls.entry(call.text.clone()).or_insert_with(|| {
                names.push(call.text.clone());
                CostKind(names.len() - 1)
            });
        }
        let kinds = names.iter().map(|name| KindCost { expected: expected(name), ..KindCost::default() });
        Costs { kinds: kinds.collect(), names, of_calls }
    }

    /// The kind of a node of this op, which calls this function.
    pub fn kind(&self, op: OpId, call: Option<&Rc<Call>>) -> CostKind {
        let of_call = call.and_then(|call| self.of_calls.get(&call.text));
        of_call.copied().unwrap_or(CostKind(op.index()))
    }

    /// The kind of a node.
    pub fn kind_of(&self, nodes: &Nodes, node: NodeId) -> CostKind {
        self.kind(nodes.op(node), nodes.call(node))
    }

    /// A node of this kind took so long.
    pub fn learn(&mut self, kind: CostKind, seconds: f64) {
        let cost = &mut self.kinds[kind.0];
        cost.recent = Some(cost.recent.map_or(seconds, |recent| 0.8 * recent + 0.2 * seconds));
        cost.sum += seconds;
        cost.count += 1;
    }

    /// What a node of this kind probably takes: for the order of nodes.
    pub fn expected(&self, kind: CostKind) -> f64 {
        self.known(kind).unwrap_or(UNKNOWN_SECONDS)
    }

    /// The same, if anything is known of the kind.
    pub fn known(&self, kind: CostKind) -> Option<f64> {
        let cost = &self.kinds[kind.0];
        cost.recent.or(cost.expected)
    }

    /// How many nodes of this kind go into a batch when so many are runnable for so many workers. Only what
    /// was measured in this run makes batches: an op may have changed since the last.
    pub fn batch(&self, kind: CostKind, runnable: usize, workers: usize) -> usize {
        let Some(seconds) = self.kinds[kind.0].recent else { return 1 };
        let by_time = (BATCH_SECONDS / seconds.max(1e-9)) as usize;
        let mut limit = by_time.clamp(1, BATCH_MAX_TASKS);
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

    /// Mean seconds of each kind that ran, by the name of its op or function.
    pub fn means(&self) -> impl Iterator<Item = (&str, f64)> {
        let ran = self.names.iter().zip(&self.kinds).filter(|(_, cost)| cost.count > 0);
        ran.map(|(name, cost)| (name.as_str(), cost.sum / cost.count as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_fit_the_duration() {
        let mut costs = Costs::new(["noop"].into_iter(), &[], |_| None);
        let op = CostKind(0);
        assert_eq!((costs.batch(op, 1000, 2), costs.may_queue(op)), (1, false));
        costs.learn(op, 1e-7);
        assert_eq!((costs.batch(op, 100_000, 2), costs.may_queue(op)), (BATCH_MAX_TASKS, true));
        assert_eq!(costs.batch(op, 100, 2), BATCH_MAX_TASKS, "too little to share");
        let mut costs = Costs::new(["noop"].into_iter(), &[], |_| None);
        costs.learn(op, 1e-4);
        assert_eq!((costs.batch(op, 1000, 2), costs.batch(op, 6, 2)), (10, 3));
        costs.learn(op, 10.0);
        assert_eq!((costs.batch(op, 1000, 2), costs.may_queue(op)), (1, false));
    }
}
