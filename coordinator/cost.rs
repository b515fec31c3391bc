//! How long nodes take, by op: learnt while running, and what follows for the size of a batch.

use forkyard_shared::ids::OpId;

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

/// Durations by op.
pub(crate) struct Costs {
    ops: Vec<OpCost>,
}

#[derive(Clone, Copy, Default)]
struct OpCost {
    /// From earlier runs.
    expected: Option<f64>,
    /// A moving average of this run.
    recent: Option<f64>,
    sum: f64,
    count: u64,
}

impl Costs {
    /// Starts with what earlier runs measured.
    pub fn new(ops: usize, expected: impl Fn(OpId) -> Option<f64>) -> Costs {
        let ops = (0..ops).map(|op| OpCost { expected: expected(OpId::new(op)), ..OpCost::default() });
        Costs { ops: ops.collect() }
    }

    /// A node of this op took so long.
    pub fn learn(&mut self, op: OpId, seconds: f64) {
        let cost = &mut self.ops[op.index()];
        cost.recent = Some(cost.recent.map_or(seconds, |recent| 0.8 * recent + 0.2 * seconds));
        cost.sum += seconds;
        cost.count += 1;
    }

    /// What a node of this op probably takes: for the order of nodes.
    pub fn expected(&self, op: OpId) -> f64 {
        self.known(op).unwrap_or(UNKNOWN_SECONDS)
    }

    /// The same, if anything is known of the op.
    pub fn known(&self, op: OpId) -> Option<f64> {
        let cost = &self.ops[op.index()];
        cost.recent.or(cost.expected)
    }

    /// How many nodes of this op go into a batch when so many are runnable for so many workers. Only what
    /// was measured in this run makes batches: an op may have changed since the last.
    pub fn batch(&self, op: OpId, runnable: usize, workers: usize) -> usize {
        let Some(seconds) = self.ops[op.index()].recent else { return 1 };
        let by_time = (BATCH_SECONDS / seconds.max(1e-9)) as usize;
        let mut limit = by_time.clamp(1, BATCH_MAX_TASKS);
        // What is too little to be worth a second worker's wake-up stays together.
        if seconds * runnable as f64 > 100e-6 {
            limit = limit.min(runnable.div_ceil(workers).max(1));
        }
        limit
    }

    /// Whether a batch of this op may wait behind another.
    pub fn may_queue(&self, op: OpId) -> bool {
        self.ops[op.index()].recent.is_some_and(|seconds| seconds < QUEUE_SECONDS)
    }

    /// Mean seconds of each op that ran.
    pub fn means(&self) -> impl Iterator<Item = (OpId, f64)> {
        let ran = self.ops.iter().enumerate().filter(|(_, cost)| cost.count > 0);
        ran.map(|(op, cost)| (OpId::new(op), cost.sum / cost.count as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_fit_the_duration() {
        let mut costs = Costs::new(1, |_| None);
        let op = OpId(0);
        assert_eq!((costs.batch(op, 1000, 2), costs.may_queue(op)), (1, false));
        costs.learn(op, 1e-7);
        assert_eq!((costs.batch(op, 100_000, 2), costs.may_queue(op)), (BATCH_MAX_TASKS, true));
        assert_eq!(costs.batch(op, 100, 2), BATCH_MAX_TASKS, "too little to share");
        let mut costs = Costs::new(1, |_| None);
        costs.learn(op, 1e-4);
        assert_eq!((costs.batch(op, 1000, 2), costs.batch(op, 6, 2)), (10, 3));
        costs.learn(op, 10.0);
        assert_eq!((costs.batch(op, 1000, 2), costs.may_queue(op)), (1, false));
    }
}
