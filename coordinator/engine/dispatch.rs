//! Filling the workers: who gets the next batch, what is in it, and taking back what waits too long.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use forkyard_shared::digest::Digest;
use forkyard_shared::ids::{NodeId, WorkerId};
use forkyard_shared::protocol::Batch;
use forkyard_worker::Ops;

use super::core::Engine;
use super::lookup::ABREAST;
use super::memory::SMALL_BYTES;
use super::results::Unread;
use crate::key::Said;
use crate::nodes::Nodes;
use crate::places::{self, Life};
use crate::plan::Detail;
use crate::run::RunError;
use crate::schedule::State;
use crate::store::{AtHand, Outcome};
use crate::timers::Timer;

/// How long a worker is idle before it gets what waits behind another.
const SHARE_AFTER: Duration = Duration::from_millis(2);

/// Workers asked for and not yet born: so few that asking never waits for the zygote, which may itself wait for us.
const FORKS_ASKED_MAX: usize = 64;

/// Parameters in one message: as much as the channel takes while its worker is busy, or not yet born, and does
/// not read. More goes alone, to a worker that waits for it.
const MESSAGE_BYTES: usize = 64 << 10;

impl Engine<'_> {
    pub(super) fn fill_workers(&mut self) -> Result<(), RunError> {
        while !self.state.stopping && !self.state.paused && !self.waits_for_memory() {
            self.let_in_for_memory();
            if self.scheduler.runnable() == 0 {
                break;
            }
            if self.scheduler.peek().is_some_and(|next| self.nodes.is_concurrent(next)) {
                if self.begin_some()? {
                    continue;
                }
                break;
            }
            let Some(worker) = self.next_place()? else { break };
            if !self.send_batch(worker) {
                break;
            }
        }
        if !self.state.sharing
            && !self.state.stopping
            && self.scheduler.runnable() == 0
            && self.has_idle_and_behind()
        {
            self.state.sharing = true;
            self.state.timers.set(self.pool.now() + SHARE_AFTER, Timer::Share);
        }
        Ok(())
    }

    /// A place that may be given a batch: an idle worker, a new one, or one whose next batch can wait
    /// behind a short one.
    pub(super) fn next_place(&mut self) -> Result<Option<WorkerId>, RunError> {
        let idle = places::ids(&self.state.places).find(|id| {
            let place = &self.state.places[id.index()];
            place.is_alive() && place.is_idle() && place.killing.is_none()
        });
        if idle.is_some() {
            return Ok(idle);
        }
        let asked = self.state.places.iter().filter(|place| place.life == Life::Asked).count();
        let empty = places::ids(&self.state.places)
            .find(|id| asked < FORKS_ASKED_MAX && self.state.places[id.index()].life == Life::Empty);
        if let Some(worker) = empty {
            self.fork(worker)?;
            return Ok(Some(worker));
        }
        let Some(next) = self.scheduler.peek() else { return Ok(None) };
        if !self.costs.may_queue(self.costs.kind_of(&self.nodes, next)) {
            return Ok(None);
        }
        let short = places::ids(&self.state.places).find(|id| {
            let place = &self.state.places[id.index()];
            place.is_alive()
                && place.killing.is_none()
                && place.retiring.is_none()
                && place.free_slot().is_some()
                && place.lanes.is_empty()
                && place
                    .in_use()
                    .iter()
                    .all(|(_, sent)| sent.kinds.iter().all(|kind| self.costs.may_queue(*kind)))
        });
        Ok(short)
    }

    pub(super) fn fork(&mut self, worker: WorkerId) -> Result<(), RunError> {
        if !self.state.attached {
            let (attach, report) = (&mut self.attach, &mut self.report);
            self.pool.attach(&mut |pool| attach(pool, report))?;
            self.state.attached = true;
        }
        self.pool.fork(worker).map_err(|error| RunError::of_pool("start a worker", &error))?;
        self.state.places[worker.index()].life = Life::Asked;
        self.state.forks += 1;
        Ok(())
    }

    /// Sends the most urgent nodes; false if there is nothing that this worker can be sent now.
    pub(super) fn send_batch(&mut self, worker: WorkerId) -> bool {
        let mut nodes = self.collect_batch(worker);
        if nodes.is_empty() {
            return false;
        }
        let (mut tasks, mut bytes) = (Vec::with_capacity(nodes.len()), 0);
        for (index, node) in nodes.iter().enumerate() {
            let task = match self.task(*node) {
                Ok(task) => task,
                Err(unread) => {
                    nodes.iter().filter(|other| *other != node).for_each(|other| self.give_back(*other));
                    self.cannot_send(*node, unread);
                    return true;
                }
            };
            bytes += task.params.iter().map(|(name, param)| name.len() + param.len()).sum::<usize>();
            let place = &self.state.places[worker.index()];
            let reads = place.is_idle() && place.life != Life::Asked;
            if bytes > MESSAGE_BYTES && (index > 0 || !reads) {
                break;
            }
            tasks.push(task);
        }
        let unsent = nodes.split_off(tasks.len());
        if nodes.is_empty() {
            // Not even the first fits beside what the worker does. Looked up anew they would be here again at once.
            unsent.into_iter().for_each(|node| self.put_back(node));
            return false;
        }
        unsent.into_iter().for_each(|node| self.give_back(node));
        let number = self.state.next_batch;
        self.state.next_batch = number.wrapping_add(1);
        let place = &self.state.places[worker.index()];
        let slot = place.free_slot().expect("BUG: a batch for a place without a free slot");
        if let Some(timeout) = nodes.iter().filter_map(|n| self.nodes.detail(*n)?.timeout).min() {
            self.watch_timeout(worker, self.pool.now() + timeout);
        }
        let mut kinds = Vec::new();
        for node in &nodes {
            let kind = self.costs.kind_of(&self.nodes, *node);
            if kinds.last() != Some(&kind) {
                kinds.push(kind);
            }
            self.state.admission.start(*node, self.memory_of(*node), worker);
        }
        self.look_soon(&nodes);
        let limit = nodes.first().and_then(|node| self.memory_limit(*node));
        self.state.places[worker.index()].sent(slot, number, nodes, kinds);
        if let Some(limit) = limit {
            self.fence(worker, limit);
        }
        self.pool.send(worker, Batch { number, slot: slot as u8, tasks });
        true
    }

    /// The node cannot be put into a message.
    pub(super) fn cannot_send(&mut self, node: NodeId, unread: Unread) {
        match unread {
            Unread::Gone(producer) => self.compute_anew(producer, node),
            Unread::Full(message) => {
                self.give_back(node);
                self.on_full(message);
            }
            Unread::Wrong(message) => self.give_up(node, Outcome::Failed, message, None, Vec::new()),
        }
    }

    /// The most urgent nodes that fit one batch, with successors that need nothing outside it.
    pub(super) fn collect_batch(&mut self, worker: WorkerId) -> Vec<NodeId> {
        let workers = self.state.places.len();
        let (mut nodes, mut limit, mut at, mut fetched) = (Vec::new(), 1, 0, 0);
        // What the largest of them takes: they run one by one.
        let mut most = 0;
        loop {
            if at == nodes.len() {
                // Where all workers find enough, several are taken together.
                let abreast = (self.scheduler.runnable() / (2 * workers)).clamp(1, ABREAST);
                while nodes.len() < at + abreast && self.take_one(worker, &mut nodes, (&mut limit, &mut most))
                {
                }
                if at == nodes.len() {
                    break;
                }
            }
            if at >= fetched {
                self.fetch(nodes[at..].iter().copied());
                fetched = nodes.len();
            }
            if self.nodes.flow(nodes[at]).is_some() {
                // What comes after it may depend on what it returns.
                at += 1;
                continue;
            }
            let mut chained = Vec::new();
            let has_limit = self.memory_limit(nodes[at]).is_some();
            let (keys, in_flight, taken) = (&mut self.keys, &mut self.state.in_flight, nodes.len());
            self.scheduler.chain(nodes[at], |user| {
                let detail = self.nodes.detail(user);
                let kind = self.costs.kind(self.nodes.op(user), detail.and_then(Detail::label));
                let room = taken + chained.len() < self.costs.batch(kind, 1, workers);
                let said = detail.and_then(|detail| detail.memory).unwrap_or(0);
                let is_big = self.costs.private_max(kind).max(said) > most.max(SMALL_BYTES);
                if !room || has_limit || is_big {
                    return false;
                }
                let key = if keys.is_early(user) {
                    keys.of(user)
                } else {
                    let may_chain = detail.is_none_or(|detail| {
                        let is_concurrent = detail.call.as_ref().is_some_and(|call| call.is_concurrent);
                        detail.memory_limit.is_none() && !is_concurrent
                    });
                    if !may_chain || !keys.is_known_early(&self.nodes, user) {
                        return false;
                    }
                    let Ok(key) = keys.make(&self.nodes, user, Said::of(detail), |_| None) else {
                        return false;
                    };
                    key
                };
                // One that is stored, or on its way, is settled when it becomes ready.
                let stored = match keys.at_hand(user) {
                    _ if self.limits.runs_anew(&self.nodes, user) => false,
                    AtHand::Absent => false,
                    AtHand::Null => true,
                    AtHand::Ask | AtHand::Unknown => self.reader.lookup(key).is_some(),
                };
                let taken =
                    !stored && (!shares_its_key(&self.nodes, self.ops, user) || claim(in_flight, key, user));
                if taken {
                    chained.push(user);
                }
                taken
            });
            nodes.extend(chained);
            at += 1;
        }
        self.scheduler.end_chain();
        nodes
    }

    /// Takes the most urgent node into a batch, where it may be in it; whether the next one may be too. `most` is what the
    /// largest of them takes: they run one by one.
    fn take_one(
        &mut self,
        worker: WorkerId,
        nodes: &mut Vec<NodeId>,
        (limit, most): (&mut usize, &mut u64),
    ) -> bool {
        let Some(node) = self.scheduler.peek() else { return false };
        if self.nodes.is_concurrent(node) {
            return false;
        }
        let kind = self.costs.kind_of(&self.nodes, node);
        let fits = self.costs.batch(kind, self.scheduler.runnable(), self.state.places.len());
        *limit = if nodes.is_empty() { fits } else { fits.min(*limit) };
        if nodes.len() >= *limit {
            return false;
        }
        let bytes = self.memory_of(node);
        if self.memory_limit(node).is_some() {
            // It goes alone: the limit is its own.
            let place = &self.state.places[worker.index()];
            // A worker that is not born yet could not be limited.
            if !nodes.is_empty() || !place.is_idle() || place.life == Life::Asked {
                return false;
            }
            *limit = 1;
        }
        if !self.state.admission.admits(node, bytes.max(*most), worker) {
            if !nodes.is_empty() {
                return false;
            }
            self.scheduler.take();
            self.state.admission.wait(node, bytes);
            return true;
        }
        self.scheduler.take();
        if self.claim(node) {
            *most = bytes.max(*most);
            nodes.push(node);
        } else {
            // Whom it waits for may have to pass the same gate.
            self.leave(node);
        }
        true
    }

    /// Whether memory is so short that what runs has to end first.
    fn waits_for_memory(&self) -> bool {
        self.state.guard.is_short() && self.state.places.iter().any(|place| !place.is_idle())
    }

    /// A node that has waited for memory goes on, if there is room for it now.
    fn let_in_for_memory(&mut self) {
        if self.state.admission.is_anyone_waiting()
            && let Some(node) = self.state.admission.next_to_start()
        {
            self.scheduler.unhold(node);
        }
    }

    /// Notes that a node is on its way; false if an identical one is already, for which it now waits.
    pub(super) fn claim(&mut self, node: NodeId) -> bool {
        if !shares_its_key(&self.nodes, self.ops, node)
            || claim(&mut self.state.in_flight, self.keys.of(node), node)
        {
            return true;
        }
        let others = self.state.in_flight.get_mut(&self.keys.of(node));
        others.expect("BUG: a claim without its key").waiting.push(node);
        false
    }

    /// Takes the nodes that wait for an identical one.
    pub(super) fn waiting_for(&mut self, node: NodeId) -> Vec<NodeId> {
        if self.state.in_flight.is_empty() {
            return Vec::new();
        }
        let key = self.keys.of(node);
        match self.state.in_flight.get(&key) {
            Some(claim) if claim.runner == node => {}
            _ => return Vec::new(),
        }
        self.state.in_flight.remove(&key).map_or(Vec::new(), |claim| claim.waiting)
    }

    /// The node does not wait for an identical one any more.
    pub(super) fn stop_waiting(&mut self, node: NodeId) {
        if let Some(claim) = self.state.in_flight.get_mut(&self.keys.of(node)) {
            claim.waiting.retain(|other| *other != node);
        }
    }

    /// Nothing starts any more: nobody waits for a node that has not.
    pub(super) fn release_all_waiting(&mut self) {
        let idle = |claim: &&Claim| self.scheduler.state(claim.runner) != State::Taken;
        let runners: Vec<NodeId> =
            self.state.in_flight.values().filter(idle).map(|claim| claim.runner).collect();
        runners.into_iter().for_each(|runner| self.release_waiting(runner));
    }

    /// A node is no longer on its way; those that waited for it start anew.
    pub(super) fn release_waiting(&mut self, node: NodeId) {
        for other in self.waiting_for(node) {
            self.leave(other);
            self.scheduler.release(other);
        }
    }

    /// A taken node comes back unrun.
    pub(super) fn give_back(&mut self, node: NodeId) {
        if self.scheduler.state(node) != State::Taken {
            // It has lost its race.
            return;
        }
        self.leave(node);
        self.release_waiting(node);
        self.scheduler.release(node);
    }

    /// A node that was not sent is as it was before it was taken: runnable, or waiting for those with which it went along.
    fn put_back(&mut self, node: NodeId) {
        if self.scheduler.needs_nothing(node) {
            self.contexts.read(node);
            self.scheduler.unhold(node);
        } else {
            self.give_back(node);
        }
    }

    pub(super) fn has_idle_and_behind(&self) -> bool {
        let places = || self.state.places.iter();
        // Also a place whose worker has died since: it can have another one.
        let idle = places().any(|place| place.is_alive() && place.is_idle() || place.life == Life::Empty);
        idle && places().any(|place| place.in_use().iter().map(|(_, sent)| sent.left()).sum::<usize>() > 1)
    }

    /// Takes back what no worker has begun.
    pub(super) fn take_back(&mut self) {
        places::ids(&self.state.places).for_each(|worker| self.take_back_from(worker));
    }

    /// Takes back what this worker has not begun.
    pub(super) fn take_back_from(&mut self, worker: WorkerId) {
        let batches: Vec<(usize, u32)> = self.state.places[worker.index()]
            .in_use()
            .iter()
            .map(|(slot, sent)| (*slot, sent.number))
            .collect();
        for (slot, number) in batches {
            let unclaimed = self.pool.pulse(worker).take_back(slot, number);
            self.return_nodes(worker, number, unclaimed.len());
        }
    }

    pub(super) fn return_nodes(&mut self, worker: WorkerId, batch: u32, count: usize) {
        if count > 0 {
            for node in self.state.places[worker.index()].shorten(batch, count) {
                self.give_back(node);
            }
            self.have_rested(worker);
        }
    }
}

impl Engine<'_> {
    /// If a worker has nothing in hand any more, nothing is kept for it.
    pub(super) fn have_rested(&mut self, worker: WorkerId) {
        if self.state.places[worker.index()].is_idle() {
            self.state.admission.reserve(worker, 0);
            self.state.fences.open(worker);
        }
    }
}

/// Whether another node could have the same key and do with this one's result. (No other node has the key of one
/// that has its own id in it.)
fn shares_its_key(nodes: &Nodes, ops: &Ops, node: NodeId) -> bool {
    nodes.is_cached(node) && !ops.get(nodes.op(node)).signature().effect
}

/// A node that runs, or is about to, and the identical ones that wait for it.
pub(super) struct Claim {
    pub(super) runner: NodeId,
    pub(super) waiting: Vec<NodeId>,
}

/// Notes that a node of this key is on its way; false if another one is already.
fn claim(in_flight: &mut HashMap<Digest, Claim>, key: Digest, runner: NodeId) -> bool {
    match in_flight.entry(key) {
        Entry::Occupied(entry) => entry.get().runner == runner,
        Entry::Vacant(entry) => {
            entry.insert(Claim { runner, waiting: Vec::new() });
            true
        }
    }
}
