//! Which node may run next. Does no I/O and reads no clock: it is told what happened and says what
//! follows, so that it can be tested by the million and simulated.
//!
//! The way of a node: *waiting* until all it needs are settled as it wants them, *fresh* (nobody has looked it
//! up in the store yet), *runnable* (it has to be run; most urgent first), *taken* (a worker has it), *settled*. A
//! node that consists of items is *open* in place of runnable and taken.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use forkyard_shared::ids::NodeId;

use crate::counts::Counts;
use crate::graph::Graph;
use crate::marks::Marks;
use crate::plan::Terms;
use crate::room;
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
    /// Its items or iterations are under way.
    Open,
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
        let by_urgency = a.priority.cmp(&b.priority).then(a.remaining.total_cmp(&b.remaining));
        // Items of one node, which have its turn, go in their order.
        by_urgency.then(self.turn.cmp(&other.turn)).then(other.node.cmp(&self.node))
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

/// What happened to a node's needs, and to itself.
mod mark {
    /// One of its needs was skipped.
    pub const NEED_SKIPPED: u8 = 1;
    /// One of its needs routed elsewhere.
    pub const NOT_CHOSEN: u8 = 2;
    /// The node whose items it follows is open.
    pub const EACH_OPEN: u8 = 4;
    /// It has [`crate::plan::Terms`].
    pub const TERMS: u8 = 8;
    /// Its failure harms nobody.
    pub const EXCUSED: u8 = 16;
    /// A node that it needs did not succeed, while it was open.
    pub const HINDERED: u8 = 32;
    /// It may start after a failure that stops the run.
    pub const OUTLIVES: u8 = 64;
}

/// Where a node stands. Whoever asks for one of these asks for the others: together they are fetched from memory once.
#[derive(Clone, Copy)]
struct Standing {
    state: State,
    marks: u8,
    /// How many of its needs it still waits for.
    waiting: u32,
    /// How many of those are in the batch being made. Zero between batches.
    batched: u32,
}

impl Standing {
    /// Waits for nothing.
    const NEW: Standing = Standing { state: State::Waiting, marks: 0, waiting: 0, batched: 0 };
}

/// The state of a run.
pub(crate) struct Scheduler<'g> {
    graph: &'g Graph,
    /// Where each node stands.
    at: Vec<Standing>,
    terms: HashMap<NodeId, Terms>,
    /// Edges that came while the run went on, by the node that is needed.
    late_users: HashMap<NodeId, Vec<NodeId>>,
    /// Set after a failure that stops the run: only what accepts failures still starts.
    draining: bool,
    /// Nodes that were cancelled or blocked since somebody asked.
    left_out: Vec<NodeId>,
    touched: Vec<NodeId>,
    urgency: Vec<Urgency>,
    fresh: Vec<NodeId>,
    runnable: BinaryHeap<Runnable>,
    turn: u32,
    /// The turns of nodes that were added.
    turns: Vec<u32>,
    /// How many were submitted.
    arrivals: u32,
    /// When nodes were opened that consist of items: all their items count as ready since then.
    open_turns: HashMap<NodeId, u32>,
    taken: usize,
    wanted: usize,
    counts: Counts,
}

impl<'g> Scheduler<'g> {
    /// All nodes waiting, but for those that `wanted` leaves out.
    pub fn new(graph: &'g Graph, urgency: Vec<Urgency>, wanted: impl Fn(NodeId) -> bool) -> Scheduler<'g> {
        let nodes = || (0..graph.len()).map(NodeId::new);
        let standing = |node| Standing {
            state: if wanted(node) { State::Waiting } else { State::Unwanted },
            waiting: graph.needs(node).len() as u32,
            ..Standing::NEW
        };
        let mut at = room::list(graph.len());
        at.extend(nodes().map(standing));
        let mut scheduler = Scheduler {
            graph,
            wanted: at.iter().filter(|at: &&Standing| at.state == State::Waiting).count(),
            terms: HashMap::new(),
            late_users: HashMap::new(),
            draining: false,
            left_out: Vec::new(),
            at,
            touched: Vec::new(),
            urgency,
            fresh: Vec::new(),
            runnable: BinaryHeap::new(),
            turn: 0,
            turns: Vec::new(),
            arrivals: 0,
            open_turns: HashMap::new(),
            taken: 0,
            counts: Counts::default(),
        };
        // Reversed, because the last one in comes out first.
        nodes().rev().for_each(|node| scheduler.enter_if_ready(node));
        scheduler
    }

    /// What nodes say about those that they need. To be said before anything happens.
    pub fn with_terms(mut self, terms: HashMap<NodeId, Terms>) -> Scheduler<'g> {
        terms.into_iter().for_each(|(node, terms)| self.set_terms(node, terms));
        self
    }

