//! Ids that nodes need, as numbers: most name a node that stands before. What is not known yet is kept as text until all
//! of the manifest is.

use forkyard_shared::ids::NodeId;

use crate::names::{NameHash, Names};

/// The needs of one node after the other.
#[derive(Default)]
pub(super) struct Mentions {
    numbers: Vec<u32>,
    /// Where the needs of each node end.
    ends: Vec<usize>,
    /// Those that were not known when they were read, in the order of their places.
    later: Vec<Later>,
    /// Their ids, end to end.
    text: String,
}

/// The number of an id that no node has, or not yet.
const UNKNOWN: u32 = u32::MAX;

struct Later {
    /// In `numbers`.
    place: usize,
    /// Where its id starts in `text`; it ends where the next one starts.
    start: usize,
    hash: NameHash,
}

impl Mentions {
    /// The next node needs the node of this id too.
    pub fn push(&mut self, names: &Names, id: &str, hash: NameHash) {
        let number = names.find_hashed(id, hash).unwrap_or(UNKNOWN);
        if number == UNKNOWN {
            self.later.push(Later { place: self.numbers.len(), start: self.text.len(), hash });
            self.text.push_str(id);
        }
        self.numbers.push(number);
    }

    /// It needs no more.
    pub fn end_node(&mut self) {
        self.ends.push(self.numbers.len());
    }

    /// All names are known now.
    pub fn resolve(&mut self, names: &Names) {
        let hashes: Vec<NameHash> = self.later.iter().map(|later| later.hash).collect();
        for (at, later) in self.later.iter().enumerate() {
            if at.is_multiple_of(ABREAST) {
                names.fetch(&hashes[at..hashes.len().min(at + ABREAST)]);
            }
            if let Some(number) = names.find_hashed(self.id(at), later.hash) {
                self.numbers[later.place] = number;
            }
        }
    }

    /// What a node needs: the number of a node, or an id that no node has.
    pub fn of(&self, node: NodeId) -> impl Iterator<Item = Result<u32, &str>> {
        let start = node.index().checked_sub(1).map_or(0, |before| self.ends[before]);
        (start..self.ends[node.index()]).map(|place| match self.numbers[place] {
            UNKNOWN => {
                let at = self.later.binary_search_by_key(&place, |later| later.place);
                Err(self.id(at.expect("BUG: an unknown id that was not kept")))
            }
            number => Ok(number),
        })
    }

    fn id(&self, later: usize) -> &str {
        let end = self.later.get(later + 1).map_or(self.text.len(), |next| next.start);
        &self.text[self.later[later].start..end]
    }
}

/// Names that are fetched together.
const ABREAST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_known_whether_they_come_before_or_after() {
        let (mut names, mut mentions) = (Names::default(), Mentions::default());
        names.insert("a").unwrap();
        for ids in [&["b", "a"][..], &[], &["x", "b", "a"]] {
            ids.iter().for_each(|id| mentions.push(&names, id, names.hash(id)));
            mentions.end_node();
        }
        names.insert("b").unwrap();
        mentions.resolve(&names);
        let of = |node| mentions.of(NodeId(node)).collect::<Vec<_>>();
        assert_eq!(of(0), [Ok(1), Ok(0)]);
        assert_eq!(of(1), []);
        assert_eq!(of(2), [Err("x"), Ok(1), Ok(0)]);
    }
}
