//! Which nodes may start for the memory that they take. Big ones wait, small ones pass them, and none waits for ever. Does
//! no I/O and reads no clock; knows a worker only by what it holds.

use std::collections::{BTreeMap, HashMap};

use forkyard_shared::ids::{NodeId, WorkerId};

/// So many nodes may start while one waits for memory; then only it may. Multiplied by the workers there are.
const PATIENCE: usize = 2;

/// What workers hold, and who waits.
pub(crate) struct Admission {
    /// What all workers together may hold; nobody counts if there is none.
    budget: Option<u64>,
    holds: Vec<Hold>,
    held: u64,
    /// Workers whose tasks take memory.
    reserving: usize,
    /// By the class of what they take, then by who came first; with what they take.
    waiting: BTreeMap<(u64, u64), (NodeId, u64)>,
    /// When nodes came that have waited; kept until they start.
    since: HashMap<NodeId, u64>,
    /// The same by time, with what they take.
    order: BTreeMap<u64, (NodeId, u64)>,
    next: u64,
    /// Nodes that started since the one that has waited longest could not.
    passed: usize,
}

/// Sizes that differ by less than an eighth are of one class: there are few classes, however many sizes.
fn class_of(bytes: u64) -> u64 {
    let shift = bytes.checked_ilog2().unwrap_or(0).saturating_sub(3);
    bytes >> shift << shift
}

/// What one worker holds.
#[derive(Clone, Copy, Default)]
struct Hold {
    /// What its tasks are expected to take at the most.
    reserved: u64,
    /// What was last seen.
    measured: u64,
}

impl Hold {
    fn bytes(self) -> u64 {
        self.reserved.max(self.measured)
    }
}

impl Admission {
    pub fn new(budget: Option<u64>, workers: usize) -> Admission {
        Admission {
            budget,
            holds: vec![Hold::default(); workers],
            held: 0,
            reserving: 0,
            waiting: BTreeMap::new(),
            since: HashMap::new(),
            order: BTreeMap::new(),
            next: 0,
            passed: 0,
        }
    }

    pub fn budget(&self) -> Option<u64> {
        self.budget
    }

    /// What all workers hold, or may come to hold with what they run.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Whether this worker may run this node, which takes so much; a node that takes nothing may always. If nobody runs
    /// anything that takes memory, there is nothing to wait for.
    pub fn admits(&self, node: NodeId, bytes: u64, worker: WorkerId) -> bool {
        self.admits_beside(0, node, bytes, worker)
    }

    /// The same beside others in this worker that take so much together.
    pub fn admits_beside(&self, others: u64, node: NodeId, bytes: u64, worker: WorkerId) -> bool {
        let Some(budget) = self.budget else { return true };
        if bytes == 0 || others == 0 && self.nothing_reserved_but(worker) {
            return true;
        }
        let own = self.holds[worker.index()].bytes();
        let fits = self.held - own + own.max(others + bytes) <= budget;
        fits && (self.passed < PATIENCE * self.holds.len() || self.senior() == Some(node))
    }

    fn nothing_reserved_but(&self, worker: WorkerId) -> bool {
        self.reserving == usize::from(self.holds[worker.index()].reserved > 0)
    }

    /// The node waits until there is room.
    pub fn wait(&mut self, node: NodeId, bytes: u64) {
        let since = *self.since.entry(node).or_insert_with(|| {
            self.next += 1;
            self.next
        });
        self.order.insert(since, (node, bytes));
        self.waiting.insert((class_of(bytes), since), (node, bytes));
    }

    /// The node does not wait any more, and will not start; whether it did.
    pub fn forget(&mut self, node: NodeId) -> bool {
        // Mostly nobody has waited.
        if self.since.is_empty() {
            return false;
        }
        let Some(since) = self.since.remove(&node) else { return false };
        let waited = self.order.remove(&since);
        waited.is_some_and(|(_, bytes)| self.waiting.remove(&(class_of(bytes), since)).is_some())
    }

    /// All that wait, who wait no longer.
    pub fn clear(&mut self) -> Vec<NodeId> {
        self.since.clear();
        self.order.clear();
        std::mem::take(&mut self.waiting).into_values().map(|(node, _)| node).collect()
    }

    /// Who waits.
    #[cfg(any(test, fuzzing))]
    pub fn waiting(&self) -> impl Iterator<Item = NodeId> {
        self.waiting.values().map(|(node, _)| *node)
    }

    pub fn is_anyone_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A node that has waited and may start now, if any: of those that fit the first that came.
    pub fn next_to_start(&mut self) -> Option<NodeId> {
        let room = match self.budget {
            Some(budget) if self.reserving > 0 => budget.saturating_sub(self.held),
            _ => u64::MAX,
        };
        if self.reserving > 0
            && self.passed >= PATIENCE * self.holds.len()
            && let Some((&since, &(_, bytes))) = self.order.first_key_value()
        {
            let key = (class_of(bytes), since);
            return if bytes <= room { self.waiting.remove(&key).map(|(node, _)| node) } else { None };
        }
        let (mut best, mut from): (Option<(u64, u64)>, u64) = (None, 0);
        // The first of each class.
        while let Some((&(class, since), &(_, bytes))) = self.waiting.range((from, 0)..).next() {
            if class > room {
                break;
            }
            if bytes <= room && best.is_none_or(|(_, first)| since < first) {
                best = Some((class, since));
            }
            from = class + 1;
        }
        best.and_then(|key| self.waiting.remove(&key)).map(|(node, _)| node)
    }

    /// Who has waited longest.
    fn senior(&self) -> Option<NodeId> {
        self.order.first_key_value().map(|(_, (node, _))| *node)
    }

