//! Commands around a run: running again what failed, and stopping or pausing the one that goes on.

use std::fs;

use nix::sys::signal::Signal;

use crate::util::{RUN, Running, Space, eventually, lives};

/// A node of `exec` for a shell.
fn shell(id: &str, script: &str, more: &str) -> String {
    format!("[[node]]\nid = \"{id}\"\nop = \"exec\"\nshell = true\nrun = ['''{script}''']\n{more}\n")
}

/// A node that says `<id> up`, then ends when the file `<id> go` is there.
fn waiting(id: &str, more: &str) -> String {
    shell(id, &format!("touch '{id} up'; while [ ! -e '{id} go' ]; do sleep 0.01; done; echo {id}"), more)
}

impl Space {
    /// A run on one worker in which node `a` has said that it is up.
    fn start_until_a_is_up(&self) -> Running {
        let run = self.start(&[&RUN[..], &["--workers", "1"]].concat());
        eventually("a is up", || self.path("a up").exists());
        run
    }

    fn state(&self) -> String {
        self.run(&["status", "--json"]).expect(0).events()[0]["state"].as_str().unwrap().into()
    }
}

// ---- run --failed ----

const FAILED: [&str; 7] = ["run", "m.toml", "--json", "--events", "all", "--failed", "--keep-going"];

#[test]
fn failed_runs_what_did_not_succeed_and_takes_what_it_needs_from_the_store() {
    let nodes = [
        shell("base", "echo base", ""),
        shell("bad", "test -e mended", "needs = [\"base\"]"),
        shell("after", "echo after", "needs = [\"bad\"]"),
        shell("slow", "test -e mended || sleep 1000", "timeout = \"50ms\""),
        shell("apart", "echo x >> apart", "cache = false"),
    ];
    let space = Space::with(&nodes.concat());
    let first = space.run(&[&RUN[..], &["--keep-going"]].concat()).expect(1);
    assert_eq!(first.outcomes(), "after=blocked apart=ran bad=failed base=ran slow=timed_out");
    space.write("mended", "");
    let again = space.run(&FAILED).expect(0);
    assert_eq!(again.outcomes(), "after=ran bad=ran base=cached slow=ran");
    assert_eq!(space.text("apart"), "x\n", "it had not failed");
    // The newest run counts, and nothing failed there.
    let nothing = space.run(&FAILED).expect(0).says("nothing to do: every node of run 2 of m.toml succeeded");
    assert!(nothing.events().is_empty());
    assert_eq!(space.run(&["runs", "--json"]).events().len(), 2, "no run was made of nothing");
}

#[test]
fn failed_takes_items_for_their_node_and_what_was_cancelled_too() {
    let items = shell("a", "test {{ item }} != 1 || test -e mended", "foreach = \"{{ [0, 1, 2] }}\"");
    let space = Space::with(&[items, shell("b", "echo b", "needs = [\"a\"]")].concat());
    space.run_manifest(1);
    space.write("mended", "");
    assert_eq!(space.run(&FAILED).expect(0).node("b")["outcome"], "ran");
}

#[test]
fn failed_leaves_out_what_the_manifest_has_no_more() {
    let space = Space::with(&[shell("a", "false", ""), shell("b", "false", "")].concat());
    space.run(&[&RUN[..], &["--keep-going"]].concat()).expect(1);
    space.write("m.toml", [shell("b", "true", ""), shell("c", "true", "")].concat());
    assert_eq!(space.run(&[&FAILED[..], &["--dry-run"]].concat()).expect(0).stdout, b"b\n");
    space.write("m.toml", shell("c", "true", ""));
    space.run(&FAILED).expect(2).says("m.toml has none of the nodes that did not succeed any more");
}

#[test]
fn failed_asks_for_an_earlier_run_of_this_very_manifest() {
    let space = Space::with(&shell("a", "false", ""));
    space.run(&FAILED).expect(4);
    space.run_manifest(1);
    fs::create_dir(space.path("sub")).unwrap();
    fs::copy(space.path("m.toml"), space.path("sub/m.toml")).unwrap();
    space
        .run(&["run", "sub/m.toml", "--failed"])
        .expect(2)
        .says("--failed: store .forkyard has no earlier run of sub/m.toml; run it without --failed");
    space.run(&["run", "m.toml", "--failed", "--only", "a"]).expect(2).says("cannot be used with");
}

// ---- cancel, pause, resume ----

#[test]
fn cancel_is_a_ctrl_c() {
    let space = Space::with(&[waiting("a", ""), shell("b", "echo b", "needs = [\"a\"]")].concat());
    let mut run = space.start_until_a_is_up();
    space.run(&["cancel"]).expect(0).says("run 1 stops: what runs goes on to its end");
    run.says("interrupted: waiting for 1 running node");
    space.write("a go", "");
    assert_eq!(run.end().expect(130).outcomes(), "a=ran b=cancelled");
    space.expect_nothing_left();
    space.run(&["cancel"]).expect(2).says("no run of store .forkyard goes on; the newest, run 1, is over");
}

