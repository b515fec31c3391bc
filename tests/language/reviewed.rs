//! Where words meet: what a review found to go wrong.

use std::fs;

use super::{error, noop, shell, value, wait_for};
use crate::util::Space;

#[test]
fn what_follows_a_node_in_one_batch_obeys_its_route() {
    let mut manifest = value("warm", "0", "");
    for group in 0..30 {
        manifest += &value(&format!("r{group}"), "1", "needs = [\"warm\"]\nroute = \"{{ none }}\"");
        manifest += &value(&format!("u{group}"), "2", &format!("needs = [\"r{group}\"]"));
    }
    let space = Space::with(&manifest);
    let ended = space.run_with(&["--workers", "1"], 0);
    assert_eq!(ended.outcomes().matches("=skipped").count(), 30);
}

#[test]
fn equal_nodes_run_once_whatever_the_workers() {
    for (workers, more) in [("1", ""), ("3", ""), ("2", "concurrency = 1")] {
        let items =
            shell("a", "echo x >> ran; echo same", &format!("foreach = \"{{{{ range(0, 6) }}}}\"\n{more}"));
        let space = Space::with(&items);
        space.run_with(&["--workers", workers], 0);
        assert_eq!(space.lines("ran"), 1, "{workers} {more}");
    }
}

#[test]
fn a_loser_that_somebody_else_needs_goes_on() {
    let slow = format!("{}; echo slow", wait_for("go"));
    let space = Space::with(
        &[
            shell("fast", "echo fast", ""),
            shell("slow", &slow, ""),
            "[[node]]\nid = \"r\"\nrace = [\"fast\", \"slow\"]\n".into(),
            shell("after", "touch go", "needs = [\"r\"]"),
            value("reads", "\"{{ nodes.slow.result }}\"", ""),
        ]
        .concat(),
    );
    assert_eq!(space.run_with(&[], 0).outcomes(), "after=ran fast=ran r=ran reads=ran slow=ran");
}

#[test]
fn the_winner_is_the_same_again_and_survives_a_gc() {
    let race = |members: &str| {
        [
            shell("a", "echo a", ""),
            shell("b", "echo b", ""),
            format!("[[node]]\nid = \"r\"\nrace = [{members}]\n"),
        ]
        .concat()
    };
    let space = Space::with(&race("\"b\", \"a\""));
    space.run_with(&["--workers", "1"], 0);
    let winner = space.result_text("r");
    // The other one is stored too by now, and nothing but the record says who won.
    let other = if winner == "a\n" { "b" } else { "a" };
    space.run_with(&["--only", other], 0);
    for _ in 0..2 {
        let ended = space.run_with(&[], 0);
        assert_eq!(ended.summary()["ran"], 0);
        assert_eq!(space.result_text("r"), winner);
        space.run(&["store", "gc", "--keep-runs", "1"]).expect(0);
    }
}

#[test]
fn items_that_a_stopping_run_cancels_are_no_nulls() {
    let space = Space::with(
        &[
            shell(
                "fam",
                &format!("touch up; {}", wait_for("go")),
                "foreach = [1, 2, 3, 4]\nsalt = \"{{ index }}\"\non_item_failure = \"null\"\nconcurrency = 1",
            ),
            shell("bad", &format!("{}; exit 1", wait_for("up")), ""),
            shell("clean", "echo {{ nodes.fam.outcome }}", ""),
        ]
        .concat(),
    );
    let mut run = space.start(&["run", "m.toml", "--json", "--events", "all", "--workers", "2"]);
    run.event("node_finished", |event| event["node"] == "bad");
    space.write("go", "");
    run.end().expect(1);
    assert_eq!(space.result_text("clean"), "cancelled\n");
}

#[test]
fn a_cancelled_fan_out_hands_on_what_its_ancestors_published() {
    let space = Space::with(
        &[
            value("p", "1", "publish = { x = 7 }"),
            shell(
                "fam",
                &format!("touch up; {}", wait_for("go")),
                "needs = [\"p\"]\nforeach = [1, 2, 3]\nsalt = \"{{ index }}\"\nconcurrency = 1",
            ),
            shell("bad", &format!("{}; exit 1", wait_for("up")), ""),
            value("clean", "\"{{ vars.x }}\"", "needs = [\"fam\"]\nafter = \"any\""),
        ]
        .concat(),
    );
    let mut run = space.start(&["run", "m.toml", "--json", "--events", "all", "--workers", "2"]);
    run.event("node_finished", |event| event["node"] == "bad");
    space.write("go", "");
    run.end().expect(1);
    assert_eq!(space.result_text("clean"), "7");
}

