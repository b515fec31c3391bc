//! What happens to processes: births, deaths, signals.

use std::time::Duration;

use forkyard_shared::ids::{ArtifactId, NodeId, WorkerId};
use forkyard_shared::protocol::{End, FromZygote, ToCoordinator};
use forkyard_shared::pulse::Current;
use nix::sys::signal::Signal;

use super::core::Engine;
use crate::attempts::Trouble;
use crate::places::{self, Killing, Life};
use crate::pool::Event;
use crate::report::Ran;
use crate::run::{Ending, RunError};
use crate::schedule::State;
use crate::store::Outcome;

/// So many workers may die one after the other in one place without finishing anything.
const BARREN_MAX: u32 = 10;

impl Engine<'_> {
    pub(super) fn on_message(&mut self, message: ToCoordinator) -> Result<(), RunError> {
        if !self.hears(&message)? {
            return Ok(());
        }
        match message {
            ToCoordinator::Worker(message) => self.on_worker(message),
            ToCoordinator::Born(worker, pid) => {
                self.state.places[worker.index()].life = Life::Runs(pid);
                self.pool.note_worker(pid);
                self.report.worker_started(worker, pid);
                let running = self.state.places[worker.index()].running();
                if let Some(limit) = running.and_then(|node| self.memory_limit(node)) {
                    self.fence(worker, limit);
                }
                Ok(())
            }
            ToCoordinator::Zygote(FromZygote::ForkFailed(worker, error)) => {
                self.on_fork_failed(worker, &error)
            }
            ToCoordinator::Python(worker, pid) => {
                let place = &mut self.state.places[worker.index()];
                let inherited = self.state.memory.machine.private_of(pid);
                (place.python, place.python_inherited) = (Some(pid), inherited.map_or(0, |p| p.bytes()));
                let running = place.running();
                if let Some(limit) = running.and_then(|node| self.memory_limit(node)) {
                    self.fence(worker, limit);
                }
                // Its own end may hide its environment while what it has started is still below it.
                self.pool.note_worker(pid);
                Ok(())
            }
            ToCoordinator::LastWords(worker, words) => {
                self.state.places[worker.index()].last_words = words;
                Ok(())
            }
            ToCoordinator::Zygote(FromZygote::Died { worker, pid, end, python }) => {
                self.on_died(worker, pid, (end, python))
            }
            ToCoordinator::Zygote(FromZygote::PythonGone(end)) => {
                self.state.stopping = true;
                Err(RunError::PythonDied(end.to_string()))
            }
            ToCoordinator::Zygote(FromZygote::Ready(_) | FromZygote::PythonReady(_)) => Ok(()),
            ToCoordinator::Wake => {
                self.take_discarded();
                self.check_writer()
            }
        }
    }

    pub(super) fn on_fork_failed(&mut self, worker: WorkerId, error: &str) -> Result<(), RunError> {
        let nodes = self.state.places[worker.index()].abandon();
        self.state.places[worker.index()].life = Life::Refused;
        self.state.admission.gone(worker);
        for node in nodes {
            self.give_back(node);
        }
        // Others may just have died, and are asked for again.
        if !self.state.places.iter().any(|place| place.is_alive() || place.life == Life::Empty) {
            return Err(RunError::Pool(format!("the system refuses to start even one worker: {error}")));
        }
        self.report.say(&format!("the system refuses worker {}: {error}; going on with fewer", worker.0));
        Ok(())
    }

    pub(super) fn on_died(
        &mut self,
        worker: WorkerId,
        pid: u32,
        (end, python): (End, bool),
    ) -> Result<(), RunError> {
        let current = self.pool.pulse(worker).current();
        let place = &mut self.state.places[worker.index()];
        let killing = place.killing.take();
        let killed_for = match &killing {
            Some(Killing::Node(node) | Killing::Memory(node, ..) | Killing::Limit(node, _)) => Some(*node),
            Some(Killing::Distrusted(node, _)) => *node,
            Some(Killing::Everyone | Killing::Retired) | None => None,
        };
        // One of several beside each other for whose sake all were killed.
        let stuck = place.lanes.iter().find(|lane| Some(lane.node) == killed_for).map(|lane| Current {
            node: lane.node,
            started_ns: self.pool.now_ns().saturating_sub((self.pool.now() - lane.since).as_nanos() as u64),
        });
        // What it was doing is nothing that one who is not trusted could tell.
        let lied = matches!(killing, Some(Killing::Distrusted(..))).then_some(killed_for).flatten();
        let lied = lied.filter(|node| place.holds(*node));
        let lied = lied.map(|node| Current { node, started_ns: self.pool.now_ns() });
        let current = stuck.or(lied).or(current.filter(|current| place.holds(current.node)));
        let running = current.map(|current| current.node);
        let child = place.python;
        let told = if let Life::Runs(pid) = place.life { Some(pid) } else { None };
        let (held, log) = (place.abandon(), std::mem::take(&mut place.last_words));
        if place.life != Life::Refused {
            place.life = Life::Empty;
        }
        let over = running.and_then(|node| self.blame_limit(worker, node, &format!("its worker {end}")));
        self.state.fences.gone(worker);
        self.state.copied.retain(|(of, _)| *of != worker);
        if let Some(Killing::Memory(_, held, _)) = &killing {
            self.will_be_free(*held);
        }
        let held_bytes = self.state.admission.seen(worker);
        self.state.admission.gone(worker);
        self.dir.clear_tmp(Some(pid));
        [Some(pid), told, child].into_iter().flatten().for_each(|pid| self.pool.forget_worker(pid));
        let place = &mut self.state.places[worker.index()];
        if killing == Some(Killing::Retired) {
            // It did nothing, and that it would end was told.
            return Ok(());
        }
        // Those that we end say nothing of the place.
        place.barren += u32::from(matches!(killing, None | Some(Killing::Distrusted(..))));
        if place.barren > BARREN_MAX && running.is_none() {
            return Err(RunError::Pool(format!(
                "worker {} cannot live: it {end} {} times without finishing anything",
                worker.0, place.barren
            )));
        }
        self.report.worker_lost(worker, pid, end, running.map(|node| self.nodes.name(node)).as_deref());
        // The rest of its batches first, so that what depends on the node that failed is waiting by then.
        for node in held.iter().filter(|node| Some(**node) != running) {
            self.give_back(*node);
        }
        let Some(Current { node, started_ns }) = current else { return Ok(()) };
        if self.scheduler.state(node) != State::Taken {
            // It has lost its race, for which it was killed.
            return Ok(());
        }
        self.leave(node);
        let ran =
            Some(Ran { worker, started_ns, duration_ns: self.pool.now_ns().saturating_sub(started_ns) });
        match killing {
            Some(Killing::Node(late)) if late == node => {
                let message = self.late(node);
                self.on_trouble(node, Trouble::Timeout, message, ran, Vec::new());
            }
            Some(Killing::Memory(big, held, evidence)) if big == node => {
                self.on_memory(node, held, &evidence, ran);
            }
            Some(Killing::Limit(big, why)) if big == node => {
                self.on_trouble(node, Trouble::Error, why, ran, log);
            }
            Some(Killing::Distrusted(Some(of), why)) if of == node => {
                let message = format!("its worker was ended because it said what cannot be true: {why}");
                self.on_trouble(node, Trouble::Crash, message, ran, log);
            }
            // Killed by us, because the user interrupted or because its neighbour was late.
            Some(_) => self.give_back(node),
            None if over.is_some() => {
                self.on_trouble(node, Trouble::Error, over.unwrap_or_default(), ran, log)
            }
            None if end == End::Signal(Signal::SIGKILL as i32) && self.kernel_killed() => {
                let evidence = "the kernel killed its worker for want of memory";
                self.on_memory(node, held_bytes, evidence, ran);
            }
            None => {
                self.state.places[worker.index()].fell_ns = Some(started_ns);
                if end == End::Signal(Signal::SIGBUS as i32)
                    && let Some(artifact) = self.artifact_that_changed(node)
                {
                    self.state.ending = Ending::ArtifactChanged(artifact);
                    let message = self.changed(artifact);
                    self.give_up(node, Outcome::Failed, message, ran, Vec::new());
                    return Ok(());
                }
                let times = self.state.attempts.crashes(node) + 1;
                let (who, all) =
                    if python { ("Python process", "Python processes") } else { ("worker", "workers") };
                let message = match times {
                    1 => format!("its {who} {end}"),
                    _ => format!("its {who} {end}; it has killed {times} {all}"),
                };
                self.on_trouble(node, Trouble::Crash, message, ran, log);
            }
        }
        Ok(())
    }

    /// The node was killed because memory was short: it runs again when there is more.
    pub(super) fn on_memory(&mut self, node: NodeId, held: u64, evidence: &str, ran: Option<Ran>) {
        if self.make_wait(node, held) {
            self.state.attempts.note_memory(node);
            return self.give_back(node);
        }
        let message = format!(
            "it does not fit in memory, even alone: {evidence}; give it less to do at once, or the machine more memory"
        );
        self.give_up(node, Outcome::Failed, message, ran, Vec::new());
    }

    /// An artifact of the node that is not what it was when it was mapped.
    fn artifact_that_changed(&self, node: NodeId) -> Option<ArtifactId> {
        self.nodes.artifacts(node).iter().copied().find(|artifact| {
            self.artifacts[artifact.index()].watch().is_ok_and(|is_unchanged| !is_unchanged())
        })
    }

    pub(super) fn on_signal(&mut self, signal: Signal) {
        self.state.interrupts += 1;
        self.state.ending = Ending::Interrupted(signal);
        if self.state.interrupts == 1 {
            self.stop();
            if self.scheduler.taken() > 0 {
                let running = crate::text::plural(self.scheduler.taken(), "running node");
                self.report.say(&format!("interrupted: waiting for {running}; once more to stop now"));
            }
        } else if self.state.interrupts > 2 {
            self.pool.kill_all();
        } else {
            self.report.say("interrupted again: stopping now");
            for worker in places::ids(&self.state.places) {
                let place = &mut self.state.places[worker.index()];
                if place.is_alive() {
                    place.killing = Some(Killing::Everyone);
                }
            }
            self.pool.kill_workers();
        }
    }

    /// What had arrived before the end is taken; then the run ends.
    pub(super) fn on_zygote_gone(&mut self) -> Result<(), RunError> {
        while let Some(event) = self.pool.next(Some(Duration::ZERO)).map_err(RunError::Internal)? {
            if let Event::Message(message @ ToCoordinator::Worker(_)) = event {
                self.on_message(message)?;
            }
        }
        for worker in places::ids(&self.state.places) {
            for node in self.state.places[worker.index()].abandon() {
                self.give_back(node);
            }
        }
        self.state.stopping = true;
        Err(match self.state.ending {
            Ending::Interrupted(signal) if self.state.interrupts > 2 => RunError::Interrupted(signal),
            _ => RunError::ZygoteDied,
        })
    }
}