    /// Settles, before anything else happens, the nodes that have what they ask for: those of which `has` says so, if that
    /// is true of all they need. Looks at a need only to see this, which spares a run without changes most of its work.
    /// Returns them, in order.
    pub fn recall(&mut self, mut has: impl FnMut(NodeId) -> bool) -> Vec<NodeId> {
        let mut recalled = Marks::none(self.graph.len());
        let mut nodes = room::list(self.graph.len());
        for &node in self.graph.order() {
            let is_idle = matches!(self.state(node), State::Waiting | State::Ready);
            if is_idle && self.graph.needs(node).iter().all(|need| recalled.has(*need)) && has(node) {
                recalled.mark(node);
                nodes.push(node);
            }
        }
        self.fresh.clear();
        for node in (0..self.graph.len()).rev().map(NodeId::new) {
            if recalled.has(node) {
                self.settle(node, Outcome::Cached);
            } else if self.state(node) != State::Unwanted {
                let met = self.graph.needs(node).iter().filter(|need| recalled.has(**need)).count();
                self.at[node.index()].waiting -= met as u32;
                self.at[node.index()].state = State::Waiting;
                self.enter_if_ready(node);
            }
        }
        nodes
    }

    /// The failures of these nodes harm nobody.
    pub fn excuse(&mut self, node: NodeId) {
        self.at[node.index()].marks |= mark::EXCUSED;
    }

    /// Whether its failure harms nobody.
    pub fn is_excused(&self, node: NodeId) -> bool {
        self.has(node, mark::EXCUSED)
    }

    /// Whether one of its needs was skipped.
    pub fn need_was_skipped(&self, node: NodeId) -> bool {
        self.has(node, mark::NEED_SKIPPED)
    }

    /// Whether one of its needs routed elsewhere.
    pub fn was_not_chosen(&self, node: NodeId) -> bool {
        self.has(node, mark::NOT_CHOSEN)
    }

    /// Whether a node that an open one needs did not succeed.
    pub fn is_hindered(&self, node: NodeId) -> bool {
        self.has(node, mark::HINDERED)
    }

    fn has(&self, node: NodeId, mark: u8) -> bool {
        self.at[node.index()].marks & mark != 0
    }

    /// A need of this node routes elsewhere.
    pub fn do_not_choose(&mut self, node: NodeId) {
        self.at[node.index()].marks |= mark::NOT_CHOSEN;
    }

    /// There will be so many nodes in all.
    pub fn expect(&mut self, nodes: usize) {
        room::take(&mut self.at, nodes, Standing::NEW);
        room::take(&mut self.urgency, nodes, Urgency { priority: 0, remaining: 0.0 });
        room::take(&mut self.turns, nodes - self.graph.len(), 0);
    }

    /// A node that comes into being, like `model` in how it takes failures. It waits for nothing, and is to be
    /// entered.
    pub fn add(&mut self, urgency: Urgency, model: NodeId) -> NodeId {
        let node = NodeId::new(self.at.len());
        let marks = self.at[model.index()].marks & (mark::EXCUSED | mark::OUTLIVES);
        self.at.push(Standing { marks, ..Standing::NEW });
        self.urgency.push(urgency);
        self.wanted += 1;
        self.turns.push(self.open_turns.get(&model).copied().unwrap_or(self.turn));
        node
    }

    /// A node that is submitted: it needs nothing, and is to be entered. It gets the `place` of one that is settled,
    /// if there is one. Of equals who came first goes first.
    pub fn add_submitted(&mut self, place: Option<NodeId>, priority: i32) -> NodeId {
        let urgency = Urgency { priority, remaining: 0.0 };
        let node = place.unwrap_or_else(|| {
            self.at.push(Standing::NEW);
            self.urgency.push(urgency);
            self.turns.push(0);
            NodeId::new(self.at.len() - 1)
        });
        self.at[node.index()].state = State::Waiting;
        self.urgency[node.index()] = urgency;
        self.turns[node.index() - self.graph.len()] = !self.arrivals;
        self.arrivals = self.arrivals.wrapping_add(1);
        self.wanted += 1;
        node
    }

