//! How many workers there are, where nobody has said: as many as keep the cores busy. And which of them are replaced: those
//! that hold what they do not need.

use std::time::{Duration, Instant};

use forkyard_shared::ids::{NodeId, WorkerId};

use super::core::Engine;
use super::memory::SMALL_BYTES;
use crate::places::{Killing, Life, Place};

/// A worker that wants a core for less than this part of its time waits for something else.
const WAITS_BELOW: f64 = 0.5;

/// Times from less than this are chance.
const OBSERVED_MIN: Duration = Duration::from_millis(10);

/// What was seen of a worker's time.
#[derive(Clone, Copy)]
pub(crate) struct Activity {
    /// What it ran.
    node: Option<NodeId>,
    at: Instant,
    /// Nanoseconds in which its processes ran or waited for a core.
    wanted_ns: u64,
    /// Whether it has mostly waited for something else since it was looked at before.
    waits: bool,
}

impl Engine<'_> {
    /// Looks whether what a worker runs computes or waits.
    pub(super) fn note_activity(&mut self, worker: WorkerId, processes: &[u32], now: Instant) {
        if self.state.places.len() >= self.state.workers_max {
            return;
        }
        let place = &mut self.state.places[worker.index()];
        if place.is_idle() {
            place.activity = None;
            return;
        }
        let node = self.pool.pulse(worker).current().map(|current| current.node);
        let machine = &self.state.memory.machine;
        let times = processes.iter().filter_map(|pid| machine.schedstat(*pid));
        let wanted_ns: u64 = times.map(|(ran, waited)| ran + waited).sum();
        let waits = match place.activity.filter(|before| before.node == node) {
            Some(before) if now - before.at < OBSERVED_MIN => return,
            Some(before) => {
                let wanted = wanted_ns.saturating_sub(before.wanted_ns);
                (wanted as f64) < WAITS_BELOW * (now - before.at).as_nanos() as f64
            }
            // Not seen for long enough: as others of its kind do.
            None => {
                let cpu = node.and_then(|node| self.costs.cpu(self.costs.kind_of(&self.nodes, node)));
                cpu.is_some_and(|cpu| cpu < WAITS_BELOW)
            }
        };
        place.activity = Some(Activity { node, at: now, wanted_ns, waits });
    }

    /// Opens more places if all workers are busy and most of them only wait; whether it did.
    pub(super) fn grow(&mut self) -> bool {
        let (there, most) = (self.state.places.len(), self.state.workers_max);
        let all_busy = self.state.places.iter().all(|place| place.is_alive() && !place.is_idle());
        if there >= most || !all_busy || self.scheduler.runnable() == 0 || self.state.guard.is_short() {
            return false;
        }
        let waiting =
            self.state.places.iter().filter(|place| place.activity.is_some_and(|a| a.waits)).count();
        if waiting * 2 < there {
            return false;
        }
        let room = self.room_for_workers();
        let more = waiting.max(1).min(most - there).min(room);
        for _ in 0..more {
            self.state.places.push(Place::default());
            self.state.admission.add_worker();
        }
        more > 0
    }

    /// How many more workers there may be, if they come to hold what those that are there hold now.
    fn room_for_workers(&self) -> usize {
        let Some(budget) = self.state.admission.budget() else { return usize::MAX };
        let each = self.state.memory.private / self.state.places.len().max(1) as u64;
        (budget.saturating_sub(self.state.admission.held()) / each.max(SMALL_BYTES)) as usize
    }

    /// A worker has ended what it ran and holds this: it is replaced if that is more than it should.
    pub(super) fn rest(&mut self, worker: WorkerId, rest: u64) {
        self.state.admission.measured(worker, rest);
        let fair = self.state.admission.budget().map(|budget| budget / self.state.places.len().max(1) as u64);
        let most = match self.nodes.plan.settings.recycle {
            Some(most) => most,
            // Nobody has said: what all of them may hold, in equal parts.
            None => fair.unwrap_or(u64::MAX).max(SMALL_BYTES),
        };
        if rest > most {
            self.state.places[worker.index()].retiring = Some(rest);
        }
    }

    /// Ends workers that are to be replaced, as soon as they have nothing in hand.
    pub(super) fn retire(&mut self, worker: WorkerId) {
        let place = &mut self.state.places[worker.index()];
        if place.is_idle() && place.killing.is_none() && matches!(place.life, Life::Runs(_)) {
            let Some(held) = place.retiring.take() else { return };
            place.killing = Some(Killing::Retired);
            self.pool.kill(worker);
            self.report.worker_recycled(worker, held);
        }
    }
}
