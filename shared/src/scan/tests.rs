//! Equal to a plain computation, equal on every machine, equal one by one and many at a time.

use half::{bf16, f16};

use super::*;
use crate::artifact::{Dtype, Shape};
use crate::kernel::{Tile, anywhere};

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::L2];
const ELEMENTS: [Element; 4] = [Element::F16, Element::Bf16, Element::F32, Element::I8];
/// Around the lengths of a register and of a group.
const LENGTHS: [usize; 9] = [1, 7, 8, 9, 31, 32, 33, 96, 384];

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
        Element::Bf16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        Element::I8 => values.iter().map(|&x| ((x * 127.0) as i8).cast_unsigned()).collect(),
        Element::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

/// A matrix at an odd address of its file.
fn with_matrix<T>(element: Element, cols: usize, values: &[f32], test: impl FnOnce(&Matrix) -> T) -> T {
    let dtype = match element {
        Element::F16 => Dtype::F16,
        Element::Bf16 => Dtype::BF16,
        Element::I8 => Dtype::I8,
        Element::F32 => Dtype::F32,
    };
    let (rows, cols) = ((values.len() / cols) as u64, cols as u64);
    let shape = Shape { dtype, rows, cols, one_dimensional: false, offset: 1 };
    let bytes = [&[0], &to_bytes(element, values)[..]].concat();
    test(&Matrix::new(&shape, &bytes).unwrap())
}

fn best(cols: usize, values: &[f32], query: &[f32], k: usize, metric: Metric) -> TopK {
    with_matrix(Element::F32, cols, values, |matrix| Search::new(k, metric).nearest(matrix, query).unwrap())
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
            let lengths = (squares.0 * squares.1).sqrt();
            if lengths == 0.0 { 0.0 } else { dot / lengths }
        }
    }
}

