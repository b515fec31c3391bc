//! The promise: handing the state to a node costs a copy of a number, however large the state, and
//! neither joining nor reading scans what was written.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dashmap::DashMap;
use forkyard::bench::State;
use forkyard_shared::arena::{ArenaReader, ArenaWriter};
use forkyard_shared::context::{Context, Rank, Snapshot};

type Diff = Vec<(String, Option<Vec<u8>>)>;

const LAYERS: usize = 100;
const WIDTH: usize = 100;
const PARENTS: usize = 3;
const KEYS: usize = 100;

fn state() -> State {
    State::new(ArenaWriter::new().expect("shared memory"))
}

fn rank(node: usize) -> Rank {
    Rank((node as u64 + 1) << 32)
}

fn set(keys: &[String], value: &[u8]) -> Diff {
    keys.iter().map(|key| (key.clone(), Some(value.to_vec()))).collect()
}

/// What the last of these writers sees, when each sets the keys of its list and follows the one before.
fn chain<'a>(state: &mut State, writers: impl Iterator<Item = &'a [String]>, value: &[u8]) -> Context {
    let mut context = Context::EMPTY;
    for (writer, keys) in writers.enumerate() {
        let next = state.write(context, rank(writer), &set(keys, value)).expect("room");
        state.release(context);
        context = next;
    }
    context
}

/// Every node of a layer has three scattered parents in the layer before it, reads 100 keys, and sets them.
fn layered(c: &mut Criterion) {
    let mut group = c.benchmark_group("layered_100x100");
    group.sample_size(10).throughput(Throughput::Elements((LAYERS * WIDTH * KEYS) as u64));
    group.bench_function("million_writes_and_reads", |b| b.iter(run_layers));
    group.finish();
    let bytes = run_layers();
    println!("layered_100x100: the arena takes {bytes} bytes ({} MiB)", bytes >> 20);
}

/// Runs all layers; the bytes that the arena takes in the end.
fn run_layers() -> u64 {
    let mut state = state();
    let keys: Vec<String> = (0..KEYS).map(|key| format!("key-{key}")).collect();
    let mut diff = set(&keys, &[0; 8]);
    let mut above: Vec<Context> = Vec::new();
    for layer in 0..LAYERS {
        let mut here = Vec::with_capacity(WIDTH);
        for index in 0..WIDTH {
            let node = layer * WIDTH + index;
            let parents: Vec<Context> =
                (0..PARENTS).filter_map(|n| above.get(scattered(node, n)).copied()).collect();
            let sees = state.join(&parents).expect("room");
            let snapshot = state.snapshot(sees);
            for key in &keys {
                let value = snapshot.get(key).expect("a sound arena");
                assert_eq!(value.is_some(), layer > 0);
                black_box(value);
            }
            diff.iter_mut().for_each(|(_, value)| *value = Some(node.to_le_bytes().to_vec()));
            here.push(state.write(sees, rank(node), &diff).expect("room"));
            state.release(sees);
        }
        std::mem::replace(&mut above, here).into_iter().for_each(|context| state.release(context));
    }
    state.arena().used_bytes()
}

fn scattered(node: usize, n: usize) -> usize {
    let mut x = (node * PARENTS + n) as u64;
    x = (x ^ x >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x >> 33) as usize % WIDTH
}

/// What it costs to give a node its state: ours beside an `Arc` that is cloned, which isolates nothing, and
/// a `DashMap` that is cloned deeply, which does.
fn hand_over(c: &mut Criterion) {
    let mut group = c.benchmark_group("hand_over");
    group.sample_size(10).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    let sizes = [0, 10, 50, 100, 500].map(|results| (format!("{results}x10KB"), results, 10_000));
    for (name, keys, value) in sizes.into_iter().chain([("1000000x8B".to_string(), 1_000_000_usize, 8)]) {
        let value = vec![7; value];
        // Each result has its writer; the million keys have a thousand.
        let names: Vec<String> = (0..keys).map(|key| format!("result-{key}")).collect();
        let mut state = state();
        let context = chain(&mut state, names.chunks(keys.div_ceil(1000).max(1)), &value);
        group.bench_function(BenchmarkId::new("context", &name), |b| {
            b.iter(|| {
                state.retain(context);
                let context = black_box(context);
                state.release(context);
            });
        });
        let map: Arc<DashMap<String, Vec<u8>>> =
            Arc::new(names.iter().map(|name| (name.clone(), value.clone())).collect());
        group.bench_function(BenchmarkId::new("arc", &name), |b| b.iter(|| black_box(Arc::clone(&map))));
        group.bench_function(BenchmarkId::new("dashmap_deep", &name), |b| {
            b.iter_with_large_drop(|| DashMap::clone(&map));
        });
    }
}

/// A known key among 10,000 that 100 writers set.
fn get(c: &mut Criterion) {
    const KNOWN: usize = 10_000;
    let mut state = state();
    let names: Vec<String> = (0..KNOWN).map(|key| format!("known-{key}")).collect();
    let context = chain(&mut state, names.chunks(100), b"12345678");
    let names: Vec<&String> = (0..KNOWN).map(|key| &names[key * 7919 % KNOWN]).collect();
    let mut group = c.benchmark_group("get_10000");
    group.bench_function("warm_one", |b| {
        let snapshot = state.snapshot(context);
        b.iter(|| snapshot.get(black_box("known-4711")).expect("a sound arena"));
    });
    group.throughput(Throughput::Elements(KNOWN as u64));
    group.bench_function("warm_all", |b| {
        let snapshot = state.snapshot(context);
        b.iter(|| names.iter().filter_map(|name| snapshot.get(name).expect("a sound arena")).count());
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("first_touch", |b| {
        b.iter_custom(|times| {
            (0..times).map(|time| first_touch(&state, context, names[time as usize % KNOWN])).sum()
        });
    });
}

/// The first read through a mapping in which no page was touched yet, as in a worker just forked.
fn first_touch(state: &State, context: Context, name: &str) -> Duration {
    let arena = ArenaReader::read_only(state.arena().file()).expect("address space");
    let start = Instant::now();
    black_box(Snapshot { arena: &arena, context }.get(name).expect("a sound arena"));
    start.elapsed()
}

/// Everything that is visible: 50,000 keys, by 50,000 writers and by one.
fn iterate(c: &mut Criterion) {
    const MANY: usize = 50_000;
    let names: Vec<String> = (0..MANY).map(|key| format!("visible-{key}")).collect();
    let mut group = c.benchmark_group("iterate_50000");
    group.throughput(Throughput::Elements(MANY as u64));
    for writers in [1, 500, MANY] {
        let mut state = state();
        let context = chain(&mut state, names.chunks(MANY / writers), b"12345678");
        group.bench_function(format!("writers_{writers}"), |b| {
            b.iter(|| {
                let mut bytes = 0;
                let snapshot = state.snapshot(context);
                snapshot.iter(|key, value| bytes += key.len() + value.len()).expect("a sound arena");
                bytes
            });
        });
    }
}

criterion_group!(contexts, layered, hand_over, get, iterate);
criterion_main!(contexts);
