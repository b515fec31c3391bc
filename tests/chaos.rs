//! The chaos script, for a few rounds. More rounds: `scripts/chaos --rounds 300 --seed 2`.

use std::process::Command;

use crate::util::{Space, text};

#[test]
fn a_few_rounds_of_chaos_lose_nothing() {
    let space = Space::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/chaos");
    let output = Command::new("python3")
        .args([script, "--rounds", "9", "--seed", "8", "--nodes", "180", "--bulk", "200"])
        .args(["--forkyard", env!("CARGO_BIN_EXE_forkyard")])
        .env("CHAOS_DIR", text(&space.path("")))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("9 rounds in ") && said.contains("no violation"), "{said}");
}
