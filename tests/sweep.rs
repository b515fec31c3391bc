//! `examples/embedding-sweep`: what its README says to type, and what it says that comes.

use std::fs;
use std::path::Path;

use crate::util::{Space, python, text};

const README: &str = include_str!("../examples/embedding-sweep/README.md");

/// The commands of the README, each with the lines that it says one sees.
fn steps() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut steps: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in README.lines().filter_map(|line| line.strip_prefix("    ")) {
        match line.strip_prefix("$ ") {
            Some(command) => steps.push((command, Vec::new())),
            None => steps.last_mut().expect("a command before its output").1.push(line),
        }
    }
    steps
}

/// A line without the time that something took.
fn untimed(line: &str) -> &str {
    let line = line.split(" cached in ").next().unwrap_or_default();
    line.split("; it took ").next().unwrap_or_default()
}

#[test]
fn the_readme_of_the_embedding_sweep_says_what_happens() {
    let space = Space::new();
    let example = space.path("examples/embedding-sweep");
    fs::create_dir_all(&example).unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/embedding-sweep");
    for file in ["cache.pkl", "words.jsonl", "sweep.toml", "sweep.py", "table.py"] {
        fs::copy(from.join(file), example.join(file)).unwrap();
    }
    let python = python();
    let forkyard = Path::new(env!("CARGO_BIN_EXE_forkyard"));
    let [forkyard, python] = [forkyard, &python].map(|program| text(program.parent().unwrap()));
    let steps = steps();
    assert!(steps.len() >= 8, "{steps:?}");
    for (command, expected) in steps {
        let line = format!("PATH={forkyard}:{python}:$PATH; {command} 2>&1");
        let ended = space.start_shell(&line).end().expect(0);
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        let mut said_lines = said.lines();
        // `...` stands for any lines, which may be progress too.
        for wanted in expected.into_iter().filter(|wanted| *wanted != "...") {
            let found = said_lines.any(|line| untimed(line) == untimed(wanted));
            assert!(found, "{command}\nshould have said: {wanted}\nbut said:\n{said}");
        }
    }
    space.expect_nothing_left();
}
