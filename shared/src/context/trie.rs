//! Sets of ranks as path-compressed, 64-ary tries. Knows ranks and leaves, not what the leaves mean.
//!
//! ```text
//! link:   0 = nothing | offset of a node | offset of a leaf + 1
//! node:   prefix + shift | bitmap | claims | one link for each bit of the bitmap
//! leaf:   begins with its rank
//! ```
//!
//! A node of shift `s` holds ranks that agree above bit `s + 6`; bits `s..s + 6` choose the child. It has
//! two children at least, so that a set has exactly one trie. Equal nodes of a context are the same node;
//! the nodes of a key's versions are replaced as it gets more.

use super::Rank;
use crate::arena::{ArenaError, ArenaReader};
use crate::mapping::Word;

const DIGIT_BITS: u32 = 6;
const DIGIT_MASK: u64 = 63;

/// The words of a node before its links: span, bitmap, claims.
pub const NODE_WORDS: usize = 3;

/// What a link leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Nothing.
    Empty,
    /// The leaf at this offset.
    Leaf(u64),
    /// The node at this offset.
    Node(u64),
}

impl Link {
    /// Reads a link.
    #[inline]
    pub fn of(word: u64) -> Link {
        match word {
            0 => Link::Empty,
            word if word & 1 == 1 => Link::Leaf(word - 1),
            word => Link::Node(word),
        }
    }

    /// The link as it is stored.
    pub fn word(self) -> u64 {
        match self {
            Link::Empty => 0,
            Link::Leaf(at) => at + 1,
            Link::Node(at) => at,
        }
    }
}

/// Which ranks a node may hold: its prefix, with the shift in the six bits that no prefix uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(u64);

impl Span {
    /// The smallest span that holds both; they must differ.
    pub fn joining(a: u64, b: u64) -> Span {
        let shift = (a ^ b).ilog2() / DIGIT_BITS * DIGIT_BITS;
        Span(a >> shift >> DIGIT_BITS << DIGIT_BITS << shift | u64::from(shift))
    }

    /// The span as it is stored.
    pub fn word(self) -> u64 {
        self.0
    }

    /// A rank inside the span.
    #[inline]
    pub fn prefix(self) -> u64 {
        self.0 & !DIGIT_MASK
    }

    /// Where its ranks begin to differ.
    #[inline]
    pub fn shift(self) -> u32 {
        (self.0 & DIGIT_MASK) as u32
    }

    /// Whether a rank is inside.
    #[inline]
    pub fn holds(self, rank: u64) -> bool {
        (rank ^ self.0) >> self.shift() >> DIGIT_BITS == 0
    }

    /// Which child of a node of this span has the rank.
    #[inline]
    pub fn digit(self, rank: u64) -> u32 {
        (rank >> self.shift() & DIGIT_MASK) as u32
    }
}

/// A node.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    /// Its span.
    pub span: Span,
    /// Bit `d` is set when it has a child of digit `d`.
    pub bitmap: u64,
    /// Its links, one for each bit, from low to high.
    pub links: &'a [Word],
}