#[test]
fn a_result_of_which_nothing_can_follow_is_a_failure_and_not_kept() {
    let script = "test -e second && echo '{\"ok\": 1}' || { touch second; echo '{}'; }";
    let manifest = shell("a", script, "output = \"json\"\npublish = { ok = \"{{ result.ok }}\" }");
    let space = Space::with(&manifest);
    let ended = space.run_with(&[], 1);
    assert!(error(&ended, "a").contains("publish ok: `{{ result.ok }}`"), "{}", error(&ended, "a"));
    assert_eq!(space.run_with(&[], 0).outcomes(), "a=ran", "it was tried again, and had not been stored");

    fs::remove_file(space.path("second")).unwrap();
    let space = Space::with(&format!("{manifest}retry = {{ attempts = 2 }}\n"));
    assert_eq!(space.run_with(&[], 0).node("a")["attempt"], 2);
}

#[test]
fn a_failed_item_counts_for_max_failures() {
    let space =
        Space::with(&shell("a", "exit 1", "foreach = \"{{ range(0, 500) }}\"\nsalt = \"{{ index }}\""));
    let ended = space.run_with(&["--max-failures", "3"], 1);
    assert!(ended.summary()["failed"].as_u64().unwrap() < 100, "{}", ended.summary());
}

#[test]
fn a_follower_of_a_skipped_item_is_skipped() {
    let space = Space::with(
        &[
            value("l", "\"{{ item }}\"", "foreach = [1, 2]\nwhen = \"{{ item > 1 }}\""),
            value("f", "\"{{ item }}!\"", "each = \"l\""),
            value("g", "\"{{ item }}?\"", "each = \"l\"\nwhen_skipped = \"run\""),
        ]
        .concat(),
    );
    space.run_with(&[], 0);
    assert_eq!(space.result_text("f"), "[null,\"2!\"]");
    assert_eq!(space.result_text("g"), "[\"None?\",\"2?\"]");
}

#[test]
fn a_clean_up_node_starts_when_all_before_it_is_settled() {
    // b is blocked by f at once, but p, which it needs too, still runs.
    let space = Space::with(
        &[
            shell("p", &wait_for("go"), "publish = { y = 1 }"),
            shell("f", "exit 1", ""),
            noop("b", "needs = [\"p\", \"f\"]"),
            value("clean", "\"{{ vars.y }}\"", "needs = [\"b\"]\nafter = \"any\""),
        ]
        .concat(),
    );
    let mut run = space.start(&["run", "m.toml", "--json", "--events", "all", "--keep-going"]);
    run.event("node_finished", |event| event["node"] == "f");
    space.write("go", "");
    assert_eq!(run.end().expect(1).outcomes(), "b=blocked clean=ran f=failed p=ran");
    assert_eq!(space.result_text("clean"), "1");
}

#[test]
fn generated_nodes_may_race_and_work_at_the_same_time() {
    let nodes = r#"{"$nodes": [{"id": "r", "race": ["m", "n"]}, {"id": "m", "op": "crash", "params": {"panic": "m"}},
        {"id": "n", "op": "value", "params": {"value": 3}}, {"id": "u", "op": "value", "params": {"value": "{% raw %}{{ nodes.r.result }}{% endraw %}"}},
        {"id": "p", "op": "exec", "run": ["sh", "-c", "touch p; while [ ! -e q ]; do sleep 0.01; done"]},
        {"id": "q", "op": "exec", "run": ["sh", "-c", "touch q; while [ ! -e p ]; do sleep 0.01; done"]}]}"#;
    let space = Space::new();
    space.write("nodes.json", nodes.replace("{% raw %}", "").replace("{% endraw %}", ""));
    space.write("m.toml", shell("gen", "cat nodes.json", "output = \"json\""));
    for outcome in ["ran", "cached"] {
        let ended = space.run_with(&["--workers", "2"], 0);
        assert_eq!(ended.node("u")["outcome"], outcome);
    }
    assert_eq!(space.result_text("u"), "3");
}

#[test]
fn a_copy_of_a_list_of_nodes_makes_none() {
    let space = Space::with(
        &[
            shell("gen", "echo '{\"$nodes\": [{\"id\": \"x\", \"op\": \"noop\"}]}'", "output = \"json\""),
            value("copy", "\"{{ nodes.gen.result }}\"", ""),
        ]
        .concat(),
    );
    assert_eq!(space.run_with(&[], 0).outcomes(), "copy=ran gen=ran x=ran");
}
