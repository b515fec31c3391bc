//! The `forkyard` command with the ops of `scripts/figures/one_copy.py`: workers of an agent harness that all need the same
//! embeddings, tools and weights. `cargo build --release --example one_copy`; `one_copy run MANIFEST` then knows `query`
//! and `hold`.

use std::hint::black_box;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use forkyard::{Failed, Ops, Output, Task};
use serde::{Deserialize, Serialize};

const ARTIFACTS: [&str; 6] = ["embeddings", "texts", "tools", "index", "weights", "registry"];
const PAGE_BYTES: usize = 4096;
const LANES: usize = 8;

/// What stands for the remote call that each task makes.
const REMOTE_CALL: Duration = Duration::from_millis(50);

/// Which row of `embeddings` is that of a text.
#[derive(Deserialize)]
struct Text {
    row: u64,
}

/// What is read of a tool's record.
#[derive(Deserialize)]
struct Tool {
    id: String,
}

/// The tools for a text, best first, and the texts most like it.
#[derive(Serialize)]
struct Answer {
    near: Vec<u64>,
    tools: Vec<(String, f32)>,
}

fn main() -> ExitCode {
    forkyard::init(Ops::standard().versioned("query", 1, query).versioned("hold", 1, hold));
    forkyard::main()
}

/// Which tools are for the text whose MD5 is the parameter `md5`. A worker's first task touches every page of every
/// artifact before.
fn query(task: &Task) -> Result<Output, Failed> {
    touch_once(task)?;
    let (embeddings, index) = (task.matrix_of("embeddings")?, task.matrix_of("index")?);
    let registry = task.records_of("registry")?;
    let missing = || Failed::new("no such text");
    let md5: String = task.param("md5")?;
    let text: Text = serde_json::from_slice(task.records_of("texts")?.by_key(&md5).ok_or_else(missing)?)?;
    let query = normalised(embeddings.row_bytes(text.row).ok_or_else(missing)?);

    let mut tools = best(15, index.blocks(1).map(|row| dot(row, &query, |x| f32::from_le_bytes(x).into())));
    tools.truncate(5);
    let near = best(10, embeddings.blocks(1).map(|row| dot(row, &query, f64::from_le_bytes)));
    thread::sleep(REMOTE_CALL);

    let named = |(row, score)| -> Result<(String, f32), Failed> {
        let record = registry.row(row).ok_or_else(|| Failed::new(format!("tool {row} is not registered")))?;
        Ok((serde_json::from_slice::<Tool>(record)?.id, score as f32))
    };
    let tools = tools.into_iter().map(named).collect::<Result<_, _>>()?;
    Output::json(&Answer { near: near.into_iter().map(|(row, _)| row).collect(), tools })
}

/// Stays until the socket `gate` is closed at its other end. `worker` makes a node of its own of each.
fn hold(task: &Task) -> Result<Output, Failed> {
    UnixStream::connect(task.param::<String>("gate")?)?.read_to_end(&mut Vec::new())?;
    Ok(Output::null())
}

/// Reads a byte of every page of every artifact, once in each worker.
fn touch_once(task: &Task) -> Result<(), Failed> {
    static TOUCHED: AtomicBool = AtomicBool::new(false);
    if !TOUCHED.swap(true, Relaxed) {
        for artifact in ARTIFACTS {
            black_box(task.bytes_of(artifact)?.iter().step_by(PAGE_BYTES).fold(0u8, |all, byte| all ^ byte));
        }
    }
    Ok(())
}

/// A row of float64 at length 1, rounded to float32.
fn normalised(row: &[u8]) -> Vec<f64> {
    let row: Vec<f64> = row.as_chunks().0.iter().map(|&x| f64::from_le_bytes(x)).collect();
    let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
    row.iter().map(|x| f64::from((x / length) as f32)).collect()
}

/// The inner product, in eight sums that are added up last. One order of additions: equal questions have equal answers.
/// Rows are a multiple of eight long.
fn dot<const BYTES: usize>(row: &[u8], query: &[f64], read: impl Fn([u8; BYTES]) -> f64) -> f64 {
    let mut sums = [0.0; LANES];
    for (row, query) in row.as_chunks().0.as_chunks::<LANES>().0.iter().zip(query.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            sums[lane] += read(row[lane]) * query[lane];
        }
    }
    sums.iter().sum()
}

/// The `k` rows of the highest scores, best first, ties by row.
fn best(k: usize, scores: impl Iterator<Item = f64>) -> Vec<(u64, f64)> {
    let mut ranked: Vec<(u64, f64)> = (0..).zip(scores).collect();
    ranked.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    ranked.truncate(k);
    ranked
}
