//! Limits on how many nodes run at once, and on how many start in a second: of a node's items, and of groups.
//! Only what has to be run passes a gate; what is stored does not.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use forkyard_shared::ids::NodeId;

use super::core::Engine;
use crate::plan::{GroupLimits, Plan};
use crate::timers::{Timer, Timers};

/// All gates of a run.
#[derive(Default)]
pub(super) struct Gates {
    gates: Vec<Gate>,
    /// The gates of each node that has any.
    of: HashMap<NodeId, Vec<usize>>,
    /// Nodes that have passed theirs and not come back.
    inside: HashSet<NodeId>,
}

struct Gate {
    limits: GroupLimits,
    inside: u32,
    /// When the next node may start, if there is a rate.
    next_start: Option<Instant>,
    /// In the order of arrival.
    waiting: VecDeque<NodeId>,
    /// When it is looked at, if it is.
    looked_at: Option<Instant>,
}

impl Gates {
    /// Takes note of the gates of a plan whose first node has this number.
    pub fn know(&mut self, plan: &Plan, first: usize) {
        let gate =
            |limits| Gate { limits, inside: 0, next_start: None, waiting: VecDeque::new(), looked_at: None };
        if self.gates.is_empty() {
            // Those of groups come first; they are the same for all plans of a run.
            self.gates.extend(plan.groups.iter().map(|(_, limits)| gate(*limits)));
        }
        for node in (0..plan.len()).map(NodeId::new) {
            let Some(flow) = plan.flow(node) else { continue };
            let mut own: Vec<usize> = flow.group.into_iter().collect();
            if let Some(fan) = flow.fan.as_ref().filter(|fan| fan.limits != GroupLimits::default()) {
                own.push(self.gates.len());
                self.gates.push(gate(fan.limits));
            }
            if !own.is_empty() {
                self.of.insert(NodeId::new(node.index() + first), own);
            }
        }
    }
}

#[cfg(any(test, fuzzing))]
impl Gates {
    pub fn len(&self) -> usize {
        self.gates.len()
    }

    /// Every gate has as many inside as have passed it, and no more than it lets; who waits at any.
    pub fn sanity_check(&self, declared: impl Fn(NodeId) -> NodeId) -> impl Iterator<Item = NodeId> {
        let mut inside = vec![0; self.gates.len()];
        let passed = self.inside.iter().filter_map(|node| self.of.get(&declared(*node)));
        passed.flatten().for_each(|at| inside[*at] += 1);
        for (gate, inside) in self.gates.iter().zip(inside) {
            assert_eq!(gate.inside, inside, "a gate has another number inside");
            let most = gate.limits.concurrency.unwrap_or(u32::MAX);
            assert!(inside <= most, "{inside} have passed a gate for {most}");
        }
        self.gates.iter().flat_map(|gate| gate.waiting.iter().copied())
    }
}

impl Gate {
    /// When it lets the next one through; `None`: not before one comes back.
    fn opens(&self, now: Instant) -> Option<Instant> {
        if self.limits.concurrency.is_some_and(|most| self.inside >= most) {
            return None;
        }
        Some(self.next_start.map_or(now, |next| next.max(now)))
    }
}

/// Looks at a gate then, unless it is looked at before: one timer a gate is enough, however many wait there.
fn watch(gate: &mut Gate, at: usize, opens: Instant, timers: &mut Timers) {
    if gate.looked_at.is_none_or(|before| opens < before) {
        gate.looked_at = Some(opens);
        timers.set(opens, Timer::Gate(at));
    }
}

