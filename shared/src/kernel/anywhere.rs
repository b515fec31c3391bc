//! The kernel for machines without the registers of `v3`: slow, and equal in every bit.

use std::array::from_fn;

use half::{bf16, f16};

use super::block::{Block, ROWS, Tile, VECTORS};
use super::order::{filled_up, kernel};
use super::{Chunk, Element, Query, REGISTERS, cosine};
use crate::scan::Metric;
use crate::sys;

type Lanes = [f32; 8];

kernel!();

fn load_f16(bytes: &[u8; 16]) -> Lanes {
    let elements = bytes.as_chunks().0;
    from_fn(|i| f16::from_le_bytes(elements[i]).to_f32())
}

fn load_bf16(bytes: &[u8; 16]) -> Lanes {
    let elements = bytes.as_chunks().0;
    from_fn(|i| bf16::from_le_bytes(elements[i]).to_f32())
}

fn load_f32(bytes: &[u8; 32]) -> Lanes {
    let elements = bytes.as_chunks().0;
    from_fn(|i| f32::from_le_bytes(elements[i]))
}

fn load_i8(bytes: &[u8; 8]) -> Lanes {
    from_fn(|i| f32::from(bytes[i].cast_signed()))
}

fn load(chunk: &Chunk) -> Lanes {
    chunk.0
}

fn store(lanes: Lanes) -> Chunk {
    Chunk(lanes)
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

fn div(a: Lanes, b: f32) -> Lanes {
    from_fn(|i| a[i] / b)
}

fn fma(a: Lanes, b: Lanes, sum: Lanes) -> Lanes {
    from_fn(|i| a[i].mul_add(b[i], sum[i]))
}

fn total([a, b, c, d, e, f, g, h]: Lanes) -> f32 {
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

fn totals(lanes: [Lanes; 4]) -> [f32; 4] {
    lanes.map(total)
}
