//! `when`, `when_skipped`, `after`, outcomes, `route`: which nodes run at all.

use super::{error, noop, shell, value};
use crate::util::{RUN, Space};

fn fails(id: &str, more: &str) -> String {
    shell(id, "exit 7", more)
}

/// A node that runs if this is true.
fn when(id: &str, condition: &str, more: &str) -> String {
    noop(id, &format!("when = \"{{{{ {condition} }}}}\"\n{more}"))
}

#[test]
fn a_condition_decides_and_what_needs_a_skipped_node_is_skipped() {
    let space = Space::with(
        &[
            "[vars]\nk = 3\n".to_string(),
            value("x", "{ score = 5 }", ""),
            when("yes", "nodes.x.result.score > vars.k", ""),
            when("no", "nodes.x.result.score < vars.k", ""),
            noop("after_yes", "needs = [\"yes\"]"),
            noop("after_no", "needs = [\"no\", \"yes\"]"),
            noop("later", "needs = [\"after_no\"]"),
        ]
        .concat(),
    );
    let ended = space.run_manifest(0);
    assert_eq!(ended.outcomes(), "after_no=skipped after_yes=ran later=skipped no=skipped x=ran yes=ran");
    assert_eq!(error(&ended, "no"), "its condition is false: {{ nodes.x.result.score < vars.k }}");
    assert_eq!(error(&ended, "later"), "node after_no, which it needs, was skipped");
    assert_eq!(ended.summary()["skipped"], 3);
    space.run(&["results", "cat", "no"]).expect(1).says("it was skipped: its condition is false");
    assert_eq!(space.run_manifest(0).outcomes(), ended.outcomes().replace("ran", "cached"));
}

#[test]
fn what_counts_as_true() {
    let conditions = [
        ("0", false),
        ("1", true),
        ("''", false),
        ("'false'", true),
        ("[]", false),
        ("[0]", true),
        ("none", false),
        ("{}", false),
        ("nodes.n.result", false),
        ("not nodes.n.result", true),
    ];
    let nodes: String = conditions
        .iter()
        .enumerate()
        .map(|(at, (condition, _))| when(&format!("c{at}"), condition, ""))
        .collect();
    let space = Space::with(&[value("n", "false", ""), nodes].concat());
    let ended = space.run_manifest(0);
    for (at, (condition, holds)) in conditions.iter().enumerate() {
        let expected = if *holds { "ran" } else { "skipped" };
        assert_eq!(ended.node(&format!("c{at}"))["outcome"], expected, "{condition}");
    }
}

#[test]
fn an_error_in_a_condition_is_a_failure_and_never_false() {
    let space = Space::with(
        &[
            value("x", "{ ok = 1 }", ""),
            when("a", "nodes.x.result.no_such > 3", ""),
            when("b", "nodes.x.result.ok > 'text' + 1", ""),
            when("c", "nodes.x.result.no_such", ""),
            noop("d", "needs = [\"a\"]"),
        ]
        .concat(),
    );
    let ended = space.run_with(&["--keep-going"], 1);
    assert_eq!(ended.outcomes(), "a=failed b=failed c=failed d=blocked x=ran");
    for node in ["a", "b", "c"] {
        assert!(error(&ended, node).starts_with("`{{ nodes.x.result."), "{}", error(&ended, node));
    }
}

#[test]
fn a_condition_on_an_item_decides_about_that_item() {
    let space = Space::with(
        &[
            value("a", "\"{{ item }}\"", "foreach = [1, 2, 3, 4]\nwhen = \"{{ item is odd }}\""),
            value("b", "\"{{ item }}\"", "each = \"a\""),
            value("c", "\"{{ item }}\"", "each = \"a\"\nwhen_skipped = \"run\""),
            value("none", "\"{{ item }}\"", "foreach = [1, 2]\nwhen = \"{{ nodes.a.result[1] }}\""),
        ]
        .concat(),
    );
    let ended = space.run_manifest(0);
    assert_eq!(
        (&ended.node("a[1]")["outcome"], &ended.node("a[2]")["outcome"]),
        (&"skipped".into(), &"ran".into())
    );
    assert_eq!(space.result_text("a"), "[1,null,3,null]");
    assert_eq!(space.result_text("c"), "[1,null,3,null]");
    assert_eq!(ended.node("none")["outcome"], "skipped");
    assert!(!ended.outcomes().contains("none[0]"), "a node that is skipped has no items");
}

