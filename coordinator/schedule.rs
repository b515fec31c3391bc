//! Which node may run next. Does no I/O and reads no clock: it is told what happened and says what
//! follows, so that it can be tested by the million and simulated.
//!
//! The way of a node: *waiting* until all it needs are done, *fresh* (nobody has looked it up in the
//! store yet), *runnable* (it has to be run; most urgent first), *taken* (a worker has it), *settled*.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use forkyard_shared::ids::NodeId;

use crate::graph::Graph;
use crate::plan::Retry;
use crate::store::Outcome;

/// Where a node is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nobody asked for it.
    Unwanted,
    /// Something it needs is not done.
    Waiting,
    /// All it needs is done; it is in the fresh or in the runnable queue.
    Ready,
    /// In a worker's batch, waiting for an identical node, or between two attempts. In a batch it may
    /// still need nodes that come before it there.
    Taken,
    /// It will not be looked at again.
    Settled(Outcome),
}

/// What the order of runnable nodes depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Urgency {
    /// The user's word comes first.
    pub priority: i32,
    /// Then the longest way to the end of the run, in seconds.
    pub remaining: f32,
}

struct Runnable {
    urgency: Urgency,
    /// Of equals the freshest: it keeps the set of live results small.
    turn: u32,
    node: NodeId,
}

impl Ord for Runnable {
    fn cmp(&self, other: &Runnable) -> Ordering {
        let (a, b) = (&self.urgency, &other.urgency);
        a.priority.cmp(&b.priority).then(a.remaining.total_cmp(&b.remaining)).then(self.turn.cmp(&other.turn))
    }
}

impl PartialOrd for Runnable {
    fn partial_cmp(&self, other: &Runnable) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Runnable {
    fn eq(&self, other: &Runnable) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Runnable {}

/// How an attempt went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The op returned an error.
    Error,
    /// The worker was killed because the task took too long.
    Timeout,
    /// The worker died.
    Crash,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Try again after this long.
    Again(Duration),
    /// Give up.
    Fail,
}

#[derive(Clone, Copy, Default)]
struct Tries {
    errors: u32,
    timeouts: u32,
    crashes: u32,
}

/// Outcomes by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub ran: usize,
    pub cached: usize,
    pub failed: usize,
    pub timed_out: usize,
    pub blocked: usize,
    pub cancelled: usize,
}

impl Counts {
    fn of(&mut self, outcome: Outcome) -> &mut usize {
        match outcome {
            Outcome::Ran => &mut self.ran,
            Outcome::Cached => &mut self.cached,
            Outcome::Failed => &mut self.failed,
            Outcome::TimedOut => &mut self.timed_out,
            Outcome::Blocked => &mut self.blocked,
            Outcome::Cancelled | Outcome::Skipped => &mut self.cancelled,
        }
    }

    /// Nodes that are settled.
    pub fn settled(&self) -> usize {
        self.ran + self.cached + self.failed + self.timed_out + self.blocked + self.cancelled
    }

    /// Nodes that failed by themselves.
    pub fn failures(&self) -> usize {
        self.failed + self.timed_out
    }
}

/// The state of a run.
pub(crate) struct Scheduler<'g> {
    graph: &'g Graph,
    state: Vec<State>,
    /// How many of its needs each node still waits for.
    waiting: Vec<u32>,
    /// How many of those are in the batch being made. All zero between batches.
    batched: Vec<u32>,
    touched: Vec<NodeId>,
    urgency: Vec<Urgency>,
    fresh: Vec<NodeId>,
    runnable: BinaryHeap<Runnable>,
    turn: u32,
    taken: usize,
    wanted: usize,
    tries: HashMap<NodeId, Tries>,
    counts: Counts,
}

