//! Every system call of a run on its store, failing, cut short, or the last one before the process is killed.
//!
//! `faults/fault.c`, preloaded into the coordinator, counts the calls that change the store and makes the n-th
//! misbehave. Each kind of fault goes through every n, until a run has no n-th call any more. Whatever was
//! struck:
//!
//! - the run ends by itself, with exit code 0 or 4, or killed where that was the fault;
//! - what its journal calls done has its result in the store; if the exit code is 0, that is every node;
//! - a second run, without a fault, ends well, does not run again what was done, has the results of a run in
//!   peace, and leaves nothing behind.
//!
//! All of it twice: without a store, and on one that has all results but one, which the run has the time to fold.
//! Threads and processes take turns as they like, so the n-th call is not the same in each run.
//!
//! What a process wrote outlives it even if it is not synced: a loss of power is not tested here.

use std::collections::BTreeMap;
use std::env::consts::DLL_SUFFIX;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::util::{Ended, Space, text};

/// Ways to keep results.
const LAYOUTS: [&str; 3] = ["sqlite", "hybrid", "filesystem"];

/// Runs the manifest and tells everything.
const RUN: [&str; 5] = ["run", "m.jsonl", "--json", "--events", "all"];

/// The node that is never cached: it reads results of all sizes.
const LAST: &str = "last";

/// Runs that mostly wait.
const PAUSES_AT_A_TIME: usize = 8;

#[test]
fn a_call_that_fails_loses_nothing() {
    go_through("error");
}

#[test]
fn a_write_that_is_cut_short_loses_nothing() {
    go_through("short");
}

#[test]
fn a_write_that_fills_the_disk_loses_nothing() {
    go_through("full");
}

#[test]
fn a_kill_before_a_call_loses_nothing() {
    go_through("kill");
}

#[test]
fn a_kill_amid_a_write_loses_nothing() {
    go_through("torn");
}

#[test]
fn a_result_that_can_never_be_read_back_ends_the_run() {
    let space = Space::new();
    let large = json!({ "id": "large", "op": "exec", "run": ["/usr/bin/head", "-c", "50000", "/dev/zero"] });
    let reader =
        json!({ "id": "reader", "op": "exec", "run": ["wc", "-c"], "stdin": "{{ nodes.large.result }}" });
    space.write("m.jsonl", format!("{large}\n{reader}\n"));
    let run = run_with_fault_below(&space, "blobs", ("read", 1)).expect(4);
    run.says("the result of node large could not be read back 10 times");
    space.run(&RUN).expect(0);
    assert_eq!(space.result_text("reader").trim(), "50000");
    space.expect_nothing_left();
}

#[test]
fn a_result_that_cannot_be_written_is_not_its_nodes_fault() {
    let space = Space::new();
    let large =
        json!({ "id": "large", "op": "exec", "run": ["/usr/bin/head", "-c", "5000000", "/dev/zero"] });
    space.write("m.jsonl", format!("{large}\n"));
    let mut refused = 0;
    for at in 1..=12 {
        let run = run_with_fault_below(&space, "tmp", ("io", at));
        match run.code() {
            Some(0) => drop(std::fs::remove_dir_all(space.path(".forkyard"))),
            code => assert_eq!(code, Some(4), "{}", run.stderr),
        }
        assert!(run.events_named("node_finished").iter().all(|event| event["outcome"] != "failed"));
        refused += usize::from(run.stderr.contains("the store takes no more"));
    }
    assert!(refused > 0, "the faults did not reach the node");
    space.run(&RUN).expect(0);
    space.expect_nothing_left();
}

/// Runs the manifest of a space, of which each such call below a directory of the store fails, from the n-th on, whoever makes
/// it.
fn run_with_fault_below(space: &Space, directory: &str, (kind, at): (&str, u32)) -> Ended {
    let at = at.to_string();
    let (store, struck) = (space.path(".forkyard"), space.path("struck"));
    let below = store.join(directory);
    let environment = [
        ("LD_PRELOAD", library()),
        ("FAULT_STORE", text(&below)),
        ("FAULT_KIND", kind),
        ("FAULT_AT", &at),
        ("FAULT_FOR", "0"),
        ("FAULT_ALL", "1"),
        ("FAULT_STRUCK", text(&struck)),
    ];
    space.run_in(&environment, &[&["--store", text(&store)], &RUN[..]].concat())
}

/// Strikes each call of each scenario in turn.
fn go_through(kind: &str) {
    for layout in LAYOUTS {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Scenario::fresh(layout).strike_all(kind, cores);
        Scenario::used(layout).strike_all(kind, PAUSES_AT_A_TIME);
    }
}

/// Digests of results by node.
type Digests = BTreeMap<String, String>;

