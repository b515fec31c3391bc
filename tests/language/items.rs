//! `foreach`, `each`, `chunk`, `on_item_failure`: a node that consists of items.

use serde_json::Value;

use super::{error, noop, shell, value, wait_for};
use crate::util::{RUN, Space};

/// A node of three items that squares 1, 2 and 3.
fn squares(id: &str, more: &str) -> String {
    value(id, "\"{{ item * item }}\"", &format!("foreach = [1, 2, 3]\n{more}"))
}

#[test]
fn results_are_in_the_order_of_items_whatever_ends_first() {
    // The first item ends last.
    let script = format!(
        "[ {{{{ index }}}} != 0 ] || {{ {}; }}; touch done{{{{ index }}}}; echo {{{{ item }}}}",
        wait_for("done2")
    );
    let space = Space::with(&shell("a", &script, "foreach = [\"x\", \"y\", \"z\"]"));
    let ended = space.run_with(&["--workers", "3"], 0);
    assert_eq!(ended.outcomes(), "a=ran a[0]=ran a[1]=ran a[2]=ran");
    assert_eq!(space.result_text("a"), r#"["x\n","y\n","z\n"]"#);
    assert_eq!(space.result_text("a[1]"), "y\n", "an item has a result of its own");
    assert_eq!(ended.summary()["ran"], 4, "a node and its items");
    let status = String::from_utf8(space.run(&["status"]).expect(0).stdout).unwrap();
    assert!(status.contains("4 of 4 nodes are settled"), "{status}");
    assert_eq!(space.run_manifest(0).outcomes(), "a=cached a[0]=cached a[1]=cached a[2]=cached");
    space.expect_nothing_left();
}

#[test]
fn items_come_from_a_list_a_range_a_variable_or_a_result() {
    let space = Space::with(
        &[
            "[vars]\nnames = [\"u\", {x = 1}]\nn = 4\n".to_string(),
            value("made", "[10, [20], \"x\"]", ""),
            value("list", "\"{{ item }}\"", "foreach = [1, \"{{ vars.n }}\", true]"),
            value("range", "\"{{ item }}\"", "foreach = \"{{ range(1, vars.n) }}\""),
            value("down", "\"{{ [index, item] }}\"", "foreach = \"{{ range(9, 0, -4) }}\""),
            value("vars", "\"{{ item }}\"", "foreach = \"{{ vars.names }}\""),
            value("result", "\"{{ item }}\"", "foreach = \"{{ nodes.made.result }}\""),
            value("again", "\"{{ item }}\"", "foreach = \"{{ nodes.range.result }}\""),
            value("some", "\"{{ item }}\"", "foreach = \"{{ nodes.range.result | select('odd') | list }}\""),
        ]
        .concat(),
    );
    space.run_manifest(0);
    for (node, expected) in [
        ("list", "[1,4,true]"),
        ("range", "[1,2,3]"),
        ("down", "[[0,9],[1,5],[2,1]]"),
        ("vars", r#"["u",{"x":1}]"#),
        ("result", r#"[10,[20],"x"]"#),
        ("again", "[1,2,3]"),
        ("some", "[1,3]"),
    ] {
        assert_eq!(space.result_text(node), expected, "{node}");
    }
}

#[test]
fn what_needs_a_node_gets_the_list_of_its_items() {
    let space = Space::with(
        &[
            squares("a", ""),
            value("sum", "\"{{ nodes.a.result | sum }}\"", ""),
            value("whole", "\"{{ nodes.a.result }}\"", ""),
            "[[node]]\nid = \"cat\"\nop = \"exec\"\nrun = [\"cat\"]\nstdin = \"{{ nodes.a.result }}\"\n"
                .into(),
        ]
        .concat(),
    );
    space.run_manifest(0);
    assert_eq!(space.result_text("sum"), "14");
    assert_eq!(space.result_text("whole"), "[1,4,9]");
    assert_eq!(space.result_text("cat"), "[1,4,9]");
    assert_eq!(space.run_manifest(0).summary()["ran"], 0);
}

#[test]
fn no_items_are_an_empty_list() {
    let space = Space::with(
        &[
            value("a", "\"{{ item }}\"", "foreach = []"),
            value("b", "\"{{ item }}\"", "foreach = \"{{ range(0) }}\""),
            value("c", "\"{{ item }}\"", "each = \"a\""),
            value("d", "\"{{ nodes.b.result | length }}\"", ""),
        ]
        .concat(),
    );
    let ended = space.run_manifest(0);
    assert!(ended.outcomes().ends_with("d=ran"), "{}", ended.outcomes());
    for (node, expected) in [("a", "[]"), ("b", "[]"), ("c", "[]"), ("d", "0")] {
        assert_eq!(space.result_text(node), expected, "{node}");
    }
}

#[test]
fn what_is_no_list_has_no_items() {
    let space = Space::with(&[value("x", "7", ""), noop("a", "foreach = \"{{ nodes.x.result }}\"")].concat());
    let ended = space.run_manifest(1);
    assert_eq!(ended.outcomes(), "a=failed x=ran");
    assert!(error(&ended, "a").contains("a list"), "{}", error(&ended, "a"));
}

#[test]
fn ten_thousand_items_are_one_node() {
    let space = Space::with(
        &[
            value("a", "\"{{ item * 2 }}\"", "foreach = \"{{ range(10000) }}\""),
            value("b", "\"{{ item + 1 }}\"", "each = \"a\""),
            value("sum", "\"{{ nodes.b.result | sum }}\"", ""),
        ]
        .concat(),
    );
    let run = ["run", "m.toml", "--json"];
    let summary = space.run(&run).expect(0).summary();
    assert_eq!((&summary["ran"], &summary["nodes"]), (&20_003.into(), &20_003.into()));
    assert_eq!(space.result_text("sum"), (9999 * 10_000 + 10_000).to_string());
    assert_eq!(space.result_text("b[9999]"), "19999");
    let again = space.run(&run).expect(0).summary();
    assert_eq!((&again["ran"], &again["cached"]), (&0.into(), &20_003.into()));
}

#[test]
fn every_worker_gets_items() {
    // Neither item ends before the other has begun.
    let script = format!("touch up{{{{ index }}}}; {}; {}", wait_for("up0"), wait_for("up1"));
    let space = Space::with(&shell("a", &script, "foreach = [0, 1]"));
    space.run_with(&["--workers", "2"], 0);
}

#[test]
fn each_has_no_barrier() {
    // The last item of `a` ends only when the first of `b` is done.
    let first = format!("[ {{{{ item }}}} != 2 ] || {{ {}; }}; echo {{{{ item }}}}", wait_for("b0"));
    let space = Space::with(
        &[
            shell("a", &first, "foreach = \"{{ range(3) }}\""),
            shell("b", "touch b{{ index }}; echo got {{ item | trim }}", "each = \"a\""),
        ]
        .concat(),
    );
    space.run_with(&["--workers", "2"], 0);
    assert_eq!(space.result_text("b"), r#"["got 0\n","got 1\n","got 2\n"]"#);
    assert_eq!(space.run_manifest(0).summary()["ran"], 0);
}

#[test]
fn each_follows_each_item_by_item() {
    let space = Space::with(
        &[
            squares("a", ""),
            value("b", "\"{{ item + 1 }}\"", "each = \"a\""),
            value("c", "\"{{ [index, item] }}\"", "each = \"b\""),
            value("d", "\"{{ item }}\"", "each = \"a\""),
        ]
        .concat(),
    );
    space.run_manifest(0);
    assert_eq!(space.result_text("c"), "[[0,2],[1,5],[2,10]]");
    assert_eq!(space.result_text("d"), "[1,4,9]");
}

#[test]
fn a_change_of_one_item_runs_what_follows_that_item() {
    let manifest = |list: &str| {
        [
            shell("a", "echo {{ item }} >> a.log; echo {{ item }}", &format!("foreach = {list}")),
            shell("b", "echo {{ item | trim }} >> b.log", "each = \"a\""),
        ]
        .concat()
    };
    let space = Space::with(&manifest("[1, 2, 3]"));
    space.run_manifest(0);
    space.write("m.toml", manifest("[1, 5, 3]"));
    let ended = space.run_manifest(0);
    assert_eq!(
        (&ended.node("a[1]")["outcome"], &ended.node("a[0]")["outcome"]),
        (&"ran".into(), &"cached".into())
    );
    assert_eq!((space.lines("a.log"), space.lines("b.log")), (4, 4));
}

#[test]
fn large_items_go_by_reference_in_every_layout() {
    for layout in ["hybrid", "sqlite", "filesystem"] {
        let space = Space::with(
            &[
                format!("[run]\nlayout = \"{layout}\"\n"),
                shell("a", "yes {{ item }} | head -c 100000", "foreach = [3, 5, 7]"),
                shell(
                    "b",
                    "wc -c; head -n 1 \"$FORKYARD_INPUT_IT\"",
                    "each = \"a\"\nstdin = \"{{ item }}\"\ninputs = { it = \"{{ item }}\" }",
                ),
                value("c", "\"{{ item }}\"", "each = \"a\""),
            ]
            .concat(),
        );
        space.run_manifest(0);
        assert_eq!(space.result_text("b"), r#"["100000\n3\n","100000\n5\n","100000\n7\n"]"#, "{layout}");
        let results = space.results();
        assert_eq!(results["c[2]"].1, results["a[2]"].1, "{layout}");
        assert_eq!(space.result("c[2]"), b"7\n".repeat(50_000), "{layout}");
        // From the store as well as from the worker.
        let ended = space.run_with(&["--refresh", "b"], 0);
        assert_eq!(
            (&ended.node("a")["outcome"], &ended.node("b[1]")["outcome"]),
            (&"cached".into(), &"ran".into())
        );
        assert_eq!(space.result_text("b[1]"), "100000\n5\n", "{layout}");
    }
}

#[test]
fn bytes_and_artifacts_pass_from_item_to_item() {
    let space = Space::with(
        &[
            shell("a", "printf '\\377%s' {{ item }}", "foreach = [1, 2]\noutput = \"bytes\""),
            shell("b", "od -An -tx1 | tr -d ' '", "each = \"a\"\nstdin = \"{{ item }}\""),
        ]
        .concat(),
    );
    space.run_manifest(0);
    assert_eq!(space.result("a[0]"), b"\xff1");
    assert_eq!(space.result_text("b"), r#"["ff31\n","ff32\n"]"#);
    space.run(&["results", "cat", "a"]).expect(2).says("`a[0]` is bytes, which no JSON list holds");
}

#[test]
fn a_chunk_is_a_list_of_items() {
    let space =
        Space::with(&value("a", "\"{{ [index, item] }}\"", "foreach = \"{{ range(10, 17) }}\"\nchunk = 3"));
    space.run_manifest(0);
    assert_eq!(space.result_text("a"), "[[0,[10,11,12]],[1,[13,14,15]],[2,[16]]]");
    assert_eq!(space.result_text("a[2]"), "[2,[16]]");
}

/// A node whose second item of three fails.
fn second_fails(more: &str) -> String {
    shell("a", "[ {{ item }} != 1 ] || exit 7; echo {{ item }}", &format!("foreach = [0, 1, 2]\n{more}"))
}

#[test]
fn an_item_that_fails_fails_its_node_when_the_others_are_done() {
    let nodes = [second_fails(""), noop("b", "needs = [\"a\"]"), noop("free", "priority = -9")];
    let space = Space::with(&nodes.concat());
    let ended = space.run_with(&["--keep-going"], 1);
    assert_eq!(ended.outcomes(), "a=failed a[0]=ran a[1]=failed a[2]=ran b=blocked free=ran");
    assert_eq!(
        error(&ended, "a"),
        "1 of its 3 items did not succeed; the first is a[1]: /bin/sh ended with exit status: 7: it wrote nothing to stderr"
    );
    // The other items are done whatever `on_failure` says: it is the node that fails, not the item.
    let space = Space::with(&[nodes[0].as_str(), &nodes[1]].concat());
    let ended = space.run_with(&["--workers", "1"], 1);
    assert_eq!(ended.outcomes(), "a=failed a[0]=ran a[1]=failed a[2]=ran b=blocked");
    space.run(&["results", "cat", "a"]).expect(1).says("1 of its 3 items did not succeed");
    assert_eq!(space.result_text("a[2]"), "2\n");
}

#[test]
fn an_item_that_may_fail_is_null() {
    let space = Space::with(
        &[
            second_fails("on_item_failure = \"null\""),
            value("b", "\"{{ item }}\"", "each = \"a\""),
            value("c", "\"{{ nodes.a.result }}\"", ""),
        ]
        .concat(),
    );
    let ended = space.run_manifest(0);
    assert_eq!(
        (&ended.node("a")["outcome"], &ended.node("a[1]")["outcome"]),
        (&"ran".into(), &"failed".into())
    );
    for node in ["a", "b", "c"] {
        assert_eq!(space.result_text(node), r#"["0\n",null,"2\n"]"#, "{node}");
    }
}

#[test]
fn after_a_failure_that_stops_its_node_no_more_items_start() {
    let script = "echo x >> started; exit 1";
    let space = Space::with(&shell(
        "a",
        script,
        "foreach = \"{{ range(20000) }}\"\non_item_failure = \"stop\"\nsalt = \"{{ item }}\"",
    ));
    let ended = space.run_with(&["--workers", "1", "--keep-going"], 1);
    assert_eq!(ended.node("a")["outcome"], "failed");
    // Those that were under way are told of; a worker may have been sent a few by then.
    assert!(space.lines("started") < 100, "{} items were started", space.lines("started"));
}

#[test]
fn what_follows_an_item_that_failed_is_blocked() {
    let space = Space::with(&[second_fails(""), shell("b", "echo {{ item }}", "each = \"a\"")].concat());
    let ended = space.run_with(&["--keep-going"], 1);
    assert_eq!(
        ended.outcomes(),
        "a=failed a[0]=ran a[1]=failed a[2]=ran b=blocked b[0]=ran b[1]=blocked b[2]=ran"
    );
}

#[test]
fn an_item_is_tried_again() {
    let flaky = "mkdir tried{{ item }} 2> /dev/null && exit 1; echo {{ item }}";
    let space = Space::with(&shell(
        "a",
        flaky,
        "foreach = [0, 1]\nretry = { attempts = 2, backoff = \"1ms\", jitter = 1 }",
    ));
    let ended = space.run_manifest(0);
    assert_eq!(ended.node("a[1]")["attempt"], 2);
    assert_eq!(space.result_text("a"), r#"["0\n","1\n"]"#);
}

#[test]
fn an_item_that_hangs_is_killed_and_the_others_are_not() {
    let script = "[ {{ item }} != 1 ] || sleep 1000; echo {{ item }}";
    let space = Space::with(&shell(
        "a",
        script,
        "foreach = [0, 1, 2]\ntimeout = \"300ms\"\non_item_failure = \"null\"",
    ));
    let ended = space.run_manifest(0);
    assert_eq!(ended.node("a[1]")["outcome"], "timed_out");
    assert_eq!(space.result_text("a"), r#"["0\n",null,"2\n"]"#);
    space.expect_nothing_left();
}

#[test]
fn a_worker_that_dies_of_an_item_is_replaced() {
    let manifest = |times: u32| {
        format!(
            "[[node]]\nid = \"a\"\nop = \"crash\"\nparams = {{ signal = 9, times = \"{{{{ {times} if item == 3 else 0 }}}}\" }}\nforeach = \"{{{{ range(6) }}}}\"\n"
        )
    };
    let space = Space::with(&manifest(2));
    let ended = space.run_manifest(0);
    assert_eq!(ended.node("a[3]")["attempt"], 3);
    assert_eq!(ended.events_named("worker_lost").len(), 2);
    assert_eq!(space.result_text("a"), "[null,null,null,null,null,null]");
    let space = Space::with(&manifest(9));
    let ended = space.run_manifest(1);
    assert!(error(&ended, "a").contains("the first is a[3]: its worker"), "{}", error(&ended, "a"));
    assert_eq!(ended.summary()["ran"], 5);
}

#[test]
fn the_number_of_workers_changes_no_result() {
    let manifest = [
        squares("a", ""),
        value("b", "\"{{ item ~ '-' ~ index }}\"", "each = \"a\""),
        value("c", "\"{{ item | sum }}\"", "foreach = \"{{ range(100) }}\"\nchunk = 7"),
        shell("d", "echo {{ item }}", "foreach = \"{{ nodes.c.result }}\""),
        value("e", "\"{{ nodes.d.result | join | length }}\"", ""),
    ]
    .concat();
    let results = |workers: &str| {
        let space = Space::with(&manifest);
        space.run_with(&["--workers", workers], 0);
        let lines = space.run(&["results", "ls", "--json"]).expect(0).events();
        let digests: Vec<(Value, Value)> =
            lines.iter().map(|line| (line["node"].clone(), line["digest"].clone())).collect();
        assert!(digests.len() > 30, "{digests:?}");
        (digests, space.result_text("d"))
    };
    let one = results("1");
    assert_eq!(results("2"), one);
    assert_eq!(results("16"), one);
}

#[test]
fn each_waits_for_what_else_it_needs() {
    let space = Space::with(
        &[
            squares("a", ""),
            shell("slow", &format!("{}; sleep 0.1; touch done", wait_for("go")), ""),
            shell("b", "test -e done", "each = \"a\"\nneeds = [\"slow\"]"),
        ]
        .concat(),
    );
    let mut run = space.start(&[&RUN[..], &["--workers", "2"]].concat());
    run.event("node_finished", |event| event["node"] == "a");
    space.write("go", "");
    run.end().expect(0);
}
