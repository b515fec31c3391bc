//! Names of keys and where the versions of each are. Grow-only: an id, once given, means its key for ever.
//! Does not know what versions are.
//!
//! ```text
//! root 0      the table: slots | slot, slot, ...    slot: high half of the hash << 32 | id + 1, 0 = free
//! root 1      how many keys there are
//! root 2..    the directory, in chunks of 64, 128, 256, ... records
//! record      link to the versions | offset of the name
//! name        length | bytes
//! ```
//!
//! The table is replaced as it fills; the directory stays where it is, so that a link can be stored to.

use super::Link;
use crate::arena::{ArenaError, ArenaReader, root_at};

/// The root of the table.
pub const TABLE_ROOT: usize = 0;
/// The root that counts the keys.
pub const KEY_COUNT_ROOT: usize = 1;
const DIRECTORY_ROOT: usize = 2;

/// The bytes of a record.
pub const RECORD_BYTES: u64 = 16;

const FIRST_CHUNK_RECORDS: u64 = 64;

/// The dense number of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId(pub u32);

/// Where in the directory a record is.
pub struct Place {
    /// The root of the chunk.
    pub root: usize,
    /// How many records the chunk has.
    pub records: u64,
    /// Which of them belongs to the key.
    pub index: u64,
}

/// Where in the directory a key is.
#[inline]
pub fn place_of(key: KeyId) -> Place {
    let number = u64::from(key.0) + FIRST_CHUNK_RECORDS;
    let chunk = number.ilog2() - FIRST_CHUNK_RECORDS.ilog2();
    let records = FIRST_CHUNK_RECORDS << chunk;
    Place { root: DIRECTORY_ROOT + chunk as usize, records, index: number - records }
}

/// The offset of a key's record, which begins with the link to its versions.
#[inline]
pub fn record_at(arena: &ArenaReader, key: KeyId) -> Result<u64, ArenaError> {
    let place = place_of(key);
    Ok(arena.load(root_at(place.root))?.wrapping_add(place.index * RECORD_BYTES))
}

/// What is known of a key.
#[derive(Clone, Copy)]
pub struct Record {
    /// The link to its versions.
    pub versions: Link,
    name: u64,
}

impl Record {
    /// The record of a key.
    #[inline]
    pub fn of(arena: &ArenaReader, key: KeyId) -> Result<Record, ArenaError> {
        let words = arena.words(record_at(arena, key)?, 2)?;
        Ok(Record { versions: Link::of(words[0].get()), name: words[1].get() })
    }

    /// The name of the key.
    #[inline]
    pub fn name<'a>(&self, arena: &'a ArenaReader) -> Result<&'a str, ArenaError> {
        let malformed = |_| ArenaError::Malformed { at: self.name, what: "name of a key" };
        std::str::from_utf8(self.name_bytes(arena)?).map_err(malformed)
    }

    #[inline]
    fn name_bytes<'a>(&self, arena: &'a ArenaReader) -> Result<&'a [u8], ArenaError> {
        let len = arena.load(self.name)?;
        arena.bytes(self.name.wrapping_add(8), len as usize)
    }
}

/// The id and the record of a key; `None` when nobody ever set it.
#[inline]
pub fn find(arena: &ArenaReader, key: &str) -> Result<Option<(KeyId, Record)>, ArenaError> {
    let table = arena.load(root_at(TABLE_ROOT))?;
    if table == 0 {
        return Ok(None);
    }
    let slots = arena.load(table)?;
    let words = arena.words(table.wrapping_add(8), slots as usize)?;
    let hash = hash(key);
    let mask = slots.wrapping_sub(1);
    for probe in 0..slots {
        let slot = words[(hash.wrapping_add(probe) & mask) as usize].get();
        if slot == 0 {
            break;
        }
        if slot >> 32 == hash >> 32 {
            let id = KeyId((slot as u32).wrapping_sub(1));
            let record = Record::of(arena, id)?;
            if record.name_bytes(arena)? == key.as_bytes() {
                return Ok(Some((id, record)));
            }
        }
    }
    Ok(None)
}

/// The hash of a key: its low bits choose the first slot. The same in every process.
#[inline]
pub fn hash(key: &str) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let (words, rest) = key.as_bytes().as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let mix = |hash: u64, word: &[u8; 8]| {
        let product = u128::from(hash ^ u64::from_le_bytes(*word)) * u128::from(FACTOR);
        (product >> 64) as u64 ^ product as u64
    };
    let hash = words.iter().fold(!(key.len() as u64), mix);
    mix(mix(hash, &last), &FACTOR.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_record_of_its_own_and_the_last_one_has_a_root() {
        let mut next = (place_of(KeyId(0)).root, 0);
        for key in (0..10_000).map(KeyId) {
            let place = place_of(key);
            assert_eq!((place.root, place.index), next, "{key:?}");
            next = if place.index + 1 == place.records { (next.0 + 1, 0) } else { (next.0, next.1 + 1) };
        }
        assert!(place_of(KeyId(u32::MAX)).root < crate::arena::ROOTS);
    }
}
