//! What a worker is doing this moment, readable without asking it: one page of shared memory a
//! worker, written by the worker while it runs and read by the coordinator when a timer fires, when
//! the progress is drawn, or when the worker has died and can no longer be asked.
//!
//! ```text
//!   0  current   node id + 1, or 0 between tasks
//!   8  started   CLOCK_MONOTONIC nanoseconds at which the current task started
//!  16  claim 0   batch << 32 | end << 16 | next      one word for each of the two batches
//!  24  claim 1                                       that a worker may hold
//!  32  said      how many messages the worker has sent
//! ```
//!
//! A claim word is the only thing both sides write. The worker claims task `next` by raising it; the
//! coordinator takes back what is not yet claimed by lowering `end`; whoever loses the exchange looks
//! again. So a task is run by exactly one worker, without a message.
//!
//! Both sides also look here, in place of asking the kernel, whether there is a message for them: the worker for a
//! batch that is offered, the coordinator for a change of `said`.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use crate::ids::NodeId;

/// Batches a worker may hold: one running, one waiting.
pub const SLOTS: usize = 2;

/// The shared words of one worker.
#[repr(C)]
#[derive(Default)]
pub struct Pulse {
    current: AtomicU64,
    started: AtomicU64,
    claims: [AtomicU64; SLOTS],
    said: AtomicU64,
}

/// The task that a worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// Its node.
    pub node: NodeId,
    /// When it started, in nanoseconds of CLOCK_MONOTONIC.
    pub started_ns: u64,
}

fn unpack(word: u64) -> (u32, u16, u16) {
    ((word >> 32) as u32, (word >> 16) as u16, word as u16)
}

fn pack(batch: u32, end: u16, next: u16) -> u64 {
    u64::from(batch) << 32 | u64::from(end) << 16 | u64::from(next)
}

impl Pulse {
    /// Worker: a task begins.
    pub fn begin(&self, node: NodeId, now_ns: u64) {
        self.started.store(now_ns, Release);
        self.current.store(u64::from(node.0) + 1, Release);
    }

    /// Worker: no task runs.
    pub fn end(&self) {
        self.current.store(0, Release);
    }

    /// Coordinator: what runs now. `None` between tasks, and while one is just being exchanged for
    /// the next.
    pub fn current(&self) -> Option<Current> {
        let before = self.current.load(Acquire);
        let started_ns = self.started.load(Acquire);
        let after = self.current.load(Acquire);
        (before != 0 && before == after).then(|| Current { node: NodeId((before - 1) as u32), started_ns })
    }

    /// Coordinator: a batch of `len` tasks is about to be sent.
    pub fn offer(&self, slot: usize, batch: u32, len: u16) {
        self.claims[slot].store(pack(batch, len, 0), Release);
    }

    /// Worker: the index of the next task of `batch`, or `None` when nothing is left of it.
    pub fn claim(&self, slot: usize, batch: u32) -> Option<u16> {
        let claimed = self.claims[slot].fetch_update(AcqRel, Acquire, |word| {
            let (current, end, next) = unpack(word);
            (current == batch && next < end).then(|| pack(batch, end, next + 1))
        });
        claimed.ok().map(|word| unpack(word).2)
    }

    /// Worker: whether a batch is on its way, or there already.
    pub fn has_offer(&self) -> bool {
        self.claims.iter().any(|claim| {
            let (_, end, next) = unpack(claim.load(Acquire));
            next < end
        })
    }

    /// Worker: a message to the coordinator has been sent.
    pub fn say(&self) {
        // Nobody else writes it.
        self.said.store(self.said.load(Relaxed).wrapping_add(1), Release);
    }

    /// Coordinator: how many messages the worker has sent, or workers before it in its place.
    pub fn said(&self) -> u64 {
        self.said.load(Acquire)
    }

    /// Either side: takes back the tasks of `batch` that nobody has claimed; their indices.
    pub fn take_back(&self, slot: usize, batch: u32) -> std::ops::Range<u16> {
        let taken = self.claims[slot].fetch_update(AcqRel, Acquire, |word| {
            let (current, end, next) = unpack(word);
            (current == batch && next < end).then(|| pack(batch, next, next))
        });
        taken.map_or(0..0, |word| {
            let (_, end, next) = unpack(word);
            next..end
        })
    }

    /// Coordinator: forgets the worker that used this page, which has died.
    pub fn reset(&self) {
        self.current.store(0, Release);
        self.claims.iter().for_each(|claim| claim.store(0, Release));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_task_cannot_be_taken_back() {
        let pulse = Pulse::default();
        pulse.offer(1, 7, 3);
        assert_eq!(pulse.claim(1, 7), Some(0));
        assert_eq!(pulse.take_back(1, 7), 1..3);
        assert_eq!(pulse.claim(1, 7), None);
        assert_eq!(pulse.take_back(1, 7), 0..0);
    }

    #[test]
    fn a_stale_batch_claims_nothing() {
        let pulse = Pulse::default();
        pulse.offer(0, 7, 3);
        assert_eq!(pulse.claim(0, 6), None);
        pulse.reset();
        assert_eq!(pulse.claim(0, 7), None);
    }

    #[test]
    fn a_batch_is_on_offer_until_its_last_task_is_claimed_or_taken_back() {
        let pulse = Pulse::default();
        assert!(!pulse.has_offer());
        pulse.offer(1, 7, 1);
        assert!(pulse.has_offer());
        pulse.claim(1, 7);
        assert!(!pulse.has_offer());
        pulse.offer(0, 8, 2);
        pulse.take_back(0, 8);
        assert!(!pulse.has_offer());
    }

    #[test]
    fn every_task_goes_to_exactly_one_side() {
        for _ in 0..200 {
            let pulse = Pulse::default();
            pulse.offer(0, 1, 64);
            let (claimed, taken) = std::thread::scope(|scope| {
                let worker = scope.spawn(|| std::iter::from_fn(|| pulse.claim(0, 1)).count());
                let taken = pulse.take_back(0, 1).len();
                (worker.join().unwrap(), taken)
            });
            assert_eq!(claimed + taken, 64);
        }
    }
}
