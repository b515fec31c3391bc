//! Vector search as `scripts/figures/search.py` sets it beside others: one thread, one mapping. Prints one JSON object.

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use forkyard_shared::ann::Walk;
use forkyard_shared::artifact::{Format, Layout, Matrix, Reading, Shape, Usearch, read, read_npy};
use forkyard_shared::mapping::{Mapping, sealed_copy};
use forkyard_shared::scan::{Metric, Search, row_as_f32};
use serde_json::{Value, json};

const USAGE: &str =
    "usage: search scan F32.npy F16.npy | block FILE.npy VECTORS | walk FILE.usearch QUERIES.npy K EXPANSION";
const K: usize = 10;
const ROUNDS: usize = 15;

fn main() -> ExitCode {
    // `cargo bench` adds an option of its own.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let figures = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["scan", f32s, f16s] => scan(f32s, f16s),
        ["block", file, vectors] => block(file, vectors),
        ["walk", index, queries, k, expansion] => walk(index, queries, k, expansion),
        _ => Err(USAGE.into()),
    };
    match figures {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("search: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A matrix in memory, with pages as large as the system gives them.
struct Rows {
    shape: Shape,
    bytes: Mapping,
}

impl Rows {
    fn map(path: &str) -> Result<Rows, Box<dyn Error>> {
        let file = File::open(path)?;
        let shape = read_npy(&file, file.metadata()?.len())?;
        let bytes = Mapping::of(&file)?;
        bytes.populate();
        Ok(Rows { shape, bytes })
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix::new(&self.shape, &self.bytes).expect("the file was checked when it was read")
    }
}

fn seconds(what: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    what();
    start.elapsed().as_secs_f64()
}

fn least(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

/// One vector beside a sum of the same bytes, in turns.
fn scan(f32s: &str, f16s: &str) -> Result<Value, Box<dyn Error>> {
    let (wide, narrow) = (Rows::map(f32s)?, Rows::map(f16s)?);
    let query = row_as_f32(&wide.matrix(), 7)?;
    let search = Search::new(K, Metric::Cosine);
    let [mut sums, mut f32_s, mut f16_s] = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        sums.push(seconds(&mut || {
            black_box(sum(&wide.bytes));
        }));
        f32_s.push(seconds(&mut || drop(black_box(search.nearest(&wide.matrix(), &query)))));
        f16_s.push(seconds(&mut || drop(black_box(search.nearest(&narrow.matrix(), &query)))));
    }
    let speed = |rows: &Rows, times: &[f64]| rows.bytes.len() as f64 / least(times);
    Ok(json!({
        "sum": speed(&wide, &sums),
        "f32": speed(&wide, &f32_s),
        "f16": speed(&narrow, &f16_s),
        "f32_of_sum": least(&sums) / least(&f32_s),
        "f16_to_f32_rows": least(&f32_s) / least(&f16_s),
    }))
}

/// As fast as one thread can read.
fn sum(bytes: &[u8]) -> u64 {
    let (lines, _) = bytes.as_chunks::<64>();
    let mut sums = [0_u64; 8];
    for line in lines {
        for (sum, word) in sums.iter_mut().zip(line.as_chunks().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}

/// Many vectors at once.
fn block(file: &str, vectors: &str) -> Result<Value, Box<dyn Error>> {
    let rows = Rows::map(file)?;
    let vectors: Vec<Vec<f32>> =
        (0..vectors.parse()?).map(|row| row_as_f32(&rows.matrix(), row)).collect::<Result<_, _>>()?;
    let search = Search::new(K, Metric::Dot);
    let times: Vec<f64> = (0..3)
        .map(|_| seconds(&mut || drop(black_box(search.nearest_to_each(&rows.matrix(), &vectors)))))
        .collect();
    Ok(json!({ "vectors_per_s": vectors.len() as f64 / least(&times) }))
}

/// Walks through an index, one query after the other.
fn walk(index: &str, queries: &str, k: &str, expansion: &str) -> Result<Value, Box<dyn Error>> {
    let (k, expansion) = (k.parse()?, expansion.parse()?);
    let file = File::open(index)?;
    let reading = Reading { format: Format::Usearch, part: None, key: "", limit_bytes: u64::MAX };
    let mut table = Vec::new();
    let Layout::Usearch(layout) = read(&file, file.metadata()?.len(), &reading, &mut table)? else {
        return Err("no usearch index".into());
    };
    let (bytes, table) = (Mapping::of(&file)?, Mapping::of(&sealed_copy("table", &table[..])?)?);
    bytes.populate();
    let index = Usearch::new(&layout, &bytes, &table)?;
    let queries = Rows::map(queries)?;
    let queries: Vec<Vec<f32>> =
        (0..queries.shape.rows).map(|row| row_as_f32(&queries.matrix(), row)).collect::<Result<_, _>>()?;
    let mut walk = Walk::default();
    let mut keys = Vec::new();
    let times: Vec<f64> = (0..3)
        .map(|_| {
            keys.clear();
            seconds(&mut || {
                let found = queries.iter().map(|query| walk.nearest(&index, query, k, expansion));
                keys.extend(found.map(|found| found.expect("the lengths are equal").keys));
            })
        })
        .collect();
    Ok(json!({ "us": 1e6 * least(&times) / queries.len() as f64, "keys": keys }))
}
