//! The sets of writers that contexts name. Every set has one trie, and every trie node exists once: so
//! equal sets have the same offset, and what two sets share is neither stored nor compared twice.
//!
//! Nodes are counted by who claims them: contexts that are kept, and nodes above. A new node has no claim
//! yet; what is new below a new node is claimed by it, so that claiming the top is enough.

use forkyard_shared::arena::{ArenaError, ArenaReader, ArenaWriter};
use forkyard_shared::context::{Link, NODE_WORDS, Node, Span, rank_of};
use hashbrown::HashTable;

/// The offset of a node's claims, from that of the node.
const CLAIMS_AT: u64 = 16;

/// All nodes of all sets.
#[derive(Default)]
pub(super) struct Sets {
    nodes: HashTable<u64>,
}

/// A node that may exist.
struct Draft {
    span: Span,
    bitmap: u64,
    links: [u64; 64],
    len: usize,
}

impl Draft {
    fn new(span: Span) -> Draft {
        Draft { span, bitmap: 0, links: [0; 64], len: 0 }
    }

    /// Adds a link, whose digit is above all that there are.
    fn push(&mut self, digit: u32, link: u64) {
        self.bitmap |= 1 << digit;
        self.links[self.len] = link;
        self.len += 1;
    }

    fn links(&self) -> &[u64] {
        &self.links[..self.len]
    }

    fn hash(&self) -> u64 {
        hash(self.span, self.bitmap, self.links().iter().copied())
    }

    fn is(&self, node: &Node) -> bool {
        self.span == node.span
            && self.bitmap == node.bitmap
            && node.links.iter().zip(self.links()).all(|(a, b)| a.get() == *b)
    }
}

fn hash(span: Span, bitmap: u64, links: impl Iterator<Item = u64>) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    let hash = links.fold(mix(span.word(), bitmap), mix);
    hash ^ hash >> 32
}

fn hash_at(arena: &ArenaReader, at: u64) -> u64 {
    let node = node_at(arena, at);
    hash(node.span, node.bitmap, node.links.iter().map(|link| link.get()))
}

/// A node that this module has made.
fn node_at(arena: &ArenaReader, at: u64) -> Node<'_> {
    Node::at(arena, at).expect("BUG: a node of a context")
}

/// What is known of a link without following it: a rank that it leads to, and the span of its node.
fn head(arena: &ArenaReader, link: u64) -> Result<(u64, Option<Span>), ArenaError> {
    match Link::of(link) {
        Link::Node(at) => {
            let span = Node::at(arena, at)?.span;
            Ok((span.prefix(), Some(span)))
        }
        Link::Leaf(at) => Ok((rank_of(arena, at)?.0, None)),
        Link::Empty => Err(ArenaError::Malformed { at: link, what: "set of writers" }),
    }
}

impl Sets {
    /// The union of two sets. When one includes the other, it is that one.
    pub(super) fn union(&mut self, arena: &mut ArenaWriter, a: u64, b: u64) -> Result<u64, ArenaError> {
        if a == b || b == 0 {
            return Ok(a);
        }
        if a == 0 {
            return Ok(b);
        }
        let ((rank_a, span_a), (rank_b, span_b)) = (head(arena, a)?, head(arena, b)?);
        let above = |upper: Option<Span>, rank, lower: Option<Span>| {
            upper.filter(|upper| upper.holds(rank) && lower.is_none_or(|lower| upper.shift() > lower.shift()))
        };
        if let (Some(span), true) = (span_a, span_a == span_b) {
            self.merge(arena, span, a, b)
        } else if let Some(span) = above(span_a, rank_b, span_b) {
            self.graft(arena, span.digit(rank_b), a, b)
        } else if let Some(span) = above(span_b, rank_a, span_a) {
            self.graft(arena, span.digit(rank_a), b, a)
        } else {
            let span = Span::joining(rank_a, rank_b);
            let mut draft = Draft::new(span);
            let mut links = [(rank_a, a), (rank_b, b)];
            links.sort_unstable();
            links.into_iter().for_each(|(rank, link)| draft.push(span.digit(rank), link));
            self.keep(arena, draft)
        }
    }

