//! Bytes of results that later nodes read, at hand: the most recently used, up to a limit.

use forkyard_shared::ids::NodeId;
use hashlink::LruCache;

/// Results by node, in bounded memory.
pub(crate) struct Cache {
    held: LruCache<NodeId, Vec<u8>>,
    bytes: usize,
    limit: usize,
    /// How often what was asked for was there.
    pub hits: u64,
    /// How often it was not.
    pub misses: u64,
}

impl Cache {
    /// One that is to hold up to `limit` bytes.
    pub fn new(limit: u64) -> Cache {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Cache { held: LruCache::new_unbounded(), bytes: 0, limit, hits: 0, misses: 0 }
    }

    pub fn put(&mut self, node: NodeId, bytes: Vec<u8>) {
        self.forget(node);
        self.bytes += bytes.len();
        self.held.insert(node, bytes);
    }

    /// The bytes of a node's result.
    pub fn get(&mut self, node: NodeId) -> Option<Vec<u8>> {
        let found = self.held.get(&node).cloned();
        *if found.is_some() { &mut self.hits } else { &mut self.misses } += 1;
        found
    }

    pub fn forget(&mut self, node: NodeId) {
        self.bytes -= self.held.remove(&node).map_or(0, |bytes| bytes.len());
    }

    /// Forgets what was not used for longest, of what `may_go`; whether the rest fits.
    pub fn shrink(&mut self, may_go: impl Fn(NodeId) -> bool) -> bool {
        let (mut over, mut going) = (self.bytes.saturating_sub(self.limit), Vec::new());
        for (node, bytes) in self.held.iter().filter(|(node, _)| may_go(**node)) {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(bytes.len());
            going.push(*node);
        }
        going.into_iter().for_each(|node| self.forget(node));
        self.bytes <= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first_if_it_may() {
        let mut cache = Cache::new(300);
        for node in 0..4 {
            cache.put(NodeId(node), vec![node as u8; 100]);
        }
        assert!(cache.get(NodeId(0)).is_some());
        assert!(!cache.shrink(|_| false), "nothing may go");
        assert!(cache.shrink(|node| node != NodeId(1)));
        let held = |cache: &mut Cache| [0, 1, 2, 3].map(|node| cache.get(NodeId(node)).is_some());
        assert_eq!(held(&mut cache), [true, true, false, true]);
        assert_eq!((cache.hits, cache.misses), (4, 1));
        cache.put(NodeId(3), vec![0; 10]);
        cache.forget(NodeId(0));
        assert_eq!(cache.bytes, 110);
    }
}
