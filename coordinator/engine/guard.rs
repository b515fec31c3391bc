//! What is done when memory gets short, step by step: start nothing new, give up workers that are idle, kill the youngest
//! task and run it again when there is room for it, then alone, and fail one that does not fit even so. Each step is told
//! with its evidence.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use forkyard_shared::ids::{NodeId, WorkerId};

use super::core::Engine;
use super::memory::SMALL_BYTES;
use crate::memory::Rooms;
use crate::places::{self, Killing, Life};
use crate::text;

/// Below this part of what there was at the start, nothing new starts ...
const STOP_BELOW: f64 = 0.125;
/// ... from here on it does again ...
const RESUME_FROM: f64 = 0.2;
/// ... idle workers end ...
const SHRINK_BELOW: f64 = 0.1;
/// ... and here somebody has to go.
const KILL_BELOW: f64 = 0.06;

/// A large machine need not keep more than this free.
const FREE_ENOUGH: u64 = 8 << 30;

/// How far ahead the speed at which memory goes is looked at.
const AHEAD: Duration = Duration::from_millis(60);

/// So long may it take until the memory of a process that has ended is free.
const FREED_WITHIN: Duration = Duration::from_millis(200);

/// If our workers hold less than this part of what is in use, it is not for us to make room.
const OURS: f64 = 0.1;

/// Where the ladder stands.
#[derive(Default)]
pub(crate) struct Guard {
    /// Whether nothing new is to be started.
    stopped: bool,
    /// What was left when it was looked at before, and when.
    before: Option<(Instant, u64)>,
    /// What nodes that were killed are expected to take, and how often they were.
    killed: HashMap<NodeId, (u64, u32)>,
    /// How many processes the kernel has killed for want of memory.
    pub(super) oom_kills: u64,
    /// What workers held that were killed for it, and when they had ended: the kernel frees it some time later.
    freed: Vec<(Instant, u64)>,
    /// Whether it was told that others use the memory.
    blamed_others: bool,
}

impl Guard {
    pub fn new(rooms: Option<&Rooms>) -> Guard {
        Guard { oom_kills: rooms.map_or(0, |rooms| rooms.oom_kills), ..Guard::default() }
    }

    /// Whether nothing new is to be started while anything runs.
    pub fn is_short(&self) -> bool {
        self.stopped
    }

    /// What a node is expected to take because it was killed.
    pub fn takes(&self, node: NodeId) -> u64 {
        if self.killed.is_empty() { 0 } else { self.killed.get(&node).map_or(0, |(bytes, _)| *bytes) }
    }

    pub(super) fn settled(&mut self, node: NodeId) {
        if !self.killed.is_empty() {
            self.killed.remove(&node);
        }
    }
}

