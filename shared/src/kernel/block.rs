//! Many vectors and a few rows at a time: so laid out that each number that is loaded serves several pairs.

use super::{Chunk, Element, REGISTERS, anywhere, groups_of, length};
use crate::scan::Metric;

/// Vectors whose sums with [`ROWS`] rows are in registers at once: twelve, and four registers for what is added.
pub(super) const VECTORS: usize = 4;

/// Rows whose sums are in registers at once.
pub(super) const ROWS: usize = 3;

/// A tile of rows stays in the nearest cache beside four vectors.
const TILE_BYTES: usize = 20 << 10;

/// Vectors made ready to be compared with rows of one element type.
pub(crate) struct Block {
    pub(super) metric: Metric,
    pub(super) element: Element,
    /// Whether rows are divided by their length first.
    pub(super) scaled: bool,
    /// Groups in a vector.
    pub(super) groups: usize,
    /// For each four vectors: for each of the four registers: that of each group, of each of them. Filled up with zeros.
    pub(super) chunks: Vec<[Chunk; VECTORS]>,
    /// Of the vectors, filled up with zeros.
    pub(super) lengths: Vec<f32>,
}

impl Block {
    pub fn new(vectors: &[Vec<f32>], metric: Metric, element: Element, scaled: bool) -> Block {
        let groups = vectors.first().map_or(0, |vector| vector.len().div_ceil(8 * REGISTERS));
        let fours = vectors.len().div_ceil(VECTORS);
        let mut chunks = vec![[Chunk::default(); VECTORS]; fours * REGISTERS * groups];
        for (at, vector) in vectors.iter().enumerate() {
            let four = &mut chunks[at / VECTORS * REGISTERS * groups..];
            for (g, group) in groups_of(vector).into_iter().enumerate() {
                for (register, chunk) in group.into_iter().enumerate() {
                    four[register * groups + g][at % VECTORS] = chunk;
                }
            }
        }
        let mut lengths: Vec<f32> = vectors.iter().map(|vector| length(vector)).collect();
        lengths.resize(fours * VECTORS, 0.0);
        Block { metric, element, scaled, groups, chunks, lengths }
    }

    /// A place for rows that are compared with this block.
    pub fn tile(&self) -> Tile {
        let three_bytes = ROWS * REGISTERS * self.groups * size_of::<Chunk>();
        let threes = (TILE_BYTES / three_bytes).clamp(1, 16);
        let chunks = vec![[Chunk::default(); ROWS]; threes * REGISTERS * self.groups];
        let sums = Box::new([[[Chunk::default(); VECTORS]; ROWS]; REGISTERS]);
        Tile { groups: self.groups, chunks, lengths: vec![0.0; threes * ROWS], sums }
    }

    /// How many scores there are for each row: those of vectors that are none come last.
    pub fn width(&self) -> usize {
        self.lengths.len()
    }

    /// The scores of a tile of rows: [`Block::width`] for the first, for the second, ... Those that come next are
    /// brought nearer meanwhile.
    pub fn score(&self, rows: &[&[u8]], coming: &[&[u8]], tile: &mut Tile, scores: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if crate::sys::products_v3(self, rows, coming, tile, scores) {
            return;
        }
        anywhere::products(self, rows, coming, tile, scores);
    }
}

/// A few rows as f32, laid out like the vectors of a [`Block`].
pub(crate) struct Tile {
    groups: usize,
    pub(super) chunks: Vec<[Chunk; ROWS]>,
    /// Of the rows, where they are asked for.
    pub(super) lengths: Vec<f32>,
    /// Sums of three rows and four vectors, a register after the other. They are here and not on the stack, because the
    /// compiler would keep them in registers, of which the last twelve sums need all.
    pub(super) sums: Box<[[[Chunk; VECTORS]; ROWS]; REGISTERS]>,
}

impl Tile {
    /// How many rows it takes.
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// The four registers of each group of a row, and which of the three chunks is the row's.
    pub(super) fn row_mut(&mut self, at: usize) -> ([&mut [[Chunk; ROWS]]; REGISTERS], usize) {
        let three = REGISTERS * self.groups;
        let chunks = &mut self.chunks[at / ROWS * three..][..three];
        let (ab, cd) = chunks.split_at_mut(2 * self.groups);
        let ((a, b), (c, d)) = (ab.split_at_mut(self.groups), cd.split_at_mut(self.groups));
        ([a, b, c, d], at % ROWS)
    }
}
