//! The promise: results become durable at hardly more than the price of writing them, and are found
//! again in no time. Beside the log stands a plain file that takes the same bytes and one `fdatasync`;
//! beside the lookup, a hash map.

use std::collections::HashMap;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, Write};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use forkyard::bench::{Log, Lookup};
use forkyard_shared::digest::Digest;
use tempfile::TempDir;

const RESULTS: usize = 10_000;
const RESULT_BYTES: usize = 64;

fn benches(c: &mut Criterion) {
    let results: Vec<(Digest, Vec<u8>)> =
        (0..RESULTS as u64).map(|n| (Digest::of(&n.to_le_bytes()), result(n))).collect();

    let mut group = c.benchmark_group("store_log/append");
    group.throughput(Throughput::Elements(RESULTS as u64)).sample_size(20);
    group.bench_function("floor", |b| {
        b.iter_batched(
            || tempfile::tempfile_in(place()).expect("a file can be made"),
            |file| write_durably(file, &results).expect("there is room"),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("log", |b| {
        b.iter_batched(
            || {
                let dir = TempDir::new_in(place()).expect("a directory can be made");
                (Log::create(dir.path()).expect("a store can be made"), dir)
            },
            |(mut log, dir)| {
                log.append(&results);
                assert_eq!(log.durable(), RESULTS as u64);
                // Returned, so that taking them down is not measured.
                (log, dir)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();

    let dir = TempDir::new_in(place()).expect("a directory can be made");
    Log::create(dir.path()).expect("a store can be made").append(&results);
    let lookup = Lookup::open(dir.path(), RESULTS).expect("the store is there");
    let map: HashMap<Digest, Vec<u8>> = results.iter().cloned().collect();
    let keys = || results.iter().map(|(key, _)| key);
    assert_eq!(lookup.count(keys()), RESULTS);

    let mut group = c.benchmark_group("store_log/lookup");
    group.throughput(Throughput::Elements(RESULTS as u64));
    group.bench_function("floor", |b| {
        b.iter(|| keys().filter_map(|key| black_box(map.get(key).cloned())).count());
    });
    group.bench_function("log", |b| b.iter(|| lookup.count(keys())));
    group.bench_function("log/open", |b| {
        b.iter(|| Lookup::open(dir.path(), RESULTS).expect("the store is there"));
    });
}

fn result(n: u64) -> Vec<u8> {
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.resize(RESULT_BYTES, 0);
    bytes
}

/// Beside the build, because the usual place of temporary files may be memory.
fn place() -> &'static str {
    env!("CARGO_TARGET_TMPDIR")
}

fn write_durably(mut file: File, results: &[(Digest, Vec<u8>)]) -> io::Result<File> {
    let bytes: Vec<u8> = results.iter().flat_map(|(key, bytes)| key.0.iter().chain(bytes)).copied().collect();
    file.write_all(&bytes)?;
    file.sync_data()?;
    Ok(file)
}

criterion_group!(store_log, benches);
criterion_main!(store_log);
