//! What stands in braces, and what it is worth.

use super::{error, noop, shell, value};
use crate::util::Space;

/// Runs nodes of `value` with these expressions, and returns their results.
fn worth(vars: &str, before: &str, expressions: &[&str]) -> Vec<String> {
    let node = |(at, text): (usize, &&str)| value(&format!("n{at}"), &format!("'''{text}'''"), "");
    let nodes: String = expressions.iter().enumerate().map(node).collect();
    let space = Space::with(&format!("[vars]\n{vars}\n{before}{nodes}"));
    space.run_manifest(0);
    (0..expressions.len()).map(|at| space.result_text(&format!("n{at}"))).collect()
}

#[test]
fn text_is_rendered() {
    let found = worth(
        "name = \"test\"\ncount = 42",
        &value("task_5", "{ result = 50 }", ""),
        &[
            "Hello {{ vars.name }}",
            "Name: {{ vars.name }}, Count: {{ vars.count }}, Result: {{ nodes.task_5.result.result }}",
        ],
    );
    assert_eq!(found, [r#""Hello test""#, r#""Name: test, Count: 42, Result: 50""#]);
}

#[test]
fn an_expression_alone_keeps_its_type() {
    let found = worth(
        "n = 3\nf = 1.5\nt = true\nl = [1, \"a\"]\no = { b = 1, a = { x = [] } }\ns = \"3\"",
        "",
        &[
            "{{ vars.n }}",
            " {{ vars.f }} ",
            "{{ vars.t }}",
            "{{ vars.l }}",
            "{{ vars.o }}",
            "{{ vars.s }}",
            "n{{ vars.n }}",
            "{{ vars.n }}{{ vars.n }}",
            "{{ none }}",
        ],
    );
    assert_eq!(
        found,
        ["3", "1.5", "true", r#"[1,"a"]"#, r#"{"a":{"x":[]},"b":1}"#, r#""3""#, r#""n3""#, r#""33""#, "null"]
    );
}

#[test]
fn values_are_reached_into() {
    let found = worth(
        "deep = { list = [{ x = 1 }, { x = 2 }] }",
        &value("a", "{ ids = [7, 8], scores = { best = 0.5 } }", ""),
        &[
            "{{ vars.deep.list[1].x }}",
            "{{ nodes.a.result.ids[0] + nodes.a.result.ids[-1] }}",
            "{{ nodes.a.result.scores['best'] * 2 }}",
            "{{ nodes.a.result.ids | length }}",
            "{{ nodes.a.result.none_such | default('none') }}",
            "{{ vars.deep.list | map(attribute='x') | list }}",
        ],
    );
    assert_eq!(found, ["2", "15", "1.0", "2", r#""none""#, "[1,2]"]);
}

#[test]
fn an_expression_may_be_anywhere_in_a_value() {
    let space = Space::with(
        r#"
        [vars]
        k = 2
        [[node]]
        id = "a"
        op = "value"
        params = { value = { list = [1, "{{ vars.k }}", { deep = "k={{ vars.k }}" }], plain = "x" } }
        [[node]]
        id = "b"
        op = "exec"
        run = ["echo", "{{ vars.k }}", "{{ nodes.a.result.list[1] }}"]
        env = { K = "{{ vars.k }}" }
        [[node]]
        id = "c"
        op = "value"
        params = { value = ["{{ nodes.a.result }}"] }
        "#,
    );
    space.run_manifest(0);
    assert_eq!(space.result_text("a"), r#"{"list":[1,2,{"deep":"k=2"}],"plain":"x"}"#);
    assert_eq!(space.result_text("b"), "2 2\n");
    assert_eq!(space.result_text("c"), r#"[{"list":[1,2,{"deep":"k=2"}],"plain":"x"}]"#);
}

#[test]
fn ids_that_are_no_plain_words_stand_in_quotes() {
    let space = Space::with(
        &[
            value("a-1", "{ x = 1 }", ""),
            value("b c", "2", ""),
            value("nodes.d", "3", ""),
            value(
                "sum",
                "\"{{ nodes['a-1'].result.x + nodes['b c'].result + nodes['nodes.d'].result }}\"",
                "",
            ),
            value("whole", "\"{{ nodes['b c'].result }}\"", ""),
            value("bare", "\"{{ nodes.a-1.result }}\"", ""),
            noop("w", "when = \"{{ nodes['a-1'].outcome == 'done' }}\""),
        ]
        .concat(),
    );
    assert_eq!(space.run_manifest(0).node("w")["outcome"], "ran");
    for (node, expected) in [("sum", "6"), ("whole", "2"), ("bare", r#"{"x":1}"#)] {
        assert_eq!(space.result_text(node), expected, "{node}");
    }
}

#[test]
fn text_results_are_strings_and_only_what_is_named_is_read() {
    let space = Space::with(
        &[
            shell("t", "printf 'two\\nlines'", ""),
            shell("j", "echo '{\"n\": 1}'", "output = \"json\""),
            value("a", "\"{{ nodes.t.result | lines | length + nodes.j.result.n }}\"", ""),
        ]
        .concat(),
    );
    space.run_manifest(0);
    assert_eq!(space.result_text("a"), "3");
}

#[test]
fn a_change_of_a_variable_runs_what_names_it() {
    let manifest = |k: u32| {
        [
            format!("[vars]\nk = {k}\nunused = {k}\n"),
            value("a", "\"{{ vars.k }}\"", ""),
            value("b", "1", ""),
            value("c", "\"{{ vars.k > 2 }}\"", ""),
        ]
        .concat()
    };
    let space = Space::with(&manifest(3));
    space.run_manifest(0);
    space.write("m.toml", manifest(4));
    assert_eq!(
        space.run_manifest(0).outcomes(),
        "a=ran b=cached c=cached",
        "the key has the value, not the words"
    );
}

#[test]
fn bytes_are_not_for_expressions() {
    let space = Space::with(
        &[
            shell("raw", "printf '\\377'", "output = \"bytes\""),
            value("a", "\"{{ nodes.raw.result | length }}\"", ""),
            value("whole", "\"{{ nodes.raw.result }}\"", ""),
        ]
        .concat(),
    );
    let ended = space.run_with(&["--keep-going"], 1);
    assert_eq!(
        error(&ended, "a"),
        "the result of raw is bytes, which no expression reads: pass it as a whole parameter"
    );
    assert_eq!(space.result("whole"), b"\xff");
}

#[test]
fn a_result_that_is_too_long_for_an_expression_goes_by_reference() {
    let space = Space::with(
        &[
            shell("big", "yes | head -c 9000000", ""),
            value("a", "\"{{ nodes.big.result | length }}\"", ""),
            shell("b", "wc -c", "stdin = \"{{ nodes.big.result }}\""),
        ]
        .concat(),
    );
    let ended = space.run_with(&["--keep-going"], 1);
    assert!(error(&ended, "a").starts_with("the result of big is longer than 8"), "{}", error(&ended, "a"));
    assert!(error(&ended, "a").contains("pass it as a whole parameter"));
    assert_eq!(space.result_text("b"), "9000000\n");
}

#[test]
fn nothing_is_endless() {
    let endless = [
        (
            "{% for i in range(1000000) %}{% for j in range(1000000) %}{% endfor %}{% endfor %}",
            "it took more than 10000000 steps",
        ),
        ("{% for i in range(1000000) %}0123456789{% endfor %}", "it makes more than 8"),
        ("{{ range(1000000) | join(nodes.x.result * 1000) | length }}", "it joins more than 8"),
        ("{{ nodes.x.result * 100000000 }}", "repeated string is too large"),
        ("{{ range(1000000000) | list | length }}", "at most 1,000,000"),
    ];
    for (text, why) in endless {
        let space = Space::with(
            &[
                value("x", "\"0123456789\"", ""),
                value("a", &format!("'''{{% if nodes.x.result %}}{{% endif %}}{text}'''"), ""),
            ]
            .concat(),
        );
        let ended = space.run_manifest(1);
        assert_eq!(ended.outcomes(), "a=failed x=ran", "{text}");
        assert!(error(&ended, "a").contains(why), "{text}: {}", error(&ended, "a"));
    }
}

#[test]
fn a_value_that_does_not_fit_its_parameter_fails_its_node() {
    let space = Space::with(
        &[
            value("x", "\"soon\"", ""),
            "[[node]]\nid = \"a\"\nop = \"sleep\"\nparams = { seconds = \"{{ nodes.x.result }}\" }\n".into(),
        ]
        .concat(),
    );
    let ended = space.run_manifest(1);
    assert_eq!(
        error(&ended, "a"),
        "parameter seconds: it must be a number of seconds from 0 to 1e9, not \"soon\""
    );
}

#[test]
fn what_looks_like_an_expression_can_be_written() {
    let found = worth(
        "",
        "",
        &["{{ '{{ x }}' }}", "{% raw %}{{ x }}{% endraw %}", "a{# not said #}b", "{ x }", "100%"],
    );
    assert_eq!(found, [r#""{{ x }}""#, r#""{{ x }}""#, r#""ab""#, r#""{ x }""#, r#""100%""#]);
}
