//! A run that is only a sample: it ends when its nodes have shown what they take.

use forkyard_shared::ids::WorkerId;

use super::core::Engine;
use crate::places::{self, Killing, Life};
use crate::sample::ENOUGH;
use crate::store::Shares;

impl Engine<'_> {
    /// Starts nothing more if enough was measured of each kind.
    pub(super) fn end_sample(&mut self) {
        let Some((_, nodes)) = &self.state.sample else { return };
        let is_known = |node| self.costs.count(self.costs.kind_of(&self.nodes, node)) >= ENOUGH;
        if nodes.iter().all(|node| is_known(*node)) {
            self.stop();
        }
    }

    /// It has taken long enough: what runs is killed.
    pub(super) fn end_now(&mut self) {
        self.stop();
        for place in &mut self.state.places {
            if place.is_alive() && !place.is_idle() {
                place.killing = Some(Killing::Everyone);
            }
        }
        let busy = |worker: &WorkerId| self.state.places[worker.index()].killing.is_some();
        places::ids(&self.state.places).filter(busy).for_each(|worker| self.pool.kill(worker));
    }

    /// Looks what processes take that do nothing, at the end of a sample.
    pub(super) fn measure_shares(&mut self) {
        if self.state.sample.is_none() {
            return;
        }
        let machine = &self.state.memory.machine;
        let of_worker = |place: &places::Place| match place.life {
            Life::Runs(pid) => [Some(pid), place.python],
            _ => [None, None],
        };
        let workers: Vec<[Option<u32>; 2]> =
            self.state.places.iter().map(of_worker).filter(|pids| pids[0].is_some()).collect();
        let private = |pids: &[Option<u32>; 2]| -> u64 {
            pids.iter().flatten().filter_map(|pid| machine.exact_private(*pid)).sum()
        };
        let owned: Vec<u64> = workers.iter().map(private).collect();
        // What the worker has had for its last task, it may still hold.
        let Some(least) = owned.iter().min().copied() else { return };
        let below = machine.children();
        let zygote = self.pool.zygote();
        let mut all = vec![std::process::id(), zygote];
        all.extend(below.get(&zygote).into_iter().flatten());
        let together: u64 = all.iter().filter_map(|pid| machine.proportional(*pid)).sum();
        let fixed = together.saturating_sub(owned.iter().sum::<u64>() + self.state.memory.artifacts);
        self.state.shares = Some(Shares { fixed_bytes: fixed, worker_bytes: least });
    }
}
