//! Names and their numbers: each name is stored once, in one buffer, and numbered from 0 in the order of
//! first mention.
//!
//! A million names do not fit the processor's caches, so that a look-up is mostly waiting for memory. A slot of the
//! table holds all that tells most names apart, and [`Names::fetch`] has many look-ups wait at the same time.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::hint::black_box;

use bincode::Encode;
use bincode::enc::Encoder;
use bincode::error::EncodeError;
use hashbrown::DefaultHashBuilder;

use crate::room;

/// An interner. Equal hashes of different names are told apart by the names themselves.
#[derive(Default)]
pub(crate) struct Names {
    text: String,
    /// Where each name ends in `text`; it starts where the one before it ends.
    ends: Vec<u32>,
    /// Open addressing: a name stands in the slot that the upper bits of its hash say, or in one of the next.
    slots: Vec<Slot>,
    hasher: Hasher,
}

/// What makes [`NameHash`]es: those of one are of no use to another.
pub(crate) type Hasher = DefaultHashBuilder;

/// A name's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameHash(u32);

impl NameHash {
    /// The hash of a name, for who has this hasher.
    pub fn of(name: &str, hasher: &Hasher) -> NameHash {
        NameHash((hasher.hash_one(name) >> 32) as u32)
    }
}

/// A name's hash, and its number + 1; 0 is free.
#[derive(Clone, Copy, Default)]
struct Slot {
    hash: u32,
    number: u32,
}

/// The fewest slots, as a power of two.
const SLOTS_MIN: usize = 1 << 6;

/// Names that are looked up side by side.
const ABREAST: usize = 64;

impl Names {
    /// What hashes of these names are made with.
    pub fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// The hash of a name.
    pub fn hash(&self, name: &str) -> NameHash {
        NameHash::of(name, &self.hasher)
    }

    /// A new number for `name`; the one that it has already is the error.
    pub fn insert(&mut self, name: &str) -> Result<u32, u32> {
        self.insert_hashed(name, self.hash(name))
    }

    /// The same, of a name whose hash is known.
    pub fn insert_hashed(&mut self, name: &str, hash: NameHash) -> Result<u32, u32> {
        if self.ends.len() >= self.slots.len() / 2 {
            self.grow();
        }
        match self.look(name, hash) {
            Ok(known) => Err(known),
            Err(free) => {
                let number = self.ends.len() as u32;
                self.slots[free] =
                    Slot { hash: hash.0, number: number.checked_add(1).expect("fewer than 2^32 names") };
                self.text.push_str(name);
                self.ends.push(u32::try_from(self.text.len()).expect("less than 4 GiB of names"));
                Ok(number)
            }
        }
    }

    /// The number of `name`, if it has one.
    pub fn find(&self, name: &str) -> Option<u32> {
        self.find_hashed(name, self.hash(name))
    }

    /// The same, of a name whose hash is known.
    pub fn find_hashed(&self, name: &str, hash: NameHash) -> Option<u32> {
        if self.slots.is_empty() { None } else { self.look(name, hash).ok() }
    }

    /// Looks at all that is needed to look these up, many at a time: what comes after it need not wait for memory.
    pub fn fetch(&self, hashes: &[NameHash]) {
        if self.slots.is_empty() {
            return;
        }
        for some in hashes.chunks(ABREAST) {
            let mut numbers = [0; ABREAST];
            for (number, hash) in numbers.iter_mut().zip(some) {
                *number = self.slots[self.home(*hash)].number;
            }
            let known = numbers.iter().filter_map(|number| number.checked_sub(1));
            let starts =
                known.map(|number| number.checked_sub(1).map_or(0, |before| self.ends[before as usize]));
            black_box(starts.fold(0, |seen, start| seen ^ self.text.as_bytes()[start as usize]));
        }
    }

    /// The number of a name, or the slot where it would stand.
    fn look(&self, name: &str, hash: NameHash) -> Result<u32, usize> {
        let mut at = self.home(hash);
        loop {
            let slot = self.slots[at];
            let Some(number) = slot.number.checked_sub(1) else { return Err(at) };
            if slot.hash == hash.0 && self.get(number) == name {
                return Ok(number);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    fn home(&self, hash: NameHash) -> usize {
        ((u64::from(hash.0) * self.slots.len() as u64) >> 32) as usize
    }

    /// Twice the slots. They stay in the order of their hashes, so that this is one pass over each.
    fn grow(&mut self) {
        let slots = room::filled((self.slots.len() * 2).max(SLOTS_MIN), Slot::default());
        let before = std::mem::replace(&mut self.slots, slots);
        for slot in before.into_iter().filter(|slot| slot.number != 0) {
            let mut at = self.home(NameHash(slot.hash));
            while self.slots[at].number != 0 {
                at = (at + 1) & (self.slots.len() - 1);
            }
            self.slots[at] = slot;
        }
    }

    /// The name of a number.
    pub fn get(&self, number: u32) -> &str {
        let index = number as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.text[start as usize..self.ends[index] as usize]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// All names, by number.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len() as u32).map(|number| self.get(number))
    }
}

/// A name that is looked at when somebody needs it: before that it need not be fetched from memory.
pub(crate) enum NameRef {
    Numbered(&'static Names, u32),
    Text(Cow<'static, str>),
}

impl NameRef {
    fn as_str(&self) -> &str {
        match self {
            NameRef::Numbered(names, number) => names.get(*number),
            NameRef::Text(text) => text,
        }
    }

    /// Looks at it, so that it need not be waited for later.
    pub fn fetch(&self) -> u8 {
        self.as_str().as_bytes()[0]
    }
}

impl Encode for NameRef {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.as_str().encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number() {
        let mut names = Names::default();
        assert_eq!(names.find("n0"), None);
        let numbers: Vec<u32> = (0..1000).map(|n| names.insert(&format!("n{n}")).unwrap()).collect();
        assert_eq!(numbers, (0..1000).collect::<Vec<u32>>());
        assert_eq!(names.insert("n7"), Err(7));
        assert_eq!((names.get(999), names.find("n500"), names.find("x")), ("n999", Some(500), None));
        assert_eq!(names.len(), 1000);
        names.fetch(&(0..2000).map(|n| names.hash(&format!("n{n}"))).collect::<Vec<_>>());
    }

    #[test]
    fn names_of_one_hash_are_told_apart() {
        // At the end of the table, so that some go round to its beginning.
        let (mut names, last) = (Names::default(), NameHash(u32::MAX));
        for n in 0..500 {
            assert_eq!(names.insert_hashed(&format!("n{n}"), last), Ok(n));
            assert_eq!(names.insert_hashed("n0", last), Err(0));
        }
        assert_eq!(names.find_hashed("n499", last), Some(499));
        assert_eq!(names.find_hashed("n500", last), None);
    }
}
