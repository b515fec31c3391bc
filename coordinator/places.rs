//! What each worker has been given and not yet returned.

use std::time::Instant;

use forkyard_shared::ids::{NodeId, WorkerId};
use forkyard_shared::pulse::SLOTS;

use crate::cost::CostKind;
use crate::engine::Activity;

/// The place of a worker in the pool.
#[derive(Default)]
pub(crate) struct Place {
    pub life: Life,
    slots: [Option<Sent>; SLOTS],
    /// Tasks that run beside each other; there are none while there is a batch.
    pub lanes: Vec<Lane>,
    /// Messages about such tasks that it has not read yet.
    pub unread: u16,
    /// Its Python process, once it has one.
    pub python: Option<u32>,
    /// What that wrote before it ended.
    pub last_words: Vec<u8>,
    /// What that had from the process that forked it, in bytes.
    pub python_inherited: u64,
    /// Why the worker is being killed.
    pub killing: Option<Killing>,
    /// What it holds, if that is so much that another is to take its place.
    pub retiring: Option<u64>,
    /// The node that it runs, and the most private memory that it was seen to hold meanwhile.
    peak: Option<(NodeId, u64)>,
    /// Whether it computes or waits.
    pub activity: Option<Activity>,
    /// When it is looked at for a timeout, if it is.
    pub looked_at: Option<Instant>,
    /// When the task began that ended the worker before this one, until this one has ended something.
    pub fell_ns: Option<u64>,
    /// Deaths since a worker in this place last finished anything.
    pub barren: u32,
}

/// Why a worker is killed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Killing {
    /// For this node, which took too long or has lost its race.
    Node(NodeId),
    /// For all that it runs: the run ends, or nobody knows which it was.
    Everyone,
    /// Memory is short; what its worker held, and what was seen.
    Memory(NodeId, u64, String),
    /// This node took more memory than it may.
    Limit(NodeId, String),
    /// It does nothing, and holds something.
    Retired,
    /// It said what cannot be true, while it ran this node.
    Distrusted(Option<NodeId>, String),
}

/// Whether there is a worker in a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Life {
    /// None.
    #[default]
    Empty,
    /// Asked for; it can be sent batches already.
    Asked,
    /// It runs, with this process id.
    Runs(u32),
    /// The system refused it; it is not asked for again.
    Refused,
}

/// A task that runs beside others.
pub(crate) struct Lane {
    pub node: NodeId,
    pub since: Instant,
    /// When it was told to give up, because it was late.
    pub given_up: Option<Instant>,
    /// Whether it must be there alone.
    pub alone: bool,
}

/// A batch in a worker's hands.
pub(crate) struct Sent {
    pub number: u32,
    /// In the order in which they are run; those before `next` have ended.
    pub nodes: Vec<NodeId>,
    /// Of what kinds they are.
    pub kinds: Vec<CostKind>,
    next: usize,
}

impl Sent {
    /// The task that runs, or comes next.
    pub fn running(&self) -> Option<NodeId> {
        self.nodes.get(self.next).copied()
    }

    /// How many of its tasks have not ended.
    pub fn left(&self) -> usize {
        self.nodes.len() - self.next
    }
}

impl Place {
    /// Whether it can be sent batches.
    pub fn is_alive(&self) -> bool {
        matches!(self.life, Life::Asked | Life::Runs(_))
    }

    /// A slot for another batch.
    pub fn free_slot(&self) -> Option<usize> {
        self.slots.iter().position(Option::is_none)
    }

    pub fn is_idle(&self) -> bool {
        self.has_no_batch() && self.lanes.is_empty()
    }

    /// What it runs of its batches.
    pub fn running(&self) -> Option<NodeId> {
        self.in_use().first()?.1.running()
    }

    /// The worker was seen to hold so much while it ran this node.
    pub fn note_peak(&mut self, node: NodeId, held: u64) {
        let before = self.peak.filter(|(of, _)| *of == node).map_or(0, |(_, held)| held);
        self.peak = Some((node, held.max(before)));
    }

    /// The most that the worker was seen to hold while it ran this node, if it was looked at.
    pub fn take_peak(&mut self, node: NodeId) -> Option<u64> {
        self.peak.take_if(|(of, _)| *of == node).map(|(_, held)| held)
    }

