//! The arena as the coordinator sees it: puts blocks, frees them, and says how much there is. Does not
//! know what is in the blocks, nor who has a claim on them.

use std::fs::File;
use std::io;
use std::ops::Deref;

use super::blocks::Blocks;
use super::{ArenaError, ArenaReader, HEADER_BYTES, SEGMENT_BYTES};
use crate::mapping::GrowingFile;

/// The one writer of an arena.
pub struct ArenaWriter {
    file: GrowingFile,
    blocks: Blocks,
}

impl ArenaWriter {
    /// An empty arena.
    ///
    /// # Errors
    /// When the system gives no shared memory.
    pub fn new() -> io::Result<ArenaWriter> {
        let mut file = GrowingFile::new("forkyard-arena")?;
        let blocks = Blocks::new();
        file.grow(blocks.end_bytes())?;
        if cfg!(debug_assertions) {
            file.keep_marks()?;
            file.mark(0, HEADER_BYTES);
        }
        Ok(ArenaWriter { file, blocks })
    }

    /// The descriptor that readers map.
    pub fn file(&self) -> &File {
        self.file.file()
    }

    /// A new block of `len` bytes, whatever they are. Its offset is a multiple of 8.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn alloc(&mut self, len: u64) -> Result<u64, ArenaError> {
        if let Some(at) = self.blocks.take(len) {
            return Ok(self.marked(at, len));
        }
        let more = Blocks::segments_for(len);
        let end = self.blocks.end_bytes().saturating_add(more.saturating_mul(SEGMENT_BYTES));
        self.file.grow(end).map_err(|cause| ArenaError::Full { wanted_bytes: len, cause })?;
        self.blocks.add(more);
        let at = self.blocks.take(len).expect("BUG: new segments have room");
        Ok(self.marked(at, len))
    }

    fn marked(&mut self, at: u64, len: u64) -> u64 {
        if cfg!(debug_assertions) {
            self.file.mark(at, len.max(1));
        }
        at
    }

    /// A new block that holds `bytes`.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn put(&mut self, bytes: &[u8]) -> Result<u64, ArenaError> {
        let at = self.alloc(bytes.len() as u64)?;
        self.file.write(at, bytes);
        Ok(at)
    }

    /// A new block that holds `words`.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn put_words(&mut self, words: &[u64]) -> Result<u64, ArenaError> {
        let at = self.alloc(8 * words.len() as u64)?;
        (at..).step_by(8).zip(words).for_each(|(at, word)| self.file.store(at, *word));
        Ok(at)
    }

    /// Writes into a block that nobody reads yet.
    ///
    /// # Panics
    /// When the arena has no such bytes.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        self.file.write(at, bytes);
    }

    /// Publishes a word: who reads it sees everything written before.
    ///
    /// # Panics
    /// When the arena has no such word.
    #[inline]
    pub fn store(&mut self, at: u64, value: u64) {
        self.file.store(at, value);
    }

    /// Recycles a block that [`ArenaWriter::alloc`] or `put` made with this length, and that nobody has
    /// a claim on any more.
    ///
    /// # Panics
    /// When there is no such block.
    pub fn free(&mut self, at: u64, len: u64) {
        if cfg!(debug_assertions) {
            self.file.unmark(at, len.max(1));
        }
        self.blocks.give_back(at, len);
    }

    /// How much memory the arena takes.
    pub fn used_bytes(&self) -> u64 {
        self.blocks.end_bytes()
    }

    /// How much of it is in blocks that are not freed.
    pub fn live_bytes(&self) -> u64 {
        self.blocks.live_bytes()
    }
}

impl Deref for ArenaWriter {
    type Target = ArenaReader;