impl<'a> Node<'a> {
    /// The node at an offset.
    #[inline]
    pub fn at(arena: &'a ArenaReader, at: u64) -> Result<Node<'a>, ArenaError> {
        let head = arena.words(at, NODE_WORDS)?;
        let (span, bitmap) = (Span(head[0].get()), head[1].get());
        let links = arena.words(at + 8 * NODE_WORDS as u64, bitmap.count_ones() as usize)?;
        Ok(Node { span, bitmap, links })
    }

    /// Where the link of a digit is, or would be, among its links.
    #[inline]
    pub fn index(&self, digit: u32) -> usize {
        (self.bitmap & ((1 << digit) - 1)).count_ones() as usize
    }

    /// Whether it has a child of this digit.
    #[inline]
    pub fn has(&self, digit: u32) -> bool {
        self.bitmap >> digit & 1 == 1
    }

    /// The child that may hold a rank.
    #[inline]
    pub fn child(&self, rank: u64) -> Link {
        let digit = self.span.digit(rank);
        if self.span.holds(rank) && self.has(digit) {
            Link::of(self.links[self.index(digit)].get())
        } else {
            Link::Empty
        }
    }

    /// A child node, which must be below this one: so no damaged link leads round in a circle.
    #[inline]
    fn below(&self, arena: &'a ArenaReader, at: u64) -> Result<Node<'a>, ArenaError> {
        let node = Node::at(arena, at)?;
        if node.span.shift() >= self.span.shift() {
            return Err(ArenaError::Malformed { at, what: "trie node" });
        }
        Ok(node)
    }
}

/// The rank of a leaf.
#[inline]
pub fn rank_of(arena: &ArenaReader, leaf: u64) -> Result<Rank, ArenaError> {
    arena.load(leaf).map(Rank)
}

/// The leaf of a rank.
#[inline]
fn leaf_of(arena: &ArenaReader, link: Link, rank: u64) -> Result<Option<u64>, ArenaError> {
    let mut link = link;
    let mut above: Option<Node> = None;
    loop {
        match link {
            Link::Empty => return Ok(None),
            Link::Leaf(at) => return Ok((rank_of(arena, at)?.0 == rank).then_some(at)),
            Link::Node(at) => {
                let node = match above {
                    Some(above) => above.below(arena, at)?,
                    None => Node::at(arena, at)?,
                };
                link = node.child(rank);
                above = Some(node);
            }
        }
    }
}

/// The leaf in `of` of the highest rank that is also in `set`. Both are descended together, highest first:
/// what costs is where they interleave without meeting, never how many there are.
#[inline]
pub fn highest_common(arena: &ArenaReader, set: Link, of: Link) -> Result<Option<u64>, ArenaError> {
    match (set, of) {
        (Link::Empty, _) | (_, Link::Empty) => Ok(None),
        (set, Link::Leaf(at)) => Ok(leaf_of(arena, set, rank_of(arena, at)?.0)?.map(|_| at)),
        (Link::Leaf(at), of) => leaf_of(arena, of, rank_of(arena, at)?.0),
        (Link::Node(a), Link::Node(b)) => highest_in_nodes(arena, Node::at(arena, a)?, Node::at(arena, b)?),
    }
}

fn highest_in_nodes(arena: &ArenaReader, a: Node, b: Node) -> Result<Option<u64>, ArenaError> {
    if a.span == b.span {
        let mut common = a.bitmap & b.bitmap;
        while common != 0 {
            let digit = common.ilog2();
            common ^= 1 << digit;
            let [x, y] = [a, b].map(|node| Link::of(node.links[node.index(digit)].get()));
            let found = match (x, y) {
                (Link::Node(x), Link::Node(y)) => {
                    highest_in_nodes(arena, a.below(arena, x)?, b.below(arena, y)?)?
                }
                _ => highest_common(arena, x, y)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        return Ok(None);
    }
    // One of them may be a part of the other; each step goes down, so that this ends.
    let a_above = a.span.shift() > b.span.shift();
    let (upper, lower) = if a_above { (a, b) } else { (b, a) };
    match upper.child(lower.span.prefix()) {
        Link::Empty => Ok(None),
        Link::Node(at) => {
            let child = upper.below(arena, at)?;
            if a_above {
                highest_in_nodes(arena, child, lower)
            } else {
                highest_in_nodes(arena, lower, child)
            }
        }
        Link::Leaf(at) => {
            let rank = rank_of(arena, at)?.0;
            let found = leaf_of(arena, lower.child(rank), rank)?;
            Ok(found.map(|found| if a_above { found } else { at }))
        }
    }
}

/// Calls `f` with every leaf, by rank, until it says that this is enough; whether it never did.
pub fn leaves<E: From<ArenaError>>(
    arena: &ArenaReader,
    link: Link,
    f: &mut impl FnMut(u64) -> Result<bool, E>,
) -> Result<bool, E> {
    match link {
        Link::Empty => Ok(true),
        Link::Leaf(at) => f(at),
        Link::Node(at) => node_leaves(arena, Node::at(arena, at)?, f),
    }
}

fn node_leaves<E: From<ArenaError>>(
    arena: &ArenaReader,
    node: Node,
    f: &mut impl FnMut(u64) -> Result<bool, E>,
) -> Result<bool, E> {
    for word in node.links {
        let more = match Link::of(word.get()) {
            Link::Empty => true,
            Link::Leaf(at) => f(at)?,
            Link::Node(at) => node_leaves(arena, node.below(arena, at)?, f)?,
        };
        if !more {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_span_of_two_ranks_holds_both_and_tells_them_apart() {
        let ranks = [0, 1, 63, 64, 1 << 32, (1 << 32) + 5, 2 << 32, 1 << 60, u64::MAX - 1, u64::MAX];
        for (index, a) in ranks.into_iter().enumerate() {
            for b in ranks.into_iter().skip(index + 1) {
                let span = Span::joining(a, b);
                assert_eq!(span, Span::joining(b, a));
                assert!(span.holds(a) && span.holds(b) && span.holds(span.prefix()), "{a} {b}");
                assert!(span.digit(a) < span.digit(b), "{a} {b}");
            }
        }
    }

    #[test]
    fn a_span_holds_no_more_than_its_digits_tell_apart() {
        let span = Span::joining(64, 65);
        assert!((64..128).all(|rank| span.holds(rank)));
        assert!(![0, 63, 128, 64 + (1 << 32)].iter().any(|rank| span.holds(*rank)));
    }
}
