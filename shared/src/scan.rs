//! Exact top-k over a matrix: reads every row once, at the speed of memory. Knows nothing of ops and
//! parameters, nor where the matrix came from. Equal questions have equal answers, bit for bit, on every
//! machine (see `kernel`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use crate::artifact::{Dtype, Matrix};
use crate::kernel::{Element, Query, widen};

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

/// The best rows and their scores, best first; ties by row number, NaN last.
#[derive(Clone, Debug, PartialEq)]
pub struct TopK {
    /// Row numbers.
    pub ids: Vec<u64>,
    /// The score of each.
    pub scores: Vec<f32>,
}

/// Why a matrix cannot be scanned as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScanError {
    /// The elements are neither float16 nor float32.
    Dtype(Dtype),
    /// The vector has another length than the rows.
    Length {
        /// The length of the vector.
        vector: u64,
        /// The length of a row.
        columns: u64,
    },
    /// There is no such row.
    Row {
        /// The row asked for.
        row: u64,
        /// How many there are.
        rows: u64,
    },
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            ScanError::Dtype(dtype) => {
                write!(f, "topk needs float16 or float32; this is {}", dtype.name())
            }
            ScanError::Length { vector, columns } => {
                write!(f, "the vector has {vector} values, the matrix has {columns} columns")
            }
            ScanError::Row { row, rows } => {
                write!(f, "there is no row {row}: the matrix has {rows} rows, counted from 0")
            }
        }
    }
}

impl std::error::Error for ScanError {}

/// The `k` rows of `matrix` that are most like `query`; all rows when there are fewer.
///
/// Scores are good to rounding as long as squares stay in the range of f32, for vectors of a length
/// between about 1e-18 and 1e18.
pub fn top_k(matrix: &Matrix, query: &[f32], k: usize, metric: Metric) -> Result<TopK, ScanError> {
    let element = Element::of(matrix)?;
    let (vector, columns) = (query.len() as u64, matrix.shape().cols);
    if vector != columns {
        return Err(ScanError::Length { vector, columns });
    }
    let query = Query::new(query, metric, element);
    let mut best = Best { k, heap: BinaryHeap::new() };
    let mut scores = [0.0; BLOCK_ROWS];
    let mut row = 0;
    for block in matrix.blocks(BLOCK_ROWS) {
        let scores = &mut scores[..block.len() / query.row_bytes];
        query.score(block, scores);
        for &score in scores.iter() {
            best.offer(rank(score, metric), row);
            row += 1;
        }
    }
    let best = best.heap.into_sorted_vec().into_iter();
    let (ids, scores) = best.map(|Reverse((r, Reverse(row)))| (row, unrank(r, metric))).unzip();
    Ok(TopK { ids, scores })
}

/// One row as f32, for a query by row.
pub fn row_as_f32(matrix: &Matrix, row: u64) -> Result<Vec<f32>, ScanError> {
    let element = Element::of(matrix)?;
    let missing = ScanError::Row { row, rows: matrix.shape().rows };
    let bytes = matrix.row_bytes(row).ok_or(missing)?;
    Ok(match element {
        Element::F32 => bytes.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect(),
        Element::F16 => bytes.as_chunks().0.iter().map(|&x| widen(x)).collect(),
    })
}

/// Few enough that their scores stay in the nearest cache.
const BLOCK_ROWS: usize = 256;

/// The best `k` rows so far, by rank and then by row; the heap's top is the worst of them.
struct Best {
    k: usize,
    heap: BinaryHeap<Reverse<(i32, Reverse<u64>)>>,
}

impl Best {
    fn offer(&mut self, rank: i32, row: u64) {
        let candidate = Reverse((rank, Reverse(row)));
        if self.heap.len() < self.k {
            self.heap.push(candidate);
        } else if self.heap.peek().is_some_and(|worst| candidate < *worst) {
            self.heap.pop();
            self.heap.push(candidate);
        }
    }
}

/// A number that is higher for a better score and equal for equal scores; the lowest for NaN.
fn rank(score: f32, metric: Metric) -> i32 {
    if score.is_nan() {
        return i32::MIN;
    }
    let merit = if metric == Metric::L2 { -score } else { score };
    // The bits of floats order as sign and magnitude, those of integers as two's complement. Adding
    // zero makes a zero of -0.0, which equals it.
    let bits = (merit + 0.0).to_bits().cast_signed();
    if bits < 0 { bits ^ i32::MAX } else { bits }
}