    /// A node that was added waits for these, none of which is settled.
    pub fn wait_for(&mut self, node: NodeId, needs: &[NodeId]) {
        for need in needs {
            self.at[node.index()].waiting += 1;
            self.late_users.entry(*need).or_default().push(node);
        }
    }

    /// What a node that was added says about those that it needs.
    pub fn set_terms(&mut self, node: NodeId, terms: Terms) {
        let outlives = terms.after_any || !terms.accepts.is_empty();
        self.at[node.index()].marks |= mark::TERMS | if outlives { mark::OUTLIVES } else { 0 };
        self.terms.insert(node, terms);
    }

    /// How many nodes wait for it, or have.
    pub fn user_count(&self, node: NodeId) -> usize {
        self.graph_users(node).len() + self.late_users(node).len()
    }

    /// A node that was added may go its way. (In a step of its own, because the last one that enters comes out
    /// first.)
    pub fn enter(&mut self, node: NodeId) {
        self.enter_if_ready(node);
    }

    /// The urgency of a node.
    pub fn urgency(&self, node: NodeId) -> Urgency {
        self.urgency[node.index()]
    }

    /// A fresh node turns out to consist of items or iterations. Those that follow its items may start theirs.
    pub fn open(&mut self, node: NodeId) {
        assert_eq!(self.state(node), State::Ready, "BUG: node {} is opened but was not ready", node.0);
        self.at[node.index()].state = State::Open;
        self.turn += 1;
        self.open_turns.insert(node, self.turn);
        let users: Vec<NodeId> =
            self.graph_users(node).iter().chain(self.late_users(node)).copied().collect();
        for user in users {
            if self.terms_of(user).is_some_and(|terms| terms.each == Some(node)) {
                self.at[user.index()].marks |= mark::EACH_OPEN;
                self.enter_if_ready(user);
            }
        }
    }

    /// A ready node is not to follow the items of the node that it follows: if that is still open, it waits for its end, and is
    /// ready once more then.
    pub fn waits_for_leader(&mut self, node: NodeId) -> bool {
        let at = &mut self.at[node.index()];
        let waits = at.waiting > 0 && at.state == State::Ready;
        if waits {
            at.marks &= !mark::EACH_OPEN;
            at.state = State::Waiting;
        }
        waits
    }