impl<'g> Scheduler<'g> {
    /// All nodes waiting, but for those that `wanted` leaves out.
    pub fn new(graph: &'g Graph, urgency: Vec<Urgency>, wanted: impl Fn(NodeId) -> bool) -> Scheduler<'g> {
        let nodes = || (0..graph.len()).map(NodeId::new);
        let state: Vec<State> =
            nodes().map(|n| if wanted(n) { State::Waiting } else { State::Unwanted }).collect();
        let mut scheduler = Scheduler {
            graph,
            wanted: state.iter().filter(|s| **s == State::Waiting).count(),
            state,
            waiting: nodes().map(|n| graph.needs(n).len() as u32).collect(),
            batched: vec![0; graph.len()],
            touched: Vec::new(),
            urgency,
            fresh: Vec::new(),
            runnable: BinaryHeap::new(),
            turn: 0,
            taken: 0,
            tries: HashMap::new(),
            counts: Counts::default(),
        };
        // Reversed, because the last one in comes out first.
        nodes().rev().for_each(|node| scheduler.enter_if_ready(node));
        scheduler
    }

    pub fn state(&self, node: NodeId) -> State {
        self.state[node.index()]
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many nodes this run is about.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// How many nodes are in workers' hands, held, or between two attempts.
    pub fn taken(&self) -> usize {
        self.taken
    }

    pub fn runnable(&self) -> usize {
        self.runnable.len()
    }

    /// The longest way to the end of the run from any node that could start now.
    pub fn longest_remaining(&self) -> f32 {
        self.runnable.peek().map_or(0.0, |next| next.urgency.remaining)
    }

    /// Whether nothing is left to do but to wait for what is taken.
    pub fn is_drained(&self) -> bool {
        self.fresh.is_empty() && self.runnable.is_empty()
    }

    /// Whether there is a ready node that nobody has looked up yet.
    pub fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// A ready node that nobody has looked up yet; the caller settles it or calls [`Scheduler::must_run`].
    pub fn next_fresh(&mut self) -> Option<NodeId> {
        self.fresh.pop()
    }

    /// The node has no stored result.
    pub fn must_run(&mut self, node: NodeId) {
        self.turn += 1;
        self.runnable.push(Runnable { urgency: self.urgency[node.index()], turn: self.turn, node });
    }

    /// The most urgent runnable node.
    pub fn peek(&self) -> Option<NodeId> {
        self.runnable.peek().map(|entry| entry.node)
    }

    /// The most urgent runnable node, which is taken now.
    pub fn take(&mut self) -> Option<NodeId> {
        let node = self.runnable.pop()?.node;
        self.set_taken(node);
        Some(node)
    }

    /// A fresh node is taken without having been runnable: it waits for an identical one.
    pub fn hold(&mut self, node: NodeId) {
        self.set_taken(node);
    }

    /// `node` has been put into the batch that is being made: those of its users that now need nothing
    /// outside the batch are offered to `accept`, and taken if it agrees.
    pub fn chain(&mut self, node: NodeId, mut accept: impl FnMut(NodeId) -> bool) {
        for &user in self.graph.users(node) {
            let batched = &mut self.batched[user.index()];
            if *batched == 0 {
                self.touched.push(user);
            }
            *batched += 1;
            let complete = *batched == self.waiting[user.index()];
            if complete && self.state[user.index()] == State::Waiting && accept(user) {
                self.state[user.index()] = State::Taken;
                self.taken += 1;
            }
        }
    }

    /// The batch is complete.
    pub fn end_chain(&mut self) {
        for node in self.touched.drain(..) {
            self.batched[node.index()] = 0;
        }
    }

    /// A taken node comes back unrun: it starts anew where it stands.
    pub fn release(&mut self, node: NodeId) {
        assert_eq!(self.state(node), State::Taken, "BUG: node {} is released but was not taken", node.0);
        self.state[node.index()] = State::Waiting;
        self.taken -= 1;
        self.enter_if_ready(node);
    }

    /// The node has its result. Its users may become ready.
    pub fn done(&mut self, node: NodeId, outcome: Outcome) {
        self.settle(node, outcome);
        for &user in self.graph.users(node) {
            self.waiting[user.index()] -= 1;
            self.enter_if_ready(user);
        }
    }

    /// The node will have no result. Everything that needs it is blocked; those nodes are returned.
    pub fn fail(&mut self, node: NodeId, outcome: Outcome) -> Vec<NodeId> {
        let was_done = matches!(self.state(node), State::Settled(before) if before.is_done());
        self.settle(node, outcome);
        let (mut blocked, mut stack, mut queued) = (Vec::new(), vec![node], false);
        while let Some(failed) = stack.pop() {
            for &user in self.graph.users(failed) {
                if matches!(self.state(user), State::Waiting | State::Ready) {
                    // One is ready, and in a queue, if its need failed after having been done.
                    queued |= self.state(user) == State::Ready;
                    self.settle(user, Outcome::Blocked);
                    blocked.push(user);
                    stack.push(user);
                } else if failed != node || !was_done {
                    // It had what it needed before that was revived: should it come back, it must not wait
                    // for what will not be. It finds out again.
                    self.waiting[user.index()] -= 1;
                }
            }
        }
        if queued {
            self.clear_queues();
        }
        blocked
    }

    /// A done node turns out to have no result after all: it runs again, and `user`, which found out,
    /// waits for it. False if that cannot be: it has run again meanwhile, and failed.
    #[must_use]
    pub fn revive(&mut self, node: NodeId, user: NodeId) -> bool {
        if let State::Settled(outcome) = self.state(node) {
            if !outcome.is_done() {
                return false;
            }
            *self.counts.of(outcome) -= 1;
            self.state[node.index()] = State::Ready;
            self.must_run(node);
            // Users that are not settled wait again; those that are have what they needed.
            for &other in self.graph.users(node) {
                self.waiting[other.index()] += 1;
                if self.state(other) == State::Ready {
                    self.state[other.index()] = State::Waiting;
                }
            }
            self.clear_queues();
        }
        self.release(user);
        true
    }

    /// Settles everything that is not settled as cancelled; those nodes are returned.
    pub fn cancel_rest(&mut self) -> Vec<NodeId> {
        self.fresh.clear();
        self.runnable.clear();
        let open = |state: State| !matches!(state, State::Unwanted | State::Settled(_));
        let rest: Vec<NodeId> =
            (0..self.state.len()).map(NodeId::new).filter(|n| open(self.state(*n))).collect();
        rest.iter().for_each(|node| self.settle(*node, Outcome::Cancelled));
        rest
    }

    /// An attempt went wrong: whether there is another.
    pub fn judge(&mut self, node: NodeId, trouble: Trouble, retry: &Retry, max_crashes: u32) -> Verdict {
        let tries = self.tries.entry(node).or_default();
        let again = match trouble {
            Trouble::Crash => {
                tries.crashes += 1;
                return if tries.crashes < max_crashes {
                    Verdict::Again(Duration::ZERO)
                } else {
                    Verdict::Fail
                };
            }
            Trouble::Error => {
                tries.errors += 1;
                retry.on_error
            }
            Trouble::Timeout => {
                tries.timeouts += 1;
                retry.on_timeout
            }
        };
        let failed = tries.errors + tries.timeouts;
        if !again || failed >= retry.attempts {
            return Verdict::Fail;
        }
        // Doubled each time, up to a minute or what the user asked for.
        let longest = retry.backoff.max(Duration::from_secs(60));
        Verdict::Again((retry.backoff * 2u32.saturating_pow(failed - 1)).min(longest))
    }

    /// The number of the attempt that runs or comes next, from 1.
    pub fn attempt(&self, node: NodeId) -> u32 {
        self.tries.get(&node).map_or(1, |tries| 1 + tries.errors + tries.timeouts + tries.crashes)
    }

    /// How often the node has killed its worker.
    pub fn crashes(&self, node: NodeId) -> u32 {
        self.tries.get(&node).map_or(0, |tries| tries.crashes)
    }

    /// Takes out of the queues what is not ready any more.
    fn clear_queues(&mut self) {
        let state = &self.state;
        self.fresh.retain(|node| state[node.index()] == State::Ready);
        self.runnable.retain(|entry| state[entry.node.index()] == State::Ready);
    }

    fn set_taken(&mut self, node: NodeId) {
        assert_eq!(self.state(node), State::Ready, "BUG: node {} is taken but was not ready", node.0);
        self.state[node.index()] = State::Taken;
        self.taken += 1;
    }

    fn enter_if_ready(&mut self, node: NodeId) {
        if self.waiting[node.index()] == 0 && self.state(node) == State::Waiting {
            self.state[node.index()] = State::Ready;
            self.fresh.push(node);
        }
    }

    fn settle(&mut self, node: NodeId, outcome: Outcome) {
        match self.state(node) {
            State::Taken => self.taken -= 1,
            // What was thrown away because its artifact changed was done before.
            State::Settled(before) if before.is_done() && !outcome.is_done() => *self.counts.of(before) -= 1,
            State::Waiting | State::Ready => {}
            state => panic!("BUG: node {} is settled as {outcome:?} but is {state:?}", node.0),
        }
        self.state[node.index()] = State::Settled(outcome);
        *self.counts.of(outcome) += 1;
    }
}