/// The score that was ranked.
fn unrank(rank: i32, metric: Metric) -> f32 {
    if rank == i32::MIN {
        return f32::NAN;
    }
    let bits = if rank < 0 { rank ^ i32::MAX } else { rank };
    let merit = f32::from_bits(bits.cast_unsigned());
    if metric == Metric::L2 { 0.0 - merit } else { merit }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::artifact::Shape;
    use crate::kernel::anywhere;

    const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::L2];

    /// `count` numbers between -1 and 1, the same every time.
    fn numbers(count: usize) -> Vec<f32> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(next).collect()
    }

    fn to_bytes(element: Element, values: &[f32]) -> Vec<u8> {
        match element {
            Element::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
            Element::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// A matrix at an odd address of its file.
    fn with_matrix<T>(element: Element, cols: usize, values: &[f32], test: impl FnOnce(&Matrix) -> T) -> T {
        let dtype = match element {
            Element::F16 => Dtype::F16,
            Element::F32 => Dtype::F32,
        };
        let (rows, cols) = ((values.len() / cols) as u64, cols as u64);
        let shape = Shape { dtype, rows, cols, one_dimensional: false, offset: 1 };
        let bytes = [&[0], &to_bytes(element, values)[..]].concat();
        test(&Matrix::new(&shape, &bytes).unwrap())
    }

    fn best(cols: usize, values: &[f32], query: &[f32], k: usize, metric: Metric) -> TopK {
        with_matrix(Element::F32, cols, values, |matrix| top_k(matrix, query, k, metric).unwrap())
    }

    fn reference(row: &[f32], query: &[f32], metric: Metric) -> f64 {
        let pairs = || row.iter().zip(query).map(|(&x, &y)| (f64::from(x), f64::from(y)));
        let dot: f64 = pairs().map(|(x, y)| x * y).sum();
        match metric {
            Metric::Dot => dot,
            Metric::L2 => pairs().map(|(x, y)| (x - y) * (x - y)).sum(),
            Metric::Cosine => {
                let squares: (f64, f64) = pairs()
                    .map(|(x, y)| (x * x, y * y))
                    .fold((0.0, 0.0), |(row, query), (x, y)| (row + x, query + y));
                dot / (squares.0 * squares.1).sqrt()
            }
        }
    }

    #[test]
    fn scores_are_those_of_a_plain_computation_in_f64() {
        let (rows, k) = (2 * BLOCK_ROWS + 3, 20);
        for cols in [1, 7, 8, 9, 31, 32, 33, 384] {
            for (element, metric) in [Element::F16, Element::F32]
                .into_iter()
                .flat_map(|element| METRICS.map(|metric| (element, metric)))
            {
                with_matrix(element, cols, &numbers(rows * cols), |matrix| {
                    let query = &numbers((rows + 1) * cols)[rows * cols..];
                    let sign = if metric == Metric::L2 { 1.0 } else { -1.0 };
                    let exact: Vec<f64> = (0..rows as u64)
                        .map(|row| reference(&row_as_f32(matrix, row).unwrap(), query, metric))
                        .collect();
                    let mut ordered = exact.clone();
                    ordered.sort_by(|a, b| (sign * a).total_cmp(&(sign * b)));

                    let found = top_k(matrix, query, k, metric).unwrap();
                    assert_eq!(found.ids.len(), k);
                    for ((&id, &score), best) in found.ids.iter().zip(&found.scores).zip(ordered) {
                        let of_id = exact[id as usize];
                        assert!(
                            (of_id - f64::from(score)).abs() < 1e-5 * of_id.abs().max(1.0),
                            "{metric:?} {cols}: row {id} has {score}, not {of_id}"
                        );
                        assert!(
                            (of_id - best).abs() < 1e-5 * best.abs().max(1.0),
                            "{metric:?} {cols}: row {id} has {of_id}, the best {best}"
                        );
                    }
                    let mut distinct = found.ids.clone();
                    distinct.sort_unstable();
                    distinct.dedup();
                    assert_eq!(distinct.len(), k);
                });
            }
        }
    }

    #[test]
    fn every_machine_computes_the_same_bits() {
        let mut special = numbers(384 * 5);
        let odd = [0.0, -0.0, 1e-40, -1e-30, 1e30, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        special[..odd.len()].copy_from_slice(&odd);
        for cols in [1, 7, 8, 9, 31, 32, 33, 384] {
            for element in [Element::F16, Element::F32] {
                for metric in METRICS {
                    let query = Query::new(&numbers(cols), metric, element);
                    let rows = to_bytes(element, &special[..cols * 5]);
                    same_bits(&query, &rows);
                }
            }
        }
    }

    #[test]
    fn every_half_is_widened_the_same_everywhere() {
        let halves: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        same_bits(&Query::new(&[1.0], Metric::Dot, Element::F16), &halves);
    }

    fn same_bits(query: &Query, rows: &[u8]) {
        let mut scores = vec![0.0; rows.len() / query.row_bytes];
        let mut expected = scores.clone();
        query.score(rows, &mut scores);
        anywhere::scores(query, rows, &mut expected);
        // Which of the many NaNs it is shows nowhere.
        let bits = |x: &f32| {
            if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }
        };
        assert!(scores.iter().map(bits).eq(expected.iter().map(bits)), "{scores:?}\n{expected:?}");
    }

    #[test]
    fn ties_go_by_row_number() {
        let values: Vec<f32> = (0..2000).map(|row| (row % 2) as f32).collect();
        assert_eq!(best(1, &values, &[1.0], 4, Metric::Dot).ids, [1, 3, 5, 7]);
        assert_eq!(best(1, &values, &[0.0], 3, Metric::L2).ids, [0, 2, 4]);
        assert_eq!(rank(-0.0, Metric::Dot), rank(0.0, Metric::Dot));
    }

    #[test]
    fn the_number_of_rows_asked_for_may_be_any() {
        let values = [3.0, 1.0, 2.0];
        assert_eq!(best(1, &values, &[1.0], usize::MAX, Metric::Dot).ids, [0, 2, 1]);
        assert_eq!(best(1, &values, &[1.0], 1, Metric::Dot).ids, [0]);
        assert_eq!(best(1, &values, &[1.0], 0, Metric::Dot).ids, [0; 0]);
    }

    #[test]
    fn the_distance_is_squared_and_the_nearest_is_first() {
        let found = best(2, &[0.0, 0.0, 3.0, 4.0, 1.0, 0.0], &[0.0, 0.0], 3, Metric::L2);
        assert_eq!(found, TopK { ids: vec![0, 2, 1], scores: vec![0.0, 1.0, 25.0] });
    }

    #[test]
    fn zero_vectors_have_cosine_zero() {
        let values = [0.0, 0.0, -1.0, 0.0, 1.0, 0.0];
        let found = best(2, &values, &[2.0, 0.0], 3, Metric::Cosine);
        assert_eq!(found, TopK { ids: vec![2, 0, 1], scores: vec![1.0, 0.0, -1.0] });
        assert_eq!(best(2, &values, &[0.0, 0.0], 3, Metric::Cosine).scores, [0.0; 3]);
    }

    #[test]
    fn nan_is_last_in_every_metric() {
        let values = [f32::NAN, 1.0, -f32::NAN, 2.0, f32::NEG_INFINITY];
        for metric in METRICS {
            let found = best(1, &values, &[1.0], 5, metric);
            let nan = found.scores.iter().position(|score| score.is_nan()).unwrap();
            assert!(found.scores[nan..].iter().all(|score| score.is_nan()), "{found:?}");
            assert!(found.ids[nan..].is_sorted(), "{found:?}");
            assert!(!best(1, &values, &[1.0], 2, metric).scores[0].is_nan());
        }
    }

    #[test]
    fn a_rank_gives_its_score_back() {
        for score in [0.0, 1e-45, 1.5, 1e38, f32::INFINITY, -1.5, f32::NEG_INFINITY] {
            assert_eq!(unrank(rank(score, Metric::Dot), Metric::Dot), score);
            assert_eq!(unrank(rank(score, Metric::L2), Metric::L2), score);
        }
    }

    #[test]
    fn what_cannot_be_scanned_is_refused_with_the_numbers() {
        with_matrix(Element::F16, 384, &[0.5; 768], |matrix| {
            let error = top_k(matrix, &[1.0; 3], 1, Metric::Dot).unwrap_err();
            assert_eq!(error.to_string(), "the vector has 3 values, the matrix has 384 columns");
            let error = row_as_f32(matrix, 2).unwrap_err();
            assert_eq!(error.to_string(), "there is no row 2: the matrix has 2 rows, counted from 0");
            assert_eq!(row_as_f32(matrix, 1).unwrap(), [0.5; 384]);
        });
        let dtype = Dtype::I8;
        let shape = Shape { dtype, rows: 1, cols: 2, one_dimensional: false, offset: 0 };
        let matrix = Matrix::new(&shape, &[1, 2]).unwrap();
        let error = top_k(&matrix, &[1.0; 2], 1, Metric::Dot).unwrap_err();
        assert_eq!(error.to_string(), "topk needs float16 or float32; this is int8");
    }
}
