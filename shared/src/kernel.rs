//! The inner loops of [`crate::scan`]: how alike a vector is to each of many rows, in one fixed order of
//! additions. Ignorant of which scores are wanted.
//!
//! Equal questions have equal answers, bit for bit, on every machine: all is computed in f32 and in
//! one order. A row is taken in groups of 32 elements, the last one filled up with zeros. Element `i`
//! of a group is added, with one rounding, to sum `i`; in the end the 32 sums are added up, halves
//! onto halves. That is the order of four registers of eight lanes (AVX2 and FMA). Wider registers
//! would change it, and gain little: memory is the limit.
//!
//! The macro `kernel` writes this order down once; it is expanded over registers (`v3`) and over
//! arrays (`anywhere`). Arrays alone were tried: whether the compiler made registers of them changed
//! with the build settings.

use half::f16;

use crate::artifact::{Dtype, Matrix};
use crate::scan::{Metric, ScanError};

#[derive(Clone, Copy)]
pub(crate) enum Element {
    F16,
    F32,
}

impl Element {
    pub fn of(matrix: &Matrix) -> Result<Element, ScanError> {
        match matrix.shape().dtype {
            Dtype::F16 => Ok(Element::F16),
            Dtype::F32 => Ok(Element::F32),
            other => Err(ScanError::Dtype(other)),
        }
    }
}

/// A vector made ready to be compared with rows of one element type.
pub(crate) struct Query {
    metric: Metric,
    element: Element,
    pub(crate) row_bytes: usize,
    /// The vector as a row of f32, in groups of 4 x 8 elements.
    groups: Vec<[[u8; 32]; 4]>,
    norm: f32,
}

impl Query {
    pub fn new(vector: &[f32], metric: Metric, element: Element) -> Query {
        // Its norm comes from its dot product with itself: the same order of additions as all else.
        let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut groups = vec![[[0; 32]; 4]; vector.len().div_ceil(32)];
        groups.as_flattened_mut().as_flattened_mut()[..bytes.len()].copy_from_slice(&bytes);
        let (row_bytes, norm) = (bytes.len(), 0.0);
        let itself = Query { metric: Metric::Dot, element: Element::F32, row_bytes, groups, norm };
        let mut square = [0.0];
        itself.score(&bytes, &mut square);
        let row_bytes = match element {
            Element::F16 => row_bytes / 2,
            Element::F32 => row_bytes,
        };
        Query { metric, element, row_bytes, groups: itself.groups, norm: square[0].sqrt() }
    }

    /// The scores of whole rows.
    pub fn score(&self, rows: &[u8], scores: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if crate::sys::scores_v3(self, rows, scores) {
            return;
        }
        anywhere::scores(self, rows, scores);
    }

    fn cosine(&self, dot: f32, row_square: f32) -> f32 {
        let norms = row_square.sqrt() * self.norm;
        if norms == 0.0 { 0.0 } else { dot / norms }
    }
}

