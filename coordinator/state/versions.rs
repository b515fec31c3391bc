//! Adds versions to keys. Readers may be inside the trie: each change is one word stored, and what it
//! replaces is retired, not freed.

use forkyard_shared::arena::{ArenaError, ArenaWriter};
use forkyard_shared::context::{Link, NODE_WORDS, Node, Rank, Span, rank_of};

use super::epochs::Epochs;

/// Adds a version, the leaf at `leaf`, to the trie whose link is stored at `slot`. The rank must be new.
pub(super) fn add(
    arena: &mut ArenaWriter,
    epochs: &mut Epochs,
    mut slot: u64,
    rank: Rank,
    leaf: u64,
) -> Result<(), ArenaError> {
    let rank = rank.0;
    let leaf = Link::Leaf(leaf).word();
    loop {
        let word = arena.load(slot)?;
        let new = match Link::of(word) {
            Link::Empty => leaf,
            Link::Leaf(at) => {
                let words = fork((rank_of(arena, at)?.0, word), (rank, leaf));
                arena.put_words(&words)?
            }
            Link::Node(at) => {
                let node = Node::at(arena, at)?;
                let digit = node.span.digit(rank);
                if !node.span.holds(rank) {
                    let words = fork((node.span.prefix(), word), (rank, leaf));
                    arena.put_words(&words)?
                } else if node.has(digit) {
                    slot = at + 8 * (NODE_WORDS + node.index(digit)) as u64;
                    continue;
                } else {
                    let old_bytes = 8 * (NODE_WORDS + node.links.len()) as u64;
                    let words = grown(node, digit, leaf);
                    let new = arena.put_words(&words)?;
                    arena.store(slot, new);
                    epochs.retire(at, old_bytes, arena);
                    return Ok(());
                }
            }
        };
        arena.store(slot, new);
        return Ok(());
    }
}

/// The words of a node of two links, each given with a rank that it leads to.
fn fork(a: (u64, u64), b: (u64, u64)) -> [u64; NODE_WORDS + 2] {
    let span = Span::joining(a.0, b.0);
    let bitmap = 1 << span.digit(a.0) | 1 << span.digit(b.0);
    let (low, high) = if a.0 < b.0 { (a.1, b.1) } else { (b.1, a.1) };
    [span.word(), bitmap, 0, low, high]
}

/// The words of a node with one link more.
fn grown(node: Node, digit: u32, link: u64) -> Vec<u64> {
    let mut words = Vec::with_capacity(NODE_WORDS + node.links.len() + 1);
    words.extend([node.span.word(), node.bitmap | 1 << digit, 0]);
    words.extend(node.links.iter().map(|link| link.get()));
    words.insert(NODE_WORDS + node.index(digit), link);
    words
}