#[test]
fn who_runs_although_a_parent_was_skipped_sees_null() {
    let space = Space::with(
        &[
            value("no", "1", "when = \"{{ false }}\""),
            value("whole", "\"{{ nodes.no.result }}\"", "when_skipped = \"run\""),
            value("part", "\"{{ nodes.no.result is none }}\"", "when_skipped = \"run\""),
            value("skip", "\"{{ nodes.no.result }}\"", "when_skipped = \"skip\""),
        ]
        .concat(),
    );
    let ended = space.run_manifest(0);
    assert_eq!(ended.outcomes(), "no=skipped part=ran skip=skipped whole=ran");
    assert_eq!((space.result_text("whole"), space.result_text("part")), ("null".into(), "true".into()));
    assert_eq!(space.run_manifest(0).outcomes(), "no=skipped part=cached skip=skipped whole=cached");
}

/// A failure, what cleans up after it, what is harmed by it, and what has nothing to do with it.
fn with_clean_up() -> String {
    [
        fails("a", "priority = 9"),
        noop("needs_a", "needs = [\"a\"]"),
        shell("clean", "echo clean >> log", "after = \"any\"\nneeds = [\"needs_a\", \"other\"]"),
        shell("fallback", "echo fallback >> log", "when = \"{{ nodes.a.outcome == 'failed' }}\""),
        noop("after_fallback", "needs = [\"fallback\"]"),
        shell("if_fine", "echo fine >> log", "when = \"{{ nodes.a.outcome == 'done' }}\""),
        noop("free", "needs = [\"other\"]"),
        shell("other", "sleep 0.1", ""),
    ]
    .concat()
}

#[test]
fn a_failure_stops_the_run_but_for_what_accepts_it() {
    let space = Space::with(&with_clean_up());
    let ended = space.run_with(&["--workers", "1"], 1);
    assert_eq!(
        ended.outcomes(),
        "a=failed after_fallback=cancelled clean=ran fallback=ran free=cancelled if_fine=skipped needs_a=blocked other=cancelled"
    );
    assert_eq!(space.lines("log"), 2);
    space.expect_nothing_left();
}

#[test]
fn keep_going_runs_the_rest_too() {
    let space = Space::with(&with_clean_up());
    let ended = space.run_with(&["--keep-going"], 1);
    assert_eq!(
        ended.outcomes(),
        "a=failed after_fallback=ran clean=ran fallback=ran free=ran if_fine=skipped needs_a=blocked other=ran"
    );
    assert_eq!(space.text("log").lines().filter(|line| *line == "clean").count(), 1);
}

#[test]
fn outcomes_are_named_by_words() {
    let space = Space::with(
        &[
            "[run]\non_failure = \"continue\"\n".to_string(),
            value("done", "1", ""),
            fails("failed", ""),
            shell("timed_out", "sleep 1000", "timeout = \"50ms\""),
            noop("skipped", "when = \"{{ false }}\""),
            noop("blocked", "needs = [\"failed\"]"),
            value(
                "words",
                "\"{{ [nodes.done.outcome, nodes.failed.outcome, nodes.timed_out.outcome, nodes.skipped.outcome, nodes.blocked.outcome] }}\"",
                "when_skipped = \"run\"",
            ),
        ]
        .concat(),
    );
    let words = r#"["done","failed","timed_out","skipped","blocked"]"#;
    space.run_manifest(1);
    assert_eq!(space.result_text("words"), words);
    let again = space.run_manifest(1);
    assert_eq!(
        (&again.node("done")["outcome"], &again.node("words")["outcome"]),
        (&"cached".into(), &"cached".into())
    );
    assert_eq!(space.result_text("words"), words, "what ran and what was cached are both done");
}

#[test]
fn a_parent_whose_outcome_is_named_blocks_nobody_but_others_do() {
    let space = Space::with(
        &[
            "[run]\non_failure = \"continue\"\n".to_string(),
            fails("a", ""),
            fails("b", ""),
            noop("c", "when = \"{{ nodes.a.outcome == 'failed' }}\"\nneeds = [\"b\"]"),
            noop("d", "when = \"{{ nodes.a.outcome == 'failed' }}\"\nneeds = [\"b\"]\nafter = \"any\""),
        ]
        .concat(),
    );
    assert_eq!(space.run_manifest(1).outcomes(), "a=failed b=failed c=blocked d=ran");
}

