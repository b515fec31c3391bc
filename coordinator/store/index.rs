//! Results in memory, by key: packed end to end in one buffer, because there may be millions.

use std::hint::black_box;

use forkyard_shared::digest::Digest;
use hashbrown::hash_table::{Entry, HashTable};

use super::packed;

/// Keys and encoded records. The last one put under a key counts.
#[derive(Default)]
pub(crate) struct Index {
    packed: Vec<u8>,
    /// Hashes and places in `packed`: to grow needs no look at the keys.
    table: HashTable<(u64, usize)>,
}

impl Index {
    pub fn put(&mut self, key: Digest, record: &[u8]) {
        let (hash, at) = (hash(key), self.packed.len());
        packed::push(&mut self.packed, key, record);
        let same = |(known, at): &(u64, usize)| *known == hash && self.packed[*at..*at + 32] == key.0;
        match self.table.entry(hash, same, |(hash, _)| *hash) {
            Entry::Occupied(mut entry) => entry.get_mut().1 = at,
            Entry::Vacant(entry) => {
                entry.insert((hash, at));
            }
        }
    }

    /// Looks at what is found under these keys.
    pub fn fetch(&self, keys: impl Iterator<Item = Digest>) {
        let at = |key: Digest| {
            let hash = hash(key);
            self.table.find(hash, |(known, _)| *known == hash).map(|(_, at)| *at)
        };
        black_box(keys.filter_map(at).fold(0, |seen, at| seen ^ self.packed[at]));
    }

    pub fn get(&self, key: Digest) -> Option<&[u8]> {
        let hash = hash(key);
        let same = |(known, at): &(u64, usize)| *known == hash && self.packed[*at..*at + 32] == key.0;
        let (_, at) = *self.table.find(hash, same)?;
        packed::next(&self.packed[at..]).map(|(_, record, _)| record)
    }
}

/// A key is a digest: any eight bytes of it are as good as a hash.
fn hash(key: Digest) -> u64 {
    u64::from_le_bytes(*key.0.first_chunk().expect("a digest is longer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_record_of_a_key_counts() {
        let mut index = Index::default();
        let keys: Vec<Digest> = (0..500u32).map(|n| Digest::of(&n.to_le_bytes())).collect();
        for (n, key) in keys.iter().enumerate() {
            index.put(*key, n.to_string().as_bytes());
        }
        index.put(keys[3], b"again");
        assert_eq!(index.get(keys[3]), Some(&b"again"[..]));
        assert_eq!(index.get(keys[499]), Some(&b"499"[..]));
        assert_eq!(index.get(Digest::of(b"x")), None);
    }
}
