//! Coroutines: tasks that run beside each other in one Python process. A worker has either these or a batch. They are
//! begun as there is room, spread over the workers, end in any order, and can be given up one by one.

use std::time::{Duration, Instant};

use forkyard_shared::ids::{NodeId, WorkerId};
use forkyard_shared::protocol::{Completion, Task};

use super::core::Engine;
use crate::attempts::Trouble;
use crate::places::{self, Killing, Lane, Life};
use crate::report::Ran;
use crate::run::RunError;

/// Tasks in one message.
const MESSAGE_TASKS: usize = 64;

/// Messages to a worker that it has not read: so many, and of so many bytes each, fit its channel, so that sending
/// never waits for it.
const UNREAD_MAX: u16 = 64;

/// What one task's parameters may take to be sent beside others that were not read.
const TASK_BYTES: usize = 2 << 10;

/// How long a coroutine may take to give up before its process is killed.
const GIVE_UP: Duration = Duration::from_secs(5);

impl Engine<'_> {
    /// Begins the most urgent coroutines in the place that has the fewest; false if there is no room.
    pub(super) fn begin_some(&mut self) -> Result<bool, RunError> {
        let Some(next) = self.scheduler.peek() else { return Ok(false) };
        let alone = self.state.suspects.contains(&next);
        let most = self.nodes.plan.python.as_ref().map_or(crate::manifest::CONCURRENCY, |p| p.concurrency);
        let Some(worker) = self.place_with_room(most, alone) else { return Ok(false) };
        if self.state.places[worker.index()].life == Life::Empty {
            self.fork(worker)?;
        }
        let (places, beside) = (self.state.places.len(), self.state.places[worker.index()].lanes.len());
        let share = self.scheduler.runnable().div_ceil(places).max(1);
        let most = if alone { 1 } else { share.min(most - beside).min(MESSAGE_TASKS) };
        let (mut tasks, mut bytes) = (Vec::new(), 0);
        let lanes = &self.state.places[worker.index()].lanes;
        let mut reserved: u64 = lanes.iter().map(|lane| self.memory_of(lane.node)).sum();
        while tasks.len() < most && (tasks.is_empty() || bytes < TASK_BYTES) {
            let Some(node) = self.scheduler.peek() else { break };
            let joins = self.nodes.is_concurrent(node) && (alone || !self.state.suspects.contains(&node));
            if !joins {
                break;
            }
            let memory = self.memory_of(node);
            if !self.state.admission.admits_beside(reserved, node, memory, worker) {
                if !tasks.is_empty() {
                    break;
                }
                self.scheduler.take();
                self.state.admission.wait(node, memory);
                continue;
            }
            self.scheduler.take();
            if !self.claim(node) {
                continue;
            }
            match self.task(node) {
                Ok(task) => {
                    bytes += size(&task);
                    tasks.push(task);
                    reserved += memory;
                    self.state.admission.start(node, reserved, worker);
                }
                Err(unread) => self.cannot_send(node, unread),
            }
        }
        if tasks.is_empty() {
            // Whoever was there waits for something else now.
            return Ok(true);
        }
        let now = self.pool.now();
        for task in &tasks {
            if let Some(timeout) = self.nodes.detail(task.node).and_then(|detail| detail.timeout) {
                self.watch_timeout(worker, now + timeout);
            }
        }
        self.look_soon(&tasks.iter().map(|task| task.node).collect::<Vec<_>>());
        let place = &mut self.state.places[worker.index()];
        place.lanes.extend(tasks.iter().map(|task| Lane {
            node: task.node,
            since: now,
            given_up: None,
            alone,
        }));
        place.unread += 1;
        self.pool.begin(worker, tasks);
        Ok(true)
    }

    fn place_with_room(&self, most: usize, alone: bool) -> Option<WorkerId> {
        let room = |id: &WorkerId| {
            let place = &self.state.places[id.index()];
            let most = if alone { 1 } else { most };
            let can_live = place.is_alive() || place.life == Life::Empty;
            can_live
                && place.killing.is_none()
                && place.has_no_batch()
                && place.lanes.len() < most
                && place.retiring.is_none()
                && place.unread < UNREAD_MAX
                && place.lanes.iter().all(|lane| !lane.alone)
        };
        // Who is there already comes before who would have to be forked.
        let load = |id: &WorkerId| {
            let place = &self.state.places[id.index()];
            (place.lanes.len(), place.life == Life::Empty)
        };
        places::ids(&self.state.places).filter(room).min_by_key(load)
    }

    /// A task that ran beside others has ended.
    pub(super) fn on_lane(&mut self, worker: WorkerId, completion: Completion) {
        let lane = self.state.places[worker.index()].lane_ended(completion.node);
        let lane = lane.expect("BUG: it was looked at");
        let left = self.state.places[worker.index()].lanes.iter().map(|lane| self.memory_of(lane.node)).sum();
        self.state.admission.reserve(worker, left);
        // Whatever it makes of being given up, but for a result.
        if lane.given_up.is_some() && completion.outcome.is_err() {
            let Completion { node, started_ns, duration_ns, log, .. } = completion;
            self.leave(node);
            if self.is_taken(node) {
                let ran = Ran { worker, started_ns, duration_ns };
                let message = self.late(node);
                self.on_trouble(node, Trouble::Timeout, message, Some(ran), log);
            }
            return;
        }
        self.on_completion(worker, completion);
    }

    /// Has coroutines that are late give up, and kills those that do not.
    pub(super) fn check_lanes(&mut self, worker: WorkerId, now: Instant) {
        let timeout_of = |node: NodeId| self.nodes.detail(node).and_then(|detail| detail.timeout);
        let (mut late, mut stuck, mut next) = (Vec::new(), Vec::new(), None::<Instant>);
        for lane in &mut self.state.places[worker.index()].lanes {
            let Some(timeout) = timeout_of(lane.node) else { continue };
            let due = match lane.given_up {
                Some(told) => told + GIVE_UP,
                None => lane.since + timeout,
            };
            if due > now {
                next = Some(next.map_or(due, |next| next.min(due)));
            } else if lane.given_up.is_none() {
                lane.given_up = Some(now);
                late.push(lane.node);
            } else {
                stuck.push(lane.node);
            }
        }
        if !late.is_empty() {
            self.watch_timeout(worker, now + GIVE_UP);
        }
        for node in late {
            self.pool.cancel(worker, node);
        }
        if let Some(next) = next {
            self.watch_timeout(worker, next);
        }
        if !stuck.is_empty() && self.state.places[worker.index()].killing.is_none() {
            let killing = match stuck.as_slice() {
                [one] => Killing::Node(*one),
                // One of them keeps the others: alone it will show.
                several => {
                    self.state.suspects.extend(several);
                    Killing::Everyone
                }
            };
            self.state.places[worker.index()].killing = Some(killing);
            self.pool.kill(worker);
        }
    }

    /// What is said of a node that took too long.
    pub(super) fn late(&self, node: NodeId) -> String {
        let timeout = self.nodes.detail(node).and_then(|detail| detail.timeout).unwrap_or_default();
        format!("it ran for more than its timeout of {}", crate::text::duration(timeout))
    }
}

/// The bytes of a task's parameters, about.
fn size(task: &Task) -> usize {
    task.params.iter().map(|(name, param)| name.len() + param.len()).sum()
}
