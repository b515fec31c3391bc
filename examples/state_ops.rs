//! The `forkyard` command with ops of one's own that read and write the state that nodes share. Build it with
//! `cargo build --example state_ops`; `state_ops run MANIFEST` then knows `cow`, `cells`, `set` and `get`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use forkyard::{Failed, Ops, Output, Task};
use serde_json::{Value, json};

fn main() -> ExitCode {
    forkyard::init(
        Ops::standard()
            .versioned("cow", 1, cow)
            .versioned("cells", 1, cells)
            .versioned("set", 1, set)
            .versioned("get", 1, get),
    );
    forkyard::main()
}

/// A node of the copy-on-write benchmark of Gecko Compose: it sets 100 variables, adds up all that it sees, and
/// returns 53 numbers. Parameters: `layer` and `node`.
fn cow(task: &Task) -> Result<Output, Failed> {
    let (layer, node): (u64, u64) = (task.param("layer")?, task.param("node")?);
    for i in 0..100 {
        task.state().set(&format!("temp_{layer}_{node}_{i}"), &(layer * node * i))?;
    }
    let mut total = 0;
    task.state().each(|_, json| total += number(json).unwrap_or(0))?;
    let mut out: BTreeMap<String, u64> = (0..50).map(|i| (format!("metric_{i}"), i * layer * node)).collect();
    out.extend([("layer".into(), layer), ("node".into(), node), ("total".into(), total)]);
    Output::json(&out)
}

/// Reads and replaces each of the keys `k0` to `k99`; a node's numbers depend on `seed` and on all that it read.
fn cells(task: &Task) -> Result<Output, Failed> {
    let seed: u64 = task.param("seed")?;
    let mut sum = 0;
    for key in 0..100u64 {
        let name = format!("k{key}");
        let before: u64 = task.state().get(&name)?.unwrap_or(0);
        let after = (before * 31 + seed * 7 + key) % 1_000_003;
        sum += before;
        task.state().set(&name, &after)?;
    }
    Output::json(&sum)
}

/// Sets and removes keys: `set = { key = value }`, `remove = ["key"]`; its first attempts fail, `fails` of them. Returns
/// what it set.
fn set(task: &Task) -> Result<Output, Failed> {
    let values: BTreeMap<String, Value> = task.optional("set")?.unwrap_or_default();
    for (key, value) in &values {
        task.state().set(key, value)?;
    }
    if task.attempt() <= task.optional("fails")?.unwrap_or(0) {
        return Err(Failed::new("it was told to fail"));
    }
    for key in task.optional::<Vec<String>>("remove")?.unwrap_or_default() {
        task.state().remove(&key);
    }
    Output::json(&values)
}

/// What it sees of the keys in `keys`, or of all.
fn get(task: &Task) -> Result<Output, Failed> {
    let mut seen = BTreeMap::new();
    match task.optional::<Vec<String>>("keys")? {
        Some(keys) => {
            for key in keys {
                seen.insert(key.clone(), task.state().get::<Value>(&key)?.unwrap_or(json!(null)));
            }
        }
        None => task.state().each(|key, text| {
            seen.insert(key.into(), serde_json::from_slice(text).unwrap_or_default());
        })?,
    }
    Output::json(&seen)
}

/// The number that a JSON text is, if it is a whole one.
fn number(json: &[u8]) -> Option<u64> {
    std::str::from_utf8(json).ok()?.parse().ok()
}
