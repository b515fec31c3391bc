//! `examples/agent-tests`: an API that costs money is asked as often as there are prompts, whatever is killed meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::util::{Ended, Running, Space, eventually, send};

const PROMPTS: usize = 200;

/// Calls that are under way at a time, by the manifest's `[groups.api]`.
const UNDER_WAY: usize = 8;

/// A space with a copy of the example.
fn example() -> Space {
    let space = Space::new();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/agent-tests");
    fs::create_dir(space.path("agent-tests")).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), space.path("agent-tests").join(entry.file_name())).unwrap();
    }
    space
}

impl Space {
    fn start_example(&self) -> Running {
        let forkyard = env!("CARGO_BIN_EXE_forkyard");
        self.start_shell(&format!("FORKYARD={forkyard} AGENT_LOG=asked.log exec python3 agent-tests/run.py"))
    }

    fn run_example(&self) -> Ended {
        self.start_example().end().expect(0)
    }

    /// How often the API was asked, or has answered, by prompt.
    fn counts(&self, what: &str) -> BTreeMap<String, usize> {
        let log = self.text("asked.log");
        let words = log.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mut counts = BTreeMap::new();
        for words in words.filter(|words| words[0] == what) {
            *counts.entry(words[1].to_string()).or_insert(0) += 1;
        }
        counts
    }

    fn answered(&self) -> usize {
        self.counts("answered").values().sum()
    }

    /// The prompts whose answers are durable.
    fn durable(&self) -> Vec<String> {
        let rows = self.run(&["results", "export", "--format", "jsonl", "-"]).expect(0).events();
        let of_ask = rows.iter().filter(|row| row["node"].as_str().unwrap().starts_with("ask["));
        of_ask.filter_map(|row| row["value"]["id"].as_str().map(String::from)).collect()
    }

    fn report(&self) -> Value {
        serde_json::from_slice(&self.result("report")).unwrap()
    }
}

#[test]
fn nobody_is_asked_twice() {
    let space = example();
    let first = space.run_example();
    let said = String::from_utf8_lossy(&first.stdout).into_owned();
    assert!(said.contains("asked the API 210 times: 200 answered, 10 refused (429)"), "{said}");
    assert!(said.contains("of 200 prompts passed"), "{said}");
    let again = space.run_example();
    let said = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(said.contains("asked the API 0 times"), "{said}");
    assert!(again.stderr.contains("0 ran"), "{}", again.stderr);
    // Another judgement asks nobody either.
    let checks = space.text("agent-tests/checks.py").replace("was not chosen", "was left aside");
    space.write("agent-tests/checks.py", checks);
    space.run_example();
    assert_eq!(space.answered(), PROMPTS);
    space.expect_nothing_left();
}

#[test]
fn after_a_kill_only_what_was_under_way_is_asked_again() {
    let reference = example();
    reference.run_example();
    let space = example();
    let run = space.start_example();
    eventually("some are answered", || space.answered() > PROMPTS / 4);
    send(run.child_named("forkyard"), Signal::SIGKILL);
    run.end();
    let durable = space.durable();
    assert!(durable.len() + 2 * UNDER_WAY > PROMPTS / 4, "{} are durable", durable.len());
    space.run_example();
    let answered = space.counts("answered");
    assert_eq!(answered.len(), PROMPTS);
    for prompt in durable {
        assert_eq!(answered[&prompt], 1, "{prompt} was durable");
    }
    // Those under way, and answers of the last milliseconds.
    assert!(space.answered() <= PROMPTS + 2 * UNDER_WAY, "{} answers", space.answered());
    assert_eq!(space.report(), reference.report());
    space.expect_nothing_left();
}

#[test]
fn after_ctrl_c_nobody_is_answered_twice() {
    let space = example();
    let run = space.start_example();
    eventually("some are answered", || space.answered() > PROMPTS / 4);
    send(run.child_named("forkyard"), Signal::SIGINT);
    run.end().expect(130);
    assert!(space.answered() < PROMPTS, "it was not interrupted");
    space.run_example();
    assert_eq!((space.answered(), space.counts("answered").len()), (PROMPTS, PROMPTS));
}
