//! What workers hold, looked at while they run: what follows for what nodes are expected to take, for who may start, and
//! for how soon to look again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use forkyard_shared::ids::{NodeId, WorkerId};
use forkyard_shared::protocol::Cost;

use super::core::Engine;
use crate::memory::{Machine, Rooms};
use crate::places::{self, Life};
use crate::timers::Timer;

/// How soon workers are looked at again: at first, and when something has changed.
const SOON: Duration = Duration::from_millis(40);

/// While a node runs that has a limit, or memory is short.
pub(super) const AT_ONCE: Duration = Duration::from_millis(15);

/// While nothing changes.
const LATER: Duration = Duration::from_secs(1);

/// Less is what any worker has; nobody counts it.
pub(super) const SMALL_BYTES: u64 = 2 << 20;

/// Python processes that are looked at page by page in one sample.
const PYTHON_SAMPLES: usize = 16;

/// What is known of memory while a run goes on.
pub(crate) struct Memory {
    pub machine: Machine,
    /// What could be had at the start beside the artifacts.
    pub(super) whole: u64,
    /// Artifacts that are mapped from files, which the kernel may take back.
    pub(super) artifacts: u64,
    /// What a worker has from the zygote.
    inherited: u64,
    /// What Python processes have copied of what they share, each.
    copied_by_python: u64,
    every: Duration,
    /// What workers held when they were last looked at.
    pub(super) private: u64,
    /// Whether the kernel has been asked to wake us.
    is_watched: bool,
    /// When they are looked at next.
    due: Option<Instant>,
}

impl Memory {
    pub fn new(machine: Machine, rooms: Option<&Rooms>, artifacts: u64) -> Memory {
        let whole = rooms.map_or(u64::MAX, |rooms| rooms.available().saturating_sub(artifacts));
        Memory {
            machine,
            whole,
            artifacts,
            inherited: 0,
            copied_by_python: 0,
            every: SOON,
            private: 0,
            is_watched: false,
            due: None,
        }
    }
}

