//! The chaos script: a round of every kind of fault. More rounds: `scripts/chaos --rounds 600 --seed 2`.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::util::{Space, text};

/// Kinds of faults.
const KINDS: u64 = 21;

/// Rounds from a seed, noted in a file; what it prints as JSON.
fn chaos(space: &Space, rounds: u64) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/chaos");
    let output = Command::new("python3")
        .args([script, "--rounds", &rounds.to_string(), "--seed", "8", "--nodes", "120", "--bulk", "200"])
        .args(["--presets", "cpu,large-data", "--json", "--state", text(&space.path("state.json"))])
        .args(["--forkyard", env!("CARGO_BIN_EXE_forkyard")])
        .env("CHAOS_DIR", text(&space.path("")))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("no violation"), "{said}");
    serde_json::from_slice(&output.stdout).expect("a line of JSON")
}

#[test]
fn a_round_of_every_kind_of_chaos_loses_nothing() {
    let space = Space::new();
    // Broken off in the middle, it goes on there.
    assert_eq!(chaos(&space, KINDS / 2)["rounds"], KINDS / 2);
    let told = chaos(&space, KINDS);
    assert_eq!(told["rounds"], KINDS);
    let kinds = told["counts"].as_object().unwrap();
    let possible = if Path::new("/sys/fs/cgroup/pids/cgroup.procs").exists() { KINDS } else { KINDS - 1 };
    assert!(kinds.len() as u64 >= possible, "{kinds:?}");
}
