//! What happens because time passes: timeouts, second attempts, progress.

use std::time::{Duration, Instant};

use forkyard_shared::ids::{NodeId, WorkerId};

use super::core::{Engine, SAMPLE_EVERY};
use crate::places::{self, Life};
use crate::report::Status;
use crate::timers::Timer;

/// Python processes that are looked at page by page in one sample.
const PYTHON_SAMPLES: usize = 16;

impl Engine<'_> {
    pub(super) fn on_time(&mut self, now: Instant, tick: Duration) {
        while let Some(timer) = self.state.timers.due(now) {
            match timer {
                Timer::Tick => {
                    if now >= self.state.next_sample {
                        self.sample_memory();
                    }
                    let status = self.status();
                    self.report.show(&status);
                    self.state.timers.set(now + tick, Timer::Tick);
                }
                Timer::Timeout(worker) => self.check_timeout(worker, now),
                Timer::Retry(node) => {
                    if self.state.retries.remove(&node) {
                        self.give_back(node);
                    }
                }
                Timer::Gate(at) => self.let_in(at),
                Timer::Share => {
                    self.state.sharing = false;
                    if self.scheduler.runnable() == 0 && self.has_idle_and_behind() {
                        self.take_back();
                    }
                }
            }
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
            return self.state.timers.set(now + shortest, Timer::Timeout(worker));
        };
        let ran = Duration::from_nanos(forkyard_shared::sys::now_ns().saturating_sub(current.started_ns));
        if ran < timeout {
            self.state.timers.set(now + (timeout - ran), Timer::Timeout(worker));
        } else if place.killing.is_none() {
            self.state.places[worker.index()].killing = Some(current.node);
            self.pool.kill(worker);
        }
    }

    pub(super) fn status(&self) -> Status {
        let now = forkyard_shared::sys::now_ns();
        let mut running: Vec<(String, Duration)> = places::ids(&self.state.places)
            .filter_map(|worker| {
                let current = self.pool.pulse(worker).current()?;
                let name = self.nodes.name(current.node).to_string();
                Some((name, Duration::from_nanos(now.saturating_sub(current.started_ns))))
            })
            .collect();
        for lane in self.state.places.iter().flat_map(|place| &place.lanes) {
            running.push((self.nodes.name(lane.node).to_string(), lane.since.elapsed()));
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

    /// What the Python processes have for themselves. Most of their memory is that of the process that forked them,
    /// which only the kernel tells apart, page by page: of many, some stand for all.
    fn private_of_python(&self) -> u64 {
        let private = |pid: u32| {
            let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let lines = rollup.lines().filter(|line| line.starts_with("Private_"));
            let kb = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
            Some(kb.sum::<u64>() * 1024)
        };
        let pids: Vec<u32> = self.state.places.iter().filter_map(|place| place.python).collect();
        let step = pids.len().div_ceil(PYTHON_SAMPLES).max(1);
        let some: Vec<u64> = pids.iter().step_by(step).copied().filter_map(private).collect();
        some.iter().sum::<u64>() * pids.len() as u64 / some.len().max(1) as u64
    }

    pub(super) fn sample_memory(&mut self) {
        self.state.next_sample = Instant::now() + SAMPLE_EVERY;
        let private = |pid: u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        };
        let pids = self.state.places.iter().filter_map(|place| match place.life {
            Life::Runs(pid) => Some(pid),
            Life::Empty | Life::Asked | Life::Refused => None,
        });
        let total: u64 = pids.filter_map(private).sum::<u64>() * 1024 + self.private_of_python();
        self.state.peak_private_bytes = self.state.peak_private_bytes.max(total);
    }
}