/// What is run, and on what.
struct Scenario {
    name: String,
    manifest: Vec<Value>,
    /// A store that is there already, and its results.
    before: Option<(Space, Digests)>,
    /// The results of the manifest, run in peace.
    reference: Digests,
}

impl Scenario {
    fn new(name: String, manifest: Vec<Value>, before: Option<(Space, Digests)>) -> Scenario {
        let mut scenario = Scenario { name, manifest, before, reference: Digests::new() };
        scenario.reference = scenario.in_peace().1;
        scenario
    }

    /// There is no store.
    fn fresh(layout: &str) -> Scenario {
        Scenario::new(format!("{layout}, new store"), manifest(layout), None)
    }

    /// There is a store with all results but one, which comes after a pause: long enough for the store to be
    /// tidied up.
    fn used(layout: &str) -> Scenario {
        let before = Scenario::fresh(layout).in_peace();
        let mut manifest = manifest(layout);
        manifest.push(json!({ "id": "pause", "op": "sleep", "params": { "seconds": 0.6 } }));
        Scenario::new(format!("{layout}, used store"), manifest, Some(before))
    }

    /// A run that nothing disturbs, and its results.
    fn in_peace(&self) -> (Space, Digests) {
        let space = self.space();
        space.run(&RUN).expect(0);
        let digests = digests(&space);
        (space, digests)
    }

    /// A directory in which a run may begin.
    fn space(&self) -> Space {
        let space = Space::new();
        let lines: String = self.manifest.iter().map(|line| format!("{line}\n")).collect();
        space.write("m.jsonl", lines);
        if let Some((before, _)) = &self.before {
            let copy = Command::new("cp").arg("-a").args([before.path(".forkyard"), space.path("")]).status();
            assert!(copy.unwrap().success());
        }
        space
    }

    /// Strikes each call in turn, in several runs at a time.
    fn strike_all(&self, kind: &str, at_a_time: usize) {
        let (next, among_nodes) = (AtomicU32::new(1), AtomicU32::new(0));
        let strike = || loop {
            match self.strike(&Fault { kind, at: next.fetch_add(1, Relaxed) }) {
                Struck::Nothing => return,
                Struck::BeforeNodes => {}
                Struck::AmongNodes => drop(among_nodes.fetch_add(1, Relaxed)),
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..at_a_time {
                scope.spawn(strike);
            }
        });
        let (runs, among_nodes) = (next.into_inner(), among_nodes.into_inner());
        println!("{}, {kind}: {runs} runs, {among_nodes} of them struck among their nodes", self.name);
        assert!(among_nodes > 0, "the faults did not reach the nodes");
    }

    /// One round.
    fn strike(&self, fault: &Fault) -> Struck {
        let space = self.space();
        let first = fault.run(&space);
        let struck = space.path("struck").exists();
        let _told = Told(format!("{}, {fault:?}: {}; {}", self.name, space.text("struck"), first.stderr));
        expect_honest_end(&first, fault, struck);

        let mut done = acknowledged(&space);
        for (node, digest) in done.iter().filter(|(node, _)| *node != LAST) {
            assert_eq!(digest, &self.reference[node], "result of {node}, which was done");
        }
        if first.code() == Some(0) {
            assert_eq!(done.len(), self.reference.len(), "nodes done");
        }
        if let Some(summary) = first.events_named("run_finished").pop() {
            let durable = summary["durable"].as_u64().unwrap() as usize;
            assert!(done.len() >= durable, "of {durable} durable results the journal knows {}", done.len());
        }
        done.extend(self.before.iter().flat_map(|(_, results)| results.clone()));

        let second = space.run(&RUN).expect(0);
        for event in second.events_named("node_finished") {
            let node = event["node"].as_str().unwrap();
            assert_eq!(event["digest"], self.reference[node], "result of {node} in the second run");
            let again = done.contains_key(node) && node != LAST && event["outcome"] != "cached";
            assert!(!again, "{node} was done, and ran again");
        }
        assert_eq!(&digests(&space), &self.reference, "results after the second run");
        space.expect_nothing_left();
        match (struck, first.events_named("node_finished").is_empty()) {
            (false, _) => Struck::Nothing,
            (true, true) => Struck::BeforeNodes,
            (true, false) => Struck::AmongNodes,
        }
    }
}

/// When a fault struck: before the run told of a node, or after that.
enum Struck {
    Nothing,
    BeforeNodes,
    AmongNodes,
}

