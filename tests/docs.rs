//! The examples in `docs/manifest.md`: each is a complete manifest, and does what it says. The tests that
//! `docs/reliability.md` names: each is there.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::util::{RUN, Space};

const MANUAL: &str = include_str!("../docs/manifest.md");

/// The blocks of this kind, each with the heading above it.
fn blocks(kind: &str) -> Vec<(&'static str, &'static str)> {
    let (mut found, mut heading, mut rest) = (Vec::new(), "", MANUAL);
    while let Some((line, next)) = rest.split_once('\n') {
        rest = next;
        if line.starts_with("##") {
            heading = line;
        } else if line.strip_prefix("```") == Some(kind) {
            let (block, next) = rest.split_once("```\n").expect("an end of the block");
            found.push((heading, block));
            rest = next;
        }
    }
    found
}

fn beside_the_examples(manifest: &str) -> Space {
    let space = Space::with(manifest);
    symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"), space.path("examples")).unwrap();
    space
}

#[test]
fn every_example_of_the_manual_runs() {
    for (kind, at_least) in [("toml", 20), ("jsonl", 1)] {
        let blocks = blocks(kind);
        assert!(blocks.len() >= at_least, "{} blocks of {kind}", blocks.len());
        for (heading, block) in blocks {
            let space = beside_the_examples(block);
            let ended = space.run(&RUN);
            assert_eq!(ended.code(), Some(0), "{heading}\n{block}\n{}", ended.stderr);
        }
    }
}

#[test]
fn what_the_manual_says_of_results_is_so() {
    let mut told = 0;
    for (heading, block) in blocks("toml") {
        let claims: Vec<(&str, &str)> =
            block.lines().filter_map(|line| line.strip_prefix("# ")?.split_once(" is ")).collect();
        if claims.is_empty() {
            continue;
        }
        let space = beside_the_examples(block);
        space.run_manifest(0);
        for (node, result) in claims {
            assert_eq!(space.result_text(node).trim_end(), result, "{heading}");
            told += 1;
        }
    }
    assert!(told >= 10, "only {told} results are told");
}

#[test]
fn every_test_that_a_promise_names_is_there() {
    let page = include_str!("../docs/reliability.md");
    // Of what stands between backticks, tests are what has so long a name.
    let is_test = |word: &&str| {
        word.matches('_').count() >= 3
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let named: BTreeSet<&str> = page.split('`').filter(is_test).collect();
    assert!(named.len() >= 30, "{named:?}");
    let mut sources = String::new();
    for dir in ["tests", "coordinator", "worker", "shared"] {
        read_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut sources);
    }
    let missing: Vec<_> = named.iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}

fn read_sources(dir: &Path, sources: &mut String) {
    for path in fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            read_sources(&path, sources);
        } else if path.extension().is_some_and(|end| end == "rs") {
            *sources += &fs::read_to_string(&path).unwrap();
        }
    }
}
