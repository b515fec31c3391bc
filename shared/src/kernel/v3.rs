//! The kernel for x86-64-v3, the machines since 2013 (Intel) and 2015 (AMD).

use std::arch::x86_64::*;

use super::block::{Block, ROWS, Tile, VECTORS};
use super::order::{filled_up, kernel};
use super::{Chunk, Element, Query, REGISTERS, cosine};
use crate::scan::Metric;
use crate::sys;

type Lanes = __m256;

kernel!(#[target_feature(enable = "avx2,fma,f16c")]);

#[target_feature(enable = "avx2,fma,f16c")]
fn load_f16(bytes: &[u8; 16]) -> Lanes {
    _mm256_cvtph_ps(half_register(bytes))
}

/// The upper half of an f32 is a bf16.
#[target_feature(enable = "avx2,fma,f16c")]
fn load_bf16(bytes: &[u8; 16]) -> Lanes {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(half_register(bytes))))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn load_f32(bytes: &[u8; 32]) -> Lanes {
    let halves = bytes.as_chunks().0;
    _mm256_castsi256_ps(_mm256_set_m128i(half_register(&halves[1]), half_register(&halves[0])))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn load_i8(bytes: &[u8; 8]) -> Lanes {
    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_set_epi64x(0, i64::from_le_bytes(*bytes))))
}

/// One load instruction. (The compiler does not see that in four loads of 8 bytes.)
#[target_feature(enable = "avx2,fma,f16c")]
fn half_register(bytes: &[u8; 16]) -> __m128i {
    let bits = u128::from_le_bytes(*bytes);
    _mm_set_epi64x((bits >> 64) as i64, bits as i64)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn load(chunk: &Chunk) -> Lanes {
    let [a, b, c, d, e, f, g, h] = chunk.0;
    _mm256_setr_ps(a, b, c, d, e, f, g, h)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn store(lanes: Lanes) -> Chunk {
    let (lower, upper) = (_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
    let ([a, b, c, d], [e, f, g, h]) = (to_array(lower), to_array(upper));
    Chunk([a, b, c, d, e, f, g, h])
}

#[target_feature(enable = "avx2,fma,f16c")]
fn to_array(lanes: __m128) -> [f32; 4] {
    let bits = _mm_castps_si128(lanes);
    [
        f32::from_bits(_mm_extract_epi32::<0>(bits).cast_unsigned()),
        f32::from_bits(_mm_extract_epi32::<1>(bits).cast_unsigned()),
        f32::from_bits(_mm_extract_epi32::<2>(bits).cast_unsigned()),
        f32::from_bits(_mm_extract_epi32::<3>(bits).cast_unsigned()),
    ]
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
fn div(a: Lanes, b: f32) -> Lanes {
    _mm256_div_ps(a, _mm256_set1_ps(b))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn fma(a: Lanes, b: Lanes, sum: Lanes) -> Lanes {
    _mm256_fmadd_ps(a, b, sum)
}

/// The upper half onto the lower one.
#[target_feature(enable = "avx2,fma,f16c")]
fn halved(lanes: Lanes) -> __m128 {
    _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn total(lanes: Lanes) -> f32 {
    totals([lanes, zero(), zero(), zero()])[0]
}

/// Four totals at once: the sums are turned so that each of the four has a lane.
#[target_feature(enable = "avx2,fma,f16c")]
fn totals(lanes: [Lanes; 4]) -> [f32; 4] {
    let [p, q, r, s] = [halved(lanes[0]), halved(lanes[1]), halved(lanes[2]), halved(lanes[3])];
    let (pq, rs) = (_mm_unpacklo_ps(p, q), _mm_unpacklo_ps(r, s));
    let (pq_upper, rs_upper) = (_mm_unpackhi_ps(p, q), _mm_unpackhi_ps(r, s));
    let (first, second) = (_mm_movelh_ps(pq, rs), _mm_movehl_ps(rs, pq));
    let (third, fourth) = (_mm_movelh_ps(pq_upper, rs_upper), _mm_movehl_ps(rs_upper, pq_upper));
    to_array(_mm_add_ps(_mm_add_ps(first, third), _mm_add_ps(second, fourth)))
}