impl Engine<'_> {
    /// Looks what is left, and takes the step that this asks for; whether memory is short.
    pub(super) fn guard(&mut self, now: Instant) -> bool {
        let Ok(rooms) = self.state.memory.machine.look() else { return false };
        let left = rooms.headroom(self.state.memory.artifacts);
        let whole = self.state.memory.whole.min(FREE_ENOUGH) as f64;
        let lost = match self.state.guard.before.replace((now, left)) {
            Some((then, before)) if now > then => {
                before.saturating_sub(left) as f64 * AHEAD.as_secs_f64() / (now - then).as_secs_f64()
            }
            _ => 0.0,
        };
        self.watch_memory(&rooms);
        let soon = left as f64 - lost;
        let guard = &mut self.state.guard;
        if !guard.stopped && soon < STOP_BELOW * whole {
            guard.stopped = true;
            self.take_back();
            let speed = lost / AHEAD.as_secs_f64();
            let why = match lost > 0.0 {
                true => format!(
                    "nothing new starts until there is more; it goes by {} a second",
                    text::bytes(speed as u64)
                ),
                false => "nothing new starts until there is more".into(),
            };
            self.step(&rooms, left, "stop_admitting", why, None);
        } else if guard.stopped && soon > RESUME_FROM * whole {
            guard.stopped = false;
            guard.blamed_others = false;
            self.step(&rooms, left, "resume", "nodes start again".into(), None);
        }
        if soon < SHRINK_BELOW * whole {
            self.shrink(&rooms, left);
        }
        if soon < KILL_BELOW * whole {
            self.make_room(&rooms, left, (STOP_BELOW * whole) as u64);
        }
        self.state.guard.stopped
    }

    /// Ends workers that do nothing and hold something.
    fn shrink(&mut self, rooms: &Rooms, left: u64) {
        let (mut count, mut held) = (0, 0);
        for worker in places::ids(&self.state.places) {
            let seen = self.state.admission.seen(worker);
            let place = &mut self.state.places[worker.index()];
            if place.is_idle()
                && place.killing.is_none()
                && matches!(place.life, Life::Runs(_))
                && seen > SMALL_BYTES
            {
                place.killing = Some(Killing::Retired);
                self.pool.kill(worker);
                (count, held) = (count + 1, held + seen);
            }
        }
        if count > 0 {
            let why = format!("{} that held {} ended", text::plural(count, "idle worker"), text::bytes(held));
            self.step(rooms, left, "shrink", why, None);
        }
    }

    /// Kills the youngest tasks until what is left would be this much.
    fn make_room(&mut self, rooms: &Rooms, left: u64, wanted: u64) {
        let tightest = rooms.tightest();
        let used = tightest.limit.saturating_sub(left);
        if (self.state.memory.private as f64) < OURS * used as f64 {
            if !std::mem::replace(&mut self.state.guard.blamed_others, true) {
                let why = format!(
                    "the workers hold only {} of it: others on {} use the memory",
                    text::bytes(self.state.memory.private),
                    tightest.name
                );
                self.step(rooms, left, "wait", why, None);
            }
            return;
        }
        // What is dying already will be free.
        let dying = |id: &WorkerId| self.state.places[id.index()].killing.is_some();
        let now = self.pool.now();
        self.state.guard.freed.retain(|(then, _)| now - *then < FREED_WITHIN);
        let mut free: u64 = left
            + self.state.guard.freed.iter().map(|(_, held)| held).sum::<u64>()
            + places::ids(&self.state.places)
                .filter(dying)
                .map(|id| self.state.admission.seen(id))
                .sum::<u64>();
        while free < wanted {
            let Some((worker, node)) = self.youngest() else { return };
            let held = self.state.admission.seen(worker);
            free += held.max(SMALL_BYTES);
            self.kill_for_memory(rooms, left, (worker, node), held);
        }
    }

    /// The task that began last, of those that hold memory; one whose repetition may have an effect only if there is no
    /// other.
    fn youngest(&self) -> Option<(WorkerId, NodeId)> {
        let tasks = places::ids(&self.state.places).filter_map(|worker| {
            let place = &self.state.places[worker.index()];
            if place.killing.is_some() || self.state.admission.seen(worker) <= SMALL_BYTES {
                return None;
            }
            let lane = place.lanes.iter().max_by_key(|lane| lane.since).map(|lane| lane.node);
            let current = self.pool.pulse(worker).current().filter(|current| place.holds(current.node));
            let node = lane.or(current.as_ref().map(|current| current.node))?;
            let started = current.map_or(u64::MAX, |current| current.started_ns);
            let was_killed = self.state.guard.killed.contains_key(&node);
            Some(((self.nodes.is_cached(node), !was_killed, started), (worker, node)))
        });
        tasks.max_by_key(|(order, _)| *order).map(|(_, task)| task)
    }

    fn kill_for_memory(&mut self, rooms: &Rooms, left: u64, (worker, node): (WorkerId, NodeId), held: u64) {
        let place = &mut self.state.places[worker.index()];
        let tightest = rooms.tightest();
        let evidence = format!(
            "its worker held {} when {} of the {} of {} were left",
            text::bytes(held),
            text::bytes(left),
            text::bytes(tightest.limit),
            tightest.name
        );
        let why = format!("killed, for it held {}", text::bytes(held));
        if place.lanes.len() < 2 {
            place.killing = Some(Killing::Memory(node, held, evidence));
        } else {
            // Whose memory it was, nobody knows: each is tried alone.
            self.state.suspects.extend(place.lanes.iter().map(|lane| lane.node));
            place.killing = Some(Killing::Everyone);
        }
        self.pool.kill(worker);
        let name = self.nodes.name(node).to_string();
        self.step(rooms, left, "kill", why, Some(&name));
    }

    /// A node was killed that held so much: it runs again when there is room for twice that, or for what others of its
    /// kind take. The next time it runs alone. False if it did.
    pub(super) fn make_wait(&mut self, node: NodeId, held: u64) -> bool {
        let all = self.state.admission.budget().unwrap_or(u64::MAX / 4).max(SMALL_BYTES);
        let kind = self.costs.kind_of(&self.nodes, node);
        let takes =
            self.memory_of(node).max(2 * held).max(self.costs.private_max(kind)).clamp(SMALL_BYTES, all);
        let (bytes, times) = self.state.guard.killed.entry(node).or_insert((0, 0));
        *times += 1;
        *bytes = if *times == 1 { takes } else { all };
        *times < 3
    }

    /// A worker that was killed because memory was short has ended.
    pub(super) fn will_be_free(&mut self, held: u64) {
        self.state.guard.freed.push((self.pool.now(), held));
    }

    /// What a node may hold at the most.
    pub(super) fn memory_limit(&self, node: NodeId) -> Option<u64> {
        self.nodes.detail(node)?.memory_limit
    }

    /// Has the kernel keep the limit of what a worker runs, where it does that for us.
    pub(super) fn fence(&mut self, worker: WorkerId, limit: u64) {
        let place = &self.state.places[worker.index()];
        // One that is not born yet is fenced when it is.
        let Life::Runs(pid) = place.life else { return };
        let processes: Vec<u32> = [Some(pid), place.python].into_iter().flatten().collect();
        self.state.fences.close(worker, &processes, limit);
    }

    /// What a failure is to be called if it comes from a limit that the kernel keeps.
    pub(super) fn blame_limit(&self, worker: WorkerId, node: NodeId, why: &str) -> Option<String> {
        let limit = self.memory_limit(node).filter(|_| self.state.fences.has_killed(worker))?;
        Some(format!("it took more than its memory_limit of {}: {why}", text::bytes(limit)))
    }

    /// A node holds more than it may.
    pub(super) fn pass_limit(&mut self, worker: WorkerId, node: NodeId, held: u64, limit: u64) {
        let place = &mut self.state.places[worker.index()];
        if place.killing.is_none() {
            let why = format!(
                "it held {}, more than its memory_limit of {}",
                text::bytes(held),
                text::bytes(limit)
            );
            place.killing = Some(Killing::Limit(node, why));
            self.pool.kill(worker);
        }
    }

    /// Whether a command that failed so was killed because memory was short, by us or by the kernel: what it held, and what
    /// was seen.
    pub(super) fn was_killed_for_memory(
        &mut self,
        worker: WorkerId,
        node: NodeId,
        why: &str,
    ) -> Option<(u64, String)> {
        if !self.ops.get(self.nodes.op(node)).signature().runs_command() {
            return None;
        }
        if let Some(Killing::Memory(big, held, evidence)) = &self.state.places[worker.index()].killing
            && *big == node
        {
            return Some((*held, evidence.clone()));
        }
        // By itself, or below a shell, which says so with a number.
        let was_killed = why.contains("SIGKILL") || why.contains("137");
        let held = self.state.admission.seen(worker);
        (was_killed && self.kernel_killed()).then(|| {
            (
                held,
                format!(
                    "the kernel killed its command, which held {} when it was last seen",
                    text::bytes(held)
                ),
            )
        })
    }

    /// Whether the kernel has killed somebody for want of memory whom nobody has asked for yet.
    pub(super) fn kernel_killed(&mut self) -> bool {
        let Ok(rooms) = self.state.memory.machine.look() else { return false };
        // One for each that asks: several may have been killed together.
        let more = rooms.oom_kills > self.state.guard.oom_kills;
        self.state.guard.oom_kills += u64::from(more);
        more
    }

    fn step(&mut self, rooms: &Rooms, left: u64, action: &str, why: String, node: Option<&str>) {
        let private = self.state.memory.private;
        self.report.pressure(rooms, (left, private), action, &why, node);
    }
}