    /// The worker is about to run this node, beside what else it holds.
    pub fn start(&mut self, node: NodeId, bytes: u64, worker: WorkerId) {
        if bytes == 0 {
            return;
        }
        let is_senior = self.senior() == Some(node);
        if let Some(since) = self.since.remove(&node) {
            self.order.remove(&since);
        }
        self.passed = if self.since.is_empty() || is_senior { 0 } else { self.passed + 1 };
        let reserved = self.holds[worker.index()].reserved.max(bytes);
        self.change(worker, |hold| hold.reserved = reserved);
    }

    /// All that the worker runs is expected to take so much.
    pub fn reserve(&mut self, worker: WorkerId, bytes: u64) {
        self.change(worker, |hold| hold.reserved = bytes);
    }

    /// The worker was seen to hold so much.
    pub fn measured(&mut self, worker: WorkerId, bytes: u64) {
        self.change(worker, |hold| hold.measured = bytes);
    }

    /// There is one more place for a worker.
    pub fn add_worker(&mut self) {
        self.holds.push(Hold::default());
    }

    /// There is no worker in this place any more.
    pub fn gone(&mut self, worker: WorkerId) {
        self.change(worker, |hold| *hold = Hold::default());
    }

    /// What the worker was last seen to hold.
    pub fn seen(&self, worker: WorkerId) -> u64 {
        self.holds[worker.index()].measured
    }

    fn change(&mut self, worker: WorkerId, change: impl FnOnce(&mut Hold)) {
        let hold = &mut self.holds[worker.index()];
        (self.held, self.reserving) =
            (self.held - hold.bytes(), self.reserving - usize::from(hold.reserved > 0));
        change(hold);
        (self.held, self.reserving) =
            (self.held + hold.bytes(), self.reserving + usize::from(hold.reserved > 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const W: [WorkerId; 4] = [WorkerId(0), WorkerId(1), WorkerId(2), WorkerId(3)];

    #[test]
    fn what_is_measured_counts_if_it_is_more_than_was_expected() {
        let mut memory = Admission::new(Some(100), 4);
        memory.start(NodeId(1), 10, W[0]);
        assert!(memory.admits(NodeId(2), 90, W[1]));
        memory.measured(W[0], 40);
        assert!(!memory.admits(NodeId(2), 90, W[1]) && memory.admits(NodeId(2), 60, W[1]));
        // What a worker holds already, its next task may use.
        assert!(memory.admits(NodeId(2), 40, W[0]));
        memory.gone(W[0]);
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn one_that_never_fits_runs_alone() {
        let mut memory = Admission::new(Some(100), 4);
        assert!(memory.admits(NodeId(1), 500, W[0]), "nothing else takes memory");
        memory.start(NodeId(2), 10, W[1]);
        assert!(!memory.admits(NodeId(1), 500, W[0]));
        memory.wait(NodeId(1), 500);
        assert_eq!(memory.next_to_start(), None);
        memory.reserve(W[1], 0);
        assert_eq!(memory.next_to_start(), Some(NodeId(1)));
    }

    #[test]
    fn nodes_beside_each_other_in_one_worker_are_as_many_as_fit() {
        let mut memory = Admission::new(Some(100), 4);
        let mut taken = 0;
        for n in 0..3 {
            assert!(memory.admits_beside(taken, NodeId(n), 30, W[0]));
            taken += 30;
            memory.start(NodeId(n), taken, W[0]);
        }
        assert!(!memory.admits_beside(taken, NodeId(3), 30, W[0]));
        assert!(memory.admits_beside(taken, NodeId(3), 10, W[0]));
    }

    #[test]
    fn small_ones_pass_big_ones_but_not_for_ever() {
        let mut memory = Admission::new(Some(100), 4);
        memory.start(NodeId(0), 50, W[0]);
        memory.wait(NodeId(1), 80);
        let mut passed = 0;
        for n in 2.. {
            if !memory.admits(NodeId(n), 10, W[1]) {
                break;
            }
            memory.start(NodeId(n), 10, W[1]);
            memory.reserve(W[1], 0);
            passed += 1;
            assert!(passed < 100, "it waits for ever");
        }
        assert!(passed >= 4, "small ones may pass");
        memory.wait(NodeId(99), 10);
        assert_eq!(memory.next_to_start(), None, "only the big one may start now");
        memory.reserve(W[0], 0);
        assert_eq!(memory.next_to_start(), Some(NodeId(1)));
        memory.start(NodeId(1), 80, W[0]);
        assert_eq!(memory.next_to_start(), Some(NodeId(99)));
    }

    #[test]
    fn of_those_that_fit_the_first_that_came_starts() {
        let mut memory = Admission::new(Some(100), 4);
        memory.start(NodeId(0), 60, W[0]);
        memory.start(NodeId(1), 40, W[1]);
        for (node, bytes) in [(10, 50), (11, 30), (12, 20), (13, 30)] {
            memory.wait(NodeId(node), bytes);
        }
        memory.reserve(W[1], 0);
        assert_eq!(memory.next_to_start(), Some(NodeId(11)));
        memory.start(NodeId(11), 30, W[1]);
        assert_eq!(memory.next_to_start(), None);
        assert!(memory.forget(NodeId(10)) && !memory.forget(NodeId(10)));
        assert_eq!(memory.clear(), [NodeId(12), NodeId(13)]);
    }

    #[test]
    fn without_a_budget_all_may() {
        let mut memory = Admission::new(None, 1);
        memory.start(NodeId(0), u64::MAX / 2, W[0]);
        assert!(memory.admits(NodeId(1), u64::MAX / 2, W[0]));
    }
}