impl Engine<'_> {
    /// The node has no stored result: it runs as soon as its gates let it.
    pub(super) fn must_run(&mut self, node: NodeId) {
        let gates = &mut self.state.gates;
        let Some(own) = gates.of.get(&self.nodes.declared(node)) else {
            return self.scheduler.must_run(node);
        };
        let now = self.pool.now();
        for &at in own {
            let opens = gates.gates[at].opens(now);
            if opens.is_some_and(|opens| opens <= now) && gates.gates[at].waiting.is_empty() {
                continue;
            }
            if let Some(opens) = opens {
                watch(&mut gates.gates[at], at, opens, &mut self.state.timers);
            }
            let waiting = &mut gates.gates[at].waiting;
            // One that has been inside before, and comes back, does not queue up again.
            match self.state.attempts.number(node) {
                1 => waiting.push_back(node),
                _ => waiting.push_front(node),
            }
            return self.scheduler.hold(node);
        }
        self.pass(node, now);
        self.scheduler.must_run(node);
    }

    fn pass(&mut self, node: NodeId, now: Instant) {
        let gates = &mut self.state.gates;
        for &at in gates.of.get(&self.nodes.declared(node)).into_iter().flatten() {
            let gate = &mut gates.gates[at];
            gate.inside += 1;
            if let Some(rate) = gate.limits.rate {
                // From when it was due: a late start must not slow the next ones down.
                let due = gate.next_start.filter(|due| *due + Duration::from_secs(1) > now).unwrap_or(now);
                gate.next_start = Some(due + Duration::from_secs_f64(1.0 / rate));
            }
        }
        gates.inside.insert(node);
    }

    /// The node is not running any more: others may.
    pub(super) fn leave(&mut self, node: NodeId) {
        self.contexts.read(node);
        let gates = &mut self.state.gates;
        if gates.inside.is_empty() || !gates.inside.remove(&node) {
            return;
        }
        let own = gates.of.get(&self.nodes.declared(node)).cloned().unwrap_or_default();
        for &at in &own {
            gates.gates[at].inside -= 1;
        }
        for at in own {
            self.let_in(at);
        }
    }

    /// A gate may open now, unless an earlier timer has come first, and set another one if that was needed.
    pub(super) fn gate_is_due(&mut self, at: usize, now: Instant) {
        if self.state.gates.gates[at].looked_at.take_if(|due| *due <= now).is_some() {
            self.let_in(at);
        }
    }

    /// Lets those through that may.
    pub(super) fn let_in(&mut self, at: usize) {
        let now = self.pool.now();
        while let Some(&node) = self.state.gates.gates[at].waiting.front() {
            let gates = &self.state.gates;
            let own = gates.of.get(&self.nodes.declared(node)).cloned().unwrap_or_default();
            let opens = own.iter().map(|at| gates.gates[*at].opens(now));
            match opens.collect::<Option<Vec<Instant>>>().and_then(|all| all.into_iter().max()) {
                Some(opens) if opens <= now => {}
                Some(opens) => {
                    return watch(&mut self.state.gates.gates[at], at, opens, &mut self.state.timers);
                }
                // Another one of its gates is full: it waits there, and holds up nobody here.
                None => {
                    match own.iter().find(|other| **other != at && gates.gates[**other].opens(now).is_none())
                    {
                        Some(&other) => {
                            self.state.gates.gates[at].waiting.pop_front();
                            self.state.gates.gates[other].waiting.push_back(node);
                            continue;
                        }
                        None => return,
                    }
                }
            }
            self.state.gates.gates[at].waiting.pop_front();
            self.pass(node, now);
            self.scheduler.unhold(node);
        }
    }

    /// The node does not wait at a gate any more; whether it did.
    pub(super) fn forget_waiting(&mut self, node: NodeId) -> bool {
        let mut waited = false;
        for gate in &mut self.state.gates.gates {
            let before = gate.waiting.len();
            gate.waiting.retain(|other| *other != node);
            waited |= gate.waiting.len() < before;
        }
        waited | self.state.admission.forget(node)
    }

    /// Nobody waits at a gate any more: those who did start anew, if anything starts.
    pub(super) fn clear_gates(&mut self) {
        let waiting: Vec<NodeId> =
            self.state.gates.gates.iter_mut().flat_map(|gate| std::mem::take(&mut gate.waiting)).collect();
        let for_memory = self.state.admission.clear();
        // They have passed their gates, and pass them once more.
        for_memory.iter().for_each(|node| self.leave(*node));
        waiting.into_iter().chain(for_memory).for_each(|node| self.scheduler.release(node));
    }
}
