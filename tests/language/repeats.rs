//! `repeat`: again until it will do.

use super::{error, noop, shell, value, wait_for};
use crate::util::{RUN, Space};

#[test]
fn it_ends_when_its_condition_is_true() {
    let space = Space::with(
        &[
            shell("a", "echo x >> tries; wc -l < tries", "output = \"json\"\nsalt = \"{{ index }}\"\nrepeat = { until = \"{{ result >= 3 }}\", max = 5 }"),
            value("b", "\"{{ nodes.a.result + 1 }}\"", ""),
            value("c", "\"{{ nodes.a.result }}\"", ""),
        ]
        .concat(),
    );
    let ended = space.run_manifest(0);
    assert_eq!(ended.outcomes(), "a=ran a[0]=ran a[1]=ran a[2]=ran b=ran c=ran");
    assert_eq!(space.result_text("a"), "3", "the last result is the node's");
    assert_eq!((space.result_text("b"), space.result_text("c")), ("4".into(), "3".into()));
    assert_eq!(space.result_text("a[1]"), "2");
    assert_eq!(space.run_manifest(0).outcomes(), ended.outcomes().replace("ran", "cached"));
    assert_eq!(space.lines("tries"), 3);
}

#[test]
fn each_iteration_knows_its_number() {
    let space = Space::with(&value(
        "a",
        "\"{{ index * 10 }}\"",
        "repeat = { until = \"{{ index == 4 }}\", max = 9 }",
    ));
    space.run_manifest(0);
    assert_eq!(space.result_text("a"), "40");
    assert_eq!(space.result_text("a[0]"), "0");
}

#[test]
fn too_many_iterations_are_a_failure() {
    let space = Space::with(
        &[
            value("a", "\"{{ index }}\"", "repeat = { until = \"{{ result > 5 }}\", max = 3 }"),
            noop("b", "needs = [\"a\"]"),
        ]
        .concat(),
    );
    let ended = space.run_manifest(1);
    assert_eq!(ended.outcomes(), "a=failed a[0]=ran a[1]=ran a[2]=ran b=blocked");
    assert_eq!(error(&ended, "a"), "after 3 iterations its condition is still false: {{ result > 5 }}");
}

#[test]
fn an_iteration_that_fails_ends_it() {
    let space =
        Space::with(&shell("a", "test {{ index }} != 1", "repeat = { until = \"{{ false }}\", max = 5 }"));
    let ended = space.run_manifest(1);
    assert_eq!(ended.outcomes(), "a=failed a[0]=ran a[1]=failed");
    assert_eq!(
        error(&ended, "a"),
        "iteration 1 failed: /bin/sh ended with exit status: 1: it wrote nothing to stderr"
    );
    let space = Space::with(&value("a", "{ x = 1 }", "repeat = { until = \"{{ result.y }}\", max = 5 }"));
    let ended = space.run_manifest(1);
    assert!(error(&ended, "a").starts_with("iteration 0: `{{ result.y }}`"), "{}", error(&ended, "a"));
}

#[test]
fn a_run_that_stops_starts_no_other_iteration() {
    let repeat = "salt = \"{{ index }}\"\nrepeat = { until = \"{{ false }}\", max = 5 }";
    let space = Space::with(
        &[
            shell("a", &format!("touch up; {}", wait_for("go")), repeat),
            shell("bad", &format!("{}; exit 1", wait_for("up")), ""),
        ]
        .concat(),
    );
    let mut run = space.start(&[&RUN[..], &["--workers", "2"]].concat());
    run.event("node_finished", |event| event["node"] == "bad");
    space.write("go", "");
    assert_eq!(run.end().expect(1).outcomes(), "a=cancelled a[0]=ran a[1]=cancelled bad=failed");
}
