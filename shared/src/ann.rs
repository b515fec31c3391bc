//! The approximate search in a graph of neighbours (HNSW), on the index of the library usearch as it lies in its file.
//! It goes the way of the library, step by step, so that it finds what the library finds.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use crate::artifact::Usearch;
use crate::kernel::{Element, Query};
use crate::scan::Metric;
use crate::sys;

/// How many candidates a search keeps unless it is told otherwise, as in the library.
pub const EXPANSION: usize = 64;

/// What was found: nearest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The keys.
    pub keys: Vec<u64>,
    /// The distance of each: 1 - cosine, 1 - dot product, or the square of the Euclidean distance.
    pub distances: Vec<f32>,
}

/// Why an index cannot be searched as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnnError {
    /// The vector has another length than those of the index.
    Length {
        /// The length of the vector.
        vector: u64,
        /// The dimensions of the index.
        dimensions: u64,
    },
    /// Nothing has this key.
    Key(u64),
}

impl fmt::Display for AnnError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            AnnError::Length { vector, dimensions } => {
                write!(f, "the vector has {vector} values, the index has {dimensions} dimensions")
            }
            AnnError::Key(key) => write!(f, "nothing in the index has the key {key}"),
        }
    }
}

impl std::error::Error for AnnError {}

/// The vector of a key as f32.
///
/// # Errors
/// When nothing has it.
pub fn vector_of(index: &Usearch, key: u64) -> Result<Vec<f32>, AnnError> {
    let vector = index.find(key).and_then(|node| index.vector(node)).ok_or(AnnError::Key(key))?;
    Ok(element(index).widen(vector))
}

fn element(index: &Usearch) -> Element {
    Element::of(index.layout().vectors.dtype).expect("a type of an index can be searched")
}

/// What is most like some vector, by one walk through the graph. Its memory serves the next walk.
#[derive(Default)]
pub struct Walk {
    /// A bit a node.
    seen: Vec<u64>,
    /// Words of `seen` that are not 0.
    touched: Vec<u32>,
    fresh: Vec<u32>,
}

/// The distance to a node, ordered as the library orders: what is no number is never nearer.
#[derive(Clone, Copy, PartialEq)]
struct Candidate {
    distance: f32,
    node: u32,
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Candidate) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Candidate) -> std::cmp::Ordering {
        self.distance.total_cmp(&other.distance).then(self.node.cmp(&other.node))
    }
}

impl Walk {
    /// The `k` entries that are most like `vector`; of `expansion` that are kept, if those are more.
    ///
    /// # Errors
    /// When the vector has another length than those of the index.
    pub fn nearest(
        &mut self,
        index: &Usearch,
        vector: &[f32],
        k: usize,
        expansion: usize,
    ) -> Result<Found, AnnError> {
        let layout = index.layout();
        let (length, dimensions) = (vector.len() as u64, layout.vectors.cols);
        if length != dimensions {
            return Err(AnnError::Length { vector: length, dimensions });
        }
        if k == 0 {
            return Ok(Found::default());
        }
        // The library searches with a vector of the index's own type.
        let rounded = element(index).rounded(vector);
        let query = Query::new(&rounded, layout.metric, element(index));
        let distance = |node: u32| {
            let mut score = [f32::NAN];
            if let Some(row) = index.vector(node) {
                query.score(row, &mut score);
            }
            match layout.metric {
                Metric::L2 => score[0],
                Metric::Cosine | Metric::Dot => 1.0 - score[0],
            }
        };
        let mut nearest = Candidate { distance: distance(layout.entry), node: layout.entry };
        for level in (1..=layout.max_level).rev() {
            nearest = descend(index, nearest, level, &distance);
        }
        let limit = expansion.max(k).min(index.nodes());
        let mut best = self.base(index, nearest, limit, &distance).into_sorted_vec();
        best.truncate(k);
        let keys = best.iter().filter_map(|found| index.key(found.node)).collect();
        Ok(Found { keys, distances: best.iter().map(|found| found.distance).collect() })
    }

    /// The best of level 0.
    fn base(
        &mut self,
        index: &Usearch,
        entry: Candidate,
        limit: usize,
        distance: &impl Fn(u32) -> f32,
    ) -> BinaryHeap<Candidate> {
        self.clear(index.nodes());
        let mut next = BinaryHeap::from([Reverse(entry)]);
        let mut best = BinaryHeap::with_capacity(limit + 1);
        self.see(entry.node);
        if index.key(entry.node).is_some() {
            best.push(entry);
        }
        let mut radius = entry.distance;
        while let Some(Reverse(candidate)) = next.pop() {
            if candidate.distance > radius && best.len() == limit {
                break;
            }
            let mut fresh = std::mem::take(&mut self.fresh);
            fresh.extend(index.neighbours(candidate.node, 0).filter(|node| self.see(*node)));
            fresh.iter().filter_map(|node| index.vector(*node)).for_each(sys::bring_near);
            for node in fresh.drain(..) {
                let found = Candidate { distance: distance(node), node };
                if best.len() < limit || found.distance < radius {
                    next.push(Reverse(found));
                    if index.key(node).is_some() {
                        best.push(found);
                        if best.len() > limit {
                            best.pop();
                        }
                        radius = best.peek().map_or(radius, |worst| worst.distance);
                    }
                }
            }
            self.fresh = fresh;
        }
        best
    }

    /// Forgets which nodes it has seen.
    fn clear(&mut self, nodes: usize) {
        for word in self.touched.drain(..) {
            self.seen[word as usize] = 0;
        }
        self.seen.resize(nodes.div_ceil(64), 0);
    }

    /// Whether a node is seen for the first time.
    fn see(&mut self, node: u32) -> bool {
        let Some(word) = self.seen.get_mut(node as usize / 64) else { return false };
        let bit = 1 << (node % 64);
        if *word & bit != 0 {
            return false;
        }
        if *word == 0 {
            self.touched.push(node / 64);
        }
        *word |= bit;
        true
    }
}

/// From neighbour to nearer neighbour, for as long as there is one.
fn descend(index: &Usearch, from: Candidate, level: u16, distance: &impl Fn(u32) -> f32) -> Candidate {
    let mut nearest = from;
    loop {
        let before = nearest.node;
        for node in index.neighbours(before, level) {
            let found = Candidate { distance: distance(node), node };
            if found.distance < nearest.distance {
                nearest = found;
            }
        }
        if nearest.node == before {
            return nearest;
        }
    }
}
