//! The promise: an exact top-k costs hardly more than reading the matrix. Beside it stands the floor,
//! a sum over the same bytes, as fast as one thread can read them.
//!
//! The matrices are larger than caches, and random: the share of rows that enter the best k is that
//! of real data, not that of zeros.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forkyard_shared::artifact::{Dtype, Matrix, Shape};
use forkyard_shared::scan::{Metric, Search};

const MATRIX_BYTES: u64 = 64 << 20;
const COLS: u64 = 384;
const K: usize = 10;

fn benches(c: &mut Criterion) {
    for dtype in [Dtype::F32, Dtype::F16] {
        let rows = MATRIX_BYTES / (COLS * dtype.size_bytes());
        let shape = Shape { dtype, rows, cols: COLS, one_dimensional: false, offset: 0 };
        let bytes = elements(&shape);
        let matrix = Matrix::new(&shape, &bytes).expect("the bytes are those of the shape");
        let query: Vec<f32> = (0..COLS).map(|i| (i as f32).sin()).collect();

        let mut group = c.benchmark_group(format!("topk/{}", dtype.name()));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("floor", |b| b.iter(|| sum(black_box(&bytes))));
        for (name, metric) in [("cosine", Metric::Cosine), ("dot", Metric::Dot), ("l2", Metric::L2)] {
            group.bench_function(name, |b| {
                b.iter(|| Search::new(K, metric).nearest(&matrix, black_box(&query)))
            });
        }
    }
}

/// Numbers between 1 and 2 in either type: a fixed sign and exponent before random bits.
fn elements(shape: &Shape) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let count = shape.rows * shape.cols;
    match shape.dtype {
        Dtype::F16 => (0..count).flat_map(|_| (0x3c00 | (random() >> 54) as u16).to_le_bytes()).collect(),
        _ => (0..count).flat_map(|_| (0x3f80_0000 | (random() >> 41) as u32).to_le_bytes()).collect(),
    }
}

fn sum(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks();
    words.iter().fold(0, |sum: u64, &word| sum.wrapping_add(u64::from_le_bytes(word)))
}

criterion_group!(topk, benches);
criterion_main!(topk);
