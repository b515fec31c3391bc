//! How many workers there are, where nobody has said: as many as keep the cores busy. And which of them are replaced: those
//! that hold what they do not need.

use std::time::{Duration, Instant};

use forkyard_shared::ids::WorkerId;

use super::core::Engine;
use super::memory::SMALL_BYTES;
use crate::crew::{SHORT_SECONDS, cores};
use crate::places::{Killing, Life, Place};

/// A worker that wants a core for less than this part of its time waits for something else.
const WAITS_BELOW: f64 = 0.5;

/// Times from less than this are chance.
const OBSERVED_MIN: Duration = Duration::from_millis(10);

/// What a worker is expected to come to hold as long as nothing is known of what it runs.
const UNKNOWN_BYTES: u64 = 128 << 20;

/// What was seen of a worker's time.
pub(crate) struct Activity {
    at: Instant,
    /// Nanoseconds in which its processes ran, with those that had ended.
    ran_ns: u64,
    /// Nanoseconds in which each of its processes waited for a core.
    delayed_ns: Vec<(u32, u64)>,
    /// The part of its time since it was looked at before in which it wanted a core, or as many cores as that; what it
    /// did not want, it waited for something else.
    part: Option<f64>,
}

impl Engine<'_> {
    /// Looks whether what a worker runs computes or waits. Who waits for a core wants to compute.
    pub(super) fn note_activity(&mut self, worker: WorkerId, processes: &[u32], now: Instant) {
        if self.state.places.len() >= self.state.workers_max {
            return;
        }
        let place = &mut self.state.places[worker.index()];
        if place.is_idle() {
            place.activity = None;
            return;
        }
        if place.activity.as_ref().is_some_and(|before| now - before.at < OBSERVED_MIN) {
            return;
        }
        let (before, python) = (place.activity.take(), place.python);
        let current = self.pool.pulse(worker).current().filter(|current| place.holds(current.node));
        let kind = current.as_ref().map(|current| self.costs.kind_of(&self.nodes, current.node));
        let is_short = |kind| self.costs.known(kind).is_some_and(|seconds| seconds < SHORT_SECONDS);
        if place.lanes.is_empty() && kind.is_none_or(is_short) {
            // Between two short tasks: what it waits for is us, and more workers would wait too.
            return;
        }
        let machine = &self.state.memory.machine;
        let (mut ran_ns, mut delayed_ns, mut of_commands) = (0, Vec::new(), 0);
        for (at, pid) in processes.iter().enumerate() {
            let Some((ran, delayed)) = machine.schedstat(*pid) else { continue };
            let ran = ran + machine.children_time(*pid).unwrap_or(0);
            if at > 0 && Some(*pid) != python {
                of_commands += ran + delayed;
            }
            ran_ns += ran;
            delayed_ns.push((*pid, delayed));
        }
        let part = before.as_ref().map(|before| {
            let seen = now - before.at;
            let delayed_before =
                |pid| before.delayed_ns.iter().find(|(of, _)| *of == pid).map_or(0, |(_, ns)| *ns);
            let delayed: u64 =
                delayed_ns.iter().map(|(pid, ns)| ns.saturating_sub(delayed_before(*pid))).sum();
            let mut wanted = Duration::from_nanos(ran_ns.saturating_sub(before.ran_ns) + delayed).min(seen);
            // What commands have waited that have ended since, nobody tells; so this one speaks for those before it.
            let since = current.map_or(0, |current| self.pool.now_ns().saturating_sub(current.started_ns));
            if since > OBSERVED_MIN.as_nanos() as u64 && Duration::from_nanos(since) < seen {
                wanted = wanted.max(seen.mul_f64((of_commands as f64 / since as f64).min(1.0)));
            }
            if let Some(kind) = kind {
                self.costs.watched(kind, seen, wanted);
            }
            wanted.div_duration_f64(seen)
        });
        // Not seen for long enough: as others of its kind do.
        let part = part.or_else(|| self.costs.cpu(kind?));
        self.state.places[worker.index()].activity = Some(Activity { at: now, ran_ns, delayed_ns, part });
    }

    /// Opens more places if all workers are busy, most of them only wait, and together they leave a core idle; whether
    /// it did.
    pub(super) fn grow(&mut self) -> bool {
        let (there, most) = (self.state.places.len(), self.state.workers_max);
        let all_busy = self.state.places.iter().all(|place| place.is_alive() && !place.is_idle());
        if there >= most || !all_busy || self.scheduler.runnable() == 0 || self.state.guard.is_short() {
            return false;
        }
        let parts = || self.state.places.iter().filter_map(|place| place.activity.as_ref()?.part);
        let waiting = parts().filter(|part| *part < WAITS_BELOW).count();
        if waiting * 2 < there {
            return false;
        }
        let wanted: f64 = parts().sum();
        // As many more as would want the rest of the cores, and one that is there when another has to wait.
        let rest = (cores() + 1) as f64 - wanted;
        let by_cores = (rest / (wanted / there as f64).max(1e-6)).max(0.0) as usize;
        let more = waiting.min(by_cores).min(most - there).min(self.room_for_workers());
        for _ in 0..more {
            self.state.places.push(Place::default());
            self.state.admission.add_worker();
        }
        more > 0
    }

    /// How many more workers there may be, if they come to hold what those that are there hold now; of nodes of which none
    /// has ended yet, nobody knows that.
    fn room_for_workers(&self) -> usize {
        let Some(budget) = self.state.admission.budget() else { return usize::MAX };
        let there = self.state.places.len().max(1) as u64;
        let mut each = (self.state.memory.private / there).max(SMALL_BYTES);
        let running = self.state.places.iter().filter_map(|place| place.running());
        let mut kinds = running.map(|node| self.costs.kind_of(&self.nodes, node));
        if kinds.any(|kind| self.costs.count(kind) == 0 && self.costs.known(kind).is_none()) {
            each = each.max(UNKNOWN_BYTES);
        }
        let held = self.state.admission.held().max(there * each);
        (budget.saturating_sub(held) / each) as usize
    }

    /// A worker has ended what it ran and holds this: it is replaced if that is more than it should.
    pub(super) fn rest(&mut self, worker: WorkerId, rest: u64) {
        self.state.admission.measured(worker, rest);
        if rest > self.may_keep() {
            self.state.places[worker.index()].retiring = Some(rest);
        }
    }

    /// What a worker may hold between two tasks.
    fn may_keep(&self) -> u64 {
        let fair = self.state.admission.budget().map(|budget| budget / self.state.places.len().max(1) as u64);
        // Nobody has said: what all of them may hold, in equal parts.
        let recycle = self.nodes.plan.settings.recycle;
        recycle.unwrap_or_else(|| fair.unwrap_or(u64::MAX).max(SMALL_BYTES))
    }

    /// A worker was seen to hold so much. What those keep whose tasks are too quick to be measured, or run beside each
    /// other, is known in no other way: they get nothing new until it can be told from what tasks take.
    pub(super) fn note_kept(&mut self, worker: WorkerId, held: u64) {
        let place = &self.state.places[worker.index()];
        if held <= self.may_keep() || place.is_idle() {
            return;
        }
        let is_unmeasured = match place.running() {
            Some(node) => self.costs.is_quick(self.costs.kind_of(&self.nodes, node)),
            None => self.nodes.plan.settings.recycle.is_some(),
        };
        if is_unmeasured {
            self.state.places[worker.index()].retiring = Some(held);
        }
    }

    /// Ends workers that are to be replaced, as soon as they have nothing in hand.
    pub(super) fn retire(&mut self, worker: WorkerId) {
        let place = &mut self.state.places[worker.index()];
        if place.is_idle() && place.killing.is_none() && matches!(place.life, Life::Runs(_)) {
            if place.retiring.take().is_none() {
                return;
            }
            let processes = self.processes_of(worker, None).unwrap_or_default();
            let held = self.held_by(worker, &processes);
            if held <= self.may_keep() {
                return;
            }
            let place = &mut self.state.places[worker.index()];
            place.killing = Some(Killing::Retired);
            self.pool.kill(worker);
            self.report.worker_recycled(worker, held);
        }
    }
}
