//! Walks the whole state of a run and compares its parts with each other.

use std::collections::HashMap;

use forkyard_shared::ids::NodeId;

use crate::engine::Engine;
use crate::places;
use crate::schedule::State;

impl Engine<'_> {
    /// What has become of each node, for who looks at one run.
    pub(in crate::engine) fn print(&self) {
        for node in (0..self.nodes.len()).map(NodeId::new) {
            eprintln!("{}: {:?}", self.nodes.name(node), self.scheduler.state(node));
        }
    }

    /// Nobody is lost, nobody is in two hands, and every count is right.
    pub(in crate::engine) fn sanity_check(&self) {
        let in_no_queue = self.scheduler.sanity_check();
        for node in in_no_queue {
            let waits = self.state.decidable.iter().any(|(race, _)| *race == node);
            assert!(waits, "{} is ready, and in no queue", self.nodes.name(node));
        }
        let mut holders: HashMap<NodeId, Vec<&str>> = HashMap::new();
        let mut note = |node: NodeId, who: &'static str| holders.entry(node).or_default().push(who);
        for place in places::ids(&self.state.places).map(|id| &self.state.places[id.index()]) {
            for (_, sent) in place.in_use() {
                let ended = sent.nodes.len() - sent.left();
                sent.nodes[ended..].iter().for_each(|node| note(*node, "a worker"));
            }
        }
        // One for whatever is waited for, and some that were set too late; not one for each that waits.
        let (timers, most) =
            (self.state.timers.count(), 16 + 4 * (self.state.places.len() + self.state.gates.len()));
        assert!(timers <= most, "{timers} timers, {most} at the most");
        self.state.retries.iter().for_each(|node| note(*node, "the next attempt"));
        self.state.gates.sanity_check(|node| self.nodes.declared(node)).for_each(|node| note(node, "a gate"));
        self.state.admission.waiting().for_each(|node| note(node, "memory"));
        for claim in self.state.in_flight.values() {
            claim.waiting.iter().for_each(|node| note(*node, "an identical one"));
            if !claim.waiting.is_empty() {
                let runner = self.scheduler.state(claim.runner);
                let runs = matches!(runner, State::Taken | State::Ready | State::Waiting);
                let name = self.nodes.name(claim.runner);
                assert!(runs, "somebody waits for {name}, which is {runner:?}");
            }
        }
        for node in (0..self.nodes.len()).map(NodeId::new) {
            let (state, name) = (self.scheduler.state(node), self.nodes.name(node));
            let held = holders.remove(&node).unwrap_or_default();
            match state {
                State::Taken => assert!(held.len() == 1, "{name} is taken, by {held:?}"),
                // Whoever was killed for having lost its race has not ended yet.
                State::Settled(outcome) if !outcome.is_done() => {
                    assert!(
                        held.iter().all(|who| *who == "a worker"),
                        "{name} is {outcome:?}, and held by {held:?}"
                    );
                }
                _ => assert!(held.is_empty(), "{name} is {state:?}, and held by {held:?}"),
            }
        }
    }
}
