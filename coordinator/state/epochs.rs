//! Which replaced blocks may still be under a reader's eyes. A reader that started after a block was
//! replaced cannot come upon it any more; so a block is free once all that started before are done.
//!
//! (Claims counted on each block would be exact, and would make readers write to shared memory.)

use std::collections::VecDeque;

use forkyard_shared::arena::ArenaWriter;

/// A reader that has started; it is given back when the reader is done.
#[derive(Debug)]
#[must_use = "a reader that is never done keeps everything from being recycled"]
pub struct Ticket(u64);

struct Retired {
    /// The last reader that may see it.
    reader: u64,
    at: u64,
    len: u64,
}

/// The readers that are reading, and what they may see.
#[derive(Default)]
pub(super) struct Epochs {
    /// The number of the first reader in `reading`.
    first: u64,
    reading: VecDeque<bool>,
    retired: VecDeque<Retired>,
}

impl Epochs {
    /// From now on somebody reads.
    pub(super) fn started(&mut self) -> Ticket {
        self.reading.push_back(true);
        Ticket(self.first + self.reading.len() as u64 - 1)
    }

    /// It no longer does; what only it may have seen is recycled.
    pub(super) fn done(&mut self, ticket: Ticket, arena: &mut ArenaWriter) {
        self.reading[(ticket.0 - self.first) as usize] = false;
        while self.reading.front() == Some(&false) {
            self.reading.pop_front();
            self.first += 1;
        }
        while let Some(retired) = self.retired.pop_front_if(|retired| retired.reader < self.first) {
            arena.free(retired.at, retired.len);
        }
    }

    /// Recycles a block that nobody can come upon any more, as soon as nobody may be reading it.
    pub(super) fn retire(&mut self, at: u64, len: u64, arena: &mut ArenaWriter) {
        match self.reading.len() as u64 {
            0 => arena.free(at, len),
            readers => self.retired.push_back(Retired { reader: self.first + readers - 1, at, len }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_stays_until_all_who_may_see_it_are_done() {
        let mut arena = ArenaWriter::new().unwrap();
        let mut epochs = Epochs::default();
        let (a, b) = (epochs.started(), epochs.started());
        let at = arena.put(b"replaced").unwrap();
        epochs.retire(at, 8, &mut arena);
        let later = epochs.started();
        epochs.done(b, &mut arena);
        assert_eq!(arena.live_bytes(), 8, "the first reader may still see it");
        epochs.done(a, &mut arena);
        assert_eq!(arena.live_bytes(), 0, "the third started too late to see it");
        epochs.done(later, &mut arena);
    }

    #[test]
    fn without_readers_a_block_is_free_at_once() {
        let mut arena = ArenaWriter::new().unwrap();
        let at = arena.put(b"replaced").unwrap();
        Epochs::default().retire(at, 8, &mut arena);
        assert_eq!(arena.live_bytes(), 0);
    }
}
