//! `examples/rust-ops`: a program with a pool in it. What its README shows.

use std::fs;
use std::path::Path;

use crate::util::Space;

const FOUND: &str =
    "desert     +20.0\nairport    +2.5\nharbour    +1.0\nstation 99: there is no record 99: there are 6\n";

#[test]
fn it_prints_what_its_readme_shows_and_computes_each_station_once() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/rust-ops");
    let space = Space::new();
    space.write("stations.jsonl", fs::read(example.join("stations.jsonl")).unwrap());
    let computed = |args: &[&str]| {
        let ended = space.run_program("rust-ops", args).expect(0);
        (ended.stdout, ended.stderr.matches("computing ").count())
    };
    assert_eq!(computed(&[]), (FOUND.as_bytes().to_vec(), 6));
    assert_eq!(computed(&[]), (FOUND.as_bytes().to_vec(), 0), "what is stored is not computed again");
    assert_eq!(computed(&["10"]).1, 6, "another baseline");
    let readme = fs::read_to_string(example.join("README.md")).unwrap();
    assert!(FOUND.lines().all(|line| readme.contains(line)), "its README shows something else");
    space.expect_nothing_left();
}
