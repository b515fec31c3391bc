//! What is stored and asks for nothing is settled all at once, before the first turn: most of a run without changes.

use forkyard_shared::value::NULL_DIGEST;

use super::core::Engine;
use crate::plan::PLAIN;
use crate::store::{AtHand, Outcome, Record};

impl Engine<'_> {
    /// Settles the plain nodes whose stored result is `null`, as far as all they need is such a node too. What anybody
    /// reads, waits for in a race or sees as history goes its way through the turns.
    pub(super) fn recall(&mut self) {
        let has_more = self.contexts.are_used() || self.state.lineages.are_used;
        if has_more || self.is_dry() || self.awaits_submissions() {
            return;
        }
        let (plan, keys, limits, state) = (self.nodes.plan, &self.keys, &self.limits, &self.state);
        let nodes = &self.nodes;
        let recalled = self.scheduler.recall(|node| {
            let is_read = || state.readers.contains_key(&node) || state.followers.contains_key(&node);
            let is_plain = plan.detail_of[node.index()] == PLAIN && keys.at_hand(node) == AtHand::Null;
            is_plain && !is_read() && !state.races.contains_key(&node) && !limits.runs_anew(nodes, node)
        });
        let null = Some((NULL_DIGEST, Record::null().len));
        for node in recalled {
            self.tell(node, Outcome::Cached, None, null, None);
        }
    }
}