    /// The nodes of the plan that wait for it.
    pub fn graph_users(&self, node: NodeId) -> &'g [NodeId] {
        if node.index() < self.graph.len() { self.graph.users(node) } else { &[] }
    }

    fn late_users(&self, node: NodeId) -> &[NodeId] {
        self.late_users.get(&node).map_or(&[], Vec::as_slice)
    }

    fn terms_of(&self, node: NodeId) -> Option<&Terms> {
        if self.has(node, mark::TERMS) { self.terms.get(&node) } else { None }
    }

    /// Whether a node runs although one that it needs did not succeed.
    fn accepts(&self, node: NodeId, need: NodeId) -> bool {
        self.terms_of(node).is_some_and(|terms| terms.after_any || terms.accepts.contains(&need))
    }

    /// Whether a node may start after a failure that stops the run.
    fn outlives_failure(&self, node: NodeId) -> bool {
        self.has(node, mark::OUTLIVES)
    }

    /// Looks at what the end of this node looks at: that need not wait for memory then.
    pub fn fetch(&self, node: NodeId) -> u32 {
        self.graph_users(node).iter().fold(0, |seen, user| seen ^ self.at[user.index()].waiting)
    }

    pub fn state(&self, node: NodeId) -> State {
        self.at[node.index()].state
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
    pub fn is_drained(&mut self) -> bool {
        !self.has_fresh() && self.peek().is_none()
    }

    /// Whether there is a ready node that nobody has looked up yet.
    pub fn has_fresh(&mut self) -> bool {
        // What was cancelled is left in the queues until it comes up.
        while self.fresh.pop_if(|node| self.at[node.index()].state != State::Ready).is_some() {}
        !self.fresh.is_empty()
    }

    /// A ready node that nobody has looked up yet; the caller settles it or calls [`Scheduler::must_run`].
    pub fn next_fresh(&mut self) -> Option<NodeId> {
        if self.has_fresh() { self.fresh.pop() } else { None }
    }

    /// As many of those as there are, up to a number, in the same order; likewise, but for those that were cancelled
    /// meanwhile.
    pub fn next_fresh_ones(&mut self, most: usize, into: &mut Vec<NodeId>) {
        into.clear();
        into.extend(std::iter::from_fn(|| self.next_fresh()).take(most));
    }

    /// Nobody has got round to these.
    pub fn still_fresh(&mut self, nodes: &[NodeId]) {
        self.fresh.extend(nodes.iter().rev());
    }

    /// The node has no stored result.
    pub fn must_run(&mut self, node: NodeId) {
        let turn = match node.index().checked_sub(self.graph.len()) {
            Some(late) => self.turns[late],
            None => {
                self.turn += 1;
                self.turn
            }
        };
        self.runnable.push(Runnable { urgency: self.urgency[node.index()], turn, node });
    }

    /// The most urgent runnable node.
    pub fn peek(&mut self) -> Option<NodeId> {
        while let Some(entry) = self.runnable.peek() {
            if self.at[entry.node.index()].state == State::Ready {
                return Some(entry.node);
            }
            self.runnable.pop();
        }
        None
    }

    /// The most urgent runnable node, which is taken now.
    pub fn take(&mut self) -> Option<NodeId> {
        let node = self.peek()?;
        self.runnable.pop();
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
        for &user in self.graph_users(node) {
            let at = &mut self.at[user.index()];
            if at.batched == 0 {
                self.touched.push(user);
            }
            at.batched += 1;
            // One that is not to run, or may not be, is decided when it is ready.
            const UNDECIDED: u8 = mark::HINDERED | mark::NEED_SKIPPED | mark::NOT_CHOSEN;
            let complete = at.batched == at.waiting && at.marks & UNDECIDED == 0;
            if complete && at.state == State::Waiting && accept(user) {
                at.state = State::Taken;
                self.taken += 1;
            }
        }
    }

    /// The batch is complete.
    pub fn end_chain(&mut self) {
        for node in self.touched.drain(..) {
            self.at[node.index()].batched = 0;
        }
    }

    /// A taken node comes back unrun: it starts anew where it stands.
    pub fn release(&mut self, node: NodeId) {
        assert_eq!(self.state(node), State::Taken, "BUG: node {} is released but was not taken", node.0);
        self.at[node.index()].state = State::Waiting;
        self.taken -= 1;
        if self.is_draining(node) {
            // Also if it waits: nobody comes by once more.
            return self.leave_out(node);
        }
        self.enter_if_ready(node);
    }

    /// A held node has to be run.
    pub fn unhold(&mut self, node: NodeId) {
        assert_eq!(self.state(node), State::Taken, "BUG: node {} is let go but was not held", node.0);
        self.at[node.index()].state = State::Ready;
        self.taken -= 1;
        self.must_run(node);
    }

    /// Whether all that a node needs is settled.
    pub fn needs_nothing(&self, node: NodeId) -> bool {
        self.at[node.index()].waiting == 0
    }

    /// The node has its result, or was skipped. Its users may become ready.
    pub fn done(&mut self, node: NodeId, outcome: Outcome) {
        self.settle(node, outcome);
        for &user in self.graph_users(node) {
            self.met(user, node, outcome);
        }
        for at in 0..self.late_users(node).len() {
            self.met(self.late_users(node)[at], node, outcome);
        }
    }

    /// A need of `user` is settled as it wants it, or was skipped.
    fn met(&mut self, user: NodeId, need: NodeId, outcome: Outcome) {
        if self.terms_of(user).is_some_and(|terms| terms.each == Some(need)) {
            // It is done, and not only open: whatever else is needed has to be waited for.
            self.at[user.index()].marks &= !mark::EACH_OPEN;
        }
        if outcome == Outcome::Skipped {
            self.at[user.index()].marks |= mark::NEED_SKIPPED;
        }
        self.at[user.index()].waiting -= 1;
        self.enter_if_ready(user);
    }

    /// The node is not to be run, unless it is in somebody's hands. What needs it is blocked; those nodes are
    /// returned.
    pub fn cancel(&mut self, node: NodeId) -> Vec<NodeId> {
        self.fail(node, Outcome::Cancelled)
    }

    /// From now on only what accepts failures starts; the rest is cancelled.
    pub fn drain(&mut self) {
        if !std::mem::replace(&mut self.draining, true) {
            self.leave_out_from(0);
        }
    }

    /// The same of nodes from this one on, if they came when that had been said.
    pub fn drain_from(&mut self, first: usize) {
        if self.draining {
            self.leave_out_from(first);
        }
    }

    fn leave_out_from(&mut self, first: usize) {
        let idle = |state: State| matches!(state, State::Waiting | State::Ready);
        for node in (first..self.at.len()).map(NodeId::new) {
            if idle(self.state(node)) && !self.outlives_failure(node) {
                self.leave_out(node);
            }
        }
    }

    /// Whether nothing new of this node is to be started.
    pub fn is_draining(&self, node: NodeId) -> bool {
        self.draining && !self.outlives_failure(node)
    }

    /// What was cancelled since the last call because the run is stopping, or blocked when the last of its needs was
    /// settled.
    pub fn take_left_out(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.left_out)
    }

    /// The run stops before the node was begun.
    fn leave_out(&mut self, node: NodeId) {
        let outcome = if self.has(node, mark::HINDERED) { Outcome::Blocked } else { Outcome::Cancelled };
        self.settle(node, outcome);
        self.left_out.push(node);
        let users: Vec<NodeId> =
            self.graph_users(node).iter().chain(self.late_users(node)).copied().collect();
        for user in users {
            if self.accepts(user, node) {
                self.met(user, node, outcome);
            } else if self.outlives_failure(user) && matches!(self.state(user), State::Waiting | State::Ready)
            {
                // It would have run after this, and accepts only that others fail.
                self.at[user.index()].marks |= mark::HINDERED;
                self.at[user.index()].waiting -= 1;
                self.enter_if_ready(user);
            }
        }
    }

    /// The node will have no result. What needs it is blocked as soon as the rest of its needs is settled; what is
    /// blocked at once is returned.
    pub fn fail(&mut self, node: NodeId, outcome: Outcome) -> Vec<NodeId> {
        let was_done = matches!(self.state(node), State::Settled(before) if before.is_done());
        self.settle(node, outcome);
        let (mut blocked, mut stack, mut queued) = (Vec::new(), vec![node], false);
        while let Some(failed) = stack.pop() {
            let users: Vec<NodeId> =
                self.graph_users(failed).iter().chain(self.late_users(failed)).copied().collect();
            for user in users {
                if self.state(user) == State::Open {
                    if !self.accepts(user, failed) {
                        self.at[user.index()].marks |= mark::HINDERED;
                    }
                } else if self.accepts(user, failed) && !was_done {
                    self.met(user, failed, outcome);
                } else if matches!(self.state(user), State::Waiting | State::Ready) {
                    let had_it = was_done && failed == node;
                    if !had_it {
                        self.at[user.index()].marks |= mark::HINDERED;
                        self.at[user.index()].waiting -= 1;
                    }
                    // Decided when all its needs are settled: who accepts that it is blocked starts no earlier.
                    if had_it || self.at[user.index()].waiting == 0 {
                        // One is ready, and in a queue, if its need failed after having been done.
                        queued |= self.state(user) == State::Ready;
                        self.settle(user, Outcome::Blocked);
                        blocked.push(user);
                        stack.push(user);
                    }
                } else if failed != node || !was_done {
                    // It had what it needed before that was revived: should it come back, it must not wait
                    // for what will not be. It finds out again.
                    self.at[user.index()].waiting = self.at[user.index()].waiting.saturating_sub(1);
                }
            }
        }
        if queued {
            self.clear_queues();
        }
        blocked
    }

    /// A done node turns out to have no result after all: it runs again, and `user`, which found out,
    /// waits for it. Others that were ready and wait now are returned; nothing if that cannot be: it has run again
    /// meanwhile, and failed.
    #[must_use]
    pub fn revive(&mut self, node: NodeId, user: NodeId) -> Option<Vec<NodeId>> {
        let mut set_back = Vec::new();
        let is_user = self.graph_users(node).contains(&user) || self.late_users(node).contains(&user);
        if let State::Settled(outcome) = self.state(node) {
            if !outcome.is_done() {
                return None;
            }
            *self.counts.of(outcome) -= 1;
            self.at[node.index()].state = State::Ready;
            self.must_run(node);
            if !is_user {
                // It reads the item of a node, and needs that node.
                self.late_users.entry(node).or_default().push(user);
            }
            // Users that are not settled wait again; those that are have what they needed.
            let users: Vec<NodeId> =
                self.graph_users(node).iter().chain(self.late_users(node)).copied().collect();
            for other in users {
                self.at[other.index()].waiting += 1;
                if self.state(other) == State::Ready {
                    self.at[other.index()].state = State::Waiting;
                    set_back.push(other);
                }
            }
            self.clear_queues();
        } else if !is_user {
            // Another one has found out before.
            self.late_users.entry(node).or_default().push(user);
            self.at[user.index()].waiting += 1;
        }
        self.release(user);
        Some(set_back)
    }

    /// Settles everything that is not settled as cancelled; those nodes are returned.
    pub fn cancel_rest(&mut self) -> Vec<NodeId> {
        self.fresh.clear();
        self.runnable.clear();
        let open = |state: State| !matches!(state, State::Unwanted | State::Settled(_));
        let rest: Vec<NodeId> =
            (0..self.at.len()).map(NodeId::new).filter(|n| open(self.state(*n))).collect();
        rest.iter().for_each(|node| self.settle(*node, Outcome::Cancelled));
        rest
    }

    /// Takes out of the queues what is not ready any more.
    pub fn clear_queues(&mut self) {
        let at = &self.at;
        self.fresh.retain(|node| at[node.index()].state == State::Ready);
        self.runnable.retain(|entry| at[entry.node.index()].state == State::Ready);
    }

    fn set_taken(&mut self, node: NodeId) {
        assert_eq!(self.state(node), State::Ready, "BUG: node {} is taken but was not ready", node.0);
        self.at[node.index()].state = State::Taken;
        self.taken += 1;
    }

    fn enter_if_ready(&mut self, node: NodeId) {
        if self.has(node, mark::HINDERED) {
            if self.at[node.index()].waiting == 0 && self.state(node) == State::Waiting {
                let below = self.fail(node, Outcome::Blocked);
                self.left_out.push(node);
                self.left_out.extend(below);
            }
            return;
        }
        let may_wait = u32::from(self.has(node, mark::EACH_OPEN));
        if self.at[node.index()].waiting <= may_wait && self.state(node) == State::Waiting {
            if self.draining && !self.outlives_failure(node) {
                return self.leave_out(node);
            }
            self.at[node.index()].state = State::Ready;
            self.fresh.push(node);
        }
    }

    fn settle(&mut self, node: NodeId, outcome: Outcome) {
        match self.state(node) {
            State::Taken => self.taken -= 1,
            // What was thrown away because its artifact changed was done before.
            State::Settled(before) if before.is_done() && !outcome.is_done() => *self.counts.of(before) -= 1,
            State::Waiting | State::Ready | State::Open => {}
            state => panic!("BUG: node {} is settled as {outcome:?} but is {state:?}", node.0),
        }
        self.at[node.index()].state = State::Settled(outcome);
        *self.counts.of(outcome) += 1;
        if self.has(node, mark::EXCUSED) && !outcome.is_done() && outcome != Outcome::Skipped {
            self.counts.excused += 1;
            let failed = matches!(outcome, Outcome::Failed | Outcome::TimedOut);
            self.counts.excused_failures += usize::from(failed);
        }
    }
}

