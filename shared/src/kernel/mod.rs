//! The inner loops of [`crate::scan`]: how alike vectors and rows are, in one fixed order of additions. Ignorant of
//! which scores are wanted.
//!
//! Equal questions have equal answers, bit for bit, on every machine: all is computed in f32 and in
//! one order. A row is taken in groups of 32 elements, the last one filled up with zeros. Element `i`
//! of a group is added, with one rounding, to sum `i`; in the end the 32 sums are added up, halves
//! onto halves. That is the order of four registers of eight lanes (AVX2 and FMA), and just as well that
//! of two registers of sixteen. One vector has its four registers side by side, because memory is its limit; many
//! vectors have them one after the other, because arithmetic is theirs: the order of each sum is the same.
//!
//! The macro in `order` writes this down once; it is expanded over registers (`v3`) and over
//! arrays (`anywhere`). Arrays alone were tried: whether the compiler made registers of them changed
//! with the build settings.

pub(crate) mod anywhere;
mod block;
mod order;
#[cfg(target_arch = "x86_64")]
pub(crate) mod v3;

pub(crate) use block::{Block, Tile};

use half::{bf16, f16};

use crate::artifact::Dtype;
use crate::scan::{Metric, ScanError};

/// The types of elements that can be compared.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Element {
    F16,
    Bf16,
    F32,
    I8,
}

impl Element {
    pub fn of(dtype: Dtype) -> Result<Element, ScanError> {
        match dtype {
            Dtype::F16 => Ok(Element::F16),
            Dtype::BF16 => Ok(Element::Bf16),
            Dtype::F32 => Ok(Element::F32),
            Dtype::I8 => Ok(Element::I8),
            other => Err(ScanError::Dtype(other)),
        }
    }

    fn size_bytes(self) -> usize {
        match self {
            Element::I8 => 1,
            Element::F16 | Element::Bf16 => 2,
            Element::F32 => 4,
        }
    }

    /// Numbers as near as elements of this type come to them.
    pub fn rounded(self, vector: &[f32]) -> Vec<f32> {
        match self {
            Element::F16 => vector.iter().map(|&x| f16::from_f32(x).to_f32()).collect(),
            Element::Bf16 => vector.iter().map(|&x| bf16::from_f32(x).to_f32()).collect(),
            Element::F32 => vector.to_vec(),
            Element::I8 => vector.iter().map(|&x| f32::from(x as i8)).collect(),
        }
    }

    /// The elements of a row as f32, which holds each of them exactly.
    pub fn widen(self, row: &[u8]) -> Vec<f32> {
        match self {
            Element::F16 => row.as_chunks().0.iter().map(|&x| f16::from_le_bytes(x).to_f32()).collect(),
            Element::Bf16 => row.as_chunks().0.iter().map(|&x| bf16::from_le_bytes(x).to_f32()).collect(),
            Element::F32 => row.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect(),
            Element::I8 => row.iter().map(|&x| f32::from(x.cast_signed())).collect(),
        }
    }
}

/// Eight numbers where a register can be loaded from without crossing a cache line.
#[derive(Clone, Copy, Default)]
#[repr(align(32))]
pub(crate) struct Chunk([f32; 8]);

/// Chunks that make a group.
const REGISTERS: usize = 4;

/// Numbers in groups, the last one filled up with zeros.
fn groups_of(vector: &[f32]) -> Vec<[Chunk; REGISTERS]> {
    let mut groups = vec![[Chunk::default(); REGISTERS]; vector.len().div_ceil(8 * REGISTERS)];
    for (chunk, numbers) in groups.as_flattened_mut().iter_mut().zip(vector.chunks(8)) {
        chunk.0[..numbers.len()].copy_from_slice(numbers);
    }
    groups
}

/// The length of a vector. It comes from its dot product with itself: the same order of additions as all else.
pub(crate) fn length(vector: &[f32]) -> f32 {
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    let (element, row_bytes) = (Element::F32, bytes.len());
    let itself = Query { metric: Metric::Dot, element, row_bytes, groups: groups_of(vector), length: 0.0 };
    let mut square = [0.0];
    itself.score(&bytes, &mut square);
    square[0].sqrt()
}

/// A vector made ready to be compared with rows of one element type.
pub(crate) struct Query {
    metric: Metric,
    element: Element,
    pub(crate) row_bytes: usize,
    groups: Vec<[Chunk; REGISTERS]>,
    length: f32,
}

impl Query {
    pub fn new(vector: &[f32], metric: Metric, element: Element) -> Query {
        let row_bytes = vector.len() * element.size_bytes();
        Query { metric, element, row_bytes, groups: groups_of(vector), length: length(vector) }
    }

    /// The scores of whole rows.
    pub fn score(&self, rows: &[u8], scores: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if crate::sys::scores_v3(self, rows, scores) {
            return;
        }
        anywhere::scores(self, rows, scores);
    }
}

/// The cosine of two vectors' angle, by their dot product and lengths.
fn cosine(dot: f32, row_length: f32, query_length: f32) -> f32 {
    let lengths = row_length * query_length;
    if lengths == 0.0 { 0.0 } else { dot / lengths }
}