#[test]
fn a_clean_up_that_fails_is_a_failure_like_any_other() {
    let space = Space::with(&[noop("a", ""), fails("b", "after = \"any\"\nneeds = [\"a\"]")].concat());
    assert_eq!(space.run_manifest(1).outcomes(), "a=ran b=failed");
}

/// A node that goes where this says.
fn router(result: &str, route: &str) -> String {
    [
        value("r", result, &format!("route = \"{{{{ {route} }}}}\"")),
        value("x", "\"{{ nodes.r.result }}\"", ""),
        noop("y", "needs = [\"r\"]"),
        noop("z", "needs = [\"y\"]"),
        noop("free", ""),
    ]
    .concat()
}

#[test]
fn a_route_is_an_id_a_list_of_ids_or_null() {
    for (route, expected) in [
        ("'x'", "free=ran r=ran x=ran y=skipped z=skipped"),
        ("'y' if result > 3 else 'x'", "free=ran r=ran x=skipped y=ran z=ran"),
        ("['x', 'y']", "free=ran r=ran x=ran y=ran z=ran"),
        ("[]", "free=ran r=ran x=skipped y=skipped z=skipped"),
        ("none", "free=ran r=ran x=skipped y=skipped z=skipped"),
    ] {
        let space = Space::with(&router("5", route));
        let ended = space.run_manifest(0);
        assert_eq!(ended.outcomes(), expected, "{route}");
        if expected.contains("y=skipped") {
            assert_eq!(error(&ended, "y"), "the route of a node that it needs goes elsewhere");
        }
        assert_eq!(space.run_manifest(0).outcomes(), expected.replace("ran", "cached"), "{route}");
    }
}

#[test]
fn a_route_to_nowhere_fails_and_names_where_it_may_go() {
    for (route, why) in [
        ("'free'", "`{{ 'free' }}`: free is no node that needs r; those are x, y"),
        ("'xx'", "`{{ 'xx' }}`: xx is no node that needs r; those are x, y"),
        ("['x', 'z']", "`{{ ['x', 'z'] }}`: z is no node that needs r; those are x, y"),
        ("7", "`{{ 7 }}`: a route is an id, a list of ids or null, not 7"),
        ("result.no", "`{{ result.no }}`:"),
    ] {
        let space = Space::with(&router("{ n = 1 }", route));
        let ended = space.run_with(&["--keep-going"], 1);
        assert_eq!(ended.outcomes(), "free=ran r=failed x=blocked y=blocked z=blocked", "{route}");
        assert!(error(&ended, "r").starts_with(why), "{}", error(&ended, "r"));
        // Nor is it remembered as having worked.
        assert_eq!(space.run_with(&["--keep-going"], 1).node("r")["outcome"], "failed");
    }
}

#[test]
fn an_excluded_branch_may_be_joined_again() {
    let space = Space::with(
        &[
            value("r", "1", "route = \"{{ 'x' }}\""),
            value("x", "10", "needs = [\"r\"]"),
            value("y", "20", "needs = [\"r\"]"),
            value("join", "\"{{ [nodes.x.result, nodes.y.result] }}\"", "when_skipped = \"run\""),
        ]
        .concat(),
    );
    space.run_manifest(0);
    assert_eq!(space.result_text("join"), "[10,null]");
}

#[test]
fn exit_codes_of_the_language() {
    for (manifest, code) in [
        (noop("a", "when = \"{{ false }}\""), 0),
        (shell("a", "exit 1", "foreach = [1]\non_item_failure = \"null\""), 0),
        (shell("a", "exit 1", "foreach = [1]"), 1),
        (noop("a", "when = \"{{ 1 + 'a' }}\""), 1),
        (noop("a", "when = \"{{ nosuch }}\""), 2),
        (noop("a", "foreach = \"{{ range(3) }}\"\nchunk = 0"), 2),
    ] {
        let space = Space::with(&manifest);
        let ended = space.run(&RUN);
        assert_eq!(ended.code(), Some(code), "{manifest}\n{}", ended.stderr);
    }
}