#[cfg(any(test, fuzzing))]
impl Scheduler<'_> {
    /// Compares the parts of the state with each other; ready nodes that are in no queue.
    pub fn sanity_check(&self) -> Vec<NodeId> {
        let nodes = || (0..self.at.len()).map(NodeId::new);
        let taken = nodes().filter(|node| self.state(*node) == State::Taken).count();
        assert_eq!(self.taken, taken, "so many are taken");
        let mut counts = Counts::default();
        for node in nodes() {
            let State::Settled(outcome) = self.state(node) else { continue };
            *counts.of(outcome) += 1;
            if self.has(node, mark::EXCUSED) && !outcome.is_done() && outcome != Outcome::Skipped {
                counts.excused += 1;
                counts.excused_failures +=
                    usize::from(matches!(outcome, Outcome::Failed | Outcome::TimedOut));
            }
        }
        assert_eq!(self.counts, counts, "so many are settled");
        assert!(self.at.iter().all(|at| at.batched == 0), "a batch is being made");
        let mut queued = vec![0; self.at.len()];
        let in_queues = self.fresh.iter().copied().chain(self.runnable.iter().map(|entry| entry.node));
        in_queues.for_each(|node| queued[node.index()] += 1);
        let ready = || nodes().filter(|node| self.state(*node) == State::Ready);
        if let Some(node) = ready().find(|node| queued[node.index()] > 1) {
            panic!("node {} is in a queue {} times", node.0, queued[node.index()]);
        }
        ready().filter(|node| queued[node.index()] == 0).collect()
    }
}
