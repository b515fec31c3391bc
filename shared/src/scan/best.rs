//! The best so far of what is offered row by row.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Metric;

/// The best rows and their scores, best first; ties by row number, NaN last.
#[derive(Clone, Debug, PartialEq)]
pub struct TopK {
    /// Row numbers.
    pub ids: Vec<u64>,
    /// The score of each.
    pub scores: Vec<f32>,
}

/// The best `k` rows so far, by rank and then by row; the heap's top is the worst of them. Rows are offered in their
/// order.
pub(super) struct Best {
    k: usize,
    metric: Metric,
    heap: BinaryHeap<Reverse<(i32, Reverse<u64>)>>,
}

/// Scores that are looked at together: most often none of them is good enough.
const TOGETHER: usize = 16;

impl Best {
    pub fn new(k: usize, metric: Metric) -> Best {
        Best { k, metric, heap: BinaryHeap::new() }
    }

    /// The score that the next row must beat; NaN, which every score beats, while there is room.
    pub fn limit(&self) -> f32 {
        match self.heap.peek() {
            Some(Reverse((worst, _))) if self.heap.len() >= self.k => unrank(*worst, self.metric),
            _ => f32::NAN,
        }
    }

    /// The scores of rows that follow each other.
    pub fn offer_rows(&mut self, scores: &[f32], first: u64) {
        let mut limit = self.limit();
        for (at, scores) in scores.chunks(TOGETHER).enumerate() {
            if !scores.iter().fold(false, |any, &score| any | beats(score, limit, self.metric)) {
                continue;
            }
            for (row, &score) in (first + (at * TOGETHER) as u64..).zip(scores) {
                self.offer(score, row);
            }
            limit = self.limit();
        }
    }

    fn offer(&mut self, score: f32, row: u64) {
        let candidate = Reverse((rank(score, self.metric), Reverse(row)));
        if self.heap.len() < self.k {
            self.heap.push(candidate);
        } else if self.heap.peek().is_some_and(|worst| candidate < *worst) {
            self.heap.pop();
            self.heap.push(candidate);
        }
    }

    pub fn into_top_k(self) -> TopK {
        let best = self.heap.into_sorted_vec().into_iter();
        let (ids, scores) =
            best.map(|Reverse((rank, Reverse(row)))| (row, unrank(rank, self.metric))).unzip();
        TopK { ids, scores }
    }
}

/// The scores of one row with many vectors; `limits` are kept what they are.
pub(super) fn offer_to_each(best: &mut [Best], limits: &mut [f32], scores: &[f32], row: u64) {
    let Some(metric) = best.first().map(|best| best.metric) else { return };
    let pairs = || scores.iter().zip(&*limits);
    if !pairs().fold(false, |any, (&score, &limit)| any | beats(score, limit, metric)) {
        return;
    }
    for ((best, limit), &score) in best.iter_mut().zip(limits).zip(scores) {
        if beats(score, *limit, metric) {
            best.offer(score, row);
            *limit = best.limit();
        }
    }
}

/// Whether a score may be better. What cannot be compared, it may be.
fn beats(score: f32, limit: f32, metric: Metric) -> bool {
    let worse = match metric {
        Metric::L2 => score >= limit,
        Metric::Cosine | Metric::Dot => score <= limit,
    };
    !worse
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
    use super::*;

    #[test]
    fn a_rank_gives_its_score_back() {
        for score in [0.0, 1e-45, 1.5, 1e38, f32::INFINITY, -1.5, f32::NEG_INFINITY] {
            assert_eq!(unrank(rank(score, Metric::Dot), Metric::Dot), score);
            assert_eq!(unrank(rank(score, Metric::L2), Metric::L2), score);
        }
        assert_eq!(rank(-0.0, Metric::Dot), rank(0.0, Metric::Dot));
    }
}