#[test]
fn cancel_reaches_a_run_that_ignores_ctrl_c() {
    let space = Space::with(&waiting("a", ""));
    let script =
        format!("trap '' INT; exec {} run m.toml --json --events all", env!("CARGO_BIN_EXE_forkyard"));
    let mut run = space.start_shell(&script);
    eventually("a is up", || space.path("a up").exists());
    space.run(&["cancel", "1"]).expect(0);
    run.says("interrupted");
    space.write("a go", "");
    assert_eq!(run.end().expect(143).outcomes(), "a=ran");
}

#[test]
fn a_paused_run_ends_what_runs_and_starts_nothing_until_it_is_resumed() {
    let space = Space::with(&[waiting("a", ""), shell("b", "touch 'b up'", "needs = [\"a\"]")].concat());
    let mut run = space.start_until_a_is_up();
    assert_eq!(space.state(), "running");
    space.run(&["pause"]).expect(0).says("run 1 pauses");
    run.event("run_paused", |_| true);
    assert_eq!(space.state(), "paused");
    space.write("a go", "");
    run.event("node_finished", |event| event["node"] == "a" && event["outcome"] == "ran");
    eventually("its result is committed", || space.results().contains_key("a"));
    assert_eq!(space.result_text("a").trim(), "a");
    assert!(!space.path("b up").exists());
    // Asked twice is asked once.
    space.run(&["pause", "1"]).expect(0);
    space.run(&["resume"]).expect(0).says("run 1 goes on");
    run.event("run_resumed", |_| true);
    let ended = run.end().expect(0);
    assert_eq!(ended.outcomes(), "a=ran b=ran");
    assert_eq!(ended.events_named("run_paused").len(), 1);
    let position = |name: &str, node: &str| {
        let is =
            |event: &serde_json::Value| event["event"] == name && (node.is_empty() || event["node"] == node);
        ended.events().iter().position(is).expect("it was there")
    };
    assert!(position("run_resumed", "") < position("node_finished", "b"));
    assert_eq!(space.state(), "done");
}

#[test]
fn a_paused_run_is_stopped_by_a_cancel_and_does_not_begin_what_waits_in_a_worker() {
    // Short ones, so that several are in one worker's hands.
    let many: String = (0..300)
        .map(|n| {
            format!(
                "[[node]]\nid = \"n{n}\"\nop = \"sleep\"\nparams = {{ seconds = 0.02 }}\nneeds = [\"a\"]\n"
            )
        })
        .collect();
    let space = Space::with(&[waiting("a", ""), many].concat());
    let mut run = space.start_until_a_is_up();
    space.write("a go", "");
    run.event("node_finished", |event| event["node"] == "n7");
    space.run(&["pause"]).expect(0);
    run.event("run_paused", |_| true);
    space.run(&["cancel"]).expect(0);
    let ended = run.end().expect(130);
    let (finished, summary) = (ended.events_named("node_finished"), ended.summary());
    let ran = finished.iter().filter(|event| event["outcome"] == "ran").count();
    assert_eq!(summary["ran"], ran);
    assert_eq!(summary["cancelled"], 301 - ran);
    assert!(ran < 301);
    assert_eq!(space.state(), "stopped");
}

#[test]
fn only_the_run_that_goes_on_is_signalled() {
    let space = Space::with(&shell("x", "true", ""));
    space.run_manifest(0);
    space.write("m.toml", waiting("a", ""));
    let run = space.start_until_a_is_up();
    space.run(&["cancel", "1"]).expect(2).says("run 1 is over; run 2 goes on");
    space.run(&["pause", "9"]).expect(2).says("has no run 9");
    // Killed, it holds nothing; its number now belongs to a stranger, who must not be hit.
    run.signal(Signal::SIGKILL);
    run.end().expect_killed();
    eventually("its pool is gone", || space.processes().is_empty());
    let stranger = space.start_shell("exec sleep 1000");
    let pid = stranger.pid();
    let header = space.text(".forkyard/runs/2/run.json");
    let mut header: serde_json::Value = serde_json::from_str(&header).unwrap();
    header["pid"] = pid.into();
    space.write(".forkyard/runs/2/run.json", header.to_string());
    space.write(".forkyard/lock", pid.to_string());
    for command in ["cancel", "pause", "resume"] {
        space.run(&[command]).expect(2).says("no run of store .forkyard goes on");
    }
    assert!(lives(pid));
}