    #[inline]
    fn deref(&self) -> &ArenaReader {
        self.file.reader()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::arena::root_at;

    #[test]
    fn a_reader_from_before_the_first_write_sees_blocks_and_roots() {
        let mut arena = ArenaWriter::new().unwrap();
        let reader = ArenaReader::read_only(arena.file()).unwrap();
        let at = arena.put(b"hello").unwrap();
        let large = arena.put(&vec![7; 3 << 20]).unwrap();
        arena.store(root_at(3), at);
        assert_eq!(reader.bytes(reader.load(root_at(3)).unwrap(), 5).unwrap(), b"hello");
        assert!(reader.bytes(large, 3 << 20).unwrap().iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_wrong_offset_is_an_error() {
        let arena = ArenaWriter::new().unwrap();
        let beyond = arena.used_bytes();
        let error = arena.bytes(beyond - 1, 2).unwrap_err();
        assert_eq!(error.to_string(), format!("the arena has no 2 bytes at offset {}", beyond - 1));
        assert!(arena.load(beyond).is_err());
        assert!(arena.load(4097).is_err());
    }

    #[test]
    #[cfg(debug_assertions)]
    fn debug_builds_find_reads_of_what_is_no_living_block() {
        let mut arena = ArenaWriter::new().unwrap();
        let reader = ArenaReader::read_only(arena.file()).unwrap();
        let (first, second, large) =
            (arena.put(&[1; 24]).unwrap(), arena.put(&[2; 24]).unwrap(), arena.put(&[3; 2 << 20]).unwrap());
        assert_eq!(second, first + 24);
        let reads = |at: u64, len: usize| {
            let read = || reader.bytes(at, len).map(<[u8]>::len).unwrap();
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).is_ok()
        };
        assert!(reads(first, 24) && reads(first + 7, 17) && reads(large + 100, 1 << 20) && reads(0, 4096));
        assert!(!reads(first, 25), "past its end, into another one");
        assert!(!reads(second, 25), "past its end, into nothing");
        arena.free(first, 24);
        assert!(!reads(first, 1) && reads(second, 24), "freed");
        assert_eq!(arena.put(&[4; 20]).unwrap(), first);
        assert!(reads(first, 20) && reads(second, 24), "alive again");
        let freed_wrong = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| arena.free(second, 16)));
        assert!(freed_wrong.is_err(), "as shorter than it is");
    }

    #[test]
    fn more_than_the_range_is_an_error_and_harms_nothing() {
        let mut arena = ArenaWriter::new().unwrap();
        assert!(
            matches!(arena.alloc(1 << 50), Err(ArenaError::Full { wanted_bytes, .. }) if wanted_bytes == 1 << 50)
        );
        let at = arena.put(b"still").unwrap();
        assert_eq!(arena.bytes(at, 5).unwrap(), b"still");
    }

    /// What a run of a million nodes does: each puts parameters of some size, and a thousand are in flight.
    #[test]
    fn a_million_parameters_take_the_room_of_those_in_flight() {
        let mut arena = ArenaWriter::new().unwrap();
        let mut flight = VecDeque::new();
        for node in 0..1_000_000_u64 {
            let len = 16 + node * 2_654_435_761 % 600;
            flight.push_back((arena.alloc(len).unwrap(), len));
            if flight.len() > 1000 {
                let (at, len) = flight.pop_front().unwrap();
                arena.free(at, len);
            }
        }
        flight.into_iter().for_each(|(at, len)| arena.free(at, len));
        assert_eq!(arena.live_bytes(), 0);
        assert!(arena.used_bytes() <= 4 << 20, "{} bytes", arena.used_bytes());
    }

    proptest! {
        #[test]
        fn living_blocks_never_overlap(
            steps in prop::collection::vec((any::<bool>(), 0_usize..64, 1_u64..3000, 0_u32..10), 1..60)
        ) {
            let mut arena = ArenaWriter::new().unwrap();
            let mut live: Vec<(u64, Vec<u8>)> = Vec::new();
            for (step, (put, which, len, doublings)) in steps.into_iter().enumerate() {
                if put || live.is_empty() {
                    let bytes = vec![step as u8; (len << doublings) as usize];
                    live.push((arena.put(&bytes).unwrap(), bytes));
                } else {
                    let (at, bytes) = live.swap_remove(which % live.len());
                    prop_assert_eq!(arena.bytes(at, bytes.len()).unwrap(), &bytes[..]);
                    arena.free(at, bytes.len() as u64);
                }
            }
            for (at, bytes) in live {
                prop_assert_eq!(at % 8, 0);
                prop_assert_eq!(arena.bytes(at, bytes.len()).unwrap(), &bytes[..]);
                arena.free(at, bytes.len() as u64);
            }
            prop_assert_eq!(arena.live_bytes(), 0);
        }
    }
}
