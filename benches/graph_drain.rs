//! The promise: knowing which node may run next costs a fraction of a microsecond a node. Beside
//! building and draining stands the floor, one pass over flat arrays that counts down what each node
//! waits for.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forkyard::bench::Dag;

const LAYERS: u32 = 100;
const WIDTH: u32 = 1_000;
const NEEDS: usize = 3;

/// Smaller graphs, in layers of ten: VoxLogicA-2 asks that finding what is ready takes at most 0.1, 1, 10 and 100 ms.
const SMALL: [u32; 4] = [10, 100, 1_000, 10_000];

fn benches(c: &mut Criterion) {
    let needs = layered(LAYERS * WIDTH, WIDTH);
    let (starts, users) = users(&needs);
    let waiting: Vec<u32> = needs.iter().map(|needs| needs.len() as u32).collect();
    let dag = Dag::build(&needs);
    assert_eq!(dag.drain(), needs.len());
    assert_eq!(count_down(&starts, &users, waiting.clone()), needs.len());

    let mut group = c.benchmark_group("graph_drain");
    group.throughput(Throughput::Elements(needs.len() as u64));
    group.bench_function("floor", |b| b.iter(|| count_down(black_box(&starts), &users, waiting.clone())));
    group.bench_function("build", |b| b.iter(|| Dag::build(black_box(&needs))));
    group.bench_function("drain", |b| b.iter(|| black_box(&dag).drain()));
    for nodes in SMALL {
        let dag = Dag::build(&layered(nodes, 10));
        group.throughput(Throughput::Elements(u64::from(nodes)));
        group.bench_function(format!("drain {nodes}"), |b| b.iter(|| black_box(&dag).drain()));
    }
}

/// Each node of a layer needs a few different ones of the layer before it, scattered.
fn layered(nodes: u32, width: u32) -> Vec<Vec<u32>> {
    let need = |node: u32, n: usize| {
        let scattered = (node.wrapping_mul(2_654_435_761) >> 8) as usize + n * (width as usize / NEEDS);
        (node / width - 1) * width + (scattered % width as usize) as u32
    };
    let needs = |node| if node < width { Vec::new() } else { (0..NEEDS).map(|n| need(node, n)).collect() };
    (0..nodes).map(needs).collect()
}

/// The other way round: node `n` is needed by `users[starts[n]..starts[n + 1]]`.
fn users(needs: &[Vec<u32>]) -> (Vec<usize>, Vec<u32>) {
    let mut rows = vec![Vec::new(); needs.len()];
    for (node, needs) in needs.iter().enumerate() {
        needs.iter().for_each(|need| rows[*need as usize].push(node as u32));
    }
    let ends = rows.iter().scan(0, |end, row| {
        *end += row.len();
        Some(*end)
    });
    (std::iter::once(0).chain(ends).collect(), rows.concat())
}

fn count_down(starts: &[usize], users: &[u32], mut waiting: Vec<u32>) -> usize {
    let mut queue: Vec<u32> = (0..waiting.len() as u32).filter(|node| waiting[*node as usize] == 0).collect();
    let mut at = 0;
    while let Some(&node) = queue.get(at) {
        for &user in &users[starts[node as usize]..starts[node as usize + 1]] {
            waiting[user as usize] -= 1;
            if waiting[user as usize] == 0 {
                queue.push(user);
            }
        }
        at += 1;
    }
    at
}

criterion_group!(graph_drain, benches);
criterion_main!(graph_drain);