#[test]
fn scores_are_those_of_a_plain_computation_in_f64() {
    let (rows, k) = (2 * BLOCK_ROWS + 3, 20);
    for cols in LENGTHS {
        for (element, metric) in
            ELEMENTS.into_iter().flat_map(|element| METRICS.map(|metric| (element, metric)))
        {
            with_matrix(element, cols, &numbers(rows * cols), |matrix| {
                let query = &numbers((rows + 1) * cols)[rows * cols..];
                let sign = if metric == Metric::L2 { 1.0 } else { -1.0 };
                let exact: Vec<f64> = (0..rows as u64)
                    .map(|row| reference(&row_as_f32(matrix, row).unwrap(), query, metric))
                    .collect();
                let mut ordered = exact.clone();
                ordered.sort_by(|a, b| (sign * a).total_cmp(&(sign * b)));

                let found = Search::new(k, metric).nearest(matrix, query).unwrap();
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

/// Rows of numbers among which some are not.
fn special_rows(element: Element, cols: usize, rows: usize) -> Vec<u8> {
    let mut special = numbers(cols * rows);
    let odd = [0.0, -0.0, 1e-40, -1e-30, 1e30, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    let count = odd.len().min(special.len());
    special[..count].copy_from_slice(&odd[..count]);
    to_bytes(element, &special)
}

#[test]
fn every_machine_computes_the_same_bits() {
    for cols in LENGTHS {
        for element in ELEMENTS {
            for metric in METRICS {
                same_bits(&Query::new(&numbers(cols), metric, element), &special_rows(element, cols, 5));
                for scaled in [false, true] {
                    same_products(cols, element, metric, scaled);
                }
            }
        }
    }
}

#[test]
fn every_half_is_widened_the_same_everywhere() {
    let halves: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for element in [Element::F16, Element::Bf16] {
        same_bits(&Query::new(&[1.0], Metric::Dot, element), &halves);
    }
}

fn same_bits(query: &Query, rows: &[u8]) {
    let mut scores = vec![0.0; rows.len() / query.row_bytes];
    let mut expected = scores.clone();
    query.score(rows, &mut scores);
    anywhere::scores(query, rows, &mut expected);
    assert_eq!(bits(&scores), bits(&expected), "{scores:?}\n{expected:?}");
}

/// Which of the many NaNs it is shows nowhere.
fn bits(scores: &[f32]) -> Vec<u32> {
    scores.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// Several vectors at once, here and anywhere; and unscaled, as each alone.
fn same_products(cols: usize, element: Element, metric: Metric, scaled: bool) {
    let vectors: Vec<Vec<f32>> = numbers(cols * 6)[cols..].chunks(cols).map(<[f32]>::to_vec).collect();
    let block = Block::new(&vectors, metric, element, scaled);
    let bytes = special_rows(element, cols, 7);
    let rows: Vec<&[u8]> = bytes.chunks(bytes.len() / 7).collect();
    let here = each_tile(&block, &rows, |rows, tile, scores| block.score(rows, rows, tile, scores));
    let anywhere = each_tile(&block, &rows, |rows, tile, scores| {
        anywhere::products(&block, rows, &[], tile, scores);
    });
    assert_eq!(here, anywhere, "{cols} {element:?} {metric:?} {scaled}");
    if !scaled {
        for (at, vector) in vectors.iter().enumerate() {
            let mut alone = [0.0; 7];
            Query::new(vector, metric, element).score(&bytes, &mut alone);
            let beside: Vec<u32> = here.iter().skip(at).step_by(block.width()).copied().collect();
            assert_eq!(beside, bits(&alone), "{cols} {element:?} {metric:?} vector {at}");
        }
    }
}

/// All scores, from tiles of which no two are equally full.
fn each_tile(block: &Block, rows: &[&[u8]], score: impl Fn(&[&[u8]], &mut Tile, &mut [f32])) -> Vec<u32> {
    let mut tile = block.tile();
    let mut scores = vec![0.0; tile.rows() * block.width()];
    let each = rows.chunks(tile.rows().min(5)).flat_map(|rows| {
        score(rows, &mut tile, &mut scores);
        bits(&scores[..rows.len() * block.width()])
    });
    each.collect()
}

#[test]
fn many_vectors_have_the_answers_of_each() {
    let (cols, rows) = (11, BLOCK_ROWS + 5);
    let mask: Vec<u8> = (0..rows).map(|row| u8::from(row % 7 < 4) * 3).collect();
    for element in ELEMENTS {
        with_matrix(element, cols, &numbers(rows * cols), |matrix| {
            for (count, k) in [(1, 3), (5, 500), (BLOCK_VECTORS + 2, 4)] {
                let vectors: Vec<Vec<f32>> =
                    numbers(count * cols).chunks(cols).map(<[f32]>::to_vec).collect();
                for metric in METRICS {
                    for normalize in
                        [Normalize::Neither, Normalize::Queries, Normalize::Rows, Normalize::Both]
                    {
                        let some = Rows { range: Some([3, 200]), mask: Some(&mask) };
                        for rows in [Rows::all(), some] {
                            let search = Search { k, metric, normalize, rows };
                            let all = search.nearest_to_each(matrix, &vectors).unwrap();
                            assert_eq!(all.len(), count);
                            for at in [0, count / 2, count - 1] {
                                assert_eq!(all[at], search.nearest(matrix, &vectors[at]).unwrap());
                            }
                        }
                    }
                }
            }
        });
    }
    with_matrix(Element::F32, 1, &[1.0], |matrix| {
        assert_eq!(Search::new(1, Metric::Dot).nearest_to_each(matrix, &[]), Ok(Vec::new()));
    });
}

#[test]
fn what_is_normalized_is_as_if_it_had_come_so() {
    let (cols, rows) = (40, 30);
    let mut values = numbers(rows * cols);
    values[cols..2 * cols].fill(0.0);
    let query = &numbers((rows + 1) * cols)[rows * cols..];
    let units: Vec<f32> = values.chunks(cols).flat_map(unit).collect();
    for metric in METRICS {
        let plain = Search::new(rows, metric);
        let expected = |values: &[f32], query: &[f32]| {
            with_matrix(Element::F32, cols, values, |matrix| plain.nearest(matrix, query).unwrap())
        };
        let found = |normalize| {
            let search = Search { normalize, ..Search::new(rows, metric) };
            with_matrix(Element::F32, cols, &values, |matrix| search.nearest(matrix, query).unwrap())
        };
        assert_eq!(found(Normalize::Queries), expected(&values, &unit(query)));
        assert_eq!(found(Normalize::Rows), expected(&units, query));
        assert_eq!(found(Normalize::Both), expected(&units, &unit(query)));
    }
    let length: f64 = unit(query).iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    assert!((length - 1.0).abs() < 1e-6, "{length}");
}

#[test]
fn only_rows_that_count_are_found() {
    let values = [5.0, 4.0, 3.0, 2.0, 1.0, 0.0];
    let found = |range, mask: Option<&[u8]>| {
        let search = Search { rows: Rows { range, mask }, ..Search::new(2, Metric::Dot) };
        with_matrix(Element::F32, 1, &values, |matrix| search.nearest(matrix, &[1.0]))
    };
    assert_eq!(found(Some([2, 6]), None).unwrap().ids, [2, 3]);
    assert_eq!(found(None, Some(&[0, 1, 0, 0, 0, 1])).unwrap().ids, [1, 5]);
    assert_eq!(found(Some([2, 6]), Some(&[0, 1, 0, 0, 0, 1])).unwrap().ids, [5]);
    assert_eq!(found(Some([4, 4]), None).unwrap().ids, [0; 0]);
    assert_eq!(found(None, Some(&[1])), Err(ScanError::Mask { bytes: 1, rows: 6 }));
    assert_eq!(found(Some([4, 7]), None), Err(ScanError::Range { from: 4, to: 7, rows: 6 }));
}

#[test]
fn ties_go_by_row_number() {
    let values: Vec<f32> = (0..2000).map(|row| (row % 2) as f32).collect();
    assert_eq!(best(1, &values, &[1.0], 4, Metric::Dot).ids, [1, 3, 5, 7]);
    assert_eq!(best(1, &values, &[0.0], 3, Metric::L2).ids, [0, 2, 4]);
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
fn what_cannot_be_scanned_is_refused_with_the_numbers() {
    with_matrix(Element::F16, 384, &[0.5; 768], |matrix| {
        let error = Search::new(1, Metric::Dot).nearest(matrix, &[1.0; 3]).unwrap_err();
        assert_eq!(error.to_string(), "the vector has 3 values, the matrix has 384 columns");
        let vectors = [vec![0.0; 384], vec![0.0; 3]];
        let error = Search::new(1, Metric::Dot).nearest_to_each(matrix, &vectors).unwrap_err();
        assert_eq!(error.to_string(), "vector 1 (from 0) has 3 values, the matrix has 384 columns");
        let error = row_as_f32(matrix, 2).unwrap_err();
        assert_eq!(error.to_string(), "there is no row 2: the matrix has 2 rows, counted from 0");
        assert_eq!(row_as_f32(matrix, 1).unwrap(), [0.5; 384]);
    });
    let dtype = Dtype::U16;
    let shape = Shape { dtype, rows: 1, cols: 1, one_dimensional: false, offset: 0 };
    let matrix = Matrix::new(&shape, &[1, 2]).unwrap();
    let error = Search::new(1, Metric::Dot).nearest(&matrix, &[1.0]).unwrap_err();
    assert_eq!(error.to_string(), "topk needs float16, bfloat16, float32 or int8; this is uint16");
}