/// It ended by itself, as a run may with this fault, and said why if not all is well.
fn expect_honest_end(run: &Ended, fault: &Fault, struck: bool) {
    match (run.signal(), run.code()) {
        (Some(signal), _) => {
            assert!(fault.kills() && signal == Signal::SIGKILL as i32, "ended by signal {signal}");
        }
        (None, Some(0)) => assert!(!(struck && fault.kills()), "it survived"),
        (None, code) => {
            assert_eq!((code, struck), (Some(4), true), "exit code, whether it was struck");
            let reasons = [
                "No space left on device",
                "Input/output error",
                "disk I/O error",
                "is full",
                "unable to open database file",
                "readonly database",
            ];
            assert!(reasons.iter().any(|reason| run.stderr.contains(reason)), "no reason is given");
        }
    }
}

/// What is to go wrong.
#[derive(Debug)]
struct Fault<'a> {
    kind: &'a str,
    at: u32,
}

impl Fault<'_> {
    fn kills(&self) -> bool {
        matches!(self.kind, "kill" | "torn")
    }

    /// Runs the manifest of a space with this fault, which makes the file `struck`.
    fn run(&self, space: &Space) -> Ended {
        let (store, struck) = (space.path(".forkyard"), space.path("struck"));
        let at = self.at.to_string();
        let environment = [
            ("LD_PRELOAD", library()),
            ("FAULT_STORE", text(&store)),
            ("FAULT_KIND", self.kind),
            ("FAULT_AT", &at),
            ("FAULT_STRUCK", text(&struck)),
        ];
        space.run_in(&environment, &[&["--store", text(&store)], &RUN[..]].concat())
    }
}

/// Says what was done if the test fails.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.0);
        }
    }
}

/// Nodes that the newest run calls done, and the digests of what the store has of them.
fn acknowledged(space: &Space) -> Digests {
    let listed = space.run(&["results", "ls", "--json"]);
    if listed.code() != Some(0) {
        let nothing = ["has no run yet", "there is no store"];
        assert!(nothing.iter().any(|words| listed.stderr.contains(words)), "{}", listed.stderr);
        return Digests::new();
    }
    let lines = listed.events();
    let done = lines.iter().filter(|line| line["outcome"] == "ran" || line["outcome"] == "cached");
    let word = |value: &Value| value.as_str().unwrap_or("none").to_string();
    done.map(|line| (word(&line["node"]), word(&line["digest"]))).collect()
}

/// What the store has of each node of the newest run.
fn digests(space: &Space) -> Digests {
    space.results().into_iter().map(|(node, (_, digest))| (node, digest)).collect()
}

/// The library of faults, made once.
fn library() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = format!("{}/fault{DLL_SUFFIX}", env!("CARGO_TARGET_TMPDIR"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/fault.c");
        let made = Command::new("cc")
            .args([
                "-std=gnu11",
                "-O1",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-shared",
                "-fPIC",
                "-o",
                &path,
                source,
            ])
            .output()
            .expect("cc, the C compiler, is needed");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        path
    })
}

/// Values of all sizes, some of them equal; three stages, each with a command of which the next one waits, so
/// that results come in several turns and are committed in many groups.
fn manifest(layout: &str) -> Vec<Value> {
    let mut nodes = vec![
        json!({ "forkyard": 1, "run": { "layout": layout, "commit": { "every": 8, "within": "20ms" } } }),
    ];
    let mut needs: Vec<String> = Vec::new();
    let mut inputs = BTreeMap::new();
    for (stage, row_bytes, file_bytes) in [("a", 1000, 40_000), ("b", 1000, 40_000), ("c", 10_000, 50_000)] {
        let value = |name: &str, value: &str| {
            let id = format!("{name}-{stage}");
            json!({ "id": id, "op": "value", "needs": needs, "params": { "value": value } })
        };
        nodes.extend((0..15).map(|n| value(&format!("tiny-{n}"), &format!("{stage} {n}"))));
        let row = stage.repeat(row_bytes);
        nodes.extend([value("row", &row), value("row-again", &row)]);
        // Equal too, but under another key.
        nodes.push(value("like-row", &format!("{{{{ nodes.row-{stage}.result }}}}")));
        let run = ["/usr/bin/head", "-c", &file_bytes.to_string(), "/dev/zero"];
        let file = format!("file-{stage}");
        nodes.push(json!({ "id": file, "op": "exec", "needs": needs, "run": run, "salt": stage }));
        for name in ["tiny-0", "row", "like-row", "file"] {
            let input = format!("{name}_{stage}").replace('-', "_");
            inputs.insert(input, format!("{{{{ nodes.{name}-{stage}.result }}}}"));
        }
        needs = vec![file];
    }
    let read: String =
        inputs.keys().map(|input| format!(" $FORKYARD_INPUT_{}", input.to_uppercase())).collect();
    let run = ["sh", "-c", &format!("cat{read} | sha256sum")];
    nodes.push(json!({ "id": LAST, "op": "exec", "cache": false, "inputs": inputs, "run": run }));
    nodes
}
