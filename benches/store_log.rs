//! The promise: results become durable at hardly more than the price of writing them, and are found again in no
//! time, whatever their size and the layout of the store.
//!
//! Beside tiny results stands a plain file that takes the same bytes and one `fdatasync`, and a hash map; beside
//! objects one pass of SHA-256 and one copy, durable where they are written.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use forkyard::bench::{Log, Lookup};
use forkyard_shared::digest::Digest;
use tempfile::TempDir;

const LAYOUTS: [&str; 3] = ["hybrid", "sqlite", "filesystem"];

/// How many objects of which size are written at once.
const OBJECTS: [(&str, usize, usize); 3] =
    [("1KB", 20_000, 1_000), ("1MB", 40, 1_000_000), ("100MB", 1, 100_000_000)];

fn tiny(c: &mut Criterion) {
    const RESULTS: usize = 10_000;
    let results = objects(RESULTS, 64);
    let mut group = c.benchmark_group("store/append 64B");
    group.throughput(Throughput::Elements(RESULTS as u64)).sample_size(20);
    group.bench_function("floor", |b| {
        b.iter_batched(
            || tempfile::tempfile_in(place()).expect("a file can be made"),
            |file| write_one_file(file, &results).expect("there is room"),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("hybrid", |b| {
        b.iter_batched(|| create("hybrid"), |store| append(store, &results), BatchSize::PerIteration);
    });
    group.finish();

    let (mut log, dir) = create("hybrid");
    log.append(&results);
    let lookup = Lookup::open(dir.path(), RESULTS).expect("the store is there");
    let map: HashMap<Digest, Vec<u8>> = results.iter().cloned().collect();
    let keys = || results.iter().map(|(key, _)| key);
    assert_eq!(lookup.count(keys()), RESULTS);

    let mut group = c.benchmark_group("store/lookup");
    group.throughput(Throughput::Elements(RESULTS as u64));
    group.bench_function("floor", |b| {
        b.iter(|| keys().filter_map(|key| black_box(map.get(key).cloned())).count());
    });
    group.bench_function("hybrid", |b| b.iter(|| lookup.count(keys())));
    group.bench_function("hybrid, opened", |b| {
        b.iter(|| Lookup::open(dir.path(), RESULTS).expect("the store is there"));
    });
}

fn sized(c: &mut Criterion) {
    for (name, count, len) in OBJECTS {
        let values = objects(count, len);
        // Taken down at the end: an ext4 from which thousands of files have just been removed makes new ones
        // more slowly.
        let done = RefCell::new(Vec::new());
        let mut group = c.benchmark_group(format!("store/write {name}"));
        group
            .throughput(Throughput::Elements(count as u64))
            .sample_size(10)
            .warm_up_time(Duration::from_secs(1));
        group.bench_function("floor", |b| {
            b.iter_batched(
                || TempDir::new_in(place()).expect("a directory can be made"),
                |dir| done.borrow_mut().push((None, write_files(dir, &values).expect("there is room"))),
                BatchSize::PerIteration,
            );
        });
        for layout in LAYOUTS {
            group.bench_function(layout, |b| {
                let append = |store| {
                    let (log, dir) = append(store, &values);
                    done.borrow_mut().push((Some(log), dir));
                };
                b.iter_batched(|| create(layout), append, BatchSize::PerIteration);
            });
        }
        group.finish();

        let mut group = c.benchmark_group(format!("store/read {name}, verified"));
        group
            .throughput(Throughput::Elements(count as u64))
            .sample_size(10)
            .warm_up_time(Duration::from_secs(1));
        let plain = write_files(TempDir::new_in(place()).expect("a directory can be made"), &values);
        let plain = plain.expect("there is room");
        group.bench_function("floor", |b| {
            b.iter(|| read_files(plain.path(), &values).expect("they are there"))
        });
        for layout in LAYOUTS {
            let (_log, dir) = append(create(layout), &values);
            let lookup = Lookup::open(dir.path(), count).expect("the store is there");
            let read_all = || {
                let read = |(key, _): &(Digest, Vec<u8>)| lookup.read(*key).expect("it was written").len();
                lookup.at_one_moment(|| values.iter().map(read).sum::<usize>())
            };
            assert_eq!(read_all(), count * len);
            group.bench_function(layout, |b| b.iter(read_all));
        }
        group.finish();
    }
}

/// Keys, and values that cannot be packed.
fn objects(count: usize, len: usize) -> Vec<(Digest, Vec<u8>)> {
    let mut state = 1u64;
    let mut word = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    };
    (0..count as u64)
        .map(|n| {
            let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| word()).collect();
            bytes.truncate(len);
            (Digest::of(&n.to_le_bytes()), bytes)
        })
        .collect()
}

fn create(layout: &str) -> (Log, TempDir) {
    let dir = TempDir::new_in(place()).expect("a directory can be made");
    (Log::create(dir.path(), layout).expect("a store can be made"), dir)
}

/// Returned, so that taking them down is not measured.
fn append((mut log, dir): (Log, TempDir), values: &[(Digest, Vec<u8>)]) -> (Log, TempDir) {
    log.append(values);
    assert_eq!(log.durable(), values.len() as u64);
    (log, dir)
}

/// Beside the build, because the usual place of temporary files may be memory.
fn place() -> &'static str {
    env!("CARGO_TARGET_TMPDIR")
}

fn write_one_file(mut file: File, results: &[(Digest, Vec<u8>)]) -> io::Result<File> {
    let bytes: Vec<u8> = results.iter().flat_map(|(key, bytes)| key.0.iter().chain(bytes)).copied().collect();
    file.write_all(&bytes)?;
    file.sync_data()?;
    Ok(file)
}

/// A file for each value, as plain code would do it: hashed, and durable together if they are small.
fn write_files(dir: TempDir, values: &[(Digest, Vec<u8>)]) -> io::Result<TempDir> {
    let small = values.iter().all(|(_, bytes)| bytes.len() < 10_000);
    for byte in 0..=255u8 {
        fs::create_dir(dir.path().join(format!("{byte:02x}")))?;
    }
    for (key, bytes) in values {
        black_box(Digest::of(bytes));
        let mut file = File::create(file_of(dir.path(), *key))?;
        file.write_all(bytes)?;
        if !small {
            file.sync_data()?;
        }
    }
    nix::unistd::syncfs(&File::open(dir.path())?)?;
    Ok(dir)
}

fn read_files(dir: &Path, values: &[(Digest, Vec<u8>)]) -> io::Result<usize> {
    let read = |(key, _): &(Digest, Vec<u8>)| {
        let bytes = fs::read(file_of(dir, *key))?;
        black_box(Digest::of(&bytes));
        Ok(bytes.len())
    };
    values.iter().map(read).sum()
}

fn file_of(dir: &Path, key: Digest) -> std::path::PathBuf {
    let hex = key.to_hex();
    dir.join(&hex[..2]).join(hex)
}

criterion_group!(store_log, tiny, sized);
criterion_main!(store_log);
