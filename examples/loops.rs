//! The `forkyard` command with the ops of a nested loop of which nobody knows the length before it runs (the scheduler's
//! benchmark of VoxLogicA-2). Build it with `cargo build --example loops`; `loops run MANIFEST` then knows `expand`,
//! `kernel` and `add`. `scripts/figures/scheduler.py` writes the manifest and checks the answer.

use std::process::ExitCode;

use forkyard::{Failed, Ops, Output, Task};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What a kernel hashes.
static BUFFER: [u8; 1 << 20] = [7; 1 << 20];

fn main() -> ExitCode {
    forkyard::init(
        Ops::standard()
            .versioned("expand", 1, expand)
            .versioned("kernel", 1, kernel)
            .versioned("add", 1, add),
    );
    forkyard::main()
}

/// Makes the nodes of a loop over `outer` elements: for each of them `width` kernels, the sum of these, and the sum of all
/// sums, `goal`. A kernel hashes `rounds` times.
fn expand(task: &Task) -> Result<Output, Failed> {
    let (outer, width, rounds): (u64, u64, u64) =
        (task.param("outer")?, task.param("width")?, task.param("rounds")?);
    let add = |id: String, a: &str, b: &str| {
        let result = |of: &str| format!("{{{{ nodes.{of}.result }}}}");
        json!({ "id": id, "op": "add", "params": { "a": result(a), "b": result(b) } })
    };
    let (mut nodes, mut total) = (Vec::new(), String::new());
    for i in 0..outer {
        let mut sum = String::new();
        for j in 0..width {
            let kernel = format!("k{i}_{j}");
            let params = json!({ "i": i, "j": j, "rounds": rounds });
            nodes.push(json!({ "id": kernel, "op": "kernel", "params": params }));
            sum = if sum.is_empty() {
                kernel
            } else {
                let id = format!("s{i}_{j}");
                nodes.push(add(id.clone(), &sum, &kernel));
                id
            };
        }
        total = if total.is_empty() {
            sum
        } else {
            let id = if i + 1 == outer { "goal".into() } else { format!("t{i}") };
            nodes.push(add(id.clone(), &total, &sum));
            id
        };
    }
    Output::json(&json!({ "$nodes": nodes }))
}

/// Hashes a buffer, and returns a number that tells it from all others.
fn kernel(task: &Task) -> Result<Output, Failed> {
    let (i, j, rounds): (u64, u64, u64) = (task.param("i")?, task.param("j")?, task.param("rounds")?);
    for _ in 0..rounds {
        std::hint::black_box(Sha256::digest(BUFFER));
    }
    Output::json(&(i * 1_000_000 + j))
}

/// The sum of two numbers.
fn add(task: &Task) -> Result<Output, Failed> {
    let (a, b): (Value, Value) = (task.param("a")?, task.param("b")?);
    match (a.as_u64(), b.as_u64()) {
        (Some(a), Some(b)) => Output::json(&(a + b)),
        _ => Err(Failed::new(format!("{a} and {b} are no numbers"))),
    }
}
