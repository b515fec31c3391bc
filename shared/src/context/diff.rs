//! What one writer wrote: one block, so that walking over it is walking through memory. Does not know
//! which of its entries still count.

use super::{KeyId, Rank};
use crate::arena::{ArenaError, ArenaReader};
use crate::digest::Digest;
use crate::mapping::Word;

/// The bytes of a diff before its entries: rank, count, digest.
pub const DIFF_HEADER_BYTES: u64 = 48;

/// The bytes of an entry.
pub const ENTRY_BYTES: u64 = 24;

/// The length that says that the key was removed.
pub const REMOVED: u32 = u32::MAX;

/// The words of an entry.
const ENTRY_WORDS: usize = ENTRY_BYTES as usize / 8;

/// A diff.
#[derive(Clone, Copy)]
pub struct Diff {
    at: u64,
    /// Who wrote it.
    pub rank: Rank,
    /// How many keys it sets or removes.
    pub count: u64,
}

impl Diff {
    /// The diff at an offset.
    #[inline]
    pub fn at(arena: &ArenaReader, at: u64) -> Result<Diff, ArenaError> {
        let head = arena.words(at, 2)?;
        Ok(Diff { at, rank: Rank(head[0].get()), count: head[1].get() })
    }

    /// The digest of what it sets and removes.
    pub fn digest(&self, arena: &ArenaReader) -> Result<Digest, ArenaError> {
        let mut digest = Digest([0; 32]);
        digest.0.copy_from_slice(arena.bytes(self.at.wrapping_add(16), 32)?);
        Ok(digest)
    }

    /// Its entries and their offsets.
    #[inline]
    pub fn entries(&self, arena: &ArenaReader) -> Result<impl Iterator<Item = (u64, Entry)>, ArenaError> {
        let first = self.at.wrapping_add(DIFF_HEADER_BYTES);
        let words = arena.words(first, (self.count as usize).saturating_mul(ENTRY_WORDS))?;
        let entries = words.as_chunks::<ENTRY_WORDS>().0.iter().map(Entry::of);
        Ok((first..).step_by(ENTRY_BYTES as usize).zip(entries))
    }
}

/// One version of a key.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Who wrote it.
    pub rank: Rank,
    /// The key.
    pub key: KeyId,
    len: u32,
    value: u64,
}

impl Entry {
    /// The entry at an offset.
    #[inline]
    pub fn at(arena: &ArenaReader, at: u64) -> Result<Entry, ArenaError> {
        let words = arena.words(at, ENTRY_WORDS)?.first_chunk();
        Ok(Entry::of(words.expect("BUG: as many words as asked for")))
    }

    #[inline]
    fn of(words: &[Word; ENTRY_WORDS]) -> Entry {
        let [rank, key, value] = words.each_ref().map(Word::get);
        Entry { rank: Rank(rank), key: KeyId((key >> 32) as u32), len: key as u32, value }
    }

    /// What the key was set to; `None` when it was removed.
    #[inline]
    pub fn value<'a>(&self, arena: &'a ArenaReader) -> Result<Option<&'a [u8]>, ArenaError> {
        if self.len == REMOVED {
            return Ok(None);
        }
        arena.bytes(self.value, self.len as usize).map(Some)
    }
}