impl Engine<'_> {
    /// What a node is expected to take while it runs, in bytes; 0 if that is nothing to speak of.
    pub(super) fn memory_of(&self, node: NodeId) -> u64 {
        let kind = self.costs.kind_of(&self.nodes, node);
        let said = self.nodes.detail(node).and_then(|detail| detail.memory);
        let bytes = match said {
            Some(said) => self.costs.corrected(kind, said),
            None => self.costs.private_max(kind),
        };
        let bytes = bytes.max(self.state.guard.takes(node));
        if bytes < SMALL_BYTES { 0 } else { bytes }
    }

    /// Workers are looked at soon, for these nodes start.
    pub(super) fn look_soon(&mut self, starts: &[NodeId]) {
        let may_take = |node: &NodeId| {
            self.memory_of(*node) > 0 || self.costs.count(self.costs.kind_of(&self.nodes, *node)) == 0
        };
        // What was quiet for long need not stay so.
        let is_far = self.state.memory.every > SOON && starts.iter().any(may_take);
        if self.state.memory.due.is_none() || is_far {
            self.state.memory.every = SOON;
            self.look_within(SOON);
        }
    }

    /// It may be time to look at them.
    pub(super) fn look_if_due(&mut self, now: Instant) {
        // Another timer may have been set since this one.
        if self.state.memory.due.is_some_and(|due| due <= now) {
            self.look_at_memory(now);
        }
    }

    /// Looks at all workers, and acts on what it sees.
    pub(super) fn look_at_memory(&mut self, now: Instant) {
        self.state.memory.due = None;
        if !std::mem::replace(&mut self.state.memory.is_watched, true) {
            // Not before: a run that is over by now needs none. Without it we still look.
            self.pool.watch_memory(self.state.memory.machine.clone()).ok();
        }
        if self.state.memory.inherited == 0 {
            let zygote = self.state.memory.machine.private_of(self.pool.zygote());
            self.state.memory.inherited = zygote.map_or(0, |private| private.bytes());
        }
        let below = self.may_have_children().then(|| self.state.memory.machine.children());
        let (mut private, mut changed, mut has_limit) = (0, false, false);
        for worker in places::ids(&self.state.places) {
            let Some(processes) = self.processes_of(worker, below.as_ref()) else { continue };
            let held = self.held_by(worker, &processes);
            let before = self.state.admission.seen(worker);
            changed |= held.abs_diff(before) > before / 10 + SMALL_BYTES;
            self.state.admission.measured(worker, held);
            private += held;
            has_limit |= self.learn_from(worker, held);
            self.note_kept(worker, held);
            self.note_activity(worker, &processes, now);
        }
        let python = self.state.places.iter().filter(|place| place.python.is_some()).count() as u64;
        self.state.memory.private = private + python * self.state.memory.copied_by_python;
        self.state.peak_private_bytes = self.state.peak_private_bytes.max(self.state.memory.private);
        let short = self.guard(now);
        changed |= self.grow();
        let memory = &mut self.state.memory;
        memory.every = if short || has_limit {
            AT_ONCE
        } else if changed {
            SOON
        } else {
            (memory.every * 3 / 2).min(LATER)
        };
        // Nobody runs anything: whoever starts something has them looked at again.
        if short || !self.state.places.iter().all(|place| place.is_idle()) {
            self.look_within(self.state.memory.every);
        }
    }

    fn look_within(&mut self, wait: Duration) {
        let at = self.pool.now() + wait;
        if self.state.memory.due.is_none_or(|due| at < due) {
            self.state.memory.due = Some(at);
            self.state.timers.set(at, Timer::Memory);
        }
    }

    /// Whether processes below workers are to be looked for.
    fn may_have_children(&self) -> bool {
        self.state.places.iter().any(|place| {
            let runs_command = |node: NodeId| self.ops.get(self.nodes.op(node)).signature().runs_command();
            place.python.is_some() || place.running().is_some_and(runs_command)
        })
    }

    /// A worker, its Python process and what they started.
    pub(super) fn processes_of(
        &self,
        worker: WorkerId,
        below: Option<&HashMap<u32, Vec<u32>>>,
    ) -> Option<Vec<u32>> {
        let place = &self.state.places[worker.index()];
        let Life::Runs(pid) = place.life else { return None };
        let mut all: Vec<u32> = [Some(pid), place.python].into_iter().flatten().collect();
        let mut at = 0;
        while let Some(pid) = all.get(at) {
            let children = below.and_then(|below| below.get(pid)).into_iter().flatten();
            all.extend(children.filter(|child| Some(**child) != place.python).copied().collect::<Vec<_>>());
            at += 1;
        }
        Some(all)
    }

    /// What these processes of a worker hold for themselves.
    pub(super) fn held_by(&self, worker: WorkerId, processes: &[u32]) -> u64 {
        let (place, memory) = (&self.state.places[worker.index()], &self.state.memory);
        let held = |(at, pid): (usize, &u32)| {
            if at > 0 && Some(*pid) != place.python && place.python.is_some() {
                // What Python has forked shares most of its pages: only the kernel tells them apart.
                return memory.machine.exact_private(*pid).unwrap_or(0);
            }
            let inherited = match at {
                0 => memory.inherited,
                _ if Some(*pid) == place.python => place.python_inherited,
                _ => 0,
            };
            memory.machine.private_of(*pid).map_or(0, |private| private.bytes().saturating_sub(inherited))
        };
        processes.iter().enumerate().map(held).sum()
    }

    /// A worker holds so much while it runs what it runs: whether that has a limit.
    fn learn_from(&mut self, worker: WorkerId, held: u64) -> bool {
        let current = self.pool.pulse(worker).current();
        let place = &mut self.state.places[worker.index()];
        let Some(node) = current.map(|current| current.node).filter(|node| place.holds(*node)) else {
            return false;
        };
        if !place.lanes.is_empty() {
            // Whose it is nobody can tell.
            return false;
        }
        place.note_peak(node, held);
        let kind = self.costs.kind_of(&self.nodes, node);
        self.costs.hold(kind, held);
        let detail = self.nodes.detail(node);
        if let Some(said) = detail.and_then(|detail| detail.memory) {
            self.costs.compare(kind, said, held);
        }
        let Some(limit) = detail.and_then(|detail| detail.memory_limit) else { return false };
        if held > limit {
            self.pass_limit(worker, node, held, limit);
        }
        // Where the kernel keeps it, there is no hurry.
        !self.state.fences.is_closed(worker)
    }

    /// What a node cost, with what was seen while it ran: a command's memory is known in no other way.
    pub(super) fn with_seen(&mut self, worker: WorkerId, node: NodeId, cost: Option<Cost>) -> Option<Cost> {
        let seen = self.state.places[worker.index()].take_peak(node);
        let mut cost = cost?;
        if let Some(private) = &mut cost.private {
            self.rest(worker, private.rest);
            private.peak = private.peak.max(seen.unwrap_or(0));
            if let Some(said) = self.nodes.detail(node).and_then(|detail| detail.memory) {
                let kind = self.costs.kind_of(&self.nodes, node);
                self.costs.compare(kind, said, private.peak);
            }
        }
        Some(cost)
    }

    /// How much of what Python processes share each of them has copied. Only the kernel knows, page by page: of many,
    /// some stand for all.
    pub(super) fn look_at_python(&mut self) {
        let machine = &self.state.memory.machine;
        let with_python: Vec<(u32, u64)> = self
            .state
            .places
            .iter()
            .filter_map(|place| Some((place.python?, place.python_inherited)))
            .collect();
        let step = with_python.len().div_ceil(PYTHON_SAMPLES).max(1);
        let some = with_python.iter().step_by(step).filter_map(|(pid, inherited)| {
            let known = machine.private_of(*pid)?.bytes().saturating_sub(*inherited);
            Some(machine.exact_private(*pid)?.saturating_sub(known))
        });
        let some: Vec<u64> = some.collect();
        self.state.memory.copied_by_python = some.iter().sum::<u64>() / some.len().max(1) as u64;
    }
}
