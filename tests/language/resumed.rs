//! A run that was killed and goes on; a part of a run; a node that is to run anew.

use nix::sys::signal::Signal;

use super::{noop, shell, value};
use crate::util::{RUN, Space, eventually};

/// Items that note when they run. The sixth waits for a file.
fn noted() -> String {
    let script = "echo {{ item }} >> log; [ {{ item }} != 5 ] || while [ ! -e go ]; do sleep 0.01; done; echo {{ item }}";
    [
        "[run]\ncommit = { every = 1 }\n".to_string(),
        shell("a", script, "foreach = \"{{ range(12) }}\""),
        value("b", "\"{{ item | trim | int }}\"", "each = \"a\""),
    ]
    .concat()
}

#[test]
fn after_a_kill_only_the_rest_of_the_items_runs() {
    let space = Space::with(&noted());
    let run = space.start(&[&RUN[..], &["--workers", "1"]].concat());
    eventually("the sixth item runs", || space.text("log").lines().any(|line| line == "5"));
    let durable = || {
        let listed = space.run(&["results", "ls", "--json"]);
        let lines = if listed.code() == Some(0) { listed.events() } else { Vec::new() };
        lines
            .iter()
            .filter(|line| {
                line["node"].as_str().is_some_and(|node| node.starts_with("a[")) && line["digest"].is_string()
            })
            .count()
    };
    let begun = space.lines("log");
    eventually("what ran before is durable", || durable() == begun - 1);
    run.signal(Signal::SIGKILL);
    run.end().expect_killed();
    space.write("go", "");
    let ended = space.run_manifest(0);
    assert_eq!(space.lines("log"), 13, "one item ran twice: the one that was killed\n{}", space.text("log"));
    let cached = |node: &str| {
        ended.outcomes().split(' ').filter(|word| word.starts_with(node) && word.ends_with("=cached")).count()
    };
    assert_eq!(cached("a["), begun - 1);
    assert_eq!(space.result_text("b"), "[0,1,2,3,4,5,6,7,8,9,10,11]");
    space.expect_nothing_left();
}

#[test]
fn an_interrupted_fan_out_goes_on_too() {
    let space = Space::with(&noted());
    let mut run = space.start(&[&RUN[..], &["--workers", "1"]].concat());
    eventually("the sixth item runs", || space.text("log").lines().any(|line| line == "5"));
    run.signal(Signal::SIGINT);
    run.says("once more to stop now");
    space.write("go", "");
    let ended = run.end().expect(130);
    assert_eq!(ended.node("a")["outcome"], "cancelled");
    space.run_manifest(0);
    assert_eq!(space.lines("log"), 12, "no item ran twice");
}

#[test]
fn only_a_node_brings_its_items_and_what_it_needs() {
    let space = Space::with(
        &[
            value("x", "[1, 2]", ""),
            value("a", "\"{{ item }}\"", "foreach = \"{{ nodes.x.result }}\""),
            value("b", "\"{{ item }}\"", "each = \"a\""),
            noop("c", ""),
        ]
        .concat(),
    );
    assert_eq!(space.run_with(&["--only", "a"], 0).outcomes(), "a=ran a[0]=ran a[1]=ran x=ran");
    assert_eq!(
        space.run_with(&["--only", "b"], 0).outcomes(),
        "a=cached a[0]=cached a[1]=cached b=ran b[0]=ran b[1]=ran x=cached"
    );
}

#[test]
fn refresh_runs_every_item_of_a_node_anew() {
    let space = Space::with(
        &[
            shell("a", "echo {{ item }} >> a.log; echo {{ item }}", "foreach = [1, 2]"),
            shell("b", "echo {{ item | trim }} >> b.log", "each = \"a\""),
        ]
        .concat(),
    );
    space.run_manifest(0);
    let ended = space.run_with(&["--refresh", "a"], 0);
    assert_eq!(ended.outcomes(), "a=ran a[0]=ran a[1]=ran b=cached b[0]=cached b[1]=cached");
    assert_eq!((space.lines("a.log"), space.lines("b.log")), (4, 2));
}

#[test]
fn nodes_that_are_not_cached_have_items_that_are_not() {
    let space = Space::with(&shell("a", "echo {{ item }} >> log", "foreach = [1, 2]\ncache = false"));
    space.run_manifest(0);
    space.run_manifest(0);
    assert_eq!(space.lines("log"), 4);
}

#[test]
fn a_plan_of_a_fan_out_does_not_run_it() {
    let space = Space::with(&noted());
    space.run(&["run", "m.toml", "--dry-run"]).expect(0);
    space.run(&["plan", "m.toml", "--json"]).expect(0);
    assert_eq!(space.lines("log"), 0);
}