    pub fn has_no_batch(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    pub fn sent(&mut self, slot: usize, number: u32, nodes: Vec<NodeId>, kinds: Vec<CostKind>) {
        self.slots[slot] = Some(Sent { number, nodes, kinds, next: 0 });
    }

    /// The slots in use, with their batches, the older first.
    pub fn in_use(&self) -> Vec<(usize, &Sent)> {
        let mut used: Vec<_> =
            self.slots.iter().enumerate().filter_map(|(i, s)| Some((i, s.as_ref()?))).collect();
        used.sort_by_key(|(_, sent)| sent.number);
        used
    }

    /// Takes the last `count` nodes of a batch away: they were not run.
    pub fn shorten(&mut self, number: u32, count: usize) -> Vec<NodeId> {
        let Some(slot) = self.slot_of(number) else { return Vec::new() };
        let sent = self.slots[slot].as_mut().expect("it is in use");
        let keep = sent.nodes.len().saturating_sub(count).max(sent.next);
        let taken = sent.nodes.split_off(keep);
        self.clear_if_done(slot);
        taken
    }

    /// Whether the worker may say that it ended this node: the next one of a batch, or one of those beside each other.
    pub fn awaits(&self, batch: Option<u32>, node: NodeId) -> bool {
        match batch {
            Some(number) => {
                let sent = self.slot_of(number).and_then(|slot| self.slots[slot].as_ref());
                sent.and_then(Sent::running) == Some(node)
            }
            None => self.lanes.iter().any(|lane| lane.node == node),
        }
    }

    /// The worker ended the next node of a batch: whether that is the one expected.
    pub fn ended(&mut self, number: u32, node: NodeId) -> bool {
        let Some(slot) = self.slot_of(number) else { return false };
        let sent = self.slots[slot].as_mut().expect("it is in use");
        let expected = sent.nodes.get(sent.next) == Some(&node);
        sent.next += usize::from(expected);
        self.clear_if_done(slot);
        expected
    }

    /// Everything that has not ended; the place is idle then.
    pub fn abandon(&mut self) -> Vec<NodeId> {
        let (slots, lanes) = (std::mem::take(&mut self.slots), std::mem::take(&mut self.lanes));
        (self.unread, self.python) = (0, None);
        (self.retiring, self.peak, self.activity) = (None, None, None);
        let in_batches = slots.into_iter().flatten().flat_map(|sent| sent.nodes.into_iter().skip(sent.next));
        in_batches.chain(lanes.into_iter().map(|lane| lane.node)).collect()
    }

    /// A task that ran beside others has ended; what was known of it.
    pub fn lane_ended(&mut self, node: NodeId) -> Option<Lane> {
        let at = self.lanes.iter().position(|lane| lane.node == node)?;
        Some(self.lanes.swap_remove(at))
    }

    /// Whether the node is in one of its batches and has not ended.
    pub fn holds(&self, node: NodeId) -> bool {
        self.slots.iter().flatten().any(|sent| sent.nodes[sent.next..].contains(&node))
            || self.lanes.iter().any(|lane| lane.node == node)
    }

    fn slot_of(&self, number: u32) -> Option<usize> {
        self.slots.iter().position(|slot| slot.as_ref().is_some_and(|sent| sent.number == number))
    }

    fn clear_if_done(&mut self, slot: usize) {
        if self.slots[slot].as_ref().is_some_and(|sent| sent.next == sent.nodes.len()) {
            self.slots[slot] = None;
        }
    }
}

/// The number of a place.
pub(crate) fn ids(places: &[Place]) -> impl Iterator<Item = WorkerId> + use<> {
    (0..places.len()).map(WorkerId::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_shrinks_from_both_ends() {
        let mut place = Place::default();
        place.sent(0, 9, [1, 2, 3].map(NodeId).to_vec(), Vec::new());
        assert!(!place.ended(9, NodeId(2)), "out of turn");
        assert!(!place.ended(8, NodeId(1)), "no such batch");
        assert!(place.ended(9, NodeId(1)));
        assert_eq!(place.shorten(9, 1), [NodeId(3)]);
        assert!(place.holds(NodeId(2)) && !place.holds(NodeId(1)));
        assert!(place.ended(9, NodeId(2)));
        assert!(place.is_idle());
    }

    #[test]
    fn what_a_dead_worker_held_comes_back() {
        let mut place = Place::default();
        place.sent(0, 1, vec![NodeId(1), NodeId(2)], Vec::new());
        place.sent(1, 2, vec![NodeId(3)], Vec::new());
        assert_eq!(place.free_slot(), None);
        assert!(place.ended(1, NodeId(1)));
        assert_eq!(place.abandon(), [NodeId(2), NodeId(3)]);
        assert!(place.is_idle());
    }
}
