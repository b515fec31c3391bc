//! Exact top-k over a matrix: reads every row once for up to 64 vectors, at the speed of memory or of arithmetic.
//! Knows nothing of ops and parameters, nor where the matrix came from. Equal questions have equal answers, bit for
//! bit, on every machine, and however many vectors are asked for at once (see `kernel`).

mod best;
mod error;
mod rows;
#[cfg(test)]
mod tests;

pub use best::TopK;
pub use error::ScanError;
pub use rows::Rows;

use crate::artifact::Matrix;
use crate::kernel::{Block, Element, Query, length};
use best::Best;

/// How alike two vectors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Metric {
    /// The cosine of their angle, higher is better; 0 when either is all zeros.
    Cosine,
    /// Their dot product, higher is better.
    Dot,
    /// The square of their Euclidean distance, lower is better.
    L2,
}

impl Metric {
    /// The metric that a manifest calls `name`.
    pub fn from_name(name: &str) -> Option<Metric> {
        match name {
            "cosine" => Some(Metric::Cosine),
            "dot" => Some(Metric::Dot),
            "l2" => Some(Metric::L2),
            _ => None,
        }
    }

    /// Its name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Cosine => "cosine",
            Metric::Dot => "dot",
            Metric::L2 => "l2",
        }
    }
}

/// What is divided by its length before it is compared, each element rounded to f32; zeros stay zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Normalize {
    #[default]
    Neither,
    Queries,
    Rows,
    Both,
}

/// What is asked of a matrix.
pub struct Search<'a> {
    /// How many rows are wanted; all when there are fewer.
    pub k: usize,
    /// How rows are compared.
    pub metric: Metric,
    /// What is made one long first.
    pub normalize: Normalize,
    /// The rows that count.
    pub rows: Rows<'a>,
}

/// Vectors that are compared with a row while it is near: from here on arithmetic is the limit.
const BLOCK_VECTORS: usize = 64;

/// Few enough that their scores stay in the nearest cache.
const BLOCK_ROWS: usize = 256;

impl Search<'_> {
    /// All rows as they are.
    pub fn new(k: usize, metric: Metric) -> Search<'static> {
        Search { k, metric, normalize: Normalize::Neither, rows: Rows::all() }
    }

    /// The rows that are most like `vector`.
    ///
    /// Scores are good to rounding as long as squares stay in the range of f32, for vectors of a length
    /// between about 1e-18 and 1e18.
    ///
    /// # Errors
    /// When the vector, the rows that count or the type of the elements do not fit.
    pub fn nearest(&self, matrix: &Matrix, vector: &[f32]) -> Result<TopK, ScanError> {
        Ok(self.nearest_to_each(matrix, &[vector.to_vec()])?.remove(0))
    }

    /// The rows that are most like each of `vectors`, as [`Search::nearest`] finds them. The matrix is read once for
    /// 64 of them.
    ///
    /// # Errors
    /// As [`Search::nearest`].
    pub fn nearest_to_each(&self, matrix: &Matrix, vectors: &[Vec<f32>]) -> Result<Vec<TopK>, ScanError> {
        let element = Element::of(matrix.shape().dtype)?;
        let columns = matrix.shape().cols;
        let wrong = vectors.iter().position(|vector| vector.len() as u64 != columns);
        if let Some(at) = wrong {
            let (vector, of) = (vectors[at].len() as u64, vectors.len());
            return Err(ScanError::Length { at, of, vector, columns });
        }
        self.rows.check(matrix.shape().rows)?;
        let mut found = Vec::with_capacity(vectors.len());
        for vectors in vectors.chunks(BLOCK_VECTORS) {
            let units: Vec<Vec<f32>>;
            let vectors = match self.normalize {
                Normalize::Neither | Normalize::Rows => vectors,
                Normalize::Queries | Normalize::Both => {
                    units = vectors.iter().map(|vector| unit(vector)).collect();
                    &units
                }
            };
            let as_they_are = matches!(self.normalize, Normalize::Neither | Normalize::Queries);
            match vectors {
                [vector] if as_they_are => found.push(self.of_one(matrix, vector, element)),
                _ => found.extend(self.of_block(matrix, vectors, element, !as_they_are)),
            }
        }
        Ok(found)
    }

    fn of_one(&self, matrix: &Matrix, vector: &[f32], element: Element) -> TopK {
        let query = Query::new(vector, self.metric, element);
        let mut best = Best::new(self.k, self.metric);
        let mut scores = [0.0; BLOCK_ROWS];
        for run in self.rows.runs(matrix.shape().rows) {
            let mut row = run.start;
            for block in matrix.rows_bytes(run).chunks(query.row_bytes * BLOCK_ROWS) {
                let scores = &mut scores[..block.len() / query.row_bytes];
                query.score(block, scores);
                best.offer_rows(scores, row);
                row += scores.len() as u64;
            }
        }
        best.into_top_k()
    }

    fn of_block(
        &self,
        matrix: &Matrix,
        vectors: &[Vec<f32>],
        element: Element,
        scaled: bool,
    ) -> impl Iterator<Item = TopK> + use<> {
        let block = Block::new(vectors, self.metric, element, scaled);
        let mut best: Vec<Best> = vectors.iter().map(|_| Best::new(self.k, self.metric)).collect();
        let mut limits: Vec<f32> = best.iter().map(Best::limit).collect();
        let mut tile = block.tile();
        let mut scores = vec![0.0; tile.rows() * block.width()];
        let (mut rows, at_once) = (self.rows.runs(matrix.shape().rows).flatten(), tile.rows());
        let mut take = || -> (Vec<u64>, Vec<&[u8]>) {
            rows.by_ref().take(at_once).map(|row| (row, matrix.rows_bytes(row..row + 1))).unzip()
        };
        let (mut numbers, mut bytes) = take();
        while !numbers.is_empty() {
            let (next_numbers, next_bytes) = take();
            block.score(&bytes, &next_bytes, &mut tile, &mut scores);
            for (&row, scores) in numbers.iter().zip(scores.chunks_exact(block.width())) {
                best::offer_to_each(&mut best, &mut limits, scores, row);
            }
            (numbers, bytes) = (next_numbers, next_bytes);
        }
        best.into_iter().map(Best::into_top_k)
    }
}

/// A vector divided by its length.
fn unit(vector: &[f32]) -> Vec<f32> {
    let length = length(vector);
    let divided = |&x: &f32| if length == 0.0 { x } else { x / length };
    vector.iter().map(divided).collect()
}

/// One row as f32, for a query by row.
///
/// # Errors
/// When there is no such row, or its elements are of a type that is not searched.
pub fn row_as_f32(matrix: &Matrix, row: u64) -> Result<Vec<f32>, ScanError> {
    let element = Element::of(matrix.shape().dtype)?;
    let missing = ScanError::Row { row, rows: matrix.shape().rows };
    Ok(element.widen(matrix.row_bytes(row).ok_or(missing)?))
}