/// `scores`, and the order of all its additions, over the `Lanes` and operations of the module that
/// expands this. The attributes are those that the operations need.
macro_rules! kernel {
    ($(#[$features:meta])*) => {
        $(#[$features])*
        pub(crate) fn scores(query: &Query, rows: &[u8], scores: &mut [f32]) {
            match query.element {
                Element::F16 => by_metric(query, rows, scores, |bytes: &[u8; 16]| load_f16(bytes)),
                Element::F32 => by_metric(query, rows, scores, |bytes: &[u8; 32]| load_f32(bytes)),
            }
        }

        $(#[$features])*
        fn by_metric<const BYTES: usize>(
            query: &Query,
            rows: &[u8],
            scores: &mut [f32],
            load: impl Fn(&[u8; BYTES]) -> Lanes,
        ) {
            match query.metric {
                Metric::Cosine => {
                    let step = |x, y, [dot, square]: [Lanes; 2]| [fma(x, y, dot), fma(x, x, square)];
                    let finish = |[dot, square]: [f32; 2]| query.cosine(dot, square);
                    each_row(query, rows, scores, load, step, finish);
                }
                Metric::Dot => {
                    let step = |x, y, [dot]: [Lanes; 1]| [fma(x, y, dot)];
                    each_row(query, rows, scores, load, step, |[dot]| dot);
                }
                Metric::L2 => {
                    let step = |x, y, [square]: [Lanes; 1]| [fma(sub(x, y), sub(x, y), square)];
                    each_row(query, rows, scores, load, step, |[square]| square);
                }
            }
        }

        $(#[$features])*
        fn each_row<const BYTES: usize, const SUMS: usize>(
            query: &Query,
            rows: &[u8],
            scores: &mut [f32],
            load: impl Fn(&[u8; BYTES]) -> Lanes,
            step: impl Fn(Lanes, Lanes, [Lanes; SUMS]) -> [Lanes; SUMS],
            finish: impl Fn([f32; SUMS]) -> f32,
        ) {
            for (row, score) in rows.chunks_exact(query.row_bytes).zip(scores) {
                let mut sums = [[zero(); SUMS]; 4];
                let mut take = |row: &[[u8; BYTES]; 4], query: &[[u8; 32]; 4]| {
                    for i in 0..4 {
                        sums[i] = step(load(&row[i]), load_f32(&query[i]), sums[i]);
                    }
                };
                let groups = row.as_chunks().0.as_chunks().0;
                for (row, query) in groups.iter().zip(&query.groups) {
                    take(row, query);
                }
                if let Some(query) = query.groups.get(groups.len()) {
                    let rest = &row[size_of_val(groups)..];
                    let mut last = [[0; BYTES]; 4];
                    last.as_flattened_mut()[..rest.len()].copy_from_slice(rest);
                    take(&last, query);
                }
                *score = finish(total(sums));
            }
        }

        $(#[$features])*
        fn total<const SUMS: usize>([a, b, c, d]: [[Lanes; SUMS]; 4]) -> [f32; SUMS] {
            let mut totals = [0.0; SUMS];
            for sum in 0..SUMS {
                let lanes = add(add(a[sum], c[sum]), add(b[sum], d[sum]));
                let [a, b, c, d, e, f, g, h] = to_array(lanes);
                totals[sum] = ((a + e) + (c + g)) + ((b + f) + (d + h));
            }
            totals
        }
    };
}

/// The kernel for x86-64-v3, the machines since 2013 (Intel) and 2015 (AMD).
#[cfg(target_arch = "x86_64")]
pub(crate) mod v3 {
    use std::arch::x86_64::*;

    use super::{Element, Metric, Query};

    type Lanes = __m256;

    kernel!(#[target_feature(enable = "avx2,fma,f16c")]);

    #[target_feature(enable = "avx2,fma,f16c")]
    fn load_f16(bytes: &[u8; 16]) -> Lanes {
        _mm256_cvtph_ps(register(bytes))
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn load_f32(bytes: &[u8; 32]) -> Lanes {
        let halves = bytes.as_chunks().0;
        _mm256_castsi256_ps(_mm256_set_m128i(register(&halves[1]), register(&halves[0])))
    }

    /// One load instruction. (The compiler does not see that in four loads of 8 bytes.)
    #[target_feature(enable = "avx2,fma,f16c")]
    fn register(bytes: &[u8; 16]) -> __m128i {
        let bits = u128::from_le_bytes(*bytes);
        _mm_set_epi64x((bits >> 64) as i64, bits as i64)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn zero() -> Lanes {
        _mm256_setzero_ps()
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn add(a: Lanes, b: Lanes) -> Lanes {
        _mm256_add_ps(a, b)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn sub(a: Lanes, b: Lanes) -> Lanes {
        _mm256_sub_ps(a, b)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn fma(a: Lanes, b: Lanes, sum: Lanes) -> Lanes {
        _mm256_fmadd_ps(a, b, sum)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn to_array(lanes: Lanes) -> [f32; 8] {
        let bits = _mm256_castps_si256(lanes);
        [
            _mm256_extract_epi32::<0>(bits),
            _mm256_extract_epi32::<1>(bits),
            _mm256_extract_epi32::<2>(bits),
            _mm256_extract_epi32::<3>(bits),
            _mm256_extract_epi32::<4>(bits),
            _mm256_extract_epi32::<5>(bits),
            _mm256_extract_epi32::<6>(bits),
            _mm256_extract_epi32::<7>(bits),
        ]
        .map(|bits| f32::from_bits(bits.cast_unsigned()))
    }
}

/// The kernel for all other machines: slow, and equal in every bit.
pub(crate) mod anywhere {
    use std::array::from_fn;

    use super::{Element, Metric, Query, widen};

    type Lanes = [f32; 8];

    kernel!();

    fn load_f16(bytes: &[u8; 16]) -> Lanes {
        let elements = bytes.as_chunks().0;
        from_fn(|i| widen(elements[i]))
    }

    fn load_f32(bytes: &[u8; 32]) -> Lanes {
        let elements = bytes.as_chunks().0;
        from_fn(|i| f32::from_le_bytes(elements[i]))
    }

    fn zero() -> Lanes {
        [0.0; 8]
    }

    fn add(a: Lanes, b: Lanes) -> Lanes {
        from_fn(|i| a[i] + b[i])
    }

    fn sub(a: Lanes, b: Lanes) -> Lanes {
        from_fn(|i| a[i] - b[i])
    }

    fn fma(a: Lanes, b: Lanes, sum: Lanes) -> Lanes {
        from_fn(|i| a[i].mul_add(b[i], sum[i]))
    }

    fn to_array(lanes: Lanes) -> [f32; 8] {
        lanes
    }
}

pub(crate) fn widen(half: [u8; 2]) -> f32 {
    f16::from_le_bytes(half).to_f32()
}
