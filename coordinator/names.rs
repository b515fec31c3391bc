//! Names and their numbers: each name is stored once, in one buffer, and numbered from 0 in the order of
//! first mention.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;
use hashbrown::hash_table::{Entry, HashTable};

/// An interner. Equal hashes of different names are told apart by the names themselves.
#[derive(Default)]
pub(crate) struct Names {
    text: String,
    /// Where each name ends in `text`; it starts where the one before it ends.
    ends: Vec<u32>,
    /// Hashes and numbers: to grow, and to pass by other names, needs no look at the text.
    table: HashTable<(u64, u32)>,
    hasher: DefaultHashBuilder,
}

impl Names {
    /// The number of `name`, which gets one if it has none.
    pub fn intern(&mut self, name: &str) -> u32 {
        self.insert(name).unwrap_or_else(|number| number)
    }

    /// A new number for `name`; the one that it has already is the error.
    pub fn insert(&mut self, name: &str) -> Result<u32, u32> {
        let hash = self.hasher.hash_one(name);
        let (text, ends) = (&self.text, &self.ends);
        let same = |(known, number): &(u64, u32)| *known == hash && slice(text, ends, *number) == name;
        match self.table.entry(hash, same, |(hash, _)| *hash) {
            Entry::Occupied(entry) => Err(entry.get().1),
            Entry::Vacant(entry) => {
                let number = u32::try_from(ends.len()).expect("fewer than 2^32 names");
                entry.insert((hash, number));
                self.text.push_str(name);
                self.ends.push(u32::try_from(self.text.len()).expect("less than 4 GiB of names"));
                Ok(number)
            }
        }
    }

    /// The number of `name`, if it has one.
    pub fn find(&self, name: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        let same = |(known, number): &(u64, u32)| *known == hash && self.get(*number) == name;
        self.table.find(hash, same).map(|(_, number)| *number)
    }

    /// The name of a number.
    pub fn get(&self, number: u32) -> &str {
        slice(&self.text, &self.ends, number)
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

fn slice<'a>(text: &'a str, ends: &[u32], number: u32) -> &'a str {
    let index = number as usize;
    let start = if index == 0 { 0 } else { ends[index - 1] };
    &text[start as usize..ends[index] as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number() {
        let mut names = Names::default();
        let numbers: Vec<u32> = (0..1000).map(|n| names.intern(&format!("n{n}"))).collect();
        assert_eq!(numbers, (0..1000).collect::<Vec<u32>>());
        assert_eq!(names.intern("n7"), 7);
        assert_eq!((names.get(999), names.find("n500"), names.find("x")), ("n999", Some(500), None));
        assert_eq!(names.len(), 1000);
    }
}
