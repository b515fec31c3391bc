//! Two behaviours of the many-workers workload: no result of the last, unfilled group is lost, and a task that never returns
//! does not keep the run.

use std::time::Instant;

use nix::sys::signal::Signal;

use super::*;

/// Thirteen quick results.
fn thirteen() -> String {
    "[[node]]\nid = \"r\"\nop = \"value\"\nforeach = \"{{ range(0, 13) }}\"\nparams = { value = \"{{ item }}\" }\n".into()
}

fn with_window(within: &str, nodes: &[String]) -> Space {
    Space::with(&format!("[run]\ncommit = {{ every = 20, within = \"{within}\" }}\n{}", nodes.concat()))
}

impl Space {
    /// How many of the thirteen can be read by another process.
    fn stored(&self) -> usize {
        let found = |n: &u32| {
            let cat = self.run(&["results", "cat", &format!("r[{n}]")]);
            cat.code() == Some(0) && String::from_utf8_lossy(&cat.stdout).trim() == n.to_string()
        };
        (0..13).filter(found).count()
    }
}

#[test]
fn thirteen_of_twenty_results_are_stored_at_the_end() {
    let space = with_window("1h", &[thirteen()]);
    let ended = space.run_manifest(0);
    assert_eq!(space.stored(), 13);
    assert_eq!(ended.summary()["durable"], 13);
}

#[test]
fn thirteen_of_twenty_results_are_stored_after_a_ctrl_c() {
    let space = with_window("1h", &[thirteen(), waiting("hangs", "needs = [\"r\"]")]);
    let mut run = space.start(&crate::util::RUN);
    eventually("the last node hangs", || space.path("hangs up").exists());
    run.signal(Signal::SIGINT);
    run.says("interrupted");
    run.signal(Signal::SIGINT);
    let ended = run.end().expect(130);
    assert_eq!(ended.node("hangs")["outcome"], "cancelled");
    assert_eq!(space.stored(), 13);
    space.expect_nothing_left();
}

#[test]
fn thirteen_of_twenty_results_are_stored_within_their_time_while_another_hangs() {
    let space = with_window("300ms", &[thirteen(), waiting("hangs", "")]);
    let mut run = space.start(&[&crate::util::RUN[..], &["--workers", "2"]].concat());
    let start = Instant::now();
    run.event("node_finished", |event| event["node"] == "r");
    eventually("all thirteen are there", || space.stored() == 13);
    assert!(start.elapsed().as_secs() < 60, "long before the default of nothing at all");
    assert!(!space.path("hangs go").exists(), "it still hangs");
    let state = space.run(&["status", "--json"]).expect(0).events().remove(0);
    assert_eq!(state["state"], "running");
    space.write("hangs go", "");
    run.end().expect(0);
}

#[test]
fn a_task_that_never_returns_is_killed_and_the_run_ends() {
    let functions = "def burn():\n    while True: pass\n";
    let nodes = [
        thirteen(),
        shell("hangs", "trap '' TERM INT; while :; do sleep 1000; done", "timeout = \"300ms\""),
        call("burns", "burn", "timeout = \"300ms\""),
    ];
    let space = python_space(functions, "[run]\ncommit = { every = 20, within = \"1h\" }", &nodes.concat());
    let ended = space.run(&[&crate::util::RUN[..], &["--keep-going"]].concat()).expect(1);
    for node in ["hangs", "burns"] {
        assert_eq!(ended.node(node)["outcome"], "timed_out");
        assert_eq!(error(&ended, node), "it ran for more than its timeout of 300 ms");
    }
    assert_eq!(space.stored(), 13);
    space.expect_nothing_left();
}