    /// The union of two nodes of the same span.
    fn merge(&mut self, arena: &mut ArenaWriter, span: Span, a: u64, b: u64) -> Result<u64, ArenaError> {
        let mut draft = Draft::new(span);
        let [bits_a, bits_b] = [a, b].map(|at| node_at(arena, at).bitmap);
        let (mut rest, mut index_a, mut index_b) = (bits_a | bits_b, 0, 0);
        let (mut is_a, mut is_b) = (bits_a == rest, bits_b == rest);
        while rest != 0 {
            let digit = rest.trailing_zeros();
            rest &= rest - 1;
            let [mut x, mut y] = [0, 0];
            if bits_a >> digit & 1 == 1 {
                x = node_at(arena, a).links[index_a].get();
                index_a += 1;
            }
            if bits_b >> digit & 1 == 1 {
                y = node_at(arena, b).links[index_b].get();
                index_b += 1;
            }
            let both = self.union(arena, x, y)?;
            is_a &= both == x;
            is_b &= both == y;
            draft.push(digit, both);
        }
        // It would be found to be kept already; this saves looking for it.
        match (is_a, is_b) {
            (true, _) => Ok(a),
            (_, true) => Ok(b),
            _ => self.keep(arena, draft),
        }
    }

    /// The union of a node with a set that belongs below its child of a digit.
    fn graft(&mut self, arena: &mut ArenaWriter, digit: u32, node: u64, set: u64) -> Result<u64, ArenaError> {
        let old = node_at(arena, node);
        let child = if old.has(digit) { old.links[old.index(digit)].get() } else { 0 };
        let new = self.union(arena, child, set)?;
        if new == child {
            return Ok(node);
        }
        let old = node_at(arena, node);
        let mut draft = Draft::new(old.span);
        let mut bits = old.bitmap | 1 << digit;
        while bits != 0 {
            let at = bits.trailing_zeros();
            bits &= bits - 1;
            draft.push(at, if at == digit { new } else { old.links[old.index(at)].get() });
        }
        self.keep(arena, draft)
    }

    /// The node that is like the draft.
    fn keep(&mut self, arena: &mut ArenaWriter, draft: Draft) -> Result<u64, ArenaError> {
        let hash = draft.hash();
        if let Some(at) = self.nodes.find(hash, |at| draft.is(&node_at(arena, *at))) {
            return Ok(*at);
        }
        let mut words = [0; NODE_WORDS + 64];
        (words[0], words[1]) = (draft.span.word(), draft.bitmap);
        words[NODE_WORDS..][..draft.len].copy_from_slice(draft.links());
        let at = arena.put_words(&words[..NODE_WORDS + draft.len])?;
        draft.links().iter().for_each(|link| claim(arena, *link));
        self.nodes.insert_unique(hash, at, |at| hash_at(arena, *at));
        Ok(at)
    }

    /// Gives a claim back; `freed` learns which sets are no more.
    pub(super) fn release(&mut self, arena: &mut ArenaWriter, link: u64, mut freed: impl FnMut(u64)) {
        let mut links = vec![link];
        while let Some(link) = links.pop() {
            let Link::Node(at) = Link::of(link) else { continue };
            let claims = arena.load(at + CLAIMS_AT).expect("BUG: a node of a context");
            let left = claims.checked_sub(1).expect("BUG: a context released twice");
            arena.store(at + CLAIMS_AT, left);
            if left > 0 {
                continue;
            }
            let same = self.nodes.find_entry(hash_at(arena, at), |other| *other == at);
            same.expect("BUG: a node of a context").remove();
            let node = node_at(arena, at);
            links.extend(node.links.iter().map(|link| link.get()));
            let bytes = 8 * (NODE_WORDS + node.links.len()) as u64;
            arena.free(at, bytes);
            freed(at);
        }
    }
}

/// Claims a set: it stays until it is released as often as it was claimed.
pub(super) fn claim(arena: &mut ArenaWriter, link: u64) {
    if let Link::Node(at) = Link::of(link) {
        let claims = arena.load(at + CLAIMS_AT).expect("BUG: a node of a context");
        arena.store(at + CLAIMS_AT, claims + 1);
    }
}
