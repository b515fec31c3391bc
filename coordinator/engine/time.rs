//! What happens because time passes: timeouts, second attempts, progress.

use std::time::{Duration, Instant};

use forkyard_shared::ids::{NodeId, WorkerId};

use super::core::Engine;
use crate::places::{self, Killing};
use crate::report::Status;
use crate::timers::Timer;

impl Engine<'_> {
    pub(super) fn on_time(&mut self, now: Instant, tick: Duration) {
        while let Some(timer) = self.state.timers.due(now) {
            match timer {
                Timer::SampleEnd => self.end_now(),
                Timer::Memory => self.look_if_due(now),
                Timer::Tick => {
                    self.look_at_python();
                    self.look_at_sharing();
                    let status = self.status();
                    self.report.show(&status);
                    self.state.timers.set(now + tick, Timer::Tick);
                }
                Timer::End => self.drain(),
                Timer::Timeout(worker) => self.timeout_is_due(worker, now),
                Timer::Retry(node) => {
                    if self.state.retries.remove(&node) {
                        self.give_back(node);
                    }
                }
                Timer::Gate(at) => self.gate_is_due(at, now),
                Timer::Share => {
                    self.state.sharing = false;
                    if self.scheduler.runnable() == 0 && self.has_idle_and_behind() {
                        self.take_back();
                    }
                }
            }
        }
    }

    /// The run is to start nothing new when so much time has passed.
    pub fn end_after(&mut self, limit: Duration) {
        self.state.timers.set(self.pool.now() + limit, Timer::End);
    }

    /// Looks at a worker then, unless it is looked at before: one timer a worker is enough, however many batches it
    /// gets.
    pub(super) fn watch_timeout(&mut self, worker: WorkerId, at: Instant) {
        let looked_at = &mut self.state.places[worker.index()].looked_at;
        if looked_at.is_none_or(|before| at < before) {
            *looked_at = Some(at);
            self.state.timers.set(at, Timer::Timeout(worker));
        }
    }

    fn timeout_is_due(&mut self, worker: WorkerId, now: Instant) {
        // Otherwise an earlier timer has come first, and set another one if that was needed.
        if self.state.places[worker.index()].looked_at.take_if(|at| *at <= now).is_some() {
            self.check_timeout(worker, now);
        }
    }

    pub(super) fn check_timeout(&mut self, worker: WorkerId, now: Instant) {
        self.check_lanes(worker, now);
        let timeout_of = |node: NodeId| self.nodes.detail(node).and_then(|detail| detail.timeout);
        let Some(place) = self.state.places.get(worker.index()) else { return };
        let shortest = place
            .in_use()
            .iter()
            .flat_map(|(_, sent)| sent.nodes.iter())
            .filter_map(|n| timeout_of(*n))
            .min();
        let Some(shortest) = shortest else { return };
        let current = self.pool.pulse(worker).current().filter(|current| place.holds(current.node));
        let limit = current.and_then(|current| Some((current, timeout_of(current.node)?)));
        let Some((current, timeout)) = limit else {
            // Nothing with a limit runs right now, but something will.
            return self.watch_timeout(worker, now + shortest);
        };
        let ran = Duration::from_nanos(self.pool.now_ns().saturating_sub(current.started_ns));
        if ran < timeout {
            self.watch_timeout(worker, now + (timeout - ran));
        } else if place.killing.is_none() {
            self.state.places[worker.index()].killing = Some(Killing::Node(current.node));
            self.pool.kill(worker);
        }
    }

    pub(super) fn status(&self) -> Status {
        let now = self.pool.now_ns();
        let mut running: Vec<(String, Duration)> = places::ids(&self.state.places)
            .filter_map(|worker| {
                let current = self.pool.pulse(worker).current()?;
                // The page of a worker that has died says what it ran.
                let place = &self.state.places[worker.index()];
                if !place.holds(current.node) {
                    return None;
                }
                let name = self.nodes.name(current.node).to_string();
                Some((name, Duration::from_nanos(now.saturating_sub(current.started_ns))))
            })
            .collect();
        for lane in self.state.places.iter().flat_map(|place| &place.lanes) {
            running.push((self.nodes.name(lane.node).to_string(), self.pool.now() - lane.since));
        }
        running.sort_by_key(|(_, since)| std::cmp::Reverse(*since));
        let counts = self.scheduler.counts();
        Status {
            wanted: self.scheduler.wanted(),
            settled: counts.settled(),
            cached: counts.cached,
            failed: counts.failures(),
            running,
            paused: self.state.paused,
            longest_remaining: f64::from(self.scheduler.longest_remaining()),
        }
    }
}
